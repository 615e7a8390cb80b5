"""Games as the worlds of a recording, and their agents in them.

A world is a level: the level decides about the split. envpool cannot save a game, but a level and what was done in it
since its beginning lead to the same frames again. Axis letters: N slots, S hidden units, A actions of the agent.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch

from generative.agents.networks import GameAgent
from generative.domains.coinrun.games import ALL_LEVELS, FRAME_SHAPE, GAMES, RIGHT, UNSEEN_LEVELS, GameEnvs, begin_level
from generative.domains.worlds import Start, Step
from generative.recordings.behaviours import CHOOSE
from generative.recordings.format import common_fields

DOMAIN = "game"  # of `adapters`, in the encoding of a recording
IDLE_PREFERENCE, RIGHT_PREFERENCE = -3.0, 0.1  # of the noisy behaviour: actions that do nothing, and right


class GameWorlds:
    """`domains.Worlds` of a game; there is no teacher. Raises InputError where the game cannot be had."""

    def __init__(self, world: Mapping, actions: Sequence[int], max_steps: int | None, num_slots: int):
        """world: as in the config of an agent; actions: the game's numbers of its actions; max_steps: actions until an
        episode is cut short, None for the game's limit.

        A bounded number of levels are those from `start_level` on; ALL_LEVELS are those that no evaluation plays.
        """
        self.obs = np.zeros((num_slots, *FRAME_SHAPE), np.uint8)
        self.encoding = {"domain": DOMAIN, "task_id": world["env_name"], **world}
        self.encoding |= {"actions": list(actions), "max_steps": max_steps}
        self._num_levels = world["num_levels"] if world["num_levels"] != ALL_LEVELS else UNSEEN_LEVELS
        self._games: list[GameEnvs | None] = [None] * num_slots
        self._num_actions = np.zeros(num_slots, np.int64)

    def fields(self) -> list[tuple]:
        return [("obs", np.uint8, FRAME_SHAPE)]

    def begin(self, slot: int, seed_of: Callable[[int], int]) -> Start:
        level = self.encoding["start_level"] + seed_of(0) % self._num_levels
        if self._games[slot] is not None:
            self._games[slot].close()
        self._games[slot], self._num_actions[slot] = begin_level(self.encoding, level), 0
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


class AgentActor:
    """`domains.Actor` of an agent of a game. Its actions are numbered as its logits are.

    Each frame is looked at alone: in a batch, what is beside it would change the last bits of the answer.
    """

    lang_dim = 0  # there is no mission

    def __init__(self, agent: GameAgent, env_name: str, num_slots: int):
        self._agent, self._nothing = agent, np.zeros(0, np.float32)
        self._hidden = agent.initial_hidden(num_slots).clone()
        actions, useful = agent.actions.numpy(), GAMES[env_name].useful_actions
        fixed = np.where(np.isin(actions, useful), np.nan, IDLE_PREFERENCE)
        fixed[actions == RIGHT] = RIGHT_PREFERENCE
        self.choose = {**CHOOSE, "noisy": partial(CHOOSE["noisy"], fixed=fixed)}

    def fields(self) -> list[tuple]:
        common = common_fields(self._agent.hidden_size, len(self._agent.actions))
        return [*common, ("value", np.float32)]  # the expected sum of discounted scaled rewards

    def begin(self, slot: int, mission: str) -> None:
        self._hidden[slot] = self._agent.first_hidden

    def lang_of(self, mission: str) -> np.ndarray:
        return self._nothing

    @torch.no_grad()
    def ask(self, obs: np.ndarray, rows: np.ndarray, slots: Sequence[int]) -> None:
        rows["hidden"] = self._hidden.numpy()
        for slot in slots:
            answer = self._agent.step(torch.from_numpy(obs[slot : slot + 1]), self._hidden[slot : slot + 1])
            self._hidden[slot] = answer.hidden[0]
            rows["log_probs"][slot] = answer.logits[0].log_softmax(-1).numpy()
            rows["value"][slot] = answer.value[0]
        rows["student"] = rows["log_probs"].argmax(-1)
