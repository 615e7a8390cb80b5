"""What Python packs of a task's worlds."""

import json

import pytest

from mop.common.errors import InputError
from mop.envs.babyai import World, bot_steps
from mop.microscope.pack_worlds import pack_worlds


def size_of(packed: dict) -> int:
    return len(json.dumps(packed, separators=(",", ":")))


def test_worlds_are_small():
    assert 10_000 < size_of(pack_worlds("BabyAI-BossLevel-v0", range(20))) < 20_000  # 1 KB each


def test_the_bots_path_is_packed():
    task_id = "BabyAI-UnlockPickup-v0"
    packed = pack_worlds(task_id, [3, 7, 11], 60)
    worlds = packed["worlds"]
    assert [world["bot_steps"] for world in worlds] == [bot_steps(World(task_id, 60), seed) for seed in (3, 7, 11)]
    assert {(world["seed"], world["max_steps"]) for world in worlds} == {(3, 60), (7, 60), (11, 60)}
    assert pack_worlds("BabyAI-UnlockToUnlock-v0", [4])["worlds"][0]["bot_steps"] is None  # it plans without end
    assert pack_worlds(task_id, [3, 7, 11], 60) == packed == json.loads(json.dumps(packed))


def test_an_unknown_task_is_refused():
    with pytest.raises(InputError, match="BabyAI-Nowhere-v0"):
        pack_worlds("BabyAI-Nowhere-v0", [0])
