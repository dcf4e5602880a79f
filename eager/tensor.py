"""The eager face of a tensor: strides over a storage, a version, and its place on the tape."""

from __future__ import annotations

from operator import index
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from ..core import dispatch
from ..core.errors import ArgumentTypeError, user_place
from ..core.storage import Storage, writes
from ..core.types import DTYPES, DType, Shape, TensorType, as_dtype, contiguous_strides
from ..core.value import NO, YES, Tensor, Truth


class Layout:
    """Dtype, shape, strides (elements) and device of a tensor. One object per layout: compared by identity."""

    __slots__ = ("contiguous", "device", "dtype", "shape", "strides", "type")

    def __init__(self, dtype: DType, shape: Shape, strides: Shape, device: str):
        self.dtype, self.shape, self.strides, self.device = dtype, shape, strides, device
        self.type = TensorType(dtype, shape)
        expected, self.contiguous = 1, True
        for n, st in zip(reversed(shape), reversed(strides)):
            if n != 1 and st != expected:
                self.contiguous = False
                break
            expected *= n


_layouts: dict[Any, Layout] = {}


def layout(dtype: DType, shape: Shape, strides: Shape | None = None, device: str = "cpu") -> Layout:
    """The layout object of these facts; contiguous when no strides are given."""
    key = (dtype, shape, strides, device)
    found = _layouts.get(key)
    if found is None:
        if len(_layouts) > 50_000:
            _layouts.clear()
        shape = (*map(index, shape),)  # plain ints, whatever stands for them in a trace
        if strides is None:
            found = layout(dtype, shape, contiguous_strides(shape), device)
        else:
            strides = (*map(index, strides),)
            found = Layout(dtype, shape, strides, device)
        _layouts[dtype, shape, strides, device] = found
    return found


class EagerTensor(Tensor):
    """A tensor with memory. `_offset` is in bytes from the start of the storage."""

    __slots__ = ("_layout", "_offset", "_storage")

    def __init__(self, lay: Layout, storage: Storage, offset: int = 0):
        self._layout, self._storage, self._offset = lay, storage, offset
        self._begin()

    # Facts come from the layout.
    @property
    def shape(self) -> Shape:  # type: ignore[override]
        return self._layout.shape

    @property
    def dtype(self) -> DType:  # type: ignore[override]
        return self._layout.dtype

    @property
    def type(self) -> TensorType:  # type: ignore[override]
        return self._layout.type

    @property
    def device(self) -> str:  # type: ignore[override]
        return self._layout.device

    @property
    def strides(self) -> Shape:  # type: ignore[override]
        """Strides in elements."""
        return self._layout.strides

    @property
    def ptr(self) -> int:
        """The address of the first element."""
        return self._storage.ptr + self._offset

    @property
    def is_contiguous(self) -> Truth:
        return YES if self._layout.contiguous else NO

    def _get_version(self) -> int:
        return self._storage.version

    def _changed_place(self) -> Any:
        return self._storage.changed

    def _bump(self) -> None:
        self._storage.version += 1
        writes.last = object()
        self._storage.changed = user_place(2)

    def _alias(self) -> EagerTensor:
        return fresh(self._layout, self._storage, self._offset)

    def detach(self) -> EagerTensor:
        """The same memory without history: changes are seen by both, gradients do not flow."""
        face = dispatch.state.executor.face(self)
        return face._alias()  # type: ignore[return-value]

    # -- values -----------------------------------------------------------------------------

    def _array(self) -> Any:
        lay = self._layout
        return self._storage.array(lay.dtype, lay.shape, lay.strides, self._offset)

    def numpy(self) -> np.ndarray:
        """The values as a NumPy array that shares memory (on the CPU; `.to("cpu")` first from elsewhere).

        Raises: AutogradError when a gradient is required (use detach()).
        """
        from ..core.errors import AutogradError, DeviceError

        if self._requires_grad and dispatch.state.grad:
            raise AutogradError(
                "numpy", f"{self.type} requires a gradient, which NumPy would lose", "use x.detach().numpy()"
            )
        if self.device != "cpu":
            raise DeviceError(
                "numpy", f"the tensor is on {self.device}", 'copy it first: x.to("cpu").numpy()'
            )
        return dispatch.state.executor.read(self)  # type: ignore[no-any-return]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = dispatch.state.executor.read(self)
        return np.array(array, dtype=dtype, copy=copy)

    def __dlpack__(
        self, *, stream: Any = None, max_version: Any = None, dl_device: Any = None, copy: bool | None = None
    ) -> Any:
        """A DLPack capsule over this memory. Raises: BufferError when a gradient is required (use detach())."""
        from .dlpack import export

        if self._requires_grad and dispatch.state.grad:
            raise BufferError(
                f"[dlpack] {self.type} requires a gradient, which would be lost; use x.detach()"
            )
        return export(self, stream, max_version, dl_device, copy)

    def __dlpack_device__(self) -> tuple[int, int]:
        """DLPack's device type (1: CPU, 2: CUDA) and number."""
        from .dlpack import device_of

        return device_of(self)

    def __repr__(self) -> str:
        face: Any = dispatch.state.executor.face(self)
        return self._text() if isinstance(face, EagerTensor) else face._text()  # type: ignore[no-any-return]

    def _text(self) -> str:
        lay = self._layout
        array = self._storage.to_host(lay.dtype, lay.shape, lay.strides, self._offset)
        body = np.array2string(array, separator=", ", prefix="tensor(", threshold=200, precision=5)
        extra = "" if self.dtype.name in ("float32", "int64", "bool") else f", dtype={self.dtype}"
        extra += "" if self.device == "cpu" else f", device={self.device!r}"
        if self._node is not None:
            extra += f", grad_fn={self._node!r}"
        elif self._requires_grad:
            extra += ", requires_grad=True"
        return f"tensor({body}{extra})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        face: Any = dispatch.state.executor.face(self)
        if not isinstance(face, EagerTensor):
            memo[id(self)] = face.__deepcopy__(memo)
            return memo[id(self)]
        new = self.detach().clone()
        new = self._like(new)  # type: ignore[arg-type]
        memo[id(self)] = new
        return new

    def _like(self, new: EagerTensor) -> EagerTensor:
        """`new`'s memory in a leaf of this tensor's class and gradient setting."""
        cls = type(self)
        out = cls.__new__(cls)
        EagerTensor.__init__(out, new._layout, new._storage, new._offset)
        out._requires_grad = self._requires_grad
        return out

    def __reduce__(self) -> Any:
        face: Any = dispatch.state.executor.face(self)
        if not isinstance(face, EagerTensor):
            return face.__reduce_ex__(2)
        array = self.detach().to("cpu")._array().copy()
        return _rebuild, (type(self), array, self._requires_grad)


def fresh(lay: Layout, storage: Storage, offset: int = 0) -> EagerTensor:
    """`EagerTensor(lay, storage, offset)` without a call through C: every result of every op passes here."""
    t = _new(EagerTensor)
    t._layout = lay
    t._storage = storage
    t._offset = offset
    # As `_begin`.
    t._requires_grad = False
    t._node = None
    t._index = 0
    t._grad = None
    t._hooks = None
    t._base = None
    t._view = None
    t._seen = 0
    return t


_new = EagerTensor.__new__


def _rebuild(cls: Any, array: np.ndarray, requires_grad: bool) -> EagerTensor:
    new = from_numpy(array)
    out: EagerTensor = cls.__new__(cls)
    EagerTensor.__init__(out, new._layout, new._storage, 0)
    out._requires_grad = requires_grad
    return out


def from_numpy(array: np.ndarray, device: str = "cpu") -> EagerTensor:
    """A tensor with a copy of a NumPy array on `device`."""
    from ..core.backend import get_backend

    dtype = as_dtype(array.dtype, "tensor")
    lay = layout(dtype, array.shape, None, device)
    storage = get_backend(device).empty(max(1, array.nbytes))
    storage.fill_from(np.ascontiguousarray(array), dtype)
    return EagerTensor(lay, storage)


#: by their types of NumPy, in this machine's order of bytes
KNOWN = {np.dtype(dtype.np): dtype for dtype in DTYPES.values()}


#: storages in use of arrays' memory, by address, whether it is read-only, and layout
_foreign: WeakValueDictionary[tuple[int, bool, Layout], Storage] = WeakValueDictionary()


class ForeignStorage(Storage):
    """Memory owned by a NumPy array that tensors look into (`dg.asarray(array, copy=False)`)."""

    __slots__ = ("fixed", "owner")

    def __init__(self, owner: np.ndarray):
        super().__init__(owner.__array_interface__["data"][0], owner.nbytes, "cpu")
        self.owner, self.fixed = owner, not owner.flags.writeable

    def array(self, dtype: DType, shape: Shape, strides: Shape, offset: int) -> np.ndarray:
        start = self.owner if self.owner.dtype == dtype.np else self.owner.view(dtype.np)
        step = tuple(s * dtype.itemsize for s in strides)
        if offset == 0:
            return np.lib.stride_tricks.as_strided(start, shape, step)
        flat = np.lib.stride_tricks.as_strided(start, (1 + offset // dtype.itemsize,), (dtype.itemsize,))
        return np.lib.stride_tricks.as_strided(flat[offset // dtype.itemsize :], shape, step)


def share_numpy(array: np.ndarray) -> EagerTensor:
    """A tensor over a NumPy array's own memory. Raises ArgumentTypeError when strides are not whole elements."""
    dtype = KNOWN.get(array.dtype) or as_dtype(array.dtype, "asarray")
    if any(st % dtype.itemsize for st in array.strides) or not array.dtype.isnative:
        raise ArgumentTypeError(
            "asarray", "the array's strides are not whole elements", "copy it: dg.tensor(array)"
        )
    strides = tuple(st // dtype.itemsize for st in array.strides)
    lay, storage = layout(dtype, array.shape, strides), ForeignStorage(array)
    # Tensors over the same elements have one storage, as views have: a change of one is known for all.
    return EagerTensor(lay, _foreign.setdefault((storage.ptr, storage.fixed, lay), storage))
