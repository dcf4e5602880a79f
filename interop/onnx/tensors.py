"""Tensors of a model file as arrays: inside it, sparse, or in files beside it, which are mapped into memory."""

from __future__ import annotations

import math
import os
import stat

import numpy as np
import onnx
from onnx import numpy_helper

from ...core.errors import OnnxError
from .coded import NARROW, texts

_EXTERNAL = onnx.TensorProto.EXTERNAL


class Files:
    """Data files beside a model, each mapped once. folder: of the model, None when it came as bytes.

    A map is private: what training writes into a weight stays in memory, the file is never changed.
    """

    def __init__(self, folder: str | None):
        self.folder = None if folder is None else os.path.realpath(folder)
        self._maps: dict[str, np.ndarray] = {}

    def read(self, tensor: onnx.TensorProto) -> np.ndarray:
        """A tensor's numbers. Raises OnnxError when they lie outside the folder or the file, or do not fit."""
        given = {e.key: e.value for e in tensor.external_data}
        where = f"the data of {tensor.name!r}"
        dtype, bits = _storage(tensor.data_type, where)
        count = math.prod(tensor.dims)
        need = -(-count * bits // 8)
        try:
            offset, length = int(given.get("offset", 0)), int(given.get("length", need))
        except ValueError:
            raise _damaged(f"{where} has an offset or length that is no number") from None
        whole = self._map(given.get("location", ""), where)
        if min(offset, length, *tensor.dims, 0) < 0 or length != need or offset + need > whole.size:
            raise _damaged(f"{where}, {need} bytes from {offset} on ({length} said), does not fit its file")
        part = whole[offset : offset + need]
        if bits < 8:
            return _unpacked(part, bits, count).view(dtype).reshape(tuple(tensor.dims))
        if part.ctypes.data % dtype.itemsize:
            part = part.copy()
        return part.view(dtype).reshape(tuple(tensor.dims))

    def _map(self, location: str, where: str) -> np.ndarray:
        if self.folder is None:
            raise OnnxError(
                "onnx.load", f"{where} lies in the file {location!r}, but the model came as bytes",
                "load the model by its path",
            )  # fmt: skip
        found = self._maps.get(location)
        if found is not None:
            return found
        parts = location.replace("\\", "/").split("/")
        path = os.path.realpath(os.path.join(self.folder, *parts))
        inside = os.path.commonpath([path, self.folder]) == self.folder if location else False
        if not inside or os.path.isabs(location) or ".." in parts or "\0" in location:
            raise OnnxError(
                "onnx.load", f"{where} lies in {location!r}, outside the model's folder",
                "keep the data files beside the model",
            )  # fmt: skip
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise _damaged(f"{where} lies in {location!r}, which is no file")
            made = np.memmap(path, np.uint8, "c") if os.path.getsize(path) else np.zeros(0, np.uint8)
        except OSError as e:
            raise OnnxError(
                "onnx.load", f"the weights beside the model cannot be read: {location}: {e.strerror}",
                "keep the data files in its folder",
            ) from None  # fmt: skip
        self._maps[location] = np.asarray(made)
        return self._maps[location]


def _damaged(what: str) -> OnnxError:
    return OnnxError("onnx.load", what, "export the model again")


def _storage(code: int, where: str) -> tuple[np.dtype, int]:
    """The NumPy dtype of an element type and its bits in a file."""
    try:
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(code))
    except (KeyError, ValueError):
        dtype = np.dtype(object)
    if dtype.kind in "OSU":
        raise _damaged(f"{where} has the element type {code}, which has no bytes")
    narrow = NARROW.get(dtype.name)
    return dtype, narrow.bits if narrow is not None and narrow.bits < 6 else 8 * dtype.itemsize


def _unpacked(packed: np.ndarray, bits: int, count: int) -> np.ndarray:
    """Codes of 2 or 4 bits, the lowest first, as bytes."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    codes = (packed[:, None] >> shifts) & np.uint8((1 << bits) - 1)
    return codes.reshape(-1)[:count].copy()


def array_of(tensor: onnx.TensorProto, files: Files | None = None) -> np.ndarray:
    """A tensor of the file as an array. Raises OnnxError."""
    if tensor.data_location == _EXTERNAL:
        return (files or Files(None)).read(tensor)
    try:
        array = np.array(numpy_helper.to_array(tensor), order="C")
    except Exception as e:  # whatever wrong sizes and codes make of it
        raise _damaged(f"the tensor {tensor.name!r} cannot be read: {e}") from None
    return texts(array) if array.dtype.kind in "OSU" else array


def frozen(tensor: onnx.TensorProto) -> np.ndarray:
    """A tensor of the file as an array that nobody can change."""
    array = array_of(tensor)
    array.setflags(write=False)
    return array


def dense(sparse: onnx.SparseTensorProto, files: Files | None = None) -> np.ndarray:
    """A sparse tensor as a full array. Raises OnnxError for places outside it."""
    values, places = array_of(sparse.values, files), array_of(sparse.indices, files)
    shape = tuple(sparse.dims)
    if min(shape, default=0) < 0 or math.prod(shape) > 2**34:
        raise _damaged(f"the sparse tensor {sparse.values.name!r} has the sizes {list(shape)}")
    out = np.zeros(math.prod(shape), values.dtype)
    try:
        flat = places if places.ndim < 2 else np.ravel_multi_index(tuple(places.T), shape)
        if flat.size and (flat.min() < 0 or flat.max() >= out.size):
            raise ValueError("a place is outside")
        if np.unique(flat).size < flat.size:
            raise ValueError("a place is given twice")
        out[flat] = values
    except (IndexError, ValueError) as e:
        raise _damaged(f"the sparse tensor {sparse.values.name!r} does not fit its sizes: {e}") from None
    return out.reshape(shape)
