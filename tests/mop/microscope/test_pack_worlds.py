"""What Python packs of a task's worlds."""

import json

import pytest

from mop.common.errors import InputError
from mop.envs.babyai import World, bot_steps
from mop.envs.bot_paths import BotPaths
from mop.microscope.pack_worlds import pack_worlds


def size_of(packed: dict) -> int:
    return len(json.dumps(packed, separators=(",", ":")))


def test_worlds_are_small():
    assert 10_000 < size_of(pack_worlds(BotPaths("BabyAI-BossLevel-v0", None, None), range(20))) < 20_000  # 1 KB each


def test_the_bots_path_is_packed():
    task_id = "BabyAI-UnlockPickup-v0"
    packed = pack_worlds(BotPaths(task_id, 60, None), [3, 7, 11])
    worlds = packed["worlds"]
    assert [world["bot_steps"] for world in worlds] == [bot_steps(World(task_id, 60), seed) for seed in (3, 7, 11)]
    assert {(world["seed"], world["max_steps"]) for world in worlds} == {(3, 60), (7, 60), (11, 60)}
    unsolved = BotPaths("BabyAI-UnlockToUnlock-v0", None, None)  # it plans without end
    assert pack_worlds(unsolved, [4])["worlds"][0]["bot_steps"] is None
    assert pack_worlds(BotPaths(task_id, 60, None), [3, 7, 11]) == packed == json.loads(json.dumps(packed))


def test_an_unknown_task_is_refused():
    with pytest.raises(InputError, match="BabyAI-Nowhere-v0"):
        pack_worlds(BotPaths("BabyAI-Nowhere-v0", None, None), [0])
