"""Does attribution put the hazard before the jump? Moments of a recorded game, and what is measured at each.

At a moment the agent stands, and a hazard (saw, enemy, lava) is within some points ahead of it. Either it begins a
jump: its likeliest action has one, and this was not so a step before. Or, as a control, its likeliest action has none.
Asked is, for each lag k, what the patches of the frame k steps earlier contribute to the log-odds of a jump.
Axis letters: K lags, from 0 on, P = 64 patches of a frame, row by row.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from generative.attribution.closed_loop import untrained
from generative.attribution.integrated_gradients import EVERY_PATH, MEMORY_ONLY, attribute
from generative.attribution.loop_inputs import VIEW, Place, Scenes, closed_loop_from, watch
from generative.domains.coinrun.causes import (
    AGENT,
    HAZARD_NUMBERS,
    NUM_PATCHES,
    Patch,
    frames_without,
    kinds_of_patches,
    visible_patches,
)
from generative.domains.coinrun.decoder import frame_views
from generative.domains.coinrun.objects import KINDS
from generative.domains.coinrun.policy import FrozenAgent
from generative.domains.coinrun.scenes import answer_after
from generative.domains.coinrun.targets import JUMP, jumps_of, parse_target
from generative.recordings.format import Episode, Recording
from mop.artifacts.records import array, read_record
from mop.common.seeding import stream_seed

Objects = Callable[[Episode], np.ndarray]  # what is on screen in an episode, as `episode_objects`
BLACK = 255  # in place of a kind, of a patch in which nothing is seen
NUM_DRAWS = 8  # of other patches to hide, as many as show a hazard
SOLE_POINTS = 2  # below the agent, within which there must be something to stand on
_SOLID = tuple(KINDS.index(name) for name in ("ground", "crate"))


class HazardMoment(NamedTuple):
    """A step of a recorded episode with a hazard ahead."""

    episode: int
    step: int
    level: int
    has_jump: bool


@dataclass(frozen=True, eq=False)
class Measured:
    """What is measured at a moment. NaN, of patches: black; of agents: not asked."""

    episode: np.ndarray = array("", "int")
    step: np.ndarray = array("", "int")
    level: np.ndarray = array("", "int")
    has_jump: np.ndarray = array("", "bool")
    kinds: np.ndarray = array("K P", "int")  # of KINDS, or BLACK
    trained: np.ndarray = array("K P", "float or nan")  # what each patch contributes to the log-odds of a jump
    without_world: np.ndarray = array("K P", "float or nan")  # the same without the path through the world
    untrained: np.ndarray = array("K P", "float or nan")  # to those of an untrained agent in the same simulator
    hidden: np.ndarray = array("K 2", "float or nan")  # what the real agent's log-odds lose where hazards are hidden
    # from it in the last k + 1 frames, and where as many other patches are, the mean of NUM_DRAWS draws


def load_measured(path: Path) -> Measured:
    """Read what `write_record` wrote."""
    way_out = "delete it and give the command again"
    return read_record(path, Measured, kind="file of generative.hazards", way_out=way_out)


# --- moments ----------------------------------------------------------------------------------------------------------


def find_moments(
    recording: Recording, objects_of: Objects, agent: FrozenAgent, numbers: Sequence[int], horizon: int, ahead: int
) -> list[HazardMoment]:
    """All moments of some episodes, at least `horizon` steps into each; ahead: in points."""
    is_jump, found = jumps_of(agent).numpy(), []
    for number in numbers:
        rows = recording.episode(int(number))
        num_steps = len(rows["action"]) - 1
        if num_steps <= horizon:
            continue
        near = np.array([stands_before_hazard(objects, ahead) for objects in objects_of(rows)[:num_steps]])
        jumps = is_jump[rows["student"][:num_steps]]
        begins = near & jumps & ~np.concatenate([[False], jumps[:-1]])
        for step in range(horizon, num_steps):
            if begins[step] or (near[step] and not jumps[step]):
                found.append(HazardMoment(int(number), step, rows.seed, bool(begins[step])))
    return found


def stands_before_hazard(objects: np.ndarray, ahead: int) -> bool:
    """Whether the agent stands, and a hazard is to its right, up to so many points away, also up and down.

    objects: what is at each point (64, 64).
    """
    points = np.argwhere(objects == AGENT)
    if not len(points):
        return False
    (top, left), (bottom, right) = points.min(0), points.max(0)
    sole = objects[bottom + 1 : bottom + 1 + SOLE_POINTS, left : right + 1]
    before = objects[max(0, top - ahead) : bottom + 1 + ahead, right + 1 : right + 1 + ahead]
    return bool(np.isin(sole, _SOLID).any() and np.isin(before, HAZARD_NUMBERS).any())


def draw_moments(found: Sequence[HazardMoment], num_moments: int, per_level: int, seed: int) -> list[HazardMoment]:
    """Up to `num_moments` with a jump, and as many without; of a level, up to `per_level` of each, drawn by chance."""
    kept = []
    for has_jump in (True, False):
        pool = [moment for moment in found if moment.has_jump == has_jump]
        order = np.random.default_rng(stream_seed(seed, f"hazard moments, jump {has_jump}")).permutation(len(pool))
        levels = pd.Series([pool[k].level for k in order], dtype=int)
        drawn = order[levels.groupby(levels).cumcount() < per_level][:num_moments]
        kept += [pool[k] for k in drawn]
    return kept


# --- measurements -----------------------------------------------------------------------------------------------------


class Study(NamedTuple):
    """What all moments share."""

    recording: Recording
    scenes: Scenes
    objects_of: Objects
    agent: FrozenAgent
    horizon: int
    num_points: int
    seed: int

    def measure(self, moment: HazardMoment) -> Measured:
        """What is measured at a moment; an untrained agent, another in each episode, is asked where there is a jump."""
        rows = self.recording.episode(moment.episode)
        states = torch.from_numpy(np.array(rows["hidden"][: moment.step + 1]))
        kinds = self._kinds(rows, moment)
        trained, without_world = self._attribute(self.agent, rows, states, moment, both=True)
        control = np.full_like(trained, np.nan)
        if moment.has_jump:
            seed = stream_seed(self.seed, f"untrained agent of episode {moment.episode}")
            other = untrained(self.agent, self.recording.config["checkpoint"]["config"], seed)
            control, _ = self._attribute(other, rows, watch(other, rows, moment.step, frame_views), moment, both=False)
        hidden = self._hide(rows, moment, kinds)
        return Measured(*map(np.array, moment), kinds, trained, without_world, control, hidden)

    def _steps(self, moment: HazardMoment) -> np.ndarray:
        return moment.step - np.arange(self.horizon + 1)

    def _kinds(self, rows: Episode, moment: HazardMoment) -> np.ndarray:
        kinds = kinds_of_patches(self.objects_of(rows)[self._steps(moment)])
        found = np.full_like(kinds, BLACK)
        for row, frame, of_frame in zip(found, np.array(rows["obs"])[self._steps(moment)], kinds, strict=True):
            for patch in visible_patches(frame, of_frame):
                row[patch.cell] = patch.number
        return found

    def _attribute(
        self, agent: FrozenAgent, rows: Episode, hidden: Tensor, moment: HazardMoment, both: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """What each patch contributes, (K, P), along all paths and, if asked for, without the world."""
        target, found = parse_target(JUMP, agent), np.full((2, self.horizon + 1, NUM_PATCHES), np.nan, np.float32)
        for lag, start in enumerate(self._steps(moment)):
            scene = self.scenes.at(rows, start, VIEW)
            place = Place(moment.episode, moment.step, lag)
            loop = closed_loop_from(agent, self.scenes, scene, rows, hidden[start][None], place, is_own=False)
            places, without = [patch.cell for patch in scene.things], scene.without(scene.things)
            for part, paths in zip(found, (EVERY_PATH, MEMORY_ONLY) if both else (EVERY_PATH,), strict=False):
                (numbers,) = attribute(loop, scene.inputs, without, [target], paths, num_points=self.num_points)
                part[lag, places] = -scene.by_channel(numbers)[:, 0].numpy()
        return found[0], found[1]

    def _hide(self, rows: Episode, moment: HazardMoment, kinds: np.ndarray) -> np.ndarray:
        """`Measured.hidden`: the real agent watches what was recorded, and does nothing; kinds: as in `Measured`."""
        target, steps = parse_target(JUMP, self.agent), self._steps(moment)
        rng = np.random.default_rng(stream_seed(self.seed, f"patches elsewhere, {moment.episode} {moment.step}"))
        films = []  # by lag: (2 + draws, 3, 64, 64), as it was, hazards black, others black
        has_hazard, has_other = np.zeros((2, self.horizon + 1), bool)
        for lag, frame in enumerate(np.array(rows["obs"])[steps]):
            patches = [Patch.at(k, kinds[lag, k]) for k in np.flatnonzero(kinds[lag] != BLACK)]
            hazards = [patch for patch in patches if patch.number in HAZARD_NUMBERS]
            others = [patch for patch in patches if patch.number not in (*HAZARD_NUMBERS, AGENT)]
            draws = [[others[k] for k in rng.permutation(len(others))[: len(hazards)]] for _ in range(NUM_DRAWS)]
            films.append(frames_without(frame, [[], hazards, *draws]))
            has_hazard[lag], has_other[lag] = bool(hazards), bool(hazards) and len(others) >= len(hazards)
        found = np.full((self.horizon + 1, 2), np.nan, np.float32)
        for lag, start in enumerate(steps):
            memory = torch.from_numpy(np.array(rows["hidden"][start]))[None]
            values = target(answer_after(self.agent, films[lag::-1], memory)).numpy()
            lost = values[0] - values[1:]
            if has_hazard[: lag + 1].any():
                found[lag, 0] = lost[0]
            if has_other[: lag + 1].any():
                found[lag, 1] = lost[1:].mean()
        return found
