"""What an intervention changes: paired differences over worlds, and where they lie among those of random directions.

Axis letters: W worlds, R random directions.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mop.statistics.bootstrap import MIN_EPISODES, bounds, resample
from mop.statistics.intervals import correlation_of_outcomes, difference_of_rates

Table = Mapping[str, np.ndarray]  # columns (W,) of the episodes of a run


class Measure(NamedTuple):
    """A ratio of sums over worlds: numerator / denominator, (W,) float64 each, of both runs."""

    name: str
    plain: tuple[np.ndarray, np.ndarray]
    moved: tuple[np.ndarray, np.ndarray]
    is_rate: bool = False  # a share of the worlds

    @property
    def values(self) -> tuple[float, float]:
        """The measure of both runs, NaN where its denominator is 0."""
        return tuple(float(_ratio(numerator.sum(), count.sum())) for numerator, count in (self.plain, self.moved))


Measures = Callable[[Table, Table], list[Measure]]  # of two runs, the one without a move first


def effect_rows(plain: Table, moved: Table, randoms: Sequence[Table], measures_of: Measures) -> list[dict]:
    """A row for each measure that a run has: its value in both, the difference, where that lies among the random.

    low, high: 95 % interval of the paired difference, by a bootstrap over worlds; of rates, that of
    `difference_of_rates`, which has a width where nothing changes, too. random_low, random_high: the least and largest
    effect of the R random directions. stronger: how many of these change the measure at least as much, in either
    direction. p = (1 + stronger) / (1 + R); NaN, like the difference, where one of the two runs does not have the
    measure.
    """
    by_chance, rows = random_effects(plain, randoms, measures_of), []
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


def random_effects(plain: Table, randoms: Sequence[Table], measures_of: Measures) -> dict[str, np.ndarray]:
    """The effect of each random direction on each measure, name -> (R,)."""
    found: dict[str, list[float]] = {measure.name: [] for measure in measures_of(plain, plain)}
    for table in randoms:
        for measure in measures_of(plain, table):
            before, after = measure.values
            found[measure.name].append(after - before)
    return {name: np.array(values) for name, values in found.items()}


def _interval(measure: Measure) -> tuple[float, float]:
    """Of the paired difference."""
    num_worlds = len(measure.plain[0])
    if num_worlds < MIN_EPISODES:
        return np.nan, np.nan
    if measure.is_rate:
        before, after = measure.plain[0] > 0, measure.moved[0] > 0
        phi = correlation_of_outcomes(before, after)
        _, low, high = difference_of_rates((int(before.sum()), num_worlds), (int(after.sum()), num_worlds), phi)
        return low, high
    drawn = resample(np.stack([*measure.plain, *measure.moved], 1))
    low, high = bounds(_ratio(drawn[:, 2], drawn[:, 3]) - _ratio(drawn[:, 0], drawn[:, 1]))
    return float(low), float(high)


def _ratio(numerator: np.ndarray, count: np.ndarray) -> np.ndarray:
    return np.divide(numerator, count, out=np.full(np.shape(numerator), np.nan), where=np.asarray(count) > 0)
