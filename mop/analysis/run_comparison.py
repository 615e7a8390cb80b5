"""Two evaluations beside each other: differences of success, path ratio and cost, in all and in each cell.

The unit of every interval is the episode, as the steps of one are alike. Where both policies were evaluated in the
same worlds, the differences are paired: a world that is long or costly is so for both, and only what differs counts.
Axis letters: S steps, W worlds, C grid cells that one of the two visited.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mop.analysis.cells import index_cells
from mop.analysis.metrics import wilson_interval
from mop.analysis.routing_data import RoutingData, checked_positions, checked_weights
from mop.common.errors import InputError
from mop.statistics.intervals import t_quantile

MIN_EPISODES = 10  # of each side in a cell: the interval of fewer is not to be trusted


@dataclass(frozen=True, eq=False)
class Pair:
    """Two evaluations, and the world of each of their episodes."""

    left: RoutingData
    right: RoutingData
    left_world: np.ndarray  # (episodes,) int64, from 0; -1: the episode is left out, as only one side has its world
    right_world: np.ndarray
    is_paired: bool  # equal numbers are equal worlds

    @property
    def num_worlds(self) -> tuple[int, int]:
        """Worlds that count, left and right."""
        return int(self.left_world.max(initial=-1)) + 1, int(self.right_world.max(initial=-1)) + 1

    def masks(self) -> tuple[np.ndarray, np.ndarray]:
        """The steps (S,) bool that count, left and right."""
        return tuple(
            world[np.asarray(data.steps.episode)] >= 0
            for data, world in ((self.left, self.left_world), (self.right, self.right_world))
        )

    def notes(self) -> list[str]:
        """What to know before the two are compared, a sentence each."""
        notes, (num_left, num_right) = [], self.num_worlds
        tasks = [data.header.get("task_id") for data in (self.left, self.right)]
        if tasks[0] != tasks[1]:
            notes.append(f"{tasks[0]} and {tasks[1]} are different tasks: what differs may be due to their worlds")
        if not self.is_paired:
            notes.append(
                "the two were not evaluated in the same worlds: their differences are not paired, "
                f"and the intervals are wider ({num_left:,} and {num_right:,} episodes)"
            )
        elif (self.left_world < 0).any() or (self.right_world < 0).any():
            notes.append(f"compared in the {num_left:,} worlds that both were evaluated in")
        return notes + _architecture_notes(self.left.header, self.right.header)


def pair_worlds(left: RoutingData, right: RoutingData) -> Pair:
    """The episodes of two evaluations by world.

    They are paired if they are of one task and one was evaluated in all worlds of the other; then only the common
    worlds count. Else every episode counts, as a world of its own. Episodes before schema version 4, which have no
    seeds, are never paired.
    """
    seeds = [[episode.get("seed") for episode in data.episodes] for data in (left, right)]
    sets = [set(of_side) for of_side in seeds]
    common = sorted(sets[0] & sets[1] - {None})
    is_paired = (
        left.header.get("task_id") == right.header.get("task_id")
        and len(common) == min(map(len, sets)) > 0
        and all(len(of_side) == len(set(of_side)) for of_side in seeds)
    )
    if is_paired:
        number = {seed: world for world, seed in enumerate(common)}
        worlds = [np.array([number.get(seed, -1) for seed in of_side], np.int64) for of_side in seeds]
    else:
        worlds = [np.arange(len(of_side)) for of_side in seeds]
    return Pair(left, right, *worlds, is_paired)


# --- a mean over steps, and the difference of two --------------------------------------------------------------------


class Sums(NamedTuple):
    """A value in each world: its sum and over how many steps, (..., W) float64 each."""

    total: np.ndarray
    count: np.ndarray


@dataclass(frozen=True, eq=False)
class Contrast:
    """Two means and right minus left, (...) float64, with half the width of each 95 % interval; NaN without a step."""

    left: np.ndarray
    right: np.ndarray
    left_half: np.ndarray
    right_half: np.ndarray
    difference: np.ndarray
    half: np.ndarray
    left_worlds: np.ndarray  # (...) int64, worlds with a step
    right_worlds: np.ndarray

    def is_clear(self, min_episodes: int = MIN_EPISODES) -> np.ndarray:
        """(...) bool: the interval does not hold 0, and each side has so many episodes."""
        return self.is_known(min_episodes) & (np.abs(self.difference) > self.half)

    def is_known(self, min_episodes: int = MIN_EPISODES) -> np.ndarray:
        """(...) bool: each side has so many episodes, one at least."""
        return np.minimum(self.left_worlds, self.right_worlds) >= max(min_episodes, 1)


def compare_means(left: Sums, right: Sums, is_paired: bool) -> Contrast:
    """Mean over all steps of each side and their difference, with intervals by worlds.

    A mean is a ratio of sums over worlds, so its variance is k / (k - 1) times the sum of the squares of
    (total - mean x count) / (sum of counts) over its k worlds (Cochran 1977, Sampling Techniques, chapter 6); of a
    paired difference, the differences of these residuals are squared. The interval uses Student's t with k - 1 degrees
    of freedom, of two sides the smaller; it is infinite where k is 1.
    """
    (mean_left, residual_left, k_left), (mean_right, residual_right, k_right) = map(_linearised, (left, right))
    half_left, half_right = (
        _half(_variance(residual_left, k_left), k_left),
        _half(_variance(residual_right, k_right), k_right),
    )
    if is_paired:
        k = ((left.count > 0) | (right.count > 0)).sum(-1)
        variance = _variance(residual_right - residual_left, k)
    else:
        k = np.minimum(k_left, k_right)
        variance = _variance(residual_left, k_left) + _variance(residual_right, k_right)
    half = _half(variance, np.where(np.minimum(k_left, k_right) > 1, k, 1))
    return Contrast(mean_left, mean_right, half_left, half_right, mean_right - mean_left, half, k_left, k_right)


def _linearised(sums: Sums) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The mean (...), the part of each world in its error (..., W), and the number of worlds with a step (...)."""
    num_steps = sums.count.sum(-1)
    some = np.maximum(num_steps, 1)
    mean = np.where(num_steps > 0, sums.total.sum(-1) / some, np.nan)
    residual = (sums.total - np.nan_to_num(mean)[..., None] * sums.count) / some[..., None]
    return mean, residual, (sums.count > 0).sum(-1)


def _variance(residual: np.ndarray, k: np.ndarray) -> np.ndarray:
    return np.square(residual).sum(-1) * k / np.maximum(k - 1, 1)


def _half(variance: np.ndarray, k: np.ndarray) -> np.ndarray:
    return np.where(k > 1, t_quantile(np.maximum(k - 1, 1)) * np.sqrt(variance), np.inf)


# --- in each cell -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class CellContrast:
    """The means of two evaluations in each cell that one of them visited, in reading order."""

    cells: np.ndarray  # (C, 2) int64, x and y
    left_steps: np.ndarray  # (C,) int64
    right_steps: np.ndarray
    means: Contrast  # of (C,)


def compare_cells(
    pair: Pair, left_values: np.ndarray, right_values: np.ndarray, left_mask: np.ndarray, right_mask: np.ndarray
) -> CellContrast:
    """Compare values (S,) of the steps of each side that a mask (S,) bool leaves, cell by cell.

    Values that are not finite are left out. Raises InputError if no step of either side is left, or one side has no
    positions.
    """
    sides = [
        (pair.left, pair.left_world, left_values, left_mask),
        (pair.right, pair.right_world, right_values, right_mask),
    ]
    positions = [checked_positions(data.steps.position)[mask] for data, _, _, mask in sides]
    index = index_cells(np.concatenate(positions))
    num_cells, places, start = len(index.cells), [], 0
    for of_side in positions:
        places.append(index.index[start : start + len(of_side)])
        start += len(of_side)
    sums = []
    for (data, world, values, mask), cell, num_worlds in zip(sides, places, pair.num_worlds, strict=True):
        values, size = np.asarray(values, np.float64)[mask], (num_cells, num_worlds)
        place = cell * num_worlds + world[np.asarray(data.steps.episode)[mask]]
        is_known = np.isfinite(values)
        total, count = (
            np.bincount(place, weights=column, minlength=np.prod(size)).reshape(size)
            for column in (np.where(is_known, values, 0), is_known)
        )
        sums.append(Sums(total, count))
    steps = (np.bincount(cell, minlength=num_cells) for cell in places)
    return CellContrast(index.cells, *steps, compare_means(*sums, pair.is_paired))


def weights_by_size(data: RoutingData, layer: int) -> dict[int, np.ndarray]:
    """The weight (S,) float64 of each size of expert in a layer, sizes ascending; equal sizes are added.

    Raises InputError if the weights or the sizes are not known.
    """
    sizes, weights = known_sizes(data.header)[layer], checked_weights(data.steps)[layer].astype(np.float64)
    if len(sizes) != weights.shape[1]:
        raise InputError(f"layer {layer} has {weights.shape[1]} experts, and {len(sizes)} sizes are given")
    return {size: weights[:, np.asarray(sizes) == size].sum(1) for size in sorted(set(sizes))}


def common_sizes(left: Mapping, right: Mapping) -> list[list[int]]:
    """The sizes of experts that both headers have in each layer, ascending; nothing if the numbers of layers differ.

    Raises InputError if the sizes of one are not known.
    """
    layers = [known_sizes(header) for header in (left, right)]
    if len(layers[0]) != len(layers[1]):
        return []
    return [sorted(set(one) & set(other)) for one, other in zip(*layers, strict=True)]


def known_sizes(header: Mapping) -> Sequence[Sequence[int]]:
    """`expert_hidden_sizes`. Raises InputError if the header has none."""
    if header.get("expert_hidden_sizes") is None:
        way_out = "make a new cache with `python batch_eval.py --force`"
        raise InputError(f"this routing data has no 'expert_hidden_sizes', by which experts are matched: {way_out}")
    return header["expert_hidden_sizes"]


def _architecture_notes(left: Mapping, right: Mapping) -> list[str]:
    """What of the router weights cannot be compared."""
    if any(header.get("expert_hidden_sizes") is None for header in (left, right)):
        return ["the sizes of the experts are not known: router weights cannot be compared, only LPC"]
    one, other = known_sizes(left), known_sizes(right)
    if len(one) != len(other):
        return [f"{len(one)} and {len(other)} layers: router weights cannot be compared, only LPC"]
    notes = []
    for layer, common in enumerate(common_sizes(left, right)):
        alone = sorted({*one[layer], *other[layer]} - set(common))
        if alone:
            notes.append(f"layer {layer}: only one of the two has experts of size {', '.join(map(str, alone))}")
    return notes


# --- in numbers -------------------------------------------------------------------------------------------------------


class Interval(NamedTuple):
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float


class Compared(NamedTuple):
    """One measure of two evaluations: each side's, and right minus left."""

    name: str  # "success_rate", "path_ratio" or "mean_lpc"
    left: Interval
    right: Interval
    difference: Interval
    left_episodes: int
    right_episodes: int


def compare_metrics(pair: Pair) -> list[Compared]:
    """Success, path ratio and mean LPC of two evaluations, of those that the data has.

    As `compute_metrics`, except that a paired path ratio is over the worlds that both solve. Success has Wilson
    intervals, and their difference that of `difference_of_rates`; the others those of `compare_means`.
    """
    compared = [_compare_success(pair)] if _have(pair, "success") else []
    if _have(pair, "success", "steps", "expert_steps"):
        sides = [_ratios(data, world, n) for data, world, n in _sides(pair)]
        if pair.is_paired:
            both = (sides[0].count > 0) & (sides[1].count > 0)
            sides = [Sums(total * both, count * both) for total, count in sides]
        compared.append(_named("path_ratio", compare_means(*sides, pair.is_paired)))
    if all(data.steps.lpc is not None for data in (pair.left, pair.right)):
        sides = [_lpc_sums(data, world, n) for data, world, n in _sides(pair)]
        compared.append(_named("mean_lpc", compare_means(*sides, pair.is_paired)))
    return [row for row in compared if min(row.left_episodes, row.right_episodes) > 0]


def difference_of_rates(left: tuple[int, int], right: tuple[int, int], phi: float = 0.0) -> Interval:
    """Right minus left of two shares, each (successes, trials), with its 95 % interval from their Wilson intervals.

    phi: correlation of paired outcomes. Method 10 of Newcombe 1998, Statistics in Medicine 17: 873-890 (independent)
    and 2635-2650 (paired); unlike that of a bootstrap, it is not of width 0 where all succeed.
    """
    (p_left, p_right), (one, other) = (
        [successes / trials for successes, trials in (left, right)],
        [wilson_interval(*side) for side in (left, right)],
    )
    down, up = ((p_right - other[0], one[1] - p_left), (other[1] - p_right, p_left - one[0]))
    low, high = (math.sqrt(max(a * a - 2 * phi * a * b + b * b, 0.0)) for a, b in (down, up))
    difference = p_right - p_left
    return Interval(difference, difference - low, difference + high)


def correlation_of_outcomes(left: np.ndarray, right: np.ndarray) -> float:
    """Phi of paired outcomes (W,) bool, with Newcombe's continuity correction; 0 if one is constant."""
    both, neither = int((left & right).sum()), int((~left & ~right).sum())
    only_left, only_right = int((left & ~right).sum()), int((~left & right).sum())
    margins = (both + only_left) * (neither + only_right) * (both + only_right) * (neither + only_left)
    product = both * neither - only_left * only_right
    if product > 0:
        product = max(product - len(left) / 2, 0)
    return product / math.sqrt(margins) if margins else 0.0


def _have(pair: Pair, *fields: str) -> bool:
    return all(field in episode for data in (pair.left, pair.right) for episode in data.episodes for field in fields)


def _sides(pair: Pair) -> list[tuple[RoutingData, np.ndarray, int]]:
    left, right = pair.num_worlds
    return [(pair.left, pair.left_world, left), (pair.right, pair.right_world, right)]


def _by_world(values: np.ndarray, world: np.ndarray, num_worlds: int) -> np.ndarray:
    """Sums (W,) of values (N,) whose world is not -1."""
    counts = world >= 0
    return np.bincount(world[counts], weights=np.asarray(values, np.float64)[counts], minlength=num_worlds)


def _compare_success(pair: Pair) -> Compared:
    left, right = (
        _by_world([episode["success"] for episode in data.episodes], world, n) > 0 for data, world, n in _sides(pair)
    )
    phi = correlation_of_outcomes(left, right) if pair.is_paired else 0.0
    counts = [(int(side.sum()), len(side)) for side in (left, right)]
    shares = [
        Interval(float(side.mean()), *wilson_interval(*count))
        for side, count in zip((left, right), counts, strict=True)
    ]
    return Compared("success_rate", *shares, difference_of_rates(*counts, phi), len(left), len(right))


def _ratios(data: RoutingData, world: np.ndarray, num_worlds: int) -> Sums:
    solved = np.array([bool(episode["success"]) for episode in data.episodes])
    ratio = [e["steps"] / e["expert_steps"] if ok else 0.0 for e, ok in zip(data.episodes, solved, strict=True)]
    return Sums(_by_world(ratio, world, num_worlds), _by_world(solved, world, num_worlds))


def _lpc_sums(data: RoutingData, world: np.ndarray, num_worlds: int) -> Sums:
    lpc, of_step = np.asarray(data.steps.lpc, np.float64), world[np.asarray(data.steps.episode)]
    is_known = np.isfinite(lpc)
    return Sums(_by_world(np.where(is_known, lpc, 0), of_step, num_worlds), _by_world(is_known, of_step, num_worlds))


def _named(name: str, contrast: Contrast) -> Compared:
    sides = (
        (contrast.left, contrast.left_half),
        (contrast.right, contrast.right_half),
        (contrast.difference, contrast.half),
    )
    intervals = [Interval(float(value), float(value - half), float(value + half)) for value, half in sides]
    return Compared(name, *intervals, int(contrast.left_worlds), int(contrast.right_worlds))
