"""Rows of tests/test_families_random.py: shapes, joining, indexing, scattering, creation from tensors."""

from __future__ import annotations

from typing import Any

import duograd as dg
import numpy as np
import torch
from drawing import FLOATS, REAL, Row, of_torch

F = torch.nn.functional
ALL = (*REAL, "uint8", "bool")


def one(least: int = 0, most: int = 3, side: int = 0, **settings: Any) -> Any:
    """One array; settings: from its rank to what is drawn from, or a list."""

    def draw(d: Any) -> Any:
        shape = d.shape(least, most, side)
        return [d.array(shape)], {k: d.pick(v(len(shape)) if callable(v) else v) for k, v in settings.items()}

    return draw


def row(name: str, peer: Any, draw: Any, call: Any = None, **kwargs: Any) -> Row:
    return Row(name, peer, draw, call, **{"dtypes": ALL, "scale": 1.0, **kwargs})


def anywhere(rank: int) -> Any:
    return range(-rank, rank)


def reshaped(d: Any) -> Any:
    shape = d.shape(0, 3)
    size = int(np.prod(shape))
    return [d.array(shape)], {"shape": d.pick([(size,), (1, size), shape[::-1], *([(-1,)] if size else [])])}


def bits(d: Any) -> Any:
    x = d.array(d.shape(0, 3))
    return [x], {"dtype": {1: "uint8", 2: "int16", 4: "int32", 8: "int64"}[x.dtype.itemsize]}


def permuted(d: Any) -> Any:
    shape = d.shape(0, 3)
    return [d.array(shape)], {"axes": tuple(int(a) for a in d.rng.permutation(len(shape)))}


def spread(d: Any) -> Any:
    shape = d.shape(0, 3)
    small = tuple(1 if d.pick([True, False]) else n for n in shape)
    return [d.array(small)], {"shape": (*((2,) if len(shape) < 3 else ()), *shape)}


def windowed(d: Any) -> Any:
    shape = d.shape(1, 2, 3)
    axis = d.axis(len(shape))
    return [d.array(shape)], {"axis": axis, "size": d.pick([1, 3]), "step": d.pick([1, 2])}


def _windows(x: np.ndarray, axis: int, size: int, step: int) -> np.ndarray:
    at = [slice(None)] * x.ndim
    at[axis] = slice(None, None, step)
    return np.lib.stride_tricks.sliding_window_view(x, size, axis)[tuple(at)]


def squeezed(d: Any) -> Any:
    shape = list(d.shape(0, 2))
    at = d.pick(range(len(shape) + 1))
    shape.insert(at, 1)
    return [d.array(shape)], {"axis": d.pick([None, at, at - len(shape)])}


def rolled(d: Any) -> Any:
    shape = d.shape(1)
    return [d.array(shape)], d.pick([{"shift": 2, "axis": None}, {"shift": -1, "axis": d.axis(len(shape))},
                                     {"shift": (1, 7), "axis": (0, -1)}])  # fmt: skip


def shuffled(*settings: tuple[Any, Any]) -> Any:
    def draw(d: Any) -> Any:
        return [d.array(d.pick([s for s, _ in settings]))], settings[0][1]

    return draw


SHAPE = [
    row("reshape", np.reshape, reshaped),
    row("ravel", np.ravel, one()),
    row("view_as", lambda x, y: x.reshape(y.shape), lambda d: ([d.array((2, 6)), d.array((3, 4))], {}), slope=False),
    row("permute", np.transpose, permuted),
    row("permute_dims", np.transpose, permuted),
    row("broadcast_to", np.broadcast_to, spread),
    row("broadcast_arrays", np.broadcast_arrays, lambda d: ([d.array((3, 1)), d.array((1, 5))], {}),
        lambda *xs: dg.broadcast_arrays(*xs)),
    row("broadcast_tensors", np.broadcast_arrays, lambda d: ([d.array((3, 1)), d.array((5,))], {}),
        lambda *xs: dg.broadcast_tensors(*xs)),
    row("expand_dims", np.expand_dims, one(axis=lambda n: range(-n - 1, n + 1))),
    row("bitcast", lambda x, dtype: x.view(dtype), bits, dtypes=REAL, slope=False),
    row("squeeze", np.squeeze, squeezed),
    row("flatten", of_torch(lambda x, start_axis, end_axis: torch.flatten(x, start_axis, end_axis)),
        one(2, start_axis=[0, 1], end_axis=[1, -1]), dtypes=REAL),
    row("unflatten", lambda x, axis, sizes: x.reshape(x.shape[0], *sizes, x.shape[2]), lambda d: (
        [d.array((2, 6, d.pick([0, 1, 5])))], {"axis": d.pick([1, -2]), "sizes": d.pick([(2, 3), (6,), (1, 6)])})),
    row("flip", np.flip, one(1, axis=lambda n: [None, 0, -1, tuple(range(n))])),
    row("fliplr", np.fliplr, one(2)), row("flipud", np.flipud, one(1)),
    row("moveaxis", np.moveaxis, one(1, source=anywhere, destination=anywhere)),
    row("movedim", np.moveaxis, one(1, source=anywhere, destination=anywhere)),
    row("transpose", np.swapaxes, one(1, axis1=anywhere, axis2=anywhere)),
    row("swapaxes", np.swapaxes, one(1, axis1=anywhere, axis2=anywhere)),
    row("matrix_transpose", np.matrix_transpose, one(2)),
    row("rot90", np.rot90, one(2, k=[0, 1, 2, 3, -1], axes=[(0, 1), (1, 0)])),
    row("roll", np.roll, rolled),
    row("tile", np.tile, one(1, reps=[2, (1, 2), (2, 1, 3), (0,)])),
    row("repeat", np.repeat, one(0, repeats=[0, 1, 3], axis=lambda n: [None, *range(-n, n)])),
    row("repeat_interleave", np.repeat, one(0, repeats=[0, 1, 3], axis=lambda n: [None, *range(-n, n)])),
    row("sum_to", lambda x, shape: x.sum(axis=0, keepdims=True), lambda d: (lambda s: ([d.array(s)], {
        "shape": (1, *s[1:])}))(d.shape(1)), dtypes=("float64",), corners=False, scale=10),
    row("diagonal", np.diagonal, one(2, offset=[0, 1, -2], axis1=[0], axis2=[1, -1])),
    row("sliding_window", _windows, windowed),
    row("channel_shuffle", of_torch(lambda x, groups: torch.channel_shuffle(x, groups)),
        lambda d: ([d.array((2, 6, *d.shape(1, 2, 1)))], {"groups": d.pick([1, 2, 3])}), dtypes=REAL),
    row("pixel_shuffle", of_torch(lambda x, factor: torch.pixel_shuffle(x, factor)),
        lambda d: ([d.array((d.pick([1, 2]), 8, 3, d.pick([1, 5])))], {"factor": d.pick([1, 2])}), dtypes=REAL),
    row("pixel_unshuffle", of_torch(lambda x, factor: torch.pixel_unshuffle(x, factor)),
        lambda d: ([d.array((d.pick([1, 2]), 2, 4, d.pick([2, 6])))], {"factor": d.pick([1, 2])}), dtypes=REAL),
    row("tril", np.tril, one(2, k=[0, 1, -1, 5])), row("triu", np.triu, one(2, k=[0, 1, -1, -5])),
    row("diag", np.diag, one(1, 2, k=[0, 1, -1])),
    row("diagflat", np.diagflat, one(0, 2, k=[0, 2])),
    row("diag_embed", of_torch(lambda x, offset, axis1, axis2: torch.diag_embed(x, offset, axis1, axis2)),
        one(1, 2, offset=[0, 1, -1], axis1=[-2, 0], axis2=[-1]), dtypes=REAL),
    row("diagonal_scatter", of_torch(lambda x, y, offset: torch.diagonal_scatter(x, y, offset)), lambda d: (
        [d.array((3, 5)), d.array((3,))], {"offset": d.pick([0, 1, 2])}), dtypes=REAL),
    row("fill_diagonal", lambda x, value: _fill_diagonal(x, value), one(2, 2, 1, value=[0, 3])),
    *[row(n, getattr(np, n), one()) for n in ("atleast_1d", "atleast_2d", "atleast_3d")],
    row("narrow", lambda x, axis, start, length: x.take(range(start, start + length), axis),
        one(1, 3, 3, axis=anywhere, start=[0, 1], length=[0, 1, 2])),
    row("select", lambda x, axis, index: np.take(x, index, axis), one(1, 3, 2, axis=anywhere, index=[0, 1, -1])),
]  # fmt: skip


def _fill_diagonal(x: np.ndarray, value: Any) -> np.ndarray:
    x = x.copy()
    np.fill_diagonal(x, value)
    return x


# ---------------------------------------------------------------- joining


def several(same: bool) -> Any:
    """Arrays of one shape, or of shapes that differ along the axis."""

    def draw(d: Any) -> Any:
        shape = list(d.shape(1, 3))
        axis = d.axis(len(shape))
        out = []
        for _ in range(d.pick([1, 2, 3])):
            if not same:
                shape[axis] = d.pick([0, 1, 4])
            out.append(d.array(shape))
        return out, {"axis": axis}

    return draw


def stacked(d: Any) -> Any:
    shape = d.pick([(3,), (2, 3), (1, 2, 3), (0, 3)])
    return [d.array(shape) for _ in range(d.pick([1, 2]))], {}


def listed(name: str, draw: Any, **kwargs: Any) -> Row:
    ours, theirs = getattr(dg, name), getattr(np, name, None)
    return row(name, lambda *xs, **kw: theirs(xs, **kw), draw, lambda *xs, **kw: ours(xs, **kw), **kwargs)


def _blocks(*xs: np.ndarray) -> np.ndarray:
    xs = [np.atleast_2d(x) for x in xs]
    out = np.zeros(np.sum([x.shape for x in xs], axis=0), xs[0].dtype)
    i = j = 0
    for x in xs:
        out[i : i + x.shape[0], j : j + x.shape[1]] = x
        i, j = i + x.shape[0], j + x.shape[1]
    return out


JOIN = [
    listed("concat", several(False)), listed("stack", several(True)),
    *[listed(n, stacked) for n in ("hstack", "vstack", "dstack", "column_stack")],
    row("split", lambda x, sizes, axis: np.split(x, np.cumsum(sizes)[:-1], axis), lambda d: (
        [d.array((4, 5, *d.shape(0, 1)))], {"sizes": d.pick([[2, 0, 3], [5]]), "axis": 1}),
        lambda x, sizes, axis: dg.split(x, sizes, axis)),
    row("tensor_split", lambda x, parts, axis: np.array_split(x, parts, axis),
        one(1, parts=[1, 2, 3, [1, 3]], axis=anywhere), lambda x, parts, axis: dg.tensor_split(x, parts, axis)),
    row("chunk", of_torch(lambda x, chunks, axis: torch.chunk(x, chunks, axis)), one(1, 3, 1, chunks=[1, 2, 3], axis=anywhere),
        dtypes=REAL),
    row("unstack", lambda x, axis: [np.take(x, k, axis) for k in range(x.shape[axis])], one(1, 3, 1, axis=anywhere)),
    row("meshgrid", lambda *xs, indexing: np.meshgrid(*xs, indexing=indexing), lambda d: (
        [d.array((3,)), d.array(d.pick([(1,), (0,), (5,)]))], {"indexing": d.pick(["xy", "ij"])})),
    row("cartesian_prod", of_torch(torch.cartesian_prod), lambda d: ([d.array((3,)), d.array((2,))], {}), dtypes=REAL),
    row("combinations", of_torch(lambda x, r, repeated: torch.combinations(x, r, repeated)), one(
        1, 1, 2, r=[1, 2], repeated=[True, False]), lambda x, r, repeated: dg.combinations(x, r, repeated), dtypes=REAL),
    row("block_diag", _blocks, lambda d: ([d.array((2, 3)), d.array((1,)), d.array((3, d.pick([0, 1])))], {})),
]  # fmt: skip

# ---------------------------------------------------------------- picking and putting


def taken(d: Any) -> Any:
    shape = d.shape(1, 3, 1)
    axis = d.axis(len(shape))
    return [d.array(shape), d.index(d.shape(0, 2), shape[axis], negative=True)], {"axis": axis}


def elements(d: Any) -> Any:
    """x, places of elements along an axis, and values for them."""
    shape = d.shape(1, 3, 1)
    axis = d.axis(len(shape))
    some = list(shape)
    some[axis] = d.pick([0, 1, 4])
    return [d.array(shape), d.index(some, shape[axis])], {"axis": axis}


def put_elements(d: Any) -> Any:
    (x, index), settings = elements(d)
    # Distinct places: the order of writes to one place is nobody's promise.
    axis, n = settings["axis"], x.shape[settings["axis"]]
    some = list(x.shape)
    some[axis] = min(n, index.shape[axis])
    index = np.argsort(d.rng.random(x.shape), axis=axis).take(range(some[axis]), axis)
    return [x, index, d.array(some)], settings


def add_elements(d: Any) -> Any:
    (x, index), settings = elements(d)
    return [x, index, d.array(index.shape)], settings


def slices(d: Any) -> Any:
    shape = d.shape(1, 3, 1)
    axis = d.axis(len(shape))
    count = d.pick([0, 1, 4])
    some = list(shape)
    some[axis] = count
    return [d.array(shape), d.index((count,), shape[axis]), d.array(some)], {"axis": axis}


def one_slice_each(d: Any) -> Any:
    (x, index, v), settings = slices(d)
    index = np.unique(index)
    return [x, index, v.take(range(len(index)), settings["axis"])], settings


def masked(d: Any) -> Any:
    shape = d.shape(0, 3)
    return [d.array(shape), d.mask(shape)], {}


def _put_along(x: np.ndarray, index: np.ndarray, v: np.ndarray, axis: int) -> np.ndarray:
    x = x.copy()
    np.put_along_axis(x, index, v, axis)
    return x


def _masked_fill(x: np.ndarray, mask: np.ndarray, value: Any) -> np.ndarray:
    return np.where(mask, np.asarray(value, x.dtype), x)


def _swap(name: str) -> Any:
    return of_torch(lambda x, index, v, axis, **kw: getattr(torch, name)(x, axis, index, v, **kw))


def _ours(name: str) -> Any:
    return lambda x, index, v, axis, **kw: getattr(dg, name)(x, axis, index, v, **kw)


def picked(d: Any) -> Any:
    shape = d.shape(2, 3, 1)
    return [d.array(shape), d.index((3, 1), shape[0], True), d.index((4,), shape[1], True)], {}


def _index_put(x: np.ndarray, i: np.ndarray, v: np.ndarray, accumulate: bool) -> np.ndarray:
    x = x.copy()
    if accumulate:
        np.add.at(x, i, v)
    else:
        x[i] = v
    return x


def _reduced(draw: Any, *names: str) -> Any:
    def run(d: Any) -> Any:
        arrays, settings = draw(d)
        return arrays, {**settings, "reduce": d.pick(names)}

    return run


REDUCERS = ("sum", "prod", "mean", "amax", "amin")
PICK = [
    row("take", np.take, taken, lambda x, i, axis: dg.take(x, i, axis=axis)),
    row("index_select", of_torch(lambda x, i, axis: torch.index_select(x, axis, i)), lambda d: slices(d)[0:0] or (
        lambda a, s: (a[:2], s))(*slices(d)), lambda x, i, axis: dg.index_select(x, axis, i), dtypes=REAL),
    row("take_along_axis", np.take_along_axis, elements, lambda x, i, axis: dg.take_along_axis(x, i, axis=axis)),
    row("gather", of_torch(lambda x, i, axis: torch.gather(x, axis, i)), elements, lambda x, i, axis: dg.gather(x, axis, i),
        dtypes=REAL),
    row("gather_nd", lambda x, i: x[tuple(np.moveaxis(i, -1, 0))], lambda d: (
        [d.array((3, 4, *d.shape(0, 1))), np.stack([d.index((5,), 3), d.index((5,), 4)], -1)], {})),
    row("masked_select", lambda x, m: x[m], masked), row("compress", lambda m, x, axis: np.compress(m, x, axis), lambda d: (
        lambda s: ([d.mask((s[0],)), d.array(s)], {"axis": 0}))(d.shape(1))),
    row("masked_fill", _masked_fill, lambda d: (masked(d)[0], {"value": 3}), dtypes=REAL),
    row("masked_scatter", of_torch(torch.masked_scatter), lambda d: (lambda s: (
        [d.array(s), d.mask(s), d.array(s)], {}))(d.shape(1)), dtypes=REAL),
    row("put_along_axis", _put_along, put_elements, lambda x, i, v, axis: dg.put_along_axis(x, i, v, axis=axis)),
    row("scatter", _swap("scatter"), put_elements, _ours("scatter"), dtypes=REAL),
    row("scatter_add", _swap("scatter_add"), add_elements, _ours("scatter_add"), dtypes=REAL, scale=4.0),
    row("scatter_reduce", _swap("scatter_reduce"), _reduced(add_elements, *REDUCERS), _ours("scatter_reduce"), dtypes=FLOATS,
        scale=4.0, slope=True),
    row("scatter_nd", lambda x, i, v: _index_put(x, tuple(np.moveaxis(i, -1, 0)), v, False), lambda d: (
        [d.array((3, 4)), np.array([[0, 1], [2, 3]]), d.array((2,))], {})),
    row("index_add", _swap("index_add"), slices, _ours("index_add"), dtypes=REAL, scale=4.0),
    row("index_copy", _swap("index_copy"), one_slice_each, _ours("index_copy"), dtypes=REAL),
    row("index_reduce", _swap("index_reduce"), _reduced(slices, "prod", "mean", "amax", "amin"), _ours("index_reduce"),
        dtypes=FLOATS, scale=4.0),
    row("index_fill", of_torch(lambda x, i, axis: torch.index_fill(x, axis, i, 2)), lambda d: (
        lambda a, s: (a[:2], s))(*slices(d)), lambda x, i, axis: dg.index_fill(x, axis, i, 2), dtypes=REAL),
    row("index_put", lambda x, i, v, accumulate: _index_put(x, i, v, accumulate), lambda d: (
        [d.array((5, d.pick([1, 18]))), d.rng.permutation(5)[:3], d.array((3, 1))], {"accumulate": d.pick([False, True])}),
        lambda x, i, v, accumulate: dg.index_put(x, i, v, accumulate), dtypes=REAL),
    row("getitem", lambda x, i, j: x[i, j], picked, lambda x, i, j: x[i, j]),
    row("getitem_slices", lambda x, at: x[at], one(2, 3, 2, at=[
        (0,), (..., -1), (slice(None, None, -1),), (slice(1, None, 2), None), (slice(0, 0), 1), (..., slice(-2, None))]),
        lambda x, at: x[at]),
    row("one_hot", of_torch(lambda i, num_classes: F.one_hot(i, num_classes).float()), lambda d: (
        [d.index(d.shape(0, 2), 5)], {"num_classes": 5}), dtypes=("int32",), slope=False),
    row("embedding", of_torch(lambda w, i: F.embedding(i, w)), lambda d: ([d.array((6, d.pick([1, 18]))), d.index(
        d.shape(0, 2), 6)], {}), dtypes=FLOATS),
    row("where", np.where, lambda d: (lambda s: ([d.mask(s), d.array(s), d.array(s)], {}))(d.shape()), lambda c, a, b: dg.where(c, a, b)),
]  # fmt: skip

# ---------------------------------------------------------------- padding, windows


def padded(d: Any) -> Any:
    shape = d.shape(1, 3, 2)
    mode = d.pick(["constant", "reflect", "symmetric", "edge", "wrap"])
    return [d.array(shape)], {"padding": [(d.pick([0, 1]), d.pick([0, 1, 3])) for _ in shape], "mode": mode}


PAD = [row("pad", lambda x, padding, mode: np.pad(x, padding, mode), padded)]
ROWS = SHAPE + JOIN + PICK + PAD
