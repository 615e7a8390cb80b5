"""The harness of the benchmarks: what it prints of a case, and what it refuses."""

import pytest
from scripts import in_process, refused

from benchmarks import bench


def test_a_case_is_measured_without_its_first_round(capsys):
    ended = []

    def toy(scale: int = 1):
        """A toy.

        More words.
        """
        try:
            for k in range(9):
                yield {"one": 1e-3 * (k + 1), "two": 2e-3 * scale * (k + 1)}
        finally:
            ended.append(True)

    case = bench.Case(toy, "ms", rounds=3)
    costs = case.measure(None, {"scale": 2})
    assert costs["one"] == pytest.approx([2e-3, 3e-3, 4e-3]) and ended == [True]
    assert len(case.measure(5, {})["two"]) == 5
    bench.show("toy", case, costs)
    title, one, two = capsys.readouterr().out.strip().splitlines()
    assert title == "toy: A toy."
    assert "3.00 (2.00 to 4.00) ms" in one and "1.00 (1.00 to 1.00) x" in one
    assert "12.00 (8.00 to 16.00) ms" in two and "4.00 (4.00 to 4.00) x" in two


def test_the_command_lists_cases_and_refuses_others(capsys):
    assert in_process(bench.main, "--list") == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert {"training", "bot", "sequence", "recording"} <= set(names) and len(names) == len(set(names)) >= 20
    assert "no case nothing" in refused(capsys, bench.main, "nothing")
    assert in_process(bench.main, "view", "steps=2", "--rounds", "1") == 0
    assert "NumPy" in capsys.readouterr().out
