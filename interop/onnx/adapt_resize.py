"""Importers of Resize and Upsample: separable interpolation, axis by axis, as weighted picks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...core.op import REGISTRY as ops
from .program import host_tensor
from .table import adapter


def _places(mode: str, n: int, scale: float, m: int, roi: Any) -> np.ndarray:
    """For each of m output positions, its coordinate among n input elements."""
    i = np.arange(m, dtype=np.float64)
    whole = scale * n
    if mode == "align_corners":
        return i * (n - 1) / (whole - 1) if whole != 1 else np.zeros(m)
    if mode == "asymmetric":
        return i / scale
    if mode == "tf_crop_and_resize":
        start, end = roi
        if whole == 1:
            return np.full(m, (start + end) * (n - 1) / 2)
        return start * (n - 1) + i * (end - start) * (n - 1) / (whole - 1)
    if mode == "pytorch_half_pixel" and whole == 1:
        return np.full(m, -0.5)
    x = (i + 0.5) / scale - 0.5
    if mode == "half_pixel_symmetric":
        x += n / 2 * (1 - m / whole)
    return x


def _nearest(x: np.ndarray, mode: str) -> np.ndarray:
    if mode == "floor":
        return np.floor(x)
    if mode == "ceil":
        return np.ceil(x)
    return np.ceil(x - 0.5) if mode == "round_prefer_floor" else np.floor(x + 0.5)


def _kernel(mode: str, a: float) -> tuple[float, Any]:
    """Half width and weight function of an interpolation."""
    if mode == "linear":
        return 1.0, lambda t: np.maximum(0, 1 - np.abs(t))

    def cubic(t):
        t = np.abs(t)
        inner = ((a + 2) * t - (a + 3)) * t * t + 1
        outer = ((t - 5) * t + 8) * t * a - 4 * a
        return np.where(t <= 1, inner, np.where(t < 2, outer, 0.0))

    return 2.0, cubic


def _weights(
    x: np.ndarray, n: int, scale: float, mode: str, a: float, antialias: bool, exclude: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Positions [m, taps] (inside the input) and their weights."""
    half, kernel = _kernel(mode, a)
    stretch = min(scale, 1.0) if antialias else 1.0
    reach = math.floor(half / stretch - 1e-12) + (1 if stretch < 1 else 0)
    low = -reach if stretch < 1 else 1 - int(half)
    high = reach + 1 if stretch < 1 else int(half)
    base = np.floor(x)[:, None]
    taps = base + np.arange(low, high + 1)[None]
    weights = kernel((taps - x[:, None]) * stretch)
    inside = (taps >= 0) & (taps < n)
    if exclude:
        weights = np.where(inside, weights, 0.0)
    weights = weights / weights.sum(axis=1, keepdims=True)
    return np.clip(taps, 0, n - 1).astype(np.int64), weights


def _along(x: Any, axis: int, places: np.ndarray, weights: np.ndarray) -> Any:
    """Weighted sum of picks along one axis."""
    shape = [1] * x.ndim
    shape[axis] = -1
    total = None
    for k in range(places.shape[1]):
        if not weights[:, k].any():
            continue
        w = weights[:, k].astype(x.dtype.np).reshape(shape)
        part = ops["take"](x, host_tensor(places[:, k].copy()), axis=axis) * host_tensor(w)
        total = part if total is None else total + part
    return total


def _resize(
    x: Any, roi: Any, scales: Any, sizes: Any, axes: Any, *, mode: str, where: str, nearest_mode: str, a: float,
    antialias: bool, exclude: bool, value: float, policy: str,
) -> Any:  # fmt: skip
    axes = list(range(x.ndim)) if axes is None else [k % x.ndim for k in axes]
    lengths = [x.shape[k] for k in axes]
    if sizes is not None and np.size(sizes):
        out = [int(v) for v in sizes]
        factors = [o / n for o, n in zip(out, lengths)]
        if policy != "stretch":
            factor = min(factors) if policy == "not_larger" else max(factors)
            factors = [factor] * len(axes)
            out = [math.floor(factor * n + 0.5) for n in lengths]
    else:
        factors = [float(v) for v in scales]
        out = [math.floor(n * f) for n, f in zip(lengths, factors)]
    dtype = x.dtype
    work = x if dtype.is_float or mode == "nearest" else x.to("float32")
    outside = None
    for k, (axis, n, m, factor) in enumerate(zip(axes, lengths, out, factors)):
        region = None if roi is None or not np.size(roi) else (float(roi[k]), float(roi[k + len(axes)]))
        if n == m and factor == 1 and where != "tf_crop_and_resize":
            continue
        places = _places(where, n, factor, m, region)
        if where == "tf_crop_and_resize":
            shape = [1] * x.ndim
            shape[axis] = -1
            away = ((places < 0) | (places > n - 1)).reshape(shape)
            outside = away if outside is None else outside | away
        if mode == "nearest":
            index = np.clip(_nearest(places, nearest_mode), 0, n - 1).astype(np.int64)
            work = ops["take"](work, host_tensor(index), axis=axis)
        else:
            work = _along(work, axis, *_weights(places, n, factor, mode, a, antialias, exclude))
    if outside is not None and outside.any():
        work = ops["where"](host_tensor(outside), value if work.dtype.is_float else int(value), work)
    if work.dtype is not dtype:
        work = ops["cast"](ops["round"](work), dtype=dtype)
    return ops["assign"](work) if work is x else work


@adapter("Resize", since=11, host=("roi", "scales", "sizes"))
def resize(
    x, roi=None, scales=None, sizes=None, *, mode="nearest", coordinate_transformation_mode="half_pixel",
    nearest_mode="round_prefer_floor", cubic_coeff_a=-0.75, antialias=0, exclude_outside=0, extrapolation_value=0.0,
    keep_aspect_ratio_policy="stretch", axes=None,
):  # fmt: skip
    """Nearest, linear or cubic interpolation at other sizes."""
    return _resize(
        x, roi, scales, sizes, axes, mode=mode, where=coordinate_transformation_mode, nearest_mode=nearest_mode,
        a=cubic_coeff_a, antialias=bool(antialias), exclude=bool(exclude_outside), value=extrapolation_value,
        policy=keep_aspect_ratio_policy,
    )  # fmt: skip


def _old(x: Any, scales: Any, mode: str) -> Any:
    return _resize(
        x, None, scales, None, None, mode=mode, where="asymmetric", nearest_mode="floor", a=-0.75,
        antialias=False, exclude=False, value=0.0, policy="stretch",
    )  # fmt: skip


@adapter("Resize", "Upsample", since=9, host=("scales",))
def resize_10(x, scales, *, mode="nearest"):
    """Scales alone."""
    return _old(x, scales, mode)


@adapter("Upsample", since=7)
def upsample_7(x, *, scales, mode="nearest"):
    """Scales as an attribute."""
    return _old(x, scales, mode)
