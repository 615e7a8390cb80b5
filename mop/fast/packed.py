"""The GRUs of a layer side by side, for devices where launching a kernel takes longer than multiplying by zeros.

An unroll of 32 steps launches 1,800 kernels in place of 15,600 (benchmarks/README.md). Axis letters as in
`mixture_of_experts`.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from mixture_of_experts import Expert, MoELayer


class PackedGRUs(NamedTuple):
    """GRUs with a common input as one GRU: one matrix product in place of several."""

    input_weight: Tensor  # (3H, D) gates r, z, n; within a gate the rows of each GRU in turn
    input_bias: Tensor  # (3H,)
    hidden_weight: Tensor  # (3H, H) block-diagonal within each gate
    hidden_bias: Tensor  # (3H,)


class PackedMix(NamedTuple):
    """The rest of a layer behind its GRUs: the router's weights, and the experts' projections as one matrix."""

    router_weight: Tensor  # (E, R)
    router_bias: Tensor  # (E,)
    spread: Tensor  # (E, H - R) 0/1: repeats an expert's weight over its hidden units
    projection: Tensor  # (D, H - R + E): the projections of the experts side by side, then all biases
    is_skip: Tensor | None  # (E, 1) 0/1; None if there is no skip expert


def pack_grus(grus: Sequence[nn.GRU]) -> PackedGRUs:
    """GRUs with a common input as one GRU with H = sum of their sizes; differentiable in their parameters."""

    def by_gate(name: str) -> list[tuple[Tensor, ...]]:
        return list(zip(*(getattr(gru, name).chunk(3) for gru in grus), strict=True))

    return PackedGRUs(
        torch.cat([torch.cat(rows) for rows in by_gate("weight_ih_l0")]),
        torch.cat([torch.cat(rows) for rows in by_gate("bias_ih_l0")]),
        torch.cat([torch.block_diag(*blocks) for blocks in by_gate("weight_hh_l0")]),
        torch.cat([torch.cat(rows) for rows in by_gate("bias_hh_l0")]),
    )


def pack_mix(router: nn.Linear, sizes: Sequence[int], projections: Sequence[nn.Linear], width: int) -> PackedMix:
    """router: from its state to logits; sizes (E,) of the experts, 0 = skip; projections: of the others; width: D."""
    real = iter(projections)
    no_bias = router.weight.new_zeros(width)  # of a skip
    biases = torch.stack([no_bias if size == 0 else next(real).bias for size in sizes], 1)
    projection = torch.cat([*(projection.weight for projection in projections), biases], 1)
    size_of = torch.tensor(sizes, device=biases.device)
    spread = torch.eye(len(sizes), device=biases.device, dtype=biases.dtype).repeat_interleave(size_of, 1)
    is_skip = (size_of == 0).to(biases.dtype).unsqueeze(-1) if 0 in sizes else None
    return PackedMix(router.weight, router.bias, spread, projection, is_skip)


def mix(packed: PackedMix, x: Tensor, states: Tensor, dropout: Callable | None = None) -> tuple[Tensor, Tensor]:
    """x (T, N, D), states (T, N, H) -> the mixture (T, N, D) and the router's weights (T, N, E).

    dropout: weights (T, N, E) -> those that the experts are mixed with; None: the router's.
    """
    router_state, expert_state = states.split([packed.router_weight.shape[1], packed.spread.shape[1]], -1)
    weights = F.linear(router_state, packed.router_weight, packed.router_bias).softmax(-1)
    used = weights if dropout is None else dropout(weights)
    y = F.linear(torch.cat([expert_state * (used @ packed.spread), used], -1), packed.projection)
    return (y if packed.is_skip is None else torch.addcmul(y, x, used @ packed.is_skip)), weights


class PackedLayer(NamedTuple):
    """A layer of a policy for `run`; the baseline's has GRUs alone."""

    grus: PackedGRUs
    mix: PackedMix | None
    norm: nn.Module | None
    dropout: Callable[[Tensor], Tensor] | None


def pack(layer: nn.Module) -> PackedLayer:
    """layer: a `MoELayer`, or the GRU of the baseline; differentiable in its parameters."""
    if isinstance(layer, nn.GRU):
        return PackedLayer(pack_grus([layer]), None, None, None)
    assert isinstance(layer, MoELayer)
    experts = [expert for expert in layer.experts if isinstance(expert, Expert) and expert.hidden_size > 0]
    projections = [expert.projection for expert in experts]
    mix = pack_mix(layer.router.fc, layer.expert_sizes, projections, layer.router.gru.input_size)
    grus = pack_grus([layer.router.gru, *(expert.gru for expert in experts)])
    return PackedLayer(grus, mix, layer.norm, layer.dropout if layer.training else None)


def run(layers: Sequence[PackedLayer], x: Tensor, hidden: Tensor, keep: Tensor | None):
    """x (T, N, D) of the input projection, hidden (N, S), keep (T, N) bool or None: see `gru_scan`.

    Returns input of the head (T, N, ...), router weights L x (T, N, E_l), hidden states (T, N, S).
    """
    routing, after = [], []
    num_units = [layer.grus.hidden_weight.shape[1] for layer in layers]
    for layer, before in zip(layers, hidden.split(num_units, -1), strict=True):
        gates_in = F.linear(x, layer.grus.input_weight, layer.grus.input_bias)
        states = gru_scan(gates_in, before, keep, layer.grus.hidden_weight, layer.grus.hidden_bias)
        if layer.mix is None:
            x, weights = states, states.new_ones(*states.shape[:2], 1)
        else:
            y, weights = mix(layer.mix, x, states, layer.dropout)
            x = y if layer.norm is None else layer.norm(x + y)
        routing.append(weights)
        after.append(states)
    return x, routing, torch.cat(after, -1)


def _scan(gates_in: Tensor, hidden: Tensor, keep: Tensor | None, weight: Tensor, bias: Tensor, saved: dict | None):
    """The recurrence of `gru_scan`; with `saved`, what its backward pass needs is put there, each (T, N, H)."""
    size = hidden.shape[-1]
    weight_t, zero = weight.t(), hidden.new_zeros(())
    starts = [None] * len(gates_in) if keep is None else keep.unsqueeze(-1).unbind()
    inputs_rz, inputs_n = gates_in[..., : 2 * size].unbind(), gates_in[..., 2 * size :].unbind()
    outputs, before, reset_update, candidate, gate_n = [], [], [], [], []
    for input_rz, input_n, kept in zip(inputs_rz, inputs_n, starts, strict=True):
        if kept is not None:
            hidden = torch.where(kept, hidden, zero)
        gates_rz, gates_n = torch.addmm(bias, hidden, weight_t).split([2 * size, size], -1)
        rz = (gates_rz + input_rz).sigmoid_()
        r, z = rz.split(size, -1)
        n = torch.addcmul(input_n, r, gates_n).tanh_()
        if saved is not None:
            before.append(hidden)
            reset_update.append(rz)
            candidate.append(n)
            gate_n.append(gates_n)
        hidden = torch.lerp(n, hidden, z)
        outputs.append(hidden)
    if saved is not None:
        saved |= {"before": torch.stack(before), "rz": torch.stack(reset_update)}
        saved |= {"n": torch.stack(candidate), "gate_n": torch.stack(gate_n)}
    return torch.stack(outputs)


class _GRUScan(torch.autograd.Function):
    """Back-propagation through `_scan` by hand: one small product a step in place of a graph of small modules."""

    @staticmethod
    def forward(ctx, gates_in, hidden, keep, weight, bias):
        saved = {}
        outputs = _scan(gates_in, hidden, keep, weight, bias, saved)
        ctx.save_for_backward(saved["before"], saved["rz"], saved["n"], saved["gate_n"], keep, weight)
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_outputs):
        before, rz, n, gate_n, keep, weight = ctx.saved_tensors
        size = n.shape[-1]
        r, z = rz[..., :size], rz[..., size:]
        # derivatives of h' = (1 - z) n + z h by each gate's pre-activation, for all steps at once
        by_n = (1 - z) * (1 - n * n)
        by_z = (before - n) * z * (1 - z)
        by_r = gate_n * r * (1 - r)  # times the gradient of n's pre-activation
        grad_gates = grad_outputs.new_empty(*n.shape[:-1], 3 * size)  # of the hidden side: r, z, r * n
        grad_n = torch.empty_like(n)
        carry, zero = torch.zeros_like(n[0]), n.new_zeros(())
        starts = [None] * len(n) if keep is None else keep.unsqueeze(-1).unbind()
        gates = [part.unbind() for part in (grad_gates, *grad_gates.split(size, -1))]
        steps = [part.unbind() for part in (grad_outputs, grad_n, by_n, by_z, by_r, r, z)]
        for grad_output, to_n, n_, z_, r_, reset, update, all_gates, to_r, to_z, to_hidden_n, kept in zip(
            *(reversed(part) for part in (*steps, *gates, starts)), strict=True
        ):
            grad = grad_output + carry
            torch.mul(grad, n_, out=to_n)
            torch.mul(to_n, r_, out=to_r)
            torch.mul(grad, z_, out=to_z)
            torch.mul(to_n, reset, out=to_hidden_n)
            carry = torch.addmm(grad.mul_(update), all_gates, weight)
            if kept is not None:
                carry = torch.where(kept, carry, zero)
        grad_in = torch.cat([grad_gates[..., : 2 * size], grad_n], -1)
        flat = grad_gates.flatten(0, 1)
        return grad_in, carry, None, flat.t() @ before.flatten(0, 1), flat.sum(0)


def gru_scan(gates_in: Tensor, hidden: Tensor, keep: Tensor | None, weight: Tensor, bias: Tensor) -> Tensor:
    """A GRU over a sequence in which single samples may start afresh (`torch.nn.GRU` cannot), for any device.

    Equations and gate order (r, z, n) of `torch.nn.GRU` (Cho et al. 2014, with the reset gate after the product):
    r, z = sigmoid(i + W h + b);  n = tanh(i_n + r (W_n h + b_n));  h' = (1 - z) n + z h.

    gates_in (T, N, 3H): input products with their bias; hidden (N, H); keep (T, N) bool: False where step t starts
    from zeros, None where none does; weight (3H, H); bias (3H,). Returns the hidden states (T, N, H).
    """
    if torch.is_grad_enabled() and (gates_in.requires_grad or hidden.requires_grad or weight.requires_grad):
        return _GRUScan.apply(gates_in, hidden, keep, weight, bias)
    return _scan(gates_in, hidden, keep, weight, bias, None)
