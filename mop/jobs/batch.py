"""Checkpoints without a result -> results and routing caches, and the table of all results."""

import multiprocessing
import traceback
import warnings
from argparse import Namespace
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from mop.base.errors import InputError
from mop.base.files import claimed, file_digest
from mop.jobs.heatmaps import print_heatmaps
from mop.jobs.tables import format_table, keep_foreign_table, note_other_worlds
from mop.store.checkpoints import FoundCheckpoint, find_checkpoints, update_of
from mop.store.results import load_result, merge_results, write_result
from mop.store.routing_cache import RoutingCache, write_cache
from mop.store.run_keys import CACHE_DIR, PLOTS_DIR, cache_path, result_path

if TYPE_CHECKING:
    from mop.jobs.evaluation import Evaluation

# Keys of a run's config that are columns of the results table, under the same names.
CONFIG_COLUMNS = (
    "num_updates", "unroll_len", "lr", "lpc_alpha", "expert_hidden_sizes", "intermediate_dim", "router_hidden_size",
    "max_steps", "lang_dim", "normalize_lpc", "lang_encoder", "num_envs", "grad_clip", "residual", "train_lang_proj",
    "obs_encoding", "expert_gain", "teacher_mix", "replay", "replay_size", "lr_decay", "expert_dropout",
    "expert_dropout_below",
)  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """How each checkpoint is evaluated, and where its files go."""

    num_episodes: int = 1000
    num_envs: int = 64
    eval_seed: int = 0
    skip_routing: bool = False
    cache_dir: str = CACHE_DIR
    plots_dir: str = PLOTS_DIR
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


def from_flags(kind: type, args: Namespace):
    """Settings or Filters (`kind`) with the values of the flags that have the names of their fields."""
    return kind(**{name: getattr(args, name) for name in kind.__dataclass_fields__ if hasattr(args, name)})


def evaluate_missing(
    roots: Sequence[str],
    filters: Filters,
    settings: Settings,
    results_path: str,
    force: bool = False,
    jobs: int = 1,
    plots: bool = False,
) -> int:
    """Evaluate every checkpoint below `roots` that has no result yet, merge all results into a table, and print it.

    force: those with a result too; jobs: processes; plots: draw the heatmap of each checkpoint that is asked for.
    Returns 0 if every checkpoint asked for has its result or another process is making it, 1 if some could not be
    evaluated, which are printed. Raises InputError where no checkpoint is asked for, or nothing could be written.
    """
    warnings.showwarning = lambda message, *_: tqdm.write(f"warning: {message}")
    selected = select(roots, filters, "train one with train_mop.py")
    _check_places(Path(results_path), Path(settings.cache_dir))
    missing = selected if force else [item for item in selected if not is_evaluated(item, settings)]
    print(f"{len(selected)} checkpoints, {len(missing)} to evaluate")
    if missing:
        from mop.kernels.devices import use_device

        use_device(settings.device)  # an unusable one is reported here, not once for each checkpoint
    try:
        outcomes = evaluate_all(missing, settings, force, jobs) if missing else []
    finally:  # also after Ctrl-C: what is evaluated is in the table
        keep_foreign_table(Path(results_path))
        table = merge_results(settings.cache_dir, results_path)
    print(format_table(table))
    note_other_worlds(table, settings.num_episodes, settings.eval_seed)
    print(f"table: {results_path} (rows: {len(table)}), routing caches: {settings.cache_dir}/<task_id>/trial_<N>/...")
    for outcome in outcomes:
        if outcome.status == "elsewhere":
            print(f"{outcome.found.key.label}: another process is evaluating it")
    if plots:
        evaluated = [item for item in selected if is_evaluated(item, settings)]
        print_heatmaps(evaluated, settings.cache_dir, settings.plots_dir)
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    for outcome in failed:
        where = "" if str(outcome.found.path) in outcome.message else f"{outcome.found.path}: "
        print(f"failed: {where}{outcome.message}")
    return 1 if failed else 0


def _check_places(results_path: Path, cache_dir: Path) -> None:
    """Make the folders of the results. Raises InputError where they could not be written, before any work is done."""
    if results_path.suffix != ".csv" or (results_path.exists() and not results_path.is_file()):
        raise InputError(f"--results_path must name a .csv file, not {results_path}")
    for name, folder in (("--results_path", results_path.parent), ("--cache_dir", cache_dir)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{name}: {folder} cannot be made a folder ({error.strerror})") from None


# --- which are asked for, and which lack a result ---------------------------------------------------------------------


def select(roots: Sequence[str], filters: Filters, way_out: str) -> list[FoundCheckpoint]:
    """The checkpoints below `roots` that are asked for.

    Raises InputError where there is none; if there is no checkpoint at all, the message ends in `way_out`.
    """

    def wanted(item: FoundCheckpoint) -> bool:
        key = item.key
        seed = key.trial if key.seed is None else key.seed
        return (
            (filters.task is None or key.task_id == filters.task)
            and (filters.trial is None or key.trial == filters.trial)
            and (filters.seed is None or seed == filters.seed)
            and (filters.update is None or filters.update in (key.update, update_of(item)))
            and not (filters.final_only and key.update is not None)
        )

    found = find_checkpoints(roots)
    selected = [item for item in found if wanted(item)]
    if not selected:
        no_fit = f"none of the {len(found)} checkpoints fits the filters; change them"
        why = no_fit if found else f"there is none; {way_out}"
        raise InputError(f"no checkpoint to evaluate under {', '.join(roots)}: {why}")
    return selected


def is_evaluated(found: FoundCheckpoint, settings: Settings) -> bool:
    """Whether a result (with its routing cache, unless skipped) is there and was made from this very file."""
    try:
        row = load_result(result_path(settings.cache_dir, found.key))
        is_done = vouches_for(row, found, settings)
    except (InputError, OSError):
        return False
    return is_done and (settings.skip_routing or cache_path(settings.cache_dir, found.key).exists())


def vouches_for(row: Mapping, found: FoundCheckpoint, settings: Settings) -> bool:
    """Whether a result row says that it was made from this very file, with a routing cache where one is wanted."""
    has_cache = settings.skip_routing or bool(row.get("has_routing_cache"))
    return has_cache and row.get("checkpoint_sha256") == file_digest(found.path)


# --- one checkpoint ---------------------------------------------------------------------------------------------------


def evaluate_found(found: FoundCheckpoint, settings: Settings, progress=None) -> tuple[dict, "Evaluation"]:
    """Evaluate one checkpoint and write nothing: the header of its routing cache, and the evaluation.

    progress: called with the number of episodes just finished. Raises InputError where the checkpoint cannot be used.
    """
    # imported here, so that a process that finds nothing missing does not wait for torch
    from mop.jobs.evaluation import encoder_for, evaluate, load_for_evaluation
    from mop.kernels.devices import use_device
    from mop.worlds.bot_paths import BotPaths
    from mop.worlds.world import MINIGRID_VERSION

    checkpoint = load_for_evaluation(found.path)
    config, key = checkpoint["config"], found.key
    if config["task_id"] != key.task_id:
        raise InputError(f"{found.path} was trained on {config['task_id']}, not on {key.task_id} as its path says")
    teacher = BotPaths(key.task_id, config["max_steps"], settings.teacher_dir or settings.cache_dir)
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
        "policy": config["policy"],
        "metrics": evaluation.metrics,
        "expert_hidden_sizes": evaluation.expert_hidden_sizes,
        "config": {name: value for name, value in config.items() if value is not None},
    }
    return header, evaluation


def evaluate_checkpoint(found: FoundCheckpoint, settings: Settings, progress=None) -> dict:
    """Evaluate one checkpoint and write its result and cache; returns the result row. Raises as `evaluate_found`."""
    key, digest = found.key, file_digest(found.path)
    header, evaluation = evaluate_found(found, settings, progress)
    config = header["config"]
    row = {name: header[name] for name in header if name not in ("metrics", "config")}
    row |= evaluation.metrics | {name: config.get(name) for name in CONFIG_COLUMNS}
    row |= {"expert_hidden_sizes": evaluation.expert_hidden_sizes, "checkpoint_sha256": digest}
    row["has_routing_cache"] = evaluation.steps is not None
    result_path(settings.cache_dir, key).unlink(missing_ok=True)  # it must not vouch for another cache
    if evaluation.steps is not None:
        cache = RoutingCache(header, evaluation.episodes, evaluation.steps)
        write_cache(settings.cache_dir, key, cache)
    write_result(settings.cache_dir, key, row)  # last: a result says that the rest is there
    return row


# --- many checkpoints -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What became of one checkpoint: status "done", "elsewhere" (another process has it) or "failed"."""

    found: FoundCheckpoint
    status: str
    message: str = ""


def attempt(found: FoundCheckpoint, settings: Settings, force: bool, progress=None) -> Outcome:
    """Evaluate one checkpoint unless another process has done so or is doing it; an exception becomes the message."""
    try:
        with claimed(found.path) as is_ours:
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
            for found in lost:  # a process died, and its pool with it: alone, only its own checkpoint fails
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
