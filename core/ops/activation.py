"""Activations, softmax and dropout."""

# Gradient rules are named after the input they are for, so names repeat here.
# ruff: noqa: F811
from __future__ import annotations

import math

from .. import types as T
from ..errors import ArgumentError, ShapeError
from ..op import composite, pointwise, public
from ..scalar import s
from ..types import normalize_axis
from . import elementwise as E
from .creation import arange
from .random import gumbel, rand
from .reduction import argmax, max_, sum_
from .shape import reshape, split


@pointwise(onnx="Relu")
def relu(x):
    """`max(x, 0)`.

    x: float[...] or int[...]. Returns: as x. Numerics: the slope at 0 is 0; NaN stays NaN. Source: ONNX Relu.
    """
    return s.maximum(x, 0)


@relu.grad
def x(g, out):
    return E.where(E.greater(out, 0), g, 0.0)


relu.sample((3, 4)).sample(())


#: beyond it gelu, silu and mish are 0 or x in every dtype, and an infinity must not meet that 0
_FAR = 1e4


def _near(x):
    return E.minimum(E.maximum(x, -_FAR), _FAR)


def _onnx_gelu(o, x, *, approximate):
    if approximate == "tanh" and x.dtype is T.float64:
        raise o.Unavailable("onnxruntime has its constants as float32")
    return o.Gelu(x, approximate=approximate)


@pointwise(to_float=True, onnx=_onnx_gelu)
def gelu(x, *, approximate="none"):
    """`x * Phi(x)`, Phi the normal distribution function; approximate="tanh" uses tanh for it.

    Numerics: 0 at minus infinity, where PyTorch has NaN; slopes 0 and 1 at the infinities. In float32 below -5.8,
    where it is above -2e-8, it may be 0. Source: Hendrycks and Gimpel, 2016; ONNX Gelu.
    """
    if approximate == "tanh":
        x = s.maximum(x, -_FAR)
        return x * 0.5 * (1 + s.tanh((x + x * x * x * 0.044715) * math.sqrt(2 / math.pi)))
    return s.gelu(x)


@gelu.normalize
def _(inputs, approximate):
    if approximate not in ("none", "tanh"):
        raise ArgumentError("gelu", f"approximate={approximate!r}", 'use "none" or "tanh"')
    return (approximate,)


@gelu.grad
def x(g, x, approximate):
    return g * gelu_x_grad(x, approximate=approximate)


gelu.sample((3, 4)).sample((3, 4), approximate="tanh")


@pointwise(internal=True, to_float=True)
def gelu_x_grad(x, *, approximate="none"):
    """The derivative of gelu."""
    x = s.minimum(s.maximum(x, -_FAR), _FAR)
    if approximate == "tanh":
        k = math.sqrt(2 / math.pi)
        t = s.tanh((x + x * x * x * 0.044715) * k)
        return (t + 1) * 0.5 + x * 0.5 * (1 - t * t) * ((x * x * (3 * 0.044715) + 1) * k)
    return (1 + s.erf(x * math.sqrt(0.5))) * 0.5 + x * s.exp(x * x * -0.5) * (1 / math.sqrt(2 * math.pi))


@gelu_x_grad.grad
def x(g, x, approximate):
    if approximate == "tanh":
        k, a = math.sqrt(2 / math.pi), 0.044715
        t = E.tanh((x + x * x * x * a) * k)
        u = (x * x * (3 * a) + 1) * k
        sech = 1 - t * t
        return g * (sech * u + x * 0.5 * sech * (x * (6 * a * k) - t * u * u * 2))
    density = E.exp(x * x * -0.5) * (1 / math.sqrt(2 * math.pi))
    return g * (density * (2 - x * x))


gelu_x_grad.sample((3, 4)).sample((3, 4), approximate="tanh")


@pointwise(to_float=True, onnx=lambda o, x: o.Mul(x, o.Sigmoid(x)))
def silu(x):
    """`x * sigmoid(x)`. Numerics: 0 at minus infinity, with slope 0. Source: Elfwing et al., 2017."""
    return s.maximum(x, -_FAR) * s.sigmoid(x)


@silu.grad
def x(g, x):
    sig = E.sigmoid(x)
    return g * (sig * (1 + _near(x) * (1 - sig)))


silu.sample((3, 4))


@pointwise(onnx=lambda o, x, *, negative_slope: o.LeakyRelu(x, alpha=negative_slope))
def leaky_relu(x, *, negative_slope=0.01):
    """x above 0, `negative_slope * x` below. The slope at 0 is `negative_slope`. Source: ONNX LeakyRelu."""
    return s.where(s.gt(x, 0), x, x * negative_slope)


@leaky_relu.grad
def x(g, x, negative_slope):
    return E.where(E.greater(x, 0), g, g * negative_slope)


leaky_relu.sample((3, 4)).sample((3, 4), negative_slope=0.3)


@pointwise(to_float=True, onnx=lambda o, x, *, alpha: o.Elu(x, alpha=alpha))
def elu(x, *, alpha=1.0):
    """x above 0, `alpha * (exp(x) - 1)` below. Source: Clevert et al., 2015; ONNX Elu."""
    return s.where(s.gt(x, 0), x, s.expm1(s.minimum(x, 0)) * alpha)


@elu.grad
def x(g, x, alpha):
    return E.where(E.greater(x, 0), g, g * E.exp(E.minimum(x, 0.0)) * alpha)


elu.sample((3, 4)).sample((3, 4), alpha=0.5)


@pointwise(to_float=True, onnx="Softplus")
def softplus(x):
    """`log(1 + exp(x))` without overflow. Source: ONNX Softplus."""
    return s.softplus(x)


@softplus.grad
def x(g, x):
    return g * E.sigmoid(x)


softplus.sample((3, 4))


@pointwise(to_float=True, onnx="Mish")
def mish(x):
    """`x * tanh(softplus(x))`. Numerics: 0 at minus infinity, with slope 0. Source: Misra, 2019; ONNX Mish."""
    return s.maximum(x, -_FAR) * s.tanh(s.softplus(x))


@mish.grad
def x(g, x):
    t = E.tanh(softplus(x))
    return g * (t + _near(x) * (1 - t * t) * E.sigmoid(x))


mish.sample((3, 4))


@pointwise(to_float=True, onnx="Softsign")
def softsign(x):
    """`x / (1 + |x|)`. Source: ONNX Softsign."""
    return x / (s.abs(x) + 1)


@softsign.grad
def x(g, x):
    d = E.abs_(x) + 1
    return g / (d * d)


softsign.sample((3, 4))


@pointwise(to_float=True)
def logsigmoid(x):
    """`log(sigmoid(x))` without overflow."""
    return 0 - s.softplus(-x)


@logsigmoid.grad
def x(g, x):
    return g * E.sigmoid(E.negative(x))


logsigmoid.sample((3, 4))


@pointwise(to_float=True)
def tanhshrink(x):
    """`x - tanh(x)`."""
    return x - s.tanh(x)


@tanhshrink.grad
def x(g, x):
    t = E.tanh(x)
    return g * (t * t)


tanhshrink.sample((3, 4))


def _axis(op):
    @op.normalize
    def _(inputs, axis):
        x = inputs[0]
        return (normalize_axis(op.name, axis, len(x.shape), x.type) if hasattr(x, "shape") else axis,)


def _as_float(x):
    """Integers as floats: a difference of theirs may not be one of their dtype."""
    return x if x.dtype.has_gradient else E.cast(x, dtype=T.default_float)


def _below_top(x, axis):
    """x less the largest of its slice along an axis; slices of nothing have none."""
    return x - max_(x, axis=axis, keepdims=True) if x.shape[axis] else x


@composite(widen=True, onnx=lambda o, x, *, axis: o.Softmax(x, axis=axis))
def softmax(x, *, axis=-1):
    """`exp(x) / sum(exp(x))` along one axis, without overflow.

    x: float[...], or integers as floats. Returns: x's shape; each slice adds up to 1. Raises: ArgumentError for an axis
    outside x.
    Numerics: the maximum is subtracted first; a slice of -inf alone is NaN; what is empty stays so. Source: ONNX
    Softmax.
    """
    x = _as_float(x)
    e = E.exp(_below_top(x, axis))
    # One division a slice, not one an element, at the price of one more rounding.
    return e * E.reciprocal(sum_(e, axis=axis, keepdims=True))


_axis(softmax)


@softmax.grad
def x(g, out, axis):
    return out * (g - sum_(g * out, axis=axis, keepdims=True))


softmax.sample((3, 4)).sample((2, 3, 4), axis=1).sample((5,)).sample((3, 1))
softmax.error_sample((2, 5), axis=3, match="axis=3 is outside x: float32[2, 5]")


@composite(widen=True, onnx=lambda o, x, *, axis: o.LogSoftmax(x, axis=axis))
def log_softmax(x, *, axis=-1):
    """`x - log(sum(exp(x)))` along one axis, without overflow. Source: ONNX LogSoftmax."""
    x = _as_float(x)
    shifted = _below_top(x, axis)
    return shifted - E.log(sum_(E.exp(shifted), axis=axis, keepdims=True))


_axis(log_softmax)


@log_softmax.grad
def x(g, out, axis):
    return g - E.exp(out) * sum_(g, axis=axis, keepdims=True)


log_softmax.sample((3, 4)).sample((2, 3, 4), axis=1)


@composite
def softmin(x, *, axis=-1):
    """`softmax(-x)` along one axis."""
    return softmax(E.negative(_as_float(x)), axis=axis)


_axis(softmin)
softmin.sample((3, 4)).sample((2, 3, 4), axis=1)


@composite
def glu(x, *, axis=-1):
    """The first half of x along an axis times the sigmoid of the second half.

    x: float[..., 2 n, ...]. Returns: float[..., n, ...]. Raises: ShapeError for an odd size.
    Source: Dauphin et al., 2016.
    """
    if not x.shape or x.shape[axis] % 2:
        raise ShapeError("glu", f"x: {x.type} has no even size at axis={axis}", "choose another axis")
    a, b = split(x, x.shape[axis] // 2, axis=axis)
    return a * E.sigmoid(b)


_axis(glu)
glu.sample((3, 4)).sample((4, 3), axis=0)
glu.error_sample((2, 3), match="has no even size")


@public
def gumbel_softmax(logits, tau=1.0, hard=False, axis=-1, generator=None):
    """A random one-hot row, relaxed: `softmax((logits + Gumbel noise) / tau)` along an axis.

    tau: a temperature above 0. hard: exact zeros and a one, with the gradient of the relaxed row.
    Source: Jang et al., 2016.
    """
    if not tau > 0:
        raise ArgumentError("gumbel_softmax", f"tau={tau} is not above 0", "use such as 1.0")
    noise = gumbel(shape=logits.shape, dtype=logits.dtype, device=logits.device, generator=generator)
    soft = softmax((logits + noise) * (1 / tau), axis=axis)
    if not hard:
        return soft
    best = argmax(soft, axis=axis, keepdims=True)
    along = [-1 if a == axis % soft.ndim else 1 for a in range(soft.ndim)]
    row = reshape(arange(soft.shape[axis], device=soft.device), shape=along)
    one = E.cast(E.equal(row, best), dtype=soft.dtype)
    return one + soft - soft.detach()


# ---------------------------------------------------------------- dropout


def _probability(op, p):
    if not 0 <= p < 1:
        raise ArgumentError(op, f"p={p} is not a probability below 1", "use 0 <= p < 1")


def _kept(x, p, shape):
    """Whether each place is kept."""
    return E.greater_equal(rand(shape, dtype=T.float32, device=x.device), p)


@composite(onnx=lambda o, x, *, p, training: o.dropout(x, p, training))
def dropout(x, *, p=0.5, training=True):
    """x with each element set to 0 with probability p, the rest divided by 1 - p; x itself when not training.

    Raises: ArgumentError unless 0 <= p < 1. Numerics: the mask comes from the seeded counter generator, the
    same in both modes. Source: Srivastava et al., 2014; ONNX Dropout.
    """
    _probability("dropout", p)
    if not training or p == 0:
        return x
    return E.where(_kept(x, p, x.shape), x * (1 / (1 - p)), 0.0)


dropout.sample((3, 4), p=0.25).sample((3, 4), training=False)


def _onnx_kept(o, x, p, ndim):
    """What Dropout leaves of ones, a number for each element of the first axes."""
    shape = (*x.shape[:ndim], *(1,) * (x.ndim - ndim))
    return o.dropout(o.full(shape, 1, x.dtype), p, True)


def _onnx_dropout_channels(o, x, *, p, training):
    return o.Mul(x, _onnx_kept(o, x, p, 2)) if training and p else o.Identity(x)


@composite(onnx=_onnx_dropout_channels)
def dropout_channels(x, *, p=0.5, training=True):
    """x with whole channels set to 0 with probability p, the rest divided by 1 - p; x itself when not training.

    x: float[N, C, ...]. Raises: ArgumentError unless 0 <= p < 1, ShapeError for fewer than two axes.
    Source: Tompson et al., 2014.
    """
    _probability("dropout_channels", p)
    if x.ndim < 2:
        raise ShapeError("dropout_channels", f"x: {x.type} has no axis of channels", "pass x[N, C, ...]")
    if not training or p == 0:
        return x
    keep = _kept(x, p, x.shape[:2] + (1,) * (x.ndim - 2))
    return E.where(keep, x * (1 / (1 - p)), 0.0)


dropout_channels.sample((3, 4, 5), p=0.25)
dropout_channels.error_sample((3,), match="no axis of channels")


_LOW = -1.7580993408473766  # selu(-inf)


def _onnx_alpha_dropout(o, x, *, p, training, channels):
    if not training or not p:
        return o.Identity(x)
    a = 1 / math.sqrt((1 - p) * (1 + p * _LOW * _LOW))
    kept = o.cast(_onnx_kept(o, x, p, 2 if channels else x.ndim), T.bool_)
    chosen = o.Where(kept, x, o.const(_LOW, x.dtype))
    return o.Sub(o.Mul(chosen, o.const(a, x.dtype)), o.const(a * p * _LOW, x.dtype))


@composite(onnx=_onnx_alpha_dropout)
def alpha_dropout(x, *, p=0.5, training=True, channels=False):
    """Dropout for selu: dropped elements take its lowest value, and mean and variance are kept.

    channels: whole channels of x: float[N, C, ...]. Raises: ArgumentError unless 0 <= p < 1.
    Source: Klambauer et al., 2017.
    """
    _probability("alpha_dropout", p)
    if not training or p == 0:
        return x
    a = 1 / math.sqrt((1 - p) * (1 + p * _LOW * _LOW))
    shape = x.shape[:2] + (1,) * (x.ndim - 2) if channels else x.shape
    return E.where(_kept(x, p, shape), x, _LOW) * a - a * p * _LOW


alpha_dropout.sample((3, 4), p=0.25).sample((3, 4, 2), p=0.25, channels=True)
