// What the page shows of the two episodes at the step that is chosen.

import { addressOf, chosen, content, element, goTo, lastStep, mine } from "./choosing.js";
import { other, pair, policies, timer, toAddress } from "./choosing.js";
import { drawHidden, drawStrip, drawWorld, prepareCanvas } from "./draw.js";
import { ACTION_NAMES, EMPTY, describe } from "./geometry.js";
import { partsOf, parse } from "./interventions.js";
import { WOULD, findCauses, tellCauses } from "./why.js";

const STRIP_PX = 34; // height of a layer's strip
const FEWEST_STEPS = 12; // that a strip has room for
const IDLE_MS = 120; // after which nobody waits for the next step, and causes are looked for and the address is written

let stripped = {}; // the episode of which strips are drawn, their width, and its mean cost
let causes = []; // of the action shown
let search = null; // timer of the search for them

export const percent = (share) => `${(100 * share).toFixed(1)} %`;

/** An element with its properties, and texts and elements in it. */
export function made(tag, properties, ...parts) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...parts);
  return node;
}

/** A link to changes of what is chosen: it can be copied, and opened beside this page. */
export const linkTo = (changes, ...parts) => made("a", { href: addressOf(changes) }, ...parts);

/** Give each marked word its line of the glossary, shown while one points at the word or stands on it. */
export function explain() {
  for (const word of document.querySelectorAll("dfn")) {
    word.tabIndex = 0;
    word.setAttribute("aria-description", content.glossary[word.textContent.toLowerCase()]);
  }
}

export function show() {
  const state = mine().at(chosen.step);
  element("world").value = chosen.world;
  if (document.activeElement !== element("mission")) element("mission").value = state.world.mission;
  if (document.activeElement !== element("what")) element("what").value = chosen.intervention;
  element("memory").value = chosen.memory;
  Object.assign(element("time"), { max: lastStep(), value: chosen.step });
  element("clock").textContent = `step ${chosen.step}`;
  causes = [];
  showWorlds();
  showExperts(state);
  showActions(state);
  clearTimeout(search);
  if (timer !== null) return;
  search = setTimeout(showCauses, IDLE_MS);
}

// --- worlds ----------------------------------------------------------------------------------------------------------

function showWorlds() {
  for (const k of [0, 1]) element(`world${k}`).parentElement.hidden = k >= pair.length;
  const width = element("pair").clientWidth / pair.length - 12;
  pair.forEach((episode, k) => {
    const state = episode.at(chosen.step), canvas = element(`world${k}`), { world } = state;
    const side = Math.max(8, Math.floor(Math.min(width / world.width, (innerHeight - 270) / world.height)));
    drawEpisode(prepareCanvas(canvas, side * world.width, side * world.height), episode, chosen.step, side, true);
    const about = `the agent at ${world.x}, ${world.y} in a world of ${world.width} x ${world.height}`;
    canvas.setAttribute("aria-label", about);
    element(`name${k}`).textContent = nameOf(k);
    element(`caption${k}`).textContent = captionOf(state);
  });
}

/** Draw the world of an episode at a step, and the way to it; isMarked: frames around causes of the action shown. */
export function drawEpisode(context, episode, t, side, isMarked = false) {
  const { world, t: last } = episode.at(t), marks = isMarked && episode === mine() ? causeMarks(side) : [];
  drawWorld(context, world, side, marks, episode.states.slice(0, last + 1).map((past) => [past.world.x, past.world.y]));
}

function nameOf(k) {
  const names = content.policies.map(({ name }) => name);
  if (pair.length === 1) return names[0];
  if (k === 0) return `${names[0]}, intact`;
  return [other > 0 ? names[other] : "changed", chosen.intervention].filter((word) => word !== "none").join(": ");
}

function captionOf({ world, isLast, t, chosen: taken, action, phase, cost }) {
  const hand = world.carried === EMPTY ? "" : ` · carries the ${describe(world.carried)}`;
  const bot = world.botSteps === null ? "" : ` (the bot needs ${world.botSteps})`;
  if (isLast) return `${world.success ? "solved" : "not solved"} in ${t} steps${bot}${hand}`;
  const would = taken === action ? "" : `; it would ${WOULD[action]}`;
  return `${phase}${hand} · next: ${ACTION_NAMES[taken]}${would} · LPC ${cost.toFixed(0)}`;
}

// --- experts and actions ---------------------------------------------------------------------------------------------

function showExperts(state) {
  const { names } = content.policies[other];
  showStrips();
  names.forEach((ofLayer, layer) => ofLayer.forEach((_, e) => showExpert(layer, e, state.routing[layer][e])));
  element("cost").textContent = `of this step ${state.cost.toFixed(0)}, mean of the episode ${stripped.mean.toFixed(0)}`;
  if (element("memoryview").open) {
    const { layout } = policies[other], width = element("experts").clientWidth;
    const context = prepareCanvas(element("hidden"), width, 12 * Object.keys(layout).length);
    drawHidden(context, width, layout, state.hidden);
  }
}

/** Draw each layer's strip, once an episode: an episode may have thousands of steps. At each step only the frame moves. */
function showStrips() {
  const episode = mine(), { names, hues } = content.policies[other], width = element("layers").clientWidth;
  if (stripped.episode !== episode || stripped.width !== width) {
    const steps = episode.states.filter(({ isLast }) => !isLast);
    stripped = { episode, width, mean: steps.reduce((sum, { cost }) => sum + cost, 0) / steps.length };
    names.forEach((_, layer) => {
      const context = prepareCanvas(element(`strip${layer}`), width, STRIP_PX);
      drawStrip(context, width, STRIP_PX, steps.map(({ routing }) => routing[layer]), hues[layer], FEWEST_STEPS);
    });
  }
  const places = Math.max(episode.length, FEWEST_STEPS), [left, wide] = [chosen.step, 1].map((t) => (100 * t) / places);
  for (const frame of document.querySelectorAll(".strip i")) frame.style.cssText = `left: ${left}%; width: ${wide}%`;
}

/** The weight of an expert now; its slider stands where it is clamped, or at its mean. */
function showExpert(layer, e, weight) {
  const part = partsOf(parse(chosen.intervention)).find((one) => one.layer === layer && one.expert === e);
  const mean = content.policies[other].mean_routing[layer][e];
  element(`weight${layer}.${e}`).textContent = weight.toFixed(2);
  element(`slider${layer}.${e}`).value = { clamp: part?.value, lesion: 0 }[part?.kind] ?? mean;
  element(`out${layer}.${e}`).setAttribute("aria-pressed", part?.kind === "lesion");
}

/** Go to the step of a layer's strip that was clicked. */
export function goToStrip({ offsetX, currentTarget }) {
  goTo(Math.floor((offsetX / currentTarget.clientWidth) * Math.max(mine().length, FEWEST_STEPS)));
}

function showActions(state) {
  const intact = pair[0].at(chosen.step).action;
  element("actions").replaceChildren(...ACTION_NAMES.map((name, action) => {
    const isOther = state.action === action && intact !== action, probability = state.probabilities[action];
    const bar = made("i", { className: isOther ? "other" : "", style: `width: ${100 * probability}%` });
    return made("div", {}, name, made("span", {}, bar), probability.toFixed(2));
  }));
}

// --- why -------------------------------------------------------------------------------------------------------------

function showCauses() {
  toAddress();
  const state = mine().at(chosen.step);
  causes = findCauses(mine(), chosen.step);
  element("because").textContent = state.isLast ? "The episode is over." : tellCauses(state, causes);
  const items = causes.map(({ kind, name, size, action }) => {
    const where = { thing: "", carried: "in hand: ", memory: "seen at " }[kind];
    return made("li", {}, made("b", {}, where + name), ` ${size.toFixed(2)}: without it ${WOULD[action]}`);
  });
  element("causes").replaceChildren(...items);
  showWorlds();
  showEnds(items, 0);
}

/** Say how the episode ends without each cause, one after the other, so that the page stays awake. */
function showEnds(items, k) {
  if (k < items.length) search = setTimeout(() => {
    const { success, steps } = causes[k].goOn();
    items[k].append(success ? `, solved after ${steps}` : ", not solved");
    showEnds(items, k + 1);
  });
}

function causeMarks(side) {
  return causes
    .filter(({ kind, size }) => kind !== "memory" && size > 0.02)
    .map(({ x, y, size }) => ({ x, y, width: Math.max(1, size * side * 0.25), color: "#ff9f1a" }));
}
