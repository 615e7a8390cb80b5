"""Checkpoints without a result -> results and routing caches, and the table of all results."""

import os
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tqdm import tqdm

from mop.artifacts.checkpoints import FoundCheckpoint, by_task, check_trained_on, find_checkpoints, update_of
from mop.artifacts.results import load_result, merge_results, result_file
from mop.artifacts.routing_cache import MAX_JSON_STEPS, RoutingData, cache_files, load_cache
from mop.artifacts.run_paths import cache_path, result_path
from mop.common.errors import InputError, show_warnings
from mop.common.files import (
    check_writable,
    file_digest,
    find_files,
    folder_lock,
    remove_leftovers,
    write_figure,
    write_together,
)
from mop.common.workers import Died, JobPool
from mop.evaluation.settings import Filters, InterventionSettings, Settings

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from mop.envs.bot_paths import BotPaths
    from mop.envs.missions import MissionEncoder
    from mop.evaluation.evaluate import Evaluation

_BYTES_PER_STEP, _EXPECTED_MB = 350, 100  # of routing_data.json, about
_NUM_LISTED = 6  # checkpoints in a message
# Keys of a run's config that are columns of the results table, under the same names.
CONFIG_COLUMNS = (
    "num_updates", "unroll_len", "lr", "lpc_alpha", "expert_hidden_sizes", "intermediate_dim", "router_hidden_size",
    "max_steps", "lang_dim", "normalize_lpc", "lang_encoder", "num_envs", "grad_clip", "residual", "train_lang_proj",
    "obs_encoding", "expert_gain", "teacher_mix", "replay", "replay_size", "lr_decay", "expert_dropout",
    "expert_dropout_below", "input_encoder", "film_cell_dim", "film_features",
)  # fmt: skip


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
    Returns 0 if every checkpoint asked for has its result or another process is making it, and this one did something
    or had nothing to do; 1 if some could not be evaluated, a result cannot be read (both are printed), or all that is
    missing was left to other processes. Raises OSError if the disk refuses the table.
    """
    show_warnings(tqdm.write)
    selected = select(roots, filters, "train one with train_mop.py")
    _prepare_places(Path(results_path), settings, plots)
    missing = selected if force else [item for item in selected if not is_evaluated(item, settings)]
    print(f"{len(selected)} checkpoints, {len(missing)} to evaluate")
    if missing:
        from mop.training.devices import choose_device

        choose_device(settings.device)  # an unusable one is reported here, not once for each checkpoint
    unread: list[str] = []
    outcomes: list[Outcome] = []
    try:
        if missing:
            evaluate_all(missing, settings, force, jobs, outcomes)
    except KeyboardInterrupt:
        # a worker may have written a result that it could not tell any more
        num_done = len(outcomes) if force else sum(is_evaluated(item, settings) for item in missing)
        done = f"{num_done} of {len(missing)} checkpoints are evaluated, and their results in {results_path}"
        raise KeyboardInterrupt(f"{done}; the same command goes on") from None
    finally:  # what is evaluated is in the table, whatever happens
        table = merge_results(settings.cache_dir, results_path, unread.append)
    print(format_table(table))
    note_other_worlds(table, settings)
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
    for message in unread:
        print(f"failed: {message}")
    has_waited_only = bool(outcomes) and all(outcome.status == "elsewhere" for outcome in outcomes)
    return 1 if failed or unread or has_waited_only else 0


def _prepare_places(results_path: Path, settings: Settings, plots: bool) -> None:
    prepare_table(results_path)
    folders = {"--cache_dir": settings.cache_dir} | ({"--plots_dir": settings.plots_dir} if plots else {})
    for flag, folder in folders.items():
        check_writable(folder, flag)
        with warnings.catch_warnings(action="ignore"):  # of links: the search for results tells them
            remove_leftovers(find_files(folder, ".*.tmp"))


def prepare_table(results_path: Path) -> None:
    """Refuse a --results_path that no table can be written to, and remove what killed processes left beside it."""
    if results_path.suffix != ".csv" or (results_path.exists() and not results_path.is_file()):
        raise InputError(f"--results_path must name a .csv file, not {results_path}")
    if results_path.exists() and not (results_path.stat().st_mode & 0o222 and os.access(results_path, os.W_OK)):
        raise InputError(f"--results_path: {results_path} is read-only; make it writable, or name another file")
    place = results_path.resolve()  # a link is written through
    check_writable(place.parent, "--results_path")
    remove_leftovers(place.parent.glob(f".{place.name}.*"))


# --- which are asked for, and which lack a result ---------------------------------------------------------------------


def select(roots: Sequence[str], filters: Filters, way_out: str) -> list[FoundCheckpoint]:
    """Find the checkpoints below `roots` that are asked for, once for each task that they were trained on.

    way_out: the end of the message if there is no checkpoint at all.
    """

    def wanted(item: FoundCheckpoint) -> bool:
        return (
            filters.fits(item.key)
            and (filters.update is None or filters.update in (item.key.update, update_of(item)))
            and not (filters.final_only and item.key.update is not None)
        )

    found = [item for checkpoint in find_checkpoints(roots) for item in by_task(checkpoint)]
    selected = [item for item in found if wanted(item)]
    if not selected:
        named = [item.key.label for item in found]
        listed = ", ".join(named[:_NUM_LISTED]) + (", ..." if len(named) > _NUM_LISTED else "")
        no_fit = f"none of the {len(found)} checkpoints fits {filters.as_words()}; there are {listed}"
        why = no_fit if found else f"there is none; {way_out}"
        raise InputError(f"no checkpoint to evaluate under {', '.join(roots)}: {why}")
    return selected


def is_evaluated(found: FoundCheckpoint, settings: Settings) -> bool:
    """Whether a result (with its routing cache, unless skipped) is there and was made from this very file."""
    try:
        row = load_result(result_path(settings.cache_dir, found.key))
        is_of_file = row.get("checkpoint_sha256") == file_digest(found.path)
    except (InputError, OSError):
        return False
    has_cache = row.get("has_routing_cache") and cache_path(settings.cache_dir, found.key).exists()
    return is_of_file and bool(settings.skip_routing or has_cache)


# --- one checkpoint ---------------------------------------------------------------------------------------------------


class Opened(NamedTuple):
    """A checkpoint, and what its evaluation in the worlds of a task needs."""

    checkpoint: dict
    encoder: "MissionEncoder"
    bot_paths: "BotPaths"
    device: "torch.device"
    about: dict  # what every result says of its checkpoint and its worlds


def open_checkpoint(found: FoundCheckpoint, settings: Settings | InterventionSettings) -> Opened:
    """Open a checkpoint to evaluate it."""
    # imported here, so that a process that finds nothing missing does not wait for torch
    from mop.envs.babyai import MINIGRID_VERSION
    from mop.envs.bot_paths import BotPaths
    from mop.evaluation.evaluate import encoder_for, load_for_evaluation
    from mop.training.devices import choose_device

    key, checkpoint = found.key, load_for_evaluation(found.path)
    check_trained_on(checkpoint["config"], key, found.path)
    about = {
        "checkpoint_path": Path(found.path).as_posix(),
        "num_episodes": settings.num_episodes,
        "eval_seed": settings.eval_seed,
        "task_id": key.task_id,
        "trained_on": key.trained_on,
        "trial": key.trial,
        "seed": key.seed,
        "update": checkpoint["update"],
        "minigrid_version": MINIGRID_VERSION,
    }
    bot_paths = BotPaths(key.task_id, checkpoint["config"]["max_steps"], settings.cache_dir)
    encoder = encoder_for(checkpoint, settings.lang_encoder)
    return Opened(checkpoint, encoder, bot_paths, choose_device(settings.device), about)


def evaluate_found(found: FoundCheckpoint, settings: Settings, progress=None) -> tuple[dict, "Evaluation"]:
    """Evaluate one checkpoint and write nothing: the header of its routing cache, and the evaluation.

    progress: called with the number of episodes just finished.
    """
    from mop.evaluation.evaluate import evaluate

    checkpoint, encoder, bot_paths, device, about = open_checkpoint(found, settings)
    evaluation = evaluate(
        checkpoint, encoder, bot_paths, settings.num_episodes, settings.eval_seed, settings.num_envs,
        not settings.skip_routing, device, progress, temperature=settings.temperature,
    )  # fmt: skip
    config = checkpoint["config"]
    about |= {"temperature": settings.temperature} if settings.temperature else {}  # without it: greedy
    header = about | {
        "evaluated_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "is_final": found.key.update is None,
        "policy": config["policy"],
        "metrics": evaluation.metrics,
        "expert_hidden_sizes": evaluation.expert_hidden_sizes,
        "bot_failures": evaluation.bot_failures,
        "config": {name: value for name, value in config.items() if value is not None},
    }
    return header, evaluation


def evaluate_checkpoint(found: FoundCheckpoint, settings: Settings, progress=None) -> dict:
    """Evaluate one checkpoint and write its result and cache; returns the result row.

    The old ones go when the new ones are whole on the disk, and a result never lies beside a cache that it was not
    made with: see `write_together`. Raises as `evaluate_found`; OSError if the disk refuses, then the old ones stay.
    """
    key, digest = found.key, file_digest(found.path)
    header, evaluation = evaluate_found(found, settings, progress)
    config = header["config"]
    row = {name: header[name] for name in header if name not in ("metrics", "config", "bot_failures")}
    row |= evaluation.metrics | {name: config.get(name) for name in CONFIG_COLUMNS}
    row |= {"expert_hidden_sizes": evaluation.expert_hidden_sizes, "checkpoint_sha256": digest}
    row["has_routing_cache"] = evaluation.steps is not None
    files = []
    if evaluation.steps is not None:
        _announce_size(len(evaluation.steps.episode), found)
        files += cache_files(settings.cache_dir, key, RoutingData(header, evaluation.episodes, evaluation.steps))
    write_together([*files, result_file(settings.cache_dir, key, row)])  # last: a result says that the rest is there
    return row


def _announce_size(num_steps: int, found: FoundCheckpoint) -> None:
    """Say how large a routing cache becomes, where it is so large that nobody expects it."""
    if (megabytes := num_steps * _BYTES_PER_STEP / 1e6) > _EXPECTED_MB:
        size = f"{num_steps:,} steps are about {megabytes:,.0f} MB of routing_data.json"
        place = "they are in routing_data.npz alone" if num_steps > MAX_JSON_STEPS else "--skip_routing leaves it out"
        warnings.warn(f"{found.key.label}: {size}; {place}", stacklevel=2)


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
        with folder_lock(found.key.artefacts(settings.cache_dir)) as is_ours:
            if not is_ours:
                return Outcome(found, "elsewhere")
            if force or not is_evaluated(found, settings):
                evaluate_checkpoint(found, settings, progress)
        return Outcome(found, "done")
    except (InputError, OSError) as error:
        return Outcome(found, "failed", str(error))
    except Exception:  # one checkpoint's bug must not cost the others their results
        return Outcome(found, "failed", traceback.format_exc())


def evaluate_all(
    missing: list[FoundCheckpoint], settings: Settings, force: bool, jobs: int, outcomes: list[Outcome]
) -> None:
    """Evaluate the checkpoints, here or in `jobs` processes, with a progress bar; outcomes: grows as they come."""
    one = partial(attempt, settings=settings, force=force)
    with tqdm(total=len(missing), desc="checkpoints", unit="checkpoint", dynamic_ncols=True) as bar:
        if jobs == 1:
            for found in missing:
                with tqdm(total=settings.num_episodes, desc=found.key.label, leave=False, dynamic_ncols=True) as inner:
                    outcomes.append(one(found, progress=inner.update))
                bar.update()
            return
        with JobPool(jobs) as pool:
            for number, outcome in pool.run(one, missing):
                if isinstance(outcome, Died):
                    outcome = Outcome(missing[number], "failed", "its process died (out of memory?)")
                outcomes.append(outcome)
                bar.update()


# --- what is shown ----------------------------------------------------------------------------------------------------


def format_table(table: "pd.DataFrame") -> str:
    """The results table for a terminal."""
    if table.empty:
        return "no results yet"
    import pandas as pd

    names = ("success_rate", "success_low", "success_high", "path_ratio", "mean_lpc")
    # rows of other programs may hold anything
    table = table.assign(**{name: pd.to_numeric(table[name], errors="coerce").astype(float) for name in names})
    bounds = zip(table["success_low"], table["success_high"], strict=True)
    shown = pd.DataFrame(
        {
            "task": table["task_id"],
            **({"trained on": table["trained_on"].fillna("-")} if table["trained_on"].notna().any() else {}),
            "trial": table["trial"],
            "seed": table["seed"].astype(object).where(table["seed"].notna(), "-"),
            "update": table["update"],
            "policy": table["policy"],
            "success": [f"{rate:.1%}" for rate in table["success_rate"]],
            "95 % interval": [f"{low:.1%} to {high:.1%}" for low, high in bounds],
            "path ratio": [f"{ratio:.3f}" for ratio in table["path_ratio"]],
            "mean LPC": [f"{lpc:.1f}" for lpc in table["mean_lpc"]],
            "episodes": table["num_episodes"],
        }
    )
    return shown.to_string(index=False)


def note_other_worlds(table: "pd.DataFrame", settings: Settings) -> None:
    """Print how many rows were made in other worlds, or with other actions, than those that are asked for now."""
    asked = {name: getattr(settings, name) for name in ("num_episodes", "eval_seed", "temperature")}
    made_with = table.reindex(columns=[*asked]).fillna({"temperature": 0.0})
    if num_others := int((made_with != asked).any(axis=1).sum()):
        flags = "--num_episodes, --eval_seed or --temperature"
        print(f"{num_others} of these were made with other {flags}; --force makes them anew")


def print_heatmaps(evaluated: Sequence[FoundCheckpoint], cache_dir: str, plots_dir: str) -> None:
    """Draw each heatmap that is not drawn yet and print where it is, or why it cannot be drawn."""
    for found in evaluated:
        try:
            print(f"heatmap: {write_heatmap(found, cache_dir, plots_dir)}")
        except (InputError, OSError) as error:
            print(f"no heatmap of {found.key.label}: {error}")


def write_heatmap(found: FoundCheckpoint, cache_dir: str, plots_dir: str) -> Path:
    """Draw the routing of every layer next to the first world, unless the picture is newer than the cache."""
    path, cached = found.key.artefacts(plots_dir) / "routing_heatmap.png", cache_path(cache_dir, found.key)
    if path.exists() and cached.exists() and path.stat().st_mtime_ns > cached.stat().st_mtime_ns:
        return path
    from mop.envs.render import replay_world
    from mop.plotting.maps import plot_overall_routing

    cache = load_cache(cached)
    for field in ("position", "layer_routing", "seed", "mission"):
        cache.require(field)
    first = cache.episodes[0]
    picture = replay_world(found.key.task_id, first["seed"], []).get_frame()
    return write_figure(path, plot_overall_routing(cache, picture, first["mission"]))
