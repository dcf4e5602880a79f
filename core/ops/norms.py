"""Norms of vectors and matrices, and what singular values tell: rank, condition, pseudo-inverse, least squares;
powers and the exponential of matrices."""

# Gradient rules are named after the input they are for, so names repeat here.
# ruff: noqa: F811
from __future__ import annotations

import math

import numpy as np

from .. import types as T
from ..dtype_info import finfo
from ..errors import ArgumentError, ArgumentTypeError, ShapeError
from ..op import composite
from ..types import normalize_axes, normalize_axis
from . import elementwise as E
from .decomposition import eigvalsh, spectral, svd, svdvals
from .linalg import matmul
from .matrices import adjoint, identity, need_matrix, real_dtype
from .reduction import max_, min_, sum_
from .shape import concat, expand_dims, permute, reshape
from .solve import inv, inv_ex, solve

_INF = math.inf


def _floats(x):
    return x if x.dtype.is_float or x.dtype.kind == "complex" else x.to(T.default_float)


def _number(op, ord):
    if isinstance(ord, bool) or not isinstance(ord, (int, float)):
        raise ArgumentTypeError(
            op, f"ord={ord!r} is not a number", "use 1, 2, inf, -inf, 0 or another number"
        )
    return float(ord)


def _extreme(op, of, x, ord, axis, keepdims=False):
    """The largest of numbers >= 0 for a positive ord, 0 of none; the smallest for a negative one."""
    axes = normalize_axes(op, axis, x.ndim)
    if all(x.shape[a] for a in axes):
        return (max_ if ord > 0 else min_)(x, axis=axes, keepdims=keepdims)
    if ord < 0 and 0 not in (n for a, n in enumerate(x.shape) if a not in axes):
        raise ArgumentError(
            op,
            f"ord={ord!r} takes the smallest of no values, x: {of.type}",
            "check the size first; a positive ord gives 0",
        )
    return sum_(x, axis=axes, keepdims=keepdims)


# ---------------------------------------------------------------- vectors


@composite
def vector_norm(x, *, axis=None, keepdims=False, ord=2):
    """`sum(|x|**ord) ** (1 / ord)` over axes; the largest |x| for inf, the smallest for -inf,
    the count of nonzeros for 0.

    x: float[...] (integers are converted). axis: an int, a tuple, or None for all. Returns: x's real dtype.
    Raises: ArgumentError for -inf over an empty axis (inf gives 0, as in NumPy).
    Numerics: where the norm is 0 its gradient is 0; equal largest elements share it. Source: array API vector_norm.
    Example: `dg.linalg.vector_norm(dg.tensor([3.0, 4.0]))` is `5.0`.
    """
    x, ord = _floats(x), _number("vector_norm", ord)
    size = E.abs_(x)
    if ord in (_INF, -_INF):
        return _extreme("vector_norm", x, size, ord, axis, keepdims)
    if ord == 0:
        return sum_(E.not_equal(x, 0).to(size.dtype), axis=axis, keepdims=keepdims)
    if ord == 1:
        return sum_(size, axis=axis, keepdims=keepdims)
    if ord == 2:
        return E.sqrt(sum_(E.square(size), axis=axis, keepdims=keepdims))
    return E.power(sum_(E.power(size, ord), axis=axis, keepdims=keepdims), 1 / ord)


@vector_norm.normalize
def _(inputs, axis, keepdims, ord):
    axis = tuple(axis) if isinstance(axis, list) else axis
    if axis is not None and hasattr(inputs[0], "shape"):
        normalize_axes("vector_norm", axis, len(inputs[0].shape), inputs[0].type)
    return axis, keepdims, ord


@vector_norm.grad
def x(g, x, out, axis, keepdims, ord):
    if not keepdims and x.ndim:
        axes = normalize_axes("vector_norm", axis, x.ndim)
        shape = tuple(1 if a in axes else n for a, n in enumerate(x.shape))
        g, out = reshape(g, shape=shape), reshape(out, shape=shape)
    ord, size = float(ord), E.abs_(x)
    if ord == 0:
        return g * E.where(E.equal(size, size), 0.0, 0.0).to(size.dtype)
    sign = E.sign(x)
    if ord in (_INF, -_INF):
        hit = E.equal(size, out).to(size.dtype)
        return g * sign * hit / sum_(hit, axis=axis, keepdims=True)
    if ord == 1:
        return g * sign
    none = E.equal(out, 0)
    if ord == 2:
        return x * (E.where(none, 0.0, g) / E.where(none, 1.0, out))
    flat = E.equal(size, 0)
    slope = E.where(flat, 0.0, E.power(E.where(flat, 1.0, size), ord - 1))
    return sign * slope * (E.where(none, 0.0, g) / E.power(E.where(none, 1.0, out), ord - 1))


vector_norm.sample((3, 4)).sample((2, 3, 4), axis=1, ord=1).sample(
    (2, 3, 4), axis=(0, 2), keepdims=True, ord=3
)
vector_norm.sample((3, 4), axis=-1, ord=_INF).sample((3, 4), axis=0, ord=-_INF).sample((5,), ord=0).sample(
    (5,), ord=0.5
)
vector_norm.sample((3, 4), ord=-1, low=0.5).sample(()).sample((0,), ord=_INF).sample(
    (2, 0, 3), axis=1, ord=_INF
)
vector_norm.error_sample((0,), ord=-_INF, match="smallest of no values")
vector_norm.error_sample((2, 3), axis=3, match="axis=3 is outside")
vector_norm.error_sample((2, 3), ord="fro", match="is not a number")


# ---------------------------------------------------------------- matrices


def _matrix_axes(op, x, axis):
    axes = tuple(axis) if isinstance(axis, (list, tuple)) else (axis,)
    if len(axes) != 2:
        raise ArgumentError(op, f"axis={axis} does not name two axes", "pass (axis of rows, axis of columns)")
    rows, columns = (normalize_axis(op, a, x.ndim, x.type) for a in axes)
    if rows == columns:
        raise ArgumentError(op, f"axis={axis} names an axis twice", "name two axes")
    return rows, columns


@composite
def matrix_norm(x, *, axis=(-2, -1), keepdims=False, ord="fro"):
    """A norm of matrices: "fro" (root of the sum of squares), "nuc" (sum of singular values), 2 and -2 (largest and
    smallest singular value), inf and -inf (largest and smallest sum of a row), 1 and -1 (of a column).

    x: float[...]; axis: rows and columns. Returns: x's real dtype; 0 where the largest of no values is asked for.
    Raises: ArgumentError for the smallest of no values. Source: array API matrix_norm.
    """
    x = _floats(x)
    if x.ndim < 2:
        raise ShapeError("matrix_norm", f"x: {x.type} is no matrix", "use dg.linalg.vector_norm")
    rows, columns = _matrix_axes("matrix_norm", x, axis)
    if ord == "fro":
        return vector_norm(x, axis=(rows, columns), keepdims=keepdims)
    if ord in ("nuc", 2, -2):
        rest = [a for a in range(x.ndim) if a not in (rows, columns)]
        s = svdvals(permute(x, axes=(*rest, rows, columns)))
        out = sum_(s, axis=-1) if ord == "nuc" else _extreme("matrix_norm", x, s, ord, -1)
    elif ord in (1, -1, _INF, -_INF):
        first, second = (columns, rows) if abs(ord) == _INF else (rows, columns)
        sums = sum_(E.abs_(x), axis=first, keepdims=True)
        out = _extreme("matrix_norm", x, sums, ord, second, keepdims=True)
    else:
        raise ArgumentError("matrix_norm", f"ord={ord!r}", 'use "fro", "nuc", 1, -1, 2, -2, inf or -inf')
    kept = tuple(1 if a in (rows, columns) else n for a, n in enumerate(x.shape))
    return reshape(
        out, shape=kept if keepdims else tuple(n for a, n in enumerate(x.shape) if a not in (rows, columns))
    )


@matrix_norm.normalize
def _(inputs, axis, keepdims, ord):
    return tuple(axis) if isinstance(axis, list) else axis, keepdims, ord


matrix_norm.sample((3, 4)).sample((2, 3, 3), ord="nuc").sample((2, 3, 4), ord=2, keepdims=True).sample(
    (3, 2), ord=-2
)
matrix_norm.sample((2, 3, 4), ord=1, axis=(0, 1)).sample((3, 2, 4), ord=_INF, axis=(2, 0), keepdims=True)
matrix_norm.sample((3, 4), ord=-1).sample((3, 4), ord=-_INF)
matrix_norm.sample((0, 3), ord=_INF).sample((2, 3, 0), ord=1, keepdims=True).sample((0, 0), ord=2)
matrix_norm.error_sample((2, 0), ord=-2, match="smallest of no values")
matrix_norm.error_sample((3,), match="is no matrix")
matrix_norm.error_sample((3, 3), ord=3, match="ord=3")


@composite
def norm(x, *, ord=None, axis=None, keepdims=False):
    """A norm of a vector or a matrix, as NumPy chooses it.

    ord: see `vector_norm` and `matrix_norm`; None for the root of the sum of squares. axis: one axis (vectors), two
    (matrices), or None: all axes, which must be one or two when ord is given.
    """
    if axis is None and ord is not None:
        if x.ndim not in (1, 2):
            raise ShapeError("norm", f"ord={ord} of x: {x.type} is not defined", "name one axis or two")
        axis = tuple(range(x.ndim))
    axes = (axis,) if isinstance(axis, int) else axis
    if ord is None or (axes is not None and len(axes) == 1):
        return vector_norm(x, axis=axis, keepdims=keepdims, ord=2 if ord is None else ord)
    return matrix_norm(x, axis=axes, keepdims=keepdims, ord=ord)


norm.sample((3, 4)).sample((2, 3, 4), axis=1, ord=1).sample((2, 3, 4), axis=(0, 2), ord="fro").sample(
    (4,), ord=3
)
norm.error_sample((2, 2, 2), ord=2, match="is not defined")


@composite(name="condition", internal=True)
def condition(x, *, p=None):
    """The condition number: the norm of x times the norm of its inverse.

    x: float[..., M, N], square unless p is None, 2 or -2; p: as ord in `matrix_norm`, None for 2. Returns: float[...];
    infinity for a singular matrix.
    """
    need_matrix("cond", x)
    if p in (None, 2, -2):
        s = svdvals(x)
        top, bottom = max_(s, axis=-1), min_(s, axis=-1)
        return top / bottom if p != -2 else bottom / top
    need_matrix("cond", x, square=True)
    inverse, info = inv_ex(x)
    return E.where(E.equal(info, 0), matrix_norm(x, ord=p) * matrix_norm(inverse, ord=p), _INF)


condition.sample((3, 3)).sample((2, 4, 3), p=-2).sample((3, 3), p=1).sample((2, 3, 3), p="fro")


# ---------------------------------------------------------------- what singular values tell


def _tolerance(x, largest, rtol, atol):
    """The bound below which a singular value counts as zero."""
    if rtol is None:
        rtol = max(x.shape[-2:]) * float(finfo(x.dtype).eps) if atol is None else 0.0
    bound = largest * (expand_dims(rtol, axis=-1) if getattr(rtol, "ndim", 0) else rtol)
    if atol is None:
        return bound
    return E.maximum(bound, expand_dims(atol, axis=-1) if getattr(atol, "ndim", 0) else atol)


@composite
def matrix_rank(x, *, rtol=None, atol=None, hermitian=False):
    """How many singular values exceed `max(atol, rtol * the largest)`.

    x: float[..., M, N]; rtol: a number, the larger size times the dtype's precision when None; hermitian: x is
    symmetric, and eigenvalues are computed instead. Returns: int64[...]. Source: array API matrix_rank.
    """
    need_matrix("matrix_rank", x, square=hermitian)
    if 0 in x.shape[-2:]:
        return sum_(E.not_equal(x, x), axis=(-2, -1))
    s = E.abs_(eigvalsh(x.detach())) if hermitian else svdvals(x.detach())
    return sum_(E.greater(s, _tolerance(x, max_(s, axis=-1, keepdims=True), rtol, atol)), axis=-1)


matrix_rank.sample((4, 3), grad=False).sample(np.ones((2, 3, 3)), grad=False, hermitian=True)
matrix_rank.sample((3, 3), grad=False, rtol=0.5).sample((2, 0, 3), grad=False)
matrix_rank.error_sample((3,), match="is no matrix")


@composite
def pinv(x, *, rtol=None, atol=None, hermitian=False):
    """The pseudo-inverse: singular values up to `max(atol, rtol * the largest)` count as zero.

    x: float[..., M, N]; rtol: a number, the larger size times the dtype's precision when None; hermitian: x is
    symmetric. Returns: float[..., N, M]. Numerics: the gradient is that of constant rank. Source: array API pinv.
    """
    need_matrix("pinv", x, square=hermitian)
    if x.size == 0:
        return adjoint(x)
    if not hermitian:
        return _pseudo(x, *svd(x, full_matrices=False), rtol, atol)

    def inverse(w):
        size = E.abs_(w)
        return _inverted(w, E.greater(size, _tolerance(x, max_(size, axis=-1, keepdims=True), rtol, atol)))

    return spectral(x, inverse)


def _inverted(s, kept):
    return E.where(kept, 1.0 / E.where(kept, s, 1.0), 0.0)


def _pseudo(x, u, s, vh, rtol, atol):
    """The pseudo-inverse by singular values."""
    scale = _inverted(s, E.greater(s, _tolerance(x, s[..., :1], rtol, atol)))
    return matmul(adjoint(vh) * expand_dims(scale, axis=-2), adjoint(u))


@pinv.grad
def x(g, x, out):
    return _pinv_grad(g, x, out)


def _pinv_grad(g, x, p):
    # G. Golub, V. Pereyra, The differentiation of pseudo-inverses, 1973
    ph, gh = adjoint(p), adjoint(g)
    direct = -matmul(ph, matmul(g, ph))
    left = matmul(gh, matmul(p, ph))
    right = matmul(matmul(ph, p), gh)
    return direct + (left - matmul(x, matmul(p, left))) + (right - matmul(matmul(right, p), x))


pinv.sample((3, 3)).sample((4, 2)).sample((2, 2, 4)).sample((2, 0, 3), grad=False)
pinv.error_sample((3,), match="is no matrix")


@composite(internal=True)
def lstsq_with(a, b, p, *, rtol=None):
    """`p b` for p the pseudo-inverse of a, which is not differentiated: a is."""
    return matmul(p, b)


@lstsq_with.grad_joint
def _(g, a, b, rtol):
    p = pinv(a, rtol=rtol)
    return _pinv_grad(matmul(g, adjoint(b)), a, p), matmul(adjoint(p), g), None


lstsq_with.sample(np.diag([1.0, 2.0]), (2, 3), np.diag([1.0, 0.5]), grad=False)


@composite
def lstsq(a, b, *, rcond=None):
    """The x of least norm that makes `|a x - b|` least.

    a: float[..., M, N], b: float[M] or float[..., M, K]; rcond: singular values up to rcond times the largest count
    as zero, the larger size times the dtype's precision when None.
    Returns: x: float[..., N] or [..., N, K]; residuals: float[..., K], the sums of squares of `b - a x` (empty when
    M <= N); rank: int64[...]; singular values: float[..., min(M, N)]. Gradients flow through x and the residuals.
    Raises: LinAlgError, ShapeError. Source: numpy.linalg.lstsq.
    """
    need_matrix("lstsq", a, "a")
    vector = b.ndim == 1
    dtype = T.promote(a.dtype, b.dtype)
    a, b = a.to(dtype), b.to(dtype)
    if vector:
        b = expand_dims(b, axis=-1)
    if b.ndim < 2 or b.shape[-2] != a.shape[-2]:
        raise ShapeError(
            "lstsq", f"a: {a.type} has {a.shape[-2]} rows, b: {b.type} does not fit", "make them equal"
        )
    u, s, vh = svd(a, full_matrices=False)
    x = lstsq_with(a, b, _pseudo(a.detach(), u.detach(), s.detach(), vh.detach(), rcond, None), rtol=rcond)
    rest = b - matmul(a, x)
    residuals = sum_(E.square(E.abs_(rest)), axis=-2) if a.shape[-2] > a.shape[-1] else rest[..., :0, 0]
    rank = sum_(E.greater(s, _tolerance(a, s[..., :1], rcond, None)), axis=-1)
    return reshape(x, shape=x.shape[:-1]) if vector else x, residuals, rank, s


lstsq.sample((4, 2), (4,)).sample((4, 2), (4, 3)).sample((2, 2, 4), (2, 2, 3)).sample((3, 3), (3, 1))
lstsq.error_sample((4, 2), (3,), match="has 4 rows")


# ---------------------------------------------------------------- powers and exponential


@composite
def matrix_power(x, *, n):
    """The product of n copies of square matrices; the inverse's for negative n, the unit matrix for 0.

    Raises: LinAlgError for negative n and a singular x. Source: array API matrix_power.
    """
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)):
        raise ArgumentTypeError("matrix_power", f"n={n!r} is not an integer", "pass an int")
    if x.ndim < 2 or x.shape[-1] != x.shape[-2]:
        raise ShapeError("matrix_power", f"x: {x.type} is not square", "its last two axes must agree")
    if n == 0:
        return identity(x.shape[-1], x) + x * 0 if x.size else x
    if n < 0:
        x, n = inv(x), -n
    out = None
    while n:
        if n & 1:
            out = x if out is None else matmul(out, x)
        n >>= 1
        if n:
            x = matmul(x, x)
    return out


matrix_power.sample((3, 3), n=3).sample((2, 3, 3), n=0).sample((3, 3), n=-2).sample((2, 2), n=1)
matrix_power.error_sample((2, 3), n=2, match="is not square")
matrix_power.error_sample((2, 2), n=0.5, match="is not an integer")

#: Padé numerators of exp and the 1-norm up to which they are exact to rounding (N. Higham, 2005)
_PADE = {
    "float32": (3.925724783138660, (17297280.0, 8648640.0, 1995840.0, 277200.0, 25200.0, 1512.0, 56.0, 1.0)),
    "float64": (
        5.371920351148152,
        (
            64764752532480000.0, 32382376266240000.0, 7771770303897600.0, 1187353796428800.0, 129060195264000.0,
            10559470521600.0, 670442572800.0, 33522128640.0, 1323241920.0, 40840800.0, 960960.0, 16380.0, 182.0, 1.0,
        ),
    ),
}  # fmt: skip


@composite(parts="matrix_exp")
def matrix_exp(x):
    """The exponential of square matrices. x: float[..., N, N]. Returns: x's type.

    Numerics: a Padé approximant of x scaled by a power of two, squared again; the norm of x is read to choose it
    (in a graph: the value ends a segment). Source: N. Higham, 2005.
    """
    need_matrix("matrix_exp", x, square=True)
    if x.size == 0:
        return x
    if x.dtype.is_half:
        return matrix_exp(x.to(T.float32)).to(x.dtype)
    bound, _ = _PADE[real_dtype(x.dtype).name]
    largest = max_(sum_(E.abs_(x.detach()), axis=-2)).item()
    halvings = max(0, math.ceil(math.log2(largest / bound))) if bound < largest < _INF else 0
    out = pade(x * 2.0**-halvings)
    for _ in range(halvings):
        out = matmul(out, out)
    return out


def pade(x):
    """The exponential of matrices of small norm."""
    _, numbers = _PADE[real_dtype(x.dtype).name]
    unit, square = identity(x.shape[-1], x), matmul(x, x)
    odd, even, power = unit * numbers[1], unit * numbers[0], None
    for k in range(2, len(numbers), 2):
        power = square if power is None else matmul(power, square)
        even = even + power * numbers[k]
        odd = odd + power * numbers[k + 1]
    odd = matmul(x, odd)
    return solve(even - odd, even + odd)


@matrix_exp.type
def _(x):
    need_matrix("matrix_exp", x, square=True)
    return x


@matrix_exp.grad
def x(g, x):
    # exp([[A, E], [0, A]]) has the derivative along E in its corner
    a = adjoint(x)
    both = concat([concat([a, g], axis=-1), concat([a * 0.0, a], axis=-1)], axis=-2)
    n = x.shape[-1]
    return matrix_exp(both)[..., :n, n:]


matrix_exp.sample((3, 3)).sample((2, 2, 2), low=-9.0, high=9.0, grad=False).sample((1, 1))
matrix_exp.error_sample((2, 3), match="is not square")


# ---------------------------------------------------------------- systems over several axes


@composite
def tensorinv(x, *, ind=2):
    """The inverse for `tensordot` over `ind` axes: x is a square matrix of its first ind and its other axes."""
    rows, columns = x.shape[:ind], x.shape[ind:]
    if ind < 1 or math.prod(rows) != math.prod(columns):
        raise ShapeError(
            "tensorinv", f"x: {x.type} is not square in its first {ind} axes and the rest", "change ind"
        )
    return reshape(inv(reshape(x, shape=(math.prod(rows), -1))), shape=columns + rows)


tensorinv.sample((4, 2, 2), ind=1).sample((2, 3, 6))
tensorinv.error_sample((2, 3, 4), match="is not square")


@composite
def tensorsolve(a, b):
    """The x with `tensordot(a, x, axes=x.ndim)` equal to b: a is a square matrix of b's axes and the rest."""
    if a.shape[: b.ndim] != b.shape or math.prod(a.shape[b.ndim :]) != b.size:
        raise ShapeError(
            "tensorsolve", f"a: {a.type} is no square matrix over b: {b.type}", "a begins with b's axes"
        )
    return reshape(solve(reshape(a, shape=(b.size, -1)), reshape(b, shape=(-1,))), shape=a.shape[b.ndim :])


tensorsolve.sample((2, 3, 6), (2, 3)).sample((4, 2, 2), (4,))
tensorsolve.error_sample((2, 3, 4), (2, 3), match="no square matrix")
