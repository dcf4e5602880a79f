"""From a captured function to a ModelProto: every op through its ONNX rule, then names, types and metadata."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ...core import dispatch
from ...core import types as T
from ...core.errors import OnnxError
from ...core.op import Op
from ...core.types import DType
from ...graph.ir import Value
from . import expression, pairs
from .builder import Handle, Inexpressible, Step, Unavailable
from .capture import Captured
from .control import write_control
from .dimension import Dim, is_dynamic, is_empty
from .dtypes import to_code
from .files import is_external, is_small, placeholder
from .recorder import CONTROL, Record
from .tidy import drop_dead, drop_unused, fuse_bias
from .words import RuleBuilder


class NeedsOpset(OnnxError):
    """An op that the opset has not; `lowest` is the lowest opset that has it."""

    lowest = 0


class Refused(Exception):
    """A composite whose rule the opset cannot express: trace again and take it apart."""


class Assembled(NamedTuple):
    """The model, and what its verification needs: the name of every value and the step of every output.

    external: initializers whose numbers are not in the model, and the numbers.
    """

    model: onnx.ModelProto
    names: dict[Value, str]
    steps: list[Step]
    external: list[tuple[onnx.TensorProto, np.ndarray]]


def assemble(
    captured: Captured, weight_names: dict[int, str], opset: int, name: str, producer_version: str,
    external: tuple[bool | None, Any] = (None, None),
) -> Assembled:  # fmt: skip
    """Write a captured function as a model. Raises Refused, OnnxError."""
    o = RuleBuilder(opset)
    handles: dict[Value, Handle] = {}
    for given in [n for n, _ in captured.inputs] + [n for n, _ in captured.outputs]:
        o.unique(given)
    fixed = set()  # handles whose names must stay: inputs, initializers
    for given, value in captured.inputs:
        handles[value] = o.know(Handle(given, *pairs.layout(value, captured.shapes)))
        fixed.add(handles[value])
        if value in captured.reads:
            o.read(handles[value], captured.reads[value])
    weights: list[tuple[str, np.ndarray]] = []
    trained = []
    for value, (data, literal) in captured.weights.items():
        shape = captured.shapes[value]
        if literal or (id(data) not in weight_names and not data._requires_grad):
            o.begin("constant", "", (), value.type.dtype)
            array = pairs.packed(dispatch._State.executor.read(data)) if hasattr(data, "shape") else None
            made = o.literal(array) if array is not None else pairs.full(o, shape, data, value.type.dtype)
            made.shape = pairs.layout(value, captured.shapes)[1]
            handles[value] = made
            continue
        array = pairs.packed(dispatch._State.executor.read(data))
        label = o.unique(weight_names.get(id(data), "tensor"))
        handles[value] = Handle(label, *pairs.layout(value, captured.shapes))
        fixed.add(handles[value])
        weights.append((label, array))
        if data._requires_grad:
            trained.append(label)
    outside = is_external(sum(a.nbytes for _, a in weights), *external)
    for record in captured.records:
        write_record(o, record, handles, captured)
    outputs = _name_outputs(o, captured, handles, fixed)
    o.steps = drop_dead(fuse_bias(o.steps, set(outputs)), outputs)
    o.constants = drop_unused(o.constants, o.steps, outputs)
    initializers, elsewhere = [], []
    for label, array in weights:
        if outside and not is_small(array):
            initializers.append(placeholder(array, label, to_code(T.as_dtype(array.dtype))))
            elsewhere.append((initializers[-1], array))
        else:
            initializers.append(numpy_helper.from_array(np.array(array, order="C"), label))
    graph = helper.make_graph(
        [s.proto() for s in [*o.constants, *o.steps]], name,
        [_info(n, handles[v].dtype, handles[v].shape, captured) for n, v in captured.inputs],
        [_info(h.name, *pairs.layout(v, captured.shapes), captured) for (_, v), h in zip(captured.outputs, outputs)],
        initializers,
    )  # fmt: skip
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(
        graph, opset_imports=opsets, producer_name="duograd", producer_version=producer_version,
        ir_version=helper.find_min_ir_version_for(opsets, ignore_unknown=True),
        doc_string=f"{name}, exported by duograd {producer_version}",
    )  # fmt: skip
    helper.set_model_props(model, {"duograd.parameters": json.dumps(trained)})
    return Assembled(
        model,
        {v: h.name for v, h in handles.items()},
        [*o.constants, *o.steps],
        external_of(model, elsewhere),
    )


def external_of(model: onnx.ModelProto, elsewhere: list[tuple[onnx.TensorProto, np.ndarray]]) -> list[Any]:
    """The model's own copies of tensors that lie elsewhere, with their numbers."""
    arrays = {t.name: a for t, a in elsewhere}
    return [(t, arrays[t.name]) for t in model.graph.initializer if t.name in arrays]


def _info(name: str, dtype: DType | None, shape: Any, captured: Captured) -> onnx.ValueInfoProto:
    symbols = {vector: s for s, vector in captured.symbols.items()}
    dims = [symbols.get(n.vector) if isinstance(n, Dim) else int(n) for n in shape]
    assert dtype is not None
    return helper.make_tensor_value_info(name, to_code(dtype), dims)


def _name_outputs(
    o: RuleBuilder, captured: Captured, handles: dict[Value, Handle], fixed: set[Handle]
) -> list[Handle]:
    made = {h for s in o.steps for h in s.outputs}
    out = []
    for name, value in captured.outputs:
        handle = handles[value]
        if handle in fixed or handle not in made:
            o.begin("output", "", (), handle.dtype)
            source, handle = handle, o.Identity(handle)
            handle.dtype, handle.shape = source.dtype, source.shape
        handle.name = name
        fixed.add(handle)
        out.append(handle)
    return out


# ---------------------------------------------------------------- one op call


def write_record(o: RuleBuilder, record: Record, handles: dict[Value, Handle], captured: Captured) -> None:
    """Write one op call; its outputs enter `handles`. Raises Refused, or OnnxError naming op and line."""
    op = record.op
    inputs = [handles[x] if isinstance(x, Value) else x for x in record.inputs]
    layouts = [pairs.layout(v, captured.shapes) for v in record.outputs]
    o.begin(op.name, record.line, inputs, layouts[0][0], record.scope)
    before = len(o.steps)
    shapes = [x.shape for x in inputs if isinstance(x, Handle)]
    if op.kind == "composite" and op.onnx and any(map(is_empty, shapes)):
        # onnxruntime refuses what has no elements here and there; in parts it does not.
        raise Refused(op.name)
    try:
        found = _write(o, op, inputs, record, handles, captured)
    except (Unavailable, Inexpressible) as e:
        if op.kind == "composite" and (isinstance(e, Unavailable) or not op.no_onnx):
            raise Refused(op.name) from None
        lowest = _lowest_opset(o, inputs, record, handles, captured)
        raise _cannot(op, str(e), record.line, "", lowest) from None
    fresh = {h for s in o.steps[before:] for h in s.outputs}
    for k, (value, handle, (dtype, shape)) in enumerate(zip(record.outputs, found, layouts, strict=True)):
        if handle.dtype is not None and handle.dtype is not dtype:
            handle = o.cast(handle, dtype)
            fresh.add(handle)
        if handle in fresh:
            handle.name = o.unique(o.prefix if len(found) == 1 else f"{o.prefix}_{k}")
            fresh.discard(handle)
        handle.dtype, handle.shape = dtype, shape
        handles[value] = o.know(handle)
        if value in captured.reads:
            o.read(handle, captured.reads[value])


def _lowest_opset(
    o: RuleBuilder, inputs: list[Any], record: Record, handles: dict[Value, Handle], captured: Captured
) -> int:
    """The lowest opset above o's in which an op call can be written, or 0."""
    for opset in range(o.opset + 1, onnx.defs.onnx_opset_version() + 1):
        trial = RuleBuilder(opset)
        for value, vector in captured.reads.items():
            trial.read(Handle("", value.type.dtype, ()), vector)
        for _, value in captured.inputs:
            trial.know(Handle("", *pairs.layout(value, captured.shapes)))
        dtype, _ = pairs.layout(record.outputs[0], captured.shapes)
        trial.begin(record.op.name, record.line, inputs, dtype)
        try:
            _write(trial, record.op, inputs, record, handles, captured)
            return opset
        except (Unavailable, Inexpressible):
            continue
    return 0


def _cannot(op: Op, why: str, line: str, fix: str = "", lowest: int = 0) -> OnnxError:
    fix = fix or "write that part with other ops, or leave it outside the exported function"
    if not lowest:
        return OnnxError("onnx.export", f"the op {op.name} cannot be exported: {why}", fix, line)
    error = NeedsOpset(
        "onnx.export", f"the op {op.name} cannot be exported: {why}",
        f"pass opset={lowest}, the lowest opset that has it, or a newer one", line,
    )  # fmt: skip
    error.lowest = lowest
    return error


def _write(
    o: RuleBuilder,
    op: Op,
    inputs: list[Any],
    record: Record,
    handles: dict[Value, Handle],
    captured: Captured,
) -> list[Handle]:
    shapes = captured.shapes
    if all(is_empty(shapes[v]) for v in record.outputs):
        return [o.full(shape, 0, dtype) for dtype, shape in (pairs.layout(v, shapes) for v in record.outputs)]
    if op in CONTROL:
        return write_control(o, record, inputs, handles, captured, write_record)
    if op.takes_pairs or pairs.has_complex((*record.inputs, *record.outputs)):
        if op.kind == "composite":
            raise Inexpressible(op.no_onnx or "it is written in parts for complex numbers")
        return _outputs(pairs.write_pairs(o, record, inputs, shapes, _rule, _covers))
    if op.kind == "pointwise" and not op.creates:
        return _write_pointwise(o, op, inputs, record, shapes)
    if not op.onnx:
        if op.kind == "pointwise":
            return _write_body(o, op, inputs, record, shapes)
        raise Inexpressible(op.no_onnx or "it has no ONNX mapping")
    return _outputs(_rule(o, op, inputs, record.attrs))


def _rule(o: RuleBuilder, op: Op, inputs: Sequence[Any], attrs: dict[str, Any]) -> Any:
    return getattr(o, op.onnx)(*inputs, **attrs) if isinstance(op.onnx, str) else op.onnx(o, *inputs, **attrs)


def _outputs(result: Any) -> list[Handle]:
    return list(result) if isinstance(result, (tuple, list)) else [result]


def _write_pointwise(
    o: RuleBuilder, op: Op, inputs: list[Any], record: Record, shapes: dict[Value, Any]
) -> list[Handle]:
    """The op's rule on promoted operands; its body where there is no rule or the rule gives another dtype."""
    if op.onnx:
        mark = o.mark()
        try:
            found = _outputs(_rule(o, op, _promoted(o, op, inputs), record.attrs))
            if all(h.dtype in (None, v.type.dtype) for h, v in zip(found, record.outputs)):
                return found
        except (Unavailable, Inexpressible):
            pass
        o.rollback(mark)
    return _write_body(o, op, inputs, record, shapes)


def _kinds(inputs: Sequence[Any]) -> list[Any]:
    return [x.dtype if isinstance(x, Handle) else bool if isinstance(x, bool) else int if isinstance(x, int) else float
            for x in inputs]  # fmt: skip


def _write_body(
    o: RuleBuilder, op: Op, inputs: list[Any], record: Record, shapes: dict[Value, Any]
) -> list[Handle]:
    if is_dynamic(tuple(v for k, v in record.attrs.items() if k != "shape")):
        raise Inexpressible(op.no_onnx or "an attribute follows a dynamic size")
    form = op.form(_kinds(inputs), tuple(record.attrs.values()))
    missing = expression.writable(form.roots)
    if missing:
        raise Inexpressible(op.no_onnx or f"its body uses {missing}, which ONNX has not")
    args = [
        o.cast(x, d) if isinstance(x, Handle) else o.const(x, d)
        for x, d in zip(inputs, form.arg_dtypes, strict=True)
    ]
    shape = shapes[record.outputs[0]]
    found = expression.write(o, form.roots, args, shape)
    # A body that does not use an operand's full shape (all constant, say) still fills the result's.
    return [
        h if _covers(form.roots[k], inputs, shape) else o.Expand(h, o.ints(shape))
        for k, h in enumerate(found)
    ]


def _covers(root: Any, inputs: Sequence[Any], shape: tuple[Any, ...]) -> bool:
    from ...core.scalar import walk

    nodes = walk([root])
    if any(n.op == "index" for n in nodes):
        return True
    used = [inputs[n.value] for n in nodes if n.op == "arg" and isinstance(inputs[n.value], Handle)]
    if not used or not shape:
        return bool(used) or not shape
    ndim = max(len(h.shape or ()) for h in used)
    sizes = [max((_size(h, a - len(shape)) for h in used), default=1) for a in range(len(shape))]
    return ndim == len(shape) and all(int(s) == int(n) for s, n in zip(sizes, shape))


def _size(h: Handle, axis: int) -> int:
    return int(h.shape[axis]) if h.shape and -axis <= len(h.shape) else 1


def _promoted(o: RuleBuilder, op: Op, inputs: Sequence[Any]) -> list[Handle]:
    """Operands as ONNX wants them: one dtype; conditions as bool."""
    if op.name.startswith("logical_"):
        return [_truth(o, x) for x in inputs]
    head = [_truth(o, inputs[0])] if op.name == "where" else []
    rest = inputs[len(head) :]
    kinds = [x.dtype for x in rest if isinstance(x, Handle) and x.dtype is not None]
    common = T.promote_all(kinds) if kinds else None
    for x in rest:
        if not isinstance(x, Handle):
            common = T.scalar_dtype(x, common)
    if op.to_float and common is not None and not common.is_float:
        common = T.default_float
    assert common is not None
    return head + [o.cast(x, common) if isinstance(x, Handle) else o.const(x, common) for x in rest]


def _truth(o: RuleBuilder, x: Any) -> Handle:
    if not isinstance(x, Handle):
        return o.literal(np.asarray(bool(x)))
    return o.cast(x, T.bool_)


__all__ = ["Assembled", "NeedsOpset", "Refused", "assemble"]
