// Minigrid's numbers by name, the grid as codes, and the agent's view: mop/envs/geometry.py in JavaScript.
//
// A cell is one integer: object type + 2^8 x colour + 2^16 x state (Minigrid's own indices) + 2^20 x the number of the
// object in its world (0 for walls and empty cells), so that an object is recognised when it is carried elsewhere.

export const OBJECT_NAMES = [
  "unseen", "empty", "wall", "floor", "door", "key", "ball", "box", "goal", "lava", "agent",
];
export const [, EMPTY, WALL, , DOOR, KEY, BALL, BOX] = OBJECT_NAMES.keys();
export const COLOR_NAMES = ["red", "green", "blue", "purple", "yellow", "grey"];
export const STATE_NAMES = ["open", "closed", "locked"];
export const [OPEN, CLOSED, LOCKED] = STATE_NAMES.keys();
export const ACTION_NAMES = ["turn left", "turn right", "forward", "pick up", "drop", "toggle", "done"];
export const [TURN_LEFT, TURN_RIGHT, FORWARD, PICK_UP, DROP, TOGGLE] = ACTION_NAMES.keys();
export const DIRECTIONS = [[1, 0], [0, 1], [-1, 0], [0, -1]]; // x, y of one step: right, down, left, up
export const GREY_WALL = WALL + 256 * COLOR_NAMES.indexOf("grey");

export const VIEW_SIZE = 7;
export const VIEW_CELLS = VIEW_SIZE * VIEW_SIZE;
export const IMAGE_SIZE = 3 * VIEW_CELLS;
export const OBS_SIZE = IMAGE_SIZE + 4 + 1; // image, direction one-hot, carrying flag
const HALF = 3; // the agent stands at [HALF, LAST] of its view and looks at smaller j
const LAST = 6;
const MAX_NUMBER = 4095; // 12 bits

export function makeCode(kind, color = 0, state = 0, number = 0) {
  if (number > MAX_NUMBER) throw new Error("this world has had 4,095 objects; begin with a fresh one");
  return kind | (color << 8) | (state << 16) | (number << 20);
}

export const codeKind = (code) => code & 255;
export const codeColor = (code) => (code >> 8) & 255;
/** State of a door: 0 open, 1 closed, 2 locked. */
export const codeState = (code) => (code >> 16) & 15;
/** Number of the object, 0 for a cell without one. */
export const codeNumber = (code) => code >>> 20;
export const isPortable = (code) => codeKind(code) === KEY || codeKind(code) === BALL || codeKind(code) === BOX;
export const isDoor = (code, state) => codeKind(code) === DOOR && codeState(code) === state;
/** Whether the agent can stand there: an empty cell or an open door. */
export const isEnterable = (code) => codeKind(code) === EMPTY || isDoor(code, OPEN);

/** Name what is in a cell: "red key", "locked red door", "wall", "empty". */
export function describe(code) {
  const kind = codeKind(code), name = OBJECT_NAMES[kind];
  if (kind === EMPTY || kind === WALL) return name;
  const colored = `${COLOR_NAMES[codeColor(code)]} ${name}`;
  return kind === DOOR ? `${STATE_NAMES[codeState(code)]} ${colored}` : colored;
}

/**
 * What the agent at (x, y) has before it, cell [i, j] of its view at 7 i + j, i to the right, j towards the agent:
 * {cells: Int32Array(49) indices into codes, -1 outside; view: Int32Array(49) codes; visible: Uint8Array(49)}.
 */
export function lookAhead(codes, width, height, x, y, direction) {
  const [dx, dy] = DIRECTIONS[direction];
  const cells = new Int32Array(VIEW_CELLS).fill(-1);
  const view = new Int32Array(VIEW_CELLS).fill(GREY_WALL);
  for (let i = 0; i < VIEW_SIZE; i++) {
    for (let j = 0; j < VIEW_SIZE; j++) {
      const cellX = x + dx * (LAST - j) - dy * (i - HALF);
      const cellY = y + dy * (LAST - j) + dx * (i - HALF);
      if (cellX < 0 || cellX >= width || cellY < 0 || cellY >= height) continue;
      cells[VIEW_SIZE * i + j] = cellY * width + cellX;
      view[VIEW_SIZE * i + j] = codes[cellY * width + cellX];
    }
  }
  return { cells, view, visible: litCells(view) };
}

/** Cells (49) that light reaches: row by row away from the agent, to the right, then to the left. */
function litCells(view) {
  const visible = new Uint8Array(VIEW_CELLS);
  visible[VIEW_SIZE * HALF + LAST] = 1;
  const spread = (i, j, step) => {
    const at = VIEW_SIZE * i + j;
    const kind = codeKind(view[at]);
    if (!visible[at] || kind === WALL || (kind === DOOR && codeState(view[at]) !== OPEN)) return;
    visible[at + VIEW_SIZE * step] = 1;
    if (j > 0) visible[at + VIEW_SIZE * step - 1] = visible[at - 1] = 1;
  };
  for (let j = LAST; j >= 0; j--) {
    for (let i = 0; i < LAST; i++) spread(i, j, 1);
    for (let i = LAST; i > 0; i--) spread(i, j, -1);
  }
  return visible;
}

/** The observation Float32Array(152): image (3, 7, 7), direction one-hot, carrying flag; as `World.obs` in Python. */
export function observe(codes, width, height, x, y, direction, carried) {
  const { view, visible } = lookAhead(codes, width, height, x, y, direction);
  view[VIEW_SIZE * HALF + LAST] = carried;
  const obs = new Float32Array(OBS_SIZE);
  for (let at = 0; at < VIEW_CELLS; at++) {
    if (!visible[at]) continue;
    obs[at] = codeKind(view[at]);
    obs[at + VIEW_CELLS] = codeColor(view[at]);
    obs[at + 2 * VIEW_CELLS] = codeState(view[at]);
  }
  obs[IMAGE_SIZE + direction] = 1;
  obs[OBS_SIZE - 1] = carried === EMPTY ? 0 : 1;
  return obs;
}
