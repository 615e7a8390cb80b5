"""Where the files of a run are and how they are stored: checkpoint, result row, results table, routing cache.

Nothing else spells a path or writes an artefact. Every file has one writer, and a reader never sees half of one.
Axis letters: S steps, L layers, E experts, A actions.
"""

import fcntl
import gc
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
from dataclasses import dataclass, fields, replace
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

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
    try:
        file = open(Path(tempfile.gettempdir()) / f"rl-mop-{name}.lock", "w")  # noqa: SIM115 - closed below
    except OSError:  # another user's lock, or no such folder: go on without, work may be done twice
        yield True
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            is_ours = False
        except OSError:
            is_ours = True
        else:
            is_ours = True
        yield is_ours


def _read_bytes(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error


def write_figure(path: str | Path, figure: "Figure") -> Path:
    """Write a figure as PNG of 100 dots per inch, however it is shown; returns `path`."""
    path = Path(path)
    write_atomic(path, lambda file: figure.savefig(file, format="png", dpi=100))
    return path


def _json_bytes(content: dict, option: int = 0) -> bytes:
    """Strict JSON: NaN and infinities become null."""
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE | option)


def _write_json(path: Path, content: dict, option: int = 0) -> None:
    data = _json_bytes(content, option)
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

    data = _read_bytes(path)
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
            if first != path and _read_bytes(first) != _read_bytes(path):
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
    data = _read_bytes(path)
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


# --- routing cache --------------------------------------------------------------------------------------------------

SCHEMA_VERSION = 4
REMAKE = "python batch_eval.py --force"
_STEP_COLUMNS = {  # name: (dtype, shape of one entry)
    "episode": (np.int32, ()),
    "t_step": (np.int32, ()),
    "position": (np.int32, (2,)),
    "direction": (np.int8, ()),
    "lpc": (np.float32, ()),
    "carrying": (np.bool_, ()),
    "door_unlocked": (np.bool_, ()),
    "action_logits": (np.float32, (7,)),
    "action": (np.int8, ()),
}
_MAX_WORLD_SIZE = 1000  # cells; a figure of a larger one would take the memory of the machine


def _is_place(value: Any, length: int = 2) -> bool:
    """Whether this is a list of so many coordinates."""
    return (
        isinstance(value, list)
        and len(value) == length
        and all(type(number) is int and 0 <= number < _MAX_WORLD_SIZE for number in value)
    )


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, list) and _is_place(entry[:2]) for entry in value)


def _is_bounds(value: Any) -> bool:
    return isinstance(value, list) and all(_is_place(entry, 4) for entry in value)


def _is_count(value: Any) -> bool:
    return value is None or (type(value) is int and 0 <= value < 2**63)


_OBJECTS = ("goals", "doors", "keys", "balls", "boxes")
_EPISODE_FIELDS = {  # what is read of an episode -> whether a value can be one; any may be absent from older caches
    **dict.fromkeys(("grid_size", "agent_start_pos", "agent_start_room", "room_grid_shape"), _is_place),
    "target_pos": lambda value: value is None or _is_place(value),
    **dict.fromkeys(_OBJECTS, _is_list_of_objects),
    "room_bounds": _is_bounds,
    **dict.fromkeys(("seed", "t_pick", "t_opened", "t_unlocked", "t_drop", "steps", "expert_steps"), _is_count),
    "mission": lambda value: isinstance(value, str),
    "success": lambda value: isinstance(value, bool),
}
_BATCH_STEPS = 1024  # converted at a time: all their values stay in the processor's cache, which saves a third
# Names of a step's index into `episodes`. Before v4 it is the index of a context, so a name that says so goes first.
_EPISODE_KEYS = ("context_idx", "env_context_idx", "episode_index", "episode_idx", "episode", "env_context")


def _layer_names(num_layers: int) -> list[str]:
    return [f"layer_{layer}" for layer in range(num_layers)]


def _batches(num_steps: int) -> list[slice]:
    return [slice(start, start + _BATCH_STEPS) for start in range(0, num_steps, _BATCH_STEPS)]


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """A cache is millions of small objects and no garbage: looking for some would double the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@dataclass(eq=False)
class RoutingSteps:
    """One entry per environment step, in episode order: arrays (S, ...); a column that an older cache lacks is None.

    `episode` is an index into the episodes of the cache. Before v4 these are contexts, and several episodes with one
    layout share one. `layer_routing` holds L arrays (S, E_l) float32, the weights of the experts of each layer.
    """

    episode: np.ndarray  # (S,) int32
    t_step: np.ndarray | None = None  # (S,) int32
    position: np.ndarray | None = None  # (S, 2) int32, x and y
    direction: np.ndarray | None = None  # (S,) int8
    layer_routing: list[np.ndarray] | None = None
    lpc: np.ndarray | None = None  # (S,) float32
    carrying: np.ndarray | None = None  # (S,) bool
    door_unlocked: np.ndarray | None = None  # (S,) bool
    action_logits: np.ndarray | None = None  # (S, A) float32
    action: np.ndarray | None = None  # (S,) int8

    def __len__(self) -> int:
        return len(self.episode)


@dataclass(eq=False)
class RoutingCache:
    """One evaluation: `header` (every top-level key but the next two), one dict per episode, and the steps.

    remake: the command that makes it anew, for messages; where it is None, they name a more general one.
    """

    header: dict
    episodes: list[dict]
    steps: RoutingSteps
    remake: str | None = None

    def require(self, field: str) -> None:
        """Raise InputError unless `field` is a column of the steps or a key of every episode."""
        is_column = field in RoutingSteps.__dataclass_fields__
        is_there = getattr(self.steps, field) is not None if is_column else all(field in e for e in self.episodes)
        if is_there:
            return
        task_id = self.header.get("task_id")
        if task_id is None:  # before v4 only the path of the checkpoint tells
            match = _CHECKPOINT_PATH.fullmatch(str(self.header.get("checkpoint_path")))
            task_id = match["task_id"] if match else "<task_id>"
        raise InputError(
            f"this routing cache (schema version {self.header.get('schema_version')}) has no '{field}': "
            f"make a new one with `{self.remake or f'{REMAKE} --task {task_id}'}`"
        )


def write_cache(cache_dir: str | Path, key: RunKey, cache: RoutingCache) -> None:
    """Write a routing cache, schema version 4: weights rounded to 5 decimals, logits and LPC to 4, NaN as null.

    Its steps are written once more as arrays, routing_data.npz beside it, for `load_cache` to read at once.
    """
    content = {"task_id": key.task_id, "trial": key.trial, "seed": key.seed, **cache.header}
    content |= {"schema_version": SCHEMA_VERSION, "episodes": cache.episodes}
    path, data = cache_path(cache_dir, key), _json_bytes(content | {"routing_data": _records(cache.steps)})
    write_atomic(path, lambda file: file.write(data))
    if len(cache.steps):
        _write_arrays(path, data, content, cache.steps)


def _records(steps: RoutingSteps) -> orjson.Fragment:
    """The list of one object per step; a column that is None has no key."""
    # As text: each column is written at once and cut into its rows, which takes half the time of a dict per step.
    members, arrays = [], []
    for name in (column.name for column in fields(RoutingSteps)):
        values = getattr(steps, name)
        if values is None:
            continue
        if name == "layer_routing":
            layers = ",".join(f'"{layer}":[%b]' for layer in _layer_names(len(values)))
            members.append(f'"layer_routing":{{{layers}}}')
            arrays += [_rounded(weights, 5) for weights in values]
        else:
            members.append(f'"{name}":[%b]' if _STEP_COLUMNS[name][1] else f'"{name}":%b')
            arrays.append(_as_written(name, values))
    record = f"{{{','.join(members)}}}".encode()
    if any(len(array) != len(steps) for array in arrays):
        raise ValueError("the columns of the steps have different lengths")
    batches = (zip(*(_json_rows(array[batch]) for array in arrays), strict=True) for batch in _batches(len(steps)))
    records = [record % step for batch in batches for step in batch]
    return orjson.Fragment(b"[" + b",".join(records) + b"]")


def _json_rows(values: np.ndarray) -> list[bytes]:
    """JSON text of each of S entries of `values` (S,) or (S, K), without the brackets around K numbers; S > 0."""
    text = orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)
    return text[1:-1].split(b",") if values.ndim == 1 else text[2:-2].split(b"],[")


def _as_written(name: str, values: np.ndarray) -> np.ndarray:
    """A column as it goes into the file, (S, ...) float64 where it is a float."""
    dtype, _ = _STEP_COLUMNS[name]
    return _rounded(values, 4) if dtype == np.float32 else np.ascontiguousarray(values, dtype)


def _rounded(values: np.ndarray, decimals: int) -> np.ndarray:
    # In float64: 0.1 rounded in float32 would be written as 0.10000000149011612. JSON knows no infinities.
    numbers = np.ascontiguousarray(values, np.float64)
    return np.round(np.where(np.isfinite(numbers), numbers, np.nan), decimals)


def _write_arrays(path: Path, data: bytes, content: dict, steps: RoutingSteps) -> None:
    """Write what `load_cache` makes of `data`, the cache `path`, with a digest that tells whose arrays they are."""
    arrays = {"digest": _digest(data), "content": np.frombuffer(_json_bytes(content), np.uint8)}
    for name, (dtype, _) in _STEP_COLUMNS.items():
        if (values := getattr(steps, name)) is not None:
            arrays[name] = _as_written(name, values).astype(dtype)
    if steps.layer_routing is not None:
        weights = [_rounded(values, 5).astype(np.float32) for values in steps.layer_routing]
        arrays |= {"num_layers": np.array(len(weights)), **dict(zip(_layer_names(len(weights)), weights, strict=True))}
    write_atomic(_arrays_path(path), lambda file: np.savez(file, allow_pickle=False, **arrays))


def _load_arrays(path: Path, data: bytes) -> RoutingCache | None:
    """What `_write_arrays` has written; None if there is no such file, or it is broken or not of this `data`."""
    try:
        with np.load(_arrays_path(path), allow_pickle=False) as file:
            if not np.array_equal(file["digest"], _digest(data)):
                return None
            arrays = {name: file[name] for name in file.files if name != "digest"}
        content = orjson.loads(arrays.pop("content").tobytes())
        if "num_layers" in arrays:
            arrays["layer_routing"] = [arrays.pop(name) for name in _layer_names(arrays.pop("num_layers"))]
        return RoutingCache(content, content.pop("episodes"), RoutingSteps(**arrays))
    except Exception:  # whatever is wrong with them: `data` holds all that they do
        return None


def _arrays_path(path: Path) -> Path:
    return path.with_suffix(".npz")


def _digest(data: bytes) -> np.ndarray:
    return np.frombuffer(hashlib.blake2b(data).digest(), np.uint8)


@_no_garbage_collection()
def load_cache(path: str | Path, remake: str | None = None) -> RoutingCache:
    """Read a routing cache of schema version 1 to 4; the header keeps the version of the file (1 if it has none).

    remake: the command that makes this cache anew, for messages.

    A v1 cache holds no episodes: each run of steps with an equal context is taken for one. That is a best guess, for
    two episodes in a row may have the same layout. The columns are those of the first step, other keys are left out.
    Raises InputError, naming file and reason, if the file is missing, broken or no routing cache.
    """
    data = _read_bytes(path)
    if (cache := _load_arrays(Path(path), data)) is not None:
        return replace(cache, remake=remake)
    try:
        return replace(_parse_cache(_parse_json(data)), remake=remake)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        reason = f"a step has no {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
        way_out = f"`{remake or REMAKE}` makes a new one"
        raise InputError(f"{path}: it is no routing cache, or a broken one ({reason}); {way_out}") from error


def _parse_json(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        # Older caches were written by Python's json, which writes NaN; it is null today.
        return json.loads(data, parse_constant=lambda token: None)


def _parse_cache(content: Any) -> RoutingCache:
    if not isinstance(content, dict) or not isinstance(content.get("routing_data"), list):
        raise ValueError("it has no list 'routing_data'")
    steps = content.pop("routing_data")
    if set(map(type, steps)) - {dict}:
        raise ValueError("a step is no object")
    version = content.setdefault("schema_version", 1)
    if version not in range(1, SCHEMA_VERSION + 1):
        raise ValueError(f"its schema version is {version!r}, and this program knows 1 to {SCHEMA_VERSION}")
    episodes, episode = _parse_episodes(content, steps)
    return RoutingCache(content, episodes, RoutingSteps(episode, **_parse_columns(steps)))


def _parse_columns(steps: list[dict]) -> dict[str, Any]:
    """The columns, but for `episode`, that the first step has; all of them where there is no step."""
    first = steps[0] if steps else {**_STEP_COLUMNS, "layer_routing": {}}
    names = [name for name in _STEP_COLUMNS if name in first and name != "episode"]
    layers = None
    if "layer_routing" in first:
        layers = {name: len(first["layer_routing"][name]) for name in _layer_names(len(first["layer_routing"]))}
    batches = [_parse_batch(steps[batch], names, layers) for batch in _batches(len(steps)) or [slice(0)]]
    columns = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    position = columns.get("position", np.zeros(1))
    if position.size and not 0 <= position.min() <= position.max() < _MAX_WORLD_SIZE:
        raise ValueError("a 'position' is in no world")
    if layers is not None:
        columns["layer_routing"] = [columns.pop(name) for name in layers]
    return columns


def _parse_batch(steps: list[dict], names: Sequence[str], layers: dict[str, int] | None) -> dict[str, np.ndarray]:
    """Columns `names` of some steps, and the weights of each layer of `layers` (its name -> E_l), (S, E_l) float32."""
    columns = {name: _column(steps, name, name) for name in names}
    if layers is None:
        return columns
    routing = list(map(itemgetter("layer_routing"), steps))
    if set(map(len, routing)) - {len(layers)}:
        raise ValueError("its steps have different numbers of layers")
    for name, size in layers.items():
        columns[name] = _numbers(list(map(itemgetter(name), routing)), name, size).astype(np.float32)
    return columns


def _parse_episodes(content: dict, steps: list[dict]) -> tuple[list[dict], np.ndarray]:
    """The episodes, which are taken out of `content`, and the index (S,) int32 of each step's episode."""
    if "episodes" in content:
        episodes = content.pop("episodes")
        key = next((key for key in _EPISODE_KEYS if steps and key in steps[0]), "episode")
        index = _column(steps, key, "episode")
    else:
        stretches = [(context, len(list(same))) for context, same in groupby(steps, itemgetter("env_context"))]
        episodes = [context for context, _ in stretches]
        index = np.array([i for i, (_, length) in enumerate(stretches) for _ in range(length)], np.int32)
    if not isinstance(episodes, list) or not all(isinstance(episode, dict) for episode in episodes):
        raise ValueError("its episodes are no list of objects")
    for number, episode in enumerate(episodes):
        _check_episode(episode, number)
    if steps and (index.min() < 0 or index.max() >= len(episodes)):
        raise ValueError("a step refers to an episode that is not there")
    return episodes, index


def _check_episode(episode: dict, number: int) -> None:
    """Raises ValueError if what is read of an episode cannot be so."""
    for name, value in episode.items():
        if name in _EPISODE_FIELDS and not _EPISODE_FIELDS[name](value):
            raise ValueError(f"'{name}' of episode {number} cannot be {str(value)[:40]!r}")
    columns, rows = episode.get("grid_size", (_MAX_WORLD_SIZE, _MAX_WORLD_SIZE))
    objects = [thing[:2] for name in _OBJECTS for thing in episode.get(name, ())]
    for x, y in [*objects, *filter(None, (episode.get("agent_start_pos"), episode.get("target_pos")))]:
        if x >= columns or y >= rows:
            raise ValueError(f"something of episode {number} is at {x}, {y}, outside its grid")


def _column(steps: list[dict], key: str, name: str) -> np.ndarray:
    """Column `name` (S, ...) from `key` of each step. Raises KeyError or ValueError if one is missing or misfit."""
    dtype, entry_shape = _STEP_COLUMNS[name]
    numbers = _numbers(list(map(itemgetter(key), steps)), key, *entry_shape)
    with np.errstate(invalid="ignore", over="ignore"):
        array = numbers.astype(dtype)
    if dtype != np.float32 and (array != numbers).any():
        raise ValueError(f"'{key}' is not {np.dtype(dtype).name} in every step")
    return array


def _numbers(entries: list, key: str, size: int | None = None) -> np.ndarray:
    """Entries that are a number or null (NaN), or with `size` a list of so many, as float64 (S,) or (S, size)."""
    try:
        if size is None:
            return _floats(entries)
        if set(map(len, entries)) <= {size}:
            return _floats(list(chain.from_iterable(entries))).reshape(len(entries), size)
    except (TypeError, ValueError):
        pass
    raise ValueError(f"'{key}' is not {'a number' if size is None else f'{size} numbers'} in every step")


def _floats(numbers: list) -> np.ndarray:
    try:
        return np.fromiter(numbers, np.float64, len(numbers))
    except TypeError:  # perhaps at a null
        return np.fromiter((math.nan if x is None else x for x in numbers), np.float64, len(numbers))
