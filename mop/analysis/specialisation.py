"""Specialisation: whether policies that were trained apart route alike, and how far the pathways of groups differ.

Policies on their own paths see other states, so only weights of the same steps are compared: of the bot's episodes,
say. Axis letters: S steps, G gates (the experts of all layers) or groups, P pathways.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mop.common.seeding import stream_seed
from mop.statistics.bootstrap import ratio, sum_by
from mop.statistics.information import jensen_shannon_bits
from mop.statistics.permutation import NUM_PERMUTATIONS, chance_level, groups_of_other_episodes


def step_correlation(first: np.ndarray, second: np.ndarray, group: np.ndarray | None = None) -> float:
    """Correlate (Pearson) the weights (S, G) of two policies over the steps and gates, within [-1, 1].

    Each gate's mean is taken out first, in each policy and, with `group` (S,) int from 0, in each group of steps: what
    is left says *when* a gate is used, not how much. NaN where the weights of a policy do not vary.
    """
    group = np.zeros(len(first), np.int64) if group is None else np.asarray(group)
    return _correlation(_centred(first, group), _centred(second, group))


def group_means(weights: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Average weights over the steps of each group, (groups, G) float64; every group from 0 on has steps."""
    return sum_by(group, weights) / np.bincount(group)[:, None]


def _centred(weights: np.ndarray, group: np.ndarray) -> np.ndarray:
    counts = np.maximum(np.bincount(group), 1)[:, None]
    return weights - (sum_by(group, weights) / counts)[group]


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Correlate two arrays of mean 0 along their first axis. NaN where one does not vary but for rounding."""
    squares = [float(np.square(values).sum()) for values in (first, second)]
    if min(squares) <= 1e-12 * first.size:
        return float("nan")
    return float(np.clip((first * second).sum() / np.sqrt(squares[0] * squares[1]), -1.0, 1.0))


def stacked(layers: Sequence[np.ndarray]) -> np.ndarray:
    """Stack the router weights of L layers, each (S, E_l), to (S, G): gates of equal place and size are compared."""
    return np.concatenate([np.asarray(weights) for weights in layers], axis=1)


@dataclass(frozen=True)
class Distinctness:
    """The generalised Jensen-Shannon divergence of the pathways of groups, and its value under permutations."""

    bits: float
    null_bits: float  # mean of the same if episodes had their groups by chance
    null_low: float  # 95 % of the permutations lie between
    null_high: float
    most_bits: float  # what it would be if no two groups shared a pathway: the entropy of the groups


def pathway_shares(pathway: np.ndarray, group: np.ndarray, num_pathways: int, num_groups: int) -> np.ndarray:
    """Compute the share (G, P) of each group's steps that take each pathway, float64; pathway, group: (S,) int.

    NaN in the row of a group without steps.
    """
    counts = np.bincount(group * num_pathways + pathway, minlength=num_groups * num_pathways)
    counts = counts.reshape(num_groups, num_pathways)
    return ratio(counts, counts.sum(1, keepdims=True))


def distinctness(
    pathway: np.ndarray, group: np.ndarray, episode: np.ndarray, name: str = "tasks", within: np.ndarray | None = None
) -> Distinctness:
    """Measure how far the pathways of the groups differ, with a null in which whole episodes change their groups.

    pathway, group, episode: (S,) int from 0. An episode may have steps of several groups (sub-goals): then the groups
    of its steps are handed to another episode, cut or repeated to its length. within: (S,) int, the same in all steps
    of an episode (tasks): episodes change with those of the same number alone, so the null holds what it explains.
    name: of the stream of random numbers.
    """
    num_pathways, num_groups = int(pathway.max()) + 1, int(group.max()) + 1

    def measured(of_steps: np.ndarray) -> float:
        return jensen_shannon_bits(pathway_shares(pathway, of_steps, num_pathways, num_groups))

    rng = np.random.default_rng(stream_seed(0, f"distinctness {name}"))
    others = (groups_of_other_episodes(group, episode, rng, within) for _ in range(NUM_PERMUTATIONS))
    null = chance_level(map(measured, others))
    return Distinctness(measured(group), *null, float(np.log2(len(np.unique(group)))))
