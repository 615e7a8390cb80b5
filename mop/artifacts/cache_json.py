"""Routing caches as JSON: version 5 is written, versions 1 to 5 are read and checked.

A file holds the header's keys, `episodes` (context and outcome of each) and `routing_data`, one object for each step.
Axis letters: S steps, E experts.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, groupby
from operator import itemgetter
from typing import Any

import numpy as np
import orjson

from mop.common.configuration import MAX_EXPERTS, MAX_LAYERS
from mop.common.conventions import SUBGOALS
from mop.common.files import json_bytes

SCHEMA_VERSION = 5
COLUMNS = {  # of the steps, but for the layers' weights: name -> dtype, shape of one entry
    "episode": (np.int32, ()),
    "t_step": (np.int32, ()),
    "position": (np.int32, (2,)),
    "direction": (np.int8, ()),
    "lpc": (np.float32, ()),
    "carrying": (np.bool_, ()),
    "door_unlocked": (np.bool_, ()),
    "action_logits": (np.float32, (7,)),
    "action": (np.int8, ()),
    "subgoal": (np.int8, ()),  # null in the file where it is -1, else one of SUBGOALS
    "instruction": (np.int8, ()),  # null in the file where it is -1
}
_VALUES = {  # of columns that hold an index: what a file has for 0, 1, ..., and in the end for -1
    "subgoal": (*SUBGOALS, None),
    "instruction": (*range(100), None),
}
_BATCH_STEPS = 1024  # converted at a time: all their values stay in the processor's cache, which saves a third
# Names of a step's index into `episodes`. Before v4 it is the index of a context, so names that say so come first.
_EPISODE_KEYS = ("context_idx", "env_context_idx", "episode_index", "episode_idx", "episode", "env_context")
_MAX_WORLD_SIZE = 1000  # cells; a figure of a larger world would take the memory of the machine

Columns = Mapping[str, Any]  # name -> array (S, ...); "layer_routing" -> L arrays (S, E_l)


def layer_names(num_layers: int) -> list[str]:
    """What the layers are called in the files."""
    return [f"layer_{layer}" for layer in range(num_layers)]


# --- writing ----------------------------------------------------------------------------------------------------------


def rounded(columns: Columns) -> dict[str, Any]:
    """The columns with the numbers of the file: weights to 5 decimals, logits and LPC to 4, infinities as NaN.

    Floats become float64, as 0.1 rounded in float32 would be written as 0.10000000149011612; the other columns get
    their dtypes in COLUMNS.
    """
    numbers = {}
    for name, values in columns.items():
        if name == "layer_routing":
            numbers[name] = [_rounded(weights, 5) for weights in values]
        elif COLUMNS[name][0] == np.float32:
            numbers[name] = _rounded(values, 4)
        else:
            numbers[name] = np.ascontiguousarray(values, COLUMNS[name][0])
    return numbers


def _rounded(values: np.ndarray, decimals: int) -> np.ndarray:
    numbers = np.ascontiguousarray(values, np.float64)
    return np.round(np.where(np.isfinite(numbers), numbers, np.nan), decimals)


def format_cache(content: Mapping, columns: Columns) -> bytes:
    """The bytes of a file with `content` (all but the steps) and the steps in `rounded` columns; NaN becomes null.

    Raises ValueError if the columns differ in length.
    """
    return json_bytes({**content, "routing_data": _records(columns)})


def _records(columns: Columns) -> orjson.Fragment:
    """The list of one object per step."""
    # As text: each column is written at once and cut into its rows, which takes half the time of a dict per step.
    members, arrays, texts = [], [], []
    for name, values in columns.items():
        if name == "layer_routing":
            layers = ",".join(f'"{layer}":[%b]' for layer in layer_names(len(values)))
            members.append(f'"layer_routing":{{{layers}}}')
            arrays += values
            texts += [_json_rows] * len(values)
        else:
            members.append(f'"{name}":[%b]' if COLUMNS[name][1] else f'"{name}":%b')
            arrays.append(values)
            texts.append(_json_values(name) if name in _VALUES else _json_rows)
    record = f"{{{','.join(members)}}}".encode()
    num_steps = len(columns["episode"])
    if any(len(array) != num_steps for array in arrays):
        raise ValueError("the columns of the steps have different lengths")
    records = []
    for batch in _batches(num_steps):
        rows = [text_of(array[batch]) for text_of, array in zip(texts, arrays, strict=True)]
        records += [record % step for step in zip(*rows, strict=True)]
    return orjson.Fragment(b"[" + b",".join(records) + b"]")


def _json_rows(values: np.ndarray) -> list[bytes]:
    """JSON text of each of S entries of `values` (S,) or (S, K), without the brackets around K numbers; S > 0."""
    text = orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)
    return text[1:-1].split(b",") if values.ndim == 1 else text[2:-2].split(b"],[")


def _json_values(name: str) -> Callable[[np.ndarray], list[bytes]]:
    """What makes the JSON text of each entry of a column of _VALUES."""
    texts = [orjson.dumps(value) for value in _VALUES[name]]
    return lambda numbers: [texts[number] for number in numbers.tolist()]


def _batches(num_steps: int) -> list[slice]:
    return [slice(start, start + _BATCH_STEPS) for start in range(0, num_steps, _BATCH_STEPS)]


# --- reading ----------------------------------------------------------------------------------------------------------


def parse_cache(data: bytes) -> tuple[dict, list[dict], dict[str, Any]]:
    """Header, episodes, and columns of the steps, of a file of version 1 to 5 (`schema_version` in the header).

    A v1 cache holds no episodes: each stretch of steps with an equal context is taken for one. That is a guess, as
    two episodes in a row may have the same layout. The columns are those of the first step; other keys are left out.
    Raises ValueError, with the reason in a line, if the file is broken or holds something else.
    """
    try:
        return _parse_content(_parse_json(data))
    except KeyError as error:
        raise ValueError(f"a step has no {error}") from error
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(str(error).splitlines()[0]) from error
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def _parse_json(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        # Older caches were written by Python's json, which writes NaN; it is null today.
        return json.loads(data, parse_constant=lambda token: None)


def _parse_content(content: Any) -> tuple[dict, list[dict], dict[str, Any]]:
    if not isinstance(content, dict) or not isinstance(content.get("routing_data"), list):
        raise ValueError("it has no list 'routing_data'")
    steps = content.pop("routing_data")
    if set(map(type, steps)) - {dict}:
        raise ValueError("a step is no object")
    version = content.setdefault("schema_version", 1)
    if version not in range(1, SCHEMA_VERSION + 1):
        raise ValueError(f"its schema version is {version!r}, and this program knows 1 to {SCHEMA_VERSION}")
    episodes, episode = _parse_episodes(content, steps)
    columns = {"episode": episode, **_parse_columns(steps)}
    check_columns(columns, episodes)
    return content, episodes, columns


def _parse_columns(steps: list[dict]) -> dict[str, Any]:
    """The columns, but for `episode`, that the first step has; all of them where there is no step."""
    first = steps[0] if steps else {**COLUMNS, "layer_routing": {}}
    names = [name for name in COLUMNS if name in first and name != "episode"]
    layers = None
    if "layer_routing" in first:
        layers = {name: len(first["layer_routing"][name]) for name in layer_names(len(first["layer_routing"]))}
        _check_sizes(layers.values())
    batches = [_parse_batch(steps[batch], names, layers) for batch in _batches(len(steps)) or [slice(0)]]
    columns = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    if layers is not None:
        columns["layer_routing"] = [columns.pop(name) for name in layers]
    return columns


def check_columns(columns: Columns, episodes: Sequence[Mapping]) -> None:
    """Raises ValueError where columns have other shapes than COLUMNS says, or numbers that no evaluation has.

    columns: of `parse_cache`, or arrays of a file; episodes: those that the steps refer to, already checked.
    """
    num_steps = len(columns["episode"])
    for name, values in columns.items():
        for array in values if name == "layer_routing" else [values]:
            dtype, shape = (np.float32, array.shape[1:2]) if name == "layer_routing" else COLUMNS[name]
            if array.shape != (num_steps, *shape) or array.dtype != dtype:
                raise ValueError(f"'{name}' has another form than its steps")
    _check_sizes(weights.shape[1] for weights in columns.get("layer_routing", ()))
    if num_steps == 0:
        return
    # an array as long as the largest time is a figure's own; 10^6 is more than any task allows
    ends = {"episode": len(episodes), "t_step": max(num_steps, 10**6), "direction": 4, "action": 7}
    ranges = {name: (0, end) for name, end in ends.items()}
    ranges |= {name: (-1, len(values) - 1) for name, values in _VALUES.items()}
    for name in ranges.keys() & columns.keys():
        low, end = ranges[name]
        if not low <= columns[name].min() <= columns[name].max() < end:
            raise ValueError(f"a step's '{name}' is not from {low} to {end - 1}")
    if "position" in columns:
        sizes = [episode.get("grid_size", (_MAX_WORLD_SIZE, _MAX_WORLD_SIZE)) for episode in episodes]
        position = columns["position"]
        if not ((position >= 0) & (position < np.array(sizes, np.int32)[columns["episode"]])).all():
            raise ValueError("a step's 'position' is outside the grid of its episode")


def _check_sizes(num_experts: Iterable[int]) -> None:
    sizes = list(num_experts)
    if len(sizes) > MAX_LAYERS or max(sizes, default=0) > MAX_EXPERTS:
        raise ValueError(f"it has more than {MAX_LAYERS} layers, or more than {MAX_EXPERTS} experts in one")


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


def _column(steps: list[dict], key: str, name: str) -> np.ndarray:
    """Column `name` (S, ...) from `key` of each step. Raises KeyError or ValueError if one is missing or misfit."""
    dtype, entry_shape = COLUMNS[name]
    if name in _VALUES:
        return np.array(_indices([step[key] for step in steps], name), dtype)
    numbers = _numbers(list(map(itemgetter(key), steps)), key, *entry_shape)
    with np.errstate(invalid="ignore", over="ignore"):
        array = numbers.astype(dtype)
    if dtype != np.float32 and (array != numbers).any():
        raise ValueError(f"'{key}' is not {np.dtype(dtype).name} in every step")
    return array


def _indices(entries: list, name: str) -> list[int]:
    """The index of each entry in a column of _VALUES, -1 for null. Raises ValueError if one is something else."""
    known = {value: index for index, value in enumerate(_VALUES[name][:-1])} | {None: -1}
    try:
        return [known[entry] for entry in entries]
    except (KeyError, TypeError) as error:
        raise ValueError(f"a step's '{name}' is neither null nor one of those that are known") from error


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
    return episodes, index


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
    "instructions": lambda value: isinstance(value, list) and all(isinstance(text, str) for text in value),
    "success": lambda value: isinstance(value, bool),
}


def _check_episode(episode: dict, number: int) -> None:
    """Raises ValueError if a field that is read of an episode has an impossible value."""
    for name, value in episode.items():
        if name in _EPISODE_FIELDS and not _EPISODE_FIELDS[name](value):
            raise ValueError(f"'{name}' of episode {number} cannot be {str(value)[:40]!r}")
    columns, rows = episode.get("grid_size", (_MAX_WORLD_SIZE, _MAX_WORLD_SIZE))
    objects = [thing[:2] for name in _OBJECTS for thing in episode.get(name, ())]
    for x, y in [*objects, *filter(None, (episode.get("agent_start_pos"), episode.get("target_pos")))]:
        if x >= columns or y >= rows:
            raise ValueError(f"something of episode {number} is at {x}, {y}, outside its grid")
