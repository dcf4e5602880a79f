"""Medians, quantiles and modes: values chosen by their order."""

from __future__ import annotations

import math

import numpy as np

from .. import types as T
from ..errors import ArgumentError, DtypeError
from ..op import composite, public
from ..value import Tensor
from . import elementwise as E
from .creation import arange
from .picking import take_elements_placed
from .reduction import argmax, reduced_shape, sum_
from .rounding import round_
from .scan import cummax
from .search import as_tensor
from .shape import broadcast_to, permute, reshape, slice_
from .sort import Picked, axis_of, sort_, sort_both

#: method -> (alpha, beta) of the position n q + alpha + q (1 - alpha - beta) - 1 (Hyndman and Fan, 1996)
_BETWEEN = {
    "interpolated_inverted_cdf": (0.0, 1.0), "hazen": (0.5, 0.5), "weibull": (0.0, 0.0),
    "median_unbiased": (1 / 3, 1 / 3), "normal_unbiased": (3 / 8, 3 / 8), "linear": (1.0, 1.0),
}  # fmt: skip
METHODS = (*_BETWEEN, "lower", "higher", "nearest", "midpoint", "inverted_cdf", "averaged_inverted_cdf",
           "closest_observation")  # fmt: skip


def _position(method, n, q):
    """Where the quantile q of n sorted elements stands: (position, weight of the next one).

    n and q are NumPy arrays, or tensors when n differs from row to row.
    """
    tensors = isinstance(n, Tensor)
    floor, ceil, around, where = (
        (E.floor, E.ceil, round_, E.where) if tensors else (np.floor, np.ceil, np.round, np.where)
    )
    zero = q * 0.0
    if method in _BETWEEN:
        alpha, beta = _BETWEEN[method]
        at = (n - 1) * q if method == "linear" else n * q + (alpha + q * (1 - alpha - beta)) - 1
    elif method in ("lower", "higher", "nearest"):
        at = {"lower": floor, "higher": ceil, "nearest": around}[method]((n - 1) * q)
    elif method == "midpoint":
        at = (floor((n - 1) * q) + ceil((n - 1) * q)) * 0.5
    elif method == "closest_observation":
        v = n * q - 1.5
        low = floor(v)
        even = where(v - low == 0, where(low - 2 * floor(low * 0.5) == 1, 1.0, 0.0), 0.0)
        at = low + 1 - even
    else:
        v = n * q - 1
        low = floor(v)
        part = where(v - low > 0, 1.0, 0.0 if method == "inverted_cdf" else 0.5)
        return _clipped(low, n, where), where(v < 0, zero, part + zero)
    at = _clipped(at, n, where)
    low = floor(at)
    return low, at - low


def _clipped(at, n, where):
    at = where(at < 0, at * 0.0, at)
    return where(at > n - 1, at * 0.0 + (n - 1), at)


def _lined(op, x, axis):
    """x with the axes joined and last; which axes those are."""
    axes = T.normalize_axes(op, axis, x.ndim, x.type)
    kept = [a for a in range(x.ndim) if a not in axes]
    moved = permute(x, axes=(*kept, *axes)) if x.ndim else x
    n = math.prod(x.shape[a] for a in axes)
    return reshape(moved, shape=(*(x.shape[a] for a in kept), n)), axes, n


def _between(low, high, weight):
    """low + (high - low) * weight, from the nearer end; equal infinities stay."""
    step = E.where(E.equal(low, high), 0.0, high - low)
    return E.where(E.less(weight, 0.5), low + step * weight, high - step * (1.0 - weight))


def _at(rows, low, weight, last):
    """Elements of sorted rows at positions low (tensors [..., q]) and between them and the next ones up to `last`."""
    low = low.to(T.int64)
    high = E.where(E.less(low, last), low + 1, low)
    weight = weight.to(rows.dtype)
    return _between(
        take_elements_placed(rows, low, axis=rows.ndim - 1),
        take_elements_placed(rows, high, axis=rows.ndim - 1),
        weight,
    )


def _floats(op, x):
    if x.dtype.is_complex:
        raise DtypeError(op, f"x: {x.type} is complex", "complex numbers have no order: take abs(x)")
    return x if x.dtype.is_float else x.to(T.default_float)


def _quantile(op, x, q, axis, keepdims, method, skip):
    x = _floats(op, as_tensor(op, x))
    if method not in METHODS:
        raise ArgumentError(op, f"method={method!r}", f"use one of {', '.join(METHODS)}")
    if not isinstance(q, Tensor):
        asked = np.asarray(q, np.float64)
        if asked.ndim > 1 or not ((asked >= 0) & (asked <= 1)).all():
            raise ArgumentError(
                op, f"q={q} is not between 0 and 1", "pass a number or a row of numbers from 0 to 1"
            )
    else:
        asked = q
    rows, axes, n = _lined(op, x, axis)
    if not n:
        raise ArgumentError(
            op, f"has no value over an empty axis, x: {x.type}", "check the tensor's size first"
        )
    ordered = sort_(rows, axis=-1)
    count = asked.size if asked.ndim else 1
    lead = rows.shape[:-1]
    if skip or isinstance(asked, Tensor):
        from .. import dispatch

        flat = asked.reshape((count,)) if isinstance(asked, Tensor) else None
        if flat is None:
            flat = dispatch.state.executor.constant(asked.reshape(-1), x.device)
        flat = broadcast_to(flat.to(T.float64), shape=(*lead, count))
        missing = sum_(E.cast(E.isnan(ordered), dtype=T.float64), axis=-1, keepdims=True)
        size = float(n) - (missing if skip else missing * 0.0)
        low, weight = _position(method, size, flat)
        low, last = E.where(E.less(low, 0.0), low * 0.0, low), size - 1.0
    else:
        from .. import dispatch

        low, weight = _position(method, np.float64(n), asked.reshape(-1))
        low, weight = (
            broadcast_to(dispatch.state.executor.constant(np.asarray(v), x.device), shape=(*lead, count))
            for v in (low, weight)
        )
        last = n - 1
    out = _at(ordered, low, weight, last)
    if not skip:
        end = slice_(ordered, index=(Ellipsis, slice(n - 1, n)))
        out = E.where(E.isnan(end), end, out)
    # float[..., q] to float[q, ...]
    out = permute(out, axes=(out.ndim - 1, *range(out.ndim - 1)))
    return reshape(out, shape=(*((count,) if asked.ndim else ()), *reduced_shape(x.shape, axes, keepdims)))


@public
def quantile(x, q, axis=None, keepdims=False, method="linear", interpolation=None):
    """The value below which the part q of the elements lies, over axes.

    x: any[...]; q: from 0 to 1, a number, a row of numbers or a tensor; method: "linear", "lower", "higher",
    "nearest", "midpoint" or another one of NumPy's 13 (interpolation: the same, PyTorch's name). Returns: float,
    x's shape without the axes; a row of q is a first axis. Raises: ArgumentError for q outside, another method or an
    empty axis. Numerics: NaN if there is one; the gradient goes to the elements between which the value lies.
    Source: NumPy, PyTorch. Example: `dg.quantile(dg.tensor([1.0, 2.0, 4.0]), 0.75).item()` is `3.0`.
    """
    return _quantile("quantile", x, q, axis, keepdims, interpolation or method, False)


@public
def nanquantile(x, q, axis=None, keepdims=False, method="linear", interpolation=None):
    """`quantile` of the elements that are no NaN; NaN where there is none. Source: NumPy, PyTorch."""
    return _quantile("nanquantile", x, q, axis, keepdims, interpolation or method, True)


def _hundredth(q):
    return q / 100.0 if isinstance(q, Tensor) else np.asarray(q, np.float64) / 100.0


@public
def percentile(x, q, axis=None, keepdims=False, method="linear"):
    """`quantile` with q from 0 to 100. Source: NumPy."""
    return quantile(x, _hundredth(q), axis=axis, keepdims=keepdims, method=method)


@public
def nanpercentile(x, q, axis=None, keepdims=False, method="linear"):
    """`nanquantile` with q from 0 to 100. Source: NumPy."""
    return nanquantile(x, _hundredth(q), axis=axis, keepdims=keepdims, method=method)


@composite
def median(x, *, axis=None, keepdims=False):
    """The middle element in order over axes, or the mean of the two in the middle.

    x: any[...] (integers are converted to the default float). Returns: float. Raises: ArgumentError over an empty axis.
    Numerics: NaN if there is one. The gradient goes to the middle elements. Source: NumPy.
    Example: `dg.median(dg.tensor([3.0, 1.0, 2.0, 9.0])).item()` is `2.5`.
    """
    x = _floats("median", x)
    rows, axes, n = _lined("median", x, axis)
    if not n:
        raise ArgumentError(
            "median", f"has no value over an empty axis, x: {x.type}", "check the tensor's size first"
        )
    ordered = sort_(rows, axis=-1)
    pick = lambda k: slice_(ordered, index=(Ellipsis, k))
    out = _between(
        pick((n - 1) // 2), pick(n // 2), 0.5
    )  # one element twice where n is odd: no branch on a size
    out = E.where(E.isnan(pick(n - 1)), pick(n - 1), out)
    return reshape(out, shape=reduced_shape(x.shape, axes, keepdims))


@composite
def nanmedian(x, *, axis=None, keepdims=False):
    """`median` of the elements that are no NaN; NaN where there is none. Source: NumPy."""
    return nanquantile(x, 0.5, axis=axis, keepdims=keepdims)


for _op in (median, nanmedian):
    _op.sample((3, 5)).sample((3, 4), axis=1).sample((2, 3, 2), axis=(0, 2), keepdims=True)
median.error_sample((2, 3), axis=2, match="axis=2 is outside")


@public
def most_frequent(x, axis=-1, keepdims=False):
    """The mode: the most frequent element along an axis, the smallest of several, and where it stands last.

    x: any[..., n, ...]. Returns: (values, indices: int64) without the axis, or with size 1 for keepdims.
    Raises: ArgumentError over an empty axis. Numerics: every NaN is one of its own. The gradient goes to the element
    found. Source: PyTorch (mode).
    Example: `dg.most_frequent(dg.tensor([3, 1, 3])).values.item()` is `3`.
    """
    x = as_tensor("most_frequent", x)
    if not x.shape:
        return Picked(x, E.cast(x, dtype=T.int64) * 0)
    axis = axis_of("most_frequent", x, axis)
    n = x.shape[axis]
    if not n:
        raise ArgumentError(
            "most_frequent", f"has no value over an empty axis, x: {x.type}", "check the tensor's size first"
        )
    values, order = sort_both(x, axis=axis)
    counted = reshape(arange(n, device=x.device), shape=tuple(n if a == axis else 1 for a in range(x.ndim)))
    place = broadcast_to(counted, shape=x.shape)
    side = (slice(None),) * axis
    if n > 1:
        still = E.equal(
            slice_(values, index=(*side, slice(1, n))), slice_(values, index=(*side, slice(0, n - 1)))
        )
        from .joining import concat

        first = E.not_equal(slice_(place, index=(*side, slice(0, 1))), 0)
        same = concat([first, still], axis=axis)
        start = cummax(E.where(same, 0, place), axis).values
    else:
        start = place
    best = argmax(place - start, axis=axis, keepdims=True)
    out = Picked(*(take_elements_placed(v, best, axis=axis) for v in (values, order)))
    return out if keepdims else Picked(*(slice_(v, index=(*side, 0)) for v in out))
