"""Ways to find directions in the memory of a block: PCA, ICA, NMF, a sparse autoencoder; and how good they are.

Each returns unit vectors and duals (`generative.representations.direction_sets`) for the differences from the mean,
never with a mean or a shift in them. Axis letters: M rows, D units of a block, K directions.
"""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.decomposition import NMF, PCA, FastICA
from sklearn.exceptions import ConvergenceWarning

Rebuild = Callable[[np.ndarray], np.ndarray]


class Fit(NamedTuple):
    """K directions of a block, as one method found them."""

    units: np.ndarray  # (K, D) float64, of length 1
    duals: np.ndarray  # (K, D) float64, dual . unit = 1
    rebuild: Rebuild  # memories (M, D) -> what the method makes of them from its codes (M, D)
    has_converged: bool


def fit_pca(x: np.ndarray, num: int, seed: int) -> Fit:
    """The K directions of largest variance, orthonormal: they are their own duals."""
    pca = PCA(num, svd_solver="covariance_eigh").fit(x)
    units = pca.components_
    return Fit(units, units, lambda rows: pca.mean_ + (rows - pca.mean_) @ units.T @ units, True)


def fit_ica(x: np.ndarray, num: int, seed: int) -> Fit:
    """K independent components of the K-dimensional space of largest variance (FastICA, Hyvarinen 1999).

    A unit vector is a column of the mixing matrix, its dual the row of the unmixing one, which is the dual basis within
    that space. Each points where its coordinate has the longer tail. There are fewer than K where the memory varies in
    fewer dimensions.
    """
    spreads = np.linalg.svd(np.cov(x.T).reshape(x.shape[1], -1), compute_uv=False)
    ica = FastICA(
        min(num, int((spreads > 1e-8 * spreads[0]).sum())),
        whiten="unit-variance",
        max_iter=500,
        tol=1e-3,
        random_state=seed,
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        sources = ica.fit_transform(x)
    lengths = np.linalg.norm(ica.mixing_, axis=0)
    signs = np.where((sources**3).mean(0) < 0, -1.0, 1.0)
    units, duals = (signs / lengths)[:, None] * ica.mixing_.T, (signs * lengths)[:, None] * ica.components_
    has_converged = not any(issubclass(warning.category, ConvergenceWarning) for warning in caught)
    return Fit(units, duals, lambda rows: ica.mean_ + (rows - ica.mean_) @ duals.T @ units, has_converged)


def fit_nmf(x: np.ndarray, num: int, seed: int) -> Fit:
    """K directions of which memories, each unit counted from its smallest value, are sums without subtraction.

    The duals are the rows of the pseudo-inverse: they read a least-squares coordinate, which may be negative.
    """
    low = x.min(0)
    nmf = NMF(num, init="nndsvdar", random_state=seed, max_iter=400, tol=1e-3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        nmf.fit(x - low)
    lengths = np.linalg.norm(nmf.components_, axis=1)
    units = nmf.components_[lengths > 0] / lengths[lengths > 0, None]
    has_converged = not any(issubclass(warning.category, ConvergenceWarning) for warning in caught)

    def rebuild(rows: np.ndarray) -> np.ndarray:
        return nmf.transform(np.maximum(rows - low, 0.0).astype(x.dtype)) @ nmf.components_ + low

    return Fit(units, np.linalg.pinv(units).T, rebuild, has_converged)


def fit_sae(x: np.ndarray, num: int, seed: int) -> Fit:
    """2 K directions of which few at a time make a memory (`generative.representations.sparse_autoencoder`); those
    that never do are left out.

    There are more than a basis has, so each is its own dual.
    """
    import torch

    from generative.representations.sparse_autoencoder import train_sparse

    mean, scale = x.mean(0), x.std() or 1.0
    model = train_sparse((x - mean) / scale, 2 * num, seed)
    is_used = (model.encode(torch.from_numpy(((x - mean) / scale).astype(np.float32))) > 0).any(0).numpy()
    units = model.units.numpy().astype(np.float64)[is_used]
    units /= np.linalg.norm(units, axis=1, keepdims=True)

    def rebuild(rows: np.ndarray) -> np.ndarray:
        return model(torch.from_numpy(((rows - mean) / scale).astype(np.float32))).numpy() * scale + mean

    return Fit(units, units, rebuild, True)


METHODS = {"pca": fit_pca, "ica": fit_ica, "nmf": fit_nmf, "sae": fit_sae}


def matched_cosines(units: np.ndarray, others: np.ndarray) -> np.ndarray:
    """|cosine| (K,) of each of units (K, D) with its partner among others (J, D), whose sum is largest; 0 without one.

    Each has at most one partner.
    """
    cosines = np.abs(units @ others.T)
    rows, columns = linear_sum_assignment(cosines, maximize=True)
    matched = np.zeros(len(units))
    matched[rows] = np.minimum(cosines[rows, columns], 1.0)
    return matched
