"""Views that are ops of their own: reshape, permute, broadcast, diagonals, sliding windows."""

# Gradient rules are named after the input they are for, so names repeat here.
# ruff: noqa: F811
from __future__ import annotations

import math

import numpy as np

from .. import types as T
from ..backend import Operand
from ..errors import ArgumentError, ArgumentTypeError, ShapeError
from ..lower import copy, lower_map
from ..numbers import whole
from ..op import primitive
from ..scalar import Expr, cast
from ..types import TensorType, contiguous_strides, normalize_axis


def as_shape(op, shape):
    """A tuple of ints from an int, a list or a tuple."""
    if isinstance(shape, (int, np.integer)):
        return (whole(shape),)
    if not hasattr(shape, "__iter__"):
        raise ArgumentTypeError(op, f"shape={shape!r} is not a tuple of integers", "pass integers")
    out = tuple(shape)
    if not all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) for n in out):
        raise ArgumentTypeError(op, f"shape={shape} is not a tuple of integers", "pass integers")
    return tuple(whole(n) for n in out)


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

    shape: a -1 keeps the size that x has there. Returns: a read-only view. Raises: ShapeError when x does not
    broadcast to `shape`. Source: ONNX Expand.
    """
    return np.broadcast_to(x, shape)


@broadcast_to.normalize
def _(inputs, shape):
    shape = as_shape("broadcast_to", shape)
    x = inputs[0]
    if -1 in shape and hasattr(x, "shape"):
        lead = len(shape) - len(x.shape)
        if min(shape) < -1 or -1 in shape[: max(lead, 0)]:
            raise ShapeError(
                "broadcast_to", f"-1 in {list(shape)} has no size in x: {x.type}", "give the new sizes"
            )
        shape = tuple(x.shape[k - lead] if n == -1 else n for k, n in enumerate(shape))
    return (shape,)


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
    from .shape import sum_to

    return sum_to(g, shape=x_type.shape)


broadcast_to.sample((3, 1), shape=(2, 3, 4)).sample((), shape=(3,)).sample((4,), shape=(4,))
broadcast_to.sample((2, 1), shape=(3, -1, 4)).sample((1, 3), shape=(0, 3))
broadcast_to.error_sample((3,), shape=(4,), match="broadcast")


# ---------------------------------------------------------------- diagonals


def _diagonal_length(rows, columns, offset):
    return max(0, min(rows + min(offset, 0), columns - max(offset, 0)))


def _on_diagonal(shape, strides, offset, axis1, axis2):
    """Shape, strides and start of a diagonal, which becomes the last axis."""
    count = _diagonal_length(shape[axis1], shape[axis2], offset)
    rest = [a for a in range(len(shape)) if a not in (axis1, axis2)]
    start = -offset * strides[axis1] if offset < 0 else offset * strides[axis2]
    return (
        (*(shape[a] for a in rest), count),
        (*(strides[a] for a in rest), strides[axis1] + strides[axis2]),
        start if count else 0,
    )


def _diagonal_attrs(op, inputs, offset, axis1, axis2):
    x = inputs[0]
    ndim = len(x.shape)
    if ndim < 2:
        raise ShapeError(op, f"x: {x.type} has no two axes", "pass a matrix or more")
    a, b = (normalize_axis(op, k, ndim, x.type) for k in (axis1, axis2))
    if a == b:
        raise ArgumentError(op, f"axis1={axis1} and axis2={axis2} are one axis", "name two")
    if not hasattr(type(offset), "__index__"):
        raise ArgumentTypeError(op, f"offset={offset!r} is not an integer", "pass an int")
    return int(offset), a, b


def _diagonal_places(o, x, offset, axis1, axis2):
    """x with axis1 and axis2 merged as the last axis, and where the diagonal is in it."""
    rows, columns = x.shape[axis1], x.shape[axis2]
    rest = [a for a in range(len(x.shape)) if a not in (axis1, axis2)]
    flat = o.Reshape(o.Transpose(x, perm=[*rest, axis1, axis2]), o.ints([*(x.shape[a] for a in rest), -1]))
    count = o.least(rows + min(offset, 0), columns - max(offset, 0))
    count = max(0, count) if type(count) is int else count
    places = o.counted(-offset * columns if offset < 0 else offset, columns + 1, count, T.int64)
    places.shape = (count,)
    return flat, rest, places


def _diagonal_onnx(o, x, *, offset, axis1, axis2):
    flat, _, places = _diagonal_places(o, x, offset, axis1, axis2)
    return o.Gather(flat, places, axis=len(x.shape) - 2)


@primitive(view=True, onnx=_diagonal_onnx)
def diagonal(x, *, offset=0, axis1=0, axis2=1):
    """The elements `x[..., i, i + offset]` of the planes that two axes span.

    offset: above the main diagonal when positive, below when negative. Returns: a view; the two axes are gone,
    the diagonal is the last axis (size 0 when it lies outside). Raises: ShapeError for fewer than two axes,
    ArgumentError for one axis named twice.
    """
    return np.diagonal(x, offset, axis1, axis2)


@diagonal.normalize
def _(inputs, offset, axis1, axis2):
    return _diagonal_attrs("diagonal", inputs, offset, axis1, axis2)


@diagonal.type
def _(x, *, offset, axis1, axis2):
    return TensorType(x.dtype, _on_diagonal(x.shape, contiguous_strides(x.shape), offset, axis1, axis2)[0])


@diagonal.view
def _(shape, strides, *, offset, axis1, axis2):
    return _on_diagonal(shape, strides, offset, axis1, axis2)


@diagonal.view_update
def _(base, value, *, offset, axis1, axis2):
    return diagonal_update(base, value, offset=offset, axis1=axis1, axis2=axis2)


@diagonal.grad
def x(g, x_type, offset, axis1, axis2):
    from .creation import zeros

    base = zeros(x_type.shape, dtype=x_type.dtype, device=g.device)
    return diagonal_update(base, g, offset=offset, axis1=axis1, axis2=axis2)


diagonal.sample((3, 4)).sample((4, 3), offset=-1).sample((2, 3, 4), offset=1, axis1=-1, axis2=0)
diagonal.sample((2, 3), offset=5)
diagonal.error_sample((3,), match="no two axes").error_sample((3, 3), axis1=1, axis2=-1, match="one axis")


def _diagonal_update_onnx(o, x, y, *, offset, axis1, axis2):
    flat, rest, places = _diagonal_places(o, x, offset, axis1, axis2)
    sizes = [x.shape[a] for a in rest]
    spots = [*sizes, *places.shape]
    y = o.Expand(o._number(y, x.dtype), o.ints(spots))
    out = o.ScatterElements(flat, o.Expand(places, o.ints(spots)), y, axis=len(rest))
    full = o.Reshape(out, o.ints([*sizes, x.shape[axis1], x.shape[axis2]]))
    order = [*rest, axis1, axis2]
    return o.Transpose(full, perm=sorted(range(len(order)), key=order.__getitem__))


@primitive(internal=True, updates=True, complex="own", onnx=_diagonal_update_onnx)
def diagonal_update(x, y, *, offset=0, axis1=0, axis2=1):
    """A copy of x with the elements of `diagonal(x)` replaced by y (broadcast to it)."""
    out = np.array(x)
    shape, strides, start = _on_diagonal(
        out.shape, tuple(st // out.itemsize for st in out.strides), offset, axis1, axis2
    )
    part = np.lib.stride_tricks.as_strided(
        out.reshape(-1)[start:], shape, tuple(st * out.itemsize for st in strides)
    )
    part[...] = y
    return out


@diagonal_update.normalize
def _(inputs, offset, axis1, axis2):
    return _diagonal_attrs("diagonal_update", inputs, offset, axis1, axis2)


@diagonal_update.type
def _(x, y, *, offset, axis1, axis2):
    part = _on_diagonal(x.shape, contiguous_strides(x.shape), offset, axis1, axis2)[0]
    shape = y.shape if isinstance(y, TensorType) else ()
    if T.broadcast_shapes("diagonal_update", part, shape) != part:
        raise ShapeError("diagonal_update", f"{y} does not fit into a diagonal of {list(part)}", "reshape it")
    return x


@diagonal_update.lower
def _(program, inputs, outputs, *, offset, axis1, axis2):
    x, y = inputs
    out = outputs[0]
    copy(program, x, out)
    program.wave()
    shape, strides, start = _on_diagonal(out.shape, out.strides, offset, axis1, axis2)
    part = Operand(out.source, out.offset + start * out.dtype.itemsize, out.dtype, shape, strides)
    root = cast(Expr("arg", y.dtype, (), 0), out.dtype)
    lower_map(program, shape, [y], [root], [part], ("diagonal_update",))


@diagonal_update.grad
def x(g, offset, axis1, axis2):
    return diagonal_update(g, 0, offset=offset, axis1=axis1, axis2=axis2)


@diagonal_update.grad
def y(g, offset, axis1, axis2):
    return diagonal(g, offset=offset, axis1=axis1, axis2=axis2)


diagonal_update.sample((3, 4), (3,)).sample((2, 3, 4), (2,), offset=1, axis1=2, axis2=1)
diagonal_update.sample((3, 3), 1.5, offset=-1)


# ---------------------------------------------------------------- sliding windows


def _windows(n, size, step):
    return (n - size) // step + 1


def _unfold_onnx(o, x, *, axis, size, step):
    # Where each window begins and what it holds: a Gather, with the window moved to the end.
    count = _windows(x.shape[axis], size, step)
    starts = o.Unsqueeze(o.counted(0, step, count, T.int64), o.ints((1,)))
    picked = o.Gather(x, o.Add(starts, o.literal(np.arange(size, dtype=np.int64))), axis=axis)
    ndim = len(x.shape) + 1
    return o.Transpose(picked, perm=[a for a in range(ndim) if a != axis + 1] + [axis + 1])


@primitive(name="sliding_window", view=True, onnx=_unfold_onnx)
def sliding_window(x, *, axis, size, step=1):
    """Windows of `size` elements along an axis, one every `step`: `out[..., i, ..., j] = x[..., i * step + j, ...]`.

    Returns: a read-only view that repeats nothing in memory; the axis counts windows, the last axis runs inside
    one. Raises: ArgumentError unless 1 <= size <= x.shape[axis] and step >= 1.
    """
    out = np.lib.stride_tricks.sliding_window_view(x, size, axis)
    return out[(slice(None),) * axis + (slice(None, None, step),)]


@sliding_window.normalize
def _(inputs, axis, size, step):
    x = inputs[0]
    axis = normalize_axis("sliding_window", axis, len(x.shape), x.type)
    if not 1 <= size <= x.shape[axis]:
        raise ArgumentError(
            "sliding_window", f"size={size} does not fit axis {axis} of x: {x.type}", "use 1 to its length"
        )
    if step < 1:
        raise ArgumentError("sliding_window", f"step={step} is not positive", "use 1 or more")
    return axis, int(size), int(step)


@sliding_window.type
def _(x, *, axis, size, step):
    count = _windows(x.shape[axis], size, step)
    return TensorType(x.dtype, (*x.shape[:axis], count, *x.shape[axis + 1 :], size))


@sliding_window.view
def _(shape, strides, *, axis, size, step):
    count = _windows(shape[axis], size, step)
    return (
        (*shape[:axis], count, *shape[axis + 1 :], size),
        (*strides[:axis], strides[axis] * step, *strides[axis + 1 :], strides[axis]),
        0,
    )


@sliding_window.grad
def x(g, x_type, axis, size, step):
    from .creation import arange
    from .picking import take_x_grad

    count = g.shape[axis]
    starts = reshape(arange(0, count * step, step, device=g.device), shape=(count, 1))
    places = starts + arange(size, device=g.device)
    last = g.ndim - 1
    inner = permute(g, axes=(*range(axis + 1), last, *range(axis + 1, last)))
    return take_x_grad(inner, places, size=x_type.shape[axis], axis=axis)


sliding_window.sample((7,), axis=0, size=3).sample((2, 9, 2), axis=1, size=3, step=2)
sliding_window.error_sample((3,), axis=0, size=4, match="does not fit")
