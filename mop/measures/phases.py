"""The phases of tasks in which a key is fetched to unlock a door. Axis letter: S steps."""

from collections.abc import Mapping, Sequence

import numpy as np

from mop.base.errors import InputError
from mop.measures.routing_data import Steps, has_happened

PHASES = ("before the key", "carrying the key", "door unlocked", "key dropped")


def key_phases(steps: Steps, episodes: Sequence[Mapping]) -> np.ndarray:
    """The phase of each step (S,) int64, index into PHASES.

    What is carried when the door is unlocked is the key. "Carrying the key" begins after the last step before that with
    empty hands, and "key dropped" with the first step after it with empty hands. So another object that was moved out
    of the way before is not taken for the key.
    episodes: with `t_unlocked`, the number of actions taken when a door was first unlocked, None where none was; there,
    what is carried at the end counts as the key.
    Raises InputError if steps or episodes lack what is needed.
    """
    for name in ("episode", "t_step", "carrying"):
        if getattr(steps, name) is None:
            raise InputError(f"these steps have no {name!r}, which the phases of the task need")
    if not all("t_unlocked" in episode for episode in episodes):
        raise InputError("these episodes have no 't_unlocked', which the phases of the task need")
    episode, t_step, carrying = (np.asarray(column) for column in (steps.episode, steps.t_step, steps.carrying))
    is_unlocked = has_happened(steps, episodes, "t_unlocked")
    picked, dropped = np.zeros(len(episodes)), np.full(len(episodes), np.inf)  # t_step of each episode
    empty_before, empty_after = ~carrying & ~is_unlocked, ~carrying & is_unlocked
    np.maximum.at(picked, episode[empty_before], t_step[empty_before] + 1)
    np.minimum.at(dropped, episode[empty_after], t_step[empty_after])
    before_door = np.where(t_step >= picked[episode], 1, 0)
    return np.where(is_unlocked, np.where(t_step >= dropped[episode], 3, 2), before_door)
