"""The memory that variants take, over all functions of the process, and which are dropped when it is too much."""

from __future__ import annotations

import itertools
import weakref
from typing import TYPE_CHECKING, Any

from ..core import forks
from ..core.flags import size_from_environment

if TYPE_CHECKING:
    from .function import Function
    from .variant import Variant

#: what a traced op and what comes of it takes, measured; temporary memory is shared by all graphs and not counted
_BYTES_PER_OP = 6 << 10
_ticks = itertools.count(1)
#: bytes that all variants together may take
LIMIT = size_from_environment("DUOGRAD_VARIANT_MEMORY", 1 << 30)


def estimate(variant: Variant) -> int:
    """About what a variant keeps: its tables and graphs, and the constants that it made."""
    total = 0
    for runner in variant.runners():
        total += _BYTES_PER_OP * (1 + len(runner.compiled.graph.nodes))
        total += sum(s.tensor.nbytes for s in runner.sources if s.kind == "tensor" and s.key == "constant")
    return total


class Store:
    """All variants, and what they take. Those used least recently go first."""

    def __init__(self, limit: int | None = None):
        self.limit = limit
        self.total = 0
        self._rows: dict[int, tuple[Any, Any, Any, int]] = {}
        self._lock = forks.lock()  # a variant may die in the garbage collector, inside a method here

    def add(self, function: Function, key: Any, variant: Variant) -> None:
        """Count a new variant, and drop old ones if that is too much."""
        number = id(variant)
        gone = weakref.ref(variant, lambda _: self._forget(number))
        with self._lock:
            self._rows[number] = weakref.ref(function), key, gone, 0
            variant.used = next(_ticks)
            self.grow(variant)

    def grow(self, variant: Variant) -> None:
        """Count a variant again, which has more paths now, and drop old ones if that is too much."""
        with self._lock:
            row = self._rows.get(id(variant))
            if row is None:  # it was dropped meanwhile
                return
            nbytes = estimate(variant)
            self._rows[id(variant)] = *row[:3], nbytes
            self.total += nbytes - row[3]
            limit = LIMIT if self.limit is None else self.limit
            while self.total > limit and (old := self._oldest(variant)) is not None:
                self._drop(*old)

    def _oldest(self, new: Variant) -> Any:
        found = [(row[2](), row) for row in list(self._rows.values())]
        rows = [(v.used, row) for v, row in found if v is not None and v is not new]
        return min(rows, key=lambda r: r[0], default=(0, None))[1]

    def _drop(self, function: Any, key: Any, variant: Any, nbytes: int) -> None:
        owner, old = function(), variant()
        if owner is not None and old is not None:
            owner._drop(key, old)
        if old is not None:
            self._forget(id(old))

    def _forget(self, number: int) -> None:
        with self._lock:
            row = self._rows.pop(number, None)
            if row is not None:
                self.total -= row[3]


store = Store()


def touch(variant: Variant) -> None:
    """A call used the variant."""
    variant.used = next(_ticks)
