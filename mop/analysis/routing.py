"""Router weights -> numbers: cost, means over groups, distances and the course of an episode; pathways.

Axis letters: S steps, L layers, E experts, G groups, D distances, P pathways, B parts of an episode, T steps of one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mop.analysis.groups import Groups
from mop.analysis.routing_data import checked_weights, follows_on, index_episodes, whole_of
from mop.artifacts.routing_cache import RoutingData
from mop.common.errors import InputError
from mop.statistics.bootstrap import Means, bootstrap_layers, bootstrap_shares, ratio, sum_by


def compute_layer_lpc(weights: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """Compute a layer's part of the layered parameter cost: sum over experts of weight x size^2; float64 (...).

    weights: (..., E); sizes: of the E experts. The sum over the layers is the LPC, as `mixture_of_experts.compute_lpc`.
    """
    return np.asarray(weights, np.float64) @ np.square(np.asarray(sizes, np.float64))


def mean_weights_by_group(routing_data: RoutingData, groups: Groups) -> list[Means]:
    """Average the router weights of each group, L means of G groups and E_l values."""
    layers = checked_weights(routing_data.steps)
    return bootstrap_layers(layers, index_episodes(routing_data), groups.index, len(groups))


def mean_weights_by_distance(routing_data: RoutingData, distance: np.ndarray) -> list[Means]:
    """Average the router weights at each distance, L means of the groups 0..D-1 and E_l values.

    distance: (S,) float of whole numbers, NaN where it is unknown.
    """
    is_known = np.isfinite(distance)
    if not is_known.any():
        raise InputError("no step has a known distance")
    layers = [weights[is_known] for weights in checked_weights(routing_data.steps)]
    index = distance[is_known].astype(np.int64)
    return bootstrap_layers(layers, index_episodes(routing_data)[is_known], index, index.max() + 1)


def undecided_experts(routing_data: RoutingData, groups: Groups) -> list[np.ndarray]:
    """Find the groups with more than one possible dominant expert, and these experts: L arrays (G, E_l) bool.

    They are the one with the largest mean weight, and those whose distance to it has a 95 % interval that reaches 0; in
    a row without True it is decided, or there are too few episodes for an interval (`MIN_EPISODES`). The interval is
    that of the difference, step by step: weights of one step sum to 1, so two means side by side would say too little.
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
    """Average values (S, E) over the steps of each index (S,) below K: (K, E) float64, NaN where counts (K,) is 0.

    counts: how often each index occurs.
    """
    return ratio(sum_by(index, values, len(counts)), counts[:, None])


# --- pathways: the dominant expert of each layer ----------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Pathways:
    """The pathways that occur, one dominant expert for each layer, the most frequent first."""

    experts: np.ndarray  # (P, L) int64, the expert with the largest weight; the first one of equal weights
    counts: np.ndarray  # (P,) int64, steps
    transitions: np.ndarray  # (P, P) int64: from the row's pathway to the column's in the next step of an episode
    index: np.ndarray  # (S,) int64, pathway of each step
    shares: Means  # of one group, the steps, and P values


def compute_pathways(routing_data: RoutingData) -> Pathways:
    """Find the pathway of each step, the argmax of each layer's weights, and the transitions within an episode.

    Of a part of the steps (`RoutingData.where`), transitions are those between two of them without another in between.
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


# --- in the course of an episode --------------------------------------------------------------------------------------


_EVENTS = {"t_pick": "picked up", "t_opened": "opened", "t_unlocked": "unlocked", "t_drop": "dropped"}


def mean_weights_by_progress(routing_data: RoutingData, num_bins: int = 20) -> list[Means]:
    """Average the router weights in B equal parts of an episode, L means of B groups and E_l values.

    Progress is t_step / steps of the whole episode; step 0 is in the first part.

    An episode of fewer than `num_bins` steps has no step in some parts, so the parts differ in their counts.
    """
    t_step = np.asarray(routing_data.column("t_step"), np.int64)
    layers, episode = checked_weights(routing_data.steps), index_episodes(routing_data)
    length = np.bincount(index_episodes(whole_of(routing_data)))
    part = t_step * num_bins // length[episode]
    return bootstrap_layers(layers, episode, part, num_bins)


@dataclass(frozen=True, eq=False)
class EpisodeRouting:
    """One episode, T steps in their order."""

    t_step: np.ndarray  # (T,) int64
    routing: list[np.ndarray]  # L arrays (T, E_l)
    events: dict[str, int]  # what happened -> actions taken when it was first true


def select_episode(routing_data: RoutingData, episode: int) -> EpisodeRouting:
    """Select all steps of one episode, of restricted data too, as each weight counts until the next step."""
    routing_data.require("t_step")
    steps = whole_of(routing_data).steps
    chosen = np.flatnonzero(np.asarray(steps.episode) == episode)
    if not len(chosen):
        raise InputError(f"there is no episode {episode}: they are counted from 0 to {len(routing_data.episodes) - 1}")
    t_step = np.asarray(steps.t_step, np.int64)[chosen]
    order = np.argsort(t_step, kind="stable")
    times = {name: routing_data.episodes[episode].get(key) for key, name in _EVENTS.items()}
    events = {name: int(time) for name, time in times.items() if time is not None}
    return EpisodeRouting(t_step[order], [weights[chosen][order] for weights in checked_weights(steps)], events)
