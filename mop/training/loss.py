"""What an imitation run minimises: the cross-entropy with the bot's labels, and the penalty on complexity.

Axis letters: T steps of an unroll, N environments, A actions.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mop.common.task_mix import TaskSlots
from mop.envs.babyai import NO_LABEL


class ComplexityPenalty(NamedTuple):
    """How the layered parameter cost (LPC) enters the loss: `alpha` x mean LPC is added to the cross-entropy.

    normalize: it is divided by (cross-entropy + `eps`), the form of the Mixture-of-Pathways paper (arXiv 2506.02813);
    detach: without a gradient through that denominator.
    """

    alpha: float = 0.0
    normalize: bool = False
    eps: float = 1e-2
    detach: bool = False


NO_PENALTY = ComplexityPenalty()


def imitation_loss(
    logits: Tensor, labels: Tensor, lpc: Tensor, penalty: ComplexityPenalty = NO_PENALTY
) -> tuple[Tensor, Tensor]:
    """Loss and its cross-entropy part, both scalars.

    The latter is the mean, in nats, over the labels that are there. logits (T, N, A); labels (T, N) int64, NO_LABEL
    where the teacher is silent; lpc (T, N).
    """
    num_labels = (labels != NO_LABEL).sum().clamp(min=1)
    cross_entropy = (
        F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=NO_LABEL, reduction="sum") / num_labels
    )
    if penalty.alpha == 0.0:
        return cross_entropy, cross_entropy
    denominator = 1.0
    if penalty.normalize:
        denominator = (cross_entropy.detach() if penalty.detach else cross_entropy) + penalty.eps
    return cross_entropy + penalty.alpha * lpc.mean() / denominator, cross_entropy


def loss_of_tasks(
    logits: Tensor, labels: Tensor, lpc: Tensor, tasks: Sequence[TaskSlots], penalty: ComplexityPenalty = NO_PENALTY
) -> tuple[Tensor, list[Tensor]]:
    """The sum of the tasks' losses, each times the task's share, and the cross-entropy of each task.

    This is the form of the paper: the cost of a task is divided by the cross-entropy of this task. Its share does not
    depend on how many slots and labels it has. Of one task it is `imitation_loss`, to the last bit. Arguments as there;
    tasks: their slots are columns of these.
    """
    parts = [imitation_loss(logits[:, t.slots], labels[:, t.slots], lpc[:, t.slots], penalty) for t in tasks]
    losses = (task.share * loss for task, (loss, _) in zip(tasks, parts, strict=True))
    return functools.reduce(torch.add, losses), [cross_entropy for _, cross_entropy in parts]
