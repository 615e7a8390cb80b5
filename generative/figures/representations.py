"""Figures of directions of the hidden state: variance, stability, probes, and effects of steering."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from generative.attribution.explanations import short_number
from mop.common.tables import interval_text
from mop.plotting.hover import add_note
from mop.plotting.panels import ALL_OF_0_TO_1, legend_below, make_panels, set_title, wrap_panels
from mop.plotting.style import HUES, open_frame

if TYPE_CHECKING:
    import pandas as pd

_GREY = "#888888"


def plot_probes(table: "pd.DataFrame", title: str = "") -> Figure:
    """Balanced accuracy of probes by block, a panel for each property, with 95 % intervals over episodes.

    table: rows of `generative.representations.tables.probe_rows`.
    """
    names = list(dict.fromkeys(table["property"]))
    num_columns = min(3, len(names))
    figure, axes, _ = wrap_panels(len(names), num_columns, 3.9, 2.5, 0.9, sharey=True)
    kinds = (("accuracy", "whole block", "blue", "o"), ("best_accuracy", "its best direction", "orange", "s"))
    kinds += (("shuffled", "labels of other episodes", None, "x"),)
    for ax, name in zip(axes, names, strict=True):
        rows = table[table["property"] == name]
        ax.axhline(rows["chance"].iloc[0], color=_GREY, linestyle="dashed", linewidth=1, label="chance, or majority")
        for shift, (key, label, hue, marker) in zip((-0.2, 0.2, 0.0), kinds, strict=True):
            values = rows[[key, f"{key}_low", f"{key}_high"]].to_numpy()
            _points(ax, np.arange(len(rows)) + shift, values, HUES.get(hue, _GREY), marker, label)
            for place, (value, low, high), row in zip(range(len(rows)), values, rows.to_dict("records"), strict=True):
                of_what = f"{row['best']}, the best direction" if key == "best_accuracy" else label
                text = f"{name}, {row['block']}: {of_what}: {interval_text(value, low, high)}"
                at = place + shift
                numbers = {"block": row["block"], "measure": label, "value": value, "low": low, "high": high}
                add_note(ax, at, at, value, value, text, **numbers)
        ax.set_title(name, fontsize="medium", loc="left")
        ax.set_ylim(*ALL_OF_0_TO_1)
        _block_axis(ax, rows["block"])
    for ax in axes[::num_columns]:
        ax.set_ylabel("balanced accuracy")
    legend_below(figure, *axes[0].get_legend_handles_labels(), fontsize="small")
    set_title(figure, title)
    return figure


def plot_stability(table: "pd.DataFrame", title: str = "") -> Figure:
    """Above, variance explained in other worlds; below, stability of the directions; a column for a method.

    table: rows of `generative.representations.tables.method_rows`.
    """
    methods = list(dict.fromkeys(table["method"]))
    figure, axes = make_panels(2, len(methods), 2.9, 2.2, 1.1, sharey="row")
    for (above, below), method in zip(axes.T, methods, strict=True):
        rows = table[table["method"] == method]
        places = np.arange(len(rows))
        _points(above, places, rows[["explained", "low", "high"]].to_numpy(), HUES["blue"], "o", None)
        below.plot(places, rows["stability"], "o", color=HUES["blue"], label="mean of the directions")
        below.plot(places, rows["least_stable"], "_", color=HUES["blue"], markersize=9, label="the least stable one")
        below.plot(places, rows["chance"], "x", color=_GREY, label="random directions of the same space")
        for place, row in zip(places, rows.to_dict("records"), strict=True):
            text = f"{method}, {row['block']}: {row['explained']:.1%} explained"
            add_note(above, place, place, row["explained"], row["explained"], text, **row)
            text = f"{method}, {row['block']}: |cosine| {row['stability']:.2f}, by chance {row['chance']:.2f}"
            add_note(below, place, place, row["stability"], row["stability"], text)
        above.set_title(method, fontsize="medium", loc="left")
        for ax in (above, below):
            ax.set_ylim(*ALL_OF_0_TO_1)
            _block_axis(ax, rows["block"])
    axes[0, 0].set_ylabel("variance explained")
    axes[1, 0].set_ylabel("|cosine| with the partner")
    legend_below(figure, *axes[1, 0].get_legend_handles_labels(), fontsize="small")
    set_title(figure, title)
    return figure


def plot_effects(rows: Sequence[Mapping], randoms: Mapping[str, np.ndarray], title: str = "") -> Figure:
    """Effects of a move and of moves along random directions; a panel for each measure.

    rows: of `steering.effect_rows`, those to be shown; randoms: measure -> effects of R random directions (R,).
    """
    figure, axes, _ = wrap_panels(len(rows), 4, 2.9, 1.7, 0.9)
    for ax, row in zip(axes, rows, strict=True):
        values = randoms[row["measure"]]
        jitter = np.random.default_rng(0).uniform(-0.25, 0.25, len(values))  # so that dots do not overlap
        ax.axvline(0, color=_GREY, linewidth=0.8)
        ax.plot(values, jitter, ".", color=_GREY, markersize=4, label="moved as far along random directions")
        x, label = row["difference"], "along this direction, 95 % interval over worlds"
        if np.isfinite(x):
            errors = np.nan_to_num([[x - row["low"]], [row["high"] - x]])
            ax.errorbar(x, 0.6, xerr=errors, fmt="D", color=HUES["vermilion"], markersize=5, capsize=3, label=label)
        difference = interval_text(row["difference"], row["low"], row["high"], "+.3g")
        text = f"{row['measure']}: {difference}, p {row['p']:.2g}"
        add_note(ax, x, x, 0.6, 0.6, text, **row)
        ax.set(ylim=(-0.5, 0.9), yticks=[])
        ax.xaxis.set_major_locator(MaxNLocator(4))
        heading = f"{row['measure']}\n{short_number(row['plain'])} → {short_number(row['moved'])}"
        ax.set_title(heading, fontsize="medium", loc="left")
        open_frame(ax)
    legend_below(figure, *axes[0].get_legend_handles_labels(), fontsize="small")
    set_title(figure, title)
    return figure


def _points(ax: Axes, places: np.ndarray, values: np.ndarray, color: str, marker: str, label: str | None) -> None:
    value, low, high = values.T
    errors = np.nan_to_num(np.abs([value - low, high - value]))
    ax.errorbar(places, value, errors, fmt=marker, color=color, markersize=4, elinewidth=1, label=label)


def _block_axis(ax: Axes, blocks: Sequence[str]) -> None:
    ax.set_xticks(range(len(blocks)), [name.replace("_", " ") for name in blocks], rotation=60, ha="right")
    ax.tick_params(axis="x", labelsize="small")
    ax.set_xlim(-0.5, len(blocks) - 0.5)
    open_frame(ax)
