"""Policy complexity: known answers, and what chance alone shows."""

import math

import numpy as np
import pytest

from mop.statistics.information import mutual_information

EPISODE = np.repeat(np.arange(40), 20)  # of 800 steps
SIMULATIONS = 60  # seeds 0 to 59 of numpy's default generator


def one_hot(action, num_actions=4):
    return np.eye(num_actions)[action]


def chain(rng, num_kinds: int, stay: float) -> np.ndarray:
    """800 steps of something that stays as it is with a probability, else is drawn anew; anew in each episode."""
    drawn = rng.integers(num_kinds, size=800)
    for step in range(1, 800):
        if EPISODE[step] == EPISODE[step - 1] and rng.random() < stay:
            drawn[step] = drawn[step - 1]
    return drawn


def test_a_function_of_the_state_has_all_information():
    state = np.random.default_rng(0).integers(10, size=800)
    found = mutual_information(one_hot(state % 4), state, EPISODE)
    shares = np.bincount(state % 4) / 800
    entropy = -(shares * np.log(shares)).sum()
    assert found.action_entropy_nats == pytest.approx(entropy)
    assert found.plug_in_nats == pytest.approx(entropy) and found.corrected_nats == pytest.approx(entropy)
    assert found.null_high < 0.1 * entropy and (found.num_states, found.num_steps) == (10, 800)


def test_an_uncertain_function_of_the_state_has_all_that_can_be():
    """As much as is not in the uncertainty of each step: H(P) minus the entropy of the rows."""
    rows = np.array([[0.9, 0.1], [0.1, 0.9]])
    state = np.arange(800) % 2
    found = mutual_information(rows[state], state, EPISODE)
    truth = math.log(2) + 0.9 * math.log(0.9) + 0.1 * math.log(0.1)
    assert found.plug_in_nats == pytest.approx(truth) and found.corrected_nats == pytest.approx(truth)


def test_actions_drawn_by_the_state_give_the_information_of_the_channel():
    rng = np.random.default_rng(1)
    state = rng.integers(2, size=800)
    action = np.where(rng.random(800) < 0.9, state, 1 - state)
    found = mutual_information(one_hot(action, 2), state, EPISODE)
    assert found.corrected_nats == pytest.approx(math.log(2) + 0.9 * math.log(0.9) + 0.1 * math.log(0.1), abs=0.05)


def plain_information(action: np.ndarray, state: np.ndarray) -> float:
    """I(S; A) of the shares of each pair, in nats."""
    joint = np.histogram2d(state, action, bins=(30, 4))[0] / len(state)
    expected = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    return float((joint[joint > 0] * np.log(joint[joint > 0] / expected[joint > 0])).sum())


@pytest.mark.parametrize("stay", [0.0, 0.8])
def test_independent_actions_give_nothing_beyond_chance(stay):
    """Also where neighbouring steps are alike, which a permutation of single steps takes for information."""
    inside, corrected, above_shuffled = 0, [], 0
    for seed in range(SIMULATIONS):
        rng = np.random.default_rng(seed)
        state, action = chain(rng, 30, stay), chain(rng, 4, stay)
        found = mutual_information(one_hot(action), state, EPISODE)
        assert found.plug_in_nats == pytest.approx(plain_information(action, state)) and found.plug_in_nats > 0.02
        inside += found.null_low <= found.plug_in_nats <= found.null_high
        corrected.append(found.corrected_nats)
        above_shuffled += found.plug_in_nats > plain_information(rng.permutation(action), state)
    assert inside >= 0.88 * SIMULATIONS, "95 % are expected"
    assert -0.03 < np.mean(corrected) < 0.005, "where steps are very alike, a little too much is taken for chance"
    assert (above_shuffled == SIMULATIONS) if stay else (0.3 < above_shuffled / SIMULATIONS < 0.7)


def test_what_has_no_information_or_no_answer():
    always = mutual_information(np.tile([0.0, 1.0], (800, 1)), np.arange(800) % 7, EPISODE)
    assert always.corrected_nats == always.plug_in_nats == always.action_entropy_nats == 0
    rng = np.random.default_rng(2)
    finest = mutual_information(one_hot(rng.integers(4, size=800)), np.arange(800), EPISODE)
    assert math.isnan(finest.corrected_nats), "a state for each step: everything looks like information"
    assert finest.plug_in_nats == pytest.approx(finest.null_nats, rel=0.01)
    same = [mutual_information(one_hot(np.arange(800) % 4), np.arange(800) % 9, EPISODE) for _ in range(2)]
    assert same[0] == same[1]
