"""Minigrid's agent view on an array of codes, and flood filling, compiled.

The view costs Minigrid 0.1 ms in pure Python, most of a step's time. Codes and rules are those of `mop.envs.geometry`;
`tests/mop/envs/test_babyai.py` holds the view against Minigrid, step by step, on every task.
"""

import functools

import numpy as np

from mop.envs import geometry
from mop.envs.geometry import DOOR, GREY_WALL, OPEN, VIEW_SIZE, WALL
from mop.fast.compile_cache import kernel

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
