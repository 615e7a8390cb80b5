"""Agents of games on the real games: what envpool gives, every command at a tiny size, resume, bad input.

Most of it is skipped where envpool or the Qt that it needs is missing (`make coinrun`).
"""

import importlib
import io
import math
import re
import shlex
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch
from generative_data import tiny_checkpoint
from PIL import Image
from scripts import REPOSITORY, check_refused, in_process, refused, script_environment

from generative import evaluate_agent, render, train_agent
from generative.agents import load_agent
from generative.agents.config import IN_CONFIG, PRESETS, Settings, make_config, make_envs, parse_settings
from generative.agents.level_play import AgentActor, BlindActor, play_levels
from generative.agents.ppo import RENEWAL_INTERVAL, AgentRun
from generative.domains.coinrun.domain import COINRUN
from generative.domains.coinrun.games import GAMES, NUM_ACTIONS, RIGHT_AND_JUMP, GameEnvs
from generative.simulators.training import resolve_settings
from mop.artifacts.checkpoints import load_checkpoint, save_checkpoint
from mop.common.cli import given_values
from mop.training.loop import STATE_NAME

EASY = {"env_name": "coinrun", "distribution_mode": "easy", "use_backgrounds": False}
TINY = (
    *("--num_envs", "4", "--num_val_envs", "2", "--num_steps", "64", "--num_features", "8", "--hidden_size", "8"),
    *("--num_epochs", "1", "--num_batches", "2", "--num_threads", "1", "--exp_name", "tiny", "--num_levels", "20"),
)


@pytest.fixture(scope="session")
def trained(games, tmp_path_factory) -> Path:
    """The folder of a tiny run of four models, which is only read."""
    root = tmp_path_factory.mktemp("agents")
    words = (*TINY, "--num_timesteps", 1024, "--num_checkpoints", 2, "--output_dir", root)
    assert in_process(train_agent.main, *words) == 0
    return root / "procgen" / "coinrun" / "tiny" / "seed_0"


@pytest.mark.parametrize("env_name", GAMES)
def test_the_actions_that_are_left_out_do_nothing(games, env_name):
    def frames(level: int, action: int) -> bytes:
        game = GameEnvs(env_name, "easy", 1, num_levels=1, start_level=level, seed=action)
        first, levels = game.begin()
        assert levels.tolist() == [level]
        shown = [first, *(game.step(np.array([a])).frames for a in (7, 7, *[action] * 6))]
        game.close()
        return b"".join(frame.tobytes() for frame in shown)

    nothing, useful = 4, set(GAMES[env_name])
    differs = {a for level in range(6) for a in range(NUM_ACTIONS) if frames(level, a) != frames(level, nothing)}
    assert differs <= useful - {nothing} and useful - differs <= {nothing, 3}  # "down" matters on few platforms


def test_an_episode_ends_with_its_own_last_frame_and_the_next_action_is_ignored(games):
    game = GameEnvs("coinrun", "easy", 16, num_levels=0, start_level=0, seed=1)
    frames, level = game.begin()
    is_over, num_ends, successes = np.zeros(16, bool), 0, 0
    for _ in range(150):
        moment = game.step(np.full(16, RIGHT_AND_JUMP))
        assert (moment.level[~is_over] == level[~is_over]).all()
        assert not moment.reward[is_over].any() and not (moment.is_terminal | moment.is_cut)[is_over].any()
        assert (moment.reward[moment.is_success] == 10).all() and not moment.reward[~moment.is_success].any()
        is_over, level, frames = moment.is_terminal | moment.is_cut, moment.level, moment.frames
        num_ends, successes = num_ends + is_over.sum(), successes + moment.is_success.sum()
    assert num_ends > 10 and 3 < successes < num_ends and frames.shape == (16, 3, 64, 64)
    game.close()


def test_threads_change_nothing_and_a_level_is_the_same_wherever_it_is_played(games):
    def played(num_threads: int) -> list[np.ndarray]:
        game = GameEnvs("coinrun", "easy", 6, num_levels=0, start_level=0, seed=3, num_threads=num_threads)
        rng = np.random.default_rng(0)
        shown = [game.begin()[0], *(game.step(rng.integers(0, 15, 6)).frames for _ in range(60))]
        game.close()
        return shown

    assert all(np.array_equal(one, two) for one, two in zip(played(1), played(3), strict=True))
    alone = play_levels(EASY, [7], BlindActor([RIGHT_AND_JUMP]), keeps_frames=True)[0]
    beside = play_levels(EASY, [3, 7, 9], BlindActor([RIGHT_AND_JUMP]), keeps_frames=True)[1]
    assert beside.level == 7 and np.array_equal(alone.frames, beside.frames) and len(alone.frames) > 10


def test_training_writes_its_log_and_models_at_even_intervals(trained):
    assert {path.name for path in trained.glob("model_*")} == {"model_512.pt", "model_1024.pt"}
    log = pd.read_csv(trained / "log.csv")
    assert log["timesteps"].tolist() == [256, 512, 768, 1024] and log["wall_time"].is_monotonic_increasing
    wanted = {"num_episodes", "policy_loss", "value_loss", "entropy", "mean_value", "success_rate"}
    for name in ("episode_rewards", "episode_len"):
        wanted |= {f"{kind}_{name}" for kind in ("max", "mean", "min")}
    assert wanted | {f"val_{name}" for name in ("num_episodes", "mean_episode_rewards")} <= set(log)
    content = torch.load(trained / "model_1024.pt", weights_only=True)
    assert content["config"]["world"]["num_levels"] == 20 and content["update"] == 4
    agent, _ = load_agent(trained / "model_1024.pt", "coinrun")
    assert len(agent.actions) == 9 and agent.hidden_size == 8


def test_rows_go_to_tensorboard_where_it_is_installed(monkeypatch, tmp_path):
    written = []

    class SummaryWriter:
        def __init__(self, folder: str):
            assert folder == str(tmp_path)

        def add_scalar(self, name: str, value: float, step: int) -> None:
            written.append((name, value, step))

        def flush(self) -> None:
            written.append("flushed")

    module = ModuleType("torch.utils.tensorboard")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    train_agent.tensorboard_rows(tmp_path)({"timesteps": 5, "entropy": 1.0})  # it cannot be imported from there
    assert written == []
    module.SummaryWriter = SummaryWriter
    train_agent.tensorboard_rows(tmp_path)({"timesteps": 5, "entropy": 1.0})
    assert written == [("timesteps", 5, 5), ("entropy", 1.0, 5), "flushed"]


def test_an_evaluation_has_a_row_for_each_actor_and_set(trained, tmp_path, monkeypatch, capsys):
    words = ("--model_file", trained / "model_512.pt", "--num_test_levels", 6, "--max_steps", 120)
    assert in_process(evaluate_agent.main, *words, "--out", tmp_path / "a") == 0
    assert "right and jump" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "a" / "evaluation.csv").set_index(["levels", "actor"])
    assert len(table) == 8 and (table["num_levels"] == 6).all()
    episodes = pd.read_csv(tmp_path / "a" / "episodes.csv")
    assert len(episodes) == 48 and (episodes["return"] == 10 * episodes["success"]).all()
    for (levels, actor), row in table.iterrows():
        own = episodes[(episodes["levels"] == levels) & (episodes["actor"] == actor)]
        other = episodes[(episodes["levels"] == levels) & (episodes["actor"] == "random")]
        assert row["return"] == pytest.approx(own["return"].mean()) and row["success_low"] < row["success_high"]
        assert row["minus_random"] == pytest.approx(own["return"].mean() - other["return"].mean())
    assert set(episodes.loc[episodes["levels"] == "training", "level"]) < set(range(20))
    assert episodes.loc[episodes["levels"] == "unseen", "level"].min() >= 2**30
    assert in_process(evaluate_agent.main, *words, "--out", tmp_path / "b") == 0
    assert (tmp_path / "a" / "episodes.csv").read_bytes() == (tmp_path / "b" / "episodes.csv").read_bytes()


@pytest.mark.parametrize("how", ["argmax", "sampled"])
def test_a_film_shows_what_the_agent_sees(trained, tmp_path, monkeypatch, how):
    model = trained / "model_1024.pt"
    words = (
        "--env_name",
        "coinrun",
        "--model_file",
        model,
        "--policy",
        how,
        "--world_seed",
        5,
        "--exp_name",
        "x",
        "--max_steps",
        40,
    )
    assert in_process(render.main, *words, "--vid_dir", tmp_path) == 0
    film = Image.open(io.BytesIO((tmp_path / f"x_coinrun_easy_level_5_{how}.gif").read_bytes()))
    agent, config = load_agent(model)
    actor = AgentActor(agent, how == "sampled")
    (episode,) = play_levels(config["world"], [5], actor, keeps_frames=True, max_steps=40)
    assert film.n_frames == len(episode.frames) == len(episode.actions) + 1 and film.n_frames > 10
    shown = np.asarray(film.convert("RGB")).astype(int)
    wanted = episode.frames[0].transpose(1, 2, 0).repeat(7, 0).repeat(7, 1).astype(int)
    gaps = [np.abs(shown[top : top + 448, 10:458] - wanted).mean() for top in range(20, 70)]
    assert min(gaps) < 6 < np.median(gaps)  # a palette of 256 colours


def test_a_second_game_trains(games, tmp_path, monkeypatch):
    words = (*TINY, "--env_name", "caveflyer", "--num_timesteps", 256, "--distribution_mode", "hard")
    assert in_process(train_agent.main, *words, "--output_dir", tmp_path) == 0
    agent, _ = load_agent(tmp_path / "procgen" / "caveflyer" / "tiny" / "seed_0" / "model_256.pt", "caveflyer")
    assert len(agent.actions) == 10


def test_every_preset_makes_an_update(games):
    small = {"num_envs": 2, "num_val_envs": 0, "num_steps": 8, "num_epochs": 1, "num_levels": 3, "start_level": 1}
    shapes = {}
    for name, preset in PRESETS.items():
        preset = Settings(**(preset | small), distribution_mode="hard")
        settings = {key: getattr(preset, key) for key in IN_CONFIG}
        run = AgentRun(make_config(settings, None), 1, partial(make_envs, settings, 1), torch.device("cpu"))
        assert all(np.isfinite(value) for value in run.step_update().values()), name
        assert run.actors.keys() == {""} and math.isnan(run.summary()["val_mean_episode_rewards"])
        run.close()
        shapes[name] = (run.agent.hidden_size, run.agent.project.in_features, len(run.agent.actions))
    assert len(shapes) == 9 and shapes["hard-rec"] == (64, 2048, 15) and shapes["small-rec"] == (64, 512, 9)
    assert shapes["hard"] == shapes["easy-200"] == (0, 2048, 15)


@pytest.mark.slow
def test_a_run_that_was_killed_ends_with_the_same_bytes(games, tmp_path, monkeypatch):
    num_steps, folder = 2 * 16 * (RENEWAL_INTERVAL + 2), Path("procgen", "coinrun", "tiny", "seed_0")
    words = (*TINY, "--num_timesteps", num_steps, "--num_envs", 2, "--num_steps", 16, "--num_val_envs", 1)
    with subprocess.Popen(
        [sys.executable, "-m", "generative.train_agent", *map(str, words), "--output_dir", str(tmp_path / "killed")],
        cwd=REPOSITORY, env=script_environment({"OMP_NUM_THREADS": "1"}),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as killed:  # fmt: skip
        log, deadline = tmp_path / "killed" / folder / "log.csv", time.monotonic() + 100
        while not (log.exists() and len(log.read_text().splitlines()) > 3) and time.monotonic() < deadline:
            time.sleep(0.01)
        killed.send_signal(signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL and (tmp_path / "killed" / folder / STATE_NAME).exists()
    assert in_process(train_agent.main, *words, "--output_dir", tmp_path / "killed", "--resume") == 0
    assert in_process(train_agent.main, *words, "--output_dir", tmp_path / "whole") == 0
    model = folder / f"model_{num_steps}.pt"
    one, other = (load_checkpoint(tmp_path / name / model)["policy_state_dict"] for name in ("killed", "whole"))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    tables = [pd.read_csv(tmp_path / name / folder / "log.csv") for name in ("killed", "whole")]
    plain = [table.drop(columns=["wall_time", "seconds", "steps_per_s"]) for table in tables]
    assert plain[0].equals(plain[1]) and len(plain[0]) == RENEWAL_INTERVAL + 2


def test_a_run_begins_with_the_weights_of_another(trained, tmp_path, monkeypatch, capsys):
    model = trained / "model_1024.pt"
    words = (*TINY, "--num_timesteps", 256, "--output_dir", tmp_path, "--model_file", model)
    assert in_process(train_agent.main, *words, "--lr", "1e-12") == 0
    other, _ = load_agent(tmp_path / "procgen" / "coinrun" / "tiny" / "seed_0" / "model_256.pt")
    mine = load_agent(model)[0].state_dict()
    assert all(torch.allclose(mine[name], value) for name, value in other.state_dict().items())
    assert "model_1024.pt" in refused(capsys, train_agent.main, *words, "--hidden_size", 9, "--seed", 1)


def test_every_command_of_the_page_is_understood():
    text = (REPOSITORY / "docs" / "coinrun.md").read_text()
    commands = re.findall(r"^python -m generative\.(\w+) (.*)$", text, re.MULTILINE)
    for name, flags in commands:
        module = importlib.import_module(f"generative.{name}")
        if name == "train_agent":
            settings = parse_settings("", shlex.split(flags))
            updates = -(-settings.num_timesteps // (settings.num_envs * settings.num_steps))
            kept = train_agent.checkpoint_updates(updates, settings.num_checkpoints)
            assert len(kept) == settings.num_checkpoints and kept[-1] == updates and len(set(np.diff(kept))) <= 2
            continue
        given = given_values(module.Settings, "", shlex.split(flags))
        if name == "train_gen_model":
            assert resolve_settings(COINRUN, given.get("param_name", "small"), given)["num_updates"] > 1000
    every = {"train_agent", "plot_training_csv", "evaluate_agent", "render", "record", "train_gen_model", "fidelity"}
    every |= {"directions", "intervene", "saliency", "hazards"}
    assert len(commands) == 16 and {name for name, _ in commands} == every


def test_a_missing_package_and_a_missing_qt_are_told_in_one_line(monkeypatch, capsys, tmp_path):
    words = (*TINY, "--num_timesteps", 256, "--output_dir", tmp_path)
    monkeypatch.setitem(sys.modules, "envpool", None)
    assert "make coinrun" in refused(capsys, train_agent.main, *words)

    def no_qt(*_, **__):
        raise ImportError("libQt5Gui.so.5: cannot open shared object file")

    monkeypatch.setitem(sys.modules, "envpool", ModuleType("envpool"))
    sys.modules["envpool"].make_gymnasium = no_qt
    line = refused(capsys, train_agent.main, *words, "--exp_name", "other")
    assert "libqt5gui5" in line and "libQt5Gui.so.5" in line


def test_flags_that_cannot_be_are_refused_in_one_line(capsys, tmp_path):
    flags = (
        *(("--env_name", "starpilot"), ("--param_name", "huge"), ("--num_levels", "-1"), ("--exp_name", "a/b")),
        *(("--num_envs", "0"), ("--encoder", "resnet"), ("--device", "tpu"), ("--model_file", "nothing.pt")),
    )
    check_refused(capsys, train_agent.main, {two: two[1] for two in flags}, *TINY, "--output_dir", tmp_path)
    assert not list(tmp_path.rglob("*.csv"))


def test_models_of_another_game_or_kind_are_refused_in_one_line(trained, tmp_path, capsys):
    model, film = trained / "model_512.pt", ("--vid_dir", tmp_path)
    assert "caveflyer" in refused(capsys, evaluate_agent.main, "--model_file", model, "--env_name", "caveflyer")
    check_refused(
        capsys, render.main, {("--env_name", "caveflyer"): "caveflyer", ("--param_name", "hard"): "hard"},
        "--model_file", model, *film,
    )  # fmt: skip
    content, others = load_checkpoint(model), [tiny_checkpoint(tmp_path / "checkpoints")]
    for name, value in (("hidden_size", 9), ("encoder", "resnet")):
        content["config"]["shape"][name] = value
        others.append(tmp_path / f"{name}.pt")
        save_checkpoint(others[-1], content)
    check_refused(capsys, evaluate_agent.main, {(path,): path.name for path in others}, "--model_file")


def test_another_run_in_the_way_is_refused_in_one_line(trained, capsys):
    words = (*TINY, "--num_timesteps", 1024, "--output_dir", trained.parents[3])
    check_refused(capsys, train_agent.main, {(): "--resume", ("--lr", "0.1", "--resume"): "lr 0.001"}, *words)
    assert in_process(train_agent.main, *words, "--resume") == 0
    assert "trained already" in capsys.readouterr().out
