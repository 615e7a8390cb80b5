"""Routing data -> numbers: means by cell, entropies, time, who carries what, pathways; no files, no matplotlib.

Everything is an array operation over all steps at once. Axis letters: S steps, C grid cells that were visited,
L layers, E experts, A actions, G groups, B bins of an episode's progress, P pathways.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from errors import InputError
from routing_groups import Groups, RoutingData, Steps, chosen_actions

StepFilter = np.ndarray | Callable[[Steps], np.ndarray] | None  # a mask (S,) bool, or what makes it from the steps

# --- cells of the grid ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class CellIndex:
    """Which of the visited cells each step is in; cells are in reading order (by y, then x)."""

    cells: np.ndarray  # (C, 2) int64, x and y
    counts: np.ndarray  # (C,) int64, steps in the cell
    index: np.ndarray  # (S,) int64, cell of each step

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Mean (C,) float64 of values (S,) over the steps in each cell; values that are not finite are left out."""
        is_known = np.isfinite(values)
        num_known = self._total(is_known)
        mean = np.full(len(self.cells), np.nan)
        return np.divide(self._total(np.where(is_known, values, 0)), num_known, out=mean, where=num_known > 0)

    def _total(self, values: np.ndarray) -> np.ndarray:
        return np.bincount(self.index, weights=values, minlength=len(self.cells))


def index_cells(positions: np.ndarray) -> CellIndex:
    """The visited cells of positions (S, 2) int. Raises InputError if there are none."""
    positions = checked_positions(positions)
    x_min, y_min = positions.min(0)
    width = positions[:, 0].max() - x_min + 1
    flat = (positions[:, 1] - y_min) * width + (positions[:, 0] - x_min)
    flat, index, counts = np.unique(flat, return_inverse=True, return_counts=True)
    return CellIndex(np.stack([flat % width + x_min, flat // width + y_min], axis=1), counts, index)


@dataclass(frozen=True, eq=False)
class RoutingByPosition:
    """Means over the steps in each visited cell, in reading order (by y, then x)."""

    cells: np.ndarray  # (C, 2) int64, x and y
    counts: np.ndarray  # (C,) int64, steps in the cell
    routing: list[np.ndarray] | None  # L arrays (C, E_l) float64, mean weights; None if the steps have none
    lpc: np.ndarray | None  # (C,) float64, mean over the steps whose LPC is known; NaN where none is

    @property
    def num_steps(self) -> int:
        return int(self.counts.sum())


def aggregate_routing_by_position(steps: Steps, filter_fn: StepFilter = None) -> RoutingByPosition:
    """Mean router weights and LPC of each cell that the agent stood on.

    filter_fn: the steps that count, as a mask (S,) bool or a function from the steps to one; None counts all.
    Raises InputError if no steps are left, they have no positions, or a router weight is not finite; ValueError if the
    mask is not (S,) bool.
    """
    positions = checked_positions(steps.position)
    mask = step_mask(steps, filter_fn, len(positions))
    if not mask.any():
        raise InputError("there are no steps to average: the filter leaves none")
    cells = index_cells(positions[mask])
    routing = None
    if steps.layer_routing is not None:
        routing = [_mean_by(cells.index, weights[mask], cells.counts) for weights in checked_weights(steps)]
    lpc = None if steps.lpc is None else cells.mean(np.asarray(steps.lpc, np.float64)[mask])
    return RoutingByPosition(cells.cells, cells.counts, routing, lpc)


def compute_grid_bounds(positions: np.ndarray, grid_size: Sequence[int] | None = None) -> dict[str, int]:
    """The rectangle of cells to draw: `x_min, x_max, y_min, y_max` (all inclusive), `grid_width, grid_height`.

    positions: (S, 2) int. With `grid_size` (width, height) it is the whole world, so that walls show as unvisited;
    without, the smallest rectangle that holds every position.
    Raises InputError if there are no positions or one lies outside the world.
    """
    positions = checked_positions(positions)
    if grid_size is None:
        (x_min, y_min), (x_max, y_max) = positions.min(0).tolist(), positions.max(0).tolist()
    else:
        x_min, y_min, x_max, y_max = 0, 0, int(grid_size[0]) - 1, int(grid_size[1]) - 1
    size = {"grid_width": x_max - x_min + 1, "grid_height": y_max - y_min + 1}
    grid_info = {"x_min": x_min, "x_max": x_max, "y_min": y_min, "y_max": y_max, **size}
    check_inside(positions, grid_info)
    return grid_info


def compute_confidence(weight: np.ndarray, num_experts: int) -> np.ndarray:
    """Largest weight of each row, rescaled: 0 where all experts have 1/E, 1 where one has all; always 1 if E is 1."""
    weight = np.asarray(weight, np.float64)
    if num_experts == 1:
        return np.ones_like(weight)
    return np.clip((weight - 1 / num_experts) / (1 - 1 / num_experts), 0, 1)


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


def check_inside(cells: np.ndarray, grid_info: dict[str, int]) -> None:
    """Raise InputError if one of cells (C, 2) lies outside; an index below 0 would paint the opposite side."""
    low, high = (grid_info["x_min"], grid_info["y_min"]), (grid_info["x_max"], grid_info["y_max"])
    is_outside = ((cells < low) | (cells > high)).any(1)
    if is_outside.any():
        x, y = cells[is_outside][0].tolist()
        raise InputError(
            f"a step at x {x}, y {y} is outside the grid of x {low[0]} to {high[0]}, y {low[1]} to {high[1]}"
        )


def checked_weights(steps: Steps) -> list[np.ndarray]:
    """Router weights, L arrays (S, E_l). Raises InputError if there are none or one is not finite."""
    if steps.layer_routing is None:
        raise InputError("these steps have no 'layer_routing'")
    layers = [np.asarray(weights) for weights in steps.layer_routing]
    for layer, weights in enumerate(layers):
        if not np.isfinite(weights).all():
            raise InputError(f"layer {layer} has router weights that are not finite: the policy has diverged")
    return layers


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


# --- time -----------------------------------------------------------------------------------------------------------


def _follows(steps: Steps) -> np.ndarray:
    """(S - 1,) bool: the next step belongs to the same episode. Raises InputError if there are no steps.

    The steps of an episode are neighbours in a cache; before v4 the same number may stand for two episodes in a row.
    """
    episode, t_step = np.asarray(steps.episode), np.asarray(steps.t_step)
    if not len(episode):
        raise InputError("there are no steps: the routing data is empty")
    return (episode[1:] == episode[:-1]) & (t_step[1:] == t_step[:-1] + 1)


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
    run = np.cumsum(np.concatenate([[False], ~_follows(routing_data.steps)]))
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
    return [_mean_by(groups.index, weights, groups.counts) for weights in checked_weights(steps)]


def _mean_by(index: np.ndarray, values: np.ndarray, counts: np.ndarray) -> np.ndarray:
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
    return counts, [_mean_by(index, np.asarray(weights)[is_known], counts) for weights in layers]


def count_actions(routing_data: RoutingData, groups: Groups, num_actions: int) -> np.ndarray:
    """How often each action was chosen in each group, (G, A) int64. Raises InputError as `chosen_actions`."""
    flat = groups.index * num_actions + chosen_actions(routing_data)
    return np.bincount(flat, minlength=len(groups) * num_actions).reshape(len(groups), num_actions)


# --- pathways -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Pathways:
    """The combinations of dominant experts over the layers that occur, the most frequent first."""

    experts: np.ndarray  # (P, L) int64, dominant expert of each layer; the first one of equal weights
    counts: np.ndarray  # (P,) int64, steps
    transitions: np.ndarray  # (P, P) int64: from the row's pathway to the column's in the next step of an episode
    index: np.ndarray  # (S,) int64, pathway of each step


def compute_pathways(routing_data: RoutingData) -> Pathways:
    """The argmax over each layer's weights in each step, and what follows what within an episode.

    Raises InputError if there are no steps or they lack 't_step' or 'layer_routing'.
    """
    routing_data.require("t_step")
    steps, layers = routing_data.steps, checked_weights(routing_data.steps)
    follows = _follows(steps)
    shape = tuple(weights.shape[1] for weights in layers)
    flat = np.ravel_multi_index([weights.argmax(1) for weights in layers], shape)
    flat, index, counts = np.unique(flat, return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    rank = np.argsort(order)  # of each pathway, once the most frequent is first
    index = rank[index]
    pairs = (index[:-1] * len(flat) + index[1:])[follows]
    transitions = np.bincount(pairs, minlength=len(flat) ** 2).reshape(len(flat), len(flat))
    return Pathways(np.stack(np.unravel_index(flat[order], shape), axis=1), counts[order], transitions, index)
