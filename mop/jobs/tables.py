"""The results table as batch_eval.py and the cloud show it, and what they do about one that is not theirs."""

import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from mop.store.results import ADDED_COLUMNS


def format_table(table: pd.DataFrame) -> str:
    """The results table for a terminal."""
    if table.empty:
        return "no results yet"
    table = table.astype({name: float for name in ("success_rate", "success_low", "success_high")})
    bounds = zip(table["success_low"], table["success_high"], strict=True)
    shown = pd.DataFrame(
        {
            "task": table["task_id"],
            "trial": table["trial"],
            "seed": table["seed"].astype(object).where(table["seed"].notna(), "-"),
            "update": table["update"],
            "policy": table["policy"],
            "success": [f"{rate:.1%}" for rate in table["success_rate"]],
            "95 % interval": [f"{low:.1%} to {high:.1%}" for low, high in bounds],
            "path ratio": [f"{ratio:.3f}" for ratio in table["path_ratio"].astype(float)],
            "mean LPC": [f"{lpc:.1f}" for lpc in table["mean_lpc"].astype(float)],
            "episodes": table["num_episodes"],
        }
    )
    return shown.to_string(index=False)


def note_other_worlds(table: pd.DataFrame, num_episodes: int, eval_seed: int) -> None:
    """Print how many rows were made in other worlds than those that are asked for now."""
    asked = {"num_episodes": num_episodes, "eval_seed": eval_seed}
    known = [name for name in asked if name in table]
    num_others = int((table[known] != pd.Series(asked)[known]).any(axis=1).sum())
    if num_others:
        print(f"{num_others} of these were made with other --num_episodes or --eval_seed; --force makes them anew")


def keep_foreign_table(results_path: Path) -> None:
    """Move a table that another program made aside before it is replaced, as it is no merge of our results."""
    try:
        columns = pd.read_csv(results_path, nrows=0).columns
    except FileNotFoundError:
        return
    except (ValueError, OSError):
        columns = []
    if not set(ADDED_COLUMNS) <= set(columns):
        # no two processes give the same name: the second would replace what the first has kept
        kept = results_path.with_name(f"{results_path.stem}.{datetime.now(UTC):%Y%m%dT%H%M%S}.{os.getpid()}.csv")
        with suppress(FileNotFoundError):  # another process was faster
            os.replace(results_path, kept)
            print(f"{results_path} was not made by this program; it is kept as {kept}")
