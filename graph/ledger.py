"""The ledger of a trace: what the function read from outside and what it changed there, collected site by site.

Of every mutable container from outside the ledger keeps what it held when the function got hold of it. Changes are
found at the end by comparison (`balance.py`), however they were made. Two kinds are known while they happen, so that
reads beside them stay small: elements added at the end (`append`, `extend`, `+=`, `add`), and elements set by their
key. Any other change counts as a read of everything, as it was before.
"""

from __future__ import annotations

import collections
import ctypes
import enum
import functools
import io
import types
from types import CodeType, FrameType, FunctionType
from typing import Any

import numpy as np

from ..core import dispatch
from .bytecode import Expr
from .draws import GENERATORS, Draws
from .evaluate import item_name, render
from .handlers import caught
from .ir import Number
from .keys import settled_key
from .live import Live, RestartError
from .lookup import UNKNOWN, calls_on, in_class, instance_dict, is_changing
from .plain import ABSENT, brief, elements, is_plain
from .reads import (
    ARRAY_LIMIT,
    CONTAINERS,
    MUTABLE,
    behind,
    contents_of,
    is_iterator,
    may_change,
    own_at,
    space_of,
)
from .symbol import Symbol


class Found(BaseException):
    """Ends a trace whose arguments are containers of its own: the function found one of them by itself."""


class Leave(BaseException):
    """Ends a trace from within the user's code; no `except Exception` there stops it."""


#: what C code looks into
HOLDING = (*CONTAINERS, np.ndarray, types.SimpleNamespace)
#: what shows memory that anybody may change
HIDDEN = ctypes.Structure.__mro__[1]
#: reads after which a trace ends that goes on and on since
_PATIENCE = 10_000


class Ref(int):
    """The id of an object in the ledger's table: the table alone keeps objects alive during the trace."""


class Ledger:
    """Tables of the objects a trace met and of what it read and wrote. `balance.close` makes reads and effects of them.

    An object is outside when it was there before the call: a root (global, closure cell, argument,
    default), or found from one through reads of what the trace had not written. Containers and writes count
    only outside; reads of other objects count unless nobody but the trace could reach them.
    """

    def __init__(self) -> None:
        self.made: set[int] = set()  # ids of containers of arguments, which are part of the call's key
        self.objects: dict[int, Any] = {}
        self.outside: set[int] = set()
        self.hooks: set[int] = set()  # ids of those of tensors that the code met
        self.cells: set[int] = set()  # ids of the closure cells of functions from outside
        self.names: dict[int, str] = {}
        self.entries: dict[tuple[str, int, Any], list[Any]] = {}
        self.written: dict[tuple[str, int, Any], tuple[str, Any]] = {}
        self.states: dict[int, Any] = {}  # what a container or array held when it was met
        self.changed: dict[int, str] = {}  # containers that are being changed, and their names
        self.adds: dict[int, list[Any]] = {}  # what was added to sets, for each `add` that was looked up
        #: how often `append` of a deque was looked up, and how often it was called
        self.appends: dict[int, list[int]] = {}
        self.signs: dict[
            int, set[bool]
        ] = {}  # whether elements of a list were set from its end, from its start
        self.deleted: dict[int, set[Any]] = {}  # keys taken out of dicts
        self.dropped: set[tuple[str, int, Any]] = set()  # places that were emptied
        self.changes = 0  # how often places outside were about to be written
        self.functions: dict[int, list[FunctionType]] = {}
        self.dict_of: dict[int, int] = {}  # id of an object's __dict__ -> id of the object
        self.orders: dict[int, list[str]] = {}  # the names in a namespace before the function wrote to it
        self.spaces: dict[int, dict[str, Any]] = {}  # what a namespace that was walked held at first
        #: the code that the trace was begun in
        self.until: CodeType | None = None
        self.compared: set[int] = (
            set()
        )  # ids of objects of which it was asked whether they are some other one
        self.apart: frozenset[int] = (
            frozenset()
        )  # ids of the call's containers, for which the trace has its own
        self.found = 0  # reads since one of these was found; 0: none was
        #: what was done that no trace can hold, and what to do instead
        self.looked_up: list[
            tuple[Any, tuple[Any, ...]]
        ] = []  # caches and what they were asked for, in order
        self.touched: set[int] = set()  # ids of containers that were perhaps changed
        self.odd: tuple[str, str] | None = None
        self.asked = False  # whether the function asked which tensors are the same
        self.linked: set[int] = set()  # ids of containers that something immutable leads to
        self.gave_way = False  # a debugger took over
        self.draws = Draws()
        self.hidden = ""  # why it cannot be watched any more
        #: by id of their code, functions with a cache of their results that C code was given to call
        self.handed_on: dict[int, Any] = {}
        #: ids of the frame and the code of the last call of a function past any cache
        self.direct = 0, 0
        #: by id of a frame, the containers, by id, that Python code gave back to C code which the frame had called
        self.handed: dict[int, dict[int, Any]] = {}

    # -- objects --------------------------------------------------------------------------------

    def learn(self, x: Any, name: str, outside: bool, linked: bool = False) -> None:
        """Remember an object that code got hold of: its name, and whether it was there before the call. linked: it
        is part of something immutable."""
        key = id(x)
        if linked:
            self.linked.add(key)
        if key in self.names and (not outside or key in self.outside):
            return
        if x.__class__ is Symbol or x is ABSENT or type(x) is Live:
            return
        if is_plain(x) and (instance_dict(x) is None or isinstance(x, enum.Enum)):
            return  # else it has attributes, which may be written
        if key in self.apart and not self.found:
            self.found = 1
        self.objects.setdefault(key, x)
        self.names.setdefault(key, name)
        if outside and key not in self.outside:
            self.outside.add(key)
            if isinstance(x, GENERATORS):
                self.draws.meet(x)
            if isinstance(x, HIDDEN):
                self.hidden = f"gets hold of {name}, memory that changes unseen"
            if isinstance(x, MUTABLE):
                if key not in self.dict_of and key not in self.made:
                    self.states[key] = contents_of(x)
            elif isinstance(x, tuple):
                for k, element in enumerate(elements(x)):
                    self.learn(element, f"{name}[{k}]", True, linked)
            elif isinstance(x, np.ndarray) and (x.nbytes <= ARRAY_LIMIT or x.dtype.hasobject):
                self.states[key] = x.copy()
        if isinstance(x, FunctionType):
            if outside:
                self.cells.update(map(id, x.__closure__ or ()))
                for y in calls_on(x):
                    self.learn(y, name, True, True)
            known = self.functions.setdefault(id(x.__code__), [])
            if not any(f is x for f in known):
                known.append(x)
        elif isinstance(x, types.MethodType):
            self.learn(x.__func__, name, outside)
            self.learn(x.__self__, f"{name}.__self__", outside, True)
        elif isinstance(x, types.BuiltinFunctionType):
            if isinstance(x.__self__, MUTABLE):
                self.learn(x.__self__, f"{name}.__self__", outside, True)
        elif isinstance(x, functools.partial):
            self.learn(x.func, f"{name}.func", outside)
            self.learn(x.args, f"{name}.args", outside, True)
            self.learn(x.keywords, f"{name}.keywords", outside)
        elif not isinstance(x, type):
            for y in calls_on(x):
                self.learn(y, name, outside, True)
            real = behind(x)
            if real is not x:
                self.learn(real, name, outside, True)
            inner = (instance_dict(x) or {}).get("__wrapped__")
            if isinstance(inner, FunctionType):
                self.learn(inner, name, outside)

    def keep_dict(self, space: Any, x: Any) -> None:
        """Remember whose `__dict__` this is."""
        if id(x) in self.made:
            self.made.add(id(space))
        self.objects.setdefault(id(x), x)
        self.objects.setdefault(id(space), space)
        self.dict_of[id(space)] = id(x)

    def name(self, x: Any, expr: Expr) -> str:
        return self.names.get(id(x)) or render(expr)

    def _spec(self, x: Any) -> Any:
        if is_plain(x) or x is ABSENT or type(x) is Live:
            return x
        self.objects.setdefault(id(x), x)
        return Ref(id(x))

    def hand(self, x: Any, frame: FrameType | None) -> None:
        """A function gives a container back, to C code perhaps that the next frame which is followed has called."""
        held = x.values() if x.__class__ is dict else x
        if id(x) in self.outside or (
            x.__class__ in (list, tuple, dict)
            and any(id(e) in self.outside or isinstance(e, CONTAINERS) for e in held)
        ):
            while frame is not None and not frame.f_trace_opcodes:
                frame = frame.f_back
            if frame is not None:
                self.handed.setdefault(id(frame), {})[id(x)] = x

    # -- reads ----------------------------------------------------------------------------------

    def note(self, kind: str, owner: Any, key: Any, value: Any, name: str, frame: FrameType) -> None:
        """Record a read once, unless the function wrote there before."""
        key = settled_key(key)
        if self.found:
            self.found += 1
            if self.found > _PATIENCE:
                raise Found
        space = owner
        kind, owner = self._place(kind, owner, key, value)
        oid = id(owner)
        if oid in self.made or (oid in self.dict_of and self._is_own(kind, space, key, name, frame)):
            return
        if oid in self.states and kind != "attr":
            if ("content", oid, None) in self.entries:
                return
            if oid in self.changed and kind in ("length", "has", "item", "truth"):
                # What it finds follows from what was there, and from the changes.
                found = self._beside_changes(kind, owner, key, value, name, frame)
                if found is None:
                    return
                kind, key, value = found
        place = kind, oid, key
        if (
            place in self.entries
            or place in self.written
            or value.__class__ is Symbol
            or isinstance(value, Number)
            or type(value) is Live
        ):
            return
        self.objects.setdefault(oid, owner)
        if kind in ("attr", "item", "cell"):
            self.learn(value, name, oid in self.outside)
            value = self._spec(value)
        self.entries[place] = [kind, oid, key, value, name, (frame.f_code, frame.f_lineno)]

    def _beside_changes(
        self, kind: str, x: Any, key: Any, value: Any, name: str, frame: FrameType
    ) -> tuple[str, Any, Any] | None:
        """The read of a container as it was before that a read of it now comes to; None when there is none."""
        oid, before = id(x), self.states[id(x)]
        if isinstance(x, list) and kind != "has":
            if kind == "length":
                return kind, key, len(before)
            if kind == "truth":
                return None if len(x) > len(before) else (kind, key, bool(before))
            at = self._spot(x, key, frame)
            if at is None or ("item", oid, at) in self.written:
                return None
            return "item", at, before[at]
        if isinstance(x, dict):
            if kind in ("item", "has"):
                if ("item", oid, key) in self.written:
                    return None
                return kind, key, before.get(key, ABSENT) if kind == "item" else key in before
            keys = [k for sort, owner, k in self.written if sort == "item" and owner == oid]
            if kind == "truth" and any(k in x for k in keys):
                return None
            for k in keys:  # whether they are new
                self._plainly("has", x, k, k in before, f"{brief(k)} in {self.names.get(oid, name)}", frame)
            return "length", None, len(before)
        self.read_content(x, self.names.get(oid, name), frame, False)
        return None

    def _plainly(self, kind: str, owner: Any, key: Any, value: Any, name: str, frame: FrameType) -> None:
        self.entries.setdefault(
            (kind, id(owner), key), [kind, id(owner), key, value, name, (frame.f_code, frame.f_lineno)]
        )

    def _spot(self, x: Any, key: int, frame: FrameType) -> int | None:
        """Where an element was before the list was changed, as an index of the same sign; None for a new one."""
        before, oid = self.states[id(x)], id(x)
        at = key if key >= 0 else key + len(x)
        if at >= len(before):
            if key >= 0:  # that it is a new one depends on the length
                self._plainly("length", x, None, len(before), f"len({self.names.get(oid, 'list')})", frame)
            return None
        others = self.signs.get(oid)
        if others and others != {
            key < 0
        }:  # which element the other kind of index means depends on the length
            self._plainly("length", x, None, len(before), f"len({self.names.get(oid, 'list')})", frame)
            for sign in others - {key < 0}:
                other = at if not sign else at - len(before)
                if ("item", oid, other) in self.written:
                    return other
        return at if key >= 0 else at - len(before)

    def _place(self, kind: str, owner: Any, key: Any, value: Any) -> tuple[str, Any]:
        """An item of an object's `__dict__` is an attribute of it."""
        if kind == "item" and value is not ABSENT and isinstance(key, str) and key.isidentifier():
            x = self.objects.get(self.dict_of.get(id(owner), 0))
            binds = isinstance(x, type) and hasattr(
                type(value), "__get__"
            )  # read from the class it is another one
            if x is not None and not binds and not hasattr(type(in_class(type(x), key)), "__set__"):
                return "attr", x
        return kind, owner

    def _is_own(self, kind: str, space: Any, key: Any, name: str, frame: FrameType) -> bool:
        """Whether what is asked of a namespace follows from what the function wrote there, and from its first names."""
        if kind in ("length", "truth"):
            known = id(space) in self.orders
            if known:
                self._read_names(space, name, frame)
            return known
        return ("attr", self.dict_of[id(space)], key) in self.written

    def _wrote(self, space: Any, key: Any) -> bool:
        """Whether what a namespace holds under a name was put there by the function."""
        return not self.written.keys().isdisjoint(
            (("item", id(space), key), ("attr", self.dict_of.get(id(space), 0), key))
        )

    def _read_names(self, space: dict[str, Any], name: str, frame: FrameType) -> None:
        """Which names a namespace has was looked at, and in which order."""
        self._plainly("names", space, None, tuple(self.orders.get(id(space), space)), name, frame)

    def _read_space(self, space: dict[str, Any], name: str, frame: FrameType) -> None:
        """A namespace was walked: its names, and all values in it that the function has not written itself."""
        if id(space) not in self.spaces:
            now = contents_of(space)
            for kind, oid, key in self.written:
                if (kind, oid) in (("attr", self.dict_of.get(id(space))), ("item", id(space))):
                    before = self.written[kind, oid, key][1]
                    now[key] = self.objects[before] if before.__class__ is Ref else before
            names = self.orders.get(id(space), now)
            self.spaces[id(space)] = {k: now[k] for k in names if k in now}
        self._read_names(space, name, frame)
        for key, value in contents_of(space).items():
            self.note("item", space, key, value, item_name(name, key), frame)

    def read_defaults(self, f: FunctionType, frame: FrameType) -> None:
        """The default arguments of a function were looked at. Those of the framework, of the standard library and
        of large numerical packages keep theirs."""
        if is_changing(f.__module__):
            named = None if f.__kwdefaults__ is None else dict(f.__kwdefaults__)
            name = f"defaults of {f.__qualname__}"
            self.note("default", f, None, (f.__defaults__, named), name, frame)

    def read_level(self, logger: Any, level: int, answer: bool) -> None:
        """A logger was asked whether it says anything of a level."""
        self.objects.setdefault(id(logger), logger)
        name = f"{logger.name} says what has level {level}"
        self.entries.setdefault(
            ("level", id(logger), level), ["level", id(logger), level, answer, name, None]
        )

    def is_handled(self) -> bool:
        """Whether code of the user's that handles errors would run after one that is raised here, and might go on."""
        return self.until is None or caught(self.until)

    def restart(self) -> None:
        """A live number is asked something harmless to which it has no answer: the trace ends, or is of no use."""
        error = RestartError()
        if not self.is_handled():
            raise error

    def read_content(
        self, x: Any, name: str, frame: FrameType, deep: bool, within: tuple[int, ...] = ()
    ) -> None:
        """All elements of a container were looked at. within: the ids of the containers around it."""
        x = behind(x)
        if isinstance(x, np.ndarray):
            self.read_array(x, name, frame)
            return
        if deep and isinstance(x, types.SimpleNamespace):  # C code compares and prints it
            space = instance_dict(x)
            if id(x) in self.outside:
                self.keep_dict(space, x)
                self._read_space(space, name, frame)
            x = space
        if not isinstance(x, CONTAINERS):
            if isinstance(x, (FunctionType, types.MethodType, functools.partial)):
                self.learn(x, name, False)
                if isinstance(x, functools.partial):
                    self.read_content(x.keywords, f"{name}.keywords", frame, True)
            elif is_iterator(x) and id(x) in self.outside:
                self.leave(
                    f"takes elements from {name}, an iterator from outside that stands elsewhere at every call",
                    "take the element outside and pass it as an argument, or keep a list and an index",
                )
            elif isinstance(x, io.IOBase) and id(x) in self.outside:
                self.leave(f"reads {name}, an open file", "read it outside")
            return
        held: Any = x
        outside = id(x) in self.outside and id(x) not in self.made
        if isinstance(x, MUTABLE):
            if not outside:
                if not deep:
                    return
            elif isinstance(x, dict) and id(x) not in self.states:
                self._read_space(x, name, frame)
                if not deep:
                    return
            else:
                held = self.states[id(x)]
                place = "content", id(x), None
                if place not in self.entries:
                    self.entries[place] = ["content", id(x), None, held, name, (frame.f_code, frame.f_lineno)]
                elif not deep:
                    return
                self.read_factory(x, name, frame)
        elif is_plain(x):
            return
        around = (*within, id(x))
        for k, element in held.items() if isinstance(held, dict) else enumerate(elements(held)):
            if not is_plain(element):
                at = item_name(name, k)
                self.learn(element, at, outside and not (held is x and self._wrote(x, k)))
                if deep and isinstance(element, HOLDING) and id(element) not in around:
                    self.read_content(element, at, frame, True, around)
            if isinstance(held, dict) and not is_plain(k):
                self.learn(k, f"a key of {name}", outside)

    def leave(self, why: str, fix: str) -> None:
        """What the function is about to do cannot be watched: its Python runs at every call."""
        trace = dispatch.tracing()
        if trace is not None:
            trace.leave(why, fix)
        self.odd = why, fix

    def form(self, x: np.ndarray, name: str) -> None:
        """More than the elements of an array is about to be changed."""
        if id(x) in self.outside and name not in (instance_dict(x) or ()) and hasattr(np.ndarray, name):
            self.leave(f"changes an array from outside by {name}", "make another array of it")

    def read_factory(self, x: Any, name: str, frame: FrameType) -> None:
        """C code asks a dict that has one for its default."""
        if isinstance(x, collections.defaultdict):
            self.note("attr", x, "default_factory", x.default_factory, f"{name}.default_factory", frame)

    def read_array(self, x: np.ndarray, name: str, frame: FrameType) -> None:
        place = "array", id(x), None
        if id(x) not in self.outside or place in self.entries:
            return
        if x.dtype.hasobject:
            self.leave(f"reads {name}, an array of objects", "keep them in a list")
            return
        if x.nbytes > ARRAY_LIMIT:
            if may_change(x):
                self.leave(
                    f"reads the NumPy array {name} of {x.nbytes:,} bytes, which may change unseen",
                    "pass it as an argument, or make it a tensor: dg.asarray(...)",
                )
            return
        held = self.states.get(id(x), x)
        self.entries[place] = ["array", id(x), None, held.tobytes(), name, (frame.f_code, frame.f_lineno)]

    # -- writes ---------------------------------------------------------------------------------

    def write(self, kind: str, owner: Any, key: Any, name: str, deletes: bool = False) -> None:
        """A place is about to be written, or emptied."""
        key = settled_key(key)
        kind, owner = self._place(kind, owner, key, None)
        place = kind, id(owner), key
        self.changes += id(owner) in self.outside
        if id(owner) in self.made:
            return
        back = place in self.written and place in self.dropped and not deletes
        if back and own_at(kind, owner, key) is ABSENT:  # it comes back, as the last
            self.written[place] = self.written.pop(place)
        if deletes:
            self.dropped.add(place)
        if place in self.written:
            return
        self.objects.setdefault(id(owner), owner)
        space, before = space_of(kind, owner), own_at(kind, owner, key)
        if isinstance(space, dict) and id(space) not in self.states:
            self.orders.setdefault(id(space), [*space])
            first = self.spaces.get(id(space), {})
            if key in first and before is ABSENT:  # C code has taken it out: `clear`
                self.dropped.add(place)
            if key in first or (first and key in space):  # or has written there: `update`
                before = first.get(key, ABSENT)
        self.written[place] = name, self._spec(before)
        if not is_plain(key):
            self.objects.setdefault(id(key), key)

    def write_item(self, x: Any, key: Any, name: str, frame: FrameType, deletes: bool) -> None:
        """An element of a list or dict from outside is about to be set or deleted by its key."""
        key = settled_key(key)
        oid = id(x)
        if oid not in self.states:
            if oid in self.outside:  # an object's __dict__
                self.write("item", x, key, item_name(name, key), deletes)
            return
        if isinstance(x, list):
            if deletes or not isinstance(key, int) or isinstance(key, bool) or not -len(x) <= key < len(x):
                self.read_content(x, name, frame, False)
                return
            self.change(x, name)
            at = self._spot(x, key, frame)
            if at is None:
                return  # one that the function added itself
            self.signs.setdefault(oid, set()).add(at < 0)
            place = "item", oid, at
            if place not in self.written:
                self.objects.setdefault(oid, x)
                self.written[place] = item_name(name, key), self._spec(self.states[oid][at])
            return
        self.change(x, name)
        if deletes:
            self.deleted.setdefault(oid, set()).add(key)
        self.write("item", x, key, item_name(name, key))

    def change(self, x: Any, name: str) -> None:
        """A container is about to be changed in a way that `close` finds again: growth, or elements set."""
        if id(x) in self.states:
            self.changed.setdefault(id(x), name)
            if isinstance(x, set):
                self.adds.setdefault(id(x), []).append(UNKNOWN)
            elif isinstance(x, collections.deque):
                self.appends.setdefault(id(x), [0, 0])[0] += 1

    def append(self, x: Any) -> None:
        """`append` of a deque, looked up before, is about to be called."""
        if id(x) in self.appends:
            self.appends[id(x)][1] += 1

    def add(self, x: Any, value: Any) -> None:
        """`add` of a set, looked up before, is about to be called."""
        row = self.adds.get(id(x), [])
        spot = next((k for k, x in enumerate(row) if x is UNKNOWN), None)  # tensors compare by element
        if value is not UNKNOWN and spot is not None:
            row[spot] = value
        elif id(x) in self.states:
            row.append(UNKNOWN)

    def has_changed(self, owner: dict[str, Any], key: str) -> bool:
        """Whether an item of a dict is another one than when the trace began."""
        before = self.states.get(id(owner))
        return ("item", id(owner), key) in self.written or (
            before is not None and before.get(key, ABSENT) is not owner.get(key, ABSENT)
        )
