"""Replay of earlier unrolls: the aggregated data of DAgger, bounded in size.

Ross, Gordon and Bagnell (2011), "A Reduction of Imitation Learning and Structured Prediction to No-Regret Online
Learning". Axis letters: K unrolls kept, T steps, N environments, O numbers of an observation, S hidden units.
"""

from collections import deque
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mop.common.errors import InputError
from mop.envs.babyai import NO_LABEL, NUM_ACTIONS, OBS_DIM
from mop.training.states import check_form
from mop.training.unroll import Unroll


class Batch(NamedTuple):
    """Data of one optimiser step."""

    obs: Tensor  # (T, N, O) float32, or integers of fewer bits
    label: Tensor  # (T, N) integers, NO_LABEL where the teacher is silent
    keep: Tensor  # (T, N) bool: False where an episode begins
    mission: Tensor  # (T, N) integers, index into `missions`
    first_hidden: Tensor  # (N, S) float32, the student's hidden state when it acted
    missions: list[str]

    @classmethod
    def of(cls, unroll: Unroll, first_hidden: Tensor) -> "Batch":
        """A view of the unroll's arrays, which the next unroll overwrites."""
        arrays = (unroll.steps.obs, unroll.steps.label, unroll.keep, unroll.mission)
        return cls(*map(torch.from_numpy, arrays), first_hidden, unroll.missions)


# Small types of stored batches: observations are integers below 256, an unroll has fewer missions than 2^31.
KEPT_AS = {"obs": torch.uint8, "label": torch.int8, "keep": torch.bool, "mission": torch.int32}
KEPT_AS |= {"first_hidden": torch.float32}


class Replay:
    """The last `size` batches."""

    def __init__(self, size: int):
        self._batches: deque[Batch] = deque(maxlen=size)

    def __len__(self) -> int:
        return len(self._batches)

    def add(self, batch: Batch) -> None:
        """Keep a copy; where there are too many batches, the oldest one is dropped."""
        kept = {name: getattr(batch, name).to("cpu", dtype, copy=True) for name, dtype in KEPT_AS.items()}
        self._batches.append(Batch(**kept, missions=list(batch.missions)))

    def sample(self, rng: np.random.Generator) -> Batch:
        """One of the batches, drawn with equal probabilities, in the small types in which it is kept."""
        return self._batches[int(rng.integers(len(self._batches)))]

    def state(self) -> dict:
        """All batches, oldest first, as tensors (K, ...) and texts."""
        if not self._batches:
            return {}
        stacked = {name: torch.stack([getattr(batch, name) for batch in self._batches]) for name in KEPT_AS}
        return stacked | {"missions": [list(batch.missions) for batch in self._batches]}

    def load_state(self, state: dict, num_steps: int, hidden: Tensor) -> None:
        """Restore the batches that `state()` returned; num_steps, hidden: T, and (N, S) of the run."""
        self._batches.clear()
        if not state:
            return
        axes = (len(state["missions"]), num_steps, len(hidden))
        shapes = {"obs": (*axes, OBS_DIM), "first_hidden": (axes[0], *hidden.shape)}
        form = {name: torch.empty(shapes.get(name, axes), dtype=KEPT_AS[name], device="meta") for name in KEPT_AS}
        check_form(state, form | {"missions": [[""]]}, "replay")
        num_missions = torch.tensor([len(missions) for missions in state["missions"]]).view(-1, 1, 1)
        for name, low, end in (("mission", 0, num_missions), ("label", NO_LABEL, NUM_ACTIONS)):
            if not ((state[name] >= low) & (state[name] < end)).all():
                raise InputError(f"'replay.{name}' has a number that stands for nothing")
        for k, missions in enumerate(state["missions"]):
            kept = {name: state[name][k].clone() for name in KEPT_AS}
            self._batches.append(Batch(**kept, missions=list(missions)))
