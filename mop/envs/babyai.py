"""One world: a seeded BabyAI environment as arrays, with the bot as teacher.

An episode is its seed: the seed alone determines the world. The k-th world of slot i in a training run has the seed
`training_seed(run seed, i, k)`; evaluation lists its seeds itself, below 2**32, so that the two never meet.
Axis letter: O = 152 numbers of an observation.
"""

import contextlib
import difflib
import io
from collections.abc import Sequence
from typing import Any

import gymnasium
import minigrid  # registers the environments
import numpy as np
from minigrid.core.actions import Actions

from mop.common.errors import InputError
from mop.common.speed import IS_FAST
from mop.envs.geometry import DIRECTIONS, IMAGE_SIZE, cell_code, grid_codes
from mop.envs.teacher import FAILURE_KINDS, TeacherFailure

if IS_FAST:
    from mop.fast.compiled_teacher import Teacher
    from mop.fast.grid import observe
    from mop.fast.worlds import make_env
else:
    from mop.envs.geometry import observe
    from mop.envs.teacher import Teacher

    def make_env(task_id: str, **kwargs):
        """Minigrid's environment of a registered id, without wrappers."""
        return gymnasium.make(task_id, disable_env_checker=True, **kwargs).unwrapped


OBS_DIM = IMAGE_SIZE + 4 + 1  # image, direction one-hot, carrying flag
NUM_ACTIONS = len(Actions)
NO_LABEL = -1
MINIGRID_VERSION = minigrid.__version__

# A task is given up if its bot fails in so many worlds in a row (of the solvable tasks the worst, UnlockToUnlock, fails
# in 43 %).
MAX_FAILURES_IN_A_ROW = 100
MIN_SOLVED = 10  # worlds of so many; a bot that solves a tenth fails in 100 in a row once in 30,000 tries


def babyai_task_ids() -> list[str]:
    """The ids of all registered BabyAI tasks, sorted (96 in minigrid 3.2.0)."""
    return sorted(task_id for task_id in gymnasium.registry if task_id.startswith("BabyAI-"))


def check_task_id(task_id: str) -> None:
    """Refuse an id that is not of a registered BabyAI task; names near matches."""
    if not (str(task_id).startswith("BabyAI-") and task_id in gymnasium.registry):
        known = babyai_task_ids()
        near = difflib.get_close_matches(str(task_id), known, n=3, cutoff=0.4)
        hint = f"did you mean {', '.join(near)}?" if near else "for example BabyAI-GoToObj-v0."
        raise InputError(f"unknown task id {task_id!r}; {hint} Registered ids look like BabyAI-<Level>-v0.")


def training_seed(run_seed: int, slot: int, k: int) -> int:
    """The seed of the k-th world of a slot: 32 bits of `SeedSequence((run_seed, slot, k))`, moved above 2**32."""
    return 2**32 + int(np.random.SeedSequence((run_seed, slot, k)).generate_state(1)[0])


class World:
    """One BabyAI environment: Minigrid's rules, the view, the events of the episode and, if asked for, the bot.

    obs (O,) float32 is written in place; it may be given as a row of a larger array. codes (height, width) int32 is the
    grid, carried the code of what is carried, `geometry.EMPTY` for nothing. t_pick, t_opened, t_unlocked and
    t_drop count the actions taken when something was first picked up, opened, unlocked or dropped; None before.
    """

    codes: Any  # an array, but at the beginning of an episode None

    def __init__(self, task_id: str, max_steps: int | None = None, obs: np.ndarray | None = None):
        check_task_id(task_id)
        limit = {} if max_steps is None else {"max_steps": max_steps}
        self.env = make_env(task_id, **limit)
        self.env.gen_obs = self._observe  # called by Minigrid at the end of each reset and step
        self.obs = np.zeros(OBS_DIM, np.float32) if obs is None else obs
        self.seen = np.zeros((self.env.width, self.env.height), bool)

    def reset(self, seed: int) -> None:
        """Begin the episode `seed`."""
        self.seed = seed
        self._forget()
        with contextlib.redirect_stdout(io.StringIO()):  # the world generator prints the worlds it rejects
            self.env.reset(seed=seed)
        self.mission = self.env.mission
        if self.env.carrying is not None:  # PutNext*Carrying puts the object into the hand after the first view
            self.codes, self.carried = grid_codes(self.env.grid), cell_code(self.env.carrying)
            self.obs[-1] = 1.0

    def begin_here(self) -> None:
        """Begin an episode in the world as it is now, which was changed from outside; its mission stays."""
        self._forget()
        self.env.step_count = 0
        self.env.instrs.reset_verifier(self.env)
        self.env.gen_obs()

    def _forget(self) -> None:
        self.actions: list[int] = []
        self.teacher: Teacher | None = None
        self._is_unseen = True
        self.t_pick = self.t_opened = self.t_unlocked = self.t_drop = None
        self.seen[:] = False

    def step(self, action: int) -> tuple[float, bool, bool]:
        """Execute an action; returns reward, terminated, truncated.

        Success is reward > 0: a strict mission terminates when it fails, too.
        """
        x, y = self._front()
        front = self.env.grid.grid[y * self.env.grid.width + x]
        held, was = self.env.carrying, (getattr(front, "is_open", None), getattr(front, "is_locked", None))
        self.actions.append(action)
        _, reward, terminated, truncated, _ = self.env.step(action)
        self._note_events(front, held, was)
        return float(reward), bool(terminated), bool(truncated)

    def label(self) -> int:
        """The bot's action for the present state; call it once after each reset and step. Raises TeacherFailure."""
        if self.teacher is None:
            self.teacher = Teacher(self)
        return self.teacher.label(self)

    @property
    def num_steps(self) -> int:
        """Actions taken in this episode."""
        return len(self.actions)

    def _front(self) -> tuple[int, int]:
        (x, y), (dx, dy) = self.position, DIRECTIONS[self.direction]
        return x + dx, y + dy

    def _observe(self) -> None:
        """Write the present view into `obs`. Since the last view only the cell before the agent can have changed."""
        env = self.env
        x, y = env.agent_pos
        self.position, self.direction = (int(x), int(y)), int(env.agent_dir)
        env.agent_pos, env.agent_dir = self.position, self.direction  # plain numbers: half the time of NumPy's
        if self._is_unseen:
            self.codes, self._is_unseen = grid_codes(env.grid), False
        else:
            x, y = self._front()
            self.codes[y, x] = cell_code(env.grid.grid[y * env.grid.width + x])
        self.carried = cell_code(env.carrying)
        observe(self.codes, *self.position, self.direction, self.carried, self.obs, self.seen)
        self.obs[IMAGE_SIZE:] = 0.0
        self.obs[IMAGE_SIZE + self.direction] = 1.0
        self.obs[-1] = env.carrying is not None

    def _note_events(self, front, held, was: tuple) -> None:
        """Note what has happened for the first time; opening a door and unlocking it are two events."""
        if self.t_pick is None and held is None and self.env.carrying is not None:
            self.t_pick = self.num_steps
        if self.t_drop is None and held is not None and self.env.carrying is None:
            self.t_drop = self.num_steps
        was_open, was_locked = was
        if self.t_opened is None and was_open is False and front.is_open:
            self.t_opened = self.num_steps
        if self.t_unlocked is None and was_locked and not front.is_locked:
            self.t_unlocked = self.num_steps


def bot_steps(world: World, seed: int) -> int:
    """The length of the bot's own episode in world `seed`, at most the step limit. Raises TeacherFailure."""
    world.reset(seed)
    return solve_with_bot(world)


def solve_with_bot(world: World) -> int:
    """The length of the bot's episode in a world that has just begun. Raises TeacherFailure."""
    while True:
        reward, terminated, truncated = world.step(world.label())
        if reward > 0:
            return world.num_steps
        if terminated or truncated:
            raise TeacherFailure("unsolved")


def check_teachable(task_id: str, run_seed: int, max_steps: int | None = None) -> None:
    """Refuse a task unless the bot solves one of the first worlds of a run; as a rule it solves the first.

    max_steps: the step limit of the run, None for the task's own. With a limit of the user's, it must solve MIN_SOLVED
    of them: where it solves fewer, evaluation would come to MAX_FAILURES_IN_A_ROW sooner or later, and refuse.

    The bot labels the first states of some tasks that it never solves (KeyInBox, PutNext*Carrying): without this check
    a run would learn from these labels.
    """
    world, failures, needed = World(task_id, max_steps), [], 1 if max_steps is None else MIN_SOLVED
    for k in range(MAX_FAILURES_IN_A_ROW):
        try:
            bot_steps(world, training_seed(run_seed, 0, k))
            needed -= 1
        except TeacherFailure as failure:
            failures.append(failure.kind)
        if needed == 0:
            return
    raise InputError(unteachable(task_id, failures, max_steps, MAX_FAILURES_IN_A_ROW))


def unteachable(
    task_id: str, failures: Sequence[str], max_steps: int | None = None, num_tried: int | None = None
) -> str:
    """The message for a task whose bot failed in too many worlds; failures: the kind of each.

    num_tried: worlds that were tried; None: those that it failed in.
    """
    where = "worlds in a row" if num_tried in (None, len(failures)) else f"of {num_tried} worlds"
    kinds = ", ".join(f"{kind} {failures.count(kind)}" for kind in FAILURE_KINDS if kind in failures)
    limit, way_out = ("", "") if max_steps is None else (f" within {max_steps} steps", "allow more steps, or ")
    return (
        f"the BabyAI bot cannot teach {task_id}{limit}: it failed in {len(failures)} {where} "
        f"({kinds}); {way_out}choose another task"
    )
