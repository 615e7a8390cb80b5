"""BabyAI as the worlds of a recording. Axis letters: N slots, O = 152 numbers of an observation."""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from generative.domains import Start, Step
from generative.recordings import NOTHING
from mop.base.errors import InputError
from mop.worlds.teacher import TeacherFailure
from mop.worlds.world import MAX_FAILURES_IN_A_ROW, OBS_DIM, World, unteachable


class BabyAIWorlds:
    """`domains.Worlds` of a BabyAI task; the teacher is the bot. Raises InputError for an unknown task."""

    def __init__(self, task_id: str, max_steps: int | None, num_slots: int):
        self.obs = np.zeros((num_slots, OBS_DIM), np.float32)
        self.teacher = np.full(num_slots, NOTHING, np.int8)
        self._worlds = [World(task_id, max_steps, row) for row in self.obs]
        env = self._worlds[0].env
        self.encoding = {"task_id": task_id, "max_steps": max_steps, "grid_shape": [env.height, env.width]}

    def fields(self) -> list[tuple]:
        return [
            ("obs", np.uint8, (OBS_DIM,)),
            ("position", np.int16, (2,)),  # x, y of the agent
            ("grid", np.int32, tuple(self.encoding["grid_shape"])),  # codes of `mop.kernels.grid`, with object numbers
            ("carried", np.int32),  # code of what is carried
        ]

    def begin(self, slot: int, seed_of: Callable[[int], int]) -> Start:
        world, failures = self._worlds[slot], []
        for attempt in range(MAX_FAILURES_IN_A_ROW):
            world.reset(seed_of(attempt))
            try:
                self.teacher[slot] = world.label()
            except TeacherFailure as failure:
                failures.append(failure.kind)
                continue
            return Start(world.seed, world.mission, dict(sorted(Counter(failures).items())))
        raise InputError(unteachable(self.encoding["task_id"], failures, self.encoding["max_steps"]))

    def step(self, slot: int, action: int) -> Step:
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
        rows["obs"] = self.obs
        grid, position, carried = rows["grid"], rows["position"], rows["carried"]
        for slot in slots:
            world = self._worlds[slot]
            grid[slot], position[slot], carried[slot] = world.codes, world.position, world.carried
