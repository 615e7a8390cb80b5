"""Sums of products of small matrices, compiled: the arithmetic that takes most of the time.

A tile of the result, 4 rows by 16 columns, stays in the processor's registers while all its terms are added. Loops that
numba vectorises by itself load and store the result for every few terms, and take twice as long. Every sum adds its
terms in one order, so that a row does not depend on the rows beside it, bit for bit.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from mop.fast.compile_cache import kernel

_kernel = kernel(error_model="numpy", nogil=True)
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


_add_4_by_16, _add_4_by_1, _add_1_by_16, _add_1_by_1 = (_add_tile(r, c) for r in (4, 1) for c in (16, 1))


@_kernel
def _add_tiles(x, x_at, x_row, x_term, w, w_at, out, out_at, num_rows, num_terms, width):
    """`_add_tile` of any size; w and out have 2 axes."""
    w_row, out_row, whole_rows, whole_columns = w.shape[1], out.shape[1], num_rows // 4 * 4, width // 16 * 16
    for first in range(0, num_terms, _TERMS):
        terms, i, j, o = min(_TERMS, num_terms - first), x_at + first * x_term, w_at + first * w_row, out_at
        for column in range(0, whole_columns, 16):
            for n in range(0, whole_rows, 4):
                _add_4_by_16(
                    x, i + n * x_row, x_row, x_term, w, j + column, w_row, out, o + n * out_row + column, out_row, terms
                )
            for n in range(whole_rows, num_rows):
                _add_1_by_16(
                    x, i + n * x_row, x_row, x_term, w, j + column, w_row, out, o + n * out_row + column, out_row, terms
                )
        for column in range(whole_columns, width):
            for n in range(0, whole_rows, 4):
                _add_4_by_1(
                    x, i + n * x_row, x_row, x_term, w, j + column, w_row, out, o + n * out_row + column, out_row, terms
                )
            for n in range(whole_rows, num_rows):
                _add_1_by_1(
                    x, i + n * x_row, x_row, x_term, w, j + column, w_row, out, o + n * out_row + column, out_row, terms
                )


@_kernel
def add_product(x, at, weight, column, width, out, to):
    """out[:, to : to + width] += x[:, at : at + K] @ weight[:, column : column + width]; weight (K, ...)."""
    _add_tiles(x, at, x.shape[1], np.int64(1), weight, column, out, to, len(x), len(weight), width)


@_kernel
def add_transposed_product(x, at, y, column, width, out, to):
    """out[:, to : to + width] += x[:, at : at + K].T @ y[:, column : column + width]; out (K, ...)."""
    _add_tiles(x, at, np.int64(1), x.shape[1], y, column, out, to, len(out), len(x), width)
