"""The compiled arithmetic of the policies as torch functions with gradients by hand, for learning on a CPU.

What is computed is what `mixture_of_experts` says; `fast` chooses when it is computed here. Axis letters as in
`policy`. None of these has a second derivative.
"""

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mop.kernels.policy import (
    mix_backward,
    mix_forward,
    project_input,
    project_input_backward,
    scan_backward,
    scan_forward,
)

_ROWS = torch.contiguous_format


def _new(like: Tensor) -> Tensor:
    """An uninitialised tensor of that shape, row by row whatever the other's strides are."""
    return torch.empty_like(like, memory_format=_ROWS)


def _inputs(*tensors: Tensor) -> list[np.ndarray]:
    """Tensors that a kernel reads; a copy of what is not contiguous."""
    return [tensor.detach().contiguous().numpy() for tensor in tensors]


def _outputs(*tensors: Tensor) -> list[np.ndarray]:
    """Tensors that a kernel writes: their own memory."""
    assert all(tensor.is_contiguous() for tensor in tensors)
    return [tensor.detach().numpy() for tensor in tensors]


class CompiledInput(torch.autograd.Function):
    """The projection of encoded observations on a CPU, without making their ones and zeros; see `project_input`.

    edges: of `obs_edges`; obs (M, I), whose categories have no gradient; lang (M, G); weight (D, K + G), bias (D,).
    Returns (M, D).
    """

    @staticmethod
    def forward(ctx, edges, obs, lang, weight, bias):
        ctx.save_for_backward(edges, obs, lang, weight)
        packed, x = torch.cat([bias, weight.t().flatten()]), obs.new_empty(len(obs), len(bias))
        (packed,), given = _inputs(packed), _inputs(edges, obs, lang)
        project_input(packed, 0, *given, *_outputs(x))
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_x):
        edges, obs, lang, weight = ctx.saved_tensors
        grad = weight.new_zeros(1 + weight.shape[1], len(weight))
        project_input_backward(*_inputs(edges, obs, lang, grad_x), *_outputs(grad))
        num_categorical, grad_obs = len(edges) - 1, torch.zeros_like(obs)
        by_others = grad_x @ weight[:, edges[-1] :]
        grad_obs[:, num_categorical:], grad_lang = by_others.split([obs.shape[1] - num_categorical, lang.shape[1]], 1)
        return None, grad_obs, grad_lang, grad[1:].t(), grad[0]


class CompiledGRUs(torch.autograd.Function):
    """GRUs with a common input, side by side, on a CPU; equations and `keep` as in `packed.gru_scan`.

    x (T, N, D); hidden (N, H); keep (T, N) bool or None; parameters: the four of each GRU in its own order. Returns the
    hidden states (T, N, H).
    """

    @staticmethod
    def forward(ctx, x, hidden, keep, *parameters):
        if keep is None:
            keep = torch.ones(x.shape[:2], dtype=torch.bool)
        weights_in, weights, biases_in, biases = (parameters[kind::4] for kind in range(4))
        sizes = np.array([weight.shape[1] for weight in weights])
        rows, weight_in = x.flatten(0, 1), torch.cat(weights_in)
        gates = torch.addmm(torch.cat(biases_in), rows, weight_in.t()).view(*keep.shape, weight_in.shape[0])
        product, before = torch.empty_like(gates), gates.new_empty(*keep.shape, sizes.sum())
        after = torch.empty_like(before)
        packed = torch.cat([*biases, *(weight.t().flatten() for weight in weights)])
        given = _outputs(gates), _inputs(hidden, keep), _outputs(before, product, after)
        scan_forward(*_inputs(packed), sizes, *itertools.chain(*given))
        ctx.save_for_backward(rows, weight_in, gates, before, product, keep, *weights)
        return after

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_after):
        rows, weight_in, gates, before, product, keep, *weights = ctx.saved_tensors
        sizes = [weight.shape[1] for weight in weights]
        packed = torch.cat([weight.flatten() for weight in weights])
        grad_gates, grad_product = torch.empty_like(gates), torch.empty_like(gates)
        grad_hidden = torch.zeros_like(before[0])
        given = _inputs(gates, before, product, keep, grad_after)
        scan_backward(*_inputs(packed), np.array(sizes), *given, *_outputs(grad_gates, grad_product, grad_hidden))
        grad_gates, grad_product, before = (tensor.flatten(0, 1) for tensor in (grad_gates, grad_product, before))
        triples = [3 * size for size in sizes]
        columns = zip(grad_product.split(triples, 1), before.split(sizes, 1), strict=True)
        by_kind = (
            (grad_gates.t() @ rows).split(triples),
            [grad.t() @ start for grad, start in columns],
            grad_gates.sum(0).split(triples),
            grad_product.sum(0).split(triples),
        )
        by_gru = [grad for grads in zip(*by_kind, strict=True) for grad in grads]
        return (grad_gates @ weight_in).view(*keep.shape, -1), grad_hidden, None, *by_gru


def run_grus(grus: Sequence[nn.GRU], x: Tensor, hidden: Tensor, keep: Tensor | None) -> Tensor:
    """x (T, N, D), hidden (N, H), keep (T, N) bool or None -> the hidden states (T, N, H); see `CompiledGRUs`."""
    return CompiledGRUs.apply(x, hidden, keep, *(parameter for gru in grus for parameter in gru.parameters()))


class CompiledMix(torch.autograd.Function):
    """What follows the GRUs of a layer on a CPU: the router's softmax, the experts' projections, the skipped part.

    states (M, H), x (M, D), projection (D, H - R + E): of `packed.join_projections`; returns the mixture (M, D) and the
    router's weights (M, E).
    """

    @staticmethod
    def forward(ctx, expert_sizes, states, x, router_weight, router_bias, projection):
        ctx.sizes, ctx.first = np.array(expert_sizes), router_weight.shape[1]
        weights = torch.addmm(router_bias, states[:, : ctx.first], router_weight.t())
        mixed, y = x.new_empty(len(x), projection.shape[1]), _new(x)
        rows, routed = _inputs(x), _outputs(weights)
        mix_forward(ctx.sizes, *_inputs(states), ctx.first, *rows, *routed, 0, *_outputs(mixed, y))
        ctx.save_for_backward(states, x, weights, mixed, router_weight, projection)
        return y.addmm_(mixed, projection.t()), weights

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_y, grad_weights):
        states, x, weights, mixed, router_weight, projection = ctx.saved_tensors
        grad_logits, grad_states, grad_x = grad_weights.clone(memory_format=_ROWS), _new(states), _new(x)
        mix_backward(
            ctx.sizes, *_inputs(states), ctx.first, *_inputs(x, weights, grad_y @ projection, grad_y),
            *_outputs(grad_logits, grad_states, grad_x),
        )  # fmt: skip
        grad_states[:, : ctx.first] = grad_logits @ router_weight
        grad_router = grad_logits.t() @ states[:, : ctx.first]
        return None, grad_states, grad_x, grad_router, grad_logits.sum(0), grad_y.t() @ mixed


def mix(fc: nn.Linear, sizes: Sequence[int], projection: Tensor, x: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
    """x (T, N, D), states (T, N, H) -> the mixture (T, N, D) and the router's weights (T, N, E); see `CompiledMix`.

    fc: from the router's state to its logits; sizes (E,) of the experts; projection: of `packed.join_projections`.
    """
    rows = states.flatten(0, 1), x.flatten(0, 1)
    y, weights = CompiledMix.apply(sizes, *rows, fc.weight, fc.bias, projection)
    return y.view_as(x), weights.view(*x.shape[:2], -1)
