"""Triangles and diagonals of matrices: tril, triu, diag, diag_embed, and the indices of a triangle."""

# Gradient rules are named after the input they are for, so names repeat here.
# ruff: noqa: F811
from __future__ import annotations

import numpy as np

from .. import dispatch
from .. import types as T
from ..backend import normalize_device
from ..errors import ArgumentTypeError, ShapeError
from ..kinds import is_index
from ..op import composite, pointwise, public
from ..scalar import const, s
from ..strangers import size, unfit
from .creation import arange, zeros
from .shape import moveaxis
from .views import diagonal, diagonal_update, reshape


@pointwise(internal=True)
def keep_below(x, row, column):
    """x where `column <= row`, else 0."""
    return s.where(s.le(column, row), x, const(0, x.dtype))


@keep_below.type
def _(x, row, column):
    return x


@keep_below.grad
def x(g, row, column):
    return keep_below(g, row, column)


@pointwise(internal=True)
def keep_above(x, row, column):
    """x where `column >= row`, else 0."""
    return s.where(s.ge(column, row), x, const(0, x.dtype))


@keep_above.type
def _(x, row, column):
    return x


@keep_above.grad
def x(g, row, column):
    return keep_above(g, row, column)


#: diagonals so far outside are all alike
_FAR = 1 << 62


def _near(op):
    def rule(inputs, *, k):
        if not (is_index(k) or isinstance(k, bool)):
            raise ArgumentTypeError(op, *unfit("k", k, "an integer"))
        return (min(max(k, -_FAR), _FAR) if isinstance(k, int) else k,)

    return rule


for _op in (keep_below, keep_above):
    _op.sample((3, 4), np.arange(1, 4)[:, None], np.arange(4))


def _triangle(op, x, k, keep):
    if x.ndim < 2:
        raise ShapeError(op, f"x: {x.type} is not a matrix", "pass two axes or more")
    rows, columns = x.shape[-2:]
    k = min(max(int(k), -rows), columns)  # all or nothing, however far the diagonal
    row = reshape(arange(k, rows + k, device=x.device), shape=(rows, 1))
    return keep(x, row, arange(columns, device=x.device))


def _trilu(upper):
    def rule(o, x, *, k):
        return o.Trilu(x, o.literal(np.asarray(k, np.int64)), upper=upper)

    return rule


@composite(onnx=_trilu(0))
def tril(x, *, k=0):
    """The lower triangles of matrices, zeros elsewhere: `x[..., i, j]` where `j - i <= k`.

    x: any[..., M, N]; k: the highest diagonal kept. Raises: ShapeError for fewer than two axes. Source: ONNX Trilu.
    """
    return _triangle("tril", x, k, keep_below)


tril.normalize(_near("tril"))


@composite(onnx=_trilu(1))
def triu(x, *, k=0):
    """The upper triangles of matrices, zeros elsewhere: `x[..., i, j]` where `j - i >= k`.

    x: any[..., M, N]; k: the lowest diagonal kept. Raises: ShapeError for fewer than two axes. Source: ONNX Trilu.
    """
    return _triangle("triu", x, k, keep_above)


triu.normalize(_near("triu"))


for _op in (tril, triu):
    _op.sample((3, 4)).sample((2, 3, 3), k=1).sample((3, 2), k=-1).sample((0, 2))
    _op.error_sample((3,), match="not a matrix")


def _pairs(op, keep, n, m, k, device):
    rows = size(op, "n", n, 0)
    columns, k = rows if m is None else size(op, "m", m, 0), size(op, "k", k, -(2**63))
    found = np.nonzero(keep(np.ones((rows, columns), bool), k))
    places = np.stack(found).astype(np.int64)
    return dispatch.state.executor.constant(places, normalize_device(device or "cpu"))


@public
def tril_indices(n, m=None, k=0, device=None):
    """Rows and columns of an n x m (n x n) lower triangle up to diagonal k: int64[2, count], `i, j = ...`."""
    return _pairs("tril_indices", np.tril, n, m, k, device)


@public
def triu_indices(n, m=None, k=0, device=None):
    """Rows and columns of an n x m (n x n) upper triangle from diagonal k on: int64[2, count], `i, j = ...`."""
    return _pairs("triu_indices", np.triu, n, m, k, device)


@composite
def diag_embed(x, *, offset=0, axis1=-2, axis2=-1):
    """Matrices with the last axis of x on a diagonal, zeros elsewhere; the new axes stand at axis1 and axis2.

    x: any[..., n]. Returns: any[..., n + abs(offset), n + abs(offset)]. Raises: ShapeError for a 0-d tensor.
    """
    if x.ndim == 0:
        raise ShapeError("diag_embed", "x is 0-d", "pass a vector or more")
    a, b = (T.normalize_axis("diag_embed", k, x.ndim + 1) for k in (axis1, axis2))
    n = x.shape[-1] + abs(offset)
    out = diagonal_update(
        zeros((*x.shape[:-1], n, n), dtype=x.dtype, device=x.device), x, offset=offset, axis1=-2, axis2=-1
    )
    last = out.ndim - 1
    return out if (a, b) == (last - 1, last) else moveaxis(out, source=(-2, -1), destination=(a, b))


diag_embed.sample((3,)).sample((2, 3), offset=-1).sample((2, 2), axis1=0, axis2=2).error_sample(
    (), match="0-d"
)


@composite
def diag(x, *, k=0):
    """A vector on diagonal k of a matrix of zeros, or diagonal k of a matrix (then a view).

    Raises: ShapeError for other ranks.
    """
    if x.ndim == 1:
        return diag_embed(x, offset=k)
    if x.ndim != 2:
        raise ShapeError(
            "diag", f"x: {x.type} is neither a vector nor a matrix", "use diagonal or diag_embed"
        )
    return diagonal(x, offset=k)


diag.sample((3,)).sample((3, 4), k=1).sample((2,), k=-1).error_sample((2, 2, 2), match="neither")


@public
def diagflat(x, k=0):
    """A matrix of zeros with x, flattened, on diagonal k."""
    return diag_embed(reshape(x, shape=(x.size,)), offset=k)


@public
def diagonal_scatter(x, src, offset=0, axis1=0, axis2=1):
    """A copy of x with a diagonal replaced by src."""
    return diagonal_update(x, src, offset=offset, axis1=axis1, axis2=axis2)


@public
def fill_diagonal(x, value, offset=0):
    """A copy of a matrix with a diagonal filled with a number."""
    if x.ndim != 2:
        raise ShapeError("fill_diagonal", f"x: {x.type} is not a matrix", "pass two axes")
    return diagonal_update(x, value, offset=offset)
