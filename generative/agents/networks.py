"""Agents of games: an encoder of frames, a GRU, an actor and a critic; and how they are loaded.

Axis letters: N environments, T steps, F features of a frame, S hidden units, A actions of the agent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from generative.domains.base import Answer
from generative.domains.coinrun.games import ACTION_SETS, FRAME_SHAPE, GAMES, MODES, UNSEEN_LEVELS
from mop.artifacts.checkpoints import load_checkpoint
from mop.common.cli import check_of, check_values, declared, setting
from mop.common.errors import InputError
from mop.common.reading import reading

KIND = "game_agent"  # of a checkpoint's config
FIRST_SCALE = 0.01  # of the random numbers that initialise the learned first hidden state
IMPALA_CHANNELS = (16, 32, 32)


class Residual(nn.Module):
    """Two convolutions and a skip connection (Espeholt et al. 2018, figure 3)."""

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
    """Frames and a hidden state to logits of actions and a value. Frames are RGB from 0 to 255, uint8 or float."""

    actions: Tensor  # (A,) int64

    def __init__(self, encoder: str, num_features: int, hidden_size: int, actions: Sequence[int], is_recurrent: bool):
        """actions: the game's numbers of the agent's A actions; hidden_size: ignored without a GRU."""
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
        self._init_weights()

    def _init_weights(self) -> None:
        for module in (*self.encoder.modules(), self.project):
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.get_parameter("bias"))
        for head, gain in ((self.actor, 0.01), (self.critic, 1.0)):
            nn.init.orthogonal_(head.weight, gain)
            nn.init.zeros_(head.bias)

    def initial_hidden(self, num_envs: int) -> Tensor:
        """The learned hidden state (N, S) at the beginning of every episode."""
        return self.first_hidden.expand(num_envs, -1)

    def reset_hidden(self, hidden: Tensor, is_first: Tensor) -> Tensor:
        """The hidden state (N, S) before a step, reset where the frame is the first of an episode, is_first (N,)."""
        return torch.where(is_first[:, None], self.first_hidden, hidden)

    def features(self, frames: Tensor) -> Tensor:
        """(N, F) of frames (N, 3, 64, 64)."""
        return torch.relu(self.project(self.encoder(frames.to(self.project.weight.dtype) / 255)))

    def step(self, frames: Tensor, hidden: Tensor) -> Answer:
        """One step. frames (N, 3, 64, 64), hidden (N, S) before it, of `reset_hidden` or `initial_hidden`."""
        return self.answer(self.features(frames), hidden)

    def answer(self, features: Tensor, hidden: Tensor) -> Answer:
        """`step` of features (N, F)."""
        if self.memory is not None:
            hidden = self.memory(features[None], hidden[None].contiguous())[1][0]
        read = features if self.memory is None else hidden
        return Answer(self.actor(read), [], hidden, self.critic(read)[..., 0])

    def run(self, frames: Tensor, hidden: Tensor, is_first: Tensor) -> Answer:
        """T steps at once: frames (T, N, 3, 64, 64), is_first (T, N); hidden (N, S) before the first of them."""
        features = self.features(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        if self.memory is None:
            return Answer(self.actor(features), [], hidden, self.critic(features)[..., 0])
        states = self.run_memory(features, hidden, is_first)
        return Answer(self.actor(states), [], states[-1], self.critic(states)[..., 0])

    def run_memory(self, features: Tensor, hidden: Tensor, is_first: Tensor) -> Tensor:
        """The hidden state (T, N, S) after each step. features (T, N, F).

        Each column is cut where an episode begins; the GRU runs once over all pieces, side by side and padded to the
        longest, so that nothing flows from one episode into another.
        """
        assert self.memory is not None
        num_steps, num_envs = is_first.shape
        begins = is_first.clone()
        begins[0] = True
        piece = (begins.t().flatten().cumsum(0) - 1).view(num_envs, num_steps).t()  # (T, N)
        time = torch.arange(num_steps, device=is_first.device)[:, None].expand(-1, num_envs)
        since = time - torch.where(begins, time, 0).cummax(0).values  # (T, N), steps since the piece began
        padded = features.new_zeros(int(since.max()) + 1, int(piece.max()) + 1, features.shape[-1])
        padded[since, piece] = features
        first = self.first_hidden.expand(padded.shape[1], -1).clone()
        first[piece[0]] = self.reset_hidden(hidden, is_first[0])
        return self.memory(padded, first[None])[0][since, piece]


# --- agents on disk ---------------------------------------------------------------------------------------------------

OF_PRESET = "in place of the preset's values"


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """The network of an agent, but for its actions; with these, the part `shape` of a checkpoint's config."""

    encoder: str = setting("half-nature", "convolutions", choices=ENCODERS, group=OF_PRESET)
    num_features: int = setting(64, "features of a frame", low=1, high=2**16, group=OF_PRESET)
    hidden_size: int = setting(64, "units of the hidden state", low=1, high=2**16, group=OF_PRESET)
    is_recurrent: bool = setting(True, "whether there is a GRU", group=OF_PRESET)


@dataclass(frozen=True, kw_only=True)
class LevelSettings:
    """The levels of a training, the part `world` of a checkpoint's config."""

    env_name: str = setting("coinrun", "the game", choices=GAMES)
    distribution_mode: str = setting("easy", "how hard the levels are", choices=MODES)
    num_levels: int = setting(0, "levels of the training; 0: all there are", low=0, high=UNSEEN_LEVELS // 2)
    start_level: int = setting(0, "the first of them", low=0, high=UNSEEN_LEVELS // 2)
    use_backgrounds: bool = setting(False, "whether the game shows its backgrounds", group=OF_PRESET)
    action_set: str = setting(
        "useful", "all 15 actions, or the useful ones, that do anything", choices=ACTION_SETS, group=OF_PRESET
    )


NETWORK = tuple(field.name for field in declared(NetworkSettings))
SHAPE = (*NETWORK, "actions")
WORLD = {field.name: check_of(LevelSettings, field.name) for field in declared(LevelSettings)}


def make_agent(shape: Mapping) -> GameAgent:
    """An agent with the network and actions of SHAPE, its weights drawn from torch's present generator."""
    return GameAgent(**{name: shape[name] for name in SHAPE})


def load_agent(path: str | Path, env_name: str | None = None) -> tuple[GameAgent, dict]:
    """Load the agent of a checkpoint, without gradients of its own, and the checkpoint's config.

    env_name: the game that it must play.
    """
    checkpoint = load_checkpoint(path)
    config = checkpoint["config"]
    if config.get("kind") != KIND:
        raise InputError(f"{path} is no agent of a game; name a model_<t>.pt of generative.train_agent")
    with reading(path, "agent of a game"):
        check_values(NetworkSettings, {name: config["shape"][name] for name in NETWORK}, str(path))
        check_values(LevelSettings, {name: config["world"][name] for name in WORLD}, str(path))
        agent = make_agent(config["shape"])
        agent.load_state_dict(checkpoint["policy_state_dict"])
    if env_name not in (None, config["world"]["env_name"]):
        raise InputError(f"{path} plays {config['world']['env_name']}, not {env_name}")
    return agent.eval().requires_grad_(False), config
