"""Graphs within a model, under construction: the bodies of Loop, Scan and If."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import onnx
from onnx import helper

from .builder import Handle, Step
from .dimension import Dim
from .dtypes import to_code

if TYPE_CHECKING:
    from .builder import Builder


class Subgraph:
    """A graph under construction, as an attribute of a step; it is written when all names are final."""

    def __init__(self, name: str, inputs: list[Handle], steps: list[Step], outputs: list[Handle]):
        self.name, self.inputs, self.steps, self.outputs = name, inputs, steps, outputs

    def reads(self) -> set[Handle]:
        """What it reads from the graphs around it."""
        inside = {*self.inputs, *(h for s in self.steps for h in s.outputs)}
        found = {h for s in self.steps for h in s.reads()}
        return (found | set(self.outputs)) - inside

    def proto(self) -> onnx.GraphProto:
        inputs, outputs = ([_info(h) for h in row] for row in (self.inputs, self.outputs))
        return helper.make_graph([s.proto() for s in self.steps], self.name, inputs, outputs)


def _info(h: Handle) -> onnx.ValueInfoProto:
    assert h.dtype is not None
    shape = None if h.shape is None else [None if isinstance(n, Dim) else int(n) for n in h.shape]
    return helper.make_tensor_value_info(h.name, to_code(h.dtype), shape)


def formal(o: Builder, name: str, dtype: object, shape: object) -> Handle:
    """An input of a subgraph."""
    return o.know(Handle(o.unique(f"{o.prefix}/{name}"), dtype, shape))  # type: ignore[arg-type]


def subgraph(o: Builder, name: str, inputs: list[Handle], body: Callable[[], list[Handle]]) -> Subgraph:
    """What `body` writes, as a graph of its own; what it computes is not known outside."""
    kept, rule = o.enter(), (o.op, o.line, o.prefix, o.out_dtype, o._near)
    try:
        outputs, own = [], {*inputs}
        for h in body():
            if not any(h in s.outputs for s in o.steps) or h in own:
                o.begin(rule[0], rule[1], (), h.dtype)
                source, h = h, o.Identity(h)
                h.dtype, h.shape = source.dtype, source.shape
            own.add(h)
            outputs.append(h)
        return Subgraph(f"{rule[2]}_{name}", inputs, o.steps, outputs)
    finally:
        o.leave(kept)
        o.op, o.line, o.prefix, o.out_dtype, o._near = rule
