"""Half widths of 95 % intervals of means."""

import numpy as np


def t_quantile(freedom: np.ndarray | float) -> np.ndarray:
    """97.5 % quantile of Student's t distribution; freedom: degrees of freedom, at least 1, of any shape."""
    from scipy.special import stdtrit  # here: it takes a quarter of a second to load

    return stdtrit(freedom, 0.975)


def t_widened(quantile: float, freedom: float) -> float:
    """The quantile of Student's t distribution that is as rare as one of the normal distribution.

    freedom: degrees of freedom, at least 1.
    """
    from scipy.special import ndtr, stdtrit

    return -float(stdtrit(freedom, ndtr(-quantile)))  # of the lower tail, where no digits are lost


def interval_of_mean(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean (...) of independent values (K, ...), K at least 2, and half of its 95 % interval: Student's t."""
    half = t_quantile(len(values) - 1) * values.std(axis=0, ddof=1) / np.sqrt(len(values))
    return values.mean(axis=0), half
