"""Actions: how often each is taken, how sure the policy is, what a state may be, and loops.

Axis letters: S steps, A actions, G groups; in loops T steps of an episode, B episodes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mop.analysis.cells import index_cells
from mop.analysis.groups import Groups, group_routing_data
from mop.analysis.routing_data import check_not_empty, chosen_actions, index_episodes
from mop.artifacts.routing_cache import RoutingData
from mop.common.conventions import ACTION_NAMES
from mop.common.errors import InputError
from mop.statistics.bootstrap import Means, bootstrap_shares


def compute_action_shares(routing_data: RoutingData, groups: Groups, num_actions: int) -> Means:
    """Compute the share of each action in the steps of each group, with its interval."""
    actions, episode = chosen_actions(routing_data), index_episodes(routing_data)
    return bootstrap_shares(actions, num_actions, episode, groups.index, len(groups))


def hold_action(routing_data: RoutingData, action: str | int) -> RoutingData:
    """Select the steps in which this action was chosen, by its name or number in ACTION_NAMES: `RoutingData.where`.

    What still differs between places and phases among them is not the action.
    """
    names = dict(enumerate(ACTION_NAMES)) | {name: name for name in ACTION_NAMES}
    if action not in names:
        raise InputError(f"there is no action {action!r}; choose one of {', '.join(ACTION_NAMES)}")
    name = names[action]
    return routing_data.where(chosen_actions(routing_data) == ACTION_NAMES.index(name), f"action: {name}")


def compute_policy_entropy(action_logits: np.ndarray) -> np.ndarray:
    """Compute the entropy in nats of the softmax of logits (..., A): from 0 to ln A; float64 (...)."""
    logits = np.asarray(action_logits, np.float64)
    logits = logits - logits.max(-1, keepdims=True)
    weights = np.exp(logits)
    total = weights.sum(-1)
    return np.log(total) - (weights * logits).sum(-1) / total


def action_probabilities(action_logits: np.ndarray) -> np.ndarray:
    """Compute the softmax of logits (..., A), the probability of each action; float64 (..., A)."""
    logits = np.asarray(action_logits, np.float64)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


# --- states, whose information on actions is the complexity of a policy -----------------------------------------------


STATE_PARTS: dict[str, Callable[[RoutingData, str | None], np.ndarray]] = {
    # what a state may be made of -> the number of each step (S,) int; the second argument is a name of GROUPINGS
    "cell": lambda data, phases: index_cells(data.column("position")).index,
    "direction": lambda data, phases: np.asarray(data.column("direction"), np.int64),
    "carrying": lambda data, phases: group_routing_data(data, "by_carrying").index,
    "phase": lambda data, phases: group_routing_data(data, phases or "overall").index,
}
DEFAULT_STATE = ("cell", "direction", "phase")


def index_states(routing_data: RoutingData, parts: Sequence[str] = DEFAULT_STATE, phases: str | None = None):
    """Number the state of each step, (S,) int64 from 0 without gaps: steps are in one state if all `parts` are equal.

    parts: of STATE_PARTS; phases: a name of GROUPINGS, for the part "phase".
    """
    check_not_empty(routing_data.steps.episode)
    columns = []
    for part in parts:
        if part not in STATE_PARTS:
            raise InputError(f"there is no {part!r} that a state is made of; choose among {', '.join(STATE_PARTS)}")
        columns.append(STATE_PARTS[part](routing_data, phases))
    return np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)[1].reshape(-1)


# --- loops ------------------------------------------------------------------------------------------------------------


LEAST_REPEATS = 3  # fewer may be a way of searching


@dataclass(frozen=True)
class Loop:
    """The end of an episode: from step `start` on, cell, direction and action repeat every `period` steps."""

    start: int
    period: int


def find_loop(position: np.ndarray, direction: np.ndarray, action: np.ndarray) -> Loop | None:
    """Find the loop of the least period in which an episode of T steps ends, if it has LEAST_REPEATS rounds.

    position: (T, 2) int; direction, action: (T,) int.
    """
    states = np.column_stack([position, direction, action])
    for period in range(1, len(states) // LEAST_REPEATS + 1):
        differs = np.flatnonzero((states[period:] != states[:-period]).any(1))
        start = 0 if not len(differs) else int(differs[-1]) + 1
        if len(states) - start >= LEAST_REPEATS * period:
            return Loop(start, period)
    return None


def compute_loops(routing_data: RoutingData) -> list[Loop | None]:
    """Find the loop in which each of the B episodes ends; None for one that ends in none or has no steps."""
    t_step, position, direction = (routing_data.column(name) for name in ("t_step", "position", "direction"))
    action = chosen_actions(routing_data)
    order = np.lexsort((t_step, routing_data.steps.episode))
    episode, t_step = routing_data.steps.episode[order], t_step[order]
    if ((episode[1:] == episode[:-1]) & (t_step[1:] == t_step[:-1])).any():
        raise InputError("this routing data does not tell its episodes apart: loops cannot be found")
    counts = np.bincount(episode, minlength=len(routing_data.episodes))
    rows = np.split(order, np.cumsum(counts)[:-1])
    return [find_loop(position[chosen], direction[chosen], action[chosen]) for chosen in rows]
