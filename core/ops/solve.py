"""Linear systems: triangles, Cholesky's and the LU factors, solutions, inverses, determinants.

Matrices are the last two axes, leading axes are batches. What LAPACK refuses (a singular matrix, one that is not
positive definite) is a LinAlgError that names the matrix: at once in eager mode, after the call of a graph. The
`_ex` forms return LAPACK's status codes and never raise; matrices that failed are NaN.
"""

# Gradient rules are named after the input they are for, so names repeat here.
# ruff: noqa: F811
from __future__ import annotations

import numpy as np

from .. import types as T
from ..dtype_info import finfo
from ..errors import ShapeError
from ..op import REGISTRY, composite, primitive
from ..types import TensorType
from . import elementwise as E
from .einsum import diagonal_of_last as diagonal
from .linalg import matmul
from .matrices import (
    adjoint,
    check,
    conjugate,
    hermitian,
    identity,
    lower,
    need_matrix,
    offsets,
    upper,
)
from .reduction import max_, prod, sum_
from .shape import expand_dims, reshape


def _batch(op, *xs, axes=2):
    return T.broadcast_shapes(op, *(x.shape[:-axes] for x in xs))


def _spd(n, *batch):
    """A positive definite example."""
    x = np.random.default_rng(n).uniform(-1, 1, (*batch, n, n))
    return x @ np.swapaxes(x, -1, -2) + np.eye(n)


def _regular(n, *batch):
    """A well-conditioned example."""
    return np.random.default_rng(n).uniform(-1, 1, (*batch, n, n)) + 2 * np.eye(n)


# ---------------------------------------------------------------- triangles


@primitive(complex="own", parts="solve_triangular")
def solve_triangular(a, b, *, upper, left=True, unitriangular=False, adjoint=False):
    """The solution x of `a x = b` (left) or `x a = b` for triangular a.

    a: float[..., N, N], of which one triangle is read; b: float[..., N, K] (left) or float[..., K, N]; leading
    axes broadcast. upper: which triangle; unitriangular: the diagonal counts as ones and is not read;
    adjoint: a's conjugate transpose stands in its place. Returns: b's shape, with the batch
    broadcast, of the promoted dtype.
    Raises: ShapeError, DtypeError. Numerics: a zero on the diagonal gives infinities or NaN. Source: LAPACK trtrs.
    """
    keep = np.triu if upper else np.tril
    a = keep(a, 1 if upper else -1) + np.eye(a.shape[-1], dtype=a.dtype) if unitriangular else keep(a)
    turn = lambda x: np.swapaxes(x, -1, -2)
    a = turn(a).conj() if adjoint else a
    return np.linalg.solve(a, b) if left else turn(np.linalg.solve(turn(a), turn(b)))


@solve_triangular.type
def _(a, b, *, upper, left, unitriangular, adjoint):
    need_matrix("solve_triangular", a, "a", square=True)
    need_matrix("solve_triangular", b, "b")
    if b.shape[-2 if left else -1] != a.shape[-1]:
        what = "rows" if left else "columns"
        raise ShapeError(
            "solve_triangular", f"a: {a} and b: {b} differ in {what}", "make the sizes equal, or change left="
        )
    return TensorType(T.promote(a.dtype, b.dtype), (*_batch("solve_triangular", a, b), *b.shape[-2:]))


@solve_triangular.grad_joint
def _(g, a, out, upper, left, unitriangular, adjoint):
    return _triangular_grads(g, a, out, upper, left, unitriangular, adjoint)


def _triangular_grads(g, a, out, upper_, left, unit, adjoint_):
    gb = solve_triangular(a, g, upper=upper_, left=left, unitriangular=unit, adjoint=not adjoint_)
    # op(a) x = b: the gradient for op(a) is -gb x^H (left), -x^H gb (right); for a it is turned with op
    first, second = (gb, out) if left else (out, gb)
    if left:
        ga = matmul(second, adjoint(first)) if adjoint_ else matmul(first, adjoint(second))
    else:
        ga = matmul(adjoint(second), first) if adjoint_ else matmul(adjoint(first), second)
    ga = -upper(ga, int(unit)) if upper_ else -lower(ga, -int(unit))
    return ga, gb


solve_triangular.sample(_regular(3), (3, 2), upper=False).sample(_regular(3), (3, 1), upper=True)
solve_triangular.sample(_regular(3, 2), (4, 3), upper=False, left=False).sample(
    _regular(2, 3), (2, 1, 2, 3), upper=True, unitriangular=True, adjoint=True
)
solve_triangular.sample(_regular(3), (2, 1, 3), upper=True, left=False, adjoint=True)
solve_triangular.sample(np.zeros((0, 0)), np.zeros((0, 2)), upper=True)
solve_triangular.error_sample((2, 3), (2, 3), upper=True, match="not square")
solve_triangular.error_sample((3, 3), (2, 3), upper=True, match="differ in rows")


@primitive(complex="own", parts="cholesky")
def cholesky_ex(x, *, upper=False):
    """Cholesky's factor and LAPACK's status codes; see `cholesky`.

    Returns: float[..., N, N]; int64[...]: 0, or the order of the leading minor that is not positive.
    """
    out = np.linalg.cholesky(x)
    return np.swapaxes(out, -1, -2).conj() if upper else out, np.zeros(x.shape[:-2], np.int64)


@cholesky_ex.type
def _(x, *, upper):
    need_matrix("cholesky", x, square=True)
    return x, TensorType(T.int64, x.shape[:-2])


@cholesky_ex.grad
def x(gs, outs, upper):
    # I. Murray, Differentiation of the Cholesky decomposition, 2016
    factor, g = outs[0], gs[0]
    if upper:
        factor, g = adjoint(factor), adjoint(g)
    p = lower(matmul(adjoint(factor), lower(g)))
    p = E.where(E.equal(offsets(p), 0), p * 0.5, p)
    p = solve_triangular(factor, p, upper=False, adjoint=True)
    return hermitian(solve_triangular(factor, p, upper=False, left=False))


cholesky_ex.sample(_spd(3), grad=False).sample(_spd(2, 3), upper=True, grad=False).sample(np.zeros((2, 0, 0)))


@composite
def cholesky(x, *, upper=False):
    """The lower triangular L with `L L^H = x` of positive definite x; or the upper U with `U^H U = x`.

    x: float[..., N, N], of which that triangle is read. Returns: x's type, zero in the other triangle.
    Raises: LinAlgError for a matrix that is not positive definite, ShapeError, DtypeError.
    Numerics: the gradient is the symmetric one. Source: LAPACK potrf.
    """
    out, info = cholesky_ex(x, upper=upper)
    check(
        "cholesky", "x", x, info, lambda k: f"is not positive definite: leading minor {k}",
        "add a multiple of the unit matrix, or use dg.linalg.eigh",
    )  # fmt: skip
    return out


cholesky.sample(_spd(3), grad=False).sample(_spd(2, 3), upper=True, grad=False)
cholesky.error_sample((2, 3), match="is not square")
cholesky.error_sample(-np.ones((2, 2)), match="is not positive definite: leading minor 1")
cholesky.error_sample(
    np.stack([np.eye(2), [[1.0, 2.0], [2.0, 1.0]]]), match="matrix [1] of x: float32[2, 2, 2]"
)


@composite
def cholesky_solve(b, factor, *, upper=False):
    """The solution of `x y = b` by Cholesky's factor of x. b: float[..., N, K]. Returns: b's shape, batch broadcast."""
    y = solve_triangular(factor, b, upper=upper, adjoint=upper)
    return solve_triangular(factor, y, upper=upper, adjoint=not upper)


cholesky_solve.sample((3, 2), _spd(3)).sample((3, 2), _spd(3, 2), upper=True)


@composite
def cholesky_inverse(factor, *, upper=False):
    """The inverse of the matrix whose Cholesky factor is given."""
    need_matrix("cholesky_inverse", factor, "factor", square=True)
    return cholesky_solve(identity(factor.shape[-1], factor), factor, upper=upper)


cholesky_inverse.sample(_spd(3)).sample(_spd(3, 2), upper=True)


# ---------------------------------------------------------------- LU


@primitive(internal=True, complex="own", parts="permute_rows")
def permute_rows(x, pivots, *, inverse=False):
    """Exchange row i of x with row `pivots[i] - 1`, for all i in order; inverse: in reverse order."""
    out = np.broadcast_to(x, (*np.broadcast_shapes(x.shape[:-2], pivots.shape[:-1]), *x.shape[-2:])).copy()
    rows = np.broadcast_to(pivots, (*out.shape[:-2], pivots.shape[-1]))
    for batch in np.ndindex(out.shape[:-2]):
        order = range(pivots.shape[-1])
        for i in reversed(order) if inverse else order:
            j = rows[batch][i] - 1
            out[batch][[i, j]] = out[batch][[j, i]]
    return out


@permute_rows.type
def _(x, pivots, *, inverse):
    if pivots.dtype is not T.int32 or pivots.shape[-1:] > x.shape[-2:-1]:
        raise ShapeError(
            "permute_rows", f"pivots: {pivots} are no int32[..., {x.shape[-2]}]", "take lu_factor's"
        )
    batch = T.broadcast_shapes("permute_rows", x.shape[:-2], pivots.shape[:-1])
    return TensorType(x.dtype, (*batch, *x.shape[-2:]))


@permute_rows.grad
def x(g, pivots, inverse):
    return permute_rows(g, pivots, inverse=not inverse)


permute_rows.sample((3, 2), np.array([2, 3, 3], np.int32)).sample(
    (2, 3, 2), np.array([[3, 2, 3], [1, 3, 3]], np.int32), inverse=True
)


@primitive(complex="own", parts="lu_factor")
def lu_factor_ex(x):
    """The packed LU factors, the exchanges of rows and LAPACK's status codes; see `lu_factor`.

    Returns: float[..., M, N]; int32[..., min(M, N)]; int64[...]: 0, or the first pivot that is exactly zero.
    """
    lu, pivots, info = (
        x.copy(),
        np.zeros((*x.shape[:-2], min(x.shape[-2:])), np.int32),
        np.zeros(x.shape[:-2], np.int64),
    )
    for batch in np.ndindex(x.shape[:-2]):
        a = lu[batch]
        for k in range(min(a.shape)):
            j = k + int(np.argmax(np.abs(a[k:, k])))
            pivots[(*batch, k)] = j + 1
            a[[k, j]] = a[[j, k]]
            if a[k, k] != 0:
                a[k + 1 :, k] /= a[k, k]
                a[k + 1 :, k + 1 :] -= np.outer(a[k + 1 :, k], a[k, k + 1 :])
            elif info[batch] == 0:
                info[batch] = k + 1
    return lu, pivots, info


@lu_factor_ex.type
def _(x):
    need_matrix("lu_factor", x)
    batch = x.shape[:-2]
    return x, TensorType(T.int32, (*batch, min(x.shape[-2:]))), TensorType(T.int64, batch)


@lu_factor_ex.grad
def x(gs, outs):
    # With A = P L U: L^H gL below the diagonal, gU U^H on it and above, between L^-H and U^-H. Parts of L below
    # the square (tall) or of U beside it (wide) depend on A by the factors, and give back through them.
    lu, pivots, _ = outs
    g = gs[0]
    m, n = lu.shape[-2:]
    k = min(m, n)
    square = lu[..., :k, :k]
    inner_l = lower(matmul(adjoint(_unit_lower(square)), lower(g[..., :k, :k], -1)), -1)
    inner_u = matmul(upper(g[..., :k, :k]), adjoint(upper(square)))
    if n > m:
        inner_l = inner_l - lower(matmul(g[..., :, k:], adjoint(lu[..., :, k:])), -1)
    if m > n:
        inner_u = inner_u - matmul(adjoint(lu[..., k:, :]), g[..., k:, :])
    core = solve_triangular(square, inner_l + upper(inner_u), upper=False, unitriangular=True, adjoint=True)
    if m > n:
        from .shape import concat

        core = concat([core, g[..., k:, :]], axis=-2)
    core = solve_triangular(square, core, upper=True, left=False, adjoint=True)
    if n > m:
        from .shape import concat

        beside = solve_triangular(square, g[..., :, k:], upper=False, unitriangular=True, adjoint=True)
        core = concat([core, beside], axis=-1)
    return permute_rows(core, pivots, inverse=True)


def _unit_lower(x):
    return lower(x, -1) + identity(x.shape[-1], x)


lu_factor_ex.sample((3, 3)).sample((2, 4, 3)).sample((2, 3, 4)).sample((1, 1)).sample((2, 0, 0), grad=False)


def _check_singular(op, name, x, info):
    check(
        op, name, x, info, lambda k: f"is singular: pivot {k} is zero",
        "check the matrix, or use dg.linalg.lstsq or dg.linalg.pinv",
    )  # fmt: skip


@composite
def lu_factor(x):
    """The LU factors of x with partial pivoting, in one matrix, and the exchanges of rows.

    x: float[..., M, N]. Returns: float[..., M, N], the upper triangle of which is U and what is below L without its
    ones; int32[..., min(M, N)]: row i was exchanged with row `pivots[i] - 1`. Numerics: a singular x has a zero on
    U's diagonal and is no error. Source: LAPACK getrf.
    """
    return lu_factor_ex(x)[:2]


lu_factor.sample((3, 3)).sample((2, 4, 3))
lu_factor.error_sample((3,), match="is no matrix")


@composite
def lu(x):
    """P, L and U with `x = P L U`: a permutation, a unit lower and an upper triangular matrix.

    x: float[..., M, N]. Returns: [..., M, M], [..., M, K], [..., K, N] with K the smaller size.
    """
    need_matrix("lu", x)
    packed, pivots, _ = lu_factor_ex(x)
    m, n = x.shape[-2:]
    k = min(m, n)
    left = lower(packed[..., :, :k], -1)
    left = left + E.where(E.equal(offsets(left), 0), 1.0, 0.0).to(x.dtype)
    return permute_rows(identity(m, x), pivots, inverse=True), left, upper(packed[..., :k, :])


lu.sample((3, 3)).sample((2, 4, 3)).sample((3, 4))
lu.error_sample((3,), match="is no matrix")


@composite
def lu_solve(lu, pivots, b, *, left=True, adjoint=False):
    """The solution of `x y = b` (left) or `y x = b` by the LU factors of x; adjoint: x^H stands for x.

    lu, pivots: from `lu_factor`; b: float[..., N, K] (left) or float[..., K, N]. Returns: b's shape, batch broadcast.
    """
    need_matrix("lu_solve", lu, "lu", square=True)
    if pivots.dtype.has_gradient or pivots.shape[-1:] != lu.shape[-1:]:
        raise ShapeError(
            "lu_solve",
            f"pivots: {pivots.type} are no integers [..., {lu.shape[-1]}]",
            "take those of lu_factor",
        )
    pivots = E.cast(pivots, dtype=T.int32)  # what kernels read
    if not left:
        return _h(lu_solve(lu, pivots, _h(b), adjoint=not adjoint))
    if adjoint:
        y = solve_triangular(lu, b, upper=True, adjoint=True)
        y = solve_triangular(lu, y, upper=False, unitriangular=True, adjoint=True)
        return permute_rows(y, pivots, inverse=True)
    y = permute_rows(b, pivots)
    y = solve_triangular(lu, y, upper=False, unitriangular=True)
    return solve_triangular(lu, y, upper=True)


_h = adjoint
_PIVOTS = np.array([3, 3, 3], np.int32)
lu_solve.sample(_regular(3), _PIVOTS, (3, 2)).sample(_regular(3), _PIVOTS, (2, 3, 1), adjoint=True)
lu_solve.sample(_regular(3), _PIVOTS, (2, 3), left=False)


@primitive(internal=True, complex="own", parts="solve_with")
def solve_with(a, b, lu, pivots, *, adjoint=False):
    """The solution of `a x = b` (adjoint: `a^H x = b`), computed by a's LU factors, which are not differentiated."""
    return np.linalg.solve(np.swapaxes(a, -1, -2).conj() if adjoint else a, b)


@solve_with.type
def _(a, b, lu, pivots, *, adjoint):
    return TensorType(b.dtype, (*_batch("solve", a, b), *b.shape[-2:]))


@solve_with.grad_joint
def _(g, a, out, lu, pivots, adjoint):
    return _solution_grads(g, a, out, lu, pivots, adjoint)


def _solution_grads(g, a, out, lu, pivots, turned):
    gb = solve_with(a, g, lu, pivots, adjoint=not turned)
    ga = matmul(out, adjoint(gb)) if turned else matmul(gb, adjoint(out))
    return -ga, gb, None, None


def _lu_example(x):
    packed, pivots, _ = lu_factor_ex.fn(x)
    return x, packed, pivots


for _a, _packed, _rows in (_lu_example(_regular(3)), _lu_example(_regular(3, 2))):
    solve_with.sample(_a, np.ones((3, 2)), _packed, _rows, grad=False)
    solve_with.sample(_a, np.ones((2, 3, 1)), _packed, _rows, grad=False, adjoint=True)


def _factors(op, a):
    """a's LU factors without history, when it is regular."""
    packed, pivots, info = lu_factor_ex(a.detach())
    _check_singular(op, "a" if op == "solve" else "x", a, info)
    return packed, pivots


def _solve(op, a, b, left, factors):
    need_matrix(op, a, "a", square=True)
    vector = b.ndim == 1
    if vector:
        b = expand_dims(b, axis=-1 if left else 0)
    need_matrix(op, b, "b")
    dtype = T.promote(a.dtype, b.dtype)
    a, b = a.to(dtype), b.to(dtype)
    if b.shape[-2 if left else -1] != a.shape[-1]:
        what = "rows" if left else "columns"
        raise ShapeError(
            op, f"a: {a.type} has {a.shape[-1]} {what}, b: {b.type} does not fit", "check their order"
        )
    if not left:
        a, b = adjoint(a), adjoint(b)
    x = solve_with(a, b, *factors(a))
    x = x if left else adjoint(x)
    return reshape(x, shape=x.shape[:-1] if left else (*x.shape[:-2], x.shape[-1])) if vector else x


@composite
def solve(a, b, *, left=True):
    """The solution x of `a x = b` (left) or `x a = b`.

    a: float[..., N, N]; b: float[N], or float[..., N, K] (left), or float[..., K, N]; leading axes broadcast. As in
    the array API a vector has one axis, never a batch. Returns: float[..., N], or b's shape, batch broadcast.
    Raises: LinAlgError for singular a, ShapeError, DtypeError. Numerics: LU with partial pivoting; the gradient
    uses the same factors. Source: LAPACK getrf, array API solve.
    Example: `dg.linalg.solve(dg.tensor([[2.0, 0.0], [0.0, 4.0]]), dg.tensor([2.0, 2.0]))` is `[1.0, 0.5]`.
    """
    return _solve("solve", a, b, left, lambda m: _factors("solve", m))


solve.sample(_regular(3), (3,)).sample(_regular(3), (3, 2)).sample(_regular(3, 2), (3, 2)).sample(
    _regular(3, 2), (3,)
)
solve.sample(_regular(3), (2, 3), left=False).sample(_regular(2, 3), (2, 1, 2, 2)).sample(
    np.zeros((0, 0)), np.zeros((0, 2))
)
solve.error_sample((2, 3), (2,), match="is not square")
solve.error_sample((3, 3), (2,), match="has 3 rows")
solve.error_sample(np.zeros((2, 2)), np.ones(2), match="is singular: pivot 1 is zero")
solve.error_sample(
    np.stack([np.eye(2), np.ones((2, 2))]), np.ones((2, 1)), match="matrix [1] of a: float32[2, 2, 2]"
)


@composite
def solve_ex(a, b, *, left=True):
    """The solution of `solve` and LAPACK's status codes; a singular matrix gives infinities or NaN, no error."""
    found = []

    def factors(m):
        *both, info = lu_factor_ex(m.detach())
        found.append(info)
        return both

    return _solve("solve_ex", a, b, left, factors), found[0]


solve_ex.sample(_regular(3), (3, 2)).sample(np.ones((2, 2)), np.ones(2), grad=False)


@composite
def inv(x):
    """The inverse of square matrices. x: float[..., N, N]. Raises: LinAlgError for a singular one.

    Numerics: by LU with partial pivoting. Source: array API inv.
    """
    need_matrix("inv", x, square=True)
    return solve_with(x, identity(x.shape[-1], x), *_factors("inv", x))


inv.sample(_regular(3)).sample(_regular(2, 3)).sample((1, 1), low=1.0)
inv.error_sample((2, 3), match="is not square")
inv.error_sample(np.zeros((2, 2)), match="is singular: pivot 1 is zero")


@composite
def inv_ex(x):
    """The inverse and LAPACK's status codes; a singular matrix gives infinities or NaN, no error."""
    need_matrix("inv_ex", x, square=True)
    packed, pivots, info = lu_factor_ex(x.detach())
    return solve_with(x, identity(x.shape[-1], x), packed, pivots), info


inv_ex.sample(_regular(3))


# ---------------------------------------------------------------- determinants


def _parity(pivots, dtype):
    """1 for an even number of exchanges, -1 for an odd one."""
    from .creation import arange

    at = arange(1, pivots.shape[-1] + 1, dtype=T.int32, device=pivots.device)
    count = sum_(E.not_equal(pivots, at), axis=-1)
    return 1 - 2 * E.remainder(count, 2).to(dtype)


def _onnx_det(o, x):
    return o.cast(o.Det(o.cast(x, T.float32)), x.dtype) if x.dtype.is_half else o.Det(x)


@composite(onnx=_onnx_det)
def det(x):
    """The determinant of square matrices. x: float[..., N, N]. Returns: float[...]; 1 for N = 0.

    Numerics: the product of U's diagonal by LU, which may overflow: see `slogdet`. The gradient is
    `det(x) inv(x)^H`; for a singular x that of a matrix with the zero pivots replaced by rounding errors, which is
    right for rank N - 1. Source: ONNX Det, array API det.
    Example: `dg.linalg.det(dg.tensor([[1.0, 2.0], [3.0, 4.0]])).shape` is `()`.
    """
    need_matrix("det", x, square=True)
    packed, pivots, _ = lu_factor_ex(x)
    return prod(diagonal(packed), axis=-1) * _parity(pivots, x.dtype)


@det.grad
def x(g, x, out):
    packed, pivots, _ = lu_factor_ex(x.detach())
    unit = float(finfo(x.dtype).eps)
    scale = max_(E.abs_(packed), axis=(-2, -1), keepdims=True) * unit
    scale = E.where(E.equal(scale, 0), unit, scale)
    zero = E.logical_and(E.equal(offsets(packed), 0), E.equal(packed, 0))
    patched = E.where(zero, scale, packed)
    value = prod(diagonal(patched), axis=-1) * _parity(pivots, x.dtype)
    factor = g * conjugate(E.where(E.equal(out, 0), value, out))
    inverse = solve_with(x, identity(x.shape[-1], x), patched, pivots, adjoint=True)
    return inverse * expand_dims(expand_dims(factor, axis=-1), axis=-1)


det.sample((3, 3)).sample((2, 2, 2)).sample((1, 1))
det.error_sample((2, 3), match="is not square")


@composite
def slogdet(x):
    """The sign and the logarithm of the absolute value of the determinant, without overflow.

    x: float[..., N, N]. Returns: float[...] of 1, -1 or 0; float[...], minus infinity for a singular matrix.
    Numerics: the gradient is `inv(x)^H`, infinite or NaN at a singular x. Source: array API slogdet.
    """
    need_matrix("slogdet", x, square=True)
    packed, pivots, _ = lu_factor_ex(x)
    d = diagonal(packed)
    sign = prod(E.sign(d), axis=-1) * _parity(pivots, x.dtype)
    return sign, sum_(E.log(E.abs_(d)), axis=-1)


@slogdet.grad
def x(gs, x, outs):
    packed, pivots, _ = lu_factor_ex(x.detach())
    inverse = solve_with(x, identity(x.shape[-1], x), packed, pivots, adjoint=True)
    g = gs[1]
    if x.dtype.is_complex:  # the sign turns with the imaginary part of the relative change
        g = REGISTRY["complex"](g, REGISTRY["imag"](gs[0] * conjugate(outs[0])))
    return inverse * expand_dims(expand_dims(g, axis=-1), axis=-1)


slogdet.sample((3, 3)).sample((2, 2, 2)).sample(_spd(3))
slogdet.error_sample((2, 3), match="is not square")


@composite
def logdet(x):
    """The logarithm of the determinant: NaN for a negative one, minus infinity for a singular matrix."""
    need_matrix("logdet", x, square=True)
    sign, value = slogdet(x)
    return E.where(E.equal(sign, -1), float("nan"), value)


logdet.sample(_spd(3)).sample(_spd(2, 3))
logdet.error_sample((2, 3), match="is not square")
