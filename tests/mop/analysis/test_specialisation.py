"""mop/analysis/consistency.py and distinctness.py: known answers, nulls, coverage."""

import numpy as np
import pytest

from mop.analysis.specialisation import distinctness, group_means, pathway_shares, step_correlation
from mop.statistics.information import effective_number, jensen_shannon_bits
from mop.statistics.intervals import mean_over_pairs
from mop.statistics.permutation import permute_within

NUM_STEPS, NUM_GATES = 3000, 6


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_equal_policies_agree_and_unrelated_ones_do_not(rng):
    weights, other = rng.random((2, NUM_STEPS, NUM_GATES))
    assert step_correlation(weights, weights) == pytest.approx(1.0)
    assert step_correlation(weights, -weights) == pytest.approx(-1.0)
    assert abs(step_correlation(weights, other)) < 0.05
    assert step_correlation(weights, other) == pytest.approx(step_correlation(other, weights))


def test_how_much_a_gate_is_used_is_no_agreement(rng):
    preference = np.linspace(0, 5, NUM_GATES)  # the same in both, and far larger than what varies
    first, second = rng.random((2, NUM_STEPS, NUM_GATES)) + preference
    assert abs(step_correlation(first, second)) < 0.05
    assert np.corrcoef(first.ravel(), second.ravel())[0, 1] > 0.9


def test_within_tasks_the_means_of_tasks_are_taken_out(rng):
    task = rng.integers(4, size=NUM_STEPS)
    of_task = 3 * rng.random((4, NUM_GATES))[task]
    first, second = rng.random((2, NUM_STEPS, NUM_GATES)) + of_task
    assert step_correlation(first, second) > 0.7
    assert abs(step_correlation(first, second, task)) < 0.05
    assert step_correlation(group_means(first, task), group_means(second, task)) > 0.95


def test_planted_correlation_is_found(rng):
    shared, first, second = rng.normal(size=(3, 20_000, NUM_GATES))
    found = step_correlation(shared + first, shared + second)
    assert found == pytest.approx(0.5, abs=0.02)


def test_patterns_by_hand():
    weights, task = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]), np.array([0, 0, 1])
    means = group_means(weights, task)
    assert means.tolist() == [[0.5, 0.5], [0.5, 0.5]]
    assert np.isnan(step_correlation(means, means))  # the tasks do not differ
    assert np.isnan(step_correlation(np.ones((5, 2)), weights[[0, 1, 2, 0, 1]]))  # nothing varies


def test_shuffling_in_time_keeps_each_episode_and_breaks_the_order(rng):
    episode = np.repeat(np.arange(30), 100)
    weights = rng.random((NUM_STEPS, NUM_GATES))
    mixed = permute_within(weights, episode, rng)
    for number in range(30):
        mine = episode == number
        assert sorted(map(tuple, mixed[mine])) == sorted(map(tuple, weights[mine]))
    assert abs(step_correlation(weights, mixed)) < 0.05


def test_pairs_by_hand():
    pairs = np.array([[9, 0.1, 0.2], [9, 9, 0.6], [9, 9, 9]])
    mean, low, high = mean_over_pairs(pairs)
    assert mean == pytest.approx(0.3) and low < mean < high
    assert mean_over_pairs(pairs[:2, :2])[0] == pytest.approx(0.1)
    assert np.isnan(mean_over_pairs(pairs[:2, :2])[1])
    assert mean_over_pairs(np.full((4, 4), 0.25)) == pytest.approx((0.25, 0.25, 0.25))


def test_the_interval_over_pairs_covers():
    """Policies are a shared part and a part of their own, so every pair correlates by the share of the first."""
    rng, covered = np.random.default_rng(1), 0
    for _ in range(200):
        shared, own = rng.normal(size=40), rng.normal(size=(5, 40))
        policies = shared + own
        pairs = policies @ policies.T / 40  # the mean over pairs is 1 in expectation
        _, low, high = mean_over_pairs(pairs)
        covered += low <= np.square(shared).mean() <= high
    assert 180 <= covered <= 200


def test_divergence_by_hand():
    apart, alike = np.eye(4), np.full((4, 4), 0.25)
    assert jensen_shannon_bits(apart) == pytest.approx(2.0) and jensen_shannon_bits(alike) == pytest.approx(0.0)
    assert jensen_shannon_bits(np.vstack([apart, np.full((1, 4), np.nan)])) == pytest.approx(2.0)
    assert effective_number(alike).tolist() == [4.0] * 4 and effective_number(apart).tolist() == [1.0] * 4
    shares = pathway_shares(np.array([0, 0, 1]), np.array([0, 0, 2]), 2, 3)
    assert shares[[0, 2]].tolist() == [[1.0, 0.0], [0.0, 1.0]] and np.isnan(shares[1]).all()


def test_tasks_with_pathways_of_their_own_are_distinct_and_others_are_not(rng):
    episode = np.repeat(np.arange(120), 20)
    task = episode % 4
    found = distinctness(task, task, episode)
    assert found.bits == pytest.approx(2.0) == found.most_bits and found.null_high < 0.3
    inside = 0
    for _ in range(40):  # what depends on the episode alone is not taken for the task
        by_chance = rng.integers(3, size=120)[episode]
        found = distinctness(by_chance, task, episode)
        inside += found.null_low <= found.bits <= found.null_high
    assert inside >= 34


def test_subgoals_change_within_an_episode(rng):
    episode = np.repeat(np.arange(60), 30)
    subgoal = np.tile(np.repeat([0, 1, 2], 10), 60)
    noise = rng.integers(3, size=len(episode))
    by_subgoal = distinctness(subgoal, subgoal, episode)
    assert by_subgoal.bits == pytest.approx(np.log2(3))
    found = distinctness(noise, subgoal, episode)
    assert found.bits < 0.02


def test_what_is_particular_to_a_task_is_not_taken_for_its_subgoals(rng):
    """Each task has sub-goals of its own, and its pathways depend on nothing else than the task."""
    episode = np.repeat(np.arange(80), 20)
    task = episode % 4
    subgoal = 2 * task + np.tile(np.repeat([0, 1], 10), 80)
    pathway = 3 * task + rng.integers(3, size=len(task))
    apart, across = (distinctness(pathway, subgoal, episode, within=tasks) for tasks in (task, None))
    assert apart.bits == across.bits > 1.9 and apart.null_bits == pytest.approx(apart.bits, abs=0.02)
    assert across.null_bits < 0.5
    by_subgoal = distinctness(subgoal, subgoal, episode, within=task)  # handed on, the episodes of a task are the same
    assert by_subgoal.bits == pytest.approx(3.0) == by_subgoal.null_bits
    moved = np.where(np.repeat(rng.random(80) < 0.5, 20), subgoal, subgoal ^ 1)
    assert distinctness(moved, moved, episode, within=task).null_bits < 2.6
