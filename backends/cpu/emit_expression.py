"""Scalar expressions as lines of Numba source, on single numbers or on wide values (see wide.py)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any

from ...core import types as T
from ...core.errors import KernelError
from ...core.relax import SHORT
from ...core.scalar import SCALAR_OPS, Expr, walk
from ...core.types import DType
from .target import has_quarters

# Operators that mean the same in Numba as in NumPy: on floats, and (Numba computes all integers in 64 bits)
# on int64 and uint64. Everything else is an instruction of vecmath.
_INFIX = dict(pair.split(":") for pair in "add:+ sub:- mul:* lt:< le:<= gt:> ge:>= eq:== ne:!=".split())
_FLOAT_INFIX = _INFIX | {"div": "/"}

# About how many vector instructions an operation takes; all others count 1.
DEAR = """exp exp2 expm1 log log2 log10 log1p sin cos tan sinh cosh tanh asin acos atan asinh acosh atanh
sigmoid erf erfc gelu softplus cbrt atan2 pow mod fmod floordiv gcd""".split()
WEIGHTS: dict[str, int] = (
    dict.fromkeys(SCALAR_OPS, 1)
    | dict.fromkeys(DEAR, 20)
    | {"div": 4, "sqrt": 5, "rsqrt": 8, "philox": 60, "cast": 1, "const": 0, "arg": 1, "reduce": 0}
)
#: functions that a table of four serves where registers are short, and which of them are chains of 90 cycles and more
_QUARTERS, _LONG = frozenset("exp exp2 sigmoid softplus gelu".split()), frozenset(("softplus", "gelu"))
#: functions that are chains of multiply-adds, without a loop or a rare way
_CHAINS = _QUARTERS | frozenset("expm1 log log2 log10 log1p sinh cosh tanh asin acos atan erf erfc".split())


def abreast(nodes: Iterable[Expr]) -> int:
    """How many wide values stand side by side: several where a CPU with few short registers waits for long chains."""
    nodes = list(nodes)
    dear = {n.op for n in nodes if n.op in DEAR}
    if not (has_quarters() and dear and dear <= _CHAINS and all(n.dtype is T.float32 for n in nodes)):
        return 1
    return 4 if dear & _LONG and dear <= _QUARTERS else 2


def constant(value: Any, dtype: DType) -> str:
    """A constant as an argument of an instruction, which converts it to its own dtype.

    Beside an operator a bare Python float would silently make the whole expression float64.
    """
    if dtype is T.bool_:
        return str(bool(value))
    if not dtype.is_float:
        return str(int(value))
    if math.isnan(value):
        return "1e999 - 1e999"
    if math.isinf(value):
        return "1e999" if value > 0 else "-1e999"
    return repr(float(value))


def instruction(node: Expr, a: Sequence[str], wide: bool = False) -> str:
    """The right-hand side that computes `node` from the names `a` of its operands."""
    op, letter = node.op, "w" if wide else "v"
    if op == "const":
        return constant(node.value, node.dtype)
    if op == "cast":
        return f"{letter}_cast_{node.args[0].dtype.char}_{node.dtype.char}({a[0]})"
    if op == "philox":
        return f"{letter}_philox({', '.join(a)}, {node.value})"
    if op not in SCALAR_OPS:
        raise KernelError("kernel", f"the scalar node {op!r} cannot stand in a loop", "report it as a defect")
    dtype = node.args[-1].dtype
    if node.value == SHORT and dtype is T.float32:
        op = f"{op}_short"
    elif op == "exp" and _never_above_zero(node.args[0]):
        op = "exp_below"
    if not wide and not any(x.op == "const" for x in node.args):
        infix = _FLOAT_INFIX if dtype.is_float else _INFIX if dtype.char in ("i64", "u64") else {}
        if op in infix:
            return f"{a[0]} {infix[op]} {a[1]}"
    return f"{letter}_{op}_{dtype.char}({', '.join(a)})"


def _never_above_zero(x: Expr) -> bool:
    """Whether x is what something lies below its own maximum (or NaN)."""
    if x.op != "sub" or x.args[1].op != "reduce":
        return False
    value, top = x.args
    return top.value == "max" and top.args[0] is value


class Body:
    """Writes expressions into lines, each once, and remembers the name of its value.

    load: how to get the value of an `arg` node. Names are unique in the kernel, arguments' names apart, which end
    with `tail`.
    """

    def __init__(self, load: Callable[[Expr], str], prefix: str = "t", wide: bool = False, tail: str = ""):
        self.load, self.prefix, self.wide, self.tail = load, prefix, wide, tail
        self.lines: list[str] = []
        #: id(node) -> name of its value
        self.names: dict[int, str] = {}
        #: id(node) -> text that reads its value from working memory, when it is wanted
        self.stored: dict[int, str] = {}
        self._known: dict[str, str] = {}
        self._numbers = itertools.count()

    def fork(self, load: Callable[[Expr], str], wide: bool = False) -> Body:
        """A body of an inner scope: it sees the names of this one and adds its own."""
        inner = Body(load, self.prefix, wide, self.tail)
        inner.names, inner.stored, inner._known = dict(self.names), dict(self.stored), dict(self._known)
        inner._numbers = self._numbers
        return inner

    def missing(self, roots: Iterable[Expr]) -> list[Expr]:
        """The nodes without a name that `roots` need, operands first."""
        return missing(roots, self.names, self.stored)

    def value(self, node: Expr) -> str:
        """The name of the node's value, after appending the lines that compute it."""
        for part in self.missing([node]):
            if id(part) in self.stored:
                right = self.stored[id(part)]
            elif part.op == "arg":
                right = self.load(part)
            else:
                right = instruction(part, [self.names[id(a)] for a in part.args], self.wide)
            self.assign(part, right)
        return self.names[id(node)]

    def assign(self, node: Expr, right: str) -> str:
        """Give the value of the expression text `right` to the node; the same text has the same name."""
        if node.op == "const" or right.isidentifier():
            name = right
        elif right in self._known:
            name = self._known[right]
        else:
            name = f"x{node.value}{self.tail}" if node.op == "arg" else f"{self.prefix}{next(self._numbers)}"
            self.lines.append(f"{name} = {right}")
            self._known[right] = name
        self.names[id(node)] = name
        return name


def missing(roots: Iterable[Expr], done: Container[int], leaves: Container[int] = ()) -> list[Expr]:
    """The nodes to compute before `roots`, operands first, without those done; leaves are not entered."""
    seen: set[int] = set()
    order: list[Expr] = []

    def visit(node: Expr) -> None:
        if id(node) not in seen and id(node) not in done:
            seen.add(id(node))
            if id(node) not in leaves:
                for arg in node.args:
                    visit(arg)
            order.append(node)

    for root in roots:
        visit(root)
    return order


def merged(roots: Sequence[Expr]) -> tuple[Expr, ...]:
    """The same expressions with equal nodes made one."""
    found: dict[tuple[object, ...], Expr] = {}
    done: dict[int, Expr] = {}
    for node in walk(roots):
        args = tuple(done[id(a)] for a in node.args)
        key = (node.op, node.dtype.char, repr(node.value), *map(id, args))
        if key not in found:
            same = all(a is b for a, b in zip(args, node.args))
            found[key] = node if same else Expr(node.op, node.dtype, args, node.value)
        done[id(node)] = found[key]
    return tuple(done[id(r)] for r in roots)


def expression_lines(
    roots: Sequence[Expr], arg_names: Sequence[str], indent: int = 4, wide: bool = False
) -> tuple[list[str], list[str]]:
    """Source lines that compute `roots` from values at hand: the epilogue of a hand-written kernel.

    arg_names: the name of the value of `arg` k, already of its dtype; indent: spaces before each line;
        wide: the values are wide (or scalars among them).
    Returns: (lines, the name of each root's value).
    Raises: KernelError for a node that needs a loop (`reduce`, `index`).
    """
    body = Body(lambda node: arg_names[node.value], "t", wide)
    names = [body.value(root) for root in roots]
    return [" " * indent + line for line in body.lines], names
