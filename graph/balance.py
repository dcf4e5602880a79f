"""The end of a ledger: what a trace read from outside and what it changed there, without what only the trace knew.

Effects on what the function replaced and nobody can reach after it are apart: they are undone with the others, and not
made again.
"""

from __future__ import annotations

import collections
import sys
from typing import Any

import numpy as np

from .ledger import Ledger, Ref
from .lookup import UNKNOWN, in_class, instance_dict, is_changing, is_own, specials
from .plain import ABSENT, count, elements, is_plain, one_order, same
from .reads import MUTABLE, Effect, Read, contents_of, is_as, own_at, space_of


def close(ledger: Ledger) -> tuple[list[Read], list[Effect], list[Effect]]:
    """Drop what only the trace knew, and turn the tables into reads, effects, and effects on what is lost."""
    ledger.functions.clear()
    _pin(ledger)
    objects = ledger.objects
    effects = _container_effects(ledger)
    # What the function replaced is put back, though nobody else may hold it any more.
    replaced: dict[int, Any] = {
        b: objects[b] for _, b in ledger.written.values() if b.__class__ is Ref and b in objects
    }
    of_classes = _of_classes(ledger)
    count = -1
    while len(objects) != count:
        count = len(objects)
        for key in list(objects):
            # 2: the table and getrefcount's argument. Nobody can reach such an object at the next call.
            if sys.getrefcount(objects[key]) == (3 if key in replaced else 2):
                del objects[key]
    gone = object()
    reads: list[Read] = []
    early: list[Effect] = []
    lost: list[Effect] = []

    def real(x: Any) -> Any:
        return objects.get(x, replaced.get(x, gone)) if x.__class__ is Ref else x

    for kind, oid, key, value, name, where in ledger.entries.values():
        if oid not in objects:
            if (kind, oid, key) in of_classes:
                reads.append(Read(kind, of_classes[kind, oid, key], key, real(value), name, where))
            continue
        owner = objects[oid]
        if kind == "content" and not isinstance(value, (dict, list)):
            value = tuple(value)
        elif kind == "content" and isinstance(value, list) and not isinstance(owner, list):
            value = tuple(value)  # a set as a tuple: the order of its elements can matter, too
        reads.append(Read(kind, owner, key, real(value), name, where))
    for (kind, oid, key), (name, before) in ledger.written.items():
        owner = objects.get(oid, replaced.get(oid, gone))
        if owner is not gone and oid in ledger.outside:
            before = replaced.get(before) if before.__class__ is Ref else before
            if kind == "item" and ("content", oid, None) in ledger.entries:
                continue  # put back and made again as a whole
            if kind == "item" and isinstance(owner, list):
                value = list.__getitem__(owner, key if key >= 0 else key + len(ledger.states[oid]))
            else:
                value = own_at(kind, owner, key)
            unchanged = value is before or (is_plain(before) and same(value, before))
            again = (kind, oid, key) in ledger.dropped
            if (kind, oid, key) not in ledger.entries or not unchanged or again:
                made = Effect(kind, owner, key, before, value, name)
                if kind == "item" and ledger.deleted.get(oid):
                    made.whole = ledger.states[oid]
                made.again, made.names = again, ledger.orders.get(id(space_of(kind, owner)))
                (early if oid in objects else lost).append(made)
    widths = _widths(ledger)
    if widths is not None:
        reads.append(widths)
    return reads, early + effects, lost


def _widths(ledger: Ledger) -> Read | None:
    """How many names the classes of the user's have that the function met: a special method may be added."""
    seen: set[type] = set()
    for oid in ledger.outside:
        x = ledger.objects.get(oid)
        kinds = (type(x),) if not isinstance(x, type) else (x, type(x))
        if not seen.issuperset(kinds):
            seen.update(base for kind in kinds for base in kind.__mro__)
    classes = {id(c): c for c in seen if is_own(c.__module__)}
    if not classes:
        return None
    counts = {key: len(c.__dict__) for key, c in classes.items()}
    for kind, oid, key in ledger.written:
        if kind == "attr" and oid in counts:  # as it was before
            before = ledger.written[kind, oid, key][1]
            counts[oid] += (before is not ABSENT) - (key in classes[oid].__dict__)
    names = ", ".join(sorted(c.__name__ for c in classes.values()))
    held = [*counts.values()], [specials(c.__dict__) for c in classes.values()]
    return Read("widths", tuple(classes.values()), None, held, names, None)


def _of_classes(ledger: Ledger) -> dict[tuple[str, int, Any], type]:
    """The classes of objects whose attribute was found there, or nowhere: one of the class, when they are gone."""
    found: dict[tuple[str, int, Any], type] = {}
    for place in ledger.entries:
        x = ledger.objects.get(place[1]) if place[0] == "attr" else None
        if x is not None and not isinstance(x, type) and is_changing(type(x).__module__):
            static = in_class(type(x), place[2])
            if place[2] not in (instance_dict(x) or ()) and not hasattr(type(static), "__get__"):
                found[place] = type(x)
    return found


def _pin(ledger: Ledger) -> None:
    """Containers that were put somewhere must be these again, also where they have been there before."""
    put = [
        own_at(kind, ledger.objects[oid], key) for kind, oid, key in ledger.written if oid in ledger.objects
    ]
    for oid in ledger.touched:
        x = ledger.objects.get(oid, ())
        put += dict.values(x) if isinstance(x, dict) else elements(x)
    while put:
        x = put.pop()
        if isinstance(x, tuple):
            put += elements(x)
        elif isinstance(x, MUTABLE):
            ledger.compared.add(id(x))


def _container_effects(ledger: Ledger) -> list[Effect]:
    """Containers and arrays that are not as they were met; what was not seen to happen counts as a read."""
    effects = []
    for oid, before in list(ledger.states.items()):
        x, name = ledger.objects.get(oid), ledger.names.get(oid, "...")
        if x is None or (is_as(x, before) and oid not in ledger.adds and oid not in ledger.appends):
            continue
        if isinstance(x, np.ndarray):
            if x.dtype.hasobject:
                ledger.odd = f"changes {name}, an array of objects", "keep them in a list"
            ledger.entries.setdefault(
                ("array", oid, None), ["array", oid, None, before.tobytes(), name, None]
            )
            effects.append(Effect("content", x, None, before, contents_of(x), name))
            continue
        place = "content", oid, None
        if place not in ledger.entries:
            grown = _explained(ledger, x, before)
            if grown is not None:
                if grown:
                    effects.append(Effect("extend", x, None, before, grown, ledger.changed[oid]))
                continue
            ledger.entries[place] = ["content", oid, None, before, name, None]
        effects.append(Effect("content", x, None, before, contents_of(x), name))
    for oid, before in ledger.spaces.items():
        x = ledger.objects.get(oid)
        if x is None:
            continue
        owners = ("attr", ledger.dict_of.get(oid)), ("item", oid)
        own = [place[2] for place in ledger.written if place[:2] in owners]
        again = {place[2] for place in ledger.dropped if place[:2] in owners}
        now = contents_of(x)
        rest = {k: v for k, v in now.items() if k not in own}
        order = [k for k in before if k not in again] + [k for k in own if k in again or k not in before]
        if not is_as(rest, {k: v for k, v in before.items() if k not in own}) or not one_order(
            [*now], [k for k in order if k in now]
        ):
            name = ledger.names.get(oid, "...")
            ledger.entries["content", oid, None] = ["content", oid, None, before, name, None]
            effects.append(Effect("content", x, None, before, contents_of(x), name))
    return effects


def _explained(ledger: Ledger, x: Any, before: Any) -> list[Any] | None:
    """The elements added, when elements set and elements added are all that changed; else None."""
    oid = id(x)
    if oid not in ledger.changed:
        return None
    keys = {key for kind, owner, key in ledger.written if kind == "item" and owner == oid}
    if isinstance(x, list):
        n = len(before)
        if count(x) < n:
            return None
        touched = {k if k >= 0 else k + n for k in keys}
        if all(a is b or k in touched for k, (a, b) in enumerate(zip(elements(x), before))):
            return list(elements(x))[n:]
        return None
    if isinstance(x, collections.deque):
        looked, called = ledger.appends.get(oid, (0, 0))
        most = x.maxlen
        if looked != called or not called or (most is not None and called > most):
            return None
        added = list(elements(x))[-called:]
        held = [*before, *added]
        return added if is_as(x, held if most is None else held[-most:]) else None
    if isinstance(x, set):
        row = ledger.adds.get(oid, [])
        return None if any(x is UNKNOWN for x in row) else row
    if isinstance(x, dict):
        if any(k in x for k in ledger.deleted.get(oid, ())):
            return None  # taken out and put in again: at another place of the order
        names = [*before, *(k for k in keys if k not in before)]
        for k in names:
            if k not in keys and dict.get(x, k, ABSENT) is not before[k]:
                return None
        return [] if len(x) == sum(k in x for k in names) else None
    return None
