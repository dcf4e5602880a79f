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
from .target import target


class Block(NamedTuple):
    """A register block: `rows` x (`vectors` * `lanes`) sums; at most `depth` of k make one chain."""

    rows: int
    vectors: int
    lanes: int
    depth: int

    @property
    def width(self) -> int:
        return self.vectors * self.lanes

    def work(self, rows: int, columns: int, k: int) -> float:
        """The cost of a product as `Program.chunks` counts it: whole blocks, each with work of its own."""
        blocks = -(-rows // self.rows) * -(-columns // self.width)
        return blocks * self.rows * self.width * (k + 16) / 2


# Bits of a vector register and how many there are -> rows and vectors: AVX-512, AVX2, NEON, SSE. The sums, the vectors
# of a line of the panel and one element of the left operand fill the registers.
_SHAPES = {(512, 32): (8, 2), (256, 16): (4, 3), (128, 32): (8, 3), (128, 16): (4, 2)}
_DEPTH = 256


def vectors() -> tuple[int, int]:
    """Bits of a vector register of the CPU that kernels are compiled for, and how many there are."""
    cpu = target()
    return cpu.vector_bits, cpu.registers


@functools.cache
def _block(dtype: DType, bits: int, registers: int) -> Block:
    rows, count = _SHAPES[bits, registers]
    return Block(rows, count, bits // 8 // dtype.itemsize, _DEPTH)


def block(dtype: DType) -> Block:
    """The register block of float32 or float64 for the CPU that kernels are compiled for."""
    return _block(dtype, *vectors())


def product_block(dtype: DType) -> Block:
    """The register block of matrix products.

    Where 32 long registers hold it, a wide one: fewer loads for each multiply-add. A panel of it for `depth` of k stays
    in the first-level cache.
    """
    tile = block(dtype)
    if vectors()[0] == 512:
        return tile._replace(rows=6, vectors=4, depth=128)
    return narrow(tile)


def narrow(tile: Block) -> Block:
    """In 256-bit vectors the block whose width divides what is common: as fast as 4 x 3, with no columns left over."""
    return tile._replace(rows=6, vectors=2) if vectors() == (256, 16) else tile


class Limits(NamedTuple):
    """Of products.

    task_rows: a task's rows; own_rows: up to so many, tasks pack their panels of a right operand; packed_columns: of so
    many, a task packs its block of a left operand whose k are neighbours.
    """

    task_rows: int
    own_rows: int
    packed_columns: int


def limits() -> Limits:
    """What suits the second-level cache: it is smaller where registers are short, and packing a smaller part there."""
    return Limits(258, 0, 192) if vectors()[0] == 512 else Limits(132, 132, 64)


def reading(x: Operand) -> tuple[str, int]:
    """What an operand is read from, as intrinsics of packing name it (`vectors.READ_AS`), and bytes of an element."""
    char = x.dtype.char
    return f"{char}_{x.rounded.char}" if x.rounded else char, x.dtype.itemsize


IMPORT = "from duograd.backends.cpu.microkernel import *\nfrom duograd.backends.cpu.packing import *\n"


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
def pack_source(dtype: DType, width: int, lanes: int, line: int, read: tuple[str, int] | None = None) -> str:
    """Kernel: a batch of strided matrices [columns, k] into panels of `width` columns, `line` elements from k to k.

    dtype: of the panels; read: what the matrices are (`reading`), where that is another.

    Slots: matrices, panels, columns, depth (all k), column step, k step (bytes), batch sizes n0 n1 n2, batch
    steps s0 s1 s2 (bytes), k per item, vectors in a panel (a slot, or LLVM would unroll), batch steps and the panel's
    step in `panels` (lines). An item is (matrix, panel, block of k).
    """
    char, size = dtype.char, dtype.itemsize
    held, row = min(lanes, line), line * size
    kind, each = read or (char, size)
    # A 16-bit operand has columns or k that are neighbours.
    apart = f"""            else:
                gather_lanes_{kind}(
                    there, {row}, here, k_step, column_step, count, {held}, 0, length, {lanes}
                )
"""
    return f"""# pack {char} panels of {width}
{IMPORT}
def kernel(args, chunk, nchunks):
    src, dst, columns, depth, column_step, k_step = args[0], args[1], args[2], args[3], args[4], args[5]
    n0, n1, n2, s0, s1, s2 = args[6], args[7], args[8], args[9], args[10], args[11]
    k_block, vectors, t0, t1, t2, panel_step = args[12], args[13], args[14], args[15], args[16], args[17]
    panels = (columns + {width - 1}) // {width}
    blocks = (depth + k_block - 1) // k_block
    items = n0 * n1 * n2 * panels * blocks
    for item in range(items * chunk // nchunks, items * (chunk + 1) // nchunks):
        k = item % blocks * k_block
        panel = item // blocks % panels
        matrix = item // (blocks * panels)
        count = min(k_block, depth - k)
        i0, i1, i2 = matrix // (n1 * n2), matrix // n2 % n1, matrix % n2
        at = src + i0 * s0 + i1 * s1 + i2 * s2 + k * k_step
        to = dst + (i0 * t0 + i1 * t1 + i2 * t2 + panel * panel_step + k) * {row}
        if column_step == {each}:
            # Whole lines of memory, one k after the other.
            copy_panel_{kind}(
                to, {row}, at + panel * {width * each}, k_step, count, min({width}, columns - panel * {width}),
                {line // held}, {held},
            )
            continue
        for vector in range(vectors):
            column = panel * {width} + vector * {held}
            length = max(0, min({held}, min({width}, columns - panel * {width}) - vector * {held}))
            here = at + column * column_step
            there = to + vector * {held * size}
            if length == 0:
                copy_lanes_{char}(there, {row}, here, k_step, count, {held}, 0, length, {lanes})
            {"else:" if each == 2 else f"elif k_step == {each}:"}
                for kk in range(0, count, {lanes}):
                    transpose_lanes_{kind}(
                        there + kk * {row}, {row}, here + kk * {each}, column_step,
                        length, min({lanes}, count - kk), {held}, {lanes},
                    )
{apart if each != 2 else ""}"""


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
    line: int = 0,
    joined: int = -1,
) -> Operand:
    """Append the packing of a batch (three axes) of matrices [columns, depth]; strides in elements.

    joined: a batch axis whose matrices follow each other in k. Returns: the panels, shape [batch, panels, depth, line],
    where a line is as long as a panel is wide, or longer; [other batch axes, panels, joined, depth, line].
    """
    dtype, (kind, each) = x.dtype.computed, reading(x)
    size, line = dtype.itemsize, line or width
    panels = -(-columns // width)
    panel = depth * (batch[joined] if joined >= 0 else 1)
    matrices = math.prod(n for axis, n in enumerate(batch) if axis != joined)
    out = program.scratch_operand(dtype, (matrices, panels, panel, line))
    steps, step = [0, 0, 0], panels * panel
    for axis in (2, 1, 0):
        steps[axis] = depth if axis == joined else step
        step *= 1 if axis == joined else batch[axis]
    k_block = min(depth, 256)
    args: list[Arg] = [x.slot, out.slot, columns, depth, column_stride * each, k_stride * each]
    args += [*batch, *(s * each for s in batch_strides), k_block, line // min(lanes, line), *steps, panel]
    items = math.prod(batch) * panels * -(-depth // k_block)
    read = (kind, each) if kind != dtype.char else None
    text = pack_source(dtype, width, lanes, line, read)
    program.launch(text, args, program.chunks(items, 2.0 * out.size * size))
    return out


@functools.cache
def _sum_source(dtype: DType) -> str:
    """Kernel: out[i] = sum over z of pieces[z, i], in order. Slots: pieces, out, their number, elements."""
    char = dtype.char
    return f"""# sum pieces {char}
def kernel(args, chunk, nchunks):
    pieces, out, count, items = args[0], args[1], args[2], args[3]
    first, last = items * chunk // nchunks, items * (chunk + 1) // nchunks
    # Runs that stay in the first-level cache while the pieces are added to them.
    while first < last:
        end = min(first + 1024, last)
        for i in range(first, end):
            store_{char}(out, i, load_{char}(pieces, i))
        for z in range(1, count):
            for i in range(first, end):
                store_{char}(out, i, load_{char}(out, i) + load_{char}(pieces, z * items + i))
        first = end
"""


@functools.cache
def _transpose_source(dtype: DType, lanes: int) -> str:
    """Kernel: out[b, j, i] = x[b, i, j]. Slots: x, out, matrices, rows, columns, out's pitch.

    An item is `lanes` rows.
    """
    char, size = dtype.char, dtype.itemsize
    return f"""# transpose {char}
{IMPORT}
def kernel(args, chunk, nchunks):
    x, out, matrices, rows, columns, pitch = args[0], args[1], args[2], args[3], args[4], args[5]
    strips = (rows + {lanes - 1}) // {lanes}
    items = matrices * strips
    for item in range(items * chunk // nchunks, items * (chunk + 1) // nchunks):
        matrix, i = item // strips, item % strips * {lanes}
        count = min({lanes}, rows - i)
        here, there = x + (matrix * rows + i) * columns * {size}, out + (matrix * columns * pitch + i) * {size}
        for j in range(0, columns, {lanes}):
            transpose_lanes_{char}(
                there + j * pitch * {size}, pitch * {size}, here + j * {size},
                columns * {size}, count, min({lanes}, columns - j), count, {lanes},
            )
"""


def sum_pieces(program: Program, pieces: Operand, out: Operand) -> None:
    """Append out = pieces.sum(0), first to last, for contiguous pieces [Z, *out.shape]."""
    count, items = pieces.shape[0], out.size
    args: list[Arg] = [pieces.slot, out.slot, count, items]
    work = float(items * (count + 1) * out.dtype.itemsize)
    program.launch(_sum_source(out.dtype), args, program.chunks(max(1, items // 64), work))


def transpose(program: Program, x: Operand, out: Operand, lanes: int, pitch: int = 0) -> None:
    """Append out[b, j, i] = x[b, i, j] for contiguous x [B, I, J] and out, whose rows may be `pitch` apart."""
    matrices, rows, columns = x.shape
    args: list[Arg] = [x.slot, out.slot, matrices, rows, columns, pitch or rows]
    chunks = program.chunks(matrices * -(-rows // lanes), 2.0 * x.size * x.dtype.itemsize)
    program.launch(_transpose_source(x.dtype, lanes), args, chunks)


def fill_zero(program: Program, out: Operand) -> None:
    """Append out = 0, for sums over nothing."""
    from ...core.lower import fill

    fill(program, 0, out._replace(strides=contiguous_strides(out.shape)))
