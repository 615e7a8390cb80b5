"""Unrolls of the student: what is recorded, against a plain loop; any number of workers; missions; save and restore."""

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from checks import refusal

from mop.envs.babyai import NO_LABEL
from mop.envs.vector_env import BabyAIVectorEnv, StepArrays
from mop.fast.policy_step import CompiledPolicy, PolicyShape
from mop.training.unroll import Rollouts

ROOT = Path(__file__).resolve().parents[3]
LANG_DIM = 6
SHAPE = PolicyShape(152, LANG_DIM, 10, 7, ((5, 0, 3), (4, 0, 8, 2)))
NUM_ENVS, NUM_STEPS = 5, 9
BOT_ACTS = np.random.default_rng(1).random((40, NUM_ENVS)) < 0.3
FIELDS = tuple(StepArrays.layout())


def embed(mission: str) -> np.ndarray:
    rng = np.random.default_rng(list(mission.encode()))
    return rng.standard_normal(LANG_DIM).astype(np.float32)


def weights() -> np.ndarray:
    """So large that the student's actions differ from state to state."""
    return (0.5 * np.random.default_rng(0).standard_normal(SHAPE.num_weights)).astype(np.float32)


def make(task_id: str = "BabyAI-GoToObj-v0", num_workers: int = 0, num_steps: int = NUM_STEPS) -> Rollouts:
    """Short episodes, so that some end in every unroll."""
    rollouts = Rollouts(task_id, NUM_ENVS, 3, 6, num_workers, student=SHAPE, num_steps=num_steps)
    rollouts.student.weights[:] = weights()
    rollouts.bot_acts[:] = BOT_ACTS[:num_steps]
    rollouts.env.reset()
    return rollouts


def copied(unroll) -> dict[str, np.ndarray]:
    fields = {name: getattr(unroll.steps, name).copy() for name in FIELDS}
    texts = np.array(unroll.missions)[unroll.mission]
    return fields | {"keep": unroll.keep, "mission": texts, "missions": np.array(unroll.missions)}


def assert_same(ours: dict, theirs: dict) -> None:
    assert ours.keys() == theirs.keys() and len(ours) == len(FIELDS) + 3
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


@pytest.mark.parametrize("level", ["GoToObj", "PickupLoc"])
def test_a_plain_loop_records_the_same(level):
    """Stepping the vector environment with the student's actions; hidden state and mission change with the episode."""
    rollouts, plain = make(f"BabyAI-{level}-v0"), BabyAIVectorEnv(f"BabyAI-{level}-v0", NUM_ENVS, 3, 6)
    student, hidden, num_done = CompiledPolicy(SHAPE, weights()), np.zeros((NUM_ENVS, 22), np.float32), 0
    now, begins = plain.reset(), np.zeros(NUM_ENVS, bool)
    for _ in range(3):
        unroll = copied(rollouts.unroll(embed))
        for t in range(NUM_STEPS):
            np.testing.assert_array_equal(unroll["obs"][t], now.obs)
            np.testing.assert_array_equal(unroll["label"][t], now.label)
            assert list(unroll["mission"][t]) == plain.missions
            assert list(unroll["keep"][t]) == ([True] * NUM_ENVS if t == 0 else list(~begins))
            lang = np.stack([embed(mission) for mission in plain.missions])
            logits, _, hidden = student.step(now.obs.copy(), lang, hidden)
            plain.step(np.where(BOT_ACTS[t] & (now.label != NO_LABEL), now.label, logits.argmax(1)))
            begins = now.done
            hidden[begins] = 0.0
            num_done += begins.sum()
            for name in FIELDS:
                if name not in ("obs", "label"):
                    np.testing.assert_array_equal(unroll[name][t], getattr(now, name), err_msg=name)
        np.testing.assert_array_equal(rollouts.hidden, hidden)
        assert rollouts.env.missions == plain.missions
        assert set(unroll["missions"]) == set(unroll["mission"].ravel()) and len(set(unroll["missions"])) > 1
    assert num_done >= 15 and len(set(plain.missions)) > 1


@pytest.mark.parametrize("level", ["GoToObj", "UnlockToUnlock", "KeyInBox"])
def test_any_number_of_workers_records_the_same(level):
    shown, covered = {}, 0
    for num_workers in (0, 1, 2, 9):
        rollouts = make(f"BabyAI-{level}-v0", num_workers)
        shown[num_workers] = [copied(rollouts.unroll(embed)) for _ in range(3)]
        state, hidden = rollouts.env.save(), rollouts.hidden.copy()
        rollouts.close()
        for ours, first in zip(shown[num_workers], shown[0], strict=True):
            assert_same(ours, first)
            covered += 1
        if num_workers == 0:
            first_state, first_hidden = state, hidden
        np.testing.assert_array_equal(hidden, first_hidden)
        for name in state:
            np.testing.assert_array_equal(state[name], first_state[name])
    assert covered == 4 * 3
    assert sum(unroll["terminated"].sum() + unroll["truncated"].sum() for unroll in shown[0]) > 10


@pytest.mark.parametrize("num_workers", [0, 2])
def test_weights_and_hidden_state_count_when_they_are_written(num_workers):
    rollouts = make(num_workers=num_workers)
    state, before = rollouts.env.save(), copied(rollouts.unroll(embed))
    rollouts.env.restore(state)
    rollouts.hidden[:] = 0.0
    assert_same(copied(rollouts.unroll(embed)), before)
    rollouts.env.restore(state)
    rollouts.hidden[:] = 5.0
    other_hidden = copied(rollouts.unroll(embed))
    rollouts.env.restore(state)
    rollouts.hidden[:] = 0.0
    rollouts.student.weights[:] = -weights()
    other_weights = copied(rollouts.unroll(embed))
    rollouts.close()
    assert (other_hidden["obs"] != before["obs"]).any() and (other_weights["obs"] != before["obs"]).any()


def test_missions_are_asked_for_once_an_unroll_by_each_worker():
    asked = []

    def answer(mission):
        asked.append(mission)
        return embed(mission)

    rollouts = make(num_workers=2, num_steps=40)
    missions = {mission for _ in range(3) for mission in rollouts.unroll(answer).missions}
    rollouts.close()
    assert len(missions) > 8 and set(asked) == missions  # of the 18 missions of this task
    assert max(asked.count(mission) for mission in missions) <= 2 * 3


@pytest.mark.parametrize("num_workers", [0, 2])
def test_worlds_of_an_interrupted_unroll_are_not_used_again(num_workers):
    """They stand somewhere in the unroll; what they would show next belongs to no step."""
    asked = []

    def refuse(mission):
        asked.append(mission)
        if len(asked) == NUM_ENVS + 2:
            raise KeyboardInterrupt
        return embed(mission)

    rollouts = make(num_workers=num_workers, num_steps=40)
    with pytest.raises(KeyboardInterrupt):
        rollouts.unroll(refuse)
    for command in (rollouts.env.reset, lambda: rollouts.unroll(embed), rollouts.env.save):
        with pytest.raises(RuntimeError, match="interrupted"):
            command()
    rollouts.close()
    assert len(asked) == NUM_ENVS + 2


def test_killed_worker_is_reported_in_an_unroll():
    rollouts = make(num_workers=2)
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    os.kill(workers[0].pid, signal.SIGKILL)
    assert "--resume" in refusal(rollouts.unroll, embed)
    assert not any(process.is_alive() for process in workers)


def test_workers_need_no_torch():
    code = "import sys, mop.training.unroll; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
