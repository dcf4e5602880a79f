"""A graph of ONNX nodes as calls of adapters: constants are folded on the host, the rest runs through the door."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from ...core import dispatch
from ...core.errors import DuogradError, OnnxError
from ...core.op import REGISTRY
from ...core.value import Tensor
from .capture import ExportTrace
from .dtypes import of_array
from .table import Adapter, Node, find


class Problem(Exception):
    """Why a node cannot be imported."""


def frozen(tensor: onnx.TensorProto) -> np.ndarray:
    """A tensor of the file as an array that nobody can change."""
    array = np.array(numpy_helper.to_array(tensor), order="C")
    array.setflags(write=False)
    return array


def decode(attribute: onnx.AttributeProto) -> Any:
    """An attribute as a Python value; tensors as arrays, texts as str, graphs as they are."""
    kind = attribute.type
    if kind == onnx.AttributeProto.TENSOR:
        return frozen(attribute.t)
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode()
    if kind == onnx.AttributeProto.STRINGS:
        return [v.decode() for v in value]
    return list(value) if kind in (onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS) else value


def label(node: onnx.NodeProto, index: int) -> str:
    """A node's name for people: its own, or its op and first output."""
    return node.name or f"#{index} ({node.op_type} -> {', '.join(node.output)})"


class Call:
    """One node made callable. fold: it may run on the host when all its inputs are known there."""

    __slots__ = ("adapter", "attrs", "body", "fold", "inputs", "node", "outputs")

    def __init__(self, proto: onnx.NodeProto, index: int, opsets: dict[str, int], functions: Any):
        domain = "" if proto.domain == "ai.onnx" else proto.domain
        opset = opsets.get(domain, opsets.get("", 1))
        self.inputs, self.outputs = list(proto.input), list(proto.output)
        self.node = Node(proto.op_type, label(proto, index), opset, len(self.outputs), False, None)
        self.body: Any = None
        found = find(domain, proto.op_type, opset)
        self.adapter: Adapter | None = found.adapter
        self.attrs: dict[str, Any] = {}
        self.fold = False
        if self.adapter is None:
            self.body = functions(proto, opset, opsets)
            if self.body is None:
                raise Problem(found.reason)
            return
        for attribute in proto.attribute:
            if attribute.name not in self.adapter.attrs:
                raise Problem(f"{proto.op_type} with the attribute {attribute.name} is not supported")
            value = decode(attribute)
            if isinstance(value, onnx.GraphProto):
                value = Program(value.node, [i.name for i in value.input], [o.name for o in value.output], opsets, functions,
                                {t.name: frozen(t) for t in value.initializer})  # fmt: skip
            self.attrs[attribute.name] = value
        if len(self.inputs) > len(self.adapter.inputs) and not self.adapter.variadic:
            raise Problem(f"{proto.op_type} with {len(self.inputs)} inputs is not supported")
        if len(self.inputs) < self.adapter.required or any(
            not n for n in self.inputs[: self.adapter.required]
        ):
            raise Problem(f"{proto.op_type} misses an input")

    def wanted_on_host(self) -> set[str]:
        """Inputs (and outer names) whose values are needed on the host."""
        if self.body is not None:
            inner = self.body.host_inputs()
            return {n for k, n in enumerate(self.inputs) if k in inner and n}
        assert self.adapter is not None
        found = {n for k, n in enumerate(self.inputs) if n and self.adapter.is_host(k)}
        for sub in self.subgraphs():
            found |= sub.on_host
        return found

    def subgraphs(self) -> list[Program]:
        """Programs among the attributes."""
        return [v for v in self.attrs.values() if isinstance(v, Program)]


class Program:
    """Nodes in order. `constants` are arrays known when the graph was made."""

    def __init__(
        self, nodes: Sequence[onnx.NodeProto], inputs: list[str], outputs: list[str], opsets: dict[str, int],
        functions: Any, constants: dict[str, np.ndarray] | None = None,
    ):  # fmt: skip
        self.inputs, self.outputs = inputs, outputs
        self.constants = constants or {}
        self.calls: list[Call] = []
        self.problems: list[tuple[str, str, str]] = []  # node, op, reason
        for k, proto in enumerate(nodes):
            try:
                call = Call(proto, k, opsets, functions)
            except Problem as e:
                self.problems.append((label(proto, k), proto.op_type, str(e)))
            else:
                self.calls.append(call)
                for sub in call.subgraphs():
                    self.problems += [(f"{call.node.name}/{n}", op, why) for n, op, why in sub.problems]
        self._tensors: dict[int, tuple[np.ndarray, Tensor]] = {}
        self.on_host = self._plan_folding()
        last: dict[str, int] = {}
        for k, call in enumerate(self.calls):
            for name in self.reads(call):
                last[name] = k
        keep = set(outputs)
        self._release = [
            [n for n, k in last.items() if k == j and n not in keep] for j in range(len(self.calls))
        ]

    def _plan_folding(self) -> set[str]:
        """Decide which calls run on the host when they can. Returns the names whose values are wanted there.

        Tensors made from sizes are computed on the host only when a shape or another setting needs them: else
        they stay part of a traced graph, and follow a dynamic axis when the module is exported again.
        """
        wanted: set[str] = set()
        for call in reversed(self.calls):
            wanted |= call.wanted_on_host()
            needed = not wanted.isdisjoint(call.outputs)
            if needed and call.node.op_type not in ("Shape", "Size"):
                wanted.update(n for n in call.inputs if n)
            call.fold = call.adapter is not None and call.adapter.fold and (needed or not call.adapter.grows)
        return wanted

    @staticmethod
    def reads(call: Call) -> list[str]:
        """Names a call reads, those of its subgraphs included."""
        found = [n for n in call.inputs if n]
        for sub in call.subgraphs():
            for inner in sub.calls:
                found += Program.reads(inner)
            found += sub.outputs
        return found

    def run(self, env: dict[str, Any], training: bool) -> list[Any]:
        """Run on an environment of names (changed by it); returns the outputs: tensors, arrays, lists or None."""
        env.update(self.constants)
        for call, release in zip(self.calls, self._release):
            try:
                results = self._call(call, env, training)
            except OnnxError:
                raise
            except (DuogradError, ArithmeticError, LookupError, TypeError, ValueError) as e:
                what = f"[{e.op}] {e.message}" if isinstance(e, DuogradError) else f"{type(e).__name__}: {e}"
                raise OnnxError(
                    "onnx.load", f"node {call.node.name} ({call.node.op_type}) fails: {what}",
                    "check the shapes and dtypes of the model's inputs",
                ) from e  # fmt: skip
            for name, value in zip(call.outputs, results):
                if name:
                    env[name] = value
            for name in release:
                env.pop(name, None)
        return [env[name] if name else None for name in self.outputs]

    def _call(self, call: Call, env: dict[str, Any], training: bool) -> Sequence[Any]:
        values = [env[name] if name else None for name in call.inputs]
        if call.body is not None:
            result = call.body(values, training)
            return result  # type: ignore[no-any-return]
        adapter = call.adapter
        assert adapter is not None
        node = call.node._replace(
            training=training, run=lambda p, row: p.run({**env, **dict(zip(p.inputs, row))}, training)
        )
        if call.fold and not any(isinstance(v, (Tensor, list)) for v in values):
            with dispatch.executing(dispatch._State.executor), dispatch.set_grad(False):
                result = self._apply(call, adapter, node, values)
            return [as_array(y) for y in _row(result)]
        return _row(self._apply(call, adapter, node, values))

    def _apply(self, call: Call, adapter: Adapter, node: Node, values: list[Any]) -> Any:
        row: list[Any] = []
        like = None
        if adapter.numbers:
            like = next((v.dtype for v in values if isinstance(v, Tensor)), None)
        for k, v in enumerate(values):
            if v is None or isinstance(v, list):
                row.append(v)
            elif adapter.is_host(k):
                row.append(as_array(v))
            elif isinstance(v, np.ndarray):
                number = like is not None and v.ndim == 0 and like == v.dtype and v.dtype.kind in "fi"
                row.append(v.item() if number else self.tensor(v))
            else:
                row.append(v)
        if adapter.wants_node:
            row.insert(0, node)
        assert adapter.fn is not None
        return adapter.fn(*row, **call.attrs)

    def tensor(self, array: np.ndarray) -> Tensor:
        """An array as a tensor; arrays that live as long as the program are converted once."""
        kept = self._tensors.get(id(array))
        if kept is not None and kept[0] is array:
            return kept[1]
        if of_array(array) is None:
            raise OnnxError(
                "onnx.load", f"the element type {array.dtype} is not one of duograd", "convert the model"
            )
        if not array.flags.writeable:  # a constant of the file
            made: Tensor = dispatch._State.executor.constant(array, "cpu")
            self._tensors[id(array)] = array, made
            return made
        return host_tensor(array)


def host_tensor(array: np.ndarray) -> Tensor:
    """A computed array as a tensor of the mode at work. Few numbers may be sizes: exports see them one by one."""
    if (
        array.size > 16
        or not isinstance(dispatch.state.executor, ExportTrace)
        or array.dtype.kind not in "if"
    ):
        return dispatch.state.executor.constant(array, "cpu")
    parts = [REGISTRY["full"](v, shape=(1,), dtype=of_array(array)) for v in array.ravel().tolist()]
    if not parts:
        return dispatch.state.executor.constant(array, "cpu")
    row = parts[0] if len(parts) == 1 else REGISTRY["concat"](parts, axis=0)
    return row if array.ndim == 1 else REGISTRY["reshape"](row, shape=array.shape)  # type: ignore[no-any-return]


def _row(result: Any) -> Sequence[Any]:
    return result if isinstance(result, tuple) else (result,)


def as_array(value: Any) -> Any:
    """A value as an array on the host (a traced one is read, which ends the graph there)."""
    if isinstance(value, Tensor):
        return np.asarray(dispatch.state.executor.read(value))
    return value
