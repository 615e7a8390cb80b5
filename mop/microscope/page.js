// The page's controls: what is clicked, dragged, pressed and typed, and what is saved.

import { mostUsed, nextStop, showEffect, showSteps, uniformText } from "./asking.js";
import { START, addressOf, choose, chosen, content, edit, element, fromAddress, goTo, mine } from "./choosing.js";
import { other, pair, play, policies, stop, takeOver, tell, timer, turnTo, undo } from "./choosing.js";
import { cellAt } from "./draw.js";
import { ACTION_NAMES, COLOR_NAMES, DOOR, EMPTY, WALL, codeColor, codeKind, codeState, makeCode } from "./geometry.js";
import { parse, partsOf, textOf, together } from "./interventions.js";
import { goToStrip, made, show } from "./showing.js";

const KEYS = { ArrowLeft: 0, ArrowRight: 1, ArrowUp: 2, p: 3, d: 4, " ": 5 };

// --- experts ---------------------------------------------------------------------------------------------------------

function makeExperts() {
  const { names } = content.policies[other], hasRouters = names.some((ofLayer) => ofLayer.length > 1);
  element("layers").replaceChildren(...names.map(layerRows));
  for (const id of ["leave", "argmax", "uniform", "what", "memory"]) element(id).disabled = !hasRouters;
  const options = names.flatMap((ofLayer, layer) =>
    ofLayer.map((name, e) => new Option(`layer ${layer}, ${name}`, `${layer}.${e}`)));
  element("expert").replaceChildren(...options);
}

function layerRows(names, layer) {
  const place = made("div", `layer ${layer}`, { className: "layer" });
  const strip = made("canvas", "", { id: `strip${layer}`, onclick: goToStrip });
  strip.setAttribute("aria-label", `weights of layer ${layer} at each step`);
  place.append(strip, ...names.map((name, e) => expertRow(layer, e, name, names.length === 1)));
  return place;
}

let dragged = null; // the slider that is moved: all its moves are undone together

function expertRow(layer, e, name, isAlone) {
  const row = made("div", "", { className: "expert" }), { hues, mean_routing: means } = content.policies[other];
  const label = made("b", name, { title: `mean weight ${means[layer][e].toFixed(2)}` }), value = made("span", "now ");
  const range = { type: "range", min: 0, max: 1, step: 0.01, disabled: isAlone };
  const slider = made("input", "", { id: `slider${layer}.${e}`, ...range });
  const title = `leave ${name} out, or back in`;
  const out = made("button", "out", { id: `out${layer}.${e}`, title, disabled: isAlone });
  label.style.setProperty("--hue", hues[layer][e]);
  slider.setAttribute("aria-label", `clamp the weight of ${name} in layer ${layer}`);
  slider.oninput = () => {
    if (changeExpert(layer, e, `clamp ${layer}.${e}=${slider.value}`, dragged !== slider)) dragged = slider;
  };
  slider.onchange = () => { dragged = null; };
  out.onclick = () => changeExpert(layer, e, out.ariaPressed === "true" ? null : `lesion ${layer}.${e}`);
  value.append(made("span", "", { id: `weight${layer}.${e}` }));
  row.append(label, slider, value, out);
  return row;
}

/** Put an expert's part into the intervention in place of the one before, or take it out: part null. */
function changeExpert(layer, expert, part, isKept = true) {
  const now = parse(chosen.intervention);
  const kept = partsOf(now).filter((one) => one.kind !== "none" && !(one.layer === layer && one.expert === expert));
  const parts = part === null ? kept : [...kept, parse(part)];
  return choose({ intervention: textOf(together(parts, parts.length ? now.phase : null)) }, isKept);
}

// --- saving ----------------------------------------------------------------------------------------------------------

function save(ending, blob) {
  const name = `world_${content.worlds[chosen.world].seed}${ending}`;
  const link = made("a", "", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function saveTable() {
  const weights = content.policies[other].names.flatMap((names, layer) => names.map((_, e) => `weight_${layer}_${e}`));
  const head = ["t_step", "x", "y", "direction", "phase", "action", "policy_action", "lpc", ...weights];
  const rows = mine().states.filter(({ isLast }) => !isLast).map(({ world, ...step }) => [
    step.t, world.x, world.y, world.direction, step.phase, ACTION_NAMES[step.chosen], ACTION_NAMES[step.action],
    step.cost, ...step.routing.flatMap((ofLayer) => [...ofLayer]),
  ]);
  save(".csv", new Blob([head, ...rows].map((row) => `${row.join(",")}\n`), { type: "text/csv" }));
}

function savePicture() {
  const canvases = pair.map((_, k) => element(`world${k}`)), all = made("canvas", "");
  all.width = canvases.reduce((sum, { width }) => sum + width + 10, -10);
  all.height = Math.max(...canvases.map(({ height }) => height));
  let x = 0;
  for (const canvas of canvases) {
    all.getContext("2d").drawImage(canvas, x, 0);
    x += canvas.width + 10;
  }
  all.toBlob((blob) => save(`_step_${chosen.step}.png`, blob));
}

async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    tell(`${what} is copied`);
  } catch {
    tell(text);
  }
}

function commandText() {
  const { path } = content.policies[other], count = content.worlds.length;
  return `python intervene.py --checkpoint ${path} --what "${chosen.intervention}" --num_episodes ${count}`;
}

// --- editing the world -----------------------------------------------------------------------------------------------

let pressedAt = null; // cell

const cellOf = (event) => cellAt(event, event.currentTarget, mine().at(chosen.step).world);

function releaseWorld(event) {
  if (pressedAt === null) return;
  const [x, y] = pressedAt, to = cellOf(event), { world } = mine().at(chosen.step);
  pressedAt = null;
  if (x === to[0] && y === to[1]) clickCell(world, x, y, event.shiftKey);
  else if (x === world.x && y === world.y) edit(["moveAgent", ...to, world.direction]);
  else if (isThing(world.at(x, y))) edit(["move", x, y, ...to]);
}

/** Turn the agent; open, close or lock a door; remove a thing, or give it the next colour. */
function clickCell(world, x, y, isColored) {
  const code = world.at(x, y), state = codeState(code);
  if (x === world.x && y === world.y) edit(["moveAgent", x, y, (world.direction + 1) % 4]);
  else if (!isThing(code)) tell("drag things here; click one to remove it");
  else if (codeKind(code) === DOOR && !isColored) edit(["setDoor", x, y, (state + 1) % 3]);
  else if (!isColored) edit(["remove", x, y]);
  else edit(["remove", x, y], ["put", x, y, makeCode(codeKind(code), nextColor(code), state)]);
}

const isThing = (code) => codeKind(code) !== EMPTY && codeKind(code) !== WALL;
const nextColor = (code) => (codeColor(code) + 1) % COLOR_NAMES.length;

/** Give another mission, from this step on, in the changed world. */
function setMission(text) {
  const reason = policies[other].missionError(text);
  if (reason) tell(reason);
  else edit(["setMission", text]);
}

// --- listening -------------------------------------------------------------------------------------------------------

function pressKey(event) {
  const { key, target } = event;
  if (event.ctrlKey || event.metaKey || event.altKey || /INPUT|SELECT|TEXTAREA/.test(target.tagName)) return;
  if (target.tagName === "BUTTON" && (key === " " || key === "Enter")) return;
  const handBack = () => {
    if (timer === null) play();
    tell("the policy acts again");
  };
  const shortcuts = { k: play, u: undo, Enter: handBack, Home: () => goTo(0) };
  Object.assign(shortcuts, { ".": () => goTo(chosen.step + 1), ",": () => goTo(chosen.step - 1) });
  if (key in KEYS) takeOver(KEYS[key]);
  else if (key in shortcuts) shortcuts[key]();
  else return;
  event.preventDefault();
}

function listen() {
  const clicks = {
    play, undo, tour: nextStop, all: showEffect, find: showSteps, csv: saveTable, png: savePicture,
    first: () => goTo(0), back: () => goTo(chosen.step - 1), step: () => goTo(chosen.step + 1),
    previous: () => turnTo(chosen.world - 1), next: () => turnTo(chosen.world + 1),
    leave: () => choose({ intervention: mostUsed() }), uniform: () => choose({ intervention: uniformText() }),
    argmax: () => choose({ intervention: "argmax" }), reset: () => choose({ ...START, world: chosen.world }),
    link: () => copy(addressOf(), "the address"), command: () => copy(commandText(), "the command"),
  };
  for (const [id, act] of Object.entries(clicks)) element(id).onclick = act;
  const changes = {
    world: (text) => turnTo(Number(text)), mission: setMission,
    what: (text) => choose({ intervention: text.trim() || "none" }), memory: (memory) => choose({ memory }),
  };
  for (const [id, change] of Object.entries(changes)) element(id).onchange = ({ target }) => change(target.value);
  element("time").oninput = ({ target }) => goTo(Number(target.value));
  element("speed").onchange = () => { if (timer !== null) [stop, play].forEach((act) => act()); };
  element("memoryview").ontoggle = show;
  const onpointerdown = (event) => { pressedAt = cellOf(event); };
  for (const k of [0, 1]) Object.assign(element(`world${k}`), { onpointerdown, onpointerup: releaseWorld });
  Object.assign(window, { onkeydown: pressKey, onresize: show, onhashchange: () => choose(fromAddress()) });
}

element("about").textContent = content.about;
const missions = new Set(content.worlds.map(({ mission }) => mission));
element("missions").replaceChildren(...Array.from(missions, (mission) => new Option(mission)));
makeExperts();
listen();
choose(fromAddress(), false);
