"""Routing caches: every step of an evaluation with what the routers decided, and the two files that hold them.

`routing_data.json` is the cache, in the format of `cache_json`. `routing_data.npz` beside it holds the same as arrays,
which are read in a fraction of the time; it only counts while it belongs to the very bytes of the JSON.
Axis letters: S steps, L layers, E experts, A actions.
"""

import gc
import hashlib
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson

from mop.artifacts.cache_json import (
    COLUMNS,
    SCHEMA_VERSION,
    STEPS_IN,
    Columns,
    check_columns,
    format_cache,
    layer_names,
    parse_cache,
    parse_content,
    rounded,
)
from mop.artifacts.run_paths import RunKey, cache_path
from mop.common.errors import InputError
from mop.common.files import json_bytes, write_together
from mop.common.reading import read_bytes, read_npz, reading

REMAKE = "python batch_eval.py --force"


@dataclass(eq=False)
class Steps:
    """One entry per environment step, in episode order: arrays (S, ...); a column that an older cache lacks is None.

    `episode` is an index into the episodes of the cache. Before v4 these are contexts, which episodes of the same
    layout share. `layer_routing` holds L arrays (S, E_l) float32, the weights of the experts of each layer.
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
    subgoal: np.ndarray | None = None  # (S,) int8, the bot's: index into SUBGOALS, -1 where the bot is silent
    instruction: np.ndarray | None = None  # (S,) int8, which the bot is at, from 0; -1 where it is silent

    def __len__(self) -> int:
        return len(self.episode)

    def columns(self) -> dict[str, Any]:
        """The columns that are there, by name: arrays (S, ...), the list of them for `layer_routing`."""
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: values for name, values in columns.items() if values is not None}

    def take(self, rows: np.ndarray) -> "Steps":
        """These rows (S',) int of all columns, in this order."""
        columns = self.columns()
        layers = columns.pop("layer_routing", None)
        taken = {name: values[rows] for name, values in columns.items()}
        return Steps(**taken, layer_routing=layers and [weights[rows] for weights in layers])


@dataclass(eq=False)
class RoutingData:
    """One evaluation: `header` (every top-level key but the next two), one dict per episode, and the steps.

    remake: the command that makes the cache anew, for messages; where it is None, they name a more general one.
    """

    header: dict
    episodes: list[dict]
    steps: Steps
    remake: str | None = None
    whole: "RoutingData | None" = None  # of a part: the cache with every step of its episodes
    rows: np.ndarray | None = None  # of a part: (S,) int64, which of the steps of `whole` it has, in their order

    def where(self, mask: np.ndarray, note: str) -> "RoutingData":
        """The part of this cache with the steps of mask (S,) bool: the same episodes, all columns.

        note: what these steps have in common; titles say it, from the header's `restricted_to`. What depends on the
        steps before (phases, progress, what follows what) is still found from the whole episodes.
        Raises ValueError if the mask is not (S,) bool.
        """
        mask = np.asarray(mask)
        if mask.dtype != bool or mask.shape != (len(self.steps),):
            raise ValueError(f"a filter is a boolean mask ({len(self.steps)},), not {mask.dtype} {mask.shape}")
        rows = np.flatnonzero(mask)
        if not len(rows):
            raise InputError(f"no step is left: there is none with {note}")
        steps = self.steps.take(rows)
        notes = ", ".join(filter(None, (self.header.get("restricted_to"), note)))
        header = self.header | {"restricted_to": notes}
        rows = rows if self.rows is None else self.rows[rows]
        return RoutingData(header, self.episodes, steps, self.remake, self.whole or self, rows)

    def column(self, name: str) -> np.ndarray:
        """Return a column (S, ...) of the steps; refuse a cache that lacks it."""
        self.require(name)
        return getattr(self.steps, name)

    def require(self, field: str) -> None:
        """Refuse data of which `field` is neither a column of the steps nor a key of every episode."""
        is_column = field in Steps.__dataclass_fields__
        is_there = getattr(self.steps, field) is not None if is_column else all(field in e for e in self.episodes)
        if is_there:
            return
        task_id = self.header.get("task_id")
        if task_id is None:  # before v4 only the path of the checkpoint tells
            try:
                task_id = RunKey.from_checkpoint(str(self.header.get("checkpoint_path"))).task_id
            except InputError:
                task_id = "<task_id>"
        raise InputError(
            f"this routing cache (schema version {self.header.get('schema_version')}) has no '{field}': "
            f"make a new one with `{self.remake or f'{REMAKE} --task {task_id}'}`"
        )


@contextmanager
def _no_garbage_collection() -> Generator[None]:
    """A cache is millions of small objects and no garbage: looking for some would double the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


MAX_JSON_STEPS = 1_000_000  # about 350 MB: the steps of more are in the arrays alone


def write_cache(cache_dir: str | Path, key: RunKey, cache: RoutingData) -> None:
    """Write a routing cache, schema version 5: weights rounded to 5 decimals, logits and LPC to 4, NaN as null.

    The JSON of more than MAX_JSON_STEPS names the file of arrays that has them.
    Raises ValueError if the columns of the steps differ in length or the cache is a part (`where`), OSError if the disk
    refuses.
    """
    write_together(cache_files(cache_dir, key, cache))


@_no_garbage_collection()
def cache_files(
    cache_dir: str | Path, key: RunKey, cache: RoutingData
) -> list[tuple[Path, Callable[[BinaryIO], None]]]:
    """What `write_cache` writes, for `write_together`. Raises ValueError as it does."""
    if cache.whole is not None:
        raise ValueError("a part of a cache is not written: read alone, its phases and progress would be wrong")
    content = {"task_id": key.task_id, "trial": key.trial, "seed": key.seed, **cache.header}
    content |= {"schema_version": SCHEMA_VERSION, "episodes": cache.episodes}
    columns, path = rounded(cache.steps.columns()), cache_path(cache_dir, key)
    if len(cache.steps) > MAX_JSON_STEPS:
        data = json_bytes(content | {STEPS_IN: _arrays_path(path).name, "routing_data": []})
    else:
        data = format_cache(content, columns)
    files = [(path, lambda file: file.write(data))]
    if len(cache.steps):
        files.append((_arrays_path(path), lambda file: _write_arrays(file, data, content, columns)))
    return files


@_no_garbage_collection()
def load_cache(path: str | Path, remake: str | None = None) -> RoutingData:
    """Read a routing cache of schema version 1 to 5; the header keeps the version of the file (1 if it has none).

    remake: the command that makes this cache anew, for messages. `cache_json.parse_cache` says how older versions are
    read.
    """
    way_out = f"`{remake or REMAKE}` makes a new one"
    data = read_bytes(path, way_out)
    if (cache := _load_arrays(Path(path), data)) is not None:
        return replace(cache, remake=remake)
    with reading(path, "routing cache", way_out):
        header, episodes, columns = parse_cache(data)
        return RoutingData(header, episodes, Steps(**columns), remake)


def as_routing_data(data: RoutingData | Mapping | Sequence[Mapping]) -> RoutingData:
    """Routing data of a cache, of its JSON as `json.load` gives it, or of the list of steps in that JSON.

    A list does not tell its episodes: those of schema version 4 and later then have no context.
    """
    if isinstance(data, RoutingData):
        return data
    with reading("these steps", "routing data", "give the content of a routing_data.json, or its list `routing_data`"):
        content = dict(data) if isinstance(data, Mapping) else {"routing_data": data}
        content["routing_data"] = [dict(step) for step in content["routing_data"]]
        if "episodes" not in content and "episode" in content["routing_data"][0]:
            num_episodes = 1 + max(step["episode"] for step in content["routing_data"])
            content |= {"schema_version": SCHEMA_VERSION, "episodes": [{} for _ in range(num_episodes)]}
        header, episodes, columns = parse_content(content)
        return RoutingData(header, episodes, Steps(**columns))


# --- the arrays beside the JSON ---------------------------------------------------------------------------------------


def _write_arrays(file: BinaryIO, data: bytes, content: Mapping, columns: Columns) -> None:
    """Write what `load_cache` makes of the cache `data`, with a digest that tells whose arrays they are."""
    arrays = {"digest": _digest(data), "content": np.frombuffer(json_bytes(content), np.uint8)}
    arrays |= {name: values.astype(COLUMNS[name][0]) for name, values in columns.items() if name != "layer_routing"}
    if "layer_routing" in columns:
        weights = [values.astype(np.float32) for values in columns["layer_routing"]]
        arrays |= {"num_layers": np.array(len(weights)), **dict(zip(layer_names(len(weights)), weights, strict=True))}
    np.savez(file, allow_pickle=False, **arrays)


def _load_arrays(path: Path, data: bytes) -> RoutingData | None:
    """What `_write_arrays` has written; None if there is no such file, or it is broken or not of this `data`."""
    with suppress(InputError), reading(path):  # whatever is wrong with them: `data` holds all that they do
        arrays: dict[str, Any] = read_npz(_arrays_path(path))
        if not np.array_equal(arrays.pop("digest"), _digest(data)):
            return None
        content = orjson.loads(arrays.pop("content").tobytes())
        if "num_layers" in arrays:
            arrays["layer_routing"] = [arrays.pop(name) for name in layer_names(arrays.pop("num_layers"))]
        check_columns(arrays, content["episodes"])
        return RoutingData(content, content.pop("episodes"), Steps(**arrays))
    return None


def _arrays_path(path: Path) -> Path:
    return path.with_suffix(".npz")


def _digest(data: bytes) -> np.ndarray:
    return np.frombuffer(hashlib.blake2b(data).digest(), np.uint8)
