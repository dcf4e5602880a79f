"""The machine under the CUDA backend: CuPy's memory pool and the CUDA driver. Loaded at first use."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from ...core.errors import DeviceError, MissingExtraError, OutOfMemoryError
from ...core.types import DType, Shape
from . import kernel_text, nvrtc
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

    def synchronize(self) -> None:
        """Wait for all work started before."""
        ...

    def memory_stats(self) -> dict[str, int]: ...

    def describe(self) -> dict[str, Any]:
        """Facts about the machine for people."""
        ...


#: what the driver calls errors after which a process can use the GPU no more
_LASTING = ("illegal", "misaligned", "launch fail", "assert", "hardware stack", "invalid program counter")


class _Current:
    """Makes a device current in this thread, and errors of CUDA ours.

    CuPy's own context manager keeps its stack on the Device object, which threads share, and sets nothing
    when the number is right already; but the driver needs a context in each new thread: setDevice makes it.
    """

    __slots__ = ("before", "index", "owner", "runtime")

    def __init__(self, owner: CupyDriver, index: int):
        self.owner, self.runtime, self.index = owner, owner._runtime, index

    def __enter__(self) -> None:
        try:
            self.before = self.runtime.getDevice()
            self.runtime.setDevice(self.index)
        except self.owner._errors as error:
            raise self.owner.failure(error) from error

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        failed = isinstance(error, self.owner._errors)
        try:
            if self.before != self.index:
                self.runtime.setDevice(self.before)
        finally:
            if failed:
                raise self.owner.failure(error) from error  # type: ignore[arg-type]


class CupyDriver:
    """One GPU through CuPy. Work is started on CuPy's current stream of the calling thread."""

    def __init__(self, index: int):
        self._cupy = cupy = _import_cupy()
        from cupy_backends.cuda.api import driver, runtime

        self._driver, self._runtime = driver, runtime
        self._errors = (runtime.CUDARuntimeError, driver.CUDADriverError)
        self._process = os.getpid()
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
        self._titles: dict[int, str] = {}

    def functions(self, sources: Sequence[str]) -> list[Any]:
        missing = [s for s in dict.fromkeys(sources) if s not in self._functions]
        if missing:
            with _Current(self, self.index):
                for source, cubin in zip(missing, nvrtc.compile_kernels(missing, self.arch)):
                    module = self._modules.get(cubin.name)
                    if module is None:
                        module = self._cupy.cuda.function.Module()
                        module.load(cubin.code)
                        self._modules[cubin.name] = module
                    self._functions[source] = function = module.get_function(cubin.function)
                    self._titles[function.ptr] = kernel_text.title(source)
        return [self._functions[s] for s in sources]

    def launch(self, launches: Sequence[Launch]) -> None:
        with _Current(self, self.index):
            stream = self._cupy.cuda.get_current_stream().ptr
            start = self._driver.launchKernel
            try:
                for function, (blocks, x, y), parameters in launches:
                    start(function.ptr, blocks, 1, 1, x, y, 1, 0, stream, parameters, 0)
            except self._errors as error:
                raise self.failure(error, f" at the launch of\n{self._titles[function.ptr]}") from error

    def synchronize(self) -> None:
        with _Current(self, self.index):
            self._cupy.cuda.get_current_stream().synchronize()

    def failure(self, error: BaseException, where: str = "") -> DeviceError:
        """An error of CUDA as ours. Kernels run later than they are started: it may be an earlier one's."""
        if os.getpid() != self._process:
            fix = "start processes by spawn: one that is forked after CUDA has started cannot use it"
        elif any(word in str(error) for word in _LASTING):
            fix = (
                "run it again with CUDA_LAUNCH_BLOCKING=1, which reports the kernel that fails where it is started; "
                "this process can use the GPU no more"
            )
        else:
            fix = "see what nvidia-smi says, and `duograd doctor`"
        return DeviceError("device", f"cuda:{self.index} reports {error}{where}", fix)

    def allocate(self, nbytes: int) -> tuple[Any, int]:
        try:
            with _Current(self, self.index):
                memory = self._cupy.cuda.alloc(nbytes)
        except self._cupy.cuda.memory.OutOfMemoryError as error:
            raise OutOfMemoryError(
                "memory", f"cuda:{self.index} has no room for {nbytes:,} bytes more: {error}",
                "use a smaller batch, or free tensors",
            ) from None  # fmt: skip
        return memory, memory.ptr

    def array(self, memory: Any, dtype: DType, shape: Shape, strides: Shape, offset: int) -> Any:
        with _Current(self, self.index):
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
        with _Current(self, self.index):
            stream = self._cupy.cuda.get_current_stream()
            # Memory of the host may change or go when this returns.
            self._runtime.memcpyAsync(target, source, nbytes, kind, stream.ptr)
            stream.synchronize()

    def copy(self, target: Any, source: Any, offset: int, nbytes: int) -> None:
        if nbytes == 0:
            return
        if source.device_id == self.index:
            with _Current(self, self.index):
                stream = self._cupy.cuda.get_current_stream()
                kind = self._runtime.memcpyDeviceToDevice
                self._runtime.memcpyAsync(target.ptr, source.ptr + offset, nbytes, kind, stream.ptr)
            return
        # Streams of two devices know nothing of each other: the source's work has to be finished first.
        with _Current(self, source.device_id):
            self._cupy.cuda.get_current_stream().synchronize()
        with _Current(self, self.index):
            stream = self._cupy.cuda.get_current_stream()
            self._runtime.memcpyPeerAsync(
                target.ptr, self.index, source.ptr + offset, source.device_id, nbytes, stream.ptr
            )
            stream.synchronize()

    def memory_stats(self) -> dict[str, int]:
        with _Current(self, self.index):
            pool = self._cupy.get_default_memory_pool()
            return {"current_bytes": pool.used_bytes(), "cached_bytes": pool.free_bytes()}

    def describe(self) -> dict[str, Any]:
        with _Current(self, self.index):
            free, total = self._cupy.cuda.Device(self.index).mem_info
        name = self._runtime.getDeviceProperties(self.index)["name"]
        driver, nvrtc_version = self._runtime.driverGetVersion(), nvrtc.version()
        return {
            "gpu": name.decode() if isinstance(name, bytes) else name, "arch": self.arch, "free_bytes": free,
            "total_bytes": total, "driver": f"{driver // 1000}.{driver % 1000 // 10}",
            "nvrtc": ".".join(map(str, nvrtc_version)), "cupy": self._cupy.__version__,
        }  # fmt: skip


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
