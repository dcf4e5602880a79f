"""CUDA kernels on a CPU, for tests: g++ compiles their sources with emulation.h, emulation.cpp runs them.

`EmulatedDriver` stands in for a GPU under `device.CudaBackend`, so that whole programs run. Its memory is looked
at byte by byte: races, reads of what nothing has written, addresses outside (emulation.cpp says it all), and a
launch that a GPU would refuse is an error. What it runs is checked for its logic only; no CUDA kernel is proven
before it ran on a GPU.
"""

from __future__ import annotations

import bisect
import ctypes
import functools
import hashlib
import re
import shutil
import subprocess
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import KernelError, MissingExtraError, OutOfMemoryError
from ...core.types import DType, Shape
from ..cpu import object_cache
from . import kernel_text
from .driver import Launch
from .launch import Geometry

_FOLDER = Path(__file__).parent
COMPILER = "g++"
# No contraction and no value-changing optimisation, as NVRTC is told; none at all, for compiling takes longer than
# running what tests run.
FLAGS = ("-std=c++17", "-O0", "-fPIC", "-w", "-ffp-contract=off", "-fno-strict-aliasing", "-fno-gnu-unique",
         "-fsanitize=thread")  # fmt: skip
# The functions that instrumented code calls are emulation.cpp's; g++ would add its own library.
LINK = ("-shared", "-Wl,-Bsymbolic", "-nodefaultlibs", "-lstdc++", "-lm", "-lc", "-lgcc_s", "-lgcc")
ORDERS = {"ascending": 0, "descending": 1}
#: what a byte of memory remembers (`Cell` in emulation.cpp), and the stamp of the host's writes
CELL = np.dtype([("write", np.uint32), ("reads", np.uint32, 2)])
HOST = 1
#: what every GPU since compute capability 7.0 can launch
MAX_THREADS, MAX_BLOCKS, MAX_PARAMETERS = 1024, 2**31 - 1, 32_764


def is_available() -> bool:
    """Whether there is a compiler for the emulation."""
    return shutil.which(COMPILER) is not None


class _Allocation(ctypes.Structure):
    _fields_ = (("begin", ctypes.c_uint64), ("end", ctypes.c_uint64), ("cells", ctypes.c_uint64))


class _Machine(ctypes.Structure):
    _fields_ = (("allocations", ctypes.c_void_p), ("count", ctypes.c_uint64), ("stamp", ctypes.c_uint32),
                ("order", ctypes.c_uint32))  # fmt: skip


class Memory:
    """An allocation: its bytes, which begin as NaN, and what each of them remembers."""

    def __init__(self, nbytes: int):
        # Room behind it, so that the next allocation is not where an index one too large leads.
        self._block = np.full(nbytes + 512, 0xFF, np.uint8)
        start = -self._block.ctypes.data % 256
        self.bytes = self._block[start : start + nbytes]
        self.cells = np.zeros(nbytes, CELL)
        self.ptr = self.bytes.ctypes.data

    def read(self, offset: int, nbytes: int) -> np.ndarray:
        """Bytes that the host looks at. Raises: KernelError where they are none of this memory."""
        if not 0 <= offset <= offset + nbytes <= self.bytes.size:
            what = f"the host copies bytes {offset} to {offset + nbytes} of {self.bytes.size}"
            raise KernelError("emulation", what, "copy what there is")
        return self.bytes[offset : offset + nbytes]

    def write(self, offset: int, values: np.ndarray) -> None:
        """Bytes that the host, or a copy, puts there."""
        self.read(offset, values.size)[...] = values
        self.cells[offset : offset + values.size] = np.array((HOST, (0, 0)), CELL)


class EmulatedDriver:
    """A machine (`driver.Driver`) that runs CUDA kernels in this process.

    order: "ascending", "descending", or the seed (2 or more) of random ones; max_blocks: how many blocks a grid has
    at most; headers: texts that replace headers, to see that a fault in them is found; flags: more compiler flags;
    waits: launches wait for the next copy to or from the host, as on a GPU, with the memory they use.
    """

    def __init__(
        self, order: str | int = "ascending", max_blocks: int = 64, headers: Mapping[str, str] | None = None,
        flags: Sequence[str] = (), waits: bool = False,
    ):  # fmt: skip
        self.order, self.max_blocks, self.waits = order, max_blocks, waits
        self._headers = {**kernel_text.headers(), **(headers or {})}
        self._flags = flags
        self._functions: dict[str, Any] = {}
        self._begins: list[int] = []
        self._memories: list[tuple[int, int, np.ndarray]] = []
        self._machine = _Machine(stamp=HOST + 1, order=ORDERS.get(order, order))  # type: ignore[arg-type]
        self._waiting: list[tuple[_Function, Geometry, Any]] = []
        self._freed: list[tuple[int, np.ndarray]] = []

    def functions(self, sources: Sequence[str]) -> list[Any]:
        """Entry points by source; those that are missing are compiled in one go."""
        missing = [s for s in dict.fromkeys(sources) if s not in self._functions]
        if missing:
            self._compile(missing)
        return [self._functions[s] for s in sources]

    def share(self, other: EmulatedDriver) -> None:
        """Use the entry points that another driver has compiled."""
        self._functions = other._functions

    def launch(self, launches: Sequence[Launch]) -> None:
        for function, geometry, parameters in launches:
            address = ctypes.c_void_p.from_address(parameters).value or 0
            slots = (ctypes.c_int64 * function.slots).from_address(address)
            function.refuse(geometry)
            self._waiting.append((function, geometry, type(slots)(*slots)))
        if not self.waits:
            self.synchronize()

    def synchronize(self) -> None:
        """Run the launches that wait."""
        while self._waiting:
            function, (blocks, x, y), slots = self._waiting.pop(0)
            table = (_Allocation * len(self._memories))()
            for row, (begin, size, cells) in zip(table, self._memories):
                row.begin, row.end, row.cells = begin, begin + size, cells.ctypes.data
            self._machine.allocations, self._machine.count = ctypes.addressof(table), len(table)
            if function.run(ctypes.addressof(slots), blocks, x, y, ctypes.byref(self._machine)) != 0:
                self._waiting.clear()
                reason = f"{function.message().decode()}, in\n{function.title}"
                raise KernelError("emulation", reason, "correct the kernel or its launch")
        while self._freed:
            self._forget(*self._freed.pop())

    def allocate(self, nbytes: int) -> tuple[Memory, int]:
        if nbytes > 1 << 32:
            raise OutOfMemoryError("memory", f"no room for {nbytes:,} bytes more", "use a smaller batch")
        memory = Memory(nbytes)
        at = bisect.bisect(self._begins, memory.ptr)
        self._begins.insert(at, memory.ptr)
        self._memories.insert(at, (memory.ptr, nbytes, memory.cells))
        weakref.finalize(memory, self._free, memory.ptr, memory._block)
        return memory, memory.ptr

    def _free(self, begin: int, block: np.ndarray) -> None:
        if self._waiting:  # a GPU's pool gives memory only to work that comes after what waits
            self._freed.append((begin, block))
        else:
            self._forget(begin, block)

    def _forget(self, begin: int, block: np.ndarray) -> None:
        at = bisect.bisect_left(self._begins, begin)
        del self._begins[at], self._memories[at]

    def array(self, memory: Memory, dtype: DType, shape: Shape, strides: Shape, offset: int) -> Any:
        self.synchronize()
        memory.cells["write"] = HOST  # who has the array may write to it
        return np.ndarray(shape, dtype.np, memory.bytes, offset, tuple(st * dtype.itemsize for st in strides))

    def read(self, memory: Memory, offset: int, target: np.ndarray) -> None:
        self.synchronize()
        target.reshape(-1).view(np.uint8)[...] = memory.read(offset, target.nbytes)

    def write(self, memory: Memory, offset: int, source: np.ndarray) -> None:
        self.synchronize()
        memory.write(offset, source.reshape(-1).view(np.uint8))

    def copy(self, target: Memory, source: Memory, offset: int, nbytes: int) -> None:
        self.synchronize()
        target.write(0, source.read(offset, nbytes))

    def memory_stats(self) -> dict[str, int]:
        return {"current_bytes": 0, "cached_bytes": 0}

    def describe(self) -> dict[str, Any]:
        return {"gpu": "none: an emulation"}

    def _compile(self, sources: list[str]) -> None:
        if not is_available():
            raise MissingExtraError("emulation", f"{COMPILER} is not installed", "install a C++ compiler")
        names = {kernel_text.function_name(s): s for s in sources}
        entries = "\n".join(f"EMULATED({name})" for name in names)
        text = f'#include "emulation.h"\n{kernel_text.unit(list(names.values()))}\n{entries}\n'
        settings = (*FLAGS, *LINK, *self._flags, *_machine_texts(), *self._headers.values())
        kept = f"emulation-{hashlib.sha256(chr(0).join((text, *settings)).encode()).hexdigest()}"
        code = object_cache.read(kept)
        with tempfile.TemporaryDirectory(prefix="duograd-emulation-") as name:
            folder = Path(name)
            if code is None:
                self._build_in(folder, text)
                object_cache.write(kept, (folder / "kernels.so").read_bytes())
            else:
                (folder / "kernels.so").write_bytes(code)
            library = ctypes.CDLL(str(folder / "kernels.so"))
        for source in sources:
            self._functions[source] = _Function(library, source)

    def _build_in(self, folder: Path, text: str) -> None:
        for header, content in self._headers.items():
            (folder / header).write_text(content, encoding="utf-8")
        (folder / "runner.o").write_bytes(_runner())
        (folder / "kernels.cpp").write_text(text, encoding="utf-8")
        files = "-o", "kernels.so", "kernels.cpp", "runner.o"
        _build(folder, "-I", str(_FOLDER), *FLAGS, *files, *LINK, *self._flags)


class _Function:
    """A kernel's entry point in an emulation library, and what its source says of its launch."""

    def __init__(self, library: ctypes.CDLL, source: str):
        self.run = library[f"run_{kernel_text.function_name(source)}"]
        self.run.argtypes = [ctypes.c_void_p, *[ctypes.c_uint] * 3, ctypes.c_void_p]
        self.message = library.emulation_message
        self.message.restype = ctypes.c_char_p
        self.title = kernel_text.title(source)
        self.slots = int(re.findall(r"\bSlots<(\d+)>", source)[0])
        bounds = re.findall(r"__launch_bounds__\((\d+)\)", source)
        self.threads = min(MAX_THREADS, *map(int, bounds)) if bounds else MAX_THREADS

    def refuse(self, geometry: Geometry) -> None:
        """Raise the error for a launch that a GPU refuses."""
        blocks, x, y = geometry
        what = ""
        if not 0 < x * y <= self.threads:
            what = f"{x} x {y} threads, where the kernel is compiled for up to {self.threads}"
        elif not 0 < blocks <= MAX_BLOCKS:
            what = f"{blocks:,} blocks: a grid has 1 to {MAX_BLOCKS:,}"
        elif 8 * self.slots > MAX_PARAMETERS:
            what = f"{self.slots} slots: parameters may have {MAX_PARAMETERS:,} bytes"
        if what:
            raise KernelError("emulation", f"no GPU launches {what}, in\n{self.title}", "correct the launch")


@functools.cache
def _machine_texts() -> tuple[str, ...]:
    """What compiled kernels depend on beside their source: the emulation and the compiler."""
    version = subprocess.run([COMPILER, "--version"], capture_output=True, text=True, check=False).stdout
    return version, *(
        (_FOLDER / f"emulation.{ending}").read_text(encoding="utf-8") for ending in ("h", "cpp")
    )


@functools.cache
def _runner() -> bytes:
    """The object code of emulation.cpp, which is not instrumented."""
    with tempfile.TemporaryDirectory(prefix="duograd-emulation-") as name:
        folder = Path(name)
        _build(folder, "-std=c++17", "-O2", "-fPIC", "-c", "-o", "runner.o", str(_FOLDER / "emulation.cpp"))
        return (folder / "runner.o").read_bytes()


def _build(folder: Path, *arguments: str) -> None:
    done = subprocess.run([COMPILER, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise KernelError("emulation", f"g++ refuses:\n{done.stderr[:4000]}", "correct the source")
