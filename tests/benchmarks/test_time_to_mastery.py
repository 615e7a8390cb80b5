"""benchmarks/time_to_mastery.py without its trainings: what masters a task, the table, and what is trained again."""

import sys

import pandas as pd
from checks import refusal
from scripts import REPOSITORY

from benchmarks import time_to_mastery as mastery
from mop.common.train_config import parse_config

GO_TO_OBJ = "BabyAI-GoToObj-v0"


def run_of(setting: str, seed: int, *, successes: tuple[float, ...], last: int = 100) -> pd.DataFrame:
    """Rows of one training, a minute for each checkpoint; Wilson's lower end in 1,000 worlds is given by hand."""
    num = len(successes)
    updates = [last * (k + 1) // num for k in range(num)]
    low = {0.98: 0.9693, 0.985: 0.9754, 0.99: 0.9817, 1.0: 0.9962}
    return pd.DataFrame(
        {
            "setting": setting, "task_id": GO_TO_OBJ, "seed": seed, "update": updates, "success_rate": successes,
            "env_steps": [512 * update for update in updates], "success_low": [low[rate] for rate in successes],
            "seconds": [60.0 * (k + 1) for k in range(num)], "path_ratio": 1.25, "mean_lpc": 1500.0,
            "router_entropy": 0.5, "pathways": 4.0, "skip_weight": 0.5, "beside_seconds": 1.0, "success_high": 1.0,
        }
    )  # fmt: skip


def test_the_first_checkpoint_that_masters():
    assert mastery.mastery_of(run_of("linear", 0, successes=(0.98, 0.99, 1.0)))["update"] == 66
    assert mastery.mastery_of(run_of("linear", 0, successes=(0.98, 0.985))) is None
    in_few_worlds = run_of("linear", 0, successes=(1.0,)).assign(success_low=0.97)
    assert mastery.mastery_of(in_few_worlds) is None


def test_the_median_counts_seeds_that_never_master():
    mastered, late = (0.99, 1.0, 1.0), (0.98, 0.98, 1.0)
    runs = [run_of("linear", k, successes=one) for k, one in enumerate((late, mastered, (0.98, 0.98, 0.98)))]
    runs += [run_of("defaults", 0, successes=(0.98,))]
    head, _, defaults, linear = mastery.as_table(pd.concat(runs)).splitlines()
    assert "| GoToObj | defaults | 0 of 1 | never | 0.083 | – | 98.0 (98.0 to 98.0) | 1.00 (1.00 to 1.00) |" in defaults
    assert "| GoToObj | linear | 2 of 3 | 3.00 (1.00 to never) | 0.083 | 51,200 | 100.0 (98.0 to 100.0) |" in linear
    assert len({line.count("|") for line in (head, defaults, linear)}) == 1
    assert len(mastery.plot_mastery(pd.concat(runs)).axes) == len(mastery.GOALS) == 6


def test_every_command_is_understood():
    timings = [mastery.timing(setting, task_id, 0) for setting in mastery.SETTINGS for task_id in mastery.GOALS]
    assert len({timing.folder for timing in timings}) == len(timings) == 12
    for timing in timings:
        config, _ = parse_config("", timing.command[2:])
        count = timing.flags["num_updates"]
        assert config["num_updates"] == count and count % mastery.NUM_CHECKPOINTS == 0
        assert count // mastery.NUM_CHECKPOINTS % config["log_interval"] == 0


def test_only_what_is_missing_or_has_another_command_is_trained(tmp_path, monkeypatch, capsys):
    trained = []

    def run(timing: mastery.Training) -> pd.DataFrame:
        trained.append(timing)
        rows = run_of(timing.setting, timing.seed, successes=(0.98, 1.0), last=timing.flags["num_updates"])
        return rows.assign(command=timing.text)

    for name in ("TABLE", "REPORT"):
        monkeypatch.setattr(mastery, name, tmp_path / getattr(mastery, name).name)
    monkeypatch.setattr(mastery, "warm_up", lambda: None)
    monkeypatch.setattr(mastery, "run", run)

    def call(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["time_to_mastery.py", *arguments])
        return mastery.main()

    refusal(call, "--report")
    assert call("--tasks", GO_TO_OBJ, "--seeds", "1") == 0 and len(trained) == 2
    assert call("--tasks", GO_TO_OBJ, "--seeds", "2") == 0 and len(trained) == 4
    changed = mastery.SETTINGS["linear"] | {GO_TO_OBJ: {"num_updates": 400}}
    monkeypatch.setattr(mastery, "SETTINGS", mastery.SETTINGS | {"linear": changed})
    assert call("--tasks", GO_TO_OBJ, "--seeds", "1") == 0
    assert trained[4:] == [mastery.timing("linear", GO_TO_OBJ, 0)]
    table = pd.read_csv(tmp_path / "mastery.csv")
    assert (
        table.groupby(["setting", "seed"])["update"].max().tolist() == [40, 40, 400] and len(table) == 6
    )  # seed 1 had other flags
    assert call("--report") == 0 and len(trained) == 5
    assert (tmp_path / "mastery.md").read_text() in capsys.readouterr().out and (tmp_path / "mastery.png").exists()


def test_a_damaged_table_is_one_line_and_a_training_without_its_end_is_none(tmp_path, monkeypatch):
    whole = mastery.TABLE.read_text()
    monkeypatch.setattr(mastery, "TABLE", tmp_path / "mastery.csv")
    damaged = ("", "a,b\n", whole[:3000], whole[: whole.index("\n", 3000) - 1])
    for content in damaged:
        mastery.TABLE.write_text(content)
        assert "mastery.csv" in refusal(mastery.load_rows)
    mastery.TABLE.write_text(whole)
    rows, number = mastery.load_rows(), 1 + mastery.NUM_CHECKPOINTS // 2
    mastery.TABLE.write_text("".join(whole.splitlines(keepends=True)[: len(rows) + 1 - number]))
    assert len(mastery.load_rows()) == len(rows) - mastery.NUM_CHECKPOINTS
    head, first, *rest = whole.splitlines(keepends=True)
    renamed = ",".join(["0", *first.split(",")[1:]])  # which the command of this row does not train
    mastery.TABLE.write_text("".join([head, renamed, *rest]))
    assert len(mastery.load_rows()) == len(rows) - 1 and set(mastery.load_rows()["setting"]) <= set(mastery.SETTINGS)


def test_what_is_published_is_of_its_table():
    assert (REPOSITORY / "results" / "mastery.md").read_text() == mastery.as_table(mastery.load_rows())
