"""Eigenvalues and eigenvectors of any square matrices by QR steps, for exporters to formats that have no such op.

A matrix becomes Hessenberg's form by reflections; then steps with Wilkinson's shift drive the elements below the
diagonal to 0, from the end of each matrix of the batch to its beginning, until the last one is triangular (Schur's
form). All is complex, whatever the matrix is. Kernels never run these. Source: LAPACK lahqr, trevc.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import types as T
from ..op import REGISTRY as ops
from . import elementwise as E
from .creation import arange, full
from .einsum import diagonal_of_last as diagonal
from .linalg import matmul
from .matrices import adjoint, conjugate, identity, offsets, real_dtype, upper
from .picking import take
from .reduction import max_, sum_
from .rotation_steps import _failed, _magnitude, _real, _scaled, _status
from .shape import broadcast_to, concat, expand_dims, slice_

#: steps for one eigenvalue, as LAPACK's (and for ten more); after every tenth without success another shift is tried
_STEPS, _STUCK = 30, 10


def _places(n: Any) -> Any:
    return arange(n, dtype=T.int64)


def _wide(x: Any, *axes: int) -> Any:
    for axis in axes:
        x = expand_dims(x, axis=axis)
    return x


def _hessenberg(h: Any, q: Any) -> tuple[Any, Any]:
    """`(h, q)` with zeros below the first diagonal under the main one, `q h q^H` as before."""
    from ..control import scan

    n = h.shape[-1]
    places = _places(n)

    def step(carry: Any, k: Any) -> Any:
        h, q = carry
        v = E.where(E.greater(places, k), take(h, k, axis=h.ndim - 1), 0)
        first = _wide(take(v, k + 1, axis=v.ndim - 1), -1)
        rest = sum_(E.where(E.greater(places, k + 1), _magnitude(v), 0), axis=-1, keepdims=True)
        size = E.abs_(first)
        length = E.sqrt(size * size + rest)
        none = E.equal(rest, 0)  # nothing to turn
        phase = E.where(E.equal(size, 0), 1, first / E.where(E.equal(size, 0), 1, size))
        u = E.where(E.equal(places, k + 1), v + phase * length, v)
        c = _wide(E.where(none, 0, 1 / E.where(none, 1, length * (length + size))), -1)
        column, row = _wide(u, -1), _wide(conjugate(u), -2)
        h = h - column * (c * matmul(row, h))
        return (h - matmul(h, column) * (c * row), q - matmul(q, column) * (c * row)), None

    return scan(step, (h, q), arange(max(n - 2, 0), dtype=T.int64))[0]


def _deflated(h: Any) -> tuple[Any, Any]:
    """h with 0 for what is rounding below the diagonal, and which rows [..., n] still have something there."""
    size = E.abs_(diagonal(h))
    n = h.shape[-1]
    after = slice_(size, index=(..., slice(1, None)))
    below = slice_(h, index=(..., slice(1, None), slice(0, n - 1)))
    near = after + slice_(size, index=(..., slice(0, n - 1)))
    near = E.where(E.equal(near, 0), max_(size, axis=-1, keepdims=True), near)
    small = E.less_equal(E.abs_(diagonal(below)), near * float(np.finfo(real_dtype(h.dtype).np).eps))
    live = E.logical_not(small)
    live = concat([full((*live.shape[:-1], 1), False, dtype=T.bool_, device=h.device), live], axis=-1)
    gone = E.logical_and(E.equal(offsets(h), -1), E.logical_not(_wide(live, -1)))
    return E.where(gone, 0, h), live


def _element(h: Any, row: Any, column: Any) -> Any:
    """The element of each matrix in its row and column."""
    places = _places(h.shape[-1])
    here = E.logical_and(
        E.equal(_wide(places, -1), _wide(row, -1, -1)), E.equal(places, _wide(column, -1, -1))
    )
    return sum_(E.where(here, h, 0), axis=(-2, -1))


def _shift(h: Any, end: Any, stuck: Any) -> Any:
    """The eigenvalue of the last two rows and columns of the block that is nearer to its last element."""
    before = E.maximum(end - 1, 0)
    a, b, c, d = (_element(h, i, j) for i in (before, end) for j in (before, end))
    half = (a - d) * 0.5
    root = E.sqrt(half * half + b * c)
    root = E.where(E.less(_real(conjugate(half) * root), 0), -root, root)
    sum_of = half + root
    none = E.equal(sum_of, 0)
    usual = d - E.where(none, 0, b * c / E.where(none, 1, sum_of))
    return E.where(E.equal(E.remainder(stuck, _STUCK), _STUCK - 1), d + E.abs_(c) * 0.75, usual)


def _schur(x: Any) -> tuple[Any, Any, Any]:
    """`(t, q, rows)`: triangular t and unitary q with `x = q t q^H`; rows: which did not converge, bool[..., n]."""
    from ..control import while_loop

    n = x.shape[-1]
    unit = identity(n, x)
    places = _places(n)
    h, q = _hessenberg(x, broadcast_to(unit, shape=x.shape) + 0)
    h, live = _deflated(h)

    def turn(carry: Any) -> Any:
        count, stuck, last, h, q, live = carry
        end = max_(E.where(live, places, 0), axis=-1)
        joined = E.logical_and(E.logical_not(live), E.less_equal(places, _wide(end, -1)))
        begin = max_(E.where(joined, places, 0), axis=-1)
        stuck = E.where(E.equal(end, last), stuck + 1, 0)
        inside = E.logical_and(
            E.greater_equal(places, _wide(begin, -1)), E.less_equal(places, _wide(end, -1))
        )
        inside = E.logical_and(inside, _wide(E.greater(end, 0), -1))
        block = E.logical_and(_wide(inside, -1), _wide(inside, -2))
        factor, _ = ops["qr"](
            E.where(block, h - unit * _wide(_shift(h, end, stuck), -1, -1), unit), mode="reduced"
        )
        h = upper(matmul(matmul(adjoint(factor), h), factor), -1)
        h, live = _deflated(h)
        return count + 1, stuck, end, h, matmul(q, factor), live

    none = full(x.shape[:-2], 0, dtype=T.int64, device=x.device)
    start = full((), 0, dtype=T.int64, device=x.device), none, none, h, q, live
    goes = lambda c: E.logical_and(E.less(c[0], _STEPS * (n + 10)), ops["any"](c[5]))
    _, _, _, h, q, live = while_loop(goes, turn, start)
    return upper(h), q, live


def _of_triangular(t: Any) -> Any:
    """Eigenvectors of upper triangular matrices, with ones on the diagonal, row by row from below."""
    from ..control import scan

    n = t.shape[-1]
    places = _places(n)
    w = diagonal(t)
    floor = max_(E.abs_(t), axis=(-2, -1)) * float(np.finfo(real_dtype(t.dtype).np).eps)
    floor = _wide(E.maximum(floor, float(np.finfo(real_dtype(t.dtype).np).tiny)), -1)

    def step(y: Any, i: Any) -> Any:
        row = E.where(E.greater(places, i), take(t, i, axis=t.ndim - 2), 0)
        rest = slice_(matmul(_wide(row, -2), y), index=(..., 0, slice(None)))
        gap = _wide(take(w, i, axis=w.ndim - 1), -1) - w
        gap = E.where(E.less(E.abs_(gap), floor), floor, gap)
        new = E.where(E.greater(places, i), -rest / gap, E.where(E.equal(places, i), 1, rest * 0))
        return E.where(E.equal(_wide(places, -1), i), _wide(new, -2), y), None

    return scan(step, t * 0, places, reverse=True)[0]


def eig_unordered(x: Any) -> Any:
    """Vectors of the triangular form, turned back and made of length 1."""
    info = _status(x)
    kind = x.dtype.complex
    n = x.shape[-1]
    if not n:
        return full(x.shape[:-1], 0, dtype=kind), full(x.shape, 0, dtype=kind), info
    x, scale = _scaled(E.where(_wide(E.not_equal(info, 0), -1, -1), identity(n, x), x).to(kind))
    t, q, live = _schur(x)
    v = matmul(q, _of_triangular(t))
    v = v / E.sqrt(sum_(_magnitude(v), axis=-2, keepdims=True))
    info = E.where(ops["any"](live, axis=-1), n, info)
    return *_failed(info, diagonal(t) * scale, v), info


def eigvals_unordered(x: Any) -> Any:
    """As `eig_unordered`, without the vectors."""
    w, _, info = eig_unordered(x)
    return w, info
