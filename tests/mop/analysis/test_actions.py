"""Actions: counts, entropy, states, loops, and their figure, by hand."""

import math

import numpy as np
import pytest
from checks import refusal
from figure_contents import texts
from routing_data import make_data, make_steps, random_data, two_episodes, two_episodes_in_a_corridor

from mop.analysis.actions import (
    Loop,
    action_probabilities,
    compute_action_shares,
    compute_loops,
    compute_policy_entropy,
    find_loop,
    hold_action,
    index_states,
)
from mop.analysis.groups import group_routing_data
from mop.common.conventions import ACTION_NAMES
from mop.plotting.bars import plot_action_frequency
from mop.plotting.hover import values_of


def count_actions(data, groups):
    """How often each action was chosen in each group, (G, 7)."""
    shares = compute_action_shares(data, groups, 7)
    return np.rint(shares.mean * shares.steps[:, None])


def test_entropy_in_nats():
    weights = [[1, 0, 0], [0.5, 0.5, 0], [1 / 3] * 3, [0.25, 0.25, 0.5]]
    expected = [0, math.log(2), math.log(3), 1.5 * math.log(2)]
    logits = np.log(np.maximum(weights, 1e-300)) + 700  # the softmax does not see a constant
    np.testing.assert_allclose(compute_policy_entropy(logits), expected, atol=1e-12)
    np.testing.assert_allclose(compute_policy_entropy([[1e4, 0, 0]]), [0])


def test_actions_of_groups():
    data = two_episodes()
    groups = group_routing_data(data, "by_outcome")
    expected = [[0, 0, 3, 0, 0, 1, 0], [1, 0, 1, 0, 0, 0, 0]]
    assert count_actions(data, groups).tolist() == expected


def test_actions_of_a_cache_that_has_logits_alone():
    data = two_episodes()
    groups = group_routing_data(data, "overall")
    expected = count_actions(data, groups).tolist()
    data.steps.action_logits = np.eye(7)[data.steps.action] - 3
    data.steps.action = None
    assert count_actions(data, groups).tolist() == expected == [[1, 0, 4, 0, 0, 1, 0]]
    assert len(group_routing_data(data, "by_action")) == 3


def test_action_frequency_by_group():
    data = two_episodes_in_a_corridor()
    (ax,) = plot_action_frequency(data).axes
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([1 / 6, 0, 4 / 6, 0, 0, 1 / 6, 0])
    assert texts(ax.get_yticklabels())[2] == "forward" and texts(ax.texts)[2] == " 66.7% (4)"
    empty, holding = plot_action_frequency(data, "by_carrying").axes
    assert [ax.get_title(loc="left") for ax in (empty, holding)] == ["hands empty, 4 steps", "carrying, 2 steps"]
    assert [bar.get_width() for bar in holding.patches] == [0, 0, 0.5, 0, 0, 0.5, 0]
    figure = plot_action_frequency(random_data(), "by_door_location_and_box_row", max_groups=3)
    assert len(figure.axes) == 3 and "the largest 3 of 4 groups" in figure.get_suptitle().replace("\n", " ")


def test_shares_have_whiskers_and_give_their_numbers():
    data = random_data()
    groups = group_routing_data(data, "by_carrying")
    means = compute_action_shares(data, groups, 7)
    counts = [[(data.steps.action[groups.mask(group)] == action).sum() for action in range(7)] for group in (0, 1)]
    np.testing.assert_allclose(means.mean, np.array(counts) / groups.counts[:, None])
    figure = plot_action_frequency(data, "by_carrying")
    rows = values_of(figure)
    assert [row["action"] for row in rows] == list(ACTION_NAMES) * 2
    assert [row["share"] for row in rows] == means.mean.ravel().tolist()
    (whiskers,) = figure.axes[1].containers[1].lines[2]
    ends = [segment[:, 0].tolist() for segment in whiskers.get_segments()]
    np.testing.assert_allclose(ends, np.stack([means.low[1], means.high[1]], axis=1))
    assert all(low < share < high for (low, high), share in zip(ends, means.mean[1], strict=True))


def test_the_action_can_be_held():
    data = two_episodes()
    forward = hold_action(data, "forward")
    assert forward.steps.t_step.tolist() == [0, 1, 2, 1] and forward.steps.episode.tolist() == [0, 0, 0, 1]
    assert hold_action(data, 2).header == forward.header and forward.header["restricted_to"] == "action: forward"
    assert "jump" in refusal(hold_action, data, "jump")
    refusal(hold_action, data, 7)
    assert "done" in refusal(hold_action, data, "done")


LEFT, RIGHT, FORWARD = 0, 1, 2


def loop_of(actions, directions, cells=None):
    cells = [[1, 1]] * len(actions) if cells is None else cells
    return find_loop(np.array(cells), np.array(directions), np.array(actions))


def test_loops_by_hand():
    turning = [RIGHT, LEFT] * 3
    assert loop_of([FORWARD, *turning], [0, *[0, 1] * 3]) == Loop(1, 2)
    assert loop_of([FORWARD, *turning[:-1]], [0, *[0, 1] * 2, 0]) is None, "three rounds are not full"
    assert loop_of([*turning, FORWARD], [*[0, 1] * 3, 0]) is None, "the episode leaves the loop"
    assert loop_of([RIGHT] * 8, [0, 1, 2, 3] * 2) is None, "two rounds"
    assert loop_of([RIGHT] * 12, [0, 1, 2, 3] * 3) == Loop(0, 4)
    assert loop_of([FORWARD] * 4, [0] * 4, [[x, 1] for x in range(4)]) is None, "it goes on"
    assert loop_of([FORWARD] * 4, [0] * 4) == Loop(0, 1), "against a wall"
    around = [[x, 1] for x in range(80)]
    assert loop_of([FORWARD] * 250, [0] * 250, [[9, 9]] * 10 + around * 3) == Loop(10, 80), "around a maze"
    assert loop_of([], []) is None


def test_each_episode_has_its_own():
    steps = make_steps(
        np.ones((7, 2)),
        np.eye(2)[[0] * 7],
        episode=[0, 0, 0, 2, 2, 2, 2],
        t_step=[0, 1, 2, 0, 1, 2, 3],
        direction=[0, 0, 0, 1, 2, 2, 2],
        action=[FORWARD] * 7,
    )
    data = make_data(steps, [{}, {}, {}])
    assert compute_loops(data) == [Loop(0, 1), None, Loop(1, 1)]
    steps.t_step[5] = 1
    assert "episodes" in refusal(compute_loops, data)
    steps.direction = None
    assert "direction" in refusal(compute_loops, data)


def test_states_are_made_of_what_is_asked_for():
    data = random_data()
    cells = np.unique(data.steps.position, axis=0)
    assert len(np.unique(index_states(data, ["cell"]))) == len(cells)
    both = index_states(data, ["cell", "phase"], "by_carrying")
    expected = np.unique(np.column_stack([data.steps.position, data.steps.carrying]), axis=0)
    assert both.max() + 1 == len(expected)
    assert "smell" in refusal(index_states, data, ["smell"])
    assert "direction" in refusal(index_states, data, ["cell", "direction"])


def test_probabilities_are_the_softmax():
    logits = np.array([[0.0, math.log(3)], [1000.0, 0.0]])
    np.testing.assert_allclose(action_probabilities(logits), [[0.25, 0.75], [1, 0]])
