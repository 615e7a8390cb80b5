"""Recordings of an agent of CoinRun: memory and frames replay, behaviours, splits by level, kills, bad input.

Skipped where envpool or the Qt that it needs is missing (`make coinrun`).
"""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from checks import contents, refusal
from dying import Died, dying
from generative_data import tiny_checkpoint
from generative_game_data import RECORDING, flags, record_agent, tiny_agent
from scripts import check_refused, in_process, refused

from generative import record, validate
from generative.agents.networks import load_agent
from generative.app.catalog import find_recordings
from generative.domains.coinrun.decoder import frame_views
from generative.domains.coinrun.envs import IDLE_PREFERENCE, RIGHT_PREFERENCE, GameActor
from generative.domains.coinrun.games import RIGHT, UNSEEN_LEVELS, begin_level
from generative.domains.coinrun.policy import FrozenAgent
from generative.recordings import recorder
from generative.recordings.behaviours import CHOOSE
from generative.recordings.format import SPLITS, open_recording, split_of
from mop.common.cli import parse


def test_levels_decide_about_splits_and_every_behaviour_has_its_share(game_recording):
    index, encoding = game_recording.index, game_recording.config["encoding"]
    assert encoding["env_name"] == encoding["task_id"] == "coinrun" and encoding["num_levels"] == 60
    assert set(index["seed"]) <= set(range(60)) and len(set(index["seed"])) > 8
    assert index["split"].tolist() == [split_of(level) for level in index["seed"]]
    assert len(set(index["split"])) > 1
    names = game_recording.config["settings"]["policies"]
    for name in names:
        steps = (index["num_rows"] - 1)[game_recording.episodes(behaviours=[name])]
        assert 240 <= steps.sum() < 240 + 60
    assert names == ["argmax", "sampled", "noisy", "random"]
    assert game_recording.missions == [""] and game_recording.lang.shape == (1, 0)


def test_repeated_episodes_are_those_of_the_same_level_and_actions(game_recording):
    every = game_recording.episodes()
    kept = game_recording.distinct(every)
    told = [(game_recording.episode(k).seed, game_recording.episode(k)["action"].tobytes()) for k in every]
    assert len(kept) == len(set(told)) and [told[k] for k in kept] == list(dict.fromkeys(told))
    assert game_recording.distinct([*every, *every]) == kept and game_recording.distinct([]) == []


def test_frames_rewards_and_ends_are_those_of_the_level_played_again(game_recording):
    num_rewards, ends = 0, {"terminated": 0, "truncated": 0}
    for k in range(len(game_recording)):
        episode = game_recording.episode(k)
        game = begin_level(game_recording.config["encoding"], episode.seed)
        assert np.array_equal(episode["obs"][0], game.begin()[0][0])
        for t, action in enumerate(episode["action"][:-1]):
            moment = game.step(np.array([action]))  # of the useful actions, numbers are the game's
            assert np.array_equal(episode["obs"][t + 1], moment.frames[0])  # also the last, terminal one
            assert episode["reward"][t] == moment.reward[0] and episode["terminated"][t] == moment.is_terminal[0]
            num_rewards += moment.reward[0] > 0
        game.close()
        last = len(episode["action"]) - 2
        assert episode["terminated"][last] != episode["truncated"][last] and episode["action"][last + 1] == -1
        assert not episode["terminated"][:last].any() and episode["truncated"][last] <= (last + 1 == 60)
        ends = {name: ends[name] + int(episode[name][last]) for name in ends}
        assert episode.success == (episode["reward"][last] > 0)
    assert len(game_recording) > 12 and min(ends.values()) > 1 and episode["obs"].dtype == np.uint8


def test_the_recorded_memory_replays_exactly(game_recording, game_model):
    agent, count = load_agent(game_model)[0], 0
    with torch.no_grad():
        for k in range(len(game_recording)):
            episode = game_recording.episode(k)
            assert np.array_equal(episode["hidden"][0], agent.first_hidden)  # the learned one, not zeros
            for t in range(len(episode["action"])):
                frame, hidden = (torch.from_numpy(episode[name][t : t + 1].copy()) for name in ("obs", "hidden"))
                answer = agent.step(frame, hidden)
                log_probs = answer.logits.log_softmax(-1)[0].numpy()
                assert (
                    np.array_equal(episode["log_probs"][t], log_probs) and log_probs.argmax() == episode["student"][t]
                )
                assert episode["value"][t] == answer.value[0]
                if t + 1 < len(episode["action"]):
                    assert np.array_equal(episode["hidden"][t + 1], answer.hidden[0])
                count += 1
    assert count == len(game_recording.shards[0]["obs"]) > 960


def test_noisy_actions_are_flat_go_right_and_are_never_idle_for_long(game_model):
    agent, _ = load_agent(game_model)
    agent.register_buffer("actions", torch.arange(15), persistent=False)
    worlds = SimpleNamespace(obs=np.zeros((1, 3, 64, 64), np.uint8), encoding={"env_name": "coinrun"})
    noisy = GameActor(FrozenAgent(agent), worlds, frame_views).choose["noisy"]
    logits = np.zeros(15)
    logits[[0, 1]] = 9.0, -9.0
    preferences = np.clip(0.7 * (logits - logits.mean()), -1.8, 0.8)
    preferences[9:], preferences[RIGHT] = IDLE_PREFERENCE, RIGHT_PREFERENCE
    expected = np.exp(preferences) / np.exp(preferences).sum()
    rows = np.zeros(100_000, [("log_probs", np.float32, 15)])
    rows["log_probs"] = logits - np.log(np.exp(logits).sum())
    actions = noisy(rows, np.random.default_rng(0).random((len(rows), 2)), 0.0)
    rates = np.bincount(actions, minlength=15) / len(rows)
    assert np.abs(rates - expected).max() < 0.005 and rates[9:].sum() < 0.04 and rates[0] < 0.25
    plain = CHOOSE["noisy"](rows, np.random.default_rng(0).random((len(rows), 2)), 0.0)
    assert (plain >= 9).mean() > 0.2  # without the game's knowledge


def test_any_number_of_slots_gives_the_same_bytes(game_recording, game_model, tmp_path):
    other = record_agent(game_model, tmp_path / "other", num_envs=2)
    assert contents(other) == contents(game_recording.folder)


def test_stopped_it_goes_on_to_the_same_bytes(game_recording, game_model, tmp_path, monkeypatch):
    folder = tmp_path / "stopped"
    with monkeypatch.context() as patch, pytest.raises(Died):
        patch.setattr(recorder.Recorder, "step", dying(recorder.Recorder.step, (60,)))
        record_agent(game_model, folder)
    assert not (folder / "index.npz").exists()
    record_agent(game_model, folder, "--resume", num_envs=2)
    assert contents(folder) == contents(game_recording.folder)


def test_the_command_of_the_paper_records(game_model, tmp_path):
    words = (
        f"--exp_name recording_exp --env_name coinrun --num_levels 1000000 --distribution_mode hard "
        f"--num_checkpoints 200 --model_file={game_model} --logdir={tmp_path}/"
    ).split()
    assert in_process(record.main, *words, "--num_steps", 40, "--max_steps", 10) == 0
    found = open_recording(tmp_path / "data")
    assert found.config["encoding"]["distribution_mode"] == "hard" and found.index["seed"].max() > 60
    assert found.index["seed"].max() < 1_000_000
    assert parse(record.Settings, "", [*words, "--param_name", "hard-rec"]).param_name == "hard-rec"
    everywhere = open_recording(record_agent(game_model, tmp_path / "all", num_levels=0, num_steps=40))
    assert 2**20 < everywhere.index["seed"].max() < UNSEEN_LEVELS
    assert {SPLITS[split_of(level)] for level in everywhere.index["seed"]} <= set(SPLITS)


def test_a_second_game_is_recorded(game_model, tmp_path):
    folder = record_agent(tiny_agent(tmp_path, "caveflyer"), tmp_path / "cave", num_steps=60, max_steps=15)
    found = open_recording(folder)
    assert found.config["encoding"]["task_id"] == "caveflyer" and found.config["encoding"]["actions"] == list(range(10))
    assert found.episode(0)["log_probs"].shape[1] == 10 and len(found) >= 4


def test_what_cannot_be_recorded_is_refused_in_one_line(game_recording, game_model, tmp_path, monkeypatch, capsys):
    words = flags(model_file=game_model, data_dir=tmp_path / "x", **RECORDING)
    cases = {
        ("--env_name", "caveflyer"): "caveflyer",
        ("--param_name", "hard-rec"): "hard-rec",
        ("--param_name", "huge"): "--param_name",
        ("--policies", "argmax,bot"): "bot",
        ("--data_dir", game_recording.folder, "--num_levels", 50): "num_levels 60, not 50",
        ("--model_file", tiny_checkpoint(tmp_path / "checkpoints")): "--num_levels",
    }
    check_refused(capsys, record.main, cases, *words)
    monkeypatch.setitem(sys.modules, "envpool", None)
    assert "make coinrun" in refused(capsys, record.main, *words) and not list(tmp_path.glob("x/*"))


def test_what_real_worlds_that_cannot_be_edited_cannot_show_is_refused(game_recording, capsys):
    assert str(game_recording.folder) in refused(capsys, validate.main, "--data_dir", game_recording.folder)
    assert "game" in refusal(find_recordings, str(game_recording.folder))
