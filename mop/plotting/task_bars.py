"""Tables of results -> figures: the tasks below each other, success against cost.

Near 100 %, success differs where failures do: these are drawn on a log axis, beyond whose end is a place for 0. Where
no episode failed, the line from there to the end of the 95 % interval says how frequent failures may be at most.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from mop.common.errors import InputError
from mop.common.task_mix import task_name
from mop.plotting.curves import check_columns
from mop.plotting.hover import add_note
from mop.plotting.style import HUES, Figure, open_frame, wrapped

if TYPE_CHECKING:
    import pandas as pd

_TO_ZERO = 1.6  # the place of 0 on a log axis is the least number divided by the square of this
_SEEDS_APART = 0.11  # of the seeds of one policy, as a share of a row
POLICIES = {"mop": "mixture", "gru": "GRU baseline"}  # name in the table -> what it is called
_PLACES = (-0.17, 0.17)  # of the two that are compared, in the row of a task; the next line: how their points look
_LOOKS: tuple[dict[str, Any], ...] = (
    {"color": "#222222", "marker": "o"},
    {"color": HUES["vermilion"], "marker": "s", "markerfacecolor": "white"},
)


@dataclass(frozen=True)
class Measure:
    """A column of the results as it is drawn: in which unit, with which interval."""

    label: str  # of the axis
    column: str
    factor: float = 1.0
    low: str | None = None  # columns of the interval
    high: str | None = None
    is_log: bool = False


_SUCCESS = ("success_rate", 100.0, "success_low", "success_high")
MEASURES = {  # what a page calls it
    "failures": Measure("failures, % of the episodes (log axis)", *_SUCCESS, is_log=True),
    "success": Measure("success, % of the episodes", *_SUCCESS),
    "path ratio": Measure("path ratio (steps / the bot's steps, successes only)", "path_ratio"),
    "mean LPC": Measure("mean LPC of a step", "mean_lpc"),
}


@dataclass(frozen=True, eq=False)
class _Points:
    """What is drawn of R rows, (R,) float64 each; without an interval, low and high are the value."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    is_zero: np.ndarray  # (R,) bool: they stand at the place of 0 beyond a log axis


def plot_by_task(
    table: "pd.DataFrame",
    measure: str = "failures",
    title: str = "",
    names: Mapping[str, str] = POLICIES,
    tasks: Sequence[str] | None = None,
) -> Figure:
    """A row for each task with the mixture and the GRU baseline, or two others, below each other.

    table: `task_id`, `success_rate` and the columns of one of MEASURES; `policy` ("mop", "gru"; a mixture where it is
    missing), `trial`, `seed`. Success has its 95 % interval. Of several seeds (or trials) each is drawn, small, and
    their mean. Rows without a value are left out.
    names: of the column `policy`, the two that are compared, and what they are called. tasks: from top to bottom;
    None: those with most failures first.
    """
    what = _measure(measure)
    check_columns(table, {"task_id", "success_rate", *_columns(what)}, "the results table has")
    table = _with_policy(table)[lambda rows: rows[what.column].notna()]
    if table.empty:
        raise InputError(f"no result has a {measure}")
    if tasks is None:
        tasks = table.groupby("task_id")["success_rate"].mean().sort_values(kind="stable").index.tolist()
    figure = Figure(figsize=(7.8, 0.36 * len(tasks) + 1.5), layout="constrained")
    ax, zero = figure.subplots(), _place_of_zero(table, what)
    for row, task_id in enumerate(tasks):
        means = [
            (_draw_seeds(ax, rows, what, row + place, look, zero, name), row + place)
            for (policy, name), place, look in zip(names.items(), _PLACES, _LOOKS, strict=True)
            if not (rows := table[(table["task_id"] == task_id) & (table["policy"] == policy)]).empty
        ]
        if len(means) == 2:
            ax.plot(*zip(*means, strict=True), color="#bbbbbb", linewidth=1, zorder=1)
    ax.set_yticks(range(len(tasks)), [task_name(task_id) for task_id in tasks])
    ax.set_ylim(len(tasks) - 0.45, -0.55)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(what.label)
    if what.is_log:
        _log_axis(ax, "x", _points(table, what, zero), zero)
    open_frame(ax)
    _add_legend(figure, table, names)
    if title:
        figure.suptitle(wrapped(title, 6.5), fontsize="large")
    return figure


def plot_success_against_lpc(
    table: "pd.DataFrame", color_by: str, color_label: str = "", measure: str = "success", title: str = ""
) -> Figure:
    """One point for each row: success with its 95 % interval against mean LPC, coloured by the values of a column.

    table: `success_rate`, `success_low`, `success_high` (shares), `mean_lpc`, and the column `color_by`; where it has
    `policy`, the points of GRU baselines are hollow. measure: "success", or "failures" on a log axis that has few at
    its top.
    """
    what = _measure(measure)
    check_columns(table, {*_columns(what), "mean_lpc", color_by}, "the results table has")
    figure = Figure(figsize=(8.4, 4.6), layout="constrained")
    ax, zero = figure.subplots(), _place_of_zero(table, what)
    values = list(dict.fromkeys(table[color_by]))
    is_gru = _with_policy(table)["policy"].to_numpy() == "gru"
    for value, color, marker in zip(values, itertools.cycle(HUES.values()), itertools.cycle("osD^vPX<>*")):
        style: dict[str, Any] = {"fmt": marker, "color": color, "markersize": 6, "alpha": 0.85}
        label = f"{value:g}" if isinstance(value, float) else str(value)
        for chosen, more in ((~is_gru, {}), (is_gru, {"markerfacecolor": "white"})):
            rows = table[(table[color_by] == value).to_numpy() & chosen]
            if rows.empty:
                continue
            points, lpc = _points(rows, what, zero), rows["mean_lpc"].to_numpy(float)
            yerr = np.abs(np.stack([points.low, points.high]) - points.value)
            ax.errorbar(lpc, points.value, yerr=yerr, label=label, capsize=2, linewidth=1, **style, **more)
            label = "_again"  # one name in the legend
            _add_notes(ax, rows, lpc, points.value)
    if is_gru.any():
        ax.set_title("hollow: GRU baseline", fontsize="medium", loc="left")
    ax.set(xlabel="mean LPC of a step", ylabel=what.label.replace(" of the episodes", ""))
    if what.is_log:
        _log_axis(ax, "y", _points(table, what, zero), zero)
        ax.invert_yaxis()  # better is higher, as on the axis of success
    open_frame(ax)
    figure.legend(title=color_label or color_by, frameon=False, loc="outside right upper")  # where it hides no point
    if title:
        figure.suptitle(wrapped(title, 7.0), fontsize="large")
    return figure


# --- numbers ----------------------------------------------------------------------------------------------------------


def _measure(name: str) -> Measure:
    if name not in MEASURES:
        raise InputError(f"there is no measure {name!r}; choose one of {', '.join(MEASURES)}")
    return MEASURES[name]


def _columns(what: Measure) -> set[str]:
    return {name for name in (what.column, what.low, what.high) if name is not None}


def _with_policy(table: "pd.DataFrame") -> "pd.DataFrame":
    """The table with a policy in each row: older tables are of mixtures and do not say it."""
    return table.assign(policy=table["policy"].fillna("mop") if "policy" in table else "mop")


def _place_of_zero(rows: "pd.DataFrame", what: Measure) -> float:
    """Where 0 stands on a log axis: beyond the least number of the rows that is drawn."""
    points = _points(rows, what, 0.0)
    ends = np.concatenate([points.low, points.value, points.high])
    return float(ends[ends > 0].min(initial=100.0)) / _TO_ZERO**2


def _points(rows: "pd.DataFrame", what: Measure, zero: float) -> _Points:
    """zero: where 0 is drawn."""
    value, low, high = (
        what.factor * rows[name or what.column].to_numpy(float) for name in (what.column, what.low, what.high)
    )
    if not what.is_log:
        return _Points(value, low, high, np.zeros(len(rows), bool))
    value, low, high = 100 - value, 100 - high, 100 - low
    is_zero = value < 1e-9
    return _Points(np.where(is_zero, zero, value), np.where(low < 1e-9, zero, low), high, is_zero)


def _text_of(row: Mapping) -> str:
    """What a row of results is called under the mouse, as far as the table tells."""
    names = [task_name(str(row["task_id"]))] if "task_id" in row else []
    names += [f"of {row['trained_on']}"] if isinstance(row.get("trained_on"), str) else []
    names += [POLICIES[row["policy"]]] if row.get("policy") in POLICIES else []
    numbers = {name: row.get(name) for name in ("lpc_alpha", "trial", "seed", "update")}
    names += [f"{name} {value:g}" for name, value in numbers.items() if value is not None and value == value]
    parts = [f"success {100 * row['success_rate']:.1f} %"]
    if {"success_low", "success_high"} <= row.keys():
        parts[0] += f" ({100 * row['success_low']:.1f} to {100 * row['success_high']:.1f})"
    if row.get("num_episodes") == row.get("num_episodes") and row.get("num_episodes") is not None:
        parts[0] += f" of {int(row['num_episodes']):,} episodes"
    forms = {"path_ratio": "path ratio {:.2f}", "mean_lpc": "mean LPC {:,.0f}", "env_steps": "trained {:,.0f} steps"}
    parts += [form.format(row[name]) for name, form in forms.items() if row.get(name) == row.get(name) is not None]
    return f"{' '.join(names)}: {', '.join(parts)}" if names else ", ".join(parts)


_VALUES = (
    *(
        "task_id",
        "trained_on",
        "policy",
        "trial",
        "seed",
        "update",
        "lpc_alpha",
        "success_rate",
        "success_low",
        "success_high",
    ),
    *("path_ratio", "mean_lpc", "num_episodes", "eval_seed", "env_steps"),
)


def _add_notes(ax: Axes, rows: "pd.DataFrame", x: np.ndarray, y: np.ndarray) -> None:
    """A note at each point (R,), with the numbers of its row."""
    for row, at_x, at_y in zip(rows.to_dict("records"), x, y, strict=True):
        add_note(ax, at_x, at_x, at_y, at_y, _text_of(row), **{name: row[name] for name in _VALUES if name in row})


# --- drawing ----------------------------------------------------------------------------------------------------------


def _draw_seeds(
    ax: Axes, rows: "pd.DataFrame", what: Measure, y: float, look: Mapping, zero: float, name: str
) -> float:
    """Draw the rows of one policy in one task around a height, and return where their mean is."""
    points, is_one = _points(rows, what, zero), len(rows) == 1
    heights = y + _SEEDS_APART * (np.arange(len(rows)) - (len(rows) - 1) / 2) / max(len(rows) - 1, 1)
    faint: dict[str, Any] = {} if is_one else {"alpha": 0.45}
    ax.hlines(heights, points.low, points.high, color=look["color"], linewidth=1.2, **faint)
    ax.plot(points.value, heights, linestyle="none", markersize=7 if is_one else 3.5, **look, **faint)
    _add_notes(ax, rows, points.value, heights)
    if is_one:
        return float(points.value[0])
    mean = float(np.mean(np.where(points.is_zero, 0, points.value)))
    at = zero if what.is_log and mean == 0 else mean
    policy, count, task_id = rows["policy"].iloc[0], len(rows), rows["task_id"].iloc[0]
    text = f"{task_name(task_id)} {name}: mean of {count} runs {mean:.4g}, {what.label}"
    ax.plot(at, y, linestyle="none", markersize=7, **look)
    add_note(ax, at, at, y, y, text, task_id=task_id, policy=policy, mean=mean, runs=count)
    return at


def _log_axis(ax: Axes, axis: str, points: _Points, zero: float) -> None:
    """A log axis in percent, labelled at 1, 2 and 5 times powers of ten; beyond it the place of 0, if it is used."""
    has_zero = bool(points.is_zero.any())
    high = min(float(points.high.max(initial=0)) * 1.25, 110.0)
    low = zero / 1.3 if has_zero else zero * _TO_ZERO
    getattr(ax, f"set_{axis}scale")("log")
    getattr(ax, f"set_{axis}lim")(low, high)
    decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    ticks = [tick for tick in np.outer(decades, (1, 2, 5)).ravel() if zero * _TO_ZERO <= tick <= high]
    labels = [f"{tick:g}" for tick in ticks]
    if has_zero:
        line = {"x": ax.axvline, "y": ax.axhline}[axis]
        line(zero * _TO_ZERO, color="#888888", linewidth=0.8, linestyle=(0, (2, 3)), zorder=0)  # the axis ends here
        ticks, labels = [zero, *ticks], ["0", *labels]
    its_axis = getattr(ax, f"{axis}axis")
    its_axis.set_ticks(ticks, labels)
    its_axis.set_minor_locator(NullLocator())


def _add_legend(figure: Figure, table: "pd.DataFrame", names: Mapping[str, str]) -> None:
    """What the points are; the small ones only where there are some."""
    looks = zip(names.items(), _LOOKS, strict=True)
    of_policy = [(name, look) for (policy, name), look in looks if (table["policy"] == policy).any()]
    handles = [Line2D([], [], linestyle="none", markersize=7, label=name, **look) for name, look in of_policy]
    if table.groupby(["task_id", "policy"]).size().max() > 1:
        handles.append(Line2D([], [], linestyle="none", marker="o", color="#222222", alpha=0.45, markersize=3.5))
        handles[-1].set_label("one run of several")
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize="medium")
