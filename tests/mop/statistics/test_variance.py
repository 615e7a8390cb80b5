"""What is of the task and what of the seed: published examples, and what must hold."""

import numpy as np
import pytest

from mop.statistics.intervals import rank_correlation
from mop.statistics.variance import intraclass_correlation

# six targets, four judges each: table 2 of Shrout and Fleiss 1979
SHROUT = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float)


def test_intraclass_correlation_of_a_published_example():
    assert intraclass_correlation(SHROUT) == pytest.approx((0.166, -0.133, 0.723), abs=5e-4)


def test_intraclass_correlation_at_its_ends():
    assert intraclass_correlation(np.array([[1.0, 1, 1], [2, 2, 2]])) == (1.0, 1.0, 1.0)
    assert np.isnan(intraclass_correlation(np.ones((3, 3)))).all()
    same = intraclass_correlation(np.array([[1.0, 3], [3, 1], [1, 3]]))
    assert same[0] == pytest.approx(-1.0), "no difference between tasks, all between seeds: -1 / (K - 1)"
    for shape in ((1, 3), (3, 1)):
        with pytest.raises(ValueError, match="seeds"):
            intraclass_correlation(np.zeros(shape))


def test_the_interval_holds_the_true_share_in_95_percent_of_samples():
    rng, truth, num_held, num_samples = np.random.default_rng(0), 0.6, 0, 2000
    for _ in range(num_samples):
        values = np.sqrt(truth) * rng.normal(size=(12, 1)) + np.sqrt(1 - truth) * rng.normal(size=(12, 3))
        _, low, high = intraclass_correlation(values)
        num_held += low <= truth <= high
    assert 0.93 < num_held / num_samples < 0.97


def test_rank_correlation():
    numbers = np.arange(10.0)
    assert rank_correlation(numbers, np.exp(numbers))[0] == pytest.approx(1.0)
    assert rank_correlation(numbers, -numbers)[0] == pytest.approx(-1.0)
    rho, low, high = rank_correlation(np.array([1, 2, 3, 4, 5.0]), np.array([2, 1, 4, 3, 5.0]))
    assert rho == pytest.approx(0.8) and low < rho < high < 1  # 1 - 6 * 4 / (5 * 24)
    assert low == pytest.approx(np.tanh(np.arctanh(0.8) - 1.959964 * np.sqrt(1.32 / 2)), abs=1e-6)
    assert np.isnan(rank_correlation(numbers, np.ones(10))).all()
