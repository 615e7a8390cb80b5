"""What is measured along the line between two imitation runs: on fixed trajectories of the bot, and in fixed worlds.

The places of a line are taken one after the other: the compiled kernels are as fast on one policy as `torch.vmap` on
21 of them. Axis letters: A places, E trajectories or episodes, T steps, N samples, I numbers of an observation, L
layers, E_l experts of a layer.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lmc_rl.paths import Weights, check_same_shapes, interpolate
from mop.artifacts.checkpoints import load_checkpoint
from mop.common.errors import InputError
from mop.common.seeding import stream_seed
from mop.envs.babyai import NO_LABEL, NUM_ACTIONS
from mop.envs.bot_paths import BotPaths
from mop.envs.episodes import EvalVectorEnv
from mop.envs.missions import MissionEncoder
from mop.evaluation.evaluate import evaluate
from mop.training.policies import policy_from_checkpoint
from mop.training.teacher_forcing import mean_over_steps

PLAY_SEEDS = 1_000_000  # the worlds that are played begin here
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


# --- trajectories of the bot ----------------------------------------------------------------------------------------


def divergence(routing: Sequence[Tensor], of_end: Sequence[Tensor], labels: Tensor) -> np.ndarray:
    """KL (E, L) in nats of each layer's router weights from those of an end, mean over the steps of a trajectory."""
    known, of_layers = labels != NO_LABEL, []
    for here, there in zip(routing, of_end, strict=True):
        here, there = here.double(), there.double().clamp_min(torch.finfo(torch.float32).tiny)
        terms = torch.special.xlogy(here, here) - here * there.log()
        of_layers.append(mean_over_steps(terms.sum(-1).clamp_min(0.0), known))
    return np.stack(of_layers, axis=1)


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
