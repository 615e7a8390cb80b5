"""The training scripts as processes: their files, kill -9 and resume, signals, one line for what cannot be."""

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd
import pytest
import torch
from checks import assert_same, contents
from processes import needs_proc, processes_of
from scripts import (
    PATIENCE_S,
    REPOSITORY,
    TINY_FLAGS,
    TINY_TASK,
    run_here,
    run_script,
    run_script_here,
    script_command,
    script_environment,
)

from mop.artifacts.checkpoints import load_checkpoint, load_training_state, save_training_state

LIMIT_S = PATIENCE_S  # of every wait
TOTAL = 48  # updates of the run that is cut off; flags given twice: the last one counts
FLAGS = (*TINY_FLAGS, "--num_updates", TOTAL, "--checkpoint_interval", 4, "--log_interval", 5)
FLAGS += ("--replay", 2, "--replay_size", 5, "--teacher_mix", 0.7, "--obs_encoding", "one_hot")  # a state holds more
DOCUMENTED = {
    *("task_id", "trial", "input_dim", "intermediate_dim", "expert_hidden_sizes", "router_hidden_size", "num_actions"),
    *("lang_dim", "lr", "lpc_alpha", "num_updates", "unroll_len", "max_steps"),
}
CLOCK = ["steps_per_s", "seconds"]  # columns of the log that differ between two equal runs


def folder_of(root: Path, trial: int = 0) -> Path:
    return root / "checkpoints" / TINY_TASK / f"trial_{trial}"


def wait_for(what: Callable[[], object], process: subprocess.Popen | None = None) -> None:
    """Return when `what()` is true; an AssertionError after LIMIT_S or when the process ended without it."""
    end = time.monotonic() + LIMIT_S
    while not what():
        assert time.monotonic() < end, "waited in vain"
        assert process is None or process.poll() is None or what(), process.communicate()[1]
        time.sleep(0.005)


def cut_off(root: Path, moment: str, number: int, to_group: bool, *args) -> tuple[int, str, str]:
    """Send train_mop.py a signal when the file `moment` is there; exit code, stdout and stderr.

    It runs in a session of its own, and none of its processes is left.
    """
    for _ in range(3):  # on a busy machine the run may be over before the signal arrives
        process = subprocess.Popen(
            script_command("train_mop.py", *FLAGS, "--overwrite", *args),
            cwd=root,
            env=script_environment(),
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        with process:
            wait_for((folder_of(root) / moment).exists, process)
            (os.killpg if to_group else os.kill)(process.pid, number)
            out, err = process.communicate(timeout=LIMIT_S)
        wait_for(lambda session=process.pid: not processes_of(session))
        if process.returncode != 0:
            break
        shutil.rmtree(folder_of(root))
    return process.returncode, out, err


def assert_same_run(root: Path, whole: Path, but: tuple[str, ...] = ()) -> None:
    """Weights, optimiser, state and log of a run that was cut off equal those of the one that was not."""
    ours, theirs = (load_training_state(folder_of(r) / "training_state.pt") for r in (root, whole))
    for name in but:
        ours["config"].pop(name), theirs["config"].pop(name)
    assert ours.keys() == theirs.keys() and {"policy_state_dict", "optimizer_state_dict", "env", "hidden"} < ours.keys()
    assert_same(ours, theirs)
    final, expected = (load_checkpoint(folder_of(r) / "checkpoint_final.pt") for r in (root, whole))
    for name in ("policy_state_dict", "lang_proj_state_dict"):
        assert_same(final[name], expected[name])
    if not but:  # evaluations know it by its digest
        paths = [folder_of(r) / "checkpoint_final.pt" for r in (root, whole)]
        assert paths[0].read_bytes() == paths[1].read_bytes()
    assert final["update"] == TOTAL
    log, log_expected = (pd.read_csv(folder_of(r) / "training_log.csv") for r in (root, whole))
    assert log["update"].tolist() == [*range(5, TOTAL, 5), TOTAL]
    pd.testing.assert_frame_equal(log.drop(columns=CLOCK), log_expected.drop(columns=CLOCK), rtol=1e-12)
    assert (log["seconds"].diff().dropna() > 0).all() and (log["steps_per_s"] > 0).all()


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory) -> Path:
    """The run of FLAGS that nobody cut off."""
    root = tmp_path_factory.mktemp("whole_run")
    assert run_here(script_command("train_mop.py", *FLAGS), cwd=root).returncode == 0
    return root


def resume(root: Path, *args) -> str:
    """The same command with --resume, in this process; its output."""
    out = io.StringIO()
    result = run_here(script_command("train_mop.py", *FLAGS, "--resume", *args), cwd=root, stdout=out)
    assert result.returncode == 0
    assert f"{TOTAL} (" in out.getvalue() and "checkpoint_final.pt" in out.getvalue()
    return out.getvalue()


def check_files(root: Path, policy: str, updates: list[int]) -> dict:
    """The four files of a finished run; the config of its checkpoint."""
    folder = folder_of(root)
    names = {"checkpoint_final.pt", "training_state.pt", "training_log.csv", "training_curve.png"}
    assert {path.name for path in folder.iterdir()} == names
    checkpoint = torch.load(folder / "checkpoint_final.pt", weights_only=True)
    config = checkpoint["config"]
    assert set(checkpoint) == {
        *("policy_state_dict", "optimizer_state_dict", "lang_proj_state_dict", "update", "config")
    }
    assert checkpoint["update"] == updates[-1] == config["num_updates"] and type(checkpoint["update"]) is int
    assert set(config) >= DOCUMENTED and config["policy"] == policy and config["seed"] == config["trial"] == 0
    assert {"num_envs", "normalize_lpc", "lang_encoder", "encoder_dim", "encoder_fingerprint"} <= set(config)
    assert json.loads(json.dumps(config)) == config  # plain types only
    assert config["expert_hidden_sizes"] == [[0, 4], [0, 8]] and config["max_steps"] is None
    assert checkpoint["lang_proj_state_dict"]["weight"].shape == (5, config["encoder_dim"])
    state = torch.load(folder / "training_state.pt", weights_only=True)
    assert_same(state["policy_state_dict"], checkpoint["policy_state_dict"])
    assert state["update"] == updates[-1]
    log = pd.read_csv(folder / "training_log.csv")
    assert log["update"].tolist() == updates
    assert log["env_steps"].tolist() == [update * 4 * 8 for update in updates]
    assert {"loss", "cross_entropy", "accuracy", "lpc", "success_rate", "path_ratio", "bot_plan_failures"} < set(log)
    assert log["accuracy"].between(0, 1).all() and log["loss"].between(0.1, 3).all()
    assert (folder / "training_curve.png").read_bytes().startswith(b"\x89PNG")
    return checkpoint


def test_files_of_a_mixture(tiny_run):
    checkpoint = check_files(tiny_run, "mop", [2, 4, 6])
    names = set(checkpoint["policy_state_dict"])
    assert {"input_projection.weight", "head.bias", "moe_layers.1.router.gru.weight_hh_l0"} < names
    assert "moe_layers.0.experts.1.projection.bias" in names
    assert not any(name.startswith("moe_layers.0.experts.0") for name in names)


def test_files_of_the_baseline_and_its_settings_from_a_file(tmp_path, capsys):
    """train.py, with what it needs partly in a YAML file: an alias, and a number that YAML takes for a text."""
    (tmp_path / "mine.yaml").write_text("lr: 1e-4\nmop_layers: ['0,4', '0,8']\nnum_updates: 99\nlog_interval: 3\n")
    flags = [*TINY_FLAGS, "--num_updates", "5", "--gru_hidden_size", "6"]
    for name in ("--expert_hidden_sizes", "--log_interval"):
        del flags[flags.index(name) : flags.index(name) + 2]
    result = run_script_here(capsys, "train.py", *flags, "--config", "mine.yaml", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "recent success" in result.stdout and "Traceback" not in result.stderr
    checkpoint = check_files(tmp_path, "gru", [3, 5])
    assert checkpoint["config"]["lr"] == 1e-4 and checkpoint["config"]["gru_hidden_size"] == 6
    assert checkpoint["policy_state_dict"]["gru.weight_hh_l0"].shape == (18, 6)


@pytest.mark.slow
@needs_proc
@pytest.mark.parametrize(("moment", "num_workers"), [("checkpoint_12.pt", 0), ("training_state.pt", 2)])
def test_kill_9_and_resume(whole_run, tmp_path, moment, num_workers):
    # the parent alone is killed: its workers must notice
    code, *_ = cut_off(tmp_path, moment, signal.SIGKILL, False, "--num_workers", num_workers)
    assert code == -signal.SIGKILL and not (folder_of(tmp_path) / "checkpoint_final.pt").exists()
    saved = load_training_state(folder_of(tmp_path) / "training_state.pt")["update"]
    assert 0 <= saved < TOTAL and saved % 4 == 0  # the first state is written before the first update
    said = resume(tmp_path, "--num_workers", num_workers)
    assert f"resuming {TINY_TASK} trial 0 at update {saved} of {TOTAL}" in said
    assert_same_run(tmp_path, whole_run, but=("num_workers",))


# dies when the n-th training_state.pt is written but not yet in its place: its checkpoint is newer than the state
DIE_BEFORE_REPLACE = """
import os, runpy, signal, sys
replace, states, last = os.replace, [], int(sys.argv[1])
def replace_or_die(source, target):
    states.extend([target] if str(target).endswith("training_state.pt") else [])
    if len(states) == last:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
os.replace = replace_or_die
sys.argv = sys.argv[2:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
def test_kill_9_between_a_checkpoint_and_its_state(whole_run, tmp_path):
    command = [sys.executable, "-c", DIE_BEFORE_REPLACE, 6, *script_command("train_mop.py", *FLAGS)[1:]]
    result = subprocess.run([*map(str, command)], cwd=tmp_path, env=script_environment(), capture_output=True)
    assert result.returncode == -signal.SIGKILL, result.stderr
    folder = folder_of(tmp_path)
    assert (folder / "checkpoint_20.pt").exists() and len(list(folder.glob(".training_state.pt.*.tmp"))) == 1
    assert load_training_state(folder / "training_state.pt")["update"] == 16
    assert "at update 16 of" in resume(tmp_path)
    assert_same_run(tmp_path, whole_run)


@pytest.mark.slow
@needs_proc
def test_a_run_has_one_trainer_and_keeps_its_settings(tmp_path):
    """While one process trains, another is refused; a resumed run keeps what the user does not give anew."""
    command = script_command(
        "train_mop.py", *FLAGS, "--num_updates", 500, "--log_interval", 7, "--checkpoint_interval", 5
    )
    with subprocess.Popen(command, cwd=tmp_path, env=script_environment(), stderr=subprocess.DEVNULL) as process:
        wait_for((folder_of(tmp_path) / "checkpoint_5.pt").exists, process)
        commands = [("train_mop.py", *FLAGS, *flags) for flags in ((), ("--overwrite",), ("--resume",))]
        for answer in run_all(tmp_path, commands):
            assert_one_line(answer, "another process", "trial_0", "--trial")
        assert process.poll() is None
        process.kill()
    update = load_training_state(folder_of(tmp_path) / "training_state.pt")["update"]
    assert update >= 5
    flags = ("--task_id", TINY_TASK, "--num_updates", update + 10)
    assert run_all(tmp_path, [("train_mop.py", *flags, "--resume")])[0][0] == 0
    config = load_checkpoint(folder_of(tmp_path) / "checkpoint_final.pt")["config"]
    assert (config["log_interval"], config["checkpoint_interval"], config["device"]) == (7, 5, "cpu")
    assert (folder_of(tmp_path) / f"checkpoint_{update + 5}.pt").exists()
    before = contents(tmp_path)
    ((code, said, _),) = run_all(tmp_path, [("train_mop.py", "--task_id", TINY_TASK, "--resume")])
    assert code == 0 and "is trained already" in said and contents(tmp_path) == before


@pytest.mark.slow
@needs_proc
@pytest.mark.parametrize(("number", "num_workers"), [(signal.SIGINT, 2), (signal.SIGTERM, 0)])
def test_signals_save_and_the_run_goes_on(whole_run, tmp_path, number, num_workers):
    log = folder_of(tmp_path) / "training_log.csv"
    to_group = num_workers > 0  # to the workers too, as by a terminal's Ctrl-C, or by `timeout`
    flags = ("--num_workers", num_workers, "--checkpoint_interval", 0, "--log_interval", 1)
    code, out, err = cut_off(tmp_path, log.name, number, to_group, *flags)
    assert code == 130, err
    assert "Traceback" not in err and "Traceback" not in out
    state = load_training_state(folder_of(tmp_path) / "training_state.pt")
    update = state["update"]
    names = {path.name for path in folder_of(tmp_path).iterdir()}
    assert 1 <= update < TOTAL
    assert names == {f"checkpoint_{update}.pt", "training_state.pt", "training_log.csv"}
    assert f"checkpoint_{update}.pt" in err and "--resume" in err and (out + err).count("interrupted") == 1
    checkpoint = load_checkpoint(folder_of(tmp_path) / f"checkpoint_{update}.pt")
    assert checkpoint["update"] == update
    assert_same(checkpoint["policy_state_dict"], state["policy_state_dict"])
    assert pd.read_csv(log)["update"].tolist() == list(range(1, update + 1))
    resume(tmp_path, *flags)
    log = pd.read_csv(log)
    assert log["update"].tolist() == list(range(1, TOTAL + 1))
    ours, theirs = (load_training_state(folder_of(r) / "training_state.pt") for r in (tmp_path, whole_run))
    parts = ("policy_state_dict", "lang_proj_state_dict", "optimizer_state_dict", "hidden", "env", "counts")
    assert_same(*({part: state[part] for part in parts} for state in (ours, theirs)))
    whole_log = pd.read_csv(folder_of(whole_run) / "training_log.csv")
    assert log["loss"][:5].mean() == pytest.approx(whole_log["loss"][0], rel=1e-9)
    assert log["loss"][45:].mean() == pytest.approx(whole_log["loss"].iloc[-1], rel=1e-9)


# raises "no space left" in the fsync of the n-th temporary file of a name
FULL_DISK = """
import errno, os, runpy, sys
fsync, name, n = os.fsync, sys.argv[1], int(sys.argv[2])
seen = []
def fsync_or_refuse(descriptor):
    path = os.readlink(f"/proc/self/fd/{descriptor}")
    seen.extend([path] if name in path else [])
    if name in path and len(seen) >= n:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    fsync(descriptor)
os.fsync = fsync_or_refuse
sys.argv = sys.argv[3:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
@needs_proc
def test_a_full_disk_is_one_line_and_the_state_before_stays(whole_run, tmp_path):
    name = "training_state.pt"
    command = [sys.executable, "-c", FULL_DISK, f".{name}.", "4", *script_command("train_mop.py", *FLAGS)[1:]]
    result = subprocess.run(command, cwd=tmp_path, env=script_environment(), capture_output=True, text=True)
    (line,) = [line for line in result.stderr.replace("\r", "\n").splitlines() if "rror" in line]
    path = (folder_of(tmp_path) / name).relative_to(tmp_path)
    assert result.returncode == 2 and "No space left" in line and str(path) in line
    assert load_training_state(folder_of(tmp_path) / name)["update"] == 8
    assert list(folder_of(tmp_path).glob(".*")) == []
    resume(tmp_path)
    assert_same_run(tmp_path, whole_run)


# torch makes a RuntimeError of what a file refuses: this is a real limit
LIMITED = """
import resource, sys
import torch
from mop.artifacts.checkpoints import save_training_state
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
save_training_state(sys.argv[1], {"weights": torch.zeros(100_000)})
"""


def test_a_state_that_the_disk_refuses_is_an_os_error_that_names_it(tmp_path):
    path = tmp_path / "training_state.pt"
    save_training_state(path, {"update": 1})
    result = subprocess.run(
        [sys.executable, "-c", LIMITED, path], cwd=REPOSITORY, env=script_environment(), capture_output=True, text=True
    )
    assert result.stderr.splitlines()[-1] == f"OSError: [Errno 27] File too large: '{path}'"
    assert load_training_state(path) == {"update": 1} and [*tmp_path.iterdir()] == [path]


@pytest.mark.slow
def test_a_kill_while_the_curve_is_drawn(tiny_run, tmp_path):
    """The same command with --resume draws it and removes what is left of the first attempt."""
    shutil.copytree(tiny_run, tmp_path, dirs_exist_ok=True)
    curve = folder_of(tmp_path) / "training_curve.png"
    whole = curve.read_bytes()
    curve.unlink()
    (folder_of(tmp_path) / ".training_curve.png.0123456789ab.tmp").write_bytes(whole[:100])
    assert run_all(tmp_path, [("train_mop.py", *TINY_FLAGS, "--resume")])[0][0] == 0
    assert curve.read_bytes() == whole and contents(tmp_path).keys() == contents(tiny_run).keys()


def run_all(root: Path, commands: Iterable[tuple]) -> list[tuple[int, str, str]]:
    """Exit code, stdout and stderr of each (script, *flags), run in `root` by this process."""
    answers = []
    for command in commands:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stderr(err):
            code = run_here(script_command(*command), cwd=root, stdout=out).returncode
        answers.append((code, out.getvalue(), err.getvalue()))
    return answers


def assert_one_line(answer: tuple[int, str, str], *words: str) -> None:
    """Exit code 2, and on stderr one line that holds the words."""
    code, out, err = answer
    assert code == 2, err
    assert err.startswith("error: ") and err.count("\n") == 1 and err.endswith("\n"), err
    assert len(err) < 400 and "Traceback" not in out, (out, err)
    for word in words:
        assert word in err, (word, err)


def test_what_cannot_be_is_one_line_and_writes_nothing(tmp_path):
    (tmp_path / "broken.yaml").write_text("lr: [\n")
    (tmp_path / "a_file").write_text("no folder")
    cases = {
        ("--task_id", "BabyAI-GoToOj-v0"): ("BabyAI-GoToOj-v0", "BabyAI-GoToObj-v0"),
        ("--task_id", "a/b"): ("a/b",),
        ("--task_id", "BabyAI-KeyInBox-v0"): ("BabyAI-KeyInBox-v0",),
        ("--task_id", "BabyAI-UnlockPickup-v0", "--max_steps", "3"): ("3 steps",),
        ("--learning_rate", "1"): ("--learning_rate",),
        ("--config", "broken.yaml"): ("broken.yaml",),
        ("--config", "nowhere.yaml"): ("nowhere.yaml",),
        ("--lang_encoder", "./nowhere"): ("./nowhere", "--lang_encoder"),
        ("--device", "warp"): ("warp",),
        ("--checkpoint_dir", "a_file/below"): ("a_file",),
        ("--checkpoint_dir", "/proc/x"): ("--checkpoint_dir", "/proc/x"),
    }
    before = contents(tmp_path)
    scripts = ["train_mop.py", "train.py"]
    commands = [(scripts[i % 2], *TINY_FLAGS, *flags) for i, flags in enumerate(cases)]
    answers = run_all(tmp_path, commands)
    for words, answer in zip(cases.values(), answers, strict=True):
        assert_one_line(answer, *words)
    assert len(answers) == len(cases) == 11
    assert contents(tmp_path) == before and not (tmp_path / "checkpoints").exists()
    # the same from a process of its own
    result = run_script("train_mop.py", *TINY_FLAGS, "--task_id", "BabyAI-GoToOj-v0", cwd=tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == answers[0]


@pytest.mark.slow
def test_a_folder_in_use(tiny_run, tmp_path):
    """Refused, resumed with more updates, resumed by mistake, replaced."""
    shutil.copytree(tiny_run, tmp_path, dirs_exist_ok=True)
    folder = folder_of(tmp_path)
    # a second folder whose state is cut short, a third without one, a fourth with a checkpoint only, a fifth
    # whose state was written by a later version
    for trial in (1, 2, 3, 4):
        shutil.copytree(folder, folder_of(tmp_path, trial))
    state = (folder / "training_state.pt").read_bytes()
    (folder_of(tmp_path, 1) / "training_state.pt").write_bytes(state[: len(state) // 2])
    (folder_of(tmp_path, 2) / "training_state.pt").unlink()
    for name in ("training_state.pt", "checkpoint_final.pt"):
        (folder_of(tmp_path, 3) / name).unlink()
    shutil.copy(folder / "checkpoint_final.pt", folder_of(tmp_path, 3) / "checkpoint_4.pt")
    later = load_training_state(folder_of(tmp_path, 4) / "training_state.pt")
    later["config"]["key_of_tomorrow"] = 1
    save_training_state(folder_of(tmp_path, 4) / "training_state.pt", later)
    mop = ("train_mop.py", *TINY_FLAGS)
    refused = {
        mop: ("trial_0", "--resume", "--overwrite", "--trial"),
        ("train.py", *TINY_FLAGS): ("trial_0", "--overwrite"),
        (*mop, "--trial", 2): ("trial_2", "--overwrite"),
        (*mop, "--trial", 3): ("trial_3", "--overwrite"),
        (*mop, "--resume", "--num_envs", 5, "--residual"): ("num_envs", "residual"),
        (*mop, "--resume", "--mop_layers", "0,4;0,9"): ("expert_hidden_sizes",),
        (*mop, "--resume", "--lang_encoder", "./elsewhere"): ("lang_encoder", "./elsewhere"),
        (*mop, "--resume", "--num_updates", 3): ("update 6", "--num_updates 3"),
        ("train.py", *TINY_FLAGS, "--resume"): ("mop", "gru"),
        (*mop, "--trial", 1, "--resume"): ("trial_1/training_state.pt",),
        (*mop, "--trial", 2, "--resume"): ("trial_2", "training_state.pt"),
        (*mop, "--trial", 4, "--resume"): ("trial_4/training_state.pt", "key_of_tomorrow", "--overwrite"),
        # what is wrong is found before the old run is given up
        (*mop, "--overwrite", "--device", "warp"): ("warp",),
        (*mop, "--overwrite", "--lang_encoder", "./nowhere"): ("./nowhere",),
    }
    before = contents(tmp_path)
    answers = run_all(tmp_path, list(refused))
    for words, answer in zip(refused.values(), answers, strict=True):
        assert_one_line(answer, *words)
    assert len(answers) == len(refused) == 14
    assert contents(tmp_path) == before

    commands = [
        (*mop, "--resume", "--num_updates", 9, "--log_interval", 1),  # further
        # nothing left to do, and the default num_updates is none that the user gave
        ("train_mop.py", "--task_id", TINY_TASK, "--resume"),
        (*mop, "--seed", 7, "--resume", "--num_updates", 2),  # nothing there
        (*mop, "--trial", 3, "--resume", "--num_updates", 2),  # a checkpoint, but nothing to go on from
        (*mop, "--trial", 1, "--overwrite", "--num_updates", 3, "--lr", "0.5", "--log_interval", 9),
    ]
    done = run_all(tmp_path, commands)
    assert [code for code, _, _ in done] == [0] * 5, done
    assert "at update 6 of 9" in done[0][1] and "is trained already" in done[1][1]
    assert "nothing to resume" in done[2][1] and "nothing to resume" in done[3][1]
    assert load_checkpoint(folder / "checkpoint_final.pt")["update"] == 9
    assert load_checkpoint(folder / "checkpoint_final.pt")["config"]["num_updates"] == 9
    assert pd.read_csv(folder / "training_log.csv")["update"].tolist() == [2, 4, 6, 7, 8, 9]
    assert load_checkpoint(folder / "seed_7" / "checkpoint_final.pt")["config"]["seed"] == 7
    new = load_checkpoint(folder_of(tmp_path, 1) / "checkpoint_final.pt")
    assert (new["update"], new["config"]["lr"], new["config"]["seed"]) == (3, 0.5, 1)
    assert pd.read_csv(folder_of(tmp_path, 1) / "training_log.csv")["update"].tolist() == [3]
