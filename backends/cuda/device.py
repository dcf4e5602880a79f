"""The CUDA backend: emits, compiles and starts programs, owns the memory. One object per GPU.

Nothing here falls back to the CPU: what cannot run on the GPU is an error.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import pkgutil
import re
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...core.backend import Arg, Kernel, Program, Slot
from ...core.loops import LoopKernel
from . import emit, launch
from .driver import CupyDriver, Driver, Launch
from .memory import Allocator, CudaStorage


def open_device(index: int) -> CudaBackend:
    """The backend of GPU number `index`.

    Raises: MissingExtraError when CuPy or NVRTC is not installed; DeviceError when there is no driver, no
    such GPU, or one that NVRTC cannot compile for.
    """
    return CudaBackend(CupyDriver(index), f"cuda:{index}")


class CudaBackend:
    """A GPU as a device (`core.backend.Backend`)."""

    name = "cuda"
    #: launches are never split into chunks: a grid strides over its work
    serial_work = float("inf")
    lists = False
    prepares = False

    def __init__(self, driver: Driver, device: str):
        self.driver, self.device = driver, device
        self._emitted: dict[tuple[object, ...], tuple[str, int]] = {}
        self.allocator = Allocator(driver, device)
        self.empty: Callable[..., CudaStorage] = self.allocator.empty
        self.maker: Callable[..., Callable[[], CudaStorage]] = functools.partial(
            functools.partial, self.empty
        )

    def num_threads(self) -> int:
        """1: the grid of a launch comes from its sizes, not from a number of chunks."""
        return 1

    def emit_loop(self, kernel: LoopKernel) -> tuple[str, int]:
        """Source text of a loop kernel and 0 scratch rows; kernels of equal structure share it."""
        found = self._emitted.get(kernel.key)
        if found is None:
            found = self._emitted[kernel.key] = emit.emit_loop(kernel)
        return found

    def loop_slots(self, kernel: LoopKernel, args: Sequence[Arg]) -> Sequence[int]:
        """None: kernels for CUDA have the slots that all have."""
        return ()

    def primitive(self, op: str) -> Kernel | None:
        """The hand-written kernel of a primitive, if there is one."""
        return kernels().get(op)

    def compile(self, programs: Sequence[Program]) -> None:
        """Compile the kernels of these programs that are missing."""
        self.driver.functions([launch.source for p in programs for launch in p.launches])

    def load(self, program: Program) -> CudaExecutable:
        """Compile the kernels that are missing and make the program runnable."""
        return CudaExecutable(self.driver, program)

    def describe(self) -> dict[str, Any]:
        """Facts for `duograd doctor`: the GPU, versions, and bytes in use."""
        return {"name": self.name, **self.driver.describe(), **self.memory_stats()}

    def kernel_stats(self) -> dict[str, float]:
        """Kernels compiled, loaded from the cache and found in memory by this process; seconds of compiling."""
        from .nvrtc import stats

        return dict(stats())

    def memory_stats(self) -> dict[str, int]:
        """`current_bytes` in use, `peak_bytes` so far and `cached_bytes` in the pool."""
        return self.allocator.stats()


class CudaExecutable:
    """A loaded program. `run(dynamic)` starts its launches in order on the current stream and returns.

    A kernel's argument slots are its parameter, which the driver copies at the launch. So the next call may
    patch the same slots at once, and calls from several threads only need to take turns.
    """

    __slots__ = ("_addresses", "_launches", "_lock", "_offsets", "_slots", "_sources", "_start", "_targets")

    def __init__(self, driver: Driver, program: Program):
        launches = program.launches
        self._slots = slots = np.zeros(1 + sum(len(each.args) for each in launches), np.int64)
        patches: list[tuple[int, int, int]] = []
        rows: list[Launch] = []
        # CUDA wants a list of the parameters' addresses; ours has one entry.
        addresses = np.zeros(len(launches), np.uintp)
        base = 0
        functions = driver.functions([each.source for each in launches])
        for number, (each, function) in enumerate(zip(launches, functions)):
            addresses[number] = slots.ctypes.data + 8 * base
            for k, arg in enumerate(each.args, base):
                if isinstance(arg, Slot):
                    patches.append((k, arg.source, arg.offset))
                else:
                    assert isinstance(arg, int), "no control flow here yet"
                    slots[k] = arg
            geometry = launch.geometry(each.source, each.args, each.chunks, driver.max_blocks)
            if geometry is not None:
                rows.append(Launch(function, geometry, addresses.ctypes.data + number * addresses.itemsize))
            base += len(each.args)
        table = np.array(patches, np.int64).reshape(-1, 3)
        self._targets, self._sources, self._offsets = table.T.copy()
        self._launches, self._addresses, self._start = rows, addresses, driver.launch
        self._lock = threading.Lock()

    def run(self, dynamic: Sequence[int]) -> None:
        """Start the program with its dynamic values (addresses, scalar bits) in order."""
        values = np.array(dynamic, np.int64)
        with self._lock:
            self._slots[self._targets] = values[self._sources] + self._offsets
            self._start(self._launches)


@functools.cache
def kernels() -> dict[str, Kernel]:
    """The KERNELS tables of this folder's modules: hand-written kernels by op."""
    package = __package__ or ""
    found: dict[str, Any] = {}
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        name = f"{package}.{module.name}"
        spec = importlib.util.find_spec(name)
        text = spec.loader.get_source(name) if spec and spec.loader else ""  # type: ignore[attr-defined]
        if re.search(r"^KERNELS\b", text or "", re.MULTILINE):
            found |= importlib.import_module(name).KERNELS
    return found
