"""CUDA memory: storages over blocks of the driver's pool, with counters."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...core.errors import OutOfMemoryError
from ...core.storage import Storage
from ...core.types import DType, Shape
from .driver import Driver


class CudaStorage(Storage):
    """A block of device memory; it goes back to the pool when the last tensor (or array) on it is gone."""

    __slots__ = ("_allocator", "memory")

    def __init__(self, allocator: Allocator, memory: Any, ptr: int, nbytes: int):
        super().__init__(ptr, nbytes, allocator.device)
        self._allocator, self.memory = allocator, memory

    def array(self, dtype: DType, shape: Shape, strides: Shape, offset: int) -> Any:
        """A CuPy view of the memory; strides in elements, offset in bytes. It keeps the memory alive."""
        return self._allocator.driver.array(self.memory, dtype, shape, strides, offset)

    def to_host(self, dtype: DType, shape: Shape, strides: Shape, offset: int) -> np.ndarray:
        """A NumPy copy of the values, made after all work on them."""
        first, last = _span(shape, strides)
        flat = np.empty(last - first + 1 if last >= first else 0, dtype.np)
        self._allocator.driver.read(self.memory, offset + first * dtype.itemsize, flat)
        steps = tuple(st * dtype.itemsize for st in strides)
        return np.ndarray(shape, dtype.np, flat, -first * dtype.itemsize if flat.size else 0, steps).copy()

    def fill_from(self, array: np.ndarray, dtype: DType) -> None:
        """Copy a contiguous NumPy array to the start of the block."""
        self._allocator.driver.write(self.memory, 0, array)

    def copy_from(self, source: Storage, offset: int, nbytes: int) -> None:
        """Copy bytes of another storage to the start of this one; between GPUs without a detour."""
        if isinstance(source, CudaStorage) and type(source._allocator.driver) is type(self._allocator.driver):
            self._allocator.driver.copy(self.memory, source.memory, offset, nbytes)
        else:
            super().copy_from(source, offset, nbytes)

    def wait(self) -> None:
        """Wait for all work that was started before, on this memory or not."""
        self._allocator.driver.synchronize()

    def __del__(self) -> None:
        self._allocator.current -= self.nbytes


def _span(shape: Shape, strides: Shape) -> tuple[int, int]:
    """The lowest and the highest element number that a strided view touches; (0, -1) for an empty one."""
    if 0 in shape:
        return 0, -1
    reach = [(n - 1) * st for n, st in zip(shape, strides)]
    return sum(r for r in reach if r < 0), sum(r for r in reach if r > 0)


class Allocator:
    """Hands out storages. `current` and `peak` count the bytes that tensors hold."""

    def __init__(self, driver: Driver, device: str):
        self.driver, self.device = driver, device
        self.current = self.peak = 0

    def empty(self, nbytes: int, op: str = "memory") -> CudaStorage:
        """An uninitialised storage of at least `nbytes` bytes, for an op that errors name."""
        try:
            memory, ptr = self.driver.allocate(max(1, nbytes))
        except OutOfMemoryError as error:
            raise OutOfMemoryError(op, error.message, error.fix) from None
        storage = CudaStorage(self, memory, ptr, nbytes)
        self.current += nbytes
        if self.current > self.peak:
            self.peak = self.current
        return storage

    def stats(self) -> dict[str, int]:
        """Bytes that tensors hold now, their peak, and the bytes that wait in the pool."""
        cached = self.driver.memory_stats()["cached_bytes"]
        return {"current_bytes": self.current, "peak_bytes": self.peak, "cached_bytes": cached}
