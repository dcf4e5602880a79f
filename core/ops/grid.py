"""Images read at places given by a tensor: grid sampling, the grid of an affine map, deformed convolution."""

from __future__ import annotations

import itertools
import math

import numpy as np

from .. import types as T
from ..errors import ArgumentError, DtypeError, ShapeError
from ..op import composite
from ..room import tables
from .arithmetic import abs_, multiply
from .comparison import cast, where
from .linalg import matmul
from .pooling import pick_pixels
from .resample import constant
from .rounding import clip, floor, remainder, round_
from .shape import transpose
from .slices import slice_
from .views import reshape
from .window import onnx_pads, out_size, pads, row

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


def _weighted(x, by_axis, sizes, zeros):
    """The weighted sum of the elements that the taps of all axes name; `zeros`: those outside count as zeros."""
    total = None
    for corner in itertools.product(*by_axis):
        index, weight, visible = None, None, None
        for (place, w), size in zip(corner, x.shape[2:]):
            if zeros:
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
    return _weighted(x, by_axis, grid.shape[1:-1], padding_mode == "zeros")


grid_sample.sample((2, 3, 4, 5), (2, 3, 2, 2), low=-1.4, high=1.4)
grid_sample.sample((1, 2, 4, 4), (1, 2, 3, 2), low=-1.4, high=1.4, padding_mode="border", align_corners=True)
grid_sample.sample((1, 2, 4, 4), (1, 2, 3, 2), low=-1.4, high=1.4, padding_mode="reflection")
grid_sample.sample((1, 2, 4, 4), (1, 2, 3, 2), low=-0.9, high=0.9, mode="cubic", padding_mode="border")
grid_sample.sample((1, 1, 3, 3, 4), (1, 2, 2, 2, 3), low=-1.2, high=1.2)
grid_sample.error_sample((1, 1, 3, 3), (1, 2, 2, 3), match="does not fit")
grid_sample.error_sample((1, 1, 3, 3), (1, 2, 2, 2), mode="sinc", match="mode='sinc'")


def _base_grid(sizes, align_corners):
    """[positions, axes + 1]: the coordinates (x, y, ...) of every element, and a 1."""
    tables("affine_grid", math.prod(sizes) * (len(sizes) + 1), f"size=(N, C, {', '.join(map(str, sizes))})")
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
    base = constant(theta.dtype.array(_base_grid(sizes, bool(align_corners))), theta)
    return reshape(matmul(base, transpose(theta)), shape=(size[0], *sizes, n))


affine_grid.sample((2, 2, 3), size=(2, 1, 3, 4)).sample((1, 3, 4), size=(1, 1, 2, 3, 2), align_corners=True)
affine_grid.error_sample((1, 2, 2), size=(1, 1, 3, 3), match="does not fit size")


def _onnx_deform(o, x, w, offset, mask, *, stride, padding, dilation, groups, offset_groups):
    o.not_float64(x)
    more = () if mask is None else (None, mask)
    return o.DeformConv(
        x, w, offset, *more, kernel_shape=list(w.shape[2:]), strides=list(stride), pads=onnx_pads(padding),
        dilations=list(dilation), group=groups, offset_group=offset_groups,
    )  # fmt: skip


@composite(onnx=_onnx_deform)
def deform_conv(x, w, offset, mask=None, *, stride=1, padding=0, dilation=1, groups=1, offset_groups=1):
    """`conv` of images whose window elements are moved, each at each position by its own offset, and weighted.

    x: float[N, C, H, W], w: float[K, C/groups, R, S]; offset: float[N, offset_groups * R * S * 2, P, Q], for each
    window element (y, x) in pixels; mask: float[N, offset_groups * R * S, P, Q], factors, or None; stride, padding,
    dilation, groups as of conv; offset_groups: channels in that many parts with offsets of their own.
    Returns: float[N, K, P, Q]. Raises: ShapeError for shapes that do not fit.
    Numerics: reads between pixels are bilinear, zeros outside. Source: ONNX DeformConv, Dai et al. 2017.
    """
    op = "deform_conv"
    n, c, height, width = x.shape
    k, depth, r, s = w.shape
    p, q = (out_size(*axis) for axis in zip(x.shape[2:], w.shape[2:], stride, padding, dilation))
    taps = r * s
    if c != depth * groups or k % groups or c % offset_groups:
        raise ShapeError(
            op, f"x: {x.type} and w: {w.type} do not fit groups={groups} and offset_groups={offset_groups}",
            "check the channels",
        )  # fmt: skip
    for name, t, count in (("offset", offset, 2 * taps), ("mask", mask, taps)):
        if t is not None and t.shape != (n, offset_groups * count, p, q):
            raise ShapeError(
                op,
                f"{name}: {t.type} is not [{n}, {offset_groups * count}, {p}, {q}]",
                "one number a window element",
            )
    window = np.stack(np.meshgrid(np.arange(r) * dilation[0], np.arange(s) * dilation[1], indexing="ij"))
    start = np.stack(np.meshgrid(np.arange(p) * stride[0], np.arange(q) * stride[1], indexing="ij"))
    before = np.array([a for a, _ in padding]).reshape(2, 1, 1, 1)
    base = window.reshape(2, taps, 1, 1) + start.reshape(2, 1, p, q) - before
    base = constant(x.dtype.array(base.transpose(1, 0, 2, 3)), x)
    places = reshape(offset, shape=(n * offset_groups, taps, 2, p, q)) + base
    by_axis = [
        _taps(slice_(places, index=(slice(None), slice(None), axis)), size, "linear", "zeros", True)
        for axis, size in enumerate((height, width))
    ]
    parts = reshape(x, shape=(n * offset_groups, c // offset_groups, height, width))
    columns = _weighted(parts, by_axis, (taps, p, q), True)
    if mask is not None:
        columns = columns * reshape(mask, shape=(n * offset_groups, 1, taps, p, q))
    columns = reshape(columns, shape=(n, groups, depth * taps, p * q))
    filters = reshape(w, shape=(groups, k // groups, depth * taps))
    return reshape(matmul(filters, columns), shape=(n, k, p, q))


@deform_conv.normalize
def _(inputs, stride, padding, dilation, groups, offset_groups):
    op = "deform_conv"
    if any(len(inputs[a].shape) != 4 for a in (0, 1, 2)):
        shapes = [list(x.shape) for x in inputs[:3]]
        raise ShapeError(op, f"takes x, w and offset of four axes, got {shapes}", "add or merge axes")
    for name, value in (("groups", groups), ("offset_groups", offset_groups)):
        if not isinstance(value, int) or value < 1:
            raise ArgumentError(op, f"{name}={value} is not a positive int", "use a divisor of the channels")
    sizes = row(op, "stride", stride, 2), pads(op, padding, 2), row(op, "dilation", dilation, 2)
    return *sizes, groups, offset_groups


deform_conv.sample((1, 2, 4, 5), (3, 2, 2, 2), (1, 8, 3, 4), low=-0.4, high=0.4)
deform_conv.sample(
    (2, 4, 5, 4), (2, 2, 3, 2), (2, 24, 3, 2), (2, 12, 3, 2), low=-0.4, high=0.4, stride=2, padding=((1, 1), (0, 0)),
    groups=2, offset_groups=2,
)  # fmt: skip
deform_conv.error_sample((1, 2, 4, 5), (3, 2, 2, 2), (1, 4, 3, 4), match="offset")
