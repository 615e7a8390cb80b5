"""Files of every kind, damaged at random: some cases of each; `mutants.py` runs as many as one likes."""

import pytest
from cases import Settings, run_cases
from file_kinds import KINDS
from mutants import mutants

ROOTS = sorted({kind.root for kind in KINDS.values()})


@pytest.mark.slow
@pytest.mark.parametrize("root", ROOTS)
def test_random_damage_is_read_or_refused_in_one_line(root, capsys):
    names = [name for name, kind in KINDS.items() if kind.root == root]
    with mutants(names) as cases:
        failed = run_cases(cases, Settings(cases=6 * len(names), seed=3), 0)
    told = capsys.readouterr().out
    assert not failed, told
    assert "refused" in told and f"{6 * len(names)} cases" in told
