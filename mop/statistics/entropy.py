"""The entropy of distributions."""

import numpy as np


def entropy_nats(shares: np.ndarray) -> np.ndarray:
    """Entropy in nats of shares (..., E), rows that sum to 1: from 0 to ln E; float64 (...)."""
    shares = np.asarray(shares, np.float64)
    return -np.sum(shares * np.log(np.where(shares > 0, shares, 1)), axis=-1)  # 0 ln 0 = 0
