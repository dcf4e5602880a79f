"""Compiling CUDA C with NVRTC: no driver and no GPU needed.

Contraction (a * b + c in one rounding) and flushing of denormal numbers are off, division and square root are
correctly rounded: a fused chain gives the bits of op by op. CuPy's own compiler interface always adds
-ftz=true, so the library is called here directly.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...core.errors import KernelError, MissingExtraError
from ..cpu import object_cache
from . import kernel_text

DEFAULT_ARCH = "sm_90"
OPTIONS = (
    "--std=c++17", "--fmad=false", "--ftz=false", "--prec-div=true", "--prec-sqrt=true", "--disable-warnings",
)  # fmt: skip
#: kernels of one NVRTC call: its fixed cost is shared, and one failure spoils few others
BATCH = 20

_lock = threading.RLock()
_library: ctypes.CDLL | None = None
_counters = {"compiled": 0, "loaded": 0, "compile_seconds": 0.0}


class Cubin(NamedTuple):
    """Machine code that holds a kernel: `name` is the same for all kernels of one piece of code."""

    name: str
    code: bytes
    function: str


def compile_kernels(sources: Sequence[str], arch: str = DEFAULT_ARCH) -> list[Cubin]:
    """The machine code of kernel sources, from the disk or compiled, several in one call.

    sources: texts as `emit` writes them; arch: "sm_90", ...
    Raises: KernelError with the lines NVRTC complains about; MissingExtraError without NVRTC.
    """
    with _lock:
        found: dict[str, Cubin] = {}
        for source in dict.fromkeys(sources):
            cubin = _read(source, arch)
            if cubin is not None:
                found[source] = cubin
                _counters["loaded"] += 1
        missing = {kernel_text.function_name(s): s for s in sources if s not in found}
        waiting = list(missing.values())
        for start in range(0, len(waiting), BATCH):
            batch = waiting[start : start + BATCH]
            for source, cubin in zip(batch, _compile_batch(batch, arch)):
                found[source] = cubin
        # Sources that differ in their notes alone are the same kernel.
        by_function = {cubin.function: cubin for cubin in found.values()}
        return [by_function[kernel_text.function_name(s)] for s in sources]


def stats() -> dict[str, float]:
    """Counters of this process: kernels compiled and found on the disk, seconds in the compiler."""
    return dict(_counters)


def compile_text(text: str, arch: str, kind: str = "cubin") -> bytes:
    """Compile a translation unit.

    kind: "cubin" (machine code) or "ptx" (arch "compute_90"). Raises: KernelError, MissingExtraError.
    """
    lib = library()
    names = [name.encode() for name in kernel_text.headers()]
    texts = [header.encode() for header in kernel_text.headers().values()]
    count = len(names)
    program = ctypes.c_void_p()
    _check(
        lib.nvrtcCreateProgram(
            ctypes.byref(program), text.encode(), b"kernels.cu", count,
            (ctypes.c_char_p * count)(*texts), (ctypes.c_char_p * count)(*names),
        )
    )  # fmt: skip
    try:
        options = [o.encode() for o in (f"--gpu-architecture={arch}", *OPTIONS)]
        status = lib.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
        if status != 0:
            log = _fetch(lib.nvrtcGetProgramLogSize, lib.nvrtcGetProgramLog, program)
            raise _failure(text, log.rstrip(b"\0").decode(errors="replace") or _error_text(status))
        if kind == "ptx":
            return _fetch(lib.nvrtcGetPTXSize, lib.nvrtcGetPTX, program).rstrip(b"\0")
        return _fetch(lib.nvrtcGetCUBINSize, lib.nvrtcGetCUBIN, program)
    finally:
        lib.nvrtcDestroyProgram(ctypes.byref(program))


def version() -> tuple[int, int]:
    """NVRTC's version."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(library().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
    return major.value, minor.value


def architectures() -> list[int]:
    """The compute capabilities (90 for 9.0) that NVRTC can compile for."""
    count = ctypes.c_int()
    _check(library().nvrtcGetNumSupportedArchs(ctypes.byref(count)))
    found = (ctypes.c_int * count.value)()
    _check(library().nvrtcGetSupportedArchs(found))
    return list(found)


def library() -> ctypes.CDLL:
    """The NVRTC library. Raises: MissingExtraError when there is none."""
    global _library
    with _lock:
        if _library is None:
            _library = _open()
        return _library


def _open() -> ctypes.CDLL:
    reasons = []
    for file in _candidates():
        try:
            # NVRTC looks for its built-in functions by name alone and finds only what is loaded already.
            for builtins in sorted(file.parent.glob("libnvrtc-builtins.so*")):
                if ".alt." not in builtins.name:
                    ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
            return ctypes.CDLL(str(file))
        except OSError as error:
            reasons.append(str(error))
    raise MissingExtraError(
        "nvrtc",
        "; ".join(["NVRTC, the compiler of CUDA kernels, is not installed", *reasons]),
        'install it: pip install "duograd[cuda]"',
    )


def _candidates() -> list[Path]:
    """Where libnvrtc may be: NVIDIA's wheels first, then a CUDA toolkit."""
    folders: list[Path] = []
    spec = importlib.util.find_spec("nvidia")
    for root in (spec.submodule_search_locations or []) if spec else []:
        folders += sorted(Path(root).glob("cu[0-9]*/lib"), reverse=True)
        folders.append(Path(root) / "cuda_nvrtc" / "lib")
    toolkits = [os.environ.get("CUDA_PATH"), os.environ.get("CUDA_HOME"), "/usr/local/cuda"]
    for toolkit in filter(None, toolkits):
        folders += [Path(toolkit) / "lib64", Path(toolkit) / "lib"]
    return [file for folder in folders for file in sorted(folder.glob("libnvrtc.so.[0-9]*"))[:1]]


# ---- the disk: one file for the code of a batch, one for each kernel that says in which batch it is


def _settings(arch: str) -> tuple[str, ...]:
    return ("cuda", arch, ".".join(map(str, version())), *OPTIONS)


def _read(source: str, arch: str) -> Cubin | None:
    entry = object_cache.read(f"cuda-{kernel_text.digest(source, *_settings(arch))}")
    if entry is None:
        return None
    name = entry.decode()
    code = object_cache.read(name)
    return None if code is None else Cubin(name, code, kernel_text.function_name(source))


def _compile_batch(sources: Sequence[str], arch: str) -> list[Cubin]:
    start = time.perf_counter()
    text = kernel_text.unit(sources)
    code = compile_text(text, arch)
    name = f"cubin-{kernel_text.digest(text, *_settings(arch))}"
    object_cache.write(name, code)
    for source in sources:
        object_cache.write(f"cuda-{kernel_text.digest(source, *_settings(arch))}", name.encode())
    _counters["compiled"] += len(sources)
    _counters["compile_seconds"] += time.perf_counter() - start
    return [Cubin(name, code, kernel_text.function_name(source)) for source in sources]


# ---- errors


def _failure(text: str, log: str) -> KernelError:
    """The log, with the source around the first line it names."""
    lines = text.split("\n")
    found = re.search(r"kernels\.cu\((\d+)\): error", log)
    listing = ""
    if found:
        at = int(found.group(1)) - 1
        shown = range(max(0, at - 6), min(len(lines), at + 4))
        listing = "\n".join(f"  {'>' if k == at else ' '} {k + 1:4} {lines[k]}" for k in shown)
    return KernelError(
        "kernel",
        f"this CUDA kernel does not compile:\n{log.strip()}\n{listing}",
        "report it with the text above: a kernel that does not compile is a defect of duograd",
    )


def _error_text(status: int) -> str:
    lib = library()
    lib.nvrtcGetErrorString.restype = ctypes.c_char_p
    return str(lib.nvrtcGetErrorString(status).decode())


def _check(status: int) -> None:
    if status != 0:
        raise KernelError("nvrtc", f"NVRTC says {_error_text(status)}", "check the CUDA installation")


def _fetch(size_of: Any, read: Any, program: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    _check(size_of(program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    _check(read(program, buffer))
    return buffer.raw
