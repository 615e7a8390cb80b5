"""Ctrl-C at any moment of a command is one line and exit code 130, and ends what the command has started."""

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from scripts import PATIENCE_S, REPOSITORY, script_environment

from mop.common import interruption
from mop.common.workers import Died, JobPool, run_command, run_commands

PACKAGES = {"numpy", "numba", "torch", "pandas", "tqdm", "yaml", "scipy", "matplotlib", "minigrid", "marimo", "modal"}
SCRIPTS = [
    path.relative_to(REPOSITORY)
    for pattern in ("*.py", "studies/*.py", "benchmarks/*.py", "lmc_rl/*.py", "generative/*.py")
    for path in sorted(REPOSITORY.glob(pattern))
    if '__name__ == "__main__"' in path.read_text() and path.stem != "naive_training"  # the yardstick stays as it is
]
EACH_KIND = {"train_mop.py", "modal_app.py", "routing_viz.py", "studies/claims.py", "lmc_rl/run_env.py"}


def interrupted(path: Path, modules: set[str], folder: Path, *words: str) -> subprocess.CompletedProcess:
    """A command whose own process sends itself the signal where it imports the first of some modules."""
    (folder / "sitecustomize.py").write_text(
        "import os, signal, sys\nclass Finder:\n def find_spec(self, name, *_):\n"
        f"  if name in {modules!r}:\n   sys.meta_path.remove(self)\n   os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    environment = script_environment({"PYTHONPATH": os.pathsep.join([str(folder), str(REPOSITORY)])})
    is_module = path.parts[0] in ("lmc_rl", "generative")
    command = ["-m", ".".join(path.with_suffix("").parts)] if is_module else [str(path)]
    words = (sys.executable, *command, *words)
    return subprocess.run(words, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=PATIENCE_S)


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=[] if str(path) in EACH_KIND else pytest.mark.slow, id=str(path)) for path in SCRIPTS],
)
def test_while_other_packages_are_imported(path, tmp_path):
    result = interrupted(path, PACKAGES, tmp_path, "--help")
    if result.returncode != 130:  # --help of some needs none of them
        assert result.returncode == 0 and result.stderr == "" and str(path) not in EACH_KIND - {"train_mop.py"}
    else:
        assert result.stderr == "interrupted\n"


@pytest.mark.parametrize("module", ["numba", "torch"])
def test_while_the_compiler_is_imported(module, tmp_path):
    """Some of its modules make another error of whatever they meet."""
    result = interrupted(Path("generative/validate.py"), {module}, tmp_path, "--nonsense")
    assert (result.returncode, result.stderr) == (130, "interrupted\n")


def test_when_all_is_done(tmp_path):
    """The interpreter that leaves does not die of it."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal\nclass Last:\n"
        " def __del__(self, kill=os.kill, pid=os.getpid(), number=signal.SIGINT):\n  kill(pid, number)\nlast = Last()\n"
    )
    environment = script_environment({"PYTHONPATH": os.pathsep.join([str(tmp_path), str(REPOSITORY)])})
    command = [sys.executable, "train_mop.py", "--help"]
    result = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "") and "usage" in result.stdout


def test_what_it_says_is_said_once(capsys):
    with pytest.raises(SystemExit) as end:
        interruption._report(KeyboardInterrupt, KeyboardInterrupt("saved x"), None)
    assert end.value.code == 130 and capsys.readouterr().err == "interrupted: saved x\n"
    with pytest.raises(SystemExit):
        try:
            raise ImportError("initialization failed") from KeyboardInterrupt()
        except ImportError as error:
            interruption._report(ImportError, error, None)
    interruption._report(ValueError, ValueError("a bug"), None)
    assert re.search("ValueError: a bug", capsys.readouterr().err)
    assert sys.excepthook is not interruption._report  # other people's programs have their own


def test_what_c_code_drops_is_raised_again(monkeypatch):
    """The compiler of numba calls Python from C, where an exception comes to nothing."""
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)
    interruption.repeat_swallowed()
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        ctypes.CFUNCTYPE(None)(lambda: os.kill(os.getpid(), signal.SIGINT))()
        time.sleep(20)
    assert time.monotonic() - begun < 15


# --- pieces of work in processes --------------------------------------------------------------------------------------


def work(piece):
    """What a worker does with a piece: (what, a number, a folder)."""
    what, number, folder = piece
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "stumble":
        return {}[number]
    if what == "wait":
        (folder / f"begun_{number}").touch()
        try:
            time.sleep(PATIENCE_S)
        finally:
            (folder / f"ended_{number}").touch()
    return os.getpid(), number, signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_pieces_are_done_each_once_and_a_death_costs_its_own_piece_alone():
    with JobPool(2) as pool:
        pieces = [("die" if number == 1 else "go", number, None) for number in range(6)]
        found = dict(pool.run(work, pieces))
        assert found.pop(1) == Died(-signal.SIGKILL) and [found[n][1] for n in found] == list(found)
        assert sorted(found) == [0, 2, 3, 4, 5] and all(is_deaf for _, _, is_deaf in found.values())
        pids = {pid for pid, _, _ in found.values()}
        assert len(pids) <= 3 and os.getpid() not in pids
    assert not any(is_alive(pid) for pid in pids)


def test_a_bug_is_raised_with_its_place_and_ends_the_others(tmp_path):
    with pytest.raises(KeyError) as bug, JobPool(2) as pool:
        for _ in pool.run(work, [("wait", 0, tmp_path), ("stumble", 1, tmp_path), ("wait", 2, tmp_path)]):
            pass
    assert "in work" in bug.value.__notes__[0] and not (tmp_path / "begun_2").exists()


def test_ctrl_c_cuts_off_what_is_in_work_and_begins_nothing(tmp_path):
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt), JobPool(2) as pool:
        for number, _ in pool.run(work, [("go", 0, tmp_path), *(("wait", n, tmp_path) for n in range(1, 6))]):
            while len(list(tmp_path.glob("begun_*"))) < (number == 0):
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
    assert time.monotonic() - begun < PATIENCE_S / 2
    names = {path.name for path in tmp_path.iterdir()}
    assert 1 <= len(names) // 2 <= 2 and len([name for name in names if "ended" in name]) == len(names) // 2


def is_alive(pid: int) -> bool:
    """Whether there is such a process."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def test_a_command_has_the_time_to_save(tmp_path):
    """Ctrl-C is for this process alone: it tells the command, which ends by itself and is not killed meanwhile."""
    saves = f"""if True:
        import os, signal, sys, time
        def save(*_):
            time.sleep(1)
            open({str(tmp_path / "saved")!r}, "w").close()
            sys.exit()
        signal.signal(signal.SIGTERM, save)
        assert os.getpgrp() != os.getpgid(os.getppid())
        os.kill(os.getppid(), signal.SIGINT)
        time.sleep(60)
    """
    since = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_command([sys.executable, "-c", saves])
    assert (tmp_path / "saved").exists() and time.monotonic() - since < 30


def test_commands_run_several_at_a_time_and_a_failed_one_costs_no_other(tmp_path):
    meet = """if True:
        import os, sys, time
        open(sys.argv[1], "w").close()
        while not os.path.exists(sys.argv[2]):
            time.sleep(0.01)
    """
    names = [str(tmp_path / name) for name in "ab"]  # each waits for the file of the other
    commands = [([sys.executable, "-c", meet, *order], {}) for order in (names, names[::-1])]
    commands += [([sys.executable, "-c", f"raise SystemExit({code})"], {}) for code in (3, 4)]
    assert sorted(run_commands(iter(commands), 2)) == [(0, 0), (1, 0), (2, 3), (3, 4)]
    assert run_command([sys.executable, "-c", "raise SystemExit(3)"]) == 3
