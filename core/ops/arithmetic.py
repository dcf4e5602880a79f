"""Arithmetic, element by element with broadcasting."""

# Gradient rules are named after the input they are for, so names repeat here.
# ruff: noqa: F811
from __future__ import annotations

from .. import types as T
from ..errors import DtypeError
from ..op import Ints, pointwise
from ..scalar import s
from . import elementwise as E


def _numbers(name, *operands):
    """Refuse booleans where arithmetic on them has no meaning, as NumPy does."""
    if all(x.dtype is T.bool_ for x in operands):
        raise DtypeError(
            name, "takes numbers, not booleans", "use logical ops, or convert with .to(dg.int64)"
        )


@pointwise(onnx="Add")
def add(x, y):
    """`x + y`.

    x, y: tensors that broadcast, or numbers. Returns: the promoted dtype and common shape.
    Raises: ShapeError when shapes do not broadcast. Numerics: integers wrap around. Source: ONNX Add.
    """
    return x + y


@add.grad
def x(g):
    return g


@add.grad
def y(g):
    return g


add.sample((3, 4), (4,)).sample((2, 3), 2.5).sample(Ints((4,)), Ints((4,))).sample((), ()).sample(
    (0, 3), (3,)
)
add.error_sample((2, 3), (4,), match="do not broadcast")


@pointwise(onnx="Sub")
def subtract(x, y):
    """`x - y`, with broadcasting. Numerics: integers wrap around. Source: ONNX Sub."""
    _numbers("subtract", x, y)
    return x - y


@subtract.grad
def x(g):
    return g


@subtract.grad
def y(g):
    return negative(g)


subtract.sample((3, 4), (3, 1)).sample(1.5, (2, 3)).sample(Ints((4,)), 2)


@pointwise(onnx="Mul")
def multiply(x, y):
    """`x * y`, with broadcasting. Numerics: integers wrap around. Source: ONNX Mul."""
    return x * y


@multiply.grad
def x(g, y):
    return g * y


@multiply.grad
def y(g, x):
    return g * x


multiply.sample((3, 4), (4,)).sample((2, 3), 3).sample((2, 1, 3), (4, 1)).sample(Ints((3,)), Ints((3,)))


@pointwise(to_float=True, onnx="Div")
def divide(x, y):
    """`x / y` in floats, with broadcasting; integers are converted to the default float first.

    Numerics: x / 0 is an infinity or NaN, as IEEE 754 says. Source: ONNX Div.
    """
    return x / y


@divide.grad
def x(g, y):
    return g / y


@divide.grad
def y(g, y, out):
    return negative(g * out / y)


divide.sample((3, 4), (4,), low=0.5, high=2.0).sample((3,), 2.0).sample(1.0, (3,), low=0.5).sample(
    Ints((3,)), 2
)


@pointwise(no_gradient="constant between steps")
def floor_divide(x, y):
    """The floor of `x / y`, with broadcasting. Numerics: an integer divided by zero is 0."""
    _numbers("floor_divide", x, y)
    return s.floordiv(x, y)


floor_divide.sample((3, 4), (4,), low=0.5, high=3.0).sample(Ints((6,), -5, 6), 3)


def _onnx_remainder(o, x, y):
    # Mod with the sign of the divisor is for integers only.
    return o.Mod(x, y) if x.dtype.is_integer else o.Sub(x, o.Mul(o.Floor(o.Div(x, y)), y))


@pointwise(onnx=_onnx_remainder)
def remainder(x, y):
    """`x - floor(x / y) * y`: the remainder with the sign of y, with broadcasting. Source: ONNX Mod (fmod=0)."""
    _numbers("remainder", x, y)
    return s.mod(x, y)


@remainder.grad
def x(g):
    return g


@remainder.grad
def y(g, x, y):
    return negative(g * floor(x / y))


remainder.sample((3, 4), 0.75, low=0.1, high=0.7).sample(Ints((6,), -5, 6), 3)


@pointwise(onnx="Pow")
def power(x, y):
    """`x ** y`, with broadcasting.

    Numerics: special values as C's pow; a negative x with a fractional y is NaN. The gradient with respect
    to y is 0 where x = 0. Source: ONNX Pow.
    """
    _numbers("power", x, y)
    return s.pow(x, y)


@power.grad
def x(g, x, y):
    return g * y * power(x, y - 1)


@power.grad
def y(g, x, out):
    return g * E.where(E.equal(x, 0), 0.0, out * E.log(E.where(E.equal(x, 0), 1.0, x)))


power.sample((3, 4), (4,), low=0.5, high=2.0).sample((3,), 3.0, low=0.5).sample((4,), 2)


@pointwise(onnx="Max")
def maximum(x, y):
    """The larger of x and y, with broadcasting.

    Numerics: NaN if either is NaN. At ties the gradient is shared equally. Source: ONNX Max.
    """
    return s.maximum(x, y)


@maximum.grad
def x(g, x, y):
    return g * _share(E.greater(x, y), E.equal(x, y))


@maximum.grad
def y(g, x, y):
    return g * _share(E.less(x, y), E.equal(x, y))


maximum.sample((3, 4), (4,)).sample((3,), 0.5).sample(Ints((5,)), 2)


@pointwise(onnx="Min")
def minimum(x, y):
    """The smaller of x and y, with broadcasting. NaN and ties as in `maximum`. Source: ONNX Min."""
    return s.minimum(x, y)


@minimum.grad
def x(g, x, y):
    return g * _share(E.less(x, y), E.equal(x, y))


@minimum.grad
def y(g, x, y):
    return g * _share(E.greater(x, y), E.equal(x, y))


minimum.sample((3, 4), (4,)).sample((3,), 0.5).sample(Ints((5,)), 2)


def _share(wins, ties):
    return E.where(ties, 0.5, E.where(wins, 1.0, 0.0))


@pointwise(onnx="Neg")
def negative(x):
    """`-x`. Source: ONNX Neg."""
    _numbers("negative", x)
    return -x


@negative.grad
def x(g):
    return negative(g)


negative.sample((3, 4)).sample(Ints((3,)))


@pointwise(onnx="Abs")
def abs_(x):
    """`|x|`. The slope at 0 is 0. Source: ONNX Abs."""
    return s.abs(x)


@abs_.grad
def x(g, x):
    return g * sign(x)


abs_.sample((3, 4)).sample(Ints((5,), -3, 3))


@pointwise(no_gradient="constant between steps", onnx="Sign")
def sign(x):
    """-1, 0 or 1. Numerics: NaN stays NaN. Source: ONNX Sign."""
    _numbers("sign", x)
    return s.sign(x)


sign.sample((3, 4)).sample(Ints((5,), -3, 3))


@pointwise(onnx=lambda o, x: o.Mul(x, x))
def square(x):
    """`x * x`."""
    return x * x


@square.grad
def x(g, x):
    return g * (x * 2)


square.sample((3, 4)).sample(Ints((3,)))


@pointwise(to_float=True, onnx="Sqrt")
def sqrt(x):
    """The square root. Numerics: NaN below 0; the slope at 0 is infinite. Source: ONNX Sqrt."""
    return s.sqrt(x)


@sqrt.grad
def x(g, out):
    return g / (out * 2)


sqrt.sample((3, 4), low=0.2, high=3.0)


@pointwise(to_float=True, onnx=lambda o, x: o.Reciprocal(o.Sqrt(x)))
def rsqrt(x):
    """`1 / sqrt(x)`, correctly rounded in both steps."""
    return 1 / s.sqrt(x)


@rsqrt.grad
def x(g, out):
    return g * (out * out * out) * -0.5


rsqrt.sample((3, 4), low=0.2, high=3.0)


@pointwise(to_float=True, onnx="Reciprocal")
def reciprocal(x):
    """`1 / x`. Source: ONNX Reciprocal."""
    return 1 / x


@reciprocal.grad
def x(g, out):
    return negative(g * (out * out))


reciprocal.sample((3, 4), low=0.5, high=2.0)


def _rounding(name, onnx, text):
    def body(x):
        return getattr(s, "rint" if name == "round" else name)(x) if x.dtype.is_float else x

    body.__name__ = name
    body.__doc__ = f"{text} Integers are unchanged. The gradient is 0. Source: ONNX {name.capitalize()}."
    return pointwise(no_gradient="constant between steps", onnx=onnx)(body)


floor = _rounding("floor", "Floor", "The largest integer not above x.")
ceil = _rounding("ceil", "Ceil", "The smallest integer not below x.")
round_ = _rounding("round", "Round", "The nearest integer, halves to even.")
trunc = _rounding("trunc", lambda o, x: o.Mul(o.Sign(x), o.Floor(o.Abs(x))), "The integer part, towards 0.")
for _op in (floor, ceil, round_, trunc):
    _op.sample((3, 4)).sample(Ints((3,)))


def _clip_onnx(o, x, *, min, max):
    bounds = [None if b is None else o.const(b, like=x) for b in (min, max)]
    return o.Clip(x, *bounds)


@pointwise(onnx=_clip_onnx)
def clip(x, *, min=None, max=None):
    """x limited to the range from `min` to `max` (numbers; None leaves that side open).

    Numerics: NaN stays NaN; the slope is 1 inside and on the bounds, 0 outside. Source: ONNX Clip.
    """
    out = x
    if min is not None:
        out = s.maximum(out, min)
    if max is not None:
        out = s.minimum(out, max)
    return out


@clip.grad
def x(g, x, min, max):
    inside = None if min is None else E.greater_equal(x, min)
    if max is not None:
        below = E.less_equal(x, max)
        inside = below if inside is None else E.logical_and(inside, below)
    return g if inside is None else E.where(inside, g, 0.0)


clip.sample((3, 4), min=-0.5, max=1.0).sample((3,), max=0.25)
