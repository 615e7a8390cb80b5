"""The memory that a run needs at least, so that one which this machine cannot hold is refused before it begins."""

import os
from collections.abc import Mapping

import torch

from mop.common.errors import InputError
from mop.common.workers import num_bytes
from mop.envs.babyai import OBS_DIM
from mop.envs.vector_env import StepArrays
from mop.training.policies import build_policy

_BYTES_PER_WEIGHT = 4 * 4  # itself, its gradient, and Adam's two means
_KEPT_PER_STEP = OBS_DIM + 1 + 1 + 4  # bytes of a step in the replay: observation, label, keep, mission


def check_memory(config: Mapping) -> None:
    """Refuse a run whose weights, unroll and replay are larger than the memory of this machine."""
    with torch.device("meta"):
        num_weights = sum(parameter.numel() for parameter in build_policy(config).parameters())
    num_steps = config["num_envs"] * config["unroll_len"]
    num_kept = min(config["replay_size"], config["num_updates"]) if config["replay"] > 0 else 0
    needed = _BYTES_PER_WEIGHT * num_weights + num_kept * num_steps * _KEPT_PER_STEP
    needed += num_bytes(StepArrays.layout(config["unroll_len"], config["num_envs"]))
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > there:
        raise InputError(
            f"the run needs at least {needed / 1e9:,.0f} GB of memory, this machine has {there / 1e9:,.0f}: lower "
            "--num_envs, --unroll_len, --replay_size or the sizes of the policy"
        )
