// What is chosen, and the two episodes that follow from it: the intact one, and the changed one beside it, in step.
//
// All that is chosen is in `chosen`; `show` draws it, and the address holds it.

import { Phases } from "./phases.js";
import { Policy } from "./policy.js";
import { Actor, Episode } from "./rollouts.js";
import { show } from "./showing.js";
import { WOULD } from "./why.js";

export const element = (id) => document.getElementById(id);
export const content = JSON.parse(element("content").textContent);
export const policies = content.policies.map((packed) => new Policy(packed));
export const phases = new Phases(content.by_key);
export const other = content.policies.length - 1; // the policy on the right
export const START = { world: 0, step: 0, intervention: "none", memory: "gate-only", edits: [], hands: [] };
export const BEGUN = { step: 0, edits: [], hands: [] }; // another episode, by the same policy
export const pools = []; // weights of all steps of each intact policy, once it was run in all worlds

export let chosen = START;
export let pair = []; // the episodes shown: the intact one, and the changed one where anything is changed
export let timer = null; // of what plays
const undone = []; // what was chosen before, for undo

export const mine = () => pair.at(-1); // the episode that hands and edits change

/** The episode of the intact first policy in a world. */
export function intactEpisode(world) {
  return new Episode(new Actor(policies[0], phases), content.worlds[world], content.palette, world);
}

export const tell = (text) => { element("told").textContent = text; };

// --- the address -----------------------------------------------------------------------------------------------------

/** What the address asks for, or where it has no state, the document: values as `choose` takes and judges them. */
export function fromAddress() {
  const words = new URLSearchParams(location.hash.slice(1) || document.body.dataset.state), found = {};
  for (const [name, text] of words) {
    if (name === "seed") found.world = content.worlds.findIndex(({ seed }) => String(seed) === text);
    else if (Object.hasOwn(START, name)) found[name] = typeof START[name] === "string" ? text : numbersOf(text);
  }
  return { ...START, ...found };
}

/** A number, or lists of numbers and words; null where the text is neither. */
function numbersOf(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** The address of this page with changes of what is chosen; the world is always said. */
export function addressOf(changes = {}) {
  const asText = (value) => (typeof value === "object" ? JSON.stringify(value) : String(value));
  const said = Object.entries({ ...chosen, ...changes }).map(([name, value]) => [name, asText(value)]);
  const differing = said.filter(([name, text]) => name === "world" || text !== asText(START[name]));
  return `${location.href.split("#")[0]}#${new URLSearchParams(differing)}`;
}

export function toAddress() {
  try {
    history.replaceState(null, "", addressOf());
  } catch { /* a frame without an address */ }
}

// --- choosing --------------------------------------------------------------------------------------------------------

/** Change what is chosen; what cannot be is told, and nothing changes. Returns whether it could be. */
export function choose(changes, isKept = true) {
  const before = chosen;
  let reason = "";
  chosen = { ...chosen, ...changes };
  try {
    pair = makePair();
    if (isKept) undone.push(before);
  } catch (error) {
    reason = error.message;
    chosen = before;
    if (pair.length === 0) pair = makePair();
  }
  tell(reason);
  goTo(chosen.step);
  return reason === "";
}

/** Play both episodes to their ends: a change that cannot be made at any step is refused before anything is shown. */
function makePair() {
  const { world, step, intervention, memory, edits, hands } = chosen;
  const isHere = [world, step].every(Number.isInteger) && world in content.worlds && step >= 0;
  if (!isHere) throw new Error(`this is not here: the worlds are 0 to ${content.worlds.length - 1}, steps count from 0`);
  const episodes = [pair[0]?.number === world ? pair[0] : intactEpisode(world)];
  if (other > 0 || intervention !== "none" || edits.length > 0 || hands.length > 0) {
    const actor = new Actor(policies[other], phases, intervention, memory, pools[other]);
    episodes.push(new Episode(actor, content.worlds[world], content.palette, world, edits, hands));
  }
  episodes.forEach((episode) => episode.at(Infinity));
  return episodes;
}

export const undo = () => undone.length > 0 && choose(undone.pop(), false);

export function turnTo(world) {
  stop();
  choose({ ...BEGUN, world });
}

/** Changes of the world at the step shown: one, or several together. */
export function edit(...changes) {
  stop();
  const { step: t, edits, hands } = chosen, kept = edits.filter(([when]) => when <= t);
  choose({ edits: [...kept, ...changes.map((one) => [t, ...one])], hands: hands.filter(([when]) => when < t) });
}

/** A hand acts in the policy's place at the step shown. */
export function takeOver(action) {
  stop();
  const { step: t } = chosen;
  if (mine().at(t).isLast) {
    tell("the episode is over: go back, or reset");
    return;
  }
  choose({ hands: [...chosen.hands.filter(([when]) => when < t), [t, action]] });
  tell(`you ${WOULD[action]}; it would ${WOULD[mine().at(t).action]}`);
  goTo(t + 1);
}

// --- time ------------------------------------------------------------------------------------------------------------

export const lastStep = () => Math.max(...pair.map((episode) => episode.length));

export function goTo(t) {
  chosen = { ...chosen, step: Math.max(0, Math.min(t, lastStep())) };
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
  if (chosen.step === lastStep()) goTo(0);
  element("play").textContent = "■ stop";
  timer = setInterval(() => {
    if (chosen.step + 1 >= lastStep()) stop();
    goTo(chosen.step + 1);
  }, 1000 / Number(element("speed").value));
}
