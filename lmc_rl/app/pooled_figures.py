"""Figures of the page: several runs over each other.

Axis letters: P pairs of children, E episodes, A alphas.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from lmc_rl.analysis.barrier import VERDICTS, Estimate, Profile
from lmc_rl.analysis.figures import GREY, alpha_axis, beside, draw_intervals, fork_axis, lost_axis
from lmc_rl.analysis.results import LineResult, Pooled
from lmc_rl.app import figures as views
from mop.common.errors import InputError
from mop.plotting.hover import add_note
from mop.plotting.panels import make_panels, set_title, steps_axis
from mop.plotting.style import Figure, counted
from mop.statistics.intervals import interval_of_mean


def plot_lost(curves: Sequence[views.Curve], unit: views.Unit, estimate: str = "barrier", title: str = "") -> Figure:
    """B or I against the fork point with 95 % intervals, a line for each run or group of runs, on one axis.

    estimate: a key of ESTIMATES. Dotted: the same between independent runs.
    """
    figure, ax = views.one_panel()
    _draw_curves_of_forks(ax, curves, unit, estimate)
    _finish_lost([ax], unit, views.ESTIMATES[estimate] + (f", {unit.name}" if unit.name != "%" else ""))
    return views.with_legend(figure, ax, ", ".join([*filter(None, [title]), unit.about]))


def plot_beside(panels: Mapping[str, tuple[Sequence[views.Curve], views.Unit]], title: str = "") -> Figure:
    """B against the fork point, a panel for each family of runs, all on one scale.

    panels: title -> its curves, and the share of what was learned.
    """
    figure, axes = make_panels(1, len(panels), 5.0, views.HEIGHT_IN, 0.6, sharey=True)
    for ax, (name, (curves, unit)) in zip(axes[0], panels.items(), strict=True):
        _draw_curves_of_forks(ax, curves, unit, "barrier")
        ax.set_title(name, loc="left", fontsize="medium")
        ax.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(0, -0.17))
    _finish_lost(axes[0], views.SHARE, "lost on the line, % of what was learned")
    set_title(figure, title)
    return figure


def _finish_lost(axes: Sequence[Axes], unit: views.Unit, label: str) -> None:
    """Name the axis, on which small losses are seen beside large ones, of the first of some panels that share it."""
    top = 1.05 * max(ax.dataLim.ymax for ax in axes)
    # an interval of two seeds can be many times as long as all that can be lost
    lost_axis(axes[0], min(top, 1.5) if unit.is_share else top, unit.factor == 100)
    axes[0].set_ylabel(label)


def _draw_curves_of_forks(ax: Axes, curves: Sequence[views.Curve], unit: views.Unit, estimate: str) -> None:
    forks = {curve.label: _known(curve, "fork", estimate) for curve in curves}
    if not any(forks.values()):
        raise InputError("no fork point was measured whose children are better than chance: train for longer")
    if unit.is_share:
        tolerance = next(point for curve in curves for point in curve.points).profiles[0].tolerance
        ax.axhline(tolerance, color=GREY, linestyle="dashed", linewidth=1, label="tolerance")
    shifts = np.linspace(-0.015, 0.015, len(curves)) if len(curves) > 1 else np.zeros(1)
    for curve, shift in zip(curves, shifts, strict=True):
        points = forks[curve.label]
        found = [getattr(point, estimate) for point in points]
        places = beside(np.array([point.first.fraction for point in points], float), shift)
        style: dict[str, Any] = {
            "color": curve.hue,
            "marker": curve.marker,
            "markersize": 5,
            "linewidth": 1.4,
            "label": curve.label + _left_out(curve, len(points)),
        }
        draw_intervals(ax, places, found, **style)
        for place, point, one in zip(places.tolist(), points, found, strict=True):
            _note_lost(ax, curve, point, one, views.lost_text(views.ESTIMATES[estimate], one, unit), place)
    _draw_independent(ax, curves, unit, estimate)
    fork_axis(ax)


def _left_out(curve: views.Curve, num_shown: int) -> str:
    """Why a curve has less points than forks; "" where it has all."""
    num_forks = len({point.first.fraction for point in curve.points if point.first.kind == "fork"})
    return f"; {num_shown} of {num_forks} forks learned" if num_shown < num_forks else ""


def _known(curve: views.Curve, kind: str, estimate: str) -> list[Pooled]:
    of_kind = [point for point in curve.points if point.first.kind == kind]
    return [point for point in of_kind if np.isfinite(getattr(point, estimate).value)]


def _note_lost(ax: Axes, curve: views.Curve, point: Pooled, found: Estimate, lost: str, place: float) -> None:
    verdicts = [point.verdict] if point.verdict in VERDICTS else []
    about = ", ".join([lost, *verdicts, counted(len(point.lines), "parent")])
    values = {"line": curve.label, "kind": "fork", "fraction": point.first.fraction, "value": found.value}
    values |= {"low": found.low, "high": found.high, "verdict": point.verdict, "parents": len(point.lines)}
    values |= {"run": curve.run, "fork": point.first.fork} if curve.run else {}
    text = f"{curve.label}, forked at {point.first.fraction:.0%}: {about}{views.CLICK if curve.run else ''}"
    add_note(ax, place, place, found.value, found.value, text, **values)


def _draw_independent(ax: Axes, curves: Sequence[views.Curve], unit: views.Unit, estimate: str) -> None:
    """What is lost between independent runs, a dotted line in the hue of each, and one name for all."""
    known = [(curve, point) for curve in curves for point in _known(curve, "independent", estimate)]
    for curve, point in known:
        found = getattr(point, estimate)
        ax.axhline(found.value, color=curve.hue, linestyle="dotted", linewidth=1)
        text = f"{curve.label}: {views.lost_text(views.ESTIMATES[estimate], found, unit)} between independent runs"
        values = {"line": curve.label, "kind": "independent", "value": found.value}
        add_note(ax, 0.97, 1.0, found.value, found.value, text, **values)
    if known:
        ax.plot([], [], color=GREY, linestyle="dotted", linewidth=1, label="between independent runs")


def plot_paths(curves: Sequence[views.Curve], like: LineResult, title: str = "", what: str = "return") -> Figure:
    """A measure along the path of one fork point or control, as a share of what was learned.

    A line for each run or group; 0 is the policy that acts at random, 1 the mean of the ends. Bands: 95 %, over parents
    where there are several, else over episodes. like: a line of that fork point or control.
    """
    figure, ax = views.one_panel()
    shown = 0
    for curve in curves:
        point = next((point for point in curve.points if _place(point.first) == _place(like)), None)
        profiles = [profile for profile in (point.profiles if point else ()) if profile.scale > 0]
        if not profiles:
            continue
        shown += 1
        for a, m, low, high in _draw_band(ax, curve, profiles[0].alphas, *_pooled_path(profiles)):
            text = f"{curve.label}, alpha {a:.2f}: {m:.0%} (95 %: {low:.0%} to {high:.0%}) of what was learned"
            values = {"line": curve.label, "alpha": a, "share": m, "low": low, "high": high}
            add_note(ax, a, a, m, m, text, **values, parents=len(profiles))
    if not shown:
        raise InputError("none of these runs has this path, with ends that are better than chance")
    ax.axhline(0, color="#aaaaaa", linestyle="dotted", linewidth=1, label="random policy")
    alpha_axis(ax, "between the ends")
    ax.yaxis.set_major_formatter(PercentFormatter(1, 0))
    ax.set_ylabel(f"{what}, % of what was learned")
    return views.with_legend(figure, ax, title)


def _draw_band(
    ax: Axes, curve: views.Curve, x: np.ndarray, mean: np.ndarray, half: np.ndarray
) -> Iterator[tuple[float, ...]]:
    """The line of a curve with its band; x, mean, low and high of each point."""
    ax.plot(x, mean, color=curve.hue, marker=curve.marker, markersize=3, label=curve.label)
    ax.fill_between(x, mean - half, mean + half, color=curve.hue, alpha=0.15, linewidth=0)
    return zip(*(values.tolist() for values in (x, mean, mean - half, mean + half)), strict=True)


def _place(line: LineResult) -> tuple[str, float]:
    """What lines of one fork point or control have in common, over runs of different lengths."""
    return line.kind, round(line.fraction or 0.0, 9)


def _pooled_path(profiles: Sequence[Profile]) -> tuple[np.ndarray, np.ndarray]:
    """Mean share (A,) of what was learned, and half of its interval."""
    alike = [profile for profile in profiles if len(profile.alphas) == len(profiles[0].alphas)]
    found = [profile.mean_and_half() for profile in alike]
    shares = np.array([(mean - own.chance) / own.scale for (mean, _), own in zip(found, alike, strict=True)])
    return interval_of_mean(shares) if len(shares) > 1 else (shares[0], found[0][1] / alike[0].scale)


def plot_curves(curves: Sequence[views.Curve], column: str = "eval_return", title: str = "") -> Figure:
    """A column of the logs of the runs over environment steps; of several seeds, the mean and a 95 % band."""
    figure, ax = views.one_panel()
    called = {"eval_return": "return of evaluations"}.get(column, column.replace("_", " "))
    for curve in curves:
        logs = [log for log in curve.logs if column in log and np.isfinite(log[column]).any()]
        if not logs:
            continue
        steps, values = _common_steps(logs, column)
        mean, half = interval_of_mean(values) if len(logs) > 1 else (values[0], np.zeros(len(steps)))
        for x, m, low, high in _draw_band(ax, curve, steps, mean, half):
            spread = f" (95 %: {_short(low)} to {_short(high)})" if len(logs) > 1 else ""
            text = f"{curve.label}, step {x:,.0f}: {called} {_short(m)}{spread}"
            numbers = {"env_steps": int(x), column: m}
            numbers |= {"low": low, "high": high} if len(logs) > 1 else {}
            add_note(ax, x, x, m, m, text, line=curve.label, **numbers, parents=len(logs))
    if not ax.lines:
        raise InputError(f"none of these runs has the {called} in its training log; of run_env, set --eval_freq")
    steps_axis(ax)
    ax.set_ylabel(called)
    return views.with_legend(figure, ax, title)


def _short(number: float) -> str:
    """With one decimal, or three digits of a small one."""
    return f"{number:,.1f}" if abs(number) >= 10 else f"{number:.3g}"


def _common_steps(logs: Sequence[views.Log], column: str) -> tuple[np.ndarray, np.ndarray]:
    """The steps (S,) at which all of them have the column, and its values (parents, S)."""
    found = [{s: v for s, v in zip(log["env_steps"], log[column], strict=True) if np.isfinite(v)} for log in logs]
    steps = sorted(set.intersection(*map(set, found)))
    return np.array(steps), np.array([[of_one[step] for step in steps] for of_one in found])
