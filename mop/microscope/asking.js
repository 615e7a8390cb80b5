// Questions to all worlds of the file: what an intervention changes, at which steps an expert matters, a tour.

import { BEGUN, START, choose, chosen, content, element, intactEpisode, other } from "./choosing.js";
import { phases, pools, tell } from "./choosing.js";
import { drawWorld, prepareCanvas } from "./draw.js";
import { ACTION_NAMES } from "./geometry.js";
import { pairedDifference } from "./rollouts.js";
import { extremeSteps } from "./runner.js";
import { linkTo, made, percent } from "./showing.js";

const NUM_STEPS = 20; // that are shown of an expert
const NUM_LINKS = 30; // to worlds

const answers = new Map(); // question -> promise of its result
let worker = null;

/** Play all worlds, in a worker; the same question once. */
function runAll(policy, what = "none", memory = "gate-only") {
  const asked = { policy, what, memory }, name = JSON.stringify(asked);
  if (!answers.has(name)) answers.set(name, ask(asked));
  return answers.get(name);
}

async function ask(asked) {
  if (worker === null) {
    const source = `"use strict";${element("library").textContent}\nserve(self);`;
    worker = new Worker(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
    worker.postMessage({ content });
  }
  const { port1, port2 } = new MessageChannel(), progress = element("progress");
  worker.postMessage({ asked }, [port2]);
  const { result, error } = await new Promise((resolve) => {
    port1.onmessage = ({ data }) => {
      progress.textContent = data.done === undefined ? "" : `${data.done} of ${content.worlds.length} worlds`;
      if (data.done === undefined) resolve(data);
    };
  });
  if (error !== undefined) throw new Error(error);
  if (asked.what === "none") pools[asked.policy] = result.weights;
  return result;
}

// --- what an intervention changes ------------------------------------------------------------------------------------

export async function showEffect() {
  const { intervention: what, memory } = chosen;
  try {
    const before = await runAll(0);
    if (other > 0) await runAll(other);
    const after = await runAll(other, what, memory);
    element("effect").replaceChildren(...effectLines(before.outcomes, after.outcomes, what));
    explain();
  } catch (error) {
    tell(error.message);
  }
}

function effectLines(before, after, what) {
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const [solved, solvedAfter] = [before, after].map((outcomes) => outcomes.map(({ success }) => Number(success)));
  const [cost, costAfter] = [before, after].map((outcomes) =>
    (mean(outcomes.map((outcome) => outcome.cost)) / mean(outcomes.map(({ steps }) => steps))).toFixed(0)); // of a step
  const worlds = [...before.keys()], { mean: change, low, high } = pairedDifference(solved, solvedAfter);
  const lost = worlds.filter((k) => solved[k] > solvedAfter[k]);
  const gained = worlds.filter((k) => solved[k] < solvedAfter[k]);
  const same = worlds.filter((k) => before[k].success === content.policies[0].solved[k]).length;
  const rates = [percent(mean(solved)), percent(mean(solvedAfter))], where = what === "none" ? "here" : `with ${what}`;
  const ends = phases.labels.map((label) => [label, lost.filter((k) => after[k].phase === label).length]);
  // where the two first act differently
  const parting = (k) => Math.max(0, before[k].actions.findIndex((action, t) => action !== after[k].actions[t]));
  const links = (worlds) => [
    ...worlds.slice(0, NUM_LINKS).flatMap((world) => [linkTo({ ...BEGUN, world, step: parting(world) }, world), " "]),
    worlds.length > NUM_LINKS ? `and ${worlds.length - NUM_LINKS} more` : "",
  ];
  const told = ends.filter(([, count]) => count > 0).map((end) => end.join(" ")).join(", ");
  const ratios = [before, after].map((outcomes) => mean(outcomes.flatMap(({ success, steps }, k) =>
    (success ? [steps / content.worlds[k].bot_steps] : []))).toFixed(2).replace("NaN", "of none"));
  return [
    line(`success ${rates[0]} intact, ${rates[1]} ${where}, in ${before.length} worlds`),
    line(`paired change ${percent(change)} (95 % `, term("interval"), ` ${percent(low)} to ${percent(high)})`),
    line("mean ", term("LPC"), ` ${cost}, then ${costAfter}; `, term("path ratio"), ` ${ratios.join(", then ")}`),
    line(`${lost.length} lost: `, ...links(lost)),
    line(`${gained.length} gained: `, ...links(gained)),
    line(...(told ? ["lost ones end, by ", term("phase"), `: ${told}`] : [])),
    made("p", { className: "quiet" }, `intact, ${same} of ${before.length} end as they do in Python`),
  ];
}

const line = (...parts) => made("p", {}, ...parts);
const term = (word) => made("dfn", {}, word);

// --- the steps of an expert ------------------------------------------------------------------------------------------

/** The steps over all worlds at which an expert has most weight (least, the largest change), to be opened. */
export async function showSteps() {
  const [layer, expert] = element("expert").value.split(".").map(Number);
  const found = extremeSteps(await runAll(0), layer, expert, element("order").value, NUM_STEPS);
  element("steps").replaceChildren(...found.map(stepLink));
}

function stepLink({ world, t, value }) {
  const canvas = made("canvas", {}), state = intactEpisode(world).at(t), side = Math.floor(110 / state.world.width);
  drawWorld(prepareCanvas(canvas, side * state.world.width, side * state.world.height), state.world, side);
  const link = linkTo({ ...BEGUN, world, step: t }, canvas, `${value.toFixed(2)} ${ACTION_NAMES[state.action]}`);
  link.title = `world ${world}, step ${t}: ${state.world.mission}`;
  return link;
}

// --- interventions of a button ---------------------------------------------------------------------------------------

/** Leave out the expert with the largest mean weight of those that have others beside them; "none": there are none. */
export function mostUsed() {
  const several = content.policies[other].mean_routing.map((means) => (means.length > 1 ? means : []));
  const most = Math.max(...several.flat()), layer = several.findIndex((means) => means.includes(most));
  return layer < 0 ? "none" : `lesion ${layer}.${several[layer].indexOf(most)}`;
}

export function uniformText() {
  const layers = content.policies[other].names.map((names, layer) => (names.length > 1 ? `uniform ${layer}` : ""));
  return layers.filter(Boolean).join(" + ") || "none";
}

// --- the tour --------------------------------------------------------------------------------------------------------

let stopNumber = 0;

/** Show the next of five things to see of this policy, found by playing its worlds. */
export async function nextStop() {
  const intervention = mostUsed(), { outcomes } = await runAll(0), after = (await runAll(other, intervention)).outcomes;
  const first = Math.max(0, outcomes.findIndex(({ success }) => success));
  const failed = outcomes.findIndex(({ success }) => !success);
  const lost = outcomes.findIndex(({ success }, k) => success && !after[k].success);
  const stops = [
    ["An episode that it solves: the strips show the experts' weights, layer by layer. Press k.", { world: first }],
    lost < 0
      ? [`Without its most used expert (${intervention}), it solves all that it solved.`, { intervention }]
      : [`Without its most used expert (${intervention}), it fails here. Play both.`, { world: lost, intervention }],
    ["Why does it act so? What is framed matters now: the thicker, the more. On the right, what it would do without.",
      { world: first, step: outcomes[first].steps - 1 }],
    failed < 0
      ? ["It solves all worlds of this file. With equal weights for all?", { world: first, intervention: uniformText() }]
      : ["A world in which it fails: watch where it gets stuck.", { world: failed }],
    ["Your turn: take over with the arrow keys, then Enter to hand back. Can it finish?", { world: first }],
  ];
  const place = stopNumber++ % stops.length, [text, changes] = stops[place];
  choose({ ...START, ...changes });
  tell(`${place + 1} of ${stops.length}: ${text}`);
}
