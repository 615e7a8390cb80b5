"""Worlds and agents of frames whose causes are known."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from generative.attribution.loop_inputs import VIEW, ViewScene
from generative.domains.base import Answer
from generative.domains.coinrun.causes import NUM_PATCHES, SIDE, patches_at
from generative.domains.coinrun.domain import COINRUN
from generative.domains.coinrun.games import ACTION_NAMES
from generative.domains.coinrun.policy import FrozenAgent
from generative.recordings.format import Episode
from generative.simulators.base import State

ACTIONS = [ACTION_NAMES.index(name) for name in ("right", "right and jump", "jump")]


class Reader(nn.Module):
    """As a `GameAgent`: its log-odds of a jump are how bright one patch was, from 0 to 1, some steps ago."""

    def __init__(self, x: int, y: int, delay: int):
        super().__init__()
        self.register_buffer("actions", torch.tensor(ACTIONS))
        self.rows, self.columns = slice(y * SIDE, (y + 1) * SIDE), slice(x * SIDE, (x + 1) * SIDE)
        self.hidden_size, self.memory = delay, None

    def initial_hidden(self, num_envs: int) -> Tensor:
        return torch.zeros(num_envs, self.hidden_size)

    def features(self, frames: Tensor) -> Tensor:
        return frames.float()[..., self.rows, self.columns].mean((-3, -2, -1))[:, None] / 255

    def answer(self, features: Tensor, hidden: Tensor) -> Answer:
        memory = torch.cat([features, hidden], -1)  # the latest first
        logits = torch.stack([torch.zeros_like(memory[:, -1]), memory[:, -1], torch.full_like(memory[:, -1], -30)], -1)
        return Answer(logits, [], memory[:, :-1], memory[:, -1])

    def step(self, frames: Tensor, hidden: Tensor) -> Answer:
        return self.answer(self.features(frames), hidden)


def reader(x: int, y: int, delay: int) -> FrozenAgent:
    return FrozenAgent(Reader(x, y, delay))


class Still:
    """A simulator of a world that is nothing but its frame, in which nothing happens."""

    def view(self, state: State) -> Tensor:
        return state["view"]

    def step(self, state: State, action: Tensor) -> State:
        return state


class Fading(Still):
    """It grows darker to one side, the more so the further the action's number: smooth in the frame and the action."""

    def step(self, state: State, action: Tensor) -> State:
        light = 0.9 - 0.1 * (action @ torch.arange(float(action.shape[-1])))[:, None]
        moved = state["view"].roll(2, -1)
        return {"view": 255 * torch.tanh(light * (0.6 * state["view"] + 0.4 * moved) / 255)}


class ToyScenes:
    """As `LearnedScenes`, of episodes whose objects are given."""

    kinds, max_beginnings = (VIEW,), 64

    def __init__(self, simulator: Still, objects: np.ndarray):
        """objects: what is at each point of all frames, (T + 1, 64, 64)."""
        self.simulator, self._objects = simulator, objects

    def objects(self, episode: Episode) -> np.ndarray:
        return self._objects

    def at(self, episode, step, kind):
        things = patches_at(self._objects, episode, step)
        return ViewScene(COINRUN, episode["obs"][step], things, lambda views: {"view": views})


def toy_episode(agent: FrozenAgent, frames: np.ndarray, seed: int = 5) -> Episode:
    """A recording of an agent that sees frames (T + 1, 3, 64, 64) and always goes to the right."""
    hidden, rows = agent.initial_hidden(1), []
    for frame in frames:
        answer = agent.agent.step(torch.from_numpy(frame[None]), hidden)
        rows.append((hidden[0].detach().numpy(), answer.logits[0].log_softmax(-1).numpy(), answer.value[0].item()))
        hidden = answer.hidden
    memory, log_probs, value = (np.array(part, np.float32) for part in zip(*rows, strict=True))
    action = np.zeros(len(frames), np.int8)
    action[-1] = -1
    student = log_probs.argmax(-1).astype(np.int8)
    arrays = {"obs": frames, "hidden": memory, "log_probs": log_probs, "value": value, "action": action}
    return Episode(arrays | {"student": student}, seed, "test", "argmax", "", True, np.zeros(0, np.float32))


class ToyRecording:
    """As a `Recording` of one episode, number 0, of the agent of a checkpoint with this config."""

    def __init__(self, episode: Episode, config: Mapping | None = None):
        self._episode, self.config = episode, {"checkpoint": {"config": config}}

    def distinct(self, numbers: Sequence[int]) -> list[int]:
        return list(numbers)

    def episode(self, k: int) -> Episode:
        assert k == 0
        return self._episode


def lit_frames(num_frames: int, seed: int = 0, num_black: int = 20) -> np.ndarray:
    """The same random frame again and again (T, 3, 64, 64), with some patches black."""
    rng = np.random.default_rng(seed)
    frame = rng.integers(60, 256, (3, 64, 64), dtype=np.uint8)
    for k in rng.permutation(NUM_PATCHES)[:num_black]:
        frame[:, k // 8 * SIDE : (k // 8 + 1) * SIDE, k % 8 * SIDE : (k % 8 + 1) * SIDE] = 0
    return np.repeat(frame[None], num_frames, 0)
