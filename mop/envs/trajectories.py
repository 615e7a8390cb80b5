"""Episodes of the bot in fixed worlds, as a policy would have seen them.

Axis letters: T steps, E trajectories, I numbers of an observation.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mop.common.errors import InputError
from mop.envs.babyai import MAX_FAILURES_IN_A_ROW, NO_LABEL, World, unteachable
from mop.envs.teacher import TeacherFailure

TRAJECTORY_SEEDS = 4_000_000  # their worlds begin here, beyond those in which policies are evaluated


@dataclass(frozen=True)
class Trajectories:
    """Episodes of the bot in fixed worlds: what it saw, and what it did."""

    obs: Tensor  # (T, E, I) float32, zeros after the end
    labels: Tensor  # (T, E) int64, NO_LABEL after the end
    subgoals: Tensor  # (T, E) int64, what it did each step for, an index into SUBGOALS; -1 after the end
    missions: tuple[str, ...]  # E
    seeds: tuple[int, ...]  # E

    @property
    def lengths(self) -> np.ndarray:
        """Steps (E,) of each."""
        return (self.labels != NO_LABEL).sum(0).numpy()


def bot_trajectories(task_id: str, max_steps: int | None, count: int, first_seed: int = TRAJECTORY_SEEDS):
    """The bot's own episodes in the first `count` worlds from a seed on that it solves, as `Trajectories`."""
    world, episodes, failures, seed = World(task_id, max_steps), [], [], first_seed
    while len(episodes) < count:
        try:
            episodes.append((*map(torch.as_tensor, _bot_episode(world, seed)), world.mission, seed))
            failures = []
        except TeacherFailure as failure:
            failures.append(failure.kind)
            if len(failures) == MAX_FAILURES_IN_A_ROW:
                raise InputError(unteachable(task_id, failures, max_steps)) from None
        seed += 1
    obs, labels, subgoals, missions, seeds = zip(*episodes, strict=True)
    pad = torch.nn.utils.rnn.pad_sequence
    padded = pad(list(obs)), pad(list(labels), padding_value=NO_LABEL), pad(list(subgoals), padding_value=-1)
    return Trajectories(*padded, missions, seeds)


def _bot_episode(world: World, seed: int) -> tuple[np.ndarray, list[int], list[int]]:
    """Observations (T, I), actions and sub-goals of the bot in a world. Raises TeacherFailure."""
    world.reset(seed)
    obs, labels, subgoals = [], [], []
    while True:
        obs.append(world.obs.copy())
        labels.append(world.label())
        assert world.teacher is not None  # `label` has made it
        subgoals.append(world.teacher.phase[0])
        reward, terminated, truncated = world.step(labels[-1])
        if reward > 0:
            return np.stack(obs), labels, subgoals
        if terminated or truncated:
            raise TeacherFailure("unsolved")
