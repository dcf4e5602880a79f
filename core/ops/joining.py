"""Tensors joined and cut: concat, stack, split, tile, repeat, roll, meshgrid."""

# Gradient rules are named after the input they are for, so names repeat here.
# ruff: noqa: F811
from __future__ import annotations

import math

import numpy as np

from .. import dispatch
from .. import types as T
from ..backend import Operand
from ..errors import ArgumentError, ArgumentTypeError, ShapeError
from ..kinds import is_index
from ..lower import copy
from ..numbers import whole
from ..op import composite, primitive, public
from ..room import tables
from ..strangers import check_numbers, size, whole_numbers
from ..types import TensorType, normalize_axis
from ..value import Tensor
from .slices import slice_
from .views import broadcast_to, reshape


@primitive(complex="own", onnx=lambda o, *xs, axis: o.Concat(*xs, axis=axis))
def concat(*xs, axis=0):
    """Tensors joined along an existing axis.

    xs: a list of tensors whose other axes agree. Returns: the promoted dtype. Source: ONNX Concat.
    """
    return np.concatenate(xs, axis=axis)


@concat.normalize
def _(inputs, axis):
    if not inputs:
        raise ArgumentTypeError("concat", "needs at least one tensor", "pass a non-empty list")
    return (normalize_axis("concat", axis, len(inputs[0].shape), getattr(inputs[0], "type", None)),)


@concat.type
def _(*xs, axis=0):
    dtype = T.promote_all(x.dtype for x in xs)
    for x in xs:
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


def _is_at(x: Operand, place: Operand) -> bool:
    """Whether an operand stands in its place already."""
    same = all(n == 1 or s == t for n, s, t in zip(x.shape, x.strides, place.strides))
    return same and (x.source, x.offset, x.dtype) == (place.source, place.offset, place.dtype)


@concat.lower
def _(program, inputs, outputs, *, axis):
    out, start = outputs[0], 0
    for x in inputs:
        place = out._replace(
            offset=out.offset + start * out.strides[axis] * out.dtype.itemsize, shape=x.shape
        )
        if not _is_at(x, place):
            copy(program, x, place)
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


concat.sample((2, 3), (4, 3)).sample((2, 3), (2, 1), (2, 2), axis=-1).sample((0, 3), (1, 3))
concat.error_sample((2, 3), (2, 4), match="does not join").error_sample((), (), match="outside")


@public
def concat_(xs, axis=0):
    """Tensors joined along an existing axis; along the only one of their flat forms when axis is None.

    xs: a list of tensors whose other axes agree. Returns: the promoted dtype.
    """
    if axis is None:
        return concat([reshape(x, shape=(-1,)) for x in xs], axis=0)
    return concat(list(xs), axis=axis)


@composite
def stack(*xs, axis=0):
    """Tensors of one shape joined along a new axis. Raises: ShapeError for different shapes."""
    for x in xs:
        if x.shape != xs[0].shape:
            raise ShapeError("stack", f"{x.type} differs from {xs[0].type}", "make the shapes equal")
    a = normalize_axis("stack", axis, xs[0].ndim + 1)
    shape = (*xs[0].shape[:a], 1, *xs[0].shape[a:])
    return concat([reshape(x, shape=shape) for x in xs], axis=a)


stack.sample((2, 3), (2, 3)).sample((3,), (3,), axis=-1).sample((), ()).sample((2, 0), (2, 0), axis=1)
stack.error_sample((2, 3), (3, 2), match="differs")


def _lifted(xs, ndim):
    """The tensors with at least `ndim` axes, as NumPy's h-, v- and dstack see them."""
    shapes = {
        1: lambda s: (1,),
        2: lambda s: (1, *s) if s else (1, 1),
        3: lambda s: (*s, 1) if len(s) == 2 else (1, *s, 1) if s else (1, 1, 1),
    }
    return [reshape(x, shape=shapes[ndim](x.shape)) if x.ndim < ndim else x for x in xs]


@public
def hstack(xs):
    """Tensors side by side: joined along axis 1, vectors and numbers along axis 0."""
    xs = _lifted(xs, 1)
    return concat(xs, axis=0 if xs[0].ndim == 1 else 1)


@public
def vstack(xs):
    """Tensors below each other: joined along axis 0, vectors as rows."""
    return concat(_lifted(xs, 2), axis=0)


@public
def dstack(xs):
    """Tensors behind each other: joined along axis 2, matrices as [M, N, 1], vectors as [1, N, 1]."""
    return concat(_lifted(xs, 3), axis=2)


@public
def column_stack(xs):
    """Vectors as columns of a matrix, beside matrices."""
    return concat([reshape(x, shape=(-1, 1)) if x.ndim < 2 else x for x in xs], axis=1)


# ---------------------------------------------------------------- parts


def _part(x, axis, start, count):
    return slice_(
        x, index=tuple(("s", start, count, 1) if k == axis else ("s", 0, m, 1) for k, m in enumerate(x.shape))
    )


#: tensors that one call makes, at most
_PARTS = 1 << 20


def _refuse_many(op, count):
    if count > _PARTS:
        raise ArgumentError(op, f"that would be {count:,} tensors", "keep the axis in one, or reshape it")


@composite
def split(x, *, sizes, axis=0):
    """x cut along an axis into a tuple of views. sizes: the length of each part, or one length for all.

    Raises: ShapeError when the sizes do not add up. Gradient: one concat of the parts' gradients.
    """
    a = normalize_axis("split", axis, x.ndim, x.type)
    n = x.shape[a]
    if isinstance(sizes, (int, np.integer)):
        if sizes < 1:
            raise ArgumentError("split", f"sizes={sizes} is not positive", "use 1 or more")
        _refuse_many("split", -(-n // sizes))
        parts = [min(sizes, n - k) for k in range(0, n, sizes)] or [0]
    else:
        parts = list(sizes)
    if sum(parts) != n or min(parts, default=0) < 0:
        raise ShapeError(
            "split", f"sizes={sizes} add up to {sum(parts)}, axis {a} of {x.type} has {n}", "make them equal"
        )
    out, start = [], 0
    for part in parts:
        out.append(_part(x, a, start, part))
        start += part
    return tuple(out)


@split.grad
def x(gs, axis):
    return concat(gs, axis=axis)


split.sample((6, 2), sizes=4).sample((2, 5), sizes=(2, 3), axis=1).sample((0, 2), sizes=2)
split.error_sample((6, 2), sizes=(2, 2), match="add up to 4")


#: most parts that a tensor is cut into: what is above is a slip, and would be made until memory ends
PARTS = 2**20


@public
def tensor_split(x, indices_or_sections, axis=0):
    """x cut along an axis into a tuple of views: that many nearly equal parts, or before each index given.

    The first parts are longer by one when the axis does not divide. Raises: ArgumentError for no section.
    """
    a = normalize_axis("tensor_split", axis, x.ndim, x.type)
    n = x.shape[a]
    if isinstance(indices_or_sections, (int, np.integer)):
        count = size("tensor_split", "indices_or_sections", indices_or_sections, 1, PARTS)
        bounds = [0]
        for k in range(count):
            bounds.append(bounds[-1] + n // count + (k < n % count))
        return split(x, sizes=tuple(b - c for b, c in zip(bounds[1:], bounds)), axis=a)
    inner = [slice(None, int(k)).indices(n)[1] for k in indices_or_sections]
    starts, ends = [0, *inner], [*inner, n]
    return tuple(_part(x, a, s, max(0, e - s)) for s, e in zip(starts, ends))


@public
def chunk(x, chunks, axis=0):
    """x cut along an axis into at most `chunks` views of one length; the last may be shorter."""
    a = normalize_axis("chunk", axis, x.ndim, x.type)
    check_numbers("chunk", chunks=chunks)
    if chunks < 1:
        raise ArgumentError("chunk", f"chunks={chunks} is not positive", "use 1 or more")
    return split(x, sizes=max(1, -(-x.shape[a] // chunks)), axis=a)


@composite
def unstack(x, *, axis=0):
    """The slices of x along an axis, without it: a tuple of views. Raises: ShapeError for a 0-d tensor.

    Gradient: one stack of the parts' gradients.
    """
    if x.ndim == 0:
        raise ShapeError("unstack", "a 0-d tensor has no axis", "pass a tensor with an axis")
    a = normalize_axis("unstack", axis, x.ndim, x.type)
    front = tuple(("s", 0, n, 1) for n in x.shape[:a])
    back = tuple(("s", 0, n, 1) for n in x.shape[a + 1 :])
    _refuse_many("unstack", x.shape[a])
    return tuple(slice_(x, index=(*front, ("i", k), *back)) for k in range(x.shape[a]))


@unstack.grad
def x(gs, axis):
    return stack(gs, axis=axis)


unstack.sample((3, 2)).sample((2, 3), axis=-1).error_sample((), match="no axis")


# ---------------------------------------------------------------- repetition


def _tile_onnx(o, x, *, reps):
    counts = (reps,) if isinstance(reps, (int, np.integer)) else tuple(reps)
    if len(counts) > len(x.shape):
        x = o.reshape(x, (*(1,) * (len(counts) - len(x.shape)), *x.shape))
        return o.Tile(x, o.ints(counts))
    return o.Tile(x, o.ints((1,) * (len(x.shape) - len(counts)) + counts))


@composite(onnx=_tile_onnx)
def tile(x, *, reps):
    """x repeated as a whole along each axis: `tile([a, b], 2)` is `[a, b, a, b]`.

    reps: a count an axis; fewer than axes count for the last ones, more add leading axes. Raises: ArgumentError
    for a negative count. Source: ONNX Tile.
    """
    counts = (reps,) if isinstance(reps, (int, np.integer)) else tuple(reps)
    if min(counts, default=0) < 0:
        raise ArgumentError("tile", f"reps={reps} has a negative count", "use counts from 0")
    ndim = max(x.ndim, len(counts))
    counts = (1,) * (ndim - len(counts)) + counts
    shape = (1,) * (ndim - x.ndim) + x.shape
    # [1, n] per axis becomes [count, n], and both are one axis again.
    wide = reshape(x, shape=tuple(v for n in shape for v in (1, n)))
    full = broadcast_to(wide, shape=tuple(v for n, r in zip(shape, counts) for v in (r, n)))
    return reshape(full, shape=tuple(n * r for n, r in zip(shape, counts)))


tile.sample((2, 3), reps=(2, 2)).sample((3,), reps=2).sample((2,), reps=(2, 1)).sample((2, 3), reps=(0, 1))
tile.error_sample((2, 3), reps=(-1, 1), match="negative")


def _onnx_repeat_places(o, counts, *, total):
    """Place i belongs to the first k whose counts up to k add up to more than i: as many as do not are before it."""
    ends = o.CumSum(o.cast(counts, T.int64), o.literal(np.asarray(0, np.int64)))
    place = o.Unsqueeze(o.counted(0, 1, total, T.int64), o.ints((1,)))
    return o.reduce("ReduceSum", o.cast(o.LessOrEqual(ends, place), T.int64), 1, False)


@primitive(internal=True, no_gradient="integer input", onnx=_onnx_repeat_places)
def repeat_places(counts, *, total):
    """Position k, counts[k] times, for each k in order. counts: int[n], adding up to total. Returns: int64[total]."""
    return np.repeat(np.arange(counts.size), counts)


@repeat_places.type
def _(counts, *, total):
    if not counts.dtype.is_integer or counts.ndim != 1:
        raise ShapeError("repeat", f"repeats: {counts} is not int[n]", "pass a vector of integers")
    return TensorType(T.int64, (total,))


repeat_places.sample(np.array([2, 0, 3]), total=5)


@public
def repeat(x, repeats, axis=None):
    """Each element (slice along an axis) repeated in place: `repeat([a, b], 2)` is `[a, a, b, b]`.

    repeats: an int, or int[n] with a count for each slice; its sum is read then. axis None: of x flattened.
    Raises: ArgumentError for a negative count, ShapeError when the counts do not fit the axis.
    """
    from .picking import take
    from .reduction import min_, sum_

    if axis is None:
        x, axis = reshape(x, shape=(-1,)), 0
    a = normalize_axis("repeat", axis, x.ndim, x.type)
    n = x.shape[a]
    if isinstance(repeats, (list, tuple, np.ndarray)):
        repeats = dispatch.state.executor.constant(whole_numbers("repeat", "repeats", repeats), x.device)
    if isinstance(repeats, Tensor):
        if repeats.size == 1 and n != 1:
            repeats = broadcast_to(reshape(repeats, shape=(1,)), shape=(n,))
        if repeats.shape != (n,):
            raise ShapeError(
                "repeat", f"repeats: {repeats.type} does not fit axis {a} of {x.type}", "pass a count a slice"
            )
        if n:

            def refuse(least):
                if least < 0:
                    raise ArgumentError("repeat", f"repeats has {int(least)}", "use counts from 0")

            with dispatch.set_grad(False):
                dispatch.state.executor.check(min_(repeats), refuse)
        total = int(sum_(repeats).item()) if n else 0
        return take(x, repeat_places(repeats, total=total), axis=a)
    if not is_index(repeats) or int(repeats) < 0:
        raise ArgumentError("repeat", f"repeats={repeats!r} is not a count", "use an int from 0")
    count = int(repeats)
    wide = reshape(x, shape=(*x.shape[: a + 1], 1, *x.shape[a + 1 :]))
    full = broadcast_to(wide, shape=(*x.shape[: a + 1], count, *x.shape[a + 1 :]))
    return reshape(full, shape=(*x.shape[:a], n * count, *x.shape[a + 1 :]))


@public
def repeat_interleave(x, repeats, axis=None):
    """PyTorch's name of `dg.repeat`."""
    return repeat(x, repeats, axis)


def _moves(ndim, x, shift, axis):
    """By axis, how far something of so many axes is rolled; x: what errors show."""
    axes = (axis,) if isinstance(axis, (int, np.integer)) else tuple(axis)
    shifts = (shift,) if isinstance(shift, (int, np.integer)) else tuple(shift)
    if len(shifts) == 1:
        shifts *= len(axes)
    if len(axes) == 1:
        axes *= len(shifts)
    if len(shifts) != len(axes):
        raise ArgumentError(
            "roll", f"shift={shift} and axis={axis} differ in number", "give one shift an axis"
        )
    moves: dict = {}
    for s, a in zip(shifts, axes):
        a = normalize_axis("roll", a, ndim, x)
        moves[a] = moves.get(a, 0) + whole(s)
    return moves


def _onnx_roll(o, x, *, shift, axis):
    """The rest of a shift over a size that the model learns when it runs is taken there."""
    whole_shape, shape = x.shape, x.shape if axis is not None else (x.size,)
    if axis is None:
        x = o.reshape(x, shape)
    for a, s in _moves(len(shape), whole_shape, shift, axis or 0).items():
        n, size, along = shape[a], o.ints((shape[a],)), o.ints((a,))
        if o.fixed((n,)) is not None:
            start = o.ints((n - s % n if n else 0,))
        else:
            start = o.Sub(size, o.Mod(o.ints((s,)), o.Max(size, o.ints((1,)))))
        x = o.Concat(o.Slice(x, start, size, along), o.Slice(x, o.ints((0,)), start, along), axis=a)
    return x if axis is not None else o.reshape(x, whole_shape)


@composite(onnx=_onnx_roll)
def roll(x, *, shift, axis=None):
    """x moved round along axes: what leaves at the end comes back at the start.

    shift: places, an int or one an axis; axis: an int or a tuple; None rolls x flattened and keeps its shape.
    Raises: ArgumentError when shifts and axes differ in number.
    """
    if axis is None:
        return reshape(roll(reshape(x, shape=(-1,)), shift=shift, axis=0), shape=x.shape)
    for a, s in _moves(x.ndim, x.type, shift, axis).items():
        n = x.shape[a]
        s = s % n if n else 0
        if s:
            x = concat([_part(x, a, n - s, s), _part(x, a, 0, n - s)], axis=a)
    return x


roll.sample((5,), shift=2).sample((3, 4), shift=-1, axis=1).sample((3, 4), shift=(1, 2), axis=(0, 1))
roll.sample((2, 3), shift=4).error_sample((3, 4), shift=(1, 2, 3), axis=(0, 1), match="differ")


@public
def meshgrid(*xs, indexing="xy"):
    """Coordinates over the grid that vectors span: a tuple of read-only views, one a vector.

    xs: vectors (or 0-d) of sizes n1, n2, ...; indexing: "ij" gives shape [n1, n2, n3, ...], "xy" swaps the first
    two. Raises: ArgumentError for another word, ShapeError for a matrix.
    """
    if len(xs) == 1 and isinstance(xs[0], (list, tuple)):
        xs = tuple(xs[0])
    if indexing not in ("xy", "ij"):
        raise ArgumentError("meshgrid", f"indexing={indexing!r}", 'use "xy" or "ij"')
    for x in xs:
        if x.ndim > 1:
            raise ShapeError("meshgrid", f"{x.type} is not a vector", "pass vectors")
    order = list(range(len(xs)))
    if indexing == "xy" and len(xs) > 1:
        order[:2] = [1, 0]
    shape = tuple(xs[k].size for k in order)
    out = []
    for k, x in enumerate(xs):
        spot = order.index(k)
        flat = reshape(x, shape=tuple(x.size if a == spot else 1 for a in range(len(xs))))
        out.append(broadcast_to(flat, shape=shape))
    return tuple(out)


@public
def cartesian_prod(*xs):
    """Every combination of elements of vectors, the last running fastest: [n1 * n2 * ..., len(xs)].

    One vector comes back as it is.
    """
    if len(xs) == 1:
        return xs[0]
    return stack([reshape(m, shape=(-1,)) for m in meshgrid(*xs, indexing="ij")], axis=1)


@public
def combinations(x, r=2, with_replacement=False):
    """All combinations of r elements of a vector in order of position: [count, r]."""
    from itertools import combinations as plain
    from itertools import combinations_with_replacement as replaced

    from .picking import take

    if x.ndim != 1:
        raise ShapeError("combinations", f"{x.type} is not a vector", "flatten it")
    n = x.shape[0]
    count = math.comb(n + r - 1 if with_replacement and n else n, r)
    tables("combinations", count * (8 + r), f"r={r} of {n} elements")
    rows = list((replaced if with_replacement else plain)(range(x.shape[0]), r))
    places = np.array(rows, np.int64).reshape(len(rows), r)
    return take(x, dispatch.state.executor.constant(places, x.device), axis=0)


@public
def block_diag(*xs):
    """Matrices along the diagonal of a larger one, zeros elsewhere. Vectors are rows, numbers 1 x 1."""
    from .padding import pad

    blocks = _lifted(xs, 2)
    for x in blocks:
        if x.ndim != 2:
            raise ShapeError("block_diag", f"{x.type} is not a matrix", "pass matrices")
    columns, before, rows = sum(x.shape[1] for x in blocks), 0, []
    for x in blocks:
        n = x.shape[1]
        rows.append(pad(x, padding=((0, 0), (before, columns - before - n))))
        before += n
    return concat(rows, axis=0)
