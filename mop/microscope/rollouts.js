// A policy in worlds: an episode that is played as far as one looks at it, and many episodes at once.
//
// An episode is a world, a policy, and what was changed: an intervention on the routers, edits of the world, and
// actions of a hand in the place of the policy's, each at its step. The same changes give the same episode.

import { ACTION_NAMES } from "./geometry.js";
import { Gates, VARIANTS, applyMemory, parse } from "./interventions.js";
import { argmax, randomBelow, softmax } from "./numbers.js";
import { lpc } from "./policy.js";
import { World } from "./world.js";

/** What acts: a policy under an intervention. phases: of the file, for "in PHASE". */
export class Actor {
  /** what: text of an intervention; memory: one of VARIANTS; pool: see `Gates`. Throws Error for a bad text. */
  constructor(policy, phases, what = "none", memory = "gate-only", pool = null) {
    const intervention = parse(what), { phase } = intervention;
    if (!VARIANTS.includes(memory)) throw new Error(`the memory is one of ${VARIANTS.join(", ")}`);
    if (phase !== null && !phases.labels.includes(phase)) {
      throw new Error(`the phases here are ${phases.labels.join(", ")}; not ${phase}`);
    }
    const gates = new Gates(intervention, policy.sizes, policy.meanRouting, pool);
    Object.assign(this, { policy, phases, phase, memory, gates });
  }

  /** One step: of `Policy.step`, with the observation and the action that the policy would take. */
  act(world, hidden, episode) {
    const obs = world.observe(), isOn = this.phase === null || this.phases.of(world) === this.phase;
    const gate = this.gates.at(episode, world.steps, isOn);
    const answer = this.policy.step(obs, this.policy.lang(world.mission), hidden, gate);
    if (gate !== null) answer.hidden = applyMemory(this.memory, this.policy, answer.routing, hidden, answer.hidden);
    return { ...answer, obs, action: argmax(answer.logits) };
  }
}

const EDITS = { remove: 2, put: 3, move: 4, setDoor: 3, moveAgent: 3, setMission: 1 }; // how many arguments each has

/** Change a world in one of the ways of `World`; edit: [name of its method, ...arguments]. */
function applyEdit(world, [name, ...values]) {
  const isWhole = name === "setMission" ? typeof values[0] === "string" : values.every(Number.isInteger);
  if (!Object.hasOwn(EDITS, name) || values.length !== EDITS[name] || !isWhole) throw new Error(`${name} is no edit`);
  world[name](...values);
  if (name === "setMission") world.begin();
}

/**
 * An episode of which any state can be looked at; it plays on as far as it is asked to.
 *
 * edits: [[t, name, ...arguments]]; hands: [[t, action]], actions that are taken in the policy's place.
 */
export class Episode {
  constructor(actor, start, palette, number, edits = [], hands = []) {
    const known = hands.every(([t, action]) => Number.isInteger(t) && ACTION_NAMES[action] !== undefined);
    if (!known) throw new Error(`a hand acts by [step, action], the action from 0 to ${ACTION_NAMES.length - 1}`);
    Object.assign(this, { actor, number, edits, hands: new Map(hands) });
    this.states = []; // t -> {world, before (S), logits, routing, hidden, obs, action, chosen, probabilities, ...}
    this.world = new World(start, palette);
    this.hidden = actor.policy.zeroHidden();
  }

  /** The state at step t, or the last one: of the last no action was taken. */
  at(t) {
    while (this.states.length <= t && !this.states.at(-1)?.isLast) this.advance();
    return this.states[Math.min(t, this.states.length - 1)];
  }

  /** Number of actions of the whole episode. */
  get length() { return this.at(Infinity).t; }

  advance() {
    const { world, hidden, actor } = this, t = this.states.length;
    for (const [when, ...edit] of this.edits) if (when === t) applyEdit(world, edit);
    const answer = actor.act(world, hidden, this.number), isLast = world.isOver;
    const chosen = this.hands.get(t) ?? answer.action;
    this.states.push({
      ...answer, t, chosen, isLast, before: hidden, world: world.clone(), phase: actor.phases.of(world),
      probabilities: softmax(answer.logits), cost: lpc(answer.routing, actor.policy.sizes),
    });
    if (isLast) return;
    this.hidden = answer.hidden;
    world.step(chosen);
  }
}

/** Play a world from a state on; see: called with each answer, before its action. Returns the world. */
export function playOn(actor, world, hidden, episode, see = () => {}) {
  while (!world.isOver) {
    const answer = actor.act(world, hidden, episode);
    see(answer);
    hidden = answer.hidden;
    world.step(answer.action);
  }
  return world;
}

/**
 * Compare outcomes in the same worlds: the mean difference with its 95 % interval, of 1,000 resamples of the worlds.
 *
 * before, after: W numbers. The interval is [NaN, NaN] of fewer than 5 worlds.
 */
export function pairedDifference(before, after) {
  const differences = before.map((value, k) => after[k] - value), count = differences.length;
  const mean = differences.reduce((sum, value) => sum + value, 0) / count;
  if (count < 5) return { mean, low: NaN, high: NaN };
  const means = [];
  for (let sample = 0; sample < 1000; sample++) {
    let sum = 0;
    for (let k = 0; k < count; k++) sum += differences[randomBelow(count, sample, k)];
    means.push(sum / count);
  }
  means.sort((one, other) => one - other);
  return { mean, low: means[25], high: means[974] };
}
