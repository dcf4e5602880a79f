"""Reductions over axes. `axis`: an int, a tuple of ints or None (all axes); `keepdims` keeps them with size 1."""

# Gradient rules are named after the input they are for, so names repeat here.
# ruff: noqa: F811
from __future__ import annotations

import math

import numpy as np

from .. import types as T
from ..errors import ArgumentError
from ..op import Ints, composite, primitive
from ..types import TensorType, normalize_axes
from . import elementwise as E
from .shape import broadcast_to, permute, reshape


def reduced_shape(shape, axes, keepdims):
    """The shape after a reduction over sorted, non-negative axes."""
    return tuple(1 if a in axes else n for a, n in enumerate(shape) if keepdims or a not in axes)


def _axes(op):
    def normalize(inputs, axis, **rest):
        if isinstance(axis, list):
            axis = tuple(axis)
        x = inputs[0]
        if axis is not None and hasattr(x, "shape"):
            axis = normalize_axes(op.name, axis, len(x.shape), x.type)
            if len(axis) == len(x.shape):
                axis = None
        if rest.get("dtype") is not None:
            rest["dtype"] = T.as_dtype(rest["dtype"], op.name)
        return (axis, *rest.values())

    op.normalize(normalize)


def _restore(value, x_type, axis, keepdims):
    """A reduced tensor with its axes of size 1 put back."""
    if keepdims or not x_type.shape:
        return value
    axes = normalize_axes("reduce", axis, len(x_type.shape))
    return reshape(value, shape=reduced_shape(x_type.shape, axes, True))


def _reduction(fn, out_dtype, empty_is_error=False, **options):
    op = primitive(reduction=fn.__name__.rstrip("_"), **options)(fn)
    _axes(op)

    @op.type
    def _(x, axis=None, keepdims=False, dtype=None):
        axes = normalize_axes(op.name, axis, len(x.shape), x)
        if empty_is_error and x.size == 0 and math.prod(x.shape[a] for a in axes) == 0:
            raise ArgumentError(
                op.name, f"has no value over an empty axis, x: {x}", "check the tensor's size first"
            )
        return TensorType(dtype or out_dtype(op, x.dtype), reduced_shape(x.shape, axes, keepdims))

    op.sample((3, 4)).sample((2, 3, 4), axis=1).sample((2, 3, 4), axis=(0, 2), keepdims=True).sample(
        (5,), axis=-1
    )
    op.sample(()).sample((70, 3), axis=0)
    op.error_sample((2, 3), axis=3, match="axis=3 is outside")
    return op


def _wide(op, dtype):
    """Sums of small integers and bools are made in 64 bits, as NumPy makes them."""
    if dtype.kind in ("bool", "int"):
        return T.int64
    return T.uint64 if dtype.kind == "uint" else dtype


def _same(op, dtype):
    return dtype


def _truth(op, dtype):
    return T.bool_


def _position(op, dtype):
    return T.int64


def _onnx_reduce(name):
    def build(o, x, *, axis, keepdims, dtype=None):
        return o.reduce(name, x, axis, keepdims)

    return build


def sum_(x, *, axis=None, keepdims=False, dtype=None):
    """The sum over axes.

    x: any[...]; axis, keepdims: see the module; dtype: elements are converted to it first. Returns: x's dtype;
    int64/uint64 for smaller integers and bool.
    Raises: ArgumentError for an axis outside x. Numerics: floats add up in x's dtype, in blocks with a
    fixed order that depends on the shape alone; 0 over an empty axis. Source: ONNX ReduceSum.
    """
    return np.sum(x, axis=axis, keepdims=keepdims, dtype=dtype or _wide(None, T.as_dtype(x.dtype)).np)


sum_ = _reduction(sum_, _wide, complex="own", onnx=_onnx_reduce("ReduceSum"))


@sum_.grad
def x(g, x_type, axis, keepdims):
    return broadcast_to(_restore(g, x_type, axis, keepdims), shape=x_type.shape)


def prod(x, *, axis=None, keepdims=False, dtype=None):
    """The product over axes. dtype as `sum`; 1 over an empty axis. Source: ONNX ReduceProd.

    Numerics: the gradient is exact also with zeros.
    """
    return np.prod(x, axis=axis, keepdims=keepdims, dtype=dtype or _wide(None, T.as_dtype(x.dtype)).np)


prod = _reduction(
    prod, _wide, complex="own", conjugate=True, onnx=_onnx_reduce("ReduceProd"), parts="product"
)


@prod.grad
def x(g, x, axis, keepdims):
    # The product of all others is that of those before times that of those behind: exact with zeros, to any order.
    from .scan import cumprod_, shift

    axes = normalize_axes("prod", axis, len(x.shape))
    if not axes or not x.size:
        return broadcast_to(_restore(g, x.type, axis, keepdims), shape=x.shape)
    kept = [a for a in range(len(x.shape)) if a not in axes]
    order = (*kept, *axes)
    moved = permute(x if x.dtype is g.dtype else x.to(g.dtype), axes=order)
    row = reshape(moved, shape=(*(x.shape[a] for a in kept), math.prod(x.shape[a] for a in axes)))
    last = len(kept)
    before = shift(cumprod_(row, axis=last), last, 1, 1.0)
    behind = shift(cumprod_(row, axis=last, reverse=True), last, -1, 1.0)
    slope = reshape(before * behind, shape=moved.shape)
    back = permute(slope, axes=tuple(sorted(range(len(order)), key=order.__getitem__)))
    return _restore(g, x.type, axis, keepdims) * back


for _op in (sum_, prod):
    _op.sample((3, 4), axis=1, dtype="float64").sample(Ints((3, 4), 0, 3, "int8"), axis=0, dtype="int32")
    _op.sample((3, 4), axis=()).sample((0, 3), axis=0).sample((2, 3), axis=[0, 1], keepdims=True)


def max_(x, *, axis=None, keepdims=False):
    """The largest element over axes.

    Numerics: NaN if there is one. Equal maxima share the gradient equally. Raises: ArgumentError over an
    empty axis. Source: ONNX ReduceMax.
    """
    return np.max(x, axis=axis, keepdims=keepdims)


max_ = _reduction(max_, _same, True, onnx=_onnx_reduce("ReduceMax"))


def min_(x, *, axis=None, keepdims=False):
    """The smallest element over axes. NaN, ties and empty axes as `max`. Source: ONNX ReduceMin."""
    return np.min(x, axis=axis, keepdims=keepdims)


min_ = _reduction(min_, _same, True, onnx=_onnx_reduce("ReduceMin"))


def _extreme_grad(g, x, out, axis, keepdims):
    hit = E.cast(E.equal(x, _restore(out, x.type, axis, keepdims)), dtype=x.dtype)
    share = hit / sum_(hit, axis=axis, keepdims=True)
    return _restore(g, x.type, axis, keepdims) * share


for _op in (max_, min_):

    @_op.grad
    def x(g, x, out, axis, keepdims):
        return _extreme_grad(g, x, out, axis, keepdims)


def _onnx_any(o, x, axis, keepdims):
    """Over an empty axis, too: the largest of no integers is the least one, which is true."""
    return o.Cast(o.reduce("ReduceSum", o.Cast(x, to=o.INT32), axis, keepdims), to=o.BOOL)


def any_(x, *, axis=None, keepdims=False):
    """Whether any element is true (not 0); False over an empty axis. Returns: bool."""
    return np.any(x, axis=axis, keepdims=keepdims)


any_ = _reduction(
    any_, _truth, complex="own", no_gradient="boolean result",
    onnx=lambda o, x, *, axis, keepdims: _onnx_any(o, o.Cast(x, to=o.BOOL), axis, keepdims),
)  # fmt: skip


def all_(x, *, axis=None, keepdims=False):
    """Whether all elements are true (not 0); True over an empty axis. Returns: bool."""
    return np.all(x, axis=axis, keepdims=keepdims)


all_ = _reduction(
    all_, _truth, complex="own", no_gradient="boolean result",
    onnx=lambda o, x, *, axis, keepdims: o.Not(_onnx_any(o, o.Not(o.Cast(x, to=o.BOOL)), axis, keepdims)),
)  # fmt: skip


def _arg(fn, onnx):
    name = fn.__name__
    op = primitive(reduction=name, no_gradient="integer result", onnx=onnx)(fn)

    @op.normalize
    def _(inputs, axis, keepdims):
        x = inputs[0]
        if isinstance(axis, (tuple, list)):
            raise ArgumentError(
                name, f"axis={axis} names several axes", "pass one axis, or None for the flat index"
            )
        if axis is not None and hasattr(x, "shape"):
            axis = T.normalize_axis(name, axis, len(x.shape), x.type)
        return (axis, keepdims)

    @op.type
    def _(x, axis=None, keepdims=False):
        axes = normalize_axes(name, axis, len(x.shape), x)
        if math.prod(x.shape[a] for a in axes) == 0:
            raise ArgumentError(
                name, f"has no value over an empty axis, x: {x}", "check the tensor's size first"
            )
        return TensorType(T.int64, reduced_shape(x.shape, axes, keepdims))

    op.sample((3, 4)).sample((2, 3, 4), axis=1).sample((2, 3, 4), axis=-1, keepdims=True).sample(Ints((30,)))
    return op


def argmax(x, *, axis=None, keepdims=False):
    """The index of the first maximum along one axis, or into the flattened x when axis is None.

    Returns: int64. Numerics: the first NaN counts as the maximum. Source: ONNX ArgMax.
    """
    return np.argmax(x, axis=axis, keepdims=keepdims)


argmax = _arg(argmax, lambda o, x, *, axis, keepdims: o.arg("ArgMax", x, axis, keepdims))


def argmin(x, *, axis=None, keepdims=False):
    """The index of the first minimum along one axis, or into the flattened x. NaN as `argmax`. Source: ONNX ArgMin."""
    return np.argmin(x, axis=axis, keepdims=keepdims)


argmin = _arg(argmin, lambda o, x, *, axis, keepdims: o.arg("ArgMin", x, axis, keepdims))


# ---------------------------------------------------------------- built from the above


def _count(x, axis):
    return math.prod(x.shape[a] for a in normalize_axes("mean", axis, x.ndim, x.type))


@composite(widen=True, onnx=_onnx_reduce("ReduceMean"))
def mean(x, *, axis=None, keepdims=False, dtype=None):
    """The arithmetic mean over axes; integers are converted to the default float. Source: ONNX ReduceMean.

    dtype: elements are converted to it first. Numerics: NaN over an empty axis.
    """
    if dtype is not None:
        x = x.to(dtype)
    if not x.dtype.has_gradient:
        x = E.cast(x, dtype=T.default_float)
    n = _count(x, axis)
    return sum_(x, axis=axis, keepdims=keepdims) * (1.0 / n if n else math.nan)


mean.sample((3, 4)).sample((2, 3, 4), axis=1).sample((2, 3, 4), axis=(0, 2), keepdims=True).sample(
    Ints((4,)), grad=False
)


@composite(widen=True)
def var(x, *, axis=None, correction=0.0, keepdims=False):
    """The variance over axes: the sum of `(x - mean)**2` divided by `n - correction`.

    correction: 0 for the population, 1 for the sample's estimate. Numerics: two passes, no cancellation.
    """
    n = _count(x, axis)
    centred = x - mean(x, axis=axis, keepdims=True)
    divisor = n - correction
    return sum_(E.square(centred), axis=axis, keepdims=keepdims) * (
        1.0 / divisor if divisor > 0 else math.nan
    )


@var.grad
def x(g, x, axis, correction, keepdims):
    divisor = _count(x, axis) - correction
    scale = 2.0 / divisor if divisor > 0 else math.nan
    return _restore(g, x.type, axis, keepdims) * scale * (x - mean(x, axis=axis, keepdims=True))


var.sample((3, 4)).sample((2, 3, 4), axis=1, correction=1.0).sample((2, 3, 4), axis=(0, 2), keepdims=True)


@composite(widen=True)
def std(x, *, axis=None, correction=0.0, keepdims=False):
    """The standard deviation over axes: the root of `var`. Its gradient is 0 where all elements are equal."""
    return E.sqrt(var(x, axis=axis, correction=correction, keepdims=keepdims))


@std.grad
def x(g, x, out, axis, correction, keepdims):
    divisor = _count(x, axis) - correction
    size = _restore(out, x.type, axis, keepdims) * (divisor if divisor > 0 else math.nan)
    share = E.where(
        E.equal(size, 0), 0.0, _restore(g, x.type, axis, keepdims) / E.where(E.equal(size, 0), 1.0, size)
    )
    return share * (x - mean(x, axis=axis, keepdims=True))


std.sample((3, 4)).sample((2, 3, 4), axis=1, correction=1.0)


@composite(widen=True, onnx=_onnx_reduce("ReduceLogSumExp"))
def logsumexp(x, *, axis=None, keepdims=False):
    """`log(sum(exp(x)))` over axes, without overflow; -inf over an empty axis. Source: ONNX ReduceLogSumExp."""
    if not _count(x, axis):
        return E.log(sum_(x, axis=axis, keepdims=keepdims))
    top = max_(x, axis=axis, keepdims=True).detach()
    shift = E.where(E.isfinite(top), top, 0.0)
    total = E.log(sum_(E.exp(x - shift), axis=axis, keepdims=True)) + shift
    return (
        total
        if keepdims
        else reshape(total, shape=reduced_shape(x.shape, normalize_axes("logsumexp", axis, x.ndim), False))
    )


@logsumexp.grad
def x(g, x, out, axis, keepdims):
    total = _restore(out, x.type, axis, keepdims)
    return _restore(g, x.type, axis, keepdims) * E.exp(x - E.where(E.isfinite(total), total, 0.0))


logsumexp.sample((3, 4)).sample((2, 3, 4), axis=1).sample((2, 3), axis=(0, 1), keepdims=True)
