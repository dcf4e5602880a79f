"""Matrix products of integers: scaled rows are added up, in the arithmetic of the dtype, which wraps."""

from __future__ import annotations

import functools
import math

from ...core.backend import Arg, Operand, Program
from .panels import batch_axes

_NAMES = {f"{kind[0]}{bits}": f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)}


@functools.cache
def _integer_source(char: str) -> str:
    return f"""# matmul {char}
def kernel(args, chunk, nchunks):
    m, n, depth, n0, n1, n2 = args[0], args[1], args[2], args[3], args[4], args[5]
    a, a0, a1, a2, a_row, a_k = args[6], args[7], args[8], args[9], args[10], args[11]
    b, b0, b1, b2, b_k, b_column = args[12], args[13], args[14], args[15], args[16], args[17]
    c = args[18]
    items = n0 * n1 * n2 * m
    for item in range(items * chunk // nchunks, items * (chunk + 1) // nchunks):
        batch, row = item // m, item % m
        i0, i1, i2 = batch // (n1 * n2), batch // n2 % n1, batch % n2
        a_at = i0 * a0 + i1 * a1 + i2 * a2 + row * a_row
        b_at = i0 * b0 + i1 * b1 + i2 * b2
        to = item * n
        for j in range(n):
            store_{char}(c, to + j, types.{_NAMES[char]}(0))
        for k in range(depth):
            x = load_{char}(a, a_at + k * a_k)
            for j in range(n):
                y = load_{char}(b, b_at + k * b_k + j * b_column)
                store_{char}(c, to + j, types.{_NAMES[char]}(load_{char}(c, to + j) + x * y))
"""


def integer_product(program: Program, a: Operand, b: Operand, out: Operand) -> None:
    """Append out = a @ b."""
    sizes, (a_steps, b_steps) = batch_axes(a.shape[:-2], [a.strides[:-2], b.strides[:-2]])
    m, k, n = a.shape[-2], a.shape[-1], b.shape[-1]
    if len(sizes) > 3:
        size = out.dtype.itemsize
        for i in range(out.shape[0]):
            part = [
                Operand(x.source, x.offset + i * x.strides[0] * size, x.dtype, x.shape[1:], x.strides[1:])
                for x in (a, b, out)
            ]
            integer_product(program, *part)
        return
    args: list[Arg] = [m, n, k, *sizes, a.slot, *a_steps, *a.strides[-2:]]
    args += [b.slot, *b_steps, *b.strides[-2:], out.slot]
    items = math.prod(sizes) * m
    program.launch(_integer_source(out.dtype.char), args, program.chunks(items, 1.0 * items * n * k))
