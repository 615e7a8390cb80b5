// One world: Minigrid's rules, the view, the events of the episode, and its editing; `World` of mop/envs/babyai.py.

import { BOX, CLOSED, DIRECTIONS, DOOR, EMPTY, KEY, LOCKED, OPEN, VIEW_CELLS, WALL } from "./geometry.js";
import { DROP, FORWARD, PICK_UP, TOGGLE, TURN_LEFT, TURN_RIGHT } from "./geometry.js";
import { codeColor, codeKind, codeNumber, codeState, describe, isDoor, isEnterable, isPortable } from "./geometry.js";
import { COLOR_NAMES, STATE_NAMES, lookAhead, makeCode, observe } from "./geometry.js";
import { Verifier, parseMission } from "./instructions.js";

const CELL_LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"; // as pack_worlds.py

/**
 * A world and the episode in it. codes: Int32Array(height * width) row by row; carried: code of what is carried, or
 * EMPTY; tPick, tOpened, tUnlocked, tDrop: actions taken when something was first picked up, opened, unlocked or
 * dropped, null before; keys: numbers of the keys by which the phases of the episode are told (`keyNumbers`).
 */
export class World {
  /** start: a world of pack_worlds.py; palette: the codes of its letters. */
  constructor(start, palette) {
    Object.assign(this, { seed: start.seed, width: start.width, height: start.height, roomSize: start.room_size });
    Object.assign(this, { mission: start.mission, instruction: start.instruction, maxSteps: start.max_steps });
    this.botSteps = start.bot_steps;
    [this.x, this.y, this.direction] = start.agent;
    this.carried = EMPTY;
    this.contents = new Map(); // number of a box -> code of what it holds, wherever the box is
    this.numObjects = 0;
    this.codes = Int32Array.from(start.cells, (letter) => this.number(palette[CELL_LETTERS.indexOf(letter)]));
    for (const [x, y, code] of start.contents) this.contents.set(codeNumber(this.at(x, y)), this.number(code));
    if (start.carrying !== null) this.codes[this.index(...start.carried_from)] = this.number(start.carrying);
    this.begin();
    if (start.carrying !== null) this.beginCarrying(...start.carried_from);
  }

  /** Begin an episode in the world as it is now, which may have been changed; its mission stays. */
  begin() {
    this.steps = 0;
    this.terminated = this.truncated = this.success = false;
    this.tPick = this.tOpened = this.tUnlocked = this.tDrop = null;
    this.verifier = new Verifier(this.instruction, this);
    this.firstView = null;
    this.keys = keyNumbers(this);
  }

  /** PutNext*Carrying puts an object into the hand after the first view, which still shows it where it lay. */
  beginCarrying(x, y) {
    this.firstView = this.observe();
    this.firstView[this.firstView.length - 1] = 1;
    this.carried = this.at(x, y);
    this.codes[this.index(x, y)] = EMPTY;
    this.keys = keyNumbers(this);
  }

  /** A copy that shares nothing that changes. */
  clone() {
    const copy = Object.assign(Object.create(World.prototype), this);
    copy.codes = this.codes.slice();
    copy.verifier = this.verifier.clone();
    return copy;
  }

  index(x, y) { return y * this.width + x; }

  /** The code of a cell. */
  at(x, y) { return this.codes[this.index(x, y)]; }

  /** Give an object its own number; a wall and an empty cell have none. */
  number(code) {
    const kind = codeKind(code);
    if (kind === EMPTY || kind === WALL) return code;
    this.numObjects += 1;
    return makeCode(kind, codeColor(code), codeState(code), this.numObjects);
  }

  /** The cell [x, y] before the agent. */
  front() {
    const [dx, dy] = DIRECTIONS[this.direction];
    return [this.x + dx, this.y + dy];
  }

  /** What the policy sees: Float32Array(152), the image channels first, direction one-hot, carrying flag. */
  observe() {
    if (this.firstView !== null) return this.firstView.slice();
    return observe(this.codes, this.width, this.height, this.x, this.y, this.direction, this.carried);
  }

  /** Mark the cells that the agent sees now: Uint8Array(height * width). */
  visible() {
    const { cells, visible } = lookAhead(this.codes, this.width, this.height, this.x, this.y, this.direction);
    const seen = new Uint8Array(this.codes.length);
    for (let k = 0; k < VIEW_CELLS; k++) if (visible[k] && cells[k] >= 0) seen[cells[k]] = 1;
    return seen;
  }

  /** List the objects [{x, y, code}] that the agent sees now, doors too, but not one in which it stands. */
  things() {
    const found = [];
    this.visible().forEach((isSeen, at) => {
      const kind = codeKind(this.codes[at]);
      if (!isSeen || kind === EMPTY || kind === WALL || at === this.index(this.x, this.y)) return;
      found.push({ x: at % this.width, y: Math.floor(at / this.width), code: this.codes[at] });
    });
    return found;
  }

  get isOver() { return this.terminated || this.truncated; }

  /** Execute an action: an index into ACTION_NAMES. A strict mission terminates without success when it fails. */
  step(action) {
    const at = this.index(...this.front());
    const [before, held] = [this.codes[at], this.carried];
    this.firstView = null;
    this.steps += 1;
    this.act(action, at);
    this.truncated = this.steps >= this.maxSteps;
    this.noteEvents(before, this.codes[at], held);
    if (action === DROP) this.verifier.locate(this);
    const status = this.verifier.verify(this, action);
    this.terminated = status !== "continue";
    this.success = status === "success";
  }

  /** at: index of the cell before the agent. */
  act(action, at) {
    const code = this.codes[at];
    if (action === TURN_LEFT) this.direction = (this.direction + 3) % 4;
    else if (action === TURN_RIGHT) this.direction = (this.direction + 1) % 4;
    else if (action === FORWARD && isEnterable(code)) [this.x, this.y] = this.front();
    else if (action === PICK_UP && isPortable(code) && this.carried === EMPTY) {
      this.carried = code;
      this.codes[at] = EMPTY;
    } else if (action === DROP && code === EMPTY && this.carried !== EMPTY) {
      this.codes[at] = this.carried;
      this.carried = EMPTY;
    } else if (action === TOGGLE) this.codes[at] = this.toggled(code);
  }

  /** What becomes of the cell before the agent when it toggles it: of a box what it holds, and nothing of the box. */
  toggled(code) {
    if (codeKind(code) === BOX) return this.contents.get(codeNumber(code)) ?? EMPTY;
    if (codeKind(code) !== DOOR) return code;
    const fits = codeKind(this.carried) === KEY && codeColor(this.carried) === codeColor(code);
    if (isDoor(code, LOCKED) && !fits) return code;
    return withState(code, isDoor(code, OPEN) ? CLOSED : OPEN);
  }

  /** Note what has happened for the first time; opening a door and unlocking it are two events. */
  noteEvents(before, after, held) {
    if (held === EMPTY && this.carried !== EMPTY) this.tPick ??= this.steps;
    if (held !== EMPTY && this.carried === EMPTY) this.tDrop ??= this.steps;
    if (codeKind(before) !== DOOR || isDoor(before, OPEN) || !isDoor(after, OPEN)) return;
    this.tOpened ??= this.steps;
    if (isDoor(before, LOCKED)) this.tUnlocked ??= this.steps;
  }

  // --- editing: the episode goes on with what was changed; `begin` begins another ------------------------------------

  /** Empty a cell; a wall, too, but not one around the world. */
  remove(x, y) {
    this.checkInside(x, y);
    this.change(x, y, EMPTY);
  }

  /** Put a new object, of a code without a number, into an empty cell. */
  put(x, y, code) {
    const isThing = isPortable(code) || codeKind(code) === DOOR;
    if (!isThing || !(codeColor(code) in COLOR_NAMES) || !(codeState(code) in STATE_NAMES)) {
      throw new Error(`${code} is no thing`);
    }
    this.checkFree(x, y);
    this.change(x, y, this.number(code));
  }

  /** Move a thing to an empty cell: it stays the thing that the mission may mean, with what it holds. */
  move(x, y, toX, toY) {
    this.checkInside(x, y);
    const code = this.at(x, y);
    if (code === EMPTY || codeKind(code) === WALL) throw new Error(`there is no thing at ${x}, ${y}`);
    this.checkFree(toX, toY);
    this.change(x, y, EMPTY);
    this.change(toX, toY, code);
  }

  /** Take away what is carried. */
  emptyHand() { Object.assign(this, { carried: EMPTY, firstView: null }); }

  /** Set the state of a door: 0 open, 1 closed, 2 locked. */
  setDoor(x, y, state) {
    if (codeKind(this.at(x, y)) !== DOOR) throw new Error(`there is no door at ${x}, ${y}`);
    if (!(state in STATE_NAMES)) throw new Error(`${state} is no state of a door`);
    if (x === this.x && y === this.y && state !== OPEN) throw new Error(`the agent stands in the door at ${x}, ${y}`);
    this.change(x, y, withState(this.at(x, y), state));
  }

  /** Move the agent to an empty cell or into an open door. */
  moveAgent(x, y, direction) {
    this.checkInside(x, y);
    if (!(direction in DIRECTIONS)) throw new Error(`${direction} is no direction`);
    const code = this.at(x, y);
    if (!isEnterable(code)) throw new Error(`the agent cannot stand at ${x}, ${y}: ${describe(code)}`);
    Object.assign(this, { x, y, direction, firstView: null });
  }

  /** Give another mission, from the next `begin` on. Throws an Error that says why it cannot be. */
  setMission(text) {
    this.instruction = parseMission(text, this);
    this.mission = text.trim();
  }

  change(x, y, code) {
    this.codes[this.index(x, y)] = code;
    this.firstView = null;
    this.verifier.locate(this);
  }

  checkFree(x, y) {
    this.checkInside(x, y);
    if (this.at(x, y) !== EMPTY) throw new Error(`there is something at ${x}, ${y}: ${describe(this.at(x, y))}`);
    if (x === this.x && y === this.y) throw new Error(`the agent stands at ${x}, ${y}`);
  }

  checkInside(x, y) {
    if (!(x > 0 && y > 0 && x < this.width - 1 && y < this.height - 1)) {
      throw new Error(`${x}, ${y} is not inside the walls around the world`);
    }
  }
}

const withState = (door, state) => (door & ~(15 << 16)) | (state << 16);

/**
 * Find the numbers of the keys that open a locked door, or of all keys, where none is locked; and of what is carried: at
 * the beginning it counts as a key.
 */
function keyNumbers({ codes, carried }) {
  const colors = new Set(Array.from(codes.filter((code) => isDoor(code, LOCKED)), codeColor));
  const keys = codes.filter((code) => codeKind(code) === KEY && (colors.size === 0 || colors.has(codeColor(code))));
  return new Set(Array.from([...keys, ...(carried === EMPTY ? [] : [carried])], codeNumber));
}
