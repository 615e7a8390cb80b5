"""Pathways, as numbers and as a figure, by hand and against a plain loop."""

import numpy as np
import pytest
from figure_contents import matrix_texts, texts
from routing_data import make_data, make_steps, random_data, two_episodes_in_a_corridor

from mop.analysis.routing import compute_pathways
from mop.plotting.bars import plot_pathways
from mop.plotting.hover import values_of


@pytest.fixture
def data():
    return two_episodes_in_a_corridor()


def test_pathways_counts_and_transitions_by_hand():
    first, second = np.eye(2)[[1, 1, 0, 1, 0, 0]], np.eye(3)[[2, 2, 0, 2, 0, 1]]
    steps = make_steps(np.ones((6, 2)), first, second, episode=[0, 0, 0, 1, 1, 1], t_step=[0, 1, 2, 0, 1, 2])
    pathways = compute_pathways(make_data(steps, [{}, {}]))
    assert pathways.experts.tolist() == [[1, 2], [0, 0], [0, 1]] and pathways.counts.tolist() == [3, 2, 1]
    assert pathways.index.tolist() == [0, 0, 1, 0, 1, 2]
    # 0 -> 0 and 0 -> 1 in the first episode, 0 -> 1 and 1 -> 2 in the second; none from the first into the second
    assert pathways.transitions.tolist() == [[1, 2, 0], [0, 0, 1], [0, 0, 0]]


def test_a_plain_loop_over_steps_agrees():
    data = random_data()
    steps, pathways = data.steps, compute_pathways(data)
    experts = np.stack([weights.argmax(1) for weights in steps.layer_routing], axis=1)
    np.testing.assert_array_equal(pathways.experts[pathways.index], experts)
    expected = np.zeros_like(pathways.transitions)
    for k in range(len(steps) - 1):
        if steps.episode[k] == steps.episode[k + 1]:
            expected[pathways.index[k], pathways.index[k + 1]] += 1
    np.testing.assert_array_equal(pathways.transitions, expected)


def test_pathways_are_named_by_sizes(data):
    bars, matrix = plot_pathways(data).axes
    # the first layer takes 16 in steps 0 to 3 and skip in 4 and 5; the second always skip
    assert texts(bars.get_yticklabels()) == ["16 › skip", "skip › skip"]
    np.testing.assert_allclose([bar.get_width() for bar in bars.patches], [4 / 6, 2 / 6])
    assert texts(bars.texts) == [" 66.7% (4)", " 33.3% (2)"]
    assert matrix_texts(matrix) == [["100", ""], ["", "100"]]
    assert bars.get_title() == "2 of 2 pathways, 100.0% of the steps"
    assert plot_pathways(data, max_pathways=1).axes[0].get_title() == "1 of 2 pathways, 66.7% of the steps"


def test_shares_of_pathways_have_intervals():
    data = random_data()
    figure = plot_pathways(data, max_pathways=3)
    rows = values_of(figure)
    pathways = compute_pathways(data)
    shares = [row for row in rows if "pathway" in row]
    np.testing.assert_allclose([row["share"] for row in shares], pathways.counts[:3] / len(data.steps))
    assert all(row["low"] < row["share"] < row["high"] and row["episodes"] == 30 for row in shares)
    (whiskers,) = figure.axes[0].containers[1].lines[2]
    np.testing.assert_allclose(
        [segment[:, 0] for segment in whiskers.get_segments()], [[row["low"], row["high"]] for row in shares]
    )
    follows = [row for row in rows if "from" in row]
    assert [row["steps"] for row in follows] == pathways.transitions[:3, :3].ravel().tolist()
