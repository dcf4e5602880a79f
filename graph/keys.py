"""A key of a dict or set as it is without the trace: plain numbers in place of the live ones that it holds."""

from __future__ import annotations

from typing import Any

from .arguments import is_record
from .live import Live, settled
from .rebuild import attributes_of

_BY_IDENTITY: Any = object.__hash__


def settled_key(x: Any) -> Any:
    """x, or an equal one where it holds live numbers, for which the variant is from now on: one that hashes by what it
    holds (a named tuple, a frozen set, a dataclass) holds them also where `settled` does not look."""
    x = settled(x)
    cls = type(x)
    if cls is frozenset or (isinstance(x, tuple) and cls is not Live):
        row = [settled_key(v) for v in x]
        if all(a is b for a, b in zip(row, x)):
            return x
        return frozenset(row) if cls is frozenset else tuple.__new__(cls, row)
    if not is_record(x) or cls.__hash__ is _BY_IDENTITY:
        return x
    names = attributes_of(x)
    held = [settled_key(v) for _, v in names]
    if all(a is v for a, (_, v) in zip(held, names)):
        return x
    new = object.__new__(cls)
    for (name, _), value in zip(names, held):
        object.__setattr__(new, name, value)
    return new
