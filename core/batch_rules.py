"""How each op runs on tensors with one more axis in front: the rules of `vmap`.

A rule takes the inner tensors and gives inner results, with the batch axis first: `rule(b, op, inputs, named)`.
Composites need none, they are made of other ops; pointwise ops share one; a primitive is in the table below, or
runs example by example (right, but as slow as a loop).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .lower import needs_index
from .op import Attrs, Op
from .value import Tensor

Rule = Callable[[Any, Op, tuple[Any, ...], dict[str, Any]], Any]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Declare the rule of some ops."""

    def keep(fn: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, fn))
        return fn

    return keep


def apply_rule(b: Any, op: Op, inputs: tuple[Any, ...], attrs: Attrs) -> tuple[Any, ...]:
    """Run an op, some of whose inputs belong to the batcher b, on inner tensors."""
    named = op.attrs_dict(attrs)
    found = RULES.get(op.name)
    if found is None:
        found = pointwise if op.kind == "pointwise" else one_by_one
        if op.reduction is not None:
            found = reduction
    made = found(b, op, inputs, named)
    return made if isinstance(made, tuple) else (made,)


def rank(x: Any) -> int:
    """How many axes the function sees."""
    return len(x.shape) if isinstance(x, Tensor) else 0


def aligned(b: Any, x: Any, n: int) -> Any:
    """x so that it broadcasts beside tensors of n axes and a batch axis: new axes go behind the batch axis."""
    if not b.owns(x):
        return x
    inner, missing = x._inner, n - rank(x)
    if not missing:
        return inner
    return inner.reshape((inner.shape[0], *(1,) * missing, *inner.shape[1:]))


def one_by_one(b: Any, op: Op, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """Every example by itself, the results stacked."""
    from .ops.shape import stack

    rows = [op(*[x._inner[k] if b.owns(x) else x for x in inputs], **named) for k in range(b.size)]
    if not rows:  # nothing to run: the shapes come from the type rule
        return _empty(op, inputs, named)
    if isinstance(rows[0], tuple):
        return tuple(stack(*part) for part in zip(*rows))
    return stack(*rows)


def _empty(op: Op, inputs: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
    from .ops.creation import zeros

    types = op.infer([x.type if isinstance(x, Tensor) else x for x in inputs], tuple(named.values()))
    device = next(x.device for x in inputs if isinstance(x, Tensor))
    return tuple(zeros((0, *t.shape), dtype=t.dtype, device=device) for t in types)


def pointwise(b: Any, op: Op, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
    types = [x.dtype if isinstance(x, Tensor) else x.__class__ for x in inputs]
    if needs_index(op.form(types, tuple(named.values())).roots):
        return one_by_one(b, op, inputs, named)
    n = max(map(rank, inputs))
    if "shape" in named:
        n = len(named["shape"])
        named = {**named, "shape": (b.size, *named["shape"])}
    return op(*[aligned(b, x, n) for x in inputs], **named)


def reduction(b: Any, op: Op, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
    (x,), axis = inputs, named["axis"]
    inner = x._inner
    if axis is None and op.reduction in ("argmax", "argmin"):
        flat = op(inner.reshape((b.size, -1)), axis=1)
        return flat.reshape((b.size, *(1,) * rank(x))) if named["keepdims"] else flat
    axes = range(rank(x)) if axis is None else (axis,) if isinstance(axis, int) else axis
    shifted = tuple(a % max(1, rank(x)) + 1 for a in axes)
    if not shifted:
        return op(inner.reshape((b.size, 1)), **{**named, "axis": 1, "keepdims": False})
    return op(inner, **{**named, "axis": shifted if len(shifted) > 1 else shifted[0]})


@rule("outlier")
def _(b: Any, op: Op, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """Of all examples at once: what looks at it refuses them together."""
    from .ops.shape import broadcast_to

    return broadcast_to(op(*map(b.whole, inputs), **named), shape=(b.size, len(inputs)))


# ---------------------------------------------------------------- shape


@rule("reshape")
def _(b: Any, op: Op, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
    return op(inputs[0]._inner, shape=(b.size, *named["shape"]))


@rule("permute")
def _(b: Any, op: Op, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
    return op(inputs[0]._inner, axes=(0, *(a + 1 for a in named["axes"])))


@rule("broadcast_to")
def _(b: Any, op: Op, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
    shape = named["shape"]
    return op(aligned(b, inputs[0], len(shape)), shape=(b.size, *shape))


@rule("slice")
def _(b: Any, op: Op, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
    return op(inputs[0]._inner, index=(("s", 0, b.size, 1), *named["index"]))


@rule("slice_update")
def _(b: Any, op: Op, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
    x, y = inputs
    part = sum(e[0] != "i" for e in named["index"])
    return op(b.whole(x), aligned(b, y, part), index=(("s", 0, b.size, 1), *named["index"]))


@rule("concat")
def _(b: Any, op: Op, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
    return op(*map(b.whole, inputs), axis=named["axis"] + 1)


@rule("pad_constant", "pad_border")
def _(b: Any, op: Op, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
    if any(b.owns(x) for x in inputs[1:]):
        return one_by_one(b, op, inputs, named)
    return op(inputs[0]._inner, *inputs[1:], **{**named, "padding": ((0, 0), *named["padding"])})


@rule("diagonal", "diagonal_update")
def _(b: Any, op: Op, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
    shifted = {**named, "axis1": named["axis1"] + 1, "axis2": named["axis2"] + 1}
    x, *rest = inputs
    return op(b.whole(x), *[aligned(b, y, rank(x) - 1) for y in rest], **shifted)


@rule("to_device")
def _(b: Any, op: Op, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
    return op(inputs[0]._inner, **named)


# ---------------------------------------------------------------- products and indexing


@rule("matmul")
def _(b: Any, op: Op, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
    x, y = inputs
    n = max(rank(x), rank(y), 2)
    x2, y2 = _matrix(b, x, n, -2), _matrix(b, y, n, -1)
    out = op(x2, y2)
    if rank(y) == 1:
        out = out.reshape(out.shape[:-1])
    if rank(x) == 1:
        out = out.reshape((*out.shape[: -2 if rank(y) > 1 else -1], *out.shape[-1:][: rank(y) > 1]))
    return out


def _matrix(b: Any, x: Any, n: int, axis: int) -> Any:
    """An operand of a product with two axes or more; axis: where a vector gets its second."""
    if rank(x) == 1:
        inner = x._inner if b.owns(x) else x
        k = inner.ndim + 1 + axis
        inner = inner.reshape((*inner.shape[:k], 1, *inner.shape[k:]))
        if not b.owns(x):
            return inner
        return inner if n == 2 else inner.reshape((inner.shape[0], *(1,) * (n - 2), *inner.shape[1:]))
    return aligned(b, x, n)


@rule("fft_c2c", "fft_c2r", "fft_r2c")
def _(b: Any, op: Op, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
    axis = named["axis"] % rank(inputs[0])
    return op(inputs[0]._inner, **{**named, "axis": axis + 1})


@rule(
    "cholesky_ex", "lu_factor_ex", "qr", "svd_ex", "svdvals_ex", "eigh_ex", "eigvalsh_ex", "eig_unordered",
    "eigvals_unordered", "solve_triangular", "solve_with", "permute_rows",
)  # fmt: skip
def _(b: Any, op: Op, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
    # Leading axes are batches already; beside matrices, pivots have one axis less.
    lesser = [int(name == "pivots") for name in op.input_names]
    n = max(rank(x) + k for x, k in zip(inputs, lesser))
    return op(*[aligned(b, x, n - k) for x, k in zip(inputs, lesser)], **named)


@rule("take")
def _(b: Any, op: Op, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
    x, index = inputs
    axis = named["axis"]
    if not b.owns(index):
        return op(x._inner, index, **{**named, "axis": axis + 1})
    if not b.owns(x) and axis == 0:
        return op(x, index._inner, **named)
    from .ops.picking import take_elements_placed

    # Each example has its own places: they are spread over the other axes of x.
    before, after = x.shape[:axis], x.shape[axis + 1 :]
    count = math.prod(index.shape)
    places = index._inner.reshape((b.size, *(1,) * axis, count, *(1,) * len(after)))
    places = places.broadcast_to((b.size, *before, count, *after))
    return take_elements_placed(b.whole(x), places, axis=axis + 1).reshape(
        (b.size, *before, *index.shape, *after)
    )


@rule("searchsorted")
def _(b: Any, op: Op, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
    x, values = inputs
    if not b.owns(x) and x.ndim == 1:
        return op(x, values._inner, **named)
    rows = b.whole(values)
    if rank(x) == 1:
        rows = rows.reshape((b.size, math.prod(values.shape)))
    return op(b.whole(x), rows, **named).reshape((b.size, *values.shape))


# ---------------------------------------------------------------- ops over an axis

#: ops of one tensor with a setting that names an axis or several
AXIS_OPS: dict[str, str] = dict.fromkeys((
    "sort", "argsort", "sort_both", "topk", "cumsum", "cumprod", "cummax", "cummin", "logcumsumexp", "linear_scan",
    "take_elements_placed", "take_elements_x_grad", "take_elements", "sliding_window",
), "axis")  # fmt: skip


def along_axis(b: Any, op: Op, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
    name = AXIS_OPS[op.name]
    axis, n = named[name], max(map(rank, inputs))
    if axis is None:  # along x read as one row
        return op(inputs[0]._inner.reshape((b.size, -1)), **{**named, name: 1})
    if n == 0:
        return one_by_one(b, op, inputs, named)
    shifted = axis % n + 1 if isinstance(axis, int) else tuple(a % n + 1 for a in axis)
    return op(*map(b.whole, inputs), **{**named, name: shifted})


@rule("put_slices", "combine_slices", "take_x_grad")
def _(b: Any, op: Op, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
    x, index, *v = inputs
    if b.owns(index):
        return one_by_one(b, op, inputs, named)
    wide = [b.whole(y) if isinstance(y, Tensor) and y.ndim else y for y in v]
    if any(b.owns(y) for y in wide):
        return one_by_one(b, op, inputs, named)
    return op(b.whole(x), index, *wide, **{**named, "axis": named["axis"] + 1})


@rule("put_elements", "combine_elements")
def _(b: Any, op: Op, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
    x, index, v = inputs
    if b.owns(v) and not v.ndim:
        return one_by_one(b, op, inputs, named)
    wide = b.whole(v) if isinstance(v, Tensor) and v.ndim else v
    return op(b.whole(x), b.whole(index), wide, **{**named, "axis": named["axis"] + 1})


# ---------------------------------------------------------------- images: the batch joins their first axis


def _images(b: Any, x: Any) -> Any:
    """[B, N, ...] as [B * N, ...]; None and numbers as they are."""
    if not isinstance(x, Tensor):
        return x
    inner = b.whole(x)
    return inner.reshape((inner.shape[0] * inner.shape[1], *inner.shape[2:]))


def _apart(b: Any, made: Any) -> tuple[Any, ...]:
    """[B * N, ...] as [B, N, ...] again."""
    outs = made if isinstance(made, tuple) else (made,)
    return tuple(y.reshape((b.size, y.shape[0] // b.size, *y.shape[1:])) for y in outs)


@rule(
    "max_pool",
    "max_pool_index",
    "max_pool_x_grad",
    "avg_pool",
    "avg_pool_x_grad",
    "pick_pixels",
    "put_pixels",
    "unfold",
    "fold",
)
def _(b: Any, op: Op, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
    return _apart(b, op(*[_images(b, x) for x in inputs], **named))


def _groups(b: Any, x: Any, axis: int) -> Any:
    """[B, ...] with the batch joined to an axis that the function sees: each example is a group of channels."""
    inner = b.whole(x)
    if axis:
        inner = inner.permute((*range(1, axis + 1), 0, *range(axis + 1, inner.ndim)))
    shape = inner.shape
    return inner.reshape((*shape[:axis], shape[axis] * shape[axis + 1], *shape[axis + 2 :]))


@rule("conv", "conv_x_grad")
def _(b: Any, op: Op, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
    x, w = inputs
    if not b.owns(w):
        return _apart(b, op(_images(b, x), w, **named))
    if not b.size:
        return one_by_one(b, op, inputs, named)
    y = op(_groups(b, x, 1), _groups(b, w, 0), **{**named, "groups": named["groups"] * b.size})
    y = y.reshape((y.shape[0], b.size, y.shape[1] // b.size, *y.shape[2:]))
    return y.permute((1, 0, *range(2, y.ndim)))


@rule("conv_w_grad")
def _(b: Any, op: Op, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
    if not b.size:
        return one_by_one(b, op, inputs, named)
    dy, x = (_groups(b, v, 1) for v in inputs)
    return _apart(b, op(dy, x, **{**named, "groups": named["groups"] * b.size}))


@rule("resample", "resample_x_grad")
def _(b: Any, op: Op, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
    x, *tables = inputs
    if any(map(b.owns, tables)):
        return one_by_one(b, op, inputs, named)
    return op(x._inner, *tables, **{**named, "axis": named["axis"] + 1})


@rule("attention", "attention_grad")
def _(b: Any, op: Op, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
    q, k, v, mask, *rest = inputs
    if mask is not None:
        mask = (
            aligned(b, mask, 4)
            if b.owns(mask)
            else b.whole(mask.reshape((*(1,) * (4 - mask.ndim), *mask.shape)))
        )
        mask = mask.broadcast_to((b.size, q.shape[0], *mask.shape[2:])).reshape((-1, *mask.shape[2:]))
    return _apart(b, op(*[_images(b, x) for x in (q, k, v)], mask, *[_images(b, x) for x in rest], **named))


# ---------------------------------------------------------------- sequences: the batch joins the axis of rows


def _rows(b: Any, x: Any, axis: int) -> Any:
    return x if x is None else _groups(b, x, axis)


def _rows_apart(b: Any, y: Any, axis: int) -> Any:
    y = y.reshape((*y.shape[:axis], b.size, y.shape[axis] // b.size, *y.shape[axis + 1 :]))
    return y.permute((axis, *range(axis), *range(axis + 1, y.ndim)))


#: which axis of an input or result has a row for each sequence; an input without it is the weight or bias of all
ROWS: dict[str, dict[str, int]] = {
    "recurrent": {"x": 1, "h0": 0, "c0": 0, "lengths": 0},
    "recurrent_grad": {
        "dy": 1, "dh": 0, "y": 1, "h0": 0, "dc": 0, "c0": 0, "gates": 1, "cells": 1, "lengths": 0,
    },
    "ctc_nll": {"logp": 1, "target": 0, "lengths": 0, "target_lengths": 0},
    "ctc_nll_logp_grad": {"logp": 1, "target": 0, "lengths": 0, "target_lengths": 0, "nll": 0},
}  # fmt: skip


@rule(*ROWS)
def _(b: Any, op: Op, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
    axes = ROWS[op.name]
    if not b.size or any(b.owns(x) for name, x in zip(op.input_names, inputs) if name not in axes):
        return one_by_one(b, op, inputs, named)
    wide = [_rows(b, x, axes[n]) if n in axes else x for n, x in zip(op.input_names, inputs)]
    made = op(*wide, **named)
    outs = made if isinstance(made, tuple) else (made,)
    return tuple(_rows_apart(b, y, int(y.ndim == 3)) for y in outs)


for _name in AXIS_OPS:
    RULES[_name] = along_axis
