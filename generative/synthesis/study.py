"""A study of levels that excite a quantity: their search, their round trips, and the controls.

Axis letters: N levels, M random levels, G numbers of a mission.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from generative.simulators.base import Simulator
from generative.synthesis.levels import LevelPrior, SoftLevels, estimate_prior
from generative.synthesis.search import Begin, Found, Search, search_levels
from generative.synthesis.transfer import (
    SIGHTS,
    RandomLevels,
    Reader,
    Trip,
    percentile_of,
    play_random_levels,
    sights_of,
    travel,
)
from mop.common.errors import InputError
from mop.common.seeding import stream_seed
from mop.envs.babyai import World
from mop.statistics.intervals import interval_of_mean

FIRST_SEED = 2**33  # of worlds: no evaluation and no training uses them


@dataclass(frozen=True)
class Study:
    """Levels that were found of a task, and what became of them in the real world."""

    search: Search
    prior: LevelPrior
    missions: list[str]
    found: Found
    without_gradients: Found
    trips: list[Trip]
    before: np.ndarray  # (N,) the quantity in the worlds that the levels began as
    random: RandomLevels  # of the policy, and of the control if there is one
    min_percentile: float

    @property
    def percentiles(self) -> np.ndarray:
        """(N,) of what is achieved, among random levels."""
        return np.array([percentile_of(trip.achieved[0], self.random.values[0]) for trip in self.trips])

    @property
    def survives(self) -> np.ndarray:
        """(N,) bool: legal, and above the least percentile."""
        is_legal = np.array([not trip.why_illegal for trip in self.trips])
        return is_legal & (self.percentiles >= self.min_percentile)

    def numbers(self) -> dict:
        """What a summary tells. `gain`: of what is predicted, over the search without gradients, and half its interval.

        `seen`: of SIGHTS, the share of survivors whose first view shows it, and that of random levels.
        """
        table, random = self.table(), self.random.values[0][np.isfinite(self.random.values[0])]
        gap, gain = (table.achieved - table.predicted).abs(), (table.predicted - table.without_gradients).to_numpy()
        is_legal, is_solved = table.legal == "yes", table.bot.map(lambda bot: isinstance(bot, int))
        found = {
            "num_levels": len(table),
            "num_random": len(random),
            "random_mean": random.mean(),
            "random_sd": random.std(),
            "random_95": np.percentile(random, 95),
            "random_max": random.max(),
            "before": table.before.mean(),
            "predicted": table.predicted.mean(),
            "achieved": table.achieved.mean(),
            "gap_median": gap.median(),
            "gap_max": gap.max(),
            "without_gradients": table.without_gradients.mean(),
            "gain": gain.mean(),
            "gain_half": interval_of_mean(gain)[1] if len(gain) > 1 else np.nan,
            "min_percentile": self.min_percentile,
            "survive": table.survives.sum(),
            "unsolved": (table.survives & ~is_solved).sum(),
            "illegal": (~is_legal).sum(),
            "low": (is_legal & ~table.survives).sum(),
        }
        if "untrained_percentile" in table:
            found["untrained_percentile"] = table.untrained_percentile.mean()
            found["untrained_survive"] = (table.untrained_percentile >= self.min_percentile).sum()
        found = {name: value.item() if isinstance(value, np.generic) else value for name, value in found.items()}
        seen = np.array([sights_of(trip.rows["obs"][0]) for trip in self.trips])[self.survives]
        if len(seen):
            shares = zip(seen.mean(0).tolist(), self.random.sights.mean(0).tolist(), strict=True)
            found["seen"] = dict(zip(SIGHTS, shares, strict=True))
        return found

    def table(self) -> pd.DataFrame:
        """A row for each level."""
        priors = np.array([self.prior.log_probability(level) for level in self.random.levels])
        rows = []
        for n, (level, trip) in enumerate(zip(self.found.levels, self.trips, strict=True)):
            log_prior = self.prior.log_probability(level)
            row = {"level": n, "mission": self.missions[n], "before": self.before[n]}
            row |= {"predicted": float(self.found.predicted[n]), "achieved": trip.achieved[0]}
            row |= {"percentile": self.percentiles[n], "log_prior": log_prior}
            row |= {"prior_percentile": percentile_of(log_prior, priors)}
            row |= {"without_gradients": float(self.without_gradients.predicted[n])}
            if len(trip.achieved) > 1:
                row["untrained_percentile"] = percentile_of(trip.achieved[1], self.random.values[1])
            row |= {"legal": trip.why_illegal or "yes", "bot": trip.bot, "survives": bool(self.survives[n])}
            rows.append(row | {"world_seed": level.seed})
        return pd.DataFrame(rows)


def run_study(
    make_world: Callable[[], World],
    readers: Sequence[Reader],
    simulator: Simulator,
    make_begin: Callable[[torch.Tensor], Begin],
    search: Search,
    num_restarts: int,
    num_random: int,
    min_percentile: float,
) -> Study:
    """Search levels for the first reader, and play them with all; make_begin: missions (N, G) -> `Begin`."""
    reader, search = readers[0], replace(search, num_steps=readers[0].num_steps, read=readers[0].read)
    random = play_random_levels(make_world, world_seeds(search.seed, "random levels", num_random), readers)
    known = random.values[0][np.isfinite(random.values[0])]
    if len(known) < 2 or (sd := float(known.std())) == 0:
        raise InputError(f"{reader.target.name} is the same in all random levels: there is nothing to maximise")
    prior = estimate_prior(random.levels)
    bases = [make_world() for _ in range(num_restarts)]
    base_seeds = world_seeds(search.seed, "bases", num_restarts)
    for world, seed in zip(bases, base_seeds, strict=True):
        world.reset(seed)
    lang, missions = reader.policy.embed([world.mission for world in bases]), [world.mission for world in bases]
    found, without_gradients = (
        search_levels(
            reader.policy, simulator, make_begin(lang), SoftLevels(prior, bases, search.sureness), lang,
            reader.target, replace(search, lr=lr), sd,
        )
        for lr in (search.lr, 0.0)
    )  # fmt: skip
    world = make_world()
    progress = tqdm(found.levels, "round trips", unit="level", leave=False, dynamic_ncols=True)
    trips = [travel(world, level, readers) for level in progress]
    before = play_random_levels(make_world, base_seeds, readers[:1]).values[0]
    return Study(search, prior, missions, found, without_gradients, trips, before, random, min_percentile)


def world_seeds(seed: int, stream: str, count: int) -> list[int]:
    """The seeds of some worlds, of a named stream."""
    return (FIRST_SEED + np.random.default_rng(stream_seed(seed, stream)).integers(2**32, size=count)).tolist()
