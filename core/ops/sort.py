"""Sorting and selection along an axis. NaN comes last (first when descending); equal elements keep their order."""

# Gradient rules are named after the input they are for, so names repeat here.
# ruff: noqa: F811
from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .. import dispatch
from .. import types as T
from ..errors import ArgumentError, ArgumentTypeError
from ..op import Ints, primitive, public
from ..types import TensorType
from ..value import Tensor
from .picking import take_elements_x_grad
from .shape import slice_


class Sorted(NamedTuple):
    """Elements in order, and where each stood."""

    values: Tensor
    indices: Tensor


class Picked(NamedTuple):
    """Elements picked, and where each stands."""

    values: Tensor
    indices: Tensor


def axis_of(op, x, axis):
    """One axis, non-negative; 0 for a 0-d tensor."""
    if not hasattr(x, "shape"):
        return 0
    return 0 if not x.shape and axis in (0, -1) else T.normalize_axis(op, axis, len(x.shape), x.type)


def _order(x, axis, descending):
    """The reference's order: NumPy's stable argsort; descending keeps the order of equal elements too."""
    x = np.asarray(x)
    if not x.ndim:
        return np.zeros((), np.int64)
    if not descending:
        return np.argsort(x, axis=axis, kind="stable")
    back = np.argsort(np.flip(x, axis), axis=axis, kind="stable")
    return np.flip(x.shape[axis] - 1 - back, axis)


def _ordered(x, axis, descending):
    order = _order(x, axis, descending)
    return (np.take_along_axis(x, order, axis) if np.ndim(x) else x), order


def _onnx_both(o, x, axis, descending, k=None):
    if not x.shape:
        return o.Identity(x), o.const(0, T.int64)
    count = o.ints((x.shape[axis] if k is None else k,))
    values, indices = o.node("TopK", (x, count), {"axis": axis, "largest": int(descending), "sorted": 1}, 2)
    return values, o.cast(indices, T.int64)


def _sort_samples(op):
    op.sample((3, 4)).sample((2, 3, 4), axis=1).sample((5,), axis=0, descending=True).sample(()).sample(
        (0, 3)
    )
    op.sample((50, 2), axis=0).sample(Ints((3, 45), -3, 4, "int8"), axis=1, descending=True)
    return op.error_sample((2, 3), axis=2, match="axis=2 is outside")


def _sort_normalize(op):
    @op.normalize
    def _(inputs, axis, descending, stable):
        return (axis_of(op.name, inputs[0], axis), bool(descending), True)


@primitive(onnx=lambda o, x, *, axis, descending, stable: _onnx_both(o, x, axis, descending)[0])
def sort_(x, *, axis=-1, descending=False, stable=True):
    """The elements in order along an axis.

    x: any[...]; stable: sorting always is. Returns: x's shape and dtype. Raises: ArgumentError for an axis outside
    x. Numerics: NaN comes last, or first when descending; -0.0 stands before 0.0. The gradient goes to where each
    element stood. Source: array API.
    """
    return _ordered(x, axis, descending)[0]


_sort_normalize(sort_)
sort_.type(lambda x, *, axis, descending, stable: x)


@sort_.grad
def x(g, x, axis, descending):
    if not x.shape:
        return g
    return take_elements_x_grad(
        g, argsort(x, axis=axis, descending=descending), size=x.shape[axis], axis=axis
    )


_sort_samples(sort_)


@primitive(no_gradient="integer result",
           onnx=lambda o, x, *, axis, descending, stable: _onnx_both(o, x, axis, descending)[1])  # fmt: skip
def argsort(x, *, axis=-1, descending=False, stable=True):
    """Where the elements stand, in the order of their values along an axis.

    x: any[...]; stable: sorting always is. Returns: int64, x's shape. Raises: ArgumentError for an axis outside x.
    Numerics: equal elements, -0.0 and 0.0 among them, keep their order; NaN comes last, or first when descending.
    Source: array API. Example: `dg.argsort(dg.tensor([3.0, 1.0, 2.0]))` is `[1, 2, 0]`.
    """
    return _order(x, axis, descending)


_sort_normalize(argsort)
argsort.type(lambda x, *, axis, descending, stable: TensorType(T.int64, x.shape))
_sort_samples(argsort)


@primitive(internal=True, onnx=lambda o, x, *, axis, descending: _onnx_both(o, x, axis, descending))
def sort_both(x, *, axis=-1, descending=False):
    """The elements in order along an axis, and where each stood: `sort` and `argsort` at once."""
    return _ordered(x, axis, descending)


@sort_both.normalize
def _(inputs, axis, descending):
    return (axis_of("sort", inputs[0], axis), bool(descending))


@sort_both.type
def _(x, *, axis, descending):
    return x, TensorType(T.int64, x.shape)


@sort_both.grad
def x(gs, outs, x_type, axis):
    return take_elements_x_grad(gs[0], outs[1], size=x_type.shape[axis], axis=axis) if x_type.shape else gs[0]


sort_both.sample((3, 4)).sample((2, 3, 4), axis=1, descending=True).sample((60,)).sample(())
sort_both.sample(Ints((3, 45), 0, 4), axis=1).sample((0, 3))


@public
def sort(x, axis=-1, descending=False, stable=True, return_indices=False):
    """The elements in order along an axis; with return_indices also where each stood.

    x: any[...]; stable: sorting always is. Returns: x's shape and dtype, or (values, indices: int64).
    Raises: ArgumentError for an axis outside x. Numerics: NaN comes last, or first when descending; of -0.0 and 0.0
    the values alone have -0.0 first. The gradient goes to where each element stood. Source: array API, PyTorch.
    Example: `dg.sort(dg.tensor([3.0, 1.0, 2.0]))` is `[1.0, 2.0, 3.0]`.
    """
    if return_indices:
        return Sorted(*sort_both(x, axis=axis, descending=descending))
    return sort_(x, axis=axis, descending=descending)


# ---------------------------------------------------------------- selection


def _topk_onnx(o, x, *, k, axis, largest, sorted):
    return _onnx_both(o, x, axis, largest, k)


@primitive(name="topk", onnx=_topk_onnx)
def topk_(x, *, k, axis=-1, largest=True, sorted=True):
    """The k largest (or smallest) elements along an axis, in order, and where they stand.

    x: any[..., n, ...]; k from 0 to n; sorted: they always are. Returns: (values, indices: int64), the axis of size
    k. Raises: ArgumentError for k outside 0 to n. Numerics: of equal elements the first ones; NaN counts as the
    largest. Source: PyTorch, ONNX TopK.
    """
    values, order = _ordered(x, axis, largest)
    if not np.ndim(x):
        return values, order
    place = (slice(None),) * axis + (slice(0, k),)
    return values[place], order[place]


@topk_.normalize
def _(inputs, k, axis, largest, sorted):
    if isinstance(k, bool) or not hasattr(type(k), "__index__"):
        raise ArgumentTypeError("topk", f"k={k!r} is not an integer", "pass how many elements you want")
    return (k.__index__(), axis_of("topk", inputs[0], axis), bool(largest), True)


@topk_.type
def _(x, *, k, axis, largest, sorted):
    n = x.shape[axis] if x.shape else 1
    if not 0 <= k <= n or (not x.shape and k != 1):
        raise ArgumentError(
            "topk", f"k={k} is outside 0 to {n}, the size of axis {axis} of x: {x}", "choose a smaller k"
        )
    shape = tuple(k if a == axis else m for a, m in enumerate(x.shape))
    return TensorType(x.dtype, shape), TensorType(T.int64, shape)


@topk_.grad
def x(gs, outs, x_type, axis):
    return take_elements_x_grad(gs[0], outs[1], size=x_type.shape[axis], axis=axis) if x_type.shape else gs[0]


topk_.sample((3, 9), k=2).sample((2, 9, 4), k=2, axis=1, largest=False).sample((5,), k=5).sample((), k=1)
topk_.sample((4, 200), k=45).sample(Ints((3, 90), 0, 5), k=4).sample((3, 4), k=0, grad=False)
topk_.error_sample((2, 3), k=4, match="k=4 is outside 0 to 3")
topk_.error_sample((2, 3), k=1.5, match="is not an integer")


@public
def topk(x, k, axis=-1, largest=True, sorted=True):
    """The k largest (or smallest) elements along an axis, in order, and where they stand.

    x: any[..., n, ...]; k from 0 to n; sorted: they always are. Returns: (values, indices: int64), the axis of size
    k. Raises: ArgumentError for k outside 0 to n. Numerics: of equal elements the first ones; NaN counts as the
    largest. The gradient goes to the elements picked. Source: PyTorch, ONNX TopK.
    Example: `dg.topk(dg.tensor([3.0, 1.0, 2.0]), 2).values` is `[3.0, 2.0]`.
    """
    if k.__class__ is int and axis.__class__ is int and isinstance(x, Tensor) and -x.ndim <= axis < x.ndim:
        # The usual call has nothing to find out.
        axis = axis + x.ndim if axis < 0 else axis
        return Picked(*dispatch.apply(topk_, (x,), (k, axis, bool(largest), True)))
    return Picked(*topk_(x, k=k, axis=axis, largest=largest))


@public
def kthvalue(x, k, axis=-1, keepdims=False):
    """The k-th smallest element along an axis, k from 1, and where it stands.

    x: any[..., n, ...]. Returns: (values, indices: int64) without the axis, or with size 1 for keepdims.
    Raises: ArgumentError for k outside 1 to n. Numerics: as `topk`. Source: PyTorch.
    Example: `dg.kthvalue(dg.tensor([3.0, 1.0, 2.0]), 2).values.item()` is `2.0`.
    """
    axis = axis_of("kthvalue", x, axis)
    n = x.shape[axis] if x.shape else 1
    if isinstance(k, bool) or not hasattr(type(k), "__index__") or not 1 <= k <= n:
        raise ArgumentError(
            "kthvalue", f"k={k} is outside 1 to {n}, axis {axis} of x: {x.type}", "choose k in that range"
        )
    pair = topk_(x, k=k, axis=axis, largest=False) if 4 * k <= n else sort_both(x, axis=axis)
    if not x.shape:
        return Picked(*pair)
    place = (slice(None),) * axis + (slice(k - 1, k) if keepdims else k - 1,)
    return Picked(*(slice_(y, index=place) for y in pair))


@public
def msort(x):
    """x sorted along its first axis. Source: PyTorch. Example: `dg.msort(dg.tensor([2, 1]))` is `[1, 2]`."""
    return sort_(x, axis=0)


@public
def lexsort(keys, axis=-1):
    """Positions in the order of several keys: the last one counts first, ties are broken by the one before.

    keys: a list of any[...] of one shape, or any[keys, ...]. Returns: int64, the shape of one key. Source: NumPy.
    Example: `dg.lexsort([dg.tensor([1, 0, 2]), dg.tensor([1, 1, 0])])` is `[2, 1, 0]`.
    """
    from .picking import take_elements_placed

    keys = list(keys)
    if not keys or any(k.shape != keys[0].shape for k in keys):
        raise ArgumentError("lexsort", f"{len(keys)} keys, not all of one shape", "pass keys of one shape")
    axis = axis_of("lexsort", keys[0], axis)
    order = argsort(keys[0], axis=axis)
    for key in keys[1:] if keys[0].shape else ():
        again = argsort(take_elements_placed(key, order, axis=axis), axis=axis)
        order = take_elements_placed(order, again, axis=axis)
    return order
