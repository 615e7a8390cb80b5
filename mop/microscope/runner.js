// All worlds of a file, played in a worker, so that the page stays awake.

import { Phases } from "./phases.js";
import { Policy } from "./policy.js";
import { Actor, playWorld } from "./rollouts.js";

/** Plays all worlds of a file under an intervention. */
export class Runner {
  /** content: of document.py. */
  constructor(content) {
    this.content = content;
    this.policies = content.policies.map((packed) => new Policy(packed));
    this.phases = new Phases(content.by_key);
    this.pools = new Map();
  }

  /**
   * Play; asked: {policy, what, memory}; progress: called with the number of worlds that are done.
   *
   * Returns {outcomes: of `playWorld`, world and t of each step: Int32Array (M), weights: L Float32Arrays (M x E_l)}.
   */
  run({ policy, what, memory }, progress) {
    const { worlds, palette, policies } = this.content, packed = policies[policy], player = this.policies[policy];
    const pool = what.includes("shuffle") ? this.poolOf(policy) : null;
    const actor = new Actor(player, packed, this.phases, what, memory, pool);
    const world = [], t = [], weights = player.sizes.map(() => []);
    const outcomes = worlds.map((start, k) => {
      const outcome = playWorld(actor, start, palette, k, (answer, { steps }) => {
        world.push(k);
        t.push(steps);
        answer.routing.forEach((ofLayer, layer) => weights[layer].push(...ofLayer));
      });
      progress(k + 1);
      return outcome;
    });
    const taken = { world: Int32Array.from(world), t: Int32Array.from(t) };
    return { outcomes, ...taken, weights: weights.map((ofLayer) => Float32Array.from(ofLayer)) };
  }

  /** The weights of all steps of the intact policy. */
  poolOf(policy) {
    if (!this.pools.has(policy)) {
      this.pools.set(policy, this.run({ policy, what: "none", memory: "gate-only" }, () => {}).weights);
    }
    return this.pools.get(policy);
  }
}

/** Answer a page's messages: first {content}, then {id, asked}; with {id, done}, then {id, result} or {id, error}. */
export function serve(scope) {
  let runner = null;
  scope.onmessage = ({ data }) => {
    if (data.content) {
      runner = new Runner(data.content);
      return;
    }
    try {
      const result = runner.run(data.asked, (done) => scope.postMessage({ id: data.id, done }));
      scope.postMessage({ id: data.id, result });
    } catch (error) {
      scope.postMessage({ id: data.id, error: error.message });
    }
  };
}

/**
 * Find the steps at which an expert has most weight ("most"), least ("least"), or changes most ("change"), one a world.
 *
 * result: of `Runner.run`. Returns up to `count` of {world, t, value}, the first the most extreme.
 */
export function extremeSteps(result, layer, expert, order, count) {
  const weights = result.weights[layer], size = weights.length / result.world.length;
  const best = new Map();
  for (let k = 0; k < result.world.length; k++) {
    const weight = weights[k * size + expert], isFirst = result.t[k] === 0;
    const change = isFirst ? 0 : Math.abs(weight - weights[(k - 1) * size + expert]);
    const score = { most: weight, least: -weight, change }[order], world = result.world[k];
    if (best.has(world) && score <= best.get(world).score) continue;
    best.set(world, { world, t: result.t[k], score, value: order === "change" ? change : weight });
  }
  return [...best.values()].sort((one, other) => other.score - one.score).slice(0, count);
}
