"""Attribution of games: patches, targets, planted causes, explanations, and the command on the real CoinRun.

What needs a recording is skipped where envpool or the Qt that it needs is missing (`make coinrun`).
"""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import orjson
import pandas as pd
import pytest
import torch
from checks import refusal
from generative_data import tiny_pair
from generative_frame_toys import Fading, Still, ToyRecording, ToyScenes, lit_frames, reader, toy_episode
from generative_game_data import flags, record_agent, skip_without_games, tiny_agent
from scripts import check_refused, in_process, refused

from generative import fidelity, hazards, saliency, train_gen_model
from generative.agents.networks import make_agent
from generative.attribution.closed_loop import untrained
from generative.attribution.common_targets import recorded_values
from generative.attribution.explanations import PATHS
from generative.attribution.hazard_study import HazardMoment, find_moments, load_measured
from generative.attribution.loop_inputs import VIEW, Place, hidden_at
from generative.attribution.recorded_steps import explain, headline
from generative.domains.base import Answer
from generative.domains.coinrun.causes import (
    COLUMNS,
    SIDE,
    FrameExplanation,
    Patch,
    frames_without,
    kinds_of_patches,
    visible_patches,
)
from generative.domains.coinrun.decoder import frame_views
from generative.domains.coinrun.domain import COINRUN
from generative.domains.coinrun.games import RIGHT, RIGHT_AND_JUMP
from generative.domains.coinrun.objects import KINDS
from generative.domains.coinrun.policy import FrozenAgent
from generative.domains.coinrun.scenes import agreement_of_patches, answer_after
from generative.domains.coinrun.targets import action_names, jumps_of, parse_target
from generative.domains.registry import load_recorded_policy
from generative.figures.attribution import plot_map, plot_strip
from generative.recordings.format import Episode, open_recording
from generative.simulators import evaluation
from mop.artifacts.records import write_record

SHAPE = {"encoder": "half-nature", "num_features": 8, "hidden_size": 8, "actions": [1, 7, 8, 5], "is_recurrent": True}


def objects_with(**points) -> np.ndarray:
    """What is at each point (64, 64): nothing but rectangles (top, bottom, left, right) of some kinds."""
    found = np.zeros((64, 64), np.uint8)
    for kind, (top, bottom, left, right) in points.items():
        found[top:bottom, left:right] = KINDS.index(kind)
    return found


def random_agent(seed: int = 0) -> FrozenAgent:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        agent = make_agent(SHAPE)
        agent.actor.weight.data.mul_(50)
    return FrozenAgent(agent)


def test_a_patch_shows_the_rarest_kind_of_which_enough_is_in_it():
    objects = objects_with(ground=(32, 64, 0, 64), saw=(34, 36, 8, 10), coin=(34, 37, 16, 17), agent=(24, 32, 24, 32))
    shown = kinds_of_patches(objects[None])[0].reshape(COLUMNS, COLUMNS)
    names = [[KINDS[number] for number in row] for row in shown]
    assert names[4][:3] == ["ground", "saw", "ground"], "three points of a coin are too few"
    assert names[3][3] == "agent" and names[0] == ["nothing"] * COLUMNS
    assert sum(name == "ground" for row in names for name in row) == 31


def test_a_frame_without_patches_is_black_there_alone_and_black_patches_are_no_things():
    frame = lit_frames(1)[0]
    seen = visible_patches(frame, np.arange(64) % len(KINDS))
    assert len(seen) == 44 and all(patch.number == patch.cell % len(KINDS) for patch in seen)
    one, both = frames_without(frame, [[seen[3]], [seen[0], seen[9]]])
    where = np.zeros((64, 64), bool)
    where[seen[3].y * SIDE : (seen[3].y + 1) * SIDE, seen[3].x * SIDE : (seen[3].x + 1) * SIDE] = True
    assert np.array_equal(one, np.where(where, 0, frame)) and (frame[:, where] > 0).all()
    left = visible_patches(both, np.zeros(64, int))
    assert {patch.cell for patch in left} == {patch.cell for patch in seen} - {seen[0].cell, seen[9].cell}
    assert str(Patch(4, 3, KINDS.index("saw"))) == "saw, column 5 row 4 of 8"


def test_targets_of_a_game_are_what_they_say():
    agent = random_agent()
    logits = torch.tensor([[0.5, -1.0, 2.0, 0.25]])
    answer = Answer(logits, [], torch.zeros(1, 8), torch.tensor([3.5]))
    shares = logits.softmax(-1)[0]
    assert action_names(agent) == ["left", "right", "right and jump", "jump"]
    assert jumps_of(agent).tolist() == [False, False, True, True]
    expected = {
        "jump": (shares[2:].sum() / shares[:2].sum()).log(),
        "action:right_and_jump": 2.0 - logits.mean(),
        "action:right": -1.0 - logits.mean(),
        "value": 3.5,
        "entropy": -(shares * shares.log()).sum(),
    }
    for text, value in expected.items():
        assert parse_target(text, agent)(answer).item() == pytest.approx(float(value), abs=1e-6), text
    chosen = parse_target("action:chosen", agent, chosen=0)
    assert chosen(answer).item() == pytest.approx(0.5 - logits.mean().item())
    assert parse_target("action:right and jump", agent).name == "action:right and jump"


@pytest.mark.parametrize(
    "text, message",
    [
        ("routing:0.1", "has no routers"), ("lpc", "has no routers"), ("entropy:1", "has no routers"),
        ("action:toggle", "unknown target"), ("luck", "unknown target"), ("direction:2", "give --directions"),
    ],
)  # fmt: skip
def test_what_an_agent_of_a_game_does_not_have_is_refused(text, message):
    assert message in refusal(parse_target, text, random_agent())


def explain_toy(agent, simulator, frames, step=6, horizon=5, num_points=2, target="jump") -> FrameExplanation:
    episode = toy_episode(agent, frames)
    scenes = ToyScenes(simulator, np.repeat(objects_with(saw=(16, 24, 40, 48))[None], len(frames), 0))
    of = parse_target(target, agent)
    recording, place = ToyRecording(episode), Place(0, step, horizon)
    return explain(COINRUN, agent, scenes, recording, place, of, VIEW, num_points=num_points, is_own=False)


@pytest.fixture(scope="module", name="planted")
def _planted():
    """An agent that reads patch 5, 2 three steps earlier, in a world in which nothing happens."""
    return explain_toy(reader(5, 2, delay=3), Still(), lit_frames(9, seed=4))


def test_a_planted_cause_is_found_at_its_patch_and_lag_and_nowhere_else(planted):
    frame = planted.obs[0]
    light = frame[:, 16:24, 40:48].mean() / 255
    assert light > 0.3 and planted.value == pytest.approx(light, abs=1e-5)
    is_patch = (planted.things[:, 0] == 5) & (planted.things[:, 1] == 2)
    assert is_patch.sum() == 6 and len(planted.lag) == 6 * 44
    assert np.abs(planted.attribution[~is_patch]).max() == 0
    by_lag = planted.by_path[is_patch]
    expected = np.zeros((6, len(PATHS)))
    expected[3, PATHS.index("memory")] = light  # seen then, and remembered
    expected[4:, PATHS.index("mixed")] = light  # still there three steps before, and remembered from then on
    assert np.allclose(by_lag, expected, atol=1e-5)
    assert {planted.thing(row).kind for row in np.flatnonzero(is_patch)} == {"saw"}
    true = planted.contribution[:, 1].reshape(6, -1)
    assert np.allclose(true[3], planted.total.reshape(6, -1)[3], atol=1e-5), "hidden then, the agent does not know it"
    assert np.abs(np.delete(true, 3, 0)).max() < 1e-6 and np.isnan(planted.contribution[:, 0]).all()


def test_the_agreement_with_the_real_agent_is_perfect_where_the_cause_is_planted(planted):
    table = agreement_of_patches([planted] * 3)
    pairs = {key: rows.set_index("lag") for key, rows in table.groupby(["prediction", "truth"])}
    at_once, simulated = pairs["seen and remembered", "real agent"], pairs["all paths", "simulator"]
    assert at_once.index.tolist() == ["all", 3], "at other lags nothing has an effect, so there is nothing to rank"
    assert at_once["rho"].tolist() == pytest.approx([1, 1]) and simulated.loc["all", "rho"] == pytest.approx(1)
    assert simulated.loc["all", "cases"] == 9


@pytest.mark.slow
@pytest.mark.parametrize("target", ["jump", "value"])
def test_attribution_is_complete_and_its_paths_add_up(target):
    """In a smooth world, of an agent as games have them: the predicted effects are those of the simulator."""
    agent = random_agent(1)
    frames = lit_frames(5, seed=1, num_black=58)
    found = explain_toy(agent, Fading(), frames, step=3, horizon=2, num_points=32, target=target)
    simulated = found.total - found.gap
    size = np.abs(simulated).max()
    assert size > 1e-4 and np.abs(found.gap).max() < 0.06 * size
    assert np.allclose(found.by_path.sum(1), found.total, atol=1e-5 * max(size, 1))
    later = found.lag > 0
    assert (np.abs(found.by_path[later, 0]) == 0).all() and (np.abs(found.by_path[~later, 1:]) == 0).all()
    for path in ("memory", "world"):
        assert np.abs(found.by_path[later, PATHS.index(path)]).max() > 1e-3 * size, path
    assert np.allclose(simulated[~later], found.contribution[~later, 1], atol=1e-4 * max(size, 1))


def test_what_is_hidden_is_what_the_agent_would_have_answered(planted):
    """By brute force: the agent, step by step, with one patch black in one frame."""
    agent, frames = random_agent(2), lit_frames(6, seed=2)
    found, episode = explain_toy(agent, Still(), frames, step=4, horizon=2, num_points=1), toy_episode(agent, frames)
    target, row = parse_target("jump", agent), int(np.flatnonzero(found.lag == 2)[7])
    hidden = agent.initial_hidden(1)
    for t in range(5):
        (frame,) = frames_without(frames[t], [[found.thing(row)] if t == 2 else []])
        answer = agent.step(frame_views(torch.from_numpy(frame))[None], agent.embed([""]), hidden)
        hidden = answer.hidden
    recorded = recorded_values(episode, target, [])[4]
    assert found.contribution[row, 1] == pytest.approx((recorded - target(answer)).item(), abs=1e-5)
    again = answer_after(agent, [frame[None] for frame in frames[2:5]], torch.from_numpy(episode["hidden"][2][None]))
    assert target(again).item() == pytest.approx(float(found.value), abs=1e-5)


def test_an_explanation_comes_back_from_its_file_and_is_told_in_words(planted, tmp_path):
    write_record(tmp_path / "one.npz", planted)
    again = FrameExplanation.load(tmp_path / "one.npz")
    assert isinstance(again, FrameExplanation) and np.array_equal(again.attribution, planted.attribution)
    told = [sentence for sentence in again.sentences(10) if f"memory {float(planted.value):+.3f}" in sentence]
    assert len(told) == 1 and "column 6 row 3 of 8" in told[0] and "level 5" in headline(again)


def test_pictures_show_each_patch_over_the_frame(planted):
    picture = planted.picture(3)
    assert picture.shape == (256, 256, 3) and np.array_equal(picture[::4, ::4].transpose(2, 0, 1), planted.obs[3])
    figure = plot_map(planted, lag=3)
    drawn = figure.axes[1].images[1].get_array()
    assert drawn.shape == (8, 8) and drawn[2, 5] == pytest.approx(float(planted.value), abs=1e-5)
    assert np.count_nonzero(drawn) == 1 and np.array_equal(figure.axes[0].images[0].get_array(), picture)
    panels = [ax for ax in plot_strip(planted).axes if len(ax.images) == 2]
    assert len(panels) == 4 * 6 and panels[0].get_title() == "5 earlier"
    assert panels[6 + 2].images[1].get_array()[2, 5] == pytest.approx(float(planted.value), abs=1e-5), "by memory"


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    """A recording of an untrained agent, and a tiny simulator of it that passes for measured."""
    skip_without_games()
    folder = tmp_path_factory.mktemp("studied")
    recording = record_agent(tiny_agent(folder), folder / "recording", max_steps=24)
    learn = flags(data_dir=recording, param_name="tiny", num_updates=4, batch_size=4, num_sim_steps=4, seed=0)
    assert (
        in_process(train_gen_model.main, *learn, "--tgm_exp_name", "tiny", "--output_dir", folder / "simulators") == 0
    )
    simulator = folder / "simulators" / "tiny"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "MIN_TRIALS", 2)
        measured = flags(simulator=simulator, data_dir=recording, num_trials=4, num_horizons=3, horizon=2)
        assert in_process(fidelity.main, *measured, "--actors", "trained") == 0
    path = simulator / "fidelity.json"
    found = orjson.loads(path.read_bytes())
    found["settings"]["num_trials"] = 100
    path.write_bytes(orjson.dumps(found))
    return recording, simulator


def common(studied, out, **more) -> list[str]:
    recording, simulator = studied
    small = {"data_dir": recording, "simulator": simulator, "out": out, "horizon": 2, "num_points": 1}
    return flags(**(small | {"min_fidelity": 0, "split": "train"} | more))


@pytest.mark.slow
def test_the_command_writes_what_it_says_and_goes_on(studied, tmp_path, capsys):
    out = tmp_path / "out"
    words = common(studied, out, of="jump", num_episodes=2)
    assert in_process(saliency.main, *words) == 0
    text = capsys.readouterr().out
    assert text.count("## jump at step") == 2 and "hidden from the real agent" in text and "real agent | all" in text
    names = {path.name for path in out.iterdir()}
    files = sorted(name for name in names if name.endswith(".npz"))
    tables = {"causes.csv", "checked.csv", "kinds.csv", "sizes.csv", "agreement.csv", "causes.md", "horizon.png"}
    assert len(files) == 2 and names >= tables | {"config.json"} and len(names) == 8 + 3 * 2
    causes = pd.read_csv(out / "causes.csv")
    assert causes["true_forced"].notna().all() and causes["true_acting"].isna().all()
    assert set(causes["kind"]) >= {"agent", "ground"} and set(causes["kind"]) <= set(KINDS)
    found = FrameExplanation.load(out / files[0])
    recording = open_recording(studied[0])
    episode, agent = recording.episode(int(found.episode)), load_recorded_policy(recording)[0]
    values = recorded_values(episode, parse_target("jump", agent), [])
    assert values.argmax() == found.step and values.max().item() == pytest.approx(float(found.value), abs=1e-5)
    assert found.simulated[0] == pytest.approx(float(found.value), abs=1e-3), "at the step itself, the frame is given"
    assert np.array_equal(found.obs[1], episode["obs"][int(found.step) - 1])
    before, stamp = (out / files[0]).read_bytes(), (out / files[1]).stat().st_mtime_ns
    (out / files[0]).unlink()
    assert in_process(saliency.main, *words) == 0
    assert (out / files[0]).read_bytes() == before, "the same bytes again"
    assert (out / files[1]).stat().st_mtime_ns == stamp, "what is there is kept"
    assert str(out) in refused(capsys, saliency.main, *words, "--method", "gradient")


def test_another_agent_remembers_what_it_has_watched(studied):
    recording = open_recording(studied[0])
    agent, config = load_recorded_policy(recording)[0], recording.config["checkpoint"]["config"]
    episode, step = recording.episode(0), 4
    twin = FrozenAgent(agent.agent)
    watched = hidden_at(twin, agent, episode, step, frame_views)
    assert torch.allclose(watched, torch.from_numpy(np.array(episode["hidden"][step]))[None], atol=1e-5)
    one, again, other = (untrained(agent, config, seed) for seed in (0, 0, 1))
    shared = [name for name, part in one.agent.state_dict().items() if part.numel() > 1 and part.std() > 0]
    assert len(shared) >= 8
    for name in shared:
        assert torch.equal(one.agent.state_dict()[name], again.agent.state_dict()[name]), name
        assert not torch.equal(one.agent.state_dict()[name], other.agent.state_dict()[name]), name


def test_bad_input_is_one_line_and_code_2(studied, tmp_path, capsys):
    cases = {
        ("--simulator", "exact"): "exact",
        ("--of", "routing:0.1"): "routers",
        ("--of", "action:toggle"): "action:toggle",
        ("--what", "world"): "--what",
        ("--horizon", 9): "horizon",
    }
    check_refused(capsys, saliency.main, cases, *common(studied, tmp_path / "out"))


def test_a_simulator_of_another_agent_is_refused(studied, tmp_path, capsys):
    other = record_agent(tiny_agent(tmp_path, seed=1), tmp_path / "other", num_steps=240)
    capsys.readouterr()
    for command in (saliency, hazards):
        words = flags(data_dir=other, simulator=studied[1], out=tmp_path / "out", min_fidelity=0)
        assert "another policy" in refused(capsys, command.main, *words)


@pytest.mark.slow
def test_the_hazard_command_writes_what_it_says_and_ends_alike_after_a_kill(studied, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(hazards, "find_moments", moments_of_one_who_changes_its_mind)
    words = {"num_moments": 4, "ahead": 40, "policies": "argmax,sampled,noisy,random"}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert in_process(hazards.main, *common(studied, whole, **words)) == 0
    text = capsys.readouterr().out
    assert "steps before a jump, hazards have" in text and "The real agent loses" in text
    files = sorted((whole / "moments").iterdir())
    assert 2 <= len(files) <= 8 and any(load_measured(path).has_jump for path in files)
    table = pd.read_csv(whole / "hazards.csv")
    assert set(table["reader"]) >= {"trained", "without world", "untrained", "shuffled", "hazard hidden"}
    assert set(table["measure"]) == {"enrichment", "rank", "signed", "loss"}
    assert {path.name for path in whole.iterdir()} >= {"frames.csv", "hazards.md", "hazards.png", "config.json"}

    measure, calls = hazards.Study.measure, []

    def interrupted(study, moment):
        calls.append(moment)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return measure(study, moment)

    with monkeypatch.context() as patch:
        patch.setattr(hazards.Study, "measure", interrupted)
        with pytest.raises(KeyboardInterrupt):
            in_process(hazards.main, *common(studied, broken, **words))
    assert len(list((broken / "moments").iterdir())) == 1
    assert in_process(hazards.main, *common(studied, broken, **words)) == 0
    for path in files:
        assert (broken / "moments" / path.name).read_bytes() == path.read_bytes(), path.name
    assert (broken / "hazards.csv").read_bytes() == (whole / "hazards.csv").read_bytes()


def moments_of_one_who_changes_its_mind(recording, *more) -> list[HazardMoment]:
    """As `find_moments`, of an agent that would jump at every other step: the untrained one always would."""

    def episode(k: int) -> Episode:
        rows = recording.episode(k)
        changing = np.where(np.arange(len(rows["student"])) % 2, RIGHT_AND_JUMP, RIGHT)
        return replace(rows, arrays={**rows.arrays, "student": changing})

    return find_moments(SimpleNamespace(episode=episode), *more)


def test_hazards_are_asked_of_games_alone_and_must_be_there(studied, tmp_path, capsys):
    nothing = common(studied, tmp_path / "out", ahead=1, policies="argmax", num_moments=1)
    assert in_process(hazards.main, *nothing) == 2
    assert "within 1 points" in capsys.readouterr().err.splitlines()[-1]  # after a bar of progress
    babyai, _ = tiny_pair(tmp_path)
    assert str(babyai.folder) in refused(capsys, hazards.main, *flags(data_dir=babyai.folder, simulator=studied[1]))
