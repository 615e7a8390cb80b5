"""Key <-> path, whole files only, checkpoints old and hostile, the results table, routing caches of every version."""

import itertools
import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from mop.base.errors import InputError
from mop.base.files import claimed, write_atomic
from mop.store.checkpoints import (
    find_checkpoints,
    load_checkpoint,
    load_training_state,
    save_checkpoint,
    save_training_state,
)
from mop.store.results import ADDED_COLUMNS, DOCUMENTED_COLUMNS, load_result, merge_results, write_result
from mop.store.run_keys import RunKey, cache_path, result_path

REPOSITORY = Path(__file__).parent.parent
TASK = "BabyAI-GoToObj-v0"


def toy_checkpoint(update=None, **config) -> dict:
    """A checkpoint with one weight and the keys that the oldest files have; `update` only if given."""
    checkpoint = {"policy_state_dict": {"head.weight": torch.arange(6.0).reshape(2, 3)}, "config": {"task_id": TASK}}
    checkpoint["config"] |= config
    return checkpoint if update is None else checkpoint | {"update": update}


def one_line(error: pytest.ExceptionInfo) -> str:
    text = str(error.value)
    assert "\n" not in text and text
    return text


def files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# --- run key --------------------------------------------------------------------------------------------------------


def test_keys_and_paths_determine_each_other():
    tasks = (TASK, "trial_3", "seed_1", "update_2", "with space", "a.b", "ä", "...")
    roots = ("", ".", "checkpoints", "/abs/modal_checkpoints", "a/trial_1/seed_2", "../up")
    paths, cases = {}, 0
    for task, trial, seed, update in itertools.product(tasks, (0, 1, 10), (None, 0, 7), (None, 0, 200)):
        key = RunKey(task, trial, seed, update)
        for root in roots:
            assert RunKey.from_checkpoint(key.checkpoint(root)) == key
            assert RunKey.from_checkpoint(str(key.checkpoint(root))) == key
            assert RunKey.from_artefacts(key.artefacts(root)) == key
            cases += 1
        assert key.checkpoint("r").parent == key.folder("r")
        paths.setdefault(key.checkpoint("r"), key)
        paths.setdefault(key.artefacts("r"), key)
    assert cases == 8 * 3 * 3 * 3 * 6
    assert len(paths) == 2 * 8 * 3 * 3 * 3  # no two keys share a path


def test_paths_are_the_documented_ones():
    key = RunKey(TASK, 0, seed=1, update=200)
    assert key.checkpoint("checkpoints").as_posix() == f"checkpoints/{TASK}/trial_0/seed_1/checkpoint_200.pt"
    assert key.artefacts("plots").as_posix() == f"plots/{TASK}/trial_0/seed_1/update_200"
    final = RunKey(TASK, 3)
    assert final.checkpoint("checkpoints").as_posix() == f"checkpoints/{TASK}/trial_3/checkpoint_final.pt"
    assert result_path("c", final).as_posix() == f"c/{TASK}/trial_3/result.json"
    assert cache_path("c", key).as_posix() == f"c/{TASK}/trial_0/seed_1/update_200/routing_data.json"
    assert key.label == f"{TASK} trial 0 seed 1 update 200" and final.label == f"{TASK} trial 3"


def test_bad_keys_and_foreign_paths_are_refused():
    bad_keys = [("", 0), (".", 0), ("..", 0), ("a/b", 0), (3, 0), ("T", -1), ("T", None), ("T", True), ("T", "0")]
    bad_keys += [("T", 1.0), ("T", 0, -1), ("T", 0, "1"), ("T", 0, None, -5), ("T", 0, False)]
    for arguments in bad_keys:
        with pytest.raises(InputError):
            RunKey(*arguments)
    foreign = ["checkpoint_final.pt", "trial_0/checkpoint_final.pt", "T/trial_0/checkpoint_5000.pth", "", "T/trial_0"]
    foreign += ["T/trial_00/checkpoint_final.pt", "T/trial_0/checkpoint_05.pt", "T/trial_x/checkpoint_final.pt"]
    foreign += ["T/trial_0/seed_/checkpoint_final.pt", "../trial_0/checkpoint_final.pt", "T/trial_²/checkpoint_1.pt"]
    foreign += ["T/trial_0/update_5/checkpoint_final.pt", "T/trial_0/.checkpoint_final.pt.1a.tmp"]
    for path in foreign:
        with pytest.raises(InputError, match="<task_id>/trial_<N>") as error:
            RunKey.from_checkpoint(path)
        assert str(Path(path)) in one_line(error) or path in one_line(error)
    for folder in ("T", "trial_0", "T/trial_0/update_5/seed_1", "T/trial_0/update_", "T/trial_0/plots"):
        with pytest.raises(InputError, match="<task_id>/trial_<N>"):
            RunKey.from_artefacts(folder)
    assert (len(bad_keys), len(foreign)) == (14, 13)


# --- whole files only -----------------------------------------------------------------------------------------------


def test_write_atomic_makes_parents_and_keeps_the_usual_mode(tmp_path):
    path = tmp_path / "a" / "b" / "file.txt"
    for content in (b"first", b"second"):
        write_atomic(path, lambda file, content=content: file.write(content))
        assert path.read_bytes() == content
    with path.open("rb") as reader:
        write_atomic(path, lambda file: file.write(b"third"))
        assert reader.read() == b"second", "who has the old file open reads all of the old content"
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    assert path.stat().st_mode == plain.stat().st_mode
    assert files_below(tmp_path) == ["a/b/file.txt", "plain"]


def test_an_exception_in_the_writer_keeps_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    path.write_bytes(b"old")

    def fail(file):
        file.write(b"half of the n")
        raise KeyboardInterrupt

    for target in (path, tmp_path / "new.txt"):
        with pytest.raises(KeyboardInterrupt):
            write_atomic(target, fail)
    assert path.read_bytes() == b"old" and files_below(tmp_path) == ["file.txt"]


def test_sigkill_inside_the_writer_keeps_the_old_checkpoint(tmp_path):
    path = RunKey(TASK, 0).checkpoint(tmp_path)
    save_checkpoint(path, toy_checkpoint(update=7))
    code = f"""
import time
from mop.base.files import write_atomic
def write(file):
    file.write(open({str(path)!r}, "rb").read()[:500]); file.flush()
    print("inside", flush=True); time.sleep(60)
write_atomic({str(path)!r}, write)
"""
    child = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "inside\n"
    child.kill()
    assert child.wait(timeout=20) == -signal.SIGKILL
    child.stdout.close()
    assert len(files_below(tmp_path)) == 2, "the half file lies beside the old one"
    assert load_checkpoint(path)["update"] == 7
    assert [found.path for found in find_checkpoints([tmp_path])] == [path], "the half file is not taken for one"


# --- checkpoints ----------------------------------------------------------------------------------------------------


def test_a_claim_is_one_process_only_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with claimed("a run") as first, claimed("a run") as second, claimed("another") as other:
        assert (first, second, other) == (True, False, True)
        assert len(files_below(tmp_path)) == 2
    with claimed("a run") as again:
        assert again
    assert files_below(tmp_path) == []


def test_claims_of_many_processes_never_overlap(tmp_path):
    program = """
import sys, tempfile, time
tempfile.tempdir = sys.argv[1]
from mop.base.files import claimed
num_claims = 0
end = time.monotonic() + 2
while time.monotonic() < end:
    with claimed("a run") as is_ours:
        if is_ours:
            with open(sys.argv[1] + "/owner", "x"):  # fails if another process is in here
                pass
            num_claims += 1
            __import__("os").unlink(sys.argv[1] + "/owner")
print(num_claims)
"""
    command = [sys.executable, "-c", program, str(tmp_path)]
    processes = [subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    counts = [int(process.communicate(timeout=60)[0]) for process in processes]
    assert len(counts) == 3 and sum(counts) > 100 and all(process.returncode == 0 for process in processes)
    assert files_below(tmp_path) == []


def test_checkpoint_round_trip_needs_no_allow_list(tmp_path):
    path = tmp_path / "deep" / "checkpoint_final.pt"
    checkpoint = toy_checkpoint(
        update=5, trial=2, num_actions=np.int64(7), lr=np.float32(0.5), sizes=[[0, np.int32(3)]]
    )
    weight = torch.nn.Linear(2, 3).weight
    adam = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(3, 2)}}, "param_groups": [{"lr": 0.1}]}
    checkpoint |= {"policy_state_dict": OrderedDict(weight=weight), "optimizer_state_dict": adam}
    save_checkpoint(path, checkpoint)
    plain = torch.load(path, weights_only=True)
    loaded = load_checkpoint(path)
    expected = {"task_id": TASK, "trial": 2, "num_actions": 7, "lr": 0.5, "sizes": [[0, 3]]}
    for result in (plain, loaded):
        assert result["config"] == expected and result["update"] == 5
        assert torch.equal(result["policy_state_dict"]["weight"], weight)
        assert torch.equal(result["optimizer_state_dict"]["state"][0]["exp_avg"], torch.ones(3, 2))
    assert type(checkpoint["config"]["num_actions"]) is np.int64, "the caller's dictionary is left alone"


def test_training_state_round_trip(tmp_path):
    path = tmp_path / "training_state.pt"
    state = {"hidden": [torch.ones(2, 3), {"a": torch.tensor([1, 2])}], "update": 3, "names": ["x", "y"], "none": None}
    save_training_state(path, state)
    loaded = load_training_state(path)
    assert torch.equal(loaded["hidden"][0], torch.ones(2, 3)) and loaded["hidden"][1]["a"].tolist() == [1, 2]
    assert {key: loaded[key] for key in ("update", "names", "none")} == {"update": 3, "names": ["x", "y"], "none": None}
    torch.save([1, 2], path)
    with pytest.raises(InputError, match="no training state"):
        load_training_state(path)


def rename_in_pickle(path: Path, old: bytes, new: bytes) -> None:
    """Give a global of a file by torch.save another name, as another version of its library would have written it."""
    with zipfile.ZipFile(path) as archive:
        entries = [(name, archive.read(name)) for name in archive.namelist()]
    assert any(old in data for name, data in entries if name.endswith("data.pkl"))
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries:
            archive.writestr(name, data.replace(old, new) if name.endswith("data.pkl") else data)


@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_numpy_scalars_of_either_numpy_load_as_python_numbers(tmp_path, module):
    path = tmp_path / "checkpoint_final.pt"
    scalars = {"num_actions": np.int64(7), "lr": np.float32(0.5), "flag": np.bool_(True), "lpc_alpha": np.float64(1e-4)}
    torch.save(toy_checkpoint(update=np.int64(9)) | {"config": {"task_id": TASK, **scalars}}, path)
    rename_in_pickle(path, b"numpy._core.multiarray", module)
    with zipfile.ZipFile(path) as archive:
        assert b"c" + module + b"\nscalar\n" in next(archive.read(n) for n in archive.namelist() if "data.pkl" in n)
    loaded = load_checkpoint(path)
    assert loaded["config"] == {"task_id": TASK, "num_actions": 7, "lr": 0.5, "flag": True, "lpc_alpha": 1e-4}
    assert {name: type(loaded["config"][name]) for name in scalars} == {
        "num_actions": int,
        "lr": float,
        "flag": bool,
        "lpc_alpha": float,
    }
    assert type(loaded["update"]) is int and "seed" not in loaded["config"], "absent keys stay absent"


class Attack:
    """Unpickled without care, it runs a command."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def test_a_hostile_pickle_is_named_and_not_executed(tmp_path):
    marker = tmp_path / "executed"
    hostile = toy_checkpoint() | {"extra": Attack(marker)}
    torch.save(hostile, tmp_path / "zip.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(hostile["extra"], protocol=2))
    cases = 0
    for name, load in itertools.product(("zip.pt", "plain.pt"), (load_checkpoint, load_training_state)):
        with pytest.raises(InputError, match=r"system.*nothing of it was loaded") as error:
            load(tmp_path / name)
        assert str(tmp_path / name) in one_line(error)
        cases += 1
    assert cases == 4 and not marker.exists()
    pickle.loads((tmp_path / "plain.pt").read_bytes())
    assert marker.exists(), "the attack does work on a careless reader"


def test_files_that_are_no_checkpoints_get_one_line(tmp_path):
    good = tmp_path / "good.pt"
    save_checkpoint(good, toy_checkpoint())
    data = good.read_bytes()
    flipped = bytearray(data)
    flipped[data.index(b"policy_state_dict")] ^= 0xFF
    contents = {
        "empty": (b"", "empty"),
        "text": (b"hello world\n", "no checkpoint"),
        "json": (b'{"config": 1}', "no checkpoint"),
        "half": (data[: len(data) // 2], "cut short"),
        "almost": (data[:-1], "cut short"),
        "flipped": (bytes(flipped), "no checkpoint|cannot load"),
    }
    for name, content in {
        "list": [1, 2],
        "no_policy": {"config": {"task_id": TASK}},
        "no_config": {"policy_state_dict": {}},
        "no_task": {"policy_state_dict": {}, "config": {"trial": 1}},
        "no_tensor": {"policy_state_dict": {"head.weight": 3}, "config": {"task_id": TASK}},
    }.items():
        torch.save(content, tmp_path / name)
        contents[name] = ((tmp_path / name).read_bytes(), "no checkpoint")
    cases = 0
    for name, (content, reason) in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=reason) as error:
            load_checkpoint(tmp_path / name)
        assert one_line(error).startswith(f"{tmp_path / name}: ")
        cases += 1
    for path, reason in ((tmp_path, "directory"), (tmp_path / "missing.pt", "No such file")):
        with pytest.raises(InputError, match=reason) as error:
            load_checkpoint(path)
        assert one_line(error).startswith(f"{path}: ")
        cases += 1
    assert cases == 13


def test_find_checkpoints_takes_the_layout_and_nothing_else(tmp_path):
    keys = [
        RunKey("A", 0),
        RunKey("A", 0, 1),
        RunKey("A", 0, 2, 50),
        RunKey("A", 0, 2),
        RunKey("A", 10),
        RunKey("B", 2),
    ]
    for key in reversed(keys):
        save_checkpoint(key.checkpoint(tmp_path), toy_checkpoint(update=100))
    folder = RunKey("A", 0).folder(tmp_path)
    names = ("training_state.pt", ".checkpoint_final.pt.12ab.tmp", "checkpoint_best.pt", "checkpoint_.pt", "x.pt")
    for name in (*names, "checkpoint_007.pt", "training_log.csv"):
        (folder / name).write_bytes(b"")
    (folder / "checkpoint_9.pt").mkdir()
    for foreign in ("checkpoint_final.pt", "trial_0/checkpoint_final.pt", "A/checkpoint_final.pt"):
        (tmp_path / foreign).parent.mkdir(exist_ok=True)
        (tmp_path / foreign).write_bytes(b"")
    found = find_checkpoints([tmp_path, tmp_path / "missing"])
    assert [item.key for item in found] == keys, "sorted, the final one after the periodic ones"
    assert [item.path for item in found] == [key.checkpoint(tmp_path) for key in keys]
    assert find_checkpoints([tmp_path / "missing"]) == [] == find_checkpoints([])


@pytest.mark.parametrize(
    ("final", "kept"),
    [
        (toy_checkpoint(update=5000), {"200", "final"}),
        (toy_checkpoint(num_updates=5000), {"200", "final"}),
        (toy_checkpoint(num_updates=np.int64(5000)), {"200", "final"}),
        (toy_checkpoint(update=5001, num_updates=5000), {"200", "5000", "final"}),
        (toy_checkpoint(), {"200", "5000", "final"}),
        (None, {"200", "5000", "final"}),  # unreadable
    ],
)
def test_a_periodic_checkpoint_of_the_final_update_is_one_run(tmp_path, final, kept):
    folder = RunKey(TASK, 0, seed=3).folder(tmp_path)
    for update in (200, 5000):
        save_checkpoint(folder / f"checkpoint_{update}.pt", toy_checkpoint(update=update))
    path = folder / "checkpoint_final.pt"
    path.write_bytes(b"cut") if final is None else torch.save(final, path)
    assert {item.path.stem.removeprefix("checkpoint_") for item in find_checkpoints([tmp_path])} == kept


def test_the_first_root_wins_and_a_difference_is_told(tmp_path):
    first, second = tmp_path / "checkpoints", tmp_path / "modal_checkpoints"
    same, other, only = RunKey("A", 0), RunKey("A", 1), RunKey("B", 0, 4)
    for root, update in ((first, 1), (second, 2)):
        save_checkpoint(same.checkpoint(root), toy_checkpoint(update=1))
        save_checkpoint(other.checkpoint(root), toy_checkpoint(update=update))
    save_checkpoint(only.checkpoint(second), toy_checkpoint(update=1))
    with pytest.warns(UserWarning) as told:
        found = find_checkpoints([first, second])
    assert [item.path for item in found] == [same.checkpoint(first), other.checkpoint(first), only.checkpoint(second)]
    assert len(told) == 1
    assert str(other.checkpoint(first)) in str(told[0].message)
    assert str(other.checkpoint(second)) in str(told[0].message)


# --- results --------------------------------------------------------------------------------------------------------


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


# --- routing caches -------------------------------------------------------------------------------------------------
