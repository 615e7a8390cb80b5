"""Figures of training logs: of one run with its forks, of several beside each other or over each other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes

from lmc_rl.analysis.barrier import BARRIER, CONNECTED
from lmc_rl.analysis.figures import GREY, LIGHT_GREY, Curve, Log, draw_band, finish, make_figure, name_panel
from lmc_rl.analysis.results import LineResult
from lmc_rl.analysis.units import CLICK, SHARE, lost_on
from mop.common.errors import InputError
from mop.plotting.hover import add_note
from mop.plotting.panels import steps_axis
from mop.plotting.style import HUES, Figure
from mop.statistics.intervals import interval_of_mean

if TYPE_CHECKING:
    import pandas as pd

VERDICT_HUES = {CONNECTED: HUES["green"], BARRIER: HUES["vermilion"]}  # undecided, or not measured yet: grey
NOT_MEASURED = "not measured yet"
RETURN = "return"  # the curve of evaluations over that of the training episodes
LOSS = "cross_entropy"  # the first curve of an imitation run
_RETURNS = {
    "recent_return": "run, last 20 training episodes",
    "eval_return": "run, evaluations",
}  # column -> name of its line
_STRIP = 0.012  # of the width of the axes, that shows the text of a fork point


@dataclass(frozen=True)
class Mark:
    """A fork point of a run; line: of all weights between its children, None where it was not measured yet."""

    fork: int
    step: int  # of the environment
    fraction: float  # of the training
    line: LineResult | None

    @property
    def verdict(self) -> str:
        """Of its line."""
        return NOT_MEASURED if self.line is None else self.line.main.verdict

    @property
    def text(self) -> str:
        """All of it in a line."""
        found = lost_on(self.line) if self.line else NOT_MEASURED
        return f"fork {self.fork}, at {self.fraction:.0%} (step {self.step:,}): {found}"


def curves_of(log: Log) -> list[str]:
    """What can be drawn of a training log: how good it is, then every other column but counters and clocks."""
    counters = {"update", "env_steps", "gradient_steps", "episodes", "steps_per_s", "seconds", "eval_std"}
    counters |= {"recent_episodes", "student_episodes", "bot_plan_failures"}
    counters |= {name for name in log if name.startswith("failures_")}
    columns = [name for name in log if name not in counters and _has(log, name)]
    first = [name for name in (LOSS, "accuracy", "success_rate") if name in columns]
    others = [name for name in columns if name not in {*first, *_RETURNS}]
    return [RETURN] * any(name in columns for name in _RETURNS) + first + others


def plot_training(
    logs: "Mapping[str, Log | pd.DataFrame]",
    curve: str = RETURN,
    title: str = "",
    marks: Sequence[Mark] = (),
    children: Mapping[str, Log] | None = None,
    chosen: int | None = None,
) -> Figure:
    """A curve of the training over environment steps, a panel for each run.

    marks: fork points, in the colours of their verdicts; children: name -> log of the children of the chosen fork,
    which continue the line.
    """
    figure, axes = make_figure(len(logs))
    for ax, (label, log) in zip(axes, logs.items(), strict=True):
        lines = _RETURNS if curve == RETURN else {curve: "run"}
        columns = [column for column in lines if _has(log, column)]
        for column in columns:
            style = {"color": LIGHT_GREY, "linewidth": 1} if column == "recent_return" else {"color": HUES["blue"]}
            _draw_log(ax, lines[column], [log], column, **style)
        for (name, own), hue in zip((children or {}).items(), cycle(["sky", "purple", "orange", "green"])):
            _draw_log(ax, name, [own], columns[-1], color=HUES[hue], linewidth=1.2)
        _draw_marks(ax, marks, chosen)
        steps_axis(ax)
        name_panel(ax, label)
    axes[0].set_ylabel(curve.replace("_", " "))
    return finish(figure, axes, title)


def _draw_marks(ax: Axes, marks: Sequence[Mark], chosen: int | None) -> None:
    """A line over the whole height for each fork point, with a text, and a name above it."""
    right = max([ax.get_xlim()[1], *(mark.step for mark in marks)])
    ax.set_xlim(0, right)
    limits = ax.get_ylim()
    for mark in marks:
        hue, weight = VERDICT_HUES.get(mark.verdict, GREY), "bold" if mark.fork == chosen else "normal"
        label = f"fork: {mark.verdict}"
        style: dict[str, Any] = {
            "linewidth": 3 if mark.fork == chosen else 1.4,
            "linestyle": "solid" if mark.line else "dotted",
            "zorder": 0,
            "label": label if label not in ax.get_legend_handles_labels()[1] else None,
        }
        ax.axvline(mark.step, color=hue, **style)
        at_top: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "ha": "center"}
        ax.annotate(str(mark.fork), (mark.step, 1), (0, 3), color=hue, weight=weight, fontsize="small", **at_top)
        values = {"fork": mark.fork, "env_steps": mark.step, "fraction": mark.fraction, "verdict": mark.verdict}
        if mark.line is not None:
            barrier = SHARE.of(mark.line.main)
            values |= {"barrier": barrier.value, "low": barrier.low, "high": barrier.high}
        half = _STRIP * right / 2
        text = mark.text + CLICK * (mark.line is not None)
        add_note(ax, mark.step - half, mark.step + half, *limits, text, **values)
    ax.set_ylim(limits)


def plot_curves(curves: Sequence[Curve], column: str = "eval_return", title: str = "") -> Figure:
    """A column of the logs of the runs over environment steps; of several seeds, the mean and a 95 % band."""
    figure, axes = make_figure(1)
    for curve in curves:
        _draw_log(axes[0], curve.label, curve.logs, column, **curve.style)
    if not axes[0].lines:
        raise InputError(
            f"none of these runs has the {_called(column)} in its training log; see --eval_freq of run_env"
        )
    steps_axis(axes[0])
    axes[0].set_ylabel(_called(column))
    return finish(figure, axes, title)


def _called(column: str) -> str:
    return "return of evaluations" if column == "eval_return" else column.replace("_", " ")


def _has(log: "Log | pd.DataFrame", column: str) -> bool:
    return column in log and bool(np.isfinite(log[column]).any())


def _draw_log(ax: Axes, label: str, logs: "Sequence[Log | pd.DataFrame]", column: str, **style) -> None:
    """A column of the logs of some parents, if any has it: of several, the mean and a 95 % band."""
    known = [log for log in logs if _has(log, column)]
    if not known:
        return
    steps, values = _common_steps(known, column)
    mean, half = interval_of_mean(values) if len(known) > 1 else (values[0], np.zeros(len(steps)))
    for x, m, low, high in draw_band(ax, label, steps, mean, half, **style):
        spread = f" (95 %: {_short(low)} to {_short(high)})" if len(known) > 1 else ""
        numbers = {"env_steps": int(x), column: m}
        numbers |= {"low": low, "high": high, "parents": len(known)} if len(known) > 1 else {}
        text = f"{label}, step {x:,.0f}: {_called(column)} {_short(m)}{spread}"
        add_note(ax, x, x, m, m, text, line=label, **numbers)


def _short(number: float) -> str:
    """With one decimal, or four digits of a small one."""
    return f"{number:,.1f}" if abs(number) >= 10 else f"{number:.4g}"


def _common_steps(logs: "Sequence[Log | pd.DataFrame]", column: str) -> tuple[np.ndarray, np.ndarray]:
    """The steps (S,) at which all of them have the column, and its values (parents, S)."""
    found = [{s: v for s, v in zip(log["env_steps"], log[column], strict=True) if np.isfinite(v)} for log in logs]
    steps = sorted(set.intersection(*map(set, found)))
    return np.array(steps), np.array([[of_one[step] for step in steps] for of_one in found])
