"""What can be seen of arguments, state and results: values, gradients, what shares memory, what is one object."""

from __future__ import annotations

import enum
import types
from collections import deque
from collections.abc import Iterator
from typing import Any

import duograd as dg
import numpy as np

from ...core.random import default_generator
from ...graph.lookup import in_class
from .program import MODULE, Box, Program, Record
from .walks import strides
from .world import DEFINITIONS, INSIDE

Facts = dict[str, Any]
#: the end of a fact's name
STANDS = " stands at"
#: in what a module, a class, a function that caches or `functools` keeps for itself
UNSEEN = frozenset(("_abc_impl", "__wrapped__", "_parameters", "_buffers", "_modules"))


def held(program: Program, m: Any, space: dict[str, Any]) -> Facts:
    """What a program keeps: its state, and the names of its module that it defines for itself."""
    found = {
        f"m.{n}": x for n, x in vars(m).items() if n != "printed"
    }  # lines are printed before an error, too
    if program.definitions:
        found |= {f"global {n}": space[n] for n in (*DEFINITIONS, *INSIDE) if n in space}
    return found


def see_all(facts: Facts, names: list[str], arguments: list[Any], kept: Facts) -> None:
    """Arguments, what is held, and the random generator."""
    for n, x in (*zip(names, arguments), *kept.items()):
        see(facts, n, x)
    facts["random state"] = default_generator.get_state()


def see(facts: Facts, name: str, x: Any, above: tuple[int, ...] = ()) -> None:
    """What a value is, and what is in it. above: the objects of the program's own that it was found in."""
    if isinstance(x, dg.Tensor) and not hasattr(x, "_array"):
        facts[name] = "a symbol of a trace"
    elif isinstance(x, dg.Tensor):
        array = np.array(x._array())
        facts[name] = array
        facts[f"{name} requires a gradient"] = x.requires_grad, x.is_leaf
        facts[f"{name} strides"] = strides(x)
        g = x._grad
        if g is not None:
            facts[f"{name}.grad"] = np.array(g._array())
            facts[f"{name}.grad strides"] = strides(g)
    elif _is_own(x):
        facts[f"{name} kind"] = _named(x)
        if id(x) not in above:
            for place, y in _parts(x).items():
                see(facts, f"{name}{place}", y, (*above, id(x)))
            if isinstance(x, dg.nn.Module):
                facts[f"{name} trains"] = x.training
    elif isinstance(x, (list, tuple, deque)):
        facts[f"{name} length"] = type(x).__name__, len(x)
        for k, y in enumerate(x):
            if y is not x:
                see(facts, f"{name}[{k}]", y, above)
    elif isinstance(x, dict):
        facts[f"{name} keys"] = [_named(key) for key in x]
        for key, y in x.items():
            see(facts, f"{name}[{_named(key)!r}]", y, above)
    elif isinstance(x, (set, frozenset)):
        facts[name] = frozenset(map(_named, x))
    elif isinstance(x, (Box, Record)):
        for attribute, y in vars(x).items():
            see(facts, f"{name}.{attribute}", y, above)
    elif isinstance(x, dg.nn.Module):
        facts[f"{name} trains"] = [part.training for part in x.modules()]
        see(facts, name, {**dict(x.named_parameters()), **dict(x.named_buffers())})
    elif isinstance(x, (dg.optim.Optimizer, dg.optim.lr_scheduler.LRScheduler, dg.amp.GradScaler)):
        see(facts, name, x.state_dict())
    elif isinstance(x, dg.Generator):
        facts[name] = x.get_state()
    elif isinstance(x, np.ndarray):
        facts[name] = x.copy()
    elif isinstance(x, Iterator):
        facts[name + STANDS] = _standing(x)
    elif callable(x):
        facts[name] = getattr(x, "mode", None)
    elif isinstance(x, (bool, int, float, complex, np.generic)):
        facts[name] = type(x).__name__, repr(x)
    else:  # what is equal to itself alone is another one in another run
        facts[name] = type(x).__name__ if in_class(type(x), "__eq__") is object.__eq__ else x


def _standing(x: Any) -> Any:
    """Where an iterator stands; nothing is taken."""
    if isinstance(x, types.GeneratorType):
        return "ended" if x.gi_frame is None else x.gi_frame.f_lasti
    try:
        state = x.__reduce__()
    except TypeError:
        return getattr(x, "index", type(x).__name__)
    return _plainly(state, 0)


def _plainly(x: Any, depth: int) -> Any:
    """What an iterator is made of, in words and numbers."""
    if isinstance(x, Iterator):
        return _standing(x)
    if isinstance(x, (tuple, list)) and depth < 4:
        return type(x).__name__, [_plainly(y, depth + 1) for y in x]
    return x if isinstance(x, (int, float, str, bytes)) else type(x).__name__


def _is_own(x: Any) -> bool:
    """Whether a value is an object, a class or a function of the program's own."""
    kind = type(x)
    if kind in (types.FunctionType, types.MethodType) or issubclass(kind, type):
        return getattr(x, "__module__", "") == MODULE
    return kind.__module__ == MODULE or kind in (property, classmethod, staticmethod, types.MappingProxyType)


def _named(x: Any) -> Any:
    """A value that can be compared with another run's: its own classes are other ones there."""
    if isinstance(x, enum.Enum):
        return f"{type(x).__name__}.{x.name}"
    if isinstance(x, (types.FunctionType, types.MethodType)) and _is_own(x):
        return x.__qualname__, x.__code__.co_firstlineno
    if isinstance(x, type):
        return x.__qualname__
    return type(x).__qualname__ if _is_own(x) else x


def _parts(x: Any) -> dict[str, Any]:
    """What an object, a class or a function of the program's own holds, by place; no code of the program's runs."""
    if isinstance(x, enum.Enum):
        return {}
    if isinstance(x, types.MethodType):
        return {".__func__": x.__func__, ".__self__": x.__self__}
    if isinstance(x, property):
        return {".fget": x.fget}
    if isinstance(x, (classmethod, staticmethod)):
        return {".__func__": x.__func__}
    if isinstance(x, types.FunctionType):
        cells = {f" cell {n}": _cell(c) for n, c in zip(x.__code__.co_freevars, x.__closure__ or ())}
        return {" defaults": x.__defaults__, " keywords": x.__kwdefaults__, **cells, **_dotted(x.__dict__)}
    if isinstance(x, type):
        if issubclass(x, enum.Enum):
            return {}
        return {
            " bases": tuple(c.__qualname__ for c in x.__mro__),
            **_dotted(type.__getattribute__(x, "__dict__")),
        }
    found: dict[str, Any] = {}
    for kind in (list, tuple, dict):
        if isinstance(x, kind):
            found[" holds"] = tuple(dict.items(x) if kind is dict else kind.__iter__(x))  # type: ignore[arg-type]
    for cls in type(x).__mro__:
        for n, slot in type.__getattribute__(cls, "__dict__").items():
            if isinstance(slot, types.MemberDescriptorType) and cls.__module__ == MODULE:
                try:
                    found[f".{n}"] = slot.__get__(x)
                except AttributeError:
                    continue
    try:
        inside = object.__getattribute__(x, "__dict__")
    except AttributeError:
        return found
    return found | _dotted(inside)


def _dotted(names: Any) -> dict[str, Any]:
    """Attributes by place, and the order that they stand in."""
    seen = {n: y for n, y in names.items() if n[:2] != "__" and n not in UNSEEN}
    return {" names": tuple(seen), **{f".{n}": y for n, y in seen.items()}}


def _cell(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return None


def containers(names: list[str], arguments: list[Any], kept: Facts) -> list[tuple[str, ...]]:
    """Which containers and objects that the program keeps or is given are one."""
    places: dict[int, list[str]] = {}

    def meet(name: str, x: Any) -> None:
        own = _is_own(x) and not isinstance(x, type)
        if own or isinstance(x, (list, dict, deque, Box, Record)):
            row = places.setdefault(id(x), [])
            row.append(name)
            if len(row) == 1:
                inside = _parts(x) if own else vars(x) if isinstance(x, (Box, Record)) else x
                for k, y in inside.items() if isinstance(inside, dict) else enumerate(inside):
                    meet(f"{name}, {_named(k)!r}", y)

    for n, x in (*zip(names, arguments), *kept.items()):
        meet(n, x)
    return [tuple(row) for row in places.values() if len(row) > 1]


def memory(results: Any, given: dict[str, Any], m: Any, kept: Facts) -> tuple[str, ...]:
    """Which tensors share memory with which."""
    named = dict(given)
    for n, x in kept.items():
        parts = {f"{n}{place}": y for place, y in _parts(x).items()} if _is_own(x) else {n: x}
        named |= {place: y for place, y in parts.items() if isinstance(y, dg.Tensor)}
    if isinstance(results, tuple):
        named |= {f"result[{k}]": y for k, y in enumerate(results) if isinstance(y, dg.Tensor)}
    rows = list(named.items())
    logs = {"m.log": m.log, "m.box.items": m.box.items, "m.table": m.table, "m.box": m.box}
    held = tuple(
        f"result[{k}] is {n}" for k, y in enumerate(results if isinstance(results, tuple) else ())
        for n, x in logs.items() if y is x
    )  # fmt: skip
    return held + tuple(
        f"{a} and {b}" + (" are one" if x is y else "")
        for k, (a, x) in enumerate(rows) for b, y in rows[k + 1 :]
        if x is y or (x.size and y.size and np.shares_memory(x._array(), y._array()))
    )  # fmt: skip
