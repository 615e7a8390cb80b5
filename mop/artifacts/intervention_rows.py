"""Interventions on routing on disk: a row for each (intervention, memory variant) of a checkpoint, and their table.

The rows of a checkpoint are lines of JSON in `interventions.jsonl` beside its `result.json`. Several processes may add
rows to one file.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mop.artifacts.json_lines import JsonLines
from mop.artifacts.results import table_column
from mop.common.errors import InputError
from mop.common.files import find_files, folder_lock, json_bytes, write_atomic, write_csv
from mop.common.reading import read_bytes

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    *("checkpoint_path", "task_id", "trial", "seed", "update", "intervention", "variant", "num_episodes", "eval_seed"),
    *("success_rate", "path_ratio", "mean_lpc", "mean_steps", "worlds_lost", "worlds_gained"),
    *(f"{name}{end}" for name in ("delta_success", "delta_path_ratio", "agreement") for end in ("", "_low", "_high")),
)  # the first ones of the table; `phases` comes last
# what rows that can be compared have in common
SAME = ("checkpoint_sha256", "num_episodes", "eval_seed", "phases_by", "minigrid_version")
_WAIT_S = 60.0  # for another process that writes a file, which takes it a moment


def load_rows(path: str | Path) -> list[dict]:
    """Read the rows of one file, none if there is no file."""
    rows = JsonLines(path, _check_row, "row of an intervention")
    return rows.read() if rows.path.exists() else []


def _check_row(row: dict) -> None:
    if not all(isinstance(row[name], str) for name in ("checkpoint_path", "intervention", "variant")):
        raise ValueError("a name is no text")
    if any(isinstance(value, int) and value >= 2**63 for value in row.values()):
        raise ValueError("a number is too large for a table")
    in_words(row)


def comparable(rows: Iterable[Mapping], about: Mapping) -> list[Mapping]:
    """The rows of the same checkpoint, worlds and phases as `about`, which may be a row."""
    return [row for row in rows if all(row.get(name) == about[name] for name in SAME)]


def in_words(row: Mapping) -> dict[str, Any]:
    """What a person reads of a row: intervention, success, what changed with its intervals, agreement."""

    def change(name: str, form: str, scale: int = 1, unit: str = "") -> str:
        found = [row[f"{name}{end}"] for end in ("", "_low", "_high")]
        value, low, high = (None if number is None else f"{scale * number:{form}}" for number in found)
        if value is None:
            return "-"
        return f"{value}{unit}" + ("" if low is None else f" ({low} to {high})")

    return {
        "intervention": row["intervention"],
        "memory": row["variant"],
        "success": f"{row['success_rate']:.1%}",
        "change": change("delta_success", "+.1f", 100, "%"),
        "lost": row["worlds_lost"],
        "gained": row["worlds_gained"],
        "path ratio": change("delta_path_ratio", "+.3f"),
        "same action": change("agreement", ".1f", 100, "%"),
    }


def add_row(path: str | Path, row: Mapping[str, Any]) -> None:
    """Add a row to a file, in the place of the one with the same intervention and variant; NaN becomes null.

    Whatever other processes add meanwhile stays. Raises OSError if the disk refuses.
    """
    path = Path(path)
    with folder_lock(path, _WAIT_S):
        rows = {(other["intervention"], other["variant"]): other for other in load_rows(path)}
        rows[row["intervention"], row["variant"]] = dict(row)
        data = b"".join(json_bytes(other) for other in rows.values())
        write_atomic(path, lambda file: file.write(data))


def merge_rows(cache_dir: str | Path, table_path: str | Path, tell: Callable[[str], object]) -> "pd.DataFrame":
    """Write the table (CSV) of all interventions below `cache_dir`, and return it; phases are JSON texts.

    tell: called with a line about each file that cannot be read, which is left out. Raises OSError if the disk
    refuses.
    """
    import pandas as pd

    place = Path(table_path).resolve()
    with folder_lock(place, _WAIT_S):
        if place.exists() and not read_bytes(place).startswith(",".join(COLUMNS[:6]).encode()):
            raise InputError(f"{table_path} was not made by this program; move it, or name another --results_path")
        rows = []
        for path in find_files(cache_dir, "interventions.jsonl"):
            try:
                rows += load_rows(path)
            except InputError as error:
                tell(str(error))
        others = sorted({name for row in rows for name in row}.difference(COLUMNS, ["phases"]))
        names = [*COLUMNS, *others, "phases"]
        table = pd.DataFrame({name: table_column([row.get(name) for row in rows]) for name in names})
        write_csv(place, table)
    return table
