"""Where eager and graph mode part: the first op, pass or fusion whose result is another one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core import dispatch
from ..core.region import Region
from . import compile as compiler
from .explain import user_lines
from .ir import Graph, Node, Number, Value
from .passes import PASSES
from .report import near_line
from .runner import Runner
from .sources import Source
from .witness import Call, copied


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether arrays are equal bit for bit; any NaN is like any other."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.tobytes() == b.tobytes():
        return True
    if a.dtype.kind in "biu":
        return False
    parts = (a.real, a.imag, b.real, b.imag) if a.dtype.kind == "c" else (a, b)
    half = len(parts) // 2
    return all(_same_floats(x, y) for x, y in zip(parts[:half], parts[half:]))


def _same_floats(a: np.ndarray, b: np.ndarray) -> bool:
    whole = np.dtype(f"u{a.dtype.itemsize}")
    x, y = (np.ascontiguousarray(t).reshape(-1) for t in (a, b))
    nan = np.isnan(x.astype(np.float64)) & np.isnan(y.astype(np.float64))
    return bool(((x.view(whole) == y.view(whole)) | nan).all())


def first_difference(variant: Any, tensors: list[Any], calls: Sequence[Call]) -> str | None:
    """Where a call of a variant goes another way than the eager calls; None when every op and graph agrees.

    The tensors, and what the variant reads besides, must be as they were before the call.
    """
    carried: dict[Any, Any] = {}
    segment, at = variant.root, 0
    while segment is not None:
        runner = segment.runner
        if any(isinstance(x, Region) for node in runner.traced.nodes for x in node.named.values()):
            return None  # eager mode has no kernel for a loop
        inputs = runner.inputs(tensors, carried)
        values = op_by_op(runner.traced, inputs)
        at, told = _beside(runner.traced, values, calls, at)
        told = told or bisect(runner, inputs, values)
        if told:
            return told
        outputs = [values[v] for v in runner.traced.outputs]
        for k, key in segment.carries:
            carried[key] = outputs[k]
        if segment.read is None:
            return None
        segment = segment.next(outputs[segment.read]._array(), carried)
    return None


def op_by_op(graph: Graph, inputs: Sequence[Any]) -> dict[Value, Any]:
    """Every value of a graph, each op by its eager kernel."""
    host: Any = dispatch._State.executor
    values: dict[Value, Any] = dict(zip(graph.inputs, inputs))
    with dispatch.set_grad(False):
        for node in graph.nodes:
            row = [values[x] if isinstance(x, Value) else _number(x) for x in node.inputs]
            values.update(zip(node.outputs, host.run(node.op, tuple(row), node.attrs)))
    return values


def _number(x: Any) -> Any:
    return x.read() if isinstance(x, Number) else x


def _beside(graph: Graph, values: Any, calls: Sequence[Call], at: int) -> tuple[int, str | None]:
    """The traced ops beside the eager calls from number `at` on: how far they go together, and what differs.

    Ops that only one side has (views made again, slices put back) are passed over.
    """
    for node in graph.nodes:
        shapes = [v.type.shape for v in node.outputs]
        for k in range(at, min(at + 200, len(calls))):
            call = calls[k]
            if call.op is node.op and call.line == node.line and shapes == [a.shape for a in call.outputs]:
                break
        else:
            continue
        at = k + 1
        numbers = tuple(_number(x) for x in node.inputs if x is not None and not isinstance(x, Value))
        where = f"{node.op.name} at {node.line}"
        if repr(numbers) != repr(call.numbers):
            return at, f"{where}: the graph has {_words(numbers)}, eager mode {_words(call.numbers)}"
        if node.attrs != call.attrs:
            traced, called = node.op.attrs_dict(node.attrs), call.op.attrs_dict(call.attrs)
            return at, f"{where}: the graph has {traced}, eager mode {called}"
        if not all(same(copied(values[v]), a) for v, a in zip(node.outputs, call.outputs)):
            return at, f"{where}: its operands differ from eager mode's"
    return at, None


def _words(numbers: Sequence[Any]) -> str:
    return "the number " + ", ".join(map(repr, numbers)) if numbers else "no number"


def bisect(runner: Runner, inputs: Sequence[Any], values: dict[Value, Any]) -> str | None:
    """What part of the compiler makes a graph differ from its ops one by one; None when it does not."""
    graph = runner.traced
    assert graph is not None
    results = graph.results()
    if _agree(_whole(runner, inputs), [values[v] for v in results]):
        return None
    every = [v for node in graph.nodes for v in node.outputs]
    for v, array in zip(every, _compiled(runner, inputs, every, ())):
        if not same(array, copied(values[v])):
            return f"{_name(v.producer)}: its kernel in a graph differs from its eager one"
    for n in range(1, len(PASSES) + 1):
        chosen = PASSES[:n]
        if not _agree(_compiled(runner, inputs, results, chosen), [values[v] for v in results]):
            told = _wrong_fusion(runner, inputs, chosen) if chosen[-1] == "fuse" else None
            if told is not None:
                return told
            first = _first(runner, inputs, values, every, chosen) or _wrong_result(
                runner, inputs, values, chosen
            )
            return f"{_name(first)}, by {_culprit(runner, first, chosen)}"
    wrong = next(v for v, a in zip(results, _whole(runner, inputs)) if not same(a, copied(values[v])))
    return f"{_name(wrong.producer)}, by where its result is placed in memory"


def _name(node: Node | None) -> str:
    return "an input" if node is None else f"{node.op.name} at {node.line}"


def _agree(arrays: Sequence[np.ndarray], tensors: Sequence[Any]) -> bool:
    return all(same(a, copied(t)) for a, t in zip(arrays, tensors, strict=True))


def _whole(runner: Runner, inputs: Sequence[Any]) -> list[np.ndarray]:
    """The results of the graph as it runs, and of its writes; the inputs are put back."""
    graph = runner.traced
    assert graph is not None
    before = [copied(t) for t in inputs]
    try:
        outputs = runner.on(inputs)
        written = dict(zip(graph.inputs, inputs))
        return [copied(t) for t in outputs[: len(graph.outputs)]] + [
            copied(written[t]) for t, _ in graph.writes
        ]
    finally:
        for t, values in zip(inputs, before):
            if t._array().tobytes() != values.tobytes():
                t._array()[...] = values


def _compiled(
    runner: Runner, inputs: Sequence[Any], outputs: Sequence[Value], passes: Sequence[str]
) -> list[Any]:
    """These values of the runner's graph, compiled with some passes."""
    made = Runner(_compile(runner, outputs, passes), "cpu", runner.sources)
    return [copied(t) for t in made.on(inputs)]


def _compile(runner: Runner, outputs: Sequence[Value], passes: Sequence[str]) -> Any:
    graph = runner.traced
    assert graph is not None
    kept = graph.outputs, graph.writes
    graph.outputs, graph.writes = list(outputs), []
    try:
        whole = graph.copy()
        whole.steady = frozenset()  # nothing is prepared: an input for each tensor
        return compiler.compile_graph(whole, "cpu", passes)
    finally:
        graph.outputs, graph.writes = kept


def _first(
    runner: Runner, inputs: Any, values: Any, every: list[Value], passes: Sequence[str]
) -> Node | None:
    """The op of the first value that is wrong with these passes, by halving, each value compiled alone."""

    def wrong(v: Value) -> bool:
        return not same(_compiled(runner, inputs, [v], passes)[0], copied(values[v]))

    low, high = 0, len(every) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if wrong(every[middle]) else (middle + 1, high)
    if wrong(every[low]):
        return every[low].producer
    return next((v.producer for v in every if wrong(v)), None)


def _wrong_result(runner: Runner, inputs: Any, values: Any, passes: Sequence[str]) -> Node | None:
    """The op of the first result that is wrong with these passes."""
    assert runner.traced is not None
    results = runner.traced.results()
    found = zip(results, _compiled(runner, inputs, results, passes))
    return next((v.producer for v, a in found if not same(a, copied(values[v]))), None)


def _wrong_fusion(runner: Runner, inputs: Sequence[Any], passes: Sequence[str]) -> str | None:
    """The fusion of the graph that gives something else than its ops one by one: all compiled together, as they are in
    the graph, else each by itself."""
    assert runner.traced is not None
    made = _compile(runner, runner.traced.results(), passes)
    graph = made.optimised
    values = op_by_op(graph, inputs)
    results, uses = set(graph.results()), graph.uses()
    given = []
    for group in made.groups:
        own = set(group.nodes)
        gives = [
            v for n in group.nodes for v in n.outputs if v in results or not own.issuperset(uses.get(v, ()))
        ]
        given.append((group, gives))
    graph.outputs = [v for _, gives in given for v in gives]
    compiled = compiler.compile_graph(graph, "cpu", passes[-1:])
    rows = iter(Runner(compiled, "cpu", runner.sources).on(inputs))
    for group, gives in given:
        told = [v for v in gives if not same(copied(next(rows)), copied(values[v]))]
        if told:
            return f"{_name(told[0].producer)}, by the fusion of {_listed(group.nodes)}"
    for group, gives in given:
        part, needs = _alone(group.nodes, gives)
        compiled = compiler.compile_graph(part, "cpu", passes[-1:])
        found = Runner(compiled, "cpu", [Source("carry", v, None, None) for v in needs])
        for v, t in zip(gives, found.on([values[v] for v in needs])):
            if not same(copied(t), copied(values[v])):
                return f"{_name(v.producer)}, by the fusion of {_listed(group.nodes)}"
    return None


def _alone(nodes: Sequence[Node], gives: Sequence[Value]) -> tuple[Graph, list[Value]]:
    """A graph of some nodes of another, and the values there that its inputs stand for."""
    part, swap = Graph("part"), dict[Value, Value]()
    own = {v for n in nodes for v in n.outputs}
    needs = list(dict.fromkeys(v for n in nodes for v in n.values() if v not in own))
    for v in needs:
        swap[v] = part.add_input(v.type, v.device)
    for n in nodes:
        types = tuple([v.type for v in n.outputs])
        twin = Node(n.op, n.reading(swap), n.attrs, types, n.outputs[0].device, n.where)
        swap.update(zip(n.outputs, twin.outputs))
        part.nodes.append(twin)
    part.outputs = [swap[v] for v in gives]
    return part, needs


def _listed(nodes: Sequence[Node]) -> str:
    lines = list(dict.fromkeys(near_line(n.line) for n in nodes if n.line))
    return ", ".join(n.op.name for n in nodes) + f" ({user_lines(lines)})"


def _culprit(runner: Runner, node: Node | None, passes: Sequence[str]) -> str:
    if passes[-1] != "fuse" or node is None:
        return f"the pass {passes[-1]!r}"
    assert runner.traced is not None
    made = _compile(runner, runner.traced.results(), passes)
    for group in made.groups:
        if any(n.line == node.line for n in group.nodes):
            return f"the fusion of {_listed(group.nodes)}"
    return "fusion"
