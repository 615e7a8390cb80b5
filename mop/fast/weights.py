"""Where the parameters of a policy lie in one flat array, which kernels read and processes can share.

Matrices lie transposed, (inputs, outputs). The hidden units of a layer are the router's, then each expert's. Its gates
(3H) are r, z, n of the first of these GRUs, then r, z, n of the next, so that the matrices of a GRU are blocks as they
are. Axis letters as in `mixture_of_experts`.
"""

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mop.envs.geometry import CATEGORIES

if TYPE_CHECKING:
    from mop.fast.policy_step import PolicyShape


class ViewSpec(NamedTuple):
    """Where one parameter lies, in the shape that torch gives it; strides in numbers, not bytes."""

    start: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class LinearViews(NamedTuple):
    """Where the parameters of an `nn.Linear` or `nn.LayerNorm` lie, under the names that torch gives them."""

    weight: Any
    bias: Any


class CellViews(NamedTuple):
    """Where the embeddings of a cell's categories lie, an `nn.Linear` without bias."""

    weight: Any


class FilmViews(NamedTuple):
    """Where the parts of a `FilmProjection` lie, under the names of its modules."""

    cells: CellViews
    film: LinearViews
    features: LinearViews
    output: LinearViews


class GRUViews(NamedTuple):
    """Where the parameters of an `nn.GRU` of one layer lie, under torch's names without `_l0`."""

    weight_ih: Any
    weight_hh: Any
    bias_ih: Any
    bias_hh: Any


class LayerViews(NamedTuple):
    """Where the parts of a layer lie; the baseline's layer has one GRU and nothing else."""

    grus: tuple[GRUViews, ...]  # the router's, then those of the experts that are no skips
    router: LinearViews | None = None  # from the router's state to the logits of its weights
    projections: tuple[LinearViews, ...] = ()  # of the experts that are no skips
    norm: LinearViews | None = None  # of the residual block


class PolicyViews(NamedTuple):
    """Where all parameters lie; a `CompiledPolicy` has a view of the array instead of each `ViewSpec`."""

    input_projection: LinearViews | FilmViews
    layers: tuple[LayerViews, ...]
    head: LinearViews


LAYER = np.dtype(
    [(name, np.int64) for name in ("at_input", "at_hidden", "at_router", "at_mix", "at_norm")]
    + [(name, np.int64) for name in ("first_unit", "num_units", "first_weight", "num_experts")]
)  # at_*: index of the first weight of that part; units are columns of the hidden state, weights those of the routing


class Layout(NamedTuple):
    """What the kernels and the copying of parameters need to know of a flat array."""

    num_weights: int
    specs: PolicyViews
    layers: np.ndarray  # (L,) of LAYER
    sizes: np.ndarray  # (L, most experts + 1) int64: units of the router, then sizes of the experts
    at_input: np.ndarray  # int64, see `mop.fast.inputs`
    at_head: int


class _Allocator:
    """Gives out stretches of a flat array one after the other."""

    def __init__(self):
        self.end = 0

    def take(self, count: int) -> int:
        """The first index of the next `count` numbers, where a cache line begins: a product that does not begin on a
        line takes 1.4 times as long.
        """
        start = -(-self.end // 16) * 16
        self.end = start + count
        return start

    def linear(self, inputs: int, outputs: int) -> tuple[int, LinearViews]:
        """The bias, then the weight transposed: (inputs, outputs)."""
        start = self.take((1 + inputs) * outputs)
        weight = ViewSpec(start + outputs, (outputs, inputs), (1, outputs))
        return start, LinearViews(weight, ViewSpec(start, (outputs,), (1,)))

    def input_projection(self, shape: "PolicyShape") -> tuple[np.ndarray, LinearViews | FilmViews]:
        """A linear map, or the four parts of a FiLM projection."""
        if shape.film is None:
            at_output, output = self.linear(shape.num_inputs, shape.width)
            return np.array([at_output]), output
        num, num_features = shape.film
        at_cells = self.take(sum(CATEGORIES) * num)
        cells = CellViews(ViewSpec(at_cells, (num, sum(CATEGORIES)), (1, num)))
        at_film, film = self.linear(shape.lang_dim, 2 * num)
        at_features, features = self.linear(num, num_features)
        at_output, output = self.linear(shape.num_inputs, shape.width)
        at_input = np.array([at_cells, at_film, at_features, at_output, num, num_features])
        return at_input, FilmViews(cells, film, features, output)

    def grus(self, sizes: Sequence[int], inputs: int) -> tuple[int, int, tuple[GRUViews, ...]]:
        """GRUs side by side: all input biases, then one matrix of their input weights; all hidden biases, then the
        hidden matrix of each.
        """
        width = 3 * sum(sizes)
        at_input = self.take((1 + inputs) * width)
        at_hidden = self.take(width + sum(3 * size * size for size in sizes))
        specs, column, block = [], 0, at_hidden + width
        for size in sizes:
            weight_ih = ViewSpec(at_input + width + column, (3 * size, inputs), (1, width))
            weight_hh = ViewSpec(block, (3 * size, size), (1, 3 * size))
            biases = (ViewSpec(start + column, (3 * size,), (1,)) for start in (at_input, at_hidden))
            specs.append(GRUViews(weight_ih, weight_hh, *biases))
            column += 3 * size
            block += 3 * size * size
        return at_input, at_hidden, tuple(specs)

    def projections(self, sizes: Sequence[int], width: int) -> tuple[int, tuple[LinearViews, ...]]:
        """The projections of a layer's experts below each other, then their biases; that of a skip is never set."""
        start = self.take((sum(sizes) + len(sizes)) * width)
        specs, row, bias = [], start, start + sum(sizes) * width
        for size in sizes:
            if size > 0:
                specs.append(LinearViews(ViewSpec(row, (width, size), (1, width)), ViewSpec(bias, (width,), (1,))))
            row += size * width
            bias += width
        return start, tuple(specs)

    def norm(self, width: int) -> tuple[int, LinearViews]:
        """Weight, then bias."""
        start = self.take(2 * width)
        return start, LinearViews(ViewSpec(start, (width,), (1,)), ViewSpec(start + width, (width,), (1,)))


@functools.lru_cache
def lay_out(shape: "PolicyShape") -> Layout:
    """Where everything of a policy lies in its flat array."""
    memory, sizes = _Allocator(), np.zeros((len(shape.layers), max(map(len, shape.layers))), np.int64)
    layers, specs = np.zeros(len(shape.layers), LAYER), []
    at_input, input_projection = memory.input_projection(shape)
    first_unit = first_weight = 0
    for layer, row, (num_router_units, *experts) in zip(layers, sizes, shape.layers, strict=True):
        row[: 1 + len(experts)] = num_router_units, *experts
        units = [num_router_units, *(size for size in experts if size > 0)]
        layer["at_input"], layer["at_hidden"], grus = memory.grus(units, shape.width)
        layer["first_unit"], layer["num_units"] = first_unit, sum(units)
        layer["first_weight"], layer["num_experts"] = first_weight, len(experts)
        first_unit, first_weight = first_unit + sum(units), first_weight + len(experts)
        router = projections = norm = None
        if experts:
            layer["at_router"], router = memory.linear(num_router_units, len(experts))
            layer["at_mix"], projections = memory.projections(experts, shape.width)
        if experts and shape.is_residual:
            layer["at_norm"], norm = memory.norm(shape.width)
        specs.append(LayerViews(grus, router, projections or (), norm))
    is_baseline = len(shape.layers[-1]) == 1
    at_head, head = memory.linear(shape.layers[-1][0] if is_baseline else shape.width, shape.num_actions)
    all_specs = PolicyViews(input_projection, tuple(specs), head)
    return Layout(memory.end, all_specs, layers, sizes, at_input, at_head)


def make_views(specs, weights: np.ndarray):
    """The same nested structure with the array that each `ViewSpec` stands for, a view of `weights`."""
    if specs is None:
        return None
    if isinstance(specs, ViewSpec):
        size = weights.itemsize
        strides = tuple(size * stride for stride in specs.strides)
        return np.ndarray(specs.shape, weights.dtype, weights, specs.start * size, strides)
    parts = [make_views(part, weights) for part in specs]
    return tuple(parts) if type(specs) is tuple else type(specs)(*parts)


def zeros(num_weights: int, dtype=np.float32) -> np.ndarray:
    """A flat array for weights that begins at a multiple of 64 bytes."""
    memory = np.zeros(num_weights * np.dtype(dtype).itemsize + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : len(memory) - 64 + start].view(dtype)
