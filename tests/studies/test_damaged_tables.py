"""The tables that studies read: without a column that they need they are refused, without any other they are read."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
from checks import refusal
from study_tables import STUDIES, Study

from mop.common.errors import InputError
from studies import stages

NUMBERS = ("seed", "env_steps", "num_episodes", "first")  # of which each table has one


@contextmanager
def placed(name: str, folder: Path) -> Iterator[tuple[Study, list[Path]]]:
    """A study in a folder, and its tables there."""
    STUDIES[name].prepare(folder)
    paths = sorted(folder.rglob("*.csv"))
    with pytest.MonkeyPatch.context() as patch:
        STUDIES[name].place(folder, patch)
        yield STUDIES[name], paths


@pytest.mark.parametrize("name", STUDIES)
def test_a_lost_column_is_one_line_or_nothing_needs_it(name, tmp_path, capsys):
    with placed(name, tmp_path) as (study, paths):
        whole = {path: path.read_text() for path in paths}
        count, needed = 0, {}
        for path, content in whole.items():
            head, _, rows = content.partition("\n")
            needed[path] = []
            for column in head.split(","):
                names = ["renamed" if other == column else other for other in head.split(",")]
                path.write_text(f"{','.join(names)}\n{rows}")
                try:
                    study.read()
                except InputError as error:
                    line = str(error)
                    assert str(path) in line and column in line and "\n" not in line
                    needed[path].append(column)
                    assert len(needed[path]) > 1 or study.report() == 2
                count += 1
            path.write_text(content)
        assert count >= sum(map(len, needed.values())) >= 4
        for path, columns in needed.items():
            pd.read_csv(path, dtype=str, keep_default_na=False)[columns].to_csv(path, index=False)
        capsys.readouterr()
        assert study.report() == 0, capsys.readouterr().err


def test_a_text_in_place_of_a_number_is_one_line(tmp_path):
    count = 0
    for name in STUDIES:
        (tmp_path / name).mkdir()
        with placed(name, tmp_path / name) as (study, paths):
            for path in paths:
                content = path.read_text()
                head, first, *rest = content.splitlines(keepends=True)
                columns = head.strip().split(",")
                cells = first.split(",")
                cells[columns.index(next(name for name in NUMBERS if name in columns))] = "x"
                path.write_text("".join([head, ",".join(cells), *rest]))
                assert str(path) in refusal(study.read)
                path.write_text(content)
                count += 1
    assert count == 12


@pytest.mark.parametrize(
    ("name", "table", "ways"),
    [
        ("settings", "training_log.csv", {"none"}), ("settings", "table.csv", {"none", "twice"}),
        ("claims", "values.csv", {"none", "lost", "twice"}), ("claims", "pairs.csv", {"lost", "twice"}),
        ("claims", "difficulty.csv", {"twice"}), ("tasks", "tasks.csv", {"twice"}),
        ("tasks", "tasks_worlds.csv", {"twice"}), ("mastery", "mastery.csv", {"twice"}),
    ],
)  # fmt: skip
def test_rows_that_are_lost_or_there_twice_are_one_line(name, table, ways, tmp_path):
    with placed(name, tmp_path) as (study, paths):
        path = next(path for path in paths if path.name == table)
        head, *rows = path.read_text().splitlines(keepends=True)
        damaged = {"none": [], "lost": rows[:-1], "twice": [*rows, rows[-1]]}
        for way in ways:
            path.write_text("".join([head, *damaged[way]]))
            assert str(path) in refusal(study.read), way


def test_a_fidelity_of_another_form_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "ROOT", tmp_path)
    (tmp_path / "checkpoint_final.pt").write_text("x")
    stage = stages.fidelity_stage(".", [])
    for content in ("[]", "{}", '{"simulator": 3}', '{"simulator": {"sha": "x"}}'):
        (tmp_path / "fidelity.json").write_text(content)
        assert "fidelity.json" in refusal(stage.is_done)
