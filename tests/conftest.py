"""What several test files share: the flags of a tiny run, such a run as files, and scripts as subprocesses."""

import contextlib
import os
import re
import runpy
import shutil
import subprocess
import sys
import threading
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # one process for each core: more threads would wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")

PATIENCE_S = 300.0  # with what takes seconds where nothing else runs
_ONE_AT_A_TIME = threading.Lock()
CHROMIUM_FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
REPOSITORY = Path(__file__).resolve().parent.parent
TINY_TASK = "BabyAI-GoToObj-v0"
TINY_FLAGS = (
    *("--task_id", TINY_TASK, "--num_envs", "4", "--unroll_len", "8", "--num_updates", "6", "--log_interval", "2"),
    *("--expert_hidden_sizes", "0,4;0,8", "--router_hidden_size", "6", "--gru_hidden_size", "6"),
    *("--intermediate_dim", "12", "--lang_dim", "5", "--lang_encoder", "vocab", "--device", "cpu"),
    # the plainest training, whatever the defaults are
    *("--obs_encoding", "raw", "--residual", "false", "--expert_gain", "1"),
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
    """`subprocess.run` of a script of the repository without the seconds that a process of its own takes to begin.

    It takes part in nothing else of this process: one at a time, its arguments and its folder are its own. The
    environment stays this process's.
    """
    python, script, *words = map(str, command)
    assert python == sys.executable and stderr in (None, subprocess.STDOUT)
    with _ONE_AT_A_TIME, contextlib.chdir(cwd), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [script, *words])
        told = contextlib.redirect_stdout(stdout) if stdout else contextlib.nullcontext()
        wrong = contextlib.redirect_stderr(stdout) if stderr else contextlib.nullcontext()
        with told, wrong, warnings.catch_warnings():
            try:
                runpy.run_path(script, run_name="__main__")
                code = 0
            except SystemExit as end:
                code = end.code or 0
    return subprocess.CompletedProcess(command, code)


def pytest_configure(config) -> None:
    """Compile the kernels before worker processes begin: numba's files are not made for several writers."""
    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        code = "from mop.jobs.cloud import warm_up; warm_up()"
        subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True, capture_output=True)


@pytest.fixture(scope="module")
def browser():
    """A real browser, headless; what asks for it is skipped where there is none."""
    executable = shutil.which("chromium")
    if executable is None:
        pytest.skip("no chromium here (`apt-get install chromium`)")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable, args=list(CHROMIUM_FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="session", name="run_script")
def run_script_fixture():
    """`run_script` for tests that ask for it by name."""
    return run_script


@pytest.fixture(scope="session")
def tiny_flags() -> list[str]:
    """Flags of a run of a few seconds; a flag given once more after them wins."""
    return list(TINY_FLAGS)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory, tiny_flags) -> Path:
    """A folder to run scripts in, with a finished run of a mixture, trial 0, in `checkpoints`; change only copies."""
    root = tmp_path_factory.mktemp("tiny_run")
    result = run_script("train_mop.py", *tiny_flags, cwd=root)
    assert result.returncode == 0, result.stderr
    return root


@pytest.fixture(scope="session")
def modal_server(tmp_path_factory):
    """Folder and address of the running stand-in for Modal's servers."""
    modal = pytest.importorskip("modal")
    from modal_cloud import PIN, serve

    if modal.__version__ != PIN:
        pytest.skip(f"modal {modal.__version__} is here, the stand-in is for {PIN}")
    yield from serve(tmp_path_factory.mktemp("stand_in"))


@pytest.fixture
def remote(modal_server, tmp_path, request):
    """A Modal environment of its own, and a folder on "this machine" that it is used from."""
    from modal_cloud import Cloud

    name = re.sub(r"[^a-z]+", "-", request.node.name.removeprefix("test_"))
    return Cloud(*modal_server, name, tmp_path)


@pytest.fixture(scope="session")
def games() -> None:
    """What asks for it is skipped where games cannot be played."""
    from generative.games import check_playable
    from mop.base.errors import InputError

    try:
        check_playable("coinrun", "easy")
    except InputError as error:
        pytest.skip(str(error))
