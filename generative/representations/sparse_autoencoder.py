"""A small sparse autoencoder: memory as a few of many directions, each more or less of itself.

    code = the `num_active` largest of relu(U (x - b) + c), all others 0;  reconstruction = code U + b

The rows of U are unit vectors, and the same weights read and write: the k-sparse autoencoder of Makhzani and Frey 2013
(arXiv 1312.5663), whose sparsity is set, not found by a penalty. Axis letters: M rows, D units, F features.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

NUM_ACTIVE = 4
_NUM_UPDATES, _BATCH_SIZE, _LR = 2000, 256, 3e-3


class SparseAutoencoder(nn.Module):
    """F features of D units, of which at most `num_active` are in use at once."""

    def __init__(self, rows: Tensor, num_features: int, num_active: int):
        """rows (F, D): where the features begin; their lengths do not matter."""
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


def train_sparse(x: np.ndarray, num_features: int, seed: int, num_active: int = NUM_ACTIVE) -> SparseAutoencoder:
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
