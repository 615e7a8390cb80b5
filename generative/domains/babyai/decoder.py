"""The observation model of BabyAI: how a world model encodes observations, how likely it finds them, what it shows.

Axis letters: N environments (and steps), X numbers of a soft observation, F features, C numbers that are remembered of
a cell, E numbers of an encoding; [i, j] are the axes of a view, see `relaxation.cells`.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.simulators.relaxation import (
    CARRYING,
    CELL_CATEGORIES,
    DIRECTION,
    NUM_CELLS,
    SOFT_DIM,
    cells,
    join_cells,
)
from mop.envs.geometry import CATEGORIES

MAX_LOGIT = 30.0  # beyond it a category is certain; so exponentials stay finite
READ_GAIN = 6.0  # logits that a category has at first where it was written
NUM_DIRECTIONS = 4
CHOICES = (*((NUM_CELLS, size) for size in CATEGORIES), (1, NUM_DIRECTIONS))
# of CARRYING columns: so many choices side by side, each among so many; the last one is the direction


class SymbolicDecoder(nn.Module):
    """BabyAI's observations: 49 cells of three categories each, the direction, whether something is carried.

    Logits of N observations are (N, X): of each category its columns, of the direction four, of the carrying flag one.
    What is remembered of a cell and what the features say of it add up to its logits; so do heading and features.
    """

    member: Tensor  # (X - 1, 148)

    def __init__(self, num_features: int, num_remembered: int, num_encoded: int):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(SOFT_DIM, 2 * num_encoded), nn.ELU(), nn.Linear(2 * num_encoded, num_encoded), nn.ELU()
        )
        self.write_cell = nn.Linear(CELL_CATEGORIES, num_remembered)
        self.read_cell = nn.Linear(num_remembered, CELL_CATEGORIES, bias=False)
        self.read_heading = nn.Linear(NUM_DIRECTIONS, NUM_DIRECTIONS, bias=False)
        self.heads = nn.Linear(num_features, SOFT_DIM)
        with torch.no_grad():  # from the first update on, what was written can be read
            nn.init.orthogonal_(self.write_cell.weight)
            self.read_cell.weight.copy_(READ_GAIN * self.write_cell.weight.t())
            self.read_heading.weight.copy_(READ_GAIN * torch.eye(NUM_DIRECTIONS))
        self.register_buffer("member", _members(), persistent=False)

    def encode(self, soft: Tensor) -> Tensor:
        """Soft observations (N, X) -> (N, E)."""
        return self.encoder(soft)

    def remember(self, soft: Tensor) -> tuple[Tensor, Tensor]:
        """What is to be remembered of the cells, (N, 7, 7, C), and which are seen, (N, 7, 7, 1), of soft (N, X)."""
        image = cells(soft)
        return self.write_cell(image), 1 - image[..., :1]

    def heading(self, soft: Tensor) -> Tensor:
        """The direction (N, 4) that is faced in soft observations (N, X)."""
        return soft[..., DIRECTION]

    def forward(self, features: Tensor, remembered: Tensor, heading: Tensor) -> Tensor:
        """Logits (N, X) of features (N, F), what is remembered of the cells in view, (N, 7, 7, C), heading (N, 4)."""
        flag = torch.zeros_like(heading[..., :1])
        known = join_cells(self.read_cell(remembered), torch.cat([self.read_heading(heading), flag], -1))
        return (self.heads(features) + known).clamp(-MAX_LOGIT, MAX_LOGIT)

    def decode(self, logits: Tensor) -> Tensor:
        """The likeliest observation as a soft one (N, X) of ones and zeros; gradients reach the probabilities."""
        soft = self.probabilities(logits)
        return _likeliest(logits.detach()) + (soft - soft.detach())  # the bracket is 0, so ones stay ones

    def probabilities(self, logits: Tensor) -> Tensor:
        """The expected observation: a soft one (N, X)."""
        weights = logits[..., :CARRYING].exp()
        totals = (weights @ self.member).reciprocal() @ self.member.t()
        return torch.cat([weights * totals, logits[..., CARRYING:].sigmoid()], -1)

    def nats(self, logits: Tensor, soft: Tensor) -> Tensor:
        """The surprise (N,) at observations (N, X) of ones and zeros: the sum over all their parts, in nats."""
        totals = logits[..., :CARRYING].exp() @ self.member
        flag = F.binary_cross_entropy_with_logits(logits[..., CARRYING], soft[..., CARRYING], reduction="none")
        return totals.log().sum(-1) - (logits[..., :CARRYING] * soft[..., :CARRYING]).sum(-1) + flag


def _members() -> Tensor:
    """(X - 1, 148) float32 of ones and zeros: which choice a column belongs to. A product is faster than many sums."""
    sizes = np.repeat([size for _, size in CHOICES], [count for count, _ in CHOICES])
    return F.one_hot(torch.from_numpy(np.repeat(np.arange(len(sizes)), sizes)), len(sizes)).float()


def _likeliest(logits: Tensor) -> Tensor:
    """Ones and zeros (N, X) for the largest of each choice, and for the sign of the flag."""
    parts = []
    for part, (count, size) in zip(logits[..., :CARRYING].split([n * k for n, k in CHOICES], -1), CHOICES, strict=True):
        chosen = part.unflatten(-1, (count, size)).argmax(-1)
        parts.append(F.one_hot(chosen, size).flatten(-2).to(logits))
    return torch.cat([*parts, (logits[..., CARRYING:] > 0).to(logits)], -1)
