"""What is true of the world at each row of a recorded episode: the labels that probes of the memory are to find.

Axis letter: M rows of an episode, the last of which is the terminal observation.
"""

import re
from collections.abc import Callable, Mapping

import numpy as np
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX

from mop.envs.babyai import World
from mop.envs.geometry import VIEW_SIZE, code_kind, code_state

UNKNOWN = -1
DOOR_STATES = ("open", "closed", "locked")  # by Minigrid's number
CARRIED = ("nothing", "key", "ball", "box")
PROPERTIES = ("door", "carrying", "goal in view", "phase", "room")
_DOOR, _KEY = OBJECT_TO_IDX["door"], OBJECT_TO_IDX["key"]
_LOCKED = DOOR_STATES.index("locked")
_MOVABLE = CARRIED[1:]
_CELLS = VIEW_SIZE * VIEW_SIZE
_GOAL = re.compile(rf"(?:({'|'.join(COLOR_TO_IDX)}) )?(ball|box|key|door|object)")


def labeller(encoding: Mapping) -> Callable[..., dict[str, np.ndarray]]:
    """Return what labels an episode of a recording; encoding: of the recording's config."""
    room_size = World(encoding["task_id"]).env.room_size
    return lambda episode: label_episode(episode, episode.mission, room_size)


def label_episode(episode: Mapping[str, np.ndarray], mission: str, room_size: int) -> dict[str, np.ndarray]:
    """The label of each of PROPERTIES at each row, (M,) int8: number of a class, UNKNOWN where it has none.

    episode: arrays of a recording; room_size: cells from wall to wall, both included (`env.room_size`).
    door: of DOOR_STATES, the door nearest to the agent, the first of several; carrying: of CARRIED, what is in the
    hand; goal in view: an object of a kind, and colour where it has one, that the mission names is seen, or in the
    hand; phase: by the key, as in `mop.analysis.groups`, where a door is locked at the beginning; room: its number,
    row by row.
    """
    grid, position = np.asarray(episode["grid"]), np.asarray(episode["position"], np.int64)
    carried, obs = np.asarray(episode["carried"]), np.asarray(episode["obs"])
    labels = {
        "door": _nearest_door(grid, position),
        "carrying": _kinds(carried),
        "goal in view": _sees_goal(obs, mission),
        "phase": _phases(grid, carried),
        "room": _rooms(position, room_size, grid.shape[2]),
    }
    return {name: np.asarray(values, np.int8) for name, values in labels.items()}


def _nearest_door(grid: np.ndarray, position: np.ndarray) -> np.ndarray:
    """State of the door nearest to the agent; UNKNOWN in a world without doors. Doors stay where they are."""
    ys, xs = np.nonzero(code_kind(grid[0]) == _DOOR)
    if not len(ys):
        return np.full(len(grid), UNKNOWN)
    distance = np.abs(position[:, :1] - xs) + np.abs(position[:, 1:] - ys)
    nearest = distance.argmin(1)
    return code_state(grid[np.arange(len(grid)), ys[nearest], xs[nearest]])


def _kinds(carried: np.ndarray) -> np.ndarray:
    kinds = np.zeros(256, np.int8)
    for number, name in enumerate(_MOVABLE, 1):
        kinds[OBJECT_TO_IDX[name]] = number
    return kinds[code_kind(carried)]


def _sees_goal(obs: np.ndarray, mission: str) -> np.ndarray:
    """Whether the view shows what the mission names; UNKNOWN where it names nothing that can be seen."""
    kinds, colors = obs[:, :_CELLS], obs[:, _CELLS : 2 * _CELLS]
    goals = _GOAL.findall(mission)
    if not goals:
        return np.full(len(obs), UNKNOWN)
    is_seen = np.zeros(len(obs), bool)
    for color, kind in goals:
        fits = np.isin(kinds, [OBJECT_TO_IDX[name] for name in (_MOVABLE if kind == "object" else (kind,))])
        is_seen |= (fits & (colors == COLOR_TO_IDX[color]) if color else fits).any(1)
    return is_seen


def _phases(grid: np.ndarray, carried: np.ndarray) -> np.ndarray:
    """Index into PHASES; UNKNOWN where no door is locked at the beginning."""
    ys, xs = np.nonzero((code_kind(grid[0]) == _DOOR) & (code_state(grid[0]) == _LOCKED))
    if not len(ys):
        return np.full(len(grid), UNKNOWN)
    is_unlocked = (code_state(grid[:, ys, xs]) != _LOCKED).any(1)
    return phase_of(is_unlocked, code_kind(carried) == _KEY)


def phase_of(is_unlocked: np.ndarray, is_key_held: np.ndarray) -> np.ndarray:
    """Index into PHASES of states (...) bool: whether a door was unlocked, and whether a key is in the hand."""
    return np.where(is_unlocked, np.where(is_key_held, 2, 3), np.where(is_key_held, 1, 0))


def _rooms(position: np.ndarray, room_size: int, width: int) -> np.ndarray:
    """The number of the room that the agent is in; a door belongs to the room to its right, or below it."""
    inner = room_size - 1
    num_columns = (width - 1) // inner
    return position[:, 1] // inner * num_columns + position[:, 0] // inner
