"""Where the files of a run are, and how they are stored: checkpoints, result rows, the results table.

Nothing else spells a path. What other modules write goes through `write_atomic` too: a reader never sees half a file.
"""

import fcntl
import hashlib
import io
import json
import math
import os
import re
import secrets
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

import numpy as np
import orjson

from errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

# torch and pandas are imported by the functions that need them: a notebook reads caches only, and opens seconds sooner.

DEFAULT_ROOTS = ("checkpoints", "modal_checkpoints")
CACHE_DIR = "evaluation_cache"
PLOTS_DIR = "plots"
RESULTS_TABLE = "evaluation_results.csv"

# --- run key <-> path -----------------------------------------------------------------------------------------------

_NUMBER = "0|[1-9][0-9]*"  # no leading zeros, so that a path and its key determine each other
_RUN = rf"(?:.*/)?(?P<task_id>(?!\.\.?/)[^/]+)/trial_(?P<trial>{_NUMBER})(?:/seed_(?P<seed>{_NUMBER}))?"
_CHECKPOINT_PATH = re.compile(rf"{_RUN}/checkpoint_(?:final|(?P<update>{_NUMBER}))\.pt", re.DOTALL)
_ARTEFACTS_PATH = re.compile(rf"{_RUN}(?:/update_(?P<update>{_NUMBER}))?", re.DOTALL)


@dataclass(frozen=True)
class RunKey:
    """The name of one checkpoint of one run, and with it of everything that is made from that checkpoint.

    `seed` is None where none was given (the trial number is the seed then); `update` is None for the final checkpoint.
    Raises InputError if `task_id` cannot be a folder name or a number is not an integer of 0 or more.
    """

    task_id: str
    trial: int
    seed: int | None = None
    update: int | None = None

    def __post_init__(self):
        if not isinstance(self.task_id, str) or self.task_id in ("", ".", "..") or "/" in self.task_id:
            raise InputError(f"task_id must be a name without '/', not {self.task_id!r}")
        for name, value in (("trial", self.trial), ("seed", self.seed), ("update", self.update)):
            if value is None and name != "trial":
                continue
            if type(value) is not int or value < 0:  # bool is a subclass of int, and no trial
                raise InputError(f"{name} must be an integer of 0 or more, not {value!r}")

    def folder(self, root: str | Path) -> Path:
        """`<root>/<task_id>/trial_<N>[/seed_<S>]`: the checkpoints and the log of the run."""
        folder = Path(root) / self.task_id / f"trial_{self.trial}"
        return folder if self.seed is None else folder / f"seed_{self.seed}"

    def checkpoint(self, root: str | Path) -> Path:
        """`checkpoint_final.pt` or `checkpoint_<U>.pt` in the folder of the run."""
        return self.folder(root) / f"checkpoint_{'final' if self.update is None else self.update}.pt"

    def artefacts(self, root: str | Path) -> Path:
        """`<folder>[/update_<U>]` under `evaluation_cache/` or `plots/`: what is made from the checkpoint."""
        folder = self.folder(root)
        return folder if self.update is None else folder / f"update_{self.update}"

    @property
    def label(self) -> str:
        """Short text for titles and messages, such as `BabyAI-GoToObj-v0 trial 0 seed 1 update 200`."""
        numbers = (("trial", self.trial), ("seed", self.seed), ("update", self.update))
        return " ".join([self.task_id, *(f"{name} {value}" for name, value in numbers if value is not None)])

    @classmethod
    def from_checkpoint(cls, path: str | Path) -> "RunKey":
        """The key of a checkpoint file, from the end of its path. Raises InputError if the path has another layout."""
        return cls._parse(_CHECKPOINT_PATH, path, "<task_id>/trial_<N>[/seed_<S>]/checkpoint_final.pt (or _<U>.pt)")

    @classmethod
    def from_artefacts(cls, folder: str | Path) -> "RunKey":
        """The key of a folder of artefacts, from the end of its path. Raises InputError if it has another layout."""
        return cls._parse(_ARTEFACTS_PATH, folder, "<task_id>/trial_<N>[/seed_<S>][/update_<U>]")

    @classmethod
    def _parse(cls, pattern: re.Pattern, path: str | Path, layout: str) -> "RunKey":
        match = pattern.fullmatch(Path(path).as_posix())
        if match is None:
            raise InputError(f"{path}: the path does not end in {layout}")
        numbers = {name: match[name] and int(match[name]) for name in ("trial", "seed", "update")}
        return cls(match["task_id"], **numbers)

    def _order(self) -> tuple:
        """Sort key: by task, trial, seed (none first), update (the final checkpoint last)."""
        seed = -1 if self.seed is None else self.seed
        return self.task_id, self.trial, seed, math.inf if self.update is None else self.update


# --- bytes ----------------------------------------------------------------------------------------------------------


def write_atomic(path: str | Path, write: Callable[[BinaryIO], Any]) -> None:
    """Call `write(file)` on a temporary file beside `path`, then move it over `path`; parent folders are made.

    Whatever happens in between, `path` holds all of the old content or all of the new.
    Raises OSError if the disk refuses, and whatever `write` raises; the temporary file is gone in both cases.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not tempfile: its files are readable by their owner only, and would keep that mode. The name is unique because
    # several processes may write one table, and starts with a dot and ends in .tmp so that no search finds it.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def claimed(path: str | Path) -> Iterator[bool]:
    """Whether this process alone may work on `path` (a file or folder, there or not) until the block ends.

    A process that ends, however it ends, gives its claim back. The lock is a file in the system's temporary folder, so
    nothing is left in the tree; it tells processes of one machine apart, not those of several.
    """
    name = hashlib.sha256(str(Path(path).resolve()).encode()).hexdigest()[:24]
    lock = Path(tempfile.gettempdir()) / f"rl-mop-{name}.lock"
    try:
        file, is_ours = _lock(lock)
    except OSError:  # another user's lock, or no such folder: go on without, work may be done twice
        yield True
        return
    with file:
        try:
            yield is_ours
        finally:
            if is_ours:
                lock.unlink(missing_ok=True)


def _lock(path: Path) -> tuple[TextIO, bool]:
    """The open lock file, and whether it is ours until it is closed."""
    while True:
        file = path.open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file, True
        except BlockingIOError:
            return file, False
        except FileNotFoundError:
            pass
        except OSError:
            file.close()
            raise
        file.close()  # its owner removed it between our opening and locking it: nobody else would see our lock


def read_bytes(path: str | Path) -> bytes:
    """What a file holds. Raises InputError, naming it, if it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error


def file_digest(path: str | Path) -> str:
    """The first 16 hexadecimal digits of a file's SHA-256. Raises OSError."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]


def write_figure(path: str | Path, figure: "Figure") -> Path:
    """Write a figure as PNG of 100 dots per inch, however it is shown; returns `path`."""
    path = Path(path)
    write_atomic(path, lambda file: figure.savefig(file, format="png", dpi=100))
    return path


def json_bytes(content: dict, option: int = 0) -> bytes:
    """Strict JSON: NaN and infinities become null."""
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE | option)


def _write_json(path: Path, content: dict, option: int = 0) -> None:
    data = json_bytes(content, option)
    write_atomic(path, lambda file: file.write(data))


# --- checkpoints ----------------------------------------------------------------------------------------------------


def save_checkpoint(path: str | Path, checkpoint: dict) -> None:
    """Write a checkpoint that loads with `weights_only=True`; numpy scalars in its `config` become Python numbers."""
    save_training_state(path, checkpoint | {"config": _plain(checkpoint["config"])})


def load_checkpoint(path: str | Path, device: str = "cpu") -> dict:
    """Read a checkpoint: at least `policy_state_dict` (name -> tensor) and `config` (plain Python, with `task_id`).

    Keys that an older checkpoint lacks stay absent. Only tensors, plain Python values and numpy scalars are loaded.
    Raises InputError, naming file and reason, if the file is missing, cut short, no checkpoint, or holds anything else.
    """
    checkpoint = _load_torch(path, device, allowed=_numpy_scalar_globals())
    for key in ("policy_state_dict", "config"):
        if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get(key), dict):
            raise InputError(f"{path}: it is no checkpoint (it has no dictionary '{key}')")
    for name, value in checkpoint["policy_state_dict"].items():
        if not hasattr(value, "untyped_storage"):
            raise InputError(f"{path}: it is no checkpoint ({name!r} in its policy_state_dict is no tensor)")
    if not isinstance(checkpoint["config"].get("task_id"), str):
        raise InputError(f"{path}: it is no checkpoint (its config has no 'task_id')")
    return checkpoint | {key: _plain(checkpoint[key]) for key in ("config", "update") if key in checkpoint}


def save_training_state(path: str | Path, state: dict) -> None:
    """Write nested dicts and lists of tensors, numbers and strings."""
    import torch

    write_atomic(path, lambda file: torch.save(state, file))


def load_training_state(path: str | Path, device: str = "cpu") -> dict:
    """Read what `save_training_state` wrote. Raises InputError, naming file and reason, if it is anything else."""
    state = _load_torch(path, device)
    if not isinstance(state, dict):
        raise InputError(f"{path}: it is no training state (it holds a {type(state).__name__})")
    return state


def _load_torch(path: str | Path, device: str, allowed: Sequence = ()) -> Any:
    import torch

    data = read_bytes(path)
    try:
        with torch.serialization.safe_globals(list(allowed)):
            return torch.load(io.BytesIO(data), map_location=device, weights_only=True)
    except Exception as error:  # on a bad file torch raises nearly anything, KeyError('101') for a text among it
        raise InputError(f"{path}: {_reason_not_loaded(data, error)}") from error


def _reason_not_loaded(data: bytes, error: Exception) -> str:
    forbidden = re.search(r"GLOBAL (\S+)", str(error))
    if forbidden:
        return f"it holds {forbidden[1]!r}, which no checkpoint needs; nothing of it was loaded"
    if not data:
        return "the file is empty"
    if not data.startswith(b"PK"):  # torch.save writes a zip archive
        return "it is no checkpoint (torch.save did not write it)"
    if not zipfile.is_zipfile(io.BytesIO(data)):  # the table of contents stands at the end
        return "the file is cut short"
    return f"torch cannot load it ({str(error).splitlines()[0] if str(error) else type(error).__name__})"


def _numpy_scalar_globals() -> list:
    """What the pickle of a numpy scalar refers to: existing checkpoints hold `num_actions` as one.

    Its constructor moved from `numpy.core` to `numpy._core` in numpy 2.0, and files name it by either.
    """
    scalar = np.int64(0).__reduce__()[0]
    dtypes = [type(np.dtype(code)) for code in "?bBhHiIlLqQefdU"]
    return [(scalar, "numpy.core.multiarray.scalar"), (scalar, "numpy._core.multiarray.scalar"), np.dtype, *dtypes]


def _plain(value: Any) -> Any:
    """The same nested value with Python numbers and strings in place of numpy's."""
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(item) for item in value)
    return value.item() if isinstance(value, np.generic) else value


@dataclass(frozen=True)
class FoundCheckpoint:
    """A checkpoint file and the key that its place gives it."""

    key: RunKey
    path: Path


def find_checkpoints(roots: Sequence[str | Path], is_quick: bool = False) -> list[FoundCheckpoint]:
    """Every checkpoint below `roots`, once, sorted by key; files of another layout and missing roots do not matter.

    Of the same key in two places the first root's is taken (a warning tells if the files differ). A periodic
    checkpoint is left out where the final one of its run is of the same update; is_quick: do not open the final ones
    to find that out, which needs torch.
    """
    found: dict[RunKey, Path] = {}
    for root in map(Path, roots):
        for path in sorted(root.rglob("checkpoint_*.pt")):
            # Relative to the root: the task folder must lie inside it.
            if not _CHECKPOINT_PATH.fullmatch(path.relative_to(root).as_posix()) or not path.is_file():
                continue
            first = found.setdefault(RunKey.from_checkpoint(path), path)
            if first != path and read_bytes(first) != read_bytes(path):
                warnings.warn(f"{path} differs from {first}, which is used for the same run", stacklevel=2)
    runs_to_open = set() if is_quick else {replace(key, update=None) for key in found if key.update is not None}
    for run in runs_to_open & found.keys():
        update = update_of(FoundCheckpoint(run, found[run]))
        if update is not None:
            found.pop(replace(run, update=update), None)
    return [FoundCheckpoint(key, found[key]) for key in sorted(found, key=RunKey._order)]


def find_caches(cache_dir: str | Path) -> list[RunKey]:
    """The keys of all routing caches below `cache_dir`, sorted; files of another layout do not matter."""
    keys = []
    for path in Path(cache_dir).rglob("routing_data.json"):
        folder = path.parent.relative_to(cache_dir).as_posix()
        if _ARTEFACTS_PATH.fullmatch(folder):
            keys.append(RunKey.from_artefacts(folder))
    return sorted((key for key in keys if cache_path(cache_dir, key).is_file()), key=RunKey._order)


def update_of(found: FoundCheckpoint) -> int | None:
    """Number of updates that a checkpoint has seen: of a final one, None if the file does not tell or is broken."""
    if found.key.update is not None:
        return found.key.update
    try:
        checkpoint = load_checkpoint(found.path)
    except InputError:
        return None  # not reported here: whoever evaluates the file will
    update = checkpoint.get("update", checkpoint["config"].get("num_updates"))
    return update if type(update) is int and update >= 0 else None


# --- results --------------------------------------------------------------------------------------------------------

DOCUMENTED_COLUMNS = (
    *("checkpoint_path", "task_id", "trial", "num_episodes", "success_rate", "path_ratio", "mean_lpc"),
    *("bot_plan_failures", "num_updates", "unroll_len", "lr", "lpc_alpha", "expert_hidden_sizes", "intermediate_dim"),
    *("router_hidden_size", "max_steps", "lang_dim", "evaluated_at"),
)
ADDED_COLUMNS = (
    *("seed", "update", "policy", "lang_encoder", "normalize_lpc", "success_low", "success_high"),
    *("eval_seed", "minigrid_version"),
)


def result_path(cache_dir: str | Path, key: RunKey) -> Path:
    """The result row of one evaluation."""
    return key.artefacts(cache_dir) / "result.json"


def cache_path(cache_dir: str | Path, key: RunKey) -> Path:
    """The routing cache of one evaluation."""
    return key.artefacts(cache_dir) / "routing_data.json"


def write_result(cache_dir: str | Path, key: RunKey, row: dict) -> None:
    """Write the result row of one evaluation, column -> plain Python value; NaN becomes null."""
    _result_key(row)
    _write_json(result_path(cache_dir, key), row, orjson.OPT_INDENT_2)


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
    missing = {"checkpoint_path", "task_id", "trial"} - (row.keys() if isinstance(row, dict) else set())
    if missing:
        raise InputError(f"the row lacks {', '.join(sorted(missing))}")
    return RunKey(row["task_id"], row["trial"], row.get("seed"), row.get("update"))


def merge_results(cache_dir: str | Path, results_path: str | Path) -> "pd.DataFrame":
    """Write the table of every result below `cache_dir` to `results_path` (CSV) and return it, sorted by run key.

    First the documented columns, then the added ones, then others by name. Integers stay integers where some rows
    have none (Int64), lists are JSON text. A result that cannot be read is left out with a warning that names it.
    """
    # Several processes may do this at once, each after it wrote its result, and no row is lost, without a lock. Take
    # the process whose replacement of the table is the last of all, and any result R. If R was written before that
    # process lists the files again, R is in its table, or else the listing has changed and it replaces the table once
    # more: it was not the last. If R was written later, R's own process merges later still, and replaces the table
    # after the last replacement. (Killed between the two, a process may leave an old table: the next merge mends it.)
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
    rows.sort(key=lambda row: _result_key(row)._order())
    known = DOCUMENTED_COLUMNS + ADDED_COLUMNS
    others = sorted({name for row in rows for name in row}.difference(known))
    return pd.DataFrame({name: _table_column([row.get(name) for row in rows]) for name in (*known, *others)})


def _table_column(values: list) -> "pd.Series":
    import pandas as pd

    types = {type(value) for value in values if value is not None}
    if types in ({int}, {bool}):
        return pd.Series(values, dtype="Int64" if types == {int} else "boolean")
    return pd.Series([json.dumps(value) if isinstance(value, list | dict) else value for value in values])


# --- the teacher's results ------------------------------------------------------------------------------------------


def teacher_path(cache_dir: str | Path, task_id: str, max_steps: int | None) -> Path:
    """The bot's results in the fixed worlds of a task, for one step limit (None: the task's own)."""
    name = "teacher.json" if max_steps is None else f"teacher_max_steps_{max_steps}.json"
    return RunKey(task_id, 0).folder(cache_dir).parent / name


def load_teacher_results(path: str | Path, minigrid_version: str) -> dict[int, int | str]:
    """Seed -> steps of the bot or kind of its failure; empty if there is no file, or one of another version.

    It is a cache that anyone can compute again, so a broken file counts as none.
    """
    try:
        content = orjson.loads(Path(path).read_bytes())
        if content["minigrid_version"] != minigrid_version:
            return {}
        results = {int(seed): result for seed, result in content["results"].items()}
        is_whole = all(type(result) is str or (type(result) is int and result > 0) for result in results.values())
        return results if is_whole else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def write_teacher_results(
    path: Path, results: dict[int, int | str], task_id: str, max_steps: int | None, minigrid_version: str
) -> None:
    """Write what `load_teacher_results` reads; of two processes that do, either file is right."""
    head = {"task_id": task_id, "max_steps": max_steps, "minigrid_version": minigrid_version}
    _write_json(path, head | {"results": {str(seed): results[seed] for seed in sorted(results)}})
