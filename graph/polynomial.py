"""Polynomials over live integers, so that `n * 64 // 64` is `n` and what is always true is no guard.

A polynomial is a tuple of (powers, factor), sorted; powers are numbers of steps, each as often as it is multiplied.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

Poly = tuple[tuple[tuple[int, ...], int], ...]


def constant(x: int) -> Poly:
    return (((), x),) if x else ()


def atom(n: int) -> Poly:
    return (((n,), 1),)


def _made(terms: dict[tuple[int, ...], int]) -> Poly:
    return tuple(sorted((m, c) for m, c in terms.items() if c))


def add(a: Poly, b: Poly, factor: int = 1) -> Poly:
    """a + factor * b"""
    terms = dict(a)
    for m, c in b:
        terms[m] = terms.get(m, 0) + factor * c
    return _made(terms)


def multiply(a: Poly, b: Poly) -> Poly:
    terms: dict[tuple[int, ...], int] = {}
    for m, c in a:
        for n, d in b:
            key = tuple(sorted(m + n))
            terms[key] = terms.get(key, 0) + c * d
    return _made(terms)


def divide(a: Poly, b: Poly) -> Poly | None:
    """a / b where b is one term that divides each of a's; else None."""
    if len(b) != 1:
        return constant(1) if a == b and a else None
    ((powers, factor),) = b
    terms: dict[tuple[int, ...], int] = {}
    for m, c in a:
        rest = list(m)
        for p in powers:
            if p not in rest:
                return None
            rest.remove(p)
        if c % factor:
            return None
        terms[tuple(rest)] = c // factor
    return _made(terms)


def constant_of(a: Poly) -> int | None:
    """The constant that a polynomial is; None where it is none."""
    if not a:
        return 0
    return a[0][1] if len(a) == 1 and not a[0][0] else None


def linear(a: Poly) -> tuple[int, int, int] | None:
    """(step, factor, constant) of a polynomial in one step to the first power; else None."""
    rest = [(m, c) for m, c in a if m]
    if len(rest) != 1 or len(rest[0][0]) != 1:
        return None
    return rest[0][0][0], rest[0][1], dict(a).get((), 0)


def evaluate(a: Poly, values: Mapping[int, int]) -> int:
    return sum(c * math.prod(values[n] for n in m) for m, c in a)


def reach(a: Poly, of: Callable[[int], tuple[float, float]]) -> tuple[float, float]:
    """What a polynomial is at least and at most. of: the same of a step."""
    low: float = 0
    high: float = 0
    for m, c in a:
        first: float = c
        last: float = c
        for n in m:
            ends = [_times(x, y) for x in (first, last) for y in of(n)]
            first, last = min(ends), max(ends)
        low, high = low + first, high + last
    return low, high


def _times(x: float, y: float) -> float:
    return 0 if x == 0 or y == 0 else x * y


def steps(a: Poly) -> list[int]:
    """The steps that occur, in order."""
    return sorted({n for m, _ in a for n in m})


def words(a: Poly, names: Any) -> str:
    """The polynomial as an expression. names: of steps."""
    terms = []
    for m, c in a:
        factors = ([str(c)] if c != 1 or not m else []) + [names(n) for n in m]
        terms.append(" * ".join(factors))
    return " + ".join(terms) or "0"
