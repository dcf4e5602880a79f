"""Native kernels by source text: compiled once, kept in the process and in a cache on disk.

A kernel's address is looked up in the process, then among the object files of the user's cache
directory, and compiled only after that. An object file is loaded through llvmlite alone, so a process
that finds all its kernels in the cache never imports Numba.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ...core.errors import KernelError
from . import object_cache
from .object_cache import clear as clear_cache
from .object_cache import directory as cache_directory

__all__ = [
    "announce",
    "cache_directory",
    "clear_cache",
    "entry_addresses",
    "kernel_address",
    "kernel_addresses",
    "stats",
]

# (function name, a letter per argument, a letter for the result) of each exported function.
Entries = tuple[tuple[str, str, str], ...]
KERNEL: Entries = (("kernel", "pii", "v"),)

_lock = threading.RLock()
_addresses: dict[str, int] = {}
_libraries: dict[str, tuple[int, ...]] = {}
_announced: list[tuple[str, Entries]] = []
_counters = {"compiled": 0, "loaded": 0, "hits": 0, "compile_seconds": 0.0}


def kernel_address(source: str) -> int:
    """The address of `void kernel(int64_t *args, int64_t chunk, int64_t nchunks)` in a Numba source text.

    source: text that defines `def kernel(args, chunk, nchunks)`; the names of
        `duograd.backends.cpu.lang` are in scope.
    Returns: the address, valid until the process ends.
    Raises: KernelError when the source does not compile, can raise an exception or allocates memory.
    """
    address = _addresses.get(source)
    if address is not None:
        _counters["hits"] += 1
        return address
    return kernel_addresses([source])[0]


def kernel_addresses(sources: Sequence[str]) -> list[int]:
    """The addresses of several kernels (see `kernel_address`); those to compile are compiled side by side."""
    missing = [s for s in dict.fromkeys(sources) if s not in _addresses]
    _counters["hits"] += len(sources) - len(missing)
    if missing:
        found = _find([(source, KERNEL) for source in missing])
        _addresses.update(zip(missing, (addresses[0] for addresses in found)))
    return [_addresses[s] for s in sources]


def entry_addresses(source: str, entries: Entries) -> tuple[int, ...]:
    """The addresses of functions with other signatures than a kernel's, all from one source text.

    entries: (function name, a letter per argument, a letter for the result), the letters being `p` for
        the address of int64 slots, `i` for int64 and, as a result, `v` for nothing.
    """
    return _find([(source, entries)])[0]


def announce(source: str, entries: Entries) -> None:
    """Say that `entry_addresses(source, entries)` will be asked for: it is compiled beside other kernels."""
    _announced.append((source, entries))


def stats() -> dict[str, float]:
    """Counters of this process: kernels compiled, loaded from the cache, found in memory, and seconds."""
    return dict(_counters)


def _find(wanted: list[tuple[str, Entries]]) -> list[tuple[int, ...]]:
    """The addresses of each (source, entries): from memory, from the disk, or compiled."""
    with _lock:
        keys = [object_cache.key(source, entries) for source, entries in wanted]
        unknown = {key: item for key, item in zip(keys, wanted) if key not in _libraries}
        cached = {key: code for key in unknown if (code := object_cache.read(key)) is not None}
        loaded = _load({key: (code, _symbols(key, unknown[key][1])) for key, code in cached.items()})
        _counters["loaded"] += len(loaded)
        _libraries.update(loaded)
        missing = {key: item for key, item in unknown.items() if key not in loaded}
        if missing:
            _compile(missing)
        return [_libraries[key] for key in keys]


def _compile(missing: dict[str, tuple[str, Entries]]) -> None:
    """Compile, keep and load; what compiled is kept even when another one failed."""
    from .compile_workers import Job, compile_all

    if len(missing) > 1:
        while _announced:
            item = _announced.pop()
            key = object_cache.key(*item)
            if key not in _libraries and object_cache.read(key) is None:
                missing[key] = item
    start = time.perf_counter()
    jobs = [Job(source, entries, _prefix(key)) for key, (source, entries) in missing.items()]
    results = compile_all(jobs)
    failures = []
    for key, job, result in zip(missing, jobs, results):
        if isinstance(result, bytes):
            object_cache.write(key, result)
            symbols = _symbols(key, job.entries)
            _libraries.update(_load({key: (result, symbols)}))
            if key not in _libraries:
                failures.append((job.source, "the object code cannot be loaded: a symbol is missing"))
        else:
            failures.append((job.source, str(result)))
    _counters["compiled"] += len(jobs)
    _counters["compile_seconds"] += time.perf_counter() - start
    if failures:
        raise _failure(*failures[0])


def _failure(source: str, reason: str) -> KernelError:
    lines = source.strip().splitlines()
    listing = "\n".join(f"  {number:3} {line}" for number, line in enumerate(lines, 1))
    return KernelError(
        "kernel",
        f"this kernel does not compile: {reason}\n{listing}",
        "report it with the source above: a kernel that does not compile is a defect of duograd",
    )


def _prefix(key: str) -> str:
    return f"duograd_{key[:20]}_"


def _symbols(key: str, entries: Entries) -> tuple[str, ...]:
    return tuple(_prefix(key) + name for name, _, _ in entries)


# One LLVM JIT for the process, never disposed of: threads may be inside its code at the very end.
_jit: Any = None
_kept: list[Any] = []


def _load(objects: Mapping[str, tuple[bytes, tuple[str, ...]]]) -> dict[str, tuple[int, ...]]:
    """Map object code into the process: addresses by key, without those that need a missing symbol."""
    global _jit
    if not objects:
        return {}
    import llvmlite.binding as llvm

    if _jit is None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        _jit = llvm.create_lljit_compiler(use_jit_link=True, suppress_errors=True)
        _leak(_jit)
    builder = llvm.JITLibraryBuilder().add_current_process()
    for code, symbols in objects.values():
        builder.add_object_img(code)
        for symbol in symbols:
            builder.export_symbol(symbol)
    try:
        tracker = builder.link(_jit, f"duograd.{len(_kept)}")
    except RuntimeError:
        _kept.append(None)
        if len(objects) == 1:
            return {}
        return {key: addresses for item in objects.items() for key, addresses in _load(dict([item])).items()}
    _leak(tracker)
    return {key: tuple(tracker[symbol] for symbol in symbols) for key, (_, symbols) in objects.items()}


def _leak(resource: Any) -> None:
    """Keep an LLVM object alive to the very end of the process."""
    resource._owned = True
    _kept.append(resource)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(resource))


def _after_fork() -> None:
    # Another thread of the parent may have held it.
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
