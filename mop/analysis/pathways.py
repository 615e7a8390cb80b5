"""Pathways: the dominant expert of each layer, and which pathway follows which.

Axis letters: S steps, L layers, P pathways.
"""

from dataclasses import dataclass

import numpy as np

from mop.analysis.routing_data import RoutingData, checked_weights, follows_on, index_episodes
from mop.statistics.bootstrap import Means, bootstrap_shares


@dataclass(frozen=True, eq=False)
class Pathways:
    """The pathways that occur, one dominant expert for each layer, the most frequent first."""

    experts: np.ndarray  # (P, L) int64, the expert with the largest weight; the first one of equal weights
    counts: np.ndarray  # (P,) int64, steps
    transitions: np.ndarray  # (P, P) int64: from the row's pathway to the column's in the next step of an episode
    index: np.ndarray  # (S,) int64, pathway of each step
    shares: Means  # of one group, the steps, and P values


def compute_pathways(routing_data: RoutingData) -> Pathways:
    """The pathway of each step, the argmax of each layer's weights, and what follows what within an episode.

    Of a part of the steps (`RoutingCache.where`), transitions are those between two of them without another in between.
    Raises InputError if there are no steps or they lack 't_step' or 'layer_routing'.
    """
    layers, follows = checked_weights(routing_data.steps), follows_on(routing_data)
    shape = tuple(weights.shape[1] for weights in layers)
    flat = np.ravel_multi_index([weights.argmax(1) for weights in layers], shape)
    flat, index, counts = np.unique(flat, return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    rank = np.argsort(order)  # of each pathway, once the most frequent is first
    index = rank[index]
    pairs = (index[:-1] * len(flat) + index[1:])[follows]
    transitions = np.bincount(pairs, minlength=len(flat) ** 2).reshape(len(flat), len(flat))
    shares = bootstrap_shares(index, len(flat), index_episodes(routing_data))
    experts = np.stack(np.unravel_index(flat[order], shape), axis=1)
    return Pathways(experts, counts[order], transitions, index, shares)
