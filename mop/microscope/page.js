// The page: what is shown of two episodes in step, the intact one and the changed one, and what changes them.
//
// All that is chosen is in `chosen`; `show` draws it, and the address holds it.

import { ACTION_NAMES, COLOR_NAMES, DOOR, EMPTY, KEY, WALL, codeColor, codeKind, codeState, describe, makeCode } from "./geometry.js";
import { cellAt, drawHidden, drawStrip, drawWorld, prepareCanvas } from "./draw.js";
import { parse, textOf, together } from "./interventions.js";
import { argmax } from "./numbers.js";
import { Phases } from "./phases.js";
import { Policy } from "./policy.js";
import { Actor, Episode, applyEdit, pairedDifference } from "./rollouts.js";
import { extremeSteps, serve } from "./runner.js";
import { World } from "./world.js";
import { findCauses, tellCauses } from "./why.js";

const content = JSON.parse(document.getElementById("content").textContent);
const policies = content.policies.map((packed) => new Policy(packed));
const phases = new Phases(content.worlds, content.palette);
const other = content.policies.length - 1; // the policy on the right
const START = { world: 0, t: 0, what: "none", memory: "gate-only", edits: [], hands: [] };
const KEYS = { ArrowLeft: 0, ArrowRight: 1, ArrowUp: 2, p: 3, d: 4, " ": 5 };
const element = (id) => document.getElementById(id);
const percent = (share) => `${(100 * share).toFixed(1)} %`;

let chosen = START;
let undone = []; // what was chosen before, for undo
let pair = []; // the episodes shown: the intact one, and the changed one where anything is changed
let timer = null;

// --- the address ---------------------------------------------------------------------------------------------------

/** What the address asks for; what it says wrongly is left out. */
function fromAddress() {
  const words = new URLSearchParams(location.hash.slice(1)), found = {};
  const number = (name, most) => {
    const value = Number(words.get(name));
    if (Number.isInteger(value) && value >= 0 && value <= most) found[name] = value;
  };
  number("world", content.worlds.length - 1);
  number("t", 1e6);
  for (const name of ["what", "memory"]) if (words.has(name)) found[name] = words.get(name);
  for (const name of ["edits", "hands"]) {
    try {
      const value = JSON.parse(words.get(name) ?? "[]");
      if (Array.isArray(value) && value.every(Array.isArray)) found[name] = value;
    } catch { /* not JSON: nothing is changed */ }
  }
  return found;
}

function toAddress() {
  const words = new URLSearchParams();
  for (const [name, value] of Object.entries(chosen)) {
    const text = typeof value === "object" ? JSON.stringify(value) : String(value);
    if (text !== (typeof START[name] === "object" ? "[]" : String(START[name]))) words.set(name, text);
  }
  const text = words.toString();
  try { history.replaceState(null, "", location.href.split("#")[0] + (text && `#${text}`)); } catch { /* a frame without an address */ }
}

// --- choosing ------------------------------------------------------------------------------------------------------

/** Change what is chosen; what cannot be is told, and nothing changes. */
function choose(changes, isKept = true) {
  const before = chosen;
  chosen = { ...chosen, ...changes };
  try {
    makePair();
    if (isKept) undone.push(before);
    tell("");
  } catch (error) {
    chosen = before;
    makePair();
    tell(error.message);
  }
  show();
}

function tell(text) { element("told").textContent = text; }

const isChanged = () => other > 0 || chosen.what !== "none" || chosen.edits.length > 0 || chosen.hands.length > 0;

function makePair() {
  const start = content.worlds[chosen.world], { palette } = content;
  const pool = pools[other] ?? null;
  const intact = new Episode(actorOf(0, "none", "gate-only", null), start, palette, chosen.world);
  pair = [intact];
  if (isChanged()) {
    const actor = actorOf(other, chosen.what, chosen.memory, pool);
    pair.push(new Episode(actor, start, palette, chosen.world, chosen.edits, new Map(chosen.hands)));
  }
  pair.forEach((episode) => episode.at(chosen.t));
}

const pools = []; // weights of all steps of each intact policy, once it was run in all worlds
const actorOf = (k, what, memory, pool) => new Actor(policies[k], content.policies[k], phases, what, memory, pool);
const mine = () => pair.at(-1); // the episode that hands and edits change

function goTo(t) {
  const last = Math.max(...pair.map((episode) => episode.length));
  chosen.t = Math.max(0, Math.min(t, last));
  show();
}

function stop() {
  clearInterval(timer);
  timer = null;
  element("play").textContent = "▶ play";
}

function play() {
  if (timer !== null) return stop();
  if (pair.every((episode) => episode.at(chosen.t).isLast)) chosen.t = 0;
  element("play").textContent = "■ stop";
  timer = setInterval(() => {
    goTo(chosen.t + 1);
    if (pair.every((episode) => episode.isEnded && chosen.t >= episode.states.length - 1)) stop();
  }, 1000 / Number(element("speed").value));
}

/** A hand acts in the policy's place at the step shown. */
function takeOver(action) {
  stop();
  const { t } = chosen;
  if (mine().at(t).isLast) return tell("the episode is over: go back, or reset");
  choose({ hands: [...chosen.hands.filter(([when]) => when < t), [t, action]] });
  tell(`you ${ACTION_NAMES[action]}; it would ${ACTION_NAMES[mine().at(t).action]}`);
  goTo(t + 1);
}

function edit(...change) {
  stop();
  choose({ edits: [...chosen.edits.filter(([when]) => when <= chosen.t), [chosen.t, ...change]],
    hands: chosen.hands.filter(([when]) => when < chosen.t) });
}

// --- showing -------------------------------------------------------------------------------------------------------

function show() {
  element("world").value = chosen.world;
  if (document.activeElement !== element("mission")) element("mission").value = mine().at(chosen.t).world.mission;
  if (document.activeElement !== element("what")) element("what").value = chosen.what;
  element("memory").value = chosen.memory;
  showTime();
  showWorlds();
  showExperts();
  showActions();
  if (timer === null) {
    showCauses();
    toAddress();
  }
}

function showTime() {
  const known = Math.max(...pair.map((episode) => episode.states.length - 1));
  element("time").max = Math.max(known, chosen.t);
  element("time").value = chosen.t;
  element("clock").textContent = `step ${chosen.t}`;
}

function showWorlds() {
  const width = element("pair").clientWidth / pair.length - 12;
  [0, 1].forEach((k) => {
    element(`world${k}`).parentElement.hidden = k >= pair.length;
    if (k >= pair.length) return;
    const state = pair[k].at(chosen.t), canvas = element(`world${k}`), { world } = state;
    const side = Math.max(8, Math.floor(Math.min(width / world.width, (innerHeight - 270) / world.height)));
    canvas.style.width = `${side * world.width}px`;
    canvas.style.height = `${side * world.height}px`;
    const context = prepareCanvas(canvas, side * world.width, side * world.height);
    const trail = pair[k].states.slice(0, state.t + 1).map((past) => [past.world.x, past.world.y]);
    drawWorld(context, world, side, k === pair.length - 1 ? causeMarks(side) : [], trail);
    canvas.setAttribute("aria-label", `the agent at ${world.x}, ${world.y} in a world of ${world.width} x ${world.height}`);
    element(`name${k}`).textContent = nameOf(k);
    element(`caption${k}`).textContent = captionOf(pair[k], state);
  });
}

function nameOf(k) {
  const names = content.policies.map(({ name }) => name);
  if (pair.length === 1) return names[0];
  return k === 0 ? `${names[0]}, intact` : [other > 0 ? names[other] : "changed", chosen.what].filter((word) => word !== "none").join(": ");
}

function captionOf(episode, state) {
  const { world } = state, hand = world.carried === EMPTY ? "" : ` · carries the ${describe(world.carried)}`;
  const bot = world.botSteps === null ? "" : ` (the bot needs ${world.botSteps})`;
  if (state.isLast) return `${world.success ? "solved" : "not solved"} in ${state.t} steps${bot}${hand}`;
  const does = ACTION_NAMES[state.chosen], would = state.chosen === state.action ? "" : `; it would ${ACTION_NAMES[state.action]}`;
  return `${state.phase}${hand} · next: ${does}${would} · LPC ${state.cost.toFixed(0)}`;
}

function showExperts() {
  const episode = mine(), state = episode.at(chosen.t), states = episode.states.filter((known) => !known.isLast);
  content.policies[other].names.forEach((names, layer) => {
    const canvas = element(`strip${layer}`), width = canvas.clientWidth || 300;
    const weights = states.map((known) => known.routing[layer]);
    drawStrip(prepareCanvas(canvas, width, 34), width, 34, weights, content.policies[other].hues[layer], chosen.t);
    names.forEach((_, e) => showExpert(layer, e, state.routing[layer][e]));
  });
  const costs = states.map(({ cost }) => cost), mean = costs.reduce((sum, cost) => sum + cost, 0) / costs.length;
  element("cost").textContent = `LPC of this step ${state.cost.toFixed(0)}, mean so far ${Number.isFinite(mean) ? mean.toFixed(0) : "-"}`;
  if (element("memoryview").open) {
    const { layout } = policies[other], width = element("experts").clientWidth;
    drawHidden(prepareCanvas(element("hidden"), width, 12 * Object.keys(layout).length), width, layout, state.hidden);
  }
}

/** The weight of an expert now; its slider stands where it is clamped, or at its mean. */
function showExpert(layer, e, weight) {
  const now = parse(chosen.what), parts = now.parts.length ? now.parts : [now];
  const part = parts.find((one) => one.layer === layer && one.expert === e);
  const mean = content.policies[other].mean_routing[layer][e];
  element(`weight${layer}.${e}`).textContent = weight.toFixed(2);
  element(`slider${layer}.${e}`).value = part?.kind === "clamp" ? part.value : part?.kind === "lesion" ? 0 : mean;
  element(`out${layer}.${e}`).setAttribute("aria-pressed", part?.kind === "lesion");
}

function showActions() {
  const state = mine().at(chosen.t), before = pair[0].at(chosen.t);
  element("actions").replaceChildren(...ACTION_NAMES.map((name, action) => {
    const row = document.createElement("div"), bar = document.createElement("i"), value = document.createElement("span");
    const place = document.createElement("span");
    bar.style.width = percent(state.probabilities[action]).replace(" ", "");
    bar.className = argmax(state.probabilities) === action && before.action !== action ? "other" : "";
    value.textContent = state.probabilities[action].toFixed(2);
    place.append(bar);
    row.append(name, place, value);
    return row;
  }));
}

let causes = [];

function causeMarks(side) {
  return causes.filter(({ kind, size }) => kind !== "memory" && size > 0.02)
    .map(({ x, y, size }) => ({ x, y, width: Math.max(1, size * side * 0.25), color: "#ff9f1a" }));
}

function showCauses() {
  const state = mine().at(chosen.t);
  causes = findCauses(mine(), chosen.t);
  element("because").textContent = state.isLast ? "The episode is over." : tellCauses(state, causes);
  element("causes").replaceChildren(...causes.slice(0, 8).map((cause) => {
    const item = document.createElement("li"), name = document.createElement("b");
    name.textContent = { thing: "", carried: "in hand: ", memory: "seen at " }[cause.kind] + cause.name;
    const end = cause.success ? `solved after ${cause.steps}` : "not solved";
    item.append(name, ` ${cause.size.toFixed(2)}: without it ${ACTION_NAMES[cause.action]}, ${end}`);
    return item;
  }));
  showWorlds();
}

// --- in all worlds -------------------------------------------------------------------------------------------------

const known = new Map(); // question -> promise of its result
let worker = null;
const waiting = [];

/** Play all worlds, in a worker; the same question once. */
function runAll(policy, what, memory) {
  const asked = { policy, what, memory }, name = JSON.stringify(asked);
  if (!known.has(name)) known.set(name, ask(asked));
  known.get(name).catch(() => known.delete(name));
  return known.get(name);
}

function ask(asked) {
  if (worker === null) {
    const source = `"use strict";${element("library").textContent}\nserve(self);`;
    worker = new Worker(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
    worker.postMessage({ content });
    worker.onmessage = ({ data }) => {
      const { done, result, error } = data, { resolve, reject } = waiting[data.id];
      if (done !== undefined) element("progress").textContent = `${done} of ${content.worlds.length} worlds`;
      else if (error !== undefined) reject(new Error(error));
      else resolve(result);
    };
  }
  return new Promise((resolve, reject) => worker.postMessage({ id: waiting.push({ resolve, reject }) - 1, asked }));
}

async function showEffect() {
  const { what, memory } = chosen;
  try {
    const before = await runAll(0, "none", "gate-only");
    pools[0] ??= before.weights;
    if (other > 0) pools[other] ??= (await runAll(other, "none", "gate-only")).weights;
    const after = await runAll(other, what, memory);
    element("progress").textContent = "";
    element("effect").replaceChildren(...effectLines(before.outcomes, after.outcomes, what));
  } catch (error) {
    tell(error.message);
  }
}

function effectLines(before, after, what) {
  const solved = (outcomes) => outcomes.map(({ success }) => Number(success));
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const worlds = before.map((_, k) => k);
  const lost = worlds.filter((k) => before[k].success && !after[k].success);
  const gained = worlds.filter((k) => !before[k].success && after[k].success);
  const { mean: change, low, high } = pairedDifference(solved(before), solved(after));
  const lines = [line(`success ${percent(mean(solved(before)))} intact, ${percent(mean(solved(after)))} ${what === "none" ? "here" : `with ${what}`}, in ${before.length} worlds`)];
  lines.push(line(`paired change ${percent(change)} (95 % interval ${percent(low)} to ${percent(high)})`));
  lines.push(line(`mean LPC ${mean(before.map(({ cost }) => cost)).toFixed(0)}, then ${mean(after.map(({ cost }) => cost)).toFixed(0)}`));
  lines.push(worldLinks(`${lost.length} lost`, lost), worldLinks(`${gained.length} gained`, gained));
  const byPhase = phases.labels.map((label) => [label, lost.filter((k) => after[k].phase === label).length]);
  const ends = byPhase.filter(([, count]) => count > 0).map(([label, count]) => `${label} ${count}`);
  if (ends.length) lines.push(line(`lost ones end: ${ends.join(", ")}`));
  const same = before.filter(({ success }, k) => success === content.policies[0].solved[k]).length;
  lines.push(line(`intact, ${same} of ${before.length} end as they do in Python`, "quiet"));
  return lines;
}

function line(text, name = "") {
  const shown = document.createElement("p");
  shown.textContent = text;
  shown.className = name;
  return shown;
}

function worldLinks(title, worlds) {
  const shown = line(`${title}: `);
  for (const k of worlds.slice(0, 30)) {
    const link = document.createElement("a");
    link.href = `#world=${k}`;
    link.textContent = k;
    link.onclick = (event) => { event.preventDefault(); choose({ world: k, t: 0, edits: [], hands: [] }); };
    shown.append(link, " ");
  }
  return shown;
}

/** The 20 steps over all worlds at which an expert has most weight (least, the largest change), to be opened. */
async function showSteps() {
  const [layer, expert] = element("expert").value.split(".").map(Number);
  const result = await runAll(0, "none", "gate-only");
  element("progress").textContent = "";
  const found = extremeSteps(result, layer, expert, element("order").value, 20);
  element("steps").replaceChildren(...found.map(({ world, t, value }) => {
    const button = document.createElement("button"), canvas = document.createElement("canvas");
    const episode = new Episode(actorOf(0, "none", "gate-only", null), content.worlds[world], content.palette, world);
    const state = episode.at(t), side = Math.max(3, Math.floor(110 / state.world.width));
    canvas.style.width = `${side * state.world.width}px`;
    drawWorld(prepareCanvas(canvas, side * state.world.width, side * state.world.height), state.world, side);
    button.append(canvas, `${value.toFixed(2)} ${ACTION_NAMES[state.action]}`);
    button.title = `world ${world}, step ${t}: ${state.world.mission}`;
    button.onclick = () => choose({ world, t, edits: [], hands: [] });
    return button;
  }));
}

// --- interventions -------------------------------------------------------------------------------------------------

/** Put an expert's part into the intervention, or take it out: part null. */
function changeExpert(layer, expert, part) {
  const now = parse(chosen.what), kept = (now.parts.length ? now.parts : [now])
    .filter((one) => one.kind !== "none" && !(one.layer === layer && one.expert === expert));
  try {
    const parts = part === null ? kept : [...kept, parse(part)];
    choose({ what: parts.length ? textOf(together(parts, now.phase)) : "none" });
  } catch (error) {
    tell(error.message);
  }
}

function makeExperts() {
  const { names, hues, mean_routing: means } = content.policies[other], hasRouters = names.some((of) => of.length > 1);
  element("layers").replaceChildren(...names.map((of, layer) => {
    const place = document.createElement("div"), canvas = document.createElement("canvas");
    place.className = "layer";
    canvas.id = `strip${layer}`;
    canvas.setAttribute("aria-label", `weights of layer ${layer} at each step`);
    canvas.onclick = (event) => goTo(Math.floor(event.offsetX / (canvas.clientWidth / Math.max(mine().states.length - 1, 12))));
    place.append(`layer ${layer}`, canvas, ...of.map((name, e) => expertRow(layer, e, name, hues[layer][e], means[layer][e], of.length > 1)));
    return place;
  }));
  for (const id of ["leave", "argmax", "uniform", "what", "memory"]) element(id).disabled = !hasRouters;
  element("expert").replaceChildren(...names.flatMap((of, layer) => of.map((name, e) => new Option(`layer ${layer}, ${name}`, `${layer}.${e}`))));
}

function expertRow(layer, e, name, hue, mean, hasOthers) {
  const row = document.createElement("div"), label = document.createElement("b"), slider = document.createElement("input");
  const value = document.createElement("span"), out = document.createElement("button"), weight = document.createElement("span");
  row.className = "expert";
  label.style.setProperty("--hue", hue);
  label.textContent = name;
  label.title = `mean weight ${mean.toFixed(2)}`;
  Object.assign(slider, { type: "range", min: 0, max: 1, step: 0.01, value: mean, disabled: !hasOthers });
  slider.setAttribute("aria-label", `clamp the weight of ${name} in layer ${layer}`);
  slider.oninput = () => changeExpert(layer, e, `clamp ${layer}.${e}=${slider.value}`);
  weight.id = `weight${layer}.${e}`;
  slider.id = `slider${layer}.${e}`;
  out.id = `out${layer}.${e}`;
  out.textContent = "out";
  out.title = `leave ${name} out, or back in`;
  out.disabled = !hasOthers;
  out.onclick = () => changeExpert(layer, e, out.getAttribute("aria-pressed") === "true" ? null : `lesion ${layer}.${e}`);
  value.append("now ", weight);
  row.append(label, slider, value, out);
  return row;
}

function mostUsed() {
  const places = content.policies[other].mean_routing.flatMap((of, layer) => of.map((mean, e) => ({ layer, e, mean, count: of.length })));
  const { layer, e } = places.filter(({ count }) => count > 1).reduce((most, place) => (place.mean > most.mean ? place : most));
  return `lesion ${layer}.${e}`;
}

const uniformText = () => content.policies[other].names.map((of, layer) => (of.length > 1 ? `uniform ${layer}` : null)).filter(Boolean).join(" + ");

// --- the tour ------------------------------------------------------------------------------------------------------

let stopNumber = 0;

/** Five things to see of this policy, found by playing its worlds. */
async function nextStop() {
  const { outcomes, weights } = await runAll(0, "none", "gate-only");
  element("progress").textContent = "";
  pools[0] ??= weights;
  const first = Math.max(0, outcomes.findIndex(({ success }) => success)), failed = outcomes.findIndex(({ success }) => !success);
  const left = content.policies[other].names.some((of) => of.length > 1) ? mostUsed() : "none";
  const after = (await runAll(other, left, "gate-only")).outcomes;
  const lost = outcomes.findIndex(({ success }, k) => success && !after[k].success);
  const reset = { t: 0, what: "none", edits: [], hands: [] };
  const stops = [
    ["An episode that it solves: the strips beside the world show the weights of the experts in each layer. Press k.", { ...reset, world: first }],
    [lost < 0 ? `Without its most used expert (${left}) it still solves every world that it solved.` : `Without its most used expert (${left}) it fails here. Play both.`, { ...reset, world: Math.max(lost, 0), what: left }],
    ["Why does it act so? What is framed matters now: the thicker, the more. Read on the right what it would do without.", { ...reset, world: first, t: Math.max(0, outcomes[first].steps - 1) }],
    failed < 0 ? ["It solves all worlds of this file. With equal weights for all experts?", { ...reset, world: first, what: left === "none" ? left : uniformText() }] : ["A world in which it fails: watch where it gets stuck.", { ...reset, world: failed }],
    ["Your turn: take over with the arrow keys, then Enter to hand back. Can it finish from there?", { ...reset, world: first }],
  ];
  const [text, changes] = stops[stopNumber % stops.length];
  stopNumber += 1;
  choose(changes);
  tell(`${(stopNumber - 1) % stops.length + 1} of ${stops.length}: ${text}`);
}

// --- saving --------------------------------------------------------------------------------------------------------

function save(name, blob) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function saveTable() {
  const episode = mine(), count = episode.length, layers = content.policies[other].names;
  const columns = ["t_step", "x", "y", "direction", "phase", "action", "policy_action", "lpc", ...layers.flatMap((of, layer) => of.map((_, e) => `weight_${layer}_${e}`))];
  const rows = episode.states.slice(0, count).map((state) => [
    state.t, state.world.x, state.world.y, state.world.direction, state.phase, ACTION_NAMES[state.chosen], ACTION_NAMES[state.action],
    state.cost, ...state.routing.flatMap((weights) => [...weights]),
  ]);
  save(`world_${content.worlds[chosen.world].seed}.csv`, new Blob([[columns, ...rows].map((row) => row.join(",")).join("\n") + "\n"], { type: "text/csv" }));
}

function savePicture() {
  const canvases = pair.map((_, k) => element(`world${k}`)), all = document.createElement("canvas");
  all.width = canvases.reduce((sum, { width }) => sum + width + 10, -10);
  all.height = Math.max(...canvases.map(({ height }) => height));
  let x = 0;
  for (const canvas of canvases) {
    all.getContext("2d").drawImage(canvas, x, 0);
    x += canvas.width + 10;
  }
  all.toBlob((blob) => save(`world_${content.worlds[chosen.world].seed}_step_${chosen.t}.png`, blob));
}

async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    tell(`${what} is copied`);
  } catch {
    tell(text);
  }
}

// --- what is clicked, dragged and pressed --------------------------------------------------------------------------

let dragged = null;

function pressWorld(event) {
  const { world } = mine().at(chosen.t);
  dragged = { from: cellAt(event, event.currentTarget, world) };
}

function releaseWorld(event) {
  if (dragged === null) return;
  const { from } = dragged, { world } = mine().at(chosen.t), to = cellAt(event, event.currentTarget, world);
  dragged = null;
  const code = world.at(...from), isAgent = world.x === from[0] && world.y === from[1];
  if (from[0] !== to[0] || from[1] !== to[1]) {
    if (isAgent) edit("moveAgent", ...to, world.direction);
    else if (codeKind(code) !== EMPTY && codeKind(code) !== WALL) move(code, from, to);
  } else if (isAgent) edit("moveAgent", ...to, (world.direction + 1) % 4);
  else if (codeKind(code) === DOOR && !event.shiftKey) edit("setDoor", ...to, (codeState(code) + 1) % 3);
  else if (codeKind(code) === EMPTY || codeKind(code) === WALL) tell("drag things here; click one to remove it");
  else if (event.shiftKey) recolour(code, to);
  else edit("remove", ...to);
}

/** Two edits at one step: the thing is taken away, and a new one like it lies elsewhere. */
function move(code, from, to) {
  const { t } = chosen, kept = chosen.edits.filter(([when]) => when <= t);
  const plain = makeCode(codeKind(code), codeColor(code), codeState(code));
  choose({ edits: [...kept, [t, "remove", ...from], [t, "put", ...to, plain]], hands: chosen.hands.filter(([when]) => when < t) });
}

function recolour(code, at) {
  const { t } = chosen, kept = chosen.edits.filter(([when]) => when <= t);
  const next = makeCode(codeKind(code), (codeColor(code) + 1) % COLOR_NAMES.length, codeState(code));
  choose({ edits: [...kept, [t, "remove", ...at], [t, "put", ...at, next]], hands: chosen.hands.filter(([when]) => when < t) });
}

function pressKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || /INPUT|SELECT|TEXTAREA/.test(event.target.tagName)) return;
  if (event.target.tagName === "BUTTON" && (event.key === " " || event.key === "Enter")) return;
  const others = { k: play, ".": () => goTo(chosen.t + 1), ",": () => goTo(chosen.t - 1), Home: () => goTo(0), u: undo,
    Enter: () => { tell("the policy acts again"); if (timer === null) play(); } };
  if (event.key in KEYS) takeOver(KEYS[event.key]);
  else if (event.key in others) others[event.key]();
  else return;
  event.preventDefault();
}

function undo() {
  if (undone.length) choose(undone.pop(), false);
}

function listen() {
  const clicks = {
    first: () => goTo(0), back: () => goTo(chosen.t - 1), step: () => goTo(chosen.t + 1), play, undo, tour: nextStop, all: showEffect,
    reset: () => choose({ ...START, world: chosen.world }), find: showSteps, csv: saveTable, png: savePicture,
    leave: () => choose({ what: mostUsed() }), argmax: () => choose({ what: "argmax" }), uniform: () => choose({ what: uniformText() }),
    previous: () => turnTo(chosen.world - 1), next: () => turnTo(chosen.world + 1),
    link: () => copy(location.href, "the address"), command: () => copy(commandText(), "the command"),
  };
  for (const [id, act] of Object.entries(clicks)) element(id).onclick = act;
  element("world").onchange = ({ target }) => turnTo(Number(target.value));
  element("time").oninput = ({ target }) => goTo(Number(target.value));
  element("speed").onchange = () => { if (timer !== null) { stop(); play(); } };
  element("what").onchange = ({ target }) => choose({ what: target.value.trim() || "none" });
  element("memory").onchange = ({ target }) => choose({ memory: target.value });
  element("mission").onchange = ({ target }) => setMission(target.value);
  element("memoryview").ontoggle = show;
  for (const k of [0, 1]) Object.assign(element(`world${k}`), { onpointerdown: pressWorld, onpointerup: releaseWorld });
  document.onkeydown = pressKey;
  onresize = show;
  onhashchange = begin;
}

function turnTo(world) {
  if (!(world >= 0 && world < content.worlds.length)) return tell(`the worlds are 0 to ${content.worlds.length - 1}`);
  stop();
  choose({ world, t: 0, edits: [], hands: [] });
}

/** Another mission, from this step on, in the changed world. */
function setMission(text) {
  const reason = policies[other].missionError(text);
  if (reason) return tell(reason);
  edit("setMission", text);
}

function commandText() {
  return `python intervene.py --checkpoint ${content.policies[other].path} --what "${chosen.what}" --num_episodes ${content.worlds.length}`;
}

/** Show what the address asks for, or, where that cannot be, the first world. */
function begin() {
  chosen = START;
  makePair();
  choose(fromAddress(), false);
}

// --- begin ---------------------------------------------------------------------------------------------------------

element("about").textContent = content.about;
element("missions").replaceChildren(...[...new Set(content.worlds.map(({ mission }) => mission))].map((text) => new Option(text)));
makeExperts();
listen();
begin();
