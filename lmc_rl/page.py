"""What the page of linear mode connectivity shows: the experiments, their figures, and what a script saves of them."""

import shlex
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlencode

import numpy as np

from lmc_rl import line_analysis
from lmc_rl.analysis import PathResult, as_markdown, by_group, percent, pooled_groups
from lmc_rl.figures import plot_instability
from lmc_rl.instability import CONNECTED
from lmc_rl.line_analysis import pooled_lines
from lmc_rl.line_figures import plot_line_instability, plot_lines, plot_parts
from lmc_rl.studies import ALL, EVERY, LineStudy, Study, find_studies, load_study
from lmc_rl.views import (
    LOSS,
    NATS,
    NOT_MEASURED,
    POINTS,
    SHARE,
    SHARE_OF_LOSS,
    Line,
    Mark,
    curves_of,
    looks,
    lost_text,
    marker,
    normalised,
    plot_curves,
    plot_episodes,
    plot_lost,
    plot_measures,
    plot_paths,
    plot_training,
)
from mop.apps.export import Export
from mop.apps.flags import parse
from mop.apps.run_figures import Drawing, chosen, save_figures
from mop.apps.view import View
from mop.artifacts.run_paths import PLOTS_DIR
from mop.common.configuration import Parser
from mop.common.errors import InputError
from mop.plotting.style import counted

RESULTS_DIR = "results"
POOLED, EACH = "pooled", "each"  # words for how seeds are shown
SEEDS = {"pooled, 95 % over parents": POOLED, "each by itself, 95 % over episodes": EACH}
SEVERAL = {  # what is drawn of several runs -> name of the figure
    "chord barrier B": "barrier",
    "instability I": "instability",
    "B and I, groups side by side": "side_by_side",
    "return along the path": "paths",
    "learning curves": "curves",
}
SEVERAL_OF_LINES = {  # the same of imitation runs
    "barrier B, nats": "barrier",
    "instability I, nats": "instability",
    "barrier B, % of what was learned": "share",
    "barrier of success, points": "success",
    "rise by the part that moves": "parts",
    "before and after alignment, groups side by side": "side_by_side",
    "cross-entropy along the path": "paths",
    "learning curves": "curves",
}
LOST_OF_LINES = {  # figure of imitation runs -> what of a line, B or I, told in
    "barrier": (line_analysis.NATS, "barrier", NATS),
    "instability": (line_analysis.NATS, "instability", NATS),
    "share": (line_analysis.SHARE, "barrier", SHARE_OF_LOSS),
    "success": (line_analysis.SUCCESS, "barrier", POINTS),
}
_OF_GROUPS = ("side_by_side", "parts")  # figures with a panel for each group, whose seeds are always pooled
_OF_NO_PART = (*_OF_GROUPS, "curves")  # figures that are the same whatever moves
_MAX_LINES = 18  # of a figure; more cannot be told apart


# --- what is chosen ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Choices:
    """What a page or a script shows."""

    results_dir: str
    study: Study
    path: str  # a word of `Study.paths`, "" where there is none
    several: tuple[Study, ...]
    part: str = ""  # a word of `Study.parts`, "" where there is none

    @property
    def flags(self) -> list[str]:
        """The flags that choose the same again."""
        words = [] if self.results_dir == RESULTS_DIR else ["--results_dir", self.results_dir]
        words += ["--run", self.study.word]
        words += ["--fork", self.path] if self.path else []
        words += ["--part", self.part] if self.part not in ("", EVERY) else []
        return [*words, "--runs", *(study.word for study in self.several)]

    @property
    def result(self) -> PathResult | None:
        """The chosen path."""
        return self.study.paths.get(self.path)

    @property
    def is_of_lines(self) -> bool:
        """Whether the chosen run is an imitation run, on whose lines a part may move."""
        return isinstance(self.study, LineStudy)

    @property
    def measured(self) -> list[Study]:
        """Those of the several runs that have a path."""
        return [study for study in self.several if study.experiment is not None]

    @property
    def moving(self) -> str:
        """The part of which B and I are shown."""
        return ALL if self.part in ("", EVERY) else self.part


def path_names(study: Study) -> dict[str, str]:
    """What each path is called on the page -> its word."""
    names = {}
    for word, result in study.paths.items():
        called = f"fork {word}, at {result.fraction:.0%}" if result.kind == "fork" else f"control: {word}"
        names[f"{called} ({result.verdict})"] = word
    return names


def path_file(choices: Choices) -> str:
    """What the files of the chosen path are called."""
    path = f"fork_{choices.path}" if choices.path.isdigit() else choices.path
    return path + _part_suffix(choices)


def _part_suffix(choices: Choices) -> str:
    return f"_{choices.part}" if choices.part not in ("", EVERY) else ""


def part_names(study: Study) -> dict[str, str]:
    """What the parts that can move along a line are called on the page -> their words; none of `run_env`."""
    called = {EVERY: "every part, over each other", ALL: "all weights", "ends": "input and head"}
    called |= {"aligned": "all weights, to the aligned second end"}
    return {called.get(word, word.replace("_", " ")): word for word in study.parts}


def choose_part(study: Study, asked: str | None) -> str:
    """The word of a part: the one that is asked for, else the first. Raises InputError if it has no such part."""
    if asked is not None and asked not in study.parts:
        known = f"it has {', '.join(study.parts)}" if study.parts else "it has none"
        raise InputError(f"--part: {study.name} has no part {asked}; {known}")
    return asked or next(iter(study.parts), "")


def choose_path(study: Study, asked: str | None) -> str:
    """The word of a path: the one that is asked for, else the first fork with a path, else a control.

    Raises InputError if it has no such path.
    """
    if asked is not None and asked not in study.paths:
        raise InputError(f"--fork: {study.name} has no path {asked}; it has {', '.join(study.paths) or 'none yet'}")
    return asked or next(iter(study.paths), "")


def default_runs(found: Mapping[str, str], word: str) -> list[str]:
    """The words of the runs that are shown with one at first: those that lie beside it below the same environment."""
    root = word.split("/")[:-2]
    beside = [other for other in found.values() if other.split("/")[:-2] == root and other != word]
    return [word, *beside][:_MAX_LINES]


def choose_runs(found: Mapping[str, str], asked: Sequence[str] | None, word: str) -> list[str]:
    """The words of several runs: those that are asked for, else `default_runs`.

    Raises InputError if one is not there.
    """
    for other in asked or ():
        if other not in found.values():
            raise InputError(f"there is no experiment {other}; there are {', '.join(found.values())}")
    return list(asked) if asked else default_runs(found, word)


def load_several(results_dir: str, words: Sequence[str], like: Study) -> tuple[tuple[Study, ...], list[str]]:
    """The experiments of these words, and what is wrong with those that cannot be shown beside another one."""
    studies, problems = [], []
    for word in words:
        try:
            study = load_study(results_dir, word)
            if type(study) is not type(like):
                raise InputError(f"{study.name} is of another kind than {like.name}: they share no scale")
            by_group(other.experiment for other in (*studies, study) if other.experiment is not None)  # may raise
            studies.append(study)
        except InputError as error:
            problems.append(str(error))
    return tuple(studies), problems


def runs_select(found: Mapping[str, str], word: str, view: View) -> tuple:
    """A choice of several runs, with those of the address, else `default_runs`; and a line for each that is not there.

    In the address, their words have commas between them.
    """
    import marimo as mo

    default = default_runs(found, word)
    asked = list(filter(None, view.words.get("runs", "").split(",")))
    unknown = [f"there is no run {other!r:.60} here" for other in asked if other not in found.values()]
    words = [other for other in asked if other in found.values()] or default
    called = {other: name for name, other in found.items()}
    select = mo.ui.multiselect(
        dict(found), [called[other] for other in words], label="Runs", full_width=True,
        on_change=lambda chosen: view.put("runs", ",".join(chosen), ",".join(default)),
    )  # fmt: skip
    return select, unknown


def link_to_fork(view: View) -> Callable[[Mapping], str]:
    """For `show_figure`: from a fork point in a figure to its path; what else the address says stays."""

    def address(values: Mapping) -> str:
        if "fork" not in values or values["verdict"] == NOT_MEASURED:
            return ""
        run = {"run": values["run"]} if values.get("run") else {}
        return "?" + urlencode({**view.words, **run, "fork": str(values["fork"])}, safe="/,")

    return address


# --- in numbers -------------------------------------------------------------------------------------------------------


def facts(study: Study) -> list[tuple[str, str, str]]:
    """What a page says of an experiment at first sight: value, name, remark."""
    is_of_lines = isinstance(study, LineStudy)
    columns = {"success_rate": "success", "accuracy": "accuracy"} if is_of_lines else {"eval_return": "return"}
    what = "last episodes" if is_of_lines else "last evaluation"
    shown = []
    for column, name in columns.items():
        values = study.log.get(column, np.array([]))
        if np.isfinite(values).any():
            last = np.flatnonzero(np.isfinite(values))[-1]
            number = f"{values[last]:.1%}" if is_of_lines else f"{values[last]:,.1f}"
            shown.append((number, name, f"{what}, step {study.log['env_steps'][last]:,.0f}"))
    if study.experiment is None:
        return shown
    paths = study.paths
    if not is_of_lines:
        shown += [(f"{path.random_return:,.1f}", "random policy", "return by chance") for path in [*paths.values()][:1]]
    shown.append((_connected_from(study.marks), "connected from", "and at every later fork point"))
    for kind in ("independent", "self"):
        if kind in paths:
            shown.append((percent(normalised(paths[kind]).barrier), f"B, {kind}, %", f"control: {paths[kind].verdict}"))
    return shown


def _connected_from(marks: Sequence[Mark]) -> str:
    """The earliest fork point from which on every path is connected."""
    first = None
    for mark in reversed(marks):
        if mark.verdict != CONNECTED:
            break
        first = mark
    return "no fork point" if first is None else f"{first.fraction:.0%}"


def as_table(choices: Choices) -> str:
    """A Markdown table of the fork points and controls of several runs; those that differ in their seeds are pooled."""
    return as_markdown(*type(choices.study).table(choices.measured, choices.moving)) if choices.measured else ""


# --- figures ----------------------------------------------------------------------------------------------------------


def lines_of(choices: Choices, seeds: str, measure: str = line_analysis.SHARE) -> list[Line]:
    """The lines of a figure of several runs: one for each group that differs in its seeds alone, or one for each run.

    measure: of `line_analysis.as_points`, for imitation runs. Runs of a group have its hue, and a marker each. Raises
    InputError where none has a path.
    """
    kind, groups = type(choices.study), {}
    for study in choices.measured:
        groups.setdefault(study.experiment.group, []).append(study)
    if not groups:
        raise InputError("choose at least one run that has walked along a path")
    labels = kind.labels([members[0] for members in groups.values()])
    lines = []
    for label, members, (hue, of_group) in zip(labels, groups.values(), looks(len(groups)), strict=True):
        if seeds == POOLED:
            points = kind.points(members, choices.moving, measure)
            told = f"{label}, {counted(len(members), 'seed')}"
            lines.append(Line(told, hue, of_group, points, [study.log for study in members]))
            continue
        for number, study in enumerate(members):
            points = kind.points([study], choices.moving, measure)
            lines.append(Line(f"{label}, seed {study.seed}", hue, marker(number), points, [study.log], study.word))
    if len(lines) > _MAX_LINES:
        raise InputError(f"{len(lines)} lines cannot be told apart: choose at most {_MAX_LINES} runs, or pool them")
    return lines


def drawings(choices: Choices) -> dict[str, Drawing]:
    """Every figure of the chosen run and of several, by the name of its file."""
    study, found = choices.study, {}
    for curve in curves_of(study.log):
        about = f"The {curve.replace('_', ' ')} of the run over its training, with its fork points"
        found[f"training_{curve}"] = Drawing(about, lambda curve=curve: draw_training(choices, curve))
    for word, result in study.paths.items():
        called = f"fork {word}" if result.kind == "fork" else f"the control: {word}"
        own = replace(choices, path=word)
        if choices.is_of_lines:
            about = f"What happens along the line of {called}, {_part_words(choices, choices.part)}"
        else:
            about = f"The return of each episode along the line of {called}"
            more = f"What else was measured along the line of {called}"
            found[f"measures_{path_file(own)}"] = Drawing(more, lambda own=own: draw_measures(own))
        found[f"path_{path_file(own)}"] = Drawing(about, lambda own=own: draw_path(own))
    for title, figure in several_of(study).items():
        for seeds in (POOLED, EACH) if figure not in _OF_GROUPS else (POOLED,):
            about = f"{title[0].upper()}{title[1:]}, seeds {'pooled' if seeds == POOLED else 'each by itself'}"
            found[several_name(choices, figure, seeds)] = Drawing(
                about, lambda figure=figure, seeds=seeds: draw_several(choices, figure, seeds)
            )
    return found


def several_of(study: Study) -> dict[str, str]:
    """What can be drawn of several runs of the kind of one -> name of the figure."""
    return SEVERAL_OF_LINES if isinstance(study, LineStudy) else SEVERAL


def several_name(choices: Choices, figure: str, seeds: str) -> str:
    """The name of the file of `draw_several`."""
    each = "" if seeds == POOLED or figure in _OF_GROUPS else "_each_seed"
    part = "" if figure in _OF_NO_PART else _part_suffix(choices)
    return f"several_{figure}{part}{each}"


def several_label(choices: Choices, name: str) -> str:
    """What a figure of several runs shows, for readers that cannot see it."""
    return ", ".join([name, *(study.word for study in choices.several)])


def draw_training(choices: Choices, curve: str):
    """`plot_training` of the chosen run, with the children of the chosen fork. Raises InputError as that."""
    study = choices.study
    if not study.log:
        raise InputError(f"{study.name} has no training log yet")
    fork = int(choices.path) if choices.path.isdigit() else None
    return plot_training(study.log, study.marks, study.children_of(choices.path), curve, fork, study.name)


def draw_path(choices: Choices):
    """`plot_episodes` of the chosen path, of an imitation run `plot_lines`. Raises InputError where there is none."""
    result, title = _result(choices), f"{choices.study.name}, {_path_title(choices)}"
    if not choices.is_of_lines:
        return plot_episodes(result, title)
    lines = choices.study.lines_of(choices.path, choices.part)
    if len(lines) > 1:
        return plot_lines(lines, title)
    (line,) = lines
    told = [(line.loss, lost_text("B", line.loss.barrier, NATS))]
    told += [(line.success, f"{lost_text('B', line.success.barrier, POINTS)} of success")] if line.success else []
    words = [f"{line.verdict_of(path)}: {lost}" if line.has_verdict else lost for path, lost in told]
    return plot_lines(lines, f"{title}, {_part_words(choices, choices.part)}, {'; '.join(words)}")


def draw_measures(choices: Choices):
    """`plot_measures` of the chosen path. Raises InputError where there is none."""
    return plot_measures(_result(choices), f"{choices.study.name}, {_path_title(choices)}")


def draw_several(choices: Choices, figure: str, seeds: str):
    """One of `several_of`. Raises InputError where none of the runs has what it takes."""
    if figure in _OF_GROUPS:
        return _draw_groups(choices, figure)
    if figure in LOST_OF_LINES and choices.is_of_lines:
        measure, lost, unit = LOST_OF_LINES[figure]
        lines, moving = lines_of(choices, seeds, measure), _part_words(choices, choices.moving)
        if not any(line.points for line in lines):
            raise InputError(f"no line on which {moving} moves was played in worlds; see --played_parts of run_mop")
        return plot_lost(lines, lost, moving, unit)
    lines = lines_of(choices, seeds)
    if figure == "curves":
        return plot_curves(lines, column=LOSS if choices.is_of_lines else "eval_return")
    if figure == "paths":
        result, what = _result(choices), "cross-entropy below chance" if choices.is_of_lines else "return"
        return plot_paths(lines, result.kind, result.fraction, _path_title(choices), what)
    return plot_lost(lines, figure, unit=SHARE)


def _draw_groups(choices: Choices, figure: str):
    """A panel for each group of runs that differ in their seeds alone."""
    experiments = [study.experiment for study in choices.measured]
    if choices.is_of_lines:
        groups = pooled_lines(experiments, [ALL, "aligned"] if figure == "side_by_side" else None)
        forked = {k: lines for k, lines in groups.items() if any(line.first.kind == "fork" for line in lines)}
        draw = plot_line_instability if figure == "side_by_side" else plot_parts
    else:
        groups = pooled_groups(experiments)
        forked = {k: points for k, points in groups.items() if any(point.kind == "fork" for point in points)}
        draw = plot_instability
    if not forked:
        raise InputError("choose at least one run with a fork point that was measured")
    return draw(forked)


def _result(choices: Choices) -> PathResult:
    if choices.result is None:
        raise InputError(f"{choices.study.name} has no path yet")
    return choices.result


def _part_words(choices: Choices, part: str) -> str:
    """What moves, in words."""
    return next((called for called, word in part_names(choices.study).items() if word == part), "")


def _path_title(choices: Choices) -> str:
    result = _result(choices)
    return f"forked at {result.fraction:.0%}" if result.kind == "fork" else f"control: {result.kind}"


# --- saving -----------------------------------------------------------------------------------------------------------


def folder_of(args: Namespace, choices: Choices) -> Path:
    """Where the figures of the chosen run go."""
    return Path(args.plots_dir) / "lmc" / choices.study.word


def caption_of(args: Namespace, choices: Choices, name: str, about: str, export: Export) -> str:
    """The caption of a figure, in lines; the last but one is what makes it again."""
    words = ["python", "lmc_viz.py", *choices.flags, "--only", name, *export.flags]
    words += [] if args.plots_dir == PLOTS_DIR else ["--plots_dir", args.plots_dir]
    shown = choices.several if name.startswith("several_") else (choices.study,)
    lines = [f"{about.rstrip('.')}."]
    lines += [f"Run: {study.name} ({study.word}), {_describe(study)}." for study in shown]
    return "\n".join([*lines, f"Command: {shlex.join(words)}"])


def _describe(study: Study) -> str:
    settings, parts = study.settings, [study.size]
    if settings["fork_points"]:
        parts.append(f"{settings['alpha_points']:,} policies along each line")
        parts.append(f"{counted(settings['num_eval_episodes'], 'episode')} of each")
    return ", ".join(parts)


def save_as_script(parser: Parser) -> None:
    """The app as a script: save every figure of a run and of several, or those that --only names.

    Raises InputError if a flag is wrong, there is no such run, or no figure can be drawn.
    """
    args = parse(parser)
    found = find_studies(args.results_dir)
    (word,) = choose_runs(found, [args.run] if args.run else None, next(iter(found.values())))[:1]
    study = load_study(args.results_dir, word)
    several, problems = load_several(args.results_dir, choose_runs(found, args.runs, word), study)
    for problem in [*problems, *([f"{study.name}: {study.note}"] if study.note else [])]:
        print(f"note: {problem}")
    choices = Choices(args.results_dir, study, choose_path(study, args.fork), several, choose_part(study, args.part))
    available, export = drawings(choices), Export(args.format, args.width)
    save_figures(
        chosen(available, args.only),
        folder_of(args, choices),
        export,
        lambda name: caption_of(args, choices, name, available[name].about, export),
    )
