"""Importers of convolution over one, two and three spatial axes."""

from __future__ import annotations

from typing import Any

from ...core.errors import OnnxError
from ...core.op import REGISTRY as ops
from .table import adapter


def is_flat(op: str, x: Any) -> bool:
    """Whether x has one spatial axis (it gets a second one of size 1). Raises OnnxError for three."""
    if x.ndim not in (3, 4):
        raise OnnxError(
            op, f"over {x.ndim - 2} spatial axes is not supported, x: {x.type}", "use one or two spatial axes"
        )
    return x.ndim == 3  # type: ignore[no-any-return]


def lift(x: Any) -> Any:
    return ops["expand_dims"](x, axis=2)


def drop(y: Any) -> Any:
    return ops["reshape"](y, shape=(*y.shape[:2], *y.shape[3:]))


def row(values: Any, n: int, default: int) -> list[int]:
    return list(values) if values else [default] * n


def window_pads(
    sizes: Any, window: Any, strides: Any, dilations: Any, pads: Any, auto_pad: str, ceil_mode: int = 0
) -> tuple[list[tuple[int, int]], list[int]]:
    """Padding (before, after) of each spatial axis as given or as auto_pad says; and the output sizes."""
    n = len(window)
    out_pads, out_sizes = [], []
    for k in range(n):
        span = dilations[k] * (window[k] - 1) + 1
        if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            out = -(-sizes[k] // strides[k])
            total = max(0, (out - 1) * strides[k] + span - sizes[k])
            small, large = total // 2, total - total // 2
            out_pads.append((small, large) if auto_pad == "SAME_UPPER" else (large, small))
            out_sizes.append(out)
            continue
        before, after = (0, 0) if auto_pad == "VALID" or not pads else (pads[k], pads[k + n])
        room = sizes[k] + before + after - span
        if ceil_mode:
            out = -(-room // strides[k]) + 1
            # A window that would start in the padding after the image does not count.
            if (out - 1) * strides[k] >= sizes[k] + before:
                out -= 1
        else:
            out = room // strides[k] + 1
        out_pads.append((before, after))
        out_sizes.append(out)
    return out_pads, out_sizes


@adapter("Conv")
def conv(
    x, w, b=None, *, kernel_shape=None, strides=None, pads=None, dilations=None, group=1, auto_pad="NOTSET"
):
    """Cross-correlation with filters."""
    n = x.ndim - 2
    strides, dilations = row(strides, n, 1), row(dilations, n, 1)
    padding, sizes = window_pads(x.shape[2:], w.shape[2:], strides, dilations, pads, auto_pad)
    if n == 3:
        return _conv3d(x, w, b, strides, padding, dilations, group, sizes)
    flat = is_flat("Conv", x)
    if flat:
        x, w = lift(x), lift(w)
        strides, dilations, padding = [1, *strides], [1, *dilations], [(0, 0), *padding]
    y = ops["conv2d"](
        x, w, stride=tuple(strides), padding=tuple(padding), dilation=tuple(dilations), groups=group
    )
    if b is not None:
        y = y + ops["reshape"](b, shape=(-1, 1, 1))
    return drop(y) if flat else y


@adapter("ConvTranspose")
def conv_transpose(
    x, w, b=None, *, kernel_shape=None, strides=None, pads=None, dilations=None, group=1, auto_pad="NOTSET",
    output_padding=None, output_shape=None,
):  # fmt: skip
    """The gradient of a convolution with respect to its image."""
    flat = is_flat("ConvTranspose", x)
    n = x.ndim - 2
    strides, dilations, extra = row(strides, n, 1), row(dilations, n, 1), row(output_padding, n, 0)
    sizes, padding = [], []
    for k in range(n):
        whole = strides[k] * (x.shape[2 + k] - 1) + extra[k] + (w.shape[2 + k] - 1) * dilations[k] + 1
        if output_shape:
            total = max(0, whole - output_shape[k])
        elif auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            total = max(0, whole - x.shape[2 + k] * strides[k])
        else:
            before, after = (pads[k], pads[k + n]) if pads else (0, 0)
            padding.append((before, after))
            sizes.append(whole - before - after)
            continue
        small = total // 2
        padding.append((small, total - small) if auto_pad == "SAME_UPPER" else (total - small, small))
        sizes.append(output_shape[k] if output_shape else whole - total)
    full = [s + a + b_ for s, (a, b_) in zip(sizes, padding)]
    if flat:
        x, w = lift(x), lift(w)
        strides, dilations, full = [1, *strides], [1, *dilations], [1, *full]
    y = ops["conv2d_x_grad"](
        x, w, size=tuple(full), stride=tuple(strides), padding=0, dilation=tuple(dilations), groups=group
    )
    cut = [slice(None)] * (3 if flat else 2) + [slice(a, a + s) for s, (a, _) in zip(sizes, padding)]
    if any(p != (0, 0) for p in padding):
        y = ops["slice"](y, index=tuple(cut))
    if b is not None:
        y = y + ops["reshape"](b, shape=(-1, 1, 1))
    return drop(y) if flat else y


def _conv3d(x, w, b, strides, padding, dilations, group, sizes):
    """Two-dimensional convolutions of the slices that each depth of the window meets, summed."""
    x = ops["pad"](x, padding=((0, 0), (0, 0), padding[0], (0, 0), (0, 0)))
    n, c, _, h, width = x.shape
    depth = sizes[0]
    total = None
    for r in range(w.shape[2]):
        start = r * dilations[0]
        cut = slice(start, start + (depth - 1) * strides[0] + 1, strides[0])
        part = ops["permute"](ops["slice"](x, index=(slice(None), slice(None), cut)), axes=(0, 2, 1, 3, 4))
        y = ops["conv2d"](
            ops["reshape"](part, shape=(n * depth, c, h, width)), ops["slice"](w, index=(slice(None), slice(None), r)),
            stride=tuple(strides[1:]), padding=tuple(padding[1:]), dilation=tuple(dilations[1:]), groups=group,
        )  # fmt: skip
        total = y if total is None else total + y
    y = ops["permute"](ops["reshape"](total, shape=(n, depth, *total.shape[1:])), axes=(0, 2, 1, 3, 4))
    return y if b is None else y + ops["reshape"](b, shape=(-1, 1, 1, 1))
