"""The learned simulator: what it says of observations, its map, its losses, its training from the command line."""

import os
import signal
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from checks import refusal
from generative_data import tiny_checkpoint
from torch.nn import functional as F

from generative import plot_training_csv, train_gen_model
from generative.domains.babyai.decoder import SymbolicDecoder
from generative.domains.babyai.domain import BABYAI
from generative.domains.registry import load_recorded_policy, load_simulator
from generative.simulators.losses import Frames, losses, simulate
from generative.simulators.relaxation import CARRYING, DIRECTION, SOFT_DIM, discretise, to_simplex
from generative.simulators.training import SimulatorRun, make_config, resolve_settings
from generative.simulators.world_model import WorldModel
from mop.artifacts.checkpoints import load_checkpoint
from mop.common.cli import as_flags
from mop.envs.babyai import NUM_ACTIONS, World
from mop.training.loop import CURVE_NAME, FINAL_NAME, LOG_NAME

SMALL = BABYAI.presets["small"]
FLAGS = {"batch_size": 4, "num_sim_steps": 4, "num_initializing_steps": 2, "param_name": "small", "log_interval": 1}


@pytest.fixture(scope="module")
def parts(tiny):
    """A model, the policy, and six windows, two of which end early."""
    recording, checkpoint = tiny
    policy, _ = load_recorded_policy(recording, str(checkpoint))
    torch.manual_seed(0)
    model = WorldModel(BABYAI, SMALL, policy.hidden_size, policy.lang_dim)
    windows = recording.windows(7, "train", least=4)
    of_all = windows.batch(np.arange(len(windows)))
    ending, short = (np.flatnonzero(one)[:2] for one in (of_all["terminated"].any(1), ~of_all["mask"].all(1)))
    return model, policy, Frames.of(windows.batch([0, 2, 4, 6, *ending, *short], BABYAI.arrays), BABYAI)


def train(tiny, folder, *switches, **flags) -> int:
    """Call the command in this process; its exit code."""
    recording, checkpoint = tiny
    flags = {"data_dir": recording.folder, "agent_file": checkpoint, "output_dir": folder, **FLAGS, **flags}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train_gen_model", *as_flags(flags), *switches])
        return train_gen_model.main()


def random_obs(num: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    image = np.concatenate([rng.integers(0, size, (num, 49)) for size in (11, 6, 3)], 1)
    return torch.from_numpy(
        np.concatenate([image, np.eye(4)[rng.integers(0, 4, num)], rng.integers(0, 2, (num, 1))], 1)
    )


def test_surprise_is_the_sum_of_the_surprises_at_all_parts():
    views, obs = SymbolicDecoder(5, 3, 4), random_obs(6)
    logits = 3 * torch.randn(6, SOFT_DIM, generator=torch.Generator().manual_seed(1))
    planes, expected = logits[:, :980].split([539, 294, 147], 1), torch.zeros(6)
    for plane, part, size in zip(planes, obs[:, :147].long().split(49, 1), (11, 6, 3), strict=True):
        expected += F.cross_entropy(plane.reshape(-1, size), part.reshape(-1), reduction="none").view(6, -1).sum(1)
    expected += F.cross_entropy(logits[:, DIRECTION], obs[:, 147:151].argmax(1), reduction="none")
    expected += F.binary_cross_entropy(logits[:, CARRYING].sigmoid(), obs[:, 151].float(), reduction="none")
    assert torch.allclose(views.nats(logits, to_simplex(obs)), expected, rtol=1e-5)
    assert torch.allclose(views.probabilities(logits)[:, :980].sum(1), torch.full((6,), 147.0))


def test_the_likeliest_observation_is_shown_with_gradients_of_its_probabilities():
    views, obs = SymbolicDecoder(5, 3, 4), random_obs(6)
    logits = (4 * to_simplex(obs) - 2).requires_grad_()
    shown = views.decode(logits)
    assert torch.equal(discretise(shown.detach()), obs.float()) and set(shown.detach().unique().tolist()) == {0.0, 1.0}
    weights = torch.randn(SOFT_DIM, generator=torch.Generator().manual_seed(2))
    (through,) = torch.autograd.grad((shown * weights).sum(), logits)
    (expected,) = torch.autograd.grad((views.probabilities(logits) * weights).sum(), logits)
    assert torch.equal(through, expected) and through.abs().max() > 0


def test_the_map_moves_as_the_agent_does():
    """With the codes of the real grid as the map, its view is the real one wherever nothing is hidden."""
    world, num_checked = World("BabyAI-UnlockPickup-v0"), {0: 0, 1: 0, 2: 0, 4: 0}
    model, hand = WorldModel(BABYAI, SMALL | {"map_channels": 1}, 5, 3), torch.full((1, 1), 9.0)
    places, rng = model.places, np.random.default_rng(0)
    motion = {0: 1, 1: 2, 2: 3, 4: 0}  # action -> stay, left, right, ahead
    for seed in range(20):
        world.reset(seed)
        heading = torch.eye(4)[None, world.direction]
        state = {"places": torch.full((1, 13, 13, 1), -1.0), "heading": heading, "hand": hand}
        for action in rng.choice([0, 1, 2, 2, 4], 12).tolist():
            state = {**places.written(state, places.view(state), *known(world)), "hand": hand}
            before = world.position
            world.step(action)
            kind = 0 if action == 2 and world.position == before else motion[action]
            with torch.no_grad():
                for parameter in places.motion[-1].parameters():
                    parameter.zero_()
                places.motion[-1].bias[kind] = 1e3
                state = places.moved(state, torch.zeros(1, model.gru.hidden_size + NUM_ACTIONS))
            assert int(state["heading"].argmax()) == world.direction
            remembered, (true, visible) = places.view(state), known(world)
            compared = (visible > 0) & (remembered > 0)
            assert remembered[0, 3, 6] == 9.0  # the agent's own cell shows what it carries
            compared[:, 3, 6] = False
            assert torch.equal(remembered[compared], true[compared])
            num_checked[action] += int(compared.sum())
    assert all(number > 200 for number in num_checked.values())


def known(world: World) -> tuple[torch.Tensor, torch.Tensor]:
    """The types of the cells in view (1, 7, 7, 1), and where they are visible."""
    kinds = torch.from_numpy(world.obs[:49].reshape(1, 7, 7, 1).copy())
    return kinds, (kinds > 0).float()


def test_terms_are_zero_where_the_simulation_is_the_truth(parts):
    model, policy, frames = parts
    whole = frames._replace(
        **{name: getattr(frames, name)[:, :4] for name in Frames._fields[:-1]}, lang=frames.lang[:4]
    )
    answer = policy.run(whole.views[2:], whole.lang, whole.hidden[2])
    simulated = simulate(model, whole, 2, torch.ones_like(whole.mask), None)
    perfect = simulated._replace(logits=60 * whole.views - 30, prior=simulated.posterior)
    found = losses(model, policy, whole, perfect, 2, torch.ones(policy.policy.hidden_size))
    for name in ("obs", "hx", "routing", "act_log_probs"):
        assert abs(found[name].item()) < 1e-4, name
    assert torch.allclose(answer.hidden[:-1], whole.hidden[3:], atol=1e-5)


def run_of(tiny, **settings) -> SimulatorRun:
    recording, checkpoint = tiny
    small = {"num_initializing_steps": 2, "num_sim_steps": 6, "batch_size": 8}
    policy, agent = load_recorded_policy(recording, str(checkpoint))
    config = make_config(BABYAI, resolve_settings(BABYAI, "small", small | settings), "small", recording, agent)
    return SimulatorRun(BABYAI, config, policy, recording)


def test_the_loss_of_a_tiny_recording_falls(tiny):
    run = run_of(tiny, num_updates=60, lr=5e-3, num_sim_steps=4)
    first, *_, last = [run.step_update() for _ in range(60)]
    assert last["obs"] < 0.4 * first["obs"] and last["hx"] < first["hx"] and last["done"] < first["done"]
    assert run.best["loss"] == run.summary()["val_loss"] < first["loss"]


def test_told_the_actions_of_others_it_is_clearly_worse(parts):
    """In a toy world every cell shows what was done last."""
    rng, frames = np.random.default_rng(0), parts[2]
    torch.manual_seed(0)
    model = WorldModel(BABYAI, SMALL, 5, frames.lang.shape[1])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

    def toy(num: int = 16) -> Frames:
        actions = np.concatenate([np.full((1, num), 6), rng.integers(0, 7, (6, num))])
        obs = torch.zeros(7, num, 152)
        obs[..., :49], obs[..., 147] = torch.from_numpy(actions)[..., None], 1
        hot = F.one_hot(torch.from_numpy(actions), NUM_ACTIONS).float()
        blank = frames.lang.new_zeros(num, frames.lang.shape[1])
        return frames._replace(
            views=to_simplex(obs), actions=hot, mask=torch.ones(7, num, dtype=torch.bool), lang=blank
        )

    def nats(given: Frames, soft: torch.Tensor) -> torch.Tensor:
        simulated = simulate(model, given, 2, torch.ones_like(given.mask), None)
        return model.views.nats(simulated.logits, soft)[2:].mean()

    for _ in range(50):
        given = toy()
        loss = nats(given, given.views)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    given = toy(64)
    others = given._replace(actions=torch.cat([given.actions[:2], given.actions[2:, torch.randperm(64)]]))
    with torch.no_grad():
        assert nats(given, given.views) < 0.3 * nats(others, given.views)


def test_the_model_runs_freely_further_and_further(tiny):
    run, rng = run_of(tiny, num_updates=100), np.random.default_rng(0)
    ends = torch.tensor([4, 5, 8, 8, 8, 3] * 20)  # of eight frames, two of them shown
    mask = torch.arange(8)[:, None] < ends
    assert not (run.free_frames(mask, rng) & mask).any()
    for run.update, horizon in ((10, 2), (25, 3), (50, 6), (99, 6)):
        free = run.free_frames(mask, rng) & mask
        most = (ends - 2).clamp(max=horizon)
        assert run.horizon == horizon and (free.sum(0) <= most).all()
        for end in (3, 4, 5, 8):  # each window runs as far as it may somewhere, up to the end of its episode
            assert free.sum(0)[ends == end].max() == min(horizon, end - 2)
        last = free[ends - 1, torch.arange(len(ends))]
        assert (last | ~free.any(0)).all() and not free[:2].any()


def test_what_is_shown_does_not_count_in_held_out_worlds(tiny):
    run = run_of(tiny, num_updates=100)
    run.evaluate()
    measured, num_init = run.measured, run.num_init
    shown = torch.arange(run.length)[:, None] < num_init
    assert run.held_out.mask[:num_init].all()
    run.held_out = run.held_out._replace(outcomes=torch.where(shown[..., None], 0.5, run.held_out.outcomes))
    run.evaluate()
    assert run.measured == measured


def test_the_score_of_views_is_the_mean_one_step_ahead_and_over_all_steps(tiny):
    run, given = run_of(tiny, num_updates=100), []

    def score(simulated, true):
        given.append((simulated, true))
        return torch.arange(1.0, len(true) + 1)[:, None].expand(true.shape[:-1])

    run.evaluate()
    (exact, exact_1), mask = (run.measured[name] for name in ("val_exact", "val_exact_1")), run.held_out.mask[2:]
    run.domain = replace(BABYAI, view_score=score)
    run.evaluate()
    assert run.num_init == 2 and not mask.all()
    expected = (mask.sum(1) * torch.arange(1.0, len(mask) + 1)).sum() / mask.sum()
    assert (run.measured["val_exact_1"], run.measured["val_exact"]) == (1, pytest.approx(expected.item()))
    ((simulated, true),) = given
    is_right = (simulated == true).all(-1)
    assert exact == pytest.approx(is_right[mask].float().mean().item())
    assert exact_1 == pytest.approx(is_right[0][mask[0]].float().mean().item())


def test_interrupted_and_resumed_it_is_the_same_run(tiny, tmp_path, capsys):
    assert train(tiny, tmp_path, num_updates=6, tgm_exp_name="straight") == 0
    step = SimulatorRun.step_update

    def interrupted(run):
        if run.update == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return step(run)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SimulatorRun, "step_update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(tiny, tmp_path, num_updates=6, tgm_exp_name="broken")
    assert "0.0015" in refusal(train, tiny, tmp_path, "--resume", num_updates=6, tgm_exp_name="broken", lr=0.5)
    assert "--resume" in refusal(train, tiny, tmp_path, num_updates=6, tgm_exp_name="broken")
    assert train(tiny, tmp_path, "--resume", num_updates=6, tgm_exp_name="broken") == 0
    one, other = (load_checkpoint(tmp_path / name / FINAL_NAME) for name in ("straight", "broken"))
    assert all(torch.equal(value, other["policy_state_dict"][name]) for name, value in one["policy_state_dict"].items())
    logs = [pd.read_csv(tmp_path / name / LOG_NAME).drop(columns="seconds") for name in ("straight", "broken")]
    pd.testing.assert_frame_equal(*logs)
    assert (tmp_path / "broken" / CURVE_NAME).stat().st_size > 5000
    capsys.readouterr()
    assert train(tiny, tmp_path, "--resume", num_updates=6, tgm_exp_name="broken") == 0
    assert "is trained already" in capsys.readouterr().out
    model, config = load_simulator(tmp_path / "straight")
    assert "name a simulator's folder" in refusal(load_simulator, tmp_path / "straight" / "checkpoint_final.pt")
    assert config["num_initializing_steps"] == 2 and not any(p.requires_grad for p in model.parameters())
    assert all(torch.equal(value, one["policy_state_dict"][name]) for name, value in model.state_dict().items())


def test_it_ends_early_where_nothing_improves(tiny, monkeypatch):
    monkeypatch.setattr("generative.simulators.training.EVAL_INTERVAL", 1)
    monkeypatch.setattr("generative.simulators.training.PATIENCE", 3)
    run = run_of(tiny, num_updates=20, lr=1e-9)
    for run.update in range(20):
        run.evaluate()
        if run.is_over():
            break
    assert run.update == 13  # the curriculum ends with update 10; after it there are three evaluations
    assert torch.equal(run.checkpoint()["policy_state_dict"]["trunk.weight"], run.model.trunk.weight)


def test_what_cannot_be_is_refused(tiny, tmp_path):
    cases = {
        ("agent_file", tiny_checkpoint(tmp_path, intermediate_dim=8)): "--agent_file",
        ("agent_file", "missing.pt"): "missing.pt",
        ("data_dir", "."): ".",
        ("loss_scale_gen_adv", 1): "--loss_scale_gen_adv",
        ("env_name", "coinrun"): "--env_name",
        ("param_name", "hard-rec"): "--param_name",
    }
    for (name, value), named in cases.items():
        assert named in refusal(train, tiny, tmp_path / "out", **{name: value}), name


def test_a_policy_is_no_simulator(tiny, tmp_path):
    assert tiny[1].name == "checkpoint_final.pt"
    assert "not a simulator's" in refusal(load_simulator, tiny[1].parent)
    assert "folder" in refusal(load_simulator, tiny[1])
    refusal(load_simulator, tmp_path)


def test_the_log_of_any_run_can_be_drawn(tmp_path, monkeypatch):
    logs = {
        "policy": {"update": [1, 2], "env_steps": [8, 16], "loss": [2.0, 1.0], "success_rate": [0.0, np.nan]},
        "learner": {"update": [1, 2], "env_steps": [5, 9], "eval_return": [np.nan, 3.0], "recent_return": [1.0, 2.0]},
        "simulator": {"update": [1, 2], "loss": [9.0, 4.0], "val_loss": [9.5, 5.0], "val_exact": [0.1, 0.2]},
    }
    for name, columns in logs.items():
        (tmp_path / name).mkdir()
        pd.DataFrame(columns | {"seconds": [1.0, 2.0]}).to_csv(tmp_path / name / LOG_NAME, index=False)
        monkeypatch.setattr(sys, "argv", ["plot", "--datapath", str(tmp_path / name)])
        assert plot_training_csv.main() == 0
        assert all((tmp_path / name / picture).stat().st_size > 3000 for picture in ("plot.png", "plot_for_fig.png"))


HUGE = b"update,loss\n1,-9e307\n2,1.7e308\n"  # their difference is not finite


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"\x89PNG\r\n", HUGE])
def test_what_is_no_log_is_refused(tmp_path, monkeypatch, content):
    (tmp_path / LOG_NAME).write_bytes(content)
    monkeypatch.setattr(sys, "argv", ["plot", "--datapath", str(tmp_path)])
    assert str(tmp_path / LOG_NAME) in refusal(plot_training_csv.main)
