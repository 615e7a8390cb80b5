"""The learned simulator of CoinRun: what it says of frames, its losses, training, fidelity and films of it.

What needs a recording is skipped where envpool or the Qt that it needs is missing (`make coinrun`).
"""

import dataclasses
import re
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import orjson
import pytest
import torch
from checks import refusal, strict_json
from generative_data import tiny_pair
from generative_game_data import flags, tiny_agent
from PIL import Image
from scripts import check_refused, in_process, refused
from torch.nn import functional as F

from generative import fidelity, render, train_gen_model
from generative.domains.coinrun.decoder import NUM_POINTS, WHITE, FrameDecoder, frame_views
from generative.domains.coinrun.domain import COINRUN
from generative.domains.coinrun.games import RIGHT_AND_JUMP, begin_level
from generative.domains.coinrun.policy import FrozenAgent
from generative.domains.coinrun.trials import ACTORS, MEASURES, run_trials, sums_of, usual_forecasts
from generative.domains.registry import load_recorded_policy, load_simulator
from generative.figures.simulators import plot_fidelity
from generative.simulators.evaluation import (
    COPY,
    Forecast,
    by_model,
    by_shuffled,
    check_fidelity,
    choose_moments,
    measure,
)
from generative.simulators.losses import Frames, losses, simulate
from generative.simulators.training import SimulatorRun, make_config, resolve_settings
from generative.simulators.world_model import WorldModel
from mop.common.cli import given_values

TINY = COINRUN.presets["tiny"]
PAPER = [  # the flags of the paper's command, but for its two paths
    *("--param_name=hard-rec", "--log_interval=10", "--batch_size=28", "--num_sim_steps=28"),
    *("--num_initializing_steps=3", "--save_interval=10000", "--lr=1e-4", "--env_name=coinrun"),
    *("--loss_scale_obs=1000.0", "--loss_scale_hx=1.0", "--loss_scale_reward=0.01", "--loss_scale_done=0.1"),
    *("--loss_scale_act_log_probs=0.00001", "--loss_scale_gen_adv=0.", "--loss_scale_kl=1.0"),
    "--tgm_exp_name=trainable_hx",
]
T = 5


@pytest.fixture(scope="module")
def parts(game_recording):
    """A model, the agent, and six windows of seven frames, some of which end early."""
    agent, _ = load_recorded_policy(game_recording)
    torch.manual_seed(0)
    model = WorldModel(COINRUN, TINY, 8, num_actions=9)
    windows = game_recording.windows(7, "train", least=4)
    of_all = windows.batch(np.arange(len(windows)), ["terminated"])
    ending, short = (np.flatnonzero(one)[:2] for one in (of_all["terminated"].any(1), ~of_all["mask"].all(1)))
    return model, agent, Frames.of(windows.batch([0, 30, *ending, *short], COINRUN.arrays), COINRUN)


def run_of(game_recording, **settings) -> SimulatorRun:
    agent, path = load_recorded_policy(game_recording)
    small = {"num_initializing_steps": 3, "seed": 0, "num_sim_steps": 4, "batch_size": 6}
    config = make_config(COINRUN, COINRUN.settings["tiny"] | small | settings, "tiny", game_recording, path)
    return SimulatorRun(COINRUN, config, agent, game_recording)


def random_views(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, (*shape, NUM_POINTS), generator=torch.Generator().manual_seed(1)).float()


def test_surprise_is_half_the_squared_error_of_points_from_black_to_white():
    views = FrameDecoder(4, 5, 4, 16)
    black, white, grey = (torch.full((1, NUM_POINTS), light) for light in (0.0, WHITE, 51.0))
    assert views.nats(torch.ones(1, NUM_POINTS), black).item() == NUM_POINTS / 2
    assert views.nats(torch.ones(1, NUM_POINTS), white).item() == 0
    assert views.nats(torch.full((1, NUM_POINTS), 0.5), grey).item() == pytest.approx(NUM_POINTS * 0.09 / 2, rel=1e-5)
    points, seen = torch.rand(2, 3, NUM_POINTS), random_views(2, 3)
    normal = torch.distributions.Normal(points.double(), 1.0)
    constant = NUM_POINTS * np.log(2 * np.pi) / 2
    expected = -normal.log_prob(seen.double() / WHITE).sum(-1) - constant
    assert torch.allclose(views.nats(points, seen).double(), expected, rtol=1e-4)


def test_what_is_shown_is_within_black_and_white_and_passes_every_gradient():
    views = FrameDecoder(4, 5, 4, 16)
    points = torch.tensor([[-0.5, 0.25, 1.75]]).repeat(1, NUM_POINTS // 3).requires_grad_()
    shown = views.decode(points)
    assert torch.allclose(shown[0, :3].detach(), torch.tensor([0.0, 0.25 * WHITE, WHITE]), atol=1e-4)
    weights = torch.randn(NUM_POINTS, generator=torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad((shown * weights).sum(), points)
    assert torch.allclose(gradient[0], WHITE * weights)


@pytest.mark.parametrize("side", [16, 32, 64])
def test_frames_are_read_and_made_with_gradients_at_every_size(side):
    views = FrameDecoder(4, 5, 4, side)
    seen, features = random_views(2, 3).requires_grad_(), torch.randn(2, 3, 4, requires_grad=True)
    encoded, made = views.encode(seen), views(features)
    assert encoded.shape == (2, 3, 5) and made.shape == (2, 3, NUM_POINTS)
    assert torch.allclose(encoded[1, 2], views.encode(seen[1, 2][None])[0], atol=1e-5)
    assert torch.allclose(made[1, 2], views(features[1, 2][None])[0], atol=1e-5)
    of_frame, of_features = torch.autograd.grad(encoded.square().sum() + made.square().sum(), (seen, features))
    assert (of_frame != 0).float().mean() > 0.9 and (of_features != 0).all()


def test_the_agent_remembers_recorded_frames_as_it_did(game_recording, game_model):
    agent, _ = FrozenAgent.load(game_model)
    episode = game_recording.episode(0)
    views = frame_views(torch.from_numpy(np.array(episode["obs"])))[:, None].requires_grad_()
    hidden = torch.from_numpy(np.array(episode["hidden"]))
    answer = agent.run(views, agent.embed([""]), hidden[:1])
    assert torch.allclose(answer.hidden[:-1, 0], hidden[1:], atol=1e-5)
    assert torch.allclose(answer.value[:, 0], torch.from_numpy(np.array(episode["value"])), atol=1e-5)
    log_probs = answer.logits.log_softmax(-1)[:, 0]
    assert torch.allclose(log_probs, torch.from_numpy(np.array(episode["log_probs"])), atol=1e-5)
    (gradient,) = torch.autograd.grad(answer.value[-1, 0], views)
    assert (gradient[0] != 0).any() and not any(p.requires_grad for p in agent.agent.parameters())
    assert torch.equal(agent.initial_hidden(1), hidden[:1])


def test_terms_are_those_of_the_steps_before_the_end_one_by_one(parts):
    """By brute force: each term as a mean over single steps."""
    model, agent, frames = parts
    assert (~frames.mask).any() and frames.outcomes[..., 0].any()
    simulated = simulate(model, frames, 3, torch.zeros_like(frames.mask), None)
    found = losses(model, agent, frames, simulated, 3, torch.ones(8))
    shown, sums = model.views.decode(simulated.logits), {name: [] for name in COINRUN.terms}
    for n in range(frames.mask.shape[1]):
        hidden = frames.hidden[3, n][None]
        for t in range(7):
            if not frames.mask[t, n]:
                break
            points = (simulated.logits[t, n] - frames.views[t, n] / 255).double()
            sums["obs"].append(points.square().sum() / 2)
            end, reward = simulated.outcomes[t, n].double()
            is_end, came = frames.outcomes[t, n]
            sums["done"].append(-F.logsigmoid(end if is_end else -end))
            sums["reward"].append((reward - came) ** 2 / 2)
            if t < 3:
                continue
            if t > 3:
                sums["hx"].append((hidden[0] - frames.hidden[t, n]).square().sum() / 2)
            answer = agent.step(shown[t, n][None], frames.lang[:1], hidden)
            hidden = answer.hidden
            sums["value"].append((answer.value[0] - frames.value[t, n]) ** 2 / 2)
            true = frames.log_probs[t, n]
            sums["act_log_probs"].append((true.exp() * (true - answer.logits[0].log_softmax(-1))).sum())
    checked = {name: torch.stack([value.float() for value in values]).mean() for name, values in sums.items() if values}
    assert checked.keys() == {"obs", "hx", "value", "act_log_probs", "done", "reward"}
    for name, expected in checked.items():
        assert found[name].item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-6), name


def test_weights_count_as_in_the_loss_of_the_paper(game_recording, parts):
    """1000 times the mean squared error of a point, 1 times that of the memory, a KL of a window over 128, ..."""
    model, agent, frames = parts
    paper = dict(word.removeprefix("--").split("=") for word in PAPER)
    weights = {name: float(value) for name, value in paper.items() if name.startswith("loss_scale_")}
    run = run_of(game_recording, **weights, num_sim_steps=28)
    simulated = simulate(model, frames, 3, torch.zeros_like(frames.mask), None)
    found, mask = losses(model, agent, frames, simulated, 3, torch.ones(8)), frames.mask
    squared = (simulated.logits - frames.views / 255).square().mean(-1)[mask].mean()
    assert run.scales["obs"] * found["obs"].item() == pytest.approx(1000 * squared.item(), rel=1e-4)
    answer = agent.run(model.views.decode(simulated.logits[3:]), frames.lang, frames.hidden[3])
    of_memory = (answer.hidden[:-1] - frames.hidden[4:]).square().mean(-1)[mask[4:]].mean()
    assert run.scales["hx"] * found["hx"].item() == pytest.approx(of_memory.item(), rel=1e-4)
    of_reward = (simulated.outcomes[..., 1] - frames.outcomes[..., 1]).square()[mask].mean()
    assert run.scales["reward"] * found["reward"].item() == pytest.approx(0.01 * of_reward.item(), rel=1e-4)
    assert run.scales["done"] == 0.1 and run.scales["act_log_probs"] == 1e-5 and run.scales["kl"] == 28 / 128
    assert run.scales["kl"] / run.scales["obs"] == pytest.approx(1.344, abs=1e-3)  # beta of a unit variance


def test_the_loss_falls_and_frames_become_better_than_one_colour_on_unseen_levels(game_recording):
    run = run_of(game_recording, num_updates=120, lr=1e-2)
    first, *_, last = [run.step_update() for _ in range(120)]
    assert last["obs"] < 0.4 * first["obs"] and last["done"] < first["done"] and last["loss"] < 0.5 * first["loss"]
    frames, later = run.held_out, slice(run.num_init, None)
    true = frames.views[later][frames.mask[later]] / 255
    one_colour = (true.view(len(true), 3, -1) - true.view(len(true), 3, -1).mean((0, 2), keepdim=True)).square().mean()
    assert run.measured["val_error"] < 0.9 * one_colour.item() and run.best["loss"] == run.summary()["val_loss"]


def learning(recording, folder, **values) -> list[str]:
    chosen = {"data_dir": recording.folder, "output_dir": folder, "param_name": "tiny", "tgm_exp_name": "s", **values}
    return flags(**{"batch_size": 4, "num_sim_steps": 4, **chosen})


@pytest.fixture(scope="module")
def simulator(game_recording, tmp_path_factory):
    """The folder of a simulator of six updates."""
    folder = tmp_path_factory.mktemp("simulators")
    assert in_process(train_gen_model.main, *learning(game_recording, folder, num_updates=6, log_interval=1)) == 0
    return folder / "s"


def test_the_command_of_the_paper_trains(game_recording, game_model, tmp_path, monkeypatch, capsys):
    words = [*PAPER, "--agent_file", str(game_model), "--data_dir", str(game_recording.folder)]
    given = given_values(train_gen_model.Settings, "", words)
    settings = resolve_settings(COINRUN, "hard-rec", given)
    assert settings["loss_scale_obs"] == 1000 and settings["num_updates"] == 200_000 and settings["lr"] == 1e-4
    full = WorldModel(COINRUN, COINRUN.presets["hard-rec"], 64, num_actions=15)
    assert sum(p.numel() for p in full.parameters()) > 5e6
    with torch.no_grad():
        state = full.observe(random_views(1, 2), torch.zeros(1, 1, 15), torch.zeros(1, 0))
        assert full.view(full.step(state, torch.zeros(1, 15))).shape == (1, NUM_POINTS)
    monkeypatch.setitem(COINRUN.presets, "hard-rec", TINY)  # the flags alone, at a tiny size
    assert in_process(train_gen_model.main, *words, "--num_updates", 2, "--output_dir", tmp_path) == 0
    assert re.search(r"views +error 0\.\d+ one step ahead, 0\.\d+ in all", capsys.readouterr().out)
    model, config = load_simulator(tmp_path / "trainable_hx")
    assert config["domain"] == "game" and config["task_id"] == "coinrun" and model.num_actions == 9
    assert config["settings"]["batch_size"] == 28 and config["num_initializing_steps"] == 3


def test_what_cannot_be_learned_is_refused_in_one_line(game_recording, simulator, game_model, tmp_path, capsys):
    other = tiny_agent(tmp_path / "agents", seed=1)
    cases = {
        ("--agent_file", other): "--agent_file",
        ("--env_name", "caveflyer"): "caveflyer",
        ("--param_name", "babyai"): "--param_name",
        ("--loss_scale_routing", 1): "routing",
        ("--device", "nowhere"): "nowhere",
        ("--output_dir", simulator.parent): "--resume",
    }
    check_refused(capsys, train_gen_model.main, cases, *learning(game_recording, tmp_path))


@pytest.fixture(scope="module")
def trials(game_recording):
    agent, _ = load_recorded_policy(game_recording)
    moments = choose_moments(game_recording, "train", 6, 3, seed=0)
    return {actor: run_trials(moments, actor, agent, T, 0) for actor in ACTORS}, moments


def test_a_trial_is_what_happens_in_the_real_level(game_recording, trials):
    of_actor, moments = trials
    count = ends = 0
    for actor, found in of_actor.items():
        for n, (number, row) in enumerate(zip(moments.numbers, moments.rows, strict=True)):
            episode = game_recording.episode(number)
            game = begin_level(game_recording.config["encoding"], episode.seed)
            game.begin()
            for action in episode["action"][:row]:
                game.step(np.array([action]))
            assert np.array_equal(found.frames[:3, n], episode["obs"][row - 2 : row + 1])
            assert found.actions[:2, n].tolist() == episode["action"][row - 2 : row].tolist()
            is_over, hidden = False, torch.from_numpy(np.array(episode["hidden"][row]))[None]
            for t in range(T):
                assert found.mask[t, n] == (not is_over)
                if is_over:
                    continue
                if actor == "trained":
                    answer = found.policy.step(found.views(2 + t)[n][None], found.lang[:1], hidden)
                    assert found.actions[2 + t, n] == answer.logits.argmax()
                    hidden = answer.hidden
                    assert t > 0 or torch.equal(found.hidden[n], hidden[0])
                moment = game.step(found.actions[2 + t, n : n + 1].numpy())
                assert np.array_equal(found.frames[3 + t, n], moment.frames[0])
                assert found.is_end[t, n] == moment.is_terminal[0] and found.reward[t, n] == moment.reward[0]
                is_over, count = bool(moment.is_terminal[0] or moment.is_cut[0]), count + 1
            game.close()
            ends += is_over
    assert count > 60 and (of_actor["constant"].actions[2:] == RIGHT_AND_JUMP).all()
    assert len(of_actor["random"].actions[2:].unique()) > 3


def test_measures_of_the_truth_and_of_what_does_not_move(game_recording, trials):
    one, usual = trials[0]["constant"], usual_forecasts(game_recording)
    views = one.views(slice(3, None))
    ends = torch.where(torch.from_numpy(one.is_end), 50.0, -50.0)
    perfect = Forecast(views, torch.stack([ends, torch.from_numpy(one.reward)], -1))
    of_truth, of_copy = measure(one, perfect, sums_of), measure(one, usual[COPY](one), sums_of)
    expected = {"error": 0, "action_kl": 0, "done": 0, "reward": 0}
    for name, parts in of_truth.items():
        assert np.allclose(parts["mean"], expected.get(name, 1), atol=1e-5), name
    assert tuple(of_truth) == tuple(MEASURES)
    error = [((views[t] - one.views(2)) / 255).square().mean(-1)[one.mask[t]].mean().item() for t in range(T)]
    assert np.allclose(of_copy["error"]["mean"], error, rtol=1e-4) and of_copy["nearer"]["mean"] == [0.0] * T
    rows = game_recording.windows(1, "train").batch(np.arange(len(game_recording.windows(1, "train"))), ["obs"])["obs"]
    mean = usual["mean_picture"](one)
    picture = frame_views(torch.from_numpy(rows.astype(np.float64).mean((0, 1))))
    assert torch.allclose(mean.views, picture.expand_as(mean.views), atol=1e-3)
    assert max(measure(one, mean, sums_of)["picture_r2"]["mean"]) < 0.2
    after = one.frames.clone()
    after[3:][~torch.from_numpy(one.mask)] = 200  # what is after the end counts for nothing
    changed = dataclasses.replace(one, frames=after)
    brought, other = (sums_of(given, usual[COPY](one)) for given in (one, changed))
    assert all(np.array_equal(brought[name][k], other[name][k]) for name in brought for k in (0, 1))


class EveryRow:
    """All rows of 100 episodes of four steps, each with its terminal row, as `Recording.windows(1, "train")`."""

    def __len__(self) -> int:
        return 500

    def batch(self, numbers, names) -> dict[str, np.ndarray]:
        t = np.asarray(numbers)[:, None] % 5
        action, is_end = np.where(t == 4, -1, 0), t == 3
        arrays = {"obs": np.zeros((*t.shape, 3, 64, 64), np.uint8), "action": action, "terminated": is_end}
        return {name: (arrays | {"reward": 10.0 * is_end})[name] for name in names}


def test_episodes_end_as_often_as_steps_do_not_as_rows():
    forecasts = usual_forecasts(SimpleNamespace(windows=lambda length, split: EveryRow()))
    trials = SimpleNamespace(mask=np.ones((2, 1), bool), num_shown=1, views=lambda k: torch.zeros(1, NUM_POINTS))
    assert sorted(forecasts) == ["copy_last", "mean_picture"]
    for forecast in forecasts.values():
        end, reward = forecast(trials).outcomes[0, 0].tolist()
        assert (end, reward) == pytest.approx((np.log(1 / 3), 2.5), rel=1e-5)


def test_shuffled_actions_are_other_actions(trials, parts):
    model, one = parts[0], trials[0]["random"]
    told, shuffled = by_model(model, one), by_shuffled(model, one)
    assert told.views.shape == (T, 6, NUM_POINTS) and told.outcomes.shape == (T, 6, 2)
    assert torch.equal(by_model(model, one, one.one_hot_actions[2:]).views, told.views)
    assert not torch.equal(shuffled.views, told.views)


def test_fidelity_writes_numbers_table_and_figure(game_recording, simulator, tmp_path, capsys):
    words = flags(simulator=simulator, data_dir=game_recording.folder, num_trials=5, num_horizons=3, split="train")
    assert in_process(fidelity.main, *words, "--out", tmp_path / "a") == 0
    result = strict_json(tmp_path / "a" / "fidelity.json")
    assert list(result["actors"]) == ["trained", "random", "constant"] and result["horizons"] == [1, 2, 3]
    for forecasts in result["actors"].values():
        assert list(forecasts) == ["simulator", "shuffled", "copy_last", "mean_picture"]
        assert all(tuple(measures) == tuple(MEASURES) for measures in forecasts.values())
    assert "`picture_r2`" in (tmp_path / "a" / "fidelity.md").read_text() and plot_fidelity(result).axes
    assert in_process(fidelity.main, *words, "--out", tmp_path / "b", "--actors", "constant") == 0
    again = strict_json(tmp_path / "b" / "fidelity.json")["actors"]
    assert again == {"constant": result["actors"]["constant"]}  # whoever else is measured
    relied = tmp_path / "relied"
    shutil.copytree(simulator, relied)
    result["settings"] |= {"split": "test", "num_trials": 100}
    (relied / "fidelity.json").write_bytes(orjson.dumps(result))
    assert check_fidelity(relied, 2, min_fidelity=0.0)
    assert "--min_fidelity" in refusal(check_fidelity, relied, 2, min_fidelity=1.0)


def test_what_cannot_be_measured_is_refused_in_one_line(game_recording, simulator, tmp_path, monkeypatch, capsys):
    words = flags(simulator=simulator, data_dir=game_recording.folder, out=tmp_path, num_trials=2, split="train")
    babyai, policy = tiny_pair(tmp_path / "babyai")
    cases = {
        ("--simulator", "exact"): "exact",
        ("--actors", "untrained"): "--actors",
        ("--data_dir", babyai.folder, "--agent_file", policy): "another policy",
    }
    check_refused(capsys, fidelity.main, cases, *words)
    monkeypatch.setitem(sys.modules, "envpool", None)
    assert "make coinrun" in refused(capsys, fidelity.main, *words)


def test_films_show_recorded_episodes_and_simulations_beside_them(game_recording, simulator, tmp_path, capsys):
    where = flags(data_dir=game_recording.folder, vid_dir=tmp_path, episode=1)
    assert in_process(render.main, *where) == 0
    num_rows = int(game_recording.index["num_rows"][1])
    film = Image.open(tmp_path / "tiny_episode_1.gif")
    assert film.n_frames == num_rows
    frame = game_recording.episode(1)["obs"][0].transpose(1, 2, 0).repeat(7, 0).repeat(7, 1).astype(int)
    shown = np.asarray(film.convert("RGB")).astype(int)
    assert min(np.abs(shown[top : top + 448, 10:458] - frame).mean() for top in range(20, 70)) < 6
    for actions in ("recorded", "own"):
        words = flags(simulator=simulator, step=2, num_sim_steps=4, actions=actions)
        assert in_process(render.main, *where, *words) == 0
        film = Image.open(tmp_path / f"tiny_episode_1_step_2_s_{actions}.gif")
        assert film.n_frames == min(4, num_rows - 2) and film.size[0] > 3 * 256
    cases = {("--simulator", "exact"): "exact", ("--simulator", simulator, "--step", 999): "--step 999"}
    check_refused(capsys, render.main, cases, *where)
