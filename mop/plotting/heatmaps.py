"""One map of the grid, drawn into given axes: experts, cost or another number in each cell, a picture of the world.

Cells stand at their absolute grid coordinates, y downwards. The fewer steps in a cell, the paler it is
(`visit_strength`). Axis letters: C grid cells that were visited, L layers, E experts.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import LogNorm, Normalize, to_rgb, to_rgba
from matplotlib.image import AxesImage

from mop.analysis.cells import (
    CLOSE,
    FULL_STEPS,
    RoutingByPosition,
    check_inside,
    compute_confidence,
    rank_experts,
    visit_strength,
)
from mop.artifacts.cache_json import layer_names
from mop.common.errors import InputError
from mop.plotting.hover import add_note
from mop.plotting.style import UNVISITED_COLOR, WALL_COLOR, counted, expert_cmap, expert_hues, expert_names, short_name

LPC_CMAP = "viridis"
GRID_COLOR = "#cccccc"  # lines between cells, and the dot in a cell that is not visited
HATCH_COLOR = "#222222"
_MAX_TICKS = 12  # along one side of a grid
Scale = tuple[float, float]  # values of the lowest and of the highest colour


class LogScale(tuple):
    """A `Scale` on which equal ratios have equal distances, for values above 0 of different orders of magnitude."""


def render_routing_heatmap(
    ax: Axes,
    averaged: RoutingByPosition,
    grid_info: dict[str, int],
    layer: int | str,
    names: Sequence[str] | None = None,
    hues: Sequence[str] | None = None,
) -> AxesImage:
    """Draw one layer: the hue of a cell is the expert with the largest mean weight, its intensity that weight.

    Cells whose first two experts are closer than CLOSE are hatched.
    layer: its number or its name, "layer_0"; grid_info: the cells to show, of `compute_grid_bounds`; names, hues: of
    the E experts, from `expert_names` and `expert_hues`; without, those of experts whose sizes are not known. Intensity
    runs from 1/E (pale) to 1 (the full hue), by `expert_cmap`; of experts with equal weights the first one counts.
    """
    weights = layer_weights(averaged, layer)
    names, hues = names or expert_names({}, [weights])[0], hues or expert_hues({}, [weights])[0]
    names = [short_name(name) for name in names]
    first, second, margin = rank_experts(weights)
    weight = weights.max(1)
    confidence = compute_confidence(weight, weights.shape[1])
    colors = np.empty((len(weights), 3))
    for index, hue in enumerate(hues):
        colors[first == index] = expert_cmap(hue)(confidence[first == index])[:, :3]
    texts, values = [], []
    for row, (one, other) in enumerate(zip(first, second, strict=True)):
        shown = [one] if other < 0 else [one, other]
        texts.append(", ".join(f"{names[index]} {weights[row, index]:.2f}" for index in shown))
        of_experts = {f"weight_{name}": float(value) for name, value in zip(names, weights[row], strict=True)}
        values.append({"layer": layer, "expert": names[one], "margin": float(margin[row])} | of_experts)
    image = draw_cells(ax, averaged.cells, averaged.counts, colors, texts, values, grid_info)
    _hatch(ax, averaged.cells[margin < CLOSE])
    return image


def render_lpc_heatmap(
    ax: Axes, averaged: RoutingByPosition, grid_info: dict[str, int], scale: Scale | None = None
) -> AxesImage:
    """Draw the mean LPC of each cell on a scale, by default its `value_range`; one without known LPC is unvisited."""
    cells, counts, lpc = averaged.cells, averaged.counts, known_lpc(averaged)
    scale = scale or value_range([lpc], [counts])
    return render_values(ax, cells, counts, lpc, grid_info, scale, LPC_CMAP, "mean LPC {:.0f}", "lpc")


def render_values(
    ax: Axes,
    cells: np.ndarray,
    counts: np.ndarray,
    values: np.ndarray,
    grid_info: dict[str, int],
    scale: Scale,
    cmap: str,
    text: str,
    name: str,
    **more: object,
) -> AxesImage:
    """Draw values (C,) of cells (C, 2) with counts (C,) on a colour scale; a cell whose value is NaN is unvisited.

    Values beyond the scale have the colour of its end. text: what to show of a value under the mouse, a format with one
    place; name: of the values among the numbers of the figure, beside which `more` stands in each row.
    """
    is_known = np.isfinite(values)
    known, counts = values[is_known], counts[is_known]
    rows = [more | {name: float(value)} for value in known]
    colors = colormaps[cmap](norm_of(scale)(known))[:, :3]
    return draw_cells(ax, cells[is_known], counts, colors, [text.format(value) for value in known], rows, grid_info)


def norm_of(scale: Scale) -> Normalize:
    """From values to shares of a colour map; beyond the ends of the scale, those of its ends."""
    low, high = scale
    return LogNorm(low, high, clip=True) if isinstance(scale, LogScale) else Normalize(low, high, clip=True)


def render_walls(ax: Axes, walls: np.ndarray | None) -> None:
    """Draw walls (H, W) bool of the whole world, of `wall_cells`, over a map; None: they are not known."""
    if walls is not None and walls.any():
        y, x = np.nonzero(walls)
        style: dict[str, Any] = {"facecolors": WALL_COLOR, "edgecolors": WALL_COLOR, "linewidths": 0.6}
        ax.add_collection(PolyCollection([*corners_of(np.stack([x, y], axis=1))], **style, zorder=3), autolim=False)


def render_env_image(ax: Axes, env_image: np.ndarray, grid_info: dict[str, int]) -> None:
    """Draw a picture (H, W, 3) uint8 of the whole world, at the coordinates of the maps if these show all of it too."""
    height, width = env_image.shape[:2]
    if grid_info["grid_width"] * height == grid_info["grid_height"] * width:
        ax.imshow(env_image, extent=_extent(grid_info))
        _mark_coordinates(ax, grid_info)
    else:
        ax.imshow(env_image)
        ax.set_axis_off()


def layer_weights(averaged: RoutingByPosition, layer: int | str) -> np.ndarray:
    """Mean weights (C, E) of one layer, given by its number or as "layer_0"."""
    if averaged.routing is None:
        raise InputError("these steps have no 'layer_routing'")
    num_layers = len(averaged.routing)
    names = layer_names(num_layers)
    layer = names.index(layer) if layer in names else layer
    if not isinstance(layer, int) or not 0 <= layer < num_layers:
        raise InputError(f"there is no layer {layer!r}: the policy has {counted(num_layers, 'layer')}, counted from 0")
    return averaged.routing[layer]


def known_lpc(averaged: RoutingByPosition) -> np.ndarray:
    """Mean LPC (C,) of the cells."""
    if averaged.lpc is None or not np.isfinite(averaged.lpc).any():
        raise InputError("these steps have no 'lpc'")
    return averaged.lpc


def value_range(values: Sequence[np.ndarray], counts: Sequence[np.ndarray]) -> Scale:
    """Least and greatest of the finite values (C,) of several maps, of cells with FULL_STEPS steps or more.

    counts: the steps (C,) of each cell. Where no cell has so many, all cells count.
    """
    of_all = np.concatenate(values)
    is_known = np.isfinite(of_all)
    is_sure = is_known & (np.concatenate(counts) >= FULL_STEPS)
    shown = of_all[is_sure if is_sure.any() else is_known]
    return float(shown.min()), float(shown.max())


def draw_cells(
    ax: Axes,
    cells: np.ndarray,
    counts: np.ndarray,
    colors: np.ndarray,
    texts: Sequence[str],
    values: Sequence[Mapping[str, object]],
    grid_info: dict[str, int],
) -> AxesImage:
    """Paint cells (C, 2) with colors (C, 3), paler the fewer steps they have; the others of the grid are unvisited.

    counts: steps (C,) of the cells; texts, values: what the mouse shows of each, and its numbers.
    """
    check_inside(cells, grid_info)
    x_min, x_max, y_min, y_max = (grid_info[name] for name in ("x_min", "x_max", "y_min", "y_max"))
    rgba = np.empty((y_max - y_min + 1, x_max - x_min + 1, 4))
    rgba[:] = to_rgba(UNVISITED_COLOR)
    page, strength = np.array(to_rgb(UNVISITED_COLOR)), visit_strength(counts)[:, None]
    rgba[cells[:, 1] - y_min, cells[:, 0] - x_min, :3] = page + strength * (colors - page)
    image = ax.imshow(rgba, extent=_extent(grid_info), interpolation="nearest", aspect="equal")
    is_visited = np.zeros(rgba.shape[:2], bool)
    is_visited[cells[:, 1] - y_min, cells[:, 0] - x_min] = True
    left, right, bottom, top = _extent(grid_info)
    lines = [[(x + 0.5, top), (x + 0.5, bottom)] for x in range(x_min, x_max)]
    lines += [[(left, y + 0.5), (right, y + 0.5)] for y in range(y_min, y_max)]
    thin = min(1.0, 72 * ax.get_window_extent().width / ax.figure.dpi / rgba.shape[1] / 10)  # cells below 10 points
    ax.add_collection(LineCollection(lines, colors=GRID_COLOR, linewidths=0.5 * thin), autolim=False)
    y, x = np.nonzero(~is_visited)
    ax.plot(x + x_min, y + y_min, ".", color=GRID_COLOR, markersize=2.5 * thin, scalex=False, scaley=False)
    _mark_coordinates(ax, grid_info)

    for (x, y), count, text, row in zip(cells.tolist(), counts.tolist(), texts, values, strict=True):
        note = f"x {x}, y {y}: {text}, {counted(count, 'step')}"
        add_note(ax, x - 0.5, x + 0.5, y + 0.5, y - 0.5, note, x=x, y=y, steps=count, **row)
    return image


def _hatch(ax: Axes, cells: np.ndarray) -> None:
    """Diagonals over cells (C, 2)."""
    ends = np.array([[[-0.5, 0.0], [0.0, -0.5]], [[-0.5, 0.5], [0.5, -0.5]], [[0.0, 0.5], [0.5, 0.0]]])
    lines = (cells[:, None, None] + ends).reshape(-1, 2, 2)
    ax.add_collection(LineCollection([*lines], colors=HATCH_COLOR, linewidths=0.6, label="hatched"), autolim=False)


def corners_of(cells: np.ndarray) -> np.ndarray:
    """The corners (C, 4, 2) of cells (C, 2)."""
    return cells[:, None] + np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])


def _extent(grid_info: dict[str, int]) -> tuple[float, float, float, float]:
    """Left, right, bottom, top of the cells: upside down, as y grows downwards in the world."""
    x_min, x_max, y_min, y_max = (grid_info[name] for name in ("x_min", "x_max", "y_min", "y_max"))
    return x_min - 0.5, x_max + 0.5, y_max + 0.5, y_min - 0.5


def _mark_coordinates(ax: Axes, grid_info: dict[str, int]) -> None:
    """Ticks at whole coordinates, on each axis that is visible: making ticks takes most of the time of a map."""
    figure, box = ax.get_figure(root=True), ax.get_position()  # as a share of the figure
    assert figure is not None, "the axes were removed"
    width, height = figure.get_size_inches() * (box.width, box.height)
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
