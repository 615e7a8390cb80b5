"""Variance explained -> a figure: cell, action, phase and time, alone and together."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from mop.analysis.explained import Explained, compute_layer_costs, explain_variance
from mop.analysis.routing_data import RoutingData
from mop.plotting.hover import add_note
from mop.plotting.panels import make_panels, set_title
from mop.plotting.style import HUES, counted, describe, open_frame, wrapped

_COLORS = (HUES["blue"], HUES["vermilion"], "#333333")  # of one factor, of two, of more


def plot_variance_explained(routing_data: RoutingData) -> Figure:
    """How much of the variance of LPC, and of that of each layer, cell, action, phase and time since start explain.

    A dot for each factor alone, each pair and all together, with its 95 % interval; the best first, by the LPC of all
    layers. `explain_variance` says what is shown and why; what can be negative is drawn from 0 on.
    Raises InputError as `explain_variance` and `compute_layer_costs`.
    """
    costs, values = compute_layer_costs(routing_data)
    explained = explain_variance(routing_data, values)
    kinds = [min(len(found.factors), 3) for found in explained]
    order = sorted(range(len(explained)), key=lambda row: (kinds[row], -explained[row].r2[0]))
    rows = [explained[row] for row in order]
    places = np.arange(len(rows)) + 0.5 * np.cumsum(np.diff([kinds[row] for row in order], prepend=1) > 0)
    figure, axes = make_panels(1, len(costs), 2.4, 0.27 * places[-1], extra_height=1.9, sharey=True)
    for cost, (ax, name) in enumerate(zip(axes[0], costs, strict=True)):
        _render_dots(ax, rows, places, cost)
        ax.set_title(name, fontsize="medium", loc="left")
    names = ["all together" if len(found.factors) > 2 else " × ".join(found.factors) for found in rows]
    axes[0, 0].set_yticks(places, names)
    axes[0, 0].set_ylim(places[-1] + 0.6, -0.6)
    about = "share of the variance explained, each episode predicted from the others"
    figure.supxlabel(wrapped(about, figure.get_figwidth()), fontsize="medium")
    suffix = "lines: 95 % over episodes" if np.isfinite(rows[0].low).all() else ""
    set_title(figure, describe(routing_data.header, routing_data.steps.episode, suffix))
    return figure


def _render_dots(ax: Axes, rows: list[Explained], places: np.ndarray, cost: int) -> None:
    """Draw a dot with its interval for each row, for one of the costs, and note the numbers."""
    for found, place in zip(rows, places, strict=True):
        r2, low, high, in_sample = (float(part[cost]) for part in (found.r2, found.low, found.high, found.in_sample))
        color = _COLORS[min(len(found.factors), 3) - 1]
        ax.plot([max(low, 0), max(high, 0)], [place, place], color=color, linewidth=1.2, marker="|", markersize=7)
        ax.plot(max(r2, 0), place, "o", color=color, markersize=4)
        ax.text(1.04, place, f"{round(r2, 2) + 0.0:.2f}", va="center", fontsize="small")
        names, sizes = " × ".join(found.factors), found.group_steps
        groups = f"{counted(len(sizes), 'group')} of {sizes.min():,} to {sizes.max():,} steps"
        unseen = f", {found.unseen:.1%} of the steps in groups of one episode" if found.unseen else ""
        interval = f" ({low:.3f} to {high:.3f})" if np.isfinite(low) else ""
        text = f"{names}: {r2:.3f}{interval}, {groups}{unseen}; in sample {in_sample:.3f}"
        values = {"factors": names, "r2": r2, "low": low, "high": high, "in_sample": in_sample, "groups": len(sizes)}
        values |= {"smallest": int(sizes.min()), "largest": int(sizes.max()), "unseen": found.unseen}
        add_note(ax, 0, 1.3, place - 0.5, place + 0.5, text, **values)
    ax.set_xlim(-0.03, 1.3)
    ax.set_xticks([0, 0.5, 1])
    ax.xaxis.set_major_formatter(PercentFormatter(1, 0))
    open_frame(ax)
