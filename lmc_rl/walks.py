"""Walks along lines between policies: the returns of all their places in the same worlds, kept as rows of a file.

A row is one episode: the run, what the line is of, the place, the number and the seed of the episode, its return and
length. Rows are only ever added, in an order that the settings determine; so a file that was cut off tells where to go
on. Axis letters: A places, E episodes.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import orjson

from lmc_rl.actors import StackedActor
from lmc_rl.learners.mujoco import EVALUATION_SEEDS, EvaluationWorlds, Played
from lmc_rl.paths import alphas, interpolate
from lmc_rl.policies import common_config, load_policy
from lmc_rl.records import Walk
from mop.common.seeding import stream_seed

_MAX_WORLDS = 256  # environments side by side


@dataclass(frozen=True)
class Stretch:
    """The part of a walk that is played at once: all places, some episodes."""

    walk: Walk
    alpha_points: int
    episodes: range
    env: str
    max_episode_steps: int

    @property
    def places(self) -> list[float | None]:
        """The places on the line; the random policy has none."""
        return [None] if self.walk.kind == "random" else alphas(self.alpha_points).tolist()

    @property
    def num_rows(self) -> int:
        """One for each place and episode."""
        return len(self.places) * len(self.episodes)


def stretches(
    walks: Iterable[Walk], env: str, max_episode_steps: int, alpha_points: int, num_episodes: int
) -> Iterator[Stretch]:
    """All walks in parts, cut by these numbers alone: results do not depend on processes or interruptions."""
    for walk in walks:
        size = max(1, _MAX_WORLDS // (1 if walk.kind == "random" else alpha_points))
        for start in range(0, num_episodes, size):
            episodes = range(start, min(start + size, num_episodes))
            yield Stretch(walk, alpha_points, episodes, env, max_episode_steps)


def play(stretch: Stretch) -> Played:
    """The returns and lengths (A, E) of a stretch. Raises InputError where there is no such line."""
    worlds = _worlds(stretch.env, stretch.max_episode_steps)
    seeds = [EVALUATION_SEEDS + episode for episode in stretch.episodes]
    if stretch.walk.kind == "random":
        return worlds.play(random_actions(stretch.env, stretch.max_episode_steps, seeds), 1, seeds)
    return worlds.play(_actor(stretch.walk, stretch.alpha_points), stretch.alpha_points, seeds)


def random_actions(env: str, max_episode_steps: int, seeds: Sequence[int]):
    """A policy (1, E, O) -> (1, E, D) of actions drawn evenly from all; each episode has a stream of its own."""
    rngs = [np.random.default_rng(stream_seed(seed, "random policy")) for seed in seeds]
    action_dim = _worlds(env, max_episode_steps).action_dim
    return lambda obs: np.stack([rng.uniform(-1, 1, action_dim) for rng in rngs])[None].astype(np.float32)


@lru_cache(maxsize=1)
def _worlds(env: str, max_episode_steps: int) -> EvaluationWorlds:
    """The environments of this process, which are kept from one stretch to the next."""
    return EvaluationWorlds(env, max_episode_steps)


@lru_cache(maxsize=1)
def _actor(walk: Walk, alpha_points: int) -> StackedActor:
    first, second = load_policy(walk.first), load_policy(walk.second)
    common_config(first, second)
    return StackedActor(interpolate(first.weights, second.weights, alphas(alpha_points)))


# --- rows -----------------------------------------------------------------------------------------------------------


def rows_of(stretch: Stretch, played: Played, run: str) -> bytes:
    """The rows of a stretch as lines of JSON, by place, then by episode."""
    lines = []
    for k, alpha in enumerate(stretch.places):
        for e, episode in enumerate(stretch.episodes):
            row = {"run": run, **stretch.walk.identity, "alpha": alpha, "episode": episode}
            row |= {"seed": EVALUATION_SEEDS + episode}
            row |= {"return": float(played.returns[k, e]), "length": int(played.lengths[k, e])}
            lines.append(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
    return b"".join(lines)


def cut_to_whole(path: Path, planned: Sequence[Stretch]) -> int:
    """How many of the stretches the file holds as a whole; what follows them in the file is cut off."""
    if not path.exists():
        return 0
    ends = [0]
    with path.open("rb") as file:
        while (line := file.readline()).endswith(b"\n"):
            ends.append(ends[-1] + len(line))
    counts = np.cumsum([0, *(stretch.num_rows for stretch in planned)])
    whole = int(np.searchsorted(counts, len(ends) - 1, side="right")) - 1
    with path.open("r+b") as file:
        file.truncate(ends[counts[whole]])
    return whole
