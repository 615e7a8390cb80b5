"""Policies of several tasks, evaluated: keys, a row and a cache for each task, interventions, cloud jobs, pages."""

import json
import shutil
from argparse import Namespace
from pathlib import Path

import pandas as pd
import pytest
from checks import refusal
from eval_helpers import GOTO, UNLOCK, put, random_checkpoint
from scripts import check_refused, in_process

import batch_eval
import eval_mop
import intervene
from mop.apps import samples
from mop.apps.comparison_page import as_shown, load_table, result_notes, short_name
from mop.apps.runs import choose_run, find_cached_runs, find_runs, load_routing
from mop.apps.use_and_need import command_of
from mop.artifacts.checkpoints import FoundCheckpoint, by_task, find_checkpoints
from mop.artifacts.results import ADDED_COLUMNS, load_result, merge_results
from mop.artifacts.routing_cache import load_cache
from mop.artifacts.run_names import run_name
from mop.artifacts.run_paths import RunKey, cache_path, find_caches, result_path, task_folder
from mop.evaluation import batch

FEW = ("--num_episodes", 3, "--device", "cpu")
LIST = [[GOTO, 2.0], [UNLOCK, 1.0]]


def several(weights_seed: int = 0, name: str = "two", **changes) -> dict:
    """An untrained policy of two tasks."""
    return random_checkpoint(weights_seed, name, tasks=LIST, max_steps=40, **changes)


@pytest.fixture
def tree(tmp_path, monkeypatch) -> Path:
    """A folder to work in, with a policy of two tasks, at two of its updates, and one of a single task."""
    monkeypatch.chdir(tmp_path)
    put(Path("checkpoints"), several(), seed=3)
    put(Path("checkpoints"), several(1) | {"update": 5}, seed=3, update=5)
    put(Path("checkpoints"), random_checkpoint(2, max_steps=40))
    return tmp_path


def test_keys_of_tasks_of_a_list_and_their_folders_determine_each_other():
    paths, num_cases = set(), 0
    for name in ("three", "GoToObj+UnlockPickup", "trial_3", "update_1", "BabyAI", "a b"):
        for task_id in (GOTO, UNLOCK):
            for seed, update in ((None, None), (0, None), (None, 7), (4, 200)):
                run = RunKey(name, 2, seed, update)
                key = run.on(task_id)
                assert (key.task_id, key.trained_on, key.of_checkpoint) == (task_id, name, run)
                assert key.checkpoint("c") == run.checkpoint("c") and key.folder("c") == run.folder("c")
                assert key.artefacts("c") == run.artefacts("c") / task_id
                for root in ("", "c", "/a/trial_1/seed_2", f"c/{UNLOCK}"):
                    assert RunKey.from_artefacts(key.artefacts(root)) == key
                assert key.label == f"{run.label} on {task_id}" and key.task == f"{name}/{task_id}"
                assert all(map(key.is_of, (name, task_id, key.task))) and not key.is_of("two")
                paths |= {key.artefacts("c"), run.artefacts("c")}
                num_cases += 1
    assert num_cases == 6 * 2 * 4 and len(paths) == num_cases + num_cases // 2
    assert cache_path("c", RunKey("two", 0, 3).on(GOTO)).as_posix() == f"c/two/trial_0/seed_3/{GOTO}/routing_data.json"
    assert task_folder("plots", f"two/{GOTO}").as_posix() == f"plots/two/{GOTO}"
    alone = RunKey(GOTO, 1)
    assert alone.of_checkpoint is alone and alone.task == GOTO and alone.is_of(GOTO) and not alone.is_of("two")


def test_keys_that_no_list_has_are_refused():
    for arguments in ((GOTO, 0, None, None, UNLOCK), ("two", 0, None, None, "three"), (GOTO, 0, None, None, "a/b")):
        refusal(RunKey, *arguments)
    for folder in (f"{UNLOCK}/trial_0/{GOTO}", "two/trial_0/copy", f"two/trial_0/{GOTO}/copy", "two/trial_0/BabyAI-x"):
        refusal(RunKey.from_artefacts, folder)


def test_a_checkpoint_is_found_once_for_each_of_its_tasks(tree):
    found = [(item.key.label, item.path) for file in find_checkpoints(["checkpoints"]) for item in by_task(file)]
    final, early = (Path("checkpoints/two/trial_0/seed_3", f"checkpoint_{name}.pt") for name in ("final", "5"))
    assert found == [
        (f"{GOTO} trial 0", Path(f"checkpoints/{GOTO}/trial_0/checkpoint_final.pt")),
        (f"two trial 0 seed 3 update 5 on {GOTO}", early),
        (f"two trial 0 seed 3 update 5 on {UNLOCK}", early),
        (f"two trial 0 seed 3 on {GOTO}", final),
        (f"two trial 0 seed 3 on {UNLOCK}", final),
    ]
    final.write_bytes(b"PK")  # whoever evaluates it reports that
    (item,) = by_task(FoundCheckpoint(RunKey("two", 0, 3), final))
    assert item.key == RunKey("two", 0, 3)


def test_a_row_and_a_cache_for_each_checkpoint_and_task(tree, capsys, monkeypatch):
    assert in_process(batch_eval.main, *FEW, "--plots") == 0
    shown = capsys.readouterr().out
    assert "5 checkpoints, 5 to evaluate" in shown and "trained on" in shown
    table = pd.read_csv("evaluation_results.csv")
    rows = table[["task_id", "trained_on", "trial", "seed", "update"]].astype(object)
    assert rows.where(rows.notna(), None).values.tolist() == [
        [GOTO, None, 0, None, 20],
        *([task_id, "two", 0, 3, update] for update in (5, 20) for task_id in (GOTO, UNLOCK)),
    ]
    assert list(table.columns).index("trained_on") == 18 + len(ADDED_COLUMNS) - 1
    keys = find_caches("evaluation_cache")
    assert len(keys) == 5 and [key.trained_on for key in keys] == [None, *["two"] * 4]
    for key in keys:
        cache, row = load_cache(cache_path("evaluation_cache", key)), load_result(result_path("evaluation_cache", key))
        assert (cache.header["task_id"], cache.header["trained_on"]) == (key.task_id, key.trained_on)
        assert (row["task_id"], row["trained_on"], row["num_episodes"]) == (key.task_id, key.trained_on, 3)
        assert len(cache.episodes) == 3 and max(episode["steps"] for episode in cache.episodes) <= 40
        assert (key.artefacts("plots") / "routing_heatmap.png").stat().st_size > 1000
    missions = {key.task_id: load_cache(cache_path("evaluation_cache", key)).episodes[0]["mission"] for key in keys}
    assert missions[GOTO].startswith("go to") and missions[UNLOCK].startswith("pick up")
    # the bot's own paths belong to the task, whoever was evaluated there
    assert len(list(Path("evaluation_cache").rglob("teacher*.json"))) == 2
    # nothing is done twice; what lacks a result is done alone
    made, evaluate = [], batch.evaluate_checkpoint

    def spy(found, *more):
        made.append(found.key)
        return evaluate(found, *more)

    monkeypatch.setattr(batch, "evaluate_checkpoint", spy)
    result_path("evaluation_cache", keys[2]).unlink()
    assert in_process(batch_eval.main, *FEW) == 0 and made == [keys[2]]
    for task, more, count in (("two", (), 4), (UNLOCK, (), 2), (f"two/{GOTO}", ("--final_only",), 1)):
        made.clear()
        assert in_process(batch_eval.main, *FEW, "--task", task, *more, "--force") == 0 and len(made) == count
    assert len(pd.read_csv("evaluation_results.csv")) == 5


def test_the_policy_is_evaluated_as_one_of_a_single_task_would_be(tmp_path, monkeypatch):
    """The same weights under the name of one task: the same episodes there."""
    monkeypatch.chdir(tmp_path)
    put(Path("checkpoints"), several())
    put(Path("checkpoints"), several() | {"config": several()["config"] | {"task_id": UNLOCK, "tasks": None}})
    assert in_process(batch_eval.main, *FEW) == 0
    keys = (RunKey(UNLOCK, 0), RunKey("two", 0).on(UNLOCK))
    alone, of_list = (load_cache(cache_path("evaluation_cache", key)) for key in keys)
    assert alone.episodes == of_list.episodes and (alone.steps.action == of_list.steps.action).all()
    assert alone.header["metrics"] == of_list.header["metrics"]


def test_older_tables_without_the_column_are_kept_and_copies_are_skipped(tree):
    assert in_process(batch_eval.main, *FEW, "--final_only") == 0
    old = pd.read_csv("evaluation_results.csv").drop(columns="trained_on")
    old = old[old["task_id"] == GOTO].head(1).assign(checkpoint_path="elsewhere/a.pt", mine="x")
    old.to_csv("evaluation_results.csv", index=False)
    place = result_path("evaluation_cache", RunKey("two", 0, 3).on(GOTO))
    copy = result_path("evaluation_cache", RunKey("two", 0, 3).on("BabyAI-GoToLocal-v0"))
    copy.parent.mkdir()
    shutil.copy(place, copy)
    with pytest.warns(UserWarning, match="a copy"):
        table = merge_results("evaluation_cache", "evaluation_results.csv")
    assert len(table) == 4 and not list(tree.glob("evaluation_results.*.csv"))
    assert table["trained_on"].fillna("").tolist().count("two") == 2 and table["mine"].dropna().tolist() == ["x"]


def test_eval_mop_tells_every_task_or_the_one_that_is_asked_for(tree, capsys):
    path, other = "checkpoints/two/trial_0/seed_3/checkpoint_final.pt", "BabyAI-GoToLocal-v0"
    for task_id, tasks in ((None, [GOTO, UNLOCK]), (UNLOCK, [UNLOCK]), (other, [other])):
        flags = () if task_id is None else ("--task_id", task_id)
        assert in_process(eval_mop.main, "--checkpoint", path, *FEW, *flags) == 0
        out = capsys.readouterr().out
        assert [line.removeprefix(f"{path} on ") for line in out.splitlines() if line.startswith(path)] == tasks
        assert out.count("success rate") == len(tasks)


def test_a_checkpoint_whose_list_is_none_is_refused_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    checkpoint = several()
    for trial, tasks in enumerate(([["BabyAI-GoToObj-v0", 0.0]], [["x"]], "A", [])):
        put(Path("checkpoints"), checkpoint | {"config": checkpoint["config"] | {"tasks": tasks}}, trial=trial)
    assert in_process(batch_eval.main, *FEW) == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("failed:")]
    assert len(failed) == 4 and all("tasks" in line for line in failed)


def test_interventions_are_made_on_each_task(tree, capsys):
    run = Path("two/trial_0/seed_3")
    command = ("--checkpoint", "checkpoints" / run / "checkpoint_final.pt", *FEW, "--what", "none", "lesion 0.1")
    assert in_process(intervene.main, *command, "--task", UNLOCK) == 0
    rows = {task_id: "evaluation_cache" / run / task_id / "interventions.jsonl" for task_id in (GOTO, UNLOCK)}
    assert rows[UNLOCK].exists() and not rows[GOTO].exists()
    before = rows[UNLOCK].read_bytes()
    assert in_process(intervene.main, *command) == 0
    assert rows[UNLOCK].read_bytes() == before
    assert f"two trial 0 seed 3 on {GOTO}: 2 interventions, 2 to make" in capsys.readouterr().out
    table = pd.read_csv("intervention_results.csv")
    assert sorted(zip(table["task_id"], table["trained_on"], table["intervention"], strict=True)) == [
        (task_id, "two", what) for task_id in (GOTO, UNLOCK) for what in ("lesion 0.1", "none")
    ]
    for task_id, path in rows.items():
        assert all(json.loads(line)["task_id"] == task_id for line in path.read_text().splitlines())
        assert ("plots" / run / task_id / "use_and_need.png").exists()
    cases = {("--task", "BabyAI-GoToLocal-v0"): (GOTO, UNLOCK, "BabyAI-GoToLocal-v0")}
    check_refused(capsys, intervene.main, cases, *command)
    assert in_process(intervene.main, *command, "--task", f"two/{UNLOCK}") == 0
    assert f"two trial 0 seed 3 on {UNLOCK}: 2 interventions, 0 to make" in capsys.readouterr().out


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory) -> Path:
    """A folder with the caches of a policy of two tasks, of two seeds, and of one of a single task."""
    root = tmp_path_factory.mktemp("evaluated")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for seed in (3, 4):
            put(Path("checkpoints"), several(seed), seed=seed)
        put(Path("checkpoints"), random_checkpoint(2, max_steps=40))
        assert in_process(batch_eval.main, *FEW) == 0
        put(Path("checkpoints"), several(name="alone"))  # not evaluated
    return root


def test_runs_are_listed_by_policy_and_task(evaluated, monkeypatch):
    monkeypatch.chdir(evaluated)
    found = find_runs(["checkpoints"], "evaluation_cache")
    assert list(found) == [
        f"{GOTO}/trial_0", *(f"two/trial_0/seed_{seed}/{task_id}" for seed in (3, 4) for task_id in (GOTO, UNLOCK)),
        f"alone/trial_0/{GOTO}", f"alone/trial_0/{UNLOCK}",
    ]  # fmt: skip
    runs = [run for checkpoints in found.values() for run in checkpoints]
    assert [run.has_cache for run in runs] == [True] * 5 + [False] * 2
    assert runs[2].name == f"two · {UNLOCK} mixture lpc_alpha 0 trial 0 seed 3"
    assert runs[5].name == f"alone · {GOTO} mixture lpc_alpha 0 trial 0"
    assert run_name(runs[2].about, with_task=False) == "two mixture lpc_alpha 0 trial 0 seed 3"
    chosen = {None: 0, "two": 1, f"two/{UNLOCK}": 2, UNLOCK: 2, "alone": 5, f"alone/{UNLOCK}": 6}
    for task, folder in chosen.items():
        asked = Namespace(task=task, trial=None, seed=None, update=None)
        assert choose_run(found, asked).folder == list(found)[folder]
    for run in runs:  # the flags of a run choose it
        flags = dict(zip(run.flags[::2], run.flags[1::2], strict=True))
        asked = Namespace(task=flags["--task"], trial=0, seed=run.key.seed, update=None)
        assert choose_run(found, asked) == run
    assert "three" in refusal(choose_run, found, Namespace(task="three", trial=None, seed=None, update=None))
    assert set(find_cached_runs(["checkpoints"], "evaluation_cache")) == {run.name for run in runs[:5]}
    data = load_routing(runs[2])
    assert (data.header["task_id"], data.header["trained_on"], data.header["is_final"]) == (UNLOCK, "two", True)
    assert f"checkpoint_final.pt --task {UNLOCK} --num_episodes 3" in command_of(runs[2], data)
    assert short_name(data) == "two mixture lpc_alpha 0 trial 0 seed 3"


def test_a_run_of_one_task_comes_before_lists_with_it(tree):
    put(Path("checkpoints"), several(name="2 tasks"))  # before all task ids, in the order of the names
    found = find_runs(["checkpoints"], "evaluation_cache")
    assert next(iter(found)) == f"2 tasks/trial_0/{GOTO}"
    asked = Namespace(task=GOTO, trial=0, seed=None, update=None)
    assert choose_run(found, asked).key == RunKey(GOTO, 0)
    asked.task = "2 tasks"
    assert choose_run(found, asked).key == RunKey("2 tasks", 0).on(GOTO)


def test_the_table_of_all_tasks_names_the_policy(evaluated, monkeypatch):
    monkeypatch.chdir(evaluated)
    rows, problems = load_table("evaluation_cache", ["evaluation_results.csv"])
    assert problems == [] and len(rows) == 5  # those of the table are the same
    shown = as_shown(rows)
    assert shown[["task", "trained on"]].values.tolist() == [
        ["GoToObj", "one task"], *[["GoToObj", "two"], ["UnlockPickup", "two"]] * 2
    ]  # fmt: skip
    alone = rows[rows["trained_on"].isna()]
    assert "trained on" not in as_shown(alone)
    said = "4 of these rows are of policies of several tasks, which have rows of their own"
    assert said in result_notes(rows) and not any("several" in note for note in result_notes(alone))


def test_statistics_keep_policies_of_several_tasks_apart(evaluated):
    cache_dir = str(evaluated / "evaluation_cache")
    assert samples.tasks_with_runs(cache_dir) == [GOTO, f"two/{GOTO}", f"two/{UNLOCK}"]
    asked = {GOTO: [GOTO], "two": [f"two/{GOTO}", f"two/{UNLOCK}"], f"two/{GOTO}": [f"two/{GOTO}"], "no": ["no"]}
    for name, tasks in asked.items():
        assert samples.tasks_asked(cache_dir, [name]) == tasks
    assert samples.tasks_asked(cache_dir, ["two", f"two/{GOTO}"]) == asked["two"]
    for task, seeds in ((GOTO, [0]), (f"two/{GOTO}", [3, 4]), (f"two/{UNLOCK}", [3, 4])):
        units, left_out = samples.choose_units(samples.Asked(task, cache_dir=cache_dir))
        assert [unit.seed for unit in units] == seeds and left_out == []
