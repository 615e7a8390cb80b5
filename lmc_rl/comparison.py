"""The lines between any two policies in files."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmc_rl.analysis.results import ExperimentPaths, LineResult, load_lines
from lmc_rl.analysis.table import LineKey
from lmc_rl.config import ExperimentConfig, resolve_mop, resolve_rl
from lmc_rl.experiment import learner_class, measure_all
from lmc_rl.learners.base import Line
from lmc_rl.workers import Workers
from mop.artifacts.checkpoints import load_checkpoint
from mop.common.errors import InputError
from mop.common.files import file_digest, open_output_dir
from mop.training.devices import choose_device


def compare(first: Path, second: Path, out: Path, flags: Mapping[str, Any]) -> tuple[LineResult, ...]:
    """Measure the lines from one policy to the other; what `out` holds of the same comparison is not done again."""
    config = _config_for(first, second, flags)
    names = ("alpha_points", "num_trajectories", "num_eval_episodes")
    record = {name: getattr(config, name) for name in names if hasattr(config, name)}
    record |= {"digests": [file_digest(first), file_digest(second)]}  # wherever the files lie
    with open_output_dir(out, record, "compared.json"):
        learner = learner_class(config)(config, ExperimentPaths(out, out))
        with Workers(config.jobs) as workers:
            measure_all(learner, [Line(LineKey("other"), first, second)], workers)
        return load_lines(out, (), config.alpha_points, config.tolerance)


def _config_for(first: Path, second: Path, flags: Mapping[str, Any]) -> ExperimentConfig:
    """The settings under which two policies are compared, which must be of one kind and of one task."""
    choose_device("auto")
    kinds = ["lang_proj_state_dict" in load_checkpoint(path) for path in (first, second)]
    if not any(kinds):
        from lmc_rl.learners.rl import common_config, load_policy

        found = common_config(load_policy(first), load_policy(second))
        return resolve_rl({**flags, "env": found["task_id"], "max_episode_steps": found["max_episode_steps"]})
    if not all(kinds):
        raise InputError(f"{first} and {second} are policies of different kinds: there is no line between them")
    from lmc_rl.learners.imitation import check_comparable, load_pathways

    policies = [load_pathways(path) for path in (first, second)]
    check_comparable(*policies)
    return dataclasses.replace(resolve_mop(flags), run=policies[0].config)
