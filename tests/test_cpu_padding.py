"""Old memory in padded parts of packed operands costs no time: denormals there would be a hundred times as slow."""

import ctypes
import time

import duograd as dg
import numpy as np
import pytest
from duograd.graph import arena

CASES = {
    "conv": (lambda x, w: dg.conv(x, w, padding=1), (1, 64, 7, 7), (64, 64, 3, 3)),
    "conv of stride 2": (lambda x, w: dg.conv(x, w, stride=2, padding=1), (2, 32, 15, 15), (64, 32, 3, 3)),
    "matmul": (lambda a, b: a @ b, (50, 300), (300, 49)),
    "attention": (lambda q, k: dg.scaled_dot_product_attention(q, k, k), (2, 2, 50, 20), (2, 2, 45, 20)),
    "its gradient": (
        lambda q, k: dg.grad(lambda q: dg.scaled_dot_product_attention(q, k, k, is_causal=True).sum())(q),
        (2, 2, 50, 20),
        (2, 2, 40, 20),
    ),
}


def fill_waiting_memory(value):
    """Fill the arenas that wait for a call."""
    for arenas in arena._arenas.values():
        for storage in arenas._free:
            words = (ctypes.c_float * (storage.nbytes // 4)).from_address(storage.ptr)
            np.ctypeslib.as_array(words)[:] = value


@pytest.mark.parametrize("name", CASES)
def test_old_memory_costs_no_time(name):
    fn, *shapes = CASES[name]
    inputs = [dg.randn(*s) for s in shapes]
    graph = dg.function(fn)
    graph(*inputs)
    best = {1.0: np.inf, 1e-42: np.inf}
    for _ in range(30):  # both in turn: the machine may change its speed
        for value in best:
            fill_waiting_memory(value)
            start = time.perf_counter()
            graph(*inputs)
            best[value] = min(best[value], time.perf_counter() - start)
    assert best[1e-42] < 2 * best[1.0]
