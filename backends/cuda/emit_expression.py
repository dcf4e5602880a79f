"""Scalar expressions as lines of CUDA C: one table says what each instruction is for each kind of dtype."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ...core import types as T
from ...core.errors import KernelError
from ...core.scalar import SCALAR_OPS, Expr
from ...core.types import DType

# Instructions by the kind of their operands: f float32, d float64, i any integer, b bool. Functions named s_*
# are in scalar.cuh. CUDA's float32 functions have an f at the end; without it they work in float64.
_TABLE: dict[str, dict[str, str]] = {}


def _define(names: str, **texts: str) -> None:
    """texts: by the letters of the kinds ("fd", "fdib"); {op} is the name, {0} {1} {2} are the operands."""
    for name in names.split():
        row = _TABLE.setdefault(name, {})
        for kinds, text in texts.items():
            row |= dict.fromkeys(kinds, text.replace("{op}", name))


_define("add", fd="{0} + {1}", i="s_add({0}, {1})", b="{0} || {1}")
_define("sub", fd="{0} - {1}", i="s_sub({0}, {1})")
_define("mul", fd="{0} * {1}", i="s_mul({0}, {1})", b="{0} && {1}")
_define("div", fd="{0} / {1}")
_define("fma", f="fmaf({0}, {1}, {2})", d="fma({0}, {1}, {2})", i="s_add(s_mul({0}, {1}), {2})")
_define("floordiv mod fmod", fdi="s_{op}({0}, {1})")
_define("gcd", i="s_gcd({0}, {1})")
_define("maximum", fdi="s_maximum({0}, {1})", b="{0} || {1}")
_define("minimum", fdi="s_minimum({0}, {1})", b="{0} && {1}")
_define("fmax", f="fmaxf({0}, {1})", d="fmax({0}, {1})", i="s_maximum({0}, {1})", b="{0} || {1}")
_define("fmin", f="fminf({0}, {1})", d="fmin({0}, {1})", i="s_minimum({0}, {1})", b="{0} && {1}")
_define("neg", fd="-{0}", i="s_neg({0})")
_define("abs", f="fabsf({0})", d="fabs({0})", i="s_abs({0})", b="{0}")
_define("sign", fdi="s_sign({0})")
for _name, _sign in (("eq", "=="), ("ne", "!="), ("lt", "<"), ("le", "<="), ("gt", ">"), ("ge", ">=")):
    _define(_name, fdib=f"{{0}} {_sign} {{1}}")
_define("logical_and", fdib="{0} != 0 && {1} != 0")
_define("logical_or", fdib="{0} != 0 || {1} != 0")
_define("logical_xor", fdib="({0} != 0) != ({1} != 0)")
_define("logical_not", fdib="{0} == 0")
_define("isnan", fd="{0} != {0}", ib="false")
_define("isinf", f="fabsf({0}) == F32_INF", d="fabs({0}) == F64_INF", ib="false")
_define("isfinite", f="fabsf({0}) < F32_INF", d="fabs({0}) < F64_INF", ib="true")
_define("and", ib="{0} & {1}")
_define("or", ib="{0} | {1}")
_define("xor", ib="{0} ^ {1}")
_define("invert", i="~{0}", b="!{0}")
_define("shl shr", i="s_{op}({0}, {1})")
_define("where", fdib="{0} ? {1} : {2}")
_define("floor ceil trunc rint", f="{op}f({0})", d="{op}({0})", ib="{0}")
_define("sqrt exp exp2 expm1 log log2 log10 log1p", f="{op}f({0})", d="{op}({0})")
_define("sin cos tan sinh cosh tanh asinh acosh atanh erf erfc cbrt", f="{op}f({0})", d="{op}({0})")
_define("rsqrt", f="1.0f / sqrtf({0})", d="1.0 / sqrt({0})")  # rounded twice, as 1 / sqrt(x) everywhere else
for _name in ("sin", "cos", "tan"):
    _define(f"a{_name}", f=f"a{_name}f({{0}})", d=f"a{_name}({{0}})")
_define("round_f16 round_bf16", fd="s_{op}({0})")
_define("atan2", f="atan2f({0}, {1})", d="atan2({0}, {1})")
_define("nextafter", f="nextafterf({0}, {1})", d="nextafter({0}, {1})")
_define("copysign", fd="s_copysign({0}, {1})")
_define("sigmoid gelu softplus", fd="s_{op}({0})")
_define("pow", f="powf({0}, {1})", d="pow({0}, {1})", i="s_pow({0}, {1})")


def kind_letter(dtype: DType) -> str:
    """The column of the instruction table."""
    if dtype.is_float:
        return "f" if dtype is T.float32 else "d"
    return "b" if dtype is T.bool_ else "i"


def has_instruction(op: str, dtype: DType) -> bool:
    """Whether the scalar op exists for operands of the dtype."""
    return kind_letter(dtype) in _TABLE.get(op, {})


def constant(value: Any, dtype: DType) -> str:
    """A literal of exactly this dtype and value."""
    if dtype is T.bool_:
        return "true" if value else "false"
    if dtype.is_float:
        suffix, bits = ("f", "F32") if dtype is T.float32 else ("", "F64")
        if math.isnan(value):
            return f"{bits}_NAN"
        if math.isinf(value):
            return f"{bits}_INF" if value > 0 else f"(-{bits}_INF)"
        # NumPy's shortest text that reads back as the same number of this precision.
        text = str(dtype.np.type(value))
        text = text if any(c in text for c in ".e") else text + ".0"
        return _signed(text + suffix)
    value = int(value)
    if dtype is T.int64:
        return "I64_MIN" if value == -(1 << 63) else _signed(f"{value}LL")
    if dtype is T.int32:
        return "(i32)-2147483648LL" if value == -(1 << 31) else _signed(str(value))
    if dtype in (T.uint32, T.uint64):
        return f"{value}u" if dtype is T.uint32 else f"{value}ULL"
    return f"({dtype.char}){value}"


def _signed(text: str) -> str:
    return f"({text})" if text.startswith("-") else text


def cast(x: str, source: DType, target: DType) -> str:
    """`x` converted as NumPy's astype does."""
    if target is T.bool_:
        return f"{x} != 0"
    if source.is_float and target.is_integer:
        if target is T.uint64:
            return f"to_u64({x})"
        wide = "i64" if target in (T.int64, T.uint32) else "i32"
        return f"to_{wide}({x})" if target.char == wide else f"({target.char})to_{wide}({x})"
    return f"({target.char}){x}"


def instruction(node: Expr, a: Sequence[str]) -> str:
    """The right-hand side that computes `node` from the texts `a` of its operands."""
    op = node.op
    if op == "const":
        return constant(node.value, node.dtype)
    if op == "cast":
        return cast(a[0], node.args[0].dtype, node.dtype)
    if op == "philox":
        return f"dg_philox({a[0]}, {a[1]}, {a[2]}, {node.value})"
    dtype = node.args[-1].dtype if node.args else node.dtype
    text = _TABLE.get(op, {}).get(kind_letter(dtype))
    if text is None:
        what = f"{op} of {dtype}" if op in SCALAR_OPS else f"the scalar node {op!r}"
        raise KernelError("kernel", f"{what} cannot stand in a CUDA loop", "report it as a defect")
    text = text.format(*a)
    # C computes integers narrower than int as int.
    if node.dtype.itemsize < 4 and node.dtype is not T.bool_ and op in ("and", "or", "xor", "invert"):
        return f"({node.dtype.char})({text})"
    return text


class Body:
    """Writes expressions into lines, each node once, and remembers the name of its value.

    load: how to get the value of an `arg` node; names: id(node) -> text of a value that exists already; args:
    position of an argument -> the same (two nodes may be the same argument).
    """

    def __init__(self, load: Callable[[Expr], str], outer: Body | None = None):
        self.load = load
        self.names: dict[int, str] = dict(outer.names) if outer else {}
        self.args: dict[Any, str] = dict(outer.args) if outer else {}
        self.count: int = outer.count if outer else 0
        self.lines: list[str] = []

    def fork(self, load: Callable[[Expr], str]) -> Body:
        """A body of an inner scope: it sees the names of this one and adds its own."""
        return Body(load, self)

    def value(self, node: Expr) -> str:
        """The text of the node's value, after appending the lines that compute it."""
        for part in missing([node], self.names):
            if part.op == "const":
                self.names[id(part)] = instruction(part, ())
                continue
            if part.op == "arg" and part.value in self.args:
                self.names[id(part)] = self.args[part.value]
                continue
            if part.op == "arg":
                name, right = f"x{part.value}", self.load(part)
                self.args[part.value] = name
            else:
                name, right = f"t{self.count}", instruction(part, [self.names[id(a)] for a in part.args])
                self.count += 1
            self.lines.append(f"const {part.dtype.char} {name} = {right};")
            self.names[id(part)] = name
        return self.names[id(node)]


def missing(roots: Iterable[Expr], names: Mapping[int, str]) -> list[Expr]:
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


def lowest(dtype: DType) -> str:
    """The identity of maximum."""
    return constant(-math.inf if dtype.is_float else 0 if dtype is T.bool_ else np.iinfo(dtype.np).min, dtype)


def highest(dtype: DType) -> str:
    """The identity of minimum."""
    return constant(math.inf if dtype.is_float else 1 if dtype is T.bool_ else np.iinfo(dtype.np).max, dtype)
