"""Routing data -> figures over the grid of the world: experts, cost, entropy in each cell.

All maps of a figure show the same cells in absolute grid coordinates, with one colour scale for each measure. All of
them take `MapStyle` as keywords: `min_steps`, `scale`, `is_absolute`. Axis letters: S steps, C grid cells that were
visited, L layers, E experts.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
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
from mop.analysis.groups import group_routing_data
from mop.analysis.routing_data import StepFilter, checked_positions, step_mask, whole_of
from mop.artifacts.routing_cache import RoutingData
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
from mop.plotting.hover import notes_of
from mop.plotting.measures import DOMINANT, MEASURES, Measure, Part
from mop.plotting.sheets import (
    LABEL_IN,
    Legend,
    MapGrid,
    Panel,
    Sheet,
    expert_legend,
    expert_legends,
    marks_legend,
    scale_legend,
)
from mop.plotting.style import Look, counted, describe, describe_groups, expert_looks, short_name, wrapped

_MOST_GROUPS = 16  # of a figure


@dataclass(frozen=True)
class MapStyle:
    """How maps are drawn."""

    min_steps: int = 1  # cells with fewer steps are left out
    scale: Scale | None = None  # of LPC, for figures that are compared; None: as `lpc_scale` of this one
    is_absolute: bool = False  # whether the scales of MEASURES hold all values that are possible, not those shown alone


class _Row(NamedTuple):
    """What one row of a grouped figure, or the whole of an overall one, shows."""

    steps: StepFilter
    label: str = ""
    env_image: np.ndarray | None = None
    mission: str = "an example"
    group: Mapping[str, str] = {}  # the names of its grouping and group, among the numbers of its cells


Maps = tuple[list[list[Panel]], list[Legend]]  # of each row, and what their colours mean


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
    rows, title = [_Row(filter_fn, "", env_image, env_mission)], _title(routing_data, filter_fn)
    return _plot(routing_data, rows, title, DOMINANT, 0, MapStyle(**style))


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
    images, look = env_images or {}, MapStyle(**style)
    if group_by == "overall":
        mission = routing_data.episodes[0].get("mission", "")
        rows, title = [_Row(filter_fn, "", images.get("all steps"), mission)], _title(routing_data, filter_fn)
    else:
        rows, title = _rows_of_groups(routing_data, group_by, images, look.min_steps)
    return _plot(routing_data, rows, title, measure, expert, look)


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
    return _lpc_range(averaged)


def plot_routing_side_by_side(runs: Mapping[str, RoutingData], **style: Any) -> Figure:
    """A column for each run, with the dominant expert of each layer and mean LPC below each other.

    runs: label -> routing data. Each run has the grid of its own world; the scale of LPC is shared.
    """
    if not runs:
        raise InputError("there is no run to show: choose at least one")
    look = MapStyle(**style)
    averaged = [aggregate_routing_by_position(data.steps).with_steps(look.min_steps) for data in runs.values()]
    scale, lpc_legend = lpc_colours(averaged, look.scale)
    grids = [grid_of(data) for data in runs.values()]
    columns, looks = [], []
    for (name, data), part, grid in zip(runs.items(), averaged, grids, strict=True):
        of_layers = _looks(data, part)
        first, *others = _routing_panels(part, grid, scale, of_layers)
        head = f"{name}\n{counted(len(data.steps.episode), 'step')}\n{first.title}"
        columns.append([replace(first, title=head), *others])
        looks += of_layers
    rows = list(zip_longest(*columns))
    any_walls = next((grid for grid in grids if grid.walls is not None), grids[0])
    legends = [*expert_legends(looks), lpc_legend, marks_legend(look.min_steps, any_walls, has_ties=True)]
    largest = {side: max(grid.info[side] for grid in grids) for side in ("grid_width", "grid_height")}
    return Sheet(rows, [""] * len(rows), largest, legends, "", has_own_axes=True)


# --- parts ------------------------------------------------------------------------------------------------------------


def _rows_of_groups(
    routing_data: RoutingData, group_by: str, env_images: Mapping[str, np.ndarray], min_steps: int
) -> tuple[list[_Row], str]:
    """A row for each group, and the title of the figure."""
    groups, rows, shown = group_routing_data(routing_data, group_by), [], []
    for group in groups.largest(_MOST_GROUPS):
        _, cells = index_filtered_cells(routing_data.steps, groups.mask(group))
        if cells.counts.max() < min_steps:
            continue
        name, episodes = groups.labels[group], counted(groups.num_episodes[group], "episode")
        label = f"{wrapped(name, LABEL_IN)}\n{counted(groups.counts[group], 'step')}\n{episodes}"
        of_group = {"grouping": groups.grouping.title, "group": name}
        rows.append(_Row(groups.mask(group), label, env_images.get(name), group=of_group))
        shown.append(group)
    if not rows:
        raise InputError(f"no group has a cell with {min_steps} steps: lower the least number of steps")
    return rows, _title(routing_data, None, describe_groups(groups, shown))


def _plot(
    routing_data: RoutingData, rows: Sequence[_Row], title: str, measure: str, expert: int, look: MapStyle
) -> Figure:
    """A row of maps for each row under titles of the columns, or the maps of a single one in several rows."""
    grid, asked = grid_of(routing_data), MEASURES[measure]
    if asked.parts is None:
        maps, legends = _routing_maps(routing_data, rows, grid, look)
    else:
        maps, legends = _maps_of_numbers(routing_data, rows, grid, look, asked, asked.parts(routing_data, expert))
    has_images = any(row.env_image is not None for row in rows)
    sheet: list[list[Panel | None]] = []
    for row, panels in zip(rows, maps, strict=True):
        panels = [_in_group(panel, row.group) for panel in panels]
        shown = [_env_panel(row, grid), *panels] if has_images else panels
        # the first row names the columns
        sheet.append([panel and replace(panel, title="") for panel in shown] if sheet else [*shown])
    return Sheet(sheet, [row.label for row in rows], grid.info, legends, title)


def _in_group(panel: Panel, group: Mapping[str, str]) -> Panel:
    """A map whose numbers name the group of its steps."""

    def draw(ax: Axes) -> None:
        panel.draw(ax)
        for note in notes_of(ax):
            note.values.update(group)

    return replace(panel, draw=draw)


def _routing_maps(routing_data: RoutingData, rows: Sequence[_Row], grid: MapGrid, style: MapStyle) -> Maps:
    averaged = [
        aggregate_routing_by_position(routing_data.steps, row.steps).with_steps(style.min_steps) for row in rows
    ]
    looks = _looks(routing_data, averaged[0])
    legends = expert_legends(looks)
    if len(legends) > 1:
        legends = [expert_legend(*look, f"layer {layer}: dominant expert") for layer, look in enumerate(looks)]
    scale = None
    if averaged[0].lpc is not None:
        scale, lpc_legend = lpc_colours(averaged, style.scale)
        legends.append(lpc_legend)
    legends.append(marks_legend(style.min_steps, grid, any(len(names) > 1 for names, _ in looks)))
    return [_routing_panels(part, grid, scale, looks, len(averaged) == 1) for part in averaged], legends


def _routing_panels(
    averaged: RoutingByPosition, grid: MapGrid, scale: Scale | None, looks: Sequence[Look], is_alone: bool = False
) -> list[Panel]:
    """The dominant expert of each layer and mean LPC where there is a scale for it.

    is_alone: whether it has a title of its own, which says why a map is of one colour.
    """
    panels = []
    for layer, (names, hues) in enumerate(looks):
        leading, title = np.unique(rank_experts(layer_weights(averaged, layer))[0]), f"layer {layer}"
        if len(leading) == 1 and len(names) > 1 and is_alone:
            title += f": {short_name(names[leading[0]])} leads in every cell"
        panels.append(grid.map(title, render_routing_heatmap, averaged, layer=layer, names=names, hues=hues))
    return panels if scale is None else [*panels, grid.map("mean LPC", render_lpc_heatmap, averaged, scale=scale)]


class _Cells(NamedTuple):
    """The cells of one map: places (C, 2), steps (C,) and means (C,) float64 of a number of the steps."""

    places: np.ndarray
    counts: np.ndarray
    means: np.ndarray


def _maps_of_numbers(
    routing_data: RoutingData,
    rows: Sequence[_Row],
    grid: MapGrid,
    style: MapStyle,
    measure: Measure,
    parts: Sequence[Part],
) -> Maps:
    if not parts:
        raise InputError("no layer has such an expert beside others: choose another one")
    cells = [_average(routing_data, row.steps, parts, style.min_steps) for row in rows]
    looks, legends = {}, []
    for label in dict.fromkeys(part.label for part in parts):
        same = [k for k, part in enumerate(parts) if part.label == label]
        shown = [of_row[k] for of_row in cells for k in same]
        scale = parts[same[0]].whole if style.is_absolute else _range_of(measure, shown)
        scale = LogScale(scale) if measure.is_log else scale if looks else style.scale or scale
        about = {"cmap": measure.cmap, "text": f"{label} {measure.form}", "name": measure.column}
        looks[label] = {"scale": scale, **about}
        legends.append(scale_legend(scale, measure.cmap, label, [of_map.means for of_map in shown]))
    layers = [{} if part.layer is None else {"layer": part.layer} for part in parts]
    maps = [
        [
            grid.map(part.title, render_values, *of_part, **looks[part.label], **layer)
            for part, layer, of_part in zip(parts, layers, of_row, strict=True)
        ]
        for of_row in cells
    ]
    return maps, [*legends, marks_legend(style.min_steps, grid)]


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


def lpc_colours(averaged: Sequence[RoutingByPosition], scale: Scale | None = None) -> tuple[Scale, Legend]:
    """The scale of mean LPC, by default that of these maps, and its legend."""
    scale = scale or _lpc_range(averaged)
    return scale, scale_legend(scale, LPC_CMAP, "mean LPC", [known_lpc(part) for part in averaged])


def _lpc_range(averaged: Sequence[RoutingByPosition]) -> Scale:
    return value_range([known_lpc(part) for part in averaged], [part.counts for part in averaged])


def _looks(routing_data: RoutingData, averaged: RoutingByPosition) -> list[Look]:
    if averaged.routing is None:
        routing_data.require("layer_routing")
    return expert_looks(routing_data.header, averaged.routing or [])


def _env_panel(row: _Row, grid: MapGrid) -> Panel | None:
    image = row.env_image
    return None if image is None else Panel(row.mission, lambda ax: render_env_image(ax, image, grid.info))


def grid_of(*runs: RoutingData) -> MapGrid:
    """The whole world of some runs, if its size is known and the same in all episodes; else the cells of their steps.

    Walls are those of every world.
    """
    size = common_size(world_size(data) for data in runs)
    info = compute_grid_bounds(np.concatenate([checked_positions(data.steps.position) for data in runs]), size)
    return MapGrid(info, None if size is None else common_walls([walls_of(data) for data in runs]))


def world_size(routing_data: RoutingData) -> tuple[int, int] | None:
    """Width and height of all worlds, None where they are not known or differ."""
    return common_size(tuple(episode.get("grid_size") or ()) or None for episode in routing_data.episodes)


def common_size(sizes: Iterable[tuple[int, int] | None]) -> tuple[int, int] | None:
    """The size that all have, if there is one."""
    found = set(sizes)
    return found.pop() if len(found) == 1 else None


def walls_of(routing_data: RoutingData) -> np.ndarray | None:
    """The walls (H, W) bool of all worlds, as whole episodes show them: a part may not pass a missing wall."""
    return wall_cells(whole_of(routing_data).steps, routing_data.episodes)


def common_walls(walls: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """Where all have walls, None where one is not known."""
    known = [of_one for of_one in walls if of_one is not None]
    return np.logical_and.reduce(known) if len(known) == len(walls) else None


def _title(routing_data: RoutingData, filter_fn: StepFilter, suffix: str = "") -> str:
    episode = np.asarray(routing_data.steps.episode)
    shown = episode[step_mask(routing_data.steps, filter_fn, len(episode))]
    return describe(routing_data.header, shown, suffix)
