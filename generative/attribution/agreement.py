"""How well attribution ranks true effects: rank correlations of each case, and their means with intervals.

Of each case (episode, t, k), target and truth ("acting" or "forced"), over its E edits: Spearman's rho between
predicted and true effects (ties get mean ranks), and whether the edit that is predicted to matter most is the one that
does. Edits after which the episode was over before t are left out. Where fewer than MIN_EDITS are left, or all true
effects are equal, there is nothing to rank: such a case is counted and used for no predictor. A predictor that says
the same of all edits ranks nothing: its rho is 0, and that is counted.
Means are over cases; 95 % intervals are from a bootstrap over episodes (`mop.statistics.bootstrap`).
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from mop.common.seeding import stream_seed
from mop.common.tables import markdown_table
from mop.statistics.bootstrap import bootstrap_means

BY, MEASURES = ("truth", "predictor"), ("rho", "low", "high", "top", "cases", "episodes", "constant")
TRUTHS = ("acting", "forced")
MIN_EDITS = 4
RANDOM, SHUFFLED = "random numbers", "shuffled effects"
RANKED = "ranked"  # the outcome of a case that is used


def rank_cases(rows: Iterable[Mapping]) -> pd.DataFrame:
    """A line for each case, target, truth and predictor: rho, is_top, and why there is none.

    Columns episode, step, lag, target, truth, predictor, num_edits that were used, num_over (left out), outcome
    ("ranked", "too few edits", "no effect"), is_constant (of the prediction), rho, is_top; the last two NaN unless
    ranked. Predictors are those of the rows, along all paths and without the world, and two controls: random numbers,
    and the first predictor with the true effects of the case shuffled among its edits.
    """
    lines = []
    for row in rows:
        for number, target in enumerate(row["targets"]):
            for truth in TRUTHS:
                place = {name: row[name] for name in ("episode", "step", "lag")} | {"target": target, "truth": truth}
                lines += [place | found for found in _rank(row, number, truth)]
    return pd.DataFrame(lines)


def _rank(row: Mapping, number: int, truth: str) -> list[dict]:
    true = np.array(row[truth][number] if row[truth] else [], float)
    is_there = np.isfinite(true)
    true = true[is_there]
    outcome = "too few edits" if len(true) < MIN_EDITS else "no effect" if np.ptp(true) == 0 else RANKED
    common = {"num_edits": len(true), "num_over": int((~is_there).sum()), "outcome": outcome}
    if outcome != RANKED:
        return [common | {"predictor": "", "is_constant": False, "rho": np.nan, "is_top": np.nan}]
    predicted = {name: values[is_there] for name, values in predictions(row, number).items()}
    words = (row["episode"], row["step"], row["lag"], row["targets"][number], truth)
    rng = np.random.default_rng(stream_seed(0, f"controls of {words}"))
    pairs = {name: (values, true) for name, values in predicted.items()}
    pairs[RANDOM] = (rng.standard_normal(len(true)), true)
    pairs[SHUFFLED] = (next(iter(predicted.values())), rng.permutation(true))
    return [common | {"predictor": name} | compare(*pair) for name, pair in pairs.items()]


def predictions(row: Mapping, number: int) -> dict[str, np.ndarray]:
    """What each predictor says of the edits (E,) of a case and a target, along all paths and without the world's."""
    return {
        name + ("" if path == "all" else f", {path}"): np.array(values[number])
        for name, paths in row["predicted"].items()
        for path, values in paths.items()
    }


def compare(predicted: np.ndarray, true: np.ndarray) -> dict:
    """rho, is_top and is_constant of predicted and true effects (E,), which differ."""
    largest = np.abs(true) == np.abs(true).max()
    if np.ptp(predicted) == 0:
        return {"is_constant": True, "rho": 0.0, "is_top": float(largest.mean())}
    rho = float(spearmanr(predicted, true).statistic)
    return {"is_constant": False, "rho": rho, "is_top": float(largest[np.abs(predicted).argmax()])}


def summarise(ranked: pd.DataFrame, by: Sequence[str] = BY) -> pd.DataFrame:
    """Means over the cases that could be ranked, with 95 % intervals over episodes, in groups of equal `by`.

    Columns `by` and MEASURES: rho with its interval, top (share of cases in which the edit of the largest effect was
    found), cases, episodes, constant (cases in which the predictor says the same of all edits).
    """
    kept = ranked[ranked["outcome"] == RANKED]
    lines = []
    for key, group in kept.groupby(list(by), sort=False):
        means = bootstrap_means(group[["rho", "is_top"]].to_numpy(float), group["episode"].to_numpy())
        values = (means.mean[0, 0], means.low[0, 0], means.high[0, 0], means.mean[0, 1])
        counts = (len(group), int(means.episodes[0]), int(group["is_constant"].sum()))
        lines.append(dict(zip((*by, *MEASURES), (*key, *values, *counts), strict=True)))
    return pd.DataFrame(lines, columns=[*by, *MEASURES])


def count_outcomes(ranked: pd.DataFrame) -> pd.DataFrame:
    """Of each truth: cases by outcome, edits that were used, edits after which the episode was over before t."""
    cases = ranked.drop_duplicates(["episode", "step", "lag", "target", "truth"])
    counts = cases.groupby(["truth", "outcome"]).size().unstack(fill_value=0)
    return counts.join(cases.groupby("truth")[["num_edits", "num_over"]].sum())


def as_markdown(table: pd.DataFrame) -> str:
    """A table for a page, numbers with three digits after the point."""
    cells = table.map(lambda value: f"{value:.3f}" if isinstance(value, float) else str(value))
    return markdown_table(list(table), cells.to_numpy())
