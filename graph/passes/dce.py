"""Dead code elimination: ops whose results nobody needs go. Every op is pure, random ones too."""

from __future__ import annotations

from typing import Any

from ..ir import Graph, Node


def remove_dead(graph: Graph, backend: Any = None) -> None:
    """Keep the ops that outputs and writes depend on."""
    needed = set(graph.results())
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if any(v in needed for v in node.outputs):
            kept.append(node)
            needed.update(node.values())
    kept.reverse()
    graph.nodes = kept
