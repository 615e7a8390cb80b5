"""Every command of the five documents that this repository was first described by: it works as it was typed there.

They are in earlier_commands.txt, with the paths of their authors' machines shortened, and without the words for a batch
system in front of a command.
"""

import contextlib
import os
import shlex
import subprocess
import sys
from glob import glob
from pathlib import Path
from runpy import run_module, run_path
from typing import NamedTuple

import pytest
from checks import refusal
from commands import check_command
from scripts import PATIENCE_S, REPOSITORY, run_here


class Row(NamedTuple):
    """A command as it was typed; the flags that make it short, None where it is not run; a word of its answer."""

    command: str
    short: str | None = None
    answer: str | None = None


def read_rows() -> list[Row]:
    """The rows of earlier_commands.txt."""
    rows: list[Row] = []
    for line in (Path(__file__).parent / "earlier_commands.txt").read_text().splitlines():
        if line.startswith("    +"):
            rows[-1] = rows[-1]._replace(short=line[5:])
        elif line.startswith("    !"):
            rows[-1] = rows[-1]._replace(short="", answer=line[5:].strip())
        elif line and not line.startswith("#"):
            rows.append(Row(line))
    return rows


ROWS = read_rows()
PROGRAMS = ("python", "python3", "marimo", "modal")
OF_NO_FLAGS = ("-c", "test_mop_integration.py")  # what such a program runs has no flags of ours


def words_of(row: Row) -> list[str]:
    """The words of the program in a row, without what the shell does before and after it."""
    return [word for word in shlex.split(row.command.partition(" 2>&1")[0]) if word != "-u"]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.command[:60])
def test_every_command_is_understood(row, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    words = words_of(row)
    if words[0] not in PROGRAMS or words[1] in OF_NO_FLAGS:
        pytest.skip("no program of this repository with flags")
    if row.answer == "train_agent":
        assert row.answer in refusal(check_command, words)
        return
    assert check_command(words) in (*words, "volume")


WRITTEN = {"results", "checkpoints", "modal_checkpoints", "evaluation_cache", "plots", "logs"}
FORMER = {
    **{f"{name}.py": f"generative.{name}" for name in ("record", "render", "train_gen_model", "plot_training_csv")},
    "core.check_run": "core.check_run",
    **{f"experiments.{name}": f"experiments.{name}" for name in ("run_env", "analyze")},
}


@pytest.mark.parametrize("name", FORMER)
def test_a_former_name_leads_to_the_command(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    monkeypatch.delitem(sys.modules, FORMER[name], raising=False)
    monkeypatch.syspath_prepend(str(REPOSITORY))
    with pytest.raises(SystemExit) as end:
        if name.endswith(".py"):
            run_path(str(REPOSITORY / name), run_name="__main__")
        else:
            run_module(name, run_name="__main__", alter_sys=True)
    assert not end.value.code and f"python -m {FORMER[name]}" in capsys.readouterr().out


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """A folder with links to what git tracks, but for what commands write."""
    folder = tmp_path_factory.mktemp("clone")
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    for name in {Path(line).parts[0] for line in listed.splitlines()} - WRITTEN:
        (folder / name).symlink_to(REPOSITORY / name)
    for name in WRITTEN:
        (folder / name).mkdir()
    (folder / "modal_checkpoints" / "BabyAI-GoToLocal-v0").mkdir()  # what there is to copy
    return folder


def run_as_typed(row: Row, folder: Path, capsys) -> subprocess.CompletedProcess[str]:
    """Run a row in a folder: a program of the repository in this process, anything else by a shell."""
    line, words = f"{row.command} {row.short}", shlex.split(f"{row.command} {row.short}")
    if words[0] in PROGRAMS and words[1] not in OF_NO_FLAGS:
        with contextlib.chdir(folder):
            words = [match for word in words for match in sorted(glob(word)) or [word]]
        capsys.readouterr()
        done = run_here([sys.executable, *words[1:]], cwd=folder)
        return subprocess.CompletedProcess(line, done.returncode, *capsys.readouterr())
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    bash = {"shell": True, "executable": "/bin/bash"}
    return subprocess.run(line, **bash, cwd=folder, env=env, capture_output=True, text=True, timeout=PATIENCE_S)


@pytest.mark.slow
def test_commands_run_as_they_were_typed(clone, capsys, monkeypatch):
    """One after the other, as later ones need what earlier ones wrote."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    rows = [row for row in ROWS if row.short is not None]
    for row in rows:
        done = run_as_typed(row, clone, capsys)
        told = (row.command, done.stdout[-1000:], done.stderr[-2000:])
        if row.answer is None:
            assert done.returncode == 0, told
        else:
            assert done.returncode == 2 and row.answer in done.stderr.splitlines()[0], told
    assert len(rows) >= 25 and len(ROWS) >= 50
