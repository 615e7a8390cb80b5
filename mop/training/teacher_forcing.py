"""Teacher forcing: a policy answers along trajectories of the bot, with its own hidden state.

Axis letters: T steps, E trajectories, L layers, E_l experts of a layer.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mixture_of_experts import compute_lpc
from mop.envs.babyai import NO_LABEL
from mop.envs.missions import MissionEncoder
from mop.envs.trajectories import Trajectories
from mop.training.execution import run
from mop.training.policies import policy_from_checkpoint


class TeacherForced(NamedTuple):
    """Answers of a policy along the bot's trajectories: means over the steps of each, (E,) float64."""

    cross_entropy: np.ndarray  # nats of the bot's actions
    accuracy: np.ndarray  # share of steps in which the likeliest action is the bot's
    lpc: np.ndarray
    routing: list[Tensor]  # L of (T, E, E_l): router weights


@torch.no_grad()
def teacher_force(checkpoint: Mapping, trajectories: Trajectories, encoder: MissionEncoder) -> TeacherForced:
    """Run a policy along trajectories of the bot, through its recurrence; nothing is random."""
    policy, lang_proj = policy_from_checkpoint(checkpoint)
    labels, obs = trajectories.labels, trajectories.obs
    lang = lang_proj(encoder.embed(trajectories.missions)).expand(len(obs), -1, -1)
    logits, routing, _ = run(policy, obs, lang, policy.initial_hidden(obs.shape[1]))
    known = labels != NO_LABEL
    losses = F.cross_entropy(logits.double().flatten(0, 1), labels.flatten(), ignore_index=NO_LABEL, reduction="none")
    values = (
        losses.view_as(labels),
        (logits.argmax(-1) == labels).double(),
        compute_lpc([weights.double() for weights in routing], policy.expert_hidden_sizes),
    )
    return TeacherForced(*(mean_over_steps(value, known) for value in values), routing)


def mean_over_steps(values: Tensor, known: Tensor) -> np.ndarray:
    """Means (E,) of values (T, E) over the steps that are known (T, E)."""
    return (values.where(known, 0.0).sum(0) / known.sum(0)).numpy()
