"""Evaluate one checkpoint, or the BabyAI bot itself, on a fixed list of worlds.

    python eval_mop.py --checkpoint checkpoints/BabyAI-GoToObj-v0/trial_0/checkpoint_final.pt --num_episodes 100
    python eval_mop.py --bot --task_id BabyAI-UnlockPickup-v0 --num_episodes 150

The worlds are the seeds eval_seed, eval_seed + 1, ...; one greedy episode each. A world that the bot cannot solve is
counted and replaced by the next seed, as no path length is known for it. --num_envs changes speed and rounding only.
"""

from tqdm import tqdm

from mop.base.configuration import Parser, check_flags, integer, optional
from mop.base.errors import InputError, run_script
from mop.jobs.evaluation import NUM_ENVS, encoder_for, evaluate, evaluate_bot, load_for_evaluation
from mop.kernels.cache import announce_compilation
from mop.kernels.devices import use_device
from mop.measures.metrics import format_metrics
from mop.worlds.bot_paths import BotPaths


def parser() -> Parser:
    """The command line of this script."""
    parser = Parser(description=__doc__)
    parser.add_argument("--checkpoint", help="checkpoint_final.pt or checkpoint_<U>.pt")
    parser.add_argument("--bot", action="store_true", help="evaluate the teacher itself; needs --task_id")
    parser.add_argument("--task_id", help="BabyAI id (default: the checkpoint's)")
    parser.add_argument("--num_episodes", default=100, help="worlds, one episode each (default: 100)")
    parser.add_argument("--num_envs", default=NUM_ENVS, help=f"episodes side by side (default: {NUM_ENVS})")
    parser.add_argument("--max_steps", help="step limit of an episode (default: the checkpoint's, else the task's)")
    parser.add_argument("--eval_seed", default=0, help="seed of the first world (default: 0)")
    parser.add_argument("--lang_encoder", help="where the recorded mission encoder lies on this machine")
    parser.add_argument("--device", default="auto", help="auto (cuda if there is one), cpu, cuda, ...")
    parser.add_argument("--cache_dir", default="evaluation_cache", help="where the bot's own results are kept")
    return parser


def main() -> int:
    """The command line: evaluates and prints."""
    args = parser().parse_args()
    check_flags(
        args,
        num_episodes=integer(1),
        num_envs=integer(1),
        eval_seed=integer(0, 2**32 - 1),
        max_steps=optional(integer(1)),
    )
    if args.bot == (args.checkpoint is not None) or (args.bot and args.task_id is None):
        raise InputError("give --checkpoint PATH, or --bot with --task_id ID (see --help)")
    if args.bot:
        announce_compilation()
        teacher = BotPaths(args.task_id, args.max_steps, args.cache_dir)
        evaluation = evaluate_bot(teacher, args.num_episodes, args.eval_seed, args.num_envs)
        print(f"the BabyAI bot on {args.task_id}")
    else:
        device = use_device(args.device)
        checkpoint = load_for_evaluation(args.checkpoint)
        config = checkpoint["config"]
        task_id = args.task_id or config["task_id"]
        max_steps = args.max_steps or (config.get("max_steps") if task_id == config["task_id"] else None)
        encoder = encoder_for(checkpoint, args.lang_encoder)
        teacher = BotPaths(task_id, max_steps, args.cache_dir)
        with tqdm(total=args.num_episodes, desc=task_id, unit="episode", leave=False, dynamic_ncols=True) as bar:
            evaluation = evaluate(
                checkpoint, encoder, teacher, args.num_episodes, args.eval_seed, args.num_envs,
                record_steps=False, device=device, progress=bar.update,
            )  # fmt: skip
        print(f"{args.checkpoint} on {task_id}")
    print(format_metrics(evaluation.metrics, args.num_episodes))
    return 0


if __name__ == "__main__":
    run_script(main)
