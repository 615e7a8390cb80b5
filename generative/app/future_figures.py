"""Figures of futures: a simulated one below the real one, both after an edit, and the effect of the edit on a target.

Axis letters: T steps.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from generative.app import sheets
from generative.app.sheets import Rows, Sizes
from generative.domains.babyai.pictures import action_names, view_pictures, world_pictures, wrong_cells
from generative.figures.film import gate_strips
from mop.plotting.hover import add_note
from mop.plotting.panels import set_title
from mop.plotting.style import HUES, Figure, open_frame

WORLD, VIEW = "world", "view"


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
    """The agreement of two futures of the same step, as far as both go."""
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


def plot_imagined(truth: Rows, simulated: Rows, step: int, sizes: Sizes, title: str) -> Figure:
    """A simulated future below the real one: views, whose wrong cells are framed, and router weights."""
    num_columns = len(truth["obs"])
    simulated = sheets.part(simulated, slice(num_columns))
    shown = sheets.shown_columns(num_columns)
    is_wrong = wrong_cells(truth["obs"], simulated["obs"])
    layers = [gate_strips(rows["routing"], sizes) for rows in (truth, simulated)]
    view_in = sheets.height_of(np.zeros((1, 1)), len(shown))
    heights_in = [view_in, view_in, *([2 * sheets.STRIP_IN] * len(layers[0]))]
    figure, (true, imagined, *strips) = sheets.make_sheet(
        num_columns, heights_in, sheets.gaps_below(2, len(layers[0])), 0.55
    )
    names = [action_names(rows["student"]) for rows in (truth, simulated)]
    sheets.draw_pictures(true, view_pictures(truth["obs"]), shown)
    sheets.draw_pictures(imagined, view_pictures(simulated["obs"]), shown, is_wrong)
    for ax, actions, name in zip((true, imagined), names, ("truth", "simulation"), strict=True):
        ax.set_ylabel(f"{name}:\nview, and what\nthe policy does", **sheets.LABEL_STYLE)
        sheets.write_actions(ax, actions, shown, step, names[0])
    for place, wrong in enumerate(is_wrong.sum((1, 2)).tolist()):
        text = f"step {step + place}: {wrong} of 49 cells wrong; truth {names[0][place]}, simulation {names[1][place]}"
        numbers = {"action_in_truth": names[0][place], "action_in_simulation": names[1][place]}
        add_note(imagined, place - 0.5, place + 0.5, 0, 1, text, step=step + place, wrong_cells=wrong, **numbers)
    for ax, *both in zip(strips, *layers, strict=True):
        sheets.draw_strips(ax, both, ("truth", "simulation"), step)
    sheets.label_steps(figure, (strips or [imagined])[-1], step, num_columns, layers[0])
    set_title(figure, title)
    return figure


FUTURES = {  # name -> its label next to the pictures
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
    shown = sheets.shown_columns(num_columns)
    drawn = {}
    for name, rows in futures.items():
        in_world = pictures == WORLD and "grid" in rows
        drawn[name] = world_pictures(rows) if in_world else view_pictures(rows["obs"])
    heights = [sheets.height_of(some[0], len(shown)) for some in drawn.values()]
    layers = {name: gate_strips(rows["routing"], sizes) for name, rows in futures.items()}
    num_layers = len(layers["real"])
    heights += [len(futures) * 0.8 * sheets.STRIP_IN] * num_layers
    figure, axes = sheets.make_sheet(num_columns, heights, sheets.gaps_below(len(futures), num_layers), 0.55)
    for ax, (name, rows) in zip(axes, futures.items(), strict=False):
        sheets.draw_pictures(ax, drawn[name], shown)
        ax.set_ylabel(FUTURES[name], **sheets.LABEL_STYLE)
        names = _acts(rows)
        sheets.write_actions(ax, names, shown, step, _acts(futures["real"]))
        for place, action in enumerate(names):
            text = (
                f"{FUTURES[name].replace(chr(10), ' ')}, step {step + place}: {action}, LPC {rows['lpc'][place]:,.0f}"
            )
            numbers = {"future": name, "step": step + place, "does": action, "lpc": float(rows["lpc"][place])}
            add_note(ax, place - 0.5, place + 0.5, 0, 1, text, **numbers)
    for number, ax in enumerate(axes[len(futures) :]):
        words = [FUTURES[name].replace("\n", " ") for name in futures]
        sheets.draw_strips(ax, [of_one[number] for of_one in layers.values()], words, step)
    sheets.label_steps(figure, axes[-1], step, num_columns, layers["real"])
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
    """A target over the steps after the present one, with and without an edit, and the change that the edit makes.

    values: of FUTURES, (T,) each; changes: of EFFECTS, (T,) each; NaN where an episode is over. What is predicted may
    be far beyond the measured effect: the axis ends where the latter would shrink to a line.
    """
    figure = Figure(figsize=(sheets.WIDTH_IN, 3.4), layout="constrained")
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
    ax: Axes,
    name: str,
    numbers: np.ndarray,
    step: int,
    style: str,
    hue: str,
    limits: tuple[float, float] = (-np.inf, np.inf),
) -> None:
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
    """Limits of an axis: of true effects, and of predictions up to twice as far from 0."""
    least, most = min(0.0, true.min(initial=0)), max(0.0, true.max(initial=0))
    reach = max(most - least, 1e-3)
    return least - 0.5 * reach, most + 0.5 * reach
