"""The frozen agent of a game, as a function of frames and its memory: what `policies.FrozenPolicy` is for BabyAI.

A view is a frame as X = 12,288 numbers from 0 to 255, behind each other. There is no mission: G = 0.
Axis letters: N environments, T steps, A actions of the agent, S hidden units.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from generative.agents.networks import GameAgent, load_agent
from generative.domains.babyai.policy import Answer
from generative.domains.coinrun.games import FRAME_SHAPE

if TYPE_CHECKING:
    from generative.simulators.losses import Frames


class FrozenAgent:
    """A trained agent without gradients of its own: `step` is functional, and gradients reach its inputs."""

    def __init__(self, agent: GameAgent):
        self.agent = agent.eval().requires_grad_(False)

    @classmethod
    def load(cls, path: str | Path, encoder_location: str | None = None) -> tuple["FrozenAgent", dict]:
        """The agent of a checkpoint, and the checkpoint's config. Raises InputError where it cannot be used."""
        agent, config = load_agent(path)
        return cls(agent), config

    def to(self, device: torch.device) -> "FrozenAgent":
        """The same agent on a device."""
        self.agent.to(device)
        return self

    def embed(self, missions: Sequence[str]) -> Tensor:
        """What the agent is given of N missions: nothing, (N, 0)."""
        return torch.zeros(len(missions), 0)

    def initial_hidden(self, num_envs: int) -> Tensor:
        """The learned memory (N, S) at the beginning of an episode."""
        return self.agent.initial_hidden(num_envs)

    def step(self, view: Tensor, lang: Tensor, hidden: Tensor) -> Answer:
        """One step. view (N, X), lang (N, 0), hidden (N, S)."""
        answer = self.agent.step(view.unflatten(-1, FRAME_SHAPE), hidden)
        return Answer(answer.logits, [], answer.hidden, answer.value)

    def run(self, views: Tensor, lang: Tensor, hidden: Tensor) -> Answer:
        """T steps of `step` at once, the axis T first; views (T, N, X), hidden (N, S) before the first step."""
        agent, shape = self.agent, views.shape[:2]
        read = agent.features(views.reshape(-1, *FRAME_SHAPE)).unflatten(0, shape)
        states = hidden.expand(len(views), *hidden.shape)
        if agent.memory is not None:
            read = states = agent.memory(read, hidden[None].contiguous())[0]
        return Answer(agent.actor(read), [], states, agent.critic(read)[..., 0])

    def disagreement(self, answer: Answer, frames: "Frames", first: int) -> dict[str, Tensor]:
        """As `FrozenPolicy.disagreement`; value: half the squared error, in nats of a normal distribution."""
        return {"value": (answer.value - frames.value[first:]).square() / 2}
