"""How much is lost on the line between two policies, with intervals, and what that says. NumPy alone.

Two measures of a path with returns R(a): the chord barrier B = max_a [(1 - a) R(0) + a R(1) - R(a)] (Entezari et al.
2022, with the loss -R), and the instability I = (R(0) + R(1)) / 2 - min_a R(a) (Frankle et al. 2020, with the error
-R). I is at least |R(0) - R(1)| / 2 even on a straight path; B is 0 there.

A maximum of noisy means is too large on average. So the noise of the means is drawn again, by a bootstrap over episodes
in which each drop is centred: that is a path without any drop, with the noise of this one. The mean of its maximum is
taken off, and its quantiles give the interval. The extremum stands inside the bootstrap, so the interval holds for all
places of the line together.
Axis letters: P pairs of children, E episodes, A places on the line.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mop.base.streams import stream_seed
from mop.measures.intervals import interval_of_mean

NUM_DRAWS = 2000  # of a bootstrap
CONNECTED, BARRIER, UNDECIDED = "connected", "barrier", "undecided"


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float

    def over(self, scale: float) -> "Estimate":
        """The same in units of a positive scale; NaN where there is none."""
        scale = scale if scale > 0 else np.nan
        return Estimate(self.value / scale, self.low / scale, self.high / scale)


def drops_below_chord(returns: np.ndarray, places: np.ndarray) -> np.ndarray:
    """How far each episode is below the chord between its ends, (..., E, A), of returns (..., E, A) at places (A,)."""
    return (1 - places) * returns[..., :1] + places * returns[..., -1:] - returns


def drops_below_ends(returns: np.ndarray) -> np.ndarray:
    """How far each episode is below the mean of its ends, (..., E, A), of returns (..., E, A)."""
    return (returns[..., :1] + returns[..., -1:]) / 2 - returns


def largest_drop(drops: np.ndarray, seed: int = 0) -> Estimate:
    """The largest mean drop on the line, at least 0, less what noise alone gives, with its 95 % interval.

    drops: (E, A), or (P, E, A) of several pairs in the same worlds: then it is the mean over the pairs of the largest.
    The lower bound is below the true value in 97.5 % of the cases, and so is the upper one above it.
    """
    drops = drops[None] if drops.ndim == 2 else drops
    num_episodes = drops.shape[1]
    means = drops.mean(axis=1)  # (P, A)
    largest = means.max(axis=1).mean()
    rng = np.random.default_rng(stream_seed(seed, "bootstrap over episodes"))
    shares = rng.multinomial(num_episodes, np.full(num_episodes, 1 / num_episodes), NUM_DRAWS) / num_episodes
    centred = drops - means[:, None]
    noise = np.stack([shares @ of_pair for of_pair in centred])  # (P, draws, A)
    above, below = noise.max(axis=2).mean(axis=0), (-noise).max(axis=2).mean(axis=0)
    low = max(0.0, largest - np.quantile(above, 0.975))
    high = largest + np.quantile(below, 0.975)
    value = float(np.clip(largest - above.mean(), low, high))
    return Estimate(value, float(low), float(high))


def over_parents(estimates: Sequence[Estimate]) -> Estimate:
    """The mean over parents with its 95 % interval: Student's t over their values; of one parent, its own interval.

    The interval of a mean of numbers that cannot be negative is cut off at 0.
    """
    if len(estimates) == 1:
        return estimates[0]
    mean, half = map(float, interval_of_mean(np.array([estimate.value for estimate in estimates])))
    return Estimate(mean, max(0.0, mean - half), mean + half)


def verdict(barrier: Estimate, tolerance: float) -> str:
    """What a normalised barrier says: all of its interval is above the tolerance, or below it, or it is undecided."""
    if barrier.low > tolerance:
        return BARRIER
    return CONNECTED if barrier.high < tolerance else UNDECIDED
