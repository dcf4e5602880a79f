"""CPU memory: a caching allocator of 64-byte aligned blocks, and the storage that tensors share.

A freed block goes to the free list of its size class, unless a NumPy array still looks at it; then NumPy's
own reference frees it later. Counters and lists change only by operations that CPython does not interrupt, so
that no lock is needed: a storage may be freed by the garbage collector anywhere, even inside this file.
"""

from __future__ import annotations

from sys import getrefcount
from typing import Any

import numpy as np

from ...core.storage import Storage
from ...core.types import DType, Shape

ALIGNMENT = 64
#: bytes that the free lists may hold
CACHE_LIMIT = 512 << 20
# Blocks up to this size come in steps of 64 bytes, larger ones in eight steps for each power of two.
_SMALL = 4096
_SMALL_CLASSES = _SMALL // ALIGNMENT


class Block:
    """Memory owned by a NumPy byte array: what the free lists hold."""

    __slots__ = ("allocator", "free", "ptr", "raw", "seen", "size", "skip")

    def __init__(self, allocator: Allocator, size: int, free: list[Block]):
        self.raw = np.empty(size + ALIGNMENT, np.uint8)
        address = self.raw.ctypes.data
        self.skip = -address % ALIGNMENT
        self.ptr = address + self.skip
        self.allocator, self.size, self.free = allocator, size, free
        #: a NumPy array on this memory has been made
        self.seen = False


# getrefcount of a raw array that only its block knows: the block's reference and the call's own.
_UNSEEN = 2


class CpuStorage(Storage):
    """A block of the caching allocator; it goes back when the last tensor on it is gone."""

    __slots__ = ("_block",)

    def __init__(self, block: Block, nbytes: int):
        self._block = block
        self.ptr = block.ptr
        self.nbytes = nbytes
        self.device = "cpu"
        self.version = self.tape_version = 0
        self.changed: Any = None

    def array(self, dtype: DType, shape: Shape, strides: Shape, offset: int) -> np.ndarray:
        """A NumPy view of the memory; strides in elements, offset in bytes. It keeps the memory alive."""
        block, width = self._block, dtype.itemsize
        block.seen = True
        steps = tuple(st * width for st in strides)
        return np.ndarray(shape, dtype.np, block.raw, block.skip + offset, steps)

    def __del__(self) -> None:
        block = self._block
        allocator, size = block.allocator, block.size
        allocator.current -= size
        if block.seen:
            if getrefcount(block.raw) != _UNSEEN:
                return
            block.seen = False
        cached = allocator.cached + size
        if cached <= allocator.limit:
            allocator.cached = cached
            block.free.append(block)


class Allocator:
    """Blocks by size class. `current` and `peak` count the bytes of blocks in use."""

    def __init__(self, limit: int = CACHE_LIMIT):
        self.limit = limit
        self.current = self.peak = self.cached = 0
        self._small: list[list[Block]] = [[] for _ in range(_SMALL_CLASSES + 1)]
        self._large: dict[int, list[Block]] = {}

    def empty(self, nbytes: int) -> CpuStorage:
        """An uninitialised storage of at least `nbytes` bytes."""
        if nbytes <= _SMALL:
            size = (nbytes + 63) & -64 or 64
            free = self._small[size >> 6]
        else:
            step = 1 << (nbytes - 1).bit_length() - 4
            size = -(-nbytes // step) * step
            free = self._large.get(size)  # type: ignore[assignment]
            if free is None:
                free = self._large.setdefault(size, [])
        try:
            block = free.pop()
            self.cached -= size
        except IndexError:
            block = Block(self, size, free)
        self.current = current = self.current + size
        if current > self.peak:
            self.peak = current
        return CpuStorage(block, nbytes)

    def trim(self) -> None:
        """Give all cached blocks back to the system."""
        for free in (*self._small, *self._large.values()):
            while free:
                self.cached -= free.pop().size

    def stats(self) -> dict[str, int]:
        """Bytes in use now, their peak, and the bytes that wait in the free lists."""
        return {"current_bytes": self.current, "peak_bytes": self.peak, "cached_bytes": self.cached}

    def reset_peak(self) -> None:
        """Let the peak start again from what is in use now."""
        self.peak = self.current
