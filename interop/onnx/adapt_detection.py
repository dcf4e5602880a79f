"""Importers of what detectors need: NonMaxSuppression, RoiAlign, MaxRoiPool."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...core import types as T
from ...core.op import REGISTRY as ops
from ...core.ops.detection import kept_rows
from .table import adapter


def _number(x: Any, default: Any) -> Any:
    return default if x is None else np.asarray(x).ravel()[0].item()


@adapter("NonMaxSuppression", host=("limit", "iou", "least"))
def non_max_suppression(boxes, scores, limit=None, iou=None, least=None, *, center_point_box=0):
    """(image, class, box) of the boxes that stay; how many is read from the tensor."""
    count = min(int(_number(limit, 0)), boxes.shape[1])
    bound = None if least is None else _number(least, 0.0)
    if not count or not scores.size:
        return np.zeros((0, 3), np.int64)
    return kept_rows(boxes, scores, count, _number(iou, 0.0), bound, bool(center_point_box))


def _count(size: int, dtype: Any) -> Any:
    return ops["arange_from"](0, 1, size=size, dtype=dtype)


def _axis(start: Any, length: Any, bins: int, each: Any, most: int, n: int) -> tuple[Any, Any, Any, Any]:
    """Where one axis is sampled, [R, bins, most]: lower place, upper place, share of the upper, whether it counts."""
    spread = lambda v: ops["reshape"](v, shape=(-1, 1, 1))
    step = ops["reshape"](_count(most, start.dtype), shape=(1, 1, -1))
    at = ops["reshape"](_count(bins, start.dtype), shape=(1, -1, 1))
    size = spread(length) / bins
    place = spread(start) + at * size + (step + 0.5) * (size / spread(each))
    inside = ops["logical_and"](ops["greater_equal"](place, -1.0), ops["less_equal"](place, float(n)))
    inside = ops["logical_and"](inside, ops["less"](step, spread(each)))
    place = ops["clip"](place, min=0.0, max=float(n - 1))
    low = ops["minimum"](ops["floor"](place), float(max(0, n - 2)))
    return low.to(T.int64), ops["minimum"](low + 1.0, float(n - 1)).to(T.int64), place - low, inside


def _roi_align(
    x: Any,
    rois: Any,
    images: Any,
    offset: float,
    mode: str,
    height: int,
    width: int,
    ratio: int,
    scale: float,
) -> Any:
    n, c, h, w = x.shape
    corners = rois * scale - offset
    x0, y0, x1, y1 = (corners[:, k] for k in range(4))
    tall, wide = y1 - y0, x1 - x0
    if not offset:  # regions of no size become one pixel
        tall, wide = ops["maximum"](tall, 1.0), ops["maximum"](wide, 1.0)
    if ratio > 0:
        each_y = each_x = ops["full"](float(ratio), shape=(rois.shape[0],), dtype=x.dtype)
        most_y = most_x = ratio
    else:
        each_y = ops["maximum"](ops["ceil"](tall / height), 0.0)
        each_x = ops["maximum"](ops["ceil"](wide / width), 0.0)
        most_y, most_x = (max(1, int(ops["max"](e).item())) for e in (each_y, each_x))
    low_y, high_y, share_y, in_y = _axis(y0, tall, height, ops["maximum"](each_y, 1.0), most_y, h)
    low_x, high_x, share_x, in_x = _axis(x0, wide, width, ops["maximum"](each_x, 1.0), most_x, w)
    # pixels as rows of channels; places are [R, height, most_y, width, most_x]
    rows = ops["reshape"](ops["permute"](x, axes=(0, 2, 3, 1)), shape=(n * h * w, c))
    down = lambda v: ops["reshape"](v, shape=(*v.shape, 1, 1))
    across = lambda v: ops["reshape"](v, shape=(v.shape[0], 1, 1, *v.shape[1:]))
    first = ops["reshape"](images.to(T.int64) * (h * w), shape=(-1, 1, 1, 1, 1))
    inside = ops["expand_dims"](ops["logical_and"](down(in_y), across(in_x)), axis=-1)
    total: Any = None
    for place_y, weight_y in ((low_y, 1.0 - share_y), (high_y, share_y)):
        for place_x, weight_x in ((low_x, 1.0 - share_x), (high_x, share_x)):
            pixels = ops["take"](rows, first + down(place_y) * w + across(place_x), axis=0)
            part = pixels * ops["expand_dims"](down(weight_y) * across(weight_x), axis=-1)
            if total is None:
                total = part
            else:
                total = ops["maximum"](total, part) if mode == "max" else total + part
    if mode == "max":
        y = ops["max"](ops["where"](inside, total, 0.0), axis=(2, 4))
    else:
        number = ops["maximum"](ops["reshape"](each_y * each_x, shape=(-1, 1, 1, 1)), 1.0)
        y = ops["sum"](ops["where"](inside, total, 0.0), axis=(2, 4)) / number
    return ops["permute"](y, axes=(0, 3, 1, 2))


@adapter("RoiAlign", since=16)
def roi_align(
    x, rois, images, *, coordinate_transformation_mode="half_pixel", mode="avg", output_height=1, output_width=1,
    sampling_ratio=0, spatial_scale=1.0,
):  # fmt: skip
    """Regions at a fixed size by bilinear samples. Without a sampling ratio the largest region's is read.

    mode "max": the largest of the weighted corners of all samples, as ONNX defines it.
    """
    offset = 0.5 if coordinate_transformation_mode == "half_pixel" else 0.0
    return _roi_align(
        x, rois, images, offset, mode, output_height, output_width, sampling_ratio, spatial_scale
    )


@adapter("RoiAlign", since=10)
def roi_align_10(
    x, rois, images, *, mode="avg", output_height=1, output_width=1, sampling_ratio=0, spatial_scale=1.0
):
    """Corners without the shift by half a pixel."""
    return _roi_align(x, rois, images, 0.0, mode, output_height, output_width, sampling_ratio, spatial_scale)


@adapter("MaxRoiPool")
def max_roi_pool(x, rois, *, pooled_shape, spatial_scale=1.0):
    """The maximum of each cell of a region whose corners are rounded to pixels; 0 for an empty cell."""
    h, w = x.shape[2:]
    corners = ops["floor"](rois[:, 1:] * spatial_scale + 0.5)
    images = rois[:, 0].to(T.int64)

    def cells(first: Any, last: Any, count: int, size: int) -> Any:
        """[R, count, size]: whether a line of pixels belongs to a cell."""
        spread = lambda v: ops["reshape"](v, shape=(-1, 1, 1))
        first, length = spread(first), spread(ops["maximum"](last - first + 1.0, 1.0))
        at = ops["reshape"](_count(count, x.dtype), shape=(1, -1, 1))
        low = ops["clip"](ops["floor"](at * length / count) + first, min=0.0, max=float(size))
        high = ops["clip"](ops["ceil"]((at + 1.0) * length / count) + first, min=0.0, max=float(size))
        pixel = ops["reshape"](_count(size, x.dtype), shape=(1, 1, -1))
        return ops["logical_and"](ops["greater_equal"](pixel, low), ops["less"](pixel, high))

    in_y = cells(corners[:, 1], corners[:, 3], pooled_shape[0], h)
    in_x = cells(corners[:, 0], corners[:, 2], pooled_shape[1], w)
    low = float("-inf")
    wide = ops["expand_dims"](ops["take"](x, images, axis=0), axis=3)  # [R, C, H, 1, W]
    rows = ops["max"](
        ops["where"](ops["expand_dims"](in_x, axis=(1, 2)), wide, low), axis=-1
    )  # [R, C, H, width]
    tall = ops["expand_dims"](ops["permute"](rows, axes=(0, 1, 3, 2)), axis=2)  # [R, C, 1, width, H]
    y = ops["max"](ops["where"](ops["expand_dims"](in_y, axis=(1, 3)), tall, low), axis=-1)
    return ops["where"](ops["isneginf"](y), 0.0, y)
