"""What of a policy's answer is to be explained, as text and as a differentiable number: those of `TARGETS_HELP`.

Axis letters: N environments, A actions, L layers, E experts, S hidden units.
"""

import re

import torch
from minigrid.core.actions import Actions
from torch import Tensor

from generative.attribution.common_targets import CHOSEN, direction_target, logit_of
from generative.domains.babyai.policy import FrozenPolicy
from generative.domains.base import Answer, Target
from generative.representations.storage import Directions
from mop.common.conventions import ACTION_NAMES
from mop.common.errors import InputError

_NAMES = [action.name for action in Actions]
_NUMBERS = {name: k for names in (_NAMES, ACTION_NAMES, "0123456") for k, name in enumerate(names)}
TARGETS_HELP = (
    "action:NAME, its logit minus the mean of the logits (left, right, forward, pickup, drop, toggle, done), or "
    "action:chosen, of the one that the policy chose; routing:L.E, the weight of expert E in layer L, both counted "
    "from 0; lpc, the layered parameter cost; entropy or entropy:L, of the router's weights in nats, the mean of the "
    "layers or of layer L; direction:K, the memory along direction K of a file"
)


def parse_target(
    text: str, policy: FrozenPolicy, directions: Directions | None = None, chosen: int | None = None
) -> Target:
    """The target that a text names; chosen: an action, for action:chosen."""
    text = text.strip()
    kind, _, rest = text.partition(":")
    if text == CHOSEN and chosen is not None:
        return Target(CHOSEN, logit_of(chosen))
    if kind == "action" and rest in _NUMBERS:
        return Target(f"action:{_NAMES[_NUMBERS[rest]]}", logit_of(_NUMBERS[rest]))
    if kind == "routing" and (found := re.fullmatch(r"(\d{1,4})\.(\d{1,4})", rest)):
        layer, expert = map(int, found.groups())
        return Target(text, lambda answer: _weights(answer, text, layer, expert)[:, expert])
    if text == "lpc":
        return Target(text, lambda answer: policy.lpc(answer.routing))
    if text == "entropy":
        return Target(text, lambda answer: torch.stack([_entropy(weights) for weights in answer.routing]).mean(0))
    if kind == "entropy" and re.fullmatch(r"\d{1,4}", rest):
        return Target(text, lambda answer: _entropy(_weights(answer, text, int(rest))))
    if kind == "direction" and rest:
        return direction_target(rest, directions)
    raise InputError(f"unknown target {text!r}; there are: {TARGETS_HELP}")


def _weights(answer: Answer, text: str, layer: int, expert: int = 0) -> Tensor:
    sizes = [weights.shape[-1] for weights in answer.routing]
    if layer >= len(sizes) or expert >= sizes[layer]:
        raise InputError(f"no {text}: the policy has layers 0 to {len(sizes) - 1}, of {sizes} experts, counted from 0")
    return answer.routing[layer]


def _entropy(weights: Tensor) -> Tensor:
    """Of router weights (N, E) in nats, (N,): `mop.statistics.information.entropy_nats` with gradients."""
    return torch.special.entr(weights.clamp_min(1e-30)).sum(-1)
