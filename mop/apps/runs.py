"""The runs that a page can show, with a routing cache or a checkpoint on this machine, and their routing data."""

import functools
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mop.apps.flags import RunSettings
from mop.artifacts.checkpoints import FoundCheckpoint, by_task, find_checkpoints, quick_config
from mop.artifacts.results import load_result
from mop.artifacts.routing_cache import RoutingData, load_cache
from mop.artifacts.run_names import run_name
from mop.artifacts.run_paths import CACHE_DIR, DEFAULT_ROOTS, RunKey, cache_path, find_caches, result_path
from mop.common.cli import as_flags
from mop.common.errors import InputError
from mop.common.files import file_digest
from mop.evaluation.settings import Filters

_GOOD = 0.9  # success of a run that is worth seeing first
FINAL = "final"  # the word for the last checkpoint of a run, where the others have the number of their update


@dataclass(frozen=True)
class Run:
    """A run at one of its updates, as it can be shown: it has a routing cache, a checkpoint here, or both."""

    key: RunKey
    cache_dir: str
    checkpoint: Path | None = None

    @property
    def cache_path(self) -> Path:
        """Where its routing cache is, or would be."""
        return cache_path(self.cache_dir, self.key)

    @property
    def has_cache(self) -> bool:
        """Whether its routing cache is there now."""
        return self.cache_path.is_file()

    @property
    def result(self) -> dict:
        """The result row beside its routing cache; empty if there is none, as beside older caches."""
        try:
            return load_result(result_path(self.cache_dir, self.key))
        except InputError:
            return {}

    @property
    def about(self) -> dict:
        """What is known of it without opening its cache: its result row, else what its checkpoint says; and its key."""
        known = self.result
        if not known and self.checkpoint is not None:
            known = _config_of(self.checkpoint, *file_version(self.checkpoint))
        key = self.key
        numbers = {"task_id": key.task_id, "trial": key.trial, "seed": key.seed, "is_final": key.update is None}
        numbers |= {"trained_on": key.trained_on}
        return known | numbers | ({} if key.update is None else {"update": key.update})

    @property
    def folder(self) -> str:
        """Its run's folder below a root and, where its policy has several tasks, the one in whose worlds it is."""
        return replace(self.key, update=None).artefacts("").as_posix()

    @property
    def name(self) -> str:
        """What it is called: policy, penalty, trial, seed, and its update if it is a periodic checkpoint."""
        return run_name(self.about)

    @property
    def word(self) -> str:
        """Its checkpoint within the run, in a URL: the update, or FINAL."""
        return FINAL if self.key.update is None else str(self.key.update)

    @property
    def flags(self) -> list[str]:
        """The flags of this program's scripts that choose it."""
        key = self.key
        return as_flags({"task": key.task, "trial": key.trial, "seed": key.seed, "update": key.update})

    @property
    def places(self) -> list[str]:
        """The flags that say where its files are, if that is not where the scripts look by themselves."""
        words = []
        if self.checkpoint is not None:
            root = self.checkpoint.parents[len(self.key.checkpoint("").parts) - 1].as_posix()
            words += [] if root in DEFAULT_ROOTS else ["--checkpoint_dir", root]
        return words + ([] if self.cache_dir == CACHE_DIR else ["--cache_dir", self.cache_dir])

    @property
    def remake(self) -> str:
        """The command that makes its routing cache."""
        last = ["--final_only"] if self.key.update is None else []
        return shlex.join(["python", "batch_eval.py", "--force", *self.places, *self.flags, *last])


Runs = Mapping[str, Sequence[Run]]  # `Run.folder` -> its checkpoints, the final one last


def find_runs(checkpoint_dirs: Sequence[str | Path], cache_dir: str) -> dict[str, list[Run]]:
    """Every run with a routing cache or a checkpoint, by `Run.folder`; those with a cache first.

    A policy of several tasks is there once for each. The checkpoints of a run are in the order of their updates, the
    final one last.
    """
    found: dict[str, list[Run]] = {}
    for run in _list_runs(checkpoint_dirs, cache_dir):
        found.setdefault(run.folder, []).append(run)
    if not found:
        places = " and ".join(f"{folder}/" for folder in checkpoint_dirs)
        raise InputError(
            f"there is no routing cache under {cache_dir}/ and no checkpoint under {places}: "
            "train a policy with `python train_mop.py`, then evaluate it with `python batch_eval.py`"
        )
    return {folder: sorted(runs, key=lambda run: run.key) for folder, runs in found.items()}


def find_cached_runs(checkpoint_dirs: Sequence[str | Path], cache_dir: str) -> dict[str, Run]:
    """Every run with a routing cache, by its name."""
    cached = {run.name: run for run in _list_runs(checkpoint_dirs, cache_dir) if run.has_cache}
    if not cached:
        raise InputError(f"there is no routing cache under {cache_dir}/: `python batch_eval.py` makes some")
    return cached


def label_of(runs: Sequence[Run]) -> str:
    """What a menu says of a run with these checkpoints: its name, success, updates, and what is missing."""
    last = runs[-1]
    about = last.about
    label, update, success = run_name(about | {"is_final": True}), about.get("update"), about.get("success_rate")
    if isinstance(success, float):
        label += f" · solves {success:.1%}"
    if len(runs) > 1:
        label += f" · {len(runs)} checkpoints"
    elif update is not None:
        label += f" · update {update}"
    if not any(run.has_cache for run in runs):
        label += " · no cache"
    return label if any(run.checkpoint for run in runs) else f"{label} · no checkpoint"


def choose_run(found: Runs, args: RunSettings) -> Run:
    """The first run that --task, --trial, --seed and --update ask for; of its checkpoints, the last with a cache.

    Where they ask for nothing: the mixture with a cache and the longest episodes of those that solve 90 % of theirs,
    since most happens in these.
    """
    filters = Filters(args.task, args.trial, args.seed, args.update)
    if filters == Filters() and (telling := _most_telling(found)) is not None:
        return telling

    def is_named(runs: Sequence[Run]) -> tuple[bool, bool]:
        key = runs[0].key
        return args.task in (None, key.task), args.seed in (None, key.seed)

    # a policy of several tasks is not taken for one of this task alone, wherever its name stands in the order, nor a
    # trial of this number for one whose path names the seed
    for runs in sorted(found.values(), key=is_named, reverse=True):
        fitting = [run for run in runs if filters.fits(run.key) and args.update in (None, run.key.update)]
        if fitting:
            return last_cached(fitting)
    names = ", ".join(map(label_of, found.values()))
    raise InputError(f"none of the {len(found)} runs fits {filters.as_words()}; they are: {names}")


def _most_telling(found: Runs) -> Run | None:
    longest, chosen = 0.0, None
    for run in map(last_cached, found.values()):
        result = run.result if run.has_cache else {}
        is_good = result.get("policy", "mop") == "mop" and (result.get("success_rate") or 0) >= _GOOD
        if is_good and (result.get("mean_steps") or 0) > longest:
            longest, chosen = result["mean_steps"], run
    return chosen


def last_cached(runs: Sequence[Run]) -> Run:
    """The last of some checkpoints of a run that has a cache; the last of all if none has."""
    return next((run for run in reversed(runs) if run.has_cache), runs[-1])


def _list_runs(checkpoint_dirs: Sequence[str | Path], cache_dir: str) -> list[Run]:
    cached = find_caches(cache_dir)
    files = find_checkpoints(checkpoint_dirs)
    checkpoints = {found.key: found.path for file in files for found in by_task(file)}
    keys = [*cached, *(key for key in checkpoints if key not in cached)]
    return [Run(key, cache_dir, checkpoints.get(key)) for key in keys]


def file_version(path: Path) -> tuple[int, int]:
    """What tells a file from a later one at its place, for what is kept in memory; zeros where there is none."""
    try:
        stat = path.stat()
    except OSError:
        return 0, 0
    return stat.st_mtime_ns, stat.st_ino


@functools.lru_cache(maxsize=1024)
def _config_of(path: Path, *version: int) -> dict:
    return quick_config(path)


def load_routing(run: Run) -> RoutingData:
    """The cached routing data of a run; the header of an older cache is completed from the run's key."""
    if not run.has_cache:
        raise InputError(f"{no_cache(run)}; `--fresh` does without")
    return _load(run, *file_version(run.cache_path))


def evaluate_now(run: Run, num_episodes: int, num_envs: int, progress: Callable[[int], None]) -> RoutingData:
    """The routing data of a fresh evaluation, which are not written anywhere.

    progress: called with the number of episodes just finished.
    """
    if run.checkpoint is None:
        raise InputError(f"the checkpoint of {run.key.label} is not on this machine: only its cached data can be shown")
    from mop.evaluation.batch import Settings, evaluate_found

    settings = Settings(num_episodes=num_episodes, num_envs=num_envs, cache_dir=run.cache_dir)
    header, evaluation = evaluate_found(FoundCheckpoint(run.key, run.checkpoint), settings, progress)
    assert evaluation.steps is not None, "the settings ask for them"
    return RoutingData(header, evaluation.episodes, evaluation.steps, run.remake)


def checkpoint_name(run: Run, data: RoutingData) -> str:
    """Where the checkpoint is, or was when it was evaluated, or would be."""
    return str(run.checkpoint or data.header.get("checkpoint_path") or run.key.checkpoint("checkpoints"))


def no_cache(run: Run) -> str:
    """What to say of a run that has no cache."""
    return f"{run.cache_path}: there is no routing cache; `{run.remake}` makes it"


def other_checkpoint(run: Run) -> str | None:
    """What to say of a run whose cache was made from another file than its checkpoint here; None if it was not.

    None too where nothing is known: the checkpoint is not here, or no result tells of which file the cache is.
    """
    digest = run.result.get("checkpoint_sha256")
    if run.checkpoint is None or digest in (None, file_digest(run.checkpoint)):
        return None
    return f"{run.cache_path} was made from another checkpoint than {run.checkpoint}; `{run.remake}` makes a new one"


def describe_metrics(data: RoutingData) -> list[tuple[str, str, str]]:
    """What was measured: name, value and remark of each number to show; unknown values are left out."""
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
    when = str(data.header.get("evaluated_at", ""))[:16].replace("T", " ")
    rows.append(("steps", f"{len(data.steps):,}", f"evaluated {when}" if when else ""))
    return rows


@functools.lru_cache(maxsize=4)  # visitors of one server share them
def _load(run: Run, *version: int) -> RoutingData:
    cache = load_cache(run.cache_path, run.remake)
    if not len(cache.steps):
        raise InputError(f"{run.cache_path}: it holds no steps; `{run.remake}` makes a new one")
    key = run.key
    cache.header = {"task_id": key.task_id, "trial": key.trial, "seed": key.seed, "update": key.update, **cache.header}
    cache.header["trained_on"] = key.trained_on
    cache.header["is_final"] = key.update is None
    return cache
