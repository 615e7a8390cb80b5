"""Figures of the fidelity of simulators."""

from collections.abc import Mapping

import numpy as np

from mop.plotting.panels import ALL_OF_0_TO_1, set_title
from mop.plotting.style import HUES, Figure, open_frame

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
