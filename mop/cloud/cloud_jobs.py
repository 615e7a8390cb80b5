"""The jobs of modal_app.py, without Modal: which are to be done, what each of them does, what became of them.

Jobs are planned on this machine, from its modal_checkpoints/ and evaluation_results.csv. In a container the volume of
checkpoints is at modal_checkpoints/ too, and that of results at evaluation/, so that a path means the same checkpoint
on both sides. No file is written by two jobs.
"""

import shlex
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mop.artifacts.checkpoints import FoundCheckpoint, find_checkpoints, quick_config
from mop.artifacts.intervention_rows import load_rows, merge_rows
from mop.artifacts.results import load_result, merge_results
from mop.artifacts.run_paths import (
    CACHE_DIR,
    INTERVENTIONS_TABLE,
    RESULTS_TABLE,
    RunKey,
    interventions_path,
    result_path,
)
from mop.cloud.download import Downloaded, Volume, download
from mop.common.configuration import MAX_INTEGER, integer, parse_config
from mop.common.errors import InputError
from mop.common.files import file_digest
from mop.common.task_mix import is_task_id, name_of_list
from mop.evaluation.batch import (
    Filters,
    Settings,
    evaluate_checkpoint,
    evaluate_found,
    format_table,
    is_evaluated,
    is_up_to_date,
    note_other_worlds,
    select,
)
from mop.evaluation.intervention_batch import has_battery, make_missing
from mop.evaluation.settings import InterventionSettings

CHECKPOINTS_VOLUME, RESULTS_VOLUME, LMC_VOLUME = "rl-mop", "rl-mop-eval", "rl-mop-lmc"
AGENTS_VOLUME, RECORDINGS_VOLUME, SIMULATORS_VOLUME = "rl-mop-logs", "rl-mop-recordings", "rl-mop-simulators"
CHECKPOINT_DIR = "modal_checkpoints"
RESULTS_DIR, LMC_DIR = "evaluation", "lmc"  # of a container
AGENTS_DIR, RECORDINGS_DIR, SIMULATORS_DIR = "logs", "recordings", "simulators"  # of a container, and here
ZOO_DIR = "results/zoo"  # in the images of simulators
SCRATCH_DIR = "scratch"  # of a container: what is not worth keeping
DOWNLOAD = "python modal_app.py download"
POLICIES = {"train_mop.py": "mop", "train.py": "gru"}
OWN_FLAGS = {"task_id", "trial", "seed", "checkpoint_dir", "resume", "overwrite"}  # of every cloud training
CONTAINER_DEVICES = ("auto", "cpu", "cuda")
STATE_NAME, SNAPSHOTS, RESULT_NAME = "training_state.pt", "snapshot_*.pt", "result.json"
INTERVENTIONS_NAME = "interventions.jsonl"


@dataclass(frozen=True)
class Job:
    """One container's work: the arguments of its Modal function, and a line for the user."""

    label: str
    arguments: tuple


@dataclass(frozen=True)
class Result:
    """What became of a job: the files that it made, relative to its volume, or why it failed.

    is_lost: Modal's client cannot tell; the job may still be running.
    """

    label: str
    files: tuple[str, ...] = ()
    error: str | None = None
    is_lost: bool = False


# --- training -------------------------------------------------------------------------------------------------------


def plan_trainings(
    script: str, task_ids: str, trials: str, seeds: str = "", extra_args: str = "", gpu: str | None = "T4",
    secrets: Sequence[str] = (),
) -> list[Job]:  # fmt: skip
    """One job of `train` for each task, trial and seed of three lists such as "0,1".

    Where `extra_args` has `--tasks FILE`, `task_ids` is what the policy of these tasks is called.
    gpu: of the containers; secrets: names of those that they get. Raises InputError where a list, the script, a task id
    or one of the script's flags in `extra_args` is wrong.
    """
    from mop.envs.babyai import check_task_id

    if script not in POLICIES:
        raise InputError(f"--script must be {' or '.join(POLICIES)}, not {script!r}")
    config, given = _parse_extra_args(script, extra_args)
    _check_for_container(config, gpu, secrets)
    names = parse_list("task-ids", task_ids, str)
    tasks = [task_id for task_id, _ in config["tasks"]] if "tasks" in given else []
    if tasks and (len(names) > 1 or is_task_id(names[0])):
        raise InputError(f"--task-ids: with --tasks, it is the name of the list, one and no task's id, not {task_ids}")
    if tasks and config["task_id"] not in (names[0], name_of_list(tasks)):
        raise InputError(f"--extra-args: --task-ids names the list {names[0]}; leave out --name {config['task_id']}")
    for task_id in tasks or names:
        check_task_id(task_id)
    number = integer(0, MAX_INTEGER)
    numbered = parse_list("trials", trials, number)
    seeded = parse_list("seeds", seeds, number) if seeds else [None]
    jobs = []
    for key in (RunKey(task_id, trial, seed) for task_id in names for trial in numbered for seed in seeded):
        own = {"task_id": key.task_id, "trial": key.trial, "seed": key.seed, "policy": POLICIES[script]}
        own |= {"checkpoint_dir": CHECKPOINT_DIR, "resume": True}
        own_given = {"task_id", "trial"} | ({"seed"} if key.seed is not None else set())
        jobs.append(Job(key.label, (config | own, sorted(given | own_given))))
    return jobs


def _parse_extra_args(script: str, extra_args: str) -> tuple[dict[str, Any], set[str]]:
    try:
        config, given = parse_config(script, shlex.split(extra_args))
    except (InputError, ValueError) as error:
        raise InputError(f"--extra-args: {error}; its flags are those of `python {script} --help`") from None
    given = given - {"task_id"} if "tasks" in given else given  # made of them
    taken = sorted(given & OWN_FLAGS)
    if taken:
        raise InputError(
            f"--extra-args: {taken[0]} is not free in the cloud: --task-ids, --trials and --seeds name the runs, and a "
            "run goes on where it stopped; to train it anew, remove it with `modal volume rm -r` or take another trial"
        )
    return config, given


def _check_for_container(config: dict[str, Any], gpu: str | None, secrets: Sequence[str]) -> None:
    """Raises InputError where a setting needs something of this machine that a container lacks."""
    encoder, device = config["lang_encoder"], config["device"]
    if config["wandb_project"] is not None and not secrets:
        raise InputError(
            "--extra-args: wandb_project needs your key in the cloud: --secrets NAME, of a secret of your account that "
            "sets WANDB_API_KEY (modal secret create NAME WANDB_API_KEY=...); or leave it out: training_log.csv holds "
            "the same"
        )
    if encoder not in ("auto", "vocab"):
        from mop.envs.missions import is_folder

        if is_folder(encoder):
            raise InputError(
                f"--extra-args: lang_encoder {encoder!r} is a folder of this machine; in the cloud, take auto, vocab "
                "or a model's id on Hugging Face"
            )
    if device not in CONTAINER_DEVICES:
        raise InputError(
            f"--extra-args: device must be {' or '.join(CONTAINER_DEVICES)} in the cloud, not {device!r}; leave it out "
            "to use what there is"
        )
    if device == "cuda" and gpu is None:
        raise InputError("--extra-args: device cuda needs a GPU, and --gpu none asks for none; leave one of them out")


def parse_list(flag: str, value: str, parse: Callable[[str], Any]) -> list:
    """The distinct entries of "a,b,c", in order."""
    try:
        entries = [parse(entry.strip()) for entry in value.split(",") if entry.strip()]
    except ValueError as error:
        raise InputError(f"--{flag} must be numbers such as 0,1,2, not {value!r}: each {error}") from None
    if not entries:
        raise InputError(f"--{flag} is empty; give a list such as A,B")
    return list(dict.fromkeys(entries))


def train(config: dict, given: Sequence[str], on_save: Callable[[], object]) -> Result:
    """Train one run, or go on with it from its last state; `on_save` is called whenever its files are worth keeping.

    An interruption saves the state alone: the next attempt goes on, and nobody asked for a checkpoint there.
    """
    from mop.training import train

    key = RunKey(config["task_id"], config["trial"], config["seed"])
    try:
        folder = train.train(config, given, on_save, checkpoint_on_interrupt=False).parent
    except InputError as error:
        return Result(key.label, error=str(error))
    names = sorted(path.name for pattern in ("checkpoint_*.pt", "training_[lc]*") for path in folder.glob(pattern))
    return Result(key.label, tuple(key.folder("").joinpath(name).as_posix() for name in names))


# --- evaluation -----------------------------------------------------------------------------------------------------


def plan_evaluations(filters: Filters, num_episodes: int, force: bool, skip_routing: bool) -> list[Job]:
    """One job of `evaluate` for each checkpoint of CHECKPOINT_DIR without a row in RESULTS_TABLE; prints how many.

    Rows are matched by the keys of their paths. A row does not count if the checkpoint has changed since, or if its
    routing cache is wanted and missing; with `force` none counts. Raises InputError where no checkpoint is asked for.
    """
    if num_episodes < 1:
        raise InputError(f"--num-episodes must be at least 1, not {num_episodes}")
    settings = settings_of_container(num_episodes, skip_routing)
    selected = select([CHECKPOINT_DIR], filters, f"download some: {DOWNLOAD}")
    rows = read_rows(RESULTS_TABLE)
    missing = [item for item in selected if force or not _has_row(item, rows, settings)]
    print(f"{len(selected)} checkpoints, {len(missing)} to evaluate")
    present = [rows[item.key] for item in selected if item not in missing]
    if present:
        note_other_worlds(pd.DataFrame(present), settings.num_episodes, settings.eval_seed)
    return [_job_on(item, file_digest(item.path), settings, force) for item in missing]


def _job_on(found: FoundCheckpoint, digest: str, settings: Settings | InterventionSettings, force: bool) -> Job:
    """A job on a checkpoint, in the worlds of the task of its key."""
    which = () if found.key.trained_on is None else (found.key.task_id,)
    return Job(found.key.label, (found.path.as_posix(), digest, settings, force, *which))


def _key_of(path: str, task_id: str | None) -> RunKey:
    """The key of an evaluation; task_id: on which of the tasks of a policy of several."""
    key = RunKey.from_checkpoint(path)
    return key if task_id is None else key.on(task_id)


def settings_of_container(num_episodes: int, skip_routing: bool) -> Settings:
    """Settings with the places of a container; the bot's own results are not kept, as two jobs would write one file."""
    cache_dir = f"{RESULTS_DIR}/{CACHE_DIR}"
    return Settings(num_episodes, skip_routing=skip_routing, cache_dir=cache_dir, teacher_dir=SCRATCH_DIR)


def read_rows(path: str) -> dict[RunKey | str, dict[str, Any]]:
    """The rows of a results table, None for empty cells, by the keys of their checkpoint paths; none if it is missing.

    A row for a checkpoint at a path of another layout has this path as its key. Raises InputError where the file is no
    results table.
    """
    try:
        table = pd.read_csv(path, dtype={"checkpoint_sha256": str, "trained_on": str})  # some look like numbers
        paths = table["checkpoint_path"].astype(str)
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError) as error:
        reason = "no column checkpoint_path" if isinstance(error, KeyError) else str(error).splitlines()[0]
        raise InputError(f"{path} is no results table ({reason}); move it away") from None
    rows = {}
    table = table.astype(object).where(table.notna(), None)
    for checkpoint_path, row in zip(paths, table.to_dict("records"), strict=True):
        rows[_row_key(checkpoint_path, row)] = row
    return rows


def _row_key(checkpoint_path: str, row: Mapping) -> RunKey | str:
    try:
        key = RunKey.from_checkpoint(checkpoint_path)
        return key if row.get("trained_on") is None else key.on(row["task_id"])
    except InputError:
        return checkpoint_path


def _has_row(found: FoundCheckpoint, rows: dict[RunKey | str, dict], settings: Settings) -> bool:
    row = rows.get(found.key, {})
    if row.get("success_rate") is None:  # there is none, or it is cut short
        return False
    unrecorded = {"checkpoint_sha256": file_digest(found.path), "has_routing_cache": True}
    return is_up_to_date(unrecorded | row, found, settings)  # older tables lack these columns


def evaluate(path: str, digest: str, settings: Settings, force: bool, task_id: str | None = None) -> Result:
    """Evaluate one checkpoint of the volume, whose digest must be that of the file where the job was planned.

    task_id: of a policy of several tasks, the one in whose worlds.

    The result of an earlier attempt or call is kept if it was made in the same worlds, unless `force`.
    """
    found = FoundCheckpoint(_key_of(path, task_id), Path(path))
    key = found.key
    try:
        _check_on_volume(path, digest)
        if force or not _is_answered(found, settings):
            evaluate_checkpoint(found, settings)
    except InputError as error:
        return Result(key.label, error=str(error))
    caches = [] if settings.skip_routing else sorted(key.artefacts(settings.cache_dir).glob("routing_data.*"))
    made = [result_path(settings.cache_dir, key), *caches]
    return Result(key.label, tuple(path.relative_to(RESULTS_DIR).as_posix() for path in made))


def _check_on_volume(path: str, digest: str) -> None:
    """Raises InputError where the volume lacks a checkpoint, or has another than this machine."""
    on_volume = f"/{Path(path).relative_to(CHECKPOINT_DIR).as_posix()}"
    if not Path(path).exists():
        way_out = shlex.join(["modal", "volume", "put", CHECKPOINTS_VOLUME, path, on_volume])
        raise InputError(f"{on_volume} is not on volume {CHECKPOINTS_VOLUME}; upload it: {way_out}")
    if file_digest(path) != digest:
        way_out = f"to have the volume's here, move yours away, then {DOWNLOAD}"
        raise InputError(f"{path} is not the file of volume {CHECKPOINTS_VOLUME}; {way_out}")


def _is_answered(found: FoundCheckpoint, settings: Settings) -> bool:
    """Whether the volume holds the result that is asked for, in the same worlds: fewer would not do."""
    if not is_evaluated(found, settings):
        return False
    row = load_result(result_path(settings.cache_dir, found.key))
    return all(row.get(name) == getattr(settings, name) for name in ("num_episodes", "eval_seed"))


def plan_interventions(filters: Filters, num_episodes: int, force: bool) -> list[Job]:
    """One job of `intervene` for each mixture of CHECKPOINT_DIR without a whole battery in CACHE_DIR; prints how many.

    With `force` none counts. Raises InputError where no checkpoint is asked for.
    """
    if num_episodes < 1:
        raise InputError(f"--num-episodes must be at least 1, not {num_episodes}")
    settings = InterventionSettings(num_episodes, cache_dir=f"{RESULTS_DIR}/{CACHE_DIR}", teacher_dir=SCRATCH_DIR)
    selected = select([CHECKPOINT_DIR], filters, f"download some: {DOWNLOAD}")
    mixtures = [item for item in selected if quick_config(item.path).get("policy") != POLICIES["train.py"]]
    digests = {item: file_digest(item.path) for item in mixtures}
    missing = [
        item
        for item in mixtures
        if force or not has_battery(load_rows(interventions_path(CACHE_DIR, item.key)), digests[item], settings)
    ]
    print(f"{len(mixtures)} mixtures, {len(missing)} to intervene on")
    return [_job_on(item, digests[item], settings, force) for item in missing]


def intervene(
    path: str, digest: str, settings: InterventionSettings, force: bool, task_id: str | None = None,
    *, on_row: Callable[[], object],
) -> Result:  # fmt: skip
    """Make the rows of the standard battery that the volume lacks of a checkpoint; `on_row` is called after each."""
    key = _key_of(path, task_id)
    try:
        _check_on_volume(path, digest)
        make_missing(key, path, None, settings, force, on_row)
    except InputError as error:
        return Result(key.label, error=str(error))
    return Result(key.label, (interventions_path(settings.cache_dir, key).relative_to(RESULTS_DIR).as_posix(),))


def merge() -> str:
    """Write the table of every result on the volume; the table as text. A table that is not ours is kept beside it."""
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        table = merge_results(f"{RESULTS_DIR}/{CACHE_DIR}", f"{RESULTS_DIR}/{RESULTS_TABLE}")
    return "".join(f"{note.message}\n" for note in notes) + format_table(table)


# --- afterwards -----------------------------------------------------------------------------------------------------


def download_checkpoints(volume: Volume) -> None:
    """Copy what is new on the volume of checkpoints to CHECKPOINT_DIR, without the states."""
    _show_downloaded(download(volume, Path(CHECKPOINT_DIR), left_out={STATE_NAME}), CHECKPOINTS_VOLUME)


def download_results(volume: Volume) -> None:
    """Copy what is new on the volume of results, and merge all results here.

    The volume's own table stays there: it holds the results of the cloud alone.
    """
    _show_downloaded(download(volume, Path(), left_out={RESULTS_TABLE}, last=RESULT_NAME), RESULTS_VOLUME)
    if any(Path(CACHE_DIR).rglob(RESULT_NAME)):
        print(f"table: {RESULTS_TABLE} (rows: {len(merge_results(CACHE_DIR, RESULTS_TABLE))})")
    if any(Path(CACHE_DIR).rglob(INTERVENTIONS_NAME)):
        print(f"table: {INTERVENTIONS_TABLE} (rows: {len(merge_rows(CACHE_DIR, INTERVENTIONS_TABLE, print))})")


def download_lmc(volume: Volume) -> None:
    """Copy what is new of linear mode connectivity to results/ and model_weights/, without states and snapshots."""
    _show_downloaded(download(volume, Path(), left_out={STATE_NAME, SNAPSHOTS}), LMC_VOLUME)


def download_agents(volume: Volume) -> None:
    """Copy what is new of agents of games to logs/, without the states."""
    _show_downloaded(download(volume, Path(AGENTS_DIR), left_out={STATE_NAME}), AGENTS_VOLUME)


def download_simulators(volume: Volume) -> None:
    """Copy what is new of simulators to simulators/, without the states."""
    _show_downloaded(download(volume, Path(SIMULATORS_DIR), left_out={STATE_NAME}), SIMULATORS_VOLUME)


def _show_downloaded(done: Downloaded, volume: str) -> None:
    print(f"{volume}: {len(done.new)} of {done.num_files} files were new")
    for path in done.kept:
        print(f"kept: {path} is newer than that of {volume}; to have the volume's, move it away first")


def report(results: Sequence[Result], way_to_download: str) -> int:
    """Print how to download what was made, and what failed; returns 1 if anything failed, else 0."""
    if any(result.files for result in results):
        print(f"download: {way_to_download}")
    failed = [result for result in results if result.error is not None]
    for result in failed:
        print(f"{'unknown' if result.is_lost else 'failed'}: {result.label}: {result.error}")
    print(f"{len(results) - len(failed)} of {len(results)} jobs done")
    return 1 if failed else 0


def warm_up() -> None:
    """Compile every kernel: train each kind of policy for one update and evaluate the mixture in one world."""
    from mop.training import train

    tiny = "--num_updates 1 --num_envs 2 --unroll_len 4 --lang_encoder vocab --device cpu --replay 1"
    with tempfile.TemporaryDirectory() as folder:
        for trial, (policy, more) in enumerate((("mop", ""), ("mop", "--residual --obs_encoding raw"), ("gru", ""))):
            config, given = parse_config("", [*tiny.split(), *more.split(), "--trial", str(trial)])
            train.train(config | {"policy": policy, "checkpoint_dir": folder}, given)
        found = find_checkpoints([folder])[0]
        evaluate_found(found, Settings(1, cache_dir=folder, device="cpu"))
