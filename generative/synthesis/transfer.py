"""Round trips: levels that were found in a simulator, played in the real world, beside levels as they come.

Axis letters: M levels, T steps over which a quantity is read.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from generative.domains.babyai.causes import OWN_CELL
from generative.domains.babyai.cells import BALL, BOX, DOOR, KEY, WALL
from generative.domains.babyai.policy import FrozenPolicy
from generative.domains.babyai.rollouts import play
from generative.domains.base import Target
from generative.synthesis.levels import Level, ask_bot, build, level_of
from generative.synthesis.search import READINGS
from mop.envs.babyai import World
from mop.envs.geometry import EMPTY, VIEW_SIZE

_AT_ONCE = 256  # worlds that are played together
_SHOWN_STEPS = 60  # of an episode, at most


class Reader(NamedTuple):
    """Who plays, and what is read of it."""

    policy: FrozenPolicy
    target: Target
    num_steps: int  # T
    read: str  # of READINGS

    def read_off(self, values: np.ndarray, has_ended: bool) -> float:
        """The quantity of an episode with `values` at its rows, of which the last is the end's where it has ended.

        Where it ended before step T, a mean is over the steps that it had, and there is no last value: NaN.
        """
        values = values[: len(values) - has_ended][: self.num_steps]  # nobody acts on the state after the end
        if self.read == "last" and len(values) < self.num_steps:
            return float("nan")
        return float(READINGS[self.read](torch.from_numpy(values).double()))

    def of(self, rows: dict[str, np.ndarray]) -> float:
        """The quantity of an episode; rows: of `play`, with `value`, of at least T - 1 actions or to its end."""
        return self.read_off(rows["value"], bool((rows["terminated"] | rows["truncated"]).any()))


class RandomLevels(NamedTuple):
    """M worlds of a task as they come."""

    levels: list[Level]
    values: list[np.ndarray]  # of each reader, (M,)
    sights: np.ndarray  # (M, sights) bool, of SIGHTS


SIGHTS = ("a wall ahead", "a door", "a key", "a ball", "a box")  # what may be in an agent's first view


def sights_of(obs: np.ndarray) -> list[bool]:
    """Which of SIGHTS an observation (O,) shows; ahead is the next cell."""
    kinds = np.array(obs[: VIEW_SIZE**2]).reshape(VIEW_SIZE, VIEW_SIZE)
    kinds[OWN_CELL] = EMPTY  # what is carried
    ahead = kinds[OWN_CELL[0], OWN_CELL[1] - 1]
    return [bool(ahead == WALL), *(bool((kinds == kind).any()) for kind in (DOOR, KEY, BALL, BOX))]


def play_random_levels(
    make_world: Callable[[], World], seeds: Sequence[int], readers: Sequence[Reader]
) -> RandomLevels:
    """Play the worlds of these seeds with each reader's policy. Raises InputError where they are no levels."""
    worlds, levels, sights = [make_world() for _ in range(min(_AT_ONCE, len(seeds)))], [], []
    values = [[] for _ in readers]
    with tqdm(total=len(seeds), desc="random levels", unit="level", leave=False, dynamic_ncols=True) as bar:
        for first in range(0, len(seeds), _AT_ONCE):
            some = seeds[first : first + _AT_ONCE]
            for number, reader in enumerate(readers):
                for world, seed in zip(worlds, some, strict=False):
                    world.reset(seed)
                here = worlds[: len(some)]
                if number == 0:
                    levels += [level_of(world) for world in here]
                    sights += [sights_of(world.obs) for world in here]
                played = play(reader.policy, here, reader.num_steps - 1, measure=reader.target)
                values[number] += [reader.of(rows) for rows in played]
            bar.update(len(some))
    return RandomLevels(levels, [np.array(of_reader) for of_reader in values], np.array(sights))


class Trip(NamedTuple):
    """What became of a level in the real world."""

    why_illegal: str  # "" where it is legal
    bot: int | str  # steps that the bot needs, or how it fails
    achieved: list[float]  # of each reader
    rows: dict[str, np.ndarray]  # the episode of the first reader's policy, as of `play`
    is_success: bool


def travel(world: World, level: Level, readers: Sequence[Reader]) -> Trip:
    """Build a level as a real world, ask the bot, and let each reader's policy play it."""
    why_illegal = build(world, level)
    bot, episodes = ask_bot(world), []
    for number, reader in enumerate(readers):
        build(world, level)
        num_steps = reader.num_steps - 1 if number else max(_SHOWN_STEPS, reader.num_steps - 1)
        episodes += play(reader.policy, [world], num_steps, measure=reader.target)
    achieved = [reader.of(rows) for reader, rows in zip(readers, episodes, strict=True)]
    return Trip(why_illegal, bot, achieved, episodes[0], bool((episodes[0]["reward"] > 0).any()))


def percentile_of(value: float, values: np.ndarray) -> float:
    """The share in percent of values (M,), NaN left out, that are below a value; NaN where that is NaN."""
    known = values[np.isfinite(values)]
    return float("nan") if np.isnan(value) or not len(known) else 100.0 * float((known < value).mean())
