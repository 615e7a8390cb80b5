"""Figures of the page: a training with its forks, a path with its episodes, several runs over each other.

Axis letters: P pairs of children, E episodes, A places on the line.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from lmc_rl.figures import alpha_axis, mean_and_error, steps_axis
from lmc_rl.instability import BARRIER, CONNECTED, VERDICTS, Estimate
from mop.common.errors import InputError
from mop.plotting.hover import add_note
from mop.plotting.panels import make_panels, set_title
from mop.plotting.style import HUES, counted, open_frame, wrapped
from mop.statistics.intervals import interval_of_mean

if TYPE_CHECKING:
    from lmc_rl.analysis import PathResult, Pooled

Table = Mapping[str, np.ndarray]  # a training log: name of a column -> its numbers, NaN where there is none
VERDICT_HUES = {CONNECTED: HUES["green"], BARRIER: HUES["vermilion"]}  # undecided, or not measured yet: grey
NOT_MEASURED = "not measured yet"
GREY = "#888888"
RETURN = "return"  # the curve of evaluations over that of the training episodes
LOSS = "cross_entropy"  # the first curve of an imitation run
LOST = {"barrier": "chord barrier B", "instability": "instability I"}
_MARKERS = "osD^vP*X"
_WIDTH_IN, _HEIGHT_IN = 8.2, 3.6
_STRIP = 0.012  # of the width of the axes, that shows the text of a fork point
_CLICK = "; click for its path"
_BINS = 40  # over the height of the axes: episodes that are nearer to each other share a text
_LISTED = 6  # episodes that a text names


@dataclass(frozen=True)
class Mark:
    """A fork point of a run; result: its path, None where it was not measured yet."""

    fork: int
    step: int  # of the environment
    fraction: float  # of the training
    result: "PathResult | None"
    lost: str = ""  # in words; "": B of the result as a share

    @property
    def verdict(self) -> str:
        """Of its path."""
        return NOT_MEASURED if self.result is None else self.result.verdict

    @property
    def text(self) -> str:
        """All of it in a line."""
        words = f"fork {self.fork}, at {self.fraction:.0%} (step {self.step:,}): {self.verdict}"
        if self.result is None:
            return words
        return f"{words}, {self.lost or lost_text('B', normalised(self.result).barrier)}"


@dataclass(frozen=True)
class Unit:
    """What a barrier is told in."""

    name: str
    factor: float
    digits: int
    about: str  # for the title of a figure


SHARE = Unit("%", 100, 1, "% of (return of the ends - random policy)")
SHARE_OF_LOSS = Unit("%", 100, 1, "% of (chance - cross-entropy of the ends)")
NATS = Unit("nats", 1, 3, "of the cross-entropy on the bot's trajectories")
POINTS = Unit("points", 100, 1, "of success, % of the episodes")


@dataclass(frozen=True)
class Normalised:
    """B and I of a path as shares of (return of the ends - random policy)."""

    barrier: Estimate
    instability: Estimate


@dataclass(frozen=True)
class Line:
    """A run, or several that differ in their seeds alone, as one line of a figure."""

    label: str
    hue: str
    marker: str
    points: Sequence["Pooled"]
    logs: Sequence[Table]  # of the parents
    run: str = ""  # the word of the run, where it is one


def normalised(result: "PathResult") -> Normalised:
    """B and I as shares; NaN where the ends are no better than chance."""
    return Normalised(result.barrier.over(result.scale), result.instability.over(result.scale))


def lost_text(name: str, estimate: Estimate, unit: Unit = SHARE) -> str:
    """ "B 12.3 % (95 %: 4.0 to 20.1)"."""
    if not np.isfinite(estimate.value):
        return f"no {name}, as its ends are no better than chance"
    value, low, high = (f"{unit.factor * n:.{unit.digits}f}" for n in (estimate.value, estimate.low, estimate.high))
    return f"{name} {value} {unit.name} (95 %: {low} to {high})"


# --- one run ----------------------------------------------------------------------------------------------------------


def curves_of(log: Table) -> list[str]:
    """What can be drawn of a training log: how good it is, then every other column but counters and clocks."""
    counters = {"update", "env_steps", "gradient_steps", "episodes", "steps_per_s", "seconds", "eval_std"}
    counters |= {"student_episodes", "bot_plan_failures", *(name for name in log if name.startswith("failures_"))}
    returns = {"eval_return", "recent_return"}
    columns = [name for name in log if name not in counters | returns and np.isfinite(log[name]).any()]
    first = [name for name in (LOSS, "accuracy", "success_rate") if name in columns]
    return [RETURN] * bool(returns & log.keys()) + first + [name for name in columns if name not in first]


def plot_training(
    parent: Table, marks: Sequence[Mark], children: Mapping[str, Table], curve: str = RETURN,
    chosen: int | None = None, title: str = "",
) -> Figure:  # fmt: skip
    """A curve of the training over environment steps, with the fork points in the colours of their verdicts.

    children: name -> log of those of the chosen fork, which continue the line. Raises InputError where the log has
    nothing of this curve.
    """
    figure, ax = _one_panel()
    for name, column, style in _curve_columns(parent, curve):
        _draw_curve(ax, "run" if name == "evaluation" else name, parent, column, **style)
    shown = _curve_columns(parent, curve)[-1][1]
    for (name, log), hue in zip(children.items(), _cycle(["sky", "purple", "orange", "green"]), strict=False):
        if shown in log:
            _draw_curve(ax, name, log, shown, color=HUES[hue], linewidth=1.2)
    _, right = ax.get_xlim()
    right = max([right, *(mark.step for mark in marks)])
    ax.set_xlim(0, right)
    bottom, top = ax.get_ylim()
    for mark in marks:
        _draw_mark(ax, mark, mark.fork == chosen, (bottom, top), right)
    ax.set_ylim(bottom, top)
    ax.set_ylabel(curve.replace("_", " "))
    steps_axis(ax)
    open_frame(ax)
    _legend(figure, ax)
    set_title(figure, title)
    return figure


def _curve_columns(log: Table, curve: str) -> list[tuple[str, str, dict]]:
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


def _draw_curve(ax: Axes, name: str, log: Table, column: str, **style) -> None:
    is_there = np.isfinite(log[column])
    steps, values = log["env_steps"][is_there], log[column][is_there]
    ax.plot(steps, values, label=name, **style)
    for x, y in zip(steps.tolist(), values.tolist(), strict=True):
        text = f"{name}, step {x:,.0f}: {column.replace('_', ' ')} {y:,.4g}"
        add_note(ax, x, x, y, y, text, line=name, env_steps=int(x), **{column: y})


def _draw_mark(ax: Axes, mark: Mark, is_chosen: bool, limits: tuple[float, float], right: float) -> None:
    """A line over the whole height with a text, and a name above it."""
    hue = VERDICT_HUES.get(mark.verdict, GREY)
    known = ax.get_legend_handles_labels()[1]
    label = f"fork: {mark.verdict}"
    ax.axvline(
        mark.step, color=hue, linewidth=3 if is_chosen else 1.4, linestyle="solid" if mark.result else "dotted",
        zorder=0, label=label if label not in known else None,
    )  # fmt: skip
    weight = "bold" if is_chosen else "normal"
    at_top = {"xycoords": ("data", "axes fraction"), "xytext": (0, 3), "textcoords": "offset points"}
    ax.annotate(str(mark.fork), (mark.step, 1), ha="center", color=hue, weight=weight, fontsize="small", **at_top)
    values = {"fork": mark.fork, "env_steps": mark.step, "fraction": mark.fraction, "verdict": mark.verdict}
    if mark.result is not None:
        barrier = normalised(mark.result).barrier
        values |= {"barrier": barrier.value, "low": barrier.low, "high": barrier.high}
    half = _STRIP * right / 2
    add_note(ax, mark.step - half, mark.step + half, *limits, mark.text + _CLICK * (mark.result is not None), **values)


def plot_episodes(result: "PathResult", title: str = "") -> Figure:
    """The return of each episode along the line of one fork or control, and their mean with its 95 % interval.

    Dashed: the chord between the ends; dotted: the policy that acts at random.
    """
    figure, ax = _one_panel()
    places, (means, errors) = result.places, mean_and_error(result)
    chord = (1 - places) * means[0] + places * means[-1]
    ax.axhline(result.random_return, color="#aaaaaa", linewidth=1, linestyle="dotted", label="random policy")
    _draw_dots(ax, result)
    if len(result.pairs) > 1:
        for pair_means in result.returns.mean(axis=1):
            ax.plot(places, pair_means, color=HUES["sky"], linewidth=0.9)
    ax.plot(places, chord, color=GREY, linestyle="dashed", linewidth=1.3, label="chord")
    ax.errorbar(places, means, errors, color=HUES["blue"], elinewidth=0.9, label="mean return, 95 % over episodes")
    ax.plot(places[[0, -1]], means[[0, -1]], "o", color=HUES["blue"], markersize=7, label="ends")
    for a, mean, error, on_chord in zip(*(x.tolist() for x in (places, means, errors, chord)), strict=True):
        text = f"alpha {a:.2f}: mean return {mean:,.1f} ± {error:,.1f}, {on_chord - mean:,.1f} below the chord"
        numbers = {"mean_return": mean, "low": mean - error, "high": mean + error, "chord": on_chord}
        add_note(ax, a, a, mean, mean, text, alpha=a, **numbers)
    deepest = int((chord - means).argmax())
    if chord[deepest] > means[deepest]:
        ends = [places[deepest]] * 2, [means[deepest], chord[deepest]]
        ax.plot(*ends, color=HUES["vermilion"], linewidth=2, label="largest drop below the chord")
    alpha_axis(ax, ends_of(result))
    ax.set_ylabel("return")
    _legend(figure, ax)
    about = f"{result.verdict}: {lost_text('B', normalised(result).barrier)}"
    about += f" of {result.scale:,.1f} above chance" if result.scale > 0 else ""
    set_title(figure, ", ".join([*filter(None, [title]), about]))
    return figure


def _draw_dots(ax: Axes, result: "PathResult") -> None:
    """A dot for each episode; those that lie on each other share a text, which names some of them."""
    low, high = float(result.returns.min()), float(result.returns.max())
    bins = np.minimum((result.returns - low) / max(high - low, 1e-9) * _BINS, _BINS - 1).astype(int)
    several = len(result.pairs) > 1
    for k, a in enumerate(result.places.tolist()):
        values = result.returns[..., k]  # (P, E)
        label = "an episode" if k == 0 else None
        ax.plot(np.full(values.size, a), values.ravel(), ".", color="#86a9c2", markersize=4, zorder=1, label=label)
        for number in np.unique(bins[..., k]):
            members = np.argwhere(bins[..., k] == number)
            names = [_episode_name(result, p, e, several) for p, e in members[:_LISTED]]
            more = f" and {len(members) - _LISTED} more" if len(members) > _LISTED else ""
            least, most = (float(f(values[tuple(members.T)])) for f in (np.min, np.max))
            spread = f"{least:,.1f}" if least == most else f"{least:,.1f} to {most:,.1f}"
            text = f"alpha {a:.2f}, {'; '.join(names)}{more}: return {spread}"
            for rank, (p, e) in enumerate(members):
                value = float(values[p, e])
                row = {"children": _pair_name(result.pairs[p]), "episode": int(e), "alpha": a, "return": value}
                y = (least + most) / 2
                add_note(ax, a, a, y, y, "" if rank else text, **row)


def _episode_name(result: "PathResult", pair: int, episode: int, several: bool) -> str:
    return f"episode {episode}" + (f" of children {_pair_name(result.pairs[pair])}" if several else "")


def _pair_name(pair: tuple[int, int] | None) -> str:
    return "" if pair is None else f"{pair[0]} and {pair[1]}"


def ends_of(result: "PathResult") -> str:
    """What the line leads from and to."""
    names = {
        "self": "from a child to its twin of the same noise",
        "independent": "from the run to one from other weights",
    }
    pairs = " or ".join(f"child {pair[0]} to child {pair[1]}" for pair in result.pairs[:1] if pair)
    more = ", and other pairs" if len(result.pairs) > 1 else ""
    return names.get(result.kind, f"from {pairs}{more}" if pairs else "from one end to the other")


MEASURES = {  # panel -> name in the file: what the line is called
    "TD error (root mean square)": {"td_error": ""},
    "KL of the policy, nats": {"kl_to_first": "from the first end", "kl_to_second": "from the second end"},
}


def plot_measures(result: "PathResult", title: str = "") -> Figure:
    """What else was measured along the line, a panel for each measure; of several pairs, the mean.

    Raises InputError where it was not measured.
    """
    found = [measures for measures in result.measures if measures]
    if not found:
        raise InputError("nothing but the return was measured along this path; continue the experiment with --resume")
    places = np.array(found[0]["places"])
    known = {name for lines in MEASURES.values() for name in lines}
    others = [name for name, value in found[0].items() if isinstance(value, list) and len(value) == len(places)]
    panels = {panel: lines for panel, lines in MEASURES.items() if lines.keys() & set(others)}
    panels |= {name.replace("_", " "): {name: ""} for name in others if name not in known | {"places"}}
    figure, axes = make_panels(1, len(panels), _WIDTH_IN / max(2, len(panels)), 2.9, 0.6)
    for ax, (panel, lines) in zip(axes[0], panels.items(), strict=True):
        for (name, label), hue in zip(lines.items(), ("blue", "orange"), strict=False):
            values = np.mean([measures[name] for measures in found], axis=0)
            ax.plot(places, values, color=HUES[hue], marker=".", label=label or None)
            for a, value in zip(places.tolist(), values.tolist(), strict=True):
                text = f"alpha {a:.2f}: {panel} {label} {value:.4g}".replace("  ", " ")
                add_note(ax, a, a, value, value, text, measure=name, alpha=a, value=value)
        alpha_axis(ax, "between the ends")
        ax.set_ylabel(panel)
        ax.set_ylim(0, max(1.08 * ax.dataLim.ymax, 1e-9))
        if any(lines.values()):
            ax.legend(frameon=False, fontsize="small")
    distances = (
        [f"distance of the ends {np.mean([m['distance'] for m in found]):.3g}"] if "distance" in found[0] else []
    )
    set_title(figure, ", ".join([*filter(None, [title]), *distances]))
    return figure


# --- several runs -----------------------------------------------------------------------------------------------------


def plot_lost(lines: Sequence[Line], measure: str = "barrier", title: str = "", unit: Unit = SHARE) -> Figure:
    """B or I against the fork point with 95 % intervals, a line for each run or group of runs, on one axis.

    measure: a key of LOST. Dotted: the same between independent runs. Raises InputError where there is no fork point.
    """
    figure, ax = _one_panel()
    draw_lost(ax, lines, measure, unit)
    _legend(figure, ax)
    set_title(figure, ", ".join([*filter(None, [title]), unit.about]))
    return figure


def draw_lost(ax: Axes, lines: Sequence[Line], measure: str, unit: Unit) -> None:
    """The same on an axis, without legend and title. Raises as `plot_lost`."""
    forks = {line.label: [p for p in line.points if p.kind == "fork" and _is_known(p, measure)] for line in lines}
    if not any(forks.values()):
        raise InputError("no fork point was measured whose children are better than chance: train for longer")
    if unit in (SHARE, SHARE_OF_LOSS):
        tolerance = next(point for line in lines for point in line.points).results[0].tolerance
        ax.axhline(tolerance, color=GREY, linestyle="dashed", linewidth=1, label="tolerance")
    for line, shift in zip(lines, _shifts(len(lines)), strict=True):
        points = forks[line.label]
        estimates = [getattr(point, measure) for point in points]
        error = np.abs([[e.value - e.low for e in estimates], [e.high - e.value for e in estimates]]).reshape(2, -1)
        places = np.array([point.fraction for point in points]) + shift
        style = {"color": line.hue, "marker": line.marker, "markersize": 5, "linewidth": 1.4, "capsize": 2}
        ax.errorbar(places, [e.value for e in estimates], error, label=line.label, **style)
        for place, point, estimate in zip(places.tolist(), points, estimates, strict=True):
            _note_lost(ax, line, point, estimate, measure, unit, place)
    _draw_independent(ax, lines, measure, unit)
    ax.set_xlim(-0.02, 1.0)
    ax.set_ylim(bottom=-0.03 * ax.get_ylim()[1])  # a marker at 0 is whole
    for axis in (ax.xaxis, *([ax.yaxis] if unit.factor == 100 else [])):
        axis.set_major_formatter(PercentFormatter(1, 0))
    ax.set_xlabel("fork point, % of training")
    ax.set_ylabel(LOST[measure] + (f", {unit.name}" if unit.name != "%" else ""))
    open_frame(ax)


def _draw_independent(ax: Axes, lines: Sequence[Line], measure: str, unit: Unit) -> None:
    """What is lost between independent runs, a dotted line in the hue of each, and one name for all."""
    known = [(line, p) for line in lines for p in line.points if p.kind == "independent" and _is_known(p, measure)]
    for line, point in known:
        value = getattr(point, measure).value
        ax.axhline(value, color=line.hue, linestyle="dotted", linewidth=1)
        text = f"{line.label}: {lost_text(LOST[measure], getattr(point, measure), unit)} between independent runs"
        add_note(ax, 0.97, 1.0, value, value, text, line=line.label, kind="independent", value=value)
    if known:
        ax.plot([], [], color=GREY, linestyle="dotted", linewidth=1, label="between independent runs")


def plot_beside(panels: Mapping[str, tuple[Sequence[Line], Unit]], title: str = "") -> Figure:
    """B against the fork point, a panel for each family of runs, all on one scale.

    panels: title -> its lines, and the share that they are told in. Raises as `plot_lost`.
    """
    figure, axes = make_panels(1, len(panels), 5.0, _HEIGHT_IN, 0.6, sharey=True)
    for ax, (name, (lines, unit)) in zip(axes[0], panels.items(), strict=True):
        draw_lost(ax, lines, "barrier", unit)
        ax.set_title(name, loc="left", fontsize="medium")
        ax.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(0, -0.17))
    # an interval of two seeds can be many times as long as all that can be lost
    axes[0, 0].set_ylim(-0.03, min(1.05 * max(ax.dataLim.ymax for ax in axes[0]), 1.5))
    axes[0, 0].set_ylabel("lost on the line, % of what was learned")
    for ax in axes[0, 1:]:
        ax.set_ylabel("")
    if title:
        set_title(figure, title)
    return figure


def _note_lost(ax: Axes, line: Line, point: "Pooled", estimate: Estimate, measure: str, unit: Unit, place: float):
    says = [point.verdict] if point.verdict in VERDICTS else []
    told = ", ".join([lost_text(LOST[measure], estimate, unit), *says, counted(len(point.results), "parent")])
    values = {"line": line.label, "kind": "fork", "fraction": point.fraction, "value": estimate.value}
    values |= {"low": estimate.low, "high": estimate.high, "verdict": point.verdict, "parents": len(point.results)}
    values |= {"run": line.run, "fork": point.results[0].fork} if line.run else {}
    text = f"{line.label}, forked at {point.fraction:.0%}: {told}{_CLICK if line.run else ''}"
    add_note(ax, place, place, estimate.value, estimate.value, text, **values)


def plot_paths(
    lines: Sequence[Line], kind: str, fraction: float | None, title: str = "", what: str = "return"
) -> Figure:
    """Return along the path of one fork point or control, as a share of what was learned, a line for each run or group.

    0 is the policy that acts at random, 1 the mean of the ends. Bands: 95 %, over parents where there are several, else
    over episodes. Raises InputError where no run has such a path.
    """
    figure, ax = _one_panel()
    shown = 0
    for line in lines:
        point = next((p for p in line.points if p.kind == kind and _same(p.fraction, fraction)), None)
        results = [result for result in (point.results if point else ()) if result.scale > 0]
        if not results:
            continue
        shown += 1
        places, mean, low, high = _pooled_path(results)
        ax.plot(places, mean, color=line.hue, marker=line.marker, markersize=3, label=line.label)
        ax.fill_between(places, low, high, color=line.hue, alpha=0.15, linewidth=0)
        for a, m, bottom, top in zip(*(x.tolist() for x in (places, mean, low, high)), strict=True):
            text = f"{line.label}, alpha {a:.2f}: {m:.0%} (95 %: {bottom:.0%} to {top:.0%}) of what was learned"
            values = {"line": line.label, "alpha": a, "share": m, "low": bottom, "high": top}
            add_note(ax, a, a, m, m, text, **values, parents=len(results))
    if not shown:
        raise InputError("none of these runs has this path, with ends that are better than chance")
    ax.axhline(0, color="#aaaaaa", linestyle="dotted", linewidth=1, label="random policy")
    alpha_axis(ax, "between the ends")
    ax.yaxis.set_major_formatter(PercentFormatter(1, 0))
    ax.set_ylabel(f"{what}, % of what was learned")
    _legend(figure, ax)
    set_title(figure, title)
    return figure


def _pooled_path(results: Sequence["PathResult"]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Places, mean share, and the ends of its interval, each (A,)."""
    places = results[0].places
    pairs = [(mean_and_error(result), result) for result in results if len(result.places) == len(places)]
    shares = np.array([(mean - result.random_return) / result.scale for (mean, _), result in pairs])
    if len(shares) > 1:
        mean, half = interval_of_mean(shares)
    else:
        mean, half = shares[0], pairs[0][0][1] / pairs[0][1].scale
    return places, mean, mean - half, mean + half


def plot_curves(lines: Sequence[Line], title: str = "", column: str = "eval_return") -> Figure:
    """A column of the logs of the runs over environment steps; of several that differ in their seeds, mean and 95 %
    band. Raises InputError where no run has it.
    """
    figure, ax = _one_panel()
    called = {"eval_return": "return of evaluations"}.get(column, column.replace("_", " "))
    for line in lines:
        logs = [log for log in line.logs if column in log and np.isfinite(log[column]).any()]
        if not logs:
            continue
        steps, values = _common_steps(logs, column)
        mean, half = interval_of_mean(values) if len(logs) > 1 else (values[0], np.zeros(len(steps)))
        ax.plot(steps, mean, color=line.hue, marker=line.marker, markersize=3, label=line.label)
        ax.fill_between(steps, mean - half, mean + half, color=line.hue, alpha=0.15, linewidth=0)
        for x, m, h in zip(*(values.tolist() for values in (steps, mean, half)), strict=True):
            spread = f" (95 %: {_short(m - h)} to {_short(m + h)})" if len(logs) > 1 else ""
            text = f"{line.label}, step {x:,.0f}: {called} {_short(m)}{spread}"
            numbers = {"env_steps": int(x), column: m}
            numbers |= {"low": m - h, "high": m + h} if len(logs) > 1 else {}
            add_note(ax, x, x, m, m, text, line=line.label, **numbers, parents=len(logs))
    if not ax.lines:
        raise InputError(f"none of these runs has the {called} in its training log; of run_env, set --eval_freq")
    steps_axis(ax)
    ax.set_ylabel(called)
    open_frame(ax)
    _legend(figure, ax)
    set_title(figure, title)
    return figure


def _short(number: float) -> str:
    """With one decimal, or three digits of a small one."""
    return f"{number:,.1f}" if abs(number) >= 10 else f"{number:.3g}"


def _common_steps(logs: Sequence[Table], column: str) -> tuple[np.ndarray, np.ndarray]:
    """The steps (S,) at which all of them have the column, and its values (parents, S)."""
    found = [{s: v for s, v in zip(log["env_steps"], log[column], strict=True) if np.isfinite(v)} for log in logs]
    steps = sorted(set.intersection(*map(set, found)))
    return np.array(steps), np.array([[of_one[step] for step in steps] for of_one in found])


# --- helpers ----------------------------------------------------------------------------------------------------------


def looks(num_lines: int) -> list[tuple[str, str]]:
    """A hue and a marker for each of some lines."""
    hues = list(HUES.values())
    return [(hues[k % len(hues)], _MARKERS[k // len(hues) % len(_MARKERS)]) for k in range(num_lines)]


def marker(number: int) -> str:
    """The marker of the n-th seed."""
    return _MARKERS[number % len(_MARKERS)]


def _is_known(point: "Pooled", measure: str) -> bool:
    return bool(np.isfinite(getattr(point, measure).value))


def _same(one: float | None, other: float | None) -> bool:
    return one is other or (one is not None and other is not None and abs(one - other) < 1e-9)


def _shifts(num_lines: int) -> np.ndarray:
    """To the side, so that the intervals of several lines can be told apart."""
    return np.linspace(-0.008, 0.008, num_lines) if num_lines > 1 else np.zeros(1)


def _cycle(hues: Sequence[str]) -> Iterator[str]:
    while True:
        yield from hues


def _one_panel() -> tuple[Figure, Axes]:
    figure, axes = make_panels(1, 1, _WIDTH_IN, _HEIGHT_IN, 0.0)
    return figure, axes[0, 0]


def _legend(figure: Figure, ax: Axes) -> None:
    """Below the axes, in as many columns as have room."""
    handles, labels = ax.get_legend_handles_labels()
    labels = [wrapped(label, _WIDTH_IN / 2) for label in labels]
    columns = max(1, min(len(labels), int((_WIDTH_IN + 0.6) / (0.6 + 0.08 * max(map(len, labels))))))
    figure.set_figheight(_HEIGHT_IN + 0.2 * -(-len(labels) // columns))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize="small")
