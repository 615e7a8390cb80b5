"""Routing data and training logs -> numbers -> Figures; no files, no torch, no gym.

`aggregate_*` and `compute_*` return numbers, `render_*` draws into given axes, `plot_*` returns a whole Figure. Figures
are made without pyplot, which keeps every figure alive in a global list and is not safe in the threads of a server.
Axis letters: S steps, C grid cells that were visited, L layers, E experts.
"""

import itertools
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Protocol

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgba
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import EngFormatter, MaxNLocator

from errors import InputError

# --- colours --------------------------------------------------------------------------------------------------------

# Hues of Okabe and Ito (https://jfly.uni-koeln.de/color/), the fourth one of Paul Tol's "bright" set. They are in this
# order because blue, orange and green stay furthest apart at every intensity, for colour-blind eyes too, and most
# layers have three experts.
_HUES = {
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "purple": "#AA3377",
    "sky": "#56B4E9",
    "vermilion": "#D55E00",
}
_PALEST = 0.12  # share of the hue at confidence 0: nearly white, but not the white of the page


def _ramp(name: str, hue: str) -> LinearSegmentedColormap:
    palest = 1 - _PALEST * (1 - np.array(to_rgba(hue)))
    return LinearSegmentedColormap.from_list(f"expert_{name}", [tuple(palest), hue])


EXPERT_CMAPS = tuple(_ramp(name, hue) for name, hue in _HUES.items())  # confidence 0..1 -> colour of expert 0, 1, ...
UNVISITED_COLOR = "#333333"  # dark: ramps start nearly white, and a paler grey is somewhere on a ramp for some eyes

# --- numbers --------------------------------------------------------------------------------------------------------


class Steps(Protocol):
    """The columns that are read here, one entry per environment step; None where the data has no such column."""

    episode: np.ndarray | None  # (S,) int, index into the episodes
    t_step: np.ndarray | None  # (S,) int, actions taken before this one
    position: np.ndarray | None  # (S, 2) int, x and y
    layer_routing: Sequence[np.ndarray] | None  # L arrays (S, E_l) float, rows sum to 1
    lpc: np.ndarray | None  # (S,) float


StepFilter = np.ndarray | Callable[[Steps], np.ndarray] | None  # a mask (S,) bool, or what makes it from the steps


@dataclass(frozen=True, eq=False)
class RoutingByPosition:
    """Means over the steps in each visited cell, in reading order (by y, then x)."""

    cells: np.ndarray  # (C, 2) int64, x and y
    counts: np.ndarray  # (C,) int64, steps in the cell
    routing: list[np.ndarray] | None  # L arrays (C, E_l) float64, mean weights; None if the steps have none
    lpc: np.ndarray | None  # (C,) float64, mean over the steps whose LPC is known; NaN where none is

    @property
    def num_steps(self) -> int:
        return int(self.counts.sum())


def compute_grid_bounds(positions: np.ndarray, grid_size: Sequence[int] | None = None) -> dict[str, int]:
    """The rectangle of cells to draw: `x_min, x_max, y_min, y_max` (all inclusive), `grid_width, grid_height`.

    positions: (S, 2) int. With `grid_size` (width, height) it is the whole world, so that walls show as unvisited;
    without, the smallest rectangle that holds every position.
    Raises InputError if there are no positions or one lies outside the world.
    """
    positions = _checked_positions(positions)
    if grid_size is None:
        (x_min, y_min), (x_max, y_max) = positions.min(0).tolist(), positions.max(0).tolist()
    else:
        x_min, y_min, x_max, y_max = 0, 0, int(grid_size[0]) - 1, int(grid_size[1]) - 1
    size = {"grid_width": x_max - x_min + 1, "grid_height": y_max - y_min + 1}
    grid_info = {"x_min": x_min, "x_max": x_max, "y_min": y_min, "y_max": y_max, **size}
    _check_inside(positions, grid_info)
    return grid_info


def aggregate_routing_by_position(steps: Steps, filter_fn: StepFilter = None) -> RoutingByPosition:
    """Mean router weights and LPC of each cell that the agent stood on.

    filter_fn: the steps that count, as a mask (S,) bool or a function from the steps to one; None counts all.
    Raises InputError if no steps are left, they have no positions, or a router weight is not finite; ValueError if the
    mask is not (S,) bool.
    """
    positions = _checked_positions(steps.position)
    mask = _step_mask(steps, filter_fn, len(positions))
    positions = positions[mask]
    if not len(positions):
        raise InputError("there are no steps to average: the filter leaves none")

    x_min, y_min = positions.min(0)
    width = positions[:, 0].max() - x_min + 1
    flat = (positions[:, 1] - y_min) * width + (positions[:, 0] - x_min)
    flat, cell, counts = np.unique(flat, return_inverse=True, return_counts=True)  # cell: (S,) index into the C cells
    cells = np.stack([flat % width + x_min, flat // width + y_min], axis=1)

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(cell, weights=values, minlength=len(cells))

    routing = None
    if steps.layer_routing is not None:
        routing = []
        for layer, weights in enumerate(steps.layer_routing):
            weights = np.asarray(weights)[mask]
            if not np.isfinite(weights).all():
                raise InputError(f"layer {layer} has router weights that are not finite: the policy has diverged")
            routing.append(np.stack([total(column) for column in weights.T], axis=1) / counts[:, None])

    lpc = None
    if steps.lpc is not None:
        values = np.asarray(steps.lpc, np.float64)[mask]
        is_known = np.isfinite(values)
        num_known = total(is_known)
        lpc = np.full(len(cells), np.nan)
        np.divide(total(np.where(is_known, values, 0)), num_known, out=lpc, where=num_known > 0)
    return RoutingByPosition(cells, counts, routing, lpc)


PHASES = ("before the key", "carrying the key", "door opened", "key dropped")
_PHASE_EVENTS = ("t_pick", "t_opened", "t_drop")  # each begins the next phase, whichever came before


def key_phases(steps: Steps, episodes: Sequence[Mapping]) -> np.ndarray:
    """The phase of each step (S,) int64, index into PHASES: the furthest whose event has happened.

    For tasks in which a key is fetched, a door unlocked and the key put down, such as UnlockPickup.
    episodes: with `t_pick`, `t_opened`, `t_drop`, actions taken when the event was first true, None where it never was.
    Raises InputError if steps or episodes lack what is needed.
    """
    for name in ("episode", "t_step"):
        if getattr(steps, name) is None:
            raise InputError(f"these steps have no {name!r}, which the phases of the task need")
    if not all(event in episode for episode in episodes for event in _PHASE_EVENTS):
        raise InputError("these episodes have no 't_pick', 't_opened' and 't_drop', which the phases of the task need")
    phase, t_step = np.zeros(len(steps.t_step), np.int64), np.asarray(steps.t_step)
    for number, event in enumerate(_PHASE_EVENTS, 1):
        times = np.array([np.inf if episode[event] is None else episode[event] for episode in episodes])
        phase[t_step >= times[steps.episode]] = number
    return phase


def compute_confidence(weight: np.ndarray, num_experts: int) -> np.ndarray:
    """Largest weight of each row, rescaled: 0 where all experts have 1/E, 1 where one has all; always 1 if E is 1."""
    weight = np.asarray(weight, np.float64)
    if num_experts == 1:
        return np.ones_like(weight)
    return np.clip((weight - 1 / num_experts) / (1 - 1 / num_experts), 0, 1)


def _checked_positions(positions: np.ndarray | None) -> np.ndarray:
    """positions (S, 2) as int64, S > 0."""
    if positions is None:
        raise InputError("these steps have no 'position'")
    positions = np.asarray(positions)
    if not len(positions):
        raise InputError("there are no steps: the routing data is empty")
    return positions.astype(np.int64)


def _step_mask(steps: Steps, filter_fn: StepFilter, num_steps: int) -> np.ndarray:
    """(S,) bool."""
    if filter_fn is None:
        return np.ones(num_steps, bool)
    mask = np.asarray(filter_fn(steps) if callable(filter_fn) else filter_fn)
    if mask.dtype != bool or mask.shape != (num_steps,):  # integers would select other steps, without a word
        raise ValueError(f"a filter is a boolean mask ({num_steps},), not {mask.dtype} {mask.shape}")
    return mask


def _check_inside(cells: np.ndarray, grid_info: dict[str, int]) -> None:
    """Raise InputError if one of cells (C, 2) lies outside; an index below 0 would paint the opposite side."""
    low, high = (grid_info["x_min"], grid_info["y_min"]), (grid_info["x_max"], grid_info["y_max"])
    is_outside = ((cells < low) | (cells > high)).any(1)
    if is_outside.any():
        x, y = cells[is_outside][0].tolist()
        raise InputError(
            f"a step at x {x}, y {y} is outside the grid of x {low[0]} to {high[0]}, y {low[1]} to {high[1]}"
        )


def _layer_weights(averaged: RoutingByPosition, layer: int) -> np.ndarray:
    """Mean weights (C, E) of one layer."""
    if averaged.routing is None:
        raise InputError("these steps have no 'layer_routing'")
    num_layers = len(averaged.routing)
    if not 0 <= layer < num_layers:
        raise InputError(f"there is no layer {layer}: the policy has {_counted(num_layers, 'layer')}, counted from 0")
    weights = averaged.routing[layer]
    if weights.shape[1] > len(EXPERT_CMAPS):
        raise InputError(
            f"layer {layer} has {weights.shape[1]} experts, and EXPERT_CMAPS has colours for {len(EXPERT_CMAPS)}"
        )
    return weights


# --- drawing into axes ----------------------------------------------------------------------------------------------

_MAX_TICKS = 12  # along one side of a grid


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
        f"expert {index}, mean weight {value:.2f}, {_counted(count, 'step')}"
        for index, value, count in zip(expert, weight, averaged.counts, strict=True)
    ]
    return _draw_cells(ax, averaged.cells, colors, texts, grid_info)


LPC_CMAP = "viridis"


def render_lpc_heatmap(
    ax: Axes, averaged: RoutingByPosition, grid_info: dict[str, int], low: float, high: float
) -> AxesImage:
    """Draw the mean LPC of each cell, on a colour scale from low to high; a cell without any known LPC is unvisited.

    Raises InputError if the steps have no LPC or a cell is off the grid.
    """
    if averaged.lpc is None:
        raise InputError("these steps have no 'lpc'")
    is_known = np.isfinite(averaged.lpc)
    lpc, counts = averaged.lpc[is_known], averaged.counts[is_known]
    colors = colormaps[LPC_CMAP](Normalize(low, high)(lpc))
    texts = [f"mean LPC {value:.0f}, {_counted(count, 'step')}" for value, count in zip(lpc, counts, strict=True)]
    return _draw_cells(ax, averaged.cells[is_known], colors, texts, grid_info)


def _draw_cells(
    ax: Axes, cells: np.ndarray, colors: np.ndarray, texts: Sequence[str], grid_info: dict[str, int]
) -> AxesImage:
    """Paint cells (C, 2) with colors (C, 4) on a grid whose other cells are unvisited; texts: shown under the mouse."""
    _check_inside(cells, grid_info)
    x_min, x_max, y_min, y_max = (grid_info[name] for name in ("x_min", "x_max", "y_min", "y_max"))
    rgba = np.empty((y_max - y_min + 1, x_max - x_min + 1, 4))
    rgba[:] = to_rgba(UNVISITED_COLOR)
    rgba[cells[:, 1] - y_min, cells[:, 0] - x_min] = colors
    extent = (x_min - 0.5, x_max + 0.5, y_max + 0.5, y_min - 0.5)  # upside down: y grows downwards, as in the world
    image = ax.imshow(rgba, extent=extent, interpolation="nearest", aspect="equal")

    ax.set_xticks(_integer_ticks(x_min, x_max))
    ax.set_yticks(_integer_ticks(y_min, y_max))
    ax.set_xticks(np.arange(x_min, x_max) + 0.5, minor=True)
    ax.set_yticks(np.arange(y_min, y_max) + 0.5, minor=True)
    ax.grid(which="minor", color=UNVISITED_COLOR, linewidth=0.5)
    ax.tick_params(which="minor", length=0)
    ax.spines[:].set_visible(False)
    ax.set(xlabel="x", ylabel="y")

    text_at = dict(zip(map(tuple, cells.tolist()), texts, strict=True))
    ax.format_coord = lambda x, y: f"x {round(x)}, y {round(y)}: {text_at.get((round(x), round(y)), 'not visited')}"
    image.mouseover = False  # or a viewer adds the cell's RGBA numbers to that text
    return image


def _integer_ticks(low: int, high: int) -> list[int]:
    """Multiples of 1, 2, 5, 10, 20, ... from low to high, at most _MAX_TICKS of them."""
    strides = (factor * 10**power for power in range(10) for factor in (1, 2, 5))
    stride = next(stride for stride in strides if high // stride - (low - 1) // stride <= _MAX_TICKS)
    return list(range(-(-low // stride) * stride, high + 1, stride))


def _render_expert_legend(ax: Axes, names: Sequence[str]) -> None:
    """One strip per expert from low to high confidence, and the colour of unvisited cells below them."""
    num_experts = len(names)
    levels = np.linspace(0, 1, 256)
    strips = [EXPERT_CMAPS[index](levels) for index in range(num_experts)]
    strips.append(np.tile(to_rgba(UNVISITED_COLOR), (len(levels), 1)))
    ax.imshow(np.stack(strips), extent=(0, 1, num_experts + 0.5, -0.5), interpolation="nearest", aspect="auto")
    ax.set_yticks(range(num_experts + 1), [*names, "not visited"])
    ax.set_yticks(np.arange(num_experts) + 0.5, minor=True)
    ax.grid(which="minor", axis="y", color="white", linewidth=5)
    ax.tick_params(axis="y", which="both", length=0)
    if num_experts == 1:
        ax.set_xticks([1], ["1"])
    else:
        ax.set_xticks([0, 1], [f"{1 / num_experts:.2f}", "1"])
    ax.set_title("dominant expert", fontsize="medium")
    ax.set_xlabel("its mean weight")
    ax.spines[:].set_visible(False)


def _render_env_image(ax: Axes, env_image: np.ndarray, mission: str, width_in: float) -> None:
    ax.imshow(env_image)
    ax.set_axis_off()
    ax.set_title(_wrapped(mission, width_in), fontsize="medium")


# --- figures --------------------------------------------------------------------------------------------------------


def plot_routing_heatmap(
    steps: Steps,
    layer: int,
    expert_sizes: Sequence[int] | Sequence[Sequence[int]],
    grid_size: Sequence[int] | None = None,
    title: str = "",
    env_image: np.ndarray | None = None,
    mission: str = "",
) -> Figure:
    """Where which expert of one layer dominates, beside a picture of the world if `env_image` (H, W, 3) uint8 is given.

    expert_sizes: one list for each layer, as a run's `expert_hidden_sizes`, or a flat list for this layer.
    grid_size: (width, height) of the world; without it only the rectangle that was visited is drawn.
    Raises InputError if there are no steps, no such layer, or its number of experts is not that of `expert_sizes`.
    """
    averaged = aggregate_routing_by_position(steps)
    num_experts = _layer_weights(averaged, layer).shape[1]
    names = _expert_names(expert_sizes, layer, num_experts)
    grid_info = compute_grid_bounds(averaged.cells, grid_size)

    num_cells = (grid_info["grid_width"], grid_info["grid_height"])
    map_width, map_height = _panel_size(*num_cells, scale=min(0.6, 5.5 / max(num_cells)))
    widths, height = [map_width, 1.8], max(map_height, 0.9 + 0.45 * num_experts)
    if env_image is not None:
        image_height, image_width = env_image.shape[:2]
        image_width, image_height = _panel_size(image_width, image_height, scale=map_height / image_height)
        widths, height = [image_width, *widths], max(height, image_height)
    labels_width, labels_height = 2.0, 1.25 if title else 0.9  # what the constrained layout takes for all labels
    figure = Figure(figsize=(sum(widths) + labels_width, height + labels_height), layout="constrained")
    *image_axes, map_ax, legend_ax = figure.subplots(1, len(widths), width_ratios=widths, squeeze=False)[0]

    if env_image is not None:
        _render_env_image(image_axes[0], env_image, mission, widths[0])
    render_routing_heatmap(map_ax, averaged, grid_info, layer)
    map_ax.set_title(f"layer {layer}, {_counted(averaged.num_steps, 'step')}", fontsize="medium")
    _render_expert_legend(legend_ax, names)
    legend_ax.set_box_aspect(0.25 * (num_experts + 1))
    if title:
        figure.suptitle(_wrapped(title, sum(widths)), fontsize="large")
    return figure


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
    if any(part.lpc is None or not np.isfinite(part.lpc).any() for part in averaged):
        raise InputError("these steps have no 'lpc'")
    low, high = min(np.nanmin(part.lpc) for part in averaged), max(np.nanmax(part.lpc) for part in averaged)
    high = high if high > low else low + 1.0
    grid_info = compute_grid_bounds(np.concatenate([part.cells for part in averaged]), grid_size)
    width, height = _panel_size(grid_info["grid_width"], grid_info["grid_height"], scale=0.3)
    figure = Figure(
        figsize=(len(present) * (width + 0.4) + 1.0, height + (1.6 if title else 1.2)), layout="constrained"
    )
    axes = figure.subplots(1, len(present), squeeze=False)[0]
    for ax, number, part in zip(axes, present, averaged, strict=True):
        render_lpc_heatmap(ax, part, grid_info, low, high)
        mean = np.nanmean(np.asarray(steps.lpc)[phase == number])
        ax.set_title(f"{PHASES[number]}\nmean {mean:.0f}, {_counted(part.num_steps, 'step')}", fontsize="medium")
    for ax in axes[1:]:
        ax.set_ylabel("")
    figure.colorbar(ScalarMappable(Normalize(low, high), LPC_CMAP), ax=axes, label="mean LPC", shrink=0.9)
    if title:
        figure.suptitle(_wrapped(title, len(present) * width), fontsize="large")
    return figure


def plot_success_against_lpc(table: pd.DataFrame, color_by: str, color_label: str = "") -> Figure:
    """One point for each row: success with its 95 % interval over mean LPC, coloured by the values of a column.

    table: `success_rate`, `success_low`, `success_high` (shares), `mean_lpc`, and the column `color_by`.
    Raises InputError if there is no row or a column is missing.
    """
    missing = {"success_rate", "success_low", "success_high", "mean_lpc", color_by} - set(table.columns)
    if missing or table.empty:
        raise InputError(f"the results table has no {' and no '.join(sorted(missing)) or 'rows'}")
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    ax = figure.subplots()
    values = list(dict.fromkeys(table[color_by]))
    colors = colormaps["cividis"](np.linspace(0, 0.9, len(values))) if len(values) > 6 else list(_HUES.values())
    for value, color, marker in zip(values, colors, itertools.cycle("osD^vPX")):
        rows = table[table[color_by] == value]
        success = 100 * rows["success_rate"].to_numpy(float)
        bounds = 100 * rows[["success_low", "success_high"]].to_numpy(float).T
        style = {"fmt": marker, "color": color, "capsize": 2, "markersize": 6, "linewidth": 1}
        label = f"{value:g}" if isinstance(value, float) else str(value)
        ax.errorbar(rows["mean_lpc"], success, yerr=np.abs(bounds - success), label=label, **style)
    ax.set(xlabel="mean LPC of a step", ylabel="success, %")
    _open_frame(ax)
    ax.legend(title=color_label or color_by, frameon=False, loc="best")
    return figure


def plot_curves_by(curves: pd.DataFrame, panel_by: str, measure: str, title: str = "") -> Figure:
    """A panel for each value of a column, with a line for each seed, over the first value's lines in grey.

    curves: `panel_by`, `seed`, `env_steps` and `measure`, with rows in the order of time. Raises InputError if a column
    is missing, or there is no row.
    """
    missing = {panel_by, "seed", "env_steps", measure} - set(curves.columns)
    if missing or curves.empty:
        raise InputError(f"the learning curves have no {' and no '.join(sorted(missing)) or 'rows'}")
    values = list(dict.fromkeys(curves[panel_by]))
    num_columns = min(4, len(values))
    num_rows = -(-len(values) // num_columns)
    figure = Figure(figsize=(2.6 * num_columns + 0.4, 1.8 * num_rows + 0.7), layout="constrained")
    grid = figure.subplots(num_rows, num_columns, sharex=True, sharey=True, squeeze=False)
    axes = grid.ravel()
    for ax, value in zip(axes, values, strict=False):
        for shown, color, width in ((values[0], "#bbbbbb", 1.0), (value, _HUES["blue"], 1.4)):
            for _, line in curves[curves[panel_by] == shown].groupby("seed"):
                ax.plot(line["env_steps"], line[measure], color=color, linewidth=width)
        ax.set_title(str(value), fontsize="medium", loc="left")
        ax.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 2.5, 5, 10]))
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))
        _open_frame(ax)
    for ax in axes[len(values) :]:
        ax.remove()
    for ax in axes[max(0, len(values) - num_columns) : len(values)]:  # the lowest panel of each column
        ax.tick_params(labelbottom=True)
    figure.supxlabel("environment steps", fontsize="medium")
    figure.supylabel(measure.replace("_", " ").replace("lpc", "LPC"), fontsize="medium")
    if title:
        figure.suptitle(_wrapped(title, 2.6 * num_columns), fontsize="large")
    return figure


_CURVES = {  # title of a panel: the columns of the log that it shows; one that ends in "_" stands for all layers' ones
    "loss": ("loss", "cross_entropy"),
    "accuracy": ("accuracy",),
    "recent success rate": ("success_rate", "bot_share"),
    "path ratio": ("path_ratio",),
    "LPC": ("lpc",),
    "router entropy (nats)": ("router_entropy_",),
    "weight of the skip experts": ("skip_share_",),
    "speed (environment steps per second)": ("steps_per_s",),
}


def plot_training_curve(log: pd.DataFrame, title: str = "") -> Figure:
    """One panel for each measure of a training log, over environment steps; a measure that is not there has no panel.

    Where a value is missing or not finite the line has a gap; a value without neighbours is a dot.
    Raises InputError if the log has no `env_steps`, or nothing to draw over them.
    """
    if "env_steps" not in log:
        raise InputError("the training log has no column 'env_steps'")
    env_steps = _numbers(log["env_steps"])
    panels = []
    for name, columns in _CURVES.items():
        chosen = [c for name in columns for c in log if c == name or (name.endswith("_") and str(c).startswith(name))]
        lines = {column: _numbers(log[column]) for column in chosen}
        lines = {
            column: values for column, values in lines.items() if np.isfinite(values[np.isfinite(env_steps)]).any()
        }
        if lines:
            panels.append((name, lines))
    if not panels:
        raise InputError("the training log has nothing to draw: it is empty, or holds none of the known measures")

    num_columns = min(3, len(panels))
    num_rows = -(-len(panels) // num_columns)
    figure = Figure(figsize=(3.6 * num_columns + 0.4, 2.5 * num_rows + 0.6), layout="constrained")
    axes = figure.subplots(num_rows, num_columns, squeeze=False).ravel()
    for ax, (name, lines) in zip(axes, panels, strict=False):
        _render_curve(ax, env_steps, lines)
        ax.set_title(name, fontsize="medium", loc="left")
        if "success_rate" in lines:
            ax.set_ylim(-0.03, 1.03)  # 0 to 1, and room for a line on either end
    for ax in axes[len(panels) :]:
        ax.remove()
    for ax in axes[max(0, len(panels) - num_columns) : len(panels)]:  # the lowest panel of each column
        ax.set_xlabel("environment steps")
    if title:
        figure.suptitle(_wrapped(title, 3.6 * num_columns), fontsize="large")
    return figure


def _render_curve(ax: Axes, env_steps: np.ndarray, lines: dict[str, np.ndarray]) -> None:
    """lines: column -> values (S,); NaN makes a gap."""
    dashes = itertools.cycle(("solid", "dashed", "dotted"))  # equal curves stay visible
    for (column, values), color, linestyle in zip(lines.items(), itertools.cycle(_HUES.values()), dashes, strict=False):
        is_known = np.isfinite(values) & np.isfinite(env_steps)
        padded = np.pad(is_known, 1)
        is_alone = is_known & ~padded[:-2] & ~padded[2:]  # a line cannot show these
        ax.plot(
            env_steps,
            np.where(is_known, values, np.nan),
            label=re.sub(r".*_(\d+)$", r"layer \1", column).replace("_", " "),
            color=color,
            linestyle=linestyle,
            linewidth=1.5,
            marker="o" if is_alone.any() else "",
            markersize=4,
            markevery=is_alone.tolist(),
        )
    if len(lines) > 1:
        ax.legend(frameon=False, fontsize="small")
    last = np.max(env_steps[np.isfinite(env_steps)])
    ax.set_xlim(0, last * 1.03 if last > 0 else 1)
    ax.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    _open_frame(ax)


def _open_frame(ax: Axes) -> None:
    """A pale grid behind the data, and no frame above and to the right of it."""
    ax.grid(color="#dddddd", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def _numbers(column: pd.Series) -> np.ndarray:
    return column.to_numpy(dtype=np.float64, na_value=np.nan)


def _expert_names(expert_sizes: Sequence, layer: int, num_experts: int) -> list[str]:
    is_flat = all(isinstance(size, Integral) for size in expert_sizes)
    sizes = expert_sizes if is_flat else expert_sizes[layer] if layer < len(expert_sizes) else ()
    if len(sizes) != num_experts:
        raise InputError(f"layer {layer} has {_counted(num_experts, 'expert')}, and {len(sizes)} sizes are given")
    return [f"GRU {size}" if size else "skip (size 0)" for size in sizes]


def _panel_size(width: float, height: float, scale: float) -> tuple[float, float]:
    """Width and height in inches of a panel, none of them too small for its labels."""
    return max(width * scale, 2.5), max(height * scale, 1.2)


def _wrapped(text: str, width_in: float) -> str:
    """Text in lines that fit a width: a letter of the usual size is about 0.09 inches wide."""
    return textwrap.fill(text, max(16, int(width_in / 0.09)))


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
