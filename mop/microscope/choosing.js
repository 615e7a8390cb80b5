// What is chosen, and the two episodes that follow from it: the intact one, and the changed one beside it, in step.
//
// All that is chosen is in `chosen`; `show` draws it, and the address holds it.

import { ACTION_NAMES } from "./geometry.js";
import { Phases } from "./phases.js";
import { Policy } from "./policy.js";
import { Actor, Episode } from "./rollouts.js";
import { show } from "./showing.js";

export const element = (id) => document.getElementById(id);
export const content = JSON.parse(element("content").textContent);
export const policies = content.policies.map((packed) => new Policy(packed));
export const phases = new Phases(content.worlds, content.palette);
export const other = content.policies.length - 1; // the policy on the right
export const START = { world: 0, t: 0, what: "none", memory: "gate-only", edits: [], hands: [] };
export const pools = []; // weights of all steps of each intact policy, once it was run in all worlds

export let chosen = START;
export let pair = []; // the episodes shown: the intact one, and the changed one where anything is changed
export let timer = null; // of what plays
const undone = []; // what was chosen before, for undo

export const mine = () => pair.at(-1); // the episode that hands and edits change

export function actorOf(k, what = "none", memory = "gate-only", pool = null) {
  return new Actor(policies[k], content.policies[k], phases, what, memory, pool);
}

/** The episode of the intact first policy in a world. */
export function intactEpisode(world) {
  return new Episode(actorOf(0), content.worlds[world], content.palette, world);
}

export function tell(text) {
  element("told").textContent = text;
}

// --- the address -----------------------------------------------------------------------------------------------------

/** What the address asks for; what it says wrongly is left out. */
function fromAddress() {
  const words = new URLSearchParams(location.hash.slice(1)), found = {};
  for (const [name, most] of [["world", content.worlds.length - 1], ["t", Infinity]]) {
    const value = Number(words.get(name));
    if (Number.isInteger(value) && value >= 0 && value <= most) found[name] = value;
  }
  for (const name of ["what", "memory"]) if (words.has(name)) found[name] = words.get(name);
  for (const name of ["edits", "hands"]) {
    try {
      const value = JSON.parse(words.get(name) ?? "[]");
      if (Array.isArray(value) && value.every(Array.isArray)) found[name] = value;
    } catch { /* not JSON: nothing is changed */ }
  }
  return found;
}

export function toAddress() {
  const asText = (value) => (typeof value === "object" ? JSON.stringify(value) : String(value));
  const changed = Object.keys(START).filter((name) => asText(chosen[name]) !== asText(START[name]));
  const text = new URLSearchParams(changed.map((name) => [name, asText(chosen[name])])).toString();
  try {
    history.replaceState(null, "", location.href.split("#")[0] + (text && `#${text}`));
  } catch { /* a frame without an address */ }
}

/** Show what the address asks for, or, where that cannot be, the first world. */
export function begin() {
  chosen = START;
  choose(fromAddress(), false);
}

// --- choosing --------------------------------------------------------------------------------------------------------

/** Change what is chosen; what cannot be is told, and nothing changes. */
export function choose(changes, isKept = true) {
  const before = chosen;
  chosen = { ...chosen, ...changes };
  try {
    pair = makePair();
    if (isKept) undone.push(before);
    tell("");
  } catch (error) {
    chosen = before;
    pair = makePair();
    tell(error.message);
  }
  goTo(chosen.t);
}

/** Play both episodes to their ends: a change that cannot be made at any step is refused before anything is shown. */
function makePair() {
  const { world, what, memory, edits, hands } = chosen, episodes = [intactEpisode(world)];
  if (other > 0 || what !== "none" || edits.length > 0 || hands.length > 0) {
    const actor = actorOf(other, what, memory, pools[other]);
    episodes.push(new Episode(actor, content.worlds[world], content.palette, world, edits, hands));
  }
  episodes.forEach((episode) => episode.at(Infinity));
  return episodes;
}

export function undo() {
  if (undone.length) choose(undone.pop(), false);
}

export function turnTo(world) {
  if (!(world in content.worlds)) {
    tell(`the worlds are 0 to ${content.worlds.length - 1}`);
    return;
  }
  stop();
  choose({ world, t: 0, edits: [], hands: [] });
}

/** Changes of the world at the step shown: one, or several together. */
export function edit(...changes) {
  stop();
  const { t, edits, hands } = chosen, kept = edits.filter(([when]) => when <= t);
  choose({ edits: [...kept, ...changes.map((one) => [t, ...one])], hands: hands.filter(([when]) => when < t) });
}

/** A hand acts in the policy's place at the step shown. */
export function takeOver(action) {
  stop();
  const { t } = chosen;
  if (mine().at(t).isLast) {
    tell("the episode is over: go back, or reset");
    return;
  }
  choose({ hands: [...chosen.hands.filter(([when]) => when < t), [t, action]] });
  tell(`you ${ACTION_NAMES[action]}; it would ${ACTION_NAMES[mine().at(t).action]}`);
  goTo(t + 1);
}

// --- time ------------------------------------------------------------------------------------------------------------

export const lastStep = () => Math.max(...pair.map((episode) => episode.length));

export function goTo(t) {
  chosen = { ...chosen, t: Math.max(0, Math.min(t, lastStep())) };
  show();
}

export function stop() {
  clearInterval(timer);
  timer = null;
  element("play").textContent = "▶ play";
}

export function play() {
  if (timer !== null) {
    stop();
    show();
    return;
  }
  if (chosen.t === lastStep()) goTo(0);
  element("play").textContent = "■ stop";
  timer = setInterval(() => {
    if (chosen.t + 1 >= lastStep()) stop();
    goTo(chosen.t + 1);
  }, 1000 / Number(element("speed").value));
}
