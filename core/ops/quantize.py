"""Quantisation: floats as small integers with a scale and a zero point, for all, by axis or by block."""

from __future__ import annotations

import numpy as np

from .. import types as T
from ..errors import ArgumentError, DtypeError, ShapeError
from ..op import Ints, composite, pointwise, public
from ..scalar import s
from ..types import normalize_axis
from ..value import Tensor
from . import elementwise as E
from .reduction import max_, min_
from .shape import broadcast_to, expand_dims, reshape

_KINDS = ("int8", "uint8", "int16", "uint16")


def spread(op, v, x, axis, block_size):
    """A scale or zero point (of one number, one an axis, or one a block), shaped to broadcast to x."""
    if v is None or v.ndim == 0:
        return v
    if v.ndim == 1 and v.shape[0] == 1:
        return reshape(v, shape=())
    axis = normalize_axis(op, axis, x.ndim, x.type)
    if block_size:
        count = -(-x.shape[axis] // block_size)
        if v.shape != (*x.shape[:axis], count, *x.shape[axis + 1 :]):
            raise ShapeError(
                op, f"a scale of {v.type} does not fit blocks of {block_size} of x: {x.type}",
                f"its axis {axis} holds {count} numbers, the others are x's",
            )  # fmt: skip
        wide = broadcast_to(
            expand_dims(v, axis=axis + 1), shape=(*v.shape[: axis + 1], block_size, *v.shape[axis + 1 :])
        )
        full = reshape(wide, shape=(*v.shape[:axis], count * block_size, *v.shape[axis + 1 :]))
        return full[(slice(None),) * axis + (slice(0, x.shape[axis]),)]
    if v.ndim != 1 or v.shape[0] != x.shape[axis]:
        raise ShapeError(
            op,
            f"a scale of {v.type} does not fit axis {axis} of x: {x.type}",
            f"pass {x.shape[axis]} numbers",
        )
    return reshape(v, shape=tuple(-1 if a == axis else 1 for a in range(x.ndim)))


def _quantize_onnx(o, x, scale, zero, *, axis, block_size, dtype):
    o.not_float64(x)
    if zero is None:
        zero = o.full(scale.shape or (), 0, dtype)
    return o.QuantizeLinear(x, scale, zero, axis=axis, block_size=block_size or None)


@composite(onnx=_quantize_onnx)
def quantize_linear(x, scale, zero=None, *, axis=1, block_size=0, dtype="uint8"):
    """`round(x / scale) + zero`, kept within the range of dtype; halves to even.

    x: float[...]; scale: float[] or float[n], n the size of x's axis, or with block_size like x with that axis
    divided by it; zero: of dtype and like scale, or None for 0; dtype: int8, uint8, int16 or uint16 (zero's,
    when there is one). Returns: dtype, like x. Source: ONNX QuantizeLinear.
    """
    kind = T.as_dtype(dtype, "quantize_linear") if zero is None else zero.dtype
    info = np.iinfo(kind.np)
    y = E.round_(x / spread("quantize_linear", scale, x, axis, block_size))
    if zero is not None:
        y = y + E.cast(spread("quantize_linear", zero, x, axis, block_size), dtype=y.dtype)
    return E.cast(E.clip(y, min=float(info.min), max=float(info.max)), dtype=kind)


@quantize_linear.normalize
def _(inputs, axis, block_size, dtype):
    zero = inputs[2] if len(inputs) > 2 else None
    kind = T.as_dtype(dtype, "quantize_linear") if zero is None else zero.dtype
    if kind.name not in _KINDS:
        raise DtypeError("quantize_linear", f"cannot quantise to {kind}", f"use one of {', '.join(_KINDS)}")
    return axis, block_size, kind


quantize_linear.sample((3, 4), (), Ints((), 3, 4, "uint8"), low=0.2, grad=False)
quantize_linear.sample((3, 4), (4,), low=0.2, dtype="int8", grad=False)
quantize_linear.error_sample((3, 4), (), dtype="int64", match="cannot quantise to int64")


def _dequantize_onnx(o, x, scale, zero, *, axis, block_size):
    o.not_float64(scale)
    return o.DequantizeLinear(x, scale, zero, axis=axis, block_size=block_size or None)


@composite(onnx=_dequantize_onnx)
def dequantize_linear(x, scale, zero=None, *, axis=1, block_size=0):
    """`(x - zero) * scale` for integers x; scale, zero, axis and block_size as in `quantize_linear`.

    Returns: scale's dtype, like x. Source: ONNX DequantizeLinear.
    """
    y = x if x.dtype is T.int32 else E.cast(x, dtype=T.int32)
    if zero is not None:
        y = y - E.cast(spread("dequantize_linear", zero, x, axis, block_size), dtype=T.int32)
    return E.cast(y, dtype=scale.dtype) * spread("dequantize_linear", scale, x, axis, block_size)


dequantize_linear.sample(Ints((3, 4), 0, 99, "uint8"), (), Ints((), 3, 4, "uint8"), low=0.2)
dequantize_linear.sample(Ints((3, 4), -50, 50, "int8"), (4,), low=0.2)


def _dynamic_onnx(o, x):
    if x.dtype is not T.float32:
        raise o.Unavailable("ONNX quantises float32 alone by its extremes")
    return o.node("DynamicQuantizeLinear", (x,), {}, 3)


@composite(onnx=_dynamic_onnx)
def dynamic_quantize_linear(x):
    """x as uint8, with the scale and zero point that its extremes (and 0) give.

    x: float32[...]. Returns: (uint8 like x, scale: float32[], zero: uint8[]).
    Source: ONNX DynamicQuantizeLinear.
    """
    low, high = E.minimum(min_(x), 0.0), E.maximum(max_(x), 0.0)
    scale = (high - low) / 255.0
    safe = E.where(E.equal(scale, 0), 1.0, scale)
    zero = E.clip(E.round_(E.negative(low) / safe), min=0.0, max=255.0)
    y = E.clip(E.round_(x / safe) + zero, min=0.0, max=255.0)
    return E.cast(y, dtype=T.uint8), scale, E.cast(zero, dtype=T.uint8)


dynamic_quantize_linear.sample((3, 4), grad=False)


def _fake_onnx(o, x, scale, zero, *, least, most):
    """QuantizeLinear and DequantizeLinear, after a Clip where the range is not that of the integers."""
    o.not_float64(x)
    kind = next((k for k in (T.uint8, T.int8, T.int16, T.uint16)
                 if np.iinfo(k.np).min <= least and most <= np.iinfo(k.np).max), None)  # fmt: skip
    wide = [a for a, n in enumerate(scale.shape or ()) if n != 1]
    if kind is None or len(wide) > 1 or (zero.shape and zero.shape != scale.shape) or not x.dtype.is_float:
        raise o.Unavailable("no integer type holds the range")
    if kind.itemsize > 1:
        o.needs(21)
    flat = o.ints(() if not wide else (-1,))
    axis = wide[0] - len(scale.shape) if wide else None
    if (least, most) != (np.iinfo(kind.np).min, np.iinfo(kind.np).max):
        low, high = (o.Mul(o.Sub(o.const(v, x.dtype), zero), scale) for v in (least, most))
        x = o.Max(o.Min(x, high), low)
    scale = o.Reshape(scale, flat)
    zero = o.Reshape(o.cast(zero, kind), flat) if zero.shape or not wide else o.Expand(
        o.cast(zero, kind), o.Shape(scale)
    )  # fmt: skip
    return o.DequantizeLinear(o.QuantizeLinear(x, scale, zero, axis=axis), scale, zero, axis=axis)


@pointwise(internal=True, onnx=_fake_onnx)
def fake_quantize_(x, scale, zero, *, least, most):
    """x rounded to the grid that integers from least to most would give; x, scale, zero broadcast."""
    q = s.minimum(s.maximum(s.rint(x / scale) + zero, least), most)
    return (q - zero) * scale


@fake_quantize_.grad
def x(g, x, scale, zero, least, most):
    q = E.round_(x / scale) + zero
    return E.where(E.logical_and(E.greater_equal(q, least), E.less_equal(q, most)), g, 0.0)


# The slope is not the one of the values.
fake_quantize_.sample((3, 4), 0.25, 3.0, least=0.0, most=7.0, grad=False)
fake_quantize_.sample((3, 4), (4,), 0.0, low=0.2, least=-8.0, most=7.0, grad=False)


@public
def fake_quantize(x, scale, zero=0, low=0, high=255, axis=None):
    """x as it would be after `quantize_linear` and back, with a gradient that goes straight through.

    scale, zero: numbers, 0-d tensors, or vectors over `axis`; low, high: the range of the integers.
    Numerics: the slope is 1 within the range, 0 where x is cut; scale and zero get none.
    Source: Jacob et al., 2018.
    """
    if not low < high:
        raise ArgumentError("fake_quantize", f"low={low} is not below high={high}", "use such as 0 and 255")

    def ready(v):
        if not isinstance(v, Tensor):
            return float(v)
        v = E.cast(v, dtype=x.dtype) if v.dtype is not x.dtype else v
        return spread("fake_quantize", v.detach(), x, 0 if axis is None else axis, 0)

    return fake_quantize_(x, ready(scale), ready(zero), least=float(low), most=float(high))
