"""Behaviour, router weights and what explains them -> figures: bars, dots and matrices of one run.

Axis letters: S steps, L layers, E experts, P phases.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.patches import StepPatch
from matplotlib.ticker import MaxNLocator, PercentFormatter

from mop.analysis.actions import compute_action_shares
from mop.analysis.cells import distances_to_objects
from mop.analysis.explained import Explained, compute_layer_costs, explain_variance
from mop.analysis.groups import Groups, group_routing_data
from mop.analysis.routing import compute_pathways, mean_weights_by_distance, mean_weights_by_group, undecided_experts
from mop.analysis.routing_data import check_not_empty, checked_weights
from mop.artifacts.routing_cache import RoutingData
from mop.common.conventions import ACTION_NAMES
from mop.common.errors import InputError
from mop.common.intervention_grammar import GATE_ONLY, NONE, VARIANTS, Intervention
from mop.common.tables import interval_text
from mop.plotting.hover import add_note
from mop.plotting.panels import (
    ALL_OF_0_TO_1,
    LINES,
    add_legend,
    counts_text,
    draw_means,
    make_panels,
    over_episodes,
    render_bars,
    render_matrix,
    set_title,
    wrap_panels,
)
from mop.plotting.style import (
    HUES,
    Figure,
    counted,
    describe,
    describe_groups,
    expert_looks,
    expert_names,
    open_frame,
    short_name,
    wrapped,
)
from mop.statistics.bootstrap import MIN_EPISODES, Means
from mop.statistics.information import entropy_nats

BEHAVIOURS = ("by_action", "by_key_phase", "by_subgoal", "by_instruction", "by_carrying", "by_outcome")
ALWAYS = "all steps"
_COLORS = (HUES["blue"], HUES["vermilion"], "#333333")  # of the variance by one factor, of two, of more


def plot_action_frequency(routing_data: RoutingData, group_by: str = "overall", max_groups: int = 16) -> Figure:
    """How often each action was chosen, in a panel for each group of `group_routing_data`, as shares of its steps.

    Whiskers are 95 % intervals over episodes (`bootstrap_means`). Of more than max_groups groups the largest are shown.
    """
    groups = group_routing_data(routing_data, group_by)
    means = compute_action_shares(routing_data, groups, len(ACTION_NAMES))
    shown = groups.largest(max_groups)
    most_columns = 2 if len(shown) == 4 else 3
    figure, axes, _ = wrap_panels(len(shown), most_columns, 3.4, 2.2, 0.9, sharex=True, sharey=True)
    largest = np.fmax(means.mean, means.high)[shown].max()
    for ax, group in zip(axes, shown, strict=True):
        of_group = {"grouping": groups.grouping.title, "group": groups.labels[group]}
        render_bars(ax, means, group, ACTION_NAMES, largest, of_group, "action")
        ax.set_title(f"{groups.labels[group]}, {counted(groups.counts[group], 'step')}", fontsize="medium", loc="left")
    figure.supxlabel("share of the steps", fontsize="medium")
    suffix = "" if group_by == "overall" else describe_groups(groups, shown)
    set_title(figure, describe(routing_data.header, routing_data.steps.episode, suffix))
    return figure


def plot_pathways(routing_data: RoutingData, max_pathways: int = 8) -> Figure:
    """The most frequent pathways, with 95 % intervals over episodes, and which follows which in the next step.

    A pathway is named by the sizes of its experts, first layer first. Rows of the right matrix are shares of the steps
    that have a next one; what is missing from 100 % goes to pathways that are not shown.
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
    render_bars(bars, means, 0, labels, np.fmax(means.mean, means.high).max(), {}, "pathway")
    bars.set_xlabel("share of the steps")
    in_all = means.mean[0, :shown].sum()
    of_all = f"{shown} of {counted(len(pathways.counts), 'pathway')}, {in_all:.1%} of the steps"
    bars.set_title(of_all, fontsize="medium")
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


def plot_variance_explained(routing_data: RoutingData) -> Figure:
    """How much of the variance of LPC, and of that of each layer, cell, action, phase and time since start explain.

    A dot for each factor alone, each pair and all together, with its 95 % interval; the best first, by the LPC of all
    layers. `explain_variance` says what is shown and why; what can be negative is drawn from 0 on.
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
        text = f"{names}: {interval_text(r2, low, high)}, {groups}{unseen}; in sample {in_sample:.3f}"
        values = {"factors": names, "r2": r2, "low": low, "high": high, "in_sample": in_sample, "groups": len(sizes)}
        values |= {"smallest": int(sizes.min()), "largest": int(sizes.max()), "unseen": found.unseen}
        add_note(ax, 0, 1.3, place - 0.5, place + 0.5, text, **values)
    ax.set_xlim(-0.03, 1.3)
    ax.set_xticks([0, 0.5, 1])
    ax.xaxis.set_major_formatter(PercentFormatter(1, 0))
    open_frame(ax)


def use_and_need_files(rows: Sequence[Mapping]) -> dict[str, str]:
    """Names of files without their ending -> the memory variants in which experts were left out."""
    lesioned = {row["variant"] for row in rows if row["intervention"].startswith("lesion ")}
    shown = [variant for variant in VARIANTS if variant in lesioned]
    return {"use_and_need" if variant == GATE_ONLY else f"use_and_need_{variant}": variant for variant in shown}


def plot_use_and_need(rows: Sequence[Mapping], run: str, variant: str = GATE_ONLY) -> Figure:
    """Change of success without each expert in each phase, and the mean weight that it has there: experts x phases.

    rows: of `mop.artifacts.intervention_rows`, of one checkpoint; run: what it is called. The first column is that of
    all steps: there the expert is left out in the whole episode, in either memory variant. What was not measured is
    hatched.
    """
    need, use, names, phases = use_and_need(rows, variant)
    figure, axes = make_panels(1, 2, 1.0 + 0.95 * need.shape[1], 0.36 * len(names), extra_height=2.1, sharey=True)
    texts = [["" if np.isnan(value) else f"{100 * value:+.1f}" for value in line] for line in need]
    render_matrix(axes[0, 0], np.clip(-need, 0, 1), texts)
    render_matrix(axes[0, 1], use, [[f"{value:.2f}" for value in line] for line in use])
    for ax, values, name in zip(axes[0], (need, use), ("change of success without it", "mean weight"), strict=True):
        ax.set_title(name, fontsize="medium", loc="left")
        ax.set_xticks(range(len(phases)), phases, rotation=30, ha="right", rotation_mode="anchor", fontsize="small")
        ax.set_yticks(range(len(names)), names, fontsize="small")
        for (row, column), value in np.ndenumerate(values):
            place = (column - 0.5, column + 0.5, row - 0.5, row + 0.5)
            about = {"expert": names[row], "phase": phases[column], "value": float(value)}
            told = "not measured" if np.isnan(value) else f"{name} {value:+.3f}"
            add_note(ax, *place, f"{names[row]}, {phases[column]}: {told}", **about)
    about = f"{rows[-1]['num_episodes']:,} worlds, memory of what is left out: {variant}"
    set_title(figure, f"{run}\n{about}\nchange of success in percentage points")
    return figure


def use_and_need(
    rows: Sequence[Mapping], variant: str = GATE_ONLY
) -> tuple[np.ndarray, np.ndarray, list[str], list[str]]:
    """Need and use (experts of all layers, 1 + P) float64, the names of experts, and those of "all steps" and phases.

    Need is `delta_success` of the lesion, NaN where there is no row.
    """
    found = {(row["intervention"], row["variant"]): row for row in rows}
    intact = next((row for row in rows if row["intervention"] == NONE), None)
    if intact is None:
        raise InputError(f"the use of experts is that of the intact policy: make its row with --what {NONE}")
    sizes, phases = intact["expert_hidden_sizes"], intact["phases"]
    steps = np.array([phase["steps"] for phase in phases], np.float64)
    layers = [np.array([phase["use"][layer] for phase in phases]) for layer in range(len(sizes))]  # (P, E_l) each
    use = np.concatenate([np.column_stack([steps @ of_layer / steps.sum(), of_layer.T]) for of_layer in layers])
    experts = [(layer, expert) for layer, of_layer in enumerate(sizes) for expert in range(len(of_layer))]
    need = np.full(use.shape, np.nan)
    for row, place in enumerate(experts):
        for column, phase in enumerate([None, *(phase["phase"] for phase in phases)]):
            lesion = str(Intervention("lesion", *place, phase=phase))
            # the variants of what is left out for good are the same
            row_found = found.get((lesion, variant)) or (found.get((lesion, GATE_ONLY)) if phase is None else None)
            if row_found is not None and row_found["delta_success"] is not None:
                need[row, column] = row_found["delta_success"]
    by_layer = expert_names({"expert_hidden_sizes": sizes}, layers)
    names = [f"{layer}.{expert} {short_name(by_layer[layer][expert])}" for layer, expert in experts]
    return need, use, names, [ALWAYS, *(phase["phase"] for phase in phases)]


def plot_routing_distributions(routing_data: RoutingData, num_bins: int = 25) -> Figure:
    """How the weights of each expert and the entropy of each router are distributed over the steps.

    Entropy in nats, from 0 (one expert has all) to ln E (all have the same), which is marked.
    """
    layers = checked_weights(routing_data.steps)
    check_not_empty(routing_data.steps.episode)
    looks = expert_looks(routing_data.header, layers)
    figure, axes = make_panels(2, len(layers), 3.0, 2.0, extra_height=1.3, sharey="row")
    for layer, (weights, (names, hues)) in enumerate(zip(layers, looks, strict=True)):
        over, under = axes[:, layer]
        shares = np.full(len(weights), 1 / len(weights))
        for expert, (name, hue) in enumerate(zip(names, hues, strict=True)):
            values, edges = np.histogram(np.clip(weights[:, expert], 0, 1), num_bins, (0, 1), weights=shares)
            style = {"color": hue, "linestyle": LINES[expert % len(LINES)], "linewidth": 1.8}
            over.stairs(values, edges, label=name, **style)
        over.set(xlabel="router weight", xlim=ALL_OF_0_TO_1)
        _note_bins(over, layer, "weight", names)
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
    add_legend(figure, axes[0], looks)
    set_title(figure, describe(routing_data.header, routing_data.steps.episode))
    return figure


def _note_bins(ax: Axes, layer: int, measure: str, names: Sequence[str]) -> None:
    """Note the shares of the steps in each bin of the histograms of axes, which have these names."""
    histograms = [patch.get_data() for patch in ax.patches if isinstance(patch, StepPatch)]
    edges = histograms[0][1].tolist()
    shares = np.stack([values for values, *_ in histograms], axis=1)  # (bins, histograms)
    for low, high, of_bin in zip(edges[:-1], edges[1:], shares.tolist(), strict=True):
        named = dict(zip(map(short_name, names), of_bin, strict=True))
        text = " · ".join(f"{name} {share:.1%}" for name, share in named.items())
        values = {"layer": layer, f"{measure} from": low, f"{measure} to": high, **named}
        add_note(ax, low, high, 0, shares.max(), f"layer {layer}, {measure} {low:.2f} to {high:.2f}: {text}", **values)


def plot_routing_near_objects(routing_data: RoutingData, min_steps: int = 20) -> Figure:
    """Mean router weights against the walking distance to the nearest door, key and target; below them, how many steps.

    Bands are 95 % intervals over episodes. Distances are to the places of the objects at the start of the episode,
    around walls and through doors; a distance with fewer than `min_steps` steps is left out.
    """
    layers = checked_weights(routing_data.steps)
    check_not_empty(routing_data.steps.episode)
    looks = expert_looks(routing_data.header, layers)
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
            notes = [
                (f"{counted(cells, 'cell')} to the {kind}", {"object": kind, "layer": layer, "distance": cells})
                for cells in distance.tolist()
            ]
            draw_means(ax, distance, means, distance, looks[layer], 0.5, notes)
            ax.tick_params(labelleft=column == 0)
            ax.set_title(f"layer {layer}, {kind}", fontsize="medium", loc="left")
        axes[-1, column].bar(distance, counts[distance], color="#777777")
        axes[-1, column].set(xlabel=f"cells to the {kind}")
        axes[-1, column].set_title(counted(int(counts[distance].sum()), "step"), fontsize="medium", loc="left")
        axes[-1, column].xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        axes[-1, column].set_xlim(distance.min() - 0.9, distance.max() + 0.9)  # also of one distance alone
    for ax in axes.ravel():
        open_frame(ax)
    for ax in axes[:-1, 0]:
        ax.set_ylabel("weight")
    axes[-1, 0].set_ylabel("steps there")
    add_legend(figure, axes[:-1].ravel(), looks)
    bands = {over_episodes("bands", of_layers[0]) for of_layers in averaged.values()}
    suffix = ", ".join([f"distances with {min_steps} steps or more", *filter(None, bands)])
    set_title(figure, describe(routing_data.header, routing_data.steps.episode, suffix))
    return figure


def plot_specialisation(routing_data: RoutingData, group_bys: Sequence[str] | None = None) -> Figure:
    """Which expert carries which behaviour: mean weight of each expert (column) in each group (row) of steps.

    Experts of which more than one may be the dominant one of a group (`undecided_experts`) are marked with "≈", means
    of fewer than MIN_EPISODES episodes with "?".
    group_bys: names of GROUPINGS; without, those of BEHAVIOURS that the data supports.
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
        shown = f"{interval_text(*means.interval(group, expert), '.2f')}, {counts_text(means, group)}"
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
