"""Router weights -> numbers: cost and entropy of each step, means over groups of steps and at distances.

Axis letters: S steps, L layers, E experts, G groups, D distances.
"""

from collections.abc import Sequence

import numpy as np

from mop.analysis.groups import Groups
from mop.analysis.routing_data import RoutingData, checked_weights, index_episodes
from mop.common.errors import InputError
from mop.statistics.bootstrap import Means, bootstrap_layers
from mop.statistics.entropy import entropy_nats


def compute_layer_lpc(weights: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """A layer's part of the layered parameter cost: sum over its experts of weight x size^2; float64 (...).

    weights: (..., E); sizes: of the E experts. The sum over the layers is the LPC, as `mixture_of_experts.compute_lpc`.
    """
    return np.asarray(weights, np.float64) @ np.square(np.asarray(sizes, np.float64))


def compute_router_entropy(weights: np.ndarray) -> np.ndarray:
    """Entropy in nats of router weights (..., E), rows that sum to 1: from 0 to ln E; float64 (...)."""
    return entropy_nats(weights)


def mean_weights_by_group(routing_data: RoutingData, groups: Groups) -> list[Means]:
    """Mean router weights of each group, L means of G groups and E_l values. Raises InputError as `checked_weights`."""
    layers = checked_weights(routing_data.steps)
    return bootstrap_layers(layers, index_episodes(routing_data), groups.index, len(groups))


def mean_weights_by_distance(routing_data: RoutingData, distance: np.ndarray) -> list[Means]:
    """Mean router weights at each distance, L means of the groups 0..D-1 and E_l values.

    distance: (S,) float of whole numbers, NaN where it is unknown. Raises InputError as `checked_weights`, or if no
    distance is known.
    """
    is_known = np.isfinite(distance)
    if not is_known.any():
        raise InputError("no step has a known distance")
    layers = [weights[is_known] for weights in checked_weights(routing_data.steps)]
    index = distance[is_known].astype(np.int64)
    return bootstrap_layers(layers, index_episodes(routing_data)[is_known], index, index.max() + 1)


def undecided_experts(routing_data: RoutingData, groups: Groups) -> list[np.ndarray]:
    """The experts of which more than one may be the dominant one of a group, L arrays (G, E_l) bool.

    They are the one with the largest mean weight, and those whose distance to it has a 95 % interval that reaches 0;
    in a row without True it is decided, or there are too few episodes for an interval (`MIN_EPISODES`). The interval is
    that of the difference, step by step: weights of one step sum to 1, so two means side by side would say too little.
    Raises InputError as `checked_weights`.
    """
    layers, episode = checked_weights(routing_data.steps), index_episodes(routing_data)
    first = [mean_by(groups.index, weights, groups.counts).argmax(1) for weights in layers]
    leads = [
        np.take_along_axis(weights, of_group[groups.index, None], 1) - weights
        for weights, of_group in zip(layers, first, strict=True)
    ]
    may_lead = [lead.low <= 0 for lead in bootstrap_layers(leads, episode, groups.index, len(groups))]
    return [of_layer & (of_layer.sum(1) > 1)[:, None] for of_layer in may_lead]  # each may lead itself


def mean_by(index: np.ndarray, values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean (K, E) float64 of values (S, E) over the steps of each index (S,) from 0 to K-1; NaN where counts (K,) is 0.

    counts: how often each index occurs.
    """
    total = np.stack([np.bincount(index, weights=column, minlength=len(counts)) for column in values.T], axis=1)
    return np.divide(total, counts[:, None], out=np.full(total.shape, np.nan), where=counts[:, None] > 0)
