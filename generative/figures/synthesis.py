"""Figures of levels that were optimised: the search, and where its levels lie among random ones.

Axis letters: I iterations, N levels, M random levels.
"""

import numpy as np
from matplotlib.figure import Figure
from numpy.lib.stride_tricks import sliding_window_view

from mop.plotting.panels import make_panels, set_title
from mop.plotting.style import HUES, open_frame

_LEVEL, _WITHOUT, _RANDOM = HUES["blue"], HUES["orange"], "#888888"
_SMOOTHED = 15  # iterations


def plot_search(
    curve: np.ndarray,
    without_gradients: np.ndarray,
    random: np.ndarray,
    achieved: np.ndarray,
    survives: np.ndarray,
    quantity: str,
) -> Figure:
    """Left, the quantity of the levels drawn (I, N) over the search, means of 15 iterations, and of a search without
    gradients (I, N); right, random levels (M,) and what the levels that were found achieve (N,), survives (N,) bool.
    """
    figure, axes = make_panels(1, 2, 5.0, 3.0, extra_height=1.3)
    left, right = axes[0]
    for values, hue, name in ((without_gradients, _WITHOUT, "drawn without gradients"), (curve, _LEVEL, "drawn")):
        smooth = sliding_window_view(values, min(_SMOOTHED, len(values)), axis=0).mean(-1)
        steps = np.arange(len(smooth)) + (len(values) - len(smooth)) / 2
        left.fill_between(steps, *np.quantile(smooth, [0.1, 0.9], axis=1), color=hue, alpha=0.25, linewidth=0)
        left.plot(steps, smooth.mean(1), color=hue, linewidth=1.8, label=f"{name}: mean, 80 % of the levels")
    known = random[np.isfinite(random)]
    for share, style in ((50, "dotted"), (95, "dashed")):
        value = np.percentile(known, share)
        left.axhline(value, color=_RANDOM, linestyle=style, label=f"{share} % of random levels are below")
        right.axvline(value, color=_RANDOM, linestyle=style)
    left.set(xlabel="iteration", ylabel=quantity)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower left", ncols=2, frameon=False, fontsize="small")
    heights, _, _ = right.hist(known, 60, color="#cccccc")
    for chosen, hue, name in ((survives, _LEVEL, "survive"), (~survives, _WITHOUT, "do not")):
        values = achieved[chosen & np.isfinite(achieved)]
        places = heights.max() * (0.1 + 0.05 * (np.arange(len(values)) % 8))
        right.plot(values, places, "o", color=hue, markersize=5, label=f"{int(chosen.sum())} levels found that {name}")
    right.set(xlabel=f"{quantity}, achieved in the real world", ylabel="random levels")
    right.legend(frameon=False, fontsize="small")
    for ax in (left, right):
        open_frame(ax)
    set_title(figure, f"{quantity}: the search, and {len(random):,} random levels")
    return figure
