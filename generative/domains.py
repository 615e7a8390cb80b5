"""What a kind of world offers to a recorder: episodes in slots, a teacher, and arrays of its own.

All that a recording has of BabyAI is in `generative.babyai`; another kind of world has another file like it.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np


class Start(NamedTuple):
    """How an episode began."""

    seed: int
    mission: str
    passed_over: dict[str, int]  # worlds tried before, in which the teacher failed at once, by kind of failure


class Step(NamedTuple):
    """What an action led to."""

    reward: float
    terminated: bool
    truncated: bool
    failure: str | None  # how the teacher failed now, one of its kinds


class Worlds(Protocol):
    """Episodes in N slots, with the teacher's action in each. O: numbers of an observation."""

    obs: np.ndarray  # (N, O) float32, what each slot shows
    teacher: np.ndarray  # (N,) int8, NOTHING where it has no answer, after a failure to the end of the episode
    encoding: dict  # what a reader of the arrays must know, for the config of a recording

    def fields(self) -> list[tuple]:
        """The arrays of a row that are of this kind of world, as fields of a dtype; `obs` is one."""

    def begin(self, slot: int, seed_of: Callable[[int], int]) -> Start:
        """Begin the first of the worlds seed_of(0), seed_of(1), ... in which the teacher has an answer.

        Raises InputError where it has none in too many of them.
        """

    def step(self, slot: int, action: int) -> Step:
        """Execute an action; the episode goes on until it is terminated or truncated."""

    def show(self, rows: np.ndarray, slots: Sequence[int]) -> None:
        """Write what some slots show now to their rows; rows (N,) of a dtype with `fields`."""
