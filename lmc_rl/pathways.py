"""What is measured along the line between two imitation runs: on fixed trajectories of the bot, and in fixed worlds.

The places of a line are taken one after the other: the compiled kernels are as fast on one policy as `torch.vmap` on
21 of them. Axis letters: A places, E trajectories or episodes, T steps, N samples, I numbers of an observation, L
layers, E_l experts of a layer.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lmc_rl.paths import Weights, check_same_shapes, interpolate
from mixture_of_experts import compute_lpc
from mop.base.errors import InputError
from mop.base.streams import stream_seed
from mop.jobs.evaluation import evaluate
from mop.learning.policies import policy_from_checkpoint
from mop.store.checkpoints import load_checkpoint
from mop.worlds.bot_paths import BotPaths
from mop.worlds.episodes import EvalVectorEnv
from mop.worlds.missions import MissionEncoder
from mop.worlds.teacher import TeacherFailure
from mop.worlds.world import MAX_FAILURES_IN_A_ROW, NO_LABEL, NUM_ACTIONS, World, unteachable

PLAY_SEEDS = 1_000_000  # the worlds that are played begin here, those of the bot's trajectories there
TRAJECTORY_SEEDS = 4_000_000
MISSION = "lang_proj."  # of the names of the mission projection's weights, beside those of the policy


class Pathways(NamedTuple):
    """A policy of an imitation run."""

    weights: dict[str, Tensor]  # of the policy, and of its mission projection, by name
    config: dict  # of its checkpoint
    update: int


def is_imitation(path: str | Path) -> bool:
    """Whether a file is the checkpoint of an imitation run. Raises InputError where it is no checkpoint at all."""
    return "lang_proj_state_dict" in load_checkpoint(path)


def load_pathways(path: str | Path) -> Pathways:
    """Read a checkpoint of train_mop.py, train.py or run_mop. Raises InputError, naming the file, for anything else."""
    checkpoint = load_checkpoint(path)
    try:
        policy_from_checkpoint(checkpoint)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    mission = {f"{MISSION}{name}": value for name, value in checkpoint["lang_proj_state_dict"].items()}
    return Pathways({**checkpoint["policy_state_dict"], **mission}, checkpoint["config"], checkpoint.get("update", 0))


def as_checkpoint(config: Mapping, weights: Weights, update: int = 0) -> dict:
    """The checkpoint of a policy with these weights."""
    mission = {name.removeprefix(MISSION): value for name, value in weights.items() if name.startswith(MISSION)}
    policy = {name: value for name, value in weights.items() if not name.startswith(MISSION)}
    return {"policy_state_dict": policy, "lang_proj_state_dict": mission, "config": dict(config), "update": update}


def check_comparable(first: Pathways, second: Pathways) -> None:
    """Raises InputError where two policies are of different tasks, architectures or mission encoders."""
    for name in ("task_id", "max_steps", "policy", "obs_encoding", "expert_hidden_sizes", "lang_encoder"):
        ours, theirs = first.config.get(name), second.config.get(name)
        if ours != theirs:
            raise InputError(f"the policies differ in {name}: {ours} and {theirs}")
    check_same_shapes(first.weights, second.weights)


# --- parts ----------------------------------------------------------------------------------------------------------


def parts_of(config: Mapping, asked: Sequence[str]) -> list[str]:
    """The parts of a policy, some of PARTS, with each layer by its number in place of `layers`.

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


def on_line(first: Pathways, second: Pathways, part: str, place: float) -> dict:
    """The checkpoint at one place of the line of a part, 0 = first, 1 = the first with that part of the second."""
    weights = interpolate(first.weights, second.weights, np.array([place]), moves_of(part))
    return as_checkpoint(first.config, {name: value[0] for name, value in weights.items()})


# --- the bot's trajectories -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trajectories:
    """Episodes of the bot in fixed worlds: what it saw, and what it did."""

    obs: Tensor  # (T, E, I) float32, zeros after the end
    labels: Tensor  # (T, E) int64, NO_LABEL after the end
    missions: tuple[str, ...]  # E
    seeds: tuple[int, ...]  # E

    @property
    def lengths(self) -> np.ndarray:
        """Steps (E,) of each."""
        return (self.labels != NO_LABEL).sum(0).numpy()


def bot_trajectories(task_id: str, max_steps: int | None, count: int, first_seed: int = TRAJECTORY_SEEDS):
    """The bot's own episodes in the first `count` worlds from a seed on that it solves, as `Trajectories`.

    Raises InputError where it fails in too many worlds in a row.
    """
    world, episodes, failures, seed = World(task_id, max_steps), [], [], first_seed
    while len(episodes) < count:
        try:
            obs, labels = _bot_episode(world, seed)
            episodes.append((torch.from_numpy(obs), torch.tensor(labels), world.mission, seed))
            failures = []
        except TeacherFailure as failure:
            failures.append(failure.kind)
            if len(failures) == MAX_FAILURES_IN_A_ROW:
                raise InputError(unteachable(task_id, failures, max_steps)) from None
        seed += 1
    obs, labels, missions, seeds = zip(*episodes, strict=True)
    pad = torch.nn.utils.rnn.pad_sequence
    return Trajectories(pad(obs), pad(labels, padding_value=NO_LABEL), missions, seeds)


def _bot_episode(world: World, seed: int) -> tuple[np.ndarray, list[int]]:
    """Observations (T, I) and actions of the bot in a world. Raises TeacherFailure."""
    world.reset(seed)
    obs, labels = [], []
    while True:
        obs.append(world.obs.copy())
        labels.append(world.label())
        reward, terminated, truncated = world.step(labels[-1])
        if reward > 0:
            return np.stack(obs), labels
        if terminated or truncated:
            raise TeacherFailure("unsolved")


class Forced(NamedTuple):
    """A policy that saw the bot's trajectories: means over the steps of each, (E,) float64."""

    cross_entropy: np.ndarray  # nats of the bot's actions
    accuracy: np.ndarray  # share of steps in which the likeliest action is the bot's
    lpc: np.ndarray
    routing: list[Tensor]  # L of (T, E, E_l): router weights


@torch.no_grad()
def force(checkpoint: Mapping, trajectories: Trajectories, encoder: MissionEncoder) -> Forced:
    """What a policy answers along trajectories of the bot, through its recurrence; nothing of it is random."""
    policy, lang_proj = policy_from_checkpoint(checkpoint)
    labels, obs = trajectories.labels, trajectories.obs
    lang = lang_proj(encoder.embed(trajectories.missions)).expand(len(obs), -1, -1)
    logits, routing, _ = policy.get_routing_info(obs, lang, policy.initial_hidden(obs.shape[1]))
    known = labels != NO_LABEL
    losses = F.cross_entropy(logits.double().flatten(0, 1), labels.flatten(), ignore_index=NO_LABEL, reduction="none")
    values = (
        losses.view_as(labels),
        (logits.argmax(-1) == labels).double(),
        compute_lpc([weights.double() for weights in routing], policy.expert_hidden_sizes),
    )
    return Forced(*(_mean_over_steps(value, known) for value in values), routing)


def divergence(routing: Sequence[Tensor], of_end: Sequence[Tensor], labels: Tensor) -> np.ndarray:
    """KL (E, L) in nats of each layer's router weights from those of an end, mean over the steps of a trajectory."""
    known, of_layers = labels != NO_LABEL, []
    for here, there in zip(routing, of_end, strict=True):
        here, there = here.double(), there.double().clamp_min(torch.finfo(torch.float32).tiny)
        terms = torch.special.xlogy(here, here) - here * there.log()
        of_layers.append(_mean_over_steps(terms.sum(-1).clamp_min(0.0), known))
    return np.stack(of_layers, axis=1)


def _mean_over_steps(values: Tensor, known: Tensor) -> np.ndarray:
    """Means (E,) of values (T, E) over the steps that are known (T, E)."""
    return (values.where(known, 0.0).sum(0) / known.sum(0)).numpy()


# --- worlds that are played -----------------------------------------------------------------------------------------


def play(checkpoint: Mapping, encoder: MissionEncoder, bot_paths: BotPaths, num_episodes: int) -> list[dict]:
    """Greedy episodes of a policy in the fixed worlds: `success`, `steps`, `expert_steps`, `seed` of each."""
    return evaluate(checkpoint, encoder, bot_paths, num_episodes, PLAY_SEEDS, record_steps=False).episodes


def play_at_random(bot_paths: BotPaths, num_episodes: int) -> list[dict]:
    """The same of a policy that draws each action evenly from all; each world has a stream of its own."""
    solved, _ = bot_paths.solvable(PLAY_SEEDS, num_episodes)
    env = EvalVectorEnv(bot_paths.task_id, list(solved), num_episodes, bot_paths.max_steps)
    rngs = [np.random.default_rng(stream_seed(seed, "random policy")) for seed in solved]
    while env.active.any():
        env.step(np.array([rng.integers(NUM_ACTIONS) for rng in rngs]))
    return [episode | {"expert_steps": solved[episode["seed"]]} for episode in env.episodes]
