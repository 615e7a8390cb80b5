"""Success, path ratio and cost of an evaluation: what they are, and their denominators."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from mop.statistics.intervals import wilson_interval


def compute_metrics(episodes: Sequence[Mapping], lpc: np.ndarray | None, bot_plan_failures: int) -> dict[str, float]:
    """Compute the measures of an evaluation.

    episodes: with `success` (reward > 0), `steps`, and the bot's steps in the same world as `expert_steps`; lpc: of all
    S steps of all episodes, (S,) float, or None.
    success_rate: successes / episodes; success_low, success_high: its 95 % Wilson interval. path_ratio: mean over the
    successes of steps / the bot's steps, so 1 is as short as the bot's path; NaN without a success. mean_lpc: mean of
    lpc; NaN without it. mean_steps: mean over the episodes. bot_plan_failures, as given: worlds that were replaced
    because the bot cannot solve them.
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
    """Format the metrics as lines."""
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
