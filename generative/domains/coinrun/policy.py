"""The frozen agent of a game, as a function of frames and its hidden state.

A view is a frame as X = 12,288 numbers from 0 to 255, one after the other. There is no mission: G = 0.
Axis letters: N environments, T steps, A actions of the agent, S hidden units.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from generative.agents.networks import GameAgent, load_agent, make_agent
from generative.domains.base import Answer, Policy
from generative.domains.coinrun.games import FRAME_SHAPE
from mop.common.errors import InputError


class FrozenAgent(Policy):
    """A trained agent of a game."""

    def __init__(self, agent: GameAgent):
        self.agent = agent.eval().requires_grad_(False)
        self.hidden_size = agent.hidden_size
        self.num_actions = len(agent.actions)

    @classmethod
    def load(
        cls, path: str | Path, encoder_location: str | Path | None = None, needs_encoder: bool = False
    ) -> tuple["FrozenAgent", dict]:
        """Load the agent of a checkpoint, which is given no mission; and the checkpoint's config."""
        agent, config = load_agent(path)
        if agent.memory is None:
            raise InputError(f"{path} has no memory that could be recorded or moved; name an agent that has one")
        return cls(agent), config

    def untrained(self, config: Mapping) -> Self:
        return type(self)(make_agent(config["shape"]))

    def to(self, device: torch.device) -> "FrozenAgent":
        self.agent.to(device)
        return self

    def initial_hidden(self, num_envs: int) -> Tensor:
        """The learned state at the beginning of an episode."""
        return self.agent.initial_hidden(num_envs)

    def step(self, views: Tensor, lang: Tensor, hidden: Tensor) -> Answer:
        return self.agent.step(views.unflatten(-1, FRAME_SHAPE), hidden)

    def run(self, views: Tensor, lang: Tensor, hidden: Tensor) -> Answer:
        """All frames are looked at together."""
        agent, shape = self.agent, views.shape[:2]
        assert agent.memory is not None
        features = agent.features(views.reshape(-1, *FRAME_SHAPE)).unflatten(0, shape)
        states = agent.memory(features, hidden[None].contiguous())[0]
        return Answer(agent.actor(states), [], states, agent.critic(states)[..., 0])

    def disagreement(self, answer: Answer, recorded: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """value: half the squared error, in nats of a normal distribution of variance 1."""
        return {"value": (answer.value - recorded["value"]).square() / 2}
