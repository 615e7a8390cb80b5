"""The BabyAI bot's breadth-first searches, compiled: Minigrid's `BabyAIBot._breadth_first_search` and its callers.

Cells are (x, y); directions unit vectors (dx, dy).
"""

import numpy as np

from mop.envs.geometry import DOOR, EMPTY, OPEN, WALL
from mop.fast.compile_cache import kernel
from mop.fast.grid import code_kind, code_state

NO_CELL = (-1, -1)
NOT_VISITED = -2


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
        if not seen[x, y] or kind == WALL or (kind == DOOR and code_state(code) != OPEN):
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
