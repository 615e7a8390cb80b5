"""Whole sequences of a policy on a CPU and their gradients, compiled: what learning does, without PyTorch.

A sequence goes through one layer after the other, so that a layer's weights stay in the cache; of a layer the input
products of all steps come first, then the scan of its GRUs. Environments are independent of each other but for the sums
of the gradient: a part of them is a `forward` and a `backward` of its own, and parts can run in threads, because what
takes the time holds no interpreter lock. The weights are the flat array of `policy.lay_out`, and so is their gradient.

Axis letters as in `policy`; K + G inputs. A bias lies above its matrix, as one row more.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mop.fast.compile_cache import kernel
from mop.fast.grid import obs_edges
from mop.fast.policy_step import (
    OPTIONS,
    PolicyShape,
    gather_others,
    lay_out,
    linear,
    normalise,
    project_input,
    recur,
    softmax,
    weigh,
)
from mop.fast.product import add_product, add_transposed_product

_kernel = kernel(**OPTIONS)
_kernel_of_sums = kernel(**(OPTIONS | {"fastmath": {"contract", "reassoc"}}))  # sums in any order


@_kernel
def _transposed(x, first, num_columns):
    """(num_columns, M) of columns of x (M, ...), from `first` on."""
    out = np.empty((num_columns, len(x)), x.dtype)
    for start in range(0, len(x), 16):  # so many that their lines stay in the first cache
        stop = min(start + 16, len(x))
        for k in range(num_columns):
            row = out[k]
            for n in range(start, stop):
                row[n] = x[n, first + k]
    return out


@_kernel
def _add_gradient(x, first, grad_out, grad):
    """The gradient of out = bias + columns of x (M, ...) @ weight is added to grad (1 + K, J); grad_out (M, J)."""
    bias, zero = grad[0], np.int64(0)
    for n in range(len(grad_out)):
        row = grad_out[n]
        for j in range(len(bias)):
            bias[j] += row[j]
    add_transposed_product(x, first, grad_out, zero, grad_out.shape[1], grad[1:], zero)


@_kernel
def _linear_forward(matrix, x, out):
    """out (M, J) = bias + x (M, K) @ weight; matrix (1 + K, J)."""
    zero = np.int64(0)
    linear(matrix.reshape(-1), zero, x, zero, x.shape[1], out, zero, out.shape[1])


@_kernel
def _linear_backward(matrix, x, grad_out, grad_matrix, grad_x):
    """The gradient of `_linear_forward`, added to grad_matrix and grad_x."""
    zero = np.int64(0)
    _add_gradient(x, zero, grad_out, grad_matrix)
    add_product(grad_out, zero, _transposed(matrix[1:], zero, matrix.shape[1]), zero, x.shape[1], grad_x, zero)


@_kernel
def _input_backward(matrix, edges, obs, lang, grad_x, grad_matrix, grad_others):
    """The gradient of `project_input`, added to grad_matrix (1 + K + G, D) and, by what is no category, grad_others."""
    num_categorical, num_columns, zero = len(edges) - 1, edges[-1], np.int64(0)
    for n in range(len(obs)):
        for k in range(num_categorical):
            row, g = grad_matrix[1 + edges[k] + int(obs[n, k])], grad_x[n]
            for j in range(len(g)):
                row[j] += g[j]
    bias, others = grad_matrix[0], gather_others(num_categorical, obs, lang)
    for n in range(len(obs)):
        row = grad_x[n]
        for j in range(len(bias)):
            bias[j] += row[j]
    dense, grad_dense = matrix[1 + num_columns :], grad_matrix[1 + num_columns :]
    add_transposed_product(others, zero, grad_x, zero, grad_x.shape[1], grad_dense, zero)
    add_product(grad_x, zero, _transposed(dense, zero, dense.shape[1]), zero, len(dense), grad_others, zero)


@_kernel
def scan_forward(recurrent, sizes, gates, hidden, keep, before, inner, after):
    """The GRUs of a layer over a sequence; `recurrent`: the weights of `recur`.

    sizes (E',) units of each GRU; gates (T, N, 3H): the input's part with its bias, becomes r, z, n; hidden (N, H);
    keep (T, N): False where step t starts from zeros. Writes what `scan_backward` needs: before (T, N, H), the state
    that a step starts from, and inner (T, N, H), W_n h + b_n; and the states after (T, N, H).
    """
    zero, product = np.int64(0), np.empty(gates.shape[1:], gates.dtype)
    for t in range(len(gates)):
        for n in range(len(hidden)):
            last, start = hidden[n] if t == 0 else after[t - 1, n], before[t, n]
            if keep[t, n]:
                for j in range(len(start)):
                    start[j] = last[j]
            else:
                for j in range(len(start)):
                    start[j] = 0
        recur(recurrent, zero, sizes, gates[t], before[t], zero, product, after[t])
        column = zero
        for size in sizes:
            for n in range(len(hidden)):
                row, inner_n = inner[t, n, column:], product[n, 3 * column + 2 * size :]
                for j in range(size):
                    row[j] = inner_n[j]
            column += size


@_kernel
def scan_backward(back, sizes, gates, before, inner, keep, grad_after, grad_product, grad_candidate, grad_hidden):
    """The gradient of `scan_forward`.

    back: W (3h, h) of each GRU, transposed against the forward pass, no bias; gates (r, z, n), before, inner: as it
    left them; grad_after (T, N, H). Writes the gradients by W h + b, grad_product (T, N, 3H), and by i_n,
    grad_candidate (T, N, H); by i_r and i_z it is the same as by W h + b. Adds to grad_hidden (N, H), which must be
    zeros.
    """
    one, zero = gates.dtype.type(1), np.int64(0)
    for t in range(len(gates) - 1, -1, -1):
        column, at = zero, zero
        for size in sizes:
            if size == 0:
                continue
            for n in range(len(grad_hidden)):
                reset, inner_n = gates[t, n, 3 * column :], inner[t, n, column:]
                update, candidate = reset[size:], reset[2 * size :]
                old, carry, grad_new = before[t, n, column:], grad_hidden[n, column:], grad_after[t, n, column:]
                by_reset, by_candidate = grad_product[t, n, 3 * column :], grad_candidate[t, n, column:]
                by_update, by_inner = by_reset[size:], by_reset[2 * size :]
                for j in range(size):
                    carry[j] += grad_new[j]
                for j in range(size):
                    by_update[j] = carry[j] * (old[j] - candidate[j]) * update[j] * (one - update[j])
                for j in range(size):
                    by_candidate[j] = carry[j] * (one - update[j]) * (one - candidate[j] * candidate[j])
                for j in range(size):
                    by_reset[j] = by_candidate[j] * inner_n[j] * reset[j] * (one - reset[j])
                for j in range(size):
                    by_inner[j] = by_candidate[j] * reset[j]
                for j in range(size):
                    carry[j] *= update[j]
            block = back[at : at + 3 * size * size].reshape(3 * size, size)
            add_product(grad_product[t], 3 * column, block, zero, size, grad_hidden, column)
            column += size
            at += 3 * size * size
        for n in range(len(grad_hidden)):
            if not keep[t, n]:
                carry = grad_hidden[n]
                for j in range(len(carry)):
                    carry[j] = 0


@_kernel
def _grus_forward(matrix, recurrent, sizes, x, hidden, keep, gates, before, inner, after):
    """The GRUs of a layer: matrix (1 + D, 3H) of its input x (M, D); the other arguments as in `scan_forward`."""
    _linear_forward(matrix, x, gates.reshape(len(x), gates.shape[2]))
    scan_forward(recurrent, sizes, gates, hidden, keep, before, inner, after)


@_kernel
def _grus_backward(
    matrix, recurrent, sizes, x, keep, gates, before, inner, grad_after,
    grad_matrix, grad_recurrent, grad_x, grad_hidden,
):  # fmt: skip
    """The gradient of `_grus_forward`, added to grad_matrix, grad_recurrent, grad_x and grad_hidden."""
    num_rows, width, zero = len(x), gates.shape[2], np.int64(0)
    back, at = np.empty(len(recurrent) - width, x.dtype), width
    for size in sizes:
        num = 3 * size * size
        turned = _transposed(recurrent[at : at + num].reshape(size, 3 * size), zero, 3 * size)
        back[at - width : at - width + num] = turned.reshape(-1)
        at += num
    grad_gates, grad_candidate = np.empty_like(gates), np.empty_like(inner)
    scan_backward(back, sizes, gates, before, inner, keep, grad_after, grad_gates, grad_candidate, grad_hidden)
    grads, by_candidate = grad_gates.reshape(num_rows, width), grad_candidate.reshape(num_rows, width // 3)
    starts, column, at = before.reshape(num_rows, width // 3), zero, width
    for n in range(num_rows):
        row = grads[n]
        for j in range(width):
            grad_recurrent[j] += row[j]
    for size in sizes:
        block = grad_recurrent[at : at + 3 * size * size].reshape(size, 3 * size)
        add_transposed_product(starts, column, grads, 3 * column, 3 * size, block, zero)
        for n in range(num_rows):  # from here on the gradient by the input's part
            row, own = grads[n, 3 * column + 2 * size :], by_candidate[n, column:]
            for j in range(size):
                row[j] = own[j]
        column += size
        at += 3 * size * size
    _linear_backward(matrix, x, grads, grad_matrix, grad_x)


@_kernel
def _drop(routing, uniform, rate, threshold):
    """`mixture_of_experts.ExpertDropout` of routing (M, E), by numbers of [0, 1): uniform (M, E)."""
    used = np.empty_like(routing)
    for n in range(len(routing)):
        for e in range(routing.shape[1]):
            is_dropped = uniform[n, e] < rate * (1 - routing[n, e] / threshold)
            used[n, e] = 0 if is_dropped else routing[n, e]
    return used


@_kernel
def _mixture_forward(router, mix, norm, sizes, states, x, uniform, rate, threshold, routing, mixed, mixture, y):
    """What follows the GRUs of a layer: the router's softmax, dropout, the experts' projections, the residual block.

    router (1 + R, E), mix (H - R + E, D), norm (2, D) or (0, D), sizes (1 + E,): units of the router, then of the
    experts, 0 = skip; states (M, H); x (M, D); uniform: of `_drop`, (0, E) where none is dropped. Writes routing
    (M, E); mixed (M, H - R + E), the experts' states times the weights used, then these, factors of the biases; their
    mixture (M, D), and y (M, D), which is the mixture where there is no norm.
    """
    zero, num_units, num_experts = np.int64(0), sizes[0], routing.shape[1]
    linear(router.reshape(-1), zero, states, zero, num_units, routing, zero, num_experts)
    softmax(routing, zero, num_experts)
    used = _drop(routing, uniform, rate, threshold) if len(uniform) > 0 else routing
    weigh(sizes[1:], states, num_units, x, used, zero, mixed, mixture)
    add_product(mixed, zero, mix, zero, mix.shape[1], mixture, zero)
    if len(norm) > 0:
        for n in range(len(x)):
            for j in range(x.shape[1]):
                y[n, j] = mixture[n, j]
        normalise(norm.reshape(-1), zero, x, y)


@_kernel_of_sums
def _normalise_backward(norm, x, mixture, grad_y, grad_norm):
    """The gradient of `normalise`: grad_y (M, D) becomes that by x + mixture; added to grad_norm (2, D).

    No loop both sums and writes: whether such a loop is vectorised, and so in which order it sums, would depend on how
    far apart the arrays lie in memory.
    """
    width = x.dtype.type(x.shape[1])
    weight, to_weight, to_bias = norm[0], grad_norm[0], grad_norm[1]
    normal = np.empty(x.shape[1], x.dtype)
    for n in range(len(x)):
        grad, mean = grad_y[n], x.dtype.type(0)
        square = along = by_mean = mean
        for j in range(len(normal)):
            normal[j] = x[n, j] + mixture[n, j]
        for j in range(len(normal)):
            mean += normal[j]
        mean /= width
        for j in range(len(normal)):
            normal[j] -= mean
        for j in range(len(normal)):
            square += normal[j] * normal[j]
        scale = x.dtype.type(1) / math.sqrt(square / width + x.dtype.type(1e-5))
        for j in range(len(normal)):
            normal[j] *= scale
            to_weight[j] += grad[j] * normal[j]
            to_bias[j] += grad[j]
            grad[j] *= weight[j]
        for j in range(len(normal)):
            by_mean += grad[j]
            along += grad[j] * normal[j]
        for j in range(len(normal)):
            grad[j] = scale * (grad[j] - by_mean / width - normal[j] * (along / width))


@_kernel_of_sums
def mix_backward(sizes, states, start, x, routing, mixed, grad_mixed, grad_y, grad_routing, grad_states, grad_x):
    """The gradient of `softmax` and `weigh`.

    routing (M, E): the router's weights; sizes, states, start, x, mixed as there. grad_routing (M, E): on entry the
    gradient by the weights, on return that by the logits. Adds the experts' part to grad_states (M, S), and writes
    grad_x (M, D).
    """
    num_experts = len(sizes)
    last = mixed.shape[1] - num_experts
    for n in range(len(x)):
        inputs, grad_out, grad_in, to_weights, column = x[n], grad_y[n], grad_x[n], grad_routing[n], 0
        for j in range(len(inputs)):
            grad_in[j] = 0
        mean = x.dtype.type(0)
        for e in range(num_experts):
            size, weight, slope = sizes[e], mixed[n, last + e], grad_mixed[n, last + e]
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
                to_state[j] += weight * grad[j]
            column += size
            if weight > 0:  # else the expert was dropped
                to_weights[e] += slope
            mean += routing[n, e] * to_weights[e]
        for e in range(num_experts):
            to_weights[e] = routing[n, e] * (to_weights[e] - mean)


@_kernel
def _mixture_backward(
    router, mix, norm, sizes, states, x, routing, mixed, mixture, grad_y, grad_routing,
    grad_router, grad_mix, grad_norm, grad_states, grad_x,
):  # fmt: skip
    """The gradient of `_mixture_forward`, added to those of its matrices and to grad_states (M, H).

    grad_y (M, D) and grad_routing (M, E): the gradients by its results, changed on return; writes grad_x (M, D).
    """
    zero, num_units = np.int64(0), sizes[0]
    if len(norm) > 0:
        _normalise_backward(norm, x, mixture, grad_y, grad_norm)
    add_transposed_product(mixed, zero, grad_y, zero, grad_y.shape[1], grad_mix, zero)
    grad_mixed = np.zeros_like(mixed)
    add_product(grad_y, zero, _transposed(mix, zero, mix.shape[1]), zero, len(mix), grad_mixed, zero)
    mix_backward(sizes[1:], states, num_units, x, routing, mixed, grad_mixed, grad_y, grad_routing, grad_states, grad_x)
    if len(norm) > 0:
        for n in range(len(x)):
            for j in range(x.shape[1]):
                grad_x[n, j] += grad_y[n, j]
    _add_gradient(states, zero, grad_routing, grad_router)
    add_product(grad_routing, zero, _transposed(router[1:], zero, router.shape[1]), zero, num_units, grad_states, zero)


class LayerArrays(NamedTuple):
    """The weights of a layer, or the gradients by them, as views of a flat array."""

    sizes: np.ndarray  # (1 + E,) units of the router, then sizes of the experts; the baseline: (1,)
    matrix: np.ndarray  # (1 + D, 3H), from the layer's input to the gates of its GRUs
    recurrent: np.ndarray  # (1, ...) the biases (3H,), then the matrix (h, 3h) of each GRU
    router: np.ndarray | None  # (1 + R, E); None: the baseline
    mix: np.ndarray | None  # (H - R + E, D), the experts' projections, then their biases
    norm: np.ndarray | None  # (2, D) weight and bias, or (0, D)


class Arrays(NamedTuple):
    """The weights of a policy, or the gradients by them, as views of a flat array."""

    matrix: np.ndarray  # (1 + K + G, D), of the input projection
    layers: list[LayerArrays]
    head: np.ndarray  # (1 + D or units of the baseline, A)


@functools.lru_cache
def _spans(shape: PolicyShape) -> tuple[tuple, list[tuple], tuple]:
    """First index, rows and columns of each matrix of `Arrays`, the layers' in the order of their fields."""
    layout, width, layers = lay_out(shape), shape.width, []
    for layer, sizes in zip(layout.layers, shape.layers, strict=True):
        of = {name: int(layer[name]) for name in layout.layers.dtype.names}
        recurrent = (of["at_hidden"], 1, 3 * (sum(sizes) + sum(size * size for size in sizes)))
        spans = [(of["at_input"], 1 + width, 3 * sum(sizes)), recurrent, None, None, None]
        if (num_experts := len(sizes) - 1) > 0:
            spans[2] = (of["at_router"], 1 + sizes[0], num_experts)
            spans[3] = (of["at_mix"], sum(sizes[1:]) + num_experts, width)
            spans[4] = (of["at_norm"], 2 if shape.is_residual else 0, width)
        layers.append(tuple(spans))
    head_inputs = width if len(shape.layers[-1]) > 1 else shape.layers[-1][0]
    head = (layout.at_head, 1 + head_inputs, shape.num_actions)
    return (layout.at_input, 1 + shape.num_inputs, width), layers, head


def arrays_of(shape: PolicyShape, flat: np.ndarray) -> Arrays:
    """Views of the flat array (shape.num_weights,), C-contiguous."""

    def view(span: tuple[int, int, int] | None) -> np.ndarray | None:
        return span and flat[span[0] : span[0] + span[1] * span[2]].reshape(span[1:])

    matrix, layers, head = _spans(shape)
    sizes = (row[: len(own)] for row, own in zip(lay_out(shape).sizes, shape.layers, strict=True))
    by_layer = [LayerArrays(own, *map(view, spans)) for own, spans in zip(sizes, layers, strict=True)]
    return Arrays(view(matrix), by_layer, view(head))


class LayerTape(NamedTuple):
    """What the gradient of a layer needs, named as in `_grus_forward` and `_mixture_forward`."""

    x: np.ndarray
    gates: np.ndarray
    before: np.ndarray
    inner: np.ndarray
    states: np.ndarray  # (M, H), after each step
    routing: np.ndarray | None = None  # None: the baseline
    mixed: np.ndarray | None = None
    mixture: np.ndarray | None = None


class Tape(NamedTuple):
    """What the gradient of a sequence needs."""

    obs: np.ndarray | None  # (M, I); None: the sequence began behind the input projection
    lang: np.ndarray | None
    keep: np.ndarray  # (T, N)
    layers: list[LayerTape]
    output: np.ndarray  # (M, ...), what the head saw


class Dropout(NamedTuple):
    """`mixture_of_experts.ExpertDropout` of a layer, with its random numbers."""

    uniform: np.ndarray  # (T, N, E) numbers of [0, 1)
    rate: float
    threshold: float


class Given(NamedTuple):
    """What a sequence begins with: either obs (T, N, I) and lang (T, N, G), or x (T, N, D) behind the projection."""

    obs: np.ndarray | None
    lang: np.ndarray | None
    x: np.ndarray | None
    hidden: np.ndarray  # (N, S) before the first step
    keep: np.ndarray  # (T, N) bool: False where a step starts from zeros
    dropouts: Sequence[Dropout | None]  # of each layer


class Results(NamedTuple):
    """What a sequence gives, or the gradients by it; the latter may be None."""

    logits: np.ndarray | None  # (T, N, A)
    states: np.ndarray | None  # (steps, N, S), after each of the last steps
    routing: Sequence[np.ndarray | None]  # L x (T, N, E_l)


@_kernel
def are_categories(edges, obs):
    """Whether the categories of one-hot observations (T, N, I) are Minigrid's."""
    for t in range(len(obs)):
        for n in range(obs.shape[1]):
            for k in range(len(edges) - 1):
                if not 0 <= obs[t, n, k] < edges[k + 1] - edges[k]:
                    return False
    return True


def _rows(array: np.ndarray) -> np.ndarray:
    """(M, ...) of (T, N, ...), contiguous."""
    return np.ascontiguousarray(array).reshape(-1, array.shape[-1])


def forward(shape: PolicyShape, weights: np.ndarray, given: Given, num_states: int) -> tuple[Results, Tape]:
    """A sequence through a policy, and what `backward` needs of it. All arrays have the dtype of the weights.

    num_states: of the last so many steps the hidden states are returned. With one-hot encoding the categories in obs
    must be Minigrid's, see `are_categories`.
    """
    num_steps, num_envs = given.keep.shape
    num_rows, dtype, arrays = num_steps * num_envs, weights.dtype, arrays_of(shape, weights)
    keep, obs, lang, first = np.ascontiguousarray(given.keep), None, None, 0
    if given.x is None:
        obs, lang, x = _rows(given.obs), _rows(given.lang), np.empty((num_rows, shape.width), dtype)
        project_input(arrays.matrix.reshape(-1), 0, obs_edges(shape.obs_encoding), obs, lang, x)
    else:
        x = _rows(given.x)
    tapes, states = [], np.empty((num_states, num_envs, shape.hidden_size), dtype)
    for layer, dropout in zip(arrays.layers, given.dropouts, strict=True):
        num_units = layer.matrix.shape[1] // 3
        columns, first = slice(first, first + num_units), first + num_units
        hidden = np.ascontiguousarray(given.hidden[:, columns])
        gates = np.empty((num_steps, num_envs, 3 * num_units), dtype)
        before, inner, after = (np.empty((num_steps, num_envs, num_units), dtype) for _ in range(3))
        _grus_forward(layer.matrix, layer.recurrent[0], layer.sizes, x, hidden, keep, gates, before, inner, after)
        states[..., columns] = after[num_steps - num_states :]
        tapes.append(LayerTape(x, gates, before, inner, after.reshape(num_rows, num_units)))
        if layer.router is None:
            x = tapes[-1].states
        else:
            x, tapes[-1] = _mix(layer, tapes[-1], dropout)
    logits = np.empty((num_rows, shape.num_actions), dtype)
    _linear_forward(arrays.head, x, logits)
    routing = [np.ones((num_rows, 1), dtype) if tape.routing is None else tape.routing for tape in tapes]
    logits, *routing = (array.reshape(num_steps, num_envs, -1) for array in (logits, *routing))
    return Results(logits, states, routing), Tape(obs, lang, keep, tapes, x)


def _mix(layer: LayerArrays, tape: LayerTape, dropout: Dropout | None) -> tuple[np.ndarray, LayerTape]:
    """The output of a mixture (M, D), and its tape with what was still to come."""
    num_rows, num_experts, x = len(tape.x), layer.router.shape[1], tape.x
    routing = np.empty((num_rows, num_experts), x.dtype)
    mixed, mixture = np.empty((num_rows, len(layer.mix)), x.dtype), np.empty_like(x)
    y = np.empty_like(x) if len(layer.norm) > 0 else mixture
    uniform = np.empty((0, num_experts), x.dtype) if dropout is None else _rows(dropout.uniform)
    rate, threshold = (0.0, 1.0) if dropout is None else (dropout.rate, dropout.threshold)
    _mixture_forward(
        layer.router, layer.mix, layer.norm, layer.sizes, tape.states, x, uniform, rate, threshold,
        routing, mixed, mixture, y,
    )  # fmt: skip
    return y, tape._replace(routing=routing, mixed=mixed, mixture=mixture)


def backward(shape: PolicyShape, weights: np.ndarray, tape: Tape, grads: Results) -> tuple[np.ndarray, ...]:
    """The gradients of `forward`: by the weights, by what it was given before the first layer, by hidden (N, S).

    The second is (T, N, I - categories + G) by obs and lang, where these were given, else (T, N, D) by x.
    """
    num_steps, num_envs = tape.keep.shape
    flat, arrays = np.zeros_like(weights), arrays_of(shape, weights)
    grad_arrays, grad_x = arrays_of(shape, flat), np.zeros_like(tape.output)
    grad_hidden, last = np.zeros((num_envs, shape.hidden_size), weights.dtype), shape.hidden_size
    if grads.logits is not None:
        _linear_backward(arrays.head, tape.output, _rows(grads.logits), grad_arrays.head, grad_x)
    layers = zip(arrays.layers, grad_arrays.layers, tape.layers, grads.routing, strict=True)
    for layer, to_layer, of_layer, grad_routing in reversed(list(layers)):
        columns = slice(last - of_layer.states.shape[1], last)
        last = columns.start
        grad_states = np.zeros_like(of_layer.states)
        if grads.states is not None:
            grad_states[len(grad_states) - len(grads.states) * num_envs :] = _rows(grads.states[..., columns])
        if layer.router is None:
            grad_states, grad_x = grad_states + grad_x, np.zeros_like(of_layer.x)
        else:
            grad_x = _mix_backward(layer, to_layer, of_layer, grad_x, grad_routing, grad_states)
        to_hidden = np.zeros((num_envs, grad_states.shape[1]), weights.dtype)
        _grus_backward(
            layer.matrix, layer.recurrent[0], layer.sizes, of_layer.x, tape.keep, of_layer.gates, of_layer.before,
            of_layer.inner, grad_states.reshape(num_steps, num_envs, -1), to_layer.matrix, to_layer.recurrent[0],
            grad_x, to_hidden,
        )  # fmt: skip
        grad_hidden[:, columns] = to_hidden
    if tape.obs is not None:
        edges, projected = obs_edges(shape.obs_encoding), grad_x
        grad_x = np.zeros((len(projected), shape.num_inputs - int(edges[-1])), weights.dtype)
        _input_backward(arrays.matrix, edges, tape.obs, tape.lang, projected, grad_arrays.matrix, grad_x)
    return flat, grad_x.reshape(num_steps, num_envs, -1), grad_hidden


def _mix_backward(layer, to_layer, tape: LayerTape, grad_y, grad_routing, grad_states) -> np.ndarray:
    """The gradient (M, D) by the input of a layer, as far as its mixture goes; added to that by states (M, H)."""
    routed, grad_x = np.zeros_like(tape.routing), np.empty_like(tape.x)
    if grad_routing is not None:
        routed += grad_routing.reshape(routed.shape)
    _mixture_backward(
        layer.router, layer.mix, layer.norm, layer.sizes, tape.states, tape.x, tape.routing, tape.mixed, tape.mixture,
        grad_y, routed, to_layer.router, to_layer.mix, to_layer.norm, grad_states, grad_x,
    )  # fmt: skip
    to_layer.mix[-len(layer.sizes[1:]) :][layer.sizes[1:] == 0] = 0  # a skip has no bias
    return grad_x
