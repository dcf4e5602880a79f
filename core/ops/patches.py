"""Windows of images laid side by side as columns (im2col), and their sum (col2im)."""

# Gradient rules are named after the input they are for, so names repeat here.
# ruff: noqa: F811
from __future__ import annotations

import math

import numpy as np

from ..errors import DtypeError, ShapeError
from ..op import primitive
from ..types import TensorType
from .window import onnx_pads, out_size, pads, row, spatial, windows


def _settings(op, n, window, stride, padding, dilation):
    return (
        row(op, "window", window, n), row(op, "stride", stride, n), pads(op, padding, n),
        row(op, "dilation", dilation, n),
    )  # fmt: skip


def _positions(op, sizes, window, stride, padding, dilation):
    out = tuple(out_size(*axis) for axis in zip(sizes, window, stride, padding, dilation))
    if min(out) < 1:
        raise ShapeError(
            op, f"the window {window} is larger than the padded image {list(sizes)}", "add padding"
        )
    return out


def _onnx_unfold(o, x, *, window, stride, padding, dilation):
    n = len(window)
    sizes = [out_size(*axis) for axis in zip(x.shape[2:], window, stride, padding, dilation)]
    shape, channels = x.shape, x.shape[1]
    y = (
        o.Pad(x, o.ints([0, 0, *onnx_pads(padding)[:n], 0, 0, *onnx_pads(padding)[n:]]))
        if any(map(any, padding))
        else x
    )
    for a in range(n):
        places = np.arange(window[a])[:, None] * dilation[a] + np.arange(sizes[a]) * stride[a]
        y = o.Gather(y, o.literal(places), axis=2 + 2 * a)
    order = [0, 1, *(2 + 2 * a for a in range(n)), *(3 + 2 * a for a in range(n))]
    return o.reshape(o.Transpose(y, perm=order), (shape[0], math.prod(window) * channels, math.prod(sizes)))


@primitive(onnx=_onnx_unfold)
def unfold(x, *, window, stride=1, padding=0, dilation=1):
    """The elements of every window as a column.

    x: float[N, C, ...] with 1 to 3 spatial axes; window, stride, dilation: int or one for each; padding (zeros):
    int, one for each or (before, after) for each. Returns: float[N, C * window, positions].
    Raises: ShapeError for a window larger than the padded image.
    Example: `dg.unfold(dg.ones((1, 2, 4)), window=3).shape` is `(1, 6, 2)`.
    """
    n = len(window)
    v = windows(x, window, stride, padding, dilation, 0)
    order = (0, 1, *range(2 + n, 2 + 2 * n), *range(2, 2 + n))
    count = math.prod(v.shape[2 : 2 + n])
    return v.transpose(order).reshape(x.shape[0], x.shape[1] * math.prod(window), count)


@unfold.normalize
def _(inputs, **attrs):
    return _settings("unfold", spatial("unfold", inputs[0]), **attrs)


@unfold.type
def _(x, *, window, stride, padding, dilation):
    if not x.dtype.is_float:
        raise DtypeError("unfold", f"takes floats, got {x}", "convert with .to(dg.float32)")
    count = math.prod(_positions("unfold", x.shape[2:], window, stride, padding, dilation))
    return TensorType(x.dtype, (x.shape[0], x.shape[1] * math.prod(window), count))


@unfold.grad
def x(g, x_type, window, stride, padding, dilation):
    return fold(g, size=x_type.shape[2:], window=window, stride=stride, padding=padding, dilation=dilation)


unfold.sample((2, 3, 4, 5), window=(2, 3)).sample((1, 2, 7), window=3, stride=2, padding=1)
unfold.sample((1, 2, 5, 5), window=2, dilation=2, padding=((1, 0), (0, 1)))
unfold.error_sample((1, 2, 2, 2), window=3, match="larger than the padded image")


def _onnx_fold(o, x, *, size, window, stride, padding, dilation):
    if o.opset < 18:
        return _onnx_fold_by_taps(o, x, size, window, stride, padding, dilation)
    return o.Col2Im(
        x,
        o.ints(size),
        o.ints(window),
        strides=list(stride),
        pads=onnx_pads(padding),
        dilations=list(dilation),
    )


def _onnx_fold_by_taps(o, x, size, window, stride, padding, dilation):
    # A transposed convolution with one filter for each tap, which is 1 there and 0 elsewhere.
    taps = math.prod(window)
    channels = x.shape[1] // taps
    counts = tuple(out_size(*axis) for axis in zip(size, window, stride, padding, dilation))
    x = o.reshape(x, (x.shape[0], x.shape[1], *counts))
    filters = np.tile(np.eye(taps), (channels, 1)).reshape(-1, 1, *window)
    reach = [(c - 1) * s + (w - 1) * d + 1 - sum(p)
             for c, s, w, d, p in zip(counts, stride, window, dilation, padding)]  # fmt: skip
    return o.ConvTranspose(
        x, o.literal(filters.astype(x.dtype.np)), group=channels, strides=list(stride), pads=onnx_pads(padding),
        dilations=list(dilation), output_padding=[n - r for n, r in zip(size, reach)],
    )  # fmt: skip


@primitive(onnx=_onnx_fold)
def fold(x, *, size, window, stride=1, padding=0, dilation=1):
    """Windows added up into an image: the transpose of `unfold`.

    x: float[N, C * window, positions]; size: the 1 to 3 spatial sizes of the result; window, stride, padding,
    dilation: those of the unfold. Returns: float[N, C, *size]. Raises: ShapeError for another number of columns.
    Source: ONNX Col2Im. Example: `dg.fold(dg.ones((1, 6, 2)), size=(4,), window=3).shape` is `(1, 2, 4)`.
    """
    out_sizes = tuple(out_size(*axis) for axis in zip(size, window, stride, padding, dilation))
    n, c = x.shape[0], x.shape[1] // math.prod(window)
    full = np.zeros((n, c, *(s + sum(p) for s, p in zip(size, padding))), x.dtype)
    columns = x.reshape(n, c, *window, *out_sizes)
    for tap in np.ndindex(*window):
        at = tuple(slice(t * d, t * d + p * s, s) for t, d, p, s in zip(tap, dilation, out_sizes, stride))
        full[(..., *at)] += columns[(slice(None), slice(None), *tap)]
    return full[(..., *(slice(p[0], p[0] + s) for p, s in zip(padding, size)))]


@fold.normalize
def _(inputs, size, **attrs):
    size = tuple(size) if isinstance(size, (tuple, list)) else (size,)
    return row("fold", "size", size, len(size)), *_settings("fold", len(size), **attrs)


@fold.type
def _(x, *, size, window, stride, padding, dilation):
    if not x.dtype.is_float or x.ndim != 3:
        raise DtypeError("fold", f"takes float[N, C * window, positions], got {x}", "convert or reshape it")
    count = math.prod(_positions("fold", size, window, stride, padding, dilation))
    if x.shape[1] % math.prod(window) or x.shape[2] != count:
        raise ShapeError(
            "fold", f"x: {x} is not [N, C * {math.prod(window)}, {count}] for size={size} and window={window}",
            "use the settings of the unfold",
        )  # fmt: skip
    return TensorType(x.dtype, (x.shape[0], x.shape[1] // math.prod(window), *size))


@fold.grad
def x(g, window, stride, padding, dilation):
    return unfold(g, window=window, stride=stride, padding=padding, dilation=dilation)


fold.sample((2, 12, 6), size=(3, 4), window=2).sample((1, 6, 4), size=(7,), window=3, stride=2, padding=1)
fold.error_sample((1, 6, 3), size=(4,), window=3, match="is not [N, C * 3, 2]")
