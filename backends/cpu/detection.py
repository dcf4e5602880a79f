"""Dropping boxes that overlap better ones: each image and class by itself, then the rows are put together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ...core.backend import Kernel, Operand, Program, float_bits
from ...core.types import DType
from .indexing import _dense


def _keep_source(dtype: DType) -> str:
    c = dtype.char
    kind = f"types.float{8 * dtype.itemsize}"
    return f"""# suppress_overlaps, one image and class: {dtype}
def kernel(args, chunk, nchunks):
    boxes, scores, order, kept, counts = args[0], args[1], args[2], args[3], args[4]
    classes, n, limit, room, bounded = args[5], args[6], args[7], args[8], args[9]
    iou, least = {kind}(bits_f64(args[10])), {kind}(bits_f64(args[11]))
    image = chunk // classes
    count = types.int64(0)
    for at in range(n):
        if count == limit:
            break
        i = load_i64(order, chunk * n + at)
        if bounded != 0 and not load_{c}(scores, chunk * n + i) > least:
            continue
        p = (image * n + i) * 4
        y0, x0, y1, x1 = load_{c}(boxes, p), load_{c}(boxes, p + 1), load_{c}(boxes, p + 2), load_{c}(boxes, p + 3)
        area = (y1 - y0) * (x1 - x0)
        stays = True
        for k in range(count):
            q = (image * n + load_i64(kept, chunk * room + k)) * 4
            v0, u0, v1, u1 = load_{c}(boxes, q), load_{c}(boxes, q + 1), load_{c}(boxes, q + 2), load_{c}(boxes, q + 3)
            high = min(y1, v1) - max(y0, v0)
            wide = min(x1, u1) - max(x0, u0)
            if high > 0 and wide > 0:
                both = high * wide
                if both / (area + (v1 - v0) * (u1 - u0) - both) > iou:
                    stays = False
                    break
        if stays:
            store_i64(kept, chunk * room + count, i)
            count += 1
    store_i64(counts, chunk, count)
"""


_GATHER = """# suppress_overlaps, putting rows together
def kernel(args, chunk, nchunks):
    kept, counts, out, pairs, classes, room, rows = args[0], args[1], args[2], args[3], args[4], args[5], args[6]
    at = types.int64(0)
    for pair in range(pairs):
        for k in range(load_i64(counts, pair)):
            store_i64(out, 3 * at, pair // classes)
            store_i64(out, 3 * at + 1, pair % classes)
            store_i64(out, 3 * at + 2, load_i64(kept, pair * room + k))
            at += 1
    for k in range(3 * at, 3 * rows):
        store_i64(out, k, -1)
"""


def suppress_overlaps(
    program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, limit: int, iou: float, least: Any
) -> None:
    """The rows (image, class, box) of boxes that stay, then rows of -1."""
    out = outputs[0]
    if not out.size:
        return
    boxes, scores, order = (_dense(program, x) for x in inputs)
    images, classes, n = scores.shape
    pairs, room = images * classes, min(limit, n)
    kept, counts = program.scratch(8 * pairs * room), program.scratch(8 * pairs)
    bound = 0.0 if least is None or math.isnan(least) else float(least)
    program.launch(
        _keep_source(boxes.dtype),
        [boxes.slot, scores.slot, order.slot, kept, counts, classes, n, limit, room, int(least is not None),
         float_bits(iou), float_bits(bound)],
        pairs,
    )  # fmt: skip
    program.wave()
    program.launch(_GATHER, [kept, counts, out.slot, pairs, classes, room, out.shape[0]])


KERNELS: dict[str, Kernel] = {"suppress_overlaps": suppress_overlaps}
