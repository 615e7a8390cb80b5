"""Figures of how well attribution agrees with true effects."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from mop.plotting.panels import set_title
from mop.plotting.style import HUES, open_frame

if TYPE_CHECKING:
    import pandas as pd

_TITLES = {"acting": "the policy acts on what it sees", "forced": "the recorded actions are executed"}


def plot_agreement(by_lag: "pd.DataFrame", title: str = "") -> Figure:
    """Mean rank correlation with 95 % intervals over the lag, a panel for each truth, a line for each predictor.

    by_lag: of `agreement.summarise` by truth, predictor, lag.
    """
    truths = [truth for truth in _TITLES if truth in set(by_lag["truth"])]
    names = list(dict.fromkeys(by_lag["predictor"]))
    figure = Figure(figsize=(5.2 * max(1, len(truths)), 0.22 * len(names) + 3.9), layout="constrained")
    colors, markers = list(HUES.values()), "osD^vP*X"
    for ax, truth in zip(figure.subplots(1, max(1, len(truths)), sharey=True, squeeze=False)[0], truths, strict=False):
        of_truth = by_lag[by_lag["truth"] == truth]
        lags = sorted(set(of_truth["lag"]))
        for number, name in enumerate(names):
            line = of_truth[of_truth["predictor"] == name].sort_values("lag")
            x = np.array([lags.index(lag) for lag in line["lag"]]) + 0.5 * (number / len(names) - 0.5)
            y, low, high = (line[column].to_numpy(float) for column in ("rho", "low", "high"))
            ax.errorbar(
                x, y, np.nan_to_num([y - low, high - y]), label=name, color=colors[number % len(colors)],
                marker=markers[number // len(colors) % len(markers)], markersize=4, linewidth=0.9, elinewidth=0.9,
            )  # fmt: skip
        ax.axhline(0, color="0.6", linewidth=0.8)
        ax.set_xticks(range(len(lags)), lags)
        ax.set_xlabel("steps between change and target")
        ax.set_title(_TITLES[truth], fontsize="medium", loc="left")
        open_frame(ax)
    figure.axes[0].set_ylabel("Spearman's rank correlation")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize="small")
    if title:
        set_title(figure, title)
    return figure
