"""Small results whose size is found while they are made, in one serial pass without branches to predict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...core.backend import Kernel, Operand, Program, takes_halves
from ...core.picked import carrier
from .indexing import _dense

#: what is stored at `at`, and whether it stays
_BODIES = {
    "counted_places": ("i64", "i", "load_{c}(x, i) != 0"),
    "counted_choice": ("{c}", "load_{c}(x, i)", "load_b1(mask, i) != 0"),
    "counted_changes": ("{c}", "load_{c}(x, i)", "i == 0 or load_{c}(x, i) != load_{c}(x, i - 1)"),
}


def _source(name: str, c: str) -> str:
    stored, value, stays = (text.format(c=c) for text in _BODIES[name])
    return f"""# {name}: {c}
def kernel(args, chunk, nchunks):
    x, mask, n, out, count = args[0], args[1], args[2], args[3], args[4]
    at = types.int64(0)
    for i in range(n):
        store_{stored}(out, at, {value})
        at += types.int64({stays})
    store_i64(count, 0, at)
    for k in range(at, n):
        store_{stored}(out, k, 0)
"""


def _wide_source(parts: int) -> str:
    """`counted_choice` for elements of several words of 8 bytes."""
    return f"""# counted_choice: {parts} words
def kernel(args, chunk, nchunks):
    x, mask, n, out, count = args[0], args[1], args[2], args[3], args[4]
    at = types.int64(0)
    for i in range(n):
        for p in range({parts}):
            store_u64(out, at * {parts} + p, load_u64(x, i * {parts} + p))
        at += types.int64(load_b1(mask, i) != 0)
    store_i64(count, 0, at)
    for k in range(at * {parts}, n * {parts}):
        store_u64(out, k, 0)
"""


def _launch(program: Program, source: str, operands: Sequence[Any], outputs: Sequence[Operand]) -> None:
    x, *rest = [_dense(program, x) for x in operands]
    mask = rest[0] if rest else x
    program.launch(source, [x.slot, mask.slot, x.size, outputs[0].slot, outputs[1].slot])


def counted_places(program: Program, inputs: Sequence[Any], outputs: Sequence[Operand]) -> None:
    """Positions of what is not 0."""
    _launch(program, _source("counted_places", inputs[0].dtype.char), inputs, outputs)


@takes_halves
def counted_choice(program: Program, inputs: Sequence[Any], outputs: Sequence[Operand]) -> None:
    """Elements where a mask holds; one kernel for all dtypes of one size."""
    unit, parts = carrier(inputs[0].dtype)
    source = _source("counted_choice", unit) if parts == 1 else _wide_source(parts)
    _launch(program, source, inputs, outputs)


def counted_changes(program: Program, inputs: Sequence[Any], outputs: Sequence[Operand]) -> None:
    """Elements that differ from the one before."""
    _launch(program, _source("counted_changes", inputs[0].dtype.char), inputs, outputs)


KERNELS: dict[str, Kernel] = {
    "counted_places": counted_places, "counted_choice": counted_choice, "counted_changes": counted_changes,
}  # fmt: skip
