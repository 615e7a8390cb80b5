"""One world against bare Minigrid and known answers; its bot, its events, and the tasks that the bot cannot teach.

LOCKSTEP_SEEDS=100 compares more worlds of each task than the default.
"""

import os
import threading

import gymnasium
import numpy as np
import pytest
from bare_minigrid import (
    bare_bot,
    bare_env,
    bare_reset,
    bot_episode,
    bot_phase,
    bounded_label,
    observation_vector,
    plan_of,
)
from checks import refusal
from minigrid.core.actions import Actions
from minigrid.core.constants import COLOR_NAMES
from minigrid.core.grid import Grid
from minigrid.core.world_object import Ball, Box, Key
from minigrid.utils.baby_ai_bot import BabyAIBot, DisappearedBoxError

from mop.common.conventions import SUBGOALS
from mop.common.errors import InputError
from mop.envs.babyai import NUM_ACTIONS, World, babyai_task_ids, bot_steps, check_teachable, training_seed
from mop.envs.geometry import DIRECTIONS, grid_codes
from mop.envs.teacher import FAILURE_KINDS, EndlessPlanning, TeacherFailure
from mop.envs.vector_env import BabyAIVectorEnv
from mop.fast import bot as bot_kernels
from mop.fast import grid
from mop.fast.worlds import FastLevel, make_env

TASK_IDS = babyai_task_ids()
NUM_TASKS = 96
LOCKSTEP_SEEDS = int(os.environ.get("LOCKSTEP_SEEDS", "20"))
FEW_SEEDS = -(-LOCKSTEP_SEEDS // 3)
MORE_SEEDS = pytest.param(range(FEW_SEEDS, LOCKSTEP_SEEDS), marks=pytest.mark.slow)
LOCKSTEP_STEPS = 50
UNSOLVABLE = {
    "BabyAI-KeyInBox-v0",
    "BabyAI-PutNextS5N2Carrying-v0",
    "BabyAI-PutNextS6N3Carrying-v0",
    "BabyAI-PutNextS7N4Carrying-v0",
}
LEFT, RIGHT, FORWARD, TOGGLE = Actions.left, Actions.right, Actions.forward, Actions.toggle


def label_or_kind(world: World) -> int | str:
    try:
        return world.label()
    except TeacherFailure as failure:
        return failure.kind


def assert_same_phase(world: World, bot, plan: dict) -> None:
    """The sub-goal is that of Minigrid's bot, and the instruction that of its plan.

    An instruction whose last planned subgoal was replaced (to put a key aside, for example) is not yet done.
    """
    subgoal, instruction = world.teacher.phase
    name, planned, is_planned = bot_phase(bot, plan)
    assert SUBGOALS[subgoal] == name
    assert instruction == planned if is_planned else planned - 1 <= instruction <= planned


def steps_or_kind(world: World, seed: int) -> int | str:
    try:
        return bot_steps(world, seed)
    except TeacherFailure as failure:
        return failure.kind


# --- against bare Minigrid --------------------------------------------------------------------------------------------


def test_all_tasks_are_covered():
    assert len(TASK_IDS) == len(set(TASK_IDS)) == NUM_TASKS
    assert set(TASK_IDS) >= UNSOLVABLE and LOCKSTEP_SEEDS >= 1


@pytest.mark.parametrize("seeds", [range(FEW_SEEDS), MORE_SEEDS], ids=["few", "more"])
@pytest.mark.parametrize("task_id", TASK_IDS)
def test_lockstep(task_id, seeds):
    """Observation, reward, flags and label or failure of every step; beyond a failure of the bot all but the label."""
    world, env = World(task_id), bare_env(task_id)
    covered = num_labels = 0
    for seed in seeds:
        rng = np.random.default_rng((TASK_IDS.index(task_id), seed))
        obs = bare_reset(env, seed)
        world.reset(seed)
        bot, action, failed = bare_bot(env), None, False
        plan = plan_of(bot)
        assert world.mission == env.mission and world.env.max_steps == env.max_steps
        for t in range(LOCKSTEP_STEPS):
            np.testing.assert_array_equal(world.obs, observation_vector(obs, env), err_msg=f"seed {seed}, step {t}")
            label = None
            if not failed:
                label = bounded_label(bot, action)
                assert label_or_kind(world) == label, (seed, t)
                num_labels += 1
                failed = isinstance(label, str)
                if not failed:
                    assert_same_phase(world, bot, plan)
            is_random = failed or rng.random() < 0.4
            action = int(rng.integers(NUM_ACTIONS)) if is_random else label
            obs, reward, terminated, truncated, _ = env.step(action)
            assert world.step(action) == (reward, terminated, truncated), (seed, t)
            if terminated or truncated:
                break
        np.testing.assert_array_equal(world.obs, observation_vector(obs, env), err_msg=f"seed {seed}, at the end")
        assert world.num_steps == env.step_count == t + 1
        covered += 1
    assert covered == len(seeds) <= num_labels


@pytest.mark.parametrize("task_id", TASK_IDS)
def test_bot_episodes(task_id):
    world, answers = World(task_id), []
    for seed in (0, 1):
        answers.append(steps_or_kind(world, seed))
        assert answers[-1] == bot_episode(task_id, seed)
    assert len(answers) == 2
    if task_id in UNSOLVABLE:
        assert answers == ["assertion", "assertion"]
    elif "OpenDoorsOrder" not in task_id:  # the bot itself fails most of these
        assert all(isinstance(steps, int) for steps in answers)


@pytest.mark.parametrize("level", ["GoToLocal", "BlockedUnlockPickup", "KeyCorridorS4R3", "BossLevel"])
def test_searches_of_the_bot(level):
    """Full of balls, with some cells unseen: length and first step of each path are those of Minigrid's search."""
    world, covered, beyond_blockers = World(f"BabyAI-{level}-v0"), 0, 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        world.reset(seed)
        bot, env = BabyAIBot(world.env), world.env
        cells = [(x, y) for x in range(env.width) for y in range(env.height)]
        for at in cells:
            if env.grid.get(*at) is None and at != tuple(env.agent_pos) and rng.random() < 0.4:
                env.grid.set(*at, Ball("red"))
        codes, seen = grid_codes(env.grid), rng.random(world.seen.shape) < 0.9
        env.agent_dir, bot.vis_mask = seed % 4, seen
        ours = np.zeros(1, bot_kernels.BOT)[0]
        (ours["x"], ours["y"]), (ours["dx"], ours["dy"]) = env.agent_pos, DIRECTIONS[env.agent_dir]
        for target in [cells[n] for n in rng.permutation(len(cells))[:60]]:
            for with_blockers in (False, True):
                # Minigrid's search has no public name
                path, _, is_beyond = bot._shortest_path(lambda pos, cell, at=target: pos == at, with_blockers)
                steps, first, ours_is_beyond = grid.shortest_path(ours, codes, seen, *target, with_blockers)
                assert (steps, ours_is_beyond) == (-1 if path is None else len(path), is_beyond), seed
                if path:
                    assert first == path[0], seed
                covered += 1
                beyond_blockers += is_beyond and path is not None
    assert covered == 12 * 60 * 2 and beyond_blockers > 10


def furnish(env, seed: int) -> None:
    """Fill the free cells with objects, more in some seeds than in others, and lock or open some doors."""
    rng = np.random.default_rng(seed)
    density = (0.05, 0.15, 0.3, 0.5, 0.7, 0.9)[seed % 6]
    for x in range(env.width):
        for y in range(env.height):
            if env.grid.get(x, y) is None and (x, y) != tuple(env.agent_pos) and rng.random() < density:
                env.put_obj((Ball, Box, Key)[rng.integers(3)](COLOR_NAMES[rng.integers(6)]), x, y)
    for door in (cell for cell in env.grid.grid if cell is not None and cell.type == "door"):
        change = rng.random()
        if change < 0.4:
            door.is_locked, door.is_open = change < 0.15, change >= 0.15
    env.instrs.reset_verifier(env)


def test_lockstep_in_crowded_worlds():
    """Where the bot has to clear its way, put things down, find keys, and often fails: in each of its ways."""
    kinds, labels = dict.fromkeys(FAILURE_KINDS, 0), 0
    for level in ("GoToLocal", "PutNextLocal", "UnlockPickup", "BlockedUnlockPickup", "KeyCorridorS4R3", "BossLevel"):
        world, env = World(f"BabyAI-{level}-v0"), bare_env(f"BabyAI-{level}-v0")
        for seed in range(48):
            rng = np.random.default_rng((seed, 5))
            bare_reset(env, seed)
            world.reset(seed)
            furnish(env, seed)
            furnish(world.env, seed)
            world.codes, world.seen[:] = grid_codes(world.env.grid), False
            world.env.gen_obs()
            bot, action, share = bare_bot(env), None, rng.random()
            plan = plan_of(bot)
            for t in range(80):
                label = bounded_label(bot, action)
                assert label_or_kind(world) == label, (level, seed, t)
                labels += 1
                if isinstance(label, str):
                    kinds[label] += 1
                    break
                assert_same_phase(world, bot, plan)
                action = label if rng.random() < share else int(rng.choice([0, 1, 2, 2, 3, 3, 4, 4, 5]))
                ends = world.step(action)
                assert ends == env.step(action)[1:4], (level, seed, t)
                if ends[1] or ends[2]:
                    break
    assert labels > 2500 and all(kinds[kind] > 0 for kind in ("loop", "disappeared_box", "assertion", "error"))


def test_plain_environments_are_left_alone(monkeypatch):
    """The bare environments of these tests go Minigrid's own, slow ways: cell by cell."""
    num_looks, get = 0, Grid.get

    def count(grid, *position):
        nonlocal num_looks
        num_looks += 1
        return get(grid, *position)

    monkeypatch.setattr(Grid, "get", count)
    env, fast = bare_env("BabyAI-GoToLocal-v0"), make_env("BabyAI-GoToLocal-v0")
    bare_reset(env, 0)
    bare_reset(fast, 0)
    looks = []
    for searched in (env, fast):
        num_looks = 0
        searched.instrs.desc.find_matching_objs(searched)
        looks.append(num_looks)
    assert looks[0] >= env.width * env.height and looks[1] == 0
    for action in (LEFT, FORWARD, Actions.drop, TOGGLE):
        env.step(action)
    assert not isinstance(env, FastLevel) and env.step_count == 4
    assert isinstance(env.np_random, np.random.Generator)


@pytest.mark.parametrize("level", ["UnlockPickup", "BossLevel"])
def test_plan_that_outgrows_its_arrays(level):
    """Small arrays grow when the next call might need more, and change no answer."""
    ample, tight = World(f"BabyAI-{level}-v0"), World(f"BabyAI-{level}-v0")
    rng, labels = np.random.default_rng(0), []
    ample.reset(0)
    tight.reset(0)
    for _ in range(60):
        labels.append(ample.label())
        if tight.teacher is not None:
            bot = tight.teacher._bot[0]  # private names: nothing public tells how long the arrays are
            tight.teacher._stack = tight.teacher._stack[: max(bot["depth"], 1)].copy()
            tight.teacher._items = tight.teacher._items[: max(bot["num_items"], 1)].copy()
        assert tight.label() == labels[-1]
        action = int(rng.choice([labels[-1], rng.integers(3)]))
        assert ample.step(action) == tight.step(action)
    assert len(labels) == 60 and len(set(labels)) >= 3


def test_step_limit():
    covered = 0
    for seed in (0, 1, 2):  # the bot needs about 20 steps
        solved = bot_episode("BabyAI-UnlockPickup-v0", seed)
        for limit in (solved - 1, solved, 72):
            answer = bot_episode("BabyAI-UnlockPickup-v0", seed, limit)
            assert answer == ("unsolved" if limit < solved else solved)
            assert steps_or_kind(World("BabyAI-UnlockPickup-v0", limit), seed) == answer
            covered += 1
    assert covered == 9


# --- known answers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "level, seed, last_step", [("UnlockToUnlock", 4, 1), ("GoToImpUnlock", 6, 146), ("Unlock", 63, 160)]
)
def test_endless_planning_is_a_counted_failure(level, seed, last_step):
    threads, world = threading.active_count(), World(f"BabyAI-{level}-v0")
    assert steps_or_kind(world, seed) == "loop"
    assert world.num_steps == last_step
    assert threading.active_count() == threads
    assert bot_episode(f"BabyAI-{level}-v0", seed) == "loop"


def test_world_generation_is_silent(capfd):
    rejected, env, world = 0, gymnasium.make("BabyAI-GoToImpUnlock-v0").unwrapped, World("BabyAI-GoToImpUnlock-v0")
    capfd.readouterr()
    for seed in range(30):
        env.reset(seed=seed)
    rejected = capfd.readouterr().out.count("Sampling rejected")
    assert rejected > 0  # Minigrid prints here
    for seed in range(30):
        world.reset(seed)
    assert capfd.readouterr() == ("", "")


def test_teacher_keeps_the_kind_of_every_failure(monkeypatch):
    """What the planner raises becomes a counted kind; an error that is no planner's answer is a bug and stays one."""
    world, covered = World("BabyAI-GoToObj-v0"), 0
    for error, kind in (
        (AssertionError(), "assertion"),
        (bot_kernels.NowhereToGo(), "error"),
        (EndlessPlanning(), "loop"),
        (DisappearedBoxError("box"), "disappeared_box"),
        (TypeError(), None),
    ):

        def raise_it(*_, error=error):
            raise error

        monkeypatch.setattr("mop.fast.bot.replan", raise_it)
        world.reset(0)
        if kind is None:
            with pytest.raises(TypeError):
                world.label()
        else:
            assert label_or_kind(world) == kind
        covered += 1
    monkeypatch.setattr("mop.fast.bot.replan", lambda *_: bot_kernels.DONE)
    world.reset(0)
    assert label_or_kind(world) == "unsolved"
    assert covered == 5


# --- tasks ------------------------------------------------------------------------------------------------------------


def test_unknown_task_id():
    for make in (World, lambda task_id: BabyAIVectorEnv(task_id, 2, 0)):
        assert "BabyAI-UnlockPickup-v0" in refusal(make, "BabyAI-UnlockPickpu-v0"), "the nearest is proposed"
        for task_id in ("MiniGrid-Empty-8x8-v0", "%%%"):
            assert task_id in refusal(make, task_id)


@pytest.mark.parametrize("task_id", TASK_IDS)
def test_every_task_can_be_driven_by_its_bot(task_id):
    """No task hangs or stops. Unsolvable ones give labels, too, but then episodes end by failures of the bot only."""
    env = BabyAIVectorEnv(task_id, 2, 0)
    arrays = env.reset()
    ends = successes = failures = 0
    for _ in range(20):
        assert ((arrays.label >= 0) & (arrays.label < Actions.done)).all()
        arrays = env.step(arrays.label.copy())
        ends, successes = ends + arrays.done.sum(), successes + (arrays.reward > 0).sum()
        failures += (arrays.failure >= 0).sum()
        assert task_id == "BabyAI-KeyInBox-v0" or not arrays.fresh_failures.any()
    if task_id in UNSOLVABLE:
        assert ends == failures > 0 and successes == 0


def test_what_the_bot_cannot_solve_is_found_before_training():
    refused = {}
    for task_id in TASK_IDS:
        try:
            check_teachable(task_id, 0)
        except InputError as error:
            refused[task_id] = str(error)
    assert set(refused) == UNSOLVABLE
    assert all(task_id in text and "assertion 100" in text and "\n" not in text for task_id, text in refused.items())


def test_a_step_limit_that_evaluation_would_refuse_is_found_before_training():
    check_teachable("BabyAI-GoToObj-v0", 0, max_steps=20)
    assert "GoToObj" in refusal(check_teachable, "BabyAI-GoToObj-v0", 0, max_steps=1)
    refusal(check_teachable, "BabyAI-UnlockPickup-v0", 0, max_steps=3)


def test_training_seeds_are_distinct_and_beyond_evaluation_seeds():
    seeds = [training_seed(run, slot, k) for run in range(4) for slot in range(20) for k in range(40)]
    assert len(set(seeds)) == len(seeds) == 3200
    assert all(2**32 <= seed < 2**33 for seed in seeds)
    assert seeds[:2] == [training_seed(0, 0, 0), training_seed(0, 0, 1)]


# --- events -----------------------------------------------------------------------------------------------------------


def test_events_of_unlock_pickup_by_its_bot():
    """The bot takes the key, unlocks (and thereby opens) the door, drops the key, picks up the box."""
    world, env, covered = World("BabyAI-UnlockPickup-v0"), bare_env("BabyAI-UnlockPickup-v0"), 0
    for seed in range(10):
        bare_reset(env, seed)
        door = next(cell for cell in env.grid.grid if cell is not None and cell.type == "door")
        world.reset(seed)
        expected = dict.fromkeys(("t_pick", "t_opened", "t_unlocked", "t_drop"))
        for t in range(1, 73):
            held, was_open, was_locked, action = env.carrying, door.is_open, door.is_locked, world.label()
            reward = env.step(action)[1]
            world.step(action)
            now = {
                "t_pick": held is None and env.carrying is not None,
                "t_opened": door.is_open and not was_open,
                "t_unlocked": was_locked and not door.is_locked,
                "t_drop": held is not None and env.carrying is None,
            }
            expected = {name: t if expected[name] is None and now[name] else expected[name] for name in now}
            assert {name: getattr(world, name) for name in now} == expected
            if reward > 0:
                break
        assert 0 < world.t_pick < world.t_opened == world.t_unlocked < world.t_drop < world.num_steps == t
        covered += 1
        world.reset(seed)
        assert {getattr(world, name) for name in expected} == {None}
    assert covered == 10


def test_events_of_a_plain_door():
    """Opening a closed door is not unlocking it; only the first opening counts."""
    world, covered = World("BabyAI-OpenDoor-v0"), 0
    for seed in range(5):
        steps = bot_steps(world, seed)
        assert world.t_opened == steps == world.num_steps and world.actions[-1] == TOGGLE
        for _ in range(2):  # close it and open it again
            world.step(TOGGLE)
        assert world.t_opened == steps
        assert world.t_pick is None and world.t_unlocked is None and world.t_drop is None
        covered += 1
    assert covered == 5
