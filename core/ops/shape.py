"""Shape and memory order: reshape, permute, broadcast, slices, concatenation, padding. Views where possible."""

# Gradient rules are named after the input they are for, so names repeat here.
# ruff: noqa: F811
from __future__ import annotations

import math
import operator

import numpy as np

from .. import types as T
from ..backend import Operand
from ..errors import ArgumentError, ArgumentTypeError, IndexingError, ShapeError
from ..lower import copy, fill, lower_map
from ..op import composite, primitive
from ..scalar import Expr, cast
from ..types import TensorType, contiguous_strides, normalize_axes, normalize_axis


def as_shape(op, shape):
    """A tuple of ints from an int, a list or a tuple."""
    if isinstance(shape, (int, np.integer)):
        return (int(shape),)
    if not hasattr(shape, "__iter__"):
        raise ArgumentTypeError(op, f"shape={shape!r} is not a tuple of integers", "pass integers")
    out = tuple(shape)
    if not all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) for n in out):
        raise ArgumentTypeError(op, f"shape={shape} is not a tuple of integers", "pass integers")
    return tuple(int(n) for n in out)


# ---------------------------------------------------------------- views


@primitive(view=True, onnx=lambda o, x, *, shape: o.reshape(x, shape))
def reshape(x, *, shape):
    """x with another shape and the same elements in row-major order; one size may be -1.

    Returns: a view when the layout allows it, else a copy. Raises: ShapeError when sizes do not match.
    Source: ONNX Reshape.
    """
    return np.reshape(x, shape)


@reshape.normalize
def _(inputs, shape):
    shape = as_shape("reshape", shape)
    x = inputs[0]
    if -1 in shape and hasattr(x, "shape"):
        rest = math.prod(n for n in shape if n != -1)
        if shape.count(-1) > 1 or (rest == 0 and x.size) or (rest and x.size % rest) or not rest:
            raise ShapeError(
                "reshape", f"{x.type} cannot become {list(shape)}", "leave one -1 and make sizes divide"
            )
        shape = tuple(x.size // rest if n == -1 else n for n in shape)
    return (shape,)


@reshape.type
def _(x, *, shape):
    if math.prod(shape) != x.size:
        raise ShapeError(
            "reshape",
            f"{x} has {x.size} elements, shape {list(shape)} has {math.prod(shape)}",
            "make the sizes equal",
        )
    return TensorType(x.dtype, shape)


@reshape.view
def _(shape_in, strides, *, shape):
    if 0 in shape_in:
        return shape, contiguous_strides(shape), 0
    # Match runs of old axes with runs of new axes of the same product; each run must be walked as one.
    old = [(n, st) for n, st in zip(shape_in, strides) if n != 1]
    out = []
    k = 0
    axis = 0
    while axis < len(shape):
        if shape[axis] == 1:
            out.append(0)
            axis += 1
            continue
        size_new, start = shape[axis], axis
        size_old, first = old[k][0], k
        while size_new != size_old:
            if size_new < size_old:
                axis += 1
                size_new *= shape[axis]
            else:
                k += 1
                size_old *= old[k][0]
        for a in range(first, k):
            if old[a][1] != old[a + 1][1] * old[a + 1][0]:
                return None
        step = old[k][1]
        run = []
        for a in range(axis, start - 1, -1):
            run.append(step if shape[a] != 1 else 0)
            step *= shape[a]
        out.extend(reversed(run))
        axis += 1
        k += 1
    # Axes of size 1 get the stride a contiguous tensor would have, so that equal layouts are one object.
    dense = contiguous_strides(shape)
    return shape, tuple(d if n == 1 else st for n, st, d in zip(shape, out, dense)), 0


@reshape.view_update
def _(base, value, *, shape):
    return reshape(value, shape=base.shape)


@reshape.grad
def x(g, x_type):
    return reshape(g, shape=x_type.shape)


reshape.sample((3, 4), shape=(2, 6)).sample((2, 3, 4), shape=(-1,)).sample((6,), shape=(1, 2, 3)).sample(
    (), shape=(1,)
)
reshape.error_sample((2, 3), shape=(4,), match="has 6 elements")


@primitive(view=True, onnx=lambda o, x, *, axes: o.Transpose(x, perm=list(axes)))
def permute(x, *, axes):
    """x with its axes in the given order. Returns: a view. Source: ONNX Transpose."""
    return np.transpose(x, axes)


@permute.normalize
def _(inputs, axes):
    x = inputs[0]
    axes = as_shape("permute", axes)
    ndim = len(x.shape)
    out = tuple(normalize_axis("permute", a, ndim, x.type) for a in axes)
    if sorted(out) != list(range(ndim)):
        raise ArgumentError(
            "permute", f"axes={axes} is not an order of the {ndim} axes of {x.type}", "name each axis once"
        )
    return (out,)


@permute.type
def _(x, *, axes):
    return TensorType(x.dtype, tuple(x.shape[a] for a in axes))


@permute.view
def _(shape, strides, *, axes):
    return tuple(shape[a] for a in axes), tuple(strides[a] for a in axes), 0


def _inverse(axes):
    return tuple(sorted(range(len(axes)), key=axes.__getitem__))


@permute.view_update
def _(base, value, *, axes):
    return permute(value, axes=_inverse(axes))


@permute.grad
def x(g, axes):
    return permute(g, axes=_inverse(axes))


permute.sample((2, 3), axes=(1, 0)).sample((2, 3, 4), axes=(2, 0, 1)).sample((3,), axes=(0,))
permute.error_sample((2, 3), axes=(0, 0), match="not an order")


@primitive(view=True, onnx=lambda o, x, *, shape: o.Expand(x, o.ints(shape)))
def broadcast_to(x, *, shape):
    """x repeated along axes of size 1 (and new leading ones) without using memory.

    Returns: a read-only view. Raises: ShapeError when x does not broadcast to `shape`. Source: ONNX Expand.
    """
    return np.broadcast_to(x, shape)


@broadcast_to.normalize
def _(inputs, shape):
    return (as_shape("broadcast_to", shape),)


@broadcast_to.type
def _(x, *, shape):
    if len(shape) < x.ndim or T.broadcast_shapes("broadcast_to", x.shape, shape) != shape:
        raise ShapeError(
            "broadcast_to", f"{x} does not broadcast to {list(shape)}", "sizes must be equal, or 1 in x"
        )
    return TensorType(x.dtype, shape)


@broadcast_to.view
def _(shape_in, strides, *, shape):
    lead = len(shape) - len(shape_in)
    inner = tuple(0 if n != m else st for n, m, st in zip(shape_in, shape[lead:], strides))
    return shape, (0,) * lead + inner, 0


@broadcast_to.grad
def x(g, x_type):
    return sum_to(g, shape=x_type.shape)


broadcast_to.sample((3, 1), shape=(2, 3, 4)).sample((), shape=(3,)).sample((4,), shape=(4,))
broadcast_to.error_sample((3,), shape=(4,), match="broadcast")


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
                if part is not None and not hasattr(part, "__index__"):
                    raise IndexingError(op, f"{part!r} in a slice is not an integer", "use integers")
            if e.step is not None and int(e.step) == 0:
                raise IndexingError(op, "the step of a slice is 0", "use another step")
            start, stop, step = e.indices(n)
            out.append(("s", start, len(range(start, stop, step)), step))
        else:
            if not hasattr(e, "__index__"):
                raise IndexingError(
                    op, f"{e!r} is not an index", "use integers, slices, None, ... or an integer tensor"
                )
            k = operator.index(e)
            if not -n <= k < n:
                raise IndexingError(
                    op, f"index {k} is outside axis {axis} of size {n}", f"use {-n} to {n - 1}"
                )
            out.append(("i", k % n))
        axis += 1
    return tuple(out)


def _onnx_slice(o, x, *, index):
    return o.slice(x, index)


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


@primitive(internal=True, onnx=lambda o, x, y, *, index: o.slice_update(x, y, index))
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


# ---------------------------------------------------------------- copies


@primitive(onnx=lambda o, *xs, axis: o.Concat(*xs, axis=axis))
def concat(*xs, axis=0):
    """Tensors joined along an existing axis.

    xs: a list of tensors whose other axes agree. Returns: the promoted dtype. Source: ONNX Concat.
    """
    return np.concatenate(xs, axis=axis)


@concat.normalize
def _(inputs, axis):
    if not inputs:
        raise ArgumentTypeError("concat", "needs at least one tensor", "pass a non-empty list")
    return (normalize_axis("concat", axis, len(inputs[0].shape), inputs[0].type),)


@concat.type
def _(*xs, axis=0):
    dtype = xs[0].dtype
    for x in xs:
        dtype = T.promote(dtype, x.dtype)
        same = x.ndim == xs[0].ndim and all(
            a == axis or n == m for a, (n, m) in enumerate(zip(x.shape, xs[0].shape))
        )
        if not same:
            raise ShapeError(
                "concat", f"{x} does not join {xs[0]} on axis {axis}", "make the other axes equal"
            )
    shape = list(xs[0].shape)
    shape[axis] = sum(x.shape[axis] for x in xs)
    return TensorType(dtype, tuple(shape))


@concat.lower
def _(program, inputs, outputs, *, axis):
    out, start = outputs[0], 0
    for x in inputs:
        offset = out.offset + start * out.strides[axis] * out.dtype.itemsize
        copy(program, x, Operand(out.source, offset, out.dtype, x.shape, out.strides))
        start += x.shape[axis]


@concat.grad
def xs(g, types, axis):
    parts, start = [], 0
    for t in types:
        index = tuple(
            ("s", start, t.shape[a], 1) if a == axis else ("s", 0, n, 1) for a, n in enumerate(t.shape)
        )
        parts.append(slice_(g, index=index))
        start += t.shape[axis]
    return tuple(parts)


concat.sample((2, 3), (4, 3)).sample((2, 3), (2, 1), (2, 2), axis=-1)
concat.error_sample((2, 3), (2, 4), match="does not join")


def _pairs(op, padding, ndim):
    pairs = [
        (p, p) if isinstance(p, int) else tuple(p)
        for p in ([padding] * ndim if isinstance(padding, int) else padding)
    ]
    if len(pairs) != ndim:
        raise ArgumentError(
            op, f"padding has {len(pairs)} pairs for {ndim} axes", "give (before, after) for each axis"
        )
    if any(len(p) != 2 or min(p) < 0 for p in pairs):
        raise ArgumentError(
            op, f"padding={padding} is not made of pairs of sizes from 0", "give (before, after)"
        )
    return tuple(pairs)


@primitive(
    onnx=lambda o, x, *, padding, value: o.Pad(
        x, o.ints([p[0] for p in padding] + [p[1] for p in padding]), o.const(value, like=x)
    )
)
def pad(x, *, padding, value=0.0):
    """x with `value` around it. padding: (before, after) sizes for each axis, or one int. Source: ONNX Pad."""
    return np.pad(x, padding, constant_values=value)


@pad.normalize
def _(inputs, padding, value):
    return (_pairs("pad", padding, len(inputs[0].shape)), float(value))


@pad.type
def _(x, *, padding, value=0.0):
    return TensorType(x.dtype, tuple(n + a + b for n, (a, b) in zip(x.shape, padding)))


@pad.lower
def _(program, inputs, outputs, *, padding, value):
    x, out = inputs[0], outputs[0]
    fill(program, value, out)
    program.wave()
    offset = sum(a * st for (a, _), st in zip(padding, out.strides)) * out.dtype.itemsize
    copy(program, x, Operand(out.source, out.offset + offset, out.dtype, x.shape, out.strides))


@pad.grad
def x(g, x_type, padding):
    return slice_(g, index=tuple(("s", a, n, 1) for (a, _), n in zip(padding, x_type.shape)))


pad.sample((2, 3), padding=((1, 0), (0, 2))).sample((3,), padding=2, value=1.5)


# ---------------------------------------------------------------- built from the above


@composite
def sum_to(x, *, shape):
    """x summed down to a shape that broadcasts to x's: the transpose of broadcasting."""
    from .reduction import sum_

    if x.shape == shape:
        return x
    lead = x.ndim - len(shape)
    axes = tuple(range(lead)) + tuple(
        a + lead for a, n in enumerate(shape) if n == 1 and x.shape[a + lead] != 1
    )
    out = sum_(x, axis=axes, keepdims=True) if axes else x
    return reshape(out, shape=shape) if lead else out


sum_to.sample((2, 3, 4), shape=(3, 1)).sample((2, 3), shape=(2, 3)).sample((4,), shape=())


@composite
def squeeze(x, *, axis=None):
    """x without axes of size 1: those named, or all. Raises: ShapeError when a named axis has another size."""
    axes = (
        tuple(a for a, n in enumerate(x.shape) if n == 1)
        if axis is None
        else normalize_axes("squeeze", axis, x.ndim)
    )
    for a in axes:
        if x.shape[a] != 1:
            raise ShapeError(
                "squeeze", f"axis {a} of {x.type} has size {x.shape[a]}, not 1", "name an axis of size 1"
            )
    return reshape(x, shape=tuple(n for a, n in enumerate(x.shape) if a not in axes))


squeeze.sample((1, 3, 1)).sample((1, 3, 1), axis=0)


@composite
def expand_dims(x, *, axis=0):
    """x with a new axis of size 1 at position `axis` of the result."""
    a = normalize_axis("expand_dims", axis, x.ndim + 1)
    return reshape(x, shape=(*x.shape[:a], 1, *x.shape[a:]))


expand_dims.sample((3, 2)).sample((3, 2), axis=-1)


@composite
def flatten(x, *, start_axis=0, end_axis=-1):
    """x with the axes from start_axis to end_axis (inclusive) merged into one."""
    if x.ndim == 0:
        return reshape(x, shape=(1,))
    a = normalize_axis("flatten", start_axis, x.ndim, x.type)
    b = normalize_axis("flatten", end_axis, x.ndim, x.type)
    if a > b:
        raise ArgumentError("flatten", f"start_axis={start_axis} is after end_axis={end_axis}", "swap them")
    return reshape(x, shape=(*x.shape[:a], math.prod(x.shape[a : b + 1]), *x.shape[b + 1 :]))


flatten.sample((2, 3, 4)).sample((2, 3, 4), start_axis=1)


@composite
def transpose(x, *, axis1=-2, axis2=-1):
    """x with two axes swapped (the last two by default). Returns: a view."""
    a, b = (normalize_axis("transpose", k, x.ndim, x.type) for k in (axis1, axis2))
    axes = list(range(x.ndim))
    axes[a], axes[b] = axes[b], axes[a]
    return permute(x, axes=tuple(axes))


transpose.sample((2, 3)).sample((2, 3, 4), axis1=0, axis2=2)


@composite
def stack(*xs, axis=0):
    """Tensors of one shape joined along a new axis."""
    return concat([expand_dims(x, axis=axis) for x in xs], axis=axis)


stack.sample((2, 3), (2, 3)).sample((3,), (3,), axis=-1)


@composite
def split(x, *, sizes, axis=0):
    """x cut along an axis into a tuple of views. sizes: the length of each part, or one length for all."""
    a = normalize_axis("split", axis, x.ndim, x.type)
    n = x.shape[a]
    parts = [min(sizes, n - k) for k in range(0, n, sizes)] if isinstance(sizes, int) else list(sizes)
    if sum(parts) != n:
        raise ShapeError(
            "split", f"sizes={sizes} add up to {sum(parts)}, axis {a} of {x.type} has {n}", "make them equal"
        )
    out, start = [], 0
    for part in parts:
        index = tuple(("s", start, part, 1) if k == a else ("s", 0, m, 1) for k, m in enumerate(x.shape))
        out.append(slice_(x, index=index))
        start += part
    return tuple(out)


split.sample((6, 2), sizes=4).sample((2, 5), sizes=(2, 3), axis=1)
