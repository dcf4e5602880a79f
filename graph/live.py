"""Live numbers: Python numbers from outside that change from call to call, as formulas worked out at each call.

While a function is traced, a `Live` stands for such a number. Arithmetic with it is a step of a `Program`; where it
meets tensors it is a `Formula`, a scalar of the graph. What Python reads of it (a comparison, `int()`, a format, an
index) is a guard on what was read. It holds no number that C code could take unseen: C asks it, or refuses it.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.errors import TraceError, user_line
from ..core.value import Tensor
from .ir import Number
from .plain import elements
from .polynomial import Poly, add, atom, constant, constant_of, divide, multiply
from .sizes import COMPARE, Sizes

if TYPE_CHECKING:
    from .formulas import Program

#: where the values of a call's steps are, among what its segments carry
LIVE = "live numbers"
#: classes of numbers that may be live; those of NumPy come as Python's to tensors
KINDS = (int, float, np.float64, np.float32, np.int64, np.int32)
#: what a step may give, and what beside live numbers it may be made of
_KINDS = frozenset(KINDS)
_CONSTANTS = frozenset((*_KINDS, bool))
_TRUTHS = frozenset((bool, np.bool_))


#: attributes of NumPy's numbers that are the same for all of a class
_OF_CLASS = frozenset(("dtype", "itemsize", "nbytes", "ndim", "shape", "size"))
#: what works a function of `core/numbers.py` out
_NAMED_CALLS: dict[str, Callable[[Any], Any]] = {"float": float, "cos": math.cos}


class RestartError(BaseException):
    """A live number was asked something to which it has no answer: the function is to be traced with plain ones."""

    def __init__(self, *words: Any):
        super().__init__(*words)
        _asked.count = restarts() + 1


_asked = threading.local()


def restarts() -> int:
    """How often this thread has met such a question: code that catches everything may have caught some."""
    return getattr(_asked, "count", 0)


class Formula(Number):
    """A live number in a graph: step `key` of a program."""

    __slots__ = ("name",)

    def __init__(self, program: Program, step: int, kind: type, name: str):
        super().__init__(program, None, kind)
        self.key = step  # type: ignore[assignment]
        self.name = name

    def read(self) -> Any:
        raise TraceError("function", "a live number has no value outside of a call", "call the function")

    def at(self, live: Any) -> Any:
        return live[self.key]

    def __repr__(self) -> str:
        return f"${self.name}"


_BINARY: dict[str, tuple[str, Callable[[Any, Any], Any]]] = {
    "add": ("{} + {}", operator.add), "sub": ("{} - {}", operator.sub), "mul": ("{} * {}", operator.mul),
    "truediv": ("{} / {}", operator.truediv), "floordiv": ("{} // {}", operator.floordiv),
    "mod": ("{} % {}", operator.mod), "pow": ("{} ** {}", operator.pow), "and": ("{} & {}", operator.and_),
    "or": ("{} | {}", operator.or_), "xor": ("{} ^ {}", operator.xor), "lshift": ("{} << {}", operator.lshift),
    "rshift": ("{} >> {}", operator.rshift), "round": ("round({}, {})", round),
}  # fmt: skip
_UNARY: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "neg": ("-{}", operator.neg), "pos": ("+{}", operator.pos), "abs": ("abs({})", abs),
    "invert": ("~{}", operator.invert), "round": ("round({})", round), "floor": ("floor({})", math.floor),
    "ceil": ("ceil({})", math.ceil), "trunc": ("trunc({})", math.trunc),
}  # fmt: skip


class Now(Sizes):
    """A program while a function is traced: the values that its steps have in this call.

    late: a way back is being traced, after the call.
    """

    def __init__(self, program: Program, trace: Any, values: dict[int, Any]):
        super().__init__(program, values)
        self.trace, self.thread = trace, threading.get_ident()

    def here(self) -> bool:
        """Whether the trace asks, and not another thread."""
        if threading.get_ident() != self.thread:
            return False
        if self.trace.done:
            raise TraceError(
                "function", "a number of a traced function was used after its trace ended",
                "return it from the function instead of keeping it where no trace can see it",
            )  # fmt: skip
        return True

    def leaf(self, n: int) -> Live:
        value = self.values[n]
        return Live(self, n, value, atom(n) if self.sized and type(value) is int else None)

    def arguments(self) -> dict[int, Live]:
        """What stands for the call's numbers, by their positions."""
        return {k: self.leaf(n) for n, k in enumerate(self.program.positions)}

    def all(self) -> tuple[Any, ...]:
        """The values of all steps, in order; None for what the trace did not come to."""
        return tuple([self.values.get(n) for n in range(len(self.program.kinds))])

    def step(self, text: str, call: Callable[..., Any], operands: Sequence[Any], value: Any) -> Live:
        n = self.program.add("step", text, call, operands, type(value), self.late, self.plans)
        self.values[n] = value
        if self.sized:
            self.learn(n, call, operands, type(value))
        return Live(self, n, value, atom(n) if self.sized and type(value) is int else None)

    def polynomial(self, p: Poly, value: int) -> Any:
        """A polynomial as a number."""
        found = constant_of(p)
        return Live(self, None, value, p) if found is None else found

    def guard(self, text: str, call: Callable[..., Any], operands: Sequence[Any], value: bool) -> bool:
        if not self.decided(call, operands, value):
            self.program.add("guard", text, call, operands, value, self.late)
        return value

    def pin(self, n: int) -> None:
        """A step may only be what it is now. Another thread may be one that the function asks, or one that met a place
        of state meanwhile: the number is no constant from then on."""
        here = self.here()
        if here or not (self.trace.done or self.late):
            program = self.program
            while program.parent is not None and n < len(program.parent.kinds):
                program = program.parent  # the first that knows it
            if here and program.linked and not self.late and n not in program.pinned:
                raise RestartError(
                    f"{program.names[n]} is any number on other paths, and is taken as a value"
                )
            program.add("pin", "{}", _itself, (n,), self.values[n], self.late)
            program.pinned.add(n)
            if here:
                program.fixed.add(n)
                how = (
                    "decides how a kernel is planned"
                    if self.plans
                    else f"is taken as a value at {user_line()}"
                )
                program.told.setdefault(f"{program.names[n]} {how}")

    def use(self, n: int) -> None:
        self.program.use(n)

    def go_on(self, program: Program, value: Any) -> Live:
        """A value has been read: a live number of the next program."""
        n = len(self.program.kinds)
        self.program, self.values[n], self.sized = program, value, program.sized
        self.tabulate()
        return self.leaf(n)

    def renew(self) -> None:
        """Compile what has been added."""
        program: Program | None = self.program
        while program is not None:
            program.renew()
            program = program.parent


def _itself(x: Any) -> Any:
    return x


def value_of(x: Any) -> Any:
    """A number as it is now, unguarded."""
    return x._live_value if type(x) is Live else x


def _poly(now: Now, x: Any) -> Poly | None:
    """An integer as a polynomial."""
    if type(x) is Live:
        return x._live_poly if x._live_now is now else None
    return constant(x) if type(x) is int else None


def _operand(now: Now, x: Any) -> Any:
    """x as an operand of a step; None when it is no number that a program knows."""
    if type(x) is Live:
        return x._live_step if x._live_now is now else None
    return (x,) if type(x) in _CONSTANTS else None


class Live:
    """What stands for a number while a function is traced. Its class is that of the number."""

    __slots__ = ("__weakref__", "_live_now", "_live_number", "_live_poly", "_live_value")
    __array_ufunc__ = None  # NumPy's operators leave it to ours

    def __init__(self, now: Now, step: int | None, value: Any, poly: Poly | None = None):
        self._live_now, self._live_number, self._live_value, self._live_poly = now, step, value, poly

    @property
    def _live_step(self) -> int:
        if self._live_number is None:
            self._live_number = self._live_now.step_of(self._live_poly, self._live_value)  # type: ignore[arg-type]
        return self._live_number

    def _live_most(self) -> int:
        """What it is at most."""
        _, high = self._live_now.range_of(self._live_poly) if self._live_poly is not None else (0, math.inf)
        return int(high) if high < math.inf else operator.index(self._settle())

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return self._live_value.__class__

    def _settle(self) -> Any:
        """The number itself, which the variant is for from now on."""
        self._live_now.pin(self._live_step)
        return self._live_value

    def _formula(self) -> Formula:
        if isinstance(self._live_value, np.generic):
            return self.item()._formula()  # type: ignore[no-any-return]
        now, n = self._live_now, self._live_step
        now.use(n)
        return Formula(now.program, n, type(self._live_value), now.program.names[n])

    def _unary(self, name: str) -> Any:
        text, call = _UNARY[name]
        now = self._live_now
        if not now.here():
            return call(self._settle())
        try:
            value = call(self._live_value)
        except Exception:
            self._settle()
            raise
        if type(value) not in _KINDS:
            self._settle()
            return value
        if name == "abs" and self._live_poly is not None and now.range_of(self._live_poly)[0] >= 0:
            return self
        if name in ("neg", "pos") and self._live_poly is not None:
            return now.polynomial(multiply(constant(-1 if name == "neg" else 1), self._live_poly), value)
        return now.step(text, call, (self._live_step,), value)

    def _live_worked(self, name: str) -> Any:
        return work(_NAMED_CALLS[name], (self,))

    def _binary(self, name: str, other: Any, swapped: bool = False) -> Any:
        text, call = _BINARY[name]
        now = self._live_now
        if isinstance(other, Tensor):
            return NotImplemented
        if now.sized and (found := self._sized(name, other, swapped)) is not None:
            return found
        operand = _operand(now, other) if now.here() else None
        pair: tuple[Any, Any] = (self, other)
        if operand is None:
            pair = self._settle(), settled(other)
            return call(*(pair[::-1] if swapped else pair))
        values = self._live_value, other._live_value if type(other) is Live else other
        operands = self._live_step, operand
        if swapped:
            values, operands, pair = values[::-1], operands[::-1], pair[::-1]
        try:
            value = call(*values)
        except Exception:
            settled(pair)
            raise
        if type(value) not in _KINDS:  # a complex number
            settled(pair)
            return value
        return now.step(text, call, operands, value)

    def _sized(self, name: str, other: Any, swapped: bool) -> Any:
        """Arithmetic of polynomials; None for any other."""
        now = self._live_now
        a, b = self._live_poly, _poly(now, other)
        if a is None or b is None or not now.here():
            return None
        if swapped:
            a, b = b, a
        if name in ("add", "sub"):
            made: Poly | None = add(a, b, 1 if name == "add" else -1)
        elif name == "mul":
            made = multiply(a, b)
        elif name in ("floordiv", "mod") and now.range_of(b)[0] > 0:
            made = divide(a, b)
            if name == "mod" and made is not None:
                made = ()
        else:
            return None
        row = (self._live_value, value_of(other))[:: -1 if swapped else 1]
        return None if made is None else now.polynomial(made, _BINARY[name][1](*row))

    def _compare(self, name: str, other: Any) -> Any:
        text, call = COMPARE[name]
        now = self._live_now
        if isinstance(other, Tensor):
            return NotImplemented
        if now.sized and self._live_poly is not None and now.here():
            b = _poly(now, other)
            if b is not None:
                return now.decide(add(self._live_poly, b, -1), name, self._live_value - value_of(other))
        operand = _operand(now, other) if now.here() else None
        if operand is None:
            if isinstance(other, (str, bytes, type(None), tuple, list, dict, set, frozenset)):
                return NotImplemented  # never equal, whatever number it is
            return call(self._settle(), settled(other))
        value = call(self._live_value, other._live_value if type(other) is Live else other)
        return now.guard(text, call, (self._live_step, operand), value)

    def __bool__(self) -> bool:
        if not self._live_now.here():
            return bool(self._settle())
        return bool(self._compare("ne", 0))

    def __hash__(self) -> int:
        now = self._live_now
        return hash((Live, self._live_poly)) if now.plans and now.here() else hash(self._settle())

    def __float__(self) -> float:
        return float(self._settle())

    def __int__(self) -> int:
        if isinstance(self._live_value, float) and self._live_now.here():
            whole = self._unary("trunc")
            return int(whole._settle() if type(whole) is Live else whole)
        return int(self._settle())

    def __index__(self) -> int:
        if isinstance(self._live_value, float):
            raise RestartError  # the error is worded otherwise for a float
        return operator.index(self._settle())

    def __complex__(self) -> complex:
        return complex(self._settle())

    def __str__(self) -> str:
        return str(self._settle())

    def __repr__(self) -> str:
        return repr(self._settle())

    def __format__(self, spec: str) -> str:
        return format(self._settle(), spec)

    def __bytes__(self) -> bytes:
        return bytes(self._settle())

    def __round__(self, ndigits: Any = None) -> Any:
        return self._unary("round") if ndigits is None else self._binary("round", ndigits)

    def __divmod__(self, other: Any) -> Any:
        return self._divmod(self, other)

    def __rdivmod__(self, other: Any) -> Any:
        return self._divmod(other, self)

    @staticmethod
    def _divmod(a: Any, b: Any) -> Any:
        if isinstance(a, Tensor) or isinstance(b, Tensor):
            raise RestartError  # an error for Python's numbers, NumPy's make arrays of it
        try:
            return a // b, a % b
        except ZeroDivisionError:
            return divmod(settled(a), settled(b))  # in its own words

    def __pow__(self, other: Any, modulo: Any = None) -> Any:
        if modulo is not None:
            return pow(self._settle(), settled(other), settled(modulo))
        return self._binary("pow", other)

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise RestartError  # NumPy would make an array of another dtype than of a plain number

    def __getattr__(self, name: str) -> Any:
        if not hasattr(self._live_value.__class__, name):
            raise AttributeError(f"{self._live_value.__class__.__name__!r} object has no attribute {name!r}")
        if name == "item" and self._live_now.here():  # a number of NumPy's
            return functools.partial(
                work, int if isinstance(self._live_value, np.integer) else float, (self,)
            )
        if name in _OF_CLASS:
            return getattr(self._live_value, name)
        return getattr(self._settle(), name)

    def _live_differs(self, name: str) -> bool:
        """Whether an attribute of it is not that of the number."""
        if name[:2] == "__" and name != "__class__":
            return True
        return hasattr(Live, name) and not hasattr(self._live_value.__class__, name)

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: Any) -> Any:
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self._settle().__reduce_ex__(protocol)


def _define() -> None:
    def binary(name: str, swapped: bool) -> Any:
        def run(self: Live, other: Any) -> Any:
            return self._binary(name, other, swapped)

        return run

    for name in _BINARY:
        if name not in ("pow", "round"):
            setattr(Live, f"__{name}__", binary(name, False))
        if name != "round":
            setattr(Live, f"__r{name}__", binary(name, True))
    for name in _UNARY:
        if name != "round":
            setattr(Live, f"__{name}__", lambda self, name=name: self._unary(name))
    for name in COMPARE:
        setattr(Live, f"__{name}__", lambda self, other, name=name: self._compare(name, other))


_define()


#: what is a live number or may hold some
_HOLDING = frozenset((Live, tuple, list, slice))


def settled(x: Any) -> Any:
    """x with the live numbers in it as plain ones, which the variant is for from now on."""
    cls = type(x)
    if cls is Live:
        return x._settle()
    if cls is slice:
        parts = x.start, x.stop, x.step
        return slice(*map(settled, parts)) if any(type(p) is Live for p in parts) else x
    if cls is not tuple and cls is not list:
        return x
    for v in x:
        if type(v) in _HOLDING:
            break
    else:
        return x
    row = [settled(v) for v in x]
    return cls(row) if any(a is not b for a, b in zip(row, x)) else x


def work(call: Callable[..., Any], args: Sequence[Any]) -> Any:
    """A call of a function of numbers, of which some are live: a step, or a guard on what it says."""
    first = next(x for x in args if type(x) is Live)
    now = first._live_now
    if call is first._live_value.__class__ and len(args) == 1:
        return first
    operands = [_operand(now, x) for x in args] if now.here() else [None]
    if None in operands:
        return call(*map(settled, args))
    try:
        value = call(*values_of(args))
    except Exception:
        settled(tuple(args))
        raise
    text = f"{call.__name__}({', '.join(['{}'] * len(args))})"
    if type(value) in _TRUTHS:
        return now.guard(text, call, operands, value)
    if type(value) not in _KINDS:
        return call(*map(settled, args))
    return now.step(text, call, operands, value)


def values_of(inputs: Iterable[Any]) -> list[Any]:
    """The inputs of an op with live numbers as they are now, unguarded."""
    return [x._live_value if type(x) is Live else x for x in inputs]


def is_size(x: Any) -> bool:
    """Whether a size, as types have it, is live."""
    return type(x) is Live


def as_now(x: Any) -> Any:
    """Types, attributes and the like with the numbers of the call that was traced."""
    if type(x) is Live:
        return x._live_value
    if isinstance(x, tuple):
        row = [as_now(v) for v in x]
        if all(a is b for a, b in zip(row, x)):
            return x
        return type(x)(*row) if hasattr(x, "_fields") else tuple(row)
    return x


def is_live(x: Any, around: tuple[int, ...] = ()) -> bool:
    """Whether x is a live number, or plain data or a container with one in it. around: ids of the containers that it is
    in."""
    if type(x) is Live:
        return True
    if not isinstance(x, (tuple, list, dict)) or id(x) in around:
        return False
    around = (*around, id(x))
    inside: Any = itertools.chain(dict.keys(x), dict.values(x)) if isinstance(x, dict) else elements(x)
    return any(is_live(y, around) for y in inside)
