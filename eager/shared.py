"""NumPy arrays as tensors over their memory; those that lie in one memory have one storage, as views have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core.storage import Storage
from ..core.types import DType, Shape
from .tensor import KNOWN, EagerTensor, ForeignStorage, layout, share_numpy


def can_share(array: np.ndarray) -> bool:
    """Whether a tensor can look into an array's memory: of a known dtype, in this machine's order of bytes, with
    strides of whole elements."""
    dtype = KNOWN.get(array.dtype)
    if dtype is None:
        return False
    return array.flags.c_contiguous or not any(st % dtype.itemsize for st in array.strides)


class _Memory:
    """A stretch of memory that arrays look into, and which they keep alive, for NumPy."""

    def __init__(self, low: int, nbytes: int, arrays: Sequence[np.ndarray]):
        self.arrays = arrays
        writeable = any(a.flags.writeable for a in arrays)
        self.__array_interface__ = {
            "version": 3, "typestr": "|u1", "shape": (nbytes,), "data": (low, not writeable),
        }  # fmt: skip


class CommonStorage(ForeignStorage):
    """Memory of several NumPy arrays that lie in each other."""

    __slots__ = ()

    def array(self, dtype: DType, shape: Shape, strides: Shape, offset: int) -> np.ndarray:
        step = tuple(s * dtype.itemsize for s in strides)
        return np.ndarray(shape, dtype.np, self.owner, offset, step)


def _span(array: np.ndarray) -> tuple[int, int]:
    """The first address of an array's elements, and that after the last."""
    low = high = array.__array_interface__["data"][0]
    if array.flags.c_contiguous:
        return low, high + array.nbytes
    for n, step in zip(array.shape, array.strides):
        if step < 0:
            low += (n - 1) * step
        else:
            high += (n - 1) * step
    return low, high + array.itemsize


def share_together(arrays: Sequence[np.ndarray], tensors: Sequence[Any] = ()) -> list[EagerTensor]:
    """A tensor over the memory of each array, all of which can be shared. Those that overlap have one storage: that of
    one of `tensors` where it is its memory."""
    if len(arrays) == 1 and not tensors:
        return [share_numpy(arrays[0])]
    rows: list[tuple[int, int, Any]] = [(*_span(a), k) for k, a in enumerate(arrays) if a.size]
    for storage in {id(t._storage): t._storage for t in tensors if t.device == "cpu"}.values():
        if type(storage) is not ForeignStorage or storage.owner.flags.c_contiguous:
            rows.append((storage.ptr, storage.ptr + storage.nbytes, storage))
    rows.sort(key=lambda row: row[:2])
    made: dict[int, EagerTensor] = {}
    k = 0
    while k < len(rows):
        low, high = rows[k][:2]
        end = k + 1
        while end < len(rows) and rows[end][0] < high:
            high = max(high, rows[end][1])
            end += 1
        group = rows[k:end]
        spots = [x for *_, x in group if isinstance(x, int)]
        if len(group) > 1 and spots:
            for spot, tensor in zip(spots, _in_one(low, high, group, [arrays[n] for n in spots])):
                made[spot] = tensor
        k = end
    return [made[n] if n in made else share_numpy(a) for n, a in enumerate(arrays)]


def _in_one(
    low: int, high: int, group: list[tuple[int, int, Any]], arrays: list[np.ndarray]
) -> list[EagerTensor]:
    """Tensors of arrays that overlap each other or a storage, which all lie between two addresses."""
    storages = [x for *_, x in group if isinstance(x, Storage)]
    found: Any = next((s for s in storages if s.ptr == low and s.ptr + s.nbytes >= high), None)
    if storages and found is None:  # they reach farther than a tensor's memory
        return [share_numpy(a) for a in arrays]
    if found is None:
        owner = np.asarray(_Memory(low, high - low, arrays))
        found = CommonStorage(owner)
    tensors = []
    for a in arrays:
        dtype = KNOWN[a.dtype]
        lay = layout(dtype, a.shape, tuple(st // dtype.itemsize for st in a.strides))
        tensors.append(EagerTensor(lay, found, a.__array_interface__["data"][0] - found.ptr))
    return tensors
