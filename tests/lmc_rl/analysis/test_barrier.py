"""What is lost on a line: calibrated on flat paths, right on planted bumps, the same from both ends."""

import numpy as np
import pytest

from lmc_rl.analysis.barrier import (
    Estimate,
    Profile,
    drops_below_chord,
    drops_below_ends,
    largest_drop,
    over_parents,
    verdict,
)
from lmc_rl.analysis.report import summary_of_returns
from lmc_rl.analysis.results import LineResult, Pooled, pool

PLACES = np.linspace(0, 1, 21)
NUM_TRIALS = 200


def result(returns: np.ndarray, random_return: float = 0.0, tolerance: float = 0.05) -> Profile:
    """Of returns (E, A) of one pair."""
    return Profile(PLACES, returns[None], random_return, tolerance)


def line(profile: Profile) -> LineResult:
    """Of all weights between the children of a fork."""
    return LineResult("fork", 2, 0.3, "all", False, ((1, 2),), PLACES, {"return": profile}, {}, (None,))


def pooled(*profiles: Profile) -> Pooled:
    """Of several parents."""
    return pool([line(profile) for profile in profiles])


def noise(rng, shared: float, num_episodes: int = 50) -> np.ndarray:
    """Returns of episodes around 9,000; the share of the variance that a world gives to all places."""
    parts = rng.normal(size=(num_episodes, 1)), rng.normal(size=(num_episodes, PLACES.size))
    return 9000 + 900 * (np.sqrt(shared) * parts[0] + np.sqrt(1 - shared) * parts[1])


def bump(height: float, width: float = 0.15) -> np.ndarray:
    """A drop (A,) in the middle."""
    return height * np.exp(-(((PLACES - 0.5) / width) ** 2))


def test_drops_by_hand():
    returns = np.array([[10.0, 4.0, 6.0], [0.0, 1.0, 2.0]])
    places = np.array([0.0, 0.5, 1.0])
    assert drops_below_chord(returns, places).tolist() == [[0, 4, 0], [0, 0, 0]]
    assert drops_below_ends(returns).tolist() == [[-2, 4, 2], [1, 0, -1]]


@pytest.mark.parametrize(("shared", "num_episodes"), [(0.0, 50), (0.7, 50), (0.0, 16), (0.3, 5)])
def test_a_flat_path_has_no_barrier_in_at_least_95_percent(shared, num_episodes):
    """However small the tolerance is. The maximum of the means is nearly always above 0, the estimate 0 on average."""
    rng = np.random.default_rng(1)
    said, positive, values, naive = [], 0, [], []
    for _ in range(NUM_TRIALS):
        drops = drops_below_chord(noise(rng, shared, num_episodes), PLACES)
        found = largest_drop(drops)
        said.append(verdict(found.over(9000), 1e-9))
        positive += found.low > 0
        values.append(found.unclipped)
        naive.append(drops.mean(axis=0).max())
    assert said.count("barrier") == positive <= 0.05 * NUM_TRIALS
    assert np.mean(np.array(naive) > 0) > 0.95 and abs(np.mean(values)) < 0.15 * np.mean(naive)


@pytest.mark.parametrize(("num_episodes", "width"), [(50, 0.15), (16, 0.15), (16, 0.05)])
def test_a_planted_bump_is_found_with_its_height(num_episodes, width):
    rng = np.random.default_rng(2)
    found = [result(noise(rng, 0.3, num_episodes) - bump(3000, width)) for _ in range(NUM_TRIALS)]
    is_covered = [one.barrier.low <= 3000 <= one.barrier.high for one in found]
    assert len(is_covered) == NUM_TRIALS and sum(is_covered) >= 0.95 * NUM_TRIALS
    assert {one.verdict for one in found} == {"barrier"}
    assert np.mean([one.barrier.value for one in found]) == pytest.approx(3000, rel=0.05)
    assert np.mean([one.barrier.high - one.barrier.low for one in found]) < 9 * 900 / np.sqrt(num_episodes)


def test_noise_far_from_the_maximum_does_not_matter():
    """Nearly everything is lost in the middle for sure, and nobody knows what is lost at another place."""
    rng = np.random.default_rng(4)
    returns = 9000 + rng.normal(0, 10, (16, PLACES.size)) - bump(8900)
    returns[:, 16] = np.where(np.arange(16) % 2, 9000.0, 300.0)
    found = result(returns).barrier
    assert found.value == pytest.approx(8900, abs=10)
    assert found.low == pytest.approx(8900, abs=20) and found.high == pytest.approx(8900, abs=20)


def test_the_barrier_is_the_same_from_both_ends():
    """Also of successes, where several places are equally bad."""
    rng = np.random.default_rng(3)
    returns = noise(rng, 0.3) - 2000 * PLACES * (1 - PLACES) ** 2
    successes = (rng.random((40, PLACES.size)) < 1 - 0.3 * np.sin(np.pi * PLACES)).astype(float)
    for path in (returns, successes):
        one, other = result(path).barrier, result(path[:, ::-1]).barrier
        assert one.low < one.value < one.high
        assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high), rel=1e-9)


def test_unequal_ends_on_a_straight_line_are_unstable_and_have_no_barrier():
    """Frankle's instability is at least half of the difference of the ends; the chord barrier is 0."""
    straight = np.tile(1000 + 500 * PLACES, (20, 1))
    found = result(straight)
    assert found.barrier.value == pytest.approx(0, abs=1e-6) and found.barrier.high == pytest.approx(0, abs=1e-6)
    assert found.instability.value == pytest.approx(250) and found.verdict == "connected"


def test_negative_returns_are_normalised_by_what_was_learned():
    """From -60 at random to -4: a drop of 14 is a quarter of what was learned."""
    returns = np.tile(-4 - 14 * np.sin(np.pi * PLACES), (20, 1))
    found = result(returns, random_return=-60)
    assert found.scale == pytest.approx(56) and found.barrier.over(found.scale).value == pytest.approx(0.25)
    assert found.verdict == "barrier"
    hopeless = result(returns, random_return=-3)
    assert np.isnan(hopeless.barrier.over(hopeless.scale).value) and hopeless.verdict == "undecided"


def test_a_policy_and_itself_have_a_barrier_of_exactly_0():
    same = np.tile(9000 + np.random.default_rng(0).normal(size=(12, 1)), PLACES.size)
    found = result(same, random_return=-10).barrier
    assert (found.value, found.low, found.high) == (0, 0, 0)


def test_several_pairs_of_children_are_averaged():
    returns = np.stack([np.tile(9000 - height * np.sin(np.pi * PLACES), (10, 1)) for height in (1000, 3000)])
    assert largest_drop(drops_below_chord(returns, PLACES)).value == pytest.approx(2000)


def test_parents_are_the_unit_of_the_interval():
    found = over_parents([Estimate(value, value, value) for value in (0.1, 0.2, 0.6)])
    half = 4.303 * np.std([0.1, 0.2, 0.6], ddof=1) / np.sqrt(3)
    assert (found.value, found.low, found.high) == pytest.approx((0.3, 0, 0.3 + half), rel=1e-4)
    alone = Estimate(0.1, 0.05, 0.2)
    assert over_parents([alone]) is alone
    many = over_parents([Estimate(float(k % 2), 0.4, 0.6) for k in range(40)])
    assert many.high - 0.5 == pytest.approx(2.0227 * np.std([0, 1] * 20, ddof=1) / np.sqrt(40), rel=1e-4)


@pytest.mark.parametrize(
    ("low", "high", "says"),
    [(0.06, 0.2, "barrier"), (0.0, 0.04, "connected"), (0.04, 0.06, "undecided"), (np.nan, np.nan, "undecided")],
)
def test_verdicts(low, high, says):
    assert verdict(Estimate((low + high) / 2, low, high), 0.05) == says


def test_parents_that_agree_know_no_more_than_their_episodes():
    found = over_parents([Estimate(0.0, 0.0, 0.2), Estimate(-0.01, 0.0, 0.1), Estimate(0.01, 0.0, 0.3)])
    assert (found.value, found.low, found.high) == pytest.approx((0, 0, 0.2)) and verdict(found, 0.05) == "undecided"
    found = over_parents([Estimate(-0.3, 0.0, 0.1), Estimate(0.1, 0.0, 0.2)])
    assert found.unclipped == pytest.approx(-0.1) and found.value == found.low == 0
    lost = over_parents([Estimate(0.1, 0.0, 0.2), Estimate(np.nan, np.nan, np.nan)])
    assert np.isnan([lost.value, lost.low, lost.high]).all() and verdict(lost, 0.05) == "undecided"


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.0, 0.5])
def test_pooled_parents_are_calibrated_under_noise(spread):
    """Three parents of 16 episodes, 150 times: flat ones, and bumps of 6 % where 5 % are tolerated.

    spread: of the heights between the parents, a share of the mean.
    """
    rng, height, num_trials = np.random.default_rng(6), 0.06 * 9000, 150
    flat, bumps = [], []
    for _ in range(num_trials):
        flat.append(pooled(*(result(noise(rng, 0.3, 16), tolerance=1e-9) for _ in range(3))))
        heights = height * (1 + spread * rng.uniform(-1, 1, 3))
        bumps.append(pooled(*(result(noise(rng, 0.3, 16) - bump(own)) for own in heights)))
    is_covered = [one.barrier.low <= 0.06 <= one.barrier.high for one in bumps]
    assert len(is_covered) == num_trials and sum(is_covered) >= 0.95 * num_trials
    assert sum(one.verdict == "connected" for one in bumps) <= 0.05 * num_trials
    assert sum(one.verdict == "barrier" for one in flat) <= 0.05 * num_trials
    assert abs(np.mean([one.barrier.unclipped for one in flat])) < 0.004


def test_the_summary_is_plain_and_whole():
    returns = np.tile(9000 - 900 * np.sin(np.pi * PLACES), (10, 1))
    made = summary_of_returns(line(result(returns, random_return=50.0)))
    assert made["fork_id"] == 2 and made["fork_point"] == 0.3 and made["is_stable"] is False
    assert made["paths"][0]["children"] == (1, 2) and len(made["paths"][0]["interpolation"]) == 21
    middle = made["paths"][0]["interpolation"][10]
    assert (middle["alpha"], middle["mean_return"], middle["std_return"]) == pytest.approx((0.5, 8100, 0))
    assert made["barrier"]["value"] == pytest.approx(900)


def test_the_drawn_band_is_students_t():
    """With five episodes it is 2.78 standard errors wide, not 1.96."""
    returns = np.random.default_rng(8).normal(size=(5, PLACES.size))
    mean, half = result(returns).mean_and_half()
    assert mean == pytest.approx(returns.mean(0))
    assert half == pytest.approx(2.7764 * returns.std(0, ddof=1) / np.sqrt(5), rel=1e-4)
