"""Patches of a game's frame: the things of a frame that can be causes.

A frame has no things of its own, so its squares of SIDE by SIDE points take their place; what a patch shows is what is
most telling of what is on screen there (`objects`). Its absence is the same frame with the patch black. Without
backgrounds, black is empty air; to an agent that is trained with backgrounds, it is nothing that it has ever seen.
Axis letters: K frames, C choices of patches, P = 64 patches of a frame, row by row.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from generative.attribution.explanations import TILE_PX, Explanation
from generative.domains.coinrun.games import FRAME_SHAPE
from generative.domains.coinrun.objects import HAZARDS, KINDS, objects_of
from generative.recordings.format import Episode

SIDE = 8  # points
COLUMNS = FRAME_SHAPE[-1] // SIDE
NUM_PATCHES = COLUMNS**2
MIN_POINTS = 4  # of 64, with which a kind is seen in a patch: a sixth of an agent or of a saw
_BY_PRIORITY = ("saw", "enemy", "lava", "coin", "crate", "agent", "ground")  # of several in a patch, the rarest
NOTHING, AGENT = KINDS.index("nothing"), KINDS.index("agent")
HAZARD_NUMBERS = tuple(KINDS.index(name) for name in HAZARDS)


class Patch(NamedTuple):
    """A square of a frame: its column and row, from 0 at the upper left, and the number of what it shows in KINDS."""

    x: int
    y: int
    number: int

    @classmethod
    def at(cls, cell: int, number: int) -> "Patch":
        """The patch of a cell."""
        return cls(int(cell) % COLUMNS, int(cell) // COLUMNS, int(number))

    @property
    def numbers(self) -> tuple[int, ...]:
        """What a file holds: the fields."""
        return tuple(self)

    @property
    def cell(self) -> int:
        """Among the patches of a frame, row by row."""
        return self.y * COLUMNS + self.x

    @property
    def kind(self) -> str:
        """What it shows: "saw", "ground", "nothing"."""
        return KINDS[self.number]

    def __str__(self) -> str:
        """In words: "saw, column 5 row 4 of 8"."""
        return f"{self.kind}, column {self.x + 1} row {self.y + 1} of {COLUMNS}"


def episode_objects(encoding: Mapping) -> Callable[[Episode], np.ndarray]:
    """Return what finds the things on screen in a recorded episode: (T + 1, 64, 64) of KINDS.

    encoding: of the recording, with `actions`, the game's numbers of the agent's. The last episode is kept.
    """

    @functools.lru_cache(maxsize=1)
    def find(level: int, actions: tuple[int, ...]) -> np.ndarray:
        return objects_of(encoding, level, [encoding["actions"][action] for action in actions])

    return lambda episode: find(episode.seed, tuple(episode["action"][:-1].tolist()))


def find_causes(encoding: Mapping) -> Callable[[Episode, int], list[Patch]]:
    """Return what finds the patches that are not black at a step of an episode; encoding: of the recording's config."""
    objects = episode_objects(encoding)
    return lambda episode, step: patches_at(objects(episode), episode, step)


def patches_at(objects: np.ndarray, episode: Episode, step: int) -> list[Patch]:
    """The patches that are not black at a step; objects: of the whole episode, (T + 1, 64, 64)."""
    return visible_patches(episode["obs"][step], kinds_of_patches(objects[step][None])[0])


def kinds_of_patches(objects: np.ndarray) -> np.ndarray:
    """What patches show, (K, P) uint8 of KINDS, of what is at each point of frames (K, 64, 64)."""
    pieces = objects.reshape(-1, COLUMNS, SIDE, COLUMNS, SIDE)
    found = np.full((len(objects), NUM_PATCHES), NOTHING, np.uint8)
    for name in reversed(_BY_PRIORITY):
        number = KINDS.index(name)
        counts = (pieces == number).sum((2, 4)).reshape(-1, NUM_PATCHES)
        found[counts >= MIN_POINTS] = number
    return found


def visible_patches(frame: np.ndarray, kinds: np.ndarray) -> list[Patch]:
    """The patches of a frame (3, 64, 64) that are not black, given what patches show (P,)."""
    is_seen = frame.any(0).reshape(COLUMNS, SIDE, COLUMNS, SIDE).any((1, 3)).reshape(-1)
    return [Patch.at(k, kinds[k]) for k in np.flatnonzero(is_seen)]


def frames_without(frame: np.ndarray, chosen: Sequence[Sequence[Patch]]) -> np.ndarray:
    """A frame (3, 64, 64) with patches black, a copy for each of C choices of patches."""
    changed = np.repeat(np.asarray(frame)[None], len(chosen), 0)
    for copy, patches in zip(changed, chosen, strict=True):
        for patch in patches:
            top, left = patch.y * SIDE, patch.x * SIDE
            copy[:, top : top + SIDE, left : left + SIDE] = 0
    return changed


def without_each(frame: np.ndarray, patches: Sequence[Patch]) -> np.ndarray:
    """A frame (3, 64, 64) with each of C patches black, (C, 3, 64, 64)."""
    return frames_without(frame, [[patch] for patch in patches])


@dataclass(frozen=True, eq=False)
class FrameExplanation(Explanation):
    """The explanation of a step in a game. obs (K, 3, 64, 64); things (R, 3): the fields of a `Patch`; one channel."""

    width: ClassVar[int] = 3
    truly: ClassVar[str] = "hidden from the real agent in that frame alone"
    colors: ClassVar[str] = "RdBu_r"  # red, blue: games have much that is orange, and finer points
    map_in: ClassVar[float] = 5.0
    row_in: ClassVar[float] = 1.6

    def thing(self, row: int) -> Patch:
        return Patch(*self.things[row].tolist())

    @property
    def map_shape(self) -> tuple[int, int]:
        return COLUMNS, COLUMNS

    def picture(self, lag: int) -> np.ndarray:
        return self.obs[lag].transpose(1, 2, 0).repeat(TILE_PX // SIDE, 0).repeat(TILE_PX // SIDE, 1)

    @property
    def world(self) -> tuple[str, str]:
        return f"level {int(self.seed)}", f"level {int(self.seed)}"
