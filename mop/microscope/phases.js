// The phases of a task: by the key or by what is carried, as mop/analysis/groups.py names them.
//
// The phase of a state is known before its action is. Where Python would split by the bot's sub-goals, which a page
// does not know, what is carried stands in for them.

import { EMPTY, KEY, LOCKED, codeColor, codeKind, codeNumber, isDoor } from "./geometry.js";

const KEY_PHASES = ["before the key", "carrying the key", "door unlocked", "key dropped"];
const CARRYING_PHASES = ["hands empty", "carrying"];

/** The phases of a file. isByKey: whether Python splits its episodes by the key; labels: what they are called. */
export class Phases {
  constructor(isByKey) {
    this.labels = isByKey ? KEY_PHASES : CARRYING_PHASES;
    this.keys = new WeakMap(); // the grid at the beginning of an episode -> numbers of its keys
  }

  /** The label of a state, before its action. */
  of(world) {
    if (this.labels === CARRYING_PHASES) return this.labels[world.carried === EMPTY ? 0 : 1];
    const isHeld = this.keysOf(world).has(codeNumber(world.carried));
    return this.labels[world.tUnlocked === null ? (isHeld ? 1 : 0) : isHeld ? 2 : 3];
  }

  keysOf(world) {
    if (!this.keys.has(world.startCodes)) this.keys.set(world.startCodes, keyNumbers(world));
    return this.keys.get(world.startCodes);
  }
}

/**
 * Find the numbers of the keys that open a door which was locked when the episode began; of all keys, where none was.
 * What was carried then counts as a key.
 */
function keyNumbers(world) {
  const { startCodes: codes, startCarried } = world;
  const colors = new Set(Array.from(codes.filter((code) => isDoor(code, LOCKED)), codeColor));
  const keys = codes.filter((code) => codeKind(code) === KEY && (colors.size === 0 || colors.has(codeColor(code))));
  const numbers = new Set(Array.from(keys, codeNumber));
  if (startCarried !== EMPTY) numbers.add(codeNumber(startCarried));
  return numbers;
}
