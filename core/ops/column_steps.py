"""Factorisations, solutions and divisors as loops over other ops, for exporters to formats that have no such op.

Every function takes what the op of its name takes and gives what it gives, for real numbers; a matrix is worked on
column by column in a `scan`, with masks in the place of slices that grow. Kernels never run these.
"""

from __future__ import annotations

from typing import Any

from .. import types as T
from ..op import REGISTRY as ops
from ..value import Tensor
from . import elementwise as E
from .creation import arange, full
from .einsum import diagonal_of_last as diagonal
from .linalg import matmul
from .matrices import adjoint as turned
from .matrices import identity, lower, upper
from .picking import take, take_elements
from .reduction import argmax, max_, sum_
from .shape import broadcast_to, expand_dims, moveaxis, reshape


def _scan(step: Any, start: Any, count: int, reverse: bool = False) -> Any:
    """`step(carry, k)` for k from 0 to count - 1, as `dg.scan` does it."""
    from ..control import scan

    return scan(step, start, arange(count, dtype=T.int64), reverse=reverse)


def _column(x: Any, k: Any) -> Any:
    return take(x, k, axis=x.ndim - 1)


def _row(x: Any, k: Any) -> Any:
    return take(x, k, axis=x.ndim - 2)


def _like(x: Any, value: float, shape: Any, dtype: Any = None) -> Any:
    return full(shape, value, dtype=dtype or x.dtype, device=x.device)


def cholesky(x: Any, *, upper: bool) -> Any:
    """The factor, column by column from the left; NaN and the order of the minor where it is not positive."""
    x = turned(x) if upper else x
    n = x.shape[-1]
    places = arange(n, dtype=T.int64)

    def step(carry: Any, k: Any) -> Any:
        factor, info = carry
        c = _column(x, k) - reshape(matmul(factor, expand_dims(_row(factor, k), axis=-1)), shape=x.shape[:-1])
        pivot = _column(c, k)
        bad = E.logical_not(E.greater(pivot, 0))
        info = E.where(E.logical_and(bad, E.equal(info, 0)), k + 1, info)
        c = c / expand_dims(E.sqrt(E.where(bad, 1, pivot)), axis=-1)
        c = expand_dims(E.where(E.greater_equal(places, k), c, 0), axis=-1)
        return (E.where(E.equal(places, k), c, factor), info), None

    start = _like(x, 0, x.shape), _like(x, 0, x.shape[:-2], T.int64)
    (factor, info), _ = _scan(step, start, n)
    failed = reshape(E.not_equal(info, 0), shape=(*info.shape, 1, 1))
    factor = E.where(failed, float("nan"), factor)
    return turned(factor) if upper else factor, info


def solve_triangular(a: Any, b: Any, *, upper: bool, left: bool, unitriangular: bool, adjoint: bool) -> Any:
    """Substitution, row by row."""
    dtype = T.promote(a.dtype, b.dtype)
    a, b = a.to(dtype), b.to(dtype)
    flipped = adjoint == left  # whether `a` must be turned to stand to the left
    if not left:
        b = turned(b)
    off = (_strictly_upper if upper else _strictly_lower)(a)
    off = turned(off) if flipped else off
    d = diagonal(a)
    batch = T.broadcast_shapes("solve_triangular", a.shape[:-2], b.shape[:-2])
    shape = (*batch, *b.shape[-2:])
    b, n = broadcast_to(b, shape=shape), a.shape[-1]
    off = broadcast_to(off, shape=(*batch, n, n))
    places = reshape(arange(n, dtype=T.int64), shape=(n, 1))

    def step(x: Any, k: Any) -> Any:
        new = _row(b, k) - reshape(matmul(expand_dims(_row(off, k), axis=-2), x), shape=(*batch, b.shape[-1]))
        if not unitriangular:
            new = new / expand_dims(_column(d, k), axis=-1)
        return E.where(E.equal(places, k), expand_dims(new, axis=-2), x), None

    x, _ = _scan(step, _like(b, 0, shape), n, reverse=upper != flipped)
    return x if left else turned(x)


def _strictly_upper(x: Any) -> Any:
    return upper(x, 1)


def _strictly_lower(x: Any) -> Any:
    return lower(x, -1)


def _exchange(places: Any, a: Any, b: Any) -> Any:
    """Positions with a and b in each other's place. a, b: of a batch."""
    a, b = expand_dims(a, axis=-1), expand_dims(b, axis=-1)
    return E.where(E.equal(places, a), b, E.where(E.equal(places, b), a, places))


def _picked(x: Any, order: Any) -> Any:
    """Rows of matrices in another order for each."""
    shape = (*order.shape, x.shape[-1])
    wide = broadcast_to(expand_dims(order, axis=-1), shape=shape)
    return take_elements(broadcast_to(x, shape=shape), wide, axis=x.ndim - 2 + len(shape) - x.ndim)


def permute_rows(x: Any, pivots: Any, *, inverse: bool) -> Any:
    """The exchanges as one order of rows."""
    batch = T.broadcast_shapes("permute_rows", x.shape[:-2], pivots.shape[:-1])
    m = x.shape[-2]
    places = arange(m, dtype=T.int64)
    pivots = pivots.to(T.int64) - 1

    def step(order: Any, k: Any) -> Any:
        p = _column(pivots, k)
        swap = _exchange(places, E.add(p * 0, k), p)
        return take_elements(order, broadcast_to(swap, shape=order.shape), axis=order.ndim - 1), None

    start = broadcast_to(places, shape=(*pivots.shape[:-1], m)) + 0
    order, _ = _scan(step, start, pivots.shape[-1], reverse=inverse)
    return _picked(x, broadcast_to(order, shape=(*batch, m)))


def lu_factor(x: Any) -> Any:
    """Gauss's elimination with the largest element of each column as its pivot."""
    m, n = x.shape[-2:]
    if not min(m, n):
        return x, _like(x, 0, (*x.shape[:-2], 0), T.int32), _like(x, 0, x.shape[:-2], T.int64)
    rows, columns = arange(m, dtype=T.int64), arange(n, dtype=T.int64)

    def step(carry: Any, k: Any) -> Any:
        lu, info = carry
        size = E.where(E.greater_equal(rows, k), E.abs_(_column(lu, k)), -1)
        j = argmax(size, axis=-1)
        lu = _picked(lu, _exchange(rows, E.add(j * 0, k), j))
        c = _column(lu, k)
        pivot = expand_dims(_column(c, k), axis=-1)
        below = E.logical_and(E.greater(rows, k), E.not_equal(pivot, 0))
        factor = expand_dims(E.where(below, c / E.where(E.equal(pivot, 0), 1, pivot), 0), axis=-1)
        beside = expand_dims(E.where(E.greater(columns, k), _row(lu, k), 0), axis=-2)
        spot = E.logical_and(E.equal(columns, k), expand_dims(below, axis=-1))
        lu = E.where(spot, factor, lu - factor * beside)
        zero = E.logical_and(E.equal(pivot[..., 0], 0), E.equal(info, 0))
        return (lu, E.where(zero, k + 1, info)), (j + 1).to(T.int32)

    (lu, info), pivots = _scan(step, (x, _like(x, 0, x.shape[:-2], T.int64)), min(m, n))
    return lu, moveaxis(pivots, source=0, destination=-1), info


def solve_with(a: Any, b: Any, lu: Any, pivots: Any, *, adjoint: bool) -> Any:
    """By the LU factors."""
    return ops["lu_solve"](lu, pivots, b, adjoint=adjoint)


def qr(x: Any, *, mode: str) -> Any:
    """Householder's reflections, with LAPACK's signs."""
    m, n = x.shape[-2:]
    k = min(m, n)
    places = arange(m, dtype=T.int64)

    def step(carry: Any, k: Any) -> Any:
        q, r = carry
        v = E.where(E.greater_equal(places, k), _column(r, k), 0)
        first = expand_dims(_column(v, k), axis=-1)
        rest = sum_(E.where(E.greater(places, k), v * v, 0), axis=-1, keepdims=True)
        size = E.sqrt(first * first + rest)
        u = E.where(E.equal(places, k), first + E.where(E.less(first, 0), -size, size), v)
        scale = sum_(u * u, axis=-1, keepdims=True)
        none = E.equal(rest, 0)  # nothing to turn
        u_column = expand_dims(u, axis=-1)
        weighted = expand_dims(E.where(none, 0, u * 2 / E.where(none, 1, scale)), axis=-2)
        r = r - matmul(u_column, matmul(weighted, r))
        q = q - matmul(matmul(q, u_column), weighted)
        return (q, r), None

    start = broadcast_to(identity(m, x), shape=(*x.shape[:-2], m, m)) + 0
    (q, r), _ = _scan(step, (start, x), k)
    r = upper(r)
    return (q, r) if mode == "complete" else (q[..., :, :k], r[..., :k, :])


#: sweeps of Jacobi's rotations: what is left after about six is rounding
_SWEEPS = 12


def eigenvalues(x: Any, *, UPLO: str) -> Any:
    """Jacobi's rotations until all that is off the diagonal is rounding; then sorted. NaN where x has it."""
    half = lower(x, -1) if UPLO == "L" else turned(upper(x, 1))
    a = half + turned(half) + identity(x.shape[-1], x) * expand_dims(diagonal(x), axis=-1)
    info = (~ops["all"](E.isfinite(a), axis=(-2, -1))).to(T.int64)
    a = _rotated(a, x.shape[-1], _diagonal)
    w = ops["sort"](diagonal(a), axis=-1)
    return E.where(expand_dims(E.not_equal(info, 0), axis=-1), float("nan"), w), info


def singular_values(x: Any) -> Any:
    """Jacobi's rotations of columns until all are orthogonal: their lengths, sorted. NaN where x has it."""
    m, n = x.shape[-2:]
    a = turned(x) if m < n else x
    k = min(m, n)
    info = (~ops["all"](E.isfinite(x), axis=(-2, -1))).to(T.int64)
    a = _rotated(a, k, _orthogonal)
    s = ops["flip"](ops["sort"](E.sqrt(sum_(a * a, axis=-2)), axis=-1), axis=-1)
    return E.where(expand_dims(E.not_equal(info, 0), axis=-1), float("nan"), s), info


def _rotated(a: Any, n: int, turn: Any) -> Any:
    """`turn(a, p, q, places)` for every pair of columns, sweep by sweep."""
    import numpy as np

    from .. import dispatch
    from ..control import scan

    pairs = [(p, q) for p in range(n - 1) for q in range(p + 1, n)] * _SWEEPS
    if not pairs:
        return a
    places = arange(n, dtype=T.int64)
    row = dispatch.state.executor.constant(np.array(pairs, np.int64), "cpu")
    return scan(lambda a, pair: (turn(a, pair[0], pair[1], places), None), a, row)[0]


def _angle(cross: Any, difference: Any) -> tuple[Any, Any]:
    """Cosine and sine of the rotation that makes `cross` 0."""
    none = E.equal(cross, 0)
    theta = difference / E.where(none, 1, 2 * cross)
    size = E.where(none, 0, 1 / (E.abs_(theta) + E.sqrt(theta * theta + 1)))
    t = E.where(E.less(theta, 0), -size, size)
    cosine = 1 / E.sqrt(t * t + 1)
    return expand_dims(cosine, axis=-1), expand_dims(t * cosine, axis=-1)


def _orthogonal(a: Any, p: Any, q: Any, places: Any) -> Any:
    u, v = _column(a, p), _column(a, q)
    c, s = _angle(sum_(u * v, axis=-1), sum_(v * v, axis=-1) - sum_(u * u, axis=-1))
    return _with_columns(a, places, (p, q), (c * u - s * v, s * u + c * v))


def _diagonal(a: Any, p: Any, q: Any, places: Any) -> Any:
    u, v = _column(a, p), _column(a, q)
    c, s = _angle(_column(v, p), _column(v, q) - _column(u, p))
    a = turned(_with_columns(a, places, (p, q), (c * u - s * v, s * u + c * v)))
    u, v = _column(a, p), _column(a, q)
    return _with_columns(a, places, (p, q), (c * u - s * v, s * u + c * v))


def _with_columns(a: Any, places: Any, which: Any, columns: Any) -> Any:
    for k, column in zip(which, columns):
        a = E.where(E.equal(places, k), expand_dims(column, axis=-1), a)
    return a


def matrix_exp(x: Any) -> Any:
    """The number of squarings as a tensor, and a loop of so many."""
    from ..control import while_loop
    from .norms import _PADE, pade

    if x.size == 0:
        return x
    if x.dtype.is_half:
        return matrix_exp(x.to(T.float32)).to(x.dtype)
    bound = _PADE[x.dtype.name][0]
    largest = max_(sum_(E.abs_(x), axis=-2))
    many = E.logical_and(E.greater(largest, bound), E.isfinite(largest))
    halvings = E.where(many, E.ceil(E.log2(E.where(many, largest, bound) / bound)), 0).to(T.int64)
    start = _like(x, 0, (), T.int64), pade(x * E.power(_like(x, 0.5, ()), halvings.to(x.dtype)))
    square = lambda c: (c[0] + 1, matmul(c[1], c[1]))
    return while_loop(lambda c: E.less(c[0], halvings), square, start)[1]


def _beside(x: Any, other: Any) -> Any:
    """A number as a tensor of the other's dtype."""
    return x if isinstance(x, Tensor) else _like(other, x, ())


def gcd(x: Any, y: Any) -> Any:
    """Euclid's divisions for all pairs until the last is done."""
    from ..control import while_loop

    x, y = _beside(x, y), _beside(y, x)
    dtype = T.promote(x.dtype, y.dtype)
    shape = T.broadcast_shapes("gcd", x.shape, y.shape)
    start = tuple(E.abs_(broadcast_to(v.to(dtype), shape=shape)) for v in (x, y))

    def step(carry: Any) -> Any:
        a, b = carry
        done = E.equal(b, 0)
        return E.where(done, a, b), E.where(done, b, E.remainder(a, E.where(done, 1, b)))

    return E.abs_(while_loop(lambda c: ops["any"](E.not_equal(c[1], 0)), step, start)[0])


def lcm(x: Any, y: Any) -> Any:
    """|x y| over the divisor, divided first."""
    x, y = _beside(x, y), _beside(y, x)
    d = gcd(x, y)
    none = E.equal(d, 0)
    return E.where(none, d, E.abs_(E.floor_divide(x.to(d.dtype), E.where(none, 1, d)) * y))
