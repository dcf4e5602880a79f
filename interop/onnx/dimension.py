"""Sizes that depend on a dynamic axis: known by their values in several traces, written as ONNX ops on shapes.

A function is traced at several sizes of its dynamic axes. What is equal in all traces is a constant; an int
or float that differs is a `Dim` or a `Factor`, which carries its value in every trace. Rules compute with them
as with plain numbers. `Sizes` finds a formula (in sizes that the ONNX graph can read with Shape) that gives
all the values.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import combinations_with_replacement, islice
from typing import Any, NamedTuple

Vector = tuple[Any, ...]


class Dim(int):
    """An int that differs between traces. As an int it is its value in the first trace."""

    vector: tuple[int, ...]

    def __new__(cls, vector: Iterable[int]) -> Any:
        row = tuple(int(v) for v in vector)
        if all(v == row[0] for v in row):
            return row[0]
        self = super().__new__(cls, row[0])
        self.vector = row
        return self

    def __repr__(self) -> str:
        return f"Dim{self.vector}"

    def _with(self, other: Any, fn: Any) -> Any:
        if isinstance(other, float):
            return NotImplemented
        row = values(other, len(self.vector))
        return Dim(fn(a, b) for a, b in zip(self.vector, row))

    def __add__(self, o: Any) -> Any:
        return self._with(o, lambda a, b: a + b)

    def __radd__(self, o: Any) -> Any:
        return self._with(o, lambda a, b: b + a)

    def __sub__(self, o: Any) -> Any:
        return self._with(o, lambda a, b: a - b)

    def __rsub__(self, o: Any) -> Any:
        return self._with(o, lambda a, b: b - a)

    def __mul__(self, o: Any) -> Any:
        return self._with(o, lambda a, b: a * b)

    def __rmul__(self, o: Any) -> Any:
        return self._with(o, lambda a, b: b * a)

    def __floordiv__(self, o: Any) -> Any:
        return self._with(o, lambda a, b: a // b)

    def __rfloordiv__(self, o: Any) -> Any:
        return self._with(o, lambda a, b: b // a)

    def __mod__(self, o: Any) -> Any:
        return self._with(o, lambda a, b: a % b)

    def __rmod__(self, o: Any) -> Any:
        return self._with(o, lambda a, b: b % a)

    def __divmod__(self, o: Any) -> Any:
        return self // o, self % o

    def least(self, o: int) -> Any:
        """The smaller of two sizes, in every trace."""
        return self._with(o, min)

    def __neg__(self) -> Any:
        return Dim(-a for a in self.vector)

    def __reduce__(self) -> Any:
        return Dim, (self.vector,)


def is_empty(shape: Iterable[Any] | None) -> bool:
    """Whether there are no elements at any of the dynamic sizes."""
    return any(n == 0 and not isinstance(n, Dim) for n in shape or ())


class Factor(float):
    """A float that differs between traces, such as one over the batch size."""

    vector: tuple[float, ...]

    def __new__(cls, vector: Iterable[float]) -> Any:
        row = tuple(float(v) for v in vector)
        self = super().__new__(cls, row[0])
        self.vector = row
        return self

    def __repr__(self) -> str:
        return f"Factor{self.vector}"


def values(x: Any, count: int) -> Vector:
    """A number's value in every trace."""
    return x.vector if isinstance(x, (Dim, Factor)) else (x,) * count


def is_dynamic(x: Any) -> bool:
    """Whether a number, or any number inside nested tuples and lists, differs between traces."""
    if isinstance(x, (tuple, list)):
        return any(is_dynamic(v) for v in x)
    return isinstance(x, (Dim, Factor))


class Disagreement(Exception):
    """Values of several traces that are not the same structure."""


def merge(row: tuple[Any, ...]) -> Any:
    """One value from its values in all traces: ints and floats may differ, everything else must be equal."""
    first = row[0]
    if isinstance(first, (tuple, list)):
        if any(type(v) is not type(first) or len(v) != len(first) for v in row):
            raise Disagreement(f"{first} against {next(v for v in row if v != first)}")
        return type(first)([merge(items) for items in zip(*row)])
    plain = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in row)
    if plain and all(isinstance(v, int) for v in row):
        return Dim(row)
    if plain and all(v != v for v in row):  # NaN in all
        return first
    if plain and any(v != first for v in row):
        return Factor(row)
    if any(type(v) is not type(first) or v != first for v in row):
        raise Disagreement(f"{first!r} against {next(v for v in row if v is not first and v != first)!r}")
    return first


class Affine(NamedTuple):
    """`(p * product of sizes + r) / q`, rounded down."""

    factors: tuple[Vector, ...]
    p: int
    r: int
    q: int


def _line(u: Vector, v: Vector) -> tuple[Fraction, Fraction] | None:
    """Slope and offset of v as a straight line in u, or None."""
    pair = next(((i, j) for i in range(len(u)) for j in range(i) if u[i] != u[j]), None)
    if pair is None:
        return None
    i, j = pair
    slope = Fraction(v[i] - v[j], u[i] - u[j])
    offset = v[i] - slope * u[i]
    return (slope, offset) if all(slope * a + offset == b for a, b in zip(u, v)) else None


class Rest(NamedTuple):
    """`w = (sign * u + r) % m` of a size u; itself, or u and w together: u + w, u - w (`side` 0, 1, -1)."""

    u: Vector
    sign: int
    r: int
    m: int
    side: int

    def unseen(self) -> Iterator[tuple[Vector, int]]:
        """A size for each end, 0 and m - 1, that w has in no trace: where formulas with another m or r differ."""
        seen = {(self.sign * n + self.r) % self.m for n in self.u}
        for end in {0, self.m - 1} - seen:
            least = max(1, min(self.u))
            yield self.u, least + (self.sign * (end - self.r) - least) % self.m


#: traces that a formula with a rounded quotient or a remainder is taken from; up to so many where several fit
ENOUGH, MOST = 12, 28


class Undecided(Exception):
    """Too few traces to tell formulas apart. wanted: sizes at which a trace would tell, each with what has it."""

    def __init__(self, wanted: Iterable[tuple[Vector, int]] = ()):
        self.wanted = tuple(wanted)


def solve(target: tuple[int, ...], known: list[Vector]) -> Affine | Rest | None:
    """The simplest formula in known sizes (given in order of preference) for the target, or None.

    A remainder is believed when traces have shown both of its ends.
    Raises: Undecided where other formulas than straight lines fit, and more traces may show which does not.
    """
    if target in known:
        return Affine((target,), 1, 0, 1)
    best: tuple[Any, Affine] | None = None
    for degree in (1, 2, 3):
        for factors in combinations_with_replacement(known, degree):
            u = tuple(_product(f[t] for f in factors) for t in range(len(target)))
            found = _line(u, target)
            if found is not None:
                slope, offset = found
                q = math.lcm(slope.denominator, offset.denominator)
                answer = Affine(factors, int(slope * q), int(offset * q), q)
                cost = (q != 1, offset != 0, slope != 1)
                if best is None or cost < best[0]:
                    best = cost, answer
        if best is not None:
            return best[1]
    for u in known:
        forms: list[Affine | Rest] = [*islice(_quotients(u, target), 2), *islice(_rests(u, target), 2)]
        if forms:
            ends = [end for f in forms if isinstance(f, Rest) for end in f.unseen()]
            if len(target) < (MOST if ends or len(forms) > 1 else ENOUGH):
                raise Undecided(ends)
            return forms[0] if len(forms) == 1 else None
    return None


def _quotients(u: Vector, target: tuple[int, ...]) -> Iterator[Affine]:
    """Each `(u + r) / q` rounded down, as of windows in steps and halves of a spectrum; the nearest to u / q first."""
    far = max(u) - min(u)
    steps = target[u.index(max(u))] - target[u.index(min(u))]
    for q in range(max(2, far // (steps + 1)), far // max(1, steps - 1) + 1) if steps >= 0 else ():
        low = max(v * q - n for n, v in zip(u, target))
        high = min(v * q - n for n, v in zip(u, target)) + q - 1
        for r in sorted(range(low, high + 1), key=abs):
            yield Affine((u,), 1, r, q)


def _rests(u: Vector, target: tuple[int, ...]) -> Iterator[Rest]:
    """Each remainder, as of what fills a size up to a multiple, or size filled up or cut down to one."""
    for side in (0, 1, -1):
        w = [side * (v - n) if side else v for n, v in zip(u, target)]
        for sign in (1, -1):
            apart = [v - sign * n for n, v in zip(u, w)]
            common = math.gcd(*[d - apart[0] for d in apart])
            if 0 <= min(w) < max(w) < common:
                for m in range(max(w) + 1, common + 1):
                    if common % m == 0 and (sign == 1 or m > 2):  # of 2 both signs are the same
                        yield Rest(u, sign, apart[0] % m, m, side)


def _product(row: Iterable[int]) -> int:
    out = 1
    for v in row:
        out *= v
    return out


class FloatForm(NamedTuple):
    """A float as a transform of `slope * product + offset` of sizes; over: of one over the product."""

    transform: str
    factors: tuple[Vector, ...]
    slope: float
    offset: float
    over: bool = False


_INVERSE = {
    "identity": lambda v: v,
    "reciprocal": lambda v: 1 / v,
    "sqrt": lambda v: v * v,
    "rsqrt": lambda v: 1 / (v * v),
}


def solve_float(target: tuple[float, ...], known: list[Vector]) -> FloatForm | None:
    """A formula for a float in known sizes: a line, its inverse, its root or its inverse root; or None."""
    # Values that were rounded to float32 can be met to that precision only.
    rounded = all(struct.unpack("f", struct.pack("f", v))[0] == v for v in target)
    tolerance = 4e-7 if rounded else 1e-9
    for degree, over in ((1, False), (2, False), (3, False), (1, True), (2, True), (3, True)):
        for factors in combinations_with_replacement(known, degree):
            product = [_product(f[t] for f in factors) for t in range(len(target))]
            if over and not all(product):
                continue
            u: list[float] = [1 / v for v in product] if over else list(product)
            for name, inverse in _INVERSE.items():
                if any(v == 0 for v in target) and name != "identity":
                    continue
                w = [inverse(v) for v in target]
                pair = next(((i, j) for i in range(len(u)) for j in range(i) if u[i] != u[j]), None)
                if pair is None:
                    continue
                i, j = pair
                slope = (w[i] - w[j]) / (u[i] - u[j])
                offset = w[i] - slope * u[i]
                scale = max(abs(x) for x in w)
                if abs(offset) < tolerance * scale:
                    offset = 0.0
                if all(abs(slope * a + offset - b) <= tolerance * scale for a, b in zip(u, w)):
                    # Differences of inverses are small: their slope is known less well.
                    near = tolerance * 100 if over else tolerance
                    return FloatForm(name, factors, _round(slope, near), _round(offset, near), over)
    return None


def _round(x: float, tolerance: float) -> float:
    """A float that is an integer up to rounding, as that integer."""
    near = round(x)
    return float(near) if abs(x - near) <= tolerance * max(1.0, abs(x)) else x
