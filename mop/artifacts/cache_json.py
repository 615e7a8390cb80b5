"""Routing caches as JSON: version 5 is written, versions 1 to 5 are read.

A file holds the header's keys, `episodes` (context and outcome of each) and `routing_data`, one object for each step.
Axis letters: S steps, E experts.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby, islice, repeat
from typing import Any

import numpy as np
import orjson

from mop.common.conventions import SUBGOALS
from mop.common.errors import InputError
from mop.common.files import json_bytes
from mop.common.train_config import MAX_EXPERTS, MAX_LAYERS

SCHEMA_VERSION = 5
STEPS_IN = "steps_in"  # key of a file without steps: the file of arrays that has them
# columns of the steps, but for the layers' weights: name -> dtype, shape of one entry
COLUMNS: dict[str, tuple[type[np.generic], tuple[int, ...]]] = {
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
_BATCH_STEPS = 1024  # made into objects at a time, which stay in the processor's cache
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
    """Make the bytes of a file: `content`, all but the steps, and the steps in `rounded` columns; NaN becomes null."""
    num_steps = len(columns["episode"])
    starts = range(0, num_steps, _BATCH_STEPS)
    batches = [orjson.dumps(_rows(columns, slice(start, start + _BATCH_STEPS)))[1:-1] for start in starts]
    return json_bytes({**content, "routing_data": orjson.Fragment(b"[" + b",".join(batches) + b"]")})


def _rows(columns: Columns, batch: slice) -> list[dict]:
    num_steps = len(columns["episode"][batch])
    values = []
    for name, column in columns.items():
        if name == "layer_routing":
            layers = zip(*(weights[batch].tolist() for weights in column), strict=True) if column else repeat(())
            names = layer_names(len(column))
            values.append([dict(zip(names, weights, strict=False)) for weights in islice(layers, num_steps)])
        elif name in _VALUES:
            values.append([_VALUES[name][number] for number in column[batch].tolist()])
        else:
            values.append(column[batch].tolist())
    names = list(columns)
    return [dict(zip(names, row, strict=False)) for row in zip(*values, strict=True)]


# --- reading ----------------------------------------------------------------------------------------------------------


def parse_cache(data: bytes) -> tuple[dict, list[dict], dict[str, Any]]:
    """`parse_content` of the bytes of a file."""
    try:
        content = orjson.loads(data)
    except orjson.JSONDecodeError:  # older caches were written by Python's json, which writes NaN; it is null today
        content = json.loads(data, parse_constant=lambda token: None)
    return parse_content(content)


def parse_content(content: dict) -> tuple[dict, list[dict], dict[str, Any]]:
    """Header, episodes, and columns of the steps, of content of version 1 to 5 (`schema_version` in the header).

    The columns are those of the first step; other keys are left out. What is no cache raises nearly anything. What is
    given becomes the header.
    """
    steps = content.pop("routing_data")
    if STEPS_IN in content:
        raise InputError(f"its steps are in {content[STEPS_IN]} beside it, which `load_cache` reads, if it is whole")
    version = content.setdefault("schema_version", 1)
    if version not in range(1, SCHEMA_VERSION + 1):
        raise ValueError(f"its schema version is {version!r}, and this program knows 1 to {SCHEMA_VERSION}")
    if "episodes" not in content:
        _convert_version_1(content, steps)
    elif version < 4 and steps:
        _convert_versions_2_and_3(steps)
    episodes = content.pop("episodes")
    for number, episode in enumerate(episodes):
        _check_episode(episode, number)
    columns = _parse_columns(steps)
    check_columns(columns, episodes)
    return content, episodes, columns


def _convert_version_1(content: dict, steps: list[dict]) -> None:
    """Take each stretch of steps with an equal context for an episode.

    That is a guess, as two episodes in a row may have the same layout.
    """
    content["episodes"] = []
    for context, same in groupby(steps, lambda step: step.get("env_context", {})):
        for step in same:
            step["episode"] = len(content["episodes"])
        content["episodes"].append(context)


def _convert_versions_2_and_3(steps: list[dict]) -> None:
    """Give the index of a step's context, which episodes of one layout share and which had several names, its own."""
    names = ("context_idx", "env_context_idx", "episode_index", "episode_idx", "episode", "env_context")
    key = next(name for name in names if name in steps[0])
    for step in steps:
        step["episode"] = step[key]


def _parse_columns(steps: list[dict]) -> dict[str, Any]:
    """The columns that the first step has; all of them where there is no step."""
    first = set(steps[0] if steps else (*COLUMNS, "layer_routing"))
    columns: dict[str, Any] = {name: _column([step[name] for step in steps], name) for name in COLUMNS if name in first}
    if "layer_routing" in first:
        routing = [step["layer_routing"] for step in steps]
        names = layer_names(len(routing[0]) if routing else 0)
        if any(len(weights) != len(names) for weights in routing):
            raise ValueError("its steps have different numbers of layers")
        _check_sizes(len(routing[0][name]) for name in names)
        columns["layer_routing"] = [np.array([step[name] for step in routing], np.float32) for name in names]
    return columns


def _column(values: list, name: str) -> np.ndarray:
    dtype, shape = COLUMNS[name]
    if name in _VALUES:
        known = {value: index for index, value in enumerate(_VALUES[name][:-1])} | {None: -1}
        return np.array([known[value] for value in values], dtype)
    numbers = np.array(values, np.float64).reshape(len(values), *shape)
    with np.errstate(invalid="ignore", over="ignore"):
        array = numbers.astype(dtype)
    if dtype != np.float32 and (array != numbers).any():
        raise ValueError(f"'{name}' is not {np.dtype(dtype).name} in every step")
    return array


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


def _is_place(value: Any, length: int = 2) -> bool:
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
