"""Rounding, limits, and division with a remainder, element by element."""

# Gradient rules are named after the input they are for, so names repeat here.
# ruff: noqa: F811
from __future__ import annotations

from .. import types as T
from ..errors import ArgumentError
from ..op import Ints, pointwise, public
from ..scalar import s
from ..value import Tensor
from . import elementwise as E
from .arithmetic import flat, numbers


def _rounding(name, onnx, text):
    def body(x):
        return getattr(s, name)(x) if x.dtype.has_gradient else x

    body.__name__ = name
    body.__doc__ = f"{text} Integers are unchanged. The gradient is 0. Source: ONNX {name.capitalize()}."
    return flat(pointwise(onnx=onnx)(body)).sample((3, 4)).sample(Ints((3,)))


floor = _rounding("floor", "Floor", "The largest integer not above x.")
ceil = _rounding("ceil", "Ceil", "The smallest integer not below x.")
trunc = _rounding("trunc", lambda o, x: o.Mul(o.Sign(x), o.Floor(o.Abs(x))), "The integer part, towards 0.")


@pointwise
def round_(x, *, decimals=0):
    """The nearest number with so many decimals, halves to even; negative decimals: tens, hundreds.

    Integers are unchanged unless decimals is negative. The gradient is 0. Source: ONNX Round.
    """
    scale = 10.0 ** abs(decimals)
    if x.dtype.has_gradient:
        if decimals == 0:
            return s.rint(x)
        return s.rint(x * scale) / scale if decimals > 0 else s.rint(x / scale) * scale
    return x if decimals >= 0 else s.cast(s.rint(s.cast(x, T.float64) / scale) * scale, x.dtype)


flat(round_).sample((3, 4)).sample(Ints((3,))).sample((3, 4), decimals=1).sample(
    Ints((3,), 0, 99), decimals=-1
)


@pointwise
def frac(x):
    """`x - trunc(x)`: what is behind the point, with the sign of x. Raises: DtypeError for booleans."""
    numbers("frac", x)
    return x - s.trunc(x)


@frac.grad
def x(g):
    return g


frac.sample((3, 4))


@pointwise
def floor_divide(x, y):
    """The floor of `x / y`, with broadcasting. The gradient is 0.

    Numerics: an integer divided by zero is 0. An infinity divided by a finite number stays one, and a finite number
    divided by an infinity is 0.0 or -0.0 (where Python has -1.0 for different signs).
    Source: array API standard 2024.12.
    """
    numbers("floor_divide", x, y)
    return s.floordiv(x, y)


flat(floor_divide).sample((3, 4), (4,), low=0.5, high=3.0).sample(Ints((6,), -5, 6), 3)


@pointwise
def trunc_divide(x, y):
    """`x / y` rounded towards 0, with broadcasting. The gradient is 0. Numerics: an integer by zero is 0."""
    numbers("trunc_divide", x, y)
    if x.dtype.is_integer and y.dtype.is_integer:
        # Without the remainder the division is exact.
        return s.floordiv(x - s.fmod(x, y), y)
    return s.trunc(x / y)


flat(trunc_divide).sample((3, 4), (4,), low=0.5, high=3.0).sample(Ints((6,), -5, 6), 3)


@public
def div(x, y, rounding_mode=None):
    """`x / y`; rounding_mode None: in floats, "floor": rounded down, "trunc": rounded towards 0."""
    if rounding_mode is None:
        return E.divide(x, y)
    if rounding_mode not in ("floor", "trunc"):
        raise ArgumentError("div", f"rounding_mode={rounding_mode!r}", 'use None, "floor" or "trunc"')
    return floor_divide(x, y) if rounding_mode == "floor" else trunc_divide(x, y)


@pointwise
def remainder(x, y):
    """`x - floor(x / y) * y`: the remainder with the sign of y, with broadcasting. Source: ONNX Mod (fmod=0)."""
    numbers("remainder", x, y)
    return s.mod(x, y)


@remainder.grad
def x(g):
    return g


@remainder.grad
def y(g, x, y):
    return E.negative(g * floor(x / y))


remainder.sample((3, 4), 0.75, low=0.1, high=0.7).sample(Ints((6,), -5, 6), 3)


@pointwise(onnx=lambda o, x, y: o.Mod(x, y, fmod=1))
def fmod(x, y):
    """`x - trunc(x / y) * y`: the remainder with the sign of x, with broadcasting.

    Numerics: exact; an integer by zero is 0. Source: C's fmod, ONNX Mod (fmod=1).
    """
    numbers("fmod", x, y)
    return s.fmod(x, y)


@fmod.grad
def x(g):
    return g


@fmod.grad
def y(g, x, y):
    return E.negative(g * trunc(x / y))


fmod.sample((3, 4), (4,), low=0.3).sample(Ints((6,), -5, 6), 3)


# ---------------------------------------------------------------- limits


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


def _bound(name, scalar, text):
    def body(x, bound):
        return getattr(s, scalar)(x, bound)

    body.__name__ = name
    body.__doc__ = f"x, {text} a tensor `bound`, with broadcasting. The slope on the bound is x's."
    op = pointwise(internal=True)(body)

    def kept(x, bound):
        return E.greater_equal(x, bound) if scalar == "maximum" else E.less_equal(x, bound)

    @op.grad
    def x(g, x, bound):
        return E.where(kept(x, bound), g, 0.0)

    @op.grad
    def bound(g, x, bound):
        return E.where(kept(x, bound), 0.0, g)

    return op.sample((3, 4), (4,))


clip_low = _bound("clip_low", "maximum", "raised to")
clip_high = _bound("clip_high", "minimum", "lowered to")


@public
def clip_(x, min=None, max=None):
    """x limited to the range from `min` to `max`: numbers, tensors that broadcast, or None for an open side.

    Returns: x's dtype. Numerics: NaN stays NaN; where min is above max the result is max; the slope is x's on
    the bounds, a bound's where it is taken. Source: array API standard 2024.12, ONNX Clip.
    """
    if not isinstance(min, Tensor) and not isinstance(max, Tensor):
        return clip(x, min=min, max=max)
    out = x
    if min is not None:
        out = clip_low(out, min) if isinstance(min, Tensor) else clip(out, min=min)
    if max is not None:
        out = clip_high(out, max) if isinstance(max, Tensor) else clip(out, max=max)
    return out if out.dtype is x.dtype else E.cast(out, dtype=x.dtype)
