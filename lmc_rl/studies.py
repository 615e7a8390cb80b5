"""The experiments that a page can show, read without PyTorch; those too that are still at work."""

import csv
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import orjson

from lmc_rl.analysis import Experiment, PathResult, labels_of, load_experiment
from lmc_rl.records import CONFIG_NAME, ROWS_NAME, load_settings
from lmc_rl.settings import fork_steps
from lmc_rl.views import Mark, Table
from mop.base.errors import InputError
from mop.base.files import find_files
from mop.plotting.style import counted


@dataclass(frozen=True)
class Study:
    """An experiment as a page shows it, which may still be at work."""

    word: str  # its folder below the root, in an address
    folder: Path
    settings: dict
    log: Table  # of the parent
    experiment: Experiment | None  # None: no path was walked along yet
    note: str  # what is missing, and the way out; "" where nothing is

    @property
    def name(self) -> str:
        """What it is called."""
        return f"{labels_of([self.settings])[0]}, seed {self.settings['seed']}"

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

    def children_of(self, word: str) -> dict[str, Table]:
        """The training logs of the children of a fork, by what they are called; none of a control."""
        folders = sorted((self.folder / "training").glob(f"child*_{word}_*")) if word.isdigit() else []
        logs = {f"child {folder.name.split('_')[-1]}": read_log(folder / "training_log.csv") for folder in folders}
        return {name: log for name, log in logs.items() if log}


def find_studies(results_dir: str | Path) -> dict[str, str]:
    """Every experiment below a folder: what it is called in a menu -> its folder below that one.

    Raises InputError if there is none.
    """
    found = {}
    for path in find_files(results_dir, CONFIG_NAME):
        word = path.parent.relative_to(results_dir).as_posix()
        try:
            settings = load_settings(path.parent)
        except InputError:
            if not (path.parent / ROWS_NAME).exists() and not (path.parent / "training").exists():
                continue  # a file of something else
            found[f"{word} · {'of run_mop' if _is_of_run_mop(path.parent) else 'damaged'}"] = word
            continue
        parts = word.split("/")  # <experiment_name>/<env>/<algo>/seed_<seed>_<time>
        label = f"{labels_of([settings])[0]}, seed {settings['seed']} · {parts[0]} {parts[-1].split('_', 2)[-1]}"
        label += "" if (path.parent / ROWS_NAME).exists() else " · no path yet"
        found[label if label not in found else f"{label} · {word}"] = word
    if not found:
        raise InputError(
            f"there is no experiment of linear mode connectivity under {results_dir}/: "
            "`python -m lmc_rl.run_env` makes one"
        )
    return found


def load_study(results_dir: str | Path, word: str) -> Study:
    """An experiment with all that it has so far. Raises InputError where it is damaged, or one of imitation runs."""
    folder = Path(results_dir) / word
    if _is_of_run_mop(folder):
        raise InputError(
            f"{folder} is of `lmc_rl.run_mop`, which this page does not show: "
            f"`python -m lmc_rl.analyze --results_dir {folder}` draws its figures"
        )
    files = [folder / CONFIG_NAME, folder / ROWS_NAME, folder / "training" / "parent" / "training_log.csv"]
    versions = tuple(_version(path) for path in [*files, *sorted((folder / "paths").glob("*.json"))])
    return _load_study(word, folder, versions)


@lru_cache(maxsize=64)
def _load_study(word: str, folder: Path, versions: tuple) -> Study:
    settings, experiment, note = load_settings(folder), None, ""
    if (folder / ROWS_NAME).exists():
        experiment = load_experiment(folder)
        missing = len(settings["fork_points"]) - len(experiment.forks)
        if missing:
            note = f"{missing} of {counted(len(settings['fork_points']), 'fork')} are not measured yet"
    else:
        note = "no path was walked along yet"
    more = "" if not note else f"{note}: the experiment is at work, or goes on with `--resume`"
    return Study(
        word, folder, settings, read_log(folder / "training" / "parent" / "training_log.csv"), experiment, more
    )


def _is_of_run_mop(folder: Path) -> bool:
    """Whether an experiment forks an imitation run: its settings hold those of the run."""
    try:
        return "run" in orjson.loads((folder / CONFIG_NAME).read_bytes())["settings"]
    except (OSError, ValueError, TypeError, KeyError):
        return False


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
