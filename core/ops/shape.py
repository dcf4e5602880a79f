"""The same elements in another form, composed of views: squeeze, flatten, transpose, flip and their like."""

from __future__ import annotations

import math

import numpy as np

from .. import types as T
from ..errors import ArgumentError, ArgumentTypeError, CopyError, ShapeError
from ..kinds import is_index
from ..op import composite, public
from ..strangers import unfit
from ..types import normalize_axes, normalize_axis
from ..value import Tensor
from .joining import concat, split, stack
from .padding import pad
from .slices import basic_index, slice_, slice_update
from .views import as_shape, broadcast_to, permute, reshape

#: what other families take from here
__all__ = [
    "as_shape", "basic_index", "broadcast_to", "concat", "expand_dims", "flatten", "pad", "permute", "reshape",
    "slice_", "slice_update", "split", "squeeze", "stack", "sum_to", "transpose",
]  # fmt: skip


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
        else normalize_axes("squeeze", axis, x.ndim, x.type)
    )
    for a in axes:
        if x.shape[a] != 1:
            raise ShapeError(
                "squeeze", f"axis {a} of {x.type} has size {x.shape[a]}, not 1", "name an axis of size 1"
            )
    return reshape(x, shape=tuple(n for a, n in enumerate(x.shape) if a not in axes))


squeeze.sample((1, 3, 1)).sample((1, 3, 1), axis=0).sample((1, 3, 1), axis=(0, -1)).sample(())
squeeze.error_sample((2, 1), axis=0, match="not 1")


@composite
def expand_dims(x, *, axis=0):
    """x with new axes of size 1 at one position or several (`axis`, an int or a tuple) of the result.

    Raises: ArgumentError for a position outside the result or named twice.
    """
    count = len(axis) if isinstance(axis, (list, tuple)) else 1
    places = normalize_axes("expand_dims", axis, x.ndim + count)
    rest = iter(x.shape)
    return reshape(x, shape=tuple(1 if a in places else next(rest) for a in range(x.ndim + count)))


expand_dims.sample((3, 2)).sample((3, 2), axis=-1).sample((3, 2), axis=(0, 2)).sample((), axis=(0, 1))
expand_dims.error_sample((2,), axis=2, match="axis=2")


@composite
def flatten(x, *, start_axis=0, end_axis=-1):
    """x with the axes from start_axis to end_axis (inclusive) merged into one. A view where strides allow."""
    if x.ndim == 0:
        return reshape(x, shape=(1,))
    a = normalize_axis("flatten", start_axis, x.ndim, x.type)
    b = normalize_axis("flatten", end_axis, x.ndim, x.type)
    if a > b:
        raise ArgumentError("flatten", f"start_axis={start_axis} is after end_axis={end_axis}", "swap them")
    return reshape(x, shape=(*x.shape[:a], math.prod(x.shape[a : b + 1]), *x.shape[b + 1 :]))


flatten.sample((2, 3, 4)).sample((2, 3, 4), start_axis=1).sample(()).error_sample(
    (2, 3), start_axis=1, end_axis=0, match="after"
)


@composite
def unflatten(x, *, axis, sizes):
    """x with one axis as several of the given sizes, one of which may be -1. Returns: a view.

    Raises: ShapeError when the sizes do not multiply to the axis.
    """
    a = normalize_axis("unflatten", axis, x.ndim, x.type)
    sizes = as_shape("unflatten", sizes)
    known = math.prod(n for n in sizes if n != -1)
    if sizes.count(-1) == 1 and known and x.shape[a] % known == 0:
        sizes = tuple(x.shape[a] // known if n == -1 else n for n in sizes)
    if not sizes or math.prod(sizes) != x.shape[a] or min(sizes) < 0:
        raise ShapeError(
            "unflatten", f"sizes={list(sizes)} do not multiply to axis {a} of {x.type}", "make them divide it"
        )
    return reshape(x, shape=(*x.shape[:a], *sizes, *x.shape[a + 1 :]))


unflatten.sample((2, 6), axis=1, sizes=(2, -1)).sample((4, 3), axis=0, sizes=(2, 1, 2))
unflatten.error_sample((2, 6), axis=1, sizes=(4, -1), match="do not multiply")


@public
def reshape_(x, shape, copy=None):
    """x with another shape and the same elements in row-major order; one size may be -1.

    copy: True never shares memory with x, False never copies, None copies only where strides demand it.
    Raises: ShapeError when sizes do not match, CopyError when copy=False and only a copy would do.
    """
    from .elementwise import assign

    out = reshape(x, shape=shape)
    if copy and isinstance(x, Tensor):
        return assign(out)
    if copy is False and isinstance(x, Tensor) and out._base is None:
        raise CopyError("reshape", f"{x.type} cannot become {out.type} without a copy", "use copy=None")
    return out


@public
def ravel(x):
    """x with one axis. A view where strides allow."""
    return reshape(x, shape=(-1,)) if x.size else reshape(x, shape=(0,))


@public
def view_as(x, other):
    """x in the shape of another tensor."""
    return reshape(x, shape=other.shape)


# ---------------------------------------------------------------- the order of axes


@composite
def transpose(x, *, axis1=-2, axis2=-1):
    """x with two axes swapped (the last two by default). Returns: a view."""
    a, b = (normalize_axis("transpose", k, x.ndim, x.type) for k in (axis1, axis2))
    axes = list(range(x.ndim))
    axes[a], axes[b] = axes[b], axes[a]
    return permute(x, axes=tuple(axes))


transpose.sample((2, 3)).sample((2, 3, 4), axis1=0, axis2=2).error_sample((3,), match="axis=-2 is outside")


@public
def swapaxes(x, axis1, axis2):
    """x with two axes swapped. Returns: a view."""
    return transpose(x, axis1=axis1, axis2=axis2)


@public
def permute_dims(x, axes):
    """x with its axes in the given order: `dg.permute` by the array API's name. Returns: a view."""
    return permute(x, axes=axes)


@public
def matrix_transpose(x):
    """x with its last two axes swapped. Returns: a view. Raises: ShapeError for fewer than two axes."""
    if x.ndim < 2:
        raise ShapeError("matrix_transpose", f"{x.type} is not a matrix", "pass two axes or more")
    return transpose(x)


@composite
def moveaxis(x, *, source, destination):
    """x with axes moved to other places; the rest keeps its order. source, destination: ints or equal tuples.

    Returns: a view. Raises: ArgumentError when they differ in number or name an axis twice.
    """
    one = (int, np.integer)
    sources = (source,) if isinstance(source, one) else tuple(source)
    targets = (destination,) if isinstance(destination, one) else tuple(destination)
    sources = tuple(normalize_axis("moveaxis", a, x.ndim, x.type) for a in sources)
    targets = tuple(normalize_axis("moveaxis", a, x.ndim, x.type) for a in targets)
    if len(sources) != len(targets) or len(set(sources)) < len(sources) or len(set(targets)) < len(targets):
        raise ArgumentError(
            "moveaxis",
            f"source={source} and destination={destination} do not pair up",
            "name each axis once, as many sources as destinations",
        )
    order = [a for a in range(x.ndim) if a not in sources]
    for target, a in sorted(zip(targets, sources)):
        order.insert(target, a)
    return permute(x, axes=tuple(order))


moveaxis.sample((2, 3, 4), source=0, destination=-1).sample((2, 3, 4), source=(0, 1), destination=(2, 0))
moveaxis.error_sample((2, 3), source=(0, 1), destination=0, match="do not pair up")


@public
def movedim(x, source, destination):
    """PyTorch's name of `dg.moveaxis`."""
    return moveaxis(x, source=source, destination=destination)


@composite
def flip(x, *, axis=None):
    """x backwards along the given axes (all when None). Returns: a view with negative strides."""
    axes = normalize_axes("flip", axis, x.ndim, x.type)
    if not axes:
        return x
    index = tuple(("s", n - 1, n, -1) if a in axes and n else ("s", 0, n, 1) for a, n in enumerate(x.shape))
    return slice_(x, index=index)


flip.sample((2, 3)).sample((2, 3), axis=1).sample((2, 3, 2), axis=(0, -1)).sample((0, 2)).sample(())
flip.error_sample((2, 3), axis=2, match="axis=2 is outside")


@public
def fliplr(x):
    """x backwards along axis 1. Returns: a view. Raises: ShapeError for fewer than two axes."""
    if x.ndim < 2:
        raise ShapeError("fliplr", f"{x.type} has no axis 1", "pass two axes or more")
    return flip(x, axis=1)


@public
def flipud(x):
    """x backwards along axis 0. Returns: a view."""
    return flip(x, axis=0)


@composite
def rot90(x, *, k=1, axes=(0, 1)):
    """x turned by k quarters in the plane of two axes, from the first towards the second. Returns: a view.

    Raises: ArgumentError unless two different axes are named.
    """
    if len(tuple(axes)) != 2:
        raise ArgumentError("rot90", f"axes={axes} are not two axes", "name two")
    a, b = (normalize_axis("rot90", i, x.ndim, x.type) for i in axes)
    if a == b:
        raise ArgumentError("rot90", f"axes={axes} are one axis", "name two")
    turns = k % 4
    if turns == 0:
        return x
    if turns == 2:
        return flip(x, axis=(a, b))
    if turns == 1:
        return transpose(flip(x, axis=b), axis1=a, axis2=b)
    return flip(transpose(x, axis1=a, axis2=b), axis=b)


rot90.sample((2, 3)).sample((2, 3), k=2).sample((2, 3, 2), k=3, axes=(1, 2))
rot90.error_sample((2, 3), axes=(1, 1), match="one axis")


# ---------------------------------------------------------------- parts and fitting together


@public
def narrow(x, axis, start, length):
    """`length` slices of x from `start` along an axis. Returns: a view. Raises: ArgumentError when they do not fit."""
    a = normalize_axis("narrow", axis, x.ndim, x.type)
    n = x.shape[a]
    for name, v in (("start", start), ("length", length)):
        if not is_index(v):
            raise ArgumentTypeError("narrow", *unfit(name, v, "an integer"))
    start, length = (int(v) if isinstance(v, Tensor) else v for v in (start, length))
    first = start + n if start < 0 else start
    if first < 0 or length < 0 or first + length > n:
        raise ArgumentError(
            "narrow", f"start={start}, length={length} do not fit axis {a} of {x.type}", f"stay within {n}"
        )
    spots = [("s", 0, m, 1) for m in x.shape]
    spots[a] = ("s", first, length, 1)
    return slice_(x, index=tuple(spots))


@public
def select(x, axis, index):
    """The slice of x at a position along an axis, without it. Returns: a view. Raises: IndexingError outside."""
    a = normalize_axis("select", axis, x.ndim, x.type)
    return slice_(x, index=basic_index("select", x.shape, (slice(None),) * a + (index,)))


@public
def broadcast_arrays(*xs):
    """Tensors broadcast to their common shape: a tuple of read-only views. Raises: ShapeError when there is none."""
    if len(xs) == 1 and isinstance(xs[0], (list, tuple)):
        xs = tuple(xs[0])
    if not xs:
        return ()
    shape = T.broadcast_shapes("broadcast_arrays", *(x.shape for x in xs))
    return tuple(broadcast_to(x, shape=shape) for x in xs)


@public
def broadcast_tensors(*xs):
    """PyTorch's name of `dg.broadcast_arrays`."""
    return broadcast_arrays(*xs)


@public
def broadcast_shapes(*shapes):
    """The shape that tensors of these shapes broadcast to. Raises: ShapeError when there is none."""
    return T.broadcast_shapes("broadcast_shapes", *(as_shape("broadcast_shapes", s) for s in shapes))


def _at_least(name, ndim, shape_of):
    def atleast(*xs):
        out = tuple(reshape(x, shape=shape_of(x.shape)) if x.ndim < ndim else x for x in xs)
        return out[0] if len(out) == 1 else out

    atleast.__name__ = atleast.__qualname__ = name
    atleast.__doc__ = f"Tensors with at least {ndim} axes, as NumPy places the new ones: a view, or a tuple."
    return public(atleast)


atleast_1d = _at_least("atleast_1d", 1, lambda s: (1,))
atleast_2d = _at_least("atleast_2d", 2, lambda s: (1, *s) if s else (1, 1))
atleast_3d = _at_least("atleast_3d", 3, lambda s: (*s, 1) if len(s) == 2 else (1, *s, 1) if s else (1, 1, 1))


# ---------------------------------------------------------------- channels and pixels


def _blocks(op, x, ndim, axis, factor, what):
    if x.ndim < ndim:
        raise ShapeError(op, f"x: {x.type} has fewer than {ndim} axes", "pass [..., C, H, W]")
    if factor < 1 or x.shape[axis] % factor:
        raise ShapeError(op, f"{what}={factor} does not divide axis {axis} of x: {x.type}", "use a divisor")


def _pixel_onnx(op_type):
    def rule(o, x, *, factor):
        *lead, c, h, w = x.shape
        flat = x if len(lead) == 1 else o.reshape(x, (math.prod(lead), c, h, w))
        if op_type == "DepthToSpace":
            y = o.DepthToSpace(flat, blocksize=factor, mode="CRD")
            sizes = (c // factor**2, h * factor, w * factor)
        else:
            # SpaceToDepth puts the block outside of the channel: the axes are moved by hand.
            b, n = factor, math.prod(lead)
            parts = o.reshape(flat, (n, c, h // b, b, w // b, b))
            y = o.Transpose(parts, perm=[0, 1, 3, 5, 2, 4])
            sizes = (c * b * b, h // b, w // b)
            return o.reshape(y, (*lead, *sizes))
        return y if len(lead) == 1 else o.reshape(y, (*lead, *sizes))

    return rule


@composite(onnx=_pixel_onnx("DepthToSpace"))
def pixel_shuffle(x, *, factor):
    """Channels as pixels: `out[..., c, h * r + i, w * r + j] = x[..., c * r * r + i * r + j, h, w]`, r the factor.

    x: any[..., C * r**2, H, W]. Returns: any[..., C, H * r, W * r]. Raises: ShapeError when C does not divide.
    Source: Shi et al., CVPR 2016; ONNX DepthToSpace.
    """
    _blocks("pixel_shuffle", x, 3, -3, factor**2, "factor**2")
    *lead, c, h, w = x.shape
    r, k = factor, len(lead)
    parts = reshape(x, shape=(*lead, c // r**2, r, r, h, w))
    moved = permute(parts, axes=(*range(k + 1), k + 3, k + 1, k + 4, k + 2))
    return reshape(moved, shape=(*lead, c // r**2, h * r, w * r))


pixel_shuffle.sample((1, 8, 2, 3), factor=2).sample((9, 2, 2), factor=3)
pixel_shuffle.error_sample((1, 6, 2, 2), factor=2, match="does not divide")


@composite(onnx=_pixel_onnx("SpaceToDepth"))
def pixel_unshuffle(x, *, factor):
    """Pixels as channels: undoes `pixel_shuffle`.

    x: any[..., C, H * r, W * r]. Returns: any[..., C * r**2, H, W]. Raises: ShapeError when H or W does not divide.
    """
    _blocks("pixel_unshuffle", x, 3, -2, factor, "factor")
    _blocks("pixel_unshuffle", x, 3, -1, factor, "factor")
    *lead, c, h, w = x.shape
    r, k = factor, len(lead)
    parts = reshape(x, shape=(*lead, c, h // r, r, w // r, r))
    moved = permute(parts, axes=(*range(k + 1), k + 2, k + 4, k + 1, k + 3))
    return reshape(moved, shape=(*lead, c * r * r, h // r, w // r))


pixel_unshuffle.sample((1, 2, 4, 6), factor=2).error_sample((1, 1, 3, 4), factor=2, match="does not divide")


@composite
def channel_shuffle(x, *, groups):
    """Channels dealt out anew: channel `i * C / groups + j` goes to `j * groups + i`.

    x: any[N, C, ...]. Raises: ShapeError when groups does not divide C. Source: Zhang et al., CVPR 2018.
    """
    _blocks("channel_shuffle", x, 2, 1, groups, "groups")
    n, c, *rest = x.shape
    parts = reshape(x, shape=(n, groups, c // groups, *rest))
    return reshape(transpose(parts, axis1=1, axis2=2), shape=x.shape)


channel_shuffle.sample((2, 6, 3), groups=3).error_sample((2, 6), groups=4, match="does not divide")
