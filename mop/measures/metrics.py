"""The measures of an evaluation; their only home."""

import math
from collections.abc import Mapping, Sequence

import numpy as np


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """95 % interval of a success probability (Wilson 1927, score interval without continuity correction)."""
    z = 1.959963984540054
    centre = (successes + z * z / 2) / (trials + z * z)
    half = z / (trials + z * z) * math.sqrt(successes * (trials - successes) / trials + z * z / 4)
    return max(0.0, centre - half), min(1.0, centre + half)


def compute_metrics(episodes: Sequence[Mapping], lpc: np.ndarray | None, bot_plan_failures: int) -> dict[str, float]:
    """The measures of an evaluation; their only home.

    success_rate: successes / episodes (success is reward > 0), with its 95 % Wilson interval success_low, success_high.
    path_ratio: mean over the successes of steps / the bot's steps in the same world; 1 is as short as the bot's, NaN
    without a success. mean_lpc: mean over all steps of all episodes of lpc (S,), NaN without routing.
    bot_plan_failures: worlds of the list that were replaced because the bot cannot solve them.
    """
    successes = [episode for episode in episodes if episode["success"]]
    low, high = wilson_interval(len(successes), len(episodes))
    ratios = [episode["steps"] / episode["expert_steps"] for episode in successes]
    return {
        "success_rate": len(successes) / len(episodes),
        "success_low": low,
        "success_high": high,
        "path_ratio": float(np.mean(ratios)) if ratios else math.nan,
        "mean_lpc": float(np.mean(lpc, dtype=np.float64)) if lpc is not None and len(lpc) else math.nan,
        "mean_steps": float(np.mean([episode["steps"] for episode in episodes])),
        "bot_plan_failures": bot_plan_failures,
    }


def format_metrics(metrics: Mapping[str, float], num_episodes: int) -> str:
    """The metrics as lines for a person."""
    interval = f"95 % interval {metrics['success_low']:.1%} to {metrics['success_high']:.1%}, {num_episodes} episodes"
    lines = {
        "success rate": f"{metrics['success_rate']:.1%}  ({interval})",
        "path ratio": f"{metrics['path_ratio']:.3f}  (steps / the bot's steps, successes only)",
        "mean LPC": f"{metrics['mean_lpc']:.1f}",
        "mean steps": f"{metrics['mean_steps']:.1f}",
        "bot plan failures": str(metrics["bot_plan_failures"]),
    }
    if math.isnan(metrics["mean_lpc"]):  # the bot has none
        del lines["mean LPC"]
    return "\n".join(f"{name:<19}{value}" for name, value in lines.items())
