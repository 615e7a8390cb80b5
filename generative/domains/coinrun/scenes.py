"""Moments of a recorded game as beginnings of closed loops in a learned simulator: `scenes` for frames.

What was there is the frame: the agent's input at that step, and what the simulator makes its state of.
Axis letters: M beginnings, C patches, X numbers of a view, S hidden units, P = 64 patches of a frame.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from generative.domains.babyai.policy import Answer
from generative.domains.babyai.scenes import LearnedScenes
from generative.domains.coinrun.causes import Patch, frames_without, kinds_of_patches, visible_patches
from generative.domains.coinrun.decoder import frame_views
from generative.domains.coinrun.objects import objects_of
from generative.domains.coinrun.policy import FrozenAgent
from generative.recordings.format import Episode
from generative.simulators.base import State
from generative.simulators.world_model import WorldModel


class FrameScene:
    """What the agent saw; its things are the patches that are not black."""

    def __init__(self, frame: np.ndarray, kinds: np.ndarray, start: Callable[[Tensor], State]):
        """frame (3, 64, 64) uint8; kinds (P,): what patches show; start: as of `LearnedScenes.start_at`."""
        self.frame, self._start = np.array(frame), start
        self.things = visible_patches(self.frame, kinds)
        self.there = {"view": frame_views(torch.from_numpy(self.frame))[None]}

    def begin(self, there: State) -> tuple[State, Tensor | None]:
        return self._start(there["view"]), there["view"]

    def without(self, things: Sequence[Patch]) -> State:
        return {"view": frame_views(torch.from_numpy(self.frames_without(things)))}

    def frames_without(self, things: Sequence[Patch]) -> np.ndarray:
        """The frame with each of C patches black, (C, 3, 64, 64) uint8."""
        return frames_without(self.frame, [[thing] for thing in things])

    def by_channel(self, numbers: State) -> Tensor:
        return numbers["view"].sum(-1, keepdim=True)

    def fields(self) -> np.ndarray:
        return np.array(self.things, np.int64).reshape(-1, len(Patch._fields))


class FrameScenes(LearnedScenes):
    """The scenes of recorded episodes of a game in a learned simulator."""

    max_beginnings = 64  # a frame and what is computed of it are large

    def __init__(self, model: WorldModel, num_frames: int, world: Mapping):
        """world: the encoding of the recording, with `actions`, the game's numbers of the agent's."""
        super().__init__(model, num_frames)
        self._world, self._last = world, (None, None)

    def at(self, episode, step, kind):
        kinds = kinds_of_patches(self.objects(episode)[step][None])[0]
        return FrameScene(episode["obs"][step], kinds, self.start_at(episode, step))

    def objects(self, episode: Episode) -> np.ndarray:
        """What was on screen in an episode of T actions, (T + 1, 64, 64), as `game_objects` has it."""
        actions = episode["action"][:-1].astype(int).tolist()
        key = (episode.seed, actions)
        if self._last[0] != key:
            done = [self._world["actions"][action] for action in actions]
            self._last = key, objects_of(self._world, episode.seed, done)
        return self._last[1]


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
