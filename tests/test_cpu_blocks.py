"""Register blocks as functions of their own: compiled once, kept like kernels, linked to whoever calls them."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import numpy as np
import pytest
from duograd.backends.cpu import native, object_cache
from duograd.backends.cpu.blocks import ARGUMENTS, apart, parts
from duograd.backends.cpu.compile import CompileFailure, compile_object

BLOCK = apart("multiply_near_f32", 4, 16, 4, 2, 4)
# c = TURNS times a @ b, for 4 rows, 3 of k and 8 columns
CALLS = f"""
from duograd.backends.cpu.microkernel import *
def kernel(args, chunk, nchunks):
    for turn in range(TURNS):
        {BLOCK}(3, args[0], args[1], 32, args[2], 32, 4, 8, turn)
"""
A = np.arange(12, dtype=np.float32).reshape(3, 4).T  # [row, k], rows side by side
B = np.arange(24, dtype=np.float32).reshape(3, 8) - 7


def source(turns: int) -> str:
    return CALLS.replace("TURNS", str(turns))


def product(address: int) -> np.ndarray:
    out = np.full((4, 8), 99, np.float32)
    args = np.array([A.T.ctypes.data, B.ctypes.data, out.ctypes.data], np.int64)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(address)(args.ctypes.data, 0, 1)
    return out


@pytest.fixture
def forgetful(monkeypatch, tmp_path):
    """A process that knows no kernel yet, and an empty cache."""
    monkeypatch.setenv("DUOGRAD_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(native, "_addresses", {})
    monkeypatch.setattr(native, "_libraries", {})
    monkeypatch.setattr(native, "_announced", [])


def forget() -> None:
    native._addresses.clear()
    native._libraries.clear()


def test_kernels_share_one_block(forgetful):
    before = native.stats()["compiled"]
    once, twice = native.kernel_addresses([source(1), source(2)])
    assert native.stats()["compiled"] == before + 3
    assert np.array_equal(product(once), A @ B)
    assert np.array_equal(product(twice), 2 * (A @ B))


def test_a_block_that_the_cache_has_lost_is_compiled_alone(forgetful):
    native.kernel_addresses([source(1)])
    (part,) = parts(source(1))
    object_cache.remove(object_cache.key(part.source, part.entries))
    forget()
    before = native.stats()["compiled"]
    assert np.array_equal(product(native.kernel_address(source(1))), A @ B)
    assert native.stats()["compiled"] == before + 1


def test_kernel_and_block_are_linked_in_a_new_process_without_numba(forgetful):
    native.kernel_addresses([source(1)])
    code = f"""
import sys
from duograd.backends.cpu import native
native.kernel_address({source(1)!r})
print(native.stats()["compiled"], native.stats()["loaded"], "numba" in sys.modules)
"""
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=True
    )
    assert out.stdout == "0 2 False\n"


def test_a_kernels_own_code_does_not_hold_the_block():
    (part,) = parts(source(2))
    alone = compile_object(part.source, part.entries, "alone_")
    assert len(compile_object(source(2))) < len(alone)


def test_only_known_functions_may_be_called():
    with pytest.raises(CompileFailure):
        compile_object("def kernel(args, chunk, nchunks):\n    apart_multiply_f32(1)\n")


@pytest.mark.parametrize("name", ARGUMENTS)
def test_the_name_of_a_block_says_what_it_is(name):
    text = f"    {apart(f'{name}_f64', 2, 1, 2)}(0)\n"
    (part,) = parts(text + text)
    assert part.name in text
    assert len(part.entries[0][1]) == ARGUMENTS[name]
    assert f"{name}_f64(" in part.source
