"""Whether policies that were trained apart route alike on the same inputs, beside what chance shows.

Policies on their own paths see other states, so only weights of the same steps are compared: of the bot's episodes,
say. Axis letters: S steps, G gates (the experts of all layers), K policies.
"""

from collections.abc import Sequence

import numpy as np

from mop.statistics.intervals import t_quantile


def step_correlation(first: np.ndarray, second: np.ndarray, group: np.ndarray | None = None) -> float:
    """Pearson's correlation of the weights (S, G) of two policies over the steps and gates, within [-1, 1].

    Each gate's mean is taken out first, in each policy and, with `group` (S,) int from 0, in each group of steps: what
    is left says *when* a gate is used, not how much. NaN where the weights of a policy do not vary.
    """
    group = np.zeros(len(first), np.int64) if group is None else np.asarray(group)
    return _correlation(_centred(first, group), _centred(second, group))


def group_means(weights: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Mean weights (groups, G) float64 over the steps of each group, a task, say; every group from 0 on has steps."""
    return _sums(weights, group) / np.bincount(group)[:, None]


def shuffled_in_groups(weights: np.ndarray, group: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The weights (S, G) with the steps of each group, (S,) int, in a random order: how often, but not when."""
    found = np.empty_like(weights)
    order, mixed = (np.lexsort((keys, group)) for keys in (np.arange(len(group)), rng.random(len(group))))
    found[order] = weights[mixed]
    return found


def mean_over_pairs(pairs: np.ndarray) -> tuple[float, float, float]:
    """The mean over the pairs of K policies, with its 95 % interval; pairs: (K, K), of which the upper half is read.

    Pairs that share a policy are no independent samples. So policies are left out one at a time, and the interval is
    Student's t with the standard error of that jackknife (Arvesen 1969, Annals of Mathematical Statistics 40). NaN for
    an interval of two policies.
    """
    num = len(pairs)
    mean = _mean_of_pairs(pairs)
    if num < 3:
        return mean, float("nan"), float("nan")
    left = np.array([_mean_of_pairs(np.delete(np.delete(pairs, k, 0), k, 1)) for k in range(num)])
    half = t_quantile(num - 1) * np.sqrt((num - 1) / num * np.square(left - left.mean()).sum())
    return mean, mean - float(half), mean + float(half)


def _mean_of_pairs(pairs: np.ndarray) -> float:
    return float(pairs[np.triu_indices(len(pairs), 1)].mean())


def _sums(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Sums (groups, G) float64 of values (S, G) over the steps of each group."""
    return np.stack([np.bincount(group, column) for column in np.asarray(values, np.float64).T], axis=1)


def _centred(weights: np.ndarray, group: np.ndarray) -> np.ndarray:
    counts = np.maximum(np.bincount(group), 1)[:, None]
    return weights - (_sums(weights, group) / counts)[group]


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Of two arrays whose mean is 0 along their first axis. NaN where one does not vary but for rounding."""
    squares = [float(np.square(values).sum()) for values in (first, second)]
    if min(squares) <= 1e-12 * first.size:
        return float("nan")
    return float(np.clip((first * second).sum() / np.sqrt(squares[0] * squares[1]), -1.0, 1.0))


def stacked(layers: Sequence[np.ndarray]) -> np.ndarray:
    """Router weights of L layers, each (S, E_l), as one array (S, G), as gates of equal place and size are compared."""
    return np.concatenate([np.asarray(weights) for weights in layers], axis=1)
