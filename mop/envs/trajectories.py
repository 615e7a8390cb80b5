"""Episodes of the bot in fixed worlds, as a policy would have seen them.

Axis letters: T steps, E trajectories, I numbers of an observation.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mop.envs.babyai import NO_LABEL, World
from mop.envs.bot_paths import BotPaths

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
    solved, _ = BotPaths(task_id, max_steps, None).solvable(first_seed, count)
    world = World(task_id, max_steps)
    episodes = [_bot_episode(world, seed, num_steps) for seed, num_steps in solved.items()]
    obs, labels, subgoals, missions = zip(*episodes, strict=True)
    pad = torch.nn.utils.rnn.pad_sequence
    padded = pad(list(obs)), pad(list(labels), padding_value=NO_LABEL), pad(list(subgoals), padding_value=-1)
    return Trajectories(*padded, missions, tuple(solved))


def _bot_episode(world: World, seed: int, num_steps: int) -> tuple[Tensor, Tensor, Tensor, str]:
    """Observations (T, I), actions (T,), sub-goals (T,) and mission of the bot in a world that it solves."""
    world.reset(seed)
    obs, labels, subgoals = [], [], []
    for _ in range(num_steps):
        obs.append(world.obs.copy())
        labels.append(world.label())
        assert world.teacher is not None  # `label` has made it
        subgoals.append(world.teacher.phase[0])
        world.step(labels[-1])
    return torch.as_tensor(np.stack(obs)), torch.as_tensor(labels), torch.as_tensor(subgoals), world.mission
