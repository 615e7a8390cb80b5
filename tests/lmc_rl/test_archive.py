"""What is kept of finished experiments: tables and figures come from it alone, and are those of the whole ones."""

import shutil
from pathlib import Path

import numpy as np
import orjson
import pytest
from lmc_files import HEIGHTS, OF_LINES, write_experiment, write_line_experiment

from lmc_rl import analysis, imitation_settings, line_analysis
from lmc_rl.analysis import load_experiment, pooled_groups
from lmc_rl.archive import keep
from lmc_rl.line_analysis import load_line_experiment, pooled_lines
from lmc_rl.line_records import PACKED_NAME, STEP_NATS, read_packed, read_records, write_packed
from lmc_rl.records import read_rows
from lmc_rl.studies import LineStudy, find_studies, load_study
from mop.common.errors import InputError, exit_code
from studies import lmc

NUM_PLACES = OF_LINES["alpha_points"]


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- reinforcement learning -------------------------------------------------------------------------------------------


def test_rows_of_returns_are_kept_as_they_are(tmp_path):
    whole = write_experiment(tmp_path)
    keep(whole, tmp_path / "kept")
    kept = files_of(tmp_path / "kept")
    paths = {f"paths/{path.name}" for path in (whole / "paths").iterdir()}
    assert len(paths) == 6
    assert kept.keys() == {"config.json", "episodes.jsonl.gz", "training/parent/training_log.csv"} | paths
    assert read_rows(tmp_path / "kept" / "episodes.jsonl") == read_rows(whole / "episodes.jsonl")
    assert len(kept["episodes.jsonl.gz"]) < (whole / "episodes.jsonl").stat().st_size / 5
    ours, theirs = (analysis.table_of(pooled_groups([load_experiment(f)])) for f in (tmp_path / "kept", whole))
    assert ours == theirs and len(ours) == 6
    keep(whole, tmp_path / "kept")
    assert files_of(tmp_path / "kept") == kept


# --- imitation runs ---------------------------------------------------------------------------------------------------


def test_lines_are_kept_within_the_rounding(tmp_path):
    whole = write_line_experiment(tmp_path)
    keep(whole, tmp_path / "kept")
    kept = files_of(tmp_path / "kept")
    assert {name for name in kept if "/" not in name} == {"config.json", PACKED_NAME} and len(kept) == 2 + 1 + 5
    ours, theirs = read_records(tmp_path / "kept", NUM_PLACES), read_records(whole, NUM_PLACES)
    assert ours.lines.keys() == theirs.lines.keys() and len(ours.lines) == 5 * 4 and ours.chance == theirs.chance == 0
    for key, line in theirs.lines.items():
        mine = ours.lines[key]
        assert np.abs(mine.cross_entropy - line.cross_entropy).max() <= STEP_NATS / 2 + 1e-12
        for name in ("places", "accuracy", "lpc", "kl"):
            assert getattr(mine, name) == pytest.approx(getattr(line, name), rel=1e-6)
        assert (mine.success is None) == (line.success is None) == (key.part != "all")
        if line.success is not None:
            assert np.array_equal(mine.success, line.success)
            assert mine.path_ratio == pytest.approx(line.path_ratio, nan_ok=True)
    keep(whole, tmp_path / "kept")
    assert files_of(tmp_path / "kept") == kept


def test_results_of_what_is_kept_are_those_of_the_whole(tmp_path):
    """Pooled barriers within the rounding, the same verdicts, the alignments; nothing but what is kept is read."""
    wholes = [write_line_experiment(tmp_path / "whole", seed) for seed in (1, 2)]
    for whole in wholes:
        keep(whole, tmp_path / "kept" / whole.name)
    ours, theirs = (
        pooled_lines([load_line_experiment(folder) for folder in folders])
        for folders in ([tmp_path / "kept" / whole.name for whole in wholes], wholes)
    )
    shutil.rmtree(tmp_path / "whole")
    num_lines = 0
    for mine, line in zip(*(lines for groups in (ours, theirs) for lines in groups.values()), strict=True):
        assert mine.first.key == line.first.key and (mine.verdict, mine.success_verdict) == (
            line.verdict, line.success_verdict,
        )  # fmt: skip
        for name in ("value", "low", "high"):
            assert getattr(mine.barrier, name) == pytest.approx(getattr(line.barrier, name), abs=20 * STEP_NATS)
        num_lines += 1
    assert num_lines == 5 * 4
    by_key = {line.first.key: line for line in ours["BabyAI-GoToObj-v0, lpc_alpha 0"]}
    height = by_key["fork", 0.0, "all", False].barrier.value
    assert height == pytest.approx(HEIGHTS[0.0], abs=0.02)
    assert load_line_experiment(tmp_path / "kept" / wholes[0].name).alignments["independent"]["distance"] == 3.0


def test_lines_that_nobody_played_are_kept(tmp_path):
    whole = write_line_experiment(tmp_path)
    (whole / "episodes.jsonl").unlink()
    records = read_records(whole, NUM_PLACES)
    write_packed(tmp_path / "lines.npz", records)
    again = read_packed(tmp_path / "lines.npz")
    assert again.lines.keys() == records.lines.keys() and np.isnan(again.chance)
    assert all(line.success is None for line in again.lines.values())


def test_a_damaged_file_is_named(tmp_path):
    keep(write_line_experiment(tmp_path), tmp_path / "kept")
    path, cases = tmp_path / "kept" / PACKED_NAME, 0
    content = path.read_bytes()
    for damaged in (b"", b"PK", content[: len(content) // 2], content.replace(b"keys", b"kees")):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"lines\.npz is damaged"):
            load_line_experiment(path.parent)
        cases += 1
    assert cases == 4
    keep(write_experiment(tmp_path), tmp_path / "returns")
    path = tmp_path / "returns" / "episodes.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"episodes\.jsonl\.gz is damaged"):
        load_experiment(path.parent)


def test_the_page_shows_what_is_kept(tmp_path):
    for seed in (1, 2):
        whole = write_line_experiment(tmp_path / "whole", seed)
        keep(whole, tmp_path / "kept" / "task" / "mop" / whole.name)
    keep(write_experiment(tmp_path / "whole"), tmp_path / "kept" / "env" / "SAC" / "seed_1_x")
    found = find_studies(tmp_path / "kept")
    assert len(found) == 3 and not any("no path" in name for name in found)
    studies = [load_study(tmp_path / "kept", word) for word in found.values()]
    assert sum(isinstance(study, LineStudy) for study in studies) == 2
    assert all(study.note == "" and study.log and len(study.paths) > 3 for study in studies)


# --- the driver -------------------------------------------------------------------------------------------------------


@pytest.fixture
def clone(tmp_path, monkeypatch) -> Path:
    """A fresh clone, whose results/lmc/ holds what is kept of three imitation runs, one RL run and a comparison."""
    monkeypatch.setattr(lmc, "ROOT", tmp_path)
    monkeypatch.setattr(lmc, "OUT", tmp_path / "results" / "lmc")
    monkeypatch.setattr(lmc, "KEPT", tmp_path / "results" / "lmc" / "kept")
    monkeypatch.setattr(lmc, "NUM_UPDATES", {OF_LINES["task_id"]: "20"})
    monkeypatch.setattr(lmc, "NUM_PLACES", NUM_PLACES)
    for number, (seed, alpha) in enumerate(((1, 0.0), (2, 0.0), (1, 1e-5))):
        whole = write_line_experiment(tmp_path / "whole", seed, alpha)
        keep(whole, lmc.KEPT / OF_LINES["task_id"] / "mop" / f"seed_{seed}_{number}")
    keep(write_experiment(tmp_path / "whole"), lmc.KEPT / "InvertedDoublePendulum-v5" / "SAC" / "seed_1_x")
    between = lmc.KEPT / OF_LINES["task_id"] / "between" / lmc.comparisons(OF_LINES["task_id"])[0].name
    write_packed(between / PACKED_NAME, _as_compared(whole))
    shutil.rmtree(tmp_path / "whole")
    return tmp_path


def _as_compared(whole: Path):
    """The line between independent runs as `lmc_rl.compare` would have it."""
    records = read_records(whole, NUM_PLACES)
    own = {key._replace(kind="other"): line for key, line in records.lines.items() if key.kind == "independent"}
    return records._replace(lines=own)


def call(monkeypatch, *words) -> int:
    monkeypatch.setattr("sys.argv", ["lmc.py", *map(str, words)])
    return exit_code(lmc.main)


def test_a_fresh_clone_reports(clone, monkeypatch, capsys):
    """Tables and figures from what is kept alone; the second time the same bytes of tables."""
    assert call(monkeypatch, "--report") == 0
    task, env = lmc.OUT / OF_LINES["task_id"], lmc.OUT / "InvertedDoublePendulum-v5"
    names = {"instability.md", "instability_over_time.png"}
    assert {path.name for path in task.iterdir()} == names | {"rise_by_part.png", "between.md"}
    assert {path.name for path in env.iterdir()} == names | {"all_interpolations.png"}
    assert (clone / "docs" / "lmc.png").read_bytes().startswith(b"\x89PNG")
    table = (task / "instability.md").read_text()
    assert "| BabyAI-GoToObj-v0, lpc_alpha 0 | 0.0% | all | 2 | 0.125 | 0.79" in table and "lpc_alpha 1e-05" in table
    assert "lpc_alpha 0 to 1e-5, the same seed | other | all | 1 |" in (task / "between.md").read_text()
    assert call(monkeypatch, "--report") == 0 and (task / "instability.md").read_text() == table
    assert "both curves" in capsys.readouterr().out


def test_what_another_clone_has_finished_is_kept_once(tmp_path, clone, monkeypatch):
    """An experiment at work is left out; one that is finished is kept under its name."""
    monkeypatch.setattr(lmc, "write_report", lambda: None)
    other = clone / "other"
    done, at_work = (
        write_line_experiment(other / "results", seed).rename(other / "results" / f"moved_{seed}") for seed in (7, 8)
    )
    folder = other / "results" / "lmc" / OF_LINES["task_id"] / "mop"
    folder.mkdir(parents=True)
    done, at_work = done.rename(folder / "seed_7_a"), at_work.rename(folder / "seed_8_b")
    rows = (at_work / "episodes.jsonl").read_bytes().splitlines(keepends=True)
    (at_work / "episodes.jsonl").write_bytes(b"".join(rows[:-3]))
    assert call(monkeypatch, "--report", "--also", other) == 0
    kept = {path.name for path in (lmc.KEPT / OF_LINES["task_id"] / "mop").iterdir()}
    assert kept == {"seed_1_0", "seed_2_1", "seed_1_2", "seed_7_a"}
    before = (lmc.KEPT / OF_LINES["task_id"] / "mop" / "seed_7_a" / PACKED_NAME).stat().st_mtime_ns
    assert call(monkeypatch, "--report", "--also", other) == 0
    assert (lmc.KEPT / OF_LINES["task_id"] / "mop" / "seed_7_a" / PACKED_NAME).stat().st_mtime_ns == before


def test_commands_of_the_driver_are_understood(monkeypatch, capsys):
    assert call(monkeypatch, "--dry_run") == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 12 + 2 * (6 + 6)
    settled = [work for name in lmc.FAMILIES for work in lmc.FAMILIES[name]() if isinstance(work, lmc.Experiment)]
    for work in settled:
        settle = lmc.settle if work.module == "run_env" else imitation_settings.settle
        assert settle(work.flags)[0]["alpha_points"] == lmc.NUM_PLACES
    assert len(settled) == 24 and len({comparison.name for comparison in lmc.comparisons("x")}) == 6


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("rll",), "there is no family rll"),
        (("--also", "nowhere", "--report"), "--also: nowhere has no folder results/lmc"),
        (("--jobs", "0"), "--jobs must be"),
    ],
)
def test_bad_flags_are_one_line(monkeypatch, capsys, words, says):
    assert call(monkeypatch, *words) == 2
    told = capsys.readouterr().err
    assert says in told and told.count("\n") == 1


def test_without_anything_finished_it_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lmc, "ROOT", tmp_path)
    monkeypatch.setattr(lmc, "KEPT", tmp_path / "kept")
    assert call(monkeypatch, "--report") == 2
    assert "no experiment is finished" in capsys.readouterr().err


def test_labels_tell_what_differs(tmp_path):
    """Experiments of another size are another group, and its name says in what it differs."""
    one, other = (load_line_experiment(write_line_experiment(tmp_path / str(k))) for k in range(2))
    other.settings["run"]["num_updates"] = 40
    labels = line_analysis.labels_of_groups([one, other])
    assert labels == [f"BabyAI-GoToObj-v0, lpc_alpha 0, num_updates {n}" for n in (20, 40)]
    assert orjson.loads((one.results / "config.json").read_bytes())["imitation"]["run"]["num_updates"] == 20
