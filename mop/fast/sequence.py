"""Whole sequences of a policy on a CPU and their gradients: what learning does, without PyTorch.

A sequence goes through one layer after the other, so that a layer's weights stay in the cache; of a layer the input
products of all steps come first, then the scan of its GRUs. Environments are independent of each other but for the sums
of the gradient: a part of them is a `forward` and a `backward` of its own, and parts can run in threads, because the
kernels hold no interpreter lock. The weights are the flat array of `weights.lay_out`, and so is their gradient.

Axis letters as in `mixture_of_experts`; M = T * N rows. A bias lies above its matrix, as one row more.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mop.fast.grid import obs_edges
from mop.fast.inputs import input_backward, project_input
from mop.fast.policy_step import PolicyShape
from mop.fast.product import linear_backward, linear_forward
from mop.fast.sequence_kernels import grus_backward, grus_forward, mixture_backward, mixture_forward
from mop.fast.weights import lay_out

# `mixture_of_experts.ExpertDropout` of a layer: its random numbers, (T, N, E) of [0, 1), rate and threshold
Dropout = tuple[np.ndarray, float, float]


class LayerArrays(NamedTuple):
    """The weights of a layer, or the gradients by them, as views of a flat array."""

    sizes: np.ndarray  # (1 + E,) units of the router, then sizes of the experts; the baseline: (1,)
    matrix: np.ndarray  # (1 + D, 3H), from the layer's input to the gates of its GRUs
    recurrent: np.ndarray  # (1, ...) the biases (3H,), then the matrix (h, 3h) of each GRU
    router: np.ndarray  # (1 + R, E); the baseline: this and what follows (0, 0)
    mix: np.ndarray  # (H - R + E, D), the experts' projections, then their biases
    norm: np.ndarray  # (2, D) weight and bias, or (0, D)


def arrays_of(shape: PolicyShape, flat: np.ndarray) -> tuple[list[LayerArrays], np.ndarray]:
    """The weights behind the input projection, or the gradients by them: views of the flat array (shape.num_weights,).

    Those of each layer, and of the head, (1 + D or units of the baseline, A).
    """

    def view(start: int, num_rows: int, num_columns: int) -> np.ndarray:
        return flat[start : start + num_rows * num_columns].reshape(num_rows, num_columns)

    layout, width, layers = lay_out(shape), shape.width, []
    for at, row, sizes in zip(layout.layers, layout.sizes, shape.layers, strict=True):
        num_units, num_experts = sum(sizes), len(sizes) - 1
        matrix = view(at["at_input"], 1 + width, 3 * num_units)
        recurrent = view(at["at_hidden"], 1, 3 * (num_units + sum(size * size for size in sizes)))
        router = mix = norm = view(0, 0, 0)
        if num_experts > 0:
            router = view(at["at_router"], 1 + sizes[0], num_experts)
            mix = view(at["at_mix"], num_units - sizes[0] + num_experts, width)
            norm = view(at["at_norm"], 2 if shape.is_residual else 0, width)
        layers.append(LayerArrays(row[: len(sizes)], matrix, recurrent, router, mix, norm))
    head_inputs = width if len(shape.layers[-1]) > 1 else shape.layers[-1][0]
    return layers, view(layout.at_head, 1 + head_inputs, shape.num_actions)


class LayerTape(NamedTuple):
    """What the gradient of a layer needs, named as in `grus_forward` and `mixture_forward`."""

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
    of_input: tuple[np.ndarray, ...]  # of `project_input`
    keep: np.ndarray  # (T, N)
    layers: list[LayerTape]
    output: np.ndarray  # (M, ...), what the head saw


class Results(NamedTuple):
    """What a sequence gives, or the gradients by it; the latter may be None."""

    logits: np.ndarray | None  # (T, N, A)
    states: np.ndarray | None  # (steps, N, S), after each of the last steps
    routing: Sequence[np.ndarray | None]  # L x (T, N, E_l)


def _rows(array: np.ndarray) -> np.ndarray:
    """(M, ...) of (T, N, ...), contiguous."""
    return np.ascontiguousarray(array).reshape(-1, array.shape[-1])


def forward(
    shape: PolicyShape, weights: np.ndarray, obs: np.ndarray | None, lang: np.ndarray | None, x: np.ndarray | None,
    hidden: np.ndarray, keep: np.ndarray, dropouts: Sequence[Dropout | None], num_states: int,
) -> tuple[Results, Tape]:  # fmt: skip
    """A sequence through a policy, and what `backward` needs of it. All arrays have the dtype of the weights.

    It begins with either obs (T, N, I) and lang (T, N, G), or x (T, N, D) behind the input projection; hidden (N, S):
    before the first step; keep (T, N) bool: False where a step starts from zeros; dropouts: of each layer; num_states:
    of the last so many steps the hidden states are returned. With one-hot encoding the categories in obs must be
    Minigrid's, see `are_categories`.
    """
    num_steps, num_envs = keep.shape
    num_rows, dtype, (weights_of_layers, head) = num_steps * num_envs, weights.dtype, arrays_of(shape, weights)
    keep, first = np.ascontiguousarray(keep), 0
    of_input = ()
    if x is None:
        assert obs is not None and lang is not None
        obs, lang, x = _rows(obs), _rows(lang), np.empty((num_rows, shape.width), dtype)
        of_input = project_input(weights, lay_out(shape).at_input, obs_edges(shape.obs_encoding), obs, lang, x)
    else:
        x = _rows(x)
    tapes, states = [], np.empty((num_states, num_envs, shape.hidden_size), dtype)
    for layer, dropout in zip(weights_of_layers, dropouts, strict=True):
        num_units = layer.matrix.shape[1] // 3
        columns, first = slice(first, first + num_units), first + num_units
        of_layer = np.ascontiguousarray(hidden[:, columns])
        gates = np.empty((num_steps, num_envs, 3 * num_units), dtype)
        before, inner, after = (np.empty((num_steps, num_envs, num_units), dtype) for _ in range(3))
        grus_forward(layer.matrix, layer.recurrent[0], layer.sizes, x, of_layer, keep, gates, before, inner, after)
        states[..., columns] = after[num_steps - num_states :]
        tapes.append(LayerTape(x, gates, before, inner, after.reshape(num_rows, num_units)))
        if not len(layer.router):
            x = tapes[-1].states
        else:
            x, tapes[-1] = _mix(layer, tapes[-1], dropout)
    logits = np.empty((num_rows, shape.num_actions), dtype)
    linear_forward(head, x, logits)
    routing = [np.ones((num_rows, 1), dtype) if tape.routing is None else tape.routing for tape in tapes]
    logits, *routing = (array.reshape(num_steps, num_envs, -1) for array in (logits, *routing))
    return Results(logits, states, routing), Tape(obs, lang, of_input, keep, tapes, x)


def _mix(layer: LayerArrays, tape: LayerTape, dropout: Dropout | None) -> tuple[np.ndarray, LayerTape]:
    """The output of a mixture (M, D), and its tape with what was still to come."""
    num_rows, num_experts, x = len(tape.x), layer.router.shape[1], tape.x
    routing = np.empty((num_rows, num_experts), x.dtype)
    mixed, mixture = np.empty((num_rows, len(layer.mix)), x.dtype), np.empty_like(x)
    y = np.empty_like(x) if len(layer.norm) > 0 else mixture
    uniform, rate, threshold = (np.empty((0, 0, num_experts), x.dtype), 0.0, 1.0) if dropout is None else dropout
    mixture_forward(
        layer.router, layer.mix, layer.norm, layer.sizes, tape.states, x, _rows(uniform), rate, threshold,
        routing, mixed, mixture, y,
    )  # fmt: skip
    return y, tape._replace(routing=routing, mixed=mixed, mixture=mixture)


def backward(shape: PolicyShape, weights: np.ndarray, tape: Tape, grads: Results) -> tuple[np.ndarray, ...]:
    """The gradients of `forward`: by the weights, by what it was given before the first layer, by hidden (N, S).

    The second is (T, N, I - categories + G) by obs and lang, where these were given, else (T, N, D) by x.
    """
    num_steps, num_envs = tape.keep.shape
    flat, grad_x = np.zeros_like(weights), np.zeros_like(tape.output)
    (weights_of_layers, head), (grads_of_layers, grad_head) = arrays_of(shape, weights), arrays_of(shape, flat)
    grad_hidden, last = np.zeros((num_envs, shape.hidden_size), weights.dtype), shape.hidden_size
    if grads.logits is not None:
        linear_backward(head, tape.output, _rows(grads.logits), grad_head, grad_x)
    layers = zip(weights_of_layers, grads_of_layers, tape.layers, grads.routing, strict=True)
    for layer, to_layer, of_layer, grad_routing in reversed(list(layers)):
        columns = slice(last - of_layer.states.shape[1], last)
        last = columns.start
        grad_states = np.zeros_like(of_layer.states)
        if grads.states is not None:
            grad_states[len(grad_states) - len(grads.states) * num_envs :] = _rows(grads.states[..., columns])
        if not len(layer.router):
            grad_states, grad_x = grad_states + grad_x, np.zeros_like(of_layer.x)
        else:
            grad_x = _mix_backward(layer, to_layer, of_layer, grad_x, grad_routing, grad_states)
        to_hidden = np.zeros((num_envs, grad_states.shape[1]), weights.dtype)
        grus_backward(
            layer.matrix, layer.recurrent[0], layer.sizes, of_layer.x, tape.keep, of_layer.gates, of_layer.before,
            of_layer.inner, grad_states.reshape(num_steps, num_envs, -1), to_layer.matrix, to_layer.recurrent[0],
            grad_x, to_hidden,
        )  # fmt: skip
        grad_hidden[:, columns] = to_hidden
    if tape.obs is not None:
        at, edges, projected = lay_out(shape).at_input, obs_edges(shape.obs_encoding), grad_x
        grad_x = np.zeros((len(projected), shape.num_others), weights.dtype)
        input_backward(weights, at, edges, tape.obs, tape.lang, tape.of_input, projected, flat, grad_x)
    return flat, grad_x.reshape(num_steps, num_envs, -1), grad_hidden


def _mix_backward(layer, to_layer, tape: LayerTape, grad_y, grad_routing, grad_states) -> np.ndarray:
    """The gradient (M, D) by the input of a layer, as far as its mixture goes; added to that by states (M, H)."""
    routed, grad_x = np.zeros_like(tape.routing), np.empty_like(tape.x)
    if grad_routing is not None:
        routed += grad_routing.reshape(routed.shape)
    mixture_backward(
        layer.router, layer.mix, layer.norm, layer.sizes, tape.states, tape.x, tape.routing, tape.mixed, tape.mixture,
        grad_y, routed, to_layer.router, to_layer.mix, to_layer.norm, grad_states, grad_x,
    )  # fmt: skip
    to_layer.mix[-len(layer.sizes[1:]) :][layer.sizes[1:] == 0] = 0  # a skip has no bias
    return grad_x
