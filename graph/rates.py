"""What this machine reaches: bytes a second of a copy, operations a second of a matrix product. Measured once."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

from ..core import dispatch
from ..core.modes import no_grad
from ..core.ops.creation import ones, zeros
from ..core.ops.elementwise import assign, negative
from ..core.ops.linalg import matmul
from ..core.types import DType, float64

_SIZES = (1 << 18, 1 << 20, 1 << 24, 1 << 27)


def traffic_rate(nbytes: float, in_place: bool = False) -> float:
    """Bytes a second, read and written, of a copy whose traffic is about `nbytes`: small ones stay in caches.

    in_place: of numbers that are negated where they lie, which fetches nothing to write to."""
    near = min(_SIZES, key=lambda n: abs(n.bit_length() - max(1, int(nbytes)).bit_length()))
    return _traffic(near, in_place)


def product_rate(dtype: DType) -> float:
    """Operations a second of a large matrix product (768 x 768), in float64 or else in float32."""
    return _product(dtype if dtype is float64 else None)


def _best(call: Callable[[], Any], seconds: float) -> float:
    """The shortest time of a call."""
    clock = time.perf_counter
    call()
    best, until = float("inf"), clock() + seconds
    while True:
        start = clock()
        call()
        end = clock()
        best = min(best, end - start)
        if end > until:
            return best


@functools.cache
def _traffic(nbytes: int, in_place: bool) -> float:
    op = negative if in_place else assign

    def seconds(n: int, budget: float) -> float:
        a, b = ones((n,)), zeros((n,))
        return _best(lambda: dispatch.update(op, (b,), (b if in_place else a,), ()), budget)

    with no_grad():
        whole = seconds(nbytes // 8, 0.05)
        # What the call itself costs hides the speed of small copies; noise must not make them free.
        call = seconds(1, 0.005) if nbytes < 1 << 22 else 0.0
        return nbytes / max(whole - call, whole / 4)


@functools.cache
def _product(dtype: DType | None) -> float:
    n = 768
    a = ones((n, n), dtype=dtype)
    with no_grad():
        return 2.0 * n**3 / _best(lambda: matmul(a, a), 0.1)
