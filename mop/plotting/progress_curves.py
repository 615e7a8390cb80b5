"""Routing in the course of an episode -> figures: one episode step by step, all of them by their progress."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from mop.analysis.routing import compute_routing_over_progress, select_episode
from mop.analysis.routing_data import RoutingData
from mop.plotting.hover import add_note
from mop.plotting.panels import (
    ALL_OF_0_TO_1,
    LINES,
    add_legend,
    make_panels,
    means_text,
    means_values,
    over_episodes,
    set_title,
    weights_text,
)
from mop.plotting.style import counted, describe, expert_hues, expert_names, isolated, open_frame


def plot_episode_routing(routing_data: RoutingData, episode: int, mark_step: int | None = None) -> Figure:
    """The router weights of each layer over one episode, stacked to 1, with the events of the episode as lines.

    mark_step: a step to mark. Raises InputError as `select_episode`.
    """
    chosen, context = select_episode(routing_data, episode), routing_data.episodes[episode]
    names, hues = expert_names(routing_data.header, chosen.routing), expert_hues(routing_data.header, chosen.routing)
    figure, axes = make_panels(len(chosen.routing), 1, 7.2, 1.3, extra_height=1.4, sharex=True)
    edges = np.append(chosen.t_step, chosen.t_step[-1] + 1)
    for layer, (ax, weights) in enumerate(zip(axes[:, 0], chosen.routing, strict=True)):
        held = np.concatenate([weights, weights[-1:]])  # each weight counts until the next step
        ax.stackplot(edges, held.T, step="post", labels=names[layer], colors=hues[layer])
        for (name, time), style in zip(_times(chosen.events).items(), LINES, strict=False):
            ax.axvline(time, color="black", linewidth=1.8, linestyle=style, label=f"{name} (step {time})")
        if mark_step is not None:
            ax.axvspan(mark_step, mark_step + 1, facecolor="none", edgecolor="black", linewidth=2, label="shown step")
        for left, right, shares in zip(edges[:-1], edges[1:], weights, strict=True):
            add_note(ax, left, right, 0, 1, f"step {left}, layer {layer}: {weights_text(names[layer], shares)}")
        ax.set(ylabel="weight", ylim=(0, 1), xlim=(edges[0], edges[-1]))
        ax.set_title(f"layer {layer}", fontsize="medium", loc="left")
        ax.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    axes[-1, 0].set_xlabel("step of the episode")
    add_legend(figure, axes[:, 0], names)
    outcome = "" if "success" not in context else ", success" if context["success"] else ", failure"
    mission = f": {context['mission']}" if "mission" in context else ""
    set_title(figure, f"episode {episode}{mission}, {counted(len(chosen.t_step), 'step')}{outcome}")
    return figure


def plot_routing_over_progress(routing_data: RoutingData, num_bins: int = 20) -> Figure:
    """Mean router weights against progress through the episode; the band is the 95 % interval over episodes.

    Raises InputError as `compute_routing_over_progress`.
    """
    over = compute_routing_over_progress(routing_data, num_bins)
    weights = [means.mean for means in over.layers]
    names, hues = expert_names(routing_data.header, weights), expert_hues(routing_data.header, weights)
    figure, axes = make_panels(1, len(over.layers), 3.0, 2.3, extra_height=1.2, sharey=True)
    for layer, (ax, means) in enumerate(zip(axes[0], over.layers, strict=True)):
        for expert, hue in enumerate(hues[layer]):
            mean, low, high = (part[:, expert] for part in (means.mean, means.low, means.high))
            ax.fill_between(over.progress, low, high, color=hue, alpha=0.3, linewidth=0)
            ax.plot(
                over.progress,
                mean,
                color=hue,
                linestyle=LINES[expert % len(LINES)],
                linewidth=1.8,
                label=names[layer][expert],
            )
            is_alone = isolated(mean)  # as in episodes of fewer steps than bins
            ax.plot(over.progress[is_alone], mean[is_alone], "o", color=hue, markersize=4)
        for part in np.flatnonzero(means.steps):
            left, right = part / num_bins, (part + 1) / num_bins
            text = f"{left:.0%} to {right:.0%} of the episode: {means_text(names[layer], means, part)}"
            values = {"layer": layer, "progress": float(over.progress[part]), **means_values(names[layer], means, part)}
            add_note(ax, left, right, 0, 1, text, **values)
        ax.set(xlim=(0, 1), ylim=ALL_OF_0_TO_1, xlabel="progress through the episode")
        ax.xaxis.set_major_formatter(PercentFormatter(1, 0))
        ax.set_title(f"layer {layer}", fontsize="medium", loc="left")
        open_frame(ax)
    axes[0, 0].set_ylabel("router weight")
    add_legend(figure, axes[0], names)
    set_title(figure, describe(routing_data.header, routing_data.steps.episode, over_episodes("bands", over.layers[0])))
    return figure


def _times(events: dict[str, int]) -> dict[str, int]:
    """Events by name in the order of time; those of one moment under one name."""
    moments = {}
    for name, time in sorted(events.items(), key=lambda item: item[1]):
        moments.setdefault(time, []).append(name)
    return {", ".join(names): time for time, names in moments.items()}
