"""Functions of numbers in C code, which take the value of a live number without a word, and what stands in for them.

While a function with live numbers is traced, a stand-in is put where an instruction is about to load such a function to
call it (an attribute of a module, a global), and taken away before the next instruction. It makes a step of a call
with live numbers; any other call, of another thread too, is the function's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import FrameType
from typing import Any

import numpy as np

from ..core.value import Tensor
from .live import Live, work
from .plain import ABSENT
from .symbol import Symbol

_NAMES = (
    "acos acosh asin asinh atan atan2 atanh cbrt comb copysign cos cosh degrees erf erfc exp exp2 expm1 fabs factorial "
    "fma fmod gamma gcd hypot isclose isfinite isinf isnan isqrt lcm ldexp lgamma log log10 log1p log2 nextafter perm "
    "pow radians remainder sin sinh sqrt tan tanh ulp"
).split()


#: what asks a tensor of one element for its value, as a float or an int, and nothing else
_OF_VALUES = frozenset((float, int, *(getattr(math, n) for n in (
    "cos", "degrees", "exp", "expm1", "fabs", "isfinite", "isinf", "isnan", "log", "log10", "log1p", "log2", "radians",
    "sin", "sqrt", "tan", "tanh",
))))  # fmt: skip


def _worked(call: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any]) -> Any:
    if len(args) == 1 and type(args[0]) is Symbol and call in _OF_VALUES and args[0].size == 1:
        args = (args[0].item(),)
    if call is len and len(args) == 1 and not named:
        x = args[0]
        return x.shape[0] if getattr(type(x), "__len__", None) is Tensor.__len__ and x.shape else len(x)
    if named or not any(type(x) is Live for x in args):
        return call(*args, **named)
    return work(call, args)


class _Function:
    """Stands in for a built-in function."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[..., Any]):
        self.call = call

    def __call__(self, *args: Any, **named: Any) -> Any:
        return _worked(self.call, args, named)


class _Class(type):
    """The class of what stands in for a class: another thread that meets it sees the class's instances in it."""

    call: Any

    def __call__(cls, *args: Any, **named: Any) -> Any:
        return _worked(cls.call, args, named)

    def __instancecheck__(cls, x: Any) -> bool:
        return isinstance(x, cls.call)

    def __subclasscheck__(cls, x: Any) -> bool:
        return issubclass(x, cls.call)


_calls = [f for f in (getattr(math, name, None) for name in _NAMES) if f is not None]
_calls += [f for f in vars(np).values() if isinstance(f, np.ufunc) and f.nout == 1]
_calls += [np.clip, np.round, np.around, len]
#: by id of a function or class, what stands in for it
STAND_INS: dict[int, Any] = {
    **{id(f): _Function(f) for f in _calls},
    **{id(c): _Class(c.__name__, (), {"call": c}) for c in (float, int)},
}


_PASSING = frozenset((_worked.__code__, _Function.__call__.__code__, _Class.__call__.__code__))


def caller(frame: FrameType) -> FrameType | None:
    """The frame that has called a function, itself or where a stand-in did it."""
    back = frame.f_back
    while back is not None and back.f_code in _PASSING:
        back = back.f_back
    return back


class Standing:
    """The stand-in that is there now, for one instruction."""

    def __init__(self) -> None:
        self.space: dict[str, Any] | None = None
        self._name, self._value = "", ABSENT

    def put(self, space: dict[str, Any], name: str, value: Any) -> None:
        """Put what stands in for a function in its place."""
        self.take()
        self._name, self._value = name, space.get(name, ABSENT)
        self.space = space
        space[name] = STAND_INS[id(value)]

    def take(self) -> None:
        """Take it away."""
        space, self.space = self.space, None
        if space is None:
            return
        if self._value is ABSENT:
            space.pop(self._name, None)
        else:
            space[self._name] = self._value
