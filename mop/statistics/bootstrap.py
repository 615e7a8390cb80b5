"""Intervals from a bootstrap over episodes: the steps of one episode are no independent samples, episodes are.

Axis letters: S steps, B episodes, G groups of steps, K values of a step, R resamples.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mop.common.seeding import stream_seed

NUM_RESAMPLES = 1000
MIN_EPISODES = 5  # of fewer there is no interval: resamples of two or three episodes hardly differ
_BOUNDS = (0.025, 0.975)  # of a 95 % interval


@dataclass(frozen=True, eq=False)
class Means:
    """Means over the steps of G groups, with their 95 % intervals."""

    mean: np.ndarray  # (G, K) float64; NaN where a group has no steps
    low: np.ndarray  # (G, K) float64; NaN where a group has steps of fewer than MIN_EPISODES episodes
    high: np.ndarray  # as low
    steps: np.ndarray  # (G,) int64
    episodes: np.ndarray  # (G,) int64, episodes with a step in the group

    def numbers(self, group: int, value: int, name: str = "mean") -> dict[str, float | int]:
        """One mean under a name of your choice, its interval, and what they stand on."""
        mean, low, high = (float(part[group, value]) for part in (self.mean, self.low, self.high))
        counts = {"steps": int(self.steps[group]), "episodes": int(self.episodes[group])}
        return {name: mean, "low": low, "high": high, **counts}


def bootstrap_means(
    values: np.ndarray, episode: np.ndarray, group: np.ndarray | None = None, num_groups: int = 1
) -> Means:
    """Mean of values (S, K) over the steps of each group, with its 95 % interval.

    episode: (S,) int from 0, of `index_episodes`; group: (S,) int from 0 to num_groups - 1, without it all steps are
    one. Episodes are drawn with replacement, as many as there are, NUM_RESAMPLES times; a drawn one brings all of its
    steps. The bounds are the 2.5 % and 97.5 % quantiles of the means of the draws in which the group has steps: the
    percentile interval of the cluster bootstrap (Davison and Hinkley 1997, Bootstrap Methods and their Application,
    sections 3.8 and 5.3). It is too narrow for few episodes, and of no width where all values are the same.
    """
    values = np.asarray(values)
    group = np.zeros(len(values), np.int64) if group is None else np.asarray(group)
    _, episode = np.unique(episode, return_inverse=True)  # those without a step here have nothing to bring
    num_episodes, num_values = episode.max() + 1, values.shape[1]
    flat = episode * num_groups + group

    def by_episode(weights: np.ndarray | None) -> np.ndarray:
        return np.bincount(flat, weights, num_episodes * num_groups).reshape(num_episodes, num_groups)

    counts = by_episode(None)
    totals = np.stack([by_episode(values[:, value]) for value in range(num_values)], axis=2)  # (B, G, K)
    steps, episodes = counts.sum(0), (counts > 0).sum(0)
    drawn = resample(np.concatenate([totals, counts[:, :, None]], axis=2).reshape(num_episodes, -1))
    drawn = drawn.reshape(-1, num_groups, num_values + 1)
    low, high = bounds(_ratio(drawn[..., :-1], drawn[..., -1:]))
    is_enough = (episodes >= MIN_EPISODES)[:, None]
    return Means(
        _ratio(totals.sum(0), steps[:, None]),
        np.where(is_enough, low, np.nan),
        np.where(is_enough, high, np.nan),
        steps,
        episodes,
    )


def bootstrap_layers(
    layers: Sequence[np.ndarray], episode: np.ndarray, group: np.ndarray | None = None, num_groups: int = 1
) -> list[Means]:
    """`bootstrap_means` of the router weights of each layer, L arrays (S, E_l), with the same draws for all."""
    every = bootstrap_means(np.concatenate(layers, axis=1), episode, group, num_groups)
    ends = np.cumsum([weights.shape[1] for weights in layers])[:-1]
    parts = zip(*(np.split(part, ends, axis=1) for part in (every.mean, every.low, every.high)), strict=True)
    return [Means(*of_layer, every.steps, every.episodes) for of_layer in parts]


def bootstrap_shares(
    kind: np.ndarray, num_kinds: int, episode: np.ndarray, group: np.ndarray | None = None, num_groups: int = 1
) -> Means:
    """Share of the steps of each group that is of each kind, (G, K), as `bootstrap_means`.

    kind: (S,) int; numbers outside 0 to num_kinds - 1 are of none.
    """
    return bootstrap_means(np.asarray(kind)[:, None] == np.arange(num_kinds), episode, group, num_groups)


def resample(sums: np.ndarray) -> np.ndarray:
    """Sums (R, M) float64 over the episodes of each resample, of what each episode brings, (B, M)."""
    return _times_drawn(len(sums)) @ sums


@functools.lru_cache(maxsize=1)  # the measures of a run come one after the other, and of runs in the same worlds too
def _times_drawn(num_episodes: int) -> np.ndarray:
    """How often each episode is in each resample, (R, B) float64."""
    rng = np.random.default_rng(stream_seed(0, "bootstrap"))
    drawn = rng.integers(num_episodes, size=(NUM_RESAMPLES, num_episodes))
    flat = drawn + num_episodes * np.arange(NUM_RESAMPLES)[:, None]
    times = np.bincount(flat.ravel(), minlength=flat.size)
    return times.reshape(NUM_RESAMPLES, num_episodes).astype(np.float64)


def bounds(samples: np.ndarray) -> np.ndarray:
    """The 95 % interval of samples (R, ...), (2, ...) float64: their quantiles, without those that are NaN."""
    ordered = np.sort(samples, axis=0)  # NaN comes last
    last = np.maximum(np.isfinite(samples).sum(0) - 1, 0)
    found = []
    for share in _BOUNDS:
        place = share * last
        below = np.floor(place).astype(np.int64)
        lower, upper = (
            np.take_along_axis(ordered, np.minimum(index, last)[None], 0)[0] for index in (below, below + 1)
        )
        found.append(lower + (place - below) * (upper - lower))
    return np.stack(found)


def _ratio(totals: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """totals / counts, NaN where a count is 0."""
    counts = np.broadcast_to(counts, totals.shape)
    return np.divide(totals, counts, out=np.full(totals.shape, np.nan), where=counts > 0)
