"""Levels found in a simulator, replayed in the real world and compared with random levels of the task.

Axis letters: N found levels, M random levels, T steps over which a quantity is read, G numbers of a mission.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from generative.domains.babyai.causes import OWN_CELL
from generative.domains.babyai.cells import BALL, BOX, DOOR, KEY, WALL
from generative.domains.babyai.policy import FrozenPolicy
from generative.domains.babyai.rollouts import play
from generative.domains.base import Target
from generative.recordings.recorder import FIRST_SEED
from generative.simulators.base import Simulator
from generative.synthesis.levels import Level, LevelPrior, SoftLevels, ask_bot, build, estimate_prior, level_of
from generative.synthesis.search import READINGS, Begin, Search, SearchResult, search_levels
from mop.common.cli import setting
from mop.common.errors import InputError
from mop.common.seeding import stream_seed
from mop.envs.babyai import World
from mop.envs.geometry import EMPTY, VIEW_SIZE
from mop.statistics.intervals import interval_of_mean

FIRST_VIEW_FEATURES = ("a wall ahead", "a door", "a key", "a ball", "a box")
_AT_ONCE = 256  # worlds that are played together
_SHOWN_STEPS = 60  # of an episode, at most


# --- in the real world ------------------------------------------------------------------------------------------------


class Reader(NamedTuple):
    """A policy and the quantity that is read from its episodes."""

    policy: FrozenPolicy
    target: Target
    search: "StudySettings"  # how it is read, over how many steps T, ...

    def value_of(self, rows: Mapping[str, np.ndarray]) -> float:
        """The quantity of an episode; rows: of `play`, with `value`, of at least T - 1 actions or to its end.

        Where it ended before step T, a mean is over the steps that it had, and there is no last value: NaN.
        """
        has_ended = (rows["terminated"] | rows["truncated"]).any()
        values = rows["value"][:-1] if has_ended else rows["value"]  # nobody acts on the state after the end
        values = values[: self.search.num_steps]
        if self.search.read == "last" and len(values) < self.search.num_steps:
            return float("nan")
        return float(READINGS[self.search.read](torch.from_numpy(values).double()))


class RandomLevels(NamedTuple):
    """M random worlds of a task."""

    levels: list[Level]
    values: list[np.ndarray]  # of each reader, (M,)
    features: np.ndarray  # (M, features) bool, of FIRST_VIEW_FEATURES


def first_view_features(obs: np.ndarray) -> list[bool]:
    """Which of FIRST_VIEW_FEATURES an observation (O,) shows; ahead is the next cell."""
    kinds = np.array(obs[: VIEW_SIZE**2]).reshape(VIEW_SIZE, VIEW_SIZE)
    kinds[OWN_CELL] = EMPTY  # the carried thing
    ahead = kinds[OWN_CELL[0], OWN_CELL[1] - 1]
    return [bool(ahead == WALL), *(bool((kinds == kind).any()) for kind in (DOOR, KEY, BALL, BOX))]


def play_random_levels(
    make_world: Callable[[], World], seeds: Sequence[int], readers: Sequence[Reader]
) -> RandomLevels:
    """Play the worlds of these seeds with each reader's policy."""
    worlds = [make_world() for _ in range(min(_AT_ONCE, len(seeds)))]
    levels, features = [], []
    values = [[] for _ in readers]
    with tqdm(total=len(seeds), desc="random levels", unit="level", leave=False, dynamic_ncols=True) as bar:
        for first in range(0, len(seeds), _AT_ONCE):
            some = seeds[first : first + _AT_ONCE]
            here = worlds[: len(some)]
            for number, reader in enumerate(readers):
                for world, seed in zip(here, some, strict=True):
                    world.reset(seed)
                if number == 0:
                    levels += [level_of(world) for world in here]
                    features += [first_view_features(world.obs) for world in here]
                played = play(reader.policy, here, reader.search.num_steps - 1, measure=reader.target)
                values[number] += [reader.value_of(rows) for rows in played]
            bar.update(len(some))
    return RandomLevels(levels, [np.array(of_reader) for of_reader in values], np.array(features))


class RealRollout(NamedTuple):
    """A found level, replayed in the real world."""

    why_illegal: str  # "" where it is legal
    bot: int | str  # steps that the bot needs, or how it fails
    achieved: list[float]  # of each reader
    rows: dict[str, np.ndarray]  # the episode of the first reader's policy, as of `play`


def replay_in_env(world: World, level: Level, readers: Sequence[Reader]) -> RealRollout:
    """Build a level as a real world, ask the bot, and let each reader's policy play it."""
    why_illegal = build(world, level)
    bot = ask_bot(world)
    episodes = []
    for number, reader in enumerate(readers):
        build(world, level)
        num_steps = reader.search.num_steps - 1
        num_steps = num_steps if number else max(_SHOWN_STEPS, num_steps)
        episodes += play(reader.policy, [world], num_steps, measure=reader.target)
    achieved = [reader.value_of(rows) for reader, rows in zip(readers, episodes, strict=True)]
    return RealRollout(why_illegal, bot, achieved, episodes[0])


def percentile_of(value: float, values: np.ndarray) -> float:
    """The percentage of values (M,), NaN left out, that are below a value; NaN where that is NaN."""
    known = values[np.isfinite(values)]
    return float("nan") if np.isnan(value) or not len(known) else 100.0 * float((known < value).mean())


# --- the study --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class StudySettings(Search):
    """Settings of a search and of what it is compared with."""

    num_restarts: int = setting(16, "levels that are optimised at once", low=1, high=1024)
    num_random: int = setting(10_000, "random levels, for comparison", low=20, high=10**6)
    min_percentile: float = setting(95.0, "of these, that a survivor is above", low=0, high=100)


@dataclass(frozen=True)
class Study:
    """N levels of a task found by a search, and their rollouts in the real world."""

    search: StudySettings
    prior: LevelPrior
    missions: list[str]
    found: SearchResult
    without_gradients: SearchResult
    rollouts: list[RealRollout]
    before: np.ndarray  # (N,) the quantity in the base worlds
    random: RandomLevels  # of the policy, and of the untrained one

    @property
    def percentiles(self) -> np.ndarray:
        """(N,) of the achieved quantity, among random levels."""
        return np.array([percentile_of(rollout.achieved[0], self.random.values[0]) for rollout in self.rollouts])

    @property
    def survives(self) -> np.ndarray:
        """(N,) bool: legal, and above the least percentile."""
        is_legal = np.array([not rollout.why_illegal for rollout in self.rollouts])
        return is_legal & (self.percentiles >= self.search.min_percentile)

    def numbers(self) -> dict:
        """The numbers of a summary. `gain`: of the predicted quantity over the search without gradients.

        `seen`: of each of FIRST_VIEW_FEATURES, the shares of survivors and of random levels whose first view shows it.
        """
        table = self.table()
        random = self.random.values[0][np.isfinite(self.random.values[0])]
        gap = (table.achieved - table.predicted).abs()
        gain = (table.predicted - table.without_gradients).to_numpy()
        is_legal = table.legal == "yes"
        is_solved = table.bot.map(lambda bot: isinstance(bot, int))
        numbers = {
            "num_levels": len(table),
            "num_random": len(random),
            "random_mean": random.mean(),
            "random_sd": random.std(),
            "random_95": np.percentile(random, 95),
            "random_max": random.max(),
            **{name: table[name].mean() for name in ("before", "predicted", "achieved")},
            "gap_median": gap.median(),
            "gap_max": gap.max(),
            "without_gradients": table.without_gradients.mean(),
            "gain": gain.mean(),
            "gain_half": interval_of_mean(gain)[1] if len(gain) > 1 else np.nan,
            "min_percentile": self.search.min_percentile,
            "survive": table.survives.sum(),
            "unsolved": (table.survives & ~is_solved).sum(),
            "illegal": (~is_legal).sum(),
            "low": (is_legal & ~table.survives).sum(),
            "untrained_percentile": table.untrained_percentile.mean(),
            "untrained_survive": (table.untrained_percentile >= self.search.min_percentile).sum(),
        }
        numbers = {name: value.item() if isinstance(value, np.generic) else value for name, value in numbers.items()}
        seen = np.array([first_view_features(rollout.rows["obs"][0]) for rollout in self.rollouts])[self.survives]
        if len(seen):
            shares = zip(seen.mean(0).tolist(), self.random.features.mean(0).tolist(), strict=True)
            numbers["seen"] = dict(zip(FIRST_VIEW_FEATURES, shares, strict=True))
        return numbers

    def table(self) -> pd.DataFrame:
        """A row for each level."""
        priors = np.array([self.prior.log_probability(level) for level in self.random.levels])
        percentiles, survives = self.percentiles, self.survives
        rows = []
        for n, (level, rollout) in enumerate(zip(self.found.levels, self.rollouts, strict=True)):
            log_prior = self.prior.log_probability(level)
            row = {
                "level": n,
                "mission": self.missions[n],
                "before": self.before[n],
                "predicted": float(self.found.predicted[n]),
                "achieved": rollout.achieved[0],
                "percentile": percentiles[n],
                "log_prior": log_prior,
                "prior_percentile": percentile_of(log_prior, priors),
                "without_gradients": float(self.without_gradients.predicted[n]),
                "untrained_percentile": percentile_of(rollout.achieved[1], self.random.values[1]),
                "legal": rollout.why_illegal or "yes",
                "bot": rollout.bot,
                "survives": bool(survives[n]),
                "world_seed": level.seed,
            }
            rows.append(row)
        return pd.DataFrame(rows)


def run_study(
    make_world: Callable[[], World],
    readers: Sequence[Reader],
    simulator: Simulator,
    make_begin: Callable[[torch.Tensor], Begin],
) -> Study:
    """Search levels for the first reader, and play them with all; make_begin: missions (N, G) -> `Begin`.

    readers: of the policy, and of the untrained one.
    """
    reader = readers[0]
    search = reader.search
    random_seeds = world_seeds(search.seed, "random levels", search.num_random)
    random = play_random_levels(make_world, random_seeds, readers)
    known = random.values[0][np.isfinite(random.values[0])]
    if len(known) < 2 or (sd := float(known.std())) == 0:
        raise InputError(f"{reader.target.name} is the same in all random levels: there is nothing to maximise")
    prior = estimate_prior(random.levels)
    base_seeds = world_seeds(search.seed, "bases", search.num_restarts)
    bases = [make_world() for _ in base_seeds]
    for world, seed in zip(bases, base_seeds, strict=True):
        world.reset(seed)
    missions = [world.mission for world in bases]
    lang = reader.policy.embed(missions)

    def search_with(lr: float) -> SearchResult:
        levels = SoftLevels(prior, bases, search.sureness)
        how = replace(search, lr=lr)
        return search_levels(reader.policy, simulator, make_begin(lang), levels, lang, reader.target, how, sd)

    found, without_gradients = search_with(search.lr), search_with(0.0)
    world = make_world()
    progress = tqdm(found.levels, "replays", unit="level", leave=False, dynamic_ncols=True)
    rollouts = [replay_in_env(world, level, readers) for level in progress]
    before = play_random_levels(make_world, base_seeds, readers[:1]).values[0]
    return Study(search, prior, missions, found, without_gradients, rollouts, before, random)


def world_seeds(seed: int, stream: str, count: int) -> list[int]:
    """World seeds from a named random stream."""
    return (FIRST_SEED + np.random.default_rng(stream_seed(seed, stream)).integers(2**32, size=count)).tolist()
