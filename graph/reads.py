"""What a traced function read and changed outside: the records, and the ledger that collects them."""

from __future__ import annotations

import array
import collections
import copy
import functools
import sys
import types
from types import CodeType, FrameType, FunctionType
from typing import Any

import numpy as np

from ..core.errors import TraceError
from .bytecode import Expr
from .evaluate import get_item, item_name, render
from .ir import Number
from .lookup import UNKNOWN, find, in_class, instance_dict
from .plain import ABSENT, is_plain, same
from .symbol import Symbol

#: bytes of the largest NumPy array whose elements are compared at every call
ARRAY_LIMIT = 4096
MUTABLE = (list, dict, set, collections.deque, bytearray, array.array)
CONTAINERS = (*MUTABLE, frozenset, tuple)


class Read:
    """One value read from outside.

    kind: "attr" (owner.key), "item" (owner[key]), "cell" (contents of a closure cell), "content" (all
    elements of a container; value: its state), "length", "has" (key in owner), "array" (a NumPy array;
    value: its bytes), "method" (a function held by a class), "default" (a function's default arguments),
    "note" (something that no guard can watch; value: the text), "never" (the trace cannot be used again;
    value: why). name: the value's name as users write it; where: (code, line).
    """

    __slots__ = ("key", "kind", "name", "owner", "value", "where")

    def __init__(
        self, kind: str, owner: Any, key: Any, value: Any, name: str, where: tuple[CodeType, int] | None
    ):
        self.kind, self.owner, self.key, self.value, self.name, self.where = (
            kind,
            owner,
            key,
            value,
            name,
            where,
        )

    def __repr__(self) -> str:
        return f"<read {self.kind} {self.name}>"


class Effect:
    """A change the function made outside.

    kind: owner.key ("attr"), owner[key] ("item"), a closure cell ("cell"), all of a container ("content"),
    or elements added to a list or set ("extend"). value: what was there when the trace ended (for "extend"
    the new elements), before: when it began; ABSENT where nothing was.
    """

    __slots__ = ("before", "key", "kind", "name", "owner", "value")

    def __init__(self, kind: str, owner: Any, key: Any, before: Any, value: Any, name: str):
        self.kind, self.owner, self.key, self.name = kind, owner, key, name
        self.before, self.value = before, value

    def apply(self, value: Any) -> None:
        """Make the change again, with this value."""
        if self.kind == "extend":
            (self.owner.update if isinstance(self.owner, set) else self.owner.extend)(value)
        else:
            self._put(value)

    def undo(self) -> None:
        """Put back what was there before the trace."""
        self._put(self.before)

    def _put(self, value: Any) -> None:
        owner, key = self.owner, self.key
        if self.kind == "attr":
            kind = type if isinstance(owner, type) else object
            if value is not ABSENT:
                kind.__setattr__(owner, key, value)
            elif key in (instance_dict(owner) or ()):
                kind.__delattr__(owner, key)
        elif self.kind == "item":
            if value is not ABSENT:
                owner[key] = value
            elif isinstance(owner, dict):
                owner.pop(key, None)
        elif self.kind == "cell":
            if value is not ABSENT:
                owner.cell_contents = value
        elif isinstance(owner, (list, bytearray, array.array)):
            owner[:] = value
        elif isinstance(owner, collections.deque):
            owner.clear()
            owner.extend(value)
        else:
            owner.clear()
            owner.update(value)

    def now(self) -> Any:
        """What is there now, as `value` says what was there when the trace ended."""
        owner, key = self.owner, self.key
        try:
            if self.kind == "attr":
                return getattr(owner, key)
            if self.kind == "item":
                return owner[key]
            if self.kind == "cell":
                return owner.cell_contents
        except (AttributeError, LookupError, ValueError):
            return ABSENT
        if self.kind == "extend":
            return (
                type(self.value)(x for x in owner if x not in self.before)
                if isinstance(owner, set)
                else (type(self.value)(owner[len(self.before) :]))
            )
        return type(self.value)(owner)

    def __repr__(self) -> str:
        return f"<effect {self.kind} {self.name}>"


class _Ref(int):
    """The id of an object in the ledger's table: the table alone keeps objects alive during the trace."""


class Ledger:
    """Tables of the objects a trace met and of what it read and wrote. `close()` gives reads and effects.

    An object is outside when it was there before the call: a root (global, closure cell, argument,
    default), or found from one through reads of what the trace had not written. Containers and writes count
    only outside; reads of other objects count unless nobody but the trace could reach them.
    """

    def __init__(self) -> None:
        self.made: frozenset[int] = (
            frozenset()
        )  # ids of containers of arguments, which are part of the call's key
        self.objects: dict[int, Any] = {}
        self.outside: set[int] = set()
        self.names: dict[int, str] = {}
        self.entries: dict[tuple[str, int, Any], list[Any]] = {}
        self.written: dict[tuple[str, int, Any], tuple[str, Any]] = {}
        self.before: dict[int, Any] = {}
        self.grown: dict[int, str] = {}
        self.functions: dict[int, list[FunctionType]] = {}
        self.dict_of: dict[int, int] = {}  # id of an object's __dict__ -> id of the object
        self.refused: list[TraceError] = []

    # -- objects --------------------------------------------------------------------------------

    def learn(self, x: Any, name: str, outside: bool) -> None:
        """Remember an object that code got hold of: its name, and whether it was there before the call."""
        key = id(x)
        if key in self.names and (not outside or key in self.outside):
            return
        if is_plain(x) or x is ABSENT or x.__class__ is Symbol:
            return
        self.objects.setdefault(key, x)
        self.names.setdefault(key, name)
        if outside and key not in self.outside:
            self.outside.add(key)
            if isinstance(x, tuple):
                for k, element in enumerate(x):
                    self.learn(element, f"{name}[{k}]", True)
        if isinstance(x, FunctionType):
            known = self.functions.setdefault(id(x.__code__), [])
            if not any(f is x for f in known):
                known.append(x)
        elif isinstance(x, types.MethodType):
            self.learn(x.__func__, name, outside)
            self.learn(x.__self__, f"{name}.__self__", outside)
        elif isinstance(x, functools.partial):
            self.learn(x.func, f"{name}.func", outside)
            self.learn(x.args, f"{name}.args", outside)
            self.learn(x.keywords, f"{name}.keywords", outside)
        elif not isinstance(x, type):
            inner = (instance_dict(x) or {}).get("__wrapped__")
            if isinstance(inner, FunctionType):
                self.learn(inner, name, outside)

    def keep_dict(self, space: Any, x: Any) -> None:
        """Remember whose `__dict__` this is."""
        self.objects.setdefault(id(x), x)
        self.objects.setdefault(id(space), space)
        self.dict_of[id(space)] = id(x)

    def name(self, x: Any, expr: Expr) -> str:
        return self.names.get(id(x)) or render(expr)

    def _spec(self, x: Any) -> Any:
        if is_plain(x) or x is ABSENT:
            return x
        self.objects.setdefault(id(x), x)
        return _Ref(id(x))

    # -- reads ----------------------------------------------------------------------------------

    def note(self, kind: str, owner: Any, key: Any, value: Any, name: str, frame: FrameType) -> None:
        """Record a read once, unless the function wrote there before."""
        kind, owner = self._place(kind, owner, key, value)
        oid = id(owner)
        place = kind, oid, key
        if kind in ("length", "has", "item") and oid in self.before and isinstance(owner, MUTABLE):
            # The function changed it before: what it finds follows from what was there then.
            self.read_content(owner, self.names.get(oid, name), frame, False)
            return
        if (
            place in self.entries
            or place in self.written
            or oid in self.made
            or value.__class__ is Symbol
            or isinstance(value, Number)
        ):
            return
        self.objects.setdefault(oid, owner)
        if kind in ("attr", "item", "cell"):
            self.learn(value, name, oid in self.outside)
            value = self._spec(value)
        self.entries[place] = [kind, oid, key, value, name, (frame.f_code, frame.f_lineno)]

    def _place(self, kind: str, owner: Any, key: Any, value: Any) -> tuple[str, Any]:
        """An item of an object's `__dict__` is an attribute of it."""
        if kind == "item" and value is not ABSENT and isinstance(key, str) and key.isidentifier():
            x = self.objects.get(self.dict_of.get(id(owner), 0))
            if x is not None and not hasattr(type(in_class(type(x), key)), "__set__"):
                return "attr", x
        return kind, owner

    def remark(self, text: str, frame: FrameType) -> None:
        """Something that no guard can watch, for `explain()`."""
        self.objects.setdefault(id(frame.f_code), frame.f_code)
        where = frame.f_code, frame.f_lineno
        self.entries.setdefault(("note", id(where[0]), text), ["note", id(where[0]), None, text, "", where])

    def refuse(self, why: str, fix: str, frame: FrameType) -> None:
        """Something that no guard can watch and that a graph would get wrong: an error when the trace ends."""
        where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
        self.refused.append(TraceError("function", why, fix, where))

    def _state(self, x: Any) -> Any:
        if isinstance(x, dict):
            return tuple(dict.keys(x)), tuple(map(self._spec, dict.values(x)))
        return tuple(map(self._spec, x))

    def read_content(self, x: Any, name: str, frame: FrameType, deep: bool) -> None:
        """All elements of a container were looked at."""
        if isinstance(x, np.ndarray):
            self.read_array(x, name, frame)
            return
        if not isinstance(x, CONTAINERS):
            if isinstance(x, (FunctionType, types.MethodType, functools.partial)):
                self.learn(x, name, False)
                if isinstance(x, functools.partial):
                    self.read_content(x.keywords, f"{name}.keywords", frame, True)
            return
        if isinstance(x, MUTABLE):
            if id(x) not in self.outside:
                return
            if any(e.__class__ is Symbol for e in (dict.values(x) if isinstance(x, dict) else x)):
                return
            place = "content", id(x), None
            if place not in self.entries:
                state = self.before.get(id(x))
                state = self._state(x) if state is None else state
                self.entries[place] = ["content", id(x), type(x), state, name, (frame.f_code, frame.f_lineno)]
        elif is_plain(x):
            return
        pairs = dict.items(x) if isinstance(x, dict) else enumerate(x)
        outside = id(x) in self.outside
        for k, element in pairs:
            if not is_plain(element):
                at = item_name(name, k)
                self.learn(element, at, outside)
                if deep and isinstance(element, (*CONTAINERS, np.ndarray)):
                    self.read_content(element, at, frame, True)
            if isinstance(x, dict) and not is_plain(k):
                self.learn(k, f"a key of {name}", outside)

    def read_array(self, x: np.ndarray, name: str, frame: FrameType) -> None:
        place = "array", id(x), None
        if id(x) not in self.outside or place in self.entries:
            return
        if x.nbytes > ARRAY_LIMIT:
            if x.flags.writeable and not self.refused:
                self.refuse(
                    f"reads the NumPy array {name} of {x.nbytes:,} bytes, which may change unseen",
                    "pass it as an argument, or make it a tensor: dg.asarray(...)",
                    frame,
                )
            return
        state = x.tobytes() if not x.dtype.hasobject else None
        self.entries[place] = ["array", id(x), None, state, name, (frame.f_code, frame.f_lineno)]

    # -- writes ---------------------------------------------------------------------------------

    def write(self, kind: str, owner: Any, key: Any, name: str) -> None:
        """A place is about to be written."""
        kind, owner = self._place(kind, owner, key, None)
        place = kind, id(owner), key
        if place in self.written:
            return
        self.objects.setdefault(id(owner), owner)
        self.written[place] = name, self._spec(_now(kind, owner, key))
        if not is_plain(key):
            self.objects.setdefault(id(key), key)

    def snapshot(self, x: Any, name: str, growing: bool) -> None:
        """Keep what a container holds before its first change."""
        if id(x) in self.outside and id(x) not in self.before:
            self.before[id(x)] = self._state(x)
            if growing:
                self.grown[id(x)] = name

    # -- the end --------------------------------------------------------------------------------

    def close(self, strict: bool = True) -> tuple[list[Read], list[Effect]]:
        """Drop what only the trace knew, and turn the tables into reads and effects.

        Raises: TraceError (when strict) for a read that cannot be guarded; the effects are undone then.
        """
        reads, effects = self._collect()
        if strict and self.refused:
            for effect in reversed(effects):
                effect.undo()
            raise self.refused[0]
        return reads, effects

    def _collect(self) -> tuple[list[Read], list[Effect]]:
        self.functions.clear()
        objects = self.objects
        count = -1
        while len(objects) != count:
            count = len(objects)
            for key in list(objects):
                # 2: the table and getrefcount's argument. Nobody can reach such an object at the next call.
                if sys.getrefcount(objects[key]) == 2:
                    del objects[key]
        gone = object()
        reads: list[Read] = []
        effects: list[Effect] = []

        def real(x: Any) -> Any:
            return objects.get(x, gone) if x.__class__ is _Ref else x

        for kind, oid, key, value, name, where in self.entries.values():
            if oid not in objects:
                continue
            owner = objects[oid]
            if kind == "content":
                if isinstance(owner, dict):
                    value = dict(zip(value[0], map(real, value[1])))
                else:
                    # A set as a tuple: the order of its elements can matter, too.
                    value = [*map(real, value)] if key is list else tuple(map(real, value))
            reads.append(Read(kind, owner, key, real(value), name, where))
        for (kind, oid, key), (name, before) in self.written.items():
            if oid in objects and oid in self.outside:
                owner, before = objects[oid], real(before)
                value = _now(kind, owner, key)
                if (kind, oid, key) not in self.entries or not same(value, before):
                    effects.append(Effect(kind, owner, key, before, value, name))
        for oid, name in self.grown.items():
            if oid in objects and ("content", oid, None) not in self.entries:
                owner, before = objects[oid], list(map(real, self.before[oid]))
                if isinstance(owner, set):
                    new = [x for x in owner if not any(x is y for y in before)]
                else:
                    new = owner[len(before) :]
                if new:
                    effects.append(Effect("extend", owner, None, before, new, name))
        for read in reads:
            if read.kind == "content" and not _unchanged(read.owner, read.value):
                effects.append(
                    Effect("content", read.owner, None, read.value, copy.copy(read.owner), read.name)
                )
        return reads, effects


def _now(kind: str, owner: Any, key: Any) -> Any:
    if kind == "cell":
        try:
            return owner.cell_contents
        except ValueError:
            return ABSENT
    value = find(owner, key)[2] if kind == "attr" else get_item(owner, key)
    return ABSENT if value is UNKNOWN else value


def _unchanged(owner: Any, state: Any) -> bool:
    if len(owner) != len(state):
        return False
    if isinstance(owner, dict):
        return all(a is b for a, b in zip(owner, state)) and all(
            a is b for a, b in zip(owner.values(), state.values())
        )
    return all(a is b for a, b in zip(owner, state))
