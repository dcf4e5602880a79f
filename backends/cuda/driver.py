"""The machine under the CUDA backend: CuPy's memory pool and the CUDA driver. Loaded at first use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from ...core.errors import DeviceError, MissingExtraError, OutOfMemoryError
from ...core.types import DType, Shape
from . import nvrtc
from .launch import Geometry

#: blocks of 256 threads that fill a multiprocessor, twice over
BLOCKS_PER_MULTIPROCESSOR = 16


class Launch(NamedTuple):
    """A kernel, its geometry, and the address of its list of parameters (one: the address of its slots)."""

    function: Any
    geometry: Geometry
    parameters: int


class Driver(Protocol):
    """What `device.CudaBackend` needs of a machine; `emulate.EmulatedDriver` is the other one."""

    #: about how many blocks run at once
    max_blocks: int

    def functions(self, sources: Sequence[str]) -> list[Any]:
        """Kernels ready to launch, by source text."""
        ...

    def launch(self, launches: Sequence[Launch]) -> None:
        """Start kernels, each after the one before. Slots may be changed as soon as this returns."""
        ...

    def allocate(self, nbytes: int) -> tuple[Any, int]:
        """Memory and its address. It is freed when the first is gone."""
        ...

    def array(self, memory: Any, dtype: DType, shape: Shape, strides: Shape, offset: int) -> Any:
        """A view of the memory as the device's array type; strides in elements, offset in bytes."""
        ...

    def read(self, memory: Any, offset: int, target: np.ndarray) -> None:
        """Fill a contiguous NumPy array from the memory, after all work started before."""
        ...

    def write(self, memory: Any, offset: int, source: np.ndarray) -> None:
        """Copy a contiguous NumPy array into the memory; the array may be changed afterwards."""
        ...

    def copy(self, target: Any, source: Any, offset: int, nbytes: int) -> None:
        """Copy between memories of this kind of driver, maybe on two devices."""
        ...

    def memory_stats(self) -> dict[str, int]: ...


class _Current:
    """Makes a device current in this thread.

    CuPy's own context manager keeps its stack on the Device object, which threads share, and sets nothing
    when the number is right already; but the driver needs a context in each new thread: setDevice makes it.
    """

    __slots__ = ("before", "index", "runtime")

    def __init__(self, runtime: Any, index: int):
        self.runtime, self.index = runtime, index

    def __enter__(self) -> None:
        self.before = self.runtime.getDevice()
        self.runtime.setDevice(self.index)

    def __exit__(self, *_: object) -> None:
        if self.before != self.index:
            self.runtime.setDevice(self.before)


class CupyDriver:
    """One GPU through CuPy. Work is started on CuPy's current stream of the calling thread."""

    def __init__(self, index: int):
        self._cupy = cupy = _import_cupy()
        from cupy_backends.cuda.api import driver, runtime

        self._driver, self._runtime = driver, runtime
        try:
            count = runtime.getDeviceCount()
        except runtime.CUDARuntimeError as error:
            raise DeviceError(
                "device", f"no GPU can be used: {error}",
                'install an NVIDIA driver for CUDA 13 on a machine with a GPU, or use device "cpu"',
            ) from None  # fmt: skip
        if index >= count:
            have = "1 GPU" if count == 1 else f"{count} GPUs"
            known = ", ".join(f'"cuda:{k}"' for k in range(count)) or '"cpu"'
            what = f'"cuda:{index}" does not exist: this machine has {have}'
            raise DeviceError("device", what, f"use {known}")
        self.index = index
        device = cupy.cuda.Device(index)
        self.max_blocks = device.attributes["MultiProcessorCount"] * BLOCKS_PER_MULTIPROCESSOR
        capability = int(device.compute_capability)
        if capability not in nvrtc.architectures():
            known = ", ".join(map(str, nvrtc.architectures()))
            raise DeviceError(
                "device",
                f"NVRTC cannot compile for this GPU (compute capability {capability}; it knows {known})",
                'install the NVRTC that fits the GPU and driver, or use device "cpu"',
            )
        self.arch = f"sm_{capability}"
        self._modules: dict[str, Any] = {}
        self._functions: dict[str, Any] = {}

    def functions(self, sources: Sequence[str]) -> list[Any]:
        missing = [s for s in dict.fromkeys(sources) if s not in self._functions]
        if missing:
            with _Current(self._runtime, self.index):
                for source, cubin in zip(missing, nvrtc.compile_kernels(missing, self.arch)):
                    module = self._modules.get(cubin.name)
                    if module is None:
                        module = self._cupy.cuda.function.Module()
                        module.load(cubin.code)
                        self._modules[cubin.name] = module
                    self._functions[source] = module.get_function(cubin.function)
        return [self._functions[s] for s in sources]

    def launch(self, launches: Sequence[Launch]) -> None:
        with _Current(self._runtime, self.index):
            stream = self._cupy.cuda.get_current_stream().ptr
            start = self._driver.launchKernel
            for function, (blocks, x, y), parameters in launches:
                start(function.ptr, blocks, 1, 1, x, y, 1, 0, stream, parameters, 0)

    def allocate(self, nbytes: int) -> tuple[Any, int]:
        try:
            with _Current(self._runtime, self.index):
                memory = self._cupy.cuda.alloc(nbytes)
        except self._cupy.cuda.memory.OutOfMemoryError as error:
            raise OutOfMemoryError(
                "memory", f"cuda:{self.index} has no room for {nbytes:,} bytes more: {error}",
                "use a smaller batch, or free tensors",
            ) from None  # fmt: skip
        return memory, memory.ptr

    def array(self, memory: Any, dtype: DType, shape: Shape, strides: Shape, offset: int) -> Any:
        with _Current(self._runtime, self.index):
            steps = tuple(st * dtype.itemsize for st in strides)
            return self._cupy.ndarray(shape, dtype.np, memory + offset, steps)

    def read(self, memory: Any, offset: int, target: np.ndarray) -> None:
        runtime = self._runtime
        self._transfer(target.ctypes.data, memory.ptr + offset, target.nbytes, runtime.memcpyDeviceToHost)

    def write(self, memory: Any, offset: int, source: np.ndarray) -> None:
        runtime = self._runtime
        self._transfer(memory.ptr + offset, source.ctypes.data, source.nbytes, runtime.memcpyHostToDevice)

    def _transfer(self, target: int, source: int, nbytes: int, kind: int) -> None:
        if nbytes == 0:
            return
        with _Current(self._runtime, self.index):
            stream = self._cupy.cuda.get_current_stream()
            self._runtime.memcpyAsync(target, source, nbytes, kind, stream.ptr)
            stream.synchronize()

    def copy(self, target: Any, source: Any, offset: int, nbytes: int) -> None:
        if nbytes == 0:
            return
        # Streams of two devices know nothing of each other: the source's work has to be finished first.
        with _Current(self._runtime, source.device_id):
            self._cupy.cuda.get_current_stream().synchronize()
        with _Current(self._runtime, self.index):
            stream = self._cupy.cuda.get_current_stream()
            self._runtime.memcpyPeerAsync(
                target.ptr, self.index, source.ptr + offset, source.device_id, nbytes, stream.ptr
            )
            stream.synchronize()

    def memory_stats(self) -> dict[str, int]:
        with _Current(self._runtime, self.index):
            pool = self._cupy.get_default_memory_pool()
            return {"current_bytes": pool.used_bytes(), "cached_bytes": pool.free_bytes()}


def _import_cupy() -> Any:
    try:
        import cupy
    except ImportError as error:
        absent = getattr(error, "name", None) == "cupy"
        reason = "which is not installed" if absent else f"which cannot be loaded: {error}"
        raise MissingExtraError(
            "device", f'device "cuda" needs CuPy, {reason}', 'install it: pip install "duograd[cuda]"'
        ) from None
    return cupy
