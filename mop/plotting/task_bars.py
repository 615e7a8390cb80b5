"""Tables of results -> figures: the tasks below each other, success against cost.

Near 100 %, success differs where failures do: these are drawn on a log axis, which reaches down to 0. Where no episode
failed, the line from there to the end of the 95 % interval says how frequent failures may be at most.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from mop.common.errors import InputError
from mop.common.task_mix import task_name
from mop.plotting.curves import check_columns
from mop.plotting.hover import add_note
from mop.plotting.panels import legend_below, log_axis, set_title, wrap_panels
from mop.plotting.style import HUES, Figure, open_frame

if TYPE_CHECKING:
    import pandas as pd

_SEEDS_APART = 0.11  # of the seeds of one policy, as a share of a row
POLICIES = {"mop": "mixture", "gru": "GRU baseline"}  # name in the table -> what it is called
_PLACES = (-0.17, 0.17)  # of the two that are compared, in the row of a task; the next line: how their points look
_PANELS_ACROSS, _MOST_VALUES = 6, 10  # of success against cost: more values have a panel each
_LEAST_LPC = 10.0  # of an axis: less is next to the skip alone
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
    "mean LPC": Measure("mean LPC of a step (log axis)", "mean_lpc"),
}


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
    A policy of several tasks (`trained_on`) has a row of its own. names: of the column `policy`, the two that are
    compared, and what they are called. tasks: from top to bottom; None: those with most failures first.
    """
    what = _measure(measure)
    check_columns(table, {"task_id", "success_rate", *_columns(what)}, "the results table has")
    table = _with_policy(table)[lambda rows: rows[what.column].notna()]
    if table.empty:
        raise InputError(f"no result has a {measure}")
    table = table.assign(row=_row_names(table))
    if tasks is None:
        shown = table.groupby("row")["success_rate"].mean().sort_values(kind="stable").index.tolist()
    else:
        shown = [name for task_id in tasks for name in table["row"][table["task_id"] == task_id].unique()]
    figure = Figure(figsize=(7.8, 0.36 * len(shown) + 1.5), layout="constrained")
    ax = figure.subplots()
    for row, called in enumerate(shown):
        means = [
            (_draw_seeds(ax, rows, what, row + place, look, name), row + place)
            for (policy, name), place, look in zip(names.items(), _PLACES, _LOOKS, strict=True)
            if not (rows := table[(table["row"] == called) & (table["policy"] == policy)]).empty
        ]
        if len(means) == 2:
            ax.plot(*zip(*means, strict=True), color="#bbbbbb", linewidth=1, zorder=1)
    ax.set_yticks(range(len(shown)), shown)
    ax.set_ylim(len(shown) - 0.45, -0.55)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(what.label)
    points = _points(table, what)
    if what.is_log:
        log_axis(ax.xaxis, points, _least(points))
    if what.column == "mean_lpc":
        log_axis(ax.xaxis, points, _LEAST_LPC)
    open_frame(ax)
    _add_legend(figure, table, names)
    set_title(figure, title)
    return figure


def plot_success_against_lpc(
    table: "pd.DataFrame", color_by: str, color_label: str = "", measure: str = "success", title: str = ""
) -> Figure:
    """One point for each row: success with its 95 % interval against mean LPC (log axis), by the values of a column.

    table: `success_rate`, `success_low`, `success_high` (shares), `mean_lpc`, and the column `color_by`; where it has
    `policy`, the points of GRU baselines are hollow. A few values have a hue each; more have a panel each. A grey line
    joins the points of a task than which none is both better and cheaper. measure: "success", or "failures" on a log
    axis that has few at its top.
    """
    what = _measure(measure)
    check_columns(table, {*_columns(what), "mean_lpc", color_by}, "the results table has")
    table, values = _with_policy(table), list(dict.fromkeys(table[color_by]))
    panels = [[value] for value in values] if len(values) > _MOST_VALUES else [values]
    is_one, points = len(panels) == 1, _points(table, what)
    size, most_ticks = ((7.8, 4.4, 0.6), 8) if is_one else ((1.6, 1.25, 1.0), 3)
    figure, axes, lowest = wrap_panels(len(panels), _PANELS_ACROSS, *size, sharex=True, sharey=True)
    for ax, of_panel in zip(axes, panels, strict=True):
        _draw_tradeoff(ax, table[table[color_by].isin(of_panel)], color_by, what, is_one)
        log_axis(ax.xaxis, table["mean_lpc"].to_numpy(float), _LEAST_LPC, most_ticks)
        if what.is_log:
            log_axis(ax.yaxis, points, _least(points), most_ticks)
        open_frame(ax)
        if not is_one:
            ax.set_title(_value_name(of_panel[0]), fontsize="small", loc="left", pad=2)
            ax.tick_params(labelsize="x-small")
    if what.is_log:
        axes[0].invert_yaxis()  # of all: better is higher, as on the axis of success
    lowest[-1 - (len(lowest) - 1) // 2].set_xlabel("mean LPC of a step (log axis)")
    figure.supylabel(what.label.replace(" of the episodes", ""), fontsize="medium")
    if is_one and (table["policy"] == "gru").any():
        axes[0].set_title("hollow: GRU baseline", fontsize="medium", loc="left")
    if is_one:
        legend_below(figure, *axes[0].get_legend_handles_labels(), title=color_label or color_by)
    else:
        _add_legend(figure, table, POLICIES, has_means=False)
    set_title(figure, title)
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


def _row_names(table: "pd.DataFrame") -> list[str]:
    """What the row of each result is called: its task, and the list of tasks that its policy was trained on."""
    lists = table["trained_on"] if "trained_on" in table else [None] * len(table)
    names = zip(table["task_id"].map(task_name), lists, strict=True)
    return [f"{task}, by {tasks}" if isinstance(tasks, str) else task for task, tasks in names]


def _value_name(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else task_name(str(value))


def _frontier(cost: np.ndarray, success: np.ndarray) -> np.ndarray:
    """The points (F,) than which none of some (R,) is both better and cheaper, the cheapest first."""
    order = np.lexsort((-success, cost))
    best = np.maximum.accumulate(success[order])
    return order[np.diff(best, prepend=-np.inf) > 0]


def _points(rows: "pd.DataFrame", what: Measure) -> np.ndarray:
    """What is drawn of R rows: value, low and high (3, R); an end that a row lacks is its value."""
    names = (what.column, what.low or what.column, what.high or what.column)
    points = what.factor * np.stack([rows[name].to_numpy(float) for name in names])
    points = np.where(np.isnan(points), points[0], points)
    return np.round(100 - points[[0, 2, 1]], 9) if what.is_log else points


def _least(points: np.ndarray) -> float:
    """The least number above 0, from which on a log axis is logarithmic."""
    return float(points[points > 0].min(initial=100.0))


def _text_of(row: Mapping) -> str:
    """What a row of results is called under the mouse, as far as the table tells."""
    names = [task_name(str(row["task_id"]))] if "task_id" in row else []
    names += [f"of {row['trained_on']}"] if isinstance(row.get("trained_on"), str) else []
    names += [POLICIES[row["policy"]]] if row.get("policy") in POLICIES else []
    numbers = {name: row.get(name) for name in ("lpc_alpha", "trial", "seed", "update")}
    names += [f"{name} {value:g}" for name, value in numbers.items() if value is not None and value == value]
    parts = [f"success {100 * row['success_rate']:.1f} %"]
    low, high = (row.get(name) for name in ("success_low", "success_high"))
    if low == low is not None and high == high is not None:
        parts[0] += f" ({100 * low:.1f} to {100 * high:.1f})"
    if row.get("num_episodes") == row.get("num_episodes") and row.get("num_episodes") is not None:
        parts[0] += f" of {int(row['num_episodes']):,} episodes"
    forms = {"path_ratio": "path ratio {:.2f}", "mean_lpc": "mean LPC {:,.0f}", "env_steps": "trained {:,.0f} steps"}
    parts += [form.format(row[name]) for name, form in forms.items() if row.get(name) == row.get(name) is not None]
    return f"{' '.join(names)}: {', '.join(parts)}" if names else ", ".join(parts)


_VALUES = (
    *("task_id", "trained_on", "policy", "trial", "seed", "update", "lpc_alpha"),
    *("success_rate", "success_low", "success_high", "path_ratio", "mean_lpc"),
    *("num_episodes", "eval_seed", "env_steps"),
)


def _add_notes(ax: Axes, rows: "pd.DataFrame", x: np.ndarray, y: np.ndarray) -> None:
    """A note at each point (R,), with the numbers of its row."""
    for row, at_x, at_y in zip(rows.to_dict("records"), x, y, strict=True):
        add_note(ax, at_x, at_x, at_y, at_y, _text_of(row), **{name: row[name] for name in _VALUES if name in row})


# --- drawing ----------------------------------------------------------------------------------------------------------


def _draw_seeds(ax: Axes, rows: "pd.DataFrame", what: Measure, y: float, look: Mapping, name: str) -> float:
    """Draw the rows of one policy in one task around a height, and return where their mean is."""
    (values, low, high), is_one = _points(rows, what), len(rows) == 1
    heights = y + _SEEDS_APART * (np.arange(len(rows)) - (len(rows) - 1) / 2) / max(len(rows) - 1, 1)
    faint: dict[str, Any] = {} if is_one else {"alpha": 0.45}
    ax.hlines(heights, low, high, color=look["color"], linewidth=1.2, **faint)
    ax.plot(values, heights, linestyle="none", markersize=7 if is_one else 3.5, **look, **faint)
    _add_notes(ax, rows, values, heights)
    mean = float(np.mean(values))
    if is_one:
        return mean
    policy, count, task_id = rows["policy"].iloc[0], len(rows), rows["task_id"].iloc[0]
    text = f"{rows['row'].iloc[0]} {name}: mean of {count} runs {mean:.4g}, {what.label}"
    ax.plot(mean, y, linestyle="none", markersize=7, **look)
    add_note(ax, mean, mean, y, y, text, task_id=task_id, policy=policy, mean=mean, runs=count)
    return mean


def _draw_tradeoff(ax: Axes, table: "pd.DataFrame", color_by: str, what: Measure, is_one: bool) -> None:
    """Draw the points of a panel: each value in its hue where there is one panel, else policies as in all figures."""
    of_value = dict(
        zip(dict.fromkeys(table[color_by]), zip(itertools.cycle(HUES.values()), "osD^vPX<>*"), strict=False)
    )
    of_policy = dict(zip(POLICIES, _LOOKS, strict=True))
    for value, of_one in table.groupby(color_by, sort=False):
        label = _value_name(value)
        for policy, rows in of_one.groupby("policy", sort=False):
            look = of_policy[policy]
            color, marker = of_value[value] if is_one else (look["color"], look["marker"])
            points, lpc = _points(rows, what), rows["mean_lpc"].to_numpy(float)
            yerr = np.abs(points[1:] - points[0])
            style: dict[str, Any] = {"markersize": 6, "capsize": 2} if is_one else {"markersize": 3.5}
            style |= {"fmt": marker, "color": color, "markerfacecolor": "white" if policy == "gru" else color}
            ax.errorbar(lpc, points[0], yerr=yerr, label=label, alpha=0.85, linewidth=1, **style)
            label = "_again"  # one name in the legend
            _add_notes(ax, rows, lpc, points[0])
    tasks = list(table.groupby("task_id")) if "task_id" in table else [("", table)]
    for _, rows in tasks if len(tasks) <= len(HUES) else ():
        lpc, success = rows["mean_lpc"].to_numpy(float), rows["success_rate"].to_numpy(float)
        best = _frontier(lpc, success)
        ax.step(lpc[best], _points(rows.iloc[best], what)[0], where="post", color="#999999", linewidth=1, zorder=1)


def _add_legend(figure: Figure, table: "pd.DataFrame", names: Mapping[str, str], has_means: bool = True) -> None:
    """What the points are; the small ones only where there are some."""
    looks = zip(names.items(), _LOOKS, strict=True)
    of_policy = [(name, look) for (policy, name), look in looks if (table["policy"] == policy).any()]
    handles = [Line2D([], [], linestyle="none", markersize=7, label=name, **look) for name, look in of_policy]
    if has_means and table.groupby(["row", "policy"]).size().max() > 1:
        handles.append(Line2D([], [], linestyle="none", marker="o", color="#222222", alpha=0.45, markersize=3.5))
        handles[-1].set_label("one run of several")
    legend_below(figure, handles, [str(handle.get_label()) for handle in handles])
