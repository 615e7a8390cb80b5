"""Policy complexity: how much the state tells of the action, I(S; A), beside what chance alone would show.

Axis letters: S steps, A actions, G states.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mop.analysis.cells import index_cells
from mop.analysis.groups import group_routing_data
from mop.analysis.routing_data import RoutingData, check_not_empty
from mop.common.errors import InputError
from mop.common.seeding import stream_seed
from mop.statistics.bootstrap import bounds
from mop.statistics.entropy import entropy_nats

NUM_PERMUTATIONS = 200
_MOST_BY_CHANCE = 0.9  # of the largest information that there can be: above it the correction divides by almost nothing


def _direction(routing_data: RoutingData, phases: str | None) -> np.ndarray:
    routing_data.require("direction")
    return np.asarray(routing_data.steps.direction, np.int64)


STATE_PARTS: dict[str, Callable[[RoutingData, str | None], np.ndarray]] = {
    # what a state may be made of -> the number of each step (S,) int; the second argument is a name of GROUPINGS
    "cell": lambda data, phases: index_cells(data.steps.position).index,
    "direction": _direction,
    "carrying": lambda data, phases: group_routing_data(data, "by_carrying").index,
    "phase": lambda data, phases: group_routing_data(data, phases or "overall").index,
}
DEFAULT_STATE = ("cell", "direction", "phase")


@dataclass(frozen=True)
class Complexity:
    """I(S; A) of some steps in nats, and what it is to be held against."""

    corrected_nats: float  # freed from chance; NaN where the states are as fine as the steps
    plug_in_nats: float  # of the shares as they are: too high
    null_nats: float  # mean of the same if states and actions were unrelated
    null_low: float  # 95 % of the permutations lie between
    null_high: float
    action_entropy_nats: float  # H(A), which I(S; A) cannot exceed
    num_states: int
    num_steps: int


def index_states(routing_data: RoutingData, parts: Sequence[str] = DEFAULT_STATE, phases: str | None = None):
    """The state of each step, (S,) int64 from 0 without gaps: steps are in one state if all `parts` are equal.

    parts: of STATE_PARTS; phases: a name of GROUPINGS, for the part "phase". Raises InputError if a part is unknown or
    the data lacks what it needs.
    """
    check_not_empty(routing_data.steps.episode)
    columns = []
    for part in parts:
        if part not in STATE_PARTS:
            raise InputError(f"there is no {part!r} that a state is made of; choose among {', '.join(STATE_PARTS)}")
        columns.append(STATE_PARTS[part](routing_data, phases))
    return np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)[1].reshape(-1)


def compute_complexity(probabilities: np.ndarray, state: np.ndarray, episode: np.ndarray) -> Complexity:
    """How much the states tell of the policy's actions, and how much of it is chance.

    probabilities: of the actions at each step, (S, A), rows that sum to 1; state: (S,) int; episode: (S,) int, equal
    numbers are neighbours. With p(s) the share of the steps in state s, pi_s the mean probabilities there and P those
    of all steps: I = sum over s of p(s) KL(pi_s || P) = H(P) - sum over s of p(s) H(pi_s), in nats.
    It is too high where states have few steps, as the means of few steps differ by chance. How much too high is seen
    where states and actions are unrelated: the states of each episode get the probabilities of a random one
    (`_unrelated`). Both keep what neighbouring steps have in common, so dependent steps are not taken for independent
    ones. E, the mean of NUM_PERMUTATIONS of these, is set to 0, and the most that there can be, M = H(P) - mean entropy
    of the steps, stays what it is:
    corrected = M (I - E) / (M - E), the adjustment for chance of Vinh, Epps and Bailey 2010, JMLR 11: 2837-2854.
    It is below 0 where the states tell less than by chance.
    """
    probabilities = np.asarray(probabilities, np.float64)
    check_not_empty(probabilities)
    order = np.argsort(state, kind="stable")
    counts = np.unique(np.asarray(state)[order], return_counts=True)[1]
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])

    def information(rows: np.ndarray) -> float:
        sums = np.add.reduceat(probabilities[rows[order]], starts)
        return float(entropy_nats(sums.sum(0) / len(rows)) - counts @ entropy_nats(sums / counts[:, None]) / len(rows))

    found, entropy = information(np.arange(len(probabilities))), float(entropy_nats(probabilities.mean(0)))
    null = np.array([information(rows) for rows in _unrelated(np.asarray(episode))])
    expected, most = float(null.mean()), entropy - float(entropy_nats(probabilities).mean())
    low, high = bounds(null)
    corrected = _adjusted(found, expected, most)
    return Complexity(corrected, found, expected, float(low), float(high), entropy, len(counts), len(probabilities))


def _adjusted(found: float, expected: float, most: float) -> float:
    if most < 1e-9:  # the policy always does the same: there is nothing to tell
        return 0.0
    return most * (found - expected) / (most - expected) if expected < _MOST_BY_CHANCE * most else float("nan")


def _unrelated(episode: np.ndarray) -> Iterator[np.ndarray]:
    """NUM_PERMUTATIONS times: for each step the row (S,) of another one, whose action it gets.

    The episodes are permuted. One that is laid along another begins anywhere, and is mirrored at its ends until it is
    long enough: so no two steps become neighbours that were none, but for a step and itself, and what merely happens at
    the same time of an episode is not related any more.
    """
    rng = np.random.default_rng(stream_seed(0, "permutations of actions"))
    number = np.cumsum(np.append(False, episode[1:] != episode[:-1]))
    first, length = np.unique(number, return_index=True, return_counts=True)[1:]
    step = np.arange(len(number)) - first[number]
    for _ in range(NUM_PERMUTATIONS):
        other = rng.permutation(len(length))
        place = (step + rng.integers(2 * length[other])[number]) % (2 * length[other])[number]
        yield first[other][number] + np.minimum(place, 2 * length[other][number] - 1 - place)
