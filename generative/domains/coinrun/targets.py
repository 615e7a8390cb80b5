"""What of a game agent's answer is to be explained, as text and as a differentiable number: of `TARGETS_HELP`."""

import torch
from torch import Tensor

from generative.attribution.common_targets import CHOSEN, direction_target, logit_of
from generative.domains.base import Answer, Target
from generative.domains.coinrun.games import ACTION_NAMES, JUMPS
from generative.domains.coinrun.policy import FrozenAgent
from generative.representations.storage import Directions
from mop.common.errors import InputError

JUMP = "jump"
TARGETS_HELP = (
    "action:NAME, its logit minus the mean of the logits (right, right_and_jump, ...), or action:chosen, of the "
    "likeliest; jump, the log-odds of all actions with a jump; value; entropy, of the action probabilities in nats; "
    "direction:K, the memory along direction K of a file"
)


def parse_target(
    text: str, agent: FrozenAgent, directions: Directions | None = None, chosen: int | None = None
) -> Target:
    """The target that a text names; chosen: an action, for action:chosen."""
    text = text.strip()
    kind, _, rest = text.partition(":")
    names = action_names(agent)
    if text == CHOSEN and chosen is not None:
        return Target(CHOSEN, logit_of(chosen))
    if kind == "action" and rest.replace("_", " ") in names:
        name = rest.replace("_", " ")
        return Target(f"action:{name}", logit_of(names.index(name)))
    if text == JUMP:
        is_jump = jumps_of(agent)
        return Target(JUMP, lambda answer: _log_sum(answer, is_jump) - _log_sum(answer, ~is_jump))
    if text == "value":
        return Target(text, lambda answer: answer.value)
    if text == "entropy":
        return Target(text, lambda answer: torch.distributions.Categorical(logits=answer.logits).entropy())
    if kind == "direction" and rest:
        return direction_target(rest, directions)
    if kind in ("routing", "lpc") or (kind == "entropy" and rest):
        raise InputError(f"the agent of a game has no routers, so there is no {text}; there are: {TARGETS_HELP}")
    raise InputError(f"unknown target {text!r}; there are: {TARGETS_HELP}")


def action_names(agent: FrozenAgent) -> list[str]:
    """The names of an agent's actions, in its order."""
    return [ACTION_NAMES[action] for action in agent.agent.actions.tolist()]


def jumps_of(agent: FrozenAgent) -> Tensor:
    """Which of an agent's actions have a jump: (A,) bool."""
    found = torch.isin(agent.agent.actions.cpu(), torch.tensor(JUMPS))
    if not found.any() or found.all():
        raise InputError("this agent has no choice between actions with a jump and without one")
    return found


def _log_sum(answer: Answer, is_one: Tensor) -> Tensor:
    return answer.logits[:, is_one].logsumexp(-1)
