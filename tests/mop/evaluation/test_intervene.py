"""intervene.py: rows, table and figure; what is done is skipped, a kill and two processes lose nothing; bad input."""

import json
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from checks import refusal
from eval_helpers import UNLOCK, put, random_checkpoint, taught_checkpoint
from scripts import PATIENCE_S, check_refused, in_process, start

import intervene
from mop.artifacts.intervention_rows import COLUMNS, add_row, load_rows, merge_rows
from mop.common.intervention_grammar import GRAMMAR, NONE
from mop.evaluation.intervention_runs import Study
from mop.plotting.bars import plot_use_and_need, use_and_need, use_and_need_files
from mop.plotting.hover import values_of

FEW = ("--num_episodes", 8, "--device", "cpu", "--num_envs", 4)
RUN = Path(UNLOCK) / "trial_0"
ROWS = Path("evaluation_cache") / RUN / "interventions.jsonl"


@pytest.fixture(scope="module")
def taught() -> dict:
    return taught_checkpoint(UNLOCK, 8, 120, max_steps=40)


@pytest.fixture
def checkpoint(taught, tmp_path, monkeypatch) -> str:
    """A checkpoint in an empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return put(Path("checkpoints"), taught).as_posix()


def names(rows: list[dict]) -> list[tuple[str, str]]:
    return [(row["intervention"], row["variant"]) for row in rows]


def undated(rows: list[dict]) -> dict:
    """Rows by their names, without the time at which they were made."""
    return {name: row | {"evaluated_at": None} for name, row in zip(names(rows), rows, strict=True)}


def test_rows_table_and_figure_and_what_is_done_is_skipped(checkpoint, capsys, monkeypatch):
    made, run = [], Study.run
    monkeypatch.setattr(Study, "run", lambda *given: made.append((str(given[1]), given[2])) or run(*given))
    what = ["--variants", "gate-only,zeroed", "--what", "none", "lesion 0.1", "argmax in carrying the key"]
    command = ("--checkpoint", checkpoint, *FEW)
    assert in_process(intervene.main, *command, *what) == 0
    rows = load_rows(ROWS)
    assert names(rows) == made and len(made) == 6
    assert all(set(COLUMNS) | {"phases", "phases_by", "checkpoint_sha256"} <= set(row) for row in rows)
    assert rows[0]["phases_by"] == "by_key_phase" and rows[0]["delta_success"] == 0 < rows[0]["success_rate"]
    shown = capsys.readouterr().out
    assert "6 interventions, 6 to make" in shown and "argmax in carrying the key" in shown
    table = pd.read_csv("intervention_results.csv")
    assert list(table.columns[: len(COLUMNS)]) == list(COLUMNS) and table.columns[-1] == "phases"
    assert list(zip(table["intervention"], table["variant"], strict=True)) == made
    assert json.loads(table["phases"][0]) == rows[0]["phases"]
    assert (Path("plots") / RUN / "use_and_need.png").stat().st_size > 10_000
    # nothing is done twice; more worlds, other phases and a changed checkpoint are something else
    assert in_process(intervene.main, *command, *what, "lesion 1.0") == 0
    assert made[6:] == [("lesion 1.0", "gate-only"), ("lesion 1.0", "zeroed")]
    assert load_rows(ROWS)[:6] == rows
    for flags, count in ((("--num_episodes", 6), 2), (("--phases", "by_carrying"), 2), (("--force",), 2), ((), 0)):
        made.clear()
        assert in_process(intervene.main, *command, "--what", "lesion 0.1", *flags) == 0
        assert len(made) == count and len(load_rows(ROWS)) == 8
    made.clear()
    put(Path("checkpoints"), random_checkpoint(3, UNLOCK, max_steps=40))
    assert in_process(intervene.main, *command, "--what", "lesion 0.1") == 0
    assert made == [("none", "gate-only"), ("lesion 0.1", "gate-only")], "the intact episodes are played anyway"


def wait_for_rows(count: int) -> None:
    end = time.monotonic() + PATIENCE_S
    while not ROWS.exists() or len(load_rows(ROWS)) < count:
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow
def test_killed_and_taken_up_by_two_processes_no_row_is_lost(checkpoint):
    texts = ["none", "lesion 0.1", "lesion 0.2", "shuffle 0", "uniform 1", "argmax", "lesion 1.0 in carrying the key"]
    command = ("intervene.py", "--checkpoint", checkpoint, *FEW, "--variants", "frozen,zeroed", "--what", *texts)
    killed = start(*command, cwd=Path.cwd())
    wait_for_rows(2)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    before = load_rows(ROWS)
    both = [start(*command, cwd=Path.cwd()) for _ in range(2)]
    outputs = [process.communicate(timeout=PATIENCE_S) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    rows = load_rows(ROWS)
    assert rows[: len(before)] == before and 2 <= len(before) < len(rows)
    asked = [(text, variant) for text in texts for variant in ("frozen", "zeroed")]
    assert sorted(names(rows)) == sorted([("none", "gate-only"), *asked])
    assert len(pd.read_csv("intervention_results.csv")) == len(rows) == 15
    assert not list(ROWS.parent.glob(".*"))
    # the very numbers of a single process
    some = ("--what", "shuffle 0", "argmax", "lesion 1.0 in carrying the key", "--variants", "zeroed")
    assert in_process(intervene.main, "--checkpoint", checkpoint, *FEW, "--cache_dir", "alone", *some) == 0
    alone = undated(load_rows(Path("alone") / RUN / "interventions.jsonl"))
    assert len(alone) == 4 and alone == {name: row for name, row in undated(rows).items() if name in alone}


def test_tables_of_several_checkpoints_damaged_files_and_foreign_tables(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    row = dict.fromkeys(COLUMNS, 0.5) | {"task_id": UNLOCK, "variant": "frozen", "phases": [{"phase": "early"}]}
    row |= {"update": None, "delta_success": float("nan")}
    for trial in range(3):
        path = Path("cache") / UNLOCK / f"trial_{trial}" / "interventions.jsonl"
        add_row(path, row | {"checkpoint_path": f"c{trial}", "intervention": "argmax", "trial": trial, "seed": None})
        add_row(path, row | {"checkpoint_path": f"c{trial}", "intervention": NONE, "trial": trial, "seed": None})
    told = []
    table = merge_rows("cache", "table.csv", told.append)
    assert len(table) == 6 and not told and pd.read_csv("table.csv")["delta_success"].isna().all()
    path.write_bytes(path.read_bytes()[:-20] + b"\n")
    assert len(merge_rows("cache", "table.csv", told.append)) == 4
    assert len(told) == 1 and f"{path}, line 2" in told[0]
    assert "line 2" in refusal(add_row, path, row | {"checkpoint_path": "c", "intervention": "argmax"})
    path.write_text(json.dumps(row | {"checkpoint_path": "c", "intervention": NONE, "trial": 2**63}) + "\n")
    assert len(merge_rows("cache", "table.csv", told.append)) == 4 and f"{path}, line 1" in told[-1]
    Path("table.csv").write_text("mine,alone\n1,2\n")
    assert "table.csv" in refusal(merge_rows, "cache", "table.csv", told.append)
    assert Path("table.csv").read_text() == "mine,alone\n1,2\n"


def test_bad_input_is_told_in_one_line(checkpoint, taught, capsys):
    baseline = put(Path("checkpoints"), random_checkpoint(0, UNLOCK, policy="gru"), trial=1).as_posix()
    cases = {
        ("--what", "lesion 1,2"): GRAMMAR,
        ("--what", "none", "clamp 0.1=7"): GRAMMAR,
        ("--what", "lesion 0.9"): "0.9",
        ("--what", "lesion 0.1 in flight"): "by_key_phase",
        ("--what", "none", "--variants", "thawed"): "thawed",
        ("--variants", "frozen"): "--variants",
        ("--phases", "by_moon"): "by_moon",
        ("--what", "swap nowhere.pt"): "nowhere.pt",
        ("--what", f"swap {baseline}"): "routers",
        ("--results_path", "table.txt"): "table.txt",
        ("--checkpoint", "checkpoints/x.pt"): "checkpoints/x.pt",
        ("--checkpoint", baseline): "routing",
    }
    check_refused(capsys, intervene.main, cases, "--checkpoint", checkpoint, *FEW)
    assert not load_rows(ROWS)


def hand_made_rows() -> list[dict]:
    """Two layers; expert 0.1 is needed late; of 1.0 nothing was measured."""
    phases = [
        {"phase": "early", "steps": 30, "use": [[0.9, 0.1], [0.2, 0.8]]},
        {"phase": "late", "steps": 10, "use": [[0.5, 0.5], [0.2, 0.8]]},
    ]
    intact = {"intervention": NONE, "variant": "gate-only", "phases": phases, "expert_hidden_sizes": [[0, 16], [16, 8]]}
    deltas = {"lesion 0.1": -0.8, "lesion 0.1 in early": 0.0, "lesion 0.1 in late": -0.8, "lesion 1.1": 0.02}
    deltas |= {"lesion 0.0 in late": None}
    rows = [{"intervention": name, "variant": "gate-only", "delta_success": delta} for name, delta in deltas.items()]
    rows += [intact, {"intervention": "lesion 0.1 in late", "variant": "zeroed", "delta_success": -0.9}]
    return [row | {"num_episodes": 500} for row in rows]


def test_the_figure_shows_use_beside_need():
    need, use, experts, phases = use_and_need(hand_made_rows())
    assert experts == ["0.0 skip", "0.1 GRU 16", "1.0 GRU 16", "1.1 GRU 8"] and phases == ["all steps", "early", "late"]
    nan = np.nan
    np.testing.assert_array_equal(need, [[nan] * 3, [-0.8, 0, -0.8], [nan] * 3, [0.02, nan, nan]])
    np.testing.assert_allclose(use, [[0.8, 0.9, 0.5], [0.2, 0.1, 0.5], [0.2, 0.2, 0.2], [0.8, 0.8, 0.8]])
    figure = plot_use_and_need(hand_made_rows(), "a run")
    texts = [[text.get_text() for text in ax.texts] for ax in figure.axes]
    assert texts[0] == ["", "", "", "-80.0", "+0.0", "-80.0", "", "", "", "+2.0", "", ""]
    assert len([patch for patch in figure.axes[0].patches if patch.get_hatch()]) == 8, "not measured is no zero"
    assert texts[1][:3] == ["0.80", "0.90", "0.50"] and len(texts[1]) == 12
    assert len(values_of(figure)) == 24 and figure.get_suptitle().startswith("a run\n500 worlds")
    assert use_and_need_files(hand_made_rows()) == {"use_and_need": "gate-only", "use_and_need_zeroed": "zeroed"}
    zeroed = use_and_need(hand_made_rows(), "zeroed")[0]  # in all steps the variants are the same
    np.testing.assert_array_equal(zeroed[1], [-0.8, nan, -0.9])
    assert "--what none" in refusal(plot_use_and_need, hand_made_rows()[:4], "a run")
