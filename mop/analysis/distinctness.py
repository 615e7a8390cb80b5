"""How much the pathways of steps tell of the group that the steps are in: tasks, sub-goals.

Axis letters: S steps, G groups, P pathways, B episodes.
"""

import math
from dataclasses import dataclass

import numpy as np

from mop.common.seeding import stream_seed
from mop.statistics.bootstrap import bounds
from mop.statistics.entropy import entropy_nats

NUM_PERMUTATIONS = 200


@dataclass(frozen=True)
class Distinctness:
    """The generalised Jensen-Shannon divergence of the pathways of groups, and what it is to be held against."""

    bits: float
    null_bits: float  # mean of the same if episodes had their groups by chance
    null_low: float  # 95 % of the permutations lie between
    null_high: float
    most_bits: float  # what it would be if no two groups shared a pathway: the entropy of the groups


def pathway_shares(pathway: np.ndarray, group: np.ndarray, num_pathways: int, num_groups: int) -> np.ndarray:
    """Share (G, P) of each group's steps that take each pathway, float64; pathway, group: (S,) int from 0.

    NaN in the row of a group without steps.
    """
    counts = np.bincount(group * num_pathways + pathway, minlength=num_groups * num_pathways)
    counts = counts.reshape(num_groups, num_pathways).astype(np.float64)
    with np.errstate(invalid="ignore"):
        return counts / counts.sum(1, keepdims=True)


def jensen_shannon_bits(shares: np.ndarray) -> float:
    """Generalised Jensen-Shannon divergence of G distributions (G, P), all of the same weight, in bits.

    H(mean) - mean H (Lin 1991, IEEE Transactions on Information Theory 37): 0 where all are alike, log2 G where no two
    overlap. Rows of NaN are left out.
    """
    known = shares[~np.isnan(shares).any(1)]
    return float(entropy_nats(known.mean(0)) - entropy_nats(known).mean()) / math.log(2)


def distinctness(
    pathway: np.ndarray, group: np.ndarray, episode: np.ndarray, name: str = "tasks", within: np.ndarray | None = None
) -> Distinctness:
    """How far the pathways of the groups differ, with a null in which whole episodes change their groups.

    pathway, group, episode: (S,) int from 0. An episode may have steps of several groups (sub-goals): then the groups
    of its steps are handed to another episode, cut or repeated to its length. within: (S,) int, the same in all steps
    of an episode (tasks): episodes change with those of the same number alone, so the null holds what it explains.
    name: of the stream of random numbers.
    """
    num_pathways, num_groups = int(pathway.max()) + 1, int(group.max()) + 1

    def measured(of_steps: np.ndarray) -> float:
        return jensen_shannon_bits(pathway_shares(pathway, of_steps, num_pathways, num_groups))

    rng = np.random.default_rng(stream_seed(0, f"distinctness {name}"))
    null = np.array([measured(_handed_on(group, episode, rng, within)) for _ in range(NUM_PERMUTATIONS)])
    low, high = bounds(null)
    present = len(np.unique(group))
    return Distinctness(measured(group), float(null.mean()), float(low), float(high), float(np.log2(present)))


def _handed_on(
    group: np.ndarray, episode: np.ndarray, rng: np.random.Generator, within: np.ndarray | None
) -> np.ndarray:
    """The groups of the steps after each episode took those of another, at the same share of its way."""
    starts = np.flatnonzero(np.r_[True, episode[1:] != episode[:-1]])
    lengths = np.diff(np.r_[starts, len(episode)])
    mine = np.repeat(np.arange(len(starts)), lengths)
    kind = np.zeros(len(starts), np.int64) if within is None else within[starts]
    mixed = np.empty(len(starts), np.int64)
    mixed[np.argsort(kind, kind="stable")] = np.lexsort((rng.random(len(starts)), kind))
    other = mixed[mine]
    way = (np.arange(len(episode)) - starts[mine]) / lengths[mine]
    return group[starts[other] + (way * lengths[other]).astype(np.int64)]


def effective_number(shares: np.ndarray) -> np.ndarray:
    """How many pathways there would be if all were used equally: e to the entropy of distributions (..., P)."""
    return np.exp(entropy_nats(shares))
