"""Picking elements along an axis line by line, and adding gradients back to where they came from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ...core.backend import Arg, Kernel, Operand, Program
from ...core.lower import fill
from ...core.types import DType
from .indexing import _dense


def _gather_source(dtype: DType, index: DType) -> str:
    c = dtype.char
    return f"""# gather_along: {dtype} by {index}
def kernel(args, chunk, nchunks):
    x, idx, out = args[0], args[1], args[2]
    lead, n, count, rest = args[3], args[4], args[5], args[6]
    rows = lead * count
    if rest == 1:
        for row in range(share(lead, chunk, nchunks), share(lead, chunk + 1, nchunks)):
            for j in range(row * count, (row + 1) * count):
                store_{c}(out, j, load_{c}(x, row * n + types.int64(load_{index.char}(idx, j))))
    else:
        for row in range(share(rows, chunk, nchunks), share(rows, chunk + 1, nchunks)):
            base = quotient(row, count) * n
            for k in range(rest):
                i = types.int64(load_{index.char}(idx, row * rest + k))
                store_{c}(out, row * rest + k, load_{c}(x, (base + i) * rest + k))
"""


def _row_source(dtype: DType, index: DType) -> str:
    """One long line: chunks share out its elements."""
    c = dtype.char
    return f"""# gather_along, one line: {dtype} by {index}
def kernel(args, chunk, nchunks):
    x, idx, out, count = args[0], args[1], args[2], args[3]
    for j in range(share(count, chunk, nchunks), share(count, chunk + 1, nchunks)):
        store_{c}(out, j, load_{c}(x, types.int64(load_{index.char}(idx, j))))
"""


def gather_along(program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, axis: int) -> None:
    """x[lead, n, rest] by index[lead, count, rest] to out[lead, count, rest]."""
    x, index = (_dense(program, v) for v in inputs)
    lead, count, rest = math.prod(x.shape[:axis]), index.shape[axis], math.prod(x.shape[axis + 1 :])
    work = index.size * (x.dtype.itemsize * 2.0 + 8)
    if not index.size:
        return
    if lead == rest == 1:
        program.launch(
            _row_source(x.dtype, index.dtype), [x.slot, index.slot, outputs[0].slot, count],
            program.chunks(count, work),
        )  # fmt: skip
        return
    args: list[Arg] = [x.slot, index.slot, outputs[0].slot, lead, x.shape[axis], count, rest]
    items = lead if rest == 1 else lead * count
    program.launch(_gather_source(x.dtype, index.dtype), args, program.chunks(items, work))


def _scatter_source(dtype: DType, index: DType) -> str:
    c = dtype.char
    return f"""# scatter_along: {dtype} by {index}
def kernel(args, chunk, nchunks):
    dy, idx, out = args[0], args[1], args[2]
    lead, n, count, rest = args[3], args[4], args[5], args[6]
    # Chunks share out the lines, so that every sum has the order of the index.
    first, last = share(lead * rest, chunk, nchunks), share(lead * rest, chunk + 1, nchunks)
    row = quotient(first, rest)
    while row * rest < last:
        low, high = max(first, row * rest) - row * rest, min(last, (row + 1) * rest) - row * rest
        for j in range(count):
            at = (row * count + j) * rest
            for k in range(low, high):
                target = (row * n + types.int64(load_{index.char}(idx, at + k))) * rest + k
                store_{c}(out, target, load_{c}(out, target) + load_{c}(dy, at + k))
        row += 1
"""


def scatter_along(
    program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, size: int, axis: int
) -> None:
    """dy[lead, count, rest] added up into out[lead, size, rest] at the index."""
    dy, index = (_dense(program, v) for v in inputs)
    out = outputs[0]
    fill(program, 0, out)
    program.wave()
    lead, rest = math.prod(out.shape[:axis]), math.prod(out.shape[axis + 1 :])
    args: list[Arg] = [dy.slot, index.slot, out.slot, lead, size, index.shape[axis], rest]
    if index.size:
        work = index.size * (dy.dtype.itemsize * 3.0 + 8)
        program.launch(_scatter_source(dy.dtype, index.dtype), args, program.chunks(lead * rest, work))


KERNELS: dict[str, Kernel] = {"gather_along": gather_along, "scatter_along": scatter_along}
