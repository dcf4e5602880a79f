"""Exponentials and logarithms, element by element."""

# Gradient rules are named after the input they are for, so names repeat here.
# ruff: noqa: F811
from __future__ import annotations

import math

from ..op import pointwise
from ..scalar import s
from . import elementwise as E


@pointwise(to_float=True, onnx="Exp")
def exp(x):
    """`e ** x`. Source: ONNX Exp."""
    return s.exp(x)


@exp.grad
def x(g, out):
    return g * out


exp.sample((3, 4)).sample(()).sample((0,))


@pointwise(to_float=True)
def expm1(x):
    """`e ** x - 1`, exact near 0."""
    return s.expm1(x)


@expm1.grad
def x(g, out):
    return g * (out + 1)


expm1.sample((3, 4))


@pointwise(to_float=True, onnx="Log")
def log(x):
    """The natural logarithm. Numerics: -inf at 0, NaN below. Source: ONNX Log."""
    return s.log(x)


@log.grad
def x(g, x):
    return g / x


log.sample((3, 4), low=0.2, high=3.0)


@pointwise(to_float=True)
def log1p(x):
    """`log(1 + x)`, exact near 0."""
    return s.log1p(x)


@log1p.grad
def x(g, x):
    return g / (x + 1)


log1p.sample((3, 4), low=-0.5, high=3.0)


@pointwise(to_float=True, onnx="Sigmoid")
def sigmoid(x):
    """`1 / (1 + exp(-x))`. Source: ONNX Sigmoid."""
    return s.sigmoid(x)


@sigmoid.grad
def x(g, out):
    return g * (out * (1 - out))


sigmoid.sample((3, 4))


def _to_base(name, base, exponential, text):
    """exp2, log2, log10: powers of a base and their inverses."""

    def body(x):
        return getattr(s, name)(x)

    body.__name__, body.__doc__ = name, text
    op = pointwise(to_float=True)(body)
    if exponential:

        @op.grad
        def x(g, out):
            return g * (out * math.log(base))

        return op.sample((3, 4))

    @op.grad
    def x(g, x):
        return g / (x * math.log(base))

    return op.sample((3, 4), low=0.2, high=3.0)


exp2 = _to_base("exp2", 2, True, "`2 ** x`.")
log2 = _to_base("log2", 2, False, "The logarithm to base 2. Numerics: -inf at 0, NaN below.")
log10 = _to_base("log10", 10, False, "The logarithm to base 10. Numerics: -inf at 0, NaN below.")


@pointwise(to_float=True)
def logaddexp(x, y):
    """`log(exp(x) + exp(y))` without overflow, with broadcasting. Numerics: two -inf give -inf."""
    more = s.softplus(-s.abs(x - y))
    return s.where(s.eq(x, y), x + math.log(2), s.maximum(x, y) + more)


@logaddexp.grad
def x(g, x, y):
    return g * sigmoid(x - y)


@logaddexp.grad
def y(g, x, y):
    return g * sigmoid(y - x)


logaddexp.sample((3, 4), (4,)).sample((3,), 0.5)


@pointwise(to_float=True)
def logaddexp2(x, y):
    """`log2(2**x + 2**y)` without overflow, with broadcasting. Numerics: two -inf give -inf."""
    more = s.log1p(s.exp2(-s.abs(x - y))) * (1 / math.log(2))
    return s.where(s.eq(x, y), x + 1, s.maximum(x, y) + more)


@logaddexp2.grad
def x(g, x, y):
    return g * sigmoid((x - y) * math.log(2))


@logaddexp2.grad
def y(g, x, y):
    return g * sigmoid((y - x) * math.log(2))


logaddexp2.sample((3, 4), (4,))


@pointwise(to_float=True)
def logit(x, *, eps=None):
    """`log(x / (1 - x))`, the inverse of sigmoid. eps: x is limited to [eps, 1 - eps] first, when given.

    Numerics: -inf at 0, inf at 1, NaN outside; with eps the slope outside of the limits is 0.
    """
    if eps is not None:
        x = s.minimum(s.maximum(x, eps), 1 - eps)
    return s.log(x / (1 - x))


@logit.grad
def x(g, x, eps):
    slope = g / (x * (1 - x))
    if eps is None:
        return slope
    inside = E.logical_and(E.greater_equal(x, eps), E.less_equal(x, 1 - eps))
    return E.where(inside, slope, 0.0)


logit.sample((3, 4), low=0.1, high=0.9).sample((3, 4), low=0.1, high=0.9, eps=0.3)


@pointwise(to_float=True)
def xlogy(x, y):
    """`x * log(y)`, with broadcasting; 0 where x is 0, unless y is NaN."""
    return s.where(s.logical_and(s.eq(x, 0), s.logical_not(s.isnan(y))), 0, x * s.log(y))


@xlogy.grad
def x(g, x, y):
    flat = E.logical_and(E.equal(x, 0), E.less_equal(y, 0))
    return g * E.where(flat, 0.0, log(y))


@xlogy.grad
def y(g, x, y):
    return g * (x / y)


xlogy.sample((3, 4), (4,), low=0.2, high=2.0)
