"""Trigonometric and hyperbolic functions and their inverses, element by element."""

# Gradient rules are named after the input they are for, so names repeat here.
# ruff: noqa: F811
from __future__ import annotations

import math

from ..op import pointwise
from ..scalar import s
from . import elementwise as E


def _function(name, text, slope, low=-2.0, high=2.0):
    """A function of one float that is a scalar instruction; slope: its gradient rule."""

    def body(x):
        return getattr(s, name)(x)

    body.__name__ = name
    body.__doc__ = f"{text} Source: ONNX {name.capitalize()}."
    op = pointwise(to_float=True, onnx=name.capitalize())(body)
    slope.__name__ = "x"
    op.grad(slope)
    return op.sample((3, 4), low=low, high=high)


sin = _function("sin", "The sine; x in radians.", lambda g, x: g * cos(x))
cos = _function("cos", "The cosine; x in radians.", lambda g, x: E.negative(g * sin(x)))
tan = _function("tan", "The tangent; x in radians.", lambda g, out: g * (out * out + 1), -1.2, 1.2)
asin = _function(
    "asin", "The arc sine, from -pi/2 to pi/2; NaN outside [-1, 1].",
    lambda g, x: g * E.rsqrt(1 - x * x), -0.9, 0.9,
)  # fmt: skip
acos = _function(
    "acos", "The arc cosine, from 0 to pi; NaN outside [-1, 1].",
    lambda g, x: E.negative(g * E.rsqrt(1 - x * x)), -0.9, 0.9,
)  # fmt: skip
atan = _function("atan", "The arc tangent, from -pi/2 to pi/2.", lambda g, x: g / (x * x + 1))
sinh = _function("sinh", "The hyperbolic sine.", lambda g, x: g * cosh(x))
cosh = _function("cosh", "The hyperbolic cosine.", lambda g, x: g * sinh(x))
tanh = _function("tanh", "The hyperbolic tangent.", lambda g, out: g * (1 - out * out))
asinh = _function("asinh", "The inverse hyperbolic sine.", lambda g, x: g * E.rsqrt(x * x + 1))
acosh = _function(
    "acosh", "The inverse hyperbolic cosine, from 0; NaN below 1.",
    lambda g, x: g * (E.rsqrt(x - 1) * E.rsqrt(x + 1)), 1.2, 3.0,
)  # fmt: skip
atanh = _function(
    "atanh", "The inverse hyperbolic tangent; infinite at -1 and 1, NaN beyond.",
    lambda g, x: g / (1 - x * x), -0.9, 0.9,
)  # fmt: skip


@pointwise(to_float=True)
def atan2(x, y):
    """The angle of the point (y, x), from -pi to pi, with broadcasting: `atan(x / y)` in the right quadrant.

    Numerics: zeros and infinities as C99. Source: array API standard 2024.12.
    """
    return s.atan2(x, y)


@atan2.grad
def x(g, x, y):
    return g * (y / (x * x + y * y))


@atan2.grad
def y(g, x, y):
    return g * (E.negative(x) / (x * x + y * y))


atan2.sample((3, 4), (4,), low=0.3).sample((3,), 1.5)


@pointwise(to_float=True)
def sinc(x):
    """`sin(pi x) / (pi x)`, 1 at 0."""
    y = x * math.pi
    return s.where(s.eq(x, 0), 1, s.sin(y) / y)


@sinc.grad
def x(g, x, out):
    safe = E.where(E.equal(x, 0), 1.0, x)
    return g * E.where(E.equal(x, 0), 0.0, (cos(x * math.pi) - out) / safe)


sinc.sample((3, 4), low=0.3)


def _scaled(name, factor, text):
    def body(x):
        return x * factor

    body.__name__, body.__doc__ = name, text
    op = pointwise(to_float=True)(body)

    @op.grad
    def x(g):
        return g * factor

    return op.sample((3, 4))


deg2rad = _scaled("deg2rad", math.pi / 180, "Degrees in radians: `x * pi / 180`.")
rad2deg = _scaled("rad2deg", 180 / math.pi, "Radians in degrees: `x * 180 / pi`.")
