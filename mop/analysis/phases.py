"""The phases of tasks in which a key is fetched to unlock a door. Axis letter: S steps."""

from collections.abc import Mapping, Sequence

import numpy as np

from mop.analysis.routing_data import Steps, has_happened
from mop.common.errors import InputError

PHASES = ("before the key", "carrying the key", "door unlocked", "key dropped")
_AHEAD = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])  # x, y of the cell in front, by direction


def key_phases(steps: Steps, episodes: Sequence[Mapping]) -> np.ndarray:
    """The phase of each step (S,) int64, index into PHASES: what is true at the step, however often a key is picked up.

    Until a door is unlocked: without a key in the hand, with one; from then on: with it, without it. Another object in
    the hand is no key. A key is known by the place where it was picked up (`is_key_held`); where the steps do not tell
    it, by the time (`_is_key_held_by_time`).
    episodes: with `t_unlocked`, actions taken when a door was first unlocked, None where none was.
    Raises InputError if steps or episodes lack what is needed.
    """
    for name in ("episode", "t_step", "carrying"):
        if getattr(steps, name) is None:
            raise InputError(f"these steps have no {name!r}, which the phases of the task need")
    if not all("t_unlocked" in episode for episode in episodes):
        raise InputError("these episodes have no 't_unlocked', which the phases of the task need")
    is_unlocked = has_happened(steps, episodes, "t_unlocked")
    can_be_followed = steps.position is not None and getattr(steps, "direction", None) is not None
    if can_be_followed and all("keys" in episode for episode in episodes):
        is_held = is_key_held(steps, episodes)
    else:
        is_held = _is_key_held_by_time(steps, is_unlocked, len(episodes))
    return np.where(is_unlocked, np.where(is_held, 2, 3), np.where(is_held, 1, 0))


def is_key_held(steps: Steps, episodes: Sequence[Mapping]) -> np.ndarray:
    """(S,) bool: the agent carries one of the keys that open a locked door of its world, or any if none is locked.

    The objects are followed from their places at the start: what is picked up is what lies in front of the agent, and
    what is dropped lies there from then on. episodes: with `keys` [x, y, color] and, where known, `doors`
    [x, y, color, is_open, is_locked]. What is in the hand from the first step on counts as a key.
    """
    carrying, episode = np.asarray(steps.carrying, bool), np.asarray(steps.episode)
    in_front = np.asarray(steps.position) + _AHEAD[np.asarray(steps.direction, np.int64) % 4]
    is_last = np.append(episode[1:] != episode[:-1], True)
    changes = ~is_last & (carrying != np.append(carrying[1:], False))  # the hand is filled or emptied in this step
    is_held = np.zeros(len(carrying), bool)
    for first, end in _stretches(episode):
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


def _stretches(episode: np.ndarray) -> list[tuple[int, int]]:
    """First step and end of each episode; the steps of an episode are neighbours."""
    starts = np.flatnonzero(np.diff(episode, prepend=-1)).tolist()
    return list(zip(starts, [*starts[1:], len(episode)], strict=True))


def _key_cells(episode: Mapping) -> set[tuple[int, int]]:
    """Where the keys lie that open a locked door; all keys, where no door is known to be locked."""
    colors = {door[2] for door in episode.get("doors", ()) if len(door) > 4 and door[4]}
    return {(x, y) for x, y, *color in episode["keys"] if not colors or not color or color[0] in colors}


def _is_key_held_by_time(steps: Steps, is_unlocked: np.ndarray, num_episodes: int) -> np.ndarray:
    """(S,) bool, without places: what is carried when the door is unlocked is the key.

    It is held from the last time before that the hands were empty until they are empty again; where no door is
    unlocked, what is carried at the end counts as the key.
    """
    episode, t_step, carrying = (np.asarray(column) for column in (steps.episode, steps.t_step, steps.carrying))
    picked, dropped = np.zeros(num_episodes), np.full(num_episodes, np.inf)  # t_step of each episode
    empty_before, empty_after = ~carrying & ~is_unlocked, ~carrying & is_unlocked
    np.maximum.at(picked, episode[empty_before], t_step[empty_before] + 1)
    np.minimum.at(dropped, episode[empty_after], t_step[empty_after])
    return np.where(is_unlocked, t_step < dropped[episode], t_step >= picked[episode])
