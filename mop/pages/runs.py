"""The runs that a page can show: those with a routing cache or a checkpoint on this machine."""

import shlex
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mop.base.errors import InputError
from mop.store.checkpoints import find_checkpoints
from mop.store.results import load_result
from mop.store.run_keys import CACHE_DIR, DEFAULT_ROOTS, RunKey, cache_path, find_caches, result_path


@dataclass(frozen=True)
class Run:
    """A run at one of its updates, as it can be shown: it has a routing cache, a checkpoint here, or both."""

    key: RunKey
    cache_dir: str
    has_cache: bool
    checkpoint: Path | None

    @property
    def cache_path(self) -> Path:
        """Where its routing cache is, or would be."""
        return cache_path(self.cache_dir, self.key)

    @property
    def result(self) -> dict:
        """The result row beside its routing cache; empty if there is none, as beside older caches."""
        try:
            return load_result(result_path(self.cache_dir, self.key))
        except InputError:
            return {}

    @property
    def remake(self) -> str:
        """The command that makes its routing cache."""
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
    """Every run with a routing cache or a checkpoint, by a label that says what it has; those with a cache first.

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


def choose_run(found: Mapping[str, Run], args: Namespace) -> str:
    """The label of the first run that --task, --trial, --seed and --update ask for. Raises InputError if none fits."""
    asked = {"task_id": args.task, "trial": args.trial, "seed": args.seed, "update": args.update}
    asked = {name: value for name, value in asked.items() if value is not None}
    for label, run in found.items():
        if all(getattr(run.key, name) == value for name, value in asked.items()):
            return label
    raise InputError(f"none of the {len(found)} runs has {asked}; they are: {', '.join(found)}")


def _list_runs(checkpoint_dirs: Sequence[str | Path], cache_dir: str) -> list[Run]:
    cached = find_caches(cache_dir)
    checkpoints = {found.key: found.path for found in find_checkpoints(checkpoint_dirs, is_quick=True)}
    keys = [*cached, *(key for key in checkpoints if key not in cached)]
    return [Run(key, cache_dir, key in cached, checkpoints.get(key)) for key in keys]


def _label(run: Run) -> str:
    label = run.key.label
    if run.key.update is None:
        update = run.result.get("update")
        label += " final" if update is None else f" final (update {update})"
    if not run.has_cache:
        label += " · no cache"
    return label if run.checkpoint else f"{label} · no checkpoint"
