"""The context of an episode against bare Minigrid, and slots that take the worlds of a list."""

import json

import numpy as np
from bare_minigrid import bare_env, bare_reset
from eval_helpers import UNLOCK

from mop.envs.babyai import World, babyai_task_ids
from mop.envs.episodes import EvalVectorEnv, episode_context


def plain_types(value) -> bool:
    if isinstance(value, dict):
        return all(type(key) is str and plain_types(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(plain_types, value))
    return type(value) in (int, str, bool, type(None))


def context_of(task_id: str, seed: int) -> tuple[dict, str]:
    world = World(task_id)
    world.reset(seed)
    return episode_context(world), world.mission


def test_context_of_every_task_against_bare_minigrid():
    cases = 0
    for task_id in babyai_task_ids():
        context, mission = context_of(task_id, 1)
        env = bare_env(task_id)
        obs = bare_reset(env, 1)
        assert mission == obs["mission"]
        assert plain_types(context) and json.loads(json.dumps(context)) == context
        cells = [(x, y, env.grid.get(x, y)) for y in range(env.grid.height) for x in range(env.grid.width)]
        for kind in ("goal", "key", "ball", "box"):
            expected = [[x, y, c.color] for x, y, c in cells if c is not None and c.type == kind]
            assert sorted(context["boxes" if kind == "box" else f"{kind}s"]) == sorted(expected)
        doors = [[x, y, c.color, c.is_open, c.is_locked] for x, y, c in cells if c is not None and c.type == "door"]
        assert sorted(context["doors"]) == sorted(doors)
        assert context["grid_size"] == [env.grid.width, env.grid.height]
        assert context["agent_start_pos"] == list(env.agent_pos) and context["agent_start_dir"] == env.agent_dir
        rooms = [room for row in env.room_grid for room in row]
        bounds = [[*r.top, r.top[0] + r.size[0] - 1, r.top[1] + r.size[1] - 1] for r in rooms]
        assert context["room_bounds"] == bounds
        assert context["room_grid_shape"] == [len(env.room_grid[0]), len(env.room_grid)]
        column, row = context["agent_start_room"]
        assert env.room_grid[row][column] is env.room_from_pos(*env.agent_pos)
        target = env.grid.get(*context["target_pos"]) or env.carrying
        assert target.type in mission and (target.color in mission or f"a {target.type}" in mission or "the" in mission)
        cases += 1
    assert cases == 96


def test_context_of_known_worlds():
    context, mission = context_of(UNLOCK, 0)
    assert mission == "pick up the purple box"
    assert context == {
        "grid_size": [11, 6],
        "agent_start_pos": [3, 3],
        "agent_start_dir": 3,
        "agent_start_room": [0, 0],
        "room_grid_shape": [2, 1],
        "room_bounds": [[0, 0, 5, 5], [5, 0, 10, 5]],
        "goals": [],
        "doors": [[5, 4, "green", False, True]],
        "keys": [[4, 3, "green"]],
        "balls": [],
        "boxes": [[8, 1, "purple"]],
        "target_pos": [8, 1],
    }
    context, mission = context_of("BabyAI-GoTo-v0", 0)
    assert mission == "go to the blue ball" and context["target_pos"] == [10, 6]
    assert context["grid_size"] == [22, 22] and context["room_grid_shape"] == [3, 3]
    assert context["agent_start_pos"] == [12, 11] and context["agent_start_room"] == [1, 1]
    assert context["room_bounds"][0] == [0, 0, 7, 7] and context["room_bounds"][5] == [14, 7, 21, 14]
    assert len(context["room_bounds"]) == 9 and len(context["doors"]) == 10
    assert context["balls"][0] == [10, 6, "blue"] and len(context["balls"]) == 6


def test_target_is_the_nearest_object_of_the_clause_that_comes_first():
    boss = "BabyAI-BossLevel-v0"
    cases = {  # world: its mission, and what stands first in it
        ("BabyAI-PutNextLocal-v0", 0): ("put the green ball next to the green key", "balls", "green"),
        (boss, 0): (
            "put the red box next to a grey door and open a purple door after you pick up a key and go to the yellow "
            "box",
            "keys",
            None,
        ),
        (boss, 13): (
            "pick up a grey key after you pick up the yellow box and open a door in front of you", "boxes", "yellow",
        ),
        (boss, 7): ("pick up a blue key, then open a green door and go to the purple door", "keys", "blue"),
        (boss, 10): ("go to a yellow door and pick up a key", "doors", "yellow"),
        (boss, 58): ("pick up a ball", "balls", None),
    }  # fmt: skip
    several = 0
    for (task_id, seed), (text, kind, color) in cases.items():
        context, mission = context_of(task_id, seed)
        assert mission == text
        x, y = context["agent_start_pos"]
        named = [item for item in context[kind] if color in (None, item[2])]
        distances = {tuple(item[:2]): abs(item[0] - x) + abs(item[1] - y) for item in named}
        target = tuple(context["target_pos"])
        assert distances[target] == min(distances.values())
        several += len(named) > 1
    assert len(cases) == 6 and several >= 3


def test_slots_take_the_next_seed_and_stop_at_the_end_of_the_list():
    env = EvalVectorEnv(UNLOCK, [7, 3, 11], num_envs=8, max_steps=2)
    assert len(env.worlds) == 3 and env.state["episode"].tolist() == [0, 1, 2]
    env = EvalVectorEnv(UNLOCK, [7, 3, 11], num_envs=2, max_steps=2)
    done = [env.step(np.array([6, 6])).tolist() for _ in range(4)]
    assert done == [[False, False], [True, True], [False, False], [True, False]]
    assert env.active.tolist() == [False, False]
    assert [(e["seed"], e["steps"], e["success"]) for e in env.episodes] == [(s, 2, False) for s in (7, 3, 11)]
