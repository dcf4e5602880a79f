"""Whether two results agree: in dtype and shape, and in numbers within a tolerance."""

from __future__ import annotations

from typing import Any

import numpy as np

#: relative and absolute tolerance (the latter times the largest magnitude), by dtype: sums in another order; between
#: ops of 16 bits onnxruntime does not round
TOLERANCE = {
    "float16": (4e-3, 2e-3), "bfloat16": (3e-2, 2e-2), "float32": (1e-4, 1e-5), "float64": (1e-9, 1e-11),
}  # fmt: skip


def differs_in_kind(want: np.ndarray, got: Any) -> str:
    got = np.asarray(got)
    if got.dtype != want.dtype or got.shape != want.shape:
        return f"{got.dtype}{list(got.shape)} instead of {want.dtype}{list(want.shape)}"
    return ""


def is_odd(array: np.ndarray) -> bool:
    """Whether NaN or an infinity is among floats."""
    if array.dtype.name not in TOLERANCE:
        return False
    with np.errstate(all="ignore"):
        return not bool(np.isfinite(array).all())


def coarsest(*names: str) -> str:
    """The least precise of float dtypes by name; other names, and none, are exact."""
    return max(names, key=lambda n: TOLERANCE.get(n, (0.0,))[0], default="")


def differs(want: np.ndarray, got: Any, grain: str = "") -> str:
    """How two results differ, in words; an empty string when they agree.

    grain: a float dtype that they have come through (`replay.grains`): the tolerance is that of the coarser one.
    """
    if why := differs_in_kind(want, got):
        return why
    got = np.asarray(got)
    if want.dtype.name not in TOLERANCE:
        bad = int((want != got).sum())
        return f"{bad} of {want.size} elements differ" if bad else ""
    rtol, atol = TOLERANCE[coarsest(want.dtype.name, grain)]
    if want.dtype.itemsize == 2:
        want, got = want.astype(np.float64), got.astype(np.float64)
    finite = np.abs(want[np.isfinite(want)])
    scale = max(1.0, float(finite.max())) if finite.size else 1.0
    if np.allclose(got, want, rtol, atol * scale, equal_nan=True):
        return ""
    with np.errstate(all="ignore"):
        worst = np.fmax.reduce(np.abs(got.astype(np.float64) - want), axis=None, initial=0.0)
    alone = int((np.isnan(got) != np.isnan(want)).sum())
    return f"largest difference {worst:.3g}" + (f", {alone} of {want.size} NaN in one alone" if alone else "")


def apart(want: np.ndarray, got: Any) -> np.ndarray:
    """How far each element is off; 0 within the tolerance, infinity where one is NaN or infinite and the other not."""
    rtol, atol = TOLERANCE[want.dtype.name]
    a, b = want.astype(np.float64), np.asarray(got, np.float64)
    finite = np.abs(a[np.isfinite(a)])
    close = np.isclose(b, a, rtol, atol * max(1.0, float(finite.max(initial=0))), equal_nan=True)
    with np.errstate(all="ignore"):
        off = np.abs(b - a)
    return np.where(close, 0.0, np.where(np.isfinite(a) & np.isfinite(b), off, np.inf))


def unlike(want: np.ndarray, got: Any) -> np.ndarray:
    """Which elements differ by more than the tolerance."""
    return apart(want, got) > 0 if want.dtype.name in TOLERANCE else want != np.asarray(got)
