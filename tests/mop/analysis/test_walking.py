"""Free cells and walking distances, by hand and against the real worlds."""

import numpy as np
import pytest
from routing_data import make_data, make_steps

from mop.analysis.cells import distances_to_objects, free_cells, walking_distances
from mop.common.errors import InputError
from mop.envs.babyai import World
from mop.envs.episodes import episode_context

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
        with pytest.raises(InputError, match=name):
            distances_to_objects(make_data(steps, [old]))
        checked += 1
    assert checked == 5
    with pytest.raises(InputError, match="one size"):
        free_cells(make_data(steps, [EPISODE, EPISODE | {"grid_size": [8, 5]}]))


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
