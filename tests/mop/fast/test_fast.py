"""Every fast path against the policy's own plain torch: steps, sequences, gradients; no sample depends on its batch."""

import functools
import pickle
from collections import deque

import numpy as np
import pytest
import torch
from checks import refusal
from numba import njit
from torch import nn

from mixture_of_experts import ExpertDropout, Film, GRUPolicy, MixtureOfExpertsPolicy, Router
from mop.envs.geometry import CATEGORIES
from mop.fast import autograd, sequence_kernels
from mop.fast import policy as fast
from mop.fast.policy_step import CompiledPolicy, PolicyShape, _tanh  # private: it exists inside kernels only
from mop.training import execution

SMALL = {"input_dim": 10, "lang_dim": 3, "intermediate_dim": 13, "num_actions": 5}
ARCHITECTURES = {
    "default": lambda: MixtureOfExpertsPolicy(),
    "default, residual": lambda: MixtureOfExpertsPolicy(residual=True),
    "one-hot": lambda: MixtureOfExpertsPolicy(residual=True, obs_encoding="one_hot"),
    "film": lambda: MixtureOfExpertsPolicy(residual=True, obs_encoding="one_hot", film=Film()),
    "uneven": lambda: MixtureOfExpertsPolicy(**SMALL, expert_hidden_sizes=[[0, 5, 9], [4], [8, 0, 3, 1]]),
    "one layer": lambda: MixtureOfExpertsPolicy(**SMALL, expert_hidden_sizes=[6, 0], router_hidden_size=7),
    "skip only": lambda: MixtureOfExpertsPolicy(**SMALL, expert_hidden_sizes=[[0], [0, 0]], router_hidden_size=2),
    "residual": lambda: MixtureOfExpertsPolicy(
        **SMALL, expert_hidden_sizes=[[0, 2], [0], [3, 3]], router_hidden_size=1, residual=True
    ),
    "baseline": lambda: GRUPolicy(),
    "one-hot baseline": lambda: GRUPolicy(obs_encoding="one_hot"),
    "film baseline": lambda: GRUPolicy(obs_encoding="one_hot", film=Film(7, 3)),
    "small baseline": lambda: GRUPolicy(**SMALL, gru_hidden_size=7),
}


def with_random_norms(policy, dtype=torch.float32):
    for name, parameter in policy.to(dtype).named_parameters():
        if ".norm." in name:
            nn.init.normal_(parameter, 1.0, 0.5)
    return policy


def make(name: str, dtype=torch.float32):
    """A policy with random weights, norms included."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(len(name))
        return with_random_norms(ARCHITECTURES[name](), dtype)


def random_policy(seed: int, dtype=torch.float64):
    """A mixture of random sizes, or now and then a baseline."""
    rng = np.random.default_rng(seed)
    dims = {"lang_dim": int(rng.integers(1, 6)), "intermediate_dim": int(rng.integers(1, 20))}
    dims |= {"num_actions": int(rng.integers(2, 9)), "obs_encoding": ["raw", "one_hot"][rng.integers(2)]}
    if dims["obs_encoding"] == "one_hot" and rng.integers(2):
        dims["film"] = Film(*(int(size) for size in rng.integers(1, 20, 2)))
    dims["input_dim"] = int(rng.integers(147, 155)) if dims["obs_encoding"] == "one_hot" else int(rng.integers(1, 30))
    sizes = [[int(s) for s in rng.choice([0, 0, 1, 2, 5, 9], rng.integers(1, 5))] for _ in range(rng.integers(1, 5))]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if seed % 5 == 4:
            return GRUPolicy(**dims, gru_hidden_size=int(rng.integers(1, 12))).to(dtype)
        policy = MixtureOfExpertsPolicy(
            **dims,
            expert_hidden_sizes=sizes,
            router_hidden_size=int(rng.integers(1, 9)),
            residual=bool(rng.integers(2)),
        )
        return with_random_norms(policy, dtype)


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


def plain(policy, obs, lang, hidden, keep):
    """The equations, of which every path here is a faster form."""
    return policy.forward_encoded(policy.encode(obs, lang), hidden, keep)


def learned(policy, path: str, given, keep, parameters):
    """Values of a sequence, and the gradients of a loss of all of them by what was given and by parameters."""
    given = [tensor.clone().requires_grad_() for tensor in given]
    if path == "plain":
        logits, routing, after = plain(policy, *given, keep)
    else:
        logits, routing, after = fast.run(policy, *given, keep, is_packed=path == "packed")
    loss = logits.square().sum() + after.sin().sum() + sum((weights**3).sum() for weights in routing)
    grads = torch.autograd.grad(loss, [*given, *parameters])
    by_obs = grads[0][..., len(policy.edges) - 1 :]  # the categories of one-hot observations have no gradient
    return [logits, after, *routing, by_obs, *grads[1:]]


def test_a_step_equals_the_equations():
    checked = 0
    for name in ARCHITECTURES:
        policy = make(name)
        compiled, step = fast.compile_policy(policy), fast.stepper(policy)
        for num_envs in (1, 3, 4, 16, 41):
            obs, lang, hidden, _ = inputs(policy, num_envs)
            logits, routing, after = compiled.step(obs[0].numpy(), lang[0].numpy(), hidden.numpy())
            assert logits.dtype == np.float32 and len(routing) == len(policy.expert_hidden_sizes)
            own = [torch.from_numpy(array) for array in (logits, after, *routing)]
            with torch.no_grad():
                logits, routing, after = plain(policy, obs[0], lang[0], hidden, None)
            for one, other in zip(own, (logits, after, *routing), strict=True):
                torch.testing.assert_close(one, other, rtol=1e-5, atol=2e-6)
            logits, routing, after = step(obs[0], lang[0], hidden)
            assert all(torch.equal(*pair) for pair in zip((logits, after, *routing), own, strict=True))
            checked += 1
    assert checked == 5 * len(ARCHITECTURES) == 60


def test_a_sample_does_not_depend_on_its_batch_bit_for_bit():
    checked = 0
    for name in ARCHITECTURES:
        policy = make(name)
        compiled = fast.compile_policy(policy)
        obs, lang, hidden, _ = (tensor.numpy() for tensor in inputs(policy, 23))
        logits, routing, after = compiled.step(obs[0], lang[0], hidden)
        shuffled = np.random.default_rng(0).permutation(23)
        for rows in (*([i] for i in range(23)), range(8), range(8, 16), range(16, 23), range(1, 6), shuffled):
            rows = list(rows)
            part = compiled.step(obs[0, rows], lang[0, rows], hidden[rows])
            assert np.array_equal(part[0], logits[rows]) and np.array_equal(part[2], after[rows])
            for own, other in zip(part[1], routing, strict=True):
                assert np.array_equal(own, other[rows])
            checked += 1
    assert checked == 28 * len(ARCHITECTURES)


@pytest.mark.parametrize("path", ["compiled", "packed"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_sequence_and_its_gradient_equal_the_equations(name, path):
    """In float64, where nothing is approximated; the states' gradient too."""
    policy = make(name, torch.float64)
    *given, keep = inputs(policy, 5, 6, torch.float64)
    assert keep.any() and not keep.all()
    results = [learned(policy, p, given, keep, list(policy.parameters())) for p in (path, "plain")]
    assert len(results[0]) > 10
    for own, other in zip(*results, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-9, atol=1e-11)


def test_parts_of_the_environments_are_the_whole_whatever_the_number_of_threads(monkeypatch):
    assert [len(autograd.parts_of(n)) for n in (1, 8, 15, 16, 31, 33, 1024)] == [1, 1, 1, 2, 2, 4, 8]
    for num_envs in range(1, 100):
        assert np.array_equal(
            np.concatenate([np.arange(num_envs)[p] for p in autograd.parts_of(num_envs)]), range(num_envs)
        )
    checked, whole = 0, lambda num_envs: [slice(0, num_envs)]
    for name, num_envs in (("uneven", 16), ("residual", 37), ("one-hot", 35), ("small baseline", 16)):
        policy = make(name)
        *given, keep = inputs(policy, num_envs, 6)
        results = []
        for num_threads in (1, 2, 3, 1):
            monkeypatch.setattr(autograd, "num_threads", lambda num_threads=num_threads: num_threads)
            if len(results) == 3:
                monkeypatch.setattr(autograd, "parts_of", whole)
            results.append(learned(policy, "compiled", given, keep, list(policy.parameters())))
        monkeypatch.undo()
        assert all(torch.equal(*pair) for other in results[1:3] for pair in zip(results[0], other, strict=True))
        for own, other in zip(results[0], results[3], strict=True):
            torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-4)
        checked += 1
    assert checked == 4


def test_sums_do_not_depend_on_where_arrays_lie():
    rng, widths = np.random.default_rng(0), (5, 8, 13, 16, 29)
    for width in widths:
        given = [rng.standard_normal((rows, width), np.float32) for rows in (2, 1, 1, 1)]
        seen, kept = set(), deque(maxlen=30)
        for _ in range(1000):
            kept.append([np.empty(size, np.uint8) for size in rng.integers(1, 6 * width, rng.integers(1, 8))])
            places = [None] * 5  # filled in any order, so that other arrays lie beside each other
            for k in rng.permutation(5):
                places[k] = given[k].copy() if k < 4 else np.zeros((2, width), np.float32)
            norm, x, mixture, grad_y, grad_norm = places
            sequence_kernels.normalise_backward(norm, x, mixture, grad_y, grad_norm)
            seen.add((grad_y.tobytes(), grad_norm.tobytes()))
        assert len(seen) == 1, width


@pytest.mark.parametrize("path", ["compiled", "packed"])
def test_random_shapes_equal_the_equations(path):
    checked = 0
    for seed in range(10):
        policy = random_policy(seed)
        *given, keep = inputs(policy, 1 + seed % 4, 1 + seed % 6, torch.float64)
        for mask in (keep, None):
            results = [learned(policy, p, given, mask, list(policy.parameters())) for p in (path, "plain")]
            for own, other in zip(*results, strict=True):
                torch.testing.assert_close(own, other, rtol=1e-8, atol=1e-10)
            checked += 1
    assert checked == 20


def test_gradients_by_finite_differences():
    torch.manual_seed(0)
    keep = torch.tensor([[True, False, True], [True, True, True], [False, True, True], [True, True, False]])
    tiny, checked = {"input_dim": 3, "lang_dim": 2, "intermediate_dim": 4, "num_actions": 2}, 0
    for policy in (
        MixtureOfExpertsPolicy(**tiny, expert_hidden_sizes=[[0, 3, 2], [4]], router_hidden_size=2, residual=True),
        MixtureOfExpertsPolicy(**tiny, expert_hidden_sizes=[[0, 0], [2, 0]], router_hidden_size=1),
        GRUPolicy(**tiny, gru_hidden_size=3),
    ):
        names, parameters = zip(*with_random_norms(policy, torch.float64).named_parameters(), strict=True)
        *given, _ = inputs(policy, 3, 4, torch.float64)

        def run(obs, lang, hidden, *parameters, policy=policy, names=names):
            given = (obs, lang, hidden, keep)
            logits, routing, after = torch.func.functional_call(
                policy, dict(zip(names, parameters, strict=True)), given
            )
            return logits, after, *routing

        policy.forward = functools.partial(fast.run, policy)
        assert torch.autograd.gradcheck(run, [*(tensor.requires_grad_() for tensor in given), *parameters])
        checked += 1
    assert checked == 3


@pytest.mark.parametrize("path", ["compiled", "packed"])
def test_dropped_experts_are_left_out_of_the_equations(path):
    """Against the equations with the same experts taken out by an intervention; gradients too."""
    dropout = ExpertDropout(0.8, 2.0)
    torch.manual_seed(0)
    policy = MixtureOfExpertsPolicy(**SMALL, expert_hidden_sizes=[[0, 6, 5], [4, 0]], residual=True, dropout=dropout)
    obs, lang, hidden, keep = inputs(policy, 5, 4)
    torch.manual_seed(1)
    logits, routing, after = fast.run(policy, obs, lang, hidden, keep, is_packed=path == "packed")
    torch.manual_seed(1)  # the same numbers again, drawn in the same order
    kept = [(dropout(weights.detach()) > 0).float() for weights in routing]
    assert len(kept) == 2 and all(0.1 < layer.mean() < 0.9 for layer in kept)
    steps = [0, 0]

    def leave_out(layer: int, weights):
        steps[layer] += 1
        return weights * kept[layer][steps[layer] - 1]

    policy.eval()
    expected = policy.forward_encoded(policy.encode(obs, lang), hidden, keep, leave_out)
    assert steps == [4, 4]
    torch.testing.assert_close(logits, expected[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(after, expected[2], rtol=1e-5, atol=1e-6)
    grads = [torch.autograd.grad(y.square().sum(), list(policy.parameters())) for y in (logits, expected[0])]
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    assert all(
        torch.equal(w.sum(-1) > 0.999, torch.ones(4, 5, dtype=torch.bool)) for w in routing
    )  # as the routers say


def test_nan_in_a_state_that_is_reset_does_not_leak():
    for name in ("uneven", "residual", "baseline"):
        policy = make(name)
        obs, lang, hidden, keep = inputs(policy, 5, 4)
        hidden[1], hidden[3] = torch.nan, torch.inf
        keep[0] = torch.tensor([True, False, True, False, True])
        logits, routing, after = fast.run(policy, obs, lang, hidden, keep)
        (logits.sum() + after.sum() + sum((weights**2).sum() for weights in routing)).backward()
        assert all(torch.isfinite(tensor).all() for tensor in (logits, after, *routing))
        assert all(torch.isfinite(parameter.grad).all() for parameter in policy.parameters())
        fresh = hidden.nan_to_num(0.0, 0.0) * keep[0].unsqueeze(-1)
        torch.testing.assert_close(fast.run(policy, obs, lang, fresh, keep)[0], logits, rtol=0, atol=0)
        hidden[1] = torch.nan  # one that is not reset stays visible, in its own row alone
        logits, _, _ = fast.stepper(policy)(obs[0], lang[0], hidden)
        assert torch.isfinite(logits[[0, 2, 4]]).all() and torch.isnan(logits[1]).all()


def test_a_stepper_has_no_gradients_and_keeps_its_weights(monkeypatch):
    checked = 0
    for name in ARCHITECTURES:
        for path in ("compiled", "packed", "plain"):
            monkeypatch.setattr(fast, "is_on_cpu", lambda policy, path=path: path != "packed")
            monkeypatch.setattr(execution, "refusal", lambda policy, path=path: "no" if path == "plain" else None)
            policy = make(name)
            obs, lang, hidden, _ = inputs(policy, 5)
            step = execution.stepper(policy)
            logits, routing, after = step(obs[0], lang[0], hidden)
            assert not any(tensor.requires_grad for tensor in (logits, after, *routing))
            own = policy.get_routing_info(obs[0], lang[0], hidden)[0]
            assert own.requires_grad
            torch.testing.assert_close(own, logits, rtol=1e-5, atol=2e-6)
            if path == "compiled":
                bits, _, _ = fast.compile_policy(policy).step(*(x.numpy() for x in (obs[0], lang[0], hidden)))
                assert np.array_equal(logits.numpy(), bits)
            with torch.no_grad():
                for parameter in policy.parameters():
                    parameter.add_(1.0)
            assert torch.equal(step(obs[0], lang[0], hidden)[0], logits)
            assert not torch.allclose(policy.get_routing_info(obs[0], lang[0], hidden)[0], logits)
            checked += 1
    assert checked == 3 * len(ARCHITECTURES)


def test_refresh_writes_weights_in_place():
    """As worker processes use it: several compiled policies over one buffer, made from plain numbers alone."""
    for name in ("default", "residual", "small baseline"):
        policy = make(name)
        shape = pickle.loads(pickle.dumps(fast.shape_of(policy)))
        assert isinstance(shape, PolicyShape) and shape == fast.shape_of(policy)
        assert shape.hidden_size == policy.hidden_size
        memory = {"weights": np.frombuffer(bytearray(4 * shape.num_weights), np.float32)}
        writer, reader = shape.attach(memory), shape.attach(memory)
        obs, lang, hidden, keep = inputs(policy, 6)
        optimizer = torch.optim.SGD(policy.parameters(), lr=0.1)
        last = None
        for _ in range(3):
            fast.refresh(writer, policy)
            logits, _, _ = reader.step(obs[0].numpy(), lang[0].numpy(), hidden.numpy())
            own, _, _ = fast.run(policy, obs, lang, hidden, torch.ones_like(keep))
            torch.testing.assert_close(torch.from_numpy(logits), own[0], rtol=1e-5, atol=2e-6)
            assert last is None or not np.allclose(last, logits, atol=1e-4)
            last = logits
            own.square().mean().backward()
            optimizer.step()
        with pytest.raises(ValueError, match="has"):
            CompiledPolicy(shape, np.zeros(shape.num_weights + 1, np.float32))


def test_every_number_of_the_flat_array_is_one_parameter():
    """No two parameters share a number, none lies outside, and their views have the shapes that torch gives them."""
    checked = 0
    for name in ARCHITECTURES:
        policy = make(name)
        compiled = fast.compile_policy(policy)
        shapes = {name: tuple(parameter.shape) for name, parameter in policy.named_parameters()}
        assert {name: view.shape for name, view in compiled.parameters.items()} == shapes
        compiled.weights[:] = 0
        for view in compiled.parameters.values():
            view += 1
        assert compiled.weights.max() == 1 and compiled.weights.sum() == sum(map(np.prod, shapes.values()))
        checked += len(shapes)
    assert checked > 200


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
    """A loss that transposes the routing weights, and inputs that are not row by row."""
    policy, rng = make("uneven"), np.random.default_rng(0)
    obs = torch.from_numpy(rng.standard_normal((10, 5, 4)).astype(np.float32)).permute(2, 1, 0)
    lang = torch.from_numpy(rng.standard_normal((3, 5, 4)).astype(np.float32)).permute(2, 1, 0)
    scale = torch.from_numpy(rng.standard_normal((3, 4, 5)).astype(np.float32))
    gradients = []
    for run in (fast.run, plain):
        logits, routing, _ = run(policy, obs, lang, policy.initial_hidden(5), None)
        loss = (routing[0].permute(2, 0, 1) * scale).sum() + logits.permute(2, 1, 0).square().sum()
        gradients.append(torch.autograd.grad(loss, list(policy.parameters())))
    assert len(gradients[0]) == len(gradients[1]) > 10
    for own, other in zip(*gradients, strict=True):
        torch.testing.assert_close(own, other, atol=1e-4, rtol=1e-4)


def test_other_equations_are_refused_and_run_by_the_plain_path(monkeypatch):
    """As if somebody had changed how a `Router` mixes in the file of the policy, and nothing else."""

    def top_1(self, x, state):
        weights, state = softmax(self, x, state)
        return nn.functional.one_hot(weights.argmax(-1), weights.shape[-1]).to(weights.dtype), state

    policy = make("uneven")
    router = type(policy.moe_layers[0].router)
    softmax = router.forward
    obs, lang, hidden, keep = inputs(policy, 5, 4)
    before = execution.run(policy, obs, lang, hidden, keep)[0]
    monkeypatch.setattr(router, "forward", top_1)
    monkeypatch.setattr(MixtureOfExpertsPolicy, "equations", "the largest expert alone")
    logits, routing, _ = execution.run(policy, obs, lang, hidden, keep)
    assert all((weights.amax(-1) == 1).all() for weights in routing) and not torch.allclose(logits, before)
    assert torch.equal(logits, plain(policy, obs, lang, hidden, keep)[0])
    stepped = execution.stepper(policy)(obs[0], lang[0], hidden)
    assert torch.equal(stepped[0], plain(policy, obs[0], lang[0], hidden, None)[0])
    assert "--num_workers" in refusal(execution.student_of, policy, num_workers=1)
    student = execution.student_of(policy, num_workers=0).attach({})
    acted = student.step(obs[0].numpy(), lang[0].numpy(), hidden.numpy())
    np.testing.assert_array_equal(acted[0], stepped[0].numpy())
    assert fast.refusal(make("baseline")) is None


def test_a_class_of_its_own_is_refused_without_a_word_from_its_author():
    class LargestAlone(Router):
        def forward(self, x, state):
            weights, state = super().forward(x, state)
            return nn.functional.one_hot(weights.argmax(-1), weights.shape[-1]).to(weights.dtype), state

    class Doubled(MixtureOfExpertsPolicy):
        def recur(self, x, hidden, intervene):
            x, routing, hidden = super().recur(x, hidden, intervene)
            return 2 * x, routing, hidden

    other_router, other_policy = make("uneven"), Doubled(**SMALL)
    other_router.moe_layers[0].router.__class__ = LargestAlone
    for policy, name in ((other_router, "LargestAlone"), (other_policy, "Doubled")):
        assert name in fast.refusal(policy)
        obs, lang, hidden, keep = inputs(policy, 3, 2)
        own = execution.run(policy, obs, lang, hidden, keep)
        assert torch.equal(own[0], plain(policy, obs, lang, hidden, keep)[0])
    assert fast.refusal(make("residual")) is None
