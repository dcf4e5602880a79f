"""Readers of the files that well-known image sets come in: IDX (MNIST and its kin) and CIFAR-10's binary files."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import DataFileError

__all__ = ["read_cifar10", "read_idx"]

#: the third byte of an IDX file: the kind of its numbers, which stand there with their most significant byte first
_KINDS = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_PIXELS = 3 * 32 * 32


def _content(op: str, path: Any) -> bytes:
    """All of a file, unpacked where it is gzip's. Raises: DataFileError."""
    try:
        content = Path(path).read_bytes()
        return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except (OSError, EOFError, zlib.error) as error:
        raise DataFileError(
            op, f"{path} cannot be read: {error}", "check the path and the download"
        ) from None


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """The array in an IDX file, such as `train-images-idx3-ubyte`, plain or gzipped.

    Returns: an array of the file's shape and kind (uint8[N, 28, 28] for MNIST's images, uint8[N] for its labels), in
    this machine's byte order. Raises: DataFileError for a file that is missing, of another format, or cut.
    Source: Y. LeCun, C. Cortes, C. Burges, the MNIST database, "the IDX file format".
    Example: `x = dg.data.read_idx("train-images-idx3-ubyte.gz")[:, None] / np.float32(255)`.
    """
    content = _content("read_idx", path)
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _KINDS:
        raise DataFileError(
            "read_idx", f"{path} is no IDX file: it begins with {content[:4].hex(' ') or 'nothing'}",
            "an IDX file begins with 00 00, a kind from 08 to 0e, and the number of axes",
        )  # fmt: skip
    kind, axes = np.dtype(_KINDS[content[2]]), content[3]
    start = 4 + 4 * axes
    if len(content) < start:
        raise DataFileError("read_idx", f"{path} ends in its header", "download it again")
    shape = tuple(int(n) for n in np.frombuffer(content, ">u4", axes, 4))
    expected = start + math.prod(shape) * kind.itemsize
    if len(content) != expected:
        raise DataFileError(
            "read_idx", f"{path} has {len(content)} bytes, its shape {list(shape)} takes {expected}",
            "download it again",
        )  # fmt: skip
    return np.frombuffer(content, kind, offset=start).reshape(shape).astype(kind.newbyteorder("="))


def read_cifar10(paths: Any) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8[N, 3, 32, 32] and labels int64[N] from files of CIFAR-10's binary version, plain or gzipped.

    paths: a file, a list of files, or the folder with `data_batch_1.bin` to `data_batch_5.bin`, which are read in
    this order. Raises: DataFileError for a file that is missing, cut, or of another format.
    Source: A. Krizhevsky, Learning multiple layers of features from tiny images (2009), "binary version".
    Example: `x, y = dg.data.read_cifar10("cifar-10-batches-bin")`.
    """
    if isinstance(paths, (str, os.PathLike)):
        folder = Path(paths)
        paths = [folder / f"data_batch_{k}.bin" for k in range(1, 6)] if folder.is_dir() else [folder]
    elif not isinstance(paths, Iterable):
        raise DataFileError(
            "read_cifar10", f"{paths!r} is no path", "pass a file, a list of files, or a folder"
        )
    images, labels = [], []
    for path in paths:
        content = np.frombuffer(_content("read_cifar10", path), np.uint8)
        if not len(content) or len(content) % (1 + _PIXELS):
            raise DataFileError(
                "read_cifar10", f"{path} has {len(content)} bytes, no multiple of {1 + _PIXELS}",
                "use the binary version of CIFAR-10; the Python version is pickled, which can run any code",
            )  # fmt: skip
        rows = content.reshape(-1, 1 + _PIXELS)
        if rows[:, 0].max() > 9:
            raise DataFileError(
                "read_cifar10", f"{path} has a label {rows[:, 0].max()}", "labels of CIFAR-10 are 0 to 9"
            )
        labels.append(rows[:, 0].astype(np.int64))
        images.append(rows[:, 1:].reshape(-1, 3, 32, 32))
    if not images:
        raise DataFileError("read_cifar10", "got no files", "pass a file, a list of files, or a folder")
    return np.concatenate(images), np.concatenate(labels)
