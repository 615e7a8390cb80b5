"""Figures of attribution: as maps and over time, against true effects, and of hazards before a jump."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from generative.attribution.agreement import RANDOM, SHUFFLED
from generative.attribution.explanations import PATHS, TILE_PX, Explanation, short_number, when
from mop.plotting.hover import add_note
from mop.plotting.panels import set_title
from mop.plotting.style import HUES, Figure, open_frame, plain_number

if TYPE_CHECKING:
    import pandas as pd

_STRIP_IN = 15.0  # the width of all panels of a strip, in inches
_PALE = 0.45  # how much of the colours of a picture is left below a map
_NAMES = {None: "all paths", "memory": "memory", "world": "world", "mixed": "both", "direct": "direct"}


def plot_map(explanation: Explanation, lag: int | None = None) -> Figure:
    """The varied input at a lag, without and with the attribution of each cell over it.

    lag: None for the one of the largest cause.
    """
    if lag is None:
        top = explanation.top(1)
        lag = int(explanation.lag[top[0]]) if len(top) else 0
    picture, values = explanation.picture(lag), explanation.maps(None, lag)
    limit, colors = _limit([values]), explanation.colors
    wide, high = picture.shape[1] / picture.shape[0], explanation.map_in
    figure = Figure(figsize=(2 * high * wide**0.5 + 1.0, high / wide**0.5 + 1.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.imshow(picture)
    _draw(right, picture, values, limit, colors)
    for (x, y), value in np.ndenumerate(values):
        if abs(value) >= 0.05 * limit:
            place = (np.array([x, y]) + 0.5) * TILE_PX
            color = "white" if abs(value) > 0.6 * limit else "black"
            right.text(*place, short_number(value, 2, "+"), ha="center", va="center", fontsize=7, color=color)
    left.set_title(explanation.subject(lag), fontsize="medium", loc="left")
    right.set_title("attribution, all paths", fontsize="medium", loc="left")
    for ax in (left, right):
        ax.set_axis_off()
    _add_scale(figure, [right], limit, colors)
    set_title(figure, f"{_title(explanation)}: {when(lag)}")
    return figure


def plot_strip(explanation: Explanation, paths: Sequence[str | None] = (None, "memory", "world", "mixed")) -> Figure:
    """The attribution over time: a panel for each lag, the earliest first, and a row for each path (None: all).

    If too many lags for one row, those with the largest attribution.
    """
    lags, colors = np.arange(len(explanation.obs)), explanation.colors
    height, width = (side / TILE_PX for side in explanation.picture(0).shape[:2])
    scale = explanation.row_in / height
    max_lags = max(2, int(_STRIP_IN / (scale * width)))
    if len(lags) > max_lags:
        sizes = np.bincount(explanation.lag, np.abs(explanation.total), len(lags))
        lags = np.sort(np.argsort(-sizes, kind="stable")[:max_lags])
    lags = lags[::-1]
    maps = {
        (path, lag): explanation.maps(None if path is None else PATHS.index(path), lag)
        for path in paths
        for lag in lags
    }
    limit = _limit(maps.values())
    figure = Figure(
        figsize=(scale * width * len(lags) + 1.2, scale * height * len(paths) + 0.9), layout="constrained", dpi=100
    )
    axes = figure.subplots(len(paths), len(lags), squeeze=False)
    for column, lag in enumerate(lags):
        picture = explanation.picture(lag)
        for ax, path in zip(axes[:, column], paths, strict=True):
            _draw(ax, picture, maps[path, lag], limit, colors)
            ax.set_xticks([])
            ax.set_yticks([])
            for spine in ax.spines.values():
                spine.set_visible(False)
        _note_causes(axes[0, column], explanation, int(lag))
        axes[0, column].set_title("this step" if lag == 0 else f"{lag} earlier", fontsize="small")
    for ax, path in zip(axes[:, 0], paths, strict=True):
        ax.set_ylabel(_NAMES[path], fontsize="small")
    _add_scale(figure, list(axes.ravel()), limit, colors)
    set_title(figure, _title(explanation))
    return figure


def plot_horizon(by_lag: "pd.DataFrame", by_kind: "pd.DataFrame", title: str = "") -> Figure:
    """How many steps earlier the causes lie: the sum of their sizes by path, and their sum by kind of thing.

    by_lag: columns path, lag, mean, low, high; by_kind: kind, lag, total, low, high.
    """
    figure = Figure(figsize=(9.6, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for path, color in zip(PATHS, HUES.values(), strict=False):
        line = by_lag[(by_lag["path"] == path) & ((by_lag["lag"] == 0) == (path == "direct"))]
        _plot_line(left, line, "mean", color, _NAMES[path])
    sizes = by_kind["total"].abs().groupby(by_kind["kind"]).sum().sort_values(ascending=False)
    for kind, color in zip(sizes.index, HUES.values(), strict=False):
        _plot_line(right, by_kind[by_kind["kind"] == kind], "total", color, kind)
    left.set_ylabel("sum of |attribution|")
    left.set_ylim(bottom=0)
    right.set_ylabel("attribution")
    right.axhline(0, color="0.6", linewidth=0.8)
    for ax, heading in ((left, "by path"), (right, "by kind of thing")):
        ax.set_xlabel("steps earlier")
        ax.set_title(heading, fontsize="medium", loc="left")
        ax.legend(frameon=False, fontsize="small")
        open_frame(ax)
    set_title(figure, title)
    return figure


def _plot_line(ax: Axes, line: "pd.DataFrame", name: str, color: str, label: str) -> None:
    x, y, low, high = (line[column].to_numpy(float) for column in ("lag", name, "low", "high"))
    ax.plot(x, y, color=color, marker="o", markersize=3.5, linewidth=1.2, label=label)
    ax.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0)


def _draw(ax: Axes, picture: np.ndarray, values: np.ndarray, limit: float, colors: str) -> None:
    """A pale picture, and over it a colour in each cell of values [x, y], the stronger the larger it is."""
    height, width = picture.shape[:2]
    gray = picture.mean(-1, keepdims=True)
    ax.imshow((255 - _PALE * (255 - (0.6 * gray + 0.4 * picture))).astype(np.uint8))
    shares = np.clip(np.abs(values.T) / limit, 0, 1) ** 0.5
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    ax.imshow(values.T, cmap=colors, vmin=-limit, vmax=limit, alpha=0.8 * shares, extent=extent)


def _note_causes(ax: Axes, explanation: Explanation, lag: int) -> None:
    """Say under the mouse what each cause contributes, and along which paths."""
    for row in np.flatnonzero(explanation.lag == lag).tolist():
        thing, total, by_path = explanation.thing(row), float(explanation.total[row]), dict(explanation.paths_of(row))
        left, top = (np.array(thing.numbers[:2]) * TILE_PX - 0.5).tolist()
        words = ", ".join(f"{_NAMES[path]} {short_number(value, 3, '+')}" for path, value in by_path.items() if value)
        text = f"{thing}, {when(lag)}: {short_number(total, 3, '+')}" + (f" ({words})" if words else "")
        numbers = {"step": int(explanation.step) - lag, "cause": str(thing), "total": total, **by_path}
        add_note(ax, left, left + TILE_PX, top + TILE_PX, top, text, **numbers)


def _limit(maps) -> float:
    return max(1e-9, *(float(np.abs(values).max(initial=0)) for values in maps))


def _add_scale(figure: Figure, axes: list[Axes], limit: float, colors: str) -> None:
    scale = ScalarMappable(Normalize(-limit, limit), colors)
    bar = figure.colorbar(scale, ax=axes, fraction=0.05, pad=0.01, shrink=0.7)
    bar.ax.tick_params(labelsize="small")


def _title(explanation: Explanation) -> str:
    return (
        f"{explanation.target} = {short_number(float(explanation.value))} at step {int(explanation.step)} "
        f"of episode {int(explanation.episode)}, {explanation.world[0]}"
    )


# --- agreement with true effects --------------------------------------------------------------------------------------

_PANELS = {"acting": "the policy acts on what it sees", "forced": "the recorded actions are executed"}  # by truth
_LOOPS = ("recorded actions", "own actions")  # of attribution; the first of them is drawn, if it is there
_THIN = {"markersize": 4, "linewidth": 1.1, "elinewidth": 0.9}
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
            look = dict(zip(("color", "marker", "linestyle"), looks[name], strict=True)) | _THIN
            ax.errorbar(x, y, np.nan_to_num([y - low, high - y]), label=name, **look)
        ax.axhline(0, color="0.6", linewidth=0.8)
        ax.set_xticks(range(len(lags)), lags)
        ax.set_xlabel("steps between change and target")
        ax.set_title(heading, fontsize="medium", loc="left")
        open_frame(ax)
    figure.axes[0].set_ylabel("Spearman's rank correlation")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    set_title(figure, title)
    return figure


def _short(name: str) -> str:
    return ", ".join(part for part in name.split(", ") if part not in _LOOPS)


# --- hazards ----------------------------------------------------------------------------------------------------------

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

    table: of `generative.attribution.hazard_report.summarise`.
    """
    figure = Figure(figsize=(11.2, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    _plot_readers(left, table[table["measure"] == "enrichment"], _LEFT)
    left.set_yscale("log", base=2)
    left.yaxis.set_major_formatter(plain_number)
    left.set_ylim(bottom=max(_LEAST, left.get_ylim()[0]))
    left.axhline(1, color="0.2", linewidth=0.8)
    left.annotate("chance", (1, 1), (-2, 2), ("axes fraction", "data"), "offset points", ha="right", fontsize="small")
    left.set_ylabel("hazards' share of attribution\nby their share of patches")
    left.set_xlabel("steps before the jump")
    left.set_title("does attribution find the hazard?", fontsize="medium", loc="left")
    _plot_readers(right, table[table["measure"] == "loss"], _RIGHT)
    right.axhline(0, color="0.2", linewidth=0.8)
    right.set_ylabel("lost log-odds of a jump")
    right.set_xlabel("hidden from so many steps before the jump on")
    right.set_title("does the real agent need it?", fontsize="medium", loc="left")
    set_title(figure, title)
    return figure


def _plot_readers(ax: Axes, table: "pd.DataFrame", looks: dict) -> None:
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
