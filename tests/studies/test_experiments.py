"""The experiments of studies/experiments.py: their commands, and a tiny one from training to table."""

import subprocess
import sys
from dataclasses import replace

import pandas as pd
import pytest
from checks import refusal
from scripts import TINY_TASK, check_refused, run_commands_here

from mop.artifacts.routing_cache import load_cache
from mop.artifacts.run_paths import cache_path
from mop.common.train_config import parse_config
from studies import experiments

TINY = {"num_envs": 4, "unroll_len": 8, "num_updates": 3, "log_interval": 1, "expert_hidden_sizes": "0,4"}
TINY |= {"intermediate_dim": 8, "router_hidden_size": 4, "gru_hidden_size": 4, "lang_dim": 4}


def test_every_command_is_understood_and_has_a_place_of_its_own():
    count = 0
    for make in experiments.EXPERIMENTS.values():
        trainings = list(make())
        assert len({training.folder for training in trainings}) == len(trainings)
        for training in trainings:
            wanted = (training.task_id, training.trial, training.seed)
            _, script, *flags = training.command
            config, _ = parse_config("", flags)
            assert script == {"mop": "train_mop.py", "gru": "train.py"}[training.policy]
            assert (config["task_id"], config["trial"], config["seed"]) == wanted
            count += 1
    assert count == 3 * 2 * len(experiments.SETTINGS) + 5 * 2 * len(experiments.ALPHAS)
    assert len(experiments.SETTINGS) >= 12


def test_published_numbers_have_the_commands_that_make_them():
    count = 0
    for name, make in experiments.EXPERIMENTS.items():
        published = pd.read_csv(experiments.RESULTS / f"{name}.csv")["command"]
        assert set(published) <= {training.text for training in make()}, name
        count += len(published)
    assert count >= 120 + 12


def test_settings_are_one_change_with_equal_steps():
    by_task: dict[str, set] = {}
    for training in experiments.settings_study():
        config, _ = parse_config("", training.command[2:])
        steps = config["num_envs"] * config["unroll_len"] * config["num_updates"]
        by_task.setdefault(training.task_id, set()).add(steps)
        if training.setting not in ("bare", "expert dropout") and "," not in training.setting:
            assert len(experiments.SETTINGS[training.setting]) == (training.setting != "base")
    for task_id, steps in by_task.items():
        wanted = experiments.STUDY_STEPS[task_id]
        assert len(by_task) == 2 and all(0.97 * wanted <= s <= wanted for s in steps), (task_id, steps)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """One experiment of two tiny trainings, in a folder of its own."""
    monkeypatch.setattr(experiments, "RESULTS", tmp_path)
    monkeypatch.setattr(experiments, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(experiments, "NUM_EPISODES", 5)
    trainings = [
        experiments.Training("settings", TINY_TASK, policy, trial, 0, TINY, policy)
        for policy, trial in (("mop", 0), ("gru", 100))
    ]
    monkeypatch.setattr(experiments, "EXPERIMENTS", {"settings": lambda: iter(trainings)})
    return trainings


def call(monkeypatch, *arguments) -> int:
    monkeypatch.setattr(sys, "argv", ["experiments.py", *arguments])
    return experiments.main()


def test_from_training_to_table(tiny, tmp_path, monkeypatch, capsys):
    run_commands_here(monkeypatch)
    refusal(call, monkeypatch, "settings", "--jobs", "0")
    assert call(monkeypatch, "settings", "--dry_run") == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert call(monkeypatch, "settings", "--jobs", "2") == 0
    table = pd.read_csv(tmp_path / "settings.csv")
    assert table["policy"].tolist() == ["mop", "gru"] and (table["env_steps"] == 3 * 32).all()
    assert table["success_rate"].between(0, 1).all()
    curves = pd.read_csv(tmp_path / "settings_curves.csv")
    assert len(curves) == 6 and curves.groupby("setting")["env_steps"].max().tolist() == [96, 96]
    text = (tmp_path / "settings.md").read_text()
    assert text in capsys.readouterr().out and text.count("\n") == 4
    assert table["command"].tolist() == [training.text for training in tiny]
    before = (tmp_path / "settings.csv").read_bytes()
    assert call(monkeypatch, "settings") == 0  # nothing is trained again
    assert (tmp_path / "settings.csv").read_bytes() == before
    capsys.readouterr()
    assert call(monkeypatch, "settings", "--dry_run") == 0 and capsys.readouterr().out.strip() == ""
    assert not list((tmp_path / "runs").rglob("training_state.pt"))
    of_mixtures = {"residual": "true"}  # which the baseline ignores
    ignored = [replace(training, flags=training.flags | of_mixtures) for training in tiny[1:]]
    monkeypatch.setattr(experiments, "EXPERIMENTS", {"settings": lambda: iter(ignored)})
    assert call(monkeypatch, "settings") == 0
    changed = [replace(training, flags=training.flags | {"lr": 0.5}) for training in tiny]
    monkeypatch.setattr(experiments, "EXPERIMENTS", {"settings": lambda: iter(changed)})
    refusal(call, monkeypatch, "settings")


def test_pictures_of_the_study_and_of_the_price(tiny, tmp_path, monkeypatch):
    run_commands_here(monkeypatch)
    settings = [replace(tiny[0], experiment="settings", setting=name, trial=k) for k, name in enumerate(("base", "b"))]
    task, flags = experiments.ALPHA_TASK, TINY | {"lpc_alpha": 1e-4}
    alpha = [experiments.Training("alpha", task, "0.0001", 0, 0, flags)]
    monkeypatch.setattr(experiments, "EXPERIMENTS", {"settings": lambda: iter(settings), "alpha": lambda: iter(alpha)})
    for name in ("settings", "alpha"):
        assert call(monkeypatch, name) == 0
    made = sorted(path.name for path in tmp_path.glob("*.png"))
    tiny_task = experiments.task_name(TINY_TASK)
    of_settings = [f"settings_{tiny_task}_{measure}.png" for measure in ("accuracy", "lpc")]
    of_alpha = ["alpha_UnlockPickup.png", "alpha_UnlockPickup_cost.png"]
    assert made == [*of_alpha, *of_settings]
    phases = pd.read_csv(tmp_path / "alpha_phases.csv")
    assert phases["lpc_alpha"].tolist() == [1e-4] and (phases.iloc[0, 2:] >= 0).all() and len(phases.columns) >= 3
    cache = load_cache(cache_path(tmp_path / "runs" / "alpha" / "evaluation", alpha[0].key))
    experiments.write_phase_pictures({"0.0001": cache})
    assert (tmp_path / "alpha_0.0001_phases.png").exists()
    assert pd.read_csv(tmp_path / "settings.csv")["setting"].tolist() == ["base", "b"]


def test_a_failed_training_is_named(tiny, monkeypatch):
    bad = experiments.Training("settings", "BabyAI-NoSuchTask-v0", "mop", 0, 0, TINY)
    monkeypatch.setattr(experiments, "EXPERIMENTS", {"settings": lambda: iter([bad])})
    told = refusal(call, monkeypatch, "settings")
    assert "NoSuchTask" in told and f"{bad.log}: error: " in told  # the reason beside the file
    assert bad.text in bad.log.read_text()


def test_a_study_cut_off_after_a_training_cleans_up_behind_it(tiny):
    command = [sys.executable, *tiny[0].command[1:]]
    assert subprocess.run(command, cwd=experiments.ROOT, capture_output=True).returncode == 0
    final, curve = (tiny[0].folder / name for name in ("checkpoint_final.pt", "training_curve.png"))
    before = final.read_bytes()
    curve.unlink()  # which comes after the last checkpoint
    assert tiny[0].is_finished and tiny[0].state.exists()
    experiments.train_missing(tiny[:1], 1)
    assert not tiny[0].state.exists() and curve.exists() and final.read_bytes() == before


def test_bad_usage_is_one_line(capsys):
    check_refused(capsys, experiments.main, {("nothing",): "nothing", ("settings", "--jobs", "-1"): "--jobs"})


def test_markdown_of_phases_by_hand():
    phases = pd.DataFrame(
        {"lpc_alpha": ["0", "0"], "seed": [0, 1], "before the key": [10.0, 20.0], "key dropped": [5.0, 5.0]}
    )
    assert experiments.markdown_of_phases(phases).splitlines() == [
        "| lpc_alpha | before the key | key dropped |",
        "|---|---|---|",
        "| 0 | 15 (10 to 20) | 5 (5 to 5) |",
    ]


def test_markdown_by_hand():
    rows = {"task_id": "BabyAI-A-v0", "env_steps": 2000, "seconds": 90, "path_ratio": 1.5, "mean_lpc": 10.0}
    rows |= {"accuracy": 0.25}
    table = pd.DataFrame(
        [
            rows | {"policy": "mop", "setting": "x", "success_rate": 0.9, "success_low": 0.8, "success_high": 0.95},
            rows | {"policy": "mop", "setting": "x", "success_rate": 1.0, "success_low": 0.9, "success_high": 1.0},
            rows | {"policy": "gru", "setting": "y", "success_rate": 0.5, "success_low": 0.4, "success_high": 0.6},
        ]
    )
    table.loc[1, ["seconds", "mean_lpc"]], table.loc[2, "path_ratio"] = [150, 20], float("nan")
    assert experiments.markdown(table).splitlines()[2:] == [
        "| A | x | 2 | 2.0 | 95.0 (90.0 to 100.0) | 1.50 | 0.250 | 15 (10 to 20) |",
        "| A | y | 1 | 1.5 | 50.0 (40.0 to 60.0) | – | 0.250 | 10 |",
    ]
