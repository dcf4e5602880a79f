"""Importers of reductions (axes as attribute and as input), arg reductions, cumulative sums and TopK."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...core import types as T
from ...core.op import REGISTRY as ops
from .table import adapter


def _sum(x: Any, axis: Any, keepdims: bool) -> Any:
    return ops["sum"](x, axis=axis, keepdims=keepdims).to(x.dtype)


def _logsumexp(x: Any, axis: Any, keepdims: bool) -> Any:
    wide = x if x.dtype.is_float else x.to(T.float64)
    if x.size == 0:
        return ops["log"](ops["sum"](wide, axis=axis, keepdims=keepdims)).to(x.dtype)
    return ops["logsumexp"](wide, axis=axis, keepdims=keepdims).to(x.dtype)


def _mean(x: Any, axis: Any, keepdims: bool) -> Any:
    return ops["mean"](x, axis=axis, keepdims=keepdims).to(x.dtype)


def _extreme(name: str) -> Any:
    def run(x: Any, axis: Any, keepdims: bool) -> Any:
        if x.size == 0:
            # ONNX gives the neutral element where duograd refuses.
            low = name == "max"
            if x.dtype.is_float:
                value: Any = -np.inf if low else np.inf
            else:
                value = (
                    not low
                    if x.dtype is T.bool_
                    else np.iinfo(x.dtype.np).min
                    if low
                    else np.iinfo(x.dtype.np).max
                )
            axes = T.normalize_axes(name, axis, x.ndim)
            shape = tuple(1 if a in axes else n for a, n in enumerate(x.shape) if keepdims or a not in axes)
            return ops["full"](value, shape=shape, dtype=x.dtype)
        if x.dtype is T.bool_:
            return ops[name](x.to(T.int32), axis=axis, keepdims=keepdims).to(T.bool_)
        return ops[name](x, axis=axis, keepdims=keepdims)

    return run


def _norm2(x: Any, axis: Any, keepdims: bool) -> Any:
    total = _sum(x * x, axis, keepdims)
    return ops["sqrt"](total).to(x.dtype)


_REDUCTIONS = {
    "ReduceSum": (_sum, 13),
    "ReduceMean": (_mean, 18),
    "ReduceMax": (_extreme("max"), 18),
    "ReduceMin": (_extreme("min"), 18),
    "ReduceProd": (lambda x, a, k: ops["prod"](x, axis=a, keepdims=k).to(x.dtype), 18),
    "ReduceLogSumExp": (_logsumexp, 18),
    "ReduceL1": (lambda x, a, k: _sum(ops["abs"](x), a, k), 18),
    "ReduceL2": (_norm2, 18),
    "ReduceLogSum": (lambda x, a, k: ops["log"](_sum(x, a, k)).to(x.dtype), 18),
    "ReduceSumSquare": (lambda x, a, k: _sum(x * x, a, k), 18),
}


def _enter(name: str, fn: Any, since: int) -> None:
    @adapter(name, since=1)
    def old(x, *, axes=None, keepdims=1):
        return fn(x, tuple(axes) if axes else None, bool(keepdims))

    #: what an element becomes when no axis is reduced
    element = {
        "ReduceSumSquare": lambda x: x * x, "ReduceL1": ops["abs"], "ReduceL2": ops["abs"], "ReduceLogSum": ops["log"]
    }.get(name, ops["assign"])  # fmt: skip

    @adapter(name, since=since, host=("axes",))
    def new(x, axes=None, *, keepdims=1, noop_with_empty_axes=0):
        if axes is None or axes.size == 0:
            return element(x) if noop_with_empty_axes else fn(x, None, bool(keepdims))
        return fn(x, tuple(int(a) for a in axes), bool(keepdims))


for _name, (_fn, _since) in _REDUCTIONS.items():
    _enter(_name, _fn, _since)


def _arg(name: str) -> Any:
    def run(x, *, axis=0, keepdims=1, select_last_index=0):
        if not select_last_index:
            return ops[name](x, axis=axis, keepdims=bool(keepdims))
        from .adapt_shape import reverse

        n = x.shape[axis]
        return n - 1 - ops[name](reverse(x, axis), axis=axis, keepdims=bool(keepdims))

    return run


adapter("ArgMax")(_arg("argmax"))
adapter("ArgMin")(_arg("argmin"))


@adapter("CumProd", since=1, host=("axis",))
def cumprod(x, axis, *, exclusive=0, reverse=0):
    """Products one slice at a time."""
    a = int(axis) % x.ndim
    parts = list(ops["split"](x, sizes=(1,) * x.shape[a], axis=a))
    if reverse:
        parts.reverse()
    out, total = [], None
    for part in parts:
        before = total
        total = part if total is None else (total * part).to(x.dtype)
        out.append(
            total
            if not exclusive
            else ops["full"](1, shape=part.shape, dtype=x.dtype)
            if before is None
            else before
        )
    return ops["concat"](out[::-1] if reverse else out, axis=a)


@adapter("CumSum", host=("axis",))
def cumsum(x, axis, *, exclusive=0, reverse=0):
    """A product with a triangle of ones."""
    a = int(axis) % x.ndim
    n = x.shape[a]
    i = ops["arange_from"](0, 1, size=n, dtype=T.int64)
    row, column = ops["expand_dims"](i, axis=1), ops["expand_dims"](i, axis=0)
    if reverse:
        row, column = column, row
    keep = ops["greater"](column, row) if exclusive else ops["greater_equal"](column, row)
    triangle = keep.to(x.dtype)
    if a != x.ndim - 1:
        x = ops["transpose"](x, axis1=a, axis2=-1)
    out = ops["matmul"](x, triangle)
    return out if a == out.ndim - 1 else ops["transpose"](out, axis1=a, axis2=-1)
