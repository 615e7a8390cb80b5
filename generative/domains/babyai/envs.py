"""BabyAI as the worlds of a recording, and its policies in them.

Axis letters: N slots, O = 152 numbers of an observation, E experts of all layers.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numba
import numpy as np
import torch
from torch import Tensor

from generative.domains.babyai.policy import FrozenPolicy
from generative.domains.base import Actor, Slots, Start, Step, Worlds
from generative.recordings.format import NOTHING
from mop.common.errors import InputError
from mop.envs.babyai import MAX_FAILURES_IN_A_ROW, MINIGRID_VERSION, OBS_DIM, World, unteachable
from mop.envs.teacher import TeacherFailure
from mop.evaluation.rollout import WorldPolicy
from mop.training.devices import choose_device


class BabyAIWorlds:
    """The `Worlds` of a BabyAI task; the teacher is the bot."""

    versions: ClassVar[dict[str, str]] = {"minigrid": MINIGRID_VERSION, "numba": numba.__version__}

    def __init__(self, task_id: str, max_steps: int | None, num_slots: int):
        self.obs = np.zeros((num_slots, OBS_DIM), np.float32)
        # the bot's action; NOTHING where it has no answer, after a failure to the end of the episode
        self._bot = np.full(num_slots, NOTHING, np.int8)
        self._worlds = [World(task_id, max_steps, row) for row in self.obs]
        env = self._worlds[0].env
        self.encoding: dict[str, Any] = {"task_id": task_id, "max_steps": max_steps}
        self.encoding["grid_shape"] = [env.height, env.width]

    def fields(self) -> list[tuple]:
        return [
            ("obs", np.uint8, (OBS_DIM,)),
            ("position", np.int16, (2,)),  # x, y of the agent
            ("grid", np.int32, tuple(self.encoding["grid_shape"])),  # codes of `mop.envs.geometry`, with object numbers
            ("carried", np.int32),  # code of what is carried
            ("bot", np.int8),
        ]

    def begin(self, slot: int, seed_of: Callable[[int], int]) -> Start:
        world, failures = self._worlds[slot], []
        for attempt in range(MAX_FAILURES_IN_A_ROW):
            world.reset(seed_of(attempt))
            try:
                self._bot[slot] = world.label()
            except TeacherFailure as failure:
                failures.append(failure.kind)
                continue
            return Start(world.seed, world.mission, dict(sorted(Counter(failures).items())))
        raise InputError(unteachable(self.encoding["task_id"], failures, self.encoding["max_steps"]))

    def step(self, slot: int, action: int) -> Step:
        world, failure = self._worlds[slot], None
        reward, terminated, truncated = world.step(action)
        if terminated or truncated:
            self._bot[slot] = NOTHING
        elif self._bot[slot] != NOTHING:
            try:
                self._bot[slot] = world.label()
            except TeacherFailure as failed:
                self._bot[slot], failure = NOTHING, failed.kind
        return Step(reward, terminated, truncated, failure)

    def show(self, rows: np.ndarray, slots: Sequence[int]) -> None:
        rows["obs"], rows["bot"] = self.obs, self._bot
        grid, position, carried = rows["grid"], rows["position"], rows["carried"]
        for slot in slots:
            world = self._worlds[slot]
            grid[slot], position[slot], carried[slot] = world.codes, world.position, world.carried


def open_worlds(config: Mapping, num_slots: int, max_steps: int | None) -> BabyAIWorlds:
    """Open the task of a policy; config: of its checkpoint."""
    choose_device("cpu")
    return BabyAIWorlds(config["task_id"], max_steps or config.get("max_steps"), num_slots)


class PolicyActor(Actor):
    """A mixture of experts, or the baseline, at its compiled speed."""

    def __init__(self, policy: FrozenPolicy, worlds: Worlds, to_views: Callable[[np.ndarray], Tensor]):
        super().__init__(policy, worlds, to_views)
        self._act = WorldPolicy(policy.policy, policy.missions)
        sizes = [size for sizes in policy.expert_hidden_sizes for size in sizes]
        self._squares = np.square(np.array(sizes, np.float32))
        self.extra_fields = [("routing", np.float32, (len(sizes),)), ("lpc", np.float32)]  # all layers side by side

    def __call__(self, slots: Slots, hidden: Tensor) -> Any:
        return self._act(slots, hidden)

    def columns(self, answer: Any) -> dict[str, np.ndarray]:
        logits, weights = answer.logits.numpy(), torch.cat(list(answer.routing), -1).numpy()
        above = logits - logits.max(-1, keepdims=True)
        log_probs = above - np.log(np.exp(above).sum(-1, keepdims=True))
        lpc = (weights * self._squares).sum(-1)
        return {"log_probs": log_probs, "student": logits.argmax(-1), "routing": weights, "lpc": lpc}
