"""Evaluate one checkpoint, or the BabyAI bot itself, on a fixed list of worlds.

    python eval_mop.py --checkpoint checkpoints/BabyAI-GoToObj-v0/trial_0/checkpoint_final.pt --num_episodes 100
    python eval_mop.py --bot --task_id BabyAI-UnlockPickup-v0 --num_episodes 150

The worlds are the seeds eval_seed, eval_seed + 1, ...; one greedy episode each. A world that the bot cannot solve is
counted and replaced by the next seed, as no path length is known for it. --num_envs changes speed and rounding only.
"""

from mop.common.cli import Parser
from mop.common.configuration import check_flags
from mop.common.errors import InputError, run_script
from mop.common.values import MAX_ENVS, MAX_EPISODES, integer, optional
from mop.envs.episodes import EvalVectorEnv
from mop.evaluation.evaluate import NUM_ENVS, evaluate
from mop.evaluation.single import evaluate_one

__all__ = ["EvalVectorEnv", "evaluate", "main", "parser"]  # the first two are documented as names of this script


def parser() -> Parser:
    """The command line of this script."""
    parser = Parser(description=__doc__)
    parser.add_argument("--checkpoint", help="checkpoint_final.pt or checkpoint_<U>.pt")
    parser.add_argument("--bot", action="store_true", help="evaluate the teacher itself; needs --task_id")
    parser.add_argument("--task_id", help="BabyAI id (default: the checkpoint's, each where it has several)")
    parser.add_argument("--num_episodes", default=100, help="worlds, one episode each (default: 100)")
    parser.add_argument("--num_envs", default=NUM_ENVS, help=f"episodes side by side (default: {NUM_ENVS})")
    parser.add_argument("--max_steps", help="step limit of an episode (default: the checkpoint's, else the task's)")
    parser.add_argument("--eval_seed", default=0, help="seed of the first world (default: 0)")
    parser.add_argument("--lang_encoder", help="where the recorded mission encoder lies on this machine")
    parser.add_argument("--device", default="auto", help="auto (cuda if there is one), cpu, cuda, ...")
    parser.add_argument("--cache_dir", default="evaluation_cache", help="where the bot's own results are kept")
    return parser


def main() -> int:
    """Check the flags, evaluate, and print the metrics."""
    args = parser().parse_args()
    check_flags(
        args,
        num_episodes=integer(1, MAX_EPISODES),
        num_envs=integer(1, MAX_ENVS),
        eval_seed=integer(0, 2**32 - 1),
        max_steps=optional(integer(1)),
    )
    if args.bot == (args.checkpoint is not None) or (args.bot and args.task_id is None):
        raise InputError("give --checkpoint PATH, or --bot with --task_id ID (see --help)")
    return evaluate_one(
        args.checkpoint, args.task_id, args.num_episodes, args.num_envs, args.max_steps, args.eval_seed,
        args.lang_encoder, args.device, args.cache_dir,
    )  # fmt: skip


if __name__ == "__main__":
    run_script(main)
