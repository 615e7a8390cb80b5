"""Seeded worlds as arrays, stepped together, in this process or in workers; save and restore."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mop.common.errors import InputError
from mop.common.workers import Layout, WorkerPool, carve, num_bytes
from mop.envs.babyai import (
    MAX_FAILURES_IN_A_ROW,
    NO_LABEL,
    OBS_DIM,
    World,
    bot_steps,
    check_task_id,
    training_seed,
    unteachable,
)
from mop.envs.teacher import FAILURE_KINDS, TeacherFailure

# Training replays the bot for the worlds whose k is a multiple of this, to estimate the path ratio of the successes.
REPLAY_EVERY = 8


class SlotTask(NamedTuple):
    """The task of a slot, and the slot's number among those of the task.

    Seeds are made of that number, so that a slot's worlds are the same whichever other tasks there are.
    """

    task_id: str
    number: int


def slot_tasks_of(task_ids: Sequence[str]) -> list[SlotTask]:
    """Number the slots of each task."""
    counts: Counter[str] = Counter()
    slot_tasks = []
    for task_id in task_ids:
        slot_tasks.append(SlotTask(task_id, counts[task_id]))
        counts[task_id] += 1
    return slot_tasks


@dataclass
class StepArrays:
    """The present of all slots after a reset or step: plain arrays, or views of memory shared with the workers.

    Where an episode ended, obs and label belong to the next world already, and the other fields to the ended one.
    """

    obs: np.ndarray  # (N, O) float32
    label: np.ndarray  # (N,) int64, the bot's action, NO_LABEL where it has none
    reward: np.ndarray  # (N,) float32, of the action just taken
    terminated: np.ndarray  # (N,) bool
    truncated: np.ndarray  # (N,) bool; also where the bot failed
    failure: np.ndarray  # (N,) int64, index into FAILURE_KINDS if the bot's failure ended the episode, else -1
    fresh_failures: np.ndarray  # (N, F) int64, worlds passed over because the bot failed at their beginning, by kind
    steps: np.ndarray  # (N,) int64, length of the episode that ended, else 0
    bot_steps: np.ndarray  # (N,) int64, the bot's length in that world if it was a sampled success, else 0

    def of(self, slots: slice) -> "StepArrays":
        """Views of some slots' columns of a record (T, N, ...), or, after a reset, of their rows (N, ...)."""
        index = (slice(None), slots) if self.done.ndim == 2 else slots
        return StepArrays(**{field.name: getattr(self, field.name)[index] for field in dataclasses.fields(self)})

    @property
    def done(self) -> np.ndarray:
        """(N,) bool: an episode ended here, the hidden state starts afresh."""
        return self.terminated | self.truncated

    @classmethod
    def layout(cls, *axes: int) -> Layout:
        """Shape and dtype of each field for N environments, `axes` being N or, for a record of T steps, T, N."""
        shapes = {"obs": (*axes, OBS_DIM), "fresh_failures": (*axes, len(FAILURE_KINDS))}
        dtypes = {"obs": "f4", "reward": "f4", "terminated": "?", "truncated": "?"}
        names = [field.name for field in dataclasses.fields(cls)]
        return {name: (shapes.get(name, axes), np.dtype(dtypes.get(name, "i8"))) for name in names}


class Slots:
    """Some consecutive slots of a vector environment, stepped in one process."""

    def __init__(
        self, slot_tasks: Sequence[SlotTask], seed: int, max_steps: int | None, share: Sequence[int], arrays: StepArrays
    ):
        """slot_tasks, arrays: of all slots; share: the numbers of these slots, whose rows this object owns."""
        self.seed, self.max_steps, self.arrays = seed, max_steps, arrays
        self.first, self.rows = share[0], slice(share[0], share[-1] + 1)
        self.slot_tasks = [slot_tasks[row] for row in share]
        self.worlds = [World(slot_tasks[row].task_id, max_steps, arrays.obs[row]) for row in share]
        self.k = [-1] * len(self.worlds)  # index of each slot's present world
        self.seeds = [seed] * len(self.worlds)  # run seed of each slot's present world; `seed` is the next one's
        self._replays: dict[str, World] = {}  # of each task, for the path ratio; made when first needed

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
                except TeacherFailure as failure:  # no label for this state: the episode ends without it
                    arrays.failure[row] = FAILURE_KINDS.index(failure.kind)
                    truncated = True
            arrays.reward[row], arrays.terminated[row], arrays.truncated[row] = reward, terminated, truncated
            if terminated or truncated:
                arrays.steps[row] = world.num_steps
                if reward > 0 and self.k[i] % REPLAY_EVERY == 0:
                    arrays.bot_steps[row] = self._bot_steps(self.slot_tasks[i].task_id, world.seed)
                missions[row] = self._begin(i, self.k[i] + 1)
        return missions

    def save(self) -> list[tuple[int, int, list[int]]]:
        """For each slot run seed and index of its world, and the actions in it: replaying them restores everything."""
        slots = zip(self.seeds, self.k, self.worlds, strict=True)
        return [(seed, k, list(world.actions)) for seed, k, world in slots]

    def restore(self, saved: Sequence[tuple[int, int, Sequence[int]]]) -> dict[int, str]:
        """Bring every world and its bot into the saved state. Returns the missions by slot."""
        self._clear()
        for i, (seed, k, actions) in enumerate(saved):
            row, world = self.first + i, self.worlds[i]
            self.seeds[i], self.k[i] = seed, k
            world.reset(training_seed(seed, self.slot_tasks[i].number, k))
            try:
                label = world.label()
                for action in actions:
                    _, *ended = world.step(int(action))
                    if any(ended):
                        raise InputError("the saved worlds end within the saved actions; train anew")
                    label = world.label()
            except TeacherFailure as failure:
                raise InputError(f"the saved worlds cannot be replayed ({failure.kind}); train anew") from None
            self.arrays.label[row] = label
        return {self.first + i: world.mission for i, world in enumerate(self.worlds)}

    def reseed(self, seed: int) -> None:
        """Draw the worlds that begin from now on from another run seed; those in progress stay as they are."""
        self.seed = seed

    def _clear(self) -> None:
        for name in ("reward", "terminated", "truncated", "fresh_failures", "steps", "bot_steps"):
            getattr(self.arrays, name)[self.rows] = 0
        self.arrays.failure[self.rows] = -1
        self.arrays.label[self.rows] = NO_LABEL

    def _begin(self, i: int, k: int) -> str:
        """Start the first world from the k-th on that the bot can begin; count those that it cannot."""
        row, world, failures = self.first + i, self.worlds[i], []
        for attempt in range(MAX_FAILURES_IN_A_ROW):
            world.reset(training_seed(self.seed, self.slot_tasks[i].number, k + attempt))
            try:
                self.arrays.label[row] = world.label()
            except TeacherFailure as failure:
                self.arrays.fresh_failures[row, FAILURE_KINDS.index(failure.kind)] += 1
                failures.append(failure.kind)
                continue
            self.seeds[i], self.k[i] = self.seed, k + attempt
            return world.mission
        raise InputError(unteachable(self.slot_tasks[i].task_id, failures))

    def _bot_steps(self, task_id: str, seed: int) -> int:
        if task_id not in self._replays:
            self._replays[task_id] = World(task_id, self.max_steps)
        try:
            return bot_steps(self._replays[task_id], seed)
        except TeacherFailure:
            return 0


class BabyAIVectorEnv:
    """N seeded worlds with their teachers, stepped together, here or in worker processes.

    `arrays` (StepArrays) and `missions` (list of N texts) always describe the present state. Results do not depend on
    `num_workers`: 0 steps all slots in this process, W > 0 in W processes of N / W slots each. Slots may be of several
    tasks; the worlds of a task are the same as if its slots were the only ones.
    """

    def __init__(
        self,
        task_id: str | Sequence[str],
        num_envs: int,
        seed: int,
        max_steps: int | None = None,
        num_workers: int = 0,
        shared: Layout | None = None,
        more_commands: Callable | None = None,
    ):
        """task_id: one for all slots, or that of each; max_steps: for all of them, None for each task's own.

        shared: further arrays in `memory`, which this process and the workers share.
        more_commands: makes further commands, from `memory`, `ask` (which puts a question to the caller of the command)
        and Slots; must be picklable where there are workers.
        """
        slot_tasks = slot_tasks_of([task_id] * num_envs if isinstance(task_id, str) else task_id)
        for name in dict.fromkeys(slot_task.task_id for slot_task in slot_tasks):
            check_task_id(name)
        self.num_envs, self.seed, self.missions = num_envs, seed, [""] * num_envs
        self._answer: Callable | None = None
        self._is_interrupted = False
        self._pool: WorkerPool | None = None
        num_workers, arguments = min(num_workers, num_envs), (slot_tasks, seed, max_steps)
        layout = {**StepArrays.layout(num_envs), "actions": ((num_envs,), np.dtype("i8")), **(shared or {})}
        if num_workers == 0:
            self.memory = carve(bytearray(num_bytes(layout)), layout)
            self._commands = _make_commands(self.memory, self._ask, more_commands, range(num_envs), *arguments)
        else:
            made_by = more_commands or _make_commands
            module = getattr(made_by, "func", made_by).__module__  # of a partial function, or of itself
            self._pool = WorkerPool(num_bytes(layout), preload=[module])
            self.memory = carve(self._pool.buffer, layout)
            self._shares = [list(share) for share in np.array_split(range(num_envs), num_workers)]
            for share in self._shares:
                self._pool.start(_commands_in_worker, (layout, more_commands, share, *arguments))
            self._pool.collect()
        self.arrays = StepArrays(**{name: self.memory[name] for name in StepArrays.layout()})

    def reset(self) -> StepArrays:
        """World 0 of every slot."""
        self._begin_missions(self.call("reset"))
        return self.arrays

    def step(self, actions: np.ndarray) -> StepArrays:
        """Execute actions (N,) int; worlds that end are replaced at once."""
        self.memory["actions"][:] = actions
        self._begin_missions(self.call("step"))
        return self.arrays

    def save(self) -> dict[str, np.ndarray]:
        """The state of all slots: world (N,) int64, length (N,) int64, and their actions end to end (sum,) int8.

        Where a world is of another seed than the environment was made with, also the seeds of all: seed (N,) int64.
        """
        saved = [slot for share in self.call("save") for slot in share]
        seeds = np.array([seed for seed, *_ in saved], np.int64)
        return {
            "world": np.array([k for _, k, _ in saved], np.int64),
            "length": np.array([len(actions) for *_, actions in saved], np.int64),
            "actions": np.array([action for *_, actions in saved for action in actions], np.int8),
            **({"seed": seeds} if (seeds != self.seed).any() else {}),
        }

    def restore(self, state: dict[str, np.ndarray]) -> StepArrays:
        """Back into a saved state, of an environment with the same task, seed, step limit and number of slots."""
        length = state["length"]
        if not len(state["world"]) == len(length) == self.num_envs:
            raise InputError(f"the saved state has {len(length)} environments, this run has {self.num_envs}")
        if min(length) < 0 or sum(length.tolist()) != len(state["actions"]):  # Python's integers do not overflow
            raise InputError("'actions' of the saved state are not as many as its 'length' says")
        actions = np.split(state["actions"], np.cumsum(length)[:-1])
        worlds = zip(state.get("seed", [self.seed] * self.num_envs), state["world"], actions, strict=True)
        saved = [(int(seed), int(k), taken.tolist()) for seed, k, taken in worlds]
        self._begin_missions(self.call("restore", saved))
        return self.arrays

    def reseed(self, seed: int) -> None:
        """Draw the worlds that begin from now on from another seed; those in progress stay as they are.

        `save` keeps the seeds of worlds in progress, not this one: call `reseed` after `restore` again.
        """
        self.call("reseed", [seed] * self.num_envs)

    def close(self) -> None:
        """End the worker processes."""
        if self._pool is not None:
            self._pool.close()

    def call(self, command: str, by_slot: list | None = None, answer: Callable | None = None) -> list:
        """Carry out a command for all slots, here or in the workers. Returns its result for each share of them.

        by_slot: arguments, one for each slot; answer: replies to the questions that are asked while it is carried out.
        """
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
        assert self._answer is not None, f"{question} is asked, and nobody answers"
        return self._answer(question)

    def _begin_missions(self, replies: list[dict[int, str]]) -> None:
        for missions in replies:
            for slot, mission in missions.items():
                self.missions[slot] = mission


def _make_commands(memory: dict[str, np.ndarray], ask: Callable, more: Callable | None, share: Sequence[int], *world):
    """The commands of some consecutive slots: name -> function of an optional argument."""
    slots = Slots(*world, share, StepArrays(**{name: memory[name] for name in StepArrays.layout()}))
    commands = {
        "reset": lambda _: slots.reset(),
        "step": lambda _: slots.step(memory["actions"]),
        "save": lambda _: slots.save(),
        "restore": slots.restore,
        "reseed": lambda seeds: slots.reseed(seeds[0]),
    }
    return commands if more is None else commands | more(memory, ask, slots)


def _commands_in_worker(buffer, ask, layout: Layout, *arguments):
    return _make_commands(carve(buffer, layout), ask, *arguments)
