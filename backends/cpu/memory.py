"""CPU memory: a caching allocator of blocks aligned to 64 bytes, small ones to 16, and the storage that tensors share.

A freed block goes to the free list of its size class, unless a NumPy array still looks at it; then NumPy's
own reference frees it later. Counters and lists change only by operations that CPython does not interrupt, so
that no lock is needed: a storage may be freed by the garbage collector anywhere, even inside this file.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from sys import getrefcount
from typing import Any

import numpy as np

from ...core.errors import OutOfMemoryError
from ...core.room import LARGE, available
from ...core.storage import LINE, PIECE, Storage, room, writes
from ...core.types import DType, Shape

#: bytes that the free lists may hold
CACHE_LIMIT = 512 << 20
# Blocks up to this size come in whole lines, or less than one; larger ones in eight steps for each power of two.
_SMALL = 4096


class Block:
    """Memory owned by a NumPy byte array: what the free lists hold."""

    __slots__ = ("allocator", "free", "ptr", "raw", "seen", "size", "skip")

    def __init__(self, allocator: Allocator, size: int, free: list[Block] | None, op: str = "memory"):
        align = LINE if size >= LINE else PIECE
        try:
            if size >= LARGE:
                _refuse_more_than_there_is(op, size, allocator)
            self.raw = np.empty(size + align, np.uint8)
        except (MemoryError, ValueError) as e:  # perhaps the free lists hold too much
            if isinstance(e, OutOfMemoryError):
                raise
            allocator.trim()
            self.raw = _last_attempt(op, size + align)
        address = self.raw.ctypes.data
        self.skip = -address % align
        self.ptr = address + self.skip
        self.allocator, self.size, self.free = allocator, size, free
        #: a NumPy array on this memory has been made
        self.seen = False


def _refuse_more_than_there_is(op: str, size: int, allocator: Allocator) -> None:
    """Linux promises more memory than there is, and ends whoever writes to it. Raises: OutOfMemoryError."""
    if size > available():
        allocator.trim()
    free = available()
    if size > free:
        raise OutOfMemoryError(
            op, f"cpu has no room for {size:,} bytes more: {free:,} are available",
            "use a smaller batch, or free tensors",
        )  # fmt: skip


def _last_attempt(op: str, nbytes: int) -> np.ndarray:
    try:
        return np.empty(nbytes, np.uint8)
    except (MemoryError, ValueError) as error:
        raise OutOfMemoryError(
            op,
            f"cpu has no room for {nbytes:,} bytes more: {error}",
            "use a smaller batch, or free tensors",
        ) from None


# getrefcount of a raw array that only its block knows: the block's reference and the call's own.
_UNSEEN = 2


class CpuStorage(Storage):
    """A block of the caching allocator; it goes back when the last tensor on it is gone."""

    __slots__ = ("_block",)
    device = "cpu"  # of all of them

    def __init__(self, block: Block, nbytes: int):
        self._block = block
        self.ptr = block.ptr
        self.nbytes = nbytes
        self.version = self.tape_version = 0
        self.changed: Any = None

    def array(self, dtype: DType, shape: Shape, strides: Shape, offset: int) -> np.ndarray:
        """A NumPy view of the memory; strides in elements, offset in bytes. It keeps the memory alive."""
        block, width = self._block, dtype.itemsize
        block.seen = True
        if writes.looks:
            writes.look(self)
        if 0 in shape:  # nothing to see, but NumPy would hold offset and strides against the memory
            return np.empty(shape, dtype.np)
        steps = tuple(st * width for st in strides)
        return np.ndarray(shape, dtype.np, block.raw, block.skip + offset, steps)

    def is_lent(self) -> bool:
        return self._block.seen

    def is_shared(self) -> bool:
        block = self._block
        return self in writes.lent or (block.seen and getrefcount(block.raw) != _UNSEEN)

    def unpack(self, form: Struct, offset: int) -> tuple[Any, ...]:
        block = self._block
        return form.unpack_from(block.raw, block.skip + offset)  # type: ignore[arg-type]

    def __del__(
        self, getrefcount: Any = getrefcount
    ) -> None:  # a default: globals may be gone at the very end
        block = self._block
        allocator, size = block.allocator, block.size
        allocator.current = current = allocator.current - size
        if block.seen:
            if getrefcount(block.raw) != _UNSEEN:
                allocator.total -= size  # NumPy has it now
                return
            block.seen = False
        if block.free is not None and allocator.total - current <= allocator.limit:
            block.free.append(block)
        else:
            allocator.total -= size


class Allocator:
    """Blocks by size class. `current` and `peak` count the bytes of blocks in use, `total` those in free lists too."""

    def __init__(self, limit: int = CACHE_LIMIT):
        self.limit = limit
        self.current = self.peak = self.total = 0
        self._small: list[list[Block]] = [[] for _ in range(_SMALL // PIECE + 1)]
        self._large: dict[int, list[Block]] = {}

    def _class(self, nbytes: int) -> tuple[int, list[Block]]:
        """The size of blocks for `nbytes` bytes, and the list of free ones."""
        if nbytes <= _SMALL:
            size = room(nbytes)
            return size, self._small[size // PIECE]
        step = 1 << (nbytes - 1).bit_length() - 4
        size = -(-nbytes // step) * step
        free = self._large.get(size)
        return size, self._large.setdefault(size, []) if free is None else free

    def empty(self, nbytes: int) -> CpuStorage:
        """An uninitialised storage of at least `nbytes` bytes."""
        return self.maker(nbytes)()

    def maker(self, nbytes: int, op: str = "memory") -> Callable[[], CpuStorage]:
        """A function that makes uninitialised storages of this one size, for an op that errors name."""
        size, free = self._class(nbytes)
        pop, new, cls = free.pop, CpuStorage.__new__, CpuStorage

        def make() -> CpuStorage:
            if free:
                try:
                    block = pop()
                except IndexError:  # another thread was faster
                    block = self._new(size, free, op)
            else:
                block = self._new(size, free, op)
            self.current = current = self.current + size
            if current > self.peak:
                self.peak = current
            # `CpuStorage(block, nbytes)` without a call through C: the memory of every result of every op.
            storage = new(cls)
            storage._block = block
            storage.ptr = block.ptr
            storage.nbytes = nbytes
            storage.version = storage.tape_version = 0
            storage.changed = None
            return storage

        return make

    def exact(self, nbytes: int) -> CpuStorage:
        """An uninitialised storage of no more than it needs, which the free lists never get: for large, rare ones."""
        size = -(-nbytes // PIECE) * PIECE or PIECE
        block = self._new(size, None)
        self.current += size
        self.peak = max(self.peak, self.current)
        return CpuStorage(block, nbytes)

    def _new(self, size: int, free: list[Block] | None, op: str = "memory") -> Block:
        block = Block(self, size, free, op)
        self.total += size
        return block

    def trim(self) -> None:
        """Give all cached blocks back to the system."""
        for free in (*self._small, *self._large.values()):
            while free:
                self.total -= free.pop().size

    def stats(self) -> dict[str, int]:
        """Bytes in use now, their peak, and the bytes that wait in the free lists."""
        cached = self.total - self.current
        return {"current_bytes": self.current, "peak_bytes": self.peak, "cached_bytes": cached}

    def reset_peak(self) -> None:
        """Let the peak start again from what is in use now."""
        self.peak = self.current
