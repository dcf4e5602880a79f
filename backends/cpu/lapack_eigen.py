"""Kernels of eigenvalues: LAPACK over batches of symmetric, Hermitian and any matrices; see lapack.py."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from ...core.backend import Arg, Kernel, Operand, Program
from ...core.lower import copy
from ...core.types import DTYPES, DType, contiguous_strides
from .lapack import (
    _call,
    _chunks,
    _column_major,
    _count,
    _fix_signs,
    _info,
    _is_complex,
    _real,
    _refuse,
    _screen,
    _spoil,
)
from .routines import Argument, Array, area, matrices, query, routine


def _start(
    program: Program, x: Operand, dtype: DType, v: Operand | None, status: Operand
) -> tuple[Array, Operand, str] | None:
    """Status codes, a copy for the routine to work in, its letter for the vectors v; None without elements."""
    info = _info(program, status, _count(x))
    if x.size == 0:
        return None
    work = _column_major(program, x.shape, dtype)
    copy(program, x, work)
    return info, work, "N" if v is None else "V"


def _eigh(
    program: Program, x: Operand, w: Operand, v: Operand | None, status: Operand, triangle: str
) -> None:
    """Eigenvalues (and vectors) of symmetric and Hermitian matrices by divide and conquer."""
    items, n, dtype = _count(x), x.shape[-1], x.dtype
    begun = _start(program, x, dtype, v, status)
    if begun is None:
        return
    info, work, job = begun
    complex_ = _is_complex(dtype)
    found = routine("heevd" if complex_ else "syevd", dtype)
    more = ["rwork", -1] if complex_ else []
    asked = [job, triangle, n, None, n, None, "work", -1, *more, "iwork", -1, None]
    lengths = query(found, dtype, asked)
    chunks = _chunks(program, items, n, 9.0 * n**3)
    sizes = [dtype.itemsize, *([_real(dtype).itemsize] if complex_ else []), 8]
    rooms = [area(program, length * size, chunks) for length, size in zip(lengths, sizes)]
    program.wave()
    arguments: list[Argument] = [job, triangle, n, matrices(work), n, matrices(w, 1)]
    for room, length in zip(rooms, lengths):
        arguments += [room, length]
    _call(program, found, dtype, items, [*arguments, info], chunks, n)
    if v is not None:
        _fix_signs(program, work._replace(strides=(*work.strides[:-2], n, 1)))
        program.wave()
        copy(program, work, v)
    _spoil(program, info, items, *(o for o in (w, v) if o is not None))


def eigh_ex(program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, UPLO: str) -> None:
    """Eigenvalues in ascending order and eigenvectors."""
    w, v, status = outputs
    _eigh(program, inputs[0], w, v, status, UPLO)


def eigvalsh_ex(program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, UPLO: str) -> None:
    """Eigenvalues alone."""
    w, status = outputs
    _eigh(program, inputs[0], w, None, status, UPLO)


@functools.cache
def _pairs_source(char: str) -> str:
    return f"""# eigenvalues and eigenvectors of real matrices as complex numbers: {char}
def kernel(args, chunk, nchunks):
    re, im, vr, w, v, n, items = args[0], args[1], args[2], args[3], args[4], args[5], args[6]
    for item in range(share(items, chunk, nchunks), share(items, chunk + 1, nchunks)):
        second = False
        for j in range(n):
            at = item * n + j
            turn = load_{char}(im, at)
            store_{char}(w, 2 * at, load_{char}(re, at))
            store_{char}(w, 2 * at + 1, turn)
            if v == 0:
                continue
            # Two columns are the parts of a pair's vectors; rows of vr are columns. A matrix that failed may have left
            # anything: its last number may seem to begin a pair.
            pair = turn != 0 and (second or j + 1 < n)
            first, sign = (j - 1, -1) if pair and second else (j, 1)
            for i in range(n):
                t = 2 * ((item * n + i) * n + j)
                store_{char}(v, t, load_{char}(vr, (item * n + first) * n + i))
                part = load_{char}(vr, (item * n + first + 1) * n + i) * sign if pair else 0.0
                store_{char}(v, t + 1, part)
            second = pair and not second
"""


def _eig(program: Program, x: Operand, w: Operand, v: Operand | None, status: Operand) -> None:
    """Eigenvalues (and right eigenvectors) of any matrices: by the real routine for real ones."""
    items, n = _count(x), x.shape[-1]
    dtype = x.dtype if x.dtype.itemsize > 2 else DTYPES["float32"]
    begun = _start(program, x, dtype, v, status)
    if begun is None:
        return
    info, work, job = begun
    program.wave()
    refused = _screen(program, work, items)
    complex_ = _is_complex(dtype)
    found = routine("geev", dtype)
    asked = ["N", job, n, None, n, *[None] * (2 - complex_), None, 1, None, n]
    length = query(found, dtype, [*asked, "work", -1, *[None] * (1 + complex_)])[0]
    chunks = _chunks(program, items, n, 25.0 * n**3)
    room = area(program, length * dtype.itemsize, chunks)
    vectors = program.scratch_operand(dtype, (items, n, n if v is not None else 1))
    nothing = area(program, 16, 1)
    program.wave()
    ends: list[Argument]
    if complex_:
        more = area(program, 2 * n * _real(dtype).itemsize, chunks)
        ends, spectrum = [more, info], [matrices(w, 1)]
    else:
        parts = [program.scratch_operand(dtype, (items, n)) for _ in range(2)]
        ends, spectrum = [info], [matrices(p, 1) for p in parts]
    arguments: list[Argument] = ["N", job, n, matrices(work), n, *spectrum, nothing, 1, matrices(vectors), n]
    _call(program, found, dtype, items, [*arguments, room, length, *ends], chunks, n)
    program.wave()
    if not complex_:
        target: Arg = 0 if v is None else v.slot
        args = [parts[0].slot, parts[1].slot, vectors.slot, w.slot, target, n, items]
        program.launch(_pairs_source(dtype.char), args, program.chunks(items, items * n * n * 16))
    elif v is not None:
        shape = (*x.shape[:-2], n, n)
        turned = Operand(
            vectors.source, vectors.offset, dtype, shape, (*contiguous_strides(shape)[:-2], 1, n)
        )
        copy(program, turned, v)
    _refuse(program, refused, info, items)
    _spoil(program, info, items, *(o for o in (w, v) if o is not None))


def eig_unordered(program: Program, inputs: Sequence[Any], outputs: Sequence[Operand]) -> None:
    """Eigenvalues and right eigenvectors."""
    w, v, status = outputs
    _eig(program, inputs[0], w, v, status)


def eigvals_unordered(program: Program, inputs: Sequence[Any], outputs: Sequence[Operand]) -> None:
    """Eigenvalues alone."""
    w, status = outputs
    _eig(program, inputs[0], w, None, status)


KERNELS: dict[str, Kernel] = {
    "eig_unordered": eig_unordered,
    "eigvals_unordered": eigvals_unordered,
    "eigh_ex": eigh_ex,
    "eigvalsh_ex": eigvalsh_ex,
}
