"""Padding in every mode: constants, mirrored, repeated or wrapped borders; negative sizes cut."""

# Gradient rules are named after the input they are for, so names repeat here.
# ruff: noqa: F811
from __future__ import annotations

import numpy as np

from .. import dispatch, numbers
from ..backend import Operand
from ..errors import ArgumentError, ArgumentTypeError, ShapeError
from ..lower import copy, lower_map
from ..op import composite, primitive
from ..room import tables
from ..scalar import Expr, cast
from ..types import TensorType
from .slices import slice_, slice_update

#: our word for each mode -> how far it reaches: a border of n + REACH elements needs an axis of n
_REACH = {"reflect": -1, "symmetric": 0, "edge": None, "wrap": 0}
_WORDS = {"replicate": "edge", "circular": "wrap"}


def pairs_of(op, padding, ndim):
    """(before, after) for each axis from an int, one pair for all axes, or a pair an axis."""
    whole = (int, np.integer)
    if isinstance(padding, whole):
        rows = [(padding, padding)] * ndim
    else:
        rows = [(p, p) if isinstance(p, whole) else tuple(p) for p in padding]
        if len(rows) == 2 and all(isinstance(p, whole) for p in padding):
            rows = [tuple(padding)] * ndim
        elif len(rows) == 1:
            rows *= ndim
    if len(rows) != ndim:
        raise ArgumentError(
            op, f"padding has {len(rows)} pairs for {ndim} axes", "give (before, after) for each axis"
        )
    if any(len(p) != 2 or not all(isinstance(n, whole) for n in p) for p in rows):
        raise ArgumentError(op, f"padding={padding} is not made of pairs of sizes", "give (before, after)")
    return tuple((numbers.whole(a), numbers.whole(b)) for a, b in rows)


def _padded(x, padding):
    return TensorType(x.dtype, tuple(n + a + b for n, (a, b) in zip(x.shape, padding)))


def _inside(shape, padding):
    """The index of x inside its padded form."""
    return tuple(("s", a if n else 0, n, 1) for (a, _), n in zip(padding, shape))


def _interior(out, shape, padding):
    offset = sum(a * st for (a, _), st in zip(padding, out.strides)) * out.dtype.itemsize
    return Operand(out.source, out.offset + offset, out.dtype, shape, out.strides)


def _onnx_sizes(o, padding):
    return o.ints([p[0] for p in padding] + [p[1] for p in padding])


@primitive(
    internal=True,
    complex="own",
    onnx=lambda o, x, value, *, padding: o.Pad(x, _onnx_sizes(o, padding), o._number(value, x.dtype)),
)
def pad_constant(x, value, *, padding):
    """x with a number around it. padding: (before, after) sizes from 0 for each axis. Source: ONNX Pad."""
    return np.pad(x, padding, constant_values=value)


@pad_constant.type
def _(x, value, *, padding):
    if isinstance(value, TensorType) and value.shape:
        raise ShapeError("pad", f"value: {value} is not one number", "pass a number or a 0-d tensor")
    return _padded(x, padding)


@pad_constant.lower
def _(program, inputs, outputs, *, padding):
    x, value = inputs
    out = outputs[0]
    inner = _interior(out, x.shape, padding)
    root = cast(Expr("arg", value.dtype, (), 0), out.dtype)
    # Bands around x, axis by axis: nothing is written twice.
    rest, shape = out, list(out.shape)
    for a, ((before, after), n) in enumerate(zip(padding, x.shape)):
        for start, count in ((0, before), (before + n, after)):
            if count:
                offset = rest.offset + start * out.strides[a] * out.dtype.itemsize
                band = (*shape[:a], count, *shape[a + 1 :])
                target = Operand(out.source, offset, out.dtype, band, out.strides)
                lower_map(program, band, [value], [root], [target], ("pad",))
        rest = rest._replace(offset=rest.offset + before * out.strides[a] * out.dtype.itemsize)
        shape[a] = n
    copy(program, x, inner)


@pad_constant.grad
def x(g, x_type, padding):
    return slice_(g, index=_inside(x_type.shape, padding))


@pad_constant.grad
def value(g, x_type, padding):
    total = g.sum()
    return total - slice_(g, index=_inside(x_type.shape, padding)).sum()


pad_constant.sample((2, 3), 0, padding=((1, 0), (0, 2))).sample((3,), 1.5, padding=((2, 2),))
pad_constant.sample((2, 0), (), padding=((1, 1), (1, 0))).sample(
    (2, 2, 2), 0.5, padding=((0, 1), (1, 1), (2, 0))
)


def _band(mode, n, before, count, at_start):
    """Where a border lies along its axis and what it repeats: (start, source start, source step)."""
    last = before + n - 1
    if at_start:
        source = {
            "reflect": (before + count, -1), "symmetric": (before + count - 1, -1), "edge": (before, 0),
            "wrap": (before + n - count, 1),
        }[mode]  # fmt: skip
        return 0, *source
    return last + 1, *{
        "reflect": (last - 1, -1),
        "symmetric": (last, -1),
        "edge": (last, 0),
        "wrap": (before, 1),
    }[mode]


def _border_onnx(o, x, *, padding, mode):
    if mode != "symmetric" and not (mode == "wrap" and o.opset < 19):
        return o.Pad(x, _onnx_sizes(o, padding), mode=mode)
    for axis, ((before, after), n) in enumerate(zip(padding, x.shape)):
        if before or after:
            shape = x.shape
            parts = [x]
            for count, at_start in ((before, True), (after, False)):
                if count:
                    _, start, step = _band(mode, n, 0, count, at_start)
                    cut = [("s", 0, m, 1) for m in shape]
                    cut[axis] = ("s", start, count, step)
                    parts.insert(0 if at_start else len(parts), o.slice(x, cut))
            x = o.Concat(*parts, axis=axis)
            x.shape = (*shape[:axis], n + before + after, *shape[axis + 1 :])
    return x


@primitive(internal=True, complex="own", onnx=_border_onnx)
def pad_border(x, *, padding, mode):
    """x with borders made of itself. padding: sizes from 0 that x can fill. mode: reflect, symmetric, edge, wrap."""
    return np.pad(x, padding, mode=mode)


@pad_border.type
def _(x, *, padding, mode):
    return _padded(x, padding)


@pad_border.lower
def _(program, inputs, outputs, *, padding, mode):
    x, out = inputs[0], outputs[0]
    copy(program, x, _interior(out, x.shape, padding))
    # Axis by axis: each border repeats what lies in the result already, the borders of earlier axes included.
    itemsize, done = out.dtype.itemsize, set()
    for axis, ((before, after), n) in enumerate(zip(padding, x.shape)):
        done.add(axis)
        if not before and not after:
            continue
        program.wave()
        rest = [
            (0, out.shape[a]) if a in done else (p[0], m) for a, (p, m) in enumerate(zip(padding, x.shape))
        ]
        base = (
            out.offset
            + sum(start * st for a, ((start, _), st) in enumerate(zip(rest, out.strides)) if a != axis)
            * itemsize
        )
        for count, at_start in ((before, True), (after, False)):
            if count:
                place, source, step = _band(mode, n, before, count, at_start)
                shape = tuple(count if a == axis else m for a, (_, m) in enumerate(rest))
                move = out.strides[axis]
                strides = tuple(step * move if a == axis else st for a, st in enumerate(out.strides))
                copy(
                    program,
                    Operand(out.source, base + source * move * itemsize, out.dtype, shape, strides),
                    Operand(out.source, base + place * move * itemsize, out.dtype, shape, out.strides),
                )


def _along(shape, axis, start, count, step=1):
    index = [("s", 0, n, 1) for n in shape]
    index[axis] = ("s", start, count, step)
    return tuple(index)


@pad_border.grad
def x(g, x_type, padding, mode):
    for axis in reversed(range(g.ndim)):
        before, after = padding[axis]
        if not before and not after:
            continue
        n = x_type.shape[axis]
        inner = slice_(g, index=_along(g.shape, axis, before, n))
        for count, at_start in ((before, True), (after, False)):
            if not count:
                continue
            place, source, step = _band(mode, n, before, count, at_start)
            band = slice_(g, index=_along(g.shape, axis, place, count))
            if mode == "edge":
                band, count, step = band.sum(axis=axis, keepdims=True), 1, 1
            where = _along(inner.shape, axis, source - before, count, step)
            inner = slice_update(inner, slice_(inner, index=where) + band, index=where)
        g = inner
    return g


for _mode in _REACH:
    pad_border.sample((3, 4), padding=((1, 2), (3, 0)), mode=_mode)
pad_border.sample((2, 2, 3), padding=((0, 1), (1, 0), (2, 2)), mode="edge")


@composite
def pad(x, *, padding, mode="constant", value=0):
    """x with a border around it.

    padding: (before, after) for each axis, one such pair for all axes, or one int; a negative size cuts.
    mode: "constant" puts `value` there; "reflect" mirrors at the outer elements, "symmetric" outside of them;
    "edge" ("replicate") repeats the outer elements; "wrap" ("circular") goes on at the other end.
    Returns: x's dtype. Raises: ArgumentError for another mode, for pairs that do not fit, when nothing is left of
    an axis, or when an empty axis has nothing to repeat. A border may be wider than x: the pattern goes on as in
    NumPy. Source: ONNX Pad.
    """
    pairs = pairs_of("pad", padding, x.ndim)
    mode = _WORDS.get(mode, mode)
    if mode != "constant" and mode not in _REACH:
        known = ", ".join(f'"{m}"' for m in ("constant", *_REACH, *_WORDS))
        raise ArgumentError("pad", f"mode={mode!r}", f"use one of {known}")
    if any(n + min(a, 0) + min(b, 0) < 0 for n, (a, b) in zip(x.shape, pairs)):
        raise ArgumentError("pad", f"padding={pairs} cuts more than x: {x.type} has", "cut less")
    if any(min(p) < 0 for p in pairs):
        cut = tuple(("s", max(0, -a), n + min(a, 0) + min(b, 0), 1) for n, (a, b) in zip(x.shape, pairs))
        x = slice_(x, index=tuple(c if c[2] else ("s", 0, 0, 1) for c in cut))
        pairs = tuple((max(0, a), max(0, b)) for a, b in pairs)
    if mode == "constant":  # by this op also where nothing is added: calls at several sizes are the same ops
        if isinstance(value, float) and not x.dtype.is_float and x.dtype.kind != "complex":
            value = bool(value) if x.dtype.kind == "bool" else int(value)
        return pad_constant(x, value, padding=pairs)
    if not any(map(any, pairs)):
        return x.clone()
    reach = _REACH[mode]
    for axis, (n, p) in enumerate(zip(x.shape, pairs)):
        if any(p) and n == 0:
            raise ArgumentError("pad", f"axis {axis} of x: {x.type} is empty", f"{mode} needs an element")
        if reach is not None and max(p) > n + reach:
            x = _pad_far(x, axis, p, mode)
            pairs = (*pairs[:axis], (0, 0), *pairs[axis + 1 :])
    return pad_border(x, padding=pairs, mode=mode) if any(map(any, pairs)) else x


def _pad_far(x, axis, pair, mode):
    """A border wider than the axis: the positions it repeats, picked."""
    from .picking import take

    tables("pad", x.shape[axis] + sum(pair), f"padding={pair} of axis {axis}")
    places = np.pad(np.arange(x.shape[axis]), pair, mode=mode)
    return take(x, dispatch.state.executor.constant(places.astype(np.int64), x.device), axis=axis)


pad.sample((2, 3), padding=((1, 0), (0, 2))).sample((3,), padding=2, value=1.5)
pad.sample((2, 3), padding=1, mode="reflect").sample((2, 3), padding=((4, 0), (5, 7)), mode="symmetric")
pad.sample((4, 3), padding=((-1, 2), (1, -1)), mode="wrap").sample((0, 2), padding=((1, 1), (0, 0)))
pad.error_sample((2, 3), padding=((1, 1),) * 3, match="3 pairs for 2 axes")
pad.error_sample((2, 3), padding=1, mode="mirror", match="mode='mirror'")
pad.error_sample((2, 3), padding=((-3, 0), (0, 0)), match="cuts more")


def last_axes(op, x, pad):
    """Pairs for each axis from PyTorch's order: (before, after) of the last axis, of the one before it, ..."""
    sizes = tuple(pad)
    if len(sizes) % 2 or len(sizes) > 2 * x.ndim:
        raise ArgumentError(
            op, f"pad={sizes} does not fit x: {x.type}", "give two numbers for each axis, last axis first"
        )
    if not all(isinstance(n, (int, np.integer)) for n in sizes):
        raise ArgumentTypeError(op, f"pad={sizes} is not made of integers", "pass ints")
    rows = [sizes[k : k + 2] for k in range(0, len(sizes), 2)][::-1]
    return ((0, 0),) * (x.ndim - len(rows)) + tuple(rows)
