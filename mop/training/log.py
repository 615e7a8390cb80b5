"""training_log.csv: a row at intervals, of whatever a run measures; how its rows are shown is up to the run."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pandas as pd

from mop.common.files import write_csv
from mop.common.reading import read_csv, reading
from mop.common.values import shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = Mapping[str, float]  # of the log: column -> number


def plot_log(table: pd.DataFrame, label: str) -> "Figure":
    """The curve of a run of which all measures are shown."""
    from mop.plotting.curves import plot_training_curve  # here: matplotlib takes most of a second to load

    return plot_training_curve(table, label)


@dataclass(frozen=True)
class Columns:
    """The columns that a run adds to its measures and its summary, and how its rows are shown.

    counters: names of attributes of the run, such as `env_steps`; in a row they follow `update`.
    rates: column -> the counter of which it shows the growth in a second, since the last row.
    bar_text: a row -> the text beside the progress bar.
    closing_lines: the last row -> name and text of each line that is printed at the end of the run.
    plot: all rows and the name of the run -> the figure training_curve.png; None: there is none.
    """

    counters: tuple[str, ...]
    rates: Mapping[str, str]
    bar_text: Callable[[Row], str]
    closing_lines: Callable[[Row], dict[str, str]]
    plot: "Callable[[pd.DataFrame, str], Figure] | None" = plot_log


class Logged(Protocol):
    """What the log asks of a run."""

    columns: Columns  # what its log shows besides, and how

    @property
    def update(self) -> int:
        """Updates done."""

    def summary(self) -> dict[str, float]:
        """Numbers as they are at the moment of a row; the measures of updates are averaged instead."""


class TrainingLog:
    """The rows of a run. A row: `update`, counters, means of the measures since the last row, summary, rates, seconds.

    The file is replaced as a whole.
    """

    def __init__(self, path: Path, run: Logged, unfinished_row: dict | None = None):
        """Rows of an earlier part of the run are kept up to `run.update`; `unfinished_row` is of its last state."""
        self.path, self.rows = path, []
        self._sums = dict(unfinished_row or {})
        self._count = self._sums.pop("count", 0)
        if run.update == 0:
            path.unlink(missing_ok=True)
        elif path.is_file():
            self.rows = read_log(path, run.update).to_dict("records")
        self._seconds_before = self.rows[-1]["seconds"] if self.rows else 0.0
        self._counters_before = _counters(run)
        self._start = self._last = time.perf_counter()

    def add(self, measures: Row) -> None:
        """Measures of one update."""
        if self._sums.keys() != measures.keys():  # the row was begun by a version with other measures
            self._sums, self._count = {}, 0
        self._count += 1
        for name, value in measures.items():
            self._sums[name] = self._sums.get(name, 0.0) + value

    @property
    def unfinished_row(self) -> dict[str, float]:
        """Sums since the last row and the number of updates in them."""
        return self._sums | {"count": self._count}

    def write_row(self, run: Logged) -> dict[str, float]:
        """End the present row and write the file."""
        now, counters = time.perf_counter(), _counters(run)
        seconds, before = max(now - self._last, 1e-9), self._counters_before
        row = {"update": run.update} | counters
        row |= {name: total / self._count for name, total in self._sums.items()} | run.summary()
        row |= {rate: (counters[name] - before[name]) / seconds for rate, name in run.columns.rates.items()}
        row["seconds"] = self._seconds_before + now - self._start
        self.rows.append(row)
        self._sums, self._count, self._last, self._counters_before = {}, 0, now, counters
        self.save()
        return row

    def table(self) -> pd.DataFrame:
        """All rows."""
        return pd.DataFrame(self.rows)

    def save(self) -> None:
        """Write all rows."""
        write_csv(self.path, self.table())


def _counters(run: Logged) -> dict[str, float]:
    return {name: getattr(run, name) for name in run.columns.counters}


def read_log(path: Path, update: int) -> pd.DataFrame:
    """Read the rows up to an update, each a number in every column."""
    about = ("training log", "move it away to resume without it")
    old = read_csv(path, *about, numbers=("update", "seconds"))
    with reading(path, *about):
        textual = [name for name, column in old.items() if column.dtype.kind not in "iuf"]
        if textual and len(old):
            raise ValueError(f"its column {shown(textual[0])} holds something else than numbers")
        if not old["update"].is_monotonic_increasing or old["seconds"].isna().any():
            raise ValueError("its rows are not in the order of updates, each with its seconds")
        return old[old["update"] <= update]
