"""Figures of training logs, and of the fidelity of simulators."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from mop.common.errors import InputError
from mop.plotting.panels import ALL_OF_0_TO_1, set_title, wrap_panels
from mop.plotting.style import HUES, Figure, open_frame

if TYPE_CHECKING:
    import pandas as pd

AXES = ("env_steps", "timesteps", "update")  # what a log is drawn over: the first that it has
HELD_OUT = ("val_", "eval_", "student_")  # a column and its namesake with such a prefix share a panel
_MAX_COLUMNS = 4


def plot_log(table: "pd.DataFrame", title: str = "", only: tuple[str, ...] | None = None) -> Figure:
    """A panel for each column of a training log, with its held-out namesake in the same panel.

    only: these columns alone, as far as they exist. Missing values are gaps of a line.
    """
    over = next((name for name in AXES if name in table), None)
    if over is None:
        raise InputError(f"the training log has no column {' or '.join(AXES)}")
    panels = _panels(table, {over, *AXES, "seconds", "wall_time"})
    panels = {name: lines for name, lines in panels.items() if only is None or name in only}
    if not panels:
        raise InputError("the training log has nothing to draw: it is empty, or no column holds a number")
    figure, axes, lowest = wrap_panels(len(panels), _MAX_COLUMNS, 3.0, 2.1, 0.7)
    x = table[over].to_numpy(float)
    for ax, (name, lines) in zip(axes, panels.items(), strict=True):
        for column, color in zip(lines, HUES.values(), strict=False):
            y = table[column].to_numpy(float)
            y = np.where(np.isfinite(y), y, np.nan)
            ax.plot(x, y, color=color, linewidth=1.3, label=column, marker="." if len(x) < 2 else None)
        if len(lines) > 1:
            ax.legend(frameon=False, fontsize="small")
        ax.set_title(name.replace("_", " "), fontsize="medium", loc="left")
        open_frame(ax)
    for ax in lowest:
        ax.set_xlabel(over.replace("_", " "))
    set_title(figure, title)
    return figure


def _panels(table: "pd.DataFrame", left_out: set[str]) -> dict[str, list[str]]:
    """The columns with a finite number, by panel: the name of the column, or of its namesake of training."""
    panels: dict[str, list[str]] = {}
    for name, column in table.items():
        is_number = column.dtype.kind in "iuf" and np.isfinite(column.to_numpy(float)).any()
        if name in left_out or not is_number:
            continue
        namesake = next((name.removeprefix(start) for start in HELD_OUT if name.startswith(start)), name)
        panels.setdefault(namesake if namesake in table else name, []).append(name)
    return panels


# --- fidelity ---------------------------------------------------------------------------------------------------------

FORECAST_HUES = {"simulator": "blue", "shuffled": "vermilion", "markov": "orange", "copy_last": "green"}
FORECAST_HUES["mean_picture"] = FORECAST_HUES["markov"]
_SHARES = ("nearer", "exact_view", "cells", "seen_cells", "new_cells", "action", "routing")
_TITLES = {  # of the panels of `FidelityProtocol.measures`
    "picture_r2": "R² of the picture",
    "nearer": "nearer than the last",
    "exact_view": "exact views",
    "cells": "cells",
    "seen_cells": "cells seen before",
    "new_cells": "newly revealed cells",
    "action": "same action",
    "routing": "same expert",
    "routing_kl": "KL of routing (nats)",
    "hidden_r2": "R² of the memory",
    "value_r2": "R² of the value",
    "done": "end (nats)",
    "reward": "reward, squared error",
}


def plot_fidelity(result: Mapping, title: str = "") -> Figure:
    """A row of panels for each measure, a column for each actor: lines over steps ahead, with 95 % intervals.

    result: of `fidelity`, as in fidelity.json.
    """
    actors, horizons = result["actors"], result["horizons"]
    measured = next(iter(next(iter(actors.values())).values()))
    panels = {measure: title for measure, title in _TITLES.items() if measure in measured}
    figure = Figure(figsize=(2.9 * len(actors) + 1.2, 1.5 * len(panels) + 1.2), layout="constrained")
    axes = figure.subplots(len(panels), len(actors), squeeze=False, sharex=True, sharey="row")
    for number, (row, (measure, name)) in enumerate(zip(axes, panels.items(), strict=True)):
        for ax, (actor, forecasts) in zip(row, actors.items(), strict=True):
            for forecast, measures in forecasts.items():
                parts = {part: np.array(values, float) for part, values in measures[measure].items()}
                color = HUES[FORECAST_HUES[forecast]]
                ax.plot(horizons, parts["mean"], color=color, label=forecast.replace("_", " "), linewidth=1.4)
                ax.fill_between(horizons, parts["low"], parts["high"], color=color, alpha=0.2, linewidth=0)
            if measure in _SHARES:
                ax.set_ylim(ALL_OF_0_TO_1)
            elif measure.endswith("_r2"):
                ax.set_ylim(-1.0, 1.05)  # anything below is worse than the mean
            open_frame(ax)
            if number == 0:
                ax.set_title(f"actor: {actor}", fontsize="medium", loc="left")
        row[0].set_ylabel(name, fontsize="small")
    for ax in axes[-1]:
        ax.set_xlabel("steps ahead")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    set_title(figure, title)
    return figure
