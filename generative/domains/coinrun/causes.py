"""Patches of a game's frame: the things of a frame that can be causes.

A frame has no things of its own, so its squares of SIDE by SIDE points take their place; what a patch shows is what is
most telling of what is on screen there (`objects`). Its absence is the same frame with the patch black. Without
backgrounds, black is empty air; to an agent that is trained with backgrounds, it is nothing that it has ever seen.
Axis letters: K frames, C choices of patches, P = 64 patches of a frame, row by row.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from generative.attribution.explanations import Explanation
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

    @property
    def numbers(self) -> tuple[int, ...]:
        """What a file holds: the fields."""
        return tuple(self)

    @property
    def index(self) -> int:
        """Among the patches of a frame, row by row."""
        return self.y * COLUMNS + self.x

    @property
    def kind(self) -> str:
        """What it shows: "saw", "ground", "nothing"."""
        return KINDS[self.number]

    def __str__(self) -> str:
        """In words: "saw, column 5 row 4 of 8"."""
        return f"{self.kind}, column {self.x + 1} row {self.y + 1} of {COLUMNS}"


class EpisodeObjects:
    """What is on screen in the recorded episodes of a game, (T + 1, 64, 64) of KINDS; the last episode is kept."""

    def __init__(self, encoding: Mapping):
        """encoding: of the recording, with `actions`, the game's numbers of the agent's."""
        self._encoding = encoding
        self._key = None
        self._objects = None

    def __call__(self, episode: Episode) -> np.ndarray:
        actions = episode["action"][:-1].astype(int).tolist()
        if self._key != (episode.seed, actions):
            self._key = episode.seed, actions
            numbers = [self._encoding["actions"][action] for action in actions]
            self._objects = objects_of(self._encoding, episode.seed, numbers)
        return self._objects


def find_causes(encoding: Mapping) -> Callable[[Episode, int], list[Patch]]:
    """Return what finds the patches that are not black at a step of an episode; encoding: of the recording's config."""
    objects = EpisodeObjects(encoding)
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
    return [Patch(int(k) % COLUMNS, int(k) // COLUMNS, int(kinds[k])) for k in np.flatnonzero(is_seen)]


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

    def thing(self, row: int) -> Patch:
        return Patch(*self.things[row].tolist())

    @property
    def map_shape(self) -> tuple[int, int]:
        return COLUMNS, COLUMNS

    @property
    def world(self) -> tuple[str, str]:
        return (f"level {int(self.seed)}",) * 2
