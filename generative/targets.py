"""What of a policy's answer is to be explained, as text and as a differentiable number.

    action:forward   the logit of an action, minus the mean of all logits; a name of Minigrid's, or its number
    routing:2.1      the weight of expert 1 of layer 2, both counted from 0
    lpc              layered parameter cost, in parameters
    entropy          of the router's weights in nats, mean over the layers that have a choice
    direction:4      the memory after the step along direction 4 of a file
Axis letters: N environments, A actions, L layers, E experts, S hidden units, K directions.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from minigrid.core.actions import Actions
from torch import Tensor

from generative.policies import Answer, FrozenPolicy
from mop.base.errors import InputError
from mop.measures.routing_data import ACTION_NAMES

EXAMPLES = "action:forward, routing:2.1, lpc, entropy, direction:4"


@dataclass(frozen=True)
class Target:
    """A number of a policy's answer; `of` is a differentiable function of it."""

    name: str
    of: Callable[[Answer], Tensor]  # -> (N,)


def parse_target(text: str, policy: FrozenPolicy, directions: Tensor | None = None) -> Target:
    """The target that a text names. directions (K, S) float32: rows to project the memory on.

    Raises InputError where this policy has no such target.
    """
    kind, _, rest = text.strip().partition(":")
    sizes = policy.policy.expert_hidden_sizes
    if kind == "action":
        return _action(text, rest)
    if kind == "routing" and (found := re.fullmatch(r"(\d{1,4})\.(\d{1,4})", rest)):
        layer, expert = map(int, found.groups())
        if layer < len(sizes) and expert < len(sizes[layer]):
            return Target(f"routing:{layer}.{expert}", lambda answer: answer.routing[layer][:, expert])
        raise InputError(f"{text!r}: the policy's layers, from 0, have {[len(of) for of in sizes]} experts, from 0")
    if text.strip() == "lpc":
        return Target("lpc", lambda answer: policy.lpc(answer.routing))
    if text.strip() == "entropy":
        if not any(len(of) > 1 for of in sizes):
            raise InputError("entropy: no layer of this policy has a choice of experts")
        return Target("entropy", lambda answer: routing_entropy(answer.routing))
    if kind == "direction" and re.fullmatch(r"\d{1,6}", rest):
        return _direction(int(rest), directions)
    raise InputError(f"{text!r} is no target; targets are written like {EXAMPLES}")


def routing_entropy(routing: list[Tensor]) -> Tensor:
    """Entropy (N,) of router weights L x (N, E_l) in nats, mean over the layers with more than one expert."""
    return torch.stack([torch.special.entr(weights).sum(-1) for weights in routing if weights.shape[-1] > 1]).mean(0)


def _action(text: str, word: str) -> Target:
    names = [action.name for action in Actions]
    numbers = {name: k for known in (names, ACTION_NAMES, map(str, range(len(names)))) for k, name in enumerate(known)}
    if word not in numbers:
        raise InputError(f"{text!r}: there is no such action; the actions are {', '.join(names)}")
    number = numbers[word]
    return Target(f"action:{names[number]}", lambda answer: answer.logits[:, number] - answer.logits.mean(-1))


def _direction(number: int, directions: Tensor | None) -> Target:
    if directions is None:
        raise InputError(f"direction:{number} needs the file of directions: give --directions")
    if number >= len(directions):
        raise InputError(f"direction:{number}: the file has {len(directions)} directions, from 0")
    row = directions[number]
    return Target(f"direction:{number}", lambda answer: answer.hidden @ row)
