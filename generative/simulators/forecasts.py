"""Forecasts of what an agent will see, given what it does: by simulators, and by baselines that know little.

A forecast is a function of `trials.Trials` that looks at the frames that are shown and at all actions, and gives soft
observations (T, N, X) of ones and zeros. Axis letters as in `trials`; K codes of a cell.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from generative.domains.babyai.trials import Trials
from generative.recordings.format import Recording
from generative.simulators.base import Simulator, State
from generative.simulators.exact import ExactSimulator
from generative.simulators.fidelity_protocol import shuffled_actions
from generative.simulators.relaxation import NUM_CELLS, harden, soften
from generative.simulators.world_model import WorldModel
from mop.envs.babyai import NUM_ACTIONS
from mop.fast.grid import CATEGORIES, IMAGE_SIZE

Forecast = Callable[[Trials], Tensor]

NUM_CODES = int(np.prod(CATEGORIES))  # of a cell: every type in every colour and state
NUM_DIRECTIONS = 4


def _simulated(simulator: Simulator, state: State, actions: Tensor) -> Tensor:
    """What a simulator shows after each of the actions (T, N, A)."""
    shown = []
    for action in actions:
        state = simulator.step(state, action)
        shown.append(simulator.observe(state))
    return torch.stack(shown)


@torch.no_grad()
def by_model(model: WorldModel, trials: Trials, actions: Tensor | None = None) -> Tensor:
    """A learned simulator, with the likeliest z. actions (T, N, A): what follows, if not what was truly done."""
    num_shown, every = trials.num_shown, trials.one_hot_actions
    before = every[: num_shown - 1].transpose(0, 1)
    state = model.begin(trials.frames[:num_shown].transpose(0, 1), before, trials.lang)
    return _simulated(model, state, every[num_shown - 1 :] if actions is None else actions)


def by_shuffled(model: WorldModel, trials: Trials) -> Tensor:
    """A learned simulator that is told what was done in another trial: all but what follows from actions."""
    return by_model(model, trials, shuffled_actions(trials))


@torch.no_grad()
def by_exact(simulator: ExactSimulator, trials: Trials) -> Tensor:
    """Minigrid's own rules, from the whole world as it was; only what lies in boxes is not known."""
    state = simulator.state_of(*(trials.start[name] for name in ("grid", "position", "direction", "carried")))
    return _simulated(simulator, state, trials.one_hot_actions[trials.num_shown - 1 :])


def by_copy(trials: Trials) -> Tensor:
    """The last frame that was shown, again and again."""
    return trials.frames[trials.num_shown - 1].expand(len(trials.mask), -1, -1)


@dataclass(frozen=True)
class Markov:
    """Every part of an observation by itself: what most often follows it, given the action, in training worlds.

    cells (49, K, A), directions (4, A), flags (2, A): codes. What was never seen stays as it is.
    """

    cells: np.ndarray
    directions: np.ndarray
    flags: np.ndarray

    @classmethod
    def of(cls, recording: Recording) -> "Markov":
        """Count what follows what in the training worlds of a recording."""
        counts = [np.zeros((*shape, shape[-2]), np.int32) for shape in _TABLES]
        for k in recording.episodes("train"):
            episode = recording.episode(k)
            parts, actions = _parts(np.asarray(episode["obs"])), np.asarray(episode["action"][:-1], np.int64)
            for table, part in zip(counts, parts, strict=True):
                place = np.arange(part.shape[1]) if part.shape[1] > 1 else np.zeros(1, np.int64)
                np.add.at(table, (place, part[:-1], actions[:, None], part[1:]), 1)
        return cls(
            *(_most_frequent(table).squeeze(0) if len(table) == 1 else _most_frequent(table) for table in counts)
        )

    def __call__(self, trials: Trials) -> Tensor:
        """The forecast: each frame from the one before it."""
        parts = _parts(harden(trials.frames[trials.num_shown - 1]).numpy().astype(np.uint8))
        found = []
        for action in trials.actions[trials.num_shown - 1 :].numpy():
            cells, directions, flags = parts
            parts = (
                self.cells[np.arange(NUM_CELLS), cells, action[:, None]],
                self.directions[directions, action[:, None]],
                self.flags[flags, action[:, None]],
            )
            found.append(_joined(*parts))
        return soften(np.stack(found))


_TABLES = ((NUM_CELLS, NUM_CODES, NUM_ACTIONS), (1, NUM_DIRECTIONS, NUM_ACTIONS), (1, 2, NUM_ACTIONS))


def _most_frequent(counts: np.ndarray) -> np.ndarray:
    """The code that most often follows, (P, K, A), of counts (P, K, A, K)."""
    unmoved = np.arange(counts.shape[1])[None, :, None]
    return np.where(counts.any(-1), counts.argmax(-1), unmoved)


def _parts(obs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Observations (M, O) as codes of cells (M, 49), directions (M, 1) and carrying flags (M, 1), int64."""
    planes = obs[:, :IMAGE_SIZE].reshape(len(obs), len(CATEGORIES), NUM_CELLS).astype(np.int64)
    cells = np.ravel_multi_index(tuple(planes.transpose(1, 0, 2)), CATEGORIES)
    direction = obs[:, IMAGE_SIZE : IMAGE_SIZE + NUM_DIRECTIONS].argmax(-1)[:, None]
    return cells, direction, (obs[:, -1:] > 0).astype(np.int64)


def _joined(cells: np.ndarray, directions: np.ndarray, flags: np.ndarray) -> np.ndarray:
    """The inverse of `_parts`."""
    planes = np.stack(np.unravel_index(cells, CATEGORIES), 1).reshape(len(cells), -1)
    return np.concatenate([planes, np.eye(NUM_DIRECTIONS, dtype=np.int64)[directions[:, 0]], flags], 1)
