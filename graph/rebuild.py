"""What a call hands out besides tensors: results and new contents of state, made anew at each call.

A trace sees each object once, so what it hands out is described: what was there before the call (or is the
caller's) stays itself, tensors are places in a list, and containers and objects that the function made are made again,
each once however often it is met.
"""

from __future__ import annotations

import array
import collections
import enum
import gc
import types
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from ..core.random import Generator
from .arguments import Slot, is_record
from .given import Given
from .live import Live, settled
from .live_uses import Worked
from .lookup import in_class, instance_dict
from .nursery import Nursery
from .plain import is_plain
from .reads import is_iterator

_HEAP = 1 << 9  # a class that Python code defines
#: objects that are looked through for tensors, and what does not belong to the object that refers to it
_SEARCHED = 200
_APART = (type, types.ModuleType, types.CodeType, types.FrameType)
_SETS = (set, collections.deque, bytearray, array.array)
#: what objects of classes made of them hold besides their attributes can be put in again
_FILLED: tuple[Any, ...] = (
    collections.OrderedDict, collections.defaultdict, dict, list, set, collections.deque, types.SimpleNamespace,
)  # fmt: skip
#: the hash of objects that are no values
_BY_IDENTITY: tuple[Any, ...] = (None, object.__hash__)
_CODE = (
    types.FunctionType,
    types.MethodType,
    types.BuiltinFunctionType,
    types.MethodWrapperType,
    types.CodeType,
)


class Made:
    """An object to make. kind: "list", "dict", "tuple", "copy" (of values alone), "look" (an array that looks into
    another one's memory), "filled" (of a class made of a built-in container), "object"; number: which one it is;
    content: what it holds, described."""

    __slots__ = ("cls", "content", "kind", "number")

    def __init__(self, kind: str, cls: Any, number: int):
        self.kind, self.cls, self.number = kind, cls, number
        self.content: Any = None


class Descriptions:
    """Describes values of one trace. leaves: the tensors met, each once.

    held: objects that cannot be made again, and hold what the trace made; kept: by id, those that were there before.

    is_leaf: says of a value that it is a tensor; outside: by id, what was there before; given: by id, the paths of the
    containers that stand for the caller's; nursery: knows what the trace made (None: nobody does, so containers count
    as made and objects do not); apart: tuples of plain data come apart.
    """

    def __init__(
        self, is_leaf: Callable[[Any], bool], outside: dict[int, Any], given: dict[int, tuple[Any, ...]],
        nursery: Nursery | None = None, apart: bool = False,
    ):  # fmt: skip
        self.leaves: list[Any] = []
        self.held: list[Any] = []
        self.kept: dict[int, Any] = {}
        self._is_leaf, self._outside, self._given = is_leaf, outside, given
        self._spots: dict[int, Slot] = {}
        self._made: dict[int, Made] = {}
        self._keep: list[Any] = []  # so that no id is taken twice
        self._nursery, self._comes_apart = nursery, apart
        self._made_inside: Callable[[Any], bool] | None = None

    def describe(self, x: Any) -> Any:
        """What `build` makes x of."""
        if type(x) is Live:
            return Worked(x)
        if self._is_leaf(x):
            spot = self._spots.get(id(x))
            if spot is None:
                spot = self._spots[id(x)] = Slot(len(self.leaves))
                self.leaves.append(x)
            return spot
        if isinstance(x, Given):
            return x
        if id(x) in self._given:
            return Given(self._given[id(x)])
        if id(x) in self._outside:
            self.kept[id(x)] = x
            return x
        if isinstance(x, enum.Enum) or (is_plain(x) and not (self._comes_apart and isinstance(x, tuple))):
            if self._carries(x):
                self.held.append(x)
            return settled(x)  # a slice may hold a live number
        if isinstance(x, weakref.ref):
            if self._is_leaf(x()) or (self._nursery is not None and x() is not None and self._is_new(x())):
                self.held.append(x)
            return x
        found = self._made.get(id(x))
        if found is not None:
            return found
        kind = "" if isinstance(x, type) else self._kind(x)
        if not kind:
            if isinstance(x, Generator) or self._is_lost(x):
                self.held.append(x)
            return x
        made = self._made[id(x)] = Made(kind, x.__class__, len(self._made))
        self._keep.append(x)
        made.content = self._content(kind, x)
        return made

    def makes(self, x: Any) -> bool:
        """Whether an object is among those that a call makes."""
        return id(x) in self._made

    def _kind(self, x: Any) -> str:
        cls = x.__class__
        if cls is tuple or (isinstance(x, tuple) and hasattr(x, "_fields")):
            return "tuple"
        if cls is list or cls is dict:
            return cls.__name__ if self._is_new(x) else ""
        if isinstance(x, np.ndarray):
            if cls is not np.ndarray or (x.dtype.hasobject and not all(map(is_plain, x.flat))):
                return ""
            return "look" if isinstance(x.base, np.ndarray) and x.size and not x.dtype.hasobject else "copy"
        if cls in _SETS:
            return ("list" if cls is set or cls is collections.deque else "copy") if self._is_new(x) else ""
        if not self._comes_apart and _filled(cls) is not None:
            return "filled" if self._is_new(x) else ""
        if not _is_simple(cls) or cls is Generator:
            return ""
        return "object" if self._is_new(x) or is_record(x) else ""

    def _carries(self, x: Any) -> bool:
        """Whether plain data is more than that: a slice between tensors, a number or text with attributes."""
        if x.__class__ is slice:
            return any(map(self._is_leaf, (x.start, x.stop, x.step)))
        return bool(not isinstance(x, enum.Enum) and instance_dict(x)) and self._is_new(x)

    def _is_lost(self, x: Any) -> bool:
        """Whether an object that cannot be made again (a closure, an iterator) was made in the trace, and holds cells
        or tensors of it, or can change, or holds something made there that can: no two calls may share it."""
        if self._nursery is None or not self._is_new(x):
            return False
        if _can_change(x):
            return True
        stack, seen = [x], {id(x)}
        while stack and len(seen) < _SEARCHED:
            for y in gc.get_referents(stack.pop()):
                if self._is_leaf(y) or y.__class__ is types.CellType or type(y) is Live:
                    return True
                if id(y) not in seen and not isinstance(y, _APART) and gc.is_tracked(y) and self._is_new(y):
                    if _can_change(y):
                        return True
                    seen.add(id(y))
                    stack.append(y)
        return False

    def _is_new(self, x: Any) -> bool:
        """Whether the trace made an object."""
        if self._nursery is None:
            return x.__class__ in (list, dict, *_SETS) or not gc.is_tracked(x)
        if self._made_inside is None:
            self._made_inside = self._nursery.made()
        return self._made_inside(x)

    def _content(self, kind: str, x: Any) -> Any:
        if kind == "copy":
            return _copy(x)
        if kind == "look":
            return self.describe(_root(x)), x
        if kind == "filled":
            return self._filling(x)
        if kind == "dict":
            return [(self.describe(k), self.describe(v)) for k, v in x.items()]
        if kind != "object":
            row = [self.describe(v) for v in x]
            return (row, x.maxlen) if isinstance(x, collections.deque) else row
        return [(name, self.describe(v)) for name, v in attributes_of(x)]

    def _filling(self, x: Any) -> Any:
        """What a container of a class of its own holds: rows, attributes, and what it was begun with."""
        base = _filled(x.__class__)
        rows: list[Any] = []
        if issubclass(base, dict):
            rows = [(self.describe(k), self.describe(v)) for k, v in base.items(x)]
        elif base is not types.SimpleNamespace:
            rows = [self.describe(v) for v in base.__iter__(x)]
        itself = instance_dict(x) is x  # its items are its attributes
        attributes = [] if itself else [(name, self.describe(v)) for name, v in attributes_of(x)]
        first = None
        if base is collections.deque:
            first = base.maxlen.__get__(x)
        elif base is collections.defaultdict:
            first = self.describe(x.default_factory)
        return base, rows, attributes, itself, first


def _filled(cls: Any) -> Any:
    """The built-in container whose elements, with attributes, are all that objects of a class hold, or None; None for
    classes of the framework, which is asked for settings by the object itself (an optimiser's group)."""
    base = next((b for b in _FILLED if issubclass(cls, b)), None)
    if (
        base is None
        or cls.__module__.startswith("duograd.nn.")
        or cls.__reduce_ex__ is not object.__reduce_ex__
    ):
        return None
    if cls.__reduce__ not in (object.__reduce__, base.__reduce__, collections.Counter.__reduce__):
        return None
    return base if all(c is object or c in _FILLED or c.__flags__ & _HEAP for c in cls.__mro__) else None


def _can_change(x: Any) -> bool:
    """Whether an object is one that Python code may change: its class says of no other that it is for values."""
    if isinstance(x, (np.ndarray, memoryview, BaseException)) or is_iterator(x):
        return True
    if isinstance(x, type):
        return gc.is_tracked(x)  # else it is one of C code
    return not isinstance(x, _CODE) and type(x).__hash__ in _BY_IDENTITY


def _copy(x: Any) -> Any:
    """A copy of values alone; of an array, in its order."""
    if not isinstance(x, np.ndarray):
        return x[:]
    new = x.copy("K")
    new.flags.writeable = x.flags.writeable
    return new


def _root(x: np.ndarray) -> np.ndarray:
    """The array whose memory an array looks into."""
    while isinstance(x.base, np.ndarray):
        x = x.base
    return x


def _look(memory: np.ndarray, x: np.ndarray, first: np.ndarray) -> np.ndarray:
    """An array that looks into some memory as x looks into `first`."""
    if memory is first:
        return x.view()
    at = x.__array_interface__["data"][0] - first.__array_interface__["data"][0]
    row = memory.ravel("K").view(np.uint8)
    new: np.ndarray = np.ndarray(x.shape, x.dtype, row, at, x.strides)
    new.flags.writeable = x.flags.writeable
    return new


def _is_simple(cls: Any) -> bool:
    """Whether objects of a class are their attributes: nothing in them but what Python code put there."""
    if cls.__reduce_ex__ is not object.__reduce_ex__ or cls.__reduce__ is not object.__reduce__:
        return False
    return all(c is object or c.__flags__ & _HEAP for c in cls.__mro__)


def attributes_of(x: Any) -> list[tuple[str, Any]]:
    """The names and values of what an object holds, in its slots too."""
    found = list((instance_dict(x) or {}).items())
    for cls in type(x).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name.startswith("__") and not name.endswith("__"):
                name = f"_{cls.__name__.lstrip('_')}{name}"
            if name not in ("__dict__", "__weakref__") and hasattr(x, name):
                found.append((name, getattr(x, name)))
    return found


def build(x: Any, tensors: list[Any], given: Any, made: dict[int, Any], live: Any = None) -> Any:
    """What a description stands for in a call. given: its args and kwargs; made: what it has made so far, by number;
    live: the values of its live numbers."""
    cls = x.__class__
    if cls is Slot:
        return tensors[x.index]
    if cls is Given:
        return x.find(given)
    if cls is Worked:
        return live[x.step]
    if cls is not Made:
        return x
    if x.kind == "tuple":
        if x.number not in made:
            row = [build(v, tensors, given, made, live) for v in x.content]
            if x.number not in made:  # what it holds may lead to it
                made[x.number] = tuple(row) if x.cls is tuple else x.cls(*row)
        return made[x.number]
    new: Any = made.get(x.number)
    if new is not None:
        return new
    if x.kind == "copy":
        new = made[x.number] = _copy(x.content)
    elif x.kind == "look":
        root, view = x.content
        new = made[x.number] = _look(build(root, tensors, given, made, live), view, _root(view))
    elif x.kind == "filled":
        new = _fill(x, tensors, given, made, live)
    elif x.kind == "dict":
        new = made[x.number] = {}
        for k, v in x.content:
            new[build(k, tensors, given, made, live)] = build(v, tensors, given, made, live)
    elif x.kind == "object":
        new = made[x.number] = object.__new__(x.cls)
        for name, v in x.content:
            _set(new, name, build(v, tensors, given, made, live))
    else:
        row, most = x.content if x.cls is collections.deque else (x.content, None)
        new = made[x.number] = x.cls() if most is None else x.cls(maxlen=most)
        (new.update if x.cls is set else new.extend)([build(v, tensors, given, made, live) for v in row])
    return new


def _fill(x: Made, tensors: list[Any], given: Any, made: dict[int, Any], live: Any) -> Any:
    """`build` for a container of a class of its own, past the methods that this has in the place of its base's."""
    base, rows, attributes, itself, first = x.content
    new = made[x.number] = base.__new__(x.cls)
    if base is collections.deque:
        base.__init__(new, (), first)
    elif base is collections.defaultdict:
        vars(base)["default_factory"].__set__(new, build(first, tensors, given, made, live))
    if itself:
        object.__setattr__(new, "__dict__", new)
    if issubclass(base, dict):
        for k, v in rows:
            base.__setitem__(new, build(k, tensors, given, made, live), build(v, tensors, given, made, live))
    elif base is not types.SimpleNamespace:
        fill = base.update if base is set else base.extend
        fill(new, [build(v, tensors, given, made, live) for v in rows])
    for name, v in attributes:
        _set(new, name, build(v, tensors, given, made, live))
    return new


def _set(new: Any, name: str, value: Any) -> None:
    """Give an object an attribute where it lay: in its dict, past a descriptor of that name, or in a slot."""
    space = instance_dict(new)
    if space is None or isinstance(in_class(type(new), name), types.MemberDescriptorType):
        object.__setattr__(new, name, value)
    else:
        dict.__setitem__(space, name, value)
