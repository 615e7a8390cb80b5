"""Pictures of worlds: those of the project's own environment, and without its compiled kernels."""

import subprocess
import sys

import numpy as np
import pytest
from checks import refusal
from scripts import PATIENCE_S, REPOSITORY

from mop.envs.babyai import World
from mop.envs.render import draw_cells, draw_view, render_world, replay_episode, replay_world


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


@pytest.mark.parametrize("task_id", ["BabyAI-KeyCorridorS3R3-v0", "BabyAI-GoToImpUnlock-v0", "BabyAI-UnlockPickup-v0"])
def test_every_picture_of_an_episode_is_the_one_of_minigrid(task_id):
    actions = np.random.default_rng(1).integers(0, 6, 60).tolist()
    replay, env = replay_episode(task_id, 2, actions, tile_size=8), replay_world(task_id, 2, [])
    assert len(replay.frames) == len(replay.position) == len(replay.carrying) == 61 and replay.tiles.dtype == np.uint8
    for t_step in range(61):
        if t_step:
            env.step(actions[t_step - 1])
        np.testing.assert_array_equal(replay.picture(t_step), env.get_frame(tile_size=8))
        assert replay.position[t_step].tolist() == list(map(int, env.agent_pos))
    assert len(replay.tiles) < 60


def test_what_happens_in_an_episode():
    """World 0: the agent at (3, 3) looks up, the green key is at (4, 3), the door at (5, 4)."""
    right, forward, pick_up, drop, toggle = 1, 2, 3, 4, 5
    actions = [right, pick_up, right, forward, 0, forward, toggle, toggle, toggle, drop, right, right, drop]
    replay = replay_episode("BabyAI-UnlockPickup-v0", 0, actions)
    assert replay.events == [
        (2, "picked up the green key"),
        (7, "unlocked the green door"),
        (8, "closed the green door"),
        (9, "opened the green door"),
        (13, "dropped the green key"),
    ]
    assert replay.carrying == [""] * 2 + ["green key"] * 11 + [""]
    assert replay.position[[0, -1]].tolist() == [[3, 3], [4, 4]]


def test_a_box_that_is_opened():
    boxed = replay_episode("BabyAI-GoToImpUnlock-v0", 3, np.random.default_rng(0).integers(0, 6, 100).tolist())
    assert boxed.events == [(92, "opened the blue box")]


def test_no_such_world():
    for seed in (-1, "3", None, True):
        refusal(replay_world, "BabyAI-UnlockPickup-v0", seed, [])
    assert "BabyAI-Nonsense-v0" in refusal(render_world, "BabyAI-Nonsense-v0", 0)


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
