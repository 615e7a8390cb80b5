"""Pathways -> a figure: how frequent each is, and which follows which."""

import numpy as np
from matplotlib.figure import Figure

from mop.measures.pathways import compute_pathways
from mop.measures.routing_data import RoutingData, checked_weights
from mop.plotting.panels import render_matrix, set_title, share_ticks
from mop.plotting.style import counted, describe, expert_names, open_frame


def plot_pathways(routing_data: RoutingData, max_pathways: int = 8) -> Figure:
    """The most frequent pathways, and which follows which in the next step.

    A pathway is named by the sizes of its experts, first layer first. Rows of the right matrix are shares of the steps
    that have a next one; what is missing from 100 % goes to pathways that are not shown.
    Raises InputError as `compute_pathways`.
    """
    pathways = compute_pathways(routing_data)
    names = expert_names(routing_data.header, checked_weights(routing_data.steps))
    short = [[name.split()[-1] if "skip" not in name else "skip" for name in layer] for layer in names]
    shown = min(max_pathways, len(pathways.counts))
    labels = [
        " › ".join(short[layer][expert] for layer, expert in enumerate(experts)) for experts in pathways.experts[:shown]
    ]
    share = pathways.counts[:shown] / pathways.counts.sum()
    leaving = pathways.transitions.sum(1)[:shown, None]
    following = np.divide(
        pathways.transitions[:shown, :shown], leaving, out=np.zeros((shown, shown)), where=leaving > 0
    )
    side = max(0.46 * shown, 1.6)
    figure = Figure(figsize=(4.6 + side + 1.6, side + 2.0), layout="constrained")
    bars, matrix = figure.subplots(1, 2, width_ratios=(3.4, side))
    bars.barh(range(shown), share, color="#555555")
    for row, (value, count) in enumerate(zip(share, pathways.counts, strict=False)):
        bars.text(value, row, f" {value:.1%} ({count:,})", va="center", fontsize="small")
    bars.set_yticks(range(shown), labels)
    bars.set(xlabel="share of the steps", xlim=(0, share.max() * 1.6), ylim=(shown - 0.5, -0.5))
    share_ticks(bars, share.max())
    of_all = f"{shown} of {counted(len(pathways.counts), 'pathway')}, {share.sum():.1%} of the steps"
    bars.set_title(of_all, fontsize="medium")
    open_frame(bars)
    render_matrix(matrix, following, [[f"{100 * value:.0f}" if value else "" for value in line] for line in following])
    matrix.set_yticks(range(shown), labels)
    matrix.set_xticks(range(shown), labels, rotation=90)
    matrix.set(ylabel="from", xlabel="to, in the next step")
    matrix.set_title("what follows, %", fontsize="medium")
    set_title(figure, describe(routing_data.header, routing_data.steps.episode))
    return figure
