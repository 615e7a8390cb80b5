"""What is around the agent in frames of CoinRun: the labels that probes of its memory are to find, and how it ends.

The picture moves with the agent, which is always drawn at AGENT_ROWS and AGENT_COLUMNS, and a tile is about 5 points
wide. Axis letter: M frames, each as `objects.objects_of` has it.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from generative.domains.coinrun.games import check_playable
from generative.domains.coinrun.objects import ENV_NAME, KINDS, objects_of

AGENT_ROWS, AGENT_COLUMNS = slice(29, 35), slice(30, 34)
AHEAD = 20  # points to the right of the agent: four tiles, what a jump takes
BESIDE = 15  # points above its head and below its feet
SAW, ENEMY, LAVA, CRATE = "saw ahead", "enemy ahead", "lava ahead", "crate ahead"
COIN, ON_GROUND = "coin in view", "on the ground"
PROPERTIES = (SAW, ENEMY, LAVA, CRATE, COIN, ON_GROUND)
_IN_FRONT = (
    slice(AGENT_ROWS.start - BESIDE, AGENT_ROWS.stop + BESIDE),
    slice(AGENT_COLUMNS.stop, AGENT_COLUMNS.stop + AHEAD),
)
_BELOW = slice(AGENT_ROWS.stop, AGENT_ROWS.stop + 1), AGENT_COLUMNS
_AROUND = (slice(AGENT_ROWS.start - 1, AGENT_ROWS.stop + 1), slice(AGENT_COLUMNS.start - 1, AGENT_COLUMNS.stop + 1))


def labeller(encoding: Mapping) -> Callable[..., dict[str, np.ndarray]]:
    """Return what labels an episode of a recording; encoding: of the recording's config. No labels but of CoinRun."""
    if encoding["env_name"] != ENV_NAME:
        return lambda episode: {}
    check_playable(encoding["env_name"], encoding["distribution_mode"])  # before a bar of progress is drawn
    numbers = np.array(encoding["actions"])
    return lambda episode: labels_of(objects_of(encoding, episode.seed, numbers[episode["action"][:-1]]))


def labels_of(objects: np.ndarray) -> dict[str, np.ndarray]:
    """Whether each of PROPERTIES is true of frames (M, 64, 64), (M,) int8.

    saw, enemy, lava, crate ahead: a point of it is at most AHEAD points to the right of the agent, and at most BESIDE
    points above or below it; coin in view: anywhere in the frame; on the ground: ground or a crate is right below a
    point of the agent, so what is not is in the air.
    """
    labels = {f"{kind} ahead": _shows(objects, _IN_FRONT, [kind]) for kind in ("saw", "enemy", "lava", "crate")}
    labels[COIN] = _shows(objects, (slice(None), slice(None)), ["coin"])
    labels[ON_GROUND] = _shows(objects, _BELOW, ["ground", "crate"])
    return {name: is_true.astype(np.int8) for name, is_true in labels.items()}


def touches(objects: np.ndarray, kinds: Sequence[str]) -> np.ndarray:
    """Whether things of some of KINDS are at the agent, or right next to it, in frames (M, 64, 64): (M,) bool."""
    return _shows(objects, _AROUND, kinds)


def _shows(objects: np.ndarray, place: tuple[slice, slice], kinds: Sequence[str]) -> np.ndarray:
    """Whether a point of a place in frames (M, 64, 64) is of some of KINDS: (M,) bool."""
    return np.asarray(np.isin(objects[:, place[0], place[1]], [KINDS.index(kind) for kind in kinds]).any((1, 2)))
