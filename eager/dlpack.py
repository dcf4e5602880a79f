"""DLPack: tensors to and from other libraries without a copy. Source: the DLPack 1.0 specification (dlpack.h).

The structures are read and written with ctypes, so every dtype goes through, bfloat16 too. An exporting tensor's
storage lives until the importer calls the deleter; an imported block lives as long as any tensor over it.
"""

from __future__ import annotations

import ctypes
import itertools
import weakref
from typing import Any

import numpy as np

from ..core.backend import normalize_device
from ..core.errors import ArgumentTypeError, CopyError, DeviceError, DtypeError
from ..core.storage import Storage, writes
from ..core.types import DTYPES, DType, Shape
from .tensor import EagerTensor, layout

CPU, CUDA = 1, 2
_READ_ONLY, _COPIED = 1, 2
#: type code and bits of each dtype; kDLInt 0, kDLUInt 1, kDLFloat 2, kDLBfloat 4, kDLComplex 5, kDLBool 6
_CODES = {"int": 0, "uint": 1, "float": 2, "complex": 5, "bool": 6}


def _code(dtype: DType) -> tuple[int, int]:
    return (4 if dtype.name == "bfloat16" else _CODES[dtype.kind]), dtype.itemsize * 8


class _Device(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int32), ("id", ctypes.c_int32))


class _Type(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p), ("device", _Device), ("ndim", ctypes.c_int32), ("dtype", _Type),
        ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )  # fmt: skip


_Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _Managed(ctypes.Structure):
    _fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


class _Versioned(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_uint32), ("minor", ctypes.c_uint32), ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p), ("flags", ctypes.c_uint64), ("tensor", _Tensor),
    )  # fmt: skip


_NAMES: dict[type, tuple[bytes, bytes]] = {
    _Managed: (b"dltensor", b"used_dltensor"),
    _Versioned: (b"dltensor_versioned", b"used_dltensor_versioned"),
}

_api = ctypes.pythonapi
_CapsuleDeleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_new = _api.PyCapsule_New
_new.restype, _new.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, _CapsuleDeleter)
_rename = _api.PyCapsule_SetName
_rename.argtypes = (ctypes.py_object, ctypes.c_char_p)
_pointer = _api.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
_is_valid = _api.PyCapsule_IsValid
_is_valid.argtypes = (ctypes.py_object, ctypes.c_char_p)
# In the deleter of a capsule the object is dying: it must not be touched as a Python object.
_raw = ctypes.PyDLL(None)
_raw_valid = _raw.PyCapsule_IsValid
_raw_valid.argtypes = (ctypes.c_void_p, ctypes.c_char_p)
_raw_pointer = _raw.PyCapsule_GetPointer
_raw_pointer.restype, _raw_pointer.argtypes = ctypes.c_void_p, (ctypes.c_void_p, ctypes.c_char_p)

#: what is lent out: number -> the structure, its arrays and the storage, until the importer's deleter call
_lent: dict[int, Any] = {}
_numbers = itertools.count(1)


def _release(kind: type) -> Any:
    def release(address: int | None) -> None:
        if address:
            _lent.pop(kind.from_address(address).context, None)  # type: ignore[attr-defined]

    return _Deleter(release)


_releases = {kind: _release(kind) for kind in _NAMES}


def _capsule_dies(capsule: int) -> None:
    """A capsule that nobody took is dropped: so is what it lent."""
    for kind, (name, _) in _NAMES.items():
        if _raw_valid(capsule, name):
            address = _raw_pointer(capsule, name)
            if address:
                _lent.pop(kind.from_address(address).context, None)  # type: ignore[attr-defined]


_on_death = _CapsuleDeleter(_capsule_dies)


def device_of(x: EagerTensor) -> tuple[int, int]:
    """DLPack's device type and number of a tensor."""
    kind, _, index = x.device.partition(":")
    return (CPU, 0) if kind == "cpu" else (CUDA, int(index or 0))


def export(x: EagerTensor, stream: Any, max_version: Any, dl_device: Any, copy: bool | None) -> Any:
    """The capsule of `x.__dlpack__()`. Arguments: see the array API standard."""
    here = device_of(x)
    flags = 0
    if dl_device is not None and tuple(map(int, dl_device)) != here:
        if copy is False:
            raise CopyError("dlpack", f"a tensor on {x.device} cannot be shared on another device", "copy it")
        if int(dl_device[0]) != CPU:
            raise CopyError(
                "dlpack",
                f"a tensor on {x.device} cannot be exported to device {dl_device}",
                "ask for (1, 0), the CPU",
            )
        x, here, flags = x.to("cpu"), (CPU, 0), _COPIED  # type: ignore[assignment]
    elif copy:
        x, flags = x.clone(), _COPIED  # type: ignore[assignment]
    kind = _Versioned if max_version is not None and max_version[0] >= 1 else _Managed
    made = kind()
    dims = (ctypes.c_int64 * max(1, x.ndim))(*x.shape)
    steps = (ctypes.c_int64 * max(1, x.ndim))(*x.strides)
    code, bits = _code(x.dtype)
    made.tensor = _Tensor(
        x.ptr if x.size else None, _Device(*here), x.ndim, _Type(code, bits, 1), dims, steps, 0
    )
    number = next(_numbers)
    made.context = number
    made.deleter = ctypes.cast(_releases[kind], ctypes.c_void_p)
    if isinstance(made, _Versioned):
        made.major, made.minor, made.flags = 1, 0, flags
    _lent[number] = made, dims, steps, x._storage
    if stream != -1:  # the taker's stream, if it has one, need not wait for ours then
        x._storage.wait()
    writes.lent.add(x._storage)
    writes.look(x._storage)
    return _new(ctypes.addressof(made), _NAMES[kind][0], _on_death)


class BorrowedStorage(Storage):
    """Memory that another library lent; given back when no tensor needs it."""

    __slots__ = ()

    def __init__(self, ptr: int, nbytes: int, address: int, deleter: int | None):
        super().__init__(ptr, nbytes, "cpu")
        if deleter:
            weakref.finalize(self, _Deleter(deleter), address)

    def array(self, dtype: DType, shape: Shape, strides: Shape, offset: int) -> np.ndarray:
        if not self.nbytes:
            return np.empty(shape, dtype.np)
        block = _Bytes(self, (ctypes.c_char * self.nbytes).from_address(self.ptr))
        steps = tuple(st * dtype.itemsize for st in strides)
        return np.ndarray(shape, dtype.np, block, offset, steps)  # type: ignore[call-overload,no-any-return]


class _Bytes(np.ndarray):
    """The bytes of a borrowed block; keeps the block alive."""

    _storage: Any

    def __new__(cls, storage: Storage, buffer: Any) -> _Bytes:
        made = np.frombuffer(buffer, np.uint8).view(cls)
        made._storage = storage
        return made


def from_dlpack(x: Any, device: Any = None, copy: bool | None = None) -> Any:
    """A tensor over the memory of another library's array, without a copy where that is possible.

    x: anything with `__dlpack__` and `__dlpack_device__` (NumPy, PyTorch, JAX, CuPy, ...). device: where the result
    shall be; a copy is made when that is elsewhere. copy: True for a copy always, False for an error where
    one is needed. Returns: a tensor; changes are seen by both sides when nothing was copied.
    Raises: ArgumentTypeError without the protocol, CopyError, DtypeError, DeviceError. Memory that its owner
    declares read-only is copied.
    Source: Python array API standard 2024.12, `from_dlpack`.
    """
    if not hasattr(x, "__dlpack__") or not hasattr(x, "__dlpack_device__"):
        raise ArgumentTypeError(
            "from_dlpack", f"{type(x).__name__} has no __dlpack__", "pass an array of another library"
        )
    home = None if device is None else normalize_device(device)
    if isinstance(x, EagerTensor):
        if home in (None, x.device):
            return x.detach().clone() if copy else x.detach()
        if copy is False:
            raise CopyError(
                "from_dlpack", f"a tensor on {x.device} is elsewhere than {home}", "leave copy out"
            )
        return x.detach().to(home)
    kind = int(x.__dlpack_device__()[0])
    if kind != CPU:
        raise DeviceError(
            "from_dlpack", f"the array is on a device of DLPack type {kind}", "copy it to the CPU first"
        )
    try:
        capsule = x.__dlpack__(max_version=(1, 0))
    except TypeError:  # a producer from before version 1.0
        capsule = x.__dlpack__()
    made: Any
    made, read_only = _adopt(capsule)
    if read_only or copy:
        if copy is False:
            raise CopyError("from_dlpack", "the array is read-only", "leave copy out")
        made = made.clone()
    if home in (None, "cpu"):
        return made
    if copy is False:
        raise CopyError("from_dlpack", f"the array is on the CPU, not on {home}", "leave copy out")
    return made.to(home)


def _adopt(capsule: Any) -> tuple[EagerTensor, bool]:
    """The tensor of a capsule, and whether its memory is read-only."""
    kind = next((k for k, (name, _) in _NAMES.items() if _is_valid(capsule, name)), None)
    if kind is None:
        raise ArgumentTypeError("from_dlpack", "the capsule is used or not DLPack's", "export it again")
    name, used = _NAMES[kind]
    address = _pointer(capsule, name)
    managed = kind.from_address(address)  # type: ignore[attr-defined]
    t = managed.tensor
    wanted = (t.dtype.code, t.dtype.bits)
    dtype = next((d for d in DTYPES.values() if _code(d) == wanted and t.dtype.lanes == 1), None)
    if dtype is None:
        raise DtypeError(
            "from_dlpack", f"DLPack type code {wanted[0]} of {wanted[1]} bits is not a dtype of duograd",
            f"convert to one of {', '.join(DTYPES)}",
        )  # fmt: skip
    shape = tuple(t.shape[k] for k in range(t.ndim))
    lay = (
        layout(dtype, shape)
        if not t.strides
        else layout(dtype, shape, tuple(t.strides[k] for k in range(t.ndim)))
    )
    reach = [(n - 1) * st for n, st in zip(shape, lay.strides)]
    low = sum(r for r in reach if r < 0) if lay.type.size else 0
    count = 1 + sum(map(abs, reach)) if lay.type.size else 0
    start = (t.data or 0) + t.byte_offset + low * dtype.itemsize
    _rename(capsule, used)
    storage = BorrowedStorage(start, count * dtype.itemsize, address, managed.deleter)
    read_only = kind is _Versioned and bool(managed.flags & _READ_ONLY)
    return EagerTensor(lay, storage, -low * dtype.itemsize), read_only
