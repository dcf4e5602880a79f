"""Importers of pooling over one, two and three spatial axes, and over all of them."""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any

import numpy as np

from ...core.op import REGISTRY as ops
from .adapt_convolution import drop, is_flat, lift, row, window_pads
from .program import host_tensor
from .table import adapter


def _pool(
    op: str, x: Any, window: Any, strides: Any, pads: Any, dilations: Any, auto_pad: str, ceil_mode: int
) -> Any:
    """x with what the op cannot pad itself, and the settings of two axes."""
    n = x.ndim - 2
    flat = n < 3 and is_flat(op, x)
    strides, dilations = row(strides, n, 1), row(dilations, n, 1)
    padding, sizes = window_pads(x.shape[2:], window, strides, dilations, pads, auto_pad, ceil_mode)
    # Padding after the image is made so that the last window just fits (ceil_mode) or as it was given.
    fitted = []
    for k in range(n):
        span = dilations[k] * (window[k] - 1) + 1
        need = (sizes[k] - 1) * strides[k] + span - x.shape[2 + k] - padding[k][0]
        fitted.append((padding[k][0], max(0, need)))
    if flat:
        x, window = lift(x), [1, *window]
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
    """The maximum of each window, and on request its place in the flattened x."""
    n = x.ndim - 2
    x, window, strides, dilations, fitted, _, sizes, flat = _pool(
        "MaxPool", x, kernel_shape, strides, pads, dilations, auto_pad, ceil_mode
    )
    if node.n_outputs > 1 or n == 3:
        places = node.n_outputs > 1
        found = _max_by_shifts(x, window, strides, dilations, fitted, sizes, places, storage_order)
        return tuple(drop(y) for y in found) if flat else found
    dtype = x.dtype
    if not dtype.is_float:
        x = x.to("float32" if dtype.itemsize < 4 else "float64")
    if any(max(p) > d * (w - 1) for p, d, w in zip(fitted, dilations, window)):
        x = ops["pad"](x, padding=((0, 0), (0, 0), *fitted), value=-math.inf)
        fitted = ((0, 0), (0, 0))
    y = ops["max_pool2d"](x, window=window, stride=strides, padding=fitted, dilation=dilations)
    y = _first(y, sizes).to(dtype)
    return drop(y) if flat else y


def _shifts(t, window, strides, dilations, pads, sizes, value):
    """For each place in the window, the elements that stand there in all windows."""
    t = ops["pad"](t, padding=((0, 0), (0, 0), *pads), value=value)
    for spot in itertools.product(*map(range, window)):
        cut = [slice(None), slice(None)]
        for a, k in enumerate(spot):
            start = k * dilations[a]
            cut.append(slice(start, start + (sizes[a] - 1) * strides[a] + 1, strides[a]))
        yield ops["slice"](t, index=tuple(cut))


def _max_by_shifts(x, window, strides, dilations, fitted, sizes, want_places, column_major):
    """Maxima (and their places: the first of equal ones) by comparing shifted slices."""
    low = -math.inf if x.dtype.is_float else int(np.iinfo(x.dtype.np).min)
    shape = x.shape[:1:-1] if column_major else x.shape[2:]
    count = np.arange(math.prod(shape)).reshape(shape)
    count = count.transpose() if column_major else count
    lead = np.arange(x.shape[0] * x.shape[1]).reshape(*x.shape[:2], *(1,) * len(shape)) * math.prod(shape)
    places = host_tensor(lead + count) if want_places else None
    best = index = None
    values = _shifts(x, window, strides, dilations, fitted, sizes, low)
    spots = (
        _shifts(places, window, strides, dilations, fitted, sizes, 0)
        if want_places
        else itertools.repeat(None)
    )
    for part, spot in zip(values, spots):
        if best is None:
            best, index = part, spot
            continue
        if want_places:
            index = ops["where"](ops["greater"](part, best), spot, index)
        best = ops["maximum"](best, part)
    return (best, index) if want_places else (best,)


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
    plain = x.ndim == 4 and dilations == (1, 1) and all(max(p) < w for p, w in zip(fitted, window))
    as_given = all(f[1] <= p[1] for f, p in zip(fitted, padding))
    if plain and (as_given or not count_include_pad):
        y = ops["avg_pool2d"](
            x, window=window, stride=strides, padding=fitted, count_include_pad=bool(count_include_pad)
        )
        y = _first(y, sizes)
    else:
        y = _mean_by_sums(x, window, strides, dilations, fitted, padding, sizes, bool(count_include_pad))
    return drop(y) if flat else y


def _mean_by_sums(x, window, strides, dilations, fitted, padding, sizes, count_pad):
    """Dilated windows and padding beyond the window: sums of shifted slices over counts of the same."""

    def sums(t, pads):
        return functools.reduce(ops["add"], _shifts(t, window, strides, dilations, pads, sizes, 0.0))

    ones = ops["full"](1.0, shape=(1, 1, *x.shape[2:]), dtype=x.dtype)
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
    count = math.prod(window)
    mean = _mean_by_sums(powers, window, strides, dilations, fitted, fitted, sizes, True)
    y = ops["power"](mean * count, 1.0 / p)
    return drop(y) if flat else y


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
