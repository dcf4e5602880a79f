"""Importers of what detectors need: NonMaxSuppression, RoiAlign, MaxRoiPool."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...core import types as T
from ...core.op import REGISTRY as ops
from ...core.ops.detection import kept_rows
from ...core.ops.regions import sampled_regions
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


@adapter("RoiAlign", since=16)
def roi_align(
    x, rois, images, *, coordinate_transformation_mode="half_pixel", mode="avg", output_height=1, output_width=1,
    sampling_ratio=0, spatial_scale=1.0,
):  # fmt: skip
    """Regions at a fixed size by bilinear samples. Without a sampling ratio the largest region's is read.

    mode "max": the largest of the weighted corners of all samples, as ONNX defines it.
    """
    aligned = coordinate_transformation_mode == "half_pixel"
    size = output_height, output_width
    return sampled_regions(x, rois, images, size, spatial_scale, sampling_ratio, aligned, mode)


@adapter("RoiAlign", since=10)
def roi_align_10(
    x, rois, images, *, mode="avg", output_height=1, output_width=1, sampling_ratio=0, spatial_scale=1.0
):
    """Corners without the shift by half a pixel."""
    size = output_height, output_width
    return sampled_regions(x, rois, images, size, spatial_scale, sampling_ratio, False, mode)


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
