"""Exact scalar instructions: arithmetic, comparison, logic, bits, rounding, casts, floor divide and mod.

Integer arithmetic is here too because Numba widens int32 + int32 to int64: `v_add_i32` wraps as NumPy does.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from llvmlite import ir

from . import vecmath_value as V
from .vecmath_registry import register, vector
from .vecmath_value import ALL, FLOATS, INTS, NUMBERS, Value, copysign, fabs, fma, select

SIGNED = tuple(k for k in INTS if k[0] == "i")
UNSIGNED = tuple(k for k in INTS if k[0] == "u")
BITS = (*INTS, "b1")
PAIR = ("T", "T")


Body = Callable[..., Value]


def _simple(op: str, kinds: tuple[str, ...], arity: int, body: Body, result: str = "T") -> None:
    vector(op, kinds, ("T",) * arity, result)(body)


# ---- arithmetic; NumPy's bool + is or, bool * is and

_simple("add", NUMBERS, 2, lambda a, b: a + b)
_simple("sub", NUMBERS, 2, lambda a, b: a - b)
_simple("mul", NUMBERS, 2, lambda a, b: a * b)
_simple("add", ("b1",), 2, lambda a, b: a | b)
_simple("mul", ("b1",), 2, lambda a, b: a & b)
_simple("div", FLOATS, 2, lambda a, b: a / b)
_simple("fma", FLOATS, 3, V.fma)
_simple("fma", INTS, 3, lambda a, b, c: a * b + c)
_simple("neg", NUMBERS, 1, lambda x: -x)
_simple("abs", FLOATS, 1, V.fabs)
_simple("abs", SIGNED, 1, lambda x: select(x < 0, -x, x))
_simple("abs", (*UNSIGNED, "b1"), 1, lambda x: x)
_simple("copysign", FLOATS, 2, V.copysign)

# ---- comparison and logic

_simple("eq", NUMBERS, 2, lambda a, b: a.eq(b), "b1")
_simple("ne", NUMBERS, 2, lambda a, b: a.ne(b), "b1")
_simple("lt", NUMBERS, 2, lambda a, b: a < b, "b1")
_simple("le", NUMBERS, 2, lambda a, b: a <= b, "b1")
_simple("gt", NUMBERS, 2, lambda a, b: a > b, "b1")
_simple("ge", NUMBERS, 2, lambda a, b: a >= b, "b1")
_simple("eq", ("b1",), 2, lambda a, b: ~(a ^ b))
_simple("ne", ("b1",), 2, lambda a, b: a ^ b)
_simple("lt", ("b1",), 2, lambda a, b: ~a & b)
_simple("le", ("b1",), 2, lambda a, b: ~a | b)
_simple("gt", ("b1",), 2, lambda a, b: a & ~b)
_simple("ge", ("b1",), 2, lambda a, b: a | ~b)
_simple("logical_and", ALL, 2, lambda a, b: a.to("b1") & b.to("b1"), "b1")
_simple("logical_or", ALL, 2, lambda a, b: a.to("b1") | b.to("b1"), "b1")
_simple("logical_xor", ALL, 2, lambda a, b: a.to("b1") ^ b.to("b1"), "b1")
_simple("logical_not", ALL, 1, lambda x: ~x.to("b1"), "b1")
_simple("isnan", FLOATS, 1, lambda x: x.ne(x), "b1")
_simple("isinf", FLOATS, 1, lambda x: fabs(x).eq(math.inf), "b1")
_simple("isfinite", FLOATS, 1, lambda x: fabs(x) < math.inf, "b1")
_simple("isnan", BITS, 1, lambda x: x.const(0, V.B1), "b1")
_simple("isinf", BITS, 1, lambda x: x.const(0, V.B1), "b1")
_simple("isfinite", BITS, 1, lambda x: x.const(1, V.B1), "b1")
where = vector("where", ALL, ("b1", "T", "T"))(select)

# ---- bits

_simple("and", BITS, 2, lambda a, b: a & b)
_simple("or", BITS, 2, lambda a, b: a | b)
_simple("xor", BITS, 2, lambda a, b: a ^ b)
_simple("invert", BITS, 1, lambda x: ~x)


def _shift_count(x: Value, n: Value) -> tuple[Value, Value]:
    """(n is a legal count, n made legal); for LLVM a count beyond the width is poison."""
    bits = x.kind.bits
    legal = n.viewed(f"u{bits}") < bits
    return legal, select(legal, n, 0)


@vector("shl", INTS, PAIR)
def shl(x: Value, n: Value) -> Value:
    """x << n; 0 for counts outside 0 .. bits - 1, as NumPy gives."""
    legal, n = _shift_count(x, n)
    return select(legal, x << n, 0)


@vector("shr", INTS, PAIR)
def shr(x: Value, n: Value) -> Value:
    """x >> n; for counts outside 0 .. bits - 1 the sign alone (0 or -1), as NumPy gives."""
    legal, n = _shift_count(x, n)
    return select(legal, x >> n, x >> (x.kind.bits - 1) if x.kind.is_signed else x.const(0))


# ---- rounding; integers are whole already

for _name in ("floor", "ceil", "trunc", "rint"):
    _simple(_name, FLOATS, 1, getattr(V, _name))
    _simple(_name, BITS, 1, lambda x: x)

# ---- extremes and sign


def _or_nan(b: Value, extreme: Value) -> Value:
    """NaN where b is one; the extreme is b only by a comparison, so that it is a where that is NaN.

    A NaN that is not b itself: LLVM would make one choice of the two, and lose the instruction for the extreme.
    """
    return select(b.ne(b), math.nan, extreme)


@vector("maximum", FLOATS, PAIR)
def maximum(a: Value, b: Value) -> Value:
    """The larger; NaN if either is."""
    return _or_nan(b, select(b > a, b, a))


@vector("minimum", FLOATS, PAIR)
def minimum(a: Value, b: Value) -> Value:
    """The smaller; NaN if either is."""
    return _or_nan(b, select(b < a, b, a))


@vector("fmax", FLOATS, PAIR)
def fmax(a: Value, b: Value) -> Value:
    """The larger; the other one if one is NaN."""
    return select(b.ne(b), a, select(a > b, a, b))


@vector("fmin", FLOATS, PAIR)
def fmin(a: Value, b: Value) -> Value:
    """The smaller; the other one if one is NaN."""
    return select(b.ne(b), a, select(a < b, a, b))


for _name in ("maximum", "fmax"):
    _simple(_name, INTS, 2, lambda a, b: select(a > b, a, b))
    _simple(_name, ("b1",), 2, lambda a, b: a | b)
for _name in ("minimum", "fmin"):
    _simple(_name, INTS, 2, lambda a, b: select(a < b, a, b))
    _simple(_name, ("b1",), 2, lambda a, b: a & b)


@vector("sign", FLOATS)
def sign(x: Value) -> Value:
    """-1, 0 or 1; NaN for NaN."""
    y = select(x > 0.0, x.const(1.0), select(x < 0.0, x.const(-1.0), x.const(0.0)))
    return select(x.ne(x), x, y)


_simple("sign", SIGNED, 1, lambda x: select(x > 0, x.const(1), x >> (x.kind.bits - 1)))
_simple("sign", UNSIGNED, 1, lambda x: select(x.ne(0), x.const(1), x.const(0)))


@vector("nextafter", FLOATS, PAIR)
def nextafter(x: Value, y: Value) -> Value:
    """The float beside x on the way to y; y itself when they are equal."""
    bits = x.bits()
    away = (x < y) ^ (bits < 0)  # the magnitude grows
    step = select(away, bits + 1, bits - 1).as_float()
    least = copysign(x.const(1, x.kind.integer).as_float(), y)
    out = select(x.eq(y), y, select(x.eq(0.0), least, step))
    return select(x.ne(x) | y.ne(y), x + y, out)


# ---- division with remainder


def _remainder(a: Value, b: Value) -> Value:
    """fmod(a, b), exact; computed in float64, 50 bits of the quotient at a time.

    A loop, which goes round once where |a / b| < 2**52. A quotient of float64 that overflows is taken by multiples of
    b: by 2**1023 of them, and 2**60 times as many where that overflows too.
    """
    x, y = fabs(a).to("f64"), fabs(b).to("f64")
    builder, before = a.b, a.b.block
    loop, done = builder.append_basic_block("mod"), builder.append_basic_block("mod.done")
    builder.branch(loop)
    builder.position_at_end(loop)
    phi = builder.phi(x.kind.llvm)
    r = Value(builder, phi, x.kind)
    unit = y
    t = r / unit
    if a.kind.name == "f64":
        for power in (1023, 60):
            unit = select(t < math.inf, unit, unit * 2.0**power)
            t = r / unit
    beyond = (t.bits() >> 52) - (1023 + 50)
    k = select(t < 2.0**52, 0, beyond)
    step = unit * _power_of_two(k)
    new = fma(-V.trunc(t * _power_of_two(-k)), step, r)
    new = select(new < 0.0, new + step, new)  # the quotient was rounded up to the next integer
    new = select(r < y, r, new)  # also where y is infinite
    phi.add_incoming(x.v, before)
    phi.add_incoming(new.v, loop)
    builder.cbranch((new >= y).v, loop, done)
    builder.position_at_end(done)
    return copysign(new.to(a.kind.name), a)


def _power_of_two(k: Value) -> Value:
    return ((k + 1023) << 52).as_float()


@vector("fmod", FLOATS, PAIR)
def fmod(a: Value, b: Value) -> Value:
    """a - trunc(a / b) * b, exact: the remainder has the sign of a."""
    legal = b.ne(0.0) & (fabs(a) < math.inf) & b.eq(b)
    return select(legal, _remainder(a, b), a.const(math.nan))


def _float_divmod(a: Value, b: Value) -> tuple[Value, Value]:
    """(floor(a / b), a mod b) as NumPy computes them for finite numbers: the remainder has the sign of b."""
    legal = b.ne(0.0) & (fabs(a) < math.inf) & b.eq(b)
    r = select(legal, _remainder(a, b), a.const(math.nan))
    turn = r.ne(0.0) & ((b < 0.0) ^ (r < 0.0))
    q = (a - r) / b
    q = select(turn, q - 1.0, q)
    whole = V.floor(q)
    whole = select(q - whole > 0.5, whole + 1.0, whole)
    whole = select(q.eq(0.0), copysign(q.const(0.0), a / b), whole)
    mod = select(turn, r + b, select(r.eq(0.0), copysign(r.const(0.0), b), r))
    # Beside an infinity it is the quotient, as the array API standard says.
    return select(b.eq(0.0) | fabs(a).eq(math.inf) | fabs(b).eq(math.inf), a / b, whole), mod


_simple("floordiv", FLOATS, 2, lambda a, b: _float_divmod(a, b)[0])
_simple("mod", FLOATS, 2, lambda a, b: _float_divmod(a, b)[1])


def _int_quotient(a: Value, b: Value) -> Value:
    """The quotient toward zero, b != 0 and no overflow: by float64 up to 32 bits, which vectorises."""
    if a.kind.bits == 64:
        emit = a.b.sdiv if a.kind.is_signed else a.b.udiv
        return Value(a.b, emit(a.v, b.v), a.kind)
    wide = V.trunc(a.to("f64") / b.to("f64"))
    # Every 32-bit quotient is in range: a plain conversion is never poison.
    emit, name = (a.b.fptosi, "i32") if a.kind.is_signed else (a.b.fptoui, "u32")
    return Value(a.b, emit(wide.v, ir.IntType(32)), V.KINDS[name]).to(a.kind.name)


def _int_divmod(a: Value, b: Value) -> tuple[Value, Value]:
    """NumPy's integer floor divide and remainder: by 0 both are 0, the lowest by -1 gives itself and 0."""
    zero = b.eq(0)
    if not a.kind.is_signed:
        q = _int_quotient(a, select(zero, 1, b))
        return select(zero, 0, q), select(zero, 0, a - q * b)
    negate = b.eq(-1)
    q = _int_quotient(a, select(zero | negate, 1, b))
    r = select(negate, 0, a - q * b)
    turn = r.ne(0) & ((r ^ b) < 0)
    q = select(turn, q - 1, q)
    q = select(negate, -a, q)
    return select(zero, 0, q), select(zero, 0, select(turn, r + b, r))


@vector("fmod", INTS, PAIR)
def int_fmod(a: Value, b: Value) -> Value:
    """The remainder with the sign of a; 0 for b = 0."""
    odd = (b.eq(0) | b.eq(-1)) if a.kind.is_signed else b.eq(0)
    q = _int_quotient(a, select(odd, 1, b))
    return select(odd, 0, a - q * b)


@vector("gcd", INTS, PAIR)
def gcd(a: Value, b: Value) -> Value:
    """The greatest common divisor of the magnitudes (0 beside 0): Euclid's loop."""
    kind, builder = a.kind, a.b
    if kind.is_signed:
        a, b = (select(v < 0, -v, v).viewed(f"u{kind.bits}") for v in (a, b))
    before = builder.block
    loop, done = builder.append_basic_block("gcd"), builder.append_basic_block("gcd.done")
    builder.branch(loop)
    builder.position_at_end(loop)
    x, y = (Value(builder, builder.phi(kind.llvm), a.kind) for _ in range(2))
    end = y.eq(0)
    q = _int_quotient(x, select(end, 1, y))
    new_x, new_y = select(end, x, y), select(end, 0, x - q * y)
    for value, first, again in ((x, a, new_x), (y, b, new_y)):
        value.v.add_incoming(first.v, before)
        value.v.add_incoming(again.v, loop)
    builder.cbranch(new_y.ne(0).v, loop, done)
    builder.position_at_end(done)
    return new_x.viewed(kind.name)


_simple("floordiv", INTS, 2, lambda a, b: _int_divmod(a, b)[0])
_simple("mod", INTS, 2, lambda a, b: _int_divmod(a, b)[1])


@vector("pow", INTS, PAIR)
def int_pow(x: Value, n: Value) -> Value:
    """x**n modulo 2**bits, by squaring, a loop; a negative n gives what 1 / x**-n truncates to."""
    b, kind = x.b, x.kind
    before = b.block
    loop, done = b.append_basic_block("pow"), b.append_basic_block("pow.done")
    b.branch(loop)
    b.position_at_end(loop)
    phis = [b.phi(kind.llvm) for _ in range(3)]
    base, power, result = (Value(b, p, kind) for p in phis)
    new_result = select((power & 1).ne(0), result * base, result)
    new_power = (power.viewed(f"u{kind.bits}") >> 1).viewed(kind.name)
    for phi, first, again in zip(phis, (x, n, x.const(1)), (base * base, new_power, new_result)):
        phi.add_incoming(first.v, before)
        phi.add_incoming(again.v, loop)
    b.cbranch(new_power.ne(0).v, loop, done)
    b.position_at_end(done)
    if not kind.is_signed:
        return new_result
    # x**n for negative n: 1 for x = 1, +-1 for x = -1, else 0.
    one = x.const(1)
    unit = select(x.eq(-1), select((n & 1).ne(0), -one, one), select(x.eq(1), one, 0))
    return select(n < 0, unit, new_result)


# ---- casts


def _cast(target: str) -> Callable[[Value], Value]:
    def cast(x: Value) -> Value:
        """As NumPy's astype, without a trap: see `Value.to`."""
        return x.to(target)

    return cast


for _source in ALL:
    for _target in ALL:
        register(f"v_cast_{_source}_{_target}", "cast", (_source,), _target, _cast(_target))


# ---- 16-bit floats: a float rounded to one, as a float32


@vector("round_f16", ("f32",), ("T",))
def round_f16(x: Value) -> Value:
    """To nearest, halves to even."""
    return Value(x.b, x.b.fpext(x.b.fptrunc(x.v, ir.HalfType()), ir.FloatType()), x.kind)


@vector("round_f16", ("f64",), ("T",), "f32")
def round_f16_once(x: Value) -> Value:
    """The same from float64: through the float32 next to x that is odd, so that nothing is rounded twice."""
    near = x.to("f32")
    back = near.to("f64")
    exact = Value(x.b, x.b.fcmp_unordered("==", back.v, x.v), V.B1)
    toward = near.bits() - (fabs(back) > fabs(x)).to("i32")
    return round_f16(select(exact, near, (toward | 1).as_float()))


@vector("round_bf16", ("f32",), ("T",))
def round_bf16(x: Value) -> Value:
    """To nearest, halves to even."""
    bits = x.bits()
    up = bits + ((bits.viewed("u32") >> 16).viewed("i32") & 1) + 0x7FFF
    return select(x.ne(x), x, (up & -0x10000).as_float())


@vector("round_bf16", ("f64",), ("T",), "f32")
def round_bf16_twice(x: Value) -> Value:
    """The same from float64, through float32 as everybody rounds it."""
    return round_bf16(x.to("f32"))
