"""Where values belong among sorted ones; counting by bins."""

# Gradient rules are named after the input they are for, so names repeat here.
from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .. import dispatch
from .. import types as T
from ..errors import ArgumentError, DtypeError, ShapeError
from ..op import Ints, primitive, public
from ..types import TensorType
from ..value import Tensor
from . import elementwise as E
from .creation import arange, full, ones
from .picking import take, take_elements_placed, take_x_grad
from .reduction import max_, min_, sum_
from .search import as_tensor
from .shape import reshape


def _onnx_searchsorted(o, x, values, *, right):
    # Counts the sorted elements that stand before each value.
    spread = o.Unsqueeze(values, o.ints((-1,)))
    row = x if x.ndim == 1 else o.Unsqueeze(x, o.ints((-2,)))
    hit = o.LessOrEqual(row, spread) if right else o.Less(row, spread)
    return o.ReduceSum(o.cast(hit, T.int64), o.ints((-1,)), keepdims=0)


@primitive(name="searchsorted", no_gradient="integer result", onnx=_onnx_searchsorted)
def searchsorted_(x, values, *, right=False):
    """How many elements of a sorted x stand before each value.

    x: any[n], or any[..., n] with a row for each row of values; values: x's dtype, any[..., m]. Returns: int64,
    values' shape. right: equal elements stand before too. Source: NumPy, PyTorch.
    """
    side = "right" if right else "left"
    if x.ndim == 1:
        return np.searchsorted(x, values, side)
    rows = zip(x.reshape(-1, x.shape[-1]), values.reshape(-1, values.shape[-1]))
    return np.array([np.searchsorted(a, v, side) for a, v in rows]).reshape(values.shape)


@searchsorted_.type
def _(x, values, *, right):
    if x.dtype is not values.dtype:
        raise DtypeError(
            "searchsorted", f"x: {x} and values: {values} differ in dtype", "convert one of them"
        )
    if not x.shape or (x.ndim > 1 and x.shape[:-1] != values.shape[:-1]):
        raise ShapeError(
            "searchsorted", f"values: {values} have not the rows of x: {x}", "make leading axes equal"
        )
    return TensorType(T.int64, values.shape)


searchsorted_.sample(Ints((7,), 2, 3), Ints((3, 4), 0, 5)).sample(
    Ints((7,), 2, 3), Ints((5,), 0, 5), right=True
)
searchsorted_.sample(Ints((2, 4), 1, 2), Ints((2, 3), 0, 4)).sample(Ints((0,)), Ints((3,))).sample(
    Ints((4,), 2, 3), Ints((), 2, 4)
)
searchsorted_.error_sample(Ints((2, 3)), Ints((3, 3)), match="have not the rows")
searchsorted_.error_sample(Ints((3,)), (3,), match="differ in dtype")


def _together(op, x, values):
    """Both as tensors of one dtype; a number takes a weak part in that."""
    x = as_tensor(op, x)
    if isinstance(values, (int, float)):
        values = full((), values, T.promote(x.dtype, T.scalar_dtype(values, x.dtype)), x.device)
    values = as_tensor(op, values)
    dtype = T.promote(x.dtype, values.dtype)
    return x.to(dtype), values.to(dtype)


@public
def searchsorted(sorted_sequence, values, *, side="left", right=False, sorter=None):
    """Where values would be inserted into a sorted sequence so that it stays sorted.

    sorted_sequence: any[n], or any[..., n] with a row for each row of values; values: any[..., m] or a number.
    side: "left" puts a value before equal elements, "right" (also right=True) after them. sorter: positions that
    sort the sequence. Returns: int64, values' shape. Raises: ShapeError when rows differ, ArgumentError for another
    side. Numerics: NaN is the largest. Source: array API, NumPy, PyTorch.
    Example: `dg.searchsorted(dg.tensor([1, 3, 5]), dg.tensor([3, 4]))` is `[1, 2]`.
    """
    if side not in ("left", "right"):
        raise ArgumentError("searchsorted", f"side={side!r}", 'use "left" or "right"')
    x, values = _together("searchsorted", sorted_sequence, values)
    if sorter is not None:
        sorter = as_tensor("searchsorted", sorter)
        x = take(x, sorter, axis=0) if x.ndim == 1 else take_elements_placed(x, sorter, axis=x.ndim - 1)
    return searchsorted_(x, values, right=right or side == "right")


@public
def bucketize(x, boundaries, right=False):
    """The number of the bucket of each element of x: `searchsorted(boundaries, x)`. Source: PyTorch.

    Example: `dg.bucketize(dg.tensor([3, 6]), dg.tensor([1, 3, 5]))` is `[1, 3]`.
    """
    return searchsorted(boundaries, x, right=right)


@public
def digitize(x, bins, right=False):
    """The number of the bin of each element of x. Bin i is `bins[i - 1] <= x < bins[i]`; falling bins: the mirror.

    right: `bins[i - 1] < x <= bins[i]`. Returns: int64, x's shape. Source: NumPy.
    Example: `dg.digitize(dg.tensor([0.5, 2.0]), dg.tensor([0.0, 1.0, 2.0]))` is `[1, 3]`.
    """
    bins = as_tensor("digitize", bins)
    if bins.ndim != 1:
        raise ShapeError("digitize", f"bins: {bins.type} is not one row", "pass a 1-d tensor")
    falling = bins.size > 1 and bool((bins[0] > bins[bins.size - 1]).item())
    if falling:
        return bins.size - searchsorted(bins[::-1], x, right=not right)
    return searchsorted(bins, x, right=not right)


@public
def bincount(x, weights=None, minlength=0):
    """How often each integer from 0 occurs in x; or the sum of its weights.

    x: int[n] without negative values; weights: any[n]. Returns: int64 (the weights' dtype), with max(x) + 1 elements
    or minlength. Raises: ArgumentError for negative values. Numerics: weights add up in the order of x.
    Source: NumPy, PyTorch. Example: `dg.bincount(dg.tensor([1, 1, 3]))` is `[0, 2, 0, 1]`.
    """
    x = as_tensor("bincount", x)
    if x.ndim != 1 or not (x.dtype.is_integer or x.dtype is T.bool_):
        raise ArgumentError(
            "bincount", f"x: {x.type} is not a row of integers", "flatten it, convert it to int64"
        )
    kind, size = x.type, minlength
    x = x.to(T.int64)
    if x.size:

        def refuse(least):
            if least < 0:
                raise ArgumentError(
                    "bincount", f"x: {kind} has a negative value", "shift the values to start at 0"
                )

        with dispatch.set_grad(False):
            dispatch.state.executor.check(min_(x), refuse)
            size = int(E.maximum(max_(x) + 1, minlength).item())
    if weights is None:
        weights = ones(x.shape, dtype=T.int64, device=x.device)
    else:
        weights = as_tensor("bincount", weights)
        if weights.shape != x.shape:
            raise ShapeError(
                "bincount", f"weights: {weights.type} are not for x: {x.type}", "one weight an element"
            )
    return take_x_grad(weights, x, size=size)


class Histogram(NamedTuple):
    """Counts by bin, and the bins' edges."""

    hist: Tensor
    bin_edges: Tensor


def _edges(op, x, bins, span):
    if isinstance(bins, (int, np.integer)) and not isinstance(bins, bool):
        if bins < 1:
            raise ArgumentError(op, f"bins={bins} is below 1", "pass the number of bins, or their edges")
        steps = arange(bins + 1, dtype=T.float64, device=x.device)
        if span is not None:
            low, high = (float(v) for v in span)
            if not low <= high:
                raise ArgumentError(op, f"range={span} is no range", "pass (low, high)")
            low, high = (low - 0.5, high + 0.5) if low == high else (low, high)
        elif x.size == 0:
            low, high = 0.0, 1.0
        else:
            low, high = min_(x).to(T.float64), max_(x).to(T.float64)
            flat = E.equal(low, high)
            low, high = E.where(flat, low - 0.5, low), E.where(flat, high + 0.5, high)
        edges = low + steps * ((high - low) / bins)
        return E.where(E.equal(steps, float(bins)), high, edges)
    edges = as_tensor(op, bins)
    if edges.ndim != 1 or edges.size < 2:
        raise ArgumentError(
            op, f"bins: {edges.type} are not edges", "pass a number, or two edges or more in a row"
        )
    return edges


@public
def histogram(x, bins=10, range=None, weights=None, density=False):
    """How many elements of x fall into each bin.

    x: any[...]; bins: how many of equal width, or their edges, rising; range: (low, high), of x when left out;
    weights: any, x's shape; density: divided so that the integral is 1. Returns: (hist, bin_edges): int64 (the
    weights' dtype; float64 for densities), and edges in x's dtype
    (float64 for integers). Raises: ArgumentError for bins below 1.
    Numerics: bins hold their lower edge, the last one both; NaN falls nowhere. Source: NumPy.
    Example: `dg.histogram(dg.tensor([1.0, 2.0, 1.0]), 2).hist` is `[2, 1]`.
    """
    x = as_tensor("histogram", x)
    edges = _edges("histogram", x, bins, range)
    if edges.dtype is T.float64 and x.dtype.is_float:
        edges = edges.to(x.dtype)
    n = edges.size - 1
    flat = reshape(x, shape=(x.size,))
    dtype = T.promote(T.promote(edges.dtype, flat.dtype), T.float64)
    flat, compared = flat.to(dtype), edges.to(dtype)
    place = searchsorted_(compared, flat, right=True) - 1
    last = E.equal(flat, compared[n])
    place = E.where(last, n - 1, place)
    inside = E.logical_and(E.less(place, n), E.greater_equal(place, 0))
    if weights is None:
        counted = E.cast(inside, dtype=T.int64)
    else:
        weights = reshape(as_tensor("histogram", weights), shape=(x.size,))
        counted = E.where(inside, weights, 0)
    hist = take_x_grad(counted, E.where(inside, place, 0), size=n)
    if density:
        width = edges[1:] - edges[:-1]
        hist = hist.to(T.float64) / width.to(T.float64)
        hist = hist / sum_(hist * width.to(T.float64))
    return Histogram(hist, edges)


@public
def histc(x, bins=100, min=0, max=0):
    """How many elements of x fall into each of `bins` equal bins from min to max (of x when both are 0).

    x: float[...]. Returns: x's dtype, [bins]. Source: PyTorch.
    Example: `dg.histc(dg.tensor([1.0, 2.0, 1.0]), 2, min=0, max=2)` is `[0.0, 3.0]`.
    """
    span = None if min == 0 and max == 0 else (min, max)
    return histogram(x, bins, range=span).hist.to(x.dtype)
