"""Other sizes of spatial axes: weighted picks along an axis, interpolation, adaptive pooling.

Interpolation of every kind is separable and linear: along each axis, a result is a sum of a few elements with
weights that depend on sizes only. `resample` makes that sum from a table of places and one of weights; its
gradient is its transpose.
"""

# Gradient rules are named after the input they are for, so names repeat here.
# ruff: noqa: F811
from __future__ import annotations

import functools
import math

import numpy as np

from .. import dispatch
from .. import types as T
from ..errors import ArgumentError, DtypeError, ShapeError
from ..op import Ints, composite, primitive, public
from ..room import tables
from ..types import TensorType, normalize_axis
from .arithmetic import add
from .comparison import cast, where
from .picking import take
from .pooling import avg_pool, max_pool, max_pool_index, pick_pixels
from .reduction import argmax, mean, sum_
from .rounding import round_
from .shape import expand_dims
from .views import reshape
from .window import row, spatial


def constant(array, x):
    """An array as a tensor beside x, in the mode at work."""
    return dispatch.state.executor.constant(np.ascontiguousarray(array), x.device)


def _check_tables(op, x, index, weight):
    if not x.dtype.is_float or x.dtype is not weight.dtype or index.dtype is not T.int64:
        raise DtypeError(
            op,
            f"takes floats of one dtype and int64 places, got {x}, {index}, {weight}",
            "convert with .to(dtype)",
        )
    if index.ndim != 2 or index.shape != weight.shape:
        raise ShapeError(
            op, f"index: {index} and weight: {weight} are not [m, taps]", "give a weight a place"
        )


def _onnx_resample(o, x, index, weight, *, axis):
    picked = o.Gather(x, index, axis=axis)
    picked.shape = (*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])
    shape = [1] * (x.ndim + 1)
    shape[axis : axis + 2] = weight.shape
    return o.reduce("ReduceSum", o.Mul(picked, o.reshape(weight, shape)), axis + 1, False)


@primitive(internal=True, onnx=_onnx_resample)
def resample(x, index, weight, *, axis):
    """Weighted sums of picks along an axis, `out[.., i, ..] = sum over t of weight[i, t] * x[.., index[i, t], ..]`.

    x: float[..., n, ...], index: int64[m, taps], weight: float[m, taps]. Returns: float[..., m, ...].
    Numerics: taps in order, each product rounded before it is added; a place outside counts as the nearest.
    """
    picked = np.take(x, index, axis=axis)
    shape = [1] * picked.ndim
    shape[axis : axis + 2] = weight.shape
    return (picked * weight.reshape(shape)).sum(axis=axis + 1)


@resample.normalize
def _(inputs, axis):
    return (normalize_axis("resample", axis, len(inputs[0].shape)),)


@resample.type
def _(x, index, weight, *, axis):
    _check_tables("resample", x, index, weight)
    return TensorType(x.dtype, (*x.shape[:axis], index.shape[0], *x.shape[axis + 1 :]))


@resample.grad
def x(g, index, weight, x_type, axis):
    return resample_x_grad(g, index, weight, size=x_type.shape[axis], axis=axis)


@resample.grad
def weight(g, x, index, axis):
    return _weight_gradient(g, x, index, axis)


def _weight_gradient(g, x, index, axis):
    """[m, taps]: sums of g[.., i, ..] * x[.., index[i, t], ..]."""
    products = take(x, index, axis=axis) * expand_dims(g, axis=axis + 1)
    rest = tuple(a for a in range(products.ndim) if a not in (axis, axis + 1))
    return sum_(products, axis=rest) if rest else products


resample.sample((2, 5, 3), Ints((4, 2), 0, 5), (4, 2), axis=1).sample(
    (2, 3, 5), Ints((7, 3), 0, 5), (7, 3), axis=2
)


def _onnx_transposed(o, dy, index, weight, *, size, axis):
    spread = o.Unsqueeze(dy, o.ints([axis + 1]))
    shape = [1] * (dy.ndim + 1)
    shape[axis : axis + 2] = weight.shape
    products = o.Mul(spread, o.reshape(weight, shape))
    products.shape = (*dy.shape[:axis], *weight.shape, *dy.shape[axis + 1 :])
    return o.scatter_add(products, index, size, axis)


@primitive(internal=True, onnx=_onnx_transposed)
def resample_x_grad(dy, index, weight, *, size, axis):
    """The transpose of `resample`: each dy goes to its places, with its weights. size: of the axis of x."""
    out = np.zeros((*dy.shape[:axis], size, *dy.shape[axis + 1 :]), dy.dtype)
    target, source = np.moveaxis(out, axis, 0), np.moveaxis(dy, axis, 0)
    for i, t in np.ndindex(*index.shape):
        target[index[i, t]] += source[i] * weight[i, t]
    return out


@resample_x_grad.normalize
def _(inputs, size, axis):
    return int(size), normalize_axis("resample_x_grad", axis, len(inputs[0].shape))


@resample_x_grad.type
def _(dy, index, weight, *, size, axis):
    _check_tables("resample_x_grad", dy, index, weight)
    return TensorType(dy.dtype, (*dy.shape[:axis], size, *dy.shape[axis + 1 :]))


@resample_x_grad.grad
def dy(g, index, weight, axis):
    return resample(g, index, weight, axis=axis)


@resample_x_grad.grad
def weight(g, dy, index, axis):
    return _weight_gradient(dy, g, index, axis)


resample_x_grad.sample((2, 4, 3), Ints((4, 2), 0, 5), (4, 2), size=5, axis=1)
resample_x_grad.sample((2, 3, 4), Ints((4, 3), 0, 5), (4, 3), size=5, axis=2)


# ---------------------------------------------------------------- interpolation

MODES = ("nearest", "linear", "cubic")
COORDINATES = (
    "half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel", "half_pixel_symmetric", "tf_half_pixel_for_nn",
    "tf_crop_and_resize",
)  # fmt: skip
ROUNDINGS = ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")


def _places(coordinates, n, m, scale, region):
    """For each of m results, its coordinate among n elements; scale: m / n when None."""
    tables("resize", m, f"size={m}")
    i = np.arange(m, dtype=np.float64)
    whole = m if scale is None else scale * n

    def shrink(v):
        return v * n / m if scale is None else v / scale

    if coordinates == "align_corners":
        return i * (n - 1) / (whole - 1) if whole != 1 else np.zeros(m)
    if coordinates == "asymmetric":
        return shrink(i)
    if coordinates == "tf_half_pixel_for_nn":
        return shrink(i + 0.5)
    if coordinates == "tf_crop_and_resize":
        start, end = region
        if whole == 1:
            return np.full(m, (start + end) * (n - 1) / 2)
        return start * (n - 1) + i * (end - start) * (n - 1) / (whole - 1)
    if coordinates == "pytorch_half_pixel" and whole == 1:
        return np.full(m, -0.5)
    x = shrink(i + 0.5) - 0.5
    if coordinates == "half_pixel_symmetric":
        x += n / 2 * (1 - m / whole)
    return x


def _rounded(x, how):
    if how == "floor":
        return np.floor(x)
    if how == "ceil":
        return np.ceil(x)
    return np.ceil(x - 0.5) if how == "round_prefer_floor" else np.floor(x + 0.5)


def _linear(t):
    return np.maximum(0, 1 - np.abs(t))


def _cubic(t, a):
    t = np.abs(t)
    inner = ((a + 2) * t - (a + 3)) * t * t + 1
    outer = ((t - 5) * t + 8) * t * a - 4 * a
    return np.where(t <= 1, inner, np.where(t < 2, outer, 0.0))


@functools.lru_cache(maxsize=256)
def interpolation(n, m, mode, coordinates, scale, region, a, antialias, exclude_outside):
    """Places [m, taps] among n elements and their weights, in float64."""
    x = _places(coordinates, n, m, scale, region)
    half = 1 if mode == "linear" else 2
    stretch = min(m / n if scale is None else scale, 1.0) if antialias else 1.0
    if stretch < 1:
        reach = math.floor(half / stretch - 1e-12) + 1
        low, high = -reach, reach + 1
    else:
        low, high = 1 - half, half
    tables("resize", 3 * m * (high - low + 1), f"size={m}")
    taps = np.floor(x)[:, None] + np.arange(low, high + 1)[None]
    distance = (taps - x[:, None]) * stretch
    weights = _linear(distance) if mode == "linear" else _cubic(distance, a)
    inside = (taps >= 0) & (taps < n)
    if exclude_outside:
        weights = np.where(inside, weights, 0.0)
    weights = weights / weights.sum(axis=1, keepdims=True)
    used = weights.any(axis=0)
    places = np.clip(taps, 0, n - 1).astype(np.int64)[:, used]
    return places, weights[:, used]


def _settings(op, x, size, axes, scale, mode, coordinates, rounding, roi):
    for name, value, legal in (
        ("mode", mode, MODES), ("coordinates", coordinates, COORDINATES), ("rounding", rounding, ROUNDINGS)
    ):  # fmt: skip
        if value not in legal:
            raise ArgumentError(op, f"{name}={value!r}", f"use one of {', '.join(legal)}")
    ndim = len(x.shape)
    axes = tuple(range(2, ndim)) if axes is None else tuple(normalize_axis(op, a, ndim) for a in axes)
    size = row(op, "size", size, len(axes))
    scale = (None,) * len(axes) if scale is None else tuple(None if s is None else float(s) for s in scale)
    if len(scale) != len(axes) or any(s is not None and s <= 0 for s in scale):
        raise ArgumentError(
            op, f"scale={scale} is not a positive number for each of axes={axes}", "leave it out"
        )
    if any(x.shape[a] == 0 for a in axes):
        raise ShapeError(op, f"x of shape {list(x.shape)} has an empty axis among {axes}", "give it elements")
    if coordinates == "tf_crop_and_resize" and (roi is None or len(roi) != 2 * len(axes)):
        raise ArgumentError(
            op, f"roi={roi} is not a start and an end for each of axes={axes}", "give starts, then ends"
        )
    return size, axes, scale, None if roi is None else tuple(map(float, roi))


def _onnx_resize(
    o, x, *, size, axes, scale, mode, coordinates, rounding, cubic_a, antialias, exclude_outside, roi, outside
):
    o.not_float64(x)
    kinds = {"mode": mode, "coordinate_transformation_mode": coordinates, "nearest_mode": rounding}
    if mode == "cubic":
        kinds["cubic_coeff_a"] = cubic_a
    if antialias:
        kinds["antialias"] = 1
    if exclude_outside:
        kinds["exclude_outside"] = 1
    if coordinates == "tf_crop_and_resize":
        kinds["extrapolation_value"] = outside
    if mode != "nearest":
        del kinds["nearest_mode"]
    full = list(x.shape)
    for a, n in zip(axes, size):
        full[a] = n
    region = None
    if roi is not None:
        starts, ends = [0.0] * x.ndim, [1.0] * x.ndim
        for k, a in enumerate(axes):
            starts[a], ends[a] = roi[k], roi[k + len(axes)]
        region = o.literal(np.array(starts + ends, np.float32))
    if all(s is None for s in scale):
        return o.Resize(x, region, None, o.ints(full), **kinds)
    factors = [1.0] * x.ndim
    for a, n, s in zip(axes, size, scale):
        factors[a] = n / x.shape[a] if s is None else s
    narrow = np.array(factors, np.float32)
    if mode != "nearest" and x.dtype is T.float64 and narrow.tolist() != factors:
        raise o.Unavailable("its factors are float32")
    return o.Resize(x, region, o.literal(narrow), **kinds)


@composite(onnx=_onnx_resize)
def resize(
    x, *, size, axes=None, scale=None, mode="nearest", coordinates="half_pixel", rounding="round_prefer_floor",
    cubic_a=-0.75, antialias=False, exclude_outside=False, roi=None, outside=0.0,
):  # fmt: skip
    """x interpolated to other sizes, axis by axis.

    x: any[...] (floats for linear and cubic); size: int for each of `axes` (all but the first two when None);
    scale: the factor that coordinates are computed with, where it is not size by size; mode: "nearest", "linear"
    or "cubic" (with coefficient cubic_a); coordinates: how a result's place is found, "half_pixel",
    "align_corners", "asymmetric", "pytorch_half_pixel", "half_pixel_symmetric", "tf_half_pixel_for_nn" or
    "tf_crop_and_resize" (roi: a start for each axis, then an end, as parts of the axis; outside: the value beyond);
    rounding: of nearest, "floor", "ceil", "round_prefer_floor" or "round_prefer_ceil"; antialias: filters grow with
    the factor when x shrinks; exclude_outside: elements beyond the border weigh nothing instead of counting as the
    last one. Returns: x's dtype, with the sizes. Raises: ArgumentError, ShapeError for an empty axis.
    Source: ONNX Resize. Example: `dg.resize(dg.ones((1, 1, 4)), size=8).shape` is `(1, 1, 8)`.
    """
    if mode != "nearest" and not x.dtype.is_float:
        raise DtypeError(
            "resize", f"mode={mode!r} takes floats, got x: {x.type}", "convert with .to(dg.float32)"
        )
    beyond = None
    # Axes that shrink most come first: the others have less to do then. Of equal ones the last, which costs most.
    order = sorted(range(len(axes)), key=lambda k: (size[k] / x.shape[axes[k]], -axes[k]))
    out = x
    for k in order:
        axis, n, m, factor = axes[k], x.shape[axes[k]], size[k], scale[k]
        region = None if roi is None else (roi[k], roi[k + len(axes)])
        crops = coordinates == "tf_crop_and_resize"
        if n == m and factor in (None, 1.0) and not crops:
            continue
        if crops:
            places = _places(coordinates, n, m, factor, region)
            away = ((places < 0) | (places > n - 1)).reshape([-1 if a == axis else 1 for a in range(x.ndim)])
            beyond = away if beyond is None else beyond | away
        if mode == "nearest":
            places = _rounded(_places(coordinates, n, m, factor, region), rounding)
            out = take(out, constant(np.clip(places, 0, n - 1).astype(np.int64), x), axis=axis)
        else:
            places, weights = interpolation(
                n, m, mode, coordinates, factor, region, cubic_a, bool(antialias), bool(exclude_outside)
            )
            out = resample(out, constant(places, x), constant(x.dtype.array(weights), x), axis=axis)
    if beyond is not None and beyond.any():
        out = where(constant(beyond, x), outside if x.dtype.is_float else int(outside), out)
    return out if out is not x else add(x, 0) if x.dtype is not T.bool_ else where(x, x, x)


@resize.normalize
def _(
    inputs, size, axes, scale, mode, coordinates, rounding, cubic_a, antialias, exclude_outside, roi, outside
):
    x = inputs[0]
    size, axes, scale, roi = _settings("resize", x, size, axes, scale, mode, coordinates, rounding, roi)
    rest = float(cubic_a), bool(antialias), bool(exclude_outside), roi, float(outside)
    return size, axes, scale, mode, coordinates, rounding, *rest


resize.sample((1, 2, 3, 4), size=(6, 5)).sample((1, 2, 5), size=3, mode="linear")
resize.sample((1, 2, 3, 4), size=(5, 8), mode="linear", coordinates="align_corners")
resize.sample((1, 2, 4, 4), size=(7, 3), mode="cubic").sample((1, 1, 2, 3, 3), size=(3, 2, 4), mode="linear")
resize.sample((1, 2, 6, 6), size=(3, 4), mode="linear", antialias=True)
resize.error_sample((1, 2, 4), size=3, mode="quintic", match="mode='quintic'")
resize.error_sample((1, 2, 4), size=(3, 3), match="size=(3, 3)")


# ---------------------------------------------------------------- adaptive pooling


def _starts(n, m):
    """First and last + 1 element of each of m windows that share out n elements."""
    tables("adaptive_pool", 2 * m * (-(-n // m) + 1), f"size={m}")
    i = np.arange(m)
    return i * n // m, -(-(i + 1) * n // m)


def _adaptive(op, x, size):
    n = spatial(op, x)
    given = tuple(size) if isinstance(size, (tuple, list)) else (size,) * n
    given = tuple(m if k is None else k for k, m in zip(given, x.shape[2:])) if len(given) == n else given
    if not x.dtype.is_float:
        raise DtypeError(op, f"takes floats, got {x.type}", "convert with .to(dg.float32)")
    if 0 in x.shape[2:]:
        raise ShapeError(op, f"x: {x.type} has an empty spatial axis", "give it elements")
    return row(op, "size", given, n)


def _even(x, size):
    """The window when all windows are alike and apart, else None."""
    if any(n % m for n, m in zip(x.shape[2:], size)):
        return None
    return tuple(n // m for n, m in zip(x.shape[2:], size))


@composite
def adaptive_avg_pool(x, *, size):
    """Means over windows that share out each spatial axis: window i is from `floor(i n / m)` to `ceil((i + 1) n / m)`.

    x: float[N, C, ...] with 1 to 3 spatial axes; size: int or one for each axis, None for as it is.
    Returns: float[N, C, *size]. Raises: ArgumentError, ShapeError for an empty axis.
    Example: `dg.adaptive_avg_pool(dg.ones((1, 1, 5)), size=2).shape` is `(1, 1, 2)`.
    """
    size = _adaptive("adaptive_avg_pool", x, size)
    if set(size) == {1}:
        return mean(x, axis=tuple(range(2, x.ndim)), keepdims=True)
    window = _even(x, size)
    if window is not None:
        return avg_pool(x, window=window)
    for axis, (n, m) in enumerate(zip(x.shape[2:], size), 2):
        if n != m:
            first, last = _starts(n, m)
            taps = first[:, None] + np.arange((last - first).max())
            weights = np.where(taps < last[:, None], 1.0 / (last - first)[:, None], 0.0)
            # A tap of no weight reads an element of its window: another one's NaN must not count.
            places = constant(np.minimum(taps, last[:, None] - 1), x)
            x = resample(x, places, constant(x.dtype.array(weights), x), axis=axis)
    return x


adaptive_avg_pool.sample((2, 3, 5, 7), size=(2, 3)).sample((2, 3, 4, 4), size=1).sample((2, 3, 6), size=3)
adaptive_avg_pool.error_sample((2, 3, 4), size=0, match="not an int from 1")


def _adaptive_index(x, size):
    """Places of the maxima of uneven windows, in the flattened spatial axes."""
    table = np.zeros((1, 1), np.int64)
    for n, m in zip(x.shape[2:], size):
        first, last = _starts(n, m)
        # A shorter window repeats its last element, which is never the first maximum.
        taps = np.minimum(first[:, None] + np.arange((last - first).max()), last[:, None] - 1)
        table = table[:, None, :, None] * n + taps[None, :, None, :]
        table = table.reshape(-1, table.shape[2] * table.shape[3])
    with dispatch.set_grad(False):
        flat = reshape(x, shape=(*x.shape[:2], math.prod(x.shape[2:])))
        best = argmax(take(flat, constant(table, x), axis=2), axis=3)
        start = constant(np.arange(len(table)) * table.shape[1], x)
        index = take(constant(table.reshape(-1), x), best + start)
        return reshape(index, shape=(*x.shape[:2], *size))


@composite
def adaptive_max_pool(x, *, size):
    """Maxima over windows that share out each spatial axis, as of `adaptive_avg_pool`.

    x: float[N, C, ...] with 1 to 3 spatial axes; size: int or one for each axis, None for as it is.
    Returns: float[N, C, *size]. Raises: ArgumentError, ShapeError for an empty axis.
    Numerics: NaN wins; the first maximum in row-major order takes the gradient.
    Example: `dg.adaptive_max_pool(dg.ones((1, 1, 5)), size=2).shape` is `(1, 1, 2)`.
    """
    size = _adaptive("adaptive_max_pool", x, size)
    window = _even(x, size)
    return max_pool(x, window=window) if window is not None else pick_pixels(x, _adaptive_index(x, size))


adaptive_max_pool.sample((2, 3, 5, 7), size=(2, 3)).sample((2, 3, 6), size=3)


@public
def adaptive_max_pool_index(x, size):
    """Where `adaptive_max_pool` finds its maxima: int64 places in the flattened spatial axes of x."""
    size = _adaptive("adaptive_max_pool_index", x, size)
    window = _even(x, size)
    return max_pool_index(x, window=window) if window is not None else _adaptive_index(x, size)


def resize_integers(x, **settings):
    """`resize` of integers in floats, rounded back."""
    return cast(round_(resize(x.to("float32"), **settings)), dtype=x.dtype)
