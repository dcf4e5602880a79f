"""Importers of gathering and scattering, one-hot vectors, and selection by a mask known on the host."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...core import types as T
from ...core.op import REGISTRY as ops
from .adapt_shape import take_constant
from .program import as_array, host_tensor
from .table import adapter


@adapter("Gather")
def gather(x, index, *, axis=0):
    """Slices of x along an axis."""
    return ops["take"](x, index, axis=axis)


def _count(size: int) -> Any:
    return ops["arange_from"](0, 1, size=size, dtype=T.int64)


def _flat_places(index: Any, sizes: Any, axis: int) -> Any:
    """Positions in a flat tensor of `sizes` for index[i, j, ...] along `axis`, itself elsewhere."""
    index = index.to(T.int64)
    index = ops["where"](ops["less"](index, 0), index + sizes[axis], index)
    places = None
    for a in range(len(sizes)):
        step = math.prod(sizes[a + 1 :])
        here = (
            index
            if a == axis
            else ops["reshape"](
                _count(index.shape[a]), shape=tuple(-1 if k == a else 1 for k in range(len(sizes)))
            )
        )
        part = here * step if step != 1 else here
        places = part if places is None else places + part
    return places


@adapter("GatherElements")
def gather_elements(x, index, *, axis=0):
    """x at index along an axis, element by element."""
    axis = axis % x.ndim
    places = _flat_places(index, x.shape, axis)
    return ops["take"](ops["reshape"](x, shape=(-1,)), places, axis=0)


def _nd_places(index: Any, sizes: Any) -> Any:
    """Flat positions of index tuples over the leading axes `sizes`; index: int[..., len(sizes)]."""
    places = None
    for a, n in enumerate(sizes):
        part = ops["slice"](index, index=(Ellipsis, a)).to(T.int64)
        part = ops["where"](ops["less"](part, 0), part + n, part)
        step = math.prod(sizes[a + 1 :])
        part = part * step if step != 1 else part
        places = part if places is None else places + part
    return places


@adapter("GatherND")
def gather_nd(x, index, *, batch_dims=0):
    """Slices of x at tuples of indices."""
    depth = index.shape[-1]
    b = batch_dims
    lead = x.shape[b : b + depth]
    rest = x.shape[b + depth :]
    places = _nd_places(index, lead)
    batch = math.prod(x.shape[:b])
    if b:
        rows = ops["reshape"](_count(batch), shape=(*x.shape[:b], *(1,) * (places.ndim - b)))
        places = places + rows * math.prod(lead)
    flat = ops["reshape"](x, shape=(batch * math.prod(lead), *rest))
    return ops["take"](flat, places, axis=0)


def _put(x: Any, places: Any, updates: Any, combine: Any) -> Any:
    """x (flat rows) with `combine(x, updates)` at places that differ: scattered sums chosen by a mask."""
    rows, floats = x.shape[0], x.dtype.is_float
    wide = updates if floats else updates.to(T.float64)
    total = ops["take_x_grad"](wide, places, size=rows, axis=0)
    ones = ops["full"](1.0, shape=tuple(places.shape), dtype=T.float32)
    hit = ops["take_x_grad"](ones, places, size=rows, axis=0)
    mask = ops["reshape"](ops["greater"](hit, 0.0), shape=(rows,) + (1,) * (x.ndim - 1))
    return ops["where"](mask, combine(x, total if floats else total.to(x.dtype)), x)


_COMBINE: dict[str, Any] = {"mul": ops["multiply"], "max": ops["maximum"], "min": ops["minimum"]}


def _scattered(x: Any, places: Any, updates: Any, reduction: str) -> Any:
    """x (flat rows) with `updates` put or combined at places."""
    if reduction == "none":
        return _put(x, places, updates, lambda old, new: new)
    if reduction == "add":
        wide = updates if x.dtype.is_float else updates.to(T.float64)
        return x + ops["take_x_grad"](wide, places, size=x.shape[0], axis=0).to(x.dtype)
    # Equal places are combined one after the other: in each round every place stands at most once.
    index = as_array(places).ravel()
    order = np.argsort(index, kind="stable")
    first = (
        np.concatenate([[0], np.flatnonzero(np.diff(index[order])) + 1])
        if index.size
        else np.zeros(0, np.int64)
    )
    turn = np.empty(index.size, np.int64)
    turn[order] = np.arange(index.size) - np.repeat(first, np.diff([*first, index.size]))
    for k in range(int(turn.max(initial=-1)) + 1):
        chosen = np.flatnonzero(turn == k)
        x = _put(x, host_tensor(index[chosen]), take_constant(updates, chosen, 0), _COMBINE[reduction])
    return x


@adapter("ScatterElements", "Scatter")
def scatter_elements(x, index, updates, *, axis=0, reduction="none"):
    """x with elements replaced (or added to) at index along an axis."""
    axis = axis % x.ndim
    places = ops["reshape"](_flat_places(index, x.shape, axis), shape=(-1,))
    flat = _scattered(ops["reshape"](x, shape=(-1,)), places, ops["reshape"](updates, shape=(-1,)), reduction)
    return ops["reshape"](flat, shape=x.shape)


@adapter("ScatterND")
def scatter_nd(x, index, updates, *, reduction="none"):
    """x with slices replaced (or added to) at tuples of indices."""
    depth = index.shape[-1]
    lead, rest = x.shape[:depth], x.shape[depth:]
    places = ops["reshape"](_nd_places(index, lead), shape=(-1,))
    flat = ops["reshape"](x, shape=(math.prod(lead), *rest))
    out = _scattered(flat, places, ops["reshape"](updates, shape=(places.shape[0], *rest)), reduction)
    return ops["reshape"](out, shape=x.shape)


@adapter("OneHot", host=("depth", "values"), grows=True)
def one_hot(index, depth, values, *, axis=-1):
    """values[1] at the index, values[0] elsewhere; negative indices count from the end."""
    n = int(np.asarray(depth).ravel()[0])
    off, on = (v.item() for v in values)
    places = index.to(T.int64)
    places = ops["where"](ops["less"](places, 0), places + n, places)
    axis = axis % (index.ndim + 1)
    wide = ops["expand_dims"](places, axis=axis)
    hit = ops["equal"](wide, ops["reshape"](_count(n), shape=(-1,) + (1,) * (index.ndim - axis)))
    dtype = T.as_dtype(values.dtype)
    return ops["where"](hit, *(ops["full"](v, shape=(), dtype=dtype) for v in (on, off)))


@adapter("Compress", host=("condition",))
def compress(x, condition, *, axis=None):
    """The slices where the condition holds."""
    if axis is None:
        x, axis = ops["reshape"](x, shape=(-1,)), 0
    return take_constant(x, np.flatnonzero(condition), axis)


@adapter("NonZero", host=("x",))
def nonzero(x):
    """The positions of elements that are not 0."""
    return np.array(np.nonzero(x), np.int64).reshape(x.ndim, -1)


@adapter("TopK", since=10, host=("k",))
def top_k(x, k, *, axis=-1, largest=1, sorted=1):
    """The k largest or smallest values along an axis and their positions, one after the other."""
    axis = axis % x.ndim
    dtype = x.dtype
    work = x if dtype.is_float else x.to(T.float64)
    count = ops["reshape"](_count(x.shape[axis]), shape=tuple(-1 if a == axis else 1 for a in range(x.ndim)))
    spots = []
    for _ in range(int(np.asarray(k).ravel()[0])):
        at = ops["argmax" if largest else "argmin"](work, axis=axis, keepdims=True)
        spots.append(at)
        work = ops["where"](ops["equal"](count, at), -math.inf if largest else math.inf, work)
    index = ops["concat"](spots, axis=axis)
    return gather_elements(x, index, axis=axis), index
