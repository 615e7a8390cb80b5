"""Bootstraps over episodes, worlds or runs: the steps of one episode are no independent samples, episodes are.

Axis letters: S steps, B episodes, G groups of steps, K values of a step (in the last part K runs), M sums, R resamples.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mop.common.seeding import stream_seed
from mop.statistics.intervals import Interval, fisher_z, interval_of_mean

NUM_RESAMPLES = 1000
MIN_EPISODES = 5  # of fewer there is no interval: resamples of two or three episodes hardly differ
MIN_SEEDS = 5  # the same of runs
_BOUNDS = (0.025, 0.975)  # of a 95 % interval


def resample(sums: np.ndarray) -> np.ndarray:
    """Draw episodes with replacement: sums (R, M) float64 over those of each resample, of what each brings, (B, M)."""
    return _times_drawn(len(sums)) @ sums


@functools.lru_cache(maxsize=1)  # the measures of a run come one after the other, and of runs in the same worlds too
def _times_drawn(num_episodes: int) -> np.ndarray:
    """Count how often each episode is in each resample, (R, B) float64."""
    rng = np.random.default_rng(stream_seed(0, "bootstrap"))
    drawn = rng.integers(num_episodes, size=(NUM_RESAMPLES, num_episodes))
    flat = drawn + num_episodes * np.arange(NUM_RESAMPLES)[:, None]
    times = np.bincount(flat.ravel(), minlength=flat.size)
    return times.reshape(NUM_RESAMPLES, num_episodes).astype(np.float64)


def bounds(samples: np.ndarray) -> np.ndarray:
    """Take the 95 % interval of samples (R, ...), (2, ...) float64: their quantiles, without NaN."""
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


def bootstrap_intervals(sums: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Compute a statistic of sums over episodes with its 95 % interval, NaN for fewer than MIN_EPISODES episodes.

    sums: what each episode brings, (B, M) float64; statistic: sums (..., M) -> (..., *shape), NaN where it is not
    defined. Returns value, low and high, (3, *shape) float64.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.asarray(statistic(sums.sum(0)))
        low = high = np.full(value.shape, np.nan)
        if len(sums) >= MIN_EPISODES:
            low, high = bounds(statistic(resample(sums)))
    return np.stack([value, low, high])


def bootstrap_interval(sums: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray]) -> Interval:
    """Compute the `bootstrap_intervals` of a statistic that is one number."""
    return Interval(*bootstrap_intervals(sums, statistic).tolist())


# --- means over steps -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Means:
    """Means over the steps of G groups, with their 95 % intervals."""

    mean: np.ndarray  # (G, K) float64; NaN where a group has no steps
    low: np.ndarray  # (G, K) float64; NaN where a group has steps of fewer than MIN_EPISODES episodes
    high: np.ndarray  # as low
    steps: np.ndarray  # (G,) int64
    episodes: np.ndarray  # (G,) int64, episodes with a step in the group

    def interval(self, group: int, value: int) -> Interval:
        """Return one mean with its interval."""
        return Interval(*(float(part[group, value]) for part in (self.mean, self.low, self.high)))

    def numbers(self, group: int, value: int, name: str = "mean") -> dict[str, float | int]:
        """Return one mean under a name of your choice, its interval and its counts."""
        mean, low, high = self.interval(group, value)
        counts = {"steps": int(self.steps[group]), "episodes": int(self.episodes[group])}
        return {name: mean, "low": low, "high": high, **counts}


def bootstrap_means(
    values: np.ndarray, episode: np.ndarray, group: np.ndarray | None = None, num_groups: int = 1
) -> Means:
    """Average values (S, K) over the steps of each group, with 95 % intervals.

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
    low, high = bounds(ratio(drawn[..., :-1], drawn[..., -1:]))
    is_enough = (episodes >= MIN_EPISODES)[:, None]
    return Means(
        ratio(totals.sum(0), steps[:, None]),
        np.where(is_enough, low, np.nan),
        np.where(is_enough, high, np.nan),
        steps,
        episodes,
    )


def bootstrap_layers(
    layers: Sequence[np.ndarray], episode: np.ndarray, group: np.ndarray | None = None, num_groups: int = 1
) -> list[Means]:
    """Average the router weights of each layer, L arrays (S, E_l), as `bootstrap_means` with the same draws for all."""
    every = bootstrap_means(np.concatenate(layers, axis=1), episode, group, num_groups)
    ends = np.cumsum([weights.shape[1] for weights in layers])[:-1]
    parts = zip(*(np.split(part, ends, axis=1) for part in (every.mean, every.low, every.high)), strict=True)
    return [Means(*of_layer, every.steps, every.episodes) for of_layer in parts]


def bootstrap_shares(
    kind: np.ndarray, num_kinds: int, episode: np.ndarray, group: np.ndarray | None = None, num_groups: int = 1
) -> Means:
    """Compute the share of each group's steps that is of each kind, (G, K), as `bootstrap_means`.

    kind: (S,) int; numbers outside 0 to num_kinds - 1 are of none.
    """
    return bootstrap_means(np.asarray(kind)[:, None] == np.arange(num_kinds), episode, group, num_groups)


def sum_by(index: np.ndarray, values: np.ndarray, num: int = 0) -> np.ndarray:
    """Add values (S, K) of equal index (S,): (G, K) float64, G the largest index + 1, or `num` if that is more."""
    return np.stack([np.bincount(index, column, num) for column in values.T], axis=1)


def ratio(totals: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Divide totals by counts, NaN where a count is 0."""
    counts = np.broadcast_to(counts, np.shape(totals))
    return np.divide(totals, counts, out=np.full(counts.shape, np.nan), where=counts > 0)


# --- means over runs --------------------------------------------------------------------------------------------------


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
        """Compute the measure in each resample of the episodes, (R,); runs of equally many episodes draw alike.

        So where runs were evaluated in the same worlds, these are drawn alike, as they are shared.
        """
        return self._of(resample(self.sums))

    def minus(self, other: "EpisodeSums") -> "EpisodeSums":
        """Subtract another mean of the same run, whose episodes are drawn together with these."""
        return EpisodeSums(np.concatenate([self.sums, other.sums], axis=1))

    def _of(self, sums: np.ndarray) -> np.ndarray:
        if not self.is_correlation:
            total, count = np.moveaxis(sums[..., :2], -1, 0)
            mean = ratio(total, count)
            return mean if sums.shape[-1] == 2 else mean - EpisodeSums(self.sums[:, 2:])._of(sums[..., 2:])
        count, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
        product = (count * xx - x * x) * (count * yy - y * y)
        is_known = (count > 2) & (product > 1e-9 * count * count * xx * yy)  # else one of the two does not vary
        r = np.divide(count * xy - x * y, np.sqrt(np.maximum(product, 0)), out=np.full_like(x, np.nan), where=is_known)
        return np.clip(r, -1, 1)


def sums_of_mean(values: np.ndarray, episode: np.ndarray, num_episodes: int) -> EpisodeSums:
    """Average values (S,) over steps; values that are not finite do not count. episode: (S,) int below B."""
    is_known = np.isfinite(values)
    return EpisodeSums(sum_by(episode, np.column_stack([np.where(is_known, values, 0.0), is_known]), num_episodes))


def sums_of_correlation(x: np.ndarray, y: np.ndarray, episode: np.ndarray, num_episodes: int) -> EpisodeSums:
    """Correlate x and y (S,) (Pearson) over the steps in which both are finite, as `sums_of_mean`.

    The sums are: count, x, y, x^2, y^2, xy, of x and y minus their means over all these steps.
    """
    is_known = np.isfinite(x) & np.isfinite(y)
    x, y = (_centred(np.asarray(values, np.float64), is_known) for values in (x, y))
    return EpisodeSums(sum_by(episode, np.column_stack([is_known, x, y, x * x, y * y, x * y]), num_episodes))


def _centred(values: np.ndarray, is_known: np.ndarray) -> np.ndarray:
    """Subtract the mean of values (S,), 0 where they are unknown, and where they only differ by rounding."""
    mean = values[is_known].mean() if is_known.any() else 0.0
    centred = np.where(is_known, values, mean) - mean
    return np.where(np.abs(centred) > 1e-12 * abs(mean), centred, 0.0)


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


def mean_over_seeds(
    measures: Sequence[EpisodeSums | float], limits: tuple[float, float] = (-np.inf, np.inf)
) -> OverSeeds:
    """Average one measure over K runs, with the interval of Student's t and a bootstrap.

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
    """Compute the 95 % interval (2,) of the mean over runs, from each run's own resamples (K, R)."""
    rng = np.random.default_rng(stream_seed(0, "seeds"))
    chosen = rng.integers(len(draws), size=(NUM_RESAMPLES, len(draws) - 1))
    taken = draws[chosen, np.arange(NUM_RESAMPLES)[:, None]]
    count = np.isfinite(taken).sum(1)  # a resample may have no step of a rare phase
    total = np.nansum(taken, axis=1)
    return bounds(ratio(total, count))


def _value(measure: EpisodeSums | float) -> float:
    return measure.value if isinstance(measure, EpisodeSums) else float(measure)


def _draws(measure: EpisodeSums | float) -> np.ndarray:
    return measure.draws() if isinstance(measure, EpisodeSums) else np.full(NUM_RESAMPLES, float(measure))
