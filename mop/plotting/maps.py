"""Routing data -> figures over the grid of the world: experts, cost, entropy in each cell.

All maps of a figure show the same cells in absolute grid coordinates, with one colour scale for each measure. All of
them take `MapStyle` as keywords: `min_steps`, `scale`, `width_in`, ... Axis letters: S steps, C grid cells that were
visited, L layers, E experts.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mop.analysis.cells import (
    RoutingByPosition,
    aggregate_routing_by_position,
    compute_grid_bounds,
    enough_steps,
    index_filtered_cells,
    rank_experts,
    wall_cells,
)
from mop.analysis.groups import PHASES, group_routing_data, key_phases
from mop.analysis.routing_data import StepFilter, check_not_empty, checked_positions, step_mask, whole_of
from mop.artifacts.routing_cache import RoutingData, Steps
from mop.common.errors import InputError
from mop.plotting.heatmaps import (
    LPC_CMAP,
    LogScale,
    Scale,
    known_lpc,
    layer_weights,
    render_env_image,
    render_lpc_heatmap,
    render_routing_heatmap,
    render_values,
    value_range,
)
from mop.plotting.measures import DOMINANT, MEASURES, Measure, Part
from mop.plotting.sheets import (
    LABEL_IN,
    Legend,
    MapGrid,
    Panel,
    draw_sheet,
    expert_legend,
    maps_in_a_row,
    marks_legend,
    scale_legend,
)
from mop.plotting.style import counted, describe, describe_groups, expert_hues, expert_names, short_name, wrapped

_MOST_GROUPS = 16  # of a figure


@dataclass(frozen=True)
class MapStyle:
    """How maps are drawn."""

    min_steps: int = 1  # cells with fewer steps are left out
    scale: Scale | None = None  # of LPC, for figures that are compared; None: as `lpc_scale` of this one
    width_in: float | None = None  # of the figure, as `draw_sheet`
    is_absolute: bool = False  # whether the scales of MEASURES hold all values that are possible, not those shown alone

    def sheet(self, rows: Sequence, labels: Sequence[str], grid: MapGrid, legends: list, title: str) -> Figure:
        """`draw_sheet` of maps of one grid."""
        return draw_sheet(rows, labels, grid.info, legends, title, width_in=self.width_in)

    def marks(self, grid: MapGrid, has_ties: bool = False) -> Legend:
        """`marks_legend` of a figure."""
        return marks_legend(self.min_steps, grid.walls is not None, has_ties)


class _Experts(NamedTuple):
    """The experts of a layer."""

    names: list[str]
    hues: list[str]


class _Row(NamedTuple):
    """What one row of a grouped figure, or the whole of an overall one, shows."""

    steps: StepFilter
    label: str = ""
    env_image: np.ndarray | None = None
    mission: str = ""


class _Shown(NamedTuple):
    """The rows of a figure, with its title."""

    rows: list[_Row]
    title: str
    style: MapStyle


def plot_overall_routing(
    routing_data: RoutingData,
    env_image: np.ndarray | None = None,
    env_mission: str = "",
    filter_fn: StepFilter = None,
    **style: Any,
) -> Figure:
    """A picture of a world (H, W, 3) uint8, if given, the dominant expert in each cell of each layer, and mean LPC.

    filter_fn: the steps that count, as `aggregate_routing_by_position`. Without LPC there is no map of it.
    """
    row = _Row(filter_fn, "", env_image, env_mission)
    return _plot_routing(routing_data, _Shown([row], _title(routing_data, filter_fn, ""), MapStyle(**style)))


def plot_grouped_routing(
    routing_data: RoutingData, group_by: str, env_images: Mapping[str, np.ndarray] | None = None, **style: Any
) -> Figure:
    """A row for each group of `group_routing_data` with the maps of `plot_overall_routing`."""
    return plot_map(routing_data, DOMINANT, group_by, env_images, **style)


def plot_map(
    routing_data: RoutingData,
    measure: str = DOMINANT,
    group_by: str = "overall",
    env_images: Mapping[str, np.ndarray] | None = None,
    expert: int = 0,
    filter_fn: StepFilter = None,
    **style: Any,
) -> Figure:
    """One of MEASURES in each cell, of all steps or in a row for each group of `group_routing_data`.

    env_images: label of a group -> a picture of a world in it, "all steps" of all; expert: its number in its layer,
    for measures of one expert; filter_fn: the steps that count, of all steps. `scale` is that of the first map. Of many
    groups the largest are shown; a group without a cell of enough steps is not.
    """
    images, look, asked = env_images or {}, MapStyle(**style), MEASURES[measure]
    if group_by == "overall":
        row = _Row(filter_fn, "", images.get("all steps"), routing_data.episodes[0].get("mission", ""))
        shown = _Shown([row], _title(routing_data, filter_fn, ""), look)
    else:
        shown = _grouped(routing_data, group_by, images, look)
    if asked.parts is None:
        return _plot_routing(routing_data, shown)
    return _plot_measure(routing_data, shown, asked, asked.parts(routing_data, expert))


def lpc_scale(runs: Iterable[RoutingData], group_by: str = "overall") -> Scale:
    """Least and greatest mean LPC of all runs' cells with FULL_STEPS steps or more: one `scale` for their figures.

    group_by: of GROUPINGS, as the figures are grouped; then cells count in each group.
    """
    averaged = []
    for data in runs:
        groups = group_routing_data(data, group_by)
        averaged += [aggregate_routing_by_position(data.steps, groups.mask(group)) for group in range(len(groups))]
    if not averaged:
        raise InputError("there is no run to take a scale from")
    return _range_of_lpc(averaged)


def plot_routing_side_by_side(runs: Mapping[str, RoutingData], **style: Any) -> Figure:
    """A column for each run, with the dominant expert of each layer and mean LPC below each other.

    runs: label -> routing data. Each run has the grid of its own world; the scale of LPC is shared.
    """
    if not runs:
        raise InputError("there is no run to show: choose at least one")
    look = MapStyle(**style)
    averaged = [aggregate_routing_by_position(data.steps).with_steps(look.min_steps) for data in runs.values()]
    lpc, scale = [known_lpc(part) for part in averaged], look.scale or _range_of_lpc(averaged)
    grids = [grid_of(data) for data in runs.values()]
    columns, legends = [], {}
    for (name, data), part, grid in zip(runs.items(), averaged, grids, strict=True):
        experts = _experts(data, part)
        first, *others = _routing_panels(part, grid, scale, experts)
        head = f"{name}\n{counted(len(data.steps.episode), 'step')}\n{first.title}"
        columns.append([Panel(head, first.draw), *others])
        for of_layer in experts:
            legends.setdefault((*of_layer.names, *of_layer.hues), expert_legend(*of_layer, "dominant expert"))
    rows = [[panels[row] if row < len(panels) else None for panels in columns] for row in range(max(map(len, columns)))]
    any_walls = next((grid for grid in grids if grid.walls is not None), grids[0])
    shown = [*legends.values(), scale_legend(scale, LPC_CMAP, "mean LPC", lpc), look.marks(any_walls, True)]
    largest = {side: max(grid.info[side] for grid in grids) for side in ("grid_width", "grid_height")}
    return draw_sheet(rows, [""] * len(rows), largest, shown, "", has_own_axes=True, width_in=look.width_in)


def plot_lpc_by_phase(
    steps: Steps, episodes: Sequence[Mapping], grid_size: Sequence[int] | None = None, title: str = "", **style: Any
) -> Figure:
    """Where the policy spends its computation in each phase of the task: mean LPC of each cell, one colour scale.

    Phases that no step is in, or that have no cell of enough steps, are left out.
    """
    look, phase = MapStyle(**style), key_phases(steps, episodes)
    check_not_empty(phase)
    masks = {name: phase == number for number, name in enumerate(PHASES) if (phase == number).any()}
    averaged = {name: aggregate_routing_by_position(steps, mask) for name, mask in masks.items()}
    enough_steps(np.concatenate([part.counts for part in averaged.values()]), look.min_steps)
    shown = {
        name: part.with_steps(look.min_steps) for name, part in averaged.items() if part.counts.max() >= look.min_steps
    }
    lpc, scale = [known_lpc(part) for part in shown.values()], look.scale or _range_of_lpc(shown.values())
    info = compute_grid_bounds(np.asarray(steps.position), grid_size)
    grid = MapGrid(info, None if grid_size is None else wall_cells(steps, episodes))
    panels = []
    for name, part in shown.items():
        mean = np.nanmean(np.asarray(steps.lpc)[masks[name]])
        head = f"{name}\nmean {mean:.0f}, {counted(averaged[name].num_steps, 'step')}"
        panels.append(grid.map(head, _lpc_map(part, scale)))
    legends = [scale_legend(scale, LPC_CMAP, "mean LPC", lpc), look.marks(grid)]
    return look.sheet([panels], [""], grid, legends, title)


# --- parts ------------------------------------------------------------------------------------------------------------


def _grouped(routing_data: RoutingData, group_by: str, env_images: Mapping[str, np.ndarray], look: MapStyle) -> _Shown:
    """A row for each group."""
    groups, rows, shown = group_routing_data(routing_data, group_by), [], []
    for group in groups.largest(_MOST_GROUPS):
        _, cells = index_filtered_cells(routing_data.steps, groups.mask(group))
        if cells.counts.max() < look.min_steps:
            continue
        name, episodes = groups.labels[group], counted(groups.num_episodes[group], "episode")
        label = f"{wrapped(name, LABEL_IN)}\n{counted(groups.counts[group], 'step')}\n{episodes}"
        rows.append(_Row(groups.mask(group), label, env_images.get(name)))
        shown.append(group)
    if not rows:
        raise InputError(f"no group has a cell with {look.min_steps} steps: lower the least number of steps")
    return _Shown(rows, _title(routing_data, None, describe_groups(groups, shown)), look)


def _plot_routing(routing_data: RoutingData, shown: _Shown) -> Figure:
    grid, look = grid_of(routing_data), shown.style
    averaged = [
        aggregate_routing_by_position(routing_data.steps, row.steps).with_steps(look.min_steps) for row in shown.rows
    ]
    experts = _experts(routing_data, averaged[0])
    if all(of_layer == experts[0] for of_layer in experts):
        legends = [expert_legend(*experts[0], "dominant expert")]
    else:
        legends = [expert_legend(*own, f"layer {layer}: dominant expert") for layer, own in enumerate(experts)]
    scale = None
    if averaged[0].lpc is not None:
        scale = look.scale or _range_of_lpc(averaged)
        legends.append(scale_legend(scale, LPC_CMAP, "mean LPC", [known_lpc(part) for part in averaged]))
    legends.append(look.marks(grid, any(len(of_layer.names) > 1 for of_layer in experts)))
    rows = [_routing_panels(part, grid, scale, experts, len(averaged) == 1) for part in averaged]
    return _arrange(shown, rows, grid, legends)


def _routing_panels(
    averaged: RoutingByPosition, grid: MapGrid, scale: Scale | None, experts: Sequence[_Experts], is_alone: bool = False
) -> list[Panel]:
    """The dominant expert of each layer and mean LPC where there is a scale for it.

    is_alone: whether it has a title of its own, which says why a map is of one colour.
    """

    def map_of(layer: int) -> Panel:
        names, leading = experts[layer].names, np.unique(rank_experts(layer_weights(averaged, layer))[0])
        title = f"layer {layer}"
        if len(leading) == 1 and len(names) > 1 and is_alone:
            title += f": {short_name(names[leading[0]])} leads in every cell"
        return grid.map(title, lambda ax, info: render_routing_heatmap(ax, averaged, info, layer, *experts[layer]))

    panels = [map_of(layer) for layer in range(len(experts))]
    return panels if scale is None else [*panels, grid.map("mean LPC", _lpc_map(averaged, scale))]


class _Cells(NamedTuple):
    """The cells of one map: places (C, 2), steps (C,) and means (C,) float64 of a number of the steps."""

    places: np.ndarray
    counts: np.ndarray
    means: np.ndarray


def _plot_measure(routing_data: RoutingData, shown: _Shown, measure: Measure, parts: Sequence[Part]) -> Figure:
    look = shown.style
    if not parts:
        raise InputError("no layer has such an expert beside others: choose another one")
    grid = grid_of(routing_data)
    maps = [_average(routing_data, row.steps, parts, look.min_steps) for row in shown.rows]
    scales, legends = {}, []
    for label in dict.fromkeys(part.label for part in parts):
        same = [k for k, part in enumerate(parts) if part.label == label]
        cells = [of_row[k] for of_row in maps for k in same]
        scale = parts[same[0]].whole if look.is_absolute else _range_of(measure, cells)
        scales[label] = LogScale(scale) if measure.is_log else scale if scales else look.scale or scale
        legends.append(scale_legend(scales[label], measure.cmap, label, [of_map.means for of_map in cells]))

    def map_of(part: Part, cells: _Cells) -> Panel:
        text, more = f"{part.label} {measure.form}", {} if part.layer is None else {"layer": part.layer}
        about = scales[part.label], measure.cmap, text, measure.column
        return grid.map(part.title, lambda ax, info: render_values(ax, *cells, info, *about, **more))

    rows = [[map_of(part, cells) for part, cells in zip(parts, of_row, strict=True)] for of_row in maps]
    return _arrange(shown, rows, grid, [*legends, look.marks(grid)])


def _average(routing_data: RoutingData, steps: StepFilter, parts: Sequence[Part], min_steps: int) -> list[_Cells]:
    """Average each part over the chosen steps in each cell that has so many of them."""
    mask, cells = index_filtered_cells(routing_data.steps, steps)
    kept, averaged = enough_steps(cells.counts, min_steps), []
    for part in parts:
        means = cells.counts.astype(np.float64) if part.values is None else cells.mean(part.values[mask])
        if not np.isfinite(means[kept]).any():
            raise InputError(f"{part.title}: no cell of these steps has a known value")
        averaged.append(_Cells(cells.cells[kept], cells.counts[kept], means[kept]))
    return averaged


def _range_of(measure: Measure, maps: Sequence[_Cells]) -> Scale:
    """The values of some maps, from the least to the greatest that are sure."""
    low, high = value_range([cells.means for cells in maps], [cells.counts for cells in maps])
    most = max(abs(low), abs(high))
    return (-most, most) if measure.is_signed else (low, high)


def _arrange(shown: _Shown, maps: Sequence[list[Panel]], grid: MapGrid, legends: list[Legend]) -> Figure:
    """A row of maps for each row under titles of the columns, or the maps of a single one in several rows."""
    parts, look = shown.rows, shown.style
    if len(parts) == 1 and not parts[0].label:
        panels = [*_env_panels(parts[0].env_image, parts[0].mission, grid), *maps[0]]
        most = maps_in_a_row(look.width_in)
        rows = [panels[start : start + most] for start in range(0, len(panels), most)]
        return look.sheet(rows, [""] * len(rows), grid, legends, shown.title)
    has_images, rows = any(part.env_image is not None for part in parts), []
    for part, panels in zip(parts, maps, strict=True):
        env_panel = _env_panels(part.env_image, "an example", grid) or [None]
        rows.append([*(env_panel if has_images else []), *panels])
    for row in rows[1:]:  # the first row names the columns
        row[:] = [panel and Panel("", panel.draw) for panel in row]
    return look.sheet(rows, [part.label for part in parts], grid, legends, shown.title)


def _lpc_map(averaged: RoutingByPosition, scale: Scale) -> Callable[[Axes, dict[str, int]], object]:
    return lambda ax, info: render_lpc_heatmap(ax, averaged, info, scale)


def _range_of_lpc(averaged: Iterable[RoutingByPosition]) -> Scale:
    averaged = list(averaged)
    return value_range([known_lpc(part) for part in averaged], [part.counts for part in averaged])


def _experts(routing_data: RoutingData, averaged: RoutingByPosition) -> list[_Experts]:
    """Names and hues of the experts of each layer."""
    if averaged.routing is None:
        routing_data.require("layer_routing")
    layers = averaged.routing or []
    pairs = zip(expert_names(routing_data.header, layers), expert_hues(routing_data.header, layers), strict=True)
    return [_Experts(*of_layer) for of_layer in pairs]


def _env_panels(env_image: np.ndarray | None, title: str, grid: MapGrid) -> list[Panel]:
    return [] if env_image is None else [Panel(title, lambda ax: render_env_image(ax, env_image, grid.info))]


def grid_of(*runs: RoutingData) -> MapGrid:
    """The whole world of some runs, if its size is known and the same in all episodes; else the cells of their steps.

    Walls are those of every world.
    """
    sizes = {tuple(episode.get("grid_size") or ()) for data in runs for episode in data.episodes}
    size = next(iter(sizes)) if len(sizes) == 1 else ()
    info = compute_grid_bounds(np.concatenate([checked_positions(data.steps.position) for data in runs]), size or None)
    if not size:
        return MapGrid(info, None)
    # of whole episodes: a part may not pass a missing wall
    walls = [wall_cells(whole_of(data).steps, data.episodes) for data in runs]
    known = [of_run for of_run in walls if of_run is not None]
    return MapGrid(info, np.logical_and.reduce(known) if len(known) == len(runs) else None)


def _title(routing_data: RoutingData, filter_fn: StepFilter, suffix: str) -> str:
    episode = np.asarray(routing_data.steps.episode)
    shown = episode[step_mask(routing_data.steps, filter_fn, len(episode))]
    return describe(routing_data.header, shown, suffix)
