"""Minigrid's step and view as tensor operations: a simulator without error, through which gradients pass.

Worlds are ones and zeros, and on these `step` and `view` are Minigrid's own rules, number for number. In between
they are polynomials. Each is linear in every block of a state taken alone (the action, the direction, the position,
what is carried, of each cell its type, its colour, its state). So at ones and zeros the gradient with respect to a
block is exactly the difference that another category in its place would make in one call; for the action, compared with
doing nothing. (What is not smooth, the place from which one looks and which cells are visible, has such differences as
its gradient too: `generative.simulators.visibility`.) What the gradient does not contain is what two changes do only
together, such as a cell that matters at two steps, or the type and the state of a new door.

Not part of a world here: its mission, the end of its episode, the numbers of its objects, what lies in boxes (in
KeyInBox alone, which no bot solves). The tasks PutNext*Carrying, which no bot solves either, show what is carried one
step late; here it is shown at once.
Axis letters: N worlds, A actions, H height, W width, K columns of a cell (20: types, colours, states); X numbers of a
soft observation (`generative.simulators.relaxation`).
"""

from collections.abc import Mapping, Sequence
from functools import reduce

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from generative.domains.babyai.cells import (
    BOX,
    COLOR,
    DOOR,
    FLOOR,
    GOAL,
    KEY,
    LAVA,
    NUM_TYPES,
    OPEN,
    PORTABLE,
    STATE,
    TYPE,
    cell_columns,
)
from generative.simulators.base import State
from generative.simulators.relaxation import join_cells
from generative.simulators.visibility import cells_in_view, view
from mop.common.errors import InputError
from mop.envs.babyai import World
from mop.envs.geometry import DIRECTIONS, EMPTY, VIEW_SIZE

_EMPTY = cell_columns(EMPTY)
_IS_FREE, _IS_PORTABLE, _IS_EMPTY, _IS_BOX = (
    cell_columns(kinds)[:, TYPE].sum(0) for kinds in ([EMPTY, FLOOR, GOAL, LAVA], PORTABLE, [EMPTY], [BOX])
)
_FULL_BOX = "the exact simulator does not know what lies in boxes: choose another task, or a learned simulator"
_LEAVES = torch.stack([_IS_PORTABLE, _IS_EMPTY, _IS_BOX])  # which types leave a cell: picked up, filled, opened


def simulator_of(encoding: Mapping) -> "ExactSimulator":
    """Make the simulator of a recording's worlds. Refuses those with something in a box, which no code of a cell tells.

    encoding: of the recording's config.
    """
    if encoding["task_id"] == "BabyAI-KeyInBox-v0":
        raise InputError(_FULL_BOX)
    return ExactSimulator(encoding["grid_shape"])


class ExactSimulator:
    """Worlds of one size as tensors: `Simulator`. What it shows and does is Minigrid's; see above for the gradients.

    A state is {"grid": (N, H, W, K), "position": (N, H, W), "direction": (N, 4), "carried": (N, K)} float32.
    """

    def __init__(self, grid_shape: Sequence[int]):
        """grid_shape: H, W."""
        self.grid_shape = tuple(grid_shape)
        self._in_view = cells_in_view(*self.grid_shape)

    def state_of(self, grid: np.ndarray, position: np.ndarray, direction: np.ndarray, carried: np.ndarray) -> State:
        """The state of N worlds. grid (N, H, W) codes, position (N, 2) x, y, direction (N,), carried (N,) codes.

        Raises ValueError for another size of grid.
        """
        if np.shape(grid)[1:] != self.grid_shape:
            raise ValueError(f"worlds of {np.shape(grid)[1:]} cells; this simulator has {self.grid_shape}")
        height, width = self.grid_shape
        x, y = torch.from_numpy(np.array(position, np.int64)).unbind(-1)
        return {
            "grid": cell_columns(grid),
            "position": F.one_hot(y * width + x, height * width).float().unflatten(-1, (height, width)),
            "direction": F.one_hot(torch.from_numpy(np.array(direction, np.int64)), 4).float(),
            "carried": cell_columns(carried),
        }

    def state_of_worlds(self, worlds: Sequence[World]) -> State:
        """The state of N real worlds as they are now. Refuses worlds with something in a box."""
        cells = (cell for world in worlds for cell in (*world.env.grid.grid, world.env.carrying))
        if any(getattr(cell, "contains", None) is not None for cell in cells):
            raise InputError(_FULL_BOX)
        names = ("codes", "position", "direction", "carried")
        return self.state_of(*(np.array([getattr(world, name) for world in worlds]) for name in names))

    def view(self, state: State) -> Tensor:
        """What the agents see: soft observations (N, X), ones and zeros where the state is."""
        image = view(state["grid"], state["position"], state["direction"], state["carried"], self._in_view)
        others = torch.cat([state["direction"], 1.0 - state["carried"][:, EMPTY, None]], -1)
        return join_cells(image.unflatten(1, (VIEW_SIZE, VIEW_SIZE)), others)

    def step(self, state: State, action: Tensor) -> State:
        """The state after an action (N, A), one-hot.

        Exactly linear in the action, so a weighted mix of actions gives the same mix of next states.
        """
        grid, position, direction, carried = (state[name] for name in ("grid", "position", "direction", "carried"))
        left, right, forward, pick_up, drop, toggle, _ = action.unbind(-1)
        front = reduce(torch.add, [_times(direction[:, d], _shift(position, d)) for d in range(4)])
        is_free = grid[..., TYPE] @ _IS_FREE + grid[..., DOOR] * grid[..., OPEN]
        # For each cell, whether the one ahead is free: is_free moved by a cell against direction d, (d + 2) % 4.
        ahead = [_times(direction[:, d], _shift(is_free, (d + 2) % 4)) for d in range(4)]
        pick_up, drop, toggle = (_times(gate, front) for gate in (pick_up, drop, toggle))
        return {
            "grid": _cells_after(grid, carried, pick_up, drop, toggle) + _doors_toggled(grid, carried, toggle),
            "position": position + _times(forward, front * is_free - position * reduce(torch.add, ahead)),
            "direction": direction
            + _times(left, direction.roll(-1, -1) - direction)
            + _times(right, direction.roll(1, -1) - direction),
            "carried": _hand_after(grid, carried, pick_up, drop),
        }


def _cells_after(grid: Tensor, carried: Tensor, pick_up: Tensor, drop: Tensor, toggle: Tensor) -> Tensor:
    """The cells (N, H, W, K) after things were picked up, dropped, and boxes opened: gates (N, H, W), by cell.

    What leaves a cell is multiplied with its types one by one, not with the cell as a whole: so the result stays
    linear in the type, and a gradient asks what a thing of another type would have done.
    """
    types, hand_empty = grid[..., TYPE], carried[:, EMPTY]
    pick_up = _times(hand_empty, pick_up)
    emptied_cells = pick_up * (types @ _IS_PORTABLE) + toggle * types[..., BOX]  # picked up, or a box opened
    filled = drop * types[..., EMPTY]
    emptied = _times(1.0 - hand_empty, drop)
    leaving = types * (torch.stack([pick_up, emptied, toggle], -1) @ _LEAVES)
    left = torch.cat([types - leaving, grid[..., NUM_TYPES:] * (1.0 - leaving.sum(-1, keepdim=True))], -1)
    held = carried - _empty_part(carried)
    return left + emptied_cells[..., None] * _EMPTY + filled[..., None] * held[:, None, None]


def _doors_toggled(grid: Tensor, carried: Tensor, toggle: Tensor) -> Tensor:
    """What is added to the cells (N, H, W, K) where doors are opened, closed, or unlocked by a key of their colour."""
    fits = _times(carried[:, KEY], torch.einsum("nyxk,nk->nyx", grid[..., COLOR], carried[:, COLOR]))
    is_open, is_closed, is_locked = grid[..., STATE].unbind(-1)
    unlocked = is_locked * fits
    turned = torch.stack([is_closed + unlocked - is_open, is_open - is_closed, -unlocked], -1)
    turned = (toggle * grid[..., DOOR])[..., None] * turned
    return F.pad(turned, (STATE.start, 0))


def _hand_after(grid: Tensor, carried: Tensor, pick_up: Tensor, drop: Tensor) -> Tensor:
    """What is carried (N, K) after picking up and dropping; linear in the same way as `_cells_after`."""
    portable, hand_empty, empty_part = grid[..., TYPE] @ _IS_PORTABLE, carried[:, EMPTY], _empty_part(carried)
    taken_types = _sum_over_cells(pick_up, grid[..., TYPE]) * _IS_PORTABLE
    taken = torch.cat([taken_types, _sum_over_cells(pick_up * portable, grid[..., NUM_TYPES:])], -1)
    let_go = _times(1.0 - hand_empty, _EMPTY.expand_as(carried)) - (carried - empty_part)
    num_taken, num_let_go = (pick_up * portable).sum((-1, -2)), (drop * grid[..., EMPTY]).sum((-1, -2))
    return carried + _times(hand_empty, taken) - _times(num_taken, empty_part) + _times(num_let_go, let_go)


def _empty_part(carried: Tensor) -> Tensor:
    """The part of what is carried (N, K) that is nothing; the rest is a thing."""
    hand_empty = carried[:, EMPTY, None]
    return torch.cat([hand_empty * _EMPTY[TYPE], hand_empty * carried[:, NUM_TYPES:]], -1)


def _shift(planes: Tensor, direction: int) -> Tensor:
    """(N, H, W) moved by one cell in a direction; zeros come in."""
    dx, dy = DIRECTIONS[direction]
    height, width = planes.shape[-2:]
    return F.pad(planes, (1, 1, 1, 1))[..., 1 - dy : 1 - dy + height, 1 - dx : 1 - dx + width]


def _times(gate: Tensor, values: Tensor) -> Tensor:
    """gate (N,) times values (N, ...)."""
    return gate.view(-1, *[1] * (values.dim() - 1)) * values


def _sum_over_cells(weights: Tensor, values: Tensor) -> Tensor:
    """weights (N, H, W), values (N, H, W, K) -> (N, K)."""
    return (weights.flatten(1)[:, None] @ values.flatten(1, 2)).squeeze(1)
