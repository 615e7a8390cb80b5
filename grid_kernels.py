"""Minigrid's agent view and the bot's breadth-first search, compiled.

Both cost Minigrid 0.1 to 0.4 ms a call in pure Python, nearly all of a step's time. Here they work on the grid as an
array of codes, one integer a cell: object type + 256 x colour + 65536 x state (Minigrid's own indices). The rules of
the game stay Minigrid's; `tests/test_babyai_env.py` holds both against the originals, step by step, on every task.

The first call of a fresh installation compiles for a few seconds; numba keeps the result beside this file.
"""

import numpy as np
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX
from minigrid.core.world_object import Wall
from numba import njit

VIEW_SIZE = 7
IMAGE_SIZE = 3 * VIEW_SIZE * VIEW_SIZE
EMPTY = OBJECT_TO_IDX["empty"]
GREY_WALL = OBJECT_TO_IDX["wall"] + 256 * COLOR_TO_IDX["grey"]
_WALL, _DOOR = OBJECT_TO_IDX["wall"], OBJECT_TO_IDX["door"]
_NO_CELL = -1  # in `previous`: a start of the search
NOT_VISITED = -2


def cell_code(cell) -> int:
    """The code of one cell of a Minigrid grid: a `WorldObj`, or None for an empty cell."""
    if cell is None:
        return EMPTY
    type_index, color_index, state = cell.encode()
    return type_index + 256 * color_index + 65536 * state


def grid_codes(grid) -> np.ndarray:
    """The codes (height, width) int32 of a whole Minigrid `Grid`."""
    codes = [
        EMPTY if cell is None else GREY_WALL if type(cell) is Wall and cell.color == "grey" else cell_code(cell)
        for cell in grid.grid
    ]
    return np.array(codes, np.int32).reshape(grid.height, grid.width)


@njit(cache=True)
def _blocks_sight(code):
    kind = code & 255
    return kind == _WALL or (kind == _DOOR and code >> 16 != 0)


@njit(cache=True)
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
            image[at] = code & 255
            image[plane + at] = (code >> 8) & 255
            image[2 * plane + at] = code >> 16
            if visible[i, j]:
                cx = x + dx * (last - j) - dy * (i - half)
                cy = y + dy * (last - j) + dx * (i - half)
                if 0 <= cx < width and 0 <= cy < height:
                    seen[cx, cy] = True


@njit(cache=True)
def search(codes, seen, starts, start_dx, start_dy, ignore_blockers):
    """Breadth-first search from `starts` in the order of the BabyAI bot, which prefers to go straight.

    codes (height, width) int32; seen (width, height) bool: unseen cells are reached but not left; starts (K, 2) int32
    cells (x, y), all entered in direction (start_dx, start_dy); ignore_blockers: pass through objects too.
    Returns order (V, 2) int32, the cells in the order of their visit, and previous (width * height,) int32: for cell
    x * height + y the index of the cell before it, negative for a start, NOT_VISITED for a cell out of reach.
    """
    height, width = codes.shape
    previous = np.full(width * height, NOT_VISITED, np.int32)
    order = np.empty((width * height, 2), np.int32)
    queue = np.empty((len(starts) + 4 * width * height, 5), np.int32)  # x, y, dx, dy, previous
    tail = len(starts)
    for k in range(tail):
        queue[k, 0], queue[k, 1] = starts[k, 0], starts[k, 1]
        queue[k, 2], queue[k, 3], queue[k, 4] = start_dx, start_dy, _NO_CELL
    head = count = 0
    while head < tail:
        x, y, dx, dy = queue[head, 0], queue[head, 1], queue[head, 2], queue[head, 3]
        came_from = queue[head, 4]
        head += 1
        here = x * height + y
        if previous[here] != NOT_VISITED:
            continue
        previous[here] = came_from
        order[count, 0], order[count, 1] = x, y
        count += 1
        if not seen[x, y]:
            continue
        code = codes[y, x]
        kind = code & 255
        if kind == _WALL or (kind == _DOOR and code >> 16 != 0):
            continue
        if kind != EMPTY and kind != _DOOR and not ignore_blockers:
            continue
        for turn in range(4):  # straight on (dx, dy), (dy, dx), (-dy, -dx), back
            sign = 1 if turn < 2 else -1
            step_x = sign * (dy if turn == 1 or turn == 2 else dx)
            step_y = sign * (dx if turn == 1 or turn == 2 else dy)
            if 0 <= x + step_x < width and 0 <= y + step_y < height:
                queue[tail, 0], queue[tail, 1] = x + step_x, y + step_y
                queue[tail, 2], queue[tail, 3], queue[tail, 4] = step_x, step_y, here
                tail += 1
    return order[:count], previous
