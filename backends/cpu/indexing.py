"""Picking slices by an integer tensor, and adding gradients back to where they came from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ...core.backend import Arg, Kernel, Operand, Program, takes_halves
from ...core.lower import copy, fill
from ...core.types import DType


def _dense(program: Program, x: Operand) -> Operand:
    """x itself when it is contiguous, else a contiguous copy."""
    if x.is_contiguous:
        return x
    full = program.scratch_operand(x.dtype, x.shape)
    copy(program, x, full)
    program.wave()
    return full


def _missing(dtype: DType) -> str:
    """What stands where an index is outside: NaN for floats, else zero."""
    if dtype.is_float:
        return f"bits_{dtype.computed.char}({0x7FF8000000000000 if dtype.itemsize == 8 else 0x7FC00000})"
    return "False" if dtype.kind == "bool" else f"types.{dtype.name}(0)"


def _take_source(dtype: DType, index: DType) -> str:
    c = dtype.char
    return f"""# take: {dtype} by {index}
def kernel(args, chunk, nchunks):
    x, idx, out = args[0], args[1], args[2]
    lead, n, count, rest = args[3], args[4], args[5], args[6]
    rows = lead * count
    for row in range(rows * chunk // nchunks, rows * (chunk + 1) // nchunks):
        i = types.int64(load_{index.char}(idx, row % count))
        if i < 0:
            i += n
        target = row * rest
        if 0 <= i < n:
            source = (row // count * n + i) * rest
            for k in range(rest):
                store_{c}(out, target + k, load_{c}(x, source + k))
        else:
            for k in range(rest):
                store_{c}(out, target + k, {_missing(dtype)})
"""


@takes_halves
def take(program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, axis: int) -> None:
    """x[lead, n, rest] by index[count] to out[lead, count, rest]; a slice outside is NaN (integers: 0)."""
    x, index = (_dense(program, v) for v in inputs)
    lead, rest = math.prod(x.shape[:axis]), math.prod(x.shape[axis + 1 :])
    count = index.size
    args: list[Arg] = [x.slot, index.slot, outputs[0].slot, lead, x.shape[axis], count, rest]
    work = lead * count * rest * x.dtype.itemsize * 2
    if work:
        program.launch(_take_source(x.dtype, index.dtype), args, program.chunks(lead * count, work))


def _add_source(dtype: DType, index: DType) -> str:
    c = dtype.char
    return f"""# take_x_grad: {dtype} by {index}
def kernel(args, chunk, nchunks):
    dy, idx, out = args[0], args[1], args[2]
    lead, n, count, rest = args[3], args[4], args[5], args[6]
    # Chunks share out the columns of a slice, so that every sum has the order of the index.
    first, last = rest * chunk // nchunks, rest * (chunk + 1) // nchunks
    for row in range(lead):
        for j in range(count):
            i = types.int64(load_{index.char}(idx, j))
            if i < 0:
                i += n
            if 0 <= i < n:
                source = (row * count + j) * rest
                target = (row * n + i) * rest
                for k in range(first, last):
                    store_{c}(out, target + k, load_{c}(out, target + k) + load_{c}(dy, source + k))
"""


def take_x_grad(
    program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, size: int, axis: int
) -> None:
    """dy[lead, count, rest] added up into out[lead, n, rest] at the index."""
    dy, index = (_dense(program, v) for v in inputs)
    out = outputs[0]
    fill(program, 0, out)
    program.wave()
    lead, rest = math.prod(out.shape[:axis]), math.prod(out.shape[axis + 1 :])
    args: list[Arg] = [dy.slot, index.slot, out.slot, lead, size, index.size, rest]
    work = lead * index.size * rest * dy.dtype.itemsize * 3
    if work:
        program.launch(_add_source(dy.dtype, index.dtype), args, program.chunks(rest // 16, work))


KERNELS: dict[str, Kernel] = {"take": take, "take_x_grad": take_x_grad}
