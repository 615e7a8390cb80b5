"""What is on screen in CoinRun, point by point: labels for probes, measures and pictures; no agent sees them.

envpool can draw a game with every kind of thing in one colour, and in one theme. A level that is played again so, with
the same actions, is the same but for its colours (tests/generative/domains/test_coinrun_objects.py).
Axis letter: T actions.
"""

from collections.abc import Mapping, Sequence
from contextlib import closing

import numpy as np

from generative.domains.coinrun.games import FRAME_SHAPE, begin_level
from mop.common.errors import InputError

KINDS = ("nothing", "agent", "ground", "crate", "saw", "enemy", "lava", "coin")
HAZARDS = ("saw", "enemy", "lava")  # what ends an episode without success
ENV_NAME = "coinrun"  # the only game whose colours are known
_COLORS = {  # red, green, blue
    "nothing": ((0, 0, 0), (63, 255, 63)),  # air; the trail of an enemy
    "agent": ((255, 191, 127), (127, 127, 191), (127, 255, 127)),  # at rest, in the air, walking
    "ground": ((127, 63, 63), (191, 255, 127)),  # within, and its surface
    "crate": ((191, 63, 127),),
    "saw": ((127, 127, 255), (255, 127, 63)),  # its two pictures
    "enemy": ((63, 191, 255), (191, 191, 63)),
    "lava": ((191, 127, 255), (63, 191, 191)),
    "coin": ((255, 191, 191),),
}


def objects_of(world: Mapping, level: int, actions: Sequence[int] | np.ndarray) -> np.ndarray:
    """What is at each point of the frames of an episode: (T + 1, 64, 64) uint8, numbers into KINDS.

    world: as in the config of an agent; actions: the game's numbers, from the beginning of the level.
    """
    if world["env_name"] != ENV_NAME:
        raise InputError(f"what is on screen is known of {ENV_NAME} alone, not of {world['env_name']}")
    with closing(begin_level(world, level, is_plain=True)) as game:
        frames = np.empty((len(actions) + 1, *FRAME_SHAPE), np.uint8)
        frames[0] = game.begin()[0][0]
        for t, action in enumerate(actions, 1):
            moment = game.step(np.array([action]))
            frames[t] = moment.frames[0]
            if (moment.is_terminal[0] or moment.is_cut[0]) and t < len(actions):
                raise InputError(f"level {level} ends after {t} of {len(actions)} actions: they were not done there")
    return kinds_of(frames)


def kinds_of(frames: np.ndarray) -> np.ndarray:
    """Numbers into KINDS (..., 64, 64) uint8 of the colours of frames (..., 3, 64, 64).

    Raises ValueError for a colour that no thing has.
    """
    table = np.full(5**3, len(KINDS), np.uint8)
    for number, kind in enumerate(KINDS):
        for color in _COLORS[kind]:
            table[_code(np.array(color, np.uint8), 0)] = number
    found = table[_code(frames, -3)]
    if (found == len(KINDS)).any():
        raise ValueError("there is a colour that is of no kind of thing")
    return found


def _code(colors: np.ndarray, axis: int) -> np.ndarray:
    """A number for each colour; envpool's are of 0, 63, 127, 191 and 255."""
    red, green, blue = np.moveaxis((colors.astype(np.uint16) + 1) // 64, axis, 0)
    return (red * 5 + green) * 5 + blue
