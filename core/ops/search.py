"""Where elements are: positions of what is not 0, and selection by a mask.

How many there are is read from the tensor (`.item()`), which in graph mode ends a segment of the trace.
"""

# Gradient rules are named after the input they are for, so names repeat here.
from __future__ import annotations

import math

import numpy as np

from .. import dispatch
from .. import types as T
from ..errors import ArgumentError, ArgumentTypeError, DtypeError, IndexingError
from ..numbers import whole
from ..op import Ints, composite, primitive, public
from ..types import TensorType, contiguous_strides
from ..value import Tensor
from . import elementwise as E
from .counted import counted_choice, counted_places, sized
from .creation import zeros_like
from .picking import take, take_elements_placed
from .reduction import max_, min_, sum_
from .shape import as_shape, broadcast_to, expand_dims, reshape, stack


@composite(no_gradient="integer result")
def count_nonzero(x, *, axis=None, keepdims=False):
    """How many elements over axes are not 0. x: any[...]. Returns: int64. NaN counts. Source: NumPy.

    Example: `dg.count_nonzero(dg.tensor([0.0, 2.0, -0.0])).item()` is `1`.
    """
    return sum_(x if x.dtype is T.bool_ else E.not_equal(x, 0), axis=axis, keepdims=keepdims)


count_nonzero.sample((3, 4), grad=False).sample(Ints((3, 4), 0, 2), axis=0).sample(
    Ints((2, 3), 0, 2, "bool"), axis=-1, keepdims=True
)
count_nonzero.sample(Ints((0, 3), 0, 2), axis=0)


def _onnx_places(o, x, *, size):
    flat = o.reshape(x, (-1,))
    if size.__class__ is not int:
        # A size that follows the data is the number of places: `flatnonzero` asks for all.
        return o.reshape(o.NonZero(flat), (-1,))
    if not size:
        return o.full((0,), 0, T.int64)
    n = math.prod(x.shape)
    if n.__class__ is not int:
        row = o.Concat(o.reshape(o.NonZero(flat), (-1,)), o.full((size,), 0, T.int64), axis=0)
        return o.Slice(row, o.ints((0,)), o.ints((size,)), o.ints((0,)))
    # The smallest places come first; an element that is 0 stands behind all of them.
    places = o.Where(o.cast(flat, T.bool_), o.counted(0, 1, n, T.int64), o.const(n, T.int64))
    first, _ = o.node("TopK", (places, o.ints((min(size, n),))), {"largest": 0}, 2)
    found = o.Where(o.Less(first, o.const(n, T.int64)), first, o.const(0, T.int64))
    return found if size <= n else o.Concat(found, o.full((size - n,), 0, T.int64), axis=0)


@primitive(internal=True, no_gradient="integer result", onnx=_onnx_places)
def flat_places(x, *, size):
    """The first `size` positions of elements that are not 0, in x read as one row; 0 where there are fewer.

    x: any[...]. Returns: int64[size]. Source: ONNX NonZero.
    """
    found = np.flatnonzero(x)[:size]
    return np.concatenate([found, np.zeros(size - len(found), np.int64)])


@flat_places.type
def _(x, *, size):
    if size < 0:
        raise ArgumentError("flat_places", f"size={size} is negative", "pass the number of elements to find")
    return TensorType(T.int64, (size,))


flat_places.sample(Ints((3, 4), 0, 2), size=5).sample(Ints((70,), 0, 2, "bool"), size=70).sample(
    (3, 2), size=6, grad=False
)
flat_places.sample(Ints((), 1, 2), size=1).sample(Ints((0, 3)), size=0).sample(Ints((4,), 0, 1), size=2)
flat_places.error_sample((2, 3), size=-1, match="is negative")


def as_tensor(op, x):
    """x itself, or a tensor made of a list or an array. Raises: ArgumentTypeError for anything else."""
    if not isinstance(x, Tensor):
        if not isinstance(x, (list, np.ndarray)):
            raise ArgumentTypeError(op, f"takes a tensor, got {type(x).__name__}", "pass a tensor")
        return dispatch.state.executor.constant(np.asarray(x), "cpu")
    return x


@public
def flatnonzero(x):
    """The positions of elements that are not 0, in x read as one row. x: any[...]. Returns: int64[count].

    Source: NumPy. Example: `dg.flatnonzero(dg.tensor([[0, 3], [4, 0]]))` is `[1, 2]`.
    """
    x = as_tensor("flatnonzero", x)
    if x.dtype.is_complex:
        x = E.not_equal(x, 0)
    found = sized(counted_places, x)
    return flat_places(x, size=_count(x)) if found is None else found


def _count(x):
    """How many elements are not 0: a trace, which asks once for a mask, may know it as a number that changes."""
    counted = getattr(dispatch.state.executor, "counted", None)
    return whole(count_nonzero(x).item()) if counted is None else counted(x, lambda: count_nonzero(x))


def _coordinates(flat, shape):
    """The index along every axis of positions in a row-major array."""
    out = []
    for size, step in zip(shape, contiguous_strides(shape)):
        if size == 1:  # its step is that of the axis before
            out.append(zeros_like(flat))
            continue
        here = E.floor_divide(flat, step) if step != 1 else flat
        out.append(here)
        if step != 1:
            flat = flat - here * step
    return out


@public
def nonzero(x, *, as_tuple=True):
    """The index along every axis of each element that is not 0, in row-major order.

    x: any[...] with one axis or more. Returns: a tuple with an int64[count] for every axis; with
    as_tuple=False int64[count, axes], as `argwhere`. Raises: ArgumentError for a 0-d tensor.
    Numerics: NaN is not 0. Source: array API, PyTorch, ONNX NonZero.
    Example: `dg.nonzero(dg.tensor([[0, 3], [4, 0]]))[0]` is `[0, 1]`.
    """
    x = as_tensor("nonzero", x)
    if not as_tuple:
        return argwhere(x)
    if not x.shape:
        raise ArgumentError("nonzero", f"x: {x.type} has no axes", "reshape it to one axis: x.reshape(1)")
    flat = flatnonzero(x)
    return (flat,) if len(x.shape) == 1 else tuple(_coordinates(flat, x.shape))


@public
def argwhere(x):
    """The index of each element that is not 0, a row each. x: any[...]. Returns: int64[count, axes].

    Source: NumPy. Example: `dg.argwhere(dg.tensor([[0, 3], [4, 0]]))` is `[[0, 1], [1, 0]]`.
    """
    x = as_tensor("argwhere", x)
    flat = flatnonzero(x)
    if x.ndim == 1:
        return expand_dims(flat, axis=1)
    if not x.shape:
        return reshape(flat, shape=(*flat.shape, 1))[:, :0]
    return stack(_coordinates(flat, x.shape), axis=1)


@public
def masked_select(x, mask):
    """The elements of x where the mask holds, in row-major order. x and mask broadcast to one shape.

    x: any[...], mask: bool[...]. Returns: x's dtype, [count]. Raises: DtypeError unless the mask is bool.
    Numerics: the gradient is 0 where the mask does not hold. Source: PyTorch.
    Example: `dg.masked_select(dg.tensor([1.0, 2.0, 3.0]), dg.tensor([True, False, True]))` is `[1.0, 3.0]`.
    """
    x, mask = as_tensor("masked_select", x), as_tensor("masked_select", mask)
    if mask.dtype is not T.bool_:
        raise DtypeError("masked_select", f"mask: {mask.type} is not bool", "compare: x > 0")
    shape = x.shape if x.shape == mask.shape else T.broadcast_shapes("masked_select", x.shape, mask.shape)
    x, mask = (v if v.shape == shape else broadcast_to(v, shape=shape) for v in (x, mask))
    if not (x.requires_grad and dispatch.state.grad):
        found = sized(counted_choice, x, mask)
        if found is not None:
            return found
    return take_elements_placed(reshape(x, shape=(math.prod(shape),)), flatnonzero(mask), axis=0)


@public
def compress(condition, x, axis=None):
    """The slices of x along an axis where the condition holds; of x read as one row when axis is None.

    condition: bool[m] with m up to the axis' size. Returns: x with the axis replaced by [count].
    Raises: ArgumentError when the condition is longer than the axis. Source: NumPy, ONNX Compress.
    Example: `dg.compress([True, False], dg.tensor([[1, 2], [3, 4]]), axis=1)` is `[[1], [3]]`.
    """
    x, condition = as_tensor("compress", x), as_tensor("compress", condition)
    if axis is None:
        x, axis = reshape(x, shape=(x.size,)), 0
    axis = T.normalize_axis("compress", axis, x.ndim, x.type)
    if condition.ndim != 1 or condition.size > x.shape[axis]:
        raise ArgumentError(
            "compress", f"condition: {condition.type} does not fit axis {axis} of x: {x.type}",
            "pass one bool for each slice",
        )  # fmt: skip
    return take(x, flatnonzero(condition), axis=axis)


@public
def unravel_index(indices, shape):
    """The places along each axis of positions in a tensor of a shape that is read row by row, as `argmax` gives them.

    indices: int[...] with values from 0 to the shape's size - 1. Returns: a tuple of int64[...], one an axis.
    Raises: IndexingError for a position outside. Source: NumPy, PyTorch.
    Example: `dg.unravel_index(dg.tensor([5]), (2, 3))[0]` is `[1]`.
    """
    x = as_tensor("unravel_index", indices)
    if not x.dtype.is_integer:
        raise DtypeError("unravel_index", f"indices: {x.type} are not integer", "convert them to int64")
    x, sizes = x.to(T.int64), as_shape("unravel_index", shape)
    count = math.prod(sizes)
    if x.size:

        def refuse(found):
            for bad in found.tolist():
                if not 0 <= bad < count:
                    legal = f"use 0 to {count - 1}" if count else "the shape is empty: pass no index"
                    raise IndexingError(
                        "unravel_index", f"position {bad} is outside shape={list(sizes)}", legal
                    )

        with dispatch.set_grad(False):
            dispatch.state.executor.check(stack([min_(x), max_(x)], axis=0), refuse)
    found = []
    for n in reversed(sizes):
        found.append(E.remainder(x, max(n, 1)))
        x = E.floor_divide(x, max(n, 1))
    return tuple(found[::-1])
