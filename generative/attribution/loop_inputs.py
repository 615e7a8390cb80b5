"""Where closed loops begin: what was there at a step of a recorded episode, as the inputs that attribution varies.

The inputs "view" are what the agent saw: the policy's input at that step, and what a learned simulator makes its state
of. Where there is an exact simulator, the inputs "world" are all that lies in the world, seen or not.
Axis letters: M beginnings, C counterfactuals, X numbers of a view, G of a mission, S hidden units.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from generative.attribution.closed_loop import repeat_state
from generative.attribution.integrated_gradients import ClosedLoopRollout
from generative.domains.base import Domain, Policy
from generative.recordings.format import Episode
from generative.simulators.base import Simulator, State
from generative.simulators.world_model import WorldModel

VIEW, WORLD = "view", "world"


class Place(NamedTuple):
    """A step of an episode, and how many steps earlier its causes are looked for."""

    episode: int
    step: int  # t
    lag: int  # k


class Scene(Protocol):
    """What was there at one moment of one world, and how closed loops begin with it or with something else."""

    things: list[Any]  # causes of the domain
    inputs: State  # (1, ...) of each part

    def begin(self, inputs: State) -> tuple[State, Tensor | None]:
        """The states of M worlds, and what the policy sees first (M, X) where it is not what the simulator shows."""

    def without(self, things: Sequence[Any]) -> State:
        """The inputs without each of C things, (C, ...) of each part."""

    def by_channel(self, numbers: State) -> Tensor:
        """Sums (C, channels) of numbers (C, ...) like the inputs."""


class ViewScene:
    """What the agent saw."""

    def __init__(self, domain: Domain, obs: np.ndarray, things: list[Any], start: Callable[[Tensor], State]):
        """obs (O,) or of more axes; start: the states of M worlds, given what is seen in each, (M, X)."""
        self._domain = domain
        self._start = start
        self.obs = np.array(obs)
        self.things = things
        self.inputs = self.seen(self.obs[None])

    def begin(self, inputs: State) -> tuple[State, Tensor | None]:
        return self._start(inputs["view"]), inputs["view"]

    def without(self, things: Sequence[Any]) -> State:
        return self.seen(self._domain.remove_causes(self.obs, things))

    def seen(self, obs: np.ndarray) -> State:
        """Other observations (C, ...) as inputs."""
        return {"view": self._domain.to_views(obs)}

    def by_channel(self, numbers: State) -> Tensor:
        return self._domain.sum_channels(numbers["view"])


class Scenes(Protocol):
    """The scenes of recorded episodes in one simulator."""

    kinds: tuple[str, ...]  # VIEW, WORLD; the first is the default
    max_beginnings: int  # of loops at once

    @property
    def simulator(self) -> Simulator:
        """Through which they go on."""

    def at(self, episode: Episode, step: int, kind: str) -> Scene:
        """The scene of an episode at a step."""


class LearnedScenes:
    """Scenes in a learned simulator, which is shown the last `num_frames` frames up to the step."""

    kinds: tuple[str, ...] = (VIEW,)

    def __init__(self, model: WorldModel, num_frames: int, encoding: Mapping):
        """encoding: of the config of the recording."""
        self.simulator = model
        self.num_frames = num_frames
        self.max_beginnings = model.domain.max_beginnings
        self._find_causes = model.domain.find_causes(encoding)

    def at(self, episode: Episode, step: int, kind: str) -> ViewScene:
        things = self._find_causes(episode, step)
        return ViewScene(self.simulator.domain, episode["obs"][step], things, self.start_at(episode, step))

    def start_at(self, episode: Episode, step: int) -> Callable[[Tensor], State]:
        """The states of M worlds at a step, given what is seen in each then, (M, X)."""
        first, model = max(0, step + 1 - self.num_frames), self.simulator
        lang = torch.from_numpy(np.array(episode.lang))[None]
        done = torch.from_numpy(episode["action"][first:step].astype(np.int64))
        actions = F.one_hot(done, model.num_actions).float()[None]
        views = model.domain.to_views(np.array(episode["obs"][first:step]))
        before = model.observe(views[None], actions[:, :-1], lang)
        last = actions[:, -1] if step > first else torch.zeros(1, model.num_actions)

        def start(views: Tensor) -> State:
            state, action = repeat_state(before, len(views)), last.expand(len(views), -1)
            return model.observe_step(state, action, model.views.encode(views), views, None)[0]

        return start


def watch(policy: Policy, episode: Episode, num_steps: int, to_views: Callable) -> Tensor:
    """The hidden states (num_steps + 1, S) of a policy that watches an episode, before each of its first steps."""
    first = policy.initial_hidden(1)
    if num_steps == 0:
        return first
    views, lang = to_views(np.array(episode["obs"][:num_steps])), torch.from_numpy(np.array(episode.lang)).float()
    with torch.no_grad():
        return torch.cat([first, policy.run(views[:, None], lang[None], first).hidden[:, 0]])


def hidden_at(policy: Policy, recorded: Policy, episode: Episode, step: int, to_views: Callable) -> Tensor:
    """The hidden state (1, S) of a policy before a step: as recorded, or of another policy that has watched it."""
    if policy is recorded:
        return torch.from_numpy(np.array(episode["hidden"][step], np.float32))[None]
    return watch(policy, episode, step, to_views)[-1:]


def closed_loop_from(
    policy: Policy, scenes: Scenes, scene: Scene, episode: Episode, hidden: Tensor, place: Place, is_own: bool
) -> ClosedLoopRollout:
    """The loop of an episode that begins with a scene, `lag` steps before a step, and a hidden state (1, S).

    is_own: the policy acts; else the recorded actions are executed.
    """
    lang, start = torch.from_numpy(np.array(episode.lang))[None], place.step - place.lag
    recorded = np.maximum(episode["action"][start : place.step + 1].astype(np.int64), 0)  # the last one is not used
    actions = None if is_own else torch.from_numpy(recorded)[None]
    return ClosedLoopRollout(
        policy, scenes.simulator, scene.begin, lang, hidden, place.lag, actions, scenes.max_beginnings
    )
