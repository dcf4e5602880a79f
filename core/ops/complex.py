"""Complex numbers: their parts, and complex from real.

Gradients of complex tensors follow PyTorch: the gradient of a real L with respect to z = a + bi is
`dL/da + i dL/db`. Rules of holomorphic ops are written as for real numbers; the reverse walk conjugates.
"""

# Gradient rules are named after the input they are for, so names repeat here.
# ruff: noqa: F811
from __future__ import annotations

from .. import types as T
from ..errors import DtypeError, ShapeError
from ..op import Ints, pointwise, public
from ..scalar import s
from .arithmetic import square
from .comparison import where
from .creation import zeros_like
from .shape import stack


@pointwise(conjugate=False)
def real(x):
    """The real part of x; x itself when it is real.

    Returns: float32 for complex64, float64 for complex128, else x's dtype; in new memory.
    """
    return s.real(x)


@real.grad
def x(g):
    return g


@pointwise(conjugate=False)
def imag(x):
    """The imaginary part of x; zeros when x is real. Returns: as `real`."""
    return s.imag(x)


@imag.grad
def x(g, x_type):
    return g * 1j if x_type.dtype.is_complex else zeros_like(g)


@pointwise(conjugate=False)
def conj(x):
    """The complex conjugate; x itself when it is real."""
    return s.conj(x)


@conj.grad
def x(g):
    return conj(g)


@pointwise(to_float=True, conjugate=False)
def angle(x):
    """The angle of x in the complex plane, in radians from -pi to pi; 0 or pi when x is real.

    Numerics: a real -0 has the angle 0, as in PyTorch (NumPy: pi); the sign of a zero imaginary part chooses
    between pi and -pi; NaN stays NaN. The gradient at 0 is 0.
    """
    return s.angle(x)


@angle.grad
def x(g, x):
    if not x.dtype.is_complex:
        return zeros_like(g)
    size = square(real(x)) + square(imag(x))
    return where(size == 0, 0.0, g * (x * 1j) / where(size == 0, 1.0, size))


@pointwise(name="complex", conjugate=False)
def complex_(re, im):
    """`re + im * 1j` from two real tensors that broadcast. Returns: complex64, complex128 when one is float64.

    Raises: DtypeError for complex operands. Numerics: unlike the formula, an infinite `im` leaves `re` as it is.
    """
    if re.dtype.is_complex or im.dtype.is_complex:
        raise DtypeError("complex", "takes real parts", "use x + y * 1j for complex numbers")
    re, im = (x if x.dtype.is_float else s.cast(x, T.default_float) for x in (re, im))
    return s.complex(re, im)


@complex_.grad
def re(g):
    return real(g)


@complex_.grad
def im(g):
    return imag(g)


complex_.sample((3, 4), (4,)).sample((3,), 0.5).sample(Ints((3,)), 2)


@public
def view_as_real(x):
    """The parts of a complex tensor along a new last axis of size 2, in new memory.

    x: complex[...]. Returns: float[..., 2]. Raises: DtypeError for a real x.
    """
    if not x.dtype.is_complex:
        raise DtypeError("view_as_real", f"takes complex numbers, got x: {x.type}", "x is real already")
    return stack((real(x), imag(x)), axis=-1)


@public
def view_as_complex(x):
    """A complex tensor from parts along the last axis, in new memory.

    x: float[..., 2]. Returns: complex[...]. Raises: ShapeError when the last axis is not of size 2.
    """
    if not x.dtype.is_float:
        raise DtypeError("view_as_complex", f"takes floats, got x: {x.type}", "convert with .to(dg.float32)")
    if not x.shape or x.shape[-1] != 2:
        raise ShapeError(
            "view_as_complex", f"x: {x.type} does not end in an axis of 2 parts", "use dg.complex"
        )
    return complex_(x[..., 0], x[..., 1])


for _op in (real, imag, conj, angle):
    _op.sample((3, 4), low=0.5, high=2.0)


@public
def is_complex(x):
    """Whether a tensor is complex."""
    return x.dtype.is_complex


@public
def polar(abs, angle):
    """Complex numbers from modulus and angle: `abs * cos(angle) + abs * sin(angle) * 1j`."""
    from .trigonometry import cos, sin

    return complex_(abs * cos(angle), abs * sin(angle))
