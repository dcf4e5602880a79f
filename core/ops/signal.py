"""Signals: windows, and the short-time Fourier transform and its inverse, made of other ops."""

from __future__ import annotations

import math

import numpy as np

from .. import dispatch
from .. import types as T
from ..backend import normalize_device
from ..errors import ArgumentError, DtypeError, ShapeError
from ..op import public
from ..strangers import size
from . import fft
from .comparison import where
from .complex import complex_, view_as_real
from .creation import asked, ones
from .padding import pad
from .patches import fold
from .shape import swapaxes
from .views import sliding_window

# ---------------------------------------------------------------- windows


def _window(op, n, periodic, dtype, device, requires_grad, shape):
    """`shape(t)` at n points t of one period, from 0; the last one is 1 where the window is not periodic."""
    n = size(op, "window_length", n, 0)
    dtype = T.default_float if dtype is None else T.as_dtype(dtype, op)
    if not dtype.is_float:
        raise DtypeError(op, f"dtype={dtype} is not a float", "use dg.float32")
    t = np.arange(n) / (n if periodic or n < 2 else n - 1)
    values = np.ones(n) if n == 1 else shape(t)
    made = dispatch.state.executor.constant(dtype.array(values), normalize_device(device or "cpu")).clone()
    return asked(made, requires_grad)


def _cosines(*factors):
    return lambda t: sum((-1) ** k * a * np.cos(2 * np.pi * k * t) for k, a in enumerate(factors))


@public
def hann_window(window_length, periodic=True, dtype=None, device=None, requires_grad=False):
    """`0.5 - 0.5 cos(2 pi k / n)`, k = 0, 1, ...; n is the length, one less where the window is not periodic.

    window_length: elements, from 0; dtype: a float, float32 when left out. Returns: float[window_length].
    Raises: ArgumentError for a negative length, DtypeError for another dtype. Source: PyTorch's hann_window.
    Example: `dg.hann_window(4)` is `[0, 0.5, 1, 0.5]`.
    """
    return _window("hann_window", window_length, periodic, dtype, device, requires_grad, _cosines(0.5, 0.5))


@public
def hamming_window(
    window_length, periodic=True, alpha=0.54, beta=0.46, dtype=None, device=None, requires_grad=False
):
    """`alpha - beta cos(2 pi k / n)`; arguments as those of `hann_window`.

    Source: PyTorch's hamming_window. Example: `dg.hamming_window(2)` is `[0.08, 1]`.
    """
    return _window(
        "hamming_window", window_length, periodic, dtype, device, requires_grad, _cosines(alpha, beta)
    )


@public
def blackman_window(window_length, periodic=True, dtype=None, device=None, requires_grad=False):
    """`0.42 - 0.5 cos(2 pi k / n) + 0.08 cos(4 pi k / n)`; arguments as those of `hann_window`.

    Source: PyTorch's blackman_window. Example: `dg.blackman_window(4)[1:]` is `[0.34, 1, 0.34]`.
    """
    shape = _cosines(0.42, 0.5, 0.08)
    return _window("blackman_window", window_length, periodic, dtype, device, requires_grad, shape)


@public
def bartlett_window(window_length, periodic=True, dtype=None, device=None, requires_grad=False):
    """A triangle, `1 - abs(2 k / n - 1)`; arguments as those of `hann_window`.

    Source: PyTorch's bartlett_window. Example: `dg.bartlett_window(4)` is `[0, 0.5, 1, 0.5]`.
    """
    shape = lambda t: 1 - np.abs(2 * t - 1)
    return _window("bartlett_window", window_length, periodic, dtype, device, requires_grad, shape)


@public
def kaiser_window(window_length, periodic=True, beta=12.0, dtype=None, device=None, requires_grad=False):
    """`i0(beta sqrt(1 - (2 k / n - 1)**2)) / i0(beta)`; arguments as those of `hann_window`.

    i0: the modified Bessel function of order 0. Source: PyTorch's kaiser_window.
    Example: `dg.kaiser_window(2, periodic=False, beta=0.0)` is `[1, 1]`.
    """
    shape = lambda t: np.i0(beta * np.sqrt(np.maximum(0.0, 1 - (2 * t - 1) ** 2))) / np.i0(beta)
    return _window("kaiser_window", window_length, periodic, dtype, device, requires_grad, shape)


# ---------------------------------------------------------------- short-time transforms


def _settings(op, x, n_fft, hop_length, win_length, window):
    """The step and the window of n_fft elements."""
    hop = n_fft // 4 if hop_length is None else hop_length
    length = n_fft if win_length is None else win_length
    if n_fft < 1 or hop < 1 or not 1 <= length <= n_fft:
        raise ArgumentError(
            op,
            f"n_fft={n_fft}, hop_length={hop}, win_length={length} do not fit",
            "use n_fft and hop_length from 1, and win_length from 1 to n_fft",
        )
    if window is None:
        window = ones((length,), dtype=x.dtype.real if x.dtype.is_complex else x.dtype, device=x.device)
    elif window.shape != (length,):
        raise ShapeError(
            op, f"window: {window.type} has not the shape [{length}] of win_length", "give win_length, too"
        )
    left = (n_fft - length) // 2
    return hop, pad(window, padding=((left, n_fft - length - left),)) if length < n_fft else window


@public
def stft(
    x, n_fft, hop_length=None, win_length=None, window=None, center=True, pad_mode="reflect", normalized=False,
    onesided=None, return_complex=True,
):  # fmt: skip
    """The Fourier transforms of pieces of a signal: `sum_k window[k] x[m * hop_length + k] exp(-2 pi i j k / n_fft)`.

    x: float[..., n] or complex[..., n]; n_fft: points of a piece; hop_length: from one piece to the next, a quarter of
        n_fft when None; win_length: elements of the window, n_fft when None, in the middle of zeros; window: ones when
        None; center: x is padded by n_fft // 2 on both sides, as pad_mode says, so that piece m has its middle at
        m * hop_length; normalized: results are divided by the root of n_fft; onesided: of real x and window only the
        frequencies 0 to n_fft // 2 (the default for these).
    Returns: complex[..., frequencies, pieces]; without return_complex its parts as a last axis of 2.
    Raises: ArgumentError where the numbers do not fit each other or x, ShapeError for a window of another length.
    Source: PyTorch's stft. Example: `dg.stft(dg.randn(400), 100).shape` is `(51, 17)`.
    """
    if x.ndim < 1:
        raise ShapeError("stft", f"x: {x.type} is no signal", "pass float[..., n]")
    hop, window = _settings("stft", x, n_fft, hop_length, win_length, window)
    if center:
        half = n_fft // 2
        if pad_mode == "reflect" and half >= x.shape[-1]:
            raise ArgumentError(
                "stft",
                f"n_fft={n_fft} reflects more than x: {x.type} has",
                "use a smaller n_fft or center=False",
            )
        x = pad(x, padding=((0, 0),) * (x.ndim - 1) + ((half, half),), mode=pad_mode)
    if x.shape[-1] < n_fft:
        raise ArgumentError(
            "stft", f"n_fft={n_fft} is more than the {x.shape[-1]} elements there are", "use less"
        )
    pieces = sliding_window(x, axis=-1, size=n_fft, step=hop) * window
    whole = pieces.dtype.is_complex
    if onesided and whole:
        raise ArgumentError("stft", "onesided=True for complex numbers", "leave it out")
    transform = fft.fft if whole or onesided is False else fft.rfft
    made = transform(pieces, n=n_fft, axis=-1, norm="ortho" if normalized else "backward")
    made = swapaxes(made, -1, -2)
    return made if return_complex else view_as_real(made)


@public
def istft(
    x, n_fft, hop_length=None, win_length=None, window=None, center=True, normalized=False, onesided=None,
    length=None, return_complex=False,
):  # fmt: skip
    """The signal of which `stft` with the same settings made x: pieces times the window, over the sum of its squares.

    x: complex[..., frequencies, pieces]; length: elements of the result, else as many as whole pieces give.
    Returns: float[..., length]; complex with return_complex.
    Raises: ArgumentError where the numbers do not fit each other, ShapeError where they do not fit x or the window.
    Numerics: where the squares sum to less than 1e-11 nothing is divided. Source: PyTorch's istft.
    Example: `dg.istft(dg.stft(dg.ones(64), 16), 16).shape` is `(64,)`.
    """
    if x.ndim < 2 or not x.dtype.is_complex:
        raise ShapeError(
            "istft", f"x: {x.type} is not complex[..., frequencies, pieces]", "pass what stft gives"
        )
    hop, window = _settings("istft", x, n_fft, hop_length, win_length, window)
    onesided = not return_complex if onesided is None else onesided
    if x.shape[-2] != (n_fft // 2 + 1 if onesided else n_fft):
        raise ShapeError(
            "istft", f"x: {x.type} has not the frequencies of n_fft={n_fft}, onesided={onesided}",
            "use the settings of the stft",
        )  # fmt: skip
    if onesided and return_complex:
        raise ArgumentError("istft", "onesided=True with return_complex=True", "leave one out")
    norm = "ortho" if normalized else "backward"
    pieces = swapaxes(x, -1, -2)
    pieces = (fft.irfft if onesided else fft.ifft)(pieces, n=n_fft, axis=-1, norm=norm)
    if pieces.dtype.is_complex and not return_complex:
        pieces = pieces.real
    pieces = pieces * window
    count = x.shape[-1]
    whole = n_fft + hop * (count - 1)

    def added(y):
        """Pieces [..., count, n_fft] in their places, one over the other."""
        if y.dtype.is_complex:
            return complex_(added(y.real), added(y.imag))
        lead = y.shape[:-2]
        y = swapaxes(y, -1, -2).reshape(math.prod(lead), n_fft, count)
        return fold(y, size=(whole,), window=n_fft, stride=hop).reshape(*lead, whole)

    weights = added((window * window).expand(count, n_fft))
    signal = added(pieces) / where(weights > 1e-11, weights, 1.0)
    start = n_fft // 2 if center else 0
    stop = whole - start if length is None else start + length
    signal = signal[..., start : max(start, min(stop, whole))]
    return signal if stop <= whole else pad(signal, padding=((0, 0),) * (x.ndim - 2) + ((0, stop - whole),))
