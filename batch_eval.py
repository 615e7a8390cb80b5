"""Evaluate every checkpoint that has no result yet, then merge all results into evaluation_results.csv.

    python batch_eval.py                                   everything missing under checkpoints/ and modal_checkpoints/
    python batch_eval.py --task BabyAI-GoToRedBall-v0 --trial 0
    python batch_eval.py --num_episodes 200 --skip_routing   faster: no routing caches
    python batch_eval.py --force                           evaluate again

For each checkpoint it writes evaluation_cache/<task_id>/trial_<N>/.../result.json and routing_data.json as soon as they
are there; for one that was trained on several tasks, those of each task. A checkpoint that has changed since its result
was made counts as missing; one whose result was made with other --num_episodes or --eval_seed does not (--force makes
it anew). Several of these processes may work on one tree.
Exit code 0: every checkpoint asked for has its result, or another process is making it; 1: some could not be evaluated,
or a result cannot be read (they are listed, the others' results stand), or there was nothing to do but what other
processes are doing; 2: the command itself cannot be carried out.
"""

from mop.artifacts.run_paths import DEFAULT_ROOTS, RESULTS_TABLE
from mop.common.cli import Parser
from mop.common.configuration import check_flags
from mop.common.errors import InputError, run_script
from mop.common.values import MAX_ENVS, MAX_EPISODES, integer, optional
from mop.evaluation.batch import Filters, Settings, evaluate_missing, from_flags


def parser() -> Parser:
    """The command line of this script."""
    parser = Parser(description=__doc__)
    parser.add_argument("--checkpoint_dir", help=f"tree of checkpoints (default: {' and '.join(DEFAULT_ROOTS)})")
    parser.add_argument("--results_path", default=RESULTS_TABLE, help="the table (default: %(default)s)")
    parser.add_argument("--cache_dir", default=Settings.cache_dir, help="results and caches (default: %(default)s)")
    parser.add_argument("--num_episodes", default=Settings.num_episodes, help="one per world (default: %(default)s)")
    parser.add_argument("--num_envs", default=Settings.num_envs, help="episodes side by side (default: %(default)s)")
    parser.add_argument("--eval_seed", default=Settings.eval_seed, help="the first world (default: %(default)s)")
    parser.add_argument("--task", help="only this task id, or policies of several tasks by name, or NAME/ID")
    parser.add_argument("--trial", help="only this trial")
    parser.add_argument("--seed", help="only this seed (where a path names none, the seed is the trial number)")
    parser.add_argument("--update", help="only checkpoints of this update")
    parser.add_argument("--final_only", action="store_true", help="no periodic checkpoints")
    parser.add_argument("--force", action="store_true", help="evaluate again what has a result")
    parser.add_argument("--skip_routing", action="store_true", help="write no routing caches")
    parser.add_argument("--plots", action="store_true", help="draw a routing heatmap of each checkpoint asked for")
    parser.add_argument("--plots_dir", default=Settings.plots_dir, help="where it goes (default: %(default)s)")
    parser.add_argument("--jobs", default=1, help="processes, a checkpoint each (default: %(default)s)")
    parser.add_argument("--lang_encoder", help="where the recorded mission encoder lies on this machine")
    parser.add_argument("--device", default=Settings.device, help="auto (cuda if there is one), cpu, cuda, ...")
    return parser


def main() -> int:
    """Check the flags, evaluate what is missing, and print the table."""
    args = parser().parse_args()
    number = optional(integer(0))
    check_flags(
        args, num_episodes=integer(1, MAX_EPISODES), num_envs=integer(1, MAX_ENVS), jobs=integer(1, 1024),
        eval_seed=integer(0, 2**32 - 1), trial=number, seed=number, update=number,
    )  # fmt: skip
    if args.plots and args.skip_routing:
        raise InputError("--plots draws the routing that --skip_routing leaves out; give one of them")
    roots = [args.checkpoint_dir] if args.checkpoint_dir else DEFAULT_ROOTS
    filters, settings = from_flags(Filters, args), from_flags(Settings, args)
    return evaluate_missing(roots, filters, settings, args.results_path, args.force, args.jobs, args.plots)


if __name__ == "__main__":
    run_script(main)
