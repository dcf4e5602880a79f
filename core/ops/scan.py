"""Running results along an axis: sums, products, extremes, log-sums and linear recurrences.

Numerics of all: floats add up and multiply in float64 and every result is rounded once; the order depends on
the shape alone, not on threads. `reverse` starts at the end of the axis.
"""

# Gradient rules are named after the input they are for, so names repeat here.
# ruff: noqa: F811
from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from .. import types as T
from ..errors import ArgumentError, DtypeError, ShapeError
from ..op import Ints, primitive, public
from ..types import TensorType
from ..value import Tensor
from . import elementwise as E
from .creation import full_
from .picking import take_elements_x_grad
from .shape import concat, reshape, slice_


def _scan_shape(x, axis):
    return x.shape if axis is not None else (x.size,)


def _axis_of(op, x, axis):
    if isinstance(axis, (tuple, list)):
        raise ArgumentError(op, f"axis={axis} names several axes", "pass one axis, or None for x as one row")
    if axis is None or not hasattr(x, "shape"):
        return axis
    if not x.shape and axis in (0, -1):
        return None
    return T.normalize_axis(op, axis, len(x.shape), x.type)


def _with_dtype(op):
    @op.normalize
    def _(inputs, axis, dtype, reverse):
        dtype = None if dtype is None else T.as_dtype(dtype, op.name)
        return (_axis_of(op.name, inputs[0], axis), dtype, bool(reverse))


def _wide(dtype):
    """Small integers and bools add up in 64 bits, as in `sum`."""
    if dtype.kind in ("bool", "int"):
        return T.int64
    return T.uint64 if dtype.kind == "uint" else dtype


def _run(fn, x, axis, dtype, reverse):
    """A NumPy scan with the reference's accumulation."""
    x = np.ravel(x) if axis is None else x
    axis = 0 if axis is None else axis
    x = np.flip(x, axis) if reverse else x
    out = fn(x, axis=axis, dtype=np.float64 if np.dtype(dtype).kind == "f" else dtype).astype(dtype)
    return np.flip(out, axis) if reverse else out


def shift(x, axis, by, fill):
    """x moved along an axis by one, up (1) or down (-1), with `fill` at the end that is free."""
    n = x.shape[axis]
    if not n:
        return x
    kept = slice(0, n - 1) if by > 0 else slice(1, n)
    rest = slice_(x, index=(slice(None),) * axis + (kept,))
    shape = tuple(1 if a == axis else m for a, m in enumerate(x.shape))
    edge = full_(fill, shape=shape, dtype=x.dtype, device=x.device)
    return concat([edge, rest] if by > 0 else [rest, edge], axis=axis)


def _samples(op, **more):
    op.sample((3, 4), axis=1, **more).sample((2, 3, 4), axis=1, **more).sample(
        (5,), axis=-1, reverse=True, **more
    )
    op.sample((4, 20), axis=0, reverse=True, **more).sample((0, 3), axis=0, **more).sample(
        (2, 0), axis=0, **more
    )
    return op


# ---------------------------------------------------------------- sums


def _shifted(o, x, k, axis, fill, reverse):
    """The elements k places before, as an ONNX computation; `fill` where there is none."""
    n = x.shape[axis]
    edge = o.full(tuple(k if a == axis else m for a, m in enumerate(x.shape)), fill, x.dtype)
    first, last = (k, n) if reverse else (0, n - k)
    rest = o.Slice(x, o.ints((first,)), o.ints((last,)), o.ints((axis,)))
    out = o.Concat(*((rest, edge) if reverse else (edge, rest)), axis=axis)
    out.shape = x.shape
    return out


def _doubling(o, states, fills, merge, axis, reverse):
    """A scan for which ONNX has no op: spans of 1, 2, 4, ... elements are combined with those before them."""
    from .. import errors

    shape = states[0].shape
    n = shape[axis]
    if type(n) is not int:  # a size that differs from trace to trace is an int, too
        raise errors.OnnxError(
            "onnx.export", "a running product or extreme along a dynamic axis", "fix the axis' size"
        )
    k = 1
    while k < n:
        before = [_shifted(o, s, k, axis, f, reverse) for s, f in zip(states, fills)]
        states = merge(before, states)
        for s in states:
            s.shape = shape
        k *= 2
    return states


def _rows(o, x, axis, dtype):
    """x in the result's dtype, as one row when axis is None; and the axis."""
    if dtype is not None:
        x = o.cast(x, dtype)
    if axis is None:
        shape = (x.size,)
        x, axis = o.reshape(x, (-1,)), 0
        x.shape = shape
    return x, axis


def _onnx_cumsum(o, x, *, axis, dtype, reverse):
    x, axis = _rows(o, x, axis, dtype or _wide(x.dtype))
    return o.CumSum(x, o.literal(np.asarray(axis, np.int64)), reverse=int(reverse))


@primitive(complex="linear", onnx=_onnx_cumsum)
def cumsum(x, *, axis=None, dtype=None, reverse=False):
    """The sum of each element and those before it along an axis; along x read as one row when axis is None.

    x: any[...]; dtype: of the result. Returns: x's shape; the dtype of `sum`. Raises: ArgumentError for an axis
    outside x. Numerics: see the module. Source: NumPy, PyTorch, ONNX CumSum.
    Example: `dg.cumsum(dg.tensor([1.0, 2.0, 4.0]))` is `[1.0, 3.0, 7.0]`.
    """
    return _run(np.cumsum, x, axis, dtype or _wide(T.as_dtype(x.dtype)).np, reverse)


_with_dtype(cumsum)


@cumsum.type
def _(x, axis=None, dtype=None, reverse=False):
    return TensorType(dtype or _wide(x.dtype), _scan_shape(x, axis))


@cumsum.grad
def x(g, x_type, axis, reverse):
    out = cumsum(g, axis=0 if axis is None else axis, reverse=not reverse)
    return reshape(out, shape=x_type.shape) if axis is None else out


_samples(cumsum)
cumsum.sample((2, 3)).sample(()).sample(Ints((3, 4), 0, 3, "int8"), axis=0).sample((3, 1500), axis=1)
cumsum.sample(Ints((4,), 0, 2, "bool"), dtype="float32", grad=False)
cumsum.error_sample((2, 3), axis=2, match="axis=2 is outside")
cumsum.error_sample((2, 3), axis=(0, 1), match="several axes")


# ---------------------------------------------------------------- products and recurrences


def _onnx_cumprod(o, x, *, axis, dtype, reverse):
    x, axis = _rows(o, x, axis, dtype or _wide(x.dtype))
    return _doubling(o, [x], [1], lambda a, b: [o.Mul(a[0], b[0])], axis, reverse)[0]


@primitive(onnx=_onnx_cumprod)
def cumprod(x, *, axis=None, dtype=None, reverse=False):
    """The product of each element and those before it along an axis; of x read as one row when axis is None.

    x: any[...]; dtype: of the result. Returns: x's shape; the dtype of `prod`. Numerics: see the module; the
    gradient is exact also where elements are 0. Source: NumPy, PyTorch.
    Example: `dg.cumprod(dg.tensor([1.0, 2.0, 4.0]))` is `[1.0, 2.0, 8.0]`.
    """
    return _run(np.cumprod, x, axis, dtype or _wide(T.as_dtype(x.dtype)).np, reverse)


_with_dtype(cumprod)
cumprod.type(cumsum.type_rule)


@cumprod.grad
def x(g, x, out, axis, reverse):
    # d(out_j)/d(x_i) is the product of all up to j but x_i: those before i, times those from i + 1 to j, whose
    # sum weighted with g is a recurrence. Nothing is divided.
    shape, place = x.shape, 0 if axis is None else axis
    if axis is None:
        x = reshape(x, shape=(x.size,))
    up = -1 if reverse else 1
    behind = linear_scan(shift(x, place, -up, 0.0), g, axis=place, reverse=not reverse)
    slope = shift(out, place, up, 1.0) * behind
    return reshape(slope, shape=shape) if axis is None else slope


_samples(cumprod)
cumprod.sample((2, 3)).sample(()).sample(Ints((3, 4), 0, 3, "int32"), axis=0)
cumprod.error_sample((2, 3), axis=2, match="axis=2 is outside")


@public
def cumprod_(x, axis=None, dtype=None, reverse=False):
    """As the op `cumprod`, which it is for real numbers; complex ones are multiplied in log2(n) steps of pairs."""
    if dtype is not None and (x.dtype.is_complex or T.as_dtype(dtype, "cumprod").is_complex):
        x = x.to(dtype)
    if not x.dtype.is_complex:
        return cumprod(x, axis=axis, dtype=dtype, reverse=reverse)
    axis = _axis_of("cumprod", x, axis)
    x, axis = (reshape(x, shape=(-1,)), 0) if axis is None else (x, axis)
    every = (slice(None),) * axis
    x = x[(*every, slice(None, None, -1))] if reverse else x
    step = 1
    while step < x.shape[axis]:
        head, tail, before = (x[(*every, part)] for part in (slice(step), slice(step, None), slice(-step)))
        x = concat([head, tail * before], axis=axis)
        step *= 2
    return x[(*every, slice(None, None, -1))] if reverse else x


def _onnx_linear(o, a, b, *, axis, reverse):
    merge = lambda l, r: [o.Mul(l[0], r[0]), o.Add(o.Mul(r[0], l[1]), r[1])]
    return _doubling(o, [a, b], [1, 0], merge, axis, reverse)[1]


@primitive(onnx=_onnx_linear)
def linear_scan(a, b, *, axis=-1, reverse=False):
    """The linear recurrence `s[i] = a[i] * s[i - 1] + b[i]` along an axis, starting from 0.

    a, b: float[...] of one shape and dtype. Returns: their shape and dtype. Raises: ShapeError when they differ.
    Numerics: see the module. With `reverse`, s[i] follows from s[i + 1].
    Example: `dg.linear_scan(dg.tensor([0.5, 0.5]), dg.tensor([1.0, 1.0]))` is `[1.0, 1.5]`.
    """
    axis = axis % max(1, a.ndim)
    a, b = (np.moveaxis(np.asarray(v, np.float64), axis, 0) for v in (a, b))
    out, state = np.empty_like(b), 0.0
    for i in range(len(b))[:: -1 if reverse else 1]:
        out[i] = state = a[i] * state + b[i]
    return np.moveaxis(out, 0, axis)


@linear_scan.normalize
def _(inputs, axis, reverse):
    return (_axis_of("linear_scan", inputs[0], axis), bool(reverse))


@linear_scan.type
def _(a, b, *, axis, reverse):
    if a != b or not a.dtype.is_float:
        raise ShapeError(
            "linear_scan", f"a: {a} and b: {b} differ, or are no floats", "broadcast, convert them"
        )
    return b


@linear_scan.grad_joint
def _(g, a, out, axis, reverse):
    up = -1 if reverse else 1
    axis = a.ndim - 1 if axis is None else axis
    db = linear_scan(shift(a, axis, -up, 0.0), g, axis=axis, reverse=not reverse)
    return db * shift(out, axis, up, 0.0), db


linear_scan.sample((3, 4), (3, 4), axis=1).sample((4, 20), (4, 20), axis=0, reverse=True).sample((0,), (0,))
linear_scan.sample((2, 1100), (2, 1100), low=-0.9, high=0.9, grad=False)
linear_scan.error_sample((2, 3), (3,), match="differ")


def _onnx_logcumsumexp(o, x, *, axis, reverse):
    x, axis = _rows(o, x, axis, None)

    def merge(a, b):
        top = o.Max(a[0], b[0])
        return [o.Add(top, o.Log(o.Add(o.Exp(o.Sub(a[0], top)), o.Exp(o.Sub(b[0], top)))))]

    return _doubling(o, [x], [-math.inf], merge, axis, reverse)[0]


@primitive(onnx=_onnx_logcumsumexp)
def logcumsumexp(x, *, axis=None, reverse=False):
    """`log(cumsum(exp(x)))` along an axis without overflow; of x read as one row when axis is None.

    x: float[...]. Returns: x's shape and dtype. Raises: DtypeError unless x is float. Source: PyTorch.
    """
    x = np.ravel(x) if axis is None else x
    axis = 0 if axis is None else axis
    x = np.flip(x, axis) if reverse else x
    out = np.logaddexp.accumulate(x.astype(np.float64), axis=axis) if x.size else x
    return np.flip(out, axis) if reverse else out


@logcumsumexp.normalize
def _(inputs, axis, reverse):
    return (_axis_of("logcumsumexp", inputs[0], axis), bool(reverse))


@logcumsumexp.type
def _(x, axis=None, reverse=False):
    if not x.dtype.is_float:
        raise DtypeError("logcumsumexp", f"x: {x} is not float", "convert it: x.to(dg.float32)")
    return TensorType(x.dtype, _scan_shape(x, axis))


@logcumsumexp.grad
def x(g, x, out, axis, reverse):
    # The sum over j of g[j] * exp(x[i] - out[j]) as a recurrence whose factors are at most 1.
    shape, place = x.shape, 0 if axis is None else axis
    if axis is None:
        x = reshape(x, shape=(x.size,))
    following = shift(out, place, 1 if reverse else -1, math.inf)
    gap = E.where(E.equal(out, following), 0.0, out - following)
    sums = linear_scan(E.exp(gap), g, axis=place, reverse=not reverse)
    slope = E.where(E.equal(x, -math.inf), 0.0, E.exp(x - out)) * sums
    return reshape(slope, shape=shape) if axis is None else slope


_samples(logcumsumexp)
logcumsumexp.sample((2, 3)).sample(()).error_sample(Ints((2, 3)), match="is not float")


# ---------------------------------------------------------------- extremes


class Extremes(NamedTuple):
    """Extremes and where they stand."""

    values: Tensor
    indices: Tensor


def _extreme(name, better, word, bound):
    def body(x, *, axis):
        if not np.ndim(x):
            return x, np.zeros((), np.int64)
        first = np.moveaxis(x, axis, 0)
        values, indices = np.empty_like(first), np.empty(first.shape, np.int64)
        for i in range(len(first)):
            if not i:
                values[0], indices[0] = first[0], 0
                continue
            take = np.isnan(first[i]) | (better(first[i], values[i - 1]) & ~np.isnan(values[i - 1]))
            values[i] = np.where(take, first[i], values[i - 1])
            indices[i] = np.where(take, i, indices[i - 1])
        return np.moveaxis(values, 0, axis), np.moveaxis(indices, 0, axis)

    def onnx(o, x, *, axis):
        node = getattr(o, word)
        back = x.dtype
        shape = x.shape
        x = o.cast(x, T.int32) if x.dtype is T.bool_ else x
        axis = 0 if axis is None else axis
        if not shape:
            return o.Identity(x), o.const(0, T.int64)
        x.shape = shape
        low = bound(x.dtype)
        values = _doubling(o, [x], [low], lambda a, b: [node(a[0], b[0])], axis, False)[0]
        steps = o.counted(0, 1, shape[axis], T.int64)
        count = o.reshape(steps, [shape[axis] if a == axis else 1 for a in range(len(shape))])
        here = o.Where(o.Equal(x, values), count, o.const(0, T.int64))
        here.shape, here.dtype = shape, T.int64
        indices = _doubling(o, [here], [0], lambda a, b: [o.Max(a[0], b[0])], axis, False)[0]
        return o.cast(values, back), indices

    body.__name__ = body.__qualname__ = name
    largest = "largest" if name == "cummax" else "smallest"
    body.__doc__ = f"""The {largest} element so far along an axis, and its position.

    x: any[...]. Returns: (values, indices: int64), both of x's shape. Numerics: the first NaN stays; of equal
    ones the last counts, and gets the gradient. Source: PyTorch.
    """
    op = primitive(onnx=onnx)(body)

    @op.normalize
    def _(inputs, axis):
        return (_axis_of(name, inputs[0], axis),)

    @op.type
    def _(x, *, axis):
        return x, TensorType(T.int64, x.shape)

    @op.grad
    def x(gs, outs, x_type, axis):
        return (
            take_elements_x_grad(gs[0], outs[1], size=x_type.shape[axis], axis=axis)
            if x_type.shape
            else gs[0]
        )

    op.sample((3, 4), axis=1).sample((4, 20), axis=0).sample((2, 3, 4), axis=1).sample((0, 3), axis=0)
    op.sample(Ints((3, 9), 0, 4), axis=1).sample(Ints((9,), 0, 2, "bool"), axis=0).sample((), axis=0)
    op.error_sample((2, 3), axis=2, match="axis=2 is outside")
    return op


def _limit(low):
    def bound(dtype):
        if dtype.is_float:
            return -math.inf if low else math.inf
        info = np.iinfo(dtype.np)
        return int(info.min if low else info.max)

    return bound


cummax_ = _extreme("cummax", np.greater_equal, "Max", _limit(True))
cummin_ = _extreme("cummin", np.less_equal, "Min", _limit(False))


@public
def cummax(x, axis):
    """The largest element so far along an axis, and its position: (values, indices: int64), both of x's shape.

    Numerics: the first NaN stays; of equal ones the last counts, and gets the gradient. Source: PyTorch.
    Example: `dg.cummax(dg.tensor([1, 3, 2]), 0).values` is `[1, 3, 3]`.
    """
    return Extremes(*cummax_(x, axis=axis))


@public
def cummin(x, axis):
    """The smallest element so far along an axis, and its position; as `cummax`. Source: PyTorch."""
    return Extremes(*cummin_(x, axis=axis))


# ---------------------------------------------------------------- the array API's names


def _cumulative(name, scan, start):
    def run(x, axis=None, dtype=None, include_initial=False):
        if axis is None:
            if x.ndim != 1:
                raise ArgumentError(name, f"x: {x.type} has {x.ndim} axes and axis is missing", "pass axis=")
            axis = 0
        axis = T.normalize_axis(name, axis, x.ndim, x.type)
        out = scan(x, axis=axis, dtype=dtype)
        if not include_initial:
            return out
        shape = tuple(1 if a == axis else n for a, n in enumerate(out.shape))
        return concat([full_(start, shape=shape, dtype=out.dtype, device=out.device), out], axis=axis)

    what = "sum" if start == 0 else "product"
    run.__name__ = run.__qualname__ = name
    run.__doc__ = f"""The {what} of each element and those before it along an axis: a {what} that runs.

    axis may be left out for one axis. include_initial: start with {start}, one element more.
    Raises: ArgumentError when axis is missing and x has not one axis. Source: array API.
    """
    return public(run)


cumulative_sum = _cumulative("cumulative_sum", cumsum, 0)
cumulative_prod = _cumulative("cumulative_prod", cumprod_, 1)
