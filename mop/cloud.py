"""What modal_app.py runs in the cloud, as command lines of this repository, and what it brings home; without Modal.

In a container the volumes lie where the scripts expect their folders, so a path means the same there and here, and a
job is a list of words behind `python`. The scripts go on where they were stopped: a job that is tried again, and a
command that is given again, do what is missing.
"""

import json
import os
import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Protocol

from mop.artifacts.checkpoints import FoundCheckpoint, quick_config
from mop.artifacts.results import load_table_rows, merge_results
from mop.artifacts.run_paths import CACHE_DIR, RESULTS_TABLE, RunKey
from mop.common.cli import as_flags, required, setting
from mop.common.errors import InputError
from mop.common.files import file_digest, write_atomic
from mop.common.reading import reading
from mop.common.task_mix import is_task_id
from mop.common.train_config import parse_config
from mop.common.values import MAX_EPISODES
from mop.evaluation.batch import select
from mop.evaluation.settings import Filters

CHECKPOINT_DIR = "modal_checkpoints"
RESULTS_DIR = "evaluation"  # of a container; its content is brought to the current folder
LEFT_OUT = ("training_state.pt", "snapshot_*.pt", ".*")  # of what is brought home
OWN_FLAGS = {"task_id", "trial", "seed", "checkpoint_dir", "resume", "overwrite", "name"}  # of every cloud training
SCRIPTS = ("train_mop.py", "train.py")
_TINY = "--num_updates 1 --num_envs 2 --unroll_len 4 --lang_encoder vocab --device cpu --replay 1 --overwrite"
WARM_UP = (  # command lines which compile every kernel
    ["train_mop.py", *_TINY.split()],
    ["train_mop.py", *f"{_TINY} --trial 1 --residual --obs_encoding raw --input_encoder linear".split()],
    ["train.py", *_TINY.split(), "--trial", "2"],
    ["batch_eval.py", "--num_episodes", "1", "--device", "cpu", "--trial", "0"],
)

Job = list[str]  # the words behind `python`


# --- settings of the commands -----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class CloudSettings:
    """The flags of every command; a word may be spelt with - in place of _."""

    gpu: str = setting("none", "of each container: none, T4, L4, A10, ...")
    secrets: str = setting("", 'names of secrets of your account, such as "wandb,hub"')
    dry_run: bool = setting(False, "only print the jobs: needs no account")


@dataclass(frozen=True, kw_only=True)
class TrainSettings(CloudSettings):
    """The flags of `main`."""

    task_ids: str = required("such as A,B; with --tasks in --extra_args, the name of the list")
    trials: str = setting("0", "such as 0,1,2")
    seeds: str = setting("", "such as 0,1 (default: the trial's number)")
    script: str = setting("train_mop.py", "what trains", choices=SCRIPTS)
    extra_args: str = setting("", 'flags of the script, such as "--lpc_alpha 1e-5 --num_updates 500"')
    gpu: str = setting("T4", "of each container: none, T4, L4, A10, ...")


@dataclass(frozen=True, kw_only=True)
class EvalSettings(CloudSettings, Filters):
    """The flags of `eval_parallel` and `eval_main`."""

    num_episodes: int = setting(1000, "one per world", low=1, high=MAX_EPISODES)
    force: bool = setting(False, "evaluate again what has a result")
    skip_routing: bool = setting(False, "no routing caches")
    interventions: bool = setting(False, "the battery of intervene.py in place of evaluations")


def flags_of(words: Sequence[str]) -> list[str]:
    """The words with _ in flags, as scripts spell them; a value of --extra_args that looks like a flag is joined."""
    spelt: list[str] = []
    for word in words:
        if spelt and spelt[-1] == "--extra_args":
            spelt[-1] += f"={word}"
            continue
        name, equals, value = word.partition("=")
        is_flag = re.fullmatch(r"--\w[\w-]*", name) is not None
        spelt.append(f"--{name[2:].replace('-', '_')}{equals}{value}" if is_flag else word)
    return spelt


# --- jobs -------------------------------------------------------------------------------------------------------------


def training_jobs(settings: TrainSettings) -> list[Job]:
    """One job for each task, trial and seed; the flags of the script are checked here, before anything is started."""
    extra = shlex.split(settings.extra_args)
    config, given = parse_config(settings.script, extra)
    tasks = config["tasks"]  # of one policy; None: each task of --task-ids has a policy
    names = split(settings.task_ids)
    fixed = OWN_FLAGS if tasks is None else OWN_FLAGS - {"task_id", "name"}  # those go away with --tasks
    if taken := sorted(given & fixed):
        raise InputError(f"{taken[0]} cannot be set in --extra-args: --task-ids, --trials and --seeds name the runs")
    _check_tasks(settings, names, tasks)
    if tasks is not None:
        extra = [*without(extra, "--tasks", "--task_id", "--name"), "--tasks", json.dumps(tasks)]
    which = "--task_id" if tasks is None else "--name"
    numbers = {flag: split(getattr(settings, flag)) for flag in ("trials", "seeds")}
    for flag, values in numbers.items():
        if not all(value.isdigit() for value in values):
            raise InputError(f"--{flag} must be numbers such as 0,1,2, not {getattr(settings, flag)!r}")
    return [
        [settings.script, which, name, "--trial", trial, *seed, "--checkpoint_dir", CHECKPOINT_DIR, "--resume", *extra]
        for name in names
        for trial in numbers["trials"]
        for seed in ([["--seed", seed] for seed in numbers["seeds"]] or [[]])
    ]


def _check_tasks(settings: TrainSettings, names: Sequence[str], tasks: Sequence[Sequence] | None) -> None:
    """Refuse unknown tasks, and for `tasks` of one policy anything but the name of their list in --task-ids."""
    from mop.envs.babyai import check_task_id

    if tasks is not None and (len(names) != 1 or is_task_id(names[0])):
        raise InputError(f"--task-ids: with several tasks it is the name of their list, not {settings.task_ids}")
    for task_id in names if tasks is None else [task_id for task_id, _ in tasks]:
        check_task_id(task_id)


def evaluation_jobs(settings: EvalSettings) -> list[Job]:
    """One job for each run of CHECKPOINT_DIR with a checkpoint that lacks a row in RESULTS_TABLE."""
    found = select([CHECKPOINT_DIR], settings, "download some: python modal_app.py download")
    rows = _rows(RESULTS_TABLE)
    missing = [item for item in found if settings.force or not _has_row(item, rows, settings.skip_routing)]
    print(f"{len(found)} checkpoints, {len(missing)} to evaluate")
    more = ["--force"] if settings.force else []
    return _distinct([*_evaluation(settings), *_only(item), *more] for item in missing)


def merging_job(settings: EvalSettings) -> Job:
    """The table of all results on the volume: an evaluation to which nothing is left."""
    given = {"task": settings.task, "trial": settings.trial, "seed": settings.seed, "update": settings.update}
    filters = as_flags(given | {"final_only": settings.final_only or None})
    return [*_evaluation(settings), *filters, "--results_path", f"{RESULTS_DIR}/{RESULTS_TABLE}"]


def intervention_jobs(settings: EvalSettings) -> list[Job]:
    """One job for each mixture of CHECKPOINT_DIR; what the volume holds of its battery is not made again."""
    found = select([CHECKPOINT_DIR], settings, "download some: python modal_app.py download")
    paths = dict.fromkeys(item.path for item in found if quick_config(item.path).get("policy") != "gru")
    words = ["--num_episodes", str(settings.num_episodes), "--cache_dir", f"{RESULTS_DIR}/{CACHE_DIR}"]
    words += ["--force"] if settings.force else []
    return [["intervene.py", "--checkpoint", path.as_posix(), *words] for path in paths]


def _evaluation(settings: EvalSettings) -> Job:
    job = ["batch_eval.py", "--checkpoint_dir", CHECKPOINT_DIR, "--cache_dir", f"{RESULTS_DIR}/{CACHE_DIR}"]
    return [*job, "--num_episodes", str(settings.num_episodes), *(["--skip_routing"] if settings.skip_routing else [])]


def _only(found: FoundCheckpoint) -> list[str]:
    """The filters of batch_eval.py which fit one checkpoint, in all tasks that it was trained on."""
    key = found.key
    seed = key.trial if key.seed is None else key.seed
    given = {"task": key.trained_on or key.task_id, "trial": key.trial, "seed": seed, "update": key.update}
    return as_flags(given | {"final_only": key.update is None or None})


def _rows(path: str) -> dict[RunKey, dict[str, Any]]:
    """The rows of a results table by the keys of their checkpoints; none where there is no table."""
    if not Path(path).exists():
        return {}
    rows = {}
    for row in load_table_rows(path, ("checkpoint_path",)):
        with reading(path, "results table", "move it away"):
            key = RunKey.from_checkpoint(row["checkpoint_path"])
            rows[key if row.get("trained_on") is None else key.on(row["task_id"])] = row
    return rows


def _has_row(found: FoundCheckpoint, rows: dict[RunKey, dict[str, Any]], skip_routing: bool) -> bool:
    """Whether a row was made of this very file, with its routing cache unless that is skipped."""
    row = rows.get(found.key, {})
    has_cache = skip_routing or row.get("has_routing_cache") is not False
    return row.get("success_rate") is not None and has_cache and row.get("checkpoint_sha256") == file_digest(found.path)


def _distinct(jobs: Iterable[Job]) -> list[Job]:
    return [list(words) for words in dict.fromkeys(map(tuple, jobs))]


def split(names: str) -> list[str]:
    """The distinct entries of "a,b"."""
    return list(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))


def without(words: Sequence[str], *flags: str) -> list[str]:
    """The words without some flags and their values."""
    kept, is_value = [], False
    for word in words:
        if not is_value and word.partition("=")[0] not in flags:
            kept.append(word)
        is_value = word in flags
    return kept


# --- bringing home ----------------------------------------------------------------------------------------------------


class Volume(Protocol):
    """The part of a `modal.Volume` that is used; an entry has path, type.name ("FILE") and mtime in seconds."""

    def listdir(self, path: str, *, recursive: bool) -> Iterable[Any]: ...

    def read_file_into_fileobj(self, path: str, fileobj: BinaryIO) -> int: ...


def download(volume: Volume, folder: str | Path, tell: Callable[[str], object] = print, skip: str = "") -> int:
    """Copy what is missing below `folder` or older there; returns how many files were copied.

    Nothing is removed, and no newer file is replaced. result.json comes last of its folder: it says that the others
    are there. skip: a file of the volume which stays there.
    """
    entries = [entry for entry in volume.listdir("/", recursive=True) if entry.type.name == "FILE"]
    num_copied = 0
    for entry in sorted(entries, key=lambda entry: (PurePosixPath(entry.path).name == "result.json", entry.path)):
        place = PurePosixPath(entry.path.lstrip("/"))
        if ".." in place.parts:
            raise InputError(f"the volume has a file {entry.path!r}, which lies outside of it; remove it there")
        if str(place) == skip or any(fnmatch(place.name, pattern) for pattern in LEFT_OUT):
            continue
        target = Path(folder, place)
        if target.exists() and target.stat().st_mtime >= entry.mtime:
            continue
        write_atomic(target, partial(volume.read_file_into_fileobj, entry.path))
        os.utime(target, (entry.mtime, entry.mtime))
        tell(str(target))
        num_copied += 1
    return num_copied


def merge() -> None:
    """Write the table of all results here."""
    if any(Path(CACHE_DIR).rglob("result.json")):
        print(f"table: {RESULTS_TABLE} (rows: {len(merge_results(CACHE_DIR, RESULTS_TABLE))})")
