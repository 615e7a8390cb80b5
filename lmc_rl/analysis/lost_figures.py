"""Figures of what is lost on lines, against the fork point."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from lmc_rl.analysis.barrier import VERDICTS
from lmc_rl.analysis.figures import GREY, PANEL_IN, Curve, finish, make_figure, name_panel, style_of_part, words_of_part
from lmc_rl.analysis.results import Pooled
from lmc_rl.analysis.units import CLICK, ESTIMATES, NATS, POINTS, SHARE, Unit, lost_text
from mop.plotting.hover import add_note
from mop.plotting.panels import explain, log_ticks, make_panels, set_title
from mop.plotting.style import HUES, Figure, counted, open_frame, plain_number, wrapped

NONE_LEARNED = "no fork point was measured whose children are better than chance: train for longer"
_FEW_CURVES = 2  # of a panel: with more, the lines of single parents could not be told apart
_EARLY, _LITTLE = 0.02, 0.02  # up to these shares, axes of fork points and of losses are about linear


def plot_instability(groups: Mapping[str, Sequence[Pooled]], title: str = "") -> Figure:
    """B and I of the return as shares of what was learned, a panel for each group."""
    looks = {"barrier": (HUES["blue"], "o"), "instability": (HUES["orange"], "s")}
    panels = [
        (name, [Curve(ESTIMATES[key], *look, points, SHARE, key) for key, look in looks.items()])
        for name, points in _named(groups).items()
    ]
    return plot_lost(panels, title)


def plot_alignment(groups: Mapping[str, Sequence[Pooled]], title: str = "") -> Figure:
    """B of all weights, to the second end as it is and aligned, a panel for each group.

    Of the cross-entropy in nats and, below it where worlds were played, of success.
    """
    is_played = any(point.of("success").is_known for points in groups.values() for point in points)
    panels = [
        (name, _to_both_ends(points, unit))
        for unit in ((NATS, POINTS) if is_played else (NATS,))
        for name, points in _named(groups).items()
    ]
    return plot_lost(panels, title, len(groups))


def _to_both_ends(points: Sequence[Pooled], unit: Unit) -> list[Curve]:
    """A curve of the fork points to the second ends as they are, and one to the aligned ones."""
    measured = [point.of(unit.measure) for point in points if point.first.part == "all"]
    as_it_is, aligned = (
        [point for point in measured if point.is_known and point.first.is_aligned == is_aligned]
        for is_aligned in (False, True)
    )
    return [
        Curve("as they are", HUES["blue"], "o", as_it_is, unit), Curve("aligned", HUES["orange"], "s", aligned, unit)
    ]  # fmt: skip


def _named(groups: Mapping[str, Sequence[Pooled]]) -> dict[str, Sequence[Pooled]]:
    """The groups by the names of their panels."""
    parents = {label: max(len(point.lines) for point in points) for label, points in groups.items()}
    return {f"{label}, {counted(parents[label], 'parent')}": points for label, points in groups.items()}


def plot_lost(panels: Sequence[tuple[str, Sequence[Curve]]], title: str = "", most_columns: int = 3) -> Figure:
    """What is lost on the line against the fork point with 95 % intervals.

    panels: name and curves of each; those of one unit have one scale. Dashed: the tolerance of shares; dotted: what is
    lost between independent runs; thin, of few curves: single parents.
    """
    figure, axes = make_figure(len(panels), most_columns)
    tops: dict[str, float] = {}
    for ax, (name, curves) in zip(axes, panels, strict=True):
        _draw_curves(ax, curves)
        fork_axis(ax)
        name_panel(ax, name)
        unit = curves[0].unit.name
        tops[unit] = max(tops.get(unit, 0), 1.05 * ax.dataLim.ymax)
    for number, (ax, (_, curves)) in enumerate(zip(axes, panels, strict=True)):
        unit = curves[0].unit
        top = tops[unit.name] or 1.0
        # an interval of two seeds can be many times as long as all that can be lost
        lost_axis(ax, min(top, 1.5) if unit.is_share else top, unit.factor == 100)
        if number % most_columns == 0:
            what = {ESTIMATES[curve.estimate] for curve in curves}
            ax.set_ylabel(f"{what.pop() if len(what) == 1 else 'lost on the line'},\n{unit.words}")
    names = [ax.get_legend_handles_labels()[1] for ax in axes]
    if all(of_panel == names[0] for of_panel in names):
        return finish(figure, axes, title)
    num_rows = -(-len(axes) // most_columns)
    figure.set_figheight(figure.get_figheight() + 0.2 * num_rows * max(map(len, names)))
    for ax in axes:
        ax.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(-0.1, 0), borderaxespad=4)
    set_title(figure, title)
    return figure


def _draw_curves(ax: Axes, curves: Sequence[Curve]) -> None:
    if not any(known(curve, "fork") for curve in curves):
        explain(ax, wrapped(NONE_LEARNED, 2.7))
    if curves[0].unit.is_share:
        tolerance = next(point for curve in curves for point in curve.points).profiles[0].tolerance
        ax.axhline(tolerance, color=GREY, linestyle="dashed", linewidth=1, label="tolerance")
    widest = min(0.015, 0.006 * (len(curves) - 1))  # to the side, so that several can be told apart
    for curve, shift in zip(curves, np.linspace(-widest, widest, len(curves)), strict=True):
        points = known(curve, "fork")
        estimates = [getattr(point, curve.estimate) for point in points]
        x = beside(np.array([point.first.fraction for point in points], float), shift)
        numbers = np.array([(e.value, e.low, e.high) for e in estimates]).reshape(-1, 3)
        style: dict[str, Any] = {
            "color": curve.hue,
            "marker": curve.marker,
            "markersize": 5,
            "linewidth": 1.4,
            "capsize": 2,
            "label": curve.label + _left_out(curve, len(points)),
        }
        ax.errorbar(x, numbers[:, 0], np.abs(numbers[:, 1:] - numbers[:, :1]).T, **style)
        for place, point in zip(x.tolist(), points, strict=True):
            _note_lost(ax, curve, point, place)
        if len(curves) <= _FEW_CURVES:
            _draw_parents(ax, curve, points, x)
    _draw_independent(ax, curves)


def _draw_parents(ax: Axes, curve: Curve, points: Sequence[Pooled], x: np.ndarray) -> None:
    """A thin line for each of several parents, over the fork points that all of them have."""
    num_parents = {len(point.lines) for point in points}
    if len(num_parents) != 1 or num_parents == {1}:
        return
    for lines in zip(*(point.lines for point in points), strict=True):
        alone = [Pooled((line,), point.measure, point.is_share) for line, point in zip(lines, points, strict=True)]
        values = [getattr(point, curve.estimate).value for point in alone]
        ax.plot(x, values, color=curve.hue, linewidth=0.7, alpha=0.4, zorder=1)


def _left_out(curve: Curve, num_shown: int) -> str:
    """Why a curve has less points than forks; "" where it has all."""
    num_forks = len({point.first.fraction for point in curve.points if point.first.kind == "fork"})
    return f"; {num_shown} of {num_forks} forks learned" if num_shown < num_forks else ""


def known(curve: Curve, kind: str) -> list[Pooled]:
    """The fork points, or the controls of a kind, of which there is an estimate."""
    of_kind = [point for point in curve.points if point.first.kind == kind]
    return [point for point in of_kind if np.isfinite(getattr(point, curve.estimate).value)]


def _note_lost(ax: Axes, curve: Curve, point: Pooled, place: float) -> None:
    found = getattr(point, curve.estimate)
    verdicts = [point.verdict] if point.verdict in VERDICTS else []
    lost = lost_text(ESTIMATES[curve.estimate], found, curve.unit)
    about = ", ".join([lost, *verdicts, counted(len(point.lines), "parent")])
    values = {"line": curve.label, "kind": "fork", "fraction": point.first.fraction, "measure": point.measure}
    values |= {"value": found.value, "low": found.low, "high": found.high}
    values |= {"verdict": point.verdict, "parents": len(point.lines)}
    values |= {"run": curve.run, "fork": point.first.fork} if curve.run else {}
    text = f"{curve.label}, forked at {point.first.fraction:.0%}: {about}{CLICK if curve.run else ''}"
    add_note(ax, place, place, found.value, found.value, text, **values)


def _draw_independent(ax: Axes, curves: Sequence[Curve]) -> None:
    """What is lost between independent runs, a dotted line in the hue of each, and one name for all."""
    points = [(curve, point) for curve in curves for point in known(curve, "independent")]
    for curve, point in points:
        found = getattr(point, curve.estimate)
        ax.axhline(found.value, color=curve.hue, linestyle="dotted", linewidth=1)
        text = f"{curve.label}: {lost_text(ESTIMATES[curve.estimate], found, curve.unit)} between independent runs"
        values = {"line": curve.label, "kind": "independent", "measure": point.measure, "value": found.value}
        add_note(ax, 0.97, 1.0, found.value, found.value, text, **values)
    if points:
        ax.plot([], [], color=GREY, linestyle="dotted", linewidth=1, label="between independent runs")


def plot_parts(groups: Mapping[str, Sequence[Pooled]], title: str = "") -> Figure:
    """How far the cross-entropy rises above that of the first child where one part of the weights moves alone.

    Against the fork point; a panel for each group.
    """
    figure, axes = make_panels(1, len(groups), PANEL_IN[0], 3.0, 0.6, sharey=True)
    for ax, (label, points) in zip(axes[0], groups.items(), strict=True):
        forks = [point for point in points if point.first.kind == "fork" and not point.first.is_aligned]
        names = list(dict.fromkeys(point.first.name for point in forks))
        for name in names:
            own = [point for point in forks if point.first.name == name]
            x, y = [point.first.fraction or 0.0 for point in own], [point.estimate("rise").value for point in own]
            ax.plot(x, y, label=words_of_part(name), marker="o", markersize=3, **style_of_part(name, names))
            for place, value in zip(x, y, strict=True):
                text = f"{words_of_part(name)}, forked at {place:.1%}: rises by {value:.3g} nats"
                add_note(ax, place, place, value, value, text, part=name, fraction=place, value=value)
        name_panel(ax, label)
        fork_axis(ax)
    axes[0, 0].set_ylabel("rise of the cross-entropy, nats")
    top = axes[0, 0].get_ylim()[1]
    axes[0, 0].set_ylim(-0.04 * top, top)  # shows markers at 0 whole; last, as it keeps the limits from growing
    return finish(figure, axes[0], title, "what moves")


# --- axes -------------------------------------------------------------------------------------------------------------


def fork_axis(ax: Axes) -> None:
    """Fork points on the x axis, on which early ones, where a run commits, have room: the axis is an arcsinh."""
    ax.set_xscale("function", functions=(_room_of_forks, lambda place: _EARLY * np.sinh(place)))
    ax.set_xlim(float(beside(0.0, -0.03)), float(beside(1.0, 0.01)))
    ax.set_xticks([0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8])
    ax.minorticks_off()
    ax.xaxis.set_major_formatter(PercentFormatter(1, 0, symbol=""))
    ax.set_xlabel("fork point, % of training")
    open_frame(ax)


def beside(fraction: float | np.ndarray, shift: float) -> np.ndarray:
    """The place beside fork points on a `fork_axis`; shift: a share of the axis."""
    place = _room_of_forks(np.asarray(fraction, float)) + shift * _room_of_forks(np.ones(()))
    return _EARLY * np.sinh(place)


def _room_of_forks(fraction: np.ndarray) -> np.ndarray:
    return np.arcsinh(fraction / _EARLY)


def lost_axis(ax: Axes, top: float, is_percent: bool = True) -> None:
    """What is lost on the y axis, up to `top`: little losses have room too, as the axis is an arcsinh."""
    little = min(_LITTLE, top / 5)
    ax.set_yscale("function", functions=(lambda lost: np.arcsinh(lost / little), lambda y: little * np.sinh(y)))
    ax.set_ylim(-0.2 * little, top)
    ax.set_yticks([0, *log_ticks(little / 2, top, 7)])
    ax.minorticks_off()
    ax.yaxis.set_major_formatter(PercentFormatter(1) if is_percent else plain_number)
