"""Runs beside each other: the table of results, success against cost, routing side by side."""

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from mop.base.configuration import Parser
from mop.base.errors import InputError
from mop.measures.metrics import interval_of_rate
from mop.pages.figures import save_figures
from mop.pages.flags import parse
from mop.pages.routing import load_routing
from mop.pages.runs import Run, find_cached_runs
from mop.plotting.style import task_name
from mop.store.results import load_results
from plotting_utils import plot_routing_side_by_side, plot_success_against_lpc

if TYPE_CHECKING:
    import pandas as pd

TABLE_COLUMNS = (
    *("task_id", "trial", "seed", "update", "policy", "success_rate", "success_low", "success_high", "path_ratio"),
    *("mean_lpc", "lpc_alpha", "num_episodes"),
)
POLICIES = {"mixture": "mop", "GRU baseline": "gru"}  # what a policy is called on the page -> its name in the table
NUM_COMPARED = 3  # runs side by side at first
COLORS = {"task": "task_id", "lpc_alpha": "lpc_alpha"}  # what points may be coloured by -> the column


def load_table(cache_dir: str, results_paths: Sequence[str | Path]) -> tuple["pd.DataFrame", list[str]]:
    """A row for each evaluated checkpoint, in TABLE_COLUMNS, and what could not be read.

    First the results below `cache_dir`, then the rows of the tables for checkpoints that have no result there; the
    intervals that older tables lack are filled in. Raises InputError if there is no row.
    """
    import pandas as pd

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tables = [load_results(cache_dir)]
    problems = [str(warning.message) for warning in caught]
    for path in map(Path, results_paths):
        try:
            if path.exists():
                tables.append(pd.read_csv(path))
        except (ValueError, OSError) as error:
            problems.append(f"{path}: it is no table ({error})")
    rows = pd.concat([_comparable(table) for table in tables], ignore_index=True)
    rows = rows.drop_duplicates(["task_id", "trial", "seed", "update"]).infer_objects().reset_index(drop=True)
    if rows.empty:
        places = " and ".join(map(str, results_paths))
        raise InputError(f"there is no result under {cache_dir}/, nor in {places}: `python batch_eval.py` makes some")
    return rows, problems


def plot_tradeoff(table: "pd.DataFrame", color_by: str, policy: str | None) -> Figure:
    """Success against LPC, coloured by one of COLORS, of one policy ("mop" or "gru") or of all.

    Rows without a value of the column are left out; so are tasks with a single value if other tasks have several.
    Raises InputError if no row is left.
    """
    column = COLORS[color_by]
    rows = table if policy is None else table[table["policy"] == policy]
    rows = rows[rows[column].notna()].sort_values(column, kind="stable")
    if rows.empty:
        raise InputError(f"no result of this policy has a value of {color_by}")
    varies = rows.groupby("task_id")[column].transform("nunique") > 1
    rows = rows[varies] if varies.any() else rows
    return plot_success_against_lpc(rows.assign(task_id=rows["task_id"].map(task_name)), column, color_by)


def plot_comparison(chosen: Sequence[Run]) -> Figure:
    """The routing of some cached runs side by side.

    Raises InputError as `load_routing` and `plot_routing_side_by_side`.
    """
    return plot_routing_side_by_side({run.key.label.replace(" ", "\n", 1): load_routing(run) for run in chosen})


def save_comparison(parser: Parser) -> None:
    """The app of many runs as a script: save the figures across runs.

    Raises InputError if a flag is wrong, there is no result, or no figure can be drawn.
    """
    args = parse(parser)
    table, problems = load_table(args.cache_dir, args.results_path)
    print(*problems, sep="\n", end="\n" if problems else "", file=sys.stderr)
    figures = {f"success_against_lpc_by_{name}": lambda name=name: plot_tradeoff(table, name, "mop") for name in COLORS}
    figures["routing_side_by_side"] = lambda: plot_comparison(
        list(find_cached_runs(args.checkpoint_dir, args.cache_dir).values())[:NUM_COMPARED]
    )
    save_figures(figures, args.plots_dir)


def _comparable(table: "pd.DataFrame") -> "pd.DataFrame":
    """TABLE_COLUMNS of the rows that have a result; `update` of periodic checkpoints only, as in their keys."""
    rows = table.reindex(columns=[*TABLE_COLUMNS, "is_final"]).astype(object)
    rows["update"] = rows["update"].where(rows.pop("is_final") != True)  # noqa: E712 - it may be missing
    rows["policy"] = rows["policy"].fillna("mop")
    rows = rows[rows[["task_id", "trial", "success_rate", "mean_lpc"]].notna().all(axis=1)].copy()
    for index, row in rows[rows["success_low"].isna() & rows["num_episodes"].notna()].iterrows():
        interval = interval_of_rate(row["success_rate"], int(row["num_episodes"]))
        rows.loc[index, ["success_low", "success_high"]] = interval
    return rows
