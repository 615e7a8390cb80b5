"""The page of linear mode connectivity: what is chosen, its numbers and its figures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

import marimo as mo
import numpy as np

from lmc_rl.analysis.barrier import CONNECTED
from lmc_rl.analysis.figures import Curve, plot_lines, plot_measures, plot_path, plot_paths, words_of_part
from lmc_rl.analysis.lost_figures import NONE_LEARNED, known, plot_lost, plot_parts
from lmc_rl.analysis.report import percent, table_of
from lmc_rl.analysis.results import LineResult, by_group, pooled_groups, pooled_lines
from lmc_rl.analysis.training_figures import LOSS, NOT_MEASURED, curves_of, plot_curves, plot_training
from lmc_rl.analysis.units import NATS, POINTS, SHARE, SHARE_OF_LOSS, Unit, lost_on
from lmc_rl.app.catalog import ALL, EVERY, ShownExperiment, find_experiments, load_shown
from lmc_rl.config import names_of
from mop.apps.elements import View, choice_dropdown, several_dropdown, table
from mop.apps.flags import SavingSettings
from mop.apps.template import Page, PageFigure
from mop.artifacts.run_paths import PLOTS_DIR
from mop.common.cli import as_flags, setting
from mop.common.errors import InputError
from mop.plotting.style import HUES, counted

RESULTS_DIR = "results"
POOLED, EACH = "pooled", "each"  # words for how seeds are shown
SEEDS = {"pooled, 95 % over parents": POOLED, "each by itself, 95 % over episodes": EACH}
PARTS = "parts"  # the figure with a panel for each group, whose seeds are always pooled
_MARKERS = "osD^vP*X"  # of the seeds of a group, and of groups of one hue
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
    unit: Unit  # of what is lost on lines
    estimate: str = "barrier"


_SEVERAL = {  # main measure of the runs -> what is drawn of several
    "return": (
        Several("barrier", "chord barrier B", SHARE),
        Several("instability", "instability I", SHARE, "instability"),
        Several("paths", "return along the path", SHARE),
        Several("curves", "learning curves", SHARE),
    ),
    "cross_entropy": (
        Several("barrier", "barrier B, nats", NATS),
        Several("instability", "instability I, nats", NATS, "instability"),
        Several("share", "barrier B, % of what was learned", SHARE_OF_LOSS),
        Several("success", "barrier of success, points", POINTS),
        Several(PARTS, "rise by the part that moves", NATS),
        Several("paths", "cross-entropy along the path", SHARE_OF_LOSS),
        Several("curves", "learning curves", SHARE_OF_LOSS),
    ),
}


def several_of(shown: ShownExperiment) -> dict[str, Several]:
    """What can be drawn of several such runs, by name."""
    return {several.name: several for several in _SEVERAL[shown.config.MAIN]}


# --- what is chosen ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Choices:
    """What a page or a script shows."""

    results_dir: str
    shown: ShownExperiment
    path: str  # the word of a fork or control, "" where there is none
    several: tuple[ShownExperiment, ...]
    part: str = EVERY  # what moves, a word of `ShownExperiment.parts`

    @property
    def flags(self) -> list[str]:
        """The flags that choose the same again."""
        words = {"results_dir": None if self.results_dir == RESULTS_DIR else self.results_dir, "run": self.shown.word}
        words |= {"fork": self.path or None, "part": None if self.part == EVERY else self.part}
        return as_flags(words | {"runs": [other.word for other in self.several]})

    @property
    def line(self) -> LineResult:
        """The chosen path, with all weights moving."""
        if self.path not in self.shown.paths:
            raise InputError(f"{self.shown.title} has no path yet")
        return self.shown.paths[self.path]

    @property
    def measured(self) -> list[ShownExperiment]:
        """Those of the several runs that have a path."""
        return [other for other in self.several if other.lines]

    @property
    def moving(self) -> str:
        """The part whose barrier is shown."""
        return ALL if self.part == EVERY else self.part

    @property
    def suffix(self) -> str:
        """Of the names of files that depend on the part."""
        return "" if self.part == EVERY else f"_{self.part}"

    @property
    def path_file(self) -> str:
        """The name of files of the chosen path."""
        return (f"fork_{self.path}" if self.path.isdigit() else self.path) + self.suffix

    def several_file(self, figure: str, seeds: str) -> str:
        """The name of the file of `draw_several`."""
        part = "" if figure in (PARTS, "curves") else self.suffix
        return f"several_{figure}{part}{'' if seeds == POOLED or figure == PARTS else '_each_seed'}"


def path_name(line: LineResult) -> str:
    """ "fork 2, at 50%", "control: self"."""
    return f"fork {line.fork}, at {line.fraction:.0%}" if line.kind == "fork" else f"control: {line.kind}"


def path_names(shown: ShownExperiment) -> dict[str, str]:
    """The name of each path on the page -> its word."""
    return {f"{path_name(line)} ({line.main.verdict})": word for word, line in shown.paths.items()}


def part_words(part: str) -> str:
    """What moves along a line, in words."""
    called = {EVERY: "every part, over each other", ALL: "all weights"}
    called |= {"aligned": "all weights, to the aligned second end"}
    return called.get(part) or words_of_part(part)


def choose(
    results_dir: str,
    shown: ShownExperiment,
    several: tuple[ShownExperiment, ...],
    fork: str | None = None,
    part: str | None = None,
) -> Choices:
    """The choices of the flags: by default the first fork with a path, else a control, and every part."""
    for flag, asked, words in (("fork", fork, shown.paths), ("part", part, shown.parts)):
        if asked is not None and asked not in words:
            has = ", ".join(words) or "none"
            raise InputError(f"--{flag}: {shown.title} has no {flag} {asked}; it has {has}")
    return Choices(results_dir, shown, fork or next(iter(shown.paths), ""), several, part or EVERY)


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
            by_group(own for own in (*several, other) if own.lines)  # may raise
            several.append(other)
        except InputError as error:
            problems.append(str(error))
    return tuple(several), problems


def line_controls(shown: ShownExperiment, first: Choices, view: View):
    """Dropdowns of a curve of the training, of a path and, for an imitation run, of the part that moves."""
    curves = {curve.replace("_", " "): curve for curve in curves_of(shown.log)} or {"none": ""}
    controls = {
        "curve": choice_dropdown(view, "curve", curves, next(iter(curves.values())), "Curve"),
        "fork": choice_dropdown(view, "fork", path_names(shown) or {"none yet": ""}, first.path, "Path"),
    }
    if moving := {part_words(part): part for part in shown.parts}:
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
    """For `show_figure`: from a fork point to its path, a heading of the page; what else the address says stays."""

    def address(values: Mapping) -> str:
        if "fork" not in values or values["verdict"] == NOT_MEASURED:
            return ""
        run = {"run": values["run"]} if values.get("run") else {}
        return f"{view.here({**run, 'fork': values['fork']})}#path"

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
    if not shown.lines:
        return found
    if shown.is_rl:
        chance = next(iter(paths.values())).main.chance
        found.append(("random policy", f"{chance:,.1f}", "return by chance"))
    connected = [*takewhile(lambda mark: mark.verdict == CONNECTED, reversed(shown.marks))]
    earliest = f"{connected[-1].fraction:.0%}" if connected else "no fork point"
    found.append(("connected from", earliest, "and at every later fork point"))
    for kind in ("independent", "self"):
        if kind in paths:
            share = percent(SHARE.of(paths[kind].main))
            found.append((f"B, {kind}, %", share, f"control: {paths[kind].main.verdict}"))
    return found


def explained() -> mo.Html:
    """What a path, its chord, B and I are: a drawing."""
    return mo.Html(Path(__file__).with_name("explained.svg").read_text(encoding="utf-8"))


def as_table(choices: Choices):
    """The fork points and controls of several runs, a row each; those that differ in their seeds are pooled."""
    head, rows = table_of(pooled_groups(choices.measured, [choices.moving])) if choices.measured else ((), [])
    return table([dict(zip(head, row, strict=True)) for row in rows], page_size=20)


# --- figures ----------------------------------------------------------------------------------------------------------


def curves_of_groups(choices: Choices, seeds: str, unit: Unit, estimate: str = "barrier") -> list[Curve]:
    """The curves of a figure of several runs: one for each group that differs in its seeds alone, or for each run.

    Runs of a group have its hue, and a marker each.
    """
    groups, hues, curves = by_group(choices.measured), [*HUES.values()], []
    if not groups:
        raise InputError("choose at least one run with an evaluated path")
    names = names_of([members[0].config for members in groups])
    for number, (name, members) in enumerate(zip(names, groups, strict=True)):
        turn, hue = divmod(number, len(hues))
        several = [(f"{name}, {counted(len(members), 'seed')}", turn, members, "")]
        each = [(f"{name}, seed {own.config.drawn_seed}", k, [own], own.word) for k, own in enumerate(members)]
        for label, sign, own, run in several if seeds == POOLED else each:
            points = [point.of(unit.measure, unit.is_share) for point in pooled_lines(own, [choices.moving])]
            points, logs = [point for point in points if point.is_known], [member.log for member in own]
            looks = hues[hue], _MARKERS[sign % len(_MARKERS)]
            curves.append(Curve(label, *looks, points, unit, estimate, logs, run))
    if len(curves) > _MAX_CURVES:
        raise InputError(f"{len(curves)} lines cannot be told apart: choose at most {_MAX_CURVES} runs, or pool them")
    return curves


def figures_of(choices: Choices) -> list[PageFigure]:
    """Every figure of the chosen run and of several."""
    shown, figures = choices.shown, []
    for curve in curves_of(shown.log):
        about = f"The {curve.replace('_', ' ')} of the run over its training, with its fork points"
        figures.append(PageFigure(f"training_{curve}", about, partial(draw_training, choices, curve)))
    for word, line in shown.paths.items():
        own, called = replace(choices, path=word), path_name(line)
        about = f"The return of each episode along the line of {called}"
        if shown.is_rl:
            more = f"What else was measured along the line of {called}"
            figures.append(PageFigure(f"measures_{own.path_file}", more, partial(draw_measures, own)))
        else:
            about = f"What happens along the line of {called}, {part_words(choices.part)}"
        figures.append(PageFigure(f"path_{own.path_file}", about, partial(draw_path, own)))
    for several in several_of(shown).values():
        for seeds in (POOLED,) if several.name == PARTS else (POOLED, EACH):
            title = f"{several.title[0].upper()}{several.title[1:]}"
            about = f"{title}, seeds {'pooled' if seeds == POOLED else 'each by itself'}"
            draw = partial(draw_several, choices, several.name, seeds)
            figures.append(PageFigure(choices.several_file(several.name, seeds), about, draw))
    return figures


def draw_training(choices: Choices, curve: str):
    """`plot_training` of the chosen run, with the children of the chosen fork."""
    shown = choices.shown
    if curve not in curves_of(shown.log):
        raise InputError(f"{shown.title} has no {curve.replace('_', ' ')} in its training log yet")
    fork = int(choices.path) if choices.path.isdigit() else None
    return plot_training({"": shown.log}, curve, shown.title, shown.marks, shown.children_of(choices.path), fork)


def draw_path(choices: Choices):
    """`plot_path` of the chosen path, of an imitation run `plot_lines`."""
    title = f"{choices.shown.title}, {path_name(choices.line)}"
    if choices.shown.is_rl:
        return plot_path({"": choices.line}, title)
    lines = choices.shown.lines_of(choices.path, choices.part)
    lost = f", {part_words(choices.part)}, {lost_on(lines[0])}" if len(lines) == 1 else ""
    return plot_lines(lines, title + lost)


def draw_measures(choices: Choices):
    """`plot_measures` of the chosen path."""
    return plot_measures(choices.line, f"{choices.shown.title}, {path_name(choices.line)}")


def draw_several(choices: Choices, figure: str, seeds: str):
    """One of `several_of`."""
    several, is_rl = several_of(choices.shown)[figure], choices.shown.is_rl
    if figure == PARTS:
        groups = pooled_groups(choices.measured)
        forked = {name: own for name, own in groups.items() if any(point.first.kind == "fork" for point in own)}
        if not forked:
            raise InputError("choose at least one run with a fork point that was measured")
        return plot_parts(forked)
    curves = curves_of_groups(choices, seeds, several.unit, several.estimate)
    if figure == "curves":
        return plot_curves(curves, "eval_return" if is_rl else LOSS)
    if figure == "paths":
        what = "return" if is_rl else "cross-entropy below chance"
        return plot_paths(curves, choices.line, path_name(choices.line), what)
    moving = "" if is_rl else f"{part_words(choices.moving)}, "
    if not any(curve.points for curve in curves):
        raise InputError(
            f"no line on which {part_words(choices.moving)} moves was played in worlds; see --played_parts of run_mop"
        )
    if not any(known(curve, "fork") for curve in curves):
        raise InputError(NONE_LEARNED)
    return plot_lost([("", curves)], moving + several.unit.about)


# --- the page ---------------------------------------------------------------------------------------------------------


def page_of(choices: Choices, plots_dir: str = PLOTS_DIR) -> Page:
    """The page of what is chosen."""

    def describe(name: str) -> list[str]:
        named = choices.several if name.startswith("several_") else (choices.shown,)
        return [f"Run: {shown.title} ({shown.word}), {_describe(shown)}." for shown in named]

    folder = Path(plots_dir) / "lmc" / choices.shown.word
    return Page("lmc_viz.py", choices.flags, folder, figures_of(choices), describe, plots_dir)


def _describe(shown: ShownExperiment) -> str:
    config = shown.config
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
