// BabyAI's instructions: whether they are done, as Minigrid's `verifier.py` decides it; and how they are read.
//
// An instruction is {kind: "go_to" | "pick_up" | "open", desc, strict}, {kind: "put_next", move, fixed, strict} or
// {kind: "before" | "after" | "and", a, b, strict}. desc, move and fixed are {type, color, loc}, null where not said.

import { COLOR_NAMES, DIRECTIONS, DOOR, DROP, EMPTY, OBJECT_NAMES, OPEN, PICK_UP, TOGGLE } from "./geometry.js";
import { codeColor, codeKind, codeNumber, isDoor } from "./geometry.js";

/** Find the cells [{x, y, code}] that a description fits now; places are as the agent sees them, in its own room. */
export function matches(desc, world) {
  const type = desc.type === null ? -1 : OBJECT_NAMES.indexOf(desc.type);
  const color = desc.color === null ? -1 : COLOR_NAMES.indexOf(desc.color);
  const found = [];
  for (let at = 0; at < world.codes.length; at++) {
    const code = world.codes[at];
    if (code === EMPTY || (type >= 0 && codeKind(code) !== type) || (color >= 0 && codeColor(code) !== color)) continue;
    const [x, y] = [at % world.width, Math.floor(at / world.width)];
    if (desc.loc === null || isAtPlace(desc.loc, x, y, world)) found.push({ x, y, code });
  }
  return found;
}

/** Whether (x, y) is to the left or right of, in front of or behind the agent, in the room in which it stands. */
function isAtPlace(loc, x, y, world) {
  const size = world.roomSize - 1;
  const left = size * Math.floor(world.x / size);
  const top = size * Math.floor(world.y / size);
  if (x < left || x > left + size || y < top || y > top + size) return false; // walls belong to the room
  const [dx, dy] = DIRECTIONS[world.direction];
  const ahead = (x - world.x) * dx + (y - world.y) * dy;
  const aside = (y - world.y) * dx - (x - world.x) * dy;
  return { left: aside < 0, right: aside > 0, front: ahead > 0, behind: ahead < 0 }[loc];
}

/** The objects that a description fitted at the beginning; where they are is looked up then and after each drop. */
class Targets {
  constructor(desc, world) {
    const found = matches(desc, world);
    this.objects = new Set(found.map(({ x, y, code }) => identity(code, y * world.width + x)));
    this.update(world);
  }

  has(code) { return this.objects.has(codeNumber(code)); }

  isAt(x, y) { return this.places.some(([px, py]) => px === x && py === y); }

  isNextTo(x, y) { return this.places.some(([px, py]) => Math.abs(px - x) + Math.abs(py - y) === 1); }

  update(world) {
    this.places = [];
    for (let at = 0; at < world.codes.length; at++) {
      if (!this.objects.has(identity(world.codes[at], at))) continue;
      this.places.push([at % world.width, Math.floor(at / world.width)]);
    }
  }

  clone() {
    return Object.assign(Object.create(Targets.prototype), this); // its parts are replaced, never changed
  }
}

/** The number of an object; walls, which have none but can be meant by "grey object", are known by their cell. */
function identity(code, at) {
  return codeKind(code) === EMPTY ? 0 : codeNumber(code) || -1 - at;
}

/** Follows an instruction through an episode; made when the episode begins. */
export class Verifier {
  constructor(instruction, world) {
    const { kind, strict, a, b } = instruction;
    Object.assign(this, { kind, strict });
    if (a !== undefined) {  // parts that are not done yet, in the order in which they are judged
      this.parts = (kind === "after" ? [b, a] : [a, b]).map((part) => new Verifier(part, world));
      return;
    }
    this.targets = new Targets(instruction.desc ?? instruction.move, world);
    if (instruction.fixed) this.fixed = new Targets(instruction.fixed, world);
    this.held = 0; // number of what was carried when this was last verified
  }

  clone() {
    const copy = Object.assign(Object.create(Verifier.prototype), this);
    copy.parts = this.parts?.map((part) => part.clone());
    for (const name of ["targets", "fixed"]) copy[name] = this[name]?.clone();
    return copy;
  }

  /** Look up where the objects are now: after a drop, whether or not something fell, and after an edit. */
  locate(world) {
    for (const part of this.parts ?? []) part.locate(world);
    for (const targets of [this.targets, this.fixed]) targets?.update(world);
  }

  /** Judge the state after an action: "success", "failure" (only of what is strict) or "continue". */
  verify(world, action) {
    if (this.kind === "and") return this.verifyAll(world, action);
    if (this.parts) return this.verifySequence(world, action);
    if (this.kind === "go_to") return this.targets.isAt(...world.front()) ? "success" : "continue";
    if (this.kind === "open") return this.verifyOpen(world, action);
    const held = this.held;
    this.held = codeNumber(world.carried);
    return this.kind === "pick_up" ? this.verifyPickUp(world, action, held) : this.verifyPutNext(world, action, held);
  }

  verifyOpen(world, action) {
    if (action !== TOGGLE) return "continue";
    const [x, y] = world.front();
    const code = world.codes[y * world.width + x];
    if (this.targets.has(code) && isDoor(code, OPEN)) return "success";
    return this.strict && codeKind(code) === DOOR ? "failure" : "continue"; // the wrong door
  }

  /** held: number of what was carried before the action. */
  verifyPickUp(world, action, held) {
    if (action !== PICK_UP) return "continue";
    if (held === 0 && this.targets.has(world.carried)) return "success";
    return this.strict && world.carried !== EMPTY ? "failure" : "continue"; // the wrong object
  }

  verifyPutNext(world, action, held) {
    if (this.strict && action === PICK_UP && world.carried !== EMPTY) return "failure";
    const isDropped = action === DROP && world.carried === EMPTY && this.targets.objects.has(held);
    return isDropped && this.fixed.isNextTo(...world.front()) ? "success" : "continue";
  }

  /** One part after the other; strict: the second must not be done first. */
  verifySequence(world, action) {
    const [first, second] = this.parts, status = first.verify(world, action);
    if (second === undefined || status === "failure") return status;
    if (status === "continue") return this.strict && second.verify(world, action) === "success" ? "failure" : status;
    this.parts = [second];
    return second.verify(world, action);
  }

  verifyAll(world, action) {
    this.parts = this.parts.filter((part) => part.verify(world, action) !== "success");
    return this.parts.length === 0 ? "success" : "continue";
  }
}

// --- the language ----------------------------------------------------------------------------------------------------

const LOCATIONS = {
  "on your left": "left", "on your right": "right", "in front of you": "front", "behind you": "behind",
};
const DESCRIPTION = new RegExp(
  `^(?:a|the) (?:(${COLOR_NAMES.join("|")}) )?(ball|box|door|key|object)(?: (${Object.keys(LOCATIONS).join("|")}))?$`
);
const CLAUSES = [
  ["go_to", /^go to (.+)$/],
  ["pick_up", /^pick up (.+)$/],
  ["open", /^open (.+)$/],
  ["put_next", /^put (.+) next to (.+)$/],
];

/**
 * Read a mission as BabyAI's levels print it; a text does not tell what is strict. Throws an Error that says why it
 * cannot be read, or that nothing in `world` (if given) is what it names.
 */
export function parseMission(text, world = null) {
  const plain = text.toLowerCase().trim().replace(/\s+/g, " ").replace(/ ,/g, ",");
  for (const [kind, separator] of [["before", ", then "], ["after", " after you "]]) {
    const parts = plain.split(separator);
    if (parts.length > 2) throw new Error(`"${separator.trim()}" can be said once`);
    if (parts.length === 2) return joinParts(kind, parts.map((part) => parseClauses(part, world)));
  }
  return parseClauses(plain, world);
}

const joinParts = (kind, [a, b]) => ({ kind, a, b, strict: false });

/** Read one clause, or two with "and" between them. */
function parseClauses(text, world) {
  const parts = text.split(" and ");
  if (parts.length > 2) throw new Error(`"and" can join two instructions, not ${parts.length}: "${text}"`);
  const clauses = parts.map((part) => parseClause(part, world));
  return clauses.length === 2 ? joinParts("and", clauses) : clauses[0];
}

function parseClause(text, world) {
  for (const [kind, pattern] of CLAUSES) {
    const found = pattern.exec(text);
    if (found === null) continue;
    const [desc, fixed] = found.slice(1).map((part) => parseDescription(part, world));
    if (kind === "open" && desc.type !== "door") throw new Error(`only a door can be opened: "${text}"`);
    if (kind !== "go_to" && kind !== "open" && desc.type === "door") throw new Error(`a door stays: "${text}"`);
    return kind === "put_next" ? { kind, move: desc, fixed, strict: false } : { kind, desc, strict: false };
  }
  throw new Error(`"${text}" is no instruction: say go to, pick up, open, or put ... next to ...`);
}

function parseDescription(text, world) {
  const found = DESCRIPTION.exec(text);
  if (found === null) {
    throw new Error(`"${text}" names no object: say for example "the red ball" or "a door on your left"`);
  }
  const [color, type, place] = found.slice(1);
  const desc = { type: type === "object" ? null : type, color: color ?? null, loc: place ? LOCATIONS[place] : null };
  if (world !== null && matches(desc, world).length === 0) {
    throw new Error(`there is no "${text.replace(/^(a|the) /, "")}" on the ground of this world`);
  }
  return desc;
}
