"""Evaluating expressions of bytecode on a running frame, without running any user code."""

from __future__ import annotations

import inspect
import sys
import types
import weakref
from collections.abc import Sequence
from types import FrameType
from typing import Any

from .bytecode import Expr
from .live import Live, settled
from .lookup import UNKNOWN, find, instance_dict
from .opcodes import WORKED
from .plain import ABSENT, is_plain

#: values that calls gave back, by frame (its id) and offset of the call
Results = dict[int, dict[int, Any]]


# Built-in functions of plain data that give the same again; so do the methods of a string.
_HEAP = 1 << 9  # a class that Python code defines, whose methods would run
_PURE = frozenset((int, float, bool, abs, min, max, round, len, divmod, ord, chr))
_SIMPLE = frozenset((str, int, float, bool, bytes, type(None)))
_ARITHMETIC = frozenset("+ - * % // BUILD_SLICE".split())


def evaluate(x: Expr, frame: FrameType, results: Results) -> Any:
    """The value an expression has now; UNKNOWN when only running the code could tell."""
    if x is None:
        return UNKNOWN
    kind = x[0]
    if kind == "local" or kind == "free":
        return variable(frame, x[1])
    if kind == "const":
        return x[1]
    if kind == "global":
        name = x[1]
        if not frame.f_code.co_flags & inspect.CO_OPTIMIZED and name in frame.f_locals:  # the body of a class
            return frame.f_locals[name]
        value = frame.f_globals.get(name, UNKNOWN)
        return frame.f_builtins.get(name, UNKNOWN) if value is UNKNOWN else value
    if kind == "attr":
        base = evaluate(x[1], frame, results)
        if base is not UNKNOWN and base is not ABSENT:
            value = find(base, x[2])[2]
            if value is not UNKNOWN:
                return value
        return _given_back(frame, x[3], results)
    if kind == "item":
        base, index = evaluate(x[1], frame, results), evaluate(x[2], frame, results)
        value = get_item(base, index)
        return _given_back(frame, x[3], results) if value is UNKNOWN else value
    if kind == "result":
        return _result(x, frame, results)
    if kind == "worked":
        return _worked(x[1], x[2], frame, results)
    if kind == "matched":
        base, name = evaluate(x[1], frame, results), matched_name(evaluate(x[2], frame, results), x[3])
        return UNKNOWN if base is UNKNOWN or base is ABSENT or name is None else find(base, name)[2]
    if kind == "module":
        return _module(x[1], x[2], x[3], frame)
    return UNKNOWN


def _worked(how: str, parts: Sequence[Expr], frame: FrameType, results: Results) -> Any:
    """A text, a slice or a number that is worked out from such: done again."""
    values: list[Any] = []
    for part in parts:
        value = evaluate(part, frame, results)
        if type(value) in (Live, tuple) and (how not in _ARITHMETIC or (values and type(values[0]) is str)):
            value = settled(value)  # a text of it is for this value
        if not _is_simple(value):
            return UNKNOWN
        values.append(value)
    return _call(WORKED[how], values)


def _is_simple(x: Any) -> bool:
    """Whether it is a text or number, or a tuple of such, of classes whose code is not the user's."""
    return type(x) in _SIMPLE or (type(x) is tuple and all(map(_is_simple, x)))


def matched_name(cls: Any, key: int | str) -> str | None:
    """The attribute that a class pattern reads at a place; None where it takes the subject itself."""
    if isinstance(key, str):
        return key
    names = getattr(cls, "__match_args__", ()) if isinstance(cls, type) else ()
    return names[key] if key < len(names) else None


def _module(name: str, level: int, leaf: bool, frame: FrameType) -> Any:
    """The module that an import has given. leaf: names are taken from it, so that it is the last of a dotted name."""
    if level:
        package = (frame.f_globals.get("__package__") or "").split(".")
        name = ".".join([*package[: len(package) - level + 1], *([name] if name else [])])
    return sys.modules.get(name if leaf else name.partition(".")[0], UNKNOWN)


def _result(x: Any, frame: FrameType, results: Results) -> Any:
    """What a call gave: seen when a Python function returned, done again for a few built-ins."""
    callee = evaluate(x[2], frame, results)
    args = x[3]
    if callee is UNKNOWN:
        return _given_back(frame, x[1], results)
    if callee is str or callee is repr or getattr(callee, "__self__", None).__class__ is str:
        values = [settled(evaluate(a, frame, results)) for a in args]
        return _call(callee, values) if all(map(_is_simple, values)) else UNKNOWN
    pure = callee in _PURE if callee.__class__ in (type, types.BuiltinFunctionType) else False
    if pure:
        values = [evaluate(a, frame, results) for a in args]
        known = all(is_plain(v) and not type(v).__flags__ & _HEAP for v in values)
        return _call(callee, values) if known else UNKNOWN
    if isinstance(callee, (types.BuiltinFunctionType, types.MethodWrapperType)):
        values = [evaluate(a, frame, results) for a in args]
        if not values:
            return frame.f_globals if callee is globals else UNKNOWN
        if values[0] is UNKNOWN:
            return UNKNOWN
        if callee is getattr and len(values) >= 2 and isinstance(values[1], str):
            value = find(values[0], values[1])[2]
            if value is UNKNOWN:
                return _given_back(frame, x[1], results)
            return values[2] if value is ABSENT and len(values) == 3 else value
        if callee is vars and len(values) == 1:
            return instance_dict(values[0]) or UNKNOWN
        if isinstance(callee.__self__, dict) and callee.__name__ in ("get", "__getitem__"):
            value = dict.get(callee.__self__, values[0], ABSENT)
            return (values[1] if len(values) == 2 else None) if value is ABSENT else value
        if isinstance(callee.__self__, dict) and callee.__name__ == "setdefault":  # which has run
            value = dict.get(callee.__self__, values[0], ABSENT)
            return UNKNOWN if value is ABSENT else value
        return get_item(callee.__self__, values[0]) if callee.__name__ == "__getitem__" else UNKNOWN
    if callee is super:
        return _super(args, frame, results)
    if callee is object.__getattribute__ and len(args) == 2:
        base, name = (evaluate(a, frame, results) for a in args)
        return find(base, name, True)[2] if base is not UNKNOWN and isinstance(name, str) else UNKNOWN
    if isinstance(callee, weakref.ref):
        return callee()
    if isinstance(callee, type):
        return UNKNOWN
    return _given_back(frame, x[1], results)


def _call(pure: Any, values: list[Any]) -> Any:
    try:
        return pure(*values)
    except (TypeError, ValueError, LookupError, ArithmeticError):
        return UNKNOWN  # it had keyword arguments, or is about to raise


def _super(args: Any, frame: FrameType, results: Results) -> Any:
    if args:
        values = [evaluate(a, frame, results) for a in args]
    else:
        code = frame.f_code
        first = code.co_varnames[0] if code.co_argcount else ""
        values = [frame.f_locals.get("__class__", UNKNOWN), frame.f_locals.get(first, UNKNOWN)]
    try:
        return super(*values)
    except TypeError:
        return UNKNOWN


def _given_back(frame: FrameType, offset: int, results: Results) -> Any:
    found = results.get(id(frame))
    return UNKNOWN if found is None else found.get(offset, UNKNOWN)


def get_item(base: Any, key: Any) -> Any:
    """base[key] of plain containers; ABSENT for a missing key, UNKNOWN for anything else."""
    if key is UNKNOWN:
        return UNKNOWN
    try:
        if type(base) is str:
            return base[key] if isinstance(key, (int, slice)) else UNKNOWN
        if isinstance(base, dict):
            return dict.get(base, key, ABSENT) if type(base).__getitem__ is dict.__getitem__ else UNKNOWN
        if isinstance(base, (list, tuple)) and isinstance(key, int):
            return base[key] if type(base).__getitem__ in (list.__getitem__, tuple.__getitem__) else UNKNOWN
    except (TypeError, IndexError):
        pass
    return UNKNOWN


def item_name(name: str, key: Any) -> str:
    """How an item is named in messages; what an object's `__dict__` holds, as an attribute."""
    if name.endswith(".__dict__") and isinstance(key, str):
        name = name.removesuffix(".__dict__")
        return f"{name}.{key}" if key.isidentifier() else f"{name}[{key}]"
    return f"{name}[{key!r}]" if is_plain(key) else f"{name}[...]"


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


def variable(frame: FrameType, name: str) -> Any:
    """The value of a variable of a frame. The body of a class has those of the function around it in cells alone."""
    value = frame.f_locals.get(name, UNKNOWN)
    code = frame.f_code
    if value is UNKNOWN and not code.co_flags & inspect.CO_OPTIMIZED and name in code.co_freevars:
        maker = maker_of(frame)
        return UNKNOWN if maker is None else variable(maker, name)
    return value


def maker_of(frame: FrameType) -> FrameType | None:
    """The running frame that made the function of a frame: a comprehension's, a lambda's that was passed on."""
    back = frame.f_back
    while back is not None and not any(c is frame.f_code for c in back.f_code.co_consts):
        back = back.f_back
    return back
