"""Fourier transforms: three ops along one axis, and the functions of NumPy's fft module made of them.

norm says which direction is divided by the number of points: "backward" (the inverse), "ortho" (both, by the
root) or "forward". Every transform is linear, its gradient another one: `conj`-transposed, as PyTorch has it.
"""

# Gradient rules are named after the input they are for, so names repeat here.
# ruff: noqa: F811
from __future__ import annotations

import math

import numpy as np

from .. import types as T
from ..errors import ArgumentError, ArgumentTypeError, DtypeError, ShapeError
from ..op import REGISTRY, primitive
from ..strangers import unfit
from ..types import TensorType, normalize_axis
from ..value import Tensor
from .creation import arange
from .padding import pad
from .shape import concat, slice_


def _along(op, x, axis):
    return normalize_axis(op, axis, len(x.shape), x)


# ---------------------------------------------------------------- ONNX: pairs along a last axis, [..., 1] of real x


def _shaped(h, like, shape):
    h.dtype, h.shape = like.dtype, tuple(shape)
    return h


def _conjugate(o, x):
    return _shaped(o.Mul(x, o.literal(np.asarray([1, -1], x.dtype.np))), x, x.shape)


def _scaled(o, y, scale, shape):
    return _shaped(y if scale == 1 else o.Mul(y, o.const(scale, y.dtype)), y, shape)


def _dft(o, x, axis, inverse, scale):
    """The transform of pairs (or of single parts), scaled."""
    shape = (*x.shape[:-1], 2)
    if any(n == 0 for n in shape):
        return _shaped(o.full(shape, 0, x.dtype), x, shape)
    if o.opset < 17:
        return _scaled(o, _dft_by_products(o, x, axis, inverse, shape), scale, shape)
    alone = len(shape) == 2  # ONNX wants a batch
    y = o.Unsqueeze(x, o.ints((0,))) if alone else x
    axis += alone
    where = {} if o.opset >= 20 else {"axis": axis}
    given = (None, o.literal(np.asarray(axis))) if o.opset >= 20 else ()
    y = o.DFT(y, *given, inverse=int(inverse), **where)
    y = _shaped(o.Squeeze(y, o.ints((0,))) if alone else y, x, shape)
    return _scaled(o, y, o.product(scale, shape[axis - alone]) if inverse else scale, shape)


def _dft_by_products(o, x, axis, inverse, shape):
    """Products with the matrix of cosines and sines, for opsets that have no DFT."""
    n, last = shape[axis], len(shape) - 2
    turns = o.counted(0, 1, n, T.int64)
    places = o.Mul(o.Unsqueeze(turns, o.ints((1,))), o.Unsqueeze(turns, o.ints((0,))))
    places = o.Mod(places, o.const(n, T.int64))
    angles = o.counted(0, o.quotient(2 * math.pi, n), n, T.float64)
    cosines, sines = (o.Gather(o.cast(f(o.cast(angles, x.dtype)), x.dtype), places) for f in (o.Cos, o.Sin))
    order = [a for a in range(last + 1) if a != axis] + [axis]
    back = sorted(range(len(order)), key=order.__getitem__)
    product = lambda k, m: o.MatMul(
        o.Transpose(o.Gather(x, o.literal(np.asarray(k)), axis=last + 1), perm=order), m
    )
    re, im = product(0, cosines), product(0, sines)
    im = im if inverse else o.Neg(im)
    if x.shape[-1] == 2:
        other = product(1, sines)
        re = o.Sub(re, other) if inverse else o.Add(re, other)
        im = o.Add(im, product(1, cosines))
    last = o.ints((-1,))
    return o.Concat(*(o.Unsqueeze(o.Transpose(y, perm=back), last) for y in (re, im)), axis=-1)


def _real(o, x):
    return o.Gather(x, o.literal(np.asarray(0)), axis=len(x.shape) - 1)


def _cut(o, x, axis, start, count, step):
    """A slice along one axis."""
    index = [("s", 0, n, 1) for n in x.shape]
    index[axis] = ("s", start, count, step)
    return _shaped(o.slice(x, index), x, (*x.shape[:axis], count, *x.shape[axis + 1 :]))


def _c2c_onnx(o, x, *, axis, inverse, scale, real):
    y = _dft(o, x, axis % (len(x.shape) - 1), inverse, scale)
    return _real(o, y) if real else y


def _r2c_onnx(o, x, *, axis, inverse, scale, double):
    axis %= len(x.shape) - 1
    n = x.shape[axis]
    y = _dft(o, x, axis, inverse, scale)
    y = _cut(o, y, axis, 0, n // 2 + 1, 1)
    if double:
        k = o.counted(0, 1, n // 2 + 1, T.int64)
        twice = o.And(o.Greater(k, o.const(0, T.int64)), o.Less(k, o.const((n + 1) // 2, T.int64)))
        weights = o.Where(twice, o.const(2, y.dtype), o.const(1, y.dtype))
        behind = range(1, len(y.shape) - axis)
        y = _shaped(o.Mul(y, o.Unsqueeze(weights, o.ints(behind))), y, y.shape)
    return y


def _c2r_onnx(o, x, *, size, axis, inverse, scale, double):
    axis %= len(x.shape) - 1
    m = x.shape[axis]
    half = x if inverse else _conjugate(o, x)
    shape = (*x.shape[:axis], size - m, *x.shape[axis + 1 :])
    if double:
        rest = _conjugate(o, _cut(o, half, axis, (size - 1) // 2, size - m, -1))
    else:
        rest = o.full(shape, 0, x.dtype)
    whole = _shaped(o.Concat(half, rest, axis=axis), x, (*x.shape[:axis], size, *x.shape[axis + 1 :]))
    return _real(o, _dft(o, whole, axis, True, scale))


# ---------------------------------------------------------------- ops along one axis


@primitive(internal=True, complex="own", takes_pairs=True, onnx=_c2c_onnx)
def fft_c2c(x, *, axis, inverse=False, scale=1.0, real=False):
    """`scale * sum_j x[j] exp(-+2 pi i j k / n)` along an axis of complex or real x, with + for the inverse.

    real: the real part of it. Returns: complex of x's precision, or real.
    """
    made = (np.fft.ifft(x, axis=axis, norm="forward") if inverse else np.fft.fft(x, axis=axis)) * scale
    return made.real if real else made


@fft_c2c.type
def _(x, *, axis, inverse, scale, real):
    if not x.dtype.is_complex and not x.dtype.is_float:
        raise DtypeError("fft", f"x: {x} is not of a dtype with a transform", "convert with .to(dg.float32)")
    _along("fft", x, axis)
    return TensorType(x.dtype.real if real else x.dtype.complex, x.shape)


@fft_c2c.grad
def x(g, x_type, axis, inverse, scale):
    return fft_c2c(g, axis=axis, inverse=not inverse, scale=scale, real=not x_type.dtype.is_complex)


@primitive(internal=True, complex="own", takes_pairs=True, onnx=_r2c_onnx)
def fft_r2c(x, *, axis, inverse=False, scale=1.0, double=False):
    """The first n // 2 + 1 frequencies of real x along an axis; the others are their conjugates.

    double: those that stand for two frequencies count twice. Returns: complex.
    """
    made = np.fft.rfft(x, axis=axis) * scale
    made = made.conj() if inverse else made
    if double:
        n = x.shape[axis]
        made[(slice(None),) * axis + (slice(1, (n + 1) // 2),)] *= 2
    return made


@fft_r2c.type
def _(x, *, axis, inverse, scale, double):
    if not x.dtype.is_float:
        raise DtypeError("rfft", f"x: {x} is not a float", "convert with .to(dg.float32)")
    axis = _along("fft_r2c", x, axis)
    return TensorType(x.dtype.complex, (*x.shape[:axis], x.shape[axis] // 2 + 1, *x.shape[axis + 1 :]))


@fft_r2c.grad
def x(g, x_type, axis, inverse, scale, double):
    return fft_c2r(g, size=x_type.shape[axis], axis=axis, inverse=not inverse, scale=scale, double=double)


@primitive(internal=True, complex="own", takes_pairs=True, onnx=_c2r_onnx)
def fft_c2r(x, *, size, axis, inverse=True, scale=1.0, double=True):
    """The real transform of a spectrum of `size` points, of which the first size // 2 + 1 are given.

    double: the others are the conjugates of these, else zero, and the real part is taken. Returns: real.
    """
    half = x if inverse else x.conj()
    if double:
        return np.fft.irfft(half, size, axis=axis, norm="forward") * scale
    padding = [(0, 0)] * x.ndim
    padding[axis] = (0, size - x.shape[axis])
    return np.fft.ifft(np.pad(half, padding), axis=axis, norm="forward").real * scale


@fft_c2r.type
def _(x, *, size, axis, inverse, scale, double):
    if not x.dtype.is_complex:
        raise DtypeError("fft_c2r", f"x: {x} is not complex", "convert with .to(dg.complex64)")
    axis = _along("fft_c2r", x, axis)
    if size < 1 or x.shape[axis] != size // 2 + 1:
        raise ShapeError(
            "fft_c2r", f"x: {x} has no {size // 2 + 1} frequencies on axis {axis}", "cut it or pad it"
        )
    return TensorType(x.dtype.real, (*x.shape[:axis], size, *x.shape[axis + 1 :]))


@fft_c2r.grad
def x(g, axis, inverse, scale, double):
    return fft_r2c(g, axis=axis, inverse=not inverse, scale=scale, double=double)


def _example(*shape):
    rng = np.random.default_rng(len(shape))
    return (rng.uniform(-1, 1, shape) + 1j * rng.uniform(-1, 1, shape)).astype(np.complex64)


# Complex results are not differentiated by the tests of samples: tests/test_fft_peers.py does it.
fft_c2c.sample((3, 5), axis=0, inverse=True, real=True).sample(_example(3, 8), axis=1)
fft_c2c.sample(_example(6, 4), axis=0, inverse=True, scale=0.5).sample(_example(2, 7, 3), axis=1)
fft_c2c.sample(_example(37), axis=0).sample(_example(0, 4), axis=1).sample((3, 5), axis=1, grad=False)
fft_c2c.sample(_example(5), axis=0, real=True)
fft_r2c.sample((3, 8), axis=1, grad=False).sample((7, 2), axis=0, double=True, grad=False)
fft_r2c.sample((2, 6), axis=1, inverse=True, double=True, grad=False)
fft_c2r.sample(_example(3, 5), size=8, axis=1).sample(_example(4, 2), size=7, axis=0, double=False)
fft_c2r.sample(_example(2, 4), size=6, axis=1, inverse=False)


# ---------------------------------------------------------------- settings


def _scale(op, norm, n, inverse):
    if norm not in (None, "backward", "ortho", "forward"):
        raise ArgumentError(op, f"norm={norm!r}", 'use "backward", "ortho" or "forward"')
    if norm == "ortho":
        return 1 / math.sqrt(n)
    return 1 / n if (norm == "forward") != inverse else 1.0


def _points(op, n):
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)):
        raise ArgumentTypeError(op, f"n={n!r} is not an integer", "pass the number of points")
    if n < 1:
        raise ArgumentError(
            op, f"n={n} is not a number of points", "pass an n of 1 or more; an empty axis has no transform"
        )
    return int(n)


def _floats(x):
    return x if x.dtype.is_complex or x.dtype.is_float else x.to(T.default_float)


def _complex(x):
    return x if x.dtype.is_complex else REGISTRY["cast"](x, dtype=x.dtype.complex)


def _sized(x, axis, n):
    """x cut or filled up with zeros to n points along an axis."""
    size = x.shape[axis]
    if n == size:
        return x
    if n < size:
        return slice_(x, index=(slice(None),) * axis + (slice(0, n),))
    padding = [(0, 0)] * x.ndim
    padding[axis] = (0, n - size)
    return pad(x, padding=tuple(padding))


def _c2c(op, x, n, axis, norm, inverse):
    x = _floats(x)
    axis = _along(op, x, axis)
    n = _points(op, x.shape[axis] if n is None else n)
    return fft_c2c(_sized(x, axis, n), axis=axis, inverse=inverse, scale=_scale(op, norm, n, inverse))


def _r2c(op, x, n, axis, norm, inverse):
    x = _floats(x)
    if x.dtype.is_complex:
        raise DtypeError(op, f"x: {x.type} is complex", "use dg.fft.fft, or pass its real part")
    axis = _along(op, x, axis)
    n = _points(op, x.shape[axis] if n is None else n)
    return fft_r2c(_sized(x, axis, n), axis=axis, inverse=inverse, scale=_scale(op, norm, n, inverse))


def _c2r(op, x, n, axis, norm, inverse):
    x = _complex(_floats(x))
    axis = _along(op, x, axis)
    n = _points(op, max(0, 2 * (x.shape[axis] - 1)) if n is None else n)
    half = _sized(x, axis, n // 2 + 1)
    return fft_c2r(half, size=n, axis=axis, inverse=inverse, scale=_scale(op, norm, n, inverse))


# ---------------------------------------------------------------- one axis


def fft(x, n=None, axis=-1, norm="backward"):
    """The discrete Fourier transform `sum_j x[j] exp(-2 pi i j k / n)` along an axis.

    x: any number dtype; n: points, x is cut or filled up with zeros; norm: see the module. Returns: complex, of x's
    precision (complex64 for integers). Raises: ArgumentError for an empty axis or another norm.
    Numerics: radix 4, 2 and odd primes to 31; other lengths by Bluestein. Source: array API fft.
    """
    return _c2c("fft", x, n, axis, norm, False)


def ifft(x, n=None, axis=-1, norm="backward"):
    """The inverse of `fft`: `sum_k x[k] exp(2 pi i j k / n) / n`."""
    return _c2c("ifft", x, n, axis, norm, True)


def rfft(x, n=None, axis=-1, norm="backward"):
    """`fft` of real x: frequencies 0 to n // 2, the others are their conjugates."""
    return _r2c("rfft", x, n, axis, norm, False)


def irfft(x, n=None, axis=-1, norm="backward"):
    """The inverse of `rfft`: n real points (2 (m - 1) of m frequencies when None) of n // 2 + 1 frequencies."""
    return _c2r("irfft", x, n, axis, norm, True)


def hfft(x, n=None, axis=-1, norm="backward"):
    """`fft` of a signal that is Hermitian in time, given by its first n // 2 + 1 points: n real frequencies."""
    return _c2r("hfft", x, n, axis, norm, False)


def ihfft(x, n=None, axis=-1, norm="backward"):
    """The inverse of `hfft`: the first n // 2 + 1 points."""
    return _r2c("ihfft", x, n, axis, norm, True)


# ---------------------------------------------------------------- several axes


def _plan(op, x, s, axes):
    """Axes and their points; None for what is as in x."""
    if s is not None and (isinstance(s, Tensor) or not hasattr(s, "__len__")):
        raise ArgumentTypeError(op, *unfit("s", s, "a row of integers"))
    if axes is None:
        axes = range(x.ndim) if s is None else range(x.ndim - len(s), x.ndim)
    axes = [_along(op, x, a) for a in axes]
    s = [None] * len(axes) if s is None else [None if n == -1 else n for n in s]
    if len(s) != len(axes):
        raise ArgumentError(
            op, f"s={s} and axes={axes} differ in length", "give one number of points for each axis"
        )
    return list(zip(axes, s))


def fftn(x, s=None, axes=None, norm="backward"):
    """`fft` along several axes (all when None). s: points for each; the last ones when axes is None."""
    for axis, n in _plan("fftn", x, s, axes):
        x = _c2c("fftn", x, n, axis, norm, False)
    return _complex(x)


def ifftn(x, s=None, axes=None, norm="backward"):
    """The inverse of `fftn`."""
    for axis, n in _plan("ifftn", x, s, axes):
        x = _c2c("ifftn", x, n, axis, norm, True)
    return _complex(x)


def _last(op, x, s, axes):
    plan = _plan(op, x, s, axes)
    if not plan:
        raise ArgumentError(op, "has no axis", "name one axis or more")
    return plan[:-1], plan[-1]


def rfftn(x, s=None, axes=None, norm="backward"):
    """`rfft` along the last of several axes, then `fft` along the others."""
    rest, (axis, n) = _last("rfftn", x, s, axes)
    x = _r2c("rfftn", x, n, axis, norm, False)
    for axis, n in reversed(rest):
        x = _c2c("rfftn", x, n, axis, norm, False)
    return x


def irfftn(x, s=None, axes=None, norm="backward"):
    """The inverse of `rfftn`: `ifft` along all axes but the last of them, then `irfft`."""
    rest, (last, size) = _last("irfftn", x, s, axes)
    for axis, n in rest:
        x = _c2c("irfftn", x, n, axis, norm, True)
    return _c2r("irfftn", x, size, last, norm, True)


def fft2(x, s=None, axes=(-2, -1), norm="backward"):
    """`fftn` along two axes."""
    return fftn(x, s, axes, norm)


def ifft2(x, s=None, axes=(-2, -1), norm="backward"):
    """`ifftn` along two axes."""
    return ifftn(x, s, axes, norm)


def rfft2(x, s=None, axes=(-2, -1), norm="backward"):
    """`rfftn` along two axes."""
    return rfftn(x, s, axes, norm)


def irfft2(x, s=None, axes=(-2, -1), norm="backward"):
    """`irfftn` along two axes."""
    return irfftn(x, s, axes, norm)


# ---------------------------------------------------------------- frequencies


def fftfreq(n, d=1.0, dtype=None, device=None):
    """The frequencies of `fft` in cycles per unit: `[0, 1, ..., -2, -1] / (n d)`, d: the distance of points."""
    n = _points("fftfreq", n)
    dtype = T.default_float if dtype is None else T.as_dtype(dtype, "fftfreq")
    half = (n + 1) // 2
    whole = concat([arange(0, half, device=device), arange(-(n // 2), 0, device=device)], axis=0)
    return whole.to(dtype) / (n * d)


def rfftfreq(n, d=1.0, dtype=None, device=None):
    """The frequencies of `rfft` in cycles per unit: `[0, 1, ..., n // 2] / (n d)`."""
    n = _points("rfftfreq", n)
    dtype = T.default_float if dtype is None else T.as_dtype(dtype, "rfftfreq")
    return arange(0, n // 2 + 1, device=device).to(dtype) / (n * d)


def _shifted(op, x, axes, inverse):
    axes = range(x.ndim) if axes is None else [axes] if isinstance(axes, int) else axes
    for axis in [_along(op, x, a) for a in axes]:
        n = x.shape[axis]
        cut = n // 2 if inverse else (n + 1) // 2
        before = (slice(None),) * axis
        x = concat(
            [slice_(x, index=(*before, slice(cut, n))), slice_(x, index=(*before, slice(0, cut)))], axis=axis
        )
    return x


def fftshift(x, axes=None):
    """x with frequency 0 moved to the middle of the axes (all when None)."""
    return _shifted("fftshift", x, axes, False)


def ifftshift(x, axes=None):
    """The inverse of `fftshift`."""
    return _shifted("ifftshift", x, axes, True)


NAMES = (
    "fft", "fft2", "fftfreq", "fftn", "fftshift", "hfft", "ifft", "ifft2", "ifftn", "ifftshift", "ihfft", "irfft",
    "irfft2", "irfftn", "rfft", "rfft2", "rfftfreq", "rfftn",
)  # fmt: skip
