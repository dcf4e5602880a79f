"""Importers of If, Loop and Scan: `dg.cond`, `dg.while_loop` and `dg.scan` where the subgraph allows it, else a walk.

A walk runs the subgraph in Python, turn by turn. It is left for what the three functions do not take: sequences and
optionals that grow, states whose shape changes, branches of different types, values that decide a shape. Conditions
and counts that are known on the host (from sizes or constants) need nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...core import control
from ...core import types as T
from ...core.errors import DuogradError, OnnxError
from ...core.op import REGISTRY as ops
from ...core.ops.creation import arange
from ...core.value import Tensor
from .coded import Coded, is_coded, moved
from .dtypes import from_code
from .program import Program, as_array, exporting, host_tensor
from .table import adapter

#: what draws random numbers, so that a second run of it computes something else
_RANDOM = {
    "Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike",
}  # fmt: skip


@adapter("If", host=("condition",), lazy=True, fold=False, codes="own")
def if_(node, condition, *, then_branch, else_branch):
    """One of two subgraphs; a condition that is computed makes it a `cond`."""
    branches = then_branch, else_branch
    reason = None
    if isinstance(condition, Tensor) and not node.needed:
        try:
            return _cond(node, condition, branches)
        except DuogradError as e:
            reason = e
    return tuple(node.run(branches[not _value(node, condition, reason)], []))


@adapter("Loop", host=("trips", "condition"), lazy=True, fold=False, codes="own")
def loop(node, trips=None, condition=None, *state, body):
    """A subgraph again and again; outputs beyond the state are stacked."""
    reason = None
    if not node.needed:
        try:
            made = _loop(node, trips, condition, state, body)
            if made is not None:
                return made
        except DuogradError as e:
            reason = e
    limit = math.inf if trips is None else _value(node, trips, reason)
    going = condition is None or bool(_value(node, condition, reason))
    if trips is None and going and _goes_on(body):
        raise ValueError("it has no trip count, and its condition is always true")
    carried = list(state)
    scanned: list[list[Any]] = [[] for _ in range(len(body.outputs) - 1 - len(carried))]
    k = 0
    while k < limit and going:
        found = node.run(body, [np.array(k, np.int64), np.array(going), *carried])
        going = bool(_value(node, found[0], reason))
        carried = list(found[1 : 1 + len(carried)])
        for row, value in zip(scanned, found[1 + len(carried) :]):
            row.append(value)
        k += 1
    kinds = body.kinds[1 + len(carried) :] or [None] * len(scanned)
    return (*carried, *[_stacked(row, kind) for row, kind in zip(scanned, kinds)])


@adapter("Scan", since=9, fold=False)
def scan(
    node, *xs, body, num_scan_inputs, scan_input_axes=None, scan_input_directions=None, scan_output_axes=None,
    scan_output_directions=None,
):  # fmt: skip
    """A subgraph over slices of the inputs, with a state."""
    n = len(xs) - num_scan_inputs
    if not 0 <= n < len(xs):
        raise ValueError(f"num_scan_inputs={num_scan_inputs} does not fit {len(xs)} inputs")
    given = [
        _turned(ops["moveaxis"](x, source=a, destination=0) if a else x, back)
        for x, a, back in zip(
            xs[n:],
            scan_input_axes or [0] * num_scan_inputs,
            scan_input_directions or [0] * num_scan_inputs,
        )
    ]
    try:
        found = _scanned(node, list(xs[:n]), given, body)
    except DuogradError:
        found = _walked(node, list(xs[:n]), given, body)
    rows = len(body.outputs) - n
    out = [
        ops["moveaxis"](y, source=0, destination=a) if a else y
        for y, a in zip(
            map(_turned, found[n:], scan_output_directions or [0] * rows), scan_output_axes or [0] * rows
        )
    ]
    return (*found[:n], *out)


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


# ---------------------------------------------------------------- inside a graph


def _plain(values: Sequence[Any]) -> list[Any]:
    """Values that hold no codes. Raises: OnnxError."""
    if any(isinstance(v, Coded) or is_coded(v) for v in values):
        raise OnnxError("onnx", "texts and narrow numbers are carried", "Cast them before it")
    return list(values)


def _cond(node: Any, condition: Tensor, branches: Sequence[Program]) -> tuple[Any, ...]:
    branch = lambda body: lambda: _plain(node.run(body, []))
    return tuple(control.cond(condition, *map(branch, branches)))


def _loop(node: Any, trips: Any, condition: Any, state: Sequence[Any], body: Program) -> Any:
    """A Loop as `scan` or `while_loop`; None where it must be a walk."""
    start = _plain(state)
    n = len(start)

    def turn(i: Any, going: Any, values: Sequence[Any]) -> tuple[Any, list[Any], list[Any]]:
        found = _plain(node.run(body, [i, going, *values]))
        return found[0], found[1 : 1 + n], found[1 + n :]

    def scanned(length: int) -> tuple[Any, ...]:
        turns = arange(length, dtype=T.int64)
        carry, rows = control.scan(lambda h, i: turn(i, np.array(True), h)[1:], start, turns)
        return (*carry, *rows)

    known = not isinstance(condition, Tensor)
    if known and condition is not None and not _one(condition):
        return None
    has_rows = len(body.outputs) - 1 > n
    if known and _goes_on(body):
        if trips is None:
            raise OnnxError(
                "onnx", "a Loop has no trip count and its condition is always true", "give it one"
            )
        if has_rows or not isinstance(trips, Tensor):
            return scanned(max(0, int(_one(trips))))
    if not has_rows:
        return tuple(_turns(turn, trips, condition, start)[1])
    # Rows need their number before they are made: the turns are counted first.
    return None if _draws(body) else scanned(int(_one(_turns(turn, trips, condition, start)[0])))


def _turns(turn: Any, trips: Any, condition: Any, start: list[Any]) -> tuple[Any, list[Any]]:
    """How many turns a Loop makes, and its last state."""

    def test(carry: Any) -> Any:
        i, going, _ = carry
        return going if trips is None else ops["logical_and"](going, i < limit)

    def body(carry: Any) -> Any:
        i, going, values = carry
        again, after, _ = turn(i, going, values)
        return i + 1, _scalar(again), after

    limit = None if trips is None else _scalar(trips)
    zero = ops["full"](0, shape=(), dtype=T.int64)
    going = ops["full"](True, shape=(), dtype=T.bool_) if condition is None else _scalar(condition)
    i, _, values = control.while_loop(test, body, (zero, going, start))
    return i, values


def _scanned(node: Any, start: list[Any], given: list[Any], body: Program) -> list[Any]:
    n = len(start)

    def turn(carry: Any, parts: Any) -> tuple[Any, Any]:
        found = node.run(body, [*carry, *parts])
        return found[:n], found[n:]

    carry, rows = control.scan(turn, start, given)
    return [*carry, *rows]


def _goes_on(body: Program) -> bool:
    """Whether a Loop's body hands its condition on as it is, or gives True: the turns are counted then."""
    name = body.outputs[0]
    makers = {call.outputs[0]: call for call in body.calls if call.node.op_type == "Identity"}
    while name in makers:
        name = makers[name].inputs[0]
    if name == body.inputs[1]:
        return True
    constant = body.constants.get(name)
    return constant is not None and bool(_one(constant))


def _draws(program: Program) -> bool:
    return any(
        call.node.op_type in _RANDOM
        or any(map(_draws, call.subgraphs()))
        or any(map(_draws, getattr(call.body, "programs", {}).values()))
        for call in program.calls
    )


def _turned(x: Any, back: int) -> Any:
    return ops["flip"](x, axis=0) if back else x


def _scalar(value: Any) -> Any:
    """One element as a tensor without axes."""
    x = value if isinstance(value, Tensor) else host_tensor(np.asarray(value))
    return x if x.ndim == 0 else ops["reshape"](x, shape=())


def _one(value: Any) -> Any:
    return np.asarray(as_array(value)).ravel()[0]


# ---------------------------------------------------------------- in Python


def _value(node: Any, value: Any, reason: DuogradError | None) -> Any:
    """A condition or count as a number. Raises: OnnxError where a model is written that should keep it open."""
    if isinstance(value, Tensor) and reason is not None and exporting():
        raise OnnxError(
            "onnx.export", f"node {node.name} ({node.op_type}) runs in Python and cannot be written: {reason.message}",
            "make its subgraphs keep shapes and types, or export what is around it",
        ) from reason  # fmt: skip
    return _one(value)


def _walked(node: Any, carried: list[Any], given: list[Any], body: Program) -> list[Any]:
    """A Scan turn by turn."""
    n = len(carried)
    scanned: list[list[Any]] = [[] for _ in range(len(body.outputs) - n)]
    for k in range(given[0].shape[0]):
        found = node.run(body, [*carried, *(x[k] for x in given)])
        if [np.shape(v) for v in found[:n]] != [np.shape(v) for v in carried]:
            raise ValueError("a state changes its shape, which Scan does not allow")
        carried = list(found[:n])
        for row, value in zip(scanned, found[n:]):
            row.append(value)
    kinds = body.kinds[n:] or [None] * len(scanned)
    return [*carried, *(_stacked(row, kind) for row, kind in zip(scanned, kinds))]


def _stacked(row: list[Any], kind: Any) -> Any:
    if not row:
        if not kind or not kind[0] or kind[1] is None:
            raise ValueError(
                "a loop that runs zero times has no scan outputs to stack, and the file has no types"
            )
        return ops["full"](0, shape=(0, *kind[1]), dtype=from_code(kind[0]))
    if any(map(is_coded, row)):
        return moved("Loop", lambda parts: ops["stack"](parts[0], axis=0), [row], None)
    if any(isinstance(v, Tensor) for v in row):
        return ops["stack"]([v if isinstance(v, Tensor) else host_tensor(v) for v in row], axis=0)
    return np.stack(row, axis=0)
