"""Positions of elements that are not 0: counted per chunk, then written where the counts before end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...core.backend import Arg, Kernel, Operand, Program
from ...core.types import DType
from .indexing import _dense


def _count_source(dtype: DType) -> str:
    c = dtype.char
    return f"""# flat_places, counting: {dtype}
def kernel(args, chunk, nchunks):
    x, n, counts = args[0], args[1], args[2]
    found = types.int64(0)
    for i in range(share(n, chunk, nchunks), share(n, chunk + 1, nchunks)):
        found += types.int64(load_{c}(x, i) != 0)
    store_i64(counts, chunk, found)
"""


def _write_source(dtype: DType) -> str:
    c = dtype.char
    return f"""# flat_places, writing: {dtype}
def kernel(args, chunk, nchunks):
    x, n, counts, out, size = args[0], args[1], args[2], args[3], args[4]
    at = types.int64(0)
    for k in range(chunk):
        at += load_i64(counts, k)
    end = min(at + load_i64(counts, chunk), size)
    i = share(n, chunk, nchunks)
    # Every position is written and the next one overwrites it where the element is 0: no branch to predict.
    while at < end:
        store_i64(out, at, i)
        at += types.int64(load_{c}(x, i) != 0)
        i += 1
    if chunk == nchunks - 1:
        for k in range(at, size):
            store_i64(out, k, 0)
"""


def flat_places(program: Program, inputs: Sequence[Any], outputs: Sequence[Operand], *, size: int) -> None:
    """The first `size` positions in x, read as one row, of what is not 0."""
    if not size:
        return
    x = _dense(program, inputs[0])
    chunks = program.chunks(max(1, x.size // 1024), x.size * (x.dtype.itemsize + 8.0))
    counts = program.scratch(8 * chunks)
    read: list[Arg] = [x.slot, x.size, counts]
    program.launch(_count_source(x.dtype), read, chunks)
    program.wave()
    program.launch(_write_source(x.dtype), [*read, outputs[0].slot, size], chunks)


KERNELS: dict[str, Kernel] = {"flat_places": flat_places}
