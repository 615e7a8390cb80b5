// The page's controls: what is clicked, dragged, pressed and typed, and what is saved.

import { mostUsed, nextStop, showEffect, showSteps, uniformText } from "./asking.js";
import { START, addressOf, choose, chosen, content, edit, element, fromAddress, goTo } from "./choosing.js";
import { lastStep, mine, other, pair, play, stop, takeOver, tell, timer, turnTo, undo } from "./choosing.js";
import { cellAt } from "./draw.js";
import { ACTION_NAMES, COLOR_NAMES, DOOR, EMPTY, WALL, codeColor, codeKind, codeState, makeCode } from "./geometry.js";
import { Gif } from "./gif.js";
import { parse, partsOf, textOf, together } from "./interventions.js";
import { drawEpisode, explain, goToStrip, made, show } from "./showing.js";

const CELL_PX = 32; // of a saved picture
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
  const strip = made("canvas", { id: `strip${layer}`, onclick: goToStrip });
  strip.setAttribute("aria-label", `weights of layer ${layer} at each step`);
  const rows = names.map((name, e) => expertRow(layer, e, name, names.length === 1));
  const title = [made("dfn", {}, "layer"), ` ${layer}, weights of the `, made("dfn", {}, "router")];
  return made("div", { className: "layer" }, ...title, made("div", { className: "strip" }, strip, made("i", {})), ...rows);
}

let dragged = null; // the slider that is moved: all its moves are undone together

function expertRow(layer, e, name, disabled) {
  const { hues, mean_routing: means } = content.policies[other], place = `${layer}.${e}`;
  const label = made("b", { style: `--hue: ${hues[layer][e]}` }, made(name === "skip" ? "dfn" : "span", {}, name));
  const slider = made("input", { id: `slider${place}`, type: "range", min: 0, max: 1, step: 0.01, disabled });
  const now = made("span", { id: `weight${place}` });
  const weight = made("span", { title: `mean ${means[layer][e].toFixed(2)}` }, "now ", now);
  const out = made("button", { id: `out${place}`, title: `leave ${name} out, or back in`, disabled }, "out");
  slider.setAttribute("aria-label", `clamp the weight of ${name} in layer ${layer}`);
  slider.oninput = () => {
    if (changeExpert(layer, e, `clamp ${place}=${slider.value}`, dragged !== slider)) dragged = slider;
  };
  slider.onchange = () => { dragged = null; };
  out.onclick = () => changeExpert(layer, e, out.ariaPressed === "true" ? null : `lesion ${place}`);
  return made("div", { className: "expert" }, label, slider, weight, out);
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
  const link = made("a", { href: URL.createObjectURL(blob), download: `world_${mine().world.seed}${ending}` });
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

/** A canvas for both worlds side by side, and what draws them there at a step. */
function picture() {
  const { width, height } = mine().world, wide = (pair.length * (width + 0.5) - 0.5) * CELL_PX;
  const canvas = made("canvas", { width: wide, height: height * CELL_PX });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const drawAt = (t, isMarked) => pair.forEach((episode, k) => {
    context.setTransform(1, 0, 0, 1, k * (width + 0.5) * CELL_PX, 0);
    drawEpisode(context, episode, t, CELL_PX, isMarked);
  });
  return { canvas, context, drawAt };
}

function savePicture() {
  const { canvas, drawAt } = picture();
  drawAt(chosen.step, true);
  canvas.toBlob((blob) => save(`_step_${chosen.step}.png`, blob));
}

function saveFilm() {
  const { canvas: { width, height }, context, drawAt } = picture();
  const film = new Gif(width, height, Math.max(2, Math.round(100 / Number(element("speed").value))));
  for (let t = 0; t <= lastStep(); t++) {
    drawAt(t);
    film.add(context.getImageData(0, 0, width, height).data);
  }
  save(".gif", film.blob());
}

async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    tell(`${what} is copied`);
  } catch {
    tell(text);
  }
}

/** The lines of Python that count in all worlds what is shown. */
function pythonText() {
  const said = { what: chosen.intervention, memory: chosen.memory };
  return content.policies[other].python.replace(/%(what|memory)%/g, (_, name) => JSON.stringify(said[name]));
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
  else if (!isThing(code)) tell("no thing is here: drag one to it, click one to remove it");
  else if (codeKind(code) === DOOR && !isColored) edit(["setDoor", x, y, (state + 1) % 3]);
  else if (!isColored) edit(["remove", x, y]);
  else edit(["remove", x, y], ["put", x, y, makeCode(codeKind(code), nextColor(code), state)]);
}

const isThing = (code) => codeKind(code) !== EMPTY && codeKind(code) !== WALL;
const nextColor = (code) => (codeColor(code) + 1) % COLOR_NAMES.length;

// --- listening -------------------------------------------------------------------------------------------------------

function pressKey(event) {
  const { key, target } = event;
  if (event.ctrlKey || event.metaKey || event.altKey || /INPUT|SELECT|TEXTAREA/.test(target.tagName)) return;
  if (target.tagName === "BUTTON" && (key === " " || key === "Enter")) return;
  const handBack = () => {
    if (timer === null) play();
    tell("the policy acts again");
  };
  const clickFront = (isColored) => {
    const { world } = mine().at(chosen.step);
    clickCell(world, ...world.front(), isColored);
  };
  const shortcuts = { k: play, u: undo, Enter: handBack, Home: () => goTo(0) };
  Object.assign(shortcuts, { x: () => clickFront(false), X: () => clickFront(true) });
  Object.assign(shortcuts, { ".": () => goTo(chosen.step + 1), ",": () => goTo(chosen.step - 1) });
  if (key in KEYS) takeOver(KEYS[key]);
  else if (key in shortcuts) shortcuts[key]();
  else return;
  event.preventDefault();
}

function listen() {
  const clicks = {
    play, undo, tour: nextStop, all: showEffect, find: showSteps, csv: saveTable, png: savePicture, gif: saveFilm,
    first: () => goTo(0), back: () => goTo(chosen.step - 1), step: () => goTo(chosen.step + 1),
    previous: () => turnTo(chosen.world - 1), next: () => turnTo(chosen.world + 1),
    leave: () => choose({ intervention: mostUsed() }), uniform: () => choose({ intervention: uniformText() }),
    argmax: () => choose({ intervention: "argmax" }), reset: () => choose({ ...START, world: chosen.world }),
    link: () => copy(addressOf(), "the address"), python: () => copy(pythonText(), "the code"),
  };
  for (const [id, act] of Object.entries(clicks)) element(id).onclick = act;
  const changes = {
    world: (text) => turnTo(Number(text)), mission: (text) => edit(["setMission", text]),
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
explain();
listen();
choose(fromAddress(), false);
