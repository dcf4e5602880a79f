"""Scalar expressions as lines of Numba source: one table says how every scalar instruction is written."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ...core import types as T
from ...core.errors import KernelError
from ...core.scalar import SCALAR_OPS, Expr
from ...core.types import DType

# Operators that mean the same in Numba as in NumPy for the kinds listed (f float, w int64 and uint64, n any
# integer, b bool). Numba computes narrower integers in 64 bits, so those take the wrapping instructions.
_INFIX = {
    "add": ("+", "fw"), "sub": ("-", "fw"), "mul": ("*", "fw"), "div": ("/", "f"),
    "eq": ("==", "fn"), "ne": ("!=", "fn"), "lt": ("<", "fn"), "le": ("<=", "fn"), "gt": (">", "fn"), "ge": (">=", "fn"),
    "and": ("&", "b"), "or": ("|", "b"), "xor": ("^", "b"),
    "logical_and": ("&", "b"), "logical_or": ("|", "b"), "logical_xor": ("^", "b"),
}  # fmt: skip

# Booleans have no arithmetic of their own: NumPy defines these operations by logic.
_BOOL = {
    "add": "{0} | {1}", "mul": "{0} & {1}", "maximum": "{0} | {1}", "minimum": "{0} & {1}",
    "eq": "not ({0} ^ {1})", "ne": "{0} ^ {1}", "lt": "(not {0}) & {1}", "le": "(not {0}) | {1}",
    "gt": "{0} & (not {1})", "ge": "{0} | (not {1})", "pow": "{0} | (not {1})",
    "mod": "False", "floordiv": "{0} & {1}", "shl": "{0}", "shr": "{0} & (not {1})",
    "logical_not": "not {0}", "invert": "not {0}", "abs": "{0}", "fma": "({0} & {1}) | {2}",
    "isnan": "False", "isinf": "False", "isfinite": "True", "sub": "{0} ^ {1}", "neg": "{0}", "sign": "{0}",
    "floor": "{0}", "ceil": "{0}", "trunc": "{0}", "rint": "{0}",
}  # fmt: skip

# About how many vector instructions an operation takes; all others count 1.
WEIGHTS = dict.fromkeys(SCALAR_OPS, 1) | dict.fromkeys(
    "exp exp2 expm1 log log2 log10 log1p sin cos tan sinh cosh tanh asin acos atan asinh acosh atanh sigmoid erf "
    "atan2 pow mod floordiv".split(), 20
) | {"div": 4, "sqrt": 5, "rsqrt": 8, "philox": 60, "cast": 1, "const": 0, "arg": 1}  # fmt: skip


def constant(value: Any, dtype: DType) -> str:
    """A typed constant. A bare Python float would silently make the whole expression float64."""
    if dtype is T.bool_:
        return str(bool(value))
    if not dtype.is_float:
        return f"types.{dtype.name}({int(value)})"
    if math.isnan(value):
        text = "1e999 - 1e999"
    elif math.isinf(value):
        text = "1e999" if value > 0 else "-1e999"
    else:
        text = repr(float(value))
    return f"types.{dtype.name}({text})"


def instruction(node: Expr, a: Sequence[str]) -> str:
    """The right-hand side that computes `node` from the names `a` of its operands."""
    op = node.op
    if op == "const":
        return constant(node.value, node.dtype)
    if op == "cast":
        return f"to_{node.dtype.char}({a[0]})"
    if op == "philox":
        return f"v_philox({a[0]}, {a[1]}, {a[2]}, {node.value})"
    if op not in SCALAR_OPS:
        raise KernelError("kernel", f"the scalar node {op!r} cannot stand in a loop kernel", "report it as a defect")
    dtype = node.args[-1].dtype
    if dtype is T.bool_ and op in _BOOL:
        return _BOOL[op].format(*a)
    symbol, kinds = _INFIX.get(op, ("", ""))
    if _kinds(dtype) & set(kinds):
        return f"{a[0]} {symbol} {a[1]}"
    return f"v_{op}_{dtype.char}({', '.join(a)})"


def _kinds(dtype: DType) -> set[str]:
    if dtype.is_float:
        return {"f"}
    if dtype is T.bool_:
        return {"b"}
    return {"n", "w"} if dtype.itemsize == 8 else {"n"}


class Body:
    """Writes expressions into lines, each node once, and remembers the name of its value.

    names: id(node) -> name of a value that exists already; load: how to get the value of an `arg` node.
    """

    def __init__(self, load: Callable[[Expr], str], names: Mapping[int, str] | None = None, prefix: str = "t"):
        self.names = dict(names or {})
        self.load, self.prefix = load, prefix
        self.lines: list[str] = []
        self.count = 0

    def fork(self, load: Callable[[Expr], str] | None = None) -> Body:
        """A body that sees the names of this one but writes lines of its own: an inner scope."""
        inner = Body(load or self.load, self.names, self.prefix)
        inner.count = self.count
        return inner

    def value(self, node: Expr) -> str:
        """The name of the node's value, after appending the lines that compute it."""
        for part in _missing([node], self.names):
            if part.op == "arg":
                right = self.load(part)
            else:
                right = instruction(part, [self.names[id(a)] for a in part.args])
            self.assign(part, right)
        return self.names[id(node)]

    def assign(self, node: Expr, right: str) -> str:
        """Give the value of the expression text `right` to the node, under a new name."""
        if node.op == "const" or (right.isidentifier() and right not in ("True", "False")):
            name = right
        else:
            name = f"x{node.value}" if node.op == "arg" else f"{self.prefix}{self._next()}"
            self.lines.append(f"{name} = {right}")
        self.names[id(node)] = name
        return name

    def _next(self) -> int:
        self.count += 1
        return self.count - 1


def _missing(roots: Iterable[Expr], names: Mapping[int, str]) -> list[Expr]:
    """The nodes to compute before `roots`, operands first; values that have names are not entered."""
    seen: set[int] = set()
    order: list[Expr] = []

    def visit(node: Expr) -> None:
        if id(node) not in seen and id(node) not in names:
            seen.add(id(node))
            for arg in node.args:
                visit(arg)
            order.append(node)

    for root in roots:
        visit(root)
    return order


def expression_lines(
    roots: Sequence[Expr], arg_names: Sequence[str], indent: int = 4, prefix: str = "t"
) -> tuple[list[str], list[str]]:
    """Source lines that compute `roots` from values that are at hand (an epilogue of a hand-written kernel).

    arg_names: the name of the value of `arg` k, already of its dtype; indent: spaces before each line; prefix: of
        the names that the lines define.
    Returns: (lines, the name of each root's value).
    Raises: KernelError for a node that needs a loop (`reduce`, `index`).
    """
    body = Body(lambda node: arg_names[node.value], prefix=prefix)
    names = [body.value(root) for root in roots]
    return [" " * indent + line for line in body.lines], names
