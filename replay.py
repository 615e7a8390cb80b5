"""Unrolls of earlier updates, to be learned from again: the aggregated data of DAgger, bounded in size.

Ross, Gordon and Bagnell (2011), "A Reduction of Imitation Learning and Structured Prediction to No-Regret Online
Learning". Axis letters: K unrolls kept, T steps, N environments, O numbers of an observation, S hidden units.
"""

from collections import deque
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rollout import Unroll


class Lesson(NamedTuple):
    """What one optimiser step learns from."""

    obs: Tensor  # (T, N, O) float32
    label: Tensor  # (T, N) int64, NO_LABEL where the teacher is silent
    keep: Tensor  # (T, N) bool: False where an episode begins
    mission: Tensor  # (T, N) int64, index into `missions`
    first_hidden: Tensor  # (N, S) float32, the student's memory when it acted
    missions: list[str]

    @classmethod
    def of(cls, unroll: Unroll, first_hidden: Tensor) -> "Lesson":
        """A view of the unroll's arrays, which the next unroll overwrites."""
        arrays = (unroll.steps.obs, unroll.steps.label, unroll.keep, unroll.mission)
        return cls(*map(torch.from_numpy, arrays), first_hidden, unroll.missions)


# Small types for what is kept: observations are integers below 256, an unroll has fewer missions than 2^31.
_KEPT_AS = {"obs": torch.uint8, "label": torch.int8, "keep": torch.bool, "mission": torch.int32}
_KEPT_AS |= {"first_hidden": torch.float32}


class Replay:
    """The last `size` lessons."""

    def __init__(self, size: int):
        self._lessons: deque[Lesson] = deque(maxlen=size)

    def __len__(self) -> int:
        return len(self._lessons)

    def add(self, lesson: Lesson) -> None:
        """Keep a copy; the oldest lesson goes when there are too many."""
        kept = {name: getattr(lesson, name).to("cpu", dtype, copy=True) for name, dtype in _KEPT_AS.items()}
        self._lessons.append(Lesson(**kept, missions=list(lesson.missions)))

    def sample(self, rng: np.random.Generator) -> Lesson:
        """One of the lessons, each as likely; its arrays in the types of a new one."""
        kept = self._lessons[int(rng.integers(len(self._lessons)))]
        return kept._replace(obs=kept.obs.float(), label=kept.label.long(), mission=kept.mission.long())

    def state(self) -> dict:
        """All lessons, oldest first, as tensors (K, ...) and texts."""
        if not self._lessons:
            return {}
        stacked = {name: torch.stack([getattr(lesson, name) for lesson in self._lessons]) for name in _KEPT_AS}
        return stacked | {"missions": [list(lesson.missions) for lesson in self._lessons]}

    def load_state(self, state: dict) -> None:
        """Take over what `state()` returned."""
        self._lessons.clear()
        for *tensors, missions in zip(*(state[name] for name in (*_KEPT_AS, "missions")), strict=True) if state else ():
            kept = {name: tensor.clone() for name, tensor in zip(_KEPT_AS, tensors, strict=True)}
            self._lessons.append(Lesson(**kept, missions=list(missions)))
