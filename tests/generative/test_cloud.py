"""Agents of games and simulators in the cloud: what is planned and refused; the real `modal run` and the stand-in."""

import re
import shutil
import sys

import pytest
import torch
from checks import files_below
from eval_helpers import in_process, the_error_line
from generative_data import tiny_pair
from modal_cloud import imported_by, in_container, layers_of, of
from scripts import REPOSITORY

from generative import cloud, train_gen_model
from mop.artifacts.checkpoints import load_checkpoint

modal_app = pytest.importorskip("modal_app")

GAME = (
    *("--num_envs", "2", "--num_val_envs", "0", "--num_steps", "16", "--num_features", "8", "--hidden_size", "8"),
    *("--num_epochs", "1", "--num_batches", "2", "--num_threads", "1", "--exp_name", "tiny", "--device", "cpu"),
    *("--num_timesteps", "128", "--num_checkpoints", "4"),
)
WORLDS = (
    *("--data_dir", "recordings/tiny", "--agent_file", "recordings/agent.pt", "--param_name", "small"),
    *("--batch_size", "4", "--num_sim_steps", "4", "--num_initializing_steps", "2", "--log_interval", "1"),
    *("--num_updates", "4", "--save_interval", "2", "--tgm_exp_name", "mine"),
)
AGENT_FOLDER = "procgen/coinrun/tiny/seed_0"


# --- without Modal --------------------------------------------------------------------------------------------------


def test_a_script_is_planned_with_its_own_flags():
    planned = cloud.plan("train_agent", ["--gpu", "A10G", "--param_name", "hard-rec", "--seed=3", "--resume"], "T4")
    name, label, folder, words = planned.job.arguments
    assert (name, label, folder) == ("train_agent", "coinrun test seed 3", "logs/procgen/coinrun/test/seed_3")
    assert words == ["--param_name", "hard-rec", "--seed=3", "--device", "gpu"]
    assert (planned.gpu, planned.secrets, planned.is_dry_run) == ("A10", "", False)
    given = ["--device", "auto", "--secrets", "a", "--dry-run"]
    planned = cloud.plan("train_agent", given, "T4")
    assert planned.job.arguments[3] == given[:2] and (planned.gpu, planned.secrets) == ("T4", "a")
    assert planned.is_dry_run
    assert cloud.plan("train_agent", ["--device", "cpu"], "T4").gpu is None  # it would be idle
    assert cloud.plan("train_agent", [], "none").job.arguments[3] == []
    planned = cloud.plan("train_gen_model", ["--data_dir", "recordings/of/X"], "none")
    assert planned.job.arguments[1:3] == ("simulator X", "simulators/X") and planned.gpu is None
    planned = cloud.plan("train_gen_model", [*WORLDS, "--gpu", "L4"], "none")
    assert planned.gpu == "L4" and planned.job.arguments[3] == [*WORLDS, "--device", "gpu"]


REFUSED = {
    ("train_agent", "--param_name", "huge"): "--param_name must be small-rec or ",
    ("train_agent", "--num_env", "2"): "unrecognized arguments: --num_env 2",
    ("train_agent", "--exp_name", "a/b"): "--exp_name must be the name of a folder",
    ("train_agent", "--gpu", "T5"): "--gpu must be none, T4, ",
    ("train_agent", "--device", "gpu", "--gpu", "none"): "--device gpu needs a GPU, and --gpu none asks for none",
    ("train_agent", "--output_dir", "x"): "--output_dir is not free in the cloud",
    ("train_agent", "--model_file", "/tmp/x.pt"): "--model_file must be a path below logs/ in the cloud, not /tmp/x.pt",
    ("train_agent", "--model_file", "logs/../x.pt"): "must be a path below logs/ in the cloud",
    ("train_gen_model",): "the following arguments are required: --data_dir",
    ("train_gen_model", "--data_dir", "data/X"): "--data_dir must be a path below recordings/ or logs/ in the cloud, ",
    ("train_gen_model", *WORLDS, "--lr", "fast"): "--lr must be a number, not 'fast'",
    ("train_gen_model", *WORLDS, "--lang_encoder", "x"): "--lang_encoder is not free in the cloud",
    ("train_gen_model", *WORLDS, "--agent_file", "x.pt"): "--agent_file must be a path below logs/ or recordings/ or ",
}


def test_flags_that_cannot_be_are_refused_in_one_line(capsys):
    for (name, *words), message in REFUSED.items():
        assert in_process(modal_app.run_command, name, "--dry-run", *words) == 2
        assert message in the_error_line(capsys.readouterr().err)
    assert len(REFUSED) == 13
    assert in_process(modal_app.run_command, "train_agent", "--exp_name", "x") == 2
    assert "modal run modal_app.py::train_agent ..." in the_error_line(capsys.readouterr().err)


def test_dry_runs_tell_job_and_price(capsys):
    assert in_process(modal_app.run_command, "train_agent", "--dry-run", "--gpu", "A10G", "--exp_name", "main") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("each on a A10, 4 cores, 8 GiB: 1.35 dollars an hour; with --gpu none: 0.25 (")
    assert lines[2:] == ["coinrun main seed 0 (on A10)", "1 jobs; none is started"]
    assert in_process(modal_app.run_command, "train_agent", "--help") == 0
    told = capsys.readouterr().out
    assert "--num_checkpoints" in told and "--gpu" in told


# --- the real command against the stand-in --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A tiny recording and its policy, in a folder that is only read."""
    return tiny_pair(tmp_path_factory.mktemp("recorded"))


def test_a_killed_simulator_ends_with_the_same_weights(remote, recorded, tmp_path):
    recording, checkpoint = recorded
    volume = remote.volume("rl-mop-recordings")
    shutil.copytree(recording.folder, volume / "tiny")
    shutil.copyfile(checkpoint, volume / "agent.pt")
    remote.kill("learn_worlds", commit=3)  # after those of the beginning and of update 2
    code, output, events = remote.run("train_gen_model", *WORLDS)
    assert code == 0 and "1 of 1 jobs done" in output, output + remote.logs()
    assert [event["attempt"] for event in of(events, "start", "learn_worlds")] == [0, 1]
    assert "resuming mine at update 2 of 4" in remote.logs()
    assert {event["volume"] for event in of(events, "commit")} == {"rl-mop-simulators"}
    names = {"checkpoint_final.pt", "checkpoint_2.pt", "training_log.csv", "training_curve.png"}
    assert set(files_below(remote.volume("rl-mop-simulators"))) == {f"mine/{n}" for n in names | {"training_state.pt"}}
    assert remote.download() == {f"simulators/mine/{name}" for name in names} and remote.download() == set()
    check_machine(events, "learn_worlds", 1000 * modal_app.CPUS, modal_app.MEMORY_MIB)

    words = dict(zip(WORLDS[::2], WORLDS[1::2], strict=True))
    words |= {"--data_dir": recording.folder, "--agent_file": checkpoint, "--output_dir": tmp_path / "own"}
    assert train_gen_model.main([str(word) for pair in words.items() for word in pair]) == 0
    mine, theirs = (
        load_checkpoint(folder / "mine" / "checkpoint_final.pt")["policy_state_dict"]
        for folder in (tmp_path / "own", remote.here / "simulators")
    )
    assert mine.keys() == theirs.keys() and all(torch.equal(value, theirs[name]) for name, value in mine.items())

    code, output, events = remote.run("train_gen_model", *WORLDS, "--resume")
    assert code == 0 and of(events, "commit") == [] and "mine is trained already" in remote.logs()
    code, output, events = remote.run("train_gen_model", *WORLDS, "--lr", "0.5")
    assert code == 1 and re.search(r"failed: simulator mine: the run in .* has lr 0.0015, not 0.5; keep", output)
    code, output, events = remote.run("train_gen_model", "--data_dir", "recordings/none")
    assert code == 1 and "/none is not on volume rl-mop-recordings; upload it: modal volume put rl-mop-rec" in output
    assert [event["attempt"] for event in of(events, "start")] == [0]  # it would be refused again


def check_machine(events: list[dict], name: str, milli_cpu: float, memory_mib: int) -> None:
    """Resources, mounts and image of a function."""
    (function,) = [event for event in of(events, "function") if event["name"] == name]
    assert (function["gpu"], function["milli_cpu"], function["memory_mib"]) == ("", milli_cpu, memory_mib)
    assert (function["timeout_s"], function["retries"]) == (modal_app.TRAIN_TIMEOUT_S, modal_app.RETRIES.max_retries)
    mounts = {"/root/logs": False}
    if name == "learn_worlds":
        mounts = dict.fromkeys(("/root/logs", "/root/recordings", "/root/modal_checkpoints"), True)
        mounts["/root/simulators"] = False
    assert function["mounts"] == mounts
    layers, contexts = layers_of(events, function["image"])
    copied = {path for layer in layers for path in contexts.get(layer["context"], [])}
    assert in_container(imported_by(REPOSITORY / "generative" / "cloud.py")) <= copied
    commands = [command for layer in layers for command in layer["commands"]]
    is_of_games = name == "learn_game"
    assert any("apt-get install" in c and modal_app.QT in c for c in commands) == is_of_games
    pinned = {path.name: path.read_text() for path in REPOSITORY.glob("requirements*.txt")}
    installed = [text for layer in layers for text in layer["files"].values()]
    assert pinned["requirements.txt"] in installed
    assert (pinned["requirements-coinrun.txt"] in installed) == is_of_games
    assert not re.search("^-", pinned["requirements-coinrun.txt"], re.MULTILINE)  # Modal copies this file alone
    assert any("check_games()" in command for command in commands) == is_of_games


def test_an_agent_of_a_game_that_cannot_be_trained(remote):
    """What a container refuses is told in one line; what this machine refuses starts none."""
    words = (*GAME, "--model_file", "logs/missing.pt")
    code, output, events = remote.run("train_agent", *words)
    assert code == 1 and "failed: coinrun tiny seed 0: " in output and "logs/missing.pt" in output, output
    assert "0 of 1 jobs done" in output and [event["function"] for event in of(events, "call")] == ["learn_game"]
    check_machine(events, "learn_game", 1000 * modal_app.GAME_CPUS, modal_app.GAME_MEMORY_MIB)
    (remote.folder / "secrets").write_text("mine")
    on_any = [word for word in words if word not in ("--device", "cpu")]
    code, output, events = remote.run("train_agent", *on_any, "--gpu", "A10G", "--secrets", "mine")
    assert code == 1 and of(events, "variant")[0]["secrets"] == ["mine"], output
    (machine,) = of(events, "variant")
    assert (machine["gpu"], machine["milli_cpu"]) == ("A10", 1000 * modal_app.GAME_CPUS)
    code, output, events = remote.run("train_agent", *GAME, "--lr", "nan")
    assert code == 2 and "error: --lr must be " in output and of(events, "call") == []


def test_an_agent_of_a_game_goes_on_where_it_was_killed(remote, games):
    remote.kill("learn_game", commit=3)
    code, output, events = remote.run("train_agent", *GAME)
    assert code == 0 and "1 of 1 jobs done" in output, output + remote.logs()
    assert [event["attempt"] for event in of(events, "start", "learn_game")] == [0, 1]
    assert {event["volume"] for event in of(events, "commit")} == {"rl-mop-logs"}
    names = {"log.csv", "training_curve.png", *(f"model_{steps}.pt" for steps in (32, 64, 96, 128))}
    made = {f"{AGENT_FOLDER}/{name}" for name in names}
    found = {name for name in files_below(remote.volume("rl-mop-logs")) if "events." not in name}
    assert found == made | {f"{AGENT_FOLDER}/training_state.pt"}
    assert {name for name in remote.download() if "events." not in name} == {f"logs/{name}" for name in made}
    assert sys.getsizeof(load_checkpoint(remote.here / "logs" / AGENT_FOLDER / "model_128.pt"))
