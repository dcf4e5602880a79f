"""Importers of new tensors: Constant in its forms, ConstantOfShape, Range, EyeLike, random tensors; If and Loop."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...core import types as T
from ...core.op import REGISTRY as ops
from ...core.ops.creation import eye
from ...core.ops.random import multinomial as draw_classes
from ...core.ops.random import rand, randn
from ...core.value import Tensor
from .coded import Coded, coded, is_coded, moved
from .dtypes import from_code
from .program import as_array, host_tensor
from .table import adapter


@adapter("Constant")
def constant(
    *,
    value=None,
    value_float=None,
    value_floats=None,
    value_int=None,
    value_ints=None,
    value_string=None,
    value_strings=None,
):
    """A tensor that the file holds."""
    if value is not None:
        return value
    for found, dtype in (
        (value_float, np.float32), (value_floats, np.float32), (value_int, np.int64), (value_ints, np.int64),
        (value_string, object), (value_strings, object),
    ):  # fmt: skip
        if found is not None:
            return np.array(found, dtype)
    raise ValueError("Constant without a value")


@adapter("ConstantOfShape", host=("shape",), grows=True)
def constant_of_shape(shape, *, value=None):
    """One number everywhere; float32 zeros when none is given."""
    cell = np.zeros(1, np.float32) if value is None else value
    if is_coded(cell):
        one = coded(cell)
        sizes = tuple(int(n) for n in shape)
        return Coded(
            ops["broadcast_to"](ops["reshape"](one.codes, shape=(1,) * len(sizes)), shape=sizes), one.book
        )
    return ops["full"](cell.item(), shape=tuple(int(n) for n in shape), dtype=T.as_dtype(cell.dtype))


@adapter("Range", host=("start", "limit", "delta"), grows=True)
def range_(start, limit, delta):
    """From start by delta, before limit."""
    first, last, step = (v.item() for v in (start, limit, delta))
    size = max(0, math.ceil((last - first) / step))
    return ops["arange_from"](first, step, size=size, dtype=T.as_dtype(start.dtype))


@adapter("EyeLike", grows=True)
def eye_like(x, *, k=0, dtype=None):
    """Ones on a diagonal of a matrix shaped like x."""
    kind = x.dtype if dtype is None else from_code(dtype)
    return eye(*x.shape, k, kind)


def _uniform(shape: Any, low: float, high: float, dtype: Any) -> Any:
    return rand(tuple(shape), dtype=dtype) * (high - low) + low


def _normal(shape: Any, mean: float, scale: float, dtype: Any) -> Any:
    return randn(tuple(shape), dtype=dtype) * scale + mean


@adapter("RandomUniform", fold=False)
def random_uniform(*, shape, low=0.0, high=1.0, dtype=1, seed=0.0):
    """From duograd's generator; the seed of the file is not used."""
    return _uniform(shape, low, high, from_code(dtype))


@adapter("RandomNormal", fold=False)
def random_normal(*, shape, mean=0.0, scale=1.0, dtype=1, seed=0.0):
    """From duograd's generator; the seed of the file is not used."""
    return _normal(shape, mean, scale, from_code(dtype))


@adapter("RandomUniformLike", fold=False)
def random_uniform_like(x, *, low=0.0, high=1.0, dtype=None, seed=0.0):
    """Shaped like x."""
    return _uniform(x.shape, low, high, x.dtype if dtype is None else from_code(dtype))


@adapter("RandomNormalLike", fold=False)
def random_normal_like(x, *, mean=0.0, scale=1.0, dtype=None, seed=0.0):
    """Shaped like x."""
    return _normal(x.shape, mean, scale, x.dtype if dtype is None else from_code(dtype))


@adapter("Bernoulli", fold=False)
def bernoulli(x, *, dtype=None, seed=0.0):
    """One with probability x."""
    kind = x.dtype if dtype is None else from_code(dtype)
    return ops["less"](rand(x.shape, dtype=T.float32), x).to(kind)


@adapter("Multinomial", fold=False)
def multinomial(x, *, dtype=6, sample_size=1, seed=0.0):
    """Classes drawn with replacement; x holds logarithms of weights."""
    weights = ops["exp"](x - x.max(axis=-1, keepdims=True))
    return draw_classes(weights, sample_size, True).to(from_code(dtype))


# ---------------------------------------------------------------- control flow, decided on the host


@adapter("If", host=("condition",), fold=False, codes="own")
def if_(node, condition, *, then_branch, else_branch):
    """One of two subgraphs; a traced condition ends the graph there."""
    return tuple(node.run(then_branch if bool(np.asarray(condition).ravel()[0]) else else_branch, []))


@adapter("Loop", host=("trips", "condition"), fold=False, codes="own")
def loop(node, trips=None, condition=None, *state, body):
    """A subgraph again and again; outputs beyond the state are stacked."""
    limit = math.inf if trips is None else int(np.asarray(trips).ravel()[0])
    going = condition is None or bool(np.asarray(condition).ravel()[0])
    carried = list(state)
    scanned: list[list[Any]] = [[] for _ in range(len(body.outputs) - 1 - len(carried))]
    k = 0
    while k < limit and going:
        found = node.run(body, [np.array(k, np.int64), np.array(going), *carried])
        going = bool(np.asarray(_host(found[0])).ravel()[0])
        carried = list(found[1 : 1 + len(carried)])
        for row, value in zip(scanned, found[1 + len(carried) :]):
            row.append(value)
        k += 1
    kinds = body.kinds[1 + len(carried) :] or [None] * len(scanned)
    return (*carried, *[_stacked(row, 0, kind) for row, kind in zip(scanned, kinds)])


@adapter("Scan", since=9, fold=False)
def scan(
    node, *xs, body, num_scan_inputs, scan_input_axes=None, scan_input_directions=None, scan_output_axes=None,
    scan_output_directions=None,
):  # fmt: skip
    """A subgraph over slices of the inputs, with a state."""
    n_state = len(xs) - num_scan_inputs
    if not 0 <= n_state < len(xs):
        raise ValueError(f"num_scan_inputs={num_scan_inputs} does not fit {len(xs)} inputs")
    carried, given = list(xs[:n_state]), xs[n_state:]
    axes = scan_input_axes or [0] * len(given)
    back = scan_input_directions or [0] * len(given)
    length = given[0].shape[axes[0]]
    n_out = len(body.outputs) - n_state
    scanned: list[list[Any]] = [[] for _ in range(n_out)]
    for k in range(length):
        parts = []
        for x, a, b in zip(given, axes, back):
            index: list[Any] = [slice(None)] * x.ndim
            index[a] = length - 1 - k if b else k
            parts.append(x[tuple(index)])
        found = node.run(body, [*carried, *parts])
        if [np.shape(v) for v in found[:n_state]] != [np.shape(v) for v in carried]:
            raise ValueError("a state changes its shape, which Scan does not allow")
        carried = list(found[:n_state])
        for row, value in zip(scanned, found[n_state:]):
            row.append(value)
    out_axes = scan_output_axes or [0] * n_out
    out_back = scan_output_directions or [0] * n_out
    stacked = [_stacked(row[::-1] if b else row, a) for row, a, b in zip(scanned, out_axes, out_back)]
    return (*carried, *stacked)


def _host(value: Any) -> Any:
    return as_array(value)


@adapter("Scan", since=8, host=("lengths",), fold=False)
def scan_8(node, lengths=None, *xs, body, num_scan_inputs, directions=None):
    """Axis 0 is the batch, axis 1 is scanned; beyond a row's length its scan outputs are 0."""
    n_state = len(xs) - num_scan_inputs
    rows = []
    for b in range(xs[-1].shape[0]):
        size = xs[-1].shape[1] if lengths is None else int(lengths[b])
        given = [x[b] for x in xs[:n_state]] + [x[b, :size] for x in xs[n_state:]]
        found = scan(
            node, *given, body=body, num_scan_inputs=num_scan_inputs, scan_input_directions=directions
        )
        room = xs[-1].shape[1] - size
        wide = [ops["pad"](y, padding=((0, room),) + ((0, 0),) * (y.ndim - 1)) for y in found[n_state:]]
        rows.append([*found[:n_state], *wide])
    return tuple(ops["stack"]([row[k] for row in rows], axis=0) for k in range(len(rows[0])))


def _stacked(row: list[Any], axis: int, kind: Any = None) -> Any:
    if not row:
        if not kind or not kind[0] or kind[1] is None:
            raise ValueError(
                "a loop that runs zero times has no scan outputs to stack, and the file has no types"
            )
        return ops["full"](0, shape=(0, *kind[1]), dtype=from_code(kind[0]))
    if any(map(is_coded, row)):
        return moved("Loop", lambda parts: ops["stack"](parts[0], axis=axis), [row], None)
    if any(isinstance(v, Tensor) for v in row):
        return ops["stack"]([v if isinstance(v, Tensor) else host_tensor(v) for v in row], axis=axis)
    return np.stack(row, axis=axis)
