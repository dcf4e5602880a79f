"""What decides which code runs: classes of objects, methods that Python calls by itself, the code of functions, names
that stand for what is built in."""

from __future__ import annotations

import abc
import functools
import inspect
import sys
import types
from types import CodeType, FrameType, FunctionType
from typing import Any

from ..core.value import Tensor
from .ledger import Ledger
from .live import Live
from .lookup import UNKNOWN, holder_of, in_class, instance_dict, is_changing, is_own, setter_of
from .plain import ABSENT, is_plain
from .reads import own_at
from .symbol import Symbol

# Names of functions, classes and modules that say what they are called, not what they do.
DUNDER = frozenset(
    ("__doc__", "__name__", "__qualname__", "__module__", "__annotations__", "__file__", "__spec__")
)
#: kinds of reads that say what runs, and not with which values
KINDS = frozenset(("code", "class", "bases", "unset", "named", "widths", "setter"))
#: what Python sets for classes that are made by a `class` statement
_HEAP = 1 << 9
#: methods of the framework's own classes that users replace
_OF_LAYERS = ("__call__", "forward")
#: methods of what a class holds that Python calls for an attribute of its objects
_OF_DESCRIPTORS = ("__get__", "__set__", "__delete__")


def code_in(static: Any) -> list[FunctionType]:
    """The Python functions that something a class holds may run when it is looked up or called."""
    inside: tuple[Any, ...] = (static,)
    if isinstance(static, property):
        inside = static.fget, static.fset, static.fdel
    elif isinstance(static, (classmethod, staticmethod)):
        inside = (static.__func__,)
    elif isinstance(static, functools.cached_property):
        inside = (static.func,)
    return [f for f in inside if isinstance(f, FunctionType)]


def _first(frame: FrameType) -> Any:
    """The first argument of a function that begins."""
    code = frame.f_code
    if code.co_argcount:
        return frame.f_locals.get(code.co_varnames[0])
    rest = frame.f_locals.get(code.co_varnames[code.co_kwonlyargcount])
    return rest[0] if rest.__class__ is tuple and rest else None


class Running:
    """Notes, in a ledger, what has to stay so that the same code runs again."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        #: whether a class holds a function with a code, by the id of this
        self._held_by: dict[tuple[int, type], bool] = {}
        #: by id of a code, how many of its functions are noted
        self._noted: dict[int, int] = {}

    def begins(self, frame: FrameType) -> None:
        """A function that is followed begins."""
        code = frame.f_code
        if code.co_argcount or code.co_flags & inspect.CO_VARARGS:
            first = _first(frame)
            if first.__class__ is Symbol:
                if (id(code), Tensor) not in self._held_by:
                    self._held_by[id(code), Tensor] = self._holds(Tensor, code, first, frame)
            elif first is not None:
                self._method(first, code, frame)
                if code.co_name in _OF_DESCRIPTORS and is_changing(type(first).__module__):
                    self._descriptor(first, code, frame)
        known = self._ledger.functions.get(id(code), ())
        at = self._noted.get(id(code), 0)
        if at < len(known):
            self._noted[id(code)] = len(known)
            for f in known[at:]:
                if id(f) in self._ledger.outside and is_changing(f.__globals__.get("__name__")):
                    self._ledger.note("code", f, None, code, f"code of {f.__qualname__}", frame)

    def _method(self, first: Any, code: CodeType, frame: FrameType) -> None:
        """Perhaps a method begins that Python calls by itself (`__eq__`, a property): that the class holds this one."""
        for cls in (first, type(first)) if isinstance(first, type) else (type(first),):
            found = self._held_by.get((id(code), cls))
            if found is None:
                found = self._held_by[id(code), cls] = self._holds(cls, code, first, frame)
            if found and cls is not first:
                self.class_of(first, frame)

    def _descriptor(self, first: Any, code: CodeType, frame: FrameType) -> None:
        """Perhaps something that a class holds gives, sets or deletes an attribute: what it keeps itself is state."""
        for x in (frame.f_locals.get(n) for n in code.co_varnames[1 : code.co_argcount]):
            for base in (*(x.__mro__ if isinstance(x, type) else ()), *type(x).__mro__):
                name = next((n for n, static in base.__dict__.items() if static is first), None)
                if name is not None:
                    self._ledger.learn(first, f"{base.__name__}.{name}", True)
                    return

    def _holds(self, cls: type, code: CodeType, first: Any, frame: FrameType) -> bool:
        """Whether a class holds a function with this code, which is noted."""
        name, static, f = self._held(cls, code) or ("", None, None)
        if f is None:
            return False
        if f.__defaults__ or f.__kwdefaults__:
            outside = not self._ledger.outside.isdisjoint((id(first), id(cls)))
            self._ledger.learn(f, f.__qualname__, outside)
        base = holder_of(cls, name)
        assert base is not None
        if base.__dict__[name] is not static:
            return True  # called by `super()`, or by its class
        if not is_changing(base.__module__) and not is_changing(f.__globals__.get("__name__")):
            if name not in _OF_LAYERS or not base.__module__.startswith("duograd."):
                return True
            cls = base
        if ("method", id(cls), name) not in self._ledger.entries:
            kind = "method" if f is static and type(cls) is type and name.isidentifier() else "static"
            self._ledger.note(kind, cls, name, static, f"{cls.__name__}.{name}", frame)
        return True

    def _held(self, cls: type, code: CodeType) -> tuple[str, Any, FunctionType] | None:
        """The name under which a class, or one of its bases, holds a function with this code."""
        for space in map(vars, cls.__mro__):
            for name, static in space.items():
                for f in code_in(static):
                    if f.__code__ is code:
                        return name, static, f
        return None

    def class_of(self, x: Any, frame: FrameType) -> None:
        """What is done depends on the class of an object."""
        cls = type(x)
        if is_own(cls.__module__) and not isinstance(x, type):
            self._ledger.learn(cls, cls.__name__, True)  # what it holds is state
        if (
            id(x) in self._ledger.outside
            and id(x) not in self._ledger.hooks  # `plain.hooks_of` is guarded, and keeps none of them alive
            and cls.__flags__ & _HEAP
            and not isinstance(x, (type, types.ModuleType))
        ):
            self._ledger.note(
                "class", x, None, cls, f"class of {self._ledger.names.get(id(x), '...')}", frame
            )

    def named(self, space: dict[str, Any], name: str, value: Any, frame: FrameType) -> None:
        """A function of others, or their data, is found under its name in a module."""
        if is_changing(frame.f_globals.get("__name__")) and (space is not sys.__dict__ or is_plain(value)):
            self._ledger.outside.add(id(space))
            self._ledger.note("named", space, name, value, f"{space.get('__name__')}.{name}", frame)

    def is_behind(self, x: Any, name: str, value: Any, frame: FrameType) -> bool:
        """Whether a name is found in a class where the function has written it, or a live number is: no guard on the
        value says then that nothing stands before."""
        if name in (instance_dict(x) or ()):
            return False
        row = x.__mro__ if isinstance(x, type) else type(x).__mro__
        holder = holder_of(row[0], name)
        if holder is None or holder is x:
            return False
        if type(value) is not Live and ("attr", id(holder), name) not in self._ledger.written:
            return False
        if row[0] is not holder and is_changing(row[0].__module__):
            called = f"what holds {row[0].__name__}.{name}"
            self._ledger.note("holder", row[0], name, holder, called, frame)
        return True

    def class_behind(self, base: Any, name: str, value: Any) -> Any:
        """The class of an object that the call made, where it is the class that has an attribute, or has none; else the
        object."""
        cls = type(base)
        if id(base) in self._ledger.outside or isinstance(base, type) or not is_changing(cls.__module__):
            return base
        if name in (instance_dict(base) or ()) or in_class(cls, name) is not value:
            return base
        self._ledger.outside.add(id(cls))
        return cls

    def not_in_module(self, module: types.ModuleType, name: str, frame: FrameType) -> None:
        """A module has no such name, so that its `__getattr__` is asked."""
        space = module.__dict__
        if is_changing(module.__name__) and name not in space:
            self._ledger.outside.add(id(space))
            for key in (name, "__getattr__"):
                value = space.get(key, ABSENT)
                self._ledger.note("item", space, key, value, f"{module.__name__}.{key}", frame)

    def there(self, space: Any, key: str, name: str, frame: FrameType) -> None:
        """A name is about to be deleted: an error where it is not there."""
        if isinstance(space, dict):
            self._ledger.note("has", space, key, key in space, name, frame)

    def deletes(self, x: Any, key: str, name: str, frame: FrameType) -> None:
        """An attribute is about to be deleted."""
        space = instance_dict(x)
        if isinstance(space, dict) and not isinstance(in_class(type(x), key), types.MemberDescriptorType):
            self.there(space, key, name, frame)
        else:
            self._ledger.note("owns", x, key, own_at("attr", x, key) is not ABSENT, name, frame)

    def stands_before(self, x: Any, key: str, static: Any, frame: FrameType) -> None:
        """An attribute of an object is about to be written. Where its class holds something under that name, too, a
        property may come to stand there, which would be asked instead."""
        holder = holder_of(type(x), key)
        if holder is None or not is_changing(holder.__module__):
            return
        if ("attr", id(holder), key) not in self._ledger.written:
            called = f"what {holder.__name__} holds as {key}"
            held = static if is_plain(static) else UNKNOWN
            self._ledger.note("setter", holder, key, (type(static), setter_of(static), held), called, frame)

    def of_module(self, space: Any, name: str, value: Any, called: str, frame: FrameType) -> None:
        """A name of a module of the user's is read."""
        self._ledger.outside.add(id(space))
        if isinstance(value, types.ModuleType):
            self.named(space, name, value, frame)
        else:
            self._ledger.note("item", space, name, value, called, frame)

    def imports(self, expr: Any, module: Any, frame: FrameType) -> None:
        """A module is imported that has been imported before."""
        _, name, level, leaf = expr
        name = getattr(module, "__name__", "") if level else name if leaf else name.partition(".")[0]
        if sys.modules.get(name) is module and is_changing(frame.f_globals.get("__name__")):
            self._ledger.outside.add(id(sys.modules))
            self._ledger.note("named", sys.modules, name, module, f"sys.modules[{name!r}]", frame)

    def is_kind(self, x: Any, cls: Any, frame: FrameType) -> None:
        """Whether something is of an abstract class is asked, where others may be registered."""
        for c in cls if isinstance(cls, tuple) else (cls,):
            if isinstance(c, abc.ABCMeta) and is_changing(c.__module__):
                kind = x if isinstance(x, type) else type(x)
                words = f"{kind.__name__} is a {c.__name__}"
                self._ledger.note("kind", c, kind, issubclass(kind, c), words, frame)

    def above(self, x: Any, name: str, frame: FrameType) -> None:
        """`super()` looks for a name, in the order of the bases of a class: those that come first have none."""
        cls = x.__self_class__
        if is_changing(cls.__module__):
            self._ledger.note("bases", cls, None, cls.__mro__, f"bases of {cls.__name__}", frame)
        row = cls.__mro__
        for base in row[row.index(x.__thisclass__) + 1 :]:
            if name in base.__dict__:
                return
            if is_changing(base.__module__) and ("attr", id(base), name) not in self._ledger.written:
                self._ledger.note("owns", base, name, False, f"{base.__name__} has {name}", frame)

    def reads_global(self, name: str, value: Any, frame: FrameType) -> None:
        """A name is looked up in the globals of a function. value: what is there, or UNKNOWN."""
        space = frame.f_globals
        module = space.get("__name__", "")
        if name in DUNDER:
            return
        if isinstance(value, types.ModuleType):
            self.named(space, name, value, frame)
            return
        if value is UNKNOWN:
            if is_changing(module):
                self.built_in(name, frame)
            return
        if isinstance(value, (type, FunctionType, types.BuiltinFunctionType)):
            if value.__name__ == name and not is_changing(value.__module__):
                self.named(space, name, value, frame)
                return
        elif type(value).__module__.startswith("duograd.core") and getattr(value, "name", None) == name:
            self.named(space, name, value, frame)
            return  # an op or a dtype under its own name
        if module.startswith("duograd.") and not is_changing(module):
            return  # the framework's own constants
        self._ledger.outside.add(id(space))
        self._ledger.note("item", space, name, value, name, frame)

    def built_in(self, name: str, frame: FrameType) -> None:
        """A name is not found in the globals of a function: what is built in is found."""
        space = frame.f_globals
        self._ledger.outside.add(id(space))
        self._ledger.note("unset", space, name, None, name, frame)
        value = frame.f_builtins.get(name, ABSENT)
        ours = getattr(value, "__module__", None) == "builtins"
        self._ledger.outside.add(id(frame.f_builtins))
        self._ledger.note("named" if ours else "item", frame.f_builtins, name, value, name, frame)
