"""From a loop kernel to CUDA C, by form."""

from __future__ import annotations

from ...core.loops import LoopKernel
from .emit_map import emit_map
from .emit_reduce import emit_reduce

__all__ = ["emit_loop"]

_FORMS = {"map": emit_map, "row": emit_reduce, "col": emit_reduce}


def emit_loop(kernel: LoopKernel) -> tuple[str, int]:
    """Source text of a loop kernel, and 0: no kernel here asks for scratch rows."""
    return _FORMS[kernel.form](kernel), 0
