// Worlds and strips of router weights on a canvas. The objects look as Minigrid draws them.

import { BALL, BOX, DOOR, EMPTY, KEY, LOCKED, OPEN, WALL } from "./geometry.js";
import { codeColor, codeKind, codeState } from "./geometry.js";

const TINTS = ["#ff3030", "#20d020", "#5070ff", "#b050ff", "#ffe030", "#8c8c8c"]; // as COLOR_NAMES
const AGENT = [[-0.36, -0.3], [0.37, 0], [-0.36, 0.3]]; // its corners from the middle of its cell

/** Give a canvas a size on the page, in CSS pixels; returns a context in these. */
export function prepareCanvas(canvas, width, height) {
  const scale = globalThis.devicePixelRatio || 1;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  Object.assign(canvas.style, { width: `${width}px`, height: `${height}px` });
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  return context;
}

/**
 * Draw a world, `side` pixels a cell.
 *
 * marks: [{x, y, width, color}] frames around cells; trail: [[x, y]] cells that the agent came through.
 */
export function drawWorld(context, world, side, marks = [], trail = []) {
  const seen = world.visible(), pixels = Math.ceil(side * context.getTransform().a);
  for (let y = 0; y < world.height; y++) {
    for (let x = 0; x < world.width; x++) {
      const picture = cellPicture(world.at(x, y), seen[world.index(x, y)], pixels);
      context.drawImage(picture, x * side, y * side, side, side);
    }
  }
  drawTrail(context, trail, side);
  context.save();
  context.translate((world.x + 0.5) * side, (world.y + 0.5) * side);
  context.rotate((world.direction * Math.PI) / 2);
  fillPath(context, AGENT.map((corner) => corner.map((value) => value * side)), "#ff2020");
  if (world.carried !== EMPTY) {
    context.rotate((-world.direction * Math.PI) / 2);
    context.scale(0.45 * side, 0.45 * side);
    drawObject(context, world.carried);
  }
  context.restore();
  for (const { x, y, width, color } of marks) {
    context.strokeStyle = color;
    context.lineWidth = width;
    context.strokeRect(x * side + width / 2, y * side + width / 2, side - width, side - width);
  }
}

function drawTrail(context, trail, side) {
  context.strokeStyle = "rgba(255, 120, 120, 0.7)";
  context.lineWidth = Math.max(1.5, side / 12);
  context.beginPath();
  for (const [x, y] of trail) context.lineTo((x + 0.5) * side, (y + 0.5) * side);
  context.stroke();
}

const pictures = new Map(); // of cells, each drawn once

function cellPicture(code, isSeen, pixels) {
  const name = `${code} ${isSeen} ${pixels}`;
  if (!pictures.has(name)) {
    const picture = new OffscreenCanvas(pixels, pixels), context = picture.getContext("2d");
    context.scale(pixels, pixels);
    drawCell(context, code);
    if (isSeen) fillRect(context, 0, 0, 1, 1, "rgba(255, 255, 255, 0.22)");
    pictures.set(name, picture);
  }
  return pictures.get(name);
}

function drawCell(context, code) {
  const kind = codeKind(code);
  fillRect(context, 0, 0, 1, 1, kind === WALL ? "#646464" : "#000");
  if (kind !== WALL) {
    fillRect(context, 0, 0, 0.031, 1, "#646464");
    fillRect(context, 0, 0, 1, 0.031, "#646464");
  }
  if (kind !== WALL && kind !== EMPTY) drawObject(context, code);
}

function drawObject(context, code) {
  const tint = TINTS[codeColor(code)], kind = codeKind(code);
  if (kind === DOOR) drawDoor(context, codeState(code), tint);
  else if (kind === KEY) drawKey(context, tint);
  else if (kind === BALL) fillCircle(context, 0.5, 0.5, 0.31, tint);
  else if (kind === BOX) {
    fillRect(context, 0.12, 0.12, 0.76, 0.76, tint);
    fillRect(context, 0.18, 0.18, 0.64, 0.64, "#000");
    fillRect(context, 0.16, 0.47, 0.68, 0.06, tint);
  } else fillRect(context, 0, 0, 1, 1, tint);
}

function drawDoor(context, state, tint) {
  if (state === OPEN) {
    fillRect(context, 0.88, 0, 0.12, 1, tint);
    fillRect(context, 0.92, 0.04, 0.04, 0.92, "#000");
    return;
  }
  fillRect(context, 0, 0, 1, 1, tint);
  fillRect(context, 0.06, 0.06, 0.88, 0.88, state === LOCKED ? "rgba(0, 0, 0, 0.55)" : "#000");
  if (state === LOCKED) fillRect(context, 0.52, 0.5, 0.23, 0.06, tint);
  else {
    fillRect(context, 0.1, 0.1, 0.8, 0.8, tint);
    fillRect(context, 0.14, 0.14, 0.72, 0.72, "#000");
    fillCircle(context, 0.75, 0.5, 0.08, tint);
  }
}

function drawKey(context, tint) {
  fillRect(context, 0.5, 0.31, 0.13, 0.57, tint);
  fillRect(context, 0.38, 0.59, 0.12, 0.07, tint);
  fillRect(context, 0.38, 0.81, 0.12, 0.07, tint);
  fillCircle(context, 0.56, 0.28, 0.19, tint);
  fillCircle(context, 0.56, 0.28, 0.064, "#000");
}

function fillRect(context, x, y, width, height, color) {
  context.fillStyle = color;
  context.fillRect(x, y, width, height);
}

function fillCircle(context, x, y, radius, color) {
  context.fillStyle = color;
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fill();
}

function fillPath(context, points, color) {
  context.fillStyle = color;
  context.beginPath();
  for (const point of points) context.lineTo(...point);
  context.closePath();
  context.fill();
}

/**
 * Draw the weights of a layer's experts over an episode, stacked.
 *
 * steps: weights (E) of each; fewest: steps that there is room for.
 */
export function drawStrip(context, width, height, steps, hues, fewest) {
  const side = width / Math.max(steps.length, fewest);
  steps.forEach((weights, k) => {
    let y = height;
    weights.forEach((weight, e) => {
      y -= weight * height;
      fillRect(context, k * side, y, side + 0.5, weight * height + 0.5, hues[e]);
    });
  });
}

/** Draw hidden units (-1 to 1) as a row of cells for each GRU; layout: of `Policy`. */
export function drawHidden(context, width, layout, hidden) {
  Object.values(layout).forEach(([start, stop], row) => {
    const side = width / (stop - start);
    for (let k = start; k < stop; k++) {
      const value = Math.max(-1, Math.min(1, hidden[k])), rest = Math.round(255 * (1 - Math.abs(value)));
      const color = value > 0 ? `rgb(255, ${rest}, ${rest})` : `rgb(${rest}, ${rest}, 255)`;
      fillRect(context, (k - start) * side, row * 12, side + 0.5, 10, color);
    }
  });
}

/** The cell [x, y] of a point on a world's canvas. */
export function cellAt(event, canvas, world) {
  const place = canvas.getBoundingClientRect();
  const part = [(event.clientX - place.left) / place.width, (event.clientY - place.top) / place.height];
  return [Math.floor(part[0] * world.width), Math.floor(part[1] * world.height)];
}
