"""The closed loop of policy and simulator: what is executed, and along which paths gradients pass."""

import numpy as np
import pytest
import torch
from generative_toys import Corridor, tiny_policy
from torch.nn import functional as F

from generative.attribution.closed_loop import EVERY_PATH, Paths, repeat_state, roll_out, untrained
from generative.simulators.relaxation import discretise


@pytest.fixture(scope="module")
def policy():
    return tiny_policy(seed=3)


@pytest.fixture
def start(policy):
    simulator = Corridor()
    generator = torch.Generator().manual_seed(5)
    lang, hidden = (torch.randn(4, size, generator=generator) for size in (5, policy.policy.hidden_size))
    return simulator, simulator.begin(num_envs=4, seed=1), lang, 0.1 * hidden


def test_each_step_is_that_of_policy_and_simulator(policy, start):
    simulator, state, lang, hidden = start
    trace = roll_out(policy, simulator, state, lang, hidden, 5)
    memory = hidden
    for i in range(5):
        view = simulator.view(state)
        answer = policy.step(view, lang, memory)
        memory = answer.hidden
        assert torch.equal(trace.views[i], view) and torch.equal(trace.logits[i], answer.logits)
        assert torch.equal(trace.hidden[i], memory) and torch.equal(trace.actions[i], answer.logits.argmax(-1))
        assert all(torch.equal(ours[i], weights) for ours, weights in zip(trace.routing, answer.routing, strict=True))
        assert all(torch.equal(trace.states[i][name], part) for name, part in state.items())
        state = simulator.step(state, F.one_hot(trace.actions[i], 7).float())
    assert trace.views.shape == (5, 4, 985) and len(trace.routing) == 2 and trace.hidden.shape[:2] == (5, 4)


def test_recorded_actions_are_executed_and_the_first_view_can_be_given(policy, start):
    simulator, state, lang, hidden = start
    actions = torch.full((4, 3), 2)
    trace = roll_out(policy, simulator, state, lang, hidden, 3, actions)
    assert torch.equal(trace.actions, actions.T)
    other = simulator.view(simulator.begin(num_envs=4, seed=9))
    given = roll_out(policy, simulator, state, lang, hidden, 3, actions, first_view=other)
    assert torch.equal(given.views[0], other) and not torch.equal(given.views[0], trace.views[0])
    assert torch.equal(given.views[1:], trace.views[1:]), "the world does not depend on what is seen"
    with pytest.raises(ValueError, match="do not go with"):
        roll_out(policy, simulator, state, lang, hidden, 4, actions)


@pytest.mark.parametrize("own", [True, False])
def test_cutting_a_path_leaves_the_numbers_and_takes_its_gradient(policy, start, own):
    simulator, state, lang, hidden = start
    actions = None if own else torch.full((4, 4), 2)
    results = {}
    for paths in (EVERY_PATH, Paths(memory=False), Paths(world=False), Paths(False, False)):
        leaves = {name: part.clone().requires_grad_() for name, part in state.items()} | {
            "hidden": hidden.clone().requires_grad_()
        }
        memory = leaves.pop("hidden")
        trace = roll_out(policy, simulator, leaves, lang, memory, 4, actions, paths)
        grads = torch.autograd.grad(trace.logits[-1, :, 2].sum(), [*leaves.values(), memory], allow_unused=True)
        results[paths] = (trace, [0.0 if g is None else float(g.abs().sum()) for g in grads])
    whole = results[EVERY_PATH][0]
    assert all(torch.equal(trace.logits, whole.logits) for trace, _ in results.values())
    norms = {paths: found for paths, (_, found) in results.items()}
    assert all(any(value > 0 for value in norms[paths][:-1]) for paths in (EVERY_PATH, Paths(True, False)))
    assert max(norms[Paths(False, False)]) == 0, "with both cut nothing passes from step to step"
    assert norms[Paths(True, False)][-1] > 0, "the memory passes through the memory"
    assert (norms[Paths(False, True)][-1] > 0) == own, "and to the world only where the policy's own actions count"


def test_an_untrained_policy_is_other_weights_of_the_same_shape(policy):
    one, again, other = (untrained(policy, policy.config, seed) for seed in (0, 0, 1))
    weights = [p.policy.head.weight for p in (policy, one, again, other)]
    assert torch.equal(weights[1], weights[2])
    assert not any(torch.equal(a, b) for a, b in ((weights[0], weights[1]), (weights[1], weights[3])))
    assert not any(p.requires_grad for p in one.policy.parameters())
    assert weights[0].shape == weights[1].shape


def test_states_are_repeated_world_by_world(start):
    simulator, state, *_ = start
    repeated = repeat_state(state, 3)
    views = discretise(simulator.view(state)).numpy()
    assert np.array_equal(discretise(simulator.view(repeated)).numpy(), np.repeat(views, 3, 0))
