"""Importers of element-by-element ops: arithmetic, comparison, logic, rounding, elementary functions."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from ...core import types as T
from ...core.op import REGISTRY as ops
from ...core.value import Tensor
from .dtypes import from_code
from .program import host_tensor
from .table import adapter


def _aligned(op: Any) -> Any:
    """Before opset 7: broadcasting only on request, the second operand lying at `axis` of the first."""

    def run(x, y, *, broadcast=0, axis=None, consumed_inputs=None):
        if broadcast and axis is not None and y.ndim:
            axis = axis % x.ndim
            y = ops["reshape"](y, shape=(*y.shape, *(1,) * (x.ndim - axis - y.ndim)))
        return op(x, y)

    return run


def _direct(onnx_name: str, name: str) -> None:
    op = ops[name]
    if len(op.input_names) == 1:
        adapter(onnx_name)(lambda x: op(x))
    else:
        adapter(onnx_name, since=7, numbers=True)(lambda x, y: op(x, y))
        adapter(onnx_name, since=1)(_aligned(op))


for _onnx, _name in {
    "Add": "add", "Sub": "subtract", "Mul": "multiply", "Neg": "negative", "Abs": "abs", "Sign": "sign",
    "Reciprocal": "reciprocal", "Sqrt": "sqrt", "Exp": "exp", "Log": "log", "Sin": "sin", "Cos": "cos", "Tanh": "tanh",
    "Sigmoid": "sigmoid", "Erf": "erf", "Floor": "floor", "Ceil": "ceil", "Round": "round", "Equal": "equal",
    "Less": "less", "LessOrEqual": "less_equal", "Greater": "greater", "GreaterOrEqual": "greater_equal",
    "And": "logical_and", "Or": "logical_or", "Xor": "logical_xor", "Not": "logical_not", "IsNaN": "isnan",
}.items():  # fmt: skip
    _direct(_onnx, _name)


def _dtype(x: Any, y: Any) -> Any:
    return x.dtype if isinstance(x, Tensor) else y.dtype


@adapter("Div", since=7, numbers=True)
def div(x, y):
    """Integers are divided towards 0."""
    if _dtype(x, y).is_float:
        return ops["divide"](x, y)
    if _dtype(x, y).kind == "uint":
        return ops["floor_divide"](x, y)
    down = (
        ops["floor_divide"](ops["abs"](x), ops["abs"](y))
        if isinstance(x, Tensor) and isinstance(y, Tensor)
        else None
    )
    if down is None:
        x, y = (v if isinstance(v, Tensor) else ops["full"](v, shape=(), dtype=_dtype(x, y)) for v in (x, y))
        return div(x, y)
    return down * ops["sign"](x) * ops["sign"](y)


@adapter("Mod", numbers=True)
def mod(x, y, *, fmod=0):
    """fmod: the sign of the dividend instead of the divisor."""
    if not fmod:
        return ops["remainder"](x, y)
    dtype = _dtype(x, y)
    if dtype.kind == "uint":
        return ops["remainder"](x, y)
    rest = ops["remainder"](_abs(x), _abs(y))
    negative = ops["less"](x, 0) if isinstance(x, Tensor) else x < 0
    if isinstance(negative, bool):
        return -rest if negative else rest
    return ops["where"](negative, -rest, rest)


def _abs(x: Any) -> Any:
    return ops["abs"](x) if isinstance(x, Tensor) else abs(x)


@adapter("Pow", since=7)
def power(x, y):
    """The result has x's dtype."""
    if not isinstance(x, Tensor):
        x = ops["full"](x, shape=(), dtype=T.default_float)
    if y.dtype is not x.dtype:
        wide = T.promote(x.dtype, y.dtype)
        return ops["power"](x.to(wide), y.to(wide)).to(x.dtype)
    return ops["power"](x, y)


adapter("Div", since=1)(_aligned(div))
adapter("Pow", since=1)(_aligned(power))


def _fold(name: str) -> Any:
    op = ops[name]

    def run(*xs):
        return functools.reduce(op, xs) if len(xs) > 1 else ops["assign"](xs[0])

    return run


adapter("Max")(_fold("maximum"))
adapter("Min")(_fold("minimum"))
adapter("Sum")(_fold("add"))


@adapter("Mean")
def mean(*xs):
    """The mean of tensors, element by element."""
    return functools.reduce(ops["add"], xs) / len(xs)


@adapter("Where", numbers=True)
def where(condition, x, y):
    """x where the condition holds, else y."""
    return ops["where"](condition, x, y)


@adapter("IsInf")
def isinf(x, *, detect_negative=1, detect_positive=1):
    """Which infinities count is a setting."""
    found = ops["isinf"](x)
    if detect_negative and detect_positive:
        return found
    if not detect_negative and not detect_positive:
        return ops["logical_and"](found, ops["logical_not"](found))
    side = ops["greater"](x, 0) if detect_positive else ops["less"](x, 0)
    return ops["logical_and"](found, side)


@adapter("Clip", since=11, host=("low", "high"))
def clip(x, low=None, high=None):
    """x between two bounds, both optional. A low above the high gives the high."""
    bounds = {k: v.item() for k, v in (("min", low), ("max", high)) if v is not None}
    return _clip(x, **bounds)


@adapter("Clip", since=6)
def clip_6(x, *, min=-math.inf, max=math.inf):
    """Bounds as attributes."""
    bounds = {k: v for k, v in (("min", min), ("max", max)) if math.isfinite(v)}
    return _clip(x, **bounds)


def _clip(x: Any, **bounds: Any) -> Any:
    if x.dtype.is_float:
        bounds = {k: float(v) for k, v in bounds.items()}
    return ops["clip"](x, **bounds) if bounds else ops["assign"](x)


@adapter("Cast")
def cast(x, *, to, saturate=1, round_mode="up"):
    """x as another element type."""
    dtype = from_code(to, "Cast")
    return ops["assign"](x) if dtype is x.dtype else ops["cast"](x, dtype=dtype)


@adapter("CastLike")
def cast_like(x, y, *, saturate=1, round_mode="up"):
    """x as y's element type."""
    return ops["assign"](x) if y.dtype is x.dtype else ops["cast"](x, dtype=y.dtype)


@adapter("Tan")
def tan(x):
    """sin over cos."""
    return ops["sin"](x) / ops["cos"](x)


@adapter("Sinh")
def sinh(x):
    """The odd part of exp, by expm1, so that it is exact near 0."""
    e = ops["expm1"](x)
    return (e + e / (e + 1)) * 0.5


@adapter("Cosh")
def cosh(x):
    """The even part of exp."""
    return (ops["exp"](x) + ops["exp"](-x)) * 0.5


@adapter("Asinh")
def asinh(x):
    """`sign(x) * log(|x| + sqrt(x*x + 1))`, by log1p."""
    a = ops["abs"](x)
    return ops["sign"](x) * ops["log1p"](a + a * a / (1 + ops["sqrt"](a * a + 1)))


@adapter("Acosh")
def acosh(x):
    """`log(x + sqrt(x*x - 1))`."""
    return ops["log"](x + ops["sqrt"](x * x - 1))


@adapter("Atanh")
def atanh(x):
    """`log1p(2 x / (1 - x)) / 2`."""
    return ops["log1p"](2 * x / (1 - x)) * 0.5


@adapter("Identity")
def identity(x):
    """x itself."""
    return x if isinstance(x, list) else ops["assign"](x)


@adapter("BitShift", host=("y",))
def bit_shift(x, y, *, direction):
    """Unsigned integers shifted: a product with, or a floored quotient by, a power of two."""
    factor = host_tensor(np.power(np.array(2, y.dtype), y).astype(y.dtype))
    return ops["multiply"](x, factor) if direction == "LEFT" else ops["floor_divide"](x, factor)
