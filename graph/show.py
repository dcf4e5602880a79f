"""Show: a graph as text, one op a line, with the user's source lines; groups after fusion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..core.region import Region
from .group import Group
from .ir import Graph, Node, Value


def name_values(graph: Graph) -> dict[Value, str]:
    """%0, %1 ... for inputs, then for results of nodes in order."""
    names: dict[Value, str] = {}
    for v in graph.inputs:
        names[v] = f"%{len(names)}"
    for node in graph.nodes:
        for v in node.outputs:
            names[v] = f"%{len(names)}"
    return names


def lines_of(graph: Graph, names: dict[Value, str]) -> list[str]:
    """One line for every node."""
    return [_line(node, names) for node in graph.nodes]


def _line(node: Node, names: dict[Value, str]) -> str:
    def text(x: Any) -> str:
        return names.get(x, "%?") if isinstance(x, Value) else repr(x)

    made = ", ".join(text(v) for v in node.outputs)
    attrs = "".join(f" {k}={_attr(v)}" for k, v in node.named.items() if v is not None)
    types = ", ".join(str(v.type) for v in node.outputs)
    line = f"{made} = {node.op.name} {' '.join(map(text, node.inputs))}{attrs} : {types}"
    return line + (f"   # {node.line}" if node.line else "")


def _region_lines(node: Node) -> list[str]:
    """The regions of a node as text, below its line."""
    out: list[str] = []
    for name, region in node.named.items():
        if isinstance(region, Region):
            out.append(f"    {name} = {region}:")
            out += ["        " + line for line in show(region.graph).splitlines()[1:]]
    return out


def _attr(value: Any) -> str:
    return str(value).replace(" ", "")


def show(graph: Graph, groups: Sequence[Group] = ()) -> str:
    """The graph as text: inputs, ops (under their kernels when groups are given), writes, outputs."""
    names = name_values(graph)
    out = [f"graph {graph.name}("]
    for v in graph.inputs:
        strides = graph.strides.get(v)
        out.append(f"    {names[v]} : {v.type}" + (f" strides {list(strides)}" if strides else ""))
    out.append("):")
    if groups:
        for k, group in enumerate(groups):
            axes = "" if group.kind != "reduce" else f" reducing {list(group.axes)}"
            over = "" if group.kind == "op" else f" over {list(group.sizes)}{axes}"
            out.append(f"    kernel {k}, {group.kind}{over}")
            rows = [line for node in group.nodes for line in (_line(node, names), *_region_lines(node))]
            out += ["        " + line for line in rows]
    else:
        for node, line in zip(graph.nodes, lines_of(graph, names)):
            out += ["    " + text for text in (line, *_region_lines(node))]
    for target, v in graph.writes:
        out.append(f"    write {names.get(target, '%?')} <- {names.get(v, '%?')}")
    out.append(f"    return {', '.join(names.get(v, '%?') for v in graph.outputs)}")
    return "\n".join(out)
