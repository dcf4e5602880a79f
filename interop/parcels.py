"""Memory without a name that two processes map, and how data sets and batches are put into it.

A segment is a file in memory that nobody can open but who is given its descriptor, so whatever way processes end,
nothing is left behind, and no limit of /dev/shm applies. A parcel is a pickle with its arrays beside it: tensors and
arrays are copied into the segment as they are, never through the pickle.
"""

from __future__ import annotations

import io
import mmap
import os
import pickle
import tempfile
from collections.abc import Callable
from multiprocessing import reduction
from typing import Any

import numpy as np

from ..core import dispatch
from ..core.errors import OutOfMemoryError
from ..core.types import DTYPES
from ..core.value import Tensor

_host: Any = dispatch._State.executor
_EAGER = type(_host.share(np.zeros(1, np.uint8)))
_ALIGN = 64


class Segment:
    """Memory that can be given to a process as it starts; it grows where it is written."""

    def __init__(self) -> None:
        self._open(_anonymous_file())

    def __reduce__(self) -> Any:
        # Only while a process is started: its number there is made by multiprocessing.
        return _attached, (reduction.DupFd(self.fd),)  # type: ignore[attr-defined]

    def _open(self, fd: int) -> None:
        self.fd = fd
        self._map: mmap.mmap | None = None

    def room(self, size: int) -> memoryview:
        """At least this many bytes to write to. Raises: OutOfMemoryError."""
        if os.fstat(self.fd).st_size < size:
            size += size // 8  # the next batch may be a little larger
            try:  # here and not as a bus error when it is written
                os.posix_fallocate(self.fd, 0, size)
            except AttributeError:
                os.ftruncate(self.fd, size)
            except OSError as e:
                raise OutOfMemoryError(
                    "DataLoader", f"no shared memory for a batch of {size} bytes: {e.strerror}",
                    "use smaller batches, fewer workers, or a smaller prefetch_factor",
                ) from None  # fmt: skip
        return self.view(size)

    def view(self, size: int) -> memoryview:
        """The first bytes, at least this many."""
        if self._map is None or len(self._map) < size:
            whole = os.fstat(self.fd).st_size
            self._map = mmap.mmap(self.fd, max(whole, size))  # an old one goes with the last view of it
        return memoryview(self._map)

    def own(self, size: int) -> memoryview:
        """The first bytes, which this process may write to unseen by others; what it does not write is shared."""
        return memoryview(mmap.mmap(self.fd, max(size, 1), access=mmap.ACCESS_COPY))

    def close(self) -> None:
        """Give the memory back once nothing here or elsewhere uses it."""
        self._map = None
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _anonymous_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("duograd", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _attached(given: Any) -> Segment:
    made = Segment.__new__(Segment)
    made._open(given.detach())
    return made


class _Pickler(pickle.Pickler):
    def reducer_override(self, x: Any) -> Any:
        if type(x) is not _EAGER:
            return NotImplemented
        array = np.ascontiguousarray(_host.read(_host.face(x).detach().to("cpu")))
        # Bytes, for not every dtype has a buffer of its own.
        flat = pickle.PickleBuffer(array.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
        return _tensor, (flat, array.dtype.name, x.shape, x.requires_grad)


def _tensor(flat: Any, dtype: str, shape: tuple[int, ...], requires_grad: bool) -> Tensor:
    array = np.asarray(flat).view(DTYPES[dtype].np).reshape(shape)
    made = _host.share(array) if array.flags.writeable else _host.constant(array, "cpu")
    return made.requires_grad_() if requires_grad else made  # type: ignore[no-any-return]


def pack(x: Any, segment: Segment) -> tuple[int, int]:
    """Write x into a segment. Returns: where its pickle begins, and its length."""
    buffers: list[pickle.PickleBuffer] = []
    body = io.BytesIO()
    _Pickler(body, 5, buffer_callback=buffers.append).dump(x)
    raws, spans, end = [b.raw() for b in buffers], [], 0
    for raw in raws:
        spans.append((end, raw.nbytes))
        end = -(-(end + raw.nbytes) // _ALIGN) * _ALIGN
    tail = pickle.dumps((spans, body.getbuffer().tobytes()), 5)
    view = segment.room(end + len(tail))
    for (start, size), raw in zip(spans, raws):
        view[start : start + size] = raw
    view[end : end + len(tail)] = tail
    return end, len(tail)


def _copied(view: memoryview, start: int, size: int) -> np.ndarray:
    return np.frombuffer(view, np.uint8, size, start).copy() if size else np.empty(0, np.uint8)


def _in_place(view: memoryview, start: int, size: int) -> np.ndarray:
    return np.frombuffer(view, np.uint8, size, start) if size else np.empty(0, np.uint8)


def unpack(segment: Segment, start: int, size: int, shared: bool = False) -> Any:
    """What `pack` wrote, in memory of its own; shared: over the segment's pages until they are written to."""
    view = segment.own(start + size) if shared else segment.view(start + size)
    place: Callable[[memoryview, int, int], np.ndarray] = _in_place if shared else _copied
    spans, body = pickle.loads(view[start : start + size])
    return pickle.loads(body, buffers=[place(view, *span) for span in spans])
