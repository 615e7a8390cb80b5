// The phases of a task: by the key or by what is carried, as mop/analysis/groups.py names them.
//
// The phase of a state is known before its action is. Where Python would split by the bot's sub-goals, which a page
// does not know, what is carried stands in for them.

import { EMPTY, codeNumber } from "./geometry.js";

const KEY_PHASES = ["before the key", "carrying the key", "door unlocked", "key dropped"];
const CARRYING_PHASES = ["hands empty", "carrying"];

/** The phases of a file. isByKey: whether Python splits its episodes by the key; labels: what they are called. */
export class Phases {
  constructor(isByKey) {
    this.labels = isByKey ? KEY_PHASES : CARRYING_PHASES;
  }

  /** The label of a state, before its action. */
  of(world) {
    if (this.labels === CARRYING_PHASES) return this.labels[world.carried === EMPTY ? 0 : 1];
    const isHeld = world.keys.has(codeNumber(world.carried));
    return this.labels[world.tUnlocked === null ? (isHeld ? 1 : 0) : isHeld ? 2 : 3];
  }
}
