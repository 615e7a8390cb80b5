"""The figure of `hazards`: whether attribution puts the hazard before the jump, and what the real agent says."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mop.plotting.panels import set_title
from mop.plotting.style import HUES, open_frame

if TYPE_CHECKING:
    import pandas as pd

_LEFT = {  # reader -> name, colour, width, line
    "trained": ("before a jump", HUES["blue"], 2.4, "-"),
    "without world": ("the same without the world's path", HUES["sky"], 1.2, "--"),
    "no jump": ("where it does not jump", HUES["orange"], 1.2, "-"),
    "untrained": ("an untrained agent", "0.5", 1.2, "-"),
    "shuffled": ("shuffled patches", "0.5", 1.2, ":"),
}
_RIGHT = {
    "hazard hidden": ("the hazard is hidden", HUES["vermilion"], 2.4, "-"),
    "other patches hidden": ("as many other patches are", "0.5", 1.2, "-"),
}
_LEAST = 0.1  # of an axis that doubles


def plot_hazards(table: "pd.DataFrame", title: str = "") -> Figure:
    """Enrichment of hazards by lag, and what the real agent's log-odds of a jump lose without them.

    table: of `hazards.summarise`.
    """
    figure = Figure(figsize=(11.2, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    _plot(left, table[table["measure"] == "enrichment"], _LEFT)
    left.set_yscale("log", base=2)
    left.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    left.set_ylim(bottom=max(_LEAST, left.get_ylim()[0]))
    left.axhline(1, color="0.2", linewidth=0.8)
    left.annotate("chance", (1, 1), (-2, 2), ("axes fraction", "data"), "offset points", ha="right", fontsize="small")
    left.set_ylabel("hazards' share of attribution\nby their share of patches")
    left.set_xlabel("steps before the jump")
    left.set_title("does attribution find the hazard?", fontsize="medium", loc="left")
    _plot(right, table[table["measure"] == "loss"], _RIGHT)
    right.axhline(0, color="0.2", linewidth=0.8)
    right.set_ylabel("lost log-odds of a jump")
    right.set_xlabel("hidden from so many steps before the jump on")
    right.set_title("does the real agent need it?", fontsize="medium", loc="left")
    if title:
        set_title(figure, title)
    return figure


def _plot(ax: Axes, table: "pd.DataFrame", looks: dict) -> None:
    """Means over the lag with their intervals as bands, for each reader; time goes to the right."""
    for reader, (name, color, width, line) in looks.items():
        rows = table[(table["reader"] == reader) & (table["lag"] != "before")].sort_values("lag")
        x, y, low, high = (rows[column].to_numpy(float) for column in ("lag", "mean", "low", "high"))
        ax.plot(x, y, color=color, linewidth=width, linestyle=line, marker="o", markersize=3, label=name)
        ax.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
    lags = table.loc[table["lag"] != "before", "lag"].astype(int)
    last = int(lags.max()) if len(lags) else 1
    ax.set_xlim(last + 0.3, -0.3)
    ax.set_xticks(np.arange(0, last + 1, max(1, last // 8)))
    ax.legend(frameon=False, fontsize="small")
    open_frame(ax)
