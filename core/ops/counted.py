"""Results whose size is found while they are made: room for all elements, and how many there are.

`dispatch.sized` cuts the room to the count where values can be read at once; where they cannot (traces, batches,
backends without these kernels) it says None, and elements are counted first. Only tensors of up to FEW elements
come here: larger ones are counted first, in parallel, and get no more memory than they need.
"""

from __future__ import annotations

import numpy as np

from .. import dispatch
from .. import types as T
from ..errors import ShapeError
from ..op import Ints, primitive
from ..types import TensorType

FEW = 1 << 14
_REASONS = {
    "no_gradient": "a part of eager mode, called where none is wanted",
    "no_onnx": "a part of eager mode: traces count first",
}


def sized(op, *inputs):
    """The result of an op of this file, or None where elements must be counted first."""
    if inputs[0].size > FEW:
        return None
    return dispatch.sized(op, inputs)


def _room(values, size, dtype):
    """values and zeros behind them, `size` in all, and how many values there are."""
    out = np.zeros(size, dtype)
    out[: len(values)] = values
    return out, np.array([len(values)], np.int64)


def _types(x, dtype):
    return TensorType(dtype, (x.size,)), TensorType(T.int64, (1,))


@primitive(internal=True, **_REASONS)
def counted_places(x):
    """Positions of elements that are not 0 in x read as one row, zeros behind them, and how many there are."""
    return _room(np.flatnonzero(x), x.size, np.int64)


counted_places.type(lambda x: _types(x, T.int64))
counted_places.sample(Ints((3, 4), 0, 2)).sample(Ints((70,), 0, 2, "bool")).sample((3, 2), grad=False)
counted_places.sample(Ints((), 0, 2)).sample(Ints((0, 3)))


@primitive(internal=True, complex="own", **_REASONS)
def counted_choice(x, mask):
    """The elements of x where the mask holds, in row-major order, zeros behind them, and how many there are."""
    return _room(x[mask], x.size, x.dtype)


@counted_choice.type
def _(x, mask):
    if x.shape != mask.shape:
        raise ShapeError("counted_choice", f"mask: {mask} does not fit x: {x}", "broadcast them to one shape")
    return _types(x, x.dtype)


counted_choice.sample((3, 4), Ints((3, 4), 0, 2, "bool")).sample((), Ints((), 0, 2, "bool"))
counted_choice.sample((0, 2), Ints((0, 2), 0, 2, "bool"))
counted_choice.error_sample((3,), Ints((2,), 0, 2, "bool"), match="does not fit x")


@primitive(internal=True, **_REASONS)
def counted_changes(x):
    """The elements of x, read as one row, that differ from the one before, zeros behind them, and how many."""
    flat = np.ravel(x)
    return _room(flat[np.append(True, flat[1:] != flat[:-1])] if flat.size else flat, x.size, x.dtype)


counted_changes.type(lambda x: _types(x, x.dtype))
counted_changes.sample(np.array([0.0, 0.0, 1.0, 1.0, 2.5])).sample(Ints((40,), 0, 2)).sample(
    Ints((2, 3), 0, 2)
)
counted_changes.sample((0,)).sample(())
