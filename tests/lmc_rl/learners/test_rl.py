"""SAC and DDPG: their updates are those of stable-baselines3, any moment can be saved, and time limits bootstrap."""

import numpy as np
import pytest
import torch
from checks import assert_same, refusal
from lmc_settings import learner, tiny

from lmc_rl.learners.sac_ddpg import RLRun, samples_of
from mop.artifacts.checkpoints import load_training_state, save_training_state

ALGORITHMS = [{"algo": "SAC"}, {"algo": "SAC", "ent_coef": "auto"}, {"algo": "DDPG"}]
ids = ["SAC", "SAC, automatic entropy", "DDPG"]


@pytest.mark.parametrize("changes", ALGORITHMS, ids=ids)
def test_a_state_on_disk_continues_bit_for_bit(changes, tmp_path):
    settings = tiny(**changes)
    run = learner(settings, 45)
    save_training_state(tmp_path / "state.pt", run.state())
    other = learner(settings)
    other.load_state(load_training_state(tmp_path / "state.pt"))
    for _ in range(30):
        ours, theirs = run.step_update(), other.step_update()
        assert ours == theirs and all(np.isfinite(value) for value in ours.values())
    assert_same(run.state(), other.state())
    assert run.summary() == other.summary() and run.gradient_steps == 45 + 30 - 19


@pytest.mark.parametrize("changes", ALGORITHMS, ids=ids)
def test_an_update_learns_what_it_should(changes):
    run = learner(tiny(**changes), 45)
    before = run.state()
    run.step_update()
    after = run.state()
    moved = {
        name.split(".")[0]
        for name, value in after["policy_state_dict"].items()
        if not torch.equal(value, before["policy_state_dict"][name])
    }
    assert moved == {"actor", "critic", "critic_target"} | ({"actor_target"} if changes["algo"] == "DDPG" else set())
    assert (before["log_ent_coef"] is not None) == ("ent_coef" in changes)
    if "ent_coef" in changes:
        assert not torch.equal(before["log_ent_coef"], after["log_ent_coef"])


@pytest.mark.parametrize("is_terminal", [0.0, 1.0])
def test_the_target_bootstraps_unless_the_state_is_terminal(is_terminal):
    """The critic of DDPG is fitted to r where a state is terminal, and to r + gamma Q' where it is not: by hand."""
    run = learner(tiny(algo="DDPG", gamma=0.9), 45)
    rows = torch.from_numpy(run.buffer.rows(np.arange(8)))
    rows[:, -1] = is_terminal
    batch = samples_of(rows, run.world.obs_dim, 1)
    run.sample = lambda batch_size, env=None: batch
    with torch.no_grad():
        next_value = run.model.critic_target(batch.next_observations, run.model.actor_target(batch.next_observations))[
            0
        ]
        target = batch.rewards + 0.9 * (1 - is_terminal) * next_value
        expected = (run.model.critic(batch.observations, batch.actions)[0] - target).square().mean()
    assert run.learn()["critic_loss"] == pytest.approx(float(expected), rel=1e-4) and next_value.abs().min() > 1e-4


def test_rows_become_batches_and_time_limits_are_no_terminal_states():
    rows = torch.tensor([[1.0, 2.0, 3.0, 4.0, 0.5, -1.0, 0.0], [1.0, 2.0, 3.0, 4.0, 0.5, -1.0, 1.0]])
    batch = samples_of(rows, 2, 1)
    assert batch.observations.tolist() == [[1, 2]] * 2 and batch.next_observations.tolist() == [[3, 4]] * 2
    assert batch.actions.tolist() == [[0.5]] * 2 and batch.rewards.tolist() == [[-1]] * 2
    assert batch.dones.tolist() == [[0], [1]]
    run = learner(tiny(env="Reacher-v5", learning_starts=60), 50)  # every episode ends by time
    ends = run.buffer.rows(np.array([49, 99]))
    assert run.world.episode == 2 and (ends[:, -1] == 0).all()
    assert (learner(tiny(), 50).buffer.rows(np.arange(100))[:, -1] == 1).sum() >= 5  # falls


def test_no_gradient_step_before_the_warm_up():
    run = learner(tiny(), 19)
    assert run.gradient_steps == 0 and all(np.isnan(value) for value in run.learn().values())
    actions = run.buffer.rows(np.arange(38))[:, -3]
    assert actions.min() < -0.8 and actions.max() > 0.8  # evenly drawn from all actions


def test_evaluation_does_not_touch_the_training():
    often, never = learner(tiny(eval_freq=4), 60), learner(tiny(eval_freq=0), 60)
    assert np.isnan(never.eval_return) and np.isfinite(often.eval_return)
    ours, theirs = often.state(), never.state()
    assert ours.pop("evaluated") != theirs.pop("evaluated")
    assert_same(ours, theirs)


def test_streams_are_apart():
    """Another exploration stream changes the actions and not the numbers of the transitions that are sampled."""
    settings = tiny()
    streams = learner(settings).streams
    other = RLRun(settings, torch.device("cpu"), streams | {"exploration": 1})
    one = learner(settings)
    for _ in range(30):
        one.step_update(), other.step_update()
    assert not np.array_equal(one.buffer.rows(np.arange(60)), other.buffer.rows(np.arange(60)))
    assert np.array_equal(one._rng("replay").integers(0, 60, 9), other._rng("replay").integers(0, 60, 9))


def test_explored_actions_are_those_of_the_algorithm():
    noise = np.array([0.3], np.float32)
    sac, ddpg = learner(tiny(), 45), learner(tiny(algo="DDPG", noise_std=0.2), 45)
    obs = sac.world.obs
    with torch.no_grad():
        mean, log_std, _ = sac.model.actor.get_action_dist_params(torch.from_numpy(obs)[None])
        assert sac.explore(obs, noise) == pytest.approx(torch.tanh(mean + log_std.exp() * 0.3).numpy()[0], abs=1e-6)
        plain = ddpg.model.actor(torch.from_numpy(obs)[None]).numpy()[0]
    assert ddpg.explore(obs, noise) == pytest.approx(np.clip(plain + 0.06, -1, 1), abs=1e-6)
    assert ddpg.explore(obs, 100 * noise) == 1.0  # actions reach their bounds, and no further


def test_a_diverged_run_is_refused():
    run = learner(tiny())
    with torch.no_grad():
        run.model.actor.mu.weight[0, 0] = torch.nan
    assert "actor.mu.weight" in refusal(run.checkpoint)


def test_what_is_not_known_yet_is_in_words_in_the_bar():
    """Before the first update there is no loss, before the first episode no return."""
    run = learner(tiny())
    measures = run.step_update()
    row = {**measures, **run.summary(), "steps_per_s": 9.0}
    assert np.isnan(row["critic_loss"]) and np.isnan(row["recent_return"])
    text = run.columns.bar_text(row)
    assert "warm-up" in text and "nan" not in text
    known = run.columns.bar_text({**row, "critic_loss": 0.5, "recent_return": 7.0, "eval_return": 3.0})
    assert "warm-up" not in known and "7.0" in known and "3.0" in known and len(known) < 80
