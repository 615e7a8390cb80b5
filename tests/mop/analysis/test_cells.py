"""Means over the cells of the grid, by hand and against a plain loop; the rectangle of cells to draw."""

import numpy as np
import pytest
from routing_data import make_data, make_steps, three_visits

from mop.analysis.cells import (
    aggregate_routing_by_position,
    compute_confidence,
    compute_grid_bounds,
    index_cells,
    rank_experts,
    visit_strength,
)
from mop.common.errors import InputError
from mop.plotting.maps import plot_overall_routing


@pytest.fixture
def steps():
    return three_visits()


def test_means_and_counts_of_two_cells_in_three_visits(steps):
    averaged = aggregate_routing_by_position(steps)
    assert averaged.cells.tolist() == [[4, 1], [2, 3]]  # reading order
    assert averaged.counts.tolist() == [2, 1] and averaged.num_steps == 3
    assert [weights.shape for weights in averaged.routing] == [(2, 3), (2, 2)]
    np.testing.assert_allclose(averaged.routing[0], [[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]], atol=1e-6)
    np.testing.assert_allclose(averaged.routing[1], [[0.5, 0.5], [0.25, 0.75]], atol=1e-6)
    np.testing.assert_allclose(averaged.lpc, [150, 700])


@pytest.mark.parametrize("as_function", [True, False])
def test_a_filter_is_a_mask_or_a_function_that_makes_one(steps, as_function):
    mask = np.array([True, False, False])
    averaged = aggregate_routing_by_position(steps, (lambda s: s.lpc < 150) if as_function else mask)
    assert averaged.cells.tolist() == [[4, 1]] and averaged.counts.tolist() == [1]
    np.testing.assert_allclose(averaged.routing[0], [[0.9, 0.1, 0.0]], atol=1e-6)
    np.testing.assert_allclose(averaged.lpc, [100])


@pytest.mark.parametrize("mask", [[0, 1, 1], [True, False], [[True], [True], [True]]])
def test_a_filter_that_is_no_boolean_mask_is_a_bug(steps, mask):
    with pytest.raises(ValueError, match=r"boolean mask \(3,\)"):
        aggregate_routing_by_position(steps, np.array(mask))


def test_equals_a_plain_loop_on_many_steps():
    rng = np.random.default_rng(0)
    position = rng.integers(-3, 19, size=(100_000, 2))
    weights = rng.dirichlet(np.ones(3), size=100_000)
    many = make_steps(position, weights, weights[:, ::-1], lpc=weights[:, 0])
    averaged = aggregate_routing_by_position(many)
    assert len(averaged.cells) == 22 * 22 and averaged.num_steps == 100_000
    for index in range(0, 22 * 22, 50):
        here = (position == averaged.cells[index]).all(1)
        assert averaged.counts[index] == here.sum()
        np.testing.assert_allclose(averaged.routing[0][index], weights[here].mean(0), atol=1e-6)
        np.testing.assert_allclose(averaged.routing[1][index], weights[here].mean(0)[::-1], atol=1e-6)
        np.testing.assert_allclose(averaged.lpc[index], weights[here, 0].mean(), atol=1e-6)


def test_unknown_lpc_is_left_out_of_the_mean(steps):
    steps.lpc[:2] = np.nan
    np.testing.assert_array_equal(aggregate_routing_by_position(steps).lpc, [200, np.nan])


def test_columns_that_the_data_lacks(steps):
    steps.lpc = None
    assert aggregate_routing_by_position(steps).lpc is None
    steps.layer_routing = None
    with pytest.raises(InputError, match="layer_routing"):
        plot_overall_routing(make_data(steps))
    steps.position = None
    with pytest.raises(InputError, match="position"):
        aggregate_routing_by_position(steps)


def test_empty_steps_are_one_clear_sentence(steps):
    empty = make_steps([], np.empty((0, 3)), lpc=[])
    for call in (
        lambda: aggregate_routing_by_position(empty),
        lambda: compute_grid_bounds(empty.position),
        lambda: plot_overall_routing(make_data(empty)),
    ):
        with pytest.raises(InputError, match="no steps"):
            call()
    with pytest.raises(InputError, match="filter"):
        aggregate_routing_by_position(steps, np.zeros(3, bool))


def test_weights_of_a_diverged_policy_name_the_layer(steps):
    steps.layer_routing[1][2] = np.nan
    with pytest.raises(InputError, match="layer 1"):
        aggregate_routing_by_position(steps)


def test_grid_bounds_of_positions_and_of_a_known_world(steps):
    visited = {"x_min": 2, "x_max": 4, "y_min": 1, "y_max": 3, "grid_width": 3, "grid_height": 3}
    assert compute_grid_bounds(steps.position) == visited
    world = {"x_min": 0, "x_max": 10, "y_min": 0, "y_max": 5, "grid_width": 11, "grid_height": 6}
    assert compute_grid_bounds(steps.position, (11, 6)) == world
    with pytest.raises(InputError, match="x 4, y 1"):
        compute_grid_bounds(steps.position, (4, 6))


def test_confidence_runs_from_one_in_e_to_one():
    np.testing.assert_allclose(compute_confidence([1 / 3, 2 / 3, 1], 3), [0, 0.5, 1])
    np.testing.assert_allclose(compute_confidence([0.5, 0.49999], 2), [0, 0])  # a rounded cache may be just below
    assert compute_confidence([1.0], 1).tolist() == [1]


def test_cells_and_means_of_any_values():
    cells = index_cells(np.array([[4, 1], [2, 3], [4, 1]]))
    assert cells.cells.tolist() == [[4, 1], [2, 3]] and cells.index.tolist() == [0, 1, 0]
    np.testing.assert_array_equal(cells.mean(np.array([1.0, np.inf, 4.0])), [2.5, np.nan])


def test_first_expert_runner_up_and_margin():
    first, second, margin = rank_experts(np.array([[0.2, 0.5, 0.3], [0.4, 0.2, 0.4]]))
    assert first.tolist() == [1, 0] and second.tolist() == [2, 2]  # of equal weights the first one counts
    np.testing.assert_allclose(margin, [0.2, 0.0], atol=1e-12)
    first, second, margin = rank_experts(np.ones((2, 1)))
    assert first.tolist() == [0, 0] and second.tolist() == [-1, -1] and np.isnan(margin).all()


def test_colour_of_few_steps_grows_as_their_standard_error_falls():
    np.testing.assert_allclose(visit_strength([1, 2.5, 10, 1000]), [0.1**0.5, 0.5, 1, 1])


def test_cells_with_fewer_steps_are_left_out(steps):
    averaged = aggregate_routing_by_position(steps)
    kept = averaged.with_steps(2)
    assert kept.cells.tolist() == [[4, 1]] and kept.counts.tolist() == [2] and kept.lpc.tolist() == [150]
    assert [weights.shape for weights in kept.routing] == [(1, 3), (1, 2)]
    assert averaged.with_steps(1).cells.tolist() == averaged.cells.tolist()
    with pytest.raises(InputError, match="3 steps"):
        averaged.with_steps(3)
