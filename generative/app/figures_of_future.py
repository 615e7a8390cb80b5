"""The recorded future of a step, and where a learned simulator departs from it. Axis letters: T steps."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from generative.domains.babyai.pictures import action_names, framed, view_pictures, wrong_cells
from mop.plotting.hover import add_note
from mop.plotting.panels import set_title
from mop.plotting.style import HUES, Figure, open_frame

Rows = Mapping[str, np.ndarray]  # arrays as a recording has them, (T, ...)
Sizes = Sequence[Sequence[int]]  # of the experts of each layer
_MAX_PICTURES = 9  # side by side; of more steps, some are left out


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
    """The agreement of two futures of the same step; simulated: of `generative.domains.babyai.render.simulate`."""
    true_obs, obs = truth["obs"][1:], simulated["obs"][1:]
    is_wrong = wrong_cells(true_obs, obs)
    if not len(is_wrong):
        return Agreement(0, *[float("nan")] * 6)
    is_right = {
        "cells": ~is_wrong,
        "copied_cells": ~wrong_cells(true_obs, np.broadcast_to(truth["obs"][:1], true_obs.shape)),
        "views": ~is_wrong.any((1, 2)),
        "actions": truth["student"][1:] == simulated["action"][1:],
    }
    shares = {name: float(right.mean()) for name, right in is_right.items()}
    differences = {name: float(np.abs(truth[name] - simulated[name])[1:].mean()) for name in ("routing", "lpc")}
    return Agreement(len(is_wrong), **shares, **differences)


def plot_future(truth: Rows, simulated: Rows, step: int, title: str) -> Figure:
    """Views as they were; simulated ones where they differ, wrong cells framed; differences of cells, routing, LPC."""
    num_columns = len(truth["obs"])
    shown = np.unique(np.linspace(0, num_columns - 1, min(num_columns, _MAX_PICTURES)).round().astype(int)).tolist()
    is_wrong = wrong_cells(truth["obs"], simulated["obs"])
    names = action_names(truth["student"]), action_names(simulated["action"])
    figure = Figure(figsize=(11.5, 5.0), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[2.9, 2], squeeze=False)[:, 0]
    panels = top.subplots(2, len(shown), squeeze=False)
    views, imagined = view_pictures(truth["obs"]), view_pictures(simulated["obs"])
    for (above, below), at in zip(panels.T, shown, strict=True):
        is_same = not is_wrong[at].any() and names[0][at] == names[1][at]
        _draw_view(above, views[at], f"{step + at}: {names[0][at]}")
        _draw_view(below, framed(imagined[at], is_wrong[at]), "the same" if is_same else names[1][at])
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


def _draw_view(ax: Axes, picture: np.ndarray, title: str) -> None:
    ax.imshow(picture, interpolation="antialiased")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)
    ax.set_title(title, fontsize="small")


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
