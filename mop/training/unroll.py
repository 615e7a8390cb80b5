"""Unrolls: the student, or the bot in its place, acts in N environments, here or in worker processes.

A whole unroll is one command to a worker, not one for each step, so that workers wait for each other once an unroll.
Axis letters: T steps of an unroll, N environments, O numbers of an observation, S hidden units.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from mop.common.workers import Layout
from mop.envs.babyai import NO_LABEL
from mop.envs.vector_env import BabyAIVectorEnv, Slots, StepArrays

# Fields of a step that belong to the action just taken; obs and labels are those that the student acted on.
_AFTER = [name for name in StepArrays.layout() if name not in ("obs", "label")]

Embed = Callable[[str], np.ndarray]  # a mission -> what the policy sees of it (G,) float32


@dataclass
class Unroll:
    """T steps of the student in N environments. Arrays are overwritten by the next unroll."""

    steps: StepArrays  # (T, N, ...): obs and label before step t, the other fields after it
    keep: np.ndarray  # (T, N) bool: False where step t is the first of an episode
    missions: list[str]  # U different ones
    mission: np.ndarray  # (T, N) int64, index into `missions`


class Student(Protocol):
    """A policy that acts in the worlds: `mop.fast.policy_step.PolicyShape`, or `execution.PlainStudent`."""

    @property
    def hidden_size(self) -> int:
        """S."""

    @property
    def layout(self) -> Layout:
        """The memory that holds its weights."""

    def compile(self) -> None:
        """Compile what acts."""

    def attach(self, memory: dict[str, np.ndarray]) -> Any:
        """The policy with `step`, as `execution.PlainStudent`, and the weights of that memory."""


class Rollouts:
    """A student in a vector environment, in which it acts by itself.

    `env` (BabyAIVectorEnv) has the worlds, `student` the weights, `hidden` (N, S) float32 the student's hidden
    state, and `bot_acts` (T, N) bool says at which steps of an unroll the bot's label is taken instead of the
    student's action, where there is one. All may be written between unrolls. Results do not depend on `num_workers`.
    """

    def __init__(
        self, task_id: str | Sequence[str], num_envs: int, seed: int, max_steps: int | None, num_workers: int, *,
        student: Student, num_steps: int,
    ):  # fmt: skip
        """As `BabyAIVectorEnv`, for that student and unrolls of `num_steps` T."""
        self.num_steps = num_steps
        if num_workers > 0:
            student.compile()  # here, or every worker would
        shared = {f"unroll.{name}": array for name, array in StepArrays.layout(num_steps, num_envs).items()}
        shared["bot_acts"] = ((num_steps, num_envs), np.dtype(bool))
        shared["hidden"] = ((num_envs, student.hidden_size), np.dtype("f4"))
        more_commands = functools.partial(_student_commands, student)
        self.env = BabyAIVectorEnv(
            task_id, num_envs, seed, max_steps, num_workers, {**shared, **student.layout}, more_commands
        )
        self.student = student.attach(self.env.memory)
        self.hidden, self.bot_acts = self.env.memory["hidden"], self.env.memory["bot_acts"]
        self._steps = _recorded(self.env.memory)

    def unroll(self, embed: Embed) -> Unroll:
        """T steps of every slot; `embed` is asked for the missions that come up, and must be deterministic."""
        missions = self.env.missions
        begun = [mission for share in self.env.call("unroll", missions, embed) for mission in share]
        begun.sort(reverse=True)  # by step and slot, whichever share was ready first; the earliest is the last
        rows: dict[str, int] = {}
        done = self._steps.done
        mission = np.empty(done.shape, np.int64)
        for t in range(self.num_steps):
            mission[t] = [rows.setdefault(text, len(rows)) for text in missions]
            while begun and begun[-1][0] == t:
                _, slot, missions[slot] = begun.pop()
        keep = np.ones_like(done)
        keep[1:] = ~done[:-1]
        return Unroll(self._steps, keep, list(rows), mission)

    def close(self) -> None:
        """End the worker processes."""
        self.env.close()


def _recorded(memory: dict[str, np.ndarray]) -> StepArrays:
    return StepArrays(**{name: memory[f"unroll.{name}"] for name in StepArrays.layout()})


def _student_commands(given: Student, memory: dict[str, np.ndarray], ask: Embed, slots: Slots) -> dict[str, Callable]:
    """The command "unroll", given the missions of the slots."""
    student = given.attach(memory)

    def unroll(missions: Sequence[str]) -> list[tuple[int, int, str]]:
        hidden, record = memory["hidden"][slots.rows], _recorded(memory)
        embed = functools.cache(ask)  # until the weights change
        return _unroll(slots, student, hidden, missions, embed, memory["bot_acts"], record)

    return {"unroll": unroll}


def _unroll(
    slots: Slots, student, hidden: np.ndarray, missions: Sequence[str], embed: Embed,
    bot_acts: np.ndarray, record: StepArrays,
) -> list[tuple[int, int, str]]:  # fmt: skip
    """T steps of some slots into the record (T, N, ...). Returns the missions begun: (step, slot, mission).

    hidden (rows of `slots`, S) is carried on in place, missions are those of the slots at the beginning.
    """
    now, rows, begun = slots.arrays, slots.rows, []
    lang = np.stack([embed(mission) for mission in missions])
    for t in range(len(record.obs)):
        record.obs[t, rows], record.label[t, rows] = now.obs[rows], now.label[rows]
        logits, _, hidden[:] = student.step(now.obs[rows], lang, hidden)
        actions = np.zeros(len(now.obs), np.int64)
        bot_may_act = bot_acts[t, rows] & (now.label[rows] != NO_LABEL)
        actions[rows] = np.where(bot_may_act, now.label[rows], logits.argmax(-1))
        for slot, mission in slots.step(actions).items():
            begun.append((t, slot, mission))
            lang[slot - slots.first] = embed(mission)
            hidden[slot - slots.first] = 0.0
        for name in _AFTER:
            getattr(record, name)[t, rows] = getattr(now, name)[rows]
    return begun
