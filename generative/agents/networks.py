"""The agents of games as equations: an encoder of frames, a GRU as memory, an actor and a critic.

Axis letters: N environments, T steps, F features of a frame, S hidden units, A actions of the agent.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from generative.domains.coinrun.games import ACTION_SETS, FRAME_SHAPE, GAMES, MODES, NUM_ACTIONS, UNSEEN_LEVELS
from mop.artifacts.checkpoints import load_checkpoint
from mop.common.configuration import choice, flag, integer, shown
from mop.common.errors import InputError

KIND = "game_agent"  # of a checkpoint's config
FIRST_SCALE = 0.01  # of the random numbers with which the learned first memory begins
IMPALA_CHANNELS = (16, 32, 32)


class Answer(NamedTuple):
    """What an agent says: of N frames at one step, or of (T, N) frames."""

    logits: Tensor  # (..., A)
    value: Tensor  # (...), the expected sum of discounted scaled rewards
    hidden: Tensor  # (N, S), after the (last) step


class Residual(nn.Module):
    """Two convolutions beside the identity (Espeholt et al. 2018, figure 3)."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(torch.relu(self.first(torch.relu(x))))


def _impala() -> list[nn.Module]:
    layers, before = [], FRAME_SHAPE[0]
    for channels in IMPALA_CHANNELS:
        layers += [nn.Conv2d(before, channels, 3, padding=1), nn.MaxPool2d(3, 2, 1)]
        layers += [Residual(channels), Residual(channels)]
        before = channels
    return [*layers, nn.ReLU()]


def _nature(first: int, later: int) -> list[nn.Module]:
    """The three convolutions of Mnih et al. 2015, with other numbers of channels."""
    convolutions = [nn.Conv2d(3, first, 8, 4), nn.Conv2d(first, later, 4, 2), nn.Conv2d(later, later, 3)]
    return [layer for convolution in convolutions for layer in (convolution, nn.ReLU())]


ENCODERS = {"impala": _impala, "nature": lambda: _nature(32, 64), "half-nature": lambda: _nature(16, 32)}


class GameAgent(nn.Module):
    """Frames and a memory to action preferences and a value. Frames are RGB from 0 to 255, uint8 or with gradients."""

    def __init__(self, encoder: str, num_features: int, hidden_size: int, actions: Sequence[int], is_recurrent: bool):
        """actions: the game's numbers of the agent's A actions; hidden_size: ignored where there is no memory."""
        super().__init__()
        self.register_buffer("actions", torch.tensor(actions), persistent=False)
        self.encoder = nn.Sequential(*ENCODERS[encoder](), nn.Flatten())
        with torch.no_grad():
            num_flat = self.encoder(torch.zeros(1, *FRAME_SHAPE)).shape[1]
        self.project = nn.Linear(num_flat, num_features)
        self.memory = nn.GRU(num_features, hidden_size) if is_recurrent else None
        self.hidden_size = hidden_size if is_recurrent else 0
        self.first_hidden = nn.Parameter(FIRST_SCALE * torch.randn(self.hidden_size))
        num_read = self.hidden_size or num_features
        self.actor, self.critic = nn.Linear(num_read, len(actions)), nn.Linear(num_read, 1)
        self._begin_weights()

    def _begin_weights(self) -> None:
        for module in (*self.encoder.modules(), self.project):
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for head, gain in ((self.actor, 0.01), (self.critic, 1.0)):
            nn.init.orthogonal_(head.weight, gain)
            nn.init.zeros_(head.bias)

    def initial_hidden(self, num_envs: int) -> Tensor:
        """The learned memory (N, S) at the beginning of every episode."""
        return self.first_hidden.expand(num_envs, -1)

    def began(self, hidden: Tensor, is_first: Tensor) -> Tensor:
        """The memory (N, S) before a step, begun anew where the frame is the first of an episode, is_first (N,)."""
        return torch.where(is_first[:, None], self.first_hidden, hidden)

    def features(self, frames: Tensor) -> Tensor:
        """(N, F) of frames (N, 3, 64, 64)."""
        return torch.relu(self.project(self.encoder(frames.to(self.project.weight.dtype) / 255)))

    def step(self, frames: Tensor, hidden: Tensor) -> Answer:
        """One step. frames (N, 3, 64, 64), hidden (N, S) before it, of `began` or `initial_hidden`."""
        return self.answer(self.features(frames), hidden)

    def answer(self, features: Tensor, hidden: Tensor) -> Answer:
        """`step` of features (N, F)."""
        if self.memory is not None:
            hidden = self.memory(features[None], hidden[None].contiguous())[1][0]
        read = features if self.memory is None else hidden
        return Answer(self.actor(read), self.critic(read)[..., 0], hidden)

    def run(self, frames: Tensor, hidden: Tensor, is_first: Tensor) -> Answer:
        """T steps at once: frames (T, N, 3, 64, 64), is_first (T, N); hidden (N, S) before the first of them."""
        features = self.features(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        if self.memory is None:
            return Answer(self.actor(features), self.critic(features)[..., 0], hidden)
        states = self.remember(features, hidden, is_first)
        return Answer(self.actor(states), self.critic(states)[..., 0], states[-1])

    def remember(self, features: Tensor, hidden: Tensor, is_first: Tensor) -> Tensor:
        """The memory (T, N, S) after each step. features (T, N, F).

        Each column is cut where an episode begins; the pieces lie side by side, padded to the longest, and the GRU
        passes over them once. Nothing flows from one into another.
        """
        num_steps, num_envs = is_first.shape
        begins = is_first.clone()
        begins[0] = True
        piece = (begins.t().flatten().cumsum(0) - 1).view(num_envs, num_steps).t()  # (T, N)
        time = torch.arange(num_steps, device=is_first.device)[:, None].expand(-1, num_envs)
        since = time - torch.where(begins, time, 0).cummax(0).values  # (T, N), steps since the piece began
        padded = features.new_zeros(int(since.max()) + 1, int(piece.max()) + 1, features.shape[-1])
        padded[since, piece] = features
        first = self.first_hidden.expand(padded.shape[1], -1).clone()
        first[piece[0]] = self.began(hidden, is_first[0])
        return self.memory(padded, first[None])[0][since, piece]


# --- agents on disk ---------------------------------------------------------------------------------------------------

SHAPE = {  # what a checkpoint's config says under `shape`
    "encoder": choice(*ENCODERS),
    "num_features": integer(1, 2**16),
    "hidden_size": integer(1, 2**16),
    "actions": lambda value: [integer(0, NUM_ACTIONS - 1)(action) for action in value],
    "is_recurrent": flag,
}
WORLD = {  # and under `world`: what it was trained in
    "env_name": choice(*GAMES),
    "distribution_mode": choice(*MODES),
    "num_levels": integer(0, UNSEEN_LEVELS // 2),
    "start_level": integer(0, UNSEEN_LEVELS // 2),
    "use_backgrounds": flag,
    "action_set": choice(*ACTION_SETS),
}


def make_agent(shape: Mapping) -> GameAgent:
    """An agent of a shape, with weights drawn from torch's present generator."""
    return GameAgent(**{name: shape[name] for name in SHAPE})


def load_agent(path: str | Path, env_name: str | None = None) -> tuple[GameAgent, dict]:
    """The agent of a checkpoint, without gradients of its own, and the checkpoint's config.

    env_name: the game that it must play. Raises InputError where it is of another game, or no agent of a game.
    """
    checkpoint = load_checkpoint(path)
    config = checkpoint["config"]
    if config.get("kind") != KIND:
        raise InputError(f"{path} is no agent of a game; name a model_<t>.pt of generative.train_agent")
    for part, fields in (("shape", SHAPE), ("world", WORLD)):
        _check(config.get(part), fields, f"{path}: its {part}")
    if env_name not in (None, config["world"]["env_name"]):
        raise InputError(f"{path} plays {config['world']['env_name']}, not {env_name}")
    agent = make_agent(config["shape"])
    try:
        agent.load_state_dict(checkpoint["policy_state_dict"])
    except RuntimeError as error:
        raise InputError(f"{path}: its weights are of another shape ({str(error).splitlines()[1].strip()})") from None
    return agent.eval().requires_grad_(False), config


def _check(values: object, fields: Mapping, source: str) -> None:
    """Raises InputError, naming the source, unless a value of each field is there and can be."""
    if not isinstance(values, dict) or fields.keys() - values.keys():
        raise InputError(f"{source} is incomplete: {shown(values)}")
    for name, parse in fields.items():
        try:
            parse(values[name])
        except (ValueError, TypeError) as error:
            raise InputError(f"{source}: {name} {error}, not {shown(values[name])}") from None
