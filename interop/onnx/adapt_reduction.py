"""Importers of reductions (axes as attribute and as input), arg reductions, running sums and products."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...core import types as T
from ...core.op import REGISTRY as ops
from ...core.ops.scan import shift
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


def _scan(name: str, start: int) -> Any:
    def run(x, axis, *, exclusive=0, reverse=0):
        axis = int(axis) % x.ndim
        out = ops[name](x, axis=axis, dtype=x.dtype, reverse=bool(reverse))
        return shift(out, axis, -1 if reverse else 1, start) if exclusive else out

    return run


adapter("CumSum", host=("axis",))(_scan("cumsum", 0))
adapter("CumProd", since=1, host=("axis",))(_scan("cumprod", 1))
