"""Router weights as numbers and as figures, by hand; cost and entropy against those that training computes."""

import math

import numpy as np
import pytest
import torch
from figure_contents import matrix_texts, texts
from routing_data import two_episodes, two_episodes_in_a_corridor

from mixture_of_experts import compute_lpc, routing_measures
from mop.base.errors import InputError
from mop.measures.groups import group_routing_data
from mop.measures.router_weights import (
    compute_layer_lpc,
    compute_router_entropy,
    mean_weights_by_distance,
    mean_weights_by_group,
)
from mop.plotting.router_weights import plot_routing_distributions, plot_routing_near_objects, plot_specialisation


@pytest.fixture
def data():
    return two_episodes_in_a_corridor()


# --- numbers --------------------------------------------------------------------------------------------------------


def test_lpc_of_a_layer():
    np.testing.assert_allclose(compute_layer_lpc([[1, 0, 0], [0, 0.5, 0.5]], [0, 16, 32]), [0, 640])


def test_entropy_in_nats():
    weights = [[1, 0, 0], [0.5, 0.5, 0], [1 / 3] * 3, [0.25, 0.25, 0.5]]
    expected = [0, math.log(2), math.log(3), 1.5 * math.log(2)]
    np.testing.assert_allclose(compute_router_entropy(weights), expected, atol=1e-12)


def test_weights_of_groups():
    data = two_episodes()
    groups = group_routing_data(data, "by_outcome")
    (means,) = mean_weights_by_group(data.steps, groups)
    np.testing.assert_allclose(means, [[0.15, 0.85], [0.8, 0.2]], atol=1e-6)


def test_weights_at_distances():
    weights = np.array([[0.2, 0.8], [0.4, 0.6], [1.0, 0.0], [0.5, 0.5]])
    counts, (means,) = mean_weights_by_distance(np.array([2, 2, 0, np.nan]), [weights])
    assert counts.tolist() == [1, 0, 2]
    np.testing.assert_allclose(means, [[1, 0], [np.nan, np.nan], [0.3, 0.7]])


def test_cost_and_entropy_are_those_of_training():
    """The same numbers as torch computes while it trains, on random weights of layers of different experts."""
    sizes, rng = [[0, 16, 32], [8], [24, 0]], np.random.default_rng(0)
    routing = [rng.dirichlet(np.full(len(of_layer), 0.3), (50, 4)) for of_layer in sizes]  # (T, N, E_l)
    tensors = [torch.from_numpy(weights) for weights in routing]
    layer_lpc = [compute_layer_lpc(weights, of_layer) for weights, of_layer in zip(routing, sizes, strict=True)]
    assert [values.shape for values in layer_lpc] == [(50, 4)] * 3
    np.testing.assert_allclose(sum(layer_lpc), compute_lpc(tensors, sizes), rtol=1e-12)
    measures = routing_measures(tensors, sizes)
    entropies = {f"router_entropy_{layer}": compute_router_entropy(routing[layer]).mean() for layer in (0, 2)}
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
    with pytest.raises(InputError, match="no distance to a door, key or target has 4 steps: evaluate more"):
        plot_routing_near_objects(data, min_steps=4)


def test_specialisation_is_a_matrix_with_counts(data):
    figure = plot_specialisation(data, ["by_action", "by_outcome"])
    actions, certain, outcomes, _ = figure.axes[:4]
    # forward: steps 0, 1, 2, 5; toggle: 3; left: 4
    assert texts(actions.get_yticklabels()) == ["turn left  (1)", "forward  (4)", "toggle  (1)"]
    np.testing.assert_allclose(actions.images[0].get_array(), [[0.6, 0.4], [0.325, 0.675], [0.3, 0.7]], atol=1e-6)
    assert matrix_texts(actions)[0] == ["0.60", "0.40"] and matrix_texts(certain) == [["1.00", "0.00"]] * 3
    assert texts(outcomes.get_yticklabels()) == ["success  (4)", "failure  (2)"]
    np.testing.assert_allclose(outcomes.images[0].get_array(), [[0.15, 0.85], [0.8, 0.2]], atol=1e-6)
    assert texts(outcomes.get_xticklabels()) == ["skip", "GRU 16"]
    assert all(image.get_clim() == (0, 1) for ax in figure.axes[:4] for image in ax.images)
    assert len(plot_specialisation(data).axes) == 2 * 3 + 1  # by action, carrying, outcome: no keys, no key phases
    with pytest.raises(InputError, match="no grouping 'by_moon'"):
        plot_specialisation(data, ["by_moon"])
