"""On an array of codes, compiled: Minigrid's agent view, flood filling, and the searches of the BabyAI bot.

The view costs Minigrid 0.1 ms in pure Python, most of a step's time. Codes and rules are those of `mop.envs.geometry`;
`tests/mop/envs/test_babyai.py` holds the view against Minigrid, step by step, on every task.
Cells of searches are (x, y), directions unit vectors (dx, dy).
"""

import functools

import numpy as np

from mop.envs import geometry
from mop.envs.geometry import DOOR, EMPTY, GREY_WALL, OPEN, VIEW_SIZE, WALL
from mop.fast.compile_cache import kernel

NO_CELL = (-1, -1)
NOT_VISITED = -2

code_kind = kernel(geometry.code_kind)
code_color = kernel(geometry.code_color)
code_state = kernel(geometry.code_state)
code_number = kernel(geometry.code_number)


@functools.lru_cache
def obs_edges(obs_encoding: str) -> np.ndarray:
    """`mixture_of_experts.category_edges` without torch."""
    return {"raw": np.zeros(1, np.int64), "one_hot": geometry.one_hot_edges()}[obs_encoding]


@kernel
def _blocks_sight(code):
    return code_kind(code) == WALL or (code_kind(code) == DOOR and code_state(code) != OPEN)


@kernel
def observe(codes, x, y, direction, carried, image, seen):
    """`mop.envs.geometry.observe`."""
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
    """The cells that can be walked to from `start`, and their neighbours.

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


# --- the bot's searches: `BabyAIBot._breadth_first_search` and its callers --------------------------------------------


@kernel
def search(codes, seen, starts, start_dx, start_dy, ignore_blockers, wanted):
    """Breadth-first search from `starts` in the order of the bot, which prefers to go straight.

    codes (height, width) int32; seen (width, height) bool: unseen cells are reached but not left; starts (K, 2) int32
    cells, all entered in direction (start_dx, start_dy); ignore_blockers: pass through objects too; wanted: a cell at
    which to stop, or (-1, -1). Returns order (V, 2) int32, the cells in the order of their visit, and previous
    (width * height,) int32: for cell x * height + y the index of the cell before it, negative for a start (-1) and for
    a cell out of reach (-2).
    """
    height, width = codes.shape
    previous = np.full(width * height, NOT_VISITED, np.int32)
    order = np.empty((width * height, 2), np.int32)
    queue = np.empty((len(starts) + 4 * width * height, 5), np.int32)  # x, y, dx, dy, previous
    tail = len(starts)
    for k in range(tail):
        queue[k, 0], queue[k, 1] = starts[k, 0], starts[k, 1]
        queue[k, 2], queue[k, 3], queue[k, 4] = start_dx, start_dy, -1
    head = count = 0
    while head < tail:
        x, y, dx, dy = queue[head, 0], queue[head, 1], queue[head, 2], queue[head, 3]
        here, came_from = x * height + y, queue[head, 4]
        head += 1
        if previous[here] != NOT_VISITED:
            continue
        previous[here] = came_from
        order[count, 0], order[count, 1] = x, y
        count += 1
        if x == wanted[0] and y == wanted[1]:
            break
        code = codes[y, x]
        kind = code_kind(code)
        if not seen[x, y] or _blocks_sight(code):
            continue
        if kind != EMPTY and kind != DOOR and not ignore_blockers:
            continue
        for turn in range(4):  # straight on (dx, dy), (dy, dx), (-dy, -dx), back
            sign = 1 if turn < 2 else -1
            step_x = sign * (dy if turn == 1 or turn == 2 else dx)
            step_y = sign * (dx if turn == 1 or turn == 2 else dy)
            is_inside = 0 <= x + step_x < width and 0 <= y + step_y < height
            if is_inside and previous[(x + step_x) * height + y + step_y] == NOT_VISITED:
                queue[tail, 0], queue[tail, 1] = x + step_x, y + step_y
                queue[tail, 2], queue[tail, 3], queue[tail, 4] = step_x, step_y, here
                tail += 1
    return order[:count], previous


@kernel
def search_freely(bot, codes, seen, wanted=NO_CELL):
    """The bot's first search: from the agent, around all objects."""
    start = np.empty((1, 2), np.int32)
    start[0, 0], start[0, 1] = bot.x, bot.y
    return search(codes, seen, start, bot.dx, bot.dy, False, wanted)


@kernel
def steps_back(previous, x, y, height):
    """Moves from the start of a search to (x, y), the cell after the start (the start itself if no move), the start."""
    steps, at = 0, x * height + y
    first = at
    while previous[at] >= 0:
        first = at
        at = previous[at]
        steps += 1
    return steps, first, at


@kernel
def shortest_path(bot, codes, seen, x, y, try_with_blockers):
    """Moves from the agent to (x, y) or -1, the first cell of that path, and whether it leads through objects."""
    height, width = codes.shape
    nowhere = (np.int32(-1), np.int32(-1))
    if not (0 <= x < width and 0 <= y < height):
        return -1, nowhere, try_with_blockers
    order, free = search_freely(bot, codes, seen, (x, y))
    if free[x * height + y] != NOT_VISITED:
        steps, first, _ = steps_back(free, x, y, height)
        return steps, (np.int32(first // height), np.int32(first % height)), False
    if not try_with_blockers:
        return -1, nowhere, False
    _, beyond = search(codes, seen, order, 1, 0, True, (x, y))
    if beyond[x * height + y] == NOT_VISITED:
        return -1, nowhere, True
    more, first, exit_ = steps_back(beyond, x, y, height)
    steps, first_free, _ = steps_back(free, exit_ // height, exit_ % height, height)
    if steps > 0:
        first = first_free
    return steps + more, (np.int32(first // height), np.int32(first % height)), True
