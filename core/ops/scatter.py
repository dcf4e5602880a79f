"""Writing by integer tensors: slices and elements put, added, multiplied, or kept when larger or smaller."""

# Gradient rules are named after the input they are for, so names repeat here.
# ruff: noqa: F811
from __future__ import annotations

import math

import numpy as np

from .. import dispatch
from .. import types as T
from ..errors import ArgumentError, DtypeError, ShapeError
from ..op import composite, primitive, public
from ..strangers import brief
from ..types import TensorType, normalize_axis
from ..value import Tensor
from .picking import (
    axis_of,
    check_elements,
    check_integer,
    check_range,
    check_tuples,
    fitted,
    place,
    places_of,
    take,
    take_elements,
    take_placed,
)
from .slices import slice_, slice_update
from .views import broadcast_to, reshape

_UFUNCS = {"multiply": np.multiply, "maximum": np.maximum, "minimum": np.minimum}
#: other names of the ways to combine -> ours
_REDUCE = {
    "set": "set", "none": "set", "add": "add", "sum": "add", "multiply": "multiply", "prod": "multiply",
    "mul": "multiply", "maximum": "maximum", "amax": "maximum", "max": "maximum", "minimum": "minimum",
    "amin": "minimum", "min": "minimum", "mean": "mean",
}  # fmt: skip


def _reduce(op, word):
    found = _REDUCE.get("set" if word is None else word)
    if found is None:
        raise ArgumentError(op, f"reduce={word!r}", f"use one of {', '.join(sorted(set(_REDUCE.values())))}")
    return found


# ---------------------------------------------------------------- slices at flat positions of some axes


def _flat_slices(x, axis, depth):
    return (
        math.prod(x.shape[:axis]),
        math.prod(x.shape[axis : axis + depth]),
        math.prod(x.shape[axis + depth :]),
    )


def _slices_type(op, x, index, v, axis, depth):
    check_integer(op, index)
    part = (*x.shape[:axis], *index.shape, *x.shape[axis + depth :])
    if isinstance(v, TensorType):
        if v.shape != part:
            raise ShapeError(
                op, f"the values {v} do not have the shape {list(part)} of what they replace", "reshape"
            )
        if v.dtype is not x.dtype:
            raise DtypeError(op, f"the values are {v.dtype}, x is {x.dtype}", "convert one of them")
    return x


def _slices_body(x, index, v, axis, depth, combine):
    lead, n, rest = _flat_slices(x, axis, depth)
    out = np.array(x).reshape(lead, n, rest)
    places = np.ravel(index)
    v = np.broadcast_to(np.asarray(v, x.dtype), (*x.shape[:axis], *index.shape, *x.shape[axis + depth :]))
    v = v.reshape(lead, places.size, rest)
    for k, i in enumerate(places):
        if -n <= i < n:
            out[:, i] = combine(out[:, i], v[:, k])
    return out.reshape(x.shape)


def _slices_onnx(o, x, index, v, *, axis, depth, reduction):
    return o.scatter_slices(x, index, v, axis, depth, reduction)


@primitive(
    internal=True, updates=True, complex="linear",
    onnx=lambda o, x, index, v, *, axis, depth, add: _slices_onnx(
        o, x, index, v, axis=axis, depth=depth, reduction="add" if add else None
    ),
)  # fmt: skip
def put_slices(x, index, v, *, axis=0, depth=1, add=False):
    """x with slices replaced by v (or v added to them), at flat positions over `depth` axes from `axis` on.

    index: int[...]; v: a number, or x's shape with these axes replaced by index's shape. In the order of the index:
    of two equal positions the last one stays. A position outside is left out. Source: ONNX ScatterElements.
    """
    return _slices_body(x, index, v, axis, depth, (lambda a, b: a + b) if add else (lambda a, b: b))


@put_slices.type
def _(x, index, v, *, axis, depth, add):
    return _slices_type("put_slices", x, index, v, axis, depth)


def _check_slices(extent, x, index, v, *, axis, depth, **_):
    if depth == 1:  # of several axes, each index was checked by itself
        check_range("put_slices", extent, index, x.shape[axis], axis_of(x, axis))


put_slices.values(_check_slices)


def _nothing(g, shape):
    """Zero for a part of g: a number, or a tensor for complex dtypes."""
    from .creation import full

    return broadcast_to(full((), 0, g.dtype, g.device), shape=shape) if g.dtype.is_complex else 0


def _picked(x, index, axis, depth):
    """The slices of x at flat positions over `depth` axes."""
    return take_placed(x, index, axis=axis, depth=depth)


@put_slices.grad
def x(g, index, axis, depth, add):
    if add:
        return g
    part = (*g.shape[:axis], *index.shape, *g.shape[axis + depth :])
    return put_slices(g, index, _nothing(g, part), axis=axis, depth=depth)


@put_slices.grad
def v(g, index, axis, depth, add):
    part = _picked(g, index, axis, depth)
    if add:
        return part
    # Of equal positions only the last one's value is in the result.
    from .creation import arange_from, full
    from .elementwise import where

    n = math.prod(g.shape[axis : axis + depth])
    order = reshape(arange_from(0, 1, size=index.size, dtype=T.int64, device=g.device), shape=index.shape)
    owner = put_slices(full((n,), -1, T.int64, g.device), index, order)
    last = take(owner, index) == order
    last = reshape(last, shape=(*(1,) * axis, *index.shape, *(1,) * (g.ndim - axis - depth)))
    return where(last, part, 0.0)


put_slices.sample((5, 3), np.array([3, 1]), (2, 3)).sample((2, 4), np.array([[0, -1]]), (2, 1, 2), axis=1)
put_slices.sample((2, 2, 3), np.array([0, 3]), (2, 3), depth=2).sample((4,), np.array([1, 1, 2]), 1.5)
put_slices.sample((5, 3), np.array([3, 1, 3]), (3, 3)).sample((5,), np.array([], np.int64), (0,))
put_slices.sample((5, 3), np.array([3, 1, 3]), (3, 3), add=True).sample(
    (3, 2), np.array([0, 0]), (3, 2), axis=1, add=True
)
put_slices.error_sample((5, 3), np.array([3, 1]), (3, 3), match="do not have the shape [2, 3]")
put_slices.error_sample((5,), np.array([7]), (1,), match="index 7 is outside axis 0")


@primitive(
    internal=True, updates=True,
    onnx=lambda o, x, index, v, *, axis, depth, reduce: _slices_onnx(
        o, x, index, v, axis=axis, depth=depth, reduction=reduce
    ),
)  # fmt: skip
def combine_slices(x, index, v, *, axis=0, depth=1, reduce):
    """As `put_slices`, with old and new values multiplied, or the larger or smaller kept (NaN wins)."""
    return _slices_body(x, index, v, axis, depth, _UFUNCS[reduce])


@combine_slices.type
def _(x, index, v, *, axis, depth, reduce):
    return _slices_type("combine_slices", x, index, v, axis, depth)


combine_slices.values(_check_slices)


@combine_slices.grad_joint
def _(g, x, index, v, out, axis, depth, reduce):
    get = lambda t: _picked(t, index, axis, depth)
    put = lambda base, value, how: _put_slices(base, index, value, axis, depth, how)
    return _combined_grads(g, x, v, out, get, put, reduce)


def _put_slices(base, index, value, axis, depth, how):
    if how in ("set", "add"):
        return dispatch.apply(put_slices, (base, index, value), (axis, depth, how == "add"))
    return combine_slices(base, index, value, axis=axis, depth=depth, reduce=how)


for _how in _UFUNCS:
    combine_slices.sample((5, 3), np.array([3, 1, 3]), (3, 3), reduce=_how)
combine_slices.sample((2, 2, 3), np.array([0, 3]), (2, 3), depth=2, reduce="multiply")


def _combined_grads(g, x, v, out, get, put, reduce):
    """Gradients of x, index and v. Products: of all other factors; larger or smaller: shared among equal ones."""
    from .creation import full
    from .elementwise import where

    if not isinstance(v, Tensor):
        v = full(get(g).shape, v, g.dtype, g.device)
    one = lambda mask: mask.to(g.dtype)
    if reduce == "multiply":
        # The product without its zero factors, and how many there are, tell the product of all others.
        zero_x, zero_v = x == 0, v == 0
        safe_x, safe_v = where(zero_x, 1.0, x), where(zero_v, 1.0, v)
        product = put(safe_x, safe_v, "multiply")
        zeros = put(one(zero_x), one(zero_v), "add")
        other_x = where(zeros - one(zero_x) == 0, product / safe_x, 0.0)
        other_v = where(get(zeros) - one(zero_v) == 0, get(product) / safe_v, 0.0)
        return g * other_x, None, get(g) * other_v
    hit_x, hit_v = one(x == out), one(v == get(out))
    share = g / put(hit_x, hit_v, "add").clip(1.0, None)
    return share * hit_x, None, get(share) * hit_v


# ---------------------------------------------------------------- elements along an axis


def _elements_type(x, index, v, axis):
    check_elements("scatter", x, index, axis)
    if isinstance(v, TensorType):
        if v.shape != index.shape:
            raise ShapeError(
                "scatter", f"the values {v} do not have the shape of index: {index}", "make them equal"
            )
        if v.dtype is not x.dtype:
            raise DtypeError("scatter", f"the values are {v.dtype}, x is {x.dtype}", "convert one of them")
    return x


def _elements_body(x, index, v, axis, combine):
    out = np.array(np.moveaxis(x, axis, 0))
    places, n = np.moveaxis(index, axis, 0), x.shape[axis]
    v = np.moveaxis(np.broadcast_to(np.asarray(v, x.dtype), index.shape), axis, 0)
    for k in np.ndindex(places.shape):
        if -n <= places[k] < n:
            spot = (int(places[k]), *k[1:])
            out[spot] = combine(out[spot], v[k])
    return np.moveaxis(out, 0, axis)


def _elements_onnx(o, x, index, v, axis, reduction):
    if not hasattr(v, "name"):
        v = o.Expand(o._number(v, x.dtype), o.Shape(index))
    return o.scatter(x, o.cast(index, T.int64), v, axis, reduction)


@primitive(
    internal=True, updates=True, complex="linear",
    onnx=lambda o, x, index, v, *, axis, add: _elements_onnx(o, x, index, v, axis, "add" if add else None),
)  # fmt: skip
def put_elements(x, index, v, *, axis, add=False):
    """x with `x[..., index[..., j, ...], ...]` replaced by v (or v added to it), in the order of the index.

    x and index have equal sizes off the axis; v: index's shape, or a number. Source: ONNX ScatterElements.
    """
    return _elements_body(x, index, v, axis, (lambda a, b: a + b) if add else (lambda a, b: b))


@put_elements.type
def _(x, index, v, *, axis, add):
    return _elements_type(x, index, v, axis)


def _check_elements(extent, x, index, v, *, axis, **_):
    check_range("scatter", extent, index, x.shape[axis], axis_of(x, axis))


put_elements.values(_check_elements)


@put_elements.grad
def x(g, index, axis, add):
    return g if add else put_elements(g, index, _nothing(g, index.shape), axis=axis)


@put_elements.grad
def v(g, index, axis, add):
    part = take_elements(g, index, axis=axis)
    if add:
        return part
    from .creation import arange_from, full
    from .elementwise import where

    count = index.shape[axis]
    order = reshape(
        arange_from(0, 1, size=count, dtype=T.int64, device=g.device),
        shape=tuple(count if a == axis else 1 for a in range(g.ndim)),
    )
    order = broadcast_to(order, shape=index.shape)
    owner = put_elements(full(g.shape, -1, T.int64, g.device), index, order, axis=axis)
    return where(take_elements(owner, index, axis=axis) == order, part, 0.0)


put_elements.sample((3, 4), np.array([[1, -1], [0, 2], [2, 1]]), (3, 2), axis=1)
put_elements.sample((3, 2), np.array([[1, 1], [2, 1]]), (2, 2), axis=0).sample(
    (3,), np.array([0, 2]), 0.5, axis=0
)
put_elements.sample((3, 2), np.array([[1, 1], [1, 0]]), (2, 2), axis=0, add=True)
put_elements.sample((2, 3, 2), np.array([[[0, 1]], [[2, 2]]]), (2, 1, 2), axis=1, add=True)


@primitive(
    internal=True, updates=True,
    onnx=lambda o, x, index, v, *, axis, reduce: _elements_onnx(o, x, index, v, axis, reduce),
)  # fmt: skip
def combine_elements(x, index, v, *, axis, reduce):
    """As `put_elements`, with old and new values multiplied, or the larger or smaller kept (NaN wins)."""
    return _elements_body(x, index, v, axis, _UFUNCS[reduce])


@combine_elements.type
def _(x, index, v, *, axis, reduce):
    return _elements_type(x, index, v, axis)


combine_elements.values(_check_elements)


@combine_elements.grad_joint
def _(g, x, index, v, out, axis, reduce):
    get = lambda t: take_elements(t, index, axis=axis)
    put = lambda base, value, how: _put_elements(base, index, value, axis, how)
    return _combined_grads(g, x, v, out, get, put, reduce)


def _put_elements(base, index, value, axis, how):
    if how in ("set", "add"):
        return dispatch.apply(put_elements, (base, index, value), (axis, how == "add"))
    return combine_elements(base, index, value, axis=axis, reduce=how)


for _how in _UFUNCS:
    combine_elements.sample((3, 2), np.array([[1, 1], [1, 0]]), (2, 2), axis=0, reduce=_how)


# ---------------------------------------------------------------- what users call


def _value(v, x):
    """A value in x's dtype, numbers as they are."""
    return v.to(x.dtype) if isinstance(v, Tensor) and v.dtype is not x.dtype else v


def _reduced(put, x, v, how, include_self):
    """The result of one of the ways to combine, the old values counted in or not."""
    if how == "set":
        return put(x, v, "set")
    base, divide = x, how == "mean"
    if not include_self:
        neutral = {"add": 0, "mean": 0, "multiply": 1}.get(how)
        if neutral is None:
            neutral = _extreme(x.dtype, lowest=how == "maximum")
        base = put(x, neutral, "set")
    out = put(base, v, "add" if divide else how)
    if not divide:
        return out
    from .creation import full

    ones = full(x.shape, 1, x.dtype, x.device)
    if not include_self:
        ones = put(ones, 0, "set")
    count = put(ones, 1, "add").clip(1, None)
    return out / count if x.dtype.is_float else out // count


def _extreme(dtype, lowest):
    if dtype.is_float:
        return -math.inf if lowest else math.inf
    if dtype.kind == "bool":
        return not lowest
    info = np.iinfo(dtype.np)
    return int(info.min if lowest else info.max)


@public
def scatter(x, axis, index, src, reduce=None):
    """x with `x[..., index[..., j, ...], ...]` replaced by (or combined with) src, as PyTorch has it.

    x: any[..., n, ...]; index: int[...], as many axes, no larger off the axis; src: a number, or a tensor at least as
    large as index. reduce: None, "add", "multiply", "amax", "amin" or "mean". Of equal positions the last one stays
    (the order of index counts for all). Returns: x's shape and dtype. Raises: IndexingError for an index outside in
    eager mode; a graph leaves it out. Gradient: of x and src; a replaced value gets none.
    """
    return _scatter("scatter", x, axis, index, src, reduce, True)


def _scatter(op, x, axis, index, src, reduce, include_self):
    how = _reduce(op, reduce)
    a = normalize_axis(op, axis, x.ndim, x.type)
    if isinstance(src, Tensor):
        src = _value(src, x)
        if src.shape == index.shape == x.shape and how != "mean" and include_self:
            return _put_elements(x, index, src, a, how)  # the usual call has nothing to find out
        if src.shape != index.shape:
            if src.ndim != index.ndim or any(n < m for n, m in zip(src.shape, index.shape)):
                raise ShapeError(
                    op, f"src: {src.type} is smaller than index: {index.type}", "make it as large"
                )
            src = slice_(src, index=tuple(("s", 0, m, 1) for m in index.shape))
    part = fitted(x, index, a, op)
    out = _reduced(lambda b, v, w: _put_elements(b, index, v, a, w), part, src, how, include_self)
    if part.shape == x.shape:
        return out
    return slice_update(x, out, index=tuple(("s", 0, n, 1) for n in part.shape))


@public
def scatter_add(x, axis, index, src):
    """`dg.scatter` with reduce="add"."""
    if isinstance(src, Tensor) and src.dtype is x.dtype and src.shape == index.shape == x.shape:
        # The usual call has nothing to find out.
        a = normalize_axis("scatter_add", axis, x.ndim, x.type)
        return dispatch.apply(put_elements, (x, index, src), (a, True))
    return _scatter("scatter_add", x, axis, index, src, "add", True)


@public
def scatter_reduce(x, axis, index, src, reduce, include_self=True):
    """`dg.scatter` with reduce "sum", "prod", "mean", "amax" or "amin"; include_self: x's old values count in."""
    return _scatter("scatter_reduce", x, axis, index, src, reduce, include_self)


@public
def put_along_axis(x, index, values, axis=-1):
    """x with `x[..., index[..., j, ...], ...]` replaced by values; off the axis they broadcast. A new tensor.

    Raises: IndexingError for an index outside (a graph leaves it out).
    """
    a = normalize_axis("put_along_axis", axis, x.ndim, x.type)
    shape = tuple(index.shape[k] if k == a else n for k, n in enumerate(x.shape))
    if index.ndim != x.ndim or T.broadcast_shapes("put_along_axis", index.shape, shape) != shape:
        raise ShapeError(
            "put_along_axis", f"index: {index.type} does not broadcast to x: {x.type}", "reshape it"
        )
    index = index if index.shape == shape else broadcast_to(index, shape=shape)
    if isinstance(values, Tensor):
        values = _value(values, x)
        values = values if values.shape == shape else broadcast_to(values, shape=shape)
    return put_elements(x, index, values, axis=a)


def _slices_of(op, x, axis, index, source, how):
    a = normalize_axis(op, axis, x.ndim, x.type)
    if index.ndim > 1:
        raise ShapeError(op, f"index: {index.type} is not a vector", "flatten it")
    index = reshape(index, shape=(-1,))
    if isinstance(source, Tensor):
        source = _value(source, x)
        shape = (*x.shape[:a], index.shape[0], *x.shape[a + 1 :])
        if source.shape != shape:
            if source.ndim:
                raise ShapeError(
                    op, f"source: {source.type} should have the shape {list(shape)}", "reshape it"
                )
            source = broadcast_to(source, shape=shape)
    return _put_slices(x, index, source, a, 1, how)


@public
def index_add(x, axis, index, source, alpha=1):
    """x with `alpha * source` added to the slices that a vector of indices names, in its order.

    Raises: DtypeError where x has integers, and source or alpha is a fraction.
    """
    for name, v in (("alpha", alpha), ("source", source)) if not x.dtype.has_gradient else ():
        dtype = getattr(v, "dtype", None)
        if isinstance(v, (float, complex, np.inexact)) or getattr(dtype, "has_gradient", False):
            what = "no integer" if name == "alpha" else "not of integers"
            raise DtypeError(
                "index_add", f"{name}={brief(v)} is {what}, and x: {x.type} holds no fractions",
                f"give {name} as integers, or convert x to a float",
            )  # fmt: skip
    return _slices_of("index_add", x, axis, index, source if alpha == 1 else source * alpha, "add")


@public
def index_copy(x, axis, index, source):
    """x with the slices that a vector of indices names replaced by source's; the last one of equal indices stays."""
    return _slices_of("index_copy", x, axis, index, source, "set")


@public
def index_fill(x, axis, index, value):
    """x with the slices that a vector of indices names filled with a number (or a 0-d tensor)."""
    return _slices_of("index_fill", x, axis, index, value, "set")


@public
def index_reduce(x, axis, index, source, reduce, include_self=True):
    """x with slices combined with source's: reduce "prod", "mean", "amax" or "amin"; include_self: x counts in."""
    how = _reduce("index_reduce", reduce)
    put = lambda b, v, w: _slices_of("index_reduce", b, axis, index, v, w)
    return _reduced(put, x, _value(source, x), how, include_self)


_ND_REDUCTION = {
    "set": None,
    "add": "add",
    "multiply": "multiply",
    "maximum": "maximum",
    "minimum": "minimum",
}


@composite(
    onnx=lambda o, x, index, updates, *, reduce: o.ScatterND(
        x,
        o.cast(index, T.int64),
        updates,
        reduction=o.reduction(_ND_REDUCTION[_reduce("scatter_nd", reduce)]),
    )
)
def scatter_nd(x, index, updates, *, reduce=None):
    """x with slices at tuples of indices replaced by (or combined with) updates.

    index: int[..., k], from -n to n - 1; updates: index's shape without the last axis, then x's axes from k on.
    reduce: None, "add", "multiply", "maximum" or "minimum". Of equal tuples the last one stays. Raises:
    IndexingError for an index outside. Source: ONNX ScatterND.
    """
    how = _reduce("scatter_nd", reduce)
    depth = check_tuples("scatter_nd", x, index)
    part = (*index.shape[:-1], *x.shape[depth:])
    if updates.shape != part:
        raise ShapeError(
            "scatter_nd", f"updates: {updates.type} should have the shape {list(part)}", "reshape it"
        )
    places = places_of(index, x.shape[:depth])
    put = lambda b, v, w: _put_slices(b, places, v, 0, depth, w)
    return _reduced(put, x, _value(updates, x), how, True)


scatter_nd.sample((3, 4, 2), np.array([[0, 1], [2, 3]]), (2, 2)).sample((4,), np.array([[1], [3], [1]]), (3,))
scatter_nd.sample((3, 2), np.array([[1], [1]]), (2, 2), reduce="add")
scatter_nd.error_sample((3, 2), np.array([[1], [1]]), (2, 3), match="should have the shape [2, 2]")


# ---------------------------------------------------------------- masks


def _mask(op, mask):
    if mask.dtype is not T.bool_:
        raise DtypeError(op, f"mask: {mask.type} is not bool", "compare it with something")
    return mask


@public
def masked_fill(x, mask, value):
    """x with `value` (a number or a 0-d tensor) where the mask holds. mask: bool, broadcasts with x."""
    from .elementwise import where

    return where(_mask("masked_fill", mask), _value(value, x), x)


@public
def masked_scatter(x, mask, source):
    """x with the elements where the mask holds replaced by source's, in order. mask: bool, broadcasts to x.

    No size depends on the data: a graph stays whole. Raises: ShapeError when source has fewer elements than x; a
    source that must be longer than it is gives NaN (integers: 0) in a graph.
    """
    from .elementwise import where
    from .scan import cumsum

    mask = _mask("masked_scatter", mask)
    full = mask if mask.shape == x.shape else broadcast_to(mask, shape=x.shape)
    turn = cumsum(reshape(full, shape=(-1,)).to(T.int64), axis=0) - 1
    flat = _value(reshape(source, shape=(-1,)), x)
    places = where(reshape(full, shape=(-1,)), turn, 0)
    return where(full, reshape(take(flat, places), shape=x.shape), x)


__all__ = [
    "combine_elements",
    "combine_slices",
    "place",
    "put_elements",
    "put_slices",
    "scatter",
    "scatter_nd",
]
