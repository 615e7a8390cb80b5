"""Where the parameters of a policy lie in one flat array, which kernels read and processes can share.

Matrices lie transposed, (inputs, outputs). The hidden units of a layer are the router's, then each expert's. Its gates
(3H) are r, z, n of the first of these GRUs, then r, z, n of the next, so that the matrices of a GRU are blocks as they
are. Axis letters as in `mixture_of_experts`.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mop.envs.geometry import CATEGORIES

if TYPE_CHECKING:
    from mop.fast.policy_step import PolicyShape


class ViewSpec(NamedTuple):
    """Where one parameter lies, in the shape that torch gives it; strides in numbers, not bytes."""

    start: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


LAYER = np.dtype(
    [(name, np.int64) for name in ("at_input", "at_hidden", "at_router", "at_mix", "at_norm")]
    + [(name, np.int64) for name in ("first_unit", "num_units", "first_weight", "num_experts")]
)  # at_*: index of the first weight of that part; units are columns of the hidden state, weights those of the routing


class Layout(NamedTuple):
    """What the kernels and the copying of parameters need to know of a flat array."""

    num_weights: int
    specs: dict[str, ViewSpec]  # of each parameter, by its name in the policy
    layers: np.ndarray  # (L,) of LAYER
    sizes: np.ndarray  # (L, most experts + 1) int64: units of the router, then sizes of the experts
    at_input: np.ndarray  # int64, see `mop.fast.inputs`
    at_head: int


class _Allocator:
    """Gives out stretches of a flat array one after the other, and notes where each parameter of the policy lies."""

    def __init__(self):
        self.end = 0
        self.specs: dict[str, ViewSpec] = {}

    def take(self, count: int) -> int:
        """The first index of the next `count` numbers, where a cache line begins: a product that does not begin on a
        line takes 1.4 times as long.
        """
        start = -(-self.end // 16) * 16
        self.end = start + count
        return start

    def linear(self, name: str, inputs: int, outputs: int) -> int:
        """The bias, then the weight transposed: (inputs, outputs)."""
        start = self.take((1 + inputs) * outputs)
        self.specs[f"{name}.weight"] = ViewSpec(start + outputs, (outputs, inputs), (1, outputs))
        self.specs[f"{name}.bias"] = ViewSpec(start, (outputs,), (1,))
        return start

    def input_projection(self, shape: "PolicyShape") -> np.ndarray:
        """A linear map, or the four parts of a FiLM projection."""
        name = "input_projection"
        if shape.film is None:
            return np.array([self.linear(name, shape.num_inputs, shape.width)])
        num, num_features = shape.film
        at_cells = self.take(sum(CATEGORIES) * num)
        self.specs[f"{name}.cells.weight"] = ViewSpec(at_cells, (num, sum(CATEGORIES)), (1, num))
        at_film = self.linear(f"{name}.film", shape.lang_dim, 2 * num)
        at_features = self.linear(f"{name}.features", num, num_features)
        at_output = self.linear(f"{name}.output", shape.num_inputs, shape.width)
        return np.array([at_cells, at_film, at_features, at_output, num, num_features])

    def grus(self, sizes: Mapping[str, int], inputs: int) -> tuple[int, int]:
        """GRUs side by side: all input biases, then one matrix of their input weights; all hidden biases, then the
        hidden matrix of each.
        """
        width = 3 * sum(sizes.values())
        at_input = self.take((1 + inputs) * width)
        at_hidden = self.take(width + sum(3 * size * size for size in sizes.values()))
        column, block = 0, at_hidden + width
        for name, size in sizes.items():
            self.specs |= {
                f"{name}.weight_ih_l0": ViewSpec(at_input + width + column, (3 * size, inputs), (1, width)),
                f"{name}.weight_hh_l0": ViewSpec(block, (3 * size, size), (1, 3 * size)),
                f"{name}.bias_ih_l0": ViewSpec(at_input + column, (3 * size,), (1,)),
                f"{name}.bias_hh_l0": ViewSpec(at_hidden + column, (3 * size,), (1,)),
            }
            column += 3 * size
            block += 3 * size * size
        return at_input, at_hidden

    def projections(self, name: str, sizes: Sequence[int], width: int) -> int:
        """The projections of a layer's experts below each other, then their biases; that of a skip is never set."""
        start = self.take((sum(sizes) + len(sizes)) * width)
        row, bias = start, start + sum(sizes) * width
        for expert, size in enumerate(sizes):
            if size > 0:
                self.specs[f"{name}.{expert}.projection.weight"] = ViewSpec(row, (width, size), (1, width))
                self.specs[f"{name}.{expert}.projection.bias"] = ViewSpec(bias, (width,), (1,))
            row += size * width
            bias += width
        return start

    def norm(self, name: str, width: int) -> int:
        """Weight, then bias."""
        start = self.take(2 * width)
        self.specs[f"{name}.weight"] = ViewSpec(start, (width,), (1,))
        self.specs[f"{name}.bias"] = ViewSpec(start + width, (width,), (1,))
        return start


@functools.lru_cache
def lay_out(shape: "PolicyShape") -> Layout:
    """Where everything of a policy lies in its flat array."""
    memory, sizes = _Allocator(), np.zeros((len(shape.layers), max(map(len, shape.layers))), np.int64)
    layers, at_input = np.zeros(len(shape.layers), LAYER), memory.input_projection(shape)
    first_unit = first_weight = 0
    for number, (num_router_units, *experts) in enumerate(shape.layers):
        layer, name = layers[number], f"moe_layers.{number}"
        sizes[number, : 1 + len(experts)] = num_router_units, *experts
        units = {f"{name}.router.gru" if experts else "gru": num_router_units}
        units |= {f"{name}.experts.{expert}.gru": size for expert, size in enumerate(experts) if size > 0}
        layer["at_input"], layer["at_hidden"] = memory.grus(units, shape.width)
        layer["first_unit"], layer["num_units"] = first_unit, sum(units.values())
        layer["first_weight"], layer["num_experts"] = first_weight, len(experts)
        first_unit, first_weight = first_unit + sum(units.values()), first_weight + len(experts)
        if experts:
            layer["at_router"] = memory.linear(f"{name}.router.fc", num_router_units, len(experts))
            layer["at_mix"] = memory.projections(f"{name}.experts", experts, shape.width)
            layer["at_norm"] = memory.norm(f"{name}.norm", shape.width) if shape.is_residual else 0
    is_baseline = len(shape.layers[-1]) == 1
    at_head = memory.linear("head", shape.layers[-1][0] if is_baseline else shape.width, shape.num_actions)
    return Layout(memory.end, memory.specs, layers, sizes, at_input, at_head)


def zeros(num_weights: int, dtype=np.float32) -> np.ndarray:
    """A flat array for weights that begins at a multiple of 64 bytes."""
    memory = np.zeros(num_weights * np.dtype(dtype).itemsize + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : len(memory) - 64 + start].view(dtype)
