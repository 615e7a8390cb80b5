"""The tasks of one policy: their weights, the name of their list, and the slots and share of the loss of each."""

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple

from mop.common.errors import InputError

MAX_NAME_BYTES = 200  # of a list of tasks: files beside its folder have longer names
_MAX_NAME = 60  # characters of a name that is made of the tasks' names
_TASK_ID = re.compile(r"BabyAI-\w+-v[0-9]+", re.ASCII)


def is_task_id(name: str) -> bool:
    """Whether a name has the form of a task's id, which the name of a list of tasks must not have."""
    return _TASK_ID.fullmatch(name) is not None


def task_name(task_id: str) -> str:
    """A task id without what all task ids share: "UnlockPickup"."""
    return task_id.removeprefix("BabyAI-").removesuffix("-v0")


def name_of_list(task_ids: Sequence[str]) -> str:
    """What a list of tasks is called if nobody named it: "GoToObj+UnlockPickup", cut where it is long.

    Behind the cut stands a digest of the whole, so that other lists have other names.
    """
    name = "+".join(map(task_name, task_ids))
    if len(name) <= _MAX_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: _MAX_NAME - len(digest) - 1]}-{digest}"


def name_of_run(task_ids: Sequence[str], name: str | None = None) -> str:
    """What a run is called on disk; name: given by the user, None for the task's own, or one made of several names."""
    named = name or (task_ids[0] if len(task_ids) == 1 else name_of_list(task_ids))
    is_taken = is_task_id(named) or "," in named or len(named.encode()) > MAX_NAME_BYTES
    if is_taken and list(task_ids) != [named]:
        raise InputError(f"--name must be no task's id, without commas, and not longer than a folder's, not {named!r}")
    return named


def tasks_of(config: Mapping) -> list[tuple[str, float]]:
    """The tasks that a config's policy is trained on, with their weights; of most configs one."""
    return [(task_id, weight) for task_id, weight in config.get("tasks") or [(config["task_id"], 1.0)]]


class TaskSlots(NamedTuple):
    """A task of a run: its share of the loss, of 1, and which of the run's slots show its worlds."""

    task_id: str
    share: float
    slots: slice

    @property
    def name(self) -> str:
        """What it is called in columns of the log."""
        return task_name(self.task_id)


def slots_by_task(config: Mapping) -> list[TaskSlots]:
    """The tasks of a config in their order, each with the next of the slots 0 ... `num_envs` - 1."""
    tasks = tasks_of(config)
    if len(tasks) > config["num_envs"]:
        raise InputError(f"{len(tasks)} tasks need at least {len(tasks)} slots: --num_envs is {config['num_envs']}")
    weights = [weight for _, weight in tasks]
    found, first = [], 0
    for (task_id, weight), count in zip(tasks, share_out(config["num_envs"], weights), strict=True):
        found.append(TaskSlots(task_id, weight / math.fsum(weights), slice(first, first + count)))
        first += count
    return found


def share_out(num_slots: int, weights: Sequence[float]) -> list[int]:
    """How many slots each weight gets: at least one, the others by the method of the largest remainder.

    Weights whose quota is below one get one slot and are left out of the account. Of equal remainders, the first wins.
    """
    counts, rest, left = [1] * len(weights), list(range(len(weights))), num_slots
    while True:
        total = sum(Fraction(weights[i]) for i in rest)
        quotas = {i: Fraction(weights[i]) * left / total for i in rest}
        small = [i for i in rest if quotas[i] < 1]
        if not small:
            break
        rest, left = [i for i in rest if i not in small], left - len(small)
    whole = {i: math.floor(quotas[i]) for i in rest}
    num_more = left - sum(whole.values())
    for place, i in enumerate(sorted(rest, key=lambda i: whole[i] - quotas[i])):
        counts[i] = whole[i] + (place < num_more)
    return counts
