"""What an intervention changes: paired differences over worlds, and where they lie among those of random directions.

Axis letters: W worlds, R random directions.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mop.measures.bootstrap import MIN_EPISODES, bounds, resample
from mop.measures.comparison import correlation_of_outcomes, difference_of_rates
from mop.measures.phases import PHASES
from mop.measures.routing_data import ACTION_NAMES

Table = Mapping[str, np.ndarray]  # columns (W,) of `interventions.play`, and "bot_steps"
MAIN = ("success", "path ratio", "steps", "pick-ups", "drops", "door toggles", "LPC", "moved")


class Measure(NamedTuple):
    """A ratio of sums over worlds: numerator / denominator, (W,) float64 each, of both runs."""

    name: str
    plain: tuple[np.ndarray, np.ndarray]
    moved: tuple[np.ndarray, np.ndarray]

    @property
    def values(self) -> tuple[float, float]:
        """The measure of both runs, NaN where its denominator is 0."""
        return tuple(float(_ratio(numerator.sum(), count.sum())) for numerator, count in (self.plain, self.moved))


def measures_of(plain: Table, moved: Table) -> list[Measure]:
    """All measures of two runs in the same worlds: those of MAIN, then weights, then actions by phase.

    Per episode: success, steps, events. Per step: LPC, weights of the experts, and moved, how far the memory is moved:
    no effect, but a check, as it is to be as far in the random runs.
    path ratio: mean of steps / the bot's steps over the worlds that both runs solve. Actions: share of the steps of a
    phase.
    """
    each = np.ones(len(plain["seed"]))
    both = (plain["success"] > 0) & (moved["success"] > 0)
    pairs = {"path ratio": lambda table: (both * table["steps"] / table["bot_steps"], both.astype(float))}
    for name in ("success", "steps", "pick-ups", "drops", "door toggles"):
        pairs[name] = lambda table, name=name: (table[name], each)
    for name, column in {"LPC": "lpc", "moved": "moved", **_weights(plain)}.items():
        pairs[name] = lambda table, column=column: (table[column], table["steps"])
    for phase in PHASES:
        for name in (f"{phase}: {action}" for action in ACTION_NAMES):
            pairs[name] = lambda table, name=name, phase=phase: (table[name], _steps_of(table, phase))
    order = [*MAIN, *(name for name in pairs if name not in MAIN)]
    return [Measure(name, pairs[name](plain), pairs[name](moved)) for name in order]


def _weights(table: Table) -> dict[str, str]:
    return {name: name for name in table if name.startswith("weight ")}


def _steps_of(table: Table, phase: str) -> np.ndarray:
    return sum(table[f"{phase}: {action}"] for action in ACTION_NAMES)


def effect_rows(plain: Table, moved: Table, randoms: Sequence[Table]) -> list[dict]:
    """A row for each measure that a run has: its value in both, the difference, where that lies among the random.

    low, high: 95 % interval of the paired difference, by a bootstrap over worlds; of success, that of
    `difference_of_rates`, which has a width where nothing changes, too. random_low, random_high: the least and largest
    effect of the R random directions. stronger: how many of these change the measure at least as much, in either
    direction. p = (1 + stronger) / (1 + R); NaN, like the difference, where one of the two runs does not have the
    measure.
    """
    by_chance, rows = random_effects(plain, randoms), []
    for measure in measures_of(plain, moved):
        before, after = measure.values
        if np.isnan(before) and np.isnan(after):
            continue
        low, high = _interval(measure)
        others = by_chance[measure.name][np.isfinite(by_chance[measure.name])]
        stronger = int((np.abs(others) >= abs(after - before) - 1e-12).sum())
        row = {"measure": measure.name, "plain": before, "moved": after, "difference": after - before}
        row |= {"low": low, "high": high, "random": len(others), "stronger": stronger}
        row |= {"random_low": others.min(initial=np.inf), "random_high": others.max(initial=-np.inf)}
        p = np.nan if np.isnan(after - before) else (1 + stronger) / (1 + len(others))
        rows.append(row | {"p": p})
    return rows


def random_effects(plain: Table, randoms: Sequence[Table]) -> dict[str, np.ndarray]:
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
    if measure.name == "success":
        before, after = measure.plain[0] > 0, measure.moved[0] > 0
        phi = correlation_of_outcomes(before, after)
        _, low, high = difference_of_rates((int(before.sum()), num_worlds), (int(after.sum()), num_worlds), phi)
        return low, high
    drawn = resample(np.stack([*measure.plain, *measure.moved], 1))
    low, high = bounds(_ratio(drawn[:, 2], drawn[:, 3]) - _ratio(drawn[:, 0], drawn[:, 1]))
    return float(low), float(high)


def _ratio(numerator: np.ndarray, count: np.ndarray) -> np.ndarray:
    return np.divide(numerator, count, out=np.full(np.shape(numerator), np.nan), where=np.asarray(count) > 0)
