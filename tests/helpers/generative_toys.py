"""Small policies and worlds of known causes, to hold attribution against."""

import torch
from torch import Tensor

from generative.domains.babyai.policy import FrozenPolicy
from generative.simulators.base import State
from generative.simulators.relaxation import cells, join_cells, to_simplex
from mop.common.train_config import complete
from mop.training.policies import build_policy

TINY = {
    "policy": "mop", "input_dim": 152, "lang_dim": 5, "intermediate_dim": 12, "num_actions": 7, "obs_encoding": "raw",
    "expert_hidden_sizes": [[0, 4], [0, 8]], "router_hidden_size": 6, "residual": False,
}  # fmt: skip


def tiny_policy(seed: int, **changes) -> FrozenPolicy:
    """An untrained mixture, given missions as numbers (N, 5)."""
    config = complete(TINY | changes)
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
        return {"view": to_simplex(obs)}

    def view(self, state: State) -> Tensor:
        """The view itself."""
        return state["view"]

    def step(self, state: State, action: Tensor) -> State:
        """Each cell moves towards the agent by a share that depends on the action."""
        image, others = cells(state["view"]), state["view"][..., -5:]
        share = (action @ torch.linspace(0.1, 0.9, 7, dtype=action.dtype))[:, None, None, None]
        return {"view": join_cells((1 - share) * image + share * image.roll(1, dims=2), others)}


class Still(Corridor):
    """A world in which nothing happens."""

    def step(self, state: State, action: Tensor) -> State:
        return state


def precise(policy: FrozenPolicy) -> FrozenPolicy:
    """The same policy in double precision, for finite differences."""
    policy.policy.double()
    policy._decoding = policy._decoding.double()
    return policy
