"""BabyAI as the worlds of a recording: all that a recorder must know of them. Another domain offers the same.

Axis letters: N slots, O = 152 numbers of an observation, H, W height and width of the grid.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from generative.recordings import NOTHING
from mop.base.errors import InputError
from mop.worlds.teacher import TeacherFailure
from mop.worlds.world import MAX_FAILURES_IN_A_ROW, OBS_DIM, World, unteachable


class Start(NamedTuple):
    """How an episode began."""

    seed: int
    mission: str
    passed_over: dict[str, int]  # worlds that were tried before, whose teacher failed at once, by kind of failure


class Step(NamedTuple):
    """What an action led to."""

    reward: float
    terminated: bool
    truncated: bool
    failure: str | None  # how the teacher failed now, one of its kinds


class BabyAIWorlds:
    """Episodes in N slots, with the teacher's action in each: obs (N, O) float32, teacher (N,) int8.

    teacher is NOTHING where it has no answer, which is so to the end of an episode in which it failed. Raises
    InputError for an unknown task.
    """

    obs_dim = OBS_DIM

    def __init__(self, task_id: str, max_steps: int | None, num_slots: int):
        self.task_id, self.max_steps = task_id, max_steps
        self.obs = np.zeros((num_slots, OBS_DIM), np.float32)
        self.teacher = np.full(num_slots, NOTHING, np.int8)
        self._worlds = [World(task_id, max_steps, row) for row in self.obs]

    @property
    def encoding(self) -> dict:
        """What a reader of the arrays must know, for the config of a recording."""
        env = self._worlds[0].env
        return {"task_id": self.task_id, "max_steps": self.max_steps, "grid_shape": [env.height, env.width]}

    def fields(self) -> list[tuple]:
        """The arrays of a row that are of this kind of world, as fields of a dtype."""
        return [
            ("obs", np.uint8, (OBS_DIM,)),
            ("position", np.int16, (2,)),  # x, y of the agent
            ("grid", np.int32, tuple(self.encoding["grid_shape"])),  # codes of `mop.kernels.grid`, with object numbers
            ("carried", np.int32),  # code of what is carried
        ]

    def begin(self, slot: int, seed_of: Callable[[int], int]) -> Start:
        """Begin the first of the worlds seed_of(0), seed_of(1), ... in which the teacher has an answer.

        Raises InputError where it has none in too many of them.
        """
        world, failures = self._worlds[slot], []
        for attempt in range(MAX_FAILURES_IN_A_ROW):
            world.reset(seed_of(attempt))
            try:
                self.teacher[slot] = world.label()
            except TeacherFailure as failure:
                failures.append(failure.kind)
                continue
            return Start(world.seed, world.mission, dict(sorted(Counter(failures).items())))
        raise InputError(unteachable(self.task_id, failures, self.max_steps))

    def step(self, slot: int, action: int) -> Step:
        """Execute an action; the episode goes on until it is terminated or truncated."""
        world, failure = self._worlds[slot], None
        reward, terminated, truncated = world.step(action)
        if terminated or truncated:
            self.teacher[slot] = NOTHING
        elif self.teacher[slot] != NOTHING:
            try:
                self.teacher[slot] = world.label()
            except TeacherFailure as failed:
                self.teacher[slot], failure = NOTHING, failed.kind
        return Step(reward, terminated, truncated, failure)

    def show(self, rows: np.ndarray, slots: Sequence[int]) -> None:
        """Write what some slots show now to their rows; rows (N,) of a dtype with `fields`."""
        rows["obs"] = self.obs
        grid, position, carried = rows["grid"], rows["position"], rows["carried"]
        for slot in slots:
            world = self._worlds[slot]
            grid[slot], position[slot], carried[slot] = world.codes, world.position, world.carried
