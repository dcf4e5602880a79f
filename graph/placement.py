"""Where results go: outputs and in-place writes are computed straight into their memory when that is safe.

A value that is written over an input must come after everything that reads the input's old content; a
result that cannot be computed in place (a view, an input, a value with two places, a reader that needs the
new value first) gets a copy of its own, which later fuses like any other op.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from ..core.ops.elementwise import assign
from ..core.ops.joining import concat
from ..core.region import cond, scan, while_loop
from ..core.types import contiguous_strides
from .ir import Graph, Node, Value
from .layout import Layout, is_dense, is_seen_through, spread


class Places(NamedTuple):
    """Where values are stored and what that asks of the order.

    of: base value -> number of the graph output, or the input that it replaces. before: (reader, writer) pairs.
    same: results of updates of a slice that keep the memory of what they update. parts: values that are computed where
    a `concat` puts them: its result, and their first byte there.
    """

    of: dict[Value, int | Value]
    before: list[tuple[Node, Node]]
    same: dict[Value, Value]
    parts: dict[Value, tuple[Value, int]]

    def root(self, value: Value) -> tuple[Value, int]:
        """The value whose memory a part lies in, in the end, and its first byte there."""
        at = 0
        while value in self.parts:
            value, offset = self.parts[value]
            at += offset
        return value, at

    @property
    def written(self) -> set[Value]:
        """Inputs whose memory changes."""
        return {target for target in self.of.values() if isinstance(target, Value)}


def place_results(graph: Graph, layouts: dict[Value, Layout]) -> Places:
    """Choose a place for every output and write; adds copies to the graph where a value cannot be its own."""
    return _Placer(graph, layouts).run()


class _Placer:
    def __init__(self, graph: Graph, layouts: dict[Value, Layout]):
        self.graph, self.layouts = graph, layouts
        self.places = Places({}, [], {}, {})
        self.readers: dict[Value, list[Node]] = {}
        self.later: dict[Node, list[Node]] = {}  # reader -> writers that must wait for it
        self.writers: dict[Value, Node] = {}  # by the input that they replace
        #: loops may be interrupted, so nothing outside is written before they have run
        self.controls = [n for n in graph.nodes if n.op in (cond, while_loop, scan)]
        for node in graph.nodes:
            if not is_seen_through(node, layouts):
                for x in node.values():
                    self.readers.setdefault(layouts[x].base, []).append(node)

    def run(self) -> Places:
        written = {target for target, _ in self.graph.writes}
        for target, value in self.graph.writes:
            layout = self.layouts[value]
            if layout.base is target and layout == self.layouts[target] and value.type == target.type:
                continue
            if not self._in_place(target, value):
                if layout.base in written:
                    value = self._copy(value)
                self._put(self._copy(value), target)
        for k, value in enumerate(self.graph.outputs):
            layout = self.layouts[value]
            if layout.base in self.places.of or not layout.covers_base(value.type.shape):
                self.places.of[self._copy(value)] = k
            else:
                self.places.of[layout.base] = k
        for node in self.graph.nodes:
            if node.op.updates:
                self._keep_memory(node)
        for node in self.graph.nodes:
            if node.op is concat:
                self._join(node)
        return self.places

    def _join(self, node: Node) -> None:
        """Let the operands of a `concat` be computed in their places in its result, where these are in one piece."""
        out, (axis,), (of, _, same, parts) = node.outputs[0], node.attrs, self.places
        fixed = {*same, *same.values()}
        if math.prod(out.type.shape[:axis]) != 1 or out in fixed or isinstance(of.get(out), Value):
            return
        at = 0
        for x in node.values():
            layout, base = self.layouts[x], self.layouts[x].base
            free = base.producer is not None and base not in of and base not in fixed and base not in parts
            if (
                free
                and base.type.dtype is out.type.dtype is x.type.dtype
                and layout.covers_base(x.type.shape)
            ):
                parts[base] = out, at
            at += x.size * out.type.dtype.itemsize

    def _keep_memory(self, node: Node) -> None:
        """Let an update of a slice write into its own input, when nobody else reads that."""
        x, out = node.inputs[0], node.outputs[0]
        layout, of = self.layouts[x], self.places.of
        if isinstance(of.get(out), Value):
            if layout.base is of[out]:
                self.places.same[out] = layout.base
            return
        base = layout.base
        root = self.places.same.get(base, base)
        # What is updated may be a result or a write itself, also one that keeps the memory of what it updated.
        placed = base in of or root in of
        if layout.covers_base(x.type.shape) and not placed and self.readers[base] == [node]:
            self.places.same[out] = root
            if out in of:
                of[root] = of.pop(out)

    def _copy(self, value: Value) -> Value:
        node = Node(assign, [value], (), (value.type,), value.device, "")
        self.graph.nodes.append(node)
        base = self.layouts[value].base
        self.readers.setdefault(base, []).append(node)
        if base in self.writers:  # placed already, without knowing of this reader
            self._wait(node, self.writers[base])
        copied = node.outputs[0]
        self.layouts[copied] = Layout(copied, contiguous_strides(value.type.shape), 0)
        return copied

    def _put(self, base: Value, target: Value) -> None:
        writer = base.producer
        assert writer is not None
        self.places.of[base] = target
        self.writers[target] = writer
        for reader in (*self.readers.get(target, ()), *self.controls):
            if reader is not writer:
                self._wait(reader, writer)

    def _wait(self, reader: Node, writer: Node) -> None:
        """The writer runs after the reader of the old content."""
        self.places.before.append((reader, writer))
        self.later.setdefault(reader, []).append(writer)

    def _in_place(self, target: Value, value: Value) -> bool:
        layout = self.layouts[value]
        base, writer = layout.base, layout.base.producer
        there = self.layouts[target]
        if (
            writer is None
            or writer in self.controls
            or base in self.places.of
            or not layout.covers_base(value.type.shape)
        ):
            return False
        if there.offset or not is_dense(target.type.shape, there.strides):
            return False
        if not self._reads_in_step(writer, target):
            return False
        readers = {r for r in (*self.readers.get(target, ()), *self.controls) if r is not writer}
        if readers and self._reaches(writer, readers):
            return False
        self._put(base, target)
        return True

    def _reads_in_step(self, writer: Node, target: Value) -> bool:
        """Whether the writer reads of the target, for each element, at most the element that it replaces."""
        for k, x in enumerate(writer.values()):
            layout = self.layouts[x]
            if layout.base is target:
                if writer.op.updates and k == 0 and layout == self.layouts[target]:
                    continue
                shape = writer.outputs[0].type.shape
                if writer.op.kind != "pointwise" or layout.offset or x.size != writer.outputs[0].type.size:
                    return False
                if not is_dense(shape, spread(x.type.shape, layout.strides, shape)):
                    return False
        return True

    def _reaches(self, start: Node, goals: set[Node]) -> bool:
        """Whether any of the goals must come after `start`."""
        seen = {start}
        stack = [start]
        while stack:
            node = stack.pop()
            follow = list(self.later.get(node, ()))
            for v in node.outputs:
                follow += self.readers.get(v, ())
            for n in follow:
                if n in goals:
                    return True
                if n not in seen:
                    seen.add(n)
                    stack.append(n)
        return False
