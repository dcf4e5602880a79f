"""Control flow in models: regions as subgraphs of If, Loop and Scan, and their values for the verification."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ...core import dispatch
from ...core import region as R
from ...core import types as T
from ...core.op import REGISTRY
from ...graph.ir import Value
from . import pairs
from .builder import Handle
from .subgraph import formal, subgraph
from .words import RuleBuilder


class Sub(NamedTuple):
    """A region as data: what `Captured` is for a function."""

    inputs: tuple[Value, ...]
    records: tuple[Any, ...]
    outputs: tuple[Value, ...]


_LEAST = -(2**63)
WriteRecord = Callable[..., None]


def write_control(
    o: RuleBuilder, record: Any, inputs: list[Handle], handles: dict[Value, Handle], captured: Any, write: WriteRecord
) -> list[Handle]:  # fmt: skip
    """A call of `cond`, `while_loop` or `scan`. write: of one record (`assemble.write_record`)."""
    made = _Writer(o, record, handles, captured, write)
    rules: dict[Any, Any] = {R.cond: made.cond, R.while_loop: made.while_loop, R.scan: made.scan}
    return rules[record.op](inputs, **record.attrs)  # type: ignore[no-any-return]


class _Writer:
    def __init__(
        self, o: RuleBuilder, record: Any, handles: dict[Value, Handle], captured: Any, write: WriteRecord
    ):
        self.o, self.record, self.handles, self.captured, self.write = o, record, handles, captured, write
        self.prefix, self.line, self.op = o.prefix, o.line, o.op

    def layouts(self) -> list[Any]:
        return [pairs.layout(v, self.captured.shapes) for v in self.record.outputs]

    def inline(self, sub: Sub, given: Sequence[Handle]) -> list[Handle]:
        """Write a region's calls where the builder stands."""
        inner = dict(self.handles)
        inner.update(zip(sub.inputs, given, strict=True))
        for record in sub.records:
            self.write(self.o, record, inner, self.captured)
        return [inner[v] for v in sub.outputs]

    def formals(self, name: str, values: Sequence[Value]) -> list[Handle]:
        return [
            formal(self.o, f"{name}_{k}", *pairs.layout(v, self.captured.shapes))
            for k, v in enumerate(values)
        ]

    def cond(self, inputs: list[Handle], on_true: Sub, on_false: Sub) -> list[Handle]:
        pred, *given = inputs
        attrs = {
            f"{name}_branch": subgraph(self.o, name, [], lambda sub=sub: self.inline(sub, given))  # type: ignore[misc]
            for name, sub in (("then", on_true), ("else", on_false))
        }
        return self.o.add("If", [pred], attrs, [dtype for dtype, _ in self.layouts()])

    def while_loop(self, inputs: list[Handle], test: Sub, body: Sub, n_consts: int) -> list[Handle]:
        o, consts, start = self.o, inputs[:n_consts], inputs[n_consts:]
        (goes,) = self.inline(test, inputs)
        o.prefix, o.line, o.op = self.prefix, self.line, self.op
        turn, again = formal(o, "turn", T.int64, ()), formal(o, "goes", T.bool_, ())
        carry = self.formals("carry", body.inputs[n_consts:])

        def run() -> list[Handle]:
            new = self.inline(body, [*consts, *carry])
            return [*self.inline(test, [*consts, *new]), *new]

        graph = subgraph(o, "body", [turn, again, *carry], run)
        return o.add("Loop", [None, goes, *start], {"body": graph}, [h.dtype for h in start])

    def scan(
        self, inputs: list[Handle], body: Sub, n_consts: int, n_carry: int, length: Any, reverse: bool
    ) -> list[Handle]:
        o, n = self.o, n_consts + n_carry
        if length.__class__ is int and not length:  # no turn: onnxruntime refuses to walk along nothing
            rows = self.layouts()[n_carry:]
            return [*inputs[n_consts:n], *(o.full(shape, 0, dtype) for dtype, shape in rows)]
        consts, start, xs = inputs[:n_consts], inputs[n_consts:n], inputs[n:]
        carry, slices = self.formals("carry", body.inputs[n_consts:n]), self.formals("row", body.inputs[n:])
        unused = []
        if not xs:  # Scan walks along something
            xs = [o.counted(0, 1, length, T.int64)]
            unused = [formal(o, "turn", T.int64, ())]
        # Turned round before and after: evaluators do not know Scan's own directions.
        turned = lambda x: o.Slice(x, *(o.ints((v,)) for v in (-1, _LEAST, 0, -1)))
        if reverse:
            xs = [turned(x) for x in xs]
        graph = subgraph(
            o, "body", [*carry, *slices, *unused], lambda: self.inline(body, [*consts, *carry, *slices])
        )
        attrs: dict[str, Any] = {"body": graph, "num_scan_inputs": len(xs)}
        made = o.add("Scan", [*start, *xs], attrs, [dtype for dtype, _ in self.layouts()])
        return [turned(y) if reverse and k >= n_carry else y for k, y in enumerate(made)]


# ---------------------------------------------------------------- values


def run_control(
    record: Any, inputs: Sequence[Any], run: Callable[[Any, Sequence[Any]], list[Any]]
) -> list[Any]:
    """The results of a control op (a record, or all that is asked of one here) on tensors. run: of a region."""
    a = record.attrs
    if record.op is R.cond:
        return run(a["on_true"] if bool(inputs[0]) else a["on_false"], inputs[1:])
    consts = list(inputs[: a["n_consts"]])
    if record.op is R.while_loop:
        carry = list(inputs[a["n_consts"] :])
        while bool(run(a["test"], [*consts, *carry])[0]):
            carry = run(a["body"], [*consts, *carry])
        return carry
    n = a["n_consts"] + a["n_carry"]
    carry, xs = list(inputs[a["n_consts"] : n]), inputs[n:]
    order = range(int(a["length"]))
    rows: dict[int, list[Any]] = {}
    for k in reversed(order) if a["reverse"] else order:
        made = run(a["body"], [*consts, *carry, *(x[k] for x in xs)])
        carry, rows[k] = made[: a["n_carry"]], made[a["n_carry"] :]
    kinds = record.outputs[a["n_carry"] :]
    return [*carry, *(_stack([rows[k][j] for k in order], kinds[j].type) for j in range(len(kinds)))]


def _stack(rows: list[Any], kind: Any) -> Any:
    if rows:
        return REGISTRY["stack"](rows, axis=0)
    return dispatch._State.executor.constant(np.zeros((0, *kind.shape[1:]), kind.dtype.np), "cpu")
