"""What `functools.lru_cache` keeps: whether a result that a trace used is still there.

A call of such a function is a look into a table; asking it by a call would run the function when the table was cleared.
CPython shows the table to its garbage collector: of a cache without a limit key -> result, of others key -> a link,
which is made anew by `cache_clear` and used again for another key when the oldest result is dropped.
"""

from __future__ import annotations

import functools
import gc
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

#: stands for arguments that are not known: any of the results that were there may be the one
ANY = object()


def is_cached(x: Any) -> bool:
    """Whether x is a function whose results are kept."""
    return x.__class__ is functools._lru_cache_wrapper


def keeps(cached: Any) -> bool:
    """Whether it keeps any (`maxsize=0` only counts)."""
    return cached.cache_info().maxsize != 0  # type: ignore[no-any-return]


def is_full(cached: Any) -> bool:
    """Whether one more result takes the place of another one."""
    info = cached.cache_info()
    return info.maxsize is not None and info.currsize >= info.maxsize


def _is_found(cached: Any, args: tuple[Any, ...]) -> bool:
    """Whether a call with these arguments finds a result, which is kept longer then: a cache with a limit drops what
    nobody has asked for longest."""
    return cached.cache_info().maxsize is not None and any(_fits(key, args) for key in _table(cached)[0])


def last_asked(rows: Iterable[tuple[Any, tuple[Any, ...]]]) -> list[tuple[Any, tuple[Any, ...]]]:
    """Of calls of such functions that find a result the last of each kind, in order."""
    found: dict[Any, tuple[Any, tuple[Any, ...]]] = {}
    for cached, args in rows:
        if _is_found(cached, args):
            kind = id(cached), args, tuple(map(type, args))
            found.pop(kind, None)
            found[kind] = cached, args
    return list(found.values())


def _table(cached: Any) -> tuple[dict[Any, Any], dict[int, Any]]:
    """The table of a cache, and by id of a key the result, where it has a limit."""
    row, own, limited = gc.get_referents(cached), vars(cached), cached.cache_info().maxsize is not None
    last = max((k for k, x in enumerate(row) if x.__class__ is dict and x is not own), default=None)
    if last is None:  # another Python
        return {}, {}
    return row[last], {id(k): r for k, r in zip(row[1:last:3], row[2:last:3])} if limited else {}


def is_alone(args: Sequence[Any]) -> bool:
    """Whether arguments are one int (a live one, too) or text."""
    return len(args) == 1 and args[0].__class__ in (int, str)


def _fits(key: Any, args: tuple[Any, ...]) -> bool:
    """Whether a key of the table is that of a call with these arguments, none of them named.

    One int or text alone is the key itself, so that 0 and 0.0 are two, where (0, 1) and (0.0, 1) are one.
    """
    alone = is_alone(args)
    if key.__class__ is tuple:
        row: tuple[Any, ...] = key[: len(args)]
        types = key[len(args) :]  # with typed=True
        if alone and not types:
            return False
        return len(row) == len(args) and all(map(_alike, row, args)) and types in ((), (*map(type, args),))
    return alone and _alike(key, args[0])


def _alike(a: Any, b: Any) -> bool:
    return a is b or (hash(a) == hash(b) and bool(a == b))


class Entry:
    """One result in the table of a cache."""

    __slots__ = ("_cached", "_key", "_link", "_misses", "_result", "_table")

    def __init__(self, cached: Any, table: dict[Any, Any], key: Any, results: dict[int, Any]):
        self._cached, self._table, self._key = cached, table, key
        self._link = table[key]
        self._result = results.get(id(key))
        self._misses = cached.cache_info().misses if results else None

    def holds(self) -> bool:
        """Whether a call would find it."""
        if self._table.get(self._key) is not self._link:
            return False
        if self._misses is None:
            return True
        misses = self._cached.cache_info().misses
        if misses != self._misses:  # the link may stand for another result by now
            if _table(self._cached)[1].get(id(self._key)) is not self._result:
                return False
            self._misses = misses
        return True


def used(cached: Any, args: Any) -> Iterator[Entry]:
    """The results that a call with these arguments (ANY when they are not known) may have found."""
    table, results = _table(cached)
    found = [k for k in table if args is not ANY and _fits(k, args)]
    for key in found or [*table]:
        yield Entry(cached, table, key, results)
