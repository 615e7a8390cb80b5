"""Confidence intervals of 95 %: means, shares, ratios of sums, correlations.

Axis letters: K values, W worlds, N cases.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

MIN_WORLDS = 10  # with a step, of each side of a contrast: the interval of fewer is not to be trusted
_NEAR_1 = 1 - 1e-9  # beyond it the z of a correlation is no number


class Interval(NamedTuple):
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float


# --- means ------------------------------------------------------------------------------------------------------------


def t_quantile(freedom: np.ndarray | float) -> np.ndarray:
    """Compute the 97.5 % quantile of Student's t; freedom: degrees of freedom, at least 1, of any shape."""
    from scipy.special import stdtrit  # here: it takes a quarter of a second to load

    return stdtrit(freedom, 0.975)


def t_widened(quantile: float, freedom: float) -> float:
    """Convert a quantile of the normal distribution to the equally rare one of Student's t distribution.

    freedom: degrees of freedom, at least 1.
    """
    from scipy.special import ndtr, stdtrit

    return -float(stdtrit(freedom, ndtr(-quantile)))  # of the lower tail, where no digits are lost


def interval_of_mean(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average independent values (K, ...), K at least 2; returns mean and half of its 95 % interval (Student's t)."""
    half = t_quantile(len(values) - 1) * values.std(axis=0, ddof=1) / np.sqrt(len(values))
    return values.mean(axis=0), half


def mean_over_pairs(pairs: np.ndarray) -> Interval:
    """Average over the pairs of K policies, with a 95 % interval; pairs: (K, K), of which the upper half is read.

    Pairs that share a policy are no independent samples. So policies are left out one at a time, and the interval is
    Student's t with the standard error of that jackknife (Arvesen 1969, Annals of Mathematical Statistics 40). NaN for
    an interval of two policies.
    """
    num = len(pairs)
    mean = _mean_of_pairs(pairs)
    if num < 3:
        return Interval(mean, np.nan, np.nan)
    left = np.array([_mean_of_pairs(np.delete(np.delete(pairs, k, 0), k, 1)) for k in range(num)])
    half = t_quantile(num - 1) * np.sqrt((num - 1) / num * np.square(left - left.mean()).sum())
    return Interval(mean, mean - float(half), mean + float(half))


def _mean_of_pairs(pairs: np.ndarray) -> float:
    return float(pairs[np.triu_indices(len(pairs), 1)].mean())


# --- shares -----------------------------------------------------------------------------------------------------------


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Compute the 95 % interval of a success probability (Wilson 1927: the score interval, uncorrected)."""
    z = 1.959963984540054
    centre = (successes + z * z / 2) / (trials + z * z)
    half = z / (trials + z * z) * math.sqrt(successes * (trials - successes) / trials + z * z / 4)
    return max(0.0, centre - half), min(1.0, centre + half)


def interval_of_rate(success_rate: float, num_episodes: int) -> tuple[float, float]:
    """Compute the `wilson_interval` of a success rate among so many episodes."""
    return wilson_interval(round(success_rate * num_episodes), num_episodes)


def difference_of_rates(left: tuple[int, int], right: tuple[int, int], phi: float = 0.0) -> Interval:
    """Subtract the left of two shares (successes, trials) from the right, with a 95 % interval from Wilson's intervals.

    phi: correlation of paired outcomes. Method 10 of Newcombe 1998, Statistics in Medicine 17: 873-890 (independent)
    and 2635-2650 (paired); unlike that of a bootstrap, it is not of width 0 where all succeed.
    """
    p_left, p_right = (successes / trials for successes, trials in (left, right))
    low_left, high_left = wilson_interval(*left)
    low_right, high_right = wilson_interval(*right)
    ends = (p_right - low_right, high_left - p_left), (high_right - p_right, p_left - low_left)
    low, high = (math.sqrt(max(a * a - 2 * phi * a * b + b * b, 0.0)) for a, b in ends)
    difference = p_right - p_left
    return Interval(difference, difference - low, difference + high)


def correlation_of_outcomes(left: np.ndarray, right: np.ndarray) -> float:
    """Compute phi of paired outcomes (W,) bool, with Newcombe's continuity correction; 0 if one is constant."""
    both, neither = int((left & right).sum()), int((~left & ~right).sum())
    only_left, only_right = int((left & ~right).sum()), int((~left & right).sum())
    margins = (both + only_left) * (neither + only_right) * (both + only_right) * (neither + only_left)
    product = both * neither - only_left * only_right
    if product > 0:
        product = max(product - len(left) / 2, 0)
    return product / math.sqrt(margins) if margins else 0.0


# --- ratios of sums over worlds ---------------------------------------------------------------------------------------


class Sums(NamedTuple):
    """A value in each world: its sum and over how many steps, (..., W) float64 each."""

    total: np.ndarray
    count: np.ndarray


@dataclass(frozen=True, eq=False)
class Contrast:
    """Two means and right minus left, (...) float64, with half the width of each 95 % interval; NaN without a step."""

    left: np.ndarray
    right: np.ndarray
    left_half: np.ndarray
    right_half: np.ndarray
    difference: np.ndarray
    half: np.ndarray
    left_worlds: np.ndarray  # (...) int64, worlds with a step
    right_worlds: np.ndarray

    def is_clear(self, min_episodes: int = MIN_WORLDS) -> np.ndarray:
        """Mark (...) bool where the interval excludes 0 and each side has so many episodes."""
        return self.is_known(min_episodes) & (np.abs(self.difference) > self.half)

    def is_known(self, min_episodes: int = MIN_WORLDS) -> np.ndarray:
        """Mark (...) bool where each side has so many episodes, one at least."""
        return np.minimum(self.left_worlds, self.right_worlds) >= max(min_episodes, 1)


def compare_means(left: Sums, right: Sums, is_paired: bool) -> Contrast:
    """Compare the means over all steps of two sides, with intervals over worlds.

    A mean is a ratio of sums over worlds, so its variance is k / (k - 1) times the sum of the squares of
    (total - mean x count) / (sum of counts) over its k worlds (Cochran 1977, Sampling Techniques, chapter 6); of a
    paired difference, the differences of these residuals are squared. The interval uses Student's t with k - 1 degrees
    of freedom, of two sides the smaller; it is infinite where k is 1.
    """
    mean_left, residual_left, k_left = _linearised(left)
    mean_right, residual_right, k_right = _linearised(right)
    half_left = _half(_variance(residual_left, k_left), k_left)
    half_right = _half(_variance(residual_right, k_right), k_right)
    if is_paired:
        k = ((left.count > 0) | (right.count > 0)).sum(-1)
        variance = _variance(residual_right - residual_left, k)
    else:
        k = np.minimum(k_left, k_right)
        variance = _variance(residual_left, k_left) + _variance(residual_right, k_right)
    half = _half(variance, np.where(np.minimum(k_left, k_right) > 1, k, 1))
    return Contrast(mean_left, mean_right, half_left, half_right, mean_right - mean_left, half, k_left, k_right)


def _linearised(sums: Sums) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute the mean (...), each world's part in its error (..., W), and the number of worlds with a step (...)."""
    num_steps = sums.count.sum(-1)
    some = np.maximum(num_steps, 1)
    mean = np.where(num_steps > 0, sums.total.sum(-1) / some, np.nan)
    residual = (sums.total - np.nan_to_num(mean)[..., None] * sums.count) / some[..., None]
    return mean, residual, (sums.count > 0).sum(-1)


def _variance(residual: np.ndarray, k: np.ndarray) -> np.ndarray:
    return np.square(residual).sum(-1) * k / np.maximum(k - 1, 1)


def _half(variance: np.ndarray, k: np.ndarray) -> np.ndarray:
    return np.where(k > 1, t_quantile(np.maximum(k - 1, 1)) * np.sqrt(variance), np.inf)


# --- correlations -----------------------------------------------------------------------------------------------------


def fisher_z(r: np.ndarray | float) -> np.ndarray:
    """Transform correlations (...) by artanh: about normal for every correlation (Fisher 1921, Metron 1: 3-32)."""
    return np.arctanh(np.clip(r, -_NEAR_1, _NEAR_1))


def rank_correlation(first: np.ndarray, second: np.ndarray) -> Interval:
    """Compute Spearman's correlation of two numbers (N,) of each task, N at least 4, with its 95 % interval.

    The interval is that of Fisher's z with the variance of Bonett and Wright 2000 (Psychometrika 65: 23-28). NaN where
    one of the two is the same in all tasks.
    """
    from scipy.special import ndtri
    from scipy.stats import rankdata

    ranks = np.stack([rankdata(first), rankdata(second)])
    if (ranks.std(axis=1) == 0).any():
        return Interval(np.nan, np.nan, np.nan)
    rho = float(np.corrcoef(ranks)[0, 1])
    half = ndtri(0.975) * np.sqrt((1 + rho**2 / 2) / (len(ranks[0]) - 3))
    return Interval(rho, *(float(np.tanh(fisher_z(rho) + end)) for end in (-half, half)))
