"""From a loop kernel to Numba source text, by form."""

from __future__ import annotations

from ...core.loops import LoopKernel
from .emit_col import emit_col
from .emit_expression import expression_lines, merged
from .emit_map import emit_map
from .emit_row import emit_row

__all__ = ["emit_loop", "expression_lines"]

_FORMS = {"map": emit_map, "row": emit_row, "col": emit_col}


def emit_loop(kernel: LoopKernel) -> tuple[str, int]:
    """Source text of a loop kernel, and how many scratch rows per chunk it asks for (see core/loops.py)."""
    roots = merged(kernel.roots)
    once = LoopKernel(
        kernel.form,
        kernel.kept,
        kernel.reduced,
        kernel.inputs,
        roots,
        kernel.outputs,
        kernel.split,
        kernel.notes,
        kernel.listed,
    )
    return _FORMS[kernel.form](once)
