"""How simulators of a kind of world are judged: what `fidelity` must know of it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from generative.recordings.format import Recording
from generative.simulators.world_model import WorldModel, load_world_model
from mop.common.errors import InputError
from mop.common.files import file_digest
from mop.common.seeding import stream_seed
from mop.training.loop import FINAL_NAME

Sums = dict[str, tuple[np.ndarray, np.ndarray]]  # of each measure, two arrays (T, N): see `fidelity.sums_of`


class Judge(NamedTuple):
    """One for each domain of `adapters`."""

    measures: Mapping[str, str]  # name -> what it is
    actors: tuple[str, ...]  # who acts in trials
    run_trials: Callable[..., Any]  # as `trials.run_trials`
    load_forecasts: Callable[..., Any]  # as `fidelity.load_forecasts`
    sums_of: Callable[..., Sums]  # of trials and a forecast


def load_judged(simulator: str, recording: Recording) -> tuple[WorldModel, dict, int]:
    """A learned simulator of the policy of a recording; what is written of it; the frames that it is shown.

    Raises InputError where there is none, or it is of another policy.
    """
    model, config = load_world_model(simulator)
    if config["agent"]["sha256"] != recording.config["checkpoint"]["sha256"]:
        raise InputError(f"{simulator} is a simulator for another policy than that of {recording.folder}")
    known = {"name": str(simulator), "digest": file_digest(Path(simulator) / FINAL_NAME)}
    return model, known, config["num_initializing_steps"]


def shuffled_actions(trials: Any) -> Tensor:
    """What was done in another of N trials after the frames that are shown: (T, N, A)."""
    actions = trials.one_hot_actions[trials.num_shown - 1 :]
    return actions[:, np.random.default_rng(stream_seed(0, "shuffled actions")).permutation(actions.shape[1])]
