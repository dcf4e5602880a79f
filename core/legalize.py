"""Dtypes that no register has, in terms of those that it has: 16-bit floats and complex numbers.

A 16-bit float is a float32 in the expressions of a kernel. Loads widen; an op computes in float32 (`Op.form`
casts up and down) and its result is rounded to 16 bits at once (`round_f16`, `round_bf16`), so that a fused
kernel gives the bits of one op after the other. Reductions run in float32 and are rounded once.

A complex operand is a pair of real ones with every stride doubled; a complex expression is a pair of real
expressions (complex_math.py). So the emitters of the backends know neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import types as T
from .backend import Operand, Scalar
from .complex_math import COMPLEX_MATH, Pair, complex_cast
from .scalar import Expr, call, cast, const, walk
from .types import DType

#: ops whose result on 16-bit floats is one of them already
_EXACT = frozenset("neg abs sign maximum minimum floor ceil trunc rint where copysign real".split())
#: integers that carry a dtype's bits where a value is only moved
_CARRIERS = {T.float16: T.uint16, T.bfloat16: T.uint16, T.complex64: T.uint64}


def is_plain(dtype: DType) -> bool:
    """Whether registers have the dtype."""
    return dtype.is_plain


def rounded(x: Expr, dtype: DType) -> Expr:
    """A float32 or float64 expression rounded to a 16-bit dtype, as a float32."""
    return call(f"round_{dtype.char}", x)


def parts(x: Operand) -> tuple[Operand, Operand]:
    """The real and the imaginary parts of a complex operand: real operands in its memory."""
    real = x.dtype.real
    strides = tuple(2 * s for s in x.strides)
    return (
        x._replace(dtype=real, strides=strides),
        x._replace(dtype=real, strides=strides, offset=x.offset + real.itemsize),
    )


def legalize(
    inputs: Sequence[Any], roots: Sequence[Expr], outputs: Sequence[Operand]
) -> tuple[list[Any], list[Expr], list[Operand]]:
    """Inputs, expressions and outputs of a loop such that every value in it has a dtype of registers.

    Operands of 16-bit floats stay, their `arg` nodes are float32; complex operands and scalars become two.
    """
    order = walk(roots)
    for n in order:
        if not n.dtype.is_plain:
            break
    else:
        return list(inputs), list(roots), list(outputs)
    inputs, outputs = list(inputs), list(outputs)
    carried = _carry(order, inputs, roots, outputs)
    new_inputs: list[Any] = []
    args = [_argument(x, new_inputs, k in carried) for k, x in enumerate(inputs)]
    new_roots: list[Expr] = []
    new_outputs: list[Operand] = []
    for value, out in zip(in_pairs(roots, args), outputs):
        if isinstance(value, Pair):
            new_roots += value
            new_outputs += parts(out)
        else:
            new_roots.append(value)
            new_outputs.append(out)
    _leave_rounding_to_stores(new_roots, new_outputs)
    return new_inputs, new_roots, new_outputs


def in_pairs(roots: Sequence[Expr], args: Sequence[Any]) -> list[Any]:
    """What expressions are in dtypes of registers: a Pair for a complex one. args: the same of their arguments."""
    done: dict[int, Any] = {}
    for node in walk(roots):
        if node.op == "arg":
            done[id(node)] = args[node.value]
        elif all(is_plain(n.dtype) for n in (node, *node.args)):
            done[id(node)] = _again(node, [done[id(a)] for a in node.args], node.dtype)
        else:
            done[id(node)] = _node(node, [done[id(a)] for a in node.args])
    return [done[id(r)] for r in roots]


def _carry(
    order: Sequence[Expr], inputs: list[Any], roots: Sequence[Expr], outputs: list[Operand]
) -> dict[int, DType]:
    """Give operands that are only moved, and where they go, the dtype of an integer of their width."""
    computed = {a.value for n in order for a in n.args if a.op == "arg"}
    carried: dict[int, DType] = {}
    for k, root in enumerate(roots):
        if root.op != "arg" or root.value in computed or not isinstance(inputs[root.value], Operand):
            continue
        x, carrier = inputs[root.value], _CARRIERS.get(root.dtype)
        if carrier is not None and x.dtype in (root.dtype, carrier) and outputs[k].dtype is root.dtype:
            inputs[root.value] = x._replace(dtype=carrier)
            outputs[k] = outputs[k]._replace(dtype=carrier)
            carried[root.value] = carrier
    return carried


def _leave_rounding_to_stores(roots: list[Expr], outputs: list[Operand]) -> None:
    """Drop the rounding of a result that nothing else reads: its store rounds."""
    read = {id(a) for n in walk(roots) for a in n.args}
    for k, (root, out) in enumerate(zip(roots, outputs)):
        if out.dtype.is_half and root.op == f"round_{out.dtype.char}" and id(root) not in read:
            (x,) = root.args
            if x.dtype is T.float32:
                roots[k] = x


def _argument(x: Any, inputs: list[Any], carried: bool) -> Any:
    """Append an input; the value of its `arg` nodes."""

    def add(new: Any, dtype: DType) -> Expr:
        inputs.append(new)
        return Expr("arg", dtype, (), len(inputs) - 1)

    dtype = getattr(x, "dtype", T.int64)  # an index has none
    if carried or is_plain(dtype):
        return add(x, dtype)
    if dtype.is_half:
        if isinstance(x, Scalar):
            return rounded(add(x._replace(dtype=T.float64), T.float64), dtype)
        return add(x, T.float32)
    real, imag = (
        (x._replace(dtype=dtype.real), Scalar(x.source + 1, dtype.real))
        if isinstance(x, Scalar)
        else parts(x)
    )
    return Pair(add(real, dtype.real), add(imag, dtype.real))


def _again(node: Expr, args: list[Any], dtype: DType) -> Expr:
    same = dtype is node.dtype and all(a is b for a, b in zip(args, node.args))
    return node if same else Expr(node.op, dtype, tuple(args), node.value)


def _node(node: Expr, args: list[Any]) -> Any:
    """A node of which a dtype is not one of registers."""
    dtype = node.dtype
    if node.op == "cast":
        return _cast(args[0], dtype)
    if dtype.is_complex or any(isinstance(a, Pair) for a in args):
        if node.op == "const":
            value = complex(node.value)
            return Pair(const(value.real, dtype.real), const(value.imag, dtype.real))
        if node.op == "reduce":  # a sum; any and all reduce what is bool already
            re, im = (Expr("reduce", dtype.real, (x,), node.value) for x in args[0])
            return Pair(re, im)
        return COMPLEX_MATH[node.op](*args)
    if node.op == "const":
        return const(node.value, T.float32)
    made = Expr(node.op, dtype.computed, tuple(args), node.value)
    if not dtype.is_half or node.op in _EXACT or (node.op == "reduce" and node.value in ("max", "min")):
        return made
    return rounded(made, dtype)


def _cast(x: Any, target: DType) -> Any:
    if isinstance(x, Pair) or target.is_complex:
        x = complex_cast(x, target)
        if isinstance(x, Pair):
            return x
    if not target.is_half:
        return cast(x, target)
    return rounded(x if x.dtype.is_float else cast(x, T.float32), target)
