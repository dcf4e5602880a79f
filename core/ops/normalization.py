"""Normalisation: over rows (layer, RMS), over channels (batch), over images (instance, group), over neighbours.

All that subtract a mean share one body and one gradient rule, which makes the statistics again from x: what
is kept for the way back is the input alone.
"""

# Gradient rules are named after the input they are for, so names repeat here.
from __future__ import annotations

import math

from .. import types as T
from ..errors import ArgumentError, DtypeError, ShapeError
from ..floats import refuse_integers
from ..op import composite
from ..types import normalize_axis
from . import elementwise as E
from .reduction import max_, mean, sum_
from .shape import pad, reshape, slice_, sum_to


def _statistics(x, axes, eps):
    """(x - mean, the mean, the variance, 1 / sqrt(variance + eps)), reduced axes kept."""
    middle = mean(x, axis=axes, keepdims=True)
    centred = x - middle
    spread = mean(centred * centred, axis=axes, keepdims=True)
    return centred, middle, spread, E.rsqrt(spread + eps)


def _affine(x, w, b):
    if w is not None:
        x = x * w
    return x if b is None else x + b


def _wide(x):
    """x in float32 when its dtype is narrower."""
    return x.to(T.float32) if x.dtype.itemsize < 4 else x


def _normalized_grads(g, x, w, b_type, axes, eps):
    centred, _, _, scale = _statistics(_wide(x), axes, eps)
    unit, g = centred * scale, _wide(g)
    shared = _shared_axes(x, w, axes)
    if shared:
        # Where w is one number, sums of g and g * unit serve the parameters and x: two small tensors.
        share = 1 / max(1, math.prod(x.shape[a] for a in axes))
        db, dw = sum_(g, axis=shared, keepdims=True), sum_(g * unit, axis=shared, keepdims=True)
        middle = sum_(db * w, axis=axes, keepdims=True) * share
        along = sum_(dw * w, axis=axes, keepdims=True) * share
        slope = g * w
    else:
        slope = g if w is None else g * w
        middle = mean(slope, axis=axes, keepdims=True)
        along = mean(slope * unit, axis=axes, keepdims=True)
        db, dw = g, None if w is None else g * unit
    dx = (slope - middle - unit * along) * scale
    dw = None if w is None else sum_to(dw, shape=w.shape).to(w.dtype)
    db = None if b_type is None else sum_to(db, shape=b_type.shape).to(b_type.dtype)
    return dx, dw, db


def _shared_axes(x, w, axes):
    """The normalized axes along which w, and with it b, is one number."""
    if w is None:
        return ()
    shape = (1,) * (x.ndim - w.ndim) + tuple(w.shape)
    return tuple(a for a in axes if shape[a] == 1 and x.shape[a] != 1)


@composite(internal=True)
def normalized(x, w=None, b=None, *, axes, eps):
    """`(x - mean) / sqrt(var + eps) * w + b` with mean and population variance over axes; w, b broadcast to x."""
    centred, _, _, scale = _statistics(_wide(x), axes, eps)
    return _affine(centred * scale, w, b).to(x.dtype)


@normalized.grad_joint
def _(g, x, w, b_type, axes, eps):
    dx, dw, db = _normalized_grads(g, x, w, b_type, axes, eps)
    return dx.to(x.dtype), dw, db


normalized.sample((2, 3, 4), (3, 1), (3, 1), axes=(0, 2), eps=1e-5).sample((3, 5), axes=(1,), eps=1e-3)


def _onnx_layer_norm(o, x, w, b, *, n_axes, eps):
    axis = -n_axes
    if w is None:
        w = o.full(x.shape[axis:], 1.0, x.dtype)
    inputs = (x, w) if b is None else (x, w, b)
    return o.LayerNormalization(*inputs, axis=axis, epsilon=eps)


def _rows(op, x, n_axes, **parameters):
    """The last n_axes axes; w and b must have their shape."""
    if not 0 < n_axes <= x.ndim:
        raise ArgumentError(op, f"n_axes={n_axes} is outside x: {x.type}", f"use 1 to {x.ndim}")
    if not x.dtype.is_float:
        raise DtypeError(op, f"takes floats, got x: {x.type}", "convert with .to(dg.float32)")
    for name, p in parameters.items():
        if p is not None and p.shape != x.shape[x.ndim - n_axes :]:
            raise ShapeError(
                op, f"{name}: {p.type} is not like the last axes of x: {x.type}", "check the shape"
            )
    return tuple(range(x.ndim - n_axes, x.ndim))


@composite(onnx=_onnx_layer_norm)
def layer_norm(x, w=None, b=None, *, n_axes=1, eps=1e-5):
    """`(x - mean) / sqrt(var + eps) * w + b` over the last n_axes axes.

    x: float[..., D], w, b: float[D] or None. Returns: as x. Raises: ShapeError when w or b do not have the
    shape of those axes. Numerics: two passes for the variance; population variance; narrow floats in float32.
    Source: Ba et al., 2016; ONNX LayerNormalization.
    """
    axes = _rows("layer_norm", x, n_axes, w=w, b=b)
    return normalized(x, w, b, axes=axes, eps=eps)


layer_norm.sample((3, 4), (4,), (4,)).sample((2, 3, 4), n_axes=2).sample((2, 6), (6,))
layer_norm.error_sample((2, 5), (4,), match="last axes")


def _onnx_rms_norm(o, x, w=None, *, n_axes, eps):
    if w is None:
        w = o.full(x.shape[-n_axes:], 1.0, x.dtype)
    return o.RMSNormalization(x, w, axis=-n_axes, epsilon=_epsilon(x.dtype, eps))


def _rms_scale(x, axes, eps):
    return E.rsqrt(mean(x * x, axis=axes, keepdims=True) + eps)


@composite(onnx=_onnx_rms_norm)
def rms_norm(x, w=None, *, n_axes=1, eps=None):
    """`x / sqrt(mean(x * x) + eps) * w` over the last n_axes axes.

    x: float[..., D], w: float[D] or None; eps: the dtype's epsilon when None. Returns: as x.
    Raises: ShapeError when w does not have the shape of those axes. Numerics: narrow floats in float32.
    Source: Zhang and Sennrich, 2019; ONNX RMSNormalization.
    """
    axes = _rows("rms_norm", x, n_axes, w=w)
    return _affine(_wide(x) * _rms_scale(_wide(x), axes, _epsilon(x.dtype, eps)), w, None).to(x.dtype)


_EPSILON = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23, "float64": 2.0**-52}


def _epsilon(dtype, eps):
    if eps is not None:
        return eps
    return _EPSILON[dtype.name]


@rms_norm.grad_joint
def _(g, x, w, n_axes, eps):
    axes = tuple(range(x.ndim - n_axes, x.ndim))
    wide, g = _wide(x), _wide(g)
    scale = _rms_scale(wide, axes, _epsilon(x.dtype, eps))
    unit = wide * scale
    slope = g if w is None else g * w
    dx = (slope - unit * mean(slope * unit, axis=axes, keepdims=True)) * scale
    return dx.to(x.dtype), None if w is None else sum_to(g * unit, shape=w.shape).to(w.dtype)


rms_norm.sample((3, 4), (4,)).sample((2, 3, 4), n_axes=2, eps=1e-3)
rms_norm.error_sample((2, 5), (4,), match="last axes")


# ---------------------------------------------------------------- channels: axis 1


def _per_channel(op, x, least, **parameters):
    """Parameters of x[N, C, ...], shaped to broadcast to it."""
    refuse_integers(op, x)
    if x.ndim < least or not x.dtype.is_float:
        raise ShapeError(
            op, f"x: {x.type} is not float[N, C{', ...' if least > 2 else ''}]", "check its axes"
        )
    for name, p in parameters.items():
        if p is not None and p.shape != (x.shape[1],):
            raise ShapeError(
                op, f"{name}: {p.type} is not one number for each channel of x: {x.type}", "check it"
            )
    shape = (x.shape[1],) + (1,) * (x.ndim - 2)
    return [p if p is None else reshape(p, shape=shape) for p in parameters.values()]


def _ones(o, x, value):
    return o.full((x.shape[1],), value, x.dtype)


def _onnx_batch_norm(o, x, average, variance, w=None, b=None, *, eps):
    w = _ones(o, x, 1.0) if w is None else w
    b = _ones(o, x, 0.0) if b is None else b
    if o.opset < 14:
        o.schema("BatchNormalization of one output")
    return o.BatchNormalization(x, w, b, average, variance, epsilon=eps)


@composite(onnx=_onnx_batch_norm)
def batch_norm(x, average, variance, w=None, b=None, *, eps=1e-5):
    """`(x - average) / sqrt(variance + eps) * w + b` by channel, with given statistics (inference).

    x: float[N, C, ...], average, variance: float[C], w, b: float[C] or None. Returns: as x.
    Raises: ShapeError for other shapes. Source: Ioffe and Szegedy, 2015; ONNX BatchNormalization.
    """
    average, variance, w, b = _per_channel("batch_norm", x, 2, average=average, variance=variance, w=w, b=b)
    scale = E.rsqrt(variance + eps)
    return _affine((x - average) * (scale if w is None else scale * w), None, b).to(x.dtype)


batch_norm.sample((3, 4), (4,), (4,), (4,), (4,), low=0.5).sample((2, 3, 4, 5), (3,), (3,), low=0.5)
batch_norm.error_sample((2, 3, 4), (4,), (3,), match="each channel")


def _batch_axes(ndim):
    return (0, *range(2, ndim))


# Exported through its parts: onnxruntime folds a BatchNormalization with training_mode=1 into a Conv before it.
@composite
def batch_norm_training(x, w=None, b=None, *, eps=1e-5):
    """(`(x - mean) / sqrt(var + eps) * w + b`, mean, var) by channel, with the statistics of the batch.

    x: float[N, C, ...], w, b: float[C] or None. Returns: as x; float[C] twice, the population variance.
    Raises: ShapeError for other shapes. Source: Ioffe and Szegedy, 2015; ONNX BatchNormalization.
    """
    w, b = _per_channel("batch_norm_training", x, 2, w=w, b=b)
    centred, middle, spread, scale = _statistics(_wide(x), _batch_axes(x.ndim), eps)
    out = _affine(centred * (scale if w is None else scale * w), None, b).to(x.dtype)
    return out, reshape(middle, shape=(-1,)), reshape(spread, shape=(-1,))


@batch_norm_training.grad_joint
def _(gs, x, w, b_type, eps):
    axes, shape = _batch_axes(x.ndim), (x.shape[1],) + (1,) * (x.ndim - 2)
    centred, _, _, scale = _statistics(_wide(x), axes, eps)
    unit, g = centred * scale, _wide(gs[0])
    # Two sums serve the parameters and x: w is one number within a sum.
    dw, db = sum_(g * unit, axis=axes, keepdims=True), sum_(g, axis=axes, keepdims=True)
    share = 1 / max(1, x.size // max(1, x.shape[1]))
    factor = scale if w is None else scale * reshape(w, shape=shape)
    g_mean, g_var = (reshape(v, shape=shape) for v in gs[1:])
    dx = (g - (db + unit * dw) * share) * factor + (centred * (g_var * 2.0) + g_mean) * share
    dw = None if w is None else reshape(dw, shape=(-1,)).to(w.dtype)
    return dx.to(x.dtype), dw, None if b_type is None else reshape(db, shape=(-1,)).to(b_type.dtype)


batch_norm_training.sample((4, 3), (3,), (3,)).sample((2, 3, 4, 2))
batch_norm_training.error_sample((2, 3, 4), (4,), match="each channel")


def _onnx_instance_norm(o, x, w=None, b=None, *, eps):
    w = _ones(o, x, 1.0) if w is None else w
    b = _ones(o, x, 0.0) if b is None else b
    return o.InstanceNormalization(x, w, b, epsilon=eps)


@composite(onnx=_onnx_instance_norm)
def instance_norm(x, w=None, b=None, *, eps=1e-5):
    """`(x - mean) / sqrt(var + eps) * w + b`, every channel of every image by itself.

    x: float[N, C, ...] with a spatial axis or more, w, b: float[C] or None. Returns: as x.
    Raises: ShapeError for other shapes. Source: Ulyanov et al., 2016; ONNX InstanceNormalization.
    """
    w, b = _per_channel("instance_norm", x, 3, w=w, b=b)
    return normalized(x, w, b, axes=tuple(range(2, x.ndim)), eps=eps)


instance_norm.sample((2, 3, 4, 5), (3,), (3,)).sample((2, 3, 4))
instance_norm.error_sample((2, 3, 4), (4,), match="each channel")


def _onnx_group_norm(o, x, w=None, b=None, *, num_groups, eps):
    if o.opset < 21:
        o.schema("GroupNormalization with one number for each channel")
    w = _ones(o, x, 1.0) if w is None else w
    b = _ones(o, x, 0.0) if b is None else b
    stash = o.DOUBLE if x.dtype is T.float64 else None  # otherwise its statistics are float32
    return o.GroupNormalization(x, w, b, num_groups=num_groups, epsilon=eps, stash_type=stash)


@composite(onnx=_onnx_group_norm)
def group_norm(x, w=None, b=None, *, num_groups, eps=1e-5):
    """`(x - mean) / sqrt(var + eps) * w + b` over groups of channels of each image.

    x: float[N, C, ...], w, b: float[C] or None; num_groups: into how many groups the channels are parted.
    Returns: as x. Raises: ArgumentError unless it divides C, ShapeError for other shapes.
    Source: Wu and He, 2018; ONNX GroupNormalization.
    """
    _per_channel("group_norm", x, 2, w=w, b=b)
    n, c = x.shape[:2]
    if num_groups < 1 or c % num_groups:
        raise ArgumentError(
            "group_norm",
            f"num_groups={num_groups} does not divide the channels of x: {x.type}",
            "use a divisor",
        )
    rows = reshape(x, shape=(n, num_groups, c // num_groups, *x.shape[2:]))
    shape = (num_groups, c // num_groups) + (1,) * (x.ndim - 2)
    w, b = (p if p is None else reshape(p, shape=shape) for p in (w, b))
    return reshape(normalized(rows, w, b, axes=tuple(range(2, rows.ndim)), eps=eps), shape=x.shape)


group_norm.sample((2, 4, 3), (4,), (4,), num_groups=2).sample((3, 6), num_groups=3).sample(
    (2, 4, 3, 2), num_groups=1
)
group_norm.error_sample((2, 3, 4), num_groups=2, match="does not divide")


def _onnx_lrn(o, x, *, size, alpha, beta, k):
    if size % 2 == 0 or x.ndim != 4:
        o.schema("LRN of an even number of channels")  # ONNX's window leans to the other side
    return o.LRN(x, size=size, alpha=alpha, beta=beta, bias=k)


@composite(onnx=_onnx_lrn)
def local_response_norm(x, *, size, alpha=1e-4, beta=0.75, k=1.0):
    """`x / (k + alpha * m) ** beta`, with m the mean of the squares of `size` neighbouring channels (0 outside).

    x: float[N, C, ...]. Returns: as x. Raises: ArgumentError for size below 1, ShapeError for fewer than 3 axes.
    Numerics: an even window reaches one further down. Source: Krizhevsky et al., 2012; ONNX LRN.
    """
    if size < 1:
        raise ArgumentError("local_response_norm", f"size={size} is no number of channels", "use 1 or more")
    _per_channel("local_response_norm", x, 3)
    beside = ((0, 0), (size // 2, (size - 1) // 2)) + ((0, 0),) * (x.ndim - 2)
    squares = pad(x * x, padding=beside)
    total = None
    for first in range(size):
        part = slice_(squares, index=(slice(None), slice(first, first + x.shape[1])))
        total = part if total is None else total + part
    return x / E.power(total * (alpha / size) + k, beta)


local_response_norm.sample((2, 4, 3), size=3, alpha=0.5).sample((1, 5, 2, 2), size=2, beta=0.5, k=2.0)
local_response_norm.error_sample((2, 3, 4), size=0, match="no number of channels")


@composite
def normalize(x, *, p=2.0, axis=1, eps=1e-12):
    """`x / max(norm(x), eps)` with the p-norm along an axis.

    x: float[...]; p: the norm's exponent, above 0, may be infinite; eps: below it nothing is divided.
    Returns: as x. Raises: ArgumentError for another p. Numerics: no gradient goes through a norm below eps.
    Source: PyTorch's normalize.
    """
    if not p > 0:
        raise ArgumentError("normalize", f"p={p} is not above 0", "use 1, 2 or another positive number")
    refuse_integers("normalize", x)
    axis = normalize_axis("normalize", axis, x.ndim, x.type)
    if p == 2:
        floor = eps * eps if x.dtype.itemsize > 4 else max(eps * eps, 1e-38)
        return x / E.sqrt(E.maximum(sum_(x * x, axis=axis, keepdims=True), floor))
    size = E.abs_(x)
    if p == math.inf:
        return x / E.maximum(max_(size, axis=axis, keepdims=True), eps)
    total = size if p == 1 else E.power(size, p)
    total = sum_(total, axis=axis, keepdims=True)
    if p != 1:
        nothing = E.equal(total, 0)
        total = E.where(nothing, 0.0, E.power(E.where(nothing, 1.0, total), 1 / p))
    return x / E.maximum(total, eps)


normalize.sample((3, 4)).sample((2, 3, 4), p=1, axis=2, low=0.5).sample((2, 5), p=3.0, low=0.5)
