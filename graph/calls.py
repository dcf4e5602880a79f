"""What is done at the calls of the bytecode: what they are given, what C code may read or change by them."""

from __future__ import annotations

import collections
import functools
import io
import itertools
import operator
import types
import weakref
from types import FrameType, FunctionType
from typing import Any

from ..core import dispatch
from ..core.members import SETTERS, Members
from .asking import COMPARERS, COMPARING, ask
from .bytecode import FUNCTION
from .caches import ANY, is_alone, is_cached, keeps
from .evaluate import Results, evaluate, item_name, render
from .functions import STAND_INS
from .handed import HandedReader
from .impure import begins_anywhere, has_hidden_state, impure, is_generator, unseen
from .ledger import Ledger
from .live import KINDS, Live, RestartError, is_live
from .lookup import UNKNOWN, in_class, is_changing, is_own, names_of
from .plain import ABSENT, is_plain
from .possible import is_followed
from .reads import CONTAINERS, MUTABLE, behind, grows, is_iterator
from .sites import SLOTTED
from .symbol import Symbol
from .told import Told

#: modules of C code that asks numbers for what they are, and lets go of them
_ASKING = frozenset((
    "builtins", "math", "cmath", "operator", "_operator", "itertools", "functools", "_functools", "collections",
    "_collections",
))  # fmt: skip
_QUIET_CALLS = frozenset(map(id, (isinstance, issubclass, type, id, callable, super, range)))
_BY_NAME = ("__setattr__", "__delattr__", "__getattribute__")
_CACHED_GET = functools.cached_property.__get__.__code__
# Functions that begin a debugger.
_DEBUGGERS = frozenset(("breakpoint", "set_trace"))
# Callables that look at the elements of a container, but not into them.
_SHALLOW_CALLS = frozenset(map(id, (
    zip, enumerate, map, filter, iter, next, reversed, list, tuple, set, frozenset, dict, any, all, itertools.chain,
    itertools.zip_longest, itertools.islice, itertools.repeat, itertools.cycle, collections.OrderedDict,
)))  # fmt: skip


def _asks_kind(callee: Any) -> bool:
    """Whether it is what classes answer `isinstance` with, past a method of the metaclass's own."""
    name = getattr(callee, "__name__", None)
    return name in ("__instancecheck__", "__subclasscheck__") and isinstance(
        callee, types.BuiltinFunctionType
    )


def _takes_live(callee: Any, function: Any, values: list[Any]) -> bool:
    """Whether code that is not followed may have these values: none of them is live, or it asks live numbers and does
    not keep them."""
    if not any(map(is_live, values)) or id(callee) in STAND_INS or callee is object.__setattr__:
        return True
    module = getattr(function, "__module__", None) or ""
    if type(callee).__module__.startswith("duograd.") or module.startswith("duograd."):
        return True
    if isinstance(callee, type):
        return (module in _ASKING or is_own(module)) and callee is not operator.methodcaller
    owner = getattr(callee, "__self__", None)
    if isinstance(callee, types.BuiltinFunctionType) and isinstance(owner, (types.ModuleType, type(None))):
        return module in _ASKING
    if isinstance(callee, functools.partial) or isinstance(in_class(type(callee), "__call__"), FunctionType):
        return True  # what it calls is looked at by itself
    return isinstance(owner, (*CONTAINERS, str, *KINDS))


def _is_key(function: Any, values: list[Any]) -> bool:
    """Whether a function with a cache would look for a live number itself, or one that may be live: for it, as for no
    int, the cache has a key of another kind."""
    if not is_cached(function) or len(values) != 1:
        return False
    return values[0] is UNKNOWN or (type(values[0]) is Live and is_alone(values))


class CallReader(HandedReader):
    """Handles calls as well."""

    def __init__(self, ledger: Ledger, results: Results, tracers: dict[int, Any], live: bool = False):
        super().__init__(ledger, results, tracers, live)
        self.actions["call"], self.actions["starred"] = self._on_call, self._on_starred
        self.actions["given"], self.actions["enter"] = self._on_given, self._on_enter
        self.told = Told(self._meets)

    def _on_attr(self, frame: FrameType, action: Any) -> None:
        expr, name = action[1], action[2]
        made = expr is not None and expr[0] == "result"
        cls = evaluate(expr[2], frame, self._results) if made else UNKNOWN
        if isinstance(cls, type) and is_changing(
            cls.__module__
        ):  # an attribute of an object that is just made
            static = in_class(cls, name)
            if static is not ABSENT and ("attr", id(cls), name) not in self._ledger.written:
                self._ledger.outside.add(id(cls))
                self._ledger.note("static", cls, name, static, f"{cls.__name__}.{name}", frame)
                if isinstance(static, FunctionType):
                    self._ledger.learn(static, static.__qualname__, True)
        if not self._is_made(expr, frame):
            super()._on_attr(frame, action)

    def _on_starred(self, frame: FrameType, action: Any) -> None:
        """`f(*row)`, `f(**row)`: a call with the elements of a row that is there."""
        _, callee, taken, named = action
        row = evaluate(taken, frame, self._results)
        args: list[Any] = [("each", taken)]
        if type(row) in (tuple, list):
            args = [("item", taken, ("const", k), -1) for k in range(len(row))]
        self._on_call(frame, ("call", callee, args + named, len(named)))

    def _method_of_made(self, expr: Any, frame: FrameType) -> bool:
        """Whether an attribute of an object that is just made is a method in Python."""
        cls = evaluate(expr[1][2], frame, self._results)
        static = in_class(cls, expr[2])
        return isinstance(static, FunctionType) and is_followed(static)

    def _on_given(self, frame: FrameType, action: Any) -> None:
        """A row that a call takes its arguments from."""
        self._look_into(action[2], frame, not is_followed(evaluate(action[1], frame, self._results)))

    def _on_enter(self, frame: FrameType, action: Any) -> None:
        """A `with` is about to begin. Python tells of no call of `__enter__`, and a lock that was taken without a word
        would stay taken where the trace ends at its `__exit__`."""
        for x in map(behind, self._possible(action[1], frame)):
            enter = in_class(type(x), "__enter__")
            if hasattr(enter, "__get__"):
                self._meets(enter.__get__(x, type(x)), frame)

    def _on_call(self, frame: FrameType, action: Any) -> None:
        callee, args = evaluate(action[1], frame, self._results), action[2]
        if callee is UNKNOWN:
            self.told.expect(frame)
        if id(callee) in _QUIET_CALLS or _asks_kind(callee):
            if self.live and args and not self._says_the_same(callee, args, frame):
                self._ledger.restart()
            if callee in (type, isinstance, issubclass) and args:
                classes = evaluate(args[1], frame, self._results) if len(args) > 1 else None
                for x in self._possible(args[0], frame):
                    self.running.class_of(x, frame)
                    self.running.is_kind(x, classes, frame)
            if callee is id:
                self._ledger.compared |= {id(evaluate(x, frame, self._results)) for x in args}
                ask(self._ledger)
            return
        if getattr(callee, "__name__", "") in _DEBUGGERS:
            self._give_way(frame)
            return
        cls = callee.__class__
        if cls is type and is_changing(callee.__module__) and in_class(callee, "__del__") is not ABSENT:
            self.leave(f"makes an object of {callee.__name__}, whose __del__ runs when nobody holds it")
        function = callee.__func__ if cls is types.MethodType else callee
        known: Any = False
        self.cached.pop(id(frame), None)
        if is_cached(function) and keeps(function):
            if cls is types.MethodType or id(callee) in self._ledger.outside:
                self.cached[id(frame)] = function
                self._finds(callee, function, action, frame)
        elif function.__class__ is FunctionType:
            self._ledger.learn(function, function.__qualname__, False)
            self._ledger.direct = id(frame), id(function.__code__)
            known = self._tracers.get(id(function.__code__))
            if not known:
                known = is_followed(function)
        elif known is False and is_followed(callee):
            known = True  # a class whose `__init__` alone gets what the call is given
        values = [evaluate(x, frame, self._results) for x in args]
        if function in SETTERS and self._member_set(callee, function, values, args, frame):
            return
        if any(id(v) in COMPARERS for v in (callee, *values)):
            ask(self._ledger)
        if self.live:
            taken = known is not False or _takes_live(callee, function, values)
            if not taken or any(v is type for v in values) or _is_key(function, values):
                raise RestartError
        if known is not False:
            for x, expr in zip(values, args):
                if isinstance(x, (FunctionType, types.MethodType, functools.partial)):
                    self._ledger.learn(x, self._ledger.name(x, expr), False)
            return
        if cls in (types.BuiltinFunctionType, types.MethodWrapperType):
            if self._builtin(callee, values, args, frame):
                return
            owner, method = behind(callee.__self__), callee.__name__
            if method == "cache_clear" and is_cached(owner):
                self._ledger.odd = "clears a cache of results", "clear it outside"
            if isinstance(owner, types.SimpleNamespace):
                self._ledger.read_content(owner, self._ledger.name(owner, None), frame, True)
            if isinstance(owner, CONTAINERS):
                if method in COMPARING and not all(map(is_plain, values)):
                    ask(self._ledger, values, self._within([owner]))
                if not (grows(owner, method) and id(owner) in self._ledger.changed):
                    self._method_of(owner, method, None, frame)
                if method in ("get", "__getitem__", "__contains__"):  # of what is not known
                    self._ledger.read_content(owner, self._ledger.name(owner, None), frame, False)
                if isinstance(owner, set) and method == "add":
                    self._ledger.add(owner, values[0] if len(values) == 1 else UNKNOWN)
                if isinstance(owner, collections.deque) and method == "append":
                    self._ledger.append(owner)
            elif is_iterator(owner):
                self._ledger.read_content(owner, self._ledger.name(owner, None), frame, False)
        if callee is bool and len(values) == 1 and isinstance(behind(values[0]), MUTABLE):
            self._size("truth", behind(values[0]), args[0], frame)
            return
        if cls is functools.partial:
            inner = callee.func
            if isinstance(inner, types.BuiltinFunctionType) and isinstance(inner.__self__, CONTAINERS):
                self._method_of(inner.__self__, inner.__name__, None, frame)
            self._ledger.read_content(callee, self._ledger.name(callee, action[1]), frame, True)
        elif cls is types.WrapperDescriptorType and callee.__name__ in _BY_NAME and values[1:2] == [UNKNOWN]:
            self._unknown_name(callee.__name__, [values[0]])
        elif (
            cls is types.WrapperDescriptorType
            and values
            and isinstance(values[-1 if len(values) == 2 else 1], str)
        ):
            if callee.__name__ in ("__setattr__", "__delattr__") and values[0] is not UNKNOWN:
                self._write_attr(values[0], values[1], args[0], frame, callee.__name__ == "__delattr__")
                return
            if callee is object.__getattribute__ and values[0] is not UNKNOWN:
                self._attribute(values[0], values[1], args[0], frame, True)
                return
        elif isinstance(callee, weakref.ref):
            self._ledger.learn(callee(), render(action[1]), id(callee) in self._ledger.outside, True)
            return
        self._impure(callee, values, frame)
        inside = callee is not UNKNOWN and type(callee).__module__.startswith("duograd.")
        if cls is FunctionType or cls is types.MethodType:
            inside = function.__module__.startswith("duograd.")
        if getattr(callee, "__name__", "") in ("__reduce_ex__", "__reduce__"):  # what `copy` copies
            owner = values[0] if cls in SLOTTED and values else getattr(callee, "__self__", None)
            for name in names_of(owner):
                self._attribute(owner, name, None, frame)
        deep = id(callee) not in _SHALLOW_CALLS
        if callee in (map, filter) if isinstance(callee, type) else False:
            deep = not isinstance(values[0] if values else None, (FunctionType, types.MethodType, type))
        elif callee is dict or callee is collections.OrderedDict:
            deep = not isinstance(values[0] if values else None, dict)  # of pairs
        if callee is UNKNOWN and action[1] is not None and action[1][0] == "attr":
            if action[1][2] in COMPARING and not all(map(is_plain, values)):
                ask(self._ledger)
            made = self._is_made(action[1][1], frame) and self._method_of_made(action[1], frame)
            for x in () if made else map(behind, self._possible(action[1][1], frame)):
                if isinstance(x, CONTAINERS):
                    self._ledger.read_content(x, self._ledger.name(x, None), frame, False)
                elif is_generator(x):  # Python tells of no call of NumPy's up to 3.11
                    self._impure(getattr(x, action[1][2], None), [], frame)
        look = self._whole if deep else self._possible
        for x, expr in zip(values, args):
            pairs = self._in_pairs(expr, frame) if x is UNKNOWN and not deep else None
            if pairs is not None:
                x, expr = evaluate(pairs[0], frame, self._results), pairs[0]
            for v in (x,) if x is not UNKNOWN else () if action[1] == FUNCTION else look(expr, frame):
                # The framework reads settings from dicts itself (learning rates), at every call.
                if not (inside and isinstance(v, dict)):
                    self._ledger.read_content(v, self._ledger.name(v, expr), frame, deep)
        self._hands_on(callee, action[1], args, frame)

    def _member_set(self, callee: Any, function: Any, values: list[Any], args: Any, frame: FrameType) -> bool:
        """A module's own way to set or delete an attribute is called. True when handled."""
        if callee is not function:
            values, args = [callee.__self__, *values], [None, *args]
        known = len(values) == (2 if function is Members.__delattr__ else 3) and isinstance(values[1], str)
        if known and values[0] is not UNKNOWN:
            self._write_attr(values[0], values[1], args[0], frame, function is Members.__delattr__)
            return True
        return False

    def stumbles(self, frame: FrameType, error: tuple[Any, Any, Any], todo: Any) -> bool:
        """Whether code that is not followed has raised an error at a call, perhaps for a live number that it got."""
        if not issubclass(error[0], TypeError):
            return False
        inner = error[2].tb_next
        if inner is not None and inner.tb_frame.f_trace_opcodes:
            return False  # it came from code that is followed
        for action in todo or ():
            if action[0] == "call":
                values = [evaluate(x, frame, self._results) for x in action[2]]
                return any(v is UNKNOWN or is_live(v) for v in values)
            if action[0] == "content":
                return True  # a call with what stands in a container
        return False

    def _says_the_same(self, callee: Any, args: Any, frame: FrameType) -> bool:
        """Whether what is asked about a class has the same answer for a live number as for the number."""
        x = evaluate(args[0], frame, self._results)
        if callee is type and len(args) == 1:
            return x is not UNKNOWN and type(x) is not Live
        if callee is isinstance and type(x) is Live and len(args) == 2:
            written = args[1][1] if args[1] is not None and args[1][0] == "made" else (args[1],)
            row = tuple([evaluate(e, frame, self._results) for e in written])
            return all(c is not UNKNOWN for c in row) and isinstance(x, row) is isinstance(x._live_value, row)
        return True

    def _give_way(self, frame: FrameType) -> None:
        """A debugger begins: frames that run give it lines, as it expects, and this trace no more instructions."""
        self._ledger.gave_way = True
        back: FrameType | None = frame
        while back is not None:
            if back.f_trace is not None:
                back.f_trace_opcodes, back.f_trace_lines = False, True
            back = back.f_back

    def _finds(self, callee: Any, cached: Any, action: Any, frame: FrameType) -> None:
        """A function with a cache of its results is about to be called: what it finds has to stay there."""
        args = [evaluate(x, frame, self._results) for x in action[2]]
        if any(isinstance(x, Symbol) for x in args):
            return
        if callee is not cached:
            args.insert(0, callee.__self__)
        known = not action[3] and all(x is not UNKNOWN for x in args)
        name = self._ledger.name(cached, action[1])
        if known:
            self._ledger.looked_up.append((cached, tuple(args)))
        self._ledger.note("cached", cached, tuple(args) if known else ANY, None, name, frame)

    def _builtin(self, callee: Any, values: list[Any], args: Any, frame: FrameType) -> bool:
        """Built-in functions that read or write one thing by name. True when handled."""
        if callee is globals:
            self._ledger.outside.add(id(frame.f_globals))
            return True
        if not values:
            return False
        x = values[0]
        if callee in (getattr, hasattr, setattr, delattr) and len(values) > 1:
            return self._by_name(callee, x, args, values[1], frame)
        if x is UNKNOWN:
            if isinstance(callee, types.MethodWrapperType) and callee.__name__ in _BY_NAME:
                self._unknown_name(callee.__name__, [callee.__self__])
            for y in self._possible(args[0], frame) if callee is vars else ():
                self._space_of(y, args[0])
            return False
        if callee is vars:
            self._space_of(x, args[0])
            return True
        if callee is len:
            self._size("length", behind(x), args[0], frame)
            return True
        owner, name = behind(callee.__self__), callee.__name__
        if name == "__get__" and isinstance(owner, types.MemberDescriptorType):
            self._attribute(x, owner.__name__, args[0], frame)
            return True
        if isinstance(owner, dict) and name in ("get", "__getitem__"):
            value = dict.get(owner, x, ABSENT)
            if id(owner) in self._ledger.outside:
                self._ledger.note(
                    "item", owner, x, value, item_name(self._ledger.name(owner, None), x), frame
                )
            return True
        if isinstance(owner, (list, tuple)) and name == "__getitem__":
            self._item_read(owner, x, None, frame)
            return True
        if (
            isinstance(callee, types.MethodWrapperType)
            and name in ("__setattr__", "__delattr__", "__getattribute__")
            and isinstance(x, str)
        ):
            if name == "__getattribute__":
                self._attribute(owner, x, None, frame, True)
            else:
                self._write_attr(owner, x, None, frame, name == "__delattr__")
            return True
        if (
            isinstance(callee, types.MethodWrapperType)
            and name in ("__setitem__", "__delitem__")
            and isinstance(owner, (dict, list))
        ):
            self._write_item(owner, x, None, frame, name == "__delitem__")
            return True
        return False

    def _by_name(self, callee: Any, x: Any, args: Any, name: Any, frame: FrameType) -> bool:
        """An attribute of x is read or written by a name that an expression gives. True where x is known."""
        names = [name]
        if name is UNKNOWN:
            ways = args[1][1] if args[1] is not None and args[1][0] == "any" else ()
            names = [evaluate(way, frame, self._results) for way in ways]
            if not names or UNKNOWN in names:
                objects = self._possible(args[0], frame) if x is UNKNOWN else [x]
                self._unknown_name(callee.__name__, objects)
                return x is not UNKNOWN
        for key in names:
            if not isinstance(key, str):
                continue
            if type(x) is Live and x._live_differs(key):
                self._ledger.restart()
            if callee not in (setattr, delattr):
                self._on_attr(frame, ("attr", args[0], key)) if x is UNKNOWN else self._attribute(
                    x, key, args[0], frame
                )
            elif x is UNKNOWN or len(names) > 1:
                self._perhaps_writes(args[0], key, frame, callee is delattr)
            else:
                self._write_attr(x, key, args[0], frame, callee is delattr)
        return x is not UNKNOWN

    def _unknown_name(self, called: str, objects: list[Any]) -> None:
        """An attribute of one of these objects is read or written, and its name cannot be seen."""
        for x in objects:
            if id(x) in self._ledger.outside or isinstance(x, types.ModuleType):
                self.leave(f"calls {called}() with a name that cannot be seen before")
                return

    def _meets(self, callee: Any, frame: FrameType) -> None:
        """What was not known before is about to be called."""
        owner = getattr(callee, "__self__", None)
        if id(owner) not in self._ledger.outside and has_hidden_state(owner):
            made = getattr(dispatch.state.executor, "made", None)
            if made is None or not made(owner):
                self._ledger.learn(owner, type(owner).__name__, True)
        self._impure(callee, [], frame)

    def _impure(self, callee: Any, values: list[Any], frame: FrameType) -> None:
        name = impure(callee) or begins_anywhere(callee, [None if x is UNKNOWN else x for x in values])
        if name is not None:
            of_ours = (
                "; for random numbers use dg.rand, dg.randn, ..." if "andom" in name.split(".")[0] else ""
            )
            self._ledger.leave(
                f"calls {name}(), whose value would stand still in the graph",
                "call it outside and pass its result as a tensor or an argument" + of_ours,
            )
            return
        if (
            isinstance(callee, types.MethodDescriptorType)
            and values
            and type(values[0]) is callee.__objclass__
        ):
            callee = callee.__get__(values[0], callee.__objclass__)
        outside = self._ledger.outside  # a method that was there before has an object that was
        name = unseen(callee, id(getattr(callee, "__self__", None)) in outside or id(callee) in outside)
        if name is not None and frame.f_code is not _CACHED_GET:  # which locks itself up to Python 3.11
            self.leave(f"calls {name}(), which looks at what cannot be watched")
        files = [x for x in values if isinstance(x, io.IOBase) and id(x) in self._ledger.outside]
        if files:
            self.leave(f"gives {type(files[0]).__name__}, an open file, to code that cannot be watched")
