"""Tensors from Python and NumPy data."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core import dispatch
from ..core import types as T
from ..core.backend import normalize_device
from ..core.errors import ArgumentTypeError, CopyError, DtypeError
from ..core.value import Tensor
from .tensor import EagerTensor, share_numpy

#: what Python's own numbers become
_DEFAULTS = {np.dtype(np.float64): T.default_float.np, np.dtype(np.complex128): T.default_complex.np}


def number_array(data: Any, dtype: T.DType | None = None) -> np.ndarray:
    """Python data as an array; lists of Python floats become the default float, not float64."""
    if isinstance(data, Tensor):
        data = np.asarray(data)
    try:
        array = np.asarray(data)
    except ValueError:
        raise ArgumentTypeError("tensor", "rows of unequal length", "make all rows equally long") from None
    if array.dtype == object:
        if isinstance(data, (list, tuple)) and any(isinstance(v, Tensor) for v in data):
            array = np.stack([np.asarray(v) for v in data])
        else:
            raise ArgumentTypeError(
                "tensor", f"{type(data).__name__} is not made of numbers", "pass numbers or arrays"
            )
    if dtype is not None:
        return dtype.array(array, copy=True)
    if array.dtype in _DEFAULTS:
        # Python's numbers are weak beside numbers that have a dtype.
        known = _promoted(data)
        if known is None or not known.has_gradient:
            return array.astype(_DEFAULTS[array.dtype], copy=False)
        return (known.complex if array.dtype.kind == "c" else known).array(array)
    if array.dtype.name not in T.DTYPES:
        raise DtypeError(
            "tensor", f"{array.dtype} is not a dtype of duograd", f"convert to one of {', '.join(T.DTYPES)}"
        )
    return array


def _promoted(data: Any) -> T.DType | None:
    """The common dtype of the arrays, tensors and NumPy numbers among the data; None when all are Python's."""
    if not isinstance(data, (list, tuple)):
        return T.as_dtype(data.dtype, "tensor") if hasattr(data, "dtype") else None
    kinds = [kind for v in data if (kind := _promoted(v)) is not None]
    return T.promote_all(kinds) if kinds else None


def tensor(data: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A new tensor with a copy of `data`.

    data: a number, nested lists, a NumPy array or a tensor. dtype: as the data when left out; Python floats
    become float32. device: "cpu" when left out. Returns: a leaf.
    Raises: ArgumentTypeError for ragged or non-numeric data, DtypeError, DeviceError.
    Example: `dg.tensor([[1.0, 2.0], [3.0, 4.0]]).shape` is `(2, 2)`.
    """
    want, home = None if dtype is None else T.as_dtype(dtype, "tensor"), normalize_device(device or "cpu")
    of_numbers = getattr(dispatch.state.executor, "of_numbers", None)
    out = None if of_numbers is None else of_numbers(data, want, home)
    if out is None:
        out = dispatch.state.executor.constant(number_array(data, want), home)
    return out.requires_grad_() if requires_grad else out


def asarray(data: Any, dtype: Any = None, device: Any = None, copy: bool | None = None) -> Tensor:
    """`data` as a tensor, without a copy where that is possible.

    A tensor is returned as it is; a NumPy array's memory is shared (changes are seen by both) when its dtype
    fits and copy is not True. Raises: CopyError when copy=False and a copy is needed.
    """
    want = None if dtype is None else T.as_dtype(dtype, "asarray")
    home = normalize_device(device or (data.device if isinstance(data, Tensor) else "cpu"))
    if isinstance(data, Tensor):
        out = data if want is None else data.to(want)
        out = out if out.device == home else out.to(home)
        if copy is False and out is not data:
            raise CopyError(
                "asarray",
                f"{data.type} on {data.device} becomes {out.dtype} on {home}: a copy",
                "leave copy out",
            )
        return out.clone() if copy and out is data else out  # type: ignore[attr-defined,no-any-return]
    fits = (
        isinstance(data, np.ndarray)
        and data.dtype.name in T.DTYPES
        and (want is None or want.np == data.dtype)
    )
    if fits and home == "cpu" and not copy and data.flags.writeable:
        out = share_numpy(data)
        note = getattr(dispatch.state.executor, "note_memory", None)
        if note is not None:
            note(data, out)
        return out
    if copy is False:
        raise CopyError("asarray", "cannot share this data's memory", "leave copy out")
    return tensor(data, dtype, device)


def from_numpy(array: np.ndarray) -> Tensor:
    """A tensor that shares a NumPy array's memory."""
    if not isinstance(array, np.ndarray):
        raise ArgumentTypeError(
            "from_numpy", f"takes a NumPy array, got {type(array).__name__}", "use dg.tensor(data)"
        )
    return asarray(array, copy=False) if array.flags.writeable else tensor(array)


def is_tensor(x: Any) -> bool:
    """Whether x is a tensor, eager or symbolic."""
    return isinstance(x, Tensor)


__all__ = ["EagerTensor", "asarray", "from_numpy", "is_tensor", "number_array", "tensor"]
