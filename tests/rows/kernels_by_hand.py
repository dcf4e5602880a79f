"""Kernels written by hand, and how they are run: alone, as a bound program, in a fresh interpreter."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import textwrap

import numpy as np
from duograd.backends.cpu import native, pool

ADD_ONE = """
def kernel(args, chunk, nchunks):
    x = args[0]
    for i in range(args[1] * chunk // nchunks, args[1] * (chunk + 1) // nchunks):
        store_i64(x, i, load_i64(x, i) + 1)
"""

# out[chunk] = sum of x: reads all that the wave before has written.
SUM = """
def kernel(args, chunk, nchunks):
    total = 0
    for i in range(args[1]):
        total += load_i64(args[0], i)
    store_i64(args[2], chunk, total)
"""


def call(address: int, *slots: int, chunk: int = 0, nchunks: int = 1) -> None:
    args = np.array(slots, np.int64)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(address)(
        args.ctypes.data, chunk, nchunks
    )


class Table:
    """Rows of (kernel source, slots, chunks, starts a wave) with their argument blocks, and a bound call."""

    def __init__(self, *launches, patches=(), ndynamic=0, release_gil=True):
        width = max(len(slots) for _, slots, _, _ in launches)
        self.args = np.zeros((len(launches), width), np.int64)
        self.rows = np.zeros((len(launches), 4), np.int64)
        for k, (source, slots, chunks, wave) in enumerate(launches):
            self.args[k, : len(slots)] = slots
            self.rows[k] = native.kernel_address(source), self.args[k].ctypes.data, chunks, wave
        self.patches = np.array(patches, np.int64).reshape(-1, 3)
        self.addresses = (
            self.rows.ctypes.data,
            len(self.rows),
            self.patches.ctypes.data,
            len(self.patches),
            self.args.ctypes.data,
        )
        self.run = pool.bind(
            *self.addresses, self.args.size, ndynamic, keep=self.__dict__, release_gil=release_gil
        )


def address(array: np.ndarray) -> int:
    return array.ctypes.data


def in_new_process(code: str, **environment: str) -> str:
    """Run `code` in a fresh interpreter with this file's names of sources; gives what it printed."""
    head = f"ADD_ONE = {ADD_ONE!r}\nimport ctypes, os, sys\nimport numpy as np\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", head + textwrap.dedent(code)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
