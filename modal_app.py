"""Train and evaluate on Modal's machines: the scripts of this repository in containers, with its folders on volumes.

    modal run --detach modal_app.py::main --task-ids "BabyAI-GoToObj-v0,BabyAI-UnlockPickup-v0" --trials "0,1,2"
    modal run modal_app.py::eval_parallel          what modal_checkpoints/ holds and evaluation_results.csv lacks
    modal run modal_app.py::eval_main              the same, one container at a time
    modal run modal_app.py::eval_parallel --interventions    without an expert, what fails?
    modal run --detach modal_app.py::lmc --env Hopper-v5 --seeds "1,2,3"     linear mode connectivity
    modal run --detach modal_app.py::train_agent --gpu A10G --exp_name mine --param_name hard-rec     a game's agent
    modal run --detach modal_app.py::train_gen_model --data_dir recordings/X     a simulator of a recording's worlds

    python modal_app.py eval_parallel --dry-run    the command lines of any of these, without an account
    python modal_app.py download                   what is new on the volumes, to the same folders here

Exit code 0: every job is done; 1: some failed (they are listed, the others' files stand); 2: nothing was started.
Jobs of training and evaluation: mop/cloud.py.
"""

from mop import cloud  # first: it answers Ctrl-C while all else is imported

import contextlib
import functools
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import modal
import modal.exception

from mop.cloud import CloudSettings, EvalSettings, Job, TrainSettings
from mop.common.cli import Parser, add_settings, parse, setting
from mop.common.errors import InputError, exit_code, run_script

HERE = Path(__file__).resolve().parent
HOME = "/root"  # of a container
CPUS, MEMORY_MIB = 1.0, 3072  # peaks: a default training 1.0 GiB, the largest evaluation measured 1.4
GAME_CPUS, GAME_MEMORY_MIB = 4.0, 8192  # a game has 8 threads, and a rollout of hard-rec is 0.8 GiB of frames
LMC_CPUS = 4  # children of a fork side by side
TIMEOUT_S = 24 * 60 * 60  # the longest that Modal allows; what needs more goes on in the next attempt
COMMIT_S = 60.0
TO_BE_TRIED_AGAIN = {130, 143, -2, -9, -15}  # exit codes of scripts which were stopped
WANDB = "wandb==0.31.0"  # for --extra-args "--wandb_project ...", with --secrets
# Kernels are compiled where the image is built and run on other processors: they are compiled for the oldest of these.
ANY_PROCESSOR = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma"}
# `modal app logs` shows the last 100 entries, and each refresh of a progress bar is one.
FEW_LINES = {"TQDM_MININTERVAL": "60", "TQDM_MAXINTERVAL": "60"}
FOLDERS = {  # of a container -> the volume, and the folder here
    cloud.CHECKPOINT_DIR: ("rl-mop", cloud.CHECKPOINT_DIR),
    cloud.RESULTS_DIR: ("rl-mop-eval", "."),
    "lmc": ("rl-mop-lmc", "."),
    "logs": ("rl-mop-logs", "logs"),
    "simulators": ("rl-mop-simulators", "simulators"),
    "recordings": ("rl-mop-recordings", None),  # these are uploaded
}
FETCH_ENCODER = "from transformers import AutoModel, AutoTokenizer as T; n = 'distilbert-base-uncased'; "
FETCH_ENCODER += "AutoModel.from_pretrained(n); T.from_pretrained(n)"

image = (
    modal.Image.debian_slim(python_version="3.11")
    .apt_install("libqt5gui5")  # for envpool's games
    .uv_pip_install(requirements=[str(HERE / "requirements.txt"), str(HERE / "requirements-coinrun.txt")])
    .uv_pip_install(WANDB)
    .env({"HF_HOME": "/opt/huggingface", "MUJOCO_GL": "disable", **ANY_PROCESSOR, **FEW_LINES})
    .workdir(HOME)
    .run_commands(f'python -c "{FETCH_ENCODER}"')
)
for name in ("config.yaml", *sorted(path.name for path in HERE.glob("*.py"))):
    image = image.add_local_file(HERE / name, f"{HOME}/{name}", copy=True)
for name in ("mop", "lmc_rl", "generative", "results/zoo"):
    image = image.add_local_dir(HERE / name, f"{HOME}/{name}", copy=True, ignore=["**/__pycache__"])
image = image.run_commands(*(f"cd {HOME} && python {shlex.join(job)}" for job in cloud.WARM_UP))
image = image.run_commands(f"rm -r {HOME}/checkpoints {HOME}/evaluation_cache {HOME}/evaluation_results.csv")
VOLUMES = {folder: modal.Volume.from_name(name, create_if_missing=True) for folder, (name, _) in FOLDERS.items()}
app = modal.App("rl-mop", image=image)


@app.function(
    volumes={f"{HOME}/{folder}": volume for folder, volume in VOLUMES.items()},
    cpu=CPUS,
    memory=MEMORY_MIB,
    timeout=TIMEOUT_S,
    retries=modal.Retries(max_retries=3, initial_delay=10.0, backoff_coefficient=2.0),
    single_use_containers=True,
)
def run(job: Job) -> int:
    """Run one command line of this repository; returns its exit code, and is tried again where it was stopped."""
    for volume in VOLUMES.values():
        volume.reload()
    with committing():
        code = subprocess.run([sys.executable, *job]).returncode
    if code in TO_BE_TRIED_AGAIN:
        raise InterruptedError(f"exit code {code}; the next attempt goes on")
    return code


@contextlib.contextmanager
def committing() -> Generator[None]:
    """Commit all volumes every minute, and at the end."""
    is_over = threading.Event()

    def commit_all() -> None:
        for volume in VOLUMES.values():
            volume.commit()

    def commit_now_and_then() -> None:
        while not is_over.wait(COMMIT_S):
            commit_all()

    thread = threading.Thread(target=commit_now_and_then, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
        commit_all()


# --- commands ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The jobs of a command, the flags of the cloud, and what their containers get."""

    jobs: list[Job]
    settings: CloudSettings
    cpus: float = CPUS
    memory_mib: int = MEMORY_MIB
    in_turn: bool = False
    afterwards: Job | None = None


@dataclass(frozen=True, kw_only=True)
class LMCSettings(CloudSettings):
    """The flags of `lmc`."""

    env: str = setting("InvertedDoublePendulum-v5", "of MuJoCo")
    algo: str = setting("SAC", "SAC or DDPG")
    seeds: str = setting("1", "such as 1,2,3: a parent each")
    fork_points: str = setting("", "such as 0.1,0.5 (default: those of lmc_rl)")
    extra_args: str = setting("", "other flags of lmc_rl.run_env")


def plan_main(words: Sequence[str]) -> Plan:
    """Train every task x trial [x seed] in a container of its own."""
    settings = parse(TrainSettings, plan_main.__doc__, words)
    return Plan(jobs=cloud.training_jobs(settings), settings=settings)


def plan_eval_parallel(words: Sequence[str]) -> Plan:
    """Evaluate every checkpoint without a result in a container of its own, then merge all results."""
    settings = parse(EvalSettings, plan_eval_parallel.__doc__, words)
    if settings.interventions:
        return Plan(jobs=cloud.intervention_jobs(settings), settings=settings)
    jobs = cloud.evaluation_jobs(settings)
    return Plan(jobs=jobs, settings=settings, afterwards=cloud.merging_job(settings) if jobs else None)


def plan_eval_main(words: Sequence[str]) -> Plan:
    """The same, one container at a time."""
    return replace(plan_eval_parallel(words), in_turn=True)


def plan_lmc(words: Sequence[str]) -> Plan:
    """Fork a run of each seed, train the children, and evaluate the lines between them, a container for each seed."""
    settings = parse(LMCSettings, plan_lmc.__doc__, words)
    given = ["--fork_points", settings.fork_points] if settings.fork_points else []
    given += ["--output_dir", "lmc", "--jobs", str(LMC_CPUS), "--resume", *shlex.split(settings.extra_args)]
    jobs = [
        ["-m", "lmc_rl.run_env", "--env", settings.env, "--algo", settings.algo, "--seed", seed, *given]
        for seed in cloud.split(settings.seeds)
    ]
    return Plan(jobs=jobs, settings=settings, cpus=LMC_CPUS, memory_mib=LMC_CPUS * MEMORY_MIB)


def plan_generative(name: str, words: Sequence[str], **machine) -> Plan:
    """Train with a script of generative/: its own flags, and those of the cloud."""
    parser = add_settings(Parser(prog=f"modal_app.py::{name}", add_help=False), CloudSettings)
    given, own = parser.parse_known_args(words)
    settings = CloudSettings(**vars(given))
    own = [word for word in own if word != "--resume"]
    device = [] if settings.gpu == "none" or "--device" in own else ["--device", "gpu"]
    return Plan(jobs=[["-m", f"generative.{name}", *own, *device, "--resume"]], settings=settings, **machine)


PLANS: dict[str, Callable[[Sequence[str]], Plan]] = {
    "main": plan_main,
    "eval_parallel": plan_eval_parallel,
    "eval_main": plan_eval_main,
    "lmc": plan_lmc,
    "train_agent": functools.partial(plan_generative, "train_agent", cpus=GAME_CPUS, memory_mib=GAME_MEMORY_MIB),
    "train_gen_model": functools.partial(plan_generative, "train_gen_model"),
}


def start(name: str, words: Sequence[str]) -> int:
    """Carry out a command: print its jobs, or run each in a container; returns the exit code."""
    plan = PLANS[name](cloud.flags_of(words))
    settings = plan.settings
    print(*(f"python {shlex.join(job)}" for job in plan.jobs), sep="\n")
    if settings.dry_run or not plan.jobs:
        print(f"{len(plan.jobs)} jobs; none is started")
        return 0
    options: dict[str, Any] = {"cpu": plan.cpus, "memory": plan.memory_mib}
    options |= {} if settings.gpu == "none" else {"gpu": settings.gpu}
    options |= {"secrets": [modal.Secret.from_name(secret) for secret in cloud.split(settings.secrets)]}
    on_machine = run.with_options(**options, **({"max_containers": 1} if plan.in_turn else {}))
    calls = [on_machine.spawn(job) for job in plan.jobs]
    print(f"app {app.app_id}: modal app logs -f {app.app_id}; to end all jobs: modal app stop {app.app_id}")
    failed = [line for job, call in zip(plan.jobs, calls, strict=True) if (line := failure(job, call))]
    if plan.afterwards and (line := failure(plan.afterwards, run.spawn(plan.afterwards))):
        failed.append(line)
    print(*failed, f"{len(plan.jobs)} jobs, {len(failed)} failed; python modal_app.py download", sep="\n")
    return 1 if failed else 0


def failure(job: Job, call: modal.FunctionCall) -> str | None:
    """Wait for a job; a line that says why it failed, or None."""
    try:
        code = call.get()
    except Exception as error:  # whatever went wrong there is raised here; the other jobs go on
        return f"failed: {shlex.join(job)}: {' '.join(f'{type(error).__name__}: {error}'.split())}"
    print(f"{'done' if code == 0 else f'exit code {code}'}: {shlex.join(job)}", flush=True)
    return f"failed: {shlex.join(job)}: exit code {code}, see the log" if code else None


def _entry_point(name: str) -> modal.app.LocalEntrypoint:
    def command(*words: str) -> None:
        if code := exit_code(functools.partial(start, name, words)):  # Modal takes even an exit with 0 for an error
            sys.exit(code)

    command.__name__ = command.__qualname__ = name
    command.__doc__ = PLANS[name].__doc__
    return app.local_entrypoint(name=name)(command)


main, eval_parallel, eval_main = map(_entry_point, ("main", "eval_parallel", "eval_main"))
lmc, train_agent, train_gen_model = map(_entry_point, ("lmc", "train_agent", "train_gen_model"))


# --- python modal_app.py ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DownloadSettings:
    """The flags of `download`."""

    env: str | None = setting(None, "environment of your account")


def download(words: Sequence[str]) -> int:
    """Copy what is new on the volumes to the same folders here; nothing is removed, no newer file replaced."""
    settings = parse(DownloadSettings, download.__doc__, words)
    for name, folder in FOLDERS.values():
        if folder is None:
            continue
        try:
            volume = modal.Volume.from_name(name, environment_name=settings.env)
            print(f"{name}: {cloud.download(volume, folder, skip=cloud.RESULTS_TABLE)} files were new")
        except modal.exception.NotFoundError as error:
            print(f"{name}: nothing to download ({error})")
        except modal.exception.Error as error:
            raise InputError(f"volume {name}: {error}; the same command goes on where it was") from None
    cloud.merge()
    return 0


def run_command() -> int:
    """`python modal_app.py download`, or `python modal_app.py [ENTRY POINT] --dry-run ...`."""
    words = sys.argv[1:]
    name = words.pop(0) if words and not words[0].startswith("-") else "main"
    if name == "download":
        return download(cloud.flags_of(words))
    if name not in PLANS:
        raise InputError(f"unknown entry point {name!r}; it must be {', '.join(PLANS)} or download")
    if "--help" not in words and "-h" not in words and "--dry_run" not in cloud.flags_of(words):
        raise InputError(f"add --dry-run to see the jobs; to start them: modal run modal_app.py::{name} ...")
    return start(name, words)


if __name__ == "__main__":
    run_script(run_command)
