"""Actions: counts, entropy, and their figure, by hand."""

import math

import numpy as np
import pytest
from figure_contents import texts
from routing_data import random_data, two_episodes, two_episodes_in_a_corridor

from mop.analysis.actions import compute_action_shares, compute_policy_entropy, hold_action
from mop.analysis.groups import group_routing_data
from mop.common.conventions import ACTION_NAMES
from mop.common.errors import InputError
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
    with pytest.raises(InputError, match="jump"):
        hold_action(data, "jump")
    with pytest.raises(InputError, match="7"):
        hold_action(data, 7)
    with pytest.raises(InputError, match="done"):
        hold_action(data, "done")
