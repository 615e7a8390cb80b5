"""Small policies and worlds of known causes, to hold attribution against."""

from types import SimpleNamespace

import torch
from minigrid.core.actions import Actions
from torch import Tensor
from torch.nn import functional as F

from generative.cells import COLOR
from generative.policies import Answer, FrozenPolicy
from generative.simulators import State
from generative.soft import cells, join_cells, soften
from mixture_of_experts import compute_lpc
from mop.kernels.grid import EMPTY
from mop.learning.policies import build_policy
from mop.worlds.world import NUM_ACTIONS

TINY = {
    "policy": "mop", "input_dim": 152, "lang_dim": 5, "intermediate_dim": 12, "num_actions": 7, "obs_encoding": "raw",
    "expert_hidden_sizes": [[0, 4], [0, 8]], "router_hidden_size": 6, "residual": False, "expert_gain": 1.0,
    "expert_dropout": 0.0, "expert_dropout_below": 0.0,
}  # fmt: skip


def tiny_policy(seed: int, **changes) -> FrozenPolicy:
    """An untrained mixture, given missions as numbers (N, 5)."""
    config = TINY | changes
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        policy = FrozenPolicy(build_policy(config), None, None)
    policy.config = config
    return policy


class Corridor:
    """A world of nothing but its view: an action mixes it with its shift by one row, smoothly, by one of 7 weights.

    Everything is a smooth function of state and action, so that finite differences and integrals are exact.
    """

    def begin(self, num_envs: int, seed: int) -> State:
        """Views of random objects."""
        generator = torch.Generator().manual_seed(seed)
        obs = torch.zeros(num_envs, 152)
        obs[:, :49] = torch.randint(1, 8, (num_envs, 49), generator=generator).float()
        obs[:, 49:98] = torch.randint(0, 6, (num_envs, 49), generator=generator).float()
        obs[:, 148] = 1.0
        return {"view": soften(obs)}

    def observe(self, state: State) -> Tensor:
        """The view itself."""
        return state["view"]

    def step(self, state: State, action: Tensor) -> State:
        """Each cell moves towards the agent by a share that depends on the action."""
        image, others = cells(state["view"]), state["view"][..., -5:]
        share = (action @ torch.linspace(0.1, 0.9, 7, dtype=action.dtype))[:, None, None, None]
        return {"view": join_cells((1 - share) * image + share * image.roll(1, dims=2), others)}


def empty_view() -> Tensor:
    """A view (1, X) of empty floor."""
    obs = torch.zeros(1, 152)
    obs[:, :49], obs[:, 148] = EMPTY, 1.0
    return soften(obs)


def precise(policy: FrozenPolicy) -> FrozenPolicy:
    """The same policy in double precision, for finite differences."""
    policy.policy.double()
    policy._decoding = policy._decoding.double()
    return policy


class Planted:
    """A policy whose reasons are known: what it chooses now is the colour that it saw in one cell, some steps ago.

    It remembers the colour at [i, j] of its view for `delay` steps; then its answer follows it. As a FrozenPolicy.

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
