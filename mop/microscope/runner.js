// All worlds of a file, played in a worker, so that the page stays awake.

import { Phases } from "./phases.js";
import { Policy, lpc } from "./policy.js";
import { Actor, playOn } from "./rollouts.js";
import { World } from "./world.js";

/**
 * What plays all worlds of a file, content of document.py, under an intervention: a function of {policy, what, memory}
 * and `progress`, which is called with the number of worlds that are done.
 *
 * It returns {outcomes: of each world {success, steps, actions, phase (of the last action), cost (LPC of all its
 * steps)}, world and t of each step (M), weights: L Float32Arrays (M x E_l)}.
 */
function makeRunner({ policies, worlds, palette, by_key: isByKey }) {
  const players = policies.map((packed) => new Policy(packed)), phases = new Phases(isByKey);
  const pools = []; // weights of all steps of each intact policy, once it was run: for shuffle
  return ({ policy, what, memory }, progress) => {
    const player = players[policy], actor = new Actor(player, phases, what, memory, pools[policy]);
    const world = [], t = [], lists = player.sizes.map(() => []);
    const outcomes = worlds.map((start, k) => {
      const played = new World(start, palette), actions = [];
      let phase = "", cost = 0; // of the last action; of all
      playOn(actor, played, player.zeroHidden(), k, ({ routing, action }) => {
        actions.push(action);
        world.push(k);
        t.push(played.steps);
        routing.forEach((ofLayer, layer) => lists[layer].push(...ofLayer));
        phase = phases.of(played);
        cost += lpc(routing, player.sizes);
      });
      progress(k + 1);
      return { success: played.success, steps: played.steps, actions, phase, cost };
    });
    const weights = lists.map((ofLayer) => Float32Array.from(ofLayer));
    if (what === "none") pools[policy] = weights;
    return { outcomes, world, t, weights };
  };
}

/** Answer a page's messages: first {content}, then {asked} with a port: there with {done}, then {result} or {error}. */
export function serve(scope) {
  let run = null;
  scope.onmessage = ({ data: { content, asked }, ports: [port] }) => {
    if (content) {
      run = makeRunner(content);
      return;
    }
    try {
      port.postMessage({ result: run(asked, (done) => port.postMessage({ done })) });
    } catch ({ message }) {
      port.postMessage({ error: message });
    }
  };
}

/**
 * Find the steps at which an expert has most weight ("most"), least ("least"), or changes most ("change"), one a world.
 *
 * result: of what `makeRunner` makes. Returns up to `count` of {world, t, value}, the first the most extreme.
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
