"""Train and evaluate on Modal's machines: one container for each run, one for each checkpoint without a result.

    modal run --detach modal_app.py::main --task-ids "BabyAI-GoToObj-v0,BabyAI-UnlockPickup-v0" --trials "0,1,2"
    modal run modal_app.py::eval_parallel          what modal_checkpoints/ holds and evaluation_results.csv lacks
    modal run modal_app.py::eval_main              the same, one container at a time
    modal run modal_app.py::eval_parallel --interventions    without an expert, what fails?
    python modal_app.py eval_parallel --dry-run    the jobs of any of these, without an account

    modal run modal_app.py::lmc --env Hopper-v5 --seeds "1,2,3"     forks, and the paths between their children

    modal run --detach modal_app.py::train_agent --gpu A10G --exp_name mine --param_name hard-rec     a game's agent
    modal run --detach modal_app.py::train_gen_model --data_dir recordings/X     a simulator of a recording's worlds

    python modal_app.py download                   what is new on the volumes, to modal_checkpoints/ and here

Checkpoints go to the volume rl-mop, results to rl-mop-eval, linear mode connectivity to rl-mop-lmc, agents of games to
rl-mop-logs, simulators to rl-mop-simulators. A command that is given again while its jobs are running waits for them
and starts none of them anew. Exit code 0: every job is done; 1: some failed, or nobody knows (they are listed, the
others' files stand); 2: nothing was started.
"""

import argparse
import functools
import inspect
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import modal
import modal.exception

from mop.cloud import calls, cloud_jobs
from mop.cloud.cloud_jobs import (
    AGENTS_DIR,
    AGENTS_VOLUME,
    CHECKPOINT_DIR,
    CHECKPOINTS_VOLUME,
    LMC_DIR,
    LMC_VOLUME,
    RECORDINGS_DIR,
    RECORDINGS_VOLUME,
    RESULTS_DIR,
    RESULTS_VOLUME,
    SIMULATORS_DIR,
    SIMULATORS_VOLUME,
    ZOO_DIR,
    Job,
    Result,
)
from mop.cloud.hardware import Machine, cost_lines, parse_gpu
from mop.common.configuration import Parser
from mop.common.errors import InputError, exit_code, run_script
from mop.evaluation.batch import Filters

TRAIN_GPU = "T4"  # unless --gpu says otherwise
EVAL_GPU = "none"  # as on most people's machines, and so with the same rounding
GPU_OF_SCRIPT = {"train_agent": TRAIN_GPU, "train_gen_model": EVAL_GPU}  # of generative/
# One core each: all of it is one thread. Peaks: a default training 1.0 GiB, the largest evaluation measured 1.4.
CPUS, MEMORY_MIB = 1.0, 3072
MERGE_CPUS, MERGE_MEMORY_MIB = 0.25, 512  # it waits for most of its time
GAME_CPUS, GAME_MEMORY_MIB = 4.0, 8192  # a game has 8 threads, and a rollout of hard-rec is 0.8 GiB of frames
# of one attempt; a day is the longest that Modal allows, and a run that needs more goes on in its next attempt
TRAIN_TIMEOUT_S, EVAL_TIMEOUT_S, MERGE_TIMEOUT_S = 24 * 60 * 60, 60 * 60, 24 * 60 * 60
STARTUP_TIMEOUT_S = 10 * 60
RETRIES = modal.Retries(max_retries=3, initial_delay=10.0, backoff_coefficient=2.0)
REGISTER = "rl-mop-calls"  # the modal.Dict of what is at work on what

HERE = Path(__file__).resolve().parent
HOME = "/root"  # of a container: where Modal puts modules
LIBRARY = ("mop", "mixture_of_experts", "plotting_utils")  # what jobs import; Modal adds this file itself
# What fetching DistilBERT needs, so that a change of other code does not fetch it again.
FETCHING = ("mop/__init__.py", "mop/common/__init__.py", "mop/common/errors.py", "mop/envs/__init__.py")
FETCHING += ("mop/envs/missions.py",)
# Kernels are compiled where the image is built and run on other processors: they are compiled for the oldest of these.
ANY_PROCESSOR = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma"}
# `modal app logs` shows the last 100 entries, and each refresh of a progress bar is one.
FEW_LINES = {"TQDM_MININTERVAL": "60", "TQDM_MAXINTERVAL": "60"}
NO_SCREEN = {"MUJOCO_GL": "disable"}  # nothing is rendered, and a container has no libraries for it
QT = "libqt5gui5"  # for envpool's games
WANDB = "wandb==0.31.0"  # for --extra-args "--wandb_project ...", with --secrets


def with_files(image: modal.Image, *names: str) -> modal.Image:
    """An image with files of the repository at the same places below HOME."""
    for name in names:
        image = image.add_local_file(HERE / name, f"{HOME}/{name}", copy=True)
    return image


base_image = (
    modal.Image.debian_slim(python_version="3.11")
    .uv_pip_install(requirements=[str(HERE / "requirements.txt")])
    .uv_pip_install(WANDB)
    .env({"HF_HOME": "/opt/huggingface", **ANY_PROCESSOR, **FEW_LINES})
    .workdir(HOME)
)
image = (
    with_files(base_image, *FETCHING)
    .run_commands("python -c 'import mop.envs.missions as m; m.load_encoder(m.DEFAULT_MODEL)'")
    .add_local_python_source(*LIBRARY, copy=True)
    .add_local_file(HERE / "config.yaml", f"{HOME}/config.yaml", copy=True)
    .run_commands("python -c 'import mop.cloud.cloud_jobs as jobs; jobs.warm_up()'")
)
lmc_image = (
    base_image.env(NO_SCREEN)
    .add_local_python_source(*LIBRARY, "lmc_rl", copy=True)
    .run_commands("python -c 'import lmc_rl.cloud'")
)
simulator_image = (
    image.add_local_dir(HERE / ZOO_DIR, f"{HOME}/{ZOO_DIR}", copy=True)
    .add_local_python_source("generative", copy=True)
    .run_commands("python -c 'import generative.cloud'")
)
game_image = (
    base_image.apt_install(QT)
    .uv_pip_install(requirements=[str(HERE / "requirements-coinrun.txt")])
    .add_local_python_source(*LIBRARY, "generative", copy=True)
    .run_commands("python -c 'import generative.cloud as jobs; jobs.check_games()'")
)
checkpoints = modal.Volume.from_name(CHECKPOINTS_VOLUME, create_if_missing=True)
results = modal.Volume.from_name(RESULTS_VOLUME, create_if_missing=True)
lmc_volume = modal.Volume.from_name(LMC_VOLUME, create_if_missing=True)
agents = modal.Volume.from_name(AGENTS_VOLUME, create_if_missing=True)
recordings = modal.Volume.from_name(RECORDINGS_VOLUME, create_if_missing=True)
simulators = modal.Volume.from_name(SIMULATORS_VOLUME, create_if_missing=True)
checkpoints_to_read, agents_to_read, recordings_to_read = (
    volume.with_mount_options(read_only=True) for volume in (checkpoints, agents, recordings)
)
register = modal.Dict.from_name(REGISTER, create_if_missing=True)
app = modal.App("rl-mop", image=image)
on_machines = functools.partial(
    app.function, cpu=CPUS, memory=MEMORY_MIB, retries=RETRIES, startup_timeout=STARTUP_TIMEOUT_S
)
WRITES_CHECKPOINTS = {f"{HOME}/{CHECKPOINT_DIR}": checkpoints}
WRITES_RESULTS = {f"{HOME}/{RESULTS_DIR}": results}
WRITES_LMC = {f"{HOME}/{LMC_DIR}": lmc_volume}
WRITES_AGENTS = {f"{HOME}/{AGENTS_DIR}": agents}
WRITES_SIMULATORS = {f"{HOME}/{SIMULATORS_DIR}": simulators}
READS_CHECKPOINTS = {f"{HOME}/{CHECKPOINT_DIR}": checkpoints_to_read}
READS_RECORDINGS = {f"{HOME}/{RECORDINGS_DIR}": recordings_to_read, f"{HOME}/{AGENTS_DIR}": agents_to_read}


# --- in containers --------------------------------------------------------------------------------------------------


@on_machines(timeout=TRAIN_TIMEOUT_S, volumes=WRITES_CHECKPOINTS, single_use_containers=True)
def train(config: dict, given: list[str]) -> Result:
    checkpoints.reload()
    return cloud_jobs.train(config, given, on_save=checkpoints.commit)


@on_machines(timeout=EVAL_TIMEOUT_S, volumes=READS_CHECKPOINTS | WRITES_RESULTS)
def evaluate(*arguments) -> Result:
    return _evaluate(*arguments)


@on_machines(timeout=EVAL_TIMEOUT_S, volumes=READS_CHECKPOINTS | WRITES_RESULTS, max_containers=1)
def evaluate_in_turn(*arguments) -> Result:
    return _evaluate(*arguments)


def _evaluate(*arguments) -> Result:
    checkpoints_to_read.reload()
    results.reload()
    result = cloud_jobs.evaluate(*arguments)
    results.commit()
    return result


@on_machines(timeout=TRAIN_TIMEOUT_S, volumes=READS_CHECKPOINTS | WRITES_RESULTS)
def intervene(*arguments) -> Result:
    checkpoints_to_read.reload()
    results.reload()
    return cloud_jobs.intervene(*arguments, on_row=results.commit)


@on_machines(cpu=MERGE_CPUS, memory=MERGE_MEMORY_MIB, timeout=MERGE_TIMEOUT_S, volumes=WRITES_RESULTS)
def merge(call_ids: list[str]) -> str:
    """Wait for evaluations, however they end, then merge all results of the volume; the table as text."""
    for _ in calls.answers({call_id: modal.FunctionCall.from_id(call_id) for call_id in call_ids}):
        pass
    results.reload()
    table = cloud_jobs.merge()
    results.commit()
    return table


@on_machines(image=lmc_image, timeout=TRAIN_TIMEOUT_S, volumes=WRITES_LMC, single_use_containers=True)
def train_fork(*arguments) -> Result:
    return _on_lmc(lambda jobs: jobs.train(*arguments, lmc_volume.commit))


@on_machines(image=lmc_image, timeout=TRAIN_TIMEOUT_S, volumes=WRITES_LMC, single_use_containers=True)
def walk_paths(*arguments) -> Result:
    return _on_lmc(lambda jobs: jobs.walk(*arguments, lmc_volume.commit))


@on_machines(image=lmc_image, timeout=EVAL_TIMEOUT_S, volumes=WRITES_LMC)
def analyze_seeds(*arguments) -> Result:
    return _on_lmc(lambda jobs: jobs.analyze(*arguments))


def _on_lmc(work: Callable[[Any], Any]) -> Any:
    from lmc_rl import cloud as jobs  # here: other commands do without MuJoCo

    lmc_volume.reload()
    result = work(jobs)
    lmc_volume.commit()
    return result


@on_machines(
    image=game_image, cpu=GAME_CPUS, memory=GAME_MEMORY_MIB, timeout=TRAIN_TIMEOUT_S, volumes=WRITES_AGENTS,
    single_use_containers=True,
)  # fmt: skip
def learn_game(*arguments) -> Result:
    from generative import cloud as jobs  # here: other images lack it

    agents.reload()
    return jobs.train(*arguments, agents.commit)


@on_machines(
    image=simulator_image, timeout=TRAIN_TIMEOUT_S, single_use_containers=True,
    volumes=READS_CHECKPOINTS | READS_RECORDINGS | WRITES_SIMULATORS,
)  # fmt: skip
def learn_worlds(*arguments) -> Result:
    from generative import cloud as jobs

    for volume in (checkpoints_to_read, agents_to_read, recordings_to_read, simulators):
        volume.reload()
    return jobs.train(*arguments, simulators.commit)


# --- entry points ---------------------------------------------------------------------------------------------------


ENTRY_POINTS: dict[str, Callable[..., int]] = {}


def entry_point(function: Callable[..., int]) -> modal.app.LocalEntrypoint:
    """Make a function a command of `modal run`: its parameters are the flags, and it returns the exit code."""
    ENTRY_POINTS[function.__name__] = function

    @functools.wraps(function)
    def command(*words, **flags) -> None:
        code = exit_code(functools.partial(function, *words, **flags))
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
    gpu: str = TRAIN_GPU,
    secrets: str = "",
    dry_run: bool = False,
) -> int:
    """Train every task x trial [x seed] in a container of its own."""
    machine, names = Machine(parse_gpu(gpu), CPUS, MEMORY_MIB), split(secrets)
    jobs = cloud_jobs.plan_trainings(script, task_ids, trials, seeds, extra_args, machine.gpu, names)
    if jobs[0].arguments[0]["device"] == "cpu":
        machine = Machine(None, CPUS, MEMORY_MIB)  # the GPU would be idle
    announce(machine, TRAIN_GPU)
    if dry_run:
        return show(jobs, f"{script} on {machine.gpu or 'no GPU'}")
    return cloud_jobs.report(wait(start("training", on(train, machine, names), jobs)), way_to_download())


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
    interventions: bool = False,
    gpu: str = EVAL_GPU,
    secrets: str = "",
    dry_run: bool = False,
) -> int:
    """Evaluate every checkpoint that has no result, each in a container of its own, then merge all results.

    With --interventions, instead: the standard battery of intervene.py, of every mixture that lacks some of it.
    """
    filters = Filters(task, trial, seed, update, final_only)
    if interventions:
        jobs = cloud_jobs.plan_interventions(filters, num_episodes, force)
        return intervene_on_all(jobs, gpu, secrets, dry_run)
    jobs = cloud_jobs.plan_evaluations(filters, num_episodes, force, skip_routing)
    return evaluate_all(evaluate, jobs, "a container each", gpu, secrets, dry_run)


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
    gpu: str = EVAL_GPU,
    secrets: str = "",
    dry_run: bool = False,
) -> int:
    """Evaluate every checkpoint that has no result, in one container at a time, then merge all results."""
    filters = Filters(task, trial, seed, update, final_only)
    jobs = cloud_jobs.plan_evaluations(filters, num_episodes, force, skip_routing)
    return evaluate_all(evaluate_in_turn, jobs, "one container for all", gpu, secrets, dry_run)


@entry_point
def lmc(
    env: str = "InvertedDoublePendulum-v5",
    algo: str = "SAC",
    seeds: str = "1",
    fork_points: str = "",
    extra_args: str = "",
    gpu: str = EVAL_GPU,
    secrets: str = "",
    dry_run: bool = False,
) -> int:
    """Train a parent for each seed, its children in a container each, walk the paths between them, tell what is lost.

    A stage begins when the one before it has ended. What the volume holds is not done again.
    """
    from lmc_rl.cloud import plan

    machine = Machine(parse_gpu(gpu), CPUS, MEMORY_MIB)
    stages = plan(env, algo, seeds, fork_points, extra_args)
    announce(machine, TRAIN_GPU)
    if dry_run:
        return show([piece.job for stage in stages for piece in stage], f"on {machine.gpu or 'no GPU'}")
    outcomes: list[Result] = []
    for function, pieces in zip((train_fork, train_fork, walk_paths, analyze_seeds), stages, strict=True):
        files = {entry.path.lstrip("/") for entry in lmc_volume.listdir("/", recursive=True)}
        missing = [piece for piece in pieces if not piece.is_done(files)]
        waiting = [piece for piece in missing if piece.lacks(files)]
        print(f"{len(pieces)} of this stage, {len(pieces) - len(missing)} on the volume", flush=True)
        jobs = [piece.job for piece in missing if piece not in waiting]
        outcomes += wait(start("connectivity", on(function, machine, split(secrets)), jobs))
        outcomes += [Result(piece.job.label, error=f"it needs {piece.lacks(files)[0]}") for piece in waiting]
    return cloud_jobs.report(outcomes, way_to_download())


@entry_point
def train_agent(*words: str) -> int:
    """Train an agent of a game: the flags of generative.train_agent, and --gpu, --secrets, --dry-run."""
    return train_one(learn_game, "train_agent", words, GAME_CPUS, GAME_MEMORY_MIB)


@entry_point
def train_gen_model(*words: str) -> int:
    """Learn a simulator: the flags of generative.train_gen_model, and --gpu, --secrets, --dry-run."""
    return train_one(learn_worlds, "train_gen_model", words, CPUS, MEMORY_MIB)


def train_one(function: modal.Function, name: str, words: Sequence[str], cpus: float, memory_mib: int) -> int:
    """Train what a script of generative/ trains, in one container."""
    from generative.cloud import plan

    planned = plan(name, words, GPU_OF_SCRIPT[name])
    machine = Machine(planned.gpu, cpus, memory_mib)
    announce(machine, TRAIN_GPU)
    if planned.is_dry_run:
        return show([planned.job], f"on {machine.gpu or 'no GPU'}")
    outcomes = wait(start("training", on(function, machine, split(planned.secrets)), [planned.job]))
    return cloud_jobs.report(outcomes, way_to_download())


def evaluate_all(function: modal.Function, jobs: list[Job], where: str, gpu: str, secrets: str, dry_run: bool) -> int:
    """Evaluate, and have the results merged in the cloud when all are there, whether or not anybody waits here."""
    machine = Machine(parse_gpu(gpu), CPUS, MEMORY_MIB)
    if jobs:
        announce(machine, TRAIN_GPU)
    if dry_run:
        return show(jobs, where)
    started = start("evaluation", on(function, machine, split(secrets)), jobs)
    ids = [entry[0].object_id for entry in started.values() if not isinstance(entry, Result)]
    if not ids:
        return cloud_jobs.report(wait(started), way_to_download())
    label = "merging the results"
    merging = attempt(label, functools.partial(merge.spawn, ids))
    outcomes = wait(started)
    merged = merging if isinstance(merging, Result) else dict(calls.answers({label: merging}))[label]
    if isinstance(merged, str):
        print(merged)
    else:
        outcomes.append(outcome(label, merged, merging))
    return cloud_jobs.report(outcomes, way_to_download())


def intervene_on_all(jobs: list[Job], gpu: str, secrets: str, dry_run: bool) -> int:
    """Make the rows of the jobs' checkpoints; the tables are merged where they are downloaded."""
    machine = Machine(parse_gpu(gpu), CPUS, MEMORY_MIB)
    if jobs:
        announce(machine, TRAIN_GPU)
    if dry_run:
        return show(jobs, "interventions, a container each")
    return cloud_jobs.report(
        wait(start("interventions", on(intervene, machine, split(secrets)), jobs)), way_to_download()
    )


def split(names: str) -> list[str]:
    """The entries of "a,b"."""
    return [name.strip() for name in names.split(",") if name.strip()]


def announce(machine: Machine, other_gpu: str) -> None:
    """Print what the jobs run on, and what that costs."""
    print(*cost_lines(machine, other_gpu), sep="\n")


def show(jobs: list[Job], where: str) -> int:
    """Print the jobs instead of starting them."""
    print(*(f"{job.label} ({where})" for job in jobs), f"{len(jobs)} jobs; none is started", sep="\n")
    return 0


# --- calls ----------------------------------------------------------------------------------------------------------


# Label of a job -> its call and whether this command started it, or why there is none.
Started = dict[str, tuple[modal.FunctionCall, bool] | Result]


def on(function: modal.Function, machine: Machine, secrets: Sequence[str]) -> modal.Function:
    """The function on a machine with a GPU, where one is asked for, and with secrets of the account.

    Raises InputError where a secret is missing.
    """
    options: dict[str, Any] = {}
    if machine.gpu is not None:  # all of them: it is not documented that a GPU alone keeps the others
        options |= {"gpu": machine.gpu, "cpu": machine.cpus, "memory": machine.memory_mib}
    if secrets:
        options["secrets"] = [modal.Secret.from_name(name) for name in secrets]
        for secret, name in zip(options["secrets"], secrets, strict=True):
            try:
                secret.hydrate()
            except modal.exception.NotFoundError as error:
                raise InputError(
                    f"--secrets: {name}: {error}; create it: modal secret create {name} KEY=VALUE"
                ) from None
    return function.with_options(**options) if options else function


def start(kind: str, function: modal.Function, jobs: list[Job]) -> Started:
    """Start the jobs that are not running already. They are calls of their own, which go on if detached."""
    if jobs:
        print(
            f"app {app.app_id}; its logs: modal app logs{env_flag()} -f {app.app_id}; to end all jobs: modal app stop"
            f"{env_flag()} {app.app_id}"
        )
    started: Started = {}
    for job in jobs:
        work = f"{kind} of {job.label}"
        begin = functools.partial(calls.start, work, function.spawn, job.arguments, register, app.app_id)
        started[job.label] = answer = attempt(job.label, begin)
        if not isinstance(answer, Result):
            call, is_new = answer
            print(f"{'started' if is_new else 'running already:'} {job.label} ({call.object_id})", flush=True)
    return started


def attempt(label: str, ask: Callable[[], Any]) -> Any:
    """What Modal answers, or a `Result` that says why it does not."""
    try:
        return ask()
    except InputError as error:
        return Result(label, error=str(error))
    except Exception as error:
        return Result(label, error=one_line(error))


def wait(started: Started) -> list[Result]:
    """What became of each job, in their order; printed as they end."""
    outcomes = {label: call for label, call in started.items() if isinstance(call, Result)}
    waiting = {label: call for label, call in started.items() if label not in outcomes}
    for label, answer in calls.answers({label: call for label, (call, _) in waiting.items()}):
        outcomes[label] = outcome(label, answer, *waiting[label])
        is_done = outcomes[label].error is None
        print(f"{'done' if is_done else 'not done'} {len(outcomes)}/{len(started)}: {label}", flush=True)
    return [outcomes[label] for label in started]


def outcome(label: str, answer: Any, call: modal.FunctionCall, is_new: bool = True) -> Result:
    """A call's answer as a result: its own, or that of an exception or of silence."""
    if isinstance(answer, Result):
        return answer
    if not isinstance(answer, calls.Unanswered):
        return Result(label, error=one_line(answer))
    if run_option("detach") or not is_new:
        fate = f"call {call.object_id} may still be running, and the same command waits for it"
    else:
        fate = "without --detach it ends with this command; the same command starts it again, where it was saved"
    return Result(label, error=f"{one_line(answer.error)}; {fate}", is_lost=True)


def one_line(error: BaseException) -> str:
    """An exception in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def run_option(name: str) -> Any:
    """What an option of `modal run` itself was given, None outside of it."""
    context = click.get_current_context(silent=True)
    context = context and context.parent  # an entry point may have a flag of the same name
    while context is not None and name not in context.params:
        context = context.parent
    return context and context.params[name]


def env_flag() -> str:
    """` -e ENV` as it was given to `modal run`, for the commands that are printed."""
    env = run_option("env")
    return f" -e {env}" if env else ""


def way_to_download() -> str:
    """The command that downloads what is new."""
    env = run_option("env")
    return cloud_jobs.DOWNLOAD + (f" --env {env}" if env else "")


# --- python modal_app.py --------------------------------------------------------------------------------------------


def download(env: str | None = None) -> int:
    """Copy what is new on the volumes to this folder, file by file; nothing is removed, no newer file replaced."""
    copies = {CHECKPOINTS_VOLUME: cloud_jobs.download_checkpoints, RESULTS_VOLUME: cloud_jobs.download_results}
    copies |= {LMC_VOLUME: cloud_jobs.download_lmc}
    copies |= {AGENTS_VOLUME: cloud_jobs.download_agents, SIMULATORS_VOLUME: cloud_jobs.download_simulators}
    for name, copy in copies.items():
        try:
            copy(modal.Volume.from_name(name, environment_name=env))
        except modal.exception.NotFoundError as error:
            print(f"{name}: nothing to download ({error})")
        except modal.exception.Error as error:
            raise InputError(f"volume {name}: {one_line(error)}; the same command goes on where it was") from None
    return 0


def parser(name: str) -> Parser:
    """A command line with the flags that `modal run` gives an entry point; that of `download`, too."""
    if takes_words(name):
        from generative import cloud as jobs

        return jobs.parser(name, GPU_OF_SCRIPT[name])
    parser = Parser(prog=f"modal_app.py {name}", description=__doc__)
    for parameter in inspect.signature(COMMANDS[name]).parameters.values():
        options: dict = {"action": argparse.BooleanOptionalAction} if parameter.annotation is bool else {}
        if parameter.annotation in (int, int | None):
            options["type"] = int
        options |= {"required": True} if parameter.default is parameter.empty else {"default": parameter.default}
        parser.add_argument(f"--{parameter.name.replace('_', '-')}", **options)
    return parser


def run_command() -> int:
    """`python modal_app.py download`, or `python modal_app.py [ENTRY POINT] --dry-run ...`: print its jobs."""
    words = sys.argv[1:]
    if "--extra-args" in words[:-1]:  # argparse, unlike `modal run`, would take a value such as --residual for a flag
        place = words.index("--extra-args")
        words[place : place + 2] = ["=".join(words[place : place + 2])]
    name = command_of(words)
    if name in words:
        words.remove(name)
    flags = vars(parser(name).parse_args(words))
    if name in ENTRY_POINTS and not flags["dry_run"]:
        raise InputError(f"add --dry-run to see the jobs; to start them: modal run modal_app.py::{name} ...")
    return COMMANDS[name](*words) if takes_words(name) else COMMANDS[name](**flags)


def takes_words(name: str) -> bool:
    """Whether a command has the flags of a script of generative/."""
    return "words" in inspect.signature(COMMANDS[name]).parameters


def command_of(words: list[str]) -> str:
    """The command that a command line names; main if none. Raises InputError where it names another."""
    for before, word in pairwise(["--dry-run", *words]):
        if word in COMMANDS:
            return word
        if before == "--dry-run" and not word.startswith("-"):
            raise InputError(f"unknown entry point {word!r}; it must be {', '.join(COMMANDS)}")
    return "main"


COMMANDS: dict[str, Callable[..., int]] = {**ENTRY_POINTS, "download": download}

if __name__ == "__main__":
    run_script(run_command)
