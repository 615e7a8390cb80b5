"""The grid as an array of codes, and Minigrid's agent view on it, compiled.

A cell is one integer: object type + 2^8 x colour + 2^16 x state (Minigrid's own indices) + 2^20 x the number of the
object in its world (0 for walls and empty cells), so that the same object is known when it is carried elsewhere.
The view costs Minigrid 0.1 ms in pure Python, most of a step's time. The rules of the game stay Minigrid's;
`tests/mop/envs/test_babyai.py` holds the view against the original, step by step, on every task.
"""

import functools

import numpy as np
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX, STATE_TO_IDX
from minigrid.core.world_object import Wall

from mop.fast.compile_cache import kernel

VIEW_SIZE = 7
IMAGE_SIZE = 3 * VIEW_SIZE * VIEW_SIZE
CATEGORIES = (len(OBJECT_TO_IDX), len(COLOR_TO_IDX), len(STATE_TO_IDX))  # of each channel of an image
EMPTY = OBJECT_TO_IDX["empty"]
GREY_WALL = OBJECT_TO_IDX["wall"] + 256 * COLOR_TO_IDX["grey"]
_WALL, _DOOR = OBJECT_TO_IDX["wall"], OBJECT_TO_IDX["door"]


def cell_code(cell) -> int:
    """The code of one cell of a Minigrid grid: a `WorldObj`, or None for an empty cell."""
    if cell is None:
        return EMPTY
    type_index, color_index, state = cell.encode()
    return type_index + (color_index << 8) + (state << 16) + (getattr(cell, "number", 0) << 20)


def grid_codes(grid) -> np.ndarray:
    """The codes (height, width) int32 of a whole Minigrid `Grid`, whose objects are given their numbers here."""
    codes = []
    for index, cell in enumerate(grid.grid):
        if cell is None:
            codes.append(EMPTY)
        elif type(cell) is Wall and cell.color == "grey":
            codes.append(GREY_WALL)
        else:
            if not hasattr(cell, "number") and cell.type != "wall":
                cell.number = index + 1
            codes.append(cell_code(cell))
    return np.array(codes, np.int32).reshape(grid.height, grid.width)


def one_hot_edges() -> np.ndarray:
    """Where the columns of each integer of an image (147,) begin in its one-hot form; then their number, 980.

    (148,) int64: integer k of an image, of value v, is a one in column edges[k] + v.
    """
    return np.cumsum([0, *np.repeat(CATEGORIES, VIEW_SIZE * VIEW_SIZE)])


@functools.lru_cache
def obs_edges(obs_encoding: str) -> np.ndarray:
    """How an observation becomes inputs: its first integers as one-hot columns, `one_hot_edges`.

    "raw": none of them, [0]; "one_hot": all those of the image. The other numbers are inputs as they are, behind them.
    """
    return {"raw": np.zeros(1, np.int64), "one_hot": one_hot_edges()}[obs_encoding]


def encoded_dim(input_dim: int, obs_encoding: str) -> int:
    """Inputs that an observation of `input_dim` numbers becomes."""
    edges = obs_edges(obs_encoding)
    if input_dim < len(edges) - 1:
        raise ValueError(f"observations of {input_dim} numbers have no image of {len(edges) - 1} integers to encode")
    return int(edges[-1]) + input_dim - (len(edges) - 1)


@kernel
def code_kind(code):
    """Minigrid's index of the object type."""
    return code & 255


@kernel
def code_color(code):
    """Minigrid's index of the colour."""
    return (code >> 8) & 255


@kernel
def code_state(code):
    """Of a door: 0 open, 1 closed, 2 locked."""
    return (code >> 16) & 15


@kernel
def code_number(code):
    """The number of the object, 0 for what has none."""
    return code >> 20


@kernel
def _blocks_sight(code):
    return code_kind(code) == _WALL or (code_kind(code) == _DOOR and code_state(code) != 0)


@kernel
def observe(codes, x, y, direction, carried, image, seen):
    """Write the agent's view, as Minigrid's `gen_obs` makes it, and mark the cells it shows.

    codes (height, width) int32; the agent at (x, y) facing `direction` (0 right, 1 down, 2 left, 3 up); carried: code
    of the carried object or `EMPTY`. Writes image (147,): channels first, (3, 7, 7) flattened, raw Minigrid indices;
    sets seen (width, height) bool to True for every visible cell.
    """
    height, width = codes.shape
    half, last = VIEW_SIZE // 2, VIEW_SIZE - 1
    dx = 1 if direction == 0 else -1 if direction == 2 else 0
    dy = 1 if direction == 1 else -1 if direction == 3 else 0
    view = np.full((VIEW_SIZE, VIEW_SIZE), GREY_WALL, np.int32)  # [i, j]: i to the right, j towards the agent
    for i in range(VIEW_SIZE):
        for j in range(VIEW_SIZE):
            cx = x + dx * (last - j) - dy * (i - half)
            cy = y + dy * (last - j) + dx * (i - half)
            if 0 <= cx < width and 0 <= cy < height:
                view[i, j] = codes[cy, cx]

    visible = np.zeros((VIEW_SIZE, VIEW_SIZE), np.bool_)
    visible[half, last] = True
    for j in range(last, -1, -1):  # light spreads row by row away from the agent, to the right, then to the left
        for i in range(last):
            if visible[i, j] and not _blocks_sight(view[i, j]):
                visible[i + 1, j] = True
                if j > 0:
                    visible[i + 1, j - 1] = True
                    visible[i, j - 1] = True
        for i in range(last, 0, -1):
            if visible[i, j] and not _blocks_sight(view[i, j]):
                visible[i - 1, j] = True
                if j > 0:
                    visible[i - 1, j - 1] = True
                    visible[i, j - 1] = True

    view[half, last] = carried
    plane = VIEW_SIZE * VIEW_SIZE
    for i in range(VIEW_SIZE):
        for j in range(VIEW_SIZE):
            at = i * VIEW_SIZE + j
            code = view[i, j] if visible[i, j] else 0
            image[at] = code_kind(code)
            image[plane + at] = code_color(code)
            image[2 * plane + at] = code_state(code)
            if visible[i, j]:
                cx = x + dx * (last - j) - dy * (i - half)
                cy = y + dy * (last - j) + dx * (i - half)
                if 0 <= cx < width and 0 <= cy < height:
                    seen[cx, cy] = True


@kernel
def flood(is_free, width, start):
    """The cells that can be walked to from `start`, and those beside them.

    is_free (height * width,) bool: can be walked on, row by row; the outermost cells are not. Returns (height * width,)
    bool.
    """
    reached = np.zeros(len(is_free), np.bool_)
    frontier = np.empty(len(is_free), np.int64)
    frontier[0], count = start, 1
    reached[start] = True
    while count > 0:
        count -= 1
        at = frontier[count]
        if not is_free[at]:
            continue
        for to in (at + 1, at - 1, at + width, at - width):
            if not reached[to]:
                reached[to] = True
                frontier[count] = to
                count += 1
    return reached
