"""Permutations: what a statistic is by chance. Axis letter: S steps."""

from collections.abc import Iterable, Iterator

import numpy as np

from mop.common.seeding import stream_seed
from mop.statistics.bootstrap import bounds
from mop.statistics.intervals import Interval

NUM_PERMUTATIONS = 200


def chance_level(permuted: Iterable[float]) -> Interval:
    """Compute what a statistic is by chance: the mean of its permutations, and where 95 % of them lie."""
    values = np.fromiter(permuted, np.float64)
    low, high = bounds(values)
    return Interval(float(values.mean()), float(low), float(high))


def permute_within(values: np.ndarray, group: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Permute values (S, ...) within each group (S,) int: how often a value occurs stays, when does not."""
    permuted = np.empty_like(values)
    permuted[np.argsort(group, kind="stable")] = values[np.lexsort((rng.random(len(group)), group))]
    return permuted


def groups_of_other_episodes(
    group: np.ndarray, episode: np.ndarray, rng: np.random.Generator, within: np.ndarray | None = None
) -> np.ndarray:
    """Give each episode the groups (S,) of another, at the same share of its length.

    episode (S,) int: the steps of one are neighbours; within (S,) int, the same in all steps of an episode: episodes
    change with those of the same number alone.
    """
    starts = np.flatnonzero(np.r_[True, episode[1:] != episode[:-1]])
    lengths = np.diff(np.r_[starts, len(episode)])
    own = np.repeat(np.arange(len(starts)), lengths)
    kind = np.zeros(len(starts), np.int64) if within is None else within[starts]
    other = permute_within(np.arange(len(starts)), kind, rng)[own]
    way = (np.arange(len(episode)) - starts[own]) / lengths[own]
    return group[starts[other] + (way * lengths[other]).astype(np.int64)]


def rows_of_other_episodes(episode: np.ndarray) -> Iterator[np.ndarray]:
    """Draw NUM_PERMUTATIONS times a row (S,) for each step, the row of an unrelated step.

    The episodes are permuted. One that is laid along another begins anywhere, and is mirrored at its ends until it is
    long enough: so no two steps become neighbours that were none, but for a step and itself, and what merely happens at
    the same time of an episode is not related any more.
    """
    rng = np.random.default_rng(stream_seed(0, "permutations of actions"))
    number = np.cumsum(np.append(False, episode[1:] != episode[:-1]))
    first, length = np.unique(number, return_index=True, return_counts=True)[1:]
    step = np.arange(len(number)) - first[number]
    for _ in range(NUM_PERMUTATIONS):
        other = rng.permutation(len(length))
        place = (step + rng.integers(2 * length[other])[number]) % (2 * length[other])[number]
        yield first[other][number] + np.minimum(place, 2 * length[other][number] - 1 - place)
