"""Why a target was what it was at a step of an episode: the attribution of every thing at every earlier step, by path.

The attribution of a thing is what it contributes: minus the predicted effect of its absence. NumPy alone; a file holds
an explanation with what is needed to draw it. Each domain has a class of its own.
Axis letters: R causes (a thing at a lag), P = 4 paths, K lags, H, W sides of the grid.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mop.artifacts.records import array, read_record
from mop.common.errors import InputError

TILE_PX = 32  # a place of a picture
PATHS = ("direct", "memory", "world", "mixed")  # along which a cause has its effect, see `integrated_gradients`


@dataclass(frozen=True, eq=False)
class Explanation:
    """The causes of a target at step t of an episode, whatever the world. Rows of causes come by lag, from 0 on."""

    episode: np.ndarray = array("", "int")
    seed: np.ndarray = array("", "int")  # of the world
    step: np.ndarray = array("", "int")  # t
    target: np.ndarray = array("", "text")
    value: np.ndarray = array("", "float")  # the target as it was recorded
    simulated: np.ndarray = array("K", "float")  # the target at t in the simulator, from each lag on
    obs: np.ndarray = array("K ...", "int")  # the observation at each lag
    lag: np.ndarray = array("R", "int")
    things: np.ndarray = array("R ...", "int")  # the fields of the cause
    attribution: np.ndarray = array("R 4 C", "float")  # by path and channel
    gap: np.ndarray = array("R", "float")  # what completeness lacks: simulated minus predicted effect of its absence
    contribution: np.ndarray = array("R 2", "float or nan")  # the truth, where it can be had: minus the change of the
    # target in the cause's absence, with the policy acting, and with the recorded actions

    width: ClassVar[int] = 2  # of `things`
    colors: ClassVar[str] = "PuOr_r"  # orange raises the target, purple lowers it
    map_in: ClassVar[float] = 3.2  # the height of a map, in inches
    row_in: ClassVar[float] = 1.35  # and of a row of a strip
    truly: ClassVar[str] = "truly"  # before the truth of the recorded actions, in a sentence

    @property
    def by_path(self) -> np.ndarray:
        """(R, P): the attribution of each cause along each path."""
        return self.attribution.sum(2)

    @property
    def total(self) -> np.ndarray:
        """(R,): the attribution of each cause."""
        return self.attribution.sum((1, 2))

    def paths_of(self, row: int) -> Iterator[tuple[str, float]]:
        """The attribution of a cause along each path."""
        return zip(PATHS, self.by_path[row].tolist(), strict=True)

    def thing(self, row: int) -> Any:
        """A cause, as the domain has it: with `kind`, what it is whatever its place, and `numbers`, x and y first."""
        return tuple(self.things[row].tolist())

    def maps(self, path: int | None, lag: int) -> np.ndarray:
        """Attribution in each place [x, y], along one path or all."""
        values, rows = np.zeros(self.map_shape, np.float32), self.lag == lag
        amounts = self.total[rows] if path is None else self.by_path[rows, path]
        np.add.at(values, tuple(self.things[rows, :2].T), amounts)
        return values

    @property
    def map_shape(self) -> tuple[int, int]:
        """The number of places along x and y."""
        return tuple((self.things[:, :2].max(0, initial=0) + 1).tolist())

    @property
    def world(self) -> tuple[str, str]:
        """Which world it is of, in words: shortly, and for a headline."""
        return f"world {int(self.seed)}", f"world {int(self.seed)}"

    def picture(self, lag: int) -> np.ndarray:
        """The varied input at a lag, (height, width, 3) uint8, TILE_PX for a place."""
        raise NotImplementedError

    def subject(self, lag: int) -> str:
        """What a picture at a lag shows."""
        return "what the agent saw"

    def top(self, number: int) -> np.ndarray:
        """The rows of the causes with the largest attribution, whatever its sign; not those that have none."""
        order = np.argsort(-np.abs(self.total), kind="stable")[:number]
        return order[self.total[order] != 0]

    def sentences(self, number: int) -> Iterator[str]:
        """The largest causes in words."""
        for row in self.top(number):
            lag, total = int(self.lag[row]), float(self.total[row])
            digits = digits_of(total)
            amounts = {path: f"{round(value, digits) + 0.0:+.{digits}f}" for path, value in self.paths_of(row)}
            how = "through memory {memory} / world {world} / both {mixed}" if lag else "direct {direct}"
            acting, forced = self.contribution[row]
            truth = "" if np.isnan(forced) else f"; {self.truly} {forced:+.{digits}f}"
            truth += (
                "" if np.isnan(acting) or lag == 0 else f", {acting:+.{digits}f} where the policy acts on what it sees"
            )
            yield f"{when(lag)}: {self.thing(row)}, {total:+.{digits}f}, {how.format(**amounts)}{truth}"

    def rows(self) -> list[dict]:
        """A row of a table for each cause."""
        place: dict[str, Any] = {"episode": int(self.episode), "step": int(self.step)}
        place |= {"target": str(self.target), "value": float(self.value)}
        return [
            place
            | {"lag": int(self.lag[row]), "cause": str(self.thing(row)), "total": float(self.total[row])}
            | dict(self.paths_of(row))
            | {"gap": float(self.gap[row]), "kind": str(getattr(self.thing(row), "kind", ""))}
            | dict(zip(("true_acting", "true_forced"), self.contribution[row].tolist(), strict=True))
            for row in range(len(self.lag))
        ]

    @classmethod
    def load(cls, path: str | Path) -> "Explanation":
        """Read the explanation in a file of `write_record`."""
        found = read_record(path, cls, kind="file of generative.saliency")
        if found.things.shape[1:] != (cls.width,) or not np.isin(found.lag, np.arange(len(found.obs))).all():
            raise InputError(f"{path}: its causes are not of these worlds; make it anew, or remove it")
        return found


def when(lag: int) -> str:
    """A lag in words."""
    return "at this step" if lag == 0 else f"{lag} step{'s' * (lag > 1)} earlier"


def digits_of(value: float, significant: int = 3) -> int:
    """How many digits after the point show so many of a number; none where it has enough before it."""
    return max(0, significant - 1 - math.floor(math.log10(abs(value)))) if value and math.isfinite(value) else 0


def short_number(value: float, significant: int = 3, sign: str = "") -> str:
    """A number with so many significant digits, or all those before the point; sign: "+" to show that of all."""
    return f"{value:{sign}.{digits_of(value, significant)}f}"
