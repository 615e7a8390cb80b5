"""Routing data -> figures over the grid of the world: experts, cost, entropy in each cell.

All maps of a figure show the same cells in absolute grid coordinates, with one colour scale for each measure. What they
have in common: `min_steps`, cells with fewer steps are left out; `scale`, least and greatest LPC of the colour scale,
for figures that are compared (without, of the cells with FULL_STEPS steps or more: `lpc_scale`); `width_in`, the width
of the figure in inches, as `draw_sheet`. Axis letters: S steps, C grid cells that were visited, L layers, E experts,
A actions.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mop.analysis.actions import compute_policy_entropy
from mop.analysis.cells import (
    RoutingByPosition,
    aggregate_routing_by_position,
    compute_grid_bounds,
    enough_steps,
    index_filtered_cells,
    wall_cells,
)
from mop.analysis.groups import PHASES, group_routing_data, key_phases
from mop.analysis.routing import compute_layer_lpc
from mop.analysis.routing_data import StepFilter, check_not_empty, step_mask, whole_of
from mop.artifacts.routing_cache import RoutingData, Steps
from mop.common.errors import InputError
from mop.plotting.heatmaps import (
    LPC_CMAP,
    Scale,
    known_lpc,
    render_env_image,
    render_lpc,
    render_routing_heatmap,
    render_values,
    render_walls,
    value_range,
)
from mop.plotting.sheets import (
    LABEL_IN,
    Legend,
    Panel,
    draw_sheet,
    expert_legend,
    maps_in_a_row,
    marks_legend,
    scale_legend,
)
from mop.plotting.style import counted, describe, describe_groups, expert_hues, expert_names, wrapped

ENTROPY_CMAP = "YlOrRd"  # its ends are far from the colours of unvisited cells and walls


class _Experts(NamedTuple):
    """The experts of a layer."""

    names: list[str]
    hues: list[str]


class _Look(NamedTuple):
    """What the caller of a figure chooses, as the first lines of this file say."""

    min_steps: int = 1
    scale: Scale | None = None
    width_in: float | None = None


@dataclass(frozen=True, eq=False)
class _Grid:
    """The cells that every map of a figure shows, and which of the world's are walls (H, W) bool, if that is known."""

    info: dict[str, int]
    walls: np.ndarray | None

    def map(self, title: str, render: Callable[[Axes, dict[str, int]], object]) -> Panel:
        """A panel that draws a map, with the walls over it."""

        def draw(ax: Axes) -> None:
            render(ax, self.info)
            render_walls(ax, self.walls)

        return Panel(title, draw)


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
    min_steps: int = 1,
    scale: Scale | None = None,
    width_in: float | None = None,
) -> Figure:
    """A picture of a world (H, W, 3) uint8, if given, the dominant expert in each cell of each layer, and mean LPC.

    filter_fn: the steps that count, as `aggregate_routing_by_position`. Without LPC there is no map of it.
    """
    look = _Look(min_steps, scale, width_in)
    part = _overall_part(routing_data, env_image, env_mission, filter_fn, title_suffix, look)
    return _plot_routing(routing_data, *part, look)


def plot_grouped_routing(
    routing_data: RoutingData,
    group_by: str,
    env_images: Mapping[str, np.ndarray] | None = None,
    title_suffix: str = "",
    max_groups: int = 16,
    min_steps: int = 1,
    scale: Scale | None = None,
    width_in: float | None = None,
) -> Figure:
    """A row for each group of `group_routing_data` with the maps of `plot_overall_routing`.

    env_images: label of a group -> a picture of a world in it. Of more than max_groups groups the largest are shown; a
    group without a cell of enough steps is not.
    """
    look = _Look(min_steps, scale, width_in)
    parts = _grouped_parts(routing_data, group_by, env_images, title_suffix, max_groups, look)
    return _plot_routing(routing_data, *parts, look)


def plot_overall_lpc(
    routing_data: RoutingData,
    env_image: np.ndarray | None = None,
    env_mission: str = "",
    filter_fn: StepFilter = None,
    title_suffix: str = "",
    min_steps: int = 1,
    scale: Scale | None = None,
    width_in: float | None = None,
) -> Figure:
    """Mean LPC of each cell, in total and of each layer, where the layers share a colour scale; `scale` is the total's.

    Arguments and errors as `plot_overall_routing`.
    """
    look = _Look(min_steps, scale, width_in)
    part = _overall_part(routing_data, env_image, env_mission, filter_fn, title_suffix, look)
    return _plot_lpc(routing_data, *part, look)


def plot_grouped_lpc(
    routing_data: RoutingData,
    group_by: str,
    env_images: Mapping[str, np.ndarray] | None = None,
    title_suffix: str = "",
    max_groups: int = 16,
    min_steps: int = 1,
    scale: Scale | None = None,
    width_in: float | None = None,
) -> Figure:
    """A row for each group with the maps of `plot_overall_lpc`; arguments and errors as `plot_grouped_routing`."""
    look = _Look(min_steps, scale, width_in)
    parts = _grouped_parts(routing_data, group_by, env_images, title_suffix, max_groups, look)
    return _plot_lpc(routing_data, *parts, look)


def plot_action_entropy(
    routing_data: RoutingData,
    env_image: np.ndarray | None = None,
    env_mission: str = "",
    filter_fn: StepFilter = None,
    title_suffix: str = "",
    min_steps: int = 1,
    width_in: float | None = None,
) -> Figure:
    """Mean entropy of the action's probabilities in each cell, in nats: high where the policy is uncertain.

    The scale is absolute: from 0 (certain) to ln A, which equal probabilities of all actions have; the largest mean of
    a cell is marked. Arguments as `plot_overall_routing`.
    """
    routing_data.require("action_logits")
    mask, cells = index_filtered_cells(routing_data.steps, filter_fn)
    logits = np.asarray(routing_data.steps.action_logits)[mask]
    entropy = compute_policy_entropy(logits)
    kept = cells.has_steps(min_steps)
    means, counts, places = cells.mean(entropy)[kept], cells.counts[kept], cells.cells[kept]
    if not np.isfinite(means).any():
        raise InputError("the action logits are not finite: the policy has diverged")
    grid, most = _grid(routing_data, cells.cells), math.log(logits.shape[1])
    text, look = "mean entropy {:.2f} nats", _Look(min_steps, None, width_in)
    panel = grid.map(
        f"mean {np.nanmean(entropy):.2f} nats",
        lambda ax, info: render_values(
            ax, places, counts, means, info, (0.0, most), ENTROPY_CMAP, text, "entropy_nats"
        ),
    )
    panels = [*_env_panels(env_image, env_mission, grid), panel]
    label = f"entropy of the action, 0 to ln {logits.shape[1]} nats\nline: largest mean, {np.nanmax(means):.2f}"
    legends = [scale_legend((0.0, most), ENTROPY_CMAP, label, [means], mark=True), _marks(look, grid, False)]
    return draw_sheet([panels], [""], grid.info, legends, _title(routing_data, mask, title_suffix), width_in=width_in)


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


def plot_routing_side_by_side(
    runs: Mapping[str, RoutingData],
    min_steps: int = 1,
    scale: Scale | None = None,
    width_in: float | None = None,
) -> Figure:
    """A column for each run, with the dominant expert of each layer and mean LPC below each other.

    runs: what a run is called -> its routing data. Each run has the grid of its own world; the scale of LPC is shared.
    """
    if not runs:
        raise InputError("there is no run to show: choose at least one")
    averaged = {name: aggregate_routing_by_position(data.steps).with_steps(min_steps) for name, data in runs.items()}
    lpc = [known_lpc(part) for part in averaged.values()]
    scale = scale or _range_of_lpc(averaged.values())
    grids = {name: _grid(data, np.asarray(data.steps.position)) for name, data in runs.items()}
    largest = {side: max(grid.info[side] for grid in grids.values()) for side in ("grid_width", "grid_height")}
    columns, legends = [], {}
    for name, data in runs.items():
        part, grid = averaged[name], grids[name]
        experts = _experts(data, part)
        panels = _routing_panels(part, grid, scale, experts)
        panels[0] = Panel(f"{name}\n{counted(len(data.steps.episode), 'step')}\n{panels[0].title}", panels[0].draw)
        columns.append(panels)
        for of_layer in experts:
            legends.setdefault((*of_layer.names, *of_layer.hues), expert_legend(*of_layer, "dominant expert"))
    rows = [[panels[row] if row < len(panels) else None for panels in columns] for row in range(max(map(len, columns)))]
    look, any_walls = _Look(min_steps), next((grid for grid in grids.values() if grid.walls is not None), grid)
    shown = [*legends.values(), scale_legend(scale, LPC_CMAP, "mean LPC", lpc), _marks(look, any_walls, True)]
    return draw_sheet(rows, [""] * len(rows), largest, shown, "", has_own_axes=True, width_in=width_in)


def plot_lpc_by_phase(
    steps: Steps,
    episodes: Sequence[Mapping],
    grid_size: Sequence[int] | None = None,
    title: str = "",
    min_steps: int = 1,
    scale: Scale | None = None,
    width_in: float | None = None,
) -> Figure:
    """Where the policy spends its computation in each phase of the task: mean LPC of each cell, one colour scale.

    Phases that no step is in, or that have no cell of enough steps, are left out.
    """
    phase = key_phases(steps, episodes)
    check_not_empty(phase)
    present = [number for number in range(len(PHASES)) if (phase == number).any()]
    averaged = [aggregate_routing_by_position(steps, phase == number) for number in present]
    enough = enough_steps(np.array([part.counts.max() for part in averaged]), min_steps)
    present = [number for number, is_enough in zip(present, enough, strict=True) if is_enough]
    averaged = [part.with_steps(min_steps) for part, is_enough in zip(averaged, enough, strict=True) if is_enough]
    lpc = [known_lpc(part) for part in averaged]
    scale = scale or _range_of_lpc(averaged)
    info = compute_grid_bounds(np.asarray(steps.position), grid_size)
    grid = _Grid(info, None if grid_size is None else wall_cells(steps, episodes))
    panels = []
    for number, part in zip(present, averaged, strict=True):
        in_phase = phase == number
        shown = f"mean {np.nanmean(np.asarray(steps.lpc)[in_phase]):.0f}, {counted(int(in_phase.sum()), 'step')}"
        panels.append(grid.map(f"{PHASES[number]}\n{shown}", _lpc_map(part, scale)))
    legends = [scale_legend(scale, LPC_CMAP, "mean LPC", lpc), _marks(_Look(min_steps), grid, False)]
    return draw_sheet([panels], [""], info, legends, title, width_in=width_in)


def _overall_part(
    routing_data: RoutingData,
    env_image: np.ndarray | None,
    env_mission: str,
    filter_fn: StepFilter,
    title_suffix: str,
    look: _Look,
) -> tuple[list[_Part], str]:
    """The one part of an overall figure, and its title."""
    averaged = aggregate_routing_by_position(routing_data.steps, filter_fn).with_steps(look.min_steps)
    return [_Part(averaged, "", env_image, env_mission)], _title(routing_data, filter_fn, title_suffix)


def _grouped_parts(
    routing_data: RoutingData,
    group_by: str,
    env_images: Mapping[str, np.ndarray] | None,
    title_suffix: str,
    max_groups: int,
    look: _Look,
) -> tuple[list[_Part], str]:
    """The parts of a grouped figure, and its title."""
    groups = group_routing_data(routing_data, group_by)
    parts, shown = [], []
    for group in groups.largest(max_groups):
        averaged = aggregate_routing_by_position(routing_data.steps, groups.mask(group))
        if averaged.counts.max() < look.min_steps:
            continue
        name, episodes = groups.labels[group], counted(groups.num_episodes[group], "episode")
        label = f"{wrapped(name, LABEL_IN)}\n{counted(averaged.num_steps, 'step')}\n{episodes}"
        parts.append(_Part(averaged.with_steps(look.min_steps), label, (env_images or {}).get(name)))
        shown.append(group)
    if not parts:
        raise InputError(f"no group has a cell with {look.min_steps} steps: lower the least number of steps")
    title = _title(routing_data, None, describe_groups(groups, shown))
    return parts, ", ".join(filter(None, (title, title_suffix)))


def _plot_routing(routing_data: RoutingData, parts: Sequence[_Part], title: str, look: _Look) -> Figure:
    grid = _grid(routing_data, np.asarray(routing_data.steps.position))
    first = parts[0].averaged
    experts = _experts(routing_data, first)
    if all(of_layer == experts[0] for of_layer in experts):
        legends = [expert_legend(*experts[0], "dominant expert")]
    else:
        legends = [
            expert_legend(*of_layer, f"layer {layer}: dominant expert") for layer, of_layer in enumerate(experts)
        ]
    scale = None
    if first.lpc is not None:
        lpc = [known_lpc(part.averaged) for part in parts]
        scale = look.scale or _range_of_lpc([part.averaged for part in parts])
        legends.append(scale_legend(scale, LPC_CMAP, "mean LPC", lpc))
    legends.append(_marks(look, grid, any(len(of_layer.names) > 1 for of_layer in experts)))

    def maps(part: _Part) -> list[Panel]:
        return _routing_panels(part.averaged, grid, scale, experts)

    return _arrange(parts, maps, grid, legends, title, look)


def _routing_panels(
    averaged: RoutingByPosition, grid: _Grid, lpc_scale: Scale | None, experts: Sequence[_Experts]
) -> list[Panel]:
    """The dominant expert of each layer and mean LPC where there is a scale for it."""

    def map_of(layer: int) -> Panel:
        return grid.map(
            f"layer {layer}", lambda ax, info: render_routing_heatmap(ax, averaged, info, layer, *experts[layer])
        )

    panels = [map_of(layer) for layer in range(len(experts))]
    return panels if lpc_scale is None else [*panels, grid.map("mean LPC", _lpc_map(averaged, lpc_scale))]


def _plot_lpc(routing_data: RoutingData, parts: Sequence[_Part], title: str, look: _Look) -> Figure:
    sizes = routing_data.header.get("expert_hidden_sizes")
    if sizes is None:
        way_out = "make a new cache with `python batch_eval.py --force`"
        raise InputError(f"this routing data has no 'expert_hidden_sizes', which the LPC of a layer needs: {way_out}")
    expert_names(routing_data.header, _mean_weights(routing_data, parts[0].averaged))  # raises if they do not fit
    grid = _grid(routing_data, np.asarray(routing_data.steps.position))

    def layer_lpc(part: _Part) -> list[np.ndarray]:  # the mean of a weighted sum is the weighted sum of the means
        return [compute_layer_lpc(weights, sizes[layer]) for layer, weights in enumerate(part.averaged.routing)]

    total = [known_lpc(part.averaged) for part in parts]
    total_scale = look.scale or _range_of_lpc([part.averaged for part in parts])
    of_layers = [values for part in parts for values in layer_lpc(part)]
    layer_scale = value_range(of_layers, [part.averaged.counts for part in parts for _ in part.averaged.routing])

    def map_of(part: _Part, layer: int, values: np.ndarray) -> Panel:
        cells, counts, text = part.averaged.cells, part.averaged.counts, "mean LPC of the layer {:.0f}"
        return grid.map(
            f"layer {layer}",
            lambda ax, info: render_values(
                ax, cells, counts, values, info, layer_scale, LPC_CMAP, text, "lpc", layer=layer
            ),
        )

    def maps(part: _Part) -> list[Panel]:
        layers = [map_of(part, layer, values) for layer, values in enumerate(layer_lpc(part))]
        return [grid.map("all layers", _lpc_map(part.averaged, total_scale)), *layers]

    legends = [
        scale_legend(total_scale, LPC_CMAP, "mean LPC, all layers", total),
        scale_legend(layer_scale, LPC_CMAP, "mean LPC of a layer", of_layers),
        _marks(look, grid, False),
    ]
    return _arrange(parts, maps, grid, legends, title, look)


def _arrange(
    parts: Sequence[_Part],
    maps: Callable[[_Part], list[Panel]],
    grid: _Grid,
    legends: Sequence[Legend],
    title: str,
    look: _Look,
) -> Figure:
    """A row for each part under titles of the columns, or the maps of a single part in several rows."""
    if len(parts) == 1 and not parts[0].label:
        panels = [*_env_panels(parts[0].env_image, parts[0].mission, grid), *maps(parts[0])]
        most = maps_in_a_row(look.width_in)
        rows = [panels[start : start + most] for start in range(0, len(panels), most)]
        return draw_sheet(rows, [""] * len(rows), grid.info, legends, title, width_in=look.width_in)
    has_images, rows = any(part.env_image is not None for part in parts), []
    for part in parts:
        env_panel = _env_panels(part.env_image, "an example", grid) or [None]
        rows.append([*(env_panel if has_images else []), *maps(part)])
    for row in rows[1:]:  # the first row names the columns
        row[:] = [panel and Panel("", panel.draw) for panel in row]
    return draw_sheet(rows, [part.label for part in parts], grid.info, legends, title, width_in=look.width_in)


def _lpc_map(averaged: RoutingByPosition, scale: Scale) -> Callable[[Axes, dict[str, int]], object]:
    return lambda ax, info: render_lpc(ax, averaged, info, scale)


def _range_of_lpc(averaged: Iterable[RoutingByPosition]) -> Scale:
    averaged = list(averaged)
    return value_range([known_lpc(part) for part in averaged], [part.counts for part in averaged])


def _marks(look: _Look, grid: _Grid, has_ties: bool) -> Legend:
    return marks_legend(look.min_steps, grid.walls is not None, has_ties)


def _experts(routing_data: RoutingData, averaged: RoutingByPosition) -> list[_Experts]:
    """What the experts of each layer are called, and their hues."""
    layers = _mean_weights(routing_data, averaged)
    pairs = zip(expert_names(routing_data.header, layers), expert_hues(routing_data.header, layers), strict=True)
    return [_Experts(*of_layer) for of_layer in pairs]


def _mean_weights(routing_data: RoutingData, averaged: RoutingByPosition) -> list[np.ndarray]:
    """L arrays (C, E_l)."""
    if averaged.routing is None:
        routing_data.require("layer_routing")
    return averaged.routing


def _env_panels(env_image: np.ndarray | None, title: str, grid: _Grid) -> list[Panel]:
    if env_image is None:
        return []
    return [Panel(title, lambda ax: render_env_image(ax, env_image, grid.info))]


def _grid(routing_data: RoutingData, cells: np.ndarray) -> _Grid:
    """The whole world, if its size is known and the same in all episodes; else the cells (C, 2) that were visited."""
    steps, episodes = whole_of(routing_data).steps, routing_data.episodes  # a part may not pass a missing wall
    sizes = {tuple(episode.get("grid_size") or ()) for episode in episodes}
    size = sizes.pop() if len(sizes) == 1 and () not in sizes else None
    return _Grid(compute_grid_bounds(cells, size), None if size is None else wall_cells(steps, episodes))


def _title(routing_data: RoutingData, filter_fn: StepFilter, suffix: str) -> str:
    episode = np.asarray(routing_data.steps.episode)
    shown = episode[step_mask(routing_data.steps, filter_fn, len(episode))]
    return describe(routing_data.header, shown, suffix)
