"""A policy whose reasons are known: what it chooses now is the colour that it saw in one cell, some steps ago."""

from types import SimpleNamespace

import torch
from minigrid.core.actions import Actions
from torch import Tensor
from torch.nn import functional as F

from generative.domains.babyai.cells import COLOR
from generative.domains.base import Answer
from generative.simulators.relaxation import cells
from mixture_of_experts import compute_lpc
from mop.envs.babyai import NUM_ACTIONS


class Planted:
    """It remembers the colour at [i, j] of its view for `delay` steps; then its answer follows it. As a FrozenPolicy.

    Of colour 0 (red, or nothing there) it turns left, of any other it goes forward; the weight of expert 1 is the
    colour's logistic function. With `is_silent` it always goes forward. Its memory is the colours, the latest first.
    """

    expert_hidden_sizes = ((0, 16),)

    def __init__(self, cell: tuple[int, int], delay: int, is_silent: bool = False):
        self.cell, self.delay, self.is_silent = cell, delay, is_silent
        self.policy = SimpleNamespace(expert_hidden_sizes=self.expert_hidden_sizes)

    def initial_hidden(self, num_envs: int) -> Tensor:
        return torch.zeros(num_envs, self.delay)

    def embed(self, missions) -> Tensor:
        return torch.zeros(len(missions), 1)

    def lpc(self, routing) -> Tensor:
        return compute_lpc(routing, self.expert_hidden_sizes)

    def step(self, soft: Tensor, lang: Tensor, hidden: Tensor, intervene=None) -> Answer:
        color = (cells(soft)[..., *self.cell, COLOR] @ torch.arange(6.0))[:, None]
        memory = torch.cat([color, hidden], -1)
        now = memory[:, -1]
        left = now.new_zeros(len(now)) if self.is_silent else 1.0 - now
        logits = F.one_hot(torch.full((len(soft),), Actions.forward), NUM_ACTIONS) * 0.5
        logits = logits + F.one_hot(torch.tensor(Actions.left), NUM_ACTIONS) * left[:, None]
        weight = torch.sigmoid(now)
        return Answer(logits, [torch.stack([1.0 - weight, weight], -1)], memory[:, :-1])
