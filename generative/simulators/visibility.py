"""What an agent sees of a grid: the cells before it, turned, as far as light reaches, with gradients behind them.

Where the agent is, which way it looks and what is opaque are taken as the likeliest; the gradients are the exact
differences that another place, another way or another cell's being opaque would make. So a view is linear in each of
its arguments at ones and zeros, and in the cells it shows in between too.
Axis letters: N worlds, H height, W width, K columns of a cell.
"""

import numpy as np
import torch
from torch import Tensor

from generative.domains.babyai.cells import COLOR, DOOR, OPEN, STATE, WALL, cell_codes, cell_columns
from generative.simulators.relaxation import NUM_CELLS
from mop.common.speed import IS_FAST
from mop.envs.babyai import observe
from mop.envs.geometry import GREY_WALL, HALF, IMAGE_SIZE, LAST, VIEW_SIZE, cells_of_view

if IS_FAST:
    from mop.fast.compile_cache import kernel
else:

    def kernel(function):
        """The function, in plain Python."""
        return function


_OWN = HALF * VIEW_SIZE + LAST  # the agent's cell in its view
_COLOR, _STATE = int(COLOR.start), int(STATE.start)
_OUTSIDE, _UNSEEN = cell_columns([GREY_WALL, 0])


def cells_in_view(height: int, width: int) -> Tensor:
    """(4, H W, 49) int64: for each direction and place, the number of the cell at [i, j] of the view; H W outside."""
    y, x = np.mgrid[:height, :width].reshape(2, -1)
    at_x, at_y = cells_of_view(x, y, np.arange(4)[:, None])
    is_inside = (at_x >= 0) & (at_x < width) & (at_y >= 0) & (at_y < height)
    return torch.from_numpy(np.where(is_inside, at_y * width + at_x, height * width))


def view(grid: Tensor, position: Tensor, direction: Tensor, own: Tensor, in_view: Tensor) -> Tensor:
    """The image (N, 49, K), by cell [i, j]: grid (N, H, W, K), position (N, H, W), direction (N, 4).

    own (N, K): what is shown in the agent's own cell; in_view: of `cells_in_view`.
    """
    position, cells = position.flatten(1), torch.cat([grid.flatten(1, 2), _OUTSIDE.expand(len(grid), 1, -1)], 1)
    at = in_view[direction.argmax(-1), position.argmax(-1)]
    ahead = cells.gather(1, at[..., None].expand(-1, -1, cells.shape[-1]))
    opaque = ahead[..., WALL] + ahead[..., DOOR] * (1.0 - ahead[..., OPEN])
    visible = Sight.apply(opaque)[..., None]
    is_own = (torch.arange(NUM_CELLS) == _OWN)[:, None]
    image = torch.where(is_own, own[:, None], visible * ahead + (1.0 - visible) * _UNSEEN)
    return image + _Elsewhere.apply(position, direction, grid.detach(), own.detach())


class _Elsewhere(torch.autograd.Function):
    """Zeros (N, 49, K) to be added to an image; with respect to place and direction, the gradient of that image.

    It is exact where cells are ones and zeros; others count as the likeliest.
    """

    @staticmethod
    def forward(ctx, position: Tensor, direction: Tensor, grid: Tensor, own: Tensor) -> Tensor:
        """position (N, H W), direction (N, 4), grid (N, H, W, K), own (N, K)."""
        ctx.save_for_backward(position, direction, grid, own)
        return grid.new_zeros(len(grid), NUM_CELLS, grid.shape[-1])

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> tuple:
        """gradient (N, 49, K) -> of every place, seen in the same direction, and of every direction, at this place."""
        (gradient,), (position, direction, grid, own) = gradients, ctx.saved_tensors
        codes, owns = cell_codes(grid).numpy(), cell_codes(own).numpy()
        place, way = position.argmax(-1).numpy(), direction.argmax(-1).numpy()
        of_position, of_direction = np.empty(position.shape, np.float32), np.empty(direction.shape, np.float32)
        _values_of_views(codes, owns, place, way, gradient.contiguous().numpy(), of_position, of_direction)
        return torch.from_numpy(of_position), torch.from_numpy(of_direction), None, None


@kernel
def _values_of_views(codes, owns, place, way, weights, of_position, of_direction):
    """What views from every place, and in every direction, are worth: the sums of the weights of what they show."""
    num, height, width = codes.shape
    image, seen = np.empty(IMAGE_SIZE, np.float32), np.zeros((width, height), np.bool_)
    for n in range(num):
        for at in range(height * width):
            observe(codes[n], at % width, at // width, way[n], owns[n], image, seen)
            of_position[n, at] = _value_of_view(image, weights[n])
        for d in range(4):
            observe(codes[n], place[n] % width, place[n] // width, d, owns[n], image, seen)
            of_direction[n, d] = _value_of_view(image, weights[n])


@kernel
def _value_of_view(image, weights):
    value = 0.0
    for at in range(NUM_CELLS):
        kind, color, state = int(image[at]), int(image[NUM_CELLS + at]), int(image[2 * NUM_CELLS + at])
        value += weights[at, kind] + weights[at, _COLOR + color] + weights[at, _STATE + state]
    return value


class Sight(torch.autograd.Function):
    """Which cells of a view light reaches: opaque (N, 49) -> (N, 49), ones and zeros, as `mop.envs.geometry.observe`.

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
    def backward(ctx, *gradients: Tensor) -> Tensor:
        """gradient (N, 49) with respect to the visible cells -> (N, 49) to the opaque ones."""
        (gradient,), (clear,) = gradients, ctx.saved_tensors
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
    first, last = 1, 1 << LAST
    for _ in range(LAST):
        lit = lit | ((lit & clear & ~last) << 1)
    sources = lit & clear & ~last
    behind = sources | sources << 1
    for _ in range(LAST):
        lit = lit | ((lit & clear & ~first) >> 1)
    sources = lit & clear & ~first
    return torch.from_numpy(np.stack([lit, behind | sources | sources >> 1], -1).reshape(1 << VIEW_SIZE, -1, 2))


_LIGHT = _row_of_light()


def _spread_light(clear: Tensor) -> Tensor:
    """The visible cells (..., 49) bool of views whose clear cells are given by row (..., 7), see `_rows`."""
    lit, rows = torch.full(clear.shape[:-1], 1 << HALF), []
    for j in range(LAST, -1, -1):
        in_row, lit = _LIGHT[lit, clear[..., j]].unbind(-1)
        rows.insert(0, in_row)
    return _cells_of(torch.stack(rows, -1))
