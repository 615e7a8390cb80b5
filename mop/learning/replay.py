"""Unrolls of earlier updates, to be learned from again: the aggregated data of DAgger, bounded in size.

Ross, Gordon and Bagnell (2011), "A Reduction of Imitation Learning and Structured Prediction to No-Regret Online
Learning". Axis letters: K unrolls kept, T steps, N environments, O numbers of an observation, S hidden units.
"""

from collections import deque
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mop.learning.rollout import Unroll


class Batch(NamedTuple):
    """What one optimiser step learns from."""

    obs: Tensor  # (T, N, O) float32, or integers of fewer bits
    label: Tensor  # (T, N) integers, NO_LABEL where the teacher is silent
    keep: Tensor  # (T, N) bool: False where an episode begins
    mission: Tensor  # (T, N) integers, index into `missions`
    first_hidden: Tensor  # (N, S) float32, the student's memory when it acted
    missions: list[str]

    @classmethod
    def of(cls, unroll: Unroll, first_hidden: Tensor) -> "Batch":
        """A view of the unroll's arrays, which the next unroll overwrites."""
        arrays = (unroll.steps.obs, unroll.steps.label, unroll.keep, unroll.mission)
        return cls(*map(torch.from_numpy, arrays), first_hidden, unroll.missions)


# Small types for what is kept: observations are integers below 256, an unroll has fewer missions than 2^31.
_KEPT_AS = {"obs": torch.uint8, "label": torch.int8, "keep": torch.bool, "mission": torch.int32}
_KEPT_AS |= {"first_hidden": torch.float32}


class Replay:
    """The last `size` batches."""

    def __init__(self, size: int):
        self._batches: deque[Batch] = deque(maxlen=size)

    def __len__(self) -> int:
        return len(self._batches)

    def add(self, batch: Batch) -> None:
        """Keep a copy; the oldest batch goes when there are too many."""
        kept = {name: getattr(batch, name).to("cpu", dtype, copy=True) for name, dtype in _KEPT_AS.items()}
        self._batches.append(Batch(**kept, missions=list(batch.missions)))

    def sample(self, rng: np.random.Generator) -> Batch:
        """One of the batches, each as likely, in the small types that it is kept in."""
        return self._batches[int(rng.integers(len(self._batches)))]

    def state(self) -> dict:
        """All batches, oldest first, as tensors (K, ...) and texts."""
        if not self._batches:
            return {}
        stacked = {name: torch.stack([getattr(batch, name) for batch in self._batches]) for name in _KEPT_AS}
        return stacked | {"missions": [list(batch.missions) for batch in self._batches]}

    def load_state(self, state: dict) -> None:
        """Take over what `state()` returned."""
        self._batches.clear()
        for *tensors, missions in zip(*(state[name] for name in (*_KEPT_AS, "missions")), strict=True) if state else ():
            kept = {name: tensor.clone() for name, tensor in zip(_KEPT_AS, tensors, strict=True)}
            self._batches.append(Batch(**kept, missions=list(missions)))
