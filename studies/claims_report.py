"""From the numbers of results/claims/ to the table of the claims and its pictures. Run by studies/claims.py."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from mop.common.errors import InputError
from mop.common.files import write_atomic, write_csv, write_figure
from mop.common.reading import read_csv
from mop.common.tables import interval_text, markdown_table
from mop.plotting.style import HUES, Figure, open_frame, plain_number
from mop.statistics.bootstrap import mean_over_seeds
from mop.statistics.intervals import fisher_z, mean_over_pairs

FOLDER = Path(__file__).resolve().parent.parent / "results" / "claims"
VALUES, PAIRS, DIFFICULTY, COMMANDS = "values.csv", "pairs.csv", "difficulty.csv", "commands.csv"
UNTRAINED = "untrained"
PAPER = {  # claim, measure -> what the paper reports, at second hand; kinds of policies in its order
    ("consistency", "all"): "0.03; 0.15; 0.71; 0.51",
    ("self-sufficiency", "success, argmax"): "98 to 16 %; with dropout 86 to 74 %",
    ("distinctness", "effective pathways"): "plain: all alike; all: a power law",
    ("difficulty", "r with lpc"): "-0.01; 0.51 to 0.54 with all",
    ("difficulty", "r with share lost by lesion"): "hard tasks lose, easy ones do not; plain: all collapse",
    ("difficulty", "r with lpc change"): "-0.48; 0.31 with all",
}
WAY_OUT = "leave out --report, or `git checkout results/claims`"
CONSISTENCY = {  # measure of pairs -> what it is of, in words
    "all": "mean weights in each task",
    "tasks": "what is particular to each task",
    "sub-goals": "to each sub-goal of a task",
    "steps": "single steps of an episode",
}
LPC, BITS = ("lpc", "lpc change"), ("bits, tasks", "bits, sub-goals")
OF_ALL_TASKS = (*BITS, *(f"{name}, by chance" for name in BITS), "effective pathways")
LESION, INTACT = "success, lesion_size 32", "success"
THRESHOLDS = {"0": INTACT, "0.05": "success, threshold 0.05", "0.1": "success, threshold 0.1"}
THRESHOLDS |= {"0.2": "success, threshold 0.2", "0.33": "success, threshold 0.33", "argmax": "success, argmax"}
_HUES = list(HUES.values())


def write_report() -> None:
    """Write summary.csv, summary.md and the pictures."""
    if not all((FOLDER / name).exists() for name in (VALUES, PAIRS, DIFFICULTY)):
        raise InputError(f"{FOLDER} lacks its numbers; leave out --report")
    values, pairs, difficulty = read_numbers()
    summary = pd.DataFrame(summarise(values, pairs, difficulty))
    write_csv(FOLDER / "summary.csv", summary)
    write_atomic(FOLDER / "summary.md", lambda file: file.write(markdown(summary).encode()))
    print(markdown(summary))
    for name, figure in {
        "consistency": plot_consistency(pairs, summary),
        "self_sufficiency": plot_thresholds(values),
        "pathways": plot_pathways(values),
        "difficulty": plot_difficulty(values, difficulty),
    }.items():
        write_figure(FOLDER / f"{name}.png", figure)
    print(f"{FOLDER}: tables and pictures")


# --- reading ----------------------------------------------------------------------------------------------------------


def read_numbers() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Read VALUES, PAIRS and DIFFICULTY; every policy, and every pair, has all that the others have."""
    policy, pair, measure = ["variant", "seed"], ["variant", "first", "second"], ["measure", "task"]
    blanks = {"keep_default_na": False, "na_values": {"value": [""]}}  # the task of a number of all tasks is ""
    difficulty = _read(DIFFICULTY, texts=["task"], numbers=["env_steps", "bot_steps"], key=["task"])
    values = _read(VALUES, texts=["variant", *measure], numbers=["seed", "value"], key=[*policy, *measure], **blanks)
    pairs = _read(PAIRS, texts=["variant", "measure"], numbers=["first", "second", "value"], key=[*pair, "measure"])
    of_tasks = [(name, task) for name in (*THRESHOLDS.values(), LESION, *LPC) for task in difficulty["task"]]
    _check_whole(VALUES, values, policy, measure, [*of_tasks, *((name, "") for name in OF_ALL_TASKS)])
    if len(pairs):  # there is none of one seed
        _check_whole(PAIRS, pairs, pair, ["measure"], [(name,) for name in CONSISTENCY])
    return values, pairs, difficulty


def _read(name: str, **columns: Any) -> pd.DataFrame:
    return read_csv(FOLDER / name, way_out=WAY_OUT, **columns)


def _check_whole(name: str, rows: pd.DataFrame, of_whom: list[str], what: list[str], needed: list[tuple]) -> None:
    """Refuse rows `of_whom, what` that lack something of one, or something that is needed of all."""
    measured = set(rows[what].itertuples(index=False, name=None))
    if lost := [one for one in needed if one not in measured]:
        raise InputError(f"{FOLDER / name} has no {' of '.join(filter(None, lost[0]))}; {WAY_OUT}")
    if len(rows) != len(measured) * len(rows[of_whom].drop_duplicates()):
        raise InputError(f"{FOLDER / name} lacks rows of some {' and '.join(of_whom)}; {WAY_OUT}")


# --- the numbers ----------------------------------------------------------------------------------------------------


def summarise(values: pd.DataFrame, pairs: pd.DataFrame, difficulty: pd.DataFrame) -> list[dict]:
    """Rows `claim, measure, variant, mean, low, high, seeds, tasks`; the intervals are of 95 % over seeds.

    seeds: those with a value; tasks: of a correlation over tasks, those whose difficulty is known.
    """
    rows = []

    def add(claim: str, measure: str, variant: str, numbers: Sequence[float], count: int, tasks: int | None) -> None:
        mean, low, high = (float(number) for number in numbers)
        rows.append({"claim": claim, "measure": measure, "variant": variant, "mean": mean, "low": low, "high": high})
        rows[-1] |= {"seeds": count, "tasks": tasks}

    def add_seeds(claim: str, measure: str, variant: str, numbers: np.ndarray, tasks: int | None = None) -> None:
        count = int(np.isfinite(numbers).sum())
        add(claim, measure, variant, over_seeds(np.asarray(numbers, float), is_r=tasks is not None), count, tasks)

    for (variant, measure), found in pairs.groupby(["variant", "measure"], sort=False):
        matrix = matrix_of(found)
        add("consistency", measure, variant, mean_over_pairs(matrix), len(matrix), None)
    for variant, of_kind in values.groupby("variant", sort=False):
        for measure in [*THRESHOLDS.values(), LESION, "lpc"]:
            add_seeds("self-sufficiency", measure, variant, by_seed(of_kind, measure).mean(axis=1))
        for measure in BITS:
            of_seeds, chance = (by_seed(of_kind, name)[""] for name in (measure, f"{measure}, by chance"))
            add_seeds("distinctness", measure, variant, of_seeds)
            add_seeds("distinctness", f"{measure}, beyond chance", variant, of_seeds - chance)
        add_seeds("distinctness", "effective pathways", variant, by_seed(of_kind, "effective pathways")[""])
        for name, table in against_difficulty(of_kind).items():
            for about, steps in (("", "env_steps"), (" of the bot's steps", "bot_steps")):
                of_seeds, num_tasks = correlations(table, difficulty, steps), int(difficulty[steps].count())
                add_seeds("difficulty", f"r{about} with {name}", variant, of_seeds, num_tasks)
    return rows


def matrix_of(found: pd.DataFrame) -> np.ndarray:
    """The pairs `first, second, value` of K seeds as (K, K), NaN where there is none."""
    seeds = sorted({*found["first"], *found["second"]})
    matrix = np.full((len(seeds), len(seeds)), np.nan)
    for row in found.itertuples():
        matrix[seeds.index(row.first), seeds.index(row.second)] = row.value
    return matrix


def by_seed(of_kind: pd.DataFrame, measure: str) -> pd.DataFrame:
    """One measure of one kind of policies: a row for each seed, a column for each task."""
    return of_kind[of_kind["measure"] == measure].pivot(index="seed", columns="task", values="value")


def against_difficulty(of_kind: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """What is held against the difficulty of the tasks: a row for each seed, a column for each task."""
    intact, lesion = by_seed(of_kind, INTACT), by_seed(of_kind, LESION)
    return {
        "lpc": by_seed(of_kind, "lpc"),
        "loss by lesion": intact - lesion,  # at most what there is to lose: little in a task that is hardly solved
        "share lost by lesion": 1 - lesion / intact.where(intact > 0),  # none where nothing was solved before
        "lpc change": by_seed(of_kind, "lpc change"),
    }


def correlations(table: pd.DataFrame, difficulty: pd.DataFrame, measure: str = "env_steps") -> np.ndarray:
    """Pearson's r of each seed (K,) over the tasks whose difficulty is known; steps are taken as logarithms.

    NaN for a seed in which no task differs from the others, and for all where fewer than two difficulties are known.
    """
    steps = np.log(difficulty.set_index("task")[measure].dropna())
    if len(steps) < 2:
        return np.full(len(table), np.nan)
    numbers = table[steps.index].to_numpy(float)
    varies = numbers.std(axis=1) > 1e-12
    return np.array(
        [np.corrcoef(row, steps)[0, 1] if known else np.nan for row, known in zip(numbers, varies, strict=True)]
    )


def over_seeds(numbers: np.ndarray, is_r: bool = False) -> tuple[float, float, float]:
    """Mean and 95 % interval of Student's t over seeds; is_r: of correlations, by Fisher's z."""
    found = mean_over_seeds([float(number) for number in (fisher_z(numbers) if is_r else numbers)])
    ends = np.array([found.mean, found.low, found.high])
    mean, low, high = (np.tanh(ends) if is_r else ends).tolist()
    return mean, low, high


def markdown(summary: pd.DataFrame) -> str:
    """A row for each measure, a column for each kind of policy, the paper's figures behind."""
    kinds = list(dict.fromkeys(summary["variant"]))
    kinds.sort(key=lambda kind: kind != UNTRAINED)
    rows = []
    for (claim, measure), found in summary.groupby(["claim", "measure"], sort=False):
        of_kind = {row.variant: row for row in found.itertuples()}
        num_tasks = found["tasks"].iloc[0]
        name = measure if pd.isna(num_tasks) else f"{measure}, {num_tasks:.0f} tasks"
        cells = [_cell(of_kind[kind]) if kind in of_kind else "" for kind in kinds]
        rows.append([claim, name, *cells, PAPER.get((claim, measure), "")])
    return markdown_table(["claim", "measure", *kinds, "paper"], rows)


def _cell(row) -> str:
    form = ".0f" if abs(row.mean) >= 100 else ".2f"
    return interval_text(row.mean, row.low, row.high, form)


# --- pictures -------------------------------------------------------------------------------------------------------


def plot_consistency(pairs: pd.DataFrame, summary: pd.DataFrame) -> Figure:
    """A dot for each pair of seeds, the mean with its interval, and in grey what chance leaves."""
    figure = Figure(figsize=(12.5, 3.8), layout="constrained")
    kinds = list(dict.fromkeys(pairs["variant"]))
    kinds.sort(key=lambda kind: kind != UNTRAINED)
    for ax, (measure, title) in zip(
        figure.subplots(1, len(CONSISTENCY), sharey=True), CONSISTENCY.items(), strict=True
    ):
        for place, kind in enumerate(kinds):
            for name, color, shift in ((f"{measure}, by chance", "#aaaaaa", 0.2), (measure, HUES["blue"], 0.0)):
                found = pairs[(pairs["variant"] == kind) & (pairs["measure"] == name)]["value"]
                ax.plot(np.full(len(found), place + shift), found, "o", color=color, markersize=3.5, alpha=0.7)
            row = summary[(summary["variant"] == kind) & (summary["measure"] == measure)].iloc[0]
            half = [[row["mean"] - row["low"]], [row["high"] - row["mean"]]]
            ax.errorbar(place - 0.2, row["mean"], yerr=half, fmt="_", color="black", capsize=3)
        ax.set_xticks(range(len(kinds)), [kind.replace(", ", ",\n") for kind in kinds], fontsize="small")
        ax.set_title(title, fontsize="medium", loc="left")
        ax.axhline(0, color="#888888", linewidth=0.8)
        open_frame(ax)
    figure.supylabel("correlation of two seeds", fontsize="medium")
    figure.suptitle("Do two trainings route alike on the same inputs? Grey: the second one shuffled", fontsize="large")
    return figure


def plot_thresholds(values: pd.DataFrame) -> Figure:
    """Success over all tasks, with weights below a threshold taken away: a thin line for each seed, thick the mean."""
    figure = Figure(figsize=(7.5, 4), layout="constrained")
    ax = figure.subplots()
    for (kind, of_kind), color in zip(values.groupby("variant", sort=False), _HUES, strict=False):
        curves = np.stack([100 * by_seed(of_kind, measure).mean(axis=1) for measure in THRESHOLDS.values()])
        ax.plot(curves, color=color, linewidth=0.7, alpha=0.6)
        ax.plot(curves.mean(1), "o-", color=color, linewidth=2, label=kind)
    ax.set_xticks(range(len(THRESHOLDS)), THRESHOLDS)
    ax.set(
        xlabel="router weights below this are taken away; argmax: all but the largest", ylabel="success, % (12 tasks)"
    )
    ax.set_ylim(0, 101)
    open_frame(ax)
    figure.legend(frameon=False, loc="outside right upper")
    return figure


def plot_pathways(values: pd.DataFrame) -> Figure:
    """How often the pathways are taken, the most frequent first; how much they tell of task and sub-goal."""
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    ranks = [name for name in dict.fromkeys(values["measure"]) if name.startswith("share of rank ")]
    kinds = list(dict.fromkeys(values["variant"]))
    for place, (kind, color) in enumerate(zip(kinds, _HUES, strict=False)):
        of_kind = values[values["variant"] == kind]
        shares = np.stack([by_seed(of_kind, name)[""] for name in ranks])
        left.plot(np.arange(1, len(ranks) + 1), np.where(shares > 0, shares, np.nan), color=color, linewidth=0.8)
        left.plot([], [], color=color, label=kind)
        for measure, marker, shift in (("bits, tasks", "o", -0.15), ("bits, sub-goals", "s", 0.15)):
            found, chance = (by_seed(of_kind, name)[""] for name in (measure, f"{measure}, by chance"))
            right.plot(np.full(len(found), place + shift), found, marker, color=color, markersize=4)
            right.plot(np.full(len(chance), place + shift), chance, marker, color="#aaaaaa", markersize=3)
    left.set(xlabel="pathway, by rank", ylabel="share of steps", yscale="log", ylim=(1e-5, 1))
    right.set_xticks(range(len(kinds)), [kind.replace(", ", ",\n") for kind in kinds], fontsize="small")
    right.set_ylabel("Jensen-Shannon divergence, bits")
    right.set_title("circles: tasks, squares: sub-goals; grey: by chance", fontsize="small", loc="left")
    for ax in (left, right):
        open_frame(ax)
    left.legend(frameon=False, fontsize="small")
    return figure


def plot_difficulty(values: pd.DataFrame, difficulty: pd.DataFrame) -> Figure:
    """LPC, what the lesion of the largest experts costs, and the change of LPC, each against the tasks' difficulty."""
    kinds = list(dict.fromkeys(values["variant"]))
    figure = Figure(figsize=(2.9 * len(kinds), 8), layout="constrained")
    axes = figure.subplots(3, len(kinds), sharex=True, sharey="row", squeeze=False)
    steps = difficulty.set_index("task")["env_steps"].dropna()
    labels = {"lpc": "mean LPC", "share lost by lesion": "share of success lost\nwithout GRU 32"}
    labels |= {"lpc change": "change of LPC"}
    for column, kind in zip(axes.T, kinds, strict=True):
        tables = against_difficulty(values[values["variant"] == kind])
        for ax, name in zip(column, labels, strict=True):
            _scatter(ax, steps, tables[name][steps.index], correlations(tables[name], difficulty))
            if ax in axes[:, 0]:
                ax.set_ylabel(labels[name])
        column[0].set_title(f"{kind}\n{column[0].get_title(loc='left')}", fontsize="medium", loc="left")
    figure.supxlabel("difficulty: environment steps until a GRU solves 90 %", fontsize="medium")
    return figure


def _scatter(ax: Axes, steps: pd.Series, table: pd.DataFrame, found: np.ndarray) -> None:
    """A task at its difficulty: small dots for seeds, a large one for their mean; in the title r over the tasks."""
    for row in table.to_numpy():
        ax.plot(steps, row, "o", color=HUES["sky"], markersize=2.5, alpha=0.6)
    ax.plot(steps, table.mean(), "o", color=HUES["blue"], markersize=5)
    ax.set_title(f"r {interval_text(*over_seeds(found, is_r=True), '.2f')}", fontsize="small", loc="left")
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(plain_number)
    open_frame(ax)
