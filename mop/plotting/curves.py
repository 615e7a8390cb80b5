"""Curves: a training log over environment steps, routing over one episode, or over the progress of all."""

import itertools
from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from mop.analysis.routing import mean_weights_by_progress, select_episode
from mop.artifacts.routing_cache import RoutingData
from mop.common.errors import InputError
from mop.plotting.hover import add_note
from mop.plotting.panels import (
    ALL_OF_0_TO_1,
    LINES,
    add_legend,
    draw_means,
    legend_below,
    legend_columns,
    make_panels,
    over_episodes,
    set_title,
    steps_axis,
    wrap_panels,
)
from mop.plotting.style import HUES, Figure, counted, describe, expert_looks, isolated, open_frame, short_name

if TYPE_CHECKING:
    import pandas as pd

_AXES = {"env_steps": "environment steps", "timesteps": "time steps", "update": "update"}  # the first that a log has
_PANEL_IN = 3.6  # width of a panel of a training log
_CLOCKS = ("seconds", "wall_time")
_HELD_OUT = ("val_", "eval_", "student_")  # a column with such a prefix is drawn beside its namesake
_PANELS = {  # title -> columns, one that ends in "_" for those of all layers or tasks; other columns have a panel each
    "loss": ("loss", "cross_entropy"),
    "accuracy": ("accuracy",),
    "recent success rate": ("success_rate", "bot_share"),
    "path ratio": ("path_ratio",),
    "LPC": ("lpc",),
    "router entropy (nats)": ("router_entropy_",),
    "weight of the skip experts": ("skip_share_",),
    "recent success rate by task": ("success_rate_",),
    "cross-entropy by task": ("cross_entropy_",),
    "accuracy by task": ("accuracy_",),
    "LPC by task": ("lpc_",),
    "speed (environment steps per second)": ("steps_per_s",),
    "episodes": ("episodes", "recent_episodes"),
    "failures of the bot": ("bot_plan_failures", "failures_"),
}


def plot_curves_by(curves: "pd.DataFrame", panel_by: str, measure: str, title: str = "") -> Figure:
    """A panel for each value of a column, with a line for each seed; in grey behind them the lines of the first value.

    curves: the columns `panel_by`, `seed`, `env_steps` and `measure`, rows in the order of time.
    """
    check_columns(curves, {panel_by, "seed", "env_steps", measure}, "the learning curves have")
    values = list(dict.fromkeys(curves[panel_by]))
    figure, axes, _ = wrap_panels(len(values), 4, 2.6, 1.8, 0.7, sharex=True, sharey=True)
    for ax, value in zip(axes, values, strict=True):
        for shown, color, width in ((values[0], "#bbbbbb", 1.0), (value, HUES["blue"], 1.4)):
            for _, line in curves[curves[panel_by] == shown].groupby("seed"):
                ax.plot(line["env_steps"], line[measure], color=color, linewidth=width)
        ax.set_title(str(value), fontsize="medium", loc="left")
        steps_axis(ax, "")
    figure.supxlabel("environment steps", fontsize="medium")
    figure.supylabel(measure.replace("_", " ").replace("lpc", "LPC"), fontsize="medium")
    set_title(figure, title)
    return figure


def plot_training_curve(log: "pd.DataFrame", title: str = "", only: Collection[str] = ()) -> Figure:
    """A panel for each measure of a training log of any kind, over the first of _AXES that it has.

    only: the panels of these columns alone. Where a value is missing or not finite the line has a gap; a value without
    neighbours is a dot.
    """
    over = next((name for name in _AXES if name in log), None)
    if over is None:
        raise InputError(f"the training log has no column {' or '.join(_AXES)}")
    x, panels = log[over].to_numpy(np.float64, na_value=np.nan), _panels_of(log, over)
    panels = {name: lines for name, lines in panels.items() if not only or not lines.keys().isdisjoint(only)}
    if not panels:
        raise InputError("the training log has nothing to draw: it is empty, or no column holds a number")

    figure, axes, lowest = wrap_panels(len(panels), 3, _PANEL_IN, 2.5, 0.6)
    for ax, (name, lines) in zip(axes, panels.items(), strict=True):
        _render_curve(ax, x, lines)
        is_by_task = name.endswith("by task")
        rows = _legend_above(ax) if len(lines) > 1 and not is_by_task else 0
        ax.set_title(name, fontsize="medium", loc="left", pad=6 + 14 * rows)
        if name.startswith("recent success rate"):
            ax.set_ylim(ALL_OF_0_TO_1)
    for ax in lowest:
        ax.set_xlabel(_AXES[over])
    if by_task := [ax for ax, name in zip(axes, panels, strict=True) if name.endswith("by task")]:
        handles, labels = by_task[0].get_legend_handles_labels()  # they are the same in all of these panels
        legend_below(figure, handles, labels, loc="outside lower left", fontsize="small")
    set_title(figure, title)
    return figure


def check_columns(table: "pd.DataFrame", needed: set[str], what: str) -> None:
    """Refuse a table that lacks a column, or has no row; what: the begin of the message."""
    missing = needed - set(table.columns)
    if missing or table.empty:
        raise InputError(f"{what} no {' and no '.join(sorted(missing)) or 'rows'}")


def _panels_of(log: "pd.DataFrame", over: str) -> dict[str, dict[str, np.ndarray]]:
    """Title of each panel -> its columns, each with values (S,) that are NaN where a line has a gap."""
    has_place = np.isfinite(log[over].to_numpy(np.float64, na_value=np.nan))
    panels: dict[str, dict[str, np.ndarray]] = {title: {} for title in _PANELS}
    first = [name for names in _PANELS.values() for name in names if name in log]
    for name in dict.fromkeys([*first, *log]):
        if name in (*_AXES, *_CLOCKS) or log[name].dtype.kind not in "iuf":
            continue
        values = log[name].to_numpy(np.float64, na_value=np.nan)
        values = np.where(np.isfinite(values) & has_place, values, np.nan)
        if np.isfinite(values).any():
            panels.setdefault(_panel_of(name, log), {})[name] = values
    return {title: lines for title, lines in panels.items() if lines}


def _panel_of(column: str, log: "pd.DataFrame") -> str:
    """The title of the panel of a column."""
    of_training = next((column.removeprefix(start) for start in _HELD_OUT if column.startswith(start)), column)
    column = of_training if of_training in log else column
    for title, names in _PANELS.items():
        if column in names or any(name.endswith("_") and column.startswith(name) for name in names):
            return title
    return column.replace("_", " ")


def _render_curve(ax: Axes, x: np.ndarray, lines: dict[str, np.ndarray]) -> None:
    """Draw lines, column -> values (S,), over x (S,); NaN makes a gap."""
    dashes = ("solid", "dashed", "dotted")  # equal curves stay visible
    styles = [(color, dashes[(i + turn) % 3]) for turn in range(3) for i, color in enumerate(HUES.values())]
    for (column, values), (color, linestyle) in zip(lines.items(), itertools.cycle(styles), strict=False):
        is_alone = isolated(values)
        ax.plot(
            x,
            values,
            label=_label_of(column),
            color=color,
            linestyle=linestyle,
            linewidth=1.5,
            marker="o" if is_alone.any() else "",
            markersize=4,
            markevery=is_alone.tolist(),
        )
    last = np.nanmax(x)
    ax.set_xlim(0, last * 1.03 if last > 0 else 1)
    steps_axis(ax, "")


def _label_of(column: str) -> str:
    """What a line is called in the legend: its layer, its task, or its column."""
    starts = (name for names in _PANELS.values() for name in names if name.endswith("_"))
    part = next((column.removeprefix(start) for start in starts if column.startswith(start)), column)
    return f"layer {part}" if part.isdecimal() else part.replace("_", " ")


def _legend_above(ax: Axes) -> int:
    """A legend between the axes and their title, where it covers no line; returns its rows."""
    handles, labels = ax.get_legend_handles_labels()
    num_columns = legend_columns(labels, _PANEL_IN - 0.4, 0.06, 0.36)
    more = {"frameon": False, "fontsize": "small", "handlelength": 1.3, "columnspacing": 1.0, "borderaxespad": 0.1}
    ax.legend(handles, labels, loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=num_columns, **more)
    return -(-len(labels) // num_columns)


def plot_episode_routing(routing_data: RoutingData, episode: int) -> Figure:
    """The router weights of each layer over one episode, stacked to 1, with the events of the episode as lines."""
    chosen, context = select_episode(routing_data, episode), routing_data.episodes[episode]
    looks = expert_looks(routing_data.header, chosen.routing)
    figure, axes = make_panels(len(chosen.routing), 1, 7.2, 1.3, extra_height=1.4, sharex=True)
    edges = np.append(chosen.t_step, chosen.t_step[-1] + 1)
    for layer, (ax, weights, (names, hues)) in enumerate(zip(axes[:, 0], chosen.routing, looks, strict=True)):
        held = np.concatenate([weights, weights[-1:]])  # each weight counts until the next step
        ax.stackplot(edges, held.T, step="post", labels=names, colors=hues)
        for (name, time), style in zip(_times(chosen.events).items(), LINES, strict=False):
            ax.axvline(time, color="black", linewidth=1.8, linestyle=style, label=f"{name} (step {time})")
        for left, right, shares in zip(edges[:-1], edges[1:], weights, strict=True):
            text = " · ".join(f"{short_name(name)} {share:.2f}" for name, share in zip(names, shares, strict=True))
            add_note(ax, left, right, 0, 1, f"step {left}, layer {layer}: {text}")
        ax.set(ylabel="weight", ylim=(0, 1), xlim=(edges[0], edges[-1]))
        ax.set_title(f"layer {layer}", fontsize="medium", loc="left")
        ax.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    axes[-1, 0].set_xlabel("step of the episode")
    add_legend(figure, axes[:, 0], looks)
    outcome = "" if "success" not in context else ", success" if context["success"] else ", failure"
    mission = f": {context['mission']}" if "mission" in context else ""
    set_title(figure, f"episode {episode}{mission}, {counted(len(chosen.t_step), 'step')}{outcome}")
    return figure


def plot_routing_over_progress(routing_data: RoutingData, num_bins: int = 20) -> Figure:
    """Mean router weights against progress through the episode; the band is the 95 % interval over episodes."""
    layers, parts = mean_weights_by_progress(routing_data, num_bins), np.arange(num_bins)
    looks, half = expert_looks(routing_data.header, [means.mean for means in layers]), 0.5 / num_bins
    progress = (parts + 0.5) / num_bins
    figure, axes = make_panels(1, len(layers), 3.0, 2.3, extra_height=1.2, sharey=True)
    for layer, (ax, means) in enumerate(zip(axes[0], layers, strict=True)):
        notes = [
            (f"{at - half:.0%} to {at + half:.0%} of the episode", {"layer": layer, "progress": at})
            for at in progress.tolist()
        ]
        draw_means(ax, progress, means, parts, looks[layer], half, notes)
        ax.set(xlim=(0, 1), xlabel="progress through the episode")
        ax.xaxis.set_major_formatter(PercentFormatter(1, 0))
        ax.set_title(f"layer {layer}", fontsize="medium", loc="left")
        open_frame(ax)
    axes[0, 0].set_ylabel("router weight")
    add_legend(figure, axes[0], looks)
    set_title(figure, describe(routing_data.header, routing_data.steps.episode, over_episodes("bands", layers[0])))
    return figure


def _times(events: dict[str, int]) -> dict[str, int]:
    """Events by name in the order of time; those of one moment under one name."""
    moments = {}
    for name, time in sorted(events.items(), key=lambda item: item[1]):
        moments.setdefault(time, []).append(name)
    return {", ".join(names): time for time, names in moments.items()}
