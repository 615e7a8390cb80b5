"""Pathways policies in an experiment: their runs and forks, and what is measured on the lines between them.

On fixed trajectories of the bot, and in fixed worlds. The policies of a line are taken one after the other: the
compiled kernels are as fast on one policy as `torch.vmap` on 21 of them.
Axis letters: E trajectories or episodes, L layers.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lmc_rl.alignment import MISSION, align
from lmc_rl.analysis.table import ROWS_NAME, TRAJECTORIES_NAME, LineKey
from lmc_rl.config import MopConfig
from lmc_rl.interpolation import Weights, alphas_of, check_same_shapes, distance, interpolate
from lmc_rl.learners.base import Learner, Line, SnapshotsAtForks, WorkItem
from mop.artifacts.checkpoints import load_checkpoint, save_checkpoint
from mop.common.errors import InputError
from mop.common.seeding import stream_seed
from mop.envs.babyai import NO_LABEL, NUM_ACTIONS, check_task_id, check_teachable
from mop.envs.bot_paths import BotPaths
from mop.envs.episodes import EvalVectorEnv
from mop.envs.missions import load_encoder
from mop.envs.trajectories import Trajectories, bot_trajectories
from mop.evaluation.evaluate import encoder_for, evaluate
from mop.training.devices import choose_device
from mop.training.imitation import ImitationRun
from mop.training.policies import policy_from_checkpoint
from mop.training.teacher_forcing import mean_over_steps, teacher_force

PLAY_SEEDS = 1_000_000  # the worlds that are played begin here
_cached_encoder = functools.lru_cache(load_encoder)


class Parent(SnapshotsAtForks, ImitationRun):
    """A run that is forked."""


class ImitationLearner(Learner[MopConfig, ImitationRun]):
    """An imitation run of `train_mop.py`."""

    PACKAGES = ("torch", "numpy", "numba", "scipy", "minigrid")
    DRAWN = ("parent",)

    @classmethod
    def prepare(cls, config: MopConfig) -> MopConfig:
        check_task_id(config.run["task_id"])
        choose_device(config.run["device"])
        encoder = _cached_encoder(config.run["lang_encoder"])
        return dataclasses.replace(config, run=config.run | {"lang_encoder": encoder.name})

    def check_teaching(self) -> None:
        check_teachable(*(self.config.run[name] for name in ("task_id", "seed", "max_steps")))

    # --- training ---

    @property
    def run_config(self) -> dict[str, Any]:
        """The config that runs are made with, which their checkpoints carry.

        All its texts are new ones: a pickle tells two equal texts from one that stands in two places, so a checkpoint
        would have other bytes where a restored optimiser, or another process, has texts of its own.
        """
        return json.loads(json.dumps(self.config.run | {"checkpoint_dir": "model_weights", "wandb_project": None}))

    def _inputs(self, **changes) -> tuple:
        """The arguments of a run, with changes of its config."""
        config = self.run_config | changes
        return config, _cached_encoder(config["lang_encoder"]), choose_device(config["device"])

    def parent(self) -> Parent:
        return Parent(*self._inputs())

    def independent(self) -> ImitationRun:
        """A run from other weights. Where the mission projection is not trained, it has the parent's: what it sees."""
        run = ImitationRun(*self._inputs(seed=stream_seed(self.config.seed, "independent run")))
        if not self.config.run["train_lang_proj"]:
            parent = ImitationRun(*self._inputs())
            run.lang_proj.load_state_dict(parent.lang_proj.state_dict())
            parent.close()
        return run

    def fork(self, fork: int, child: int) -> ImitationRun:
        """A child that continues from the snapshot of a fork; from update 0 it has the parent's weights alone."""
        update, run = self.config.fork_steps[fork], ImitationRun(*self._inputs())
        if update > 0:
            self.continued(fork, run.load_state)
        run.draw_from(stream_seed(self.config.seed, f"fork at update {update}, child {child}"))
        return run

    @property
    def log_interval(self) -> int:
        return self.config.run["log_interval"]

    @property
    def checkpoint_interval(self) -> int:
        return self.config.run["checkpoint_interval"]

    def report(self, run: ImitationRun) -> str:
        """Updates and episodes."""
        return f"{run.update} updates, {run.summary()['episodes']:,} episodes"

    # --- lines ---

    def lines(self, whole: Line) -> list[Line]:
        """A line for each part, and the one to the aligned second end, whose file is with the weights."""
        config = self.config
        played = parts_of(config.run, config.played_parts)
        keys = [whole.key._replace(part=part) for part in parts_of(config.run, config.parts)]
        lines = [Line(key, *whole.ends, key.part in played) for key in keys]
        if config.align:
            aligned = self.paths.weights / f"aligned_{whole.key.name_of_pair}.pt"
            lines.append(Line(whole.key._replace(is_aligned=True), whole.first, aligned, "all" in played))
        return lines

    def measures(self, lines: Sequence[Line]) -> Iterator[tuple[str, Any]]:
        """The distance of the ends, whole and in each part, and what aligning them finds; writes the aligned end."""
        first, second = map(load_pathways, lines[0].ends)
        check_comparable(first, second)
        parts = {
            name: distance(first.weights, second.weights, moves_of(name)) for name in (line.key.part for line in lines)
        }
        yield "distance", parts["all"]
        yield "distance_of_parts", parts
        for line in lines:
            if line.key.is_aligned:
                alignment = align(first.weights, second.weights)
                save_checkpoint(line.ends[1], as_checkpoint(second.config, alignment.weights, second.update))
                yield "alignment", alignment.summary()

    def work(self, lines: Sequence[Line]) -> dict[str, Sequence["TrajectoryLoss | RolloutReturn"]]:
        """All policies of all lines on the bot's trajectories; the random policy and those of some lines in worlds."""
        config, run = self.config, self.config.run
        shared = (run["task_id"], run["max_steps"])
        cache, num_worlds = self.paths.results / "bot", config.num_eval_episodes
        seen = [TrajectoryLoss(line, *shared, config.alpha_points, config.num_trajectories) for line in lines]
        played = [
            RolloutReturn(line, alpha, *shared, cache, num_worlds)
            for line in lines
            if line.is_played
            for alpha in alphas_of(config.alpha_points).tolist()
        ]
        if played:
            played.insert(0, RolloutReturn(Line(LineKey("random")), None, *shared, cache, num_worlds))
        return {TRAJECTORIES_NAME: seen, ROWS_NAME: played}


# --- policies ---------------------------------------------------------------------------------------------------------


class Pathways(NamedTuple):
    """A policy of an imitation run."""

    weights: dict[str, Tensor]  # of the policy, and of its mission projection, by name
    config: dict[str, Any]  # of its checkpoint
    update: int


def load_pathways(path: str | Path) -> Pathways:
    """Read a checkpoint of train_mop.py, train.py or run_mop."""
    checkpoint = load_checkpoint(path)
    try:
        policy_from_checkpoint(checkpoint)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    mission = {f"{MISSION}{name}": value for name, value in checkpoint["lang_proj_state_dict"].items()}
    return Pathways({**checkpoint["policy_state_dict"], **mission}, checkpoint["config"], checkpoint.get("update", 0))


def as_checkpoint(config: Mapping[str, Any], weights: Weights, update: int = 0) -> dict[str, Any]:
    """The checkpoint of a policy with these weights."""
    mission = {name.removeprefix(MISSION): value for name, value in weights.items() if name.startswith(MISSION)}
    policy = {name: value for name, value in weights.items() if not name.startswith(MISSION)}
    return {"policy_state_dict": policy, "lang_proj_state_dict": mission, "config": dict(config), "update": update}


def check_comparable(first: Pathways, second: Pathways) -> None:
    """Refuse policies of different tasks, architectures or mission encoders."""
    settings = ["task_id", "max_steps", "policy", "expert_hidden_sizes"]
    settings += ["obs_encoding", "input_encoder", "lang_encoder"]
    for name in settings:
        ours, theirs = first.config.get(name), second.config.get(name)
        if ours != theirs:
            raise InputError(f"the policies differ in {name}: {ours} and {theirs}")
    check_same_shapes(first.weights, second.weights)


# --- parts ------------------------------------------------------------------------------------------------------------


def parts_of(config: Mapping[str, Any], asked: Sequence[str]) -> list[str]:
    """The parts of a policy, some of `config.PARTS`, with each layer by its number in place of `layers`.

    The baseline has no routers and no layers of experts: of it, all is one part.
    """
    if config["policy"] == "gru":
        return ["all"] if "all" in asked else []
    layers = [f"layer_{layer}" for layer in range(len(config["expert_hidden_sizes"]))]
    return [name for part in asked for name in (layers if part == "layers" else [part])]


def moves_of(part: str) -> Callable[[str], bool]:
    """Which weights move along the line of a part, by their names; all others stay those of the first end.

    all: all of them, the mission projection too. routers: GRU and read-out of each router. experts: GRU and projection
    of each expert. ends: input projection, mission projection, head. layer_<l>: router, experts and norm of a layer.
    """
    if part == "all":
        return lambda name: True
    if part == "ends":
        return lambda name: name.startswith((MISSION, "input_projection.", "head."))
    if part in ("routers", "experts"):
        inner = {"routers": "router", "experts": "experts"}[part]
        return lambda name: name.split(".")[2:3] == [inner]
    return lambda name: name.startswith(f"moe_layers.{part.removeprefix('layer_')}.")


def on_line(first: Pathways, second: Pathways, part: str, alpha: float) -> dict[str, Any]:
    """The checkpoint at one alpha of the line of a part, 0 = first, 1 = the first with that part of the second."""
    weights = interpolate(first.weights, second.weights, np.array([alpha]), moves_of(part))
    return as_checkpoint(first.config, {name: value[0] for name, value in weights.items()})


# --- on trajectories of the bot ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrajectoryLoss(WorkItem):
    """All policies of a line on the bot's trajectories."""

    line: Line
    task_id: str
    max_steps: int | None
    alpha_points: int
    num_trajectories: int

    def places(self) -> list[dict[str, Any]]:
        """By alpha, then by trajectory."""
        alphas, episodes = alphas_of(self.alpha_points).tolist(), range(self.num_trajectories)
        return [self.line.key.identity | {"alpha": alpha, "episode": e} for alpha in alphas for e in episodes]

    def rows(self) -> list[dict[str, Any]]:
        """The rows, by alpha, then by trajectory."""
        first, second = map(load_pathways, self.line.ends)
        seen = _trajectories(self.task_id, self.max_steps, self.num_trajectories)
        encoder = encoder_for(as_checkpoint(first.config, first.weights))

        def forced_at(alpha: float):
            return teacher_force(on_line(first, second, self.line.key.part, alpha), seen, encoder)

        ends, rows = (forced_at(0.0).routing, forced_at(1.0).routing), []
        for alpha in alphas_of(self.alpha_points).tolist():
            measured = dict(measures_of_trajectories(forced_at(alpha), ends, seen.labels))
            for e, (seed, length) in enumerate(zip(seen.seeds, seen.lengths.tolist(), strict=True)):
                row = self.line.key.identity | {"alpha": alpha, "episode": e, "seed": seed, "length": length}
                rows.append(row | {name: values[e].tolist() for name, values in measured.items()})
        return rows


def measures_of_trajectories(
    forced, ends: tuple[Sequence[Tensor], Sequence[Tensor]], labels: Tensor
) -> Iterator[tuple[str, np.ndarray]]:
    """Name and values (E,), of each layer (E, L), of what is measured of one policy on each trajectory.

    forced: of `teacher_forcing.teacher_force`; ends: the router weights of both ends of the line.
    """
    yield "cross_entropy", np.asarray(forced.cross_entropy, float)
    yield "accuracy", np.asarray(forced.accuracy, float)
    yield "lpc", np.asarray(forced.lpc, float)
    yield "kl_to_first", routing_kl(forced.routing, ends[0], labels)
    yield "kl_to_second", routing_kl(forced.routing, ends[1], labels)


def routing_kl(routing: Sequence[Tensor], of_end: Sequence[Tensor], labels: Tensor) -> np.ndarray:
    """KL (E, L) in nats of each layer's router weights from those of an end, mean over the steps of a trajectory."""
    known, of_layers = labels != NO_LABEL, []
    for here, there in zip(routing, of_end, strict=True):
        here, there = here.double(), there.double().clamp_min(torch.finfo(torch.float32).tiny)
        terms = torch.special.xlogy(here, here) - here * there.log()
        of_layers.append(mean_over_steps(terms.sum(-1).clamp_min(0.0), known))
    return np.stack(of_layers, axis=1)


@functools.lru_cache(maxsize=1)
def _trajectories(task_id: str, max_steps: int | None, count: int) -> Trajectories:
    """The trajectories of this process, which serve one line after the other."""
    return bot_trajectories(task_id, max_steps, count)


# --- in worlds --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RolloutReturn(WorkItem):
    """One policy of a line in the fixed worlds, or the policy that acts at random."""

    line: Line
    alpha: float | None
    task_id: str
    max_steps: int | None
    cache: Path  # folder of the bot's results
    num_worlds: int

    def places(self) -> list[dict[str, Any]]:
        """By world."""
        return [self.line.key.identity | {"alpha": self.alpha, "episode": e} for e in range(self.num_worlds)]

    @property
    def bot_paths(self) -> BotPaths:
        """The bot's results, kept in a file."""
        return BotPaths(self.task_id, self.max_steps, self.cache)

    def prepare(self) -> None:
        """Let the bot solve the worlds."""
        self.bot_paths.solvable(PLAY_SEEDS, self.num_worlds)

    def rows(self) -> list[dict[str, Any]]:
        """The rows, by world; `return` is 1 for a success, else 0."""
        if self.alpha is None:
            episodes = play_at_random(self.bot_paths, self.num_worlds)
        else:
            first, second = map(load_pathways, self.line.ends)
            policy = on_line(first, second, self.line.key.part, self.alpha)
            episodes = evaluate(
                policy, encoder_for(policy), self.bot_paths, self.num_worlds, PLAY_SEEDS, record_steps=False
            ).episodes
        return [
            self.line.key.identity
            | {"alpha": self.alpha, "episode": e, "seed": episode["seed"], "return": float(episode["success"])}
            | {"length": episode["steps"], "bot_length": episode["expert_steps"]}
            for e, episode in enumerate(episodes)
        ]


def play_at_random(bot_paths: BotPaths, num_worlds: int) -> list[dict[str, Any]]:
    """Episodes of a policy that draws each action evenly from all; each world has a stream of its own."""
    solved, _ = bot_paths.solvable(PLAY_SEEDS, num_worlds)
    env = EvalVectorEnv(bot_paths.task_id, list(solved), num_worlds, bot_paths.max_steps)
    rngs = [np.random.default_rng(stream_seed(seed, "random policy")) for seed in solved]
    while env.active.any():
        env.step(np.array([rng.integers(NUM_ACTIONS) for rng in rngs]))
    return [episode | {"expert_steps": solved[episode["seed"]]} for episode in env.episodes]
