"""THE rollout: step a policy and N environments, for whoever keeps something of each step.

Two rules are stated here and nowhere else. The hidden state follows the action: the one that a step ends with is the
one that the next step begins with, and where another episode has begun it is the one of the first step. An episode's
last step is the last one in which its environment is active: an environment that stays active when its episode is over
is asked about its last observation, too, and ignores the action.

To keep columns, read the environments at each step, before its action is executed:

    for step in rollout(policy, envs, policy.initial_hidden(len(envs.active))):
        rows.append((envs.obs.copy(), step.action))

Axis letters: N environments, S hidden units, A actions, L layers, E_l experts of a layer; I numbers of an observation,
G of a mission.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from mixture_of_experts import RecurrentPolicy
from mop.envs.missions import MissionEncoder
from mop.training.execution import stepper


class Environments(Protocol):
    """N environments, whose attributes show the present and are overwritten by `step`."""

    active: np.ndarray  # (N,) bool: the policy is asked here

    def step(self, actions: np.ndarray) -> np.ndarray:
        """Execute actions (N,) in the active environments. Returns (N,) bool: where another episode may have begun."""


class Answer(NamedTuple):
    """A policy's answer to N observations."""

    logits: Tensor  # (N, A), on the CPU
    routing: Sequence[Tensor]  # L x (N, E_l) router weights, on the CPU
    hidden: Tensor  # (N, S) after the step


class Step(NamedTuple):
    """One step of N environments, whose action is about to be executed."""

    hidden: Any  # (N, S) before the step
    answer: Any  # of the policy: an `Answer`, or another tuple with its fields
    action: np.ndarray  # (N,) int


Policy = Callable[[Any, Any], Any]  # (environments, hidden) -> Answer
Choose = Callable[[Any, Any], np.ndarray]  # (environments, answer) -> actions (N,) int
Modify = Callable[[Any, Any, Any], Any]  # (environments, hidden, answer) -> hidden to continue with, (N, S)


def greedy(envs: Environments, answer: Answer) -> np.ndarray:
    """Choose the likeliest action of each environment, of equal ones the first."""
    return answer.logits.numpy().argmax(-1)


@torch.no_grad()
def rollout(
    policy: Policy, envs: Environments, hidden: Any, *, choose: Choose = greedy, modify: Modify | None = None
) -> Iterator[Step]:
    """Step N environments with a policy until none is active; yield each step before its action is executed.

    hidden: the state (N, S) that episodes begin with; modify: replaces the hidden state after each step. Take
    `itertools.islice(rollout(...), T + 1)` for T actions and the answer to what follows them.
    """
    at_first = hidden
    while envs.active.any():
        answer = policy(envs, hidden)
        step = Step(hidden, answer, choose(envs, answer))
        yield step
        hidden = answer.hidden if modify is None else modify(envs, hidden, answer)
        begun = envs.step(step.action)
        if begun.any():
            hidden = torch.where(torch.from_numpy(begun).to(hidden.device)[:, None], at_first, hidden)


class Missions:
    """A policy's input from missions: each is embedded and projected once, alone, so that no batch changes it."""

    def __init__(self, encoder: MissionEncoder, lang_proj: nn.Module):
        self._encoder, self._lang_proj, self._known = encoder, lang_proj, {}

    @torch.no_grad()
    def lang(self, missions: Sequence[str]) -> Tensor:
        """Embed and project missions: (N, G), on the device of the projection."""
        for mission in set(missions) - self._known.keys():
            embedding = self._encoder.embed([mission]).to(next(self._lang_proj.parameters()).device)
            self._known[mission] = self._lang_proj(embedding)
        return torch.cat([self._known[mission] for mission in missions])


class WorldPolicy:
    """A policy in environments with `obs` (N, I) float32 and `missions` (N texts), for `rollout`."""

    def __init__(self, policy: RecurrentPolicy, missions: Missions):
        self._missions, self._step = missions, stepper(policy)
        self._shown, self._lang = None, None

    def __call__(self, envs, hidden: Tensor, intervene: Callable | None = None) -> Answer:
        """intervene: see `mixture_of_experts.Intervention`."""
        if envs.missions != self._shown:
            self._shown, self._lang = list(envs.missions), self._missions.lang(envs.missions)
        obs = torch.from_numpy(envs.obs).to(hidden.device)
        given = () if intervene is None else (intervene,)
        logits, routing, hidden = self._step(obs, self._lang, hidden, *given)
        return Answer(*_on_cpu(logits, routing), hidden)


def _on_cpu(logits: Tensor, routing: Sequence[Tensor]) -> tuple[Tensor, Sequence[Tensor]]:
    """Move logits (N, A) and router weights L x (N, E_l) to the CPU in one transfer."""
    if logits.device.type == "cpu":
        return logits, routing
    parts = [logits, *routing]
    logits, *routing = torch.cat(parts, -1).cpu().split([part.shape[-1] for part in parts], -1)
    return logits, routing
