"""What is lost on the line between two policies, with intervals, and the verdict. NumPy and SciPy.

Two measures of a line with returns R(a): the chord barrier B = max_a [(1 - a) R(0) + a R(1) - R(a)] (Entezari et al.
2022, with the loss -R), and the instability I = (R(0) + R(1)) / 2 - min_a R(a) (Frankle et al. 2020, with the error
-R). I is at least |R(0) - R(1)| / 2 even on a straight path; B is 0 there.

The largest of noisy means is too large on average, so it is cross-fitted: half of the episodes choose the place, the
others say how large the drop is there, over many splits and both ways. On a path without a drop this is 0 on average.
The lower bound is the one of the place where it is highest. It allows for the choice: the noise of the means is drawn
by a multiplier bootstrap over episodes with the maximum over the places inside (Chernozhukov, Chetverikov, Kato 2013),
each place in units of its own standard error, so that a noisy place far from the maximum does not matter. The upper
bound is the highest one of any place: wherever the maximum is, it is below that. Both are widened as Student's t widens
the normal distribution. What none of the episodes showed is in no interval.
Axis letters: P pairs of children, E episodes, A alphas, S splits, D draws.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache

import numpy as np

from mop.common.seeding import stream_seed
from mop.statistics.intervals import interval_of_mean, t_quantile, t_widened

NUM_DRAWS = 2000  # of a bootstrap
NUM_SPLITS = 200  # into halves
ROUNDING = 1e-9  # of the largest drop: differences below it are none
VERDICTS = CONNECTED, BARRIER, UNDECIDED = "connected", "barrier", "undecided"


@dataclass(frozen=True)
class Estimate:
    """A number that cannot be negative, with its 95 % interval."""

    unclipped: float  # negative in half of the cases where the number is 0, so that it can be averaged over parents
    low: float
    high: float

    @property
    def value(self) -> float:
        """The number to show, which lies in its interval."""
        return float(np.clip(self.unclipped, self.low, self.high))

    def over(self, scale: float) -> "Estimate":
        """The same in units of a positive scale; NaN where there is none."""
        scale = scale if scale > 0 else np.nan
        return Estimate(self.unclipped / scale, self.low / scale, self.high / scale)

    def summary(self) -> dict[str, float]:
        """All of it by name."""
        return {"value": self.value, **asdict(self)}


@dataclass(frozen=True)
class Profile:
    """A measure along the lines between the children of a fork, with the sign at which more is better."""

    alphas: np.ndarray  # (A,)
    gains: np.ndarray  # (P, E, A)
    chance: float  # mean gain of the policy that acts at random
    tolerance: float

    @property
    def end_mean(self) -> float:
        """Mean gain of the ends."""
        return float(self.gains[..., [0, -1]].mean())

    @property
    def scale(self) -> float:
        """What was learned: how much better the ends are than a policy that acts at random."""
        return self.end_mean - self.chance

    @cached_property
    def barrier(self) -> Estimate:
        """B, in units of the measure."""
        return largest_drop(drops_below_chord(self.gains, self.alphas))

    @cached_property
    def instability(self) -> Estimate:
        """I, in units of the measure."""
        return largest_drop(drops_below_ends(self.gains))

    @cached_property
    def rise(self) -> Estimate:
        """How far it falls below the first end: what moving a part of the weights does to a trained policy."""
        return largest_drop(self.gains[..., :1] - self.gains)

    @property
    def verdict(self) -> str:
        """Of the barrier as a share of what was learned; undecided too where the ends are no better than chance."""
        return verdict(self.barrier.over(self.scale), self.tolerance)

    def mean_and_half(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean gain (A,) over pairs and episodes, and half of its 95 % interval (Student's t) over episodes."""
        return interval_of_mean(self.gains.mean(axis=0))


def drops_below_chord(gains: np.ndarray, alphas: np.ndarray) -> np.ndarray:
    """How far each episode is below the chord between its ends, (..., E, A), of gains (..., E, A) at alphas (A,).

    Exactly 0 where all places have the same gain.
    """
    start, end = gains[..., :1], gains[..., -1:]
    return start + alphas * (end - start) - gains


def drops_below_ends(gains: np.ndarray) -> np.ndarray:
    """How far each episode is below the mean of its ends, (..., E, A), of gains (..., E, A)."""
    return (gains[..., :1] + gains[..., -1:]) / 2 - gains


def largest_drop(drops: np.ndarray) -> Estimate:
    """The largest mean drop on the line, which is at least 0, with its 95 % interval.

    drops: (E, A), E at least 2, or (P, E, A) of several pairs in the same worlds: then it is the mean over the pairs of
    the largest. The lower bound is below the true value in 97.5 % of the cases, and so is the upper one above it.
    """
    pairs = drops[None] if drops.ndim == 2 else drops
    found = np.array([(_cross_fitted(pair), *_bounds(pair)) for pair in pairs])
    return Estimate(*found.mean(axis=0).tolist())


def _cross_fitted(drops: np.ndarray) -> float:
    """The drop (E, A) of the other half at the place that one half chooses, both ways; several places share a choice.

    Sharing makes it the same from both ends of the line.
    """
    chooses = _splits(len(drops))
    halves = [side @ drops / side.sum(axis=1, keepdims=True) for side in (chooses, 1 - chooses)]  # (S, A) each
    scores = []
    for chosen_by, scored_by in (halves, halves[::-1]):
        is_largest = chosen_by >= chosen_by.max(axis=1, keepdims=True) - ROUNDING * np.abs(drops).max()
        scores.append((is_largest * scored_by).sum(axis=1) / is_largest.sum(axis=1))
    return float(np.mean(scores))


def _bounds(drops: np.ndarray) -> tuple[float, float]:
    """The interval of the largest mean of drops (E, A)."""
    num_episodes, means = len(drops), drops.mean(axis=0)
    errors = drops.std(axis=0, ddof=1) / np.sqrt(num_episodes)
    is_noisy = errors > ROUNDING * np.abs(drops).max()
    if not is_noisy.any():
        return max(0.0, float(means.max())), max(0.0, float(means.max()))
    off = (drops - means)[:, is_noisy]
    noise = _multipliers(num_episodes) @ (off / np.linalg.norm(off, axis=0))  # (D, A), standard normal at each place
    freedom = num_episodes - 1
    reach = t_widened(np.quantile(noise.max(axis=1), 0.975), freedom)
    low, high = (means - reach * errors).max(), (means + t_quantile(freedom) * errors).max()
    return max(0.0, float(low)), max(0.0, float(high))


@lru_cache(maxsize=8)
def _splits(num_episodes: int) -> np.ndarray:
    """Which episodes are in the first half, (S, E) float64."""
    rng = np.random.default_rng(stream_seed(0, "halves of the episodes"))
    return (rng.random((NUM_SPLITS, num_episodes)).argsort(axis=1) < num_episodes // 2).astype(float)


@lru_cache(maxsize=8)
def _multipliers(num_episodes: int) -> np.ndarray:
    """A standard normal number for each draw and episode, (D, E) float64."""
    return np.random.default_rng(stream_seed(0, "bootstrap over episodes")).normal(size=(NUM_DRAWS, num_episodes))


def over_parents(estimates: Sequence[Estimate]) -> Estimate:
    """The mean over parents with its 95 % interval; of one parent, its own.

    It is Student's t over the values before they were clipped, and at least as wide as the mean interval of the
    parents: a few that agree by chance know no more than their episodes do.
    """
    if len(estimates) == 1:
        return estimates[0]
    values, lows, highs = np.array([(one.unclipped, one.low, one.high) for one in estimates]).T
    mean, half = interval_of_mean(values)
    low = np.maximum(0, np.minimum(mean - half, lows.mean()))  # NumPy's, which keep NaN
    return Estimate(float(mean), float(low), float(np.maximum(mean + half, highs.mean())))


def verdict(barrier: Estimate, tolerance: float) -> str:
    """Whether all of the interval of a normalised barrier is above the tolerance, or below it, or neither."""
    if barrier.low > tolerance:
        return BARRIER
    return CONNECTED if barrier.high < tolerance else UNDECIDED
