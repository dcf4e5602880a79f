"""Exponentials, logarithms and the error function, element by element."""

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


@pointwise(to_float=True, onnx=lambda o, x: o.Sub(o.Exp(x), o.const(1.0, like=x)))
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


@pointwise(to_float=True, onnx=lambda o, x: o.Log(o.Add(x, o.const(1.0, like=x))))
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


@pointwise(to_float=True, onnx="Erf")
def erf(x):
    """The error function, `2/sqrt(pi)` times the integral of `exp(-t*t)` from 0 to x. Source: ONNX Erf."""
    return s.erf(x)


@erf.grad
def x(g, x):
    return g * (exp(E.negative(x * x)) * (2 / math.sqrt(math.pi)))


erf.sample((3, 4))
