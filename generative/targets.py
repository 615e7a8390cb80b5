"""What of a policy's answer is to be explained, as text and as a differentiable number.

    action:forward   the logit of an action, minus the mean of all logits; a name of Minigrid's, or its number
    action:chosen    the same of the action that the policy chose at the recorded step
    routing:2.1      the weight of expert 1 of layer 2, both counted from 0
    lpc              layered parameter cost, in parameters
    entropy          of the router's weights in nats, mean over the layers; entropy:1: of layer 1, counted from 0
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

CHOSEN = "action:chosen"
TARGETS_HELP = (
    "action:NAME, its logit minus the mean of the logits (left, right, forward, pickup, drop, toggle, done), "
    "or that of the action:chosen; routing:L.E, the weight of expert E in layer L, both counted from 0; lpc, the layered parameter cost; "
    "entropy or entropy:L, of the router's weights in nats, the mean of the layers or of layer L; "
    "direction:K, the memory along direction K of a file"
)


@dataclass(frozen=True)
class Target:
    """A number (N,) of a policy's answer to N worlds, which is a differentiable function of it."""

    name: str
    of: Callable[[Answer], Tensor]

    def __call__(self, answer: Answer) -> Tensor:
        return self.of(answer)


def parse_target(
    text: str, policy: FrozenPolicy, directions: Tensor | None = None, chosen: int | None = None
) -> Target:
    """The target that a text names. directions (K, S) float32: rows to project the memory on; chosen: an action.

    Raises InputError where this policy has no such target.
    """
    text = text.strip()
    kind, _, rest = text.partition(":")
    sizes = policy.policy.expert_hidden_sizes
    if text == CHOSEN and chosen is not None:
        return Target(CHOSEN, _logit(chosen))
    if kind == "action":
        return _action(text, rest)
    if kind == "routing" and (found := re.fullmatch(r"(\d{1,4})\.(\d{1,4})", rest)):
        layer, expert = map(int, found.groups())
        if layer < len(sizes) and expert < len(sizes[layer]):
            return Target(f"routing:{layer}.{expert}", lambda answer: answer.routing[layer][:, expert])
        raise InputError(f"{text!r}: the policy's layers, from 0, have {[len(of) for of in sizes]} experts, from 0")
    if text == "lpc":
        return Target("lpc", lambda answer: policy.lpc(answer.routing))
    if kind == "entropy" and (not rest or (rest.isdecimal() and int(rest) < len(sizes))):
        layers = [int(rest)] if rest else range(len(sizes))
        return Target(text, lambda answer: torch.stack([_entropy(answer.routing[layer]) for layer in layers]).mean(0))
    if kind == "direction" and re.fullmatch(r"\d{1,6}", rest):
        return _direction(int(rest), directions)
    raise InputError(f"unknown target {text!r}; there are: {TARGETS_HELP}")


def _entropy(weights: Tensor) -> Tensor:
    """Of router weights (N, E) in nats, (N,): `mop.measures.router_weights.compute_router_entropy` with gradients."""
    return torch.special.entr(weights.clamp_min(1e-30)).sum(-1)


def _action(text: str, word: str) -> Target:
    names = [action.name for action in Actions]
    numbers = {name: k for known in (names, ACTION_NAMES, map(str, range(len(names)))) for k, name in enumerate(known)}
    if word not in numbers:
        raise InputError(f"{text!r}: there is no such action; the actions are {', '.join(names)}")
    return Target(f"action:{names[numbers[word]]}", _logit(numbers[word]))


def _logit(action: int) -> Callable[[Answer], Tensor]:
    return lambda answer: answer.logits[:, action] - answer.logits.mean(-1)


def _direction(number: int, directions: Tensor | None) -> Target:
    if directions is None:
        raise InputError(f"direction:{number} needs the file of directions: give --directions")
    if number >= len(directions):
        raise InputError(f"direction:{number}: the file has {len(directions)} directions, from 0")
    row = directions[number]
    return Target(f"direction:{number}", lambda answer: answer.hidden @ row)
