"""Piecewise activations: lines and exponentials joined at a kink, whose slope is PyTorch's."""

# Gradient rules are named after the input they are for, so names repeat here.
# ruff: noqa: F811
from __future__ import annotations

from .. import types as T
from ..errors import ArgumentError
from ..numbers import real
from ..op import pointwise
from ..scalar import s
from ..types import broadcast_shapes
from . import elementwise as E

_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805


@pointwise(
    onnx=lambda o, x, *, min_val, max_val: o.Clip(x, o.const(min_val, like=x), o.const(max_val, like=x))
)
def hardtanh(x, *, min_val=-1.0, max_val=1.0):
    """x limited to [min_val, max_val]. The slope on the bounds is 0 (`clip`'s is 1). Source: ONNX Clip."""
    return s.cast(s.minimum(s.maximum(x, min_val), max_val), x.dtype)


@hardtanh.normalize
def _(inputs, min_val, max_val):
    if not min_val < max_val:
        raise ArgumentError("hardtanh", f"min_val={min_val} is not below max_val={max_val}", "swap them")
    return min_val, max_val


@hardtanh.grad
def x(g, x, min_val, max_val):
    return E.where(E.logical_and(E.greater(x, min_val), E.less(x, max_val)), g, 0.0)


hardtanh.sample((3, 4)).sample((3, 4), min_val=-0.3, max_val=1.5)
hardtanh.error_sample((3,), min_val=2.0, max_val=1.0, match="is not below")


@pointwise(to_float=True, onnx=lambda o, x: o.HardSigmoid(x, alpha=1 / 6, beta=0.5))
def hardsigmoid(x):
    """`clip(x / 6 + 1/2, 0, 1)`. The slope at the kinks is 0. Source: ONNX HardSigmoid."""
    return s.minimum(s.maximum(x + 3, 0), 6) * (1 / 6)


@hardsigmoid.grad
def x(g, x):
    return E.where(E.less(E.abs_(x), 3), g * (1 / 6), 0.0)


hardsigmoid.sample((3, 4), low=-5.0, high=5.0)


def _onnx_hardswish(o, x):
    if x.dtype is T.float64:
        raise o.Unavailable("its 1/6 is a float32 in ONNX")
    return o.HardSwish(x)


@pointwise(to_float=True, onnx=_onnx_hardswish)
def hardswish(x):
    """`x * clip(x / 6 + 1/2, 0, 1)`. The slope at -3 is 0, at 3 is 1. Source: Howard et al., 2019; ONNX HardSwish."""
    return x * (s.minimum(s.maximum(x + 3, 0), 6) * (1 / 6))


@hardswish.grad
def x(g, x):
    middle = E.where(E.less(x, 3), g * (x * (1 / 3) + 0.5), g)
    return E.where(E.greater(x, -3), middle, 0.0)


hardswish.sample((3, 4), low=-5.0, high=5.0)


@pointwise(to_float=True, onnx=lambda o, x: o.Selu(x, alpha=_SELU_ALPHA, gamma=_SELU_SCALE))
def selu(x):
    """`scale * x` above 0, `scale * alpha * (exp(x) - 1)` below. Source: Klambauer et al., 2017; ONNX Selu."""
    return s.where(s.gt(x, 0), x, s.expm1(s.minimum(x, 0)) * _SELU_ALPHA) * _SELU_SCALE


@selu.grad
def x(g, x):
    return E.where(E.greater(x, 0), g, g * E.exp(E.minimum(x, 0.0)) * _SELU_ALPHA) * _SELU_SCALE


selu.sample((3, 4))


def _alpha(op):
    @op.normalize
    def _(inputs, alpha):
        if alpha == 0:
            raise ArgumentError(op.name, "alpha=0 divides by zero", "use another alpha")
        return (real(alpha),)


@pointwise(to_float=True, onnx=lambda o, x, *, alpha: o.Celu(x, alpha=alpha))
def celu(x, *, alpha=1.0):
    """x above 0, `alpha * (exp(x / alpha) - 1)` below. Source: Barron, 2017; ONNX Celu."""
    return s.where(s.gt(x, 0), x, s.expm1(s.minimum(x, 0) * (1 / alpha)) * alpha)


_alpha(celu)


@celu.grad
def x(g, x, alpha):
    return E.where(E.greater(x, 0), g, g * E.exp(E.minimum(x, 0.0) * (1 / alpha)))


celu.sample((3, 4)).sample((3, 4), alpha=0.5)
celu.error_sample((3,), alpha=0.0, match="divides by zero")


def _onnx_prelu(o, x, slope):
    if broadcast_shapes("prelu", x.shape, slope.shape) != x.shape:
        raise o.Unavailable("PRelu broadcasts its slope to x alone")
    return o.PRelu(x, slope)


@pointwise(onnx=_onnx_prelu)
def prelu(x, slope):
    """x above 0, `slope * x` below, with broadcasting. The slope at 0 is `slope`. Source: ONNX PRelu."""
    return s.where(s.gt(x, 0), x, x * slope)


@prelu.grad
def x(g, x, slope):
    return E.where(E.greater(x, 0), g, g * slope)


@prelu.grad
def slope(g, x):
    return E.where(E.greater(x, 0), 0.0, g * x)


prelu.sample((3, 4), (4,)).sample((2, 3, 2), (3, 1))


@pointwise
def threshold(x, *, threshold, value):
    """x above the threshold, else `value`. The slope on the threshold is 0."""
    return s.where(s.gt(x, threshold), x, value)


@threshold.grad
def x(g, x, threshold):
    return E.where(E.greater(x, threshold), g, 0.0)


threshold.sample((3, 4), threshold=0.3, value=-0.5)


def _shrink(name, text, body, onnx):
    """hardshrink and softshrink: 0 within lambd of 0."""
    body.__name__, body.__doc__ = name, f"{text} lambd: a number from 0. The slope at the kinks is 0."
    op = pointwise(onnx=onnx)(body)

    @op.normalize
    def _(inputs, lambd):
        if not lambd >= 0:
            raise ArgumentError(name, f"lambd={lambd} is negative", "use a number from 0")
        return (real(lambd),)

    @op.grad
    def x(g, x, lambd):
        return E.where(E.less_equal(E.abs_(x), lambd), 0.0, g)

    return op.sample((3, 4), lambd=0.4)


def _hard(x, *, lambd=0.5):
    return s.where(s.le(s.abs(x), lambd), 0, x)


def _soft(x, *, lambd=0.5):
    moved = s.where(s.gt(x, lambd), x - lambd, s.where(s.lt(x, -lambd), x + lambd, 0))
    return s.where(s.isnan(x), x, moved)


hardshrink = _shrink(
    "hardshrink", "x outside [-lambd, lambd], else 0.", _hard,
    lambda o, x, *, lambd: o.Where(o.LessOrEqual(o.Abs(x), o.const(lambd, x)), o.const(0.0, x), x),
)  # fmt: skip
softshrink = _shrink(
    "softshrink", "x moved towards 0 by lambd; 0 within it.", _soft,
    lambda o, x, *, lambd: o.Where(o.IsNaN(x), x, o.Shrink(x, lambd=lambd, bias=lambd)),  # its own says 0 of NaN
)  # fmt: skip
