"""The policies' arithmetic on a CPU, compiled: one step of a whole policy, and what learning does between products.

Matrices are small (16 environments, widths of 16 to 300), so a step through a tensor library is mostly calls. Here it
is one call, over one flat array of weights that processes can share; torch is not needed. A sample's result is the same
bit for bit in a batch of any size: every sum runs over its terms in their order, whatever other rows there are.

Axis letters as in `mixture_of_experts`: T steps, N samples, D width, H hidden units of a layer, E experts, A actions,
S hidden units of a policy; M = T * N rows. The hidden units of a layer are the router's, then each expert's; its gates
(3H) are for each of these GRUs in turn r, z, n, so that a GRU's own matrices are blocks as they are.
"""

import functools
import itertools
import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numba import njit, types
from numba.extending import overload

from mop.kernels import cache as kernel_cache  # noqa: F401, says where numba keeps them
from mop.kernels.grid import one_hot_edges

# contract: a product and the sum it goes into are one instruction, in every loop alike; numpy: x / 0 is no exception,
# so that loops with a division can be vectorised. Loops run over slices that begin at 0, as numba vectorises no others;
# rows are copied by loops, which it compiles seconds faster than `a[i] = b`; zeros that are arguments are np.int64(0),
# as it compiles a function anew for a constant.
_OPTIONS = {"error_model": "numpy", "nogil": True, "fastmath": {"contract"}}
_kernel = njit(cache=True, **_OPTIONS)
_kernel_of_sums = njit(cache=True, **(_OPTIONS | {"fastmath": {"contract", "reassoc"}}))  # sums in any order: learning

_BOUND = np.float32(7.90531110763549805)
_P1, _P3, _P5, _P7, _P9, _P11, _P13 = (
    np.float32(c)
    for c in (
        *(4.89352455891786e-03, 6.37261928875436e-04, 1.48572235717979e-05, 5.12229709037114e-08),
        *(-8.60467152213735e-11, 2.00018790482477e-13, -2.76076847742355e-16),
    )
)
_Q0, _Q2, _Q4, _Q6 = (
    np.float32(c) for c in (4.89352518554385e-03, 2.26843463243900e-03, 1.18534705686654e-04, 1.19825839466702e-06)
)


def _tanh(x):
    """In kernels only: `_compile_tanh`."""


@overload(_tanh, jit_options=_OPTIONS)
def _compile_tanh(x):
    """tanh; in float32 the clamped rational function of Eigen (`ptanh_float`, MathFunctionsImpl.h), within 3e-7."""
    if x != types.float32:
        return lambda x: math.tanh(x)

    def rational(x):
        x = _BOUND if x > _BOUND else x  # written so that NaN stays NaN
        x = -_BOUND if x < -_BOUND else x
        s = x * x
        p = x * ((((((_P13 * s + _P11) * s + _P9) * s + _P7) * s + _P5) * s + _P3) * s + _P1)
        return p / (((_Q6 * s + _Q4) * s + _Q2) * s + _Q0)

    return rational


@_kernel
def _add_product(x, at, weight, out, to):
    """out[:, to : to + J] += x[:, at : at + K] @ weight (K, J).

    Four rows and four terms at a time, so that numbers are used while they are in registers; every sum has one order.
    """
    num_terms, width = weight.shape
    whole_rows, whole_terms = len(x) - len(x) % 4, num_terms - num_terms % 4
    for n in range(0, whole_rows, 4):
        x0, x1, x2, x3 = x[n, at:], x[n + 1, at:], x[n + 2, at:], x[n + 3, at:]
        y0, y1, y2, y3 = out[n, to:], out[n + 1, to:], out[n + 2, to:], out[n + 3, to:]
        for k in range(0, whole_terms, 4):
            w0, w1, w2, w3 = weight[k], weight[k + 1], weight[k + 2], weight[k + 3]
            a0, a1, a2, a3 = x0[k], x0[k + 1], x0[k + 2], x0[k + 3]
            b0, b1, b2, b3 = x1[k], x1[k + 1], x1[k + 2], x1[k + 3]
            c0, c1, c2, c3 = x2[k], x2[k + 1], x2[k + 2], x2[k + 3]
            d0, d1, d2, d3 = x3[k], x3[k + 1], x3[k + 2], x3[k + 3]
            for j in range(width):
                y0[j] = (((y0[j] + a0 * w0[j]) + a1 * w1[j]) + a2 * w2[j]) + a3 * w3[j]
                y1[j] = (((y1[j] + b0 * w0[j]) + b1 * w1[j]) + b2 * w2[j]) + b3 * w3[j]
                y2[j] = (((y2[j] + c0 * w0[j]) + c1 * w1[j]) + c2 * w2[j]) + c3 * w3[j]
                y3[j] = (((y3[j] + d0 * w0[j]) + d1 * w1[j]) + d2 * w2[j]) + d3 * w3[j]
    for n in range(whole_rows, len(x)):
        x0, y0 = x[n, at:], out[n, to:]
        for k in range(0, whole_terms, 4):
            w0, w1, w2, w3 = weight[k], weight[k + 1], weight[k + 2], weight[k + 3]
            a0, a1, a2, a3 = x0[k], x0[k + 1], x0[k + 2], x0[k + 3]
            for j in range(width):
                y0[j] = (((y0[j] + a0 * w0[j]) + a1 * w1[j]) + a2 * w2[j]) + a3 * w3[j]
    for n in range(len(x)):
        y0 = out[n, to:]
        for k in range(whole_terms, num_terms):
            w0, a0 = weight[k], x[n, at + k]
            for j in range(width):
                y0[j] = y0[j] + a0 * w0[j]


@_kernel
def _linear(weights, at, x, x_at, num_terms, out, out_at, width):
    """Columns of out (N, ...) become bias + columns of x (N, ...) @ weight.

    At `at` lie the bias (width,), then the weight (num_terms, width).
    """
    for n in range(len(out)):
        for j in range(width):
            out[n, out_at + j] = weights[at + j]
    start = at + width
    block = weights[start : start + num_terms * width].reshape(num_terms, width)
    _add_product(x, x_at, block, out, out_at)


@_kernel
def _recur(weights, at, sizes, gates, hidden, start, product, after):
    """One step of the GRUs of a layer; equations of `torch.nn.GRU` (Cho et al. 2014, reset behind the product).

    r, z = sigmoid(i + W h + b);  n = tanh(i_n + r (W_n h + b_n));  h' = (1 - z) n + z h.
    At `at` lie the bias b (3H,), then W (h, 3h) of each GRU. gates (N, 3H): i, becomes r, z, n; product (N, 3H) becomes
    W h + b; hidden and after (N, S): the layer's columns begin at `start`.
    """
    half, one = gates.dtype.type(0.5), gates.dtype.type(1)
    for n in range(len(gates)):
        for j in range(gates.shape[1]):
            product[n, j] = weights[at + j]
    at += gates.shape[1]
    column = np.int64(0)
    for size in sizes:
        block = weights[at : at + 3 * size * size].reshape(size, 3 * size)
        _add_product(hidden, start + column, block, product, 3 * column)
        for n in range(len(gates)):
            old, new = hidden[n, start + column :], after[n, start + column :]
            gate, inner = gates[n, 3 * column :], product[n, 3 * column :]
            update, candidate, inner_n = gate[size:], gate[2 * size :], inner[2 * size :]
            for j in range(2 * size):
                gate[j] = half * _tanh(half * (gate[j] + inner[j])) + half  # the sigmoid
            for j in range(size):
                candidate[j] = _tanh(candidate[j] + gate[j] * inner_n[j])
            for j in range(size):
                new[j] = (one - update[j]) * candidate[j] + update[j] * old[j]
        column += size
        at += 3 * size * size


@_kernel
def scan_forward(weights, sizes, gates, hidden, keep, before, product, after):
    """The GRUs of a layer over a sequence; `weights` as in `_recur`, from 0 on.

    sizes (E',) units of each GRU; gates (T, N, 3H): the input's part with its bias, becomes r, z, n; hidden (N, H);
    keep (T, N): False where step t starts from zeros. Writes what `scan_backward` needs: before (T, N, H), the state
    that a step starts from, and product (T, N, 3H); and the states after (T, N, H).
    """
    zero = np.int64(0)
    for t in range(len(gates)):
        for n in range(len(hidden)):
            last, start = hidden[n] if t == 0 else after[t - 1, n], before[t, n]
            for j in range(len(start)):
                start[j] = last[j] if keep[t, n] else 0
        _recur(weights, zero, sizes, gates[t], before[t], zero, product[t], after[t])


@_kernel
def scan_backward(weights, sizes, gates, before, product, keep, grad_after, grad_gates, grad_product, grad_hidden):
    """The gradient of `scan_forward`.

    weights: W (3h, h) of each GRU, transposed against the forward pass, no bias; gates (r, z, n), before, product: as
    it left them; grad_after (T, N, H). Writes grad_gates and grad_product (T, N, 3H), which differ in n alone, and adds
    to grad_hidden (N, H), which must be zeros.
    """
    one = gates.dtype.type(1)
    for t in range(len(gates) - 1, -1, -1):
        column = at = np.int64(0)
        for size in sizes:
            for n in range(len(grad_hidden)):
                reset, product_n = gates[t, n, 3 * column :], product[t, n, 3 * column + 2 * size :]
                update, candidate = reset[size:], reset[2 * size :]
                old, carry, grad_new = before[t, n, column:], grad_hidden[n, column:], grad_after[t, n, column:]
                to_gates, to_product = grad_gates[t, n, 3 * column :], grad_product[t, n, 3 * column :]
                for j in range(size):
                    carry[j] += grad_new[j]
                for j in range(size):
                    to_gates[size + j] = carry[j] * (old[j] - candidate[j]) * update[j] * (one - update[j])
                for j in range(size):
                    to_gates[2 * size + j] = carry[j] * (one - update[j]) * (one - candidate[j] * candidate[j])
                for j in range(size):
                    to_gates[j] = to_gates[2 * size + j] * product_n[j] * reset[j] * (one - reset[j])
                for j in range(2 * size):
                    to_product[j] = to_gates[j]
                for j in range(size):
                    to_product[2 * size + j] = to_gates[2 * size + j] * reset[j]
                for j in range(size):
                    carry[j] *= update[j]
            block = weights[at : at + 3 * size * size].reshape(3 * size, size)
            _add_product(grad_product[t], 3 * column, block, grad_hidden, column)
            column += size
            at += 3 * size * size
        for n in range(len(grad_hidden)):
            for j in range(grad_hidden.shape[1]):
                grad_hidden[n, j] = grad_hidden[n, j] if keep[t, n] else 0


@_kernel
def mix_forward(sizes, states, start, x, routing, first, mixed, y):
    """The router's softmax, and what the projections of the experts are to be applied to.

    sizes (E,) of the experts, 0 = skip; states (M, S): those of the layer's experts begin at column `start`; x (M, D)
    input of the layer; routing (M, ...): from column `first` on E logits, become weights. Writes mixed (M, H - R + E),
    the experts' states times their weights, then the weights (factors of the biases), and y (M, D): the skipped part.
    """
    num_experts = len(sizes)
    for n in range(len(x)):
        weights = routing[n, first : first + num_experts]
        highest = weights[0]
        for e in range(1, num_experts):
            highest = max(highest, weights[e])
        total = weights.dtype.type(0)
        for e in range(num_experts):
            weights[e] = math.exp(weights[e] - highest)
            total += weights[e]
        row, out, inputs, column = mixed[n], y[n], x[n], 0
        for j in range(len(out)):
            out[j] = 0
        for e in range(num_experts):
            size, weight = sizes[e], weights[e] / total
            weights[e] = weight
            state, part = states[n, start + column :], row[column:]
            if size == 0:
                for j in range(len(out)):
                    out[j] += weight * inputs[j]
            for j in range(size):
                part[j] = weight * state[j]
            column += size
        for e in range(num_experts):
            row[column + e] = weights[e]


@_kernel_of_sums
def mix_backward(sizes, states, start, x, routing, grad_mixed, grad_y, grad_routing, grad_states, grad_x):
    """The gradient of `mix_forward`, routing (M, E) being the weights.

    grad_routing (M, E): in, of the weights; out, of the logits. Writes the experts' part of grad_states (M, S) and
    grad_x (M, D).
    """
    num_experts = len(sizes)
    for n in range(len(x)):
        inputs, grad_out, grad_in, to_weights, column = x[n], grad_y[n], grad_x[n], grad_routing[n], 0
        for j in range(len(inputs)):
            grad_in[j] = 0
        mean = x.dtype.type(0)
        for e in range(num_experts):
            size, weight, slope = sizes[e], routing[n, e], x.dtype.type(0)
            state, to_state, grad = (
                states[n, start + column :],
                grad_states[n, start + column :],
                grad_mixed[n, column:],
            )
            if size == 0:
                for j in range(len(inputs)):
                    slope += inputs[j] * grad_out[j]
                for j in range(len(inputs)):
                    grad_in[j] += weight * grad_out[j]
            for j in range(size):
                slope += state[j] * grad[j]
            for j in range(size):
                to_state[j] = weight * grad[j]
            column += size
            to_weights[e] += slope
        for e in range(num_experts):
            to_weights[e] += grad_mixed[n, column + e]
            mean += routing[n, e] * to_weights[e]
        for e in range(num_experts):
            to_weights[e] = routing[n, e] * (to_weights[e] - mean)


@_kernel
def _normalise(weights, at, x, y):
    """y becomes LayerNorm(x + y) as in `torch.nn.LayerNorm`; at `at` lie its weight (D,) and bias (D,)."""
    width = x.dtype.type(x.shape[1])
    for n in range(len(x)):
        total = squares = x.dtype.type(0)
        for j in range(x.shape[1]):
            y[n, j] += x[n, j]
            total += y[n, j]
        mean = total / width
        for j in range(x.shape[1]):
            squares += (y[n, j] - mean) * (y[n, j] - mean)
        scale = x.dtype.type(1) / math.sqrt(squares / width + x.dtype.type(1e-5))
        for j in range(x.shape[1]):
            y[n, j] = (y[n, j] - mean) * scale * weights[at + j] + weights[at + x.shape[1] + j]


@_kernel
def project_input(weights, at, edges, obs, lang, x):
    """x (N, D) becomes bias + the encoded obs (N, I) and lang (N, G) @ weight; edges: `obs_edges`.

    At `at` lie the bias (D,), then the weight (K + G, D).
    """
    num_categorical, num_columns, width, zero = len(edges) - 1, edges[-1], x.shape[1], np.int64(0)
    num_others = obs.shape[1] - num_categorical
    others = np.empty((len(obs), num_others + lang.shape[1]), x.dtype)
    start = at + width
    for n in range(len(obs)):
        y = x[n]
        for j in range(width):
            y[j] = weights[at + j]
        for k in range(num_categorical):
            row = weights[start + (edges[k] + int(obs[n, k])) * width :]
            for j in range(width):
                y[j] += row[j]
        for j in range(num_others):
            others[n, j] = obs[n, num_categorical + j]
        for j in range(lang.shape[1]):
            others[n, num_others + j] = lang[n, j]
    start += num_columns * width
    block = weights[start : start + others.shape[1] * width].reshape(others.shape[1], width)
    _add_product(others, zero, block, x, zero)


@_kernel
def project_input_backward(edges, obs, lang, grad_x, grad):
    """The gradient of `project_input` by bias and weight, added to grad (1 + K + G, D), which must be zeros."""
    num_categorical, num_columns, width = len(edges) - 1, edges[-1], grad_x.shape[1]
    num_others = obs.shape[1] - num_categorical
    for n in range(len(obs)):
        g = grad_x[n]
        row = grad[0]
        for j in range(width):
            row[j] += g[j]
        for k in range(num_categorical):
            row = grad[1 + edges[k] + int(obs[n, k])]
            for j in range(width):
                row[j] += g[j]
        for i in range(num_others + lang.shape[1]):
            value = obs[n, num_categorical + i] if i < num_others else lang[n, i - num_others]
            row = grad[1 + num_columns + i]
            for j in range(width):
                row[j] += value * g[j]


@_kernel
def _step(weights, plan, sizes, edges, is_residual, width, obs, lang, hidden, logits, routing, after):
    """`CompiledPolicy.step`; plan and sizes: of `_lay_out`."""
    num_samples, zero, dtype = len(obs), np.int64(0), weights.dtype
    x = np.empty((num_samples, width), dtype)
    project_input(weights, plan[0, 0], edges, obs, lang, x)
    for i in range(1, len(plan)):
        at_input, at_hidden, at_router, at_mix, at_norm, column, units, first, num_experts = plan[i]
        grus = sizes[i, : 1 + num_experts]
        gates = np.empty((num_samples, 3 * units), dtype)
        _linear(weights, at_input, x, zero, x.shape[1], gates, zero, 3 * units)
        _recur(weights, at_hidden, grus, gates, hidden, column, np.empty_like(gates), after)
        if num_experts == 0:  # the baseline's GRU
            x = after
            for n in range(num_samples):
                routing[n, 0] = 1
        else:
            router_size = grus[0]
            _linear(weights, at_router, after, column, router_size, routing, first, num_experts)
            mixed = np.empty((num_samples, units - router_size + num_experts), dtype)
            y = np.empty((num_samples, width), dtype)
            mix_forward(grus[1:], after, column + router_size, x, routing, first, mixed, y)
            block = weights[at_mix : at_mix + mixed.shape[1] * width].reshape(mixed.shape[1], width)
            _add_product(mixed, zero, block, y, zero)
            if is_residual:
                _normalise(weights, at_norm, x, y)
            x = y
    _linear(weights, plan[0, 1], x, zero, x.shape[1], logits, zero, logits.shape[1])


@functools.lru_cache
def obs_edges(obs_encoding: str) -> np.ndarray:
    """How an observation becomes inputs: its first integers as one-hot columns, `grid_kernels.one_hot_edges`.

    "raw": none of them, [0]; "one_hot": all those of the image. The other numbers are inputs as they are, behind them.
    """
    return {"raw": np.zeros(1, np.int64), "one_hot": one_hot_edges()}[obs_encoding]


def encoded_dim(input_dim: int, obs_encoding: str) -> int:
    """Inputs that an observation of `input_dim` numbers becomes."""
    edges = obs_edges(obs_encoding)
    if input_dim < len(edges) - 1:
        raise ValueError(f"observations of {input_dim} numbers have no image of {len(edges) - 1} integers to encode")
    return int(edges[-1]) + input_dim - (len(edges) - 1)


class PolicyShape(NamedTuple):
    """The architecture of a policy as plain numbers, as a worker process needs them."""

    input_dim: int
    lang_dim: int
    width: int
    num_actions: int
    layers: tuple[tuple[int, ...], ...]  # units of the router, then sizes of the experts; the baseline: ((units,),)
    is_residual: bool = False
    mission_dim: int = 0  # numbers of a mission embedding, 0: without the projection of missions
    obs_encoding: str = "raw"  # see `obs_edges`

    @property
    def hidden_size(self) -> int:
        """S, all hidden units."""
        return sum(map(sum, self.layers))

    @property
    def num_inputs(self) -> int:
        """Numbers that the input projection sees: the encoded observation and the mission."""
        return encoded_dim(self.input_dim, self.obs_encoding) + self.lang_dim

    @property
    def num_weights(self) -> int:
        """Length of the flat array of weights."""
        return _lay_out(self).num_weights


class _Layout(NamedTuple):
    num_weights: int
    parameters: dict[str, tuple[int, tuple[int, ...], tuple[int, ...]]]  # name: first index, shape, strides
    plan: np.ndarray  # row 0: where input projection, head, mission projection begin; then a row for each layer: where
    # its parts begin, its first hidden column and number of them, its first column of the routing and number of experts
    sizes: np.ndarray  # row i: units of the router of layer i - 1, then sizes of its experts


def _aligned(index: int) -> int:
    """The next index of a flat array at which a cache line begins: a product off the line takes 1.4 times as long."""
    return -(-index // 16) * 16


@functools.lru_cache
def _lay_out(shape: PolicyShape) -> _Layout:
    """Where each parameter of a policy lies in the flat array, by its name in the state dict.

    Matrices lie transposed, (inputs, outputs), behind their biases, the GRUs of a layer side by side.
    """
    end, parameters, plan = 0, {}, []

    def linear(name, inputs, outputs) -> int:
        nonlocal end
        start = end = _aligned(end)
        parameters[f"{name}.bias"] = (start, (outputs,), (1,))
        parameters[f"{name}.weight"] = (start + outputs, (outputs, inputs), (1, outputs))
        end += (1 + inputs) * outputs
        return start

    def grus(named, inputs) -> tuple[int, int]:
        nonlocal end
        width, at_input, column = 3 * sum(named.values()), _aligned(end), 0
        at_hidden = _aligned(at_input + (1 + inputs) * width)
        block = at_hidden + width
        for name, size in named.items():
            parameters[f"{name}.bias_ih_l0"] = (at_input + column, (3 * size,), (1,))
            parameters[f"{name}.weight_ih_l0"] = (at_input + width + column, (3 * size, inputs), (1, width))
            parameters[f"{name}.bias_hh_l0"] = (at_hidden + column, (3 * size,), (1,))
            parameters[f"{name}.weight_hh_l0"] = (block, (3 * size, size), (1, 3 * size))
            column += 3 * size
            block += 3 * size * size
        end = block
        return at_input, at_hidden

    def projections(name, experts) -> int:
        nonlocal end
        start, width = _aligned(end), shape.width
        row, bias = start, start + sum(experts) * width
        for e, size in enumerate(experts):
            if size > 0:
                parameters[f"{name}.{e}.projection.weight"] = (row, (width, size), (1, width))
                parameters[f"{name}.{e}.projection.bias"] = (bias + e * width, (width,), (1,))
            row += size * width
        end = bias + len(experts) * width
        return start

    plan.append([linear("input_projection", shape.num_inputs, shape.width), *[0] * 8])
    column = first = 0
    for i, (router, *experts) in enumerate(shape.layers):
        layer = f"moe_layers.{i}"
        if not experts:
            plan.append([*grus({"gru": router}, shape.width), 0, 0, 0, 0, router, 0, 0])
            continue
        named = {f"{layer}.experts.{e}.gru": size for e, size in enumerate(experts) if size > 0}
        row = [*grus({f"{layer}.router.gru": router} | named, shape.width)]
        row += [linear(f"{layer}.router.fc", router, len(experts)), projections(f"{layer}.experts", experts), end]
        if shape.is_residual:
            parameters[f"{layer}.norm.weight"] = (end, (shape.width,), (1,))
            parameters[f"{layer}.norm.bias"] = (end + shape.width, (shape.width,), (1,))
            end += 2 * shape.width
        units = router + sum(experts)
        plan.append([*row, column, units, first, len(experts)])
        column, first = column + units, first + len(experts)
    head_inputs = shape.width if len(shape.layers[-1]) > 1 else shape.layers[-1][0]
    plan[0][1] = linear("head", head_inputs, shape.num_actions)
    if shape.mission_dim > 0:
        plan[0][2] = linear("lang_proj", shape.mission_dim, shape.lang_dim)
    sizes = np.zeros((len(plan), max(map(len, shape.layers))), np.int64)
    for i, layer in enumerate(shape.layers, 1):
        sizes[i, : len(layer)] = layer
    return _Layout(end, parameters, np.array(plan, np.int64), sizes)


def zeros(num_weights: int, dtype=np.float32) -> np.ndarray:
    """A flat array for weights that begins at a multiple of 64 bytes."""
    memory = np.zeros(num_weights * np.dtype(dtype).itemsize + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : len(memory) - 64 + start].view(dtype)


class CompiledPolicy:
    """A policy for stepping, without torch: its shape, and one flat array of weights that may be shared memory.

    Whatever is written into `weights` counts from the next step on.
    """

    def __init__(self, shape: PolicyShape, weights: np.ndarray | None = None):
        """weights (shape.num_weights,) float, contiguous, writable, best at a multiple of 64 bytes; None: new zeros."""
        self.shape, self._layout = shape, _lay_out(shape)
        self.weights = zeros(self._layout.num_weights) if weights is None else weights
        if self.weights.shape != (self._layout.num_weights,):
            raise ValueError(f"weights of shape {self.weights.shape}; this policy has {self._layout.num_weights}")
        size = self.weights.itemsize
        self.parameters = {  # views of `weights` by the name of the parameter, in its shape
            name: np.ndarray(shape, self.weights.dtype, self.weights, start * size, tuple(size * s for s in strides))
            for name, (start, shape, strides) in self._layout.parameters.items()
        }
        self._routing = np.cumsum([0, *(max(1, len(layer) - 1) for layer in shape.layers)])

    def load(self, parameters: Mapping[str, np.ndarray]) -> None:
        """Take over the values of all parameters, by their names in the policy's state dict and `lang_proj.*`."""
        for name, view in self.parameters.items():
            view[...] = parameters[name]

    def step(self, obs: np.ndarray, lang: np.ndarray, hidden: np.ndarray):
        """One step of N samples, each independent of the others and of N, bit for bit.

        obs (N, I), lang (N, G), hidden (N, S) of the weights' dtype; with one-hot encoding the categories in obs must
        be Minigrid's, which is not checked. Returns logits (N, A), a list over L of router weights (N, E_l), which are
        columns of one array, and the new hidden (N, S).
        """
        dtype, num_samples = self.weights.dtype, len(obs)
        obs, lang, hidden = (np.require(a, dtype, "CAW") for a in (obs, lang, hidden))
        after = np.empty((num_samples, self.shape.hidden_size), dtype)
        logits = np.empty((num_samples, self.shape.num_actions), dtype)
        routing = np.empty((num_samples, self._routing[-1]), dtype)
        _step(
            self.weights, self._layout.plan, self._layout.sizes, obs_edges(self.shape.obs_encoding),
            self.shape.is_residual, self.shape.width, obs, lang, hidden, logits, routing, after,
        )  # fmt: skip
        return logits, [routing[:, a:b] for a, b in itertools.pairwise(self._routing)], after

    def project(self, missions: np.ndarray) -> np.ndarray:
        """lang (N, G) of mission embeddings (N, mission_dim): the mission projection, row by row as in `step`."""
        missions = np.require(missions, self.weights.dtype, "CAW")
        lang = np.empty((len(missions), self.shape.lang_dim), self.weights.dtype)
        inputs, outputs = self.shape.mission_dim, self.shape.lang_dim
        _linear(self.weights, self._layout.plan[0, 2], missions, 0, inputs, lang, 0, outputs)
        return lang
