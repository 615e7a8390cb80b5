"""Minigrid's step and view as tensor operations: a simulator without error, through which gradients pass.

Worlds are ones and zeros, and on these `step` and `observe` are Minigrid's own rules, number for number. In between
they are polynomials. Each is linear in every block of a state taken alone (the action, the direction, the position,
what is carried, of each cell its type, its colour, its state). So at ones and zeros the gradient with respect to a
block is exactly the difference that another category in its place would make in one call; for the action, compared with
doing nothing. The one thing that is not smooth is which cells are visible: its gradient is the difference that one
cell's becoming opaque or clear would make (`Sight`).
What the gradient does not contain: what two changes do only together, such as a cell that matters at two steps, or the
type and the state of a new door. And a view from another row and another column counts as the sum of the two moves.

Not part of a world here: its mission, the end of its episode, the numbers of its objects.
Axis letters: N worlds, A actions, H height, W width, K columns of a cell (20: types, colours, states), C columns that
a state keeps of a cell: K, or 2 K where boxes hold something, then with the columns of what lies in it; X numbers of a
soft observation (`generative.soft`).
"""

from collections.abc import Sequence

import numpy as np
import torch
from minigrid.core.constants import OBJECT_TO_IDX, STATE_TO_IDX
from torch import Tensor
from torch.nn import functional as F

from generative.simulators import State
from generative.soft import CELL_CATEGORIES, NUM_CELLS, join_cells
from mop.kernels.grid import CATEGORIES, EMPTY, GREY_WALL, VIEW_SIZE, cell_code
from mop.worlds.minigrid_patches import DIRECTIONS
from mop.worlds.world import World

NUM_TYPES = CATEGORIES[0]
TYPE, COLOR, STATE = (slice(end - size, end) for size, end in zip(CATEGORIES, np.cumsum(CATEGORIES), strict=True))
WALL, DOOR, KEY, BALL, BOX = (OBJECT_TO_IDX[name] for name in ("wall", "door", "key", "ball", "box"))
PORTABLE = [KEY, BALL, BOX]
_OPEN = COLOR.stop + STATE_TO_IDX["open"]  # the column
_LAST, _HALF = VIEW_SIZE - 1, VIEW_SIZE // 2
_AGENT = torch.zeros(VIEW_SIZE, VIEW_SIZE, 1)  # its own cell in its view
_AGENT[_HALF, _LAST] = 1.0


def cell_columns(codes: np.ndarray | Tensor) -> Tensor:
    """Cells (..., K) float32, ones and zeros, of codes (...) of `mop.kernels.grid`; numbers of objects are dropped."""
    codes = torch.as_tensor(codes).long()
    categories = (codes & 255, codes >> 8 & 255, codes >> 16 & 15)
    return torch.cat([F.one_hot(k, size) for k, size in zip(categories, CATEGORIES, strict=True)], -1).float()


def cell_codes(cells: Tensor) -> Tensor:
    """The likeliest codes (...) int32 of cells (..., C), without numbers of objects: the inverse of `cell_columns`."""
    kind, color, state = (cells[..., columns].argmax(-1) for columns in (TYPE, COLOR, STATE))
    return (kind + (color << 8) + (state << 16)).int()


def _types(*indices: int) -> Tensor:
    """(types,) float32: ones for these."""
    return cell_columns(indices)[:, TYPE].sum(0)


_EMPTY, _GREY_WALL, _UNSEEN = cell_columns([EMPTY, GREY_WALL, 0])
_IS_FREE = _types(EMPTY, *(OBJECT_TO_IDX[name] for name in ("floor", "goal", "lava")))
_IS_PORTABLE = _types(*PORTABLE)
_LEAVES = torch.stack([_IS_PORTABLE, _types(EMPTY), _types(BOX)])  # picked up, filled, opened


class ExactSimulator:
    """Worlds of one size as tensors: `Simulator`. What it shows and does is Minigrid's; see above for the gradients.

    A state is {"grid": (N, H, W, C), "position": (N, H, W), "direction": (N, 4), "carried": (N, C)} float32.
    """

    def __init__(self, grid_shape: tuple[int, int]):
        """grid_shape: H, W."""
        self.grid_shape = tuple(grid_shape)

    def state_of(
        self,
        grid: np.ndarray,
        position: np.ndarray,
        direction: np.ndarray,
        carried: np.ndarray,
        contents: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> State:
        """The state of N worlds. grid (N, H, W) codes, position (N, 2) x, y, direction (N,), carried (N,) codes.

        A code does not tell what a box holds. contents: codes of what lies in the boxes of the grid (N, H, W) and in
        the carried one (N,), `EMPTY` elsewhere; None: all boxes are empty. Raises ValueError for another size of grid.
        """
        if np.shape(grid)[1:] != self.grid_shape:
            raise ValueError(f"worlds of {np.shape(grid)[1:]} cells; this simulator has {self.grid_shape}")
        height, width = self.grid_shape
        x, y = torch.as_tensor(np.asarray(position, np.int64)).unbind(-1)
        grid, carried = cell_columns(grid), cell_columns(carried)
        if contents is not None:
            grid, carried = (
                torch.cat([cells, cell_columns(inside)], -1)
                for cells, inside in zip((grid, carried), contents, strict=True)
            )
        return {
            "grid": grid,
            "position": F.one_hot(y * width + x, height * width).float().unflatten(-1, (height, width)),
            "direction": F.one_hot(torch.as_tensor(np.asarray(direction, np.int64)), 4).float(),
            "carried": carried,
        }

    def state_of_worlds(self, worlds: Sequence[World]) -> State:
        """The state of N real worlds as they are now, with what is in their boxes.

        Raises ValueError for boxes in boxes, which no task of BabyAI has.
        """
        inside = [[_content(cell) for cell in (*world.env.grid.grid, world.env.carrying)] for world in worlds]
        contents = np.array(inside, np.int32)
        return self.state_of(
            np.stack([world.codes for world in worlds]),
            np.array([world.position for world in worlds]),
            np.array([world.direction for world in worlds]),
            np.array([cell_code(world.env.carrying) for world in worlds]),
            (contents[:, :-1].reshape(-1, *self.grid_shape), contents[:, -1]) if (contents != EMPTY).any() else None,
        )

    def observe(self, state: State) -> Tensor:
        """What the agents see: soft observations (N, X), ones and zeros where the state is."""
        view, carried = _view(state), state["carried"][:, :CELL_CATEGORIES]
        opaque = view[..., WALL] + view[..., DOOR] * (1.0 - view[..., _OPEN])
        view = view * (1.0 - _AGENT) + carried[:, None, None] * _AGENT
        visible = Sight.apply(opaque.flatten(1)).view(opaque.shape)[..., None]
        image = visible * view + (1.0 - visible) * _UNSEEN
        return join_cells(image, torch.cat([state["direction"], 1.0 - carried[:, EMPTY, None]], -1))

    def step(self, state: State, action: Tensor) -> State:
        """The state after an action (N, A), ones and zeros; a mixture of actions gives the mixture of what they do."""
        grid, position, direction, carried = (state[name] for name in ("grid", "position", "direction", "carried"))
        left, right, forward, pick_up, drop, toggle, _ = action.unbind(-1)
        front = sum(_times(direction[:, d], _shift(position, d)) for d in range(4))
        is_free = grid[..., TYPE] @ _IS_FREE + grid[..., DOOR] * grid[..., _OPEN]
        is_free_ahead = sum(_times(direction[:, d], _shift(is_free, (d + 2) % 4)) for d in range(4))
        grid, carried = _handle(grid, carried, front, pick_up, drop, toggle)
        return {
            "grid": grid,
            "position": position + _times(forward, front * is_free - position * is_free_ahead),
            "direction": direction
            + _times(left, direction.roll(-1, -1) - direction)
            + _times(right, direction.roll(1, -1) - direction),
            "carried": carried,
        }


def _handle(
    grid: Tensor, carried: Tensor, front: Tensor, pick_up: Tensor, drop: Tensor, toggle: Tensor
) -> tuple[Tensor, Tensor]:
    """Grid and hand after picking up, dropping, toggling: grid (N, H, W, C), carried (N, C), front (N, H, W).

    What a cell loses is multiplied with its type column by column, not with the cell as a whole: so the result stays
    linear in the type, and a gradient asks what an object of another type would have done.
    """
    size, types = carried.shape[-1], grid[..., TYPE]
    nothing = _EMPTY.repeat(size // CELL_CATEGORIES)
    hand_empty = carried[:, EMPTY]
    empty_hand, held = _split_empty(carried)
    at_pick_up, at_drop, at_toggle = (_times(gate, front) for gate in (pick_up * hand_empty, drop, toggle))
    picked, filled, opened = (
        at_pick_up * types[..., PORTABLE].sum(-1),
        at_drop * types[..., EMPTY],
        at_toggle * types[..., BOX],
    )

    gates = torch.stack([at_pick_up, _times(1.0 - hand_empty, at_drop), at_toggle], -1)
    lost = picked + _times(1.0 - hand_empty, filled) + opened
    stays = torch.cat([types * (1.0 - gates @ _LEAVES), grid[..., NUM_TYPES:] * (1.0 - lost)[..., None]], -1)
    inside = torch.cat([grid[..., CELL_CATEGORIES:], _EMPTY.expand(*front.shape, -1)], -1)
    after = stays + picked[..., None] * nothing + filled[..., None] * held[:, None, None] + opened[..., None] * inside

    fits = _times(carried[:, KEY], torch.einsum("nyxk,nk->nyx", grid[..., COLOR], carried[:, COLOR]))
    is_open, is_closed, is_locked = grid[..., STATE].unbind(-1)
    unlocked = is_locked * fits
    turned = torch.stack([is_closed + unlocked - is_open, is_open - is_closed, -unlocked], -1)
    turned = (at_toggle * types[..., DOOR])[..., None] * turned
    after = after + F.pad(turned, (STATE.start, size - STATE.stop))

    taken = torch.cat(
        [_sum_over_cells(at_pick_up, types) * _IS_PORTABLE, _sum_over_cells(picked, grid[..., NUM_TYPES:])], -1
    )
    num_picked = _sum_over_cells(_times(pick_up, front), types) @ _IS_PORTABLE
    num_filled = filled.sum((-1, -2))
    carried = carried + taken - _times(num_picked, empty_hand)
    return after, carried + _times(num_filled, _times(1.0 - hand_empty, nothing.expand_as(held)) - held)


class Sight(torch.autograd.Function):
    """Which cells of a view light reaches: opaque (N, 49) -> (N, 49), ones and zeros, as `mop.kernels.grid.observe`.

    A cell counts as opaque from 0.5 on. The gradient with respect to a cell is the difference between the visible cells
    with this one opaque and with it clear, the others as they are.
    """

    @staticmethod
    def forward(ctx, opaque: Tensor) -> Tensor:
        """opaque (N, 49) float, by cell [i, j] of the view."""
        clear = _rows(opaque < 0.5)
        ctx.save_for_backward(clear)
        return _spread_light(clear).to(opaque)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        """gradient (N, 49) with respect to the visible cells -> (N, 49) to the opaque ones."""
        (clear,) = ctx.saved_tensors
        flipped = clear[:, None] ^ _rows(torch.eye(NUM_CELLS, dtype=torch.bool))
        change = _spread_light(flipped).to(gradient) - _spread_light(clear)[:, None].to(gradient)
        was_clear = _cells_of(clear).to(gradient)
        return torch.einsum("nv,ncv->nc", gradient, change) * (2.0 * was_clear - 1.0)


def _rows(cells: Tensor) -> Tensor:
    """Flags (..., 49) of the cells [i, j] of a view as (..., 7) numbers, one for each j: bit i."""
    return (cells.unflatten(-1, (VIEW_SIZE, VIEW_SIZE)).long() << torch.arange(VIEW_SIZE)[:, None]).sum(-2)


def _cells_of(rows: Tensor) -> Tensor:
    """The inverse of `_rows`: (..., 7) -> (..., 49) bool."""
    return (rows[..., None, :] >> torch.arange(VIEW_SIZE)[:, None] & 1).bool().flatten(-2)


def _row_of_light() -> Tensor:
    """How light spreads in a row, (128, 128, 2): lit at first, clear -> lit at last, and lit in the row behind.

    Each lit clear cell lights its neighbour and what is behind the two of them, first to the right, then to the left.
    """
    lit, clear = (numbers.ravel() for numbers in np.mgrid[: 1 << VIEW_SIZE, : 1 << VIEW_SIZE])
    first, last = 1, 1 << _LAST
    for _ in range(_LAST):
        lit = lit | ((lit & clear & ~last) << 1)
    sources = lit & clear & ~last
    behind = sources | sources << 1
    for _ in range(_LAST):
        lit = lit | ((lit & clear & ~first) >> 1)
    sources = lit & clear & ~first
    return torch.from_numpy(np.stack([lit, behind | sources | sources >> 1], -1).reshape(1 << VIEW_SIZE, -1, 2))


_LIGHT = _row_of_light()


def _spread_light(clear: Tensor) -> Tensor:
    """The visible cells (..., 49) bool of views whose clear cells are given by row (..., 7), see `_rows`."""
    lit, rows = torch.full(clear.shape[:-1], 1 << _HALF), []
    for j in range(_LAST, -1, -1):
        in_row, lit = _LIGHT[lit, clear[..., j]].unbind(-1)
        rows.insert(0, in_row)
    return _cells_of(torch.stack(rows, -1))


def _view(state: State) -> Tensor:
    """The cells before the agents, all lit, (N, 7, 7, K), [i, j] as `generative.soft.cells`; grey walls outside."""
    cells, position = state["grid"][..., :CELL_CATEGORIES] - _GREY_WALL, state["position"]
    # (N, 13, H): row a of the window is row y of the grid; the same for the columns
    row_at, column_at = (
        F.pad(position.sum(axis), (_LAST, _LAST)).unfold(-1, position.shape[other], 1).flip(-2)
        for axis, other in ((-1, -2), (-2, -1))
    )
    rows = (row_at @ cells.flatten(2)).unflatten(-1, cells.shape[2:])  # (N, 13, W, K)
    window = column_at[:, None] @ rows + _GREY_WALL
    return sum(_times(state["direction"][:, d], _look(window, d)) for d in range(4))


def _look(window: Tensor, direction: int) -> Tensor:
    """What lies before an agent in the middle of a window (N, 13, 13, K), turned until it looks up: (N, 7, 7, K)."""
    dx, dy = DIRECTIONS[direction]
    top, left = _HALF * (1 + dy), _HALF * (1 + dx)
    ahead = window[:, top : top + VIEW_SIZE, left : left + VIEW_SIZE]
    return ahead.rot90(direction + 1, (1, 2)).transpose(1, 2)


def _shift(planes: Tensor, direction: int) -> Tensor:
    """(N, H, W) moved by one cell in a direction; zeros come in."""
    dx, dy = DIRECTIONS[direction]
    height, width = planes.shape[-2:]
    return F.pad(planes, (1, 1, 1, 1))[..., 1 - dy : 1 - dy + height, 1 - dx : 1 - dx + width]


def _times(gate: Tensor, values: Tensor) -> Tensor:
    """gate (N,) times values (N, ...)."""
    return gate.view(-1, *[1] * (values.dim() - 1)) * values


def _sum_over_cells(weights: Tensor, values: Tensor) -> Tensor:
    """weights (N, H, W), values (N, H, W, C) -> (N, C)."""
    return (weights.flatten(1)[:, None] @ values.flatten(1, 2)).squeeze(1)


def _split_empty(carried: Tensor) -> tuple[Tensor, Tensor]:
    """What is carried (N, C) as the part that is nothing and the part that is an object; they sum to it."""
    hand_empty = carried[:, EMPTY, None]
    nothing = torch.cat([hand_empty * _EMPTY[TYPE], hand_empty * carried[:, NUM_TYPES:]], -1)
    return nothing, carried - nothing


def _content(cell) -> int:
    """The code of what is in a cell of a Minigrid grid, `EMPTY` where it is no box or an empty one."""
    inside = getattr(cell, "contains", None)
    if getattr(inside, "contains", None) is not None:
        raise ValueError("a box in a box holds something")
    return cell_code(inside)
