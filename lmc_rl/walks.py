"""Walks along lines between policies: the returns of all their places in the same worlds, kept as rows of a file.

A row is one episode: the run, what the line is of, the place, the number and the seed of the episode, its return and
length. Rows are only ever added, in an order that the settings determine; so a file that was cut off tells where to go
on. Axis letters: A places, E episodes.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import orjson

from lmc_rl.actors import StackedActor
from lmc_rl.paths import alphas, interpolate
from lmc_rl.policies import common_config, load_policy
from lmc_rl.worlds import EVALUATION_SEEDS, EvaluationWorlds, Played
from mop.base.errors import InputError
from mop.base.streams import stream_seed

ROWS_NAME = "episodes.jsonl"
_MAX_WORLDS = 256  # environments side by side


@dataclass(frozen=True)
class Walk:
    """A line between the policies of two files, or the random policy, where there are no files."""

    kind: str  # fork, self, independent, random, other
    fork: int | None = None  # number of the fork
    children: tuple[int, int] | None = None  # the children of that fork, from 1 on
    first: Path | None = None
    second: Path | None = None

    @property
    def name(self) -> str:
        """What its files are called."""
        parts = [self.kind, *([self.fork] if self.fork is not None else []), *(self.children or ())]
        return "_".join(map(str, parts))

    @property
    def identity(self) -> dict:
        """What its rows say of it."""
        return {"kind": self.kind, "fork": self.fork, "children": list(self.children) if self.children else None}


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


def read_rows(path: Path) -> list[dict]:
    """The rows of a file. Raises InputError, naming file and line, where one is none."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; the experiment has walked along no path yet") from None
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = orjson.loads(line)
            row["kind"], row["fork"], row["children"], row["alpha"], row["episode"]
            if not np.isfinite(row["return"]):
                raise ValueError
        except (ValueError, TypeError, KeyError):
            raise InputError(f"{path}: line {number} is no row of an episode") from None
        rows.append(row)
    return rows


def walks_of(rows: Iterable[Mapping]) -> dict[tuple, tuple[np.ndarray, np.ndarray]]:
    """The places (A,) and returns (E, A) of each walk, by (kind, fork, children), of the episodes that are whole.

    The random policy has one place, NaN.
    """
    found: dict[tuple, dict] = {}
    for row in rows:
        key = (row["kind"], row["fork"], tuple(row["children"]) if row["children"] else None)
        found.setdefault(key, {}).setdefault(row["alpha"], {})[row["episode"]] = row["return"]
    walks = {}
    for key, by_place in found.items():
        places = list(by_place) if key[0] == "random" else sorted(by_place)
        episodes = sorted(set.intersection(*(set(by_place[place]) for place in places)))
        if len(places) > 2 or key[0] == "random":
            returns = np.array([[by_place[place][e] for place in places] for e in episodes])
            walks[key] = np.array([np.nan if place is None else place for place in places]), returns
    return walks
