"""A graph of ONNX nodes as calls of adapters: constants are folded on the host, the rest runs through the door."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx

from ...core import dispatch
from ...core.errors import DuogradError, OnnxError
from ...core.op import REGISTRY
from ...core.value import Tensor
from .coded import Coded, coded, is_coded, moved
from .dtypes import of_array
from .recorder import ExportTrace
from .table import Adapter, Node, find
from .tensors import dense, frozen

#: what a node's wrong inputs can raise; AttributeError where something that is no tensor comes to one that wants it
_FAILURES = (
    DuogradError, ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError,
)  # fmt: skip


class Problem(Exception):
    """Why a node cannot be imported, and from which opset on it can (None: from none)."""

    def __init__(self, reason: str, opset: int | None = None):
        super().__init__(reason)
        self.opset = opset


class Blocker(NamedTuple):
    """A node that cannot be imported: its name, its op, the reason, the lowest opset that works (None: none)."""

    node: str
    op: str
    reason: str
    opset: int | None = None


def decode(attribute: onnx.AttributeProto) -> Any:
    """An attribute as a Python value; tensors as arrays, texts as str, graphs as they are."""
    kind = attribute.type
    if kind == onnx.AttributeProto.TENSOR:
        return frozen(attribute.t)
    if kind == onnx.AttributeProto.SPARSE_TENSOR:
        return dense(attribute.sparse_tensor)
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode()
    if kind == onnx.AttributeProto.STRINGS:
        return [v.decode() for v in value]
    return list(value) if kind in (onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS) else value


def _kind_of(info: onnx.ValueInfoProto) -> tuple[int, tuple[int, ...] | None]:
    """Element type and sizes of a value (0 for an open one; no sizes: the rank is open)."""
    tensor = info.type.tensor_type
    return tensor.elem_type, tuple(d.dim_value for d in tensor.shape.dim) if tensor.HasField(
        "shape"
    ) else None


def label(node: onnx.NodeProto, index: int) -> str:
    """A node's name for people: its own, or its op and first output."""
    return node.name or f"#{index} ({node.op_type} -> {', '.join(node.output)})"


class Call(NamedTuple):
    """One node made callable: by an adapter, or by a body of other nodes.

    fold: it may run on the host when all its inputs are known there. sized: those come from sizes and no setting
    needs the result, so an export writes it as ops. needed: on the host. release: names nobody needs after it.
    outer: names that its subgraphs read. tensors: its constant inputs as tensors. A tuple, as nothing of it changes.
    """

    node: Node
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    adapter: Adapter | None
    body: Any
    attrs: tuple[tuple[str, Any], ...] = ()
    fold: bool = False
    sized: bool = False
    needed: bool = False
    release: tuple[str, ...] = ()
    outer: tuple[str, ...] = ()
    tensors: tuple[Tensor | Coded | None, ...] = ()

    def wanted_on_host(self) -> set[str]:
        """Inputs (and outer names) whose values are needed on the host."""
        if self.adapter is None:
            inner = self.body.host_inputs()
            return {n for k, n in enumerate(self.inputs) if k in inner and n}
        found = {n for k, n in enumerate(self.inputs) if n and self.adapter.is_host(k)}
        for sub in self.subgraphs():
            found |= sub.on_host
        return found

    def subgraphs(self) -> list[Program]:
        """Programs among the attributes."""
        return [v for _, v in self.attrs if isinstance(v, Program)]

    def reads(self) -> list[str]:
        """Names it reads, those of its subgraphs included."""
        return [n for n in self.inputs if n] + self.inner_reads()

    def inner_reads(self) -> list[str]:
        """Names that its subgraphs read."""
        found: list[str] = []
        for sub in self.subgraphs():
            for inner in sub.calls:
                found += inner.reads()
            found += sub.outputs
        return found


#: domains whose versions decide what a node means
ONNX_DOMAINS = ("ai.onnx.ml", "ai.onnx.preview", "ai.onnx.preview.training")


def _with_body(proto: onnx.NodeProto, nodes: Sequence[onnx.NodeProto]) -> onnx.NodeProto:
    """A Gradient node with the nodes between its `xs` and `zs` and its `y` as a graph of its own."""
    given = {a.name: onnx.helper.get_attribute_value(a) for a in proto.attribute}
    names = [n.decode() for n in (*given["xs"], *given.get("zs", ()))]
    makers = {out: k for k, node in enumerate(nodes) for out in node.output if out}
    wanted, found = [given["y"].decode()], set()
    while wanted:
        name = wanted.pop()
        k = makers.get(name)
        if name not in names and k is not None and k not in found:
            found.add(k)
            wanted += nodes[k].input
    value = onnx.helper.make_empty_tensor_value_info
    body = onnx.helper.make_graph(
        [nodes[k] for k in sorted(found)], "body", [value(n) for n in names], [value(given["y"].decode())]
    )
    out = onnx.NodeProto()
    out.CopyFrom(proto)
    out.attribute.append(onnx.helper.make_attribute("body", body))
    return out


def make_call(proto: onnx.NodeProto, index: int, opsets: dict[str, int], functions: Any) -> Call:
    """A node as a call. Raises Problem."""
    domain = "" if proto.domain == "ai.onnx" else proto.domain
    if domain not in opsets and domain in ("", *ONNX_DOMAINS):
        raise Problem(f"the model does not say of which opset of {domain or 'ai.onnx'} it is")
    opset = opsets.get(domain, opsets.get("", 1))
    inputs, outputs = tuple(proto.input), tuple(proto.output)
    node = Node(proto.op_type, label(proto, index), opset, len(outputs))
    found = find(domain, proto.op_type, opset)
    adapter = found.adapter
    if adapter is not None and adapter.declines is not None and adapter.declines(proto):
        adapter = None
    if adapter is None:
        body = functions(proto, opset, opsets)
        if body is None:
            raise Problem(found.reason, found.since)
        return Call(node, inputs, outputs, None, body)
    attrs = []
    for attribute in proto.attribute:
        if attribute.name == "consumed_inputs":  # of opsets before 6: which inputs may be overwritten
            continue
        if attribute.name not in adapter.attrs:
            raise Problem(f"{proto.op_type} with the attribute {attribute.name} is not supported")
        value = decode(attribute)
        if isinstance(value, onnx.GraphProto):
            constants = {t.name: frozen(t) for t in value.initializer}
            constants.update((t.values.name, dense(t)) for t in value.sparse_initializer)
            value = Program(
                value.node,
                [i.name for i in value.input],
                [o.name for o in value.output],
                opsets,
                functions,
                constants,
                [_kind_of(o) for o in value.output],
            )
        attrs.append((attribute.name, value))
    if len(inputs) > len(adapter.inputs) and not adapter.variadic:
        raise Problem(f"{proto.op_type} with {len(inputs)} inputs is not supported")
    if len(inputs) < adapter.required or not all(inputs[: adapter.required]):
        raise Problem(f"{proto.op_type} misses an input")
    if adapter.variadic and not all(inputs[len(adapter.inputs) :]):
        raise Problem(f"{proto.op_type} has an input without a name among several")
    return Call(node, inputs, outputs, adapter, None, tuple(attrs))


def _joined(nodes: Sequence[onnx.NodeProto], outputs: Sequence[str]) -> list[onnx.NodeProto]:
    """Nodes, with a QuantizeLinear and its DequantizeLinear as one: rounding that gradients pass straight through."""
    makers = {n.output[0]: n for n in nodes if n.op_type == "QuantizeLinear" and not n.domain and n.output}
    if not makers:
        return list(nodes)
    uses: dict[str, int] = {}
    for name in [*outputs, *(name for n in nodes for name in _read_by(n))]:
        uses[name] = uses.get(name, 0) + 1
    found, gone = [], set()
    for node in nodes:
        made = makers.get(node.input[0]) if node.op_type == "DequantizeLinear" and node.input else None
        axes = [[(a.name, a.i) for a in n.attribute] for n in (node, made) if n is not None]
        if made is not None and made.input[1:] == node.input[1:] and axes[0] == axes[1] and all(
            name == "axis" for name, _ in axes[0]
        ):  # fmt: skip
            both = onnx.NodeProto()
            both.CopyFrom(node)
            both.op_type, both.domain, both.input[0] = "QuantizeDequantize", "duograd", made.input[0]
            if uses[made.output[0]] == 1:
                gone.add(made.output[0])
            node = both
        found.append(node)
    return [n for n in found if not (n.op_type == "QuantizeLinear" and n.output[0] in gone)]


def _read_by(node: onnx.NodeProto) -> list[str]:
    """Names that a node and its subgraphs read."""
    found = list(node.input)
    for attribute in node.attribute:
        for inner in attribute.g.node:
            found += _read_by(inner)
        found += [o.name for o in attribute.g.output]
    return found


class Program:
    """Nodes in order. `constants` are arrays known when the graph was made."""

    def __init__(
        self, nodes: Sequence[onnx.NodeProto], inputs: list[str], outputs: list[str], opsets: dict[str, int],
        functions: Any, constants: dict[str, np.ndarray] | None = None, kinds: Sequence[Any] = (),
    ):  # fmt: skip
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        #: of the outputs of a subgraph, as far as the file says: element type, sizes
        self.kinds = tuple(kinds)
        self.constants: dict[str, np.ndarray] = dict(constants or {})
        self.problems: list[Blocker] = []
        calls: list[Call] = []
        for k, proto in enumerate(_joined(nodes, self.outputs)):
            try:
                if proto.op_type == "Gradient" and proto.domain == "ai.onnx.preview.training":
                    proto = _with_body(proto, nodes)
                call = make_call(proto, k, opsets, functions)
            except Problem as e:
                self.problems.append(Blocker(label(proto, k), proto.op_type, str(e), e.opset))
                continue
            if proto.op_type == "Constant" and call.adapter is not None:
                self.constants[proto.output[0]] = call.adapter.fn(**dict(call.attrs))
                continue
            calls.append(call)
            for sub in call.subgraphs():
                self.problems += [p._replace(node=f"{call.node.name}/{p.node}") for p in sub.problems]
        self.calls = tuple(calls)
        self.on_host: set[str] = set()
        self._known: tuple[tuple[str, np.ndarray], ...] = ()
        self.plan()

    def plan(self) -> None:
        """Decide which calls run on the host, and what is kept for how long; again when `constants` changed.

        Tensors made from sizes are computed on the host only when a shape or another setting needs them: else
        they stay part of a traced graph, and follow a dynamic axis when the module is exported again.
        """
        wanted: set[str] = set()
        folds, needs = [], []
        for call in reversed(self.calls):
            wanted |= call.wanted_on_host()
            needed = not wanted.isdisjoint(call.outputs)
            if needed and call.node.op_type not in ("Shape", "Size"):
                wanted.update(n for n in call.inputs if n)
            needs.append(needed)
            folds.append(
                call.adapter is not None and call.adapter.fold and (needed or not call.adapter.grows)
            )
        self.on_host = wanted
        sized: set[str] = set()
        moving = []
        for call in self.calls:
            if call.node.op_type in ("Shape", "Size") or not sized.isdisjoint(call.inputs):
                sized.update(call.outputs)
            moving.append(wanted.isdisjoint(call.outputs) and not sized.isdisjoint(call.inputs))
        last = {name: k for k, call in enumerate(self.calls) for name in call.reads()}
        gone: list[list[str]] = [[] for _ in self.calls]
        for name, k in last.items():
            if name not in self.outputs:
                gone[k].append(name)
        made: dict[str, Tensor | Coded | None] = {}
        self.calls = tuple(
            call._replace(
                fold=fold,
                sized=far,
                needed=needed,
                release=tuple(release),
                outer=tuple(dict.fromkeys(call.inner_reads())),
                tensors=self._constant_inputs(call, made),
            )
            for call, fold, needed, far, release in zip(
                self.calls, reversed(folds), reversed(needs), moving, gone
            )
        )
        self._known = tuple(self.constants.items())

    def _constant_inputs(
        self, call: Call, made: dict[str, Tensor | Coded | None]
    ) -> tuple[Tensor | Coded | None, ...]:
        row: list[Tensor | Coded | None] = []
        for k, name in enumerate(call.inputs):
            array = self.constants.get(name)
            if array is None or call.adapter is None or call.adapter.is_host(k):
                row.append(None)
                continue
            if name not in made:
                made[name] = (
                    coded(array) if is_coded(array) else dispatch._State.executor.constant(array, "cpu")
                )
            row.append(made[name])
        return tuple(row)

    def run(self, env: dict[str, Any], training: bool) -> list[Any]:
        """Run on an environment of names (changed by it); returns the outputs: tensors, arrays, lists or None."""
        env.update(self._known)
        for call in self.calls:
            try:
                results = self._call(call, env, training)
            except OnnxError:
                raise
            except _FAILURES as e:
                what = f"[{e.op}] {e.message}" if isinstance(e, DuogradError) else f"{type(e).__name__}: {e}"
                raise OnnxError(
                    "onnx.load", f"node {call.node.name} ({call.node.op_type}) fails: {what}",
                    "check the shapes and dtypes of the model's inputs",
                ) from e  # fmt: skip
            for name, value in zip(call.outputs, results):
                if name:
                    env[name] = value
            for name in call.release:
                env.pop(name, None)
        if missing := [name for name in self.outputs if name and name not in env]:
            raise OnnxError(
                "onnx.load", f"nothing makes {missing[0]!r}",
                "export the model again; if an op of your own does, let it return one result for each output",
            )  # fmt: skip
        return [env[name] if name else None for name in self.outputs]

    def _call(self, call: Call, env: dict[str, Any], training: bool) -> Sequence[Any]:
        values = [env[name] if name else None for name in call.inputs]
        if call.adapter is None:
            return call.body(values, training)  # type: ignore[no-any-return]
        node = call.node
        if call.adapter.wants_node:
            # Bodies run again on the way back, when names of now may be gone.
            outer = {n: env[n] for n in call.outer if n in env}
            node = node._replace(
                training=training, needed=call.needed,
                run=lambda p, row: p.run({**outer, **dict(zip(p.inputs, row))}, training),
            )  # fmt: skip
        traced = call.sized and exporting()
        if call.fold and not traced and not any(isinstance(v, (Tensor, list, Coded)) for v in values):
            with dispatch.executing(dispatch._State.executor), dispatch.set_grad(False):
                return [as_array(y) for y in _row(_apply(call, call.adapter, node, values))]
        return _row(_apply(call, call.adapter, node, values))


def _apply(call: Call, adapter: Adapter, node: Node, values: list[Any]) -> Any:
    """Call the adapter, each input in the form that it wants."""
    like = next((v.dtype for v in values if isinstance(v, Tensor)), None) if adapter.numbers else None
    row: list[Any] = []
    has_codes = False
    for k, v in enumerate(values):
        if v is None:
            row.append(v)
        elif isinstance(v, list):
            has_codes = has_codes or any(map(is_coded, v))
            row.append(v)
        elif adapter.is_host(k):
            row.append(v if adapter.lazy and isinstance(v, Tensor) else as_array(v))
        elif is_coded(v):
            has_codes = True
            constant = call.tensors[k] if isinstance(v, np.ndarray) and adapter.codes != "own" else None
            row.append(v if constant is None else constant)
        elif isinstance(v, np.ndarray):
            if like is not None and v.ndim == 0 and like == v.dtype and v.dtype.kind in "fi":
                row.append(v.item())
            else:
                constant = call.tensors[k]
                row.append(host_tensor(v) if constant is None else constant)
        else:
            row.append(v)
    head = [node] if adapter.wants_node else []
    attrs = dict(call.attrs)
    if not has_codes or adapter.codes == "own":
        return adapter.fn(*head, *row, **attrs)
    if adapter.codes is None:
        kinds = sorted({str(coded(v).book) for v in row if is_coded(v)}) or ["coded"]
        raise OnnxError("onnx", f"{node.op_type} of {', '.join(kinds)} is not supported", "Cast before it")
    outputs = adapter.codes if isinstance(adapter.codes, tuple) else None
    return moved(node.op_type, lambda inner: adapter.fn(*head, *inner, **attrs), row, outputs)


def host_tensor(array: np.ndarray) -> Any:
    """An array as a tensor (or Coded) of the mode at work. Few numbers may be sizes: exports see them one by one."""
    if of_array(array) is None:
        if is_coded(array):
            return coded(array)
        raise OnnxError(
            "onnx.load", f"the element type {array.dtype} is not one of duograd", "convert the model"
        )
    if array.size > 16 or not exporting() or array.dtype.kind not in "if":
        made: Tensor = dispatch.state.executor.constant(array, "cpu")
        return made
    parts = [REGISTRY["full"](v, shape=(1,), dtype=of_array(array)) for v in array.ravel().tolist()]
    if not parts:
        return dispatch.state.executor.constant(array, "cpu")
    row = parts[0] if len(parts) == 1 else REGISTRY["concat"](parts, axis=0)
    return row if array.ndim == 1 else REGISTRY["reshape"](row, shape=array.shape)


def exporting() -> bool:
    """Whether a model is being written here, be it inside a region of one."""
    executor: Any = dispatch.state.executor
    while executor is not None and not isinstance(executor, ExportTrace):
        executor = getattr(executor, "outside", None) or getattr(executor, "outer", None)
    return executor is not None


def _row(result: Any) -> Sequence[Any]:
    return result if isinstance(result, tuple) and not isinstance(result, Coded) else (result,)


def as_array(value: Any) -> Any:
    """A value as an array on the host (a traced one is read, which ends the graph there)."""
    if isinstance(value, Tensor):
        return np.asarray(dispatch.state.executor.read(value))
    return value.numpy() if isinstance(value, Coded) else value
