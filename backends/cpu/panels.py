"""Register blocks by CPU, and the movement of data around the microkernel: packing panels, summing pieces.

A panel holds a block's width of columns for every k: `panel[k][width]`, zero beyond the matrix. Panels of one
matrix stand one after another, `[batch][panel][k][width]`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

from ...core.backend import Arg, Operand, Program
from ...core.types import DType, Shape, contiguous_strides


class Block(NamedTuple):
    """A register block: `rows` x (`vectors` * `lanes`) sums; at most `depth` of k make one chain of additions."""

    rows: int
    vectors: int
    lanes: int
    depth: int

    @property
    def width(self) -> int:
        return self.vectors * self.lanes


# Bits of a vector register -> rows and vectors: 32 registers of AVX-512 and NEON, 16 of AVX2 and SSE.
_SHAPES = {512: (8, 2), 256: (4, 3), 128: (8, 2)}
_SSE_SHAPE = (4, 2)
_DEPTH = 256


@functools.cache
def _vector_bits() -> int:
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    return 512 if features.get("avx512f") else 256 if features.get("avx2") else 128


@functools.cache
def block(dtype: DType, bits: int = 0) -> Block:
    """The register block of float32 or float64 for this CPU, or for vectors of `bits`."""
    import llvmlite.binding as llvm

    bits = bits or _vector_bits()
    rows, vectors = _SHAPES[bits]
    if bits == 128 and llvm.get_process_triple().startswith("x86"):
        rows, vectors = _SSE_SHAPE
    return Block(rows, vectors, bits // 8 // dtype.itemsize, _DEPTH)


IMPORT = "from duograd.backends.cpu.microkernel import *\n"


def batch_axes(shape: Shape, strides: Sequence[Sequence[int]]) -> tuple[list[int], list[list[int]]]:
    """Batch axes merged where all operands allow it, filled up to three: sizes, then strides by operand."""
    sizes: list[int] = []
    merged: list[list[int]] = [[] for _ in strides]
    for axis, n in enumerate(shape):
        if n == 1:
            continue
        if sizes and all(m[-1] == s[axis] * n for m, s in zip(merged, strides)):
            sizes[-1] *= n
            for m, s in zip(merged, strides):
                m[-1] = s[axis]
        else:
            sizes.append(n)
            for m, s in zip(merged, strides):
                m.append(s[axis])
    missing = max(0, 3 - len(sizes))
    return [1] * missing + sizes, [[0] * missing + m for m in merged]


@functools.cache
def pack_source(dtype: DType, width: int, lanes: int) -> str:
    """Kernel: a batch of strided matrices [columns, k] into panels of `width` columns.

    Slots: matrices, panels, columns, depth (all k), column step, k step (bytes), batch sizes n0 n1 n2, batch
    steps s0 s1 s2 (bytes), k per item. An item is (matrix, panel, block of k).
    """
    char, size = dtype.char, dtype.itemsize
    lanes = min(lanes, width)
    row = width * size
    return f"""# pack {char} panels of {width}
{IMPORT}
def kernel(args, chunk, nchunks):
    src, dst, columns, depth, column_step, k_step = args[0], args[1], args[2], args[3], args[4], args[5]
    n0, n1, n2, s0, s1, s2, k_block = args[6], args[7], args[8], args[9], args[10], args[11], args[12]
    panels = (columns + {width - 1}) // {width}
    blocks = (depth + k_block - 1) // k_block
    items = n0 * n1 * n2 * panels * blocks
    for item in range(items * chunk // nchunks, items * (chunk + 1) // nchunks):
        k = item % blocks * k_block
        panel = item // blocks % panels
        matrix = item // (blocks * panels)
        count = min(k_block, depth - k)
        at = src + matrix // (n1 * n2) * s0 + matrix // n2 % n1 * s1 + matrix % n2 * s2 + k * k_step
        to = dst + ((matrix * panels + panel) * depth + k) * {row}
        for first in range(0, {width}, {lanes}):
            column = panel * {width} + first
            length = min({lanes}, columns - column)
            here = at + column * column_step
            there = to + first * {size}
            if length <= 0:
                copy_lanes_{char}(there, {row}, here, 0, count, {lanes}, 0, 0, {lanes})
            elif column_step == {size}:
                copy_lanes_{char}(there, {row}, here, k_step, count, {lanes}, 0, length, {lanes})
            elif k_step == {size}:
                for kk in range(0, count, {lanes}):
                    transpose_lanes_{char}(
                        there + kk * {row}, {row}, here + kk * {size}, column_step,
                        length, min({lanes}, count - kk), {lanes},
                    )
            else:
                gather_lanes_{char}(
                    there, {row}, here, k_step, column_step, count, {lanes}, 0, length, {lanes}
                )
"""


def pack(
    program: Program,
    x: Operand,
    columns: int,
    column_stride: int,
    depth: int,
    k_stride: int,
    batch: Sequence[int],
    batch_strides: Sequence[int],
    width: int,
    lanes: int,
) -> Operand:
    """Append the packing of a batch (three axes) of matrices [columns, depth]; strides in elements.

    Returns: the panels, shape [batch, panels, depth, width].
    """
    size = x.dtype.itemsize
    panels = -(-columns // width)
    out = program.scratch_operand(x.dtype, (math.prod(batch), panels, depth, width))
    k_block = min(depth, 256)
    args: list[Arg] = [x.slot, out.slot, columns, depth, column_stride * size, k_stride * size]
    args += [*batch, *(s * size for s in batch_strides), k_block]
    items = math.prod(batch) * panels * -(-depth // k_block)
    program.launch(pack_source(x.dtype, width, lanes), args, program.chunks(items, 2.0 * out.size * size))
    return out


@functools.cache
def sum_pieces_source(dtype: DType) -> str:
    """Kernel: out[i, j] = sum over z of pieces[z, i, j], z ascending.

    Slots: pieces, out, number of pieces, rows, columns, piece step, row step of pieces, row and column steps
    of out (elements).
    """
    char = dtype.char
    return f"""# sum pieces {char}
def kernel(args, chunk, nchunks):
    pieces, out, count, rows, columns = args[0], args[1], args[2], args[3], args[4]
    piece_step, step, out_row, out_column = args[5], args[6], args[7], args[8]
    items = rows * columns
    first, last = items * chunk // nchunks, items * (chunk + 1) // nchunks
    # An item is an element in the order of out's memory: column by column when out is stored transposed.
    while first < last:
        if out_column == 1:
            i, j = first // columns, first % columns
            run = min(last - first, columns - j)
            at, stride = i * step + j, 1
        else:
            i, j = first % rows, first // rows
            run = min(last - first, rows - i)
            at, stride = i * step + j, step
        to = i * out_row + j * out_column
        if stride == 1:
            for e in range(run):
                store_out_{char}(out, to + e, load_in_{char}(pieces, at + e), 0)
            for z in range(1, count):
                for e in range(run):
                    total = load_{char}(out, to + e) + load_{char}(pieces, z * piece_step + at + e)
                    store_{char}(out, to + e, total)
        else:
            for e in range(run):
                total = load_{char}(pieces, at + e * stride)
                for z in range(1, count):
                    total += load_{char}(pieces, z * piece_step + at + e * stride)
                store_{char}(out, to + e * out_row, total)
        first += run
"""


def sum_pieces(program: Program, pieces: Operand, out: Operand, transposed: bool = False) -> None:
    """Append out = pieces.sum(0), ascending. pieces: [Z, I, J]; out: [I, J], or [J, I] when transposed."""
    count, rows, columns = pieces.shape
    strides = (1, rows) if transposed else (columns, 1)
    args: list[Arg] = [pieces.slot, out.slot, count, rows, columns, *pieces.strides[:2], *strides]
    items = rows * columns
    work = float(items * (count + 1) * out.dtype.itemsize)
    program.launch(sum_pieces_source(out.dtype), args, program.chunks(max(1, items // 64), work))


def fill_zero(program: Program, out: Operand) -> None:
    """Append out = 0, for sums over nothing."""
    from ...core.lower import fill

    fill(program, 0, out._replace(strides=contiguous_strides(out.shape)))
