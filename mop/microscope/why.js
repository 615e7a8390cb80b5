// Why the policy acts as it does at a step: the true effect of each thing that it sees and of each step that it
// remembers, by taking it away in a copy of the world and letting the policy go on.

import { softmax } from "./numbers.js";
import { EMPTY, describe } from "./geometry.js";
import { playOn } from "./rollouts.js";

const FELT = 0.005; // size from which a cause is told
const MOST = 8; // causes that are told
const NUM_REMEMBERED = 8; // steps back that are forgotten one at a time

/** Half the sum of absolute differences: 0 for equal probabilities, 1 for disjoint ones. */
export function totalVariation(one, other) {
  return one.reduce((sum, value, k) => sum + Math.abs(value - other[k]), 0) / 2;
}

/**
 * List causes of the action at step t, the strongest first: up to MOST that change the action or are felt.
 *
 * Each is {kind: "thing" | "carried" | "memory", name, x, y, t, size (total variation of the action's probabilities),
 * action (the likeliest without it), goOn: () => the world at the end of the episode without it, to be asked once}.
 */
export function findCauses(episode, t) {
  const state = episode.at(t), { actor } = episode;
  if (state.isLast) return [];
  const causes = [];
  const judge = (about, change, hidden = state.before) => {
    const world = state.world.clone();
    change(world);
    const answer = actor.act(world, hidden, episode.number), { action } = answer;
    const size = totalVariation(state.probabilities, softmax(answer.logits));
    const goOn = () => { world.step(action); return playOn(actor, world, answer.hidden, episode.number); };
    if (size >= FELT || action !== state.action) causes.push({ ...about, size, action, goOn });
  };
  for (const { x, y, code } of state.world.things()) { // `remove` would leave the outermost cells as they are
    judge({ kind: "thing", name: describe(code), x, y }, (world) => world.change(x, y, EMPTY));
  }
  const { carried, x, y } = state.world;
  if (carried !== EMPTY) judge({ kind: "carried", name: describe(carried), x, y }, (world) => world.emptyHand());
  for (let left = t - 1; left >= Math.max(0, t - NUM_REMEMBERED); left--) {
    judge({ kind: "memory", name: `step ${left}`, t: left }, () => {}, hiddenWithout(episode, t, left));
  }
  return causes.sort((one, other) => other.size - one.size).slice(0, MOST);
}

/** The hidden state before step t, had the policy not seen step `left`: through that one, its memory stays. */
function hiddenWithout(episode, t, left) {
  let hidden = episode.at(left).before;
  for (let k = left + 1; k < t; k++) hidden = episode.actor.act(episode.at(k).world, hidden, episode.number).hidden;
  return hidden;
}

const DOES = ["turns left", "turns right", "goes forward", "picks up", "drops", "toggles", "says done"];
export const WOULD = ["turn left", "turn right", "go forward", "pick up", "drop", "toggle", "say done"];
const ABOUT = { thing: "it sees the", carried: "it carries the", memory: "it remembers what it saw at" };

/** Say the causes in a sentence: what the policy does, and what it would do without the strongest of them. */
export function tellCauses(state, causes) {
  const does = `It ${DOES[state.action]}`, strong = causes.find(({ action }) => action !== state.action);
  if (strong) {
    return `${does} because ${ABOUT[strong.kind]} ${strong.name}; without it, it would ${WOULD[strong.action]}.`;
  }
  if (causes.length === 0) return `${does}, whatever single thing or memory is taken away.`;
  const { kind, name, size } = causes[0], what = kind === "memory" ? `what it saw at ${name}` : `the ${name}`;
  return `${does}, whatever single thing is taken away; most depends on ${what}, ${size.toFixed(2)} of probability.`;
}
