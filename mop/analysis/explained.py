"""How much of the variance of a step's cost, or of its gates, is explained by where, what, in which phase and when.

Axis letters: S steps, B episodes, G groups of steps, K values of a step.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from mop.analysis.cells import index_cells
from mop.analysis.groups import GROUPINGS, PHASE_GROUPINGS, choose_phases, get_available_analyses, group_routing_data
from mop.analysis.routing import compute_layer_lpc
from mop.analysis.routing_data import check_not_empty, checked_weights, index_episodes
from mop.artifacts.routing_cache import RoutingData
from mop.common.errors import InputError
from mop.statistics.variance import errors_out_of_episode, eta_squared, explained_shares

TIME_BINS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256)  # first step of each bin: a policy changes most at the start


def _cell(routing_data: RoutingData) -> np.ndarray:
    return index_cells(routing_data.column("position")).index


def _time(routing_data: RoutingData) -> np.ndarray:
    return np.searchsorted(TIME_BINS, routing_data.column("t_step"), side="right") - 1


def _grouping(name: str) -> Callable[[RoutingData], np.ndarray]:
    return lambda routing_data: group_routing_data(routing_data, name).index


@dataclass(frozen=True, eq=False)
class Explained:
    """What the groups of some factors, taken together, explain of the variance of K values of a step."""

    factors: tuple[str, ...]
    r2: np.ndarray  # (K,) float64, out of episode: at most 1, below 0 where the groups predict worse than one mean
    low: np.ndarray  # (K,) float64, 95 % interval
    high: np.ndarray
    in_sample: np.ndarray  # (K,) float64, eta squared: it grows with every group, whether or not it means anything
    group_steps: np.ndarray  # (G,) int64, steps of each group
    unseen: float  # share of the steps whose group is in no other episode


def compute_layer_costs(routing_data: RoutingData) -> tuple[list[str], np.ndarray]:
    """Compute the LPC of each step and, with more than one layer of known sizes, of each layer: names, values (S, K).

    What is the same in every step is left out.
    """
    costs = {"LPC": np.asarray(routing_data.column("lpc"), np.float64)}
    steps, sizes = routing_data.steps, routing_data.header.get("expert_hidden_sizes")
    check_not_empty(steps.episode)
    if not np.isfinite(costs["LPC"]).all():
        raise InputError("some steps have an LPC that is not finite: the policy has diverged")
    if sizes is not None and steps.layer_routing is not None and len(sizes) > 1:
        for layer, weights in enumerate(checked_weights(steps)):
            costs[f"LPC of layer {layer}"] = compute_layer_lpc(weights, sizes[layer])
    costs = {name: values for name, values in costs.items() if np.ptp(values) > 1e-6 * max(1.0, values.max())}
    if not costs:
        raise InputError("every step has the same LPC: there is no variance to explain")
    return list(costs), np.stack(list(costs.values()), axis=1)


def gate_values(routing_data: RoutingData) -> tuple[list[str], np.ndarray]:
    """Name the gates, the weights of all experts: "layer 0 skip", "layer 2 GRU 32", ..., values (S, K).

    What is the same in every step is left out.
    """
    layers, sizes = checked_weights(routing_data.steps), routing_data.header.get("expert_hidden_sizes")
    gates = {}
    for layer, weights in enumerate(layers):
        of_layer = [None] * weights.shape[1] if sizes is None else sizes[layer]
        for expert, size in enumerate(of_layer):
            name = f"expert {expert}" if size is None else f"GRU {size}" if size else "skip"
            letter = (
                chr(ord("a") + of_layer[:expert].count(size)) if size is not None and of_layer.count(size) > 1 else ""
            )
            gates[f"layer {layer} {name}{letter}"] = weights[:, expert].astype(np.float64)
    gates = {name: values for name, values in gates.items() if np.ptp(values) > 1e-6}
    if not gates:
        raise InputError("every gate is the same in every step: there is no variance to explain")
    return list(gates), np.stack(list(gates.values()), axis=1)


def index_factors(routing_data: RoutingData, phases: str | None = None) -> dict[str, np.ndarray]:
    """Find the factors that the data has and that split its steps: name -> group of each step, (S,) int.

    Cell; action; phase; time since start in bins that begin at TIME_BINS. The phase is the grouping `phases` of
    GROUPINGS under its title; without one, that of `choose_phases`.
    """
    phases = phases or choose_phases([get_available_analyses(routing_data, PHASE_GROUPINGS)])
    if phases not in (None, *GROUPINGS):
        raise InputError(f"there is no grouping {phases!r}; choose one of {', '.join(GROUPINGS)}")
    found, factors = {}, {"cell": _cell, "action": _grouping("by_action")}
    factors |= {} if phases is None else {GROUPINGS[phases].title: _grouping(phases)}
    for name, index_of in (factors | {"time since start": _time}).items():
        try:
            index = index_of(routing_data)
        except InputError:  # the data lacks what it needs
            continue
        if np.ptp(index) > 0:
            found[name] = index
    if not found:
        raise InputError("nothing splits these steps: neither cell, action, phase nor time differs among them")
    return found


def explain_variance(routing_data: RoutingData, values: np.ndarray, phases: str | None = None) -> list[Explained]:
    """Explain values (S, K) of the steps by each factor of `index_factors` alone, in pairs, and all together.

    Each step is predicted by the mean of its group over all *other* episodes; r2 = 1 - sum of squared errors / that of
    the mean of all steps of other episodes, which is also the prediction where no other episode has the group. It is
    cross-validation with an episode left out (Allen 1974, Technometrics 16, doi:10.1080/00401706.1974.10489157; in
    blocks, as steps of an episode resemble each other: Roberts et al. 2017, Ecography 40, doi:10.1111/ecog.02881).
    Why not eta squared, the share of the group means in the variance of the same steps: a group of one step explains
    itself, so 500 cells explain much of mere noise. Adjusted R2, omega and epsilon squared take off what independent
    steps would give, and steps of one episode are not independent. What endless data would give lies on average between
    r2, whose group means are not exact, and eta squared, `in_sample`.
    The interval resamples the errors by episode (`bootstrap.resample`); predictions are not fitted anew, so it is a
    little narrow where groups are small; below MIN_EPISODES episodes it is NaN. phases: as `index_factors`. Raises
    InputError as that, if there is only one episode, or if a value is the same in every step.
    """
    values, episode = _checked_values(routing_data, values)
    factors = index_factors(routing_data, phases)
    names = list(factors)
    chosen = [(name,) for name in names] + list(combinations(names, 2)) + ([tuple(names)] if len(names) > 2 else [])
    groups = [_joint(factors[name] for name in of) for of in chosen]
    null, _ = errors_out_of_episode(values, episode, np.zeros(len(values), np.int64))
    predictions = [errors_out_of_episode(values, episode, group) for group in groups]
    r2, low, high = explained_shares(null, [errors for errors, _ in predictions])
    return [
        Explained(of, r2[i], low[i], high[i], eta_squared(values, group), np.bincount(group), unseen)
        for i, (of, group, (_, unseen)) in enumerate(zip(chosen, groups, predictions, strict=True))
    ]


@dataclass(frozen=True, eq=False)
class Beyond:
    """What one factor explains of what others, held fixed, leave of the variance of K values of a step."""

    factor: str
    held: tuple[str, ...]
    share: np.ndarray  # (K,) float64, out of episode: at most 1; NaN where nothing is left to explain
    low: np.ndarray  # (K,) float64, 95 % interval
    high: np.ndarray


def explain_beyond(
    routing_data: RoutingData, values: np.ndarray, factor: str, held: Sequence[str], phases: str | None = None
) -> Beyond:
    """Explain values (S, K) by `factor` where `held` do not differ: both names of `index_factors`.

    share = 1 - SSE(held x factor) / SSE(held), with the errors out of episode of `explain_variance`, and its interval:
    a partial R2. Where phases differ only in which actions are taken in them, the share of the phase with the action
    held fixed is 0, or a little below, as its groups are smaller.
    """
    values, episode = _checked_values(routing_data, values)
    factors = index_factors(routing_data, phases)
    for name in (factor, *held):
        if name not in factors:
            raise InputError(f"nothing tells these steps apart by {name}; by {', '.join(factors)}")
    less, more = (
        errors_out_of_episode(values, episode, _joint(factors[name] for name in of))[0]
        for of in (tuple(held), (*held, factor))
    )
    is_left = less.sum(0) > 1e-12 * np.square(values).sum(0)
    share, low, high = explained_shares(np.where(is_left, less, np.nan), [more])[:, 0]
    return Beyond(factor, tuple(held), share, low, high)


def _checked_values(routing_data: RoutingData, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centre values (S, K), so that sums lose no digits; also returns the episode of each step without gaps (S,)."""
    _, episode = np.unique(index_episodes(routing_data), return_inverse=True)
    if not episode.max():
        raise InputError("each episode is predicted from the others here: it takes at least two episodes")
    if not np.ptp(values, axis=0).all():
        raise InputError("a value that is the same in every step has no variance to explain")
    return values - values.mean(0), episode


def _joint(indices: Iterable[np.ndarray]) -> np.ndarray:
    """Number (S,) int64, from 0 without gaps, the combinations of the numbers of several factors (S,)."""
    joint, *others = (np.asarray(index, np.int64) for index in indices)
    for index in others:
        joint = joint * (index.max() + 1) + index
    return np.unique(joint, return_inverse=True)[1]
