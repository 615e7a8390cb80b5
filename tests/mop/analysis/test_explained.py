"""Variance explained: by hand, against a plain loop, on noise, and as a figure."""

import numpy as np
import pytest
from checks import refusal
from figure_contents import texts
from routing_data import make_data, make_steps, random_data, two_episodes, two_episodes_in_a_corridor

from mop.analysis.actions import hold_action
from mop.analysis.explained import (
    TIME_BINS,
    compute_layer_costs,
    explain_beyond,
    explain_variance,
    gate_values,
    index_factors,
)
from mop.plotting.bars import plot_variance_explained
from mop.plotting.hover import values_of


def by_factors(explained):
    return {found.factors: found for found in explained}


def test_two_episodes_by_hand():
    steps = make_steps(np.ones((4, 2)), np.ones((4, 1)), episode=[0, 0, 1, 1], action=[0, 2, 0, 2])
    (found,) = explain_variance(make_data(steps, [{}, {}]), np.array([[1.0], [5.0], [3.0], [5.0]]))
    assert np.isnan(found.low).all()  # too few episodes for an interval
    assert found.factors == ("action",) and found.group_steps.tolist() == [2, 2] and found.unseen == 0
    # the other episode's mean of the action predicts 3, 5, 1, 5: errors 4, 0, 4, 0. Its mean of all steps predicts
    # 4, 4, 3, 3: errors 9, 1, 0, 4
    assert found.r2 == pytest.approx([1 - 8 / 14])
    # the mean is 3.5, and those of the actions 2 and 5: between them 4 x 1.5^2 of 6.25 + 2.25 + 0.25 + 2.25
    assert found.in_sample == pytest.approx([9 / 11])


def test_a_group_of_one_episode_is_predicted_by_the_mean_of_the_others():
    steps = make_steps(np.ones((4, 2)), np.ones((4, 1)), episode=[0, 0, 1, 1], action=[0, 1, 0, 2])
    (found,) = explain_variance(make_data(steps, [{}, {}]), np.array([[1.0], [5.0], [3.0], [5.0]]))
    # action 0: 3 for 1, 1 for 3; actions 1 and 2 are in no other episode: 4 for 5, 3 for 5
    assert found.r2 == pytest.approx([1 - (4 + 4 + 1 + 4) / 14]) and found.unseen == 0.5


def test_a_plain_loop_agrees():
    data = random_data(8)
    steps, (names, values) = data.steps, compute_layer_costs(data)
    assert names == ["LPC", "LPC of layer 0", "LPC of layer 1", "LPC of layer 2"]
    found = by_factors(explain_variance(data, values))[("action", "key phase")]
    factors = index_factors(data)
    groups = list(zip(factors["action"], factors["key phase"], strict=True))
    errors, null, unseen = np.zeros(4), np.zeros(4), 0
    for k, group in enumerate(groups):
        elsewhere = steps.episode != steps.episode[k]
        same = elsewhere & np.array([other == group for other in groups])
        unseen += not same.any()
        errors += (values[k] - values[same if same.any() else elsewhere].mean(0)) ** 2
        null += (values[k] - values[elsewhere].mean(0)) ** 2
    np.testing.assert_allclose(found.r2, 1 - errors / null)
    assert found.unseen == unseen / len(groups) and (found.low <= found.r2).all() and (found.r2 <= found.high).all()


def test_noise_is_not_explained_and_a_rule_is():
    """Many groups explain noise in sample, not out of episode; what follows from the action, it explains alone."""
    data = random_data(60)
    noise = np.random.default_rng(5).normal(size=(len(data.steps), 1))
    found = by_factors(explain_variance(data, noise))
    every = found[("cell", "action", "key phase", "time since start")]
    assert every.in_sample[0] > 0.5 and every.r2[0] < 0.02
    assert abs(found[("action",)].r2[0]) < 0.02 and found[("action",)].low[0] < 0.01
    rule = np.square(data.steps.action.astype(float))[:, None]
    found = by_factors(explain_variance(data, rule))
    assert found[("action",)].r2 == pytest.approx([1]) and found[("cell",)].r2[0] < 0.05
    half = rule + rule.std() * noise
    (r2,) = by_factors(explain_variance(data, half))[("action",)].r2
    assert r2 == pytest.approx(0.5, abs=0.06)


def test_the_share_of_endless_data_lies_between():
    """35 groups in 40 episodes of 10 steps: out of episode the share is underestimated, in sample overestimated."""
    rng, scores = np.random.default_rng(7), []
    means = rng.normal(size=7)
    truth = means.var() / (means.var() + 1)
    for _ in range(40):
        action, cell = rng.integers(7, size=400), rng.integers(5, size=400)  # the cell explains nothing
        steps = make_steps(
            np.stack([cell, cell], 1), np.ones((400, 1)), episode=np.repeat(np.arange(40), 10), action=action
        )
        cost = (means[action] + rng.normal(size=400))[:, None]
        found = by_factors(explain_variance(make_data(steps, [{}] * 40), cost))[("cell", "action")]
        scores.append([found.r2[0], found.in_sample[0]])
    r2, eta_squared = np.mean(scores, axis=0)
    assert truth - 0.1 < r2 < truth - 0.01 and truth + 0.01 < eta_squared < truth + 0.1


def test_factors_are_those_that_the_data_has():
    data = random_data()
    factors = index_factors(data)
    assert list(factors) == ["cell", "action", "key phase", "time since start"]
    chosen = np.searchsorted(TIME_BINS, data.steps.t_step, side="right") - 1
    np.testing.assert_array_equal(factors["time since start"], chosen)
    in_bin = {t: factors["time since start"][data.steps.t_step == t][0] for t in (0, 1, 2, 3, 4, 7, 8)}
    assert in_bin == {0: 0, 1: 1, 2: 2, 3: 2, 4: 3, 7: 3, 8: 4}
    assert list(index_factors(two_episodes_in_a_corridor())) == ["cell", "action", "carrying phase", "time since start"]
    assert list(index_factors(two_episodes())) == ["action", "time since start"]  # one cell
    assert list(index_factors(hold_action(data, "forward"))) == ["cell", "key phase", "time since start"]
    assert len(explain_variance(data, data.steps.lpc[:, None])) == 4 + 6 + 1


def test_what_cannot_be_explained_is_said():
    data = random_data()
    data.header.pop("expert_hidden_sizes")
    for lpc in (np.full(len(data.steps), 3.0), np.full(len(data.steps), np.nan), None):
        data.steps.lpc = lpc
        refusal(compute_layer_costs, data)
    alone = random_data(1)
    refusal(explain_variance, alone, alone.steps.lpc[:, None])
    refusal(explain_variance, data, np.ones((len(data.steps), 1)))


def test_the_figure_shows_the_numbers():
    data = random_data()
    figure = plot_variance_explained(data)
    _, values = compute_layer_costs(data)
    expected = by_factors(explain_variance(data, values))
    rows = values_of(figure)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["LPC", *(f"LPC of layer {n}" for n in range(3))]
    assert len(rows) == 4 * len(expected) == 44
    for cost in range(4):
        for row in rows[11 * cost : 11 * (cost + 1)]:
            found = expected[tuple(row["factors"].split(" × "))]
            assert (row["r2"], row["low"], row["high"]) == (found.r2[cost], found.low[cost], found.high[cost])
            assert row["groups"] == len(found.group_steps)
    alone = [row["r2"] for row in rows[:4]]
    assert alone == sorted(alone, reverse=True)  # the best first
    labels = texts(figure.axes[0].get_yticklabels())
    assert len(labels) == 11 and labels[-1] == "all together" and labels[0] == rows[0]["factors"]
    held = plot_variance_explained(hold_action(data, "forward"))
    assert "action: forward" in held.get_suptitle().replace("\n", " ")


def test_gates_are_the_weights_of_the_experts():
    data = random_data()
    names, values = gate_values(data)
    assert names[:3] == ["layer 0 skip", "layer 0 GRU 16", "layer 0 GRU 32"] and len(names) == 9
    np.testing.assert_array_equal(values[:, 4], data.steps.layer_routing[1][:, 1].astype(float))
    data.header["expert_hidden_sizes"] = [[0, 16, 16]] * 3
    assert gate_values(data)[0][:3] == ["layer 0 skip", "layer 0 GRU 16a", "layer 0 GRU 16b"]
    data.header.pop("expert_hidden_sizes")
    data.steps.layer_routing[0][:] = 1 / 3
    assert gate_values(data)[0][0] == "layer 1 expert 0", "what never changes is left out"
    data.steps.layer_routing = [data.steps.layer_routing[0]]
    assert "gate" in refusal(gate_values, data)


def test_a_phase_that_only_changes_the_actions_explains_nothing_beyond_them():
    """It explains much alone: the actions that are costly are taken in one of the phases."""
    data, rng = random_data(60), np.random.default_rng(3)
    carrying = data.steps.carrying
    data.steps.action = np.where(carrying == (rng.random(len(carrying)) < 0.9), 2, 0)
    cost = 100.0 * (data.steps.action == 2)[:, None] + rng.normal(size=(len(carrying), 1))
    found = by_factors(explain_variance(data, cost, "by_carrying"))
    assert found[("carrying phase",)].r2[0] > 0.5
    beyond = explain_beyond(data, cost, "carrying phase", ["action"], "by_carrying")
    assert (beyond.factor, beyond.held) == ("carrying phase", ("action",))
    assert abs(beyond.share[0]) < 0.01 and beyond.low[0] < 0.01
    # an effect of the phase itself, of the size of the noise: a half where phases are half of the steps of an action
    effect = cost + 2.0 * carrying[:, None]
    shares = [carrying[data.steps.action == action] for action in (0, 2)]
    between = sum(len(s) * 4 * s.mean() * (1 - s.mean()) for s in shares) / len(carrying)
    beyond = explain_beyond(data, effect, "carrying phase", ["action"], "by_carrying")
    assert beyond.share[0] == pytest.approx(between / (between + 1), abs=0.05)
    assert beyond.low[0] < beyond.share[0] < beyond.high[0]


def test_beyond_is_the_ratio_of_what_is_left():
    data = random_data(8)
    values = data.steps.lpc[:, None].astype(float)
    found = by_factors(explain_variance(data, values))
    beyond = explain_beyond(data, values, "key phase", ["action"])
    expected = 1 - (1 - found[("action", "key phase")].r2) / (1 - found[("action",)].r2)
    np.testing.assert_allclose(beyond.share, expected)
    rule = np.square(data.steps.action.astype(float))[:, None]
    assert np.isnan(explain_beyond(data, rule, "key phase", ["action"]).share[0]), "nothing is left"
    assert "smell" in refusal(explain_beyond, data, values, "smell", ["action"])
