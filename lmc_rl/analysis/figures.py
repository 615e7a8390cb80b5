"""Figures of learning curves, of measures along lines, and of what is lost on them against the fork point."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from mop.plotting.hover import add_note
from mop.plotting.panels import explain, legend_below, log_ticks, make_panels, set_title, steps_axis, wrap_panels
from mop.plotting.style import HUES, Figure, counted, open_frame, plain_number, wrapped

if TYPE_CHECKING:
    import pandas as pd

    from lmc_rl.analysis.barrier import Estimate
    from lmc_rl.analysis.results import LineResult, Pooled

GREY, LIGHT_GREY = "#888888", "#bbbbbb"
_MAX_COLUMNS = 3
_WIDTH = 3.9  # of a panel, in inches
_FRACTIONS = colormaps["viridis"]
_LAYERS = colormaps["plasma"]
_EARLY, _LITTLE = 0.02, 0.02  # up to these shares, axes of fork points and of losses are about linear
_PART_HUES = {"all": "black", "all, aligned": GREY}
_PART_HUES |= {"routers": HUES["orange"], "experts": HUES["blue"], "ends": HUES["green"]}
MEASURE_NAMES = {"cross_entropy": "cross-entropy, nats", "lpc": "mean LPC"}


# --- training ---------------------------------------------------------------------------------------------------------


def plot_learning_curves(tables: "Mapping[str, pd.DataFrame]", title: str = "") -> Figure:
    """Return over environment steps, a panel for each run: evaluations, and episodes of training behind them.

    tables: label -> rows of the log of an RL run.
    """
    figure, axes = _panels(len(tables))
    for ax, (label, table) in zip(axes, tables.items(), strict=True):
        ax.plot(table["env_steps"], table["recent_return"], color=LIGHT_GREY, label="training, last 20 episodes")
        ax.plot(table["env_steps"], table["eval_return"], color=HUES["blue"], label="evaluation")
        for row in table[table["eval_return"].notna()].to_dict("records"):
            x, y = row["env_steps"], row["eval_return"]
            add_note(ax, x, x, y, y, f"step {x:,.0f}: return {y:.1f}", env_steps=x, eval_return=y)
        steps_axis(ax)
        _name(ax, label)
    axes[0].set_ylabel("return")
    axes[0].legend(frameon=False, fontsize="small")
    return _finished(figure, title)


def plot_wall_clock(tables: "Mapping[str, pd.DataFrame]", title: str = "") -> Figure:
    """Seconds over environment steps, a panel for each run; tables as for `plot_learning_curves`."""
    figure, axes = _panels(len(tables))
    for ax, (label, table) in zip(axes, tables.items(), strict=True):
        ax.plot(table["env_steps"], table["seconds"], color=HUES["blue"])
        last = table.iloc[-1]
        x, y = last["env_steps"], last["seconds"]
        add_note(ax, x, x, y, y, f"{y:.0f} s for {x:,.0f} steps", env_steps=x, seconds=y)
        steps_axis(ax)
        ax.set_ylim(bottom=0)
        _name(ax, f"{label}: {y:.0f} s, {x / max(y, 1e-9):.0f} steps/s")
    axes[0].set_ylabel("seconds")
    return _finished(figure, title)


# --- along lines ------------------------------------------------------------------------------------------------------


def plot_path(lines: "Mapping[str, LineResult]", title: str = "") -> Figure:
    """Return along the line of a fork with 95 % intervals over episodes, a panel for each parent; the chord dashed."""
    figure, axes = _panels(len(lines))
    for ax, (label, line) in zip(axes, lines.items(), strict=True):
        draw_returns(ax, line)
        words = f"{line.main.verdict}, B {line.main.barrier.value:.0f} of {line.main.scale:.0f}"
        _name(ax, f"{label}\n{words}" if label else words)
        alpha_axis(ax)
    axes[0].set_ylabel("return")
    axes[0].legend(frameon=False, fontsize="small")
    return _finished(figure, title)


def draw_returns(ax: Axes, line: "LineResult") -> None:
    """Mean return along a line with its 95 % interval over episodes; the chord dashed, the random policy dotted."""
    means, halves = line.main.mean_and_half()
    chord = chord_of(means, line.alphas)
    ax.axhline(line.main.chance, color=LIGHT_GREY, linewidth=1, linestyle="dotted", label="random policy")
    ax.plot(line.alphas, chord, color=GREY, linestyle="dashed", linewidth=1.2, label="chord")
    label = "mean return, 95 % over episodes"
    ax.errorbar(line.alphas, means, halves, color=HUES["blue"], elinewidth=0.9, label=label)
    for a, mean, half, on_chord in zip(*(x.tolist() for x in (line.alphas, means, halves, chord)), strict=True):
        text = f"alpha {a:.2f}: mean return {mean:,.1f} ± {half:,.1f}, {on_chord - mean:,.1f} below the chord"
        numbers = {"mean_return": mean, "low": mean - half, "high": mean + half, "chord": on_chord}
        add_note(ax, a, a, mean, mean, text, alpha=a, **numbers)


def plot_all_lines(runs: "Mapping[str, Sequence[LineResult]]", title: str = "") -> Figure:
    """The measures that have a barrier along the lines of all forks of a run, coloured by the fork point.

    A panel for each run and measure.
    """
    panels = [(label, name, lines) for label, lines in runs.items() for name in lines[0].profiles]
    figure, axes = _panels(len(panels), 2.7 if panels[0][1] == "return" else 2.9)
    for ax, (label, name, lines) in zip(axes, panels, strict=True):
        for line in lines:
            if name in line.profiles:
                style = {"color": "black", "linestyle": "dashed" if line.kind == "self" else "dotted"}
                if line.kind == "fork":
                    style = {"color": _FRACTIONS(0.95 * (line.fraction or 0.0))}
                draw_curve(ax, line.alphas, mean_of(line, name), line.where, name.replace("_", " "), **style)
        if name == "return":
            ax.axhline(lines[0].main.chance, color=LIGHT_GREY, linewidth=1, linestyle="dotted")
        else:
            label = MEASURE_NAMES.get(name, name) + (f", {label}" if len(runs) > 1 else "")
        _name(ax, label)
        alpha_axis(ax)
    if panels[0][1] == "return":
        axes[0].set_ylabel("return")
    handles, labels = max((ax.get_legend_handles_labels() for ax in axes), key=lambda pair: len(pair[1]))
    return _with_legend_beside(figure, title, "forked at", handles, labels)


def plot_lines(lines: "Sequence[LineResult]", title: str = "") -> Figure:
    """Every measure of imitation runs along the lines of one fork or control: a curve for each part that moves.

    The routing is shown for all weights. A single line has chords, 95 % intervals over trajectories and worlds, and its
    own routing.
    """
    shown = next((line for line in lines if line.name == "all"), lines[0])
    routing = [name for name, values in shown.means.items() if values.ndim == 3]
    known = dict.fromkeys(name for line in lines for name in (*line.profiles, *line.means))
    order = [name for name in ("cross_entropy", "accuracy", "success", "lpc") if name in known]
    measures = order + [name for name in known if name not in {*order, *routing, "path_ratio"}]
    num_panels = len(measures) + len(routing)
    figure, panels, lowest = wrap_panels(num_panels, 3, 3.3, 2.6, 0.6)
    names = [line.name for line in lines]
    for ax, measure in zip(panels, measures, strict=False):
        what = MEASURE_NAMES.get(measure, measure.replace("_", " "))
        for line in lines:
            if measure in line.profiles or measure in line.means:
                style = _part_style(line.name, names)
                draw_curve(ax, line.alphas, mean_of(line, measure), _part_words(line.name), what, **style)
        if len(lines) == 1 and measure != "accuracy":
            _draw_spread(ax, lines[0], measure)
        ax.set_title(what, loc="left", fontsize="medium")
    for ax, measure in zip(panels[len(measures) :], routing, strict=False):
        _draw_routing(ax, shown, measure)
    for ax in lowest:
        ax.set_xlabel("alpha")
    for ax in panels:
        ax.set_xlim(-0.02, 1.02)
        open_frame(ax)
    return _with_legend_beside(figure, title, "what moves", *panels[0].get_legend_handles_labels())


def _draw_spread(ax: Axes, line: "LineResult", measure: str) -> None:
    """The chord between the ends and, of what has a barrier, the interval of the mean."""
    y = mean_of(line, measure)
    ax.plot(line.alphas, chord_of(y, line.alphas), color=GREY, linestyle="dashed", linewidth=1)
    if measure in line.profiles:
        _, half = line.profiles[measure].mean_and_half()
        ax.fill_between(line.alphas, y - half, y + half, color=GREY, alpha=0.25, linewidth=0)


def _draw_routing(ax: Axes, line: "LineResult", measure: str) -> None:
    """KL divergence of the routing of each layer from one end."""
    end, num_layers = measure.removeprefix("kl_to_"), line.means[measure].shape[-1]
    for layer in range(num_layers):
        hue = _LAYERS(0.85 * layer / max(1, num_layers - 1))
        values = line.means[measure].mean(0)[:, layer]
        draw_curve(ax, line.alphas, values, f"layer {layer}", f"KL from the {end} end in nats", color=hue)
    ax.set_title(f"KL of routing from the {end} end, nats", loc="left", fontsize="medium")
    ax.legend(frameon=False, fontsize="small")


def mean_of(line: "LineResult", measure: str) -> np.ndarray:
    """A measure (A,) of a line, over pairs and episodes."""
    if measure not in line.profiles:
        return line.means[measure].mean(0)
    gains = line.profiles[measure].gains.mean((0, 1))
    return -gains if measure == "cross_entropy" else gains


def chord_of(values: np.ndarray, alphas: np.ndarray) -> np.ndarray:
    """The straight line between the ends of values (A,)."""
    return (1 - alphas) * values[0] + alphas * values[-1]


# --- against the fork point -------------------------------------------------------------------------------------------


def plot_instability(groups: "Mapping[str, Sequence[Pooled]]", title: str = "") -> Figure:
    """What is lost on the line against the fork point, with 95 % intervals; a panel for each group.

    The chord barrier B and the instability I are shares of (return of the ends - random policy).
    """
    figure, axes = _panels(len(groups), sharey=True)
    for ax, (label, points) in zip(axes, groups.items(), strict=True):
        of_forks = [point for point in points if point.first.kind == "fork"]
        forks = [point for point in of_forks if np.isfinite(point.barrier.value)]
        if len(forks) < len(of_forks):
            missing = f"{len(of_forks) - len(forks)} of {counted(len(of_forks), 'fork point')} not shown:"
            explain(ax, f"{missing}\ntheir children are\nno better than chance")
        ax.axhline(points[0].profiles[0].tolerance, color=GREY, linestyle="dashed", linewidth=1, label="tolerance")
        shown = {"chord barrier B": ("barrier", "blue", "o"), "instability I": ("instability", "orange", "s")}
        for shift, (name, (key, hue, marker)) in zip((-0.006, 0.006), shown.items(), strict=True):

            def text(point, estimate, name=name):
                said = f"forked at {point.first.fraction:.0%}: {name} {estimate.value:.1%} "
                return said + f"({estimate.low:.1%} to {estimate.high:.1%}), {point.verdict}"

            _draw_estimates(ax, forks, key, text, shift, label=name, color=HUES[hue], marker=marker)
        for point in points:
            if point.first.kind == "independent" and np.isfinite(point.barrier.value):
                ax.axhline(point.barrier.value, color="black", linestyle="dotted", linewidth=1, label="B, independent")
        _name(ax, f"{label}, {_parents(points)}")
        ax.yaxis.set_major_formatter(PercentFormatter(1, 0))
        fork_axis(ax)
    axes[0].set_ylabel("lost on the line")
    # last, as it would keep the limits from growing; an interval of two seeds can be longer than all that can be lost
    axes[0].set_ylim(0, min(axes[0].get_ylim()[1], 1.5))
    legend_below(figure, *axes[0].get_legend_handles_labels(), fontsize="small")
    return _finished(figure, title)


def plot_alignment(groups: "Mapping[str, Sequence[Pooled]]", title: str = "") -> Figure:
    """The chord barrier against the fork point with 95 % intervals, of all weights, before and after alignment.

    A row for the cross-entropy in nats and, where played, for success; a column for each group. Dotted: independent
    runs.
    """
    rows = {"cross_entropy": ("barrier of the\ncross-entropy, nats", "nats", 1)}
    if any(point.of("success").is_known for points in groups.values() for point in points):
        rows["success"] = ("barrier of success,\npoints", "points", 100)
    figure, axes = make_panels(len(rows), len(groups), _WIDTH, 2.6, 0.6, sharex=True, sharey="row")
    for row, (measure, (name, unit, factor)) in zip(axes, rows.items(), strict=True):
        for ax, points in zip(row, groups.values(), strict=True):
            own = [point.of(measure) for point in points if point.first.part == "all"]
            _draw_aligned(ax, [point for point in own if point.is_known], unit, factor)
        row[0].set_ylabel(name)
        _room_below_zero(row[0])
    for ax, (label, points) in zip(axes[0], groups.items(), strict=True):
        _name(ax, f"{label}, {_parents(points)}")
    for ax in axes[-1]:
        fork_axis(ax)
    legend_below(figure, *axes[0, 0].get_legend_handles_labels(), fontsize="small")
    return _finished(figure, title)


def _draw_aligned(ax: Axes, points: "Sequence[Pooled]", unit: str, factor: float) -> None:
    """One measure of the barrier at all fork points, to the second end as it is and aligned."""
    styles = {"as they are": ("blue", "o", False), "aligned": ("orange", "s", True)}
    for shift, (name, (hue, marker, is_aligned)) in zip((-0.004, 0.004), styles.items(), strict=True):
        own = [point for point in points if point.first.is_aligned == is_aligned]
        forks = [point for point in own if point.first.kind == "fork"]

        def text(point, estimate, name=name):
            numbers = [factor * number for number in (estimate.value, estimate.low, estimate.high)]
            said = f"forked at {point.first.fraction:.1%}, {name}: "
            return said + "{:.3g} {} ({:.3g} to {:.3g})".format(numbers[0], unit, *numbers[1:])

        style = {"color": HUES[hue], "marker": marker, "label": f"children, {name}"}
        if forks:
            _draw_estimates(ax, forks, "barrier", text, shift, factor, {"aligned": is_aligned}, **style)
        for point in own:
            if point.first.kind == "independent":
                value = factor * point.barrier.value
                ax.axhline(value, color=HUES[hue], linewidth=1, linestyle="dotted", label=f"independent runs, {name}")
    open_frame(ax)


def _draw_estimates(
    ax: Axes,
    points: "Sequence[Pooled]",
    key: str,
    text: "Callable[[Pooled, Estimate], str]",
    shift: float,
    factor: float = 1,
    more: Mapping | None = None,
    **style,
) -> None:
    """Estimates of fork points with their intervals; shift: to the side, so that several can be told apart."""
    estimates = [getattr(point, key) for point in points]
    x = beside(np.array([point.first.fraction for point in points], float), shift)
    draw_intervals(ax, x, estimates, factor, markersize=4, linewidth=1.2, **style)
    for place, point, estimate in zip(x, points, estimates, strict=True):
        value = factor * estimate.value
        name = "success_barrier" if point.measure == "success" else key
        values = {"measure": name, "fraction": point.first.fraction, **(more or {}), "value": value}
        values |= {"low": factor * estimate.low, "high": factor * estimate.high, "parents": len(point.lines)}
        add_note(ax, place, place, value, value, text(point, estimate), **values)


def draw_intervals(ax: Axes, x: np.ndarray, estimates: "Sequence[Estimate]", factor: float = 1, **style) -> None:
    """Estimates as points with bars from `low` to `high`."""
    numbers = factor * np.array([(e.value, e.low, e.high) for e in estimates]).reshape(-1, 3)
    error = np.abs(numbers[:, 1:] - numbers[:, :1]).T
    ax.errorbar(x, numbers[:, 0], error, capsize=2, **style)


def plot_parts(groups: "Mapping[str, Sequence[Pooled]]", title: str = "") -> Figure:
    """How far the cross-entropy rises above that of the first child where one part of the weights moves alone.

    Against the fork point; a panel for each group.
    """
    figure, axes = make_panels(1, len(groups), _WIDTH, 3.0, 0.6, sharey=True)
    for ax, (label, points) in zip(axes[0], groups.items(), strict=True):
        forks = [point for point in points if point.first.kind == "fork" and not point.first.is_aligned]
        names = list(dict.fromkeys(point.first.name for point in forks))
        for name in names:
            own = [point for point in forks if point.first.name == name]
            x, y = [point.first.fraction or 0.0 for point in own], [point.estimate("rise").value for point in own]
            ax.plot(x, y, label=_part_words(name), marker="o", markersize=3, **_part_style(name, names))
            for place, value in zip(x, y, strict=True):
                text = f"{_part_words(name)}, forked at {place:.1%}: rises by {value:.3g} nats"
                add_note(ax, place, place, value, value, text, part=name, fraction=place, value=value)
        _name(ax, label)
        fork_axis(ax)
    axes[0, 0].set_ylabel("rise of the cross-entropy, nats")
    _room_below_zero(axes[0, 0])
    return _with_legend_beside(figure, title, "what moves", *axes[0, 0].get_legend_handles_labels())


# --- helpers ----------------------------------------------------------------------------------------------------------


def draw_curve(ax: Axes, x: np.ndarray, y: np.ndarray, name: str, what: str, **style) -> None:
    """A curve over alpha with a note at each point."""
    ax.plot(x, y, label=name, linewidth=1.4, **style)
    for a, value in zip(x, y, strict=True):
        number = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
        add_note(ax, a, a, value, value, f"{name}, alpha {a:.2f}: {what} {number}", name=name, alpha=a, value=value)


def alpha_axis(ax: Axes, ends: str = "from one child to the other") -> None:
    """Alphas on the x axis; ends: where the line begins and ends."""
    ax.set_xlabel(f"alpha, {ends}")
    ax.set_xlim(-0.02, 1.02)
    open_frame(ax)


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


def _room_below_zero(ax: Axes) -> None:
    """Show markers at 0 whole. Last, as it would keep the limits from growing."""
    top = ax.get_ylim()[1]
    ax.set_ylim(-0.04 * top, top)


def _panels(count: int, height: float = 2.7, **sharing) -> tuple[Figure, list[Axes]]:
    return wrap_panels(count, _MAX_COLUMNS, _WIDTH, height, 0.6, **sharing)[:2]


def _name(ax: Axes, text: str) -> None:
    ax.set_title(wrapped(text, 0.85 * _WIDTH), fontsize="medium", loc="left")


def _parents(points: "Sequence[Pooled]") -> str:
    return counted(max(len(point.lines) for point in points), "parent")


def _finished(figure: Figure, title: str) -> Figure:
    set_title(figure, title)
    return figure


def _with_legend_beside(figure: Figure, title: str, about: str, handles: list, labels: list[str]) -> Figure:
    figure.legend(handles, labels, title=about, loc="outside right upper", frameon=False, fontsize="small")
    return _finished(figure, title)


def _part_words(name: str) -> str:
    return name.replace("_", " ").replace("ends", "input and head")


def _part_style(name: str, names: Sequence[str]) -> dict:
    """Of the curve of a part: layers are dashed, in the colours of the routing's layers."""
    if not name.startswith("layer_"):
        return {"color": _PART_HUES[name], "linestyle": "solid"}
    layers = sorted({other for other in names if other.startswith("layer_")}, key=lambda other: int(other[6:]))
    return {"color": _LAYERS(0.85 * layers.index(name) / max(1, len(layers) - 1)), "linestyle": "dashed"}
