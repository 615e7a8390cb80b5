"""studies/tasks.py: its commands, its numbers by hand, and tiny trainings on their way to table, figure and zoo."""

import itertools
import shlex
import sys
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import torch
from checks import refusal
from scripts import TINY_TASK, check_refused, run_commands_here

import modal_app
from mop.artifacts.checkpoints import load_checkpoint
from mop.common.train_config import parse_config
from mop.statistics.intervals import wilson_interval
from mop.training.policies import build_policy
from studies import experiments, tasks

TINY = {"num_envs": 4, "unroll_len": 8, "expert_hidden_sizes": "0,4", "intermediate_dim": 8}
TINY |= {"router_hidden_size": 4, "lang_dim": 4}
OTHER_TASK = "BabyAI-GoToRedBallGrey-v0"


def test_every_command_is_understood_and_the_gru_has_as_many_weights():
    trainings = list(tasks.task_table())
    assert len(trainings) == len(tasks.TASKS) * len(tasks.POLICIES) * 3 >= 16 * 2 * 3
    assert len({training.folder for training in trainings}) == len(trainings)
    weights = {}
    for training in trainings:
        _, script, *flags = training.command
        config, _ = parse_config("", flags)
        assert script == {"mop": "train_mop.py", "gru": "train.py"}[training.policy]
        assert (config["task_id"], config["trial"], config["seed"]) == (training.task_id, training.trial, training.seed)
        weights[training.setting] = sum(
            map(torch.numel, build_policy(config | {"policy": training.policy}).parameters())
        )
    assert weights == {"mixture": 160_184, "GRU": 159_891, "lpc_alpha 1e-5": 160_184, "mission-blind": 160_184}


def test_what_is_published_has_the_commands_that_make_it():
    worlds, curves, table = tables = tasks.load_published()
    whole = [pd.read_csv(experiments.RESULTS / name) for name in tasks.FILES]
    assert [len(table) for table in tables] == [len(table) for table in whole]
    assert (table["task_id"].map(tasks.TASKS) * 512 == table["env_steps"]).all()
    assert len(table) == len(worlds) == len(curves.groupby(tasks.OF_A_TRAINING)) >= 27
    rates = tasks.solved_worlds(worlds).mean(1)
    assert np.array_equal(rates.round(6), table["success_rate"].round(6)) and (worlds["num_episodes"] == 1000).all()


def test_success_over_seeds_by_hand():
    success = np.zeros((3, 1000))
    for row, count in zip(success, (900, 950, 1000), strict=True):
        row[:count] = 1
    mean, low, high = tasks.success_over_seeds(success)
    half = 4.302653 * 0.05 / np.sqrt(3)  # Student's t of two degrees of freedom
    assert mean == pytest.approx(0.95) and low == pytest.approx(0.95 - half) and high == 1.0
    same = np.ones((3, 1000))  # three times the same 1,000 worlds say no more than one does
    assert tasks.success_over_seeds(same)[1] == wilson_interval(1000, 1000)[0]
    assert tasks.success_over_seeds(same[:1])[1:] == wilson_interval(1000, 1000)


def test_the_difference_is_paired_by_seed_and_by_world():
    rng = np.random.default_rng(0)
    hard = rng.random(1000) < 0.3  # the same worlds are failed by all
    first = np.repeat(~hard[None], 3, 0).astype(float)
    second = first.copy()
    for row in second:
        row[np.flatnonzero(row)[:20]] = 0  # and 20 more by the second, in each seed
    mean, low, high = tasks.difference(first, second)
    assert mean == pytest.approx(0.02) and 0.01 < low < 0.02 < high < 0.03
    assert tasks.difference(first, first) == (0.0, -0.003, 0.003)
    assert tasks.difference(np.ones((2, 9)), np.zeros((2, 9))) == pytest.approx((1.0, 2 / 3, 1.0))
    second[0] = 0  # one bad seed: the seeds are the unit
    _, low, high = tasks.difference(first, second)
    assert low < 0 and high > 0.5


def test_a_table_by_hand(monkeypatch):
    row = {"task_id": "BabyAI-GoToObj-v0", "env_steps": 51_200, "path_ratio": 1.25, "mean_lpc": 1500.0}
    rows, worlds = [], []
    for seed in range(2):
        for setting, seconds, num_solved in (("mixture", 60, 8), ("GRU", 30, 4)):
            rows.append(row | {"setting": setting, "seed": seed, "seconds": seconds + 6 * seed})
            bits = np.packbits([1] * num_solved + [0] * (8 - num_solved)).tobytes().hex()
            worlds.append(
                {"task_id": row["task_id"], "setting": setting, "seed": seed, "num_episodes": 8, "solved": bits}
            )
    text = tasks.as_table(pd.DataFrame(rows), pd.DataFrame(worlds))
    low, high = (100 * end for end in wilson_interval(4, 8))
    cells = ["GoToObj", "51,200", "2", "100.0 (67.6 to 100.0)", f"50.0 ({low:.1f} to {high:.1f})"]
    half = 100 * 2.364624 * np.std([1, 0], ddof=0) * np.sqrt(8 / 7) / np.sqrt(8)
    cells += [f"+50.0 (+{50 - half:.1f} to +{50 + half:.1f})", "1.25, 1.25", "1.1, 0.6", "1,500", "100 / 100"]
    assert text.splitlines()[2:] == ["| " + " | ".join(cells) + " |"]
    first = pd.DataFrame(rows[:1]), pd.DataFrame(worlds[:1])  # one policy, one seed: no difference
    assert "| 1 | 100.0 (67.6 to 100.0) | – | – | 1.25, – | 1.0, – | 1,500 |" in tasks.as_table(*first)
    only_gru = tasks.as_table(pd.DataFrame(rows[1:2]), pd.DataFrame(worlds[1:2]))
    assert only_gru.splitlines()[2].endswith("| – | –, 1.25 | –, 0.5 | – | 100 / 100 |")
    assert tasks.interval((-1 / 3000, -0.003, 0.003), "+") == "+0.0 (-0.3 to +0.3)"


def test_the_table_of_costs_by_hand():
    # LPC and solved worlds of 100, of the two seeds of each setting
    found = {"mixture": ((1000, 100), (2000, 98)), "lpc_alpha 1e-5": ((500, 96), (200, 96))}
    rows, worlds = [], []
    for setting, seeds in found.items():
        for seed, (lpc, count) in enumerate(seeds):
            own = {"task_id": "BabyAI-GoToObj-v0", "setting": setting, "seed": seed}
            rows.append(own | {"env_steps": 100, "seconds": 60, "path_ratio": 1.5, "mean_lpc": lpc})
            bits = np.packbits(np.arange(100) < count).tobytes().hex()
            worlds.append(own | {"num_episodes": 100, "solved": bits})
    table, worlds = pd.DataFrame(rows), pd.DataFrame(worlds)
    head, _, line = tasks.as_cost_table(table, worlds).splitlines()
    cells = dict(zip(head.strip("| ").split(" | "), line.strip("| ").split(" | "), strict=True))
    half = 100 * 12.706205 * 0.01  # Student's t over the seeds, whose differences are -4 and -2 points
    assert cells.pop("difference, points") == f"-3.0 ({-3 - half:.1f} to +{half - 3:.1f})"
    assert cells.pop("lpc_alpha 0: success, %").startswith("99.0 (")
    assert cells.pop("lpc_alpha 1e-5: success, %").startswith("96.0 (")
    assert cells == {
        "task": "GoToObj", "seeds": "2", "path ratio of both": "1.50, 1.50",
        "lpc_alpha 0: mean LPC": "1500 (1000 to 2000)", "lpc_alpha 1e-5: mean LPC": "350 (200 to 500)",
        "LPC that is left, %": "30 (10 to 50)",
    }  # fmt: skip
    for lacking in (table["setting"] == "mixture", table.index < 3, table["setting"] != "mixture"):
        assert tasks.as_cost_table(table[lacking], worlds[lacking]) == ""
    paid = table["setting"] != "mixture"  # neither the mixture nor the GRU: nothing for the other table
    assert len(tasks.as_table(table[paid], worlds[paid]).splitlines()) == 2
    assert tasks.where_they_differ(table[paid], worlds[paid]) == ""


def test_the_table_of_reading_by_hand(tmp_path, monkeypatch):
    monkeypatch.setattr(experiments, "RESULTS", tmp_path)
    rows, worlds = [], []
    for setting, count in {"mixture": 95, "mission-blind": 50}.items():
        own = {"task_id": "BabyAI-GoToObj-v0", "setting": setting, "seed": 0}
        rows.append(own | {"mean_return": count / 200})
        worlds.append(own | {"num_episodes": 100, "solved": np.packbits(np.arange(100) < count).tobytes().hex()})
    table, worlds = pd.DataFrame(rows), pd.DataFrame(worlds)
    assert len(tasks.as_reading_table(table, worlds).splitlines()) == 2, "random actions are not known yet"
    chance = {"task_id": "BabyAI-GoToObj-v0", "num_episodes": 100, "success_rate": 0.25, "mean_return": 0.125}
    pd.DataFrame([chance]).to_csv(tmp_path / tasks.references.RANDOM, index=False)
    line = tasks.as_reading_table(table, worlds).splitlines()[2]
    solved = [tasks.interval((count / 100, *wilson_interval(count, 100))) for count in (95, 50, 25)]
    assert line == "| " + " | ".join(["GoToObj", *solved, "0.475, 0.125", "0.930, 0.134"]) + " |"
    lacking = worlds["setting"] == "mixture"
    assert "| – |" in tasks.as_reading_table(table[lacking], worlds[lacking])


def test_what_lpc_tells():
    rng, rows = np.random.default_rng(0), []
    for number, task_id in enumerate(list(tasks.TASKS)[:5]):
        for seed in range(3):
            own = {"task_id": task_id, "seed": seed, "env_steps": 10 * (5 - number), "accuracy": 0.5}
            noise = rng.random()
            rows.append(own | {"setting": "mixture", "mean_lpc": 1000 + noise})  # of the seed alone
            rows.append(own | {"setting": "lpc_alpha 1e-5", "mean_lpc": 2.0**number * (1 + 1e-3 * noise)})
    table = pd.DataFrame(rows)
    head, _, of_task, with_steps, with_accuracy = tasks.what_lpc_tells(table).splitlines()
    assert head == "| over 5 tasks | lpc_alpha 0 | lpc_alpha 1e-5 |"
    free, paid = (float(cell.split()[0]) for cell in of_task.strip("| ").split(" | ")[1:])
    assert free < 0.6 and paid == 1.0
    assert with_steps.endswith("| -1.00 (-1.00 to -1.00) |"), "the longer the training, the less"
    assert with_accuracy.endswith("| – | – |"), "it is the same in all tasks"
    one_missing = table[
        (table["task_id"] != "BabyAI-GoToObj-v0") | (table["seed"] > 0) | (table["setting"] == "mixture")
    ]
    assert "over 4 tasks" in tasks.what_lpc_tells(one_missing), "a task without the same seeds of both does not count"
    assert tasks.what_lpc_tells(table[table["task_id"].isin(list(tasks.TASKS)[:3])]) == ""
    assert tasks.what_lpc_tells(table[table["setting"] == "mixture"]) == ""


def test_where_the_two_policies_differ():
    # of 100 worlds, mixture and GRU
    solves = {"A": (100, 90), "B": (100, 99), "C": (50, 100), "D": (100, None), "E": (100, 99)}
    ratios = {"A": ((1.0, 1.1), (1.2, 1.3)), "B": ((1.0, 1.25), (1.2, 1.3)), "C": ((2.0, 2.1), (1.0, 1.1))}
    ratios["E"] = ((1.0, np.nan), (1.2, 1.3))  # a seed without a solved world
    rows, worlds = [], []
    for name, counts in solves.items():
        for k, (setting, count) in enumerate(zip(tasks.RIVALS, counts, strict=True)):
            for seed in range(2 * (count is not None)):
                own = {"task_id": f"BabyAI-{name}-v0", "setting": setting, "seed": seed}
                bits = np.packbits(np.arange(100) < count).tobytes().hex()
                rows.append(own | {"path_ratio": ratios.get(name, ((1.0, 1.0),))[k][seed]})
                worlds.append(own | {"num_episodes": 100, "solved": bits})
    assert tasks.where_they_differ(pd.DataFrame(rows), pd.DataFrame(worlds)).splitlines() == [
        "Of 4 tasks with the same seeds of both policies:",
        "- the mixture solves more, beyond chance, in 1: A",
        "- the GRU solves more, beyond chance, in 1: C",
        "- the mixture takes shorter paths, each seed, in 1: A",
        "- the GRU takes shorter paths, each seed, in 1: C",
    ]


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """The script with two tiny tasks, in a folder of its own."""
    for name, value in (("RESULTS", tmp_path), ("RUNS", tmp_path / "runs"), ("NUM_EPISODES", 5)):
        monkeypatch.setattr(experiments, name, value)
    monkeypatch.setattr(tasks, "TASKS", {TINY_TASK: 2, OTHER_TASK: 3})
    monkeypatch.setattr(tasks, "COMMON", TINY)
    monkeypatch.setattr(tasks, "POLICIES", {"mixture": (10, "mop", {}), "GRU": (110, "gru", {"gru_hidden_size": 4})})
    run_commands_here(monkeypatch)


def call(monkeypatch, *arguments) -> int:
    monkeypatch.setattr(sys, "argv", ["tasks.py", *arguments])
    return tasks.main()


def test_task_after_task_to_table_and_zoo(tiny, tmp_path, monkeypatch, capsys):
    refusal(call, monkeypatch, "--report")
    assert call(monkeypatch, "--dry_run") == 0 and len(capsys.readouterr().out.splitlines()) == 2 * 2 * 3
    assert call(monkeypatch, "--tasks", OTHER_TASK) == 0
    first = pd.read_csv(tmp_path / "tasks.csv")
    assert first["task_id"].unique().tolist() == [OTHER_TASK] and first["seed"].tolist() == [0, 1, 2] * 2
    assert set(first["setting"]) == {"mixture", "GRU"} and first["success_rate"].between(0, 1).all()
    assert call(monkeypatch, "--tasks", TINY_TASK) == 0  # it comes before the other one
    table = pd.read_csv(tmp_path / "tasks.csv")
    assert table["task_id"].tolist() == [TINY_TASK] * 6 + [OTHER_TASK] * 6
    pd.testing.assert_frame_equal(table.iloc[6:].reset_index(drop=True), first)
    worlds = tasks.solved_worlds(tasks.load_published()[0])
    assert worlds.shape == (12, 5) and np.allclose(worlds.mean(1), table["success_rate"])
    assert pd.read_csv(tmp_path / tasks.references.RANDOM)["task_id"].tolist() == [OTHER_TASK, TINY_TASK]
    assert (table["mean_return"] <= table["success_rate"]).all()
    assert (tmp_path / "tasks.md").read_text() in capsys.readouterr().out and (tmp_path / "tasks.png").exists()
    kept = sorted((tmp_path / "zoo").rglob("*.pt"))
    assert [path.parts[-4] for path in kept] == sorted([TINY_TASK, OTHER_TASK])
    checkpoint = load_checkpoint(kept[0])
    assert "optimizer_state_dict" not in checkpoint and checkpoint["config"]["policy"] == "mop"


def test_only_what_has_another_command_is_trained_again(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tasks, "SEEDS", (0,))
    assert call(monkeypatch) == 0
    before = (tmp_path / "tasks.csv").read_bytes()
    (tmp_path / "runs").rename(tmp_path / "lost")  # rows are enough
    monkeypatch.setattr(experiments, "train_missing", None)
    assert call(monkeypatch) == 0 and (tmp_path / "tasks.csv").read_bytes() == before
    capsys.readouterr()
    monkeypatch.setattr(tasks, "TASKS", {TINY_TASK: 4, OTHER_TASK: 3})
    assert call(monkeypatch, "--dry_run") == 0
    wanted = capsys.readouterr().out.splitlines()
    assert len(wanted) == 2 and all(f"--task_id {TINY_TASK}" in line and "--num_updates 4" in line for line in wanted)
    assert call(monkeypatch, "--dry_run", "--settings", "GRU") == 0
    assert capsys.readouterr().out.splitlines() == wanted[1::2] and all("train.py" in line for line in wanted[1::2])
    assert call(monkeypatch, "--report") == 0  # without the rows of the other length
    assert task_names(capsys.readouterr().out) == [experiments.task_name(OTHER_TASK)]
    (tmp_path / "lost").rename(tmp_path / "runs")
    monkeypatch.setattr(experiments, "train_missing", lambda trainings, jobs: None)  # all are finished
    assert "scheduled_updates" in refusal(call, monkeypatch)
    (tmp_path / "tasks_worlds.csv").unlink()
    assert "tasks_worlds.csv" in refusal(call, monkeypatch, "--report")


@pytest.mark.parametrize("name", tasks.FILES)
def test_a_damaged_table_is_one_line(name, tmp_path, monkeypatch):
    contents = {file: (experiments.RESULTS / file).read_text() for file in tasks.FILES}
    monkeypatch.setattr(experiments, "RESULTS", tmp_path)
    for content in ("", "a,b\n", contents[name][:3000]):
        for file, whole in contents.items():
            (tmp_path / file).write_text(content if file == name else whole)
        line = refusal(call, monkeypatch, "--report")
        assert name in line and "git checkout" in line


@pytest.mark.slow
def test_killed_while_it_publishes(tiny, tmp_path, monkeypatch, capsys):
    """What is not published whole is published by the same command."""
    assert call(monkeypatch, "--tasks", TINY_TASK) == 0
    with monkeypatch.context() as cut, pytest.raises(KeyboardInterrupt):
        cut.setattr(tasks, "add_to_zoo", Mock(side_effect=KeyboardInterrupt))
        call(cut)
    assert OTHER_TASK in (tmp_path / "tasks_worlds.csv").read_text()
    assert call(monkeypatch, "--report") == 0 and len(pd.read_csv(tmp_path / "tasks.csv")) == 6
    assert call(monkeypatch) == 0
    assert [len(table) for table in tasks.load_published()] == [12, 12 * 3 - 6, 12]  # one update less of TINY_TASK
    assert len(list((tmp_path / "zoo").rglob("*.pt"))) == 2


def task_names(text: str) -> list[str]:
    """The first cells of a table's lines."""
    return [line.split(" | ")[0].strip("| ") for line in text.splitlines()[2:] if line.startswith("|")]


def test_the_median_is_in_the_middle():
    rows = pd.DataFrame({"seed": [0, 1, 2], "success_rate": [0.9, 0.9, 1.0], "path_ratio": [1.1, 1.2, 1.0]})
    assert tasks.median_seed(rows) == 0  # of two as good, the one with shorter paths is better
    assert tasks.median_seed(rows[1:]) == 1
    none = rows.assign(success_rate=0.0, path_ratio=[np.nan, 2.0, 1.0])
    assert tasks.median_seed(none) == 1


def test_the_zoo_takes_the_median_of_all_that_is_published(tmp_path, monkeypatch, capsys):
    added = []
    monkeypatch.setattr(tasks, "add_to_zoo", added.append)
    mixtures = [t for t in tasks.task_table() if (t.setting, t.task_id) == ("mixture", TINY_TASK)]
    table = pd.DataFrame({"task_id": mixtures[0].task_id, "setting": "mixture", "seed": [0, 1, 2]})
    table = table.assign(success_rate=[0.9, 0.95, 1.0], path_ratio=1.0)
    tasks.add_medians_to_zoo(mixtures, table)
    assert added == mixtures[1:2]
    tasks.add_medians_to_zoo(mixtures[:1], table)  # the others were published before
    assert added == mixtures[1:2] and "median seed" in capsys.readouterr().out


@pytest.mark.parametrize("chosen", [slice(None), slice(0, 7, 3)])
def test_modal_trains_the_same_list(chosen):
    """All of it, all but the first ones, and seeds that differ between tasks."""
    trainings = list(tasks.task_table())[chosen]
    planned = []
    for line in tasks.modal_commands(trainings):
        command, _, _, _, *flags = shlex.split(line)
        given = dict(zip((flag.lstrip("-").replace("-", "_") for flag in flags[::2]), flags[1::2], strict=True))
        assert command == "modal" and modal_app.start("main", [*flags, "--dry-run"]) == 0
        for task_id, seed in itertools.product(given["task_ids"].split(","), given["seeds"].split(",")):
            words = f"--task_id {task_id} --trial {given['trials']} --seed {seed} {given['extra_args']}"
            planned.append((given["script"], parse_config("", shlex.split(words))[0] | {"checkpoint_dir": None}))
    wanted = [
        (script, parse_config("", flags)[0] | {"checkpoint_dir": None, "resume": False})
        for training in trainings
        for _, script, *flags in [training.command]
    ]
    assert len(planned) == len(wanted) and all(one in wanted for one in planned)


def test_bad_usage_is_one_line(capsys):
    lines = ("--tasks BabyAI-Nothing-v0", "--settings none", "--jobs 0", "--report --dry_run")
    check_refused(capsys, tasks.main, {tuple(line.split()): line.split()[0] for line in lines})
