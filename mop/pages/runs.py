"""The runs that can be looked at, and their routing data."""

import functools
import shlex
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mop.base.errors import InputError
from mop.base.files import file_digest
from mop.store.checkpoints import FoundCheckpoint, find_checkpoints
from mop.store.results import load_result
from mop.store.routing_cache import RoutingCache, load_cache
from mop.store.run_keys import CACHE_DIR, DEFAULT_ROOTS, RunKey, cache_path, find_caches, result_path


@dataclass(frozen=True)
class Run:
    """One run that can be looked at: it has a routing cache, a checkpoint on this machine, or both."""

    key: RunKey
    cache_dir: str
    has_cache: bool
    checkpoint: Path | None

    @property
    def cache_path(self) -> Path:
        return cache_path(self.cache_dir, self.key)

    @property
    def remake(self) -> str:
        """The command that makes its cache."""
        key, words = self.key, ["python", "batch_eval.py", "--force"]
        if self.checkpoint is not None:
            root = self.checkpoint.parents[len(key.checkpoint("").parts) - 1].as_posix()
            words += [] if root in DEFAULT_ROOTS else ["--checkpoint_dir", root]
        words += ["--task", key.task_id, "--trial", str(key.trial)]
        words += [] if key.seed is None else ["--seed", str(key.seed)]
        words += ["--final_only"] if key.update is None else ["--update", str(key.update)]
        words += [] if self.cache_dir == CACHE_DIR else ["--cache_dir", self.cache_dir]
        return shlex.join(words)


def find_runs(checkpoint_dirs: Sequence[str | Path], cache_dir: str) -> dict[str, Run]:
    """Every run with a routing cache or a checkpoint, by a label that tells which, those with a cache first.

    Raises InputError if there is none.
    """
    found = _list_runs(checkpoint_dirs, cache_dir)
    if not found:
        places = " and ".join(f"{folder}/" for folder in checkpoint_dirs)
        raise InputError(
            f"there is no routing cache under {cache_dir}/ and no checkpoint under {places}: "
            "train a policy with `python train_mop.py`, then evaluate it with `python batch_eval.py`"
        )
    return {_label(run): run for run in found}


def find_cached_runs(checkpoint_dirs: Sequence[str | Path], cache_dir: str) -> dict[str, Run]:
    """Every run with a routing cache, by its name. Raises InputError if there is none."""
    cached = {run.key.label: run for run in _list_runs(checkpoint_dirs, cache_dir) if run.has_cache}
    if not cached:
        raise InputError(f"there is no routing cache under {cache_dir}/: `python batch_eval.py` makes some")
    return cached


def _list_runs(checkpoint_dirs: Sequence[str | Path], cache_dir: str) -> list[Run]:
    cached = find_caches(cache_dir)
    checkpoints = {found.key: found.path for found in find_checkpoints(checkpoint_dirs, is_quick=True)}
    keys = [*cached, *(key for key in checkpoints if key not in cached)]
    return [Run(key, cache_dir, key in cached, checkpoints.get(key)) for key in keys]


def _label(run: Run) -> str:
    label = run.key.label
    if run.key.update is None:
        update = _result(run).get("update")
        label += " final" if update is None else f" final (update {update})"
    if not run.has_cache:
        label += " · no cache"
    return label if run.checkpoint else f"{label} · no checkpoint"


def _result(run: Run) -> dict:
    try:
        return load_result(result_path(run.cache_dir, run.key))
    except InputError:  # older caches have none beside them
        return {}


def choose_run(found: Mapping[str, Run], args: Namespace) -> str:
    """The label of the first run that --task, --trial, --seed and --update ask for. Raises InputError if none fits."""
    asked = {"task_id": args.task, "trial": args.trial, "seed": args.seed, "update": args.update}
    asked = {name: value for name, value in asked.items() if value is not None}
    for label, run in found.items():
        if all(getattr(run.key, name) == value for name, value in asked.items()):
            return label
    raise InputError(f"none of the {len(found)} runs has {asked}; they are: {', '.join(found)}")


# --- routing data ---------------------------------------------------------------------------------------------------


def no_cache(run: Run) -> str:
    """What to say of a run that has no cache."""
    return f"{run.cache_path}: there is no routing cache; `{run.remake}` makes it"


def other_checkpoint(run: Run) -> str | None:
    """What to say of a run whose cache was made from another file than its checkpoint here; None if none is known."""
    digest = _result(run).get("checkpoint_sha256")
    if run.checkpoint is None or digest in (None, file_digest(run.checkpoint)):
        return None
    return f"{run.cache_path} was made from another checkpoint than {run.checkpoint}; `{run.remake}` makes a new one"


def load_routing(run: Run) -> RoutingCache:
    """The cached routing data of a run; the header of an older cache is completed from the run's key.

    Raises InputError, naming the file and the command that makes it, if it is missing, broken or without steps.
    """
    if not run.has_cache:
        raise InputError(f"{no_cache(run)}; `--fresh` does without")
    try:
        stat = run.cache_path.stat()
    except OSError as error:
        raise InputError(f"{run.cache_path}: {error.strerror}; `{run.remake}` makes a new one") from error
    return _load(run, stat.st_mtime_ns, stat.st_ino)


@functools.lru_cache(maxsize=4)  # visitors of one server share them
def _load(run: Run, *version: int) -> RoutingCache:
    cache = load_cache(run.cache_path, run.remake)
    if not len(cache.steps):
        raise InputError(f"{run.cache_path}: it holds no steps; `{run.remake}` makes a new one")
    key = run.key
    cache.header = {"task_id": key.task_id, "trial": key.trial, "seed": key.seed, "update": key.update, **cache.header}
    cache.header["is_final"] = key.update is None
    return cache


def evaluate_now(run: Run, num_episodes: int, num_envs: int, progress: Callable[[int], None]) -> RoutingCache:
    """Routing data of a fresh evaluation, which is not written.

    progress: called with the number of episodes just finished. Raises InputError if the checkpoint cannot be used.
    """
    if run.checkpoint is None:
        raise InputError(f"the checkpoint of {run.key.label} is not on this machine: only its cached data can be shown")
    from mop.jobs.batch import Settings, evaluate_found

    settings = Settings(num_episodes=num_episodes, num_envs=num_envs, cache_dir=run.cache_dir)
    header, evaluation = evaluate_found(FoundCheckpoint(run.key, run.checkpoint), settings, progress)
    return RoutingCache(header, evaluation.episodes, evaluation.steps, run.remake)


def describe_metrics(data: RoutingCache) -> list[tuple[str, str, str]]:
    """What was measured, for a row of figures: name, value and a remark of each; unknown values are left out."""
    metrics = {name: value for name, value in (data.header.get("metrics") or {}).items() if value is not None}
    interval, failures = "", metrics.get("bot_plan_failures", 0)
    if {"success_low", "success_high"} <= metrics.keys():
        interval = f"95 % interval {metrics['success_low']:.1%} to {metrics['success_high']:.1%}"
    shown = [
        ("success_rate", "success", "{:.1%}", interval),
        ("path_ratio", "path ratio", "{:.2f}", "steps / the bot's steps"),
        ("mean_lpc", "mean LPC", "{:,.0f}", "layered parameter cost of a step"),
    ]
    rows = [(title, form.format(metrics[name]), caption) for name, title, form, caption in shown if name in metrics]
    num_episodes = data.header.get("num_episodes", len(data.episodes))
    remark = f"without {failures:,} worlds that the bot cannot solve" if failures else "one in each world"
    rows.append(("episodes", f"{num_episodes:,}", remark))
    rows.append(("steps", f"{len(data.steps):,}", str(data.header.get("evaluated_at", ""))[:16].replace("T", " ")))
    return rows
