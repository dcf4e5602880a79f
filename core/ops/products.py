"""Products by other names than matmul: tensordot, vecdot, outer, kron, cross, chains, and sums with a product."""

# Gradient rules are named after the input they are for, so names repeat here.
from __future__ import annotations

import itertools

from .. import types as T
from ..errors import ArgumentError, ArgumentTypeError, DtypeError, ShapeError
from ..op import Ints, composite, pointwise
from ..types import normalize_axis
from .complex import conj
from .einsum import contract, diagonal_of_last, einsum_
from .linalg import matmul
from .reduction import sum_
from .shape import broadcast_to, expand_dims, permute, reshape, slice_, stack, transpose


def _need_rank(op, *wanted):
    """Refuse operands of another rank. wanted: (name, tensor, rank) each."""
    for name, x, rank in wanted:
        if x.ndim != rank:
            kind = {1: "a vector", 2: "a matrix", 3: "a batch of matrices"}[rank]
            raise ShapeError(op, f"{name}: {x.type} is not {kind}", "use dg.matmul, which takes any rank")


def _need_numbers(op, *xs):
    if all(x.dtype is T.bool_ for x in xs):
        raise DtypeError(op, f"takes numbers, got {xs[0].type}", "convert with .to(dg.int64)")


# ---------------------------------------------------------------- contractions


def _pairs_of_axes(x, y, axes):
    """The axes of x and of y that are summed together."""
    if isinstance(axes, int):
        if not 0 <= axes <= min(x.ndim, y.ndim):
            raise ArgumentError(
                "tensordot", f"axes={axes} does not fit x: {x.type} and y: {y.type}", "name at most all axes"
            )
        return tuple(range(x.ndim - axes, x.ndim)), tuple(range(axes))
    if len(axes) != 2:
        raise ArgumentError(
            "tensordot", f"axes={axes} is not a pair", "pass (axes of x, axes of y), or a number"
        )
    pair = [(a,) if isinstance(a, int) else tuple(a) for a in axes]
    if len(pair[0]) != len(pair[1]):
        raise ArgumentError("tensordot", f"axes={axes} name different numbers of axes", "name axes in pairs")
    found = [tuple(normalize_axis("tensordot", a, t.ndim, t.type) for a in p) for p, t in zip(pair, (x, y))]
    if any(len(set(f)) != len(f) for f in found):
        raise ArgumentError("tensordot", f"axes={axes} names an axis twice", "name each axis once")
    return found


def _contract(op, x, y, x_axes, y_axes):
    for a, b in zip(x_axes, y_axes):
        if x.shape[a] != y.shape[b]:
            raise ShapeError(
                op,
                f"axis {a} of x: {x.type} and axis {b} of y: {y.type} differ in size",
                "transpose, or name others",
            )
    _need_numbers(op, x, y)
    dtype = T.promote(x.dtype, y.dtype)
    shared = dict(zip(y_axes, x_axes))
    a = tuple(range(x.ndim))
    b = tuple(shared.get(k, x.ndim + k) for k in range(y.ndim))
    return contract(x.to(dtype), a, y.to(dtype), b, frozenset(a) ^ frozenset(b))[0]


def _freeze(axes):
    return (
        tuple(tuple(a) if isinstance(a, (list, tuple)) else a for a in axes)
        if hasattr(axes, "__iter__")
        else axes
    )


@composite
def tensordot(x, y, *, axes=2):
    """The product summed over pairs of axes. axes: n for the last n of x and the first n of y, or two lists of axes.

    Returns: the other axes of x, then those of y; the promoted dtype. Raises: ArgumentError, ShapeError.
    Example: `dg.tensordot(dg.ones((2, 3)), dg.ones((3, 4)), axes=1).shape` is `(2, 4)`.
    """
    return _contract("tensordot", x, y, *_pairs_of_axes(x, y, axes))


@tensordot.normalize
def _(inputs, axes):
    return (_freeze(axes),)


tensordot.sample((2, 3, 4), (3, 4, 5)).sample((3, 4), (4, 3), axes=((0,), (1,))).sample((2,), (3,), axes=0)
tensordot.sample((2, 3, 4), (4, 2), axes=((2, 0), (0, 1))).sample(Ints((2, 3)), Ints((3, 2)), axes=1)
tensordot.error_sample((2, 3), (4, 5), axes=1, match="differ in size")
tensordot.error_sample((2, 3), (3, 5), axes=((0, 1), (0,)), match="different numbers")


@composite
def vecdot(x, y, *, axis=-1):
    """`sum(conj(x) * y)` along an axis; the other axes broadcast.

    axis: counted from the end of the broadcast shape when negative. Returns: the promoted dtype.
    Raises: ShapeError when the sizes along the axis differ. Source: array API vecdot.
    """
    if not x.ndim or not y.ndim:
        raise ShapeError("vecdot", f"needs an axis, got x: {x.type} and y: {y.type}", "use * for numbers")
    _need_numbers("vecdot", x, y)
    x = conj(x) if x.dtype.is_complex else x
    ndim = max(x.ndim, y.ndim)
    a = normalize_axis("vecdot", axis, ndim)
    x, y = (reshape(t, shape=(1,) * (ndim - t.ndim) + t.shape) for t in (x, y))
    if x.shape[a] != y.shape[a]:
        raise ShapeError(
            "vecdot", f"axis {axis} differs in size: x: {x.type}, y: {y.type}", "make them equal"
        )
    T.broadcast_shapes("vecdot", x.shape, y.shape)
    last = (*(k for k in range(ndim) if k != a), a)
    rows, columns = expand_dims(permute(x, axes=last), axis=-2), expand_dims(permute(y, axes=last), axis=-1)
    out = matmul(rows, columns)
    return reshape(out, shape=out.shape[:-2])


vecdot.sample((3, 4), (3, 4)).sample((2, 1, 4), (3, 4)).sample((4, 3), (4, 1), axis=0).sample((5,), (5,))
vecdot.sample(Ints((2, 3)), Ints((3,)))
vecdot.error_sample((3, 4), (3, 5), match="differs in size")


@composite
def dot(x, y):
    """NumPy's dot: numbers multiply; else the last axis of x is summed with the last but one of y (or its only one)."""
    if not x.ndim or not y.ndim:
        return x * y
    return _contract("dot", x, y, (x.ndim - 1,), (max(0, y.ndim - 2),))


dot.sample((3,), (3,)).sample((2, 3), (3, 4)).sample((2, 3), (3,)).sample((2, 3), (5, 3, 4)).sample((), (3,))
dot.error_sample((3,), (4,), match="differ in size")


@composite
def inner(x, y):
    """The product summed over the last axes of both; numbers multiply."""
    if not x.ndim or not y.ndim:
        return x * y
    return _contract("inner", x, y, (x.ndim - 1,), (y.ndim - 1,))


inner.sample((3,), (3,)).sample((2, 3), (4, 3)).sample((), (3,))
inner.error_sample((2, 3), (3, 2), match="differ in size")


@composite
def outer(x, y):
    """`x[i] * y[j]` for all elements of x and y in row-major order. Returns: [x.size, y.size]."""
    return reshape(x, shape=(-1, 1)) * reshape(y, shape=(1, -1))


outer.sample((3,), (4,)).sample((2, 2), (3,))


@composite
def kron(x, y):
    """The Kronecker product: every element of x times the whole of y. Returns: sizes multiply axis by axis."""
    ndim = max(x.ndim, y.ndim)
    a, b = ((1,) * (ndim - t.ndim) + t.shape for t in (x, y))
    left = reshape(x, shape=tuple(n for size in a for n in (size, 1)))
    right = reshape(y, shape=tuple(n for size in b for n in (1, size)))
    return reshape(left * right, shape=tuple(n * m for n, m in zip(a, b)))


kron.sample((2, 3), (3, 2)).sample((2,), (2, 3)).sample((2,), (3,)).sample((), (2, 2))


@pointwise(internal=True)
def cross_parts(x0, x1, x2, y0, y1, y2):
    """The three components of a cross product."""
    return x1 * y2 - x2 * y1, x2 * y0 - x0 * y2, x0 * y1 - x1 * y0


@cross_parts.grad_joint
def _(gs, x0, x1, x2, y0, y1, y2):
    # g . (x cross y): the gradient for x is y cross g, for y it is g cross x
    return (*cross_parts(y0, y1, y2, *gs), *cross_parts(*gs, x0, x1, x2))


cross_parts.sample((3,), (3,), (3,), (3,), (3,), (3,))


@composite
def cross(x, y, *, axis=-1):
    """The vector product of 3-vectors along an axis; the other axes broadcast.

    Returns: the promoted dtype. Raises: ShapeError unless both have size 3 there. Source: array API cross.
    Example: `dg.cross(dg.tensor([1, 0, 0]), dg.tensor([0, 1, 0]))` is `[0, 0, 1]`.
    """
    _need_numbers("cross", x, y)
    for name, t in (("x", x), ("y", y)):
        k = axis if axis < 0 else axis - max(x.ndim, y.ndim) + t.ndim
        if not -t.ndim <= k < t.ndim or t.shape[k] != 3:
            raise ShapeError(
                "cross", f"{name}: {t.type} has no axis {axis} of size 3", "pass 3-vectors along axis"
            )
    shape = T.broadcast_shapes("cross", x.shape, y.shape)
    a = normalize_axis("cross", axis, len(shape))
    parts = []
    for t in (x, y):
        if t.shape != shape:
            t = broadcast_to(t, shape=shape)
        parts += [slice_(t, index=(slice(None),) * a + (k,)) for k in range(3)]
    return stack(list(cross_parts(*parts)), axis=a)


cross.sample((3,), (3,)).sample((2, 3), (3,)).sample((3, 4), (3, 1), axis=0).sample((2, 1, 3), (4, 3))
cross.error_sample((2,), (2,), match="size 3")


# ---------------------------------------------------------------- products of fixed rank


@composite
def mm(x, y):
    """The product of two matrices. Raises: ShapeError for another rank; `matmul` takes any."""
    _need_rank("mm", ("x", x, 2), ("y", y, 2))
    return matmul(x, y)


mm.sample((2, 3), (3, 4))
mm.error_sample((2, 2, 3), (3, 4), match="is not a matrix")


@composite
def bmm(x, y):
    """The products of two batches of matrices, x: [B, M, K], y: [B, K, N]."""
    _need_rank("bmm", ("x", x, 3), ("y", y, 3))
    if x.shape[0] != y.shape[0]:
        raise ShapeError(
            "bmm", f"x: {x.type} and y: {y.type} differ in batch size", "use dg.matmul to broadcast"
        )
    return matmul(x, y)


bmm.sample((2, 3, 4), (2, 4, 5))
bmm.error_sample((2, 3, 4), (3, 4, 5), match="batch size")


@composite
def mv(x, y):
    """The product of a matrix and a vector."""
    _need_rank("mv", ("x", x, 2), ("y", y, 1))
    return matmul(x, y)


mv.sample((3, 4), (4,))
mv.error_sample((3, 4), (4, 1), match="is not a vector")


def _sum_of(op, c, product, beta, alpha):
    """`beta * c + alpha * product`, of the product's shape; c is not read when beta is 0."""
    if alpha != 1:
        product = product * alpha
    if beta == 0:
        return product
    T.broadcast_shapes(op, c.shape, product.shape)
    if T.broadcast_shapes(op, c.shape, product.shape) != product.shape:
        raise ShapeError(op, f"{c.type} does not broadcast to the product {product.type}", "reshape it")
    return product + (c if beta == 1 else c * beta)


def _onnx_addmm(o, c, x, y, *, beta, alpha):
    return o.Gemm(x, y, c, alpha=float(alpha), beta=float(beta))


@composite(onnx=_onnx_addmm)
def addmm(c, x, y, *, beta=1, alpha=1):
    """`beta * c + alpha * (x @ y)` of matrices; c broadcasts, and is not read when beta is 0. Source: ONNX Gemm."""
    _need_rank("addmm", ("x", x, 2), ("y", y, 2))
    return _sum_of("addmm", c, matmul(x, y), beta, alpha)


addmm.sample((2, 4), (2, 3), (3, 4)).sample((4,), (2, 3), (3, 4), beta=0.5, alpha=2.0)
addmm.error_sample((3,), (2, 3), (3, 4), match="do not broadcast")


@composite
def addmv(c, x, y, *, beta=1, alpha=1):
    """`beta * c + alpha * (x @ y)` of a matrix and a vector."""
    _need_rank("addmv", ("x", x, 2), ("y", y, 1))
    return _sum_of("addmv", c, matmul(x, y), beta, alpha)


addmv.sample((2,), (2, 3), (3,)).sample((2,), (2, 3), (3,), beta=0.5, alpha=2.0)


@composite
def addr(c, x, y, *, beta=1, alpha=1):
    """`beta * c + alpha * outer(x, y)` of vectors."""
    _need_rank("addr", ("x", x, 1), ("y", y, 1))
    return _sum_of("addr", c, outer(x, y), beta, alpha)


addr.sample((2, 3), (2,), (3,)).sample((3,), (2,), (3,), beta=0.5, alpha=2.0)


@composite
def baddbmm(c, x, y, *, beta=1, alpha=1):
    """`beta * c + alpha * (x @ y)` of batches of matrices."""
    _need_rank("baddbmm", ("x", x, 3), ("y", y, 3))
    return _sum_of("baddbmm", c, bmm(x, y), beta, alpha)


baddbmm.sample((2, 3, 5), (2, 3, 4), (2, 4, 5)).sample((5,), (2, 3, 4), (2, 4, 5), beta=0.5, alpha=2.0)


@composite
def addbmm(c, x, y, *, beta=1, alpha=1):
    """`beta * c + alpha * sum_b(x[b] @ y[b])`: the products of a batch added up."""
    _need_rank("addbmm", ("x", x, 3), ("y", y, 3))
    return _sum_of("addbmm", c, einsum_(x, y, equation="bij,bjk->ik"), beta, alpha)


addbmm.sample((3, 5), (2, 3, 4), (2, 4, 5)).sample((5,), (2, 3, 4), (2, 4, 5), beta=0.5, alpha=2.0)


@composite
def multi_dot(*xs):
    """The product of two or more matrices in the cheapest order; the first and the last may be vectors.

    xs: a list of tensors. Raises: ShapeError for other ranks. Source: numpy.linalg.multi_dot.
    """
    if len(xs) < 2:
        raise ArgumentError("multi_dot", f"needs two matrices or more, got {len(xs)}", "pass a list of them")
    for k, x in enumerate(xs):
        if x.ndim != 2 and not (x.ndim == 1 and k in (0, len(xs) - 1)):
            raise ShapeError(
                "multi_dot", f"operand {k}: {x.type} is not a matrix", "only the ends may be vectors"
            )
    labels = [chr(ord("a") + k) if k < 26 else chr(ord("A") + k - 26) for k in range(min(len(xs) + 1, 52))]
    if len(xs) + 1 > len(labels):
        return multi_dot(multi_dot(*xs[:32]), *xs[32:])
    for k, (x, y) in enumerate(itertools.pairwise(xs)):
        if x.shape[-1] != y.shape[0]:
            raise ShapeError(
                "multi_dot", f"operands {k}: {x.type} and {k + 1}: {y.type} do not fit", "check the order"
            )
    terms = [a + b for a, b in itertools.pairwise(labels)]
    ends = labels[0], labels[-1]
    if xs[0].ndim == 1:
        terms[0], ends = terms[0][1:], ("", ends[1])
    if xs[-1].ndim == 1:
        terms[-1], ends = terms[-1][:1], (ends[0], "")
    return einsum_(*xs, equation=f"{','.join(terms)}->{''.join(ends)}")


multi_dot.sample((2, 5), (5, 3), (3, 4)).sample((3,), (3, 4), (4,)).sample((2, 3), (3, 2))
multi_dot.error_sample((2, 3), (4, 5), match="do not fit")


@composite
def chain_matmul(*xs):
    """The product of matrices in the cheapest order; `multi_dot` takes vectors at the ends too."""
    for k, x in enumerate(xs):
        if x.ndim != 2:
            raise ShapeError("chain_matmul", f"operand {k}: {x.type} is not a matrix", "use dg.multi_dot")
    return xs[0] if len(xs) == 1 else multi_dot(*xs)


chain_matmul.sample((2, 5), (5, 3), (3, 4)).sample((2, 3))


@composite
def bilinear(x1, x2, w, b=None):
    """`x1 w[k] x2 + b[k]` for each output k.

    x1: float[..., I], x2: float[..., J], w: float[K, I, J], b: float[K] or None. Returns: float[..., K].
    Raises: ShapeError.
    """
    if w.ndim != 3 or x1.ndim == 0 or x2.ndim == 0 or (x1.shape[-1], x2.shape[-1]) != w.shape[1:]:
        raise ShapeError(
            "bilinear", f"x1: {x1.type} and x2: {x2.type} do not fit w: {w.type}", "w is [out, in1, in2]"
        )
    y = einsum_(x1, w, x2, equation="...i,kij,...j->...k")
    return y if b is None else y + b


bilinear.sample((2, 3), (2, 4), (5, 3, 4), (5,)).sample((3,), (4,), (2, 3, 4))
bilinear.error_sample((2, 3), (2, 4), (5, 4, 3), match="do not fit")


# ---------------------------------------------------------------- one matrix


@composite
def matrix_transpose(x):
    """x with its last two axes swapped. Returns: a view."""
    if x.ndim < 2:
        raise ShapeError("matrix_transpose", f"x: {x.type} is no matrix", "it needs two axes or more")
    return transpose(x)


matrix_transpose.sample((2, 3)).sample((2, 3, 4))
matrix_transpose.error_sample((3,), match="is no matrix")


@composite
def trace(x, *, offset=0, dtype=None):
    """The sum of a diagonal of the last two axes. offset: above (positive) or below the main one.

    dtype: elements are converted to it first. Returns: dtype, or as `sum`. Source: array API trace.
    """
    if x.ndim < 2:
        raise ShapeError("trace", f"x: {x.type} is no matrix", "it needs two axes or more")
    if not isinstance(offset, int):
        raise ArgumentTypeError("trace", f"offset={offset!r} is not an integer", "pass an int")
    rows, columns = x.shape[-2:]
    start, n = (max(-offset, 0), max(offset, 0)), 0
    n = max(0, min(rows - start[0], columns - start[1]))
    part = slice_(
        x, index=(Ellipsis, slice(min(start[0], rows), start[0] + n), slice(start[1], start[1] + n))
    )
    return sum_(diagonal_of_last(part), axis=-1, dtype=dtype)


trace.sample((3, 3)).sample((2, 3, 4)).sample((3, 4), offset=1).sample((3, 4), offset=-2).sample(
    (2, 2), offset=5
)
trace.error_sample((3,), match="is no matrix")
