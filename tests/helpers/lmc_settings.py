"""Settings of tiny experiments of lmc_rl, and learners made of them, for the tests."""

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
