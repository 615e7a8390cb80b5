"""Small policies and worlds of known causes, to hold attribution against."""

from types import SimpleNamespace

import torch
from minigrid.core.constants import OBJECT_TO_IDX
from torch import Tensor

from generative.policies import Answer, FrozenPolicy
from generative.simulators import State
from generative.soft import cells, join_cells, soften
from mop.kernels.grid import EMPTY
from mop.learning.policies import build_policy

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


class LateReader:
    """A policy of known cause: whether it goes forward depends on a key in one cell of its view five steps ago.

    Its memory is what it read at the last five steps.
    """

    delay, num_actions = 5, 7

    def __init__(self, x: int, y: int):
        self.cell = (x, y)
        self.policy = SimpleNamespace(expert_hidden_sizes=[[1]])

    def initial_hidden(self, num_envs: int) -> Tensor:
        """Nothing read yet."""
        return torch.zeros(num_envs, self.delay)

    def step(self, soft: Tensor, lang: Tensor, hidden: Tensor, intervene=None) -> Answer:
        """The logit of forward is 1 where there was a key, that of turning left 0.5 always."""
        read = cells(soft)[:, *self.cell, OBJECT_TO_IDX["key"]]
        logits = torch.nn.functional.one_hot(torch.tensor(2), 7) * hidden[:, :1]
        logits = logits + 0.5 * torch.nn.functional.one_hot(torch.tensor(0), 7)
        return Answer(logits, [torch.ones(len(soft), 1)], torch.cat([hidden[:, 1:], read[:, None]], -1))
