"""Indexing with tensors, and the meaning of `x[...]` and `x[...] = v`."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import dispatch
from .. import types as T
from ..errors import DtypeError, IndexingError
from ..op import Ints, composite, pointwise, primitive
from ..scalar import cast, s
from ..types import TensorType, normalize_axis
from ..value import Tensor
from .creation import arange
from .shape import basic_index, broadcast_to, expand_dims, slice_


@primitive(complex="linear", onnx=lambda o, x, index, *, axis: o.Gather(x, index, axis=axis))
def take(x, index, *, axis=0):
    """Slices of x along an axis, picked by an integer tensor.

    x: any[..., n, ...], index: int[...] with values from -n to n - 1. Returns: x's shape with the axis replaced
    by index's shape. Raises: IndexingError for an index outside in eager mode; a graph gives 0 (floats: NaN)
    there. Source: ONNX Gather.
    """
    return np.take(x, index, axis=axis)


@take.normalize
def _(inputs, axis):
    return (normalize_axis("take", axis, len(inputs[0].shape), inputs[0].type),)


@take.type
def _(x, index, *, axis):
    if not index.dtype.is_integer:
        raise DtypeError("take", f"index: {index} is not integer", "convert it to int64")
    return TensorType(x.dtype, (*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]))


@take.values
def _(read, x, index, *, axis):
    if index.size:
        values, n = read(index), x.shape[axis]
        low, high = int(values.min()), int(values.max())
        if low < -n or high >= n:
            bad = low if low < -n else high
            raise IndexingError(
                "take", f"index {bad} is outside axis {axis} of x: {x.type}", f"use {-n} to {n - 1}"
            )


@take.grad
def x(g, index, x_type, axis):
    return take_x_grad(g, index, size=x_type.shape[axis], axis=axis)


take.error_sample((2, 3), Ints((2,), 4, 5), match="outside axis 0")
take.sample((5, 3), Ints((4,), 0, 5)).sample((2, 5), Ints((2, 2), -5, 5), axis=1).sample((4,), Ints((), 0, 4))


@primitive(internal=True, onnx=lambda o, dy, index, *, size, axis: o.scatter_add(dy, index, size, axis))
def take_x_grad(dy, index, *, size, axis=0):
    """The gradient of take: dy added up into zeros at the picked slices, in the order of the index."""
    lead, rest = dy.shape[:axis], dy.shape[axis + index.ndim :]
    out = np.zeros((*lead, size, *rest), dy.dtype)
    flat = dy.reshape(*lead, -1, *rest)
    for k, i in enumerate(np.ravel(index)):
        out[(slice(None),) * axis + (int(i),)] += flat[(slice(None),) * axis + (k,)]
    return out


@take_x_grad.type
def _(dy, index, *, size, axis):
    return TensorType(dy.dtype, (*dy.shape[:axis], size, *dy.shape[axis + index.ndim :]))


@take_x_grad.grad
def dy(g, index, axis):
    return take(g, index, axis=axis)


take_x_grad.sample((4, 3), Ints((4,), 0, 5), size=5).sample((2, 3), Ints((3,), 0, 4), size=4, axis=1)


@pointwise(internal=True, no_gradient="integer input")
def matches(x, position, *, dtype):
    """1 where x equals the position, else 0."""
    return cast(s.eq(x, position), dtype)


def _onnx_one_hot(o, x, *, num_classes, dtype):
    return o.one_hot(x, num_classes, dtype)


@composite(onnx=_onnx_one_hot)
def one_hot(x, *, num_classes, dtype=T.float32):
    """Rows of zeros with a one at x. x: int[...]. Returns: dtype[..., num_classes]. Source: ONNX OneHot."""
    return matches(
        expand_dims(x, axis=-1), arange(num_classes, device=x.device), dtype=T.as_dtype(dtype, "one_hot")
    )


one_hot.sample(Ints((3, 2), 0, 4), num_classes=4)


def _tensor_index(x: Tensor, index: Any) -> Any:
    """An integer tensor index at the first place, or None when the index is basic."""
    if isinstance(index, (list, np.ndarray)):
        index = dispatch.state.executor.constant(np.asarray(index), x.device)
    if isinstance(index, Tensor):
        if not index.dtype.is_integer:
            raise IndexingError(
                "getitem", f"an index of type {index.type} is not supported",
                "use integers, slices or an integer tensor; for a mask, dg.where(mask, x, other)",
            )  # fmt: skip
        return index
    return None


def _hold_tensors(index: Any) -> bool:
    return isinstance(index, tuple) and any(isinstance(e, (Tensor, list, np.ndarray)) for e in index)


def getitem(x: Tensor, index: Any) -> Tensor:
    """`x[index]`: a view for integers, slices, None and `...`; a copy for one integer tensor or list."""
    picked = _tensor_index(x, index)
    if picked is not None:
        return take(x, picked, axis=0)  # type: ignore[no-any-return]
    if _hold_tensors(index):
        raise IndexingError(
            "getitem",
            "an index of several entries holds a tensor",
            "pick in two steps: dg.take(x, index, axis=k)",
        )
    return slice_(x, index=basic_index("getitem", x.shape, index))  # type: ignore[no-any-return]


def setitem(x: Tensor, index: Any, value: Any) -> None:
    """`x[index] = value` for a basic index: in place, recorded on the tape."""
    if isinstance(index, (Tensor, list, np.ndarray)) or _hold_tensors(index):
        raise IndexingError(
            "setitem", "assigning through a tensor index is not supported", "use dg.where(mask, value, x)"
        )
    view = getitem(x, index)
    if isinstance(value, (np.ndarray, np.generic)):
        value = dispatch.state.executor.constant(np.asarray(value), x.device)
    if not isinstance(value, Tensor):
        from .creation import full

        value = full(view.shape, value, x.dtype, x.device)
    if value.shape != view.shape:
        value = broadcast_to(value, shape=view.shape)
    face = dispatch.state.executor.face
    dispatch.state.executor.write(face(view), face(value.to(x.dtype)))
