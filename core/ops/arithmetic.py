"""Arithmetic, element by element with broadcasting."""

# Gradient rules are named after the input they are for, so names repeat here.
# ruff: noqa: F811
from __future__ import annotations

import math

from .. import types as T
from ..errors import DtypeError
from ..op import Ints, pointwise, public
from ..scalar import s
from ..value import Tensor
from . import elementwise as E
from .creation import zeros_like


def flat(op):
    """Declare a slope of zero everywhere: the gradients are zeros, as PyTorch gives them."""
    for name in op.input_names:

        def rule(g):
            return zeros_like(g)

        rule.__name__ = name
        op.grad(rule)
    return op


def numbers(name, *operands):
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
    numbers("subtract", x, y)
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
def y(g, x, y):
    # x / y again rather than keeping it: less memory, and the result may be changed in place.
    return negative(g * (x / y) / y)


divide.sample((3, 4), (4,), low=0.5, high=2.0).sample((3,), 2.0).sample(1.0, (3,), low=0.5).sample(
    Ints((3,)), 2
)


def _onnx_power(o, x, y):
    if not x.dtype.is_float:
        raise o.Unavailable("runtimes work Pow of integers out in float64")
    return o.Pow(x, y)


@pointwise(onnx=_onnx_power)
def power(x, y):
    """`x ** y`, with broadcasting.

    Numerics: special values as C's pow; a negative x with a fractional y is NaN. The gradient with respect
    to y is 0 where x = 0. Source: ONNX Pow.
    """
    numbers("power", x, y)
    return s.pow(x, y)


@power.grad
def x(g, x, y):
    if isinstance(y, Tensor):  # x ** 0 is flat, at 0 too
        return g * E.where(E.equal(y, 0), 0.0, y * power(x, y - 1))
    return g * y * power(x, y - 1) if y != 0 else g * 0.0


@power.grad
def y(g, x, out):
    x = x if isinstance(x, Tensor) else x * 1.0  # an integer of any size
    return g * E.where(E.equal(x, 0), 0.0, out * E.log(E.where(E.equal(x, 0), 1.0, x)))


power.sample((3, 4), (4,), low=0.5, high=2.0).sample((3,), 3.0, low=0.5).sample((4,), 2)


@public
def float_power(x, y):
    """`x ** y` in float64, whatever x and y are. Source: `power`."""
    wide = [E.cast(v, dtype=T.float64) if isinstance(v, Tensor) else float(v) for v in (x, y)]
    return power(*wide)


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
    numbers("negative", x)
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


@pointwise(onnx="Sign")
def sign(x):
    """-1, 0 or 1; of complex numbers `x / |x|`, 0 at 0. Numerics: NaN stays NaN; the gradient of real x is 0.

    Source: ONNX Sign.
    """
    numbers("sign", x)
    return s.sign(x)


@sign.grad
def x(g, x):
    if not x.dtype.is_complex:
        return zeros_like(g)
    from .complex import conj, real

    # What is across the direction of x turns it; what is along it changes nothing.
    direction, size = sign(x), abs_(x)
    zero = size == 0
    return E.where(zero, 0.0, (g - conj(direction) * real(g * direction)) / E.where(zero, 1.0, size))


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


@pointwise
def positive(x):
    """x itself, as a new tensor."""
    numbers("positive", x)
    return x


@positive.grad
def x(g):
    return g


positive.sample((3, 4)).sample(Ints((3,)))


@pointwise(to_float=True)
def cbrt(x):
    """The cube root, of negative numbers too. Numerics: the slope at 0 is infinite."""
    return s.cbrt(x)


@cbrt.grad
def x(g, out):
    return g / (out * out * 3)


cbrt.sample((3, 4), low=0.2, high=3.0)


# ---------------------------------------------------------------- two operands and more


def _beside_nan(name, text):
    def body(x, y):
        return getattr(s, name)(x, y)

    body.__name__ = name
    body.__doc__ = (
        f"The {text} of x and y, with broadcasting; the other one where one is NaN. At ties the gradient\n"
        "is x's."
    )
    op = pointwise(body)

    def takes_x(x, y):
        wins = E.greater_equal(x, y) if name == "fmax" else E.less_equal(x, y)
        nan = E.not_equal(y, y) if isinstance(y, Tensor) else y != y
        return E.logical_or(wins, nan) if isinstance(nan, Tensor) or nan else wins

    @op.grad
    def x(g, x, y):
        return E.where(takes_x(x, y), g, 0.0)

    @op.grad
    def y(g, x, y):
        return E.where(takes_x(x, y), 0.0, g)

    return op.sample((3, 4), (4,)).sample(Ints((5,)), 2)


fmax = _beside_nan("fmax", "larger")
fmin = _beside_nan("fmin", "smaller")


@pointwise(to_float=True)
def hypot(x, y):
    """`sqrt(x*x + y*y)` without overflow, with broadcasting.

    Numerics: infinite if either operand is, NaN beside it included; the slope at (0, 0) is NaN.
    """
    if x.dtype.itemsize < 8 and y.dtype.itemsize < 8:
        a, b = s.cast(x, T.float64), s.cast(y, T.float64)
        out = s.sqrt(a * a + b * b)
        kind = T.promote(x.dtype, y.dtype)
        return s.where(s.logical_or(s.isinf(x), s.isinf(y)), math.inf, s.cast(out, kind))
    large, small = s.maximum(s.abs(x), s.abs(y)), s.minimum(s.abs(x), s.abs(y))
    ratio = small / large
    out = s.where(s.eq(large, 0), large, large * s.sqrt(ratio * ratio + 1))
    return s.where(s.logical_or(s.isinf(x), s.isinf(y)), math.inf, out)


@hypot.grad
def x(g, x, out):
    return g * (x / out)


@hypot.grad
def y(g, y, out):
    return g * (y / out)


hypot.sample((3, 4), (4,), low=0.3).sample((3,), 0.5)


@pointwise(to_float=True)
def copysign(x, y):
    """The magnitude of x with the sign of y, with broadcasting. The slope at x = 0 is 0. Source: IEEE 754."""
    return s.copysign(x, y)


@copysign.grad
def x(g, x, out):
    return g * (sign(x) * sign(out))


@copysign.grad
def y(g):
    return zeros_like(g)


copysign.sample((3, 4), (4,))


@pointwise(
    widen=False,
    no_gradient="a step between neighbouring floats",
)
def nextafter(x, y):
    """The float next to x on the way to y, with broadcasting; y where they are equal. Source: IEEE 754.

    Raises: DtypeError for 16-bit floats.
    """
    if x.dtype.is_half or y.dtype.is_half:
        raise DtypeError(
            "nextafter", f"takes float32 and float64, not {x.dtype} and {y.dtype}", "convert with .to"
        )
    return s.nextafter(x, y)


nextafter.sample((3, 4), (4,))


@pointwise
def lerp(x, y, weight):
    """`x + weight * (y - x)`, with broadcasting; from the nearer end, so that both ends are exact.

    weight: a tensor or a number. Raises: DtypeError for booleans.
    """
    numbers("lerp", x, y)
    step = y - x
    return s.where(s.lt(s.abs(weight), 0.5), x + weight * step, y - step * (1 - weight))


@lerp.grad
def x(g, weight):
    return g * (1 - weight)


@lerp.grad
def y(g, weight):
    return g * weight


@lerp.grad
def weight(g, x, y):
    return g * (y - x)


lerp.sample((3, 4), (3, 4), (4,)).sample((3,), (3,), 0.25)


@pointwise
def addcmul(x, y, z, *, value=1):
    """`x + value * y * z`, with broadcasting. value: a number."""
    return x + y * z * value


@addcmul.grad
def x(g):
    return g


@addcmul.grad
def y(g, z, value):
    return g * (z * value)


@addcmul.grad
def z(g, y, value):
    return g * (y * value)


addcmul.sample((3, 4), (4,), (3, 1), value=0.5)


@pointwise(to_float=True)
def addcdiv(x, y, z, *, value=1):
    """`x + value * y / z`, with broadcasting. value: a number."""
    return x + y / z * value


@addcdiv.grad
def x(g):
    return g


@addcdiv.grad
def y(g, z, value):
    return g / z * value


@addcdiv.grad
def z(g, y, z, value):
    return negative(g * (y / (z * z) * value))


addcdiv.sample((3, 4), (4,), (3, 1), value=0.5, low=0.5)


def _whole(name, *operands):
    for v in operands:
        if not v.dtype.is_integer:
            raise DtypeError(name, f"takes integers, not {v.dtype}", "convert with .to(dg.int64)")
    T.check_integers_in_common(name, [v.dtype for v in operands])


_NOT_SMOOTH = "integers have no gradient"


@pointwise(no_gradient=_NOT_SMOOTH, parts="gcd")
def gcd(x, y):
    """The greatest common divisor of the magnitudes of two integers, with broadcasting; gcd(0, n) is |n|."""
    _whole("gcd", x, y)
    return s.gcd(x, y)


gcd.sample(Ints((6,), -30, 30), Ints((6,), -30, 30)).sample(Ints((6,), 0, 30), 12)
gcd.error_sample((3,), Ints((3,)), match="takes integers, not float32")


@pointwise(no_gradient=_NOT_SMOOTH, parts="lcm")
def lcm(x, y):
    """The least common multiple of the magnitudes of two integers, with broadcasting; 0 if either is 0."""
    _whole("lcm", x, y)
    return s.abs(s.floordiv(x, s.gcd(x, y)) * y)


lcm.sample(Ints((6,), -30, 30), Ints((6,), -30, 30))
