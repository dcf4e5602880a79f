"""Importers of convolution over one, two and three spatial axes."""

from __future__ import annotations

from typing import Any

from ...core.op import REGISTRY as ops
from .table import adapter


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
    padding, _ = window_pads(x.shape[2:], w.shape[2:], strides, dilations, pads, auto_pad)
    y = ops["conv"](
        x, w, stride=tuple(strides), padding=tuple(padding), dilation=tuple(dilations), groups=group
    )
    return y if b is None else y + ops["reshape"](b, shape=(-1, *(1,) * n))


@adapter("ConvTranspose")
def conv_transpose(
    x, w, b=None, *, kernel_shape=None, strides=None, pads=None, dilations=None, group=1, auto_pad="NOTSET",
    output_padding=None, output_shape=None,
):  # fmt: skip
    """The gradient of a convolution with respect to its image."""
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
    y = ops["conv_x_grad"](
        x, w, size=tuple(sizes), stride=tuple(strides), padding=tuple(padding), dilation=tuple(dilations),
        groups=group,
    )  # fmt: skip
    return y if b is None else y + ops["reshape"](b, shape=(-1, *(1,) * n))


@adapter("DeformConv")
def deform_conv(
    x, w, offset, b=None, mask=None, *, kernel_shape=None, strides=None, pads=None, dilations=None, group=1,
    offset_group=1,
):  # fmt: skip
    """Convolution of images whose window elements are moved."""
    pads = row(pads, 4, 0)
    y = ops["deform_conv"](
        x, w, offset, mask, stride=tuple(row(strides, 2, 1)), padding=tuple(zip(pads[:2], pads[2:])),
        dilation=tuple(row(dilations, 2, 1)), groups=group, offset_groups=offset_group,
    )  # fmt: skip
    return y if b is None else y + ops["reshape"](b, shape=(-1, 1, 1))
