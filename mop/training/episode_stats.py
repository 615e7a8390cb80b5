"""Outcomes of the episodes of a training run: counters since its beginning, and rates over the latest episodes."""

import math
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mop.common.errors import InputError
from mop.common.task_mix import TaskSlots
from mop.envs.teacher import FAILURE_KINDS
from mop.envs.vector_env import StepArrays

RECENT_EPISODES = 100  # the rates are over so many


class Episode(NamedTuple):
    """An episode that has ended."""

    success: float  # 0 or 1
    path_ratio: float  # its steps over the bot's; 0 where it failed, or the bot's are not known
    is_own: bool  # whether the bot could not act in it


class EpisodeStats:
    """Counters of episodes and of the bot's failures, and rates over the latest episodes.

    The rates are over the episodes that began last among those before which no episode is still in progress. Episodes
    that ended last would be short ones while long ones go on, and most of these fail. Episodes that ended by a failure
    of the bot do not count in the rates. Where the slots are of several tasks, `by_task` has those of each as well.
    """

    def __init__(self, num_envs: int, tasks: Sequence[TaskSlots] = ()):
        slots = [(task, range(num_envs)[task.slots]) for task in tasks] if len(tasks) > 1 else []
        self.by_task = [(task, EpisodeStats(len(of_task))) for task, of_task in slots]
        self.counts = {name: 0 for name in ("episodes", "bot_plan_failures", *FAILURE_KINDS)}
        self.recent: deque[Episode] = deque(maxlen=RECENT_EPISODES)  # in the order in which they began
        self._waiting: list[tuple[int, int, Episode]] = []  # step of the beginning, slot: an earlier one goes on
        self._step = 0  # steps of a slot so far
        self._begun = np.zeros(num_envs, np.int64)  # step at which the episode in progress began
        self._has_bot = np.zeros(num_envs, bool)  # whether the bot could act in the episode in progress

    def reset(self, arrays: StepArrays) -> None:
        """Count the worlds that were passed over in a reset."""
        self.counts["bot_plan_failures"] += int(arrays.fresh_failures.sum())
        for task, stats in self.by_task:
            stats.reset(arrays.of(task.slots))

    def add(self, arrays: StepArrays, bot_may_act: bool) -> None:
        """Count the episodes that ended in an unroll (T, N, ...), in which the bot could act in the student's place."""
        self.counts["bot_plan_failures"] += int(arrays.fresh_failures.sum())
        self._has_bot |= bot_may_act
        for t, slot in zip(*np.nonzero(arrays.done), strict=True):  # in the order of time
            self._end(arrays, int(t), int(slot))
            self._begun[slot], self._has_bot[slot] = self._step + t + 1, bot_may_act
        self._step += len(arrays.done)
        earliest = self._begun.min()
        self.recent.extend(episode for begun, _, episode in sorted(self._waiting) if begun < earliest)
        self._waiting = [waiting for waiting in self._waiting if waiting[0] >= earliest]
        for task, stats in self.by_task:
            stats.add(arrays.of(task.slots), bot_may_act)

    def _end(self, arrays: StepArrays, t: int, slot: int) -> None:
        if (failure := arrays.failure[t, slot]) >= 0:
            self.counts[FAILURE_KINDS[failure]] += 1
            return
        self.counts["episodes"] += 1
        bot_steps = int(arrays.bot_steps[t, slot])
        path_ratio = int(arrays.steps[t, slot]) / bot_steps if bot_steps > 0 else 0.0
        episode = Episode(float(arrays.reward[t, slot] > 0), path_ratio, not self._has_bot[slot])
        self._waiting.append((int(self._begun[slot]), slot, episode))

    def summary(self) -> dict[str, float]:
        """Success rate and path ratio of the latest episodes, NaN before the first, and the counters.

        Of the same `recent_episodes`, `student_episodes` are those in which the bot could not act;
        `student_success_rate` is theirs, NaN where there is none.
        `bot_plan_failures` are worlds that the bot could not begin, `failures_<kind>` episodes that it could not end.
        Of each of several tasks, `success_rate_<name>` is of its own latest episodes.
        """
        ratios = [episode.path_ratio for episode in self.recent if episode.path_ratio > 0]
        own = [episode.success for episode in self.recent if episode.is_own]
        recent = {"success_rate": _mean([episode.success for episode in self.recent]), "path_ratio": _mean(ratios)}
        recent |= {f"failures_{k}" if k in FAILURE_KINDS else k: v for k, v in self.counts.items()}
        return recent | {
            "student_success_rate": _mean(own),
            "student_episodes": len(own),
            "recent_episodes": len(self.recent),
            **{f"success_rate_{task.name}": stats.summary()["success_rate"] for task, stats in self.by_task},
        }

    def state(self) -> dict:
        """Lists and numbers, for `load_state`."""
        waiting = [[begun - self._step, slot, *map(float, episode)] for begun, slot, episode in self._waiting]
        by_task = {"by_task": {task.task_id: stats.state() for task, stats in self.by_task}}
        own = {
            "counts": dict(self.counts),
            "recent": [list(map(float, episode)) for episode in self.recent],
            "waiting": waiting,
            "begun": (self._begun - self._step).tolist(),
            "has_bot": self._has_bot.tolist(),
        }
        return own | (by_task if self.by_task else {})

    def form(self, state: Mapping) -> dict:
        """Make the form of `state` for `states.check_form`; older states have other rates, which begin anew."""
        form: dict[str, Any] = {"counts": self.counts}
        if self.by_task:
            form["by_task"] = {task.task_id: tally.form(state["by_task"][task.task_id]) for task, tally in self.by_task}
        later = {"recent": [[0.0]], "waiting": [[0.0]], "begun": [0], "has_bot": [False]}
        return form | {name: like for name, like in later.items() if name in state}

    def load_state(self, state: dict, has_teacher: bool) -> None:
        """Restore what `state()` returned; other keys are ignored.

        has_teacher: whether the bot acts at all in this run; an older state does not tell in which episodes it did.
        """
        num_envs = len(self._begun)
        self.counts = dict(state["counts"])
        begun, has_bot = state.get("begun", [0] * num_envs), state.get("has_bot", [has_teacher] * num_envs)
        if len(begun) != num_envs or len(has_bot) != num_envs:
            raise InputError("'begun' or 'has_bot' has not an item for each environment")
        self._step, self._begun, self._has_bot = 0, np.array(begun), np.array(has_bot)
        try:
            self.recent = deque((_episode(*row) for row in state.get("recent", [])), RECENT_EPISODES)
            self._waiting = [(start, slot, _episode(*row)) for start, slot, *row in state.get("waiting", [])]
        except (TypeError, ValueError):
            raise InputError("'recent' or 'waiting' holds no episodes") from None
        for task, stats in self.by_task:
            stats.load_state(state["by_task"][task.task_id], has_teacher)


def _episode(success: float, path_ratio: float, is_own: float) -> Episode:
    return Episode(success, path_ratio, bool(is_own))


def _mean(values: Collection[float]) -> float:
    return sum(values) / len(values) if values else math.nan
