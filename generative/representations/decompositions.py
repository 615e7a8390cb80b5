"""Directions in the hidden state of a block: PCA, ICA, NMF, a sparse autoencoder.

Each method returns unit vectors and duals (`generative.representations.storage`) of the differences from the mean.
Axis letters: M rows, D units of a block, K directions, F features.
"""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.decomposition import NMF, PCA, FastICA
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor, nn
from torch.nn import functional as F

NUM_ACTIVE = 4
_NUM_UPDATES, _BATCH_SIZE, _LR = 2000, 256, 3e-3


# --- methods ----------------------------------------------------------------------------------------------------------


class Fit(NamedTuple):
    """K directions of a block, fitted by one method."""

    units: np.ndarray  # (K, D) float64, of length 1
    duals: np.ndarray  # (K, D) float64, dual . unit = 1
    reconstruct: Callable[[np.ndarray], np.ndarray]  # hidden states (M, D) -> their reconstruction (M, D)
    has_converged: bool


def fit_pca(x: np.ndarray, num: int, seed: int) -> Fit:
    """The K directions of largest variance, orthonormal: they are their own duals."""
    pca = PCA(num, svd_solver="covariance_eigh").fit(x)
    units = pca.components_
    return Fit(units, units, lambda rows: pca.mean_ + (rows - pca.mean_) @ units.T @ units, True)


def fit_ica(x: np.ndarray, num: int, seed: int) -> Fit:
    """K independent components of the K-dimensional space of largest variance (FastICA, Hyvarinen 1999).

    A unit vector is a column of the mixing matrix, its dual the row of the unmixing one, which is the dual basis within
    that space. Each points where its coordinate has the longer tail. There are fewer than K where the hidden state
    varies in fewer dimensions.
    """
    spreads = np.linalg.svd(np.cov(x.T).reshape(x.shape[1], -1), compute_uv=False)
    num = min(num, int((spreads > 1e-8 * spreads[0]).sum()))
    ica = FastICA(num, whiten="unit-variance", max_iter=500, tol=1e-3, random_state=seed)
    sources, has_converged = _watch(ica.fit_transform, x)
    lengths = np.linalg.norm(ica.mixing_, axis=0)
    signs = np.where((sources**3).mean(0) < 0, -1.0, 1.0)
    units, duals = (signs / lengths)[:, None] * ica.mixing_.T, (signs * lengths)[:, None] * ica.components_
    return Fit(units, duals, lambda rows: ica.mean_ + (rows - ica.mean_) @ duals.T @ units, has_converged)


def fit_nmf(x: np.ndarray, num: int, seed: int) -> Fit:
    """K directions whose sums without subtraction are the hidden states, each unit counted from its smallest value.

    The duals are the rows of the pseudo-inverse: they read a least-squares coordinate, which may be negative.
    """
    low = x.min(0)
    nmf = NMF(num, init="nndsvdar", random_state=seed, max_iter=400, tol=1e-3)
    _, has_converged = _watch(nmf.fit, x - low)
    lengths = np.linalg.norm(nmf.components_, axis=1)
    units = nmf.components_[lengths > 0] / lengths[lengths > 0, None]

    def reconstruct(rows: np.ndarray) -> np.ndarray:
        return nmf.transform(np.maximum(rows - low, 0.0).astype(x.dtype)) @ nmf.components_ + low

    return Fit(units, np.linalg.pinv(units).T, reconstruct, has_converged)


def fit_sae(x: np.ndarray, num: int, seed: int) -> Fit:
    """2 K directions of which few at a time make a hidden state; unused ones are left out.

    There are more than a basis has, so each is its own dual.
    """
    mean, scale = x.mean(0), x.std() or 1.0
    model = train_sparse_autoencoder((x - mean) / scale, 2 * num, seed)
    is_used = (model.encode(torch.from_numpy(((x - mean) / scale).astype(np.float32))) > 0).any(0).numpy()
    units = model.units.numpy().astype(np.float64)[is_used]
    units /= np.linalg.norm(units, axis=1, keepdims=True)

    def reconstruct(rows: np.ndarray) -> np.ndarray:
        return model(torch.from_numpy(((rows - mean) / scale).astype(np.float32))).numpy() * scale + mean

    return Fit(units, units, reconstruct, True)


def _watch(fit: Callable, x: np.ndarray) -> tuple:
    """The result of a fit, and whether it converged."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        result = fit(x)
    return result, not any(issubclass(warning.category, ConvergenceWarning) for warning in caught)


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


# --- the sparse autoencoder -------------------------------------------------------------------------------------------


class SparseAutoencoder(nn.Module):
    """F features of D units, of which at most `num_active` are in use at once.

        code = the `num_active` largest of relu(U (x - b) + c), all others 0;  reconstruction = code U + b

    The rows of U are unit vectors, and the same weights encode and decode: the k-sparse autoencoder of Makhzani and
    Frey 2013 (arXiv 1312.5663), whose sparsity is set, not found by a penalty.
    """

    def __init__(self, rows: Tensor, num_features: int, num_active: int):
        """rows (F, D): initial features; their lengths do not matter."""
        super().__init__()
        self.num_active = min(num_active, num_features)
        self.units = nn.Parameter(F.normalize(rows, dim=-1))
        self.center = nn.Parameter(torch.zeros(rows.shape[1]))
        self.bias = nn.Parameter(torch.zeros(num_features))

    def encode(self, x: Tensor) -> Tensor:
        """x (M, D) -> codes (M, F), not negative."""
        code = F.relu((x - self.center) @ self.units.T + self.bias)
        least = code.topk(self.num_active, dim=-1).values[:, -1:]
        return code * (code >= least)

    def forward(self, x: Tensor) -> Tensor:
        """x (M, D) -> its reconstruction (M, D)."""
        return self.encode(x) @ self.units + self.center


def train_sparse_autoencoder(
    x: np.ndarray, num_features: int, seed: int, num_active: int = NUM_ACTIVE
) -> SparseAutoencoder:
    """Train on rows x (M, D) of mean 0, with Adam and a falling learning rate; the same seed gives the same weights."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.from_numpy(np.ascontiguousarray(x, np.float32))
    first = torch.randint(len(rows), (num_features,), generator=generator)
    jitter = 0.1 * rows.std() * torch.randn(num_features, rows.shape[1], generator=generator)
    model = SparseAutoencoder(rows[first] + jitter, num_features, num_active)
    optimizer = torch.optim.Adam(model.parameters(), lr=_LR, fused=True)
    for update in range(_NUM_UPDATES):
        optimizer.param_groups[0]["lr"] = _LR * (1 - update / _NUM_UPDATES)
        batch = rows[torch.randint(len(rows), (_BATCH_SIZE,), generator=generator)]
        optimizer.zero_grad()
        F.mse_loss(model(batch), batch).backward()
        optimizer.step()
        with torch.no_grad():
            model.units.div_(model.units.norm(dim=-1, keepdim=True))
    return model.eval().requires_grad_(False)
