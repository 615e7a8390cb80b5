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

import multiprocessing
import os
import traceback
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from tqdm import tqdm

import runs
from configuration import BEFORE, Parser, check_flags, integer, optional
from errors import InputError, run_script
from routing_cache import RoutingCache, load_cache, write_cache
from runs import FoundCheckpoint

if TYPE_CHECKING:
    from eval_mop import Evaluation

# config keys that are columns of the results table, in both directions the same name
CONFIG_COLUMNS = (
    "num_updates", "unroll_len", "lr", "lpc_alpha", "expert_hidden_sizes", "intermediate_dim", "router_hidden_size",
    "max_steps", "lang_dim", "normalize_lpc", "lang_encoder", "num_envs", "grad_clip", "residual", "train_lang_proj",
    "obs_encoding", "expert_gain", "teacher_mix", "replay", "replay_size", "lr_decay", "expert_dropout",
    "expert_dropout_below",
)  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """How each checkpoint is evaluated and where its files go."""

    num_episodes: int = 1000
    num_envs: int = 64
    eval_seed: int = 0
    skip_routing: bool = False
    cache_dir: str = runs.CACHE_DIR
    plots_dir: str = runs.PLOTS_DIR
    lang_encoder: str | None = None
    device: str = "auto"
    teacher_dir: str | None = None  # where the bot's own results are kept; None: in cache_dir


@dataclass(frozen=True)
class Filters:
    """Which checkpoints are asked for; None: any. `seed` is the trial number where a path names no seed."""

    task: str | None = None
    trial: int | None = None
    seed: int | None = None
    update: int | None = None
    final_only: bool = False


def is_evaluated(found: FoundCheckpoint, settings: Settings) -> bool:
    """Whether a result (with its routing cache, unless skipped) is there and was made from this very file."""
    try:
        row = runs.load_result(runs.result_path(settings.cache_dir, found.key))
        is_done = vouches_for(row, found, settings)
    except (InputError, OSError):
        return False
    return is_done and (settings.skip_routing or runs.cache_path(settings.cache_dir, found.key).exists())


def vouches_for(row: Mapping, found: FoundCheckpoint, settings: Settings) -> bool:
    """Whether a result row says that it was made from this very file, with a routing cache where one is wanted."""
    has_cache = settings.skip_routing or bool(row.get("has_routing_cache"))
    return has_cache and row.get("checkpoint_sha256") == runs.file_digest(found.path)


def evaluate_found(found: FoundCheckpoint, settings: Settings, progress=None) -> tuple[dict, "Evaluation"]:
    """Evaluate one checkpoint without writing its result or cache: the header of a cache, and the rest of it.

    Raises InputError where the checkpoint cannot be used.
    """
    # here, so that the processes which only look for missing results do not wait for torch
    from babyai_env import MINIGRID_VERSION
    from devices import use_device
    from eval_mop import TeacherResults, encoder_for, evaluate, load_for_evaluation

    checkpoint = load_for_evaluation(found.path)
    config, key = checkpoint["config"], found.key
    if config["task_id"] != key.task_id:
        raise InputError(f"{found.path} was trained on {config['task_id']}, not on {key.task_id} as its path says")
    teacher = TeacherResults(key.task_id, config.get("max_steps"), settings.teacher_dir or settings.cache_dir)
    evaluation = evaluate(
        checkpoint, encoder_for(checkpoint, settings.lang_encoder), teacher, settings.num_episodes, settings.eval_seed,
        settings.num_envs, not settings.skip_routing, use_device(settings.device), progress,
    )  # fmt: skip
    header = {
        "checkpoint_path": Path(found.path).as_posix(),
        "num_episodes": settings.num_episodes,
        "evaluated_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "task_id": key.task_id,
        "trial": key.trial,
        "seed": key.seed,
        "update": checkpoint["update"],
        "is_final": key.update is None,
        "eval_seed": settings.eval_seed,
        "minigrid_version": MINIGRID_VERSION,
        "policy": config.get("policy", "mop"),
        "metrics": evaluation.metrics,
        "expert_hidden_sizes": evaluation.expert_hidden_sizes,
        "config": config,
    }
    return header, evaluation


def evaluate_checkpoint(found: FoundCheckpoint, settings: Settings, progress=None) -> dict:
    """Evaluate one checkpoint and write its result and cache; returns the result row. Raises InputError."""
    key, digest = found.key, runs.file_digest(found.path)
    header, evaluation = evaluate_found(found, settings, progress)
    config = BEFORE | header["config"]
    row = {name: header[name] for name in header if name not in ("metrics", "config")}
    row |= evaluation.metrics | {name: config.get(name) for name in CONFIG_COLUMNS}
    row |= {"expert_hidden_sizes": evaluation.expert_hidden_sizes, "checkpoint_sha256": digest}
    row["has_routing_cache"] = evaluation.steps is not None
    runs.result_path(settings.cache_dir, key).unlink(missing_ok=True)  # it must not vouch for another cache
    if evaluation.steps is not None:
        cache = RoutingCache(header, evaluation.episodes, evaluation.steps)
        write_cache(settings.cache_dir, key, cache)
    runs.write_result(settings.cache_dir, key, row)  # last: a result says that the rest is there
    return row


def heatmap_path(found: FoundCheckpoint, settings: Settings) -> Path:
    """Where the picture of --plots goes."""
    return found.key.artefacts(settings.plots_dir) / "routing_heatmap.png"


def write_heatmap(found: FoundCheckpoint, settings: Settings) -> None:
    """Draw the routing of every layer, with the first world, unless the picture is newer than the cache.

    Raises InputError where the cache cannot be read or drawn.
    """
    path, cache_path = heatmap_path(found, settings), runs.cache_path(settings.cache_dir, found.key)
    if path.exists() and cache_path.exists() and path.stat().st_mtime_ns > cache_path.stat().st_mtime_ns:
        return
    from plotting_utils import plot_overall_routing
    from world_pictures import render_world

    cache = load_cache(cache_path)
    for field in ("position", "layer_routing", "seed", "mission"):
        cache.require(field)
    first = cache.episodes[0]
    figure = plot_overall_routing(cache, render_world(found.key.task_id, first["seed"]), first["mission"])
    runs.write_figure(path, figure)


@dataclass(frozen=True)
class Outcome:
    """What became of one checkpoint: status "done", "elsewhere" (another process has it) or "failed"."""

    found: FoundCheckpoint
    status: str
    message: str = ""


def attempt(found: FoundCheckpoint, settings: Settings, force: bool, progress=None) -> Outcome:
    """Evaluate one checkpoint unless somebody else has done so or is at it; an error becomes the outcome's message."""
    try:
        with runs.claimed(found.path) as is_ours:
            if not is_ours:
                return Outcome(found, "elsewhere")
            if force or not is_evaluated(found, settings):
                evaluate_checkpoint(found, settings, progress)
        return Outcome(found, "done")
    except InputError as error:
        return Outcome(found, "failed", str(error))
    except Exception:  # one checkpoint's bug must not cost the others their results
        return Outcome(found, "failed", traceback.format_exc())


def evaluate_all(missing: list[FoundCheckpoint], settings: Settings, force: bool, jobs: int) -> list[Outcome]:
    """Evaluate the checkpoints, here or in `jobs` processes, with a progress bar."""
    outcomes = []
    with tqdm(total=len(missing), desc="checkpoints", unit="checkpoint", dynamic_ncols=True) as bar:
        if jobs > 1:
            outcomes, lost = _attempt_in_pool(missing, settings, force, jobs, bar)
            for found in lost:  # a process died and took its pool with it: one by one, only its own checkpoint fails
                again, dead = _attempt_in_pool([found], settings, force, 1, bar)
                outcomes += again + [Outcome(item, "failed", "its process died (out of memory?)") for item in dead]
            return outcomes
        for found in missing:
            with tqdm(total=settings.num_episodes, desc=found.key.label, leave=False, dynamic_ncols=True) as inner:
                outcomes.append(attempt(found, settings, force, inner.update))
            bar.update()
    return outcomes


def _attempt_in_pool(
    missing: list[FoundCheckpoint], settings: Settings, force: bool, jobs: int, bar: tqdm
) -> tuple[list[Outcome], list[FoundCheckpoint]]:
    """The outcomes, and the checkpoints that have none because the pool broke."""
    outcomes, lost = [], []
    context = multiprocessing.get_context("spawn")  # fork and torch's threads do not go together
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        futures = {pool.submit(attempt, found, settings, force): found for found in missing}
        for future in as_completed(futures):
            try:
                outcomes.append(future.result())
                bar.update()
            except BrokenProcessPool:
                lost.append(futures[future])
    return outcomes, lost


def select(roots: Sequence[str], filters: Filters, way_out: str) -> list[FoundCheckpoint]:
    """The checkpoints below `roots` that are asked for.

    Raises InputError where there is none, with `way_out` where there is none to choose from either.
    """

    def wanted(item: FoundCheckpoint) -> bool:
        key = item.key
        seed = key.trial if key.seed is None else key.seed
        return (
            (filters.task is None or key.task_id == filters.task)
            and (filters.trial is None or key.trial == filters.trial)
            and (filters.seed is None or seed == filters.seed)
            and (filters.update is None or filters.update in (key.update, runs.update_of(item)))
            and not (filters.final_only and key.update is not None)
        )

    found = runs.find_checkpoints(roots)
    selected = [item for item in found if wanted(item)]
    if not selected:
        no_fit = f"none of the {len(found)} checkpoints fits the filters; change them"
        why = no_fit if found else f"there is none; {way_out}"
        raise InputError(f"no checkpoint to evaluate under {', '.join(roots)}: {why}")
    return selected


def note_other_settings(table: pd.DataFrame, settings: Settings) -> None:
    """Say how many rows were made in other worlds than those asked for now."""
    asked = {"num_episodes": settings.num_episodes, "eval_seed": settings.eval_seed}
    known = [name for name in asked if name in table]
    num_others = int((table[known] != pd.Series(asked)[known]).any(axis=1).sum())
    if num_others:
        print(f"{num_others} of these were made with other --num_episodes or --eval_seed; --force makes them anew")


def keep_foreign_table(results_path: Path) -> None:
    """A table that another program made is no merge of our results: move it aside before it is replaced."""
    try:
        columns = pd.read_csv(results_path, nrows=0).columns
    except FileNotFoundError:
        return
    except (ValueError, OSError):
        columns = []
    if not set(runs.ADDED_COLUMNS) <= set(columns):
        # no two processes give the same name: the second would replace what the first has kept
        kept = results_path.with_name(f"{results_path.stem}.{datetime.now(UTC):%Y%m%dT%H%M%S}.{os.getpid()}.csv")
        with suppress(FileNotFoundError):  # another process was faster
            os.replace(results_path, kept)
            print(f"{results_path} was not made by this program; it is kept as {kept}")


def format_table(table: pd.DataFrame) -> str:
    """The results table for a terminal."""
    if table.empty:
        return "no results yet"
    table = table.astype({name: float for name in ("success_rate", "success_low", "success_high")})
    bounds = zip(table["success_low"], table["success_high"], strict=True)
    shown = pd.DataFrame(
        {
            "task": table["task_id"],
            "trial": table["trial"],
            "seed": table["seed"].astype(object).where(table["seed"].notna(), "-"),
            "update": table["update"],
            "policy": table["policy"],
            "success": [f"{rate:.1%}" for rate in table["success_rate"]],
            "95 % interval": [f"{low:.1%} to {high:.1%}" for low, high in bounds],
            "path ratio": [f"{ratio:.3f}" for ratio in table["path_ratio"].astype(float)],
            "mean LPC": [f"{lpc:.1f}" for lpc in table["mean_lpc"].astype(float)],
            "episodes": table["num_episodes"],
        }
    )
    return shown.to_string(index=False)


def print_heatmaps(evaluated: list[FoundCheckpoint], settings: Settings) -> None:
    """Draw what is not drawn yet and say where it is; a picture that fails costs nothing but itself."""
    for found in evaluated:
        try:
            write_heatmap(found, settings)
            print(f"heatmap: {heatmap_path(found, settings)}")
        except (InputError, OSError) as error:
            print(f"no heatmap of {found.key.label}: {error}")


def parser() -> Parser:
    """The command line of this script."""
    parser = Parser(description=__doc__)
    parser.add_argument("--checkpoint_dir", help=f"tree of checkpoints (default: {' and '.join(runs.DEFAULT_ROOTS)})")
    parser.add_argument("--results_path", default=runs.RESULTS_TABLE, help="the table (default: %(default)s)")
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
    roots = [args.checkpoint_dir] if args.checkpoint_dir else list(runs.DEFAULT_ROOTS)
    warnings.showwarning = lambda message, *_: tqdm.write(f"warning: {message}")
    selected = select(roots, Filters(**taken_by(Filters, args)), "train one with train_mop.py")
    check_paths(args)
    settings = Settings(**taken_by(Settings, args))
    missing = selected if args.force else [item for item in selected if not is_evaluated(item, settings)]
    print(f"{len(selected)} checkpoints, {len(missing)} to evaluate")
    if missing:
        from devices import use_device

        use_device(args.device)  # an unusable one ends here, not once per checkpoint
    try:
        outcomes = evaluate_all(missing, settings, args.force, args.jobs) if missing else []
    finally:  # also after Ctrl-C: what is evaluated is in the table
        keep_foreign_table(Path(args.results_path))
        table = runs.merge_results(args.cache_dir, args.results_path)
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
