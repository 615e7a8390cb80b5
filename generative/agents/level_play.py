"""Levels of a game played once each, by an agent or by somebody who looks at nothing.

An episode is its level and its actor: but for rounding, it depends on no other level beside it. Axis letters: N levels,
T actions of an episode.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch

from generative.agents.networks import GameAgent
from generative.domains.coinrun.games import NUM_ACTIONS, begin_level
from mop.common.seeding import stream_seed

NUM_AT_ONCE = 64


class Chosen(NamedTuple):
    """What an actor does in N levels."""

    action: np.ndarray  # (N,) int, the game's numbers
    probability: np.ndarray  # (N,) of that action
    value: np.ndarray  # (N,) what the actor expects, NaN where it expects nothing


class Actor(Protocol):
    """Who plays."""

    def begin(self, levels: Sequence[int]) -> None:
        """The N levels begin."""

    def act(self, frames: np.ndarray) -> Chosen:
        """Of frames (N, 3, 64, 64)."""


class LevelEpisode(NamedTuple):
    """One level from its beginning to its end."""

    level: int
    actions: np.ndarray  # (T,) int
    probabilities: np.ndarray  # (T,) float
    values: np.ndarray  # (T,) float
    reward: float  # the sum
    is_success: bool
    is_cut: bool  # a time limit ended it, the game's or `max_steps`
    frames: np.ndarray | None  # (T + 1, 3, 64, 64) uint8, where they are kept


class AgentActor:
    """An agent that draws its actions, or takes the likeliest."""

    def __init__(self, agent: GameAgent, is_sampled: bool, seed: int = 0):
        """seed: of the draws; each level has a stream of its own."""
        self._agent, self._is_sampled, self._seed = agent, is_sampled, stream_seed(seed, "actions in levels")

    def begin(self, levels: Sequence[int]) -> None:
        """Empty memories, and the streams of these levels."""
        self._hidden = self._agent.initial_hidden(len(levels))
        self._rngs = [np.random.default_rng((self._seed, level)) for level in levels]

    @torch.no_grad()
    def act(self, frames: np.ndarray) -> Chosen:
        """One step of the agent."""
        answer = self._agent.step(torch.from_numpy(frames), self._hidden)
        self._hidden = self.remembered(self._hidden, answer.hidden)
        log_probs = answer.logits.log_softmax(-1).numpy()
        noise = 0.0
        if self._is_sampled:  # the Gumbel-max trick
            noise = np.stack([rng.gumbel(size=log_probs.shape[1]) for rng in self._rngs])
        index = (log_probs + noise).argmax(-1)
        probability = np.exp(log_probs[np.arange(len(index)), index])
        return Chosen(self._agent.actions.numpy()[index], probability, answer.value.numpy())

    def remembered(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """The memory (N, S) that the next step begins with, of those before and after a step."""
        return after


class RandomActor:
    """Each of the game's 15 actions as often as any other."""

    def __init__(self, seed: int = 0):
        self._seed = stream_seed(seed, "random actions in levels")

    def begin(self, levels: Sequence[int]) -> None:
        """The streams of these levels."""
        self._rngs = [np.random.default_rng((self._seed, level)) for level in levels]

    def act(self, frames: np.ndarray) -> Chosen:
        """Whatever the frames show."""
        actions = np.array([rng.integers(NUM_ACTIONS) for rng in self._rngs])
        return Chosen(actions, np.full(len(actions), 1 / NUM_ACTIONS), np.full(len(actions), np.nan))


class ConstantActor:
    """Always the same action."""

    def __init__(self, action: int):
        self._action = action

    def begin(self, levels: Sequence[int]) -> None:
        """Nothing to prepare."""

    def act(self, frames: np.ndarray) -> Chosen:
        """Whatever the frames show."""
        return Chosen(np.full(len(frames), self._action), np.ones(len(frames)), np.full(len(frames), np.nan))


def play_levels(
    world: Mapping, levels: Sequence[int], actor: Actor, *, keeps_frames: bool = False, max_steps: int | None = None,
    on_episode: Callable[[], object] = lambda: None, num_at_once: int = NUM_AT_ONCE,
) -> list[LevelEpisode]:  # fmt: skip
    """An episode of each level, in their order.

    world: `env_name`, `distribution_mode`, `use_backgrounds` of an agent's config; max_steps: actions until an episode
    is cut short, None for the game's limit; on_episode: called after each; num_at_once: levels side by side. Raises
    InputError where the game cannot be had.
    """
    episodes: list[LevelEpisode] = []
    for first in range(0, len(levels), num_at_once):
        some = levels[first : first + num_at_once]
        episodes += _play_together(world, some, actor, keeps_frames, max_steps, on_episode)
    return episodes


def _play_together(world, levels, actor, keeps_frames, max_steps, on_episode) -> list[LevelEpisode]:
    games = [begin_level(world, level) for level in levels]
    frames = np.concatenate([game.begin()[0] for game in games])
    shown = [[frames[slot].copy()] for slot in range(len(levels))]
    done: list[list] = [[] for _ in levels]  # action, probability, value, reward
    ends: dict[int, tuple[bool, bool]] = {}
    actor.begin(levels)
    while len(ends) < len(levels):
        chosen = actor.act(frames)
        for slot in (slot for slot in range(len(levels)) if slot not in ends):
            moment = games[slot].step(chosen.action[slot : slot + 1])
            done[slot].append((*(part[slot] for part in chosen), moment.reward[0]))
            frames[slot] = moment.frames[0]
            if keeps_frames:
                shown[slot].append(moment.frames[0].copy())
            is_cut = not moment.is_terminal[0] and (bool(moment.is_cut[0]) or len(done[slot]) == max_steps)
            if moment.is_terminal[0] or is_cut:
                ends[slot] = bool(moment.is_success[0]), is_cut
                on_episode()
    for game in games:
        game.close()
    episodes = []
    for slot, level in enumerate(levels):
        actions, probabilities, values, rewards = map(np.array, zip(*done[slot], strict=True))
        kept = np.stack(shown[slot]) if keeps_frames else None
        total = float(rewards.sum())
        episodes.append(LevelEpisode(int(level), actions.astype(int), probabilities, values, total, *ends[slot], kept))
    return episodes
