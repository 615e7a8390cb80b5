"""Levels of a game played once each: by an agent, or by a baseline that does not look at the frames.

An episode is its level and its actor: up to rounding, it does not depend on the levels played side by side. Axis
letters: N levels, T actions of an episode.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from generative.agents.networks import GameAgent
from generative.domains.coinrun.games import ALL_LEVELS, NUM_ACTIONS, RIGHT_AND_JUMP, UNSEEN_LEVELS, begin_level
from mop.common.seeding import stream_seed
from mop.statistics.bootstrap import bootstrap_means
from mop.statistics.intervals import wilson_interval

NUM_AT_ONCE = 64
RANDOM = "random"


# --- actors -----------------------------------------------------------------------------------------------------------


class Chosen(NamedTuple):
    """The actions of an actor in N levels."""

    action: np.ndarray  # (N,) int, the game's numbers
    probability: np.ndarray  # (N,) of that action
    value: np.ndarray  # (N,) expected return, NaN for an actor without one


class Actor(Protocol):
    """A player of levels."""

    def begin(self, levels: Sequence[int]) -> None:
        """Begin N levels."""

    def act(self, frames: np.ndarray) -> Chosen:
        """Choose actions for frames (N, 3, 64, 64)."""


class AgentActor:
    """An agent that samples its actions, or takes the likeliest."""

    def __init__(self, agent: GameAgent, is_sampled: bool, seed: int = 0):
        """seed: of the samples; each level has a stream of its own."""
        self._agent = agent
        self._is_sampled = is_sampled
        self._seed = stream_seed(seed, "actions in levels")

    def begin(self, levels: Sequence[int]) -> None:
        """Reset the hidden states and the random streams."""
        self._hidden = self._agent.initial_hidden(len(levels))
        self._rngs = [np.random.default_rng((self._seed, level)) for level in levels]

    @torch.no_grad()
    def act(self, frames: np.ndarray) -> Chosen:
        """One step of the agent."""
        answer = self._agent.step(torch.from_numpy(frames), self._hidden)
        self._hidden = self.next_hidden(self._hidden, answer.hidden)
        log_probs = answer.logits.log_softmax(-1).numpy()
        noise = 0.0
        if self._is_sampled:  # the Gumbel-max trick
            noise = np.stack([rng.gumbel(size=log_probs.shape[1]) for rng in self._rngs])
        index = (log_probs + noise).argmax(-1)
        probability = np.exp(log_probs[np.arange(len(index)), index])
        return Chosen(self._agent.actions.numpy()[index], probability, answer.value.numpy())

    def next_hidden(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """The hidden states (N, S) of the next step, from those before and after a step."""
        return after


class BlindActor:
    """Some of the game's actions, equally often, whatever the frames show."""

    def __init__(self, actions: Sequence[int], seed: int = 0):
        self._actions = np.array(actions)
        self._seed = stream_seed(seed, "random actions in levels")

    def begin(self, levels: Sequence[int]) -> None:
        """Reset the random streams."""
        self._rngs = [np.random.default_rng((self._seed, level)) for level in levels]

    def act(self, frames: np.ndarray) -> Chosen:
        """An action in each level."""
        count = len(self._actions)
        chosen = self._actions[[rng.integers(count) for rng in self._rngs]]
        return Chosen(chosen, np.full(len(chosen), 1 / count), np.full(len(chosen), np.nan))


# --- episodes ---------------------------------------------------------------------------------------------------------


class LevelEpisode(NamedTuple):
    """One level from its beginning to its end."""

    level: int
    actions: np.ndarray  # (T,) int
    probabilities: np.ndarray  # (T,) float
    values: np.ndarray  # (T,) float
    reward: float  # the sum
    is_success: bool
    is_cut: bool  # a time limit ended it, the game's or `max_steps`
    frames: np.ndarray  # (T + 1, 3, 64, 64) uint8 where they are kept, else the first


def play_levels(
    world: Mapping,
    levels: Sequence[int],
    actor: Actor,
    *,
    keeps_frames: bool = False,
    max_steps: int | None = None,
    on_episode: Callable[[], object] = lambda: None,
    num_at_once: int = NUM_AT_ONCE,
) -> list[LevelEpisode]:
    """Play an episode of each level, in their order.

    world: `env_name`, `distribution_mode`, `use_backgrounds` of an agent's config; max_steps: actions until an episode
    is cut short, None for the game's limit; on_episode: called after each; num_at_once: levels side by side.
    """
    episodes: list[LevelEpisode] = []
    for first in range(0, len(levels), num_at_once):
        some = levels[first : first + num_at_once]
        episodes += _play_together(world, some, actor, keeps_frames, max_steps, on_episode)
    return episodes


def _play_together(world, levels, actor, keeps_frames, max_steps, on_episode) -> list[LevelEpisode]:
    games = [begin_level(world, level) for level in levels]
    frames = np.concatenate([game.begin()[0] for game in games])
    shown = [[frame.copy()] for frame in frames]
    steps: list[list] = [[] for _ in levels]  # action, probability, value, reward
    ends: dict[int, tuple[bool, bool]] = {}
    actor.begin(levels)
    while len(ends) < len(levels):
        chosen = actor.act(frames)
        for slot in (slot for slot in range(len(levels)) if slot not in ends):
            moment = games[slot].step(chosen.action[slot : slot + 1])
            steps[slot].append((*(part[slot] for part in chosen), moment.reward[0]))
            frames[slot] = moment.frames[0]
            if keeps_frames:
                shown[slot].append(moment.frames[0].copy())
            is_cut = not moment.is_terminal[0] and (bool(moment.is_cut[0]) or len(steps[slot]) == max_steps)
            if moment.is_terminal[0] or is_cut:
                ends[slot] = bool(moment.is_success[0]), is_cut
                on_episode()
    for game in games:
        game.close()
    episodes = []
    for slot, level in enumerate(levels):
        actions, probabilities, values, rewards = map(np.array, zip(*steps[slot], strict=True))
        kept = np.stack(shown[slot])
        total = float(rewards.sum())
        episodes.append(LevelEpisode(int(level), actions.astype(int), probabilities, values, total, *ends[slot], kept))
    return episodes


# --- evaluation -------------------------------------------------------------------------------------------------------


def level_sets(world: Mapping, count: int, seed: int) -> dict[str, list[int]]:
    """Levels of the training, `count` or all, and as many unseen ones.

    An agent that was trained in all levels has seen hardly any of them twice: then there are unseen ones alone.
    """
    sets = {}
    if world["num_levels"] != ALL_LEVELS:
        rng = np.random.default_rng(stream_seed(seed, "levels of an evaluation"))
        chosen = rng.choice(world["num_levels"], min(count, world["num_levels"]), replace=False)
        sets["training"] = sorted((world["start_level"] + chosen).tolist())
    return sets | {"unseen": list(range(UNSEEN_LEVELS, UNSEEN_LEVELS + count))}


def evaluate(agent: GameAgent, world: Mapping, count: int, max_steps: int | None, seed: int) -> pd.DataFrame:
    """Play the levels of `level_sets` with the agent and three baselines; a row for each episode."""
    actors: dict[str, Actor] = {
        "agent, sampled": AgentActor(agent, True, seed),
        "agent, greedy": AgentActor(agent, False),
        "right and jump": BlindActor([RIGHT_AND_JUMP]),
        RANDOM: BlindActor(range(NUM_ACTIONS), seed),
    }
    sets = level_sets(world, count, seed)
    rows = []
    total = len(actors) * sum(map(len, sets.values()))
    with tqdm(total=total, desc="levels", unit="episode", dynamic_ncols=True, leave=False) as bar:
        for name, levels in sets.items():
            for actor, player in actors.items():
                for episode in play_levels(world, levels, player, max_steps=max_steps, on_episode=bar.update):
                    outcome = {"return": episode.reward, "success": int(episode.is_success)}
                    length = {"length": len(episode.actions), "out_of_time": int(episode.is_cut)}
                    rows.append({"levels": name, "actor": actor, "level": episode.level} | outcome | length)
    return pd.DataFrame(rows)


def summarise(episodes: pd.DataFrame) -> pd.DataFrame:
    """A row for each set of levels and actor of `evaluate`, with 95 % intervals."""
    rows = []
    for (levels, actor), group in episodes.groupby(["levels", "actor"], sort=False):
        is_random = (episodes["levels"] == levels) & (episodes["actor"] == RANDOM)
        baseline = episodes[is_random].set_index("level")["return"]
        gain = group["return"].to_numpy() - baseline[group["level"]].to_numpy()
        means = bootstrap_means(np.stack([group["return"], gain], 1), np.arange(len(group)))
        row = {"levels": levels, "actor": actor, "num_levels": len(group)}
        for column, name in enumerate(("return", "minus_random")):
            row |= {name: means.mean[0, column], f"{name}_low": means.low[0, column]}
            row |= {f"{name}_high": means.high[0, column]}
        low, high = wilson_interval(int(group["success"].sum()), len(group))
        row |= {"success_rate": group["success"].mean(), "success_low": low, "success_high": high}
        rows.append(row | {"mean_length": group["length"].mean(), "out_of_time": group["out_of_time"].mean()})
    return pd.DataFrame(rows)
