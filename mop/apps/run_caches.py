"""The routing data of a run, cached or of a fresh evaluation, and what a page says of them."""

import functools
from collections.abc import Callable

from mop.apps.run_selection import Run
from mop.artifacts.checkpoints import FoundCheckpoint
from mop.artifacts.routing_cache import RoutingCache, load_cache
from mop.common.errors import InputError
from mop.common.files import file_digest


def load_routing(run: Run) -> RoutingCache:
    """The cached routing data of a run; the header of an older cache is completed from the run's key."""
    if not run.has_cache:
        raise InputError(f"{no_cache(run)}; `--fresh` does without")
    try:
        stat = run.cache_path.stat()
    except OSError as error:
        raise InputError(f"{run.cache_path}: {error.strerror}; `{run.remake}` makes a new one") from error
    return _load(run, stat.st_mtime_ns, stat.st_ino)


def evaluate_now(run: Run, num_episodes: int, num_envs: int, progress: Callable[[int], None]) -> RoutingCache:
    """The routing data of a fresh evaluation, which are not written anywhere.

    progress: called with the number of episodes just finished.
    """
    if run.checkpoint is None:
        raise InputError(f"the checkpoint of {run.key.label} is not on this machine: only its cached data can be shown")
    from mop.evaluation.batch import Settings, evaluate_found

    settings = Settings(num_episodes=num_episodes, num_envs=num_envs, cache_dir=run.cache_dir)
    header, evaluation = evaluate_found(FoundCheckpoint(run.key, run.checkpoint), settings, progress)
    return RoutingCache(header, evaluation.episodes, evaluation.steps, run.remake)


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


def describe_metrics(data: RoutingCache) -> list[tuple[str, str, str]]:
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
def _load(run: Run, *version: int) -> RoutingCache:
    cache = load_cache(run.cache_path, run.remake)
    if not len(cache.steps):
        raise InputError(f"{run.cache_path}: it holds no steps; `{run.remake}` makes a new one")
    key = run.key
    cache.header = {"task_id": key.task_id, "trial": key.trial, "seed": key.seed, "update": key.update, **cache.header}
    cache.header["trained_on"] = key.trained_on
    cache.header["is_final"] = key.update is None
    return cache
