"""How the episodes of a training run ended: counters since its beginning, and rates over the latest episodes."""

import math
from collections import deque

import numpy as np

from mop.worlds.teacher import FAILURE_KINDS
from mop.worlds.vector_env import StepArrays

RECENT_EPISODES = 100  # the rates are over so many


class EpisodeTally:
    """Counters of episodes and of the bot's failures. Episodes that ended by a failure do not count in the rates."""

    def __init__(self):
        self.counts = {name: 0 for name in ("episodes", "bot_plan_failures", *FAILURE_KINDS)}
        self.recent_success: deque[float] = deque(maxlen=RECENT_EPISODES)
        self.recent_path_ratio: deque[float] = deque(maxlen=RECENT_EPISODES)

    def add(self, arrays: StepArrays) -> None:
        """Count the episodes that ended in a reset, a step (N, ...) or an unroll (T, N, ...)."""
        self.counts["bot_plan_failures"] += int(arrays.fresh_failures.sum())
        for i in zip(*np.nonzero(arrays.done), strict=True):  # in the order of time
            if arrays.failure[i] >= 0:
                self.counts[FAILURE_KINDS[arrays.failure[i]]] += 1
                continue
            self.counts["episodes"] += 1
            self.recent_success.append(float(arrays.reward[i] > 0))
            if arrays.bot_steps[i] > 0:
                self.recent_path_ratio.append(float(arrays.steps[i] / arrays.bot_steps[i]))

    def summary(self) -> dict[str, float]:
        """Success rate and path ratio of the latest episodes, NaN before the first, and the counters.

        `bot_plan_failures` are worlds that the bot could not begin, `failures_<kind>` episodes that it could not end.
        """
        recent = {"success_rate": _mean(self.recent_success), "path_ratio": _mean(self.recent_path_ratio)}
        return recent | {f"failures_{k}" if k in FAILURE_KINDS else k: v for k, v in self.counts.items()}

    def state(self) -> dict:
        """Lists and numbers, for `load_state`."""
        rates = {"recent_success": list(self.recent_success), "recent_path_ratio": list(self.recent_path_ratio)}
        return rates | {"counts": dict(self.counts)}

    def load_state(self, state: dict) -> None:
        """Go on from what `state()` returned; other keys are left alone."""
        self.recent_success = deque(state["recent_success"], RECENT_EPISODES)
        self.recent_path_ratio = deque(state["recent_path_ratio"], RECENT_EPISODES)
        self.counts = dict(state["counts"])


def _mean(values: deque[float]) -> float:
    return sum(values) / len(values) if values else math.nan
