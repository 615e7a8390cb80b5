"""Trained policies as files: the checkpoints of SAC and DDPG, and what two of them have in common."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from lmc_rl.learners.rl import OF_THE_POLICY
from lmc_rl.paths import check_same_shapes
from lmc_rl.settings import check_values
from mop.artifacts.checkpoints import load_checkpoint
from mop.common.errors import InputError


class Policy(NamedTuple):
    """A trained policy."""

    weights: Mapping[str, Tensor]  # of all networks, by name
    config: dict  # settings that evaluation needs; `task_id` is the environment
    update: int


def load_policy(path: str | Path) -> Policy:
    """Read a checkpoint of `Learner.checkpoint`. Raises InputError, naming the file, where it is anything else."""
    checkpoint = load_checkpoint(path)
    known = {name: checkpoint["config"][name] for name in OF_THE_POLICY if name in checkpoint["config"]}
    needed = {"algo", "hidden_sizes", "max_episode_steps", "gamma"}
    if not needed <= known.keys() or not any(name.startswith("actor.") for name in checkpoint["policy_state_dict"]):
        raise InputError(f"{path}: it is no policy of lmc_rl (a checkpoint of SAC or DDPG)")
    config = check_values(known, str(path)) | {"task_id": checkpoint["config"]["task_id"]}
    return Policy(checkpoint["policy_state_dict"], config, checkpoint.get("update", 0))


def common_config(first: Policy, second: Policy) -> dict:
    """The config under which two policies are compared. Raises InputError where they are of different worlds or shapes.

    Where their entropy coefficients differ, it has their mean.
    """
    for name in ("task_id", "algo", "max_episode_steps"):
        if first.config[name] != second.config[name]:
            raise InputError(f"the policies differ in {name}: {first.config[name]} and {second.config[name]}")
    check_same_shapes(first.weights, second.weights)
    if "ent_coef" not in first.config:
        return first.config
    return first.config | {"ent_coef": (first.config["ent_coef"] + second.config["ent_coef"]) / 2}
