"""The fast environment against bare Minigrid, known answers, seeds, save and restore, events and their indices.

LOCKSTEP_SEEDS=100 compares more worlds of each task than the default.
"""

import os
import threading

import gymnasium
import numpy as np
import pytest
from bare_minigrid import bare_bot, bare_env, bare_reset, bot_episode, bounded_label, observation_vector
from minigrid.core.actions import Actions
from minigrid.core.constants import COLOR_NAMES
from minigrid.core.world_object import Ball, Box, Key
from minigrid.envs.babyai.core.roomgrid_level import RoomGridLevel
from minigrid.envs.babyai.core.verifier import GoToInstr, ObjDesc
from minigrid.utils.baby_ai_bot import BabyAIBot, DisappearedBoxError

from mop.base.errors import InputError
from mop.kernels import bot as bot_kernels
from mop.kernels.grid import grid_codes
from mop.worlds import minigrid_patches, vector_env
from mop.worlds.minigrid_patches import DIRECTIONS, QuickRandom
from mop.worlds.teacher import FAILURE_KINDS, TeacherFailure
from mop.worlds.vector_env import REPLAY_EVERY, BabyAIVectorEnv, StepArrays
from mop.worlds.world import (
    MAX_FAILURES_IN_A_ROW,
    NUM_ACTIONS,
    World,
    babyai_task_ids,
    bot_steps,
    check_teachable,
    training_seed,
)

TASK_IDS = babyai_task_ids()
NUM_TASKS = 96
LOCKSTEP_SEEDS = int(os.environ.get("LOCKSTEP_SEEDS", "20"))
LOCKSTEP_STEPS = 50
UNSOLVABLE = {
    "BabyAI-KeyInBox-v0",
    "BabyAI-PutNextS5N2Carrying-v0",
    "BabyAI-PutNextS6N3Carrying-v0",
    "BabyAI-PutNextS7N4Carrying-v0",
}
LEFT, RIGHT, FORWARD, TOGGLE = Actions.left, Actions.right, Actions.forward, Actions.toggle
FIELDS = tuple(StepArrays.layout(1))


def label_or_kind(world: World) -> int | str:
    try:
        return world.label()
    except TeacherFailure as failure:
        return failure.kind


def steps_or_kind(world: World, seed: int) -> int | str:
    try:
        return bot_steps(world, seed)
    except TeacherFailure as failure:
        return failure.kind


def snapshot(env: BabyAIVectorEnv) -> dict[str, np.ndarray]:
    """A copy of everything that the environment shows."""
    return {name: getattr(env.arrays, name).copy() for name in FIELDS} | {"missions": np.array(env.missions)}


def drive(env: BabyAIVectorEnv, steps: range, bot_share: float = 0.7) -> list[dict[str, np.ndarray]]:
    """Step with the bot's label or a random action, often a toggle (it opens boxes, where the bot fails).

    What slot i does at step t depends on i, t and its label only.
    """
    shown = []
    for t in steps:
        actions = np.zeros(env.num_envs, np.int64)
        for i in range(env.num_envs):
            rng = np.random.default_rng((i, t))
            random_action = rng.choice([TOGGLE, rng.integers(NUM_ACTIONS)])
            actions[i] = env.arrays.label[i] if rng.random() < bot_share else random_action
        env.step(actions)
        shown.append(snapshot(env))
    return shown


def count(shown: list[dict], name: str) -> int:
    """The sum of a counter over all steps and slots; of lengths and failures their number."""
    if name == "fresh_failures":
        return sum(int(step[name].sum()) for step in shown)
    return sum(int((step[name] > (-1 if name == "failure" else 0)).sum()) for step in shown)


def assert_same(ours: list[dict], theirs: list[dict], slots: int | None = None) -> None:
    assert len(ours) == len(theirs) > 0
    for t, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        assert len(a) == len(b) == len(FIELDS) + 1
        for name in a:
            np.testing.assert_array_equal(a[name][:slots], b[name][:slots], err_msg=f"{name} at step {t}")


# --- against bare Minigrid ---


def test_all_tasks_are_covered():
    assert len(TASK_IDS) == len(set(TASK_IDS)) == NUM_TASKS
    assert set(TASK_IDS) >= UNSOLVABLE and LOCKSTEP_SEEDS >= 1


@pytest.mark.parametrize("task_id", TASK_IDS)
def test_lockstep(task_id):
    """Observation, reward, flags and label or failure of every step; beyond a failure of the bot all but the label."""
    world, env = World(task_id), bare_env(task_id)
    covered = num_labels = 0
    for seed in range(LOCKSTEP_SEEDS):
        rng = np.random.default_rng((TASK_IDS.index(task_id), seed))
        obs = bare_reset(env, seed)
        world.reset(seed)
        bot, action, failed = bare_bot(env), None, False
        assert world.mission == env.mission and world.env.max_steps == env.max_steps
        for t in range(LOCKSTEP_STEPS):
            np.testing.assert_array_equal(world.obs, observation_vector(obs, env), err_msg=f"seed {seed}, step {t}")
            label = None
            if not failed:
                label = bounded_label(bot, action)
                assert label_or_kind(world) == label, (seed, t)
                num_labels += 1
                failed = isinstance(label, str)
            is_random = failed or rng.random() < 0.4
            action = int(rng.integers(NUM_ACTIONS)) if is_random else label
            obs, reward, terminated, truncated, _ = env.step(action)
            assert world.step(action) == (reward, terminated, truncated), (seed, t)
            if terminated or truncated:
                break
        np.testing.assert_array_equal(world.obs, observation_vector(obs, env), err_msg=f"seed {seed}, at the end")
        assert world.num_steps == env.step_count == t + 1
        covered += 1
    assert covered == LOCKSTEP_SEEDS and num_labels >= LOCKSTEP_SEEDS


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
                path, _, is_beyond = bot._shortest_path(lambda pos, cell, at=target: pos == at, with_blockers)
                steps, first, ours_is_beyond = bot_kernels.shortest_path(ours, codes, seen, *target, with_blockers)
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
            world._observe()
            bot, action, share = bare_bot(env), None, rng.random()
            for t in range(80):
                label = bounded_label(bot, action)
                assert label_or_kind(world) == label, (level, seed, t)
                labels += 1
                if isinstance(label, str):
                    kinds[label] += 1
                    break
                action = label if rng.random() < share else int(rng.choice([0, 1, 2, 2, 3, 3, 4, 4, 5]))
                ends = world.step(action)
                assert ends == env.step(action)[1:4], (level, seed, t)
                if ends[1] or ends[2]:
                    break
    assert labels > 5000 and all(kinds[kind] > 0 for kind in ("loop", "disappeared_box", "assertion", "error"))


def test_random_draws_of_world_generation():
    covered = 0
    for seed in range(20):
        ours, numpys = QuickRandom(np.random.PCG64(seed)), np.random.Generator(np.random.PCG64(seed))
        choice = np.random.default_rng(seed)
        for _ in range(200):
            count = int(choice.choice([1, choice.integers(2, 9), choice.integers(2, 2**32), 3 * 2**30]))
            assert ours.integers(-5, count - 5) == numpys.integers(-5, count - 5)  # the last: a quarter is rejected
            assert ours.uniform(2.0, 3.0) == numpys.uniform(2.0, 3.0)
            covered += 1
    assert covered == 20 * 200


def test_plain_environments_are_left_alone(monkeypatch):
    """The bare environments of these tests never reach what replaces Minigrid's slow spots."""

    def refuse(*_):
        raise AssertionError("a plain environment was quickened")

    for name in ("_verify_go_to", "_find_matching_objs"):
        monkeypatch.setattr(minigrid_patches, name, refuse)
    env = bare_env("BabyAI-GoToLocal-v0")
    bare_reset(env, 0)
    for action in (LEFT, FORWARD, Actions.drop, TOGGLE):
        env.step(action)
    assert not isinstance(env, minigrid_patches.QuickLevel) and env.step_count == 4
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
            bot = tight.teacher._bot
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


# --- known answers ---


@pytest.mark.parametrize(
    "level, seed, last_step", [("UnlockToUnlock", 4, 1), ("GoToImpUnlock", 6, 146), ("Unlock", 63, 160)]
)
def test_endless_planning_is_a_counted_failure(level, seed, last_step):
    threads, world = threading.active_count(), World(f"BabyAI-{level}-v0")
    assert steps_or_kind(world, seed) == "loop"
    assert world.num_steps == last_step
    assert threading.active_count() == threads
    assert bot_episode(f"BabyAI-{level}-v0", seed) == "loop"


def test_bot_solves_unlock_pickup():
    world = World("BabyAI-UnlockPickup-v0")
    steps = [bot_steps(world, seed) for seed in range(150)]  # no TeacherFailure: success 1.0
    assert len(steps) == 150 and max(steps) == 27
    assert np.mean(steps) == pytest.approx(19.56, abs=1e-9)
    assert world.env.max_steps == 72


def test_bot_fails_two_of_three_ordered_doors():
    world = World("BabyAI-OpenDoorsOrderN4Debug-v0")
    answers = [steps_or_kind(world, seed) for seed in range(150)]
    assert sum(isinstance(answer, int) for answer in answers) == 46
    assert answers.count("unsolved") == 104


@pytest.mark.parametrize("level", ["BossLevel", "Synth"])
def test_used_world_equals_fresh_world(level):
    used, covered = World(f"BabyAI-{level}-v0"), 0
    for seed in range(5):
        fresh = World(f"BabyAI-{level}-v0")
        for world in (used, fresh):
            world.reset(seed)
        for t in range(30):
            np.testing.assert_array_equal(used.obs, fresh.obs)
            label = used.label()
            assert fresh.label() == label and fresh.mission == used.mission
            action = label if t % 3 else FORWARD
            end = used.step(action)
            assert fresh.step(action) == end
            covered += 1
            if end[1]:
                break
    assert 100 < covered <= 150


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


# --- task ids ---


def test_unknown_task_id():
    covered = 0
    for make in (World, lambda task_id: BabyAIVectorEnv(task_id, 2, 0)):
        with pytest.raises(InputError, match=r"'BabyAI-UnlockPickpu-v0'; did you mean BabyAI-UnlockPickup-v0"):
            make("BabyAI-UnlockPickpu-v0")
        with pytest.raises(InputError, match=r"unknown task id 'MiniGrid-Empty-8x8-v0'"):
            make("MiniGrid-Empty-8x8-v0")
        with pytest.raises(InputError, match=r"unknown task id '%%%'; for example"):
            make("%%%")
        covered += 1
    assert covered == 2


@pytest.mark.parametrize("task_id", TASK_IDS)
def test_every_task_can_be_driven_by_its_bot(task_id):
    """No task hangs or stops. Unsolvable ones give labels, too, but then episodes end by failures of the bot only."""
    env = BabyAIVectorEnv(task_id, 2, 0)
    arrays = env.reset()
    ends = successes = failures = 0
    for _ in range(20):
        assert arrays.label_valid.all() and ((arrays.label >= 0) & (arrays.label < Actions.done)).all()
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


def test_task_whose_bot_never_begins(monkeypatch):
    def fail(world):
        raise TeacherFailure("loop" if world.seed % 2 else "assertion")

    monkeypatch.setattr(World, "label", fail)
    odd = sum(training_seed(0, 0, k) % 2 for k in range(MAX_FAILURES_IN_A_ROW))
    counts = f"loop {odd}, assertion {MAX_FAILURES_IN_A_ROW - odd}"
    message = rf"cannot teach BabyAI-GoToObj-v0.* {MAX_FAILURES_IN_A_ROW} worlds in a row \({counts}\)"
    with pytest.raises(InputError, match=message):
        BabyAIVectorEnv("BabyAI-GoToObj-v0", 2, 0).reset()


# --- seeds ---


def test_training_seeds_are_distinct_and_beyond_evaluation_seeds():
    seeds = [training_seed(run, slot, k) for run in range(4) for slot in range(20) for k in range(40)]
    assert len(set(seeds)) == len(seeds) == 3200
    assert all(2**32 <= seed < 2**33 for seed in seeds)
    assert seeds[:2] == [training_seed(0, 0, 0), training_seed(0, 0, 1)]


@pytest.mark.parametrize("level", ["UnlockPickup", "UnlockToUnlock", "KeyInBox"])
def test_same_seed_same_arrays_with_any_number_of_workers(level):
    runs = {}
    for name, (num_envs, seed, num_workers) in {
        "plain": (5, 7, 0),
        "again": (5, 7, 0),
        "three": (5, 7, 3),
        "two": (5, 7, 2),
        "more workers than slots": (2, 7, 3),
        "two slots": (2, 7, 0),
        "other seed": (5, 8, 0),
    }.items():
        env = BabyAIVectorEnv(f"BabyAI-{level}-v0", num_envs, seed, num_workers=num_workers)
        env.reset()
        runs[name] = [snapshot(env), *drive(env, range(60))]
        env.close()
    assert len(runs) == 7 and len(runs["plain"]) == 61
    for name in ("again", "two", "three"):
        assert_same(runs["plain"], runs[name])
    for name in ("two slots", "more workers than slots"):  # slot i does not depend on the number of slots
        assert_same(runs["plain"], runs[name], slots=2)
    assert (runs["plain"][0]["obs"] != runs["other seed"][0]["obs"]).any()
    assert count(runs["plain"], "steps") > 5 and count(runs["plain"], "failure") > 0
    assert (count(runs["plain"], "bot_steps") > 0) == (level != "KeyInBox")
    assert (count(runs["plain"], "fresh_failures") > 0) == (level == "KeyInBox")


@pytest.mark.parametrize("level", ["UnlockPickup", "UnlockToUnlock", "KeyInBox"])
def test_save_and_restore(level):
    """A restored environment shows what the saved one shows, whatever it did before and whoever steps it."""

    def make(num_workers):
        return BabyAIVectorEnv(f"BabyAI-{level}-v0", 5, 7, num_workers=num_workers)

    env = make(0)
    env.reset()
    before = drive(env, range(50))
    state = env.save()
    at_save, after = before[-1], drive(env, range(50, 100))
    shapes = {"world": (5,), "length": (5,), "actions": (state["length"].sum(),)}
    assert {name: value.shape for name, value in state.items()} == shapes
    assert all(type(value) is np.ndarray and value.dtype.kind == "i" for value in state.values())
    assert count(before + after, "failure") > 0
    assert (count(before, "fresh_failures") > 0) == (count(after, "fresh_failures") > 0) == (level == "KeyInBox")
    assert state["world"].max() > 0

    covered = 0
    for num_workers, used in ((0, False), (2, False), (3, True)):
        restored = make(num_workers)
        if used:
            restored.reset()
            drive(restored, range(7))
        restored.restore(state)
        for name in ("obs", "label", "label_valid", "missions"):
            np.testing.assert_array_equal(snapshot(restored)[name], at_save[name])
        for name, value in restored.save().items():
            np.testing.assert_array_equal(value, state[name])
        assert_same(drive(restored, range(50, 100)), after)
        restored.close()
        covered += 1
    assert covered == 3


def test_restore_at_the_beginning_and_into_the_wrong_number():
    env = BabyAIVectorEnv("BabyAI-GoToObj-v0", 2, 0)
    env.reset()
    state, first = env.save(), snapshot(env)
    assert state["length"].tolist() == [0, 0] and state["actions"].shape == (0,)
    drive(env, range(20))
    env.restore(state)
    assert_same([snapshot(env)], [first])
    with pytest.raises(InputError, match="2 environments, this run has 3"):
        BabyAIVectorEnv("BabyAI-GoToObj-v0", 3, 0).restore(state)


# --- a world of known length: events and their indices ---

CORRIDOR = "BabyAI-TestCorridor-v0"


class Corridor(RoomGridLevel):
    """The agent at (1, 1) faces a ball: the bot walks `length` steps. A box stands to the agent's right."""

    def __init__(self, **kwargs):
        super().__init__(num_rows=1, num_cols=1, room_size=9, **kwargs)

    def gen_mission(self):
        self.length = self._rand_int(1, 6)
        self.put_obj(Ball("red"), 2 + self.length, 1)
        self.put_obj(Box("blue"), 1, 2)
        self.agent_pos, self.agent_dir = np.array([1, 1]), 0
        self.instrs = GoToInstr(ObjDesc("ball", "red"))


@pytest.fixture
def corridor():
    gymnasium.register(CORRIDOR, entry_point=Corridor)
    yield CORRIDOR
    del gymnasium.registry[CORRIDOR]


def corridor_length(seed: int) -> int:
    env = bare_env(CORRIDOR)
    bare_reset(env, seed)
    return env.length


def first_obs(seed: int) -> np.ndarray:
    env = bare_env(CORRIDOR)
    return observation_vector(bare_reset(env, seed), env)


@pytest.mark.parametrize("limit", [None, 3])
def test_events_of_known_length(corridor, limit):
    """Slot 0 and 1 walk to the ball; every end, its fields and the first view of the next world come when they must."""
    env = BabyAIVectorEnv(corridor, 2, 5, max_steps=limit)
    arrays = env.reset()
    k, walked, ends, replays, truncations = [0, 0], [0, 0], 0, 0, 0
    lengths = [[corridor_length(training_seed(5, i, n)) for n in range(60)] for i in range(2)]
    assert set(lengths[0]) == {1, 2, 3, 4, 5}
    assert not arrays.done.any() and not arrays.steps.any() and (arrays.failure == -1).all()
    for _ in range(60):
        assert arrays.label.tolist() == [FORWARD, FORWARD] and arrays.label_valid.all()
        arrays = env.step(arrays.label.copy())
        for i in range(2):
            walked[i] += 1
            length = lengths[i][k[i]]
            is_success, is_truncated = walked[i] == length, walked[i] == limit
            assert (arrays.terminated[i], arrays.truncated[i]) == (is_success, is_truncated)
            assert arrays.done[i] == (is_success or is_truncated)
            assert (arrays.reward[i] > 0) == is_success
            assert arrays.steps[i] == (walked[i] if arrays.done[i] else 0)
            is_replayed = is_success and k[i] % REPLAY_EVERY == 0
            assert arrays.bot_steps[i] == (length if is_replayed else 0)
            assert arrays.failure[i] == -1 and not arrays.fresh_failures[i].any()
            if arrays.done[i]:
                k[i], walked[i], ends = k[i] + 1, 0, ends + 1
                np.testing.assert_array_equal(arrays.obs[i], first_obs(training_seed(5, i, k[i])))
            replays, truncations = replays + is_replayed, truncations + is_truncated
    assert ends >= 30 and replays >= 3 and env.save()["world"].tolist() == k
    assert truncations == 0 if limit is None else truncations > 10


def test_bot_failure_ends_the_episode(corridor):
    """Turn to the box, open it: the bot has no label for that state, so the slot begins the next world."""
    env = BabyAIVectorEnv(corridor, 2, 5)
    env.reset()
    env.step(np.array([RIGHT, LEFT]))
    assert env.arrays.label[0] == LEFT and env.arrays.label_valid.all()
    arrays = env.step(np.array([TOGGLE, RIGHT]))
    assert (arrays.terminated.tolist(), arrays.truncated.tolist()) == ([False, False], [True, False])
    assert arrays.failure.tolist() == [FAILURE_KINDS.index("disappeared_box"), -1]
    assert arrays.steps.tolist() == [2, 0] and not arrays.reward.any() and not arrays.bot_steps.any()
    assert not arrays.fresh_failures.any()
    assert arrays.label.tolist() == [FORWARD, FORWARD] and arrays.label_valid.all()
    np.testing.assert_array_equal(arrays.obs[0], first_obs(training_seed(5, 0, 1)))
    arrays = env.step(np.array([RIGHT, RIGHT]))
    assert (arrays.failure == -1).all() and not arrays.done.any() and not arrays.steps.any()


def test_step_limit_comes_before_the_bot_failure(corridor):
    """The bot is not asked about a state in which the episode has ended anyway."""
    env = BabyAIVectorEnv(corridor, 1, 5, max_steps=2)
    env.reset()
    env.step(np.array([RIGHT]))
    arrays = env.step(np.array([TOGGLE]))  # opens the box
    assert arrays.truncated[0] and arrays.steps[0] == 2 and arrays.failure[0] == -1


def test_worlds_that_the_bot_cannot_begin_are_passed_over(corridor, monkeypatch):
    """They are counted once, by kind, in the step that leads past them; the next world keeps its own index k."""
    fails = {training_seed(5, 0, k): kind for k, kind in {0: "loop", 2: "error", 3: "loop", 4: "error"}.items()}
    original = World.label

    def label(world):
        if world.num_steps == 0 and world.seed in fails:
            raise TeacherFailure(fails[world.seed])
        return original(world)

    monkeypatch.setattr(World, "label", label)
    env = BabyAIVectorEnv(corridor, 1, 5)
    seen = [{"fresh": env.reset().fresh_failures[0].tolist(), "world": int(env.save()["world"][0])}]
    assert not env.arrays.done.any()
    while seen[-1]["world"] < 8:
        arrays = env.step(env.arrays.label.copy())
        if arrays.done[0] or arrays.fresh_failures.any():
            assert arrays.done[0] and arrays.terminated[0]
            world = int(env.save()["world"][0])
            seen.append({"fresh": arrays.fresh_failures[0].tolist(), "world": world})
            np.testing.assert_array_equal(arrays.obs[0], first_obs(training_seed(5, 0, world)))
    nothing = [0] * len(FAILURE_KINDS)
    loop, error = FAILURE_KINDS.index("loop"), FAILURE_KINDS.index("error")
    assert [entry["world"] for entry in seen] == [1, 5, 6, 7, 8]
    assert seen[0]["fresh"] == [int(n == loop) for n in range(len(nothing))]
    assert seen[1]["fresh"] == [1 if n == loop else 2 if n == error else 0 for n in range(len(nothing))]
    assert [entry["fresh"] for entry in seen[2:]] == [nothing] * 3


def test_last_world_before_giving_up_still_counts(corridor, monkeypatch):
    begin_at = training_seed(5, 0, 3)
    original = World.label

    def label(world):
        if world.num_steps == 0 and world.seed != begin_at:
            raise TeacherFailure("assertion")
        return original(world)

    monkeypatch.setattr(World, "label", label)
    monkeypatch.setattr(vector_env, "MAX_FAILURES_IN_A_ROW", 4)
    env = BabyAIVectorEnv(corridor, 1, 5)
    assert env.reset().fresh_failures.sum() == 3 and env.save()["world"].tolist() == [3]
    monkeypatch.setattr(vector_env, "MAX_FAILURES_IN_A_ROW", 3)
    with pytest.raises(InputError, match=f"cannot teach {corridor}: it failed in 3 worlds in a row"):
        env.reset()


def test_failed_replay_gives_no_bot_steps(corridor, monkeypatch):
    def fail(world, seed):
        raise TeacherFailure("unsolved")

    monkeypatch.setattr(vector_env, "bot_steps", fail)
    env = BabyAIVectorEnv(corridor, 1, 5)
    env.reset()
    while not env.arrays.done.any():
        env.step(env.arrays.label.copy())
    assert env.arrays.reward[0] > 0 and env.arrays.bot_steps[0] == 0


def test_teacher_keeps_the_kind_of_every_failure(corridor, monkeypatch):
    """What the planner raises becomes a counted kind; an error that is no planner's answer is a bug and stays one."""
    world, covered = World(corridor), 0
    for error, kind in (
        (AssertionError(), "assertion"),
        (bot_kernels.NowhereToGo(), "error"),
        (bot_kernels.EndlessPlanning(), "loop"),
        (DisappearedBoxError("box"), "disappeared_box"),
        (TypeError(), None),
    ):

        def raise_it(*_, error=error):
            raise error

        monkeypatch.setattr("mop.worlds.teacher.replan", raise_it)
        world.reset(0)
        if kind is None:
            with pytest.raises(TypeError):
                world.label()
        else:
            assert label_or_kind(world) == kind
        covered += 1
    monkeypatch.setattr("mop.worlds.teacher.replan", lambda *_: bot_kernels.DONE)
    world.reset(0)
    assert label_or_kind(world) == "unsolved"
    assert covered == 5


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
