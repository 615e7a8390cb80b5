"""Actions -> a figure: how often each was chosen."""

import numpy as np
from matplotlib.figure import Figure

from mop.analysis.actions import compute_action_shares
from mop.analysis.groups import group_routing_data
from mop.analysis.routing_data import RoutingData
from mop.common.conventions import ACTION_NAMES
from mop.plotting.hover import add_note
from mop.plotting.panels import (
    counts_text,
    interval_text,
    make_panels,
    remove_empty,
    render_bars,
    set_title,
    share_ticks,
)
from mop.plotting.style import counted, describe, describe_groups, open_frame


def plot_action_frequency(routing_data: RoutingData, group_by: str = "overall", max_groups: int = 16) -> Figure:
    """How often each action was chosen, in a panel for each group of `group_routing_data`, as shares of its steps.

    Whiskers are 95 % intervals over episodes (`bootstrap_means`). Of more than max_groups groups the largest are shown.
    Raises InputError as `group_routing_data` and `chosen_actions`.
    """
    groups = group_routing_data(routing_data, group_by)
    means = compute_action_shares(routing_data, groups, len(ACTION_NAMES))
    shown = groups.largest(max_groups)
    num_columns = 2 if len(shown) == 4 else min(3, len(shown))
    figure, axes = make_panels(-(-len(shown) // num_columns), num_columns, 3.4, 2.2, 0.9, sharex=True, sharey=True)
    largest = np.fmax(means.mean, means.high)[shown].max()
    for ax, group in zip(axes.ravel(), shown, strict=False):
        render_bars(ax, means, group, len(ACTION_NAMES), "#0072B2")
        ax.set_yticks(range(len(ACTION_NAMES)), ACTION_NAMES)
        for action, name in enumerate(ACTION_NAMES):
            text = f"{name}: {interval_text(means, group, action, '.1%')} of {counts_text(means, group)}"
            values = {"group": groups.labels[group], "action": name, **means.numbers(group, action, "share")}
            add_note(ax, 0, largest * 1.55, action - 0.5, action + 0.5, text, **values)
        ax.set_title(f"{groups.labels[group]}, {counted(groups.counts[group], 'step')}", fontsize="medium", loc="left")
        ax.set(xlim=(0, largest * 1.55), ylim=(len(ACTION_NAMES) - 0.4, -0.6))
        share_ticks(ax, largest)
        open_frame(ax)
    for ax in remove_empty(axes, len(shown)):
        ax.tick_params(labelbottom=True)
    figure.supxlabel("share of the steps", fontsize="medium")
    suffix = "" if group_by == "overall" else describe_groups(groups, shown)
    set_title(figure, describe(routing_data.header, routing_data.steps.episode, suffix))
    return figure
