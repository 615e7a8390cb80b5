"""How a recording is made: many episodes side by side, filed by behaviour and number, written shard by shard.

An episode is determined by the recording's seed, its behaviour and its number alone: its world, and the random numbers
of who acts in it. The episodes of a behaviour are filed in the order of their numbers, whichever ends first, and each
belongs to the shard that its first step falls into. A recording that was stopped goes on behind its last whole shard,
and ends with the same bytes, with any number of slots.
Axis letters: N slots, A actions, S hidden units, E experts of all layers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from generative.domains.base import Actor, Worlds
from generative.recordings.format import (
    NOTHING,
    SPLITS,
    find_shards,
    read_episodes,
    shard_name,
    split_of,
    write_shard,
)
from mop.common.errors import InputError
from mop.common.interruption import Interruption
from mop.common.seeding import stream_seed
from mop.evaluation.rollout import rollout

FIRST_SEED = 2**33  # of a recorded world: evaluation's are below 2**32, training's below this
_SHARD_BYTES, _MAX_SHARDS = 64e6, 1024  # about; the files of all shards are open at once


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
    words = (stream_seed(seed, f"worlds of {behaviour}"), number, attempt)
    return FIRST_SEED + int(np.random.SeedSequence(words).generate_state(1)[0])


@dataclass
class _Queue:
    """The episodes of one behaviour: begun in the order of their numbers, and filed in that order."""

    behaviour: str
    num_filed: int = 0
    steps_filed: int = 0
    num_begun: int = 0
    steps_begun: int = 0  # of all episodes that have begun, so far
    finished: dict[int, tuple[np.ndarray, dict]] = field(default_factory=dict)  # those that cannot be filed yet
    filed: list["_Filed"] = field(default_factory=list)  # those that are in no shard yet

    def file(self, plan: Plan) -> None:
        """File what is next; what was begun and is not needed any more is left."""
        while self.num_filed in self.finished and (shard := plan.shard_of(self.steps_filed)) < plan.num_shards:
            rows, record = self.finished.pop(self.num_filed)
            self.filed.append(_Filed(shard, rows, record))
            self.num_filed += 1
            self.steps_filed += record["steps"]


class _Filed(NamedTuple):
    """A finished episode."""

    shard: int
    rows: np.ndarray
    record: dict


@dataclass
class _Running:
    """The episode in a slot."""

    queue: _Queue
    number: int
    record: dict
    generator: np.random.Generator
    rows: list[bytes] = field(default_factory=list)


def row_dtype(actor: Actor, worlds: Worlds) -> np.dtype:
    """One row of a recording, as a structured dtype."""
    return np.dtype(worlds.fields() + actor.fields())


class Recorder:
    """Makes the shards that a recording lacks: its slots are the environments of a `rollout`."""

    def __init__(self, actor: Actor, worlds: Worlds, plan: Plan, folder: Path):
        """actor, worlds: with a slot for each episode that is to run at once."""
        self.plan = plan
        self.folder = folder
        self._actor = actor
        self._worlds = worlds
        num_slots = len(worlds.obs)
        self.obs, self.missions, self.active = worlds.obs, [""] * num_slots, np.zeros(num_slots, bool)
        self._is_over = np.zeros(num_slots, bool)  # only the policy's answer to the last observation is missing
        self._now = np.zeros(num_slots, row_dtype(actor, worlds))
        self._draws = np.zeros((num_slots, 2))
        self._running: dict[int, _Running] = {}  # by slot
        self._queues = {behaviour: _Queue(behaviour) for behaviour in plan.behaviours}
        shards = find_shards(folder)
        self.num_written = len(shards)
        for episode in (episode for shard in shards for episode in read_episodes(shard)):
            queue = self._queues[episode["behaviour"]]
            queue.num_filed += 1
            queue.steps_filed += episode["steps"]
        for queue in self._queues.values():
            queue.num_begun = queue.num_filed
            queue.steps_begun = queue.steps_filed

    @property
    def num_steps(self) -> int:
        """Steps that are recorded so far."""
        return sum(queue.steps_filed for queue in self._queues.values())

    def run(self, progress: Callable[[int], None]) -> None:
        """Record all that is missing. progress: called with the number of steps that are recorded so far.

        Raises KeyboardInterrupt after SIGINT or SIGTERM, between two steps.
        """
        with Interruption() as interruption:
            for slot in range(len(self._now)):
                self._begin(slot)
            self.missions = [mission or self.missions[0] for mission in self.missions]  # the policy is asked about all
            hidden = self._actor.policy.initial_hidden(len(self._now))
            for step in rollout(self._actor, self, hidden, choose=Recorder.choose):
                self._now["hidden"] = step.hidden.numpy()
                progress(self.num_steps)
                if interruption.signal is not None:
                    raise KeyboardInterrupt
        progress(self.num_steps)

    def _begin(self, slot: int) -> None:
        """Begin the next episode of the behaviour of which the fewest run, if its steps are not enough yet."""
        self._running.pop(slot, None)
        self.active[slot] = self._is_over[slot] = False
        end = self.plan.num_shards
        waiting = [queue for queue in self._queues.values() if self.plan.shard_of(queue.steps_begun) < end]
        if not waiting:
            return
        running = [other.queue for other in self._running.values()]
        queue = min(waiting, key=lambda queue: sum(other is queue for other in running))
        number, behaviour = queue.num_begun, queue.behaviour
        start = self._worlds.begin(slot, lambda attempt: world_seed(self.plan.seed, behaviour, number, attempt))
        self.active[slot], self.missions[slot] = True, start.mission
        record: dict[str, Any] = {"seed": start.seed, "split": SPLITS[split_of(start.seed)], "behaviour": behaviour}
        record |= {"number": number, "mission": start.mission, "passed_over": start.passed_over}
        record["teacher_failure"] = None
        generator = np.random.default_rng(stream_seed(start.seed, f"actions of {behaviour}, {number}"))
        queue.num_begun += 1
        self._running[slot] = _Running(queue, number, record, generator)

    def choose(self, answer: Any) -> np.ndarray:
        """Choose what the behaviour of each slot's episode does; the rows get what is shown, and the answer to it."""
        now, running = self._now, self._running
        self._worlds.show(now, list(running))
        for name, column in self._actor.columns(answer).items():
            now[name] = column
        for slot, episode in running.items():
            episode.generator.random(out=self._draws[slot])
        actions = np.full(len(now), NOTHING)
        for behaviour, queue in self._queues.items():
            here = [slot for slot, episode in running.items() if episode.queue is queue]
            actions[here] = self._actor.choose[behaviour](now, self._draws, self.plan.epsilon)[here]
        return actions

    def step(self, actions: np.ndarray) -> np.ndarray:
        """Add a row in each slot, after its action (N,) where the episode goes on; file those that are over.

        Returns (N,) bool: where another episode has begun.
        """
        now, over = self._now, self._is_over.copy()
        now["action"] = np.where(over, NOTHING, actions)
        for name in ("reward", "terminated", "truncated"):
            now[name] = 0
        for slot in np.flatnonzero(self.active).tolist():
            if not over[slot]:
                self._act(slot, self._running[slot])
            self._running[slot].rows.append(now[slot].tobytes())
        for slot in np.flatnonzero(over).tolist():
            episode = self._running[slot]
            rows = np.frombuffer(b"".join(episode.rows), now.dtype)
            episode.queue.finished[episode.number] = rows, episode.record
            episode.queue.file(self.plan)
            self._begin(slot)
        self._write()
        self.active &= self.num_written < self.plan.num_shards
        return over

    def _act(self, slot: int, episode: _Running) -> None:
        now = self._now
        reward, terminated, truncated, failure = self._worlds.step(slot, int(now["action"][slot]))
        if failure is not None:
            episode.record["teacher_failure"] = failure
            truncated |= episode.queue.behaviour == "bot"  # nobody is left to act
        now["reward"][slot], now["terminated"][slot], now["truncated"][slot] = reward, terminated, truncated
        self._is_over[slot] = terminated or truncated
        episode.queue.steps_begun += 1
        if self._is_over[slot]:
            episode.record |= {"success": reward > 0, "steps": len(episode.rows) + 1}

    def _write(self) -> None:
        """Write the shards whose episodes are all filed."""
        queues = self._queues.values()
        begun = min(self.plan.shard_of(queue.steps_filed) for queue in queues)  # those before it are complete
        for number in range(self.num_written, begun):
            chosen = [item for queue in queues for item in queue.filed if item.shard == number]
            if not chosen:
                raise InputError(
                    f"no episode begins within {shard_name(number)}: episodes are longer than all its steps; choose a "
                    "lower --max_steps or more --num_steps, and another --data_dir"
                )
            # not `np.concatenate`, which looks at every field of every episode
            rows = np.frombuffer(b"".join(item.rows.tobytes() for item in chosen), self._now.dtype)
            records = [item.record for item in chosen]
            lang = self._actor.policy.embed([record["mission"] for record in records])
            write_shard(self.folder, number, rows, records, lang.numpy())
            for queue in queues:
                queue.filed = [item for item in queue.filed if item.shard > number]
        self.num_written = begun
