"""What is kept of finished experiments: tables and figures come from it alone, and are those of the whole ones."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from checks import contents, refusal
from lmc_files import HEIGHTS, OF_LINES, write_experiment, write_line_experiment
from scripts import check_refused, in_process

from lmc_rl.analysis.archive import archive
from lmc_rl.analysis.report import alignments_of, table_of
from lmc_rl.analysis.results import load_experiment, pooled_groups
from lmc_rl.analysis.table import ARCHIVE_NAME, STEP_NATS, LineKey, read_rows, read_table, write_archive
from lmc_rl.app.catalog import find_experiments, load_shown
from lmc_rl.config import resolve_mop, resolve_rl
from studies import lmc

NUM_PLACES = OF_LINES["alpha_points"]


def test_rows_of_returns_are_kept_as_they_are(tmp_path):
    whole = write_experiment(tmp_path)
    archive(whole, tmp_path / "kept", NUM_PLACES)
    kept = contents(tmp_path / "kept")
    paths = {f"paths/{path.name}" for path in (whole / "paths").iterdir()}
    assert len(paths) == 6
    assert kept.keys() == {"config.json", "episodes.jsonl.gz", "training/parent/training_log.csv"} | paths
    assert read_rows(tmp_path / "kept" / "episodes.jsonl") == read_rows(whole / "episodes.jsonl")
    assert len(kept["episodes.jsonl.gz"]) < (whole / "episodes.jsonl").stat().st_size / 5
    ours, theirs = (table_of(pooled_groups([load_experiment(f)])) for f in (tmp_path / "kept", whole))
    assert ours == theirs and len(ours[1]) == 6
    archive(whole, tmp_path / "kept", NUM_PLACES)
    assert contents(tmp_path / "kept") == kept


def test_lines_are_kept_within_the_rounding(tmp_path):
    whole = write_line_experiment(tmp_path)
    archive(whole, tmp_path / "kept", NUM_PLACES)
    kept = contents(tmp_path / "kept")
    assert {name for name in kept if "/" not in name} == {"config.json", ARCHIVE_NAME} and len(kept) == 2 + 1 + 5
    ours, theirs = (_by_key(read_table(folder, NUM_PLACES)) for folder in (tmp_path / "kept", whole))
    assert ours.keys() == theirs.keys() and len({line for line, _ in ours}) == 5 * 4 + 1
    assert ours[LineKey("random"), "success"].mean() == 0
    for (line, measure), values in theirs.items():
        mine = ours[line, measure]
        if measure == "cross_entropy":
            assert np.abs(mine - values).max() <= STEP_NATS / 2 + 1e-12
        elif measure == "success" and line.kind != "random":
            assert np.array_equal(mine, values) and line.part == "all"
        elif line.kind != "random":
            assert mine.mean(0) == pytest.approx(values.mean(0), rel=1e-6, nan_ok=True)
    archive(whole, tmp_path / "kept", NUM_PLACES)
    assert contents(tmp_path / "kept") == kept


def _by_key(table) -> dict:
    known = [series for series in table if (series.line.kind, series.measure) != ("random", "path_ratio")]
    return {(series.line, series.measure): series.values for series in known}


def test_results_of_what_is_kept_are_those_of_the_whole(tmp_path):
    """Pooled barriers within the rounding, the same verdicts, the alignments; nothing but what is kept is read."""
    wholes = [write_line_experiment(tmp_path / "whole", seed) for seed in (1, 2)]
    for whole in wholes:
        archive(whole, tmp_path / "kept" / whole.name, NUM_PLACES)
    ours, theirs = (
        pooled_groups([load_experiment(folder) for folder in folders])
        for folders in ([tmp_path / "kept" / whole.name for whole in wholes], wholes)
    )
    shutil.rmtree(tmp_path / "whole")
    num_lines = 0
    for mine, line in zip(*(lines for groups in (ours, theirs) for lines in groups.values()), strict=True):
        assert mine.first.key == line.first.key and mine.verdict == line.verdict
        assert mine.of("success").is_known == line.of("success").is_known == (line.first.part == "all")
        for name in ("value", "low", "high"):
            assert getattr(mine.barrier, name) == pytest.approx(getattr(line.barrier, name), abs=20 * STEP_NATS)
        num_lines += 1
    assert num_lines == 5 * 4
    by_key = {line.first.key: line for line in ours["BabyAI-GoToObj-v0, lpc_alpha 0"]}
    height = by_key["fork", 0.0, "all", False].barrier.value
    assert height == pytest.approx(HEIGHTS[0.0], abs=0.02)
    assert load_experiment(tmp_path / "kept" / wholes[0].name).lines[0].facts[0]["distance"] == 3.0


def test_a_damaged_file_is_named(tmp_path):
    archive(write_line_experiment(tmp_path), tmp_path / "kept", NUM_PLACES)
    path, cases = tmp_path / "kept" / ARCHIVE_NAME, 0
    content = path.read_bytes()
    for damaged in (b"", b"PK", content[: len(content) // 2], content.replace(b"keys", b"kees")):
        path.write_bytes(damaged)
        assert "lines.npz" in refusal(load_experiment, path.parent)
        cases += 1
    assert cases == 4
    archive(write_experiment(tmp_path), tmp_path / "returns", NUM_PLACES)
    path = tmp_path / "returns" / "episodes.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-20])
    assert "episodes.jsonl.gz" in refusal(load_experiment, path.parent)


def test_the_page_shows_what_is_kept(tmp_path):
    for seed in (1, 2):
        whole = write_line_experiment(tmp_path / "whole", seed)
        archive(whole, tmp_path / "kept" / "task" / "mop" / whole.name, NUM_PLACES)
    archive(write_experiment(tmp_path / "whole"), tmp_path / "kept" / "env" / "SAC" / "seed_1_x", NUM_PLACES)
    found = find_experiments(tmp_path / "kept")
    assert len(found) == 3 and not any("no path" in name for name in found)
    several = [load_shown(tmp_path / "kept", word) for word in found.values()]
    assert sum(not shown.is_rl for shown in several) == 2
    assert all(shown.note == "" and shown.log and len(shown.paths) > 3 for shown in several)
    assert len(alignments_of(several)) == 2 * 5


@pytest.fixture
def clone(tmp_path, monkeypatch) -> Path:
    """A fresh clone, whose results/lmc/ holds what is kept of three imitation runs, one RL run and a comparison."""
    monkeypatch.setattr(lmc, "ROOT", tmp_path)
    monkeypatch.setattr(lmc, "OUT", tmp_path / "results" / "lmc")
    monkeypatch.setattr(lmc, "ARCHIVE", tmp_path / "results" / "lmc" / "archive")
    monkeypatch.setattr(lmc, "NUM_UPDATES", {OF_LINES["task_id"]: "20"})
    monkeypatch.setattr(lmc, "NUM_PLACES", NUM_PLACES)
    for number, (seed, alpha) in enumerate(((1, 0.0), (2, 0.0), (1, 1e-5))):
        whole = write_line_experiment(tmp_path / "whole", seed, alpha)
        archive(whole, lmc.ARCHIVE / OF_LINES["task_id"] / "mop" / f"seed_{seed}_{number}", NUM_PLACES)
    archive(
        write_experiment(tmp_path / "whole"), lmc.ARCHIVE / "InvertedDoublePendulum-v5" / "SAC" / "seed_1_x", NUM_PLACES
    )
    between = lmc.ARCHIVE / OF_LINES["task_id"] / "between" / lmc.comparisons(OF_LINES["task_id"])[0].name
    write_archive(between / ARCHIVE_NAME, _as_compared(read_table(whole, NUM_PLACES)))
    shutil.rmtree(tmp_path / "whole")
    return tmp_path


def _as_compared(table):
    """The line between independent runs as `lmc_rl.compare` would have it."""
    own = [series for series in table if series.line.kind in ("independent", "random")]
    as_other = {"independent": "other", "random": "random"}
    return [series._replace(line=series.line._replace(kind=as_other[series.line.kind])) for series in own]


@pytest.mark.slow
def test_a_fresh_clone_reports(clone, monkeypatch, capsys):
    """Tables and figures from what is kept alone; the second time the same bytes of tables."""
    assert in_process(lmc.main, "--report") == 0
    task, env = lmc.OUT / OF_LINES["task_id"], lmc.OUT / "InvertedDoublePendulum-v5"
    names = {"instability.md", "instability_over_time.png"}
    assert {path.name for path in task.iterdir()} == names | {"rise_by_part.png", "between.md"}
    assert {path.name for path in env.iterdir()} == names | {"all_interpolations.png"}
    assert (clone / "docs" / "lmc.png").read_bytes().startswith(b"\x89PNG")
    table = (task / "instability.md").read_text()
    assert "| BabyAI-GoToObj-v0, lpc_alpha 0 | 0.0% | all | 2 | 0.125 | 0.79" in table and "lpc_alpha 1e-05" in table
    assert "lpc_alpha 0 to 1e-5, the same seed | other | all | 1 |" in (task / "between.md").read_text()
    assert in_process(lmc.main, "--report") == 0 and (task / "instability.md").read_text() == table
    assert "both curves" in capsys.readouterr().out


def test_what_another_clone_has_finished_is_kept_once(tmp_path, clone, monkeypatch):
    """An experiment at work is left out; one that is finished is kept under its name."""
    monkeypatch.setattr(lmc, "publish", lambda: None)
    other = clone / "other"
    done, at_work = (
        write_line_experiment(other / "results", seed).rename(other / "results" / f"moved_{seed}") for seed in (7, 8)
    )
    folder = other / "results" / "lmc" / OF_LINES["task_id"] / "mop"
    folder.mkdir(parents=True)
    done, at_work = done.rename(folder / "seed_7_a"), at_work.rename(folder / "seed_8_b")
    rows = (at_work / "episodes.jsonl").read_bytes().splitlines(keepends=True)
    (at_work / "episodes.jsonl").write_bytes(b"".join(rows[:-3]))
    assert in_process(lmc.main, "--report", "--also", other) == 0
    kept = {path.name for path in (lmc.ARCHIVE / OF_LINES["task_id"] / "mop").iterdir()}
    assert kept == {"seed_1_0", "seed_2_1", "seed_1_2", "seed_7_a"}
    before = (lmc.ARCHIVE / OF_LINES["task_id"] / "mop" / "seed_7_a" / ARCHIVE_NAME).stat().st_mtime_ns
    assert in_process(lmc.main, "--report", "--also", other) == 0
    assert (lmc.ARCHIVE / OF_LINES["task_id"] / "mop" / "seed_7_a" / ARCHIVE_NAME).stat().st_mtime_ns == before


def test_commands_of_the_driver_are_understood(monkeypatch, capsys):
    assert in_process(lmc.main, "--dry_run") == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 12 + 2 * (6 + 6)
    settled = [work for name in lmc.FAMILIES for work in lmc.FAMILIES[name]() if isinstance(work, lmc.Experiment)]
    for work in settled:
        resolve = resolve_rl if work.module == "run_env" else resolve_mop
        assert resolve(work.flags).alpha_points == lmc.NUM_PLACES
    assert len(settled) == 24 and len({comparison.name for comparison in lmc.comparisons("x")}) == 6


def test_bad_flags_are_one_line(capsys):
    cases = {("rll",): "rll", ("--also", "nowhere", "--report"): "--also: nowhere", ("--jobs", "0"): "--jobs"}
    check_refused(capsys, lmc.main, cases)
