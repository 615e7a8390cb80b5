"""What an imitation run reports: the columns of its log and how they are shown, and what its user is warned of."""

import math
from collections import defaultdict
from collections.abc import Sequence

from mop.envs.teacher import FAILURE_KINDS
from mop.training.log import Columns, Row
from mop.training.loss import ComplexityPenalty

WORST_SHOWN = 3  # tasks that the closing lines name
COLLAPSED_SHARE = 0.98  # mean weight of the skip experts from which routing counts as collapsed


def column(measure: str, task: str = "") -> str:
    """The column of a measure, of all tasks together or of the one with this name (`TaskSlots.name`)."""
    return f"{measure}_{task}" if task else measure


def success_by_task(row: Row) -> dict[str, float]:
    """The success rate of each task by its name, the worst first; empty where there is one, or no episode yet."""
    rates = {name: rate for name, rate in row.items() if name.startswith("success_rate_") and not math.isnan(rate)}
    return {name.removeprefix("success_rate_"): rates[name] for name in sorted(rates, key=lambda name: rates[name])}


def _mean(rates: dict[str, float]) -> float:
    return sum(rates.values()) / len(rates)


def bar_text(row: Row) -> str:
    """The latest row beside the progress bar, the most important first: a narrow terminal cuts off its end."""
    bot = f" bot {row['bot_share']:.0%}" if row["bot_share"] > 0 else ""
    success = "warm-up" if math.isnan(row["success_rate"]) else f"{row['success_rate']:.0%}"
    if _has_bot(row):  # then this is not the student's alone
        num_own = row["student_episodes"]
        own = f"{row['student_success_rate']:.0%} of {num_own:.0f} alone, " if num_own else ""
        success = f"{own}{success} with the bot"
    if rates := success_by_task(row):
        worst, rate = next(iter(rates.items()))
        success = f"mean {_mean(rates):.0%} of {len(rates)} tasks, worst {worst} {rate:.0%}"
        success += " with the bot" if _has_bot(row) else ""
    path = "" if math.isnan(row["path_ratio"]) else f" path {row['path_ratio']:.2f}"
    return (
        f"success {success} loss {row['loss']:.3f} acc {row['accuracy']:.1%} lpc {row['lpc']:.0f}"
        f"{path}{bot} {row['steps_per_s']:.0f} steps/s"
    )


def _has_bot(row: Row) -> bool:
    """Whether the bot acted in some of the latest episodes; False where an older log does not tell."""
    return row["student_episodes"] < row["recent_episodes"]


def _recent_success(row: Row) -> str:
    num_recent, num_own = row["recent_episodes"], row["student_episodes"]
    if num_recent == 0:
        return "not known: no episode that began early enough has ended"
    if not _has_bot(row):
        return f"{row['success_rate']:.1%} of the last {num_recent:.0f} episodes"
    if num_own == 0:
        return f"not known: the bot acted in the last {num_recent:.0f} episodes ({row['success_rate']:.1%} with it)"
    return (
        f"{row['student_success_rate']:.1%} of the {num_own:.0f} of the last {num_recent:.0f} episodes "
        f"in which the bot did not act ({row['success_rate']:.1%} of all)"
    )


def closing_lines(row: Row) -> dict[str, str]:
    """The end of a run in words."""
    row = defaultdict(lambda: math.nan, row)  # of a log that an earlier version began, it may lack some columns
    later = ", ".join(f"{k} {row[f'failures_{k}']:.0f}" for k in FAILURE_KINDS if row[f"failures_{k}"] > 0)
    share = row["bot_share"]
    teacher = {"teacher": f"the bot still acted in {share:.1%} of the steps of the log's last row"}
    rates = success_by_task(row)
    worst = ", ".join(f"{name} {rate:.0%}" for name, rate in list(rates.items())[:WORST_SHOWN])
    by_task = {"by task": f"mean {_mean(rates):.1%} of {len(rates)}, lowest: {worst}"} if rates else {}
    return {
        "updates": f"{row['update']:.0f} ({row['env_steps']:,.0f} environment steps, {row['seconds']:.0f} s)",
        "recent success": _recent_success(row),
        **by_task,
        **(teacher if share > 0 else {}),
        "path ratio": f"{row['path_ratio']:.2f} (1 = as short as the bot's)",
        "accuracy": f"{row['accuracy']:.1%} of the bot's labels",
        "LPC": f"{row['lpc']:.0f}",
        "bot failures": f"{row['bot_plan_failures']:.0f} worlds that it could not begin; later {later or 'none'}",
    }


COLUMNS = Columns(("env_steps",), {"steps_per_s": "env_steps"}, bar_text, closing_lines)


def reward_for_errors(cross_entropy: float, lpc: float, penalty: ComplexityPenalty) -> str | None:
    """The warning that a rise of the cross-entropy now lowers the loss.

    If gradients flow through the denominator, this is so below cross-entropy = sqrt(alpha x LPC) - eps. lpc: the mean.
    """
    if not penalty.normalize or penalty.detach or penalty.alpha == 0.0:
        return None
    threshold = math.sqrt(penalty.alpha * lpc) - penalty.eps
    if cross_entropy >= threshold:
        return None
    return (
        f"the cross-entropy {cross_entropy:.4f} fell below sqrt(lpc_alpha * LPC) - lpc_eps = "
        f"{threshold:.4f}: from here on the normalised loss rewards errors; "
        "consider --lpc_detach, a larger --lpc_eps or a smaller --lpc_alpha"
    )


def collapse(skip_shares: Sequence[float], lpc: float, is_residual: bool, alpha: float) -> str | None:
    """The warning that every layer skips: then the policy is nearly linear and has no memory, and routing means little.

    skip_shares: the mean weight of each layer's skip experts, 0 where a layer has none; lpc: the mean.
    """
    if not skip_shares or min(skip_shares) < COLLAPSED_SHARE:
        return None
    remedies = [] if is_residual else ["--residual", "a larger --expert_gain"]
    remedies += ["a larger --lr", "a larger --replay"]
    remedies += ["a smaller --lpc_alpha"] * (alpha > 0)
    return (
        f"the routing has collapsed: every layer gives {min(skip_shares):.1%} or more to its skip experts (mean LPC "
        f"{lpc:.0f}); it may come back; {' or '.join(remedies)} can prevent it"
    )
