"""Trigonometric and hyperbolic functions, element by element."""

# Gradient rules are named after the input they are for, so names repeat here.
# ruff: noqa: F811
from __future__ import annotations

from ..op import pointwise
from ..scalar import s
from . import elementwise as E


@pointwise(to_float=True, onnx="Sin")
def sin(x):
    """The sine; x in radians. Source: ONNX Sin."""
    return s.sin(x)


@sin.grad
def x(g, x):
    return g * cos(x)


sin.sample((3, 4))


@pointwise(to_float=True, onnx="Cos")
def cos(x):
    """The cosine; x in radians. Source: ONNX Cos."""
    return s.cos(x)


@cos.grad
def x(g, x):
    return E.negative(g * sin(x))


cos.sample((3, 4))


@pointwise(to_float=True, onnx="Tanh")
def tanh(x):
    """The hyperbolic tangent. Source: ONNX Tanh."""
    return s.tanh(x)


@tanh.grad
def x(g, out):
    return g * (1 - out * out)


tanh.sample((3, 4))
