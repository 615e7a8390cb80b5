"""One map of the grid, drawn into given axes: experts, cost or another number in each cell, a picture of the world.

Cells stand at their absolute grid coordinates, y downwards. Axis letters: C grid cells that were visited, L layers,
E experts.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize, to_rgba
from matplotlib.image import AxesImage

from mop.base.errors import InputError
from mop.measures.cells import RoutingByPosition, check_inside, compute_confidence
from mop.plotting.hover import add_note
from mop.plotting.style import EXPERT_CMAPS, UNVISITED_COLOR, counted, expert_hues

LPC_CMAP = "viridis"
_MAX_TICKS = 12  # along one side of a grid
Scale = tuple[float, float]  # values of the lowest and of the highest colour


def render_routing_heatmap(
    ax: Axes,
    averaged: RoutingByPosition,
    grid_info: dict[str, int],
    layer: int,
    names: Sequence[str] | None = None,
) -> AxesImage:
    """Draw one layer: the hue of a cell is the expert with the largest mean weight, its intensity that weight.

    grid_info: the cells to show, of `compute_grid_bounds`; names: what the experts are called under the mouse, or their
    numbers. Intensity runs from 1/E (nearly white) to 1 (the full hue); of experts with equal weights the first one
    counts. Raises InputError as `layer_weights`, or if a cell is off the grid.
    """
    weights = layer_weights(averaged, layer)
    expert, weight = weights.argmax(1), weights.max(1)
    confidence = compute_confidence(weight, weights.shape[1])
    colors = np.empty((len(weights), 4))
    for index in range(weights.shape[1]):
        colors[expert == index] = EXPERT_CMAPS[index](confidence[expert == index])
    texts = [
        f"{names[index] if names else f'expert {index}'}, mean weight {value:.2f}, {counted(count, 'step')}"
        for index, value, count in zip(expert, weight, averaged.counts, strict=True)
    ]
    return draw_cells(ax, averaged.cells, colors, texts, grid_info)


def render_lpc_heatmap(
    ax: Axes,
    averaged: RoutingByPosition,
    grid_info: dict[str, int],
    low: float | None = None,
    high: float | None = None,
) -> AxesImage:
    """Draw the mean LPC of each cell, on a colour scale from `low` to `high`; a cell without known LPC is unvisited.

    Without `low` or `high`, the scale ends at the least or greatest value of this map. Raises InputError if the steps
    have no LPC or a cell is off the grid.
    """
    lpc = known_lpc(averaged)
    least, greatest = value_range([lpc])
    scale = (least if low is None else low, greatest if high is None else high)
    return render_values(ax, averaged.cells, averaged.counts, lpc, grid_info, scale, LPC_CMAP, "mean LPC {:.0f}")


def render_values(
    ax: Axes,
    cells: np.ndarray,
    counts: np.ndarray,
    values: np.ndarray,
    grid_info: dict[str, int],
    scale: Scale,
    cmap: str,
    text: str,
) -> AxesImage:
    """Draw values (C,) of cells (C, 2) with counts (C,) on a colour scale; a cell whose value is NaN is unvisited.

    text: what to show of a value under the mouse, a format with one place. Raises InputError if a cell is off the grid.
    """
    is_known = np.isfinite(values)
    known, counts = values[is_known], counts[is_known]
    texts = [f"{text.format(value)}, {counted(count, 'step')}" for value, count in zip(known, counts, strict=True)]
    return draw_cells(ax, cells[is_known], colormaps[cmap](Normalize(*scale)(known)), texts, grid_info)


def render_env_image(ax: Axes, env_image: np.ndarray, grid_info: dict[str, int]) -> None:
    """Draw a picture (H, W, 3) uint8 of the whole world, at the coordinates of the maps if these show all of it too."""
    height, width = env_image.shape[:2]
    if grid_info["grid_width"] * height == grid_info["grid_height"] * width:
        ax.imshow(env_image, extent=_extent(grid_info))
        _mark_coordinates(ax, grid_info)
    else:
        ax.imshow(env_image)
        ax.set_axis_off()


def layer_weights(averaged: RoutingByPosition, layer: int) -> np.ndarray:
    """Mean weights (C, E) of one layer.

    Raises InputError if there are none, the layer does not exist, or it has more experts than there are hues.
    """
    if averaged.routing is None:
        raise InputError("these steps have no 'layer_routing'")
    num_layers = len(averaged.routing)
    if not 0 <= layer < num_layers:
        raise InputError(f"there is no layer {layer}: the policy has {counted(num_layers, 'layer')}, counted from 0")
    weights = averaged.routing[layer]
    expert_hues(weights.shape[1], layer)  # raises if there are too few
    return weights


def known_lpc(averaged: RoutingByPosition) -> np.ndarray:
    """Mean LPC (C,) of the cells. Raises InputError if it is known of none."""
    if averaged.lpc is None or not np.isfinite(averaged.lpc).any():
        raise InputError("these steps have no 'lpc'")
    return averaged.lpc


def value_range(values: Sequence[np.ndarray]) -> Scale:
    """Least and greatest of all finite values."""
    return float(min(np.nanmin(part) for part in values)), float(max(np.nanmax(part) for part in values))


def draw_cells(
    ax: Axes,
    cells: np.ndarray,
    colors: np.ndarray,
    texts: Sequence[str],
    grid_info: dict[str, int],
    values: Sequence[Mapping[str, object]] | None = None,
) -> AxesImage:
    """Paint cells (C, 2) with colors (C, 4) on a grid whose other cells are unvisited.

    texts: shown under the mouse, behind the place; values: the numbers that are drawn in each cell, by name.
    """
    check_inside(cells, grid_info)
    x_min, x_max, y_min, y_max = (grid_info[name] for name in ("x_min", "x_max", "y_min", "y_max"))
    rgba = np.empty((y_max - y_min + 1, x_max - x_min + 1, 4))
    rgba[:] = to_rgba(UNVISITED_COLOR)
    rgba[cells[:, 1] - y_min, cells[:, 0] - x_min] = colors
    image = ax.imshow(rgba, extent=_extent(grid_info), interpolation="nearest", aspect="equal")
    left, right, bottom, top = _extent(grid_info)
    lines = [[(x + 0.5, top), (x + 0.5, bottom)] for x in range(x_min, x_max)]
    lines += [[(left, y + 0.5), (right, y + 0.5)] for y in range(y_min, y_max)]
    ax.add_collection(LineCollection(lines, colors=UNVISITED_COLOR, linewidths=0.5), autolim=False)
    _mark_coordinates(ax, grid_info)

    for (x, y), text, drawn in zip(cells.tolist(), texts, values or [{}] * len(cells), strict=True):
        add_note(ax, x - 0.5, x + 0.5, y + 0.5, y - 0.5, f"x {x}, y {y}: {text}", **drawn)
    return image


def _extent(grid_info: dict[str, int]) -> tuple[float, float, float, float]:
    """Left, right, bottom, top of the cells: upside down, as y grows downwards in the world."""
    x_min, x_max, y_min, y_max = (grid_info[name] for name in ("x_min", "x_max", "y_min", "y_max"))
    return x_min - 0.5, x_max + 0.5, y_max + 0.5, y_min - 0.5


def _mark_coordinates(ax: Axes, grid_info: dict[str, int]) -> None:
    """Ticks at whole coordinates, on each axis that is visible: making ticks takes most of the time of a map."""
    box = ax.get_position()  # as a share of the figure
    width, height = ax.figure.get_size_inches() * (box.width, box.height)
    if ax.xaxis.get_visible():
        ax.set_xticks(_integer_ticks(grid_info["x_min"], grid_info["x_max"], int(width / 0.22)))
        ax.set_xlabel("x")
    if ax.yaxis.get_visible():
        ax.set_yticks(_integer_ticks(grid_info["y_min"], grid_info["y_max"], int(height / 0.18)))
        ax.set_ylabel("y")
    ax.tick_params(labelsize="small")
    ax.spines[:].set_visible(False)


def _integer_ticks(low: int, high: int, space: int) -> list[int]:
    """Multiples of 1, 2, 5, 10, 20, ... from low to high, at most _MAX_TICKS and those that there is space for."""
    most = min(_MAX_TICKS, max(space, 1))
    strides = (factor * 10**power for power in range(10) for factor in (1, 2, 5))
    stride = next(stride for stride in strides if high // stride - (low - 1) // stride <= most)
    return list(range(-(-low // stride) * stride, high + 1, stride))
