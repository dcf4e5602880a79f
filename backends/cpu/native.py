"""Native kernels by source text: compiled once, kept in the process and in a cache on disk.

A kernel's address is looked up in the process, then among the object files of the user's cache
directory, and compiled only after that. An object file is loaded through llvmlite alone, so a process
that finds all its kernels in the cache never imports Numba.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.metadata
import os
import re
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...core.errors import KernelError

_MAGIC = b"duograd kernel 1\n"
_HERE = Path(__file__).parent
_KERNEL = (("kernel", "pii", "v"),)
# A kernel source sees the names of `lang`; `compile` decides what they become.
_LANGUAGE_ROOTS = ("compile", "lang")
_IMPORT = re.compile(r"^\s*from (?:\.|duograd\.backends\.cpu\.)(\w+) import", re.MULTILINE)

_lock = threading.RLock()
_addresses: dict[str, int] = {}
_libraries: dict[str, tuple[int, ...]] = {}
_kept: list[Any] = []
_counters = {"compiled": 0, "loaded": 0, "hits": 0, "compile_seconds": 0.0}
_warned_unwritable = False


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
    """The addresses of several kernels (see `kernel_address`); what is missing is compiled together."""
    missing = [s for s in dict.fromkeys(sources) if s not in _addresses]
    _counters["hits"] += len(sources) - len(missing)
    if missing:
        with _lock:
            for source in missing:
                if source not in _addresses:
                    _addresses[source] = _entries(source, _KERNEL)[0]
    return [_addresses[s] for s in sources]


def entry_addresses(source: str, entries: tuple[tuple[str, str, str], ...]) -> tuple[int, ...]:
    """The addresses of functions with other signatures than a kernel's, all from one source text.

    entries: (function name, a letter per argument, a letter for the result), the letters being `p` for
        the address of int64 slots, `i` for int64 and, as a result, `v` for nothing.
    """
    with _lock:
        return _entries(source, entries)


def stats() -> dict[str, float]:
    """Counters of this process: kernels compiled, loaded from the cache, found in memory, and seconds."""
    return dict(_counters)


def cache_directory() -> Path:
    """Where object files are kept: `DUOGRAD_CACHE_DIR`, or duograd's folder in the user's cache."""
    chosen = os.environ.get("DUOGRAD_CACHE_DIR")
    if chosen:
        return Path(chosen)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "duograd"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "duograd" / "Cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "duograd"


def clear_cache() -> int:
    """Delete the object files on disk (kernels already loaded stay); returns how many there were."""
    count = 0
    for path in cache_directory().glob("*.kernel"):
        path.unlink(missing_ok=True)
        count += 1
    return count


def _entries(source: str, entries: tuple[tuple[str, str, str], ...]) -> tuple[int, ...]:
    key = _key(source, entries)
    found = _libraries.get(key)
    if found is None:
        prefix = f"duograd_{key[:20]}_"
        symbols = tuple(prefix + name for name, _, _ in entries)
        code = _read(key)
        if code is not None:
            found = _load(code, symbols)
            if found is not None:
                _counters["loaded"] += 1
        if found is None:
            code = _compile(source, entries, prefix)
            _write(key, code)
            found = _load(code, symbols)
            if found is None:
                raise _failure(source, "the object code could not be loaded")
        _libraries[key] = found
    return found


def _compile(source: str, entries: tuple[tuple[str, str, str], ...], prefix: str) -> bytes:
    from . import compile as compiler

    start = time.perf_counter()
    try:
        return compiler.compile_object(source, entries, prefix)
    except compiler.CompileFailure as error:
        raise _failure(source, str(error)) from error
    finally:
        _counters["compiled"] += 1
        _counters["compile_seconds"] += time.perf_counter() - start


def _failure(source: str, reason: str) -> KernelError:
    lines = source.strip().splitlines()
    title = next((line for line in lines if line.startswith("#")), "")
    listing = "\n".join(f"  {number:3} {line}" for number, line in enumerate(lines, 1))
    return KernelError(
        "kernel",
        f"cannot compile this kernel {title}\n{reason}\n{listing}",
        "report it with the source above: a kernel that does not compile is a defect of duograd",
    )


# The key of a kernel: what its object code depends on.


def _key(source: str, entries: tuple[tuple[str, str, str], ...]) -> str:
    language = _language(_LANGUAGE_ROOTS + tuple(_IMPORT.findall(source)))
    return hashlib.sha256("\0".join((_environment(), repr(entries), language, source)).encode()).hexdigest()


_environment_text = ""
_module_texts: dict[str, tuple[str, tuple[str, ...]]] = {}
_language_hashes: dict[tuple[str, ...], str] = {}


def _environment() -> str:
    global _environment_text
    if not _environment_text:
        import llvmlite
        import llvmlite.binding as llvm

        versions = importlib.metadata.version("numba"), llvmlite.__version__
        cpu = llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()
        _environment_text = repr((versions, llvm.get_process_triple(), cpu))
    return _environment_text


def _language(roots: tuple[str, ...]) -> str:
    """Hash of the modules `roots` of this folder and of all that they import from it."""
    known = _language_hashes.get(roots)
    if known is None:
        seen: dict[str, str] = {}
        waiting = list(roots)
        while waiting:
            name = waiting.pop()
            if name in seen:
                continue
            if name not in _module_texts:
                path = _HERE / f"{name}.py"
                text = path.read_text(encoding="utf-8") if path.exists() else ""
                _module_texts[name] = hashlib.sha256(text.encode()).hexdigest(), tuple(_IMPORT.findall(text))
            seen[name], imported = _module_texts[name]
            waiting.extend(imported)
        known = hashlib.sha256(repr(sorted(seen.items())).encode()).hexdigest()
        _language_hashes[roots] = known
    return known


# The cache on disk: one file a kernel, checked by its hash.


def _path(key: str) -> Path:
    return cache_directory() / f"{key}.kernel"


def _read(key: str) -> bytes | None:
    path = _path(key)
    try:
        data = path.read_bytes()
    except OSError:
        return None
    start = len(_MAGIC) + 32
    code = data[start:]
    if data[:start] == _MAGIC + hashlib.sha256(code).digest():
        return code
    path.unlink(missing_ok=True)
    return None


def _write(key: str, code: bytes) -> None:
    global _warned_unwritable
    path = _path(key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_MAGIC + hashlib.sha256(code).digest() + code)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        if not _warned_unwritable:
            _warned_unwritable = True
            warnings.warn(
                f"duograd cannot write its kernel cache {path.parent} ({error.strerror}); kernels are "
                "compiled again in each process. Set DUOGRAD_CACHE_DIR to a writable folder.",
                RuntimeWarning,
                stacklevel=2,
            )


# Loading: one LLVM JIT for the process, never disposed of, for threads may be inside its code at exit.

_jit: Any = None


def _load(code: bytes, symbols: tuple[str, ...]) -> tuple[int, ...] | None:
    """Map object code into the process; None when a symbol that it needs is missing."""
    global _jit
    import llvmlite.binding as llvm

    if _jit is None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        _jit = llvm.create_lljit_compiler(use_jit_link=True, suppress_errors=True)
        _leak(_jit)
    library = llvm.JITLibraryBuilder().add_object_img(code).add_current_process()
    for symbol in symbols:
        library.export_symbol(symbol)
    try:
        tracker = library.link(_jit, f"{symbols[0]}.{len(_kept)}")
    except RuntimeError:
        return None
    _leak(tracker)
    _kept.append(tracker)
    return tuple(tracker[symbol] for symbol in symbols)


def _leak(resource: Any) -> None:
    """Keep an LLVM object alive to the very end of the process."""
    resource._owned = True
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(resource))
