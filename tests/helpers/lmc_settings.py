"""Settings of tiny experiments of lmc_rl, and learners made of them, for the tests."""

import torch

from lmc_rl.config import RLConfig, resolve_rl
from lmc_rl.learners.sac_ddpg import RLRun
from mop.common.cli import as_flags
from mop.training.devices import choose_device

TINY = {  # a run of 240 steps
    "seed": 5, "total_steps": 240, "learning_starts": 40, "hidden_sizes": "16,16", "batch_size": 16, "eval_freq": 80,
    "eval_episodes": 2, "fork_points": "0.25,0.5", "alpha_points": 5, "num_eval_episodes": 6, "device": "cpu",
}  # fmt: skip
FLAGS = as_flags(TINY)


def tiny(**changes) -> RLConfig:
    """Settings of an experiment of a second."""
    return resolve_rl({**TINY, **changes})


def learner(settings: RLConfig, num_updates: int = 0) -> RLRun:
    """A learner of these settings after some updates."""
    made = RLRun(settings, choose_device("cpu"))
    for _ in range(num_updates):
        made.step_update()
    return made


def assert_equal_states(ours, theirs, where: str = "state") -> None:
    """Two nested states are equal to the last bit; NaN equals NaN."""
    assert type(ours) is type(theirs), where
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), where
        for key in ours:
            assert_equal_states(ours[key], theirs[key], f"{where}.{key}")
    elif isinstance(ours, list | tuple):
        assert len(ours) == len(theirs), where
        for k, pair in enumerate(zip(ours, theirs, strict=True)):
            assert_equal_states(*pair, f"{where}[{k}]")
    elif isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs), where
    else:
        assert ours == theirs or (ours != ours and theirs != theirs), where
