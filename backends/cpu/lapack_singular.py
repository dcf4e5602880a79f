"""Kernels of singular values: LAPACK over batches of matrices; see lapack.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...core.backend import Kernel, Operand, Program
from ...core.lower import copy
from .lapack import (
    _call,
    _chunks,
    _count,
    _fix_signs,
    _identity,
    _info,
    _is_complex,
    _real,
    _refuse,
    _screen,
    _spoil,
    qr,
)  # fmt: skip
from .routines import Argument, Array, area, matrices, query, routine


def _svd(program: Program, x: Operand, u: Any, s: Operand, vh: Any, status: Operand) -> None:
    """Singular values, with the sides exchanged: x's memory is V S U^T. u, vh: None for values only."""
    items, (m, n), dtype = _count(x), x.shape[-2:], x.dtype
    k = min(m, n)
    info = _info(program, status, items)
    if items == 0 or k == 0:
        for side in (u, vh):
            if side is not None and side.size:
                _identity(program, side)
        return
    work = program.scratch_operand(dtype, x.shape)
    copy(program, x, work)
    program.wave()
    refused = _screen(program, work, items)
    job = "N" if u is None else "S"
    steps = n, 1 if u is None else k
    found = routine("gesdd", dtype)
    complex_ = _is_complex(dtype)
    extra = [None] if complex_ else []
    asked = [job, n, m, None, n, None, None, steps[0], None, steps[1], "work", -1, *extra, None, None]
    length = query(found, dtype, asked)[0]
    chunks = _chunks(program, items, k, 8.0 * m * n * k)
    room = area(program, length * dtype.itemsize, chunks)
    whole = area(program, 8 * 8 * k, chunks)
    more = []
    if complex_:
        large = max(m, n)
        count = 7 * k if u is None else max(5 * k * k + 5 * k, 2 * large * k + 2 * k * k + k)
        more = [area(program, count * _real(dtype).itemsize, chunks)]
    nothing = area(program, 8, 1)
    left, right = (nothing, nothing) if u is None else (matrices(vh), matrices(u))
    program.wave()
    arguments: list[Argument] = [
        job,
        n,
        m,
        matrices(work),
        n,
        matrices(s, 1),
        left,
        steps[0],
        right,
        steps[1],
        room,
        length,
    ]
    _call(program, found, dtype, items, [*arguments, *more, whole, info], chunks, k)
    if u is not None:
        _fix_signs(program, vh, u)
    _refuse(program, refused, info, items)
    _spoil(program, info, items, *(o for o in (u, s, vh) if o is not None))


def svd_ex(
    program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, full_matrices: bool
) -> None:
    """U, S and V^H by divide and conquer; vectors without a singular value by the reflections of the others."""
    (x,), (u, s, vh, status) = inputs, outputs
    *batch, m, n = x.shape
    k = min(m, n)
    if x.size == 0 or k == u.shape[-1] == vh.shape[-2]:
        _svd(program, x, u, s, vh, status)
        return
    left = program.scratch_operand(x.dtype, (*batch, m, k)) if m > n else u
    right = vh if m > n else program.scratch_operand(x.dtype, (*batch, k, n))
    _svd(program, x, left, s, right, status)
    program.wave()
    if m > n:
        _complete(program, left, u)
    else:
        _complete(program, _turned(right), _turned(vh))
    _spoil(program, Array(status.slot, 8), _count(x), u, vh)


def _turned(x: Operand) -> Operand:
    *batch, m, n = x.shape
    *steps, a, b = x.strides
    return x._replace(shape=(*batch, n, m), strides=(*steps, b, a))


def _complete(program: Program, x: Operand, out: Operand) -> None:
    """Orthonormal columns x and, from the reflections that give them, the others of a basis."""
    *batch, m, k = x.shape
    q, r = (program.scratch_operand(x.dtype, (*batch, m, n)) for n in (m, k))
    qr(program, [x], [q, r], mode="complete")
    program.wave()
    past = lambda o: o._replace(
        offset=o.offset + k * o.strides[-1] * o.dtype.itemsize, shape=(*batch, m, m - k)
    )
    copy(program, x, out._replace(shape=x.shape))
    copy(program, past(q), past(out))


def svdvals_ex(program: Program, inputs: Sequence[Any], outputs: Sequence[Operand]) -> None:
    """Singular values alone."""
    s, status = outputs
    _svd(program, inputs[0], None, s, None, status)


KERNELS: dict[str, Kernel] = {"svd_ex": svd_ex, "svdvals_ex": svdvals_ex}
