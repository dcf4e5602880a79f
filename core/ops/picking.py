"""Reading by integer tensors: slices along an axis, elements along an axis, tuples of indices."""

# Gradient rules are named after the input they are for, so names repeat here.
# ruff: noqa: F811
from __future__ import annotations

import math

import numpy as np

from .. import dispatch
from .. import types as T
from ..backend import Scalar
from ..errors import ArgumentError, DtypeError, IndexingError, ShapeError
from ..lower import lower_reduce
from ..op import Ints, composite, pointwise, primitive, public
from ..scalar import Expr, s
from ..types import TensorType, normalize_axis
from ..value import Tensor
from .slices import slice_
from .views import broadcast_to, reshape

#: from this many indices on, the check of their range is a kernel
_MANY = 1 << 15
#: a position that no tensor has: what `place` gives for an index outside
NOWHERE = -(1 << 62)


@primitive(internal=True, no_gradient="integer input", no_onnx="a check of eager mode")
def all_within(index, low, high):
    """Whether every index is from low to high - 1. Returns: bool[]."""
    return np.all((index >= low) & (index < high))


@all_within.type
def _(index, low, high):
    return TensorType(T.bool_, ())


@all_within.lower
def _(program, inputs, outputs):
    index, *bounds = inputs
    i, low, high = (
        Expr("cast", T.int64, (Expr("arg", x.dtype, (), k),))
        if x.dtype is not T.int64
        else Expr("arg", T.int64, (), k)
        for k, x in enumerate((index, *(Scalar(b.source, T.int64) for b in bounds)))
    )
    root = Expr("reduce", T.bool_, (s.logical_and(s.ge(i, low), s.lt(i, high)),), "all")
    scalars = [Scalar(b.source, T.int64) for b in bounds]
    axes = tuple(range(len(index.shape)))
    target = outputs[0]._replace(shape=(1,) * len(axes), strides=(0,) * len(axes))
    lower_reduce(program, index.shape, axes, [index, *scalars], [root], [target], ("all_within",))


all_within.sample(Ints((20,), 0, 5), 0, 5).sample(Ints((3, 4), 0, 9), 1, 8).sample(
    Ints((5,), 0, 3, "int32"), 0, 2
)


def check_range(op, extent, index, n, where):
    """Raise IndexingError unless every index is from -n to n - 1. where(): "axis ... of ..."."""
    if not isinstance(index, Tensor):
        return
    size = index.size
    if not size:
        return
    later = getattr(extent, "later", None)
    # The usual call makes nothing for the error.
    if later is None and size < _MANY and extent.below(index, n):
        return

    def refuse(low, high):
        if low < -n or high >= n:
            bad = low if low < -n else high
            legal = f"use {-n} to {n - 1}" if n else "the axis is empty: use an empty index"
            raise IndexingError(op, f"index {bad} is outside {where()}", legal)

    if later is not None:
        later(index, refuse)
        return
    if size >= _MANY:
        with dispatch.set_grad(False):
            if extent(all_within(index, -n, n))[0]:
                return
    refuse(*extent(index))


def axis_of(x, axis):
    return lambda: f"axis {axis} of x: {x.type}"


def check_integer(op, index):
    """Raise DtypeError unless an index (its TensorType) is integer."""
    if not isinstance(index, TensorType) or not index.dtype.is_integer:
        raise DtypeError(op, f"index: {index} is not integer", "convert it to int64")


# ---------------------------------------------------------------- slices along an axis


@primitive(complex="own", onnx=lambda o, x, index, *, axis: o.Gather(x, index, axis=axis))
def take(x, index, *, axis=0):
    """Slices of x along an axis, picked by an integer tensor.

    x: any[..., n, ...], index: int[...] with values from -n to n - 1. Returns: x's shape with the axis replaced
    by index's shape. Raises: IndexingError for an index outside. Source: ONNX Gather.
    """
    return np.take(x, index, axis=axis)


@take.normalize
def _(inputs, axis):
    x = inputs[0]
    return (normalize_axis("take", axis, len(x.shape), getattr(x, "type", None)),)


@take.type
def _(x, index, *, axis):
    check_integer("take", index)
    return TensorType(x.dtype, (*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]))


@take.values
def _(extent, x, index, *, axis):
    check_range("take", extent, index, x.shape[axis], axis_of(x, axis))


@take.grad
def x(g, index, x_type, axis):
    return take_x_grad(g, index, size=x_type.shape[axis], axis=axis)


take.error_sample((2, 3), Ints((2,), 4, 5), match="outside axis 0").error_sample(
    (2,), (2,), match="not integer"
)
take.sample((5, 3), Ints((4,), 0, 5)).sample((2, 5), Ints((2, 2), -5, 5), axis=1).sample((4,), Ints((), 0, 4))
take.sample((3, 0), Ints((2,), 0, 3)).sample((2, 3, 2), Ints((0,), 0, 3, "int32"), axis=1)


@primitive(
    internal=True,
    complex="linear",
    onnx=lambda o, dy, index, *, size, axis: o.scatter_add(dy, index, size, axis),
)
def take_x_grad(dy, index, *, size, axis=0):
    """The gradient of take: dy added up into zeros at the picked slices, in the order of the index.

    An index outside adds nothing. One pass over zeros and one over dy: its cost is that of both sizes.
    """
    lead, rest = dy.shape[:axis], dy.shape[axis + index.ndim :]
    out = np.zeros((*lead, size, *rest), dy.dtype)
    flat = dy.reshape(*lead, -1, *rest)
    for k, i in enumerate(np.ravel(index)):
        if -size <= i < size:
            out[(slice(None),) * axis + (int(i),)] += flat[(slice(None),) * axis + (k,)]
    return out


@take_x_grad.type
def _(dy, index, *, size, axis):
    return TensorType(dy.dtype, (*dy.shape[:axis], size, *dy.shape[axis + index.ndim :]))


@take_x_grad.grad
def dy(g, index, axis):
    return take(g, index, axis=axis)


take_x_grad.sample((4, 3), Ints((4,), 0, 5), size=5).sample((2, 3), Ints((3,), 0, 4), size=4, axis=1)


def wrapped(index, n, mode, op):
    """An index as a mode wants it: "raise" leaves it, "wrap" counts round, "clip" stays inside."""
    from .elementwise import remainder

    if mode == "raise":
        return index
    if mode == "wrap":
        return remainder(index.to(T.int64), max(n, 1))
    if mode == "clip":
        return index.to(T.int64).clip(0, max(n - 1, 0))
    raise ArgumentError(op, f"mode={mode!r}", 'use "raise", "wrap" or "clip"')


@public
def take_(x, indices, axis=None, mode="raise"):
    """Slices of x along an axis, picked by an integer tensor; of x flattened when axis is None.

    x: any[..., n, ...], indices: int[...], from -n to n - 1. mode: "raise" (IndexingError for an index outside in
    eager mode, NaN or 0 there in a graph), "wrap" (counted round), "clip" (the nearest end). Returns: x's shape with
    the axis replaced by the shape of indices.
    """
    if axis.__class__ is int and isinstance(indices, Tensor) and mode == "raise" and 0 <= axis < x.ndim:
        return dispatch.apply(take, (x, indices), (axis,))  # the usual call has nothing to find out
    if axis is None:
        x, axis = reshape(x, shape=(-1,)), 0
    if not isinstance(indices, Tensor):
        indices = dispatch.state.executor.constant(np.asarray(indices), x.device)
    if mode != "raise":
        indices = wrapped(indices, x.shape[normalize_axis("take", axis, x.ndim, x.type)], mode, "take")
    return dispatch.apply(take, (x, indices), (normalize_axis("take", axis, x.ndim, x.type),))


@public
def index_select(x, axis, index):
    """Slices of x along an axis by a vector of indices: `dg.take` in PyTorch's order of arguments."""
    if index.ndim > 1:
        raise ShapeError("index_select", f"index: {index.type} is not a vector", "flatten it, or use take")
    if not index.ndim:
        index = reshape(index, shape=(1,))
    return dispatch.apply(take, (x, index), (normalize_axis("index_select", axis, x.ndim, x.type),))


def _merged(shape, axis, depth):
    return (*shape[:axis], math.prod(shape[axis : axis + depth]), *shape[axis + depth :])


@primitive(
    internal=True, complex="own",
    onnx=lambda o, x, index, *, axis, depth: o.Gather(
        o.reshape(x, _merged(x.shape, axis, depth)), index, axis=axis
    ),
)  # fmt: skip
def take_placed(x, index, *, axis, depth):
    """As `take`, at flat positions over `depth` axes from `axis` on that were checked when they were made."""
    return np.take(x.reshape(_merged(x.shape, axis, depth)), index, axis=axis)


@take_placed.type
def _(x, index, *, axis, depth):
    check_integer("take", index)
    return TensorType(x.dtype, (*x.shape[:axis], *index.shape, *x.shape[axis + depth :]))


@take_placed.grad
def x(g, index, x_type, axis, depth):
    size = math.prod(x_type.shape[axis : axis + depth])
    return reshape(take_x_grad(g, index, size=size, axis=axis), shape=x_type.shape)


take_placed.sample((2, 3, 4), Ints((5,), 0, 12), axis=1, depth=2).sample(
    (2, 3), Ints((2, 2), 0, 6), axis=0, depth=2
)


# ---------------------------------------------------------------- elements along an axis


def check_elements(op, x, index, axis):
    """Raise unless index has x's axes, and its sizes off `axis`."""
    check_integer(op, index)
    fits = x.ndim == index.ndim and all(
        a == axis or n == m for a, (n, m) in enumerate(zip(x.shape, index.shape))
    )
    if not fits:
        raise ShapeError(
            op, f"index: {index} does not fit x: {x} off axis {axis}", "make the other axes equal"
        )


@primitive(
    internal=True,
    complex="own",
    onnx=lambda o, x, index, *, axis: o.GatherElements(x, o.cast(index, T.int64), axis=axis),
)
def take_elements(x, index, *, axis):
    """`out[..., j, ...] = x[..., index[..., j, ...], ...]`: an element for each index, along an axis.

    x and index have equal sizes off the axis. Outside: as `take`. Source: ONNX GatherElements.
    """
    return np.take_along_axis(x, index.astype(np.int64), axis)


@take_elements.normalize
def _(inputs, axis):
    return (normalize_axis("take_along_axis", axis, len(inputs[0].shape), inputs[0].type),)


@take_elements.type
def _(x, index, *, axis):
    check_elements("take_along_axis", x, index, axis)
    return TensorType(x.dtype, index.shape)


@take_elements.values
def _(extent, x, index, *, axis):
    check_range("take_along_axis", extent, index, x.shape[axis], axis_of(x, axis))


@take_elements.grad
def x(g, index, x_type, axis):
    return take_elements_x_grad(g, index, size=x_type.shape[axis], axis=axis)


take_elements.sample((3, 4), Ints((3, 2), -4, 4), axis=1).sample((3, 4), Ints((5, 4), 0, 3), axis=0)
take_elements.sample((2, 3, 2), Ints((2, 1, 2), 0, 3, "int32"), axis=1).sample(
    (0, 2), Ints((0, 2), 0, 1), axis=1
)


@primitive(
    internal=True, complex="own", onnx=lambda o, x, index, *, axis: o.GatherElements(x, index, axis=axis)
)
def take_elements_placed(x, index, *, axis):
    """As `take_elements`, at positions that need no check: they come from sorting, searching or counting."""
    return np.take_along_axis(x, index, axis=axis)


@take_elements_placed.type
def _(x, index, *, axis):
    check_elements("take_elements_placed", x, index, axis)
    return TensorType(x.dtype, index.shape)


@take_elements_placed.grad
def x(g, index, x_type, axis):
    return take_elements_x_grad(g, index, size=x_type.shape[axis], axis=axis)


take_elements_placed.sample((3, 4), Ints((3, 2), 0, 4), axis=1).sample((3, 4), Ints((5, 4), 0, 3), axis=0)
take_elements_placed.error_sample((3, 4), Ints((2, 2)), axis=1, match="does not fit")


def _with_size(shape, axis, size):
    return (*shape[:axis], size, *shape[axis + 1 :])


def _take_elements_x_grad_onnx(o, dy, index, *, size, axis):
    base = o.full(_with_size(dy.shape, axis, size), 0, dy.dtype)
    base.shape = _with_size(dy.shape, axis, size)
    return o.scatter(base, o.cast(index, T.int64), dy, axis, "add")


@primitive(internal=True, complex="linear", onnx=_take_elements_x_grad_onnx)
def take_elements_x_grad(dy, index, *, size, axis):
    """The gradient of take_elements: dy added up into zeros at index, in the order of the index."""
    out = np.zeros(_with_size(dy.shape, axis, size), dy.dtype)
    lines = np.moveaxis(out, axis, 0)
    for i, v in zip(np.moveaxis(index, axis, 0), np.moveaxis(dy, axis, 0)):
        lines[(i, *np.indices(i.shape, sparse=True))] += v
    return out


@take_elements_x_grad.type
def _(dy, index, *, size, axis):
    check_elements("take_elements_x_grad", dy, index, axis)
    return TensorType(dy.dtype, _with_size(dy.shape, axis, size))


@take_elements_x_grad.grad
def dy(g, index, axis):
    return take_elements_placed(g, index, axis=axis)


take_elements_x_grad.sample((3, 2), Ints((3, 2), 0, 4), size=4, axis=1).sample(
    (5, 4), Ints((5, 4), 0, 3), size=3, axis=0
)


@public
def take_along_axis(x, index, axis=-1):
    """Elements of x along an axis, one for each index: `out[..., j, ...] = x[..., index[..., j, ...], ...]`.

    x: any[..., n, ...], index: int[..., m, ...] from -n to n - 1; off the axis the two broadcast. axis None: of x
    flattened. Returns: x's dtype, index's (broadcast) shape. Raises: IndexingError outside.
    """
    if axis is None:
        x, axis = reshape(x, shape=(-1,)), 0
    a = normalize_axis("take_along_axis", axis, x.ndim, x.type)
    x, index = _beside(x, index, a, "take_along_axis")
    return dispatch.apply(take_elements, (x, index), (a,))


def _beside(x, index, axis, op):
    """x and index broadcast to each other off the axis."""
    one, two = x.shape, index.shape
    if one == two:  # the usual call has nothing to find out
        return x, index
    if len(one) != len(two):
        raise ShapeError(op, f"index: {index.type} and x: {x.type} differ in axes", "give them equally many")
    off = lambda t: tuple(1 if a == axis else n for a, n in enumerate(t.shape))
    common = T.broadcast_shapes(op, off(x), off(index))
    full = lambda t: tuple(t.shape[a] if a == axis else n for a, n in enumerate(common))
    return (t if t.shape == full(t) else broadcast_to(t, shape=full(t)) for t in (x, index))


@public
def gather(x, axis, index):
    """`out[..., j, ...] = x[..., index[..., j, ...], ...]`, as PyTorch has it: index may be smaller off the axis.

    Raises: ShapeError when index is larger than x off the axis, IndexingError for an index outside.
    """
    a = normalize_axis("gather", axis, x.ndim, x.type)
    return dispatch.apply(take_elements, (fitted(x, index, a, "gather"), index), (a,))


def fitted(x, index, axis, op):
    """x cut to index's sizes off the axis."""
    if x.shape == index.shape:
        return x
    ok = x.ndim == index.ndim and all(
        k == axis or m <= n for k, (n, m) in enumerate(zip(x.shape, index.shape))
    )
    if not ok:
        raise ShapeError(
            op,
            f"index: {index.type} is larger than x: {x.type} off axis {axis}",
            "make it as large or smaller",
        )
    if all(k == axis or m == n for k, (n, m) in enumerate(zip(x.shape, index.shape))):
        return x
    sizes = [n if k == axis else m for k, (n, m) in enumerate(zip(x.shape, index.shape))]
    return slice_(x, index=tuple(("s", 0, n, 1) for n in sizes))


# ---------------------------------------------------------------- tuples of indices


@pointwise(internal=True, no_gradient="integer input")
def place(outer, index, n, *, axis=0):
    """`outer * n + index`: one more index of a flat position. Negative ones count from the end; a position is
    lost (far negative) when the index or the outer part is outside. axis: what a message calls it."""
    inner = s.where(s.lt(index, 0), index + n, index)
    lost = s.logical_or(s.lt(outer, 0), s.logical_or(s.lt(inner, 0), s.ge(inner, n)))
    return s.where(lost, NOWHERE, outer * n + inner)


@place.values
def _(extent, outer, index, n, *, axis):
    check_range("index", extent, index, n, lambda: f"axis {axis} of size {n}")


place.sample(0, Ints((4,), -5, 5), 5).sample(Ints((3,), 0, 4), Ints((2, 1), 0, 5), 5, axis=1)


def places_of(index, sizes, first=0, outer=0):
    """Flat positions of tuples of indices over axes of the given sizes. index: int[..., len(sizes)]."""
    index = index.to(T.int64)
    for k, n in enumerate(sizes):
        part = slice_(index, index=(Ellipsis, k))
        outer = place(outer, part, n, axis=first + k)
    return outer


def check_tuples(op, x, index, batch_dims=0):
    """The number of indices in a tuple. Raises unless index is int[..., k] with k axes in x."""
    check_integer(op, index.type)
    depth = index.shape[-1] if index.ndim else 0
    if not index.ndim or not 1 <= depth <= x.ndim - batch_dims:
        raise ShapeError(
            op,
            f"index: {index.type} has no tuples for x: {x.type}",
            "end it in an axis of 1 to x.ndim indices",
        )
    return depth


@composite(
    onnx=lambda o, x, index, *, batch_dims: o.GatherND(x, o.cast(index, T.int64), batch_dims=batch_dims)
)
def gather_nd(x, index, *, batch_dims=0):
    """Slices of x at tuples of indices: `out[i, ...] = x[index[i, 0], ..., index[i, k - 1]]`.

    index: int[..., k], from -n to n - 1; batch_dims: leading axes that x and index share. Returns: index's shape
    without the last axis, then x's axes that no index names. Raises: IndexingError outside.
    Source: ONNX GatherND.
    """
    from .creation import arange

    b = batch_dims
    depth = check_tuples("gather_nd", x, index, b)
    if x.shape[:b] != index.shape[:b]:
        raise ShapeError(
            "gather_nd", f"x: {x.type} and index: {index.type} differ in {b} batch axes", "match them"
        )
    batch, sizes, rest = math.prod(x.shape[:b]), x.shape[b : b + depth], x.shape[b + depth :]
    outer = 0
    if b:
        outer = reshape(arange(batch, device=x.device), shape=(*x.shape[:b], *(1,) * (index.ndim - 1 - b)))
    places = places_of(index, sizes, b, outer)
    return take(reshape(x, shape=(batch * math.prod(sizes), *rest)), places, axis=0)


gather_nd.sample((3, 4, 2), Ints((5, 2), -3, 3)).sample((2, 3, 4), Ints((2, 2, 1), 0, 3), batch_dims=1)
gather_nd.sample((3, 2), Ints((4, 1), 0, 3)).error_sample((3,), Ints((4, 2), 0, 3), match="no tuples")
