"""What a policy does, and how sure it is of it. Axis letters: S steps, A actions, G groups."""

import numpy as np

from mop.measures.groups import Groups
from mop.measures.routing_data import RoutingData, chosen_actions


def count_actions(routing_data: RoutingData, groups: Groups, num_actions: int) -> np.ndarray:
    """How often each action was chosen in each group, (G, A) int64. Raises InputError as `chosen_actions`."""
    flat = groups.index * num_actions + chosen_actions(routing_data)
    return np.bincount(flat, minlength=len(groups) * num_actions).reshape(len(groups), num_actions)


def compute_policy_entropy(action_logits: np.ndarray) -> np.ndarray:
    """Entropy in nats of the actions' probabilities, the softmax of logits (..., A): from 0 to ln A; float64 (...)."""
    logits = np.asarray(action_logits, np.float64)
    logits = logits - logits.max(-1, keepdims=True)
    weights = np.exp(logits)
    total = weights.sum(-1)
    return np.log(total) - (weights * logits).sum(-1) / total
