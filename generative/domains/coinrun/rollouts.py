"""Runs of an agent in levels of CoinRun with its memory moved, and what is counted in them.

Axis letters: N levels side by side, W levels, T actions of an episode, S hidden units.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from torch import Tensor

from generative.agents.level_play import AgentActor, LevelEpisode, Levels, play_levels
from generative.domains.base import Answer
from generative.domains.coinrun.games import ACTION_NAMES, JUMPS, MAX_LEVEL, UNSEEN_LEVELS, check_playable
from generative.domains.coinrun.labels import CRATE, ENEMY, LAVA, ON_GROUND, SAW, labels_of, touches
from generative.domains.coinrun.objects import ENV_NAME, objects_of
from generative.domains.coinrun.policy import FrozenAgent
from generative.representations.steering import ArenaSettings, Measure, Move, Played, Ratio, Table, compare_ratios
from mop.common.errors import InputError

RATES = ("success", "touched", "fell", "out of time")  # shares of the levels
AT = {"at a saw": SAW, "at an enemy": ENEMY, "at lava": LAVA, "at a crate": CRATE}  # where it jumps: what is ahead
PLACES = (*AT, "elsewhere")
MAIN = (
    *("success", "return", "steps", "jumps", "jumps at a saw", "jumps at a crate", "jumps elsewhere"),
    *("touched", "fell", "out of time", "moved"),
)


class GameArena:
    """The `steering.Arena` of an agent in levels that no training with a bounded number of levels draws."""

    main = MAIN

    def __init__(self, agent: FrozenAgent, config: Mapping, settings: ArenaSettings):
        """config: of the agent's checkpoint.

        Levels are counted from UNSEEN_LEVELS; each has a stream of its own for sampled actions, so that all runs share
        the noise.
        """
        world = config["world"]
        if world["env_name"] != ENV_NAME:
            raise InputError(f"what happens can be counted in {ENV_NAME} alone, not in {world['env_name']}")
        first = UNSEEN_LEVELS + settings.eval_seed
        if first + settings.num_worlds - 1 > MAX_LEVEL:
            raise InputError(f"--eval_seed and --num_worlds must be below {MAX_LEVEL - UNSEEN_LEVELS} together")
        check_playable(world["env_name"], world["distribution_mode"])
        self._agent = agent.agent
        self._world = world
        self._levels = range(first, first + settings.num_worlds)
        self._how = settings
        self.num_worlds = settings.num_worlds
        self.settings = {"policy": settings.policy or "argmax", "max_steps": settings.max_steps}
        self.words = f"{ENV_NAME}, {world['distribution_mode']}, {self.num_worlds} unseen levels"

    def play(self, move: Move | None, progress: Callable[[int], object]) -> Played:
        how = self._how
        actor, mover = AgentActor(self._agent, how.policy == "sampled", how.seed), _Mover(move, self._levels.start)
        limits = {"max_steps": how.max_steps, "on_episode": lambda: progress(1)}
        episodes = play_levels(self._world, self._levels, actor, how.num_envs, mover, **limits)
        amounts = mover.amounts(len(episodes), max(len(episode.actions) for episode in episodes))
        numbers = self._agent.actions.tolist()
        rows = [count_episode(self._world, episode, numbers) for episode in episodes]
        table = {name: np.array([row[name] for row in rows], np.float64) for name in rows[0]}
        table["moved"] = np.abs(amounts).sum(1) * (0.0 if move is None else float(move.way.norm()))
        return Played(table, amounts)

    def measures(self, plain: Table, moved: Table) -> list[Measure]:
        return measures_of(plain, moved)


class _Mover:
    """Moves the hidden state after each step of a `rollout`, and notes by how much."""

    def __init__(self, move: Move | None, first_level: int):
        self._move, self._first_level, self._moved = move, first_level, []

    def __call__(self, envs: Levels, hidden: Tensor, answer: Answer) -> Tensor:
        if self._move is None:
            return answer.hidden
        state = {"episode": envs.levels - self._first_level, "t_step": np.full(len(hidden), envs.t_step)}
        amounts = self._move.amounts(hidden, answer.hidden, state)
        self._moved.append([column[envs.active] for column in (*state.values(), amounts.numpy())])
        return answer.hidden + amounts[:, None] * self._move.way

    def amounts(self, num_levels: int, num_steps: int) -> np.ndarray:
        """Those of W levels and T steps, (W, T) float32; 0 behind the end, and where nothing is moved."""
        found = np.zeros((num_levels, num_steps), np.float32)
        for episode, t_step, amounts in self._moved:
            found[episode, t_step] = amounts
        return found


# --- what is counted --------------------------------------------------------------------------------------------------


def count_episode(world: Mapping, episode: LevelEpisode, actions: Sequence[int]) -> dict[str, float]:
    """The row of a table of an episode: how it ended, jumps and where, how often each of the agent's actions was taken.

    jumps: actions with a jump while the agent is on the ground; at a saw: where one is ahead (`labels.labels_of`);
    elsewhere: where no saw, enemy, lava or crate is. stands: steps on the ground at such a place. touched, fell: it
    died, and a saw or an enemy, or else lava, is at it in the last frame.
    """
    objects = objects_of(world, episode.level, episode.actions)
    labels = {name: values[:-1] > 0 for name, values in labels_of(objects).items()}  # of what each action was chosen by
    has_died = not (episode.is_success or episode.is_cut)
    is_touched, is_in_lava = (bool(touches(objects[-1:], kinds)[0]) for kinds in (["saw", "enemy"], ["lava"]))
    row: dict[str, float] = {"seed": episode.level, "success": episode.is_success, "steps": len(episode.actions)}
    row |= {"return": episode.reward, "touched": has_died and is_touched}
    row |= {"fell": has_died and is_in_lava and not is_touched, "out of time": episode.is_cut}
    is_standing, is_jump = labels[ON_GROUND], np.isin(episode.actions, JUMPS)
    row["jumps"] = (is_jump & is_standing).sum()
    places = {place: labels[ahead] for place, ahead in AT.items()}
    places["elsewhere"] = ~np.logical_or.reduce(list(places.values()))
    for place, is_there in places.items():
        row |= {f"stands {place}": (is_standing & is_there).sum()}
        row |= {f"jumps {place}": (is_standing & is_there & is_jump).sum()}
    return row | {f"action: {ACTION_NAMES[number]}": (episode.actions == number).sum() for number in actions}


def measures_of(plain: Table, moved: Table) -> list[Measure]:
    """All measures of two runs in the same levels: those of MAIN, then jumps at other places, then actions.

    Per episode: success, return, steps, and how it ended. Per step: jumps, actions, and moved, how far the memory is
    moved: no effect, but a check. jumps at a place: share of the steps on the ground there.
    """
    return compare_ratios(_ratios(plain), _ratios(moved), MAIN, RATES)


def _ratios(table: Table) -> dict[str, Ratio]:
    each, actions = np.ones(len(table["seed"])), [name for name in table if name.startswith("action: ")]
    ratios = {name: (table[name], each) for name in (*RATES, "return", "steps")}
    ratios |= {f"jumps {place}": (table[f"jumps {place}"], table[f"stands {place}"]) for place in PLACES}
    return ratios | {name: (table[name], table["steps"]) for name in ("jumps", "moved", *actions)}
