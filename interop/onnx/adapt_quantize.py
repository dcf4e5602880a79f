"""Importers of quantisation to 8 and 16 bits, and of integer products."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...core import types as T
from ...core.op import PUBLIC
from ...core.op import REGISTRY as ops
from ...core.ops.quantize import spread
from ...core.value import Tensor
from .adapt_convolution import conv
from .coded import coded, is_coded
from .dtypes import from_code, to_book
from .table import adapter


def _quantize_narrow(x, scale, zero, axis, block_size, saturate, book):
    """To codes: integers are rounded and moved by zero, floats are rounded as their format says."""
    y = x / spread("quantize_linear", scale, x, axis, block_size)
    if zero is not None and book.kind == "float" and book.bits > 6:
        zero = None  # it must be 0 there
    if book.kind != "float":
        y = ops["round"](y)
    if zero is not None:
        y = y + spread("quantize_linear", book.decode(zero, y.dtype), x, axis, block_size)
    if book.kind != "float":
        low, high = book.limits
        y = ops["clip"](y, min=low, max=high)
    return book.encode(y, bool(saturate))


@adapter("QuantizeLinear", since=10, codes="own")
def quantize(x, scale, zero=None, *, axis=1, saturate=1, block_size=0, output_dtype=0, precision=0):
    """`round(x / scale) + zero`, kept within the range of the result's type; precision: that of the division."""
    axis = axis if x.ndim else 0
    if precision:
        x = x.to(from_code(precision, "QuantizeLinear"))
    book = coded(zero).book if is_coded(zero) else to_book(output_dtype)
    scale = _floats(scale).to(x.dtype if x.dtype.is_float else T.float32)
    if book is not None:
        codes = None if zero is None else coded(zero).codes
        return _quantize_narrow(x, scale, codes, axis, block_size, saturate, book)
    dtype = (
        zero.dtype
        if zero is not None
        else from_code(output_dtype, "QuantizeLinear")
        if output_dtype
        else T.uint8
    )
    return ops["quantize_linear"](x, scale, zero, axis=axis, block_size=block_size, dtype=dtype)


def _floats(x):
    """A scale as floats, when it is kept in eight bits."""
    if is_coded(x):
        x = coded(x)
        return x.book.decode(x.codes, T.float32)
    return x


@adapter("DequantizeLinear", since=10, codes="own")
def dequantize(x, scale, zero=None, *, axis=1, block_size=0, output_dtype=0):
    """`(x - zero) * scale`."""
    scale = _floats(scale)
    if is_coded(x):
        x = coded(x)
        y = x.book.decode(x.codes, T.float32)
        if zero is not None and x.book.kind != "float":
            y = y - spread(
                "dequantize_linear", x.book.decode(coded(zero).codes, T.float32), y, axis, block_size
            )
        y = y * spread("dequantize_linear", scale.to(T.float32), y, axis, block_size)
        return y.to(from_code(output_dtype, "DequantizeLinear") if output_dtype else scale.dtype)
    out = ops["dequantize_linear"](x, scale, zero, axis=axis, block_size=block_size)
    return out.to(from_code(output_dtype, "DequantizeLinear")) if output_dtype else out


@adapter("QuantizeDequantize", domain="duograd", codes="own")
def quantize_dequantize(x, scale, zero=None, *, axis=1):
    """A QuantizeLinear and its DequantizeLinear, joined when the model is read: what QDQ training rounds by."""
    plain = isinstance(x, Tensor) and isinstance(scale, Tensor) and x.dtype is scale.dtype
    kind = T.uint8 if zero is None else zero.dtype
    if not plain or (zero is not None and not isinstance(zero, Tensor)) or not x.dtype.is_float:
        return dequantize(quantize(x, scale, zero, axis=axis), scale, zero, axis=axis)
    limits = np.iinfo(kind.np)
    row = None if scale.ndim == 0 or scale.size == 1 else axis
    return PUBLIC["fake_quantize"](
        x, scale, 0 if zero is None else zero, int(limits.min), int(limits.max), row
    )


@adapter("DynamicQuantizeLinear")
def dynamic_quantize(x):
    """As uint8, with the scale and zero point that the extremes give."""
    return ops["dynamic_quantize_linear"](x)


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
