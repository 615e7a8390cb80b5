"""Games as the worlds of a recording, and their agents in them.

A world is a level: the level decides about the split. envpool cannot save a game, but a level and what was done in it
since its beginning lead to the same frames again. Axis letters: N slots, S hidden units, A actions of the agent.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor

from generative.agents.config import check_preset
from generative.domains.base import Actor, Answer, Slots, Start, Step, Worlds, stack_answers
from generative.domains.coinrun.games import (
    ALL_LEVELS,
    FRAME_SHAPE,
    GAMES,
    RIGHT,
    UNSEEN_LEVELS,
    GameEnvs,
    begin_level,
    check_playable,
)
from generative.domains.coinrun.policy import FrozenAgent
from generative.recordings.behaviours import CHOOSE, noisy

DOMAIN = "game"  # in the encoding of a recording
MAX_GAMES = 16  # side by side: each keeps the frames of its episode
IDLE_PREFERENCE, RIGHT_PREFERENCE = -3.0, 0.1  # of the noisy behaviour: actions that do nothing, and right


class GameWorlds:
    """The `Worlds` of a game; there is no teacher."""

    def __init__(self, world: Mapping, actions: Sequence[int], max_steps: int | None, num_slots: int):
        """world: as in the config of an agent; actions: the game's numbers of its actions; max_steps: actions until an
        episode is cut short, None for the game's limit.

        A bounded number of levels are those from `start_level` on; ALL_LEVELS are those that no evaluation plays.
        """
        self.obs = np.zeros((num_slots, *FRAME_SHAPE), np.uint8)
        self.versions = {"envpool": version("envpool")}
        self.encoding: dict[str, Any] = {"domain": DOMAIN, "task_id": world["env_name"], **world}
        self.encoding |= {"actions": list(actions), "max_steps": max_steps}
        self._num_levels = world["num_levels"] if world["num_levels"] != ALL_LEVELS else UNSEEN_LEVELS
        self._games: dict[int, GameEnvs] = {}  # by slot
        self._num_actions = np.zeros(num_slots, np.int64)

    def fields(self) -> list[tuple]:
        return [("obs", np.uint8, FRAME_SHAPE)]

    def begin(self, slot: int, seed_of: Callable[[int], int]) -> Start:
        level = self.encoding["start_level"] + seed_of(0) % self._num_levels
        if slot in self._games:
            self._games[slot].close()
        self._games[slot] = begin_level(self.encoding, level)
        self._num_actions[slot] = 0
        self.obs[slot] = self._games[slot].begin()[0][0]
        return Start(level, "", {})

    def step(self, slot: int, action: int) -> Step:
        moment = self._games[slot].step(np.array([self.encoding["actions"][action]]))
        self._num_actions[slot] += 1
        self.obs[slot] = moment.frames[0]
        terminated, is_cut = bool(moment.is_terminal[0]), bool(moment.is_cut[0])
        is_cut |= self._num_actions[slot] == self.encoding["max_steps"]
        return Step(float(moment.reward[0]), terminated, bool(is_cut and not terminated), None)

    def show(self, rows: np.ndarray, slots: Sequence[int]) -> None:
        rows["obs"] = self.obs


def open_worlds(
    config: Mapping, num_slots: int, max_steps: int | None, *, param_name: str | None = None, **world
) -> GameWorlds:
    """Open the levels of an agent's game; config: of its checkpoint; world: what differs from the agent's training."""
    if param_name is not None:
        check_preset(param_name, config, "the agent")
    world = config["world"] | world
    check_playable(world["env_name"], world["distribution_mode"])
    torch.set_num_threads(1)  # so that the bytes are the same on any number of processors; one frame needs no more
    return GameWorlds(world, config["shape"]["actions"], max_steps, min(num_slots, MAX_GAMES))


class GameActor(Actor):
    """An agent of a game. Its actions are numbered as its logits are.

    Each frame is looked at alone: in a batch, the others would change the last bits of the answer.
    """

    policy: FrozenAgent
    extra_fields = (("value", np.float32),)  # the expected sum of discounted scaled rewards

    def __init__(self, policy: FrozenAgent, worlds: Worlds, to_views: Callable[[np.ndarray], Tensor]):
        super().__init__(policy, worlds, to_views)
        actions, useful = policy.agent.actions.numpy(), GAMES[worlds.encoding["env_name"]]
        fixed = np.where(np.isin(actions, useful), np.nan, IDLE_PREFERENCE)
        fixed[actions == RIGHT] = RIGHT_PREFERENCE
        self.choose = {**CHOOSE, "noisy": partial(noisy, fixed=fixed)}

    def __call__(self, slots: Slots, hidden: Tensor) -> Answer:
        frames, active = torch.from_numpy(slots.obs).split(1), np.flatnonzero(slots.active).tolist()
        before = hidden.split(1)
        answers = {slot: self.policy.agent.step(frames[slot], before[slot]) for slot in active}
        every = [answers.get(slot, answers[active[0]]) for slot in range(len(frames))]
        logits, _, hidden, value = stack_answers(every)
        return Answer(logits[:, 0], [], hidden[:, 0], value[:, 0])

    def columns(self, answer: Any) -> dict[str, np.ndarray]:
        return super().columns(answer) | {"value": answer.value.numpy()}
