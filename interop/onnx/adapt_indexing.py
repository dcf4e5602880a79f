"""Importers of gathering and scattering, one-hot vectors, and selection by a mask known on the host."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...core import types as T
from ...core.op import PUBLIC
from ...core.op import REGISTRY as ops
from ...core.ops.sets import unique as _unique
from .table import adapter


@adapter("Gather", codes="moved")
def gather(x, index, *, axis=0):
    """Slices of x along an axis."""
    return ops["take"](x, index, axis=axis)


def _count(size: int) -> Any:
    return ops["arange_from"](0, 1, size=size, dtype=T.int64)


@adapter("GatherElements", codes="moved")
def gather_elements(x, index, *, axis=0):
    """x at index along an axis, element by element."""
    return PUBLIC["gather"](x, axis, index)


@adapter("GatherND", codes="moved")
def gather_nd(x, index, *, batch_dims=0):
    """Slices of x at tuples of indices."""
    return ops["gather_nd"](x, index, batch_dims=batch_dims)


@adapter("ScatterElements", "Scatter", codes="moved")
def scatter_elements(x, index, updates, *, axis=0, reduction="none"):
    """x with elements replaced by (or combined with) updates at index along an axis."""
    return PUBLIC["scatter"](x, axis, index, updates, reduction)


@adapter("ScatterND", codes="moved")
def scatter_nd(x, index, updates, *, reduction="none"):
    """x with slices replaced by (or combined with) updates at tuples of indices."""
    return ops["scatter_nd"](x, index, updates, reduce=reduction)


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


@adapter("Compress", codes="moved")
def compress(x, condition, *, axis=None):
    """The slices where the condition holds."""
    if axis is None:
        x, axis = ops["reshape"](x, shape=(-1,)), 0
    mask = condition.to(T.bool_)
    if mask.shape[0] > x.shape[axis]:
        mask = mask[: x.shape[axis]]
    return ops["take"](x, PUBLIC["flatnonzero"](mask), axis=axis)


@adapter("NonZero")
def nonzero(x):
    """The positions of elements that are not 0; how many is read from the tensor."""
    if not x.ndim:
        return ops["reshape"](PUBLIC["flatnonzero"](ops["reshape"](x, shape=(1,))), shape=(1, -1))[:0]
    return ops["stack"](list(PUBLIC["nonzero"](x)), axis=0)


@adapter("TopK", since=10, host=("k",))
def top_k(x, k, *, axis=-1, largest=1, sorted=1):
    """The k largest or smallest values along an axis and their positions."""
    return ops["topk"](x, k=int(np.asarray(k).ravel()[0]), axis=axis, largest=bool(largest))


@adapter("TopK", since=1)
def top_k_1(x, *, k, axis=-1):
    """k as an attribute, always the largest."""
    return ops["topk"](x, k=k, axis=axis, largest=True)


@adapter("TensorScatter", since=24, codes="moved")
def tensor_scatter(cache, update, starts=None, *, axis=-2, mode="linear"):
    """A cache with the new steps of each row of the batch written from a place on, round the end when circular."""
    axis = axis % cache.ndim
    steps, room = update.shape[axis], cache.shape[axis]
    place = ops["arange_from"](0, 1, size=steps, dtype=T.int64)
    if starts is not None:
        place = ops["reshape"](starts.to(T.int64), shape=(-1, 1)) + place
    else:
        place = ops["broadcast_to"](place, shape=(cache.shape[0], steps))
    if mode == "circular":
        place = ops["remainder"](place, room)
    shape = (cache.shape[0], *(steps if a == axis else 1 for a in range(1, cache.ndim)))
    index = ops["broadcast_to"](ops["reshape"](place, shape=shape), shape=update.shape)
    return PUBLIC["scatter"](cache, axis, index, update, "none")


@adapter("Unique", since=11)
def unique(x, *, axis=None, sorted=1):
    """The different elements (or slices), where each stands first, each element's number, how often each occurs."""
    values, first, inverse, counts = _unique(
        x, return_index=True, return_inverse=True, return_counts=True, axis=axis
    )
    if not sorted:  # in the order of their first places
        order = ops["argsort"](first)
        values = ops["take"](values, order, axis=axis or 0)
        first, counts = (ops["take"](v, order, axis=0) for v in (first, counts))
        inverse = ops["take"](ops["argsort"](order), inverse, axis=0)
    return values, first, ops["reshape"](inverse, shape=(-1,)), counts
