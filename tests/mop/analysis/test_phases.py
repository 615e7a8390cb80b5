"""The phases of tasks with a key, by hand."""

import numpy as np
import pytest
from routing_data import make_steps

from mop.analysis.groups import PHASES, is_key_held, key_phases
from mop.common.errors import InputError
from mop.envs.babyai import World
from mop.envs.episodes import episode_context
from mop.envs.teacher import TeacherFailure


def phases_of(carrying, t_unlocked):
    steps = make_steps(np.ones((len(carrying), 2)), t_step=range(len(carrying)), carrying=np.array(carrying, bool))
    return key_phases(steps, [{"t_unlocked": t_unlocked}]).tolist()


def test_phases_by_time_where_places_are_unknown():
    assert len(PHASES) == 4
    assert phases_of([0, 1, 1, 0, 1], 2) == [0, 1, 2, 3, 3]  # the box at the end is not the key
    assert phases_of([0, 1, 0, 1, 1, 0], 4) == [0, 0, 0, 1, 2, 3]  # a ball was moved out of the way before
    assert phases_of([0, 0, 1, 1], None) == [0, 0, 1, 1]
    assert phases_of([0, 1, 1, 1], 2) == [0, 1, 2, 2]  # never dropped
    assert phases_of([1, 1, 0], 1) == [1, 2, 3]  # in the hands from the start


def test_phases_need_carrying_and_unlocking():
    steps = make_steps(np.ones((3, 2)), episode=[0, 1, 2], t_step=[0, 0, 0], carrying=[False, True, False])
    with pytest.raises(InputError, match="t_unlocked"):
        key_phases(steps, [{}] * 3)
    steps.carrying = None
    with pytest.raises(InputError, match="carrying"):
        key_phases(steps, [{"t_unlocked": None}] * 3)


def followed(episode, *steps):
    """Phases of steps (x, y, direction, carrying) of one episode."""
    columns = np.array(steps)
    made = make_steps(columns[:, :2], t_step=range(len(steps)), carrying=columns[:, 3] > 0, direction=columns[:, 2])
    return key_phases(made, [episode]).tolist()


def test_a_key_that_is_picked_up_again_is_the_key_again():
    """Towards the right (direction 0): the key at x 2, dropped at x 5, picked up there, carried through the door."""
    door = [9, 1, "red", False, True]
    episode = {"keys": [[2, 1, "red"]], "doors": [door], "t_unlocked": 6}
    walk = [
        (1, 1, 0, 0),
        (1, 1, 0, 1),
        (4, 1, 0, 1),
        (4, 1, 0, 0),
        (4, 1, 0, 1),
        (8, 1, 0, 1),
        (8, 1, 0, 1),
        (8, 1, 2, 1),
    ]
    assert followed(episode, *walk) == [0, 1, 1, 0, 1, 1, 2, 2]
    assert followed(episode, *walk, (8, 1, 2, 0), (8, 1, 2, 1)) == [0, 1, 1, 0, 1, 1, 2, 2, 3, 2]


def test_other_objects_are_no_key():
    episode = {"keys": [[2, 1, "red"], [2, 2, "blue"]], "doors": [[9, 1, "red", False, True]], "t_unlocked": None}
    assert followed(episode, (1, 2, 0, 0), (1, 2, 0, 1), (1, 2, 0, 0)) == [0, 0, 0]  # the blue key opens nothing
    assert followed(episode, (1, 3, 0, 0), (1, 3, 0, 1)) == [0, 0]  # a ball
    assert followed(episode, (1, 1, 0, 0), (1, 1, 0, 1)) == [0, 1]
    any_key = {"keys": [[2, 2, "blue"]], "t_unlocked": None}  # of an older cache, which tells no doors
    assert followed(any_key, (1, 2, 0, 0), (1, 2, 0, 1)) == [0, 1]


@pytest.mark.parametrize("level", ["UnlockPickup", "BlockedUnlockPickup", "KeyCorridorS3R2"])
def test_keys_are_followed_as_in_the_world(level):
    """In episodes that are half the bot's and half at random, with much picking up and dropping."""
    world, rng = World(f"BabyAI-{level}-v0"), np.random.default_rng(0)
    columns, truth, episodes = {name: [] for name in ("episode", "position", "direction", "carrying")}, [], []
    for seed in range(25):
        world.reset(seed)
        episodes.append(episode_context(world))
        is_over = False
        while not is_over:
            now = (seed, world.position, world.direction, world.env.carrying is not None)
            for name, value in zip(columns, now, strict=True):
                columns[name].append(value)
            truth.append(world.env.carrying is not None and world.env.carrying.type == "key")
            try:
                action = world.label()
            except TeacherFailure:
                break
            action = action if rng.random() < 0.7 else int(rng.choice([0, 1, 2, 3, 4]))  # not toggle: it opens boxes
            _, terminated, truncated = world.step(action)
            is_over = terminated or truncated
    steps = make_steps(columns.pop("position"), **columns)
    held = is_key_held(steps, episodes)
    assert held.tolist() == truth
    picked_again = np.bincount(steps.episode[1:][held[1:] & ~held[:-1]], minlength=25)
    assert (picked_again > 1).sum() >= 3 and 0.1 < held.mean() < 0.9
