"""Boxes of detectors: which to keep of those that overlap."""

from __future__ import annotations

import numpy as np

from .. import types as T
from ..errors import ArgumentError, DtypeError, ShapeError
from ..op import composite, primitive, public
from ..types import TensorType
from . import elementwise as E
from .picking import take
from .reduction import sum_
from .shape import expand_dims, stack
from .sort import argsort


def _overlap(a, b):
    """The intersection of two boxes over their union; 0 where they do not meet."""
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    if not (high > low).all():
        return a.dtype.type(0)
    both = (high - low).prod()
    return both / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - both)


@primitive(internal=True, no_gradient="integer result", no_onnx="a part of nms_places, which has one")
def suppress_overlaps(boxes, scores, order, *, limit, iou, least):
    """The rows of `nms_places` for boxes given by their lower and upper corners, with the order of their scores.

    boxes: float[B, N, 4]; scores: float[B, C, N]; order: int64[B, C, N].
    """
    rows = []
    for b, c in np.ndindex(*scores.shape[:2]):
        kept = []
        for k in order[b, c]:
            if len(kept) == limit:
                break
            if least is not None and not scores[b, c, k] > least:
                continue
            if all(not _overlap(boxes[b, k], boxes[b, j]) > boxes.dtype.type(iou) for j in kept):
                kept.append(k)
        rows += [(b, c, k) for k in kept]
    out = np.full((scores.shape[0] * scores.shape[1] * min(limit, scores.shape[2]), 3), -1, np.int64)
    out[: len(rows)] = np.array(rows, np.int64).reshape(-1, 3)
    return out


@suppress_overlaps.type
def _(boxes, scores, order, *, limit, iou, least):
    return TensorType(T.int64, (scores.shape[0] * scores.shape[1] * min(limit, scores.shape[2]), 3))


def _check(boxes, scores):
    if not (boxes.dtype.is_float and boxes.dtype is scores.dtype):
        raise DtypeError(
            "nms_places", f"boxes: {boxes.type} and scores: {scores.type}", "make both of one float dtype"
        )
    fits = len(boxes.shape) == len(scores.shape) == 3 and boxes.shape[2] == 4
    if not fits or (boxes.shape[0], boxes.shape[1]) != (scores.shape[0], scores.shape[2]):
        raise ShapeError(
            "nms_places",
            f"boxes: {boxes.type} and scores: {scores.type} do not fit",
            "pass [B, N, 4] and [B, C, N]",
        )


def _onnx_places(o, boxes, scores, *, limit, iou, least, centers):
    rows = boxes.shape[0] * scores.shape[1] * min(limit, scores.shape[2])
    bound = (o.full((1,), least, T.float32),) if least is not None else ()
    found = o.NonMaxSuppression(
        boxes,
        scores,
        o.ints((limit,)),
        o.full((1,), iou, T.float32),
        *bound,
        center_point_box=int(centers),
    )
    padded = o.Concat(found, o.full((rows, 3), -1, T.int64), axis=0)
    return o.Slice(padded, o.ints((0,)), o.ints((rows,)), o.ints((0,)))


@composite(internal=True, no_gradient="integer result", onnx=_onnx_places)
def nms_places(boxes, scores, *, limit, iou=0.0, least=None, centers=False):
    """The boxes that stay when each that overlaps a better one of its class is dropped.

    boxes: float[B, N, 4], two opposite corners, or with centers (x, y, width, height); scores: float[B, C, N];
    limit: boxes for each image and class; iou: the overlap (intersection over union) that is still allowed; least:
    scores must be above it. Returns: int64[B * C * min(limit, N), 3], rows (image, class, box), best first within a
    class, then rows of -1. Numerics: of equal scores the first box counts; NaN is never above `least`.
    Source: ONNX NonMaxSuppression.
    """
    _check(boxes, scores)
    a, b, c, d = (boxes[..., k] for k in range(4))
    if centers:
        a, b, c, d = b - d / 2, a - c / 2, b + d / 2, a + c / 2
    corners = stack([E.minimum(a, c), E.minimum(b, d), E.maximum(a, c), E.maximum(b, d)], axis=-1)
    order = argsort(scores, axis=-1, descending=True)
    return suppress_overlaps(corners, scores, order, limit=int(limit), iou=float(iou), least=least)


_BOXES = np.array(
    [
        [
            [0, 0, 1, 1],
            [0, 0.1, 1, 1.1],
            [0, -0.1, 1, 0.9],
            [0, 10, 1, 11],
            [0, 10.1, 1, 11.1],
            [0, 100, 1, 101],
        ]
    ]
)
_SCORES = np.array([[[0.9, 0.75, 0.6, 0.95, 0.5, 0.3], [0.1, 0.75, 0.6, 0.0, 0.5, 0.3]]])
suppress_overlaps.sample(
    _BOXES,
    _SCORES,
    np.argsort(-_SCORES, -1, kind="stable").astype(np.int64),
    limit=3,
    iou=0.5,
    least=0.2,
    grad=False,
)
nms_places.sample(_BOXES, _SCORES, limit=3, iou=0.5, least=0.2, grad=False)
nms_places.sample((2, 5, 4), (2, 1, 5), limit=9, centers=True, low=0.1, high=3.0, grad=False).sample(
    (1, 0, 4), (1, 2, 0), limit=3, grad=False
)
nms_places.error_sample((1, 5, 4), (1, 2, 6), limit=3, match="do not fit")


def kept_rows(boxes, scores, limit, iou=0.0, least=None, centers=False):
    """The rows of `nms_places` that are boxes. How many is read from the tensor."""
    rows = nms_places(boxes, scores, limit=limit, iou=iou, least=least, centers=centers)
    return rows[: int(sum_(E.greater_equal(rows[:, 0], 0)).item())]


@public
def nms(boxes, scores, iou_threshold):
    """The places of the boxes that stay when each that overlaps a better one is dropped, best first.

    boxes: float[N, 4] as (x1, y1, x2, y2); scores: float[N]; iou_threshold: the overlap (intersection over union)
    that is still allowed. Returns: int64[kept]. Raises: ArgumentError for a threshold outside 0 to 1.
    Numerics: of equal scores the first box counts. Source: torchvision.
    Example: `dg.nms(dg.tensor([[0.0, 0, 2, 2], [0, 0, 2, 1.9]]), dg.tensor([0.5, 0.8]), 0.5)` is `[1]`.
    """
    if not 0 <= iou_threshold <= 1:
        raise ArgumentError("nms", f"iou_threshold={iou_threshold}", "pass a number from 0 to 1")
    if not boxes.shape[0]:
        return take(scores, E.cast(scores, dtype=T.int64), axis=0).to(T.int64)
    rows = kept_rows(
        expand_dims(boxes, axis=0), expand_dims(scores, axis=(0, 1)), boxes.shape[0], iou_threshold
    )
    return rows[:, 2]
