"""Cells of a grid as columns of ones and zeros, and back to codes.

Axis letter: K columns of a cell (20: object types, colours, states, side by side).
"""

from typing import Any

import numpy as np
import torch
from minigrid.core.constants import OBJECT_TO_IDX, STATE_TO_IDX
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional as F

from mop.envs.geometry import CATEGORIES, code_color, code_kind, code_state

NUM_TYPES = CATEGORIES[0]
TYPE, COLOR, STATE = (slice(end - size, end) for size, end in zip(CATEGORIES, np.cumsum(CATEGORIES), strict=True))
WALL, FLOOR, DOOR, KEY, BALL, BOX, GOAL, LAVA = (
    OBJECT_TO_IDX[name] for name in ("wall", "floor", "door", "key", "ball", "box", "goal", "lava")
)
PORTABLE = (KEY, BALL, BOX)
OPEN = STATE.start + STATE_TO_IDX["open"]  # the column


def cell_columns(codes: ArrayLike) -> Tensor:
    """Cells (..., K) float32, ones and zeros, of codes (...) of `mop.envs.geometry`; numbers of objects are dropped."""
    codes = torch.from_numpy(np.array(codes, np.int64))
    parts = [part(codes) for part in (code_kind, code_color, code_state)]
    return torch.cat([F.one_hot(part, size) for part, size in zip(parts, CATEGORIES, strict=True)], -1).float()


def cell_codes(cells: Tensor) -> Tensor:
    """The likeliest codes (...) int32 of cells (..., K), without numbers of objects: the inverse of `cell_columns`."""
    kind, color, state = (cells[..., block].argmax(-1) for block in (TYPE, COLOR, STATE))
    return make_code(kind, color, state).int()


def make_code(kind: Any, color: Any = 0, state: Any = 0) -> Any:
    """The codes (numbers, arrays) of objects without a number: the inverse of `code_kind` and its like."""
    return kind + (color << 8) + (state << 16)


def plain_code(code: int) -> int:
    """A code without the number of its object."""
    return make_code(int(code_kind(code)), int(code_color(code)), int(code_state(code)))
