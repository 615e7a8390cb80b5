"""Means over the cells of the grid, free cells and walking distances: by hand, and against the real worlds."""

import numpy as np
import pytest
from checks import refusal
from routing_data import make_data, make_steps, three_visits

from mop.analysis.cells import (
    aggregate_routing_by_position,
    compute_confidence,
    compute_grid_bounds,
    distances_to_objects,
    free_cells,
    rank_experts,
    walking_distances,
)
from mop.envs.babyai import World
from mop.envs.episodes import episode_context
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


def test_columns_that_the_data_lacks(steps):
    steps.lpc = None
    assert aggregate_routing_by_position(steps).lpc is None
    steps.layer_routing = None
    assert "layer_routing" in refusal(plot_overall_routing, make_data(steps))
    steps.position = None
    assert "position" in refusal(aggregate_routing_by_position, steps)


def test_empty_steps_are_one_clear_sentence(steps):
    empty = make_steps([], np.empty((0, 3)), lpc=[])
    for call in (
        lambda: aggregate_routing_by_position(empty),
        lambda: compute_grid_bounds(empty.position),
        lambda: plot_overall_routing(make_data(empty)),
    ):
        assert "no steps" in refusal(call)
    assert "filter" in refusal(aggregate_routing_by_position, steps, np.zeros(3, bool))


def test_grid_bounds_of_positions_and_of_a_known_world(steps):
    visited = {"x_min": 2, "x_max": 4, "y_min": 1, "y_max": 3, "grid_width": 3, "grid_height": 3}
    assert compute_grid_bounds(steps.position) == visited
    world = {"x_min": 0, "x_max": 10, "y_min": 0, "y_max": 5, "grid_width": 11, "grid_height": 6}
    assert compute_grid_bounds(steps.position, (11, 6)) == world
    refusal(compute_grid_bounds, steps.position, (4, 6))


def test_confidence_runs_from_one_in_e_to_one():
    np.testing.assert_allclose(compute_confidence([1 / 3, 2 / 3, 1], 3), [0, 0.5, 1])
    np.testing.assert_allclose(compute_confidence([0.5, 0.49999], 2), [0, 0])  # a rounded cache may be just below
    assert compute_confidence([1.0], 1).tolist() == [1]


def test_first_expert_runner_up_and_margin():
    first, second, margin = rank_experts(np.array([[0.2, 0.5, 0.3], [0.4, 0.2, 0.4]]))
    assert first.tolist() == [1, 0] and second.tolist() == [2, 2]  # of equal weights the first one counts
    np.testing.assert_allclose(margin, [0.2, 0.0], atol=1e-12)
    first, second, margin = rank_experts(np.ones((2, 1)))
    assert first.tolist() == [0, 0] and second.tolist() == [-1, -1] and np.isnan(margin).all()


def test_cells_with_fewer_steps_are_left_out(steps):
    averaged = aggregate_routing_by_position(steps)
    kept = averaged.with_steps(2)
    assert kept.cells.tolist() == [[4, 1]] and kept.counts.tolist() == [2] and kept.lpc.tolist() == [150]
    assert [weights.shape for weights in kept.routing] == [(1, 3), (1, 2)]
    assert averaged.with_steps(1).cells.tolist() == averaged.cells.tolist()
    assert "3 steps" in refusal(averaged.with_steps, 3)


# Two rooms of 2 x 3 cells, with a door low in the wall between them.
EPISODE = {
    "grid_size": [7, 5],
    "room_bounds": [[0, 0, 3, 4], [3, 0, 6, 4]],
    "doors": [[3, 3, "red", False, True]],
    "keys": [],
    "target_pos": [4, 1],
}
PICTURE = """
    #######
    #..#..#
    #..#..#
    #.....#
    #######"""


def cells(picture):
    return np.array([[cell != "#" for cell in line.strip()] for line in picture.strip().splitlines()])


def test_rooms_and_doors_are_free():
    data = make_data(make_steps([[1, 1]]), [EPISODE])
    np.testing.assert_array_equal(free_cells(data), [cells(PICTURE)])


def test_breadth_first_around_a_wall():
    sources = np.zeros((1, 5, 7), bool)
    sources[0, 1, 4] = True
    free = cells(PICTURE)
    distance = walking_distances(free[None], sources)[0]
    expected = [[7, 6, -1, 0, 1], [6, 5, -1, 1, 2], [5, 4, 3, 2, 3]]
    assert distance[1:4, 1:6].tolist() == expected
    assert (distance[~free] == -1).all()


def test_nearest_of_two_sources_in_two_worlds_at_once():
    free = np.repeat(cells(PICTURE)[None], 2, 0)
    free[1, 3, 3] = False  # no door: the other room cannot be reached
    sources = np.zeros((2, 5, 7), bool)
    sources[0, 1, 1] = sources[0, 1, 5] = sources[1, 1, 1] = True
    distance = walking_distances(free, sources)
    assert distance[0, 3, 1:6].tolist() == [2, 3, 4, 3, 2]
    assert distance[1, 3, 1:6].tolist() == [2, 3, -1, -1, -1]
    with pytest.raises(ValueError, match="edge"):
        walking_distances(np.ones((1, 3, 3), bool), np.zeros((1, 3, 3), bool))


def test_distances_of_steps_to_objects():
    other = EPISODE | {"doors": [[3, 1, "red", True, False]], "keys": [[1, 3, "red"], [5, 3, "red"]]}
    steps = make_steps([[1, 1], [3, 3], [4, 1], [1, 1]], episode=[0, 0, 0, 1])
    distances = distances_to_objects(make_data(steps, [EPISODE, other]))
    assert distances["door"].tolist() == [4, 0, 3, 2]
    assert distances["target"].tolist() == [7, 3, 0, 3]
    np.testing.assert_array_equal(distances["key"], [np.nan, np.nan, np.nan, 2])
    nothing = EPISODE | {"doors": [], "target_pos": None}
    assert distances_to_objects(make_data(make_steps([[1, 1]]), [nothing])) == {}


def test_what_an_old_cache_lacks_is_named():
    steps, checked = make_steps([[1, 1]]), 0
    for name in ("grid_size", "room_bounds", "doors", "keys", "target_pos"):
        old = {key: value for key, value in EPISODE.items() if key != name}
        assert name in refusal(distances_to_objects, make_data(steps, [old]))
        checked += 1
    assert checked == 5
    assert "one size" in refusal(free_cells, make_data(steps, [EPISODE, EPISODE | {"grid_size": [8, 5]}]))


@pytest.mark.parametrize(
    "task_id, has_opening",
    [
        ("BabyAI-UnlockPickup-v0", False),
        ("BabyAI-GoToObjMazeS4-v0", False),
        ("BabyAI-KeyCorridorS3R3-v0", True),
        ("BabyAI-PutNextS4N1-v0", True),
        ("BabyAI-MoveTwoAcrossS5N2-v0", True),
    ],
)
def test_free_cells_are_those_of_the_real_worlds(task_id, has_opening):
    world, episodes, real = World(task_id), [], []
    for seed in range(3):
        world.reset(seed)
        grid = world.env.grid
        episodes.append(episode_context(world))
        types = [getattr(grid.get(x, y), "type", None) for y in range(grid.height) for x in range(grid.width)]
        real.append((np.array(types) != "wall").reshape(grid.height, grid.width))
    real = np.array(real)
    nowhere = free_cells(make_data(make_steps([], episode=[]), episodes))
    assert (nowhere != real).any() == has_opening
    y, x = np.nonzero(real[0])  # the agent of the first world went everywhere, that of the others nowhere
    steps = make_steps(np.stack([x, y], axis=1), episode=np.zeros(len(x)))
    np.testing.assert_array_equal(free_cells(make_data(steps, episodes)), real)
