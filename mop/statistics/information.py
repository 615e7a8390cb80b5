"""Entropy, divergence, and mutual information with its bias. Axis letters: S steps, A actions, P pathways, G groups."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mop.statistics.permutation import chance_level, rows_of_other_episodes

if TYPE_CHECKING:
    from torch import Tensor

_MOST_BY_CHANCE = 0.9  # of the largest information that there can be: above it the correction divides by almost nothing


def entropy_nats(shares: np.ndarray) -> np.ndarray:
    """Compute the entropy in nats of shares (..., E), rows that sum to 1: from 0 to ln E; float64 (...)."""
    shares = np.asarray(shares, np.float64)
    return -np.sum(shares * np.log(np.where(shares > 0, shares, 1)), axis=-1)  # 0 ln 0 = 0


def kl_divergence(log_p: "Tensor", log_q: "Tensor") -> "Tensor":
    """Compute KL(p || q) (...) in nats of log-probabilities (..., K), all of them finite."""
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def effective_number(shares: np.ndarray) -> np.ndarray:
    """Compute how many equally frequent pathways would have the entropy of distributions (..., P): e to the entropy."""
    return np.exp(entropy_nats(shares))


def jensen_shannon_bits(shares: np.ndarray) -> float:
    """Compute the generalised Jensen-Shannon divergence of G distributions (G, P) of equal weight, in bits.

    H(mean) - mean H (Lin 1991, IEEE Transactions on Information Theory 37): 0 where all are alike, log2 G where no two
    overlap. Rows of NaN are left out.
    """
    known = shares[~np.isnan(shares).any(1)]
    return float(entropy_nats(known.mean(0)) - entropy_nats(known).mean()) / math.log(2)


@dataclass(frozen=True)
class MutualInformation:
    """Mutual information I(S; A) of states and actions in nats, and its value under permutations."""

    corrected_nats: float  # freed from chance; NaN where the states are as fine as the steps
    plug_in_nats: float  # of the shares as they are: too high
    null_nats: float  # mean of the same if states and actions were unrelated
    null_low: float  # 95 % of the permutations lie between
    null_high: float
    action_entropy_nats: float  # H(A), which I(S; A) cannot exceed
    num_states: int
    num_steps: int


def mutual_information(probabilities: np.ndarray, state: np.ndarray, episode: np.ndarray) -> MutualInformation:
    """Estimate the mutual information of states and the policy's actions, corrected for chance.

    probabilities: of the actions at each step, (S, A), rows that sum to 1; state: (S,) int; episode: (S,) int, equal
    numbers are neighbours. With p(s) the share of the steps in state s, pi_s the mean probabilities there and P those
    of all steps: I = sum over s of p(s) KL(pi_s || P) = H(P) - sum over s of p(s) H(pi_s), in nats.
    It is too high where states have few steps, as the means of few steps differ by chance. How much too high is seen
    where states and actions are unrelated: the states of each episode get the probabilities of a random one
    (`rows_of_other_episodes`). Both keep what neighbouring steps have in common, so that dependent steps are not taken
    for independent ones. E, the mean of NUM_PERMUTATIONS of these, is set to 0, and the most that there can be,
    M = H(P) - mean entropy of the steps, stays what it is:
    corrected = M (I - E) / (M - E), the adjustment for chance of Vinh, Epps and Bailey 2010, JMLR 11: 2837-2854.
    It is below 0 where the states tell less than by chance.
    """
    probabilities = np.asarray(probabilities, np.float64)
    order = np.argsort(state, kind="stable")
    counts = np.unique(np.asarray(state)[order], return_counts=True)[1]
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])

    def information(rows: np.ndarray) -> float:
        sums = np.add.reduceat(probabilities[rows[order]], starts)
        return float(entropy_nats(sums.sum(0) / len(rows)) - counts @ entropy_nats(sums / counts[:, None]) / len(rows))

    found, entropy = information(np.arange(len(probabilities))), float(entropy_nats(probabilities.mean(0)))
    null = chance_level(information(rows) for rows in rows_of_other_episodes(np.asarray(episode)))
    corrected = _adjusted(found, null.value, entropy - float(entropy_nats(probabilities).mean()))
    return MutualInformation(corrected, found, *null, entropy, len(counts), len(probabilities))


def _adjusted(found: float, expected: float, most: float) -> float:
    if most < 1e-9:  # the policy always does the same: there is nothing to tell
        return 0.0
    return most * (found - expected) / (most - expected) if expected < _MOST_BY_CHANCE * most else float("nan")
