"""Routing data -> figures that are no maps: time, distributions, distances, who carries what, pathways, actions.

No files, no torch, no gym. Axis letters: S steps, L layers, E experts, G groups.
"""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from mop.base.errors import InputError
from mop.measures.groups import ACTION_NAMES, Groups, RoutingData, group_routing_data
from mop.measures.pathways import compute_pathways
from mop.measures.routing import (
    compute_router_entropy,
    compute_routing_over_progress,
    count_actions,
    mean_weights_by_distance,
    mean_weights_by_group,
    select_episode,
)
from mop.measures.routing_data import checked_weights
from mop.measures.walking import distances_to_objects
from mop.plotting.style import counted, describe, expert_hues, expert_names, isolated, open_frame, wrapped

_LINES = ("solid", "dashed", "dashdot", "dotted", (0, (1, 1)), (0, (5, 1)))  # of the experts, beside their hues
_ALL_OF_0_TO_1 = (-0.03, 1.03)  # limits of an axis with room for a line on either end

# --- time -----------------------------------------------------------------------------------------------------------


def plot_episode_routing(routing_data: RoutingData, episode: int, mark_step: int | None = None) -> Figure:
    """The router weights of each layer over one episode, stacked to 1, with the events of the episode as lines.

    mark_step: a step to be pointed out. Raises InputError as `select_episode`.
    """
    chosen, context = select_episode(routing_data, episode), routing_data.episodes[episode]
    names = _names(routing_data, chosen.routing)
    figure, axes = _panels(len(chosen.routing), 1, 7.2, 1.3, extra_height=1.4, sharex=True)
    edges = np.append(chosen.t_step, chosen.t_step[-1] + 1)
    for layer, (ax, weights) in enumerate(zip(axes[:, 0], chosen.routing, strict=True)):
        held = np.concatenate([weights, weights[-1:]])  # each weight counts until the next step
        ax.stackplot(edges, held.T, step="post", labels=names[layer], colors=expert_hues(weights.shape[1], layer))
        for (name, time), style in zip(_times(chosen.events).items(), _LINES, strict=False):
            ax.axvline(time, color="black", linewidth=1.8, linestyle=style, label=f"{name} (step {time})")
        if mark_step is not None:
            ax.axvspan(mark_step, mark_step + 1, facecolor="none", edgecolor="black", linewidth=2, label="shown step")
        ax.set(ylabel="weight", ylim=(0, 1), xlim=(edges[0], edges[-1]))
        ax.set_title(f"layer {layer}", fontsize="medium", loc="left")
        ax.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    axes[-1, 0].set_xlabel("step of the episode")
    _add_legend(figure, axes[:, 0], names)
    outcome = "" if "success" not in context else ", success" if context["success"] else ", failure"
    mission = f": {context['mission']}" if "mission" in context else ""
    _set_title(figure, f"episode {episode}{mission}, {counted(len(chosen.t_step), 'step')}{outcome}")
    return figure


def _times(events: dict[str, int]) -> dict[str, int]:
    """Events by name in the order of time; those of one moment under one name."""
    moments = {}
    for name, time in sorted(events.items(), key=lambda item: item[1]):
        moments.setdefault(time, []).append(name)
    return {", ".join(names): time for time, names in moments.items()}


def plot_routing_over_progress(routing_data: RoutingData, num_bins: int = 20) -> Figure:
    """Mean router weights against progress through the episode; the band holds the middle half of the steps.

    Raises InputError as `compute_routing_over_progress`.
    """
    over = compute_routing_over_progress(routing_data, num_bins)
    names = _names(routing_data, over.mean)
    figure, axes = _panels(1, len(over.mean), 3.0, 2.3, extra_height=1.2, sharey=True)
    for layer, ax in enumerate(axes[0]):
        for expert, hue in enumerate(expert_hues(over.mean[layer].shape[1], layer)):
            mean, low, high = (part[layer][:, expert] for part in (over.mean, over.low, over.high))
            ax.fill_between(over.progress, low, high, color=hue, alpha=0.2, linewidth=0)
            ax.plot(over.progress, mean, color=hue, linestyle=_LINES[expert], linewidth=1.8, label=names[layer][expert])
            is_alone = isolated(mean)  # as in episodes of fewer steps than bins
            ax.plot(over.progress[is_alone], mean[is_alone], "o", color=hue, markersize=4)
        ax.set(xlim=(0, 1), ylim=_ALL_OF_0_TO_1, xlabel="progress through the episode")
        ax.xaxis.set_major_formatter(PercentFormatter(1, 0))
        ax.set_title(f"layer {layer}", fontsize="medium", loc="left")
        open_frame(ax)
    axes[0, 0].set_ylabel("router weight")
    _add_legend(figure, axes[0], names)
    _set_title(figure, describe(routing_data.header, routing_data.steps.episode))
    return figure


# --- distributions --------------------------------------------------------------------------------------------------


def plot_routing_distributions(routing_data: RoutingData, num_bins: int = 25) -> Figure:
    """How the weights of each expert and the entropy of each router are distributed over the steps.

    Entropy in nats, from 0 (one expert has all) to ln E (all have the same), which is marked. Raises InputError if the
    steps have no router weights.
    """
    layers = checked_weights(routing_data.steps)
    _check_not_empty(routing_data)
    names = _names(routing_data, layers)
    figure, axes = _panels(2, len(layers), 3.0, 2.0, extra_height=1.3, sharey="row")
    for layer, weights in enumerate(layers):
        over, under = axes[:, layer]
        shares = np.full(len(weights), 1 / len(weights))
        for expert, hue in enumerate(expert_hues(weights.shape[1], layer)):
            values, edges = np.histogram(np.clip(weights[:, expert], 0, 1), num_bins, (0, 1), weights=shares)
            over.stairs(values, edges, color=hue, linestyle=_LINES[expert], linewidth=1.8, label=names[layer][expert])
        over.set(xlabel="router weight", xlim=_ALL_OF_0_TO_1)
        over.set_title(f"layer {layer}", fontsize="medium", loc="left")

        entropy, most = compute_router_entropy(weights), math.log(weights.shape[1])
        top = max(most, 0.1)
        values, edges = np.histogram(np.clip(entropy, 0, top), num_bins, (0, top), weights=shares)
        under.stairs(values, edges, color="#555555", fill=True)
        under.axvline(most, color="black", linestyle="dotted")
        under.set(xlabel="entropy of the router (nats)", xlim=(0, top * 1.05))
        under.set_title(f"layer {layer}: mean {entropy.mean():.2f}, at most {most:.2f}", fontsize="medium", loc="left")
        for ax in (over, under):
            ax.yaxis.set_major_formatter(PercentFormatter(1, 0))
            open_frame(ax)
    for ax in axes[:, 0]:
        ax.set_ylabel("share of the steps")
    _add_legend(figure, axes[0], names)
    _set_title(figure, describe(routing_data.header, routing_data.steps.episode))
    return figure


# --- near objects ---------------------------------------------------------------------------------------------------


def plot_routing_near_objects(routing_data: RoutingData, min_steps: int = 20) -> Figure:
    """Mean router weights against the walking distance to the nearest door, key and target, above the steps at each.

    Distances are to the places at the start of the episode, around walls, through doors (`walking.free_cells`); one
    with fewer than `min_steps` steps is left out. Raises InputError as `distances_to_objects`, or if no distance is
    left.
    """
    layers = checked_weights(routing_data.steps)
    _check_not_empty(routing_data)
    names = _names(routing_data, layers)
    averaged = {}
    for kind, distance in distances_to_objects(routing_data).items():
        counts, means = mean_weights_by_distance(distance, layers)
        if (counts >= min_steps).any():
            averaged[kind] = counts, means
    if not averaged:
        raise InputError(f"no distance to a door, key or target has {min_steps} steps: evaluate more episodes")
    figure, axes = _panels(len(layers) + 1, len(averaged), 3.0, 1.5, extra_height=1.2, sharex="col")
    for column, (kind, (counts, means)) in enumerate(averaged.items()):
        distance = np.flatnonzero(counts >= min_steps)
        for layer, weights in enumerate(means):
            ax = axes[layer, column]
            for expert, hue in enumerate(expert_hues(weights.shape[1], layer)):
                style = {"color": hue, "linestyle": _LINES[expert], "marker": "o", "markersize": 3}
                ax.plot(distance, weights[distance, expert], label=names[layer][expert], **style)
            ax.set(ylim=_ALL_OF_0_TO_1)
            ax.tick_params(labelleft=column == 0)
            ax.set_title(f"layer {layer}, {kind}", fontsize="medium", loc="left")
        axes[-1, column].bar(distance, counts[distance], color="#777777")
        axes[-1, column].set(xlabel=f"cells to the {kind}")
        axes[-1, column].set_title(counted(int(counts[distance].sum()), "step"), fontsize="medium", loc="left")
        axes[-1, column].xaxis.set_major_locator(MaxNLocator(8, integer=True))
    for ax in axes.ravel():
        open_frame(ax)
    for ax in axes[:-1, 0]:
        ax.set_ylabel("weight")
    axes[-1, 0].set_ylabel("steps there")
    _add_legend(figure, axes[:-1].ravel(), names)
    suffix = f"distances with {min_steps} steps or more"
    _set_title(figure, describe(routing_data.header, routing_data.steps.episode, suffix))
    return figure


# --- who carries what -----------------------------------------------------------------------------------------------

BEHAVIOURS = ("by_action", "by_key_phase", "by_carrying", "by_outcome")


def plot_specialisation(routing_data: RoutingData, group_bys: Sequence[str] | None = None) -> Figure:
    """Which expert carries which behaviour: mean weight of each expert (column) in each group (row), with its steps.

    group_bys: names of GROUPINGS; without, those of BEHAVIOURS that the data supports. Raises InputError as
    `group_routing_data`, or if the steps have no router weights.
    """
    splits = _splits(routing_data, group_bys)
    layers = [mean_weights_by_group(routing_data.steps, groups) for groups in splits]
    names = _names(routing_data, layers[0])
    heights = [len(groups) for groups in splits]
    widths = [weights.shape[1] for weights in layers[0]]
    size = (2.4 + 0.85 * sum(widths) + 0.2 * len(widths) + 0.9, 0.3 * sum(heights) + 0.42 * len(heights) + 1.6)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(splits), len(widths), squeeze=False, height_ratios=heights, width_ratios=widths)
    for row, (groups, by_layer) in enumerate(zip(splits, layers, strict=True)):
        for layer, weights in enumerate(by_layer):
            ax = axes[row, layer]
            image = _render_matrix(ax, weights, [[f"{value:.2f}" for value in line] for line in weights])
            ax.set_yticks(range(len(groups)), [])
            labels = [name.removesuffix(" (size 0)") for name in names[layer]] if row == len(splits) - 1 else []
            ax.set_xticks(range(widths[layer]) if labels else [], labels)
            if row == 0:
                ax.set_title(f"layer {layer}", fontsize="medium")
        labels = [f"{label}  ({count:,})" for label, count in zip(groups.labels, groups.counts, strict=True)]
        axes[row, 0].set_yticks(range(len(groups)), labels)
    figure.colorbar(image, ax=axes, label="mean router weight", aspect=30, shrink=0.9)
    _set_title(figure, describe(routing_data.header, routing_data.steps.episode, "steps in parentheses"))
    return figure


def _splits(routing_data: RoutingData, group_bys: Sequence[str] | None) -> list[Groups]:
    if group_bys is not None:
        return [group_routing_data(routing_data, name) for name in group_bys]
    splits = []
    for name in BEHAVIOURS:
        try:
            splits.append(group_routing_data(routing_data, name))
        except InputError:  # this data lacks what it needs
            continue
    return splits or [group_routing_data(routing_data, "overall")]


def _render_matrix(ax: Axes, values: np.ndarray, texts: Sequence[Sequence[str]]):
    """Values (R, C) from 0 to 1 as colours, with a text in each field."""
    image = ax.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, line in enumerate(texts):
        for column, text in enumerate(line):
            color = "white" if values[row, column] > 0.55 else "black"
            ax.text(column, row, text, ha="center", va="center", fontsize="small", color=color)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return image


def plot_pathways(routing_data: RoutingData, max_pathways: int = 8) -> Figure:
    """The most frequent combinations of dominant experts over the layers, and which follows which in the next step.

    A pathway is named by the sizes of its experts, first layer first. Rows of the right matrix are shares of the steps
    that have a next one; what is missing from 100 % goes to pathways that are not shown.
    Raises InputError as `compute_pathways`.
    """
    pathways = compute_pathways(routing_data)
    names = _names(routing_data, checked_weights(routing_data.steps))
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
    _share_ticks(bars, share.max())
    of_all = f"{shown} of {counted(len(pathways.counts), 'pathway')}, {share.sum():.1%} of the steps"
    bars.set_title(of_all, fontsize="medium")
    open_frame(bars)
    _render_matrix(matrix, following, [[f"{100 * value:.0f}" if value else "" for value in line] for line in following])
    matrix.set_yticks(range(shown), labels)
    matrix.set_xticks(range(shown), labels, rotation=90)
    matrix.set(ylabel="from", xlabel="to, in the next step")
    matrix.set_title("what follows, %", fontsize="medium")
    _set_title(figure, describe(routing_data.header, routing_data.steps.episode))
    return figure


# --- actions --------------------------------------------------------------------------------------------------------


def plot_action_frequency(routing_data: RoutingData, group_by: str = "overall", max_groups: int = 16) -> Figure:
    """How often each action was chosen, in a panel for each group of `group_routing_data`, as shares of its steps.

    Of more than max_groups groups the largest are shown. Raises InputError as `group_routing_data` and
    `chosen_actions`.
    """
    groups = group_routing_data(routing_data, group_by)
    counts = count_actions(routing_data, groups, len(ACTION_NAMES))
    shown = sorted(np.argsort(-groups.counts, kind="stable")[:max_groups].tolist())
    num_columns = 2 if len(shown) == 4 else min(3, len(shown))
    figure, axes = _panels(-(-len(shown) // num_columns), num_columns, 3.4, 2.2, 0.9, sharex=True, sharey=True)
    shares = counts / groups.counts[:, None]
    for ax, group in zip(axes.ravel(), shown, strict=False):
        ax.barh(ACTION_NAMES, shares[group], color="#0072B2")
        for action, (share, count) in enumerate(zip(shares[group], counts[group], strict=True)):
            ax.text(share, action, f" {share:.1%} ({count:,})", va="center", fontsize="small")
        ax.set_title(f"{groups.labels[group]}, {counted(groups.counts[group], 'step')}", fontsize="medium", loc="left")
        ax.set(xlim=(0, shares[shown].max() * 1.55), ylim=(len(ACTION_NAMES) - 0.4, -0.6))
        _share_ticks(ax, shares[shown].max())
        open_frame(ax)
    for ax in axes.ravel()[len(shown) :]:
        ax.remove()
    for ax in axes.ravel()[max(0, len(shown) - num_columns) : len(shown)]:  # the lowest panel of each column
        ax.tick_params(labelbottom=True)
    figure.supxlabel("share of the steps", fontsize="medium")
    by = "" if group_by == "overall" else f"by {groups.grouping.title}"
    if len(shown) < len(groups):
        by += f" (the largest {len(shown)} of {len(groups)} groups)"
    _set_title(figure, describe(routing_data.header, routing_data.steps.episode, by))
    return figure


def _share_ticks(ax: Axes, largest: float) -> None:
    """Ticks of x in percent, up to the largest share: the room beyond is for the numbers beside the bars."""
    ticks = MaxNLocator(4).tick_values(0, largest)
    ax.set_xticks([tick for tick in ticks if tick <= min(1.0, largest * 1.2)])
    ax.xaxis.set_major_formatter(PercentFormatter(1, 0))


# --- shared ---------------------------------------------------------------------------------------------------------


def _panels(rows: int, columns: int, width: float, height: float, extra_height: float, **sharing):
    """A figure and its axes (rows, columns), each of about this size in inches."""
    figure = Figure(figsize=(max(columns * width + 0.6, 4.6), rows * height + extra_height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **sharing)


def _names(routing_data: RoutingData, layers: Sequence[np.ndarray]) -> list[list[str]]:
    """The names of the experts of each layer (..., E)."""
    sizes = routing_data.header.get("expert_hidden_sizes")
    return [expert_names(sizes, layer, weights.shape[1]) for layer, weights in enumerate(layers)]


def _add_legend(figure: Figure, axes: Sequence[Axes], names: Sequence[Sequence[str]]) -> None:
    """One legend below the panels where all layers have the same experts, else one in each panel."""
    if any(name != names[0] for name in names):
        for ax in axes:
            ax.legend(frameon=False, fontsize="small")
        return
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=_num_columns(labels, figure), frameon=False)


def _num_columns(labels: Sequence[str], figure: Figure) -> int:
    """The most columns of a legend, filled one after the other, that are not wider than the figure."""
    for num_columns in range(len(labels), 1, -1):
        columns = np.array_split([len(label) for label in labels], num_columns)
        if sum(0.09 * column.max() + 0.7 for column in columns) < figure.get_figwidth():
            return num_columns
    return 1


def _set_title(figure: Figure, title: str) -> None:
    figure.suptitle(wrapped(title, figure.get_figwidth() / 1.2 - 0.3), fontsize="large")


def _check_not_empty(routing_data: RoutingData) -> None:
    if not len(routing_data.steps.episode):
        raise InputError("there are no steps: the routing data is empty")
