"""The compiled arithmetic against the plain modules: steps, sequences, gradients; no sample depends on its batch."""

import pickle

import numpy as np
import pytest
import torch
from numba import njit
from torch import nn

from mixture_of_experts import GRUPolicy, MixtureOfExpertsPolicy, _compiled_grus, _CompiledGRUs, _CompiledMix
from mop.kernels.grid import CATEGORIES
from mop.kernels.policy import CompiledPolicy, PolicyShape, _tanh

SMALL = {"input_dim": 10, "lang_dim": 3, "intermediate_dim": 13, "num_actions": 5}
ARCHITECTURES = {
    "default": lambda: MixtureOfExpertsPolicy(),
    "default, residual": lambda: MixtureOfExpertsPolicy(residual=True),
    "one-hot": lambda: MixtureOfExpertsPolicy(residual=True, obs_encoding="one_hot"),
    "uneven": lambda: MixtureOfExpertsPolicy(**SMALL, expert_hidden_sizes=[[0, 5, 9], [4], [8, 0, 3, 1]]),
    "one layer": lambda: MixtureOfExpertsPolicy(**SMALL, expert_hidden_sizes=[6, 0], router_hidden_size=7),
    "skip only": lambda: MixtureOfExpertsPolicy(**SMALL, expert_hidden_sizes=[[0], [0, 0]], router_hidden_size=2),
    "residual": lambda: MixtureOfExpertsPolicy(
        **SMALL, expert_hidden_sizes=[[0, 2], [0], [3, 3]], router_hidden_size=1, residual=True
    ),
    "baseline": lambda: GRUPolicy(),
    "one-hot baseline": lambda: GRUPolicy(obs_encoding="one_hot"),
    "small baseline": lambda: GRUPolicy(**SMALL, gru_hidden_size=7),
}


def make(name: str, dtype=torch.float32):
    """A policy with random weights, norms included."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(len(name))
        policy = ARCHITECTURES[name]().to(dtype)
        for parameter_name, parameter in policy.named_parameters():
            if ".norm." in parameter_name:
                nn.init.normal_(parameter, 1.0, 0.5)
    return policy


def inputs(policy, num_envs: int, num_steps: int = 1, dtype=torch.float32):
    """obs (T, N, I), lang (T, N, G), hidden (N, S), keep (T, N)."""
    generator = torch.Generator().manual_seed(num_envs)
    sizes = (num_steps, num_envs, policy.input_dim), (num_steps, num_envs, policy.lang_dim)
    obs, lang, hidden = (
        torch.randn(size, generator=generator, dtype=dtype) for size in (*sizes, (num_envs, policy.hidden_size))
    )
    if policy.obs_encoding == "one_hot":
        for image, num_categories in zip(obs[..., :147].split(49, -1), CATEGORIES, strict=True):
            image.copy_(torch.randint(num_categories, image.shape, generator=generator))
    return obs, lang, 0.5 * hidden, torch.rand(num_steps, num_envs, generator=generator) > 0.3


def encoded(policy, obs):
    """obs (N, I) as the input projection sees it, one number at a time."""
    if policy.obs_encoding == "raw":
        return obs
    parts = []
    for k in range(147):
        parts.append((obs[:, k : k + 1] == torch.arange(CATEGORIES[k // 49])).to(obs.dtype))
        assert (parts[-1].sum(1) == 1).all()
    return torch.cat([*parts, obs[:, 147:]], 1)


def plain(policy, obs, lang, hidden, keep):
    """What `get_routing_info` must give, one step and one torch module at a time."""
    logits, routing = [], []
    views = {name: hidden[None, :, columns] for name, columns in policy.hidden_layout.items()}
    for t in range(len(obs)):
        views = {name: torch.where(keep[t][None, :, None], view, 0.0) for name, view in views.items()}
        x = policy.input_projection(torch.cat([encoded(policy, obs[t]), lang[t]], -1))[None]
        if isinstance(policy, GRUPolicy):
            x, views["gru"] = policy.gru(x, views["gru"])
            routing.append([x.new_ones(x.shape[1], 1)])
        else:
            routing.append([])
            for i, layer in enumerate(policy.moe_layers):
                weights, views[f"router_{i}"] = layer.router(x, views[f"router_{i}"])
                y = torch.zeros_like(x)
                for e, expert in enumerate(layer.experts):
                    out, state = expert(x, views.get(f"expert_{i}_{e}"))
                    if expert.hidden_size > 0:
                        views[f"expert_{i}_{e}"] = state
                    y = y + weights[..., e : e + 1] * out
                x = layer.norm(x + y) if policy.is_residual else y
                routing[-1].append(weights[0])
        logits.append(policy.head(x)[0])
    after = torch.cat([views[name][0] for name in policy.hidden_layout], -1)
    return torch.stack(logits), [torch.stack(weights) for weights in zip(*routing, strict=True)], after


def test_a_step_equals_the_plain_modules():
    checked = 0
    for name in ARCHITECTURES:
        policy = make(name)
        compiled = policy.compiled()
        for num_envs in (1, 3, 4, 16, 41):
            obs, lang, hidden, _ = inputs(policy, num_envs)
            logits, routing, after = compiled.step(obs[0].numpy(), lang[0].numpy(), hidden.numpy())
            with torch.no_grad():
                expected = plain(policy, obs, lang, hidden, torch.ones(1, num_envs, dtype=torch.bool))
            assert len(routing) == len(policy.expert_hidden_sizes)
            for own, other in zip((logits, after, *routing), (expected[0][0], expected[2], *expected[1]), strict=True):
                assert own.dtype == np.float32
                torch.testing.assert_close(torch.from_numpy(own), other.view(own.shape), rtol=1e-5, atol=2e-6)
            checked += 1
    assert checked == 5 * len(ARCHITECTURES) == 50


def test_a_sample_does_not_depend_on_its_batch_bit_for_bit():
    checked = 0
    for name in ARCHITECTURES:
        policy = make(name)
        lang_proj = nn.Linear(50, policy.lang_dim)
        compiled = policy.compiled(lang_proj)
        obs, lang, hidden, _ = (tensor.numpy() for tensor in inputs(policy, 23))
        missions = torch.randn(23, 50).numpy()
        logits, routing, after = compiled.step(obs[0], lang[0], hidden)
        projected = compiled.project(missions)
        np.testing.assert_allclose(projected, lang_proj(torch.from_numpy(missions)).detach(), rtol=1e-5, atol=1e-5)
        shuffled = np.random.default_rng(0).permutation(23)
        for rows in (*([i] for i in range(23)), range(8), range(8, 16), range(16, 23), range(1, 6), shuffled):
            rows = list(rows)
            part = compiled.step(obs[0, rows], lang[0, rows], hidden[rows])
            assert np.array_equal(part[0], logits[rows]) and np.array_equal(part[2], after[rows])
            for own, other in zip(part[1], routing, strict=True):
                assert np.array_equal(own, other[rows])
            assert np.array_equal(compiled.project(missions[rows]), projected[rows])
            checked += 1
    assert checked == 28 * len(ARCHITECTURES)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_sequence_and_its_gradient_equal_the_plain_modules(name):
    """In float64, where nothing is approximated; the states' gradient too."""
    policy = make(name, torch.float64)
    obs, lang, hidden, keep = inputs(policy, 5, 6, torch.float64)
    assert keep.any() and not keep.all()
    results = []
    for run in (policy.get_routing_info, lambda *given: plain(policy, *given)):
        given = [tensor.clone().requires_grad_() for tensor in (obs, lang, hidden)]
        logits, routing, after = run(*given, keep)
        loss = logits.square().sum() + after.sin().sum() + sum((weights**3).sum() for weights in routing)
        grads = torch.autograd.grad(loss, [*given, *policy.parameters()])
        results.append([logits, after, *routing, *grads])
    assert len(results[0]) > 10
    for own, other in zip(*results, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", ["default", "default, residual", "one-hot", "uneven", "baseline"])
def test_float32_learns_the_same_within_rounding(name):
    policy = make(name)
    given, results = inputs(policy, 16, 32), []
    for run in (policy.get_routing_info, lambda *given: plain(policy, *given)):
        logits, routing, _ = run(*given)
        loss = logits.log_softmax(-1)[..., 0].mean() + sum(weights[..., 0].mean() for weights in routing)
        results.append([loss, *torch.autograd.grad(loss, list(policy.parameters()), allow_unused=True)])
    for own, other in zip(*results, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-6)


def test_gradients():
    """By finite differences, of the two functions that carry them."""
    torch.manual_seed(0)
    keep = torch.tensor([[True, False, True], [True, True, True], [False, True, True], [True, True, False]])
    grus = [nn.GRU(4, size).double() for size in (5, 1, 2)]
    parameters = [parameter for gru in grus for parameter in gru.parameters()]
    x, hidden = torch.randn(4, 3, 4).double().requires_grad_(), torch.randn(3, 8).double().requires_grad_()
    for mask in (keep, None):
        run = lambda x, hidden, *parameters, mask=mask: _CompiledGRUs.apply(x, hidden, mask, *parameters)  # noqa: E731
        assert torch.autograd.gradcheck(run, (x, hidden, *parameters))
    checked = 0
    for sizes in ([0, 3, 2], [4], [0, 0], [2, 0]):
        shapes = [(6, 5 + sum(sizes)), (6, 4), (len(sizes), 5), (len(sizes),), (4, sum(sizes) + len(sizes))]
        tensors = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
        assert torch.autograd.gradcheck(lambda *t, sizes=sizes: _CompiledMix.apply(sizes, *t), tensors)
        checked += 1
    assert checked == 4


def test_other_devices_project_one_hot_observations_the_same():
    """Their way, through ones and zeros, taken on the CPU."""
    policy = make("one-hot", torch.float64)
    obs, lang, *_ = inputs(policy, 5, 3, torch.float64)
    results = []
    for project in (policy._project, lambda *given: policy.input_projection(policy._encode(*given))):
        given = [tensor.clone().requires_grad_() for tensor in (obs, lang)]
        x = project(*given)
        results.append([x, *torch.autograd.grad(x.square().sum(), [*given, *policy.input_projection.parameters()])])
    for own, other in zip(*results, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-10, atol=1e-10)


def compiled_layer(layer, x, hidden, keep):
    states = _compiled_grus(layer._grus, x, hidden, keep)
    return *layer._compiled_mix(x, states), states


def torch_layer(layer, x, hidden, keep):
    packed = layer.pack()
    states = layer._scan(packed, x, hidden, keep)
    return *layer._mix(packed, x, states), states


def test_other_devices_compute_the_same():
    """Their path through torch, taken on the CPU."""
    checked = 0
    for name in ARCHITECTURES:
        for i, layer in enumerate(getattr(make(name), "moe_layers", [])):
            units, generator = sum(gru.hidden_size for gru in layer._grus), torch.Generator().manual_seed(i)
            x = torch.randn(6, 5, layer.router.gru.input_size, generator=generator)
            hidden, keep = torch.randn(5, units, generator=generator), torch.rand(6, 5, generator=generator) > 0.3
            results = []
            for run in (compiled_layer, torch_layer):
                y, weights, states = run(layer, x, hidden, keep)
                loss = y.square().mean() + (weights**2).sum() + states[-1].sum()
                parameters = [p for key, p in layer.named_parameters() if "norm" not in key]
                results.append([y, weights, states, *torch.autograd.grad(loss, parameters)])
            for own, other in zip(*results, strict=True):
                torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-5)
            checked += 1
    assert checked == 3 + 3 + 3 + 3 + 1 + 2 + 3


def test_nan_in_a_state_that_is_reset_does_not_leak():
    for name in ("uneven", "residual", "baseline"):
        policy = make(name)
        obs, lang, hidden, keep = inputs(policy, 5, 4)
        hidden[1], hidden[3] = torch.nan, torch.inf
        keep[0] = torch.tensor([True, False, True, False, True])
        logits, routing, after = policy.get_routing_info(obs, lang, hidden, keep)
        (logits.sum() + after.sum() + sum((weights**2).sum() for weights in routing)).backward()
        assert all(torch.isfinite(tensor).all() for tensor in (logits, after, *routing))
        assert all(torch.isfinite(parameter.grad).all() for parameter in policy.parameters())
        fresh = hidden.nan_to_num(0.0, 0.0) * keep[0].unsqueeze(-1)
        torch.testing.assert_close(policy.get_routing_info(obs, lang, fresh, keep)[0], logits, rtol=0, atol=0)
        hidden[1] = torch.nan
        with torch.no_grad():  # one that is not reset stays visible, in its own row alone
            logits, _ = policy(obs[0], lang[0], hidden, packed=policy.pack())
        assert torch.isfinite(logits[[0, 2, 4]]).all() and torch.isnan(logits[1]).all()


def test_packed_weights_are_the_compiled_policy():
    checked = 0
    for name in ARCHITECTURES:
        policy = make(name)
        obs, lang, hidden, keep = inputs(policy, 5)
        packed = policy.pack()
        expected = packed.step(obs[0].numpy(), lang[0].numpy(), hidden.numpy())
        with torch.no_grad():
            logits, routing, after = policy.get_routing_info(obs[0], lang[0], hidden, packed=packed)
            for own, other in zip((logits, after, *routing), (expected[0], expected[2], *expected[1]), strict=True):
                assert torch.equal(own, torch.from_numpy(other))
            sequence = policy.get_routing_info(obs, lang, hidden, torch.ones_like(keep), packed=packed)
        torch.testing.assert_close(sequence[0][0], logits, rtol=1e-5, atol=2e-6)
        logits, _ = policy(obs[0], lang[0], hidden, packed=packed)  # where gradients are asked for, there are some
        assert logits.requires_grad
        checked += 1
    assert checked == len(ARCHITECTURES)


def test_refresh_writes_weights_in_place():
    """As worker processes use it: several compiled policies over one buffer, made from plain numbers alone."""
    for name in ("default", "residual", "small baseline"):
        policy, lang_proj = make(name), nn.Linear(20, make(name).lang_dim)
        shape = pickle.loads(pickle.dumps(policy.shape(mission_dim=20)))
        assert isinstance(shape, PolicyShape) and shape == policy.shape(20)
        assert shape.hidden_size == policy.hidden_size
        memory = bytearray(4 * shape.num_weights)
        writer, reader = (CompiledPolicy(shape, np.frombuffer(memory, np.float32)) for _ in range(2))
        shapes = {key: p.shape for module in (policy, lang_proj) for key, p in module.named_parameters()}
        shapes["lang_proj.weight"], shapes["lang_proj.bias"] = shapes.pop("weight"), shapes.pop("bias")
        assert {key: view.shape for key, view in writer.parameters.items()} == shapes
        obs, lang, hidden, keep = inputs(policy, 6)
        optimizer = torch.optim.SGD([*policy.parameters(), *lang_proj.parameters()], lr=0.1)
        last = None
        for _ in range(3):
            policy.refresh(writer, lang_proj)
            logits, _, _ = reader.step(obs[0].numpy(), lang[0].numpy(), hidden.numpy())
            own, _, _ = policy.get_routing_info(obs, lang, hidden, torch.ones_like(keep))
            torch.testing.assert_close(torch.from_numpy(logits), own[0], rtol=1e-5, atol=2e-6)
            mission = torch.randn(2, 20)
            projected = lang_proj(mission)
            torch.testing.assert_close(torch.from_numpy(reader.project(mission.numpy())), projected)
            assert last is None or not np.allclose(last, logits, atol=1e-4)
            last = logits
            (own.square().mean() + projected.square().mean()).backward()
            optimizer.step()
        with pytest.raises(ValueError, match="has"):
            CompiledPolicy(shape, np.zeros(shape.num_weights + 1, np.float32))


@njit
def _all_tanh(x, out):
    for i in range(len(x)):
        out[i] = _tanh(x[i])


def test_tanh():
    half = np.linspace(0, 20, 200_001)
    x = np.concatenate([-half[::-1], half])
    for dtype, error in ((np.float32, 3e-7), (np.float64, 1e-15)):
        given, out = x.astype(dtype), np.empty(len(x), dtype)
        _all_tanh(given, out)
        assert np.abs(out - np.tanh(given.astype(np.float64))).max() < error and np.abs(out).max() <= 1
        assert np.array_equal(out, -out[::-1])
        special = np.array([np.nan, np.inf, -np.inf, 0.0], dtype)
        _all_tanh(special, out)
        assert np.isnan(out[0]) and out[1] > 1 - error and out[2] < -1 + error and out[3] == 0


def test_gradients_do_not_depend_on_strides():
    """A loss that transposes the routing weights, and an input that is not row by row."""
    layer, rng = make("default").moe_layers[0], np.random.default_rng(0)
    x = torch.from_numpy(rng.standard_normal((64, 5, 4)).astype(np.float32)).permute(2, 1, 0)
    scale = torch.from_numpy(rng.standard_normal((3, 4, 5)).astype(np.float32))
    hidden, gradients = torch.zeros(5, 112), []
    for run in (compiled_layer, torch_layer):
        layer.zero_grad()
        y, weights, _ = run(layer, x, hidden, None)
        ((weights.permute(2, 0, 1) * scale).sum() + y.permute(2, 1, 0).square().sum()).backward()
        gradients.append({name: p.grad.clone() for name, p in layer.named_parameters()})
    assert len(gradients[0]) == len(gradients[1]) > 10
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], atol=1e-4, rtol=1e-4, msg=name)
