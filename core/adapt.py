"""Hand-written kernels on dtypes that they do not have.

16-bit floats are converted to float32, the kernel runs, its results are rounded once; a kernel that loads and
stores them itself says so by the attribute `takes_halves`. An op that is linear runs on the real and the
imaginary parts of its complex operands one after the other, a bilinear one (its first two operands) four times.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from . import types as T
from .backend import Kernel, Operand, Program, Scalar
from .legalize import parts
from .lower import copy, fill, lower_map
from .op import Op
from .scalar import Expr, cast
from .types import DType


def run_kernel(
    program: Program, op: Op, kernel: Kernel, inputs: Sequence[Any], outputs: Sequence[Operand], named: dict[str, Any]
) -> None:  # fmt: skip
    """Append the launches of a hand-written kernel, and of the conversions that it needs."""
    dtypes = {x.dtype for x in (*inputs, *outputs) if x is not None}
    if any(d.is_complex for d in dtypes):
        if op.complex == "bilinear":
            _bilinear(program, kernel, inputs, outputs, named)
        elif op.complex == "linear":
            _linear(program, kernel, inputs, outputs, named)
        else:
            kernel(program, inputs, outputs, **named)
    elif getattr(kernel, "takes_halves", False) or not (
        any(map(is_narrow, inputs)) or any(d.is_half for d in dtypes)
    ):
        kernel(program, inputs, outputs, **named)
    else:
        _widened(program, kernel, inputs, outputs, named)


def in_order(x: Operand) -> tuple[int, ...]:
    """Strides of the elements of x in the same order without gaps; axes along which x repeats stay repeated."""
    order = sorted((a for a, s in enumerate(x.strides) if s), key=lambda a: (-abs(x.strides[a]), a))
    strides, step = [0] * len(x.shape), 1
    for a in reversed(order):
        strides[a] = step
        step *= x.shape[a]
    return tuple(strides)


def _temporary(program: Program, x: Operand, dtype: DType) -> Operand:
    """Scratch memory for the elements of x in the same order; axes along which x repeats stay repeated."""
    slot = program.scratch(math.prod(_without_repeats(x, x).shape) * dtype.itemsize)
    return Operand(slot.source, slot.offset, dtype, x.shape, in_order(x))


def _without_repeats(x: Operand, like: Operand) -> Operand:
    return x._replace(shape=tuple(n if s else 1 for n, s in zip(like.shape, like.strides)))


def is_narrow(x: Any) -> bool:
    """Whether an operand is made of 16-bit floats, or rounded to them."""
    return isinstance(x, Operand) and (x.dtype.is_half or x.rounded is not None)


def widened(program: Program, x: Any) -> Any:
    """A 16-bit operand as float32 in scratch memory, in its own order; any other as it is."""
    if not is_narrow(x):
        return x
    return copied(program, x, T.float32) if x.size else x._replace(dtype=T.float32, rounded=None)


def copied(program: Program, x: Operand, dtype: DType) -> Operand:
    """x in scratch memory with another dtype (of its parts, when x is one of them)."""
    with program.prepared(x):
        new = _temporary(program, x, dtype)
        source, target = _without_repeats(x, x), _without_repeats(new, x)
        if x.rounded is None:
            copy(program, source, target)
        else:
            root = cast(cast(Expr("arg", x.dtype, (), 0), x.rounded), dtype)
            lower_map(program, target.shape, [source._replace(rounded=None)], [root], [target], ("cast",))
    return new


def _result(program: Program, x: Operand, dtype: DType) -> Operand:
    return program.scratch_operand(dtype, x.shape)


def _widened(
    program: Program, kernel: Kernel, inputs: Sequence[Any], outputs: Sequence[Operand], named: dict[str, Any]
) -> None:
    wide: list[Any] = []
    for x in inputs:
        if isinstance(x, Scalar) and x.dtype.is_half:
            wide.append(x._replace(dtype=T.float32))
        else:
            wide.append(widened(program, x))
    program.wave()
    results = [_result(program, o, T.float32) if o is not None and o.dtype.is_half else o for o in outputs]
    kernel(program, wide, results, **named)
    program.wave()
    for made, out in zip(results, outputs):
        if out is not None:
            copy(program, made, out)


def _split(program: Program, x: Any) -> tuple[Any, Any]:
    """Real and imaginary part of an operand, contiguous; a real one has no imaginary part."""
    if x is None or not x.dtype.is_complex:
        return x, None
    if isinstance(x, Scalar):
        return x._replace(dtype=x.dtype.real), Scalar(x.source + 1, x.dtype.real)
    re, im = (copied(program, p, x.dtype.real) if p.size else p for p in parts(x))
    return re, im


def _linear(
    program: Program, kernel: Kernel, inputs: Sequence[Any], outputs: Sequence[Operand], named: dict[str, Any]
) -> None:
    split = [_split(program, x) for x in inputs]
    program.wave()
    if not (outputs[0].dtype.is_complex and any(im is not None for _, im in split)):
        # A dtype between real and complex was asked for: nothing imaginary comes in, or none is wanted.
        row = [re for re, _ in split]
        made = [_result(program, o, o.dtype.real) if o.dtype.is_complex else o for o in outputs]
        kernel(program, row, made, **named)
        program.wave()
        for real, out in zip(made, outputs):
            if out.dtype.is_complex:
                copy(program, real, out)
        return
    halves: list[list[Operand]] = []
    for part in (0, 1):
        made = [_result(program, o, o.dtype.real) for o in outputs]
        row = [s[part] if x is not None and x.dtype.is_complex else x for x, s in zip(inputs, split)]
        kernel(program, row, made, **named)
        program.wave()
        halves.append(made)
    for real, imag, out in zip(*halves, outputs):
        for made, target in zip((real, imag), parts(out)):
            copy(program, made, target)


def _bilinear(
    program: Program, kernel: Kernel, inputs: Sequence[Any], outputs: Sequence[Operand], named: dict[str, Any]
) -> None:
    """(a + bi)(c + di) = (ac - bd) + (ad + bc)i."""
    (a, b), (c, d) = (_split(program, x) for x in inputs[:2])
    (out,) = outputs
    program.wave()
    made: list[Any] = []
    for x, y in ((a, c), (b, d), (a, d), (b, c)):
        if x is None or y is None:  # of a real operand
            made.append(None)
            continue
        made.append(_result(program, out, out.dtype.real))
        kernel(program, [x, y, *inputs[2:]], [made[-1]], **named)
        program.wave()
    for op, first, second, target in zip(("sub", "add"), made[::2], made[1::2], parts(out)):
        row = [x for x in (first, second) if x is not None]
        args = [Expr("arg", out.dtype.real, (), k) for k in range(len(row))]
        root = Expr(op, out.dtype.real, tuple(args)) if len(row) == 2 else args[0]
        lower_map(program, out.shape, row, [root], [target], ("complex product",))


def complex_product(program: Program, x: Operand, axes: Sequence[int], target: Operand) -> None:
    """The product over axes of complex numbers, by halves: element i times element i + m, with m = ceil(n / 2)."""
    if x.size == 0:
        fill(program, 1, target)
        return
    if x.dtype is not target.dtype:
        x = copied(program, x, target.dtype)
        program.wave()
    args = [Expr("arg", x.dtype, (), k) for k in range(2)]
    product = Expr("mul", x.dtype, tuple(args))
    for axis in axes:
        while (n := x.shape[axis]) > 1:
            m = -(-n // 2)
            made = program.scratch_operand(x.dtype, (*x.shape[:axis], m, *x.shape[axis + 1 :]))
            pairs = [_part(x, axis, 0, n - m), _part(x, axis, m, n)]
            lower_map(program, pairs[0].shape, pairs, [product], [_part(made, axis, 0, n - m)], ("product",))
            if n - m < m:
                copy(program, _part(x, axis, n - m, m), _part(made, axis, n - m, m))
            program.wave()
            x = made
    copy(program, x, target)


def _part(x: Operand, axis: int, start: int, stop: int) -> Operand:
    shape = (*x.shape[:axis], stop - start, *x.shape[axis + 1 :])
    return x._replace(shape=shape, offset=x.offset + start * x.strides[axis] * x.dtype.itemsize)
