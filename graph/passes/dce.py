"""Dead code elimination: ops whose results nobody needs go. Every op is pure, random ones too."""

from __future__ import annotations

from typing import Any

from ..ir import Graph


def remove_dead(graph: Graph, backend: Any = None) -> None:
    """Keep the ops that outputs and writes depend on."""
    graph.nodes = graph.needed()
