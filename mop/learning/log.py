"""What a training run reports: training_log.csv, the text beside the progress bar, the table at the end."""

import time
from pathlib import Path
from typing import Protocol

import pandas as pd

from mop.base.errors import InputError
from mop.base.files import write_atomic
from mop.worlds.teacher import FAILURE_KINDS

RECENT_EPISODES = 100  # success rate and path ratio are over so many last episodes


class Reporting(Protocol):
    """What the log asks of a run (`imitation.ImitationRun`)."""

    update: int
    env_steps: int

    def summary(self) -> dict[str, float]: ...


class TrainingLog:
    """training_log.csv: rows of means since the last row; the file is replaced as a whole."""

    def __init__(self, path: Path, run: Reporting, unfinished_row: dict | None = None):
        """Of an earlier part of the run, rows are kept up to `run.update`; `unfinished_row` is of its last state."""
        self.path, self.rows = path, []
        self._sums = dict(unfinished_row or {})
        self._count = self._sums.pop("count", 0)
        if run.update == 0:
            path.unlink(missing_ok=True)
        elif path.is_file():
            try:
                old = pd.read_csv(path)
            except (ValueError, OSError) as error:
                raise InputError(f"{path} is no training log ({error}); move it away to resume without it") from None
            self.rows = old[old["update"] <= run.update].to_dict("records")
        self._seconds_before = self.rows[-1]["seconds"] if self.rows else 0.0
        self._steps_before = run.env_steps
        self._start = self._last = time.perf_counter()

    def add(self, measures: dict[str, float]) -> None:
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

    def write_row(self, run: Reporting) -> dict[str, float]:
        """Close the present row and write the file."""
        now = time.perf_counter()
        row = {"update": run.update, "env_steps": run.env_steps}
        row |= {name: total / self._count for name, total in self._sums.items()} | run.summary()
        row["steps_per_s"] = (run.env_steps - self._steps_before) / max(now - self._last, 1e-9)
        row["seconds"] = self._seconds_before + now - self._start
        self.rows.append(row)
        self._sums, self._count, self._last, self._steps_before = {}, 0, now, run.env_steps
        self.save()
        return row

    def table(self) -> pd.DataFrame:
        """All rows."""
        return pd.DataFrame(self.rows)

    def save(self) -> None:
        """Write all rows."""
        text = self.table().to_csv(index=False)
        write_atomic(self.path, lambda file: file.write(text.encode()))


def bar_text(row: dict[str, float]) -> str:
    """The latest row beside the progress bar."""
    bot = f" bot {row['bot_share']:.0%}" if row["bot_share"] > 0 else ""
    return (
        f"{row['steps_per_s']:.0f} steps/s loss {row['loss']:.3f} acc {row['accuracy']:.1%} "
        f"success {row['success_rate']:.0%} path {row['path_ratio']:.2f} lpc {row['lpc']:.0f}{bot}"
    )


def closing_table(row: dict[str, float], final_path: Path) -> str:
    """The end of a run in words."""
    folder = final_path.parent
    lines = {
        "updates": f"{row['update']:.0f} ({row['env_steps']:,.0f} environment steps, {row['seconds']:.0f} s)",
        "recent success": f"{row['success_rate']:.1%} of the last {RECENT_EPISODES} episodes",
        "path ratio": f"{row['path_ratio']:.2f} (1 = as short as the bot's)",
        "accuracy": f"{row['accuracy']:.1%} of the bot's labels",
        "LPC": f"{row['lpc']:.0f}",
        "bot failures": f"{row['bot_plan_failures']:.0f} worlds that it could not begin; later "
        + (", ".join(f"{k} {row[f'failures_{k}']:.0f}" for k in FAILURE_KINDS if row[f"failures_{k}"]) or "none"),
        "checkpoint": str(final_path),
        "log, curve": f"{folder / 'training_log.csv'}, {folder / 'training_curve.png'}",
    }
    return "\n".join(f"{name:>15}  {value}" for name, value in lines.items())
