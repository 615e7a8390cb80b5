"""Seeded worlds side by side: workers, save and restore, and every event at its index in worlds of known length."""

import gymnasium
import numpy as np
import pytest
from bare_minigrid import bare_env, bare_reset, observation_vector
from checks import refusal
from minigrid.core.actions import Actions
from minigrid.core.world_object import Ball, Box
from minigrid.envs.babyai.core.roomgrid_level import RoomGridLevel
from minigrid.envs.babyai.core.verifier import GoToInstr, ObjDesc

from mop.envs import vector_env
from mop.envs.babyai import MAX_FAILURES_IN_A_ROW, NUM_ACTIONS, World, training_seed
from mop.envs.teacher import FAILURE_KINDS, TeacherFailure
from mop.envs.vector_env import REPLAY_EVERY, BabyAIVectorEnv, StepArrays

LEFT, RIGHT, FORWARD, TOGGLE = Actions.left, Actions.right, Actions.forward, Actions.toggle
FIELDS = tuple(StepArrays.layout(1))


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


@pytest.mark.parametrize("level", ["UnlockToUnlock", "KeyInBox"])
def test_same_seed_same_arrays_with_any_number_of_workers(level):
    runs = {}
    for name, (num_envs, seed, num_workers) in {
        "plain": (5, 7, 0),
        "three": (5, 7, 3),
        "more workers than slots": (2, 7, 3),
        "two slots": (2, 7, 0),
        "other seed": (5, 8, 0),
    }.items():
        env = BabyAIVectorEnv(f"BabyAI-{level}-v0", num_envs, seed, num_workers=num_workers)
        env.reset()
        runs[name] = [snapshot(env), *drive(env, range(60))]
        env.close()
    assert len(runs["plain"]) == 61
    assert_same(runs["plain"], runs["three"])
    for name in ("two slots", "more workers than slots"):  # slot i does not depend on the number of slots
        assert_same(runs["plain"], runs[name], slots=2)
    assert (runs["plain"][0]["obs"] != runs["other seed"][0]["obs"]).any()
    assert count(runs["plain"], "steps") > 5 and count(runs["plain"], "failure") > 0
    assert (count(runs["plain"], "bot_steps") > 0) == (level != "KeyInBox")
    assert (count(runs["plain"], "fresh_failures") > 0) == (level == "KeyInBox")


@pytest.mark.parametrize("level", ["UnlockToUnlock", "KeyInBox"])
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
        for name in ("obs", "label", "missions"):
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
    refusal(BabyAIVectorEnv("BabyAI-GoToObj-v0", 3, 0).restore, state)


def test_task_whose_bot_never_begins(monkeypatch):
    def fail(world):
        raise TeacherFailure("loop" if world.seed % 2 else "assertion")

    monkeypatch.setattr(World, "label", fail)
    odd = sum(training_seed(0, 0, k) % 2 for k in range(MAX_FAILURES_IN_A_ROW))
    counts = f"loop {odd}, assertion {MAX_FAILURES_IN_A_ROW - odd}"
    line = refusal(BabyAIVectorEnv("BabyAI-GoToObj-v0", 2, 0).reset)
    assert "BabyAI-GoToObj-v0" in line and counts in line


@pytest.mark.parametrize("num_workers", [0, 2])
def test_worlds_in_progress_stay_and_later_ones_come_from_the_new_seed(num_workers):
    """Missions and views tell whose worlds they are."""
    task_id, num_envs = "BabyAI-GoToObj-v0", 3
    env, plain = (BabyAIVectorEnv(task_id, num_envs, 5, 9, w) for w in (num_workers, 0))
    rng, num_begun = np.random.default_rng(0), np.zeros(num_envs, int)
    for e in (env, plain):
        e.reset()
    for t in range(30):
        if t == 4:
            env.reseed(77)
            assert "seed" not in env.save()
        actions = rng.integers(0, 3, num_envs)
        for e in (env, plain):
            e.step(actions)
        for slot in np.flatnonzero(env.arrays.done):
            world = World(task_id, 9)
            num_begun[slot] += 1
            world.reset(training_seed(77, slot, env.save()["world"][slot]))
            assert world.mission == env.missions[slot] and np.array_equal(world.obs, env.arrays.obs[slot])
        for slot in np.flatnonzero(num_begun == 0):
            assert np.array_equal(env.arrays.obs[slot], plain.arrays.obs[slot])
    assert num_begun.min() >= 2 and set(env.save()["seed"]) == {77}
    assert not np.array_equal(env.arrays.obs, plain.arrays.obs)
    env.close()


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
        assert arrays.label.tolist() == [FORWARD, FORWARD]
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
    assert env.arrays.label[0] == LEFT
    arrays = env.step(np.array([TOGGLE, RIGHT]))
    assert (arrays.terminated.tolist(), arrays.truncated.tolist()) == ([False, False], [True, False])
    assert arrays.failure.tolist() == [FAILURE_KINDS.index("disappeared_box"), -1]
    assert arrays.steps.tolist() == [2, 0] and not arrays.reward.any() and not arrays.bot_steps.any()
    assert not arrays.fresh_failures.any()
    assert arrays.label.tolist() == [FORWARD, FORWARD]
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
    assert corridor in refusal(env.reset)


def test_failed_replay_gives_no_bot_steps(corridor, monkeypatch):
    def fail(world, seed):
        raise TeacherFailure("unsolved")

    monkeypatch.setattr(vector_env, "bot_steps", fail)
    env = BabyAIVectorEnv(corridor, 1, 5)
    env.reset()
    while not env.arrays.done.any():
        env.step(env.arrays.label.copy())
    assert env.arrays.reward[0] > 0 and env.arrays.bot_steps[0] == 0
