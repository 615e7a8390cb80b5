"""What the measures ask of routing data, and its checks."""

from collections.abc import Callable

import numpy as np

from mop.base.errors import InputError
from mop.measures.groups import Steps

StepFilter = np.ndarray | Callable[[Steps], np.ndarray] | None  # a mask (S,) bool, or what makes it from the steps


def checked_positions(positions: np.ndarray | None) -> np.ndarray:
    """positions (S, 2) as int64, S > 0."""
    if positions is None:
        raise InputError("these steps have no 'position'")
    positions = np.asarray(positions)
    if not len(positions):
        raise InputError("there are no steps: the routing data is empty")
    return positions.astype(np.int64)


def step_mask(steps: Steps, filter_fn: StepFilter, num_steps: int) -> np.ndarray:
    """The steps that a filter leaves, (S,) bool. Raises ValueError if it is not (S,) bool."""
    if filter_fn is None:
        return np.ones(num_steps, bool)
    mask = np.asarray(filter_fn(steps) if callable(filter_fn) else filter_fn)
    if mask.dtype != bool or mask.shape != (num_steps,):  # integers would select other steps, without a word
        raise ValueError(f"a filter is a boolean mask ({num_steps},), not {mask.dtype} {mask.shape}")
    return mask


def checked_weights(steps: Steps) -> list[np.ndarray]:
    """Router weights, L arrays (S, E_l). Raises InputError if there are none or one is not finite."""
    if steps.layer_routing is None:
        raise InputError("these steps have no 'layer_routing'")
    layers = [np.asarray(weights) for weights in steps.layer_routing]
    for layer, weights in enumerate(layers):
        if not np.isfinite(weights).all():
            raise InputError(f"layer {layer} has router weights that are not finite: the policy has diverged")
    return layers


# --- time -----------------------------------------------------------------------------------------------------------


def follows_on(steps: Steps) -> np.ndarray:
    """(S - 1,) bool: the next step belongs to the same episode. Raises InputError if there are no steps.

    The steps of an episode are neighbours in a cache; before v4 the same number may stand for two episodes in a row.
    """
    episode, t_step = np.asarray(steps.episode), np.asarray(steps.t_step)
    if not len(episode):
        raise InputError("there are no steps: the routing data is empty")
    return (episode[1:] == episode[:-1]) & (t_step[1:] == t_step[:-1] + 1)
