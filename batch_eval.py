"""Evaluate every checkpoint that has no result yet, then merge all results into evaluation_results.csv.

    python batch_eval.py                                   everything missing under checkpoints/ and modal_checkpoints/
    python batch_eval.py --task BabyAI-GoToRedBall-v0 --trial 0
    python batch_eval.py --num_episodes 200 --skip_routing   faster: no routing caches
    python batch_eval.py --force                           evaluate again

For each checkpoint it writes evaluation_cache/<task_id>/trial_<N>/.../result.json and routing_data.json as soon as they
are there. A checkpoint that has changed since its result was made counts as missing; one whose result was made with
other --num_episodes or --eval_seed does not (--force makes it anew). Several of these processes may work on one tree.
Exit code 0: every checkpoint asked for has its result, or another process is making it; 1: some could not be evaluated
(they are listed, the others' results stand); 2: the command itself cannot be carried out.
"""

import warnings
from pathlib import Path

from tqdm import tqdm

from mop.base.configuration import Parser, check_flags, integer, optional
from mop.base.errors import InputError, run_script
from mop.jobs.batch import (
    Filters,
    Settings,
    evaluate_all,
    format_table,
    is_evaluated,
    keep_foreign_table,
    note_other_settings,
    print_heatmaps,
    select,
)
from mop.store.results import merge_results
from mop.store.run_keys import DEFAULT_ROOTS, RESULTS_TABLE


def parser() -> Parser:
    """The command line of this script."""
    parser = Parser(description=__doc__)
    parser.add_argument("--checkpoint_dir", help=f"tree of checkpoints (default: {' and '.join(DEFAULT_ROOTS)})")
    parser.add_argument("--results_path", default=RESULTS_TABLE, help="the table (default: %(default)s)")
    parser.add_argument("--cache_dir", default=Settings.cache_dir, help="results and caches (default: %(default)s)")
    parser.add_argument("--num_episodes", default=Settings.num_episodes, help="one per world (default: %(default)s)")
    parser.add_argument("--num_envs", default=Settings.num_envs, help="episodes side by side (default: %(default)s)")
    parser.add_argument("--eval_seed", default=Settings.eval_seed, help="the first world (default: %(default)s)")
    parser.add_argument("--task", help="only this task id")
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


def taken_by(kind: type, args) -> dict:
    """The attributes of `args` that are fields of a dataclass."""
    return {name: getattr(args, name) for name in kind.__dataclass_fields__ if hasattr(args, name)}


def check_paths(args) -> None:
    """Raises InputError where results could not be written, before any work is done for them."""
    results_path = Path(args.results_path)
    if results_path.suffix != ".csv" or (results_path.exists() and not results_path.is_file()):
        raise InputError(f"--results_path must name a .csv file, not {results_path}")
    for name, folder in (("--results_path", results_path.parent), ("--cache_dir", Path(args.cache_dir))):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{name}: {folder} cannot be made a folder ({error.strerror})") from None


def main() -> int:
    """The command line: evaluate what is missing, merge, print the table."""
    args = parser().parse_args()
    count, number = integer(1), optional(integer(0))
    check_flags(
        args, num_episodes=count, num_envs=count, jobs=count, eval_seed=integer(0, 2**32 - 1),
        trial=number, seed=number, update=number,
    )  # fmt: skip
    if args.plots and args.skip_routing:
        raise InputError("--plots draws the routing that --skip_routing leaves out; give one of them")
    roots = [args.checkpoint_dir] if args.checkpoint_dir else list(DEFAULT_ROOTS)
    warnings.showwarning = lambda message, *_: tqdm.write(f"warning: {message}")
    selected = select(roots, Filters(**taken_by(Filters, args)), "train one with train_mop.py")
    check_paths(args)
    settings = Settings(**taken_by(Settings, args))
    missing = selected if args.force else [item for item in selected if not is_evaluated(item, settings)]
    print(f"{len(selected)} checkpoints, {len(missing)} to evaluate")
    if missing:
        from mop.kernels.devices import use_device

        use_device(args.device)  # an unusable one ends here, not once per checkpoint
    try:
        outcomes = evaluate_all(missing, settings, args.force, args.jobs) if missing else []
    finally:  # also after Ctrl-C: what is evaluated is in the table
        keep_foreign_table(Path(args.results_path))
        table = merge_results(args.cache_dir, args.results_path)
    print(format_table(table))
    note_other_settings(table, settings)
    print(f"table: {args.results_path} (rows: {len(table)}), routing caches: {args.cache_dir}/<task_id>/trial_<N>/...")
    for outcome in outcomes:
        if outcome.status == "elsewhere":
            print(f"{outcome.found.key.label}: another process is evaluating it")
    if args.plots:
        print_heatmaps([item for item in selected if is_evaluated(item, settings)], settings)
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    for outcome in failed:
        where = "" if str(outcome.found.path) in outcome.message else f"{outcome.found.path}: "
        print(f"failed: {where}{outcome.message}")
    return 1 if failed else 0


if __name__ == "__main__":
    run_script(main)
