"""Figures of lines between imitation runs: what is lost on them against the fork point, and what happens along them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from lmc_rl.figures import mean_and_error
from mop.plotting.hover import add_note
from mop.plotting.panels import make_panels, remove_empty, set_title
from mop.plotting.style import HUES, counted, open_frame, wrapped

if TYPE_CHECKING:
    from lmc_rl.line_analysis import LineExperiment, LineResult, PooledLine

_WIDTH = 3.9  # of a panel, in inches
_FRACTIONS = colormaps["viridis"]
_LAYERS = colormaps["plasma"]
_PART_HUES = {"all": "black", "all, aligned": "#888888", "routers": HUES["orange"], "experts": HUES["blue"],
              "ends": HUES["green"]}  # fmt: skip
_STYLES = {"as they are": ("blue", "o", False), "aligned": ("orange", "s", True)}


def plot_line_instability(groups: "Mapping[str, Sequence[PooledLine]]", title: str = "") -> Figure:
    """The chord barrier against the fork point with 95 % intervals, of all weights, before and after alignment.

    Above that of the cross-entropy in nats, below that of success; a column for each group. Dotted: independent runs.
    """
    is_played = any(line.success_barrier is not None for lines in groups.values() for line in lines)
    figure, axes = make_panels(1 + is_played, len(groups), _WIDTH, 2.6, 0.6, sharex=True, sharey="row")
    for column, (label, lines) in enumerate(groups.items()):
        of_all = [line for line in lines if line.first.part == "all"]
        _barriers(axes[0, column], of_all, "barrier", "nats", 1)
        parents = max(len(line.results) for line in lines)
        axes[0, column].set_title(wrapped(f"{label}, {counted(parents, 'parent')}", 0.85 * _WIDTH), loc="left",
                                  fontsize="medium")  # fmt: skip
        if is_played:
            _barriers(axes[1, column], of_all, "success_barrier", "points", 100)
        axes[-1, column].set_xlabel("fork point, % of training")
        axes[-1, column].xaxis.set_major_formatter(PercentFormatter(1, 0))
    axes[0, 0].set_ylabel("barrier of the\ncross-entropy, nats")
    if is_played:
        axes[1, 0].set_ylabel("barrier of success,\npoints")
    for row in axes:
        top = row[0].get_ylim()[1]
        row[0].set_ylim(-0.04 * top, top)  # last: it would keep the limits from growing
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize="small")
    if title:
        set_title(figure, title)
    return figure


def _barriers(ax: Axes, lines: "Sequence[PooledLine]", key: str, unit: str, factor: float) -> None:
    """One measure of the barrier at all fork points."""
    for shift, (name, (hue, marker, is_aligned)) in zip((-0.004, 0.004), _STYLES.items(), strict=True):
        own = [line for line in lines if line.first.is_aligned == is_aligned and getattr(line, key) is not None]
        forks = sorted((line for line in own if line.first.kind == "fork"), key=lambda line: line.first.fraction)
        x = np.array([line.first.fraction for line in forks]) + shift
        values = factor * np.array([[getattr(line, key).value, getattr(line, key).low, getattr(line, key).high]
                                    for line in forks]).reshape(-1, 3)  # fmt: skip
        error = np.abs(values[:, 1:] - values[:, :1]).T
        style = {"color": HUES[hue], "marker": marker, "markersize": 4, "linewidth": 1.2, "capsize": 2}
        if forks:
            ax.errorbar(x, values[:, 0], error, label=f"children, {name}", **style)
        for place, line, (value, low, high) in zip(x, forks, values, strict=True):
            text = f"forked at {line.first.fraction:.1%}, {name}: {value:.3g} {unit} ({low:.3g} to {high:.3g})"
            numbers = {"measure": key, "fraction": line.first.fraction, "aligned": is_aligned, "value": value}
            add_note(ax, place, place, value, value, text, **numbers, low=low, high=high, parents=len(line.results))
        for line in own:
            if line.first.kind == "independent":
                value = factor * getattr(line, key).value
                ax.axhline(value, color=HUES[hue], linewidth=1, linestyle="dotted", label=f"independent runs, {name}")
    open_frame(ax)


def plot_parts(groups: "Mapping[str, Sequence[PooledLine]]", title: str = "") -> Figure:
    """How far the cross-entropy rises above that of the first child where one part of the weights moves alone.

    Against the fork point; a panel for each group.
    """
    figure, axes = make_panels(1, len(groups), _WIDTH, 3.0, 0.6, sharey=True)
    for ax, (label, lines) in zip(axes[0], groups.items(), strict=True):
        forks = [line for line in lines if line.first.kind == "fork" and not line.first.is_aligned]
        names = list(dict.fromkeys(line.first.name for line in forks))
        for name in names:
            own = sorted((line for line in forks if line.first.name == name), key=lambda line: line.first.fraction)
            x, y = [line.first.fraction for line in own], [line.rise.value for line in own]
            ax.plot(x, y, label=_words(name), marker="o", markersize=3, **_style(name, names))
            for place, value in zip(x, y, strict=True):
                text = f"{_words(name)}, forked at {place:.1%}: rises by {value:.3g} nats"
                add_note(ax, place, place, value, value, text, part=name, fraction=place, value=value)
        ax.set_title(wrapped(label, 0.85 * _WIDTH), loc="left", fontsize="medium")
        ax.set_xlabel("fork point, % of training")
        ax.xaxis.set_major_formatter(PercentFormatter(1, 0))
        open_frame(ax)
    axes[0, 0].set_ylabel("rise of the cross-entropy, nats")
    top = axes[0, 0].get_ylim()[1]
    axes[0, 0].set_ylim(-0.04 * top, top)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, title="what moves", loc="outside right upper", frameon=False, fontsize="small")
    if title:
        set_title(figure, title)
    return figure


def plot_lines(lines: "Sequence[LineResult]", title: str = "") -> Figure:
    """What happens along the lines of one fork or control: cross-entropy, accuracy, success, LPC, each layer's routing.

    A curve for each part that moves; the routing is that of all weights. Of a single line there are 95 % intervals over
    trajectories and worlds, and chords, and the routing is its own.
    """
    panels = {"cross-entropy, nats": lambda line: -line.loss.returns.mean((0, 1))}
    panels["accuracy"] = lambda line: line.accuracy.mean(0)
    if any(line.success is not None for line in lines):
        panels["success"] = lambda line: None if line.success is None else line.success.returns.mean((0, 1))
    panels["mean LPC"] = lambda line: line.lpc.mean(0)
    figure, axes = make_panels(2, 3, 3.3, 2.6, 0.6)
    names = [line.name for line in lines]
    for ax, (what, values) in zip(axes.ravel(), panels.items(), strict=False):
        for line in lines:
            if (y := values(line)) is not None:
                _curve(ax, line.loss.places, y, _words(line.name), what, **_style(line.name, names))
        if len(lines) == 1 and ax.lines:
            _draw_spread(ax, lines[0], what)
        ax.set_title(what, loc="left", fontsize="medium")
    shown = next((line for line in lines if line.name == "all"), lines[0])
    for number, (ax, end) in enumerate(zip(axes.ravel()[len(panels) :], ("first", "second"), strict=False)):
        _draw_routing(ax, shown, number, end)
    for ax in remove_empty(axes, len(panels) + 2):
        ax.set_xlabel("alpha")
    for ax in axes.ravel()[: len(panels) + 2]:
        ax.set_xlim(-0.02, 1.02)
        open_frame(ax)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, title="what moves", loc="outside right upper", frameon=False, fontsize="small")
    if title:
        set_title(figure, title)
    return figure


def _draw_spread(ax: Axes, line: "LineResult", what: str) -> None:
    """The chord between the ends and, of the cross-entropy and of success, the interval of the mean."""
    places, y = line.loss.places, ax.lines[0].get_ydata()
    if what != "accuracy":
        ax.plot(places, (1 - places) * y[0] + places * y[-1], color="#888888", linestyle="dashed", linewidth=1)
    result = {"cross-entropy, nats": line.loss, "success": line.success}.get(what)
    if result is not None:
        _, error = mean_and_error(result)
        ax.fill_between(places, y - error, y + error, color="#888888", alpha=0.25, linewidth=0)


def _draw_routing(ax: Axes, line: "LineResult", number: int, end: str) -> None:
    """How far the routing of each layer is from that of one end."""
    num_layers = line.kl.shape[-1]
    for layer in range(num_layers):
        hue = _LAYERS(0.85 * layer / max(1, num_layers - 1))
        what = f"KL from the {end} end in nats"
        _curve(ax, line.loss.places, line.kl.mean(0)[number, :, layer], f"layer {layer}", what, color=hue)
    ax.set_title(f"KL of routing from the {end} end, nats", loc="left", fontsize="medium")
    ax.legend(frameon=False, fontsize="small")


def plot_all_lines(experiment: "LineExperiment", title: str = "") -> Figure:
    """Cross-entropy, and success if played, along the lines of all forks of a run, coloured by the fork point."""
    lines = [line for line in experiment.lines if line.name == "all"]
    has_success = any(line.success is not None for line in lines)
    figure, axes = make_panels(1, 1 + has_success, _WIDTH, 2.9, 0.6)
    for line in lines:
        name = line.kind if line.kind != "fork" else f"{line.fraction:.1%}"
        style = {"color": "black", "linestyle": {"self": "dashed"}.get(line.kind, "dotted")}
        style = style if line.fraction is None or line.kind != "fork" else {"color": _FRACTIONS(0.95 * line.fraction)}
        _curve(axes[0, 0], line.loss.places, -line.loss.returns.mean((0, 1)), name, "cross-entropy", **style)
        if line.success is not None:
            _curve(axes[0, 1], line.loss.places, line.success.returns.mean((0, 1)), name, "success", **style)
    for ax, what in zip(axes[0], ("cross-entropy, nats", "success"), strict=False):
        ax.set_title(what, loc="left", fontsize="medium")
        ax.set_xlabel("alpha, from one child to the other")
        ax.set_xlim(-0.02, 1.02)
        open_frame(ax)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, title="forked at", loc="outside right upper", frameon=False, fontsize="small")
    if title:
        set_title(figure, title)
    return figure


def _curve(ax: Axes, x: np.ndarray, y: np.ndarray, name: str, what: str, **style) -> None:
    ax.plot(x, y, label=name, linewidth=1.4, **style)
    for a, value in zip(x, y, strict=True):
        add_note(ax, a, a, value, value, f"{name}, alpha {a:.2f}: {what} {value:.3g}", name=name, alpha=a, value=value)


def _words(name: str) -> str:
    return name.replace("_", " ").replace("ends", "input and head")


def _style(name: str, names: Sequence[str]) -> dict:
    """Of the curve of a part: layers are dashed, in the colours of the routing's layers."""
    if not name.startswith("layer_"):
        return {"color": _PART_HUES[name], "linestyle": "solid"}
    layers = sorted({other for other in names if other.startswith("layer_")}, key=lambda other: int(other[6:]))
    return {"color": _LAYERS(0.85 * layers.index(name) / max(1, len(layers) - 1)), "linestyle": "dashed"}
