"""Train and evaluate on Modal's machines: one container for each run, one for each checkpoint without a result.

    modal run --detach modal_app.py::main --task-ids "BabyAI-GoToObj-v0,BabyAI-UnlockPickup-v0" --trials "0,1,2"
    modal run modal_app.py::eval_parallel          what modal_checkpoints/ holds and evaluation_results.csv lacks
    modal run modal_app.py::eval_main              the same, one container at a time
    python modal_app.py eval_parallel --dry-run    the jobs of any of these, without an account

Checkpoints go to the volume rl-mop, results to rl-mop-eval; the commands that download them are printed at the end.
Exit code 0: every job is done; 1: some failed, or nobody knows (they are listed, the others' files stand); 2: nothing
was started.
"""

import argparse
import functools
import inspect
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import modal
import modal.exception
from grpclib.exceptions import StreamTerminatedError

from mop.base.configuration import Parser
from mop.base.errors import InputError, exit_code, run_script
from mop.jobs import cloud
from mop.jobs.batch import Filters
from mop.jobs.cloud import CHECKPOINT_DIR, CHECKPOINTS_VOLUME, RESULTS_DIR, RESULTS_VOLUME, Job, Merged, Result

TRAIN_GPU = "T4"  # None: train on the CPU
EVAL_GPU = None  # as on most people's machines, and so with the same rounding
TRAIN_CPUS, EVAL_CPUS = 4.0, 1.0
MEMORY_MIB = 8192
# of one attempt; a day is the longest that Modal allows, and a run that needs more goes on in its next attempt
TRAIN_TIMEOUT_S, EVAL_TIMEOUT_S = 24 * 60 * 60, 60 * 60
RETRIES = modal.Retries(max_retries=3, initial_delay=10.0, backoff_coefficient=2.0)

HERE = Path(__file__).resolve().parent
HOME = "/root"  # of a container: where Modal puts modules
LIBRARY = ("mop", "mixture_of_experts", "plotting_utils")  # what jobs import; this file Modal adds itself
# What fetching DistilBERT needs, so that a change of other code does not fetch it again.
FETCHING = ("mop/__init__.py", "mop/base/__init__.py", "mop/base/errors.py", "mop/worlds/__init__.py")
FETCHING += ("mop/worlds/missions.py",)
# Kernels are compiled where the image is built and run on other processors: they are compiled for the oldest of these.
ANY_PROCESSOR = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma"}


def with_files(image: modal.Image, *names: str) -> modal.Image:
    """An image with files of the repository at the same places below HOME."""
    for name in names:
        image = image.add_local_file(HERE / name, f"{HOME}/{name}", copy=True)
    return image


base_image = (
    modal.Image.debian_slim(python_version="3.11")
    .uv_pip_install(requirements=[str(HERE / "requirements.txt")])
    .env({"HF_HOME": "/opt/huggingface", **ANY_PROCESSOR})
    .workdir(HOME)
)
image = (
    with_files(base_image, *FETCHING)
    .run_commands("python -c 'import mop.worlds.missions as m; m.load_encoder(m.DEFAULT_MODEL)'")
    .add_local_python_source(*LIBRARY, copy=True)
    .add_local_file(HERE / "config.yaml", f"{HOME}/config.yaml", copy=True)
    .run_commands("python -c 'import mop.jobs.cloud as jobs; jobs.warm_up()'")
)
checkpoints = modal.Volume.from_name(CHECKPOINTS_VOLUME, create_if_missing=True)
results = modal.Volume.from_name(RESULTS_VOLUME, create_if_missing=True)
app = modal.App("rl-mop", image=image)
on_machines = functools.partial(
    app.function,
    memory=MEMORY_MIB,
    retries=RETRIES,
    volumes={f"{HOME}/{CHECKPOINT_DIR}": checkpoints, f"{HOME}/{RESULTS_DIR}": results},
)
on_small_machines = functools.partial(on_machines, cpu=EVAL_CPUS, timeout=EVAL_TIMEOUT_S)
# What Modal's client raises where it cannot ask how a call is doing: that says nothing about the call.
NO_ANSWER = (
    modal.exception.ConnectionError, modal.exception.ServiceError, modal.exception.InternalError,
    modal.exception.AuthError, modal.exception.ClientClosed, StreamTerminatedError,
)  # fmt: skip


# --- in containers --------------------------------------------------------------------------------------------------


@on_machines(gpu=TRAIN_GPU, cpu=TRAIN_CPUS, timeout=TRAIN_TIMEOUT_S, single_use_containers=True)
def train(config: dict, given: list[str]) -> Result:
    checkpoints.reload()
    return cloud.train(config, given, on_save=checkpoints.commit)


@on_small_machines(gpu=EVAL_GPU)
def evaluate(*arguments) -> Result:
    return _evaluate(*arguments)


@on_small_machines(gpu=EVAL_GPU, max_containers=1)
def evaluate_in_turn(*arguments) -> Result:
    return _evaluate(*arguments)


@on_small_machines()
def merge() -> Merged:
    results.reload()
    merged = cloud.merge()
    results.commit()
    return merged


def _evaluate(*arguments) -> Result:
    checkpoints.reload()
    results.reload()
    result = cloud.evaluate(*arguments)
    results.commit()
    return result


# --- entry points ---------------------------------------------------------------------------------------------------


ENTRY_POINTS: dict[str, Callable[..., int]] = {}


def entry_point(function: Callable[..., int]) -> modal.app.LocalEntrypoint:
    """Make a function a command of `modal run`: its parameters are the flags, and it returns the exit code."""
    ENTRY_POINTS[function.__name__] = function

    @functools.wraps(function)
    def command(**flags) -> None:
        code = exit_code(functools.partial(function, **flags))
        if code:  # Modal takes even an exit with 0 for an error
            sys.exit(code)

    return app.local_entrypoint()(command)


@entry_point
def main(
    task_ids: str,
    trials: str = "0",
    seeds: str = "",
    script: str = "train_mop.py",
    extra_args: str = "",
    dry_run: bool = False,
) -> int:
    """Train every task x trial [x seed] in a container of its own."""
    jobs = cloud.plan_trainings(script, task_ids, trials, seeds, extra_args)
    if dry_run:
        return show(jobs, f"{script} on {TRAIN_GPU or 'no GPU'}")
    return cloud.report(run_apart(train, jobs), CHECKPOINTS_VOLUME, CHECKPOINT_DIR)


@entry_point
def eval_parallel(
    num_episodes: int = 1000,
    force: bool = False,
    task: str | None = None,
    trial: int | None = None,
    seed: int | None = None,
    update: int | None = None,
    final_only: bool = False,
    skip_routing: bool = False,
    dry_run: bool = False,
) -> int:
    """Evaluate every checkpoint that has no result, each in a container of its own, then merge all results."""
    filters = Filters(task, trial, seed, update, final_only)
    jobs = cloud.plan_evaluations(filters, num_episodes, force, skip_routing)
    return show(jobs, "a container each") if dry_run else finish(run_apart(evaluate, jobs))


@entry_point
def eval_main(
    num_episodes: int = 1000,
    force: bool = False,
    task: str | None = None,
    trial: int | None = None,
    seed: int | None = None,
    update: int | None = None,
    final_only: bool = False,
    skip_routing: bool = False,
    dry_run: bool = False,
) -> int:
    """Evaluate every checkpoint that has no result, in one container at a time, then merge all results."""
    filters = Filters(task, trial, seed, update, final_only)
    jobs = cloud.plan_evaluations(filters, num_episodes, force, skip_routing)
    return show(jobs, "one container for all") if dry_run else finish(run_apart(evaluate_in_turn, jobs))


def show(jobs: list[Job], where: str) -> int:
    """Print the jobs instead of starting them."""
    print(*(f"{job.label} ({where})" for job in jobs), f"{len(jobs)} jobs; none is started", sep="\n")
    return 0


def run_apart(function: modal.Function, jobs: list[Job]) -> list[Result]:
    """Start all jobs, then wait for each. They are calls of their own, which go on without this process if detached."""
    calls: list[modal.FunctionCall | Result] = []
    for job in jobs:
        call = outcome(job.label, functools.partial(function.spawn, *job.arguments))
        if not isinstance(call, Result):
            print(f"started {job.label} ({call.object_id})", flush=True)
        calls.append(call)
    return [
        call if isinstance(call, Result) else outcome(job.label, call.get, call.object_id)
        for job, call in zip(jobs, calls, strict=True)
    ]


def finish(outcomes: list[Result]) -> int:
    """Merge what there is, and report."""
    is_new = any(result.files for result in outcomes)
    tables = outcome("merging the results", merge_and_show) if is_new else []
    if isinstance(tables, Result):
        outcomes, tables = [*outcomes, tables], []
    return cloud.report(outcomes, RESULTS_VOLUME, others=tables)


def merge_and_show() -> list[str]:
    """Print the merged table; returns the files of the volume to download in addition to those of the jobs."""
    merged = merge.remote()
    print(merged.text)
    return cloud.tables_to_download(merged)


def outcome(label: str, ask: Callable[[], Any], call_id: str | None = None) -> Any:
    """What Modal answers, or a `Result` that says why it does not; call_id: of the call, if it has begun."""
    try:
        return ask()
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        if call_id is None or not isinstance(error, NO_ANSWER):
            return Result(label, error=reason)
        return Result(label, error=f"{reason}; call {call_id} may still be running: see `modal app list`", is_lost=True)


# --- without an account ---------------------------------------------------------------------------------------------


def parser(name: str) -> Parser:
    """A command line with the flags that `modal run` gives an entry point."""
    parser = Parser(prog=f"modal_app.py {name}", description=__doc__)
    for parameter in inspect.signature(ENTRY_POINTS[name]).parameters.values():
        options: dict = {"action": argparse.BooleanOptionalAction} if parameter.annotation is bool else {}
        if parameter.annotation in (int, int | None):
            options["type"] = int
        options |= {"required": True} if parameter.default is parameter.empty else {"default": parameter.default}
        parser.add_argument(f"--{parameter.name.replace('_', '-')}", **options)
    return parser


def show_jobs() -> int:
    """`python modal_app.py [ENTRY POINT] --dry-run ...`: print its jobs."""
    words = sys.argv[1:]
    if "--extra-args" in words[:-1]:  # argparse, unlike `modal run`, would take a value such as --residual for a flag
        place = words.index("--extra-args")
        words[place : place + 2] = ["=".join(words[place : place + 2])]
    name = entry_point_of(words)
    flags = vars(parser(name).parse_args([word for word in words if word != name]))
    if not flags["dry_run"]:
        raise InputError(f"add --dry-run to see the jobs; to start them: modal run modal_app.py::{name} ...")
    return ENTRY_POINTS[name](**flags)


def entry_point_of(words: list[str]) -> str:
    """The entry point that a command line names; main if none. Raises InputError where it names another."""
    for before, word in pairwise(["--dry-run", *words]):
        if word in ENTRY_POINTS:
            return word
        if before == "--dry-run" and not word.startswith("-"):
            raise InputError(f"unknown entry point {word!r}; it must be {', '.join(ENTRY_POINTS)}")
    return "main"


if __name__ == "__main__":
    run_script(show_jobs)
