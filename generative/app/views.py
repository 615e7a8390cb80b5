"""Figures of the page of the simulator: a moment, why it is so, what comes of it, what would come of it after an edit.

Numbers go in as arrays; nothing is computed here but their agreement. All figures but the first are sheets: columns for
steps, rows of pictures, bars or strips that stand exactly below each other.
Axis letters: T steps, L layers, E experts, A actions.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from generative.domains.babyai.render import WRONG_HUE, action_names, view_pictures, world_pictures, wrong_cells
from generative.figures.film import split_layers
from mop.common.conventions import ACTION_NAMES
from mop.plotting.hover import add_note
from mop.plotting.panels import set_title, weights_text
from mop.plotting.style import HUES, expert_hues, expert_names, open_frame, short_name

Rows = Mapping[str, np.ndarray]
Sizes = Sequence[Sequence[int]]  # of the experts of each layer
PATH_HUES = {"direct": HUES["green"], "memory": HUES["blue"], "world": HUES["orange"], "mixed": HUES["purple"]}
PATH_WORDS = {
    "direct": "seen now",
    "memory": "seen, and remembered",
    "world": "still in the world",
    "mixed": "by world and memory",
}
WORLD, VIEW = "world", "view"
MAX_PICTURES = 9  # beside each other; of more steps, some are left out
_WIDTH_IN, _LEFT_IN, _RIGHT_IN = 11.5, 1.85, 0.25
_GAP_IN, _TEXT_IN, _TITLE_IN, _LEGEND_IN = 0.1, 0.22, 0.6, 0.24  # between panels; a line of text; above all panels
_STRIP_IN, _STRIP_ROWS = 0.22, 40
_GREY = "#888888"


class Row(NamedTuple):
    """A thing over the steps before a moment: one row of `plot_causes`."""

    name: str
    totals: np.ndarray  # (T,) by lag from 0 on; NaN where it was not there


class Agreement(NamedTuple):
    """How a simulated future agrees with the true one, over the steps after its beginning; NaN where there are none."""

    num_steps: int
    cells: float  # share that is right in type, colour and state
    copied_cells: float  # the same of the first true view, taken for all others
    views: float  # share without a wrong cell
    actions: float  # share in which the policy does the same
    routing: float  # mean absolute difference of router weights
    lpc: float  # the same of LPC, in parameters


def compare(truth: Rows, simulated: Rows) -> Agreement:
    """The agreement of two futures of the same moment, as far as both go."""
    steps = slice(1, min(len(truth["obs"]), len(simulated["obs"])))
    is_wrong = wrong_cells(truth["obs"][steps], simulated["obs"][steps])
    if not len(is_wrong):
        return Agreement(0, *[float("nan")] * 6)
    copied = wrong_cells(truth["obs"][steps], np.broadcast_to(truth["obs"][:1], truth["obs"][steps].shape))
    differences = {name: np.abs(truth[name][steps] - simulated[name][steps]).mean() for name in ("routing", "lpc")}
    return Agreement(
        len(is_wrong),
        float(1 - is_wrong.mean()),
        float(1 - copied.mean()),
        float((~is_wrong.any((1, 2))).mean()),
        float((truth["student"][steps] == simulated["student"][steps]).mean()),
        float(differences["routing"]),
        float(differences["lpc"]),
    )


# --- the moment -------------------------------------------------------------------------------------------------------


def plot_now(rows: Rows, step: int, sizes: Sizes, title: str) -> Figure:
    """The world, what the agent sees of it, what the policy does and how it routes; below, LPC over the episode."""
    picture = world_pictures(part(rows, slice(step, step + 1)))[0]
    aspect = min(2.2, picture.shape[1] / picture.shape[0])
    layers = layers_of(rows["routing"][step : step + 1], sizes)
    figure = Figure(figsize=(_WIDTH_IN, 5.4), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[2.3, 1])
    widths = [1.15 * aspect, 1.15, 0.95, *([1.05] if layers else [])]
    world, view, actions, *routers = top.subplots(1, len(widths), width_ratios=widths)
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

    direction = int(rows["obs"][step][147:151].argmax())
    side = ax.images[0].get_array().shape[0] / rows["grid"].shape[1]
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


def _draw_weights(ax: Axes, layers: Sequence["Layer"]) -> None:
    """The weights of each router as a bar."""
    for place, layer in enumerate(layers):
        ends = np.cumsum([0, *layer.weights[0]])
        for (left, right), name, hue in zip(pairwise(ends), layer.names, layer.hues, strict=True):
            ax.barh(place, right - left, left=left, color=hue, height=0.62, label=short_name(name))
            if right - left > 0.17:
                middle = (left + right) / 2
                ax.text(middle, place, f"{right - left:.2f}", color="white", ha="center", va="center", fontsize="small")
            text = f"{layer.name}, {short_name(name)}: {right - left:.3f}"
            values = {"layer": layer.name, "expert": short_name(name), "weight": right - left}
            add_note(ax, left, right, place - 0.31, place + 0.31, text, **values)
    ax.set_yticks(range(len(layers)), [layer.name for layer in layers])
    ax.set_xlim(0, 1)
    ax.set_xticks([])
    ax.set_ylim(len(layers) - 0.4, -0.6)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    ax.set_title("router weights", fontsize="medium")
    ax.legend(handles=_expert_patches(layers), loc="upper center", bbox_to_anchor=(0.45, 0.02), ncols=3,
              frameon=False, fontsize="small", handlelength=1)  # fmt: skip


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


def plot_causes(
    rows: Rows, step: int, by_path: Mapping[str, np.ndarray], things: Sequence[Row], target: str, title: str
) -> Figure:
    """What was there at earlier steps and contributes to a target now: by path, by thing, and the worlds themselves.

    by_path: name of `PATH_HUES` -> (T,) sums over all things, by lag from 0 on; things: the rows of the table.
    """
    num_columns = len(next(iter(by_path.values())))
    earlier = np.arange(num_columns)[::-1]  # lag of each column
    pictures = world_pictures(part(rows, slice(step - num_columns + 1, step + 1)))
    table_in = max(0.3 * len(things), 0.3)
    heights_in = [1.9, table_in, _height_of(pictures[0], num_columns)]
    figure, (bars, table, worlds) = _sheet(num_columns, heights_in, [_GAP_IN] * 2, 0.5, _TITLE_IN + _LEGEND_IN)
    _draw_paths(bars, {path: values[::-1] for path, values in by_path.items()}, step - earlier)
    bars.set_ylabel(f"contribution\nto {target}", fontsize="small")
    _draw_table(table, things, earlier, step)
    _draw_pictures(worlds, pictures, range(num_columns))
    names = action_names(rows["action"][step - num_columns + 1 : step + 1])
    labels = [f"{'now' if lag == 0 else f'{lag} earlier'}\n{name}" for lag, name in zip(earlier, names, strict=True)]
    worlds.set_xticks(range(num_columns), labels)
    worlds.set_ylabel("the world,\nand what was\ndone in it", **_BESIDE)
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


# --- what comes -------------------------------------------------------------------------------------------------------


def plot_imagined(truth: Rows, simulated: Rows, step: int, sizes: Sizes, title: str) -> Figure:
    """A simulated future below the true one: views, whose wrong cells are framed, and router weights."""
    num_columns = len(truth["obs"])
    simulated = part(simulated, slice(num_columns))
    shown = shown_columns(num_columns)
    is_wrong = wrong_cells(truth["obs"], simulated["obs"])
    layers = [layers_of(rows["routing"], sizes) for rows in (truth, simulated)]
    view_in = _height_of(np.zeros((1, 1)), len(shown))
    heights_in = [view_in, view_in, *([2 * _STRIP_IN] * len(layers[0]))]
    figure, (true, imagined, *strips) = _sheet(num_columns, heights_in, _gaps(2, len(layers[0])), 0.55)
    names = [action_names(rows["student"]) for rows in (truth, simulated)]
    _draw_pictures(true, view_pictures(truth["obs"]), shown)
    _draw_pictures(imagined, view_pictures(simulated["obs"]), shown, is_wrong)
    for ax, actions, name in zip((true, imagined), names, ("truth", "simulation"), strict=True):
        ax.set_ylabel(f"{name}:\nview, and what\nthe policy does", **_BESIDE)
        _write_actions(ax, actions, shown, step, names[0])
    for place, wrong in enumerate(is_wrong.sum((1, 2)).tolist()):
        text = f"step {step + place}: {wrong} of 49 cells wrong; truth {names[0][place]}, simulation {names[1][place]}"
        numbers = {"action_in_truth": names[0][place], "action_in_simulation": names[1][place]}
        add_note(imagined, place - 0.5, place + 0.5, 0, 1, text, step=step + place, wrong_cells=wrong, **numbers)
    for ax, *both in zip(strips, *layers, strict=True):
        _draw_strips(ax, both, ("truth", "simulation"), step)
    _label_steps(figure, (strips or [imagined])[-1], step, num_columns, layers[0])
    set_title(figure, title)
    return figure


FUTURES = {  # name -> what it is called beside its pictures
    "real": "real,\nas it was",
    "real_edited": "real,\nedited",
    "simulated": "simulated,\nas it was",
    "simulated_edited": "simulated,\nedited",
}


def plot_futures(futures: Mapping[str, Rows], step: int, sizes: Sizes, pictures: str, title: str) -> Figure:
    """Real and simulated futures, as they are and after an edit: worlds or views, actions, router weights.

    futures: of FUTURES; pictures: WORLD or VIEW. A real future ends with its episode.
    """
    num_columns = max(len(rows["obs"]) for rows in futures.values())
    shown = shown_columns(num_columns)
    drawn = {}
    for name, rows in futures.items():
        in_world = pictures == WORLD and "grid" in rows
        drawn[name] = world_pictures(rows) if in_world else view_pictures(rows["obs"])
    heights = [_height_of(some[0], len(shown)) for some in drawn.values()]
    layers = {name: layers_of(rows["routing"], sizes) for name, rows in futures.items()}
    num_layers = len(layers["real"])
    heights += [len(futures) * 0.8 * _STRIP_IN] * num_layers
    figure, axes = _sheet(num_columns, heights, _gaps(len(futures), num_layers), 0.55)
    for ax, (name, rows) in zip(axes, futures.items(), strict=False):
        _draw_pictures(ax, drawn[name], shown)
        ax.set_ylabel(FUTURES[name], **_BESIDE)
        names = _acts(rows)
        _write_actions(ax, names, shown, step, _acts(futures["real"]))
        for place, action in enumerate(names):
            text = (
                f"{FUTURES[name].replace(chr(10), ' ')}, step {step + place}: {action}, LPC {rows['lpc'][place]:,.0f}"
            )
            numbers = {"future": name, "step": step + place, "does": action, "lpc": float(rows["lpc"][place])}
            add_note(ax, place - 0.5, place + 0.5, 0, 1, text, **numbers)
    for number, ax in enumerate(axes[len(futures) :]):
        words = [FUTURES[name].replace("\n", " ") for name in futures]
        _draw_strips(ax, [of_one[number] for of_one in layers.values()], words, step)
    _label_steps(figure, axes[-1], step, num_columns, layers["real"])
    set_title(figure, title)
    return figure


def _acts(rows: Rows) -> list[str]:
    """What the policy does in each row of a future, and how its episode ended."""
    names = action_names(rows["student"])
    if (rows["terminated"] | rows["truncated"]).any():
        names[-1] = "success" if rows["reward"].max() > 0 else "failed"
    return names


EFFECTS = {  # of an edit -> colour and mark
    "measured in the real world": (HUES["blue"], "o"),
    "in the simulator": (HUES["orange"], "x"),
    "predicted by attribution": (HUES["purple"], "s"),
}
MEASURED, SIMULATED, PREDICTED = EFFECTS


def plot_effect(
    values: Mapping[str, np.ndarray], changes: Mapping[str, np.ndarray], step: int, target: str, title: str
) -> Figure:
    """A target over the steps after a moment, with and without an edit, and the change that the edit makes.

    values: of FUTURES, (T,) each; changes: of EFFECTS, (T,) each; NaN where an episode is over. What is predicted may
    be far beyond what is measured: the axis ends where that would shrink to a line.
    """
    figure = Figure(figsize=(_WIDTH_IN, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    styles = {"real": "-o", "real_edited": "--o", "simulated": "-x", "simulated_edited": "--x"}
    for name, numbers in values.items():
        hue = HUES["blue"] if name.startswith("real") else HUES["orange"]
        _draw_line(left, FUTURES[name].replace("\n", " "), numbers, step, styles[name], hue)
    true = np.concatenate([numbers for name, numbers in changes.items() if name != PREDICTED])
    limits = _limits(true[np.isfinite(true)])
    for name, numbers in changes.items():
        hue, mark = EFFECTS[name]
        _draw_line(right, name, numbers, step, f"-{mark}", hue, limits)
    right.axhline(0, color="black", linewidth=0.8, zorder=0)
    left.set_title(target, fontsize="medium")
    right.set_title("change by the edit", fontsize="medium")
    for ax in (left, right):
        ax.set_xlabel("step")
        ax.locator_params("x", integer=True)
        open_frame(ax)
        ax.legend(frameon=False, fontsize="small")
    set_title(figure, title)
    return figure


def _draw_line(
    ax: Axes, name: str, numbers: np.ndarray, step: int, style: str, hue: str,
    limits: tuple[float, float] = (-np.inf, np.inf),
) -> None:  # fmt: skip
    """A line over steps; what lies beyond the limits is a triangle at the edge."""
    steps = step + np.arange(len(numbers))
    beyond = (numbers < limits[0]) | (numbers > limits[1])
    ax.plot(
        steps, np.where(beyond, np.nan, numbers), style, color=hue, label=name, markersize=6, markerfacecolor="none"
    )
    for at, value, is_beyond in zip(steps.tolist(), numbers.tolist(), beyond.tolist(), strict=True):
        y = float(np.clip(value, *limits))
        if is_beyond:
            ax.plot(at, y, "^" if value > 0 else "v", color=hue, markersize=9)
        if np.isfinite(value):
            add_note(ax, at, at, y, y, f"{name}, step {at}: {value:+.4g}", line=name, step=at, value=value)


def _limits(true: np.ndarray) -> tuple[float, float]:
    """Of what is true, and of predictions up to twice as far from 0."""
    least, most = min(0.0, true.min(initial=0)), max(0.0, true.max(initial=0))
    reach = max(most - least, 1e-3)
    return least - 0.5 * reach, most + 0.5 * reach


# --- sheets -----------------------------------------------------------------------------------------------------------

_BESIDE = {"rotation": 0, "ha": "right", "va": "center", "fontsize": "small", "labelpad": 8}


class Layer(NamedTuple):
    """The weights of one router over time."""

    name: str
    weights: np.ndarray  # (T, E)
    names: list[str]
    hues: list[str]


def layers_of(routing: np.ndarray, sizes: Sizes) -> list[Layer]:
    """The layers that have a choice of experts; routing (T, sum of E_l), the layers side by side."""
    layers, header = split_layers(routing, sizes), {"expert_hidden_sizes": sizes}
    named = zip(layers, expert_names(header, layers), expert_hues(header, layers), strict=True)
    return [
        Layer(f"layer {number}", weights, names, hues)
        for number, (weights, names, hues) in enumerate(named)
        if weights.shape[1] > 1
    ]


def part(rows: Rows, steps: slice) -> Rows:
    """Some of the rows."""
    return {name: array[steps] for name, array in rows.items()}


def shown_columns(num_columns: int) -> list[int]:
    """The columns that have a picture: all, or some, evenly spread."""
    return np.unique(np.linspace(0, num_columns - 1, min(num_columns, MAX_PICTURES)).round().astype(int)).tolist()


def _gaps(num_pictures: int, num_strips: int) -> list[float]:
    """Below rows of pictures there is room for what is done, above strips for the name of a layer."""
    gaps = [_TEXT_IN + _GAP_IN] * num_pictures + [_TEXT_IN] * num_strips
    return [*gaps[: num_pictures - 1], _TEXT_IN * 2, *gaps[num_pictures + 1 :]]


def _sheet(
    num_columns: int,
    heights_in: Sequence[float],
    gaps_in: Sequence[float],
    below_in: float,
    above_in: float = _TITLE_IN,
) -> tuple[Figure, list[Axes]]:
    """A figure of panels of these heights below each other, with columns 0, 1, ... in the same places.

    gaps_in: below each panel but the last.
    """
    height = above_in + sum(heights_in) + sum(gaps_in[: len(heights_in) - 1]) + below_in
    figure = Figure(figsize=(_WIDTH_IN, height))
    axes, top = [], height - above_in
    for panel, gap in zip(heights_in, [*gaps_in, 0.0][: len(heights_in)], strict=True):
        box = (_LEFT_IN, top - panel, _WIDTH_IN - _LEFT_IN - _RIGHT_IN, panel)
        ax = figure.add_axes([box[0] / _WIDTH_IN, box[1] / height, box[2] / _WIDTH_IN, box[3] / height])
        ax.set_xlim(-0.5, num_columns - 0.5)
        ax.set_xticks([])
        axes.append(ax)
        top -= panel + gap
    return figure, axes


def _height_of(picture: np.ndarray, num_pictures: int) -> float:
    """The height in inches of a row of such pictures; few of them are not drawn larger than many."""
    width = (_WIDTH_IN - _LEFT_IN - _RIGHT_IN) / max(num_pictures, 5)
    return 0.94 * width * picture.shape[0] / picture.shape[1]


def _draw_pictures(
    ax: Axes, pictures: Sequence[np.ndarray], shown: Sequence[int], is_wrong: np.ndarray | None = None
) -> None:
    """Pictures in some of the columns; is_wrong: (T, 7, 7), the cells of each that get a frame."""
    low, high = ax.get_xlim()
    box = ax.get_position()
    width_in, height_in = ax.figure.get_figwidth() * box.width, ax.figure.get_figheight() * box.height
    for column in shown:
        if column >= len(pictures):
            continue
        picture = pictures[column]
        half = 0.5 * height_in * picture.shape[1] / picture.shape[0] * (high - low) / width_in
        ax.imshow(picture, extent=(column - half, column + half, 0, 1), aspect="auto", interpolation="antialiased")
        for row, cell in np.argwhere(is_wrong[column]).tolist() if is_wrong is not None else ():
            side = 2 * half / is_wrong.shape[2], 1 / is_wrong.shape[1]
            corner = column - half + cell * side[0], 1 - (row + 1) * side[1]
            ax.add_patch(Rectangle(corner, *side, fill=False, edgecolor=WRONG_HUE, linewidth=1.6))
    ax.set_xlim(low, high)
    ax.set_ylim(0, 1)
    ax.set_yticks([])
    ax.tick_params(length=0, labelsize="small")
    ax.spines[:].set_visible(False)


def _write_actions(ax: Axes, names: Sequence[str], shown: Sequence[int], step: int, plain: Sequence[str]) -> None:
    """What is done in each column that has a picture; in bold where it is another action than in the plain future."""
    for column in shown:
        if column < len(names):
            is_other = column < len(plain) and names[column] != plain[column]
            style = {"weight": "bold", "color": HUES["vermilion"]} if is_other else {"color": "#333333"}
            ax.annotate(
                f"{step + column}: {names[column]}", (column, 0), xytext=(0, -2), textcoords="offset points",
                ha="center", va="top", fontsize="small", **style,
            )  # fmt: skip


def _draw_strips(ax: Axes, layers: Sequence[Layer], words: Sequence[str], step: int) -> None:
    """The weights of one layer over time, of several futures below each other."""
    for place, (layer, word) in enumerate(zip(layers, words, strict=True)):
        num_steps = len(layer.weights)
        ends = np.cumsum(layer.weights, 1)[:, :-1]
        heights = (np.arange(_STRIP_ROWS) + 0.5) / _STRIP_ROWS
        expert = (ends[:, None, :] <= heights[:, None]).sum(-1)  # (T, rows)
        colors = np.array([to_rgb(hue) for hue in layer.hues])[expert.T]
        low, high = place + 0.06, place + 0.94
        ax.imshow(colors, extent=(-0.5, num_steps - 0.5, high, low), aspect="auto", interpolation="nearest")
        for at, weights in enumerate(layer.weights):
            text = f"{layer.name}, {word}, step {step + at}: {weights_text(layer.names, weights)}"
            values = dict(zip(map(short_name, layer.names), weights.tolist(), strict=True))
            numbers = {"layer": layer.name, "future": word, "step": step + at, **values}
            add_note(ax, at - 0.5, at + 0.5, low, high, text, **numbers)
    ax.set_xlim(-0.5, ax.get_xlim()[1] if len(layers) == 0 else max(len(layer.weights) for layer in layers) - 0.5)
    ax.set_ylim(len(layers), 0)
    ax.set_yticks(np.arange(len(layers)) + 0.5, words, fontsize="x-small")
    ax.set_title(layers[0].name, loc="left", fontsize="small", pad=1)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def _label_steps(figure: Figure, ax: Axes, step: int, num_columns: int, layers: Sequence[Layer]) -> None:
    """Steps below the last panel, and a legend of the experts; nothing where no layer is drawn."""
    if not layers:
        return
    columns = range(0, num_columns, max(1, num_columns // 12))
    ax.set_xticks(columns, [f"step {step}", *(str(step + column) for column in columns[1:])], fontsize="small")
    patches = _expert_patches(layers)
    figure.legend(handles=patches, loc="lower right", ncols=6, frameon=False, fontsize="small", handlelength=1)


def _expert_patches(layers: Sequence[Layer]) -> list[Patch]:
    hues = {short_name(name): hue for layer in layers for name, hue in zip(layer.names, layer.hues, strict=True)}
    return [Patch(color=hue, label=name) for name, hue in hues.items()]
