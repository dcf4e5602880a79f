"""The trace behind an export: what it takes whole, the numbers that it reads, and its calls as records."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ...core import dispatch
from ...core import region as _region
from ...core.errors import OnnxError, user_line
from ...core.op import Attrs, Op
from ...core.region import Region
from ...core.types import TensorType
from ...graph.ir import Node, Value
from ...graph.symbol import Symbol
from ...graph.trace import Trace
from .control import run_control

Host = Any
#: the ops that have regions
CONTROL = (_region.cond, _region.while_loop, _region.scan)
#: ops that draw from a generator: what they draw cannot be compared
DRAWS = ("random_uniform", "random_normal", "random_integers", "random_permutation", "random_bits")


class ExportTrace(Trace):
    """A trace that takes composites with an ONNX rule (or a reason for none) whole, unless they are in `refused`."""

    watches = False
    splits = True

    def __init__(self, name: str, host: Host, refused: set[str], modules: dict[int, str] | None = None):
        super().__init__(name, host, self._refuse)
        self.refused = refused
        #: id -> path of the modules whose `forward` may be at work, and the path under which a value was made
        self.modules = modules or {}
        self.scopes: dict[Value, str] = {}
        #: whole numbers that were read from tensors, in order: (tensor, number, line)
        self.reads: list[tuple[Value, int, str]] = []
        self._evaluated: dict[Value, Any] = {}
        self.constant_lines: dict[int, str] = {}
        self._types: dict[Any, tuple[TensorType, ...]] = {}

    def keeps(self, op: Op) -> bool:
        # Under the tape a composite without a gradient of its own must be recorded through its parts.
        says = bool(op.onnx or op.no_onnx or op.parts) and op.name not in self.refused
        return says and (op.differentiable or not dispatch.state.grad)

    def run(
        self, op: Op, inputs: tuple[Any, ...], attrs: Attrs, into: tuple[Any, ...] | None = None
    ) -> tuple[Symbol, ...]:
        if into is None and self.comes_apart(op, inputs):
            return self.in_parts(op, inputs, attrs)
        if op.kind != "composite":
            return super().run(op, inputs, attrs, into)
        types = self._expand(op, inputs, attrs)
        device = next(x.device for x in inputs if isinstance(x, Symbol))
        return tuple(Symbol(v, self) for v in self._append(op, inputs, attrs, types, device).outputs)

    def _append(self, op: Op, inputs: Any, attrs: Attrs, types: tuple[TensorType, ...], device: str) -> Node:
        node = super()._append(op, inputs, attrs, types, device)
        if self.modules:
            self.scopes[node.outputs[0]] = self._scope()
        return node

    def _scope(self) -> str:
        """The path of the innermost module that is being called."""
        frame: Any = sys._getframe(2)
        while frame is not None:
            if frame.f_code.co_name == "forward":
                path = self.modules.get(id(frame.f_locals.get("self")))
                if path is not None:
                    return path
            frame = frame.f_back
        return ""

    def _expand(self, op: Op, inputs: tuple[Any, ...], attrs: Attrs) -> tuple[TensorType, ...]:
        """The result types of a composite, by its type rule or by tracing its body aside."""
        if op.type_rule is not None:
            return op.infer([x.type if isinstance(x, Symbol) else x for x in inputs], attrs)
        aside = Trace(op.name, self.host)
        row = []
        for x in inputs:
            if isinstance(x, Symbol):
                value = aside.graph.add_input(x.type, x.device)
                aside._known.add(value)
                x = Symbol(value, aside)
            row.append(x)
        with dispatch.executing(aside), dispatch.set_grad(False):
            result = op.fn(*row, **op.attrs_dict(attrs))
        return tuple(y.type for y in (result if isinstance(result, tuple) else (result,)))

    def argument(self, position: int, tensor: Any) -> Symbol:
        symbol = super().argument(position, tensor)
        self._evaluated[symbol._value] = tensor
        return symbol

    def constant(self, array: np.ndarray, device: str) -> Symbol:
        symbol = super().constant(array, device)
        self.constant_lines[id(self.sources[-1].tensor)] = user_line(2)
        return symbol

    def number(self, owner: Any, key: str) -> Any:
        return owner[key]

    def _refuse(self, trace: Trace, face: Symbol) -> Any:
        """The value of a tensor that the function reads: it may be a constant or a size, nothing else."""
        tensor = self.roots.get(id(face._storage))
        source = self._origin.get(face._value)
        if tensor is not None and source is not None and source.kind == "tensor":
            return self.host.read(tensor)
        needed = self._needed(face._value)
        free = needed is not None and not any(self._is_argument(v) for v in needed)
        if free or (needed is not None and face.type.dtype.is_integer and face.size == 1):
            found = self.host.read(self._evaluate(face._value, needed or set()))
            if not free:
                self.reads.append((face._value, int(found), user_line(3)))
            return found
        raise OnnxError(
            "onnx.export", f"the value of {face.type}, which depends on the inputs, decides what the function does",
            "use dg.where instead of a Python branch, or export the branches one by one; only whole numbers that "
            "are sizes may be read, with .item()",
        )  # fmt: skip

    def _is_argument(self, value: Value) -> bool:
        source = self._origin.get(value)
        return source is not None and source.kind == "arg"

    def _needed(self, value: Value) -> set[Value] | None:
        """The values that one is computed from, itself included; None when random numbers are among them."""
        needed = {value}
        for node in reversed(self.graph.nodes):
            if not needed.isdisjoint(node.outputs):
                if "random" in (node.op.no_gradient or "") or node.op.name == "dropout":
                    return None
                needed.update(node.values())
        return needed

    def _evaluate(self, value: Value, needed: set[Value]) -> Any:
        """What a value is for the tensors of this trace."""
        known = self._evaluated
        for v in needed:
            if v in self._origin and v not in known:
                known[v] = self._origin[v].tensor
        with dispatch.executing(self.host), dispatch.set_grad(False):
            for node in self.graph.nodes:
                if needed.isdisjoint(node.outputs) or all(v in known for v in node.outputs):
                    continue
                _run_node(node, known)
        return known[value]


class Record(NamedTuple):
    """One op call of the captured function. inputs: values, numbers or None; numbers and attributes may vary."""

    op: Op
    inputs: tuple[Any, ...]
    attrs: dict[str, Any]
    outputs: tuple[Value, ...]
    line: str
    scope: str = ""


def _record(node: Node) -> Record:
    return Record(node.op, tuple(node.inputs), node.op.attrs_dict(node.attrs), tuple(node.outputs), node.line)


def _run_node(node: Node, known: dict[Value, Any]) -> None:
    """Compute one call on tensors; what it gives is known then."""
    inputs = tuple(known[x] if isinstance(x, Value) else x for x in node.inputs)
    if node.op in CONTROL:
        made: Any = run_control(_record(node), inputs, _run_region)
    else:
        made = dispatch.apply(node.op, inputs, node.attrs)
    known.update(zip(node.outputs, made if isinstance(made, (tuple, list)) else (made,)))


def _run_region(region: Region, given: Sequence[Any]) -> list[Any]:
    known = dict(zip(region.graph.inputs, given, strict=True))
    for node in region.graph.nodes:
        _run_node(node, known)
    return [known[v] for v in region.graph.outputs]
