"""Arguments of a call as a key and a flat list of tensors; and results back from a flat list."""

from __future__ import annotations

import dataclasses
import enum
import itertools
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from ..core import dispatch
from ..core.value import Tensor
from .live import KINDS
from .plain import brief, is_plain

_PLAIN = frozenset((int, bool, str, type(None), bytes))


class Arguments:
    """The structure of one call: nested containers with tensor positions; objects are kept alive by it.

    containers, parts: the ids of the caller's lists, dicts and records, each once, and what stands for them. numbers:
    its Python numbers, in the order of the key; spots: where they stand in the key.
    """

    __slots__ = ("args", "containers", "kept", "kwargs", "numbers", "parts", "spots")

    def __init__(self, args: Any, kwargs: Any, kept: list[Any]):
        self.args, self.kwargs, self.kept = args, kwargs, kept
        self.containers: tuple[int, ...] = ()
        self.parts: tuple[Any, ...] = ()
        self.numbers: list[Any] = []
        self.spots: list[int] = []


class Owner(int):
    """The id, in a key, of an object that has parameters: a module, which may come and go."""


class Slot:
    """The place of tensor number `index` in a structure."""

    __slots__ = ("index",)

    def __init__(self, index: int):
        self.index = index


class Loose:
    """The place, in a structure, of number `index` of a call, which may be another one of its class at every call."""

    __slots__ = ("cls", "index")

    def __init__(self, index: int, cls: type):
        self.index, self.cls = index, cls


class _AnyNumber:
    def __repr__(self) -> str:
        return "any"


#: what stands in a key for a number that may be another one at every call
ANY = _AnyNumber()


class Fields:
    """A dataclass instance in a structure: a new one is made at each call."""

    __slots__ = ("cls", "names", "values")

    def __init__(self, cls: type, names: tuple[str, ...], values: list[Any]):
        self.cls, self.names, self.values = cls, names, values


def is_record(x: Any) -> bool:
    """Whether x is a dataclass instance that stands for its fields (layers are objects of their own)."""
    cls = x.__class__
    return dataclasses.is_dataclass(cls) and not hasattr(cls, "parameters")


def record_names(x: Any) -> tuple[str, ...]:
    """The names of what a dataclass instance holds."""
    try:
        return tuple(object.__getattribute__(x, "__dict__"))
    except AttributeError:  # slots
        return tuple([f.name for f in dataclasses.fields(x) if hasattr(x, f.name)])


def _host() -> Any:
    return dispatch._State.executor


def flatten_plainly(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, list[Any], Arguments | None]:
    """Key, tensors, and (None when all arguments are tensors) the structure.

    The key holds, per tensor, layout, device and whether it requires a gradient; per plain value, type and
    value; per other object, its identity. What is asked of tensors here, `graph/entry.py` asks too.
    """
    tensors: list[Any] = []
    key: list[Any] = [dispatch.state.grad]
    eager = _host().tensor_class
    simple = True
    for x in args:
        if x.__class__ is eager:
            key.append(x._layout)
            key.append(x._requires_grad)
            key.append(x._storage.device)
            tensors.append(x)
        else:
            simple = False
            break
    if simple and not kwargs and (len(tensors) < 2 or len(set(map(id, tensors))) == len(tensors)):
        return tuple(key), tensors, None
    tensors, key = [], [dispatch.state.grad]
    rest = Arguments((), {}, [])
    seen: dict[int, Any] = {}
    # Of a list: a tuple that grows may not be met by the collector's list of objects, which traces ask for.
    rest.args = tuple([_walk(x, key, tensors, rest, seen) for x in args])
    for name, x in kwargs.items():  # in their order, which a function can see
        key.append(name)
        rest.kwargs[name] = _walk(x, key, tensors, rest, seen)
    rest.containers, rest.parts = tuple(seen), tuple(seen.values())
    return tuple(key), tensors, rest


def loosened(key: tuple[Any, ...], rest: Arguments, positions: Iterable[int]) -> tuple[Any, ...]:
    """A key in which some of the call's numbers may be any."""
    row = list(key)
    for k in positions:
        row[rest.spots[k]] = ANY
    return tuple(row)


def loosen(rest: Arguments, positions: Collection[int]) -> Arguments:
    """The structure of a call with places for some of its numbers."""
    count = itertools.count()
    made: dict[int, Any] = {}

    def walk(x: Any) -> Any:
        cls = x.__class__
        if cls in KINDS:
            k = next(count)
            return Loose(k, cls) if k in positions else x
        if cls is tuple or (isinstance(x, tuple) and hasattr(x, "_fields")):
            row = [walk(v) for v in x]
            return tuple(row) if cls is tuple else cls(*row)
        if cls not in (list, dict, Fields):
            return x
        new: Any = made.get(id(x))
        if new is not None:
            return new
        if cls is list:
            new = made[id(x)] = []
            new += [walk(v) for v in x]
        elif cls is dict:
            new = made[id(x)] = {}
            new.update({k: walk(v) for k, v in x.items()})
        else:
            new = made[id(x)] = Fields(x.cls, x.names, [])
            new.values += [walk(v) for v in x.values]
        return new

    args = tuple(walk(x) for x in rest.args)
    loose = Arguments(args, {k: walk(x) for k, x in rest.kwargs.items()}, rest.kept)
    loose.containers, loose.parts = rest.containers, tuple(made[id(x)] for x in rest.parts)
    return loose


def number_names(function: Any, rest: Arguments) -> list[str]:
    """What the numbers of a call are called, in order."""
    code = getattr(function, "__code__", None)
    params = () if code is None else code.co_varnames[: code.co_argcount]
    found: list[str] = []
    seen: set[int] = set()

    def walk(x: Any, name: str) -> None:
        cls = x.__class__
        if cls in KINDS:
            found.append(name)
        elif isinstance(x, tuple) and (cls is tuple or hasattr(x, "_fields")):
            for k, v in enumerate(x):
                walk(v, f"{name}[{k}]")
        elif cls in (list, dict, Fields) and id(x) not in seen:
            seen.add(id(x))
            rows = enumerate(x) if cls is list else x.items() if cls is dict else zip(x.names, x.values)
            for k, v in rows:
                walk(v, f"{name}.{k}" if cls is Fields else f"{name}[{brief(k)}]")

    for k, x in enumerate(rest.args):
        walk(x, params[k] if k < len(params) else f"argument {k}")
    for name, x in rest.kwargs.items():
        walk(x, name)
    return found


def kind_of(key: tuple[Any, ...]) -> tuple[Any, ...]:
    """A key without the sizes in it: equal for calls that differ in shapes alone."""
    return tuple([(x.dtype, len(x.shape), x.contiguous) if _is_layout(type(x)) else x for x in key])


def _is_layout(cls: type) -> bool:
    return hasattr(cls, "contiguous") and hasattr(cls, "dtype")  # views of memory have one of the two


def owners_of(key: tuple[Any, ...]) -> tuple[Owner, ...]:
    """The modules in a key."""
    return tuple([x for x in key if x.__class__ is Owner])


def _walk(x: Any, key: list[Any], tensors: list[Any], rest: Arguments, seen: dict[int, Any]) -> Any:
    """What stands for x in the structure. seen: by id, what stands for the containers met so far."""
    cls = x.__class__
    if isinstance(x, np.ndarray):
        if not _host().can_share(
            x
        ):  # texts, or numbers that kernels do not know: a value, known by its contents
            key += (cls, x.dtype, x.shape, *x.ravel().tolist())
            return x
        x = _host().share(x)
    if isinstance(x, Tensor):
        key += (x._layout, x._requires_grad, x.device)  # type: ignore[attr-defined]
        if x.__class__ is not _host().tensor_class:  # a parameter
            key.append(("class", x.__class__))
        for k, known in enumerate(tensors):
            if known is x:  # the same tensor twice: one input
                key.append(("same", k))
                return Slot(k)
        tensors.append(x)
        return Slot(len(tensors) - 1)
    if cls in _PLAIN:
        key += (cls, x)
        if cls is int:
            rest.numbers.append(x)
            rest.spots.append(len(key) - 1)
        return x
    if cls is float:
        key += (cls, x.hex())
        rest.numbers.append(x)
        rest.spots.append(len(key) - 1)
        return x
    if cls is complex:
        key += (cls, repr(x))  # 0j and -0j are equal
        return x
    if cls is tuple or (isinstance(x, tuple) and hasattr(x, "_fields")):
        key += (cls, len(x))
        row = [_walk(v, key, tensors, rest, seen) for v in x]
        return tuple(row) if cls is tuple else cls(*row)
    if isinstance(x, np.generic):
        key += (cls, repr(x))
        if cls in KINDS:
            rest.numbers.append(x)
            rest.spots.append(len(key) - 1)
        return x
    if id(x) in seen:  # the same container twice
        key.append(("again", list(seen).index(id(x))))
        return seen[id(x)]
    made: Any
    if cls is list:
        key += (cls, len(x))
        made = seen[id(x)] = []
        made += [_walk(v, key, tensors, rest, seen) for v in x]
        return made
    if cls is dict:
        key += (cls, *[_label(k, rest) for k in x])
        made = seen[id(x)] = {}
        made.update({k: _walk(v, key, tensors, rest, seen) for k, v in x.items()})
        return made
    if is_record(x):
        names = record_names(x)
        key += (cls, *names)
        made = seen[id(x)] = Fields(cls, names, [])
        made.values += [_walk(getattr(x, n), key, tensors, rest, seen) for n in names]
        return made
    key += (cls, Owner(id(x)) if hasattr(cls, "parameters") else id(x))
    rest.kept.append(x)
    return x


def _label(k: Any, rest: Arguments) -> Any:
    """A dict's key as part of a call's: plain data by type and bits (1 and True are equal), objects by identity."""
    cls = k.__class__
    if cls is str:
        return k
    if cls is tuple or cls is frozenset:
        return (cls, *[_label(v, rest) for v in k])
    if is_plain(k) and cls.__module__ in ("builtins", "numpy"):
        return cls, repr(k)
    rest.kept.append(k)
    return cls, id(k)


def fill(
    structure: Any, values: list[Any], made: dict[int, Any] | None = None,
    numbers: Mapping[int, Any] = MappingProxyType({}),
) -> Any:  # fmt: skip
    """The structure with its slots replaced by values. made: by id, what has been made of its containers so far;
    numbers: what stands in the places of loose numbers."""
    made = {} if made is None else made
    if isinstance(structure, Slot):
        return values[structure.index]
    cls = structure.__class__
    if cls is Loose:
        return numbers[structure.index]
    if cls is tuple or (isinstance(structure, tuple) and hasattr(structure, "_fields")):
        row = [fill(v, values, made, numbers) for v in structure]
        return tuple(row) if cls is tuple else cls(*row)
    if cls not in (list, dict, Fields):
        return structure
    new: Any = made.get(id(structure))
    if new is not None:
        return new
    if cls is list:
        new = made[id(structure)] = []
        new += [fill(v, values, made, numbers) for v in structure]
    elif cls is dict:
        new = made[id(structure)] = {}
        new.update({k: fill(v, values, made, numbers) for k, v in structure.items()})
    else:
        new = made[id(structure)] = object.__new__(structure.cls)
        for name, v in zip(structure.names, structure.values):
            object.__setattr__(new, name, fill(v, values, made, numbers))
    return new


def fill_call(
    kept: Arguments, values: list[Any], made: dict[int, Any] | None = None,
    numbers: Mapping[int, Any] = MappingProxyType({}),
) -> tuple[Any, Any]:  # fmt: skip
    """Args and kwargs of a call."""
    made = {} if made is None else made
    return fill(kept.args, values, made, numbers), fill(kept.kwargs, values, made, numbers)


def empty_slots(structure: Any, is_leaf: Any, leaves: list[Any], once: bool = True) -> Any:
    """The structure with every leaf replaced by a slot; leaves are collected in order, each `once` or each time."""
    if is_leaf(structure):
        for k, seen in enumerate(leaves):
            if once and seen is structure:
                return Slot(k)
        leaves.append(structure)
        return Slot(len(leaves) - 1)
    cls = structure.__class__
    if cls is list or cls is tuple:
        return cls([empty_slots(v, is_leaf, leaves, once) for v in structure])
    if cls is dict:
        return {k: empty_slots(v, is_leaf, leaves, once) for k, v in structure.items()}
    if isinstance(structure, tuple) and hasattr(structure, "_fields"):
        return cls(*[empty_slots(v, is_leaf, leaves, once) for v in structure])
    if is_record(structure):
        names, before = record_names(structure), len(leaves)
        values = [empty_slots(getattr(structure, n), is_leaf, leaves, once) for n in names]
        return structure if len(leaves) == before else Fields(cls, names, values)
    return structure


def names_of(rest: Arguments | None) -> dict[int, str]:
    """What messages call the objects of a call that its key knows by their ids, by these."""
    objects = () if rest is None else rest.kept
    return {id(x): str(x) if isinstance(x, enum.Enum) else brief(x) for x in objects}


def _words(key: tuple[Any, ...], k: int, names: dict[int, str]) -> str:
    """Part k of a key in words."""
    part, kind = key[k], key[k - 1]
    if isinstance(part, type):
        return part.__name__
    if hasattr(part, "strides"):
        return str(part.type) + ("" if part.contiguous else " (strided)")
    if kind is float:
        return repr(float.fromhex(part))
    if kind is complex:
        return str(part)
    if part.__class__ is tuple and len(part) == 2 and isinstance(part[0], type):  # a key of a dict
        return part[1] if isinstance(part[1], str) else names.get(part[1], repr(part[1]))
    if isinstance(part, int) and isinstance(kind, type) and kind not in _PLAIN:
        return names.get(part, repr(part))
    return repr(part)


def difference(old: tuple[Any, ...], new: tuple[Any, ...], names: dict[int, str]) -> str:
    """What changed between two keys, in words. names: of objects, by their ids."""
    if old[0] is not new[0]:
        return f"gradients are {'' if new[0] else 'not '}recorded now"
    if len(old) != len(new):
        return "the arguments have another structure"
    apart = [k for k, (a, b) in enumerate(zip(old, new)) if a is not b and a is not ANY and a != b]
    words = [(_words(old, k, names), _words(new, k, names)) for k in apart[:3]]
    changes = [f"{a} became {'another' if a == b else b}" for a, b in words]
    if changes:
        return "an argument changed: " + ", ".join(changes)
    return "a number that may be any was read" if ANY in old else "nothing"
