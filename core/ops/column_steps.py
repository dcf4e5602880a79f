"""Factorisations, solutions and divisors as loops over other ops, for exporters to formats that have no such op.

Every function takes what the op of its name takes and gives what it gives; a matrix is worked on column by column
in a `scan`, with masks in the place of slices that grow. Kernels never run these.
"""

from __future__ import annotations

from typing import Any

from .. import types as T
from ..op import REGISTRY as ops
from ..value import Tensor
from . import elementwise as E
from .alignment_steps import alignment_loss, alignment_loss_grad
from .creation import arange, full
from .einsum import diagonal_of_last as diagonal
from .gradient_steps import (
    attention_grad,
    attention_grad_joined,
    avg_pool_x_grad,
    conv_w_grad,
    max_pool_x_grad,
    recurrent,
    recurrent_grad,
)
from .linalg import matmul
from .matrices import adjoint as turned
from .matrices import conjugate, identity, lower, upper
from .picking import take, take_elements
from .reduction import argmax, max_, sum_
from .rotation_steps import eigenvalues, eigenvectors, singular_values, singular_vectors
from .sampling_steps import log_gamma_draw, log_gamma_slope, poisson_draw
from .schur_steps import eig_unordered, eigvals_unordered
from .shape import broadcast_to, expand_dims, moveaxis, reshape


def _scan(step: Any, start: Any, count: int, reverse: bool = False) -> Any:
    """`step(carry, k)` for k from 0 to count - 1, as `dg.scan` does it."""
    from ..control import scan

    return scan(step, start, arange(count, dtype=T.int64), reverse=reverse)


def _column(x: Any, k: Any) -> Any:
    return take(x, k, axis=x.ndim - 1)


def _row(x: Any, k: Any) -> Any:
    return take(x, k, axis=x.ndim - 2)


def _real(x: Any) -> Any:
    return ops["real"](x) if x.dtype.is_complex else x


def _like(x: Any, value: float, shape: Any, dtype: Any = None) -> Any:
    return full(shape, value, dtype=dtype or x.dtype, device=x.device)


def cholesky(x: Any, *, upper: bool) -> Any:
    """The factor, column by column from the left; NaN and the order of the minor where it is not positive."""
    x = turned(x) if upper else x
    n = x.shape[-1]
    places = arange(n, dtype=T.int64)

    def step(carry: Any, k: Any) -> Any:
        factor, info = carry
        row = expand_dims(conjugate(_row(factor, k)), axis=-1)
        c = _column(x, k) - reshape(matmul(factor, row), shape=x.shape[:-1])
        pivot = _real(_column(c, k))
        bad = E.logical_not(E.greater(pivot, 0))
        info = E.where(E.logical_and(bad, E.equal(info, 0)), k + 1, info)
        if x.dtype.is_complex:
            c = E.where(E.equal(places, k), expand_dims(pivot, axis=-1), c)
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
    d = conjugate(diagonal(a)) if flipped else diagonal(a)
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
        c = _column(lu, k)
        size = E.abs_(c) if not x.dtype.is_complex else E.abs_(_real(c)) + E.abs_(ops["imag"](c))  # as LAPACK
        size = E.where(E.greater_equal(rows, k), size, -1)
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
        rest = sum_(E.where(E.greater(places, k), _square(v), 0), axis=-1, keepdims=True)
        size = E.sqrt(_square(first) + rest)
        end = E.where(E.less(_real(first), 0), size, -size)  # what is left of the column
        none = E.equal(rest, 0)  # nothing to turn
        if x.dtype.is_complex:
            none = E.logical_and(none, E.equal(ops["imag"](first), 0))
        u = E.where(E.equal(places, k), first - end, v)
        # I - c u u^H with c = -1 / (end conj(u_k)) turns unit vector k into the column
        c = E.where(none, 0, -1 / E.where(none, 1, end * conjugate(first - end)))
        u_column, u_row = expand_dims(u, axis=-1), expand_dims(conjugate(u), axis=-2)
        c = expand_dims(c, axis=-1)
        r = r - matmul(u_column, conjugate(c) * matmul(u_row, r))
        q = q - matmul(matmul(q, u_column) * c, u_row)
        return (q, r), None

    start = broadcast_to(identity(m, x), shape=(*x.shape[:-2], m, m)) + 0
    (q, r), _ = _scan(step, (start, x), k)
    r = upper(r)
    return (q, r) if mode == "complete" else (q[..., :, :k], r[..., :k, :])


def _square(x: Any) -> Any:
    return x * x if not x.dtype.is_complex else E.square(_real(x)) + E.square(ops["imag"](x))


def product(x: Any, *, axis: Any, keepdims: bool, dtype: Any) -> Any:
    """Of complex numbers, one after the other."""
    x = x if dtype is None else x.to(dtype)
    if not x.ndim:
        return x
    axes = T.normalize_axes("prod", axis, x.ndim)
    kept = [a for a in range(x.ndim) if a not in axes]
    rows = ops["permute"](x, axes=(*axes, *kept))
    count = 1
    for a in axes:
        count = x.shape[a] * count
    rows = reshape(rows, shape=(count, *(x.shape[a] for a in kept)))
    from ..control import scan

    made, _ = scan(lambda c, row: (c * row, None), _like(x, 1, rows.shape[1:]), rows)
    return (
        reshape(made, shape=tuple(1 if a in axes else n for a, n in enumerate(x.shape))) if keepdims else made
    )


def matrix_exp(x: Any) -> Any:
    """The number of squarings as a tensor, and a loop of so many."""
    from ..control import while_loop
    from .norms import _PADE, pade

    if x.size == 0:
        return x
    if x.dtype.is_half:
        return matrix_exp(x.to(T.float32)).to(x.dtype)
    real = x.dtype.real if x.dtype.is_complex else x.dtype
    bound = _PADE[real.name][0]
    largest = max_(sum_(E.abs_(x), axis=-2))
    many = E.logical_and(E.greater(largest, bound), E.isfinite(largest))
    halvings = E.where(many, E.ceil(E.log2(E.where(many, largest, bound) / bound)), 0).to(T.int64)
    start = _like(x, 0, (), T.int64), pade(x * E.power(_like(x, 0.5, (), real), halvings.to(real)))
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


__all__ = [
    "alignment_loss", "alignment_loss_grad", "attention_grad", "attention_grad_joined", "avg_pool_x_grad", "cholesky",
    "conv_w_grad", "eig_unordered", "eigenvalues", "eigenvectors", "eigvals_unordered", "gcd", "lcm", "log_gamma_draw",
    "log_gamma_slope", "lu_factor", "matrix_exp", "max_pool_x_grad", "permute_rows", "poisson_draw", "product", "qr",
    "recurrent", "recurrent_grad", "singular_values", "singular_vectors", "solve_triangular", "solve_with",
]  # fmt: skip
