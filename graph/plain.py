"""Plain Python data: what is compared by value, and how: numbers, strings, None, slices, tuples of these."""

from __future__ import annotations

import collections
import types
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core.reach import opened

ABSENT = type("Absent", (), {"__repr__": lambda self: "absent", "__slots__": ()})()

_NAMED = (type, types.FunctionType, types.MethodType, types.BuiltinFunctionType)
_COMMON = frozenset((int, float, bool, str, bytes, *map(type, (None, Ellipsis, NotImplemented))))
#: built-in containers
_BASES: tuple[Any, ...] = (list, tuple, collections.OrderedDict, dict, set, frozenset, collections.deque)
_LEAVES = (int, float, complex, str, bytes, np.generic, range, slice, np.dtype)


def is_plain(x: Any) -> bool:
    """Whether x is data that is compared by value: numbers, strings, None, slices, and tuples of these."""
    cls = type(x)
    if cls in _COMMON:
        return True
    if cls is not x.__class__:  # it says that it is another: a live number stands for many
        return False
    if isinstance(x, _LEAVES):
        return True
    if isinstance(x, (tuple, frozenset)):
        return all(map(is_plain, elements(x)))
    return False


def elements(x: Any) -> Any:
    """What a container holds (of a dict: its keys), past an `__iter__` of its class: nothing of the user's runs."""
    base = _base(x)
    return x if base is None else base.__iter__(x)


def count(x: Any) -> int:
    """How much a container holds, past a `__len__` of its class."""
    base = _base(x)
    return len(x) if base is None else base.__len__(x)


def _base(x: Any) -> Any:
    """The built-in class that a container's class is made of; None where it is one itself."""
    cls = type(x)
    return None if cls in _BASES else next((b for b in _BASES if issubclass(cls, b)), None)


def same(a: Any, b: Any) -> bool:
    """Whether a can stand for b: the same object, or data of equal type and value, element by element."""
    if a is b:
        return True
    cls = type(a)  # not what it says it is: a live number stands for many
    if cls is not type(b):
        return False
    if cls is float:
        return a.hex() == b.hex()
    if cls is complex:
        return same(a.real, b.real) and same(a.imag, b.imag)
    if issubclass(cls, np.generic):
        return a.dtype == b.dtype and a.tobytes() == b.tobytes()
    if issubclass(cls, (int, str, bytes, range, np.dtype)):
        return bool(a == b)
    if cls is slice:
        return same((a.start, a.stop, a.step), (b.start, b.stop, b.step))
    if issubclass(cls, (tuple, list)):
        return count(a) == count(b) and all(map(same, elements(a), elements(b)))
    if issubclass(cls, dict):
        return len(a) == len(b) and all(map(same, a, b)) and all(map(same, a.values(), b.values()))
    if issubclass(cls, (set, frozenset)):
        return count(a) == count(b) and all(map(same, elements(a), elements(b)))
    return False


def sees(t: Any) -> str:
    """Of what a tensor with a history is a view: "leaf" for one that requires a gradient, "tensor", or nothing."""
    x = t._base if t._node is not None else None
    if x is None:
        return ""
    while x is not None and not (x._requires_grad and x._node is None):
        x = x._base
    return "tensor" if x is None else "leaf"


def hooks_of(t: Any) -> tuple[Any, ...]:
    """The hooks of a leaf and their classes, to compare with later ones; they live no longer for it. Of what is no
    leaf, whether it has any."""
    if t._node is not None:
        node, index = opened((t._node, t._index))
        return (True,) if node.hooks is not None and node.hooks.get(index) else ()
    return tuple([(_weak(x), type(x)) for x in t._hooks or ()])


def _weak(x: Any) -> Any:
    try:
        return weakref.ref(x)
    except TypeError:  # a callable object with slots alone
        return x


class Words(str):
    """What a value is, in words."""

    __slots__ = ()


def one_key(a: Any, b: Any) -> bool:
    """Whether two keys of dicts are one. Tensors are by identity: to compare them is an op."""
    return a is b or (not (hasattr(type(a), "_storage") or hasattr(type(b), "_storage")) and bool(a == b))


def one_order(a: Sequence[Any], b: Sequence[Any]) -> bool:
    """Whether two rows of keys are one."""
    return len(a) == len(b) and all(map(one_key, a, b))


def brief(x: Any) -> str:
    """A short description of any value; never runs an op."""
    if x.__class__ is Words:
        return str(x)
    if (is_plain(x) or x is ABSENT) and (_base(x) is None or isinstance(x, tuple)):
        text = repr(x)
    elif isinstance(x, (list, dict, set, frozenset, tuple)):
        name = type(x).__name__
        n = count(x)
        text = repr(x) if n <= 8 and _base(x) is None and _shallow(x) else f"a {name} of {n}"
    elif isinstance(x, _NAMED):
        text = f"{x.__qualname__}"
    elif hasattr(type(x), "_storage"):
        text = f"tensor {x.type}"
    else:
        text = f"a {type(x).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."


def _shallow(x: Any) -> bool:
    return all(map(is_plain, x)) and (not isinstance(x, dict) or all(map(is_plain, x.values())))
