"""Importers of activations, softmax in its versions, and dropout."""

from __future__ import annotations

import math

from ...core import types as T
from ...core.op import REGISTRY as ops
from .table import adapter

adapter("Relu")(lambda x: ops["relu"](x))
adapter("Softplus")(lambda x: ops["softplus"](x))


@adapter("LeakyRelu")
def leaky_relu(x, *, alpha=0.01):
    """alpha: the slope below 0."""
    return ops["leaky_relu"](x, negative_slope=alpha)


@adapter("Elu")
def elu(x, *, alpha=1.0):
    """Exponential below 0."""
    return ops["elu"](x, alpha=alpha)


@adapter("Celu")
def celu(x, *, alpha=1.0):
    """Elu of x / alpha."""
    return ops["celu"](x, alpha=alpha)


@adapter("Selu")
def selu(x, *, alpha=1.6732631921768188, gamma=1.0507010221481323):
    """Elu scaled by gamma."""
    if abs(alpha - 1.6732632423543772) < 1e-6 and abs(gamma - 1.0507009873554805) < 1e-6:
        return ops["selu"](x)
    return ops["elu"](x, alpha=alpha) * gamma


@adapter("Gelu")
def gelu(x, *, approximate="none"):
    """Exact, or through tanh."""
    return ops["gelu"](x, approximate=approximate)


@adapter("PRelu")
def prelu(x, slope):
    """A slope for each channel, or one that broadcasts."""
    if slope.ndim < x.ndim and slope.ndim == 1 and slope.shape[0] != 1 and slope.shape[0] != x.shape[-1]:
        slope = ops["reshape"](slope, shape=(slope.shape[0],) + (1,) * (x.ndim - 2))
    return ops["prelu"](x, slope)


@adapter("HardSigmoid")
def hard_sigmoid(x, *, alpha=0.2, beta=0.5):
    """A line cut at 0 and 1."""
    return ops["clip"](x * alpha + beta, min=0.0, max=1.0)


adapter("HardSwish")(lambda x: ops["hardswish"](x))
adapter("Softsign")(lambda x: ops["softsign"](x))
adapter("Mish")(lambda x: ops["mish"](x))


@adapter("ThresholdedRelu")
def thresholded_relu(x, *, alpha=1.0):
    """x above alpha, else 0."""
    return ops["threshold"](x, threshold=alpha, value=0.0)


@adapter("Shrink")
def shrink(x, *, bias=0.0, lambd=0.5):
    """Towards 0 by bias outside lambd, 0 inside."""
    if bias in (0.0, lambd) and x.dtype.is_float and lambd >= 0:
        return ops["softshrink" if bias else "hardshrink"](x, lambd=lambd)
    low = ops["where"](ops["less"](x, -lambd), x + bias, x * 0)
    return ops["where"](ops["greater"](x, lambd), x - bias, low).to(x.dtype)


@adapter("Swish")
def swish(x, *, alpha=1.0):
    """x times the sigmoid of alpha x."""
    return ops["silu"](x) if alpha == 1.0 else x * ops["sigmoid"](x * alpha)


def _flat(name):
    def run(x, *, axis=1):
        axis = axis % x.ndim if x.ndim else 0
        rows = ops["reshape"](x, shape=(math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))
        return ops["reshape"](ops[name](rows, axis=1), shape=x.shape)

    return run


for _onnx, _name in (("Softmax", "softmax"), ("LogSoftmax", "log_softmax")):
    # Before opset 13 all axes from `axis` on were one.
    adapter(_onnx, since=1)(_flat(_name))
    adapter(_onnx, since=13)((lambda name: lambda x, *, axis=-1: ops[name](x, axis=axis))(_name))


def _hardmax(x, axis):
    n = x.shape[axis]
    hot = ops["one_hot"](ops["argmax"](x, axis=axis), num_classes=n, dtype=x.dtype)
    axis = axis % x.ndim
    order = list(range(x.ndim - 1))
    order.insert(axis, x.ndim - 1)
    return ops["permute"](hot, axes=tuple(order))


@adapter("Hardmax", since=13)
def hardmax(x, *, axis=-1):
    """One at the first maximum along an axis."""
    return _hardmax(x, axis)


@adapter("Hardmax", since=1)
def hardmax_1(x, *, axis=1):
    """One at the first maximum over all axes from `axis` on."""
    rows = ops["reshape"](x, shape=(math.prod(x.shape[: axis % x.ndim]), -1))
    return ops["reshape"](_hardmax(rows, 1), shape=x.shape)


def _dropout(node, x, ratio, forced):
    y = ops["dropout"](x, p=ratio, training=forced or node.training)
    if node.n_outputs == 1:
        return y
    if (forced or node.training) and ratio:
        return y, ops["not_equal"](y, 0)
    return y, ops["full"](True, shape=x.shape, dtype=T.bool_)


@adapter("Dropout", since=12, host=("ratio", "training_mode"), fold=False)
def dropout(node, x, ratio=None, training_mode=None, *, seed=0):
    """At work when the node says so, or when the loaded module is in train() mode."""
    forced = training_mode is not None and bool(training_mode)
    return _dropout(node, x, 0.5 if ratio is None else float(ratio), forced)


@adapter("Dropout", since=1)
def dropout_1(node, x, *, ratio=0.5):
    """The ratio as an attribute."""
    return _dropout(node, x, ratio, False)
