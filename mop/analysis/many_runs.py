"""Numbers whose unit is the seed: one value of each training run, and what a mean over runs says about others.

The steps of an episode are alike, and so are all episodes of one policy: neither are samples of what another training
would give. Axis letters: S steps, B episodes, K runs with different seeds, M sums, R resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mop.common.seeding import stream_seed
from mop.statistics.bootstrap import NUM_RESAMPLES, bounds, resample
from mop.statistics.intervals import interval_of_mean

MIN_SEEDS = 5  # of fewer there is no bootstrap: resamples of two or three runs hardly differ
_NEAR_1 = 1 - 1e-9  # beyond it the z of a correlation is no number


@dataclass(frozen=True, eq=False)
class EpisodeSums:
    """A measure of one run, kept as what each of its episodes brings, so that episodes can be drawn again."""

    sums: np.ndarray  # (B, M) float64; M = 2: total and count of a mean; 4: those of two means; 6: of a correlation

    @property
    def is_correlation(self) -> bool:
        return self.sums.shape[1] == 6

    @property
    def value(self) -> float:
        """The measure of the run; NaN where nothing was counted."""
        return float(self._of(self.sums.sum(0)))

    def draws(self) -> np.ndarray:
        """The measure in each resample of the episodes, (R,). Runs of equally many episodes draw the same of them.

        So where runs were evaluated in the same worlds, these are drawn alike, as they are shared.
        """
        return self._of(resample(self.sums))

    def minus(self, other: "EpisodeSums") -> "EpisodeSums":
        """The difference of two means of one run, whose episodes are drawn together."""
        return EpisodeSums(np.concatenate([self.sums, other.sums], axis=1))

    def _of(self, sums: np.ndarray) -> np.ndarray:
        if not self.is_correlation:
            total, count = np.moveaxis(sums[..., :2], -1, 0)
            mean = np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)
            return mean if sums.shape[-1] == 2 else mean - EpisodeSums(self.sums[:, 2:])._of(sums[..., 2:])
        count, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
        product = (count * xx - x * x) * (count * yy - y * y)
        is_known = (count > 2) & (product > 1e-9 * count * count * xx * yy)  # else one of the two does not vary
        r = np.divide(count * xy - x * y, np.sqrt(np.maximum(product, 0)), out=np.full_like(x, np.nan), where=is_known)
        return np.clip(r, -1, 1)


def sums_of_mean(values: np.ndarray, episode: np.ndarray, num_episodes: int) -> EpisodeSums:
    """The mean of values (S,) over steps; those that are not finite do not count. episode: (S,) int below B."""
    is_known = np.isfinite(values)
    return _summed([np.where(is_known, values, 0.0), is_known], episode, num_episodes)


def sums_of_correlation(x: np.ndarray, y: np.ndarray, episode: np.ndarray, num_episodes: int) -> EpisodeSums:
    """Pearson's correlation of x and y (S,) over the steps in which both are finite, as `sums_of_mean`.

    The sums are: count, x, y, x^2, y^2, xy, of x and y minus their means over all these steps.
    """
    is_known = np.isfinite(x) & np.isfinite(y)
    x, y = (_centred(np.asarray(values, np.float64), is_known) for values in (x, y))
    return _summed([is_known, x, y, x * x, y * y, x * y], episode, num_episodes)


def _centred(values: np.ndarray, is_known: np.ndarray) -> np.ndarray:
    """values (S,) minus their mean, 0 where they are not known, and where they only differ by rounding."""
    mean = values[is_known].mean() if is_known.any() else 0.0
    centred = np.where(is_known, values, mean) - mean
    return np.where(np.abs(centred) > 1e-12 * abs(mean), centred, 0.0)


def _summed(columns: Sequence[np.ndarray], episode: np.ndarray, num_episodes: int) -> EpisodeSums:
    return EpisodeSums(np.stack([np.bincount(episode, column, num_episodes) for column in columns], axis=1))


@dataclass(frozen=True)
class OverSeeds:
    """A mean over the runs of one setting with its 95 % intervals, NaN where there are too few runs for one."""

    mean: float
    low: float  # Student's t over runs; from two runs on
    high: float
    drawn_low: float  # bootstrap over runs, then episodes; from MIN_SEEDS runs on
    drawn_high: float
    num_seeds: int  # runs with a value
    num_missing: int  # runs without one, left out


def fisher_z(r: np.ndarray | float) -> np.ndarray:
    """artanh of correlations (...): about normal, whatever the correlation is (Fisher 1921, Metron 1: 3-32)."""
    return np.arctanh(np.clip(r, -_NEAR_1, _NEAR_1))


def mean_over_seeds(
    measures: Sequence[EpisodeSums | float], limits: tuple[float, float] = (-np.inf, np.inf)
) -> OverSeeds:
    """The mean of one measure over K runs, with the interval of Student's t, and a bootstrap.

    limits: between which the measure lies; an end of an interval beyond them is cut to them.

    Correlations are averaged as z (`fisher_z`); mean and ends are brought back, so test and interval are on one scale:
    0 lies outside the interval exactly where the t-test of z would reject at 5 %.
    The bootstrap draws runs, then episodes within them (Davison and Hinkley 1997, section 3.8), NUM_RESAMPLES times,
    and takes the 2.5 % and 97.5 % quantiles of the means. K - 1 runs are drawn of the K: with K, the variance would be
    too small by (K - 1) / K, which matters for five. Of a measure that is no sum over episodes, runs alone are drawn.
    """
    values = np.array([_value(measure) for measure in measures])
    kept = [measure for measure, value in zip(measures, values, strict=True) if np.isfinite(value)]
    is_r = any(isinstance(measure, EpisodeSums) and measure.is_correlation for measure in kept)
    to_scale, from_scale = (fisher_z, np.tanh) if is_r else (np.asarray, np.asarray)
    scaled, nan = to_scale(values[np.isfinite(values)]), float("nan")
    mean, low, high, drawn = (scaled.mean() if len(kept) else nan), nan, nan, (nan, nan)
    if len(kept) > 1:
        mean, half = interval_of_mean(scaled)
        low, high = mean - half, mean + half
    if len(kept) >= MIN_SEEDS:
        drawn = _bootstrap(np.stack([to_scale(_draws(measure)) for measure in kept]))
    numbers = [float(np.clip(from_scale(number), *limits)) for number in (mean, low, high, *drawn)]
    return OverSeeds(*numbers, len(kept), len(values) - len(kept))


def _bootstrap(draws: np.ndarray) -> np.ndarray:
    """The 95 % interval (2,) of the mean over runs, from each run's own resamples (K, R)."""
    rng = np.random.default_rng(stream_seed(0, "seeds"))
    chosen = rng.integers(len(draws), size=(NUM_RESAMPLES, len(draws) - 1))
    taken = draws[chosen, np.arange(NUM_RESAMPLES)[:, None]]
    count = np.isfinite(taken).sum(1)  # a resample may have no step of a rare phase
    total = np.nansum(taken, axis=1)
    return bounds(np.divide(total, count, out=np.full(NUM_RESAMPLES, np.nan), where=count > 0))


def _value(measure: EpisodeSums | float) -> float:
    return measure.value if isinstance(measure, EpisodeSums) else float(measure)


def _draws(measure: EpisodeSums | float) -> np.ndarray:
    return measure.draws() if isinstance(measure, EpisodeSums) else np.full(NUM_RESAMPLES, float(measure))
