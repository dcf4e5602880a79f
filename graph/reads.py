"""Recording what a function reads from outside while it is traced.

`with ReadRecorder() as r: fn(...)` watches the bytecode of user code (and of duograd.nn) through `sys.settrace`
and lists in `r.reads` every Python value that came from outside: globals, closure cells, attributes, items and
contents of containers, absent names too. `r.effects` lists what the function changed outside. What is not seen:

- state that only C code reads (`operator.attrgetter`, `weakref`, C extensions, `next(iterator)` over something made
  before the call), and the clock, random numbers and files: calls known to be impure are listed as notes;
- what opaque packages (NumPy, torch, ...) and most of the standard library read inside themselves;
- attributes found by `super().name` where name is data, patched properties, code swapped in by `f.__code__ = ...`,
  methods patched on an instance (on a class they are seen);
- anything after `breakpoint()` or another tracer took over: such a trace is marked and used only once.

Values made by the function itself are no reads. A value that it reads and then changes is recorded as first read.
"""

from __future__ import annotations

import collections
import functools
import gc
import itertools
import random
import sys
import types
from types import CodeType, FrameType, FunctionType
from typing import Any

import numpy as np

from ..core.errors import TraceError
from ..core.value import Tensor
from .bytecode import Expr, Sites, analyse
from .ir import Number
from .lookup import UNKNOWN, find, follows, in_class, instance_dict, is_own
from .plain import ABSENT, is_plain
from .symbol import Symbol

ARRAY_LIMIT = 4096
_CONTAINERS = (list, dict, set, frozenset, tuple, collections.deque)
_MUTABLE = (list, dict, set, collections.deque)
_GROWING = frozenset(("append", "extend", "add"))  # methods that change a container without looking at it
_IMPURE_MODULES = frozenset(("time", "uuid", "secrets", "_random", "_datetime", "datetime"))
_IMPURE_OWNERS = (random.Random, np.random.Generator, np.random.RandomState)
_QUIET_CALLS = frozenset(map(id, (isinstance, issubclass, type, id, callable, print, super, range)))
# Callables that look at the elements of a container, but not into them.
_SHALLOW_CALLS = frozenset(map(id, (
    zip, enumerate, map, filter, iter, reversed, list, tuple, set, frozenset, dict, any, all, itertools.chain,
    itertools.zip_longest, itertools.islice, itertools.repeat, itertools.cycle, collections.OrderedDict,
)))  # fmt: skip
_object_setattr = object.__setattr__


class Read:
    """One value read from outside.

    kind: "attr" (owner.key), "item" (owner[key]), "cell" (contents of a closure cell), "content" (all elements of a
    container; value: its state), "length", "has" (key in owner), "array" (a NumPy array; value: its bytes), "method"
    (a function held by a class), "default" (a function's default arguments), "note" (something that no guard can
    watch; value: the text), "never" (the trace cannot be used again; value: why).
    name: the value's name as users write it; where: (code, line).
    """

    __slots__ = ("key", "kind", "name", "owner", "value", "where")

    def __init__(self, kind: str, owner: Any, key: Any, value: Any, name: str, where: tuple[CodeType, int] | None):
        self.kind, self.owner, self.key, self.value, self.name, self.where = kind, owner, key, value, name, where

    def __repr__(self) -> str:
        return f"<read {self.kind} {self.name}>"


class Effect:
    """A change the function made outside: owner.key ("attr"), owner[key] ("item"), a closure cell ("cell"), or all
    of a container ("content"), or elements added to a list or set ("extend"). value: what is there after the call
    (for "extend", the new elements), ABSENT when it was deleted."""

    __slots__ = ("key", "kind", "name", "owner", "value")

    def __init__(self, kind: str, owner: Any, key: Any, value: Any, name: str):
        self.kind, self.owner, self.key, self.value, self.name = kind, owner, key, value, name

    def apply(self, value: Any) -> None:
        """Make the change again with this value."""
        owner, key = self.owner, self.key
        if self.kind == "attr":
            if isinstance(owner, type):
                (type.__delattr__ if value is ABSENT else type.__setattr__)(owner, key, *(() if value is ABSENT else (value,)))
            elif value is ABSENT:
                object.__delattr__(owner, key)
            else:
                _object_setattr(owner, key, value)
        elif self.kind == "item":
            if value is ABSENT:
                owner.pop(key, None)
            else:
                owner[key] = value
        elif self.kind == "cell":
            owner.cell_contents = value
        elif self.kind == "extend":
            (owner.update if isinstance(owner, set) else owner.extend)(value)
        elif isinstance(owner, list):
            owner[:] = value
        elif isinstance(owner, collections.deque):
            owner.clear()
            owner.extend(value)
        else:
            owner.clear()
            owner.update(value)

    def __repr__(self) -> str:
        return f"<effect {self.kind} {self.name}>"


class _Ref(int):
    """The id of an object in the recorder's table: the table alone keeps objects alive during the trace."""


class ReadRecorder:
    """Records reads and effects of the code that runs inside its `with` block, in this thread.

    reads, effects: filled when the block ends. Raises TraceError at the end for a read that cannot be guarded: a
    large NumPy array that may be changed in place.
    """

    def __init__(self) -> None:
        self.reads: list[Read] = []
        self.effects: list[Effect] = []
        self._objects: dict[int, Any] = {}
        self._outside: set[int] = set()
        self._names: dict[int, str] = {}
        self._entries: dict[tuple[str, int, Any], list[Any]] = {}
        self._written: dict[tuple[str, int, Any], tuple[str, Any]] = {}
        self._before: dict[int, Any] = {}
        self._grown: dict[int, str] = {}
        self._functions: dict[int, list[FunctionType]] = {}
        self._results: dict[int, dict[int, Any]] = {}
        self._tracers: dict[int, Any] = {}
        self._codes: list[CodeType] = []
        self._wanted: dict[int, dict[int, int]] = {}
        self._refused: list[TraceError] = []
        self._rooted = False
        self._old: Any = None
        self._local: Any = None
        self._actions = {
            "global": self._on_global, "free": self._on_free, "attr": self._on_attr, "item": self._on_item,
            "elements": self._on_elements, "content": self._on_content, "call": self._on_call, "in": self._on_in,
            "set_attr": self._on_set_attr, "set_item": self._on_set_item, "set_global": self._on_set_global,
            "set_free": self._on_set_free,
        }  # fmt: skip

    # -- installing -----------------------------------------------------------------------------

    def __enter__(self) -> ReadRecorder:
        self._old = sys.gettrace()
        # A C tracer that is called by hand takes the thread back, so only Python tracers are called along.
        chained = self._old if isinstance(self._old, (types.FunctionType, types.MethodType)) else None
        tracers, start = self._tracers, self._start

        def tracer(frame: FrameType, event: str, arg: Any) -> Any:
            local = tracers.get(id(frame.f_code))
            if local is None:
                local = tracers[id(frame.f_code)] = self._tracer_of(frame)
            if local is False or (local.called and (frame.f_back is None or frame.f_back.f_trace is None)):
                return None if chained is None else chained(frame, event, arg)
            start(frame)
            frame.f_trace_opcodes = True
            other = None if chained is None else chained(frame, event, arg)
            if other is None:
                frame.f_trace_lines = False
                return local
            return _both(local, other)

        self._tracer = tracer
        # Python 3.12 looks at this flag when a tracer is installed, and needs one frame that has it.
        here = sys._getframe()
        here.f_trace_opcodes = True
        sys.settrace(tracer)
        here.f_trace_opcodes = False
        return self

    def __exit__(self, kind: Any, value: Any, trace: Any) -> None:
        lost = sys.gettrace() is not self._tracer
        if not lost:
            sys.settrace(self._old)
        if kind is None:
            self._finish()
            if lost:
                self.reads.append(Read("never", None, None, "a debugger took over while tracing", "debugger", None))
        for table in (self._objects, self._entries, self._written, self._before, self._tracers, self._actions):
            table.clear()  # type: ignore[attr-defined]
        self._results.clear()
        self._functions.clear()
        self._old = self._tracer = None  # type: ignore[assignment]
        if kind is None and self._refused:
            raise self._refused[0]

    def _tracer_of(self, frame: FrameType) -> Any:
        code = frame.f_code
        self._codes.append(code)  # keeps its id taken
        followed = follows(code, frame.f_globals)
        if followed == "never":
            return False
        sites: Sites = analyse(code)
        at, actions = sites.at.get, self._actions
        self._wanted[id(code)] = sites.wanted
        results, wanted_of = self._results, self._wanted

        def local(frame: FrameType, event: str, arg: Any) -> Any:
            if event == "opcode":
                todo = at(frame.f_lasti)
                if todo is not None:
                    for action in todo:
                        actions[action[0]](frame, action)
            elif event == "return":
                results.pop(id(frame), None)
                back = frame.f_back
                if back is not None:
                    wanted = wanted_of.get(id(back.f_code))
                    if wanted:
                        offset = wanted.get(back.f_lasti)
                        if offset is not None:
                            results.setdefault(id(back), {})[offset] = arg
            return local

        local.called = followed == "called"  # type: ignore[attr-defined]
        return local

    def _start(self, frame: FrameType) -> None:
        """A followed function begins: its objects at the root and its default arguments come from outside."""
        code = frame.f_code
        values = None
        if not self._rooted:
            self._rooted = True
            values = frame.f_locals
            for name in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]:
                x = values.get(name)
                if x is not None and not isinstance(x, (*_CONTAINERS, Tensor)):
                    self._learn(x, name, True)
            if code.co_freevars and id(code) not in self._functions:
                self._search(frame)
        for f in self._functions.get(id(code), ()):
            defaults, named = f.__defaults__, f.__kwdefaults__
            if (defaults or named) and id(f) in self._outside:
                if is_own(f.__module__):
                    self._note("default", f, None, (defaults, named), f"defaults of {f.__qualname__}", frame)
                names = code.co_varnames[code.co_argcount - len(defaults or ()) : code.co_argcount]
                for name, x in (*zip(names, defaults or ()), *(named or {}).items()):
                    self._learn(x, name, True)

    # -- knowing objects ------------------------------------------------------------------------

    def _learn(self, x: Any, name: str, outside: bool) -> None:
        """Remember an object that code got hold of: its name, and whether it was there before the call."""
        if is_plain(x) or x is ABSENT or x.__class__ is Symbol:
            return
        key = id(x)
        self._objects.setdefault(key, x)
        self._names.setdefault(key, name)
        if outside and key not in self._outside:
            self._outside.add(key)
            if isinstance(x, tuple):
                for k, element in enumerate(x):
                    self._learn(element, f"{name}[{k}]", True)
        if isinstance(x, FunctionType):
            known = self._functions.setdefault(id(x.__code__), [])
            if not any(f is x for f in known):
                known.append(x)
        elif isinstance(x, types.MethodType):
            self._learn(x.__func__, name, outside)
            self._learn(x.__self__, f"{name}.__self__", outside)
        elif isinstance(x, functools.partial):
            self._learn(x.func, f"{name}.func", outside)
            self._learn(x.args, f"{name}.args", outside)
            self._learn(x.keywords, f"{name}.keywords", outside)
        elif not isinstance(x, type):
            inner = (instance_dict(x) or {}).get("__wrapped__")
            if isinstance(inner, FunctionType):
                self._learn(inner, name, outside)

    def _name(self, x: Any, expr: Expr) -> str:
        return self._names.get(id(x)) or render(expr)

    def _spec(self, x: Any) -> Any:
        if is_plain(x) or x is ABSENT:
            return x
        self._objects.setdefault(id(x), x)
        return _Ref(id(x))

    def _note(self, kind: str, owner: Any, key: Any, value: Any, name: str, frame: FrameType) -> None:
        """Record a read once, unless the function wrote there before."""
        oid = id(owner)
        place = kind, oid, key
        if place in self._entries or place in self._written or value.__class__ is Symbol or isinstance(value, Number):
            return
        self._objects.setdefault(oid, owner)
        if kind in ("attr", "item", "cell"):
            self._learn(value, name, oid in self._outside)
            value = self._spec(value)
        self._entries[place] = [kind, oid, key, value, name, (frame.f_code, frame.f_lineno)]

    def _snapshot(self, x: Any) -> Any:
        if isinstance(x, dict):
            return tuple(dict.keys(x)), tuple(map(self._spec, dict.values(x)))
        return tuple(map(self._spec, x))

    def _read_content(self, x: Any, name: str, frame: FrameType, deep: bool) -> None:
        """All elements of a container were looked at."""
        if isinstance(x, np.ndarray):
            self._read_array(x, name, frame)
            return
        if not isinstance(x, _CONTAINERS):
            if isinstance(x, (FunctionType, types.MethodType, functools.partial)):
                self._learn(x, name, False)
                if isinstance(x, functools.partial):
                    self._read_content(x.keywords, f"{name}.keywords", frame, True)
            return
        if isinstance(x, _MUTABLE):
            if id(x) not in self._outside:
                return
            if any(e.__class__ is Symbol for e in (dict.values(x) if isinstance(x, dict) else x)):
                return
            place = "content", id(x), None
            if place not in self._entries:
                state = self._before.get(id(x))
                state = self._snapshot(x) if state is None else state
                self._entries[place] = ["content", id(x), type(x), state, name, (frame.f_code, frame.f_lineno)]
        elif is_plain(x):
            return
        pairs = dict.items(x) if isinstance(x, dict) else enumerate(x)
        outside = id(x) in self._outside
        for k, element in pairs:
            if not is_plain(element):
                at = f"{name}[{k!r}]" if is_plain(k) else f"{name}[...]"
                self._learn(element, at, outside)
                if deep and isinstance(element, (*_CONTAINERS, np.ndarray)):
                    self._read_content(element, at, frame, True)
            if isinstance(x, dict) and not is_plain(k):
                self._learn(k, f"a key of {name}", outside)

    def _read_array(self, x: np.ndarray, name: str, frame: FrameType) -> None:
        place = "array", id(x), None
        if id(x) not in self._outside or place in self._entries:
            return
        if x.nbytes > ARRAY_LIMIT:
            if x.flags.writeable and not self._refused:
                self._refused.append(TraceError(
                    "function", f"reads the NumPy array {name} of {x.nbytes:,} bytes, which may change unseen",
                    "pass it as an argument, or make it a tensor: dg.asarray(...)",
                    f"{frame.f_code.co_filename}:{frame.f_lineno}",
                ))  # fmt: skip
            return
        state = x.tobytes() if not x.dtype.hasobject else None
        self._entries[place] = ["array", id(x), None, state, name, (frame.f_code, frame.f_lineno)]

    # -- evaluating expressions -------------------------------------------------------------------

    def _value(self, x: Expr, frame: FrameType) -> Any:
        """The value an expression has now, found without running any user code."""
        if x is None:
            return UNKNOWN
        kind = x[0]
        if kind == "local" or kind == "free":
            return frame.f_locals.get(x[1], UNKNOWN)
        if kind == "const":
            return x[1]
        if kind == "global":
            name = x[1]
            value = frame.f_globals.get(name, UNKNOWN)
            if value is UNKNOWN:
                builtin = frame.f_builtins.get(name, UNKNOWN)
                return frame.f_locals.get(name, builtin) if frame.f_code.co_name == "<module>" else builtin
            return value
        if kind == "attr":
            base = self._value(x[1], frame)
            if base is not UNKNOWN and base is not ABSENT:
                value = find(base, x[2])[2]
                if value is not UNKNOWN:
                    return value
            return self._result(frame, x[3])
        if kind == "item":
            base, index = self._value(x[1], frame), self._value(x[2], frame)
            value = _item(base, index)
            return self._result(frame, x[3]) if value is UNKNOWN else value
        if kind == "result":
            callee = self._value(x[2], frame)
            if callee is getattr and len(x[3]) >= 2:
                base, name = self._value(x[3][0], frame), self._value(x[3][1], frame)
                value = find(base, name)[2] if base is not UNKNOWN and isinstance(name, str) else UNKNOWN
                if value is ABSENT and len(x[3]) == 3:
                    return self._value(x[3][2], frame)
                return self._result(frame, x[1]) if value is UNKNOWN else value
            if callee is vars and len(x[3]) == 1:
                return instance_dict(self._value(x[3][0], frame)) or UNKNOWN
            if getattr(callee, "__name__", "") == "get" and len(x[3]) in (1, 2):
                base = getattr(callee, "__self__", None)
                if isinstance(base, dict):
                    value = _item(base, self._value(x[3][0], frame))
                    if value is ABSENT:
                        return self._value(x[3][1], frame) if len(x[3]) == 2 else None
                    return value
            return self._result(frame, x[1])
        return UNKNOWN

    def _result(self, frame: FrameType, offset: int) -> Any:
        found = self._results.get(id(frame))
        return UNKNOWN if found is None else found.get(offset, UNKNOWN)

    # -- reads ------------------------------------------------------------------------------------

    def _on_global(self, frame: FrameType, action: Any) -> None:
        name, space = action[1], frame.f_globals
        value = space.get(name, UNKNOWN)
        if value is UNKNOWN or isinstance(value, types.ModuleType):
            return
        if isinstance(value, (type, FunctionType, types.BuiltinFunctionType)):
            if getattr(value, "__name__", None) == name and not is_own(getattr(value, "__module__", None)):
                return
        elif type(value).__module__.startswith("duograd.core") and getattr(value, "name", None) == name:
            return  # an op or a dtype under its own name
        if space.get("__name__", "").startswith("duograd.nn"):
            return  # the framework's own constants
        self._outside.add(id(space))
        self._note("item", space, name, value, name, frame)

    def _on_free(self, frame: FrameType, action: Any) -> None:
        name = action[1]
        if name == "__class__":
            return
        value = frame.f_locals.get(name, UNKNOWN)
        for cell in self._cells(frame, name, value):
            self._outside.add(id(cell))
            self._note("cell", cell, None, ABSENT if value is UNKNOWN else value, name, frame)

    def _cells(self, frame: FrameType, name: str, value: Any) -> list[Any]:
        """The cells behind a free variable, of functions that come from outside."""
        code = frame.f_code
        if id(code) not in self._functions:
            self._search(frame)
        found = []
        k = code.co_freevars.index(name)
        for f in self._functions.get(id(code), ()):
            if id(f) in self._outside and f.__closure__ is not None:
                cell = f.__closure__[k]
                try:
                    matches = cell.cell_contents is value
                except ValueError:
                    matches = value is UNKNOWN
                if matches:
                    found.append(cell)
        return found

    def _search(self, frame: FrameType) -> None:
        """Functions of a code that nothing read so far has led to: called by C code or by the framework."""
        code = frame.f_code
        self._functions[id(code)] = []
        back = frame.f_back
        while back is not None and back.f_trace is not None:
            if any(c is code for c in back.f_code.co_consts):
                return  # made by a function that still runs: a comprehension, a lambda passed on
            back = back.f_back
        for f in gc.get_referrers(code):
            if isinstance(f, FunctionType) and f.__code__ is code:
                self._learn(f, f.__qualname__, True)

    def _on_attr(self, frame: FrameType, action: Any) -> None:
        base = self._value(action[1], frame)
        if base is UNKNOWN or base is ABSENT or base.__class__ is Symbol:
            return
        self._attribute(base, action[2], action[1], frame)

    def _attribute(self, base: Any, name: str, expr: Expr, frame: FrameType) -> None:
        if isinstance(base, _CONTAINERS) and hasattr(dict if isinstance(base, dict) else list, name):
            if name in _GROWING and isinstance(base, (list, set)):
                if id(base) in self._outside and id(base) not in self._before:
                    self._before[id(base)] = self._snapshot(base)
                    self._grown[id(base)] = self._name(base, expr)
            elif name != "get":
                self._read_content(base, self._name(base, expr), frame, False)
            return
        if isinstance(base, np.ndarray):
            self._read_array(base, self._name(base, expr), frame)
        kind, holder, value = find(base, name)
        if kind == "attr":
            self._note("attr", holder, name, value, f"{self._name(base, expr)}.{name}", frame)
        elif kind == "item":
            self._outside.add(id(holder))
            if not isinstance(value, types.ModuleType):
                self._note("item", holder, name, value, f"{render(expr)}.{name}", frame)
        elif kind == "method":
            function = getattr(value, "__func__", value)
            if is_own(function.__module__):
                self._note("method", holder, name, function, f"{holder.__name__}.{name}", frame)
            self._learn(function, f"{holder.__name__}.{name}", True)
        elif kind == "quiet" and (name == "__dict__" or isinstance(base, types.ModuleType)):
            outside = id(base) in self._outside or isinstance(base, types.ModuleType)
            if not isinstance(value, types.ModuleType):
                self._learn(value, f"{self._name(base, expr)}.{name}", outside)

    def _on_item(self, frame: FrameType, action: Any) -> None:
        base = self._value(action[1], frame)
        if isinstance(base, (dict, list, tuple, np.ndarray, collections.deque)):
            self._item_read(base, self._value(action[2], frame), action[1], frame)

    def _item_read(self, base: Any, key: Any, expr: Expr, frame: FrameType) -> None:
        name = self._name(base, expr)
        value = _item(base, key)
        if isinstance(base, np.ndarray) or value is UNKNOWN:
            self._read_content(base, name, frame, False)
        elif isinstance(base, tuple):
            self._learn(value, f"{name}[{key!r}]", id(base) in self._outside)
        elif id(base) in self._outside:
            self._note("item", base, key, value, f"{name}[{key!r}]" if is_plain(key) else f"{name}[...]", frame)
            if not is_plain(key):
                self._objects.setdefault(id(key), key)

    def _on_elements(self, frame: FrameType, action: Any) -> None:
        x = self._value(action[1], frame)
        if isinstance(x, (*_CONTAINERS, np.ndarray)):
            self._read_content(x, self._name(x, action[1]), frame, False)

    def _on_content(self, frame: FrameType, action: Any) -> None:
        x = self._value(action[1], frame)
        if isinstance(x, (*_CONTAINERS, np.ndarray)):
            self._read_content(x, self._name(x, action[1]), frame, True)

    def _on_in(self, frame: FrameType, action: Any) -> None:
        container = self._value(action[2], frame)
        key = self._value(action[1], frame)
        if isinstance(container, dict) and is_plain(key):
            if id(container) in self._outside:
                name = f"{key!r} in {self._name(container, action[2])}"
                self._note("has", container, key, dict.__contains__(container, key), name, frame)
        elif isinstance(container, (*_CONTAINERS, np.ndarray)):
            self._read_content(container, self._name(container, action[2]), frame, True)

    def _on_call(self, frame: FrameType, action: Any) -> None:
        callee, args = self._value(action[1], frame), action[2]
        if id(callee) in _QUIET_CALLS:
            return
        cls = callee.__class__
        function = callee.__func__ if cls is types.MethodType else callee
        if function.__class__ is FunctionType:
            self._learn(function, function.__qualname__, False)
            known = self._tracers.get(id(function.__code__))
            if known is None:
                known = follows(function.__code__, function.__globals__) != "never"
        else:
            known = False
        values = [self._value(x, frame) for x in args]
        if known is not False:
            for x, expr in zip(values, args):
                if isinstance(x, (FunctionType, types.MethodType, functools.partial)):
                    self._learn(x, self._name(x, expr), False)
            return
        if cls is types.BuiltinFunctionType and self._builtin(callee, values, args, frame):
            return
        if cls is functools.partial:
            self._read_content(callee, self._name(callee, action[1]), frame, True)
        if callee is _object_setattr and len(values) == 3 and isinstance(values[1], str):
            self._write_attr(values[0], values[1], args[0], frame)
            return
        self._impure(callee, frame)
        inside = type(callee).__module__.startswith("duograd.") or (getattr(callee, "__module__", None) or "").startswith(
            "duograd."
        )
        for x, expr in zip(values, args):
            # The framework reads settings from dicts itself (learning rates), at every call.
            if not (inside and isinstance(x, dict)):
                self._read_content(x, self._name(x, expr), frame, id(callee) not in _SHALLOW_CALLS)

    def _builtin(self, callee: Any, values: list[Any], args: Any, frame: FrameType) -> bool:
        """Built-in functions that read or write one thing by name. True when handled."""
        if not values or values[0] is UNKNOWN:
            return False
        x = values[0]
        if callee in (getattr, hasattr, setattr, delattr):
            if isinstance(values[1] if len(values) > 1 else None, str):
                if callee in (setattr, delattr):
                    self._write_attr(x, values[1], args[0], frame)
                else:
                    self._attribute(x, values[1], args[0], frame)
            return True
        if callee is vars:
            self._learn(instance_dict(x), f"vars({self._name(x, args[0])})", id(x) in self._outside)
            return True
        if callee is len:
            if isinstance(x, _MUTABLE) and id(x) in self._outside:
                self._note("length", x, None, len(x), f"len({self._name(x, args[0])})", frame)
            return True
        owner = callee.__self__
        if isinstance(owner, dict) and callee.__name__ == "get":
            self._item_read(owner, x, None, frame)
            return True
        return False

    def _impure(self, callee: Any, frame: FrameType) -> None:
        owner = getattr(callee, "__self__", None)
        module = getattr(callee, "__module__", None) or getattr(owner, "__module__", None)
        name = getattr(callee, "__name__", "")
        if isinstance(owner, _IMPURE_OWNERS) or (module in _IMPURE_MODULES and name != "sleep") or callee is input:
            text = f"{module or type(owner).__name__}.{name}() is not watched: the graph keeps the value it gave"
            place = "note", id(frame.f_code), frame.f_lineno
            self._objects.setdefault(id(frame.f_code), frame.f_code)
            self._entries.setdefault(place, ["note", id(frame.f_code), name, text, name, (frame.f_code, frame.f_lineno)])

    # -- writes -------------------------------------------------------------------------------------

    def _write(self, kind: str, owner: Any, key: Any, name: str) -> None:
        self._objects.setdefault(id(owner), owner)
        self._written.setdefault((kind, id(owner), key), (name, None))

    def _on_set_attr(self, frame: FrameType, action: Any) -> None:
        base = self._value(action[1], frame)
        if base is not UNKNOWN:
            self._write_attr(base, action[2], action[1], frame)

    def _write_attr(self, base: Any, key: str, expr: Expr, frame: FrameType) -> None:
        name = f"{self._name(base, expr)}.{key}"
        if isinstance(base, Tensor) and not (instance_dict(base) or hasattr(base, "__dict__")):
            return
        if isinstance(base, types.ModuleType):
            self._outside.add(id(base.__dict__))
            self._write("item", base.__dict__, key, name)
            return
        static = in_class(type(base), key)
        if static is ABSENT or type(static) is types.MemberDescriptorType or not hasattr(type(static), "__set__"):
            self._write("attr", base, key, name)

    def _on_set_item(self, frame: FrameType, action: Any) -> None:
        base, key = self._value(action[1], frame), self._value(action[2], frame)
        if not isinstance(base, (dict, list)) or id(base) not in self._outside:
            return
        name = self._name(base, action[1])
        if _item(base, key) is UNKNOWN:
            self._read_content(base, name, frame, False)
            return
        if id(base) not in self._before:
            self._before[id(base)] = self._snapshot(base)
        if not is_plain(key):
            self._objects.setdefault(id(key), key)
        self._write("item", base, key, f"{name}[{key!r}]" if is_plain(key) else f"{name}[...]")

    def _on_set_global(self, frame: FrameType, action: Any) -> None:
        self._outside.add(id(frame.f_globals))
        self._write("item", frame.f_globals, action[1], action[1])

    def _on_set_free(self, frame: FrameType, action: Any) -> None:
        for cell in self._cells(frame, action[1], frame.f_locals.get(action[1], UNKNOWN)):
            self._outside.add(id(cell))
            self._write("cell", cell, None, action[1])

    # -- the end --------------------------------------------------------------------------------------

    def _finish(self) -> None:
        """Drop what only the trace knew, and turn the tables into reads and effects."""
        self._functions.clear()
        self._results.clear()
        objects = self._objects
        for key in list(objects):
            # 2: the table and the argument of getrefcount. Nobody else can reach such an object at the next call.
            if sys.getrefcount(objects[key]) == 2:
                del objects[key]
        gone = object()

        def real(x: Any) -> Any:
            return objects.get(x, gone) if x.__class__ is _Ref else x

        for kind, oid, key, value, name, where in self._entries.values():
            if oid not in objects:
                continue
            owner = objects[oid]
            if kind == "content":
                if isinstance(owner, dict):
                    value = dict(zip(value[0], map(real, value[1])))
                else:
                    value = [*map(real, value)] if key is list else tuple(map(real, value))  # a set keeps its order
            self.reads.append(Read(kind, owner, key, real(value), name, where))
        for (kind, oid, key), (name, _) in self._written.items():
            if oid in objects and oid in self._outside:
                self.effects.append(Effect(kind, objects[oid], key, _now(kind, objects[oid], key), name))
        for oid, name in self._grown.items():
            if oid in objects and ("content", oid, None) not in self._entries:
                owner, before = objects[oid], list(map(real, self._before[oid]))
                if isinstance(owner, set):
                    new = [x for x in owner if not any(x is y for y in before)]
                else:
                    new = owner[len(before) :]
                if new:
                    self.effects.append(Effect("extend", owner, None, new, name))
        for read in self.reads:
            if read.kind == "content" and not _unchanged(read.owner, read.value):
                state = dict(read.owner) if isinstance(read.owner, dict) else type(read.owner)(read.owner)
                self.effects.append(Effect("content", read.owner, None, state, read.name))


def _now(kind: str, owner: Any, key: Any) -> Any:
    if kind == "cell":
        try:
            return owner.cell_contents
        except ValueError:
            return ABSENT
    value = find(owner, key)[2] if kind == "attr" else _item(owner, key)
    return ABSENT if value is UNKNOWN else value


def _unchanged(owner: Any, state: Any) -> bool:
    if len(owner) != len(state):
        return False
    if isinstance(owner, dict):
        return all(a is b for a, b in zip(owner, state)) and all(a is b for a, b in zip(owner.values(), state.values()))
    return all(a is b for a, b in zip(owner, state))


def _item(base: Any, key: Any) -> Any:
    """base[key] of plain containers; ABSENT for a missing key, UNKNOWN for anything else."""
    if key is UNKNOWN:
        return UNKNOWN
    try:
        if isinstance(base, dict):
            return dict.get(base, key, ABSENT)
        if isinstance(base, (list, tuple)) and isinstance(key, int):
            return base[key] if type(base).__getitem__ in (list.__getitem__, tuple.__getitem__) else UNKNOWN
    except (TypeError, IndexError):
        pass
    return UNKNOWN


def _both(first: Any, second: Any) -> Any:
    """A local tracer that calls ours and another's."""
    other = second

    def local(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal other
        first(frame, event, arg)
        if other is not None and event != "opcode":
            other = other(frame, event, arg)
        return local

    return local


def render(x: Expr) -> str:
    """An expression as source text."""
    if x is None:
        return "..."
    kind = x[0]
    if kind in ("local", "free", "global"):
        return str(x[1])
    if kind == "const":
        return repr(x[1])
    if kind == "attr":
        return f"{render(x[1])}.{x[2]}"
    if kind == "item":
        return f"{render(x[1])}[{render(x[2])}]"
    if kind == "result":
        return f"{render(x[2])}({', '.join(map(render, x[3]))})"
    return "..."
