"""Importers of element-by-element ops: arithmetic, comparison, logic, rounding, elementary functions."""

from __future__ import annotations

import functools
import math
from typing import Any

from ...core import types as T
from ...core.op import REGISTRY as ops
from ...core.value import Tensor
from .table import adapter


def _aligned(op: Any) -> Any:
    """Before opset 7: broadcasting only on request, the second operand lying at `axis` of the first."""

    def run(x, y, *, broadcast=0, axis=None):
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
        codes = "moved" if name == "equal" else None
        adapter(onnx_name, since=7, numbers=True, codes=codes)(lambda x, y: op(x, y))
        adapter(onnx_name, since=1)(_aligned(op))


for _onnx, _name in {
    "Add": "add", "Sub": "subtract", "Mul": "multiply", "Neg": "negative", "Abs": "abs", "Sign": "sign",
    "Reciprocal": "reciprocal", "Sqrt": "sqrt", "Exp": "exp", "Log": "log", "Sin": "sin", "Cos": "cos", "Tanh": "tanh",
    "Sigmoid": "sigmoid", "Erf": "erf", "Floor": "floor", "Ceil": "ceil", "Round": "round", "Equal": "equal",
    "Less": "less", "LessOrEqual": "less_equal", "Greater": "greater", "GreaterOrEqual": "greater_equal",
    "Tan": "tan", "Asin": "asin", "Acos": "acos", "Atan": "atan",
    "Sinh": "sinh", "Cosh": "cosh", "Asinh": "asinh", "Acosh": "acosh", "Atanh": "atanh",
    "BitwiseAnd": "bitwise_and", "BitwiseOr": "bitwise_or", "BitwiseXor": "bitwise_xor", "BitwiseNot": "bitwise_invert",
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
    if isinstance(x, Tensor) or isinstance(y, Tensor):
        return ops["fmod" if fmod else "remainder"](x, y)
    return math.fmod(x, y) if fmod else x % y


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


@adapter("Where", numbers=True, codes="moved")
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


@adapter("Clip", since=1)
def clip_6(x, *, min=-math.inf, max=math.inf):
    """Bounds as attributes."""
    bounds = {k: v for k, v in (("min", min), ("max", max)) if math.isfinite(v)}
    return _clip(x, **bounds)


def _clip(x: Any, **bounds: Any) -> Any:
    if x.dtype.is_float:
        bounds = {k: float(v) for k, v in bounds.items()}
        if (bounds.get("min"), bounds.get("max")) in ((0.0, 6.0), (-1.0, 1.0)):
            # These bounds are ReLU6's and Hardtanh's, whose slope on the bounds is 0.
            return ops["hardtanh"](x, min_val=bounds["min"], max_val=bounds["max"])
    return ops["clip"](x, **bounds) if bounds else ops["assign"](x)


@adapter("Identity", codes="moved")
def identity(x):
    """x itself."""
    return x if isinstance(x, list) else ops["assign"](x)


@adapter("BitShift", numbers=True)
def bit_shift(x, y, *, direction):
    """The bits of unsigned integers moved up or down."""
    return ops["bitwise_left_shift" if direction == "LEFT" else "bitwise_right_shift"](x, y)
