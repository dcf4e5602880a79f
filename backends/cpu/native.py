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
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ...core.errors import KernelError
from . import object_cache
from .blocks import parts
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

# Guards the tables and the JIT, for moments; kernels are compiled without it.
_lock = threading.RLock()
#: what some thread reads or compiles now; set when it is done
_in_work: dict[str, threading.Event] = {}
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
    """The addresses of each (source, entries): from memory, from the disk, or compiled, by one thread each.

    What they call comes before them, so that they can be linked.
    """
    called = dict.fromkeys((p.source, p.entries) for source, _ in wanted for p in parts(source))
    if called:
        _find(list(called))
    keys = [object_cache.key(source, entries) for source, entries in wanted]
    while True:
        with _lock:
            unknown = {key: item for key, item in zip(keys, wanted) if key not in _libraries}
            others = [_in_work[key] for key in unknown if key in _in_work]
            mine = {key: item for key, item in unknown.items() if key not in _in_work}
            _in_work.update((key, threading.Event()) for key in mine)
        try:
            if mine:
                _make(mine)
        finally:
            _leave(mine)
        for event in others:
            event.wait()
        if not others:
            return [_libraries[key] for key in keys]


def _leave(keys: Iterable[str]) -> None:
    """These are no longer in work here: who waits for them looks again."""
    with _lock:
        for key in keys:
            _in_work.pop(key).set()


def _make(items: dict[str, tuple[str, Entries]]) -> None:
    """Read from the disk what is there, compile the rest."""
    missing = _read(items)
    more: dict[str, tuple[str, Entries]] = {}
    if len(missing) > 1:
        with _lock:
            announced = {object_cache.key(*item): item for item in _announced}
            _announced.clear()
            more = {k: v for k, v in announced.items() if k not in _libraries and k not in _in_work}
            _in_work.update((key, threading.Event()) for key in more)
    try:
        if missing:
            _compile(missing | {k: v for k, v in more.items() if object_cache.read(k) is None})
    finally:
        _leave(more)


def _read(items: dict[str, tuple[str, Entries]]) -> dict[str, tuple[str, Entries]]:
    """Load what the disk has; returns the rest."""
    cached = {key: code for key in items if (code := object_cache.read(key)) is not None}
    loaded = _load({key: _loadable(key, code, *items[key]) for key, code in cached.items()})
    with _lock:
        _counters["loaded"] += len(loaded)
        _libraries.update(loaded)
    return {key: item for key, item in items.items() if key not in loaded}


def _compile(missing: dict[str, tuple[str, Entries]]) -> None:
    """Compile, keep and load. What another process compiles at this moment is read when that is done."""
    with object_cache.claim(missing) as claim:
        mine = {key: missing[key] for key in claim}
        # Somebody may have finished between the look at the disk and the claim.
        _build(_read(mine) if claim.held else mine)
    for key, item in missing.items():
        if key not in mine:
            with object_cache.claim([key], wait=True):
                _build(_read({key: item}))


def _build(missing: dict[str, tuple[str, Entries]]) -> None:
    """Compile here and now; what compiled is kept even when another one failed."""
    from .compile_workers import Job, compile_all

    if not missing:
        return
    start = time.perf_counter()
    keys = list(missing)
    jobs = [Job(source, entries, _prefix(key)) for key, (source, entries) in missing.items()]
    failures = []
    results = compile_all(jobs, lambda k, code: object_cache.write(keys[k], code))
    for key, job, result in zip(keys, jobs, results):
        if isinstance(result, bytes):
            loaded = _load({key: _loadable(key, result, job.source, job.entries)})
            _libraries.update(loaded)
            if not loaded:
                failures.append((job.source, "the object code cannot be loaded: a symbol is missing"))
        else:
            failures.append((job.source, str(result)))
    object_cache.trim_sometimes()
    with _lock:
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


class Loadable(NamedTuple):
    """Object code, the symbols it exports, and the addresses of what it calls."""

    code: bytes
    exports: tuple[str, ...]
    calls: dict[str, int]


def _loadable(key: str, code: bytes, source: str, entries: Entries) -> Loadable:
    exports = tuple(_prefix(key) + name for name, _, _ in entries)
    calls = {p.name: _libraries[object_cache.key(p.source, p.entries)][0] for p in parts(source)}
    return Loadable(code, exports, calls)


# One LLVM JIT for the process, never disposed of: threads may be inside its code at the very end.
_jit: Any = None
_kept: list[Any] = []


def _load(objects: Mapping[str, Loadable]) -> dict[str, tuple[int, ...]]:
    """Map object code into the process: addresses by key, without those that need a missing symbol."""
    if not objects:
        return {}
    with _lock:
        return _link(objects)


def _link(objects: Mapping[str, Loadable]) -> dict[str, tuple[int, ...]]:
    global _jit
    import llvmlite.binding as llvm

    if _jit is None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        _jit = llvm.create_lljit_compiler(use_jit_link=True, suppress_errors=True)
        _leak(_jit)
    builder = llvm.JITLibraryBuilder().add_current_process()
    calls: dict[str, int] = {}
    for item in objects.values():
        builder.add_object_img(item.code)
        for symbol in item.exports:
            builder.export_symbol(symbol)
        calls |= item.calls
    for symbol, address in calls.items():
        builder.import_symbol(symbol, address)
    try:
        tracker = builder.link(_jit, f"duograd.{len(_kept)}")
    except RuntimeError:
        _kept.append(None)
        if len(objects) == 1:
            return {}
        return {key: addresses for item in objects.items() for key, addresses in _load(dict([item])).items()}
    _leak(tracker)
    return {key: tuple(tracker[symbol] for symbol in item.exports) for key, item in objects.items()}


def _leak(resource: Any) -> None:
    """Keep an LLVM object alive to the very end of the process."""
    resource._owned = True
    _kept.append(resource)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(resource))


def _after_fork() -> None:
    # Another thread of the parent may have held it, and what that compiled will not come.
    global _lock
    _lock = threading.RLock()
    _in_work.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
