"""A study that is killed, or told to end, leaves no training behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from processes import needs_proc, processes_of
from scripts import PATIENCE_S, REPOSITORY, TINY_TASK, script_environment

LIMIT_S = PATIENCE_S  # until trainings have begun
GONE_S = 15.0  # until all have ended

TRAININGS = f"""
import sys
from pathlib import Path
from studies import experiments

experiments.RUNS = Path(sys.argv[1])
flags = dict(num_updates=10**6, num_envs=4, unroll_len=8, expert_hidden_sizes="0,4", intermediate_dim=8)
flags |= dict(router_hidden_size=4, lang_dim=4, replay_size=10, device="cpu")
trainings = [experiments.Training("settings", "{TINY_TASK}", "base", trial, 0, flags) for trial in (0, 1)]
experiments.train_missing(trainings, 2)
"""
CHANGES = """
import sys
from pathlib import Path
from studies import collapse

if __name__ == "__main__":
    collapse.RUNS = Path(sys.argv.pop(1))
    collapse.main()
"""


@contextmanager
def begun(script: str, folder: Path, *flags: str) -> Iterator[subprocess.Popen]:
    """A script in a session of its own, of which nothing is left at the end."""
    path = folder / "study.py"
    path.write_text(script)
    environment = script_environment({"PYTHONPATH": str(REPOSITORY)})
    command = [sys.executable, str(path), *flags]
    with open(folder / "told.txt", "w") as told:
        study = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=told, stderr=told, stdin=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
    try:
        yield study
    finally:
        for pid in processes_of(study.pid):
            os.kill(pid, signal.SIGKILL)
        study.wait()


def end(study: subprocess.Popen, number: int) -> list[int]:
    """Send a study alone a signal; which of its processes are there when all should have ended."""
    os.kill(study.pid, number)
    study.wait(timeout=GONE_S)
    deadline = time.monotonic() + GONE_S
    while (left := processes_of(study.pid)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def wait_for(what, study: subprocess.Popen, folder: Path) -> None:
    """Return when `what()` is true."""
    deadline = time.monotonic() + LIMIT_S
    while not what():
        assert time.monotonic() < deadline and study.poll() is None, (folder / "told.txt").read_text()
        time.sleep(0.1)


@needs_proc
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_trainings_end_with_their_study_and_keep_their_state(number, tmp_path):
    learning = [tmp_path / "settings" / TINY_TASK / f"trial_{trial}" / "seed_0" for trial in (0, 1)]
    with begun(TRAININGS, tmp_path, str(tmp_path)) as study:
        wait_for(lambda: all((run / "training_log.csv").exists() for run in learning), study, tmp_path)
        assert len(processes_of(study.pid)) >= 3
        assert not end(study, number)
    assert all((run / "training_state.pt").exists() for run in learning)


@needs_proc
def test_workers_end_with_their_study(tmp_path):
    with begun(CHANGES, tmp_path, str(tmp_path), "--jobs", "2") as study:
        wait_for(lambda: len(processes_of(study.pid)) >= 3, study, tmp_path)
        time.sleep(5)  # they import, or learn
        assert not end(study, signal.SIGKILL)
