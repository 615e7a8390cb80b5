"""Figures of several panels, and what their panels share: lines, legends, titles, matrices."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.scale import SymmetricalLogScale
from matplotlib.ticker import EngFormatter, MaxNLocator, NullLocator, PercentFormatter

from mop.common.tables import interval_text
from mop.plotting.hover import add_note
from mop.plotting.style import HUES, Figure, Look, counted, isolated, open_frame, short_name, wrapped
from mop.statistics.bootstrap import Means

LINES = ("solid", "dashed", "dashdot", "dotted", (0, (1, 1)), (0, (5, 1)))  # of the experts, in addition to their hues
_LEAST_WIDTH_IN = 7.5  # of a figure, which is to fill a page though it has a single panel
Words = tuple[str, dict[str, object]]  # of a note: its text, and numbers by name
ALL_OF_0_TO_1 = (-0.03, 1.03)  # limits of an axis with room for a line on either end


def make_panels(
    rows: int, columns: int, width: float, height: float, extra_height: float, **sharing
) -> tuple[Figure, np.ndarray]:
    """A figure and its axes (rows, columns), each of about this size in inches; sharing: `sharex`, `sharey`."""
    figure = Figure(
        figsize=(max(columns * width + 0.6, _LEAST_WIDTH_IN), rows * height + extra_height), layout="constrained"
    )
    return figure, figure.subplots(rows, columns, squeeze=False, **sharing)


def wrap_panels(
    count: int, most_columns: int, width: float, height: float, extra_height: float, **sharing
) -> tuple[Figure, list[Axes], list[Axes]]:
    """The same of so many panels, row by row: the figure, all axes, and the lowest of each column."""
    columns = min(most_columns, count)
    figure, axes = make_panels(-(-count // columns), columns, width, height, extra_height, **sharing)
    shown, lowest = list(axes.ravel()[:count]), list(axes.ravel()[max(0, count - columns) : count])
    for ax in axes.ravel()[count:]:
        ax.remove()
    for ax in lowest:
        ax.tick_params(labelbottom=True)
    return figure, shown, lowest


def add_legend(figure: Figure, axes: Iterable[Axes], looks: Sequence[Look]) -> None:
    """One legend below the panels where all layers have the same experts, else one in each panel."""
    if any(look != looks[0] for look in looks):
        for ax in axes:
            ax.legend(frameon=False, fontsize="small")
        return
    legend_below(figure, *next(iter(axes)).get_legend_handles_labels())


def legend_below(figure: Figure, handles: Sequence, labels: Sequence[str], **style) -> None:
    """A legend below all panels, in as many columns as have room; the figure grows with its lines."""
    ncols = legend_columns(labels, figure.get_figwidth(), 0.07 if style.get("fontsize") == "small" else 0.09, 0.7)
    figure.set_figheight(figure.get_figheight() + 0.2 * (-(-len(labels) // ncols) - 1))
    look: dict[str, Any] = {"loc": "outside lower center", "ncols": ncols, "frameon": False, **style}
    figure.legend(handles, labels, **look)


def legend_columns(labels: Sequence[str], width_in: float, letter_in: float, mark_in: float) -> int:
    """The most columns of a legend, filled one after the other, that fit a width; mark_in: of what is not text."""
    for num_columns in range(len(labels), 1, -1):
        columns = np.array_split([len(label) for label in labels], num_columns)
        if sum(letter_in * column.max() + mark_in for column in columns) < width_in:
            return num_columns
    return 1


def set_title(figure: Figure, title: str) -> None:
    """A title above all panels, in as many lines as it needs; none where it is empty."""
    if title:
        figure.suptitle(wrapped(title, figure.get_figwidth() / 1.2 - 0.3), fontsize="large")


def steps_axis(ax: Axes, label: str = "environment steps") -> None:
    """Environment steps on the x axis, as 50k."""
    ax.set_xlabel(label)
    ax.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    open_frame(ax)


def log_ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers from low to high: as many to a power of ten as there is space for."""
    ticks = []
    for factors in ((1, 2, 5), (1, 3), (1,)):
        ticks = [factor * 10.0**power for power in range(-9, 12) for factor in factors]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= most:
            break
    return ticks[:: -(-len(ticks) // most) or 1]


def log_axis(axis: Axis, values: np.ndarray, least: float, most_ticks: int = 8) -> None:
    """An axis for some values that is logarithmic from `least` on, and reaches down to 0 where a value is smaller."""
    low, high = float(values.min()), 1.25 * max(float(values.max()), least)
    zero = [0.0] if low < least else []
    ticks = zero + log_ticks(max(low / 1.25, least), high, most_ticks)
    if len(ticks) < 2:  # all between two round numbers
        ticks = sorted({float(f"{value:.3g}") for value in (low, float(values.max()))})
    scale, start = SymmetricalLogScale(axis, linthresh=least, linscale=0.4), -0.3 * least if zero else low / 1.25
    name = "x" if axis is axis.axes.xaxis else "y"
    axis.axes.set(**{f"{name}scale": scale, f"{name}lim": (start, high)})
    axis.set_ticks(ticks, [f"{tick:,g}" for tick in ticks])
    axis.set_minor_locator(NullLocator())


def explain(ax: Axes, text: str) -> None:
    """Say in the picture why it is empty, or shows less than one expects."""
    ax.text(0.97, 0.5, text, transform=ax.transAxes, ha="right", va="center", color="#555555", fontsize="small")


def draw_means(
    ax: Axes, x: np.ndarray, means: Means, groups: np.ndarray, look: Look, half: float, about: Iterable[Words]
) -> None:
    """A line for each expert over x (G,): its mean weight in some groups (G,) of the steps, with bands.

    half: of the distance between neighbours; about: each group in words and in numbers.
    """
    names = [short_name(name) for name in look[0]]
    for expert, (name, hue) in enumerate(zip(*look, strict=True)):
        mean, low, high = (part[groups, expert] for part in (means.mean, means.low, means.high))
        ax.fill_between(x, low, high, color=hue, alpha=0.3, linewidth=0)
        dots: dict[str, Any] = {"marker": "o", "markersize": 4, "markevery": isolated(mean).tolist()}
        ax.plot(x, mean, color=hue, linestyle=LINES[expert % len(LINES)], linewidth=1.8, label=name, **dots)
    for at, group, (where, values) in zip(x.tolist(), groups.tolist(), about, strict=True):
        if not means.steps[group]:
            continue
        intervals = {name: means.interval(group, expert) for expert, name in enumerate(names)}
        text = " · ".join(f"{name} {interval_text(*interval, '.2f')}" for name, interval in intervals.items())
        values = values | {"steps": int(means.steps[group]), "episodes": int(means.episodes[group])}
        for name, (mean, low, high) in intervals.items():
            values |= {name: mean, f"{name} low": low, f"{name} high": high}
        add_note(ax, at - half, at + half, 0, 1, f"{where}: {text}, {counts_text(means, group)}", **values)
    ax.set_ylim(ALL_OF_0_TO_1)


def counts_text(means: Means, group: int) -> str:
    """ "9 steps of 7 episodes"."""
    return f"{counted(int(means.steps[group]), 'step')} of {counted(int(means.episodes[group]), 'episode')}"


def over_episodes(mark: str, means: Means) -> str:
    """What a mark of the intervals stands for, for a title: "bands: 95 % over episodes"; "" where there are none."""
    return f"{mark}: 95 % over episodes" if np.isfinite(means.low).any() else ""


def render_bars(
    ax: Axes, means: Means, group: int, names: Sequence[str], largest: float, about: Mapping[str, str], kind: str
) -> None:
    """Horizontal bars of the first shares of a group, with whiskers for their intervals and numbers beside them.

    largest: share of all panels; about, kind: what the numbers say of the group, and what a name is there.
    """
    rows = range(len(names))
    share, low, high = (part[group, : len(names)] for part in (means.mean, means.low, means.high))
    ax.barh(rows, share, color=HUES["blue"])
    ax.errorbar(share, rows, xerr=[share - low, high - share], fmt="none", ecolor="black", elinewidth=1)
    for row, (name, value, end) in enumerate(zip(names, share, np.fmax(share, high), strict=True)):
        ax.text(end, row, f" {value:.1%} ({round(value * means.steps[group]):,})", va="center", fontsize="small")
        text = f"{name}: {interval_text(*means.interval(group, row), '.1%')} of {counts_text(means, group)}"
        numbers = {**about, kind: name} | means.numbers(group, row, "share")
        add_note(ax, 0, largest * 1.6, row - 0.5, row + 0.5, text, **numbers)
    ax.set_yticks(rows, names)
    ax.set(xlim=(0, largest * 1.6), ylim=(len(names) - 0.5, -0.5))
    ticks = MaxNLocator(4).tick_values(0, largest)  # the room beyond is for the numbers beside the bars
    ax.set_xticks([tick for tick in ticks if tick <= min(1.0, largest * 1.2)])
    ax.xaxis.set_major_formatter(PercentFormatter(1, 0))
    open_frame(ax)


def render_matrix(ax: Axes, values: np.ndarray, texts: Sequence[Sequence[str]]) -> AxesImage:
    """Draw values (R, C) from 0 to 1 as colours, a text in each field; those without a value (NaN) are hatched."""
    for row, column in np.argwhere(np.isnan(values)).tolist():
        ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, hatch="////", edgecolor="#bbbbbb"))
    image = ax.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, line in enumerate(texts):
        for column, text in enumerate(line):
            color = "white" if values[row, column] > 0.55 else "black"
            ax.text(column, row, text, ha="center", va="center", fontsize="small", color=color)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return image
