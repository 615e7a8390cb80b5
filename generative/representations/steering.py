"""Steering: move a policy's hidden state along directions while it acts in real worlds, and measure the effects.

Each domain has an `Arena` that plays the episodes and counts what happens (`rollouts.py` in domains/babyai, coinrun).

After each step of the policy, its new hidden state h becomes h + a u, with an amount a in each world that is read from
the hidden state; w and c(h) = w . (h - mean) are the dual and the coordinate of a direction
(`generative.representations.storage`):

    swap    a = w_from . (h - h before the step)         u = u_to - u_from      the step's addition goes elsewhere
    null    a = -c(h)                                    u                      the coordinate is the one of the mean
    clamp   a = value - c(h)                             u                      the coordinate is a value
    add     a = value                                    u
    random  a of that run, world and step by step        random, as long        the control

The action of the step is chosen before, so a move acts from the next step on. Axis letters: N environments, W worlds,
T steps, S hidden units, R random directions.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from generative.representations.storage import Directions, random_unit
from mop.artifacts.records import check_arrays
from mop.common.cli import setting
from mop.common.errors import InputError
from mop.common.files import save_array, write_together
from mop.common.reading import read_array, read_csv, reading
from mop.common.seeding import stream_seed
from mop.common.tables import interval_text
from mop.common.values import MAX_ENVS
from mop.evaluation.evaluate import NUM_ENVS
from mop.statistics.bootstrap import MIN_EPISODES, bootstrap_interval, ratio
from mop.statistics.intervals import correlation_of_outcomes, difference_of_rates

Table = Mapping[str, np.ndarray]  # columns (W,) of the episodes of a run
PLAIN, MOVED = "plain", "moved"  # names of runs

# hidden states (N, S) before and after a step, and `episode` and `t_step` (N,) of each by name -> amounts (N,) float32
Amounts = Callable[[Tensor, Tensor, Any], Tensor]


class Move(NamedTuple):
    """A change of the hidden state after a step: h + amount x way."""

    amounts: Amounts
    way: Tensor  # (S,) float32


class Reading(NamedTuple):
    """Amounts read from the hidden state: reads . (h - origin) + offset; origin None: h before the step."""

    reads: Tensor  # (S,) float32
    origin: Tensor | None  # (S,) float32
    offset: float

    def __call__(self, before: Tensor, after: Tensor, state: Any) -> Tensor:
        return (after - (before if self.origin is None else self.origin)) @ self.reads + self.offset


class Replay(NamedTuple):
    """The amounts of another run in the same worlds at the same steps; repeated where that run was shorter."""

    recorded: np.ndarray  # (W, T) float32
    steps: np.ndarray  # (W,) int64, how many of them each world has

    def __call__(self, before: Tensor, after: Tensor, state: Any) -> Tensor:
        episode = state["episode"]
        return torch.from_numpy(self.recorded[episode, state["t_step"] % self.steps[episode]])


class Operation(NamedTuple):
    """An operation on a direction, given by its number."""

    kind: str  # swap, null, clamp, add
    number: int
    to: int | None = None  # the other direction of a swap
    value: float = 0.0  # of clamp and add, in standard deviations of the coordinate

    def move(self, directions: Directions) -> Move:
        """The move along the direction."""
        dual, mean = _tensor(directions.duals[self.number]), _tensor(directions.mean)
        offset = self.value * float(directions.sd[self.number])
        if self.kind == "swap":
            reading = Reading(dual, None, 0.0)
        elif self.kind == "add":
            reading = Reading(torch.zeros_like(dual), mean, offset)
        else:  # null is clamp to 0
            reading = Reading(-dual, mean, offset)
        return Move(reading, _tensor(self._way(directions)))

    def random_move(self, directions: Directions, replay: Replay, seed: int, number: int) -> Move:
        """The same amounts along a random way in the same blocks, as long; each number has its own random stream."""
        rng = np.random.default_rng(stream_seed(seed, f"random direction {number}"))
        numbers = [self.number] if self.to is None else [self.number, self.to]
        blocks = dict.fromkeys(directions.blocks[numbers].tolist())
        way = sum(random_unit(directions, block, rng) for block in blocks) / len(blocks) ** 0.5
        return Move(replay, _tensor(way * np.linalg.norm(self._way(directions))))

    def _way(self, directions: Directions) -> np.ndarray:
        unit = directions.units[self.number]
        return unit if self.to is None else directions.units[self.to] - unit

    def describe(self, directions: Directions) -> str:
        """The operation in words, for titles."""
        name = directions.names[self.number]
        if self.kind == "swap":
            return f"{name} moved to {directions.names[self.to]}"
        words = {"null": f"{name} nulled", "clamp": f"{name} held at {self.value:g} sd"}
        return words.get(self.kind, f"{self.value:+g} sd of {name} added at each step")


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32))


# --- effects ----------------------------------------------------------------------------------------------------------


Ratio = tuple[np.ndarray, np.ndarray]  # numerator and denominator (W,) float64, whose sums over worlds are divided


class Measure(NamedTuple):
    """A ratio of sums over worlds in both runs."""

    name: str
    plain: Ratio
    moved: Ratio
    is_rate: bool = False  # a share of the worlds

    @property
    def values(self) -> tuple[float, float]:
        """The measure of both runs, NaN where its denominator is 0."""
        before, after = (float(ratio(numerator.sum(), count.sum())) for numerator, count in (self.plain, self.moved))
        return before, after


Measures = Callable[[Table, Table], list[Measure]]  # of two runs, the one without a move first


def compare_ratios(
    plain: Mapping[str, Ratio], moved: Mapping[str, Ratio], main: Sequence[str], rates: Sequence[str]
) -> list[Measure]:
    """The measures of two runs, given the ratio of each by name; those of `main` first."""
    order = [*main, *(name for name in plain if name not in main)]
    return [Measure(name, plain[name], moved[name], name in rates) for name in order]


def effect_rows(plain: Table, moved: Table, randoms: Sequence[Table], measures_of: Measures) -> list[dict]:
    """A row for each measure of the runs: both values, the difference, and its place among random directions.

    low, high: 95 % interval of the paired difference, by a bootstrap over worlds; for rates, of `difference_of_rates`,
    whose width is never 0. random_low, random_high: the smallest and largest effect of the R random directions.
    stronger: how many of these change the measure at least as much, in either direction. p = (1 + stronger) / (1 + R);
    NaN, like the difference, where one of the two runs lacks the measure.
    """
    by_chance = random_effects(plain, randoms, measures_of)
    rows = []
    for measure in measures_of(plain, moved):
        before, after = measure.values
        if np.isnan(before) and np.isnan(after):
            continue
        low, high = _interval(measure)
        others = by_chance[measure.name][np.isfinite(by_chance[measure.name])]
        stronger = int((np.abs(others) >= abs(after - before) - 1e-12).sum())
        row = {"measure": measure.name, "plain": before, "moved": after, "difference": after - before}
        row |= {"low": low, "high": high, "random": len(others), "stronger": stronger}
        ends = (others.min(), others.max()) if len(others) else (np.nan, np.nan)
        row |= {"random_low": ends[0], "random_high": ends[1]}
        p = np.nan if np.isnan(after - before) else (1 + stronger) / (1 + len(others))
        rows.append(row | {"p": p})
    return rows


def effects_table(rows: Sequence[Mapping], main: Sequence[str]) -> str:
    """The rows of the main measures, of router weights and of all that is not rare, for the screen."""
    lines = [
        {
            "measure": row["measure"],
            **{name: f"{row[name]:.4g}" for name in ("plain", "moved")},
            "difference": interval_text(row["difference"], row["low"], row["high"], "+.3g"),
            "random directions": f"{row['random_low']:+.3g} to {row['random_high']:+.3g}",
            "as strong": f"{row['stronger']} of {row['random']}",
            "p": f"{row['p']:.3f}",
        }
        for row in rows
        if row["measure"] in main or row["measure"].startswith("weight") or max(row["plain"], row["moved"]) >= 0.01
    ]
    return pd.DataFrame(lines).to_string(index=False)


def random_effects(plain: Table, randoms: Sequence[Table], measures_of: Measures) -> dict[str, np.ndarray]:
    """The effect of each random direction on each measure, name -> (R,)."""
    effects: dict[str, list[float]] = {measure.name: [] for measure in measures_of(plain, plain)}
    for table in randoms:
        for measure in measures_of(plain, table):
            before, after = measure.values
            effects[measure.name].append(after - before)
    return {name: np.array(values) for name, values in effects.items()}


def _interval(measure: Measure) -> tuple[float, float]:
    num_worlds = len(measure.plain[0])
    if measure.is_rate and num_worlds >= MIN_EPISODES:
        before, after = measure.plain[0] > 0, measure.moved[0] > 0
        phi = correlation_of_outcomes(before, after)
        return difference_of_rates((int(before.sum()), num_worlds), (int(after.sum()), num_worlds), phi)[1:]
    sums = np.stack([*measure.plain, *measure.moved], 1)
    return bootstrap_interval(sums, lambda s: ratio(s[..., 2], s[..., 3]) - ratio(s[..., 0], s[..., 1]))[1:]


# --- runs -------------------------------------------------------------------------------------------------------------


class Played(NamedTuple):
    """A run: one episode in each of W worlds."""

    table: dict[str, np.ndarray]  # columns (W,) float64
    amounts: np.ndarray  # (W, T) float32, of the move; 0 after the end of an episode


@dataclass(frozen=True, kw_only=True)
class ArenaSettings:
    """Settings of the episodes of an arena."""

    num_worlds: int = setting(500, "one episode each in every run", low=5, high=10**6)
    eval_seed: int = setting(0, "seed of the first world; of levels, counted from 2^30", low=0, high=2**32 - 1)
    seed: int = setting(0, "of random directions, and of sampled actions", low=0)
    num_envs: int = setting(NUM_ENVS, "side by side: speed and rounding", low=1, high=MAX_ENVS)
    cache_dir: str = setting("evaluation_cache", "where the bot's own results are kept")
    policy: str | None = setting(
        None, "how it acts (default: argmax)", choices=("argmax", "sampled"), group="of agents of games"
    )
    max_steps: int | None = setting(
        None, "actions until an episode is cut short (default: 1000)", low=1, group="of agents of games"
    )


class Arena(Protocol):
    """A policy in W worlds, the same in every run, and its measures."""

    main: tuple[str, ...]  # the measures of the figure, and the last one, how far the hidden state is moved
    words: str  # the worlds, in words
    num_worlds: int  # W
    settings: dict  # of its episodes, besides those of every arena

    def play(self, move: Move | None, progress: Callable[[int], object]) -> Played:
        """Play an episode in each world, with a move after each step.

        Columns of the table: "seed", "success", "steps", and what `measures` needs. progress: called with the number
        of episodes just finished.
        """

    def measures(self, plain: Table, moved: Table) -> list[Measure]:
        """All measures of two runs."""


class Runs:
    """The runs without a move, with it and along random directions, with a table of episodes for each."""

    def __init__(self, arena: Arena, folder: Path):
        self.arena = arena
        self.folder = folder

    def play_missing(self, operation: Operation, directions: Directions, num_random: int, seed: int) -> None:
        """Play each run that has no table yet; random directions after the run whose amounts they copy."""
        plain, moved, *randoms = names = run_names(num_random)
        missing = [name for name in names if not self._path(name).exists()]
        total = len(missing) * self.arena.num_worlds
        with tqdm(total=total, unit="episode", dynamic_ncols=True, disable=not missing) as bar:
            for name, move in {plain: None, moved: operation.move(directions)}.items():
                if name in missing:
                    self._play(name, move, bar)
            replay = self._read_replay()
            for k, name in enumerate(randoms):
                if name in missing:
                    self._play(name, operation.random_move(directions, replay, seed, k), bar)

    def read(self, name: str) -> dict[str, np.ndarray]:
        """Read the table of a run, name -> (W,) float64."""
        path = self._path(name)
        table = read_csv(path)
        with reading(path, "table of a run"):
            if len(table) != self.arena.num_worlds or not table["steps"].between(1, 2**31).all():
                raise InputError(f"it has {len(table)} episodes, not {self.arena.num_worlds}, or some without a step")
            columns = {column: table[column].to_numpy(np.float64) for column in table}
            self.arena.measures(columns, columns)  # it has the columns that are needed
            return columns

    def _read_replay(self) -> Replay:
        steps = self.read(MOVED)["steps"].astype(np.int64)
        amounts = read_array(self._amounts)
        with reading(self._amounts):
            check_arrays({"amounts": amounts}, {"amounts": (f"{len(steps)} T", "float")})
            if steps.max() > amounts.shape[1]:
                raise InputError("it has fewer steps than the episodes")
        return Replay(amounts.astype(np.float32), steps)

    @property
    def _amounts(self) -> Path:
        return self.folder / f"{MOVED}_amounts.npy"

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.csv"

    def _play(self, name: str, move: Move | None, bar: tqdm) -> None:
        bar.set_description(name)
        played = self.arena.play(move, bar.update)
        content = pd.DataFrame(played.table).to_csv(index=False).encode()
        files = [(self._path(name), lambda file: file.write(content))]  # the last one says that all are there
        if name == MOVED:
            files.insert(0, (self._amounts, lambda file: save_array(file, played.amounts)))
        write_together(files)


def run_names(num_random: int) -> list[str]:
    """The names of the runs without a move, with it, and along random directions."""
    return [PLAIN, MOVED, *(f"random_{number:03d}" for number in range(num_random))]
