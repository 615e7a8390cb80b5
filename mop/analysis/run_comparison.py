"""Two evaluations beside each other: differences of success, path ratio and cost, in all and in each cell.

The unit of every interval is the episode, as the steps of one are alike. Where both policies were evaluated in the
same worlds, the differences are paired: a world that is long or costly is so for both, and only what differs counts.
Axis letters: S steps, W worlds, C grid cells that one of the two visited.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mop.analysis.cells import index_cells
from mop.analysis.routing_data import checked_positions, checked_weights, known_sizes
from mop.artifacts.routing_cache import RoutingData
from mop.common.errors import InputError
from mop.statistics.bootstrap import sum_by
from mop.statistics.intervals import (
    Contrast,
    Interval,
    Sums,
    compare_means,
    correlation_of_outcomes,
    difference_of_rates,
    wilson_interval,
)


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
        """Mark the steps (S,) bool that count, left and right."""
        return tuple(
            world[np.asarray(data.steps.episode)] >= 0
            for data, world in ((self.left, self.left_world), (self.right, self.right_world))
        )

    def notes(self) -> list[str]:
        """List what to know before the two are compared, a sentence each."""
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
    """Pair the episodes of two evaluations by world.

    They are paired if they are of one task and one was evaluated in all worlds of the other; then only the common
    worlds count. Else every episode counts, as a world of its own. Episodes before schema version 4, which have no
    seeds, are never paired.
    """
    seeds = [[episode.get("seed") for episode in data.episodes] for data in (left, right)]
    sets = [set(of_side) for of_side in seeds]
    common = sorted(seed for seed in sets[0] & sets[1] if seed is not None)
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

    Values that are not finite are left out.
    """
    sides = [
        (pair.left, pair.left_world, left_values, left_mask),
        (pair.right, pair.right_world, right_values, right_mask),
    ]
    positions = [checked_positions(data.steps.position)[mask] for data, _, _, mask in sides]
    index = index_cells(np.concatenate(positions))
    num_cells, sums = len(index.cells), []
    places = np.split(index.index, [len(positions[0])])
    for (data, world, values, mask), cell, num_worlds in zip(sides, places, pair.num_worlds, strict=True):
        place = cell * num_worlds + world[np.asarray(data.steps.episode)[mask]]
        found = _sum_by(place, np.asarray(values)[mask], num_cells * num_worlds)
        sums.append(Sums(*(part.reshape(num_cells, num_worlds) for part in found)))
    steps = (np.bincount(cell, minlength=num_cells) for cell in places)
    return CellContrast(index.cells, *steps, compare_means(*sums, pair.is_paired))


def weights_by_size(data: RoutingData, layer: int) -> dict[int, np.ndarray]:
    """Add the weights (S,) float64 of equal sizes of experts in a layer; sizes ascending."""
    sizes, weights = known_sizes(data.header)[layer], checked_weights(data.steps)[layer].astype(np.float64)
    if len(sizes) != weights.shape[1]:
        raise InputError(f"layer {layer} has {weights.shape[1]} experts, and {len(sizes)} sizes are given")
    return {size: weights[:, np.asarray(sizes) == size].sum(1) for size in sorted(set(sizes))}


def common_sizes(left: Mapping, right: Mapping) -> list[list[int]]:
    """List the sizes of experts that both headers have in each layer, ascending; [] if the numbers of layers differ."""
    layers = [known_sizes(header) for header in (left, right)]
    if len(layers[0]) != len(layers[1]):
        return []
    return [sorted(set(one) & set(other)) for one, other in zip(*layers, strict=True)]


def _architecture_notes(left: Mapping, right: Mapping) -> list[str]:
    """List the differences of two architectures that forbid comparing router weights."""
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


class Compared(NamedTuple):
    """One measure of two evaluations: each side's, and right minus left."""

    name: str  # "success_rate", "path_ratio" or "mean_lpc"
    left: Interval
    right: Interval
    difference: Interval
    left_episodes: int
    right_episodes: int


def compare_metrics(pair: Pair) -> list[Compared]:
    """Compare success, path ratio and mean LPC of two evaluations, where the data has them.

    As `compute_metrics`, except that a paired path ratio is over the worlds that both solve. Success has Wilson
    intervals, and their difference that of `difference_of_rates`; the others those of `compare_means`.
    """
    compared = [_compare_success(pair)] if _have(pair, "success") else []
    if _have(pair, "success", "steps", "expert_steps"):
        sides = [_sum_by(world, _path_ratios(data), n) for data, world, n in _sides(pair)]
        if pair.is_paired:
            both = (sides[0].count > 0) & (sides[1].count > 0)
            sides = [Sums(total * both, count * both) for total, count in sides]
        compared.append(_named("path_ratio", compare_means(*sides, pair.is_paired)))
    if all(data.steps.lpc is not None for data in (pair.left, pair.right)):
        sides = [
            _sum_by(world[np.asarray(data.steps.episode)], data.column("lpc"), n) for data, world, n in _sides(pair)
        ]
        compared.append(_named("mean_lpc", compare_means(*sides, pair.is_paired)))
    return [row for row in compared if min(row.left_episodes, row.right_episodes) > 0]


def _have(pair: Pair, *fields: str) -> bool:
    return all(field in episode for data in (pair.left, pair.right) for episode in data.episodes for field in fields)


def _sides(pair: Pair) -> list[tuple[RoutingData, np.ndarray, int]]:
    left, right = pair.num_worlds
    return [(pair.left, pair.left_world, left), (pair.right, pair.right_world, right)]


def _sum_by(world: np.ndarray, values: np.ndarray | Sequence[float], num_worlds: int) -> Sums:
    """Add and count the finite values (N,) of each world (W,), without those of world -1."""
    values = np.asarray(values, np.float64)
    counts = (world >= 0) & np.isfinite(values)
    of_worlds = np.column_stack([values, np.ones(len(values))])
    return Sums(*sum_by(world[counts], of_worlds[counts], num_worlds).T)


def _compare_success(pair: Pair) -> Compared:
    left, right = (
        _sum_by(world, [episode["success"] for episode in data.episodes], n).total > 0
        for data, world, n in _sides(pair)
    )
    phi = correlation_of_outcomes(left, right) if pair.is_paired else 0.0
    counts = [(int(side.sum()), len(side)) for side in (left, right)]
    shares = [
        Interval(float(side.mean()), *wilson_interval(*count))
        for side, count in zip((left, right), counts, strict=True)
    ]
    return Compared("success_rate", *shares, difference_of_rates(*counts, phi), len(left), len(right))


def _path_ratios(data: RoutingData) -> list[float]:
    """Return steps / the bot's steps of each episode, NaN of a failure."""
    return [e["steps"] / e["expert_steps"] if e["success"] else np.nan for e in data.episodes]


def _named(name: str, contrast: Contrast) -> Compared:
    sides = (
        (contrast.left, contrast.left_half),
        (contrast.right, contrast.right_half),
        (contrast.difference, contrast.half),
    )
    intervals = [Interval(float(value), float(value - half), float(value + half)) for value, half in sides]
    return Compared(name, *intervals, int(contrast.left_worlds), int(contrast.right_worlds))
