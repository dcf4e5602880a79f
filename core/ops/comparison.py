"""Comparison, logic and choice, element by element with broadcasting; conversion and copies."""

# Gradient rules are named after the input they are for, so names repeat here.
# ruff: noqa: F811
from __future__ import annotations

from .. import types as T
from ..op import Ints, pointwise
from ..scalar import const, s


def _predicate(name, scalar, onnx, text, arity=2):
    if arity == 2:

        def body(x, y):
            return getattr(s, scalar)(x, y)
    else:

        def body(x):
            if not x.dtype.is_float and scalar.startswith("is"):
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


@pointwise(onnx="Where")
def where(condition, x, y):
    """x where the condition is true, else y; all three broadcast.

    condition: bool (numbers count as true when not 0). Returns: the promoted dtype of x and y.
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
