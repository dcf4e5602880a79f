"""What a traced function read and changed outside: one record for each read, one for each change."""

from __future__ import annotations

import array
import collections
import gc
import io
import threading
import types
import weakref
from contextlib import suppress
from types import CodeType
from typing import Any

import numpy as np

from .evaluate import get_item
from .lookup import UNKNOWN, find, follows, in_class, instance_dict
from .plain import ABSENT, count, elements, one_key

#: bytes of the largest NumPy array whose elements are compared at every call
ARRAY_LIMIT = 4096
MUTABLE = (list, dict, set, collections.deque, bytearray, array.array)
CONTAINERS = (*MUTABLE, frozenset, tuple)
_ordered: Any = collections.OrderedDict()
# Methods that change a container without looking at it.
_GROWING = ((list, "append"), (list, "extend"), (set, "add"), (collections.deque, "append"))
# Methods that may change a list, dict or deque.
_CHANGING = frozenset((
    "append", "appendleft", "clear", "extend", "extendleft", "insert", "move_to_end", "pop", "popitem", "popleft",
    "remove", "reverse", "rotate", "setdefault", "sort", "update", "__delitem__", "__iadd__", "__imul__", "__ior__",
    "__setitem__",
))  # fmt: skip
_VIEWS: tuple[type, ...] = (
    memoryview, type({}.keys()), type({}.values()), type({}.items()), types.MappingProxyType,
    type(_ordered.keys()), type(_ordered.values()), type(_ordered.items()),
)  # fmt: skip


def is_iterator(x: Any) -> bool:
    """Whether x is an iterator of code that is not followed: what it has given is not seen."""
    step = in_class(type(x), "__next__")
    if step is ABSENT or isinstance(x, io.IOBase):  # a file is no container that a call could have again
        return False
    code = getattr(step, "__code__", None)
    return code is None or follows(code, step.__globals__) == "never"


def walked(iterator: Any) -> list[Any]:
    """The containers and iterators that an iterator walks along, and those whose methods it calls; nothing is taken."""
    row = None
    if not isinstance(iterator, types.GeneratorType) and type(iterator).__module__ != "itertools":
        with suppress(TypeError):  # some cannot be copied
            state = iterator.__reduce__()
            row = list(state[1]) if isinstance(state, tuple) and len(state) > 1 else []
    if row is None:
        row = gc.get_referents(iterator)
    return row + [x.__self__ for x in row if isinstance(x, types.BuiltinFunctionType)]


def changes(name: str) -> bool:
    """Whether a container's method of this name may change it."""
    return name in _CHANGING


def grows(x: Any, name: str) -> bool:
    return any(name == how and isinstance(x, kind) for kind, how in _GROWING)


def behind(x: Any) -> Any:
    """What a view shows: the dict of keys, values or items, the bytes or array of a `memoryview`; what a weak proxy
    stands for; anything else itself."""
    if type(x) in weakref.ProxyTypes:
        try:
            return x.__init__.__self__
        except (AttributeError, ReferenceError):
            return x
    if isinstance(x, _VIEWS):
        if isinstance(x, memoryview):
            return x.obj if isinstance(x.obj, (*MUTABLE, np.ndarray)) else x
        found = [y for y in gc.get_referents(x) if isinstance(y, dict)]
        return found[0] if len(found) == 1 else x
    return x


def contents_of(x: Any) -> Any:
    """What a mutable container (or a NumPy array) holds now, as a value of its own that `replace` takes."""
    if isinstance(x, dict):
        return dict(x.items() if isinstance(x, collections.OrderedDict) else dict.items(x))
    if isinstance(x, (array.array, np.ndarray)):
        return x[:] if isinstance(x, array.array) else x.copy()
    return list(elements(x)) if not isinstance(x, bytearray) else bytes(x)


def replace(x: Any, value: Any) -> None:
    """Give a container other contents, past the methods that its class may have put in the place of these."""
    if isinstance(x, list):
        list.__setitem__(x, slice(None), value)
    elif isinstance(x, (bytearray, array.array)):
        x[:] = value if isinstance(x, bytearray) else array.array(x.typecode, value)
    elif isinstance(x, np.ndarray):
        x[...] = value
    elif isinstance(x, collections.deque):
        collections.deque.clear(x)
        collections.deque.extend(x, value)
    elif isinstance(x, collections.OrderedDict):
        collections.OrderedDict.clear(x)
        for key, item in value.items():
            collections.OrderedDict.__setitem__(x, key, item)
    elif isinstance(x, dict):
        dict.clear(x)
        dict.update(x, value)
    else:
        set.clear(x)
        set.update(x, value)


def may_change(x: Any) -> bool:
    """Whether the memory of an array can be written to, through it or through what it looks into."""
    while isinstance(x, np.ndarray):
        if x.flags.writeable:
            return True
        x = x.base
    return isinstance(x, (bytearray, array.array)) or (isinstance(x, memoryview) and not x.readonly)


def order_again(x: Any, names: list[Any]) -> None:
    """Let a dict or a `__dict__` have its keys in this order, as far as it has them."""
    kind: Any = collections.OrderedDict if isinstance(x, collections.OrderedDict) else dict
    now = [*kind.keys(x)]
    if now != names:
        start = next((k for k, (a, b) in enumerate(zip(now, names)) if a is not b), 0)
        for name in names[start:]:
            value = kind.pop(x, name, ABSENT)
            if value is not ABSENT:
                kind.__setitem__(x, name, value)


def space_of(kind: str, owner: Any) -> Any:
    """The dict that a place of this kind is in; None where it is in none that can be written."""
    space = behind(instance_dict(owner)) if kind == "attr" else owner if kind == "item" else None
    return space if isinstance(space, dict) else None


def is_as(x: Any, value: Any) -> bool:
    """Whether a container holds these very objects, in this order."""
    if isinstance(x, np.ndarray):
        return bool(x.shape == value.shape and x.tobytes() == value.tobytes())
    if isinstance(x, (array.array, bytearray)):
        return bytes(x) == bytes(value)
    if count(x) != len(value):
        return False
    if isinstance(x, dict):
        keys, old = elements(x), value
        return all(a is b for a, b in zip(keys, old)) and all(
            dict.__getitem__(x, k) is v for k, v in old.items()
        )
    return all(a is b for a, b in zip(elements(x), value))


def now_at(kind: str, owner: Any, key: Any) -> Any:
    """What a place holds; ABSENT when nothing."""
    if kind == "cell":
        try:
            return owner.cell_contents
        except ValueError:
            return ABSENT
    value = find(owner, key, True)[2] if kind == "attr" else get_item(owner, key)
    if value is UNKNOWN and kind == "item" and isinstance(owner, dict):
        value = dict.get(owner, key, ABSENT)
    return ABSENT if value is UNKNOWN else value


def own_at(kind: str, owner: Any, key: Any) -> Any:
    """What a place itself holds, where a class may hold a value for it as well; ABSENT when nothing."""
    if kind == "attr" and not isinstance(owner, threading.local):
        space: Any = vars(owner) if isinstance(owner, type) else instance_dict(owner)
        space = {} if space is None else space
        if key in space or not hasattr(type(in_class(type(owner), key)), "__set__"):
            return space.get(key, ABSENT)
    return now_at(kind, owner, key)


def getattr_of(owner: Any) -> Any:
    """What finds an attribute where a recorded read found it: past a `__getattribute__` of the user's."""
    hooked = isinstance(in_class(type(owner), "__getattribute__"), types.FunctionType)
    return object.__getattribute__ if hooked else getattr


class Read:
    """One value read from outside.

    kind: "attr" (owner.key), "item" (owner[key]), "cell" (contents of a closure cell), "content" (all elements of a
    container; value: its state), "names" (those in an object's `__dict__`, in their order), "length", "truth" (whether
    it has elements), "has" (key in owner), "array" (a NumPy array; value: its bytes), "method" (a function held by a
    class), "static" (what a class holds that gives an attribute, like a property), "setter" (what it holds under the
    name of one that is set; value: its class, itself where it sets it, itself where it is plain), "part" (what an
    attribute is to its module), "default" (a function's default arguments), "cached" (a result that
    `functools.lru_cache` keeps; key: the arguments), "level" (whether a logger says anything of a level), "never" (the
    trace cannot be used again; value: why).
    name: the value's name as users write it; where: (code, line).
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

    def is_at(self, kind: str, owner: Any, key: Any) -> bool:
        """Whether it is what this place held."""
        return self.kind == kind and self.owner is owner and one_key(self.key, key)

    def __repr__(self) -> str:
        return f"<read {self.kind} {self.name}>"


class Effect:
    """A change the function made outside.

    kind: owner.key ("attr"), owner[key] ("item"), a closure cell ("cell"), all of a container or array ("content"),
    or elements added to a list or set ("extend"). value: what was there when the trace ended (for "extend"
    the new elements), before: when it began; ABSENT where nothing was. whole: all of a dict, names: those in a
    namespace, where the order is to come back too. again: the place was emptied first, so it is the last one.
    """

    __slots__ = ("again", "before", "key", "kind", "name", "names", "owner", "value", "whole")

    def __init__(self, kind: str, owner: Any, key: Any, before: Any, value: Any, name: str):
        self.kind, self.owner, self.key, self.name = kind, owner, key, name
        self.before, self.value, self.whole = before, value, None
        self.names: list[str] | None = None
        self.again = False

    def apply(self, value: Any, key: Any = ABSENT) -> None:
        """Make the change again, with this value. key: one that equals its own, to be there in its place."""
        if self.kind == "extend":
            kind: Any = next(k for k in (set, list, collections.deque) if isinstance(self.owner, k))
            (kind.update if kind is set else kind.extend)(self.owner, value)
        else:
            if self.again:
                self._put(ABSENT)
            self._put(value, key)

    def undo(self) -> None:
        """Put back what was there before the trace."""
        if self.kind == "extend" or self.whole is not None:
            replace(self.owner, self.before if self.whole is None else self.whole)
        else:
            self._put(self.before)
            if self.names is not None:
                order_again(space_of(self.kind, self.owner), self.names)
                if isinstance(self.owner, type):  # which remembers where it has found what
                    self._put(self.before)

    def forget(self) -> None:
        """Let go what was there before the trace, which has been put back."""
        if self.kind != "extend":
            self.before = self.whole = None

    def _put(self, value: Any, key: Any = ABSENT) -> None:
        owner, key = self.owner, self.key if key is ABSENT else key
        if self.kind == "attr":
            kind = next(k for k in (type, threading.local, object) if isinstance(owner, k))
            if value is not ABSENT:
                kind.__setattr__(owner, key, value)
            else:
                with suppress(AttributeError):
                    kind.__delattr__(owner, key)
        elif self.kind == "item":
            holder: Any = next(k for k in (collections.OrderedDict, dict, list) if isinstance(owner, k))
            if value is not ABSENT:
                holder.__setitem__(owner, key, value)
            elif holder is not list:
                holder.pop(owner, key, None)
        elif self.kind == "cell":
            if value is not ABSENT:
                owner.cell_contents = value
            else:
                with suppress(ValueError):
                    del owner.cell_contents
        else:
            replace(owner, value)

    def now(self) -> Any:
        """What is there now, as `value` says what was there when the trace ended."""
        owner, key = self.owner, self.key
        try:
            if self.kind == "attr":
                return getattr_of(owner)(owner, key)
            if self.kind == "item":
                return owner[key]
            if self.kind == "cell":
                return owner.cell_contents
        except (AttributeError, LookupError, ValueError):
            return ABSENT
        if self.kind == "extend":
            if isinstance(owner, set):
                return [x for x in elements(owner) if not any(x is y for y in self.before)]
            if isinstance(owner, collections.deque):  # which may have let go of some
                return list(elements(owner))[-len(self.value) :]
            return list(elements(owner))[len(self.before) :]
        return contents_of(owner)

    def __repr__(self) -> str:
        return f"<effect {self.kind} {self.name}>"
