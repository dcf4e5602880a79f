"""Arguments against the kinds that a function's annotations name: `float | None`, `Sequence[int]`, classes."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .numbers import is_live


class Kind(NamedTuple):
    """words: after "give ... as". fits: whether a value is of the kind; by_class: whether its class alone decides."""

    words: str
    fits: Callable[[Any], bool]
    by_class: bool = True


#: classes whose values are all alike, also for kinds that look at more than the class
PLAIN = frozenset((int, float, bool, str, type(None)))


def _ndim(x: Any) -> int:
    return int(getattr(x, "ndim", 0) or 0)


def _whole(x: Any) -> bool:
    if isinstance(x, (bool, np.bool_)):
        return False
    whole = isinstance(x, int) or is_live(x) or (hasattr(x, "__index__") and not _ndim(x))
    return whole and not getattr(getattr(x, "dtype", None), "is_float", False)


def _number(x: Any) -> bool:
    if isinstance(x, (str, bytes, complex, np.complexfloating)):
        return False
    return is_live(x) or ((hasattr(x, "__float__") or hasattr(x, "__index__")) and not _ndim(x))


def truth(x: Any) -> bool:
    """Whether x may stand for True or False."""
    return x is None or isinstance(x, (int, np.bool_, np.integer)) or is_live(x) or _is_scalar(x)


def _is_scalar(x: Any) -> bool:
    return hasattr(x, "dtype") and not _ndim(x)


def _row(x: Any) -> bool:
    return (hasattr(x, "__iter__") or hasattr(x, "__getitem__")) and not isinstance(x, (str, bytes))


def _sequence(x: Any) -> bool:
    return _row(x) and hasattr(x, "__len__") and not isinstance(x, dict)


def _mapping(x: Any) -> bool:
    return hasattr(x, "keys") and hasattr(x, "__getitem__")


_KINDS = {
    "int": Kind("an integer", _whole, False),
    "float": Kind("a number", _number, False),
    "bool": Kind("True or False", truth, False),
    "str": Kind("a text", lambda x: isinstance(x, str)),
    "None": Kind("None", lambda x: x is None),
    "os.PathLike": Kind("a path", lambda x: isinstance(x, os.PathLike)),
    "Sized": Kind("something with a length", lambda x: hasattr(x, "__len__")),
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
    return Kind(words, lambda x: any(k.fits(x) for k in row), all(k.by_class for k in row))


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

    def fits(x: Any) -> bool:
        return kind.fits(x) and (not isinstance(x, (list, tuple, np.ndarray)) or all(map(element.fits, x)))

    return Kind(f"a row, each {element.words}", fits, False)


FLAG = _KINDS["bool"]
