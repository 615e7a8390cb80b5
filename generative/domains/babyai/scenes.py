"""Moments of recorded episodes as beginnings of closed loops: what was there, as the part that attribution varies.

"view" is what the agent saw: the policy's input at that step, and what a learned simulator makes its state of. "world"
is all that lies in the world, seen or not, and in the agent's hand; only the exact simulator has it.
Axis letters: M beginnings, C changes, X numbers of a soft observation, O of an observation, G of a mission, H and W
height and width of a grid, K categories of a cell.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from generative.attribution.closed_loop import repeat_state
from generative.attribution.counterfactuals import Case, Edit, edit_state, world_at
from generative.attribution.integrated_gradients import MAX_BEGINNINGS, Loop
from generative.domains.babyai.causes import Thing, code_of, things_in_view, things_in_world, views_without
from generative.domains.babyai.policy import FrozenPolicy
from generative.recordings.format import Episode, Recording
from generative.simulators.base import Simulator, State
from generative.simulators.exact import ExactSimulator, cell_columns
from generative.simulators.relaxation import DIRECTION, cells, soften
from generative.simulators.world_model import WorldModel
from mop.envs.babyai import World
from mop.fast.grid import CATEGORIES, EMPTY

VIEW, WORLD = "view", "world"
_EMPTY_FLOOR = cell_columns(np.array(EMPTY))
_ARRAYS = ("obs", "grid", "position", "carried")


class Scene(Protocol):
    """What was there at one moment of one world, and how closed loops begin with it or with something else."""

    things: list[Thing]
    there: State  # (1, ...) of each part

    def begin(self, there: State) -> tuple[State, Tensor | None]:
        """The states of M worlds, and what the policy sees first (M, X) where it is not what the simulator shows."""

    def without(self, things: Sequence[Thing]) -> State:
        """What would be there without each of C things, (C, ...) of each part."""

    def by_channel(self, numbers: State) -> Tensor:
        """Sums (C, 3) of numbers (C, ...) like those of what is there: over types, over colours, over states."""

    def fields(self) -> np.ndarray:
        """The things as numbers (things, ...), for a file."""


class ViewScene:
    """What the agent saw."""

    def __init__(self, obs: np.ndarray, start: Callable[[Tensor], State]):
        """obs (O,); start: the states of M worlds, given what is seen in each, (M, X)."""
        self._obs, self._start = np.asarray(obs, np.float32), start
        self.things, self.there = things_in_view(self._obs), {"view": soften(self._obs)[None]}

    def begin(self, there: State) -> tuple[State, Tensor | None]:
        return self._start(there["view"]), there["view"]

    def without(self, things: Sequence[Thing]) -> State:
        return self.seen(views_without(self._obs, things))

    def seen(self, obs: np.ndarray) -> State:
        """Other observations (C, O) as what was there."""
        return {"view": soften(obs)}

    def fields(self) -> np.ndarray:
        return fields_of(self.things)

    def by_channel(self, numbers: State) -> Tensor:
        sums = _sums_by_channel(cells(numbers["view"]).flatten(1, 2).sum(1))
        sums[:, 0] += numbers["view"][:, DIRECTION.start :].sum(-1)  # the carrying flag goes with the type of the thing
        return sums


class WorldScene:
    """What lay in the world and in the hand, in the exact simulator."""

    def __init__(self, state: State, codes: np.ndarray, carried: int, position: np.ndarray, direction: int):
        """state (1, ...) of the exact simulator; codes (H, W) and carried: of `mop.fast.grid`."""
        self.there = {name: state[name] for name in ("grid", "carried")}
        self._rest = {name: part for name, part in state.items() if name not in self.there}
        self.things = things_in_world(codes, position, direction)
        if carried != EMPTY:
            self.things.append(Thing(*map(int, position), code_of(carried), 0, 0, is_carried=True))

    def begin(self, there: State) -> tuple[State, Tensor | None]:
        return {**repeat_state(self._rest, len(there["grid"])), **there}, None

    def without(self, things: Sequence[Thing]) -> State:
        changed = repeat_state(self.there, len(things))
        nothing = _EMPTY_FLOOR.repeat(self.there["carried"].shape[-1] // len(_EMPTY_FLOOR))
        for number, thing in enumerate(things):
            if thing.is_carried:
                changed["carried"][number] = nothing
            else:
                changed["grid"][number, thing.y, thing.x] = nothing
        return changed

    def edited(self, edits: Sequence[Edit]) -> State:
        """What would be there after each of C edits."""
        state = edit_state(repeat_state({**self._rest, **self.there}, len(edits)), edits)
        return {name: state[name] for name in self.there}

    def fields(self) -> np.ndarray:
        return fields_of(self.things)

    def by_channel(self, numbers: State) -> Tensor:
        return _sums_by_channel(numbers["grid"].flatten(1, 2).sum(1) + numbers["carried"])


def fields_of(things: Sequence[Thing]) -> np.ndarray:
    """(things, 8) int64: x, y, type, colour, state, ahead, right, is_carried."""
    return np.array([(x, y, *code, *at) for x, y, code, *at in things], np.int64).reshape(-1, 8)


def _sums_by_channel(columns: Tensor) -> Tensor:
    """(C, K) -> (C, 3); what follows the K columns is of what lies in boxes, and goes with the type of the box."""
    kinds, colors, states, *inside = columns.split([*CATEGORIES, columns.shape[-1] - sum(CATEGORIES)], -1)
    sums = torch.stack([part.sum(-1) for part in (kinds, colors, states)], -1)
    sums[:, 0] += sum(part.sum(-1) for part in inside)
    return sums


class Scenes(Protocol):
    """The scenes of recorded episodes in one simulator."""

    simulator: Simulator
    kinds: tuple[str, ...]  # VIEW, WORLD; the first is the default
    max_beginnings: int  # of loops at once

    def at(self, episode: Episode, step: int, kind: str) -> Scene:
        """The scene of an episode at a step."""


class Place(NamedTuple):
    """A step of an episode, and how many steps earlier its causes are looked for."""

    episode: int
    step: int  # t
    lag: int  # k


def memory_at(
    policy: FrozenPolicy, recorded: FrozenPolicy, episode: Episode, step: int, see: Callable = soften
) -> Tensor:
    """The memory (1, S) of a policy before a step: that of the recording, or of another one that has watched it.

    see: recorded observations as views, of the domain (`adapters`).
    """
    if policy is recorded:
        return torch.from_numpy(np.array(episode["hidden"][step], np.float32))[None]
    hidden, lang = policy.initial_hidden(1), torch.from_numpy(np.array(episode.lang))[None]
    for obs in np.array(episode["obs"][:step]):
        hidden = policy.step(see(torch.from_numpy(obs))[None], lang, hidden).hidden
    return hidden


def real_world(recording: Recording, place: Place) -> World:
    """The real world of an episode, `lag` steps before a step."""
    encoding, episode = recording.config["encoding"], recording.episode(place.episode)
    actions = episode["action"][: place.step - place.lag]
    return world_at(encoding["task_id"], encoding["max_steps"], episode.seed, actions)


def real_case(world: World, policy: FrozenPolicy, episode: Episode, place: Place, edits: Sequence[Edit]) -> Case:
    """Edits to be made in this world, `lag` steps before a step, and what its policy remembers and did from there."""
    start = place.step - place.lag
    hidden, lang = memory_at(policy, policy, episode, start)[0], torch.from_numpy(np.array(episode.lang))
    return Case(world, hidden, lang, episode["action"][start : place.step].tolist(), edits)


def loop_from(
    policy: FrozenPolicy, scenes: Scenes, scene: Scene, episode: Episode, memory: Tensor, place: Place, is_own: bool
) -> Loop:
    """The loop of an episode that begins with a scene, `lag` steps before a step, and with this memory (1, S).

    is_own: the policy acts; else the recorded actions are executed.
    """
    lang, start = torch.from_numpy(np.array(episode.lang))[None], place.step - place.lag
    recorded = np.maximum(episode["action"][start : place.step + 1].astype(np.int64), 0)  # the last one is not used
    actions = None if is_own else torch.from_numpy(recorded)[None]
    return Loop(policy, scenes.simulator, scene.begin, lang, memory, place.lag, actions, scenes.max_beginnings)


class ExactScenes:
    """Scenes in Minigrid's own rules."""

    kinds, max_beginnings = (WORLD, VIEW), MAX_BEGINNINGS

    def __init__(self, grid_shape: Sequence[int]):
        self.simulator = ExactSimulator(tuple(grid_shape))

    def at(self, episode, step, kind):
        obs, grid, position, carried = (np.array(episode[name][step]) for name in _ARRAYS)
        direction = int(obs[-5:-1].argmax())
        state = self.simulator.state_of(grid[None], position[None], np.array([direction]), carried[None])
        if kind == VIEW:
            return ViewScene(obs, lambda views: repeat_state(state, len(views)))
        return WorldScene(state, grid, int(carried), position, direction)

    def at_world(self, world: World) -> "WorldScene":
        """The scene of a real world as it is now, with what lies in its boxes."""
        return WorldScene(
            self.simulator.state_of_worlds([world]), world.codes, world.carried, world.position, world.direction
        )


class LearnedScenes:
    """Scenes in a learned simulator, which is shown the last `num_frames` frames up to the step."""

    kinds, max_beginnings = (VIEW,), MAX_BEGINNINGS

    def __init__(self, model: WorldModel, num_frames: int):
        self.simulator, self.num_frames = model, num_frames

    def at(self, episode, step, kind):
        return ViewScene(episode["obs"][step], self.start_at(episode, step))

    def start_at(self, episode: Episode, step: int) -> Callable[[Tensor], State]:
        """The states of M worlds at a step, given what is seen in each then, (M, X)."""
        first, model = max(0, step + 1 - self.num_frames), self.simulator
        lang = torch.from_numpy(np.array(episode.lang))[None]
        done = torch.from_numpy(episode["action"][first:step].astype(np.int64))
        actions = F.one_hot(done, model.num_actions).float()[None]
        views = model.domain.soften(torch.from_numpy(np.array(episode["obs"][first:step])))
        before = model.begin(views[None], actions[:, :-1], lang)
        last = actions[:, -1] if step > first else torch.zeros(1, model.num_actions)

        def start(views: Tensor) -> State:
            given = repeat_state(before, len(views))
            return model.filter(given, last.expand(len(views), -1), model.views.encode(views), views, None)[0]

        return start
