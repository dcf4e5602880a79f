"""Comparison, logic and choice, element by element with broadcasting; conversion and copies."""

# Gradient rules are named after the input they are for, so names repeat here.
# ruff: noqa: F811
from __future__ import annotations

import math

from .. import types as T
from ..dtype_info import finfo
from ..errors import DtypeError
from ..op import Ints, pointwise, public
from ..scalar import cast as convert
from ..scalar import const, s
from .creation import zeros_like


def _predicate(name, scalar, onnx, text, arity=2):
    if arity == 2:

        def body(x, y):
            return getattr(s, scalar)(x, y)
    else:

        def body(x):
            if not x.dtype.has_gradient and scalar.startswith("is"):
                return const(scalar == "isfinite", T.bool_)
            return getattr(s, scalar)(x)

    body.__name__ = name
    body.__doc__ = f"{text} Returns: bool. Source: ONNX."
    op = pointwise(no_gradient="boolean result", onnx=onnx)(body)
    if arity == 2:
        return op.sample((3, 4), (4,)).sample(Ints((6,)), 2)
    return op.sample((3, 4))


equal = _predicate("equal", "eq", "Equal", "Whether x = y, with broadcasting. NaN equals nothing.")
not_equal = _predicate("not_equal", "ne", lambda o, x, y: o.Not(o.Equal(x, y)), "Whether x differs from y.")
less = _predicate("less", "lt", "Less", "Whether x < y, with broadcasting.")
less_equal = _predicate("less_equal", "le", "LessOrEqual", "Whether x <= y, with broadcasting.")
greater = _predicate("greater", "gt", "Greater", "Whether x > y, with broadcasting.")
greater_equal = _predicate("greater_equal", "ge", "GreaterOrEqual", "Whether x >= y, with broadcasting.")
logical_and = _predicate("logical_and", "logical_and", "And", "Whether both are true (non-zero).")
logical_or = _predicate("logical_or", "logical_or", "Or", "Whether one is true (non-zero).")
logical_xor = _predicate("logical_xor", "logical_xor", "Xor", "Whether just one is true (non-zero).")
logical_not = _predicate("logical_not", "logical_not", "Not", "Whether x is false (zero).", 1)
isnan = _predicate("isnan", "isnan", "IsNaN", "Whether x is not a number.", 1)
isinf = _predicate("isinf", "isinf", "IsInf", "Whether x is an infinity.", 1)
isfinite = _predicate(
    "isfinite", "isfinite", lambda o, x: o.Not(o.Or(o.IsNaN(x), o.IsInf(x))), "Whether x is finite.", 1
)


@pointwise(onnx="Where", selects=True)
def where(condition, x, y):
    """x where the condition is true, else y; all three broadcast.

    condition: bool (numbers count as true when not 0; their dtype has no say). Returns: the promoted dtype of x and y.
    Numerics: the side not taken adds nothing to the gradient, NaN included. Source: ONNX Where.
    """
    return s.where(condition, x, y)


@where.grad
def x(g, condition):
    return where(condition, g, 0.0)


@where.grad
def y(g, condition):
    return where(condition, 0.0, g)


where.sample(Ints((3, 4), 0, 2, "bool"), (3, 4), (4,)).sample(Ints((3,), 0, 2, "bool"), (3,), 0.0)


def _sided(name, text, test):
    def body(x):
        return test(x) if x.dtype.has_gradient else const(name == "isreal", T.bool_)

    body.__name__, body.__doc__ = name, f"{text} Returns: bool."
    return pointwise(no_gradient="boolean result")(body).sample((3, 4))


isposinf = _sided("isposinf", "Whether x is +infinity.", lambda x: s.eq(x, math.inf))
isneginf = _sided("isneginf", "Whether x is -infinity.", lambda x: s.eq(x, -math.inf))


@pointwise(no_gradient="boolean result")
def isreal(x):
    """Whether x has no imaginary part: true for every real dtype. Returns: bool."""
    return s.eq(s.imag(x), 0) if x.dtype.is_complex else const(True, T.bool_)


isreal.sample((3, 4))


@pointwise(no_gradient="boolean result")
def signbit(x):
    """Whether the sign is set: negative numbers, -0 and NaN with a sign. Returns: bool."""
    if x.dtype.is_float:
        return s.lt(s.copysign(const(1, x.dtype), x), 0)
    return s.lt(x, 0) if x.dtype.kind == "int" else const(False, T.bool_)


signbit.sample((3, 4)).sample(Ints((5,), -3, 3))


@pointwise(no_gradient="boolean result")
def isclose(x, y, *, rtol=1e-5, atol=1e-8, equal_nan=False):
    """Whether `|x - y| <= atol + rtol * |y|`, with broadcasting.

    rtol, atol: numbers from 0; equal_nan: NaN equals NaN. Returns: bool. Numerics: infinities are close to
    themselves only; integers are compared in float64.
    """
    if not (x.dtype.has_gradient or y.dtype.has_gradient):
        x, y = convert(x, T.float64), convert(y, T.float64)
    apart = s.abs(x - y)
    close = s.logical_and(s.isfinite(apart), s.le(apart, s.abs(y) * rtol + atol))
    close = s.logical_or(s.eq(x, y), close)
    return s.logical_or(close, s.logical_and(s.isnan(x), s.isnan(y))) if equal_nan else close


isclose.sample((3, 4), (3, 4), rtol=0.5, atol=0.1).sample((4,), (4,), equal_nan=True)


def _all(x):
    from .reduction import all_

    return all_(x)


@public
def allclose(x, y, rtol=1e-5, atol=1e-8, equal_nan=False):
    """Whether all elements are close, as `isclose` says. Returns: bool (in a graph this reads a value)."""
    return bool(_all(isclose(x, y, rtol=rtol, atol=atol, equal_nan=equal_nan)).item())


@public
def array_equal(x, y, equal_nan=False):
    """Whether x and y have equal shapes and elements. equal_nan: NaN equals NaN. Returns: bool."""
    if x.shape != y.shape:
        return False
    same = equal(x, y)
    if equal_nan:
        same = logical_or(same, logical_and(isnan(x), isnan(y)))
    return bool(_all(same).item())


@pointwise(no_gradient="a step")
def heaviside(x, values):
    """0 for x below 0, 1 above, `values` at 0, with broadcasting. Numerics: NaN stays NaN."""
    kind = T.promote(x.dtype, values.dtype)
    step = convert(s.gt(x, 0), kind)
    if x.dtype.is_float:
        step = s.where(s.isnan(x), convert(x, kind), step)
    return s.where(s.eq(x, 0), values, step)


heaviside.sample((3, 4), (4,)).sample(Ints((5,), -2, 3), 1)


@pointwise(widen=False)
def nan_to_num(x, *, nan=0.0, posinf=None, neginf=None):
    """x with NaN and infinities replaced.

    nan, posinf, neginf: numbers; the largest and lowest float of the dtype when posinf, neginf are None.
    Integers are unchanged. The slope is 0 where something is replaced.
    """
    if x.dtype.is_complex:
        raise DtypeError("nan_to_num", f"takes real numbers, not {x.dtype}", "replace x.real and x.imag")
    if not x.dtype.is_float:
        return x
    largest = finfo(x.dtype).max
    out = s.where(s.eq(x, math.inf), largest if posinf is None else posinf, x)
    out = s.where(s.eq(x, -math.inf), -largest if neginf is None else neginf, out)
    return s.where(s.isnan(x), nan, out)


@nan_to_num.grad
def x(g, x):
    return where(isfinite(x), g, 0.0)


nan_to_num.sample((3, 4)).sample((3, 4), nan=1.0, posinf=5.0, neginf=-5.0)


@pointwise(onnx=lambda o, x, *, dtype: o.Cast(x, to=o.dtype(dtype)))
def cast(x, *, dtype):
    """x converted to `dtype`, as NumPy's astype.

    Numerics: floats to integers cut towards 0; out of range is implementation-defined. Source: ONNX Cast.
    """
    return s.cast(x, dtype)


@cast.normalize
def _(inputs, dtype):
    return (T.as_dtype(dtype, "cast"),)


@cast.grad
def x(g, x_type):
    return cast(g, dtype=x_type.dtype)


cast.sample((3, 4), dtype="float64").sample((3, 4), dtype="int32", grad=False).sample(
    Ints((5,)), dtype="float32"
)


@pointwise(internal=True, onnx="Identity")
def assign(x):
    """A copy of x in new memory. Source: ONNX Identity."""
    return x


@assign.grad
def x(g):
    return g


assign.sample((3, 4)).sample(Ints((3,)))


@pointwise(internal=True, onnx=lambda o, x, y: o.Identity(y))
def overwrite(x, y):
    """y, in place of x, which keeps a gradient: 0. Source: ONNX Identity."""
    return y


@overwrite.grad
def x(g):
    return zeros_like(g)


@overwrite.grad
def y(g):
    return g


overwrite.sample((3, 4), (3, 4)).sample(Ints((3,)), Ints((3,)))
