"""Binary search of values in sorted rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...core.backend import Arg, Kernel, Operand, Program
from ...core.types import DType
from .indexing import _dense


def _source(dtype: DType, right: bool) -> str:
    c = dtype.char
    # NaN is the largest: a number stands before it, and nothing stands after it.
    before = (
        "(not v < e or e != e and v != v) and (v != v or e == e)" if right else "e < v or v != v and e == e"
    )
    return f"""# searchsorted, {"right" if right else "left"}: {dtype}
def kernel(args, chunk, nchunks):
    x, values, out, rows, n, m = args[0], args[1], args[2], args[3], args[4], args[5]
    for j in range(share(rows * m, chunk, nchunks), share(rows * m, chunk + 1, nchunks)):
        v = load_{c}(values, j)
        low, count = quotient(j, m) * n, n
        while count > 0:
            half = count >> 1
            e = load_{c}(x, low + half)
            if {before}:
                low += half + 1
                count -= half + 1
            else:
                count = half
        store_i64(out, j, low - quotient(j, m) * n)
"""


def searchsorted(program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, right: bool) -> None:
    """x[rows, n] or x[n], values[rows, m] to out[rows, m]."""
    x, values = (_dense(program, v) for v in inputs)
    if not values.size:
        return
    n = x.shape[-1]
    rows = 1 if len(x.shape) == 1 else values.size // values.shape[-1]
    args: list[Arg] = [x.slot, values.slot, outputs[0].slot, rows, n, values.size // rows]
    work = values.size * (8.0 + 12.0 * max(1, n).bit_length())
    program.launch(_source(x.dtype, right), args, program.chunks(values.size, work))


KERNELS: dict[str, Kernel] = {"searchsorted": searchsorted}
