"""Figures of how well attribution agrees with true effects."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from generative.attribution.agreement import RANDOM, SHUFFLED
from mop.plotting.panels import set_title
from mop.plotting.style import HUES, open_frame

if TYPE_CHECKING:
    import pandas as pd

_PANELS = {"acting": "the policy acts on what it sees", "forced": "the recorded actions are executed"}  # by truth
_LOOPS = (
    "recorded actions",
    "own actions",
)  # that attribution goes through; the first of them is drawn, if it is there

_LOOKS = [(color, marker, line) for marker, line in (("o", "-"), ("s", "--"), ("D", "-.")) for color in HUES.values()]


def plot_agreement(by_lag: "pd.DataFrame", title: str = "") -> Figure:
    """Mean rank correlation with 95 % intervals over the lag, a panel for each truth, a line for each predictor.

    by_lag: of `agreement.summarise` by truth, predictor, lag. Drawn are the predictors with the recorded actions in the
    loop or, where there are none, with the policy's own; and those without a loop.
    """
    loops = [words for words in _LOOPS if by_lag["predictor"].str.contains(words).any()]
    lines = by_lag[[not any(words in name for words in loops[1:]) for name in by_lag["predictor"]]]
    lines = lines.assign(name=[_short(name) for name in lines["predictor"]])
    names, lags = list(dict.fromkeys(lines["name"])), sorted(set(lines["lag"]))
    figure = Figure(figsize=(10.4, 0.12 * len(names) + 4.1), layout="constrained")
    controls = [name for name in names if name in (RANDOM, SHUFFLED) or "untrained" in name]
    looks = dict(zip([name for name in names if name not in controls], _LOOKS, strict=False))
    looks |= {name: ("0.55", marker, ":") for name, marker in zip(controls, "osD^vP", strict=False)}
    for ax, (truth, heading) in zip(figure.subplots(1, len(_PANELS), sharey=True), _PANELS.items(), strict=True):
        for number, name in enumerate(names):
            line = lines[(lines["truth"] == truth) & (lines["name"] == name)].sort_values("lag")
            x = np.array([lags.index(lag) for lag in line["lag"]]) + 0.4 * ((number + 0.5) / len(names) - 0.5)
            y, low, high = (line[column].to_numpy(float) for column in ("rho", "low", "high"))
            ax.errorbar(
                x, y, np.nan_to_num([y - low, high - y]), label=name, color=looks[name][0], marker=looks[name][1],
                linestyle=looks[name][2], markersize=4, linewidth=1.1, elinewidth=0.9,
            )  # fmt: skip
        ax.axhline(0, color="0.6", linewidth=0.8)
        ax.set_xticks(range(len(lags)), lags)
        ax.set_xlabel("steps between change and target")
        ax.set_title(heading, fontsize="medium", loc="left")
        open_frame(ax)
    figure.axes[0].set_ylabel("Spearman's rank correlation")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    if title:
        set_title(figure, title)
    return figure


def _short(name: str) -> str:
    """A predictor without the actions of its loop, which are the same in all."""
    return ", ".join(part for part in name.split(", ") if part not in _LOOPS)
