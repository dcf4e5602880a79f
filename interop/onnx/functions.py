"""Ops defined by other ops: functions of the model, and the bodies that ONNX's own schemas give."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import onnx
from onnx import helper

from ...core.errors import OnnxError
from ...core.value import Tensor
from .coded import Coded
from .dtypes import book_code, to_code
from .program import Blocker, Problem, Program, label

Body = Callable[[list[Any], bool], list[Any]]
#: element type code and sizes (None: not known) of an input; code 0: absent, or no tensor
Kind = tuple[int, tuple[Any, ...] | None]


class Functions:
    """Finds the body of an op that has no adapter. local: the model's own functions; types: of its values."""

    def __init__(self, local: Iterable[onnx.FunctionProto] = (), types: dict[str, Kind] | None = None):
        self.local = {(f.domain, f.name): f for f in local}
        self.types = types or {}
        self.open: list[tuple[str, str]] = []  # being looked into: a function that leads to itself has no end

    def __call__(self, node: onnx.NodeProto, opset: int, opsets: dict[str, int]) -> Body | None:
        """A callable of (input values, training), or None when the op has no body. Raises Problem."""
        found = self.local.get((node.domain, node.op_type))
        if found is not None:
            return _Instance(self, node, lambda _: found, opsets, {})
        domain = "" if node.domain == "ai.onnx" else node.domain
        if not onnx.defs.has(node.op_type, domain=domain, max_inclusive_version=opset):
            return None
        schema = onnx.defs.get_schema(node.op_type, opset, domain)
        make = _from_schema(schema, node, opset)
        if make is None:
            return None
        defaults = {
            name: a.default_value
            for name, a in schema.attributes.items()
            if a.default_value.type != onnx.AttributeProto.UNDEFINED
        }
        return _Instance(self, node, make, opsets, defaults)


def _from_schema(schema: Any, node: onnx.NodeProto, opset: int) -> Any:
    fixed = [v for v in schema.function_opset_versions if v <= opset]
    if fixed:
        body = onnx.FunctionProto()
        body.ParseFromString(_bytes(schema.get_function_with_opset_version(max(fixed))))
        return lambda _: body
    moving = [v for v in schema.context_dependent_function_opset_versions if v <= opset]
    if not moving:
        return None

    def make(types: list[onnx.TypeProto]) -> onnx.FunctionProto:
        text = schema.get_context_dependent_function_with_opset_version(
            max(moving), node.SerializeToString(), [t.SerializeToString() for t in types]
        )
        out = onnx.FunctionProto()
        out.ParseFromString(text)
        return out

    return make


def _bytes(found: Any) -> bytes:
    return found if isinstance(found, bytes) else found.SerializeToString()


class _Instance:
    """A body for one node; made for the types of its inputs, which some bodies depend on."""

    def __init__(
        self, functions: Functions, node: onnx.NodeProto, make: Any, opsets: dict[str, int], defaults: Any
    ):
        self.functions, self.node, self.make, self.opsets, self.defaults = (
            functions,
            node,
            make,
            opsets,
            defaults,
        )
        self.programs: dict[Any, Program] = {}
        # A trial with what is known of the types, so that problems show when the model is loaded.
        guessed = [
            functions.types.get(n, (onnx.TensorProto.FLOAT, None)) if n else (0, None) for n in node.input
        ]
        if any(n and not kind[0] for n, kind in zip(node.input, guessed)):
            raise Problem(f"{node.op_type} over sequences or optionals is not supported")
        key = node.domain, node.op_type
        if key in functions.open:
            raise Problem(f"the function {node.op_type} calls itself")
        functions.open.append(key)
        try:
            program = self._program(tuple(guessed))
        finally:
            functions.open.pop()
        if program.problems:
            b = program.problems[0]
            same = b.op == node.op_type
            why = (
                b.reason
                if same
                else f"{node.op_type}, by its definition, needs {b.op}: {b.reason} ({b.node})"
            )
            raise Problem(why, b.opset if same else None)

    def _program(self, kinds: tuple[Kind, ...]) -> Program:
        found = self.programs.get(kinds)
        if found is None:
            types = [helper.make_tensor_type_proto(c, shape) if c else onnx.TypeProto() for c, shape in kinds]
            try:
                body = self.make(types)
            except Exception as e:
                raise Problem(f"{self.node.op_type} has no body for these types: {e}") from None
            found = self.programs[kinds] = self._build(body)
        return found

    def _build(self, body: onnx.FunctionProto) -> Program:
        given = {a.name: a for a in self.node.attribute}
        values = dict(self.defaults)
        values.update({a.name: a for a in body.attribute_proto})
        values.update(given)
        present = {n: bool(g) for n, g in zip(body.input, [*self.node.input, *[""] * len(body.input)])}
        opsets = {
            **self.opsets,
            **{("" if o.domain == "ai.onnx" else o.domain): o.version for o in body.opset_import},
        }
        nodes = [_specialised(n, values, present) for n in body.node]
        # A body may name outputs that it makes in some of its forms only; the node asks for those it has.
        asked = [
            n if k < len(self.node.output) and self.node.output[k] else "" for k, n in enumerate(body.output)
        ]
        return Program(nodes, list(body.input), asked, opsets, self.functions)

    def host_inputs(self) -> set[int]:
        """Inputs whose values the body needs on the host."""
        program = next(iter(self.programs.values()))
        return {k for k, name in enumerate(program.inputs) if name in program.on_host}

    def __call__(self, values: list[Any], training: bool) -> list[Any]:
        program = self._program(tuple(_kind(v) for v in values))
        if program.problems or not program.calls:
            none = Blocker("", self.node.op_type, "no body for these types")
            b = program.problems[0] if program.problems else none
            where = label(self.node, 0)
            raise OnnxError(
                "onnx.load", f"node {where} needs {b.op}: {b.reason} ({b.node})", "use another opset"
            )
        row = [*values, *[None] * (len(program.inputs) - len(values))]
        return program.run(dict(zip(program.inputs, row)), training)


def _kind(value: Any) -> Kind:
    if isinstance(value, Tensor):
        return to_code(value.dtype), value.shape
    if isinstance(value, Coded):
        return book_code(value.book), value.shape
    if isinstance(value, np.ndarray):
        return helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
    return 0, None


def _specialised(node: onnx.NodeProto, values: dict[str, Any], present: dict[str, bool]) -> onnx.NodeProto:
    """A body's node with attribute references filled in and absent inputs left out."""
    out = onnx.NodeProto()
    out.CopyFrom(node)
    del out.input[:]
    out.input.extend([n if present.get(n, True) else "" for n in node.input])
    del out.attribute[:]
    for attribute in node.attribute:
        if attribute.ref_attr_name:
            source = values.get(attribute.ref_attr_name)
            if source is None:
                continue
            filled = out.attribute.add()
            filled.CopyFrom(source)
            filled.name = attribute.name
        else:
            filled = out.attribute.add()
            filled.CopyFrom(attribute)
            if attribute.type == onnx.AttributeProto.GRAPH:
                inner = [_specialised(n, values, present) for n in attribute.g.node]
                del filled.g.node[:]
                filled.g.node.extend(inner)
    return out
