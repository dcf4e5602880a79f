"""What is handed on to C code: callables that it calls out of sight, names that it looks up, state that it alone sees.

Of what it can find each attribute of these names is a read. Where it is not known what it can find, the function is
left to Python.
"""

from __future__ import annotations

import collections
import functools
import itertools
import operator
import string
import types
from collections.abc import Iterable, Sequence
from types import FrameType, FunctionType
from typing import Any

import numpy as np

from ..core.members import SETTERS
from .bytecode import FUNCTION, Expr
from .caches import ANY, is_cached, keeps
from .evaluate import evaluate
from .impure import impure, is_generator, unseen
from .live import Live
from .lookup import UNKNOWN, calls_on, find, in_class, instance_dict, is_own
from .plain import ABSENT, elements, is_plain
from .reads import CONTAINERS, behind, grows, is_iterator, walked
from .symbol import Symbol
from .writes import SiteWriter

_GETTERS = frozenset(map(id, (getattr, hasattr, object.__getattribute__)))
_SETTERS = frozenset(map(id, (
    setattr, delattr, object.__setattr__, object.__delattr__, type.__setattr__, type.__delattr__,
)))  # fmt: skip
_SETTING = ("__setattr__", "__delattr__")
_NAMED = (operator.attrgetter, operator.methodcaller)
_BUILTIN = (types.BuiltinFunctionType, types.MethodWrapperType)
#: what gives what it was given, and what that holds
_PASSING = frozenset(map(id, (
    zip, enumerate, list, tuple, set, frozenset, dict, iter, next, reversed, sorted, filter, max, min, itertools.chain,
    itertools.repeat, itertools.cycle, itertools.islice, itertools.zip_longest, itertools.product, itertools.pairwise,
    itertools.combinations, itertools.permutations, itertools.compress, itertools.takewhile, itertools.dropwhile,
    itertools.chain.from_iterable, collections.deque, collections.OrderedDict, functools.partial,
)))  # fmt: skip
_MAKERS = (functools.partial, types.MethodType, *_NAMED)
_FORMATS = ("format", "format_map")
#: methods that give what their object holds
_VIEWS = ("values", "items", "keys", "copy")
#: iterators whose elements are computed
_COMPUTING = (types.GeneratorType, map, itertools.starmap, itertools.accumulate, itertools.groupby)
#: modules whose functions call at once what they are given, with what they are given
_CALLING = frozenset((
    "builtins", "itertools", "functools", "_functools", "operator", "_operator", "heapq", "_heapq", "bisect", "_bisect",
    "collections", "_collections", "statistics", "_statistics", "json", "math", "copy",
))  # fmt: skip
#: how far down what was given is looked through, and how much of it
_DEPTH, _MANY = 4, 2000


def attribute_names(text: str) -> set[str]:
    """The attributes that a format string reads of what is put in."""
    found: set[str] = set()
    try:
        for _, field, spec, _ in string.Formatter().parse(text):
            if field:
                found |= {part.partition("[")[0] for part in field.split(".")[1:]}
            if spec:
                found |= attribute_names(spec)
    except ValueError:
        pass  # it is about to raise
    return found


def walk(x: Any, row: list[Any], depth: int = 0) -> bool:
    """Put x and what it holds in `row`. Returns whether that is all that C code can take out of it."""
    if len(row) > _MANY or x is UNKNOWN:
        return False
    row.append(x)
    x = behind(x)
    if isinstance(x, functools.partial):
        inner: Iterable[Any] = (x.func, *x.args, *x.keywords.values())
    elif isinstance(x, dict):
        inner = [*dict.keys(x), *dict.values(x)]
    elif isinstance(x, CONTAINERS):
        inner = list(elements(x))
    elif is_iterator(x):
        if isinstance(x, _COMPUTING):
            return False
        inner = walked(x)
    else:
        return not (isinstance(x, np.ndarray) and x.dtype.hasobject)
    if depth >= _DEPTH:
        return all(map(is_plain, inner))
    return not [v for v in inner if not walk(v, row, depth + 1)]  # all of them are walked


def plain_callable(x: Any, given: list[Any]) -> Any:
    """What a `partial`, or a method made of a C function, calls; its arguments are put in `given`."""
    while True:
        if isinstance(x, functools.partial):
            given += [*x.args, *x.keywords.values()]
            x = x.func
        elif isinstance(x, types.MethodType) and not isinstance(x.__func__, FunctionType):
            given.append(x.__self__)
            x = x.__func__
        else:
            return x


class HandedReader(SiteWriter):
    """Handles what C code is given to call."""

    def _hands_on(self, callee: Any, called: Expr, args: Sequence[Expr], frame: FrameType) -> None:
        """A call of code that is not followed."""
        own = self._partial(called, frame) if callee is UNKNOWN else callee
        looking = [own] if self._reads_itself(own) else []
        self._formats(own, called, args, frame)
        handed = [x for expr in args for x in self._callables(expr, frame)]
        for x in (callee, *handed):
            self.will_call(x, frame)
        for x in handed:
            self._meets_cache(getattr(x, "__func__", x), frame)
        looking = [x for x in (*looking, *handed) if self._looks(x)]
        if not looking or (own in _MAKERS if isinstance(own, type) else False):
            return
        owner = getattr(own, "__self__", None)
        if isinstance(owner, CONTAINERS) and own.__name__ != "sort":
            return  # which keeps it, and calls nothing
        given: list[Any] = []
        whole = self._reach(
            (*args, ("const", owner)) if isinstance(owner, CONTAINERS) else args, frame, given
        )
        if isinstance(own, functools.partial):
            walk(own, given)
        whole = whole and self._calls_at_once(own)
        for x in looking:
            self._handed_on(x, given, whole, frame)

    def will_call(self, x: Any, frame: FrameType) -> None:
        """Code that is not followed calls x, or a function of ours that was made of x: what it gets with the call."""
        rest, seen = [x], set()
        while rest:
            x = rest.pop()
            if id(x) in seen:
                continue
            seen.add(id(x))
            if isinstance(x, functools.partial):
                self._ledger.read_content(x.keywords, f"{self._ledger.name(x, None)}.keywords", frame, False)
                rest.append(x.func)
            elif isinstance(x, types.MethodType):  # `fn.graph`, a method in a graph function
                rest += [x.__func__, x.__self__]
            else:
                rest += calls_on(x)

    def _meets_cache(self, x: Any, frame: FrameType) -> None:
        """C code may call a function with a cache of its results: what it finds has to stay there."""
        if is_cached(x) and keeps(x) and id(x) in self._ledger.outside:
            self._ledger.note("cached", x, ANY, None, self._ledger.name(x, None), frame)
            self._ledger.handed_on[id(getattr(x.__wrapped__, "__code__", None))] = x

    def _reads_itself(self, callee: Any) -> bool:
        """Whether what is called is what looks attributes up."""
        inner = plain_callable(callee, [])
        return inner is not callee or isinstance(callee, _NAMED)

    def _formats(self, callee: Any, called: Expr, args: Sequence[Expr], frame: FrameType) -> None:
        """A text that is put together may name attributes of what is put in."""
        if callee is UNKNOWN:
            if called is None or called[0] != "attr" or called[2] not in _FORMATS:
                return
            text = None
        elif isinstance(callee, types.BuiltinFunctionType) and callee.__self__.__class__ is str:
            text = callee.__self__ if callee.__name__ in _FORMATS else ""
        else:
            known = (
                callee in (str.format, str.format_map)
                if isinstance(callee, types.MethodDescriptorType)
                else False
            )
            text = evaluate(args[0], frame, self._results) if known and args else ""
        names = attribute_names(text) if text.__class__ is str else None
        if names is None or names:
            given: list[Any] = []
            whole = self._reach(args, frame, given)
            if names:
                self._looked_up(given, names, whole, frame)
            elif not whole or not all(isinstance(v, CONTAINERS) or is_plain(v) for v in given):
                self.leave("puts objects into a text that is not known before")

    def _calls_at_once(self, callee: Any) -> bool:
        """Whether C code calls what it is given, with what it is given with it, or nothing."""
        if isinstance(callee, (functools.partial, *_NAMED)) or (
            isinstance(callee, type) and is_own(callee.__module__)
        ):
            return True
        module = getattr(callee, "__module__", None) or ("builtins" if isinstance(callee, _BUILTIN) else "")
        return module.partition(".")[0] in (*_CALLING, "duograd")

    def _partial(self, expr: Expr, frame: FrameType) -> Any:
        """A `partial`, a method, an `attrgetter` or `methodcaller` that was made in the middle of an expression."""
        if expr is None or expr[0] != "result":
            return UNKNOWN
        kind = evaluate(expr[2], frame, self._results)
        if kind not in _MAKERS if isinstance(kind, type) else True:
            return UNKNOWN
        values = [evaluate(x, frame, self._results) for x in expr[3]]
        values = [self._partial(x, frame) if v is UNKNOWN else v for v, x in zip(values, expr[3])]
        try:
            return kind(*values)
        except TypeError:
            if kind in _NAMED:
                self.leave("looks up names that cannot be seen")
            return UNKNOWN

    def _callables(self, expr: Expr, frame: FrameType) -> list[Any]:
        """What an argument gives C code to call."""
        if expr is not None and expr[0] == "made":
            return [x for part in expr[1] for x in self._callables(part, frame)]
        x = evaluate(expr, frame, self._results)
        if x is UNKNOWN:
            x = self._partial(expr, frame)
        return list(x) if x.__class__ in (list, tuple) and len(x) < 100 else [x]

    def _looks(self, x: Any) -> bool:
        """Whether it is a callable that reads what only C code sees."""
        x = plain_callable(x, [])
        if x is UNKNOWN or isinstance(x, (FunctionType, types.MethodType)):
            return impure(x) is not None or getattr(x, "__func__", x) in SETTERS
        return (
            isinstance(x, (*_BUILTIN, *_NAMED))
            or id(x) in _GETTERS
            or id(x) in _SETTERS
            or impure(x) is not None
        )  # fmt: skip

    def _reach(self, exprs: Sequence[Expr], frame: FrameType, row: list[Any]) -> bool:
        """Put in `row` what C code can find in these expressions' values. Returns whether that is all."""
        whole = True
        for x in exprs:
            while x is not None and x[0] in ("iter", "each"):
                x = x[1]
            if x is None:
                whole = False
            elif x == FUNCTION:
                continue  # its code is followed
            elif x[0] in ("made", "any"):
                whole &= self._reach(x[1], frame, row)
            else:
                value = evaluate(x, frame, self._results)
                if value is not UNKNOWN:
                    whole &= walk(value, row)
                elif x[0] != "result":
                    whole = False
                else:
                    whole &= self._gives(x, frame, row)
        return whole

    def _gives(self, expr: tuple[Any, ...], frame: FrameType, row: list[Any]) -> bool:
        """`_reach` for what a call gave."""
        called = expr[2]
        callee = evaluate(called, frame, self._results)
        if callee in _NAMED if isinstance(callee, type) else False:
            return True
        if callee is UNKNOWN and called is not None and called[0] == "attr":
            owners = self._reach((called[1],), frame, row)
            return self._reach(expr[3], frame, row) and owners and called[2] in _VIEWS
        if callee is not UNKNOWN and (getattr(callee, "__module__", None) or "").startswith("duograd."):
            return True  # tensors
        whole = self._reach(expr[3], frame, row)
        owner = behind(getattr(callee, "__self__", None))
        if isinstance(owner, CONTAINERS):
            return walk(owner, row) and whole
        return whole and id(callee) in _PASSING

    def _handed_on(self, x: Any, given: list[Any], whole: bool, frame: FrameType) -> None:
        """C code will call x. given: what it may call it with, and what that holds; whole: whether that is all."""
        given = list(given)
        x = plain_callable(x, given)
        whole = whole and not any(v is UNKNOWN for v in given)
        names: set[str] | None = None
        owner = behind(x.__self__) if isinstance(x, _BUILTIN) else None
        name = impure(x) or unseen(x) or self._sets(x)
        if name is not None:
            self.leave(f"hands {name}() on to code that calls it unseen")
        elif id(x) in _GETTERS or (
            isinstance(x, types.MethodWrapperType) and x.__name__ == "__getattribute__"
        ):
            names = {v for v in given if v.__class__ is str and v.isidentifier()}
            given = [*given, owner]
            whole = whole and bool(names)
        elif isinstance(x, _NAMED):
            if x.__class__ is operator.methodcaller:
                self._calls_by_name(self._of_method(x)[0], given)
            words = x.__reduce__()[1] if x.__class__ is operator.attrgetter else self._of_method(x)
            names = {name for path in words for name in path.split(".")}
        elif x is vars:
            for v in given:
                self._reads_space(v, frame)
            if not whole:
                self.leave("looks through objects that cannot be seen (vars)")
        elif owner.__class__ is str and x.__name__ in _FORMATS:
            names = attribute_names(owner)  # type: ignore[arg-type]
        elif isinstance(owner, types.MemberDescriptorType):
            names = {owner.__name__}
        elif isinstance(owner, CONTAINERS) and id(owner) in self._ledger.outside:
            if grows(owner, x.__name__) and not isinstance(owner, collections.deque):
                self._method_of(owner, x.__name__, None, frame)
            else:
                self._ledger.read_content(owner, self._ledger.name(owner, None), frame, False)
        if names is not None:
            self._looked_up(given, names, whole, frame)

    def _calls_by_name(self, name: str, given: list[Any]) -> None:
        """C code calls the method of this name of what it was given."""
        for x in given:
            if isinstance(x, (types.ModuleType, type)) or is_generator(x):
                said = impure(getattr(x, name, None)) or unseen(getattr(x, name, None))
                if said is not None:
                    self.leave(f"has C code call {said}()")

    def _sets(self, x: Any) -> str | None:
        """The name of what writes attributes of what it is called with; None for others."""
        if x.__class__ is operator.methodcaller:
            return next((name for name in self._of_method(x)[:1] if name in _SETTING), None)
        sets = id(x) in _SETTERS or (isinstance(x, types.MethodWrapperType) and x.__name__ in _SETTING)
        return str(x.__name__) if sets or getattr(x, "__func__", x) in SETTERS else None

    def _of_method(self, caller: Any) -> list[str]:
        """The method that a `methodcaller` calls; the attribute that this one finds."""
        made, args = caller.__reduce__()
        name, *rest = args if made is operator.methodcaller else made.args
        return [name, *(v for v in rest if name == "__getattribute__" and isinstance(v, str))]

    def _looked_up(self, given: list[Any], names: set[str], whole: bool, frame: FrameType) -> None:
        """C code reads attributes of these names, of what it was given and of what it finds there."""
        rest, seen = list(given), set()
        while rest and names:
            base = rest.pop()
            if (
                id(base) in seen
                or is_plain(base)
                or base.__class__ is Symbol
                or isinstance(base, (*_BUILTIN, *_NAMED))
            ):
                continue
            if type(base) is Live:
                whole = False
                break
            seen.add(id(base))
            for name in names:
                if instance_dict(base) is None and in_class(type(base), name) is ABSENT:
                    continue
                self._attribute(base, name, None, frame)
                value = find(base, name)[2]
                if value is not UNKNOWN and value is not ABSENT:
                    whole &= walk(value, rest)
                    if isinstance(behind(value), CONTAINERS):
                        self._ledger.read_content(value, self._ledger.name(value, None), frame, True)
            if len(seen) > _MANY:
                whole = False
                break
        if not whole:
            what = ", ".join(sorted(names)) or "names that cannot be seen"
            self.leave(f"looks up {what} in objects that cannot be seen")

    def _reads_space(self, x: Any, frame: FrameType) -> None:
        """Everything in an object's `__dict__` may be read."""
        space = None if is_plain(x) or x.__class__ is Symbol or isinstance(x, type) else instance_dict(x)
        if isinstance(space, dict):
            self._space_of(x, None)
            self._ledger.read_content(space, self._ledger.name(space, None), frame, True)

    def _space_of(self, x: Any, expr: Expr) -> None:
        """The `__dict__` of an object is asked for."""
        space = behind(instance_dict(x))
        self._ledger.keep_dict(space, x)
        self._ledger.learn(space, f"{self._ledger.name(x, expr)}.__dict__", id(x) in self._ledger.outside)

    def leave(self, why: str) -> None:
        """What the function is about to do cannot be watched: its Python runs at every call."""
        fix = "write it as Python code that can be watched, or read it outside"
        self._ledger.leave(why, fix)
