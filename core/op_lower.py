"""One op over operands: choose the kernel. Hand-written, backend-neutral, reduction or pointwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .adapt import complex_product, run_kernel
from .backend import Operand, Program, Scalar
from .errors import KernelError
from .lower import lower_map, lower_reduce
from .op import Attrs, Op
from .scalar import Expr, cast
from .types import TensorType, normalize_axes


def operand_kind(x: Any) -> Any:
    """What `Op.form` wants to know of an operand: its dtype, or the kind of a weakly typed number."""
    if isinstance(x, Operand):
        return x.dtype
    return {"bool": bool, "int": int, "uint": int, "float": float, "complex": complex}[x.dtype.kind]


def reduces_in_a_loop(op: Op, dtype: Any) -> bool:
    """Whether a reducing op is a loop kernel. The product of complex numbers needs both parts at once."""
    return not (op.reduction == "prod" and dtype.is_complex)


def reduction_root(op: Op, dtype: Any, out_dtype: Any, arg: Expr) -> Expr:
    """The expression of a reducing op: convert to the accumulation dtype, reduce."""
    if op.reduction in ("argmax", "argmin"):
        return Expr("reduce", out_dtype, (arg,), op.reduction)
    return Expr("reduce", out_dtype, (cast(arg, out_dtype),), op.reduction)


def lower_op(
    program: Program,
    op: Op,
    inputs: Sequence[Any],
    outputs: Sequence[Operand],
    attrs: Attrs,
) -> None:
    """Append the launches of one op. inputs: Operand, Scalar or None."""
    notes = (op.name,)
    if op.kind == "pointwise":
        form = op.form([operand_kind(x) for x in inputs], attrs)
        lower_map(program, outputs[0].shape, list(inputs), form.roots, list(outputs), notes)
        return
    named = op.attrs_dict(attrs)
    kernel = program.backend.primitive(op.name)
    if kernel is not None:
        if op.operands_rule is not None:
            inputs, outputs = op.operands_rule(list(inputs), list(outputs))
        run_kernel(program, op, kernel, inputs, outputs, named)
    elif op.reduction is not None:
        x = inputs[0]
        axes = normalize_axes(op.name, named.get("axis"), len(x.shape))
        kept = tuple(1 if a in axes else n for a, n in enumerate(x.shape))
        out = outputs[0]
        strides = out.strides
        if len(out.shape) != len(kept):
            rest = iter(out.strides)
            strides = tuple(0 if a in axes else next(rest) for a in range(len(kept)))
        target = Operand(out.source, out.offset, out.dtype, kept, strides)
        if not reduces_in_a_loop(op, x.dtype) and out.dtype.is_complex:
            complex_product(program, x, axes, target)
            return
        root = reduction_root(op, x.dtype, out.dtype, Expr("arg", x.dtype, (), 0))
        lower_reduce(program, x.shape, axes, [x], [root], [target], notes)
    elif op.lower_rule is not None:
        op.lower_rule(program, inputs, outputs, **named)
    elif op.is_view:
        from .lower import copy

        x = inputs[0]
        made = op.view_rule(x.shape, x.strides, **named) if op.view_rule else None
        if made is None:  # only reshape of a strided tensor: copy in order first
            dense = Operand(outputs[0].source, outputs[0].offset, x.dtype, x.shape, _dense(x.shape))
            copy(program, x, dense)
        else:
            shape, strides, offset = made
            copy(
                program,
                Operand(x.source, x.offset + offset * x.dtype.itemsize, x.dtype, shape, strides),
                outputs[0],
            )
    else:
        raise KernelError(
            op.name, f"has no kernel for {program.backend.name}",
            'compute it on the CPU, x.to("cpu"), which has one for every op; report it if that has none',
        )  # fmt: skip


def _dense(shape: tuple[int, ...]) -> tuple[int, ...]:
    from .types import contiguous_strides

    return contiguous_strides(shape)


__all__ = ["Scalar", "TensorType", "lower_op", "operand_kind", "reduction_root"]
