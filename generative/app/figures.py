"""Figures of a recorded step, and of its future in a learned simulator. Axis letters: T steps."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from generative.domains.babyai import pictures
from generative.figures.film import Strip, gate_strips
from mop.common.conventions import ACTION_NAMES
from mop.plotting.hover import add_note
from mop.plotting.panels import set_title
from mop.plotting.style import HUES, Figure, open_frame, short_name

Rows = Mapping[str, np.ndarray]  # arrays as a recording has them, (T, ...)
Sizes = Sequence[Sequence[int]]  # of the experts of each layer
_MAX_PICTURES = 9  # side by side; of more steps, some are left out


# --- the step ---------------------------------------------------------------------------------------------------------


def plot_now(rows: Rows, step: int, sizes: Sizes) -> Figure:
    """The world, what the agent sees of it, what the policy does and how it routes; below, LPC over the episode."""
    picture = pictures.world_pictures({name: array[step : step + 1] for name, array in rows.items()})[0]
    aspect = min(2.2, picture.shape[1] / picture.shape[0])
    layers = gate_strips(rows["routing"][step : step + 1], sizes)
    figure = Figure(figsize=(8.6, 4.2), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[2, 1], squeeze=False)[:, 0]
    widths = [1.15 * aspect, 1.15, 0.95, *([1.05] if layers else [])]
    world, view, actions, *routers = top.subplots(1, len(widths), width_ratios=widths, squeeze=False)[0]
    _draw_picture(world, picture, "the world")
    _name_cells(world, rows, step)
    _draw_picture(view, pictures.view_pictures(rows["obs"][step : step + 1])[0], "what the agent sees")
    _draw_probabilities(actions, rows, step)
    for ax in routers:
        _draw_weights(ax, layers)
    _draw_cost(bottom.subplots(), rows, step)
    return figure


def _draw_picture(ax: Axes, picture: np.ndarray, title: str, fontsize: str = "medium") -> None:
    ax.imshow(picture, interpolation="antialiased")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    ax.set_title(title, fontsize=fontsize)


def _name_cells(ax: Axes, rows: Rows, step: int) -> None:
    """The things of the world under the mouse."""
    from generative.domains.babyai.causes import things_in_world

    direction = int(rows["obs"][step][pictures.DIRECTION_COLUMNS].argmax())
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
    ax.set_xlim(0, 1.8)
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
    lpc, names = rows["lpc"], pictures.action_names(rows["action"])
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


# --- its future -------------------------------------------------------------------------------------------------------


def plot_future(truth: Rows, simulated: Rows, step: int, title: str) -> Figure:
    """Views as they were; simulated ones where they differ, wrong cells framed; differences of cells, routing, LPC.

    simulated: of `generative.domains.babyai.render.simulate`.
    """
    num_columns = len(truth["obs"])
    shown = np.unique(np.linspace(0, num_columns - 1, min(num_columns, _MAX_PICTURES)).round().astype(int)).tolist()
    is_wrong = pictures.wrong_cells(truth["obs"], simulated["obs"])
    names = pictures.action_names(truth["student"]), pictures.action_names(simulated["action"])
    figure = Figure(figsize=(11.5, 5.0), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[2.9, 2], squeeze=False)[:, 0]
    panels = top.subplots(2, len(shown), squeeze=False)
    views, imagined = pictures.view_pictures(truth["obs"]), pictures.view_pictures(simulated["obs"])
    for (above, below), at in zip(panels.T, shown, strict=True):
        is_same = not is_wrong[at].any() and names[0][at] == names[1][at]
        _draw_picture(above, views[at], f"{step + at}: {names[0][at]}", "small")
        _draw_picture(
            below, pictures.framed(imagined[at], is_wrong[at]), "the same" if is_same else names[1][at], "small"
        )
        below.images[0].set_alpha(0.15 if is_same else 1.0)
        text = (
            f"step {step + at}: {is_wrong[at].sum()} of 49 cells wrong; truth {names[0][at]}, simulation {names[1][at]}"
        )
        add_note(below, *below.get_xlim(), *below.get_ylim(), text)
    for ax, word in zip(panels[:, 0], ("real", "simulated"), strict=True):
        ax.set_ylabel(word)
    weights = np.abs(truth["routing"] - simulated["routing"]).mean(-1)
    lines = {
        "wrong cells, of 49": is_wrong.sum((1, 2)),
        "router weights: mean difference": weights,
        "LPC: simulated minus real": simulated["lpc"] - truth["lpc"],
    }
    for ax, (name, values) in zip(bottom.subplots(1, len(lines)), lines.items(), strict=True):
        _draw_difference(ax, name, values, step)
    set_title(figure, title)
    return figure


def _draw_difference(ax: Axes, name: str, values: np.ndarray, step: int) -> None:
    steps = step + np.arange(len(values))
    ax.plot(steps, values, "-o", color=HUES["orange"], markersize=4)
    ax.axhline(0, color="0.6", linewidth=0.8, zorder=0)
    for at, value in zip(steps.tolist(), values.tolist(), strict=True):
        add_note(ax, at, at, value, value, f"step {at}, {name}: {value:.4g}", step=at, difference=value)
    ax.set_title(name, fontsize="medium", loc="left")
    ax.set_xlabel("step")
    ax.locator_params("x", integer=True)
    open_frame(ax)
