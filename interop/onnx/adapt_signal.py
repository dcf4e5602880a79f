"""Importers of Fourier transforms and mel filters."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...core import types as T
from ...core.op import PUBLIC
from ...core.op import REGISTRY as ops
from ...core.ops import fft
from .dtypes import from_code
from .table import adapter


def _signal(x: Any) -> Any:
    """Numbers whose parts are the last axis (of size 1 or 2) as real or complex ones, in float64."""
    x = x.to(T.float64)
    return PUBLIC["view_as_complex"](x) if x.shape[-1] == 2 else ops["squeeze"](x, axis=-1)


def _spectrum(x: Any, length: int | None, axis: int, inverse: int, onesided: int) -> Any:
    dtype, axis = x.dtype, axis % x.ndim
    signal = _signal(x)
    if inverse and onesided:
        return ops["expand_dims"](fft.irfft(signal, length, axis), axis=-1).to(dtype)
    if onesided:
        y = fft.rfft(ops["real"](signal) if signal.dtype.is_complex else signal, length, axis)
    else:
        y = (fft.ifft if inverse else fft.fft)(signal, length, axis)
    return PUBLIC["view_as_real"](y).to(dtype)


def _int(x: Any, default: Any = None) -> Any:
    return default if x is None else int(np.asarray(x).ravel()[0])


@adapter("DFT", since=20, host=("length", "axis"))
def dft(x, length=None, axis=None, *, inverse=0, onesided=0):
    """The discrete Fourier transform along an axis; real and imaginary parts are the last axis."""
    return _spectrum(x, _int(length), _int(axis, -2), inverse, onesided)


@adapter("DFT", since=17, host=("length",))
def dft_17(x, length=None, *, axis=1, inverse=0, onesided=0):
    """The axis as an attribute."""
    return _spectrum(x, _int(length), axis, inverse, onesided)


@adapter("STFT", host=("step", "length"))
def stft(x, step, window=None, length=None, *, onesided=1):
    """Transforms of pieces of a signal: [batch, pieces, frequencies, 2]."""
    size = _int(length, None if window is None else window.shape[0])
    size = x.shape[1] if size is None else size
    signal = ops["squeeze"](x, axis=-1) if x.ndim == 3 and x.shape[-1] == 1 else x
    signal = signal.to(T.float64)
    if signal.ndim == 3:
        signal = PUBLIC["view_as_complex"](signal)
    window = None if window is None else window.to(T.float64)
    onesided = bool(onesided) and not signal.dtype.is_complex
    made = PUBLIC["stft"](signal, size, _int(step), None, window, center=False, onesided=onesided)
    return PUBLIC["view_as_real"](made.swapaxes(1, 2)).to(x.dtype)


@adapter("MelWeightMatrix", host=("bins", "length", "rate", "low", "high"), library="NumPy")
def mel_weight_matrix(bins, length, rate, low, high, *, output_datatype=1):
    """Triangles, evenly spaced in mel, over the frequencies of a transform."""
    bins, length, rate = _int(bins), _int(length), _int(rate)
    mel = lambda hertz: 2595 * np.log10(1 + float(np.asarray(hertz).ravel()[0]) / 700)
    step = (mel(high) - mel(low)) / (bins + 2)  # as ONNX has it: the last corner lies below `high`
    corners = 700 * (np.power(10, (np.arange(bins + 2) * step + mel(low)) / 2595) - 1)
    places = ((length + 1) * corners // rate).astype(np.int64)
    out = np.zeros((length // 2 + 1, bins))
    for k, (start, middle, end) in enumerate(zip(places, places[1:], places[2:])):
        rise = np.arange(start, middle)
        fall = np.arange(middle, end)
        out[rise, k] = (rise - start) / max(1, middle - start)
        out[fall, k] = (end - fall) / max(1, end - middle)
        out[middle, k] = 1
    return out.astype(from_code(output_datatype, "MelWeightMatrix").np)
