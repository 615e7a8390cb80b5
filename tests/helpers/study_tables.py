"""The tables that studies read, in a folder of their own, and the commands that read them."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest
from scripts import in_process

import studies.claims_report as report
from benchmarks import time_to_mastery as mastery
from studies import claims, collapse, experiments, tasks

RESULTS, CLAIMS = experiments.RESULTS, report.FOLDER
TRAINING = experiments.Training("settings", "BabyAI-GoToObj-v0", "base", 0, 0, {})
CHANGES = ("none", "replay 8")


class Study(NamedTuple):
    """A study whose tables are in a folder."""

    prepare: Callable[[Path], None]  # writes them into the folder
    place: Callable[[Path, pytest.MonkeyPatch], None]  # lets the study read and write there
    read: Callable[[], object]  # reads them all
    main: Callable[[], int | None]  # the command, which draws them with these flags
    flags: tuple[str, ...] = ("--report",)

    def report(self) -> int:
        """Run the command; its exit code."""
        return in_process(self.main, *self.flags)


def _copy(source: Path, names: tuple[str, ...], folder: Path) -> None:
    for name in names:
        (folder / name).write_bytes((source / name).read_bytes())


def _place_mastery(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(mastery, "TABLE", folder / mastery.TABLE.name)
    patch.setattr(mastery, "REPORT", folder / mastery.REPORT.name)


def _prepare_collapse(folder: Path) -> None:
    whole = pd.read_csv(RESULTS / "collapse.csv")
    with pytest.MonkeyPatch.context() as patch:
        _place_collapse(folder, patch)
        for name in CHANGES:
            path = collapse.log_path(name, 0)
            path.parent.mkdir(exist_ok=True)
            whole[(whole["change"] == name) & (whole["seed"] == 0)].to_csv(path, index=False)


def _place_collapse(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(collapse, "RUNS", folder)
    for module in (collapse, experiments):
        patch.setattr(module, "RESULTS", folder)


def _read_collapse() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["collapse.py", "--jobs", "0"])
        collapse.main()


def _prepare_settings(folder: Path) -> None:
    """One training, of which the log and the row of an evaluation are there."""
    with pytest.MonkeyPatch.context() as patch:
        _place_settings(folder, patch)
        log = TRAINING.folder / "training_log.csv"
    log.parent.mkdir(parents=True)
    row = {"update": 1, "env_steps": 512, "seconds": 2.5, "loss": 0.1, "accuracy": 0.5, "success_rate": 0.25}
    row |= {"path_ratio": 1.5, "lpc": 7.0, "bot_share": 0.5}
    pd.DataFrame([row, row | {"update": 2, "env_steps": 1024}]).to_csv(log, index=False)
    row = {"task_id": TRAINING.task_id, "trial": 0, "seed": 0, "policy": "mop", "lpc_alpha": 0.0}
    row |= {"num_episodes": 1000, "eval_seed": 0, **dict.fromkeys(experiments.OF_RESULT, 0.5)}
    pd.DataFrame([row]).to_csv(folder / "runs" / "settings" / "table.csv", index=False)


def _place_settings(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(experiments, "RESULTS", folder)
    patch.setattr(experiments, "RUNS", folder / "runs")
    patch.setattr(experiments, "run_stage", lambda *words: None)


def _publish_settings() -> int:
    experiments.write_results("settings", [TRAINING], experiments.evaluate("settings", 1))
    experiments.write_settings_pictures()
    return 0


STUDIES = {
    "tasks": Study(
        partial(_copy, RESULTS, (*tasks.FILES, tasks.references.RANDOM)),
        lambda folder, patch: patch.setattr(experiments, "RESULTS", folder),
        lambda: (tasks.load_published(), tasks.references.load_random()),
        tasks.main,
    ),
    "claims": Study(
        partial(_copy, CLAIMS, (report.VALUES, report.PAIRS, report.DIFFICULTY)),
        lambda folder, patch: patch.setattr(report, "FOLDER", folder),
        report.read_numbers,
        claims.main,
    ),
    "mastery": Study(partial(_copy, RESULTS, (mastery.TABLE.name,)), _place_mastery, mastery.load_rows, mastery.main),
    "collapse": Study(_prepare_collapse, _place_collapse, _read_collapse, collapse.main, ("--jobs", "0")),
    "settings": Study(_prepare_settings, _place_settings, _publish_settings, _publish_settings),
}
