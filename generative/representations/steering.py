"""Moving a policy's memory along directions while it acts in real worlds.

What it then does is counted by the `Arena` of a kind of world: `babyai_runs`, `game_runs`.

After each step of the policy, its new memory h becomes h + a u, with an amount a in each world that is read off the
memory; w and c(h) = w . (h - mean) are the dual and the coordinate of a direction
(`generative.representations.direction_sets`):

    swap    a = w_from . (h - memory before the step)    u = u_to - u_from      what is added goes elsewhere
    null    a = -c(h)                                    u                      the coordinate is that of the mean
    clamp   a = value - c(h)                             u                      the coordinate is a value
    add     a = value                                    u
    random  a of that run, world and step by step        random, as long        the control

The action of the step is chosen before, so a move acts from the next step on. Axis letters: N environments, W worlds,
T steps, S hidden units.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from generative.representations.direction_sets import Directions, random_unit
from generative.representations.effects import Measure, Table
from mop.common.seeding import stream_seed

# memories (N, S) before and after a step, and `episode` and `t_step` (N,) of each by name -> amounts (N,) float32
Amounts = Callable[[Tensor, Tensor, Mapping[str, np.ndarray]], Tensor]


class Move(NamedTuple):
    """What is done to the memory after a step: h + amount x way."""

    amounts: Amounts
    way: Tensor  # (S,) float32


class Reading(NamedTuple):
    """Amounts that are read off the memory: reads . (h - origin) + offset; origin None: the memory before the step."""

    reads: Tensor  # (S,) float32
    origin: Tensor | None  # (S,) float32
    offset: float

    def __call__(self, before: Tensor, after: Tensor, state: Mapping[str, np.ndarray]) -> Tensor:
        return (after - (before if self.origin is None else self.origin)) @ self.reads + self.offset


class Replay(NamedTuple):
    """The amounts of another run in the same worlds at the same steps; where that run was shorter, from its start."""

    recorded: np.ndarray  # (W, T) float32
    steps: np.ndarray  # (W,) int64, how many of them each world has

    def __call__(self, before: Tensor, after: Tensor, state: Mapping[str, np.ndarray]) -> Tensor:
        episode = state["episode"]
        return torch.from_numpy(self.recorded[episode, state["t_step"] % self.steps[episode]])


class Operation(NamedTuple):
    """What is to be done with a direction, given by its number."""

    kind: str  # swap, null, clamp, add
    number: int
    to: int | None = None  # the other direction of a swap
    value: float = 0.0  # of clamp and add, in standard deviations of the coordinate

    def move(self, directions: Directions) -> Move:
        """The move along the direction itself."""
        dual, mean = _tensor(directions.duals[self.number]), _tensor(directions.mean)
        offset = self.value * float(directions.sd[self.number])
        if self.kind == "swap":
            reading = Reading(dual, None, 0.0)
        elif self.kind == "add":
            reading = Reading(torch.zeros_like(dual), mean, offset)
        else:  # null is clamp to 0
            reading = Reading(-dual, mean, offset)
        return Move(reading, _tensor(self._way(directions)))

    def random_move(self, directions: Directions, replay: Replay, seed: int, number: int) -> Move:
        """The same amounts along a random way through the same blocks, as long; each number has a stream of its own."""
        rng = np.random.default_rng(stream_seed(seed, f"random direction {number}"))
        numbers = [self.number] if self.to is None else [self.number, self.to]
        blocks = dict.fromkeys(directions.blocks[numbers].tolist())
        way = sum(random_unit(directions, block, rng) for block in blocks) / len(blocks) ** 0.5
        return Move(replay, _tensor(way * np.linalg.norm(self._way(directions))))

    def _way(self, directions: Directions) -> np.ndarray:
        unit = directions.units[self.number]
        return unit if self.to is None else directions.units[self.to] - unit

    def describe(self, directions: Directions) -> str:
        """In words, for titles."""
        name = directions.names[self.number]
        if self.kind == "swap":
            return f"{name} moved to {directions.names[self.to]}"
        words = {"null": f"{name} nulled", "clamp": f"{name} held at {self.value:g} sd"}
        return words.get(self.kind, f"{self.value:+g} sd of {name} added at each step")


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32))


# --- runs -------------------------------------------------------------------------------------------------------------


class Played(NamedTuple):
    """One episode in each of W worlds."""

    table: dict[str, np.ndarray]  # columns (W,) float64
    amounts: np.ndarray  # (W, T) float32, of the move; 0 behind the end of an episode

    def replay(self) -> Replay:
        """The amounts, for another run in the same worlds."""
        return Replay(self.amounts, self.table["steps"].astype(np.int64))


class Arena(Protocol):
    """A policy in W worlds, the same in every run, and what is counted there."""

    main: tuple[str, ...]  # the measures of the figure, and the last one, how far the memory is moved
    words: str  # where it plays
    num_worlds: int  # W
    settings: dict  # that its episodes depend on, besides those of every arena

    def play(self, move: Move | None, progress: Callable[[int], object]) -> Played:
        """An episode in each world, with a move after each step.

        Columns of the table: "seed", "success", "steps", and what `measures` needs. progress: called with the number
        of episodes just finished. Raises InputError where the worlds cannot be had.
        """

    def measures(self, plain: Table, moved: Table) -> list[Measure]:
        """All measures of two runs."""
