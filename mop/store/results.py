"""Results of evaluations: a row for each checkpoint, and the table of all of them."""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from mop.base.errors import InputError
from mop.base.files import read_bytes, write_atomic, write_json
from mop.store.run_keys import RunKey, result_path

if TYPE_CHECKING:
    import pandas as pd

DOCUMENTED_COLUMNS = (
    *("checkpoint_path", "task_id", "trial", "num_episodes", "success_rate", "path_ratio", "mean_lpc"),
    *("bot_plan_failures", "num_updates", "unroll_len", "lr", "lpc_alpha", "expert_hidden_sizes", "intermediate_dim"),
    *("router_hidden_size", "max_steps", "lang_dim", "evaluated_at"),
)
ADDED_COLUMNS = (
    *("seed", "update", "policy", "lang_encoder", "normalize_lpc", "success_low", "success_high"),
    *("eval_seed", "minigrid_version"),
)


def write_result(cache_dir: str | Path, key: RunKey, row: dict) -> None:
    """Write the result row of one evaluation, column -> plain Python value; NaN becomes null.

    Raises InputError if the row does not name its checkpoint.
    """
    _result_key(row)
    write_json(result_path(cache_dir, key), row, orjson.OPT_INDENT_2)


def load_result(path: str | Path) -> dict:
    """Read one result row. Raises InputError, naming file and reason, if it is missing or no result."""
    data = read_bytes(path)
    try:
        row = orjson.loads(data)
        _result_key(row)
    except (ValueError, InputError) as error:
        raise InputError(f"{path}: it is no result ({error})") from error
    return row


def _result_key(row: Any) -> RunKey:
    """The key of the checkpoint that a row is about. Raises InputError if the row does not tell it."""
    missing = {"checkpoint_path", "task_id", "trial"} - (row.keys() if isinstance(row, dict) else set())
    if missing:
        raise InputError(f"the row lacks {', '.join(sorted(missing))}")
    return RunKey(row["task_id"], row["trial"], row.get("seed"), row.get("update"))


def merge_results(cache_dir: str | Path, results_path: str | Path) -> "pd.DataFrame":
    """Write the table of every result below `cache_dir` to `results_path` (CSV) and return it, sorted by run key.

    First the documented columns, then the added ones, then others by name. Integers stay integers where some rows
    have none (Int64), lists are JSON text. A result that cannot be read is left out with a warning that names it.
    """
    # Several processes may merge at once, each after it has written its result; no row is lost, without a lock. Take
    # the last replacement of the table and any result R. If R was written before the process that replaced it listed
    # the files again, R is in this table: else the listing would have changed, and the process would have replaced the
    # table once more. R cannot have been written later: its own process would have replaced the table after that. (A
    # process that is killed between writing and merging may leave an old table, which the next merge mends.)
    while True:
        listing = _list_results(cache_dir)
        table = _results_table(sorted(path for path, *_ in listing))
        data = table.to_csv(index=False, lineterminator="\n").encode()
        write_atomic(results_path, lambda file, data=data: file.write(data))
        if _list_results(cache_dir) == listing:
            return table


def load_results(cache_dir: str | Path) -> "pd.DataFrame":
    """The table that `merge_results` writes, of the results that are there now."""
    return _results_table(sorted(path for path, *_ in _list_results(cache_dir)))


def _list_results(cache_dir: str | Path) -> set[tuple[Path, int, int]]:
    """Path and version of each result: a replaced file has a new time or, within one tick of the clock, a new inode."""
    stats = ((path, path.stat()) for path in Path(cache_dir).rglob("result.json"))
    return {(path, stat.st_mtime_ns, stat.st_ino) for path, stat in stats}


def _results_table(paths: Sequence[Path]) -> "pd.DataFrame":
    import pandas as pd

    rows = []
    for path in paths:
        try:
            rows.append(load_result(path))
        except InputError as error:
            warnings.warn(f"{error}; it is left out of the table", stacklevel=3)
    rows.sort(key=_result_key)
    known = DOCUMENTED_COLUMNS + ADDED_COLUMNS
    others = sorted({name for row in rows for name in row}.difference(known))
    return pd.DataFrame({name: _table_column([row.get(name) for row in rows]) for name in (*known, *others)})


def _table_column(values: list) -> "pd.Series":
    import pandas as pd

    types = {type(value) for value in values if value is not None}
    if types in ({int}, {bool}):
        return pd.Series(values, dtype="Int64" if types == {int} else "boolean")
    return pd.Series([json.dumps(value) if isinstance(value, list | dict) else value for value in values])
