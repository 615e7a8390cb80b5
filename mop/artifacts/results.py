"""Results of evaluations: a row for each checkpoint, and the table of all of them."""

import csv
import io
import json
import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import orjson

from mop.artifacts.run_paths import RunKey, result_path
from mop.common.errors import InputError
from mop.common.files import find_files, folder_lock, json_bytes, write_csv
from mop.common.reading import read_bytes, read_json, reading

if TYPE_CHECKING:
    import pandas as pd

DOCUMENTED_COLUMNS = (
    *("checkpoint_path", "task_id", "trial", "num_episodes", "success_rate", "path_ratio", "mean_lpc"),
    *("bot_plan_failures", "num_updates", "unroll_len", "lr", "lpc_alpha", "expert_hidden_sizes", "intermediate_dim"),
    *("router_hidden_size", "max_steps", "lang_dim", "evaluated_at"),
)
ADDED_COLUMNS = (
    *("seed", "update", "policy", "lang_encoder", "normalize_lpc", "success_low", "success_high"),
    *("eval_seed", "minigrid_version", "trained_on"),
)
_SINCE = {"trained_on"}  # added columns that older tables lack


_TEXTS = {"checkpoint_path", "task_id", "evaluated_at", "policy", "lang_encoder", "minigrid_version", "trained_on"}
_FLAGS = {"normalize_lpc", "is_final"}
_LISTS = {"expert_hidden_sizes"}
_SHARES = {"success_rate", "success_low", "success_high"}
_NUMBERS = _SHARES | {"path_ratio", "mean_lpc", "lr", "lpc_alpha"}
_INTEGERS = {*DOCUMENTED_COLUMNS, *ADDED_COLUMNS, "num_envs", "env_steps"} - _TEXTS - _FLAGS - _LISTS - _NUMBERS
_KINDS = (
    *((_TEXTS, (str,), "a text"), (_FLAGS, (bool,), "true or false"), (_LISTS, (list,), "a list")),
    *((_NUMBERS, (int, float), "a number"), (_INTEGERS, (int,), "an integer")),
)
_WAIT_S = 60.0  # for another process that writes the table, which takes it a moment


def result_file(cache_dir: str | Path, key: RunKey, row: dict) -> tuple[Path, Callable[[BinaryIO], Any]]:
    """Make the result row of an evaluation, column -> plain Python value, for `write_together`; NaN becomes null."""
    _result_key(row)
    data = json_bytes(row, orjson.OPT_INDENT_2)
    return result_path(cache_dir, key), lambda file: file.write(data)


def load_result(path: str | Path) -> dict:
    """Read one result row."""
    row = read_json(path, "result")
    with reading(path, "result"):
        _result_key(row)
        _check_values(row)
    return row


def _result_key(row: Any) -> RunKey:
    """The key of the evaluation that a row is about, except that a final checkpoint has its update too."""
    missing = {"checkpoint_path", "task_id", "trial"} - (row.keys() if isinstance(row, dict) else set())
    if missing:
        raise InputError(f"the row lacks {', '.join(sorted(missing))}")
    if not isinstance(row["checkpoint_path"], str):
        raise InputError(f"checkpoint_path must be a text, not {row['checkpoint_path']!r:.40}")
    return RunKey(row["task_id"], row["trial"], row.get("seed"), row.get("update"), row.get("trained_on"))


def _check_values(row: dict) -> None:
    """Refuse a value that is not of the kind of its column, and an integer that is not of 64 bits."""
    for names, types, kind in _KINDS:
        for name in names & row.keys():
            if row[name] is not None and type(row[name]) not in types:
                raise InputError(f"{name} must be {kind}, not {row[name]!r:.40}")
    for name, value in row.items():
        if type(value) is int and abs(value) >= 2**63:
            raise InputError(f"{name} must be of 64 bits, not {value}")
        is_number = type(value) in (int, float)
        if is_number and ((name in _SHARES and not 0 <= value <= 1) or (name == "num_episodes" and value < 1)):
            raise InputError(f"{name} cannot be {value}")


# --- the table --------------------------------------------------------------------------------------------------------


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=3)


def merge_results(
    cache_dir: str | Path, results_path: str | Path, tell: Callable[[str], object] = _warn
) -> "pd.DataFrame":
    """Write the table of every result below `cache_dir` to `results_path` (CSV) and return it, sorted by run key.

    First the documented columns, then the added ones, then others by name. Integers stay integers where some rows
    have none (Int64), lists are JSON text. Of the table that is there, the rows of other checkpoints and the columns
    that no result has are kept, these as texts; a table of another program is moved aside, with a warning. A link is
    written through. tell: called with a line about each result that cannot be read, which is left out; those that are
    not in the place of their own key are skipped with a warning. Raises OSError if the disk refuses.
    """
    place = Path(results_path)
    place = place.resolve() if place.is_symlink() else place
    # Several processes may merge at once, each after it has written its results. One after the other, each finds what
    # was written before it, and the rows that the one before it has put into the table.
    with folder_lock(place, _WAIT_S):
        try:
            columns, old = read_table(place)
        except InputError as error:
            _move_aside(place, error)
            columns, old = [], []
        table = _as_table(*_joined(_load_rows(cache_dir, tell), columns, old))
        write_csv(place, table)
        return table


def load_results(cache_dir: str | Path) -> "pd.DataFrame":
    """The table that `merge_results` would write, of the results that are there now alone."""
    return _as_table(_load_rows(cache_dir, _warn), [])


def read_table(path: str | Path) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and rows of a results table, all as texts; nothing if there is no file.

    Refused if it is not one of this program: not a CSV table with the documented and added columns.
    """
    if not Path(path).exists():
        return [], []
    with reading(path, "results table"):
        columns, rows = _read_cells(path)
    needed = {*ADDED_COLUMNS, "checkpoint_path", "task_id"} - _SINCE
    is_ours = needed <= set(columns) and len(set(columns)) == len(columns)
    if not is_ours or any(None in row for row in rows):  # None: cells past the last column
        raise InputError(f"{path} was not made by this program")
    return columns, rows


def load_table_rows(path: str | Path, needed: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Read a table of results, which may be an older one or a part of one: each row, column -> plain Python value.

    needed: columns without which it is none. Lists stay texts.
    """
    with reading(path, "results table"):
        columns, cells = _read_cells(path)
        rows = [{name: _typed(name, cell) for name, cell in row.items()} for row in cells]
        if missing := sorted({"task_id", *needed}.difference(columns)):
            raise InputError(f"it lacks {', '.join(missing)}")
        for row in rows:
            _check_values({name: value for name, value in row.items() if name not in _LISTS})
    return rows


def _read_cells(path: str | Path) -> tuple[list[str], list[dict[str, str]]]:
    text = read_bytes(path).decode("utf-8-sig")
    reader = csv.DictReader(io.StringIO(text, newline=""), restval="")
    rows = list(reader)
    return list(reader.fieldnames or []), rows


def _typed(name: str, cell: str) -> Any:
    """The value of a cell, by its column; as it is where it is none of that column."""
    if name in _TEXTS or name in _LISTS:
        return cell or None
    value = None if cell.lower() == "nan" else _value(cell)
    if name in _NUMBERS | _INTEGERS and isinstance(value, str):  # such as 0.10
        with suppress(ValueError):
            value = float(cell)
    return int(value) if name in _INTEGERS and isinstance(value, float) and value.is_integer() else value


def _move_aside(path: Path, reason: InputError) -> None:
    # no two processes give the same name: the second would replace what the first has kept
    kept = path.with_name(f"{path.stem}.{datetime.now(UTC):%Y%m%dT%H%M%S}.{os.getpid()}.csv")
    with suppress(FileNotFoundError):  # another process was faster
        os.replace(path, kept)
        _warn(f"{reason}; it is kept as {kept}")


def _load_rows(cache_dir: str | Path, tell: Callable[[str], object]) -> list[dict]:
    """Every result below `cache_dir` that lies in the place of its own key."""
    rows = []
    for path in find_files(cache_dir, "result.json"):
        try:
            key = RunKey.from_artefacts(path.parent.relative_to(cache_dir))
            if result_path(cache_dir, key) != path:
                raise InputError("more folders than those of a run")
        except InputError:
            layout = "<task_id>/trial_<N>[/seed_<S>][/update_<U>][/<task of a list>]"
            _warn(f"{path} is skipped: results lie in {layout} of {cache_dir}")
            continue
        try:
            row = load_result(path)
        except InputError as error:
            if path.exists():  # else another process has just begun to replace it
                tell(f"{error}; it is left out of the table")
            continue
        with suppress(InputError):  # of a path of another layout: the place must do
            is_other = key.trained_on is not None and row["task_id"] != key.task_id
            if is_other or RunKey.from_checkpoint(row["checkpoint_path"]) != key.of_checkpoint:
                _warn(f"{path} is skipped: it is the result of {row['checkpoint_path']}, a copy?")
                continue
        rows.append(row)
    return rows


def _joined(rows: list[dict], columns: Sequence[str], old: list[dict[str, str]]) -> tuple[list[dict], list[str]]:
    """These rows with what only the old table has: its rows of other checkpoints, and its columns, which are named."""
    own = {name for row in rows for name in row}.union(DOCUMENTED_COLUMNS, ADDED_COLUMNS)
    kept = [name for name in columns if name not in own]
    added = {_place(row): {name: row[name] for name in kept} for row in old}
    places = [_place(row) for row in rows]
    others = [row for row in old if _place(row) not in set(places)]
    joined = [row | added.get(place, {}) for row, place in zip(rows, places, strict=True)]
    joined += [{name: row[name] if name in kept else _value(row[name]) for name in columns} for row in others]
    return joined, kept


def _place(row: Mapping) -> tuple[str, str | None]:
    """What a row is about: a checkpoint and, where it was trained on several tasks, one of them."""
    return os.path.abspath(row["checkpoint_path"]), row["task_id"] if row.get("trained_on") else None


def _value(cell: str) -> Any:
    """The number, truth value or None whose text in a table is `cell`, else `cell` itself."""
    if cell in ("", "True", "False"):
        return None if cell == "" else cell == "True"
    for kind in (int, float):
        with suppress(ValueError):
            value = kind(cell)
            if str(value) == cell and math.isfinite(value) and (kind is float or abs(value) < 2**63):
                return value
    return cell


def _as_table(rows: list[dict], kept: Sequence[str]) -> "pd.DataFrame":
    """The table of some rows; kept: columns of texts, which come last."""
    import pandas as pd

    rows = sorted(rows, key=_order)
    known = (*DOCUMENTED_COLUMNS, *ADDED_COLUMNS)
    others = sorted({name for row in rows for name in row}.difference(known, kept))
    return pd.DataFrame({name: table_column([row.get(name) for row in rows]) for name in (*known, *others, *kept)})


def _order(row: dict) -> tuple:
    try:
        return 0, _result_key(row)
    except InputError:  # added by hand, and of no run
        return (1,)


def table_column(values: list) -> "pd.Series":
    """A column of plain values: of integers or truth values with gaps, or of anything; lists as JSON text."""
    import pandas as pd

    types = {type(value) for value in values if value is not None}
    if types in ({int}, {bool}):
        return pd.Series(values, dtype="Int64" if types == {int} else "boolean")
    return pd.Series([json.dumps(value) if isinstance(value, list | dict) else value for value in values])
