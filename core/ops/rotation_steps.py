"""Eigenvalues, singular values and their vectors by Jacobi's rotations, for exporters to formats that have no such op.

All columns are turned two by two at once: the first half against the second, then they change places as the players
of a tournament do, so that after n - 1 rounds each has met each. Nothing depends on the data: what is left after
about six sweeps is rounding. Kernels never run these.
"""

from __future__ import annotations

from typing import Any

from .. import types as T
from ..op import REGISTRY as ops
from . import elementwise as E
from .creation import arange, full
from .einsum import diagonal_of_last as diagonal
from .matrices import NEARLY, conjugate, identity, lower, upper
from .matrices import adjoint as turned
from .picking import take_elements
from .reduction import argmax, max_, sum_
from .shape import broadcast_to, concat, expand_dims, slice_, transpose

_SWEEPS = 15


def _magnitude(x: Any) -> Any:
    """The square of the modulus."""
    return x * x if not x.dtype.is_complex else E.square(ops["real"](x)) + E.square(ops["imag"](x))


def _real(x: Any) -> Any:
    return ops["real"](x) if x.dtype.is_complex else x


def _columns(x: Any, start: Any, stop: Any) -> Any:
    return slice_(x, index=(..., slice(start, stop)))


def _halves(x: Any) -> tuple[Any, Any]:
    h = x.shape[-1] // 2
    return _columns(x, 0, h), _columns(x, h, 2 * h)


def _filled_up(x: Any) -> Any:
    """x with a column of zeros where their number is odd."""
    shape = (*x.shape[:-1], x.shape[-1] % 2)
    return concat([x, full(shape, 0, dtype=x.dtype, device=x.device)], axis=x.ndim - 1)


def _next_round(top: Any, bottom: Any) -> Any:
    """Columns for the next round: all but the first move on by one place, in a ring."""
    h = top.shape[-1]
    if h == 1:
        return concat([top, bottom], axis=top.ndim - 1)
    row = [_columns(top, 0, 1), _columns(bottom, 0, 1), _columns(top, 1, h - 1), _columns(bottom, 1, h)]
    return concat([*row, _columns(top, h - 1, h)], axis=top.ndim - 1)


def _angle(cross: Any, difference: Any) -> tuple[Any, Any, Any]:
    """Cosine and sine of the rotations that make `cross` 0, and what makes it real before; all [..., 1, h]."""
    size = E.abs_(cross)
    none = E.equal(size, 0)
    phase = conjugate(E.where(none, 1, cross) / E.where(none, 1, size))
    theta = difference / E.where(none, 1, 2 * size)
    t = E.where(none, 0, 1 / (E.abs_(theta) + E.sqrt(theta * theta + 1)))
    t = E.where(E.less(theta, 0), -t, t)
    cosine = 1 / E.sqrt(t * t + 1)
    return tuple(expand_dims(v, axis=-2) for v in (cosine, t * cosine, phase))  # type: ignore[return-value]


def _rotated(x: Any, angle: Any) -> Any:
    """The two halves of the columns turned against each other."""
    cosine, sine, phase = angle
    u, v = _halves(x)
    v = v * phase
    return cosine * u - sine * v, sine * u + cosine * v


def _turns(step: Any, start: Any, n: Any) -> Any:
    """The rounds of all sweeps of n columns (an even number)."""
    from ..control import scan

    return scan(lambda carry, _: (step(carry), None), start, arange(_SWEEPS * (n - 1), dtype=T.int64))[0]


def _diagonalised(a: Any) -> tuple[Any, Any]:
    """`(d, v)` with `a v = v diag(d)` for Hermitian a."""
    n = a.shape[-1]
    v = broadcast_to(identity(n, a), shape=a.shape) + 0
    if n < 2:
        return diagonal(a), v

    def step(carry: Any) -> Any:
        a, v = carry
        d = _real(diagonal(a))
        (first, second), (_, beside) = _halves(d), _halves(a)
        cross = diagonal(slice_(beside, index=(..., slice(0, n_even // 2), slice(None))))
        angle = _angle(cross, second - first)
        # Columns, then rows: those of the Hermitian a are its columns, turned.
        a = turned(_next_round(*_rotated(a, angle)))
        return _next_round(*_rotated(a, angle)), _next_round(*_rotated(v, angle))

    a = _filled_up(turned(_filled_up(a)))
    n_even = a.shape[-1]
    a, v = _turns(step, (a, _filled_up(v)), n_even)
    return _columns(diagonal(a), 0, n), _columns(v, 0, n)


def _orthogonalised(a: Any) -> tuple[Any, Any]:
    """`(a v, v)` with orthogonal columns in a v, for unitary v."""
    m, n = a.shape[-2:]
    v = broadcast_to(identity(n, a), shape=(*a.shape[:-2], n, n)) + 0
    if n < 2:
        return a, v

    def step(both: Any) -> Any:
        u, v = _halves(slice_(both, index=(..., slice(0, m), slice(None))))
        cross = sum_(conjugate(u) * v, axis=-2)
        angle = _angle(cross, sum_(_magnitude(v), axis=-2) - sum_(_magnitude(u), axis=-2))
        return _next_round(*_rotated(both, angle))

    both = _filled_up(concat([a, v], axis=a.ndim - 2))
    both = _columns(_turns(step, both, both.shape[-1]), 0, n)
    return slice_(both, index=(..., slice(0, m), slice(None))), slice_(
        both, index=(..., slice(m, m + n), slice(None))
    )


def _in_order(x: Any, order: Any) -> Any:
    """Columns in the order of each matrix."""
    return take_elements(x, broadcast_to(expand_dims(order, axis=-2), shape=x.shape), axis=x.ndim - 1)


def _phases(x: Any) -> Any:
    """The phase of the largest component of each column: [..., 1, n]."""
    size = _magnitude(x)
    near = E.greater_equal(size, max_(size, axis=-2, keepdims=True) * NEARLY)
    place = argmax(E.cast(near, dtype=T.int32), axis=-2, keepdims=True)
    found = take_elements(x, place, axis=x.ndim - 2)
    length = E.abs_(found)
    none = E.equal(length, 0)
    return E.where(none, 1, found / E.where(none, 1, length))


def _failed(info: Any, *results: Any) -> Any:
    """Results with NaN where info is not 0."""
    return tuple(
        E.where(E.not_equal(info, 0).reshape(*info.shape, *[1] * (x.ndim - info.ndim)), float("nan"), x)
        for x in results
    )


def _status(x: Any) -> Any:
    return (~ops["all"](E.isfinite(x), axis=(-2, -1))).to(T.int64)


def _scaled(x: Any) -> tuple[Any, Any]:
    """Matrices with a largest component of 1 (squares neither overflow nor vanish), and what they were divided by."""
    size = max_(
        E.maximum(E.abs_(_real(x)), E.abs_(ops["imag"](x)) if x.dtype.is_complex else 0.0), axis=(-2, -1)
    )
    size = E.where(E.logical_and(E.isfinite(size), E.greater(size, 0)), size, 1.0)
    return x / size.reshape(*size.shape, 1, 1), expand_dims(size, axis=-1)


def _whole(x: Any, triangle: str) -> Any:
    """A Hermitian matrix of which one triangle is read."""
    half = lower(x, -1) if triangle == "L" else turned(upper(x, 1))
    return half + turned(half) + identity(x.shape[-1], x) * expand_dims(_real(diagonal(x)), axis=-1)


def eigenvectors(x: Any, *, UPLO: str) -> Any:
    """Rotations until all that is off the diagonal is rounding; then sorted, the largest component positive."""
    a = _whole(x, UPLO)
    info = _status(a)
    if not x.shape[-1]:
        return _real(diagonal(a)), a, info
    a, scale = _scaled(a)
    w, v = _diagonalised(a)
    w = _real(w) * scale
    order = ops["argsort"](w, axis=-1)
    v = _in_order(v, order)
    return *_failed(info, take_elements(w, order, axis=w.ndim - 1), v * conjugate(_phases(v))), info


def eigenvalues(x: Any, *, UPLO: str) -> Any:
    """As `eigenvectors`, without them."""
    w, _, info = eigenvectors(x, UPLO=UPLO)
    return w, info


def singular_values(x: Any) -> Any:
    """The lengths of orthogonal columns, sorted. NaN where x has it."""
    a = turned(x) if x.shape[-2] < x.shape[-1] else x
    info = _status(x)
    if not min(x.shape[-2:]):
        return sum_(_magnitude(a), axis=-2), info
    a, scale = _scaled(a)
    a, _ = _orthogonalised(a)
    s = ops["flip"](ops["sort"](E.sqrt(sum_(_magnitude(a), axis=-2)), axis=-1), axis=-1) * scale
    return *_failed(info, s), info


def singular_vectors(x: Any, *, full_matrices: bool) -> Any:
    """Orthogonal columns, sorted by their lengths; their directions are the left vectors, by reflections."""
    m, n = x.shape[-2:]
    info = _status(x)
    if not min(m, n):
        zero = lambda *shape: full((*x.shape[:-2], *shape), 0, dtype=x.dtype, device=x.device)
        if not full_matrices:
            return zero(m, 0), _magnitude(zero(0)), zero(0, n), info
        return zero(m, m) + identity(m, x), _magnitude(zero(0)), zero(n, n) + identity(n, x), info
    x, scale = _scaled(x)
    a, v = _orthogonalised(turned(x) if m < n else x)
    length = sum_(_magnitude(a), axis=-2)
    order = ops["argsort"](length, axis=-1, descending=True)
    v = _in_order(v, order)
    q, r = ops["qr"](_in_order(a, order), mode="reduced")
    d = diagonal(r)
    s = E.abs_(d)
    none = E.equal(s, 0)
    q = q * expand_dims(E.where(none, 1, d / E.where(none, 1, s)), axis=-2)
    u, right = (v, q) if m < n else (q, v)
    phases = _phases(conjugate(right))  # of the rows of V^H
    u, right = u * phases, turned(right * phases)
    if full_matrices and m > n:
        u = _completed(u)
    elif full_matrices and m < n:
        right = transpose(_completed(transpose(right)))
    return *_failed(info, u, s * scale, right), info


def _completed(x: Any) -> Any:
    """Orthonormal columns and, from the reflections that give them, those that make a basis of them."""
    q, _ = ops["qr"](x, mode="complete")
    return concat([x, slice_(q, index=(..., slice(x.shape[-1], None)))], axis=x.ndim - 1)
