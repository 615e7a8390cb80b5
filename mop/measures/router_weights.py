"""Router weights -> numbers: cost and entropy of each step, means over groups of steps and at distances.

Axis letters: S steps, L layers, E experts, G groups, D distances.
"""

from collections.abc import Sequence

import numpy as np

from mop.measures.groups import Groups
from mop.measures.routing_data import Steps, checked_weights


def compute_layer_lpc(weights: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """A layer's part of the layered parameter cost: sum over its experts of weight x size^2; float64 (...).

    weights: (..., E); sizes: of the E experts. The sum over the layers is the LPC, as `mixture_of_experts.compute_lpc`.
    """
    return np.asarray(weights, np.float64) @ np.square(np.asarray(sizes, np.float64))


def compute_router_entropy(weights: np.ndarray) -> np.ndarray:
    """Entropy in nats of router weights (..., E), rows that sum to 1: from 0 to ln E; float64 (...)."""
    weights = np.asarray(weights, np.float64)
    return -np.sum(weights * np.log(np.where(weights > 0, weights, 1)), axis=-1)  # 0 ln 0 = 0


def mean_weights_by_group(steps: Steps, groups: Groups) -> list[np.ndarray]:
    """Mean router weights of each group, L arrays (G, E_l) float64. Raises InputError as `checked_weights`."""
    return [mean_by(groups.index, weights, groups.counts) for weights in checked_weights(steps)]


def mean_weights_by_distance(distance: np.ndarray, layers: Sequence[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Steps (D,) int64 at each distance 0..D-1 and their mean router weights, L arrays (D, E_l), NaN where no step is.

    distance: (S,) float of whole numbers, NaN where it is unknown; layers: L arrays (S, E_l).
    """
    is_known = np.isfinite(distance)
    index = distance[is_known].astype(np.int64)
    counts = np.bincount(index)
    return counts, [mean_by(index, np.asarray(weights)[is_known], counts) for weights in layers]


def mean_by(index: np.ndarray, values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean (K, E) float64 of values (S, E) over the steps of each index (S,) from 0 to K-1; NaN where counts (K,) is 0.

    counts: how often each index occurs.
    """
    total = np.stack([np.bincount(index, weights=column, minlength=len(counts)) for column in values.T], axis=1)
    return np.divide(total, counts[:, None], out=np.full(total.shape, np.nan), where=counts[:, None] > 0)
