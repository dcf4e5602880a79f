"""Pooling over one to three spatial axes: maxima and where they are, means, p-norms, and their inverses."""

# Gradient rules are named after the input they are for, so names repeat here.
# ruff: noqa: F811
from __future__ import annotations

import math

import numpy as np

from .. import types as T
from ..errors import ArgumentError, DtypeError, ShapeError
from ..op import Ints, composite, primitive, public
from ..types import TensorType
from .convolution import check_axes
from .elementwise import abs_, power
from .window import onnx_pads, out_size, pads, row, spatial, speaking_as, windows


def _settings(op, inputs, window, stride, padding, dilation, ceil_mode):
    n = spatial(op, inputs[-1])
    window = row(op, "window", window, n)
    stride = window if stride is None else row(op, "stride", stride, n)
    return window, stride, pads(op, padding, n), row(op, "dilation", dilation, n), bool(ceil_mode)


def _pool_type(op, x, window, stride, padding, dilation, ceil_mode):
    if not x.dtype.is_float:
        raise DtypeError(op, f"takes floats, got {x}", "convert with .to(dg.float32)")
    if any(max(p) > d * (k - 1) for k, p, d in zip(window, padding, dilation)):
        raise ArgumentError(op, f"padding={padding} holds whole windows of window={window}", "pad less")
    if math.prod(window) > 1 << 53:
        raise ArgumentError(
            op, f"window={window} has more elements than can be counted", "use a smaller window"
        )
    sizes = tuple(out_size(*axis, ceil_mode) for axis in zip(x.shape[2:], window, stride, padding, dilation))
    if min(sizes) < 1:
        raise ShapeError(
            op, f"the window {window} is larger than the padded image x: {x}", "use a smaller window"
        )
    return TensorType(x.dtype, (*x.shape[:2], *sizes))


def _onnx_pool(o, name, x, window, stride, padding, dilation, ceil_mode, n_outputs=1, **rest):
    attrs = {"kernel_shape": list(window), "strides": list(stride), "pads": onnx_pads(padding), **rest}
    if set(dilation) != {1}:
        attrs["dilations"] = list(dilation)
    if ceil_mode:
        attrs["ceil_mode"] = 1
    return o.node(name, (x,), attrs, n_outputs)


# ---------------------------------------------------------------- maxima


@primitive(onnx=lambda o, x, **attrs: _onnx_pool(o, "MaxPool", x, **attrs))
def max_pool(x, *, window, stride=None, padding=0, dilation=1, ceil_mode=False):
    """The maximum of each window.

    x: float[N, C, ...] with 1 to 3 spatial axes; window, stride (the window when None), dilation: int or one for
    each axis; padding: int, one for each axis or (before, after) for each; ceil_mode: a last window counts that
    begins inside and ends outside. Returns: float[N, C, ...].
    Raises: ShapeError for a window larger than the padded image, ArgumentError for a padding of whole windows.
    Numerics: padding counts as -inf; NaN wins; the first maximum in row-major order takes the gradient.
    Source: ONNX MaxPool. Example: `dg.max_pool(dg.ones((1, 1, 4)), window=2).shape` is `(1, 1, 2)`.
    """
    n = len(window)
    sizes = tuple(out_size(*a, ceil_mode) for a in zip(x.shape[2:], window, stride, padding, dilation))
    v = windows(x, window, stride, padding, dilation, -np.inf, sizes)
    return v.max(axis=tuple(range(2 + n, 2 + 2 * n)))


@max_pool.normalize
def _(inputs, **attrs):
    return _settings("max_pool", inputs, **attrs)


@max_pool.type
def _(x, **attrs):
    return _pool_type("max_pool", x, **attrs)


@max_pool.grad
def x(g, x, out, window, stride, padding, dilation, ceil_mode):
    return max_pool_x_grad(
        g, out, x, window=window, stride=stride, padding=padding, dilation=dilation, ceil_mode=ceil_mode
    )


max_pool.sample((2, 3, 6, 6), window=2).sample((1, 2, 5, 7), window=3, stride=2, padding=1)
max_pool.sample((1, 2, 7, 7), window=(2, 3), stride=1, dilation=2).sample((2, 3, 7), window=2, ceil_mode=True)
max_pool.sample((1, 2, 5, 4, 6), window=(3, 2, 2), stride=2, padding=((1, 1), (0, 0), (1, 0)))
max_pool.sample((0, 2, 4, 4), window=2)
max_pool.error_sample((2, 3, 2, 2), window=3, match="larger than the padded image")
max_pool.error_sample((2, 3, 4, 4), window=2, padding=2, match="whole windows")
max_pool.error_sample((2, 3), window=2, match="1 to 3 spatial axes")


def _onnx_index(o, x, **attrs):
    flat = _onnx_pool(o, "MaxPool", x, n_outputs=2, **attrs)[1]
    count = 1
    for n in x.shape[2:]:
        count = n * count
    return o.Mod(flat, o.const(count, T.int64))


@primitive(no_gradient="the result is integer", onnx=_onnx_index)
def max_pool_index(x, *, window, stride=None, padding=0, dilation=1, ceil_mode=False):
    """Where `max_pool` finds its maxima: places in the flattened spatial axes of x.

    x and attributes as of `max_pool`. Returns: int64[N, C, ...] of max_pool's shape.
    Numerics: the first of equal maxima in row-major order, the first NaN. Source: ONNX MaxPool.
    """
    n = len(window)
    sizes = tuple(out_size(*a, ceil_mode) for a in zip(x.shape[2:], window, stride, padding, dilation))
    v = windows(x, window, stride, padding, dilation, -np.inf, sizes)
    places = np.arange(math.prod(x.shape[2:])).reshape(1, 1, *x.shape[2:])
    places = windows(places, window, stride, padding, dilation, -1, sizes)
    flat = v.reshape(*v.shape[: 2 + n], -1)
    places = np.broadcast_to(places.reshape(1, 1, *places.shape[2 : 2 + n], -1), flat.shape)
    best = (flat == flat.max(axis=-1, keepdims=True)) | np.isnan(flat)
    first = np.argmax(best & (places >= 0), axis=-1)
    return np.take_along_axis(places, first[..., None], axis=-1)[..., 0]


@max_pool_index.normalize
def _(inputs, **attrs):
    return _settings("max_pool_index", inputs, **attrs)


@max_pool_index.type
def _(x, **attrs):
    return _pool_type("max_pool_index", x, **attrs)._replace(dtype=T.int64)


max_pool_index.sample((2, 3, 6, 6), window=2).sample(
    (1, 2, 5, 4, 6), window=(3, 2, 2), stride=2, padding=1, ceil_mode=True
)
max_pool_index.error_sample((2, 3, 2, 2), window=3, match="larger than the padded image")


@primitive(internal=True, parts="max_pool_x_grad")
def max_pool_x_grad(dy, out_, x, *, window, stride=None, padding=0, dilation=1, ceil_mode=False):
    """The gradient of max_pool: each dy goes to the first element of its window that equals the maximum."""
    index = max_pool_index.fn(
        x, window=window, stride=stride, padding=padding, dilation=dilation, ceil_mode=ceil_mode
    )
    return put_pixels.fn(dy, index, size=x.shape[2:], add=True)


@max_pool_x_grad.normalize
def _(inputs, **attrs):
    return _settings("max_pool_x_grad", inputs, **attrs)


@max_pool_x_grad.type
def _(dy, out_, x, **attrs):
    return x


@max_pool_x_grad.grad
def dy(g, x, window, stride, padding, dilation, ceil_mode):
    index = max_pool_index(
        x, window=window, stride=stride, padding=padding, dilation=dilation, ceil_mode=ceil_mode
    )
    return pick_pixels(g, index)


def _onnx_rows(o, x, index):
    """x [N, C, pixels] and the index as many channels wide."""
    assert x.shape is not None
    flat = o.Reshape(index, o.literal(np.array([0, 0, -1], np.int64)))
    if index.shape[1] != x.shape[1]:
        flat = o.Expand(flat, o.ints((1, x.shape[1], 1)))
    return o.cast(flat, T.int64)


def _onnx_pick(o, x, index):
    flat = o.Reshape(x, o.literal(np.array([0, 0, -1], np.int64)))
    picked = o.GatherElements(flat, _onnx_rows(o, x, index), axis=2)
    return o.reshape(picked, (*x.shape[:2], *index.shape[2:]))


@primitive(internal=True, onnx=_onnx_pick)
def pick_pixels(x, index):
    """The elements of each channel of x at places in its flattened spatial axes.

    x: any[N, C, ...], index: int64[N, C or 1, ...]. Returns: any[N, C, ...] with index's spatial axes.
    Numerics: 0 (floats: NaN) for a place outside.
    """
    flat = x.reshape(*x.shape[:2], -1)
    places = np.broadcast_to(index, (*x.shape[:2], *index.shape[2:])).reshape(*x.shape[:2], -1)
    return np.take_along_axis(flat, places, axis=2).reshape(*x.shape[:2], *index.shape[2:])


def _check_places(op, x, index):
    if index.dtype is not T.int64:
        raise DtypeError(op, f"index: {index} is not int64", "convert with .to(dg.int64)")
    if index.ndim < 3 or index.shape[0] != x.shape[0] or index.shape[1] not in (1, x.shape[1]):
        raise ShapeError(
            op, f"index: {index} does not fit x: {x}", "give places for each channel, or for all"
        )


@pick_pixels.type
def _(x, index):
    _check_places("pick_pixels", x, index)
    return TensorType(x.dtype, (*x.shape[:2], *index.shape[2:]))


@pick_pixels.grad
def x(g, index, x_type):
    return put_pixels(g, index, size=x_type.shape[2:])


pick_pixels.sample((2, 3, 3, 4), Ints((2, 3, 5), 0, 12)).sample((2, 3, 6), Ints((2, 1, 2, 2), 0, 6))


def _onnx_put(o, v, index, *, size, add):
    count = 1
    for n in size:
        count = n * count
    zeros = o.full((*v.shape[:2], count), 0, v.dtype)
    flat = o.Reshape(v, o.literal(np.array([0, 0, -1], np.int64)))
    zeros.shape = (*v.shape[:2], count)
    out = o.scatter(zeros, _onnx_rows(o, v, index), flat, 2, "add" if add else None)
    return o.reshape(out, (*v.shape[:2], *size))


@primitive(internal=True, onnx=_onnx_put)
def put_pixels(v, index, *, size, add=True):
    """Zeros of spatial `size` with v at places in the flattened spatial axes: the transpose of pick_pixels.

    v: any[N, C, ...], index: int64[N, C or 1, ...]; add: values for one place add up (else the last one stays).
    Returns: any[N, C, *size]. Numerics: a place outside is left out.
    """
    n, c = v.shape[:2]
    out = np.zeros((n * c, math.prod(size)), v.dtype)
    places = np.broadcast_to(index, v.shape).reshape(n * c, -1)
    for plane, at, values in zip(out, places, v.reshape(n * c, -1)):
        if add:
            np.add.at(plane, at, values)
        else:
            plane[at] = values
    return out.reshape(n, c, *size)


@put_pixels.normalize
def _(inputs, size, add):
    return tuple(int(k) for k in size), bool(add)


@put_pixels.type
def _(v, index, *, size, add):
    _check_places("put_pixels", v, index)
    if v.shape[2:] != index.shape[2:]:
        raise ShapeError("put_pixels", f"index: {index} does not fit v: {v}", "give a place for each value")
    return TensorType(v.dtype, (*v.shape[:2], *size))


@put_pixels.grad
def v(g, index):
    return pick_pixels(g, index)


put_pixels.sample((2, 3, 5), Ints((2, 3, 5), 0, 12), size=(3, 4)).sample(
    (2, 3, 2, 2), Ints((2, 1, 2, 2), 0, 6), size=(6,)
)


@composite
def max_unpool(x, index, *, size):
    """Zeros with each x where `max_pool_index` found it.

    x: float[N, C, ...], index: int64 of x's shape, places in the flattened axes of `size`; size: the spatial sizes
    of the result. Returns: float[N, C, *size]. Raises: ShapeError, DtypeError for an index that does not fit.
    Numerics: of values for one place the last stays, and all of them get its gradient, as in PyTorch; a place
    outside is left out. Source: ONNX MaxUnpool.
    """
    if index.shape != x.shape:
        raise ShapeError(
            "max_unpool",
            f"index: {index.type} is not of the shape of x: {x.type}",
            "take it from max_pool_index",
        )
    return put_pixels(x, index, size=size, add=False)


max_unpool.sample((1, 1, 1), Ints((1, 1, 1), 0, 4), size=(4,))
max_unpool.error_sample((1, 1, 2), Ints((1, 1, 1), 0, 4), size=(4,), match="not of the shape")


# ---------------------------------------------------------------- means


def _counts(x_shape, window, stride, padding, dilation, sizes, include, divisor):
    """The divisor of every window, [1, 1, positions ...]."""
    out = np.ones((1, 1) + (1,) * len(window))
    if divisor is not None:
        return out * divisor
    for a, (n, k, s, (before, after), d, p) in enumerate(
        zip(x_shape, window, stride, padding, dilation, sizes)
    ):
        at = np.arange(p)[:, None] * s - before + np.arange(k) * d
        low, high = (-before, n + after) if include else (0, n)
        count = ((at >= low) & (at < high)).sum(axis=1)
        out = out * count.reshape([-1 if b == 2 + a else 1 for b in range(out.ndim)])
    return out


def _mean_settings(
    op, inputs, window, stride, padding, dilation, ceil_mode, count_include_pad, divisor_override
):
    if divisor_override is not None and (not isinstance(divisor_override, int) or divisor_override == 0):
        raise ArgumentError(
            op, f"divisor_override={divisor_override!r} is not an int beside 0", "leave it out"
        )
    settings = _settings(op, inputs, window, stride, padding, dilation, ceil_mode)
    return *settings, bool(count_include_pad), divisor_override


def _onnx_mean(o, x, *, window, stride, padding, dilation, ceil_mode, count_include_pad, divisor_override):
    include = int(count_include_pad)
    if divisor_override is None:
        return _onnx_pool(
            o, "AveragePool", x, window, stride, padding, dilation, ceil_mode, count_include_pad=include
        )
    # Padded so that every window is whole.
    n = len(window)
    room = []
    for m, k, s, (before, after), d in zip(x.shape[2:], window, stride, padding, dilation):
        p = out_size(m, k, s, (before, after), d, ceil_mode)
        room.append((before, max(0, (p - 1) * s + d * (k - 1) + 1 - m - before)))
    full = [0, 0, *(a for a, _ in room), 0, 0, *(b for _, b in room)]
    whole = o.Pad(x, o.ints(full), o.const(0.0, x)) if any(map(any, room)) else x
    mean = _onnx_pool(o, "AveragePool", whole, window, stride, ((0, 0),) * n, dilation, False)
    return o.Mul(mean, o.const(math.prod(window) / divisor_override, x))


@primitive(onnx=_onnx_mean)
def avg_pool(
    x,
    *,
    window,
    stride=None,
    padding=0,
    dilation=1,
    ceil_mode=False,
    count_include_pad=True,
    divisor_override=None,
):
    """The mean of each window.

    x: float[N, C, ...] with 1 to 3 spatial axes; window, stride, padding, dilation, ceil_mode as of `max_pool`;
    count_include_pad: padding counts as zeros (what lies beyond it never does); divisor_override: divide sums by
    this int instead. Returns: float[N, C, ...]. Raises: as max_pool.
    Numerics: accumulates in x's dtype, in row-major order of the window; a window that is the whole image is summed
    as `sum` does. Source: ONNX AveragePool.
    Example: `dg.avg_pool(dg.ones((1, 1, 4)), window=2).shape` is `(1, 1, 2)`.
    """
    n = len(window)
    sizes = tuple(out_size(*a, ceil_mode) for a in zip(x.shape[2:], window, stride, padding, dilation))
    total = windows(x, window, stride, padding, dilation, 0, sizes).sum(axis=tuple(range(2 + n, 2 + 2 * n)))
    count = _counts(
        x.shape[2:], window, stride, padding, dilation, sizes, count_include_pad, divisor_override
    )
    return total / count.astype(x.dtype)


@avg_pool.normalize
def _(inputs, **attrs):
    return _mean_settings("avg_pool", inputs, **attrs)


@avg_pool.type
def _(x, *, count_include_pad, divisor_override, **attrs):
    return _pool_type("avg_pool", x, **attrs)


@avg_pool.grad
def x(g, x_type, window, stride, padding, dilation, ceil_mode, count_include_pad, divisor_override):
    return avg_pool_x_grad(
        g, size=x_type.shape[2:], window=window, stride=stride, padding=padding, dilation=dilation,
        ceil_mode=ceil_mode, count_include_pad=count_include_pad, divisor_override=divisor_override,
    )  # fmt: skip


avg_pool.sample((2, 3, 6, 6), window=2).sample(
    (1, 2, 5, 7), window=3, stride=2, padding=1, count_include_pad=False
)
avg_pool.sample((1, 2, 5, 5), window=3, stride=1, padding=1).sample(
    (2, 3, 7), window=3, stride=2, divisor_override=2
)
avg_pool.sample((1, 2, 4, 5, 6), window=2, stride=(2, 1, 2), padding=((0, 1), (1, 0), (0, 0)))
avg_pool.sample((0, 2, 4, 4), window=2).sample((2, 3, 3, 5), window=(3, 5))
avg_pool.error_sample((2, 3, 2, 2), window=3, match="larger than the padded image")
avg_pool.error_sample((2, 3, 4, 4), window=2, divisor_override=0, match="divisor_override=0")


@primitive(internal=True, parts="avg_pool_x_grad")
def avg_pool_x_grad(
    dy, *, size, window, stride=None, padding=0, dilation=1, ceil_mode=False, count_include_pad=True,
    divisor_override=None,
):  # fmt: skip
    """The gradient of avg_pool: each dy is spread evenly over its window. size: the image's spatial sizes."""
    sizes = dy.shape[2:]
    count = _counts(size, window, stride, padding, dilation, sizes, count_include_pad, divisor_override)
    share = dy / count.astype(dy.dtype)
    # Room for every window, those that end beyond the padding too.
    reach = [(p - 1) * s + d * (k - 1) + 1 for p, k, s, d in zip(sizes, window, stride, dilation)]
    full = np.zeros((*dy.shape[:2], *(max(r, n + sum(p)) for r, n, p in zip(reach, size, padding))), dy.dtype)
    for tap in np.ndindex(*window):
        full[
            (..., *(slice(t * d, t * d + p * s, s) for t, d, p, s in zip(tap, dilation, sizes, stride)))
        ] += share
    return full[(..., *(slice(p[0], p[0] + n) for p, n in zip(padding, size)))]


@avg_pool_x_grad.normalize
def _(inputs, size, **attrs):
    return tuple(size), *_mean_settings("avg_pool_x_grad", inputs, **attrs)


@avg_pool_x_grad.type
def _(dy, *, size, **attrs):
    return TensorType(dy.dtype, (*dy.shape[:2], *size))


@avg_pool_x_grad.grad
def dy(g, window, stride, padding, dilation, ceil_mode, count_include_pad, divisor_override):
    return avg_pool(
        g, window=window, stride=stride, padding=padding, dilation=dilation, ceil_mode=ceil_mode,
        count_include_pad=count_include_pad, divisor_override=divisor_override,
    )  # fmt: skip


avg_pool_x_grad.sample((2, 3, 3, 3), size=(6, 6), window=2)
avg_pool_x_grad.sample((2, 3, 4), size=(7,), window=3, stride=2, padding=1, count_include_pad=False)


@composite
def lp_pool(x, *, window, stride=None, padding=0, dilation=1, ceil_mode=False, p=2.0):
    """The p-norm of each window, `(sum of |x|^p)^(1/p)`.

    x: float[N, C, ...] with 1 to 3 spatial axes; window, stride, padding, dilation, ceil_mode as of `max_pool`; p:
    number above 0. Returns: float[N, C, ...]. Raises: as max_pool; ArgumentError for p.
    Numerics: padding counts as zeros; the gradient of a window of zeros is NaN for p > 1, as PyTorch's.
    Source: ONNX LpPool. Example: `dg.lp_pool(dg.ones((1, 1, 4)), window=4, p=2.0).item()` is `2.0`.
    """
    if not isinstance(p, (int, float)) or p <= 0:
        raise ArgumentError("lp_pool", f"p={p!r} is not a number above 0", "use 1.0, 2.0 or another power")
    with speaking_as("lp_pool"):
        total = avg_pool(
            power(abs_(x), float(p)), window=window, stride=stride, padding=padding, dilation=dilation,
            ceil_mode=ceil_mode, divisor_override=1,
        )  # fmt: skip
    return power(total, 1.0 / p)


lp_pool.sample((2, 3, 6, 6), low=0.5, window=2).sample((2, 3, 7), low=0.5, window=3, stride=2, p=3)
lp_pool.error_sample((2, 3, 4), window=2, p=0, match="p=0")


# ---------------------------------------------------------------- names by rank


def _max_of_rank(n):
    name = f"max_pool{n}d"

    def of_rank(x, *, window, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
        with speaking_as(name):
            check_axes(name, x, n)
            settings = {"stride": stride, "padding": padding, "dilation": dilation, "ceil_mode": ceil_mode}
            out = max_pool(x, window=window, **settings)
            return (out, max_pool_index(x, window=window, **settings)) if return_indices else out

    of_rank.__doc__ = f"""The maximum of each window of x: float[N, C, {", ".join("DHW"[3 - n :])}]; see `dg.max_pool`.

    return_indices: (maxima, int64 places in the flattened spatial axes) instead."""
    of_rank.__name__ = name
    return public(of_rank)


def _avg_of_rank(n):
    name = f"avg_pool{n}d"

    def of_rank(
        x, *, window, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None
    ):
        with speaking_as(name):
            check_axes(name, x, n)
            return avg_pool(
                x, window=window, stride=stride, padding=padding, ceil_mode=ceil_mode,
                count_include_pad=count_include_pad, divisor_override=divisor_override,
            )  # fmt: skip

    of_rank.__doc__ = (
        f"The mean of each window of x: float[N, C, {', '.join('DHW'[3 - n :])}]; see `dg.avg_pool`."
    )
    of_rank.__name__ = name
    return public(of_rank)


max_pool1d, max_pool2d, max_pool3d = map(_max_of_rank, (1, 2, 3))
avg_pool1d, avg_pool2d, avg_pool3d = map(_avg_of_rank, (1, 2, 3))
