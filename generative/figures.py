"""Figures of generative: training logs."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from mop.base.errors import InputError
from mop.plotting.panels import remove_empty, set_title
from mop.plotting.style import HUES, open_frame

if TYPE_CHECKING:
    import pandas as pd

AXES = ("env_steps", "update")  # what a log is drawn over: the first that it has
HELD_OUT = ("val_", "eval_", "student_")  # a column and its namesake with such a prefix share a panel
_MAX_COLUMNS = 4


def plot_log(table: "pd.DataFrame", title: str = "", only: tuple[str, ...] | None = None) -> Figure:
    """A panel for each column of a training log, with its held-out namesake in the same panel.

    only: these columns alone, those of them that there are. Where a value is missing the line has a gap. Raises
    InputError where there is nothing to draw.
    """
    over = next((name for name in AXES if name in table), None)
    if over is None:
        raise InputError(f"the training log has no column {' or '.join(AXES)}")
    panels = _panels(table, {over, *AXES, "seconds"})
    panels = {name: lines for name, lines in panels.items() if only is None or name in only}
    if not panels:
        raise InputError("the training log has nothing to draw: it is empty, or no column holds a number")
    num_columns = min(_MAX_COLUMNS, len(panels))
    num_rows = -(-len(panels) // num_columns)
    figure = Figure(figsize=(max(3.0 * num_columns, 4.5), 2.1 * num_rows + 0.7), layout="constrained")
    axes = figure.subplots(num_rows, num_columns, squeeze=False)
    x = table[over].to_numpy(float)
    for ax, (name, lines) in zip(axes.ravel(), panels.items(), strict=False):
        for column, color in zip(lines, HUES.values(), strict=False):
            y = table[column].to_numpy(float)
            y = np.where(np.isfinite(y), y, np.nan)
            ax.plot(x, y, color=color, linewidth=1.3, label=column, marker="." if len(x) < 2 else None)
        if len(lines) > 1:
            ax.legend(frameon=False, fontsize="small")
        ax.set_title(name.replace("_", " "), fontsize="medium", loc="left")
        open_frame(ax)
    for ax in remove_empty(axes, len(panels)):
        ax.set_xlabel(over.replace("_", " "))
    if title:
        set_title(figure, title)
    return figure


def _panels(table: "pd.DataFrame", left_out: set[str]) -> dict[str, list[str]]:
    """The columns with a finite number, by panel: the name of the column, or that of its namesake of training."""
    panels: dict[str, list[str]] = {}
    for name, column in table.items():
        is_number = column.dtype.kind in "iuf" and np.isfinite(column.to_numpy(float)).any()
        if name in left_out or not is_number:
            continue
        namesake = next((name.removeprefix(start) for start in HELD_OUT if name.startswith(start)), name)
        panels.setdefault(namesake if namesake in table else name, []).append(name)
    return panels
