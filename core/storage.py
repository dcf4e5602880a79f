"""Storage: the memory behind tensors. Views share one; its counters guard what the tape saved."""

from __future__ import annotations

from struct import Struct
from typing import Any
from weakref import WeakSet

import numpy as np

from .errors import ArgumentError, ShapeError
from .types import DType, Shape, uint8

#: values lie in lines of that many bytes; smaller ones side by side in a line, in pieces of `PIECE`
LINE, PIECE = 64, 16


def room(nbytes: int) -> int:
    """The bytes that a value of `nbytes` takes in memory: at least one piece, from 49 bytes on whole lines."""
    if nbytes > LINE - PIECE:
        return -(-nbytes // LINE) * LINE
    return -(-nbytes // PIECE) * PIECE or PIECE


def overlaps(shape: Shape, strides: Shape) -> bool:
    """Whether two elements of a layout may be one place in memory: repeated axes, sliding windows."""
    if 0 in shape:
        return False
    reach = 0
    for step, n in sorted((abs(st), n) for n, st in zip(shape, strides) if n > 1):
        if step <= reach:
            return True
        reach += (n - 1) * step
    return any(st == 0 for n, st in zip(shape, strides) if n > 1)


def refuse_other_type(op: str, result: Any, target: Any) -> None:
    """Refuse to put a result of one type in place into a target of another."""
    if result != target:
        raise ShapeError(
            op, f"the result {result} does not fit in place into {target}",
            "use the out-of-place form (x = x + y), or convert the other operand",
        )  # fmt: skip


def overlapping(x: Any) -> Any:
    """The first of a tensor and those that it is a view of whose elements share memory, or None."""
    while x is not None:
        if overlaps(x.shape, x.strides):
            return x
        x = None if getattr(x, "_detached", False) else x._base  # an alias is a view of nothing
    return None


def refuse_overlap(target: Any) -> None:
    """Raise ArgumentError when elements of a tensor, or of one that it is a view of, share memory."""
    x = overlapping(target)
    if x is not None:
        raise ArgumentError(
            "in-place", f"elements of {x.type} share memory, so it cannot be changed in place",
            "clone() it first",
        )  # fmt: skip


def refuse_fixed(target: Any, storage: Storage) -> None:
    """Raise ArgumentError for a tensor over memory, its storage's, that nobody may write to."""
    if storage.fixed:
        raise ArgumentError(
            "in-place", f"{target.type} has the memory of a NumPy array that is read-only", "clone() it first"
        )


class Writes:
    """The writes to all memory of the process, for what is computed from state once and kept (`graph/prepared.py`).

    last: another object after every change in place, so that "has any tensor changed?" is one comparison. looks: by id
    of a storage from which something was made, how often somebody has been given its memory since: he may write there
    unseen; looked: another object after each of that. lent: storages whose address another library has. moved: another
    object after a tensor was given other memory (`Module.to`).
    """

    __slots__ = ("_watchers", "last", "lent", "looked", "looks", "moved")

    def __init__(self) -> None:
        self.last: object = object()
        self.looked: object = self.last
        self.moved: object = self.last
        self.looks: dict[int, int] = {}
        self._watchers: dict[int, int] = {}
        self.lent: WeakSet[Storage] = WeakSet()

    def watch(self, storage: Storage) -> None:
        """Count looks at a storage from now on, until as many calls of `unwatch`."""
        self._watchers[id(storage)] = self._watchers.get(id(storage), 0) + 1
        self.looks.setdefault(id(storage), 0)

    def unwatch(self, storage: Storage) -> None:
        self._watchers[id(storage)] -= 1
        if not self._watchers[id(storage)]:
            del self._watchers[id(storage)], self.looks[id(storage)]

    def look(self, storage: Storage) -> None:
        """Somebody is given the memory of a storage."""
        number = self.looks.get(id(storage))
        if number is not None:
            self.looks[id(storage)] = number + 1
            self.looked = self.last = object()


class Storage:
    """A block of device memory; each backend derives its own.

    ptr: address; nbytes: usable size; device: canonical name; version: counts in-place changes (who makes one also sets
    `writes.last`);
    changed: the place (`errors.user_place`) of the last one made by a user's in-place op; tape_version: counts
    in-place changes that the tape recorded, so that views know when their history is out of date.
    """

    __slots__ = ("__weakref__", "changed", "device", "nbytes", "ptr", "tape_version", "version")

    #: whether nobody may write to the memory
    fixed = False

    def __init__(self, ptr: int, nbytes: int, device: str):
        self.ptr, self.nbytes, self.device = ptr, nbytes, device
        self.version = self.tape_version = 0
        self.changed: Any = None

    def array(self, dtype: DType, shape: Shape, strides: Shape, offset: int) -> Any:
        """The memory as the device's array type (NumPy, CuPy); strides in elements, offset in bytes.

        The array keeps the memory alive.
        """
        raise TypeError("a bare Storage has no memory")

    def is_lent(self) -> bool:
        """Whether somebody beside tensors may look at the memory: NumPy, another framework."""
        return True

    def is_shared(self) -> bool:
        """Whether somebody beside tensors can write to the memory now."""
        return True

    def wait(self) -> None:
        """Return when the memory holds what was to be put there: on the CPU it does."""

    def to_host(self, dtype: DType, shape: Shape, strides: Shape, offset: int) -> np.ndarray:
        """The memory as a NumPy array: a view on the CPU, a copy from elsewhere. Arguments as for `array`."""
        return self.array(dtype, shape, strides, offset)  # type: ignore[no-any-return]

    def unpack(self, form: Struct, offset: int) -> tuple[Any, ...]:
        """The numbers that lie at a byte offset, as Python's."""
        return form.unpack(self.to_host(uint8, (form.size,), (1,), offset).tobytes())

    def copy_from(self, source: Storage, offset: int, nbytes: int) -> None:
        """Copy bytes of another storage, on any device, to the start of this one."""
        self.fill_from(source.to_host(uint8, (nbytes,), (1,), offset), uint8)

    def fill_from(self, array: Any, dtype: DType) -> None:
        """Copy a contiguous NumPy array to the start of the block."""
        self.array(dtype, (array.size,), (1,), 0)[...] = array.reshape(-1)


writes = Writes()
