"""The cloud: what is planned, refused and printed; the real `modal run` against a stand-in for Modal's servers."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from checks import files_below
from eval_helpers import GOTO, UNLOCK, in_process, put, random_checkpoint, the_error_line
from lmc_settings import TINY, tiny
from modal_cloud import (
    PIN,
    assert_files_are_their_own,
    imported_by,
    in_container,
    layers_of,
    of,
    until,
    without_account,
)
from scripts import PATIENCE_S, REPOSITORY, TINY_FLAGS, TINY_TASK, run_script

import batch_eval
from lmc_rl.analysis.results import ExperimentPaths
from lmc_rl.analysis.table import ROWS_NAME, read_rows
from lmc_rl.app.catalog import find_experiments
from lmc_rl.cloud import plan
from lmc_rl.experiment import run
from mop.artifacts.checkpoints import load_checkpoint, load_training_state
from mop.artifacts.results import load_result
from mop.artifacts.run_paths import RunKey
from mop.cloud import calls, cloud_jobs, download, hardware
from mop.common.errors import InputError
from mop.common.files import file_digest
from mop.envs import missions
from mop.evaluation import batch
from mop.evaluation.batch import Settings
from mop.training.imitation import ImitationRun

modal = pytest.importorskip("modal")
if modal.__version__ != PIN:
    pytest.skip(f"modal {modal.__version__} is here, the stand-in is for {PIN}", allow_module_level=True)

import modal_stand_in  # noqa: E402
from modal_proto import api_pb2  # noqa: E402

import modal_app  # noqa: E402

MAIN, EVAL_PARALLEL, EVAL_MAIN = (modal_app.ENTRY_POINTS[name] for name in ("main", "eval_parallel", "eval_main"))
OTHER_TASK = "BabyAI-GoToRedBallGrey-v0"
EXTRA_ARGS = shlex.join(TINY_FLAGS[2:])  # without the task
RUN_FILES = {"checkpoint_final.pt", "training_log.csv", "training_curve.png"}


# --- without Modal --------------------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """The working directory of this process."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def upload_sources(root: Path) -> dict[str, Path]:
    """Five checkpoints below `root`, by their labels."""
    return {
        f"{GOTO} trial 0 update 5": put(root, random_checkpoint(1), trial=0, update=5),
        f"{GOTO} trial 0": put(root, random_checkpoint(0), trial=0),
        f"{GOTO} trial 0 seed 7": put(root, random_checkpoint(2), trial=0, seed=7),
        f"{GOTO} trial 1": put(root, random_checkpoint(3), trial=1),
        f"{UNLOCK} trial 2": put(root, random_checkpoint(4, UNLOCK, max_steps=20), trial=2),
    }


def planned(capsys, entry_point, **flags) -> list[str]:
    """The labels that a dry run prints."""
    capsys.readouterr()
    assert entry_point(**flags, dry_run=True) == 0
    lines = capsys.readouterr().out.splitlines()
    jobs = [line.partition(" (")[0] for line in lines if line.startswith("BabyAI-")]
    assert lines[-1] == f"{len(jobs)} jobs; none is started"
    return jobs


def test_trainings_are_planned_for_every_task_trial_and_seed(capsys):
    tasks = f"{GOTO}, {UNLOCK}"
    assert planned(capsys, MAIN, task_ids=tasks, trials="0,2") == [
        f"{task} trial {trial}" for task in (GOTO, UNLOCK) for trial in (0, 2)
    ]
    labels = planned(capsys, MAIN, task_ids=GOTO, trials="3,3", seeds="0,1", script="train.py")
    assert labels == [f"{GOTO} trial 3 seed 0", f"{GOTO} trial 3 seed 1"]
    (job,) = cloud_jobs.plan_trainings("train.py", GOTO, "3", "1", "--lr 1e-4 --residual")
    config, given = job.arguments
    assert given == ["lr", "residual", "seed", "task_id", "trial"] and config["policy"] == "gru"
    assert (config["task_id"], config["trial"], config["seed"], config["lr"]) == (GOTO, 3, 1, 1e-4)
    assert config["resume"] is True and config["checkpoint_dir"] == "modal_checkpoints"
    assert json.loads(json.dumps(config)) == config


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"task_ids": "BabyAI-GoToObject-v0"}, "unknown task id 'BabyAI-GoToObject-v0'; did you mean"),
        ({"task_ids": f"{GOTO},nothing"}, "unknown task id 'nothing'"),
        ({"task_ids": " , "}, "--task-ids is empty"),
        ({"script": "eval_mop.py"}, "--script must be train_mop.py or train.py, not 'eval_mop.py'"),
        ({"trials": "0,x"}, "--trials must be numbers such as 0,1,2, not '0,x'"),
        ({"trials": "-1"}, "--trials must be numbers"),
        ({"seeds": "1.5"}, "--seeds must be numbers"),
        ({"extra_args": "--lpc_alfa 1e-4"}, "--extra-args: unrecognized arguments: --lpc_alfa"),
        ({"extra_args": "--lr fast"}, "--extra-args: command line: lr must be a number, not 'fast'"),
        ({"extra_args": "--config nowhere.yaml"}, "--extra-args: cannot read the config nowhere.yaml"),
        ({"extra_args": "--lr '1e-4"}, "--extra-args: No closing quotation"),
        ({"extra_args": "--overwrite"}, "--extra-args: overwrite is not free in the cloud"),
        ({"extra_args": "--trial 3"}, "--extra-args: trial is not free in the cloud"),
        ({"extra_args": "--wandb_project mine"}, "wandb_project needs your key in the cloud: --secrets NAME"),
        ({"extra_args": "--device cuda", "gpu": "none"}, "device cuda needs a GPU, and --gpu none asks for none"),
        ({"gpu": "T5"}, "--gpu must be none, T4, L4, "),
        ({"extra_args": "--lang_encoder ./model"}, "lang_encoder './model' is a folder of this machine"),
        ({"extra_args": f"--lang_encoder '{REPOSITORY}'"}, "in the cloud, take auto, vocab or a model's id"),
        ({"extra_args": "--device mps"}, "device must be auto or cpu or cuda in the cloud, not 'mps'; leave it out"),
    ],
)
def test_a_wrong_training_is_refused(flags, message):
    with pytest.raises(InputError, match=re.escape(message)):
        MAIN(**({"task_ids": GOTO} | flags))


def test_evaluations_are_planned_for_what_the_table_lacks(here, capsys, monkeypatch):
    root = here / "modal_checkpoints"
    files = upload_sources(root)
    everything = sorted(files, key=lambda label: RunKey.from_checkpoint(files[label]))
    assert planned(capsys, EVAL_PARALLEL) == planned(capsys, EVAL_MAIN) == everything
    final, seeded = f"{GOTO} trial 0", f"{GOTO} trial 0 seed 7"
    selections = {
        ("task", UNLOCK): [f"{UNLOCK} trial 2"],
        ("trial", 1): [f"{GOTO} trial 1"],
        ("seed", 7): [seeded],
        ("update", 5): [f"{final} update 5"],
        ("final_only", True): [label for label in everything if "update" not in label],
    }
    for (name, value), labels in selections.items():
        assert planned(capsys, EVAL_PARALLEL, **{name: value}) == labels, name
    # rows of another program: only the path tells the run, wherever it lies
    columns = {"checkpoint_path": [f"old/{GOTO}/trial_0/checkpoint_final.pt", "lost.pt"], "success_rate": [0.5, 0.5]}
    table = pd.DataFrame(columns)
    table.to_csv("evaluation_results.csv", index=False)
    assert planned(capsys, EVAL_PARALLEL) == [label for label in everything if label != final]
    assert planned(capsys, EVAL_PARALLEL, force=True) == everything
    # rows of this one: a changed checkpoint and a cache that is wanted count as missing
    row = {"checkpoint_sha256": file_digest(files[seeded]), "has_routing_cache": False, "num_episodes": 3}
    row |= {"checkpoint_path": f"modal_checkpoints/{GOTO}/trial_0/seed_7/checkpoint_final.pt", "eval_seed": 0}
    row["success_rate"] = 0.5
    pd.concat([table, pd.DataFrame([row])]).to_csv("evaluation_results.csv", index=False)
    assert planned(capsys, EVAL_PARALLEL, seed=7) == [seeded]
    assert planned(capsys, EVAL_PARALLEL, seed=7, skip_routing=True) == []
    assert EVAL_PARALLEL(seed=7, skip_routing=True) == 0  # no job, and so no account needed
    out = capsys.readouterr().out
    assert "1 checkpoints, 0 to evaluate" in out and "1 of these were made with other --num_episodes" in out
    for name in ("success_rate", "checkpoint_sha256", "has_routing_cache"):  # a row that was cut short
        pd.DataFrame([row | {"has_routing_cache": True}, row | {name: None}])[[*row]].to_csv(
            "evaluation_results.csv", index=False
        )
        assert planned(capsys, EVAL_PARALLEL, seed=7) == [seeded], name
    with monkeypatch.context() as patch:
        for module in (cloud_jobs, batch):
            patch.setattr(module, "file_digest", lambda path: "0012345678901e34")
        pd.DataFrame([row | {"checkpoint_sha256": "0012345678901e34"}]).to_csv("evaluation_results.csv", index=False)
        assert planned(capsys, EVAL_PARALLEL, seed=7, skip_routing=True) == []
    put(root, random_checkpoint(9), trial=0, seed=7)
    assert planned(capsys, EVAL_PARALLEL, seed=7, skip_routing=True) == [seeded]

    for flags, message in (
        ({"trial": 9}, "none of the 5 checkpoints fits the filters; change them$"),
        ({"num_episodes": 0}, "--num-episodes must be at least 1"),
    ):
        with pytest.raises(InputError, match=message):
            EVAL_MAIN(**flags)
    Path("evaluation_results.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"evaluation_results\.csv is no results table \(no column checkpoint_path\)"):
        EVAL_PARALLEL()
    shutil.rmtree(root)
    with pytest.raises(InputError, match=r"there is none; download some: python modal_app\.py download$"):
        EVAL_PARALLEL()


def test_a_checkpoint_that_is_another_on_the_volume_is_not_evaluated(here):
    path = put(here / "modal_checkpoints", random_checkpoint()).relative_to(here).as_posix()
    digest, settings = file_digest(path), Settings(3)
    result = cloud_jobs.evaluate(path, "0" * 16, settings, force=False)
    assert result.error == (
        f"{path} is not the file of volume rl-mop; to have the volume's here, move yours away, then "
        "python modal_app.py download"
    )
    Path(path).unlink()
    result = cloud_jobs.evaluate(path, digest, settings, force=False)
    assert result.error.endswith(f"modal volume put rl-mop {path} /{path.removeprefix('modal_checkpoints/')}")
    assert not Path("evaluation").exists() and result.files == ()


def test_a_result_of_fewer_worlds_is_not_kept(here):
    path = put(here / "modal_checkpoints", random_checkpoint()).relative_to(here).as_posix()
    made_at = []
    for num_episodes, force in ((2, False), (3, False), (3, False), (3, True)):
        settings = cloud_jobs.settings_of_container(num_episodes, skip_routing=True)
        result = cloud_jobs.evaluate(path, file_digest(path), settings, force)
        (file,) = (Path("evaluation", name) for name in result.files)
        assert load_result(file)["num_episodes"] == num_episodes
        made_at.append(file.stat().st_mtime_ns)
    few, more, same, forced = made_at
    assert few < more == same < forced


class Call:
    """A call of a function that answers in turn; the last answer stands."""

    def __init__(self, number: int, *replies):
        self.object_id, self.replies, self.num_asked = f"fc-{number}", list(replies), 0

    def get(self, timeout):
        self.num_asked += 1
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if isinstance(reply, Exception):
            raise reply
        return reply


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self):
        self.now, self.pauses = 0.0, []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.pauses.append(seconds)


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(calls, "time", clock)
    return clock


AWAY = modal.exception.ConnectionError("gone")
RUNS = TimeoutError()  # what the client raises for a call that has not ended


def test_a_call_is_asked_until_it_answers(clock):
    own = TimeoutError("of the hub")  # raised by the function
    asked = {
        "slow": Call(1, RUNS, RUNS, RUNS, "b"),
        "fast": Call(2, RUNS, "a"),
        "cut off": Call(3, *[AWAY] * 4, RUNS, "d"),
        "timeout": Call(4, own),
        "broken": Call(5, RuntimeError("e")),
    }
    answered = dict(calls.answers(asked))
    assert {label: str(answer) for label, answer in answered.items()} == {
        **{"slow": "b", "fast": "a", "cut off": "d", "timeout": "of the hub", "broken": "e"}
    }
    assert list(answered)[-1] == "cut off" and 0 < sum(clock.pauses) < 60


def test_after_minutes_without_an_answer_nobody_knows(clock):
    asked = {"away": Call(1, AWAY), "cut off": Call(2, modal.exception.ServiceError("cut")), "done": Call(3, "yes")}
    answered = list(calls.answers(asked))
    assert answered[0] == ("done", "yes") and {label for label, _ in answered[1:]} == {"away", "cut off"}
    assert all(isinstance(answer, calls.Unanswered) for _, answer in answered[1:])
    assert calls.PATIENCE_S < clock.now < calls.PATIENCE_S + 60 and clock.pauses[2:6] == [1.0, 2.0, 4.0, 8.0]
    assert max(clock.pauses) == calls.LONGEST_PAUSE_S
    assert asked["away"].num_asked + asked["cut off"].num_asked < 60


def test_whatever_fails_is_reported(clock, capsys, monkeypatch):
    """What is printed of each kind of failure, with and without --detach."""
    printed = []
    done = cloud_jobs.Result("done", ("some/result.json",))
    replies = [done, RuntimeError("out of\nmemory"), AWAY, None]
    names = ("done", "broken", "away", "refused")

    def spawn(number):
        printed.append(capsys.readouterr().out)
        if replies[number] is None:
            raise modal.exception.ResourceExhaustedError("too many")
        return Call(number, replies[number])

    jobs = [cloud_jobs.Job(name, (number,)) for number, name in enumerate(names)]
    monkeypatch.setattr(modal_app, "register", {})
    started = modal_app.start("training", SimpleNamespace(spawn=spawn), jobs)
    assert printed[0].startswith("app None; its logs: modal app logs")
    assert printed[1:] == [f"started {name} (fc-{number})\n" for number, name in enumerate(names[:-1])]  # one by one
    assert list(modal_app.register) == [f"training of {name}" for name in names[:-1]]
    for is_detached, fate in (
        (True, "call fc-2 may still be running, and the same command waits for it"),
        (False, "without --detach it ends with this command; the same command starts it again, where it was saved"),
    ):
        options = {"detach": is_detached, "env": "dev" if is_detached else None}
        monkeypatch.setattr(modal_app, "run_option", options.get)
        capsys.readouterr()
        assert cloud_jobs.report(modal_app.wait(started), modal_app.way_to_download()) == 1
        assert capsys.readouterr().out.splitlines() == [
            "done 2/4: done",
            "not done 3/4: broken",
            "not done 4/4: away",
            "download: python modal_app.py download" + " --env dev" * is_detached,
            "failed: broken: RuntimeError: out of memory",
            f"unknown: away: ConnectionError: gone; {fate}",
            "failed: refused: ResourceExhaustedError: too many",
            "1 of 4 jobs done",
        ]
    assert cloud_jobs.report([], "") == 0  # nothing to do


def test_work_that_is_going_on_is_not_started_again(monkeypatch, capsys):
    known = {"fc-1": Call(1, RUNS), "fc-2": Call(2, "done"), "fc-3": Call(3, AWAY)}
    monkeypatch.setattr(modal.FunctionCall, "from_id", known.get)
    register = {}

    def start(*arguments):
        spawned = Call(9, RUNS)
        call, is_new = calls.start("a job", lambda *_: spawned, arguments, register, "ap-1")
        assert is_new == (call is spawned)
        return call.object_id

    assert start("x") == "fc-9" and register["a job"]["call"] == "fc-9"
    register["a job"]["call"] = "fc-1"
    assert start("x") == "fc-1"
    with pytest.raises(InputError, match=r"call fc-1 is at work on it with other settings; .*: modal app stop ap-1"):
        start("y")
    register["a job"]["call"] = "fc-3"
    with pytest.raises(modal.exception.ConnectionError):  # it may be running
        start("x")
    register["a job"]["call"] = "fc-2"
    assert start("y") == "fc-9"

    class Full(dict):
        def __setitem__(self, key, value):
            raise OSError("no space")

    register = Full()
    assert start("x") == "fc-9" and "call fc-9 could not be noted (OSError: no space)" in capsys.readouterr().out


def test_machines_and_their_prices():
    assert [hardware.parse_gpu(name) for name in ("none", "t4", "L4", "a100-40gb")] == [None, "T4", "L4", "A100-40GB"]
    t4 = hardware.Machine("T4", 1.0, 3072)
    assert t4.dollars_per_hour == pytest.approx(0.59 + 0.0472 + 3 * 0.0080)
    with_gpu, note = hardware.cost_lines(t4, "T4")
    assert with_gpu.startswith("each on a T4, 1 core, 3 GiB: 0.66 dollars an hour; with --gpu none: 0.07 (")
    assert hardware.PUBLISHED in with_gpu and note.startswith("not measured")
    (without, _) = hardware.cost_lines(hardware.Machine(None, 1.0, 3072), "T4")
    assert without.startswith("each on no GPU, 1 core, 3 GiB: 0.07 dollars an hour; with --gpu T4: 0.66 (")


class Volume:
    """A volume of a few files."""

    def __init__(self, **files: tuple[int, bytes]):
        """files: path with __ for a slash -> time (s) and content."""
        self.files = {name.replace("__", "/"): file for name, file in files.items()}

    def listdir(self, path, *, recursive):
        assert path == "/" and recursive
        kinds = modal.types.FileEntryType
        yield SimpleNamespace(path="a", type=kinds.DIRECTORY, mtime=0, size=0)
        for name, (mtime, content) in self.files.items():
            yield SimpleNamespace(path=name, type=kinds.FILE, mtime=mtime, size=len(content))

    def read_file_into_fileobj(self, path, file):
        file.write(self.files[path][1])


def test_a_download_replaces_what_is_older_and_nothing_else(here, capsys):
    there = {"a__missing": (50, b"new"), "a__older": (50, b"new"), "a__newer": (50, b"other"), "a__same": (50, b"new")}
    there |= {"a__cut": (50, b"new"), "training_state.pt": (50, b"big"), "a__first": (50, b"says so")}
    Path("a").mkdir()
    for name, mtime, content in (
        *(
            ("older", 40, "old"),
            ("newer", 60, "mine"),
            ("same", 50, "new"),
            ("cut", 50, "ne"),
            ("only here", 1, "mine"),
        ),
    ):
        Path("a", name).write_text(content)
        os.utime(Path("a", name), (mtime, mtime))
    done = download.download(Volume(**there), Path(), {"training_state.pt"}, "first")
    assert [path.name for path in done.new] == ["cut", "missing", "older", "first"]  # the last says that all are there
    assert (done.num_files, done.kept) == (6, (Path("a/newer"),))
    contents = {path.name: path.read_text() for path in Path("a").iterdir()}
    assert contents == {
        **{"older": "new", "newer": "mine", "same": "new", "cut": "new", "only here": "mine", "missing": "new"},
        "first": "says so",
    }
    assert Path("a/older").stat().st_mtime == 50
    again = download.download(Volume(**there), Path(), {"training_state.pt"})
    assert again.new == () and again.kept == done.kept


def test_a_pre_empted_training_is_saved_and_goes_on(here, tiny_run):
    (job,) = cloud_jobs.plan_trainings("train_mop.py", TINY_TASK, "0", "", EXTRA_ARGS)
    folder = here / "modal_checkpoints" / TINY_TASK / "trial_0"
    saved = []

    def on_save():
        saved.append(set(files_below(folder)))

    step_update = ImitationRun.step_update

    def step_and_pre_empt(run):
        if run.update == 2:  # Modal's first signal comes in the middle of an update
            os.kill(os.getpid(), signal.SIGINT)
        return step_update(run)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ImitationRun, "step_update", step_and_pre_empt)
        cloud_jobs.train(*job.arguments, on_save)
    assert len(saved) == 2 and saved[-1] == {"training_log.csv", "training_state.pt"}  # no result of its own
    assert load_training_state(folder / "training_state.pt")["update"] == 3
    result = cloud_jobs.train(*job.arguments, on_save)  # the next attempt
    assert {Path(file).name for file in result.files} == RUN_FILES
    final = f"{TINY_TASK}/trial_0/checkpoint_final.pt"
    assert_same_weights(folder / "checkpoint_final.pt", tiny_run / "checkpoints" / final)


def test_no_deprecated_name_of_modal():
    code = "import modal_app"
    flags = ["-W", "error::UserWarning", "-W", "error::DeprecationWarning:modal_app"]
    result = subprocess.run([sys.executable, *flags, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


def test_a_log_file_gets_few_lines_of_progress(here):
    flags = [*TINY_FLAGS, "--num_updates", "60", "--log_interval", "1"]
    lines = {}
    for name, environment in (("terminal", {}), ("log", modal_app.FEW_LINES)):
        result = run_script("train_mop.py", *flags, "--checkpoint_dir", name, cwd=here, env=environment)
        assert result.returncode == 0, result.stderr
        lines[name] = len(re.findall(r"\d+/60 ", result.stderr))
    assert 1 <= lines["log"] <= 3 < lines["terminal"], lines


def test_dry_runs_without_an_account(here, capsys):
    upload_sources(here / "modal_checkpoints")
    result = run_script("modal_app.py", "--dry-run", "eval_main", "--trial", 0, cwd=here, env=without_account())
    assert result.returncode == 0 and result.stdout.endswith("3 jobs; none is started\n"), result.stderr
    calls = {
        ("--dry-run", "--task-ids", f"{GOTO},{UNLOCK}", "--trials", "0,1"): 4,
        ("eval_parallel", "--dry-run", "--task", UNLOCK): 1,
        ("eval_parallel", "--dry-run", "--no-force"): 5,
        ("eval_parallel", "--dry-run", "--interventions", "--final-only"): 4,
        ("--dry-run", "--task-ids", GOTO, "--extra-args", "--residual"): 1,
        ("main", "--extra-args", "--residual --lr 1e-3", "--task-ids", GOTO, "--dry-run"): 1,
    }
    for words, num_jobs in calls.items():
        capsys.readouterr()
        assert in_process(modal_app.run_command, *words) == 0
        out = capsys.readouterr().out
        assert out.endswith(f"{num_jobs} jobs; none is started\n")
        assert sum(line.startswith("BabyAI-") for line in out.splitlines()) == num_jobs
    for words, message in {
        ("--task-ids", GOTO): "add --dry-run to see the jobs; to start them: modal run modal_app.py::main ...",
        ("--dry-run",): "the following arguments are required: --task-ids",
        (
            "eval_paralel",
            "--dry-run",
        ): "unknown entry point 'eval_paralel'; it must be main, eval_parallel, eval_main, lmc, train_agent, ",
        ("--dry-run", "evals", "--trial", "0"): "unknown entry point 'evals'",
        ("--dry-run", "--task-ids", GOTO, "--extra-args"): "argument --extra-args: expected one argument",
        ("eval_main", "--dry-run", "--trial", "x"): "argument --trial: invalid int value: 'x'",
    }.items():
        assert in_process(modal_app.run_command, *words) == 2 and message in the_error_line(capsys.readouterr().err)
    assert in_process(modal_app.run_command, "eval_main", "--help") == 0


# --- the real command against the stand-in --------------------------------------------------------------------------


def num_overlaps(events: list[dict], function: str) -> int:
    """Containers that started while another one of the function was running."""
    times = {event["container"]: [event["time"]] for event in of(events, "start", function)}
    for event in of(events, "end", function):
        times[event["container"]].append(event["time"])
    return sum(any(a[0] < b[0] < a[1] for a in times.values()) for b in times.values())


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(path)["policy_state_dict"]


def assert_same_weights(one: Path, other: Path) -> None:
    one, other = weights(one), weights(other)
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_stand_in_notices_writing_to_a_mount_for_reading(tmp_path):
    volumes = {"vo-1": tmp_path / "one", "vo-2": tmp_path / "two"}
    for folder in volumes.values():
        folder.mkdir()
        (folder / "file").write_text("committed")
    mounts = [
        api_pb2.VolumeMount(volume_id="vo-1", mount_path="/root/one", read_only=True),
        api_pb2.VolumeMount(volume_id="vo-2", mount_path="/root/two"),
    ]
    container = modal_stand_in.Container("ak-1", tmp_path, api_pb2.Function(volume_mounts=mounts), volumes)
    for name in ("two", "one"):
        assert container.must_not_have_written() == []
        (container.home / name / "new").write_text("")
    assert container.must_not_have_written() == ["/root/one"]


def test_trainings(remote, tiny_run):
    words = ("--task-ids", f"{TINY_TASK},{OTHER_TASK}", "--trials", "0,1", "--extra-args", EXTRA_ARGS)
    code, output, events = remote.run("main", "--detach", *words, "--script", "train_mop.py")
    assert code == 0, output + remote.logs()
    assert "4 of 4 jobs done" in output and [event["detached"] for event in of(events, "app")] == [True]
    assert len(of(events, "call")) == len(of(events, "call", "train")) == 4 and num_overlaps(events, "train") >= 1
    folders = [f"{task}/trial_{trial}" for task in (TINY_TASK, OTHER_TASK) for trial in (0, 1)]
    expected = {f"{folder}/{name}" for folder in folders for name in RUN_FILES}
    assert set(files_below(remote.volume("rl-mop"))) == expected | {f"{folder}/training_state.pt" for folder in folders}
    assert_files_are_their_own(events)
    assert remote.download() == {f"modal_checkpoints/{file}" for file in expected} and remote.download() == set()
    final = "trial_0/checkpoint_final.pt"
    here, there = remote.here / "modal_checkpoints", tiny_run / "checkpoints"
    assert_same_weights(here / TINY_TASK / final, there / TINY_TASK / final)
    assert load_checkpoint(here / OTHER_TASK / final)["config"]["task_id"] == OTHER_TASK

    # the machine and the image that the jobs asked for
    functions = {event["name"]: event for event in of(events, "function")}
    assert functions.keys() >= {"learn_game", "learn_worlds"}  # see tests/generative/test_cloud.py
    functions = {name: function for name, function in functions.items() if not name.startswith("learn_")}
    of_lmc = {"train_fork", "walk_paths", "analyze_seeds"}
    (image_of_lmc,) = {functions.pop(name)["image"] for name in of_lmc}  # see test_linear_mode_connectivity
    layers, mounts = layers_of(events, image_of_lmc)
    copied = {path for layer in layers for path in mounts.get(layer["context"], [])}
    needed = in_container(imported_by(REPOSITORY / "modal_app.py"))
    needed = {path for path in needed if not path.startswith("/root/generative/")}
    assert needed - copied == {"/root/modal_app.py"}
    assert set(functions) == {"train", "evaluate", "evaluate_in_turn", "intervene", "merge"}
    resources = {name: (f["gpu"], f["milli_cpu"], f["memory_mib"]) for name, f in functions.items()}
    machine = ("", 1000 * modal_app.CPUS, modal_app.MEMORY_MIB)
    small = ("", 1000 * modal_app.MERGE_CPUS, modal_app.MERGE_MEMORY_MIB)
    assert resources == dict.fromkeys(functions, machine) | {"merge": small}
    assert of(events, "variant") == []  # --device cpu needs no GPU
    limits = {name: (f["timeout_s"], f["startup_timeout_s"], f["retries"]) for name, f in functions.items()}
    common = (modal_app.STARTUP_TIMEOUT_S, modal_app.RETRIES.max_retries)
    evaluating = (modal_app.EVAL_TIMEOUT_S, *common)
    assert limits["train"] == (modal_app.TRAIN_TIMEOUT_S, *common) == limits["merge"] == limits["intervene"]
    assert limits["evaluate"] == limits["evaluate_in_turn"] == evaluating
    evaluates = {"/root/modal_checkpoints": True, "/root/evaluation": False}  # mount: for reading alone
    assert {name: f["mounts"] for name, f in functions.items()} == {
        **{"train": {"/root/modal_checkpoints": False}, "merge": {"/root/evaluation": False}},
        **{"evaluate": evaluates, "evaluate_in_turn": evaluates, "intervene": evaluates},
    }
    train = functions["train"]
    check_image(events, train["image"])

    # the same again goes on with nothing; other settings are refused by the run itself
    code, output, events = remote.run("main", "--task-ids", TINY_TASK, "--extra-args", f"{EXTRA_ARGS} --lr 0.5")
    assert code == 1 and re.search(rf"failed: {TINY_TASK} trial 0: the run in .* has lr 0.001, not 0.5", output)
    assert "0 of 1 jobs done" in output and "download:" not in output and of(events, "commit") == []
    assert [event["attempt"] for event in of(events, "start", "train")] == [0]  # it would be refused again


def check_image(events: list[dict], image: str) -> None:
    """The layers of an image: pinned packages, every module that is imported, the encoder, the kernels."""
    layers, mounts = layers_of(events, image)
    assert re.match(r"FROM python:3\.11\b", layers[0]["commands"][0])
    assert any((REPOSITORY / "requirements.txt").read_text() in layer["files"].values() for layer in layers)
    assert ["/root/modal_app.py"] in mounts.values()  # Modal adds it by itself
    copied, ran = set(), []
    for layer in layers:
        copied |= set(mounts.get(layer["context"], []))
        for code in re.findall(r"^RUN python -c '(.*)'$", "\n".join(layer["commands"]), re.MULTILINE):
            (module,) = re.findall(r"import ([\w.]+)", code)
            needed = in_container(imported_by(REPOSITORY / f"{module.replace('.', '/')}.py"))
            assert needed <= copied and ("/root/config.yaml" in copied or module == "mop.envs.missions")
            ran += names_called(code)
    assert ran == [("load_encoder", "distilbert-base-uncased"), ("warm_up",)]  # the second: modal_preload calls it too
    needed = in_container(imported_by(REPOSITORY / "modal_app.py"))
    theirs = ("/root/lmc_rl/", "/root/generative/")  # the jobs with these have images of their own
    needed = {path for path in needed if not path.startswith(theirs)}
    assert needed - copied == {"/root/modal_app.py"} and len(needed) >= 25
    commands = [command for layer in layers for command in layer["commands"]]
    assert {"ENV TQDM_MININTERVAL=60", "ENV TQDM_MAXINTERVAL=60"} <= set(commands)
    assert any(modal_app.WANDB in command for command in commands)
    assert commands.index("ENV HF_HOME=/opt/huggingface") < next(k for k, c in enumerate(commands) if "encoder" in c)


def names_called(code: str) -> list[tuple]:
    """Run a command of the image's with the slow functions replaced; their names and arguments."""
    called = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(missions, "load_encoder", lambda *arguments: called.append(("load_encoder", *arguments)))
        patch.setattr(cloud_jobs, "warm_up", lambda *arguments: called.append(("warm_up", *arguments)))
        exec(code, {})
    return called


def test_a_killed_training_goes_on_where_it_was(remote, tiny_run):
    remote.kill("train", commit=3)  # after those of the beginning and of update 2
    words = ("--task-ids", TINY_TASK, "--extra-args", f"{EXTRA_ARGS} --checkpoint_interval 2")
    code, output, events = remote.run("main", *words)
    assert code == 0, output + remote.logs()
    assert [event["attempt"] for event in of(events, "start")] == [0, 1] and len(of(events, "kill")) == 1
    assert f"resuming {TINY_TASK} trial 0 at update 2 of 6" in remote.logs()
    run = f"{TINY_TASK}/trial_0"
    folder = remote.volume("rl-mop") / run
    assert set(files_below(folder)) == RUN_FILES | {"training_state.pt", "checkpoint_2.pt", "checkpoint_4.pt"}
    assert_same_weights(folder / "checkpoint_final.pt", tiny_run / "checkpoints" / run / "checkpoint_final.pt")


def table_of(path: Path) -> pd.DataFrame:
    return pd.read_csv(path).drop(columns="evaluated_at")


def cache_of(path: Path) -> dict:
    return {name: value for name, value in json.loads(path.read_text()).items() if name != "evaluated_at"}


def test_evaluations_of_what_is_missing(remote, monkeypatch):
    files = upload_sources(remote.here / "modal_checkpoints")
    remote.upload()
    few = ("--num-episodes", 3)
    code, output, events = remote.run("eval_parallel", *few, "--task", UNLOCK)
    assert code == 0, output + remote.logs()
    assert [event["function"] for event in of(events, "call")] == ["evaluate", "merge"]
    folder = f"evaluation_cache/{UNLOCK}/trial_2"
    names = ("result.json", "routing_data.json", "routing_data.npz")
    assert remote.download() == {f"{folder}/{name}" for name in names}

    # of the four others one is damaged, and one job is killed once
    damaged = files.pop(f"{GOTO} trial 1")
    damaged.write_bytes(damaged.read_bytes()[:-100])
    remote.upload()
    remote.kill("evaluate", commit=1)
    code, output, events = remote.run("eval_parallel", *few)
    assert code == 1 and "5 checkpoints, 4 to evaluate" in output and "3 of 4 jobs done" in output
    assert re.findall(r"failed: (.*?):", output) == [f"{GOTO} trial 1"] and "the file is cut short" in output
    assert [event["function"] for event in of(events, "call")] == ["evaluate"] * 4 + ["merge"]
    attempts = [event["attempt"] for event in of(events, "start", "evaluate")]
    assert sorted(attempts) == [0, 0, 0, 0, 1] and len(of(events, "kill")) == 1
    assert num_overlaps(events, "evaluate") >= 1
    assert_files_are_their_own(events)
    results = {f"evaluation_cache/{RunKey.from_checkpoint(path).artefacts('').as_posix()}" for path in files.values()}
    made = {f"{folder}/{name}" for folder in results for name in names}
    assert set(files_below(remote.volume("rl-mop-eval"))) == {"evaluation_results.csv"} | made and len(made) == 4 * 3
    assert len(remote.download()) == 3 * 3

    # the same rows and caches as those that are made here
    damaged.unlink()
    monkeypatch.chdir(remote.here)
    monkeypatch.setattr(
        sys, "argv", ["batch_eval.py", "--num_episodes", "3", "--cache_dir", "other", "--results_path", "other.csv"]
    )
    assert batch_eval.main() == 0
    pd.testing.assert_frame_equal(table_of(Path("evaluation_results.csv")), table_of(Path("other.csv")))
    assert len(table_of(Path("other.csv"))) == len(results) == 4
    for result in results:
        path = Path(result, "routing_data.json")
        assert cache_of(path) == cache_of("other" / path.relative_to("evaluation_cache"))

    # nothing is missing now, and no job is started; --force starts some
    code, output, events = remote.run("eval_parallel", *few)
    assert code == 0 and "4 checkpoints, 0 to evaluate" in output and of(events, "call") == []
    code, output, events = remote.run("eval_parallel", "--num-episodes", 4, "--force", "--trial", 0, "--final-only")
    assert code == 0 and len(of(events, "call", "evaluate")) == 2, output
    remote.download()
    num_episodes = pd.read_csv("evaluation_results.csv").set_index("checkpoint_path")["num_episodes"].to_dict()
    forced = [path.relative_to(remote.here).as_posix() for label, path in files.items() if label in output]
    assert len(num_episodes) == 4 and sorted(path for path, n in num_episodes.items() if n == 4) == sorted(forced)

    # a job that dies whenever it is tried is given up, and the older result stays
    volume = remote.volume("rl-mop-eval")
    before = {file: (volume / file).read_bytes() for file in files_below(volume)}
    remote.kill("evaluate", commit=1, times=99)
    code, output, events = remote.run("eval_parallel", *few, "--force", "--task", UNLOCK)
    assert code == 1 and f"failed: {UNLOCK} trial 2: RuntimeError: the container ended with -9" in output
    assert [event["attempt"] for event in of(events, "start", "evaluate")] == [0, 1, 2, 3]
    assert before == {file: (volume / file).read_bytes() for file in before}


def test_one_policy_of_several_tasks(remote):
    """Trained in one container, evaluated in one for each task; nothing is missing then."""
    path = remote.here / "tasks.yaml"
    path.write_text(f"{GOTO}: 1\n{UNLOCK}: 3\n")
    code, output, _ = remote.run("main", "--task-ids", "two", "--extra-args", f"{EXTRA_ARGS} --tasks {path}")
    assert code == 0 and "1 of 1 jobs done" in output, output + remote.logs()
    assert remote.download() == {f"modal_checkpoints/two/trial_0/{name}" for name in RUN_FILES}
    config = load_checkpoint(remote.here / "modal_checkpoints/two/trial_0/checkpoint_final.pt")["config"]
    assert (config["task_id"], config["tasks"]) == ("two", [[GOTO, 1.0], [UNLOCK, 3.0]])
    code, output, events = remote.run("eval_parallel", "--num-episodes", 2)
    assert code == 0 and "2 checkpoints, 2 to evaluate" in output and "2 of 2 jobs done" in output
    assert [event["function"] for event in of(events, "call")] == ["evaluate"] * 2 + ["merge"]
    assert_files_are_their_own(events)
    names = ("result.json", "routing_data.json", "routing_data.npz")
    folders = [f"evaluation_cache/two/trial_0/{task_id}" for task_id in (GOTO, UNLOCK)]
    assert remote.download() == {f"{folder}/{name}" for folder in folders for name in names}
    table = pd.read_csv(remote.here / "evaluation_results.csv")
    assert table[["task_id", "trained_on"]].values.tolist() == [[GOTO, "two"], [UNLOCK, "two"]]
    code, output, events = remote.run("eval_parallel", "--num-episodes", 2)
    assert code == 0 and "2 checkpoints, 0 to evaluate" in output and of(events, "call") == []


def test_interventions_of_what_is_missing(remote):
    """A job that is killed goes on behind the rows that are on the volume; the tables are merged here."""
    upload_sources(remote.here / "modal_checkpoints")
    remote.upload()
    remote.kill("intervene", commit=3)
    words = ("--interventions", "--num-episodes", 2, "--task", GOTO, "--seed", 7, "--final-only")
    code, output, events = remote.run("eval_parallel", *words)
    assert code == 0 and "1 mixtures, 1 to intervene on" in output, output + remote.logs()
    assert [event["function"] for event in of(events, "call")] == ["intervene"]
    assert [event["attempt"] for event in of(events, "start", "intervene")] == [0, 1] and len(of(events, "kill")) == 1
    assert remote.download() == {f"evaluation_cache/{GOTO}/trial_0/seed_7/interventions.jsonl"}
    table = table_of(remote.here / "intervention_results.csv")
    assert len(table) >= 20 and set(table["num_episodes"]) == {2} and not table["success_rate"].isna().any()
    assert not table.duplicated(["intervention", "variant"]).any()
    code, output, events = remote.run("eval_parallel", *words)
    assert code == 0 and "1 mixtures, 0 to intervene on" in output and of(events, "call") == []


def test_a_command_that_is_given_again_waits_for_the_same_calls(remote, tiny_run):
    words = ("--task-ids", TINY_TASK, "--trials", "0", "--extra-args", EXTRA_ARGS)
    (remote.folder / "hold").touch()
    first = remote.start("main", "--detach", *words)
    until(lambda: of(remote.events(), "call"))
    until(lambda: remote.dict_entries() == 1)
    first.kill()
    first.communicate()
    code, output, events = remote.run("main", *words[:-1], f"{EXTRA_ARGS} --lr 0.5")
    assert code == 1 and of(events, "call") == []
    assert re.search(
        rf"failed: {TINY_TASK} trial 0: call fc-\d+ is at work on it with other settings; .*ap-\d+", output
    )
    num_asked = len(of(remote.events(), "not yet"))
    second = remote.start("main", "-e", remote.folder.name, *words)
    until(lambda: len(of(remote.events(), "not yet")) > num_asked)  # it has found the call, and at work
    (remote.folder / "hold").unlink()
    out, err = second.communicate(timeout=PATIENCE_S)
    assert second.returncode == 0, out + err + remote.logs()
    assert f"running already: {TINY_TASK} trial 0 (fc-" in out and f"done 1/1: {TINY_TASK} trial 0" in out
    for command in ("logs", "stop"):
        assert re.search(rf"modal app {command} -e {remote.folder.name} (-f )?ap-\d+", out)
    assert f"download: python modal_app.py download --env {remote.folder.name}" in out
    assert len(of(remote.events(), "call")) == len(of(remote.events(), "start")) == 1
    final = f"{TINY_TASK}/trial_0/checkpoint_final.pt"
    assert_same_weights(remote.volume("rl-mop") / final, tiny_run / "checkpoints" / final)
    # what has ended is no longer waited for
    code, output, events = remote.run("main", *words)
    assert code == 0 and "started" in output and len(of(events, "call")) == 1 and "is trained already" in remote.logs()


def test_a_gap_in_the_network_costs_nothing(remote):
    (remote.folder / "gap").write_text(str(time.time() + 600))
    (remote.folder / "hold").touch()
    process = remote.start("main", "--task-ids", TINY_TASK, "--trials", "0,1", "--extra-args", EXTRA_ARGS)
    until(lambda: len(of(remote.events(), "cut off")) > 8)  # the client by itself tries 4 times
    (remote.folder / "gap").unlink()
    (remote.folder / "hold").unlink()
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0 and "unknown" not in out and "2 of 2 jobs done" in out, out + err
    assert len(of(remote.events(), "call")) == 2
    lines = re.findall(r"^(done \d/\d): (.*)$", out, re.MULTILINE)
    assert [start for start, _ in lines] == ["done 1/2", "done 2/2"]
    assert {label for _, label in lines} == {f"{TINY_TASK} trial 0", f"{TINY_TASK} trial 1"}


def test_machines_by_flag(remote):
    put(remote.here / "modal_checkpoints", random_checkpoint(), trial=9)
    remote.upload()
    (remote.folder / "secrets").write_text("mine\nhub")
    on_any = re.sub("--device \\w+", "", EXTRA_ARGS)
    training = ("--task-ids", TINY_TASK, "--extra-args")
    evaluation = ("--num-episodes", 2, "--skip-routing", "--force")
    expected = {
        ("main", *training, on_any): ("T4", []),
        ("main", *training, on_any, "--gpu", "L4", "--trials", "1"): ("L4", []),
        ("main", *training, on_any, "--gpu", "none", "--trials", "2"): None,
        ("main", *training, on_any, "--gpu", "none", "--trials", "3", "--secrets", "mine, hub"): ("", ["mine", "hub"]),
        ("eval_parallel", *evaluation): None,
        ("eval_main", *evaluation, "--gpu", "T4", "--secrets", "hub"): ("T4", ["hub"]),
    }
    for words, variant in expected.items():
        code, output, events = remote.run(*words)
        machine = f"a {variant[0]}" if variant and variant[0] else "no GPU"
        assert code == 0 and f"each on {machine}, 1 core, 3 GiB: " in output, output + remote.logs()
        found = [(event["gpu"], event["secrets"]) for event in of(events, "variant")]
        assert found == ([variant] if variant else []), words
        for event in of(events, "variant"):
            assert (event["milli_cpu"], event["memory_mib"]) == (1000 * modal_app.CPUS, modal_app.MEMORY_MIB)
            evaluates = {"/root/modal_checkpoints": True, "/root/evaluation": False}
            assert event["mounts"] == (evaluates if words[0] == "eval_main" else {"/root/modal_checkpoints": False})
    code, output, events = remote.run("main", *training, EXTRA_ARGS, "--secrets", "yours")
    assert code == 2 and "--secrets: yours: " in output and "modal secret create yours KEY=VALUE" in output
    assert of(events, "call") == []
    code, output, events = remote.run(
        "main", *training, f"{EXTRA_ARGS} --wandb_project p", "--secrets", "mine", "--trials", 4
    )
    assert "Weights & Biases: pip install wandb" in output and code == 1  # it is in the image, and not here


def test_results_are_merged_without_anybody_waiting(remote):
    """Also: a table that another program made is kept."""
    put(remote.here / "modal_checkpoints", random_checkpoint())
    remote.upload()
    volume = remote.volume("rl-mop-eval")
    volume.mkdir(parents=True)
    foreign = "checkpoint_path,success_rate\nold.pt,0.5\n"
    (volume / "evaluation_results.csv").write_text(foreign)
    (remote.folder / "hold").touch()
    process = remote.start("eval_parallel", "--detach", "--num-episodes", "2", "--skip-routing")
    until(lambda: len(of(remote.events(), "call")) == 2)
    process.kill()
    process.communicate()
    assert [event["function"] for event in of(remote.events(), "call")] == ["evaluate", "merge"]
    assert (volume / "evaluation_results.csv").read_text() == foreign
    (remote.folder / "hold").unlink()
    until(lambda: of(remote.events(), "end", "merge"))
    assert len(table_of(volume / "evaluation_results.csv")) == 1
    (kept,) = volume.glob("evaluation_results.2*.csv")
    assert kept.read_text() == foreign
    assert kept.name in remote.download()
    assert len(table_of(remote.here / "evaluation_results.csv")) == 1
    # what is here besides stays in the merged table
    other = load_result(remote.here / f"evaluation_cache/{GOTO}/trial_0/result.json") | {"trial": 5}
    other["checkpoint_path"] = other["checkpoint_path"].replace("trial_0", "trial_5")
    path = remote.here / f"evaluation_cache/{GOTO}/trial_5/result.json"
    path.parent.mkdir()
    path.write_text(json.dumps(other))
    assert remote.download() == set() and set(table_of(remote.here / "evaluation_results.csv")["trial"]) == {0, 5}


def test_a_download_of_large_files_and_of_nothing(remote, capsys):
    assert remote.download() == set()  # no volume yet
    volume = remote.volume("rl-mop") / TINY_TASK / "trial_0"
    volume.mkdir(parents=True)
    content = bytes(range(256)) * (70 * 1024)  # three blocks
    (volume / "checkpoint_final.pt").write_bytes(content)
    (volume / "training_log.csv").write_bytes(b"")
    (volume / "training_state.pt").write_bytes(b"state")
    names = {f"modal_checkpoints/{TINY_TASK}/trial_0/{name}" for name in ("checkpoint_final.pt", "training_log.csv")}
    assert remote.download() == names and len(content) > 2 * modal_stand_in.BLOCK_SIZE
    assert (remote.here / min(names)).read_bytes() == content
    assert set(files_below(remote.here)) == names
    result = run_script("modal_app.py", "download", cwd=remote.here, env=without_account())
    assert result.returncode == 2 and "volume rl-mop: AuthError: " in the_error_line(result.stderr)


def test_evaluations_one_after_another(remote):
    files = upload_sources(remote.here / "modal_checkpoints")
    files[f"{GOTO} trial 0"].write_bytes(b"PK")
    remote.upload()
    words = ("--num-episodes", 3, "--task", GOTO, "--skip-routing")
    code, output, events = remote.run("eval_main", *words)
    assert code == 1 and "4 checkpoints, 4 to evaluate" in output and "3 of 4 jobs done" in output, output
    assert re.findall(r"failed: (.*?):", output) == [f"{GOTO} trial 0"]
    assert [event["function"] for event in of(events, "call")] == ["evaluate_in_turn"] * 4 + ["merge"]
    assert num_overlaps(events, "evaluate_in_turn") == 0
    names = ("trial_0/seed_7", "trial_0/update_5", "trial_1")
    results = [f"evaluation_cache/{GOTO}/{name}/result.json" for name in names]
    assert remote.download() == set(results)
    assert len(table_of(remote.here / "evaluation_results.csv")) == 3
    code, output, events = remote.run("eval_main", *words, "--final-only", "--seed", 7)
    assert code == 0 and "1 checkpoints, 0 to evaluate" in output and of(events, "call") == []


def test_help_dry_run_and_refusals(remote):
    upload_sources(remote.here / "modal_checkpoints")
    flags = {
        "main": [
            *("--task-ids", "--trials", "--seeds", "--script", "--extra-args", "--gpu", "--secrets", "--dry-run"),
        ],
        "eval_parallel": [
            *("--num-episodes", "--force", "--task", "--trial", "--seed", "--update", "--final-only", "--skip-routing"),
            *("--gpu", "--secrets", "--dry-run"),
        ],
    }
    flags["eval_main"] = list(flags["eval_parallel"])
    flags["eval_parallel"].append("--interventions")
    flags["lmc"] = ["--env", "--algo", "--seeds", "--fork-points", "--extra-args", "--gpu", "--secrets", "--dry-run"]
    helps = {name: remote.start(name, "--help") for name in flags}
    for name, process in helps.items():
        out, err = process.communicate()
        assert process.returncode == 0 and all(f"{flag} " in out for flag in flags[name]), out + err
    dry = {
        "main": ("--task-ids", GOTO, "--trials", "0,1,2"),
        "eval_parallel": ("--task", UNLOCK),
        "eval_main": (),
    }
    dry_runs = {name: remote.start(name, *words, "--dry-run") for name, words in dry.items()}
    for process, num_jobs in zip(dry_runs.values(), (3, 1, 5), strict=True):
        out, err = process.communicate()
        assert process.returncode == 0 and f"{num_jobs} jobs; none is started" in out, out + err
    refused = {
        ("main", "--task-ids", "BabyAI-Nothing-v0"): "unknown task id 'BabyAI-Nothing-v0'",
        ("main", "--task-ids", GOTO, "--script", "batch_eval.py"): "--script must be train_mop.py or train.py",
        ("main", "--task-ids", GOTO, "--extra-args", "--lpc_alfa 1"): "unrecognized arguments: --lpc_alfa 1",
        ("main", "--task-ids", GOTO, "--trials", "first"): "--trials must be numbers",
    }
    processes = {words: remote.start(*words) for words in refused}
    for words, process in processes.items():
        out, err = process.communicate()
        assert process.returncode == 2 and refused[words] in the_error_line(err), out + err
    events = remote.events()
    assert of(events, "call") == of(events, "start") == [] and len(of(events, "app")) == 3 + 4


# --- linear mode connectivity -----------------------------------------------------------------------------------------

LMC_ARGS = " ".join(f"--{name} {value}" for name, value in TINY.items() if name not in ("seed", "fork_points"))
LMC_FLAGS = ("--fork-points", "0.5", "--extra-args", f"{LMC_ARGS} --controls self --experiment_name c")


def test_a_wrong_experiment_is_refused():
    lmc = modal_app.ENTRY_POINTS["lmc"]
    wrong = {
        "--env 'Nope-v1' is unknown": {"env": "Nope-v1"},
        "algo must be SAC or DDPG, not 'TD3'": {"algo": "TD3"},
        "--seeds must be numbers such as 0,1,2, not '1,x'": {"seeds": "1,x"},
        "--seeds is empty": {"seeds": " "},
        "fork_points must be fractions between 0 and 1": {"fork_points": "0.5,1"},
        "--extra-args: unrecognized arguments: --gama": {"extra_args": "--gama 1"},
        "--extra-args: jobs is not free in the cloud": {"extra_args": "--jobs 2"},
        "DDPG has no ent_coef": {"algo": "DDPG", "extra_args": "--ent_coef 0.1"},
        "--gpu must be none": {"gpu": "T5"},
    }
    for message, flags in wrong.items():
        with pytest.raises(InputError) as caught:
            lmc(**flags)
        assert message in str(caught.value) and "\n" not in str(caught.value)
    assert len(wrong) == 9


def test_experiments_are_planned_in_stages(capsys):
    stages = plan("Hopper-v5", "SAC", "1,2", "0.1,0.5", "--children 3")
    assert [len(stage) for stage in stages] == [4, 14, 2, 1]
    shared = plan("Hopper-v5", "SAC", "1", "0.1,0.5", "--fork_buffer_strategy shared --controls none")
    assert [[piece.job.label.split()[1] for piece in stage] for stage in shared] == [
        ["parent"], ["children_0", "children_1"], ["paths"], []
    ]  # fmt: skip
    parent, child = shared.parents[0], shared.children[1]
    assert child.lacks(parent.makes) == [] and child.lacks(parent.makes[:-1]) == [parent.makes[-1]]
    (paths,) = shared.paths
    assert not paths.is_done(paths.needs) and set(paths.needs) == {
        name for piece in shared.children for name in piece.makes
    }
    assert plan("Hopper-v5", "SAC", "1", "", "") == plan("Hopper-v5", "SAC", "1", "", "")
    assert plan("Hopper-v5", "SAC", "1", "", "--gamma 0.9").parents != plan("Hopper-v5", "SAC", "1", "", "").parents
    words = ("lmc", "--dry-run", "--env", "Hopper-v5", "--seeds", "1", "--fork-points", "0.5")
    assert in_process(modal_app.run_command, *words) == 0
    assert capsys.readouterr().out.endswith(" paths (on no GPU)\n6 jobs; none is started\n")


def test_linear_mode_connectivity(remote, tmp_path):
    """Killed once, continued with one more seed: the same weights and rows as here, and nothing twice."""
    remote.kill("train_fork", commit=2)
    code, output, events = remote.run("lmc", "--seeds", "5", *LMC_FLAGS)
    assert code == 0 and "5 of 5 jobs done" in output, output + remote.logs()
    functions = [event["function"] for event in of(events, "call")]
    assert functions == ["train_fork"] * 4 + ["walk_paths"] and len(of(events, "kill")) == 1
    code, output, events = remote.run("lmc", "--seeds", "5,6", *LMC_FLAGS)
    assert_files_are_their_own(events)
    assert code == 0 and "2 of this stage, 1 on the volume" in output and "6 of 6 jobs done" in output, output
    assert [event["function"] for event in of(events, "call")] == ["train_fork"] * 4 + ["walk_paths", "analyze_seeds"]
    code, output, events = remote.run("lmc", "--seeds", "5,6", *LMC_FLAGS)
    assert code == 0 and of(events, "call") == [] and "0 of 0 jobs done" in output

    copied = remote.download()
    assert not any("snapshot_" in name or "training_state" in name for name in copied)
    (cloud_results,) = (remote.here / "results").glob("c/*/SAC/seed_5_*")
    places = ExperimentPaths.of_results(run(tiny(fork_points="0.5", controls="self", output_dir=str(tmp_path / "own"))))
    theirs = ExperimentPaths.of_results(cloud_results)
    for name in ("final.pt", "fork1_0.pt", "fork2_0.pt", "self_0.pt"):
        assert_same_weights(theirs.weights / name, places.weights / name)
    rows = [read_rows(folder / ROWS_NAME) for folder in (theirs.results, places.results)]
    assert [row | {"run": ""} for row in rows[0]] == [row | {"run": ""} for row in rows[1]]
    (table,) = (remote.here / "results").glob("c/*/SAC/all_*/instability.md")
    assert "| 50% | 2 |" in table.read_text() and (table.parent / "instability_over_time.png").exists()
    assert len(find_experiments(remote.here / "results")) == 2


def test_what_an_experiment_needs_and_lacks_is_not_started(remote):
    remote.kill("train_fork", commit=1, times=99)
    code, output, events = remote.run("lmc", "--seeds", "5", *LMC_FLAGS)
    assert code == 1 and [event["function"] for event in of(events, "call")] == ["train_fork"]
    assert "child_0_1: it needs model_weights/c/" in output and "0 of 5 jobs done" in output
