"""The frozen policy of a BabyAI checkpoint, as a function of soft observations, its hidden state, and nothing else."""

import copy
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from generative.domains.base import Answer, Policy
from generative.simulators.relaxation import decoding
from mixture_of_experts import RecurrentPolicy, compute_lpc
from mop.common.reading import reading
from mop.evaluation.evaluate import encoder_for, load_for_evaluation
from mop.evaluation.rollout import Missions
from mop.statistics.information import kl_divergence
from mop.training.execution import run_projected
from mop.training.policies import build_policy, policy_from_checkpoint


class FrozenPolicy(Policy):
    """A mixture of experts, or the baseline.

    Axis letters: N environments, X numbers of a soft observation (`generative.simulators.relaxation`), G of a mission,
    S hidden units.
    """

    def __init__(self, policy: RecurrentPolicy, lang_proj: Any, encoder: Any):
        """lang_proj, encoder: of missions; None where they are given as numbers alone."""
        self.policy = policy.eval().requires_grad_(False)
        self.hidden_size = policy.hidden_size
        self.num_actions = policy.num_actions
        self.lang_dim = policy.lang_dim
        self.expert_hidden_sizes = policy.expert_hidden_sizes
        self.missions = Missions(encoder, lang_proj)
        self._decoding = None if policy.obs_encoding == "one_hot" else decoding()

    @classmethod
    def load(
        cls, path: str | Path, encoder_location: str | Path | None = None, needs_encoder: bool = True
    ) -> tuple["FrozenPolicy", dict]:
        """Load the policy of a checkpoint, and the checkpoint's config; needs_encoder: missions are to be encoded."""
        checkpoint = load_for_evaluation(path)
        with reading(path, "policy"):
            policy, lang_proj = policy_from_checkpoint(checkpoint)
        location = None if encoder_location is None else str(encoder_location)
        encoder = encoder_for(checkpoint, location) if needs_encoder else None
        return cls(policy, lang_proj, encoder), checkpoint["config"]

    def untrained(self, config: Mapping) -> Self:
        twin = copy.copy(self)  # it is given the same of a mission
        twin.policy = build_policy(config).eval().requires_grad_(False)
        return twin

    def embed(self, missions: Sequence[str]) -> Tensor:
        """Embed each mission alone, so that no batch changes it."""
        return self.missions.lang(missions)

    def initial_hidden(self, num_envs: int) -> Tensor:
        return self.policy.initial_hidden(num_envs)

    def step(self, views: Tensor, lang: Tensor, hidden: Tensor) -> Answer:
        return Answer(*self.policy.step(self._inputs(views, lang), hidden))

    def run(self, views: Tensor, lang: Tensor, hidden: Tensor) -> Answer:
        """Many times faster than T steps where the policy's equations are compiled. No second derivatives."""
        x = self.policy.input_projection(self._inputs(views, lang))
        return Answer(*run_projected(self.policy, x, hidden))

    def _inputs(self, views: Tensor, lang: Tensor) -> Tensor:
        """([T,] N, K + G) of soft observations ([T,] N, X) and lang (N, G)."""
        obs = views if self._decoding is None else views @ self._decoding
        return torch.cat([obs, lang.expand(*obs.shape[:-1], -1)], -1)

    def disagreement(self, answer: Answer, recorded: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """routing: KL of the router's weights, the true from these, the sum over layers."""
        sizes = [weights.shape[-1] for weights in answer.routing]
        true_routing = recorded["routing"].clamp(min=1e-8).log().split(sizes, -1)
        own_routing = [weights.clamp(min=1e-8).log() for weights in answer.routing]
        return {"routing": functools.reduce(torch.add, map(kl_divergence, true_routing, own_routing))}

    @property
    def hidden_layout(self) -> dict[str, list[int]]:
        """A block for each router and each expert."""
        return {name: [place.start, place.stop] for name, place in self.policy.hidden_layout.items()}

    def lpc(self, routing: Sequence[Tensor]) -> Tensor:
        """Layered parameter cost (N,) of router weights L x (N, E_l)."""
        return compute_lpc(routing, self.expert_hidden_sizes)
