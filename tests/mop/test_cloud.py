"""mop/cloud.py and modal_app.py: jobs are command lines which run here; downloads replace nothing newer."""

from mop import cloud

import io
import json
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from checks import refusal
from scripts import (
    TINY_FLAGS,
    TINY_TASK,
    run_here,
    run_script_here,
    script_command,
)

from mop.common.cli import parse

modal_app = pytest.importorskip("modal_app")
TINY = " ".join(TINY_FLAGS[2:])  # all but the task


def plan(name: str, *words: str) -> "modal_app.Plan":
    """The plan of a command."""
    return modal_app.PLANS[name](cloud.flags_of(words))


def run(job: list[str], folder: Path) -> subprocess.CompletedProcess:
    """A job as a container runs it, with its folder in place of the volumes', but in this process."""
    out = io.StringIO()
    code = run_here(script_command(*job), cwd=folder, stdout=out, stderr=subprocess.STDOUT).returncode
    return subprocess.CompletedProcess(job, code, out.getvalue())


def test_a_job_for_each_task_trial_and_seed():
    words = ("--task-ids", "BabyAI-GoToObj-v0,BabyAI-GoTo-v0", "--trials", "0,1", "--seeds", "3", "--gpu", "none")
    planned = plan("main", *words, "--extra-args", "--lpc_alpha 1e-5 --residual")
    assert len(planned.jobs) == 4 and planned.settings.gpu == "none" and not planned.settings.dry_run
    assert " ".join(planned.jobs[1]) == (
        "train_mop.py --task_id BabyAI-GoToObj-v0 --trial 1 --seed 3 --checkpoint_dir modal_checkpoints --resume "
        "--lpc_alpha 1e-5 --residual"
    )
    (job,) = plan("main", "--task-ids", TINY_TASK, "--script", "train.py", "--extra-args", "--residual").jobs
    assert job[0] == "train.py" and "--seed" not in job and job[-1] == "--residual"
    assert plan("main", "--task-ids", TINY_TASK).settings.gpu == "T4"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--task-ids", "BabyAI-Nothing-v0"], "BabyAI-Nothing-v0"),
        (["--task-ids", TINY_TASK, "--trials", "a"], "--trials"),
        (["--task-ids", TINY_TASK, "--seeds", "-1"], "--seeds"),
        (["--task-ids", TINY_TASK, "--extra-args", "--trial 3"], "trial"),
        (["--task-ids", TINY_TASK, "--extra-args", "--no_such_flag 3"], "no_such_flag"),
        (["--task-ids", TINY_TASK, "--extra-args", "--lr -1"], "lr"),
        (["--task-ids", TINY_TASK, "--script", "other.py"], "script"),
        ([], "task_ids"),
    ],
)
def test_a_wrong_flag_is_refused_before_anything_starts(words, named):
    assert named in refusal(plan, "main", *words)


def test_several_tasks_take_their_file_along(tmp_path):
    (tmp_path / "tasks.yaml").write_text("BabyAI-GoToObj-v0: 2\nBabyAI-GoTo-v0: 1\n")
    (job,) = plan("main", "--task-ids", "both", "--extra-args", f"--tasks {tmp_path}/tasks.yaml --lr 1e-4").jobs
    assert job[1:3] == ["--name", "both"] and str(tmp_path) not in " ".join(job)
    assert json.loads(job[job.index("--tasks") + 1]) == [["BabyAI-GoToObj-v0", 2.0], ["BabyAI-GoTo-v0", 1.0]]
    assert "--task" in refusal(plan, "main", "--task-ids", "a,b", "--extra-args", f"--tasks {tmp_path}/tasks.yaml")


def test_jobs_train_evaluate_and_merge_in_folders_in_place_of_volumes(tmp_path, monkeypatch):
    (job,) = plan("main", "--task-ids", TINY_TASK, "--trials", "7", "--extra-args", TINY).jobs
    assert run(job, tmp_path).returncode == 0
    again = run(job, tmp_path)
    assert again.returncode == 0 and "trained already" in again.stdout

    monkeypatch.chdir(tmp_path)
    words = ("--num-episodes", "4", "--trial", "7")
    planned = plan("eval_parallel", *words)
    (job,) = planned.jobs
    done = run(job, tmp_path)
    assert done.returncode == 0, done.stdout
    assert len(list(tmp_path.glob("evaluation/evaluation_cache/*/trial_7/result.json"))) == 1
    assert run(planned.afterwards, tmp_path).returncode == 0
    table = pd.read_csv("evaluation/evaluation_results.csv")
    assert len(table) == 1 and table.num_episodes.item() == 4

    shutil.copy("evaluation/evaluation_results.csv", "evaluation_results.csv")
    assert plan("eval_parallel", *words).jobs == []  # it has its row
    assert len(plan("eval_parallel", *words, "--force").jobs) == 1
    (row,) = plan("eval_parallel", "--interventions", *words).jobs
    assert row[:2] == ["intervene.py", "--checkpoint"] and Path(row[2]).exists()
    checkpoint = next(tmp_path.glob("modal_checkpoints/*/trial_7/checkpoint_final.pt"))
    checkpoint.write_bytes(checkpoint.read_bytes() + b"x")  # another file
    assert len(plan("eval_main", *words).jobs) == 1 and plan("eval_main", *words).in_turn


def test_a_function_runs_a_job_and_is_tried_again_where_it_was_stopped(monkeypatch, tmp_path):
    commits = []
    volume = SimpleNamespace(reload=lambda: commits.append("reload"), commit=lambda: commits.append("commit"))
    monkeypatch.setattr(modal_app, "VOLUMES", {"a": volume})
    monkeypatch.setattr(modal_app, "COMMIT_S", 0.05)
    body = modal_app.run.local
    assert body(["-c", "import time; time.sleep(0.5); raise SystemExit(2)"]) == 2
    assert commits[0] == "reload" and commits.count("commit") >= 3
    with pytest.raises(InterruptedError):
        body(["-c", "raise SystemExit(130)"])


def test_the_flags_of_scripts_are_passed_on():
    jobs = plan("lmc", "--env", "Hopper-v5", "--seeds", "1,2", "--fork-points", "0.1,0.5").jobs
    assert [job[job.index("--seed") + 1] for job in jobs] == ["1", "2"]
    assert {"-m", "lmc_rl.run_env", "--resume", "--fork_points", "0.1,0.5"} <= set(jobs[0])
    planned = plan("train_agent", "--gpu", "A10G", "--exp_name", "mine", "--num_levels", "5")
    assert planned.jobs == [
        ["-m", "generative.train_agent", "--exp_name", "mine", "--num_levels", "5", "--device", "gpu", "--resume"]
    ]
    assert planned.settings.gpu == "A10G" and planned.cpus == modal_app.GAME_CPUS
    (job,) = plan("train_gen_model", "--data_dir", "recordings/X", "--resume", "--dry-run").jobs
    assert job == ["-m", "generative.train_gen_model", "--data_dir", "recordings/X", "--resume"]


def test_jobs_are_shown_without_an_account(tmp_path, capsys):
    words = ("--dry-run", "--task-ids", TINY_TASK, "--trials", "0,1")
    shown = run_script_here(capsys, "modal_app.py", *words, cwd=tmp_path)
    assert shown.returncode == 0 and shown.stdout.count("python train_mop.py") == 2
    for refused, named in ((words[1:], "--dry-run"), (("nothing", "--dry-run"), "nothing")):
        answer = run_script_here(capsys, "modal_app.py", *refused, cwd=tmp_path)
        assert answer.returncode == 2 and named in answer.stderr and answer.stderr.count("\n") == 1


class FakeVolume:
    """Files by path, each of one time."""

    def __init__(self, files: dict[str, bytes], mtime: int):
        self.files, self.mtime = files, mtime

    def listdir(self, path, *, recursive):
        kind = SimpleNamespace(name="FILE")
        return [SimpleNamespace(path=path, type=kind, mtime=self.mtime) for path in self.files]

    def read_file_into_fileobj(self, path, fileobj: io.BytesIO) -> int:
        return fileobj.write(self.files[path])


def test_download_brings_what_is_new_and_replaces_nothing_newer(tmp_path):
    files = {
        "/a/result.json": b"1",
        "/a/data.bin": b"2",
        "/a/training_state.pt": b"3",
        "/a/.x.tmp": b"4",
        "/t.csv": b"",
    }
    order = []
    volume = FakeVolume(files, 1_000_000_000)
    assert cloud.download(volume, tmp_path, order.append, skip="t.csv") == 2
    assert [Path(path).name for path in order] == ["data.bin", "result.json"]  # a result when all of it is there
    assert cloud.download(volume, tmp_path, order.append, skip="t.csv") == 0
    (tmp_path / "a/data.bin").write_bytes(b"mine, and newer")
    assert cloud.download(volume, tmp_path, order.append, skip="t.csv") == 0
    volume.mtime = 4_000_000_000
    assert cloud.download(volume, tmp_path, order.append, skip="t.csv") == 2
    assert (tmp_path / "a/data.bin").read_bytes() == b"2"


def test_download_writes_nothing_outside_of_its_folder(tmp_path):
    (tmp_path / "here").mkdir()
    refusal(cloud.download, FakeVolume({"/../out.txt": b"x"}, 1_000_000_000), tmp_path / "here")
    assert [path.name for path in tmp_path.rglob("*")] == ["here"]


def test_a_flag_may_be_spelt_either_way():
    words = ["--num-episodes=5", "--final-only", "--task", "a-b", "--trial", "1"]
    settings = parse(cloud.EvalSettings, "", cloud.flags_of(words))
    assert (settings.num_episodes, settings.final_only, settings.task, settings.trial) == (5, True, "a-b", 1)
