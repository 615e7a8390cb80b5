"""How a policy is computed: by `mop.fast` (compiled on a CPU, packed on a GPU), or by its own equations.

The one place where this is chosen; results are equal within rounding. Axis letters as in `mixture_of_experts`.
"""

from collections.abc import Callable
from copy import deepcopy

import numpy as np
import torch
from torch import Tensor

from mixture_of_experts import RecurrentPolicy
from mop.common.errors import InputError
from mop.common.speed import IS_FAST
from mop.common.workers import Layout
from mop.training.unroll import Student

if IS_FAST:
    from mop.fast import policy as fast
    from mop.fast.policy_step import CompiledPolicy

# obs ([T,] N, I), lang ([T,] N, G), hidden (N, S), ... -> logits ([T,] N, A), router weights L x ([T,] N, E_l), hidden
Run = Callable[..., tuple[Tensor, list[Tensor], Tensor]]


def refusal(policy: RecurrentPolicy) -> str | None:
    """Reason why a policy is computed by its own equations; None if it has a fast form."""
    return fast.refusal(policy) if IS_FAST else "nothing is compiled here (RL_MOP_FAST=0, no mop/fast or no numba)"


def run(
    policy: RecurrentPolicy, obs: Tensor, lang: Tensor, hidden: Tensor, keep: Tensor | None = None
) -> tuple[Tensor, list[Tensor], Tensor]:
    """`RecurrentPolicy.get_routing_info` of a sequence, with first derivatives."""
    compute = fast.run if refusal(policy) is None else type(policy).get_routing_info
    return compute(policy, obs, lang, hidden, keep)


def run_projected(policy: RecurrentPolicy, x: Tensor, hidden: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
    """A sequence from the output of the input projection on, with the hidden state after every step.

    x (T, N, D), hidden (N, S) before the first step. Returns logits (T, N, A), router weights L x (T, N, E_l), hidden
    (T, N, S). First derivatives only.
    """
    if refusal(policy) is None:
        return fast.run_projected(policy, x, hidden)
    logits, routing, states = [], [], []
    for step_x in x:
        output, weights, hidden = policy.recur(step_x, hidden, None)
        logits.append(policy.head(output))
        routing.append(weights)
        states.append(hidden)
    by_layer = [torch.stack(weights) for weights in zip(*routing, strict=True)]
    return torch.stack(logits), by_layer, torch.stack(states)


def stepper(policy: RecurrentPolicy) -> Run:
    """`get_routing_info` for many single steps without gradients, with the weights that the policy has now.

    The function takes obs (N, I), lang (N, G), hidden (N, S) and, as a fourth argument, `intervene`: as
    `mixture_of_experts.Intervention`, but from arrays to arrays in compiled code. The categories of one-hot
    observations must be Minigrid's, which compiled code does not check.
    """
    if refusal(policy) is None:
        return fast.stepper(policy)
    own = deepcopy(policy).eval()

    @torch.no_grad()
    def step(obs: Tensor, lang: Tensor, hidden: Tensor, intervene: Callable | None = None):
        return own.get_routing_info(obs, lang, hidden, intervene=intervene)

    return step


class PlainStudent:
    """A policy that acts in this process by its own equations; its weights need no refreshing."""

    def __init__(self, policy: RecurrentPolicy):
        self.policy = policy
        self.hidden_size = policy.hidden_size
        self.layout: Layout = {}  # it shares no memory

    def compile(self) -> None:
        """Do nothing: torch compiles nothing here."""

    def attach(self, memory: dict[str, np.ndarray]) -> "PlainStudent":
        """The student itself: its weights are in this process already."""
        return self

    @torch.no_grad()
    def step(self, *arrays: np.ndarray) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
        """obs (N, I), lang (N, G), hidden (N, S) -> logits (N, A), router weights L x (N, E_l), hidden (N, S)."""
        obs, lang, hidden = (self._tensor(array) for array in arrays)
        was_training = self.policy.training
        self.policy.eval()  # experts are dropped while it learns, not while it acts
        logits, routing, hidden = self.policy.get_routing_info(obs, lang, hidden)
        self.policy.train(was_training)
        return logits.cpu().numpy(), [weights.cpu().numpy() for weights in routing], hidden.cpu().numpy()

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, np.float32)).to(self.policy.head.weight.device)


def student_of(policy: RecurrentPolicy, num_workers: int) -> Student:
    """The form of a policy that acts in `unroll.Rollouts`, on the CPU; a plain one cannot act in worker processes."""
    reason = refusal(policy)
    if reason is None:
        return fast.shape_of(policy)
    if num_workers > 0:
        raise InputError(f"{reason}: worker processes cannot step it; leave out --num_workers")
    return PlainStudent(policy)


def refresh_student(student, policy: RecurrentPolicy) -> None:
    """Copy the present weights into the student of a rollout."""
    if IS_FAST and isinstance(student, CompiledPolicy):
        fast.refresh(student, policy)
