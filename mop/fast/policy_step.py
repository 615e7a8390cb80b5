"""The policies' arithmetic on a CPU, compiled: one step of a whole policy, and the parts that sequences have too.

Matrices are small (16 environments, widths of 16 to 300), so most of the time of a step through a tensor library goes
to calls. Here a step is one call, over one flat array of weights that processes can share; torch is not needed. The
result of a sample is the same bit for bit in a batch of any size: every sum adds its terms in a fixed order.

The equations are those of `mixture_of_experts`, against which the tests hold these kernels. Axis letters as there:
T steps, N samples, D width, H hidden units of a layer, E experts, A actions, S hidden units of a policy; M = T * N
rows. How units and gates lie: `mop.fast.weights`.
"""

import itertools
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numba import types
from numba.extending import overload

from mop.common.workers import Layout as SharedLayout
from mop.envs.geometry import VIEW_SIZE
from mop.fast.compile_cache import kernel
from mop.fast.grid import obs_edges
from mop.fast.inputs import project_input
from mop.fast.product import OPTIONS, add_product, linear
from mop.fast.weights import ViewSpec, lay_out, zeros

_kernel = kernel(**OPTIONS)

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


@overload(_tanh, jit_options=OPTIONS)
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
def recur(weights, at, sizes, gates, hidden, start, product, after):
    """One step of the GRUs of a layer; equations of `torch.nn.GRU` (Cho et al. 2014, reset behind the product).

    r, z = sigmoid(i + W h + b);  n = tanh(i_n + r (W_n h + b_n));  h' = (1 - z) n + z h.
    At `at` lie the bias b (3H,), then W (h, 3h) of each GRU. gates (N, 3H): i, becomes r, z, n; product (N, 3H) becomes
    W h + b; hidden and after (N, S): the layer's columns begin at `start`.
    """
    half, one, zero = gates.dtype.type(0.5), gates.dtype.type(1), np.int64(0)
    bias = weights[at:]
    for n in range(len(gates)):
        row = product[n]
        for j in range(gates.shape[1]):
            row[j] = bias[j]
    at += gates.shape[1]
    column = zero
    for size in sizes:
        block = weights[at : at + 3 * size * size].reshape(size, 3 * size)
        add_product(hidden, start + column, block, zero, 3 * size, product, 3 * column)
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
def softmax(routing, first, num_experts):
    """Columns of routing (M, ...) from `first` on: `num_experts` logits become weights."""
    for n in range(len(routing)):
        weights = routing[n, first : first + num_experts]
        highest = weights[0]
        for e in range(1, num_experts):
            highest = max(highest, weights[e])
        total = weights.dtype.type(0)
        for e in range(num_experts):
            weights[e] = math.exp(weights[e] - highest)
            total += weights[e]
        for e in range(num_experts):
            weights[e] = weights[e] / total


@_kernel
def weigh(sizes, states, start, x, routing, first, mixed, y):
    """`mix_forward` with weights in place of the logits."""
    num_experts = len(sizes)
    for n in range(len(x)):
        weights = routing[n, first : first + num_experts]
        row, out, inputs, column = mixed[n], y[n], x[n], 0
        for j in range(len(out)):
            out[j] = 0
        for e in range(num_experts):
            size, weight = sizes[e], weights[e]
            state, part = states[n, start + column :], row[column:]
            if size == 0:
                for j in range(len(out)):
                    out[j] += weight * inputs[j]
            for j in range(size):
                part[j] = weight * state[j]
            column += size
        for e in range(num_experts):
            row[column + e] = weights[e]


@_kernel
def normalise(weights, at, x, y):
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
def _route(weights, layers, sizes, i, x, hidden, routing, after):
    """The GRUs of layer i, and its router's weights: into its columns of after (N, S) and of routing (N, ...)."""
    layer, zero = layers[i], np.int64(0)
    grus = sizes[i, : 1 + layer.num_experts]
    gates = np.empty((len(x), 3 * layer.num_units), weights.dtype)
    linear(weights, layer.at_input, x, zero, x.shape[1], gates, zero, 3 * layer.num_units)
    recur(weights, layer.at_hidden, grus, gates, hidden, layer.first_unit, np.empty_like(gates), after)
    if layer.num_experts == 0:  # the baseline's GRU
        for n in range(len(x)):
            routing[n, 0] = 1
    else:
        first, num_experts = layer.first_weight, layer.num_experts
        linear(weights, layer.at_router, after, layer.first_unit, grus[0], routing, first, num_experts)
        softmax(routing, first, num_experts)


@_kernel
def _mix(weights, layers, sizes, i, is_residual, x, routing, after):
    """The output of layer i: y (N, D), or the baseline's state."""
    layer = layers[i]
    grus = sizes[i, : 1 + layer.num_experts]
    if layer.num_experts == 0:
        return after
    zero, num_router_units = np.int64(0), grus[0]
    mixed = np.empty((len(x), layer.num_units - num_router_units + layer.num_experts), weights.dtype)
    y, first_state = np.empty_like(x), layer.first_unit + num_router_units
    weigh(grus[1:], after, first_state, x, routing, layer.first_weight, mixed, y)
    at_mix, width = layer.at_mix, x.shape[1]
    block = weights[at_mix : at_mix + mixed.shape[1] * width].reshape(mixed.shape[1], width)
    add_product(mixed, zero, block, zero, width, y, zero)
    if is_residual:
        normalise(weights, layer.at_norm, x, y)
    return y


@_kernel
def _step(
    weights, layers, sizes, at_input, at_head, edges, is_residual, width, obs, lang, hidden, logits, routing, after
):
    """`CompiledPolicy.step`; layers (L,) of LAYER; sizes (L, E + 1): units of the router, then sizes of the experts."""
    x = np.empty((len(obs), width), weights.dtype)
    project_input(weights, at_input, edges, obs, lang, x)
    for i in range(len(layers)):
        _route(weights, layers, sizes, i, x, hidden, routing, after)
        x = _mix(weights, layers, sizes, i, is_residual, x, routing, after)
    zero = np.int64(0)
    linear(weights, at_head, x, zero, x.shape[1], logits, zero, logits.shape[1])


class PolicyShape(NamedTuple):
    """The architecture of a policy as plain numbers, as a worker process needs them."""

    input_dim: int
    lang_dim: int
    width: int
    num_actions: int
    layers: tuple[tuple[int, ...], ...]  # units of the router, then sizes of the experts; the baseline: ((units,),)
    is_residual: bool = False
    obs_encoding: str = "raw"  # see `obs_edges`
    film: tuple[int, int] | None = None  # C and F of a FiLM projection; None: linear

    @property
    def hidden_size(self) -> int:
        """S, all hidden units."""
        return sum(map(sum, self.layers))

    @property
    def num_routes(self) -> list[int]:
        """E of each layer, the weights of its router; 1 for the baseline."""
        return [max(1, len(layer) - 1) for layer in self.layers]

    @property
    def num_inputs(self) -> int:
        """Numbers that are mapped to the first layer's input: of cells, then `num_others`."""
        num_cells = int(obs_edges(self.obs_encoding)[-1]) if self.film is None else VIEW_SIZE * VIEW_SIZE * self.film[1]
        return num_cells + self.num_others

    @property
    def num_others(self) -> int:
        """Numbers of an observation that are not encoded, and of the mission."""
        return self.input_dim - (len(obs_edges(self.obs_encoding)) - 1) + self.lang_dim

    @property
    def num_weights(self) -> int:
        """Length of the flat array of weights."""
        return lay_out(self).num_weights

    @property
    def layout(self) -> SharedLayout:
        """The memory that all copies of a policy share: `attach`."""
        return {"weights": ((self.num_weights,), np.dtype(np.float32))}

    def attach(self, memory: Mapping[str, np.ndarray]) -> "CompiledPolicy":
        """A policy of this shape whose weights are those of the memory, in this process or another."""
        return CompiledPolicy(self, memory["weights"])

    def compile(self) -> None:
        """Compile what steps a policy of this shape, so that workers need not."""
        policy = CompiledPolicy(self)
        obs, lang, hidden = (np.zeros((1, n)) for n in (self.input_dim, self.lang_dim, self.hidden_size))
        policy.step(obs, lang, hidden)


class CompiledPolicy:
    """A policy for stepping, without torch: its shape, and one flat array of weights that may be shared memory.

    `parameters` holds a view of `weights` for each parameter of a policy, by its name there; what is written into them
    counts from the next step on.
    """

    def __init__(self, shape: PolicyShape, weights: np.ndarray | None = None):
        """weights (shape.num_weights,) float, contiguous, writable, best at a multiple of 64 bytes; None: new zeros."""
        self.shape, self._layout = shape, lay_out(shape)
        self.weights = zeros(self._layout.num_weights) if weights is None else weights
        if self.weights.shape != (self._layout.num_weights,):
            raise ValueError(f"weights of shape {self.weights.shape}; this policy has {self._layout.num_weights}")
        self.parameters = {name: self._view(spec) for name, spec in self._layout.specs.items()}
        self._routing = np.cumsum([0, *shape.num_routes])

    def _view(self, spec: ViewSpec) -> np.ndarray:
        strides = [self.weights.itemsize * stride for stride in spec.strides]
        return np.lib.stride_tricks.as_strided(self.weights[spec.start :], spec.shape, strides)

    def step(
        self,
        obs: np.ndarray,
        lang: np.ndarray,
        hidden: np.ndarray,
        intervene: Callable[[int, np.ndarray], np.ndarray] | None = None,
    ):
        """One step of N samples, each independent of the others and of N, bit for bit.

        obs (N, I), lang (N, G), hidden (N, S) of the weights' dtype; with one-hot encoding the categories in obs must
        be Minigrid's, which is not checked; intervene: (layer, the router's weights (N, E)) -> those to mix with in
        their spec. Returns logits (N, A), a list over L of the weights used (N, E_l), which are columns of one array,
        and the new hidden (N, S).
        """
        layout, dtype, num_samples = self._layout, self.weights.dtype, len(obs)
        obs, lang, hidden = (np.require(a, dtype, "CAW") for a in (obs, lang, hidden))
        after = np.empty((num_samples, self.shape.hidden_size), dtype)
        logits = np.empty((num_samples, self.shape.num_actions), dtype)
        routing = np.empty((num_samples, self._routing[-1]), dtype)
        by_layer = [routing[:, a:b] for a, b in itertools.pairwise(self._routing)]
        edges, is_residual, width = obs_edges(self.shape.obs_encoding), self.shape.is_residual, self.shape.width
        if intervene is None:
            _step(
                self.weights, layout.layers, layout.sizes, layout.at_input, layout.at_head, edges, is_residual, width,
                obs, lang, hidden, logits, routing, after,
            )  # fmt: skip
            return logits, by_layer, after
        x = np.empty((num_samples, width), dtype)
        project_input(self.weights, layout.at_input, edges, obs, lang, x)
        for i, used in enumerate(by_layer):
            _route(self.weights, layout.layers, layout.sizes, i, x, hidden, routing, after)
            used[...] = intervene(i, used)
            x = _mix(self.weights, layout.layers, layout.sizes, i, is_residual, x, routing, after)
        linear(self.weights, layout.at_head, x, 0, x.shape[1], logits, 0, logits.shape[1])
        return logits, by_layer, after
