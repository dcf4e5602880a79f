"""Importers of quantisation to 8 and 16 bits, and of integer products."""

from __future__ import annotations

from typing import Any

from ...core import types as T
from ...core.op import REGISTRY as ops
from .adapt_convolution import conv
from .dtypes import from_code
from .table import adapter

_RANGE = {"uint8": (0, 255), "int8": (-128, 127), "uint16": (0, 65535), "int16": (-32768, 32767)}


def _spread(v: Any, x: Any, axis: int, block_size: int) -> Any:
    """A scale or zero point of one number, of one an axis, or of one a block, shaped to broadcast to x."""
    if v is None or v.ndim == 0 or (v.ndim == 1 and v.shape[0] == 1 and x.ndim != 1):
        return v if v is None or v.ndim == 0 else ops["reshape"](v, shape=())
    axis = axis % x.ndim
    if block_size:
        wide = ops["expand_dims"](v, axis=axis + 1)
        shape = (*v.shape[: axis + 1], block_size, *v.shape[axis + 1 :])
        full = ops["broadcast_to"](wide, shape=shape)
        flat = ops["reshape"](full, shape=(*v.shape[:axis], v.shape[axis] * block_size, *v.shape[axis + 1 :]))
        if flat.shape[axis] != x.shape[axis]:
            index = [slice(None)] * x.ndim
            index[axis] = slice(0, x.shape[axis])
            flat = ops["slice"](flat, index=tuple(index))
        return flat
    return ops["reshape"](v, shape=tuple(-1 if a == axis else 1 for a in range(x.ndim)))


@adapter("QuantizeLinear", since=10)
def quantize(x, scale, zero=None, *, axis=1, saturate=1, block_size=0, output_dtype=0, precision=0):
    """`round(x / scale) + zero`, kept within the integer's range."""
    dtype = (
        zero.dtype
        if zero is not None
        else from_code(output_dtype, "QuantizeLinear")
        if output_dtype
        else T.uint8
    )
    if dtype.name not in _RANGE:
        raise ValueError(f"quantising to {dtype} is not supported")
    low, high = _RANGE[dtype.name]
    s = _spread(scale, x, axis, block_size)
    y = ops["round"](x / s.to(x.dtype))
    if zero is not None:
        y = y + _spread(zero, x, axis, block_size).to(y.dtype)
    return ops["cast"](ops["clip"](y, min=float(low), max=float(high)), dtype=dtype)


@adapter("DequantizeLinear", since=10)
def dequantize(x, scale, zero=None, *, axis=1, block_size=0, output_dtype=0):
    """`(x - zero) * scale`."""
    y = x.to(T.int32) if x.dtype is not T.int32 else x
    if zero is not None:
        y = y - _spread(zero, x, axis, block_size).to(T.int32)
    out = y.to(scale.dtype) * _spread(scale, x, axis, block_size)
    return out.to(from_code(output_dtype, "DequantizeLinear")) if output_dtype else out


def _centred(x: Any, zero: Any, row: bool) -> Any:
    wide = x.to(T.int32)
    if zero is None:
        return wide
    z = zero.to(T.int32)
    if z.ndim == 1 and z.shape[0] != 1 and row:
        z = ops["expand_dims"](z, axis=-1)
    return wide - z


@adapter("MatMulInteger")
def matmul_integer(a, b, a_zero=None, b_zero=None):
    """The product of centred integers, in 32 bits."""
    return ops["matmul"](_centred(a, a_zero, True), _centred(b, b_zero, False))


@adapter("QLinearMatMul")
def qlinear_matmul(a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero):
    """A product of quantised matrices, quantised again."""
    total = ops["matmul"](_centred(a, a_zero, True), _centred(b, b_zero, False)).to(T.float32)
    sa, sb = (s.to(T.float32) for s in (a_scale, b_scale))
    if sa.ndim == 1 and sa.shape[0] != 1:
        sa = ops["expand_dims"](sa, axis=-1)
    return quantize(total * sa * sb, y_scale.to(T.float32), y_zero, axis=-1)


def _conv_integers(x: Any, w: Any, x_zero: Any, w_zero: Any, settings: dict[str, Any]) -> Any:
    # float64 holds sums of products of 8-bit integers exactly.
    x = _centred(x, x_zero, False).to(T.float64)
    if w_zero is not None and w_zero.ndim == 1 and w_zero.shape[0] != 1:
        w_zero = ops["reshape"](w_zero, shape=(-1,) + (1,) * (w.ndim - 1))
    w = _centred(w, w_zero, False).to(T.float64)
    return conv(x, w, **settings)


@adapter("ConvInteger")
def conv_integer(
    x,
    w,
    x_zero=None,
    w_zero=None,
    *,
    kernel_shape=None,
    strides=None,
    pads=None,
    dilations=None,
    group=1,
    auto_pad="NOTSET",
):
    """A convolution of centred integers, in 32 bits."""
    settings = {
        "strides": strides,
        "pads": pads,
        "dilations": dilations,
        "group": group,
        "auto_pad": auto_pad,
    }
    return _conv_integers(x, w, x_zero, w_zero, settings).to(T.int32)


@adapter("QLinearConv")
def qlinear_conv(
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, b=None, *, kernel_shape=None, strides=None, pads=None,
    dilations=None, group=1, auto_pad="NOTSET",
):  # fmt: skip
    """A convolution of quantised images, quantised again."""
    settings = {
        "strides": strides,
        "pads": pads,
        "dilations": dilations,
        "group": group,
        "auto_pad": auto_pad,
    }
    total = _conv_integers(x, w, x_zero, w_zero, settings)
    if b is not None:
        total = total + ops["reshape"](b.to(T.float64), shape=(-1,) + (1,) * (x.ndim - 2))
    s = w_scale if w_scale.ndim == 0 else ops["reshape"](w_scale, shape=(-1,) + (1,) * (x.ndim - 2))
    return quantize((total * (x_scale * s)).to(T.float32), y_scale, y_zero)
