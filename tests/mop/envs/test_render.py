"""Pictures of worlds: those of the project's own environment, and without its compiled kernels."""

import subprocess
import sys

import numpy as np
import pytest
from checks import refusal
from scripts import PATIENCE_S, REPOSITORY

from mop.envs.babyai import World
from mop.envs.render import draw_cells, draw_view, replay_world


def test_replay_world():
    picture = replay_world("BabyAI-UnlockPickup-v0", 3, []).get_frame(tile_size=8)
    assert picture.shape == (6 * 8, 11 * 8, 3) and picture.dtype == np.uint8
    np.testing.assert_array_equal(picture, replay_world("BabyAI-UnlockPickup-v0", 3, []).get_frame(tile_size=8))
    assert (picture != replay_world("BabyAI-UnlockPickup-v0", 3, [0]).get_frame(tile_size=8)).any()


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


def test_no_such_world():
    for seed in (-1, "3", None, True):
        refusal(replay_world, "BabyAI-UnlockPickup-v0", seed, [])
    assert "BabyAI-Nonsense-v0" in refusal(replay_world, "BabyAI-Nonsense-v0", 0, [])


def test_no_compiled_kernels_are_loaded():
    program = "import sys, mop.envs.render; sys.exit(bool({'numba', 'torch', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, timeout=PATIENCE_S).returncode == 0


def test_cells_and_views_are_drawn_as_minigrid_draws_them():
    actions = np.random.default_rng(2).integers(0, 6, 30).tolist()
    world, checked = World("BabyAI-KeyCorridorS3R3-v0"), 0
    world.reset(5)
    for action in actions:
        world.step(action)
        cells = np.stack([world.codes & 255, world.codes >> 8 & 255, world.codes >> 16 & 15], -1)
        picture = draw_cells(cells, (*world.position, world.direction), tile_size=8)
        np.testing.assert_array_equal(picture, world.env.get_full_render(highlight=False, tile_size=8))
        np.testing.assert_array_equal(draw_view(world.obs[:147], 8), world.env.get_pov_render(tile_size=8))
        checked += 1
    assert checked == 30
