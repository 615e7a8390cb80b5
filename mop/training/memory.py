"""The memory that a run needs at least, so that one which this machine cannot hold is refused before it begins."""

import os
from collections.abc import Mapping

from mop.common.errors import InputError
from mop.common.workers import num_bytes
from mop.envs.babyai import OBS_DIM
from mop.envs.vector_env import StepArrays
from mop.training.policies import count_weights, hidden_units

_COPIES = 4  # of each weight: itself, its gradient, and Adam's two means
_KEPT_PER_STEP = OBS_DIM + 1 + 1 + 4  # bytes of a step in the replay: observation, label, keep, mission


def needed_memory(config: Mapping, encoder_dim: int) -> int:
    """Bytes of weights, optimiser, one unroll and a full replay; a run needs these and more."""
    num_envs, num_steps = config["num_envs"], config["unroll_len"]
    weights = count_weights(config) + (encoder_dim + 1) * config["lang_dim"]
    hidden = 4 * num_envs * hidden_units(config)
    num_kept = min(config["replay_size"], config["num_updates"]) if config["replay"] > 0 else 0
    kept = num_kept * (num_envs * num_steps * _KEPT_PER_STEP + hidden)
    return 4 * _COPIES * weights + num_bytes(StepArrays.layout(num_steps, num_envs)) + hidden + kept


def check_memory(config: Mapping, encoder_dim: int) -> None:
    """Raises InputError where a run of this config needs more memory than this machine has."""
    needed, there = needed_memory(config, encoder_dim), os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > there:
        raise InputError(
            f"the run needs at least {needed / 1e9:,.0f} GB of memory, this machine has {there / 1e9:,.0f}: lower "
            "--num_envs, --unroll_len, --replay_size or the sizes of the policy"
        )
