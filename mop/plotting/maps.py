"""Routing data -> figures over the grid of the world: experts, cost, entropy in each cell.

All maps of a figure show the same cells in absolute grid coordinates, with one colour scale for each measure. Axis
letters: S steps, C grid cells that were visited, L layers, E experts.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from mop.base.errors import InputError
from mop.measures.actions import compute_policy_entropy
from mop.measures.cells import (
    RoutingByPosition,
    aggregate_routing_by_position,
    compute_grid_bounds,
    index_filtered_cells,
)
from mop.measures.groups import group_routing_data
from mop.measures.phases import PHASES, key_phases
from mop.measures.router_weights import compute_layer_lpc
from mop.measures.routing_data import RoutingData, StepFilter, Steps, check_not_empty, step_mask
from mop.plotting.heatmaps import (
    LPC_CMAP,
    Scale,
    known_lpc,
    render_env_image,
    render_lpc_heatmap,
    render_routing_heatmap,
    render_values,
    value_range,
)
from mop.plotting.sheets import LABEL_IN, Legend, Panel, draw_sheet, expert_legend, scale_legend
from mop.plotting.style import counted, describe, describe_groups, expert_hues, expert_names, wrapped

ENTROPY_CMAP = "YlOrRd"  # its ends are far from the colour of unvisited cells
_MAPS_IN_A_ROW = 3  # of a figure without groups: still legible in a page's column


class _Experts(NamedTuple):
    """The experts of a layer."""

    names: list[str]
    hues: list[str]


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
    return _plot_routing(routing_data, *_overall_part(routing_data, env_image, env_mission, filter_fn, title_suffix))


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
    return _plot_routing(routing_data, *_grouped_parts(routing_data, group_by, env_images, title_suffix, max_groups))


def plot_overall_lpc(
    routing_data: RoutingData,
    env_image: np.ndarray | None = None,
    env_mission: str = "",
    filter_fn: StepFilter = None,
    title_suffix: str = "",
) -> Figure:
    """Mean LPC of each cell, in total and of each layer, where the layers share a colour scale.

    Arguments and errors as `plot_overall_routing`. Raises InputError too if LPC or the sizes of the experts are not
    known.
    """
    return _plot_lpc(routing_data, *_overall_part(routing_data, env_image, env_mission, filter_fn, title_suffix))


def plot_grouped_lpc(
    routing_data: RoutingData,
    group_by: str,
    env_images: Mapping[str, np.ndarray] | None = None,
    title_suffix: str = "",
    max_groups: int = 16,
) -> Figure:
    """A row for each group with the maps of `plot_overall_lpc`; arguments and errors as `plot_grouped_routing`."""
    return _plot_lpc(routing_data, *_grouped_parts(routing_data, group_by, env_images, title_suffix, max_groups))


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
    mask, cells = index_filtered_cells(routing_data.steps, filter_fn)
    entropy = compute_policy_entropy(np.asarray(routing_data.steps.action_logits)[mask])
    means, text = cells.mean(entropy), "mean entropy {:.2f} nats"
    if not np.isfinite(means).any():
        raise InputError("the action logits are not finite: the policy has diverged")
    grid_info, scale = _grid_info(routing_data, cells.cells), (0.0, max(float(np.nanmax(means)), 0.01))
    panel = Panel(
        f"mean {np.nanmean(entropy):.2f} nats",
        lambda ax: render_values(ax, cells.cells, cells.counts, means, grid_info, scale, ENTROPY_CMAP, text),
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
    scale = value_range([known_lpc(part) for part in averaged.values()])
    grids = {name: _grid_info(data, averaged[name].cells) for name, data in runs.items()}
    largest = {side: max(grid[side] for grid in grids.values()) for side in ("grid_width", "grid_height")}
    columns, legends = [], {}
    for name, data in runs.items():
        part, grid = averaged[name], grids[name]
        experts = _experts(data, part)
        panels = _routing_panels(part, grid, scale, experts)
        panels[0] = Panel(f"{name}\n{counted(part.num_steps, 'step')}\n{panels[0].title}", panels[0].draw)
        columns.append(panels)
        for names, hues in experts:
            legends.setdefault(tuple(names), expert_legend(names, hues, "dominant expert"))
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
    check_not_empty(phase)
    present = [number for number in range(len(PHASES)) if (phase == number).any()]
    averaged = [aggregate_routing_by_position(steps, phase == number) for number in present]
    scale = value_range([known_lpc(part) for part in averaged])
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


def _overall_part(
    routing_data: RoutingData,
    env_image: np.ndarray | None,
    env_mission: str,
    filter_fn: StepFilter,
    title_suffix: str,
) -> tuple[list[_Part], str]:
    """The one part of an overall figure, and its title."""
    averaged = aggregate_routing_by_position(routing_data.steps, filter_fn)
    return [_Part(averaged, "", env_image, env_mission)], _title(routing_data, filter_fn, title_suffix)


def _grouped_parts(
    routing_data: RoutingData,
    group_by: str,
    env_images: Mapping[str, np.ndarray] | None,
    title_suffix: str,
    max_groups: int,
) -> tuple[list[_Part], str]:
    """The parts of a grouped figure, and its title."""
    groups = group_routing_data(routing_data, group_by)
    shown = groups.largest(max_groups)
    parts = []
    for group in shown:
        averaged = aggregate_routing_by_position(routing_data.steps, groups.mask(group))
        name, episodes = groups.labels[group], counted(groups.num_episodes[group], "episode")
        label = f"{wrapped(name, LABEL_IN)}\n{counted(averaged.num_steps, 'step')}\n{episodes}"
        parts.append(_Part(averaged, label, (env_images or {}).get(name)))
    title = _title(routing_data, None, describe_groups(groups, shown))
    return parts, ", ".join(filter(None, (title, title_suffix)))


def _plot_routing(routing_data: RoutingData, parts: Sequence[_Part], title: str) -> Figure:
    grid_info = _grid_info(routing_data, np.concatenate([part.averaged.cells for part in parts]))
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
        scale = value_range([known_lpc(part.averaged) for part in parts])
        legends.append(scale_legend(scale, LPC_CMAP, "mean LPC"))

    def maps(part: _Part) -> list[Panel]:
        return _routing_panels(part.averaged, grid_info, scale, experts)

    return _arrange(parts, maps, grid_info, legends, title)


def _routing_panels(
    averaged: RoutingByPosition, grid_info: dict[str, int], lpc_scale: Scale | None, experts: Sequence[_Experts]
) -> list[Panel]:
    """The dominant expert of each layer and mean LPC where there is a scale for it."""
    panels = [
        Panel(
            f"layer {layer}",
            lambda ax, layer=layer, of_layer=of_layer: render_routing_heatmap(
                ax, averaged, grid_info, layer, *of_layer
            ),
        )
        for layer, of_layer in enumerate(experts)
    ]
    if lpc_scale is not None:
        panels.append(Panel("mean LPC", lambda ax: render_lpc_heatmap(ax, averaged, grid_info, *lpc_scale)))
    return panels


def _plot_lpc(routing_data: RoutingData, parts: Sequence[_Part], title: str) -> Figure:
    sizes = routing_data.header.get("expert_hidden_sizes")
    if sizes is None:
        way_out = "make a new cache with `python batch_eval.py --force`"
        raise InputError(f"this routing data has no 'expert_hidden_sizes', which the LPC of a layer needs: {way_out}")
    expert_names(routing_data.header, _mean_weights(routing_data, parts[0].averaged))  # raises if they do not fit
    grid_info = _grid_info(routing_data, np.concatenate([part.averaged.cells for part in parts]))

    def layer_lpc(part: _Part) -> list[np.ndarray]:  # the mean of a weighted sum is the weighted sum of the means
        return [compute_layer_lpc(weights, sizes[layer]) for layer, weights in enumerate(part.averaged.routing)]

    total_scale = value_range([known_lpc(part.averaged) for part in parts])
    layer_scale = value_range([values for part in parts for values in layer_lpc(part)])

    def maps(part: _Part) -> list[Panel]:
        cells, counts = part.averaged.cells, part.averaged.counts
        panels = [Panel("all layers", lambda ax: render_lpc_heatmap(ax, part.averaged, grid_info, *total_scale))]
        return panels + [
            Panel(
                f"layer {layer}",
                lambda ax, values=values: render_values(
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


def _experts(routing_data: RoutingData, averaged: RoutingByPosition) -> list[_Experts]:
    """What the experts of each layer are called, and their hues. Raises InputError as `_mean_weights`."""
    layers = _mean_weights(routing_data, averaged)
    pairs = zip(expert_names(routing_data.header, layers), expert_hues(routing_data.header, layers), strict=True)
    return [_Experts(*of_layer) for of_layer in pairs]


def _mean_weights(routing_data: RoutingData, averaged: RoutingByPosition) -> list[np.ndarray]:
    """L arrays (C, E_l). Raises InputError, in the words of the data, if the steps have no router weights."""
    if averaged.routing is None:
        routing_data.require("layer_routing")
    return averaged.routing


def _env_panels(env_image: np.ndarray | None, title: str, grid_info: dict[str, int]) -> list[Panel]:
    if env_image is None:
        return []
    return [Panel(title, lambda ax: render_env_image(ax, env_image, grid_info))]


def _grid_info(routing_data: RoutingData, cells: np.ndarray) -> dict[str, int]:
    """The whole world, if its size is known and the same in all episodes; else the cells that were visited."""
    sizes = {tuple(episode.get("grid_size") or ()) for episode in routing_data.episodes}
    return compute_grid_bounds(cells, sizes.pop() if len(sizes) == 1 and () not in sizes else None)


def _title(routing_data: RoutingData, filter_fn: StepFilter, suffix: str) -> str:
    episode = np.asarray(routing_data.steps.episode)
    shown = episode[step_mask(routing_data.steps, filter_fn, len(episode))]
    return describe(routing_data.header, shown, suffix)
