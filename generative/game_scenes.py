"""Moments of a recorded game as beginnings of closed loops in a learned simulator: `scenes` for frames.

What was there is the frame: the agent's input at that step, and what the simulator makes its state of.
Axis letters: M beginnings, C choices of patches, X numbers of a view, S hidden units.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from generative.frozen_agents import FrozenAgent
from generative.patches import frames_without
from generative.pixels import frame_views
from generative.policies import Answer
from generative.scenes import LearnedScenes
from generative.simulators import State


class FrameScene:
    """What the agent saw."""

    def __init__(self, frame: np.ndarray, start: Callable[[Tensor], State]):
        """frame (3, 64, 64) uint8; start: the states of M worlds, given what is seen in each, (M, X)."""
        self._frame, self._start = np.array(frame), start
        self.there = {"view": frame_views(torch.from_numpy(self._frame))[None]}

    def begin(self, there: State) -> tuple[State, Tensor | None]:
        """As `scenes.Scene`."""
        return self._start(there["view"]), there["view"]

    def black(self) -> State:
        """A frame in which nothing is to be seen, (1, X)."""
        return {"view": torch.zeros_like(self.there["view"])}

    def without(self, chosen: Sequence[Sequence[int]]) -> State:
        """The frame with patches black, (C, X), for each choice of patch numbers."""
        return {"view": frame_views(torch.from_numpy(frames_without(self._frame, chosen)))}


class FrameScenes(LearnedScenes):
    """The scenes of recorded episodes of a game in a learned simulator."""

    def at(self, episode, step, kind):
        return FrameScene(episode["obs"][step], self.start_at(episode, step))


@torch.no_grad()
def answer_after(agent: FrozenAgent, frames: Sequence[np.ndarray], hidden: Tensor) -> Answer:
    """What a real agent says of the last frame of each of C films, which it watches without acting.

    frames: of each step (C, 3, 64, 64) uint8, or (1, 3, 64, 64) where all films show the same; hidden (1, S): before.
    """
    num_films = max(len(of_step) for of_step in frames)
    hidden, answer = hidden.expand(num_films, -1), None
    for of_step in frames:
        features = agent.agent.features(torch.from_numpy(np.asarray(of_step)))
        answer = agent.agent.answer(features.expand(num_films, -1), hidden)
        hidden = answer.hidden
    return Answer(answer.logits, [], answer.hidden, answer.value)
