"""What is measured of one run, in all of its steps, in each phase, and in each phase with the action held fixed.

Phases are the groups of any of GROUPINGS. Axis letters: S steps, B episodes, C grid cells.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mop.analysis.actions import DEFAULT_STATE, action_probabilities, compute_policy_entropy, index_states
from mop.analysis.cells import CellIndex, distances_to_objects, index_cells
from mop.analysis.groups import get_available_analyses, group_routing_data
from mop.analysis.routing_data import chosen_actions, index_episodes, whole_of
from mop.artifacts.routing_cache import RoutingData
from mop.common.conventions import ACTION_NAMES
from mop.common.errors import InputError
from mop.statistics.bootstrap import EpisodeSums, sums_of_correlation, sums_of_mean
from mop.statistics.information import mutual_information

ALL_STEPS, ANY_ACTION = "all steps", "any"
NOT_PHASES = ("overall", "by_action")  # of GROUPINGS: the action is held fixed within phases
MEASURES = {  # name of a column -> what an axis calls it
    "success": "success, share of episodes",
    "lpc": "mean LPC of a step",
    "path_ratio": "path ratio",
    "entropy_nats": "policy entropy, nats",
    "complexity_nats": "policy complexity I(S; A), nats",
}
LIMITS = {"success": (0.0, 1.0), "lpc": (0.0, np.inf), "path_ratio": (0.0, np.inf), "entropy_nats": (0.0, np.inf)}
CORRELATIONS = {
    "r_entropy": "policy entropy",
    "r_distance_door": "walking distance to the door",
    "r_distance_key": "walking distance to the key",
    "r_distance_target": "walking distance to the target",
}


@dataclass(frozen=True, eq=False)
class Part:
    """Some steps of one run, and what is measured of them; a measure that the data does not allow is not there."""

    phase: str  # ALL_STEPS, or the label of a group
    action: str  # ANY_ACTION, or the one of ACTION_NAMES that all of its steps have
    num_steps: int
    num_episodes: int
    measures: dict[str, EpisodeSums | float] = field(default_factory=dict)
    cells: CellIndex | None = None  # of the steps of any action, where positions are known
    cell_means: dict[str, np.ndarray] = field(default_factory=dict)  # "lpc", "entropy_nats": (C,) float64


def measure_run(
    routing_data: RoutingData, phases: str | None = None, state: Sequence[str] = DEFAULT_STATE
) -> tuple[list[Part], list[str]]:
    """Measure the parts of a run: all steps, each phase, each with every action held fixed; why others are missing.

    phases: of GROUPINGS, None for none; state: of STATE_PARTS, for the complexity. Of data restricted to one action
    (`hold_action`), what needs whole episodes is left out: success, path ratio, complexity.
    In all steps: `success`, share of the episodes; `path_ratio`, mean over the solved ones of steps / the bot's. In a
    phase, `path_ratio` is its part of that: steps *in the phase* / the bot's of the whole episode, so the parts of all
    phases add up to the whole. `lpc`, `entropy_nats`: means over steps. `complexity_nats`: `mutual_information`.
    `r_...`: correlation of LPC over the steps of the part, with the entropy and with `distances_to_objects`.
    With an action held fixed, `lpc_difference` is what the phase changes: LPC of these steps minus that of the steps
    with the same action in the other phases.
    """
    columns, reasons = _columns(routing_data)
    chosen = [(ALL_STEPS, np.ones(len(columns.episode), bool))]
    if phases is not None:
        try:
            groups = group_routing_data(routing_data, phases)
            chosen += [(label, groups.mask(group)) for group, label in enumerate(groups.labels)]
        except InputError as error:
            reasons.append(f"no phases: {error}")
    states = _states(routing_data, state, phases if len(chosen) > 1 else None, reasons)
    parts = []
    for label, mask in chosen:
        part = _part(columns, mask, label, ANY_ACTION)
        if states is not None:
            part.measures.update(_complexity(columns, states, mask))
        if routing_data is whole_of(routing_data):
            part.measures.update(_outcomes(routing_data, mask, is_all=label is ALL_STEPS, reasons=reasons))
        parts.append(part)
        if columns.action is None:
            continue
        for action in np.unique(columns.action[mask]).tolist():
            is_held = columns.action == action
            part = _part(columns, mask & is_held, label, ACTION_NAMES[action])
            if "lpc" in columns.values and (is_held & ~mask).any():
                here, elsewhere = (_lpc_sums(columns, steps) for steps in (mask & is_held, is_held & ~mask))
                part.measures["lpc_difference"] = here.minus(elsewhere)
            parts.append(part)
    return parts, list(dict.fromkeys(reasons))


@dataclass(frozen=True, eq=False)
class _Columns:
    """The steps (S,) of a run, as the measures need them; what the data lacks is None, or not there."""

    episode: np.ndarray  # of `index_episodes`
    num_episodes: int
    cell: np.ndarray | None  # (S, 2)
    action: np.ndarray | None
    values: dict[str, np.ndarray]  # "lpc", "entropy_nats"
    correlates: dict[str, np.ndarray]  # of CORRELATIONS
    probabilities: np.ndarray | None  # (S, A)


def _columns(routing_data: RoutingData) -> tuple[_Columns, list[str]]:
    steps, reasons, values, correlates, action, probabilities = routing_data.steps, [], {}, {}, None, None
    if steps.lpc is not None:
        values["lpc"] = np.asarray(steps.lpc, np.float64)
    if steps.action_logits is not None and np.isfinite(steps.action_logits).all():
        values["entropy_nats"] = correlates["r_entropy"] = compute_policy_entropy(steps.action_logits)
        probabilities = action_probabilities(steps.action_logits)
    else:
        reasons.append("no entropy and no complexity: the steps have no finite 'action_logits'")
    try:
        correlates |= {f"r_distance_{kind}": found for kind, found in distances_to_objects(routing_data).items()}
    except InputError as error:
        reasons.append(f"no walking distances: {error}")
    try:
        action = chosen_actions(routing_data)
    except InputError as error:
        reasons.append(f"no action held fixed: {error}")
    num_episodes = int(index_episodes(whole_of(routing_data)).max()) + 1
    episode = index_episodes(routing_data)
    return _Columns(episode, num_episodes, steps.position, action, values, correlates, probabilities), reasons


def _lpc_sums(columns: _Columns, mask: np.ndarray) -> EpisodeSums:
    return sums_of_mean(columns.values["lpc"][mask], columns.episode[mask], columns.num_episodes)


def _part(columns: _Columns, mask: np.ndarray, phase: str, action: str) -> Part:
    episode, num = columns.episode[mask], columns.num_episodes
    values = {name: of_steps[mask] for name, of_steps in columns.values.items()}
    measures: dict[str, EpisodeSums | float] = {
        name: sums_of_mean(of_steps, episode, num) for name, of_steps in values.items()
    }
    cells, means = None, {}
    if action == ANY_ACTION and "lpc" in values:
        for name, other in columns.correlates.items():
            measures[name] = sums_of_correlation(values["lpc"], other[mask], episode, num)
    if action == ANY_ACTION and columns.cell is not None:
        cells = index_cells(columns.cell[mask])
        means = {name: cells.mean(of_steps) for name, of_steps in values.items()}
    return Part(phase, action, int(mask.sum()), len(np.unique(episode)), measures, cells, means)


def _states(routing_data: RoutingData, state: Sequence[str], phases: str | None, reasons: list[str]):
    """Number the state of each step; None, with a reason added, where there is none."""
    if routing_data is not whole_of(routing_data) or routing_data.steps.action_logits is None:
        return None
    try:
        return index_states(routing_data, state, phases)
    except InputError as error:
        reasons.append(f"no complexity: {error}")
        return None


def _complexity(columns: _Columns, states: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    if columns.probabilities is None:
        return {}
    found = mutual_information(columns.probabilities[mask], states[mask], columns.episode[mask])
    return {
        "complexity_nats": found.corrected_nats,
        "complexity_plug_in_nats": found.plug_in_nats,
        "complexity_null_nats": found.null_nats,
        "complexity_null_low": found.null_low,
        "complexity_null_high": found.null_high,
        "action_entropy_nats": found.action_entropy_nats,
        "num_states": found.num_states,
    }


def _outcomes(routing_data: RoutingData, mask: np.ndarray, is_all: bool, reasons: list[str]) -> dict[str, EpisodeSums]:
    """Measure the success of all steps, and the path ratio or the part of it."""
    episodes = routing_data.episodes
    if not all({"success", "steps", "expert_steps"} <= episode.keys() for episode in episodes):
        reasons.append("no success and no path ratio: the episodes do not tell their outcome")
        return {}
    solved = np.array([bool(episode["success"]) for episode in episodes])
    bot_steps = np.array([episode["expert_steps"] for episode in episodes], np.float64)
    in_part = np.bincount(np.asarray(routing_data.steps.episode)[mask], minlength=len(episodes))
    ratio = np.where(solved, in_part / np.maximum(bot_steps, 1), 0.0)
    outcomes = {"path_ratio": EpisodeSums(np.stack([ratio, solved], axis=1).astype(np.float64))}
    if is_all:
        outcomes["success"] = EpisodeSums(np.stack([solved, np.ones(len(solved))], axis=1).astype(np.float64))
    return outcomes


def available_phases(routing_data: RoutingData) -> list[str]:
    """List the GROUPINGS that can be phases of this data: those that split its steps, but not by the action."""
    return [name for name in get_available_analyses(routing_data) if name not in NOT_PHASES]


@dataclass(frozen=True, eq=False)
class SeedCells:
    """Means over runs of what is measured in each cell that one of them visited, in reading order."""

    cells: np.ndarray  # (C, 2) int64, x and y
    counts: np.ndarray  # (C,) int64, steps of all runs
    num_runs: np.ndarray  # (C,) int64, runs that were there
    values: np.ndarray  # (C,) float64, mean over these of each one's mean


def mean_cells(parts: Sequence[Part], name: str) -> SeedCells:
    """Average the cells of the same part of several runs, each run counting alike; name: of `Part.cell_means`."""
    known = [(part.cells, part.cell_means[name]) for part in parts if part.cells and name in part.cell_means]
    if not known:
        raise InputError(f"no run tells in which cells its {name} is how large")
    index = index_cells(np.concatenate([visited.cells for visited, _ in known]))
    values = np.concatenate([means for _, means in known])
    counts = np.bincount(index.index, np.concatenate([visited.counts for visited, _ in known])).astype(np.int64)
    return SeedCells(index.cells, counts, index.counts, index.mean(values))
