"""Batch evaluation: what is missing, the files it leaves, bad checkpoints, several processes, a kill."""

import csv
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from checks import files_below, strict_json
from eval_helpers import GOTO, UNLOCK, put, random_checkpoint, taught_checkpoint
from PIL import Image
from scripts import PATIENCE_S, check_refused, in_process, start

import batch_eval
from mop.artifacts import routing_cache
from mop.artifacts.checkpoints import find_checkpoints
from mop.artifacts.results import load_result
from mop.artifacts.routing_cache import as_routing_data, load_cache
from mop.artifacts.run_paths import RunKey, cache_path, result_path
from mop.common.conventions import SUBGOALS
from mop.common.errors import InputError
from mop.common.files import folder_lock
from mop.envs.babyai import MINIGRID_VERSION, World
from mop.envs.episodes import episode_context
from mop.evaluation import batch
from mop.evaluation.batch import Settings, attempt
from mop.statistics.intervals import interval_of_rate

DOCUMENTED_COLUMNS = [
    "checkpoint_path", "task_id", "trial", "num_episodes", "success_rate", "path_ratio", "mean_lpc",
    "bot_plan_failures", "num_updates", "unroll_len", "lr", "lpc_alpha", "expert_hidden_sizes", "intermediate_dim",
    "router_hidden_size", "max_steps", "lang_dim", "evaluated_at",
]  # fmt: skip
OUR_COLUMNS = [
    "seed", "update", "policy", "lang_encoder", "normalize_lpc", "success_low", "success_high", "eval_seed",
    "minigrid_version",
]  # fmt: skip
DOCUMENTED_HEADER = {
    "schema_version", "checkpoint_path", "num_episodes", "evaluated_at", "metrics", "expert_hidden_sizes", "task_id",
    "trial", "seed", "update", "config", "bot_failures",
}  # fmt: skip
DOCUMENTED_EPISODE = {
    "grid_size", "agent_start_pos", "agent_start_dir", "agent_start_room", "room_grid_shape", "room_bounds", "goals",
    "doors", "keys", "balls", "boxes", "target_pos", "seed", "mission", "instructions", "success", "truncated", "steps",
    "expert_steps", "t_pick", "t_opened", "t_unlocked", "t_drop",
}  # fmt: skip
DOCUMENTED_STEP = {
    "episode", "t_step", "position", "direction", "layer_routing", "lpc", "carrying", "door_unlocked",
    "action_logits", "action", "subgoal", "instruction",
}  # fmt: skip
FEW = ("--num_episodes", 3, "--device", "cpu")


@pytest.fixture
def tree(tmp_path, monkeypatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # restored after main has set it
    return tmp_path


def table_rows(path: str | Path = "evaluation_results.csv") -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def evaluated(monkeypatch) -> list[str]:
    """Paths of the checkpoints that are evaluated in this process, in order."""
    paths = []
    evaluate = batch.evaluate_checkpoint

    def spy(found, *arguments):
        paths.append(Path(found.path).as_posix())
        return evaluate(found, *arguments)

    monkeypatch.setattr(batch, "evaluate_checkpoint", spy)
    return paths


def run(evaluated: list[str], *flags) -> list[str]:
    """What one successful call evaluates."""
    evaluated.clear()
    assert in_process(batch_eval.main, *FEW, *flags) == 0
    return list(evaluated)


def test_only_what_is_missing_is_evaluated(tree, evaluated, capsys):
    files = {
        put(tree / "checkpoints", random_checkpoint(0), trial=0): f"{GOTO}/trial_0",
        put(tree / "checkpoints", random_checkpoint(1), trial=0, update=5): f"{GOTO}/trial_0/update_5",
        put(tree / "checkpoints", random_checkpoint(2), trial=0, seed=7): f"{GOTO}/trial_0/seed_7",
        put(tree / "checkpoints", random_checkpoint(3), trial=0, seed=7, update=10): f"{GOTO}/trial_0/seed_7/update_10",
        put(tree / "modal_checkpoints", random_checkpoint(4, UNLOCK, max_steps=20), trial=2): f"{UNLOCK}/trial_2",
    }
    (tree / "checkpoints" / GOTO / "trial_0" / "training_state.pt").write_bytes(b"no checkpoint")
    (tree / "checkpoints" / "checkpoint_final.pt").write_bytes(b"in no run's folder")
    paths = [path.relative_to(tree).as_posix() for path in files]
    assert sorted(run(evaluated)) == sorted(paths) and len(paths) == 5
    for name in ("result.json", "routing_data.json"):
        assert files_below("evaluation_cache", name) == sorted(f"{folder}/{name}" for folder in files.values())
    rows = table_rows()
    assert sorted(row["checkpoint_path"] for row in rows) == sorted(paths)
    assert f"evaluation_results.csv (rows: {len(paths)})" in capsys.readouterr().out
    before = Path("evaluation_results.csv").read_bytes()
    assert run(evaluated) == [] and Path("evaluation_results.csv").read_bytes() == before

    final, periodic, seeded, seeded_periodic, unlock = paths
    selections = {
        ("--task", UNLOCK): [unlock],
        ("--trial", 0): [final, periodic, seeded, seeded_periodic],
        ("--trial", 2): [unlock],
        ("--seed", 7): [seeded, seeded_periodic],
        ("--seed", 0): [final, periodic],  # without a seed of its own, a run's seed is its trial
        ("--update", 5): [periodic],
        ("--final_only",): [final, seeded, unlock],
        ("--task", GOTO, "--seed", 7, "--update", 10): [seeded_periodic],
        ("--task", GOTO, "--final_only", "--trial", 0): [final, seeded],
        ("--checkpoint_dir", "modal_checkpoints"): [unlock],
    }
    for flags, expected in selections.items():
        assert sorted(run(evaluated, "--force", *flags)) == sorted(expected), flags
    assert len(run(evaluated, "--force")) == 5 and len(table_rows()) == 5

    # another file in the same place, and a lost result or cache, count as missing
    shutil.copy(tree / seeded, tree / final)
    assert run(evaluated) == [final]
    result_path("evaluation_cache", RunKey(GOTO, 0, 7)).unlink()
    cache_path("evaluation_cache", RunKey(GOTO, 0, None, 5)).unlink()
    assert sorted(run(evaluated)) == sorted([seeded, periodic])
    result_path("evaluation_cache", RunKey(UNLOCK, 2)).write_text('{"task_id": ')
    assert run(evaluated) == [unlock] and len(table_rows()) == 5

    filters = (("--task", "BabyAI-GoTo-v0"), ("--trial", 9), ("--seed", 9), ("--update", 9))
    filters += (("--task", "BabyAI-GoTo-v0", "--trial", 0),)
    named = {words: ("none of the 5 checkpoints", " ".join(map(str, words)), f"{GOTO} trial 0") for words in filters}
    named[("--final_only", "--trial", 9)] = "fits --trial 9 --final_only; there are"
    check_refused(capsys, batch_eval.main, named)


def test_skip_routing_first_and_the_caches_later(tree, evaluated):
    path = put(tree / "checkpoints", random_checkpoint()).relative_to(tree).as_posix()
    assert run(evaluated, "--skip_routing") == [path]
    assert files_below("evaluation_cache", "routing_data.json") == [] and len(table_rows()) == 1
    (first,) = table_rows()
    assert run(evaluated, "--skip_routing") == []
    assert run(evaluated) == [path]
    assert files_below("evaluation_cache", "routing_data.json") == [f"{GOTO}/trial_0/routing_data.json"]
    (second,) = table_rows()
    assert first["success_rate"] == second["success_rate"] and float(first["mean_lpc"]) == pytest.approx(
        float(second["mean_lpc"]), rel=1e-6
    )
    assert run(evaluated) == [] and run(evaluated, "--skip_routing") == []
    # evaluating again without the routing leaves the old cache, but the new result does not vouch for it
    assert run(evaluated, "--skip_routing", "--force") == [path] and run(evaluated, "--skip_routing") == []
    assert run(evaluated) == [path] and run(evaluated) == []
    # a changed checkpoint's old cache does not count
    put(tree / "checkpoints", random_checkpoint(1))
    assert run(evaluated, "--skip_routing") == [path] and run(evaluated) == [path] and run(evaluated) == []


def test_nothing_to_evaluate_and_bad_flags_are_one_line(tree, capsys):
    nowhere = {(): "checkpoints, modal_checkpoints", ("--checkpoint_dir", "elsewhere"): "elsewhere"}
    check_refused(capsys, batch_eval.main, nowhere)
    assert list(tree.iterdir()) == []
    put(tree / "checkpoints", random_checkpoint())
    check_refused(capsys, batch_eval.main, {("--plots", "--skip_routing"): "--skip_routing"})
    assert files_below(tree, "*.json") == []


def test_the_table(tree, evaluated):
    put(tree / "checkpoints", taught_checkpoint(num_worlds=8, max_steps=20))
    put(tree / "checkpoints", random_checkpoint(1, policy="gru", seed=3), trial=1, seed=3)
    old = random_checkpoint(2, trial=4)
    for key in ("seed", "policy", "num_envs", "residual", "num_updates", "gru_hidden_size"):
        del old["config"][key]  # keys that older checkpoints lack
    del old["update"]
    put(tree / "checkpoints", old, trial=4)
    assert len(run(evaluated, "--eval_seed", 5)) == 3
    rows = table_rows()
    columns = list(rows[0])
    assert columns[: len(DOCUMENTED_COLUMNS)] == DOCUMENTED_COLUMNS and len(DOCUMENTED_COLUMNS) == 18
    assert columns[len(DOCUMENTED_COLUMNS) :][: len(OUR_COLUMNS)] == OUR_COLUMNS
    assert [row["trial"] for row in rows] == ["0", "1", "4"]
    integers = {
        "num_updates": ["20", "20", ""],
        "update": ["20", "20", ""],
        "seed": ["", "3", ""],  # of the run key: none where the path names none
        "max_steps": ["20", "", ""],
        "eval_seed": ["5"] * 3,
        "num_envs": ["16", "16", ""],
    }
    for name, expected in integers.items():
        assert [row[name] for row in rows] == expected, name
    assert [row["policy"] for row in rows] == ["mop", "gru", "mop"]
    mixture = [[0, 8, 16], [24, 0]]
    assert [json.loads(row["expert_hidden_sizes"]) for row in rows] == [mixture, [[32]], mixture]
    for row in rows:
        rate, low, high = (float(row[name]) for name in ("success_rate", "success_low", "success_high"))
        assert (low, high) == pytest.approx(interval_of_rate(rate, 3), abs=1e-9)
        assert row["path_ratio"] == "" if rate == 0 else float(row["path_ratio"]) >= 1.0
        assert row["minigrid_version"] == MINIGRID_VERSION and row["lang_encoder"] == "vocab"
        assert pd.Timestamp(row["evaluated_at"]).tzinfo is not None
        key = RunKey.from_checkpoint(row["checkpoint_path"])
        result = load_result(result_path("evaluation_cache", key))
        assert result["success_rate"] == rate and result["mean_lpc"] == pytest.approx(float(row["mean_lpc"]))
    assert [row["path_ratio"] == "" for row in rows] == [False, True, True]
    assert float(rows[1]["mean_lpc"]) == 32.0**2


def test_the_cache(tree, evaluated):
    put(tree / "checkpoints", random_checkpoint(0, UNLOCK, max_steps=20), trial=3, seed=1)
    put(tree / "checkpoints", random_checkpoint(1, policy="gru"), trial=0)
    assert len(run(evaluated, "--num_episodes", 7)) == 2
    cases = {RunKey(UNLOCK, 3, 1): [3, 2], RunKey(GOTO, 0): [1]}
    for key, num_experts in cases.items():
        cache = strict_json(cache_path("evaluation_cache", key))
        row = load_result(result_path("evaluation_cache", key))
        assert cache.keys() >= DOCUMENTED_HEADER | {"episodes", "routing_data"} and cache["schema_version"] == 5
        assert (cache["task_id"], cache["trial"], cache["update"]) == (key.task_id, key.trial, 20)
        assert cache["checkpoint_path"] == key.checkpoint("checkpoints").as_posix()
        assert cache["num_episodes"] == len(cache["episodes"]) == 7
        assert cache["config"]["lang_dim"] == 8 and cache["config"]["task_id"] == key.task_id
        assert cache["expert_hidden_sizes"] == row["expert_hidden_sizes"]
        assert cache["evaluated_at"] == row["evaluated_at"]
        for name in ("success_rate", "path_ratio", "mean_lpc", "bot_plan_failures"):
            assert cache["metrics"][name] == row[name]
        world, steps = World(key.task_id), cache["routing_data"]
        for episode in cache["episodes"]:
            assert episode.keys() == DOCUMENTED_EPISODE
            world.reset(episode["seed"])
            context = episode_context(world)
            assert {name: episode[name] for name in context} == context and episode["mission"] == world.mission
        places = [(step["episode"], step["t_step"]) for step in steps]
        assert places == [(k, t) for k, episode in enumerate(cache["episodes"]) for t in range(episode["steps"])]
        for step in steps:
            assert step.keys() == DOCUMENTED_STEP
            weights = list(step["layer_routing"].values())
            assert [len(layer) for layer in weights] == num_experts
            assert all(sum(layer) == pytest.approx(1.0, abs=1e-4) for layer in weights)
            assert step["action"] == int(np.argmax(step["action_logits"])) and len(step["action_logits"]) == 7
            assert all(type(value) is int for value in (*step["position"], step["direction"]))
            assert step["subgoal"] in (*SUBGOALS, None) and step["instruction"] == (0 if step["subgoal"] else None)
        silent = {step["episode"] for step in steps if step["subgoal"] is None}
        assert len(silent) <= sum(cache["bot_failures"].values()) <= 7 and "bot_failures" not in row
        again = load_cache(cache_path("evaluation_cache", key))
        assert len(again.steps) == len(steps) > 50 and again.header["metrics"] == cache["metrics"]


def test_how_large_the_json_of_a_failing_policy_becomes_is_said(tree, evaluated, monkeypatch, capsys):
    path = put(tree / "checkpoints", random_checkpoint(0, UNLOCK, max_steps=60), trial=3)
    run(evaluated)
    assert "routing_data.json" not in capsys.readouterr().out
    cache = load_cache(cache_path("evaluation_cache", RunKey(UNLOCK, 3)))
    size = cache_path("evaluation_cache", RunKey(UNLOCK, 3)).stat().st_size
    assert size / 2 < len(cache.steps) * batch._BYTES_PER_STEP < size * 2 and len(cache.steps) > 100
    monkeypatch.setattr(batch, "_EXPECTED_MB", size / 4e6)
    assert run(evaluated, "--force") == [path.relative_to(tree).as_posix()]
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "routing_data.json" in line)
    assert f"{len(cache.steps):,} steps" in line and f"{UNLOCK} trial 3" in line and "--skip_routing" in line


def test_the_json_of_very_many_steps_is_bounded(tree, evaluated, monkeypatch, capsys):
    put(tree / "checkpoints", random_checkpoint(0, UNLOCK, max_steps=60), trial=3)
    run(evaluated)
    path = cache_path("evaluation_cache", RunKey(UNLOCK, 3))
    whole, size = load_cache(path), path.stat().st_size
    for module in (batch, routing_cache):
        monkeypatch.setattr(module, "MAX_JSON_STEPS", len(whole.steps) - 1)
    monkeypatch.setattr(batch, "_EXPECTED_MB", 0)
    run(evaluated, "--force")
    assert "routing_data.npz alone" in capsys.readouterr().out and path.stat().st_size < size / 2
    again = load_cache(path)
    for name, values in whole.steps.columns().items():
        assert all(map(np.array_equal, values, again.steps.columns()[name])), name
    for read in (lambda: as_routing_data(json.loads(path.read_text())), lambda: load_cache(path)):
        with pytest.raises(InputError, match=r"routing_data\.npz"):
            read()
        path.with_suffix(".npz").unlink(missing_ok=True)
    assert again.header == whole.header | {"evaluated_at": again.header["evaluated_at"]}


def test_heatmaps(tree, capsys):
    put(tree / "checkpoints", random_checkpoint(0), trial=0, seed=1)
    put(tree / "checkpoints", random_checkpoint(1, UNLOCK, max_steps=20), trial=2, update=4)
    assert in_process(batch_eval.main, *FEW, "--plots") == 0
    expected = [f"{GOTO}/trial_0/seed_1/routing_heatmap.png", f"{UNLOCK}/trial_2/update_4/routing_heatmap.png"]
    assert files_below("plots", "*.*") == expected
    out = capsys.readouterr().out
    for path in expected:
        assert f"heatmap: plots/{path}" in out
        with Image.open(f"plots/{path}") as image:
            assert image.format == "PNG" and min(image.size) > 200
            assert len(np.unique(np.asarray(image.convert("L")))) > 20
    # what has a result is drawn too, what is drawn is not drawn again, and a picture that fails costs no result
    first, second = (Path("plots") / path for path in expected)
    first.unlink()
    written = second.stat().st_mtime_ns
    put(tree / "checkpoints", random_checkpoint(2), trial=5)
    Path(f"plots/{GOTO}/trial_5").write_text("a file where its folder would be")
    assert in_process(batch_eval.main, *FEW, "--plots") == 0
    out = capsys.readouterr().out
    assert first.exists() and second.stat().st_mtime_ns == written and out.count("heatmap: plots/") == 2
    assert f"no heatmap of {GOTO} trial 5: " in out and len(table_rows()) == 3


def test_one_bad_checkpoint_among_good_ones(tree, capsys):
    root = tree / "checkpoints"
    good = [put(root, random_checkpoint(k), trial=k) for k in (0, 9)]
    cut = put(root, random_checkpoint(), trial=1)
    cut.write_bytes(cut.read_bytes()[:-1500])
    stray = put(root, random_checkpoint(task_id=UNLOCK), trial=2)
    stray.parent.rename(root / GOTO / "trial_2")
    mismatch = random_checkpoint()
    put(root, mismatch | {"config": mismatch["config"] | {"router_hidden_size": 7}}, trial=3)
    put(root, random_checkpoint(encoder_dim=768), trial=4)
    put(root, {key: value for key, value in mismatch.items() if key != "lang_proj_state_dict"}, trial=5)
    put(root, random_checkpoint(lang_encoder="./no_such_folder"), trial=6)
    capsys.readouterr()
    assert in_process(batch_eval.main, *FEW) == 1
    out = capsys.readouterr().out
    failed = [line for line in out.splitlines() if line.startswith("failed: ")]
    reasons = {
        1: "cut short",
        2: f"was trained on {UNLOCK}, not on {GOTO}",
        3: "weights and config of the checkpoint disagree",
        4: "768 numbers",
        5: "lang_proj_state_dict",
        6: "no_such_folder",
    }
    assert len(failed) == len(reasons) == 6 and "Traceback" not in out
    for line, (trial, reason) in zip(sorted(failed), sorted(reasons.items()), strict=True):
        assert line.count(f"checkpoints/{GOTO}/trial_{trial}/checkpoint_final.pt") == 1 and reason in line
    assert [row["checkpoint_path"] for row in table_rows()] == [path.relative_to(tree).as_posix() for path in good]
    caches = files_below("evaluation_cache", "routing_data.json")
    assert caches == [f"{GOTO}/trial_{k}/routing_data.json" for k in (0, 9)]


def test_a_bug_in_one_evaluation_costs_no_other(tree, monkeypatch, capsys):
    for trial in (0, 1, 2):
        put(tree / "checkpoints", random_checkpoint(trial), trial=trial)
    evaluate = batch.evaluate_checkpoint

    def fail(found, *arguments):
        if found.key.trial == 1:
            raise ZeroDivisionError("a bug")
        return evaluate(found, *arguments)

    monkeypatch.setattr(batch, "evaluate_checkpoint", fail)
    assert in_process(batch_eval.main, *FEW) == 1
    out = capsys.readouterr().out
    assert f"failed: checkpoints/{GOTO}/trial_1/checkpoint_final.pt: Traceback" in out and "a bug" in out
    assert [row["trial"] for row in table_rows()] == ["0", "2"]


def test_a_full_disk_costs_no_result(tree, evaluated, monkeypatch, capsys):
    for trial in range(3):
        put(tree / "checkpoints", random_checkpoint(trial), trial=trial)
    run(evaluated)
    before = {path: Path("evaluation_cache", path).read_bytes() for path in files_below("evaluation_cache")}
    rows, fsync = table_rows(), os.fsync

    def refuse(descriptor):
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if any(name in path for name in full):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    cases = ("routing_data.json", "routing_data.npz", "result.json")
    for name in cases:
        full = [f"/.{name}."]
        assert in_process(batch_eval.main, *FEW, "--force") == 1
        out = capsys.readouterr().out
        failed = [line for line in out.splitlines() if line.startswith("failed: ")]
        assert len(failed) == 3 and "Traceback" not in out
        for trial, line in enumerate(failed):
            assert "No space left on device" in line and f"evaluation_cache/{GOTO}/trial_{trial}/{name}" in line
        assert {path: Path("evaluation_cache", path).read_bytes() for path in before} == before
        assert files_below("evaluation_cache") == sorted(before) and table_rows() == rows
    full = [".evaluation_results.csv."]
    assert in_process(batch_eval.main, *FEW) == 2
    assert "No space left on device: 'evaluation_results.csv'" in capsys.readouterr().err
    assert table_rows() == rows and len(cases) == 3
    full = []
    assert len(run(evaluated, "--force")) == 3


def test_places_that_cannot_be_written_are_refused_before_the_work(tree, evaluated, capsys):
    put(tree / "checkpoints", random_checkpoint())
    Path("file").write_bytes(b"")
    Path("read_only.csv").write_text("mine\n")
    Path("read_only.csv").chmod(0o444)
    cases = {
        ("--cache_dir", "file/below"): "--cache_dir: file/below",
        ("--cache_dir", "/proc/x"): "--cache_dir: /proc/x",
        ("--results_path", "file/table.csv"): "--results_path: ",
        ("--results_path", "read_only.csv"): "--results_path: read_only.csv",
        ("--plots", "--plots_dir", "file"): "--plots_dir: file",
    }
    check_refused(capsys, batch_eval.main, cases)
    assert evaluated == [] and Path("read_only.csv").read_text() == "mine\n"
    run(evaluated, "--results_path", "new/folder/table.csv", "--cache_dir", "new/cache")
    assert len(table_rows("new/folder/table.csv")) == 1


def test_what_a_killed_process_left_is_removed(tree, evaluated):
    put(tree / "checkpoints", random_checkpoint())
    run(evaluated, "--plots")
    for path in ("plots/T/.x.png", f"evaluation_cache/{GOTO}/trial_0/.result.json", ".evaluation_results.csv"):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(f"{path}.0123456789ab.tmp").write_bytes(b"half")
    assert len(list(tree.rglob(".*.tmp"))) == 3
    run(evaluated, "--plots")
    assert list(tree.rglob(".*.tmp")) == []


def children_of(pid: int) -> list[int]:
    """The living processes that a process started."""
    return [int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()]


def is_alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] not in "ZX"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_their_parent_and_release_their_claims(tree, evaluated, number):
    for trial in range(3):
        put(tree / "checkpoints", random_checkpoint(trial), trial=trial)
    flags = ("--num_episodes", 100_000, "--device", "cpu", "--jobs", 2)  # longer than the test
    with start("batch_eval.py", *flags, cwd=tree) as process:
        end = time.monotonic() + 60
        while len(list(tree.glob("evaluation_cache/*/.trial_*.lock"))) < 2:  # both have a lock
            assert time.monotonic() < end and process.poll() is None
            time.sleep(0.05)
        workers = children_of(process.pid)
        process.send_signal(number)
    assert process.returncode == -number and len(workers) >= 2
    end = time.monotonic() + 10
    while any(map(is_alive, workers)):
        assert time.monotonic() < end, "a worker outlives its parent"
        time.sleep(0.05)
    assert len(run(evaluated)) == 3 and len(table_rows()) == 3


def test_a_checkpoint_that_another_process_evaluates_is_left_to_it(tree, evaluated, capsys):
    paths = [put(tree / "checkpoints", random_checkpoint(k), trial=k) for k in (0, 1)]
    with folder_lock(RunKey(GOTO, 0).artefacts("evaluation_cache")) as is_ours:
        assert is_ours
        assert run(evaluated) == [paths[1].relative_to(tree).as_posix()]
        assert f"{GOTO} trial 0: another process is evaluating it" in capsys.readouterr().out
        # nothing to do but what the other one does: that is no success, but the table is there
        assert in_process(batch_eval.main, *FEW) == 1
        out = capsys.readouterr().out
        assert "another process is evaluating it" in out and "(rows: 1)" in out
        assert len(run(evaluated, "--cache_dir", "own", "--results_path", "own.csv")) == 2, "other files: other work"
    assert run(evaluated) == [paths[0].relative_to(tree).as_posix()] and len(table_rows()) == 2
    # a checkpoint that was missing when this process looked, and that another one has evaluated since
    found, settings = find_checkpoints(["checkpoints"])[0], Settings(num_episodes=3, device="cpu")
    evaluated.clear()
    assert attempt(found, settings, force=False).status == "done" and evaluated == []
    assert attempt(found, settings, force=True).status == "done" and len(evaluated) == 1


def assert_complete(tree: Path, num_checkpoints: int) -> None:
    """A row and a whole cache of each checkpoint, and no temporary file."""
    rows = table_rows(tree / "evaluation_results.csv")
    assert [row["trial"] for row in rows] == [str(trial) for trial in range(num_checkpoints)]
    caches = files_below(tree / "evaluation_cache", "routing_data.json")
    assert caches == sorted(f"{GOTO}/trial_{trial}/routing_data.json" for trial in range(num_checkpoints))
    for path in caches:
        cache = strict_json(tree / "evaluation_cache" / path)
        assert len(cache["routing_data"]) == sum(episode["steps"] for episode in cache["episodes"])
    assert files_below(tree / "evaluation_cache", ".*.tmp") == [] and list(tree.glob(".*.tmp")) == []


@pytest.mark.slow
def test_two_processes_share_the_work_and_lose_nothing(tree):
    for trial in range(8):
        put(tree / "checkpoints", random_checkpoint(trial), trial=trial)
    Path("evaluation_results.csv").write_text("a table,of another program\n1,2\n")
    processes = [start("batch_eval.py", "--num_episodes", 40, "--device", "cpu", cwd=tree) for _ in range(2)]
    for process in processes:
        out, err = process.communicate()
        assert process.returncode == 0, out + err
        assert "Traceback" not in err and "failed" not in out
    assert_complete(tree, 8)
    contents = [path.read_text() for path in tree.glob("evaluation_results.*.csv")]
    assert contents.count("a table,of another program\n1,2\n") == 1


@pytest.mark.slow
def test_jobs_give_the_same_table(tree):
    for trial in range(3):
        put(tree / "checkpoints", random_checkpoint(trial), trial=trial)
    bad = put(tree / "checkpoints", random_checkpoint(), trial=3)
    bad.write_bytes(b"PK")
    tables = []
    two = start("batch_eval.py", *FEW, "--jobs", 2, "--cache_dir", "two", "--results_path", "two.csv", cwd=tree)
    assert in_process(batch_eval.main, *FEW, "--cache_dir", "one", "--results_path", "one.csv") == 1
    out, err = two.communicate()
    assert two.returncode == 1 and out.count("failed: ") == 1 and "cut short" in out, out + err
    tables = [pd.read_csv(name).drop(columns="evaluated_at") for name in ("one.csv", "two.csv")]
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    assert len(tables[0]) == 3
    written = files_below("one", "*.json")
    assert written == files_below("two", "*.json") and len(written) == 3 * 2 + 1


DIES_ON_TRIAL_1 = """
import os, signal
import batch_eval
from mop.common.errors import run_script
from mop.evaluation import batch
evaluate = batch.evaluate_checkpoint
def evaluate_or_die(found, settings, progress=None):
    if found.key.trial == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return evaluate(found, settings, progress)
batch.evaluate_checkpoint = evaluate_or_die
if __name__ == "__main__":
    run_script(batch_eval.main)
"""


@pytest.mark.slow
def test_a_process_that_dies_costs_its_own_checkpoint_only(tree):
    for trial in range(4):
        put(tree / "checkpoints", random_checkpoint(trial), trial=trial)
    (tree / "dies.py").write_text(DIES_ON_TRIAL_1)
    environment = os.environ | {"PYTHONPATH": str(Path(batch_eval.__file__).parent)}
    command = [sys.executable, "dies.py", *map(str, FEW), "--jobs", "2"]
    result = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    assert result.returncode == 1, result.stderr
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("failed: ")]
    assert "trial_1/checkpoint_final.pt" in line and "process died" in line
    assert [row["trial"] for row in table_rows(tree / "evaluation_results.csv")] == ["0", "2", "3"]


@pytest.mark.slow
def test_ctrl_c_begins_no_further_checkpoint(tree):
    """Not for the whole queue either, whether the terminal tells the workers too or only the first process hears it."""
    for trial in range(6):
        put(tree / "checkpoints", random_checkpoint(trial), trial=trial)
    process = start("batch_eval.py", "--num_episodes", 300, "--device", "cpu", "--jobs", 2, cwd=tree)
    while process.poll() is None and not files_below(tree, "result.json"):
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE_S)
    done = len(files_below(tree / "evaluation_cache", "result.json"))
    assert process.returncode == 130 and "Traceback" not in out + err, err
    assert 1 <= done <= 2 and err.count("interrupted") == 1 and f"{done} of 6" in err
    assert len(table_rows(tree / "evaluation_results.csv")) == done
    assert not files_below(tree, ".*.lock") and not files_below(tree, "*.tmp")


@pytest.mark.slow
def test_a_killed_process_leaves_whole_files_and_the_next_one_finishes(tree, evaluated):
    for trial in range(6):
        put(tree / "checkpoints", random_checkpoint(trial), trial=trial)
    process = start("batch_eval.py", "--num_episodes", 60, "--device", "cpu", cwd=tree)
    while process.poll() is None and not files_below(tree, "result.json"):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    _, err = process.communicate()
    assert process.returncode == -signal.SIGKILL, err
    done = files_below("evaluation_cache", "result.json")
    assert 1 <= len(done) < 6
    for path in files_below("evaluation_cache", "*.json"):
        strict_json(Path("evaluation_cache") / path)
    for folder in {Path(path).parent for path in done}:
        assert len(strict_json(Path("evaluation_cache") / folder / "routing_data.json")["episodes"]) == 60
    assert len(run(evaluated, "--num_episodes", 60)) == 6 - len(done)
    for path in tree.rglob(".*.tmp"):  # what the killed process was writing
        path.unlink()
    assert_complete(tree, 6)
