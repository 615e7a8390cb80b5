"""studies/references.py: random actions held against the returns that JAT published, and returns against Minigrid's."""

import numpy as np
from scripts import TINY_TASK

from mop.common.task_mix import task_name
from mop.envs.babyai import World
from mop.envs.bot_paths import BotPaths
from studies import experiments, references, tasks


def test_random_actions_return_what_jat_published():
    returns = references.random_returns(TINY_TASK, range(200))
    again = references.random_returns(TINY_TASK, range(100, 200))
    assert np.array_equal(returns[100:], again), "an episode is its seed"
    assert (references.step_limits(TINY_TASK, range(3)) == 64).all()
    assert abs(returns.mean() - references.JAT[task_name(TINY_TASK)][0]) < 0.06


def test_random_actions_are_played_once(tmp_path, monkeypatch):
    monkeypatch.setattr(experiments, "RESULTS", tmp_path)
    references.add_random_actions(TINY_TASK, list(range(9)))
    (row,) = references.load_random()
    returns = references.random_returns(TINY_TASK, range(9))
    assert (row["num_episodes"], row["success_rate"]) == (9, (returns > 0).mean())
    assert abs(row["mean_return"] - returns.mean()) < 1e-4
    monkeypatch.setattr(references, "random_returns", None)
    references.add_random_actions(TINY_TASK, list(range(9)))
    assert references.load_random() == [row]


def test_a_return_is_minigrids():
    seeds = range(10)
    steps = np.array([BotPaths(TINY_TASK, None, None).ask(seed) for seed in seeds])
    success = np.arange(10) != 3
    world, rewards = World(TINY_TASK), []
    for seed in seeds:
        world.reset(seed)
        is_over = False
        while not is_over:
            reward, is_over, _ = world.step(world.label())
        rewards.append(reward)
    returns = references.episode_returns(success, steps, references.step_limits(TINY_TASK, seeds))
    assert returns[3] == 0 and np.allclose(np.delete(returns, 3), np.delete(rewards, 3))


def test_every_task_that_others_published_is_in_the_table():
    names = {task_name(task_id) for task_id in tasks.TASKS}
    assert len(references.JAT) == 39 and len(references.BABYAI) == 18  # Minigrid has no maze of PutNext
    assert set(references.JAT) | set(references.BABYAI) <= names
