"""Routing in the course of an episode: over the progress of all episodes, and step by step in one.

Axis letters: B parts of an episode, L layers, E experts, T steps of one episode.
"""

from dataclasses import dataclass

import numpy as np

from mop.analysis.routing_data import RoutingData, checked_weights, index_episodes, whole_of
from mop.common.errors import InputError
from mop.statistics.bootstrap import Means, bootstrap_layers

_EVENTS = {"t_pick": "picked up", "t_opened": "opened", "t_unlocked": "unlocked", "t_drop": "dropped"}


@dataclass(frozen=True, eq=False)
class RoutingOverProgress:
    """Router weights in B equal parts of an episode."""

    progress: np.ndarray  # (B,) float64, middle of each part, 0 to 1
    layers: list[Means]  # L means of B groups and E_l values, with their intervals


def compute_routing_over_progress(routing_data: RoutingData, num_bins: int = 20) -> RoutingOverProgress:
    """Router weights against progress, t_step / steps of the whole episode; step 0 is in the first part.

    An episode of fewer than `num_bins` steps has no step in some parts, so the parts differ in their counts.
    Raises InputError if there are no steps or they lack 't_step' or 'layer_routing'.
    """
    routing_data.require("t_step")
    layers, episode = checked_weights(routing_data.steps), index_episodes(routing_data)
    length = np.bincount(index_episodes(whole_of(routing_data)))
    part = np.asarray(routing_data.steps.t_step, np.int64) * num_bins // length[episode]
    return RoutingOverProgress(
        (np.arange(num_bins) + 0.5) / num_bins, bootstrap_layers(layers, episode, part, num_bins)
    )


@dataclass(frozen=True, eq=False)
class EpisodeRouting:
    """One episode, T steps in their order."""

    t_step: np.ndarray  # (T,) int64
    routing: list[np.ndarray]  # L arrays (T, E_l)
    events: dict[str, int]  # what happened -> actions taken when it was first true


def select_episode(routing_data: RoutingData, episode: int) -> EpisodeRouting:
    """All steps of one episode, of restricted data too, as each weight counts until the next step.

    Raises InputError if it has none, or the steps lack 't_step' or 'layer_routing'.
    """
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
