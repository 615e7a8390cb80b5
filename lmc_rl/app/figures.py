"""Figures of the page: a training with its forks, a path with its episodes.

Axis letters: P pairs of children, E episodes, A alphas.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from lmc_rl.analysis.barrier import BARRIER, CONNECTED, Estimate, Profile
from lmc_rl.analysis.figures import (
    GREY,
    alpha_axis,
    chord_of,
    draw_curve,
    draw_returns,
    mean_of,
)
from lmc_rl.analysis.results import LineResult, Pooled
from mop.common.errors import InputError
from mop.plotting.hover import add_note
from mop.plotting.panels import legend_below, make_panels, set_title, steps_axis
from mop.plotting.style import HUES, Figure

Log = Mapping[str, np.ndarray]  # a training log: name of a column -> its numbers, NaN where there is none
VERDICT_HUES = {CONNECTED: HUES["green"], BARRIER: HUES["vermilion"]}  # undecided, or not measured yet: grey
NOT_MEASURED = "not measured yet"
RETURN = "return"  # the curve of evaluations over that of the training episodes
LOSS = "cross_entropy"  # the first curve of an imitation run
ESTIMATES = {"barrier": "chord barrier B", "instability": "instability I"}
_MARKERS = "osD^vP*X"
_WIDTH_IN, HEIGHT_IN = 8.2, 3.6
_STRIP = 0.012  # of the width of the axes, that shows the text of a fork point
CLICK = "; click for its path"
_BINS = 40  # over the height of the axes: episodes that are nearer to each other share a text
_LISTED = 6  # episodes that a text names


@dataclass(frozen=True)
class Unit:
    """A measure of lines, and the unit of its barrier."""

    measure: str
    name: str
    factor: float
    digits: int
    about: str  # for the title of a figure
    is_share: bool = False  # of what was learned

    def of(self, profile: Profile) -> Estimate:
        """The barrier of a path in this unit but for the factor; NaN where the ends are no better than chance."""
        return profile.barrier.over(profile.scale) if self.is_share else profile.barrier


SHARE = Unit("return", "%", 100, 1, "% of (return of the ends - random policy)", True)
SHARE_OF_LOSS = Unit("cross_entropy", "%", 100, 1, "% of (chance - cross-entropy of the ends)", True)
NATS = Unit("cross_entropy", "nats", 1, 3, "of the cross-entropy on the bot's trajectories")
POINTS = Unit("success", "points", 100, 1, "of success, % of the episodes")


def lost_text(name: str, estimate: Estimate, unit: Unit = SHARE) -> str:
    """ "B 12.3 % (95 %: 4.0 to 20.1)"."""
    if not np.isfinite(estimate.value):
        return f"no {name}, as its ends are no better than chance"
    value, low, high = (f"{unit.factor * n:.{unit.digits}f}" for n in (estimate.value, estimate.low, estimate.high))
    return f"{name} {value} {unit.name} (95 %: {low} to {high})"


def lost_texts(line: LineResult) -> dict[str, str]:
    """B of a line in words, by the measure."""
    names = {SHARE: "B", NATS: "B", POINTS: "B of success"}
    return {
        unit.measure: lost_text(name, unit.of(line.profiles[unit.measure]), unit)
        for unit, name in names.items()
        if unit.measure in line.profiles
    }


@dataclass(frozen=True)
class Mark:
    """A fork point of a run; line: of all weights between its children, None where it was not measured yet."""

    fork: int
    step: int  # of the environment
    fraction: float  # of the training
    line: LineResult | None

    @property
    def verdict(self) -> str:
        """Of its line."""
        return NOT_MEASURED if self.line is None else self.line.main.verdict

    @property
    def text(self) -> str:
        """All of it in a line."""
        words = f"fork {self.fork}, at {self.fraction:.0%} (step {self.step:,}): {self.verdict}"
        return ", ".join([words, *(lost_texts(self.line).values() if self.line else ())])


@dataclass(frozen=True)
class Curve:
    """A run, or several that differ in their seeds alone, as one line of a figure."""

    label: str
    hue: str
    marker: str
    points: Sequence[Pooled]
    logs: Sequence[Log]  # of the parents
    run: str = ""  # the word of the run, where it is one


# --- one run ----------------------------------------------------------------------------------------------------------


def curves_of(log: Log) -> list[str]:
    """What can be drawn of a training log: how good it is, then every other column but counters and clocks."""
    counters = {"update", "env_steps", "gradient_steps", "episodes", "steps_per_s", "seconds", "eval_std"}
    counters |= {"recent_episodes", "student_episodes", "bot_plan_failures"}
    counters |= {name for name in log if name.startswith("failures_")}
    returns = {"eval_return", "recent_return"}
    columns = [name for name in log if name not in counters | returns and np.isfinite(log[name]).any()]
    first = [name for name in (LOSS, "accuracy", "success_rate") if name in columns]
    return [RETURN] * bool(returns & log.keys()) + first + [name for name in columns if name not in first]


def plot_training(
    parent: Log,
    marks: Sequence[Mark],
    children: Mapping[str, Log],
    curve: str = RETURN,
    chosen: int | None = None,
    title: str = "",
) -> Figure:
    """A curve of the training over environment steps, with the fork points in the colours of their verdicts.

    children: name -> log of the children of the chosen fork, which continue the line.
    """
    figure, ax = one_panel()
    columns = _curve_columns(parent, curve)
    for name, column, style in columns:
        _draw_log(ax, "run" if name == "evaluation" else name, parent, column, **style)
    shown = columns[-1][1]
    for (name, log), hue in zip(children.items(), cycle(["sky", "purple", "orange", "green"]), strict=False):
        if shown in log:
            _draw_log(ax, name, log, shown, color=HUES[hue], linewidth=1.2)
    right = max([ax.get_xlim()[1], *(mark.step for mark in marks)])
    ax.set_xlim(0, right)
    bottom, top = ax.get_ylim()
    for mark in marks:
        _draw_mark(ax, mark, mark.fork == chosen, (bottom, top), right)
    ax.set_ylim(bottom, top)
    ax.set_ylabel(curve.replace("_", " "))
    steps_axis(ax)
    return with_legend(figure, ax, title)


def _curve_columns(log: Log, curve: str) -> list[tuple[str, str, dict]]:
    """Name, column and style of the lines of a curve, the one that children continue last."""
    if curve != RETURN:
        lines = [("run", curve, {"color": HUES["blue"]})]
    else:
        lines = [
            ("run, last 20 training episodes", "recent_return", {"color": "#bbbbbb", "linewidth": 1}),
            ("evaluation", "eval_return", {"color": HUES["blue"]}),
        ]
    lines = [line for line in lines if line[1] in log and np.isfinite(log[line[1]]).any()]
    if not lines:
        raise InputError(f"the training log has no {curve.replace('_', ' ')}")
    return lines


def _draw_log(ax: Axes, name: str, log: Log, column: str, **style) -> None:
    is_there = np.isfinite(log[column])
    steps, values = log["env_steps"][is_there], log[column][is_there]
    ax.plot(steps, values, label=name, **style)
    for x, y in zip(steps.tolist(), values.tolist(), strict=True):
        text = f"{name}, step {x:,.0f}: {column.replace('_', ' ')} {y:,.4g}"
        add_note(ax, x, x, y, y, text, line=name, env_steps=int(x), **{column: y})


def _draw_mark(ax: Axes, mark: Mark, is_chosen: bool, limits: tuple[float, float], right: float) -> None:
    """A line over the whole height with a text, and a name above it."""
    hue = VERDICT_HUES.get(mark.verdict, GREY)
    label = f"fork: {mark.verdict}"
    known = ax.get_legend_handles_labels()[1]
    style: dict[str, Any] = {
        "linewidth": 3 if is_chosen else 1.4,
        "linestyle": "solid" if mark.line else "dotted",
        "zorder": 0,
    }
    ax.axvline(mark.step, color=hue, label=label if label not in known else None, **style)
    weight = "bold" if is_chosen else "normal"
    at_top: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "xytext": (0, 3), "textcoords": "offset points"}
    ax.annotate(str(mark.fork), (mark.step, 1), ha="center", color=hue, weight=weight, fontsize="small", **at_top)
    values = {"fork": mark.fork, "env_steps": mark.step, "fraction": mark.fraction, "verdict": mark.verdict}
    if mark.line is not None:
        barrier = SHARE.of(mark.line.main)
        values |= {"barrier": barrier.value, "low": barrier.low, "high": barrier.high}
    half = _STRIP * right / 2
    add_note(ax, mark.step - half, mark.step + half, *limits, mark.text + CLICK * (mark.line is not None), **values)


def plot_episodes(line: LineResult, title: str = "") -> Figure:
    """The return of each episode along the line of one fork or control, and their mean with its 95 % interval.

    Dashed: the chord between the ends; dotted: the policy that acts at random.
    """
    figure, ax = one_panel()
    profile, alphas = line.main, line.alphas
    _draw_dots(ax, line)
    if len(line.pairs) > 1:
        for pair_means in profile.gains.mean(axis=1):
            ax.plot(alphas, pair_means, color=HUES["sky"], linewidth=0.9)
    draw_returns(ax, line)
    means = mean_of(line, "return")
    chord = chord_of(means, alphas)
    ax.plot(alphas[[0, -1]], means[[0, -1]], "o", color=HUES["blue"], markersize=7, label="ends")
    deepest = int((chord - means).argmax())
    if chord[deepest] > means[deepest]:
        ends = [alphas[deepest]] * 2, [means[deepest], chord[deepest]]
        ax.plot(*ends, color=HUES["vermilion"], linewidth=2, label="largest drop below the chord")
    alpha_axis(ax, _ends_of(line))
    ax.set_ylabel("return")
    about = f"{profile.verdict}: {lost_text('B', SHARE.of(profile))}"
    about += f" of {profile.scale:,.1f} above chance" if profile.scale > 0 else ""
    return with_legend(figure, ax, ", ".join([*filter(None, [title]), about]))


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


MEASURES = {  # panel -> name in the file: what the line is called
    "TD error (root mean square)": {"td_error": ""},
    "KL of the policy, nats": {"kl_to_first": "from the first end", "kl_to_second": "from the second end"},
}


def plot_measures(line: LineResult, title: str = "") -> Figure:
    """Plot the other measures along the interpolation line of an RL run, a panel each; of several pairs, the mean."""
    measured = [path_measures for path_measures in line.facts if path_measures]
    if not measured:
        raise InputError("nothing but the return was measured along this path; continue the experiment with --resume")
    alphas = np.array(measured[0]["places"])
    known = {name for names in MEASURES.values() for name in names}
    others = [name for name, value in measured[0].items() if isinstance(value, list) and len(value) == len(alphas)]
    panels = {panel: names for panel, names in MEASURES.items() if names.keys() & set(others)}
    panels |= {name.replace("_", " "): {name: ""} for name in others if name not in known | {"places"}}
    figure, axes = make_panels(1, len(panels), _WIDTH_IN / max(2, len(panels)), 2.9, 0.6)
    for ax, (panel, names) in zip(axes[0], panels.items(), strict=True):
        for (name, label), hue in zip(names.items(), cycle(("blue", "orange", "green", "purple")), strict=False):
            values = np.mean([path_measures[name] for path_measures in measured], axis=0)
            draw_curve(ax, alphas, values, label or panel, panel, color=HUES[hue], marker=".")
        alpha_axis(ax, "between the ends")
        ax.set_ylabel(panel)
        ax.set_ylim(0, max(1.08 * ax.dataLim.ymax, 1e-9))
        if any(names.values()):
            ax.legend(frameon=False, fontsize="small")
    if "distance" in measured[0]:
        distance = np.mean([path_measures["distance"] for path_measures in measured])
        title = ", ".join([*filter(None, [title]), f"distance between the endpoints {distance:.3g}"])
    set_title(figure, title)
    return figure


# --- helpers ----------------------------------------------------------------------------------------------------------


def looks(num_curves: int) -> list[tuple[str, str]]:
    """A hue and a marker for each of some curves."""
    hues = list(HUES.values())
    return [(hues[k % len(hues)], marker(k // len(hues))) for k in range(num_curves)]


def marker(number: int) -> str:
    """The marker of the n-th seed."""
    return _MARKERS[number % len(_MARKERS)]


def one_panel() -> tuple[Figure, Axes]:
    figure, axes = make_panels(1, 1, _WIDTH_IN, HEIGHT_IN, 0.2)
    return figure, axes[0, 0]


def with_legend(figure: Figure, ax: Axes, title: str) -> Figure:
    """The figure with its title, and a legend below the axes."""
    legend_below(figure, *ax.get_legend_handles_labels(), fontsize="small")
    set_title(figure, title)
    return figure
