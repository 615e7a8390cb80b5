// A policy in worlds: an episode that is played as far as one looks at it, and many episodes at once.
//
// An episode is a world, a policy, and what was changed: an intervention on the routers, edits of the world, and actions
// of a hand in the place of the policy's, each at its step. The same changes give the same episode.

import { Gates, applyMemory, parse } from "./interventions.js";
import { Policy, lpc } from "./policy.js";
import { argmax, softmax } from "./numbers.js";
import { World } from "./world.js";

/** What acts: a policy under an intervention. phases: of the file, for "in PHASE". */
export class Actor {
  /** what: text of an intervention; memory: one of VARIANTS; pool: see `Gates`. Throws Error for a bad text. */
  constructor(policy, packed, phases, what = "none", memory = "gate-only", pool = null) {
    Object.assign(this, { policy, phases, memory });
    this.intervention = parse(what);
    this.isIntact = this.intervention.kind === "none";
    const { phase } = this.intervention;
    if (phase !== null && !phases.labels.includes(phase)) {
      throw new Error(`the phases here are ${phases.labels.join(", ")}; not ${phase}`);
    }
    this.gates = this.isIntact ? null : new Gates(this.intervention, policy.sizes, packed.mean_routing, pool);
  }

  /** One step: of `Policy.step`, with the observation and the action that the policy would take. */
  act(world, hidden, episode = 0) {
    const obs = world.observe();
    const { phase } = this.intervention;
    const isOn = !this.isIntact && (phase === null || this.phases.of(world) === phase);
    const gate = isOn ? this.gates.at(episode, world.steps, true) : null;
    const answer = this.policy.step(obs, this.policy.lang(world.mission), hidden, gate);
    if (isOn) answer.hidden = applyMemory(this.memory, this.policy, answer.routing, hidden, answer.hidden);
    return { ...answer, obs, action: argmax(answer.logits) };
  }
}

/** Change a world in one of the ways of `World`; edit: [name of its method, ...arguments]. */
export function applyEdit(world, [name, ...values]) {
  if (!["remove", "put", "setDoor", "moveAgent", "setMission"].includes(name)) throw new Error(`no edit ${name}`);
  world[name](...values);
  if (name === "setMission") world.begin();
}

/**
 * An episode of which any state can be looked at; it plays on as far as it is asked to.
 *
 * edits: [[t, name, ...arguments]]; hands: Map of t -> action that is taken in the policy's place.
 */
export class Episode {
  constructor(actor, start, palette, number, edits = [], hands = new Map()) {
    Object.assign(this, { actor, number, edits, hands });
    this.states = []; // t -> {world, before (S), logits, routing, hidden, obs, action, chosen, probabilities, cost, phase}
    this.world = new World(start, palette);
    this.hidden = actor.policy.zeroHidden();
    this.limit = this.world.maxSteps;
  }

  get isOver() { return this.world.terminated || this.world.truncated; }

  /** The state at step t, or the last one: of the last no action was taken. */
  at(t) {
    while (this.states.length <= t && !this.isEnded) this.advance();
    return this.states[Math.min(t, this.states.length - 1)];
  }

  /** Number of actions of the whole episode. */
  get length() {
    this.at(Infinity);
    return this.states.length - 1;
  }

  get isEnded() { return this.states.length > 0 && this.states.at(-1).isLast; }

  advance() {
    const { world, hidden, actor } = this, t = this.states.length;
    for (const [when, ...edit] of this.edits) if (when === t) applyEdit(world, edit);
    const answer = actor.act(world, hidden, this.number), isLast = this.isOver;
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

/** Play a world from a state on, without keeping its steps; returns the world at its end. */
export function playOn(actor, world, hidden, episode = 0, mostSteps = Infinity) {
  for (let taken = 0; !world.terminated && !world.truncated && taken < mostSteps; taken++) {
    const answer = actor.act(world, hidden, episode);
    hidden = answer.hidden;
    world.step(answer.action);
  }
  return world;
}

/**
 * Play an episode in a world; returns {success, steps, phase (of its last state), costs (mean LPC), byPhase}.
 *
 * see: called with (t, answer, world) at every step, before its action.
 */
export function playWorld(actor, start, palette, episode, see = null) {
  const world = new World(start, palette), { sizes } = actor.policy;
  let hidden = actor.policy.zeroHidden(), cost = 0, phase = "";
  while (!world.terminated && !world.truncated) {
    phase = actor.phases.of(world);
    const answer = actor.act(world, hidden, episode);
    if (see !== null) see(world.steps, answer, world);
    cost += lpc(answer.routing, sizes);
    hidden = answer.hidden;
    world.step(answer.action);
  }
  return { success: world.success, steps: world.steps, phase, cost: cost / world.steps };
}

/** Numbers from 0 to 1 that look random and are the same each time (mulberry32). */
export function seededNumbers(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
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
  const random = seededNumbers(0), means = [];
  for (let sample = 0; sample < 1000; sample++) {
    let sum = 0;
    for (let k = 0; k < count; k++) sum += differences[Math.floor(random() * count)];
    means.push(sum / count);
  }
  means.sort((one, other) => one - other);
  const quantile = (share) => {
    const place = share * (means.length - 1), below = Math.floor(place);
    return means[below] + (place - below) * (means[Math.min(below + 1, means.length - 1)] - means[below]);
  };
  return { mean, low: quantile(0.025), high: quantile(0.975) };
}
