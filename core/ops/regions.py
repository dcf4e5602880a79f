"""Regions of images at a fixed size, by bilinear samples."""

from __future__ import annotations

import numpy as np

from .. import types as T
from ..errors import ArgumentError, DtypeError, ShapeError
from ..op import composite, public
from ..value import Tensor
from . import elementwise as E
from .creation import arange_from, full
from .joining import concat
from .picking import take
from .reduction import max_, sum_
from .shape import expand_dims, permute, reshape

_MODES = ("avg", "max")


def _onnx(o, x, rois, images, *, output_size, spatial_scale, sampling_ratio, most, aligned, mode):
    o.needs(16)  # no choice of corners before
    corners = "half_pixel" if aligned else "output_half_pixel"
    return o.RoiAlign(
        x, rois, o.cast(images, T.int64), mode=mode, output_height=output_size[0], output_width=output_size[1],
        sampling_ratio=sampling_ratio, spatial_scale=spatial_scale, coordinate_transformation_mode=corners,
    )  # fmt: skip


def _corners(rois, spatial_scale, aligned):
    """Start of each region along y and x, and its length there."""
    corners = rois * spatial_scale - (0.5 if aligned else 0.0)
    x0, y0, x1, y1 = (corners[:, k] for k in range(4))
    tall, wide = y1 - y0, x1 - x0
    if not aligned:  # regions of no size become one pixel
        tall, wide = E.maximum(tall, 1.0), E.maximum(wide, 1.0)
    return y0, x0, tall, wide


def _counts(length, bins):
    """How many samples a bin takes where no number is given."""
    return E.maximum(E.ceil(length / bins), 0.0)


def _axis(start, length, bins, each, most, n):
    """Where one axis is sampled, [R, bins, most]: lower place, upper place, share of the upper, whether it counts."""

    def spread(v):
        return reshape(v, shape=(-1, 1, 1))

    def count(size):
        return arange_from(0, 1, size=size, dtype=start.dtype, device=start.device)

    step, at = reshape(count(most), shape=(1, 1, -1)), reshape(count(bins), shape=(1, -1, 1))
    size = spread(length) / bins
    place = spread(start) + at * size + (step + 0.5) * (size / spread(E.maximum(each, 1.0)))
    inside = E.logical_and(E.greater_equal(place, -1.0), E.less_equal(place, float(n)))
    inside = E.logical_and(inside, E.less(step, spread(each)))
    place = E.clip(place, min=0.0, max=float(n - 1))
    low = E.minimum(E.floor(place), float(max(0, n - 2)))
    return low.to(T.int64), E.minimum(low + 1.0, float(n - 1)).to(T.int64), place - low, inside


@composite(name="align_regions", internal=True, onnx=_onnx)
def align_regions(
    x, rois, images, *, output_size, spatial_scale=1.0, sampling_ratio=1, most=None, aligned=False, mode="avg"
):
    """`roi_align` of regions [R, 4] of the images int[R]; most: the largest numbers of samples along y and x."""
    op = "align_regions"
    if x.ndim != 4 or not x.dtype.is_float or 0 in x.shape[2:]:
        raise ShapeError(op, f"x: {x.type} is not float[N, C, H, W] with pixels", "give it four axes")
    if rois.ndim != 2 or rois.shape[1] != 4 or images.shape != rois.shape[:1]:
        raise ShapeError(
            op, f"rois: {rois.type} and images: {images.type} do not fit", "rois[R, 4], images[R]"
        )
    if rois.dtype is not x.dtype or not images.dtype.is_integer:
        raise DtypeError(op, f"rois: {rois.type} and images: {images.type}", f"use {x.dtype} and int64")
    (n, c, h, w), (height, width) = x.shape, output_size
    y0, x0, tall, wide = _corners(rois, spatial_scale, aligned)
    if sampling_ratio > 0:
        each_y = each_x = full((rois.shape[0],), float(sampling_ratio), x.dtype, x.device)
        most = sampling_ratio, sampling_ratio
    else:
        each_y, each_x = _counts(tall, height), _counts(wide, width)
    low_y, high_y, share_y, in_y = _axis(y0, tall, height, each_y, most[0], h)
    low_x, high_x, share_x, in_x = _axis(x0, wide, width, each_x, most[1], w)
    # Pixels as rows of channels; places are [R, height, most, width, most].
    rows = reshape(permute(x, axes=(0, 2, 3, 1)), shape=(n * h * w, c))

    def down(v):
        return reshape(v, shape=(*v.shape, 1, 1))

    def across(v):
        return reshape(v, shape=(v.shape[0], 1, 1, *v.shape[1:]))

    first = reshape(images.to(T.int64) * (h * w), shape=(-1, 1, 1, 1, 1))
    inside = expand_dims(E.logical_and(down(in_y), across(in_x)), axis=-1)
    total = None
    for place_y, weight_y in ((low_y, 1.0 - share_y), (high_y, share_y)):
        for place_x, weight_x in ((low_x, 1.0 - share_x), (high_x, share_x)):
            pixels = take(rows, first + down(place_y) * w + across(place_x), axis=0)
            part = pixels * expand_dims(down(weight_y) * across(weight_x), axis=-1)
            if total is None:
                total = part
            else:
                total = E.maximum(total, part) if mode == "max" else total + part
    seen = E.where(inside, total, 0.0)
    if mode == "max":
        y = max_(seen, axis=(2, 4))
    else:
        number = E.maximum(reshape(each_y * each_x, shape=(-1, 1, 1, 1)), 1.0)
        y = sum_(seen, axis=(2, 4)) / number
    return permute(y, axes=(0, 3, 1, 2))


_ROIS = np.array([[0.4, 0.6, 3.1, 3.7], [-1.2, 0.3, 1.9, 2.6], [2.2, 1.1, 2.3, 1.4]])
_IMAGES = np.array([0, 1, 1])
align_regions.sample((2, 3, 4, 5), _ROIS, _IMAGES, output_size=(2, 3), sampling_ratio=2)
align_regions.sample(
    (2, 1, 5, 4), _ROIS, _IMAGES, output_size=(2, 2), sampling_ratio=0, most=(2, 2), aligned=True
)
align_regions.error_sample((2, 3, 4), _ROIS, _IMAGES, output_size=(2, 2), match="is not float[N, C, H, W]")


@public
def roi_align(x, boxes, output_size, spatial_scale=1.0, sampling_ratio=-1, aligned=False, mode="avg"):
    """Regions of images at a fixed size: the mean of bilinear samples in each cell of a region.

    x: float[N, C, H, W]; boxes: float[R, 5] of rows (image, x0, y0, x1, y1), or a list with a float[R_i, 4] for each
    image; output_size: int or (height, width); spatial_scale: from the boxes' coordinates to pixels; sampling_ratio:
    samples of a cell along each axis, or as many as it has pixels for 0 and below (then the largest region is read,
    which in graph mode ends a segment); aligned: corners are shifted by half a pixel; mode: "avg", or "max" (of the
    weighted corners of samples, as ONNX has it). Returns: float[R, C, height, width].
    Raises: ShapeError, DtypeError, ArgumentError. Numerics: samples more than one pixel outside are 0; the gradient
    is that of the sum that is computed. Source: He et al. 2017, ONNX RoiAlign, torchvision.
    Example: `dg.roi_align(dg.ones((1, 1, 4, 4)), [dg.tensor([[0.0, 0.0, 2.0, 2.0]])], 2).shape` is `(1, 1, 2, 2)`.
    """
    if mode not in _MODES:
        raise ArgumentError("roi_align", f"mode={mode!r}", 'use "avg" or "max"')
    size = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
    if len(size) != 2 or min(size) < 1:
        raise ArgumentError("roi_align", f"output_size={output_size} is not one or two sizes", "use (7, 7)")
    if isinstance(boxes, (list, tuple)):
        fits = (isinstance(b, Tensor) and b.ndim == 2 and b.shape[1] == 4 for b in boxes)
        if not 1 <= len(boxes) <= (x.shape or (0,))[0] or not all(fits):
            kinds = ", ".join(str(getattr(b, "type", type(b).__name__)) for b in boxes) or "no boxes"
            raise ShapeError(
                "roi_align",
                f"boxes: {kinds} for x: {x.type}",
                "give a float[R_i, 4] for each image, or float[R, 5]",
            )
        numbers = np.repeat(np.arange(len(boxes)), [b.shape[0] for b in boxes])
        images = take(
            arange_from(0, 1, size=max(1, len(boxes)), dtype=T.int64, device=x.device), numbers, axis=0
        )
        rois = concat(list(boxes), axis=0)
    else:
        if not isinstance(boxes, Tensor) or boxes.ndim != 2 or boxes.shape[1] != 5:
            kind = getattr(boxes, "type", type(boxes).__name__)
            raise ShapeError(
                "roi_align", f"boxes: {kind} is not float[R, 5]", "or give a list, [R_i, 4] each"
            )
        images, rois = boxes[:, 0].to(T.int64), boxes[:, 1:]
    return sampled_regions(x, rois, images, size, spatial_scale, sampling_ratio, aligned, mode)


def sampled_regions(x, rois, images, size, spatial_scale, sampling_ratio, aligned, mode):
    """`align_regions`, the largest number of samples read where none is given."""
    ratio, most = max(0, int(sampling_ratio)), None
    if not ratio and rois.shape[0]:
        _, _, *lengths = _corners(rois.detach(), spatial_scale, aligned)
        most = tuple(max(1, int(max_(_counts(v, n)).to(T.int64).item())) for v, n in zip(lengths, size))
    return align_regions(
        x, rois, images, output_size=size, spatial_scale=float(spatial_scale), sampling_ratio=ratio or 0,
        most=most or (1, 1), aligned=bool(aligned), mode=mode,
    )  # fmt: skip
