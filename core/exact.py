"""Keys of tables that tell apart what Python calls equal: 1, 1.0 and True, 0.0 and -0.0."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

_PLAIN = frozenset((int, float, complex, bool))


class Exact:
    """A number as part of the key that a table keeps: numbers of its own type and sign of zero alone find it."""

    __slots__ = ("cls", "hash", "value", "words")

    def __init__(self, value: Any):
        self.value, self.cls, self.hash = value, value.__class__, hash(value)
        self.words = None if isinstance(value, int) else repr(value)

    def __hash__(self) -> int:
        return self.hash

    def __eq__(self, other: object) -> bool:
        if other.__class__ is self.cls:
            return other == self.value and (self.words is None or repr(other) == self.words)
        return other.__class__ is Exact and self == other.value  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        return repr(self.value)


class _Sizes:
    """A tuple of integers as part of such a key."""

    __slots__ = ("hash", "value")

    def __init__(self, value: tuple[int, ...]):
        self.value, self.hash = value, hash(value)

    def __hash__(self) -> int:
        return self.hash

    def __eq__(self, other: object) -> bool:
        if other.__class__ is tuple:
            if other != self.value:
                return False
            for x in other:  # type: ignore[attr-defined]  # noqa: SIM110  (a generator costs more)
                if x.__class__ is not int:
                    return False
            return True
        return other.__class__ is _Sizes and other.value == self.value  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        return repr(self.value)


def exact(x: Any) -> Any:
    """x as a table is to keep it, which is then asked with things as they are."""
    cls = x.__class__
    if cls is tuple:
        return _Sizes(x) if x and {*map(type, x)} == {int} else tuple(map(exact, x))
    if cls is float and not x.is_integer():
        return x  # no integer is equal to it
    return Exact(x) if isinstance(x, (int, float, complex, np.generic)) else x


def typed(x: Any) -> Any:
    """x as a key that is kept and asked for alike: numbers by type and bits."""
    cls = x.__class__
    if cls is tuple:
        return tuple(map(typed, x))
    if cls is float:
        return cls, struct.pack("<d", x)
    if cls is complex:
        return cls, struct.pack("<2d", x.real, x.imag)
    return (cls, x) if cls in _PLAIN else x
