"""The figure of a recorded step: the world, the view, the policy's answer, and LPC over the episode."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from generative.app.figures_of_future import Rows, Sizes
from generative.domains.babyai.pictures import DIRECTION_COLUMNS, action_names, view_pictures, world_pictures
from mop.common.conventions import ACTION_NAMES
from mop.plotting.film import Strip, gate_strips
from mop.plotting.hover import add_note
from mop.plotting.style import HUES, Figure, open_frame, short_name


def plot_now(rows: Rows, step: int, sizes: Sizes) -> Figure:
    """The world, what the agent sees of it, what the policy does and how it routes; below, LPC over the episode."""
    picture = world_pictures({name: array[step : step + 1] for name, array in rows.items()})[0]
    aspect = min(2.2, picture.shape[1] / picture.shape[0])
    layers = gate_strips(rows["routing"][step : step + 1], sizes)
    figure = Figure(figsize=(8.6, 4.2), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[2, 1], squeeze=False)[:, 0]
    widths = [1.15 * aspect, 1.15, 0.95, *([1.05] if layers else [])]
    world, view, actions, *routers = top.subplots(1, len(widths), width_ratios=widths, squeeze=False)[0]
    _draw_picture(world, picture, "the world")
    _name_cells(world, rows, step)
    _draw_picture(view, view_pictures(rows["obs"][step : step + 1])[0], "what the agent sees")
    _draw_probabilities(actions, rows, step)
    for ax in routers:
        _draw_weights(ax, layers)
    _draw_cost(bottom.subplots(), rows, step)
    return figure


def _draw_picture(ax: Axes, picture: np.ndarray, title: str) -> None:
    ax.imshow(picture, interpolation="antialiased")
    ax.set_axis_off()
    ax.set_title(title, fontsize="medium")


def _name_cells(ax: Axes, rows: Rows, step: int) -> None:
    """The things of the world under the mouse."""
    from generative.domains.babyai.causes import things_in_world

    direction = int(rows["obs"][step][DIRECTION_COLUMNS].argmax())
    side = ax.images[0].get_size()[0] / rows["grid"].shape[1]
    for thing in things_in_world(rows["grid"][step], rows["position"][step], direction):
        left, top = thing.x * side, thing.y * side
        words = f"{thing} (cell {thing.x}, {thing.y})"
        add_note(ax, left, left + side, top + side, top, words, x=thing.x, y=thing.y, thing=str(thing))


def _draw_probabilities(ax: Axes, rows: Rows, step: int) -> None:
    probabilities = np.exp(rows["log_probs"][step].astype(float))
    taken = int(rows["action"][step])
    colors = [HUES["blue"] if action == taken else "#b9cbd8" for action in range(len(probabilities))]
    ax.barh(range(len(probabilities)), probabilities, color=colors)
    for action, probability in enumerate(probabilities.tolist()):
        marks = " taken" * (action == taken) + " (bot)" * (action == int(rows["bot"][step]))
        ax.text(probability, action, f" {probability:.0%}{marks}", va="center", fontsize="small")
        text = f"{ACTION_NAMES[action]}: {probability:.4f}{marks}"
        add_note(ax, 0, 1, action - 0.4, action + 0.4, text, action=ACTION_NAMES[action], probability=probability)
    ax.set_yticks(range(len(probabilities)), ACTION_NAMES)
    ax.set_xlim(0, 1.55)
    ax.set_xticks([])
    ax.invert_yaxis()
    ax.spines[["top", "right", "bottom"]].set_visible(False)
    ax.tick_params(length=0)
    ax.set_title("probability of each action", fontsize="medium")


def _draw_weights(ax: Axes, layers: Sequence[Strip]) -> None:
    """The weights of each router as a bar."""
    for place, layer in enumerate(layers):
        ends = np.cumsum([0, *layer.weights[0]])
        for (left, right), name, hue in zip(pairwise(ends), layer.names, layer.hues, strict=True):
            ax.barh(place, right - left, left=left, color=hue, height=0.62, label=short_name(name))
            if right - left > 0.17:
                middle = (left + right) / 2
                ax.text(middle, place, f"{right - left:.2f}", color="white", ha="center", va="center", fontsize="small")
            text = f"{layer.label}, {short_name(name)}: {right - left:.3f}"
            values = {"layer": layer.label, "expert": short_name(name), "weight": right - left}
            add_note(ax, left, right, place - 0.31, place + 0.31, text, **values)
    ax.set_yticks(range(len(layers)), [layer.label for layer in layers])
    ax.set_xlim(0, 1)
    ax.set_xticks([])
    ax.set_ylim(len(layers) - 0.4, -0.6)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    ax.set_title("router weights", fontsize="medium")
    hues = {short_name(name): hue for layer in layers for name, hue in zip(layer.names, layer.hues, strict=True)}
    style: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.45, 0.02), "ncols": 2, "handlelength": 1}
    patches = [Patch(color=hue, label=name) for name, hue in hues.items()]
    ax.legend(handles=patches, frameon=False, fontsize="small", **style)


def _draw_cost(ax: Axes, rows: Rows, step: int) -> None:
    """LPC at each step of the episode, with the action taken there."""
    lpc, names = rows["lpc"], action_names(rows["action"])
    steps = np.arange(len(lpc))
    ax.step(steps, lpc, where="mid", color=HUES["blue"])
    ax.axvspan(step - 0.5, step + 0.5, color=HUES["orange"], alpha=0.35, linewidth=0)
    top = max(float(lpc.max()), 1.0) * 1.1
    for at, (cost, name) in enumerate(zip(lpc.tolist(), names, strict=True)):
        text = f"step {at}: LPC {cost:,.0f}, {name}" + ("; click to go there" if at < len(lpc) - 1 else "")
        add_note(ax, at - 0.5, at + 0.5, 0, top, text, step=at, lpc=cost, action_taken=name)
    ax.set_xlim(-0.5, len(lpc) - 0.5)
    ax.set_ylim(0, top)
    ax.locator_params("x", integer=True)
    ax.set_xlabel("step")
    ax.set_ylabel("LPC")
    open_frame(ax)
