"""Settings that a trace reads anew at each call, like a learning rate, and the numbers that random generators give."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .ir import Number
from .live import Live, settled


class Settings:
    """The part of a `Trace` that knows items of dicts which graphs read at every call, and draws random numbers."""

    def __init__(self) -> None:
        self.numbers: dict[Any, Number] = {}
        #: what these were when the function read them
        self.settings: list[tuple[dict[str, Any], str, Any]] = []
        self.drawn: dict[int, tuple[Any, int]] = {}
        self.seeds: dict[int, tuple[Any, int]] = {}  # generators that the function seeds
        #: says of an item of a dict whether the function has changed it; of an object, whether it has made it
        self.changed: Any = None
        self.made: Callable[[Any], bool] = lambda x: False
        self._new: dict[int, tuple[Any, bool]] = {}  # what was asked about that

    def number(self, owner: Any, key: str) -> Any:
        if self.changed is not None and self.changed(owner, key):
            return owner[key]  # what it is now follows from what the function has read
        found = self.numbers.get((id(owner), key))
        if found is None:
            value = owner[key]
            if type(value) is Live or self._is_new(owner):
                return value  # what the function made has it at every call
            kind = int if isinstance(value, int) and not isinstance(value, bool) else float
            found = self.numbers[id(owner), key] = Number(owner, key, kind)
            self.settings.append((owner, key, value))
        return found

    def _is_new(self, owner: Any) -> bool:
        found = self._new.get(id(owner))
        if found is None:
            found = self._new[id(owner)] = owner, self.made(owner)
        return found[1]

    @contextmanager
    def before_changes(self) -> Iterator[None]:
        """Settings as they were when they were read, for what runs before the trace has ended."""
        now = [(owner, key, owner[key]) for owner, key, _ in self.settings]
        for owner, key, value in self.settings:
            dict.__setitem__(owner, key, value)
        try:
            yield
        finally:
            for owner, key, value in now:
                dict.__setitem__(owner, key, value)

    def offset(self, generator: Any, count: int) -> tuple[Any, Any]:
        owner, seeded = generator.__dict__, id(generator) in self.seeds
        drawn: Any = self.drawn.get(id(generator), (generator, 0))[1]
        self.drawn[id(generator)] = (generator, drawn + (settled(count) if seeded else count))
        if seeded:
            return self.seeds[id(generator)][1], drawn
        terms = ((drawn._formula(), 1),) if type(drawn) is Live else ()
        return Number(owner, "_seed", int), Number(owner, "_offset", int, 0 if terms else drawn, terms=terms)

    def seed(self, generator: Any, seed: int) -> None:
        seed = settled(seed)
        self.seeds[id(generator)], self.drawn[id(generator)] = (generator, seed), (generator, 0)

    def random_state(self, generator: Any) -> Any:
        return self.seeds.get(id(generator)), self.drawn.get(id(generator), (generator, 0))

    def set_random_state(self, generator: Any, state: Any) -> None:
        seed, self.drawn[id(generator)] = state
        self.seeds.pop(id(generator), None)
        if seed is not None:
            self.seeds[id(generator)] = seed
