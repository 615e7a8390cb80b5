"""The frozen policy of a checkpoint, as a function of soft observations, its memory, and nothing else."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from generative.simulators.relaxation import decoding
from mixture_of_experts import Intervention, RecurrentPolicy, compute_lpc
from mop.common.errors import InputError
from mop.envs.missions import MissionEncoder
from mop.evaluation.evaluate import encoder_for, load_for_evaluation
from mop.evaluation.rollout import Missions
from mop.fast import dispatch
from mop.training.policies import policy_from_checkpoint

if TYPE_CHECKING:
    from generative.simulators.losses import Frames


class Answer(NamedTuple):
    """What a policy says at one step."""

    logits: Tensor  # (N, A)
    routing: list[Tensor]  # L x (N, E_l)
    hidden: Tensor  # (N, S), after the step
    value: Tensor | None = None  # (N,), of an agent of a game


class FrozenPolicy:
    """A trained policy without gradients of its own: `step` is functional, and gradients reach its inputs.

    Axis letters: N environments, X numbers of a soft observation (`generative.simulators.relaxation`), G of a mission,
    S hidden units.
    """

    def __init__(self, policy: RecurrentPolicy, lang_proj: torch.nn.Linear | None, encoder: MissionEncoder | None):
        """lang_proj, encoder: None where missions are given as numbers alone."""
        self.policy = policy.eval().requires_grad_(False)
        self._missions = Missions(encoder, lang_proj)
        self._decoding = None if policy.obs_encoding == "one_hot" else decoding()

    @classmethod
    def load(cls, path: str | Path, encoder_location: str | None = None) -> tuple["FrozenPolicy", dict]:
        """The policy of a checkpoint, and the checkpoint's config. Raises InputError where it cannot be used."""
        checkpoint = load_for_evaluation(path)
        try:
            policy, lang_proj = policy_from_checkpoint(checkpoint)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        return cls(policy, lang_proj, encoder_for(checkpoint, encoder_location)), checkpoint["config"]

    def embed(self, missions: Sequence[str]) -> Tensor:
        """What the policy is given of N missions: (N, G) float32; of each the same, whatever is beside it."""
        return self._missions.lang(missions)

    def initial_hidden(self, num_envs: int) -> Tensor:
        """Zeros (N, S), the memory at the beginning of an episode."""
        return self.policy.initial_hidden(num_envs)

    def step(self, soft: Tensor, lang: Tensor, hidden: Tensor, intervene: Intervention | None = None) -> Answer:
        """One step. soft (N, X), lang (N, G), hidden (N, S); see `mixture_of_experts.Intervention`."""
        obs = soft if self._decoding is None else soft @ self._decoding
        return Answer(*self.policy.step(torch.cat([obs, lang], -1), hidden, intervene))

    def run(self, soft: Tensor, lang: Tensor, hidden: Tensor) -> Answer:
        """T steps of `step` at once, many times faster where the policy's equations are compiled.

        soft (T, N, X), lang (N, G), hidden (N, S) before the first step. Each part of the answer has the axis T first:
        logits (T, N, A), routing L x (T, N, E_l), hidden (T, N, S) after each step. No second derivatives.
        """
        if dispatch.refusal(self.policy) is not None:
            answers = []
            for of_step in soft:
                answers.append(self.step(of_step, lang, hidden))
                hidden = answers[-1].hidden
            logits, routing, states, _ = zip(*answers, strict=True)
            by_layer = [torch.stack(weights) for weights in zip(*routing, strict=True)]
            return Answer(torch.stack(logits), by_layer, torch.stack(states))
        linear = self.policy.input_projection
        of_obs, of_lang = linear.weight.split([linear.in_features - lang.shape[-1], lang.shape[-1]], 1)
        of_obs = of_obs.t() if self._decoding is None else self._decoding @ of_obs.t()
        x = soft @ of_obs + torch.nn.functional.linear(lang, of_lang, linear.bias)
        return Answer(*dispatch.run_projected(self.policy, x, hidden))

    def disagreement(self, answer: Answer, frames: "Frames", first: int) -> dict[str, Tensor]:
        """What is said besides actions, by name: in nats (T, N), from frame `first` of recorded windows on.

        answer: of `run`. routing: KL of the router's weights, the true from these, the sum over layers.
        """
        sizes = [weights.shape[-1] for weights in answer.routing]
        true_routing = frames.routing[first:].clamp(min=1e-8).log().split(sizes, -1)
        own_routing = [weights.clamp(min=1e-8).log() for weights in answer.routing]
        parts = zip(true_routing, own_routing, strict=True)
        return {"routing": sum((true.exp() * (true - own)).sum(-1) for true, own in parts)}

    def lpc(self, routing: Sequence[Tensor]) -> Tensor:
        """Layered parameter cost (N,) of router weights L x (N, E_l)."""
        return compute_lpc(routing, self.policy.expert_hidden_sizes)
