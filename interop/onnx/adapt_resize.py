"""Importers of Resize and Upsample, GridSample, AffineGrid and Col2Im."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...core.op import REGISTRY as ops
from ...core.ops.resample import resize_integers
from .adapt_convolution import row
from .table import adapter


def _resize(
    x: Any, roi: Any, scales: Any, sizes: Any, axes: Any, *, mode: str, where: str, nearest_mode: str, a: float,
    antialias: bool, exclude: bool, value: float, policy: str,
) -> Any:  # fmt: skip
    axes = list(range(x.ndim)) if axes is None else [k % x.ndim for k in axes]
    lengths = [x.shape[k] for k in axes]
    factors: list[float | None]
    if sizes is not None and np.size(sizes):
        out = [int(v) for v in sizes]
        factors = [None] * len(axes)
        if policy != "stretch":
            ratios = [o / n for o, n in zip(out, lengths)]
            factor = min(ratios) if policy == "not_larger" else max(ratios)
            factors = [factor] * len(axes)
            out = [math.floor(factor * n + 0.5) for n in lengths]
    else:
        factors = [float(v) for v in scales]
        out = [math.floor(n * f) for n, f in zip(lengths, factors)]
    region = roi is not None and np.size(roi) and where == "tf_crop_and_resize"
    kept = [
        k
        for k, (n, m, f) in enumerate(zip(lengths, out, factors))
        if n != m or f not in (None, 1.0) or region
    ]
    if not kept:
        return ops["assign"](x)
    settings = {
        "size": tuple(out[k] for k in kept), "axes": tuple(axes[k] for k in kept),
        "scale": tuple(factors[k] for k in kept), "mode": mode, "coordinates": where, "rounding": nearest_mode,
        "cubic_a": a, "antialias": antialias, "exclude_outside": exclude, "outside": value,
        "roi": tuple(float(roi[k + s]) for s in (0, len(axes)) for k in kept) if region else None,
    }  # fmt: skip
    if x.dtype.is_float or mode == "nearest":
        return ops["resize"](x, **settings)
    return resize_integers(x, **settings)


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


@adapter("Upsample", since=1)
def upsample_1(x, *, height_scale, width_scale, mode="nearest"):
    """A scale for each spatial axis."""
    return _old(x, (1.0, 1.0, height_scale, width_scale), mode)


@adapter("GridSample")
def grid_sample(x, grid, *, mode="linear", padding_mode="zeros", align_corners=0):
    """Images read at the places of a grid."""
    word = {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode)
    return ops["grid_sample"](
        x, grid, mode=word, padding_mode=padding_mode, align_corners=bool(align_corners)
    )


@adapter("AffineGrid", host=("size",))
def affine_grid(theta, size, *, align_corners=0):
    """The grid of an affine map."""
    return ops["affine_grid"](theta, size=tuple(int(n) for n in size), align_corners=bool(align_corners))


@adapter("Col2Im", host=("image_shape", "block_shape"))
def col2im(x, image_shape, block_shape, *, dilations=None, pads=None, strides=None):
    """Windows added up into images."""
    n = len(image_shape)
    pads = row(pads, 2 * n, 0)
    return ops["fold"](
        x, size=tuple(map(int, image_shape)), window=tuple(map(int, block_shape)), stride=tuple(row(strides, n, 1)),
        padding=tuple(zip(pads[:n], pads[n:])), dilation=tuple(row(dilations, n, 1)),
    )  # fmt: skip
