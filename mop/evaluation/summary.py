"""The results table as batch_eval.py and the cloud show it."""

import pandas as pd


def format_table(table: pd.DataFrame) -> str:
    """The results table for a terminal."""
    if table.empty:
        return "no results yet"
    names = ("success_rate", "success_low", "success_high", "path_ratio", "mean_lpc")
    # rows of other programs may hold anything
    table = table.assign(**{name: pd.to_numeric(table[name], errors="coerce").astype(float) for name in names})
    bounds = zip(table["success_low"], table["success_high"], strict=True)
    shown = pd.DataFrame(
        {
            "task": table["task_id"],
            **({"trained on": table["trained_on"].fillna("-")} if table["trained_on"].notna().any() else {}),
            "trial": table["trial"],
            "seed": table["seed"].astype(object).where(table["seed"].notna(), "-"),
            "update": table["update"],
            "policy": table["policy"],
            "success": [f"{rate:.1%}" for rate in table["success_rate"]],
            "95 % interval": [f"{low:.1%} to {high:.1%}" for low, high in bounds],
            "path ratio": [f"{ratio:.3f}" for ratio in table["path_ratio"]],
            "mean LPC": [f"{lpc:.1f}" for lpc in table["mean_lpc"]],
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
