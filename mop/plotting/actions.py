"""Actions -> a figure: how often each was chosen."""

from matplotlib.figure import Figure

from mop.measures.actions import count_actions
from mop.measures.groups import group_routing_data
from mop.measures.routing_data import ACTION_NAMES, RoutingData
from mop.plotting.panels import make_panels, remove_empty, set_title, share_ticks
from mop.plotting.style import counted, describe, describe_groups, open_frame


def plot_action_frequency(routing_data: RoutingData, group_by: str = "overall", max_groups: int = 16) -> Figure:
    """How often each action was chosen, in a panel for each group of `group_routing_data`, as shares of its steps.

    Of more than max_groups groups the largest are shown. Raises InputError as `group_routing_data` and
    `chosen_actions`.
    """
    groups = group_routing_data(routing_data, group_by)
    counts = count_actions(routing_data, groups, len(ACTION_NAMES))
    shown = groups.largest(max_groups)
    num_columns = 2 if len(shown) == 4 else min(3, len(shown))
    figure, axes = make_panels(-(-len(shown) // num_columns), num_columns, 3.4, 2.2, 0.9, sharex=True, sharey=True)
    shares = counts / groups.counts[:, None]
    for ax, group in zip(axes.ravel(), shown, strict=False):
        ax.barh(ACTION_NAMES, shares[group], color="#0072B2")
        for action, (share, count) in enumerate(zip(shares[group], counts[group], strict=True)):
            ax.text(share, action, f" {share:.1%} ({count:,})", va="center", fontsize="small")
        ax.set_title(f"{groups.labels[group]}, {counted(groups.counts[group], 'step')}", fontsize="medium", loc="left")
        ax.set(xlim=(0, shares[shown].max() * 1.55), ylim=(len(ACTION_NAMES) - 0.4, -0.6))
        share_ticks(ax, shares[shown].max())
        open_frame(ax)
    for ax in remove_empty(axes, len(shown)):
        ax.tick_params(labelbottom=True)
    figure.supxlabel("share of the steps", fontsize="medium")
    suffix = "" if group_by == "overall" else describe_groups(groups, shown)
    set_title(figure, describe(routing_data.header, routing_data.steps.episode, suffix))
    return figure
