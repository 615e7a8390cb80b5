"""Where closed loops begin in BabyAI: the real world of a recorded step, and that world in the exact simulator.

Axis letters: M beginnings, C changes, X numbers of a soft observation, H and W height and width of a grid, K categories
of a cell.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from generative.attribution.closed_loop import repeat_state
from generative.attribution.counterfactuals import Case, Edit, edit_state, effects, legal_edits, world_at
from generative.attribution.loop_inputs import VIEW, WORLD, Place, Scene, ViewScene
from generative.domains.babyai.causes import Thing, code_of, things_in_view, things_in_world
from generative.domains.babyai.policy import FrozenPolicy
from generative.domains.base import Domain, Target
from generative.recordings.format import Episode, Recording
from generative.simulators.base import State
from generative.simulators.exact import cell_columns, simulator_of
from generative.simulators.relaxation import DIRECTION, cells
from mop.envs.babyai import World
from mop.envs.geometry import CATEGORIES, EMPTY

_EMPTY_FLOOR = cell_columns(np.array(EMPTY))
_ARRAYS = ("obs", "grid", "position", "carried")


class WorldScene:
    """What lay in the world and in the hand, in the exact simulator."""

    def __init__(self, state: State, codes: np.ndarray, carried: int, position: np.ndarray, direction: int):
        """state (1, ...) of the exact simulator; codes (H, W) and carried: of `mop.envs.geometry`."""
        self.inputs: State = {name: state[name] for name in ("grid", "carried")}
        self._rest = {name: part for name, part in state.items() if name not in self.inputs}
        self.things: list[Any] = things_in_world(codes, position, direction)
        if carried != EMPTY:
            self.things.append(Thing(*map(int, position), code_of(carried), 0, 0, is_carried=True))

    def begin(self, inputs: State) -> tuple[State, Tensor | None]:
        return {**repeat_state(self._rest, len(inputs["grid"])), **inputs}, None

    def without(self, things: Sequence[Thing]) -> State:
        changed = dict(repeat_state(self.inputs, len(things)))
        for number, thing in enumerate(things):
            if thing.is_carried:
                changed["carried"][number] = _EMPTY_FLOOR
            else:
                changed["grid"][number, thing.y, thing.x] = _EMPTY_FLOOR
        return changed

    def edited(self, edits: Sequence[Edit]) -> State:
        """The inputs after each of C edits."""
        state = edit_state(repeat_state({**self._rest, **self.inputs}, len(edits)), edits)
        return {name: state[name] for name in self.inputs}

    def by_channel(self, numbers: State) -> Tensor:
        return _sums_by_channel(numbers["grid"].flatten(1, 2).sum(1) + numbers["carried"])


def sum_channels(views: Tensor) -> Tensor:
    """Sums (C, 3) of numbers (C, X) of soft observations: over types, over colours, over states."""
    sums = _sums_by_channel(cells(views).flatten(1, 2).sum(1))
    sums[:, 0] += views[:, DIRECTION.start :].sum(-1)  # the carrying flag goes with the type of the thing
    return sums


def _sums_by_channel(columns: Tensor) -> Tensor:
    """(C, K) -> (C, 3)."""
    return torch.stack([part.sum(-1) for part in columns.split(list(CATEGORIES), -1)], -1)


class ExactScenes:
    """Scenes in Minigrid's own rules."""

    kinds: tuple[str, ...] = (WORLD, VIEW)

    def __init__(self, domain: Domain, encoding: Mapping):
        """encoding: of the config of the recording."""
        self.simulator = simulator_of(encoding)
        self.max_beginnings = domain.max_beginnings
        self._domain = domain

    def at(self, episode: Episode, step: int, kind: str) -> Scene:
        obs, grid, position, carried = (np.array(episode[name][step]) for name in _ARRAYS)
        direction = int(obs[-5:-1].argmax())
        state = self.simulator.state_of(grid[None], position[None], np.array([direction]), carried[None])
        if kind == VIEW:
            return ViewScene(self._domain, obs, things_in_view(obs), lambda views: repeat_state(state, len(views)))
        return WorldScene(state, grid, int(carried), position, direction)

    def at_world(self, world: World) -> WorldScene:
        """The scene of a real world as it is now."""
        state, position = self.simulator.state_of_worlds([world]), np.array(world.position)
        return WorldScene(state, world.codes, world.carried, position, world.direction)


def real_world(recording: Recording, place: Place) -> World:
    """The real world of an episode, `lag` steps before a step."""
    encoding, episode = recording.config["encoding"], recording.episode(place.episode)
    actions = episode["action"][: place.step - place.lag]
    return world_at(encoding["task_id"], encoding["max_steps"], episode.seed, actions)


def real_case(world: World, episode: Episode, place: Place, edits: Sequence[Edit]) -> Case:
    """Edits to be made in this world, `lag` steps before a step, and what its policy remembers and did from there."""
    start = place.step - place.lag
    hidden, lang = (torch.from_numpy(np.array(part)) for part in (episode["hidden"][start], episode.lang))
    return Case(world, hidden, lang, episode["action"][start : place.step].tolist(), edits)


def true_contributions(
    policy: FrozenPolicy, recording: Recording, place: Place, scene: Scene, hidden: Tensor, target: Target
) -> np.ndarray:
    """Return minus the true effect (C, 2) of taking each thing out of the cloned real world; NaN where not legal.

    With the policy acting on what it sees, and with the recorded actions. NaN too where the episode is then over before
    the step.
    """
    things, world = scene.things, real_world(recording, place)
    removals = {(edit.x, edit.y): edit for edit in legal_edits(world, ["remove"])}
    at = [thing.place_in_world(world.position, world.direction) for thing in things]
    known = [number for number, cell in enumerate(at) if cell in removals]
    contributions = np.full((len(things), 2), np.nan)
    if known:
        edits = [removals[at[number]] for number in known]
        case = real_case(world, recording.episode(place.episode), place, edits)
        true = effects(policy, case, [target])
        contributions[known] = -np.stack([true.acting[:, 0], true.forced[:, 0]], 1)
    return contributions
