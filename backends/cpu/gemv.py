"""Matrix times vector: bound by memory, so nothing is packed and every element is read once.

A matrix [rows, k] with contiguous k gives dot products, one row at a time in `DOT_VECTORS` vectors of partial
sums; one with contiguous rows adds up scaled columns, many rows in registers. The order of the sums depends
on K, the dtype and which of the two it is.
"""

from __future__ import annotations

import functools
import math

from ...core.adapt import copied, widened
from ...core.backend import Arg, Operand, Program
from ...core.lower import copy
from .panels import IMPORT, batch_axes, block, reading, sum_pieces
from .target import has_masked_memory

_COLUMN_VECTORS = 8
_DOT_VECTORS = 4
#: k per pass over the columns: few lines of the matrix are read side by side
_DEPTH = 16
#: K of one piece when there are too few rows to share between threads
_PIECE = 16384
#: bytes from which a matrix is read line by line, in pieces of k
_LARGE = 1 << 20


def applies(a: Operand, b: Operand) -> bool:
    """Whether a @ b is a product with a vector that this kernel takes."""
    for matrix, vector, row, k in ((b, a, -1, -2), (a, b, -2, -1)):
        if vector.shape[-2 if vector is a else -1] == 1 and _contiguous(matrix, row, k):
            return True
    return False


def _contiguous(x: Operand, row: int, k: int) -> bool:
    return 1 in (x.strides[row], x.strides[k]) or x.shape[row] == 1


@functools.cache
def _source(char: str, size: int, lanes: int, kind: str, each: int) -> str:
    """The kernel. kind, each: what the matrix is (`reading`), which is widened or rounded as it is read."""
    width = _COLUMN_VECTORS * lanes
    shape = f"1, {_COLUMN_VECTORS}, {lanes}"
    return f"""# gemv {kind}
{IMPORT}
def kernel(args, chunk, nchunks):
    rows, depth, pieces, piece_length, row_block = args[0], args[1], args[2], args[3], args[4]
    n0, n1, n2 = args[5], args[6], args[7]
    a, a0, a1, a2, a_row, a_k = args[8], args[9], args[10], args[11], args[12], args[13]
    x, x0, x1, x2 = args[14], args[15], args[16], args[17]
    c, c_piece = args[18], args[19]
    row_tasks = (rows + row_block - 1) // row_block
    table = stack({8 * (1 + _DEPTH)})
    if a_k != {each}:
        # Offsets for the block product, whose left operand is the vector: one row, k after k.
        store_i64(table, 0, 0)
        for k in range({_DEPTH}):
            store_i64(table, 1 + k, k * {size})
    items = n0 * n1 * n2 * pieces * row_tasks
    for item in range(items * chunk // nchunks, items * (chunk + 1) // nchunks):
        row = item % row_tasks * row_block
        piece = item // row_tasks % pieces
        batch = item // row_tasks // pieces
        i0, i1, i2 = batch // (n1 * n2), batch // n2 % n1, batch % n2
        first = piece * piece_length
        count = min(piece_length, depth - first)
        block_rows = min(row_block, rows - row)
        at = a + i0 * a0 + i1 * a1 + i2 * a2 + row * a_row + first * a_k
        vector = x + i0 * x0 + i1 * x1 + i2 * x2 + first * {size}
        to = c + piece * c_piece + (batch * rows + row) * {size}
        if a_k == {each}:
            dot_rows_{kind}(to, at, a_row, block_rows, vector, count, {_DOT_VECTORS}, {lanes})
        else:
            for k in range(0, count, {_DEPTH}):
                for j in range(0, block_rows, {width}):
                    multiply_{kind}(
                        min({_DEPTH}, count - k), vector + k * {size}, table, table + 8,
                        at + k * a_k + j * {each}, a_k, to + j * {size}, 0,
                        1, min({width}, block_rows - j), k, {shape},
                    )
"""


def gemv(program: Program, a: Operand, b: Operand, out: Operand) -> None:
    """Append out = a @ b where a has one row or b one column (see `applies`).

    16-bit floats of the matrix are widened in registers, where that is as fast as without; the vector before.
    """
    dtype, size = out.dtype, out.dtype.itemsize
    lanes = block(dtype).lanes
    if a.shape[-2] == 1 and _contiguous(b, -1, -2):
        matrix, vector, row, k, vector_k = b, a, -1, -2, -1
    else:
        matrix, vector, row, k, vector_k = a, b, -2, -1, -2
    by_rows = matrix is b
    vector = widened(program, vector)
    if not has_masked_memory():
        matrix = widened(program, matrix)
    elif matrix.rounded is not None and program.steady(matrix):
        matrix = copied(program, matrix, matrix.rounded)  # kept in 16 bits: half of what is read
    program.wave()
    depth, rows = matrix.shape[k], matrix.shape[row]
    if depth > 1 and vector.strides[vector_k] != 1:
        dense = program.scratch_operand(dtype, vector.shape)
        copy(program, vector, dense)
        program.wave()
        vector = dense
    sizes, (steps, vector_steps) = batch_axes(a.shape[:-2], [matrix.strides[:-2], vector.strides[:-2]])
    if len(sizes) > 3:
        for i in range(out.shape[0]):
            parts = [
                x._replace(
                    offset=x.offset + i * x.strides[0] * x.dtype.itemsize,
                    shape=x.shape[1:],
                    strides=x.strides[1:],
                )
                for x in (matrix, vector, out)
            ]
            gemv(program, parts[by_rows], parts[not by_rows], parts[2])
        return
    row_step, k_step = matrix.strides[row], matrix.strides[k]
    if depth == 1:
        # One product for each element: of rows that lie side by side many at once, as scaled columns.
        k_step = rows if row_step == 1 and rows > 1 else 1
    if rows == 1 and k_step != 1:
        row_step = 1
    by_dots = k_step == 1
    batches = math.prod(sizes)
    width = _COLUMN_VECTORS * lanes
    pieces, row_block = 1, 16 if by_dots else 4 * width
    if by_dots and batches * rows < 64:
        pieces = min(32, -(-depth // _PIECE))
    elif not by_dots and batches * rows * depth * size > _LARGE:
        # Whole lines of the matrix, so that memory is read in order.
        pieces, row_block = max(1, min(32, depth // 64)), 32 * width
    length = -(-depth // pieces)
    pieces = -(-depth // length)
    c = program.scratch_operand(dtype, (pieces, batches, rows)) if pieces > 1 else out
    items = batches * pieces * -(-rows // row_block)
    chunks = program.chunks(items, 1.0 * batches * rows * depth * size)
    args: list[Arg] = [rows, depth, pieces, length, row_block, *sizes]
    kind, each = reading(matrix)
    args += [matrix.slot, *(s * each for s in steps), row_step * each, k_step * each]
    args += [vector.slot, *(s * size for s in vector_steps)]
    args += [c.slot, batches * rows * size]
    program.launch(_source(dtype.char, size, lanes, kind, each), args, chunks)
    if pieces > 1:
        program.wave()
        sum_pieces(program, c, out)
