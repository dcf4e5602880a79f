"""Stores round the caches: when a loop kernel's outputs are written straight to memory.

A store into a cache first reads the line that it overwrites, so a copy moves three bytes for two. A
non-temporal store does not, but leaves nothing in the cache for who reads the result next. It pays for results that
would not stay in a core's own caches anyway, on machines whose shared cache is slow or busy; elsewhere (a large
cache that is near) it costs a multiple. So it is measured, once in a process that needs to know and for each number
of threads: one alone may win by what two lose.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from ...core.loops import LoopKernel
from .native import KERNEL, announce

#: outputs of fewer bytes are always written into the caches
BYTES = 16 << 20
#: one must beat the other by so much
_MARGIN = 0.9
_ROUNDS = 6

COPY = """
def kernel(args, chunk, nchunks):
    source = args[0]
    target = args[1]
    n = args[2]
    around = args[3]
    m = w_all()
    blocks = n >> 4
    first = share(blocks, chunk, nchunks) << 4
    last = share(blocks, chunk + 1, nchunks) << 4
    for v in range(first, last, 16):
        x = w_load_f32(source, v, m)
        if around:
            w_stream_f32(target, v, x)
        else:
            w_store_f32(target, v, x, m)
    if around:
        store_fence()
"""


# Compiled beside the first kernels: a large batch that comes later compiles nothing.
announce(COPY, KERNEL)


def wanted(kernel: LoopKernel, args: Sequence[Any]) -> bool:
    """Whether large outputs of this launch are to be written round the caches; args: its slots, sizes first."""
    if kernel.form == "col" or not any(streams(out) for out in kernel.outputs):
        return False
    elements = math.prod(args[: kernel.n_axes])
    largest = max(elements * out.dtype.itemsize for out in kernel.outputs if streams(out))
    return largest >= BYTES and pays(_threads())


def streams(output: Any) -> bool:
    """Whether an output of a loop kernel can be written round the caches, if its memory is aligned."""
    return (
        output.inner == "c" and not output.row and output.dtype.itemsize >= 4 and not output.dtype.is_complex
    )


def copiers(size: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Two calls that copy `size` bytes between places of their own: through the caches, and round them."""
    import numpy as np

    from ...core.backend import Program, get_backend

    backend = get_backend("cpu")
    size &= -64
    memory = np.ones(2 * size + 64, np.uint8)  # written: pages that nobody wrote are all one page of zeros
    start = -(-memory.ctypes.data // 64) * 64
    calls = []
    for around in (0, 1):
        program = Program(backend)
        program.launch(COPY, [start, start + size, size // 4, around], 4 * _threads())
        run = backend.load(program).run
        calls.append(lambda run=run, kept=memory: run(()))
    return calls[0], calls[1]


def _threads() -> int:
    from ...core.backend import get_backend

    return get_backend("cpu").num_threads()


@functools.cache
def pays(threads: int) -> bool:
    """Whether a copy of BYTES with non-temporal stores is faster on this machine; threads: those that run it now."""
    calls = copiers(BYTES)
    best = [math.inf, math.inf]
    for _ in range(_ROUNDS):
        for around, call in enumerate(calls):
            begin = time.perf_counter()
            call()
            best[around] = min(best[around], time.perf_counter() - begin)
    return best[1] < _MARGIN * best[0]
