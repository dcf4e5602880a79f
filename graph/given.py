"""The containers among a call's arguments: found by their paths, watched, lent to a trace, and changed after it."""

from __future__ import annotations

import threading
from collections.abc import KeysView, Mapping
from types import MappingProxyType
from typing import Any

from ..core import forks
from ..core.value import Tensor
from .arguments import Arguments, Fields, Loose, Slot, flatten_plainly, is_record, record_names


class Given:
    """A part of the call's arguments, by its path: positions, keys and names from (args, kwargs) on."""

    __slots__ = ("path",)

    def __init__(self, path: tuple[Any, ...]):
        self.path = path

    def find(self, given: Any) -> Any:
        for step in self.path:
            given = given[step] if isinstance(given, (list, tuple, dict)) else getattr(given, step)
        return given


def children(x: Any) -> list[tuple[Any, Any]] | None:
    """(step, child) of a container: positions, keys or names of attributes."""
    if x.__class__ in (list, tuple) or (isinstance(x, tuple) and hasattr(x, "_fields")):
        return list(enumerate(x))
    if x.__class__ is dict:
        return list(x.items())
    if isinstance(x, Tensor) or not is_record(x):
        return None
    return [(n, getattr(x, n)) for n in record_names(x)]


def put(x: Any, step: Any, child: Any) -> None:
    """Give a container, no tuple, another child in a place that it has."""
    if isinstance(x, (list, dict)):
        x[step] = child
    else:
        object.__setattr__(x, step, child)


def _differ(now: list[tuple[Any, Any]], before: list[tuple[Any, Any]]) -> bool:
    if len(now) != len(before):
        return True
    return any(a[1] is not b[1] or (a[0] is not b[0] and a[0] != b[0]) for a, b in zip(now, before))


class Watch:
    """The containers among arguments, as they were when it began."""

    def __init__(self, given: Any):
        self.found: list[tuple[tuple[Any, ...], Any, list[tuple[Any, Any]]]] = []
        self.paths: dict[int, tuple[Any, ...]] = {}
        self._add((), given)

    def _add(self, path: tuple[Any, ...], x: Any) -> None:
        row = children(x)
        if row is not None and id(x) not in self.paths:
            self.paths[id(x)] = path
            self.found.append((path, x, row))
            for step, child in row:
                self._add((*path, step), child)

    def changes(self) -> list[tuple[Given, list[tuple[Any, Any]]]]:
        """The containers that changed, and their new (step, child); what was there before is found by its path."""
        places = {id(child): (*path, step) for path, _, row in self.found for step, child in row}
        rows = [(path, children(x) or [], before) for path, x, before in self.found]
        return [
            (Given(path), [(s, Given(places[id(x)]) if id(x) in places else x) for s, x in now])
            for path, now, before in rows if _differ(now, before)
        ]  # fmt: skip

    def look(self, frozen: Any) -> list[Any]:
        """What each of them holds now: parts of the arguments by their paths, anything else as `frozen` gives it."""
        return [
            [(step, self.paths.get(id(child)) or frozen(child)) for step, child in children(x) or []]
            for _, x, _ in self.found
        ]

    def restore(self) -> None:
        """Give the containers back what they held."""
        for _, x, before in self.found:
            if _differ(children(x) or [], before):
                change(x, before)


#: those that hold containers now, and the threads that they trace in
_borrowed: dict[int, tuple[Lent, threading.Thread]] = {}
forks.after(_borrowed.clear)
_lock = forks.lock()
#: seconds after which is looked again
_PATIENCE = 1.0


class Lent:
    """`with Lent() as lent:` a call's own containers are arguments of a trace: symbols stand in them meanwhile."""

    #: how often containers were lent
    count = 0

    def __init__(self) -> None:
        self._watch: Watch | None = None
        self.returned = threading.Event()
        self._filled: set[int] = set()
        self._numbers: Mapping[int, Any] = {}

    def __enter__(self) -> Lent:
        return self

    def __exit__(self, *_: object) -> None:
        self.give_back()

    def fill(
        self,
        given: Any,
        kept: Arguments,
        values: list[Any],
        numbers: Mapping[int, Any] = MappingProxyType({}),
    ) -> tuple[Any, Any]:
        """Args and kwargs of a call, in which tensors and loose numbers are replaced by what stands for them."""
        self._numbers = numbers
        while True:
            with _lock:
                watch = Watch(given)
                other = _busy(watch.paths.keys())
                if other is None:
                    self._watch = watch
                    _borrowed[id(self)] = self, threading.current_thread()
                    Lent.count += 1
                    break
            other.returned.wait(_PATIENCE)
        args, kwargs = given
        named = {k: self._fill(x, kept.kwargs[k], values) for k, x in kwargs.items()}
        return self._fill(args, kept.args, values), named

    def _fill(self, x: Any, structure: Any, values: list[Any]) -> Any:
        """x itself; a tuple in which something is replaced is another one."""
        if isinstance(structure, Slot):
            return values[structure.index]
        if isinstance(structure, Loose):
            return self._numbers[structure.index]
        held = children(x)
        if held is None or id(x) in self._filled:
            return x
        parts = structure.values if isinstance(structure, Fields) else structure
        parts = list(parts.values()) if parts.__class__ is dict else list(parts)
        if isinstance(x, tuple):
            row = [self._fill(v, part, values) for v, part in zip(x, parts)]
            if all(a is b for a, b in zip(row, x)):
                return x
            return tuple(row) if x.__class__ is tuple else x.__class__(*row)
        self._filled.add(id(x))
        for (step, child), part in zip(held, parts):
            new = self._fill(child, part, values)
            if new is not child:
                put(x, step, new)
        return x

    def give_back(self) -> None:
        """The containers as they were."""
        if self._watch is not None:
            self._watch.restore()
            self._watch = None
            _borrowed.pop(id(self), None)
            self.returned.set()


def _busy(parts: KeysView[int]) -> Lent | None:
    """What has lent some of these containers to a trace of another thread."""
    for lent, thread in list(_borrowed.values()):
        watch = lent._watch
        if (
            watch is not None
            and thread is not threading.current_thread()
            and not parts.isdisjoint(watch.paths)
        ):
            return lent
    return None


def flatten(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, list[Any], Arguments | None]:
    """`flatten_plainly`, while no trace of another thread has symbols in containers among the arguments."""
    while True:
        count = Lent.count
        if _borrowed and (lent := _busy(Watch((args, kwargs)).paths.keys())) is not None:
            lent.returned.wait(_PATIENCE)
        try:
            found = flatten_plainly(args, kwargs)
        except AttributeError:  # of a symbol
            if count == Lent.count:
                raise
            continue
        if count == Lent.count:
            return found


def containers_of(given: Any) -> tuple[int, ...]:
    """Ids of the containers among args and kwargs of a call."""
    rest = None if given is None else flatten(*given)[2]
    return () if rest is None else rest.containers


def change(target: Any, row: list[tuple[Any, Any]]) -> None:
    """Give a container new contents."""
    if target.__class__ is list:
        target[:] = [value for _, value in row]
    elif target.__class__ is dict:
        target.clear()
        target.update(row)
    else:
        names = [name for name, _ in row]
        for name in record_names(target):
            if name not in names:
                object.__delattr__(target, name)
        for name, value in row:
            object.__setattr__(target, name, value)
        if record_names(target) != tuple(names):  # in their order, which is that of `vars`
            inside = target.__dict__
            inside.update({name: inside.pop(name) for name in names})
