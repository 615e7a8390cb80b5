"""Recordings: what is in them against the real world and the plain policy, windows, splits, crashes, command lines."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import orjson
import pytest
import torch
from checks import contents, files_below, refusal
from generative_data import record_command, record_tiny, tiny_checkpoint
from scripts import PATIENCE_S, REPOSITORY, in_process, refused

from generative import export_minari, record
from generative.domains.babyai.domain import BABYAI
from generative.domains.babyai.policy import FrozenPolicy
from generative.recordings import format, recorder
from generative.recordings.behaviours import CHOOSE
from generative.recordings.format import BEHAVIOURS, SPLITS, Recording, open_recording, split_of
from generative.recordings.session import count_known_starts
from generative.simulators.relaxation import to_simplex
from mop.artifacts.sums import write_sums
from mop.common.files import write_atomic
from mop.common.seeding import stream_seed
from mop.envs.babyai import World
from mop.envs.geometry import EMPTY, cell_code, grid_codes
from mop.envs.teacher import TeacherFailure

SOMETIMES, AT_ONCE = "BabyAI-UnlockToUnlock-v0", "BabyAI-KeyInBox-v0"  # where the bot fails
FEW_WORLDS = "BabyAI-GoToRedBallNoDists-v0"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="module")
def recording(tmp_path_factory, checkpoint) -> Recording:
    """Of two shards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorder, "_SHARD_BYTES", 300_000)
        return record_tiny(checkpoint, tmp_path_factory.mktemp("recordings") / "tiny")


def test_a_recording_has_whole_episodes_of_every_behaviour(recording):
    settings, steps = recording.config["settings"], recording.index["num_rows"] - 1
    behaviours = BABYAI.behaviours
    assert settings["policies"] == list(behaviours)
    assert len(recording.shards) == recording.config["num_shards"] >= 2
    assert set(recording.index["shard"]) == set(range(len(recording.shards)))
    for number in range(len(behaviours)):
        of_one = steps[recording.index["behaviour"] == number]
        assert settings["num_steps"] / 5 <= of_one.sum() < settings["num_steps"] / 5 + of_one[-1]  # none too many
    for shard, arrays in enumerate(recording.shards):
        here = recording.index["shard"] == shard
        ends = np.cumsum(recording.index["num_rows"][here])
        assert (recording.index["first_row"][here] == [0, *ends[:-1]]).all() and ends[-1] == len(arrays["obs"])
    for k in range(len(recording)):
        episode, last = recording.episode(k), steps[k]
        assert len(episode["obs"]) == last + 1 and not episode["hidden"][0].any()
        assert (episode["action"][:-1] >= 0).all() and episode["action"][-1] == episode["bot"][-1] == -1
        ended = episode["terminated"] | episode["truncated"]
        assert ended[last - 1] and ended.sum() == 1
        assert episode.success == (episode["reward"][last - 1] > 0) and not episode["reward"][: last - 1].any()
        assert episode.mission in recording.missions and len(episode.lang) == recording.config["encoding"]["lang_dim"]


def test_recorded_actions_lead_through_the_same_world_again(recording):
    world, count = World(recording.config["encoding"]["task_id"], recording.config["encoding"]["max_steps"]), 0
    for k in range(len(recording)):
        episode = recording.episode(k)
        world.reset(episode.seed)
        assert world.mission == episode.mission
        last, is_silent = len(episode["action"]) - 1, False
        for t, action in enumerate(episode["action"]):
            assert (episode["obs"][t] == world.obs).all() and (episode["grid"][t] == grid_codes(world.env.grid)).all()
            assert tuple(episode["position"][t]) == tuple(world.env.agent_pos)
            assert episode["carried"][t] == cell_code(world.env.carrying)
            count += 1
            if t == last:
                break
            try:
                assert is_silent or episode["bot"][t] == world.label()
            except TeacherFailure:
                is_silent = True
            assert (episode["bot"][t] == -1) == is_silent
            shown = (episode["reward"][t], episode["terminated"][t], episode["truncated"][t])
            assert shown == (np.float32((answer := world.step(int(action)))[0]), *answer[1:])
    assert count == sum(len(arrays["obs"]) for arrays in recording.shards) > 900
    carried = np.concatenate([arrays["carried"] for arrays in recording.shards])
    assert (carried != EMPTY).any() and (carried == EMPTY).any()


@torch.no_grad()
def check_replay(recording: Recording, tolerance: float) -> int:
    """Hold what is recorded of the policy against its plain equations, row by row; the number of rows."""
    path = recording.config["checkpoint"]["path"]
    (policy, _), count = FrozenPolicy.load(path), 0
    for k in range(len(recording)):
        episode = recording.episode(k)
        lang = policy.embed([episode.mission])
        assert (lang[0].numpy() == episode.lang).all()
        hidden = torch.from_numpy(episode["hidden"])
        answer = policy.step(to_simplex(episode["obs"]), lang.expand(len(hidden), -1), hidden)
        assert np.abs(answer.hidden[:-1] - hidden[1:]).max() <= tolerance
        routing = torch.cat(answer.routing, -1).numpy()
        assert np.abs(episode["routing"] - routing).max() <= tolerance
        np.testing.assert_allclose(episode["lpc"], policy.lpc(answer.routing), rtol=1e-5)
        assert np.abs(episode["log_probs"] - answer.logits.log_softmax(-1).numpy()).max() <= 5 * tolerance
        assert (episode["student"] == answer.logits.argmax(-1).numpy()).mean() > 0.99
        assert (episode["student"] == episode["log_probs"].argmax(-1)).all()
        count += len(hidden)
    return count


def test_recorded_memory_replays_through_the_plain_policy(recording):
    assert check_replay(recording, 1e-6) > 900


def test_so_does_the_memory_of_the_baseline_and_of_a_trained_policy(tmp_path):
    """A trained policy's plain float32 equations differ by 4e-6 between a batch and one row at a time."""
    zoo = REPOSITORY / "results/zoo/BabyAI-UnlockPickup-v0/trial_0/seed_0/checkpoint_final.pt"
    gru = tiny_checkpoint(tmp_path / "gru", policy="gru")
    for path, tolerance, num_experts in ((gru, 1e-6, 1), (zoo, 1e-5, 9)):
        recording = record_tiny(path, tmp_path / f"of_{num_experts}", num_steps=400)
        assert check_replay(recording, tolerance) > 400
        assert recording.shards[0]["routing"].shape[1] == num_experts
        np.testing.assert_allclose(recording.shards[0]["routing"].sum(-1), 1 if num_experts == 1 else 3, rtol=1e-5)


def test_behaviours_do_what_their_names_say():
    assert tuple(CHOOSE) == BEHAVIOURS
    generator = np.random.default_rng(0)
    rows = np.zeros(200_000, [("log_probs", np.float32, 7), ("student", np.int8), ("bot", np.int8)])
    probabilities = np.array([0.5, 0.02, 0.0, 0.08, 0.3, 0.04, 0.06])
    with np.errstate(divide="ignore"):
        rows["log_probs"], rows["bot"] = np.log(probabilities), 5
    draws = generator.random((len(rows), 2))
    found = {name: choose(rows, draws, 0.3) for name, choose in CHOOSE.items()}
    rates = {name: np.bincount(actions, minlength=7) / len(rows) for name, actions in found.items()}
    assert rates["argmax"].tolist() == [1, 0, 0, 0, 0, 0, 0] and rates["bot"][5] == 1
    assert np.abs(rates["sampled"] - probabilities).max() < 0.005 and rates["sampled"][2] == 0
    assert np.abs(rates["random"] - 1 / 7).max() < 0.005
    assert np.abs(rates["epsilon"] - [0.7 + 0.3 / 7, *[0.3 / 7] * 6]).max() < 0.005
    assert np.abs(np.corrcoef(draws[:, 0], found["random"])[0, 1]) < 0.01


def test_actions_are_those_of_the_episodes_own_random_numbers(recording):
    count, numbers = 0, dict.fromkeys(recording.config["settings"]["policies"], 0)
    for k in range(len(recording)):
        episode, name = recording.episode(k), BEHAVIOURS[recording.index["behaviour"][k]]
        stream = np.random.default_rng(stream_seed(episode.seed, f"actions of {name}, {numbers[name]}"))
        draws = stream.random((len(episode["action"]) - 1, 2))
        rows = {field: array[:-1] for field, array in episode.arrays.items()}
        assert (CHOOSE[name](rows, draws, 0.2) == rows["action"]).all()
        count, numbers[name] = count + len(draws), numbers[name] + 1
    assert count >= 900 and min(numbers.values()) >= 7


def test_the_bots_episodes_succeed_and_its_failures_are_counted(tmp_path):
    flags = {"max_steps": 100, "policies": "bot,random"}
    recording = record_tiny(tiny_checkpoint(tmp_path, SOMETIMES), tmp_path / "r", num_steps=3000, **flags)
    records = format.read_episodes(tmp_path / "r" / "shard_00000")
    num_failed, num_solved = {"bot": 0, "random": 0}, 0
    for k, known in enumerate(records):
        episode, is_failed = recording.episode(k), known["teacher_failure"] is not None
        bot, num_failed[episode.behaviour] = episode["bot"][:-1], num_failed[episode.behaviour] + is_failed
        if episode.behaviour == "bot":
            assert (bot != -1).all() and (bot == episode["action"][:-1]).all()
            assert episode["truncated"][-2] == (is_failed or len(bot) == 100) == (not episode.success)
            num_solved += episode.success
        else:  # it stays silent, and the episode goes on
            num_labels = (bot != -1).sum()
            assert (bot[:num_labels] != -1).all() and (num_labels < len(bot)) == is_failed
    assert num_failed["random"] >= 5 and num_failed["bot"] >= 5 and num_solved >= 20
    record_tiny(tiny_checkpoint(tmp_path, AT_ONCE), tmp_path / "s", **(flags | {"max_steps": 20}))
    records = format.read_episodes(tmp_path / "s" / "shard_00000")
    assert sum(record["passed_over"].get("assertion", 0) for record in records) >= 10
    for record_ in records:
        attempts = sum(record_["passed_over"].values())
        assert record_["seed"] == recorder.world_seed(0, record_["behaviour"], record_["number"], attempts)


def test_windows_are_those_of_brute_force(recording):
    count, is_padded = 0, False
    for length in (1, 4, 9, 20, 25, 26, 40):
        for split, behaviours in ((None, None), ("train", ["bot", "random"]), ("test", None)):
            windows = recording.windows(length, split, behaviours)
            expected = []
            for k in recording.episodes(split, behaviours):
                num_rows = len(recording.episode(k)["action"])
                starts = {*range(num_rows - length + 1), 0}
                expected += [(k, start) for start in sorted(starts)]
            assert list(zip(windows.episodes, windows.starts, strict=True)) == expected and expected
            some = np.random.default_rng(length).permutation(len(windows))[:60]
            batch = windows.batch(some)
            assert set(batch) == {*recording.shards[0], "mask", "lang"}
            for row, w in enumerate(some):
                k, start = expected[w]
                episode = recording.episode(k)
                inside = min(length, len(episode["action"]) - start)
                assert batch["mask"][row].tolist() == [True] * inside + [False] * (length - inside)
                assert (batch["lang"][row] == episode.lang).all()
                for name, array in episode.items():
                    assert (batch[name][row, :inside] == array[start : start + inside]).all()
                    padding = -1 if name in ("action", "bot", "student") else 0
                    assert (batch[name][row, inside:] == padding).all() and batch[name].dtype == array.dtype
                is_padded |= inside < length
                count += 1
    assert count > 500 and is_padded
    assert set(windows.batch([0, 1], ["obs", "bot"])) == {"obs", "bot", "mask", "lang"}
    assert windows.batch([])["hidden"].shape == (0, 40, recording.config["encoding"]["hidden_size"])
    with pytest.raises(ValueError, match="at least 1"):
        recording.windows(0)


def test_test_episodes_that_begin_as_a_training_episode_are_counted(tmp_path, recording):
    few = record_tiny(tiny_checkpoint(tmp_path, FEW_WORLDS), tmp_path / "few", num_steps=4000, policies="bot")
    names, found = ["obs", "position", "grid", "carried"], []
    for one in (few, recording):
        starts = {split: [] for split in SPLITS}
        for k in range(len(one)):
            episode = one.episode(k)
            agent = (*episode["position"][0], *episode["obs"][0, 147:151])
            starts[episode.split].append((*episode["grid"][0].ravel(), *agent, episode.mission))
        num_known = sum(start in starts["train"] for start in starts["test"])
        assert count_known_starts(one, names) == (num_known, len(starts["test"]))
        found.append(num_known)
    assert found[0] >= 3 and found[1] == 0


def test_splits_share_no_seed_and_worlds_are_those_of_nobody_else(tmp_path, checkpoint, recording):
    other = record_tiny(checkpoint, tmp_path / "other", seed=1, num_steps=3000, policies="bot,argmax")
    seeds = [set(), set(), set()]
    for one in (recording, other):
        for number, split in enumerate(SPLITS):
            found = {one.episode(k).seed for k in one.episodes(split)}
            assert {split_of(seed) for seed in found} == {number}
            seeds[number] |= found
    assert not seeds[0] & seeds[1] and not seeds[0] & seeds[2] and not seeds[1] & seeds[2]
    assert sum(map(len, seeds)) == len(recording) + len(other)  # no world twice
    assert min(set.union(*seeds)) >= 2**33  # evaluation's are below 2**32, those of training below 2**33
    shares = np.bincount([split_of(recorder.world_seed(0, "bot", n, 0)) for n in range(4000)]) / 4000
    assert np.abs(shares - [0.8, 0.1, 0.1]).max() < 0.02


def test_a_lost_index_is_not_missed(tmp_path, recording):
    folder = tmp_path / "copy"
    shutil.copytree(recording.folder, folder)
    before = contents(folder)
    for name in ("index.npz", "missions.json", "lang.npy"):
        (folder / name).unlink()
    found = open_recording(folder)
    assert found.missions == recording.missions and (found.lang == recording.lang).all()
    assert all((found.index[column] == recording.index[column]).all() for column in recording.index)
    found.write_index()
    assert contents(folder) == before


def test_recordings_are_read_without_torch():
    program = "import sys, generative.recordings; print({'torch', 'numba'} & set(sys.modules) or 'none')"
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE_S)
    assert (result.stdout, result.stderr) == ("none\n", "")


def test_damaged_episodes_are_refused_in_one_line(tmp_path, recording):
    cases = [
        lambda episodes, lang: ([{}], lang),
        lambda episodes, lang: ({}, lang),
        lambda episodes, lang: ([episodes[0] | {"behaviour": "nobody"}, *episodes[1:]], lang),
        lambda episodes, lang: ([episodes[0] | {"mission": None}, *episodes[1:]], lang),
        lambda episodes, lang: ([episodes[0] | {"first_row": 1}, *episodes[1:]], lang),
        lambda episodes, lang: ([], lang[:0]),
        lambda episodes, lang: (episodes[:-2], lang[:-2]),
        lambda episodes, lang: (episodes[::-1], lang),
        lambda episodes, lang: (episodes, lang[:-1]),
        lambda episodes, lang: (episodes, lang[:, 1:]),
    ]
    for number, change in enumerate(cases):
        folder = tmp_path / str(number)
        shutil.copytree(recording.folder, folder)
        shard = folder / "shard_00001"
        episodes, lang = change(orjson.loads((shard / "episodes.json").read_bytes()), np.load(shard / "lang.npy"))
        (shard / "episodes.json").write_bytes(orjson.dumps(episodes))
        np.save(shard / "lang.npy", lang)
        sum_again(shard)
        assert str(folder) in refusal(open_recording, folder)


def sum_again(shard: Path) -> None:
    """Let the sums of a shard be right, whatever it holds."""
    (shard / "sums.json").unlink()
    write_sums(shard, sorted(shard.iterdir()))


def test_a_shard_that_cannot_be_written_leaves_nothing_behind(tmp_path, checkpoint, monkeypatch):
    def full(path, write):
        if path.name == "log_probs.npy":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write_atomic(path, write)

    monkeypatch.setattr(format, "write_atomic", full)
    with pytest.raises(OSError, match="log_probs"):
        record_tiny(checkpoint, tmp_path / "full")
    assert files_below(tmp_path / "full") == ["config.json"]
    monkeypatch.undo()
    record_tiny(checkpoint, tmp_path / "full", "--resume")


def test_whatever_byte_of_a_shard_changes_is_noticed(tmp_path, recording):
    shutil.copytree(recording.folder, tmp_path / "copy")
    paths = [path for path in sorted((tmp_path / "copy").glob("shard_*/*")) if path.name != "sums.json"]
    for path in paths:
        whole = path.read_bytes()
        for place in (len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            assert path.name in refusal(open_recording, tmp_path / "copy")
        path.write_bytes(whole)
    assert len(paths) > 30
    for path in (paths[0], paths[0].with_name("sums.json")):
        whole = path.read_bytes()
        for content in (None, b"{}", b"[1]"):
            path.unlink(missing_ok=True)
            if content is not None:
                path.write_bytes(content)
            assert str(path) in refusal(open_recording, tmp_path / "copy")
        path.write_bytes(whole)
    open_recording(tmp_path / "copy")


def test_arrays_of_another_form_are_refused_though_their_sums_are_right(tmp_path, recording):
    shutil.copytree(recording.folder, tmp_path / "copy")
    shard = tmp_path / "copy" / "shard_00001"
    changes = [
        ("action", lambda a: a.astype(np.int16)),
        ("hidden", lambda h: h[:, 1:]),
        ("hidden", lambda h: h.astype("c8")),
        ("routing", lambda w: w.astype(str)),
        ("obs", lambda o: o.astype(np.float64)),
        ("reward", lambda r: r[1:]),
    ]
    for name, change in changes:
        path = shard / f"{name}.npy"
        whole = path.read_bytes()
        np.save(path, change(np.load(path)))
        sum_again(shard)
        assert "shard_00001" in refusal(open_recording, tmp_path / "copy"), name
        path.write_bytes(whole)
    sum_again(shard)
    assert len(open_recording(tmp_path / "copy")) == len(recording)


def _without_shards(folder):
    config = orjson.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_bytes(orjson.dumps(config | {"num_shards": 0}))
    for shard in folder.glob("shard_*"):
        shutil.rmtree(shard)


def test_damaged_folders_are_refused_in_one_line(tmp_path, recording):
    damages = [
        lambda folder: shutil.rmtree(folder / "shard_00000"),
        lambda folder: shutil.rmtree(folder / "shard_00001"),
        lambda folder: (folder / "config.json").unlink(),
        lambda folder: (folder / "config.json").write_bytes(b"{"),
        lambda folder: (folder / "config.json").write_bytes(b"[1]"),
        lambda folder: os.truncate(folder / "shard_00001" / "obs.npy", 2000),
        lambda folder: np.save(folder / "shard_00001" / "obs.npy", np.zeros((3, 152), np.uint8)),
        lambda folder: (folder / "shard_00001" / "bot.npy").unlink(),
        lambda folder: np.save(folder / "shard_00000" / "bot.npy", np.int8(1)),
        _without_shards,
    ]
    for number, damage in enumerate(damages):
        folder = tmp_path / str(number)
        shutil.copytree(recording.folder, folder)
        damage(folder)
        assert str(folder) in refusal(open_recording, folder)
    refusal(open_recording, tmp_path / "nowhere")


def test_the_same_seed_gives_the_same_bytes_whatever_runs_beside(tmp_path, checkpoint, recording, monkeypatch):
    monkeypatch.setattr(recorder, "_SHARD_BYTES", 300_000)
    expected = contents(recording.folder)
    for num_envs in (6, 1, 17):
        record_tiny(checkpoint, tmp_path / str(num_envs), num_envs=num_envs)
        assert contents(tmp_path / str(num_envs)) == expected
    other = record_tiny(checkpoint, tmp_path / "other", seed=1)
    assert not set(other.index["seed"]) & set(recording.index["seed"])


def test_stopped_between_any_two_files_it_goes_on_to_the_same_bytes(tmp_path, checkpoint, recording, monkeypatch):
    """Every file and every shard comes into being by one rename: each of them is where it may stop."""
    monkeypatch.setattr(recorder, "_SHARD_BYTES", 300_000)
    expected, num_stops = contents(recording.folder), 0
    for name in ("replace", "rename"):
        original, is_over, stop_at = getattr(os, name), False, 0
        while not is_over:
            folder, calls = tmp_path / f"{name}_{stop_at}", iter(range(1000))

            def stop(*arguments, calls=calls, stop_at=stop_at, original=original):
                if next(calls) == stop_at:
                    raise KeyboardInterrupt
                original(*arguments)

            with monkeypatch.context() as patch:
                patch.setattr(os, name, stop)
                try:
                    record_tiny(checkpoint, folder)
                    is_over = True
                except KeyboardInterrupt:
                    num_stops += 1
            record_tiny(checkpoint, folder, "--resume", num_envs=4)
            assert contents(folder) == expected
            stop_at += 7 if name == "replace" else 1
    assert num_stops >= 6


def test_killed_it_goes_on_to_the_same_bytes(tmp_path, checkpoint, recording, monkeypatch):
    names = "from generative import record; from generative.recordings import recorder"
    program = f"{names}; recorder._SHARD_BYTES = 300_000; record.run_script(record.main)"
    folder, quiet = tmp_path / "killed", {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    command = [sys.executable, "-c", program, *record_command(checkpoint, folder, num_envs=2)]
    process = subprocess.Popen(command, cwd=REPOSITORY, **quiet)
    while not list(folder.glob("*shard_*")) and process.poll() is None:
        time.sleep(0.0005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not (folder / "index.npz").exists()
    (folder / ".shard_00001.tmp").mkdir(exist_ok=True)
    (folder / ".shard_00001.tmp" / "obs.npy").write_bytes(b"half")
    monkeypatch.setattr(recorder, "_SHARD_BYTES", 300_000)
    record_tiny(checkpoint, folder, "--resume")
    assert contents(folder) == contents(recording.folder)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_by_a_signal_it_goes_on_behind_the_last_whole_shard(
    tmp_path, checkpoint, recording, monkeypatch, number
):
    monkeypatch.setattr(recorder, "_SHARD_BYTES", 300_000)
    folder, step, begun = tmp_path / "stopped", recorder.Recorder.step, []

    def stopped(self, actions):
        over = step(self, actions)
        if self.num_written == 1:
            os.kill(os.getpid(), number)
        return over

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt) as told:
        patch.setattr(recorder.Recorder, "step", stopped)
        record_tiny(checkpoint, folder)
    assert "1 of 2 shards are kept" in str(told.value) and "--resume" in str(told.value)
    assert [path for path in files_below(folder) if not path.startswith("shard_00000/")] == ["config.json"]
    assert "--resume" in refusal(open_recording, folder)

    def noted(self, actions):
        begun.append(self.num_steps)
        return step(self, actions)

    with monkeypatch.context() as patch:
        patch.setattr(recorder.Recorder, "step", noted)
        record_tiny(checkpoint, folder, "--resume", num_envs=3)
    of_first = sum(episode["steps"] for episode in format.read_episodes(folder / "shard_00000"))
    assert begun[0] == of_first > 300 and contents(folder) == contents(recording.folder)


def test_a_shard_without_an_episode_can_be_read(tmp_path, recording):
    """Earlier recorders wrote such shards."""
    folder = tmp_path / "copy"
    shutil.copytree(recording.folder, folder)
    shutil.copytree(folder / "shard_00001", folder / "shard_00002")
    for path in (folder / "shard_00002").glob("*.npy"):
        np.save(path, np.load(path)[:0])
    (folder / "shard_00002" / "episodes.json").write_bytes(b"[]")
    sum_again(folder / "shard_00002")
    found = open_recording(folder)
    assert len(found) == len(recording) and len(found.windows(5)) == len(recording.windows(5))
    assert count_known_starts(found, ["obs", "grid"]) == count_known_starts(recording, ["obs", "grid"])


def test_a_shard_in_which_no_episode_begins_is_told_in_one_line(tmp_path, checkpoint, capsys, monkeypatch):
    monkeypatch.setattr(recorder, "_SHARD_BYTES", 30_000)
    command = record_command(checkpoint, tmp_path / "r", policies="random", max_steps=400, num_steps=300)
    assert in_process(record.main, *command) == 2
    line = capsys.readouterr().err.splitlines()[-1]  # below the progress bar
    assert line.startswith("error: ") and "--max_steps" in line


def test_bad_flags_are_answered_in_one_line(tmp_path, checkpoint, recording, capsys):
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("a file")
    cases = [
        ({"checkpoint": tmp_path / "no.pt"}, "no.pt"),
        ({"checkpoint": tmp_path / "file"}, "file"),
        ({"data_dir": tmp_path / "else"}, "something else"),
        ({"data_dir": tmp_path / "file"}, "--data_dir"),
        ({"data_dir": recording.folder}, "--resume"),
        ({"data_dir": recording.folder, "seed": 3}, "seed 0, not 3"),
        ({"data_dir": recording.folder, "policies": "bot"}, "policies"),
        ({"data_dir": recording.folder, "checkpoint": tiny_checkpoint(tmp_path, weights_seed=1)}, "another checkpoint"),
    ]
    for flags, words in cases:
        assert words in refused(capsys, record.main, *record_command(checkpoint, tmp_path / "new", **flags)), flags
    assert (tmp_path / "else" / "notes.txt").read_text() == "mine"
    assert "--checkpoint" in refused(capsys, record.main, "--num_steps", 5)


def test_the_command_tells_what_it_recorded(tmp_path, checkpoint, capsys):
    command = record_command(checkpoint, tmp_path / "r", policies="bot,argmax", num_steps=200)
    assert in_process(record.main, *command) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert "behaviour" in head and [row.split()[0] for row in rows[:3]] == ["argmax", "bot", "all"]
    found = open_recording(tmp_path / "r")
    assert "share no seed, but 0 of" in rows[-1]
    assert rows[2].split()[1:3] == [str(len(found)), str((found.index["num_rows"] - 1).sum())]
    again = in_process(record.main, *command, "--resume")  # finished already
    assert again == 0
    with pytest.raises(SystemExit):
        in_process(record.main, "--help")
    assert "python -m generative.record --checkpoint" in capsys.readouterr().out


def test_minari_reads_the_same_episodes(tmp_path, recording, monkeypatch):
    pytest.importorskip("h5py")
    minari = pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    arguments = ("--data_dir", recording.folder, "--dataset_id", "tiny-v0")
    assert in_process(export_minari.main, *arguments) == 0
    dataset = minari.load_dataset("tiny-v0")
    assert dataset.total_episodes == len(recording) and [path.name for path in tmp_path.iterdir()] == ["tiny-v0"]
    for k in range(len(recording)):
        episode, copy = recording.episode(k), dataset[k]
        assert (copy.observations == episode["obs"]).all() and (copy.actions == episode["action"][:-1]).all()
        assert (copy.infos["hidden"] == episode["hidden"]).all() and (copy.rewards == episode["reward"][:-1]).all()
    (known,) = dataset.storage.get_episode_metadata([0])
    assert known["seed"] == recording.episode(0).seed and known["options"]["behaviour"] == "argmax"
    assert in_process(export_minari.main, *arguments) == 2


def test_without_minari_it_says_how_to_have_it(recording, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "minari", None)
    for dataset_id, words in (("tiny-v0", "pip install"), ("tiny", "--dataset_id"), ("../a-v0", "--dataset_id")):
        assert words in refused(capsys, export_minari.main, "--data_dir", recording.folder, "--dataset_id", dataset_id)
