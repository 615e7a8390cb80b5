"""Which checkpoints lack a result, and making it: result, routing cache, picture, table."""

import multiprocessing
import os
import traceback
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

from mop.base.configuration import BEFORE
from mop.base.errors import InputError
from mop.base.files import claimed, file_digest, write_figure
from mop.store.checkpoints import FoundCheckpoint, find_checkpoints, update_of
from mop.store.results import ADDED_COLUMNS, load_result, write_result
from mop.store.routing_cache import RoutingCache, load_cache, write_cache
from mop.store.run_keys import CACHE_DIR, PLOTS_DIR, cache_path, result_path

if TYPE_CHECKING:
    from mop.jobs.evaluation import Evaluation


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


def evaluate_found(found: FoundCheckpoint, settings: Settings, progress=None) -> tuple[dict, "Evaluation"]:
    """Evaluate one checkpoint without writing its result or cache: the header of a cache, and the rest of it.

    Raises InputError where the checkpoint cannot be used.
    """
    # here, so that the processes which only look for missing results do not wait for torch
    from mop.jobs.evaluation import encoder_for, evaluate, load_for_evaluation
    from mop.kernels.devices import use_device
    from mop.worlds.bot_paths import BotPaths
    from mop.worlds.world import MINIGRID_VERSION

    checkpoint = load_for_evaluation(found.path)
    config, key = checkpoint["config"], found.key
    if config["task_id"] != key.task_id:
        raise InputError(f"{found.path} was trained on {config['task_id']}, not on {key.task_id} as its path says")
    teacher = BotPaths(key.task_id, config.get("max_steps"), settings.teacher_dir or settings.cache_dir)
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
    key, digest = found.key, file_digest(found.path)
    header, evaluation = evaluate_found(found, settings, progress)
    config = BEFORE | header["config"]
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


def heatmap_path(found: FoundCheckpoint, settings: Settings) -> Path:
    """Where the picture of --plots goes."""
    return found.key.artefacts(settings.plots_dir) / "routing_heatmap.png"


def write_heatmap(found: FoundCheckpoint, settings: Settings) -> None:
    """Draw the routing of every layer, with the first world, unless the picture is newer than the cache.

    Raises InputError where the cache cannot be read or drawn.
    """
    path, cached = heatmap_path(found, settings), cache_path(settings.cache_dir, found.key)
    if path.exists() and cached.exists() and path.stat().st_mtime_ns > cached.stat().st_mtime_ns:
        return
    from mop.worlds.pictures import render_world
    from plotting_utils import plot_overall_routing

    cache = load_cache(cached)
    for field in ("position", "layer_routing", "seed", "mission"):
        cache.require(field)
    first = cache.episodes[0]
    figure = plot_overall_routing(cache, render_world(found.key.task_id, first["seed"]), first["mission"])
    write_figure(path, figure)


@dataclass(frozen=True)
class Outcome:
    """What became of one checkpoint: status "done", "elsewhere" (another process has it) or "failed"."""

    found: FoundCheckpoint
    status: str
    message: str = ""


def attempt(found: FoundCheckpoint, settings: Settings, force: bool, progress=None) -> Outcome:
    """Evaluate one checkpoint unless somebody else has done so or is at it; an error becomes the outcome's message."""
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
    if not set(ADDED_COLUMNS) <= set(columns):
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
