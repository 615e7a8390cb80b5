"""Random flags with hostile values: a case of every command; `flags.py` runs as many as one likes."""

import pytest
from cases import Settings, run_cases
from flags import COMMANDS, commands


@pytest.mark.slow
def test_random_flags_are_refused_in_one_line(capsys):
    with commands() as cases:
        failed = run_cases(cases, Settings(cases=len(COMMANDS), seed=5), 0)
    told = capsys.readouterr().out
    assert not failed, told
    assert "refused" in told and f"{len(COMMANDS)} cases" in told and len(COMMANDS) >= 30
