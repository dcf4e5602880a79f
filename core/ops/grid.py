"""Images read at places given by a tensor: grid sampling, and the grid of an affine map."""

from __future__ import annotations

import itertools
import math

import numpy as np

from .. import types as T
from ..errors import ArgumentError, DtypeError, ShapeError
from ..op import composite
from .arithmetic import abs_, multiply
from .comparison import cast, where
from .linalg import matmul
from .pooling import pick_pixels
from .resample import constant
from .rounding import clip, floor, remainder, round_
from .shape import transpose
from .slices import slice_
from .views import reshape

_A = -0.75  # the coefficient of cubic interpolation


def _reflected(x, low, span):
    """x mirrored at low and low + span until it is between them."""
    if span == 0:
        return x * 0.0
    away = abs_(x - low)
    extra = remainder(away, float(span))
    return where(remainder(floor(away / span), 2.0) == 0, extra + low, span + low - extra)


def _inside(x, n, padding_mode, align_corners):
    """A coordinate brought into the image as the padding mode says."""
    if padding_mode == "zeros":
        return x
    if padding_mode == "reflection":
        x = _reflected(x, 0.0, n - 1) if align_corners else _reflected(x, -0.5, n)
    return clip(x, min=0.0, max=float(n - 1))


def _cubic_weights(t):
    """Weights of the elements at -1, 0, 1 and 2 from the one before, t past it."""

    def near(d):
        return ((_A + 2) * d - (_A + 3)) * d * d + 1

    def far(d):
        return ((d - 5) * d + 8) * d * _A - 4 * _A

    return far(t + 1), near(t), near(1 - t), far(2 - t)


def _taps(x, n, mode, padding_mode, align_corners):
    """Along one axis: (coordinate, weight or None) of the elements that a result is made of."""
    if mode == "cubic":
        base = floor(x)
        places = [_inside(base + k, n, padding_mode, align_corners) for k in (-1.0, 0.0, 1.0, 2.0)]
        return list(zip(places, _cubic_weights(x - base)))
    x = _inside(x, n, padding_mode, align_corners)
    if mode == "nearest":
        return [(round_(x), None)]
    base = floor(x)
    return [(base, base + 1.0 - x), (base + 1.0, x - base)]


def _onnx_grid_sample(o, x, grid, *, mode, padding_mode, align_corners):
    o.needs(20)  # the modes had other names before
    return o.GridSample(x, grid, mode=mode, padding_mode=padding_mode, align_corners=int(align_corners))


@composite(onnx=_onnx_grid_sample)
def grid_sample(x, grid, *, mode="linear", padding_mode="zeros", align_corners=False):
    """x read at the places of a grid, whose coordinates run from -1 to 1 over the image.

    x: float[N, C, H, W] or float[N, C, D, H, W], grid: float[N, ..., 2 or 3] with as many axes, its last one (x, y)
    or (x, y, z); mode: "linear", "nearest" or (two axes) "cubic"; padding_mode: "zeros" outside, "border" (the
    nearest element) or "reflection"; align_corners: -1 and 1 are the centres of the first and last elements, not
    their outer edges. Returns: float[N, C, ...] with the grid's sizes.
    Raises: ShapeError, DtypeError, ArgumentError.
    Numerics: nearest rounds halves to even; a NaN place gives NaN. The gradients for x and grid are those of the
    sum that is computed; on a kink that of the side above. Source: ONNX GridSample, Jaderberg et al. 2015.
    Example: `dg.grid_sample(dg.ones((1, 1, 4, 4)), dg.zeros((1, 2, 3, 2))).shape` is `(1, 1, 2, 3)`.
    """
    op = "grid_sample"
    n = x.ndim - 2
    if n not in (2, 3) or grid.ndim != x.ndim or grid.shape[-1] != n or grid.shape[0] != x.shape[0]:
        raise ShapeError(
            op,
            f"grid: {grid.type} does not fit x: {x.type}",
            "x[N, C, H, W] takes grid[N, P, Q, 2], one more axis each 3",
        )
    if x.dtype is not grid.dtype or not x.dtype.is_float:
        raise DtypeError(
            op, f"takes floats of one dtype, got {x.type} and {grid.type}", "convert with .to(dtype)"
        )
    if mode not in ("linear", "nearest", "cubic") or (mode == "cubic" and n != 2):
        raise ArgumentError(
            op, f"mode={mode!r} over {n} axes", 'use "linear", "nearest" or (two axes) "cubic"'
        )
    if padding_mode not in ("zeros", "border", "reflection"):
        raise ArgumentError(op, f"padding_mode={padding_mode!r}", 'use "zeros", "border" or "reflection"')
    if 0 in x.shape[2:]:
        raise ShapeError(op, f"x: {x.type} has an empty spatial axis", "give it elements")
    by_axis = []
    for axis, size in enumerate(x.shape[2:]):
        along = slice_(grid, index=(Ellipsis, n - 1 - axis))
        place = (along + 1.0) * (0.5 * (size - 1)) if align_corners else ((along + 1.0) * size - 1.0) * 0.5
        by_axis.append(_taps(place, size, mode, padding_mode, align_corners))
    sizes = grid.shape[1:-1]
    total = None
    for corner in itertools.product(*by_axis):
        index, weight, visible = None, None, None
        for (place, w), size in zip(corner, x.shape[2:]):
            if padding_mode == "zeros":
                seen = (place >= 0.0) & (place <= size - 1.0)
                visible = seen if visible is None else visible & seen
            digit = cast(clip(place, min=0.0, max=float(size - 1)), dtype=T.int64)
            index = digit if index is None else index * size + digit
            if w is not None:
                weight = w if weight is None else multiply(weight, w)
        if visible is not None:
            weight = cast(visible, dtype=x.dtype) if weight is None else where(visible, weight, 0.0)
        shape = (x.shape[0], 1, *sizes)
        part = pick_pixels(x, reshape(index, shape=shape))
        part = part if weight is None else part * reshape(weight, shape=shape)
        total = part if total is None else total + part
    return total


grid_sample.sample((2, 3, 4, 5), (2, 3, 2, 2), low=-1.4, high=1.4)
grid_sample.sample((1, 2, 4, 4), (1, 2, 3, 2), low=-1.4, high=1.4, padding_mode="border", align_corners=True)
grid_sample.sample((1, 2, 4, 4), (1, 2, 3, 2), low=-1.4, high=1.4, padding_mode="reflection")
grid_sample.sample((1, 2, 4, 4), (1, 2, 3, 2), low=-0.9, high=0.9, mode="cubic", padding_mode="border")
grid_sample.sample((1, 1, 3, 3, 4), (1, 2, 2, 2, 3), low=-1.2, high=1.2)
grid_sample.error_sample((1, 1, 3, 3), (1, 2, 2, 3), match="does not fit")
grid_sample.error_sample((1, 1, 3, 3), (1, 2, 2, 2), mode="sinc", match="mode='sinc'")


def _base_grid(sizes, align_corners):
    """[positions, axes + 1]: the coordinates (x, y, ...) of every element, and a 1."""
    lines = []
    for n in sizes:
        line = np.linspace(-1.0, 1.0, n) if n > 1 else np.zeros(n)
        lines.append(line if align_corners else line * (n - 1) / n)
    axes = [a.reshape(-1) for a in np.meshgrid(*lines, indexing="ij")]
    return np.stack([*reversed(axes), np.ones(math.prod(sizes))], axis=1)


@composite
def affine_grid(theta, *, size, align_corners=False):
    """The grid with which `grid_sample` applies affine maps, `grid = theta (x, y, 1)`.

    theta: float[N, 2, 3] or float[N, 3, 4]; size: (N, C, H, W) or (N, C, D, H, W) of the image to be made;
    align_corners: as of grid_sample. Returns: float[N, H, W, 2] or float[N, D, H, W, 3].
    Raises: ShapeError for a theta that does not fit. Source: ONNX AffineGrid.
    Example: `dg.affine_grid(dg.ones((1, 2, 3)), size=(1, 1, 4, 5)).shape` is `(1, 4, 5, 2)`.
    """
    sizes = tuple(size)[2:]
    n = len(sizes)
    if n not in (2, 3) or theta.shape != (size[0], n, n + 1) or min(sizes) < 1:
        raise ShapeError(
            "affine_grid",
            f"theta: {theta.type} does not fit size={tuple(size)}",
            "size (N, C, H, W) takes float[N, 2, 3]",
        )
    if not theta.dtype.is_float:
        raise DtypeError("affine_grid", f"takes floats, got {theta.type}", "convert with .to(dg.float32)")
    base = constant(_base_grid(sizes, bool(align_corners)).astype(theta.dtype.np), theta)
    return reshape(matmul(base, transpose(theta)), shape=(size[0], *sizes, n))


affine_grid.sample((2, 2, 3), size=(2, 1, 3, 4)).sample((1, 3, 4), size=(1, 1, 2, 3, 2), align_corners=True)
affine_grid.error_sample((1, 2, 2), size=(1, 1, 3, 3), match="does not fit size")
