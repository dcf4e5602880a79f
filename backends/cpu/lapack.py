"""Kernels of linear algebra: calls of LAPACK over batches of matrices, and the row-major work around them.

LAPACK's matrices are column-major: the memory of a row-major A is its transpose. Where an operation has a
mirror image (a triangle for the other, a solution from the right, a singular value decomposition with its sides
exchanged) that one is called, on the memory as it is; else matrices are copied with their axes swapped.
A matrix whose routine reports a failure is filled with NaN.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

from ...core.backend import Arg, Kernel, Operand, Program
from ...core.lower import copy, fill
from ...core.ops.matrices import NEARLY
from ...core.types import DTYPES, DType, Shape
from .routines import Argument, Array, Routine, area, call, matrices, query, routine

#: matrices of this many rows follow each other and the library uses its threads; smaller ones share out ours
SERIAL_ROWS = 1024


def _chunks(program: Program, items: int, rows: int, flops: float) -> int:
    return 1 if rows >= SERIAL_ROWS else program.chunks(items, items * (flops / 4 + 2000))


def _call(
    program: Program,
    found: Routine,
    dtype: DType,
    items: int,
    arguments: Sequence[Argument],
    chunks: int,
    rows: int,
) -> None:
    """Calls for matrices of `rows` rows."""
    call(program, found, dtype, items, arguments, chunks, threaded=rows >= SERIAL_ROWS)


def _count(x: Operand, axes: int = 2) -> int:
    return math.prod(x.shape[: len(x.shape) - axes])


def _is_complex(dtype: DType) -> bool:
    return dtype.kind == "complex"


def _real(dtype: DType) -> DType:
    return {"complex64": DTYPES["float32"], "complex128": DTYPES["float64"]}.get(dtype.name, dtype)


def _dense(program: Program, x: Operand, dtype: DType, batch: Shape, axes: int = 2) -> Operand:
    """x itself when it is contiguous and has the dtype and batch shape (or one item), else a copy that has."""
    own = x.shape[: len(x.shape) - axes]
    wanted = own if math.prod(own) == 1 else batch
    if x.is_contiguous and own == wanted and x.dtype is dtype:
        return x
    full = program.scratch_operand(dtype, (*wanted, *x.shape[len(x.shape) - axes :]))
    copy(program, x, full)
    return full


def _item(x: Operand, items: int, axes: int = 2) -> Array:
    """An array argument that stays in place when there is one matrix for all items."""
    found = matrices(x, axes)
    return found if _count(x, axes) == items else found._replace(step=0)


def _column_major(program: Program, shape: Shape, dtype: DType) -> Operand:
    """Scratch matrices of a shape whose columns are contiguous."""
    *batch, m, n = shape
    made = program.scratch_operand(dtype, (*batch, n, m))
    return made._replace(shape=shape, strides=(*made.strides[:-2], 1, m))


def _info(program: Program, out: Operand | None, items: int) -> Array:
    """The array of status codes, zero at first: a narrow code fills the low half."""
    if out is None:
        out = program.scratch_operand(DTYPES["int64"], (items,))
    fill(program, 0, out)
    return Array(out.slot, 8)


def _identity(program: Program, out: Operand) -> None:
    """Ones on the diagonal of square matrices, zeros elsewhere."""
    fill(program, 0, out)
    program.wave()
    n = out.shape[-1]
    diagonal = out._replace(shape=out.shape[:-1], strides=(*out.strides[:-2], n + 1))
    fill(program, 1, diagonal)


@functools.cache
def _spoil_source(char: str) -> str:
    nan = f"bits_{char}({0x7FC00000 if char == 'f32' else 0x7FF8000000000000})"
    return f"""# NaN where a routine failed
def kernel(args, chunk, nchunks):
    info, x, items, size = args[0], args[1], args[2], args[3]
    for item in range(items):
        if load_i64(info, item) != 0:
            for k in range(size):
                store_{char}(x, item * size + k, {nan})
"""


def _spoil(program: Program, info: Array, items: int, *outs: Operand) -> None:
    """Fill the results of failed items with NaN."""
    program.wave()
    for x in outs:
        if x.size:
            real = _real(x.dtype)
            size = x.size // items * (x.dtype.itemsize // real.itemsize)
            program.launch(_spoil_source(real.char), [info.slot, x.slot, items, size])


@functools.cache
def _screen_source(char: str) -> str:
    return f"""# zeros in the place of matrices with NaN or infinity: {char}
def kernel(args, chunk, nchunks):
    x, bad, items, size = args[0], args[1], args[2], args[3]
    for item in range(share(items, chunk, nchunks), share(items, chunk + 1, nchunks)):
        total = load_{char}(x, item * size) * 0
        for k in range(1, size):
            total += load_{char}(x, item * size + k) * 0
        if total == 0:
            store_i64(bad, item, 0)
        else:
            store_i64(bad, item, 1)
            for k in range(size):
                store_{char}(x, item * size + k, 0.0)
"""


_REFUSE = """# a status for the matrices that were refused
def kernel(args, chunk, nchunks):
    bad, info, items = args[0], args[1], args[2]
    for item in range(items):
        if load_i64(bad, item) != 0:
            store_i64(info, item, 1)
"""


def _screen(program: Program, work: Operand, items: int) -> Operand:
    """Which matrices are not finite, int64[items]: LAPACK would print of NaN, and iterate for ever on infinities."""
    bad = program.scratch_operand(DTYPES["int64"], (items,))
    real = _real(work.dtype)
    size = work.size // items * (work.dtype.itemsize // real.itemsize)
    program.launch(
        _screen_source(real.char), [work.slot, bad.slot, items, size], program.chunks(items, work.size * 8)
    )
    return bad


def _refuse(program: Program, bad: Operand, info: Array, items: int) -> None:
    """A status for the matrices that `_screen` found, once the routine has written its own."""
    program.wave()
    program.launch(_REFUSE, [bad.slot, info.slot, items])


@functools.cache
def _sign_source(char: str, words: int) -> str:
    real = f"types.{'float32' if char == 'f32' else 'float64'}"
    parts = lambda x, at: [f"load_{char}({x}, {words} * ({at}) + {k})" for k in range(words)]
    square = " + ".join(f"{p} * {p}" for p in parts("x", "at + i"))
    # Of components whose squares are nearly equal the first one counts as the largest.
    if words == 1:
        phase = f"""
            re = {real}(1)
            if {parts("x", "pick")[0]} < 0:
                re = -re"""
        turn = lambda x, at, sign: f"store_{char}({x}, {at}, re * {parts(x, at)[0]})"
    else:
        a, b = parts("x", "pick")
        phase = f"""
            re, im = {a}, {b}
            scale = {real}(1 / (re * re + im * im) ** 0.5)
            re, im = re * scale, im * scale"""
        turn = lambda x, at, sign: (
            f"""a, b = {parts(x, at)[0]}, {parts(x, at)[1]}
                store_{char}({x}, 2 * ({at}), a * re - {sign} * b * im)
                store_{char}({x}, 2 * ({at}) + 1, b * re + {sign} * a * im)"""
        )
    return f"""# vectors turned so that the largest component of each is real and positive
def kernel(args, chunk, nchunks):
    x, y, items, count, size = args[0], args[1], args[2], args[3], args[4]
    pairs, rows, columns = args[5], args[6], args[7]
    for item in range(share(items, chunk, nchunks), share(items, chunk + 1, nchunks)):
        for j in range(count):
            at = (item * count + j) * size
            best = {real}(0)
            for i in range(size):
                best = max(best, {square})
            best = best * {real}({NEARLY})
            pick = at
            for k in range(size):
                i = size - 1 - k
                if {square} >= best:
                    pick = at + i{phase}
            for i in range(size):
                {turn("x", "at + i", f"{real}(-1)")}
            if j < pairs:
                for i in range(rows):
                    at_y = (item * rows + i) * columns + j
                    {turn("y", "at_y", f"{real}(1)").replace(chr(10), chr(10) + "    ")}
"""


def _fix_signs(program: Program, x: Operand, y: Operand | None = None) -> None:
    """Turn vectors that lie one after the other, and the first columns of y against them."""
    items, (count, size) = _count(x), x.shape[-2:]
    real = _real(x.dtype)
    source = _sign_source(real.char, x.dtype.itemsize // real.itemsize)
    rows, columns = (0, 0) if y is None else y.shape[-2:]
    chunks = program.chunks(items, 4.0 * items * count * size)
    program.wave()
    program.launch(
        source, [x.slot, (y or x).slot, items, count, size, min(count, columns), rows, columns], chunks
    )


@functools.cache
def _triangle_source(char: str, words: int) -> str:
    return f"""# zeros on one side of the diagonal
def kernel(args, chunk, nchunks):
    x, items, rows, columns, upper = args[0], args[1], args[2], args[3], args[4]
    for item in range(share(items, chunk, nchunks), share(items, chunk + 1, nchunks)):
        for i in range(rows):
            first, last = i + 1, columns
            if upper != 0:
                first, last = 0, min(i, columns)
            at = (item * rows + i) * columns
            for j in range({words} * first, {words} * last):
                store_{char}(x, {words} * at + j, types.{"float32" if char == "f32" else "float64"}(0))
"""


def _keep_triangle(program: Program, x: Operand, upper: bool) -> None:
    """Zero what is below (above) the diagonal of contiguous matrices."""
    real = _real(x.dtype)
    items = _count(x)
    source = _triangle_source(real.char, x.dtype.itemsize // real.itemsize)
    program.launch(source, [x.slot, items, *x.shape[-2:], int(upper)], program.chunks(items, x.size * 4))


# ---------------------------------------------------------------- triangles


def cholesky_ex(program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, upper: bool) -> None:
    """L of x = L L^H in place of a copy of x: the lower triangle is LAPACK's upper one."""
    (x,), (out, status) = inputs, outputs
    items, n = _count(x), x.shape[-1]
    info = _info(program, status, items)
    if out.size == 0:
        return
    copy(program, x, out)
    program.wave()
    chunks = _chunks(program, items, n, n**3 / 3)
    arguments = ["L" if upper else "U", n, matrices(out), n, info]
    _call(program, routine("potrf", x.dtype), x.dtype, items, arguments, chunks, n)
    program.wave()
    _keep_triangle(program, out, upper)
    _spoil(program, info, items, out)


def _trsm(
    program: Program, a: Operand, x: Operand, lower: bool, left: bool, unit: bool, adjoint: bool
) -> None:
    """x becomes the solution y of op(a) y = x, or of y op(a) = x. a: contiguous; x: contiguous, of all items."""
    items, n = _count(x), a.shape[-1]
    p, q = x.shape[-2:]
    # a's memory is the transpose of a, x's memory the transpose of x: sides and triangles change over.
    triangle, diagonal = "U" if lower else "L", "U" if unit else "N"
    turned = "C" if _is_complex(x.dtype) else "T"
    rows = min(p, q)
    chunks = _chunks(program, items, rows, float(n * p * q))
    matrix, target = _item(a, items), matrices(x)
    if left and q == 1 and not (adjoint and _is_complex(x.dtype)):
        arguments: list[Argument] = [triangle, "N" if adjoint else "T", diagonal, n, matrix, n, target, 1]
        _call(program, routine("trsv", x.dtype), x.dtype, items, arguments, chunks, rows)
        return
    side, height, width = ("R", q, n) if left else ("L", n, p)
    arguments = [side, triangle, turned if adjoint else "N", diagonal, height, width, 1.0, matrix, n]
    _call(program, routine("trsm", x.dtype), x.dtype, items, [*arguments, target, height], chunks, rows)


def solve_triangular(
    program: Program,
    inputs: Sequence[Any],
    outputs: Sequence[Operand],
    *,
    upper: bool,
    left: bool,
    unitriangular: bool,
    adjoint: bool,
) -> None:
    """The solution in place of a copy of b."""
    a, b = inputs
    out = outputs[0]
    if out.size == 0:
        return
    copy(program, b, out)
    a = _dense(program, a, out.dtype, out.shape[:-2])
    program.wave()
    _trsm(program, a, out, not upper, left, unitriangular, adjoint)


# ---------------------------------------------------------------- LU


@functools.cache
def _swap_source(char: str, words: int) -> str:
    return f"""# exchanges of rows
def kernel(args, chunk, nchunks):
    x, pivots, items, rows, columns = args[0], args[1], args[2], args[3], args[4]
    count, step, backwards = args[5], args[6], args[7]
    for item in range(share(items, chunk, nchunks), share(items, chunk + 1, nchunks)):
        for k in range(count):
            i = count - 1 - k if backwards != 0 else k
            j = types.int64(load_i32(pivots, item * step + i)) - 1
            if i != j and 0 <= j < rows:
                a = (item * rows + i) * columns * {words}
                b = (item * rows + j) * columns * {words}
                for c in range(columns * {words}):
                    held = load_{char}(x, a + c)
                    store_{char}(x, a + c, load_{char}(x, b + c))
                    store_{char}(x, b + c, held)
"""


def _swap(program: Program, x: Operand, pivots: Operand, backwards: bool) -> None:
    """Exchange row i of every matrix with row pivots[i] - 1, in order or backwards; pivots: dense."""
    real = _real(x.dtype)
    items, count = _count(x), pivots.shape[-1]
    step = count if _count(pivots, 1) == items else 0
    source = _swap_source(real.char, x.dtype.itemsize // real.itemsize)
    arguments: list[Arg] = [x.slot, pivots.slot, items, *x.shape[-2:], count, step, int(backwards)]
    program.launch(source, arguments, program.chunks(items, x.size * 8))


def permute_rows(
    program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, inverse: bool
) -> None:
    """The exchanges on a copy of x."""
    x, pivots = inputs
    out = outputs[0]
    if out.size == 0:
        return
    copy(program, x, out)
    pivots = _dense(program, pivots, pivots.dtype, out.shape[:-2], axes=1)
    program.wave()
    _swap(program, out, pivots, inverse)


def lu_factor_ex(program: Program, inputs: Sequence[Any], outputs: Sequence[Operand]) -> None:
    """LAPACK's packed LU with partial pivoting, by way of a column-major copy."""
    x = inputs[0]
    lu, pivots, status = outputs
    items, (m, n) = _count(x), x.shape[-2:]
    info = _info(program, status, items)
    if x.size == 0:
        return
    work = _column_major(program, x.shape, x.dtype)
    copy(program, x, work)
    program.wave()
    found = routine("getrf", x.dtype)
    whole = program.scratch_operand(DTYPES["int64" if found.wide else "int32"], pivots.shape)
    chunks = _chunks(program, items, min(m, n), m * n * min(m, n) * 2 / 3)
    arguments = [m, n, matrices(work), m, matrices(whole, 1), info]
    _call(program, found, x.dtype, items, arguments, chunks, min(m, n))
    program.wave()
    copy(program, work, lu)
    copy(program, whole, pivots)


def solve_with(program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, adjoint: bool) -> None:
    """Exchanges and two triangular solutions in place of a copy of b."""
    _, b, lu, pivots = inputs
    out = outputs[0]
    if out.size == 0:
        return
    copy(program, b, out)
    batch = out.shape[:-2]
    lu, pivots = _dense(program, lu, lu.dtype, batch), _dense(program, pivots, pivots.dtype, batch, axes=1)
    program.wave()
    steps = [
        lambda: _swap(program, out, pivots, adjoint),
        lambda: _trsm(program, lu, out, True, True, True, adjoint),
        lambda: _trsm(program, lu, out, False, True, False, adjoint),
    ]
    for step in reversed(steps) if adjoint else steps:
        step()
        program.wave()


# ---------------------------------------------------------------- orthogonal factors


def qr(program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, mode: str) -> None:
    """Householder's R, then Q from the reflectors; column-major copies on the way."""
    (x,), (q, r) = inputs, outputs
    items, (m, n), dtype = _count(x), x.shape[-2:], x.dtype
    k, columns = min(m, n), q.shape[-1]
    if items == 0 or k == 0:
        if q.size:
            _identity(program, q)
        return
    work = _column_major(program, x.shape, dtype)
    copy(program, x, work)
    info = _info(program, None, items)
    tau = matrices(program.scratch_operand(dtype, (items, k)), 1)
    factor = routine("geqrf", dtype)
    expand = routine("ungqr" if _is_complex(dtype) else "orgqr", dtype)
    sizes = query(factor, dtype, [m, n, None, m, None, "work", -1, None])
    sizes += query(expand, dtype, [m, columns, k, None, m, None, "work", -1, None])
    chunks = _chunks(program, items, k, 2.0 * m * n * k)
    length = max(*sizes, 1)
    room = area(program, length * dtype.itemsize, chunks)
    program.wave()
    _call(program, factor, dtype, items, [m, n, matrices(work), m, tau, room, length, info], chunks, k)
    program.wave()
    rows = r.shape[-2]
    if rows == m:
        copy(program, work, r)
    else:
        copy(program, work._replace(shape=(*work.shape[:-2], rows, n)), r)
    full = work
    if columns > n:  # complete: room for more columns than x has
        full = _column_major(program, q.shape, dtype)
        copy(program, work, full._replace(shape=work.shape))
    program.wave()
    _keep_triangle(program, r, True)
    target = Array(full.slot, m * full.shape[-1] * dtype.itemsize)
    _call(program, expand, dtype, items, [m, columns, k, target, m, tau, room, length, info], chunks, k)
    program.wave()
    copy(program, full._replace(shape=q.shape), q)


KERNELS: dict[str, Kernel] = {
    "cholesky_ex": cholesky_ex,
    "lu_factor_ex": lu_factor_ex,
    "permute_rows": permute_rows,
    "qr": qr,
    "solve_triangular": solve_triangular,
    "solve_with": solve_with,
}
