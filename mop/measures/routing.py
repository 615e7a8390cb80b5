"""Router weights -> numbers: cost, entropy, time, who carries what."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mop.base.errors import InputError
from mop.measures.groups import Groups, RoutingData, Steps, chosen_actions
from mop.measures.routing_data import checked_weights, follows_on

# --- cost and entropy -----------------------------------------------------------------------------------------------


def compute_layer_lpc(weights: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """A layer's part of the layered parameter cost: sum over experts of weight x size^2; weights (..., E) -> (...)."""
    return np.asarray(weights, np.float64) @ np.square(np.asarray(sizes, np.float64))


def compute_router_entropy(weights: np.ndarray) -> np.ndarray:
    """Entropy in nats of router weights (..., E), rows that sum to 1: from 0 to ln E; float64 (...)."""
    weights = np.asarray(weights, np.float64)
    return -np.sum(weights * np.log(np.where(weights > 0, weights, 1)), axis=-1)  # 0 ln 0 = 0


def compute_policy_entropy(action_logits: np.ndarray) -> np.ndarray:
    """Entropy in nats of the actions' probabilities, the softmax of logits (..., A): from 0 to ln A; float64 (...)."""
    logits = np.asarray(action_logits, np.float64)
    logits = logits - logits.max(-1, keepdims=True)
    weights = np.exp(logits)
    total = weights.sum(-1)
    return np.log(total) - (weights * logits).sum(-1) / total


@dataclass(frozen=True, eq=False)
class RoutingOverProgress:
    """Router weights in B equal parts of an episode: mean, and the quarter and three-quarter marks of the steps."""

    progress: np.ndarray  # (B,) float64, middle of each part, 0 to 1
    counts: np.ndarray  # (B,) int64, steps
    mean: list[np.ndarray]  # L arrays (B, E_l) float64; NaN where a part has no steps
    low: list[np.ndarray]  # 25 % quantile, as mean
    high: list[np.ndarray]  # 75 % quantile


def compute_routing_over_progress(routing_data: RoutingData, num_bins: int = 20) -> RoutingOverProgress:
    """Router weights against progress, t_step / steps of the episode; step 0 is in the first part.

    An episode of fewer than `num_bins` steps has no step in some parts, so the parts differ in their counts.
    Raises InputError if there are no steps or they lack 't_step' or 'layer_routing'.
    """
    routing_data.require("t_step")
    layers = checked_weights(routing_data.steps)
    run = np.cumsum(np.concatenate([[False], ~follows_on(routing_data.steps)]))
    t_step = np.asarray(routing_data.steps.t_step, np.int64)
    part = t_step * num_bins // np.bincount(run)[run]
    counts = np.bincount(part, minlength=num_bins)
    order = np.argsort(part, kind="stable")
    rows = np.split(order, np.cumsum(counts)[:-1])  # the steps of each part

    def of_parts(statistic: Callable, weights: np.ndarray) -> np.ndarray:
        nothing = np.full(weights.shape[1], np.nan)
        return np.stack([statistic(weights[chosen]) if len(chosen) else nothing for chosen in rows])

    statistics = [
        lambda w: w.mean(0, dtype=np.float64),
        lambda w: np.quantile(w, 0.25, 0),
        lambda w: np.quantile(w, 0.75, 0),
    ]
    mean, low, high = ([of_parts(statistic, weights) for weights in layers] for statistic in statistics)
    return RoutingOverProgress((np.arange(num_bins) + 0.5) / num_bins, counts, mean, low, high)


@dataclass(frozen=True, eq=False)
class EpisodeRouting:
    """One episode, T steps in their order."""

    t_step: np.ndarray  # (T,) int64
    routing: list[np.ndarray]  # L arrays (T, E_l)
    events: dict[str, int]  # what happened -> actions taken when it was first true


_EVENTS = {"t_pick": "picked up", "t_opened": "opened", "t_unlocked": "unlocked", "t_drop": "dropped"}


def select_episode(routing_data: RoutingData, episode: int) -> EpisodeRouting:
    """The steps of one episode. Raises InputError if it has none, or the steps lack 't_step' or 'layer_routing'."""
    routing_data.require("t_step")
    steps = routing_data.steps
    chosen = np.flatnonzero(np.asarray(steps.episode) == episode)
    if not len(chosen):
        raise InputError(f"there is no episode {episode}: they are counted from 0 to {len(routing_data.episodes) - 1}")
    t_step = np.asarray(steps.t_step, np.int64)[chosen]
    order = np.argsort(t_step, kind="stable")
    times = {name: routing_data.episodes[episode].get(key) for key, name in _EVENTS.items()}
    events = {name: int(time) for name, time in times.items() if time is not None}
    return EpisodeRouting(t_step[order], [weights[chosen][order] for weights in checked_weights(steps)], events)


# --- who carries what -----------------------------------------------------------------------------------------------


def mean_weights_by_group(steps: Steps, groups: Groups) -> list[np.ndarray]:
    """Mean router weights of each group, L arrays (G, E_l) float64. Raises InputError as `checked_weights`."""
    return [mean_by(groups.index, weights, groups.counts) for weights in checked_weights(steps)]


def mean_by(index: np.ndarray, values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean (K, E) of values (S, E) over the steps of each index 0..K-1; NaN where counts (K,) is 0."""
    total = np.stack([np.bincount(index, weights=column, minlength=len(counts)) for column in values.T], axis=1)
    return np.divide(total, counts[:, None], out=np.full(total.shape, np.nan), where=counts[:, None] > 0)


def mean_weights_by_distance(distance: np.ndarray, layers: Sequence[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Steps (D,) int64 at each distance 0..D-1 and their mean router weights, L arrays (D, E_l), NaN where no step is.

    distance: (S,) float of whole numbers, NaN where it is unknown; layers: L arrays (S, E_l).
    """
    is_known = np.isfinite(distance)
    index = distance[is_known].astype(np.int64)
    counts = np.bincount(index)
    return counts, [mean_by(index, np.asarray(weights)[is_known], counts) for weights in layers]


def count_actions(routing_data: RoutingData, groups: Groups, num_actions: int) -> np.ndarray:
    """How often each action was chosen in each group, (G, A) int64. Raises InputError as `chosen_actions`."""
    flat = groups.index * num_actions + chosen_actions(routing_data)
    return np.bincount(flat, minlength=len(groups) * num_actions).reshape(len(groups), num_actions)
