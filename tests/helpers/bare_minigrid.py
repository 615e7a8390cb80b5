"""Plain Minigrid and its own bot: the slow reference that the fast environment is held against.

It shares no code with the project: Minigrid's rules, Minigrid's `gen_obs`, Minigrid's `BabyAIBot`. The one addition is
a bound on the bot's planning loop, which has none: its stack counts how often its top is looked up during one call.
"""

import contextlib
import io

import gymnasium
import minigrid  # noqa: F401, registers the environments
import numpy as np
from minigrid.core.actions import Actions
from minigrid.utils.baby_ai_bot import BabyAIBot, DisappearedBoxError, Subgoal

MAX_LOOKUPS = 64  # one per pass of the loop, and a few before it; a legitimate call makes at most 4 passes


class EndlessPlanning(Exception):
    """The bot's planning loop passed its bound."""


class CountingStack(list):
    """A list that raises EndlessPlanning at look-up MAX_LOOKUPS + 1 since `lookups` was last set to 0."""

    lookups = 0

    def __getitem__(self, index):
        self.lookups += 1
        if self.lookups > MAX_LOOKUPS:
            raise EndlessPlanning
        return super().__getitem__(index)


def bare_env(task_id: str, max_steps: int | None = None):
    """Minigrid's environment of a registered id without wrappers; None keeps its own step limit."""
    limit = {} if max_steps is None else {"max_steps": max_steps}
    return gymnasium.make(task_id, disable_env_checker=True, **limit).unwrapped


def bare_reset(env, seed: int) -> dict:
    """The observation dictionary of world `seed`; what the world generator prints is dropped."""
    with contextlib.redirect_stdout(io.StringIO()):
        return env.reset(seed=seed)[0]


def observation_vector(obs: dict, env) -> np.ndarray:
    """(152,) float32: image, channels first (3, 7, 7) flattened raw; direction one-hot (4); is something carried."""
    image = np.transpose(obs["image"], (2, 0, 1)).reshape(-1)
    direction = [float(obs["direction"] == k) for k in range(4)]
    return np.array([*image, *direction, env.carrying is not None], np.float32)


def bare_bot(env) -> BabyAIBot:
    """Minigrid's bot on a freshly reset environment, with a stack that counts."""
    bot = BabyAIBot(env)
    bot.stack = CountingStack(bot.stack)
    return bot


def ask(bot: BabyAIBot, last_action: int | None) -> int:
    """The bot's action after `last_action` was executed (None first). Raises whatever the bot raises."""
    bot.stack.lookups = 0
    return int(bot.replan(last_action))


def plan_of(bot: BabyAIBot) -> dict[Subgoal, int]:
    """The subgoals of the bot's first plan: the instruction that each serves, in the order they are done."""
    instructions, instruction = {}, -1
    for subgoal in reversed(list(bot.stack)):  # the first on top; each instruction begins by going somewhere
        instruction += type(subgoal).__name__ == "GoNextToSubgoal" and subgoal.reason != "PutNext"
        instructions[subgoal] = instruction
    return instructions


def bot_phase(bot: BabyAIBot, plan: dict[Subgoal, int]) -> tuple[str, int, bool]:
    """The name of the top subgoal; the instruction of the highest subgoal left of `plan`; whether that is the top."""
    stack = list(bot.stack)
    top = stack[-1]
    name = "explore" if top.is_exploratory() else _NAMES[type(top).__name__]
    left = [plan[subgoal] for subgoal in stack if subgoal in plan]
    return name, min(left, default=max(plan.values())), top in plan


_NAMES = {
    "OpenSubgoal": "open",
    "CloseSubgoal": "open",
    "DropSubgoal": "drop",
    "PickupSubgoal": "pick_up",
    "GoNextToSubgoal": "go_next_to",
}


def failure_kind(error: Exception) -> str:
    """The word by which the project counts this exception of the bot."""
    if isinstance(error, EndlessPlanning):
        return "loop"
    if isinstance(error, DisappearedBoxError):
        return "disappeared_box"
    return "assertion" if isinstance(error, AssertionError) else "error"


def bounded_label(bot: BabyAIBot, last_action: int | None) -> int | str:
    """The bot's action, or the kind of its failure; it must not be asked again in this episode after a failure."""
    try:
        action = ask(bot, last_action)
    except Exception as error:
        return failure_kind(error)
    return "unsolved" if action == Actions.done else action


def bot_episode(task_id: str, seed: int, max_steps: int | None = None) -> int | str:
    """The number of steps in which the bot solves world `seed`, or the kind of its failure."""
    env = bare_env(task_id, max_steps)
    bare_reset(env, seed)
    bot, action, steps = bare_bot(env), None, 0
    while True:
        action = bounded_label(bot, action)
        if isinstance(action, str):
            return action
        _, reward, terminated, truncated, _ = env.step(action)
        steps += 1
        if reward > 0:
            return steps
        if terminated or truncated:
            return "unsolved"
