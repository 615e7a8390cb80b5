"""Figures of learning curves, of the return along lines, and of what is lost on them against the fork point."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator, PercentFormatter

from mop.plotting.hover import add_note
from mop.plotting.panels import make_panels, remove_empty, set_title
from mop.plotting.style import HUES, counted, open_frame, wrapped

if TYPE_CHECKING:
    import pandas as pd

    from lmc_rl.analysis import PathResult, Pooled

_MAX_COLUMNS = 3
_WIDTH = 3.9  # of a panel, in inches
_FRACTIONS = colormaps["viridis"]


def plot_learning_curves(tables: "Mapping[str, pd.DataFrame]", title: str = "") -> Figure:
    """Return over environment steps, a panel for each run: evaluations, and episodes of training behind them.

    tables: label -> rows of the log of a `Learner`.
    """
    figure, axes = _panels(len(tables))
    for ax, (label, table) in zip(axes, tables.items(), strict=True):
        ax.plot(table["env_steps"], table["recent_return"], color="#bbbbbb", label="training, last 20 episodes")
        ax.plot(table["env_steps"], table["eval_return"], color=HUES["blue"], label="evaluation")
        for row in table[table["eval_return"].notna()].to_dict("records"):
            x, y = row["env_steps"], row["eval_return"]
            add_note(ax, x, x, y, y, f"step {x:,.0f}: return {y:.1f}", env_steps=x, eval_return=y)
        steps_axis(ax)
        _name(ax, label)
        open_frame(ax)
    axes[0].set_ylabel("return")
    axes[0].legend(frameon=False, fontsize="small")
    _finish(figure, title)
    return figure


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
        open_frame(ax)
    axes[0].set_ylabel("seconds")
    _finish(figure, title)
    return figure


def plot_path(results: "Mapping[str, PathResult]", title: str = "") -> Figure:
    """Return along the line of a fork with 95 % intervals over episodes, a panel for each parent; the chord dashed."""
    figure, axes = _panels(len(results))
    for ax, (label, result) in zip(axes, results.items(), strict=True):
        means, errors = mean_and_error(result)
        chord = (1 - result.places) * means[0] + result.places * means[-1]
        ax.axhline(result.random_return, color="#bbbbbb", linewidth=1, linestyle="dotted", label="random policy")
        ax.plot(result.places, chord, color="#888888", linestyle="dashed", linewidth=1, label="chord")
        ax.errorbar(result.places, means, errors, color=HUES["blue"], elinewidth=0.8, label="return")
        for a, mean, error in zip(result.places, means, errors, strict=True):
            text = f"alpha {a:.2f}: return {mean:.1f} ± {error:.1f}"
            add_note(ax, a, a, mean, mean, text, alpha=a, mean_return=mean, low=mean - error, high=mean + error)
        words = f"{result.verdict}, B {result.barrier.value:.0f} of {result.scale:.0f}"
        _name(ax, f"{label}\n{words}" if label else words)
        alpha_axis(ax)
    axes[0].set_ylabel("return")
    axes[0].legend(frameon=False, fontsize="small")
    _finish(figure, title)
    return figure


def plot_all_paths(runs: "Mapping[str, Sequence[PathResult]]", title: str = "") -> Figure:
    """Return along the lines of all forks of a run on one axis, coloured by the fork point; a panel for each run."""
    figure, axes = _panels(len(runs))
    for ax, (label, results) in zip(axes, runs.items(), strict=True):
        for result in results:
            means, _ = mean_and_error(result)
            style = {"color": "black", "linestyle": "dotted"} if result.fraction is None else {}
            style = style or {"color": _FRACTIONS(0.95 * result.fraction)}
            name = result.kind if result.kind != "fork" else f"{result.fraction:.0%}"
            ax.plot(result.places, means, linewidth=1.4, label=name, **style)
            for a, mean in zip(result.places, means, strict=True):
                text = f"fork {name}, alpha {a:.2f}: return {mean:.1f}"
                add_note(ax, a, a, mean, mean, text, fork=name, alpha=a, mean_return=mean)
        ax.axhline(results[0].random_return, color="#bbbbbb", linewidth=1, linestyle="dotted")
        _name(ax, label)
        alpha_axis(ax)
    axes[0].set_ylabel("return")
    handles, labels = max((ax.get_legend_handles_labels() for ax in axes), key=lambda pair: len(pair[1]))
    figure.legend(handles, labels, title="forked at", loc="outside right upper", frameon=False, fontsize="small")
    _finish(figure, title)
    return figure


def plot_instability(groups: "Mapping[str, Sequence[Pooled]]", title: str = "") -> Figure:
    """What is lost on the line against the fork point, with 95 % intervals; a panel for each group.

    The chord barrier B and the instability I are shares of (return of the ends - random policy).
    """
    figure, axes = _panels(len(groups), sharey=True)
    for ax, (label, points) in zip(axes, groups.items(), strict=True):
        forks = [point for point in points if point.kind == "fork" and np.isfinite(point.barrier.value)]
        tolerance = points[0].results[0].tolerance
        ax.axhline(tolerance, color="#888888", linestyle="dashed", linewidth=1, label="tolerance")
        shown = {"chord barrier B": ("barrier", "blue", "o"), "instability I": ("instability", "orange", "s")}
        for shift, (name, (key, hue, marker)) in zip((-0.006, 0.006), shown.items(), strict=True):
            estimates = [getattr(point, key) for point in forks]
            x = np.array([point.fraction for point in forks]) + shift
            y = np.array([estimate.value for estimate in estimates])
            error = np.abs([[e.value - e.low for e in estimates], [e.high - e.value for e in estimates]])
            style = {"color": HUES[hue], "marker": marker, "markersize": 4, "linewidth": 1.2, "capsize": 2}
            ax.errorbar(x, y, error.reshape(2, -1), label=name, **style)
            for place, point, estimate in zip(x, forks, estimates, strict=True):
                text = f"forked at {point.fraction:.0%}: {name} {estimate.value:.1%} "
                text += f"({estimate.low:.1%} to {estimate.high:.1%}), {point.verdict}"
                values = {"measure": key, "fraction": point.fraction, "value": estimate.value}
                values |= {"low": estimate.low, "high": estimate.high, "parents": len(point.results)}
                add_note(ax, place, place, estimate.value, estimate.value, text, **values)
        for point in points:
            if point.kind == "independent" and np.isfinite(point.barrier.value):
                ax.axhline(point.barrier.value, color="black", linestyle="dotted", linewidth=1, label="B, independent")
        parents = max(len(point.results) for point in points)
        _name(ax, f"{label}, {counted(parents, 'parent')}")
        ax.set_xlim(-0.02, 1.0)
        ax.xaxis.set_major_formatter(PercentFormatter(1, 0))
        ax.yaxis.set_major_formatter(PercentFormatter(1, 0))
        ax.set_xlabel("fork point, % of training")
        open_frame(ax)
    axes[0].set_ylabel("lost on the line")
    # last, as it would keep the limits from growing; an interval of two seeds can be longer than all that can be lost
    axes[0].set_ylim(0, min(axes[0].get_ylim()[1], 1.5))
    handles, labels = axes[0].get_legend_handles_labels()
    columns = 2 if len(groups) == 1 else len(labels)
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize="small")
    _finish(figure, title)
    return figure


def mean_and_error(result: "PathResult") -> tuple[np.ndarray, np.ndarray]:
    """Mean return (A,) over pairs and episodes, and half of its 95 % interval over episodes."""
    by_episode = result.returns.mean(axis=0)  # (E, A)
    return by_episode.mean(axis=0), 1.96 * by_episode.std(axis=0, ddof=1) / np.sqrt(len(by_episode))


def _panels(count: int, **sharing) -> tuple[Figure, list[Axes]]:
    columns = min(_MAX_COLUMNS, count)
    rows = -(-count // columns)
    figure, axes = make_panels(rows, columns, _WIDTH, 2.7, 0.6, **sharing)
    remove_empty(axes, count)
    return figure, list(axes.ravel()[:count])


def _name(ax: Axes, text: str) -> None:
    ax.set_title(wrapped(text, 0.85 * _WIDTH), fontsize="medium", loc="left")


def steps_axis(ax: Axes) -> None:
    """Environment steps on the x axis, as 50k."""
    ax.set_xlabel("environment steps")
    ax.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))


def alpha_axis(ax: Axes, ends: str = "from one child to the other") -> None:
    """Places on a line on the x axis; ends: what it leads from and to."""
    ax.set_xlabel(f"alpha, {ends}")
    ax.set_xlim(-0.02, 1.02)
    open_frame(ax)


def _finish(figure: Figure, title: str) -> None:
    if title:
        set_title(figure, title)
