"""The loop drives any run: its own columns, a log, checkpoints, signals, and a state to continue from."""

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from checks import refusal
from matplotlib.figure import Figure

from mop.artifacts.checkpoints import load_checkpoint, load_training_state, save_training_state
from mop.common import interruption
from mop.training import loop
from mop.training.log import Columns
from mop.training.loop import Trainable, drive

TOTAL = 11
CLOCK = ["metres_per_s", "seconds"]  # columns that differ between two equal runs


class Walk:
    """A random walk on a line: nothing of imitation."""

    columns = Columns(
        ("metres",), {"metres_per_s": "metres"}, str, lambda row: {k: f"{v:g}" for k, v in row.items()}, None
    )

    def __init__(self, at: dict | None = None):
        """at: what to do in the midst of an update, by its number."""
        self.update, self.metres, self.position, self.at = 0, 0.0, torch.zeros(1), at or {}

    def step_update(self) -> dict[str, float]:
        step = float(np.random.default_rng((7, self.update)).normal())
        self.at.get(self.update, lambda: None)()
        self.position, self.metres = self.position + step, self.metres + abs(step)
        self.update += 1
        return {"step": step, "is_left": float(step < 0)}

    def summary(self) -> dict[str, float]:
        return {"position": self.position.item()}

    def warnings(self, measures) -> dict[str, str]:
        told = {"left": "it went left"} if measures["is_left"] else {}
        return told | ({"six": "it has made six steps or more"} if self.update >= 6 else {})

    def checkpoint(self) -> dict:
        where = {"position": self.position}
        return {"policy_state_dict": where, "update": self.update, "config": {"task_id": "walk", "length": 1}}

    def state(self) -> dict:
        return {"position": self.position, "metres": self.metres, "update": self.update}

    def load_state(self, state: dict) -> None:
        self.position, self.metres, self.update = state["position"], state["metres"], state["update"]


def drive_walk(run: Trainable, folder: Path, **more) -> Path:
    return drive(run, folder, TOTAL, "a walk", log_interval=3, checkpoint_interval=4, **more)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def assert_same_end(folder: Path, whole: Path) -> None:
    """Log, state and final checkpoint equal those of the walk that nobody cut off."""
    ours, theirs = (load_training_state(f / "training_state.pt") for f in (folder, whole))
    assert ours == theirs and ours["update"] == TOTAL
    ours, theirs = (load_checkpoint(f / "checkpoint_final.pt") for f in (folder, whole))
    assert ours == theirs
    ours, theirs = (pd.read_csv(f / "training_log.csv").drop(columns=CLOCK) for f in (folder, whole))
    pd.testing.assert_frame_equal(ours, theirs, rtol=1e-12)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The folder of a walk that nobody cut off."""
    folder = tmp_path_factory.mktemp("whole")
    drive_walk(Walk(), folder)
    return folder


def test_a_run_is_shown_in_its_own_words(tmp_path, capfd, monkeypatch):
    rows, saved = [], []

    def save(path: Path, state: dict) -> None:
        save_training_state(path, state)
        saved.append(names(tmp_path))

    monkeypatch.setattr(loop, "save_training_state", save)
    final_path = drive_walk(Walk(), tmp_path, on_row=rows.append)
    steps = [float(np.random.default_rng((7, update)).normal()) for update in range(TOTAL)]
    log = pd.read_csv(tmp_path / "training_log.csv")
    assert list(log) == ["update", "metres", "step", "is_left", "position", "metres_per_s", "seconds"]
    assert log["update"].tolist() == [3, 6, 9, TOTAL]
    assert log["step"].tolist() == pytest.approx([np.mean(steps[a : a + 3]) for a in (0, 3, 6, 9)])
    assert log["metres"].tolist() == pytest.approx([np.abs(steps[:u]).sum() for u in log["update"]])
    assert log["position"].tolist() == pytest.approx([np.sum(steps[:u]) for u in log["update"]], abs=1e-6)
    assert (log["metres_per_s"] > 0).all() and (log["seconds"].diff().dropna() > 0).all()
    pd.testing.assert_frame_equal(pd.DataFrame(rows), log, rtol=1e-12)

    always = {"training_state.pt"}
    with_log = always | {"training_log.csv", "checkpoint_4.pt"}
    assert saved[0] == always and with_log in saved and saved[-1] == names(tmp_path)
    assert names(tmp_path) == with_log | {"checkpoint_8.pt", "checkpoint_final.pt"}  # it draws no curve
    assert final_path == tmp_path / "checkpoint_final.pt"
    assert [load_checkpoint(tmp_path / f"checkpoint_{u}.pt")["update"] for u in (4, 8, "final")] == [4, 8, TOTAL]

    out, err = capfd.readouterr()
    first_left = 1 + next(update for update, step in enumerate(steps) if step < 0)
    for update, text in ((first_left, "it went left"), (6, "it has made six steps or more")):
        assert out.count(text) == out.count(f"warning: at update {update} {text}\n") == 1
    assert f"       position  {rows[-1]['position']:g}\n" in out and f"            log  {log_path(tmp_path)}\n" in out
    assert f"     checkpoint  {final_path}\n" in out
    assert "a walk 11/11" in err and "is_left" in err
    assert not [word for word in ("loss", "success", "bot", "steps/s", "lpc") if word in out + err.lower()]


def log_path(folder: Path) -> Path:
    return folder / "training_log.csv"


def test_a_run_may_choose_its_texts_and_draw_a_curve(tmp_path, capfd):
    drawn = []

    def plot(table: pd.DataFrame, label: str) -> Figure:
        drawn.append((label, table["update"].tolist()))
        return Figure()

    run = Walk()
    run.columns = replace(
        Walk.columns, bar_text=lambda row: f"now at {row['update']}", plot=plot,
        closing_lines=lambda row: {"walked": f"{row['metres']:.1f} metres"},
    )  # fmt: skip
    drive_walk(run, tmp_path)
    out, err = capfd.readouterr()
    assert drawn == [("a walk", [3, 6, 9, TOTAL])]
    assert (tmp_path / "training_curve.png").read_bytes().startswith(b"\x89PNG")
    assert "now at 11" in err and f"         walked  {run.metres:.1f} metres\n" in out and "is_left" not in out + err
    assert f"     log, curve  {log_path(tmp_path)}, {tmp_path / 'training_curve.png'}\n" in out


class Died(Exception):
    """Stands for kill -9: nothing is saved when it comes."""


def die():
    raise Died


def test_a_killed_run_continues_from_its_last_state(whole, tmp_path, capsys):
    with pytest.raises(Died):
        drive_walk(Walk({0: die}), tmp_path / "at once")
    drive_walk(Walk(), tmp_path / "at once", saved=load_training_state(tmp_path / "at once" / "training_state.pt"))
    assert_same_end(tmp_path / "at once", whole)
    tmp_path = tmp_path / "later"
    with pytest.raises(Died):
        drive_walk(Walk({7: die}), tmp_path)
    state = load_training_state(tmp_path / "training_state.pt")
    assert state["update"] == 4 and state["unfinished_row"]["count"] == 1
    assert names(tmp_path) == {"training_state.pt", "training_log.csv", "checkpoint_4.pt"}
    assert pd.read_csv(tmp_path / "training_log.csv")["update"].tolist() == [3, 6]  # the state knows of the first only
    drive_walk(Walk(), tmp_path, saved=state)
    assert "resuming a walk at update 4 of 11" in capsys.readouterr().out
    assert_same_end(tmp_path, whole)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_its_update(whole, tmp_path, number):
    handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt) as told:
        drive_walk(Walk({4: lambda: os.kill(os.getpid(), number)}), tmp_path)
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == handlers
    path = tmp_path / "checkpoint_5.pt"
    assert str(path) in str(told.value) and "--resume" in str(told.value)
    assert load_checkpoint(path)["update"] == load_training_state(tmp_path / "training_state.pt")["update"] == 5
    drive_walk(Walk(), tmp_path, saved=load_training_state(tmp_path / "training_state.pt"))
    assert_same_end(tmp_path, whole)
    assert names(tmp_path) == names(whole)  # the checkpoint of the interruption is not taken for one more policy


@pytest.mark.parametrize("update", [4, 5])
def test_a_checkpoint_to_keep_is_neither_replaced_nor_removed(whole, tmp_path, update):
    kept = tmp_path / f"checkpoint_{update}.pt"
    kept.write_bytes(b"of the end so far")
    with pytest.raises(KeyboardInterrupt):
        drive_walk(Walk({update - 1: lambda: os.kill(os.getpid(), signal.SIGINT)}), tmp_path, kept_updates={update})
    state = load_training_state(tmp_path / "training_state.pt")
    assert state["update"] == update and kept.read_bytes() == b"of the end so far"
    drive_walk(Walk(), tmp_path, saved=state, kept_updates={update})
    assert_same_end(tmp_path, whole)
    assert kept.read_bytes() == b"of the end so far" and (tmp_path / "checkpoint_8.pt").exists()


def test_a_step_that_takes_long_answers_meanwhile(tmp_path, monkeypatch, capsys):
    """The first signal waits for the step; whoever waits is told so, and by whom not much is lost."""
    assert interruption._PATIENCE_S <= 1.0
    monkeypatch.setattr("mop.common.interruption._PATIENCE_S", 0.05)
    told = []

    def signalled():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.5)
        told.append(capsys.readouterr().err)

    with pytest.raises(KeyboardInterrupt):
        drive_walk(Walk({4: signalled}), tmp_path)
    assert "Ctrl-C again" in told[0] and load_training_state(tmp_path / "training_state.pt")["update"] == 5


def test_a_run_of_days_says_so_and_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("mop.training.loop._LONG_S", 0.0)
    drive_walk(Walk(), tmp_path / "long")
    out, err = capsys.readouterr()
    assert (out + err).count("days are left") == 1
    monkeypatch.setattr("mop.training.loop._LONG_S", 86_400.0)
    drive_walk(Walk(), tmp_path / "short")
    assert "days are left" not in "".join(capsys.readouterr())


def test_a_second_signal_ends_it_at_once(tmp_path):
    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        drive_walk(Walk({5: twice}), tmp_path)
    assert load_training_state(tmp_path / "training_state.pt")["update"] == 4
    assert "checkpoint_6.pt" not in names(tmp_path)


def test_a_finished_run_gets_its_final_checkpoint_only(whole, tmp_path):
    """It was killed between its last update and the checkpoint."""
    state = load_training_state(whole / "training_state.pt")
    (tmp_path / "training_log.csv").write_bytes((whole / "training_log.csv").read_bytes())
    drive_walk(Walk(dict.fromkeys(range(TOTAL + 1), die)), tmp_path, saved=state)
    assert_same_end(tmp_path, whole)


def test_a_run_may_be_over_before_its_last_update(tmp_path, capsys):
    run = Walk()
    path = drive_walk(run, tmp_path, is_over=lambda: run.update == 5)
    assert run.update == 5 and load_checkpoint(path)["update"] == 5
    assert pd.read_csv(tmp_path / "training_log.csv")["update"].tolist() == [3, 5]
    drive_walk(run, tmp_path, saved=load_training_state(tmp_path / "training_state.pt"), is_over=lambda: True)
    assert run.update == 5


def test_what_is_no_log_is_named(tmp_path):
    run = Walk()
    run.step_update()
    for content in ("", "no,log\n1,2\n"):
        log_path(tmp_path).write_text(content)
        assert "training_log.csv" in refusal(drive_walk, Walk(), tmp_path, saved=run.state())
