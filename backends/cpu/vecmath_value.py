"""Typed LLVM values with operators: the small language in which the vector math functions are written.

A function of vecmath is a Python function over `Value`. Run once by an intrinsic's code generator, it leaves
straight-line LLVM IR in the kernel: no call, no branch, no Numba type inference, so loops around it vectorise
and a kernel's compile time hardly grows. Every constant takes the type of the value it meets: arithmetic in
float32 never widens to float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba.core import types

from .target import target


class Kind(NamedTuple):
    """A scalar type: its short name, Numba type, LLVM type, width in bits and class (b, i, u or f)."""

    name: str
    numba: Any
    llvm: Any
    bits: int

    @property
    def is_float(self) -> bool:
        return self.name[0] == "f"

    @property
    def is_bool(self) -> bool:
        return self.name == "b1"

    @property
    def is_signed(self) -> bool:
        return self.name[0] in "if"

    @property
    def mantissa(self) -> int:
        """Explicit mantissa bits of a float."""
        return {32: 23, 64: 52}[self.bits]

    @property
    def integer(self) -> Kind:
        """The signed integer of the same width."""
        return KINDS[f"i{self.bits}"]


KINDS: dict[str, Kind] = {
    "b1": Kind("b1", types.boolean, ir.IntType(1), 1),
    "f32": Kind("f32", types.float32, ir.FloatType(), 32),
    "f64": Kind("f64", types.float64, ir.DoubleType(), 64),
}
for _bits in (8, 16, 32, 64):
    KINDS[f"i{_bits}"] = Kind(f"i{_bits}", getattr(types, f"int{_bits}"), ir.IntType(_bits), _bits)
    KINDS[f"u{_bits}"] = Kind(f"u{_bits}", getattr(types, f"uint{_bits}"), ir.IntType(_bits), _bits)

FLOATS = ("f32", "f64")
INTS = ("i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64")
NUMBERS = FLOATS + INTS
ALL = (*NUMBERS, "b1")
B1 = KINDS["b1"]

Number = int | float


class Value:
    """An LLVM value of a known kind. Operators take Values of the same kind and Python numbers."""

    __slots__ = ("b", "kind", "v")

    def __init__(self, b: ir.IRBuilder, v: Any, kind: Kind):
        self.b, self.v, self.kind = b, v, kind

    # ---- constants and reinterpretation

    def const(self, number: Number, kind: Kind | None = None) -> Value:
        """`number`, rounded to this value's kind (or `kind`)."""
        kind = kind or self.kind
        if kind.is_float:
            rounded = np.float32(number) if kind.bits == 32 else number
            return Value(self.b, kind.llvm(float(rounded)), kind)
        return Value(self.b, kind.llvm(int(number) & ((1 << kind.bits) - 1)), kind)

    def lift(self, other: Value | Number) -> Value:
        if isinstance(other, Value):
            assert other.kind is self.kind, (self.kind.name, other.kind.name)
            return other
        return self.const(other)

    def bits(self) -> Value:
        """The float's bits as a signed integer of its width."""
        kind = self.kind.integer
        return Value(self.b, self.b.bitcast(self.v, kind.llvm), kind)

    def as_float(self) -> Value:
        """The float whose bits this integer is."""
        kind = KINDS[f"f{self.kind.bits}"]
        return Value(self.b, self.b.bitcast(self.v, kind.llvm), kind)

    def viewed(self, name: str) -> Value:
        """The same bits as the integer kind `name` of the same width."""
        return Value(self.b, self.v, KINDS[name])

    # ---- arithmetic

    def _binary(self, other: Value | Number, float_op: str, int_op: str, swap: bool = False) -> Value:
        x, y = self, self.lift(other)
        if swap:
            x, y = y, x
        emit = getattr(self.b, float_op if self.kind.is_float else int_op)
        return Value(self.b, emit(x.v, y.v), self.kind)

    def __add__(self, o: Value | Number) -> Value:
        return self._binary(o, "fadd", "add")

    __radd__ = __add__

    def __sub__(self, o: Value | Number) -> Value:
        return self._binary(o, "fsub", "sub")

    def __rsub__(self, o: Value | Number) -> Value:
        return self._binary(o, "fsub", "sub", swap=True)

    def __mul__(self, o: Value | Number) -> Value:
        return self._binary(o, "fmul", "mul")

    __rmul__ = __mul__

    def __truediv__(self, o: Value | Number) -> Value:
        assert self.kind.is_float
        return self._binary(o, "fdiv", "sdiv")

    def __rtruediv__(self, o: Value | Number) -> Value:
        assert self.kind.is_float
        return self._binary(o, "fdiv", "sdiv", swap=True)

    def __neg__(self) -> Value:
        return Value(self.b, self.b.fneg(self.v) if self.kind.is_float else self.b.neg(self.v), self.kind)

    # ---- bits

    def __and__(self, o: Value | Number) -> Value:
        return self._binary(o, "", "and_")

    def __or__(self, o: Value | Number) -> Value:
        return self._binary(o, "", "or_")

    def __xor__(self, o: Value | Number) -> Value:
        return self._binary(o, "", "xor")

    def __invert__(self) -> Value:
        return Value(self.b, self.b.not_(self.v), self.kind)

    def __lshift__(self, o: Value | Number) -> Value:
        return self._binary(o, "", "shl")

    def __rshift__(self, o: Value | Number) -> Value:
        """Arithmetic shift for signed kinds, logical for unsigned ones."""
        return self._binary(o, "", "ashr" if self.kind.is_signed else "lshr")

    # ---- comparison; with a NaN only != is true

    def _compare(self, op: str, o: Value | Number) -> Value:
        y = self.lift(o)
        if self.kind.is_float:
            emit = self.b.fcmp_unordered if op == "!=" else self.b.fcmp_ordered
        else:
            emit = self.b.icmp_signed if self.kind.is_signed else self.b.icmp_unsigned
        return Value(self.b, emit(op, self.v, y.v), B1)

    def __lt__(self, o: Value | Number) -> Value:
        return self._compare("<", o)

    def __le__(self, o: Value | Number) -> Value:
        return self._compare("<=", o)

    def __gt__(self, o: Value | Number) -> Value:
        return self._compare(">", o)

    def __ge__(self, o: Value | Number) -> Value:
        return self._compare(">=", o)

    def eq(self, o: Value | Number) -> Value:
        return self._compare("==", o)

    def ne(self, o: Value | Number) -> Value:
        return self._compare("!=", o)

    def __bool__(self) -> bool:
        raise TypeError("vector math has no branches: use select(condition, a, b)")

    # ---- conversion

    def to(self, name: str) -> Value:
        """The value converted to the kind `name`, without a trap.

        A float becomes an integer by truncation, NaN 0. Beyond the range int32 and int64 saturate, narrower
        integers keep the low bits of the int32 and uint32 those of the int64: NumPy's results on x86.
        """
        source, target, b = self.kind, KINDS[name], self.b
        if source is target:
            return self
        if target.is_bool:
            return self.ne(0)
        if source.is_float and target.is_float:
            v = b.fpext(self.v, target.llvm) if target.bits > source.bits else b.fptrunc(self.v, target.llvm)
        elif source.is_float:
            return self._float_to_int(target)
        elif target.is_float:
            v = b.sitofp(self.v, target.llvm) if source.is_signed else b.uitofp(self.v, target.llvm)
        elif target.bits < source.bits:
            v = b.trunc(self.v, target.llvm)
        elif target.bits == source.bits:
            v = self.v
        else:
            v = b.sext(self.v, target.llvm) if source.is_signed else b.zext(self.v, target.llvm)
        return Value(b, v, target)

    def _float_to_int(self, target: Kind) -> Value:
        """Towards zero; NaN is 0, what lies outside is the nearest integer of the type.

        Written as comparisons and selects: LLVM takes llvm.fptosi.sat of vectors apart into single elements.
        """
        if target.name not in ("i32", "i64", "u64"):
            return self._float_to_int(KINDS["i64" if target.name == "u32" else "i32"]).to(target.name)
        if target.name == "u64":
            upper = self >= 2.0**63
            low = self._float_to_int(KINDS["i64"]).viewed("u64")
            high = (self - 2.0**63)._float_to_int(KINDS["i64"]).viewed("u64") + 2**63
            return select(self >= 2.0**64, low.const(2**64 - 1), select(upper, high, low))
        limit = 2.0 ** (target.bits - 1)
        above, below = self >= limit, self < -limit
        held = select(above | below | self.ne(self), 0.0, self)
        inside = Value(self.b, self.b.fptosi(held.v, target.llvm), target)
        ends = select(below, inside.const(-(2 ** (target.bits - 1))), inside)
        return select(above, inside.const(2 ** (target.bits - 1) - 1), ends)


# ---- LLVM intrinsics, each of which the loop vectoriser knows


def _call(x: Value, name: str, args: Sequence[Value], result: Kind, full: str = "") -> Value:
    full = full or f"{name}.{x.kind.name if x.kind.is_float else f'i{x.kind.bits}'}"
    function = x.b.module.globals.get(full)
    if function is None:
        function = ir.Function(x.b.module, ir.FunctionType(result.llvm, [a.v.type for a in args]), full)
    return Value(x.b, x.b.call(function, [a.v for a in args]), result)


def fma(a: Value | Number, b: Value | Number, c: Value | Number) -> Value:
    """a * b + c, rounded once."""
    x = next(v for v in (a, b, c) if isinstance(v, Value))
    return _call(x, "llvm.fma", [x.lift(a), x.lift(b), x.lift(c)], x.kind)


def _unary(name: str) -> Any:
    def function(x: Value) -> Value:
        return _call(x, name, [x], x.kind)

    return function


sqrt, fabs = _unary("llvm.sqrt"), _unary("llvm.fabs")
floor, ceil, trunc = _unary("llvm.floor"), _unary("llvm.ceil"), _unary("llvm.trunc")
rint = _unary("llvm.rint")  # to nearest, halves to even, in the default rounding mode


def copysign(magnitude: Value, sign: Value | Number) -> Value:
    return _call(magnitude, "llvm.copysign", [magnitude, magnitude.lift(sign)], magnitude.kind)


def select(condition: Value, a: Value | Number, b: Value | Number) -> Value:
    """`a` where the condition holds, else `b`, without a branch."""
    x = a if isinstance(a, Value) else b
    assert isinstance(x, Value)
    a, b = x.lift(a), x.lift(b)
    return Value(x.b, x.b.select(condition.v, a.v, b.v), x.kind)


def where_beyond(condition: Value, near: Value, beyond: Callable[[], Value]) -> Value:
    """`near`, and `beyond` where the condition holds: rarely, so that vectors without such a lane skip it."""
    b = near.b
    if not isinstance(near.v.type, ir.VectorType):  # a branch would keep loops from becoming vector code
        return select(condition, beyond(), near)
    before = b.block
    rare, joined = b.append_basic_block("rare"), b.append_basic_block("joined")
    b.cbranch(condition.v, rare, joined).set_weights([1, 2000])
    b.position_at_end(rare)
    both = select(condition, beyond(), near)
    end = b.block
    b.branch(joined)
    b.position_at_end(joined)
    result = Value(b, b.phi(near.kind.llvm), near.kind)
    result.v.add_incoming(near.v, before)
    result.v.add_incoming(both.v, end)
    return result


def polynomial(x: Value, coefficients: Sequence[float]) -> Value:
    """sum of coefficients[k] * x**k by Horner's rule, each step one fma."""
    result, turns = x.const(coefficients[-1]), _takes_turns(x, len(coefficients))
    for c in reversed(coefficients[:-1]):
        result = fma(result, x, c)
        if turns:
            result = in_turn(result)
    return result


#: from so many coefficients on a polynomial in eight registers takes turns: short ones are finished sooner one by one
_LONG = 7


def _takes_turns(x: Value, coefficients: int) -> bool:
    """Whether a polynomial's steps are done for four or eight registers in turn: where there are few of them."""
    cpu, vector = target(), x.v.type
    if not isinstance(vector, ir.VectorType) or (cpu.vector_bits, cpu.registers) != (256, 16):
        return False
    count = vector.count * x.kind.bits // cpu.vector_bits
    return count == 4 or (count == 8 and coefficients >= _LONG)


def in_turn(x: Value) -> Value:
    """`x`, all registers of which are made before anything that needs one of them and stands behind.

    So chains stand side by side in the program: a CPU that waits for one finds the next near by. LLVM would do
    one after the other, for fewer registers.
    """
    cpu, vector = target(), x.v.type
    # A builder of its own: that of `x` may be one that turns scalar code into vector code (see lanes.py).
    b = ir.IRBuilder(x.b.block)
    lanes = cpu.vector_bits // x.kind.bits
    count, part = vector.count // lanes, ir.VectorType(vector.element, lanes)

    def numbers(start: int, lanes: int) -> ir.Constant:
        return ir.Constant(ir.VectorType(ir.IntType(32), lanes), list(range(start, start + lanes)))

    nothing = ir.Constant(vector, ir.Undefined)
    parts = [b.shuffle_vector(x.v, nothing, numbers(k * lanes, lanes)) for k in range(count)]
    # An empty instruction that may change these registers.
    constraints = [f"={cpu.register_class}"] * count + [str(k) for k in range(count)]
    made = ir.FunctionType(ir.LiteralStructType([part] * count), [part] * count)
    step = b.call(ir.InlineAsm(made, "", ",".join(constraints), side_effect=True), parts)
    parts = [b.extract_value(step, k) for k in range(count)]
    while len(parts) > 1:
        lanes *= 2
        parts = [b.shuffle_vector(p, q, numbers(0, lanes)) for p, q in zip(parts[::2], parts[1::2])]
    x.b.position_at_end(b.block)
    return Value(x.b, parts[0], x.kind)


def lowest(x: Value, limit: Number) -> Value:
    """`x`, raised to `limit` where it is below; NaN stays."""
    return select(x < limit, limit, x)


def highest(x: Value, limit: Number) -> Value:
    """`x`, lowered to `limit` where it is above; NaN stays."""
    return select(x > limit, limit, x)


def bits_of(number: float, kind: Kind) -> int:
    """The bits of a float constant of the kind, as a signed integer."""
    return int(np.dtype(f"float{kind.bits}").type(number).view(f"int{kind.bits}"))


def by_kind(x: Value, f32: Any, f64: Any) -> Any:
    """The setting for the precision of `x`."""
    return f32 if x.kind.bits == 32 else f64
