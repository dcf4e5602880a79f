"""The CPU backend object: memory, programs from several threads, discovery, lazy loading."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading

import numpy as np
import pytest
from duograd.backends.cpu.memory import Allocator
from duograd.core import types as T
from duograd.core.backend import Operand, Program, get_backend
from duograd.core.loops import Input, LoopKernel, Output
from duograd.core.lower import lower_map
from duograd.core.scalar import Expr, s


def view(storage, shape, dtype=T.float32):
    return storage.array(dtype, shape, T.contiguous_strides(shape), 0)


@pytest.mark.parametrize("nbytes", [0, 1, 17, 48, 49, 64, 65, 4096, 4097, 100_000, 5_000_000])
def test_storage_is_aligned_and_large_enough(nbytes):
    storage = Allocator().empty(nbytes)
    assert storage.ptr % (64 if nbytes > 48 else 16) == 0
    bytes_ = view(storage, (nbytes,), T.uint8)
    assert nbytes == 0 or bytes_.ctypes.data == storage.ptr
    bytes_[:] = 7
    assert storage.nbytes == nbytes


def test_freed_memory_is_used_again():
    for nbytes in (100, 1_000_000):
        allocator = Allocator()
        first = allocator.empty(nbytes)
        address = first.ptr
        del first
        assert allocator.stats()["cached_bytes"] > 0
        assert allocator.empty(nbytes).ptr == address


def test_memory_that_numpy_still_sees_is_not_used_again():
    allocator = Allocator()
    storage = allocator.empty(400)
    x = view(storage, (10, 10))
    part = x[2:, ::2]
    x[...] = 5
    del x, storage
    other = view(allocator.empty(400), (10, 10))
    other[...] = 6
    assert np.all(part == 5)
    assert allocator.stats()["cached_bytes"] == 0


def test_view_has_strides_and_offset():
    storage = Allocator().empty(4 * 24)
    view(storage, (24,))[:] = np.arange(24)
    x = storage.array(T.float32, (3, 4), (1, 6), 4)
    np.testing.assert_array_equal(x, 1 + np.arange(3)[:, None] + 6 * np.arange(4))


@pytest.mark.usefixtures("own_garbage")
def test_statistics_count_what_is_in_use():
    allocator = Allocator()
    a, b = allocator.empty(1000), allocator.empty(3000)
    both = allocator.stats()["current_bytes"]
    assert both >= 4000
    del b
    assert allocator.stats() == {"current_bytes": 1024, "peak_bytes": both, "cached_bytes": both - 1024}
    allocator.reset_peak()
    assert allocator.stats()["peak_bytes"] == 1024
    allocator.trim()
    assert allocator.stats()["cached_bytes"] == 0
    del a
    gc.collect()
    assert allocator.stats()["current_bytes"] == 0


def test_small_values_take_no_whole_line():
    allocator = Allocator()
    kept = [allocator.empty(n) for n in (0, 4, 16, 17, 48, 49, 64)]
    assert allocator.current == 3 * 16 + 32 + 48 + 2 * 64
    del kept


def test_cache_is_bounded():
    allocator = Allocator(limit=10_000)
    blocks = [allocator.empty(4000) for _ in range(5)]
    del blocks
    assert allocator.stats()["cached_bytes"] <= 10_000


def test_allocator_in_many_threads_gives_every_block_once():
    allocator, errors = Allocator(), []

    def work(number):
        for k in range(2000):
            storage = allocator.empty(64 * (1 + k % 5))
            x = view(storage, (16,), T.int32)
            x[:] = number
            if not np.all(x == number):
                errors.append(k)
            del x

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors
    assert allocator.stats()["current_bytes"] == 0


def test_one_program_runs_in_many_threads_at_once():
    backend = get_backend("cpu")
    program = Program(backend)
    x, y = (Operand(program.dynamic(), 0, T.float32, (5000,), (1,)) for _ in range(2))
    lower_map(program, (5000,), [x], [s.exp(Expr("arg", T.float32, (), 0)) * 2.0], [y])
    run = backend.load(program).run
    data = np.random.default_rng(0).standard_normal((4, 5000)).astype(np.float32)
    want = np.empty_like(data)
    for a, b in zip(data, want):
        run([a.ctypes.data, b.ctypes.data])
    got = np.zeros_like(data)

    def work(k):
        for _ in range(200):
            run([data[k].ctypes.data, got[k].ctypes.data])

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    np.testing.assert_array_equal(got, want)


def test_equal_structures_share_their_source():
    def kernel(note):
        x = Expr("arg", T.float32, (), 0)
        ends = (Input(T.float32),), (s.exp(x) + x,), (Output(T.float32),)
        return LoopKernel("map", 0, 0, *ends, notes=(note,))

    backend = get_backend("cpu")
    first, second = backend.emit_loop(kernel("one")), backend.emit_loop(kernel("two"))
    assert first is second
    assert first[0].startswith("# one\n")


def test_primitives_are_discovered():
    backend = get_backend("cpu")
    assert callable(backend.primitive("matmul"))
    assert backend.primitive("no such op") is None


def test_import_does_not_load_numba():
    code = "import duograd, sys; assert 'numba' not in sys.modules and 'llvmlite' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
