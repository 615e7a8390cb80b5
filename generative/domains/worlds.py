"""What a kind of world offers to a recorder: episodes in slots, who acts in them, and arrays of its own.

All that a recording has of BabyAI is in `generative.domains.babyai.envs`, all that it has of games in
`generative.domains.coinrun.envs`;
another kind of world has another file like them. Axis letters: N slots, O numbers of an observation, A actions.
"""

from collections.abc import Callable, Mapping, Sequence
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
    """Episodes in N slots."""

    obs: np.ndarray  # (N, O) or of more axes, what each slot shows
    encoding: dict  # what a reader of the arrays must know, for the config of a recording

    def fields(self) -> list[tuple]:
        """The arrays of a row that are of this kind of world, as fields of a dtype; `obs` is one."""

    def begin(self, slot: int, seed_of: Callable[[int], int]) -> Start:
        """Begin the first of the worlds seed_of(0), seed_of(1), ... in which a teacher, if there is one, has an answer.

        The seed that is returned decides about the split. Raises InputError where no world can be had.
        """

    def step(self, slot: int, action: int) -> Step:
        """Execute an action; the episode goes on until it is terminated or truncated."""

    def show(self, rows: np.ndarray, slots: Sequence[int]) -> None:
        """Write what some slots show now to their rows; rows (N,) of a dtype with `fields`."""


class Actor(Protocol):
    """The recorded policy in N slots: what it says of what they show, and its memory in each."""

    lang_dim: int  # numbers that it is given of a mission
    choose: Mapping[str, Callable]  # behaviour -> who acts, as in `behaviours.CHOOSE`

    def fields(self) -> list[tuple]:
        """The arrays of a row that are what the policy says, as fields of a dtype; `recordings.common_fields` are."""

    def begin(self, slot: int, mission: str) -> None:
        """Forget all in a slot, and take up a mission."""

    def lang_of(self, mission: str) -> np.ndarray:
        """What the policy is given of a mission: (lang_dim,) float32."""

    def ask(self, obs: np.ndarray, rows: np.ndarray, slots: Sequence[int]) -> None:
        """Write the policy's answers about the observations in some slots to their rows (N,), and remember."""
