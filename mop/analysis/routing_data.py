"""Checked columns of routing data, and what the measures derive of them.

Axis letters: S steps, L layers, E experts, A actions.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mop.artifacts.routing_cache import RoutingData, Steps
from mop.common.errors import InputError


def whole_of(routing_data: RoutingData) -> RoutingData:
    """Return the data with every step, of which `routing_data` may be a part (`RoutingData.where`)."""
    return routing_data.whole or routing_data


def in_whole_episodes(compute: Callable[[RoutingData], np.ndarray], routing_data: RoutingData) -> np.ndarray:
    """Compute (S, ...) from whole episodes, and take the rows of the steps of `routing_data`.

    For what depends on the steps before.
    """
    values = compute(whole_of(routing_data))
    return values if routing_data.rows is None else values[routing_data.rows]


StepFilter = np.ndarray | Callable[[Steps], np.ndarray] | None  # a mask (S,) bool, or what makes it from the steps


def check_not_empty(steps: np.ndarray) -> None:
    """Check that a column (S, ...) of the steps has entries."""
    if not len(steps):
        raise InputError("there are no steps: the routing data is empty")


def checked_positions(positions: np.ndarray | None) -> np.ndarray:
    """Return positions (S, 2) as int64, checked: they are there, and S is not 0."""
    if positions is None:
        raise InputError("these steps have no 'position'")
    positions = np.asarray(positions)
    check_not_empty(positions)
    return positions.astype(np.int64)


def checked_weights(steps: Steps) -> list[np.ndarray]:
    """Return router weights, L arrays (S, E_l), checked: they are there, and finite."""
    if steps.layer_routing is None:
        raise InputError("these steps have no 'layer_routing'")
    layers = [np.asarray(weights) for weights in steps.layer_routing]
    for layer, weights in enumerate(layers):
        if not np.isfinite(weights).all():
            raise InputError(f"layer {layer} has router weights that are not finite: the policy has diverged")
    return layers


def known_sizes(header: Mapping) -> Sequence[Sequence[int]]:
    """Return `expert_hidden_sizes`, checked: they are there."""
    if header.get("expert_hidden_sizes") is None:
        way_out = "make a new cache with `python batch_eval.py --force`"
        raise InputError(f"this routing data has no 'expert_hidden_sizes', the sizes of its experts: {way_out}")
    return header["expert_hidden_sizes"]


def step_mask(steps: Steps, filter_fn: StepFilter, num_steps: int) -> np.ndarray:
    """Apply a filter: the steps that it leaves, (S,) bool."""
    if filter_fn is None:
        return np.ones(num_steps, bool)
    mask = np.asarray(filter_fn(steps) if callable(filter_fn) else filter_fn)
    if mask.dtype != bool or mask.shape != (num_steps,):  # integers would select other steps without an error
        raise ValueError(f"a filter is a boolean mask ({num_steps},), not {mask.dtype} {mask.shape}")
    if not mask.any():
        raise InputError("there are no steps to average: the filter leaves none")
    return mask


def chosen_actions(routing_data: RoutingData) -> np.ndarray:
    """Return the action of each step (S,) int64; in older caches, which have logits alone, the likeliest."""
    steps = routing_data.steps
    if steps.action is None and steps.action_logits is not None:
        return np.asarray(steps.action_logits).argmax(-1)
    return np.asarray(routing_data.column("action"), np.int64)


def has_happened(steps: Steps, episodes: Sequence[Mapping], event: str) -> np.ndarray:
    """Mark (S,) bool the steps before which an event (`t_pick`, `t_opened`, ...) of their episode has happened.

    episodes: with the event's key, the number of actions taken when it was first true, None where it never was.
    """
    times = np.array([np.inf if episode[event] is None else episode[event] for episode in episodes])
    return np.asarray(steps.t_step) >= times[np.asarray(steps.episode)]


def index_episodes(routing_data: RoutingData) -> np.ndarray:
    """Number the episode of each step, (S,) int64, from 0 in the order of steps.

    The steps of an episode are neighbours in a cache. In one before v4, two episodes in a row may have the same number;
    `t_step`, where it is there, tells them apart.
    """

    def index(whole: RoutingData) -> np.ndarray:
        episode, t_step = np.asarray(whole.steps.episode), whole.steps.t_step
        check_not_empty(episode)
        is_first = episode[1:] != episode[:-1]
        if t_step is not None:
            is_first |= np.asarray(t_step)[1:] != np.asarray(t_step)[:-1] + 1
        return np.concatenate([[0], np.cumsum(is_first)])

    return in_whole_episodes(index, routing_data)


def follows_on(routing_data: RoutingData) -> np.ndarray:
    """Mark (S - 1,) bool the rows whose next row is the next step of the same episode."""
    episode, t_step = index_episodes(routing_data), routing_data.column("t_step")
    return (episode[1:] == episode[:-1]) & (t_step[1:] == t_step[:-1] + 1)
