"""Router weights as numbers and as figures, by hand; cost and entropy against those that training computes."""

import math

import numpy as np
import pytest
import torch
from figure_contents import matrix_texts, texts
from routing_data import make_data, make_steps, random_data, two_episodes, two_episodes_in_a_corridor

from mixture_of_experts import compute_lpc, routing_measures
from mop.analysis.groups import group_routing_data
from mop.analysis.routing import compute_layer_lpc, mean_weights_by_distance, mean_weights_by_group, undecided_experts
from mop.common.errors import InputError
from mop.plotting.bars import plot_routing_distributions, plot_routing_near_objects, plot_specialisation
from mop.plotting.hover import values_of
from mop.statistics.information import entropy_nats


@pytest.fixture
def data():
    return two_episodes_in_a_corridor()


# --- numbers --------------------------------------------------------------------------------------------------------


def test_lpc_of_a_layer():
    np.testing.assert_allclose(compute_layer_lpc([[1, 0, 0], [0, 0.5, 0.5]], [0, 16, 32]), [0, 640])


def test_entropy_in_nats():
    weights = [[1, 0, 0], [0.5, 0.5, 0], [1 / 3] * 3, [0.25, 0.25, 0.5]]
    expected = [0, math.log(2), math.log(3), 1.5 * math.log(2)]
    np.testing.assert_allclose(entropy_nats(weights), expected, atol=1e-12)


def test_weights_of_groups():
    data = two_episodes()
    groups = group_routing_data(data, "by_outcome")
    (means,) = mean_weights_by_group(data, groups)
    np.testing.assert_allclose(means.mean, [[0.15, 0.85], [0.8, 0.2]], atol=1e-6)


def test_weights_at_distances():
    data = make_data(make_steps(np.ones((4, 2)), [[0.2, 0.8], [0.4, 0.6], [1.0, 0.0], [0.5, 0.5]]))
    (means,) = mean_weights_by_distance(data, np.array([2, 2, 0, np.nan]))
    assert means.steps.tolist() == [1, 0, 2]
    np.testing.assert_allclose(means.mean, [[1, 0], [np.nan, np.nan], [0.3, 0.7]], atol=1e-6)
    with pytest.raises(InputError, match="distance"):
        mean_weights_by_distance(data, np.full(4, np.nan))


def test_experts_that_may_be_the_largest():
    """Twenty episodes of one step for each action; in the first, two experts lead by turns."""
    leads_by_turns = [[0.5, 0.4, 0.1], [0.4, 0.5, 0.1]] * 10
    clear, few = [[0.5, 0.4, 0.1], [0.6, 0.3, 0.1]] * 10, [[0.4, 0.3, 0.3]] * 4
    steps = make_steps(
        np.ones((44, 2)),
        leads_by_turns + clear + few,
        episode=[*range(20), *range(20), *range(4)],
        action=[0] * 20 + [1] * 20 + [2] * 4,
    )
    data = make_data(steps, [{}] * 20)
    (undecided,) = undecided_experts(data, group_routing_data(data, "by_action"))
    assert undecided.tolist() == [[True, True, False], [False] * 3, [False] * 3]
    figure = plot_specialisation(data, ["by_action"])
    assert matrix_texts(figure.axes[0]) == [
        ["≈0.45", "≈0.45", "0.10"],
        ["0.55", "0.35", "0.10"],
        ["0.40?", "0.30?", "0.30?"],
    ]
    title = figure.get_suptitle().replace("\n", " ")
    assert "≈ any of these may be the largest" in title and "? fewer than 5 episodes" in title
    assert [row["undecided"] for row in values_of(figure)][:4] == [True, True, False, False]


def test_cost_and_entropy_are_those_of_training():
    """The same numbers as torch computes while it trains, on random weights of layers of different experts."""
    sizes, rng = [[0, 16, 32], [8], [24, 0]], np.random.default_rng(0)
    routing = [rng.dirichlet(np.full(len(of_layer), 0.3), (50, 4)) for of_layer in sizes]  # (T, N, E_l)
    tensors = [torch.from_numpy(weights) for weights in routing]
    layer_lpc = [compute_layer_lpc(weights, of_layer) for weights, of_layer in zip(routing, sizes, strict=True)]
    assert [values.shape for values in layer_lpc] == [(50, 4)] * 3
    np.testing.assert_allclose(sum(layer_lpc), compute_lpc(tensors, sizes), rtol=1e-12)
    measures = routing_measures(tensors, sizes)
    entropies = {f"router_entropy_{layer}": entropy_nats(routing[layer]).mean() for layer in (0, 2)}
    assert entropies == pytest.approx({name: measures[name] for name in measures if "entropy" in name}, rel=1e-12)


# --- figures --------------------------------------------------------------------------------------------------------


def test_distributions_are_shares_of_the_steps(data):
    figure = plot_routing_distributions(data, num_bins=2)
    weights, _, entropy, certain = figure.axes
    values, edges, _ = weights.patches[0].get_data()
    np.testing.assert_allclose(values, [4 / 6, 2 / 6])  # below 0.5: 0, 0.1, 0.2, 0.3
    np.testing.assert_allclose(edges, [0, 0.5, 1])
    values, edges, _ = entropy.patches[0].get_data()
    np.testing.assert_allclose(edges, [0, np.log(2) / 2, np.log(2)])
    np.testing.assert_allclose(values, [3 / 6, 3 / 6])  # 0, 0.325, 0.500, 0.611, 0.673, 0 nats, the middle being 0.347
    np.testing.assert_allclose(certain.patches[0].get_data().values, [1, 0])
    assert certain.get_title(loc="left") == "layer 1: mean 0.00, at most 0.69"


def test_weights_against_the_walking_distance(data):
    figure = plot_routing_near_objects(data, min_steps=1)
    first, second, counts = figure.axes
    skip, gru = first.lines
    # cells 1 to 4 are 4 to 1 steps from the target at 5; in cell 1 are three steps, of weights 0, 0.6, 1
    assert skip.get_xdata().tolist() == [1, 2, 3, 4]
    np.testing.assert_allclose(skip.get_ydata(), [0.3, 0.2, 0.1, 1.6 / 3], atol=1e-6)
    np.testing.assert_allclose(gru.get_ydata(), 1 - skip.get_ydata(), atol=1e-6)
    np.testing.assert_allclose(second.lines[0].get_ydata(), 1)
    assert [bar.get_height() for bar in counts.patches] == [1, 1, 1, 3] and counts.get_xlabel() == "cells to the target"
    assert plot_routing_near_objects(data, min_steps=2).axes[0].lines[0].get_xdata().tolist() == [4]
    with pytest.raises(InputError, match="4 steps"):
        plot_routing_near_objects(data, min_steps=4)


def test_specialisation_is_a_matrix_with_counts(data):
    figure = plot_specialisation(data, ["by_action", "by_outcome"])
    actions, certain, outcomes, _ = figure.axes[:4]
    # forward: steps 0, 1, 2, 5; toggle: 3; left: 4
    assert texts(actions.get_yticklabels()) == ["turn left  (1)", "forward  (4)", "toggle  (1)"]
    np.testing.assert_allclose(actions.images[0].get_array(), [[0.6, 0.4], [0.325, 0.675], [0.3, 0.7]], atol=1e-6)
    assert matrix_texts(actions)[0] == ["0.60?", "0.40?"] and matrix_texts(certain) == [["1.00?", "0.00?"]] * 3
    assert texts(outcomes.get_yticklabels()) == ["success  (4)", "failure  (2)"]
    np.testing.assert_allclose(outcomes.images[0].get_array(), [[0.15, 0.85], [0.8, 0.2]], atol=1e-6)
    assert texts(outcomes.get_xticklabels()) == ["skip", "GRU 16"]
    assert all(image.get_clim() == (0, 1) for ax in figure.axes[:4] for image in ax.images)
    assert len(plot_specialisation(data).axes) == 2 * 3 + 1  # by action, carrying, outcome: no keys, no key phases
    with pytest.raises(InputError, match="by_moon"):
        plot_specialisation(data, ["by_moon"])


def test_figures_give_their_numbers():
    """What is saved beside a figure are the means that it draws, with their intervals."""
    data = random_data()
    groups = group_routing_data(data, "by_action")
    (row,) = [
        row
        for row in values_of(plot_specialisation(data))
        if (row["group"], row["layer"], row["expert"]) == ("forward", 1, "GRU 16")
    ]
    means = mean_weights_by_group(data, groups)[1]
    assert row["weight"] == means.mean[2, 1] == pytest.approx(data.steps.layer_routing[1][groups.mask(2), 1].mean())
    assert (row["low"], row["high"]) == (means.low[2, 1], means.high[2, 1]) and row["low"] < row["weight"] < row["high"]
    assert row["steps"] == groups.counts[2] and row["episodes"] == groups.num_episodes[2]

    figure = plot_routing_near_objects(data, min_steps=3)
    rows = [row for row in values_of(figure) if (row["object"], row["layer"]) == ("key", 0)]
    (line,) = [line for line in figure.axes[1].lines if line.get_label() == "skip (size 0)"]
    assert figure.axes[1].get_title(loc="left") == "layer 0, key"
    assert [row["distance"] for row in rows] == line.get_xdata().tolist()
    assert [row["skip"] for row in rows] == line.get_ydata().tolist()
    band = figure.axes[1].collections[0].get_paths()[0].vertices
    known = [row for row in rows if np.isfinite(row["skip low"])]
    assert {(row["distance"], row["skip low"]) for row in known} <= set(map(tuple, band.tolist())) and len(known) > 3
    assert "bands: 95 % over episodes" in figure.get_suptitle().replace("\n", " ")

    rows = [row for row in values_of(plot_routing_distributions(data)) if row["layer"] == 2]
    assert sum(row["skip"] for row in rows if "weight from" in row) == pytest.approx(1)
    assert sum(row["share"] for row in rows if "entropy from" in row) == pytest.approx(1)
