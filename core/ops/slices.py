"""Basic indexing: slices, integers, new axes. A slice is a view; an update replaces what it shows."""

# Gradient rules are named after the input they are for, so names repeat here.
# ruff: noqa: F811
from __future__ import annotations

import numpy as np

from .. import types as T
from ..backend import Operand
from ..errors import IndexingError, ShapeError
from ..lower import copy, lower_map
from ..numbers import is_live, whole
from ..op import primitive
from ..scalar import Expr, cast
from ..types import TensorType, contiguous_strides


def basic_index(op, shape, index):
    """Canonical basic index: per entry ("i", k), ("s", start, count, step) or ("n",) for a new axis."""
    entries = list(index) if isinstance(index, tuple) else [index]
    used = sum(1 for e in entries if e is not None and e is not Ellipsis)
    if used > len(shape):
        raise IndexingError(
            op, f"{used} indices for a tensor of shape {list(shape)}", "use one index an axis"
        )
    fill_in = [slice(None)] * (len(shape) - used)
    spots = [k for k, e in enumerate(entries) if e is Ellipsis]
    if len(spots) > 1:
        raise IndexingError(op, "more than one ... in the index", "use one")
    entries[spots[0] if spots else len(entries) : spots[0] + 1 if spots else len(entries)] = fill_in
    out = []
    axis = 0
    for e in entries:
        if e is None:
            out.append(("n",))
            continue
        n = shape[axis]
        if isinstance(e, slice):
            for part in (e.start, e.stop, e.step):
                if part is not None and not hasattr(type(part), "__index__"):
                    raise IndexingError(op, f"{part!r} in a slice is not an integer", "use integers")
            if e.step is not None and int(e.step) == 0:
                raise IndexingError(op, "the step of a slice is 0", "use another step")
            out.append(("s", *_walk(e, n)))
        else:
            if not hasattr(type(e), "__index__"):
                raise IndexingError(
                    op, f"{e!r} is not an index", "use integers, slices, None, ... or an integer tensor"
                )
            k = whole(e)
            if not -n <= k < n:
                raise IndexingError(
                    op, f"index {k} is outside axis {axis} of size {n}", f"use {-n} to {n - 1}"
                )
            out.append(("i", k + n if k < 0 else k))
        axis += 1
    return tuple(out)


def _onnx_slice(o, x, *, index):
    return o.slice(x, index)


def _walk(e, n):
    """Start, number and step of what a slice takes of `n` elements."""
    if not any(map(is_live, (e.start, e.stop, e.step, n))):
        start, stop, step = e.indices(n)
        return start, len(range(start, stop, step)), step
    # The same in arithmetic that live numbers know: C code would read them.
    step = 1 if e.step is None else whole(e.step)
    first, last = (0, n) if step > 0 else (-1, n - 1)
    ends = []
    for x, otherwise in ((e.start, first if step > 0 else last), (e.stop, last if step > 0 else first)):
        if x is None:
            ends.append(otherwise)
        else:
            x = whole(x)
            x = x + n if x < 0 else x
            ends.append(first if x < first else last if x > last else x)
    start, stop = ends
    size = stop - start if step > 0 else start - stop
    return start, (size - 1) // abs(step) + 1 if size > 0 else 0, step


@primitive(internal=True, view=True, onnx=_onnx_slice)
def slice_(x, *, index):
    """x[index] for integers, slices, None and `...`. Returns: a view. Source: ONNX Slice, Squeeze, Unsqueeze."""
    full = tuple(e[1] if e[0] == "i" else None if e[0] == "n" else _as_slice(e) for e in index)
    return np.asarray(x)[full]


def _as_slice(e):
    _, start, count, step = e
    stop = start + count * step
    return slice(start, stop if stop >= 0 else None, step) if count else slice(0, 0)


@slice_.normalize
def _(inputs, index):
    x = inputs[0]
    if index and isinstance(index, tuple) and all(isinstance(e, tuple) for e in index):
        return (index,)
    return (basic_index("slice", x.shape, index),)


@slice_.type
def _(x, *, index):
    return TensorType(x.dtype, _sliced(x.shape, contiguous_strides(x.shape), index)[0])


def _sliced(shape, strides, index):
    out_shape, out_strides, offset, axis = [], [], 0, 0
    for e in index:
        if e[0] == "n":
            out_shape.append(1)
            out_strides.append(0)
            continue
        if e[0] == "i":
            offset += e[1] * strides[axis]
        else:
            _, start, count, step = e
            offset += start * strides[axis] if count else 0
            out_shape.append(count)
            out_strides.append(step * strides[axis])
        axis += 1
    return tuple(out_shape), tuple(out_strides), offset


@slice_.view
def _(shape, strides, *, index):
    return _sliced(shape, strides, index)


@slice_.view_update
def _(base, value, *, index):
    return slice_update(base, value, index=index)


@slice_.grad
def x(g, x_type, index):
    from .creation import zeros

    return slice_update(zeros(x_type.shape, dtype=x_type.dtype, device=g.device), g, index=index)


slice_.sample((4, 5), index=(1,)).sample((4, 5), index=(slice(1, 3), None, slice(None, None, 2)))
slice_.sample((4, 5), index=(Ellipsis, slice(None, None, -1))).sample((4,), index=(slice(2, 2),))
slice_.error_sample((2, 3), index=(5,), match="outside axis 0")


@primitive(
    internal=True, updates=True, complex="own", onnx=lambda o, x, y, *, index: o.slice_update(x, y, index)
)
def slice_update(x, y, *, index):
    """A copy of x with x[index] replaced by y (broadcast to the slice). index: as `slice`."""
    out = np.array(x)
    full = tuple(e[1] if e[0] == "i" else None if e[0] == "n" else _as_slice(e) for e in index)
    out[full] = y
    return out


@slice_update.normalize
def _(inputs, index):
    x = inputs[0]
    if index and isinstance(index, tuple) and all(isinstance(e, tuple) for e in index):
        return (index,)
    return (basic_index("slice_update", x.shape, index),)


@slice_update.type
def _(x, y, *, index):
    part = _sliced(x.shape, contiguous_strides(x.shape), index)[0]
    shape = y.shape if isinstance(y, TensorType) else ()
    if T.broadcast_shapes("slice_update", part, shape) != part:
        raise ShapeError("slice_update", f"{y} does not fit into a slice of shape {list(part)}", "reshape it")
    return x


@slice_update.lower
def _(program, inputs, outputs, *, index):
    x, y = inputs
    out = outputs[0]
    copy(program, x, out)
    program.wave()
    shape, strides, offset = _sliced(out.shape, out.strides, index)
    part = Operand(out.source, out.offset + offset * out.dtype.itemsize, out.dtype, shape, strides)
    root = cast(Expr("arg", y.dtype, (), 0), out.dtype)
    lower_map(program, shape, [y], [root], [part], ("slice_update",))


@slice_update.grad
def x(g, y_type, index):
    return slice_update(g, 0.0, index=index)


@slice_update.grad
def y(g, index):
    return slice_(g, index=index)


slice_update.sample((4, 5), (5,), index=(1,)).sample((4, 5), (2, 5), index=(slice(0, 4, 2),)).sample(
    (4,), 1.5, index=(0,)
)
