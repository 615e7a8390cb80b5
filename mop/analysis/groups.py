"""Groups of steps: one table, GROUPINGS, of the ways to split an evaluation; the phases of tasks with a key and a door.

Axis letters: S steps, K numbers of a key, G groups.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mop.analysis.routing_data import check_not_empty, chosen_actions, has_happened, in_whole_episodes
from mop.artifacts.routing_cache import RoutingData, Steps
from mop.common.conventions import ACTION_NAMES, DIRECTIONS, SUBGOALS
from mop.common.errors import InputError

PHASES = ("before the key", "carrying the key", "door unlocked", "key dropped")


def key_phases(steps: Steps, episodes: Sequence[Mapping]) -> np.ndarray:
    """Find the phase of each step (S,) int64, index into PHASES: what is true then, however often a key is picked up.

    Until a door is unlocked: without a key in the hand, with one; from then on: with it, without it. Another object in
    the hand is no key. A key is known by the place where it was picked up (`is_key_held`); where the steps do not tell
    it, by the time (`_is_key_held_by_time`). episodes: with `t_unlocked`, actions taken when a door was first unlocked,
    None where none was.
    """
    for name in ("episode", "t_step", "carrying"):
        if getattr(steps, name) is None:
            raise InputError(f"these steps have no {name!r}, which the phases of the task need")
    if not all("t_unlocked" in episode for episode in episodes):
        raise InputError("these episodes have no 't_unlocked', which the phases of the task need")
    is_unlocked = has_happened(steps, episodes, "t_unlocked")
    can_be_followed = steps.position is not None and steps.direction is not None
    if can_be_followed and all("keys" in episode for episode in episodes):
        is_held = is_key_held(steps, episodes)
    else:
        is_held = _is_key_held_by_time(steps, is_unlocked, len(episodes))
    return np.where(is_unlocked, np.where(is_held, 2, 3), np.where(is_held, 1, 0))


def is_key_held(steps: Steps, episodes: Sequence[Mapping]) -> np.ndarray:
    """Mark (S,) bool where the agent carries a key that opens a locked door of its world, or any if none is locked.

    The objects are followed from their places at the start: what is picked up is what lies in front of the agent, and
    what is dropped lies there from then on. episodes: with `keys` [x, y, color] and, where known, `doors`
    [x, y, color, is_open, is_locked]. What is in the hand from the first step on counts as a key.
    """
    carrying, episode = np.asarray(steps.carrying, bool), np.asarray(steps.episode)
    in_front = np.asarray(steps.position) + np.array(DIRECTIONS)[np.asarray(steps.direction, np.int64) % 4]
    is_last = np.append(episode[1:] != episode[:-1], True)
    changes = ~is_last & (carrying != np.append(carrying[1:], False))  # the hand is filled or emptied in this step
    is_held = np.zeros(len(carrying), bool)
    starts = np.flatnonzero(np.diff(episode, prepend=-1)).tolist()  # the steps of an episode are neighbours
    for first, end in itertools.pairwise([*starts, len(episode)]):
        cells, held = _key_cells(episodes[episode[first]]), bool(carrying[first])
        at = first
        for step in first + np.flatnonzero(changes[first:end]):
            is_held[at : step + 1] = held
            cell = tuple(in_front[step].tolist())
            if carrying[step]:
                cells |= {cell} if held else set()
                held = False
            else:
                held = cell in cells
                cells -= {cell}
            at = step + 1
        is_held[at:end] = held
    return is_held


def _key_cells(episode: Mapping) -> set[tuple[int, int]]:
    """Find the cells of the keys that open a locked door; of all keys, where no door is known to be locked."""
    colors = {door[2] for door in episode.get("doors", ()) if len(door) > 4 and door[4]}
    return {(x, y) for x, y, *color in episode["keys"] if not colors or not color or color[0] in colors}


def _is_key_held_by_time(steps: Steps, is_unlocked: np.ndarray, num_episodes: int) -> np.ndarray:
    """Mark (S,) bool, without places: what is carried when the door is unlocked is the key.

    It is held from the last time before that the hands were empty until they are empty again; where no door is
    unlocked, what is carried at the end counts as the key.
    """
    episode, t_step, carrying = (np.asarray(column) for column in (steps.episode, steps.t_step, steps.carrying))
    picked, dropped = np.zeros(num_episodes), np.full(num_episodes, np.inf)  # t_step of each episode
    empty_before, empty_after = ~carrying & ~is_unlocked, ~carrying & is_unlocked
    np.maximum.at(picked, episode[empty_before], t_step[empty_before] + 1)
    np.minimum.at(dropped, episode[empty_after], t_step[empty_after])
    return np.where(is_unlocked, t_step < dropped[episode], t_step >= picked[episode])


# --- the keys of each step --------------------------------------------------------------------------------------------


_QUADRANTS = ("top left", "top right", "bottom left", "bottom right")
_UNKNOWN, _UNKNOWN_LABEL = 1000, "unknown (bot silent)"
_VERBS = ("go to", "pick up", "open", "put")


def _of_episode(routing_data: RoutingData, key: Callable[[Mapping], Sequence[int]]) -> np.ndarray:
    """Return `key(episode)`, K integers, for the episode of each step, (S, K) int64."""
    keys = np.array([key(episode) for episode in routing_data.episodes], np.int64)
    return keys[np.asarray(routing_data.steps.episode)]


def _the_door(episode: Mapping) -> Sequence | None:
    """Return the only door, or of several the only locked one; None if there is no such door."""
    doors = episode["doors"]
    locked = [door for door in doors if len(door) > 4 and door[4]]
    return doors[0] if len(doors) == 1 else locked[0] if len(locked) == 1 else None


def _the_door_cell(episode: Mapping) -> Sequence[int]:
    """Return x and y of the door, where there is one (`_has_the_door`)."""
    door = _the_door(episode)
    assert door is not None
    return door[:2]


def _has_the_door(routing_data: RoutingData) -> bool:
    return all(_the_door(episode) is not None for episode in routing_data.episodes)


def _unlocks_with_keys(routing_data: RoutingData) -> bool:
    episodes = routing_data.episodes
    return all(e["keys"] for e in episodes) and any(e["t_unlocked"] is not None for e in episodes)


def _quadrant(position: Sequence[int], grid_size: Sequence[int]) -> int:
    """Return the index into _QUADRANTS; a middle column or row counts as left or top."""
    is_right, is_bottom = (2 * place >= size for place, size in zip(position, grid_size, strict=True))
    return 2 * is_bottom + is_right


def _verbs(mission: str) -> int:
    """Return the verbs of a mission as bits, the first of _VERBS lowest."""
    return sum(1 << index for index, verb in enumerate(_VERBS) if re.search(rf"\b{verb}\b", mission))


def _unknown_last(numbers: np.ndarray) -> np.ndarray:
    """Replace numbers (S,) int64 below 0 by _UNKNOWN, which is larger than all."""
    numbers = np.asarray(numbers, np.int64)
    return np.where(numbers < 0, _UNKNOWN, numbers)


# --- their labels -----------------------------------------------------------------------------------------------------


def _named(*names: str) -> Callable:
    return lambda key, routing_data: names[key[0]]


def _verb_label(key: tuple[int, ...], routing_data: RoutingData) -> str:
    return " and ".join(verb for index, verb in enumerate(_VERBS) if key[0] >> index & 1) or "no known verb"


def _subgoal_label(key: tuple[int, ...], routing_data: RoutingData) -> str:
    return _UNKNOWN_LABEL if key[0] == _UNKNOWN else f"to {SUBGOALS[key[0]].replace('_', ' ')}"


def _instruction_label(key: tuple[int, ...], routing_data: RoutingData) -> str:
    return _UNKNOWN_LABEL if key[0] == _UNKNOWN else f"instruction {key[0] + 1}"


def room_labels_for_groups(sorted_keys: Sequence[Sequence[int]], room_grid_shape: Sequence[int]) -> list[str]:
    """Name each room by its place in the grid of rooms: "Top-Left", "Middle-Center", "Right", "Row 2-Column 4".

    sorted_keys: G rooms [column, row]; room_grid_shape: [columns, rows] of the world, so that the name of a room does
    not depend on the other rooms in `sorted_keys`. A side with one room has no name, one with more than three is
    numbered.
    """
    num_columns, num_rows = room_grid_shape
    columns = _side_names(num_columns, ("Left", "Center", "Right"), "Column")
    rows = _side_names(num_rows, ("Top", "Middle", "Bottom"), "Row")
    labels = []
    for column, row in sorted_keys:
        if not (0 <= column < num_columns and 0 <= row < num_rows):
            raise InputError(f"there is no room {[column, row]} in a grid of {num_columns} x {num_rows} rooms")
        labels.append("-".join(filter(None, (rows[row], columns[column]))) or "The only room")
    return labels


def _side_names(count: int, names: tuple[str, str, str], noun: str) -> list[str]:
    if count > 3:
        return [f"{noun} {number}" for number in range(1, count + 1)]
    return [[""], [names[0], names[2]], list(names)][count - 1]


# --- the table --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Grouping:
    """A way to split the steps: which key each has, and what a key is called."""

    title: str  # "by ..." without the "by"
    fields: tuple[str, ...]  # columns of the steps and keys of the episodes that it needs
    keys: Callable[[RoutingData], np.ndarray]  # (S,) or (S, K) int: steps of equal keys are a group
    label: Callable[[tuple[int, ...], RoutingData], str]  # of a key of K numbers
    suits: Callable[[RoutingData], bool] = lambda routing_data: True  # whether it suits data that has the fields


GROUPINGS = {
    "overall": Grouping("nothing", (), lambda d: np.zeros(len(d.steps.episode), np.int64), _named("all steps")),
    "by_starting_room": Grouping(
        "starting room",
        ("agent_start_room", "room_grid_shape"),
        lambda d: _of_episode(d, lambda e: e["agent_start_room"]),
        lambda key, d: room_labels_for_groups([key], d.episodes[0]["room_grid_shape"])[0],
    ),
    "by_door_location": Grouping(
        "door location",
        ("doors",),
        lambda d: _of_episode(d, _the_door_cell),
        lambda key, d: f"door at x {key[0]}, y {key[1]}",
        _has_the_door,
    ),
    "by_door_location_and_box_row": Grouping(
        "door location and box row",
        ("doors", "boxes"),
        lambda d: _of_episode(d, lambda e: [e["boxes"][0][1], *_the_door_cell(e)]),
        lambda key, d: f"door at x {key[1]}, y {key[2]}; box in row {key[0]}",
        lambda d: _has_the_door(d) and all(len(episode["boxes"]) == 1 for episode in d.episodes),
    ),
    "by_carrying": Grouping(
        "carrying phase",
        ("carrying",),
        lambda d: np.asarray(d.steps.carrying, np.int64),
        _named("hands empty", "carrying"),
    ),
    "by_agent_and_target_quadrant": Grouping(
        "agent's and target's quadrant at the start",
        ("agent_start_pos", "target_pos", "grid_size"),
        lambda d: _of_episode(
            d, lambda e: [_quadrant(e[name], e["grid_size"]) for name in ("target_pos", "agent_start_pos")]
        ),
        lambda key, d: f"agent {_QUADRANTS[key[1]]}, target {_QUADRANTS[key[0]]}",
        lambda d: all(episode["target_pos"] is not None for episode in d.episodes),
    ),
    "by_key_phase": Grouping(
        "key phase",
        ("t_step", "carrying", "keys", "t_unlocked"),
        lambda d: key_phases(d.steps, d.episodes),
        _named(*PHASES),
        _unlocks_with_keys,
    ),
    "by_door_opened": Grouping(
        "door opened",
        ("t_step", "t_opened"),
        lambda d: has_happened(d.steps, d.episodes, "t_opened").astype(np.int64),
        _named("no door opened yet", "a door opened"),
    ),
    "by_door_unlocked": Grouping(
        "door unlocked",
        ("door_unlocked",),
        lambda d: np.asarray(d.steps.door_unlocked, np.int64),
        _named("no door unlocked yet", "a door unlocked"),
    ),
    "by_subgoal": Grouping("sub-goal", ("subgoal",), lambda d: _unknown_last(d.column("subgoal")), _subgoal_label),
    "by_instruction": Grouping(
        "instruction",
        ("instruction", "instructions"),
        lambda d: _unknown_last(d.column("instruction")),
        _instruction_label,
        lambda d: any(len(episode["instructions"]) > 1 for episode in d.episodes),
    ),
    "by_outcome": Grouping(
        "outcome", ("success",), lambda d: _of_episode(d, lambda e: [not e["success"]]), _named("success", "failure")
    ),
    "by_mission_verb": Grouping(
        "mission verb", ("mission",), lambda d: _of_episode(d, lambda e: [_verbs(e["mission"])]), _verb_label
    ),
    "by_action": Grouping("action", (), chosen_actions, _named(*ACTION_NAMES)),
}


@dataclass(frozen=True, eq=False)
class Groups:
    """The steps, split: every step is in exactly one group."""

    grouping: Grouping
    keys: list[tuple[int, ...]]  # G keys of K numbers, sorted by their last number first: reading order for [x, y]
    labels: list[str]
    index: np.ndarray  # (S,) int64, group of each step
    counts: np.ndarray  # (G,) int64, steps of each group
    num_episodes: np.ndarray  # (G,) int64, episodes with a step in the group
    first_steps: np.ndarray  # (G,) int64, the first step of each group: an example of it

    def __len__(self) -> int:
        return len(self.keys)

    def mask(self, group: int) -> np.ndarray:
        """Mark (S,) bool the steps of one group; a `filter_fn`."""
        return self.index == group

    def largest(self, max_groups: int) -> list[int]:
        """List the groups with the most steps, at most so many, in the order of the groups."""
        return sorted(np.argsort(-self.counts, kind="stable")[:max_groups].tolist())


def group_routing_data(routing_data: RoutingData, group_by: str) -> Groups:
    """Split the steps by one of GROUPINGS, or by a field of the episodes such as "mission"."""
    grouping, keys = _keys(routing_data, group_by)
    low, span = keys.min(0), np.ptp(keys, axis=0) + 1
    flat = (keys - low) @ np.concatenate([[1], np.cumprod(span[:-1])])
    _, first, index, counts = np.unique(flat, return_index=True, return_inverse=True, return_counts=True)
    shape = (len(counts), len(routing_data.episodes))
    num_steps = np.bincount(index * shape[1] + np.asarray(routing_data.steps.episode), minlength=np.prod(shape))
    num_episodes = (num_steps.reshape(shape) > 0).sum(1)
    chosen = [tuple(key) for key in keys[first].tolist()]
    labels = [grouping.label(key, routing_data) for key in chosen]
    return Groups(grouping, chosen, labels, index, counts, num_episodes, first)


def get_available_analyses(routing_data: RoutingData, among: Iterable[str] = GROUPINGS) -> list[str]:
    """List GROUPINGS: "overall", and those whose fields are there and that make two groups or more."""
    names = ["overall"]
    for name in among:
        try:
            if np.ptp(_keys(routing_data, name)[1], axis=0).any():
                names.append(name)
        except InputError:  # what it needs is not there
            continue
    return names


# those of GROUPINGS that are phases of a task, the one that tells most first: a step's is known before its action is
PHASE_GROUPINGS = ("by_key_phase", "by_subgoal", "by_carrying")


def choose_phases(analyses: Sequence[Sequence[str]]) -> str | None:
    """Choose what a phase is where nobody says: the first of PHASE_GROUPINGS that half of some evaluations have.

    analyses: `get_available_analyses` of each. Half, as a policy that never unlocks a door has no phases of the key.
    """
    for name in PHASE_GROUPINGS:
        if 2 * sum(name in of_one for of_one in analyses) >= max(len(analyses), 1):
            return name
    return None


def _by_field(routing_data: RoutingData, field: str) -> Grouping | None:
    """Group by the value that a field of the episodes has; None where they have no such field."""
    if field == "agent_start_room":  # whose rooms have names
        return GROUPINGS["by_starting_room"]
    texts = [str(episode[field]) for episode in routing_data.episodes if field in episode]
    values = sorted(set(texts))
    if not values or len(texts) < len(routing_data.episodes):
        return None
    return Grouping(
        field.replace("_", " "),
        (field,),
        lambda d: _of_episode(d, lambda episode: [values.index(str(episode[field]))]),
        lambda key, d: values[key[0]],
    )


def _keys(routing_data: RoutingData, group_by: str) -> tuple[Grouping, np.ndarray]:
    """Look up a grouping and the keys (S, K) int64 of the steps."""
    grouping = GROUPINGS.get(group_by) or _by_field(routing_data, group_by)
    if grouping is None:
        raise InputError(
            f"there is no grouping {group_by!r}; choose one of {', '.join(GROUPINGS)}, or a field of the episodes"
        )
    for field in grouping.fields:
        routing_data.require(field)
    check_not_empty(routing_data.steps.episode)
    if not grouping.suits(routing_data):
        raise InputError(
            f"these worlds cannot be split by {grouping.title}; `get_available_analyses` lists what they can"
        )
    keys = in_whole_episodes(grouping.keys, routing_data)
    return grouping, keys.reshape(len(keys), -1)
