"""Films of generative/: what frames show, episodes that are played now, simulations beside the truth, the command."""

import io
import re
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
from checks import refusal
from eval_helpers import UNLOCK
from generative_data import record_tiny, tiny_checkpoint
from PIL import Image, ImageColor
from scripts import check_refused, in_process

from generative import render
from generative.domains.babyai import render as render_babyai
from generative.domains.babyai.pictures import wrong_cells
from generative.domains.babyai.policy import FrozenPolicy
from generative.domains.babyai.rollouts import play, sampler
from generative.figures.film import Film, Strip, draw_frames, gif_bytes, mp4_bytes
from generative.recordings.format import open_recording
from mop.common.conventions import ACTION_NAMES
from mop.envs.babyai import World
from mop.evaluation.rollout import Answer, greedy


@pytest.fixture(scope="module")
def shared_recording(tmp_path_factory) -> Path:
    """A recording of a few episodes, which is only read."""
    folder = tmp_path_factory.mktemp("recording")
    record_tiny(tiny_checkpoint(folder / "checkpoints"), folder / "recording", num_steps=120, max_steps=12)
    return folder / "recording"


def frames_of(content: bytes) -> list[np.ndarray]:
    film = Image.open(io.BytesIO(content))
    shown = []
    for number in range(film.n_frames):
        film.seek(number)
        shown.append(np.asarray(film.convert("RGB")).astype(int))
    return shown


def test_strips_show_the_weights_and_a_frame_the_step():
    hues = ["#ff0000", "#00ff00"]
    weights = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    picture = np.zeros((8, 16, 3), np.uint8)
    strip = Strip("layer 0", weights, ["a", "b"], hues)
    film = Film(["title"], [("the world", [picture] * 3)], [["a caption"]] * 3, [strip])
    frames = [np.asarray(frame) for frame in draw_frames(film)]
    red, green = (np.array(ImageColor.getrgb(hue)) for hue in hues)
    is_strip = [(frame == red).all(-1) | (frame == green).all(-1) for frame in frames]
    rows, columns = np.nonzero(is_strip[0][:, 200:])  # right of the legend's squares
    top, left, right = rows.min(), 200 + columns.min(), 200 + columns.max()
    assert right - left > 250 and len({frame.shape for frame in frames}) == 1
    for t, frame in enumerate(frames):
        place = 120 + round((t + 0.5) / 3 * (right + 1 - 120))
        column = frame[top : top + 26, place]
        shares = [(column == hue).all(-1).mean() for hue in (red, green)]
        np.testing.assert_allclose(shares, weights[t], atol=0.1)
        is_marked = (frame[top - 2] == 0).all(-1)  # the frame around step t
        assert is_marked[place] and not is_marked[place + 200 if t == 0 else place - 200]


def test_a_gif_plays_at_its_speed_and_stays_at_its_end():
    frames = [Image.new("RGB", (5, 4), color) for color in ("red", "blue", "white", "black")]
    film, durations = Image.open(io.BytesIO(gif_bytes(frames, 5))), []
    assert film.format == "GIF" and film.info["loop"] == 0
    for number in range(film.n_frames):
        film.seek(number)
        durations.append(film.info["duration"])
    assert durations == [200] * 3 + [2000]


def test_captions_say_what_is_done_and_held(shared_recording):
    recording = open_recording(shared_recording)
    episodes = [recording.episode(k) for k in range(len(recording))]
    episode = next(e for e in episodes if (e["carried"][:-1] != e["carried"][0]).any())  # something is picked up
    sizes = recording.config["encoding"]["expert_hidden_sizes"]
    captions = render_babyai.episode_film(episode, [], sizes).captions
    num_steps = len(episode["action"]) - 1
    for t, (first, action, held, cost) in enumerate(captions[:-1]):
        assert first == f"step {t} of {num_steps}" and cost == f"LPC {episode['lpc'][t]:,.0f}"
        assert f": {ACTION_NAMES[episode['action'][t]]} (p = " in action
        is_empty = (episode["carried"][t] == episode["carried"][0]).all()
        assert (held == "hands empty") == is_empty and (
            is_empty or re.fullmatch(r"carrying the \w+ (key|box|ball)", held)
        )
    assert captions[-1] == [
        f"after the last action ({num_steps} steps)",
        "success" if episode.success else "failure: out of steps",
    ]
    stopped = {name: array[:4] for name, array in episode.items()} | {"action": np.array([0, 1, 2, -1])}
    assert not any(stopped[name].any() for name in ("reward", "terminated", "truncated"))
    for name, words in (("reward", "success"), ("terminated", "failure"), ("truncated", "failure: out of steps")):
        ended = stopped | {name: np.arange(4) == 2}
        assert render_babyai.episode_film(ended, [], sizes).captions[-1][1] == words
    assert "failure" not in render_babyai.episode_film(stopped, [], sizes).captions[-1][1]
    alone = dict(episode.items()) | {"routing": np.ones((num_steps + 1, 1), np.float32)}
    bare = render_babyai.episode_film(alone, [], [[64]])
    assert bare.strips == [] and "LPC" not in str(bare.captions), "a baseline has no gates"


def test_wrong_cells_are_those_that_differ():
    rng = np.random.default_rng(0)
    true = rng.integers(0, 3, (5, 152)).astype(np.uint8)
    other = np.where(rng.random((5, 152)) < 0.1, 9, true).astype(np.uint8)
    found, num_wrong = wrong_cells(true, other), 0
    for t in range(5):
        for i in range(7):
            for j in range(7):
                differs = any(true[t, c * 49 + i * 7 + j] != other[t, c * 49 + i * 7 + j] for c in range(3))
                assert found[t, j, i] == differs
                num_wrong += differs
    assert found.sum() == num_wrong > 10 and not wrong_cells(true, true).any()


def test_an_mp4_needs_an_encoder_and_gives_it_every_frame(monkeypatch, tmp_path):
    frames = [Image.new("RGB", (5, 4), color) for color in ("red", "blue")]
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    refusal(mp4_bytes, frames, 4)
    stand_in = tmp_path / "ffmpeg"  # writes what it is given, behind its arguments
    stand_in.write_text(
        f"#!{sys.executable}\nimport sys\nopen(sys.argv[-1], 'wb').write(' '.join(sys.argv).encode() + b'|' + "
        "sys.stdin.buffer.read())\n"
    )
    stand_in.chmod(stand_in.stat().st_mode | stat.S_IXUSR)
    given, _, pixels = mp4_bytes(frames, 4).partition(b"|")
    assert b"-s 6x4 -r 4" in given  # even sides
    assert len(pixels) == 6 * 4 * 3 * (2 + 8)  # the last one stays for 2 s
    assert pixels[:3] == bytes([255, 0, 0]) and pixels[-24:][:3] == bytes([0, 0, 255])


def test_playing_gives_what_a_recording_has(shared_recording):
    recording = open_recording(shared_recording)
    policy, config = FrozenPolicy.load(recording.config["checkpoint"]["path"])
    numbers = recording.episodes(behaviours=["argmax"])[:2]
    worlds = [World(UNLOCK, recording.config["encoding"]["max_steps"]) for _ in numbers]
    for world, k in zip(worlds, numbers, strict=True):
        world.reset(recording.episode(k).seed)
    played = play(policy, worlds)
    for rows, k in zip(played, numbers, strict=True):
        episode = recording.episode(k)
        assert set(rows) == set(episode) - {"bot"}
        for name, values in rows.items():
            np.testing.assert_allclose(values, episode[name], rtol=1e-6, atol=1e-5, err_msg=name)
    assert len(played) == 2 and config["task_id"] == UNLOCK


def test_playing_stops_after_some_steps_and_measures_every_row(tmp_path):
    policy, _ = FrozenPolicy.load(tiny_checkpoint(tmp_path))
    worlds = [World(UNLOCK, max_steps) for max_steps in (3, 50)]
    for world in worlds:
        world.reset(1)
    short, long = play(policy, worlds, num_steps=6, measure=lambda answer: answer.routing[0][:, 0])
    assert short["action"].tolist()[3:] == long["action"].tolist()[6:] == [-1]
    assert short["truncated"].tolist() == [False, False, True, False] and not long["truncated"].any()
    for rows in (short, long):
        np.testing.assert_array_equal(rows["value"], rows["routing"][:, 0])
    np.testing.assert_allclose(short["value"], long["value"][:4], atol=1e-6)


def test_sampled_actions_are_those_of_the_seed_and_of_the_probabilities():
    import torch

    logits = torch.log(torch.tensor([0.7, 0.2, 0.1])).expand(20_000, 3)
    first, again, other = (sampler(seed)(None, Answer(logits, [], None)) for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    np.testing.assert_allclose(np.bincount(first) / 20_000, [0.7, 0.2, 0.1], atol=0.02)
    assert greedy(None, Answer(logits[:2], [], None)).tolist() == [0, 0]


def test_films_of_a_recording_and_of_simulations(shared_recording, monkeypatch, tmp_path, capsys):
    recording, out = open_recording(shared_recording), tmp_path / "films"
    common = ("--data_dir", shared_recording, "--vid_dir", out)
    assert in_process(render.main, *common, "--episode", 1, "--num_eps", 2) == 0
    for k in (1, 2):
        frames = frames_of((out / f"recording_episode_{k}.gif").read_bytes())
        assert len(frames) == len(recording.episode(k)["action"])
    assert in_process(render.main, *common, "--episode", 1, "--simulator", "exact", "--step", 3) == 0
    frames = frames_of((out / "recording_episode_1_step_3_exact_recorded.gif").read_bytes())
    assert len(frames) == len(recording.episode(1)["action"]) - 3
    flags = ("--simulator", "exact", "--actions", "own", "--num_sim_steps", 4)
    assert in_process(render.main, *common, "--episode", 1, *flags) == 0
    assert len(frames_of((out / "recording_episode_1_step_0_exact_own.gif").read_bytes())) == 4
    assert "4 frames" in capsys.readouterr().out


def test_a_simulation_of_recorded_actions_is_right_everywhere(shared_recording, monkeypatch):
    films = []
    monkeypatch.setattr(render, "film_bytes", lambda film, *_: films.append(film) or b"film")
    for k in range(4):
        flags = ("--episode", k, "--simulator", "exact", "--step", k, "--vid_dir", shared_recording.parent)
        assert in_process(render.main, "--data_dir", shared_recording, *flags) == 0
    for film in films:
        assert {lines[2] for lines in film.captions} == {"0 of 49 cells are wrong (red)"}
        strips = {strip.label: strip.weights for strip in film.strips}
        assert len(strips) == 4  # two layers, truth and simulation
        for layer in (0, 1):
            pair = (strips[f"layer {layer}, {which}"] for which in ("truth", "simulation"))
            np.testing.assert_allclose(*pair, atol=1e-5)
    assert len(films) == 4


def test_a_policy_plays_now(monkeypatch, tmp_path):
    checkpoint = tiny_checkpoint(tmp_path / "checkpoints")
    contents = {}
    for number, flags in enumerate([(), (), ("--policy", "sampled"), ("--policy", "sampled", "--seed", 1)]):
        words = ("--model_file", checkpoint, "--max_steps", 9, "--world_seed", 4, "--vid_dir", tmp_path / str(number))
        assert in_process(render.main, *words, *flags) == 0
        (path,) = (tmp_path / str(number)).glob("*.gif")
        contents[number] = path.read_bytes()
        assert path.name == f"UnlockPickup_world_4_{'sampled' if flags else 'argmax'}.gif"
        assert len(frames_of(contents[number])) == 10
    assert contents[0] == contents[1] and len(set(contents.values())) == 3


def test_bad_input_is_one_line(monkeypatch, tmp_path, capsys, shared_recording):
    monkeypatch.chdir(tmp_path)
    of, checkpoint = ("--data_dir", shared_recording), next(shared_recording.parent.rglob("checkpoint_final.pt"))
    cases = {
        (): "--checkpoint",
        ("--checkpoint", "missing.pt"): "missing.pt",
        ("--checkpoint", "x.pt", "--simulator", "exact"): "--data_dir",
        ("--data_dir", "nowhere"): "nowhere",
        (*of, "--episode", "999"): "episodes 0 to",
        (*of, "--simulator", "exact", "--step", "999"): "--step 999",
        (*of, "--simulator", "nowhere"): "nowhere",
        ("--checkpoint", checkpoint, "--task_id", "BabyAI-Nowhere-v0"): "BabyAI-Nowhere-v0",
    }
    check_refused(capsys, render.main, cases)
