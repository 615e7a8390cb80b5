"""Episodes that end in a loop: the agent repeats the same actions in the same cells until its steps run out.

Axis letters: T steps of an episode, B episodes.
"""

from dataclasses import dataclass

import numpy as np

from mop.analysis.routing_data import RoutingData, chosen_actions
from mop.common.errors import InputError

LONGEST_PERIOD = 30
LEAST_REPEATS = 3  # fewer may be a way of searching


@dataclass(frozen=True)
class Loop:
    """The end of an episode: from step `start` on, cell, direction and action repeat every `period` steps."""

    start: int
    period: int


def find_loop(position: np.ndarray, direction: np.ndarray, action: np.ndarray) -> Loop | None:
    """The loop of the least period in which an episode of T steps ends, if there is one of LEAST_REPEATS rounds.

    position: (T, 2) int; direction, action: (T,) int.
    """
    states = np.column_stack([position, direction, action])
    for period in range(1, min(LONGEST_PERIOD, len(states) // LEAST_REPEATS) + 1):
        differs = np.flatnonzero((states[period:] != states[:-period]).any(1))
        start = 0 if not len(differs) else int(differs[-1]) + 1
        if len(states) - start >= LEAST_REPEATS * period:
            return Loop(start, period)
    return None


def compute_loops(routing_data: RoutingData) -> list[Loop | None]:
    """The loop in which each of the B episodes ends; None for one that ends in none or has no steps.

    Raises InputError if the steps lack a column that it needs, or two episodes have one number, as before version 4.
    """
    for field in ("t_step", "position", "direction"):
        routing_data.require(field)
    steps, action = routing_data.steps, chosen_actions(routing_data)
    order = np.lexsort((steps.t_step, steps.episode))
    episode, t_step = np.asarray(steps.episode)[order], np.asarray(steps.t_step)[order]
    if ((episode[1:] == episode[:-1]) & (t_step[1:] == t_step[:-1])).any():
        raise InputError("this routing data does not tell its episodes apart: loops cannot be found")
    counts = np.bincount(episode, minlength=len(routing_data.episodes))
    position, direction = np.asarray(steps.position), np.asarray(steps.direction)
    rows = np.split(order, np.cumsum(counts)[:-1])
    return [find_loop(position[chosen], direction[chosen], action[chosen]) for chosen in rows]
