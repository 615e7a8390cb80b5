"""What holds for the learned simulator of every kind of world: heads, steps, gradients, the end of an episode."""

import numpy as np
import pytest
import torch
from generative_domains import NAMES, tiny_recording, untrained_model

from generative.domains.registry import domain_of_recording, load_recorded_policy
from generative.simulators.losses import Frames, losses, simulate

NUM_SHOWN = 3


@pytest.fixture(scope="module", params=NAMES, name="parts")
def _parts(request, tmp_path_factory):
    """A model, the policy, and six windows of seven frames, some of which end early."""
    recording = tiny_recording(request.param, tmp_path_factory.mktemp(request.param))
    domain = domain_of_recording(recording)
    torch.manual_seed(0)
    model = untrained_model(request.param, recording)
    windows = recording.windows(7, "train", least=NUM_SHOWN + 1)
    of_all = windows.batch(np.arange(len(windows)), ["terminated"])
    ending, short = (np.flatnonzero(one)[:2] for one in (of_all["terminated"].any(1), ~of_all["mask"].all(1)))
    batch = windows.batch([0, 2, 4, 30, *ending, *short], domain.arrays)
    return model, load_recorded_policy(recording)[0], Frames.of(batch, domain)


def test_every_head_varies_with_its_input_and_passes_gradient_to_the_trunk(parts):
    model, policy, frames = parts
    simulated = simulate(model, frames, NUM_SHOWN, torch.ones_like(frames.mask), None)
    terms = losses(model, policy, frames, simulated, NUM_SHOWN, torch.ones(policy.hidden_size))
    for name in ("hx", *model.domain.extra_arrays, "act_log_probs"):  # through the policy that sees the views
        (gradient,) = torch.autograd.grad(terms[name], model.trunk.weight, retain_graph=True)
        assert gradient.abs().max() > 0, name
    heads = {
        "view": simulated.logits,
        "end": simulated.outcomes[..., :1],
        "outcome": simulated.outcomes[..., 1:],
        "hidden state": simulated.memory[None],
    }
    for name, values in heads.items():
        assert values.std(1).max() > 1e-5, name
        for weights in (model.trunk.weight, model.gru.weight_hh):
            (gradient,) = torch.autograd.grad(values.square().sum(), weights, retain_graph=True)
            assert gradient.abs().max() > 0, name
    for logits in (simulated.prior, simulated.posterior):
        assert logits.std((0, 1)).min() > 0 and torch.allclose(logits.exp().sum(-1), torch.tensor(1.0))


def test_simulating_windows_is_stepping_the_simulator(parts):
    model, _, frames = parts
    before, actions = frames.views[:NUM_SHOWN].transpose(0, 1), frames.actions[1:NUM_SHOWN].transpose(0, 1)
    with torch.no_grad():
        simulated = simulate(model, frames, NUM_SHOWN, torch.ones_like(frames.mask), None)
        state = model.observe(before, actions, frames.lang)
        imagined = model.imagine(state, frames.actions[NUM_SHOWN:])
        copy = {name: part.clone() for name, part in state.items()}
        for t in range(NUM_SHOWN, len(frames.views)):
            after = model.step(state, frames.actions[t])
            assert all(torch.equal(state[name], copy[name]) for name in copy), "a step changed what it was given"
            state, copy = after, {name: part.clone() for name, part in after.items()}
            assert all(torch.equal(part, imagined[t - NUM_SHOWN][name]) for name, part in state.items())
            assert torch.allclose(model.view(state), model.views.decode(simulated.logits[t]), atol=1e-3)
            assert torch.allclose(model.outcome(state), simulated.outcomes[t], atol=1e-5)
        blank = model.observe(frames.views[:0].transpose(0, 1), frames.actions[:0].transpose(0, 1), frames.lang)
        assert all(torch.equal(part, model.blank(frames.lang)[name]) for name, part in blank.items())


def test_gradients_reach_first_frames_and_actions(parts):
    model, _, frames = parts
    first = frames.views[:2].transpose(0, 1).clone().requires_grad_()
    action = frames.actions[2].clone().requires_grad_()
    state = model.observe(first, frames.actions[1:2].transpose(0, 1), frames.lang)
    shown = model.view(model.step(model.step(state, action), frames.actions[3]))
    weights = torch.randn(shown.shape[-1], generator=torch.Generator().manual_seed(0))
    for gradient in torch.autograd.grad((shown * weights).sum(), (first, action)):
        assert (gradient.flatten(1).abs().sum(1) > 0).all()


def test_what_is_after_the_end_of_an_episode_changes_nothing(parts):
    model, policy, frames = parts
    is_over = ~frames.mask
    assert is_over.any() and frames.outcomes[..., 0].any()
    noisy = frames._replace(
        views=torch.where(is_over[..., None], frames.views.roll(1, 1), frames.views),
        outcomes=torch.where(is_over[..., None], 1.0, frames.outcomes),
        hidden=torch.where(is_over[..., None], 3.0, frames.hidden),
    )
    variance, is_free = torch.ones(policy.hidden_size), torch.zeros_like(frames.mask)
    one, other = (
        losses(model, policy, given, simulate(model, given, NUM_SHOWN, is_free, None), NUM_SHOWN, variance)
        for given in (frames, noisy)
    )
    assert tuple(one) == model.domain.terms
    for name, value in one.items():
        assert value.item() == pytest.approx(other[name].item(), rel=1e-6), name
        assert value.item() > 0, name
