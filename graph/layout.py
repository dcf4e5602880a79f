"""Where a value lies: views are strides over the memory of their base, so they are never kernels.

Strides and offsets are in elements. A computed base is contiguous; an input may have strides of its own.
"""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from typing import NamedTuple

from ..core.ops.elementwise import assign
from ..core.types import DType, Shape, TensorType, contiguous_strides
from .ir import Graph, Node, Value


class Layout(NamedTuple):
    """A value as a strided view of its base's memory.

    rounded: the 16-bit float that who reads it rounds it to: it is a view of a cast of its base.
    """

    base: Value
    strides: Shape
    offset: int
    rounded: DType | None = None

    def covers_base(self, shape: Shape) -> bool:
        """Whether this is the whole computed base in its own order."""
        base = self.base
        return (
            base.producer is not None and self.offset == 0 and math.prod(shape) == base.size
            and is_dense(shape, self.strides)
        )  # fmt: skip


def is_dense(shape: Shape, strides: Sequence[int]) -> bool:
    """Whether strides are row-major without gaps; axes of size 1 do not count."""
    step = 1
    for n, st in zip(reversed(shape), reversed(strides)):
        if n != 1:
            if st != step:
                return False
            step *= n
    return True


def is_seen_through(node: Node, layouts: dict[Value, Layout]) -> bool:
    """Whether an op computes nothing: a view, or a cast that its readers do."""
    if node.op.is_view and node.op.view_rule is not None:
        return True
    return bool(node.outputs) and layouts[node.outputs[0]].rounded is not None


def find_layouts(graph: Graph, change: bool = True, casts: Container[Node] = ()) -> dict[Value, Layout]:
    """The layout of every value. change: a view that strides cannot express gets a copy in front of it; without, the
    graph stays as it is, and such a view counts as memory of its own. casts: those that their readers do."""
    found: dict[Value, Layout] = {}
    for v in graph.inputs:
        found[v] = Layout(v, graph.strides.get(v) or contiguous_strides(v.type.shape), 0)
    nodes: list[Node] = []
    copies: dict[tuple[Layout, Shape], Value] = {}
    for node in graph.nodes:
        op = node.op
        if op.is_view and op.view_rule is not None:
            x = node.inputs[0]
            base, strides, offset, rounded = layout = found[x]
            made = op.view_rule(x.type.shape, strides, **node.named)
            if made is None and not change:
                y = node.outputs[0]
                found[y] = Layout(y, contiguous_strides(y.type.shape), 0)
                continue
            if made is None:
                dense = copies.get((layout, x.type.shape))
                if dense is None:
                    copy = Node(assign, [x], (), (x.type,), x.device, node.where)
                    nodes.append(copy)
                    dense = copies[layout, x.type.shape] = copy.outputs[0]
                    found[dense] = Layout(dense, contiguous_strides(x.type.shape), 0)
                base, offset = dense, 0
                made = op.view_rule(x.type.shape, found[dense].strides, **node.named)
                node.inputs[0] = dense
            _, strides, more = made
            found[node.outputs[0]] = Layout(base, strides, offset + more, rounded)
        elif node in casts:
            x, y = node.inputs[0], node.outputs[0]
            found[y] = Layout(found[x].base, contiguous_strides(y.type.shape), found[x].offset, y.type.dtype)
        else:
            for v in node.outputs:
                found[v] = Layout(v, contiguous_strides(v.type.shape), 0)
        nodes.append(node)
    if change:
        graph.nodes = nodes
    return found


class Seen(NamedTuple):
    """How a result is handed out: as one of the inputs, or of the outputs, or as a view of it.

    strides: None for itself; offset: the view's first element.
    """

    given: bool
    number: int
    type: TensorType
    strides: Shape | None = None
    offset: int = 0


def lay_out(graph: Graph, handed: Container[Value], rows: Container[int] = ()) -> None:
    """Let results lie in memory as op by op: what they repeat, turn or cut out is written, and seen as a view.

    Changes `graph.outputs` to what is written, and `graph.seen`. handed: inputs that are handed on themselves, or as
    views; rows: numbers of results that get rows of their own, however they lie.
    """
    layouts = find_layouts(graph, change=False)
    outputs: list[Value] = []
    written: dict[Value, int] = {}
    copied: dict[Value, Value] = {}

    def write(value: Value, shared: bool = True) -> int:
        if shared and value in written:
            return written[value]
        outputs.append(value)
        if shared:
            written[value] = len(outputs) - 1
        return len(outputs) - 1

    seen: list[Seen] = []
    for k, y in enumerate(graph.outputs):
        base, strides, offset, _ = layouts[y]
        dense = not y.size or is_dense(y.type.shape, strides)
        if k in rows:
            seen.append(Seen(False, write(y, shared=False), y.type))
        elif base in handed and (base is y or not dense):
            view = (None, 0) if base is y else (strides, offset)
            seen.append(Seen(True, graph.inputs.index(base), y.type, *view))
        elif dense or base in graph.strides:
            seen.append(Seen(False, write(y), y.type))
        else:
            if base.producer is None:
                if base not in copied:
                    copy = Node(assign, [base], (), (base.type,), base.device, None)
                    graph.nodes.append(copy)
                    copied[base] = copy.outputs[0]
                base = copied[base]
            seen.append(Seen(False, write(base), y.type, strides, offset))
    graph.outputs = outputs
    plain = [Seen(False, k, y.type) for k, y in enumerate(outputs)]
    graph.seen = None if seen == plain else tuple(seen)


def spread(shape: Shape, strides: Sequence[int], over: Shape) -> Shape:
    """Strides over a shape that `shape` broadcasts to: 0 where it is repeated."""
    if shape == over:
        if 1 not in shape:
            return strides if strides.__class__ is tuple else tuple(strides)
        return tuple([0 if n == 1 else s for n, s in zip(shape, strides)])
    if len(shape) > len(over):  # only a single element, read through an op that is computed again
        return (0,) * len(over)
    inner = tuple([0 if n == 1 else s for n, s in zip(shape, strides)])
    return (0,) * (len(over) - len(shape)) + inner


def through(
    domain: Shape, access: Shape, offset: int, shape: Shape, strides: Sequence[int]
) -> tuple[Shape, int] | None:
    """Strides and offset over `domain` of an operand that has `strides` over `shape`.

    Index i of the domain stands for element `offset + sum(i * access)` of `shape` in row-major order.
    None when the domain's axes do not walk the operand with one stride each.
    """
    runs: list[list[int]] = []  # axes of the operand that are walked as one, innermost first
    step = 1
    for n, st in zip(reversed(shape), reversed(strides)):
        if n != 1:
            if runs and st == runs[-1][2] * runs[-1][0]:
                runs[-1][0] *= n
            else:
                runs.append([n, step, st])
            step *= n
    if not runs:
        return (0,) * len(domain), 0
    if len(runs) == 1:
        st = runs[0][2]
        return tuple([a * st for a in access]), offset * st
    out = [0] * len(domain)
    start, total = [], 0
    for size, step, st in runs:
        at = offset // step % size
        start.append([at, at])
        total += at * st
    for i, (n, a) in enumerate(zip(domain, access)):
        if n == 1 or a == 0:
            continue
        for (size, step, st), reach in zip(reversed(runs), reversed(start)):
            if abs(a) >= step and a % step == 0:
                move = a // step
                reach[move > 0] += (n - 1) * move
                if reach[0] < 0 or reach[1] >= size:
                    return None
                out[i] = move * st
                break
        else:
            return None
    return tuple(out), total


def refine(a: Sequence[int], b: Sequence[int]) -> list[list[int]] | None:
    """Split each axis of `a` so that every axis of `b` is a run of the parts; None when they do not nest.

    Sizes are without 1s and have equal products. Parts are outermost first.
    """
    parts: list[list[int]] = [[] for _ in a]
    j = len(b) - 1
    there = b[j] if b else 1
    for i in range(len(a) - 1, -1, -1):
        here = a[i]
        while here > 1:
            step = min(here, there)
            if step <= 1 or here % step or there % step:
                return None
            parts[i].insert(0, step)
            here //= step
            there //= step
            if there == 1 and j > 0:
                j -= 1
                there = b[j]
    return parts
