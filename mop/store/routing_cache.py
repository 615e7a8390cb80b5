"""Routing caches: every step of an evaluation with what the routers decided, and the files that hold them.

Axis letters: S steps, L layers, E experts, A actions.
"""

import gc
import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from mop.base.errors import InputError
from mop.base.files import json_bytes, read_bytes, write_atomic
from mop.store.run_keys import RunKey, cache_path

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


# --- what an evaluation holds -----------------------------------------------------------------------------------------


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
            try:
                task_id = RunKey.from_checkpoint(str(self.header.get("checkpoint_path"))).task_id
            except InputError:
                task_id = "<task_id>"
        raise InputError(
            f"this routing cache (schema version {self.header.get('schema_version')}) has no '{field}': "
            f"make a new one with `{self.remake or f'{REMAKE} --task {task_id}'}`"
        )


# --- writing ----------------------------------------------------------------------------------------------------------


def write_cache(cache_dir: str | Path, key: RunKey, cache: RoutingCache) -> None:
    """Write a routing cache, schema version 4: weights rounded to 5 decimals, logits and LPC to 4, NaN as null.

    Its steps are written once more as arrays, routing_data.npz beside it, for `load_cache` to read at once.
    """
    content = {"task_id": key.task_id, "trial": key.trial, "seed": key.seed, **cache.header}
    content |= {"schema_version": SCHEMA_VERSION, "episodes": cache.episodes}
    path, data = cache_path(cache_dir, key), json_bytes(content | {"routing_data": _records(cache.steps)})
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
    arrays = {"digest": _digest(data), "content": np.frombuffer(json_bytes(content), np.uint8)}
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


# --- reading ----------------------------------------------------------------------------------------------------------


@_no_garbage_collection()
def load_cache(path: str | Path, remake: str | None = None) -> RoutingCache:
    """Read a routing cache of schema version 1 to 4; the header keeps the version of the file (1 if it has none).

    remake: the command that makes this cache anew, for messages.

    A v1 cache holds no episodes: each run of steps with an equal context is taken for one. That is a best guess, for
    two episodes in a row may have the same layout. The columns are those of the first step, other keys are left out.
    Raises InputError, naming file and reason, if the file is missing, broken or no routing cache.
    """
    data = read_bytes(path)
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
