"""The page of linear mode connectivity: what is chosen, its numbers and its figures."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

import marimo as mo
import numpy as np

from lmc_rl.analysis.barrier import CONNECTED
from lmc_rl.analysis.figures import plot_lines, plot_parts
from lmc_rl.analysis.report import percent, table_of
from lmc_rl.analysis.results import Experiment, LineResult, by_group, pooled_groups, pooled_lines
from lmc_rl.app import figures as views
from lmc_rl.app.catalog import ALL, EVERY, ShownExperiment, find_experiments, load_shown
from lmc_rl.app.pooled_figures import plot_curves, plot_lost, plot_paths
from lmc_rl.config import names_of
from mop.apps.elements import View, choice_dropdown, several_dropdown, table
from mop.apps.flags import SavingSettings
from mop.apps.template import Page, PageFigure
from mop.artifacts.run_paths import PLOTS_DIR
from mop.common.cli import as_flags, setting
from mop.common.errors import InputError
from mop.plotting.style import counted

RESULTS_DIR = "results"
POOLED, EACH = "pooled", "each"  # words for how seeds are shown
SEEDS = {"pooled, 95 % over parents": POOLED, "each by itself, 95 % over episodes": EACH}
_MAX_CURVES = 18  # of a figure; more cannot be told apart


@dataclass(frozen=True)
class Settings(SavingSettings):
    """What the page shows first, and what a script saves."""

    results_dir: str = setting(RESULTS_DIR, "folder with experiments below")
    run: str | None = setting(None, "begin with this experiment, by its folder below --results_dir", metavar="FOLDER")
    fork: str | None = setting(None, "... at this fork, or at a control: self, independent", metavar="N")
    part: str | None = setting(None, "... with this part of the weights moving: all, aligned, routers (of run_mop)")
    runs: tuple[str, ...] | None = setting(None, "show these over each other", metavar="FOLDER")


class Several(NamedTuple):
    """A figure of several runs."""

    name: str  # of the file
    title: str
    unit: views.Unit | None = None  # of what is lost on lines, against the fork point
    estimate: str = "barrier"
    is_of_groups: bool = False  # a panel for each group, whose seeds are always pooled


_SEVERAL = {  # main measure of the runs -> what is drawn of several
    "return": (
        Several("barrier", "chord barrier B", views.SHARE),
        Several("instability", "instability I", views.SHARE, "instability"),
        Several("paths", "return along the path"),
        Several("curves", "learning curves"),
    ),
    "cross_entropy": (
        Several("barrier", "barrier B, nats", views.NATS),
        Several("instability", "instability I, nats", views.NATS, "instability"),
        Several("share", "barrier B, % of what was learned", views.SHARE_OF_LOSS),
        Several("success", "barrier of success, points", views.POINTS),
        Several("parts", "rise by the part that moves", is_of_groups=True),
        Several("paths", "cross-entropy along the path"),
        Several("curves", "learning curves"),
    ),
}


def several_of(shown: ShownExperiment) -> dict[str, Several]:
    """What can be drawn of several such runs, by name."""
    return {several.name: several for several in _SEVERAL[shown.experiment.config.MAIN]}


# --- what is chosen ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Choices:
    """What a page or a script shows."""

    results_dir: str
    shown: ShownExperiment
    path: str  # the word of a fork or control, "" where there is none
    several: tuple[ShownExperiment, ...]
    part: str = ""  # a word of `ShownExperiment.parts`, "" where there is none

    @property
    def flags(self) -> list[str]:
        """The flags that choose the same again."""
        words = {"results_dir": None if self.results_dir == RESULTS_DIR else self.results_dir, "run": self.shown.word}
        words |= {"fork": self.path or None, "part": None if self.part in ("", EVERY) else self.part}
        return as_flags(words | {"runs": [other.word for other in self.several]})

    @property
    def line(self) -> LineResult:
        """The chosen path, with all weights moving."""
        if self.path not in self.shown.paths:
            raise InputError(f"{self.shown.title} has no path yet")
        return self.shown.paths[self.path]

    @property
    def measured(self) -> list[Experiment]:
        """Those of the several runs that have a path."""
        return [other.experiment for other in self.several if other.experiment.lines]

    @property
    def moving(self) -> str:
        """The part whose barrier is shown."""
        return ALL if self.part in ("", EVERY) else self.part

    @property
    def suffix(self) -> str:
        """Of the names of files that depend on the part."""
        return f"_{self.part}" if self.part not in ("", EVERY) else ""

    @property
    def path_file(self) -> str:
        """The name of files of the chosen path."""
        return (f"fork_{self.path}" if self.path.isdigit() else self.path) + self.suffix

    def part_words(self, part: str) -> str:
        """What moves, in words."""
        return next((called for called, word in part_names(self.shown).items() if word == part), "")

    def several_file(self, figure: str, seeds: str) -> str:
        """The name of the file of `draw_several`."""
        is_of_groups = several_of(self.shown)[figure].is_of_groups
        each = "" if seeds == POOLED or is_of_groups else "_each_seed"
        return f"several_{figure}{'' if is_of_groups or figure == 'curves' else self.suffix}{each}"


def path_name(line: LineResult) -> str:
    """ "fork 2, at 50%", "control: self"."""
    return f"fork {line.fork}, at {line.fraction:.0%}" if line.kind == "fork" else f"control: {line.kind}"


def path_names(shown: ShownExperiment) -> dict[str, str]:
    """The name of each path on the page -> its word."""
    return {f"{path_name(line)} ({line.main.verdict})": word for word, line in shown.paths.items()}


def part_names(shown: ShownExperiment) -> dict[str, str]:
    """The name of each part that can move along a line -> its word; none of `run_env`."""
    called = {EVERY: "every part, over each other", ALL: "all weights", "ends": "input and head"}
    called |= {"aligned": "all weights, to the aligned second end"}
    return {called.get(word, word.replace("_", " ")): word for word in shown.parts}


def _choose(shown: ShownExperiment, flag: str, asked: str | None, words: Collection[str]) -> str:
    """The word that is asked for, else the first; "" where there is none."""
    if asked is not None and asked not in words:
        known = f"it has {', '.join(words) or 'none yet'}"
        raise InputError(f"--{flag}: {shown.title} has no {'path' if flag == 'fork' else flag} {asked}; {known}")
    return asked or next(iter(words), "")


def choose(
    results_dir: str,
    shown: ShownExperiment,
    several: tuple[ShownExperiment, ...],
    fork: str | None = None,
    part: str | None = None,
) -> "Choices":
    """The choices of the flags: by default the first fork with a path, else a control, and the first part."""
    path = _choose(shown, "fork", fork, shown.paths)
    return Choices(results_dir, shown, path, several, _choose(shown, "part", part, shown.parts))


def choose_runs(found: Mapping[str, str], asked: Sequence[str] | None, word: str) -> list[str]:
    """The words of several runs: those that are asked for, else one and those next to it, of the same environment."""
    for other in asked or ():
        if other not in found.values():
            raise InputError(f"there is no experiment {other}; there are {', '.join(found.values())}")
    root = word.split("/")[:-2]
    others = [other for other in found.values() if other.split("/")[:-2] == root and other != word]
    return list(asked or [word, *others][:_MAX_CURVES])


def load_several(
    results_dir: str, words: Sequence[str], like: ShownExperiment
) -> tuple[tuple[ShownExperiment, ...], list[str]]:
    """The experiments of these words, and what is wrong with those that cannot be shown with another one."""
    several, problems = [], []
    for word in words:
        try:
            other = load_shown(results_dir, word)
            if other.is_rl != like.is_rl:
                raise InputError(f"{other.title} is of another kind than {like.title}: they share no scale")
            by_group(own.experiment for own in (*several, other) if own.experiment.lines)  # may raise
            several.append(other)
        except InputError as error:
            problems.append(str(error))
    return tuple(several), problems


def line_controls(shown: ShownExperiment, first: "Choices", view: View):
    """Dropdowns of a curve of the training, of a path and, for an imitation run, of the part that moves."""
    curves = {curve.replace("_", " "): curve for curve in views.curves_of(shown.log)} or {"none": ""}
    controls = {
        "curve": choice_dropdown(view, "curve", curves, next(iter(curves.values())), "Curve"),
        "fork": choice_dropdown(view, "fork", path_names(shown) or {"none yet": ""}, first.path, "Path"),
    }
    if moving := part_names(shown):
        controls["part"] = choice_dropdown(view, "part", moving, first.part, "What moves")
    return mo.ui.dictionary(controls)


def several_controls(found: Mapping[str, str], shown: ShownExperiment, view: View):
    """A choice of several runs, and dropdowns of what is shown of them."""
    kinds = {several.title: name for name, several in several_of(shown).items()}
    return mo.ui.dictionary(
        {
            "runs": several_dropdown(view, "runs", found, choose_runs(found, None, shown.word), "Runs"),
            "show": choice_dropdown(view, "show", kinds, "barrier", "Show"),
            "seeds": choice_dropdown(view, "seeds", SEEDS, POOLED, "Seeds"),
        }
    )


def link_to_fork(view: View) -> Callable[[Mapping], str]:
    """For `show_figure`: from a fork point in a figure to its path; what else the address says stays."""

    def address(values: Mapping) -> str:
        if "fork" not in values or values["verdict"] == views.NOT_MEASURED:
            return ""
        run = {"run": values["run"]} if values.get("run") else {}
        return view.here({**run, "fork": values["fork"]})

    return address


# --- in numbers -------------------------------------------------------------------------------------------------------


def facts(shown: ShownExperiment) -> list[tuple[str, str, str]]:
    """The numbers of an experiment at first sight: name, value, remark."""
    columns = {"eval_return": "return"} if shown.is_rl else {"success_rate": "success", "accuracy": "accuracy"}
    what = "last evaluation" if shown.is_rl else "last episodes"
    found = []
    for column, name in columns.items():
        values = shown.log.get(column, np.array([]))
        if np.isfinite(values).any():
            last = np.flatnonzero(np.isfinite(values))[-1]
            number = f"{values[last]:,.1f}" if shown.is_rl else f"{values[last]:.1%}"
            found.append((name, number, f"{what}, step {shown.log['env_steps'][last]:,.0f}"))
    paths = shown.paths
    if not shown.experiment.lines:
        return found
    if shown.is_rl:
        chance = next(iter(paths.values())).main.chance
        found.append(("random policy", f"{chance:,.1f}", "return by chance"))
    found.append(("connected from", _connected_from(shown.marks), "and at every later fork point"))
    for kind in ("independent", "self"):
        if kind in paths:
            share = percent(views.SHARE.of(paths[kind].main))
            found.append((f"B, {kind}, %", share, f"control: {paths[kind].main.verdict}"))
    return found


def _connected_from(marks: Sequence[views.Mark]) -> str:
    """The earliest fork point from which on every path is connected."""
    connected = [*takewhile(lambda mark: mark.verdict == CONNECTED, reversed(marks))]
    return f"{connected[-1].fraction:.0%}" if connected else "no fork point"


def explained() -> mo.Html:
    """What a path, its chord, B and I are: a drawing."""
    return mo.Html(Path(__file__).with_name("explained.svg").read_text(encoding="utf-8"))


def as_table(choices: Choices):
    """The fork points and controls of several runs, a row each; those that differ in their seeds are pooled."""
    head, rows = table_of(pooled_groups(choices.measured, [choices.moving])) if choices.measured else ((), [])
    return table([dict(zip(head, row, strict=True)) for row in rows], page_size=20)


# --- figures ----------------------------------------------------------------------------------------------------------


def curves_of_groups(choices: Choices, seeds: str, unit: views.Unit | None = None) -> list[views.Curve]:
    """The curves of a figure of several runs: one for each group that differs in its seeds alone, or for each run.

    unit: of what is lost; None: the share of what was learned. Runs of a group have its hue, and a marker each.
    """
    shown_in = unit or (views.SHARE if choices.shown.is_rl else views.SHARE_OF_LOSS)
    shown_of = {id(other.experiment): other for other in choices.several}
    groups = by_group(choices.measured)
    if not groups:
        raise InputError("choose at least one run with an evaluated path")

    def curve(label: str, hue: str, sign: str, members: Sequence[Experiment], run: str = "") -> views.Curve:
        points = [point.of(shown_in.measure, shown_in.is_share) for point in pooled_lines(members, [choices.moving])]
        logs = [shown_of[id(member)].log for member in members]
        return views.Curve(label, hue, sign, [point for point in points if point.is_known], logs, run)

    names = names_of([members[0].config for members in groups])
    curves = []
    for name, members, (hue, of_group) in zip(names, groups, views.looks(len(groups)), strict=True):
        if seeds == POOLED:
            curves.append(curve(f"{name}, {counted(len(members), 'seed')}", hue, of_group, members))
            continue
        for number, member in enumerate(members):
            label, word = f"{name}, seed {member.config.drawn_seed}", shown_of[id(member)].word
            curves.append(curve(label, hue, views.marker(number), [member], word))
    if len(curves) > _MAX_CURVES:
        raise InputError(f"{len(curves)} lines cannot be told apart: choose at most {_MAX_CURVES} runs, or pool them")
    return curves


def figures_of(choices: Choices) -> list[PageFigure]:
    """Every figure of the chosen run and of several."""
    shown, figures = choices.shown, []
    for curve in views.curves_of(shown.log):
        about = f"The {curve.replace('_', ' ')} of the run over its training, with its fork points"
        figures.append(PageFigure(f"training_{curve}", about, partial(draw_training, choices, curve)))
    for word, line in shown.paths.items():
        own, called = replace(choices, path=word), path_name(line)
        about = f"The return of each episode along the line of {called}"
        if shown.is_rl:
            more = f"What else was measured along the line of {called}"
            figures.append(PageFigure(f"measures_{own.path_file}", more, partial(draw_measures, own)))
        else:
            about = f"What happens along the line of {called}, {choices.part_words(choices.part)}"
        figures.append(PageFigure(f"path_{own.path_file}", about, partial(draw_path, own)))
    for several in several_of(shown).values():
        for seeds in (POOLED,) if several.is_of_groups else (POOLED, EACH):
            title = f"{several.title[0].upper()}{several.title[1:]}"
            about = f"{title}, seeds {'pooled' if seeds == POOLED else 'each by itself'}"
            draw = partial(draw_several, choices, several.name, seeds)
            figures.append(PageFigure(choices.several_file(several.name, seeds), about, draw))
    return figures


def draw_training(choices: Choices, curve: str):
    """`plot_training` of the chosen run, with the children of the chosen fork."""
    shown = choices.shown
    if not shown.log:
        raise InputError(f"{shown.title} has no training log yet")
    fork = int(choices.path) if choices.path.isdigit() else None
    return views.plot_training(shown.log, shown.marks, shown.children_of(choices.path), curve, fork, shown.title)


def draw_path(choices: Choices):
    """`plot_episodes` of the chosen path, of an imitation run `plot_lines`."""
    title = f"{choices.shown.title}, {path_name(choices.line)}"
    if choices.shown.is_rl:
        return views.plot_episodes(choices.line, title)
    lines = choices.shown.lines_of(choices.path, choices.part)
    if len(lines) > 1:
        return plot_lines(lines, title)
    (line,) = lines
    lost = [
        f"{line.verdict_of(name)}: {text}" if line.has_verdict else text
        for name, text in views.lost_texts(line).items()
    ]
    return plot_lines(lines, f"{title}, {choices.part_words(choices.part)}, {'; '.join(lost)}")


def draw_measures(choices: Choices):
    """`plot_measures` of the chosen path."""
    return views.plot_measures(choices.line, f"{choices.shown.title}, {path_name(choices.line)}")


def draw_several(choices: Choices, figure: str, seeds: str):
    """One of `several_of`."""
    several, is_rl = several_of(choices.shown)[figure], choices.shown.is_rl
    if several.is_of_groups:
        return _draw_parts(choices)
    curves = curves_of_groups(choices, seeds, several.unit)
    if figure == "curves":
        return plot_curves(curves, "eval_return" if is_rl else views.LOSS)
    if figure == "paths":
        what = "return" if is_rl else "cross-entropy below chance"
        return plot_paths(curves, choices.line, path_name(choices.line), what)
    moving = "" if is_rl else choices.part_words(choices.moving)
    if not any(curve.points for curve in curves):
        raise InputError(f"no line on which {moving} moves was played in worlds; see --played_parts of run_mop")
    return plot_lost(curves, several.unit or views.SHARE, several.estimate, moving)


def _draw_parts(choices: Choices):
    """A panel for each group of runs that differ in their seeds alone."""
    groups = pooled_groups(choices.measured)
    forked = {name: own for name, own in groups.items() if any(point.first.kind == "fork" for point in own)}
    if not forked:
        raise InputError("choose at least one run with a fork point that was measured")
    return plot_parts(forked)


# --- the page ---------------------------------------------------------------------------------------------------------


def page_of(choices: Choices, plots_dir: str = PLOTS_DIR) -> Page:
    """The page of what is chosen."""

    def describe(name: str) -> list[str]:
        named = choices.several if name.startswith("several_") else (choices.shown,)
        return [f"Run: {shown.title} ({shown.word}), {_describe(shown)}." for shown in named]

    folder = Path(plots_dir) / "lmc" / choices.shown.word
    return Page("lmc_viz.py", choices.flags, folder, figures_of(choices), describe, plots_dir)


def _describe(shown: ShownExperiment) -> str:
    config = shown.experiment.config
    parts = [config.size]
    if config.fork_points:
        parts.append(f"{config.alpha_points:,} policies along each line")
        parts.append(f"{counted(config.num_eval_episodes, 'episode')} of each")
    return ", ".join(parts)


def first_run(found: Mapping[str, str], asked: str | None) -> str:
    """The word of the run of --run, else of the first."""
    return choose_runs(found, [asked] if asked else None, next(iter(found.values())))[0]


def save_as_script(args: Settings) -> None:
    """Save every figure of a run and of several, or those that --only names."""
    found = find_experiments(args.results_dir)
    word = first_run(found, args.run)
    shown = load_shown(args.results_dir, word)
    several, problems = load_several(args.results_dir, choose_runs(found, args.runs, word), shown)
    for problem in [*problems, *([f"{shown.title}: {shown.note}"] if shown.note else [])]:
        print(f"note: {problem}")
    page_of(choose(args.results_dir, shown, several, args.fork, args.part), args.plots_dir).save_as_script(args)
