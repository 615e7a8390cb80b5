"""The environments of lmc_rl: all of them start, actions reach their bounds, any moment can be saved and restored."""

import numpy as np
import pytest
from checks import refusal
from lmc_settings import learner, tiny

from lmc_rl.learners.mujoco import Body, EvaluationWorlds, TrainingWorld, Transition

ALL = (  # those that the documents name, easy ones first
    *("InvertedDoublePendulum-v5", "Hopper-v5", "Swimmer-v5", "Reacher-v5", "HalfCheetah-v5", "Pusher-v5"),
    *("HumanoidStandup-v5", "Humanoid-v5"),
)
PENDULUM = "InvertedDoublePendulum-v5"


def actions_of(world, seed: int, num: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (num, world.action_dim)).astype(np.float32)


def steps(world: TrainingWorld, actions) -> list[Transition]:
    return [world.step(action) for action in actions]


def assert_same(ours: list[Transition], theirs: list[Transition]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert np.array_equal(a.obs, b.obs) and np.array_equal(a.next_obs, b.next_obs)
        assert a.reward == b.reward and a.is_terminal == b.is_terminal


@pytest.mark.parametrize("env", ALL)
def test_every_environment_is_played_and_restored_in_the_midst_of_an_episode(env):
    """A learner acts, at random and then by its policy, and learns; then another world goes on with equal numbers.

    So rewards that read forces and positions of bodies are restored too.
    """
    run = learner(tiny(env=env, total_steps=1200, learning_starts=1000, fork_points="none"))
    for _ in range(550):
        run.collect()
    assert np.isfinite(list(run.learn().values())).all()
    world, rows = run.world, run.buffer.rows(np.arange(1100))
    assert np.isfinite(rows).all() and rows.shape == (1100, 2 * world.obs_dim + world.action_dim + 2)
    assert world.episode >= 1 and run.env_steps == 1100
    while world.t_step == 0:
        steps(world, actions_of(world, 1, 1))
    saved = world.state()
    other = TrainingWorld(env, 1000, world.stream)
    other.load_state(saved)
    more = actions_of(world, 2, 60)
    assert_same(steps(world, more), steps(other, more))
    assert other.state() == world.state()


def test_saved_at_the_beginning_of_an_episode():
    world = TrainingWorld(PENDULUM, 1000, stream=3)
    while world.t_step > 0 or world.episode == 0:
        steps(world, actions_of(world, world.t_step, 1))
    other = TrainingWorld(PENDULUM, 1000, stream=3)
    other.load_state(world.state())
    assert_same(steps(world, actions_of(world, 4, 30)), steps(other, actions_of(world, 4, 30)))


def test_episodes_come_from_the_stream_and_their_numbers():
    """Another stream changes the episodes that begin later, and not the one in progress."""
    one, two = (TrainingWorld(PENDULUM, 1000, stream=3) for _ in range(2))
    two.stream = 4
    actions = actions_of(one, 0, 200)
    ours, theirs = steps(one, actions), steps(two, actions)
    first_end = next(k for k, transition in enumerate(ours) if transition.is_terminal)
    assert_same(ours[: first_end + 1], theirs[: first_end + 1])
    assert not np.array_equal(ours[first_end + 1].obs, theirs[first_end + 1].obs)


@pytest.mark.parametrize(("env", "low", "high"), [("Pusher-v5", -2.0, 2.0), ("Humanoid-v5", -0.4, 0.4)])
def test_actions_reach_the_bounds(env, low, high):
    body = Body(env, 1000)
    for action, bound in ((-1, low), (1, high), (0, 0)):
        scaled = body.scaled(np.full(body.action_dim, action, np.float32))
        assert scaled.dtype == np.float32 and (scaled == np.float32(bound)).all()


def test_the_time_limit_is_the_lower_one_and_ends_an_episode_without_a_terminal_state():
    assert [Body("Pusher-v5", limit).limit for limit in (1000, 30)] == [100, 30]
    world = TrainingWorld("Reacher-v5", 1000, stream=0)
    transitions = steps(world, actions_of(world, 0, 101))
    assert world.episode == 2 and world.t_step == 1 and len(world.finished) == 2  # 50 steps each
    assert not any(transition.is_terminal for transition in transitions)
    assert not np.array_equal(transitions[49].next_obs, transitions[50].obs)


def test_a_fall_is_terminal():
    world = TrainingWorld(PENDULUM, 1000, stream=0)
    transitions = steps(world, actions_of(world, 0, 100))
    assert sum(transition.is_terminal for transition in transitions) == world.episode >= 5


def test_policies_are_played_in_the_same_worlds_as_one_after_the_other():
    gains = np.array([0.5, -0.5, 0.0], np.float32)

    def act(obs):
        return np.clip(gains[: len(obs), None, None] * obs[..., :1], -1, 1)

    worlds, seeds = EvaluationWorlds(PENDULUM, 40), [7, 8, 9, 10]
    played = worlds.play(act, 3, seeds)
    body = Body(PENDULUM, 40)
    for k, gain in enumerate(gains):
        for e, seed in enumerate(seeds):
            obs, total, length, is_terminal = body.reset(seed), 0.0, 0, False
            while not is_terminal and length < 40:
                obs, reward, is_terminal = body.step(np.clip(gain * obs[:1], -1, 1))
                total, length = total + reward, length + 1
            assert (total, length) == (played.returns[k, e], played.lengths[k, e])
    again = worlds.play(act, 2, seeds[:1])  # fewer, in worlds that were played in
    assert np.array_equal(again.returns, played.returns[:2, :1])


@pytest.mark.parametrize("env", ["Hopper-v99", "Nonsense", "CartPole-v1"])
def test_what_is_no_mujoco_environment_is_named(env):
    assert env in refusal(Body, env, 1000)


def test_mujoco_warns_in_words_of_python(capfd):
    import mujoco

    Body("HalfCheetah-v5", 10)
    with pytest.warns(UserWarning, match="MuJoCo: the world shook"):
        mujoco.get_mju_user_warning()("the world shook")
    assert capfd.readouterr() == ("", "")


def test_a_missing_mujoco_is_one_line(monkeypatch):
    def refuse(*_, **__):
        import gymnasium

        raise gymnasium.error.DependencyNotInstalled("MuJoCo is not installed")

    monkeypatch.setattr("lmc_rl.learners.mujoco.gymnasium.make", refuse)
    assert "requirements.txt" in refusal(Body, PENDULUM, 1000)
