"""Recording a function for export: traces at several sizes, laid over each other into one graph."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from ...core import dispatch
from ...core.errors import AutogradError, DuogradError, OnnxError
from ...core.region import Region
from ...core.value import Tensor
from ...graph.arguments import empty_slots, fill
from ...graph.ir import Graph, Value
from ...graph.symbol import Symbol
from .arguments import Arguments, resized, size_plans
from .control import Sub
from .dimension import Disagreement, Undecided, merge
from .names import modules_of
from .outputs import named_outputs, run_function
from .recorder import DRAWS, ExportTrace, Host, Record


class Effect(NamedTuple):
    """A tensor that the function changes in place, or whose gradient it leaves."""

    tensor: Any
    gradient: bool


class Captured(NamedTuple):
    """A function as data: what the builder writes as ONNX.

    shapes: the shape of every value, with a `Dim` where it differs between traces. weights: input value ->
    (tensor or array, whether it is a literal). symbols: name -> its size in every trace. reads: tensor -> the whole
    number that was read from it in every trace. unseen: inputs that no trace has seen, when numbers were read.
    """

    inputs: list[tuple[str, Value]]
    weights: dict[Value, tuple[Any, bool]]
    records: list[Record]
    outputs: list[tuple[str, Value]]
    shapes: dict[Value, tuple[Any, ...]]
    symbols: dict[str, tuple[int, ...]]
    arrays: list[list[np.ndarray]]
    reads: dict[Value, tuple[int, ...]] = {}  # noqa: RUF012 (of a tuple's field)
    unseen: list[np.ndarray] | None = None
    changed: tuple[Effect, ...] = ()  # what the last outputs are


class _Pass(NamedTuple):
    """One finished trace."""

    trace: ExportTrace
    graph: Graph
    arguments: list[Value]
    outputs: list[tuple[str, Value]]
    structure: Any
    changed: list[Effect]


def capture(
    fn: Callable[..., Any],
    arguments: Arguments,
    dynamic: dict[str, dict[int, str]],
    output_names: list[str] | None,
    refused: set[str],
    buffers: dict[int, str] | None = None,
    more: int = 0,
    wanted: Iterable[dict[str, int]] = (),
) -> Captured:
    """Trace `fn` at the example's sizes and at others (at `more` than usual, and at those wanted); merge the traces.

    buffers: id -> name of tensors that the function may change in place: their new values and gradients become outputs.
    """
    base = {
        symbol: arguments.arrays[arguments.names.index(name)].shape[axis]
        for name, axes in dynamic.items()
        for axis, symbol in axes.items()
    }
    host = dispatch._State.executor
    run = lambda row: _trace(fn, arguments, row, host, output_names, refused, buffers)
    first = run(arguments.arrays)
    accept = lambda row: run_function(fn, arguments, row, first.changed)
    error: Exception | None = None
    reads = len(first.trace.reads)
    for plan in size_plans(base, more + (reads + 4 if reads else 0)):
        try:
            for turn in range(1 + 4 * bool(reads)):
                seed = turn * (len(plan) + 1)
                found = [
                    _varied(run, accept, resized(arguments, dynamic, sizes), (seed + k) * bool(reads))
                    for k, sizes in enumerate(plan, 1)
                ]
                if _all_vary([first, *[p for _, p in found]]):
                    break
        except Exception as e:  # whatever the user's function raises at a size it does not take
            error = error or e
            continue
        arrays = [arguments.arrays, *[row for row, _ in found]]
        symbols = {s: (n, *[sizes[s] for sizes in plan]) for s, n in base.items()}
        passes = [first, *[p for _, p in found]]
        merged = _merge(passes, arguments, symbols, arrays)
        if reads:
            return merged._replace(unseen=_varied(run, accept, arrays[-1], seed + len(plan) + 1)[0])
        far = _far(run, arguments, dynamic, base, 2 + more // 4, wanted)
        if far:
            symbols = {s: (*row, *[sizes[s] for sizes, _, _ in far]) for s, row in symbols.items()}
            passes, arrays = [*passes, *[p for _, _, p in far]], [*arrays, *[row for _, row, _ in far]]
            with contextlib.suppress(OnnxError):  # a branch that only large sizes take
                merged = _merge(passes, arguments, symbols, arrays)
        return merged
    if isinstance(error, OnnxError):
        raise error
    what = f"[{error.op}] {error.message}" if isinstance(error, DuogradError) else repr(error)
    other = f"another size of {', '.join(base)}" if base else "other numbers in its inputs"
    raise OnnxError(
        "onnx.export", f"with {other} the function fails: {what}",
        "make the function accept other sizes, or leave the axis out of dynamic=" if base else
        "give example arguments whose elements it takes in any order",
        error.line if isinstance(error, DuogradError) else None,
    ) from error  # fmt: skip


#: added to the example's sizes for traces far from it, and the bytes that an argument of such a trace may have
_STEPS, _ROOM = (1021, 523, 769, 1531, 389, 1283, 911, 631), 1 << 24


def _far(
    run: Callable[[Any], _Pass],
    arguments: Arguments,
    dynamic: dict[str, dict[int, str]],
    base: dict[str, int],
    count: int,
    wanted: Iterable[dict[str, int]],
) -> list[tuple[dict[str, int], list[np.ndarray], _Pass]]:
    """Traces at sizes far above the example's: what is a line, or a constant, near it may be a remainder or a limit.

    Those sizes that the function takes; smaller ones where it does not take large ones, or they need much memory.
    wanted: further sizes, at which a trace tells formulas apart.
    """
    found: list[tuple[dict[str, int], list[np.ndarray], _Pass]] = []

    def works(sizes: dict[str, int]) -> bool:
        pairs = zip(arguments.names, arguments.arrays)
        if any(_bytes(a, dynamic.get(name, {}), sizes) > _ROOM for name, a in pairs):
            return False
        try:
            row = resized(arguments, dynamic, sizes)
            found.append((sizes, row, run(row)))
        except Exception:  # whatever the user's function raises at a size it does not take
            return False
        return True

    def sizes(turn: int, shift: int) -> dict[str, int]:
        steps = [_STEPS[(turn + k) % len(_STEPS)] >> shift for k in range(len(base))]
        return {s: n + step + turn // len(_STEPS) for (s, n), step in zip(base.items(), steps)}

    for turn in range(count if base else 0):
        if not any(works(sizes(turn, shift)) for shift in range(6)):
            break
    for row in wanted:
        works({**base, **row})
    return found


def wanted_sizes(captured: Captured, undecided: Undecided) -> list[dict[str, int]]:
    """The sizes of dynamic axes at which traces tell formulas apart, where these are in sizes of axes alone."""
    return [{s: n} for u, n in undecided.wanted for s, row in captured.symbols.items() if row == u]


def _bytes(array: np.ndarray, axes: dict[int, str], sizes: dict[str, int]) -> int:
    """How many an argument has at other sizes."""
    shape = [sizes[axes[k]] if k in axes else n for k, n in enumerate(array.shape)]
    return math.prod(shape) * array.itemsize


def _all_vary(passes: list[_Pass]) -> bool:
    """Whether every number that was read is another one in some trace."""
    return all(len({n for _, n, _ in row}) > 1 for row in zip(*[p.trace.reads for p in passes]))


def _varied(
    run: Callable[[Any], _Pass], accept: Callable[[Any], Any], arrays: list[np.ndarray], seed: int
) -> tuple[list[np.ndarray], _Pass]:
    """A trace on arrays; with a seed on their elements drawn anew, so that what is counted in them changes.

    accept: runs the function: elements that it refuses (indices outside) are no data of its.
    """
    if not seed:
        return arrays, run(arrays)
    for attempt in range(8):
        rng = np.random.default_rng([seed, attempt])
        row = [(_rows_drawn if attempt % 2 else _drawn)(a, rng) for a in arrays]
        try:
            made = run(row)
            accept(row)
            return row, made
        except (
            DuogradError,
            ArithmeticError,
            LookupError,
            ValueError,
        ):  # nothing was found, say, and the largest of nothing was asked for
            if attempt == 7:
                raise
    raise AssertionError


def _drawn(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Elements of an array in another order and number: a random part of them, each any number of times."""
    if array.size == 1 and array.dtype.kind in "iu":  # it may be a count
        return np.full(array.shape, rng.integers(1, 2 * max(1, abs(int(array.ravel()[0]))) + 3), array.dtype)
    if array.size < 2:
        return array
    flat = np.unique(array) if array.dtype.kind in "iu" else array.ravel()  # the largest changes, too
    part = rng.choice(flat, rng.integers(1, flat.size + 1), replace=False)
    return rng.choice(part, array.shape).astype(array.dtype)


def _rows_drawn(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same of whole rows, where columns mean different things: the image and the corners of a box, say."""
    if array.ndim < 2 or len(array) < 2:
        return _drawn(array, rng)
    part = rng.choice(len(array), rng.integers(1, len(array) + 1), replace=False)
    return array[rng.choice(part, len(array))]


def _trace(
    fn: Callable[..., Any],
    arguments: Arguments,
    arrays: list[np.ndarray],
    host: Host,
    output_names: list[str] | None,
    refused: set[str],
    buffers: dict[int, str] | None,
) -> _Pass:
    modules = modules_of(fn)
    paths = {id(module): path for path, module in modules}
    held = [(module, dict(module.__dict__)) for _, module in modules]
    trace = ExportTrace(getattr(fn, "__name__", type(fn).__name__), host, refused, paths)
    tensors = [host.constant(a, arguments.device) for a in arrays]
    try:
        with dispatch.executing(trace, trace.keeps), dispatch.set_grad(arguments.taped):
            symbols = [trace.argument(k, t) for k, t in enumerate(tensors)]
            given = [s._value for s in symbols]
            result = fn(*fill(arguments.args, symbols), **fill(arguments.kwargs, symbols))
            outputs = [
                (name, trace._use(trace.face(y)._value)) for name, y in named_outputs(result, output_names)
            ]
            changed = _changed(trace, buffers, [(p, a) for (p, _), (_, a) in zip(modules, held)])
            outputs += [
                (
                    f"{(buffers or {})[id(e.tensor)]}.{'grad' if e.gradient else 'new'}",
                    trace._use(trace.face(s)._value),
                )
                for e, s in changed
            ]
    except AutogradError as e:
        if arguments.taped or e.op != "backward":
            raise
        raise OnnxError(
            "onnx.export",
            "the function calls backward()",
            "pass training=True, or take gradients with dg.grad",
            e.line,
        ) from None
    finally:
        for module, attributes in held:  # `self.count += 1` has put the trace's tensor there
            module.__dict__.clear()
            module.__dict__.update(attributes)
    trace.done = True
    structure = empty_slots(result, lambda x: isinstance(x, Tensor), [])
    graph = trace.graph
    graph.outputs = [v for _, v in outputs]
    _drop_unused(graph, {v for v, _, _ in trace.reads})
    return _Pass(trace, graph, given, outputs, structure, [e for e, _ in changed])


def _changed(
    trace: ExportTrace, names: dict[int, str] | None, held: list[tuple[str, dict[str, Any]]]
) -> list[tuple[Effect, Symbol]]:
    """What the function changed, with the new values. Raises OnnxError for what it may not change.

    names: of the tensors that it may change; None: of none.
    """
    written = [(Effect(trace.roots[k], False), s) for k, s in trace.written.items() if k in trace.roots]
    written += [(Effect(t, True), s) for t, s in trace.grads.values() if s is not None]
    order = {key: k for k, key in enumerate(names or ())}
    # As they are written; gradients, which come from the end, as parameters stand.
    written.sort(key=lambda pair: (pair[0].gradient, order.get(id(pair[0].tensor), 0) * pair[0].gradient))
    refused = [e for e, _ in written if id(e.tensor) not in (names or {})]
    if refused or (names is None and trace.grads):
        first = refused[0] if refused else Effect(next(iter(trace.grads.values()))[0], True)
        kind = "the gradient of " * first.gradient + _called(first.tensor, held)
        raise OnnxError(
            "onnx.export", f"the function changes {kind} in place, and an ONNX model has no side effects",
            "call model.eval() before the export, return the new value, or pass training=True: then new values of "
            "parameters, buffers, an optimiser's state and gradients are outputs",
        )  # fmt: skip
    for source in trace.sources:
        if source.kind == "grad":
            raise OnnxError(
                "onnx.export", f"the function adds to the gradient that {source.tensor.type} had before",
                "let it begin with zero_grad(), or call that before the export",
            )  # fmt: skip
    return written


def _called(tensor: Any, held: list[tuple[str, dict[str, Any]]]) -> str:
    """A tensor by its name in a module, where it has one, and its type. held: path and attributes of modules."""
    for path, attributes in held:
        for name, value in attributes.items():
            if value is tensor:
                return f"{f'{path}.{name}' if path else name} ({tensor.type})"
    return str(tensor.type)


def _drop_unused(graph: Graph, read: set[Value]) -> None:
    needed = set(graph.outputs) | read
    kept = []
    for node in reversed(graph.nodes):
        if any(v in needed for v in node.outputs):
            needed.update(node.values())
            kept.append(node)
    graph.nodes = kept[::-1]


def _merge(
    passes: list[_Pass],
    arguments: Arguments,
    symbols: dict[str, tuple[int, ...]],
    arrays: list[list[np.ndarray]],
) -> Captured:
    first = passes[0]
    names: list[dict[Value, Value]] = [{} for _ in passes]  # value of pass k -> value of the first
    shapes: dict[Value, tuple[Any, ...]] = {}

    def same(row: tuple[Value, ...], what: str, line: str) -> None:
        if len({(v.type.dtype, v.type.ndim) for v in row}) > 1:
            raise _differs(what, f"{row[0].type} against {row[1].type}", line)
        shapes[row[0]] = merge(tuple(v.type.shape for v in row))
        for k, v in enumerate(row):
            names[k][v] = row[0]

    for row in zip(*[p.arguments for p in passes]):
        same(row, "an argument", "")
    weights = _weights(passes, same)
    records = [
        r._replace(scope=first.trace.scopes.get(r.outputs[0], ""))
        for r in _merge_nodes([p.graph for p in passes], names, same)
    ]
    outputs = []
    for row in zip(*[p.outputs for p in passes]):
        if any(names[k].get(v) is not row[0][1] for k, (_, v) in enumerate(row)):
            raise _differs("the outputs", "another tensor", "")
        outputs.append(row[0])
    named = list(zip(arguments.names, first.arguments))
    reads = _reads(passes, names)
    return Captured(
        named, weights, records, outputs, shapes, symbols, arrays, reads, changed=tuple(first.changed)
    )


def _merge_nodes(
    graphs: list[Graph], names: list[dict[Value, Value]], same: Callable[..., None]
) -> list[Record]:
    """The calls of several traces, laid over each other."""
    first = graphs[0]
    for other in graphs[1:]:
        if len(other.nodes) != len(first.nodes):
            a, b = next(
                ((x, y) for x, y in zip(first.nodes, other.nodes) if x.op is not y.op),
                ((first.nodes or other.nodes)[-1], (other.nodes or first.nodes)[-1]),
            )
            raise _differs("the list of ops", f"{a.op.name} against {b.op.name}", a.line)
    records = []
    for row in zip(*[g.nodes for g in graphs]):
        node = row[0]
        if any(n.op is not node.op for n in row):
            raise _differs(
                "the list of ops", " against ".join(dict.fromkeys(n.op.name for n in row)), node.line
            )
        try:
            inputs: list[Any] = []
            for k, items in enumerate(zip(*[n.inputs for n in row], strict=True)):
                if k < 2 and node.op.name in DRAWS:  # seed and counter, which the model has not
                    inputs.append(0)
                elif isinstance(items[0], Value):
                    if any(names[k].get(v) is not names[0][items[0]] for k, v in enumerate(items)):
                        raise Disagreement("another tensor")
                    inputs.append(names[0][items[0]])
                else:
                    inputs.append(merge(items))
            attrs = node.op.attrs_dict(
                tuple(
                    _merge_regions(items, names, same) if isinstance(items[0], Region) else merge(items)
                    for items in zip(*[n.attrs for n in row], strict=True)
                )
            )
        except (Disagreement, ValueError) as e:
            raise _differs(node.op.name, str(e), node.line) from None
        for outs in zip(*[n.outputs for n in row]):
            same(outs, node.op.name, node.line)
        records.append(Record(node.op, tuple(inputs), attrs, tuple(node.outputs), node.line))
    return records


def _merge_regions(
    regions: tuple[Region, ...], names: list[dict[Value, Value]], same: Callable[..., None]
) -> Sub:
    """The regions of a control op in several traces as one."""
    graphs = [r.graph for r in regions]
    for row in zip(*[g.inputs for g in graphs], strict=True):
        same(row, "what a region reads", "")
    records = _merge_nodes(graphs, names, same)
    for row in zip(*[g.outputs for g in graphs], strict=True):
        if any(names[k].get(v) is not names[0][row[0]] for k, v in enumerate(row)):
            raise Disagreement("another result of a region")
    return Sub(tuple(graphs[0].inputs), tuple(records), tuple(graphs[0].outputs))


def _reads(passes: list[_Pass], names: list[dict[Value, Value]]) -> dict[Value, tuple[int, ...]]:
    """The numbers that were read, each with its values in all traces. Raises OnnxError."""
    if len({len(p.trace.reads) for p in passes}) > 1:
        raise _differs("the numbers that the function reads", "another number of them", "")
    found: dict[Value, tuple[int, ...]] = {}
    for row in zip(*[p.trace.reads for p in passes]):
        value, number, line = row[0]
        if any(names[k].get(v) is not value for k, (v, _, _) in enumerate(row)):
            raise _differs("a number that is read", "from another tensor", line)
        vector = tuple(n for _, n, _ in row)
        if len(set(vector)) == 1:
            raise OnnxError(
                "onnx.export",
                f"a number read from {value.type} is {number} for all data tried, so what depends on it is not known",
                "give example arguments in which it changes with the order of elements (a mask with both values)",
                line,
            )
        found[value] = vector
    return found


def _weights(passes: list[_Pass], same: Callable[..., None]) -> dict[Value, tuple[Any, bool]]:
    """The tensors that the function found by itself: parameters, buffers, constants."""
    rows = []
    for p in passes:
        used = {v for n in p.graph.nodes for v in n.values()} | set(p.graph.outputs)
        rows.append(
            [
                s
                for s in p.trace.sources
                if s.kind != "arg" and s.symbol is not None and p.trace.inputs[id(s.symbol)] in used
            ]
        )
    if len({len(r) for r in rows}) > 1:
        raise _differs("the tensors that the function reads", "another number of them", "")
    found: dict[Value, tuple[Any, bool]] = {}
    for row in zip(*rows):
        values = tuple(p.trace.inputs[id(s.symbol)] for p, s in zip(passes, row))
        literal = row[0].key == "constant"
        line = passes[0].trace.constant_lines.get(id(row[0].tensor), "")
        if not literal and any(s.tensor is not row[0].tensor for s in row):
            raise _differs("the tensors that the function reads", f"another {row[0].tensor.type}", line)
        same(values, "a constant", line)
        data = row[0].tensor
        if literal:
            arrays = [p.trace.host.read(s.tensor) for p, s in zip(passes, row)]
            if any(not np.array_equal(a, arrays[0], equal_nan=a.dtype.kind == "f") for a in arrays):
                data = _uniform(arrays, values[0], line)
        found[values[0]] = data, literal
    return found


def _uniform(arrays: list[np.ndarray], value: Value, line: str) -> Any:
    """The one number that arrays of varying size are filled with."""
    filled = {a.ravel()[0].item() for a in arrays if a.size and (a == a.ravel()[0]).all()}
    if len(filled) == 1 and all(a.size and (a == a.ravel()[0]).all() for a in arrays):
        return filled.pop()
    raise _differs(
        "a constant", f"{value.type} is made outside duograd from a dynamic size", line,
        "compute it with dg ops from the inputs, or return it from an argument",
    )  # fmt: skip


def _differs(what: str, how: str, line: str, fix: str = "") -> OnnxError:
    return OnnxError(
        "onnx.export", f"{what} changes with a dynamic size in a way that ONNX cannot express: {how}",
        fix or "write it without Python branches on sizes, or leave the axis out of dynamic=", line,
    )  # fmt: skip
