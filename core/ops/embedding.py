"""Rows of a table by integers: embedding, bags of rows, one-hot vectors."""

# Gradient rules are named after the input they are for, so names repeat here.
from __future__ import annotations

import numpy as np

from .. import types as T
from ..errors import ArgumentError, DtypeError, ShapeError
from ..floats import refuse_integers
from ..op import Ints, composite, pointwise, public
from ..scalar import cast, s
from .creation import arange, full
from .picking import NOWHERE, take, take_x_grad
from .scatter import combine_slices, put_slices
from .shape import expand_dims
from .views import reshape


@pointwise(internal=True, no_gradient="integer input")
def matches(x, position, *, dtype):
    """1 where x equals the position, else 0."""
    return cast(s.eq(x, position), dtype)


def _onnx_one_hot(o, x, *, num_classes, dtype):
    return o.one_hot(x, num_classes, T.as_dtype(dtype))


@composite(onnx=_onnx_one_hot)
def one_hot(x, *, num_classes, dtype=T.float32):
    """Rows of zeros with a one at x. x: int[...]. Returns: dtype[..., num_classes]. A row for an x outside is zeros.

    Raises: DtypeError when x is not integer. Source: ONNX OneHot.
    """
    if not x.dtype.is_integer:
        raise DtypeError("one_hot", f"x: {x.type} is not integer", "convert it to int64")
    return matches(
        expand_dims(x, axis=-1), arange(num_classes, device=x.device), dtype=T.as_dtype(dtype, "one_hot")
    )


one_hot.sample(Ints((3, 2), 0, 4), num_classes=4).sample(Ints((), 0, 3), num_classes=3, dtype="int64")
one_hot.error_sample((2,), num_classes=3, match="not integer")


# ---------------------------------------------------------------- embedding


@composite(onnx=lambda o, weight, index, *, padding_idx, by_frequency: o.Gather(weight, index, axis=0))
def embedding(weight, index, *, padding_idx=None, by_frequency=False):
    """Rows of a table: `out[..., :] = weight[index[...], :]`.

    weight: float[V, D], index: int[...], from -V to V - 1. padding_idx: a row that gets no gradient; by_frequency:
    gradients are divided by how often their row is picked. Returns: float[..., D]. Raises: IndexingError for an
    index outside (eager mode; NaN in a graph), ShapeError unless weight is a matrix.
    Numerics: the gradient adds up rows in the order of the index, the same for any number of threads; it costs one
    pass over zeros of weight's size and one over the picked rows.
    """
    if weight.ndim != 2:
        raise ShapeError("embedding", f"weight: {weight.type} is not a table", "pass float[rows, columns]")
    _row("embedding", weight, padding_idx)
    return take(weight, index, axis=0)


def _row(op, weight, padding_idx):
    n = weight.shape[0]
    if padding_idx is not None and not -n <= padding_idx < n:
        raise ArgumentError(op, f"padding_idx={padding_idx} is outside {n} rows", "use one of them")
    return None if padding_idx is None else padding_idx % n


@embedding.grad
def weight(g, index, weight_type, padding_idx, by_frequency):
    from .elementwise import where

    n = weight_type.shape[0]
    if by_frequency:
        count = put_slices(full((n,), 0, g.dtype, g.device), index, 1, add=True)
        g = g / expand_dims(take(count, index), axis=-1)
    if padding_idx is not None:
        places = index.to(T.int64)
        row = padding_idx % n
        hit = (places == row) | (places == row - n)
        index = where(hit, NOWHERE, places)
    return take_x_grad(g, index, size=n, axis=0)


embedding.sample((5, 3), Ints((2, 4), -5, 5)).sample((5, 3), Ints((6,), 0, 5), padding_idx=2, grad=False)
embedding.sample((4, 2), Ints((6,), 0, 4), by_frequency=True, grad=False)
embedding.error_sample((5,), Ints((2,)), match="not a table")


def renormalize(weight, index, max_norm, norm_type):
    """Shorten, in place and without history, the rows that index names to a norm of at most max_norm."""
    from .. import dispatch
    from .indexing import index_put_

    with dispatch.set_grad(False):
        flat = reshape(index, shape=(-1,))
        rows = take(weight, flat, axis=0)
        norms = (rows.abs() ** norm_type).sum(axis=-1, keepdims=True) ** (1.0 / norm_type)
        scale = (max_norm / (norms + 1e-7)).clip(None, 1.0)
        index_put_(weight, flat, rows * scale)


def _rising(offsets, starts, ends, count):
    """Raise ArgumentError for offsets that do not cut all `count` places into bags."""
    from .. import dispatch
    from .joining import stack
    from .reduction import min_

    if not starts.shape[0]:
        return

    def refuse(found):
        first, shortest, last = np.asarray(found).tolist()
        if first or shortest < 0 or last != count:
            raise ArgumentError(
                "embedding_bag", f"offsets: {offsets.type} do not rise from 0 to at most {count}, the indices",
                "pass the place where each bag begins",
            )  # fmt: skip

    with dispatch.set_grad(False):
        dispatch.state.executor.check(stack([starts[0], min_(ends - starts), ends[-1]], axis=0), refuse)


@public
def embedding_bag(
    index,
    weight,
    offsets=None,
    mode="mean",
    per_sample_weights=None,
    padding_idx=None,
    include_last_offset=False,
):
    """The sum, mean or maximum of rows of a table, bag by bag; an empty bag is zeros.

    index: int[B, N] (a bag a row), or int[n] cut into bags at offsets: int[B], from 0, rising (include_last_offset:
    it ends in n). weight: float[V, D]. per_sample_weights: like index, factors for mode "sum". padding_idx: a row
    that counts in no bag. Returns: float[B, D]. Raises: ArgumentError for another mode, or offsets that do not rise
    from 0 to n, ShapeError for shapes that do not fit, IndexingError for an index outside.
    """
    from .elementwise import where
    from .joining import concat, repeat_places
    from .reduction import sum_

    if mode not in ("sum", "mean", "max"):
        raise ArgumentError("embedding_bag", f"mode={mode!r}", 'use "sum", "mean" or "max"')
    refuse_integers("embedding_bag", weight)
    if per_sample_weights is not None and (mode != "sum" or per_sample_weights.shape != index.shape):
        raise ArgumentError(
            "embedding_bag", "per_sample_weights do not fit", 'use mode="sum" and index\'s shape'
        )
    row = _row("embedding_bag", weight, padding_idx)
    device, count = weight.device, index.size
    grid = index.ndim == 2 and offsets is None
    if grid:
        bags = index.shape[0]
        counts = full((bags,), index.shape[1], T.int64, device)
    elif index.ndim == 1 and offsets is not None and offsets.ndim == 1:
        starts = offsets.to(T.int64)
        ends = concat([starts[1:], full((0 if include_last_offset else 1,), count, T.int64, device)])
        starts = starts[:-1] if include_last_offset else starts
        bags, counts = starts.shape[0], ends - starts
        _rising(offsets, starts, ends, count)
    else:
        raise ShapeError(
            "embedding_bag",
            f"index: {index.type} with offsets={offsets}",
            "pass int[B, N], or int[n] and offsets",
        )
    flat = reshape(index, shape=(-1,))
    rows = embedding(weight, flat, padding_idx=padding_idx)
    kept = None if row is None else expand_dims((flat != row) & (flat != row - weight.shape[0]), axis=-1)
    if per_sample_weights is not None:
        rows = rows * expand_dims(reshape(per_sample_weights, shape=(-1,)), axis=-1)
    shape = (bags, weight.shape[1])
    bag = None if grid and mode != "max" else repeat_places(counts, total=count)

    def added_up(x):
        """The sum over each bag of what its rows have."""
        if bag is None:
            return sum_(reshape(x, shape=(*index.shape, x.shape[1])), axis=1)
        return put_slices(full((bags, x.shape[1]), 0, x.dtype, device), bag, x, add=True)

    if mode == "max":
        if kept is not None:
            rows = where(kept, rows, -np.inf)
        best = combine_slices(full(shape, -np.inf, weight.dtype, device), bag, rows, reduce="maximum")
        return where(best == -np.inf, 0.0, best)
    if kept is not None:
        rows = where(kept, rows, 0.0)
    total = added_up(rows)
    if mode == "sum":
        return total
    number = expand_dims(counts, axis=1)
    if kept is not None:
        number = added_up(kept.to(T.int64))
    return total / number.clip(1, None).to(weight.dtype)


__all__ = ["embedding", "embedding_bag", "one_hot"]
