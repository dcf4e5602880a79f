"""Convolution over one to three spatial axes and its gradients, as ops of their own: they differentiate again."""

# Gradient rules are named after the input they are for, so names repeat here.
# ruff: noqa: F811
from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ArgumentError, DtypeError, ShapeError
from ..op import composite, primitive, public
from ..types import TensorType
from .window import conv_pads, onnx_pads, out_size, pads, row, spatial, speaking_as, windows


def _groups(op, groups):
    if not isinstance(groups, int) or groups < 1:
        raise ArgumentError(
            op, f"groups={groups} is not a positive int", "use a divisor of both channel numbers"
        )
    return groups


def _settings(op, n, window, stride, padding, dilation, groups):
    stride, dilation = row(op, "stride", stride, n), row(op, "dilation", dilation, n)
    return stride, conv_pads(op, padding, window, stride, dilation), dilation, _groups(op, groups)


def _check_pair(op, x, w):
    if x.ndim != w.ndim or not 3 <= x.ndim <= 5:
        raise ShapeError(
            op, f"takes x[N, C, ...] and w of as many axes, 3 to 5, got x: {x}, w: {w}", "add or merge axes"
        )
    if x.dtype is not w.dtype or not x.dtype.is_float:
        raise DtypeError(
            op, f"takes floats of one dtype, got x: {x}, w: {w}",
            "convert with .to(dtype); integers beside float32 give float64: convert them before",
        )  # fmt: skip


def _onnx_conv(o, x, w, *, stride, padding, dilation, groups):
    return o.Conv(
        x, w, kernel_shape=o.fixed(w.shape[2:]), strides=list(stride), pads=onnx_pads(padding),
        dilations=list(dilation), group=groups,
    )  # fmt: skip


@primitive(onnx=_onnx_conv)
def conv(x, w, *, stride=1, padding=0, dilation=1, groups=1):
    """Cross-correlation of images with filters, `out[n, k, i] = sum(x[n, c, i * stride + r * dilation] * w[k, c, r])`.

    x: float[N, C, ...], w: float[K, C/groups, ...] with the same 1 to 3 spatial axes; stride, dilation: int or
    one for each axis; padding: int, one for each axis, (before, after) for each axis, "valid" or (stride 1)
    "same"; groups: channels and filters in that many independent parts. Returns: float[N, K, ...].
    Raises: ShapeError for channels that do not fit or a window larger than the padded image.
    Numerics: accumulates in x's dtype, in a fixed order. Source: ONNX Conv.
    Example: `dg.conv(dg.ones((1, 1, 4)), dg.ones((1, 1, 3))).shape` is `(1, 1, 2)`.
    """
    n, k = x.shape[0], w.shape[0]
    v = windows(x, w.shape[2:], stride, padding, dilation, 0)
    m = w.ndim - 2
    v = v.reshape(n, groups, w.shape[1], *v.shape[2:])
    out = "dhw"[:m]
    taps = "xyz"[:m]
    filters = w.reshape(groups, k // groups, *w.shape[1:])
    y = np.einsum(f"ngc{out}{taps},gkc{taps}->ngk{out}", v, filters)
    return y.reshape(n, k, *y.shape[3:])


@conv.normalize
def _(inputs, **attrs):
    x, w = inputs
    n = spatial("conv", x)
    return _settings("conv", n, (*w.shape[2:], *(1,) * n)[:n], **attrs)


@conv.type
def _(x, w, *, stride, padding, dilation, groups):
    _check_pair("conv", x, w)
    if x.shape[1] != w.shape[1] * groups or w.shape[0] % groups:
        raise ShapeError(
            "conv", f"x: {x} has {x.shape[1]} channels, w: {w} with groups={groups} takes {w.shape[1] * groups}",
            "check in_channels and groups",
        )  # fmt: skip
    sizes = tuple(out_size(*axis) for axis in zip(x.shape[2:], w.shape[2:], stride, padding, dilation))
    if min(sizes) < 1 or 0 in w.shape[2:]:
        raise ShapeError(
            "conv", f"the window of w: {w} is empty or larger than the padded image x: {x}", "add padding"
        )
    return TensorType(x.dtype, (x.shape[0], w.shape[0], *sizes))


@conv.grad
def x(g, x_type, w, stride, padding, dilation, groups):
    return conv_x_grad(
        g, w, size=x_type.shape[2:], stride=stride, padding=padding, dilation=dilation, groups=groups
    )


@conv.grad
def w(g, x, w_type, stride, padding, dilation, groups):
    return conv_w_grad(
        g, x, window=w_type.shape[2:], stride=stride, padding=padding, dilation=dilation, groups=groups
    )


conv.sample((2, 3, 5, 6), (4, 3, 3, 2)).sample((2, 3, 6, 5), (4, 3, 3, 3), padding=1, stride=2)
conv.sample((1, 4, 6, 6), (4, 2, 2, 3), groups=2, dilation=2, padding=((1, 0), (2, 1)))
conv.sample((2, 3, 4, 4), (2, 3, 1, 1)).sample((0, 3, 4, 4), (2, 3, 3, 3)).sample(
    (2, 4, 9), (6, 2, 3), groups=2
)
conv.sample((2, 3, 5, 6, 7), (5, 3, 3, 2, 3), stride=(2, 1, 2), padding=(1, 0, 1))
conv.sample((2, 3, 7, 6), (6, 1, 3, 3), groups=3, padding="same")
conv.sample((1, 3, 5, 5, 5), (3, 1, 3, 3, 3), groups=3, stride=2, padding=1)
conv.error_sample((2, 3, 5, 5), (4, 2, 3, 3), match="3 channels")
conv.error_sample((2, 3, 5, 5), (4, 3, 3), match="as many axes")
conv.error_sample((2, 3, 2, 2), (4, 3, 3, 3), match="larger than the padded image")
conv.error_sample((2, 3, 5, 5), (4, 3, 3, 3), padding="some", match="padding='some'")


def transposed_size(n: int, window: int, stride: int, pads: Any, dilation: int, extra: int) -> int:
    """The size of an axis after a transposed convolution."""
    return (n - 1) * stride - sum(pads) + dilation * (window - 1) + 1 + extra


def _onnx_conv_x_grad(o, dy, w, *, size, stride, padding, dilation, groups):
    if any(n == 0 and o.fixed((n,)) for n in (*dy.shape, *w.shape)):
        return o.full((dy.shape[0], w.shape[1] * groups, *size), 0, dy.dtype)
    extra = [
        n - transposed_size(*axis, 0)
        for n, *axis in zip(size, dy.shape[2:], w.shape[2:], stride, padding, dilation)
    ]
    # What a window past the last one leaves follows the size: as much as there may be, and cut.
    room = [n if o.fixed((n,)) else s - 1 for n, s in zip(extra, stride)]
    wide = o.ConvTranspose(
        dy, w, kernel_shape=o.fixed(w.shape[2:]), strides=list(stride), pads=onnx_pads(padding),
        dilations=list(dilation), group=groups, output_padding=room,
    )  # fmt: skip
    if o.fixed(extra):
        return wide
    wide.shape = (*dy.shape[:1], w.shape[1] * groups, *(n + r - e for n, r, e in zip(size, room, extra)))
    keep = [("s", 0, n, 1) for n in (*wide.shape[:2], *size)]
    return o.slice(wide, keep)


@primitive(internal=True, onnx=_onnx_conv_x_grad)
def conv_x_grad(dy, w, *, size, stride=1, padding=0, dilation=1, groups=1):
    """The gradient of conv for its image (a transposed convolution). size: the image's spatial sizes."""
    n, k = dy.shape[:2]
    m, cg = w.ndim - 2, w.shape[1]
    full = np.zeros((n, groups, cg, *(s + sum(p) for s, p in zip(size, padding))), dy.dtype)
    out, taps = "dhw"[:m], "xyz"[:m]
    wide = np.einsum(
        f"ngk{out},gkc{taps}->ngc{out}{taps}",
        dy.reshape(n, groups, k // groups, *dy.shape[2:]),
        w.reshape(groups, k // groups, *w.shape[1:]),
    )
    for tap in np.ndindex(*w.shape[2:]):
        at = tuple(slice(t * d, t * d + p * s, s) for t, d, p, s in zip(tap, dilation, dy.shape[2:], stride))
        part = wide[(..., *tap)]
        room = full[(..., *at)].shape[3:]
        full[(..., *at)] += part[(..., *(slice(r) for r in room))]
    full = full.reshape(n, groups * cg, *full.shape[3:])
    return full[(..., *(slice(p[0], p[0] + s) for p, s in zip(padding, size)))]


@conv_x_grad.normalize
def _(inputs, size, **attrs):
    dy, w = inputs
    n = spatial("conv_x_grad", dy)
    return row("conv_x_grad", "size", size, n, 0), *_settings("conv_x_grad", n, w.shape[2:], **attrs)


@conv_x_grad.type
def _(dy, w, *, size, stride, padding, dilation, groups):
    return TensorType(dy.dtype, (dy.shape[0], w.shape[1] * groups, *size))


@conv_x_grad.grad
def dy(g, dy_type, w, stride, padding, dilation, groups):
    full = conv(g, w, stride=stride, padding=padding, dilation=dilation, groups=groups)
    if full.shape == dy_type.shape:
        return full
    # A transposed convolution with much output padding: the windows past the last one of dy.
    from .shape import slice_

    return slice_(full, index=(slice(None), slice(None), *(slice(n) for n in dy_type.shape[2:])))


@conv_x_grad.grad
def w(g, dy, w_type, stride, padding, dilation, groups):
    return conv_w_grad(
        dy, g, window=w_type.shape[2:], stride=stride, padding=padding, dilation=dilation, groups=groups
    )


conv_x_grad.sample((2, 4, 3, 4), (4, 3, 3, 3), size=(5, 6))
conv_x_grad.sample((2, 4, 3, 3), (4, 3, 3, 3), size=(6, 6), stride=2, padding=1)
conv_x_grad.sample((2, 4, 3), (4, 1, 3), size=(6,), stride=2, padding=1, groups=4)
conv_x_grad.sample((1, 4, 2, 3, 3), (4, 3, 3, 2, 3), size=(5, 4, 8), stride=(2, 1, 2))


@primitive(internal=True, parts="conv_w_grad")
def conv_w_grad(dy, x, *, window, stride=1, padding=0, dilation=1, groups=1):
    """The gradient of conv for its filters. window: the filters' spatial sizes."""
    n, k = dy.shape[:2]
    m = x.ndim - 2
    v = windows(x, window, stride, padding, dilation, 0, dy.shape[2:])
    v = v.reshape(n, groups, x.shape[1] // groups, *v.shape[2:])
    out, taps = "dhw"[:m], "xyz"[:m]
    dy = dy.reshape(n, groups, k // groups, *dy.shape[2:])
    dw = np.einsum(f"ngk{out},ngc{out}{taps}->gkc{taps}", dy, v)
    return dw.reshape(k, x.shape[1] // groups, *window)


@conv_w_grad.normalize
def _(inputs, window, **attrs):
    n = spatial("conv_w_grad", inputs[1])
    window = row("conv_w_grad", "window", window, n)
    return window, *_settings("conv_w_grad", n, window, **attrs)


@conv_w_grad.type
def _(dy, x, *, window, stride, padding, dilation, groups):
    return TensorType(dy.dtype, (dy.shape[1], x.shape[1] // groups, *window))


@conv_w_grad.grad
def dy(g, dy_type, x, stride, padding, dilation, groups):
    full = conv(x, g, stride=stride, padding=padding, dilation=dilation, groups=groups)
    if full.shape == dy_type.shape:
        return full
    from .shape import slice_

    return slice_(full, index=(slice(None), slice(None), *(slice(n) for n in dy_type.shape[2:])))


@conv_w_grad.grad
def x(g, dy, x_type, stride, padding, dilation, groups):
    return conv_x_grad(
        dy, g, size=x_type.shape[2:], stride=stride, padding=padding, dilation=dilation, groups=groups
    )


conv_w_grad.sample((2, 4, 3, 4), (2, 3, 5, 6), window=(3, 3))
conv_w_grad.sample((2, 4, 3, 3), (2, 3, 6, 6), window=(3, 3), stride=2, padding=1)
conv_w_grad.sample((2, 4, 7), (2, 4, 7), window=3, padding=1, groups=4)
conv_w_grad.sample(
    (2, 4, 2, 3, 2), (2, 3, 5, 5, 4), window=(3, 3, 2), stride=(2, 1, 2), padding=((1, 0), 0, 0)
)


@composite
def conv_transpose(x, w, *, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """The transpose of `conv` as a linear map: every x spreads over a window of the result, windows add up.

    x: float[N, K, ...], w: float[K, C/groups, ...] with the same 1 to 3 spatial axes; stride, padding, dilation,
    groups as of the conv that it is the transpose of; output_padding: more elements after the last one, below
    stride or dilation. Returns: float[N, C, ...], each axis `(n - 1) * stride - padding + dilation * (window - 1)
    + 1 + output_padding`.
    Raises: ShapeError for channels that do not fit, ArgumentError for output_padding.
    Numerics: accumulates in x's dtype, in a fixed order. Source: ONNX ConvTranspose.
    Example: `dg.conv_transpose(dg.ones((1, 1, 2)), dg.ones((1, 1, 3)), stride=2).shape` is `(1, 1, 5)`.
    """
    op = "conv_transpose"
    _check_pair(op, x.type, w.type)
    n = spatial(op, x)
    stride, dilation = row(op, "stride", stride, n), row(op, "dilation", dilation, n)
    padding, extra = pads(op, padding, n), row(op, "output_padding", output_padding, n, 0)
    if x.shape[1] != w.shape[0] or w.shape[0] % _groups(op, groups):
        raise ShapeError(
            op, f"x: {x.type} has {x.shape[1]} channels, w: {w.type} with groups={groups} takes {w.shape[0]}",
            "check in_channels and groups",
        )  # fmt: skip
    if any(e >= max(s, d) for e, s, d in zip(extra, stride, dilation)):
        raise ArgumentError(
            op, f"output_padding={output_padding} is not below stride={stride} or dilation={dilation}",
            "make it smaller",
        )  # fmt: skip
    size = tuple(
        transposed_size(*axis) for axis in zip(x.shape[2:], w.shape[2:], stride, padding, dilation, extra)
    )
    if min(size) < 1:
        raise ShapeError(op, f"padding={padding} leaves nothing of x: {x.type} under w: {w.type}", "pad less")
    return conv_x_grad(x, w, size=size, stride=stride, padding=padding, dilation=dilation, groups=groups)


conv_transpose.sample((2, 4, 3, 4), (4, 3, 3, 2)).sample(
    (2, 4, 5), (4, 2, 3), stride=2, padding=1, output_padding=1, groups=2
)
conv_transpose.sample((1, 2, 2, 3, 2), (2, 3, 2, 3, 2), stride=(2, 1, 2), dilation=(1, 2, 1))
conv_transpose.error_sample((2, 3, 4), (4, 3, 3), match="3 channels")
conv_transpose.error_sample((2, 4, 4), (4, 3, 3), output_padding=1, match="output_padding=1")


def check_axes(op: str, x: Any, n: int) -> None:
    """Raise ShapeError unless x has n spatial axes."""
    if len(x.shape) != n + 2:
        raise ShapeError(
            op, f"takes x[N, C, {', '.join('DHW'[3 - n :])}], got shape {list(x.shape)}", "add or merge axes"
        )


def _public_conv(n):
    name = f"conv{n}d"

    def of_rank(x, w, *, stride=1, padding=0, dilation=1, groups=1):
        with speaking_as(name):
            check_axes(name, x, n)
            return conv(x, w, stride=stride, padding=padding, dilation=dilation, groups=groups)

    of_rank.__name__ = name
    of_rank.__doc__ = f"`conv` of images with {n} spatial {'axis' if n == 1 else 'axes'}; see `dg.conv`."
    return public(of_rank)


conv1d, conv2d, conv3d = map(_public_conv, (1, 2, 3))
