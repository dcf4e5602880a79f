"""What is computed from state alone and kept from call to call: packed weights, scales of normalisation, and the like.

A unit's results belong to the memory of the tensors that it reads. Each storage counts its changes, and after every
change in place anywhere `core.storage.writes.last` is another object: a call compares that one object, and only when it
is another one are the counters compared. Units that run the same launches on the same memory are one entry, whichever
variant or function they are in. The bytes of all entries are bounded; those made least recently go first, and an entry
goes with the last graph that uses it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..core import forks
from ..core.backend import Launch, Program, Slot, get_backend
from ..core.flags import size_from_environment
from ..core.storage import writes
from .assemble import Sources, Unit
from .ir import Value

#: bytes that all results together may take
LIMIT = size_from_environment("DUOGRAD_PREPARED_MEMORY", 1 << 30)
_ALIGN = 64


class Recipe(NamedTuple):
    """How to make the results of a unit.

    program: its dynamic values are the addresses of the graph inputs with the numbers `inputs`, of `nbytes` for the
    results, and of `temporary` bytes when that is not 0. key: equal for equal programs. what: in words.
    """

    program: Program
    inputs: tuple[int, ...]
    nbytes: int
    temporary: int
    key: tuple[Any, ...]
    what: str

    def make(self, execute: Any, backend: Any, addresses: Sequence[int]) -> Any:
        """A storage with the results for inputs at these addresses."""
        storage = backend.empty(self.nbytes)
        dynamic = [*addresses, storage.ptr]
        if self.temporary:
            held = backend.empty(self.temporary)
            dynamic.append(held.ptr)
        execute(dynamic)
        return storage


def recipe(
    unit: Unit, sources: Sources, inputs: Sequence[Value], used: set[int]
) -> tuple[Recipe, dict[int, int]]:
    """The recipe of a unit, and where in its memory lie the areas that others use (`used`).

    inputs: those of the graph.
    """
    number = {sources.buffers[v]: k for k, v in enumerate(inputs) if v in sources.buffers}
    read = list(dict.fromkeys(
        arg.source for launch in unit.launches for arg in launch.args
        if isinstance(arg, Slot) and arg.source not in unit.areas
    ))  # fmt: skip
    kept: dict[int, int] = {}
    temporary: dict[int, int] = {}
    sizes = [0, 0]
    for source, nbytes in unit.areas.items():
        which = source not in used
        (temporary if which else kept)[source] = sizes[which]
        sizes[which] += -(-max(nbytes, 1) // _ALIGN) * _ALIGN
    n = len(read)
    places = {s: (k, 0) for k, s in enumerate(read)}
    places |= {s: (n, at) for s, at in kept.items()} | {s: (n + 1, at) for s, at in temporary.items()}
    program = Program(None, n + 1 + bool(sizes[1]))  # type: ignore[arg-type]
    for launch in unit.launches:
        args = [
            Slot(places[a.source][0], places[a.source][1] + a.offset) if isinstance(a, Slot) else a
            for a in launch.args
        ]
        program.launches.append(Launch(launch.source, tuple(args), launch.chunks, launch.wave))
    key = tuple((x.source, x.args, x.wave) for x in program.launches)
    return Recipe(program, tuple(number[s] for s in read), sizes[0], sizes[1], key, unit.what), kept


class Entry:
    """The results of a recipe for certain memory, shared by all who need them."""

    __slots__ = ("__weakref__", "_execute", "backend", "holders", "kept", "made", "recipe", "states")

    def __init__(self, recipe: Recipe, device: str, states: list[tuple[Any, int]]):
        self.recipe, self.states, self.backend = recipe, states, get_backend(device)
        self._execute: Any = None
        #: the storage of the results, and what the counters of the state were before they were made
        self.kept: tuple[Any, tuple[tuple[int, int], ...]] | None = None
        self.holders: weakref.WeakSet[Prepared] = weakref.WeakSet()
        self.made = 0
        for storage, _ in states:
            writes.watch(storage)

    def __del__(self) -> None:
        for storage, _ in self.states:
            writes.unwatch(storage)

    @property
    def execute(self) -> Callable[[Sequence[int]], None]:
        if self._execute is None:
            self._execute = self.backend.load(self.recipe.program).run
        run: Callable[[Sequence[int]], None] = self._execute
        return run

    def get(self) -> tuple[Any, bool]:
        """A storage with the results, and whether it serves later calls too: nobody can change the state unseen."""
        kept = self.kept
        stamps = tuple([(s.version, writes.looks[id(s)]) for s, _ in self.states])
        lasts = not any(s.is_shared() for s, _ in self.states)
        if kept is not None and lasts and kept[1] == stamps:
            return kept[0], True
        storage = self.recipe.make(self.execute, self.backend, [s.ptr + offset for s, offset in self.states])
        self.made += 1
        self.kept = (storage, stamps) if lasts else None
        if lasts:
            cache.count(self)
        return storage, lasts

    def forget(self) -> None:
        """Give the results up; who needs them makes them again."""
        self.kept = None
        for holder in tuple(self.holders):
            holder.now = NEVER


class Cache:
    """All entries by recipe and memory, and the bytes that their results take."""

    def __init__(self, limit: int | None = None):
        self.limit = limit
        self._entries: weakref.WeakValueDictionary[Any, Entry] = weakref.WeakValueDictionary()
        self._rows: dict[int, tuple[Any, int]] = {}  # in the order in which results were made
        self._lock = forks.lock()  # an entry may die in the garbage collector, inside a method here

    @property
    def bound(self) -> int:
        return LIMIT if self.limit is None else self.limit

    @property
    def nbytes(self) -> int:
        """Bytes of all results that are kept."""
        return sum(n for _, n in list(self._rows.values()))

    def entry(self, recipe: Recipe, device: str, states: list[tuple[Any, int]]) -> Entry:
        """The entry of a recipe for memory: (storage, byte offset) of each input."""
        key = device, recipe.key, tuple([(id(s), offset) for s, offset in states])
        with self._lock:
            found = self._entries.get(key)
            if found is None:
                found = self._entries[key] = Entry(recipe, device, states)
            return found

    def count(self, entry: Entry) -> None:
        """An entry has made its results: others give theirs up when that is too much."""
        number = id(entry)
        with self._lock:
            self._rows.pop(number, None)
            self._rows[number] = (
                weakref.ref(entry, lambda _: self._rows.pop(number, None)),
                entry.recipe.nbytes,
            )
            while self.nbytes > self.bound and len(self._rows) > 1:
                oldest = next(iter(self._rows))
                old = self._rows.pop(oldest)[0]()
                if old is not None:
                    old.forget()


cache = Cache()

#: the mark of the state (`writes.last`) for which they hold, addresses, what keeps these alive, and `writes.looked` and
#: the counters of the state when they were made
Now = tuple[Any, list[int], list[Any], Any, list[int]]
NEVER: Now = (None, [], [], None, [])


class Prepared:
    """What a compiled graph has prepared. `now` holds as long as its mark is `writes.last`; else `renew` gives it."""

    __slots__ = ("__weakref__", "_states", "entries", "now")

    def __init__(self, recipes: Sequence[Recipe], tensors: Sequence[Any], device: str):
        self.entries = [
            cache.entry(r, device, [(tensors[k]._storage, tensors[k]._offset) for k in r.inputs])
            for r in recipes
        ]
        self.now = NEVER
        self._states = list({id(s): s for e in self.entries for s, _ in e.states}.values())
        for entry in self.entries:
            entry.holders.add(self)

    def renew(self) -> Now:
        """The results for the state as it is, made again where it has changed."""
        mark, looked = writes.last, writes.looked
        versions = [s.version for s in self._states]
        now = self.now
        if now[3] is looked and now[4] == versions:  # other memory was written
            self.now = now = mark, *now[1:]
            return now
        made = [entry.get() for entry in self.entries]
        storages = [storage for storage, _ in made]
        now = mark, [s.ptr for s in storages], storages, looked, versions
        if all(lasts for _, lasts in made) and all(e.kept is not None for e in self.entries):
            self.now = now
        return now

    def of(self, addresses: Sequence[int]) -> Now:
        """The results for other memory than the state's: the addresses of all inputs of the graph."""
        storages = [
            e.recipe.make(e.execute, e.backend, [addresses[k] for k in e.recipe.inputs]) for e in self.entries
        ]
        return None, [s.ptr for s in storages], storages, None, []
