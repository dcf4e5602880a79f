"""Arguments against the kinds that a function's annotations name: `float | None`, `Sequence[int]`, classes."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from .numbers import is_live

#: whole numbers from 1, and from 0
Count: TypeAlias = int
Natural: TypeAlias = int
#: numbers above 0, from 0, and from 0 to 1
Positive: TypeAlias = float
Magnitude: TypeAlias = float
Share: TypeAlias = float
#: any number, NaN too, which is none where an annotation says float
NumberOrNan: TypeAlias = float


class Kind(NamedTuple):
    """words: after "give ... as". fits: whether a value is of the kind; by_class: whether its class alone decides.

    near: of a value that does not fit, whether another one of its class would; None where none would.
    """

    words: str
    fits: Callable[[Any], bool]
    by_class: bool = True
    near: Callable[[Any], bool] | None = None


#: classes whose values are all alike, also for kinds that look at more than the class
PLAIN = frozenset((bool, str, type(None)))
#: what numbers of 64 bits hold, with and without a sign
_LOWEST, _HIGHEST = -(2**63), 2**64 - 1


def _ndim(x: Any) -> int:
    return int(getattr(x, "ndim", 0) or 0)


def _has(x: Any, name: str) -> bool:
    """Whether instances of x's class have a method: of a class itself, its own methods are nothing."""
    return hasattr(type(x), name)


def is_index(x: Any) -> bool:
    """Whether x is an integer, or stands for one."""
    if isinstance(x, (bool, np.bool_)):
        return False
    whole = isinstance(x, int) or is_live(x) or (_has(x, "__index__") and not _ndim(x))
    return whole and not getattr(getattr(x, "dtype", None), "is_float", False)


def is_real(x: Any) -> bool:
    """Whether x is a number that is not complex, or stands for one."""
    if isinstance(x, (str, bytes, complex, np.complexfloating)):
        return False
    if isinstance(x, np.ndarray) and x.dtype.kind not in "biuf":
        return False
    return is_live(x) or ((_has(x, "__float__") or _has(x, "__index__")) and not _ndim(x))


def _within(x: Any, low: float, high: float) -> bool:
    """Whether a number of Python or NumPy is in a range; others are not read."""
    return not isinstance(x, (int, float, np.number)) or bool(low <= x <= high)


def _ranged(words: str, of: Callable[[Any], bool], low: float, high: float = math.inf) -> Kind:
    return Kind(words, lambda x: of(x) and _within(x, low, high), False, of)


def truth(x: Any) -> bool:
    """Whether x may stand for True or False."""
    return x is None or isinstance(x, (int, np.bool_, np.integer)) or is_live(x) or _is_scalar(x)


def _is_scalar(x: Any) -> bool:
    return hasattr(x, "dtype") and not _ndim(x)


def _row(x: Any) -> bool:
    return (_has(x, "__iter__") or _has(x, "__getitem__")) and not isinstance(x, (str, bytes)) and _is_row(x)


def _is_row(x: Any) -> bool:
    """NumPy's numbers have the methods of arrays, of which those without axes are no rows either."""
    return not (isinstance(x, (np.ndarray, np.generic)) and x.ndim == 0)


def _sequence(x: Any) -> bool:
    return _row(x) and _has(x, "__len__") and _has(x, "__getitem__") and not isinstance(x, dict)


def _mapping(x: Any) -> bool:
    return _has(x, "keys") and _has(x, "__getitem__")


_KINDS = {
    "int": _ranged("an integer", is_index, _LOWEST, _HIGHEST),
    "Count": _ranged("an integer from 1", is_index, 1, _HIGHEST // 2),
    "Natural": _ranged("an integer from 0", is_index, 0, _HIGHEST // 2),
    "float": _ranged("a number", is_real, -math.inf),
    "Positive": _ranged("a number above 0", is_real, math.nextafter(0.0, 1.0)),
    "Magnitude": _ranged("a number from 0", is_real, 0),
    "Share": _ranged("a number from 0 to 1", is_real, 0, 1),
    "NumberOrNan": Kind("a number", is_real, False),
    "bool": Kind("True or False", truth, False),
    "str": Kind("a text", lambda x: isinstance(x, str)),
    "None": Kind("None", lambda x: x is None),
    "os.PathLike": Kind("a path", lambda x: isinstance(x, os.PathLike)),
    "Sized": Kind("something with a length", lambda x: _has(x, "__len__")),
    "Callable": Kind("a function", callable),
    "type": Kind("a class", lambda x: isinstance(x, type)),
    "dict": Kind("a dict", _mapping), "Mapping": Kind("a dict", _mapping),
    "Iterable": Kind("a row", _row), "Sequence": Kind("a row", _sequence), "list": Kind("a row", _sequence),
    "tuple": Kind("a row", _sequence),
}  # fmt: skip


def _parts(text: str, at: str) -> list[str]:
    """A text cut at each `at` that stands outside of brackets."""
    out, depth = [""], 0
    for c in text:
        depth += (c == "[") - (c == "]")
        if c == at and not depth:
            out.append("")
        else:
            out[-1] += c
    return [part.strip() for part in out]


@functools.cache
def of(fn: Any, name: str) -> Kind | None:
    """The kind of a function's parameter, where its annotation names one."""
    return asked(fn.__annotations__.get(name), fn.__globals__)


def asked(annotation: Any, scope: dict[str, Any]) -> Kind | None:
    """The kind that an annotation, as text, names; None where it names none. scope: globals of its module."""
    if not isinstance(annotation, str):
        return None
    kinds = [_single(word, scope) for word in _parts(annotation, "|")]
    if None in kinds:
        return None
    row = [k for k in kinds if k is not None]
    if len(row) == 1:
        return row[0]
    words = f"{', '.join(k.words for k in row[:-1])} or {row[-1].words}"
    near = [k.near for k in row if k.near is not None]
    return Kind(
        words,
        lambda x: any(k.fits(x) for k in row),
        all(k.by_class for k in row),
        (lambda x: any(n(x) for n in near)) if near else None,
    )


def _single(word: str, scope: dict[str, Any]) -> Kind | None:
    head, _, inner = word.partition("[")
    kind = _KINDS.get(head)
    if kind is None:
        cls = scope.get(head)
        if isinstance(cls, str):  # an alias
            return asked(cls, scope)
        if not isinstance(cls, type) or cls in (Any, object):
            return None
        name = {"Tensor": "tensor"}.get(cls.__name__, cls.__name__)
        return Kind(f"{'an' if name[0] in 'AEIOU' else 'a'} {name}", lambda x: isinstance(x, cls))
    if kind.words != "a row":
        return kind
    each = {p for p in _parts(inner[:-1], ",") if p != "..."}
    element = asked(each.pop(), scope) if len(each) == 1 else None
    if element is None:
        return kind

    def each_is(is_one: Callable[[Any], bool]) -> Callable[[Any], bool]:
        return lambda x: (
            kind.fits(x) and (not isinstance(x, (list, tuple, np.ndarray)) or all(map(is_one, x)))
        )

    near = element.near and each_is(lambda x: element.fits(x) or element.near(x))  # type: ignore[misc]
    return Kind(f"a row, each {element.words}", each_is(element.fits), False, near)


FLAG = _KINDS["bool"]
