"""Scalar expressions: the body of a pointwise op, run once on symbols, becomes a typed expression DAG.

The DAG is what every backend emits from (alone and inside any fusion) and what the NumPy reference
evaluates. Constants inside a body are weakly typed and take the dtype of what they meet.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from . import types as T
from .errors import DtypeError
from .types import DType


class ScalarOp(NamedTuple):
    """One scalar instruction. `rule` gives the result dtype; `numpy` evaluates it."""

    name: str
    arity: int
    rule: Callable[..., DType]
    numpy: Callable[..., Any]


SCALAR_OPS: dict[str, ScalarOp] = {}


def _same(*dtypes: DType) -> DType:
    return dtypes[0]


def _boolean(*_: DType) -> DType:
    return T.bool_


def _second(*dtypes: DType) -> DType:
    return dtypes[1]


def _real(*dtypes: DType) -> DType:
    return dtypes[0].real


def _complex(*dtypes: DType) -> DType:
    return dtypes[0].complex


def _define(names: str, arity: int, rule: Callable[..., DType], numpy: Sequence[Callable[..., Any]]) -> None:
    for name, fn in zip(names.split(), numpy, strict=True):
        SCALAR_OPS[name] = ScalarOp(name, arity, rule, fn)


def _quiet(fn: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any) -> Any:
        with np.errstate(all="ignore"):
            return fn(*args)

    return run


def _erf(x: Any) -> Any:
    # Reference only: exact to double rounding of the C library, element by element.
    x = np.asarray(x)
    return np.vectorize(math.erf, otypes=[np.float64])(x).astype(x.dtype) if x.size else x


def _sigmoid(x: Any) -> Any:
    x = np.asarray(x)
    if x.dtype.kind == "c":
        return (1 / (1 + np.exp(-x))).astype(x.dtype)
    wide = x.astype(np.float64)
    return np.where(wide >= 0, 1 / (1 + np.exp(-wide)), np.exp(wide) / (1 + np.exp(wide))).astype(x.dtype)


def _erfc(x: Any) -> Any:
    x = np.asarray(x)
    return np.vectorize(math.erfc, otypes=[np.float64])(x).astype(x.dtype) if x.size else x


def _gelu(x: Any) -> Any:
    x = np.asarray(x)
    wide = np.maximum(x.astype(np.float64), -1e4)
    return (wide * 0.5 * _erfc(wide * -math.sqrt(0.5))).astype(x.dtype)


def _softplus(x: Any) -> Any:
    x = np.asarray(x)
    wide = x.astype(np.float64)
    return (np.maximum(wide, 0) + np.log1p(np.exp(-np.abs(wide)))).astype(x.dtype)


def _floor_divide(a: Any, b: Any) -> Any:
    """NumPy's, but beside an infinity the quotient (infinite, or a zero with a sign): the array API standard's."""
    q = np.asarray(np.floor_divide(a, b))
    if q.dtype.kind != "f":
        return q
    return np.where(np.isinf(a) | np.isinf(b), np.true_divide(a, b, dtype=q.dtype), q)


def _put_together(re: Any, im: Any) -> Any:
    out = np.empty(np.broadcast_shapes(np.shape(re), np.shape(im)), np.result_type(re, im, np.complex64))
    out.real, out.imag = re, im
    return out


def _true_divide(a: Any, b: Any) -> Any:
    return np.true_divide(a, b, dtype=np.result_type(a, b))


# Arithmetic. Operands have been brought to one dtype before.
_define("add sub mul", 2, _same, [np.add, np.subtract, np.multiply])
_define(
    "div floordiv mod fmod pow",
    2,
    _same,
    [_quiet(f) for f in (_true_divide, _floor_divide, np.mod, np.fmod, np.power)],
)
_define("maximum minimum fmax fmin", 2, _same, [np.maximum, np.minimum, np.fmax, np.fmin])
_define("gcd", 2, _same, [np.gcd])
_define("neg sign", 1, _same, [np.negative, np.sign])
_define("abs", 1, _real, [np.abs])
_define("fma", 3, _same, [lambda a, b, c: a * b + c])
# Comparison and logic.
_define(
    "eq ne lt le gt ge",
    2,
    _boolean,
    [np.equal, np.not_equal, np.less, np.less_equal, np.greater, np.greater_equal],
)
_define("logical_and logical_or logical_xor", 2, _boolean, [np.logical_and, np.logical_or, np.logical_xor])
_define("logical_not isnan isinf isfinite", 1, _boolean, [np.logical_not, np.isnan, np.isinf, np.isfinite])
_define("and or xor", 2, _same, [np.bitwise_and, np.bitwise_or, np.bitwise_xor])
_define("shl shr", 2, _same, [np.left_shift, np.right_shift])
_define("invert", 1, _same, [np.invert])
_define("where", 3, _second, [np.where])
# Rounding.
_define("floor ceil trunc rint", 1, _same, [np.floor, np.ceil, np.trunc, np.rint])
# Transcendental: floats only.
FLOAT_ONLY = (
    "sqrt rsqrt exp exp2 expm1 log log2 log10 log1p sin cos tan sinh cosh tanh asin acos atan asinh acosh atanh "
    "sigmoid erf erfc gelu softplus cbrt"
)
_define(
    FLOAT_ONLY, 1, _same,
    [_quiet(f) for f in (
        np.sqrt, lambda x: (1 / np.sqrt(x)).astype(np.asarray(x).dtype), np.exp, np.exp2, np.expm1, np.log, np.log2,
        np.log10, np.log1p, np.sin, np.cos, np.tan, np.sinh, np.cosh, np.tanh, np.arcsin, np.arccos, np.arctan,
        np.arcsinh, np.arccosh, np.arctanh, _sigmoid, _erf, _erfc, _gelu,
        _softplus, np.cbrt,
    )],
)  # fmt: skip
_define("atan2 copysign nextafter", 2, _same, [np.arctan2, np.copysign, _quiet(np.nextafter)])
# Complex numbers.
_define("real imag angle", 1, _real, [np.real, np.imag, np.angle])
_define("conj", 1, _same, [np.conj])
_define("complex", 2, _complex, [lambda re, im: _put_together(re, im)])
# A float32 or float64 rounded to a 16-bit float, as a float32 (see legalize.py).
_define(
    "round_f16 round_bf16", 1, lambda *_: T.float32,
    [_quiet(lambda x, d=d: d.array(x).astype(np.float32)) for d in (T.float16, T.bfloat16)],
)  # fmt: skip

#: instructions that take complex operands
COMPLEX_OPS = frozenset(
    """add sub mul div pow neg abs sign fma eq ne where rint logical_and logical_or logical_xor logical_not isnan isinf
    isfinite sqrt rsqrt exp exp2 expm1 log log2 log10 log1p sin cos tan sinh cosh tanh asin acos atan asinh acosh atanh
    sigmoid real imag angle conj""".split()
)


class Expr:
    """A node of a scalar expression: an op of SCALAR_OPS, or "arg", "const", "cast", "index", "philox".

    `args` are Expr; `value` holds the argument's position, the constant, or None. Nodes compare by identity;
    sharing in Python is sharing in the DAG.
    """

    __slots__ = ("args", "dtype", "op", "value")

    def __init__(self, op: str, dtype: DType, args: tuple[Expr, ...] = (), value: Any = None):
        self.op, self.dtype, self.args, self.value = op, dtype, args, value

    def __repr__(self) -> str:
        if self.op == "arg":
            return f"x{self.value}"
        if self.op == "const":
            return repr(self.value)
        return f"{self.op}({', '.join(map(repr, self.args))})"

    # Operators, so that a body reads as a formula.
    def __add__(self, o: Any) -> Expr:
        return call("add", self, o)

    def __radd__(self, o: Any) -> Expr:
        return call("add", o, self)

    def __sub__(self, o: Any) -> Expr:
        return call("sub", self, o)

    def __rsub__(self, o: Any) -> Expr:
        return call("sub", o, self)

    def __mul__(self, o: Any) -> Expr:
        return call("mul", self, o)

    def __rmul__(self, o: Any) -> Expr:
        return call("mul", o, self)

    def __truediv__(self, o: Any) -> Expr:
        return call("div", self, o)

    def __rtruediv__(self, o: Any) -> Expr:
        return call("div", o, self)

    def __floordiv__(self, o: Any) -> Expr:
        return call("floordiv", self, o)

    def __mod__(self, o: Any) -> Expr:
        return call("mod", self, o)

    def __pow__(self, o: Any) -> Expr:
        return call("pow", self, o)

    def __neg__(self) -> Expr:
        return call("neg", self)

    def __lt__(self, o: Any) -> Expr:
        return call("lt", self, o)

    def __le__(self, o: Any) -> Expr:
        return call("le", self, o)

    def __gt__(self, o: Any) -> Expr:
        return call("gt", self, o)

    def __ge__(self, o: Any) -> Expr:
        return call("ge", self, o)

    def __and__(self, o: Any) -> Expr:
        return call("and", self, o)

    def __or__(self, o: Any) -> Expr:
        return call("or", self, o)

    def __xor__(self, o: Any) -> Expr:
        return call("xor", self, o)

    def __invert__(self) -> Expr:
        return call("invert", self)

    def __bool__(self) -> bool:
        raise TypeError("a pointwise body cannot branch on a value; use s.where(condition, a, b)")


class Weak(Expr):
    """What stands for a Python number in a body, and is not known: it takes the dtype that it meets.

    Arithmetic of such alone is Python's, in float64. Comparing it says nothing, so a body that chooses by it fails.
    """

    __slots__ = ()
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        raise TypeError("a pointwise body cannot branch on a number that is not known")


def weak_arg(position: int) -> Weak:
    """Argument `position` as a Python number."""
    return Weak("arg", T.float64, (), position)


def const(value: Any, dtype: DType) -> Expr:
    """A constant of the given dtype."""
    with np.errstate(over="ignore"):  # a number that is an operand says nothing either
        made = dtype.np.type(value) if dtype.way is dtype.np else dtype.array(value)
        return Expr("const", dtype, (), made.item())


def cast(x: Expr, dtype: DType) -> Expr:
    """`x` converted to `dtype` as NumPy's astype does."""
    if x.dtype is dtype:
        return x
    if x.op == "const":
        return const(x.value, dtype)
    if x.op == "cast" and dtype.is_half and x.args[0].dtype is dtype and x.dtype.is_float:
        return x.args[0]  # there and back
    return Expr("cast", dtype, (x,))


def _unify(operands: Sequence[Any]) -> list[Expr]:
    """Bring operands to one dtype: expressions promote, Python numbers take the dtype they meet."""
    kinds = [x.dtype for x in operands if isinstance(x, Expr) and type(x) is not Weak]
    dtype = T.promote_all(kinds) if kinds else None
    for x in operands:
        if not isinstance(x, Expr):
            dtype = T.scalar_dtype(x, dtype)
        elif type(x) is Weak:
            dtype = T.scalar_dtype(0.0, dtype) if kinds else T.float64
    assert dtype is not None
    return [cast(x, dtype) if isinstance(x, Expr) else const(x, dtype) for x in operands]


def call(name: str, *operands: Any) -> Expr:
    """Apply a scalar instruction to expressions and Python numbers."""
    op = SCALAR_OPS[name]
    if name == "where":
        condition, *rest = operands
        args = [cast(condition, T.bool_), *_unify(rest)]
    elif name.startswith("logical_"):
        args = [x if x.dtype is T.bool_ else call("ne", x, 0) for x in operands]
    else:
        args = _unify(operands)
    dtype = args[-1].dtype
    if dtype.is_complex:
        if name not in COMPLEX_OPS:
            raise DtypeError(name, f"takes real numbers, not {dtype}", "take x.real, x.imag or abs(x) first")
    elif name in _FLOAT_SET and not dtype.is_float:
        raise DtypeError(name, f"takes floats, not {dtype}", "convert with .to(dg.float32)")
    elif name in ("real", "imag", "conj", "angle"):
        return _of_real(name, args[0])
    cls = Weak if all(type(x) is Weak or not isinstance(x, Expr) for x in operands) else Expr
    return cls(name, op.rule(*(a.dtype for a in args)), tuple(args))


_FLOAT_SET = {
    *FLOAT_ONLY.split(),
    "atan2",
    "copysign",
    "nextafter",
    "div",
    "complex",
    "round_f16",
    "round_bf16",
}


def _of_real(name: str, x: Expr) -> Expr:
    """`real`, `imag`, `conj` or `angle` of a real expression."""
    if name == "imag":
        return const(0, x.dtype)
    if name == "angle":
        x = x if x.dtype.is_float else cast(x, T.default_float)
        return call(
            "where", call("isnan", x), x, call("where", call("lt", x, 0), const(math.pi, x.dtype), 0.0)
        )
    return x


def index() -> Expr:
    """The linear (row-major) index of the output element, int64."""
    return Expr("index", T.int64)


def philox(seed: Expr, offset: Expr, word: int = 0) -> Expr:
    """32 random bits (uint32) of the element: Philox4x32-10, key = seed.

    Element i reads word `word` of counter `offset + i` (128 bits, of which the low 64 are used), so two
    calls whose offset ranges are disjoint never share bits. Source: Salmon et al., SC 2011.
    """
    return Expr("philox", T.uint32, (cast(seed, T.uint64), cast(offset, T.uint64), index()), word)


class Symbols:
    """What a pointwise body may call besides operators: `s.exp(x)`, `s.where(c, a, b)`, `s.cast(x, dtype)`."""

    cast = staticmethod(cast)
    index = staticmethod(index)
    philox = staticmethod(philox)

    def __getattr__(self, name: str) -> Callable[..., Expr]:
        if name in SCALAR_OPS or name + "_" in SCALAR_OPS:
            return lambda *operands: call(name, *operands)
        raise AttributeError(f"no scalar instruction {name!r}; there are {', '.join(SCALAR_OPS)}")


s = Symbols()


#: the walks from roots that were asked for lately, by the ids of the roots, which are kept with them
_walks: dict[tuple[int, ...], tuple[Sequence[Expr], tuple[Expr, ...]]] = {}
_WALKS = 4096


def walk(roots: Sequence[Expr]) -> tuple[Expr, ...]:
    """All nodes, operands first, each once."""
    key = tuple(map(id, roots))
    known = _walks.get(key)
    if known is None:
        if len(_walks) >= _WALKS:
            _walks.clear()
        known = _walks[key] = tuple(roots), _walk(roots)
    return known[1]


def _walk(roots: Sequence[Expr]) -> tuple[Expr, ...]:
    seen: set[int] = set()
    order: list[Expr] = []
    # With a stack of its own: a long fusion nests deeper than Python's calls may.
    stack = list(reversed(roots))
    while stack:
        node = stack[-1]
        if id(node) not in seen:
            waiting = [arg for arg in node.args if id(arg) not in seen]
            if waiting:
                stack += reversed(waiting)
                continue
            seen.add(id(node))
            order.append(node)
        stack.pop()
    return tuple(order)


def substitute(root: Sequence[Expr], args: Sequence[Expr]) -> list[Expr]:
    """The same expressions with argument k replaced by `args[k]`; this is how pointwise ops fuse."""
    done: dict[int, Expr] = {}
    for node in walk(root):
        if node.op == "arg":
            done[id(node)] = args[node.value]
        elif not node.args:
            done[id(node)] = node
        else:
            new = tuple(done[id(a)] for a in node.args)
            same = all(a is b for a, b in zip(new, node.args))
            done[id(node)] = node if same else Expr(node.op, node.dtype, new, node.value)
    return [done[id(r)] for r in root]


def _mul_hi_lo(a: int, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    product = np.uint64(a) * b.astype(np.uint64)
    return (product >> np.uint64(32)).astype(np.uint32), product.astype(np.uint32)


def philox_numpy(seed: Any, offset: Any, position: Any, word: int) -> np.ndarray:
    """Philox4x32-10 in NumPy: the reference for every backend."""
    seed, offset, position = (np.asarray(x).astype(np.uint64) for x in (seed, offset, position))
    counter = np.asarray(offset + position)
    c = [(counter & np.uint64(0xFFFFFFFF)).astype(np.uint32), (counter >> np.uint64(32)).astype(np.uint32)]
    c += [np.zeros_like(c[0]), np.zeros_like(c[0])]
    k0, k1 = int(seed) & 0xFFFFFFFF, int(seed) >> 32
    for _ in range(10):
        hi0, lo0 = _mul_hi_lo(0xD2511F53, c[0])
        hi1, lo1 = _mul_hi_lo(0xCD9E8D57, c[2])
        c = [hi1 ^ c[1] ^ np.uint32(k0), lo1, hi0 ^ c[3] ^ np.uint32(k1), lo0]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c[word]


def evaluate(roots: Sequence[Expr], args: Sequence[Any], shape: tuple[int, ...]) -> list[np.ndarray]:
    """Evaluate expressions on NumPy arrays; the reference definition of every pointwise op.

    args: arrays that broadcast to `shape`. Returns arrays of `shape`.
    """
    done: dict[int, Any] = {}
    with np.errstate(all="ignore"):
        for node in walk(roots):
            operands = [done[id(a)] for a in node.args]
            if node.op == "arg":
                value = node.dtype.array(args[node.value])
            elif node.op == "const":
                value = node.dtype.np.type(node.value)
            elif node.op == "cast":
                value = np.asarray(operands[0])
                if value.dtype.kind == "c" and not node.dtype.is_complex:
                    value = value != 0 if node.dtype is T.bool_ else value.real
                value = node.dtype.array(value)
            elif node.op == "index":
                value = np.arange(math.prod(shape), dtype=np.int64).reshape(shape)
            elif node.op == "philox":
                seed, offset, position = operands
                value = philox_numpy(seed, offset, position, node.value)
            else:
                # 16-bit floats are computed in float32 and rounded once.
                operands = [
                    x.astype(np.float32) if a.dtype.is_half else x for a, x in zip(node.args, operands)
                ]
                value = SCALAR_OPS[node.op].numpy(*operands)
            done[id(node)] = node.dtype.array(value)
    return [np.broadcast_to(done[id(r)], shape).copy() for r in roots]
