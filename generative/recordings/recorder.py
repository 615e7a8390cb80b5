"""How a recording is made: many episodes side by side, filed by behaviour and number, written shard by shard.

An episode is determined by the recording's seed, its behaviour and its number alone: its world, and the random numbers
of who acts in it. The episodes of a behaviour are filed in the order of their numbers, whichever ends first, and each
belongs to the shard that its first step falls into. What is filed but in no whole shard yet is kept in parts, which go
when the shard is there. So a recording that was stopped goes on where it was, but for the episodes that were running
and those behind them, and ends with the same bytes, with any number of slots.
Axis letters: N slots, A actions, S hidden units, E experts of all layers.
"""

import functools
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from generative.domains.base import Actor, Worlds
from generative.recordings.format import (
    NOTHING,
    SPLITS,
    UNFINISHED,
    find_parts,
    find_shards,
    make_index,
    read_episodes,
    read_part,
    shard_name,
    split_of,
    write_part,
    write_shard,
)
from mop.common.errors import InputError
from mop.common.seeding import stream_seed
from mop.training.loop import Interruption

FIRST_SEED = 2**33  # of a recorded world: evaluation's are below 2**32, training's below this
_SHARD_BYTES, _MAX_SHARDS = 64e6, 1024  # about; the files of all shards are open at once
_PART_STEPS = 5000  # about: what a kill may lose of steps that are filed
_FIRST_ROOM = 64  # rows of a slot, doubled where its episode is longer
_DRAWS = 64  # steps whose random numbers are drawn at once


class Plan(NamedTuple):
    """What is to be recorded."""

    behaviours: Sequence[str]
    num_steps: int
    num_shards: int
    seed: int
    epsilon: float

    def shard_of(self, steps: int) -> int:
        """The shard of the episode that begins after so many steps of its behaviour; num_shards where none is left."""
        return min(steps * len(self.behaviours) * self.num_shards // self.num_steps, self.num_shards)


def plan_shards(num_steps: int, row_bytes: int) -> int:
    """How many shards so many steps are written in."""
    return int(np.clip(round(num_steps * row_bytes / _SHARD_BYTES), 1, _MAX_SHARDS))


def world_seed(seed: int, behaviour: str, number: int, attempt: int) -> int:
    """The seed of the world of an episode: from FIRST_SEED on; attempt: how many worlds its teacher failed in before.

    Each behaviour has worlds of its own.
    """
    words = (_worlds_stream(seed, behaviour), number, attempt)
    return FIRST_SEED + int(np.random.SeedSequence(words).generate_state(1)[0])


@functools.lru_cache
def _worlds_stream(seed: int, behaviour: str) -> int:
    return stream_seed(seed, f"worlds of {behaviour}")


@dataclass
class _Queue:
    """The episodes of one behaviour: begun in the order of their numbers, and filed in that order."""

    behaviour: str
    num_filed: int = 0
    num_kept: int = 0  # of these, in shards and parts
    steps_filed: int = 0
    num_begun: int = 0
    steps_begun: int = 0  # of all episodes that have begun, so far
    finished: dict[int, tuple[np.ndarray, dict]] = field(default_factory=dict)  # those that cannot be filed yet
    filed: list[tuple[int, np.ndarray, dict]] = field(default_factory=list)  # shard, rows, record; not yet written

    def file(self, plan: Plan) -> None:
        """File what is next; what was begun and is not needed any more is left."""
        while self.num_filed in self.finished and (shard := plan.shard_of(self.steps_filed)) < plan.num_shards:
            rows, record = self.finished.pop(self.num_filed)
            self.filed.append((shard, rows, record))
            self.num_filed += 1
            self.steps_filed += record["steps"]


@dataclass
class _Slot:
    """What runs in a slot."""

    queue: _Queue
    number: int
    record: dict
    generator: np.random.Generator
    t_step: int = 0
    is_over: bool = False  # what is left is to ask the policy about the last observation


def row_dtype(actor: Actor, worlds: Worlds) -> np.dtype:
    """One row of a recording, as a structured dtype."""
    return np.dtype(worlds.fields() + actor.fields())


def _join(parts: Sequence[np.ndarray], dtype: np.dtype) -> np.ndarray:
    """Rows behind each other; `np.concatenate` looks at every field of every part first."""
    ends = np.cumsum([0, *map(len, parts)])
    rows = np.empty(ends[-1], dtype)
    for part, start in zip(parts, ends[:-1], strict=True):
        rows[start : start + len(part)] = part
    return rows


class Recorder:
    """Makes the shards that a recording lacks."""

    def __init__(self, actor: Actor, worlds: Worlds, plan: Plan, folder: Path):
        """actor, worlds: with a slot for each episode that is to run at once. Raises InputError for a damaged shard."""
        self.plan, self.folder, self._actor, self._worlds = plan, folder, actor, worlds
        num_slots = len(worlds.obs)
        self._now = np.zeros(num_slots, row_dtype(actor, worlds))
        self._rows = [np.zeros(_FIRST_ROOM, self._now.dtype) for _ in range(num_slots)]
        self._draws = np.zeros((num_slots, 2))
        self._behaviour = np.zeros(num_slots, np.int64)
        self._slots: list[_Slot | None] = [None] * num_slots
        self._blocks = np.zeros((num_slots, _DRAWS, 2))
        self._queues = [_Queue(behaviour) for behaviour in plan.behaviours]
        self._parts: dict[Path, int] = {}  # those on the disk, and the last shard of which they have an episode
        self._num_parts = 0  # that were written
        shards = find_shards(folder)
        self._num_written = len(shards)
        for queue in self._queues:
            done = [episode for shard in shards for episode in read_episodes(shard)]
            steps = [episode["steps"] for episode in done if episode["behaviour"] == queue.behaviour]
            queue.num_filed, queue.steps_filed = len(steps), sum(steps)
        self._take_parts()
        for queue in self._queues:
            queue.num_kept = queue.num_begun = queue.num_filed
            queue.steps_begun = queue.steps_filed
        self._steps_kept = self.num_steps

    @property
    def num_steps(self) -> int:
        """Steps that are recorded so far."""
        return sum(queue.steps_filed for queue in self._queues)

    def run(self, progress: Callable[[int], None]) -> None:
        """Record all that is missing, and make the index. progress: called with the number of new steps.

        Raises InputError where the teacher fails at the beginning of too many worlds or no episode begins in a shard,
        OSError, and KeyboardInterrupt after SIGINT or SIGTERM, when what is filed is kept.
        """
        self._write()  # what was kept may be all that was missing
        with Interruption() as interruption:
            for slot in range(len(self._slots)):
                self._begin(slot)
            while self._num_written < self.plan.num_shards:
                before = self.num_steps
                self._step()
                self._write()
                is_stopped = interruption.signal is not None
                if is_stopped or self.num_steps >= self._steps_kept + _PART_STEPS:
                    self._keep_filed()
                progress(self.num_steps - before)
                if is_stopped:
                    raise KeyboardInterrupt
        make_index(self.folder)

    def _begin(self, slot: int) -> None:
        """The next episode of the behaviour of which the fewest run, if its steps are not enough yet."""
        end = self.plan.num_shards
        waiting = [queue for queue in self._queues if self.plan.shard_of(queue.steps_begun) < end]
        self._slots[slot] = None
        if not waiting:
            return
        running = [other.queue.behaviour for other in self._slots if other is not None]
        queue = min(waiting, key=lambda queue: running.count(queue.behaviour))
        number, behaviour = queue.num_begun, queue.behaviour
        start = self._worlds.begin(slot, lambda attempt: world_seed(self.plan.seed, behaviour, number, attempt))
        self._actor.begin(slot, start.mission)
        record = {"seed": start.seed, "split": SPLITS[split_of(start.seed)], "behaviour": behaviour, "number": number}
        record |= {"mission": start.mission, "passed_over": start.passed_over, "teacher_failure": None}
        generator = np.random.default_rng(stream_seed(start.seed, f"actions of {behaviour}, {number}"))
        queue.num_begun += 1
        self._slots[slot] = _Slot(queue, number, record, generator)
        self._behaviour[slot] = self.plan.behaviours.index(behaviour)

    def _step(self) -> None:
        """One row in each slot, and one action where the episode goes on."""
        running = [slot for slot, content in enumerate(self._slots) if content is not None]
        now = self._now
        self._worlds.show(now, running)
        self._actor.ask(self._worlds.obs, now, running)
        now["action"] = self._choose(running)
        for name in ("reward", "terminated", "truncated"):
            now[name] = 0
        over = [slot for slot in running if self._slots[slot].is_over]
        now["action"][over] = NOTHING
        for slot in running:
            if not self._slots[slot].is_over:
                self._act(slot)
        self._keep(running)
        for slot in over:
            self._finish(slot)

    def _choose(self, running: Sequence[int]) -> np.ndarray:
        """What each slot's behaviour does: (N,) int64."""
        for slot in running:
            content = self._slots[slot]
            at = content.t_step % _DRAWS
            if at == 0:
                content.generator.random(out=self._blocks[slot])
            self._draws[slot] = self._blocks[slot, at]
        given = self._now, self._draws, self.plan.epsilon
        choices = np.stack([self._actor.choose[behaviour](*given) for behaviour in self.plan.behaviours])
        return choices[self._behaviour, np.arange(len(self._slots))]

    def _act(self, slot: int) -> None:
        """Execute the action of a slot, and note what came of it."""
        content, now = self._slots[slot], self._now
        reward, terminated, truncated, failure = self._worlds.step(slot, int(now["action"][slot]))
        if failure is not None:
            content.record["teacher_failure"] = failure
            truncated |= content.queue.behaviour == "bot"  # nobody is left who could act
        now["reward"][slot], now["terminated"][slot], now["truncated"][slot] = reward, terminated, truncated
        content.is_over = terminated or truncated
        content.queue.steps_begun += 1
        if content.is_over:
            content.record |= {"success": reward > 0, "steps": content.t_step + 1}

    def _keep(self, running: Sequence[int]) -> None:
        """Put the rows behind those of their episodes."""
        for slot in running:
            content, rows = self._slots[slot], self._rows[slot]
            if content.t_step == len(rows):
                rows = self._rows[slot] = np.concatenate([rows, np.zeros_like(rows)])
            rows[content.t_step] = self._now[slot]
            content.t_step += 1

    def _finish(self, slot: int) -> None:
        """File an episode that is over, and begin another in its place."""
        content = self._slots[slot]
        content.queue.finished[content.number] = (self._rows[slot][: content.t_step].copy(), content.record)
        content.queue.file(self.plan)
        self._begin(slot)

    def _write(self) -> None:
        """Write the shards whose episodes are all filed."""
        begun = min(self.plan.shard_of(queue.steps_filed) for queue in self._queues)  # what is before it is complete
        for number in range(self._num_written, begun):
            chosen = [item for queue in self._queues for item in queue.filed if item[0] == number]
            if not chosen:
                raise InputError(
                    f"no episode begins within {shard_name(number)}: episodes are longer than all its steps; choose a "
                    "lower --max_steps or more --num_steps, and another --data_dir"
                )
            rows, records = _join([rows for _, rows, _ in chosen], self._now.dtype), [record for *_, record in chosen]
            lang = [self._actor.lang_of(record["mission"]) for record in records]
            of_episodes = np.array(lang, np.float32).reshape(len(records), self._actor.lang_dim)
            write_shard(self.folder, number, rows, records, of_episodes)
            for queue in self._queues:
                queue.filed = [item for item in queue.filed if item[0] > number]
        self._num_written = begun
        for path in [path for path, shard in self._parts.items() if shard < begun]:
            path.unlink()
            del self._parts[path]
        if begun == self.plan.num_shards:
            shutil.rmtree(self.folder / UNFINISHED, ignore_errors=True)

    def _keep_filed(self) -> None:
        """Write what is filed, and in no shard and no part yet, as one part."""
        new = [item for queue in self._queues for item in queue.filed if item[2]["number"] >= queue.num_kept]
        if new:
            rows, records = _join([rows for _, rows, _ in new], self._now.dtype), [record for *_, record in new]
            self._parts[write_part(self.folder, self._num_parts, rows, records)] = max(shard for shard, *_ in new)
            self._num_parts += 1
        for queue in self._queues:
            queue.num_kept = queue.num_filed
        self._steps_kept = self.num_steps

    def _take_parts(self) -> None:
        """File what was kept of shards that are not whole."""
        queues = {queue.behaviour: queue for queue in self._queues}
        for path in find_parts(self.folder):
            for rows, record in read_part(path, self._now.dtype):
                queue = queues[record["behaviour"]]
                if record["number"] == queue.num_filed:  # else a shard has it, or one before it was lost
                    queue.finished[queue.num_filed] = rows, record
                    queue.file(self.plan)
                    self._parts[path] = queue.filed[-1][0]
            self._parts.setdefault(path, NOTHING)
            self._num_parts = int(path.stem) + 1
