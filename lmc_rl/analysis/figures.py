"""Figures of what was measured along lines, and what figures of `lmc_rl` share.

Axis letters: P pairs of children, E episodes, A alphas.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from lmc_rl.analysis.barrier import Profile
from lmc_rl.analysis.results import LineResult, Pooled
from lmc_rl.analysis.units import SHARE, Unit, lost_on
from mop.common.errors import InputError
from mop.plotting.hover import add_note
from mop.plotting.panels import legend_below, set_title, wrap_panels
from mop.plotting.style import HUES, Figure, open_frame, wrapped
from mop.statistics.intervals import interval_of_mean

Log = Mapping[str, np.ndarray]  # a training log: name of a column -> its numbers, NaN where there is none
GREY, LIGHT_GREY = "#888888", "#bbbbbb"
PANEL_IN = (3.9, 2.7)  # width and height of one of several panels
_FEW_IN = {1: (8.2, 3.6), 2: (5.0, 2.7)}  # ... of so few
_FRACTIONS = colormaps["viridis"]
_LAYERS = colormaps["plasma"]
_PART_HUES = {"all": "black", "all, aligned": GREY}
_PART_HUES |= {"routers": HUES["orange"], "experts": HUES["blue"], "ends": HUES["green"]}
_BINS = 40  # over the height of the axes: episodes that are nearer to each other share a text
_LISTED = 6  # episodes that a text names
MEASURE_NAMES = {"cross_entropy": "cross-entropy, nats", "lpc": "mean LPC"}
_OF_LINES = {  # a measure of a line of an RL run -> its panel, and what the curve is called
    "td_error": ("TD error (root mean square)", "TD error (root mean square)"),
    "kl_to_first": ("KL of the policy, nats", "from the first end"),
    "kl_to_second": ("KL of the policy, nats", "from the second end"),
}


@dataclass(frozen=True)
class Curve:
    """A run, or several that differ in their seeds alone, as one line of a figure."""

    label: str
    hue: str
    marker: str
    points: Sequence[Pooled]
    unit: Unit = SHARE
    estimate: str = "barrier"  # a key of ESTIMATES
    logs: Sequence[Log] = ()  # of the parents
    run: str = ""  # the word of the run, where it is one

    @property
    def style(self) -> dict[str, Any]:
        """Of its line, over alphas or steps."""
        return {"color": self.hue, "marker": self.marker, "markersize": 3}


# --- returns ----------------------------------------------------------------------------------------------------------


def plot_path(lines: Mapping[str, LineResult], title: str = "") -> Figure:
    """The return of each episode along the line of a fork or control, and their mean, a panel for each parent.

    Bars: 95 % over episodes; dashed: the chord between the ends; dotted: the policy that acts at random.
    """
    figure, axes = make_figure(len(lines))
    for ax, (label, line) in zip(axes, lines.items(), strict=True):
        _draw_dots(ax, line)
        _draw_returns(ax, line)
        alpha_axis(ax, _ends_of(line))
        lost = lost_on(line) + (f" of {line.main.scale:,.1f} above chance" if line.main.scale > 0 else "")
        if label:
            name_panel(ax, f"{label}\n{lost}")
        else:
            title = ", ".join([*filter(None, [title]), lost])
    axes[0].set_ylabel("return")
    return finish(figure, axes, title)


def _draw_returns(ax: Axes, line: LineResult) -> None:
    """Mean return with its 95 % interval, the means of several pairs, the chord, and the largest drop below it."""
    means, halves = line.main.mean_and_half()
    chord = chord_of(means, line.alphas)
    if len(line.pairs) > 1:
        for of_pair in line.main.gains.mean(axis=1):
            ax.plot(line.alphas, of_pair, color=HUES["sky"], linewidth=0.9)
    ax.axhline(line.main.chance, color=LIGHT_GREY, linewidth=1, linestyle="dotted", label="random policy")
    ax.plot(line.alphas, chord, color=GREY, linestyle="dashed", linewidth=1.2, label="chord")
    label = "mean return, 95 % over episodes"
    ax.errorbar(line.alphas, means, halves, color=HUES["blue"], elinewidth=0.9, label=label)
    ax.plot(line.alphas[[0, -1]], means[[0, -1]], "o", color=HUES["blue"], markersize=7, label="ends")
    deepest = int((chord - means).argmax())
    if chord[deepest] > means[deepest]:
        drop = [line.alphas[deepest]] * 2, [means[deepest], chord[deepest]]
        ax.plot(*drop, color=HUES["vermilion"], linewidth=2, label="largest drop below the chord")
    for a, mean, half, on_chord in zip(*(x.tolist() for x in (line.alphas, means, halves, chord)), strict=True):
        text = f"alpha {a:.2f}: mean return {mean:,.1f} ± {half:,.1f}, {on_chord - mean:,.1f} below the chord"
        numbers = {"mean_return": mean, "low": mean - half, "high": mean + half, "chord": on_chord}
        add_note(ax, a, a, mean, mean, text, alpha=a, **numbers)


def _draw_dots(ax: Axes, line: LineResult) -> None:
    """A dot for each episode; those that lie on each other share a text, which names some of them."""
    returns = line.main.gains
    low, high = float(returns.min()), float(returns.max())
    bins = np.minimum((returns - low) / max(high - low, 1e-9) * _BINS, _BINS - 1).astype(int)
    for k, a in enumerate(line.alphas.tolist()):
        values = returns[..., k]  # (P, E)
        label = "an episode" if k == 0 else None
        ax.plot(np.full(values.size, a), values.ravel(), ".", color="#86a9c2", markersize=4, zorder=1, label=label)
        for number in np.unique(bins[..., k]):
            members = np.argwhere(bins[..., k] == number)
            names = [_episode_name(line, p, e) for p, e in members[:_LISTED]]
            more = f" and {len(members) - _LISTED} more" if len(members) > _LISTED else ""
            least, most = (float(f(values[tuple(members.T)])) for f in (np.min, np.max))
            spread = f"{least:,.1f}" if least == most else f"{least:,.1f} to {most:,.1f}"
            text = f"alpha {a:.2f}, {'; '.join(names)}{more}: return {spread}"
            for rank, (p, e) in enumerate(members):
                row = {"children": _pair_name(line.pairs[p]), "episode": int(e), "alpha": a}
                y = (least + most) / 2
                add_note(ax, a, a, y, y, "" if rank else text, **row, **{"return": float(values[p, e])})


def _episode_name(line: LineResult, pair: int, episode: int) -> str:
    more = f" of children {_pair_name(line.pairs[pair])}" if len(line.pairs) > 1 else ""
    return f"episode {episode}{more}"


def _pair_name(pair: tuple[int, int] | None) -> str:
    return "" if pair is None else f"{pair[0]} and {pair[1]}"


def _ends_of(line: LineResult) -> str:
    """Where the line begins and ends."""
    if line.kind == "self":
        return "from a child to its twin of the same noise"
    if line.kind == "independent":
        return "from the run to one from other weights"
    if line.pairs[0] is None:
        return "from one end to the other"
    first, second = line.pairs[0]
    return f"from child {first} to child {second}" + (", and other pairs" if len(line.pairs) > 1 else "")


# --- all measures ----------------------------------------------------------------------------------------------------


def plot_all_lines(runs: Mapping[str, Sequence[LineResult]], title: str = "") -> Figure:
    """The measures that have a barrier along the lines of all forks of a run, coloured by the fork point.

    A panel for each run and measure.
    """
    panels = [(label, name, lines) for label, lines in runs.items() for name in lines[0].profiles]
    figure, axes = make_figure(len(panels))
    for ax, (label, name, lines) in zip(axes, panels, strict=True):
        for line in lines:
            if name in line.profiles:
                style = {"color": "black", "linestyle": "dashed" if line.kind == "self" else "dotted"}
                if line.kind == "fork":
                    style = {"color": _FRACTIONS(0.95 * (line.fraction or 0.0))}
                draw_curve(ax, line.alphas, mean_of(line, name), line.where, name.replace("_", " "), **style)
        if name == "return":
            ax.axhline(lines[0].main.chance, color=LIGHT_GREY, linewidth=1, linestyle="dotted")
        else:
            label = MEASURE_NAMES.get(name, name) + (f", {label}" if len(runs) > 1 else "")
        name_panel(ax, label)
        alpha_axis(ax)
    if panels[0][1] == "return":
        axes[0].set_ylabel("return")
    return finish(figure, axes, title, "forked at")


def plot_lines(lines: Sequence[LineResult], title: str = "") -> Figure:
    """Every measure of imitation runs along the lines of one fork or control: a curve for each part that moves.

    The routing is shown for all weights. A single line has chords, 95 % intervals over trajectories and worlds, and its
    own routing.
    """
    shown = next((line for line in lines if line.name == "all"), lines[0])
    routing = [name for name, values in shown.means.items() if values.ndim == 3]
    known = dict.fromkeys(name for line in lines for name in (*line.profiles, *line.means))
    order = [name for name in ("cross_entropy", "accuracy", "success", "lpc") if name in known]
    measures = order + [name for name in known if name not in {*order, *routing, "path_ratio"}]
    num_panels = len(measures) + len(routing)
    figure, panels, lowest = wrap_panels(num_panels, 3, 3.3, 2.6, 0.6)
    names = [line.name for line in lines]
    for ax, measure in zip(panels, measures, strict=False):
        what = MEASURE_NAMES.get(measure, measure.replace("_", " "))
        for line in lines:
            if measure in line.profiles or measure in line.means:
                style = style_of_part(line.name, names)
                draw_curve(ax, line.alphas, mean_of(line, measure), words_of_part(line.name), what, **style)
        if len(lines) == 1 and measure != "accuracy":
            _draw_spread(ax, lines[0], measure)
        ax.set_title(what, loc="left", fontsize="medium")
    for ax, measure in zip(panels[len(measures) :], routing, strict=False):
        _draw_routing(ax, shown, measure)
    for ax in lowest:
        ax.set_xlabel("alpha")
    for ax in panels:
        ax.set_xlim(-0.02, 1.02)
        open_frame(ax)
    return finish(figure, panels[:1], title, "what moves")


def _draw_spread(ax: Axes, line: LineResult, measure: str) -> None:
    """The chord between the ends and, of what has a barrier, the interval of the mean."""
    y = mean_of(line, measure)
    ax.plot(line.alphas, chord_of(y, line.alphas), color=GREY, linestyle="dashed", linewidth=1)
    if measure in line.profiles:
        _, half = line.profiles[measure].mean_and_half()
        ax.fill_between(line.alphas, y - half, y + half, color=GREY, alpha=0.25, linewidth=0)


def _draw_routing(ax: Axes, line: LineResult, measure: str) -> None:
    """KL divergence of the routing of each layer from one end."""
    end, num_layers = measure.removeprefix("kl_to_"), line.means[measure].shape[-1]
    for layer in range(num_layers):
        hue = _LAYERS(0.85 * layer / max(1, num_layers - 1))
        values = line.means[measure].mean(0)[:, layer]
        draw_curve(ax, line.alphas, values, f"layer {layer}", f"KL from the {end} end in nats", color=hue)
    ax.set_title(f"KL of routing from the {end} end, nats", loc="left", fontsize="medium")
    ax.legend(frameon=False, fontsize="small")


def mean_of(line: LineResult, measure: str) -> np.ndarray:
    """A measure (A,) of a line, over pairs and episodes."""
    if measure not in line.profiles:
        return line.means[measure].mean(0)
    gains = line.profiles[measure].gains.mean((0, 1))
    return -gains if measure == "cross_entropy" else gains


def chord_of(values: np.ndarray, alphas: np.ndarray) -> np.ndarray:
    """The straight line between the ends of values (A,)."""
    return (1 - alphas) * values[0] + alphas * values[-1]


def plot_measures(line: LineResult, title: str = "") -> Figure:
    """Plot the other measures along the interpolation line of an RL run, a panel each; of several pairs, the mean."""
    measured = [of_pair for of_pair in line.facts if of_pair]
    if not measured:
        raise InputError("nothing but the return was measured along this path; continue the experiment with --resume")
    alphas = np.array(measured[0]["places"])
    panels: dict[str, dict[str, np.ndarray]] = {}
    for name, value in measured[0].items():
        if name != "places" and isinstance(value, list) and len(value) == len(alphas):
            panel, label = _OF_LINES.get(name, [name.replace("_", " ")] * 2)
            panels.setdefault(panel, {})[label] = np.mean([of_pair[name] for of_pair in measured], axis=0)
    figure, axes = make_figure(len(panels))
    for ax, (panel, curves) in zip(axes, panels.items(), strict=True):
        for (label, values), hue in zip(curves.items(), HUES.values(), strict=False):
            draw_curve(ax, alphas, values, label, panel, color=hue, marker=".")
        alpha_axis(ax, "between the ends")
        ax.set_ylabel(panel)
        ax.set_ylim(0, max(1.08 * ax.dataLim.ymax, 1e-9))
        if len(curves) > 1:
            ax.legend(frameon=False, fontsize="small")
    if "distance" in measured[0]:
        distance = np.mean([of_pair["distance"] for of_pair in measured])
        title = ", ".join([*filter(None, [title]), f"distance between the endpoints {distance:.3g}"])
    set_title(figure, title)
    return figure


# --- several runs -----------------------------------------------------------------------------------------------------


def plot_paths(curves: Sequence[Curve], like: LineResult, title: str = "", what: str = "return") -> Figure:
    """A measure along the path of one fork point or control, as a share of what was learned.

    A line for each run or group; 0 is the policy that acts at random, 1 the mean of the ends. Bands: 95 %, over parents
    where there are several, else over episodes. like: a line of that fork point or control.
    """
    figure, axes = make_figure(1)
    for curve in curves:
        points = [point for point in curve.points if _place(point.first) == _place(like)]
        profiles = [profile for point in points for profile in point.profiles if profile.scale > 0]
        if not profiles:
            continue
        band = draw_band(axes[0], curve.label, profiles[0].alphas, *_pooled_path(profiles), **curve.style)
        for a, m, low, high in band:
            text = f"{curve.label}, alpha {a:.2f}: {m:.0%} (95 %: {low:.0%} to {high:.0%}) of what was learned"
            values = {"line": curve.label, "alpha": a, "share": m, "low": low, "high": high}
            add_note(axes[0], a, a, m, m, text, **values, parents=len(profiles))
    if not axes[0].lines:
        raise InputError("none of these runs has this path, with ends that are better than chance")
    axes[0].axhline(0, color=LIGHT_GREY, linestyle="dotted", linewidth=1, label="random policy")
    alpha_axis(axes[0], "between the ends")
    axes[0].yaxis.set_major_formatter(PercentFormatter(1, 0))
    axes[0].set_ylabel(f"{what}, % of what was learned")
    return finish(figure, axes, title)


def _place(line: LineResult) -> tuple[str, float]:
    """What lines of one fork point or control have in common, over runs of different lengths."""
    return line.kind, round(line.fraction or 0.0, 9)


def _pooled_path(profiles: Sequence[Profile]) -> tuple[np.ndarray, np.ndarray]:
    """Mean share (A,) of what was learned, and half of its interval."""
    alike = [profile for profile in profiles if len(profile.alphas) == len(profiles[0].alphas)]
    found = [profile.mean_and_half() for profile in alike]
    shares = np.array([(mean - own.chance) / own.scale for (mean, _), own in zip(found, alike, strict=True)])
    return interval_of_mean(shares) if len(shares) > 1 else (shares[0], found[0][1] / alike[0].scale)


# --- helpers ----------------------------------------------------------------------------------------------------------


def make_figure(count: int, most_columns: int = 3) -> tuple[Figure, list[Axes]]:
    """A figure and its panels; a single one is large."""
    return wrap_panels(count, most_columns, *_FEW_IN.get(count, PANEL_IN), 0.6)[:2]


def name_panel(ax: Axes, text: str) -> None:
    """A title above one of several panels."""
    ax.set_title(wrapped(text, 0.85 * PANEL_IN[0]), fontsize="medium", loc="left")


def finish(figure: Figure, axes: Sequence[Axes], title: str, beside: str = "") -> Figure:
    """With a title, and a legend of all that axes show: below them, or beside them under a title of its own."""
    shown = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    if beside:
        style = {"title": beside, "loc": "outside right upper", "frameon": False, "fontsize": "small"}
        figure.legend([*shown.values()], [*shown], **style)
    elif shown:
        legend_below(figure, [*shown.values()], [*shown], fontsize="small")
    set_title(figure, title)
    return figure


def draw_band(
    ax: Axes, label: str, x: np.ndarray, mean: np.ndarray, half: np.ndarray, color: str, **style
) -> Iterator[tuple[float, ...]]:
    """A line with its band; x, mean, low and high of each point."""
    ax.plot(x, mean, color=color, label=label, **style)
    ax.fill_between(x, mean - half, mean + half, color=color, alpha=0.15, linewidth=0)
    return zip(*(values.tolist() for values in (x, mean, mean - half, mean + half)), strict=True)


def draw_curve(ax: Axes, x: np.ndarray, y: np.ndarray, name: str, what: str, **style) -> None:
    """A curve over alpha with a note at each point."""
    ax.plot(x, y, label=name, linewidth=1.4, **style)
    for a, value in zip(x, y, strict=True):
        number = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
        add_note(ax, a, a, value, value, f"{name}, alpha {a:.2f}: {what} {number}", name=name, alpha=a, value=value)


def alpha_axis(ax: Axes, ends: str = "from one child to the other") -> None:
    """Alphas on the x axis; ends: where the line begins and ends."""
    ax.set_xlabel(f"alpha, {ends}")
    ax.set_xlim(-0.02, 1.02)
    open_frame(ax)


def words_of_part(name: str) -> str:
    """What moves along a line, in words."""
    return name.replace("_", " ").replace("ends", "input and head")


def style_of_part(name: str, names: Sequence[str]) -> dict:
    """Of the curve of a part: layers are dashed, in the colours of the routing's layers."""
    if not name.startswith("layer_"):
        return {"color": _PART_HUES[name], "linestyle": "solid"}
    layers = sorted({other for other in names if other.startswith("layer_")}, key=lambda other: int(other[6:]))
    return {"color": _LAYERS(0.85 * layers.index(name) / max(1, len(layers) - 1)), "linestyle": "dashed"}
