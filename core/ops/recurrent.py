"""Whole-sequence recurrent layers: one op runs all steps of one layer in one direction.

The input's projection is a matrix product over all steps before it; gradients of weights are such products
after the walk back through time. Gradients of gradients run step by step in ops.
"""

# Gradient rules are named after the input they are for, so names repeat here.
from __future__ import annotations

import numpy as np

from .. import dispatch
from .. import types as T
from ..errors import ArgumentError, DtypeError, ShapeError
from ..op import Ints, composite, primitive
from ..types import TensorType
from . import elementwise as E
from .creation import arange, zeros
from .linalg import linear, matmul
from .reduction import sum_
from .shape import concat, permute, reshape, slice_, split, stack

#: Gates of a cell: rows of its weights in units of the hidden size.
GATES = {"tanh": 1, "relu": 1, "lstm": 4, "gru": 3}


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _np_step(cell, x, w, h, c, b):
    """(new h, new c, gates) of rows in NumPy."""
    u = h @ w.T
    if cell in ("tanh", "relu"):
        return (np.tanh(x + u) if cell == "tanh" else np.maximum(x + u, 0)), None, None
    hidden = h.shape[1]
    part = lambda a, k: a[:, k * hidden : (k + 1) * hidden]
    if cell == "lstm":
        i, f, o = (_sigmoid(part(x + u, k)) for k in (0, 1, 3))
        g = np.tanh(part(x + u, 2))
        new = f * c + i * g
        return o * np.tanh(new), new, np.concatenate([i, f, g, o], axis=1)
    u = u + b
    r, z = (_sigmoid(part(x, k) + part(u, k)) for k in (0, 1))
    n = np.tanh(part(x, 2) + r * part(u, 2))
    return n + z * (h - n), None, np.concatenate([r, z, n, part(u, 2)], axis=1)


def _order(steps, reverse):
    return range(steps - 1, -1, -1) if reverse else range(steps)


@primitive(internal=True, parts="recurrent")
def recurrent(x, w, h0, c0=None, b=None, lengths=None, *, cell, reverse=False):
    """All steps of a recurrent layer: the outputs, the last state, and what its gradient needs.

    x: float[T, N, gates * H] inputs times their weights, with biases; w: float[gates * H, H]; h0, c0: float[N, H]
    (c0 for "lstm"); b: float[gates * H] added to the state's product ("gru"); lengths: int64[N], each row's
    number of steps (T when None, and where it is more); cell: "tanh", "relu", "lstm" (gates i f g o) or "gru" (r z n).
    Returns: y[T, N, H], 0 beyond a row's length; h[N, H]; "lstm" also c[N, H], its gates[T, N, 4 * H] and cells
    [T, N, H]; "gru" its gates and the state's share of the last one, [T, N, 4 * H].
    """
    steps, rows = x.shape[:2]
    hidden = w.shape[1]
    h, c = h0.copy(), None if c0 is None else c0.copy()
    y = np.zeros((steps, rows, hidden), x.dtype)
    gates, cells = np.zeros((steps, rows, 4 * hidden), x.dtype), np.zeros((steps, rows, hidden), x.dtype)
    for t in _order(steps, reverse):
        live = np.ones(rows, bool) if lengths is None else lengths > t
        new, cell_state, made = _np_step(cell, x[t][live], w, h[live], None if c is None else c[live], b)
        h[live] = y[t, live] = new
        if made is not None:
            gates[t, live] = made
        if cell_state is not None:
            c[live] = cells[t, live] = cell_state
    return {"lstm": (y, h, c, gates, cells), "gru": (y, h, gates)}.get(cell, (y, h))


@recurrent.type
def _(x, w, h0, c0=None, b=None, lengths=None, *, cell, reverse):
    op = "recurrent"
    if cell not in GATES:
        raise ArgumentError(op, f"cell={cell!r} is not known", f"use one of {', '.join(GATES)}")
    if x.ndim != 3 or w.ndim != 2 or w.shape[0] != GATES[cell] * w.shape[1] or x.shape[2] != w.shape[0]:
        raise ShapeError(op, f"x: {x} and w: {w} do not fit {cell}", "x[T, N, gates * H], w[gates * H, H]")
    given = {"x": x, "w": w, "h0": h0, "c0": c0, "b": b}
    if not x.dtype.is_float or any(v is not None and v.dtype is not x.dtype for v in given.values()):
        words = ", ".join(f"{k}: {v}" for k, v in given.items() if v is not None)
        raise DtypeError(op, f"{words} differ in dtype or are no floats", "convert with .to")
    steps, rows, hidden = *x.shape[:2], w.shape[1]
    for name, v in (("h0", h0), ("c0", c0)):
        if v is not None and v.shape != (rows, hidden):
            raise ShapeError(op, f"{name}: {v} is not the state of x: {x}", f"make it [{rows}, {hidden}]")
    if lengths is not None and (lengths.dtype is not T.int64 or lengths.shape != (rows,)):
        raise ShapeError(op, f"lengths: {lengths} is not int64[{rows}]", "one length for each row")
    y, h = TensorType(x.dtype, (steps, rows, hidden)), TensorType(x.dtype, (rows, hidden))
    gates = TensorType(x.dtype, (steps, rows, 4 * hidden))
    return {"lstm": (y, h, h, gates, y), "gru": (y, h, gates)}.get(cell, (y, h))


def _step(cell, x, w_t, h, c, b):
    """The same as `_np_step`, in ops."""
    u = matmul(h, w_t)
    if cell == "tanh":
        return E.tanh(x + u), None, None
    if cell == "relu":
        return E.maximum(x + u, 0.0), None, None
    sizes = (h.shape[1],) * GATES[cell]
    if cell == "lstm":
        i, f, g, o = split(x + u, sizes=sizes, axis=-1)
        i, f, g, o = E.sigmoid(i), E.sigmoid(f), E.tanh(g), E.sigmoid(o)
        new = f * c + i * g
        return o * E.tanh(new), new, concat([i, f, g, o], axis=-1)
    xr, xz, xn = split(x, sizes=sizes, axis=-1)
    ur, uz, un = split(u + b, sizes=sizes, axis=-1)
    r, z = E.sigmoid(xr + ur), E.sigmoid(xz + uz)
    n = E.tanh(xn + r * un)
    return n + z * (h - n), None, concat([r, z, n, un], axis=-1)


def _step_by_step(x, w, h, c, b, lengths, cell, reverse):
    """The results of `recurrent`, in ops."""
    steps = x.shape[0]
    w_t = permute(w, axes=(1, 0))
    rows: dict[str, list] = {"y": [None] * steps, "gates": [None] * steps, "cells": [None] * steps}
    for t in _order(steps, reverse):
        new, state, gates = _step(cell, x[t], w_t, h, c, b)
        if lengths is None:
            h, c, out = new, state, new
        else:
            live = reshape(E.greater(lengths, t), shape=(-1, 1))
            h, out = E.where(live, new, h), E.where(live, new, 0.0)
            gates = gates if gates is None else E.where(live, gates, 0.0)
            if state is not None:
                c, state = E.where(live, state, c), E.where(live, state, 0.0)
        rows["y"][t], rows["gates"][t], rows["cells"][t] = out, gates, state
    y = stack(rows["y"], axis=0)
    if cell == "lstm":
        return y, h, c, stack(rows["gates"], axis=0), stack(rows["cells"], axis=0)
    return (y, h, stack(rows["gates"], axis=0)) if cell == "gru" else (y, h)


def _differentiable_grads(gs, x, w, h0, c0, b, lengths, cell, reverse):
    """Gradients as ops that can be differentiated again."""
    from ..vjp import walk

    inputs = [v if v is None else v.clone() for v in (x, w, h0, c0, b)]
    for v in inputs:
        if v is not None and not v.requires_grad:
            v.requires_grad_()
    outputs = _step_by_step(*inputs, lengths, cell, reverse)
    targets = [v for v in inputs if v is not None]
    found = iter(walk(list(outputs), list(gs), targets, create_graph=True, retain_graph=True))
    return *(None if v is None else next(found) for v in inputs), None


def _before(states, start, lengths, reverse):
    """The state that each step begins with. states: [T, N, H] after the steps; start: [N, H]."""
    steps, first = states.shape[0], reshape(start, shape=(1, *start.shape))
    if not reverse:
        return concat([first, slice_(states, index=(slice(0, steps - 1),))], axis=0)
    before = concat([slice_(states, index=(slice(1, None),)), first], axis=0)
    if lengths is None:
        return before
    # A row that ends early starts at its own end.
    ends = E.minimum(lengths, steps)
    last = E.equal(reshape(arange(1, steps + 1, device=states.device), shape=(-1, 1)), ends)
    return E.where(reshape(last, shape=(steps, -1, 1)), first, before)


@recurrent.grad_joint
def _(gs, x, w, h0, c0, b, lengths, outs, cell, reverse):
    if dispatch.state.grad and x.shape[0]:
        return _differentiable_grads(gs, x, w, h0, c0, b, lengths, cell, reverse)
    y, steps = outs[0], x.shape[0]
    gates = outs[-2] if cell == "lstm" else outs[2] if cell == "gru" else None
    cells, g_c = (outs[4], gs[2]) if cell == "lstm" else (None, None)
    made = recurrent_grad(gs[0], gs[1], w, y, h0, g_c, c0, gates, cells, lengths, cell=cell, reverse=reverse)
    dx, dh = made[:2]
    du = made[2] if cell == "gru" else dx
    dw = w * 0.0
    if steps:
        before = _before(y, h0, lengths, reverse)
        flat = reshape(du, shape=(-1, w.shape[0]))
        dw = matmul(permute(flat, axes=(1, 0)), reshape(before, shape=(-1, w.shape[1])))
    db = sum_(du, axis=(0, 1)) if b is not None else None
    return dx, dw, dh, made[2] if cell == "lstm" else None, db, None


recurrent.sample((3, 2, 4), (4, 4), (2, 4), cell="tanh")
recurrent.sample((3, 2, 12), (12, 3), (2, 3), (2, 3), None, Ints((2,), 1, 4), cell="lstm", reverse=True)
recurrent.sample((3, 4, 9), (9, 3), (4, 3), None, (9,), Ints((4,), 1, 4), cell="gru")
recurrent.sample((0, 2, 4), (4, 4), (2, 4), cell="relu", low=0.5, grad=False)
recurrent.error_sample((3, 2, 5), (4, 4), (2, 4), cell="tanh", match="do not fit")


@primitive(
    internal=True,
    parts="recurrent_grad",
    no_gradient="recurrent differentiates its gradient step by step in ops",
)
def recurrent_grad(
    dy, dh, w, y, h0, dc=None, c0=None, gates=None, cells=None, lengths=None, *, cell, reverse=False
):
    """The gradients of recurrent's x, h0 and, of "lstm", c0; of "gru" also that of the state's product."""
    steps, rows, hidden = y.shape
    dh = dh.copy()
    dc = None if dc is None else dc.copy()
    dx = np.zeros((steps, rows, GATES[cell] * hidden), y.dtype)
    du = np.zeros_like(dx)
    part = lambda a, k: a[:, k * hidden : (k + 1) * hidden]
    for t in reversed(_order(steps, reverse)):
        live = np.ones(rows, bool) if lengths is None else lengths > t
        end = np.full(rows, steps) if lengths is None else np.minimum(lengths, steps)
        earlier = t + 1 if reverse else t - 1
        inside = (earlier >= 0) & (earlier < end)
        previous = lambda a, start, e=earlier, keep=inside: np.where(
            keep[:, None], a[np.clip(e, 0, steps - 1)], start
        )
        g = dy[t] + dh
        if cell in ("tanh", "relu"):
            made = [g * (1 - y[t] ** 2) if cell == "tanh" else g * (y[t] > 0)]
            through, state = made, 0
        elif cell == "lstm":
            i, f, c, o = (part(gates[t], k) for k in range(4))
            bent = np.tanh(cells[t])
            gc = dc + g * o * (1 - bent**2)
            made = [gc * c * i * (1 - i), gc * previous(cells, c0) * f * (1 - f), gc * i * (1 - c**2)]
            made.append(g * bent * o * (1 - o))
            dc = np.where(live[:, None], gc * f, dc)
            through, state = made, 0
        else:
            r, z, n, u = (part(gates[t], k) for k in range(4))
            gn = g * (1 - z) * (1 - n**2)
            gr, gz = gn * u * r * (1 - r), g * (previous(y, h0) - n) * z * (1 - z)
            made, through, state = [gr, gz, gn], [gr, gz, gn * r], g * z
        row, through = np.concatenate(made, axis=1), np.concatenate(through, axis=1)
        dx[t], du[t] = np.where(live[:, None], row, 0), np.where(live[:, None], through, 0)
        dh = np.where(live[:, None], through @ w + state, dh)
    return {"lstm": (dx, dh, dc), "gru": (dx, dh, du)}.get(cell, (dx, dh))


@recurrent_grad.type
def _(dy, dh, w, y, h0, dc=None, c0=None, gates=None, cells=None, lengths=None, *, cell, reverse):
    dx = TensorType(y.dtype, (*y.shape[:2], w.shape[0]))
    state = TensorType(y.dtype, h0.shape)
    return {"lstm": (dx, state, state), "gru": (dx, state, dx)}.get(cell, (dx, state))


recurrent_grad.sample((3, 2, 4), (2, 4), (4, 4), (3, 2, 4), (2, 4), cell="tanh")


# ---------------------------------------------------------------- layers


def _project(op, x, w_ih, w_hh, b_ih, b_hh, gates):
    """x @ w_ih' + biases, checked; the GRU adds b_hh inside."""
    hidden = w_hh.shape[-1]
    if x.ndim != 3 or not x.dtype.is_float:
        raise ShapeError(
            op, f"x: {x.type} is not float[T, N, C]", "put the steps first: x[steps, batch, features]"
        )
    if w_ih.shape != (gates * hidden, x.shape[2]) or w_hh.shape != (gates * hidden, hidden):
        raise ShapeError(
            op, f"w_ih: {w_ih.type} and w_hh: {w_hh.type} do not fit x: {x.type}", f"make them [{gates} * H, C] and "
            f"[{gates} * H, H]",
        )  # fmt: skip
    for name, b in (("b_ih", b_ih), ("b_hh", b_hh)):
        if b is not None and b.shape != w_hh.shape[:1]:
            raise ShapeError(
                op, f"{name}: {b.type} is not one number for each row of w_hh: {w_hh.type}", "check it"
            )
    bias = b_ih if b_hh is None or op == "gru_layer" else b_hh if b_ih is None else b_ih + b_hh
    return linear(x, w_ih, bias)


def _state(x, w_hh, h):
    return zeros((x.shape[1], w_hh.shape[1]), dtype=x.dtype, device=x.device) if h is None else h


def _onnx_layer(name, order, n_state):
    """The rule of a layer; order: the gates of duograd in ONNX's order."""

    def build(o, x, w_ih, w_hh, b_ih=None, b_hh=None, *rest, reverse, nonlinearity="tanh"):
        states, lengths = rest[:n_state], rest[n_state] if len(rest) > n_state else None
        hidden = w_hh.shape[1]

        def arranged(v):
            if v is None:
                return o.full((len(order) * hidden,), 0.0, x.dtype)
            if order == sorted(order):
                return v
            rows = np.concatenate([np.arange(k * hidden, (k + 1) * hidden) for k in order])
            return o.Gather(v, o.literal(rows.astype(np.int64)), axis=0)

        one = o.ints((0,))
        w, r = (o.Unsqueeze(arranged(v), one) for v in (w_ih, w_hh))
        b = None
        if b_ih is not None or b_hh is not None:
            b = o.Unsqueeze(o.Concat(arranged(b_ih), arranged(b_hh), axis=0), one)
        lengths = None if lengths is None else o.cast(lengths, T.int32)
        states = [None if v is None else o.Unsqueeze(v, one) for v in states]
        attrs = {"hidden_size": hidden, "direction": "reverse" if reverse else "forward"}
        if name == "RNN":
            attrs["activations"] = ["Tanh" if nonlinearity == "tanh" else "Relu"]
        if name == "GRU":
            attrs["linear_before_reset"] = 1
        made = o.node(name, (x, w, r, b, lengths, *states), attrs, 1 + n_state)
        return (o.Squeeze(made[0], o.ints((1,))), *(o.Squeeze(v, one) for v in made[1:]))

    return build


@composite(widen=True, floats=True, onnx=_onnx_layer("RNN", [0], 1))
def rnn_layer(
    x, w_ih, w_hh, b_ih=None, b_hh=None, h0=None, lengths=None, *, nonlinearity="tanh", reverse=False
):
    """`h = f(x w_ih' + b_ih + h w_hh' + b_hh)` step by step: one layer in one direction.

    x: float[T, N, C], w_ih: float[H, C], w_hh: float[H, H], b_ih, b_hh: float[H] or None, h0: float[N, H] (zeros
    when None), lengths: int[N] steps of each row (all when None); nonlinearity: "tanh" or "relu"; reverse: from
    the last step to the first. Returns: y: float[T, N, H], zeros beyond a row's length; h: float[N, H].
    Raises: ShapeError for shapes that do not fit. Numerics: steps beyond a row's length are not computed and its
    state stays. Source: Elman, 1990; ONNX RNN.
    """
    if nonlinearity not in ("tanh", "relu"):
        raise ArgumentError(
            "rnn_layer", f"nonlinearity={nonlinearity!r} is not known", 'use "tanh" or "relu"'
        )
    made = _project("rnn_layer", x, w_ih, w_hh, b_ih, b_hh, 1)
    lengths = lengths if lengths is None else lengths.to(T.int64)
    return recurrent(
        made, w_hh, _state(x, w_hh, h0), None, None, lengths, cell=nonlinearity, reverse=bool(reverse)
    )


rnn_layer.sample((3, 2, 4), (5, 4), (5, 5), (5,), (5,), (2, 5))
rnn_layer.sample((3, 2, 4), (5, 4), (5, 5), reverse=True)
rnn_layer.error_sample((3, 2, 4), (5, 3), (5, 5), match="do not fit")


@composite(widen=True, floats=True, onnx=_onnx_layer("LSTM", [0, 3, 1, 2], 2))
def lstm_layer(x, w_ih, w_hh, b_ih=None, b_hh=None, h0=None, c0=None, lengths=None, *, reverse=False):
    """`c = f c + i g, h = o tanh(c)` step by step: one layer of long short-term memory in one direction.

    i, f, o = sigmoid and g = tanh of `x w_ih' + b_ih + h w_hh' + b_hh`, whose rows are in the order i f g o.
    x: float[T, N, C], w_ih: float[4 * H, C], w_hh: float[4 * H, H], b_ih, b_hh: float[4 * H] or None, h0, c0:
    float[N, H] (zeros when None), lengths, reverse: as rnn_layer.
    Returns: y: float[T, N, H], zeros beyond a row's length; h, c: float[N, H].
    Raises: ShapeError for shapes that do not fit. Source: Hochreiter and Schmidhuber, 1997; ONNX LSTM.
    """
    made = _project("lstm_layer", x, w_ih, w_hh, b_ih, b_hh, 4)
    h0, c0 = _state(x, w_hh, h0), _state(x, w_hh, c0)
    lengths = lengths if lengths is None else lengths.to(T.int64)
    return recurrent(made, w_hh, h0, c0, None, lengths, cell="lstm", reverse=bool(reverse))[:3]


lstm_layer.sample((3, 2, 4), (12, 4), (12, 3), (12,), (12,), (2, 3), (2, 3))
lstm_layer.sample((3, 2, 4), (12, 4), (12, 3), reverse=True)
lstm_layer.error_sample((3, 2, 4), (5, 4), (5, 5), match="do not fit")


@composite(widen=True, floats=True)
def lstm_projected_layer(
    x, w_ih, w_hh, b_ih=None, b_hh=None, w_hr=None, h0=None, c0=None, lengths=None, *, reverse=False
):
    """`lstm_layer` whose state is projected: `h = w_hr (o tanh(c))`, step by step in ops.

    x: float[T, N, C], w_ih: float[4 * H, C], w_hh: float[4 * H, P], w_hr: float[P, H], b_ih, b_hh: float[4 * H] or
    None, h0: float[N, P], c0: float[N, H] (zeros when None), lengths, reverse: as rnn_layer.
    Returns: y: float[T, N, P], zeros beyond a row's length; h: float[N, P]; c: float[N, H].
    Raises: ShapeError for shapes that do not fit. Source: Sak et al., 2014.
    """
    op = "lstm_projected_layer"
    size = w_hh.shape[-1]
    if w_hr is None or w_hr.ndim != 2 or w_hr.shape[0] != size or w_hh.shape != (4 * w_hr.shape[1], size):
        shown = None if w_hr is None else w_hr.type
        raise ShapeError(op, f"w_hr: {shown} does not fit w_hh: {w_hh.type}", "w_hh[4 * H, P], w_hr[P, H]")
    hidden = w_hr.shape[1]
    if x.ndim != 3 or w_ih.shape != (4 * hidden, x.shape[-1]):
        raise ShapeError(op, f"w_ih: {w_ih.type} does not fit x: {x.type}", "w_ih[4 * H, C], x[T, N, C]")
    bias = b_ih if b_hh is None else b_hh if b_ih is None else b_ih + b_hh
    made, steps = linear(x, w_ih, bias), x.shape[0]
    h = zeros((x.shape[1], size), dtype=x.dtype, device=x.device) if h0 is None else h0
    c = zeros((x.shape[1], hidden), dtype=x.dtype, device=x.device) if c0 is None else c0
    rows: list = [None] * steps
    for t in _order(steps, reverse):
        i, f, g, o = split(made[t] + linear(h, w_hh), sizes=(hidden,) * 4, axis=-1)
        cell = E.sigmoid(f) * c + E.sigmoid(i) * E.tanh(g)
        new = linear(E.sigmoid(o) * E.tanh(cell), w_hr)
        if lengths is None:
            h, c, rows[t] = new, cell, new
        else:
            live = reshape(E.greater(lengths.to(T.int64), t), shape=(-1, 1))
            h, c, rows[t] = E.where(live, new, h), E.where(live, cell, c), E.where(live, new, 0.0)
    y = stack(rows, axis=0) if steps else zeros((0, *h.shape), dtype=x.dtype, device=x.device)
    return y, h, c


lstm_projected_layer.sample((2, 2, 3), (12, 3), (12, 2), (12,), (12,), (2, 3))
lstm_projected_layer.error_sample((2, 2, 3), (12, 3), (12, 2), None, None, (2, 2), match="does not fit w_hh")


@composite(widen=True, floats=True, onnx=_onnx_layer("GRU", [1, 0, 2], 1))
def gru_layer(x, w_ih, w_hh, b_ih=None, b_hh=None, h0=None, lengths=None, *, reverse=False):
    """`h = (1 - z) n + z h` step by step: one layer of gated recurrent units in one direction.

    r, z = sigmoid(x part + h part), n = tanh(x part + r * h part), where `x w_ih' + b_ih` and `h w_hh' + b_hh`
    have rows in the order r z n. x: float[T, N, C], w_ih: float[3 * H, C], w_hh: float[3 * H, H], b_ih, b_hh:
    float[3 * H] or None, h0: float[N, H] (zeros when None), lengths, reverse: as rnn_layer.
    Returns: y: float[T, N, H], zeros beyond a row's length; h: float[N, H].
    Raises: ShapeError for shapes that do not fit. Source: Cho et al., 2014; ONNX GRU (linear_before_reset).
    """
    made = _project("gru_layer", x, w_ih, w_hh, b_ih, b_hh, 3)
    b = zeros(w_hh.shape[:1], dtype=x.dtype, device=x.device) if b_hh is None else b_hh
    lengths = lengths if lengths is None else lengths.to(T.int64)
    return recurrent(made, w_hh, _state(x, w_hh, h0), None, b, lengths, cell="gru", reverse=bool(reverse))[:2]


gru_layer.sample((3, 2, 4), (9, 4), (9, 3), (9,), (9,), (2, 3))
gru_layer.sample((3, 2, 4), (9, 4), (9, 3), reverse=True)
gru_layer.error_sample((3, 2, 4), (5, 4), (5, 5), match="do not fit")
