"""What precision="fast" may do to the expressions of a kernel: fewer roundings, reciprocals.

- `a * b + c` is one fused multiply-add; a 16-bit float that only passes on to the next op is not rounded.
- Division by a value that stays the same along the inner loop is multiplication by its reciprocal.
- Functions that have one are computed by a shorter formula, where the backend saves time by it.
"""

from __future__ import annotations

from collections.abc import Container, Sequence

from .scalar import Expr, walk
from .types import DType, float32, float64

_CONTRACTED = (float32, float64)
#: The value of a node whose function is to be computed by a shorter formula; which functions have one.
SHORT, _SHORTENED = "short", frozenset(("sigmoid", "gelu"))


def relax(roots: Sequence[Expr], steady: Container[int]) -> tuple[Expr, ...]:
    """The expressions as precision="fast" computes them.

    steady: the arguments that do not change along the inner axis.
    """
    order = walk(roots)
    uses: dict[int, int] = {}
    for node in (*roots, *(a for n in order for a in n.args)):
        uses[id(node)] = uses.get(id(node), 0) + 1
    stays: dict[int, bool] = {}
    made: dict[int, Expr] = {}
    once: dict[int, bool] = {}
    for node in order:
        stays[id(node)] = (
            node.value in steady if node.op == "arg"
            else node.op in ("const", "reduce") or (node.op not in ("index", "philox") and bool(node.args)
                                                    and all(stays[id(a)] for a in node.args))
        )  # fmt: skip
        new = _node(node, [made[id(a)] for a in node.args], once, stays)
        made[id(node)] = new
        once[id(new)] = uses[id(node)] == 1
    return tuple(made[id(r)] for r in roots)


def _node(node: Expr, args: list[Expr], once: dict[int, bool], stays: dict[int, bool]) -> Expr:
    op, dtype = node.op, node.dtype
    if op == "cast" and args[0].op == "cast" and args[0].dtype.is_half and dtype in _CONTRACTED:
        inner = args[0].args[0]
        if inner.dtype is dtype:
            return inner
    if dtype in _CONTRACTED and all(a.dtype is dtype for a in args):
        if op in ("add", "sub"):
            a, b = args
            if _single(a, once):
                return Expr("fma", dtype, (*a.args, b if op == "add" else _negative(b)))
            if _single(b, once):
                x, y = b.args
                return Expr("fma", dtype, (x if op == "add" else _negative(x), y, a))
        if op == "div" and stays[id(node.args[1])] and not stays[id(node.args[0])]:
            return Expr("mul", dtype, (args[0], Expr("div", dtype, (_one(dtype), args[1]))))
    if op in _SHORTENED:
        return Expr(op, dtype, tuple(args), SHORT)
    if not node.args or all(a is b for a, b in zip(args, node.args)):
        return node
    return Expr(op, dtype, tuple(args), node.value)


def _single(x: Expr, once: dict[int, bool]) -> bool:
    return x.op == "mul" and once.get(id(x), False)


def _negative(x: Expr) -> Expr:
    return Expr("neg", x.dtype, (x,))


def _one(dtype: DType) -> Expr:
    return Expr("const", dtype, (), 1.0)
