"""What is known of live sizes: the values that a comparison leaves them.

A variant for any sizes holds where every comparison that its trace and its plan made says the same. What one size alone
decides is worked out for all of its values at once, and the size kept within those around its own that agree; so most
comparisons cost a call nothing.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .polynomial import Poly, evaluate, linear, reach, steps, words

if TYPE_CHECKING:
    from .formulas import Program


class LateError(BaseException):
    """A way back that is traced after the call needs what nothing was worked out for."""


COMPARE: dict[str, tuple[str, Callable[[Any, Any], Any]]] = {
    "eq": ("{} == {}", operator.eq), "ne": ("{} != {}", operator.ne), "lt": ("{} < {}", operator.lt),
    "le": ("{} <= {}", operator.le), "gt": ("{} > {}", operator.gt), "ge": ("{} >= {}", operator.ge),
}  # fmt: skip


#: what is worked out for all values of a size at once, and for how many at most
_TABULATED = frozenset((
    operator.add, operator.sub, operator.mul, operator.floordiv, operator.mod, operator.truediv, operator.neg, abs
))  # fmt: skip
_TABULATED_SIZES = 1 << 14
_LARGE = 1 << 62
_COMPARISONS = frozenset(call for _, call in COMPARE.values())


class Sizes:
    """What a trace knows of its live sizes.

    late: a way back is being traced, after the call. sized: integers are polynomials, and sizes may be live.
    """

    def __init__(self, program: Program, values: dict[int, Any]):
        self.program, self.values = program, values
        self.late, self.sized = False, program.sized
        #: the graph is being compiled: what is worked out is a size or a cost, and is not asked by the function
        self.plans = False
        #: by step, the size that it depends on and what it is for each value of that
        self.tables: dict[int, tuple[int, Any]] = {}
        self.tabulate()

    def tabulate(self) -> None:
        """Make tables of the numbers that have an end."""
        for n, (low, high) in self.program.first_bounds.items():
            if high - low <= _TABULATED_SIZES:
                self.tables[n] = n, np.arange(low, high + 1)

    def _keep(self, leaf: int, same: Any) -> None:
        """Let a size stay where what depends on it alone is as now. same: whether that is so, for each value that the
        size could have at first."""
        low, high = self.program.first_bounds[leaf]
        at = self.values[leaf] - low
        if not same.all():
            if self.late:
                raise LateError
            off = np.flatnonzero(~same)
            k = int(np.searchsorted(off, at))
            self.program.narrow(
                leaf, low + int(off[k - 1]) + 1 if k else low, low + int(off[k]) - 1 if k < len(off) else high
            )

    def decided(self, call: Callable[..., Any], operands: Sequence[Any], value: bool) -> bool:
        """Whether a comparison of steps depends on one size alone; it stays where the comparison says the same."""
        rows = self._rows(operands) if call in _COMPARISONS else None
        if rows is None:
            return False
        self._keep(rows[0], call(*rows[1]) == value)
        return True

    def _rows(self, operands: Sequence[Any]) -> tuple[int, list[Any]] | None:
        """The one size that operands depend on, and what they are for each of its values."""
        found = [self.tables.get(x, (-1, None)) if x.__class__ is int else (None, x[0]) for x in operands]
        leaves = {leaf for leaf, _ in found if leaf is not None}
        if len(leaves) != 1 or -1 in leaves:
            return None
        return leaves.pop(), [row for _, row in found]

    def _table_of(self, p: Poly) -> tuple[int, Any] | None:
        """The one size that a polynomial depends on, and what it is for each of its values; None where it
        depends on others."""
        found = self._rows(steps(p))
        if found is None or max(abs(x) for x in self.range_of(p)) >= _LARGE:
            return None
        rows = dict(zip(steps(p), found[1]))
        total: Any = 0
        for m, c in p:
            term: Any = c
            for n in m:
                term = term * rows[n]
            total = total + term
        return found[0], total

    def learn(self, n: int, call: Callable[..., Any], operands: Sequence[Any], kind: type) -> None:
        """Note what a step can be."""
        rows = self._rows(operands) if call in _TABULATED else None
        if rows is not None and n not in self.tables:
            with np.errstate(all="ignore"):
                self.tables[n] = rows[0], call(*rows[1])
        if kind is int and call in (operator.floordiv, operator.mod):
            (low, high), (least, most) = map(self._reach, operands)
            if least > 0 and max(-low, high, most) < math.inf:
                found = [a // b for a in (low, high) for b in (least, most)]
                ends = (0, most - 1) if call is operator.mod else (min(found), max(found))
                self.program.known_reach.setdefault(n, ends)

    def _reach(self, operand: Any) -> tuple[float, float]:
        return (operand[0], operand[0]) if operand.__class__ is tuple else self.program.reach(operand)

    def step_of(self, p: Poly, value: int) -> int:
        """The step that works a polynomial out."""
        if len(p) == 1 and p[0][1] == 1 and len(p[0][0]) == 1:
            return p[0][0][0]
        operands = steps(p)
        text = words(p, {n: f"{{{k}}}" for k, n in enumerate(operands)}.__getitem__)
        n = self.program.add(
            "step", text, lambda *v: evaluate(p, dict(zip(operands, v))), operands, int, self.late, self.plans
        )
        self.values[n] = value
        self.program.known_reach.setdefault(n, self.range_of(p))
        table = self._table_of(p)
        if table is not None:
            self.tables[n] = table
        return n

    def range_of(self, p: Poly) -> tuple[float, float]:
        """What a polynomial is at least and at most."""
        return reach(p, self.program.reach)

    def decide(self, p: Poly, name: str, value: int) -> bool:
        """What comparing a polynomial, which is `value` now, with 0 says; guarded where it could say otherwise."""
        text, call = COMPARE[name]
        result: bool = call(value, 0)
        low, high = self.range_of(p)
        if call(low, 0) == call(high, 0) == result and (
            name not in ("eq", "ne") or low > 0 or high < 0 or low == high
        ):
            return result
        if self.plans and ((name == "eq" and not result) or (name == "ne" and result)):
            return result  # what is planned for different sizes is right for equal ones, too
        table = self._table_of(p)
        if table is not None:
            self._keep(table[0], call(table[1], 0) == result)
            return result
        line = linear(p)
        if line is not None and not self.late:
            n, factor, rest = line
            at = self.values[n]
            # Where the sign of what is compared changes; which side of it the number is on is kept.
            if value == 0:
                low, high = at, at
                if name in ("ge", "lt"):  # 0 and above, or not below
                    low, high = (at, math.inf) if factor > 0 else (-math.inf, at)
                elif name in ("le", "gt"):
                    low, high = (-math.inf, at) if factor > 0 else (at, math.inf)
            elif (value > 0) == (factor > 0):
                low, high = -rest // factor + 1, math.inf
            else:
                low, high = -math.inf, -(rest // factor) - 1
            self.program.narrow(n, low, high)
            return result
        self.program.add("guard", text, call, (self.step_of(p, value), (0,)), result, self.late)
        return result
