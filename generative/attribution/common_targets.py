"""Targets of attribution that all kinds of worlds have: a policy's answer as a number that is to be explained."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from generative.domains.base import Answer, Target
from generative.recordings.format import Episode
from generative.representations.storage import Directions
from mop.common.errors import InputError

CHOSEN = "action:chosen"  # the logit of the action that the policy chose at the recorded step


def logit_of(action: int) -> Callable[[Answer], Tensor]:
    """The logit (N,) of an action minus the mean of all logits, as a function of an answer."""
    return lambda answer: answer.logits[:, action] - answer.logits.mean(-1)


def direction_target(word: str, directions: Directions | None) -> Target:
    """The memory's coordinate along a direction."""
    if directions is None:
        raise InputError(f"direction:{word} is of a file of directions; give --directions")
    number = directions.number(word)
    dual, mean = (torch.from_numpy(np.array(part)) for part in (directions.duals[number], directions.mean))
    return Target(f"direction:{directions.names[number]}", lambda answer: (answer.hidden - mean) @ dual)


def recorded_values(episode: Episode, target: Target, expert_hidden_sizes: Sequence[Sequence[int]]) -> Tensor:
    """Return a target at each step (T,) of an episode of T actions, as it was recorded.

    Recorded are log-probabilities in place of logits: no target depends on what the two differ by.
    """
    names = [name for name in ("log_probs", "routing", "hidden", "value") if name in episode]
    parts = {name: torch.from_numpy(episode[name].copy()) for name in names}
    num_experts = [len(sizes) for sizes in expert_hidden_sizes]
    routing = [weights[:-1] for weights in parts["routing"].split(num_experts, -1)] if num_experts else []
    value = parts["value"][:-1] if "value" in parts else torch.zeros(0)
    return target(Answer(parts["log_probs"][:-1], routing, parts["hidden"][1:], value))
