"""Importers of normalisations: batch, instance, layer, group, RMS, Lp, local response, mean-variance."""

from __future__ import annotations

import math

from ...core.op import REGISTRY as ops
from .table import adapter


def _per_channel(v, ndim):
    return ops["reshape"](v, shape=(-1,) + (1,) * (ndim - 2))


def _batch_norm(x, scale, b, mean, var, epsilon):
    if x.ndim == 1:
        return (x - mean) * ops["rsqrt"](var + epsilon) * scale + b
    if all(v.dtype is x.dtype for v in (scale, b, mean, var)):
        return ops["batch_norm"](x, mean, var, scale, b, eps=epsilon)
    factor = scale * ops["rsqrt"](var + epsilon)
    shift = b - mean * factor
    return x * _per_channel(factor, x.ndim).to(x.dtype) + _per_channel(shift, x.ndim).to(x.dtype)


@adapter("BatchNormalization", since=14)
def batch_norm(node, x, scale, b, mean, var, *, epsilon=1e-5, momentum=0.9, training_mode=0):
    """Inference: the stored statistics. training_mode: the batch's, and the running ones as outputs."""
    if not training_mode:
        return _batch_norm(x, scale, b, mean, var, epsilon)
    axes = (0, *range(2, x.ndim))
    now, spread = ops["mean"](x, axis=axes), ops["var"](x, axis=axes)
    y = _batch_norm(x, scale, b, now, spread, epsilon)
    running = (mean * momentum + now * (1 - momentum), var * momentum + spread * (1 - momentum))
    return (y, *running)[: node.n_outputs] if node.n_outputs > 1 else y


@adapter("BatchNormalization", since=7)
def batch_norm_7(x, scale, b, mean, var, *, epsilon=1e-5, momentum=0.9, spatial=1):
    """Inference only."""
    return _batch_norm(x, scale, b, mean, var, epsilon)


@adapter("BatchNormalization", since=1)
def batch_norm_1(x, scale, b, mean, var, *, epsilon=1e-5, momentum=0.9, spatial=1, is_test=0):
    """Inference only."""
    return _batch_norm(x, scale, b, mean, var, epsilon)


def _standard(x, axes, epsilon):
    centred = x - ops["mean"](x, axis=axes, keepdims=True)
    return centred * ops["rsqrt"](ops["mean"](centred * centred, axis=axes, keepdims=True) + epsilon)


@adapter("InstanceNormalization", since=1)
def instance_norm(x, scale, b, *, epsilon=1e-5):
    """Each channel of each image by itself."""
    return ops["instance_norm"](x, scale, b, eps=epsilon)


@adapter("LayerNormalization", since=17)
def layer_norm(node, x, scale, b=None, *, axis=-1, epsilon=1e-5, stash_type=1):
    """Over all axes from `axis` on; mean and inverse deviation as further outputs."""
    axis = axis % x.ndim
    axes = tuple(range(axis, x.ndim))
    if scale.shape == x.shape[axis:] and (b is None or b.shape == scale.shape):
        y = ops["layer_norm"](x, scale, b, n_axes=x.ndim - axis, eps=epsilon)
    else:
        y = _standard(x, axes, epsilon) * scale
        y = y if b is None else y + b
    if node.n_outputs == 1:
        return y
    mean = ops["mean"](x, axis=axes, keepdims=True)
    inverse = ops["rsqrt"](ops["var"](x, axis=axes, keepdims=True) + epsilon)
    return (y, mean, inverse)[: node.n_outputs]


@adapter("RMSNormalization", since=23)
def rms_norm(x, scale, *, axis=-1, epsilon=1e-5, stash_type=1):
    """x over the root of its mean square."""
    axes = tuple(range(axis % x.ndim, x.ndim))
    if scale.shape == x.shape[axes[0] :] and scale.dtype is x.dtype:
        return ops["rms_norm"](x, scale, n_axes=len(axes), eps=epsilon)
    return x * ops["rsqrt"](ops["mean"](x * x, axis=axes, keepdims=True) + epsilon) * scale


def _group(x, num_groups, epsilon):
    n, c = x.shape[:2]
    rows = ops["reshape"](x, shape=(n, num_groups, math.prod(x.shape[2:]) * (c // num_groups)))
    return ops["reshape"](_standard(rows, (2,), epsilon), shape=x.shape)


@adapter("GroupNormalization", since=21)
def group_norm(x, scale, b, *, num_groups, epsilon=1e-5, stash_type=1):
    """Groups of channels; scale and bias for each channel."""
    return ops["group_norm"](x, scale, b, num_groups=num_groups, eps=epsilon)


@adapter("GroupNormalization", since=18)
def group_norm_18(x, scale, b, *, num_groups, epsilon=1e-5):
    """Scale and bias for each group."""
    n, c = x.shape[:2]
    shape = (n, num_groups, c // num_groups, *x.shape[2:])
    y = ops["reshape"](_group(x, num_groups, epsilon), shape=shape)
    return ops["reshape"](y * _per_channel(scale, len(shape)) + _per_channel(b, len(shape)), shape=x.shape)


@adapter("LpNormalization")
def lp_norm(x, *, axis=-1, p=2):
    """x over its p-norm along an axis; 0 where that is 0."""
    a = ops["abs"](x)
    norm = (
        ops["sum"](a, axis=axis, keepdims=True)
        if p == 1
        else ops["sqrt"](ops["sum"](x * x, axis=axis, keepdims=True))
    )
    return x / ops["where"](ops["equal"](norm, 0), 1.0, norm)


@adapter("MeanVarianceNormalization")
def mean_variance(x, *, axes=(0, 2, 3)):
    """Mean 0 and deviation 1 over axes."""
    axes = tuple(axes)
    centred = x - ops["mean"](x, axis=axes, keepdims=True)
    return centred / (ops["sqrt"](ops["mean"](centred * centred, axis=axes, keepdims=True)) + 1e-9)


@adapter("LRN")
def lrn(x, *, size, alpha=1e-4, beta=0.75, bias=1.0):
    """x over a power of the squares summed over neighbouring channels."""
    if size < 1:
        raise ValueError(f"size={size} is not a number of channels")
    low, high = (min(n, x.shape[1]) for n in ((size - 1) // 2, size - 1 - (size - 1) // 2))
    padding = ((0, 0), (low, high)) + ((0, 0),) * (x.ndim - 2)
    squares = ops["pad"](x * x, padding=padding)
    total = None
    for k in range(low + high + 1):
        part = ops["slice"](squares, index=(slice(None), slice(k, k + x.shape[1])))
        total = part if total is None else total + part
    return x / ops["power"](total * (alpha / size) + bias, beta)
