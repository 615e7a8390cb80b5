"""What a policy does, and how sure it is of it. Axis letters: S steps, A actions, G groups."""

import numpy as np

from mop.analysis.groups import Groups
from mop.analysis.routing_data import ACTION_NAMES, RoutingData, chosen_actions, index_episodes
from mop.common.errors import InputError
from mop.statistics.bootstrap import Means, bootstrap_shares


def compute_action_shares(routing_data: RoutingData, groups: Groups, num_actions: int) -> Means:
    """The share of each action in the steps of each group, with its interval. Raises InputError as `chosen_actions`."""
    actions, episode = chosen_actions(routing_data), index_episodes(routing_data)
    return bootstrap_shares(actions, num_actions, episode, groups.index, len(groups))


def hold_action(routing_data: RoutingData, action: str | int) -> RoutingData:
    """The steps in which this action was chosen, by its name or number in ACTION_NAMES: `RoutingCache.where`.

    What still differs between places and phases among them is not the action. Raises InputError if there is no such
    action, it was never chosen, or the steps do not tell (`chosen_actions`).
    """
    names = dict(enumerate(ACTION_NAMES)) | {name: name for name in ACTION_NAMES}
    if action not in names:
        raise InputError(f"there is no action {action!r}; choose one of {', '.join(ACTION_NAMES)}")
    name = names[action]
    return routing_data.where(chosen_actions(routing_data) == ACTION_NAMES.index(name), f"action: {name}")


def compute_policy_entropy(action_logits: np.ndarray) -> np.ndarray:
    """Entropy in nats of the actions' probabilities, the softmax of logits (..., A): from 0 to ln A; float64 (...)."""
    logits = np.asarray(action_logits, np.float64)
    logits = logits - logits.max(-1, keepdims=True)
    weights = np.exp(logits)
    total = weights.sum(-1)
    return np.log(total) - (weights * logits).sum(-1) / total


def action_probabilities(action_logits: np.ndarray) -> np.ndarray:
    """The softmax of logits (..., A): the probability of each action; float64 (..., A)."""
    logits = np.asarray(action_logits, np.float64)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)
