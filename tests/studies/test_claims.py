"""studies/claims.py and claims_report.py: the whole way on two tiny tasks; correlations and tables by hand."""

import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from checks import refusal
from scripts import REPOSITORY, run_commands_here
from tiny_claims import TASKS, shrink_claims

import studies.claims as claims
import studies.claims_report as report
import studies.experiments as experiments
from mop.artifacts.intervention_rows import add_row
from mop.artifacts.run_paths import interventions_path
from mop.common.train_config import parse_config


def call(monkeypatch, *flags: str) -> int:
    monkeypatch.setattr(sys, "argv", ["claims.py", *flags])
    return claims.main()


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A kind of policies with two seeds, two tasks, and files in a folder of their own."""
    shrink_claims(monkeypatch.setattr, tmp_path, tmp_path / "runs", REPOSITORY)
    run_commands_here(monkeypatch)
    return tmp_path


def test_the_whole_way(tiny, monkeypatch, capsys):
    assert call(monkeypatch) == 0
    values, pairs, difficulty = (pd.read_csv(tiny / name) for name in (report.VALUES, report.PAIRS, report.DIFFICULTY))
    assert set(values["variant"]) == {"plain"} and set(values["seed"]) == {0, 1}
    of_tasks = values[values["task"].notna()].groupby("measure")["task"].nunique()
    assert (of_tasks == 2).all() and len(of_tasks) == 3 + len(claims.WHAT)
    shares = values[values["measure"].str.startswith("share of rank")]
    assert shares.groupby("seed")["value"].sum().to_numpy() == pytest.approx([1.0, 1.0]) and len(shares) == 2 * 9
    assert set(pairs["variant"]) == {"plain", report.UNTRAINED} and len(pairs) == 2 * 9
    assert pairs["value"].dropna().between(-1, 1).all() and pairs["value"].notna().sum() >= 12
    assert difficulty["task"].tolist() == list(TASKS) and (difficulty["bot_steps"] > 1).all()
    assert len(list(tiny.glob("*.png"))) == 4
    before = {path.name: path.read_bytes() for path in tiny.glob("*.csv")}
    training = next(claims.policies())
    path = interventions_path(tiny / "runs" / "claims" / "evaluation", training.key.on(TASKS[0]))
    row = claims._rows(training, TASKS[0])[0]
    add_row(path, row | {"variant": "frozen", "success_rate": 7.0})  # of another memory: it is not what is measured
    assert claims._has_rows(training, TASKS[0]) and row in claims._rows(training, TASKS[0])
    add_row(path, row | {"checkpoint_sha256": "of an earlier training", "success_rate": 7.0})  # it is made anew
    assert not claims._has_rows(training, TASKS[0])
    capsys.readouterr()
    assert call(monkeypatch, "--jobs", "0") == 0
    told = capsys.readouterr().out
    assert before == {path.name: path.read_bytes() for path in tiny.glob("*.csv")}
    assert "| consistency | steps |" in told and "untrained" in told
    assert call(monkeypatch, "--dry_run") == 0 and not capsys.readouterr().out.strip()
    assert call(monkeypatch, "--report") == 0 and len(before) == 5
    monkeypatch.setattr(claims, "policies", lambda: iter([training]))  # one seed has no pair
    assert call(monkeypatch, "--jobs", "0") == 0 and pd.read_csv(tiny / report.PAIRS).empty


def test_the_commands_are_understood():
    trainings = [*claims.policies(), *claims.baselines()]
    assert len(trainings) == 5 * 4 + 12 and len({training.folder for training in trainings}) == 32
    for training in trainings:
        config, _ = parse_config("", training.command[2:])
        assert config["task_id"] == training.task_id and config["seed"] == training.seed
        assert len(config["tasks"] or [()]) == (12 if training.policy == "mop" else 1)


def test_commands_are_checked_from_any_folder(tmp_path, monkeypatch):
    training = next(claims.policies())
    monkeypatch.chdir(REPOSITORY)
    config, _ = parse_config("", training.command[2:])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(experiments, "load_checkpoint", lambda path: {"config": config})
    experiments.check_commands([training])
    assert "lpc_alpha" in refusal(experiments.check_commands, [replace(training, flags=claims.VARIANTS["cost"])])


def test_nothing_to_report(tiny, monkeypatch):
    assert "--report" in refusal(call, monkeypatch, "--report")
    assert "--jobs" in refusal(call, monkeypatch, "--jobs", "-1")
    assert "--jobs" in refusal(call, monkeypatch, "--jobs", "0")


def test_correlation_with_difficulty_by_hand():
    difficulty = pd.DataFrame({"task": ["a", "b", "c", "d"], "env_steps": [1e3, 1e4, 1e5, np.nan]})
    table = pd.DataFrame([[1.0, 2.0, 3.0, -9.0], [3.0, 2.0, 1.0, 0.0], [1.0, 1.0, 1.0, 5.0]], columns=list("abcd"))
    found = report.correlations(table, difficulty)
    assert found[:2] == pytest.approx([1.0, -1.0]) and np.isnan(found[2])  # of a task of unknown difficulty nothing
    assert np.isnan(report.correlations(table, difficulty.assign(env_steps=[1e3, *3 * [np.nan]]))).all()


def test_what_is_not_known_does_not_count():
    """Neither a seed in which a correlation is not defined, nor a task whose difficulty is not known."""
    measures = [*report.THRESHOLDS.values(), report.LESION, "lpc", "lpc change"]
    whole = [f"bits, {name}{end}" for name in ("tasks", "sub-goals") for end in ("", ", by chance")]
    rng, rows = np.random.default_rng(0), []
    for seed in range(4):
        rows += [("plain", seed, measure, task, rng.random()) for measure in measures for task in "abcd"]
        rows += [("plain", seed, measure, "", rng.random()) for measure in [*whole, "effective pathways"]]
    values = pd.DataFrame(rows, columns=["variant", "seed", "measure", "task", "value"])
    values.loc[(values["seed"] == 2) & (values["measure"] == "lpc"), "value"] = 5.0
    difficulty = pd.DataFrame({"task": list("abcd"), "env_steps": [1e3, np.nan, 1e5, 1e6], "bot_steps": [4, 5, 6, 7]})
    pairs = pd.DataFrame({"variant": "plain", "measure": "all", "first": [0], "second": [1], "value": [0.5]})
    summary = pd.DataFrame(report.summarise(values, pairs, difficulty))
    counts = {row.measure: (row.seeds, row.tasks) for row in summary.itertuples() if row.claim == "difficulty"}
    assert counts["r with lpc"] == (3, 3) and counts["r with lpc change"] == (4, 3)
    assert counts["r of the bot's steps with lpc"] == (3, 4)
    assert (summary[summary["claim"] == "distinctness"]["seeds"] == 4).all()
    assert "| difficulty | r with lpc, 3 tasks |" in report.markdown(summary)
    assert "| self-sufficiency | success |" in report.markdown(summary)


def test_correlations_are_averaged_as_z():
    mean, low, high = report.over_seeds([0.1, 0.5, 0.9], is_r=True)
    assert mean == pytest.approx(np.tanh(np.mean(np.arctanh([0.1, 0.5, 0.9])))) and -1 < low < mean < high < 1
    assert report.over_seeds([2.0, 4.0])[0] == 3.0


def test_change_of_lpc_by_hand():
    log = pd.DataFrame({"lpc_GoToObj": np.arange(20.0)})
    assert claims.change_of_lpc(log, "BabyAI-GoToObj-v0") == pytest.approx(18.5 - 0.5)


def test_same_weights_are_consistent_and_shuffled_ones_are_not():
    rng = np.random.default_rng(0)
    task, episode = np.repeat(np.arange(4), 500), np.repeat(np.arange(40), 50)
    phase = 5 * task + np.tile(np.repeat(np.arange(5), 10), 40)  # five in each task, all of the same length
    inputs = claims.Inputs({}, task, episode, phase)
    weights = rng.dirichlet(np.ones(3), 2000) + 0.5 * rng.random((4, 3))[task] + 0.3 * rng.random((20, 3))[phase]
    found = claims.compare(weights, weights, inputs, "test", [2, 1])
    alike = [name for name in found if "by chance" not in name]
    assert alike == ["all", "tasks", "sub-goals", "steps", "steps, layer 0", "steps, layer 1"]
    assert [found[name] for name in alike] == pytest.approx([1.0] * 6)
    assert abs(found["steps, by chance"]) < 0.1
    assert abs(found["tasks, by chance"]) < 0.5 and abs(found["sub-goals, by chance"]) < 0.2
    apart = weights + rng.random((40, 3))[episode]  # how much whole episodes use a gate says nothing of when
    assert abs(claims.compare(apart, rng.permutation(weights), inputs, "x", [3])["steps"]) < 0.1


def test_what_layers_and_sub_goals_share_is_told_apart():
    """Weights that agree in the second layer alone, and in the sub-goals of each task, not in the tasks."""
    rng = np.random.default_rng(0)
    task, episode = np.repeat(np.arange(8), 500), np.repeat(np.arange(80), 50)
    phase = 5 * task + np.tile(np.repeat(np.arange(5), 10), 80)
    inputs = claims.Inputs({}, task, episode, phase)
    shared = rng.random((40, 4))[phase] * [0, 0, 1, 1]
    first, second = (shared + 0.1 * rng.random((4000, 4)) + 9 * rng.random((8, 4))[task] for _ in range(2))
    found = claims.compare(first, second, inputs, "test", [2, 2])
    assert found["sub-goals"] > 0.9 and abs(found["sub-goals, by chance"]) < 0.2 and abs(found["tasks"]) < 0.6
    assert abs(found["steps, layer 0"]) < 0.1 and found["steps, layer 1"] > 0.9


def test_the_published_numbers_have_their_commands_and_table():
    """What is published was made by the commands as they are now, and the table is that of the numbers."""
    folder = REPOSITORY / "results" / "claims"
    if not (folder / report.VALUES).exists():
        pytest.skip("the numbers of the claims are not published yet")
    commands = {(t.setting, t.seed): t.text for t in claims.policies()}
    published = pd.read_csv(folder / report.COMMANDS)
    assert all(commands[row.variant, row.seed] == row.command for row in published.itertuples()) and len(published)
    values, pairs, difficulty = (pd.read_csv(folder / n) for n in (report.VALUES, report.PAIRS, report.DIFFICULTY))
    values["task"] = values["task"].fillna("")
    summary = pd.DataFrame(report.summarise(values, pairs, difficulty))
    assert (folder / "summary.md").read_text() == report.markdown(summary)
