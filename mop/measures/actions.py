"""What a policy does, and how sure it is of it. Axis letters: S steps, A actions, G groups."""

import numpy as np

from mop.base.errors import InputError
from mop.measures.groups import Groups
from mop.measures.routing_data import ACTION_NAMES, RoutingData, chosen_actions


def count_actions(routing_data: RoutingData, groups: Groups, num_actions: int) -> np.ndarray:
    """How often each action was chosen in each group, (G, A) int64. Raises InputError as `chosen_actions`."""
    flat = groups.index * num_actions + chosen_actions(routing_data)
    return np.bincount(flat, minlength=len(groups) * num_actions).reshape(len(groups), num_actions)


def hold_action(routing_data: RoutingData, action: str) -> RoutingData:
    """The part of the data with the steps of one action of ACTION_NAMES; titles say so.

    What looks like an effect of the place or of the phase may be one of the action, which is often another one there.
    Raises InputError for another name, if no step has this action, and as `chosen_actions`.
    """
    if action not in ACTION_NAMES:
        raise InputError(f"there is no action {action!r}: the actions are {', '.join(ACTION_NAMES)}")
    return routing_data.where(chosen_actions(routing_data) == ACTION_NAMES.index(action), f"action: {action}")


def compute_policy_entropy(action_logits: np.ndarray) -> np.ndarray:
    """Entropy in nats of the actions' probabilities, the softmax of logits (..., A): from 0 to ln A; float64 (...)."""
    logits = np.asarray(action_logits, np.float64)
    logits = logits - logits.max(-1, keepdims=True)
    weights = np.exp(logits)
    total = weights.sum(-1)
    return np.log(total) - (weights * logits).sum(-1) / total
