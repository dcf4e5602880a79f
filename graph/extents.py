"""Between which numbers the elements of a value lie, as far as the ops that made it tell."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from ..core.types import DType, bool_, float32
from .ir import Node, Value


class Interval(NamedTuple):
    """The least and the largest number; elements may be NaN, too."""

    low: float
    high: float


_ANY = Interval(-math.inf, math.inf)
_UNIT, _TURN = Interval(0.0, 1.0), Interval(-1.0, 1.0)
#: so many ops are followed from one value
_DEPTH = 12


def is_within(x: Any, low: float, high: float, fast: bool = False) -> bool:
    """Whether it is known that the elements of x, a value or a number, are from low to high, or NaN.

    fast: arithmetic may be rounded otherwise than op by op (precision="fast").
    """
    found = _Extents(fast).of(x, None, _DEPTH)
    return low <= found.low and found.high <= high


class _Extents:
    """The intervals of values, each found once."""

    def __init__(self, fast: bool):
        self.fast = fast
        self.known: dict[Value, Interval] = {}

    def of(self, x: Any, dtype: DType | None, depth: int) -> Interval:
        """dtype: that of the op which reads x, which a number is rounded to; depth: how many ops are followed."""
        if not isinstance(x, Value):
            plain = x.__class__ in (int, float, bool) and x == x
            return _rounded(Interval(x, x), dtype) if plain else _ANY
        if x in self.known:
            return self.known[x]
        found = _all(x.type.dtype)
        if x.producer is not None and depth > 0 and not x.type.dtype.is_complex:
            made = self.made(x.producer, x.type.dtype, depth)
            wide = self.fast and x.type.dtype.is_half  # not rounded within a kernel
            found = found if made is None else _rounded(made, float32 if wide else x.type.dtype)
        self.known[x] = found
        return found

    def made(self, node: Node, dtype: DType, depth: int) -> Interval | None:
        """What a node's only result is known to be, before it is rounded."""
        name, given = node.op.name, node.inputs
        if name in _ALWAYS:
            return _ALWAYS[name]
        if name == "multiply" and _is_share(*given):
            return _UNIT

        def of(x: Any) -> Interval:
            return self.of(x, dtype, depth - 1)

        if name in _ARITHMETIC:
            row = [*map(of, given)]
            found = _ARITHMETIC[name](*row)
            return _outward(found) if self.fast and not _is_exact(name, row) else found
        if name in _ORDER:
            return _ORDER[name](*map(of, given))
        if name == "clip":
            found = of(given[0])
            for bound, pick in ((node.named["min"], max), (node.named["max"], min)):
                ends = found if bound is None else of(bound)
                if ends is _ANY:
                    return _ANY
                found = Interval(*(pick(a, b) for a, b in zip(found, ends)))
            return found
        if name == "where":
            return _around(itertools.chain(*map(of, given[1:])))
        if name == "concat":
            return _around(itertools.chain(*map(of, given)))
        return of(given[0]) if given and (name in _ELEMENTS or node.op.is_view) else None


def _is_exact(name: str, operands: Iterable[Interval]) -> bool:
    """Whether arithmetic on the ends of intervals has no rounding, in whatever order it is done."""
    rows = [*operands]
    if name == "divide" and any(math.frexp(e)[0] not in (0.5, -0.5) for e in rows[1]):
        return False
    return all(abs(e) <= 1024 and e * 1024 == int(e * 1024) for row in rows for e in row)


def _outward(x: Interval) -> Interval:
    """A little further at both ends than several roundings go."""
    return Interval(x.low - abs(x.low) * 1e-5, x.high + abs(x.high) * 1e-5)


def _rounded(x: Interval, dtype: DType | None) -> Interval:
    """The interval of a dtype's numbers that an op's exact results are rounded into; roundings keep the order."""
    if dtype is None:
        return x
    if x is _ANY or dtype is bool_:
        return _all(dtype)
    if not dtype.is_float:
        low, high = (e if math.isinf(e) else math.trunc(e) for e in x)
        bounds = _all(dtype)
        return Interval(low, high) if bounds.low <= low and high <= bounds.high else bounds  # else it wraps
    with np.errstate(over="ignore"):
        return Interval(*(float(dtype.array(np.asarray(e, np.float64))) for e in x))


def _all(dtype: DType) -> Interval:
    """All numbers of a dtype."""
    if dtype is bool_:
        return _UNIT
    if dtype.is_float or dtype.is_complex:
        return _ANY
    bounds = np.iinfo(dtype.np)
    return Interval(int(bounds.min), int(bounds.max))


def _around(numbers: Iterable[float]) -> Interval:
    """From the least to the largest of them; of anything where one is NaN (infinity less infinity, or times 0)."""
    row = list(numbers)
    return _ANY if any(map(math.isnan, row)) else Interval(min(row), max(row))


def _product(x: Interval, y: Interval) -> Interval:
    return _around(a * b for a in x for b in y)


def _quotient(x: Interval, y: Interval) -> Interval:
    if y.low <= 0 <= y.high:
        return _ANY
    return _around(a / b for a in x for b in y)


def _square(x: Interval) -> Interval:
    ends = [a * a for a in x]
    return Interval(0.0 if x.low <= 0 <= x.high else min(ends), max(ends))


def _magnitude(x: Interval) -> Interval:
    ends = [abs(a) for a in x]
    return Interval(0.0 if x.low <= 0 <= x.high else min(ends), max(ends))


#: ops whose results are in an interval whatever they are given
_ALWAYS = {"sigmoid": _UNIT, "random_uniform": _UNIT, "tanh": _TURN, "erf": _TURN}
#: ops whose result is rounded once, by the intervals of their operands
_ARITHMETIC: dict[str, Callable[..., Interval]] = {
    "add": lambda x, y: _around((x.low + y.low, x.high + y.high)),
    "subtract": lambda x, y: _around((x.low - y.high, x.high - y.low)),
    "multiply": _product,
    "divide": _quotient,
    "square": _square,
}
#: and those whose result is one of their operands, or of its sign
_ORDER: dict[str, Callable[..., Interval]] = {
    "negative": lambda x: Interval(-x.high, -x.low),
    "abs": _magnitude,
    "relu": lambda x: Interval(max(x.low, 0.0), max(x.high, 0.0)),
    "maximum": lambda x, y: Interval(max(x.low, y.low), max(x.high, y.high)),
    "minimum": lambda x, y: Interval(min(x.low, y.low), min(x.high, y.high)),
}
#: ops whose results are elements of what they are given first, if not views
_ELEMENTS = frozenset("cast full take take_elements".split())


def _is_share(part: Any, share: Any) -> bool:
    """Whether a product is what softmax ends with: an exponential, and one over the sum of such."""
    names = ["reciprocal", "sum"]
    while isinstance(share, Value) and share.producer is not None and names:
        node = share.producer
        if node.op.name == names[0]:
            names.pop(0)
        elif not node.op.is_view:
            return False
        share = node.inputs[0]
    return not names and share is part and part.producer is not None and part.producer.op.name == "exp"
