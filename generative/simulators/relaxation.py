"""Observations as points of a simplex, through which gradients flow, and back to the numbers that a policy was given.

A BabyAI observation is 147 categories of cells, the direction and whether something is carried. As a soft observation
it is X = 985 numbers: for each category its columns of ones and zeros in the order of `one_hot_edges` (980), then the
direction (4) and the carrying flag (1). A category may be spread over its columns; they sum to 1.
Axis letters: N environments, O = 152 numbers of an observation, X = 985 of a soft one, K categories of a cell (20).
"""

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from mop.envs.babyai import OBS_DIM
from mop.envs.geometry import CATEGORIES, IMAGE_SIZE, VIEW_SIZE, one_hot_edges

EDGES = one_hot_edges()  # (148,) where the columns of each category of the image begin
IMAGE_COLUMNS = int(EDGES[-1])
SOFT_DIM = IMAGE_COLUMNS + OBS_DIM - IMAGE_SIZE
DIRECTION = slice(IMAGE_COLUMNS, IMAGE_COLUMNS + 4)
CARRYING = SOFT_DIM - 1
NUM_CELLS = VIEW_SIZE * VIEW_SIZE
CELL_CATEGORIES = sum(CATEGORIES)


def to_simplex(obs: np.ndarray | Tensor) -> Tensor:
    """Observations (..., O) of any number type as soft ones (..., X) float32, ones and zeros.

    Raises ValueError for a category that Minigrid does not have.
    """
    obs = torch.as_tensor(obs)
    categories = obs[..., :IMAGE_SIZE].long()
    if not ((categories >= 0) & (categories < torch.from_numpy(np.diff(EDGES)))).all():
        raise ValueError("an observation has a category that Minigrid does not have")
    soft = torch.zeros(*obs.shape[:-1], SOFT_DIM)
    soft.scatter_(-1, categories + torch.from_numpy(EDGES[:-1]), 1.0)
    soft[..., IMAGE_COLUMNS:] = obs[..., IMAGE_SIZE:].float()
    return soft


def discretise(soft: Tensor) -> Tensor:
    """The likeliest observation (..., O) float32 of a soft one (..., X)."""
    parts = soft[..., :IMAGE_COLUMNS].split(np.diff(EDGES).tolist(), -1)
    image = torch.stack([part.argmax(-1) for part in parts], -1).float()
    direction = torch.nn.functional.one_hot(soft[..., DIRECTION].argmax(-1), 4).float()
    return torch.cat([image, direction, (soft[..., CARRYING:] > 0.5).float()], -1)


def decoding() -> Tensor:
    """(X, O) float32: a soft observation times this is the observation, of each category its expected number.

    So a policy that was trained on plain numbers sees exactly these where the soft observation is ones and zeros.
    """
    matrix = torch.zeros(SOFT_DIM, OBS_DIM)
    for k, (start, end) in enumerate(pairwise(EDGES)):
        matrix[start:end, k] = torch.arange(int(end - start), dtype=torch.float32)
    matrix[IMAGE_COLUMNS:, IMAGE_SIZE:] = torch.eye(OBS_DIM - IMAGE_SIZE)
    return matrix


def cells(soft: Tensor) -> Tensor:
    """The image of soft observations (..., X) by cell: (..., 7, 7, K), [i, j]: i to the right, j towards the agent.

    The last axis: object types, colours, states, as `CATEGORIES`.
    """
    planes = soft[..., :IMAGE_COLUMNS].split([NUM_CELLS * size for size in CATEGORIES], -1)
    shaped = [plane.unflatten(-1, (VIEW_SIZE, VIEW_SIZE, size)) for plane, size in zip(planes, CATEGORIES, strict=True)]
    return torch.cat(shaped, -1)


def join_cells(image: Tensor, others: Tensor) -> Tensor:
    """The inverse of `cells`: image (..., 7, 7, K), direction and carrying (..., 5) -> (..., X)."""
    planes = [plane.flatten(-3) for plane in image.split(list(CATEGORIES), -1)]
    return torch.cat([*planes, others], -1)


def straight_through(probabilities: Tensor) -> Tensor:
    """The likeliest of (..., K) as ones and zeros; backwards, the gradient passes to the probabilities as it is.

    Bengio et al. 2013 (arXiv 1308.3432).
    """
    hard = torch.nn.functional.one_hot(probabilities.argmax(-1), probabilities.shape[-1]).to(probabilities)
    return hard + (probabilities - probabilities.detach())  # in this order exactly ones and zeros
