"""Levels of a game played once each: by an agent, or by a baseline that does not look at the frames.

An episode is its level and its actor: up to rounding, it does not depend on the levels played side by side. Axis
letters: N levels, T actions of an episode.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from generative.agents.networks import GameAgent
from generative.domains.base import Answer
from generative.domains.coinrun.games import (
    ALL_LEVELS,
    NUM_ACTIONS,
    RIGHT_AND_JUMP,
    UNSEEN_LEVELS,
    Moment,
    begin_level,
)
from mop.common.seeding import stream_seed
from mop.evaluation.rollout import Modify, rollout
from mop.statistics.bootstrap import bootstrap_means
from mop.statistics.intervals import wilson_interval

NUM_AT_ONCE = 64
RANDOM = "random"


# --- levels and actors ------------------------------------------------------------------------------------------------


class Levels:
    """N levels side by side, as environments for `rollout`: an episode of each."""

    def __init__(
        self, world: Mapping, levels: Sequence[int], actions: np.ndarray, seed: int = 0, *,
        max_steps: int | None = None, keeps_frames: bool = False, on_episode: Callable[[], object] = lambda: None,
    ):  # fmt: skip
        """Begin the levels.

        world: `env_name`, `distribution_mode`, `use_backgrounds` of an agent's config; actions (A,): what the numbers
        given to `step` are in the game; seed: of a random stream for each level; max_steps: actions until an episode
        is cut short, None for the game's limit; on_episode: called after each.
        """
        self.levels = np.array(levels)
        self.rngs = [np.random.default_rng((seed, level)) for level in levels]
        self._games = [begin_level(world, level) for level in levels]
        self.obs = np.concatenate([game.begin()[0] for game in self._games])
        self.active = np.ones(len(levels), bool)
        self.t_step = 0
        self.frames = [[frame.copy()] for frame in self.obs]  # of each level, the first or all
        self.moments: list[list[Moment]] = [[] for _ in levels]  # of each level, without frames
        self._actions, self._max_steps = actions, max_steps
        self._keeps_frames, self._on_episode = keeps_frames, on_episode

    def step(self, actions: np.ndarray) -> np.ndarray:
        self.t_step += 1
        for slot in np.flatnonzero(self.active).tolist():
            moment = self._games[slot].step(self._actions[actions[slot : slot + 1]])
            self.obs[slot] = moment.frames[0]
            if self._keeps_frames:
                self.frames[slot].append(moment.frames[0].copy())
            is_cut = ~moment.is_terminal & (moment.is_cut | (self.t_step == self._max_steps))
            self.moments[slot].append(moment._replace(frames=moment.frames[:0], is_cut=is_cut))
            if moment.is_terminal[0] or is_cut[0]:
                self.active[slot] = False
                self._games[slot].close()
                self._on_episode()
        return np.zeros(len(actions), bool)


class AgentActor:
    """An agent that samples its actions, or takes the likeliest, as `rollout` asks it."""

    def __init__(self, agent: GameAgent, is_sampled: bool, seed: int = 0):
        """seed: of the samples; each level has a stream of its own."""
        self.actions, self.seed = agent.actions.numpy(), stream_seed(seed, "actions in levels")
        self.initial_hidden = agent.initial_hidden
        self._agent, self._is_sampled = agent, is_sampled

    def __call__(self, envs: Levels, hidden: Tensor) -> Answer:
        return self._agent.step(torch.from_numpy(envs.obs), hidden)

    def choose(self, envs: Levels, answer: Answer) -> np.ndarray:
        """Choose an action in each level, numbered as the logits are."""
        log_probs = answer.logits.log_softmax(-1).numpy()
        noise = 0.0
        if self._is_sampled:  # the Gumbel-max trick
            noise = np.stack([rng.gumbel(size=log_probs.shape[1]) for rng in envs.rngs])
        return (log_probs + noise).argmax(-1)


class BlindActor:
    """Some of the game's actions, equally often, whatever the frames show."""

    def __init__(self, actions: Sequence[int], seed: int = 0):
        self.actions, self.seed = np.array(actions), stream_seed(seed, "random actions in levels")

    def initial_hidden(self, num_envs: int) -> Tensor:
        return torch.zeros(num_envs, 0)

    def __call__(self, envs: Levels, hidden: Tensor) -> Answer:
        return Answer(torch.zeros(len(hidden), len(self.actions)), [], hidden, torch.full((len(hidden),), torch.nan))

    def choose(self, envs: Levels, answer: Answer) -> np.ndarray:
        return np.array([rng.integers(len(self.actions)) for rng in envs.rngs])


# --- episodes ---------------------------------------------------------------------------------------------------------


class LevelEpisode(NamedTuple):
    """One level from its beginning to its end."""

    level: int
    actions: np.ndarray  # (T,) int, the game's numbers
    probabilities: np.ndarray  # (T,) float, of these actions
    values: np.ndarray  # (T,) float, expected return; NaN for an actor without one
    reward: float  # the sum
    is_success: bool
    is_cut: bool  # a time limit ended it, the game's or `max_steps`
    frames: np.ndarray  # (T + 1, 3, 64, 64) uint8 where they are kept, else the first


def play_levels(
    world: Mapping,
    levels: Sequence[int],
    actor: AgentActor | BlindActor,
    num_at_once: int = NUM_AT_ONCE,
    modify: Modify | None = None,
    **how: Any,
) -> list[LevelEpisode]:
    """Play an episode of each level, in their order.

    num_at_once: levels side by side; modify: of `rollout`; how: max_steps, keeps_frames, on_episode of `Levels`.
    """
    episodes: list[LevelEpisode] = []
    for first in range(0, len(levels), num_at_once):
        envs, chosen = Levels(world, levels[first : first + num_at_once], actor.actions, actor.seed, **how), []
        hidden = actor.initial_hidden(len(envs.levels))
        for _, answer, action in rollout(actor, envs, hidden, choose=actor.choose, modify=modify):
            chosen.append((torch.from_numpy(action), answer.logits, answer.value))
        action, logits, value = (torch.stack(parts, 1) for parts in zip(*chosen, strict=True))  # (N, T), (N, T, A)
        probability = logits.softmax(-1).gather(-1, action[..., None])[..., 0]
        columns = actor.actions[action.numpy()], probability.numpy(), value.numpy()
        for slot, moments in enumerate(envs.moments):
            total, end = np.sum([moment.reward[0] for moment in moments]), moments[-1]
            outcome = float(total), bool(end.is_success[0]), bool(end.is_cut[0])
            of_level = [column[slot, : len(moments)] for column in columns]
            episodes.append(LevelEpisode(int(envs.levels[slot]), *of_level, *outcome, np.stack(envs.frames[slot])))
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
    actors: dict[str, AgentActor | BlindActor] = {
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
