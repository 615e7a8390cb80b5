"""The things of one moment, which can be causes of a later one: what and where they are, and the moment without one.

Axis letters: C things, O = 152 numbers of an observation, H and W height and width of a grid.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX, STATE_TO_IDX

from generative.attribution.explanations import TILE_PX, Explanation
from generative.recordings.format import Episode
from mop.artifacts.records import array
from mop.envs.geometry import (
    DIRECTIONS,
    EMPTY,
    IMAGE_SIZE,
    VIEW_SIZE,
    code_color,
    code_kind,
    code_number,
    code_state,
)
from mop.envs.render import draw_cells, draw_view

NUM_CHANNELS = 3  # type, colour, state
OWN_CELL = (VIEW_SIZE // 2, VIEW_SIZE - 1)  # of the agent, in its view
_UNSEEN, _WALL, _DOOR = (OBJECT_TO_IDX[name] for name in ("unseen", "wall", "door"))
_TYPES, _COLORS, _STATES = (
    {number: name for name, number in table.items()} for table in (OBJECT_TO_IDX, COLOR_TO_IDX, STATE_TO_IDX)
)
_AHEAD = np.array(DIRECTIONS)  # x, y of one step ahead, by direction
_RIGHT = np.roll(_AHEAD, -1, axis=0)


class Thing(NamedTuple):
    """What one cell holds: of a view, where x is to the right and y towards the agent, or of a world's grid."""

    x: int
    y: int
    code: tuple[int, int, int]  # Minigrid's type, colour, state
    ahead: int  # cells from the agent, negative behind it
    right: int  # negative to the left
    is_carried: bool = False

    @classmethod
    def of(cls, numbers: Sequence[int]) -> "Thing":
        """The thing of `numbers`."""
        x, y, kind, color, state, ahead, right, is_carried = map(int, numbers)
        return cls(x, y, (kind, color, state), ahead, right, bool(is_carried))

    @property
    def numbers(self) -> tuple[int, ...]:
        """What a file holds: x, y, type, colour, state, ahead, right, is_carried."""
        return (self.x, self.y, *self.code, self.ahead, self.right, self.is_carried)

    @property
    def kind(self) -> str:
        """What it is, whatever its colour and place: "carried key", "locked door"."""
        name = _TYPES[self.code[0]]
        return f"{_STATES[self.code[2]]} {name}" if name == "door" else f"carried {name}" if self.is_carried else name

    def place_in_world(self, position: Sequence[int], direction: int) -> tuple[int, int]:
        """x and y in the grid, for an agent at x, y that faces `direction`."""
        x, y = np.asarray(position) + self.ahead * _AHEAD[direction] + self.right * _RIGHT[direction]
        return int(x), int(y)

    def __str__(self) -> str:
        """In words: "locked yellow door, 2 ahead 1 left"."""
        return f"{thing_name(self.code)}, {'carried' if self.is_carried else place_name(self.ahead, self.right)}"


def thing_name(code: Sequence[int]) -> str:
    """The object of Minigrid's type, colour and state: "red key", "locked yellow door"; walls without their colour."""
    kind, color, state = map(int, code)
    if kind == _WALL:
        return "wall"
    words = [_STATES[state]] if kind == _DOOR else []
    return " ".join([*words, _COLORS[color], _TYPES[kind]])


def place_name(ahead: int, right: int) -> str:
    """Where a cell is as the agent sees it: "2 ahead 1 left"."""
    words = [(ahead, "ahead"), (-ahead, "behind"), (right, "right"), (-right, "left")]
    return " ".join(f"{cells} {word}" for cells, word in words if cells > 0) or "here"


def find_causes(encoding: Mapping) -> Callable[[Episode, int], list[Thing]]:
    """Return what finds the things in view at a step of an episode; encoding: of the recording's config."""
    return lambda episode, step: things_in_view(episode["obs"][step])


def things_in_view(obs: np.ndarray) -> list[Thing]:
    """What an observation (O,) shows, of which it would be known that it is not there: neither floor nor unseen."""
    image = np.asarray(obs)[:IMAGE_SIZE].astype(int).reshape(NUM_CHANNELS, VIEW_SIZE, VIEW_SIZE)
    things = []
    for x, y in np.argwhere((image[0] != EMPTY) & (image[0] != _UNSEEN)).tolist():
        ahead, right = OWN_CELL[1] - y, x - OWN_CELL[0]
        things.append(Thing.of((x, y, *image[:, x, y], ahead, right, (x, y) == OWN_CELL)))
    return things


def views_without(obs: np.ndarray, things: Sequence[Thing]) -> np.ndarray:
    """Observations (C, O) float32 with empty floor in the place of each thing; what is carried also clears the flag."""
    changed = np.repeat(np.asarray(obs, np.float32)[None], len(things), 0)
    for row, thing in zip(changed, things, strict=True):
        row[:IMAGE_SIZE].reshape(NUM_CHANNELS, VIEW_SIZE, VIEW_SIZE)[:, thing.x, thing.y] = (EMPTY, 0, 0)
        if thing.is_carried:
            row[-1] = 0.0
    return changed


def things_in_world(codes: np.ndarray, position: Sequence[int] | np.ndarray, direction: int) -> list[Thing]:
    """What the cells of a grid (H, W) int32 of codes hold, apart from floor; the agent at x, y, facing `direction`."""
    codes = np.asarray(codes)
    things = []
    for place in np.argwhere(code_kind(codes) != EMPTY)[:, ::-1]:
        x, y = place.tolist()
        ahead, right = (int(way[direction] @ (place - position)) for way in (_AHEAD, _RIGHT))
        things.append(Thing(x, y, code_of(codes[y, x]), ahead, right))
    return things


def code_of(code: int) -> tuple[int, int, int]:
    """Type, colour and state of a cell's code of `mop.envs.geometry`."""
    return int(code_kind(code)), int(code_color(code)), int(code_state(code))


@dataclass(frozen=True, eq=False)
class WorldExplanation(Explanation):
    """The explanation of a step in BabyAI. things (R, 8): numbers of a `Thing`; channels: type, colour, state.

    What is carried is in the agent's cell.
    """

    width: ClassVar[int] = 8

    kind: np.ndarray = array("", "text")  # "view" or "world", what was varied
    mission: np.ndarray = array("", "text")
    grid: np.ndarray = array("K H W", "int")  # the world at each lag
    position: np.ndarray = array("K 2", "int")  # x and y of the agent
    carried: np.ndarray = array("K", "int")

    def thing(self, row: int) -> Thing:
        return Thing.of(self.things[row])

    def object_number(self, row: int) -> int:
        """The number of the object that a row is about, which it keeps wherever it is: of `mop.envs.geometry`."""
        lag, thing = int(self.lag[row]), self.thing(row)
        x, y = thing.place_in_world(self.position[lag], int(self.obs[lag][-5:-1].argmax()))
        return int(code_number(self.carried[lag] if thing.is_carried else self.grid[lag, y, x]))

    @property
    def map_shape(self) -> tuple[int, int]:
        """Of the view, [i, j], or of the world."""
        return (VIEW_SIZE, VIEW_SIZE) if self.kind == "view" else self.grid.shape[:0:-1]

    @property
    def world(self) -> tuple[str, str]:
        return f"“{self.mission}”", f"world {int(self.seed)}, {self.mission!s}"

    def picture(self, lag: int) -> np.ndarray:
        """The view or the world, as Minigrid draws it."""
        obs = self.obs[lag]
        if self.kind == "view":
            return draw_view(obs[:IMAGE_SIZE], TILE_PX)
        codes = self.grid[lag]
        cells = np.stack([code_kind(codes), code_color(codes), code_state(codes)], -1)
        x, y = self.position[lag].tolist()
        return draw_cells(cells, (x, y, int(obs[-5:-1].argmax())), tile_size=TILE_PX)

    def subject(self, lag: int) -> str:
        what, carried = super().subject(lag) if self.kind == "view" else "the world", int(self.carried[lag])
        return what if carried == EMPTY else f"{what}; in its hand: {thing_name(code_of(carried))}"
