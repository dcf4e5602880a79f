"""Importers of pooling over one, two and three spatial axes, and over all of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...core import types as T
from ...core.op import REGISTRY as ops
from .adapt_convolution import row, window_pads
from .table import adapter


def _pool(
    x: Any, window: Any, strides: Any, pads: Any, dilations: Any, auto_pad: str, ceil_mode: int, value: float
) -> tuple[Any, dict[str, Any]]:
    """x, with the padding that the ops do not take, and their attributes."""
    n = x.ndim - 2
    strides, dilations = row(strides, n, 1), row(dilations, n, 1)
    padding, _ = window_pads(x.shape[2:], window, strides, dilations, pads, auto_pad, ceil_mode)
    if any(max(p) > d * (w - 1) for p, d, w in zip(padding, dilations, window)):
        x = ops["pad"](x, padding=((0, 0), (0, 0), *padding), value=value)
        padding = [(0, 0)] * n
    same = auto_pad in ("SAME_UPPER", "SAME_LOWER")
    return x, {
        "window": tuple(window), "stride": tuple(strides), "padding": tuple(padding), "dilation": tuple(dilations),
        "ceil_mode": bool(ceil_mode) and not same,
    }  # fmt: skip


@adapter("MaxPool")
def max_pool(
    node, x, *, kernel_shape, strides=None, pads=None, dilations=None, auto_pad="NOTSET", ceil_mode=0,
    storage_order=0,
):  # fmt: skip
    """The maximum of each window, and on request its place in the flattened x."""
    dtype, shape = x.dtype, x.shape
    if not dtype.is_float:
        x = x.to("float32" if dtype.itemsize < 4 else "float64")
    wide, attrs = _pool(x, kernel_shape, strides, pads, dilations, auto_pad, ceil_mode, -math.inf)
    y = ops["max_pool"](wide, **attrs).to(dtype)
    if node.n_outputs == 1:
        return y
    index = ops["max_pool_index"](wide, **attrs)
    if wide.shape != shape or storage_order:
        index = _renumber(index, wide.shape[2:], shape[2:], _befores(x, wide, pads), bool(storage_order))
    planes = ops["arange_from"](0, 1, size=shape[0] * shape[1], dtype=T.int64) * math.prod(shape[2:])
    return y, index + planes.reshape(*shape[:2], *(1,) * (x.ndim - 2))


def _befores(x: Any, wide: Any, pads: Any) -> list[int]:
    n = x.ndim - 2
    return [0] * n if wide is x or not pads else list(pads[:n])


def _renumber(index: Any, old: Any, new: Any, before: list[int], column_major: bool) -> Any:
    """Places in an image of `old` sizes as places in the one of `new` sizes that begins at `before` in it."""
    digits = []
    for n in reversed(old):
        digits.append(ops["remainder"](index, int(n)))
        index = ops["floor_divide"](index, int(n))
    digits = [d - b for d, b in zip(reversed(digits), before)]
    total, step = None, 1
    for digit, n in zip(digits, new) if column_major else reversed(list(zip(digits, new))):
        total = digit * step if total is None else total + digit * step
        step *= int(n)
    return total


@adapter("AveragePool")
def average_pool(
    x, *, kernel_shape, strides=None, pads=None, dilations=None, auto_pad="NOTSET", ceil_mode=0, count_include_pad=0
):  # fmt: skip
    """The mean of each window; padding counts when count_include_pad says so."""
    x, attrs = _pool(x, kernel_shape, strides, pads, dilations, auto_pad, ceil_mode, 0.0)
    return ops["avg_pool"](x, **attrs, count_include_pad=bool(count_include_pad))


@adapter("LpPool")
def lp_pool(x, *, kernel_shape, strides=None, pads=None, dilations=None, auto_pad="NOTSET", ceil_mode=0, p=2):
    """The p-norm of each window."""
    x, attrs = _pool(x, kernel_shape, strides, pads, dilations, auto_pad, ceil_mode, 0.0)
    return ops["lp_pool"](x, **attrs, p=float(p))


@adapter("MaxUnpool", host=("output_shape",))
def max_unpool(x, index, output_shape=None, *, kernel_shape, strides=None, pads=None):
    """Maxima where MaxPool found them; the places count in the shape that the window alone implies."""
    n = x.ndim - 2
    strides, pads = row(strides, n, 1), row(pads, 2 * n, 0)
    size = tuple(
        (m - 1) * s + k - a - b for m, s, k, a, b in zip(x.shape[2:], strides, kernel_shape, pads, pads[n:])
    )
    y = ops["max_unpool"](x, ops["remainder"](index, math.prod(size)), size=size)
    if output_shape is None or not np.size(output_shape):
        return y
    room = tuple((0, int(whole) - m) for whole, m in zip(output_shape[2:], size))
    return ops["pad"](y, padding=((0, 0), (0, 0), *room))


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
