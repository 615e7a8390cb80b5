"""The layers of a policy over whole sequences, and their gradients, compiled; `mop.fast.sequence` calls them in turn.

Axis letters as in `mixture_of_experts`; M = T * N rows, K + G inputs. A bias lies above its matrix, as one row more.
"""

import math

import numpy as np

from mop.fast.compile_cache import kernel
from mop.fast.policy_step import normalise, recur, softmax, weigh
from mop.fast.product import (
    OPTIONS,
    add_gradient,
    add_product,
    add_transposed_product,
    linear,
    linear_backward,
    linear_forward,
    transposed,
)

_kernel = kernel(**OPTIONS)
_kernel_of_sums = kernel(**(OPTIONS | {"fastmath": {"contract", "reassoc"}}))  # sums in any order


@_kernel
def grus_forward(matrix, recurrent, sizes, x, hidden, keep, gates, before, inner, after):
    """The GRUs of a layer over a sequence of inputs x (M, D).

    matrix (1 + D, 3H): from the input to the gates; `recurrent`: the weights of `recur`; sizes (E',) units of each GRU;
    hidden (N, H); keep (T, N): False where step t starts from zeros. Writes what `grus_backward` needs: gates
    (T, N, 3H), r, z, n; before (T, N, H), the state that a step starts from, and inner (T, N, H), W_n h + b_n; and the
    states after (T, N, H).
    """
    linear_forward(matrix, x, gates.reshape(len(x), gates.shape[2]))
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
def _scan_backward(back, sizes, gates, before, inner, keep, grad_after, grad_product, grad_candidate, grad_hidden):
    """The gradient of the scan in `grus_forward`.

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
def grus_backward(
    matrix, recurrent, sizes, x, keep, gates, before, inner, grad_after,
    grad_matrix, grad_recurrent, grad_x, grad_hidden,
):  # fmt: skip
    """The gradient of `grus_forward`, added to grad_matrix, grad_recurrent, grad_x and grad_hidden."""
    num_rows, width, zero = len(x), gates.shape[2], np.int64(0)
    back, at = np.empty(len(recurrent) - width, x.dtype), width
    for size in sizes:
        num = 3 * size * size
        turned = transposed(recurrent[at : at + num].reshape(size, 3 * size), zero, 3 * size)
        back[at - width : at - width + num] = turned.reshape(-1)
        at += num
    grad_gates, grad_candidate = np.empty_like(gates), np.empty_like(inner)
    _scan_backward(back, sizes, gates, before, inner, keep, grad_after, grad_gates, grad_candidate, grad_hidden)
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
    linear_backward(matrix, x, grads, grad_matrix, grad_x)


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
def mixture_forward(router, mix, norm, sizes, states, x, uniform, rate, threshold, routing, mixed, mixture, y):
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
def normalise_backward(norm, x, mixture, grad_y, grad_norm):
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
            size, weight, slope, grad = sizes[e], mixed[n, last + e], grad_mixed[n, last + e], grad_mixed[n, column:]
            state, to_state = states[n, start + column :], grad_states[n, start + column :]
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
def mixture_backward(
    router, mix, norm, sizes, states, x, routing, mixed, mixture, grad_y, grad_routing,
    grad_router, grad_mix, grad_norm, grad_states, grad_x,
):  # fmt: skip
    """The gradient of `mixture_forward`, added to those of its matrices and to grad_states (M, H).

    grad_y (M, D) and grad_routing (M, E): the gradients by its results, changed on return; writes grad_x (M, D).
    """
    zero, num_units = np.int64(0), sizes[0]
    if len(norm) > 0:
        normalise_backward(norm, x, mixture, grad_y, grad_norm)
    add_transposed_product(mixed, zero, grad_y, zero, grad_y.shape[1], grad_mix, zero)
    grad_mixed = np.zeros_like(mixed)
    add_product(grad_y, zero, transposed(mix, zero, mix.shape[1]), zero, len(mix), grad_mixed, zero)
    mix_backward(sizes[1:], states, num_units, x, routing, mixed, grad_mixed, grad_y, grad_routing, grad_states, grad_x)
    if len(norm) > 0:
        for n in range(len(x)):
            for j in range(x.shape[1]):
                grad_x[n, j] += grad_y[n, j]
    add_gradient(states, zero, grad_routing, grad_router)
    add_product(grad_routing, zero, transposed(router[1:], zero, router.shape[1]), zero, num_units, grad_states, zero)


@_kernel
def are_categories(edges, obs):
    """Whether the categories of one-hot observations (T, N, I) are Minigrid's."""
    for t in range(len(obs)):
        for n in range(obs.shape[1]):
            for k in range(len(edges) - 1):
                if not 0 <= obs[t, n, k] < edges[k + 1] - edges[k]:
                    return False
    return True
