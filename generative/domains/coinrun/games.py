"""Procgen's games, as envpool plays them: many levels side by side, as arrays.

envpool is no requirement of this project, and is imported when a game begins. Axis letters: N environments.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from mop.common.errors import InputError, one_line

FRAME_SHAPE = (3, 64, 64)  # of what an agent sees: colour, row, column
MODES = ("easy", "hard")
ALL_LEVELS = 0  # as a number of levels: all of procgen's
UNSEEN_LEVELS = 2**30  # the first of the levels that no training with a bounded number of levels draws
MAX_LEVEL = 2**31 - 1  # levels are below it
ACTION_NAMES = (
    *("left and down", "left", "left and jump", "down", "nothing", "jump", "right and down", "right", "right and jump"),
    *("D", "A", "W", "S", "Q", "E"),
)
NUM_ACTIONS = len(ACTION_NAMES)
JUMPS = tuple(number for number, name in enumerate(ACTION_NAMES) if name.endswith("jump"))
RIGHT = ACTION_NAMES.index("right")
RIGHT_AND_JUMP = ACTION_NAMES.index("right and jump")
_MISSING = "the games need the package envpool, which is missing here ({}); `make coinrun` installs it"
_NO_QT = "the games need the run-time of Qt 5 (Debian: apt-get install libqt5gui5), which is missing here ({})"


# game -> which of the 15 actions do anything (test_coinrun_games.py tries)
GAMES = {"coinrun": tuple(range(9)), "caveflyer": tuple(range(10))}
ACTION_SETS = ("all", "useful")


class Moment(NamedTuple):
    """What an action led to, in each of N environments."""

    frames: np.ndarray  # (N, 3, 64, 64) uint8; where the episode ended, its last frame
    reward: np.ndarray  # (N,) float32, as the game gives it
    is_terminal: np.ndarray  # (N,) bool, the game is over
    is_cut: np.ndarray  # (N,) bool, the time limit of 1000 actions is reached
    level: np.ndarray  # (N,) int64, of the frame
    is_success: np.ndarray  # (N,) bool, it is over because its goal was reached


def actions_of(env_name: str, action_set: str) -> tuple[int, ...]:
    """The game's numbers of the actions of a set: all 15, or those that do anything."""
    return GAMES[env_name] if action_set == "useful" else tuple(range(NUM_ACTIONS))


class GameEnvs:
    """N environments of a game.

    After the end of an episode, the next action is ignored and leads to a first frame.

    The same arguments and actions give the same frames, whatever the number of threads.
    """

    def __init__(
        self, env_name: str, mode: str, num_envs: int, *, num_levels: int, start_level: int, seed: int,
        num_threads: int = 1, has_backgrounds: bool = True, is_plain: bool = False,
    ):  # fmt: skip
        """num_levels: how many are drawn from, from start_level on; ALL_LEVELS: any. seed: of the draws.
        is_plain: each kind of thing is drawn as rectangles of one colour, all in one theme.
        """
        try:
            import envpool
        except ImportError as error:
            raise InputError(_MISSING.format(one_line(error))) from None
        try:
            self._pool = envpool.make_gymnasium(
                f"{env_name.capitalize()}{mode.capitalize()}-v0",
                num_envs=num_envs,
                num_threads=min(num_threads, num_envs),
                num_levels=num_levels,
                start_level=start_level,
                seed=seed % 2**31,
                use_backgrounds=has_backgrounds,
                use_monochrome_assets=is_plain,
                restrict_themes=is_plain,
            )
        except ImportError as error:
            raise InputError(_NO_QT.format(one_line(error))) from None
        self.num_envs = num_envs

    def begin(self) -> tuple[np.ndarray, np.ndarray]:
        """Begin an episode in each: the first frames (N, 3, 64, 64) uint8, and the levels (N,)."""
        frames, info = self._pool.reset()
        return frames, info["level_seed"].astype(np.int64)

    def step(self, actions: np.ndarray) -> Moment:
        """Execute actions (N,), the game's numbers."""
        frames, reward, is_terminal, is_cut, info = self._pool.step(np.asarray(actions, np.int32))
        is_success = info["prev_level_complete"].astype(bool) & is_terminal
        return Moment(frames, reward, is_terminal, is_cut, info["level_seed"].astype(np.int64), is_success)

    def close(self) -> None:
        """End them."""
        self._pool.close()


def begin_level(world: Mapping, level: int, is_plain: bool = False) -> GameEnvs:
    """One environment, in one level.

    world: `env_name`, `distribution_mode`, `use_backgrounds`, as in the config of an agent; is_plain: drawn as
    `GameEnvs` says, without backgrounds.
    """
    return GameEnvs(
        world["env_name"], world["distribution_mode"], 1, num_levels=1, start_level=level, seed=0,
        has_backgrounds=world["use_backgrounds"] and not is_plain, is_plain=is_plain,
    )  # fmt: skip


def check_playable(env_name: str, mode: str) -> None:
    """Check that envpool, and the Qt that it needs, are there."""
    GameEnvs(env_name, mode, 1, num_levels=1, start_level=0, seed=0).close()
