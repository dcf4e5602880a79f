"""Reading a model from a path, bytes or a ModelProto; everything that can be wrong with a file is an OnnxError."""

from __future__ import annotations

import json
import os
from typing import Any, NamedTuple

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from ...core.errors import OnnxError
from .dtypes import code_name
from .functions import Functions, Kind
from .program import Program
from .tensors import Files, array_of, dense


class Given(NamedTuple):
    """An input of the model: name, element type code, sizes (int, symbol or None; None: rank unknown), optional."""

    name: str
    code: int
    shape: tuple[Any, ...] | None
    has_default: bool


class Source(NamedTuple):
    """A model read: where from, its program, inputs, output names, initializers; which of them are
    mapped from files; which are trained (None: unsaid).
    """

    where: str
    model: onnx.ModelProto
    program: Program
    inputs: list[Given]
    outputs: tuple[str, ...]
    initializers: dict[str, np.ndarray]
    mapped: frozenset[str]
    trained: frozenset[str] | None


def read_model(source: Any) -> tuple[str, onnx.ModelProto, Files]:
    """Where a model came from (for messages), the model, and the files beside it. Raises OnnxError."""
    if isinstance(source, onnx.ModelProto):
        return "the model", source, Files(None)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return "the data", _parse(bytes(source), "the data"), Files(None)
    if not isinstance(source, (str, os.PathLike)):
        raise OnnxError(
            "onnx.load",
            f"takes a path, bytes or a ModelProto, got {type(source).__name__}",
            'pass "model.onnx"',
        )
    path = os.fspath(source)
    try:
        with open(path, "rb") as f:
            data = f.read()
    except OSError as e:
        raise OnnxError("onnx.load", f"cannot read {path}: {e.strerror}", "check the path") from None
    return str(path), _parse(data, str(path)), Files(os.path.dirname(os.path.abspath(path)))


def _parse(data: bytes, where: str) -> onnx.ModelProto:
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        raise OnnxError(
            "onnx.load",
            f"{where} is not an ONNX model, or is cut off ({len(data)} bytes)",
            "copy or export the file again",
        ) from None
    if not model.HasField("graph") or not model.opset_import:
        raise OnnxError(
            "onnx.load", f"{where} holds no ONNX graph ({len(data)} bytes)", "copy or export the file again"
        )
    return model


def read(source: Any) -> Source:
    """Read a model and prepare its program; problems of nodes are kept in the program. Raises OnnxError."""
    where, model, files = read_model(source)
    try:
        return _prepare(where, model, files)
    except OnnxError:
        raise
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        MemoryError,
        RecursionError,
        TypeError,
        ValueError,
    ) as e:
        # Bytes that are a message by chance, with texts, sizes or attributes that mean nothing.
        raise OnnxError(
            "onnx.load",
            f"{where} is damaged: {type(e).__name__}: {str(e).splitlines()[0]}",
            "copy or export the file again",
        ) from e


def _prepare(where: str, model: onnx.ModelProto, files: Files) -> Source:
    graph = model.graph
    opsets = _opsets(where, model)
    initializers: dict[str, np.ndarray] = {}
    for tensor in graph.initializer:
        initializers[tensor.name] = array_of(tensor, files)
    for sparse in graph.sparse_initializer:
        initializers[sparse.values.name] = dense(sparse, files)
    mapped = frozenset(t.name for t in graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL)
    _fetch(graph, files)
    for function in model.functions:
        for node in function.node:
            _fetch_node(node, files)
    types: dict[str, Kind] = {t.name: (t.data_type, tuple(t.dims)) for t in graph.initializer}
    types.update((t.values.name, (t.values.data_type, tuple(t.dims))) for t in graph.sparse_initializer)
    for info in _stated(model):
        given = _given(info, False)
        types[info.name] = given.code, given.shape
    inputs = [_given(info, info.name in initializers) for info in graph.input]
    names = [i.name for i in inputs if not i.has_default]
    program = Program(
        graph.node, names, [o.name for o in graph.output], opsets, Functions(model.functions, types)
    )
    _check_names(where, graph, {*names, *initializers})
    listed = next((p.value for p in model.metadata_props if p.key == "duograd.parameters"), None)
    trained = None if listed is None else frozenset(json.loads(listed))
    return Source(where, model, program, inputs, program.outputs, initializers, mapped, trained)


def _opsets(where: str, model: onnx.ModelProto) -> dict[str, int]:
    """Domain -> version of the model. Raises OnnxError for two of one domain, and one that is not known here."""
    found: dict[str, int] = {}
    known = {"": onnx.defs.onnx_opset_version(), "ai.onnx.ml": onnx.defs.onnx_ml_opset_version()}
    for o in model.opset_import:
        domain = "" if o.domain == "ai.onnx" else o.domain
        title = domain or "ai.onnx"
        if found.setdefault(domain, o.version) != o.version:
            raise OnnxError(
                "onnx.load", f"{where} is of opset {found[domain]} and of opset {o.version} of {title}",
                "export the file again",
            )  # fmt: skip
        if o.version > known.get(domain, o.version):
            raise OnnxError(
                "onnx.load", f"{where} is of opset {o.version} of {title}; onnx {onnx.__version__} knows "
                f"{known[domain]} opsets", "install a newer onnx, or export the file at an older opset",
            )  # fmt: skip
    return found


def _fetch(graph: onnx.GraphProto, files: Files) -> None:
    """Bring tensors of attributes and inner graphs that lie in other files into the model."""
    for node in graph.node:
        _fetch_node(node, files)


def _fetch_node(node: onnx.NodeProto, files: Files) -> None:
    for attribute in node.attribute:
        for inner in (attribute.g, *attribute.graphs):
            for tensor in inner.initializer:
                _bring(tensor, files)
            _fetch(inner, files)
        for tensor in (attribute.t, *attribute.tensors):
            _bring(tensor, files)


def _bring(tensor: onnx.TensorProto, files: Files) -> None:
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        tensor.CopyFrom(onnx.numpy_helper.from_array(files.read(tensor), tensor.name))


def _stated(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """What the file itself says of its values. onnx's shape inference would know more, and ends the process on
    some damaged files; the real types show when nodes run.
    """
    return [*model.graph.input, *model.graph.output, *model.graph.value_info]


def _given(info: onnx.ValueInfoProto, has_default: bool) -> Given:
    kind = info.type.WhichOneof("value")
    if kind != "tensor_type":
        return Given(info.name, 0, None, has_default)
    tensor = info.type.tensor_type
    if not tensor.HasField("shape"):
        return Given(info.name, tensor.elem_type, None, has_default)
    dims = tuple(d.dim_value if d.HasField("dim_value") else (d.dim_param or None) for d in tensor.shape.dim)
    return Given(info.name, tensor.elem_type, dims, has_default)


def _check_names(where: str, graph: onnx.GraphProto, known: set[str], place: str = "") -> None:
    """Every name must be made before it is read, in inner graphs too. Raises OnnxError."""
    made = set(known)
    for k, node in enumerate(graph.node):
        label = f"{place}{node.name or k} ({node.op_type})"
        for name in node.input:
            if name and name not in made:
                raise OnnxError(
                    "onnx.load", f"{where}: node {label} reads {name!r}, which nothing before it makes",
                    "export the file again; its nodes must be in order",
                )  # fmt: skip
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                own = {v.name for v in (*inner.input, *inner.initializer)}
                own |= {t.values.name for t in inner.sparse_initializer}
                _check_names(where, inner, made | own, f"{label}/")
        made.update(n for n in node.output if n)
    for output in graph.output:
        if output.name not in made and (output.name or not place):
            inside = f" of node {place.rstrip('/')}" if place else ""
            raise OnnxError(
                "onnx.load",
                f"{where}: nothing makes the output {output.name!r}{inside}",
                "export the file again",
            )


def describe(given: Given) -> str:
    """An input as text: `float[batch, 3, 8]`."""
    name = code_name(given.code).lower() if given.code else "no tensor"
    if given.shape is None:
        return f"{name}[...]"
    return f"{name}[{', '.join('?' if d is None else str(d) for d in given.shape)}]"
