"""Two-dimensional convolution and its gradients, as ops of their own so that they differentiate again."""

# Gradient rules are named after the input they are for, so names repeat here.
# ruff: noqa: F811
from __future__ import annotations

import numpy as np

from ..errors import ArgumentError, DtypeError, ShapeError
from ..op import primitive
from ..types import TensorType

Pair = tuple[int, int]


def pair(op: str, name: str, value: object, low: int = 1) -> Pair:
    """(vertical, horizontal) from an int or a pair. Raises ArgumentError below `low`."""
    out = value if isinstance(value, (tuple, list)) else (value, value)
    if len(out) != 2 or not all(isinstance(v, int) and v >= low for v in out):
        raise ArgumentError(
            op, f"{name}={value} is not an int or a pair of ints from {low}", "pass one or two ints"
        )
    return tuple(out)


def padding_pairs(op: str, padding: object) -> tuple[Pair, Pair]:
    """((top, bottom), (left, right)) from an int, (vertical, horizontal) or the full form."""
    both = padding if isinstance(padding, (tuple, list)) else (padding, padding)
    out = tuple(tuple(p) if isinstance(p, (tuple, list)) else (p, p) for p in both)
    if len(out) != 2 or any(len(p) != 2 or not all(isinstance(n, int) and n >= 0 for n in p) for p in out):
        raise ArgumentError(
            op, f"padding={padding} is not ((top, bottom), (left, right)) from 0", "pass an int or pairs"
        )
    return out


def out_size(n: int, window: int, stride: int, pads: Pair, dilation: int) -> int:
    """The number of window positions along one axis."""
    return (n + pads[0] + pads[1] - dilation * (window - 1) - 1) // stride + 1


def _normalize_conv(op, stride, padding, dilation, groups):
    if not isinstance(groups, int) or groups < 1:
        raise ArgumentError(
            op, f"groups={groups} is not a positive int", "use a divisor of both channel numbers"
        )
    return pair(op, "stride", stride), padding_pairs(op, padding), pair(op, "dilation", dilation), groups


def _onnx_conv(o, x, w, b, *, stride, padding, dilation, groups):
    (top, bottom), (left, right) = padding
    inputs = (x, w) if b is None else (x, w, b)
    return o.Conv(
        *inputs, kernel_shape=list(w.shape[2:]), strides=list(stride), pads=[top, left, bottom, right],
        dilations=list(dilation), group=groups,
    )  # fmt: skip


def _windows(x, window, stride, padding, dilation, fill):
    """NumPy view of all windows: [N, C, P, Q, R, S]."""
    x = np.pad(x, ((0, 0), (0, 0), *padding), constant_values=fill)
    span = [d * (n - 1) + 1 for n, d in zip(window, dilation)]
    v = np.lib.stride_tricks.sliding_window_view(x, span, axis=(2, 3))
    return v[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]


@primitive(onnx=lambda o, x, w, **attrs: _onnx_conv(o, x, w, None, **attrs))
def conv2d(x, w, *, stride=1, padding=0, dilation=1, groups=1):
    """Two-dimensional cross-correlation of images with filters.

    x: float[N, C, H, W], w: float[K, C/groups, R, S]; stride, dilation: int or pair; padding: int, pair or
    ((top, bottom), (left, right)). Returns: float[N, K, P, Q].
    Raises: ShapeError for channels that do not fit or a window larger than the padded image.
    Numerics: accumulates in x's dtype, in a fixed order. Source: ONNX Conv.
    """
    n = x.shape[0]
    k, cg, _, _ = w.shape
    v = _windows(x, w.shape[2:], stride, padding, dilation, 0)
    v = v.reshape(n, groups, cg, *v.shape[2:])
    return np.einsum("ngcpqrs,gkcrs->ngkpq", v, w.reshape(groups, k // groups, *w.shape[1:])).reshape(
        n, k, v.shape[3], v.shape[4]
    )


@conv2d.normalize
def _(inputs, **attrs):
    return _normalize_conv("conv2d", **attrs)


@conv2d.type
def _(x, w, *, stride, padding, dilation, groups):
    if x.ndim != 4 or w.ndim != 4:
        raise ShapeError(
            "conv2d", f"takes x[N, C, H, W] and w[K, C, R, S], got x: {x}, w: {w}", "add or merge axes"
        )
    if x.dtype is not w.dtype or not x.dtype.is_float:
        raise DtypeError(
            "conv2d", f"takes floats of one dtype, got x: {x}, w: {w}", "convert with .to(dtype)"
        )
    if x.shape[1] != w.shape[1] * groups or w.shape[0] % groups:
        raise ShapeError(
            "conv2d", f"x: {x} has {x.shape[1]} channels, w: {w} with groups={groups} takes {w.shape[1] * groups}",
            "check in_channels and groups",
        )  # fmt: skip
    p, q = (out_size(x.shape[2 + a], w.shape[2 + a], stride[a], padding[a], dilation[a]) for a in (0, 1))
    if p < 1 or q < 1:
        raise ShapeError(
            "conv2d", f"the window of w: {w} is larger than the padded image x: {x}", "add padding"
        )
    return TensorType(x.dtype, (x.shape[0], w.shape[0], p, q))


@conv2d.grad
def x(g, x_type, w, stride, padding, dilation, groups):
    return conv2d_x_grad(
        g, w, size=x_type.shape[2:], stride=stride, padding=padding, dilation=dilation, groups=groups
    )


@conv2d.grad
def w(g, x, w_type, stride, padding, dilation, groups):
    return conv2d_w_grad(
        g, x, window=w_type.shape[2:], stride=stride, padding=padding, dilation=dilation, groups=groups
    )


conv2d.sample((2, 3, 5, 6), (4, 3, 3, 2)).sample((2, 3, 6, 5), (4, 3, 3, 3), padding=1, stride=2)
conv2d.sample((1, 4, 6, 6), (4, 2, 2, 3), groups=2, dilation=2, padding=((1, 0), (2, 1))).sample(
    (2, 3, 4, 4), (2, 3, 1, 1)
)
conv2d.error_sample((2, 3, 5, 5), (4, 2, 3, 3), match="3 channels")


def _onnx_conv_x_grad(o, dy, w, *, size, stride, padding, dilation, groups):
    (top, bottom), (left, right) = padding
    whole = [
        out_size(size[a], w.shape[2 + a], stride[a], padding[a], dilation[a]) * stride[a] - stride[a]
        + dilation[a] * (w.shape[2 + a] - 1) + 1 - sum(padding[a])
        for a in (0, 1)
    ]  # fmt: skip
    return o.ConvTranspose(
        dy, w, kernel_shape=list(w.shape[2:]), strides=list(stride), pads=[top, left, bottom, right],
        dilations=list(dilation), group=groups, output_padding=[n - m for n, m in zip(size, whole)],
    )  # fmt: skip


@primitive(internal=True, onnx=_onnx_conv_x_grad)
def conv2d_x_grad(dy, w, *, size, stride=1, padding=0, dilation=1, groups=1):
    """The gradient of conv2d for its image (a transposed convolution). size: (H, W) of the image."""
    n, k, p, q = dy.shape
    _, cg, r, s = w.shape
    (top, bottom), (left, right) = padding
    full = np.zeros((n, groups, cg, size[0] + top + bottom, size[1] + left + right), dy.dtype)
    wide = np.einsum(
        "ngkpq,gkcrs->ngcpqrs",
        dy.reshape(n, groups, k // groups, p, q),
        w.reshape(groups, k // groups, cg, r, s),
    )
    for a in range(r):
        for b in range(s):
            y, z = a * dilation[0], b * dilation[1]
            full[..., y : y + p * stride[0] : stride[0], z : z + q * stride[1] : stride[1]] += wide[..., a, b]
    full = full.reshape(n, groups * cg, *full.shape[3:])
    return full[:, :, top : top + size[0], left : left + size[1]]


@conv2d_x_grad.normalize
def _(inputs, size, **attrs):
    return (tuple(size), *_normalize_conv("conv2d_x_grad", **attrs))


@conv2d_x_grad.type
def _(dy, w, *, size, stride, padding, dilation, groups):
    return TensorType(dy.dtype, (dy.shape[0], w.shape[1] * groups, *size))


@conv2d_x_grad.grad
def dy(g, w, stride, padding, dilation, groups):
    return conv2d(g, w, stride=stride, padding=padding, dilation=dilation, groups=groups)


@conv2d_x_grad.grad
def w(g, dy, w_type, stride, padding, dilation, groups):
    return conv2d_w_grad(
        dy, g, window=w_type.shape[2:], stride=stride, padding=padding, dilation=dilation, groups=groups
    )


conv2d_x_grad.sample((2, 4, 3, 4), (4, 3, 3, 3), size=(5, 6))
conv2d_x_grad.sample((2, 4, 3, 3), (4, 3, 3, 3), size=(6, 6), stride=2, padding=1)


@primitive(internal=True, no_onnx="a gradient op")
def conv2d_w_grad(dy, x, *, window, stride=1, padding=0, dilation=1, groups=1):
    """The gradient of conv2d for its filters. window: (R, S) of the filters."""
    n, k, p, q = dy.shape
    v = _windows(x, window, stride, padding, dilation, 0)[:, :, :p, :q]
    v = v.reshape(n, groups, x.shape[1] // groups, *v.shape[2:])
    out = np.einsum("ngkpq,ngcpqrs->gkcrs", dy.reshape(n, groups, k // groups, p, q), v)
    return out.reshape(k, x.shape[1] // groups, *window)


@conv2d_w_grad.normalize
def _(inputs, window, **attrs):
    return (tuple(window), *_normalize_conv("conv2d_w_grad", **attrs))


@conv2d_w_grad.type
def _(dy, x, *, window, stride, padding, dilation, groups):
    return TensorType(dy.dtype, (dy.shape[1], x.shape[1] // groups, *window))


@conv2d_w_grad.grad
def dy(g, x, stride, padding, dilation, groups):
    return conv2d(x, g, stride=stride, padding=padding, dilation=dilation, groups=groups)


@conv2d_w_grad.grad
def x(g, dy, x_type, stride, padding, dilation, groups):
    return conv2d_x_grad(
        dy, g, size=x_type.shape[2:], stride=stride, padding=padding, dilation=dilation, groups=groups
    )


conv2d_w_grad.sample((2, 4, 3, 4), (2, 3, 5, 6), window=(3, 3))
conv2d_w_grad.sample((2, 4, 3, 3), (2, 3, 6, 6), window=(3, 3), stride=2, padding=1)


# ---------------------------------------------------------------- pooling


def _normalize_pool(op, window, stride, padding, dilation):
    window = pair(op, "window", window)
    return (
        window,
        window if stride is None else pair(op, "stride", stride),
        padding_pairs(op, padding),
        pair(op, "dilation", dilation),
    )


def _pool_type(op, x, window, stride, padding, dilation):
    if x.ndim != 4:
        raise ShapeError(op, f"takes x[N, C, H, W], got {x}", "add or merge axes")
    if not x.dtype.is_float:
        raise DtypeError(op, f"takes floats, got {x}", "convert with .to(dg.float32)")
    for a in (0, 1):
        if max(padding[a]) > dilation[a] * (window[a] - 1):
            raise ArgumentError(op, f"padding={padding} holds whole windows of window={window}", "pad less")
    p, q = (out_size(x.shape[2 + a], window[a], stride[a], padding[a], dilation[a]) for a in (0, 1))
    if p < 1 or q < 1:
        raise ShapeError(
            op, f"the window {window} is larger than the padded image x: {x}", "use a smaller window"
        )
    return TensorType(x.dtype, (*x.shape[:2], p, q))


def _onnx_pool(name):
    def build(o, x, *, window, stride, padding, dilation=(1, 1), **rest):
        (top, bottom), (left, right) = padding
        attrs = {"kernel_shape": list(window), "strides": list(stride), "pads": [top, left, bottom, right]}
        if dilation != (1, 1):
            attrs["dilations"] = list(dilation)
        if "count_include_pad" in rest:
            attrs["count_include_pad"] = int(rest["count_include_pad"])
        return getattr(o, name)(x, **attrs)

    return build


@primitive(onnx=_onnx_pool("MaxPool"))
def max_pool2d(x, *, window, stride=None, padding=0, dilation=1):
    """The maximum of each window.

    x: float[N, C, H, W]; window, stride (the window when None), padding, dilation as conv2d.
    Returns: float[N, C, P, Q]. Raises: ShapeError for a window larger than the padded image.
    Numerics: padding counts as -inf; NaN wins; the first maximum takes the gradient. Source: ONNX MaxPool.
    """
    return _windows(x, window, stride, padding, dilation, -np.inf).max(axis=(4, 5))


@max_pool2d.normalize
def _(inputs, **attrs):
    return _normalize_pool("max_pool2d", **attrs)


@max_pool2d.type
def _(x, *, window, stride, padding, dilation):
    return _pool_type("max_pool2d", x, window, stride, padding, dilation)


@max_pool2d.grad
def x(g, x, out, window, stride, padding, dilation):
    return max_pool2d_x_grad(g, x, out, window=window, stride=stride, padding=padding, dilation=dilation)


max_pool2d.sample((2, 3, 6, 6), window=2).sample((1, 2, 5, 7), window=3, stride=2, padding=1)
max_pool2d.sample((1, 2, 7, 7), window=(2, 3), stride=1, dilation=2)
max_pool2d.error_sample((2, 3, 2, 2), window=3, match="larger than the padded image")


def _first_maximum(x, out, window, stride, padding, dilation):
    """Per window, the position in it of the first element equal to the maximum."""
    v = _windows(x, window, stride, padding, dilation, -np.inf)
    flat = v.reshape(*v.shape[:4], -1)
    return np.argmax((flat == out[..., None]) | (np.isnan(flat) & np.isnan(out[..., None])), axis=-1)


@primitive(internal=True, no_onnx="a gradient op")
def max_pool2d_x_grad(dy, x, out_, *, window, stride=None, padding=0, dilation=1):
    """The gradient of max_pool2d: each dy goes to the first element of its window that equals the maximum."""
    full = np.zeros((*x.shape[:2], *(x.shape[2 + a] + sum(padding[a]) for a in (0, 1))), dy.dtype)
    first = _first_maximum(x, out_, window, stride, padding, dilation)
    for index in np.ndindex(*dy.shape):
        n, c, p, q = index
        r, s = divmod(int(first[index]), window[1])
        full[n, c, p * stride[0] + r * dilation[0], q * stride[1] + s * dilation[1]] += dy[index]
    return full[:, :, padding[0][0] : padding[0][0] + x.shape[2], padding[1][0] : padding[1][0] + x.shape[3]]


@max_pool2d_x_grad.normalize
def _(inputs, **attrs):
    return _normalize_pool("max_pool2d_x_grad", **attrs)


@max_pool2d_x_grad.type
def _(dy, x, out_, **attrs):
    return x


@max_pool2d_x_grad.grad
def dy(g, x, out_, window, stride, padding, dilation):
    return max_pool2d_pick(g, x, out_, window=window, stride=stride, padding=padding, dilation=dilation)


@primitive(internal=True, no_onnx="a gradient op")
def max_pool2d_pick(v, x, out_, *, window, stride=None, padding=0, dilation=1):
    """Per window, the element of v where x has its first maximum (out_: the maxima); linear in v."""
    first = _first_maximum(x, out_, window, stride, padding, dilation)
    w = _windows(v, window, stride, padding, dilation, 0)
    return np.take_along_axis(w.reshape(*w.shape[:4], -1), first[..., None], axis=-1)[..., 0]


@max_pool2d_pick.normalize
def _(inputs, **attrs):
    return _normalize_pool("max_pool2d_pick", **attrs)


@max_pool2d_pick.type
def _(v, x, out_, **attrs):
    return out_


@max_pool2d_pick.grad
def v(g, x, out_, window, stride, padding, dilation):
    return max_pool2d_x_grad(g, x, out_, window=window, stride=stride, padding=padding, dilation=dilation)


@primitive(onnx=_onnx_pool("AveragePool"))
def avg_pool2d(x, *, window, stride=None, padding=0, count_include_pad=True):
    """The mean of each window. count_include_pad: whether padding counts as zeros. Source: ONNX AveragePool."""
    total = _windows(x, window, stride, padding, (1, 1), 0).sum(axis=(4, 5))
    if count_include_pad:
        return total * x.dtype.type(1.0 / (window[0] * window[1]))
    count = _windows(np.ones_like(x), window, stride, padding, (1, 1), 0).sum(axis=(4, 5))
    return total / count


@avg_pool2d.normalize
def _(inputs, window, stride, padding, count_include_pad):
    return (*_normalize_pool("avg_pool2d", window, stride, padding, 1)[:3], bool(count_include_pad))


@avg_pool2d.type
def _(x, *, window, stride, padding, count_include_pad):
    return _pool_type("avg_pool2d", x, window, stride, padding, (1, 1))


@avg_pool2d.grad
def x(g, x_type, window, stride, padding, count_include_pad):
    return avg_pool2d_x_grad(
        g,
        size=x_type.shape[2:],
        window=window,
        stride=stride,
        padding=padding,
        count_include_pad=count_include_pad,
    )


avg_pool2d.sample((2, 3, 6, 6), window=2).sample(
    (1, 2, 5, 7), window=3, stride=2, padding=1, count_include_pad=False
)
avg_pool2d.sample((1, 2, 5, 5), window=3, stride=1, padding=1)


@primitive(internal=True, no_onnx="a gradient op")
def avg_pool2d_x_grad(dy, *, size, window, stride=None, padding=0, count_include_pad=True):
    """The gradient of avg_pool2d: each dy is spread evenly over its window. size: (H, W) of the image."""
    full = np.zeros((*dy.shape[:2], *(size[a] + sum(padding[a]) for a in (0, 1))), dy.dtype)
    if count_include_pad:
        share = dy * dy.dtype.type(1.0 / (window[0] * window[1]))
    else:
        ones = np.ones((1, 1, *size), dy.dtype)
        share = dy / _windows(ones, window, stride, padding, (1, 1), 0).sum(axis=(4, 5))
    p, q = dy.shape[2:]
    for r in range(window[0]):
        for s in range(window[1]):
            full[:, :, r : r + p * stride[0] : stride[0], s : s + q * stride[1] : stride[1]] += share
    return full[:, :, padding[0][0] : padding[0][0] + size[0], padding[1][0] : padding[1][0] + size[1]]


@avg_pool2d_x_grad.normalize
def _(inputs, size, window, stride, padding, count_include_pad):
    return (
        tuple(size),
        *_normalize_pool("avg_pool2d_x_grad", window, stride, padding, 1)[:3],
        bool(count_include_pad),
    )


@avg_pool2d_x_grad.type
def _(dy, *, size, **attrs):
    return TensorType(dy.dtype, (*dy.shape[:2], *size))


@avg_pool2d_x_grad.grad
def dy(g, window, stride, padding, count_include_pad):
    return avg_pool2d(g, window=window, stride=stride, padding=padding, count_include_pad=count_include_pad)


avg_pool2d_x_grad.sample((2, 3, 3, 3), size=(6, 6), window=2)
