"""The passes over a graph, in order; each can be left out by name."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from ..ir import Graph
from ..verify import verify
from .absorb import absorb
from .algebra import simplify
from .attend import attend
from .cse import merge_equal
from .dce import remove_dead
from .fold import fold
from .join import join_heads, join_slices
from .merge import merge
from .relax import relax

_STEPS: tuple[tuple[str, Callable[[Graph, Any], None]], ...] = (
    ("dce", remove_dead),
    ("fold", fold),
    ("join", join_slices),
    ("algebra", simplify),
    ("algebra", relax),
    ("algebra", absorb),
    ("cse", merge_equal),
    ("dce", remove_dead),
    ("attend", attend),
    ("join", join_heads),
    ("merge", merge),
    ("dce", remove_dead),
)
#: every pass by name; the compiler runs "fuse" after the others, and "forget" when it knows what would be stored
PASSES = ("fold", "join", "algebra", "cse", "dce", "attend", "merge", "fuse", "forget")


def checks() -> bool:
    """Whether graphs are verified after every step."""
    return os.environ.get("DUOGRAD_VERIFY") == "1"


def run_passes(graph: Graph, backend: Any, chosen: frozenset[str]) -> None:
    """Run the chosen passes on a graph in place; with DUOGRAD_VERIFY=1 it is verified after each."""
    unknown = chosen.difference(PASSES)
    if unknown:
        raise ValueError(f"no pass is called {', '.join(sorted(unknown))}; there are {', '.join(PASSES)}")
    check = checks()
    if check:
        verify(graph, "trace")
    for name, step in _STEPS:
        if name in chosen:
            step(graph, backend)
            if check:
                verify(graph, name)
