"""Pictures of worlds: those of the project's own environment, and without its compiled kernels."""

import subprocess
import sys

import numpy as np
import pytest
from conftest import REPOSITORY

from mop.base.errors import InputError
from mop.worlds.pictures import render_world, replay_world
from mop.worlds.world import World


def test_render_world():
    picture = render_world("BabyAI-UnlockPickup-v0", 3, tile_size=8)
    assert picture.shape == (6 * 8, 11 * 8, 3) and picture.dtype == np.uint8
    np.testing.assert_array_equal(picture, render_world("BabyAI-UnlockPickup-v0", 3, [], tile_size=8))
    assert (picture != render_world("BabyAI-UnlockPickup-v0", 3, [0], tile_size=8)).any()


@pytest.mark.parametrize(
    "task_id", ["BabyAI-UnlockPickup-v0", "BabyAI-GoToImpUnlock-v0", "BabyAI-PutNextS5N2Carrying-v0"]
)
def test_pictures_are_of_the_world_that_policies_act_in(task_id):
    world, actions = World(task_id), np.random.default_rng(0).integers(0, 6, 40).tolist()
    for seed in range(3):
        world.reset(seed)
        for action in actions:
            world.step(action)
        env = replay_world(task_id, seed, actions)
        assert tuple(map(int, env.agent_pos)) == world.position
        np.testing.assert_array_equal(env.get_frame(tile_size=8), world.env.get_frame(tile_size=8))


def test_unknown_task():
    with pytest.raises(InputError, match="no task 'BabyAI-Nonsense-v0'"):
        render_world("BabyAI-Nonsense-v0", 0)


def test_no_compiled_kernels_are_loaded():
    program = "import sys, mop.worlds.pictures; sys.exit(bool({'numba', 'torch', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, timeout=60).returncode == 0
