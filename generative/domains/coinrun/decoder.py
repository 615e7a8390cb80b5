"""The observation model of a game's frames.

Each point of a frame, from 0 to 1, is normally distributed around what the model says, with variance 1: the surprise in
nats is half the squared error, without the constant. A frame is X = 12,288 numbers from 0 to 255, one after the
other. Axis letters: N environments (and steps), F features, E numbers of an encoding.
"""

import itertools
import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.domains.coinrun.games import FRAME_SHAPE

WHITE = 255.0
NUM_POINTS = math.prod(FRAME_SHAPE)
FIRST_SIDE = 8  # points to a side with which a decoder begins; they are doubled to those of a frame
LAST_SIDE = 4  # with which an encoder ends
FIRST_LIGHT = 0.5  # of all points, before anything is learned


def frame_views(obs: np.ndarray | Tensor) -> Tensor:
    """Frames (..., 3, 64, 64) uint8 as views (..., X) float32."""
    return torch.as_tensor(obs).flatten(-3).float()


class FrameDecoder(nn.Module):
    """The frames of a game. What stands for logits of N observations are the expected points (N, X), about 0 to 1."""

    def __init__(self, num_features: int, num_encoded: int, channels: int, frame_side: int):
        """channels: of the convolutions nearest to a frame; frame_side: points to a side that the encoder reads."""
        super().__init__()
        self._shrink = FRAME_SHAPE[-1] // frame_side
        convolutions, before, after, side = [], FRAME_SHAPE[0], channels, frame_side
        while side > LAST_SIDE:
            convolutions += [nn.Conv2d(before, after, 4, 2, 1), nn.ELU()]
            before, after, side = after, min(2 * after, 8 * channels), side // 2
        flat = before * LAST_SIDE**2
        self.encoder = nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(flat, num_encoded), nn.ELU())
        self._first = (4 * channels, FIRST_SIDE, FIRST_SIDE)
        self.spread = nn.Linear(num_features, math.prod(self._first))
        ends = itertools.pairwise((4 * channels, 2 * channels, channels, FRAME_SHAPE[0]))
        layers = [layer for pair in ends for layer in (nn.ELU(), nn.ConvTranspose2d(*pair, 4, 2, 1))]
        self.decoder = nn.Sequential(*layers)
        nn.init.constant_(self.decoder[-1].get_parameter("bias"), FIRST_LIGHT)

    def encode(self, views: Tensor) -> Tensor:
        """Views (N, X) -> (N, E)."""
        frames = views.reshape(-1, *FRAME_SHAPE) / WHITE - FIRST_LIGHT
        small = frames if self._shrink == 1 else F.avg_pool2d(frames, self._shrink)
        return self.encoder(small).unflatten(0, views.shape[:-1])

    def forward(self, features: Tensor) -> Tensor:
        """Expected points (N, X), of features (N, F)."""
        first = self.spread(features).reshape(-1, *self._first)
        return self.decoder(first).flatten(1).unflatten(0, features.shape[:-1])

    def decode(self, logits: Tensor) -> Tensor:
        """The expected frame as a view (N, X); beyond black and white, gradients pass as if there were no bounds."""
        within = logits.detach().clamp(0, 1)
        return WHITE * (logits + (within - logits.detach()))

    def nats(self, logits: Tensor, views: Tensor) -> Tensor:
        """The surprise (N,) at views (N, X): half the squared error of their points, the sum over them."""
        return (logits - views / WHITE).square().sum(-1) / 2
