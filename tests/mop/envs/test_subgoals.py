"""The bot's sub-goal and instruction at each state of a student: known answers, silence, and what must not change."""

import json

import numpy as np
import pytest
from checks import refusal
from eval_helpers import UNLOCK, random_checkpoint
from minigrid.core.actions import Actions

from mop.analysis.groups import group_routing_data
from mop.artifacts.routing_cache import RoutingData, Steps, load_cache, write_cache
from mop.artifacts.run_paths import RunKey, cache_path
from mop.common.conventions import SUBGOALS
from mop.envs.babyai import World, babyai_task_ids
from mop.envs.bot_paths import BotPaths
from mop.envs.episodes import EvalVectorEnv, split_mission
from mop.envs.missions import load_encoder
from mop.envs.teacher import FAILURE_KINDS, clauses
from mop.evaluation.evaluate import evaluate

LEFT, RIGHT, FORWARD, TOGGLE = int(Actions.left), int(Actions.right), int(Actions.forward), int(Actions.toggle)
VOCAB = load_encoder("vocab")
TWO_DOORS = "BabyAI-OpenTwoDoors-v0"
EXPLORE, GO, OPEN, PICK, DROP = "explore", "go_next_to", "open", "pick_up", "drop"


def follow(task_id: str, seed: int, num_steps: int = 100, instead=None) -> list[tuple[str, int, int]]:
    """Sub-goal, instruction and the bot's action in each state; the student does as the bot says, but for `instead`."""
    world, found = World(task_id), []
    world.reset(seed)
    for t in range(num_steps):
        label = world.label()
        subgoal, instruction = world.teacher.phase
        found.append((SUBGOALS[subgoal], instruction, label))
        _, terminated, truncated = world.step((instead or {}).get(t, label))
        if terminated or truncated:
            break
    return found


def test_sub_goals_of_an_episode_followed_by_hand():
    """World 0: look around for the box; key, locked door, put the key aside; then through the door to the box."""
    found = follow(UNLOCK, 0)
    by_hand = [EXPLORE] * 2 + [GO, PICK] + [GO] * 4 + [OPEN, GO, DROP] + [GO] * 8 + [PICK]
    assert [subgoal for subgoal, _, _ in found] == by_hand
    assert {instruction for _, instruction, _ in found} == {0}
    does = {PICK: Actions.pickup, DROP: Actions.drop, OPEN: Actions.toggle}
    assert all(label == does.get(subgoal, label) for subgoal, _, label in found)


def test_the_plan_follows_what_the_student_does():
    as_told, astray = follow(UNLOCK, 0, 6), follow(UNLOCK, 0, 6, {3: LEFT})  # it turns away from the key
    assert astray[:4] == as_told[:4] and as_told[3][0] == PICK
    assert astray[4] == (GO, 0, RIGHT), "back to the key"
    assert astray[5][0] == PICK and as_told[5][0] == GO
    closed = follow(TWO_DOORS, 0, 9, {7: TOGGLE})  # it shuts the first door again, which was to be opened
    assert closed[6] == (OPEN, 0, TOGGLE) and closed[7][0] == EXPLORE
    assert closed[8] == (OPEN, 1, TOGGLE), "an instruction that is done stays so"


def test_the_instruction_goes_up_when_the_first_is_done():
    found = follow(TWO_DOORS, 0)
    opened = next(t for t, (subgoal, _, _) in enumerate(found) if subgoal == OPEN)
    assert opened == 6 and [instruction for _, instruction, _ in found] == [0] * 7 + [1] * 6
    assert split_mission("open the purple door, then open the red door") == [
        "open the purple door",
        "open the red door",
    ]


def test_what_comes_after_is_counted_last():
    task_id, covered = "BabyAI-GoToSeqS5R2-v0", 0
    for seed in (5, 23, 30):
        world, instructions = World(task_id), []
        world.reset(seed)
        second, first = world.mission.split(" after you ")
        assert split_mission(world.mission) == [first, second]
        is_over = False
        while not is_over:
            label = world.label()
            instructions.append(world.teacher.phase[1])
            assert instructions[-1] == (world.env.instrs.b_done == "success"), (seed, world.num_steps)
            _, terminated, truncated = world.step(label)
            is_over = terminated or truncated
        assert set(instructions) == {0, 1}
        covered += 1
    assert covered == 3
    mission = "go to a key and go to the ball after you go to the red ball and go to a key"
    assert split_mission(mission) == ["go to the red ball", "go to a key", "go to a key", "go to the ball"]
    done_in = [instruction for _, instruction, _ in follow(task_id, 1)]  # at a key, the next is done without a step
    assert done_in == sorted(done_in) and set(done_in) == {0, 1, 3}


def test_texts_and_plan_have_the_same_instructions_in_every_task():
    covered = sequences = 0
    for task_id in babyai_task_ids():
        world = World(task_id)
        for seed in range(4):
            world.reset(seed)
            texts, parts = split_mission(world.mission), clauses(world.env.instrs)
            assert len(texts) == len(parts), world.mission
            if world.env.carrying is None:  # what is in the hand is not found again
                assert texts == [part.surface(world.env) for part in parts]
            sequences += len(texts) > 1
            covered += 1
    assert covered == 4 * 96 and sequences > 40


@pytest.fixture(scope="module")
def opened_box() -> tuple[EvalVectorEnv, np.ndarray]:
    """World 0 of UnlockPickup as the bot plays it, but for the last action, which toggles the box away; ten more steps.

    The environment after it, and the states (30,).
    """
    actions = [label for _, _, label in follow(UNLOCK, 0)][:19] + [TOGGLE] + [LEFT] * 10
    env, states = EvalVectorEnv(UNLOCK, [0], num_envs=1, max_steps=30, with_phases=True), []
    for action in actions:
        states.append(env.state[0].copy())
        env.step(np.array([action]))
    assert not env.active.any() and not env.episodes[0]["success"]
    return env, np.array(states)


def test_from_an_opened_box_on_the_phase_is_unknown(opened_box):
    env, states = opened_box
    assert states["subgoal"].min() == -1 and (states["subgoal"] == -1).tolist() == [False] * 20 + [True] * 10
    assert states["instruction"].tolist() == [0] * 20 + [-1] * 10
    assert env.bot_failures == {0: "disappeared_box"}


def test_what_is_unknown_is_counted_and_is_null_in_the_file(opened_box, tmp_path):
    env, states = opened_box
    columns = {name: np.ascontiguousarray(states[name]) for name in states.dtype.names}
    header = {"task_id": UNLOCK, "checkpoint_path": "a/b.pt"}
    write_cache(tmp_path, key := RunKey(UNLOCK, 0), RoutingData(header, env.episodes, Steps(**columns)))
    path = cache_path(tmp_path, key)
    content = json.loads(path.read_bytes())
    rows = [(step["subgoal"], step["instruction"]) for step in content["routing_data"]]
    assert (
        rows[:4] == [(EXPLORE, 0), (EXPLORE, 0), (GO, 0), (PICK, 0)] and rows[19:] == [(PICK, 0)] + [(None, None)] * 10
    )
    assert content["schema_version"] == 5 and content["episodes"][0]["instructions"] == ["pick up the purple box"]
    for arrays_too in (True, False):
        if not arrays_too:
            path.with_suffix(".npz").unlink()
        cache = load_cache(path)
        np.testing.assert_array_equal(cache.steps.subgoal, states["subgoal"])
        np.testing.assert_array_equal(cache.steps.instruction, states["instruction"])
        groups = group_routing_data(cache, "by_subgoal")
        assert dict(zip(groups.labels, groups.counts.tolist(), strict=True)) == {
            "to go next to": 14, "to open": 1, "to pick up": 2, "to drop": 1, "to explore": 2,
            "unknown (bot silent)": 10,
        }  # fmt: skip
        refusal(group_routing_data, cache, "by_instruction")


@pytest.mark.parametrize("task_id", [UNLOCK, TWO_DOORS])
def test_the_bot_changes_nothing_that_it_follows(task_id):
    checkpoint, bot_paths = random_checkpoint(task_id=task_id, max_steps=40), BotPaths(task_id, 40, None)
    plain = evaluate(checkpoint, VOCAB, bot_paths, 12, num_envs=5, with_phases=False)
    phased = evaluate(checkpoint, VOCAB, bot_paths, 12, num_envs=5)
    assert phased.episodes == plain.episodes and repr(phased.metrics) == repr(plain.metrics)
    before, after = plain.steps.columns(), phased.steps.columns()
    assert after.keys() - before.keys() == {"subgoal", "instruction"} and len(before) == 10
    for name, values in before.items():
        for one, other in zip(values, after[name], strict=True):
            np.testing.assert_array_equal(one, other, name)
    assert len(after["subgoal"]) == len(phased.steps) > 200
    assert plain.bot_failures is None and set(phased.bot_failures) <= set(FAILURE_KINDS)
    silent = {int(episode) for episode in phased.steps.episode[phased.steps.subgoal < 0]}
    assert len(silent) <= sum(phased.bot_failures.values())  # one that falls silent in its last state shows none
