"""Fixtures that several test files share: a browser, a tiny trained run, a stand-in for the cloud."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from scripts import REPOSITORY, TINY_FLAGS, run_here, script_command

from mop.cloud import WARM_UP

os.environ.setdefault("OMP_NUM_THREADS", "1")  # as every command has it: matrices are small

# a shell that starts this in the background ignores Ctrl-C, and so would whatever the tests start
signal.signal(signal.SIGINT, signal.default_int_handler)

CHROMIUM_FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)


def pytest_configure(config) -> None:
    """Compile the kernels before worker processes begin: numba's files are not made for several writers."""
    config.addinivalue_line("markers", "slow: kills and starts processes, drives a browser or measures many episodes")
    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        with tempfile.TemporaryDirectory() as folder:
            for script, *flags in WARM_UP:
                command = [sys.executable, str(REPOSITORY / script), *flags]
                subprocess.run(command, cwd=folder, check=True, capture_output=True)


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


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory) -> Path:
    """A folder to run scripts in, with a finished run of a mixture, trial 0, in `checkpoints`; change only copies."""
    root = tmp_path_factory.mktemp("tiny_run")
    assert run_here(script_command("train_mop.py", *TINY_FLAGS), cwd=root).returncode == 0
    return root


@pytest.fixture(scope="session")
def games() -> None:
    """What asks for it is skipped where games cannot be played."""
    from generative.domains.coinrun.games import check_playable
    from mop.common.errors import InputError

    try:
        check_playable("coinrun", "easy")
    except InputError as error:
        pytest.skip(str(error))
