"""Writing a model: whole or not at all, with large weights streamed to a file beside it."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
import onnx

from ...core.errors import OnnxError

#: weights above this go to a file beside the model, unless `external_data` says otherwise
EXTERNAL_FROM = 3 << 29
#: one protobuf message may not be larger
MAX_BYTES = 2**31 - 1
#: smaller tensors stay in the model; larger ones begin at multiples of a page, so that they can be mapped
_SMALL, _PAGE, _CHUNK = 1 << 10, 1 << 12, 1 << 24


def is_external(total: int, external_data: bool | None, path: Any) -> bool:
    """Whether weights of `total` bytes go beside the model. Raises OnnxError when they can go nowhere."""
    wanted = total > EXTERNAL_FROM if external_data is None else external_data
    if wanted and path is None and (external_data or total > MAX_BYTES - 2**20):
        raise OnnxError(
            "onnx.export", f"the parameters take {total / 2**30:.2f} GiB, and there is no file to put them beside",
            "pass a path", "",
        )  # fmt: skip
    if not wanted and total > MAX_BYTES - 2**20:
        raise OnnxError(
            "onnx.export", f"the parameters take {total / 2**30:.2f} GiB, one ONNX file holds less than 2 GiB",
            "leave external_data at None, so that they go to a file beside it", "",
        )  # fmt: skip
    return wanted and path is not None


def check_folder(path: str) -> None:
    """Refuse a file that cannot be written, before any work. Raises: OnnxError."""
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise OnnxError("onnx.export", f"there is no folder {folder}", "make it first")
    if os.path.isdir(path):
        raise OnnxError("onnx.export", f"{path} is a folder", "pass the path of a file")


def placeholder(array: np.ndarray, name: str, code: int) -> onnx.TensorProto:
    """A tensor whose numbers lie elsewhere."""
    return onnx.TensorProto(
        name=name, data_type=code, dims=array.shape, data_location=onnx.TensorProto.EXTERNAL
    )


def is_small(array: np.ndarray) -> bool:
    """Whether an array stays in the model when others go beside it."""
    return array.nbytes < _SMALL


def write_model(
    path: str, model: onnx.ModelProto, external: list[tuple[onnx.TensorProto, np.ndarray]]
) -> None:
    """Write a model and the numbers of its external tensors.

    The data file has its check sum in its name, so that the old model keeps its own until the new one is in place.
    """
    before = _data_files(path)
    if not external:
        write_file(path, lambda f: f.write(model.SerializeToString(deterministic=True)))
        for name in before:
            _remove(os.path.join(os.path.dirname(path), name))
        return
    temporary = f"{path}.{os.getpid()}.data.tmp"
    try:
        with open(temporary, "wb") as f:
            total = _stream(f, external)
            f.flush()
            os.fsync(f.fileno())
        data = f"{path}.{total:08x}.data"
        for tensor, _ in external:
            entry = tensor.external_data.add()
            entry.key, entry.value = "location", os.path.basename(data)
        os.replace(temporary, data)
    except BaseException:
        _remove(temporary)
        raise
    try:
        write_file(path, lambda f: f.write(model.SerializeToString(deterministic=True)))
    except BaseException:
        if os.path.basename(data) not in before:
            _remove(data)
        raise
    for name in before - {os.path.basename(data)}:
        _remove(os.path.join(os.path.dirname(path), name))


def _stream(f: BinaryIO, external: list[tuple[onnx.TensorProto, np.ndarray]]) -> int:
    """Write the arrays one after the other, by parts; returns their check sum."""
    total = place = 0
    for tensor, array in external:
        gap = -place % _PAGE
        f.write(bytes(gap))
        place += gap
        flat = array.reshape(-1) if array.flags.c_contiguous else array.flat
        step = max(1, _CHUNK // array.itemsize)
        for start in range(0, array.size, step):
            part = np.ascontiguousarray(flat[start : start + step]).view(np.uint8)
            total = zlib.crc32(part.data, total)
            f.write(part.data)
        del tensor.external_data[:]
        for key, value in (("offset", place), ("length", array.nbytes)):
            entry = tensor.external_data.add()
            entry.key, entry.value = key, str(value)
        place += array.nbytes
    return total


def _data_files(path: str) -> set[str]:
    """The data files that a model at the path uses, if we wrote it."""
    try:
        old = onnx.load(path, load_external_data=False)
    except Exception:  # none there, or another file
        return set()
    pattern = re.compile(re.escape(os.path.basename(path)) + r"\.[0-9a-f]{8}\.data")
    named = {e.value for t in old.graph.initializer for e in t.external_data if e.key == "location"}
    return {n for n in named if pattern.fullmatch(n)}


def write_file(path: str, write: Callable[[BinaryIO], Any]) -> None:
    """Write a file whole or not at all: into a neighbour first, then renamed over the target."""
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as f:
            write(f)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    except BaseException:
        _remove(temporary)
        raise


def _remove(path: str) -> None:
    if os.path.exists(path):
        os.unlink(path)
