"""The lines between imitation runs, measured place by place, and kept as rows of two files.

A row of trajectories.jsonl is a trajectory of the bot that the policy of a place saw, one of episodes.jsonl a world
that it played. Rows are only ever added, in an order that the settings determine; so a file that was cut off tells
where to go on. Axis letters: A places, E trajectories or episodes, L layers.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import orjson

from lmc_rl.alignment import align
from lmc_rl.line_records import TRAJECTORIES_NAME, LineKey
from lmc_rl.paths import alphas, distance
from lmc_rl.pathways import (
    PLAY_SEEDS,
    as_checkpoint,
    check_comparable,
    divergence,
    load_pathways,
    moves_of,
    on_line,
    play,
    play_at_random,
)
from lmc_rl.records import ROWS_NAME, Walk
from lmc_rl.stages import Workers
from lmc_rl.walks import cut_to_whole
from mop.artifacts.checkpoints import save_checkpoint
from mop.common.files import write_json
from mop.envs.bot_paths import BotPaths
from mop.envs.trajectories import Trajectories, bot_trajectories
from mop.evaluation.evaluate import encoder_for
from mop.training.teacher_forcing import force


@dataclass(frozen=True)
class Line:
    """A line between two policies on which a part of the weights moves."""

    walk: Walk
    part: str = "all"
    is_aligned: bool = False  # whether the second end is the aligned one
    is_played: bool = True

    @property
    def name(self) -> str:
        """What it is called in files."""
        return f"{self.walk.name}_{'aligned' if self.is_aligned else self.part}"

    @property
    def key(self) -> LineKey:
        """What it is called in records."""
        return LineKey(self.walk.kind, self.walk.fork, self.walk.children, self.part, self.is_aligned)

    @property
    def identity(self) -> dict:
        """What its rows say of it."""
        return self.walk.identity | {"part": self.part, "aligned": self.is_aligned}


def lines_of(walk: Walk, parts: Sequence[str], played: Sequence[str], is_aligned: bool, folder: Path) -> list[Line]:
    """A line for each part, and the one to the aligned second end, whose file is to be in the folder."""
    lines = [Line(walk, part, False, part in played) for part in parts]
    if is_aligned:
        aligned = replace(walk, second=folder / f"aligned_{walk.name}.pt")
        lines.append(Line(aligned, "all", True, "all" in played))
    return lines


@dataclass(frozen=True)
class Piece:
    """The rows of a line: its trajectories at all places, or the worlds of one place. No line: the random policy."""

    line: Line | None
    config: dict  # `task_id` and `max_steps` of the worlds
    cache: Path  # folder of the bot's results
    alpha_points: int
    count: int  # trajectories or worlds
    place: float | None = None  # of the worlds that are played

    @property
    def num_rows(self) -> int:
        """One for each place and trajectory, or world."""
        return self.count

    def prepare(self) -> None:
        """Do once what several processes would do each."""


class Seen(Piece):
    """All places of a line on the trajectories."""

    @property
    def num_rows(self) -> int:
        return self.count * self.alpha_points

    def run(self) -> list[dict]:
        """The rows, by place, then by trajectory."""
        first, second = map(load_pathways, (self.line.walk.first, self.line.walk.second))
        trajectories = _trajectories(self.config["task_id"], self.config["max_steps"], self.count)
        encoder = encoder_for(as_checkpoint(first.config, first.weights))

        def at(place: float):
            return force(on_line(first, second, self.line.part, place), trajectories, encoder)

        ends, rows = (at(0.0).routing, at(1.0).routing), []
        for alpha in alphas(self.alpha_points).tolist():
            found = at(alpha)
            to_first, to_second = (divergence(found.routing, end, trajectories.labels) for end in ends)
            for e, (seed, length) in enumerate(zip(trajectories.seeds, trajectories.lengths.tolist(), strict=True)):
                row = self.line.identity | {"alpha": alpha, "episode": e, "seed": seed, "length": length}
                row |= {name: float(getattr(found, name)[e]) for name in ("cross_entropy", "accuracy", "lpc")}
                rows.append(row | {"kl_to_first": to_first[e].tolist(), "kl_to_second": to_second[e].tolist()})
        return rows


class Played(Piece):
    """One place of a line in the worlds, or the random policy."""

    @property
    def bot_paths(self) -> BotPaths:
        """The bot's results, kept in a file."""
        return BotPaths(self.config["task_id"], self.config["max_steps"], self.cache)

    def prepare(self) -> None:
        self.bot_paths.solvable(PLAY_SEEDS, self.count)

    def run(self) -> list[dict]:
        """The rows, by world; `return` is 1 for a success, else 0."""
        if self.line is None:
            episodes, identity = play_at_random(self.bot_paths, self.count), Line(Walk("random")).identity
        else:
            first, second = map(load_pathways, (self.line.walk.first, self.line.walk.second))
            checkpoint, identity = on_line(first, second, self.line.part, self.place), self.line.identity
            episodes = play(checkpoint, encoder_for(checkpoint), self.bot_paths, self.count)
        return [
            identity
            | {"alpha": self.place, "episode": e, "seed": episode["seed"], "return": float(episode["success"])}
            | {"length": episode["steps"], "bot_length": episode["expert_steps"]}
            for e, episode in enumerate(episodes)
        ]


@lru_cache(maxsize=1)
def _trajectories(task_id: str, max_steps: int | None, count: int) -> Trajectories:
    """Those of this process, which are kept from one line to the next."""
    return bot_trajectories(task_id, max_steps, count)


def write_rows(lines: Sequence[Line], config: Mapping, settings: Mapping, folder: Path, workers: Workers) -> None:
    """Measure what is missing of the lines: distances and alignments, then trajectories, then worlds.

    config: of a run; settings: `alpha_points`, `num_trajectories`, `num_eval_episodes`. Writes paths/<walk>.json,
    trajectories.jsonl and episodes.jsonl to the folder. Raises InputError where there is no such line.
    """
    worlds = {"task_id": config["task_id"], "max_steps": config["max_steps"]}
    shared = (worlds, folder / "bot", settings["alpha_points"])
    by_walk = {line.walk.name: [other for other in lines if other.walk.name == line.walk.name] for line in lines}
    probes = [Probe(tuple(own), folder / "paths" / f"{name}.json") for name, own in by_walk.items()]
    for _ in workers.in_order(Probe.run, [probe for probe in probes if not probe.is_done], "aligning"):
        pass
    seen = [Seen(line, *shared, settings["num_trajectories"]) for line in lines]
    _append(folder / TRAJECTORIES_NAME, seen, Seen.run, workers, "the bot's trajectories")
    count = settings["num_eval_episodes"]
    at = alphas(settings["alpha_points"]).tolist()
    played = [Played(line, *shared, count, place) for line in lines if line.is_played for place in at]
    if played:
        _append(folder / ROWS_NAME, [Played(None, *shared, count), *played], Played.run, workers, "playing")


def _append(path: Path, planned: Sequence[Piece], function: Callable, workers: Workers, label: str) -> None:
    """Add the rows of the pieces that the file lacks."""
    missing = planned[cut_to_whole(path, planned) :]
    if not missing:
        return
    missing[0].prepare()
    with path.open("ab") as file:
        for rows in workers.in_order(function, missing, label):
            rows = [{"run": path.parent.name} | row for row in rows]
            file.write(b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows))
            file.flush()
            os.fsync(file.fileno())


@dataclass(frozen=True)
class Probe:
    """How far the ends of a walk are apart, in each part, and what aligning them finds."""

    lines: tuple[Line, ...]
    path: Path

    @cached_property
    def is_done(self) -> bool:
        """Whether its files are there."""
        return self.path.exists() and all(line.walk.second.exists() for line in self.lines if line.is_aligned)

    def run(self) -> None:
        """Write the aligned second end, if it is asked for, then the numbers."""
        plain = self.lines[0].walk
        first, second = load_pathways(plain.first), load_pathways(plain.second)
        check_comparable(first, second)
        parts = {line.part: distance(first.weights, second.weights, moves_of(line.part)) for line in self.lines}
        found = plain.identity | {"distance": parts["all"], "distance_of_parts": parts}
        for line in self.lines:
            if line.is_aligned:
                alignment = align(first.weights, second.weights)
                save_checkpoint(line.walk.second, as_checkpoint(second.config, alignment.weights, second.update))
                found["alignment"] = alignment.summary()
        write_json(self.path, found, orjson.OPT_INDENT_2)
