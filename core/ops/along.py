"""Elements picked along an axis by a tensor of positions, one for each line; and gradients put back there."""

# Gradient rules are named after the input they are for, so names repeat here.
from __future__ import annotations

import numpy as np

from ..errors import DtypeError, ShapeError
from ..op import Ints, primitive
from ..types import TensorType


def _check(op, x, index, axis):
    if not index.dtype.is_integer:
        raise DtypeError(op, f"index: {index} is not integer", "convert it to int64")
    same = x.ndim == index.ndim and all(
        a == axis or n == m for a, (n, m) in enumerate(zip(x.shape, index.shape))
    )
    if not same:
        raise ShapeError(
            op, f"index: {index} does not fit {x} along axis {axis}", "make the other axes equal"
        )


@primitive(
    internal=True, complex="linear", onnx=lambda o, x, index, *, axis: o.GatherElements(x, index, axis=axis)
)
def gather_along(x, index, *, axis):
    """x[..., index[..., j, ...], ...]: elements of x along an axis, where index says, line by line.

    index: int[...] with x's shape but for the axis, values from 0 to n - 1 (not checked: they come from sorting).
    Returns: index's shape. Source: ONNX GatherElements.
    """
    return np.take_along_axis(x, index, axis=axis)


@gather_along.type
def _(x, index, *, axis):
    _check("gather_along", x, index, axis)
    return TensorType(x.dtype, index.shape)


@gather_along.grad
def x(g, index, x_type, axis):
    return scatter_along(g, index, size=x_type.shape[axis], axis=axis)


gather_along.sample((3, 4), Ints((3, 2), 0, 4), axis=1).sample((3, 4), Ints((5, 4), 0, 3), axis=0)
gather_along.error_sample((3, 4), Ints((2, 2)), axis=1, match="does not fit")


def _onnx_scatter(o, dy, index, *, size, axis):
    shape = tuple(size if a == axis else n for a, n in enumerate(dy.shape))
    return o.ScatterElements(o.full(shape, 0, dy.dtype), index, dy, axis=axis, reduction="add")


@primitive(internal=True, complex="linear", onnx=_onnx_scatter)
def scatter_along(dy, index, *, size, axis):
    """The gradient of gather_along: dy added up into zeros at index, in the order of the index."""
    out = np.zeros([size if a == axis else n for a, n in enumerate(dy.shape)], dy.dtype)
    lines = np.moveaxis(out, axis, 0)
    for i, v in zip(np.moveaxis(index, axis, 0), np.moveaxis(dy, axis, 0)):
        places = np.indices(i.shape, sparse=True)
        lines[(i, *places)] += v
    return out


@scatter_along.type
def _(dy, index, *, size, axis):
    _check("scatter_along", dy, index, axis)
    return TensorType(dy.dtype, tuple(size if a == axis else n for a, n in enumerate(dy.shape)))


@scatter_along.grad
def dy(g, index, axis):
    return gather_along(g, index, axis=axis)


scatter_along.sample((3, 2), Ints((3, 2), 0, 4), size=4, axis=1).sample(
    (5, 4), Ints((5, 4), 0, 3), size=3, axis=0
)
