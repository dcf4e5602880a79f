"""Importers of recurrent layers: RNN, GRU, LSTM, whole where they are the usual ones, else step by step in ops."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...core.errors import OnnxError
from ...core.op import REGISTRY as ops
from .program import as_array, host_tensor
from .table import adapter

_ACTIVATIONS: dict[str, Any] = {
    "tanh": lambda x, a, b: ops["tanh"](x),
    "sigmoid": lambda x, a, b: ops["sigmoid"](x),
    "relu": lambda x, a, b: ops["relu"](x),
    "affine": lambda x, a, b: x * a + b,
    "leakyrelu": lambda x, a, b: ops["leaky_relu"](x, negative_slope=0.01 if a is None else a),
    "elu": lambda x, a, b: ops["elu"](x, alpha=1.0 if a is None else a),
    "hardsigmoid": lambda x, a, b: ops["clip"](
        x * (0.2 if a is None else a) + (0.5 if b is None else b), min=0.0, max=1.0
    ),
    "softsign": lambda x, a, b: x / (1 + ops["abs"](x)),
    "softplus": lambda x, a, b: ops["softplus"](x),
}


def _functions(
    names: Any, alpha: Any, beta: Any, default: list[str], directions: int, clip: float | None
) -> list[Any]:
    """Activations by direction; alpha and beta are given to those that take them, in order."""
    names = [n.lower() for n in names] if names else default * directions
    alphas, betas = list(alpha or []), list(beta or [])
    found = []
    for n in names:
        if n not in _ACTIVATIONS:
            raise OnnxError(
                "onnx.load", f"the activation {n} is not supported", f"use one of {', '.join(_ACTIVATIONS)}"
            )
        a = alphas.pop(0) if alphas and n in ("affine", "leakyrelu", "elu", "hardsigmoid") else None
        b = betas.pop(0) if betas and n in ("affine", "hardsigmoid") else None

        def apply(x, n=n, a=a, b=b):
            x = x if clip is None else ops["clip"](x, min=-clip, max=clip)
            return _ACTIVATIONS[n](x, a, b)

        found.append(apply)
    each = len(found) // directions
    return [found[k * each : (k + 1) * each] for k in range(directions)]


def _layer(
    cell: Any,
    gates: int,
    x: Any,
    w: Any,
    r: Any,
    b: Any,
    lengths: Any,
    state: list[Any],
    fns: list[Any],
    reverse: bool,
) -> tuple[Any, list[Any]]:
    """One direction: all outputs [T, N, H] and the last state."""
    steps = x.shape[0]
    hidden = r.shape[-1]
    wt, rt = ops["transpose"](w), ops["transpose"](r)
    half = gates * hidden
    wb = None if b is None else ops["slice"](b, index=(slice(0, half),))
    rb = None if b is None else ops["slice"](b, index=(slice(half, 2 * half),))
    inputs = ops["matmul"](x, wt)  # [T, N, gates * H]
    inputs = inputs if wb is None else inputs + wb
    outputs: list[Any] = [None] * steps
    for k in range(steps - 1, -1, -1) if reverse else range(steps):
        new = cell(inputs[k], state, rt, rb, fns, hidden)
        if lengths is not None:
            alive = host_tensor((lengths > k).reshape(-1, 1))
            outputs[k] = ops["where"](alive, new[0], 0.0)
            state = [ops["where"](alive, n, s) for n, s in zip(new, state)]
        else:
            state = list(new)
            outputs[k] = state[0]
    return ops["stack"](outputs, axis=0), state


def _split(x: Any, n: int, hidden: int) -> Any:
    return ops["split"](x, sizes=(hidden,) * n, axis=-1)


def _rnn_cell(x, state, rt, rb, fns, hidden):
    h = ops["matmul"](state[0], rt)
    return [fns[0](x + (h if rb is None else h + rb))]


def _gru_cell(reset_after: bool) -> Any:
    def cell(x, state, rt, rb, fns, hidden):
        h = state[0]
        xz, xr, xh = _split(x, 3, hidden)
        tz, tr, th = _split(rt, 3, hidden)
        bz, br, bh = _split(rb, 3, hidden) if rb is not None else (None, None, None)

        def recurrent(v, t, bias):
            y = ops["matmul"](v, t)
            return y if bias is None else y + bias

        z = fns[0](xz + recurrent(h, tz, bz))
        r = fns[0](xr + recurrent(h, tr, br))
        inner = r * recurrent(h, th, bh) if reset_after else recurrent(r * h, th, bh)
        n = fns[1](xh + inner)
        return [(1 - z) * n + z * h]

    return cell


def _lstm_cell(peephole: Any, input_forget: bool) -> Any:
    def cell(x, state, rt, rb, fns, hidden):
        h, c = state
        y = x + ops["matmul"](h, rt)
        y = y if rb is None else y + rb
        i, o, f, g = _split(y, 4, hidden)
        if peephole is not None:
            pi, po, pf = _split(peephole, 3, hidden)
            i, f = i + pi * c, f + pf * c
        i = fns[0](i)
        f = 1 - i if input_forget else fns[0](f)
        new = f * c + i * fns[1](g)
        o = fns[0](o if peephole is None else o + po * new)
        return [o * fns[2](new), new]

    return cell


def _run(
    node: Any, make_cell: Any, gates: int, n_state: int, x: Any, w: Any, r: Any, b: Any, lengths: Any,
    initial: list[Any], direction: str, layout: int, fns: list[Any],
) -> Any:  # fmt: skip
    if layout:
        x = ops["permute"](x, axes=(1, 0, 2))
        initial = [s if s is None else ops["permute"](s, axes=(1, 0, 2)) for s in initial]
    if lengths is not None:
        lengths = as_array(lengths)
        lengths = None if (lengths == x.shape[0]).all() else lengths
    zero = ops["full"](0.0, shape=(x.shape[1], r.shape[-1]), dtype=x.dtype)
    outputs, finals = [], []
    for d in range(w.shape[0]):
        state = [zero if s is None else s[d] for s in initial]
        back = direction == "reverse" or d == 1
        bias = None if b is None else b[d]
        out, last = _layer(make_cell(d), gates, x, w[d], r[d], bias, lengths, state[:n_state], fns[d], back)
        outputs.append(out)
        finals.append(last)
    y = ops["stack"](outputs, axis=1)  # [T, D, N, H]
    ends = [ops["stack"]([f[k] for f in finals], axis=0) for k in range(n_state)]
    if layout:
        y = ops["permute"](y, axes=(2, 0, 1, 3))
        ends = [ops["permute"](e, axes=(1, 0, 2)) for e in ends]
    return (y, *ends)[: node.n_outputs]


def _fused(node, make, gates, n_state, x, w, r, b, lengths, initial, direction, layout, order):
    """The layers as whole-sequence ops; `order`: ONNX's gates in duograd's order."""
    if layout:
        x = ops["permute"](x, axes=(1, 0, 2))
        initial = [s if s is None else ops["permute"](s, axes=(1, 0, 2)) for s in initial]
    if lengths is not None:
        lengths = lengths.to("int64")
    hidden = r.shape[-1]
    rows = np.concatenate([np.arange(k * hidden, (k + 1) * hidden) for k in order])
    arrange = lambda v: v if len(order) == 1 else ops["take"](v, host_tensor(rows), axis=0)
    outputs, finals = [], []
    for d in range(w.shape[0]):
        weights = [arrange(w[d]), arrange(r[d]), None, None]
        if b is not None:
            weights[2:] = [arrange(v) for v in ops["split"](b[d], sizes=(gates * hidden,) * 2, axis=0)]
        states = [s if s is None else s[d] for s in initial]
        y, *last = make(x, *weights, *states, lengths, reverse=direction == "reverse" or d == 1)
        outputs.append(y)
        finals.append(last)
    y = ops["stack"](outputs, axis=1)
    ends = [ops["stack"]([f[k] for f in finals], axis=0) for k in range(n_state)]
    if layout:
        y = ops["permute"](y, axes=(2, 0, 1, 3))
        ends = [ops["permute"](e, axes=(1, 0, 2)) for e in ends]
    return (y, *ends)[: node.n_outputs]


def _plain(activations, default, directions, clip):
    """The one name of all directions' activations when they are `default`'s, else None."""
    names = [n.lower() for n in activations] if activations else default * directions
    return (
        names[0]
        if clip is None
        and (names == default * directions or (len(default) == 1 and names == names[:1] * directions))
        else None
    )


@adapter("RNN", fold=False)
def rnn(
    node, x, w, r, b=None, lengths=None, h=None, *, hidden_size=None, direction="forward", layout=0, activations=None,
    activation_alpha=None, activation_beta=None, clip=None,
):  # fmt: skip
    """h = f(x W' + h R' + b)."""
    kind = _plain(activations, ["tanh"], w.shape[0], clip)
    if kind in ("tanh", "relu"):
        make = lambda *args, reverse: ops["rnn_layer"](*args, nonlinearity=kind, reverse=reverse)
        return _fused(node, make, 1, 1, x, w, r, b, lengths, [h], direction, layout, [0])
    fns = _functions(activations, activation_alpha, activation_beta, ["tanh"], w.shape[0], clip)
    return _run(node, lambda d: _rnn_cell, 1, 1, x, w, r, b, lengths, [h], direction, layout, fns)


@adapter("GRU", fold=False)
def gru(
    node, x, w, r, b=None, lengths=None, h=None, *, hidden_size=None, direction="forward", layout=0, activations=None,
    activation_alpha=None, activation_beta=None, clip=None, linear_before_reset=0,
):  # fmt: skip
    """Gates in the order z, r, h."""
    if linear_before_reset and _plain(activations, ["sigmoid", "tanh"], w.shape[0], clip) == "sigmoid":
        return _fused(node, ops["gru_layer"], 3, 1, x, w, r, b, lengths, [h], direction, layout, [1, 0, 2])
    fns = _functions(activations, activation_alpha, activation_beta, ["sigmoid", "tanh"], w.shape[0], clip)
    cell = _gru_cell(bool(linear_before_reset))
    return _run(node, lambda d: cell, 3, 1, x, w, r, b, lengths, [h], direction, layout, fns)


@adapter("LSTM", fold=False)
def lstm(
    node, x, w, r, b=None, lengths=None, h=None, c=None, p=None, *, hidden_size=None, direction="forward", layout=0,
    activations=None, activation_alpha=None, activation_beta=None, clip=None, input_forget=0,
):  # fmt: skip
    """Gates in the order i, o, f, c; optional peepholes."""
    plain = _plain(activations, ["sigmoid", "tanh", "tanh"], w.shape[0], clip) == "sigmoid"
    if plain and p is None and not input_forget:
        return _fused(
            node, ops["lstm_layer"], 4, 2, x, w, r, b, lengths, [h, c], direction, layout, [0, 2, 3, 1]
        )
    fns = _functions(
        activations, activation_alpha, activation_beta, ["sigmoid", "tanh", "tanh"], w.shape[0], clip
    )
    make = lambda d: _lstm_cell(None if p is None else p[d], bool(input_forget))
    return _run(node, make, 4, 2, x, w, r, b, lengths, [h, c], direction, layout, fns)
