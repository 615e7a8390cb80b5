"""Sums of products of small matrices, and linear maps, compiled: the arithmetic that takes most of the time.

A tile of the result, 4 rows by 16 columns, stays in the processor's registers while all its terms are added. Loops that
numba vectorises by itself load and store the result for every few terms, and take twice as long. Every sum adds its
terms in one order, so that a row does not depend on the rows beside it, bit for bit.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from mop.fast.compile_cache import kernel

# contract: a product and the sum it goes into are one instruction, in every loop alike. error_model numpy: x / 0 is no
# exception, so that loops with a division can be vectorised. Loops run over slices that begin at 0, because numba
# vectorises no others. Rows are copied by loops, which compile seconds faster than `a[i] = b`. Zeros that are arguments
# are np.int64(0), because numba compiles a function anew for a constant.
OPTIONS: Any = {"error_model": "numpy", "nogil": True, "fastmath": {"contract"}}
_kernel = kernel(error_model="numpy", nogil=True)
_kernel_of_maps = kernel(**OPTIONS)
_TERMS = 64  # at a time: as many rows of a weight stay in the first cache


def _add_tile(num_rows: int, num_columns: int):
    """An intrinsic: out[o + r R + c] += sum over k of x[i + r S + k U] w[j + k V + c], r < num_rows, c < num_columns.

    Its arguments: x, i, S, U, w, j, V, out, o, R, how many k. The arrays are contiguous; indices are those of the flat
    array, and are not checked.
    """

    def generate(context, builder, signature, arguments):
        x, w, out = (context.make_array(signature.args[i])(context, builder, arguments[i]).data for i in (0, 4, 7))
        _, x_at, x_row, x_term, _, w_at, w_term, _, out_at, out_row, num_terms = arguments
        scalar = signature.args[7].dtype
        vector = ir.VectorType(context.get_data_type(scalar), num_columns)
        align, nothing = scalar.bitwidth // 8, ir.Constant(vector, ir.Undefined)
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), num_columns), [0] * num_columns)

        def index(start, step, count):
            return builder.add(start, builder.mul(step, count))

        def vector_at(data, start):
            return builder.bitcast(builder.gep(data, [start]), vector.as_pointer())

        def repeated(number):
            return builder.shuffle_vector(
                builder.insert_element(nothing, number, ir.Constant(ir.IntType(32), 0)), nothing, lanes
            )

        rows = [ir.Constant(num_terms.type, row) for row in range(num_rows)]
        places = [vector_at(out, index(out_at, out_row, row)) for row in rows]
        sums = [cgutils.alloca_once_value(builder, builder.load(place, align=align)) for place in places]
        starts = [index(x_at, x_row, row) for row in rows]
        with cgutils.for_range(builder, num_terms) as loop:
            factors = builder.load(vector_at(w, index(w_at, w_term, loop.index)), align=align)
            for start, total in zip(starts, sums, strict=True):
                number = builder.load(builder.gep(x, [index(start, x_term, loop.index)]))
                product = builder.fmul(repeated(number), factors, flags=("contract",))  # one instruction with the sum
                builder.store(builder.fadd(builder.load(total), product, flags=("contract",)), total)
        for place, total in zip(places, sums, strict=True):
            builder.store(builder.load(total), place, align=align)
        return context.get_dummy_value()

    @intrinsic
    def add_tile(typing, x, i, s, u, w, j, v, out, o, r, num_terms):
        n = types.intp
        return types.void(x, n, n, n, w, n, n, out, n, n, n), generate

    return add_tile


_add_4_by_16, _add_4_by_8, _add_4_by_1 = (_add_tile(4, columns) for columns in (16, 8, 1))
_add_1_by_16, _add_1_by_8, _add_1_by_1 = (_add_tile(1, columns) for columns in (16, 8, 1))


@_kernel
def _add_tiles(x, x_at, x_row, x_term, w, w_at, out, out_at, num_rows, num_terms, width):
    """`_add_tile` of any size; w and out have 2 axes."""
    w_row, out_row, whole_rows, whole_columns = w.shape[1], out.shape[1], num_rows // 4 * 4, width // 16 * 16
    for first in range(0, num_terms, _TERMS):
        terms, i, at = min(_TERMS, num_terms - first), x_at + first * x_term, w_at + first * w_row
        for column in range(0, whole_columns, 16):
            j, o = at + column, out_at + column
            for n in range(0, whole_rows, 4):
                _add_4_by_16(x, i + n * x_row, x_row, x_term, w, j, w_row, out, o + n * out_row, out_row, terms)
            for n in range(whole_rows, num_rows):
                _add_1_by_16(x, i + n * x_row, x_row, x_term, w, j, w_row, out, o + n * out_row, out_row, terms)
        if width - whole_columns >= 8:
            j, o = at + whole_columns, out_at + whole_columns
            for n in range(0, whole_rows, 4):
                _add_4_by_8(x, i + n * x_row, x_row, x_term, w, j, w_row, out, o + n * out_row, out_row, terms)
            for n in range(whole_rows, num_rows):
                _add_1_by_8(x, i + n * x_row, x_row, x_term, w, j, w_row, out, o + n * out_row, out_row, terms)
        for column in range(width // 8 * 8, width):
            j, o = at + column, out_at + column
            for n in range(0, whole_rows, 4):
                _add_4_by_1(x, i + n * x_row, x_row, x_term, w, j, w_row, out, o + n * out_row, out_row, terms)
            for n in range(whole_rows, num_rows):
                _add_1_by_1(x, i + n * x_row, x_row, x_term, w, j, w_row, out, o + n * out_row, out_row, terms)


@_kernel
def add_product(x, at, weight, column, width, out, to):
    """out[:, to : to + width] += x[:, at : at + K] @ weight[:, column : column + width]; weight (K, ...)."""
    _add_tiles(x, at, x.shape[1], np.int64(1), weight, column, out, to, len(x), len(weight), width)


@_kernel
def add_transposed_product(x, at, y, column, width, out, to):
    """out[:, to : to + width] += x[:, at : at + K].T @ y[:, column : column + width]; out (K, ...)."""
    _add_tiles(x, at, np.int64(1), x.shape[1], y, column, out, to, len(out), len(x), width)


@_kernel_of_maps
def linear(weights, at, x, x_at, num_terms, out, out_at, width):
    """Columns of out (N, ...) become bias + columns of x (N, ...) @ weight.

    At `at` lie the bias (width,), then the weight (num_terms, width).
    """
    bias = weights[at:]
    for n in range(len(out)):
        y = out[n, out_at:]
        for j in range(width):
            y[j] = bias[j]
    start = at + width
    block = weights[start : start + num_terms * width].reshape(num_terms, width)
    add_product(x, x_at, block, np.int64(0), width, out, out_at)


@_kernel_of_maps
def transposed(x, first, num_columns):
    """(num_columns, M) of columns of x (M, ...), from `first` on."""
    out = np.empty((num_columns, len(x)), x.dtype)
    for start in range(0, len(x), 16):  # so many that their lines stay in the first cache
        stop = min(start + 16, len(x))
        for k in range(num_columns):
            row = out[k]
            for n in range(start, stop):
                row[n] = x[n, first + k]
    return out


@_kernel_of_maps
def add_gradient(x, first, grad_out, grad):
    """The gradient of out = bias + columns of x (M, ...) @ weight is added to grad (1 + K, J); grad_out (M, J)."""
    bias, zero = grad[0], np.int64(0)
    for n in range(len(grad_out)):
        row = grad_out[n]
        for j in range(len(bias)):
            bias[j] += row[j]
    add_transposed_product(x, first, grad_out, zero, grad_out.shape[1], grad[1:], zero)


@_kernel_of_maps
def linear_forward(matrix, x, out):
    """out (M, J) = bias + x (M, K) @ weight; matrix (1 + K, J)."""
    zero = np.int64(0)
    linear(matrix.reshape(-1), zero, x, zero, x.shape[1], out, zero, out.shape[1])


@_kernel_of_maps
def linear_backward(matrix, x, grad_out, grad_matrix, grad_x):
    """The gradient of `linear_forward`, added to grad_matrix and grad_x."""
    zero = np.int64(0)
    add_gradient(x, zero, grad_out, grad_matrix)
    add_product(grad_out, zero, transposed(matrix[1:], zero, matrix.shape[1]), zero, x.shape[1], grad_x, zero)
