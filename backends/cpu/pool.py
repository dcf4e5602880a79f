"""The CPU's thread pool and the call that runs a program: Python's side of `pool_source`.

One pool serves the process. Its threads are made by the first wave that can use them, sleep when there is
nothing to do, and are made again in a child process after a fork. A program that finds the pool taken by
another thread runs serially; results are the same, for kernels do not depend on who runs them.
"""

from __future__ import annotations

import ctypes
import numbers
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from ...core.errors import ArgumentError, FlagError
from .native import announce, entry_addresses
from .pool_source import DESCRIPTOR, DESCRIPTOR_WORDS, ENTRIES, LAYOUT, SOURCE, STATE_WORDS

_SPIN_SECONDS = 50e-6
_SPIN_OWNED_SECONDS = 200e-6
_CROWDED_SECONDS = 1e-6
# Signals that a fault raises in the thread itself: blocking them would lose faulthandler's report.
_FAULTS = ("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGTRAP")

_lock = threading.RLock()
_pool: _Pool | None = None
_threads: int | None = None


class _MethodDef(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


_METH_O = 8
_new_function = ctypes.pythonapi.PyCFunction_NewEx
_new_function.restype = ctypes.py_object
_new_function.argtypes = (ctypes.POINTER(_MethodDef), ctypes.py_object, ctypes.c_void_p)


class _Pool:
    """The native code and its state block; both live until the process ends."""

    def __init__(self, threads: int) -> None:
        addresses = entry_addresses(SOURCE, ENTRIES)
        self.native = {
            name: ctypes.CFUNCTYPE(
                ctypes.c_int64 if result == "i" else None, *[ctypes.c_int64] * len(arguments)
            )(address)
            for (name, arguments, result), address in zip(ENTRIES, addresses)
        }
        by_name = self.addresses = dict(zip((name for name, _, _ in ENTRIES), addresses))
        # Sleeping threads keep using the block while the interpreter goes down: it is never freed.
        block = (ctypes.c_int64 * (STATE_WORDS + 32))()
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(block))
        base = ctypes.addressof(block)
        self.state = (base + 127) // 128 * 128
        self.words = (ctypes.c_int64 * STATE_WORDS).from_address(self.state)
        self.message = ctypes.create_string_buffer(b"a program takes a list with one int per dynamic value")
        self.method = _MethodDef(b"run", by_name["run_descriptor"], _METH_O, None)
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self.method))
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self.message))
        self.set("WORKER", by_name["worker"])
        self.set("NONE", id(None))
        self.set("TYPE_ERROR", id(TypeError))
        self.set("WRONG_COUNT", ctypes.addressof(self.message))
        self.set("CLOCK", int(getattr(time, "CLOCK_MONOTONIC", 1)))
        self.set("SET_MASK", int(getattr(signal, "SIG_SETMASK", 0)))
        blocked = ~sum(1 << (getattr(signal, name) - 1) for name in _FAULTS if hasattr(signal, name))
        start = LAYOUT["SIGNALS"]
        self.words[start] = blocked
        self.native["reset"](self.state)
        self.native["attach"](self.state)
        self.pause = self._pause_seconds()
        self._want(threads)

    def _want(self, threads: int) -> None:
        self.set("WANTED", threads - 1)
        # With more threads than CPUs, a thread that spins takes the CPU from one that works.
        crowded = threads > _cpus()
        for name, seconds in (("SPIN", _SPIN_SECONDS), ("SPIN_OWNED", _SPIN_OWNED_SECONDS)):
            self.set(name, max(1, int((_CROWDED_SECONDS if crowded else seconds) / self.pause)))

    def set(self, name: str, value: int) -> None:
        self.words[LAYOUT[name]] = value

    def get(self, name: str) -> int:
        return self.words[LAYOUT[name]]

    def _pause_seconds(self) -> float:
        """What one turn of the spin loop takes here."""
        spin, count = self.native["spin"], 500
        best = float("inf")
        for _ in range(5):
            start = time.perf_counter()
            spin(count)
            best = min(best, time.perf_counter() - start)
        return best / count

    def resize(self, threads: int) -> None:
        """Change the number of threads once no program has the workers."""
        if threads == self.get("WANTED") + 1:
            return
        while not self._take():
            time.sleep(1e-4)
        try:
            self.native["stop"](self.state)
            while self.get("ALIVE") > 0:
                time.sleep(1e-5)
            for name in ("STARTED", "NUMBERED", "STOP"):
                self.set(name, 0)
            self._want(threads)
        finally:
            self.native["give"](self.state)

    def _take(self) -> bool:
        return bool(self.native["take"](self.state))


def entry() -> Callable[[int, int, int, int, int, int], None]:
    """The native `run_program(rows, nrows, patches, npatches, args, dyn)`, a ctypes function of plain ints.

    rows: address of int64[nrows, 4]: kernel address, address of its argument block, chunks, 1 where a wave
        starts. patches: address of int64[npatches, 3]: slot in `args`, index in `dyn`, byte offset.
    The function releases the GIL, may be called from several threads and returns when all is done.
    """
    return _get().native["run_program"]


def bind(
    rows: int,
    nrows: int,
    patches: int,
    npatches: int,
    args: int,
    nargs: int,
    ndynamic: int,
    keep: Any = None,
    release_gil: bool = True,
) -> Callable[[Sequence[int]], None]:
    """A builtin function `run(dynamic)` that patches and runs one program: the fastest call from Python.

    rows, patches, args: addresses as in `entry`; nargs: int64 slots in `args`; ndynamic: how many ints the
        list or tuple `dynamic` has; keep: what must stay alive with the function, such as the arrays at
        those addresses; release_gil: False for programs of about a microsecond, where handing the
        interpreter to another thread costs more than it gives.
    Safe to call from several threads at once: a second call works on a copy of the argument blocks.
    Raises (when called): TypeError when `dynamic` is not a list or tuple of `ndynamic` ints,
        OverflowError when one does not fit an int64.
    """
    pool = _get()
    block = (ctypes.c_int64 * (DESCRIPTOR_WORDS + ndynamic))()
    address = ctypes.addressof(block)
    values = {
        "P_ROWS": rows,
        "P_NROWS": nrows,
        "P_PATCHES": patches,
        "P_NPATCHES": npatches,
        "P_ARGS": args,
        "P_NARGS": nargs,
        "P_DYN": address + 8 * DESCRIPTOR_WORDS,
        "P_NDYN": ndynamic,
        "P_BUSY": 0,
        "P_RELEASE_GIL": int(release_gil),
    }
    for name, value in values.items():
        block[DESCRIPTOR[name]] = value
    return _new_function(ctypes.byref(pool.method), (address, block, keep), None)


def address(name: str) -> int:
    """The address of a function of the runner."""
    return _get().addresses[name]


def get_num_threads() -> int:
    """How many threads a program may use, the caller's own included."""
    global _threads
    if _threads is None:
        _threads = default_num_threads()
    return _threads


def set_num_threads(n: int) -> None:
    """Let programs use `n` threads from now on, the caller's own included; 1 means no workers at all.

    Waits for a program that has the workers. Raises: ArgumentError when n is not a positive integer.
    """
    global _threads
    if isinstance(n, bool) or not isinstance(n, numbers.Integral) or n < 1:
        raise ArgumentError(
            "set_num_threads", f"n={n!r} is not a number of threads", "give an integer, 1 or more"
        )
    with _lock:
        _threads = int(n)
        if _pool is not None:
            _pool.resize(_threads)


def default_num_threads() -> int:
    """`DUOGRAD_NUM_THREADS`, or the number of CPUs that this process may use."""
    text = os.environ.get("DUOGRAD_NUM_THREADS", "")
    if not text:
        return _cpus()
    if not text.isdecimal() or int(text) < 1:
        raise FlagError(
            "DUOGRAD_NUM_THREADS", f"{text!r} is not a number of threads", "set an integer of 1 or more"
        )
    return int(text)


def _cpus() -> int:
    """CPUs that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _get() -> _Pool:
    global _pool
    if _pool is None:
        with _lock:
            if _pool is None:
                _pool = _Pool(get_num_threads())
    return _pool


def _after_fork() -> None:
    """A forked child has the block but none of the threads; locks may have been held by them."""
    global _lock
    _lock = threading.RLock()
    if _pool is not None:
        _pool.native["reset"](_pool.state)


announce(SOURCE, ENTRIES)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
