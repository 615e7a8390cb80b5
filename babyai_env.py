"""The world: seeded BabyAI environments as arrays, with the bot as teacher.

An episode is its seed: `reset(seed=s)` alone determines the world. World k of slot i in a training run has the seed
`training_seed(run seed, i, k)`; evaluation lists its seeds itself (below 2**32, so the two never meet).
Axis letters: N environments (slots); O = 152 numbers of an observation.
"""

import contextlib
import dataclasses
import difflib
import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # minigrid imports pygame, which greets on stdout

import gymnasium
import minigrid  # registers the environments
import numpy as np
from minigrid.core.actions import Actions

from env_workers import Layout, WorkerPool, carve, num_bytes
from errors import InputError
from grid_kernels import IMAGE_SIZE, cell_code, grid_codes, observe
from minigrid_patches import DIRECTIONS, make_quick
from teacher import FAILURE_KINDS, Teacher, TeacherFailure

OBS_DIM = IMAGE_SIZE + 4 + 1  # image, direction one-hot, carrying flag
NUM_ACTIONS = len(Actions)
NO_LABEL = -1
DROP = int(Actions.drop)
MINIGRID_VERSION = minigrid.__version__

# Give up on a task whose bot fails in so many worlds in a row (the worst solvable task, UnlockToUnlock, fails in 43 %).
MAX_FAILURES_IN_A_ROW = 100

# Training replays the bot for the worlds whose k is a multiple of this, to estimate the path ratio of the successes.
REPLAY_EVERY = 8


def babyai_task_ids() -> list[str]:
    """The ids of all registered BabyAI tasks, sorted (96 in minigrid 3.2.0)."""
    return sorted(task_id for task_id in gymnasium.registry if task_id.startswith("BabyAI-"))


def check_task_id(task_id: str) -> None:
    """Raises InputError, with near matches, unless `task_id` is a registered BabyAI task."""
    if not (str(task_id).startswith("BabyAI-") and task_id in gymnasium.registry):
        known = babyai_task_ids()
        near = difflib.get_close_matches(str(task_id), known, n=3, cutoff=0.4)
        hint = f"did you mean {', '.join(near)}?" if near else "for example BabyAI-GoToObj-v0."
        raise InputError(f"unknown task id {task_id!r}; {hint} Registered ids look like BabyAI-<Level>-v0.")


def training_seed(run_seed: int, slot: int, k: int) -> int:
    """The seed of the k-th world of a slot: 32 bits of `SeedSequence((run_seed, slot, k))`, moved above 2**32."""
    return 2**32 + int(np.random.SeedSequence((run_seed, slot, k)).generate_state(1)[0])


class World:
    """One BabyAI environment: Minigrid's rules, a compiled view, the events of the episode and, if asked for, the bot.

    obs (O,) float32 may be given as a row of a larger array; it is written in place.
    """

    def __init__(self, task_id: str, max_steps: int | None = None, obs: np.ndarray | None = None):
        check_task_id(task_id)
        limit = {} if max_steps is None else {"max_steps": max_steps}
        self.env = make_quick(task_id, **limit)
        self.env.gen_obs = self._observe  # called by Minigrid at the end of each reset and step
        self.obs = np.zeros(OBS_DIM, np.float32) if obs is None else obs
        self.seen = np.zeros((self.env.width, self.env.height), bool)

    def reset(self, seed: int) -> None:
        """Begin the episode `seed`."""
        self.seed, self.actions = seed, []
        self.codes, self.teacher = None, None
        self.t_pick = self.t_opened = self.t_unlocked = self.t_drop = None
        self.seen[:] = False
        with contextlib.redirect_stdout(io.StringIO()):  # the world generator prints the worlds it rejects
            self.env.reset(seed=seed)
        self.mission = self.env.mission
        if self.env.carrying is not None:  # PutNext*Carrying puts the object into the hand after the first view
            self.codes, self._carried = grid_codes(self.env.grid), cell_code(self.env.carrying)
            self.obs[-1] = 1.0

    def step(self, action: int) -> tuple[float, bool, bool]:
        """Reward, terminated, truncated. Success is reward > 0: strict missions also terminate when they fail."""
        x, y = self._front()
        front = self.env.grid.grid[y * self.env.grid.width + x]
        held, was = self.env.carrying, (getattr(front, "is_open", None), getattr(front, "is_locked", None))
        self.actions.append(action)
        _, reward, terminated, truncated, _ = self.env.step(action)
        self._note_events(front, held, was)
        return float(reward), bool(terminated), bool(truncated)

    def label(self) -> int:
        """The bot's action for the present state; call it once after each reset and step. Raises TeacherFailure."""
        last_action = self.actions[-1] if self.actions else None
        if self.teacher is None:
            self.teacher = Teacher(self.env, self.codes, self.seen)
        elif last_action == DROP:  # Minigrid looks for the objects of the mission after each
            self.teacher.update_positions()
        return self.teacher.label(last_action, *self.position, *DIRECTIONS[self.direction], self._carried)

    @property
    def num_steps(self) -> int:
        """Actions taken in this episode."""
        return len(self.actions)

    def _front(self) -> tuple[int, int]:
        """The cell before the agent."""
        (x, y), (dx, dy) = self.position, DIRECTIONS[self.direction]
        return x + dx, y + dy

    def _observe(self) -> None:
        """The present view into `obs`. Since the last one only the cell in front of the agent can have changed."""
        env = self.env
        x, y = env.agent_pos
        self.position, self.direction = (int(x), int(y)), int(env.agent_dir)
        env.agent_pos, env.agent_dir = self.position, self.direction  # plain numbers: half the time of NumPy's
        if self.codes is None:
            self.codes = grid_codes(env.grid)
        else:
            x, y = self._front()
            self.codes[y, x] = cell_code(env.grid.grid[y * env.grid.width + x])
        self._carried = cell_code(env.carrying)
        observe(self.codes, *self.position, self.direction, self._carried, self.obs, self.seen)
        self.obs[IMAGE_SIZE:] = 0.0
        self.obs[IMAGE_SIZE + self.direction] = 1.0
        self.obs[-1] = env.carrying is not None

    def _note_events(self, front, held, was: tuple) -> None:
        """t_*: actions taken when an event was first true; opening a door and unlocking it are two events."""
        if self.t_pick is None and held is None and self.env.carrying is not None:
            self.t_pick = self.num_steps
        if self.t_drop is None and held is not None and self.env.carrying is None:
            self.t_drop = self.num_steps
        was_open, was_locked = was
        if self.t_opened is None and was_open is False and front.is_open:
            self.t_opened = self.num_steps
        if self.t_unlocked is None and was_locked and not front.is_locked:
            self.t_unlocked = self.num_steps


def teacher_steps(world: World, seed: int) -> int:
    """The length of the bot's own episode in world `seed`, at most the step limit. Raises TeacherFailure."""
    world.reset(seed)
    while True:
        reward, terminated, truncated = world.step(world.label())
        if reward > 0:
            return world.num_steps
        if terminated or truncated:
            raise TeacherFailure("unsolved")


def check_teachable(task_id: str, run_seed: int) -> None:
    """Raises InputError unless the bot solves one of the first worlds of a run; asks one episode of it as a rule.

    The bot labels the first states of some tasks that it never solves (KeyInBox, PutNext*Carrying): a run would learn
    from these labels without a word.
    """
    world, failures = World(task_id), []
    for k in range(MAX_FAILURES_IN_A_ROW):
        try:
            teacher_steps(world, training_seed(run_seed, 0, k))
            return
        except TeacherFailure as failure:
            failures.append(failure.kind)
    raise InputError(unteachable(task_id, failures))


@dataclass
class StepArrays:
    """What all slots show after a reset or step; plain arrays, or views of memory shared with the workers.

    Where an episode ended, obs and label belong to the next world already, and the other fields to the ended one.
    """

    obs: np.ndarray  # (N, O) float32
    label: np.ndarray  # (N,) int64, the bot's action, NO_LABEL where it has none
    label_valid: np.ndarray  # (N,) bool
    reward: np.ndarray  # (N,) float32, of the action just taken
    terminated: np.ndarray  # (N,) bool
    truncated: np.ndarray  # (N,) bool; also where the bot failed
    failure: np.ndarray  # (N,) int64, index into FAILURE_KINDS if the bot's failure ended the episode, else -1
    fresh_failures: np.ndarray  # (N, F) int64, worlds passed over because the bot failed at their beginning, by kind
    steps: np.ndarray  # (N,) int64, length of the episode that ended, else 0
    expert_steps: np.ndarray  # (N,) int64, the bot's length in that world if it was a sampled success, else 0

    @property
    def done(self) -> np.ndarray:
        """(N,) bool: an episode ended here, the hidden state starts afresh."""
        return self.terminated | self.truncated

    @classmethod
    def layout(cls, *axes: int) -> Layout:
        """Shape and dtype of each field for N environments, `axes` being N or, for a record of T steps, T, N."""
        shapes = {"obs": (*axes, OBS_DIM), "fresh_failures": (*axes, len(FAILURE_KINDS))}
        dtypes = {"obs": "f4", "reward": "f4", "label_valid": "?", "terminated": "?", "truncated": "?"}
        names = [field.name for field in dataclasses.fields(cls)]
        return {name: (shapes.get(name, axes), np.dtype(dtypes.get(name, "i8"))) for name in names}


class Slots:
    """Some consecutive slots of a vector environment, stepped in one process."""

    def __init__(self, task_id: str, seed: int, max_steps: int | None, share: Sequence[int], arrays: StepArrays):
        """share: the numbers of these slots; arrays: those of all slots, of which this object owns these rows."""
        self.task_id, self.seed, self.max_steps, self.arrays = task_id, seed, max_steps, arrays
        self.first, self.rows = share[0], slice(share[0], share[-1] + 1)
        self.worlds = [World(task_id, max_steps, arrays.obs[row]) for row in share]
        self.k = [-1] * len(self.worlds)  # index of each slot's present world
        self._replay: World | None = None  # for the path ratio, made when first needed

    def reset(self) -> dict[int, str]:
        """World 0 of each slot (the first that the bot can begin). Returns the missions by slot."""
        self._clear()
        return {self.first + i: self._begin(i, 0) for i in range(len(self.worlds))}

    def step(self, actions: np.ndarray) -> dict[int, str]:
        """Execute actions (N,); ended episodes make room for the next world. Returns the new missions by slot."""
        self._clear()
        arrays, missions = self.arrays, {}
        for i, world in enumerate(self.worlds):
            row = self.first + i
            reward, terminated, truncated = world.step(int(actions[row]))
            if not (terminated or truncated):
                try:
                    arrays.label[row] = world.label()
                    arrays.label_valid[row] = True
                except TeacherFailure as failure:  # no label for this state: the episode ends without it
                    arrays.failure[row] = FAILURE_KINDS.index(failure.kind)
                    truncated = True
            arrays.reward[row], arrays.terminated[row], arrays.truncated[row] = reward, terminated, truncated
            if terminated or truncated:
                arrays.steps[row] = world.num_steps
                if reward > 0 and self.k[i] % REPLAY_EVERY == 0:
                    arrays.expert_steps[row] = self._expert_steps(world.seed)
                missions[row] = self._begin(i, self.k[i] + 1)
        return missions

    def save(self) -> list[tuple[int, list[int]]]:
        """For each slot the index of its world and the actions taken in it: replaying them restores everything."""
        return [(k, list(world.actions)) for k, world in zip(self.k, self.worlds, strict=True)]

    def restore(self, saved: Sequence[tuple[int, Sequence[int]]]) -> dict[int, str]:
        """Bring every world and its bot into the saved state. Returns the missions by slot."""
        self._clear()
        for i, (k, actions) in enumerate(saved):
            row, world = self.first + i, self.worlds[i]
            self.k[i] = k
            world.reset(training_seed(self.seed, row, k))
            try:
                label = world.label()
                for action in actions:
                    world.step(int(action))
                    label = world.label()
            except TeacherFailure as failure:
                raise InputError(f"the saved worlds cannot be replayed ({failure.kind}); train anew") from None
            self.arrays.label[row], self.arrays.label_valid[row] = label, True
        return {self.first + i: world.mission for i, world in enumerate(self.worlds)}

    def _clear(self) -> None:
        for name in ("reward", "terminated", "truncated", "fresh_failures", "steps", "expert_steps", "label_valid"):
            getattr(self.arrays, name)[self.rows] = 0
        self.arrays.failure[self.rows] = -1
        self.arrays.label[self.rows] = NO_LABEL

    def _begin(self, i: int, k: int) -> str:
        """Start the first world from the k-th on that the bot can begin; count those that it cannot."""
        row, world, failures = self.first + i, self.worlds[i], []
        for attempt in range(MAX_FAILURES_IN_A_ROW):
            world.reset(training_seed(self.seed, row, k + attempt))
            try:
                self.arrays.label[row] = world.label()
            except TeacherFailure as failure:
                self.arrays.fresh_failures[row, FAILURE_KINDS.index(failure.kind)] += 1
                failures.append(failure.kind)
                continue
            self.arrays.label_valid[row] = True
            self.k[i] = k + attempt
            return world.mission
        raise InputError(unteachable(self.task_id, failures))

    def _expert_steps(self, seed: int) -> int:
        if self._replay is None:
            self._replay = World(self.task_id, self.max_steps)
        try:
            return teacher_steps(self._replay, seed)
        except TeacherFailure:
            return 0


def unteachable(task_id: str, failures: Sequence[str], max_steps: int | None = None) -> str:
    """The message for a task whose bot failed in every world tried; failures: the kind of each."""
    kinds = ", ".join(f"{kind} {failures.count(kind)}" for kind in FAILURE_KINDS if kind in failures)
    limit, way_out = ("", "") if max_steps is None else (f" within {max_steps} steps", "allow more steps, or ")
    return (
        f"the BabyAI bot cannot teach {task_id}{limit}: it failed in {len(failures)} worlds in a row "
        f"({kinds}); {way_out}choose another task"
    )


class BabyAIVectorEnv:
    """N seeded worlds with their teachers, stepped together, here or in worker processes.

    `arrays` (StepArrays) and `missions` (list of N texts) always describe the present state. Results do not depend on
    `num_workers`: 0 steps all slots in this process, W > 0 in W processes of N / W slots each.
    """

    def __init__(self, task_id: str, num_envs: int, seed: int, max_steps: int | None = None, num_workers: int = 0):
        check_task_id(task_id)
        self.num_envs, self.missions = num_envs, [""] * num_envs
        self._answer, self._is_interrupted = None, False
        num_workers = min(num_workers, num_envs)
        arguments, layout, self._pool = (task_id, seed, max_steps), self._layout(), None
        if num_workers == 0:
            self._memory = carve(bytearray(num_bytes(layout)), layout)
            self._commands, _ = self._make_commands(self._memory, self._ask, range(num_envs), *arguments)
        else:
            self._pool = WorkerPool(num_workers, num_bytes(layout), preload=[type(self).__module__])
            self._memory = carve(self._pool.buffer, layout)
            self._shares = [list(share) for share in np.array_split(range(num_envs), num_workers)]
            for index, share in enumerate(self._shares):
                self._pool.start(index, _commands_in_worker, (self._make_commands, layout, share, *arguments))
            self._pool.collect()
        self.arrays = StepArrays(**{name: self._memory[name] for name in StepArrays.layout()})

    def _layout(self) -> Layout:
        """The arrays that this process and the workers share."""
        return {**StepArrays.layout(self.num_envs), "actions": ((self.num_envs,), np.dtype("i8"))}

    @property
    def _make_commands(self) -> Callable:
        """What makes the commands of a share of the slots: (memory, ask, share, task_id, seed, max_steps)."""
        return slot_commands

    def reset(self) -> StepArrays:
        """World 0 of every slot."""
        self._begin_missions(self._call("reset"))
        return self.arrays

    def step(self, actions: np.ndarray) -> StepArrays:
        """Execute actions (N,) int; worlds that end are replaced at once."""
        self._memory["actions"][:] = actions
        self._begin_missions(self._call("step"))
        return self.arrays

    def save(self) -> dict[str, np.ndarray]:
        """The state of all slots: world (N,) int64, length (N,) int64, and their actions end to end (sum,) int8."""
        saved = [slot for share in self._call("save") for slot in share]
        return {
            "world": np.array([k for k, _ in saved], np.int64),
            "length": np.array([len(actions) for _, actions in saved], np.int64),
            "actions": np.array([action for _, actions in saved for action in actions], np.int8),
        }

    def restore(self, state: dict[str, np.ndarray]) -> StepArrays:
        """Back into a saved state, of an environment with the same task, seed, step limit and number of slots."""
        if len(state["world"]) != self.num_envs:
            raise InputError(f"the saved state has {len(state['world'])} environments, this run has {self.num_envs}")
        actions = np.split(np.asarray(state["actions"]), np.cumsum(state["length"])[:-1])
        saved = [(int(k), taken.tolist()) for k, taken in zip(state["world"], actions, strict=True)]
        self._begin_missions(self._call("restore", saved))
        return self.arrays

    def close(self) -> None:
        """End the worker processes."""
        if self._pool is not None:
            self._pool.close()

    def _call(self, command: str, by_slot: list | None = None, answer: Callable | None = None) -> list:
        """Carry out a command for all slots, here or in the workers; its answer of each share."""
        if self._is_interrupted:
            raise RuntimeError("a command to these worlds was interrupted: they stand somewhere in it; make new ones")
        self._is_interrupted, self._answer = True, answer
        if self._pool is None:
            answers = [self._commands[command](by_slot)]
        else:
            shares = by_slot and [by_slot[share[0] : share[-1] + 1] for share in self._shares]
            answers = self._pool.call(command, shares, answer)
        self._is_interrupted = False
        return answers

    def _ask(self, question):
        return self._answer(question)

    def _begin_missions(self, replies: list[dict[int, str]]) -> None:
        for missions in replies:
            for slot, mission in missions.items():
                self.missions[slot] = mission


def slot_commands(memory: dict[str, np.ndarray], ask: Callable, share: Sequence[int], *world):
    """The commands of some consecutive slots, name -> function of an optional argument, and the slots.

    ask: puts a question to the caller of the command; stepping has none.
    """
    slots = Slots(*world, share, StepArrays(**{name: memory[name] for name in StepArrays.layout()}))
    return {
        "reset": lambda _: slots.reset(),
        "step": lambda _: slots.step(memory["actions"]),
        "save": lambda _: slots.save(),
        "restore": slots.restore,
    }, slots


def _commands_in_worker(buffer, ask, make_commands: Callable, layout: Layout, *arguments):
    return make_commands(carve(buffer, layout), ask, *arguments)[0]
