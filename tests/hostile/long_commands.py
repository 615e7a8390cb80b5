"""Commands that take seconds and go on when they are given again, with what they need and what they leave."""

import csv
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch
from eval_helpers import UNLOCK, put, random_checkpoint
from generative_data import record_tiny, tiny_checkpoint
from processes import processes_of
from scripts import REPOSITORY, script_environment

signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored, also by what is started
LIMIT_S = 300.0  # of a command
TIMES = ("evaluated_at", "seconds", "steps_per_s", "frames_per_s", "updates_per_s", "trained_at")
TINY = ("--num_envs", "4", "--unroll_len", "8", "--expert_hidden_sizes", "0,4;0,8", "--router_hidden_size", "6")
TINY += ("--intermediate_dim", "12", "--lang_dim", "5", "--lang_encoder", "vocab", "--device", "cpu", "--replay", "0")
LINES = ("--fork_points", "0.5", "--alpha_points", "3", "--num_eval_episodes", "6", "--jobs", "2", "--resume")
PATHS = ("--output_dir", ".", "--seed", "5")
POLICY = f"checkpoints/{UNLOCK}/trial_0/checkpoint_final.pt"
RECORDING = ("--data_dir", "recording", "--checkpoint", POLICY)
COMMANDS = {  # what is resumed by --resume has it from the first time on
    "train_mop": ("train_mop.py", "--task_id", UNLOCK, "--trial", "7", "--num_updates", "300", *TINY, "--resume"),
    "train_workers": (
        *("train_mop.py", "--task_id", f"{UNLOCK},BabyAI-GoToObj-v0", "--name", "two", "--num_updates", "150", *TINY),
        *("--num_workers", "2", "--resume"),
    ),
    "batch_eval": ("batch_eval.py", "--num_episodes", "60", "--jobs", "2", "--device", "cpu"),
    "intervene": ("intervene.py", "--checkpoint", POLICY, "--num_episodes", "40"),
    "gallery": ("gallery.py", "--cache_dir", "evaluated", "--results_path", "evaluated.csv"),
    "run_env": (
        *("-m", "lmc_rl.run_env", "--env", "Hopper-v5", "--total_steps", "600", "--learning_starts", "100"),
        *("--hidden_sizes", "16", "--eval_freq", "300", "--eval_episodes", "1", "--max_episode_steps", "30"),
        *(*LINES, *PATHS),
    ),
    "run_mop": (
        *("-m", "lmc_rl.run_mop", "--task_id", "BabyAI-GoToObj-v0", "--num_updates", "30", *TINY, *LINES, *PATHS),
        *("--num_trajectories", "6"),
    ),
    "record": (
        *("-m", "generative.record", "--checkpoint", POLICY, "--data_dir", "recorded", "--num_steps", "20000"),
        *("--num_envs", "6", "--max_steps", "24", "--resume"),
    ),
    "train_gen_model": (
        *("-m", "generative.train_gen_model", "--data_dir", "recording", "--agent_file", POLICY, "--param_name"),
        *("small", "--batch_size", "8", "--num_sim_steps", "8", "--num_initializing_steps", "4", "--log_interval"),
        *("5", "--num_updates", "60", "--tgm_exp_name", "a", "--resume"),
    ),
    "validate": ("-m", "generative.validate", *RECORDING, "--num_episodes", "4", "--steps_per_episode", "2"),
    "saliency": ("-m", "generative.saliency", *RECORDING, "--out", "salient", "--horizon", "3", "--num_points", "2"),
    "directions": (
        *("-m", "generative.directions", "--data_dir", "recording", "--out", "found", "--num_seeds", "1"),
        *("--num_components", "3", "--max_rows", "300", "--blocks", "router_0"),
    ),
    "claims": ("tests/helpers/tiny_claims.py", "--jobs", "2"),
    "cloud": (
        *("tests/hostile/cloud_list.py", "--task_ids", f"{UNLOCK},BabyAI-GoToObj-v0", "--trials", "8", "--extra_args"),
        f"--num_updates 60 {' '.join(TINY)}",
    ),
}  # fmt: skip


def prepare(root: Path) -> None:
    """What the commands need: policies, results of one of them, a recording."""
    for trial in (0, 1, 2):
        checkpoint = tiny_checkpoint(root / "checkpoints") if trial == 0 else random_checkpoint(trial, UNLOCK)
        if trial:
            put(root / "checkpoints", checkpoint, trial=trial)
    record_tiny(root / POLICY, root / "recording", num_steps=3000)
    words = ("batch_eval.py", "--num_episodes", "10", "--cache_dir", "evaluated", "--trial", "0", "--device", "cpu")
    run(words, root, "--results_path", "evaluated.csv")


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str
    seconds: float


@contextmanager
def started(words: tuple[str, ...], root: Path, **environment: str) -> Iterator[subprocess.Popen]:
    """A command in a session of its own, in a folder; whatever of it still runs at the end is killed."""
    script, *rest = words
    command = [sys.executable, *([script] if script == "-m" else [str(REPOSITORY / script)]), *rest]
    paths = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests" / "helpers")])
    env = script_environment({"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **environment})
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, cwd=root, env=env, text=True, start_new_session=True, **pipes)  # ty: ignore
    try:
        yield process
    finally:
        for pid in processes_of(process.pid):
            os.kill(pid, 9)
        process.wait()


def ended(process: subprocess.Popen, since: float) -> Ended:
    """Wait for a command, which was started at `since`."""
    out, err = process.communicate(timeout=LIMIT_S)
    return Ended(process.returncode, out, err, time.monotonic() - since)


def run(words: tuple[str, ...], root: Path, *more: str, **environment: str) -> Ended:
    """Run a command to its end, which must be a good one."""
    since = time.monotonic()
    with started((*words, *more), root, **environment) as process:
        done = ended(process, since)
    assert done.code == 0 and "Traceback" not in done.err, (
        f"exit code {done.code}\n{done.out[-500:]}\n{done.err[-1500:]}"
    )
    return done


def copy(root: Path, target: Path) -> Path:
    """A copy of a prepared folder."""
    shutil.copytree(root, target, symlinks=True)
    return target


# --- what a command leaves --------------------------------------------------------------------------------------------


def outcome(root: Path) -> dict[str, Any]:
    """What a folder holds, but for times and names that hold times: file -> content, of pictures that there is one."""
    found = {}
    for path in sorted(root.rglob("*")):
        if path.is_file():
            found[_timeless(path.relative_to(root).as_posix())] = _content(path)
    return found


def leftovers(root: Path) -> list[str]:
    """Files that only a command at work needs."""
    return [
        path.relative_to(root).as_posix() for path in root.rglob(".*") if path.suffix in (".tmp", ".lock", ".claim")
    ]


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The files in which two outcomes differ."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def _timeless(text: str) -> str:
    return re.sub(r"\d{8}_\d{6}", "time", text)


def _content(path: Path) -> Any:
    if path.suffix == ".pt":
        return repr(_plain(torch.load(path, weights_only=True)))
    if path.suffix == ".csv":
        rows = csv.DictReader(io.StringIO(path.read_text()))
        return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]
    if path.suffix in (".json", ".jsonl"):
        data = path.read_bytes()
        lines = [data] if path.suffix == ".json" else data[: data.rfind(b"\n") + 1].splitlines()  # the last may be torn
        return [_timeless(orjson.dumps(_plain(orjson.loads(line))).decode()) for line in lines]
    if path.suffix == ".npz":
        with np.load(path) as arrays:  # of a cache, the header and its digest know when it was made
            return [(name, arrays[name].tobytes()) for name in arrays.files if name not in ("content", "digest")]
    if path.suffix in (".png", ".html", ".svg", ".txt"):
        return "a picture, or what a command has printed"
    return _timeless(path.read_bytes().decode("latin-1"))


def _plain(value: Any) -> Any:
    """Without times, keys in order; tensors as bytes."""
    if isinstance(value, dict):
        return {key: _plain(value[key]) for key in sorted(value, key=str) if key not in TIMES}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return (str(value.dtype), value.numpy().tobytes()) if isinstance(value, torch.Tensor) else value
