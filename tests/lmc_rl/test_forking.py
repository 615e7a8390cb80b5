"""Forks: the parent does not notice them, children differ in the noise that is split, buffers are as asked for."""

import numpy as np
import pytest
import torch
from checks import assert_same
from lmc_settings import learner, tiny

from lmc_rl.analysis.results import ExperimentPaths
from lmc_rl.config import NOISES, STRATEGIES
from lmc_rl.forking import LockStep, child_of, child_streams
from lmc_rl.learners.rl import RLLearner
from mop.artifacts.checkpoints import load_training_state
from mop.training.devices import choose_device

CPU = choose_device("cpu")
STEP = 100  # of the fork


def snapshot(**changes) -> dict:
    """The state of a parent at the fork."""
    return learner(tiny(**changes), STEP // 2).state()


def child(parent: dict, index: int = 0, num_updates: int = 0, **changes):
    made = child_of(tiny(**changes), parent, STEP, index, CPU)
    for _ in range(num_updates):
        made.step_update()
    return made


def content(run) -> np.ndarray:
    return run.buffer.rows(np.arange(run.buffer.first, run.buffer.end))


def weights(run) -> torch.Tensor:
    return torch.cat([value.flatten() for value in run.policy.state_dict().values()])


def test_the_parent_is_bit_identical_with_and_without_forks(tmp_path):
    forked = RLLearner(tiny(), ExperimentPaths(tmp_path / "results", tmp_path / "weights")).parent_of([0, 1])
    plain = learner(tiny(fork_points="none"), 120)
    for _ in range(120):
        forked.step_update()
    assert_same(forked.state(), plain.state())
    saved = [load_training_state(tmp_path / "results" / "forks" / f"snapshot_{k}.pt") for k in range(2)]
    assert [state["env_steps"] for state in saved] == [60, 120]
    assert_same(saved[1], learner(tiny(), 60).state())


@pytest.mark.parametrize("strategy", ["copy", "fresh", "split", "frozen"])
def test_children_with_identical_noise_are_identical(strategy):
    parent = snapshot()
    same = {"fork_buffer_strategy": strategy, "split_noise": "none"}
    one, two = (child(parent, 0, 40, **same) for _ in range(2))
    assert_same(one.state(), two.state())
    split = {"fork_buffer_strategy": strategy}
    other, again = (child(parent, k, 40, **split) for k in range(2))
    assert not torch.equal(weights(other), weights(again)), "the noise is split, and they are equal"


def test_without_split_noise_a_copy_goes_on_as_its_parent():
    parent = learner(tiny(), STEP // 2)
    one = child(parent.state(), split_noise="none", num_updates=30)
    for _ in range(30):
        parent.step_update()
    ours, theirs = one.state(), parent.state()
    del ours["memory"], theirs["memory"]  # the child's holds what it added itself
    assert_same(ours, theirs)
    assert np.array_equal(content(one), content(parent))


@pytest.mark.parametrize("noise", NOISES)
def test_one_kind_of_noise_can_be_split(noise):
    """Before the first gradient step or action that differs, what the other streams determine is equal."""
    parent = snapshot()
    streams = [child_streams(parent["streams"], [noise], STEP, k) for k in range(2)]
    assert all((streams[0][name] == streams[1][name]) == (name != noise) for name in NOISES)
    one, two = (child(parent, k, split_noise=noise) for k in range(2))
    assert np.array_equal(one.world.obs, two.world.obs) and torch.equal(weights(one), weights(two))
    one.collect(), two.collect()
    assert np.array_equal(content(one), content(two)) == (noise != "exploration")
    for _ in range(40):
        one.step_update(), two.step_update()
    assert not torch.equal(weights(one), weights(two))


def test_streams_of_children_do_not_depend_on_other_forks():
    of = [child_streams({"replay": 1}, ["replay"], step, k)["replay"] for step in (10, 20) for k in range(3)]
    assert len(set(of)) == 6


def test_a_perturbed_child_shares_all_noise():
    parent = snapshot()
    one, two = (child(parent, k, perturb=0.01) for k in range(2))
    assert one.streams == two.streams == parent["streams"]
    assert torch.equal(weights(one), weights(child(parent)))
    before, after = (run.policy.state_dict()["actor.mu.weight"] for run in (one, two))
    assert float((after - before).square().mean().sqrt() / before.square().mean().sqrt()) == pytest.approx(
        0.01, rel=0.6
    )
    targets = [dict(run.model.critic_target.named_parameters()) for run in (one, two)]
    assert all(torch.equal(value, targets[1][name]) for name, value in targets[0].items())


def test_the_buffers_of_the_children():
    """Of each strategy: what a child begins with, and whether it adds to it. The parent's stays as it was."""
    parent = snapshot()
    known = parent["memory"]["rows"].numpy()
    covered = 0
    for strategy in STRATEGIES:
        settings = {"fork_buffer_strategy": strategy}
        if strategy == "shared":
            pair = LockStep(tiny(**settings), parent, STEP, CPU)
            children = pair.runs
            assert children[0].buffer is children[1].buffer
        else:
            pair, children = None, [child(parent, k, **settings) for k in range(2)]
        begun = [content(one) for one in children]
        if strategy == "fresh":
            assert [len(rows) for rows in begun] == [0, 0]
        elif strategy == "split":
            together = np.concatenate(begun)
            assert [len(rows) for rows in begun] == [50, 50]
            assert sorted(map(tuple, together)) == sorted(map(tuple, known))
        else:
            assert all(np.array_equal(rows, known) for rows in begun)
        for _ in range(5):
            if pair is not None:
                pair.step_update()
            else:
                children[0].step_update()
        added = len(content(children[0])) - len(begun[0])
        assert added == {"frozen": 0, "shared": 20}.get(strategy, 10)
        assert np.array_equal(parent["memory"]["rows"].numpy(), known)
        covered += 1
    assert covered == 5


def test_a_fresh_child_learns_only_after_the_warm_up():
    one = child(snapshot(), fork_buffer_strategy="fresh", num_updates=19)
    assert one.gradient_steps == 31 and one.env_steps == STEP + 38
    one.step_update()
    assert one.gradient_steps == 32


def test_a_frozen_child_learns_at_once_whatever_its_parent_had():
    parent = learner(tiny(), 10).state()
    one = child_of(tiny(fork_buffer_strategy="frozen"), parent, 20, 0, CPU)
    one.step_update()
    assert parent["gradient_steps"] == 0 and one.gradient_steps == 1 and one.env_steps == len(content(one)) == 20


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_interrupted_child_goes_on(strategy):
    parent, settings = snapshot(), tiny(fork_buffer_strategy=strategy)

    def make():
        return (
            LockStep(settings, parent, STEP, CPU) if strategy == "shared" else child_of(settings, parent, STEP, 1, CPU)
        )

    one, two = make(), make()
    for _ in range(12):
        one.step_update()
    two.load_state(one.state())
    for _ in range(12):
        assert one.step_update() == two.step_update()
    assert_same(one.state(), two.state())
    assert one.summary() == two.summary()
