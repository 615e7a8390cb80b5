"""Why a target was what it was at a step of an episode: the attribution of every thing at every earlier step, by path.

The attribution of a thing is what it contributes: minus the predicted effect of its absence. NumPy alone
once it is made; a file holds it with what is needed to draw it.
Axis letters: R causes (a thing at a lag), P = 4 paths, K lags, H, W sides of the grid.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar

import numpy as np

from generative.domains.babyai.causes import PATHS, Thing, code_of, thing_name
from generative.domains.coinrun.causes import COLUMNS, Patch
from mop.common.errors import InputError
from mop.common.files import write_atomic
from mop.fast.grid import EMPTY, VIEW_SIZE


@dataclass(frozen=True, eq=False)
class Explanation:
    """The causes of a target at step t of an episode, whatever the world. Rows of causes come by lag, from 0 on."""

    episode: np.ndarray  # () int
    seed: np.ndarray  # () int, of the world
    step: np.ndarray  # () int, t
    target: np.ndarray  # () text
    value: np.ndarray  # () float, the target as it was recorded
    simulated: np.ndarray  # (K,) the target at t in the simulator, from each lag on
    obs: np.ndarray  # (K, ...) uint8, the observation at each lag
    lag: np.ndarray  # (R,) int
    things: np.ndarray  # (R, ...) int, the fields of the cause
    attribution: np.ndarray  # (R, P, channels) float32, by path and channel
    gap: np.ndarray  # (R,) float32: what completeness lacks, simulated minus predicted effect of its absence
    contribution: np.ndarray  # (R, 2) the truth, where it can be had, else NaN: minus the change of the target in its
    # absence, with the policy acting, and with the recorded actions

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

    def thing(self, row: int) -> Thing | Patch:
        """What a cause is."""
        raise NotImplementedError

    def maps(self, path: int | None, lag: int) -> np.ndarray:
        """Attribution in each place [x, y], along one path or all."""
        values, rows = np.zeros(self.map_shape, np.float32), self.lag == lag
        amounts = self.total[rows] if path is None else self.by_path[rows, path]
        np.add.at(values, tuple(self.things[rows, :2].T), amounts)
        return values

    @property
    def map_shape(self) -> tuple[int, int]:
        """The number of places along x and y."""
        raise NotImplementedError

    @property
    def world(self) -> tuple[str, str]:
        """Which world it is of, in words: shortly, and for a headline."""
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
            when = "at this step" if lag == 0 else f"{lag} step{'s' * (lag > 1)} earlier"
            how = "through memory {memory} / world {world} / both {mixed}" if lag else "direct {direct}"
            acting, forced = self.contribution[row]
            truth = "" if np.isnan(forced) else f"; {self.truly} {forced:+.{digits}f}"
            truth += (
                "" if np.isnan(acting) or lag == 0 else f", {acting:+.{digits}f} where the policy acts on what it sees"
            )
            yield f"{when}: {self.thing(row)}, {total:+.{digits}f}, {how.format(**amounts)}{truth}"

    def rows(self) -> list[dict]:
        """A row of a table for each cause."""
        place = {
            "episode": int(self.episode),
            "step": int(self.step),
            "target": str(self.target),
            "value": float(self.value),
        }
        return [
            place
            | {"lag": int(self.lag[row]), "cause": str(self.thing(row)), "total": float(self.total[row])}
            | dict(self.paths_of(row))
            | {"gap": float(self.gap[row]), "kind": self.thing(row).kind}
            | dict(zip(("true_acting", "true_forced"), self.contribution[row].tolist(), strict=True))
            for row in range(len(self.lag))
        ]

    def write(self, path: Path) -> None:
        """Write a file that `load_explanation` reads."""
        arrays = {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}
        write_atomic(path, lambda file: np.savez_compressed(file, **arrays))


@dataclass(frozen=True, eq=False)
class WorldExplanation(Explanation):
    """Of a world of BabyAI. things (R, 8): x, y, type, colour, state, ahead, right, is_carried; channels: those three.

    What is carried is in the agent's cell.
    """

    kind: np.ndarray  # () text: "view" or "world", what was varied
    mission: np.ndarray  # () text
    grid: np.ndarray  # (K, H, W) int32, the world at each lag
    position: np.ndarray  # (K, 2) int16, x and y of the agent
    carried: np.ndarray  # (K,) int32

    def thing(self, row: int) -> Thing:
        x, y, *code, ahead, right, is_carried = self.things[row].tolist()
        return Thing(x, y, tuple(code), ahead, right, bool(is_carried))

    @property
    def map_shape(self) -> tuple[int, int]:
        """Of the view, [i, j], or of the world."""
        return (VIEW_SIZE, VIEW_SIZE) if self.kind == "view" else self.grid.shape[:0:-1]

    @property
    def world(self) -> tuple[str, str]:
        return f"“{self.mission}”", f"world {int(self.seed)}, {self.mission!s}"

    def subject(self, lag: int) -> str:
        what, carried = super().subject(lag) if self.kind == "view" else "the world", int(self.carried[lag])
        return what if carried == EMPTY else f"{what}; in its hand: {thing_name(code_of(carried))}"


@dataclass(frozen=True, eq=False)
class FrameExplanation(Explanation):
    """Of a game. obs (K, 3, 64, 64); things (R, 3): the fields of a `Patch`; one channel."""

    truly: ClassVar[str] = "hidden from the real agent in that frame alone"

    def thing(self, row: int) -> Patch:
        return Patch(*self.things[row].tolist())

    @property
    def map_shape(self) -> tuple[int, int]:
        return COLUMNS, COLUMNS

    @property
    def world(self) -> tuple[str, str]:
        return (f"level {int(self.seed)}",) * 2


def load_explanation(path: str | Path) -> Explanation:
    """The explanation in a file. Raises InputError where it holds none."""
    try:
        with np.load(path, allow_pickle=False) as file:
            kind = WorldExplanation if "grid" in file else FrameExplanation
            return kind(**{field.name: file[field.name] for field in fields(kind)})
    except Exception as error:  # a damaged archive raises nearly anything
        raise InputError(f"{path} is no file of generative.saliency ({type(error).__name__}); make it anew") from None


def digits_of(value: float, significant: int = 3) -> int:
    """How many digits after the point show so many of a number; none where it has enough before it."""
    return max(0, significant - 1 - math.floor(math.log10(abs(value)))) if value and math.isfinite(value) else 0


def short_number(value: float, significant: int = 3, sign: str = "") -> str:
    """A number with so many significant digits, or all those before the point; sign: "+" to show that of all."""
    return f"{value:{sign}.{digits_of(value, significant)}f}"
