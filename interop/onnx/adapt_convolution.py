"""Importers of convolution and pooling over one and two spatial axes."""

from __future__ import annotations

import math
from typing import Any

from ...core.errors import OnnxError
from ...core.op import REGISTRY as ops
from .table import adapter


def _flat(op: str, x: Any) -> bool:
    """Whether x has one spatial axis (it gets a second one of size 1). Raises OnnxError for three."""
    if x.ndim not in (3, 4):
        raise OnnxError(
            op, f"over {x.ndim - 2} spatial axes is not supported, x: {x.type}", "use one or two spatial axes"
        )
    return x.ndim == 3  # type: ignore[no-any-return]


def _lift(x: Any) -> Any:
    return ops["expand_dims"](x, axis=2)


def _drop(y: Any) -> Any:
    return ops["reshape"](y, shape=(*y.shape[:2], *y.shape[3:]))


def _row(values: Any, n: int, default: int) -> list[int]:
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
    flat = _flat("Conv", x)
    n = x.ndim - 2
    strides, dilations = _row(strides, n, 1), _row(dilations, n, 1)
    padding, _ = window_pads(x.shape[2:], w.shape[2:], strides, dilations, pads, auto_pad)
    if flat:
        x, w = _lift(x), _lift(w)
        strides, dilations, padding = [1, *strides], [1, *dilations], [(0, 0), *padding]
    y = ops["conv2d"](
        x, w, stride=tuple(strides), padding=tuple(padding), dilation=tuple(dilations), groups=group
    )
    if b is not None:
        y = y + ops["reshape"](b, shape=(-1, 1, 1))
    return _drop(y) if flat else y


@adapter("ConvTranspose")
def conv_transpose(
    x, w, b=None, *, kernel_shape=None, strides=None, pads=None, dilations=None, group=1, auto_pad="NOTSET",
    output_padding=None, output_shape=None,
):  # fmt: skip
    """The gradient of a convolution with respect to its image."""
    flat = _flat("ConvTranspose", x)
    n = x.ndim - 2
    strides, dilations, extra = _row(strides, n, 1), _row(dilations, n, 1), _row(output_padding, n, 0)
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
        x, w = _lift(x), _lift(w)
        strides, dilations, full = [1, *strides], [1, *dilations], [1, *full]
    y = ops["conv2d_x_grad"](
        x, w, size=tuple(full), stride=tuple(strides), padding=0, dilation=tuple(dilations), groups=group
    )
    cut = [slice(None)] * (3 if flat else 2) + [slice(a, a + s) for s, (a, _) in zip(sizes, padding)]
    if any(p != (0, 0) for p in padding):
        y = ops["slice"](y, index=tuple(cut))
    if b is not None:
        y = y + ops["reshape"](b, shape=(-1, 1, 1))
    return _drop(y) if flat else y


def _pool(
    op: str, x: Any, window: Any, strides: Any, pads: Any, dilations: Any, auto_pad: str, ceil_mode: int
) -> Any:
    """x with what the op cannot pad itself, and the settings of two axes."""
    flat = _flat(op, x)
    n = x.ndim - 2
    strides, dilations = _row(strides, n, 1), _row(dilations, n, 1)
    padding, sizes = window_pads(x.shape[2:], window, strides, dilations, pads, auto_pad, ceil_mode)
    # Padding after the image is made so that the last window just fits (ceil_mode) or as it was given.
    fitted = []
    for k in range(n):
        span = dilations[k] * (window[k] - 1) + 1
        need = (sizes[k] - 1) * strides[k] + span - x.shape[2 + k] - padding[k][0]
        fitted.append((padding[k][0], max(0, need)))
    if flat:
        x, window = _lift(x), [1, *window]
        strides, dilations, fitted, padding = (
            [1, *strides],
            [1, *dilations],
            [(0, 0), *fitted],
            [(0, 0), *padding],
        )
        sizes = [1, *sizes]
    return (
        x,
        tuple(window),
        tuple(strides),
        tuple(dilations),
        tuple(fitted),
        tuple(padding),
        tuple(sizes),
        flat,
    )


@adapter("MaxPool")
def max_pool(
    node,
    x,
    *,
    kernel_shape,
    strides=None,
    pads=None,
    dilations=None,
    auto_pad="NOTSET",
    ceil_mode=0,
    storage_order=0,
):
    """The maximum of each window."""
    if node.n_outputs > 1:
        raise OnnxError("MaxPool", "its output Indices is not supported", "use the maxima alone")
    x, window, strides, dilations, fitted, _, sizes, flat = _pool(
        "MaxPool", x, kernel_shape, strides, pads, dilations, auto_pad, ceil_mode
    )
    dtype = x.dtype
    if not dtype.is_float:
        x = x.to("float32" if dtype.itemsize < 4 else "float64")
    if any(max(p) > d * (w - 1) for p, d, w in zip(fitted, dilations, window)):
        x = ops["pad"](x, padding=((0, 0), (0, 0), *fitted), value=-math.inf)
        fitted = ((0, 0), (0, 0))
    y = ops["max_pool2d"](x, window=window, stride=strides, padding=fitted, dilation=dilations)
    y = _first(y, sizes).to(dtype)
    return _drop(y) if flat else y


def _first(y: Any, sizes: Any) -> Any:
    """The first windows; padding can make room for more than there are."""
    if y.shape[2:] == tuple(sizes):
        return y
    return ops["slice"](y, index=(slice(None), slice(None), *(slice(0, s) for s in sizes)))


@adapter("AveragePool")
def average_pool(
    x,
    *,
    kernel_shape,
    strides=None,
    pads=None,
    dilations=None,
    auto_pad="NOTSET",
    ceil_mode=0,
    count_include_pad=0,
):
    """The mean of each window; padding counts when count_include_pad says so."""
    x, window, strides, dilations, fitted, padding, sizes, flat = _pool(
        "AveragePool", x, kernel_shape, strides, pads, dilations, auto_pad, ceil_mode
    )
    plain = dilations == (1, 1) and all(max(p) < w for p, w in zip(fitted, window))
    as_given = all(f[1] <= p[1] for f, p in zip(fitted, padding))
    if plain and (as_given or not count_include_pad):
        y = ops["avg_pool2d"](
            x, window=window, stride=strides, padding=fitted, count_include_pad=bool(count_include_pad)
        )
        y = _first(y, sizes)
    else:
        y = _mean_by_sums(x, window, strides, dilations, fitted, padding, sizes, bool(count_include_pad))
    return _drop(y) if flat else y


def _mean_by_sums(x, window, strides, dilations, fitted, padding, sizes, count_pad):
    """Dilated windows and padding beyond the window: sums of shifted slices over counts of the same."""
    spatial = x.shape[2:]

    def sums(t, pads):
        t = ops["pad"](t, padding=((0, 0), (0, 0), *pads))
        total = None
        for r in range(window[0]):
            for s in range(window[1]):
                cut = [slice(None), slice(None)]
                for a, k in enumerate((r, s)):
                    start = k * dilations[a]
                    cut.append(slice(start, start + (sizes[a] - 1) * strides[a] + 1, strides[a]))
                part = ops["slice"](t, index=tuple(cut))
                total = part if total is None else total + part
        return total

    ones = ops["full"](1.0, shape=(1, 1, *spatial), dtype=x.dtype)
    if count_pad:
        inside = tuple((f[0], min(f[1], p[1])) for f, p in zip(fitted, padding))
        ones = ops["pad"](ones, padding=((0, 0), (0, 0), *inside), value=1.0)
        rest = tuple((0, f[1] - i[1]) for f, i in zip(fitted, inside))
        return sums(x, fitted) / sums(ones, rest)
    return sums(x, fitted) / sums(ones, fitted)


@adapter("LpPool")
def lp_pool(x, *, kernel_shape, strides=None, pads=None, dilations=None, auto_pad="NOTSET", ceil_mode=0, p=2):
    """The p-norm of each window."""
    x, window, strides, dilations, fitted, _, sizes, flat = _pool(
        "LpPool", x, kernel_shape, strides, pads, dilations, auto_pad, ceil_mode
    )
    powers = ops["power"](ops["abs"](x), float(p))
    count = window[0] * window[1]
    mean = _mean_by_sums(powers, window, strides, dilations, fitted, fitted, sizes, True)
    y = ops["power"](mean * count, 1.0 / p)
    return _drop(y) if flat else y


def _global(name: str) -> Any:
    def run(x):
        return ops[name](x, axis=tuple(range(2, x.ndim)), keepdims=True)

    return run


adapter("GlobalAveragePool")(_global("mean"))
adapter("GlobalMaxPool")(_global("max"))


@adapter("GlobalLpPool")
def global_lp_pool(x, *, p=2):
    """The p-norm over all spatial axes."""
    total = ops["sum"](ops["power"](ops["abs"](x), float(p)), axis=tuple(range(2, x.ndim)), keepdims=True)
    return ops["power"](total, 1.0 / p)
