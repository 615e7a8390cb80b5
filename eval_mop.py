"""Evaluate one checkpoint, or the BabyAI bot itself, on a fixed list of worlds.

    python eval_mop.py --checkpoint checkpoints/BabyAI-GoToObj-v0/trial_0/checkpoint_final.pt --num_episodes 100
    python eval_mop.py --bot --task_id BabyAI-UnlockPickup-v0 --num_episodes 150

The worlds are the seeds eval_seed, eval_seed + 1, ...; one episode each. A world that the bot cannot solve is
counted and replaced by the next seed, as no path length is known for it. --num_envs changes speed and rounding only.
"""

from dataclasses import dataclass

from mop.artifacts.run_paths import CACHE_DIR
from mop.common.cli import parse, setting
from mop.common.errors import InputError, run_script
from mop.common.files import check_writable
from mop.common.values import MAX_EPISODES
from mop.envs.episodes import EvalVectorEnv
from mop.evaluation.evaluate import evaluate, print_bot_metrics, print_metrics
from mop.evaluation.settings import PlaySettings

__all__ = ["EvalVectorEnv", "Settings", "evaluate", "main"]  # the first and the third are documented for this script


@dataclass(frozen=True)
class Settings(PlaySettings):
    """The flags."""

    num_episodes: int = setting(100, "worlds, one episode each", low=1, high=MAX_EPISODES)
    checkpoint: str | None = setting(None, "checkpoint_final.pt or checkpoint_<U>.pt", metavar="FILE")
    bot: bool = setting(False, "evaluate the teacher itself; needs --task_id")
    task_id: str | None = setting(None, "BabyAI id (default: the checkpoint's, each where it has several)")
    max_steps: int | None = setting(
        None, "step limit of an episode (default: the checkpoint's, else the task's)", low=1
    )
    cache_dir: str = setting(CACHE_DIR, "where the bot's own results are kept")

    def __post_init__(self):
        if self.bot == (self.checkpoint is not None) or (self.bot and self.task_id is None):
            raise InputError("give --checkpoint PATH, or --bot with --task_id ID (see --help)")


def main() -> int:
    """Evaluate, and print the metrics."""
    flags = parse(Settings, __doc__)
    if flags.checkpoint is not None:
        check_writable(flags.cache_dir, "--cache_dir")
        print_metrics(flags.checkpoint, flags.task_id, flags.max_steps, flags.cache_dir, flags)
    elif flags.task_id is not None:
        print_bot_metrics(flags.task_id, flags.max_steps, flags)
    return 0


if __name__ == "__main__":
    run_script(main)
