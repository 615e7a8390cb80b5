"""Two policies in the same grid -> one figure: each of them, and the difference in every cell.

Axis letters: S steps, C grid cells that one of the two visited, L layers, E experts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgb
from matplotlib.figure import Figure

from mop.analysis.cells import RoutingByPosition, aggregate_routing_by_position
from mop.analysis.groups import GROUPINGS, group_routing_data
from mop.analysis.routing_data import checked_weights
from mop.analysis.run_comparison import CellContrast, Pair, common_sizes, compare_cells, pair_worlds, weights_by_size
from mop.artifacts.routing_cache import RoutingData
from mop.common.errors import InputError
from mop.plotting.heatmaps import Scale, corners_of, draw_cells, render_lpc_heatmap, render_routing_heatmap
from mop.plotting.maps import grid_of, lpc_colours, world_size
from mop.plotting.sheets import LABEL_IN, Legend, MapGrid, Panel, Sheet, expert_legends, marks_legend
from mop.plotting.style import Look, expert_looks, wrapped
from mop.statistics.intervals import MIN_WORLDS

# Teal and vermilion stay apart for colour-blind eyes, and are no experts' hues; the middle is a grey, not the white of
# the page.
DIFFERENCE_CMAP = LinearSegmentedColormap.from_list("difference", ["#006d66", "#dadada", "#c23b00"])
ONE_SIDED_COLOR = "#7f7f7f"  # only one of the two was there: nothing to compare
ALL_MEASURES = "LPC and all layers"
_MOST_GROUPS = 8  # of a figure
_ROUNDING = 1e-3  # of a mean: smaller differences are pale
_UNCLEAR: dict[str, Any] = {"hatch": "/////", "facecolor": "none", "edgecolor": "#777777", "linewidth": 0}


@dataclass(frozen=True, eq=False)
class _Row:
    """One measure of one group of steps: both sides, and the differences, by what each is called."""

    label: str
    layer: int  # -1 of the LPC
    sides: tuple[RoutingByPosition, RoutingByPosition]
    differences: dict[str, CellContrast]
    looks: list[Look]  # of the experts of each side


class _Frame(NamedTuple):
    """What all maps of the figure share."""

    grid: MapGrid
    names: tuple[str, str]
    scale: Scale | None  # of LPC, where it is shown
    limits: dict[bool, float]  # of the differences of LPC, and of weights


def difference_measures(left: RoutingData, right: RoutingData) -> list[str]:
    """What `plot_difference` can show of two evaluations: "LPC", "layer 0", ..., as far as both have it."""
    measures = ["LPC"] if all(data.steps.lpc is not None for data in (left, right)) else []
    if any(data.header.get("expert_hidden_sizes") is None for data in (left, right)):
        return measures
    sizes = common_sizes(left.header, right.header)
    return measures + [f"layer {layer}" for layer, of_layer in enumerate(sizes) if of_layer]


def plot_difference(
    left: RoutingData,
    right: RoutingData,
    names: tuple[str, str] = ("left", "right"),
    group_by: str = "overall",
    measure: str = ALL_MEASURES,
) -> Figure:
    """Two policies and, in each cell, right minus left: of mean LPC, and of the mean weight of each size of expert.

    A row for each measure, and for each group of `group_routing_data` that both have; measure: one of
    `difference_measures`, or all of them. Both sides share every scale. Differences are on a symmetric one, which ends
    at the largest of a cell with enough episodes; they are hatched where their 95 % interval holds 0 or a side has
    fewer than MIN_WORLDS episodes, and a triangle points to the side that alone was there. Worlds are paired as
    `pair_worlds` says. Of many groups the largest are shown.
    """
    possible = difference_measures(left, right)
    if not possible:
        raise InputError("nothing of the two can be compared: one has no LPC, and their layers differ or are unknown")
    if measure not in (ALL_MEASURES, *possible):
        raise InputError(f"{measure} of the two cannot be compared; what can is {', '.join(possible)}")
    pair, chosen = pair_worlds(left, right), possible if measure == ALL_MEASURES else [measure]
    groups, remark = _common_groups(pair, group_by)
    rows = [_make_row(pair, masks, name, label) for label, masks in groups for name in chosen]
    _check_sizes(left, right)
    of_lpc, of_layers = [row for row in rows if row.layer < 0], [row for row in rows if row.layer >= 0]
    limits, scale, legends = {True: _limit(of_lpc), False: _limit(of_layers)}, None, []
    if of_lpc:
        scale, legend = lpc_colours([side for row in of_lpc for side in row.sides])
        legends += [legend, _difference_legend(limits[True], "mean LPC")]
    if of_layers:
        looks = [look for row in of_layers for look in row.looks]
        legends += [*expert_legends(looks), _difference_legend(limits[False], "weight")]
    frame = _Frame(grid_of(left, right), names, scale, limits)
    legends.append(marks_legend(1, frame.grid, bool(of_layers)))
    sheet = [_panels(row, frame) for row in rows]
    sheet[0][:2] = [replace(panel, title=name) for name, panel in zip(names, sheet[0], strict=False)]
    title, labels = _title(pair, remark), [row.label for row in rows]
    return Sheet(sheet, labels, frame.grid.info, legends, title)


# --- numbers ----------------------------------------------------------------------------------------------------------


def _check_sizes(left: RoutingData, right: RoutingData) -> None:
    """Refuse worlds of different sizes."""
    sizes = [size for data in (left, right) if (size := world_size(data)) is not None]
    if len(set(sizes)) == 2:
        shapes = " and ".join(f"{width} x {height}" for width, height in sizes)
        raise InputError(f"the worlds have {shapes} cells: no cell of one is a cell of the other")


def _common_groups(pair: Pair, group_by: str) -> tuple[list[tuple[str, tuple[np.ndarray, np.ndarray]]], str]:
    """Label and masks (S,) of each group that both have, and how the steps are grouped, for a title."""
    masks = pair.masks()
    if group_by == "overall":
        return [("", masks)], ""
    sides = [group_routing_data(data, group_by) for data in (pair.left, pair.right)]
    counts = [np.bincount(side.index[mask], minlength=len(side)) for side, mask in zip(sides, masks, strict=True)]
    left, right = (
        {key: count for key, count in zip(side.keys, of_side.tolist(), strict=True) if count}
        for side, of_side in zip(sides, counts, strict=True)
    )
    common = [key for key in left if key in right]
    if not common:
        raise InputError(f"by {GROUPINGS[group_by].title}, the two have no group in common")
    totals = np.array([left[key] + right[key] for key in common])
    shown = [common[index] for index in sorted(np.argsort(-totals, kind="stable")[:_MOST_GROUPS].tolist())]
    groups = []
    for key in shown:
        places = [side.keys.index(key) for side in sides]
        of_group = (mask & side.mask(place) for mask, side, place in zip(masks, sides, places, strict=True))
        groups.append((sides[0].labels[places[0]], tuple(of_group)))
    num_groups = len(left | right)
    remark = f"by {GROUPINGS[group_by].title}"
    return groups, remark + (f" ({len(shown)} of {num_groups} groups)" if len(shown) < num_groups else "")


def _make_row(pair: Pair, masks: tuple[np.ndarray, np.ndarray], measure: str, label: str) -> _Row:
    both = (pair.left, pair.right)
    left, right = (aggregate_routing_by_position(data.steps, mask) for data, mask in zip(both, masks, strict=True))
    if measure == "LPC":
        layer, values, looks = -1, {"LPC": [data.column("lpc") for data in both]}, []
    else:
        layer = int(measure.removeprefix("layer "))
        weights = [weights_by_size(data, layer) for data in both]
        common = common_sizes(pair.left.header, pair.right.header)[layer]
        values = {f"GRU {size}" if size else "skip": [of_side[size] for of_side in weights] for size in common}
        layers = [checked_weights(data.steps) for data in both]
        looks = [expert_looks(data.header, of_side)[layer] for data, of_side in zip(both, layers, strict=True)]
    differences = {name: compare_cells(pair, *of_both, *masks) for name, of_both in values.items()}
    steps = " / ".join(f"{side.num_steps:,}" for side in (left, right))
    text = f"{wrapped(label, LABEL_IN)}\n{measure}\n{steps} steps" if label else measure
    return _Row(text, layer, (left, right), differences, looks)


# --- the figure -------------------------------------------------------------------------------------------------------


def _panels(row: _Row, frame: _Frame) -> list[Panel]:
    """The maps of a row, both sides first."""

    panels = []
    if row.layer < 0:
        panels += [frame.grid.map("", render_lpc_heatmap, side, scale=frame.scale) for side in row.sides]
    for side, (names, hues) in zip(row.sides, row.looks, strict=False):  # there are no looks of LPC
        panels.append(frame.grid.map("", render_routing_heatmap, side, layer=row.layer, names=names, hues=hues))
    for name, compared in row.differences.items():
        about = {"frame": frame, "name": name, "layer": row.layer}
        panels.append(frame.grid.map(f"{name}, difference", _render_difference, compared, **about))
    return panels


def _limit(rows: Sequence[_Row]) -> float:
    """Where the symmetric scale ends: the largest difference of a cell with enough episodes, or of any.

    It is at least a share of the means: what rounding makes of one policy evaluated twice is no difference.
    """
    means = [compared.means for row in rows for compared in row.differences.values()]
    for least in (MIN_WORLDS, 1):
        sizes = [np.abs(of_map.difference[of_map.is_known(least)]) for of_map in means]
        if any(map(len, sizes)):
            sides = np.concatenate([side for of_map in means for side in (of_map.left, of_map.right)])
            largest = max(float(size.max(initial=0)) for size in sizes)
            return max(largest, _ROUNDING * float(np.nanmax(np.abs(sides)))) or 1.0  # all 0: any scale will do
    return 1.0  # no cell that both visited


def _render_difference(
    ax: Axes, compared: CellContrast, grid_info: dict[str, int], frame: _Frame, name: str, layer: int
) -> None:
    """Draw right minus left of each cell; hatched where it is not clear, a triangle where only one side was."""
    means, cells, limit = compared.means, compared.cells, frame.limits[layer < 0]
    is_both, is_clear = means.is_known(1), means.is_clear(MIN_WORLDS)
    colors = np.empty((len(cells), 3))
    colors[:] = to_rgb(ONE_SIDED_COLOR)
    colors[is_both] = DIFFERENCE_CMAP(Normalize(-limit, limit)(means.difference[is_both]))[:, :3]
    values = [_cell_values(compared, index) for index in range(len(cells))]
    texts = [_cell_text(name, of_cell, is_sure, frame) for of_cell, is_sure in zip(values, is_clear, strict=True)]
    where = {} if layer < 0 else {"layer": layer, "expert": name}
    counts = compared.left_steps + compared.right_steps
    draw_cells(ax, cells, counts, colors, texts, [where | of_cell for of_cell in values], grid_info)
    ax.add_collection(PolyCollection([*corners_of(cells[is_both & ~is_clear])], **_UNCLEAR), autolim=False)
    for marker, is_alone in (("<", compared.right_steps == 0), (">", compared.left_steps == 0)):
        ax.plot(*cells[is_alone].T, marker, color="#222222", markersize=4, scalex=False, scaley=False)


def _cell_values(compared: CellContrast, index: int) -> dict[str, float | int]:
    """The numbers of one cell, by name; NaN where one side was not there."""
    means = compared.means
    left, right, difference, half = (
        float(values[index]) for values in (means.left, means.right, means.difference, means.half)
    )
    steps = {"left_steps": int(compared.left_steps[index]), "right_steps": int(compared.right_steps[index])}
    bounds = {"low": difference - half, "high": difference + half}
    return {"left_mean": left, "right_mean": right, "difference": difference, **bounds, **steps}


def _cell_text(name: str, values: dict[str, float | int], is_clear: bool, frame: _Frame) -> str:
    """What a cell says under the mouse, behind its place."""
    for side, other in zip(frame.names, ("right_steps", "left_steps"), strict=True):
        if not values[other]:
            return f"only {' '.join(side.split())} was here"
    form = "{:,.0f}" if name == "LPC" else "{:.2f}"
    left, right, low, high = (form.format(values[column]) for column in ("left_mean", "right_mean", "low", "high"))
    difference = form.replace(":", ":+").format(values["difference"])
    interval = f"95 % interval {low} to {high}" if np.isfinite(values["low"]) else "one episode"
    doubt = "" if is_clear else ", not clear"
    steps = f"{values['left_steps']:,} + {values['right_steps']:,}"
    return f"{name} {left} → {right}, {difference} ({interval}{doubt}), {steps}"


def _difference_legend(limit: float, label: str) -> Legend:
    """A colour bar from -limit to limit."""

    def draw(ax: Axes) -> None:
        scale = ScalarMappable(Normalize(-limit, limit), DIFFERENCE_CMAP)
        ax.figure.colorbar(scale, cax=ax, orientation="horizontal")
        form = "{:+,.0f}" if limit >= 10 else "{:+.2g}"
        ax.set_xticks([-limit, 0, limit], [form.format(-limit), "0", form.format(limit)])
        ax.tick_params(labelsize="small")
        ax.set_title(f"{label}, right minus left", fontsize="small")

    return Legend(2.2, 0.2, 0.3, 0.35, draw)


def _title(pair: Pair, remark: str) -> str:
    """What is compared, over how many worlds, and what the marks mean."""
    tasks = " and ".join(dict.fromkeys(str(data.header.get("task_id")) for data in (pair.left, pair.right)))
    left, right = pair.num_worlds
    worlds = f"paired in {left:,} worlds" if pair.is_paired else f"not paired: {left:,} and {right:,} worlds"
    unclear = f"hatched difference: 95 % interval holds 0, or under {MIN_WORLDS} episodes"
    return ", ".join(filter(None, (tasks, worlds, remark))) + f"\n{unclear}; triangle: only that side"
