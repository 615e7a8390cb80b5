"""What a number of trained policies says about their task: of N tasks, K seeds each.

Axis letters: N tasks, K seeds.
"""

import numpy as np

from mop.analysis.many_runs import fisher_z


def intraclass_correlation(values: np.ndarray) -> tuple[float, float, float]:
    """The share of the variance of values (N, K) that is between tasks, not between seeds; and its 95 % interval.

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
        return (1.0, 1.0, 1.0) if between > 0 else (np.nan, np.nan, np.nan)
    ratio = between / within
    low = ratio / fdtri(free_between, free_within, 0.975)
    high = ratio * fdtri(free_within, free_between, 0.975)
    return tuple(float((f - 1) / (f + num_seeds - 1)) for f in (ratio, low, high))


def rank_correlation(first: np.ndarray, second: np.ndarray) -> tuple[float, float, float]:
    """Spearman's correlation of two numbers (N,) of each task, N at least 4; and its 95 % interval.

    The interval is that of Fisher's z with the variance of Bonett and Wright 2000 (Psychometrika 65: 23-28). NaN where
    one of the two is the same in all tasks.
    """
    from scipy.special import ndtri
    from scipy.stats import rankdata

    ranks = np.stack([rankdata(first), rankdata(second)])
    if (ranks.std(axis=1) == 0).any():
        return np.nan, np.nan, np.nan
    rho = float(np.corrcoef(ranks)[0, 1])
    half = ndtri(0.975) * np.sqrt((1 + rho**2 / 2) / (len(ranks[0]) - 3))
    return rho, *(float(np.tanh(fisher_z(rho) + end)) for end in (-half, half))
