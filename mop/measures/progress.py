"""Routing in the course of an episode: over the progress of all episodes, and step by step in one.

Axis letters: B parts of an episode, L layers, E experts, T steps of one episode.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mop.base.errors import InputError
from mop.measures.routing_data import RoutingData, checked_weights, follows_on

_EVENTS = {"t_pick": "picked up", "t_opened": "opened", "t_unlocked": "unlocked", "t_drop": "dropped"}


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
    episode = np.cumsum(np.concatenate([[False], ~follows_on(routing_data.steps)]))
    t_step = np.asarray(routing_data.steps.t_step, np.int64)
    part = t_step * num_bins // np.bincount(episode)[episode]
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
