"""Shares of variance: between tasks (ICC), and between groups of steps.

Axis letters: N tasks, K seeds or values of a step, S steps, B episodes, G groups of steps.
"""

from collections.abc import Sequence

import numpy as np

from mop.statistics.bootstrap import bootstrap_intervals, sum_by
from mop.statistics.intervals import Interval


def intraclass_correlation(values: np.ndarray) -> Interval:
    """Compute the share of the variance of values (N, K) that is between tasks, with its 95 % interval.

    ICC(1,1), one-way and of single values, with the interval of the F distribution (Shrout and Fleiss 1979,
    Psychological Bulletin 86: 420-428). It is below 0 where tasks differ less than their seeds would have it. NaN where
    no value differs from another. Raises ValueError for fewer than two tasks or seeds.
    """
    from scipy.special import fdtri  # here: it takes a quarter of a second to load

    (num_tasks, num_seeds), values = values.shape, np.asarray(values, float)
    if num_tasks < 2 or num_seeds < 2:
        raise ValueError(f"an intraclass correlation needs two tasks and two seeds, not {values.shape}")
    free_between, free_within = num_tasks - 1, num_tasks * (num_seeds - 1)
    between = num_seeds * values.mean(axis=1).var(ddof=1)
    within = values.var(axis=1, ddof=1).mean()
    if within == 0:
        share = 1.0 if between > 0 else np.nan
        return Interval(share, share, share)
    ratio = between / within
    low = ratio / fdtri(free_between, free_within, 0.975)
    high = ratio * fdtri(free_within, free_between, 0.975)
    return Interval(*(float((f - 1) / (f + num_seeds - 1)) for f in (ratio, low, high)))


# --- explained variance -----------------------------------------------------------------------------------------------


def errors_out_of_episode(values: np.ndarray, episode: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, float]:
    """Predict each step from the other episodes: squared errors of each episode (B, K), share of unseen groups.

    values: (S, K); episode, group: (S,) int from 0 without gaps.
    """
    num_groups = group.max() + 1
    pairs, pair, count = np.unique(episode * num_groups + group, return_inverse=True, return_counts=True)
    of_episode, of_group = pairs // num_groups, pairs % num_groups

    total = sum_by(pair, values)  # of each group in each episode that has it, (pairs, K)
    others = np.bincount(of_group, count)[of_group] - count
    rest = len(values) - np.bincount(of_episode, count)[of_episode]
    is_seen = others > 0
    of_group_elsewhere = sum_by(of_group, total)[of_group] - total
    of_all_elsewhere = values.sum(0) - sum_by(of_episode, total)[of_episode]
    predicted = np.where(
        is_seen[:, None], of_group_elsewhere / np.maximum(others, 1)[:, None], of_all_elsewhere / rest[:, None]
    )
    errors = sum_by(episode, np.square(values - predicted[pair]))
    return errors, float(count[~is_seen].sum() / len(values))


def explained_shares(null: np.ndarray, errors: Sequence[np.ndarray]) -> np.ndarray:
    """Compute the shares that F predictions explain, 1 - errors / null, with 95 % intervals over episodes: (3, F, K).

    null, errors: squared errors of each episode (B, K), without and with a prediction.
    """
    num_values = null.shape[1]

    def statistic(sums: np.ndarray) -> np.ndarray:
        sums = sums.reshape(*sums.shape[:-1], 1 + len(errors), num_values)
        return 1 - sums[..., 1:, :] / sums[..., :1, :]

    return bootstrap_intervals(np.concatenate([null, *errors], axis=1), statistic)


def eta_squared(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Compute the share (K,) of the variance of values (S, K), of mean 0, that is between the means of the groups."""
    count = np.bincount(group)
    between = [np.sum(np.square(np.bincount(group, column)) / count) for column in values.T]
    return np.array(between) / np.square(values).sum(0)
