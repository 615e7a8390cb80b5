"""Episodes of a policy as Python plays them, to be computed again from their observations."""

from dataclasses import dataclass

import numpy as np
import torch

from mop.common.task_mix import tasks_of
from mop.envs.episodes import EvalVectorEnv
from mop.evaluation.evaluate import encoder_for, prepare
from mop.evaluation.rollout import WorldPolicy, rollout


@dataclass
class Recorded:
    """Steps of whole beginnings of episodes, one after the other: M of them in K episodes."""

    missions: list[str]  # K
    lengths: list[int]  # K
    obs: np.ndarray  # (M, 152) uint8
    logits: np.ndarray  # (M, A)
    routing: np.ndarray  # (M, all experts of all layers)
    hidden: np.ndarray  # (M, S) after each step
    action: np.ndarray  # (M,) int


def record(checkpoint: dict, num_steps: int, seed: int = 0, num_envs: int = 64) -> Recorded:
    """Play greedy episodes of the first task, in worlds seed, seed + 1, ..., until there are `num_steps` steps."""
    policy, missions = prepare(checkpoint, encoder_for(checkpoint))
    ((task_id, _), *_) = tasks_of(checkpoint["config"])
    env = EvalVectorEnv(task_id, range(seed, seed + num_steps), num_envs, checkpoint["config"].get("max_steps"))
    episode, columns = [], []
    for step in rollout(WorldPolicy(policy, missions), env, policy.initial_hidden(num_envs)):
        routing = torch.cat(list(step.answer.routing), -1)
        episode.append(env.state["episode"].copy())
        columns.append([env.obs.astype(np.uint8), step.answer.logits, routing, step.answer.hidden, step.action.copy()])
        if len(columns) * num_envs >= num_steps:
            break
    rows = np.argsort(np.concatenate(episode), kind="stable")[:num_steps]
    texts = [known["mission"] for known in env.episodes]
    numbers, lengths = np.unique(np.concatenate(episode)[rows], return_counts=True)
    joined = [np.concatenate(list(map(np.asarray, column)))[rows] for column in zip(*columns, strict=True)]
    return Recorded([texts[number] for number in numbers], lengths.tolist(), *joined)
