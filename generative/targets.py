"""What is asked of a policy's answer, by a text: one differentiable number of each world."""

from collections.abc import Callable

import torch
from minigrid.core.actions import Actions
from torch import Tensor

from generative.policies import Answer, FrozenPolicy
from mop.base.errors import InputError

Target = Callable[[Answer], Tensor]  # (N,) of an answer to N worlds

TARGETS_HELP = (
    "action:NAME, its logit minus the mean of the logits (left, right, forward, pickup, drop, toggle, done); "
    "routing:L.E, the weight of expert E in layer L, both counted from 0; lpc, the layered parameter cost; "
    "entropy or entropy:L, of the router's weights in nats, the mean of the layers or of layer L"
)


def parse_target(text: str, policy: FrozenPolicy) -> Target:
    """The function of an `Answer` that a text means, see TARGETS_HELP.

    Raises InputError for another text; the function does where the policy has no such layer or expert.
    """
    name, _, argument = text.partition(":")
    if name == "action" and argument in Actions.__members__:
        action = int(Actions[argument])
        return lambda answer: answer.logits[:, action] - answer.logits.mean(-1)
    if name == "routing" and (numbers := _numbers(argument, 2)):
        return lambda answer: _layer(answer, numbers[0], text, numbers[1])[:, numbers[1]]
    if text == "lpc":
        return lambda answer: policy.lpc(answer.routing)
    if text == "entropy":
        return lambda answer: sum(_entropy(weights) for weights in answer.routing) / len(answer.routing)
    if name == "entropy" and (numbers := _numbers(argument, 1)):
        return lambda answer: _entropy(_layer(answer, numbers[0], text))
    raise InputError(f"unknown target {text!r}; there are: {TARGETS_HELP}")


def _numbers(text: str, count: int) -> list[int] | None:
    """The numbers of "2.1", None unless there are so many."""
    parts = text.split(".")
    return [int(part) for part in parts] if len(parts) == count and all(map(str.isdecimal, parts)) else None


def _layer(answer: Answer, layer: int, text: str, expert: int = 0) -> Tensor:
    """The router's weights (N, E) in a layer. Raises InputError where there is no such layer, or no such expert."""
    sizes = [weights.shape[-1] for weights in answer.routing]
    if layer >= len(sizes) or expert >= sizes[layer]:
        raise InputError(f"no {text}: the policy has layers 0 to {len(sizes) - 1}, of {sizes} experts, counted from 0")
    return answer.routing[layer]


def _entropy(weights: Tensor) -> Tensor:
    """Of weights (N, E) in nats, (N,)."""
    return torch.special.entr(weights).sum(-1)
