"""Actions: counts, entropy, and their figure, by hand."""

import math

import numpy as np
import pytest
from figure_contents import texts
from routing_data import random_data, two_episodes, two_episodes_in_a_corridor

from mop.measures.actions import compute_policy_entropy, count_actions
from mop.measures.groups import group_routing_data
from mop.plotting.actions import plot_action_frequency


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
    assert count_actions(data, groups, 7).tolist() == expected


def test_actions_of_a_cache_that_has_logits_alone():
    data = two_episodes()
    groups = group_routing_data(data, "overall")
    expected = count_actions(data, groups, 7).tolist()
    data.steps.action_logits = np.eye(7)[data.steps.action] - 3
    data.steps.action = None
    assert count_actions(data, groups, 7).tolist() == expected == [[1, 0, 4, 0, 0, 1, 0]]
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
