"""Figures of a recorded step: the step itself, and the causes of the policy's answer.

Axis letters: T steps, A actions.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes

from generative.app import sheets
from generative.app.sheets import Rows, Sizes
from generative.domains.babyai.pictures import DIRECTION_COLUMNS, action_names, view_pictures, world_pictures
from generative.figures.film import Strip, gate_strips
from mop.common.conventions import ACTION_NAMES
from mop.plotting.hover import add_note
from mop.plotting.panels import set_title
from mop.plotting.style import HUES, Figure, open_frame, short_name

PATH_HUES = {"direct": HUES["green"], "memory": HUES["blue"], "world": HUES["orange"], "mixed": HUES["purple"]}
PATH_WORDS = {
    "direct": "seen now",
    "memory": "seen, and remembered",
    "world": "still in the world",
    "mixed": "by world and memory",
}

# --- the step ---------------------------------------------------------------------------------------------------------


def plot_now(rows: Rows, step: int, sizes: Sizes, title: str) -> Figure:
    """The world, what the agent sees of it, what the policy does and how it routes; below, LPC over the episode."""
    picture = world_pictures(sheets.part(rows, slice(step, step + 1)))[0]
    aspect = min(2.2, picture.shape[1] / picture.shape[0])
    layers = gate_strips(rows["routing"][step : step + 1], sizes)
    figure = Figure(figsize=(sheets.WIDTH_IN, 5.4), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[2.3, 1], squeeze=False)[:, 0]
    widths = [1.15 * aspect, 1.15, 0.95, *([1.05] if layers else [])]
    world, view, actions, *routers = top.subplots(1, len(widths), width_ratios=widths, squeeze=False)[0]
    _draw_picture(world, picture, "the world")
    _name_cells(world, rows, step)
    _draw_picture(view, view_pictures(rows["obs"][step : step + 1])[0], "what the agent sees")
    _draw_probabilities(actions, rows, step)
    for ax in routers:
        _draw_weights(ax, layers)
    _draw_cost(bottom.subplots(), rows, step)
    set_title(figure, title)
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
        can_be_edited = not str(thing).startswith("wall")
        words += "; click to edit it" if can_be_edited else ""
        numbers = {"x": thing.x, "y": thing.y, "thing": str(thing), "can_be_edited": can_be_edited}
        add_note(ax, left, left + side, top + side, top, words, **numbers)


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
    style: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.45, 0.02), "ncols": 3, "handlelength": 1}
    ax.legend(handles=sheets.expert_patches(layers), frameon=False, fontsize="small", **style)


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


# --- why --------------------------------------------------------------------------------------------------------------


class Row(NamedTuple):
    """A thing over the steps before the present one: a row of `plot_causes`."""

    name: str
    totals: np.ndarray  # (T,) by lag from 0 on; NaN where it was not there


def plot_causes(
    rows: Rows, step: int, by_path: Mapping[str, np.ndarray], things: Sequence[Row], target: str, title: str
) -> Figure:
    """What was there at earlier steps and contributes to a target now: by path, by thing, and the worlds themselves.

    by_path: name of `PATH_HUES` -> (T,) sums over all things, by lag from 0 on; things: the rows of the table.
    """
    num_columns = len(next(iter(by_path.values())))
    earlier = np.arange(num_columns)[::-1]  # lag of each column
    pictures = world_pictures(sheets.part(rows, slice(step - num_columns + 1, step + 1)))
    table_in = max(0.3 * len(things), 0.3)
    heights_in = [1.9, table_in, sheets.height_of(pictures[0], num_columns)]
    above_in = sheets.TITLE_IN + sheets.LEGEND_IN
    gaps_in = [sheets.GAP_IN] * 2
    figure, (bars, table, worlds) = sheets.make_sheet(num_columns, heights_in, gaps_in, 0.5, above_in)
    _draw_paths(bars, {path: values[::-1] for path, values in by_path.items()}, step - earlier)
    bars.set_ylabel(f"contribution\nto {target}", fontsize="small")
    _draw_table(table, things, earlier, step)
    sheets.draw_pictures(worlds, pictures, range(num_columns))
    names = action_names(rows["action"][step - num_columns + 1 : step + 1])
    labels = [f"{'now' if lag == 0 else f'{lag} earlier'}\n{name}" for lag, name in zip(earlier, names, strict=True)]
    worlds.set_xticks(range(num_columns), labels)
    worlds.set_ylabel("the world,\nand what was\ndone in it", **sheets.LABEL_STYLE)
    set_title(figure, title)
    return figure


def _draw_paths(ax: Axes, by_path: Mapping[str, np.ndarray], steps: np.ndarray) -> None:
    """Stacked bars, positive ones upwards from 0 and negative ones downwards."""
    places = np.arange(len(steps))
    above, below = np.zeros(len(steps)), np.zeros(len(steps))
    for path, values in by_path.items():
        bottom = np.where(values >= 0, above, below)
        ax.bar(places, values, bottom=bottom, color=PATH_HUES[path], width=0.8, label=PATH_WORDS[path])
        above, below = above + np.maximum(values, 0), below + np.minimum(values, 0)
    ax.axhline(0, color="black", linewidth=0.8)
    ax.plot(places, above + below, "D", color="white", markeredgecolor="black", markersize=5, label="all paths")
    low, high = float(below.min()), float(above.max())
    margin = 0.08 * max(high - low, 1e-9)
    low, high = low - margin, high + margin
    for place, at in enumerate(steps.tolist()):
        values = {path: float(numbers[place]) for path, numbers in by_path.items()}
        words = ", ".join(f"{PATH_WORDS[path]} {value:+.3g}" for path, value in values.items() if value)
        total = sum(values.values())
        text = f"step {at}, {len(steps) - 1 - place} earlier: {total:+.3g}" + (f" ({words})" if words else "")
        add_note(ax, place - 0.4, place + 0.4, low, high, text, step=at, total=total, **values)
    ax.set_ylim(low, high)
    open_frame(ax)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=5, frameon=False, fontsize="small", borderaxespad=0.2)


def _draw_table(ax: Axes, things: Sequence[Row], earlier: np.ndarray, step: int) -> None:
    """A number for each thing and step, on a colour; empty where it was not there."""
    values = np.array([row.totals[earlier] for row in things]).reshape(len(things), len(earlier))
    largest = max(float(np.nanmax(np.abs(values), initial=0)), 1e-9)
    ax.imshow(values, cmap="RdBu_r", vmin=-1.3 * largest, vmax=1.3 * largest, aspect="auto")
    for (line, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            color = "white" if abs(value) > 0.8 * largest else "black"
            number = f"{value:+.2g}" if abs(value) > 0.002 * largest else "0"
            ax.text(column, line, number, ha="center", va="center", fontsize="small", color=color)
            text = f"{things[line].name}, step {step - earlier[column]}: {value:+.4g}"
            box = (column - 0.5, column + 0.5, line - 0.5, line + 0.5)
            add_note(ax, *box, text, thing=things[line].name, step=int(step - earlier[column]), contribution=value)
    ax.set_yticks(range(len(things)), [row.name for row in things], fontsize="small")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
