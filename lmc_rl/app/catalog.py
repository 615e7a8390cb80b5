"""The experiments that the page can show, those that are still at work too; read without PyTorch."""

import csv
import io
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from lmc_rl.analysis.figures import Log
from lmc_rl.analysis.results import Experiment, LineResult, load_experiment
from lmc_rl.analysis.table import has_rows
from lmc_rl.analysis.training_figures import Mark
from lmc_rl.config import CONFIG_NAME, load_config
from mop.common.errors import InputError
from mop.common.files import find_files
from mop.common.reading import read_bytes, reading
from mop.plotting.style import counted

EVERY, ALL = "every", "all"  # parts: each as a curve, all weights together


@dataclass(frozen=True)
class ShownExperiment(Experiment):
    """An experiment as the page shows it, which may still be at work: without lines where none is measured yet."""

    word: str  # its folder below the root, in an address
    log: Log  # of the parent

    @property
    def marks(self) -> list[Mark]:
        """Its fork points."""
        forks = zip(self.config.env_steps_of_forks, self.config.fractions, strict=True)
        return [Mark(k, step, fraction, self.paths.get(str(k))) for k, (step, fraction) in enumerate(forks)]

    @property
    def note(self) -> str:
        """What is missing, and the way out; "" where nothing is."""
        missing = sum(mark.line is None for mark in self.marks)
        lacks = f"{missing} of {counted(len(self.marks), 'fork')} are not measured yet" if missing else ""
        lacks = lacks if self.lines else "no path has been evaluated yet"
        return f"{lacks}: the experiment is at work, or goes on with `--resume`" if lacks else ""

    @property
    def paths(self) -> dict[str, LineResult]:
        """The word of each fork or control that is measured -> its line of all weights."""
        return {line.origin: line for line in self.of_all_weights}

    @property
    def parts(self) -> tuple[str, ...]:
        """Words of what can move along a line, the first of which is each as a curve; none of `run_env`."""
        words = dict.fromkeys(line.word for line in self.lines)
        return () if self.is_rl or not words else (EVERY, *words)

    def lines_of(self, origin: str, part: str) -> list[LineResult]:
        """The lines of a fork or control on which a part moves, or every part."""
        of_origin = [line for line in self.lines if line.origin == origin]
        found = [line for line in of_origin if part in (EVERY, line.word)]
        if not found:
            raise InputError(f"{self.title} has no path {origin or 'yet'} of {part}")
        return found

    def children_of(self, origin: str) -> dict[str, Log]:
        """The training logs of the children of a fork, by name; none of a control."""
        root = self.results / "training"
        folders = sorted(root.glob(f"child*_{origin}_*")) if origin.isdigit() else []
        logs = {f"child {folder.name.split('_')[-1]}": read_log(folder / "training_log.csv") for folder in folders}
        return {name: log for name, log in logs.items() if log}


def find_experiments(results_dir: str | Path) -> dict[str, str]:
    """Every experiment below a folder: its name in a menu -> its folder below that one."""
    found = {}
    for path in find_files(results_dir, CONFIG_NAME):
        folder, word = path.parent, path.parent.relative_to(results_dir).as_posix()
        try:
            title = Experiment(folder, load_config(folder), ()).title
        except InputError:
            if has_rows(folder) or (folder / "training").exists():  # else a file of something else
                found[f"{word} · damaged"] = word
            continue
        parts = word.split("/")  # <experiment_name>/<env>/<algo>/seed_<seed>_<time>
        label = f"{title} · {parts[0]} {parts[-1].split('_', 2)[-1]}"
        label += "" if has_rows(folder) else " · no path yet"
        found[label if label not in found else f"{label} · {word}"] = word
    if not found:
        raise InputError(
            f"there is no experiment of linear mode connectivity under {results_dir}/: "
            "`python -m lmc_rl.run_env` makes one"
        )
    return found


def load_shown(results_dir: str | Path, word: str) -> ShownExperiment:
    """An experiment with all that it has so far."""
    folder = Path(results_dir) / word
    files = [path for path in (*folder.glob("*.*"), *folder.glob("paths/*.json")) if path.is_file()]
    files += [log for log in (folder / "training" / "parent").glob("training_log.csv")]
    stats = sorted((path.name, path.stat().st_mtime_ns, path.stat().st_size) for path in files)
    return _load_shown(word, folder, tuple(stats))


@lru_cache(maxsize=64)
def _load_shown(word: str, folder: Path, versions: tuple) -> ShownExperiment:
    own = load_experiment(folder) if has_rows(folder) else Experiment(folder, load_config(folder), ())
    log = read_log(folder / "training" / "parent" / "training_log.csv")
    return ShownExperiment(own.results, own.config, own.lines, word, log)


def read_log(path: Path) -> Log:
    """The columns of a training log, float64, NaN where there is no number; empty where there is no log yet."""
    if not path.exists():
        return {}
    with reading(path, "training log", "remove it, and make the experiment anew"):
        rows = list(csv.DictReader(io.StringIO(read_bytes(path).decode(), newline="")))
        columns = {name: np.array([float(row[name] or "nan") for row in rows]) for name in (rows[0] if rows else ())}
        if columns:
            columns["env_steps"]
        return columns
