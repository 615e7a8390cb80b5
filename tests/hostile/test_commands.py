"""Long commands, killed and on full disks at random: a case of each; `kills.py` and `full_disks.py` run more."""

import subprocess
from collections.abc import Callable

import orjson
import pytest
from cases import Settings, run_cases
from full_disks import GROWS, disk, full_disks, lost_or_changed
from kills import killed_commands

from mop.common.errors import InputError


def check(cases: Callable, names: list[str], seed: int, capsys: pytest.CaptureFixture) -> None:
    """Run a case of each."""
    with cases(names) as of_names:
        failed = run_cases(of_names, Settings(cases=len(names), seed=seed), 0)
    told = capsys.readouterr().out
    assert not failed, told
    assert f"{len(names)} cases" in told


@pytest.mark.slow
def test_killed_anywhere_a_command_goes_on_to_the_same_end(capsys):
    check(killed_commands, ["record"], 5, capsys)


@pytest.mark.slow
def test_a_full_disk_costs_nothing(tmp_path, capsys):
    try:
        with disk(tmp_path / "disk"):
            pass
    except (InputError, OSError, subprocess.SubprocessError):
        pytest.skip("no disk can be mounted here")
    check(full_disks, ["train_mop"], 5, capsys)


def test_the_paths_of_the_bot_may_grow_and_lose_nothing():
    def paths(**results: int | str) -> dict[str, list[str]]:
        return {f"cache/{GROWS}": [orjson.dumps({"max_steps": None, "results": results}).decode()]}

    before = paths(w1=12, w3="no way")
    assert not lost_or_changed(before, paths(w1=12, w2=7, w3="no way", w4=5))
    for after in (paths(w1=12, w2=7), paths(w1=13, w3="no way"), {}):
        assert lost_or_changed(before, after) == [*before]
    assert lost_or_changed({"table.csv": ["a"]}, {"table.csv": ["a", "b"]}) == ["table.csv"]
