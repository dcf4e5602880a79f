"""onnx's reference evaluator, with operators of our own where it is wrong or incomplete (onnx 1.18 to 1.23)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx


def evaluator(model: onnx.ModelProto) -> Any:
    """A `ReferenceEvaluator` of a model."""
    from onnx.reference import ReferenceEvaluator

    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)
    return ReferenceEvaluator(model, new_ops=_operators(opset))


def _operators(opset: int) -> list[type]:
    from onnx.reference.op_run import OpRun

    def operator(name: str, run: Any) -> type:
        return type(name, (OpRun,), {"_run": run, "op_domain": ""})

    plain = [operator("TopK", _topk), operator("GatherElements", _gather_elements)]
    plain += [
        operator("CumSum", _cumulative_sum),
        operator("Erf", _erf),
        operator("Gelu", _gelu),
        operator("ReduceLogSumExp", _log_sum_exp),
    ]
    if opset >= 13:
        plain += [operator("Softmax", _softmax), operator("LogSoftmax", _log_softmax)]
    if opset < 19:  # whose forms the evaluator has not
        plain += [operator("QuantizeLinear", _quantize), operator("DequantizeLinear", _dequantize)]
    return [
        _grouped_transpose(),
        _max_pool(),
        _grid_sample(),
        *plain,
        *(operator(n, _recurrent(n)) for n in _GATES),
    ]


def _grouped_transpose() -> type:
    """ConvTranspose group by group: the evaluator's own is right for one group alone."""
    from onnx.reference.ops.op_conv_transpose import ConvTranspose

    def _run(self: Any, x: Any, w: Any, b: Any = None, group: int = 1, **attrs: Any) -> Any:
        parts = [
            np.split(v, group, axis) if v is not None else [None] * group
            for v, axis in ((x, 1), (w, 0), (b, 0))
        ]
        each = [ConvTranspose._run(self, *part, group=1, **attrs)[0] for part in zip(*parts)]
        return (np.concatenate(each, axis=1),)

    return type("ConvTranspose", (ConvTranspose,), {"_run": _run, "op_domain": ""})


def _max_pool() -> type:
    """MaxPool by the evaluator's general way: the quick one, for strides of one, reads past the end of padded axes."""
    from onnx.reference.ops.op_max_pool import MaxPool

    def _run(
        self: Any, x: Any, auto_pad: Any = None, ceil_mode: Any = None, dilations: Any = None, kernel_shape: Any = None,
        pads: Any = None, storage_order: Any = None, strides: Any = None,
    ) -> Any:  # fmt: skip
        return self._max_pool(x, auto_pad, ceil_mode, dilations, kernel_shape, pads, storage_order, strides)

    return type("MaxPool", (MaxPool,), {"_run": _run, "op_domain": ""})


def _grid_sample() -> type:
    """GridSample with places as precise as the grid (the evaluator's own are float32), and 16 bits rounded once."""
    from onnx.reference.ops.op_grid_sample import GridSample

    def places(self: Any, n: Any, dims: Any, align_corners: bool) -> Any:
        return np.array(
            [self._gs_denormalize(v, d, align_corners) for v, d in zip(n, dims)], np.asarray(n).dtype
        )

    def _run(self: Any, x: Any, grid: Any, **attrs: Any) -> Any:
        wide = [v.astype(np.float32) if v.dtype.itemsize == 2 else v for v in (x, grid)]
        return (GridSample._run(self, *wide, **attrs)[0].astype(x.dtype),)

    own = {"_gs_denormalize_coordinates": places, "_run": _run, "op_domain": ""}
    return type("GridSample", (GridSample,), own)


def _spread(v: Any, x: Any, axis: int) -> Any:
    return v.reshape([-1 if a == axis % x.ndim else 1 for a in range(x.ndim)]) if np.ndim(v) == 1 else v


def _quantize(self: Any, x: Any, scale: Any, zero: Any = None, axis: int = 1, **_: Any) -> Any:
    kind = np.uint8 if zero is None else zero.dtype
    shift = 0 if zero is None else _spread(zero, x, axis).astype(x.dtype)
    limits = np.iinfo(kind)
    return (np.clip(np.rint(x / _spread(scale, x, axis)) + shift, limits.min, limits.max).astype(kind),)


def _dequantize(self: Any, x: Any, scale: Any, zero: Any = None, axis: int = 1, **_: Any) -> Any:
    shift = 0 if zero is None else _spread(zero, x, axis).astype(np.int32)
    return ((x.astype(np.int32) - shift).astype(scale.dtype) * _spread(scale, x, axis),)


def _cumulative_sum(self: Any, x: Any, axis: Any, exclusive: int = 0, reverse: int = 0) -> Any:
    """16 bits are added up in float32 and rounded once."""
    wide = x.astype(np.float32) if x.dtype.itemsize == 2 and x.dtype.kind not in "iu" else x
    along = int(np.ravel(axis)[0])
    wide = np.flip(wide, along) if reverse else wide
    found = np.cumsum(wide, along, dtype=wide.dtype)
    if exclusive:
        found = np.roll(found, 1, along)
        found[(slice(None),) * (along % x.ndim) + (slice(0, 1),)] = 0
    return ((np.flip(found, along) if reverse else found).astype(x.dtype),)


_erf_of = np.vectorize(math.erf, otypes=["d"])


def _erf(self: Any, x: Any) -> Any:
    """In float64 (the evaluator's own is rounded to float32)."""
    return (_erf_of(x).astype(x.dtype),)


def _gelu(self: Any, x: Any, approximate: str = "none") -> Any:
    """With that error function (the evaluator expands it with its own)."""
    wide = x.astype(np.float64)
    if approximate == "tanh":
        inner = np.tanh(np.sqrt(2 / np.pi) * (wide + 0.044715 * wide**3))
    else:
        inner = _erf_of(wide / np.sqrt(2))
    return ((0.5 * wide * (1 + inner)).astype(x.dtype),)


def _log_sum_exp(
    self: Any, x: Any, axes: Any = None, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> Any:
    """Of a scalar, too (the evaluator's own writes to what has no memory)."""
    along = None if axes is None or not np.size(axes) else tuple(map(int, np.ravel(axes)))
    if along is None and noop_with_empty_axes:
        return (x.copy(),)
    top = np.max(x, along, keepdims=True, initial=-np.inf)
    top = np.where(np.isfinite(top), top, 0).astype(x.dtype)
    with np.errstate(divide="ignore"):
        made = np.log(np.sum(np.exp(x - top), along, keepdims=True, dtype=x.dtype)) + top
    return (np.asarray(made if keepdims else np.squeeze(made, along), x.dtype),)


def _softmax(self: Any, x: Any, axis: int = -1) -> Any:
    """Of nothing, too (the evaluator's own looks for its largest element)."""
    if not x.size:
        return (x.copy(),)
    powers = np.exp(x - x.max(axis, keepdims=True))
    return ((powers / powers.sum(axis, keepdims=True)).astype(x.dtype),)


def _log_softmax(self: Any, x: Any, axis: int = -1) -> Any:
    """Of any range (the evaluator's own is the logarithm of what may be 0), and of nothing."""
    if not x.size:
        return (x.copy(),)
    shifted = x - x.max(axis, keepdims=True)
    return ((shifted - np.log(np.exp(shifted).sum(axis, keepdims=True))).astype(x.dtype),)


def _gather_elements(self: Any, x: Any, index: Any, axis: int = 0) -> Any:
    """Along axes of any size (the evaluator's own stops at 64)."""
    along = tuple(slice(0, n) if k != axis % x.ndim else slice(None) for k, n in enumerate(index.shape))
    return (np.take_along_axis(x[along], index, axis),)


def _topk(
    self: Any, x: Any, k: Any = None, axis: int = -1, largest: int = 1, sorted: int = 1, **_: Any
) -> Any:
    """Any number of elements; of equal ones the first comes first."""
    lines = np.moveaxis(x, axis, -1)
    if largest:
        order = lines.shape[-1] - 1 - np.argsort(lines[..., ::-1], axis=-1, kind="stable")[..., ::-1]
    else:
        order = np.argsort(lines, axis=-1, kind="stable")
    order = np.moveaxis(order[..., : int(np.ravel(k)[0])], -1, axis)
    return np.take_along_axis(x, order, axis), order.astype(np.int64)


# ---------------------------------------------------------------- recurrent layers, with lengths and both activations

_GATES = {"RNN": 1, "LSTM": 4, "GRU": 3}


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


_ACTIVATIONS = {"Sigmoid": _sigmoid, "Tanh": np.tanh, "Relu": lambda x: np.maximum(x, 0)}


def _recurrent(name: str) -> Any:
    def _run(
        self: Any, x: Any, w: Any, r: Any, b: Any = None, lengths: Any = None, h: Any = None, c: Any = None,
        p: Any = None, activations: Any = None, direction: str = "forward", hidden_size: Any = None,
        linear_before_reset: int = 0, **_: Any,
    ) -> Any:  # fmt: skip
        time, batch = x.shape[:2]
        ways = {"forward": [1], "reverse": [-1], "bidirectional": [1, -1]}[direction]
        lengths = np.full(batch, time) if lengths is None else lengths
        size = r.shape[2]
        results = []
        for k, way in enumerate(ways):
            start = [np.zeros((batch, size), x.dtype) if v is None else v[k] for v in (h, c)]
            bias = np.zeros(2 * _GATES[name] * size, x.dtype) if b is None else b[k]
            names = activations[k * len(activations) // len(ways) :] if activations else _DEFAULTS[name]
            fns = [_ACTIVATIONS[v if isinstance(v, str) else v.decode()] for v in names]
            more = {"peepholes": None if p is None else p[k], "linear": linear_before_reset}
            results.append(_one_way(name, x, w[k], r[k], bias, lengths, start, way, fns, more))
        y = np.stack([v[0] for v in results], axis=1)
        states = [np.stack([v[1][s] for v in results]) for s in range(2 if name == "LSTM" else 1)]
        return (y, *states)

    return _run


_DEFAULTS = {"RNN": ["Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"]}


def _one_way(
    name: str, x: Any, w: Any, r: Any, b: Any, lengths: Any, start: list[Any], way: int, fns: list[Any], more: Any
) -> Any:  # fmt: skip
    """(outputs [T, N, H], last states) of one direction; a sequence's own end is where the reverse one starts."""
    time, batch = x.shape[:2]
    h, c = start[0].copy(), start[1].copy()
    y = np.zeros((time, batch, h.shape[1]), x.dtype)
    for step in range(time):
        places = np.where(way > 0, step, lengths - 1 - step)
        alive = step < lengths
        rows = np.arange(batch)[alive]
        here = places[alive]
        new_h, new_c = _step(name, x[here, rows], h[alive], c[alive], w, r, b, fns, more)
        h[alive], c[alive] = new_h, new_c
        y[here, rows] = new_h
    return y, (h, c)


def _step(
    name: str, x: Any, h: Any, c: Any, w: Any, r: Any, b: Any, fns: list[Any], more: dict[str, Any]
) -> tuple[Any, Any]:
    size = h.shape[1]
    wb, rb = np.split(b, 2)
    from_x, from_h = x @ w.T + wb, h @ r.T + rb
    if name == "RNN":
        return fns[0](from_x + from_h), c
    if name == "GRU":
        f, g = fns
        z, reset = (
            f(from_x[:, k * size : (k + 1) * size] + from_h[:, k * size : (k + 1) * size]) for k in (0, 1)
        )
        if more["linear"]:
            new = g(from_x[:, 2 * size :] + reset * from_h[:, 2 * size :])
        else:
            new = g(from_x[:, 2 * size :] + (reset * h) @ r[2 * size :].T + rb[2 * size :])
        return (1 - z) * new + z * h, c
    f, g, e = fns
    i, o, forget, cell = np.split(from_x + from_h, 4, axis=1)
    pi, po, pf = (0, 0, 0) if more["peepholes"] is None else np.split(more["peepholes"], 3)
    new_c = f(forget + pf * c) * c + f(i + pi * c) * g(cell)
    return f(o + po * new_c) * e(new_c), new_c


__all__ = ["evaluator"]
