"""Result rows and the table of all of them, with several processes at once."""

import csv
import json
import shutil
import subprocess
import sys

import pandas as pd
import pytest
from checks import files_below, refusal
from eval_helpers import write_result
from scripts import REPOSITORY

from mop.artifacts.results import ADDED_COLUMNS, DOCUMENTED_COLUMNS, load_result, load_table_rows, merge_results
from mop.artifacts.run_paths import RunKey, cache_path, find_caches, result_path
from mop.common.files import write_atomic

TASK = "BabyAI-GoToObj-v0"


def toy_row(key: RunKey, **more) -> dict:
    row = {"checkpoint_path": str(key.checkpoint("checkpoints")), "task_id": key.task_id, "trial": key.trial}
    return row | {"seed": key.seed, "update": key.update} | more


def test_result_round_trip_and_bad_results(tmp_path):
    key = RunKey(TASK, 1, 2, 3)
    row = toy_row(key, success_rate=0.5, path_ratio=float("nan"), expert_hidden_sizes=[[0, 16], [32]])
    write_result(tmp_path, key, row)
    assert load_result(result_path(tmp_path, key)) == row | {"path_ratio": None}
    assert "checkpoint_path" in refusal(write_result, tmp_path, key, {"trial": 0})
    bad = [b"", b'{"task_id": "A"', b"[]", b"{}", b'{"checkpoint_path": "x", "task_id": "A", "trial": "0"}', None]
    for number, content in enumerate(bad):
        path = tmp_path / f"bad_{number}.json"
        if content is not None:
            path.write_bytes(content)
        assert refusal(load_result, path).startswith(f"{path}: ")


def test_merge_results_columns_order_and_integers(tmp_path):
    results = tmp_path / "evaluation_results.csv"
    wilson = {"success_low": 0.25, "success_high": 0.75}
    rows = [
        (RunKey("A", 0), {"success_rate": 0.5, "num_updates": 300, **wilson, "normalize_lpc": True}),
        (RunKey("A", 2, 0, 100), {"zeta": "z", "expert_hidden_sizes": [[0, 16], [0, 32]], "lr": 1e-3}),
        (RunKey("A", 2, 0, 200), {"alpha": 1.5, "lang_encoder": 'a, "b"\nä'}),
        (RunKey("A", 2, 1), {"num_updates": 12345678901}),
        (RunKey("A", 10), {"normalize_lpc": False}),
        (RunKey("B", 0), {"path_ratio": float("nan")}),
    ]
    for key, more in reversed(rows):
        write_result(tmp_path / "cache", key, toy_row(key, **more))
    table = merge_results(tmp_path / "cache", results)
    assert list(table.columns) == [*DOCUMENTED_COLUMNS, *ADDED_COLUMNS, "alpha", "zeta"]
    assert list(zip(table["task_id"], table["trial"], strict=True)) == [(key.task_id, key.trial) for key, _ in rows]
    assert {str(table[name].dtype) for name in ("trial", "seed", "update", "num_updates")} == {"Int64"}
    lines = results.read_text().splitlines()
    assert lines[0] == ",".join(table.columns)
    read = pd.read_csv(results, dtype=str, keep_default_na=False)
    assert list(read["num_updates"]) == ["300", "", "", "12345678901", "", ""], "no 300.0"
    assert list(read["seed"]) == ["", "0", "0", "1", "", ""] and list(read["update"]) == ["", "100", "200", "", "", ""]
    assert list(read["normalize_lpc"]) == ["True", "", "", "", "False", ""]
    assert (read["success_low"][0], read["success_high"][0], read["success_low"][1]) == ("0.25", "0.75", "")
    assert json.loads(read["expert_hidden_sizes"][1]) == [[0, 16], [0, 32]]
    assert read["lang_encoder"][2] == 'a, "b"\nä' and read["lr"][1] == "0.001" and read["path_ratio"][5] == ""
    assert files_below(tmp_path)[-1] == "evaluation_results.csv", "no temporary file is left"


def test_a_result_that_is_damaged_is_named_and_left_out(tmp_path):
    cache, results = tmp_path / "cache", tmp_path / "evaluation_results.csv"
    good, bad = RunKey("A", 0), RunKey("A", 1)
    write_result(cache, good, toy_row(good, success_rate=0.5))
    (good.artefacts(cache) / ".result.json.12ab.tmp").write_bytes(b"{")  # what a killed writer leaves
    wrong = {"trial": "1",
        "success_rate": '"high"', "mean_lpc": "[1.0]", "path_ratio": "true", "num_updates": str(2**63),
        "lang_dim": str(2**70), "some_number": str(2**64 - 1), "num_episodes": "1.5", "evaluated_at": "3",
        "checkpoint_path": "null", "expert_hidden_sizes": '"x"', "normalize_lpc": "1", "policy": "{}",
    }  # fmt: skip
    for name, value in wrong.items():
        row = json.dumps(toy_row(bad) | {name: "HERE"}).replace('"HERE"', value)
        row = row[:-5] if name == "trial" else row
        write_atomic(result_path(cache, bad), lambda file, row=row: file.write(row.encode()))
        unread = []
        table = merge_results(cache, results, unread.append)
        assert list(table["trial"]) == [0] and len(unread) == 1, name
        assert unread[0].startswith(f"{result_path(cache, bad)}: ") and "\n" not in unread[0]
    assert len(merge_results(tmp_path / "no_cache", tmp_path / "other.csv")) == 0
    assert (tmp_path / "other.csv").read_text().split() == [",".join([*DOCUMENTED_COLUMNS, *ADDED_COLUMNS])]


def test_what_only_the_old_table_has_is_kept(tmp_path):
    results = tmp_path / "evaluation_results.csv"
    more = {"success_rate": 0.1 + 0.2, "lr": 1e-05, "expert_hidden_sizes": [[0, 16]], "normalize_lpc": True}
    for cache, trials in (("one", (0, 3)), ("two", (1, 3))):
        for key in (RunKey("A", trial) for trial in trials):
            write_result(tmp_path / cache, key, toy_row(key, checkpoint_sha256="12e4567890123456", **more))
    first = merge_results(tmp_path / "one", results)
    both = merge_results(tmp_path / "two", results)
    assert list(first["trial"]) == [0, 3] and list(both["trial"]) == [0, 1, 3]
    lines = results.read_text().splitlines()
    assert len({line.split("A,", 1)[1][2:] for line in lines[1:]}) == 1, "the kept rows are written as they were"
    assert "0.30000000000000004" in lines[1] and "1e-05" in lines[1] and "12e4567890123456" in lines[1]
    assert str(both["trial"].dtype) == "Int64" and str(both["normalize_lpc"].dtype) == "boolean"

    # the user's own column, in the midst of the others, and rows of checkpoints of other names
    lines = [line.split(",", 1) for line in lines]
    note = ["note", '"good, ""0012"""', "12345678901234567890", "1.50"]
    by_hand = "somewhere/else.pt,mine" + "," * (lines[0][1].count(",") + 1)
    lines = [f"{path},{cell},{rest}" for (path, rest), cell in zip(lines, note, strict=True)] + [by_hand]
    results.write_text("\n".join(lines) + "\n")
    for cache in ("one", "two", "one"):
        table = merge_results(tmp_path / cache, results)
        assert list(table["note"]) == ['good, "0012"', "12345678901234567890", "1.50", "mine"]
        assert table.columns[-1] == "note" and list(table["trial"])[:3] == [0, 1, 3]
        read = pd.read_csv(results, dtype=str, keep_default_na=False)
        assert list(read["note"]) == list(table["note"])
        assert list(read["success_rate"]) == ["0.30000000000000004"] * 3 + [""]
        assert list(read["checkpoint_path"])[3] == "somewhere/else.pt"


def test_a_link_is_written_through_and_a_foreign_table_is_kept(tmp_path):
    cache, results, real = tmp_path / "cache", tmp_path / "evaluation_results.csv", tmp_path / "real" / "table.csv"
    write_result(cache, RunKey("A", 0), toy_row(RunKey("A", 0)))
    real.parent.mkdir()
    results.symlink_to(real)
    merge_results(cache, results)
    assert results.is_symlink() and len(pd.read_csv(real)) == 1
    foreign = {"other columns": "a,b\n1,2\n", "twice": results.read_text().replace("seed", "trial"), "empty": ""}
    foreign["more cells"] = results.read_text() + ",".join("x" * 50) + "\n"
    for name, content in foreign.items():
        real.write_text(content)
        with pytest.warns(UserWarning, match="it is kept as") as told:
            assert len(merge_results(cache, results)) == 1
        (kept,) = real.parent.glob("table.*.csv")
        assert kept.read_text() == content and str(kept) in str(told[0].message), name
        kept.unlink()
    assert len(foreign) == 4


def test_copies_are_skipped_and_links_are_followed(tmp_path):
    cache, results = tmp_path / "cache", tmp_path / "evaluation_results.csv"
    keys = [RunKey("A", 0), RunKey("A", 0, None, 5), RunKey("A", 1, 2), RunKey("B", 0), RunKey("C", 0)]
    for key in keys:
        root = tmp_path / "elsewhere" if key.task_id == "C" else cache
        write_result(root, key, toy_row(key, update=key.update or 20, is_final=key.update is None))
    (cache / "C").symlink_to(tmp_path / "elsewhere" / "C")
    (cache / "B" / "trial_0").rename(tmp_path / "linked_trial")
    (cache / "B" / "trial_0").symlink_to(tmp_path / "linked_trial")
    copies = {
        "A copy": cache / "A", "backup/A": cache / "A", "A/trial_7": cache / "A" / "trial_1",
        "A/trial_1 (copy)": cache / "A" / "trial_1", "A/trial_1/seed_3": cache / "A" / "trial_1" / "seed_2",
        "B/trial_0/update_20": cache / "B" / "trial_0",
    }  # fmt: skip
    for name, source in copies.items():
        shutil.copytree(source, tmp_path / "copies" / name)
    for name in copies:
        shutil.copytree(tmp_path / "copies" / name, cache / name)
    with pytest.warns(UserWarning, match="is skipped") as told:
        table = merge_results(cache, results)
    assert list(table["task_id"]) == ["A", "A", "A", "B", "C"]
    lines = [str(warning.message) for warning in told]
    assert all(any(line.startswith(f"{cache / name}/") for line in lines) for name in copies) and len(copies) == 6
    assert not any("\n" in line for line in lines)
    assert find_caches(cache) == []
    for key in (keys[0], keys[4]):
        cache_path(cache, key).write_bytes(b"")
    shutil.copy(cache_path(cache, keys[0]), cache / "backup/A/trial_0")
    assert find_caches(cache) == [keys[0], keys[4]]


def test_four_processes_merge_at_once_and_no_row_is_lost(tmp_path):
    """Two of them into another cache: each keeps the rows of the others."""
    cache, results = tmp_path / "cache", tmp_path / "evaluation_results.csv"
    code = f"""
import sys
from mop.artifacts.results import merge_results, result_file
from mop.common.files import write_together
from mop.artifacts.run_paths import RunKey
print("ready", flush=True); sys.stdin.readline()
for trial in range(5):
    key = RunKey("task_" + sys.argv[1], trial)
    row = {{"checkpoint_path": key.task_id + str(trial), "task_id": key.task_id, "trial": trial}}
    cache = {str(cache)!r} + str(int(sys.argv[1]) % 2)
    write_together([result_file(cache, key, row)])
    merge_results(cache, {str(results)!r})
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": REPOSITORY}
    children = [subprocess.Popen([sys.executable, "-c", code, str(number)], **pipes) for number in range(4)]
    for child in children:
        assert child.stdout.readline() == "ready\n"
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    for child in children:
        child.communicate(timeout=30)
        assert child.returncode == 0
    table = pd.read_csv(results)
    expected = [(f"task_{number}", trial) for number in range(4) for trial in range(5)]
    assert list(zip(table["task_id"], table["trial"], strict=True)) == expected
    assert len(files_below(tmp_path)) == 20 + 1


def test_a_table_is_read_by_the_kinds_of_its_columns(tmp_path):
    path, count = tmp_path / "table.csv", 0
    head = "task_id,trial,success_rate,mean_lpc,num_episodes,num_envs,is_final,expert_hidden_sizes,trained_on,mine"
    whole = ["3", "0", "0.10", "12", "1000", "16.0", "True", "[[0, 16]]", "", "x"]

    def write(cells):
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([head.split(","), cells])

    write(whole)
    (row,) = load_table_rows(path, ("trial",))
    assert list(row.values()) == ["3", 0, 0.1, 12, 1000, 16, True, "[[0, 16]]", None, "x"]
    bad = (("trial", "x"), ("success_rate", "7"), ("success_rate", "inf"), ("mean_lpc", "many"), ("num_episodes", "0"))
    bad += (("num_episodes", "9" * 30), ("num_envs", "two"), ("num_envs", "1.5"), ("is_final", "perhaps"))
    for name, value in bad:
        write([value if name == column else cell for column, cell in zip(head.split(","), whole, strict=True)])
        line = refusal(load_table_rows, path)
        assert str(path) in line and name in line and len(line) < 300
        count += 1
    assert count == 9
    write(whole)
    assert "policy" in refusal(load_table_rows, path, ("policy",))
