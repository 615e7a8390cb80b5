"""The experiments that a page can show, read without PyTorch; those too that are still at work."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from lmc_rl import analysis, line_analysis
from lmc_rl.analysis import Experiment, PathResult, Pooled, load_experiment
from lmc_rl.imitation_settings import fork_updates
from lmc_rl.imitation_settings import load_settings as load_imitation_settings
from lmc_rl.line_analysis import LineExperiment, LineResult, as_points, load_line_experiment, pooled_lines
from lmc_rl.line_records import PACKED_NAME, TRAJECTORIES_NAME
from lmc_rl.records import CONFIG_NAME, ROWS_NAME, load_settings
from lmc_rl.settings import fork_steps
from lmc_rl.views import NATS, POINTS, Mark, Table, lost_text
from mop.common.errors import InputError
from mop.common.files import find_files
from mop.plotting.style import counted

EVERY, ALL = "every", "all"  # parts: each as a curve, all weights together


@dataclass(frozen=True)
class Study:
    """An experiment as a page shows it, which may still be at work."""

    word: str  # its folder below the root, in an address
    folder: Path
    settings: dict
    log: Table  # of the parent
    experiment: Experiment | LineExperiment | None  # None: no path was walked along yet
    note: str  # what is missing, and the way out; "" where nothing is

    @property
    def name(self) -> str:
        """What it is called."""
        return f"{self.label}, seed {self.seed}"

    def children_of(self, word: str) -> dict[str, Table]:
        """The training logs of the children of a fork, by what they are called; none of a control."""
        folders = sorted((self.folder / "training").glob(f"child*_{word}_*")) if word.isdigit() else []
        logs = {f"child {folder.name.split('_')[-1]}": read_log(folder / "training_log.csv") for folder in folders}
        return {name: log for name, log in logs.items() if log}


class ReturnStudy(Study):
    """An experiment of `run_env`: what is lost is return."""

    @property
    def label(self) -> str:
        """What it is called without its seed."""
        return analysis.labels_of([self.settings])[0]

    @property
    def seed(self) -> int:
        """Of the parent."""
        return self.settings["seed"]

    @property
    def marks(self) -> list[Mark]:
        """Its fork points."""
        found = {result.fork: result for result in (self.experiment.forks if self.experiment else ())}
        total = self.settings["total_steps"]
        return [Mark(k, step, step / total, found.get(k)) for k, step in enumerate(fork_steps(self.settings))]

    @property
    def paths(self) -> dict[str, PathResult]:
        """What can be walked along: the word of a fork or control -> its result."""
        if self.experiment is None:
            return {}
        forks = {str(result.fork): result for result in self.experiment.forks}
        return forks | {result.kind: result for result in self.experiment.controls}

    @property
    def parts(self) -> tuple[str, ...]:
        """Words of what can move alone along a line: none here."""
        return ()

    @property
    def size(self) -> str:
        """How long it was trained."""
        return counted(self.settings["total_steps"], "step")

    @staticmethod
    def labels(studies: "Sequence[ReturnStudy]") -> list[str]:
        """A name for each of several, which tells in what they differ besides their seeds."""
        return analysis.labels_of([study.settings for study in studies])

    @staticmethod
    def points(studies: "Sequence[ReturnStudy]", part: str, measure: str) -> list[Pooled]:
        """The fork points and controls of runs that differ in their seeds alone, pooled."""
        (points,) = analysis.pooled_groups([study.experiment for study in studies]).values()
        return points

    @staticmethod
    def table(studies: "Sequence[ReturnStudy]", part: str) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        """Head and rows of all of them, pooled where they differ in their seeds alone."""
        return analysis.HEAD, analysis.table_of(analysis.pooled_groups([study.experiment for study in studies]))


class LineStudy(Study):
    """An experiment of `run_mop`: what is lost is cross-entropy with the bot, and success."""

    @property
    def label(self) -> str:
        """What it is called without its seed."""
        return line_analysis.label_of(self.settings)

    @property
    def seed(self) -> int:
        """Of the parent."""
        return self.settings["run"]["seed"]

    @property
    def marks(self) -> list[Mark]:
        """Its fork points, with what is lost where all weights move."""
        run, found = self.settings["run"], {line.fork: line for line in self._all_weights if line.kind == "fork"}
        steps = run["num_envs"] * run["unroll_len"]
        return [
            Mark(k, update * steps, update / run["num_updates"], found[k].loss if k in found else None,
                 _lost_on(found[k]) if k in found else "")
            for k, update in enumerate(fork_updates(self.settings))
        ]  # fmt: skip

    @property
    def paths(self) -> dict[str, PathResult]:
        """What can be walked along: the word of a fork or control -> the cross-entropy where all weights move."""
        forks = {str(line.fork): line.loss for line in self._all_weights if line.kind == "fork"}
        return forks | {line.kind: line.loss for line in self._all_weights if line.kind != "fork"}

    @property
    def parts(self) -> tuple[str, ...]:
        """Words of what can move alone along a line, the first of which is each as a curve."""
        lines = self.experiment.lines if self.experiment else ()
        return (EVERY, *dict.fromkeys(line.word for line in lines)) if lines else ()

    @property
    def size(self) -> str:
        """How long it was trained."""
        return counted(self.settings["run"]["num_updates"], "update")

    @property
    def _all_weights(self) -> list[LineResult]:
        return [line for line in (self.experiment.lines if self.experiment else ()) if line.word == ALL]

    def lines_of(self, word: str, part: str) -> list[LineResult]:
        """The lines of a fork or control on which a part moves, or every part.

        Raises InputError where there is none.
        """
        found = [
            line
            for line in (self.experiment.lines if self.experiment else ())
            if (str(line.fork) if line.kind == "fork" else line.kind) == word and part in (EVERY, line.word)
        ]
        if not found:
            raise InputError(f"{self.name} has no path {word or 'yet'} of {part}")
        return found

    @staticmethod
    def labels(studies: "Sequence[LineStudy]") -> list[str]:
        """A name for each of several, which tells in what they differ besides their seeds."""
        return line_analysis.labels_of_groups([study.experiment for study in studies])

    @staticmethod
    def points(studies: "Sequence[LineStudy]", part: str, measure: str) -> list[Pooled]:
        """The fork points and controls of runs that differ in their seeds alone, pooled; measure: of `as_points`."""
        (lines,) = pooled_lines([study.experiment for study in studies], [part]).values()
        return as_points(lines, measure)

    @staticmethod
    def table(studies: "Sequence[LineStudy]", part: str) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        """Head and rows of a part of all of them, pooled where they differ in their seeds alone."""
        groups = pooled_lines([study.experiment for study in studies], [part])
        return line_analysis.HEAD, line_analysis.table_of(groups)


def _lost_on(line: LineResult) -> str:
    told = lost_text("B", line.loss.barrier, NATS)
    return told if line.success is None else f"{told}, {lost_text('of success', line.success.barrier, POINTS)}"


# --- finding and reading ----------------------------------------------------------------------------------------------


def find_studies(results_dir: str | Path) -> dict[str, str]:
    """Every experiment below a folder: what it is called in a menu -> its folder below that one.

    Raises InputError if there is none.
    """
    found = {}
    for path in find_files(results_dir, CONFIG_NAME):
        folder, word = path.parent, path.parent.relative_to(results_dir).as_posix()
        try:
            study = _begin_study(word, folder)
        except InputError:
            if _has_rows(folder) or (folder / "training").exists():  # else a file of something else
                found[f"{word} · damaged"] = word
            continue
        parts = word.split("/")  # <experiment_name>/<env>/<algo>/seed_<seed>_<time>
        label = f"{study.name} · {parts[0]} {parts[-1].split('_', 2)[-1]}"
        label += "" if _has_rows(folder) else " · no path yet"
        found[label if label not in found else f"{label} · {word}"] = word
    if not found:
        raise InputError(
            f"there is no experiment of linear mode connectivity under {results_dir}/: "
            "`python -m lmc_rl.run_env` makes one"
        )
    return found


def load_study(results_dir: str | Path, word: str) -> Study:
    """An experiment with all that it has so far. Raises InputError where it is damaged."""
    folder = Path(results_dir) / word
    files = [folder / CONFIG_NAME, *_rows_of(folder), folder / "training" / "parent" / "training_log.csv"]
    versions = tuple(_version(path) for path in [*files, *sorted((folder / "paths").glob("*.json"))])
    return _load_study(word, folder, versions)


@lru_cache(maxsize=64)
def _load_study(word: str, folder: Path, versions: tuple) -> Study:
    study, experiment, note = _begin_study(word, folder), None, "no path was walked along yet"
    if _has_rows(folder):
        experiment = (load_line_experiment if isinstance(study, LineStudy) else load_experiment)(folder)
        measured = type(study)(word, folder, study.settings, {}, experiment, "")
        missing = sum(mark.result is None for mark in measured.marks)
        note = f"{missing} of {counted(len(measured.marks), 'fork')} are not measured yet" if missing else ""
    more = "" if not note else f"{note}: the experiment is at work, or goes on with `--resume`"
    log = read_log(folder / "training" / "parent" / "training_log.csv")
    return type(study)(word, folder, study.settings, log, experiment, more)


def _begin_study(word: str, folder: Path) -> Study:
    """A study with its settings alone. Raises InputError where the folder is of something else, or damaged."""
    settings = load_imitation_settings(folder)
    if settings is not None:
        return LineStudy(word, folder, settings, {}, None, "")
    return ReturnStudy(word, folder, load_settings(folder), {}, None, "")


def _rows_of(folder: Path) -> list[Path]:
    """The files that hold what was measured, as they are written and as they are kept; some or all are not there."""
    return [folder / name for name in (ROWS_NAME, f"{ROWS_NAME}.gz", TRAJECTORIES_NAME, PACKED_NAME)]


def _has_rows(folder: Path) -> bool:
    return any(path.exists() for path in _rows_of(folder))


def _version(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError:
        return 0, 0
    return stat.st_mtime_ns, stat.st_size


def read_log(path: Path) -> Table:
    """The columns of a training log, float64, NaN where there is no number; empty where there is no log yet.

    Raises InputError, naming the file, where it is damaged.
    """
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        columns = {name: np.array([float(row[name] or "nan") for row in rows]) for name in (rows[0] if rows else ())}
        if columns:
            columns["env_steps"]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, csv.Error):
        raise InputError(f"{path} is damaged; remove it, and make the experiment anew") from None
    return columns
