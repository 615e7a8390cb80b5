"""Routing data -> figures over the grid of the world: experts, cost, entropy in each cell. No files, no torch, no gym.

`render_*` draws into given axes, `plot_*` returns a whole Figure. All maps of a figure show the same cells in absolute
grid coordinates, with one colour scale for each measure. Axis letters: S steps, C grid cells that were visited,
L layers, E experts.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize, to_rgba
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from mop.base.errors import InputError
from mop.measures.cells import (
    RoutingByPosition,
    aggregate_routing_by_position,
    check_inside,
    compute_confidence,
    compute_grid_bounds,
    index_cells,
)
from mop.measures.groups import PHASES, RoutingData, Steps, group_routing_data, key_phases
from mop.measures.routing import compute_layer_lpc, compute_policy_entropy
from mop.measures.routing_data import StepFilter, checked_positions, step_mask
from mop.plotting.sheets import LABEL_IN, Legend, Panel, draw_sheet, expert_legend, scale_legend
from mop.plotting.style import EXPERT_CMAPS, UNVISITED_COLOR, counted, describe, expert_hues, expert_names, wrapped

LPC_CMAP = "viridis"
ENTROPY_CMAP = "YlOrRd"  # its ends are far from the colour of unvisited cells
_MAX_TICKS = 12  # along one side of a grid
Scale = tuple[float, float]  # values of the lowest and of the highest colour

# --- drawing into axes ----------------------------------------------------------------------------------------------


def render_routing_heatmap(ax: Axes, averaged: RoutingByPosition, grid_info: dict[str, int], layer: int) -> AxesImage:
    """Draw one layer: the hue of a cell is the expert with the largest mean weight, its intensity that weight.

    Intensity runs from 1/E (nearly white) to 1 (the full hue); of experts with equal weights the first one counts.
    Raises InputError if the layer does not exist, has more experts than there are hues, or a cell is off the grid.
    """
    weights = _layer_weights(averaged, layer)
    expert, weight = weights.argmax(1), weights.max(1)
    confidence = compute_confidence(weight, weights.shape[1])
    colors = np.empty((len(weights), 4))
    for index in range(weights.shape[1]):
        colors[expert == index] = EXPERT_CMAPS[index](confidence[expert == index])
    texts = [
        f"expert {index}, mean weight {value:.2f}, {counted(count, 'step')}"
        for index, value, count in zip(expert, weight, averaged.counts, strict=True)
    ]
    return _draw_cells(ax, averaged.cells, colors, texts, grid_info)


def render_lpc_heatmap(
    ax: Axes,
    averaged: RoutingByPosition,
    grid_info: dict[str, int],
    low: float | None = None,
    high: float | None = None,
) -> AxesImage:
    """Draw the mean LPC of each cell, on a colour scale from low to high; a cell without any known LPC is unvisited.

    Without low or high, the least or greatest value here. Raises InputError if the steps have no LPC or a cell is off
    the grid.
    """
    lpc = _known_lpc(averaged)
    least, greatest = _scale([lpc])
    scale = (least if low is None else low, greatest if high is None else high)
    return _render_values(ax, averaged.cells, averaged.counts, lpc, grid_info, scale, LPC_CMAP, "mean LPC {:.0f}")


def _render_values(
    ax: Axes,
    cells: np.ndarray,
    counts: np.ndarray,
    values: np.ndarray,
    grid_info: dict[str, int],
    scale: Scale,
    cmap: str,
    text: str,
) -> AxesImage:
    """Draw values (C,) of cells on a colour scale; a cell whose value is NaN is unvisited."""
    is_known = np.isfinite(values)
    known, counts = values[is_known], counts[is_known]
    texts = [f"{text.format(value)}, {counted(count, 'step')}" for value, count in zip(known, counts, strict=True)]
    return _draw_cells(ax, cells[is_known], colormaps[cmap](Normalize(*scale)(known)), texts, grid_info)


def _layer_weights(averaged: RoutingByPosition, layer: int) -> np.ndarray:
    """Mean weights (C, E) of one layer."""
    if averaged.routing is None:
        raise InputError("these steps have no 'layer_routing'")
    num_layers = len(averaged.routing)
    if not 0 <= layer < num_layers:
        raise InputError(f"there is no layer {layer}: the policy has {counted(num_layers, 'layer')}, counted from 0")
    weights = averaged.routing[layer]
    expert_hues(weights.shape[1], layer)  # raises if there are too few
    return weights


def _known_lpc(averaged: RoutingByPosition) -> np.ndarray:
    if averaged.lpc is None or not np.isfinite(averaged.lpc).any():
        raise InputError("these steps have no 'lpc'")
    return averaged.lpc


def _scale(values: Sequence[np.ndarray]) -> Scale:
    """The range of all finite values."""
    return float(min(np.nanmin(part) for part in values)), float(max(np.nanmax(part) for part in values))


def _draw_cells(
    ax: Axes, cells: np.ndarray, colors: np.ndarray, texts: Sequence[str], grid_info: dict[str, int]
) -> AxesImage:
    """Paint cells (C, 2) with colors (C, 4) on a grid whose other cells are unvisited; texts: shown under the mouse."""
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

    text_at = dict(zip(map(tuple, cells.tolist()), texts, strict=True))
    ax.format_coord = lambda x, y: f"x {round(x)}, y {round(y)}: {text_at.get((round(x), round(y)), 'not visited')}"
    image.mouseover = False  # or a viewer adds the cell's RGBA numbers to that text
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


def _render_env_image(ax: Axes, env_image: np.ndarray, grid_info: dict[str, int]) -> None:
    """A picture (H, W, 3) of the whole world, under the same coordinates as the maps if they show the whole world."""
    height, width = env_image.shape[:2]
    if grid_info["grid_width"] * height == grid_info["grid_height"] * width:
        ax.imshow(env_image, extent=_extent(grid_info))
        _mark_coordinates(ax, grid_info)
    else:
        ax.imshow(env_image)
        ax.set_axis_off()


_MAPS_IN_A_ROW = 3  # of a figure without groups: still legible in a page's column


@dataclass(frozen=True)
class _Part:
    """What one row of a grouped figure, or the whole of an overall one, shows."""

    averaged: RoutingByPosition
    label: str = ""
    env_image: np.ndarray | None = None
    mission: str = ""


def plot_overall_routing(
    routing_data: RoutingData,
    env_image: np.ndarray | None = None,
    env_mission: str = "",
    filter_fn: StepFilter = None,
    title_suffix: str = "",
) -> Figure:
    """A picture of a world (H, W, 3) uint8, if given, the dominant expert in each cell of each layer, and mean LPC.

    filter_fn: the steps that count, as `aggregate_routing_by_position`. Without LPC there is no map of it.
    Raises InputError as `aggregate_routing_by_position`, or if the steps have no router weights.
    """
    part = _Part(aggregate_routing_by_position(routing_data.steps, filter_fn), "", env_image, env_mission)
    return _plot_routing(routing_data, [part], _title(routing_data, filter_fn, title_suffix))


def plot_grouped_routing(
    routing_data: RoutingData,
    group_by: str,
    env_images: Mapping[str, np.ndarray] | None = None,
    title_suffix: str = "",
    max_groups: int = 16,
) -> Figure:
    """A row for each group of `group_routing_data` with the maps of `plot_overall_routing`.

    env_images: label of a group -> a picture of a world in it. Of more than max_groups groups the largest are shown.
    Raises InputError as `group_routing_data` and `plot_overall_routing`.
    """
    parts, title = _grouped_parts(routing_data, group_by, env_images, title_suffix, max_groups)
    return _plot_routing(routing_data, parts, title)


def plot_overall_lpc(
    routing_data: RoutingData,
    env_image: np.ndarray | None = None,
    env_mission: str = "",
    filter_fn: StepFilter = None,
    title_suffix: str = "",
) -> Figure:
    """Mean LPC of each cell: in total, and each layer's part on a scale of their own; else as `plot_overall_routing`.

    Raises InputError as `plot_overall_routing`, or if LPC or the sizes of the experts are not known.
    """
    part = _Part(aggregate_routing_by_position(routing_data.steps, filter_fn), "", env_image, env_mission)
    return _plot_lpc(routing_data, [part], _title(routing_data, filter_fn, title_suffix))


def plot_grouped_lpc(
    routing_data: RoutingData,
    group_by: str,
    env_images: Mapping[str, np.ndarray] | None = None,
    title_suffix: str = "",
    max_groups: int = 16,
) -> Figure:
    """A row for each group with the maps of `plot_overall_lpc`; arguments and errors as `plot_grouped_routing`."""
    parts, title = _grouped_parts(routing_data, group_by, env_images, title_suffix, max_groups)
    return _plot_lpc(routing_data, parts, title)


def plot_action_entropy(
    routing_data: RoutingData,
    env_image: np.ndarray | None = None,
    env_mission: str = "",
    filter_fn: StepFilter = None,
    title_suffix: str = "",
) -> Figure:
    """Mean entropy of the action's probabilities in each cell, in nats: high where the policy is uncertain.

    The scale begins at 0 (certain); equal probabilities of seven actions would be ln 7 = 1.95. Arguments as
    `plot_overall_routing`. Raises InputError if there are no steps, or they have no 'action_logits'.
    """
    routing_data.require("action_logits")
    steps = routing_data.steps
    positions = checked_positions(steps.position)
    mask = step_mask(steps, filter_fn, len(positions))
    if not mask.any():
        raise InputError("there are no steps to average: the filter leaves none")
    cells = index_cells(positions[mask])
    entropy = compute_policy_entropy(np.asarray(steps.action_logits)[mask])
    means, text = cells.mean(entropy), "mean entropy {:.2f} nats"
    if not np.isfinite(means).any():
        raise InputError("the action logits are not finite: the policy has diverged")
    grid_info, scale = _grid_info(routing_data, cells.cells), (0.0, max(float(np.nanmax(means)), 0.01))
    panel = Panel(
        f"mean {np.nanmean(entropy):.2f} nats",
        lambda ax: _render_values(ax, cells.cells, cells.counts, means, grid_info, scale, ENTROPY_CMAP, text),
    )
    panels = [*_env_panels(env_image, env_mission, grid_info), panel]
    legend = scale_legend(scale, ENTROPY_CMAP, "entropy of the action (nats)")
    return draw_sheet([panels], [""], grid_info, [legend], _title(routing_data, mask, title_suffix))


def plot_routing_side_by_side(runs: Mapping[str, RoutingData]) -> Figure:
    """A column for each run, with the dominant expert of each layer and mean LPC below each other.

    runs: what a run is called -> its routing data. Each run has the grid of its own world; the scale of LPC is shared.
    Raises InputError if there is no run, or one lacks router weights or LPC.
    """
    if not runs:
        raise InputError("there is no run to show: choose at least one")
    averaged = {name: aggregate_routing_by_position(data.steps) for name, data in runs.items()}
    scale = _scale([_known_lpc(part) for part in averaged.values()])
    grids = {name: _grid_info(data, averaged[name].cells) for name, data in runs.items()}
    largest = {side: max(grid[side] for grid in grids.values()) for side in ("grid_width", "grid_height")}
    columns, legends = [], {}
    for name, data in runs.items():
        part, grid = averaged[name], grids[name]
        if part.routing is None:
            data.require("layer_routing")
        panels = _routing_panels(part, grid, scale)
        panels[0] = Panel(f"{name}\n{counted(part.num_steps, 'step')}\n{panels[0].title}", panels[0].draw)
        columns.append(panels)
        for layer, weights in enumerate(part.routing):
            names = expert_names(data.header.get("expert_hidden_sizes"), layer, weights.shape[1])
            legends.setdefault(tuple(names), expert_legend(names, "dominant expert"))
    rows = [[panels[row] if row < len(panels) else None for panels in columns] for row in range(max(map(len, columns)))]
    shown = [*legends.values(), scale_legend(scale, LPC_CMAP, "mean LPC")]
    return draw_sheet(rows, [""] * len(rows), largest, shown, "", has_own_axes=True)


def plot_lpc_by_phase(
    steps: Steps, episodes: Sequence[Mapping], grid_size: Sequence[int] | None = None, title: str = ""
) -> Figure:
    """Where the policy spends its computation in each phase of the task: mean LPC of each cell, one colour scale.

    Phases that no step is in are left out. Raises InputError as `key_phases`, or if the steps have no LPC.
    """
    phase = key_phases(steps, episodes)
    if not len(phase):
        raise InputError("there are no steps: the routing data is empty")
    present = [number for number in range(len(PHASES)) if (phase == number).any()]
    averaged = [aggregate_routing_by_position(steps, phase == number) for number in present]
    scale = _scale([_known_lpc(part) for part in averaged])
    grid_info = compute_grid_bounds(np.concatenate([part.cells for part in averaged]), grid_size)
    panels = []
    for number, part in zip(present, averaged, strict=True):
        mean = np.nanmean(np.asarray(steps.lpc)[phase == number])
        panels.append(
            Panel(
                f"{PHASES[number]}\nmean {mean:.0f}, {counted(part.num_steps, 'step')}",
                lambda ax, part=part: render_lpc_heatmap(ax, part, grid_info, *scale),
            )
        )
    return draw_sheet([panels], [""], grid_info, [scale_legend(scale, LPC_CMAP, "mean LPC")], title)


def _plot_routing(routing_data: RoutingData, parts: Sequence[_Part], title: str) -> Figure:
    grid_info = _grid_info(routing_data, np.concatenate([part.averaged.cells for part in parts]))
    first = parts[0].averaged
    if first.routing is None:
        routing_data.require("layer_routing")
    layers = range(len(first.routing))
    names = [
        expert_names(routing_data.header.get("expert_hidden_sizes"), layer, _layer_weights(first, layer).shape[1])
        for layer in layers
    ]
    if all(name == names[0] for name in names):
        legends = [expert_legend(names[0], "dominant expert")]
    else:
        legends = [expert_legend(names[layer], f"layer {layer}: dominant expert") for layer in layers]
    scale = None
    if first.lpc is not None:
        scale = _scale([_known_lpc(part.averaged) for part in parts])
        legends.append(scale_legend(scale, LPC_CMAP, "mean LPC"))

    return _arrange(parts, lambda part: _routing_panels(part.averaged, grid_info, scale), grid_info, legends, title)


def _routing_panels(averaged: RoutingByPosition, grid_info: dict[str, int], lpc_scale: Scale | None) -> list[Panel]:
    """The dominant expert of each layer, and mean LPC where there is a scale for it."""
    panels = [
        Panel(f"layer {layer}", lambda ax, layer=layer: render_routing_heatmap(ax, averaged, grid_info, layer))
        for layer in range(len(averaged.routing))
    ]
    if lpc_scale is not None:
        panels.append(Panel("mean LPC", lambda ax: render_lpc_heatmap(ax, averaged, grid_info, *lpc_scale)))
    return panels


def _plot_lpc(routing_data: RoutingData, parts: Sequence[_Part], title: str) -> Figure:
    sizes = routing_data.header.get("expert_hidden_sizes")
    if sizes is None:
        way_out = "make a new cache with `python batch_eval.py --force`"
        raise InputError(f"this routing data has no 'expert_hidden_sizes', which the LPC of a layer needs: {way_out}")
    if parts[0].averaged.routing is None:
        routing_data.require("layer_routing")
    grid_info = _grid_info(routing_data, np.concatenate([part.averaged.cells for part in parts]))
    for layer, weights in enumerate(parts[0].averaged.routing):
        expert_names(sizes, layer, weights.shape[1])  # raises if they are those of another policy

    def layer_lpc(part: _Part) -> list[np.ndarray]:  # the mean of a weighted sum is the weighted sum of the means
        return [compute_layer_lpc(weights, sizes[layer]) for layer, weights in enumerate(part.averaged.routing)]

    total_scale = _scale([_known_lpc(part.averaged) for part in parts])
    layer_scale = _scale([values for part in parts for values in layer_lpc(part)])

    def maps(part: _Part) -> list[Panel]:
        cells, counts = part.averaged.cells, part.averaged.counts
        panels = [Panel("all layers", lambda ax: render_lpc_heatmap(ax, part.averaged, grid_info, *total_scale))]
        return panels + [
            Panel(
                f"layer {layer}",
                lambda ax, values=values: _render_values(
                    ax, cells, counts, values, grid_info, layer_scale, LPC_CMAP, "mean LPC of the layer {:.0f}"
                ),
            )
            for layer, values in enumerate(layer_lpc(part))
        ]

    legends = [
        scale_legend(total_scale, LPC_CMAP, "mean LPC, all layers"),
        scale_legend(layer_scale, LPC_CMAP, "mean LPC of a layer"),
    ]
    return _arrange(parts, maps, grid_info, legends, title)


def _arrange(
    parts: Sequence[_Part],
    maps: Callable[[_Part], list[Panel]],
    grid_info: dict[str, int],
    legends: Sequence[Legend],
    title: str,
) -> Figure:
    """A row for each part under titles of the columns, or the maps of a single part in several rows."""
    if len(parts) == 1 and not parts[0].label:
        panels = [*_env_panels(parts[0].env_image, parts[0].mission, grid_info), *maps(parts[0])]
        rows = [panels[start : start + _MAPS_IN_A_ROW] for start in range(0, len(panels), _MAPS_IN_A_ROW)]
        return draw_sheet(rows, [""] * len(rows), grid_info, legends, title)
    has_images, rows = any(part.env_image is not None for part in parts), []
    for part in parts:
        env_panel = _env_panels(part.env_image, "an example", grid_info) or [None]
        rows.append([*(env_panel if has_images else []), *maps(part)])
    for row in rows[1:]:  # the first row names the columns
        row[:] = [panel and Panel("", panel.draw) for panel in row]
    return draw_sheet(rows, [part.label for part in parts], grid_info, legends, title)


def _grouped_parts(
    routing_data: RoutingData,
    group_by: str,
    env_images: Mapping[str, np.ndarray] | None,
    title_suffix: str,
    max_groups: int,
) -> tuple[list[_Part], str]:
    """The parts of a grouped figure and its title."""
    groups = group_routing_data(routing_data, group_by)
    shown = sorted(np.argsort(-groups.counts, kind="stable")[:max_groups].tolist())
    parts = []
    for group in shown:
        averaged = aggregate_routing_by_position(routing_data.steps, groups.mask(group))
        name, episodes = groups.labels[group], counted(groups.num_episodes[group], "episode")
        label = f"{wrapped(name, LABEL_IN)}\n{counted(averaged.num_steps, 'step')}\n{episodes}"
        parts.append(_Part(averaged, label, (env_images or {}).get(name)))
    title = _title(routing_data, None, f"by {groups.grouping.title}")
    if len(shown) < len(groups):
        title += f" (the largest {len(shown)} of {len(groups)} groups)"
    return parts, f"{title}{', ' if title_suffix else ''}{title_suffix}"


def _env_panels(env_image: np.ndarray | None, title: str, grid_info: dict[str, int]) -> list[Panel]:
    if env_image is None:
        return []
    return [Panel(title, lambda ax: _render_env_image(ax, env_image, grid_info))]


def _grid_info(routing_data: RoutingData, cells: np.ndarray) -> dict[str, int]:
    """The whole world, if its size is known and the same in all episodes; else the cells that were visited."""
    sizes = {tuple(episode.get("grid_size") or ()) for episode in routing_data.episodes}
    return compute_grid_bounds(cells, sizes.pop() if len(sizes) == 1 and () not in sizes else None)


def _title(routing_data: RoutingData, filter_fn: StepFilter, suffix: str) -> str:
    episode = np.asarray(routing_data.steps.episode)
    shown = episode[step_mask(routing_data.steps, filter_fn, len(episode))]
    return describe(routing_data.header, shown, suffix)
