"""Router weights -> figures: their distributions, near objects, and by behaviour.

Axis letters: S steps, L layers, E experts.
"""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator, PercentFormatter

from mop.analysis.groups import Groups, group_routing_data
from mop.analysis.maps import distances_to_objects
from mop.analysis.routing import mean_weights_by_distance, mean_weights_by_group, undecided_experts
from mop.analysis.routing_data import RoutingData, check_not_empty, checked_weights
from mop.common.errors import InputError
from mop.plotting.hover import add_note
from mop.plotting.panels import (
    ALL_OF_0_TO_1,
    LINES,
    add_legend,
    counts_text,
    interval_text,
    make_panels,
    means_text,
    means_values,
    over_episodes,
    render_matrix,
    set_title,
)
from mop.plotting.style import counted, describe, expert_hues, expert_names, open_frame, short_name
from mop.statistics.bootstrap import MIN_EPISODES, Means
from mop.statistics.information import entropy_nats

BEHAVIOURS = ("by_action", "by_key_phase", "by_subgoal", "by_instruction", "by_carrying", "by_outcome")


def plot_routing_distributions(routing_data: RoutingData, num_bins: int = 25) -> Figure:
    """How the weights of each expert and the entropy of each router are distributed over the steps.

    Entropy in nats, from 0 (one expert has all) to ln E (all have the same), which is marked. Raises InputError if the
    steps have no router weights.
    """
    layers = checked_weights(routing_data.steps)
    check_not_empty(routing_data.steps.episode)
    names, hues = expert_names(routing_data.header, layers), expert_hues(routing_data.header, layers)
    figure, axes = make_panels(2, len(layers), 3.0, 2.0, extra_height=1.3, sharey="row")
    for layer, weights in enumerate(layers):
        over, under = axes[:, layer]
        shares = np.full(len(weights), 1 / len(weights))
        for expert, hue in enumerate(hues[layer]):
            values, edges = np.histogram(np.clip(weights[:, expert], 0, 1), num_bins, (0, 1), weights=shares)
            over.stairs(
                values,
                edges,
                color=hue,
                linestyle=LINES[expert % len(LINES)],
                linewidth=1.8,
                label=names[layer][expert],
            )
        over.set(xlabel="router weight", xlim=ALL_OF_0_TO_1)
        _note_bins(over, layer, "weight", names[layer])
        over.set_title(f"layer {layer}", fontsize="medium", loc="left")

        entropy, most = entropy_nats(weights), math.log(weights.shape[1])
        top = max(most, 0.1)
        values, edges = np.histogram(np.clip(entropy, 0, top), num_bins, (0, top), weights=shares)
        under.stairs(values, edges, color="#555555", fill=True)
        _note_bins(under, layer, "entropy", ["share"])
        under.axvline(most, color="black", linestyle="dotted")
        under.set(xlabel="entropy of the router (nats)", xlim=(0, top * 1.05))
        under.set_title(f"layer {layer}: mean {entropy.mean():.2f}, at most {most:.2f}", fontsize="medium", loc="left")
        for ax in (over, under):
            ax.yaxis.set_major_formatter(PercentFormatter(1, 0))
            open_frame(ax)
    for ax in axes[:, 0]:
        ax.set_ylabel("share of the steps")
    add_legend(figure, axes[0], names)
    set_title(figure, describe(routing_data.header, routing_data.steps.episode))
    return figure


def _note_bins(ax: Axes, layer: int, measure: str, names: Sequence[str]) -> None:
    """Note the shares of the steps in each bin of the histograms of axes, which have these names."""
    edges = ax.patches[0].get_data().edges.tolist()
    shares = np.stack([patch.get_data().values for patch in ax.patches], axis=1)  # (bins, histograms)
    for low, high, of_bin in zip(edges[:-1], edges[1:], shares.tolist(), strict=True):
        named = dict(zip(map(short_name, names), of_bin, strict=True))
        text = " · ".join(f"{name} {share:.1%}" for name, share in named.items())
        values = {"layer": layer, f"{measure} from": low, f"{measure} to": high, **named}
        add_note(ax, low, high, 0, shares.max(), f"layer {layer}, {measure} {low:.2f} to {high:.2f}: {text}", **values)


def plot_routing_near_objects(routing_data: RoutingData, min_steps: int = 20) -> Figure:
    """Mean router weights against the walking distance to the nearest door, key and target; below them, how many steps.

    Bands are 95 % intervals over episodes. Distances are to the places of the objects at the start of the episode,
    around walls and through doors; a distance with fewer than `min_steps` steps is left out. Raises InputError as
    `distances_to_objects`, or if no distance is left.
    """
    layers = checked_weights(routing_data.steps)
    check_not_empty(routing_data.steps.episode)
    names, hues = expert_names(routing_data.header, layers), expert_hues(routing_data.header, layers)
    averaged = {}
    for kind, distance in distances_to_objects(routing_data).items():
        if np.isfinite(distance).any():
            means = mean_weights_by_distance(routing_data, distance)
            if (means[0].steps >= min_steps).any():
                averaged[kind] = means
    if not averaged:
        raise InputError(f"no distance to a door, key or target has {min_steps} steps: evaluate more episodes")
    figure, axes = make_panels(len(layers) + 1, len(averaged), 3.0, 1.5, extra_height=1.2, sharex="col")
    for column, (kind, of_layers) in enumerate(averaged.items()):
        counts = of_layers[0].steps
        distance = np.flatnonzero(counts >= min_steps)
        for layer, means in enumerate(of_layers):
            ax = axes[layer, column]
            for expert, hue in enumerate(hues[layer]):
                style = {"color": hue, "linestyle": LINES[expert % len(LINES)], "marker": "o", "markersize": 3}
                mean, low, high = (part[distance, expert] for part in (means.mean, means.low, means.high))
                ax.fill_between(distance, low, high, color=hue, alpha=0.3, linewidth=0)
                ax.plot(distance, mean, label=names[layer][expert], **style)
            for cells in distance.tolist():
                text = f"{counted(cells, 'cell')} to the {kind}: {means_text(names[layer], means, cells)}"
                values = {"object": kind, "layer": layer, "distance": cells, **means_values(names[layer], means, cells)}
                add_note(ax, cells - 0.5, cells + 0.5, 0, 1, text, **values)
            ax.set(ylim=ALL_OF_0_TO_1)
            ax.tick_params(labelleft=column == 0)
            ax.set_title(f"layer {layer}, {kind}", fontsize="medium", loc="left")
        axes[-1, column].bar(distance, counts[distance], color="#777777")
        axes[-1, column].set(xlabel=f"cells to the {kind}")
        axes[-1, column].set_title(counted(int(counts[distance].sum()), "step"), fontsize="medium", loc="left")
        axes[-1, column].xaxis.set_major_locator(MaxNLocator(6, integer=True))
    for ax in axes.ravel():
        open_frame(ax)
    for ax in axes[:-1, 0]:
        ax.set_ylabel("weight")
    axes[-1, 0].set_ylabel("steps there")
    add_legend(figure, axes[:-1].ravel(), names)
    bands = {over_episodes("bands", of_layers[0]) for of_layers in averaged.values()}
    suffix = ", ".join([f"distances with {min_steps} steps or more", *filter(None, bands)])
    set_title(figure, describe(routing_data.header, routing_data.steps.episode, suffix))
    return figure


def plot_specialisation(routing_data: RoutingData, group_bys: Sequence[str] | None = None) -> Figure:
    """Which expert carries which behaviour: mean weight of each expert (column) in each group (row) of steps.

    Experts of which more than one may be the dominant one of a group (`undecided_experts`) are marked with "≈", means
    of fewer than MIN_EPISODES episodes with "?".
    group_bys: names of GROUPINGS; without, those of BEHAVIOURS that the data supports. Raises InputError as
    `group_routing_data`, or if the steps have no router weights.
    """
    splits = _splits(routing_data, group_bys)
    layers = [mean_weights_by_group(routing_data, groups) for groups in splits]
    undecided = [undecided_experts(routing_data, groups) for groups in splits]
    names = expert_names(routing_data.header, [means.mean for means in layers[0]])
    heights = [len(groups) for groups in splits]
    widths = [means.mean.shape[1] for means in layers[0]]
    size = (2.4 + 0.85 * sum(widths) + 0.2 * len(widths) + 0.9, 0.3 * sum(heights) + 0.42 * len(heights) + 1.6)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(splits), len(widths), squeeze=False, height_ratios=heights, width_ratios=widths)
    for row, (groups, by_layer) in enumerate(zip(splits, layers, strict=True)):
        for layer, means in enumerate(by_layer):
            ax = axes[row, layer]
            image = _render_weights(ax, groups, layer, names[layer], means, undecided[row][layer])
            ax.set_yticks(range(len(groups)), [])
            labels = [short_name(name) for name in names[layer]] if row == len(splits) - 1 else []
            ax.set_xticks(range(widths[layer]) if labels else [], labels)
            if row == 0:
                ax.set_title(f"layer {layer}", fontsize="medium")
        labels = [f"{label}  ({count:,})" for label, count in zip(groups.labels, groups.counts, strict=True)]
        axes[row, 0].set_yticks(range(len(groups)), labels)
    figure.colorbar(image, ax=axes, label="mean router weight", aspect=30, shrink=0.9)
    suffix = ["steps in parentheses"]
    if any(of_layer.any() for by_layer in undecided for of_layer in by_layer):
        suffix.append("≈ any of these may be the largest (95 % over episodes)")
    if any((groups.num_episodes < MIN_EPISODES).any() for groups in splits):
        suffix.append(f"? fewer than {MIN_EPISODES} episodes")
    set_title(figure, describe(routing_data.header, routing_data.steps.episode, ", ".join(suffix)))
    return figure


def _render_weights(
    ax: Axes, groups: Groups, layer: int, names: Sequence[str], means: Means, undecided: np.ndarray
) -> AxesImage:
    """Draw the mean weights of a layer (G, E) in each group, and mark the undecided (G, E) where they are several."""
    texts = [[""] * len(names) for _ in groups.labels]
    for (group, expert), is_undecided in np.ndenumerate(undecided):
        label, name = groups.labels[group], short_name(names[expert])
        is_few = means.episodes[group] < MIN_EPISODES
        texts[group][expert] = f"{'≈' if is_undecided else ''}{means.mean[group, expert]:.2f}{'?' if is_few else ''}"
        shown = f"{interval_text(means, group, expert)}, {counts_text(means, group)}"
        note = ", one of several that may be the largest" if is_undecided else ""
        values = {"grouping": groups.grouping.title, "group": label, "layer": layer, "expert": name}
        values |= means.numbers(group, expert, "weight") | {"undecided": bool(is_undecided)}
        area = (expert - 0.5, expert + 0.5, group - 0.5, group + 0.5)
        add_note(ax, *area, f"{label}, layer {layer}: {name} {shown}{note}", **values)
    return render_matrix(ax, means.mean, texts)


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
