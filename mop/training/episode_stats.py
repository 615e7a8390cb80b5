"""Outcomes of the episodes of a training run: counters since its beginning, and rates over the latest episodes."""

import math
from collections import deque
from collections.abc import Collection, Sequence

import numpy as np

from mop.common.errors import InputError
from mop.common.task_mix import TaskSlots
from mop.envs.teacher import FAILURE_KINDS
from mop.envs.vector_env import StepArrays

RECENT_EPISODES = 100  # the rates are over so many


class EpisodeStats:
    """Counters of episodes and of the bot's failures. Episodes that ended by a failure do not count in the rates."""

    def __init__(self, num_envs: int):
        self.counts = {name: 0 for name in ("episodes", "bot_plan_failures", *FAILURE_KINDS)}
        self.recent_success: deque[float] = deque(maxlen=RECENT_EPISODES)
        self.recent_path_ratio: deque[float] = deque(maxlen=RECENT_EPISODES)
        self.recent_alone: deque[bool] = deque(maxlen=RECENT_EPISODES)  # whether the student acted throughout
        self._bot_acted = np.zeros(num_envs, bool)  # in the episodes in progress

    def reset(self, arrays: StepArrays) -> None:
        """Count the worlds that were passed over in a reset."""
        self.counts["bot_plan_failures"] += int(arrays.fresh_failures.sum())

    def add(self, arrays: StepArrays, bot_acts: np.ndarray) -> None:
        """Count the episodes that ended in an unroll (T, N, ...); bot_acts (T, N) bool: the bot's turns."""
        self.counts["bot_plan_failures"] += int(arrays.fresh_failures.sum())
        bot_acted = self._follow(arrays.done, bot_acts)
        for i in zip(*np.nonzero(arrays.done), strict=True):  # in the order of time
            if arrays.failure[i] >= 0:
                self.counts[FAILURE_KINDS[arrays.failure[i]]] += 1
                continue
            self.counts["episodes"] += 1
            self.recent_success.append(float(arrays.reward[i] > 0))
            self.recent_alone.append(not bot_acted[i])
            if arrays.bot_steps[i] > 0:
                self.recent_path_ratio.append(float(arrays.steps[i] / arrays.bot_steps[i]))

    def _follow(self, done: np.ndarray, bot_acts: np.ndarray) -> np.ndarray:
        """(T, N) bool: whether the bot has acted in the episode, up to each step of an unroll."""
        bot_acted = np.empty_like(bot_acts)
        for t, turns in enumerate(bot_acts):
            bot_acted[t] = self._bot_acted | turns
            self._bot_acted = bot_acted[t] & ~done[t]
        return bot_acted

    def summary(self) -> dict[str, float]:
        """Success rate and path ratio of the latest episodes, NaN before the first, and the counters.

        Of the same episodes, `student_episodes` are those in which the student acted throughout, the bot never;
        `student_success_rate` is theirs, NaN where there is none.
        `bot_plan_failures` are worlds that the bot could not begin, `failures_<kind>` episodes that it could not end.
        """
        recent = {"success_rate": _mean(self.recent_success), "path_ratio": _mean(self.recent_path_ratio)}
        own = [success for success, is_alone in zip(self.recent_success, self.recent_alone, strict=True) if is_alone]
        recent |= {f"failures_{k}" if k in FAILURE_KINDS else k: v for k, v in self.counts.items()}
        return recent | {"student_success_rate": _mean(own), "student_episodes": len(own)}

    def state(self) -> dict:
        """Lists and numbers, for `load_state`."""
        rates = {"recent_success": list(self.recent_success), "recent_path_ratio": list(self.recent_path_ratio)}
        turns = {"recent_alone": list(self.recent_alone), "bot_acted": self._bot_acted.tolist()}
        return rates | turns | {"counts": dict(self.counts)}

    def form(self, state: dict) -> dict:
        """Make the form of `state` for `states.check_form`; older states lack some keys."""
        form = {"counts": self.counts, "recent_success": [0.0], "recent_path_ratio": [0.0]}
        later = {"recent_alone": [False], "bot_acted": [False]}
        return form | {name: like for name, like in later.items() if name in state}

    def load_state(self, state: dict, has_teacher: bool) -> None:
        """Restore what `state()` returned; other keys are ignored.

        has_teacher: whether the bot acts at all in this run; an older state does not tell in which episodes it did.
        """
        self.recent_success = deque(state["recent_success"], RECENT_EPISODES)
        self.recent_path_ratio = deque(state["recent_path_ratio"], RECENT_EPISODES)
        alone = state.get("recent_alone", [not has_teacher] * len(self.recent_success))
        self.recent_alone = deque(alone, RECENT_EPISODES)
        bot_acted = state.get("bot_acted", [has_teacher] * len(self._bot_acted))
        if len(alone) != len(self.recent_success) or len(bot_acted) != len(self._bot_acted):
            raise InputError("'recent_alone' or 'bot_acted' has not an item for each episode or environment")
        self._bot_acted = np.array(bot_acted)
        self.counts = dict(state["counts"])


class TaskStats(EpisodeStats):
    """Statistics of all slots and, where they are of several tasks, of the slots of each."""

    def __init__(self, num_envs: int, tasks: Sequence[TaskSlots]):
        super().__init__(num_envs)
        slots = [range(num_envs)[task.slots] for task in tasks]
        self.by_task = [(task, EpisodeStats(len(of_task))) for task, of_task in zip(tasks, slots, strict=True)]
        self.by_task = self.by_task if len(tasks) > 1 else []

    def reset(self, arrays: StepArrays) -> None:
        super().reset(arrays)
        for task, stats in self.by_task:
            stats.reset(arrays.of(task.slots))

    def add(self, arrays: StepArrays, bot_acts: np.ndarray) -> None:
        super().add(arrays, bot_acts)
        for task, stats in self.by_task:
            stats.add(arrays.of(task.slots), bot_acts[:, task.slots])

    def summary(self) -> dict[str, float]:
        """As of one `EpisodeStats`, and of each task `success_rate_<name>`, of its own latest episodes."""
        rates = {f"success_rate_{task.name}": stats.summary()["success_rate"] for task, stats in self.by_task}
        return super().summary() | rates

    def state(self) -> dict:
        by_task = {"by_task": {task.task_id: stats.state() for task, stats in self.by_task}}
        return super().state() | (by_task if self.by_task else {})

    def form(self, state: dict) -> dict:
        by_task = {task.task_id: tally.form(state["by_task"][task.task_id]) for task, tally in self.by_task}
        return super().form(state) | ({"by_task": by_task} if by_task else {})

    def load_state(self, state: dict, has_teacher: bool) -> None:
        super().load_state(state, has_teacher)
        for task, stats in self.by_task:
            stats.load_state(state["by_task"][task.task_id], has_teacher)


def _mean(values: Collection[float]) -> float:
    return sum(values) / len(values) if values else math.nan
