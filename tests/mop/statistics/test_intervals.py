"""Means over seeds: by hand, coverage of planted values, steps that depend on each other."""

import math

import numpy as np
import pytest

from mop.statistics.bootstrap import (
    MIN_SEEDS,
    NUM_RESAMPLES,
    EpisodeSums,
    mean_over_seeds,
    sums_of_correlation,
    sums_of_mean,
)
from mop.statistics.intervals import fisher_z, wilson_interval

SIMULATIONS = 200  # seeds 0 to 199 of numpy's default generator
EPISODES, STEPS = 30, 10  # of a run


def run_with_correlation(rng, rho: float, copies: int = 1) -> EpisodeSums:
    """A run whose x and y have this correlation; episodes differ in level, and each step occurs several times."""
    shape = (EPISODES, STEPS)
    x, noise = (0.8 * rng.normal(size=(EPISODES, 1)) + 0.6 * rng.normal(size=shape) for _ in range(2))
    y = rho * x + math.sqrt(1 - rho**2) * noise
    episode = np.repeat(np.arange(EPISODES), STEPS * copies)
    return sums_of_correlation(*(np.repeat(values.ravel(), copies) for values in (x, y)), episode, EPISODES)


def test_sums_are_those_of_numpy():
    rng = np.random.default_rng(0)
    x, episode = rng.normal(size=300) + 1000, np.repeat(np.arange(30), 10)
    y = x + rng.normal(size=300)
    assert sums_of_mean(x, episode, 30).value == pytest.approx(x.mean())
    assert sums_of_correlation(x, y, episode, 30).value == pytest.approx(np.corrcoef(x, y)[0, 1])
    x[::7] = np.nan
    known = np.isfinite(x)
    assert sums_of_mean(x, episode, 30).value == pytest.approx(x[known].mean())
    assert sums_of_correlation(x, y, episode, 30).value == pytest.approx(np.corrcoef(x[known], y[known])[0, 1])
    assert math.isnan(sums_of_correlation(np.full(300, 0.1), y, episode, 30).value), "it does not vary"
    assert math.isnan(sums_of_mean(np.full(300, np.nan), episode, 30).value)
    assert math.isnan(sums_of_correlation(np.full(300, np.nan), y, episode, 30).value)
    difference = sums_of_mean(y, episode, 30).minus(sums_of_mean(y[:50], episode[:50], 30))
    assert difference.value == pytest.approx(y.mean() - y[:50].mean()) and difference.draws().shape == (NUM_RESAMPLES,)


def test_intervals_by_hand():
    two = mean_over_seeds([1.0, 3.0])
    half = 12.706 * math.sqrt(2) / math.sqrt(2)  # t of one degree of freedom, times the standard error
    assert (two.mean, two.num_seeds, two.num_missing) == (2, 2, 0)
    assert (two.low, two.high) == pytest.approx((2 - half, 2 + half), rel=1e-3) and math.isnan(two.drawn_low)
    assert mean_over_seeds([1.0, 3.0], (0, 5)).low == 0 and mean_over_seeds([1.0, 3.0], (0, 5)).high == 5
    missing = mean_over_seeds([1.0, math.nan, 3.0])
    assert (missing.mean, missing.low, missing.num_seeds, missing.num_missing) == (2, two.low, 2, 1)


def test_one_seed_has_a_number_and_no_interval():
    for one in (5.0, sums_of_mean(np.arange(300.0), np.repeat(np.arange(30), 10), 30)):
        found = mean_over_seeds([one])
        assert math.isfinite(found.mean) and found.num_seeds == 1
        assert all(math.isnan(end) for end in (found.low, found.high, found.drawn_low, found.drawn_high))
    nothing = mean_over_seeds([math.nan])
    assert math.isnan(nothing.mean) and (nothing.num_seeds, nothing.num_missing) == (0, 1)


def test_correlations_are_averaged_as_z():
    rng = np.random.default_rng(3)
    runs = [run_with_correlation(rng, rho) for rho in (0.1, 0.5, 0.9)]
    z = [math.atanh(run.value) for run in runs]
    found = mean_over_seeds(runs)
    half = 4.303 * np.std(z, ddof=1) / math.sqrt(3)
    expected = [math.tanh(value) for value in (np.mean(z), np.mean(z) - half, np.mean(z) + half)]
    assert [found.mean, found.low, found.high] == pytest.approx(expected, abs=1e-3)
    assert np.isfinite(fisher_z(np.array([-1.0, 1.0]))).all()


@pytest.mark.parametrize("num_seeds", [3, 8])
def test_a_planted_correlation_is_recovered_with_the_right_coverage(num_seeds):
    """The runs' own correlations differ as well: z is normal around that of 0.4, with a deviation of 0.2."""
    covered = drawn_covered = 0
    for simulation in range(SIMULATIONS):
        rng = np.random.default_rng(simulation)
        runs = [run_with_correlation(rng, math.tanh(rng.normal(math.atanh(0.4), 0.2))) for _ in range(num_seeds)]
        found = mean_over_seeds(runs)
        covered += found.low <= 0.4 <= found.high
        drawn_covered += found.drawn_low <= 0.4 <= found.drawn_high
    assert 0.91 <= covered / SIMULATIONS <= 0.985, "95 % are expected, with a standard error of 1.5 %"
    assert drawn_covered == 0 if num_seeds < MIN_SEEDS else drawn_covered / SIMULATIONS >= 0.88


def test_dependent_steps_do_not_shrink_the_interval():
    """Each step 25 times over: as many more numbers, and nothing more is known."""
    alone, copied = (
        mean_over_seeds([run_with_correlation(np.random.default_rng(seed), 0.4, copies) for seed in range(6)])
        for copies in (1, 25)
    )
    for name in ("mean", "low", "high", "drawn_low", "drawn_high"):
        assert getattr(copied, name) == pytest.approx(getattr(alone, name), abs=1e-6)
    assert alone.drawn_high - alone.drawn_low > 0.05


def test_the_bootstrap_draws_seeds_then_episodes():
    """Its width is that of both: of runs that differ, of episodes that differ, or of the two together."""
    rng, episode, num_runs = np.random.default_rng(5), np.repeat(np.arange(200), 5), 12

    def width(between: float, within: float) -> float:
        levels = between * rng.permutation(np.linspace(-1, 1, num_runs))
        runs = [sums_of_mean(level + within * np.repeat(rng.normal(size=200), 5), episode, 200) for level in levels]
        found = mean_over_seeds(runs)
        return (found.drawn_high - found.drawn_low) / (2 * 1.96)

    deviation = np.std(np.linspace(-1, 1, num_runs), ddof=1)
    assert width(1, 0) == pytest.approx(deviation / math.sqrt(num_runs), rel=0.12)
    # episodes of 12 runs: their own mean varies by 1 / sqrt(200 x 12), and so, again, do those that are drawn
    assert width(0, 1) == pytest.approx(math.sqrt(2 / 200 / num_runs), rel=0.35)
    assert width(1, 0) < width(1, 5) == pytest.approx(math.hypot(width(1, 0), width(0, 5)), rel=0.25)
    plain = mean_over_seeds([0.0, 1.0, 2.0, 3.0, 4.0])
    assert plain.low < plain.drawn_low < 1 and 3 < plain.drawn_high < plain.high


def test_wilson_interval_of_known_cases():
    known = {(8, 10): (0.4902, 0.9433), (0, 10): (0.0, 0.2775), (10, 10): (0.7225, 1.0), (1, 1): (0.2065, 1.0)}
    known |= {(50, 100): (0.4038, 0.5962), (0, 1): (0.0, 0.7935)}
    for (successes, trials), interval in known.items():
        assert wilson_interval(successes, trials) == pytest.approx(interval, abs=5e-5)
    for trials in (1, 2, 7, 1000):
        for successes in range(0, trials + 1, max(1, trials // 7)):
            low, high = wilson_interval(successes, trials)
            mirrored = wilson_interval(trials - successes, trials)
            assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-12)
            assert 0.0 <= low <= successes / trials <= high <= 1.0
            # both ends are where the distance to the observed rate is 1.96 standard deviations of that end
            for p in (low, high):
                assert (p - successes / trials) ** 2 == pytest.approx(1.959964**2 * p * (1 - p) / trials, abs=1e-6)
