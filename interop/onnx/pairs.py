"""Complex numbers in models: pairs of real ones along a new last axis, as ONNX's DFT and torch.onnx have them.

A complex tensor is one real tensor of the model; its parts are read from it once, and a result is put together from
its parts only where somebody reads the whole. Pointwise bodies become expressions of real numbers, linear ops run on
both parts, bilinear ones on four combinations of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...core.complex_math import Pair
from ...core.legalize import in_pairs
from ...core.op import Op
from ...core.scalar import Expr
from ...core.types import DType
from ...graph.ir import Value
from . import expression
from .builder import Handle, Inexpressible
from .dimension import is_empty
from .words import RuleBuilder

Rule = Callable[[RuleBuilder, Op, Sequence[Any], dict[str, Any]], Any]
Covers = Callable[[Any, Sequence[Any], Any], bool]


def layout(value: Value, shapes: dict[Value, Any]) -> tuple[DType, tuple[Any, ...]]:
    """Dtype and shape that a value has in the model."""
    dtype = value.type.dtype
    return (dtype.real, (*shapes[value], 2)) if dtype.is_complex else (dtype, tuple(shapes[value]))


def packed(array: np.ndarray) -> np.ndarray:
    """An array as the model has it."""
    if array.dtype.kind != "c":
        return array
    return np.stack([array.real, array.imag], axis=-1)


def has_complex(values: Sequence[Any]) -> bool:
    """Whether a value among them is complex."""
    return any(isinstance(v, Value) and v.type.dtype.is_complex for v in values)


def full(o: RuleBuilder, shape: Any, value: Any, dtype: DType) -> Handle:
    """A tensor filled with one number, which may be complex."""
    if not dtype.is_complex:
        return o.full(shape, value, dtype)
    re, im = (o.full(shape, part, dtype.real) for part in _parts_of_number(value))
    return join(o, re, im, shape, dtype.real)


def split(o: RuleBuilder, x: Handle) -> tuple[Handle, Handle]:
    """Real and imaginary part of a packed tensor."""
    key = ("parts", x)
    if key not in o.computed:
        assert x.shape is not None
        row = []
        for k in (0, 1):
            part = o.Gather(x, o.literal(np.asarray(k, np.int64)), axis=len(x.shape) - 1)
            part.dtype, part.shape = x.dtype, x.shape[:-1]
            row.append(part)
        o.computed[key] = tuple(row)
    return o.computed[key]  # type: ignore[no-any-return]


def join(o: RuleBuilder, re: Handle, im: Handle, shape: Any, dtype: DType) -> Handle:
    """The packed tensor of two parts of a shape and a (real) dtype."""
    re.dtype = im.dtype = dtype
    re.shape = im.shape = tuple(shape)
    last = o.ints((-1,))
    if is_empty(shape):  # onnxruntime joins nothing to something
        out: Handle = o.full((*shape, 2), 0, dtype)
    else:
        out = o.Concat(o.Unsqueeze(re, last), o.Unsqueeze(im, last), axis=-1)
    out.dtype, out.shape = dtype, (*shape, 2)
    o.computed["parts", out] = (re, im)
    return out


def _join(o: RuleBuilder, re: Handle, im: Handle, value: Value, shapes: dict[Value, Any]) -> Handle:
    if not value.type.dtype.is_complex:  # a sum as real numbers, say
        return re
    return join(o, re, im, shapes[value], value.type.dtype.real)


def write_pairs(
    o: RuleBuilder, record: Any, inputs: Sequence[Any], shapes: Any, rule: Rule, covers: Covers
) -> Any:
    """A call with complex inputs or outputs; complex inputs are packed. Raises Unavailable, Inexpressible."""
    op = record.op
    if op.takes_pairs:
        return rule(o, op, [_single(o, x, h) for x, h in zip(record.inputs, inputs)], record.attrs)
    if op.kind == "pointwise":
        return _pointwise(o, record, inputs, shapes, covers)
    if op.complex == "bilinear":
        return _bilinear(o, record, inputs, shapes, rule)
    if op.name in ("any", "all"):
        zero = lambda part: o.Not(o.Equal(part, o.const(0, part)))
        re, im = split(o, inputs[0])
        truth = o.Or(zero(re), zero(im))
        truth.shape = re.shape
        return rule(o, op, (truth,), record.attrs)
    if op.is_view or op.is_transfer or op.complex == "linear" or (op.complex == "own" and op.onnx):
        return _linear(o, record, inputs, shapes, rule)
    raise Inexpressible(op.no_onnx or "it has no ONNX mapping for complex numbers")


def _single(o: RuleBuilder, x: Any, h: Any) -> Any:
    """An operand with an axis of parts: of one, when it is real."""
    if not isinstance(x, Value) or x.type.dtype.is_complex:
        return h
    out = o.Unsqueeze(h, o.ints((-1,)))
    out.dtype, out.shape = h.dtype, (*h.shape, 1)
    return out


def _parts_of_number(value: Any) -> tuple[Any, Any]:
    if isinstance(value, (complex, np.complexfloating)):
        return value.real, value.imag
    return value, 0


def _data(o: RuleBuilder, op: Op, x: Any, h: Any) -> tuple[Any, Any]:
    """The parts of an operand of a linear op; positions are the same for both."""
    if not isinstance(x, Value):
        return (x, x) if x is None else _parts_of_number(h)
    if x.type.dtype.is_complex:
        return split(o, h)
    if x.type.dtype.is_float or op.name == "concat":
        return h, o.full(h.shape, 0, h.dtype)
    return h, h


def _linear(o: RuleBuilder, record: Any, inputs: Sequence[Any], shapes: Any, rule: Rule) -> list[Handle]:
    op = record.op
    attrs = {k: v.real if isinstance(v, DType) and v.is_complex else v for k, v in record.attrs.items()}
    rows = zip(*[_data(o, op, x, h) for x, h in zip(record.inputs, inputs)])
    halves = []
    for row in rows:
        found = rule(o, op, _cast_all(o, row) if op.name == "concat" else row, attrs)
        halves.append(found if isinstance(found, (tuple, list)) else [found])
    return [_join(o, re, im, v, shapes) for re, im, v in zip(*halves, record.outputs)]


def _cast_all(o: RuleBuilder, row: Sequence[Handle]) -> list[Handle]:
    assert o.out_dtype is not None
    return [o.cast(h, o.out_dtype) for h in row]


def _bilinear(o: RuleBuilder, record: Any, inputs: Sequence[Any], shapes: Any, rule: Rule) -> list[Handle]:
    """(a + bi)(c + di) = (ac - bd) + (ad + bc)i."""
    first, second = (
        split(o, h) if x.type.dtype.is_complex else (h, None) for x, h in zip(record.inputs, inputs[:2])
    )

    def product(k: int, j: int) -> Any:
        pair = first[k], second[j]
        if None in pair:
            return None
        made = rule(o, record.op, (*pair, *inputs[2:]), record.attrs)
        made.dtype = o.out_dtype
        return made

    re, im = (
        x if y is None else y if x is None else getattr(o, name)(x, y)
        for name, x, y in (("Sub", product(0, 0), product(1, 1)), ("Add", product(0, 1), product(1, 0)))
    )
    (value,) = record.outputs
    return [_join(o, re, im, value, shapes)]


def _pointwise(
    o: RuleBuilder, record: Any, inputs: Sequence[Any], shapes: Any, covers: Covers
) -> list[Handle]:
    """The body as expressions of the parts."""
    op = record.op
    kinds = [x.type.dtype if isinstance(x, Value) else _kind(x) for x in record.inputs]
    form = op.form(kinds, tuple(record.attrs.values()))
    rows: list[Handle] = []

    def add(h: Any, dtype: DType) -> Expr:
        rows.append(o.cast(h, dtype) if isinstance(h, Handle) else o.const(h, dtype))
        return Expr("arg", dtype, (), len(rows) - 1)

    args: list[Any] = []
    for x, h, dtype in zip(record.inputs, inputs, form.arg_dtypes, strict=True):
        if not dtype.is_complex:
            args.append(add(h, dtype))
            continue
        whole = isinstance(x, Value) and x.type.dtype.is_complex
        both = split(o, h) if whole else _parts_of_number(h)
        args.append(Pair(*(add(part, dtype.real) for part in both)))
    values = in_pairs(form.roots, args)
    flat = [e for v in values for e in (v if isinstance(v, Pair) else (v,))]
    if missing := expression.writable(flat):
        raise Inexpressible(op.no_onnx or f"its body uses {missing}, which ONNX has not")
    shape = shapes[record.outputs[0]]
    found = [
        h if covers(e, rows, shape) else o.Expand(h, o.ints(shape))
        for e, h in zip(flat, expression.write(o, flat, rows, shape))
    ]
    rest = iter(found)
    return [
        _join(o, next(rest), next(rest), out, shapes) if isinstance(v, Pair) else next(rest)
        for v, out in zip(values, record.outputs)
    ]


def _kind(x: Any) -> Any:
    return next((kind for kind in (bool, int, float, complex) if isinstance(x, kind)), type(x))


__all__ = ["full", "has_complex", "join", "layout", "packed", "split", "write_pairs"]
