"""What is done at each site of the bytecode that reads, but for calls: what is read is noted."""

from __future__ import annotations

import functools
import gc
import io
import types
from types import FrameType, FunctionType
from typing import Any

import numpy as np

from .asking import ask
from .bytecode import FUNCTION, Expr, analyse
from .evaluate import Results, evaluate, get_item, item_name, maker_of, matched_name, render, variable
from .functions import STAND_INS, Standing
from .impure import is_closed
from .keys import settled_key
from .ledger import HOLDING, Ledger
from .live import KINDS, Live
from .lookup import UNKNOWN, calls_on, find, held, in_class, instance_dict, is_changing
from .nursery import young_functions, young_ids
from .plain import ABSENT, count, is_plain
from .possible import ValueReader, is_walk
from .reads import CONTAINERS, MUTABLE, behind, changes, grows, is_iterator
from .running import DUNDER, Running
from .symbol import Symbol

# What a class holds for places of its objects: these are read, not this.
_FIXED = (types.MemberDescriptorType, types.GetSetDescriptorType)
#: methods of arrays that change more than elements
_FORMING = ("resize", "setflags")
#: methods whose calls are noted as reads and writes of items, lengths and names
_APART = ("get", "__getitem__", "__setitem__", "__delitem__", "__len__", "__contains__", "__class__")
SLOTTED = (types.MethodDescriptorType, types.WrapperDescriptorType, types.ClassMethodDescriptorType)


def _may_be_number(x: Any) -> bool:
    return x is UNKNOWN or type(x) is Live or type(x) in KINDS


def _is_item(x: dict[Any, Any], name: str, value: Any) -> bool:
    """Whether an attribute of a dict is an item of it: one that is its own `__dict__`."""
    return instance_dict(x) is x and dict.get(x, name, ABSENT) is value


class SiteReader(ValueReader):
    """Handles sites that read, as `bytecode.analyse` finds them: `actions[kind](frame, action)` before they run."""

    def __init__(self, ledger: Ledger, results: Results, tracers: dict[int, Any], live: bool = False):
        super().__init__(ledger, results)
        self._tracers, self.live, self.standing = tracers, live, Standing()
        self.running = Running(ledger)
        #: what is traced
        self.root: Any = None
        #: functions that the call has made and the framework calls, by id
        self._young: dict[int, FunctionType] = {}
        #: by id of the frame that is about to call it, a function from outside with a cache of its results
        self.cached: dict[int, Any] = {}
        self.actions: dict[str, Any] = {
            "global": self._on_global, "free": self._on_free, "attr": self._on_attr, "item": self._on_item,
            "elements": self._on_elements, "content": self._on_content, "in":
            self._on_in, "is": self._on_is, "same": self._on_same, "match": self._on_match, "truth": self._on_truth,
            "grow": self._on_grow, "import": self._on_import,
        }  # fmt: skip

    # -- reads ----------------------------------------------------------------------------------

    def _on_global(self, frame: FrameType, action: Any) -> None:
        name, space = action[1], frame.f_globals
        value = space.get(name, UNKNOWN)
        if self.live:
            self._stand(frame, space, name, frame.f_builtins.get(name) if value is UNKNOWN else value)
        self.running.reads_global(name, value, frame)

    def _on_import(self, frame: FrameType, action: Any) -> None:
        self.running.imports(action[1], evaluate(action[1], frame, self._results), frame)

    def _on_free(self, frame: FrameType, action: Any) -> None:
        name = action[1]
        if name == "__class__":
            return
        value = variable(frame, name)
        for cell in self._cells(frame, name, value):
            self._ledger.outside.add(id(cell))
            self._ledger.note("cell", cell, None, ABSENT if value is UNKNOWN else value, name, frame)

    def _cells(self, frame: FrameType, name: str, value: Any) -> list[Any]:
        """The cells behind a free variable that come from outside: those of functions from there.

        Functions that the call makes have them too, beside cells of the call's own variables.
        """
        code = frame.f_code
        self.seek(frame)
        found = []
        k = code.co_freevars.index(name)
        known = self._ledger.functions.get(id(code), ())
        for f in known:
            cell = f.__closure__[k] if f.__closure__ is not None else None
            if cell is not None and (id(f) in self._ledger.outside or id(cell) in self._ledger.cells):
                try:
                    matches = cell.cell_contents is value
                except ValueError:
                    matches = value is UNKNOWN
                if matches:
                    found.append(cell)
        if not found:  # its own function may not be known
            maker = maker_of(frame)
            if maker is not None and name in maker.f_code.co_freevars:
                return self._cells(maker, name, value)
        return found

    def seek(self, frame: FrameType) -> None:
        """Learn which function a frame runs, where nothing read so far has led to it."""
        called = self._called(frame)
        if called is None and id(frame.f_code) not in self._ledger.functions:
            self._search(frame)
        elif called is not None and id(called) not in self._ledger.names and id(called) not in self._young:
            self._meet_function(called, frame)

    def _called(self, frame: FrameType) -> FunctionType | None:
        """The function that a frame runs, where it is the traced one, or a name of the framework's code that called it
        holds it."""
        back = frame.f_back
        if back is None or back.f_trace_opcodes:
            return None
        for x in (self.root, *back.f_locals.values()):
            while isinstance(x, functools.partial):
                x = x.func
            for f in (x, *calls_on(x)):
                f = f.__func__ if isinstance(f, types.MethodType) else f
                if isinstance(f, FunctionType) and f.__code__ is frame.f_code:
                    return f
        return None

    def is_asked_for(self, frame: FrameType) -> bool:
        """Whether code of the standard library runs because the framework was given it to call (`singledispatch`)."""
        space = frame.f_back.f_globals if frame.f_back is not None else {}
        return space.get("__name__", "").startswith("duograd.") and self._called(frame) is not None

    def _meet_function(self, f: FunctionType, frame: FrameType) -> None:
        """A function that the framework calls and that nothing read so far has led to."""
        maker, _ = self._maker(frame)
        if maker is not None and id(f) in young_ids():
            self._young[id(f)] = f
            self._ledger.functions.setdefault(id(f.__code__), [])
        else:
            self._ledger.learn(f, f.__qualname__, True)

    def _maker(self, frame: FrameType) -> tuple[FrameType | None, bool]:
        """The frame below that makes functions of this one's code: a comprehension, a lambda passed on, a hook.

        And whether code lies between that is not followed.
        """
        back, between = frame.f_back, False
        while back is not None:
            if back.f_trace_opcodes and any(c is frame.f_code for c in back.f_code.co_consts):
                break
            between |= not back.f_trace_opcodes
            back = back.f_back
        return back, between

    def _search(self, frame: FrameType) -> None:
        """Functions of a code that nothing read so far has led to: called by C code or by the framework.

        This looks at every object of the process, but for generators of the framework.
        """
        code = frame.f_code
        self._ledger.functions[id(code)] = []
        maker, between = self._maker(frame)
        if maker is not None and not between:
            return
        space = frame.f_globals.get("__name__", "")
        if (
            maker is None
            and code.co_name == "<genexpr>"
            and space.startswith("duograd.")
            and not is_changing(space)
        ):
            # Made in this call: `for p in model.parameters()`. The variables of one from before do not change.
            made = young_functions(code)
            for f in made:
                self._ledger.learn(f, f.__qualname__, True)
            if made:
                return
        # The framework may also call a hook that an earlier call of that function has made.
        young = young_ids() if maker is not None else ()
        for f in gc.get_referrers(code):
            if isinstance(f, FunctionType) and f.__code__ is code and id(f) not in young:
                self._ledger.learn(f, f.__qualname__, True)

    def _stand(self, frame: FrameType, space: Any, name: str, value: Any) -> None:
        """Let something stand in for a function of numbers that is about to be loaded, and then called."""
        if id(value) in STAND_INS and frame.f_lasti in analyse(frame.f_code).callees:
            self.standing.put(space, name, value)

    def _on_attr(self, frame: FrameType, action: Any) -> None:
        for base in self._possible(action[1], frame):
            if type(base) is Live and base._live_differs(action[2]):
                self._ledger.restart()
            if base is not ABSENT and base.__class__ is not Symbol:
                self._attribute(base, action[2], action[1], frame)
            if self.live and isinstance(base, types.ModuleType):
                self._stand(frame, base.__dict__, action[2], base.__dict__.get(action[2]))

    def _attribute(self, base: Any, name: str, expr: Expr, frame: FrameType, plainly: bool = False) -> None:
        memory, base = isinstance(base, memoryview), behind(base)
        if memory:
            self._ledger.read_content(base, self._ledger.name(base, expr), frame, False)
            return
        # One with attributes of its own may have one of that name.
        is_method = isinstance(base, CONTAINERS) and isinstance(in_class(type(base), name), SLOTTED)
        if is_method and name not in (instance_dict(base) or ()):
            self._bound(base, name, expr, frame)
            self._method_of(base, name, expr, frame)
            return
        if is_iterator(base):
            self._ledger.read_content(base, self._ledger.name(base, expr), frame, False)
            return
        if isinstance(base, np.ndarray):
            if name in _FORMING:
                self._ledger.form(base, name)
            self._ledger.read_array(base, self._ledger.name(base, expr), frame)
        if is_closed(base, False) and id(base) in self._ledger.outside:
            self._ledger.leave(
                f"reads {name} of a {type(base).__name__}, which cannot be watched", "read it outside"
            )
        if name in DUNDER:
            if isinstance(base, (type, FunctionType)) and is_changing(base.__module__):
                called = f"{self._ledger.name(base, expr)}.{name}"
                self._ledger.note("attr", base, name, getattr(base, name, ABSENT), called, frame)
            return
        kind, holder, value = find(base, name, plainly)
        if kind in ("", "quiet"):
            self._bound(base, name, expr, frame)
        if type(base) is super:
            self.running.above(base, name, frame)
        elif kind in ("", "quiet", "method") and name != "__dict__":
            self.running.class_of(base, frame)
        if kind == "attr":
            sort = "item" if isinstance(base, dict) and _is_item(base, name, value) else "attr"
            if sort == "attr" and self.running.is_behind(base, name, value, frame):
                called = self._ledger.name(base, expr)
                self._not_in(base, name, called, frame)
                self._ledger.learn(value, f"{called}.{name}", id(base) in self._ledger.outside)
                return
            holder = self.running.class_behind(holder, name, value)
            self._ledger.note(sort, holder, name, value, f"{self._ledger.name(base, expr)}.{name}", frame)
        elif kind == "item":
            self.running.of_module(holder, name, value, f"{render(expr)}.{name}", frame)
        elif kind == "method":
            function = getattr(value, "__func__", value)
            if name == "forward" or is_changing(type(base).__module__):
                self._not_in(base, name, self._ledger.name(base, expr), frame)
            if is_changing(function.__module__) or is_changing(
                getattr(function, "__globals__", {}).get("__name__")
            ):
                self._ledger.note("method", holder, name, function, f"{holder.__name__}.{name}", frame)
            self._ledger.learn(function, f"{holder.__name__}.{name}", True)
        elif kind == "quiet" and name == "__class__":
            self.running.class_of(base, frame)
        elif kind == "quiet" and (name == "__dict__" or isinstance(base, types.ModuleType)):
            value = behind(value)
            if name == "__dict__":
                self._ledger.keep_dict(value, base)
            outside = id(base) in self._ledger.outside or isinstance(base, types.ModuleType)
            if isinstance(base, types.ModuleType):
                self.running.named(base.__dict__, name, value, frame)
            if not isinstance(value, types.ModuleType):
                self._ledger.learn(value, f"{self._ledger.name(base, expr)}.{name}", outside)
        elif kind == "part":
            self._ledger.learn(
                value, f"{self._ledger.name(base, expr)}.{name}", id(base) in self._ledger.outside, True
            )
        elif kind == "cell":
            self._ledger.note("cell", base, None, value, f"{self._ledger.name(base, expr)}.{name}", frame)
        elif kind == "default":
            self._ledger.read_defaults(base, frame)
            self._ledger.learn(value, f"{base.__qualname__}.{name}", id(base) in self._ledger.outside, True)
        elif not kind or kind == "entry":
            self._hooked(base, name, expr, frame)

    def _bound(self, base: Any, name: str, expr: Expr, frame: FrameType) -> None:
        """An attribute that something in the class gives, like a property: that it is this one."""
        cls, static = held(base, name)
        if (
            static is not ABSENT
            and is_changing(cls.__module__)
            and hasattr(type(static), "__get__")
            and type(static) not in _FIXED
            and ("attr", id(cls), name) not in self._ledger.written
        ):
            if not hasattr(type(static), "__set__"):
                self._not_in(base, name, self._ledger.name(base, expr), frame)
            self._ledger.note("static", cls, name, static, f"{cls.__name__}.{name}", frame)

    def _hooked(self, base: Any, name: str, expr: Expr, frame: FrameType) -> None:
        """An attribute that a hook of the class finds: that nothing stands before the hook, and what C code may look at
        for it. Python code is followed."""
        if isinstance(base, types.ModuleType):
            self.running.not_in_module(base, name, frame)
            return
        static, getter = in_class(type(base), name), None
        if isinstance(static, property):
            getter = static.fget
            self._handed_on(getter, [base], True, frame)
        elif isinstance(base, type):
            if in_class(base, name) is ABSENT and is_changing(base.__module__):
                self._ledger.note("static", base, name, ABSENT, f"{base.__name__}.{name}", frame)
        elif static is ABSENT:
            getter = in_class(type(base), "__getattr__")
            if getter is ABSENT or isinstance(in_class(type(base), "__getattribute__"), FunctionType):
                return
            self._not_before(base, name, self._ledger.name(base, expr), frame)
            if getter in (dict.__getitem__, dict.get) and isinstance(base, dict):
                self._item_read(base, name, expr, frame)
                return
        if isinstance(base, CONTAINERS) and not isinstance(getter, (FunctionType, types.NoneType)):
            self._ledger.read_content(base, self._ledger.name(base, expr), frame, False)

    def _not_in(self, base: Any, name: str, called: str, frame: FrameType) -> None:
        """An attribute is found elsewhere because the object itself has none of that name."""
        space = None if isinstance(base, type) else instance_dict(base)
        if space is not None and id(base) in self._ledger.outside:
            self._ledger.keep_dict(space, base)
            self._ledger.note("has", space, name, False, f"{called} has {name!r} in its __dict__", frame)

    def _not_before(self, base: Any, name: str, called: str, frame: FrameType) -> None:
        """An attribute is looked for in vain, in an object and its class, so that `__getattr__` is asked."""
        self._not_in(base, name, called, frame)
        if is_changing(type(base).__module__):
            self._ledger.note("attr", type(base), name, ABSENT, f"{type(base).__name__}.{name}", frame)

    def _method_of(self, base: Any, name: str, expr: Expr, frame: FrameType) -> None:
        """A method of a built-in container is looked up, or called."""
        called = self._ledger.name(base, expr)
        if changes(name):
            self._ledger.touched.add(id(base))
        if grows(base, name):
            self._ledger.change(base, called)
        elif name not in _APART:
            self._ledger.read_content(base, called, frame, False)

    def _on_item(self, frame: FrameType, action: Any) -> None:
        self._indexes(action[2], frame)
        for base in self._possible(action[1], frame):
            base = behind(base)
            if isinstance(base, (*CONTAINERS, np.ndarray)):
                self._item_read(base, evaluate(action[2], frame, self._results), action[1], frame)
            elif is_closed(base, True) and id(base) in self._ledger.outside:
                self._ledger.leave(
                    f"reads items of a {type(base).__name__}, which cannot be watched", "read it outside"
                )

    def _indexes(self, expr: Expr, frame: FrameType) -> None:
        """Lists and arrays that stand in an index are looked into."""
        if expr is not None and expr[0] != "const":
            self._look_into(expr, frame, True)

    def _item_read(self, base: Any, key: Any, expr: Expr, frame: FrameType) -> None:
        name = self._ledger.name(base, expr)
        value = get_item(base, key)
        if isinstance(base, np.ndarray):
            self._ledger.read_array(base, name, frame)
        elif value is UNKNOWN:
            if not isinstance(
                in_class(type(base), "__getitem__"), FunctionType
            ):  # the code of others is followed
                self._ledger.read_content(base, name, frame, False)
        elif isinstance(base, tuple):
            self._ledger.learn(value, item_name(name, key), id(base) in self._ledger.outside)
        elif id(base) in self._ledger.outside:
            self._ledger.note("item", base, key, value, item_name(name, key), frame)
            if value is ABSENT:
                self._ledger.read_factory(base, name, frame)
            if not is_plain(key):
                self._ledger.objects.setdefault(id(key), key)

    def _on_elements(self, frame: FrameType, action: Any) -> None:
        self._look_into(action[1], frame, False)

    def _on_content(self, frame: FrameType, action: Any) -> None:
        self._look_into(action[1], frame, True)

    def _look_into(self, expr: Expr, frame: FrameType, deep: bool) -> None:
        if not deep and expr is not None and expr[0] == "result" and expr[2] == FUNCTION and is_walk(expr[3]):
            return  # a generator that is written there: its code is followed
        among = None if deep else self._in_rows(expr, frame)
        if among is not None:
            for x in among:
                self._look_into(x, frame, False)
            return
        for x in self._whole(expr, frame) if deep else self._possible(expr, frame):
            if isinstance(behind(x), (*HOLDING, io.IOBase)) or is_iterator(x):
                self._ledger.read_content(x, self._ledger.name(x, expr), frame, deep)

    def _on_truth(self, frame: FrameType, action: Any) -> None:
        for x in map(behind, self._possible(action[1], frame)):
            if isinstance(x, np.ndarray):
                self._ledger.read_content(x, self._ledger.name(x, action[1]), frame, False)
            else:
                self._size("truth", x, action[1], frame)

    def _size(self, kind: str, x: Any, expr: Expr, frame: FrameType) -> None:
        """The length of a container, or whether it has elements, is asked for; a `__len__` of its class is followed."""
        if (
            isinstance(x, MUTABLE) and id(x) in self._ledger.outside
            and isinstance(in_class(type(x), "__len__"), types.WrapperDescriptorType)
        ):  # fmt: skip
            name = self._ledger.name(x, expr)
            self._ledger.note(kind, x, None, len(x) if kind == "length" else len(x) > 0,
                              f"len({name})" if kind == "length" else name, frame)  # fmt: skip

    def _on_grow(self, frame: FrameType, action: Any) -> None:
        x = evaluate(action[1], frame, self._results)
        if x.__class__ is list and id(x) in self._ledger.outside:
            self._ledger.change(x, self._ledger.name(x, action[1]))
        else:
            self._on_content(frame, action)

    def _on_is(self, frame: FrameType, action: Any) -> None:
        a, b = evaluate(action[1], frame, self._results), evaluate(action[2], frame, self._results)
        if self.live and _may_be_number(a) and _may_be_number(b):
            self._ledger.restart()  # whether they are one object is no question for a live number
        if a is None or b is None:
            return
        row = (a, action[1]), (b, action[2])
        ask(self._ledger, *([x] if x is not UNKNOWN else [x, *self._possible(e, frame)] for x, e in row))
        self._ledger.compared |= {id(a), id(b)}
        made = self._ledger.made
        if (
            isinstance(a, tuple)
            and isinstance(b, tuple)
            and count(a)
            and count(b)
            and (id(a) in made or id(b) in made)
        ):
            self._ledger.odd = (
                "asks whether a tuple of the arguments is some other one",
                "compare what it holds",
            )

    def _on_same(self, frame: FrameType, action: Any) -> None:
        """Containers are compared, and so are what they hold, by what is the same object first."""
        if any(isinstance(behind(x), CONTAINERS) for e in action[1:] for x in self._possible(e, frame)):
            ask(self._ledger)

    def _on_match(self, frame: FrameType, action: Any) -> None:
        cls = evaluate(action[2], frame, self._results)
        for x in self._possible(action[1], frame):
            self.running.class_of(x, frame)
        for name in filter(None, [matched_name(cls, key) for key in action[3]]):
            self._on_attr(frame, ("attr", action[1], name))

    def _on_in(self, frame: FrameType, action: Any) -> None:
        key = settled_key(evaluate(action[1], frame, self._results))
        if isinstance(key, HOLDING):
            self._ledger.read_content(key, self._ledger.name(key, action[1]), frame, True)
        if not is_plain(key) and evaluate(action[2], frame, self._results) is UNKNOWN:
            ask(self._ledger)
        for container in self._possible(action[2], frame):
            self._in(key, behind(container), frame, action)

    def _in(self, key: Any, container: Any, frame: FrameType, action: Any) -> None:
        if isinstance(container, dict) and is_plain(key):
            if id(container) in self._ledger.outside:
                name = f"{key!r} in {self._ledger.name(container, action[2])}"
                self._ledger.note("has", container, key, dict.__contains__(container, key), name, frame)
        elif isinstance(container, (*CONTAINERS, np.ndarray)):
            self._ledger.read_content(container, self._ledger.name(container, action[2]), frame, True)
            if not is_plain(key):
                ask(self._ledger, [key], self._within([container]))
        else:
            self._ledger.read_content(container, self._ledger.name(container, action[2]), frame, False)

    def _handed_on(self, x: Any, given: list[Any], whole: bool, frame: FrameType) -> None:
        """What C code will call."""
        raise NotImplementedError
