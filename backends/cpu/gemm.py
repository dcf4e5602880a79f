"""Matrix products: panels of the right operand, blocks of the result by the microkernel, gemv.

The value of a result element depends on K and the dtype alone: each `depth` of k is one chain of fused
multiply-adds from zero, the chains are added in order (in a fixed number of pieces when K is long and the
result small). Tiles, chunks, threads and the size of the batch do not change a bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from ...core.adapt import in_order, is_narrow, widened
from ...core.backend import Arg, Epilogue, Operand, Program, takes_casts
from ...core.lower import copy
from ...core.numbers import estimate
from ...core.types import DType, Shape, TensorType, contiguous_strides, float32
from . import gemv
from .epilogue import FusedEpilogue, apply_after, fuse, halved, result_buffer, shared_output
from .gemm_integer import integer_product
from .gemm_text import PACKED, READ, group_line, group_rows, reads_rows, source
from .panels import (
    Block,
    batch_axes,
    block,
    fill_zero,
    limits,
    pack,
    pack_source,
    product_block,
    reading,
    sum_pieces,
    transpose,
)

#: A right operand of whole vectors is read in place up to this many bytes, or for so few rows: more when its own rows
#: do not fall into the same sets of the cache.
IN_PLACE_BYTES, IN_PLACE_ROWS, SPREAD_ROWS = 1 << 14, 64, 160
#: A task's columns, at most.
TASK_COLUMNS = 1024
#: Register blocks of rows that a task has at least where threads shall have as many tasks each.
EVEN_ROWS = 8
#: A task reads a left operand where it stands for so many columns, of up to READ_ROWS rows for more.
READ_COLUMNS, READ_COLUMNS_OF_FEW, READ_ROWS = 192, 512, 132
#: A result of few blocks of 64 x 64 is computed in pieces of K, up to PIECES blocks in all, of at least PIECE_UNITS
#: units.
PIECES, PIECE_UNITS = 32, 4


class Few(NamedTuple):
    """Products of fewer blocks and more units than these are computed in pieces."""

    blocks: int
    units: int


#: Where K is a batch, and where rows are one: there a product in pieces, which has no epilogue, would be other kernels
#: for another batch, so only what has no other parallelism is one.
OVER_BATCH, OF_ROWS = Few(PIECES, 2 * PIECE_UNITS), Few(4, 64)


_ENDLESS = 1 << 62


class Levels(NamedTuple):
    """Byte offsets of an index of three digits: (i0 * n1 + i1) * n2 + i2 -> i0 * s0 + i1 * s1 + i2 * s2."""

    n1: int
    n2: int
    s0: int
    s1: int
    s2: int


class Reduction(NamedTuple):
    """The summed index: `outer` x `inner`, cut into units of at most `depth` within an outer index."""

    outer: int
    inner: int
    depth: int

    @property
    def units(self) -> int:
        return self.outer * -(-self.inner // self.depth)


class Side(NamedTuple):
    """The right operand, in panels: steps in bytes by batch, outer index, unit, panel and k.

    column: bytes from column to column where tasks pack a panel before they multiply with it; 0: they read it in place.
    """

    operand: Operand
    batch: Sequence[int]
    outer: int
    unit: int
    panel: int
    step: int
    column: int = 0


class Left(NamedTuple):
    """The left operand: bytes by batch, outer index and unit, then the offsets of rows and of k in a unit.

    group: where it is packed, bytes from `group_rows` rows to the next, [k][row] each; the offsets are not read then.
    """

    operand: Operand
    batch: Sequence[int]
    outer: int
    unit: int
    rows: Levels
    ks: Levels
    group: int = 0

    @property
    def is_plain(self) -> bool:
        """Whether rows and k have one step each, and it is not packed already."""
        return not self.group and self.rows.n2 == self.ks.n2 == _ENDLESS


def product(
    program: Program,
    m: int,
    n: int,
    batch: Sequence[int],
    reduction: Reduction,
    a: Left,
    b: Side,
    out: Operand,
    fused: FusedEpilogue | None = None,
    transposed: Operand | None = None,
    tile: Block | None = None,
    out_step: int = 0,
    few: Few = OVER_BATCH,
    even: bool = False,
    aside: bool = False,
    counted: tuple[int, int, int] | None = None,
) -> None:
    """Append out[batch, i, j] = sum over the reduction of a * b. few: which products are computed in pieces.

    counted: rows, columns and batch that say so, where these are others.

    aside: whether only the epilogue reads the sums: they stand in working memory of the tasks, not in `out`.

    even: whether tasks are rather smaller than such that threads have unequal numbers of them.
    transposed: working memory for [batch, i, j]; out is [batch, j, i] then, with `out_step` elements a row.
    The caller has called `program.wave()` if operands were packed.
    """
    dtype, size = out.dtype, out.dtype.itemsize
    tile = tile or block(dtype)
    units = reduction.units
    matrices = math.prod(batch)
    pieces = piece_count(*(counted or (m, n, matrices)), units, few)
    whole = transposed._replace(shape=(matrices, m, n)) if transposed else out
    # Over a batch, what is in pieces where it is long is summed up where it is short, too: by the same kernels.
    summed = pieces > 1 or (few is OVER_BATCH and piece_count(m, n, matrices, few.units, few) > 1)
    c = program.scratch_operand(dtype, (pieces, matrices, m, n)) if summed else whole
    assert fused is None or c is out
    assert fused or not aside
    now = [estimate(x) for x in (m, n, pieces * matrices)]
    row_block, column_block = _task_shape(program, tile, now[0], now[1], now[2], even)
    tasks = pieces * matrices * -(-m // row_block) * -(-n // column_block)
    chunks = program.chunks(tasks, matrices * tile.work(m, n, reduction.outer * reduction.inner))
    deepest = min(reduction.depth, reduction.inner)
    # Where k are far apart, more than half a block of columns is enough.
    packed_columns = limits().packed_columns if a.ks.s2 == size else tile.width // 2 + 1
    read = reading(a.operand)
    halves = read[0] != dtype.char
    packs = a.is_plain and (halves or column_block >= packed_columns) and row_block >= tile.rows
    assert packs or not halves
    most = READ_COLUMNS if now[0] > READ_ROWS else READ_COLUMNS_OF_FEW
    reads = not halves and a.is_plain and a.ks.s2 == size and reads_rows(tile) and column_block <= most
    pitch = 8 * (row_block + tile.rows + deepest) + 64
    pitch += deepest * tile.width * size if b.column else 0
    groups = -(-row_block // group_rows(tile))
    way = READ if reads else PACKED if packs else 0
    pitch += groups * group_line(tile) * (deepest + 1) * size if way == PACKED else 0
    pitch = behind = -(-pitch // 64) * 64
    if aside:
        pitch += -(-row_block * column_block * size // 64) * 64
    table = program.scratch(chunks * pitch)
    args: list[Arg] = [m, n, row_block, column_block, *batch]
    args += [reduction.inner, reduction.depth, units, pieces]
    args += [a.operand.slot, *a.batch, a.outer, a.unit, *a.rows, *a.ks]
    args += [b.operand.slot, *b.batch, b.outer, b.unit, b.panel, b.step]
    args += [behind if aside else c.slot, matrices * m * n * size, table, pitch, way, a.group, b.column]
    if fused is not None:
        args += fused.slots()
    program.launch(source(dtype, tile, fused, read=read, aside=aside), args, chunks)
    if summed:
        program.wave()
        sum_pieces(program, c, whole)
    if transposed:
        program.wave()
        transpose(program, whole, out, tile.lanes, out_step)


def piece_count(m: int, n: int, batch: int, units: int, few: Few = OF_ROWS) -> int:
    """In how many pieces the reduction is computed side by side: a function of sizes only."""
    blocks = batch * -(-m // 64) * -(-n // 64)
    return min(units // PIECE_UNITS, PIECES // blocks) if blocks < few.blocks and units >= few.units else 1


def columns_alone(x: TensorType, y: TensorType) -> bool:
    """Whether x @ y, y a matrix, has the same bits in a column whatever columns stand beside it."""
    if not x.dtype.is_float or x.shape[-2] == 1 or y.shape[-1] == 1:
        return False  # products with vectors have an order of their own
    depth = product_block(x.dtype).depth
    return piece_count(math.prod(x.shape[:-1]), y.shape[-1], 1, -(-y.shape[0] // depth)) == 1


def _task_shape(
    program: Program, tile: Block, m: int, n: int, others: int, even: bool = False
) -> tuple[int, int]:
    """Rows and columns of a task: enough tasks for all threads, operands that fit a second-level cache."""
    rows, columns = -(-m // tile.rows), -(-n // tile.width)
    high, wide = -(-m // limits().task_rows), -(-n // TASK_COLUMNS)
    threads = program.backend.num_threads()
    wanted = 2 * threads if threads > 1 else 1  # one thread would pack an operand for each of its tasks
    while others * high * wide < wanted:
        tall, broad = -(-rows // high) * tile.rows, -(-columns // wide) * tile.width
        if broad > tile.width and broad > tall:
            wide *= 2
        elif tall > 4 * tile.rows:
            high *= 2
        elif broad > tile.width:
            wide *= 2
        else:
            break
    high, wide = min(high, rows), min(wide, columns)
    chunks = 2 * wanted
    if even and threads > 1 and others * wide * high < 4 * chunks:
        each = chunks // math.gcd(chunks, others * wide)
        more = -(-high // each) * each
        high = more if rows >= EVEN_ROWS * more else high
    return -(-rows // high) * tile.rows, -(-columns // wide) * tile.width


@takes_casts
def matmul(
    program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, epilogue: Epilogue | None = None
) -> None:
    """Append out = a @ b. a: [..., M, K], b: [..., K, N] of any strides, out: [..., M, N], one rank.

    16-bit floats are widened as they are packed, multiplied in float32, and sums rounded once, by an epilogue.
    """
    out = outputs[0]
    dtype = out.dtype.computed
    a, b = (_readable(program, x, dtype) for x in inputs)
    program.wave()
    if out.size == 0:
        return
    epilogue, out = halved(epilogue, out), out._replace(dtype=dtype)
    k = a.shape[-1]
    if k and a.dtype.is_float and not gemv.applies(a, b):
        _float(program, a, b, out, epilogue)
        return
    if epilogue is not None:
        out, _ = result_buffer(program, epilogue, out)
    if k == 0:
        fill_zero(program, out)
    elif not a.dtype.is_float:
        integer_product(program, a, b, out)
    else:
        gemv.gemv(program, a, b, out)
    if epilogue is not None:
        apply_after(program, epilogue, out)


def _readable(program: Program, x: Operand, dtype: DType) -> Operand:
    """x in the dtype of the product, or such that packing makes it so."""
    if dtype is float32 and is_narrow(x) and _is_packed_as_it_stands(x):
        return x
    x = widened(program, x)
    if x.dtype is not dtype:
        program.wave()
    return _converted(program, x, dtype)


def _is_packed_as_it_stands(x: Operand) -> bool:
    """Whether a 16-bit operand has neighbours in memory, and no other strides than a copy of it in order would have.

    Batches of other strides merge in other ways, and the sums of few rows have an order of their own.
    """
    rows, columns = x.strides[-2:]
    if 1 not in (rows, columns):
        return False
    flat = all(n == 1 for n in x.shape[:-2]) and 1 not in x.shape[-2:]
    if flat and rows > 0 and columns > 0:
        return True
    return x.strides == in_order(x)


def _converted(program: Program, x: Operand, dtype: DType) -> Operand:
    """x in the dtype of the result; axes that repeat the same memory are converted once."""
    if x.dtype is dtype:
        return x
    whole = tuple(1 if st == 0 else n for n, st in zip(x.shape, x.strides))
    with program.prepared(x):
        full = program.scratch_operand(dtype, whole)
        copy(program, x._replace(shape=whole), full)
    program.wave()
    strides = tuple(0 if st == 0 else new for st, new in zip(x.strides, full.strides))
    return full._replace(shape=x.shape, strides=strides)


def _collapse(a: Operand, b: Operand) -> tuple[Shape, int, int, Any]:
    """(batch shape, rows, row stride, batch strides of both); batch axes become rows where they can."""
    batch, m = list(a.shape[:-2]), a.shape[-2]
    a_strides, b_strides = list(a.strides[:-2]), list(b.strides[:-2])
    row = a.strides[-2] if m != 1 else 0
    while batch and (batch[-1] == 1 or b_strides[-1] == 0):
        if batch[-1] != 1:
            if m != 1 and a_strides[-1] != row * m:
                break
            row = a_strides[-1] if m == 1 else row
            m *= batch[-1]
        batch.pop()
        a_strides.pop()
        b_strides.pop()
    return tuple(batch), m, row, (a_strides, b_strides)


def _counted(a: Operand, b: Operand) -> tuple[int, int, int]:
    """Rows, columns and batch that say in how many pieces a product is: as if batch axes of which the right operand has
    none were rows, whether they can be or not, so that sums do not depend on how the left operand lies."""
    batch, m, strides = list(a.shape[:-2]), a.shape[-2], list(b.strides[:-2])
    while batch and (batch[-1] == 1 or strides[-1] == 0):
        m *= batch.pop()
        strides.pop()
    return m, b.shape[-1], math.prod(batch)


def _float(program: Program, a: Operand, b: Operand, out: Operand, epilogue: Epilogue | None) -> None:
    """Append the blocked product, with the epilogue."""
    dtype = out.dtype
    tile = product_block(dtype)
    k, n = a.shape[-1], b.shape[-1]
    shape, m, a_row, (a_strides, b_strides) = _collapse(a, b)
    sizes, (a_steps, b_steps) = batch_axes(shape, [a_strides, b_strides])
    reduction = Reduction(1, k, -(-k // -(-k // tile.depth)))
    counted = _counted(a, b)
    whole = len(sizes) <= 3 and piece_count(*counted, reduction.units) == 1
    fused, aside = None, False
    if epilogue is not None:
        place = shared_output(epilogue, out)
        fused = fuse(epilogue, sizes, m, n, dtype, place) if whole else None
        aside = fused is not None and place < 0
        out = out if aside else result_buffer(program, epilogue, out)[0]
    if len(sizes) > 3:
        _outer_batches(program, a, b, out)
    else:
        right = _right(program, b, m, sizes, b_steps, reduction.depth, tile)
        left = _left(program, a, m, a_row, sizes, a_steps, reduction.depth, tile)
        program.wave()
        product(
            program,
            m,
            n,
            sizes,
            reduction,
            left,
            right,
            out,
            fused,
            tile=tile,
            few=OF_ROWS,
            aside=aside,
            counted=counted,
        )
    if epilogue is not None and fused is None:
        apply_after(program, epilogue, out)


def _right(
    program: Program, b: Operand, m: int, sizes: list[int], steps: list[int], depth: int, tile: Block
) -> Side:
    """The right operand, packed into panels unless whole vectors of it can be read in place as fast."""
    size, (k, n), (k_stride, column) = b.dtype.computed.itemsize, b.shape[-2:], b.strides[-2:]
    plain = reading(b)[0] == b.dtype.computed.char
    row = tile.width * size
    few = SPREAD_ROWS if k_stride * size % 1024 else IN_PLACE_ROWS
    near, small = m <= few, k * n * size <= IN_PLACE_BYTES
    own = estimate(m) <= limits().own_rows and column and 1 in (column, k_stride)
    in_place = column == 1 and n % tile.lanes == 0 and (near or small)
    if plain and not program.steady(b) and (own or in_place):
        if not (in_place and small):
            program.provide(pack_source(b.dtype, tile.width, tile.lanes, tile.width))  # for more rows
        whole, step, taken = (
            depth * k_stride * size,
            tile.width * column * size,
            0 if in_place else column * size,
        )
        return Side(b, [s * size for s in steps], 0, whole, step, k_stride * size, taken)
    # A matrix shared by the whole batch is packed once.
    packed_sizes = [n if s else 1 for n, s in zip(sizes, steps)]
    with program.prepared(b):
        panels = pack(program, b, n, column, k, k_stride, packed_sizes, steps, tile.width, tile.lanes)
    return Side(
        panels, _steps(packed_sizes, math.prod(panels.shape[1:]) * size), 0, depth * row, k * row, row
    )


def _left(
    program: Program,
    a: Operand,
    m: int,
    row: int,
    sizes: list[int],
    steps: list[int],
    depth: int,
    tile: Block,
) -> Left:
    """The left operand, [m, k] with `row` between rows: packed beforehand where it stays the same."""
    each, k, k_step = a.dtype.itemsize, a.shape[-1], a.strides[-1] * a.dtype.itemsize
    if not program.steady(a) or m < tile.rows:
        return Left(a, [s * each for s in steps], 0, depth * k_step, _line(row * each), _line(k_step))
    packed_sizes, width = [n if s else 1 for n, s in zip(sizes, steps)], group_rows(tile)
    line = group_line(tile)
    with program.prepared(a):
        packed = pack(program, a, m, row, k, a.strides[-1], packed_sizes, steps, width, tile.lanes, line)
    size = a.dtype.computed.itemsize
    step = line * size
    batch = _steps(packed_sizes, math.prod(packed.shape[1:]) * size)
    return Left(packed, batch, 0, depth * step, _line(0), _line(0), k * step)


def _line(step: int) -> Levels:
    return Levels(_ENDLESS, _ENDLESS, 0, 0, step)


def _steps(sizes: Sequence[int], matrix: int) -> list[int]:
    """Bytes by batch axis in packed panels; 0 along an axis that was packed once."""
    steps = contiguous_strides(tuple(sizes))
    return [s * matrix if n > 1 else 0 for n, s in zip(sizes, steps)]


def _outer_batches(program: Program, a: Operand, b: Operand, out: Operand) -> None:
    """More than three batch axes that do not merge: one product per index of the first."""
    for i in range(out.shape[0]):
        part = [
            x._replace(
                offset=x.offset + i * x.strides[0] * x.dtype.itemsize,
                shape=x.shape[1:],
                strides=x.strides[1:],
            )
            for x in (a, b, out)
        ]
        _float(program, part[0], part[1], part[2], None)


KERNELS = {"matmul": matmul}
