"""Numbers of routing data, against hand-made inputs and plain loops."""

import math

import numpy as np
import pytest
from routing_data import make_data, make_steps, random_data, three_visits

from mop.base.errors import InputError
from mop.measures.cells import aggregate_routing_by_position, compute_confidence, compute_grid_bounds, index_cells
from mop.measures.groups import group_routing_data
from mop.measures.pathways import compute_pathways
from mop.measures.routing import (
    compute_layer_lpc,
    compute_policy_entropy,
    compute_router_entropy,
    compute_routing_over_progress,
    count_actions,
    mean_weights_by_distance,
    mean_weights_by_group,
    select_episode,
)
from mop.plotting.maps import plot_overall_routing


@pytest.fixture
def steps():
    return three_visits()


# --- cells of the grid ----------------------------------------------------------------------------------------------


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
    with pytest.raises(InputError, match="no 'layer_routing'"):
        plot_overall_routing(make_data(steps))
    steps.position = None
    with pytest.raises(InputError, match="no 'position'"):
        aggregate_routing_by_position(steps)


def test_empty_steps_are_one_clear_sentence(steps):
    empty = make_steps([], np.empty((0, 3)), lpc=[])
    for call in (
        lambda: aggregate_routing_by_position(empty),
        lambda: compute_grid_bounds(empty.position),
        lambda: plot_overall_routing(make_data(empty)),
    ):
        with pytest.raises(InputError, match=r"^there are no steps: the routing data is empty$"):
            call()
    with pytest.raises(InputError, match="the filter leaves none"):
        aggregate_routing_by_position(steps, np.zeros(3, bool))


def test_weights_of_a_diverged_policy_name_the_layer(steps):
    steps.layer_routing[1][2] = np.nan
    with pytest.raises(InputError, match="layer 1 has router weights that are not finite"):
        aggregate_routing_by_position(steps)


def test_grid_bounds_of_positions_and_of_a_known_world(steps):
    visited = {"x_min": 2, "x_max": 4, "y_min": 1, "y_max": 3, "grid_width": 3, "grid_height": 3}
    assert compute_grid_bounds(steps.position) == visited
    world = {"x_min": 0, "x_max": 10, "y_min": 0, "y_max": 5, "grid_width": 11, "grid_height": 6}
    assert compute_grid_bounds(steps.position, (11, 6)) == world
    with pytest.raises(InputError, match="x 4, y 1 is outside the grid of x 0 to 3, y 0 to 5"):
        compute_grid_bounds(steps.position, (4, 6))


def test_confidence_runs_from_one_in_e_to_one():
    np.testing.assert_allclose(compute_confidence([1 / 3, 2 / 3, 1], 3), [0, 0.5, 1])
    np.testing.assert_allclose(compute_confidence([0.5, 0.49999], 2), [0, 0])  # a rounded cache may be just below
    assert compute_confidence([1.0], 1).tolist() == [1]


def test_cells_and_means_of_any_values():
    cells = index_cells(np.array([[4, 1], [2, 3], [4, 1]]))
    assert cells.cells.tolist() == [[4, 1], [2, 3]] and cells.index.tolist() == [0, 1, 0]
    np.testing.assert_array_equal(cells.mean(np.array([1.0, np.inf, 4.0])), [2.5, np.nan])


# --- cost and entropy -----------------------------------------------------------------------------------------------


def test_lpc_of_a_layer():
    np.testing.assert_allclose(compute_layer_lpc([[1, 0, 0], [0, 0.5, 0.5]], [0, 16, 32]), [0, 640])


def test_entropies_in_nats():
    weights = [[1, 0, 0], [0.5, 0.5, 0], [1 / 3] * 3, [0.25, 0.25, 0.5]]
    expected = [0, math.log(2), math.log(3), 1.5 * math.log(2)]
    np.testing.assert_allclose(compute_router_entropy(weights), expected, atol=1e-12)
    logits = np.log(np.maximum(weights, 1e-300)) + 700  # the softmax does not see a constant
    np.testing.assert_allclose(compute_policy_entropy(logits), expected, atol=1e-12)
    np.testing.assert_allclose(compute_policy_entropy([[1e4, 0, 0]]), [0])


# --- time -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def two_episodes():
    """Episodes of 4 and 2 steps; the weight of expert 0 is 0, 0.1, 0.2, 0.3 and 0.6, 1."""
    first = np.array([0.0, 0.1, 0.2, 0.3, 0.6, 1.0])
    columns = {"episode": [0, 0, 0, 0, 1, 1], "t_step": [0, 1, 2, 3, 0, 1], "action": [2, 2, 2, 5, 0, 2]}
    steps = make_steps(np.ones((6, 2)), np.stack([first, 1 - first], axis=1), **columns)
    outcomes = [{"success": True, "t_pick": 2, "t_opened": None}, {"success": False, "t_pick": None, "t_opened": 1}]
    return make_data(steps, outcomes)


def test_weights_against_progress_by_hand(two_episodes):
    over = compute_routing_over_progress(two_episodes, 2)
    assert over.progress.tolist() == [0.25, 0.75] and over.counts.tolist() == [3, 3]
    np.testing.assert_allclose(over.mean[0][:, 0], [(0 + 0.1 + 0.6) / 3, (0.2 + 0.3 + 1) / 3], atol=1e-6)
    np.testing.assert_allclose(over.low[0][:, 0], [0.05, 0.25], atol=1e-6)
    np.testing.assert_allclose(over.high[0][:, 0], [0.35, 0.65], atol=1e-6)
    over = compute_routing_over_progress(two_episodes, 8)  # more parts than steps
    assert over.counts.tolist() == [2, 0, 1, 0, 2, 0, 1, 0]
    assert np.isnan(over.mean[0][1]).all() and np.isfinite(over.mean[0][0]).all()


def test_two_episodes_under_one_number_are_two():
    steps = make_steps(np.ones((4, 2)), np.eye(2)[[0, 1, 1, 0]], t_step=[0, 1, 0, 1])
    data = make_data(steps, schema_version=3)
    np.testing.assert_allclose(compute_routing_over_progress(data, 2).mean[0], [[0.5, 0.5], [0.5, 0.5]])
    assert compute_pathways(data).transitions.tolist() == [[0, 1], [1, 0]]


def test_one_episode_and_its_events(two_episodes):
    chosen = select_episode(two_episodes, 1)
    assert chosen.t_step.tolist() == [0, 1] and chosen.events == {"opened": 1}
    np.testing.assert_allclose(chosen.routing[0], [[0.6, 0.4], [1, 0]], atol=1e-6)
    with pytest.raises(InputError, match="no episode 2: they are counted from 0 to 1"):
        select_episode(two_episodes, 2)


# --- who carries what, pathways -------------------------------------------------------------------------------------


def test_weights_and_actions_of_groups(two_episodes):
    groups = group_routing_data(two_episodes, "by_outcome")
    (means,) = mean_weights_by_group(two_episodes.steps, groups)
    np.testing.assert_allclose(means, [[0.15, 0.85], [0.8, 0.2]], atol=1e-6)
    expected = [[0, 0, 3, 0, 0, 1, 0], [1, 0, 1, 0, 0, 0, 0]]
    assert count_actions(two_episodes, groups, 7).tolist() == expected


def test_weights_at_distances():
    weights = np.array([[0.2, 0.8], [0.4, 0.6], [1.0, 0.0], [0.5, 0.5]])
    counts, (means,) = mean_weights_by_distance(np.array([2, 2, 0, np.nan]), [weights])
    assert counts.tolist() == [1, 0, 2]
    np.testing.assert_allclose(means, [[1, 0], [np.nan, np.nan], [0.3, 0.7]])


def test_pathways_counts_and_transitions_by_hand():
    first, second = np.eye(2)[[1, 1, 0, 1, 0, 0]], np.eye(3)[[2, 2, 0, 2, 0, 1]]
    steps = make_steps(np.ones((6, 2)), first, second, episode=[0, 0, 0, 1, 1, 1], t_step=[0, 1, 2, 0, 1, 2])
    pathways = compute_pathways(make_data(steps, [{}, {}]))
    assert pathways.experts.tolist() == [[1, 2], [0, 0], [0, 1]] and pathways.counts.tolist() == [3, 2, 1]
    assert pathways.index.tolist() == [0, 0, 1, 0, 1, 2]
    # 0 -> 0 and 0 -> 1 in the first episode, 0 -> 1 and 1 -> 2 in the second; none from the first into the second
    assert pathways.transitions.tolist() == [[1, 2, 0], [0, 0, 1], [0, 0, 0]]


def test_missing_columns_are_one_clear_sentence(two_episodes):
    groups, checked = group_routing_data(two_episodes, "overall"), 0
    for column, calls in {
        "t_step": (compute_routing_over_progress, compute_pathways, lambda data: select_episode(data, 0)),
        "layer_routing": (compute_routing_over_progress, compute_pathways, lambda data: select_episode(data, 0)),
        "action": (lambda data: count_actions(data, groups, 7),),
    }.items():
        kept = getattr(two_episodes.steps, column)
        setattr(two_episodes.steps, column, None)
        for call in calls:
            with pytest.raises(InputError, match=f"no '{column}'"):
                call(two_episodes)
            checked += 1
        setattr(two_episodes.steps, column, kept)
    assert checked == 7
    empty = make_data(make_steps([], np.empty((0, 2)), t_step=[]), [])
    for call in (compute_routing_over_progress, compute_pathways):
        with pytest.raises(InputError, match="there are no steps"):
            call(empty)


def test_actions_of_a_cache_that_has_logits_alone(two_episodes):
    groups = group_routing_data(two_episodes, "overall")
    expected = count_actions(two_episodes, groups, 7).tolist()
    two_episodes.steps.action_logits = np.eye(7)[two_episodes.steps.action] - 3
    two_episodes.steps.action = None
    assert count_actions(two_episodes, groups, 7).tolist() == expected == [[1, 0, 4, 0, 0, 1, 0]]
    assert len(group_routing_data(two_episodes, "by_action")) == 3


def test_plain_loops_agree():
    data = random_data()
    steps, pathways = data.steps, compute_pathways(data)
    experts = np.stack([weights.argmax(1) for weights in steps.layer_routing], axis=1)
    np.testing.assert_array_equal(pathways.experts[pathways.index], experts)
    expected = np.zeros_like(pathways.transitions)
    for k in range(len(steps) - 1):
        if steps.episode[k] == steps.episode[k + 1]:
            expected[pathways.index[k], pathways.index[k + 1]] += 1
    np.testing.assert_array_equal(pathways.transitions, expected)
    over = compute_routing_over_progress(data, 5)
    lengths = np.bincount(steps.episode)
    for part in range(5):
        chosen = [k for k in range(len(steps)) if steps.t_step[k] * 5 // lengths[steps.episode[k]] == part]
        np.testing.assert_allclose(over.mean[1][part], steps.layer_routing[1][chosen].mean(0), atol=1e-6)
