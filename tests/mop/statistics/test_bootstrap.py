"""Intervals from a bootstrap over episodes, against plain loops over the same draws and against theory."""

import numpy as np
import pytest

from mop.common.seeding import stream_seed
from mop.statistics.bootstrap import (
    MIN_EPISODES,
    NUM_RESAMPLES,
    bootstrap_layers,
    bootstrap_means,
    bootstrap_shares,
    bounds,
    resample,
)


def steps_of_episodes(num_episodes=30, num_groups=3, seed=0):
    """Values (S, 2), episode and group of each step; episodes differ in length and level."""
    rng = np.random.default_rng(seed)
    episode = np.repeat(np.arange(num_episodes), rng.integers(3, 12, num_episodes))
    values = rng.normal(size=(len(episode), 2)) + rng.normal(size=num_episodes)[episode, None]
    return values, episode, rng.integers(num_groups, size=len(episode))


def test_a_plain_loop_over_the_same_draws_agrees():
    values, episode, group = steps_of_episodes()
    group[group == 2] = np.where(episode[group == 2] < 6, 2, 1)  # a group that some draws lack
    means = bootstrap_means(values, episode, group, 3)
    drawn = np.random.default_rng(stream_seed(0, "bootstrap")).integers(30, size=(NUM_RESAMPLES, 30))
    rows = [np.flatnonzero(episode == one) for one in range(30)]
    count = 0
    for k in range(3):
        samples = []
        for draw in drawn:
            chosen = np.concatenate([rows[one] for one in draw])
            chosen = chosen[group[chosen] == k]
            samples.append(values[chosen].mean(0) if len(chosen) else [np.nan] * 2)
        low, high = np.nanquantile(samples, [0.025, 0.975], axis=0)
        np.testing.assert_allclose([means.low[k], means.high[k]], [low, high])
        np.testing.assert_allclose(means.mean[k], values[group == k].mean(0))
        count += 1
    assert count == 3
    assert means.steps.tolist() == np.bincount(group).tolist()
    assert means.episodes.tolist() == [len(set(episode[group == k])) for k in range(3)]


def test_episodes_are_the_unit():
    """Ten copies of each step say no more than one: the interval is that of the episodes."""
    values, episode, group = steps_of_episodes()
    one = bootstrap_means(values, episode, group, 3)
    ten = bootstrap_means(np.repeat(values, 10, 0), np.repeat(episode, 10), np.repeat(group, 10), 3)
    np.testing.assert_allclose([ten.low, ten.high], [one.low, one.high])
    assert (ten.steps == 10 * one.steps).all()


def test_an_interval_of_single_steps_is_that_of_theory():
    values = np.random.default_rng(1).normal(3, 2, (400, 1))
    means = bootstrap_means(values, np.arange(400))
    half = 1.96 * values.std() / np.sqrt(400)
    assert means.low[0, 0] == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert means.high[0, 0] == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_most_intervals_hold_the_true_mean():
    held = 0
    for seed in range(100):
        values, episode, _ = steps_of_episodes(40, seed=seed)
        means = bootstrap_means(values[:, :1], episode)
        held += bool(means.low[0, 0] <= 0 <= means.high[0, 0])
    assert 88 <= held <= 99


def test_of_few_episodes_there_is_no_interval():
    episode = np.repeat(np.arange(MIN_EPISODES + 1), 2)
    group = np.where(episode == 0, 0, 1)
    values = np.arange(len(episode), dtype=float)[:, None]
    means = bootstrap_means(values, episode, group, 3)  # 1 episode, 5, and none
    assert means.episodes.tolist() == [1, MIN_EPISODES, 0]
    assert np.isfinite(means.low[:, 0]).tolist() == [False, True, False] == np.isfinite(means.high[:, 0]).tolist()
    np.testing.assert_allclose(means.mean[:, 0], [0.5, values[2:].mean(), np.nan])
    assert means.numbers(1, 0, "weight") == {
        "weight": values[2:].mean(),
        "low": means.low[1, 0],
        "high": means.high[1, 0],
        "steps": 10,
        "episodes": 5,
    }


def test_layers_and_shares_are_means():
    values, episode, group = steps_of_episodes()
    first, second = bootstrap_layers([values[:, :1], values[:, 1:]], episode, group, 3)
    both = bootstrap_means(values, episode, group, 3)
    np.testing.assert_array_equal(np.hstack([first.low, second.low]), both.low)
    shares = bootstrap_shares(group, 2, episode)  # the last group is of none of the kinds
    np.testing.assert_allclose(shares.mean[0], [(group == 0).mean(), (group == 1).mean()])
    assert (shares.low < shares.mean).all() and (shares.mean < shares.high).all()


def test_draws_are_the_same_each_time_and_keep_the_number_of_episodes():
    drawn = resample(np.stack([np.ones(7), np.arange(7.0)], axis=1))
    assert drawn.shape == (NUM_RESAMPLES, 2) and (drawn[:, 0] == 7).all() and np.ptp(drawn[:, 1]) > 10
    np.testing.assert_array_equal(drawn, resample(np.stack([np.ones(7), np.arange(7.0)], axis=1)))


def test_bounds_are_quantiles_of_what_is_known():
    samples = np.random.default_rng(2).normal(size=(50, 4))
    samples[:20, 1] = samples[1:, 2] = np.nan
    samples[:, 3] = np.nan
    expected = np.nanquantile(samples[:, :3], [0.025, 0.975], axis=0)
    np.testing.assert_allclose(bounds(samples), np.column_stack([expected, [np.nan, np.nan]]))
