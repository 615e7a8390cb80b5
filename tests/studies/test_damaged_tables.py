"""The tables that studies read: without a column that they need they are refused, without any other they are read."""

import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from checks import refusal
from scripts import in_process

import studies.claims_report as report
from benchmarks import time_to_mastery as mastery
from mop.artifacts.run_paths import RunKey
from mop.common.errors import InputError
from studies import claims, collapse, experiments, stages, tasks

RESULTS, CLAIMS = experiments.RESULTS, report.FOLDER
TASK = "BabyAI-GoToObj-v0"

NUMBERS = ("seed", "env_steps", "num_episodes", "first")  # of which each table has one

Study = tuple[list[Path], Callable[[], object], Callable[[], int | None]]  # tables, what reads them, the whole command


def copied(folder: Path, source: Path, *names: str) -> list[Path]:
    """The published tables in a folder."""
    for name in names:
        (folder / name).write_bytes((source / name).read_bytes())
    return [folder / name for name in names]


def study_of_tasks(folder: Path, patch: pytest.MonkeyPatch) -> Study:
    paths = copied(folder, RESULTS, *tasks.FILES, tasks.references.RANDOM)
    patch.setattr(experiments, "RESULTS", folder)
    return paths, lambda: (tasks.load_published(), tasks.references.load_random()), tasks.main


def study_of_mastery(folder: Path, patch: pytest.MonkeyPatch) -> Study:
    paths = copied(folder, RESULTS, mastery.TABLE.name)
    patch.setattr(mastery, "TABLE", paths[0])
    patch.setattr(mastery, "REPORT", folder / "mastery.md")
    return paths, mastery.load_rows, mastery.main


def study_of_claims(folder: Path, patch: pytest.MonkeyPatch) -> Study:
    paths = copied(folder, CLAIMS, report.VALUES, report.PAIRS, report.DIFFICULTY)
    patch.setattr(report, "FOLDER", folder)
    return paths, report.read_numbers, claims.main


def study_of_collapse(folder: Path, patch: pytest.MonkeyPatch) -> Study:
    patch.setattr(collapse, "RUNS", folder)
    for module in (collapse, experiments):
        patch.setattr(module, "RESULTS", folder)
    paths = [collapse.log_path(name, 0) for name in ("none", "replay 8")]
    paths[0].parent.mkdir()
    whole = pd.read_csv(RESULTS / "collapse.csv")
    for name, path in zip(("none", "replay 8"), paths, strict=True):
        whole[(whole["change"] == name) & (whole["seed"] == 0)].to_csv(path, index=False)

    def main() -> int:
        sys.argv = [sys.argv[0], "--jobs", "0"]
        return collapse.main()

    return paths, main, main


def study_of_settings(folder: Path, patch: pytest.MonkeyPatch) -> Study:
    """One training, of which the log and the row of an evaluation are there."""
    patch.setattr(experiments, "RESULTS", folder)
    patch.setattr(experiments, "RUNS", folder / "runs")
    patch.setattr(experiments, "run_stage", lambda *words: None)
    training = experiments.Training("settings", TASK, "base", 0, 0, {})
    log, table = training.folder / "training_log.csv", folder / "runs" / "settings" / "table.csv"
    log.parent.mkdir(parents=True)
    row = {"update": 1, "env_steps": 512, "seconds": 2.5, "loss": 0.1, "accuracy": 0.5, "success_rate": 0.25}
    pd.DataFrame([row | {"path_ratio": 1.5, "lpc": 7.0, "bot_share": 0.5}]).to_csv(log, index=False)
    key = RunKey(TASK, 0, 0)
    row = {"task_id": key.task_id, "trial": key.trial, "seed": key.seed, "policy": "mop", "lpc_alpha": 0.0}
    row |= {"num_episodes": 1000, "eval_seed": 0, **dict.fromkeys(experiments.OF_RESULT, 0.5)}
    pd.DataFrame([row]).to_csv(table, index=False)

    def main() -> int:
        experiments.write_results("settings", [training], experiments.evaluate("settings", 1))
        experiments.write_settings_pictures()
        return 0

    return [log, table], main, main


STUDIES = (study_of_tasks, study_of_mastery, study_of_claims, study_of_collapse, study_of_settings)


@pytest.mark.parametrize("make", STUDIES)
def test_a_lost_column_is_one_line_or_nothing_needs_it(make, tmp_path, monkeypatch, capsys):
    paths, read, main = make(tmp_path, monkeypatch)
    whole = {path: path.read_text() for path in paths}
    count, needed = 0, {}
    for path, content in whole.items():
        head, _, rows = content.partition("\n")
        needed[path] = []
        for column in head.split(","):
            names = ["renamed" if name == column else name for name in head.split(",")]
            path.write_text(f"{','.join(names)}\n{rows}")
            try:
                read()
            except InputError as error:
                line = str(error)
                assert str(path) in line and column in line and "\n" not in line
                needed[path].append(column)
                assert len(needed[path]) > 1 or in_process(main, "--report") == 2
            count += 1
        path.write_text(content)
    assert count >= sum(map(len, needed.values())) >= 4
    for path, columns in needed.items():
        pd.read_csv(path, dtype=str, keep_default_na=False)[columns].to_csv(path, index=False)
    capsys.readouterr()
    assert in_process(main, "--report") == 0, capsys.readouterr().err


def test_a_text_in_place_of_a_number_is_one_line(tmp_path, monkeypatch):
    count = 0
    for number, make in enumerate(STUDIES):
        folder = tmp_path / str(number)
        folder.mkdir()
        with monkeypatch.context() as patch:
            paths, read, _ = make(folder, patch)
            for path in paths:
                content = path.read_text()
                head, first, *rest = content.splitlines(keepends=True)
                place = head.strip().split(",").index(next(name for name in NUMBERS if name in head.split(",")))
                cells = first.split(",")
                cells[place] = "x"
                path.write_text("".join([head, ",".join(cells), *rest]))
                assert str(path) in refusal(read)
                path.write_text(content)
                count += 1
    assert count == 12


def test_a_table_without_rows_of_what_is_asked(tmp_path, monkeypatch):
    (log, table), read, _ = study_of_settings(tmp_path, monkeypatch)
    for path in (log, table):
        content = path.read_text()
        path.write_text(content.partition("\n")[0] + "\n")
        assert str(path) in refusal(read)
        path.write_text(content)
    (values, pairs, _), read, _ = study_of_claims(tmp_path, monkeypatch)
    for path in (values, pairs):
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(lines[:-1]))
        assert str(path) in refusal(read)
        path.write_text("".join([*lines, lines[-1]]))
        assert str(path) in refusal(read)
        path.write_text("".join(lines))


def test_a_fidelity_of_another_form_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "ROOT", tmp_path)
    (tmp_path / "checkpoint_final.pt").write_text("x")
    stage = stages.fidelity_stage(".", [])
    for content in ("[]", "{}", '{"simulator": 3}', '{"simulator": {"sha": "x"}}'):
        (tmp_path / "fidelity.json").write_text(content)
        assert "fidelity.json" in refusal(stage.is_done)
