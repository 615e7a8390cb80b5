"""The policies: a mixture of pathways through GRU experts of different sizes, and the plain GRU baseline.

Axis letters: T steps of an unroll, N environments, D width, H hidden units of one block, E experts of a layer,
L layers, A actions, S all hidden units of a policy. Both policies have one interface:

    logits, hidden = policy(obs, lang, hidden)                              one step:  obs (N, I), lang (N, G)
    logits, routing, hidden = policy.get_routing_info(obs, lang, hidden)    a sequence: obs (T, N, I), lang (T, N, G)

The hidden state is one float tensor (N, S), so that it can be saved, copied and reset as a whole;
`policy.hidden_by_name(hidden)` views the state of every GRU in it.

On a CPU the GRUs and what mixes them run in `policy_kernels`, with gradients by hand; on other devices, and where
experts are dropped, in torch.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from mop.base.configuration import BEFORE
from mop.base.errors import InputError
from mop.kernels.policy import (
    CompiledPolicy,
    PolicyShape,
    encoded_dim,
    mix_backward,
    mix_forward,
    obs_edges,
    project_input,
    project_input_backward,
    scan_backward,
    scan_forward,
    zeros,
)


class Expert(nn.Module):
    """One pathway of a layer: a GRU of `hidden_size` units and a projection back to the layer's width.

    Size 0 is the skip expert: the identity, without parameters.
    """

    def __init__(self, width: int, hidden_size: int, gain: float = 1.0):
        """gain: of the projection's first weights, as a multiple of torch's default."""
        super().__init__()
        self.hidden_size = hidden_size
        if hidden_size > 0:
            self.gru = nn.GRU(width, hidden_size)
            self.projection = nn.Linear(hidden_size, width)
            with torch.no_grad():
                self.projection.weight.mul_(gain)

    def forward(self, x: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """x (T, N, D), hidden (1, N, size) -> output (T, N, D), hidden (1, N, size). What `pack` must equal."""
        if self.hidden_size == 0:
            return x, hidden
        y, hidden = self.gru(x, hidden)
        return self.projection(y), hidden


class Router(nn.Module):
    """A GRU that looks at the layer's input and answers with softmax weights over the layer's experts."""

    def __init__(self, width: int, hidden_size: int, num_experts: int):
        super().__init__()
        self.hidden_size = hidden_size
        self.gru = nn.GRU(width, hidden_size)
        self.fc = nn.Linear(hidden_size, num_experts)

    def forward(self, x: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """x (T, N, D), hidden (1, N, R) -> weights (T, N, E) on the simplex, hidden (1, N, R)."""
        y, hidden = self.gru(x, hidden)
        return self.fc(y).softmax(-1), hidden


class ExpertDropout(NamedTuple):
    """Leaves out experts that the router hardly uses (arXiv 2506.02813, eq. 3), in training mode.

    An expert of weight w below `threshold` (gamma) is dropped with probability `rate` x (1 - w / threshold) (beta), by
    torch's random numbers; the other weights stay as they are.
    """

    rate: float
    threshold: float

    def __call__(self, weights: Tensor) -> Tensor:
        """weights (..., E), with zeros where an expert is dropped."""
        dropped = torch.rand_like(weights) < self.rate * (1.0 - weights.detach() / self.threshold)
        return weights.masked_fill(dropped, 0.0)


class PackedLayer(NamedTuple):
    """The weights of one layer with its GRUs side by side: one matrix product where E + 1 modules would be called.

    For devices other than a CPU, where a call costs more than multiplying by zeros.
    """

    input_weight: Tensor  # (3H, D) gates r, z, n; within a gate the router's rows, then each expert's
    input_bias: Tensor  # (3H,)
    hidden_weight: Tensor  # (3H, H) block-diagonal within each gate
    hidden_bias: Tensor  # (3H,)
    router_weight: Tensor | None = None  # (E, R)
    router_bias: Tensor | None = None  # (E,)
    spread: Tensor | None = None  # (E, H - R) 0/1: repeats an expert's weight over its hidden units
    projection: Tensor | None = None  # (D, H - R + E) the experts' projections side by side, then their biases
    is_skip: Tensor | None = None  # (E, 1) 0/1; None if there is no skip expert


def pack_grus(grus: Sequence[nn.GRU]) -> PackedLayer:
    """GRUs with a common input as one GRU with H = sum of their sizes; differentiable in their parameters."""

    def by_gate(name: str) -> list[tuple[Tensor, ...]]:
        return list(zip(*(getattr(gru, name).chunk(3) for gru in grus), strict=True))

    return PackedLayer(
        torch.cat([torch.cat(rows) for rows in by_gate("weight_ih_l0")]),
        torch.cat([torch.cat(rows) for rows in by_gate("bias_ih_l0")]),
        torch.cat([torch.block_diag(*blocks) for blocks in by_gate("weight_hh_l0")]),
        torch.cat([torch.cat(rows) for rows in by_gate("bias_hh_l0")]),
    )


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
    """Back-propagation through `_scan` by hand: two small products a step in place of a graph of small modules."""

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


class _CompiledInput(torch.autograd.Function):
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


class _CompiledGRUs(torch.autograd.Function):
    """GRUs with a common input, side by side, on a CPU; equations and `keep` as in `gru_scan`.

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


def _compiled_grus(grus: Sequence[nn.GRU], x: Tensor, hidden: Tensor, keep: Tensor | None) -> Tensor:
    return _CompiledGRUs.apply(x, hidden, keep, *(parameter for gru in grus for parameter in gru.parameters()))


class _CompiledMix(torch.autograd.Function):
    """What follows the GRUs of a `MoELayer` on a CPU: the router's softmax, the experts' projections, the skipped part.

    states (M, H), x (M, D), projection (D, H - R + E) as in `PackedLayer`; returns the mixture (M, D), weights (M, E).
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


class MoELayer(nn.Module):
    """Experts of different sizes, mixed by a router: y = sum over e of weight_e * expert_e(x).

    With `residual`, the block of the Mixture-of-Pathways paper: LayerNorm(x + y).
    """

    def __init__(
        self,
        width: int,
        expert_sizes: Sequence[int],
        router_hidden_size: int,
        residual: bool = False,
        dropout: ExpertDropout | None = None,
        expert_gain: float = 1.0,
    ):
        super().__init__()
        self.expert_sizes, self.dropout = list(expert_sizes), dropout
        self.router = Router(width, router_hidden_size, len(self.expert_sizes))
        self.experts = nn.ModuleList(Expert(width, size, expert_gain) for size in self.expert_sizes)
        if residual:
            self.norm = nn.LayerNorm(width)

    @property
    def _grus(self) -> list[nn.GRU]:
        return [self.router.gru, *(expert.gru for expert in self.experts if expert.hidden_size > 0)]

    def _projection(self) -> Tensor:
        """(D, H - R + E): the experts' projections side by side, then their biases; a skip expert's is zero."""
        none = self.router.fc.weight.new_zeros(self.router.gru.input_size)
        biases = torch.stack([e.projection.bias if e.hidden_size > 0 else none for e in self.experts], 1)
        return torch.cat([*(e.projection.weight for e in self.experts if e.hidden_size > 0), biases], 1)

    def pack(self) -> PackedLayer:
        """The layer's weights side by side; pack once, then run many steps."""
        weight = self.router.fc.weight
        sizes = torch.tensor(self.expert_sizes, device=weight.device)
        return pack_grus(self._grus)._replace(
            router_weight=weight,
            router_bias=self.router.fc.bias,
            spread=torch.eye(len(sizes), device=weight.device, dtype=weight.dtype).repeat_interleave(sizes, 1),
            projection=self._projection(),
            is_skip=(sizes == 0).to(weight.dtype).unsqueeze(-1) if 0 in self.expert_sizes else None,
        )

    def forward(self, x: Tensor, hidden: Tensor, keep: Tensor | None = None, packed: PackedLayer | None = None):
        """x (T, N, D), hidden (N, H), keep (T, N) -> output (T, N, D), weights (T, N, E), hidden states (T, N, H)."""
        p = None if x.is_cpu and not self._drops else packed or self.pack()
        states = _compiled_grus(self._grus, x, hidden, keep) if x.is_cpu else self._scan(p, x, hidden, keep)
        y, weights = self._compiled_mix(x, states) if p is None else self._mix(p, x, states)
        return (self.norm(x + y) if hasattr(self, "norm") else y), weights, states

    @property
    def _drops(self) -> bool:
        return self.training and self.dropout is not None

    def _compiled_mix(self, x: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
        fc, rows = self.router.fc, (states.flatten(0, 1), x.flatten(0, 1))
        y, weights = _CompiledMix.apply(self.expert_sizes, *rows, fc.weight, fc.bias, self._projection())
        return y.view_as(x), weights.view(*x.shape[:2], -1)

    def _scan(self, p: PackedLayer, x: Tensor, hidden: Tensor, keep: Tensor | None) -> Tensor:
        return gru_scan(F.linear(x, p.input_weight, p.input_bias), hidden, keep, p.hidden_weight, p.hidden_bias)

    def _mix(self, p: PackedLayer, x: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
        router_state, expert_state = states.split([p.router_weight.shape[1], p.spread.shape[1]], -1)
        weights = F.linear(router_state, p.router_weight, p.router_bias).softmax(-1)
        used = self.dropout(weights) if self._drops else weights
        y = F.linear(torch.cat([expert_state * (used @ p.spread), used], -1), p.projection)
        return (y if p.is_skip is None else torch.addcmul(y, x, used @ p.is_skip)), weights


class RecurrentPolicy(nn.Module):
    """What both policies share: input projection, head, one hidden tensor, one interface.

    A subclass sets `hidden_layout` (name -> columns of the hidden state) and `expert_hidden_sizes`, and runs its
    recurrent part in `_recur`.
    """

    hidden_layout: dict[str, slice]
    expert_hidden_sizes: list[list[int]]
    is_residual = False

    def __init__(
        self, input_dim: int, lang_dim: int, width: int, head_dim: int, num_actions: int, obs_encoding: str = "raw"
    ):
        """`obs_encoding`: "raw" or "one_hot", see `policy_kernels.obs_edges`."""
        super().__init__()
        self.input_dim, self.lang_dim, self.num_actions = input_dim, lang_dim, num_actions
        self.obs_encoding = obs_encoding
        self.input_projection = nn.Linear(encoded_dim(input_dim, obs_encoding) + lang_dim, width)
        if obs_encoding != "raw":  # torch's default for as many inputs as differ from zero at once
            bound = (input_dim + lang_dim) ** -0.5
            nn.init.uniform_(self.input_projection.weight, -bound, bound)
        edges = torch.from_numpy(obs_edges(obs_encoding))
        self._num_columns, self._num_categorical = int(edges[-1]), len(edges) - 1
        self.register_buffer("_edges", edges, persistent=False)
        self.head = nn.Linear(head_dim, num_actions)

    def _project(self, obs: Tensor, lang: Tensor) -> Tensor:
        """The input projection (..., D) of obs (..., I) and lang (..., G). Raises ValueError for unknown categories."""
        if self.obs_encoding == "raw":
            return self.input_projection(torch.cat([obs, lang], -1))
        categories = obs[..., : self._num_categorical]
        if not ((categories >= 0) & (categories < self._edges.diff())).all():
            raise ValueError("an observation has a category that Minigrid does not have")
        if not obs.is_cpu:
            return self.input_projection(self._encode(obs, lang))
        rows = obs.reshape(-1, obs.shape[-1]), lang.reshape(-1, lang.shape[-1])
        x = _CompiledInput.apply(self._edges, *rows, self.input_projection.weight, self.input_projection.bias)
        return x.view(*obs.shape[:-1], -1)

    def _encode(self, obs: Tensor, lang: Tensor) -> Tensor:
        """obs (..., I) and lang (..., G) as inputs (..., K + G) of the projection; see `policy_kernels.obs_edges`."""
        categories, others = obs.tensor_split([self._num_categorical], -1)
        columns = categories.long() + self._edges[:-1]
        one_hot = obs.new_zeros(*obs.shape[:-1], self._num_columns).scatter_(-1, columns, 1.0)
        return torch.cat([one_hot, others, lang], -1)

    def _recur(self, x: Tensor, hidden: Tensor, keep: Tensor | None, packed) -> tuple[Tensor, list[Tensor], Tensor]:
        raise NotImplementedError

    def _pack_layers(self) -> list[PackedLayer]:
        raise NotImplementedError

    @property
    def _layer_sizes(self) -> tuple[tuple[int, ...], ...]:
        """See `PolicyShape.layers`."""
        raise NotImplementedError

    def pack(self) -> CompiledPolicy | list[PackedLayer]:
        """Weights laid out for stepping: `with torch.no_grad(): packed = policy.pack()`, valid until they change."""
        return self.compiled() if self.head.weight.is_cpu else self._pack_layers()

    def shape(self, mission_dim: int = 0) -> PolicyShape:
        """The architecture in plain numbers; mission_dim: with a mission projection from so many numbers."""
        dims = (self.input_dim, self.lang_dim, self.input_projection.out_features, self.num_actions)
        return PolicyShape(*dims, self._layer_sizes, self.is_residual, mission_dim, self.obs_encoding)

    def compiled(self, lang_proj: nn.Linear | None = None) -> CompiledPolicy:
        """A copy of the policy, and of its mission projection, that steps without torch; see `refresh`."""
        shape = self.shape(0 if lang_proj is None else lang_proj.in_features)
        dtype = torch.empty(0, dtype=self.head.weight.dtype).numpy().dtype
        compiled = CompiledPolicy(shape, zeros(shape.num_weights, dtype))
        self.refresh(compiled, lang_proj)
        return compiled

    def refresh(self, compiled: CompiledPolicy, lang_proj: nn.Linear | None = None) -> None:
        """Bring a compiled copy up to date, after an optimiser's step for instance."""
        named = dict(self.named_parameters())
        if lang_proj is not None:
            named |= {f"lang_proj.{name}": parameter for name, parameter in lang_proj.named_parameters()}
        compiled.load({name: parameter.detach().cpu().numpy() for name, parameter in named.items()})

    def get_routing_info(
        self, obs: Tensor, lang: Tensor, hidden: Tensor, keep: Tensor | None = None, packed=None
    ) -> tuple[Tensor, list[Tensor], Tensor]:
        """Logits, router weights and the new hidden state, for one step or a sequence.

        obs (N, I) or (T, N, I) float; lang (N, G) or (T, N, G) float; hidden (N, S) float; keep (T, N) bool, only
        with a sequence: False where an episode begins, so that step starts from a zero state; packed: see `pack`.
        Returns logits ([T,] N, A), a list over L of router weights ([T,] N, E_l), hidden (N, S) after the last step.
        """
        is_step = obs.dim() == 2
        if is_step and isinstance(packed, CompiledPolicy) and not torch.is_grad_enabled():
            logits, routing, hidden = packed.step(*_inputs(obs, lang, hidden))
            return torch.from_numpy(logits), [torch.from_numpy(w) for w in routing], torch.from_numpy(hidden)
        x = self._project(obs, lang)
        if is_step:
            x = x.unsqueeze(0)
        if isinstance(packed, CompiledPolicy):  # for single steps without gradients only
            packed = None
        x, routing, hidden = self._recur(x, hidden, keep, packed)
        logits = self.head(x)
        if is_step:
            return logits[0], [weights[0] for weights in routing], hidden
        return logits, routing, hidden

    def forward(self, obs: Tensor, lang: Tensor, hidden: Tensor, keep: Tensor | None = None, packed=None):
        """As `get_routing_info`, without the routing: logits ([T,] N, A), hidden (N, S)."""
        logits, _, hidden = self.get_routing_info(obs, lang, hidden, keep, packed)
        return logits, hidden

    @property
    def hidden_size(self) -> int:
        """S, all hidden units of the policy."""
        return max(columns.stop for columns in self.hidden_layout.values())

    def initial_hidden(self, num_envs: int) -> Tensor:
        """Zeros (N, S), the state at the beginning of an episode."""
        return self.head.weight.new_zeros(num_envs, self.hidden_size)

    def hidden_by_name(self, hidden: Tensor) -> dict[str, Tensor]:
        """Views (1, N, size) of hidden (N, S), one for each GRU: `router_0`, `expert_0_1`, ... (layer, expert)."""
        return {name: hidden[None, :, columns] for name, columns in self.hidden_layout.items()}


class MixtureOfExpertsPolicy(RecurrentPolicy):
    """Input projection, L layers of routed GRU experts, a linear head (Mixture-of-Pathways, adapted to stepping)."""

    def __init__(
        self,
        input_dim: int = 152,
        lang_dim: int = 32,
        intermediate_dim: int = 64,
        expert_hidden_sizes: Sequence = ((0, 16, 32),) * 3,
        router_hidden_size: int = 64,
        num_actions: int = 7,
        residual: bool = False,
        obs_encoding: str = "raw",
        dropout: ExpertDropout | None = None,
        expert_gain: float = 1.0,
    ):
        """`expert_hidden_sizes`: one list of sizes for each layer, a flat list means one layer; `expert_gain`: how much
        the untrained experts say, see `Expert`.
        """
        super().__init__(input_dim, lang_dim, intermediate_dim, intermediate_dim, num_actions, obs_encoding)
        self.is_residual = residual
        is_flat = all(isinstance(size, int) for size in expert_hidden_sizes)
        self.expert_hidden_sizes = [
            list(sizes) for sizes in ([expert_hidden_sizes] if is_flat else expert_hidden_sizes)
        ]
        self.moe_layers = nn.ModuleList(
            MoELayer(intermediate_dim, sizes, router_hidden_size, residual, dropout, expert_gain)
            for sizes in self.expert_hidden_sizes
        )
        self.hidden_layout, self._layer_columns, start = {}, [], 0
        for layer, sizes in enumerate(self.expert_hidden_sizes):
            named = {f"router_{layer}": router_hidden_size}
            named |= {f"expert_{layer}_{e}": size for e, size in enumerate(sizes) if size > 0}
            self._layer_columns.append(sum(named.values()))
            for name, size in named.items():
                self.hidden_layout[name] = slice(start, start := start + size)

    @property
    def _layer_sizes(self):
        return tuple((layer.router.hidden_size, *layer.expert_sizes) for layer in self.moe_layers)

    def _pack_layers(self):
        return [layer.pack() for layer in self.moe_layers]

    def _recur(self, x, hidden, keep, packed):
        routing, after = [], []
        parts, packed = hidden.split(self._layer_columns, -1), packed or [None] * len(self.moe_layers)
        for layer, part, weights_of_layer in zip(self.moe_layers, parts, packed, strict=True):
            x, weights, states = layer(x, part, keep, weights_of_layer)
            routing.append(weights)
            after.append(states[-1])
        return x, routing, torch.cat(after, -1)


class GRUPolicy(RecurrentPolicy):
    """The baseline: input projection, one GRU, a linear head.

    For the measures it is a mixture with a single pathway: one layer, one expert, weight 1.
    """

    def __init__(
        self,
        input_dim: int = 152,
        lang_dim: int = 32,
        intermediate_dim: int = 64,
        gru_hidden_size: int = 64,
        num_actions: int = 7,
        obs_encoding: str = "raw",
    ):
        super().__init__(input_dim, lang_dim, intermediate_dim, gru_hidden_size, num_actions, obs_encoding)
        self.gru = nn.GRU(intermediate_dim, gru_hidden_size)
        self.expert_hidden_sizes = [[gru_hidden_size]]
        self.hidden_layout = {"gru": slice(0, gru_hidden_size)}

    @property
    def _layer_sizes(self):
        return ((self.gru.hidden_size,),)

    def _pack_layers(self):
        return [pack_grus([self.gru])]

    def _recur(self, x, hidden, keep, packed):
        if x.is_cpu:
            states = _compiled_grus([self.gru], x, hidden, keep)
        else:
            (p,) = packed or self._pack_layers()
            states = gru_scan(F.linear(x, p.input_weight, p.input_bias), hidden, keep, p.hidden_weight, p.hidden_bias)
        return states, [states.new_ones(*states.shape[:2], 1)], states[-1]


def reset_hidden(hidden: Tensor, done: Tensor) -> Tensor:
    """hidden (N, S) with zeros where done (N,) is True; also where the old state was NaN or infinite."""
    return torch.where(done.unsqueeze(-1), hidden.new_zeros(()), hidden)


def detach_hidden(hidden: Tensor) -> Tensor:
    """hidden (N, S) cut from the graph: back-propagation is truncated here."""
    return hidden.detach()


def compute_lpc(routing: Sequence[Tensor], expert_hidden_sizes: Sequence[Sequence[int]]) -> Tensor:
    """Layered parameter cost of each sample: sum over layers and experts of router weight x expert size squared.

    The measure of the Mixture-of-Pathways paper (arXiv 2506.02813), called learned pathway complexity there.
    routing: list over L of (..., E_l); returns (...).
    Uniform routing over three layers of [0, 16, 32] costs 1280, all weight on the largest experts 3072.
    """
    return sum(
        weights @ weights.new_tensor([float(size) ** 2 for size in sizes])
        for weights, sizes in zip(routing, expert_hidden_sizes, strict=True)
    )


def routing_measures(routing: Sequence[Tensor], expert_hidden_sizes: Sequence[Sequence[int]]) -> dict[str, float]:
    """Of each layer with a choice: mean entropy of the router's weights in nats, and mean weight of the skip experts.

    routing: list over L of (..., E_l). Names `router_entropy_<l>` and `skip_share_<l>`; the latter only where a layer
    has experts of size 0.
    """
    measures = {}
    for layer, (weights, sizes) in enumerate(zip(routing, expert_hidden_sizes, strict=True)):
        weights, skips = weights.detach(), [e for e, size in enumerate(sizes) if size == 0]
        if len(sizes) > 1:
            measures[f"router_entropy_{layer}"] = torch.special.entr(weights).sum(-1).mean().item()
            if skips:
                measures[f"skip_share_{layer}"] = weights[..., skips].sum(-1).mean().item()
    return measures


def build_policy(config: Mapping) -> RecurrentPolicy:
    """The untrained policy that a run's config describes; `policy` is "mop" (the default) or "gru".

    Raises InputError where a key that the architecture needs is missing.
    """
    config = BEFORE | config
    try:
        shared = {key: config[key] for key in ("input_dim", "lang_dim", "intermediate_dim")}
        shared["num_actions"] = int(config["num_actions"])
        shared["obs_encoding"] = config["obs_encoding"]
        if config.get("policy", "mop") == "gru":
            return GRUPolicy(gru_hidden_size=config["gru_hidden_size"], **shared)
        rate = config["expert_dropout"]
        return MixtureOfExpertsPolicy(
            expert_hidden_sizes=config["expert_hidden_sizes"],
            router_hidden_size=config["router_hidden_size"],
            residual=config["residual"],
            expert_gain=config["expert_gain"],
            dropout=ExpertDropout(rate, config["expert_dropout_below"]) if rate > 0 else None,
            **shared,
        )
    except KeyError as missing:
        raise InputError(f"the config lacks {missing}, which the policy needs") from None


def policy_from_checkpoint(checkpoint: Mapping) -> tuple[RecurrentPolicy, nn.Linear]:
    """The trained policy and its mission projection (encoder -> lang_dim), in evaluation mode on the CPU.

    checkpoint: of `load_checkpoint`, made here or elsewhere. Raises InputError where weights and config disagree.
    """
    policy = build_policy(checkpoint["config"])
    projection = checkpoint.get("lang_proj_state_dict")
    is_projection = isinstance(projection, Mapping) and set(projection) == {"weight", "bias"}
    if not is_projection or not all(isinstance(p, Tensor) and p.dim() > 0 for p in projection.values()):
        raise InputError("the checkpoint has no lang_proj_state_dict with weight and bias")
    lang_proj = nn.Linear(projection["weight"].shape[-1], policy.lang_dim)
    try:
        policy.load_state_dict(checkpoint["policy_state_dict"])
        lang_proj.load_state_dict(projection)
    except RuntimeError as error:
        raise InputError(f"weights and config of the checkpoint disagree: {' '.join(str(error).split())}") from None
    if not all(torch.isfinite(p).all() for p in (*policy.parameters(), *lang_proj.parameters())):
        raise InputError("the checkpoint holds weights that are no finite numbers: its training diverged")
    return policy.eval().requires_grad_(False), lang_proj.eval().requires_grad_(False)
