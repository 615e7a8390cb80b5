"""Scripts of the repository as subprocesses or in this process, and the flags of a tiny run."""

import contextlib
import functools
import os
import runpy
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from mop.common.errors import exit_code

PATIENCE_S = 300.0  # with what takes seconds where nothing else runs
REPOSITORY = Path(__file__).resolve().parents[2]
TINY_TASK = "BabyAI-GoToObj-v0"
TINY_FLAGS = (
    *("--task_id", TINY_TASK, "--num_envs", "4", "--unroll_len", "8", "--num_updates", "6", "--log_interval", "2"),
    *("--expert_hidden_sizes", "0,4;0,8", "--router_hidden_size", "6", "--gru_hidden_size", "6"),
    *("--intermediate_dim", "12", "--lang_dim", "5", "--lang_encoder", "vocab", "--device", "cpu"),
    # the plainest training, whatever the defaults are
    *("--obs_encoding", "raw", "--input_encoder", "linear", "--residual", "false", "--expert_gain", "1"),
    *("--replay", "0", "--teacher_mix", "0", "--lr_decay", "false"),
)


def script_command(name: str, *args) -> list[str]:
    """The command line of a script of the repository; `name` without a folder, such as "train.py"."""
    return [sys.executable, str(REPOSITORY / name), *map(str, args)]


def script_environment(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment, without the network for models, and with `env`."""
    return os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"} | dict(env or {})


def run_script(
    name: str, *args, timeout: float = PATIENCE_S, env: Mapping[str, str] | None = None, cwd: str | Path = REPOSITORY
) -> subprocess.CompletedProcess[str]:
    """Run a script of the repository to its end with this Python; text output and return code, never an exception."""
    return subprocess.run(
        script_command(name, *args),
        timeout=timeout,
        env=script_environment(env),
        cwd=cwd,
        text=True,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def run_here(
    command: Sequence[str | Path], *, cwd: Path, env: dict[str, str] | None = None, stdout=None, stderr=None
) -> subprocess.CompletedProcess:
    """`subprocess.run` of a script or module of the repository without the seconds that a process takes to begin.

    It takes part in nothing else of this process: its arguments and its folder are its own. The environment stays
    this process's.
    """
    python, *words = map(str, command)
    assert python == sys.executable and stderr in (None, subprocess.STDOUT)
    is_module = words[0] == "-m"
    words = words[is_module:]
    run = functools.partial(runpy.run_module, alter_sys=True) if is_module else runpy.run_path
    with contextlib.chdir(cwd), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", words)
        told = contextlib.redirect_stdout(stdout) if stdout else contextlib.nullcontext()
        wrong = contextlib.redirect_stderr(stdout) if stderr else contextlib.nullcontext()
        with told, wrong, warnings.catch_warnings():
            try:
                run(words[0], run_name="__main__")
                code = 0
            except SystemExit as end:
                code = end.code or 0
    return subprocess.CompletedProcess(command, code)


def run_commands_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a study run its commands by `run_here`."""
    monkeypatch.setattr("subprocess.run", run_here)

    def run_all(commands: Iterable[tuple[list, dict]], jobs: int) -> Iterator[tuple[int, int]]:
        return ((number, run_here(words, **options).returncode) for number, (words, options) in enumerate(commands))

    monkeypatch.setattr("mop.common.workers.run_commands", run_all)
    monkeypatch.setattr("studies.experiments.run_commands", run_all)


def run_script_here(capsys, name: str, *args, cwd: str | Path) -> subprocess.CompletedProcess[str]:
    """`run_script` without a process of its own, see `run_here`."""
    capsys.readouterr()
    done = run_here(script_command(name, *args), cwd=Path(cwd))
    return subprocess.CompletedProcess(done.args, done.returncode, *capsys.readouterr())


def start(script: str | Path, *args, cwd: Path, **environment) -> subprocess.Popen:
    """Start a script of the repository in a process of its own."""
    env = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    command = [sys.executable, REPOSITORY / script, *map(str, args)]
    return subprocess.Popen(command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def in_process(main: Callable[[], int | None], *args) -> int:
    """Run a command's `main` with these arguments in this process; its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["command", *map(str, args)])
        patch.setattr(warnings, "showwarning", warnings.showwarning)
        return exit_code(main)


def the_error_line(stderr: str) -> str:
    """The one line that a command wrote to stderr, apart from a progress bar that was wiped out before it."""
    assert stderr.count("\n") == 1 and stderr.endswith("\n") and len(stderr) < 2000, stderr
    line = stderr.rstrip("\n").split("\r")[-1]
    assert line.startswith("error: "), stderr
    return line


def refused(capsys, main: Callable[[], int | None], *args) -> str:
    """The one line with which a command refuses these arguments."""
    capsys.readouterr()
    assert in_process(main, *args) == 2, args
    return the_error_line(capsys.readouterr().err)


def check_refused(capsys, main: Callable[[], int | None], cases: Mapping[tuple, str | tuple], *always) -> None:
    """Each case's arguments, after those of all, are refused in one line that holds the case's words."""
    for args, words in cases.items():
        line = refused(capsys, main, *always, *args)
        for word in (words,) if isinstance(words, str) else words:
            assert word in line, (args, line)
