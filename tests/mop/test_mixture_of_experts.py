"""The equations of both policies: contracts, known answers, derivatives, interventions."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from mixture_of_experts import (
    Expert,
    ExpertDropout,
    Film,
    GRUPolicy,
    MixtureOfExpertsPolicy,
    MoELayer,
    WordProjection,
    compute_lpc,
    encoded_dim,
    gru_step,
    reset_hidden,
    routing_measures,
)

SIZES = [[0, 16, 32], [0, 8], [12]]


def policies():
    torch.manual_seed(0)
    shapes = {"input_dim": 10, "lang_dim": 4, "intermediate_dim": 12}
    return {
        "mop": MixtureOfExpertsPolicy(expert_hidden_sizes=SIZES, router_hidden_size=9, **shapes),
        "residual": MixtureOfExpertsPolicy(expert_hidden_sizes=SIZES, router_hidden_size=9, residual=True, **shapes),
        "only_skip": MixtureOfExpertsPolicy(expert_hidden_sizes=[0, 0], router_hidden_size=5, **shapes),
        "gru": GRUPolicy(gru_hidden_size=11, **shapes),
    }


def sequence(num_steps=7, num_envs=5):
    generator = torch.Generator().manual_seed(1)
    obs = torch.randn(num_steps, num_envs, 10, generator=generator)
    lang = torch.randn(num_steps, num_envs, 4, generator=generator)
    keep = torch.rand(num_steps, num_envs, generator=generator) > 0.3
    assert not keep.all() and keep.any()
    return obs, lang, keep


def test_expert_gain_scales_what_untrained_experts_say():
    x, hidden = torch.randn(3, 8), torch.zeros(3, 6)
    experts = []
    for gain in (1.0, 10.0):
        torch.manual_seed(0)
        experts.append(Expert(8, 6, gain))
    said = [expert(x, hidden)[0] - expert.projection.bias for expert in experts]
    torch.testing.assert_close(said[1], 10 * said[0])


@pytest.fixture(params=["mop", "residual", "only_skip", "gru"])
def policy(request):
    return policies()[request.param]


def test_shapes_simplex_and_named_views(policy):
    obs, lang, keep = sequence()
    hidden = policy.initial_hidden(5)
    logits, routing, after = policy.get_routing_info(obs, lang, hidden, keep)
    assert logits.shape == (7, 5, 7) and after.shape == hidden.shape == (5, policy.hidden_size)
    assert len(routing) == len(policy.expert_hidden_sizes)
    for weights, sizes in zip(routing, policy.expert_hidden_sizes, strict=True):
        assert weights.shape == (7, 5, len(sizes)) and (weights >= 0).all()
        torch.testing.assert_close(weights.sum(-1), torch.ones(7, 5))
    views = policy.hidden_by_name(after)
    assert sum(view.shape[-1] for view in views.values()) == policy.hidden_size
    assert all(view.shape[:2] == (1, 5) for view in views.values())
    torch.testing.assert_close(policy(obs, lang, hidden, keep)[0], logits, rtol=0, atol=0)


def test_names_of_the_hidden_state():
    views = policies()["mop"].hidden_by_name(policies()["mop"].initial_hidden(3))
    shapes = {name: tuple(view.shape) for name, view in views.items()}
    assert shapes == {
        "router_0": (1, 3, 9), "expert_0_1": (1, 3, 16), "expert_0_2": (1, 3, 32),
        "router_1": (1, 3, 9), "expert_1_1": (1, 3, 8),
        "router_2": (1, 3, 9), "expert_2_0": (1, 3, 12),
    }  # fmt: skip


def test_whole_sequence_equals_single_steps(policy):
    obs, lang, keep = sequence()
    logits, routing, after = policy.get_routing_info(obs, lang, policy.initial_hidden(5), keep)
    hidden = policy.initial_hidden(5)
    for t in range(7):
        hidden = reset_hidden(hidden, ~keep[t])
        step_logits, step_routing, hidden = policy.get_routing_info(obs[t], lang[t], hidden)
        torch.testing.assert_close(step_logits, logits[t], rtol=1e-5, atol=1e-6)
        for weights, expected in zip(step_routing, routing, strict=True):
            torch.testing.assert_close(weights, expected[t], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(hidden, after, rtol=1e-5, atol=1e-6)


def test_no_sample_influences_another(policy):
    obs, lang, keep = sequence()
    hidden = torch.randn(5, policy.hidden_size, generator=torch.Generator().manual_seed(2))
    before = policy.get_routing_info(obs, lang, hidden, keep)
    obs, lang, hidden = obs.clone(), lang.clone(), hidden.clone()
    obs[:, 2], lang[:, 2], hidden[2] = 1e3, -7.0, 0.9
    after = policy.get_routing_info(obs, lang, hidden, keep)
    others = [0, 1, 3, 4]
    assert not torch.equal(before[0][:, 2], after[0][:, 2])
    torch.testing.assert_close(after[0][:, others], before[0][:, others], rtol=0, atol=0)
    torch.testing.assert_close(after[2][others], before[2][others], rtol=0, atol=0)
    for old, new in zip(before[1], after[1], strict=True):
        torch.testing.assert_close(new[:, others], old[:, others], rtol=0, atol=0)


def test_reset_slot_is_a_fresh_slot_even_after_nan(policy):
    obs, lang, _ = sequence(num_steps=1)
    hidden = torch.full((5, policy.hidden_size), torch.nan)
    done = torch.tensor([True, False, True, True, True])
    cleared = reset_hidden(hidden, done)
    assert torch.isnan(cleared[1]).all() and (cleared[done] == 0).all()
    fresh = policy(obs[0], lang[0], policy.initial_hidden(5))[0]
    torch.testing.assert_close(policy(obs[0], lang[0], cleared)[0][done], fresh[done], rtol=0, atol=0)
    in_sequence = policy(obs, lang, hidden, keep=~done[None])[0][0]
    torch.testing.assert_close(in_sequence[done], fresh[done], rtol=0, atol=0)


def test_a_gru_step_is_that_of_torch():
    torch.manual_seed(4)
    gru, x = nn.GRU(6, 5), torch.randn(8, 4, 6, requires_grad=True)
    states = [torch.randn(4, 5)]
    theirs, _ = gru(x, states[0][None])
    for step in x:
        states.append(gru_step(gru, step, states[-1]))
    ours = torch.stack(states[1:])
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    grads = [torch.autograd.grad(y.square().sum(), [x, *gru.parameters()]) for y in (ours, theirs)]
    assert len(grads[0]) == 5
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_layer_is_the_weighted_sum_of_its_experts():
    """By hand: constant experts (no weights, a bias), and a router whose weights are the softmax of its bias."""
    layer = MoELayer(2, [0, 3, 1], router_hidden_size=4)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        layer.router.fc.bias.copy_(torch.tensor([0.5, 0.3, 0.2]).log())
        layer.experts[1].projection.bias.copy_(torch.tensor([10.0, 0.0]))
        layer.experts[2].projection.bias.copy_(torch.tensor([0.0, -5.0]))
    x, states = torch.tensor([[1.0, 2.0], [-4.0, 0.0]]), torch.ones(2, 4 + 3 + 1)
    y, weights, after = layer(x, states)
    torch.testing.assert_close(weights, torch.tensor([[0.5, 0.3, 0.2]]).expand(2, 3))
    torch.testing.assert_close(y, 0.5 * x + torch.tensor([3.0, -1.0]))
    torch.testing.assert_close(after, torch.full((2, 8), 0.5))  # all gates are 1/2, all candidates 0
    only_skip, used, same = layer(x, states, lambda weights: torch.tensor([1.0, 0.0, 0.0]).expand(2, 3))
    assert torch.equal(only_skip, x) and used[0].tolist() == [1.0, 0.0, 0.0] and torch.equal(same, after)


def test_the_residual_block_by_hand():
    """LayerNorm of x + y with another weight and bias for each column, by NumPy."""
    torch.manual_seed(0)
    layer = MoELayer(4, [0, 3], router_hidden_size=2, residual=True)
    nn.init.normal_(layer.norm.weight)
    nn.init.normal_(layer.norm.bias)
    x, states = torch.randn(5, 4), torch.randn(5, 2 + 3)
    own, weights, _ = layer(x, states)
    plain = MoELayer(4, [0, 3], router_hidden_size=2)
    plain.load_state_dict({name: p for name, p in layer.state_dict().items() if not name.startswith("norm")})
    v = (x + plain(x, states)[0]).detach().numpy()
    v = (v - v.mean(1, keepdims=True)) / np.sqrt(v.var(1, keepdims=True) + 1e-5)
    expected = v * layer.norm.weight.detach().numpy() + layer.norm.bias.detach().numpy()
    np.testing.assert_allclose(own.detach(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(weights, plain(x, states)[1])


def test_the_columns_of_a_one_hot_observation():
    """49 cells of 11 types, then of 6 colours, then of 3 states; behind them direction, carrying and mission."""
    policy = MixtureOfExpertsPolicy(obs_encoding="one_hot")
    obs, lang = torch.zeros(1, 152), torch.arange(32.0)[None]
    obs[0, [0, 48, 49, 98, 146]] = torch.tensor([10.0, 4.0, 5.0, 2.0, 1.0])
    obs[0, [148, 151]] = 1.0
    (encoded,) = policy.encode(obs, lang)
    ones = [11 * k for k in range(49)] + [539 + 6 * k for k in range(49)] + [833 + 3 * k for k in range(49)]
    for place, value in ((0, 10), (48, 4), (49, 5), (98, 2), (146, 1)):
        ones[place] += value
    expected = torch.zeros(980)
    expected[ones] = 1.0
    assert torch.equal(encoded[:980], expected)
    assert encoded[980:985].tolist() == [0.0, 1.0, 0.0, 0.0, 1.0] and torch.equal(encoded[985:], lang[0])


def test_input_projection_and_head_by_hand():
    """The baseline with a GRU that does nothing: gates of 1/2 and no candidate halve the state, whatever the input."""
    policy = GRUPolicy(input_dim=3, lang_dim=2, intermediate_dim=4, gru_hidden_size=2, num_actions=2)
    with torch.no_grad():
        for parameter in policy.gru.parameters():
            parameter.zero_()
        policy.head.weight.copy_(torch.tensor([[1.0, 0.0], [2.0, -1.0]]))
        policy.head.bias.copy_(torch.tensor([0.5, 0.0]))
    hidden = torch.tensor([[4.0, 2.0]])
    logits, (weights,), after = policy.get_routing_info(torch.ones(1, 3), torch.ones(1, 2), hidden)
    assert after.tolist() == [[2.0, 1.0]] and logits.tolist() == [[2.5, 3.0]] and weights.tolist() == [[1.0]]
    mixture = MixtureOfExpertsPolicy(input_dim=3, lang_dim=2, intermediate_dim=2, expert_hidden_sizes=[[0]])
    with torch.no_grad():
        mixture.input_projection.weight.copy_(torch.tensor([[1.0, 2, 3, 4, 5], [0, 0, 0, 0, 1]]))
        mixture.input_projection.bias.copy_(torch.tensor([0.0, 7.0]))
        mixture.head.weight.zero_()
        mixture.head.weight[1] = torch.tensor([1.0, 10.0])
        mixture.head.bias.zero_()
    obs, lang = torch.tensor([[1.0, 0.0, 2.0]]), torch.tensor([[0.0, 3.0]])
    logits = mixture(obs, lang, mixture.initial_hidden(1))[0]
    assert logits[0, :2].tolist() == [0.0, (1 + 6 + 15) + 10 * (3 + 7)]  # a skip alone hands on its input


def test_the_mission_scales_and_shifts_the_features_of_a_cell_by_hand():
    """C = 2 and F = 1: gamma and beta from a mission of two numbers; a type is 1, a colour 10, a state 100."""
    policy = GRUPolicy(input_dim=148, lang_dim=2, intermediate_dim=1, obs_encoding="one_hot", film=Film(2, 1))
    front = policy.input_projection
    with torch.no_grad():
        for parameter in front.parameters():
            parameter.zero_()
        front.cells.weight[0] = torch.tensor([1.0] * 11 + [10.0] * 6 + [100.0] * 3)
        front.cells.weight[1, 4] = 7.0  # of the fourth type alone
        front.film.weight[0, 0] = front.film.weight[2, 1] = 1.0  # gamma_0 and beta_0
        front.features.weight.copy_(torch.tensor([[1.0, 2.0]]))
        front.features.bias.fill_(-1.0)
        front.output.weight[0, 3], front.output.weight[0, 49:] = 1.0, torch.tensor([0.1, 0.01, 0.001])
    obs = torch.zeros(4, 148)
    obs[1, 3], obs[:, 147] = 4.0, 5.0
    lang = torch.tensor([[0.5, 3.0], [0.5, 3.0], [-2.0, 0.0], [-1.0, 0.25]])
    x = front(policy.encode(obs, lang))[:, 0]
    features = torch.tensor([1.5 * 111 + 3 - 1, 1.5 * 111 + 3 + 2 * 7 - 1, 0.0, 0.0])  # the last: 0.25 - 1 < 0
    torch.testing.assert_close(x, features + 0.5 + 0.01 * lang[:, 0] + 0.001 * lang[:, 1])
    with pytest.raises(ValueError, match="one-hot"):
        GRUPolicy(film=Film())


def soft_inputs(policy, num_steps=3, num_envs=2):
    """Inputs that are no ones and zeros, hidden state, keep; float64."""
    generator = torch.Generator().manual_seed(5)
    num_inputs = encoded_dim(policy.input_dim, policy.obs_encoding) + policy.lang_dim
    inputs = torch.rand(num_steps, num_envs, num_inputs, generator=generator).double()
    hidden = torch.randn(num_envs, policy.hidden_size, generator=generator).double()
    return inputs, hidden, torch.tensor([[True, True], [False, True], [True, True]])


@pytest.mark.parametrize("kind", ["mop", "residual", "gru", "film"])
def test_derivatives_by_soft_inputs_and_state_by_finite_differences(kind):
    torch.manual_seed(0)
    dims = {"input_dim": 3, "lang_dim": 2, "intermediate_dim": 4, "num_actions": 3}
    if kind == "gru":
        policy = GRUPolicy(**dims, gru_hidden_size=3).double()
    elif kind == "film":
        front = {"input_dim": 147, "obs_encoding": "one_hot", "film": Film(3, 1)}
        policy = GRUPolicy(**dims | front, gru_hidden_size=2).double()
    else:
        sizes = {"expert_hidden_sizes": [[0, 2], [1, 0]], "router_hidden_size": 2}
        policy = MixtureOfExpertsPolicy(**dims, **sizes, residual=kind == "residual").double()
    inputs, hidden, keep = soft_inputs(policy)

    def outputs(inputs, hidden):
        logits, routing, after = policy.forward_encoded(inputs, hidden, keep)
        return logits, after, *routing

    given = inputs.requires_grad_(), hidden.requires_grad_()
    assert torch.autograd.gradcheck(outputs, given, fast_mode=True)
    assert torch.autograd.gradgradcheck(
        lambda x: policy.step(x, hidden[:1])[0], (inputs[0, :1],), fast_mode=True
    )  # as saliency may ask


def test_one_hot_inputs_take_soft_categories():
    """Half of one category and half of another lies between the two, and the gradient says in which direction."""
    torch.manual_seed(0)
    policy = MixtureOfExpertsPolicy(obs_encoding="one_hot").double()
    obs, lang = torch.zeros(2, 152).double(), torch.zeros(2, 32).double()
    obs[1, 0] = 3.0
    one, other = policy.encode(obs, lang)
    assert one.shape == (49 * (11 + 6 + 3) + 5 + 32,) and (one != other).sum() == 2 and one[:980].sum() == 147
    blend = (0.5 * one + 0.5 * other)[None].requires_grad_()
    x = policy.input_projection(torch.stack([one, blend[0], other]))
    torch.testing.assert_close(x[1], (x[0] + x[2]) / 2)
    logits, routing, _ = policy.forward_encoded(blend, policy.initial_hidden(1))
    (grad,) = torch.autograd.grad(logits[0, 0] + compute_lpc(routing, policy.expert_hidden_sizes).sum(), blend)
    assert (grad[0, :980] != 0).all()


def test_an_intervention_replaces_the_routers_weights(policy):
    obs, lang, keep = sequence()
    hidden, asked = policy.initial_hidden(5), []
    plain = policy.forward_encoded(policy.encode(obs, lang), hidden, keep)

    def leave(layer, weights):
        asked.append((layer, tuple(weights.shape)))
        return weights

    same = policy.get_routing_info(obs, lang, hidden, keep, leave)
    assert torch.equal(same[0], plain[0]) and torch.equal(same[2], plain[2])  # one that does nothing changes no bit
    num_layers = len(getattr(policy, "moe_layers", []))
    shapes = [(layer, (5, len(policy.expert_hidden_sizes[layer]))) for layer in range(num_layers)]
    assert asked == shapes * 7

    def uniform(layer, weights):
        return torch.full_like(weights, 1 / weights.shape[-1]) if layer == 0 else weights

    logits, routing, _ = policy.get_routing_info(obs, lang, hidden, keep, uniform)
    if num_layers and len(policy.expert_hidden_sizes[0]) > 1 and sum(policy.expert_hidden_sizes[0]) > 0:
        assert (routing[0] == 1 / 3).all() and not torch.allclose(logits, plain[0])
        assert not torch.allclose(routing[1], plain[1][1])  # later layers see the change
    single = policy.get_routing_info(obs[0], lang[0], hidden, intervene=uniform)
    torch.testing.assert_close(single[0], logits[0])


def test_every_parameter_learns(policy):
    obs, lang, keep = sequence()
    logits, routing, _ = policy.get_routing_info(obs, lang, policy.initial_hidden(5), keep)
    (logits.square().sum() + compute_lpc(routing, policy.expert_hidden_sizes).sum()).backward()
    without = [name for name, p in policy.named_parameters() if p.grad is None]
    assert without == []


@pytest.mark.parametrize(
    ("weights", "expected"),
    [([1 / 3, 1 / 3, 1 / 3], 1280.0), ([1.0, 0.0, 0.0], 0.0), ([0.0, 0.0, 1.0], 3072.0), ([0.0, 1.0, 0.0], 768.0)],
)
def test_lpc_known_answers(weights, expected):
    routing = [torch.tensor([weights, weights])] * 3
    lpc = compute_lpc(routing, [[0, 16, 32]] * 3)
    torch.testing.assert_close(lpc, torch.full((2,), expected), rtol=1e-6, atol=1e-3)


def test_routing_measures_by_hand():
    half, sure = torch.tensor([0.5, 0.0, 0.5]), torch.tensor([1.0, 0.0, 0.0])
    routing = [torch.stack([half, sure])[None], torch.tensor([[[0.25, 0.75]] * 2]), torch.ones(1, 2, 1)]
    measures = routing_measures(routing, [[0, 8, 0], [4, 8], [6]])
    assert measures == pytest.approx(
        {
            "router_entropy_0": math.log(2) / 2,
            "skip_share_0": 1.0,  # both skip experts of the layer
            "router_entropy_1": -0.25 * math.log(0.25) - 0.75 * math.log(0.75),
        }
    )


def test_expert_dropout_by_its_formula():
    dropout = ExpertDropout(0.5, 0.2)
    torch.manual_seed(0)
    weights = torch.tensor([0.0, 0.05, 0.1, 0.199, 0.2, 0.451])
    used = dropout(weights.expand(20_000, 6))
    assert ((used == weights) | (used == 0)).all()
    shares = (used == 0).float().mean(0)[1:]  # of w = 0 nothing is left either way
    torch.testing.assert_close(shares, torch.tensor([0.375, 0.25, 0.0025, 0.0, 0.0]), atol=0.02, rtol=0)
    assert shares[2] > 0


def test_dropped_experts_learn_nothing_and_evaluation_drops_none():
    torch.manual_seed(0)
    shapes = {"input_dim": 10, "lang_dim": 4, "intermediate_dim": 12, "router_hidden_size": 9}
    policy = MixtureOfExpertsPolicy(expert_hidden_sizes=SIZES, **shapes, dropout=ExpertDropout(1.0, 1e9))
    plain = MixtureOfExpertsPolicy(expert_hidden_sizes=SIZES, **shapes)
    plain.load_state_dict(policy.state_dict())
    obs, lang, keep = sequence()
    logits, routing, _ = policy.get_routing_info(obs, lang, policy.initial_hidden(5), keep)
    logits.sum().backward()
    assert torch.equal(logits, policy.head.bias.expand_as(logits))  # all are dropped
    assert all((p.grad is None or (p.grad == 0).all()) for n, p in policy.named_parameters() if n != "head.bias")
    torch.testing.assert_close(routing[0].sum(-1), torch.ones(7, 5))  # the routers' weights are reported as they are
    policy.eval()
    with torch.no_grad():
        own, other = (p(obs, lang, p.initial_hidden(5), keep)[0] for p in (policy, plain))
    assert torch.equal(own, other)


def test_an_unknown_category_or_encoding_is_refused():
    policy = MixtureOfExpertsPolicy(obs_encoding="one_hot")
    for value in (-1.0, 11.0, 1e8, float("nan")):
        obs = torch.zeros(2, 152)
        obs[1, 0] = value
        with pytest.raises(ValueError, match="category"):
            policy(obs, torch.zeros(2, 32), policy.initial_hidden(2))
    with pytest.raises(KeyError, match="onehot"):
        MixtureOfExpertsPolicy(obs_encoding="onehot")
    with pytest.raises(ValueError, match="147 integers"):
        GRUPolicy(input_dim=10, obs_encoding="one_hot")


def test_one_hot_inputs_begin_on_the_scale_of_raw_ones():
    """As many inputs differ from zero at once as an observation has numbers, so that the weights have their scale."""
    torch.manual_seed(0)
    raw, one_hot = MixtureOfExpertsPolicy(), MixtureOfExpertsPolicy(obs_encoding="one_hot")
    assert one_hot.input_projection.weight.shape == (64, 49 * (11 + 6 + 3) + 5 + 32)
    largest = [policy.input_projection.weight.abs().max().item() for policy in (raw, one_hot)]
    assert largest == pytest.approx([184**-0.5] * 2, rel=0.01)
    assert set(one_hot.state_dict()) == set(raw.state_dict())


def test_parameter_names_of_checkpoints_made_elsewhere():
    names = set(MixtureOfExpertsPolicy(residual=True).state_dict())
    gru = [f"{kind}_{side}_l0" for kind in ("weight", "bias") for side in ("ih", "hh")]
    expected = {f"{part}.{kind}" for part in ("input_projection", "head") for kind in ("weight", "bias")}
    for layer in range(3):
        prefix = f"moe_layers.{layer}"
        expected |= {f"{prefix}.router.gru.{name}" for name in gru}
        expected |= {f"{prefix}.{part}.{kind}" for part in ("router.fc", "norm") for kind in ("weight", "bias")}
        for expert in (1, 2):
            expected |= {f"{prefix}.experts.{expert}.gru.{name}" for name in gru}
            expected |= {f"{prefix}.experts.{expert}.projection.{kind}" for kind in ("weight", "bias")}
    assert names == expected
    assert set(MixtureOfExpertsPolicy().state_dict()) == {name for name in expected if ".norm." not in name}


def test_skip_expert_has_no_parameters_and_flat_list_is_one_layer():
    assert list(Expert(8, 0).parameters()) == []
    x, nothing = torch.randn(3, 8), torch.zeros(3, 0)
    assert Expert(8, 0)(x, nothing)[0] is x
    assert MixtureOfExpertsPolicy(expert_hidden_sizes=[0, 16]).expert_hidden_sizes == [[0, 16]]


def test_a_mission_is_read_by_itself_and_in_order():
    """Whatever is beside it in the batch; a word elsewhere changes it; the gradient reaches its words alone."""
    torch.manual_seed(0)
    reader, missions = WordProjection(33, 12, 6), torch.zeros(3, 12)
    missions[0, :4], missions[1, :11], missions[2, :4] = torch.tensor([2, 5, 7, 9]), torch.arange(11) + 1, 4
    together = reader(missions)
    assert together.shape == (3, 6)
    torch.testing.assert_close(torch.cat([reader(row[None]) for row in missions]), together)
    swapped = missions[:1].clone()
    swapped[0, 1:3] = missions[0, [2, 1]]
    assert (reader(swapped) - together[:1]).abs().max() > 1e-3
    reader(missions[:1]).sum().backward()
    assert reader.words.weight.grad.any(1).nonzero().ravel().tolist() == [2, 5, 7, 9]
    assert reader.places.weight.grad.any(1).nonzero().ravel().tolist() == [0, 1, 2, 3]
