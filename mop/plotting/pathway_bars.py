"""Pathways -> a figure: how frequent each is, and which follows which."""

import numpy as np
from matplotlib.figure import Figure

from mop.analysis.routing import compute_pathways
from mop.analysis.routing_data import RoutingData, checked_weights
from mop.plotting.hover import add_note
from mop.plotting.panels import counts_text, interval_text, render_bars, render_matrix, set_title, share_ticks
from mop.plotting.style import counted, describe, expert_names, open_frame


def plot_pathways(routing_data: RoutingData, max_pathways: int = 8) -> Figure:
    """The most frequent pathways, with 95 % intervals over episodes, and which follows which in the next step.

    A pathway is named by the sizes of its experts, first layer first. Rows of the right matrix are shares of the steps
    that have a next one; what is missing from 100 % goes to pathways that are not shown.
    Raises InputError as `compute_pathways`.
    """
    pathways = compute_pathways(routing_data)
    means = pathways.shares
    names = expert_names(routing_data.header, checked_weights(routing_data.steps))
    short = [[name.split()[-1] if "skip" not in name else "skip" for name in layer] for layer in names]
    shown = min(max_pathways, len(pathways.counts))
    labels = [
        " › ".join(short[layer][expert] for layer, expert in enumerate(experts)) for experts in pathways.experts[:shown]
    ]
    leaving = pathways.transitions.sum(1)[:shown, None]
    following = np.divide(
        pathways.transitions[:shown, :shown], leaving, out=np.zeros((shown, shown)), where=leaving > 0
    )
    side = max(0.46 * shown, 1.6)
    figure = Figure(figsize=(4.6 + side + 1.6, side + 2.0), layout="constrained")
    bars, matrix = figure.subplots(1, 2, width_ratios=(3.4, side))
    render_bars(bars, means, 0, shown, "#555555")
    largest = np.fmax(means.mean, means.high).max()
    for row, label in enumerate(labels):
        text = f"{label}: {interval_text(means, 0, row, '.1%')} of {counts_text(means, 0)}"
        add_note(bars, 0, largest * 1.6, row - 0.5, row + 0.5, text, pathway=label, **means.numbers(0, row, "share"))
    bars.set_yticks(range(shown), labels)
    bars.set(xlabel="share of the steps", xlim=(0, largest * 1.6), ylim=(shown - 0.5, -0.5))
    share_ticks(bars, largest)
    in_all = means.mean[0, :shown].sum()
    of_all = f"{shown} of {counted(len(pathways.counts), 'pathway')}, {in_all:.1%} of the steps"
    bars.set_title(of_all, fontsize="medium")
    open_frame(bars)
    render_matrix(matrix, following, [[f"{100 * value:.0f}" if value else "" for value in line] for line in following])
    for row, column in np.ndindex(following.shape):
        share, count = float(following[row, column]), int(pathways.transitions[row, column])
        text = f"{labels[row]}, then {labels[column]}: {share:.1%} ({counted(count, 'step')})"
        values = {"from": labels[row], "to": labels[column], "share": share, "steps": count}
        add_note(matrix, column - 0.5, column + 0.5, row - 0.5, row + 0.5, text, **values)
    matrix.set_yticks(range(shown), labels)
    matrix.set_xticks(range(shown), labels, rotation=90)
    matrix.set(ylabel="from", xlabel="to, in the next step")
    matrix.set_title("what follows, %", fontsize="medium")
    set_title(figure, describe(routing_data.header, routing_data.steps.episode))
    return figure
