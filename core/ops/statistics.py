"""Statistics over axes: spread, order, and what ignores NaN. Medians and quantiles are in `quantile`."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from .. import types as T
from ..errors import ArgumentError, DtypeError, ShapeError
from ..floats import refuse_integers
from ..op import Ints, composite, public
from ..value import Tensor
from . import elementwise as E
from .creation import full, full_like
from .joining import concat
from .linalg import matmul
from .reduction import argmax, argmin, max_, mean, min_, prod, std, sum_, var
from .search import as_tensor
from .shape import broadcast_to, expand_dims, permute, reshape, slice_


class MinMax(NamedTuple):
    """The smallest and the largest element."""

    min: Tensor
    max: Tensor


@public
def amax(x, axis=None, keepdims=False):
    """`max` by PyTorch's and NumPy's other name: equal maxima share the gradient."""
    return max_(x, axis=axis, keepdims=keepdims)


@public
def amin(x, axis=None, keepdims=False):
    """`min` by PyTorch's and NumPy's other name: equal minima share the gradient."""
    return min_(x, axis=axis, keepdims=keepdims)


@public
def aminmax(x, axis=None, keepdims=False):
    """The smallest and the largest element over axes: (min, max). Source: PyTorch.

    Example: `dg.aminmax(dg.tensor([2, 1, 3])).max.item()` is `3`.
    """
    return MinMax(min_(x, axis=axis, keepdims=keepdims), max_(x, axis=axis, keepdims=keepdims))


@public
def std_mean(x, axis=None, correction=0.0, keepdims=False):
    """The standard deviation and the mean over axes: (std, mean). Source: PyTorch.

    correction: 0 for the population, 1 for the sample's estimate. Raises: as `std`.
    Example: `dg.std_mean(dg.tensor([1.0, 3.0]))[0].item()` is `1.0`.
    """
    return std(x, axis=axis, correction=correction, keepdims=keepdims), mean(x, axis=axis, keepdims=keepdims)


@public
def var_mean(x, axis=None, correction=0.0, keepdims=False):
    """The variance and the mean over axes: (var, mean). Source: PyTorch.

    correction: 0 for the population, 1 for the sample's estimate. Raises: as `var`.
    Example: `dg.var_mean(dg.tensor([1.0, 5.0]))[0].item()` is `4.0`.
    """
    return var(x, axis=axis, correction=correction, keepdims=keepdims), mean(x, axis=axis, keepdims=keepdims)


@composite
def ptp(x, *, axis=None, keepdims=False):
    """The largest element minus the smallest over axes. x: any but bool. Raises: as `max`. Source: NumPy.

    Example: `dg.ptp(dg.tensor([2, 1, 5])).item()` is `4`.
    """
    return max_(x, axis=axis, keepdims=keepdims) - min_(x, axis=axis, keepdims=keepdims)


ptp.sample((3, 4), axis=1).sample((2, 3), keepdims=True).sample(Ints((5,)))


@public
def average(x, axis=None, weights=None, returned=False, keepdims=False):
    """The mean over axes, weighted: `sum(x * weights) / sum(weights)`.

    x: any[...]; weights: any of x's shape, or of the shape of its axes `axis`. Returns: the average; with returned
    (average, sum of weights). Raises: ShapeError when weights do not fit. Source: NumPy.
    Example: `dg.average(dg.tensor([1.0, 3.0]), weights=dg.tensor([3.0, 1.0])).item()` is `1.5`.
    """
    x = as_tensor("average", x)
    x = x if x.dtype.has_gradient else x.to(T.default_float)
    axes = T.normalize_axes("average", axis, x.ndim, x.type)
    if weights is None:
        out = mean(x, axis=axis, keepdims=keepdims)
        total = full_like(out, math.prod(x.shape[a] for a in axes)) if returned else None
        return (out, total) if returned else out
    w = as_tensor("average", weights)
    if w.shape != x.shape:
        if w.shape != tuple(x.shape[a] for a in axes):
            raise ShapeError(
                "average", f"weights: {w.type} do not fit x: {x.type} on axes {axes}", "make shapes equal"
            )
        w = reshape(w, shape=tuple(n if a in axes else 1 for a, n in enumerate(x.shape)))
        w = broadcast_to(w, shape=x.shape)
    w = w.to(T.promote(x.dtype, w.dtype))
    total = sum_(w, axis=axis, keepdims=keepdims)
    out = sum_(x * w, axis=axis, keepdims=keepdims) / total
    return (out, total) if returned else out


# ---------------------------------------------------------------- without NaN


def _without(x, value):
    return E.where(E.isnan(x), value, x) if x.dtype.has_gradient else x


@composite(widen=True)
def nansum(x, *, axis=None, keepdims=False, dtype=None):
    """`sum` with NaN counted as 0. Source: NumPy, PyTorch."""
    return sum_(_without(x, 0.0), axis=axis, keepdims=keepdims, dtype=dtype)


@composite(widen=True)
def nanprod(x, *, axis=None, keepdims=False, dtype=None):
    """`prod` with NaN counted as 1. Source: NumPy."""
    return prod(_without(x, 1.0), axis=axis, keepdims=keepdims, dtype=dtype)


def _numbers(x, axis, keepdims):
    """How many elements are no NaN, in x's dtype."""
    return sum_(E.cast(E.logical_not(E.isnan(x)), dtype=x.dtype), axis=axis, keepdims=keepdims)


@composite(widen=True)
def nanmean(x, *, axis=None, keepdims=False):
    """`mean` of the elements that are no NaN; NaN where there is none. Source: NumPy, PyTorch."""
    if not x.dtype.has_gradient:
        return mean(x, axis=axis, keepdims=keepdims)
    return nansum(x, axis=axis, keepdims=keepdims) / _numbers(x, axis, keepdims)


@composite(widen=True)
def nanvar(x, *, axis=None, correction=0.0, keepdims=False):
    """`var` of the elements that are no NaN; NaN where no more than `correction` are. Source: NumPy."""
    x = x if x.dtype.has_gradient else x.to(T.default_float)
    # NaN of x alone counts as absent: that of a difference of infinities stays.
    centred = E.where(E.isnan(x), 0.0, x - nanmean(x, axis=axis, keepdims=True))
    divisor = _numbers(x, axis, keepdims) - correction
    total = sum_(E.square(centred), axis=axis, keepdims=keepdims)
    return E.where(E.greater(divisor, 0.0), total / divisor, math.nan)


@composite(widen=True)
def nanstd(x, *, axis=None, correction=0.0, keepdims=False):
    """`std` of the elements that are no NaN: the root of `nanvar`. Its gradient is 0 where that is 0. Source: NumPy."""
    square = nanvar(x, axis=axis, correction=correction, keepdims=keepdims)
    none = E.equal(square, 0.0)
    return E.where(none, 0.0, E.sqrt(E.where(none, 1.0, square)))


def _nan_extreme(name, reduce, worst, word):
    def body(x, *, axis=None, keepdims=False):
        if not x.dtype.has_gradient:
            return reduce(x, axis=axis, keepdims=keepdims)
        found = reduce(_without(x, worst), axis=axis, keepdims=keepdims)
        return E.where(E.greater(_numbers(x, axis, keepdims), 0.0), found, math.nan)

    body.__name__ = body.__qualname__ = name
    refused = f"Raises: as `{reduce.name}`. Source: NumPy."
    body.__doc__ = f"The {word} element that is no NaN, over axes; NaN where there is none. {refused}"
    return composite(body)


nanmax = _nan_extreme("nanmax", max_, -math.inf, "largest")
nanmin = _nan_extreme("nanmin", min_, math.inf, "smallest")

for _op in (nansum, nanprod, nanmean, nanmax, nanmin):
    _op.sample((3, 4), axis=1).sample((2, 3), keepdims=True).sample(Ints((5,)), grad=False)
for _op in (nanvar, nanstd):
    _op.sample((3, 4), axis=1, correction=1.0).sample((2, 3), keepdims=True)


def _nan_position(name, reduce, worst, word):
    def body(x, *, axis=None, keepdims=False):
        return reduce(_without(x, worst), axis=axis, keepdims=keepdims)

    body.__name__ = body.__qualname__ = name
    body.__doc__ = (
        f"""Where the first {word} element that is no NaN stands, as `{reduce.name}`; 0 where all are NaN."""
    )
    return composite(no_gradient="integer result")(body)


nanargmax = _nan_position("nanargmax", argmax, -math.inf, "largest")
nanargmin = _nan_position("nanargmin", argmin, math.inf, "smallest")
for _op in (nanargmax, nanargmin):
    _op.sample((3, 4), axis=1, grad=False).sample((2, 3), grad=False)


# ---------------------------------------------------------------- neighbours


def _cut(x, axis, start, stop):
    return slice_(x, index=(slice(None),) * axis + (slice(start, stop),))


@public
def diff(x, n=1, axis=-1, prepend=None, append=None):
    """Each element minus the one before it along an axis, n times over.

    x: any[..., m, ...]; prepend, append: tensors or numbers joined to x first. Returns: x's dtype, the axis n shorter
    (a float joined to integers makes floats of them, as in `x + 0.5`); bool: whether neighbours differ.
    Raises: ArgumentError for negative n or a 0-d x. Source: array API, NumPy, PyTorch.
    Example: `dg.diff(dg.tensor([1, 3, 7]))` is `[2, 4]`.
    """
    x = as_tensor("diff", x)
    if not x.shape:
        raise ArgumentError("diff", f"x: {x.type} has no axes", "pass a tensor with one axis or more")
    if n < 0:
        raise ArgumentError("diff", f"n={n} is negative", "use n from 0")
    axis = T.normalize_axis("diff", axis, x.ndim, x.type)
    edge = tuple(1 if a == axis else m for a, m in enumerate(x.shape))

    for v in (prepend, append):
        if isinstance(v, (int, float)):
            dtype = T.scalar_dtype(v, x.dtype)
            T.check_scalar_range("diff", v, dtype)
            x = x.to(dtype)

    def ready(v):
        if isinstance(v, (int, float)):
            return [full(edge, v, x.dtype, x.device)]
        v = as_tensor("diff", v)
        return [broadcast_to(v, shape=edge) if not v.shape else v]

    parts = [*([] if prepend is None else ready(prepend)), x, *([] if append is None else ready(append))]
    x = concat(parts, axis=axis) if len(parts) > 1 else x
    for _ in range(min(n, x.shape[axis])):  # nothing is left then
        after, before = _cut(x, axis, 1, None), _cut(x, axis, 0, max(0, x.shape[axis] - 1))
        x = E.not_equal(after, before) if x.dtype is T.bool_ else after - before
    return x


@public
def ediff1d(x):
    """The differences of neighbours of x read as one row. Source: NumPy."""
    x = as_tensor("ediff1d", x)
    return diff(reshape(x, shape=(x.size,)))


def _strips(op, y, x, dx, axis):
    """The areas under neighbouring points."""
    y = as_tensor(op, y)
    y = y if y.dtype.has_gradient else y.to(T.default_float)
    axis = T.normalize_axis(op, axis, y.ndim, y.type)
    n = y.shape[axis]
    if x is not None:
        x = as_tensor(op, x)
        if x.ndim == 1:
            x = reshape(x, shape=tuple(n if a == axis else 1 for a in range(y.ndim)))
        dx = diff(x, axis=axis if x.ndim == y.ndim else x.ndim - 1)
    return (_cut(y, axis, 1, None) + _cut(y, axis, 0, max(0, n - 1))) * dx * 0.5, axis


@public
def trapezoid(y, x=None, *, dx=1.0, axis=-1):
    """The integral of y along an axis by straight lines between its points, at x or dx apart.

    y: any[..., n, ...]; x: [n] or y's shape. Returns: float, without the axis. Source: NumPy, PyTorch.
    Example: `dg.trapezoid(dg.tensor([1.0, 2.0, 3.0])).item()` is `4.0`.
    """
    strips, axis = _strips("trapezoid", y, x, dx, axis)
    return sum_(strips, axis=axis)


@public
def cumulative_trapezoid(y, x=None, *, dx=1.0, axis=-1):
    """`trapezoid` up to every point but the first. Returns: the axis one shorter. Source: PyTorch."""
    from .scan import cumsum

    strips, axis = _strips("cumulative_trapezoid", y, x, dx, axis)
    return cumsum(strips, axis=axis)


# ---------------------------------------------------------------- several variables


@public
def cov(x, y=None, *, rowvar=True, correction=1, fweights=None, aweights=None):
    """The covariance matrix of variables, a row each (a column each when rowvar is False).

    x: any[variables, observations] or [observations]; y: more variables; correction: the divisor is the number of
    observations minus it; fweights: how often each observation counts; aweights: how much. Returns: float[variables,
    variables], 0-d for one variable. Raises: ShapeError for more than two axes. Source: NumPy, PyTorch.
    Example: `dg.cov(dg.tensor([[0.0, 1.0, 2.0], [2.0, 1.0, 0.0]]))` is `[[1.0, -1.0], [-1.0, 1.0]]`.
    """

    def rows(v):
        v = as_tensor("cov", v)
        if v.ndim > 2:
            raise ShapeError("cov", f"x: {v.type} has more than two axes", "pass variables by observations")
        v = v if v.dtype.has_gradient else v.to(T.default_float)
        v = reshape(v, shape=(1, v.size)) if v.ndim < 2 else v
        return v if rowvar or v.shape[0] == 1 else permute(v, axes=(1, 0))

    single = y is None and as_tensor("cov", x).ndim < 2
    x = rows(x) if y is None else concat([rows(x), rows(y)], axis=0)
    weights = None
    for w in (fweights, aweights):
        if w is not None:
            w = as_tensor("cov", w).to(x.dtype)
            weights = w if weights is None else weights * w
    if weights is None:
        total = float(x.shape[1])
        centred = x - mean(x, axis=1, keepdims=True)
        divisor, weighted = total - correction, centred
        scale = 1.0 / divisor if divisor > 0 else math.nan
    else:
        total = sum_(weights)
        centred = x - expand_dims(matmul(x, weights) / total, axis=1)
        weighted = centred * weights
        seen = total if aweights is None else sum_(weights * as_tensor("cov", aweights).to(x.dtype)) / total
        scale = 1.0 / (total - correction * seen)
    out = matmul(weighted, permute(centred, axes=(1, 0))) * scale
    return reshape(out, shape=()) if single or out.shape == (1, 1) else out


@public
def corrcoef(x, y=None, *, rowvar=True):
    """The correlation of variables, a row each: `cov` divided by both standard deviations, within -1 and 1.

    Returns: float[variables, variables], 0-d for one variable. Numerics: NaN for a constant variable.
    Source: NumPy, PyTorch.
    """
    c = cov(x, y, rowvar=rowvar)
    if not c.shape:
        return c / c
    from .views import diagonal

    root = E.sqrt(diagonal(c))
    return E.clip(c / expand_dims(root, axis=1) / expand_dims(root, axis=0), min=-1.0, max=1.0)


@public
def cdist(x, y, p=2.0):
    """The p-distances between the rows of x and of y.

    x: float[..., P, M], y: float[..., R, M]; p from 0 to inf. Returns: float[..., P, R]. Raises: ShapeError when M
    differs. Numerics: differences first, no cancellation; the gradient is 0 where rows are equal. Source: PyTorch.
    Example: `dg.cdist(dg.tensor([[0.0, 0.0]]), dg.tensor([[3.0, 4.0]]))` is `[[5.0]]`.
    """
    from .norms import vector_norm

    if x.ndim < 2 or y.ndim < 2 or x.shape[-1] != y.shape[-1]:
        raise ShapeError(
            "cdist", f"x: {x.type} and y: {y.type} have no rows of one length", "pass [..., rows, M]"
        )
    if not x.dtype.is_float or not y.dtype.is_float:
        raise DtypeError("cdist", f"x: {x.type} and y: {y.type} are not both float", "convert them")
    apart = expand_dims(x, axis=-2) - expand_dims(y, axis=-3)
    return vector_norm(apart, axis=-1, ord=float(p))


@public
def pdist(x, p=2.0):
    """The p-distances between all pairs of rows of x, i before j. x: float[N, M]. Returns: float[N (N - 1) / 2].

    Source: PyTorch, SciPy. Example: `dg.pdist(dg.tensor([[0.0], [1.0], [3.0]]))` is `[1.0, 3.0, 2.0]`.
    """
    from .norms import vector_norm
    from .picking import take

    refuse_integers("pdist", x)
    if x.ndim != 2:
        raise ShapeError("pdist", f"x: {x.type} is not a matrix", "pass [N, M]")
    n = x.shape[0]
    rows, columns = np.triu_indices(n, 1)
    from .. import dispatch

    i, j = (dispatch.state.executor.constant(v.astype(np.int64), x.device) for v in (rows, columns))
    return vector_norm(take(x, i, axis=0) - take(x, j, axis=0), axis=-1, ord=float(p))
