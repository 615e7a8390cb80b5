"""Result rows and the table of all of them, with several processes at once."""

import json
import subprocess
import sys
import warnings

import pandas as pd
import pytest
from checks import files_below, one_line
from conftest import REPOSITORY

from mop.base.errors import InputError
from mop.base.files import write_atomic
from mop.store.results import ADDED_COLUMNS, DOCUMENTED_COLUMNS, load_result, merge_results, write_result
from mop.store.run_keys import RunKey, result_path

TASK = "BabyAI-GoToObj-v0"


def toy_row(key: RunKey, **more) -> dict:
    row = {"checkpoint_path": str(key.checkpoint("checkpoints")), "task_id": key.task_id, "trial": key.trial}
    return row | {"seed": key.seed, "update": key.update} | more


def test_result_round_trip_and_bad_results(tmp_path):
    key = RunKey(TASK, 1, 2, 3)
    row = toy_row(key, success_rate=0.5, path_ratio=float("nan"), expert_hidden_sizes=[[0, 16], [32]])
    write_result(tmp_path, key, row)
    assert load_result(result_path(tmp_path, key)) == row | {"path_ratio": None}
    with pytest.raises(InputError, match="lacks checkpoint_path, task_id"):
        write_result(tmp_path, key, {"trial": 0})
    bad = [b"", b'{"task_id": "A"', b"[]", b"{}", b'{"checkpoint_path": "x", "task_id": "A", "trial": "0"}', None]
    for number, content in enumerate(bad):
        path = tmp_path / f"bad_{number}.json"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(InputError) as error:
            load_result(path)
        assert one_line(error).startswith(f"{path}: ")
    assert len(bad) == 6


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
    documented = (
        "checkpoint_path,task_id,trial,num_episodes,success_rate,path_ratio,mean_lpc,bot_plan_failures,num_updates,"
        "unroll_len,lr,lpc_alpha,expert_hidden_sizes,intermediate_dim,router_hidden_size,max_steps,lang_dim,"
        "evaluated_at"
    )
    ours = "seed,update,policy,lang_encoder,normalize_lpc,success_low,success_high,eval_seed,minigrid_version"
    assert ",".join([*DOCUMENTED_COLUMNS, *ADDED_COLUMNS]) == f"{documented},{ours}"
    assert ",".join(table.columns) == f"{documented},{ours},alpha,zeta"
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


def test_merge_results_skips_and_names_corrupt_results_only(tmp_path):
    cache, results = tmp_path / "cache", tmp_path / "evaluation_results.csv"
    good, bad = RunKey("A", 0), RunKey("A", 1)
    write_result(cache, good, toy_row(good))
    bad_path = result_path(cache, bad)
    write_atomic(bad_path, lambda file: file.write(b'{"task_id": "A", "tri'))
    (good.artefacts(cache) / ".result.json.12ab.tmp").write_bytes(b"{")  # what a killed writer leaves
    with pytest.warns(UserWarning, match="left out") as told:
        table = merge_results(cache, results)
    assert list(table["trial"]) == [0] and len(told) == 1 and str(bad_path) in str(told[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        empty = merge_results(tmp_path / "no_cache", results)
    assert len(empty) == 0 and results.read_text().split() == [",".join([*DOCUMENTED_COLUMNS, *ADDED_COLUMNS])]


def test_a_result_written_while_the_table_is_made_is_not_lost(tmp_path, monkeypatch):
    cache, results = tmp_path / "cache", tmp_path / "evaluation_results.csv"
    keys = [RunKey("A", trial) for trial in range(3)]
    write_result(cache, keys[0], toy_row(keys[0], success_rate=0.0))
    late = [(keys[1], {}), (keys[0], {"success_rate": 1.0}), (keys[2], {})]  # a new one, a replaced one, a new one
    to_csv = pd.DataFrame.to_csv

    def to_csv_after_another_result(table, *arguments, **options):
        if late:
            key, more = late.pop(0)
            write_result(cache, key, toy_row(key, **more))
        return to_csv(table, *arguments, **options)

    monkeypatch.setattr(pd.DataFrame, "to_csv", to_csv_after_another_result)
    table = merge_results(cache, results)
    assert not late and list(table["trial"]) == [0, 1, 2] and table["success_rate"][0] == 1.0
    assert list(pd.read_csv(results)["trial"]) == [0, 1, 2]


def test_four_processes_merge_at_once_and_no_row_is_lost(tmp_path):
    cache, results = tmp_path / "cache", tmp_path / "evaluation_results.csv"
    code = f"""
import sys
from mop.store.results import merge_results, write_result
from mop.store.run_keys import RunKey
print("ready", flush=True); sys.stdin.readline()
for trial in range(5):
    key = RunKey("task_" + sys.argv[1], trial)
    row = {{"checkpoint_path": "x", "task_id": key.task_id, "trial": trial}}
    write_result({str(cache)!r}, key, row)
    merge_results({str(cache)!r}, {str(results)!r})
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
